/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/ctl.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

/* A handler and not a blocked signal with a signalfd: libvirt may have threads of its own, which block nothing. */
static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
static struct sigaction before[G_N_ELEMENTS (signals)];
static volatile sig_atomic_t caught;
static void (*volatile last_words) (void);
static int wake[2] = { -1, -1 };
static unsigned depth; /* of begin … end */

static void
on_signal (int number) {
  const int saved = errno;

  /* Who asks twice does not want to wait for what may hang, as a daemon can that we have asked something. */
  if (caught) {
    if (last_words)
      last_words ();
    _exit (CTL_EXIT_INTERRUPTED);
  }
  caught = 1;
  if (write (wake[1], "", 1) < 0) {
    /* The pipe is full: that wakes as well as one byte more would. */
  }
  errno = saved;
}

void
ctl_interrupt_begin (Ctl *ctl) {
  const struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_RESTART };

  if (depth++)
    return;
  if (wake[0] < 0) {
    g_autoptr (GError) error = NULL;

    if (!g_unix_open_pipe (wake, FD_CLOEXEC, &error) || !g_unix_set_fd_nonblocking (wake[1], TRUE, &error))
      g_error ("%s", error->message); /* no descriptors left at start: there is nothing to go on with */
  }
  for (unsigned i = 0; i < G_N_ELEMENTS (signals); i++) {
    sigaction (signals[i], NULL, &before[i]);
    if (before[i].sa_handler != SIG_IGN) /* nohup stays nohup */
      sigaction (signals[i], &action, NULL);
  }
}

gboolean
ctl_interrupted (Ctl *ctl) {
  if (caught)
    ctl->interrupted = TRUE;
  return ctl->interrupted;
}

void
ctl_interrupt_last_words (void (*function) (void)) {
  last_words = function;
}

void
ctl_interrupt_end (Ctl *ctl) {
  if (--depth)
    return;
  for (unsigned i = 0; i < G_N_ELEMENTS (signals); i++)
    sigaction (signals[i], &before[i], NULL);
}

gboolean
ctl_wait (Ctl *ctl, int fd, int timeout_ms) {
  struct pollfd polls[] = { { wake[0], POLLIN, 0 }, { fd, POLLIN, 0 } };

  if (ctl_interrupted (ctl))
    return FALSE;
  if (poll (polls, 2, timeout_ms) < 0)
    return FALSE; /* EINTR: the caller looks at the clock in any case */
  ctl_interrupted (ctl);
  return polls[1].revents != 0;
}
