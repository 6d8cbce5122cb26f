/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A back-end with a host account of its own, a guest, and a reaper. */
#ifndef DOMYBS_TESTS_STAGE_H
#define DOMYBS_TESTS_STAGE_H

#include "guest.h"
#include "reaper.h"

struct stage {
  struct backend *backend;
  struct guest *guest;
  struct reaper reaper;
  GRand *random;
  char *directory, *account_path;
};

/* --window=2G, an account, audits every 30 ms, and these arguments (NULL-terminated). The guest has a session. */
void stage_begin (struct stage *stage, const char *const *arguments);
/* Checks everything; ends the back-end, which must succeed. */
void stage_end (struct stage *stage);

/* guest_check; and all workers that died were killed by us. */
void stage_check (struct stage *stage);

/* How many kills a run is to make: $DOMYBS_KILLS, else `otherwise`. */
unsigned stage_kills (unsigned otherwise);

/* One of the things that happen to a guest, at random. */
void stage_act (struct stage *stage);

/* A line for people who read the test's output. */
void stage_report (struct stage *stage);

#endif
