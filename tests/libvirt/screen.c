/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "screen.h"

#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PLAIN_EVERY_US G_USEC_PER_SEC
#define PLAIN_COLUMNS 120 /* lines into a file are broken here */
#define INDENT 8          /* of what continues a line */

struct Screen {
  FILE *stream;
  gboolean terminal;
  gboolean utf8;
  gboolean live;     /* the cursor is at the end of a live line */
  gint64 printed_at; /* not on a terminal: when a live line was printed last */
  GString *printed;  /* … and what it said, without its first word */
};

Screen *
screen_new (FILE *stream) {
  Screen *screen = g_new0 (Screen, 1);

  screen->stream = stream;
  screen->terminal = isatty (fileno (stream)) && g_strcmp0 (g_getenv ("TERM"), "dumb") != 0;
  screen->utf8 = g_get_charset (NULL);
  screen->printed = g_string_new (NULL);
  return screen;
}

static void
end_live (Screen *screen) {
  if (screen->live)
    fputc ('\n', screen->stream);
  screen->live = FALSE;
}

void
screen_free (Screen *screen) {
  end_live (screen);
  fflush (screen->stream);
  g_string_free (screen->printed, TRUE);
  g_free (screen);
}

unsigned
screen_columns (Screen *screen) {
  struct winsize size;

  if (!screen->terminal || ioctl (fileno (screen->stream), TIOCGWINSZ, &size) || size.ws_col < 20)
    return PLAIN_COLUMNS;
  return size.ws_col;
}

/* One line, broken between words where the terminal ends. */
static void
print_wrapped (Screen *screen, const char *line) {
  const glong columns = screen_columns (screen);
  const gboolean fits = !g_utf8_validate (line, -1, NULL) || g_utf8_strlen (line, -1) <= columns;
  g_auto (GStrv) words = NULL;
  glong at = 0;

  if (fits) {
    fprintf (screen->stream, "%s\n", line);
    return;
  }
  words = g_strsplit (line, " ", -1);
  for (int i = 0; words[i]; i++) {
    const glong length = g_utf8_strlen (words[i], -1);

    if (at && at + 1 + length > columns) {
      fprintf (screen->stream, "\n%*s", INDENT, "");
      at = INDENT;
    } else if (i) {
      fputc (' ', screen->stream);
      at++;
    }
    fputs (words[i], screen->stream);
    at += length;
  }
  fputc ('\n', screen->stream);
}

void
screen_line (Screen *screen, const char *format, ...) {
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;
  va_list args;

  end_live (screen);
  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  lines = g_strsplit (text, "\n", -1);
  for (int i = 0; lines[i]; i++)
    print_wrapped (screen, lines[i]);
  fflush (screen->stream);
}

/* Cut by characters, not bytes: a bar has cells of three bytes. */
static void
cut (char *text, unsigned columns) {
  if (!g_utf8_validate (text, -1, NULL) || g_utf8_strlen (text, -1) <= (glong)columns)
    return;
  *g_utf8_offset_to_pointer (text, columns) = '\0';
}

void
screen_live (Screen *screen, const char *format, ...) {
  const gint64 now = g_get_monotonic_time ();
  g_autofree char *text = NULL;
  const char *news;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  if (screen->terminal) {
    cut (text, screen_columns (screen) - 1);
    fprintf (screen->stream, "\r%s\033[K", text);
    screen->live = TRUE;
  } else {
    /* What follows the time of day: that alone is no news */
    news = strchr (text, ']');
    news = news ? news : text;
    if (now - screen->printed_at < PLAIN_EVERY_US || g_str_equal (screen->printed->str, news))
      return;
    screen->printed_at = now;
    g_string_assign (screen->printed, news);
    fprintf (screen->stream, "%s\n", text);
  }
  fflush (screen->stream);
}

const char *
screen_mark (Screen *screen, ScreenMark mark) {
  static const char *const utf8[] = { "█", "▒", "·" }, *const ascii[] = { "#", "=", "." };

  return screen->utf8 ? utf8[mark] : ascii[mark];
}

void
screen_bar (Screen *screen, char ret_bar[SCREEN_BAR_BYTES], unsigned cells, double full, double half) {
  gsize length = 0;

  cells = MIN (cells, 32);
  length += g_strlcpy (ret_bar, "[", SCREEN_BAR_BYTES);
  for (unsigned i = 0; i < cells; i++) {
    const double middle = (i + 0.5) / cells;
    const ScreenMark mark = middle < full ? SCREEN_FULL : middle < half ? SCREEN_HALF : SCREEN_EMPTY;

    length += g_strlcpy (ret_bar + length, screen_mark (screen, mark), SCREEN_BAR_BYTES - length);
  }
  g_strlcpy (ret_bar + length, "]", SCREEN_BAR_BYTES - length);
}
