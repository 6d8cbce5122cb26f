/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The donor's worker dies: in the program that is built with crash points, at each point of each operation of a borrower, one
 * after the other, and at random points, the next worker again while it starts. What was answered holds, what was not is asked
 * for again; all blocks are those that were written, and none is lost to the arena.
 */
#include "donor.h"
#include "frontend.h"
#include "testing.h"

#include "io/crash-point.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define ARENA_BLOCKS 16u
#define EXPORT_BLOCKS 24u
#define POINTS_MAX 200u /* of one operation: more is an operation without an end */
#define TRIES 16u

struct side {
  struct borrower borrower;
  guint64 stamps[EXPORT_BLOCKS]; /* 0: nothing */
  guint64 level;
};

struct stage {
  struct donor *donor;
  GRand *random;
  volatile struct crash_file *crash;
  char *path;
  struct side sides[2];
  guint64 stamp;
  unsigned deaths;
  GHashTable *names; /* where it died */
};

/* ---- borrowers that don't give up ---- */

static void
attach (struct side *side) {
  g_assert_cmpint (borrower_attach (&side->borrower, EXPORT_BLOCKS), ==, LEASE_OK);
  g_assert_cmpuint (side->borrower.last.level, ==, side->level);
}

/* What is not answered may have been done or not: a new session makes an end of it, then the same again. */
static int
put (struct stage *stage, struct side *side, guint64 block) {
  const guint64 stamp = ++stage->stamp;
  int error;

  for (unsigned i = 0; (error = borrower_put (&side->borrower, block, stamp)) < 0; i++) {
    g_assert_cmpuint (i, <, TRIES);
    attach (side);
  }
  if (error == 0)
    side->stamps[block] = stamp;
  return error;
}

static void
trim (struct side *side, guint64 block) {
  int error;

  for (unsigned i = 0; (error = borrower_trim (&side->borrower, block)) < 0; i++) {
    g_assert_cmpuint (i, <, TRIES);
    attach (side);
  }
  g_assert_cmpint (error, ==, 0);
  side->stamps[block] = 0;
}

static guint64
used (const struct side *side) {
  guint64 n = 0;

  for (unsigned i = 0; i < EXPORT_BLOCKS; i++)
    n += side->stamps[i] != 0;
  return n;
}

static void
grant (struct stage *stage, struct side *side, guint64 level) {
  const guint64 most = ARENA_BLOCKS - stage->sides[0].level - stage->sides[1].level + side->level;
  const enum lease_verdict verdict = borrower_ask (&side->borrower, LEASE_GRANT, level);

  g_assert_true (verdict == LEASE_OK || verdict == LEASE_NO_ROOM);
  g_assert_cmpuint (side->borrower.last.level, ==, MAX (side->level, MIN (level, most)));
  side->level = side->borrower.last.level;
}

static void
release (struct side *side, guint64 level) {
  const enum lease_verdict verdict = borrower_ask (&side->borrower, LEASE_RELEASE, level);

  g_assert_true (verdict == LEASE_OK || verdict == LEASE_IN_USE);
  g_assert_cmpuint (side->borrower.last.level, ==, MIN (side->level, MAX (level, used (side))));
  side->level = side->borrower.last.level;
}

static void
end (struct side *side) {
  const enum lease_verdict verdict = borrower_ask (&side->borrower, LEASE_END, 0);

  g_assert_true (verdict == LEASE_OK || verdict == LEASE_UNKNOWN); /* the answer to the first time was lost */
  memset (side->stamps, 0, sizeof side->stamps);
  side->level = 0;
  side->borrower.last = (struct lease_answer){ 0 };
  attach (side);
}

static void
check (struct stage *stage) {
  for (unsigned s = 0; s < 2; s++) {
    struct side *side = &stage->sides[s];

    for (guint64 block = 0; block < EXPORT_BLOCKS; block++) {
      guint64 stamp = 0;

      for (unsigned i = 0; borrower_get (&side->borrower, block, &stamp) < 0; i++) {
        g_assert_cmpuint (i, <, TRIES);
        attach (side);
      }
      g_assert_cmpuint (stamp, ==, side->stamps[block]);
    }
  }
  g_assert_cmpint (donor_status (stage->donor, "promised-blocks"), ==, (gint64)(stage->sides[0].level + stage->sides[1].level));
  g_assert_cmpint (donor_status (stage->donor, "used-blocks"), ==, (gint64)(used (&stage->sides[0]) + used (&stage->sides[1])));
}

/* With all cleared, too. */
static void
check_all (struct stage *stage) {
  const gint64 in_use = (gint64)(used (&stage->sides[0]) + used (&stage->sides[1]));

  check (stage);
  g_assert_true (donor_wait_status (stage->donor, "dirty-blocks", 0));
  g_assert_cmpint (donor_status (stage->donor, "free-blocks"), ==, (gint64)ARENA_BLOCKS - in_use);
  g_assert_cmpint (donor_status (stage->donor, "memory-bytes"), ==, in_use * LEASE_BLOCK_BYTES);
}

/* ---- deaths ---- */

static void
begin (struct stage *stage) {
  static const char *const arguments[] = { "--no-lock", NULL };
  int fd;

  *stage = (struct stage){ .random = testing_rand () };
  fd = g_file_open_tmp ("domybs-donor-crash-XXXXXX", &stage->path, NULL);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, CRASH_NONCES_AT), ==, 0);
  stage->crash = mmap (NULL, sizeof *stage->crash, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (stage->crash != MAP_FAILED);
  close (fd);
  stage->names = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  stage->donor = donor_start (&(struct donor_options){ .program = g_getenv ("DOMYBS_DONOR_CRASH"),
                                                       .bytes = ARENA_BLOCKS * (guint64)LEASE_BLOCK_BYTES,
                                                       .arguments = arguments,
                                                       .crash_file = stage->path });
  for (unsigned s = 0; s < 2; s++) {
    donor_borrower (stage->donor, (uint8_t)(s + 1), NULL, &stage->sides[s].borrower);
    attach (&stage->sides[s]);
    grant (stage, &stage->sides[s], 5);
  }
}

static void
finish (struct stage *stage) {
  GHashTableIter iter;
  gpointer name;
  GString *text = g_string_new (NULL);

  g_hash_table_iter_init (&iter, stage->names);
  while (g_hash_table_iter_next (&iter, &name, NULL))
    g_string_append_printf (text, " %s", (const char *)name);
  g_test_message ("%u deaths, at:%s", stage->deaths, text->str);
  g_string_free (text, TRUE);
  for (unsigned s = 0; s < 2; s++)
    borrower_leave (&stage->sides[s].borrower);
  donor_end (stage->donor);
  munmap ((void *)stage->crash, sizeof *stage->crash);
  g_unlink (stage->path);
  g_free (stage->path);
  g_hash_table_unref (stage->names);
  g_rand_free (stage->random);
}

/* The worker dies at its n-th point from now; the next one at its m-th, 0: not. */
static void
arm (struct stage *stage, unsigned n, unsigned m) {
  __atomic_store_n (&stage->crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->crashes, 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[1], m, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[0], n, __ATOMIC_SEQ_CST);
}

/* Returns how many have died since. */
static unsigned
disarm (struct stage *stage) {
  char last[sizeof stage->crash->last];
  unsigned crashes;

  __atomic_store_n (&stage->crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->countdown[1], 0, __ATOMIC_SEQ_CST);
  crashes = (unsigned)__atomic_load_n (&stage->crash->crashes, __ATOMIC_SEQ_CST);
  if (crashes) {
    memcpy (last, (const char *)stage->crash->last, sizeof last);
    g_hash_table_add (stage->names, g_strndup (last, sizeof last - 1));
    stage->deaths += crashes;
  }
  return crashes;
}

/* ---- operations ---- */

enum operation { PUT, PUT_AGAIN, TRIM, GRANT, RELEASE, ATTACH, END, SIZE, OPERATIONS };

static void
run (struct stage *stage, enum operation operation, struct side *side) {
  guint64 block = testing_below (stage->random, EXPORT_BLOCKS);

  switch (operation) {
  case PUT: { /* of a block that is not there yet, as long as there is one: PUT_AGAIN is for the others */
    for (unsigned i = 0; i < EXPORT_BLOCKS && side->stamps[block]; i++)
      block = (block + 1) % EXPORT_BLOCKS;
    const gboolean fits = side->stamps[block] || used (side) < side->level;

    g_assert_cmpint (put (stage, side, block), ==, fits ? 0 : NBD_ENOSPC);
    break;
  }
  case PUT_AGAIN:
    for (guint64 b = 0; b < EXPORT_BLOCKS; b++)
      if (side->stamps[b])
        g_assert_cmpint (put (stage, side, b), ==, 0);
    break;
  case TRIM:
    for (guint64 b = block; b < EXPORT_BLOCKS; b++)
      trim (side, b);
    break;
  case GRANT:
    grant (stage, side, side->level + testing_below (stage->random, 4));
    break;
  case RELEASE:
    release (side, testing_below (stage->random, side->level + 1));
    break;
  case ATTACH:
    attach (side);
    break;
  case END:
    end (side);
    grant (stage, side, 5);
    break;
  case SIZE:
    g_assert_true (donor_order (stage->donor, "{\"execute\":\"size\",\"arguments\":{\"blocks\":%u}}", ARENA_BLOCKS));
    break;
  case OPERATIONS:
    break;
  }
}

/* Before each time some blocks are in use, so that there is something to lose, and the lease has room for more. */
static void
prepare (struct stage *stage) {
  for (unsigned s = 0; s < 2; s++) {
    grant (stage, &stage->sides[s], 5);
    while (used (&stage->sides[s]) < 2)
      put (stage, &stage->sides[s], testing_below (stage->random, EXPORT_BLOCKS));
    for (guint64 b = 0; b < EXPORT_BLOCKS && used (&stage->sides[s]) > 3; b++)
      if (stage->sides[s].stamps[b])
        trim (&stage->sides[s], b);
  }
}

static void
each_point (void) {
  struct stage stage;

  begin (&stage);
  for (enum operation operation = PUT; operation < OPERATIONS; operation++) {
    unsigned n = 0, died = 1;

    while (died) {
      g_assert_cmpuint (++n, <, POINTS_MAX);
      prepare (&stage);
      arm (&stage, n, 0);
      run (&stage, operation, &stage.sides[0]);
      died = disarm (&stage);
      check (&stage);
    }
  }
  check_all (&stage);
  for (unsigned i = 0; i < 2; i++) {
    static const char *const must[] = { "lender-taken", "lender-stepped" };

    if (!g_hash_table_contains (stage.names, must[i]))
      g_error ("nobody has died at %s", must[i]);
  }
  finish (&stage);
}

static void
random_points (void) {
  const char *text = g_getenv ("DOMYBS_KILLS");
  const unsigned wanted = text ? (unsigned)atoi (text) : 60;
  struct stage stage;

  begin (&stage);
  for (unsigned round = 0; stage.deaths < wanted; round++) {
    const unsigned n = 1 + (unsigned)testing_below (stage.random, 60),
                   m = (unsigned)testing_below (stage.random, 3) ? 0 : 1 + (unsigned)testing_below (stage.random, 12);

    arm (&stage, n, m);
    for (unsigned i = 0; i < 12; i++)
      run (&stage, (enum operation)testing_below (stage.random, OPERATIONS), &stage.sides[testing_below (stage.random, 2)]);
    disarm (&stage);
    if (round % 4 == 0)
      check_all (&stage);
  }
  check_all (&stage);
  finish (&stage);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_add_func ("/donor-kill/each-point", each_point);
  g_test_add_func ("/donor-kill/random-points", random_points);
  return g_test_run ();
}
