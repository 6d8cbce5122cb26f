/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/event-write.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (timer_create), SANDBOX_CALL (timer_settime));

#define PERIOD_NS (EVENT_WRITE_MS * 1000000L)

static void
on_tick (int number) {
  (void)number; /* to interrupt is all */
}

/* Where there can be no timer, an honest peer has its signals all the same. SIGALRM is blocked but for our writes, so that a tick
 * interrupts nothing else; and the kernel winds the timer up again when a tick is taken, so that nobody who is idle is woken. */
static void
make_timer (const sigset_t *ticks) {
  struct sigaction action = { .sa_handler = on_tick }; /* no SA_RESTART: the write is to end */
  struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGALRM };
  const struct itimerspec every = { { 0, PERIOD_NS }, { 0, PERIOD_NS } };
  timer_t timer;

  event._sigev_un._tid = gettid (); /* glibc 2.36 has no other name for it */
  if (pthread_sigmask (SIG_BLOCK, ticks, NULL) == 0 && sigaction (SIGALRM, &action, NULL) == 0
      && timer_create (CLOCK_MONOTONIC, &event, &timer) == 0)
    timer_settime (timer, 0, &every, NULL);
}

bool
event_write (int fd) {
  static _Thread_local bool is_made;
  struct pollfd poll_fd = { .fd = fd, .events = POLLOUT };
  const uint64_t one = 1;
  sigset_t ticks;
  bool good;

  if (poll (&poll_fd, 1, 0) <= 0 || !(poll_fd.revents & POLLOUT))
    return true;
  sigemptyset (&ticks);
  sigaddset (&ticks, SIGALRM);
  if (!is_made)
    make_timer (&ticks);
  is_made = true;
  pthread_sigmask (SIG_UNBLOCK, &ticks, NULL);
  good = write (fd, &one, sizeof one) == sizeof one || errno == EAGAIN || errno == EINTR;
  pthread_sigmask (SIG_BLOCK, &ticks, NULL);
  return good;
}
