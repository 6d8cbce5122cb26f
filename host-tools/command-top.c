/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The live view. On a terminal it is drawn in place and takes keys; elsewhere each look is a table of its own (or, with --json,
 * a line). */
#include "ctl/term.h"
#include "ctl/vm-describe.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define INTERVAL_DEFAULT_S 2.0
#define INTERVAL_MIN_S 0.1
#define INTERVAL_MAX_S 3600.0

typedef enum { SORT_USED, SORT_GRANTED, SORT_NAME } Sort;

/* ---- order ---- */

static guint64
sort_key (const Vm *vm, Sort sort) {
  if (!vm->have_status)
    return 0;
  return sort == SORT_USED ? vm->status.memfd_bytes : sort == SORT_GRANTED ? vm->status.granted_blocks : 0;
}

/* Most first; equals by name, so that lines don't dance. */
static int
compare (gconstpointer a, gconstpointer b, gpointer data) {
  const Vm *left = *(const Vm *const *)a, *right = *(const Vm *const *)b;
  const guint64 l = sort_key (left, *(Sort *)data), r = sort_key (right, *(Sort *)data);

  return l != r ? (l < r ? 1 : -1) : strcmp (left->name, right->name);
}

static gboolean
read_sort (const char *text, Sort *ret_sort, GError **error) {
  static const char *const names[] = { [SORT_USED] = "used", [SORT_GRANTED] = "granted", [SORT_NAME] = "name" };

  for (unsigned i = 0; i < G_N_ELEMENTS (names); i++)
    if (strcmp (text, names[i]) == 0) {
      *ret_sort = i;
      return TRUE;
    }
  g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "top: --sort: '%s' is none of used, granted, name", text);
  return FALSE;
}

/* ---- one look ---- */

static char *
size_or_dash (guint64 bytes) {
  return bytes == VM_UNKNOWN ? g_strdup ("-") : text_size_short (bytes);
}

static char *
heading (GPtrArray *vms) {
  g_autoptr (GDateTime) now = g_date_time_new_now_local ();
  g_autofree char *time = g_date_time_format (now, "%H:%M:%S");
  g_autofree char *total = NULL, *available = NULL, *granted = NULL, *used = NULL, *limit = NULL;
  VmTotals totals;

  vm_totals (vms, &totals);
  total = size_or_dash (totals.host_total_bytes);
  available = size_or_dash (totals.host_available_bytes);
  granted = size_or_dash (totals.granted_bytes);
  used = size_or_dash (totals.used_bytes);
  limit = size_or_dash (totals.host_limit_bytes);
  return g_strdup_printf ("%s  host: %s of %s available  VMs: %u running of %u, %s granted, %s really used, at most %s", time,
                          available, total, totals.running, totals.attached, granted, used, limit);
}

static char *
table_text (GPtrArray *vms, int columns) {
  g_autoptr (TextTable) table = vm_table_new (vms);

  return text_table_format (table, columns);
}

static void
json_look (Ctl *ctl, GPtrArray *vms) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_set_member_name (builder, "time-ms");
  json_builder_add_int_value (builder, g_get_real_time () / 1000);
  json_builder_set_member_name (builder, "domains");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < vms->len; i++)
    vm_json (ctl, vms->pdata[i]);
  json_builder_end_array (builder);
  ctl_json_flush (ctl);
}

/* Draws from the top left corner; each line is wiped behind what it gets, so that nothing flickers. */
static void
draw (GPtrArray *vms, int columns, int lines) {
  g_autofree char *head = heading (vms), *table = table_text (vms, columns);
  g_auto (GStrv) rows = g_strsplit (table, "\n", -1);
  g_autoptr (GString) out = g_string_new ("\x1b[H");
  int line = 0;

  while (columns > 0 && text_width (head) > columns)
    *g_utf8_prev_char (head + strlen (head)) = 0;
  g_string_append_printf (out, "%s\x1b[K", head);
  for (line = 1; rows[line - 1] && *rows[line - 1] && (lines <= 0 || line < lines); line++)
    g_string_append_printf (out, "\r\n%s\x1b[K", rows[line - 1]);
  g_string_append (out, "\x1b[J");
  g_print ("%s", out->str);
}

/* ---- the terminal ---- */

static struct termios before;
static volatile gboolean is_raw;

/* As it was before; may be called in a signal handler. */
static void
leave_screen (void) {
  static const char cursor_on_and_old_screen[] = "\x1b[?25h\x1b[?1049l";

  if (!is_raw)
    return;
  tcsetattr (STDIN_FILENO, TCSANOW, &before);
  if (write (STDOUT_FILENO, cursor_on_and_old_screen, sizeof cursor_on_and_old_screen - 1) < 0) {
    /* The terminal has gone: there is nothing to be restored. */
  }
  is_raw = FALSE;
}

static gboolean
enter_screen (void) {
  struct termios keys;

  if (tcgetattr (STDIN_FILENO, &before) != 0)
    return FALSE;
  keys = before;
  keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
  keys.c_cc[VMIN] = 0;
  keys.c_cc[VTIME] = 0;
  keys.c_cc[VSUSP] = _POSIX_VDISABLE; /* a shell in the middle of our screen helps nobody */
  if (tcsetattr (STDIN_FILENO, TCSANOW, &keys) != 0)
    return FALSE;
  is_raw = TRUE;
  ctl_interrupt_last_words (leave_screen);
  g_print ("\x1b[?1049h\x1b[?25l");
  return TRUE;
}

typedef enum { KEY_NONE, KEY_QUIT, KEY_SORT } Key;

static Key
read_key (void) {
  char c;
  const ssize_t n = read (STDIN_FILENO, &c, 1);

  if (n < 0 && (errno == EINTR || errno == EAGAIN))
    return KEY_NONE;
  if (n <= 0)
    return KEY_QUIT; /* it was readable: the terminal has gone */
  return c == 'q' || c == 'Q' ? KEY_QUIT : c == 's' || c == 'S' ? KEY_SORT : KEY_NONE;
}

/* ---- the loop ---- */

typedef struct {
  double interval_s;
  int count; /* looks; 0: without end */
  Sort sort;
  gboolean live; /* a screen that is drawn in place */
} View;

/* Waits for the next look. FALSE: the user wants no more. */
static gboolean
wait_for_next (Ctl *ctl, View *view) {
  const gint64 until = g_get_monotonic_time () + (gint64)(view->interval_s * 1e6);
  gint64 left;

  while ((left = until - g_get_monotonic_time ()) > 0 && !ctl_interrupted (ctl)) {
    if (!ctl_wait (ctl, view->live ? STDIN_FILENO : -1, (int)(left / 1000 + 1)))
      continue;
    switch (read_key ()) {
    case KEY_QUIT:
      return FALSE;
    case KEY_SORT:
      view->sort = (view->sort + 1) % (SORT_NAME + 1);
      return TRUE;
    case KEY_NONE:
      break;
    }
  }
  return !ctl_interrupted (ctl);
}

static gboolean
look (Ctl *ctl, ctl_connect_t *connection, const View *view, GError **error) {
  g_autoptr (GPtrArray) vms = vm_gather (connection, FALSE, error);
  Sort sort = view->sort;
  int columns, lines;

  if (!vms)
    return FALSE;
  vm_ask_all (vms);
  g_ptr_array_sort_with_data (vms, compare, &sort);
  term_size (STDOUT_FILENO, &columns, &lines);
  if (ctl->json) {
    json_look (ctl, vms);
  } else if (view->live) {
    draw (vms, columns, lines);
  } else {
    g_autofree char *head = heading (vms), *table = table_text (vms, columns);

    g_print ("%s\n%s\n", head, table);
  }
  return TRUE;
}

gboolean
command_top (Ctl *ctl, int argc, char **argv, GError **error) {
  View view = { .interval_s = INTERVAL_DEFAULT_S };
  g_autofree char *sort = NULL;
  const GOptionEntry entries[] = {
    { "interval", 'i', 0, G_OPTION_ARG_DOUBLE, &view.interval_s, "Look this often (2)", "SECONDS" },
    { "count", 'n', 0, G_OPTION_ARG_INT, &view.count, "End after so many looks", "N" },
    { "sort", 's', 0, G_OPTION_ARG_STRING, &sort, "Order: used, granted or name (used); key s changes it", "BY" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (ctl_connect_t) connection = NULL;
  gboolean ok = TRUE;

  if (!ctl_parse (ctl, entries, &argc, &argv, 0, 0, error) || (sort && !read_sort (sort, &view.sort, error)))
    return FALSE;
  if (!isfinite (view.interval_s) || view.interval_s < INTERVAL_MIN_S || view.interval_s > INTERVAL_MAX_S || view.count < 0) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE,
                 "top: --interval is between 0.1 and 3600 seconds, and --count is not negative");
    return FALSE;
  }
  connection = ctl_connect (ctl, CTL_READS, error);
  if (!connection)
    return FALSE;
  ctl_interrupt_begin (ctl);
  /* With an end to it, what was seen is to stay on the screen. */
  view.live = !ctl->json && !view.count && term_is_live (STDOUT_FILENO) && isatty (STDIN_FILENO) && enter_screen ();
  for (int n = 1; ok; n++) {
    ok = look (ctl, connection, &view, error);
    if (ok && ((view.count && n >= view.count) || !wait_for_next (ctl, &view)))
      break;
  }
  leave_screen ();
  ctl_interrupt_end (ctl);
  return ok;
}
