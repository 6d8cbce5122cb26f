/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/error.h"

#include <errno.h>

G_DEFINE_QUARK (domybs-error-quark, domybs_error)

void
domybs_error_errno (GError **error, const char *format, ...) {
  const int saved = errno;
  g_autofree char *what = NULL;
  va_list args;

  va_start (args, format);
  what = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "%s: %s", what, g_strerror (saved));
  errno = saved;
}
