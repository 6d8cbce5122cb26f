/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread that kills workers: at an instant that was asked for, microseconds after something that the front-end did, and again while
 * the next one starts. It watches the request queue's used index itself, so that it sees the first answer after a kill whatever the
 * front-end's thread is doing meanwhile.
 */
#ifndef DOMYBS_TESTS_REAPER_H
#define DOMYBS_TESTS_REAPER_H

#include "frontend.h"
#include "process.h"

#define REAPER_CHAIN_MAX 4

struct reaper_plan {
  uint32_t after_us;                    /* from the call of reaper_arm to the first kill */
  unsigned again;                       /* how many more */
  uint32_t again_us[REAPER_CHAIN_MAX];  /* from the moment at which the next worker is there */
};

struct reaper {
  struct backend *backend;
  GThread *thread;
  GMutex mutex;
  GCond cond;
  bool armed, quit;
  struct reaper_plan plan;
  int64_t at_us;
  const volatile uint16_t *avail, *used; /* of the request queue; NULL: nothing to watch */
  volatile gint kills; /* workers that were ended */
  GArray *blackouts;   /* int64_t µs, from a kill of a worker that served to the next answer; only of kills with a request in flight */
  GArray *chains;      /* the same, of kills that were followed by another one: from the first */
  int64_t last_kill_us;
};

void reaper_start (struct reaper *reaper, struct backend *backend);
void reaper_stop (struct reaper *reaper);

/* Which ring counts. NULL before its memory is given back or zeroed: what is measured then is dropped. */
void reaper_watch (struct reaper *reaper, const struct fe_queue *queue);

/* False when it is still busy with the plan before. */
bool reaper_arm (struct reaper *reaper, const struct reaper_plan *plan);
bool reaper_is_busy (struct reaper *reaper);
/* Until it is not. */
void reaper_wait (struct reaper *reaper);

/* Sorts values; the quantile q (0 … 1) of them, 0 where there are none. */
int64_t reaper_quantile (GArray *values, double q);
/* "p50 12.3 ms, p99 …" */
char *reaper_summary (GArray *values);

#endif
