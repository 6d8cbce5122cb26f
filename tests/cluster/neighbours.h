/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domybs-far with donors, all on this host and without namespaces, so that tests can get at what donors keep: their arenas
 * are opened through /proc, and changed behind their backs.
 */
#ifndef DOMYBS_TESTS_CLUSTER_NEIGHBOURS_H
#define DOMYBS_TESTS_CLUSTER_NEIGHBOURS_H

#include "donor.h"
#include "load.h"

#define NEIGHBOURS_MAX 4u
/* What must be noticed, moved and made again takes its time on a busy machine. */
#define NEIGHBOURS_PATIENCE_MS (6 * fe_patience_ms ())

struct neighbours {
  struct donor *donors[NEIGHBOURS_MAX];
  char *addresses[NEIGHBOURS_MAX]; /* their own */
  unsigned n_donors;
  bool plain;
  char *folder, *key_path;
  struct far *far;
  struct load load; /* random pages and such of one word: none that packs */
  GRand *random;
};

struct neighbours_options {
  const char *mode;                 /* of protection */
  uint64_t bytes;                   /* of the disk; 0: 16 MiB */
  const char *const *via;           /* where the disk looks for each donor; NULL: its own address */
  const char *const *arguments;     /* of domybs-far, more; may be NULL */
  const char *program, *crash_file; /* as in far_options */
};

/* Starts donors, each with an arena of that many blocks (0: 64). plain: without TLS. */
void neighbours_lend (struct neighbours *n, unsigned n_donors, const unsigned *blocks, bool plain);
/* Starts the disk, and connects. */
void neighbours_borrow (struct neighbours *n, const struct neighbours_options *options);
/* Ends all, in order: at the end the donors that live have nothing of it any more. */
void neighbours_end (struct neighbours *n);

/* Of "copies" in status: "places"; and of one donor there: "damaged". */
int64_t neighbours_copies (struct neighbours *n, const char *member);
int64_t neighbours_donor (struct neighbours *n, unsigned donor, const char *member);
/* Waits until all donors that live are attached, every place has all its copies, and nothing is written or repaired any more.
 */
void neighbours_wait_protected (struct neighbours *n);
/* The first part of that. */
void neighbours_wait_attached (struct neighbours *n);
/* Nothing is repaired or written: what can be done was done. */
void neighbours_wait_quiet (struct neighbours *n);
/* Every page is what was written last, and nothing is lost. */
void neighbours_check (struct neighbours *n);
/* Reads every page by itself. Those that fail are marked as damaged (load.h), all others must be right. Returns how many. */
unsigned neighbours_read_each (struct neighbours *n);
void neighbours_forget_damage (struct neighbours *n);

/* The donor's keeper and worker die, and its arena with them. */
void neighbours_kill (struct neighbours *n, unsigned donor);
/* After that: another one at the same address, with an empty arena of so many blocks (0: 64). */
void neighbours_return (struct neighbours *n, unsigned donor, unsigned blocks);

/* The arena of a donor, opened for reading and writing; −1, and the test is skipped: we may not. */
int neighbours_arena (struct neighbours *n, unsigned donor);

/* True: this takes longer than it is worth every day, and DOMYBS_LONG is not set. */
bool neighbours_leave_out (bool is_long);

/* Waits (bounded) for something that is not timed. */
#define NEIGHBOURS_UNTIL(condition, what)                                                                                      \
  do {                                                                                                                         \
    const int64_t until_ = fe_now_ms () + NEIGHBOURS_PATIENCE_MS;                                                              \
    while (!(condition)) {                                                                                                     \
      if (fe_now_ms () > until_)                                                                                               \
        g_error ("%s:%d: in vain: %s", __FILE__, __LINE__, (what));                                                            \
      g_usleep (5000);                                                                                                         \
    }                                                                                                                          \
  } while (0)

#endif
