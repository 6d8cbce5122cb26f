/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/ctl.h"
#include "ctl/term.h"
#include "ctl/text.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_COLUMNS 24

struct CtlProgress {
  gboolean shown; /* something stands on the line now */
  gboolean live;
  char *label;
  unsigned turns; /* of the bar whose end is not known */
};

CtlProgress *
ctl_progress_new (Ctl *ctl, const char *label) {
  CtlProgress *progress = g_new0 (CtlProgress, 1);

  progress->live = !ctl->quiet && term_is_live (STDERR_FILENO);
  progress->label = ctl_escape (label);
  return progress;
}

void
ctl_progress_show (CtlProgress *progress, double done, const char *text) {
  const gboolean utf8 = term_is_utf8 ();
  const char *full = utf8 ? "█" : "#", *empty = utf8 ? "░" : "-";
  const int filled = (int)(CLAMP (done, 0, 1) * BAR_COLUMNS + 0.5);
  const int spot = (int)(progress->turns++ % BAR_COLUMNS);
  g_autoptr (GString) line = g_string_new (NULL);
  g_autofree char *clean = ctl_escape (text);
  int columns, lines;
  const char *end;

  if (!progress->live)
    return;
  g_string_append_printf (line, "%s  ", progress->label);
  for (int i = 0; i < BAR_COLUMNS; i++)
    g_string_append (line, (done < 0 ? i == spot : i < filled) ? full : empty);
  g_string_append_printf (line, "  %s", clean);
  /* A line that wraps can't be written over: cut it. */
  term_size (STDERR_FILENO, &columns, &lines);
  for (end = line->str; *end && columns > 0; end = g_utf8_next_char (end)) {
    g_autofree char *head = g_strndup (line->str, (size_t)(g_utf8_next_char (end) - line->str));

    if (text_width (head) >= columns)
      break;
  }
  if (columns > 0)
    g_string_truncate (line, (gsize)(end - line->str));
  g_printerr ("\r%s\x1b[K", line->str);
  progress->shown = TRUE;
}

void
ctl_progress_end (CtlProgress *progress) {
  if (progress->shown)
    g_printerr ("\r\x1b[K");
  g_free (progress->label);
  g_free (progress);
}
