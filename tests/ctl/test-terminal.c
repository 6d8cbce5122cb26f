/* SPDX-License-Identifier: GPL-2.0-or-later */
/* On a terminal: the bar, the live view and its keys, and that the terminal is left as it was. */
#include "ctl-scene.h"
#include "ctl/text.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>

typedef struct {
  pid_t pid;
  int fd, slave; /* the slave stays open here: what the program leaves can be looked at */
  GString *seen;
  struct termios before;
} Terminal;

static Terminal
terminal_start (Scene *scene, int columns, const char *term, const char *const *arguments) {
  const struct winsize size = { .ws_row = 24, .ws_col = (unsigned short)columns };
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  Terminal terminal = { .seen = g_string_new (NULL) };

  g_ptr_array_add (argv, (gpointer)g_getenv ("DOMYBSCTL"));
  g_ptr_array_add (argv, (gpointer) "-c");
  g_ptr_array_add (argv, (gpointer)scene_uri (scene));
  for (; *arguments; arguments++)
    g_ptr_array_add (argv, (gpointer)*arguments);
  g_ptr_array_add (argv, NULL);
  setenv ("TERM", term, 1);
  setenv ("LC_ALL", "C.UTF-8", 1);
  g_assert_cmpint (openpty (&terminal.fd, &terminal.slave, NULL, NULL, &size), ==, 0);
  g_assert_cmpint (tcgetattr (terminal.slave, &terminal.before), ==, 0);
  terminal.pid = fork ();
  g_assert_cmpint (terminal.pid, >=, 0);
  if (terminal.pid == 0) {
    close (terminal.fd);
    login_tty (terminal.slave);
    execv (argv->pdata[0], (char **)argv->pdata);
    _exit (127);
  }
  return terminal;
}

/* Reads what it says, for that long or until it has said text (NULL: for that long). */
static gboolean
terminal_wait (Terminal *terminal, const char *text, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  while (!text || !strstr (terminal->seen->str, text)) {
    struct pollfd readable = { terminal->fd, POLLIN, 0 };
    char bytes[4096];
    ssize_t n;

    if (poll (&readable, 1, 20) > 0) {
      n = read (terminal->fd, bytes, sizeof bytes);
      if (n > 0)
        g_string_append_len (terminal->seen, bytes, n);
    }
    if (fe_now_ms () > deadline)
      return FALSE;
  }
  return TRUE;
}

/* Waits until it has ended; returns its exit status. The terminal must be as it was. */
static int
terminal_finish (Terminal *terminal) {
  const int64_t deadline = fe_now_ms () + 4 * fe_patience_ms ();
  struct termios after;
  int status;

  while (waitpid (terminal->pid, &status, WNOHANG) == 0) {
    terminal_wait (terminal, NULL, 20);
    if (fe_now_ms () > deadline) {
      kill (terminal->pid, SIGKILL);
      g_error ("it does not end: %s", terminal->seen->str);
    }
  }
  terminal_wait (terminal, NULL, 50);
  g_assert_cmpint (tcgetattr (terminal->slave, &after), ==, 0);
  g_assert_cmpuint (after.c_lflag, ==, terminal->before.c_lflag);
  g_assert_cmpuint (after.c_cc[VSUSP], ==, terminal->before.c_cc[VSUSP]);
  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}

static void
terminal_clear (Terminal *terminal) {
  g_autofree char *clean = ctl_escape (terminal->seen->str);

  g_test_message ("%.1500s", clean);
  close (terminal->fd);
  close (terminal->slave);
  g_string_free (terminal->seen, TRUE);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Terminal, terminal_clear)

static void
press (Terminal *terminal, const char *keys) {
  g_assert_cmpint (write (terminal->fd, keys, strlen (keys)), ==, (ssize_t)strlen (keys));
}

static const GuestHabits slow = { .step_blocks = 8, .pause_ms = 20 };

static void
draws_a_bar (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 100, "xterm", ARGS ("grow", "vm1", "256M"));
  const char *last;

  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
  g_assert_nonnull (strstr (terminal.seen->str, "\rvm1  "));
  g_assert_nonnull (strstr (terminal.seen->str, "░"));
  g_assert_nonnull (strstr (terminal.seen->str, "of 256M, "));
  /* wiped before the result is printed, and no colour anywhere */
  last = strstr (terminal.seen->str, "\r\033[KDomain 'vm1' has 256M");
  g_assert_nonnull (last);
  g_assert_null (strchr (last + 4, '\033'));
  g_assert_null (strstr (terminal.seen->str, "\033[3"));
}

static void
keeps_the_bar_on_its_line (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 20, "xterm", ARGS ("grow", "vm1", "128M"));
  g_auto (GStrv) parts = NULL;

  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
  parts = g_strsplit (terminal.seen->str, "\r", -1);
  for (unsigned i = 0; parts[i]; i++) {
    char *end = strstr (parts[i], "\033[K");

    if (!end || end == parts[i])
      continue;
    *end = 0;
    g_assert_cmpint (text_width (parts[i]), <, 20);
  }
}

static void
draws_no_bar (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) dumb = terminal_start (stage.scene, 80, "dumb", ARGS ("grow", "vm1", "64M"));

  g_assert_cmpint (terminal_finish (&dumb), ==, 0);
  g_assert_null (strchr (dumb.seen->str, '\033'));
  g_auto (Terminal) quiet = terminal_start (stage.scene, 80, "xterm", ARGS ("shrink", "-q", "vm1", "0"));
  g_assert_cmpint (terminal_finish (&quiet), ==, 0);
  g_assert_cmpstr (quiet.seen->str, ==, "");
}

static void
ends_the_bar_on_ctrl_c (void) {
  const GuestHabits slower = { .step_blocks = 1, .pause_ms = 200 };
  g_auto (Stage) stage = stage_new (&slower, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 100, "xterm", ARGS ("grow", "vm1", "1G"));

  g_assert_true (terminal_wait (&terminal, "░", fe_patience_ms ()));
  press (&terminal, "\003");
  g_assert_cmpint (terminal_finish (&terminal), ==, 130);
  g_assert_nonnull (strstr (terminal.seen->str, "\r\033[Kdomybsctl: interrupted: domain 'vm1': has "));
}

static void
watches_until_q (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 100, "xterm", ARGS ("top", "--interval=0.2"));
  struct termios now;

  g_assert_true (terminal_wait (&terminal, "vm1", fe_patience_ms ()));
  g_assert_cmpint (tcgetattr (terminal.slave, &now), ==, 0);
  g_assert_cmpuint (now.c_cc[VSUSP], ==, _POSIX_VDISABLE);
  press (&terminal, "xs\032"); /* an unknown key, another order, and Ctrl-Z */
  g_usleep (300000);
  press (&terminal, "q");
  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
  g_assert_true (g_str_has_prefix (terminal.seen->str, "\033[?1049h\033[?25l"));
  g_assert_true (g_str_has_suffix (terminal.seen->str, "\033[?25h\033[?1049l"));
}

static void
watches_until_ctrl_c (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 40, "xterm", ARGS ("top"));

  g_assert_true (terminal_wait (&terminal, "vm1", fe_patience_ms ()));
  press (&terminal, "\003");
  g_assert_cmpint (terminal_finish (&terminal), ==, 130);
  g_assert_true (g_str_has_suffix (terminal.seen->str, "\033[?25h\033[?1049l"));
}

/* A back-end that goes away is no error of the view, but a line in it. */
static void
goes_on_without_a_back_end (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 100, "xterm", ARGS ("top", "--interval=0.2"));

  g_assert_true (terminal_wait (&terminal, "vm1", fe_patience_ms ()));
  g_clear_pointer (&stage.guest, guest_stop);
  backend_kill (stage.backend);
  g_assert_true (terminal_wait (&terminal, "(gone)\033[K", fe_patience_ms ()));
  press (&terminal, "q");
  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
}

static void
prints_tables_with_an_end (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 100, "xterm", ARGS ("top", "--count=1"));

  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
  g_assert_null (strchr (terminal.seen->str, '\033'));
  g_assert_nonnull (strstr (terminal.seen->str, "vm1"));
}

static void
draws_blocks_as_wide_as_it_is (void) {
  g_auto (Stage) stage = stage_new (&slow, NULL);
  g_auto (Terminal) terminal = terminal_start (stage.scene, 50, "xterm", ARGS ("blocks", "vm1"));

  g_assert_cmpint (terminal_finish (&terminal), ==, 0);
  g_assert_nonnull (strstr (terminal.seen->str, "· free up to 4G"));
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/terminal/draws-a-bar", draws_a_bar);
  g_test_add_func ("/terminal/keeps-the-bar-on-its-line", keeps_the_bar_on_its_line);
  g_test_add_func ("/terminal/draws-no-bar", draws_no_bar);
  g_test_add_func ("/terminal/ends-the-bar-on-ctrl-c", ends_the_bar_on_ctrl_c);
  g_test_add_func ("/terminal/watches-until-q", watches_until_q);
  g_test_add_func ("/terminal/watches-until-ctrl-c", watches_until_ctrl_c);
  g_test_add_func ("/terminal/goes-on-without-a-back-end", goes_on_without_a_back_end);
  g_test_add_func ("/terminal/prints-tables-with-an-end", prints_tables_with_an_end);
  g_test_add_func ("/terminal/draws-blocks-as-wide-as-it-is", draws_blocks_as_wide_as_it_is);
  return g_test_run ();
}
