/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "reaper.h"

#include <sys/prctl.h>
#include <time.h>

/* How often it looks, while it waits for a worker to appear or for an answer. */
#define LOOK_US 60

static void
sleep_until (int64_t us) {
  const struct timespec at = { us / 1000000, us % 1000000 * 1000 };

  while (clock_nanosleep (CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL) != 0)
    ;
}

/* What the used index is, and whether a request waits. False: nothing is watched. */
static bool
look (struct reaper *reaper, uint16_t *ret_used, bool *ret_waits) {
  bool watched;

  g_mutex_lock (&reaper->mutex);
  watched = reaper->used != NULL;
  if (watched) {
    *ret_used = reaper->used[1];
    *ret_waits = reaper->avail[1] != *ret_used;
  }
  g_mutex_unlock (&reaper->mutex);
  return watched;
}

/* Ends the worker that there is, or the next one that there will be. */
static bool
kill_one (struct reaper *reaper) {
  for (;;) {
    const pid_t worker = backend_wait_worker (reaper->backend, 0, fe_patience_ms ());

    if (!worker)
      return false;
    reaper->last_kill_us = g_get_monotonic_time ();
    if (backend_kill_worker (worker)) {
      g_atomic_int_inc (&reaper->kills);
      return true;
    }
  }
}

static void
carry_out (struct reaper *reaper) {
  int64_t first_us;
  uint16_t used, now_used;
  bool waits, watched;

  sleep_until (reaper->at_us);
  if (!kill_one (reaper))
    return; /* the front-end's thread sees it, too, and can say more */
  first_us = reaper->last_kill_us;
  watched = look (reaper, &used, &waits) && waits;
  for (unsigned i = 0; i < reaper->plan.again; i++) {
    if (!backend_wait_worker (reaper->backend, 0, fe_patience_ms ()))
      return;
    sleep_until (g_get_monotonic_time () + reaper->plan.again_us[i]);
    if (!kill_one (reaper))
      return;
    watched = look (reaper, &used, &waits) && waits && watched;
  }
  while (watched && g_get_monotonic_time () - first_us < 20000000) {
    if (!look (reaper, &now_used, &waits))
      return;
    if (now_used != used) {
      const int64_t took = g_get_monotonic_time () - first_us;

      g_array_append_val (reaper->plan.again ? reaper->chains : reaper->blackouts, took);
      return;
    }
    sleep_until (g_get_monotonic_time () + LOOK_US);
  }
}

static gpointer
reap (gpointer data) {
  struct reaper *reaper = data;

  prctl (PR_SET_TIMERSLACK, 1000); /* ns: an instant is meant to the microsecond */
  g_mutex_lock (&reaper->mutex);
  while (!reaper->quit) {
    if (!reaper->armed) {
      g_cond_wait (&reaper->cond, &reaper->mutex);
      continue;
    }
    g_mutex_unlock (&reaper->mutex);
    carry_out (reaper);
    g_mutex_lock (&reaper->mutex);
    reaper->armed = false;
    g_cond_broadcast (&reaper->cond);
  }
  g_mutex_unlock (&reaper->mutex);
  return NULL;
}

void
reaper_start (struct reaper *reaper, struct backend *backend) {
  *reaper = (struct reaper){ .backend = backend };
  g_mutex_init (&reaper->mutex);
  g_cond_init (&reaper->cond);
  reaper->blackouts = g_array_new (FALSE, FALSE, sizeof (int64_t));
  reaper->chains = g_array_new (FALSE, FALSE, sizeof (int64_t));
  reaper->thread = g_thread_new ("reaper", reap, reaper);
}

void
reaper_stop (struct reaper *reaper) {
  g_mutex_lock (&reaper->mutex);
  reaper->quit = true;
  g_cond_broadcast (&reaper->cond);
  g_mutex_unlock (&reaper->mutex);
  g_thread_join (reaper->thread);
  g_array_unref (reaper->blackouts);
  g_array_unref (reaper->chains);
  g_mutex_clear (&reaper->mutex);
  g_cond_clear (&reaper->cond);
}

void
reaper_watch (struct reaper *reaper, const struct fe_queue *queue) {
  g_mutex_lock (&reaper->mutex);
  reaper->avail = queue ? queue->avail : NULL;
  reaper->used = queue ? queue->used : NULL;
  g_mutex_unlock (&reaper->mutex);
}

bool
reaper_arm (struct reaper *reaper, const struct reaper_plan *plan) {
  bool ok;

  g_mutex_lock (&reaper->mutex);
  ok = !reaper->armed;
  if (ok) {
    reaper->plan = *plan;
    reaper->at_us = g_get_monotonic_time () + plan->after_us;
    reaper->armed = true;
    g_cond_broadcast (&reaper->cond);
  }
  g_mutex_unlock (&reaper->mutex);
  return ok;
}

bool
reaper_is_busy (struct reaper *reaper) {
  bool busy;

  g_mutex_lock (&reaper->mutex);
  busy = reaper->armed;
  g_mutex_unlock (&reaper->mutex);
  return busy;
}

void
reaper_wait (struct reaper *reaper) {
  g_mutex_lock (&reaper->mutex);
  while (reaper->armed)
    g_cond_wait (&reaper->cond, &reaper->mutex);
  g_mutex_unlock (&reaper->mutex);
}

static gint
compare (gconstpointer a, gconstpointer b) {
  const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

  return x < y ? -1 : x > y;
}

int64_t
reaper_quantile (GArray *values, double q) {
  if (values->len == 0)
    return 0;
  g_array_sort (values, compare);
  return g_array_index (values, int64_t, (guint)(q * (values->len - 1) + 0.5));
}

char *
reaper_summary (GArray *values) {
  return g_strdup_printf ("%u measured: p50 %.1f ms, p99 %.1f ms, longest %.1f ms", values->len,
                          (double)reaper_quantile (values, 0.5) / 1000, (double)reaper_quantile (values, 0.99) / 1000,
                          (double)reaper_quantile (values, 1) / 1000);
}
