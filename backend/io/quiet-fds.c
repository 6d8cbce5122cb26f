/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/quiet-fds.h"
#include "io/sandbox-calls.h"
#include "io/source.h"

#include <sys/epoll.h>
#include <unistd.h>

SANDBOX_CALLS (SANDBOX_CALL (epoll_create1), SANDBOX_CALL (epoll_ctl), SANDBOX_CALL (epoll_pwait));

/* On others, while it was silent, until a descriptor rests; more where more are awake: each of those has its turn before. */
#define EVENTS_A_ROUND 64u
#define WOKEN_AT_ONCE 16

struct QuietFds {
  GMainContext *context;
  int fd; /* −1: none can be had, and nothing rests */
  GSource *source;
  QuietFd *first;
  guint events; /* in this round */
  guint awake;  /* that do not rest */
  QuietFds *next;
};

/* Of all threads: what was made in one may well be ended by another, when that one has ended. */
static GMutex sets_lock;
static QuietFds *sets;

static gboolean
on_input (int fd, GIOCondition condition, gpointer data) {
  struct epoll_event events[WOKEN_AT_ONCE];
  const int n = epoll_pwait (fd, events, WOKEN_AT_ONCE, 0, NULL);

  for (int i = 0; i < n; i++)
    quiet_fd_wake (events[i].data.ptr); /* nobody's function is called by that, so that none of the others can end */
  return G_SOURCE_CONTINUE;
}

static QuietFds *
find_set (void) {
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();
  QuietFds *set;

  g_mutex_lock (&sets_lock);
  for (set = sets; set && set->context != context;)
    set = set->next;
  if (!set) {
    set = g_new0 (QuietFds, 1);
    set->context = g_steal_pointer (&context);
    set->fd = epoll_create1 (EPOLL_CLOEXEC);
    if (set->fd >= 0)
      set->source = source_fd (set->context, set->fd, G_IO_IN, on_input, set);
    set->next = sets;
    sets = set;
  }
  g_mutex_unlock (&sets_lock);
  return set;
}

static void
free_set (QuietFds *set) {
  QuietFds **link = &sets;

  g_mutex_lock (&sets_lock);
  while (*link != set)
    link = &(*link)->next;
  *link = set->next;
  g_mutex_unlock (&sets_lock);
  source_clear (&set->source);
  if (set->fd >= 0)
    close (set->fd);
  g_main_context_unref (set->context);
  g_free (set);
}

void
quiet_fd_init (QuietFd *quiet, int fd, const QuietFdKind *kind, gpointer owner) {
  QuietFds *const set = find_set ();

  *quiet = (QuietFd){ .set = set, .kind = kind, .owner = owner, .fd = fd, .next = set->first, .link = &set->first };
  if (quiet->next)
    quiet->next->link = &quiet->next;
  set->first = quiet;
  set->awake++;
}

/* TRUE: it did rest. */
static gboolean
stop_resting (QuietFd *quiet) {
  if (!quiet->resting)
    return FALSE;
  quiet->resting = FALSE;
  quiet->set->awake++;
  epoll_ctl (quiet->set->fd, EPOLL_CTL_DEL, quiet->fd, NULL);
  return TRUE;
}

void
quiet_fd_clear (QuietFd *quiet) {
  QuietFds *const set = quiet->set;

  if (!set)
    return;
  stop_resting (quiet);
  set->awake--;
  *quiet->link = quiet->next;
  if (quiet->next)
    quiet->next->link = quiet->link;
  quiet->set = NULL;
  if (!set->first)
    free_set (set);
}

void
quiet_fd_wake (QuietFd *quiet) {
  if (!stop_resting (quiet))
    return;
  quiet->busy = TRUE;
  quiet->kind->wake (quiet->owner);
}

static void
put_to_rest (QuietFds *set) {
  for (QuietFd *quiet = set->first; quiet; quiet = quiet->next) {
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = quiet };

    if (!quiet->busy && !quiet->resting && epoll_ctl (set->fd, EPOLL_CTL_ADD, quiet->fd, &event) == 0) {
      quiet->resting = TRUE;
      set->awake--;
      if (!quiet->kind->rest (quiet->owner))
        stop_resting (quiet);
    }
    quiet->busy = FALSE;
  }
}

void
quiet_fd_busy (QuietFd *quiet) {
  QuietFds *const set = quiet->set;

  quiet->busy = TRUE;
  if (++set->events < MAX (EVENTS_A_ROUND, 2 * set->awake) || set->fd < 0)
    return;
  set->events = 0;
  put_to_rest (set);
}
