/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/term.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void
term_size (int fd, int *ret_columns, int *ret_lines) {
  struct winsize size;
  const gboolean known = isatty (fd) && ioctl (fd, TIOCGWINSZ, &size) == 0;

  *ret_columns = known ? size.ws_col : 0;
  *ret_lines = known ? size.ws_row : 0;
}

gboolean
term_is_live (int fd) {
  const char *kind = g_getenv ("TERM");

  return isatty (fd) && kind && *kind && strcmp (kind, "dumb") != 0;
}

gboolean
term_is_utf8 (void) {
  return g_get_charset (NULL);
}
