/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a donor lends, without a socket: blocks come zeroed and with memory, go back cleared, end with their lease; what is
 * promised follows the size; another worker goes on. The page server is played by the test. */
#include "donor/lender.h"
#include "testing.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCKS 16u
#define LEASES 8u

/* ---- a host that has no memory ---- */

static gboolean no_memory, no_punching;

int __real_madvise (void *address, size_t bytes, int advice);
int __wrap_madvise (void *address, size_t bytes, int advice);
int
__wrap_madvise (void *address, size_t bytes, int advice) {
  if (no_memory && bytes == ARENA_BLOCK_BYTES) {
    errno = ENOMEM;
    return -1;
  }
  return __real_madvise (address, bytes, advice);
}

/* As the C library calls it for files of any size. */
int __real_fallocate64 (int fd, int mode, off_t offset, off_t bytes);
int __wrap_fallocate64 (int fd, int mode, off_t offset, off_t bytes);
int
__wrap_fallocate64 (int fd, int mode, off_t offset, off_t bytes) {
  if (no_punching) {
    errno = ENOMEM;
    return -1;
  }
  return __real_fallocate64 (fd, mode, offset, bytes);
}

struct rig {
  LenderOptions options;
  int arena_fd;
  void *table;
  gsize table_bytes;
  Lender *lender;
  guint64 max;
  GPtrArray *exports; /* what the page server has open */
  gboolean deaf;      /* it closes nothing */
};

static void
close_old (gpointer data, const LenderOld *old) {
  struct rig *rig = data;

  for (guint i = 0; !rig->deaf && i < rig->exports->len;)
    if (lender_export_is_old (g_ptr_array_index (rig->exports, i), old))
      lender_exports.close (rig->lender, g_ptr_array_remove_index_fast (rig->exports, i));
    else
      i++;
}

static void
begin_worker (struct rig *rig) {
  g_autoptr (GError) error = NULL;
  Arena *arena = arena_open (dup (rig->arena_fd), rig->options.geometry.n_blocks, FALSE, &error);

  g_assert_no_error (error);
  rig->lender = lender_new (&rig->options, arena, rig->table, rig->table_bytes, rig->max, &error);
  g_assert_no_error (error);
  lender_set_fence (rig->lender, close_old, rig);
  lender_start (rig->lender);
}

/* Connections end with their process. */
static void
end_worker (struct rig *rig) {
  while (rig->exports->len)
    lender_exports.close (rig->lender, g_ptr_array_remove_index_fast (rig->exports, 0));
  lender_free (rig->lender);
}

static struct rig *
rig_new (void) {
  struct rig *rig = g_new0 (struct rig, 1);
  const uint8_t incarnation[LEASE_ID_BYTES] = { 1, 2, 3 };
  g_autoptr (GError) error = NULL;

  rig->options = (LenderOptions){
    .name = "test", .geometry = { BLOCKS, LEASES }, .limits = { LEASES, BLOCKS }, .revoke_ms = 3600000, .fixed = TRUE
  };
  rig->max = BLOCKS;
  rig->exports = g_ptr_array_new ();
  rig->table_bytes = lease_donor_state_bytes (&rig->options.geometry);
  rig->table = mmap (NULL, rig->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (rig->table != MAP_FAILED);
  lease_donor_format (rig->table, &rig->options.geometry, incarnation);
  rig->arena_fd = arena_create (BLOCKS, &error);
  g_assert_no_error (error);
  begin_worker (rig);
  return rig;
}

static void
rig_free (struct rig *rig) {
  end_worker (rig);
  munmap (rig->table, rig->table_bytes);
  close (rig->arena_fd);
  g_ptr_array_free (rig->exports, TRUE);
  g_free (rig);
}

/* ---- a borrower ---- */

struct borrower {
  uint32_t disk;
  uint64_t session, seq;
  struct lease_answer last;
};

static enum lease_verdict
ask (struct rig *rig, struct borrower *borrower, enum lease_verb verb, uint64_t blocks) {
  struct lease_request request = { .verb = verb, .disk = borrower->disk, .session = borrower->session, .blocks = blocks };
  uint8_t bytes[LEASE_REQUEST_BYTES], answer[LEASE_ANSWER_BYTES];

  memset (request.vm, 0x11, sizeof request.vm);
  memset (request.host, 0x22, sizeof request.host);
  memset (request.boot, 0x33, sizeof request.boot);
  if (verb != LEASE_ATTACH) {
    memcpy (request.incarnation, borrower->last.incarnation, sizeof request.incarnation);
    request.lease = borrower->last.lease;
    request.epoch = borrower->last.epoch;
  }
  if (verb == LEASE_GRANT || verb == LEASE_RELEASE)
    request.seq = ++borrower->seq;
  lease_request_encode (&request, bytes);
  g_assert_cmpuint (lender_exports.lease (rig->lender, "me", bytes, sizeof bytes, answer), ==, LEASE_ANSWER_BYTES);
  g_assert_true (lease_answer_decode (answer, sizeof answer, &borrower->last));
  return borrower->last.verdict;
}

static void
attach (struct rig *rig, struct borrower *borrower, uint32_t disk, uint64_t level) {
  *borrower = (struct borrower){ .disk = disk, .session = borrower->session + 1 };
  g_assert_cmpint (ask (rig, borrower, LEASE_ATTACH, 64), ==, LEASE_OK);
  if (level)
    g_assert_cmpint (ask (rig, borrower, LEASE_GRANT, level), ==, LEASE_OK);
}

static gpointer
open_export (struct rig *rig, const struct borrower *borrower) {
  char name[LEASE_EXPORT_NAME_BYTES];
  const char *why = NULL;
  gpointer export;
  guint64 bytes;

  lease_export_name (borrower->last.lease, borrower->last.epoch, borrower->last.incarnation, name);
  export = lender_exports.open (rig->lender, "me", name, &bytes, &why);
  if (export) {
    g_assert_cmpuint (bytes, ==, 64ull * ARENA_BLOCK_BYTES);
    g_ptr_array_add (rig->exports, export);
  } else {
    g_assert_nonnull (why);
  }
  return export;
}

static gboolean
is_zero (const guint8 *block) {
  return block[0] == 0 && memcmp (block, block + 1, ARENA_BLOCK_BYTES - 1) == 0;
}

/* A block of that export, whose every page says whose it is. */
static int
put (struct rig *rig, gpointer export, guint64 block, guint64 stamp) {
  int failure = 0;
  guint8 *memory = lender_exports.take (rig->lender, export, block, &failure);

  if (!memory)
    return failure;
  for (gsize at = 0; at < ARENA_BLOCK_BYTES; at += 4096)
    memcpy (memory + at, &stamp, sizeof stamp);
  return 0;
}

static guint64
get (struct rig *rig, gpointer export, guint64 block) {
  const guint8 *memory = lender_exports.look (rig->lender, export, block);
  guint64 first = 0, other;

  if (!memory)
    return 0;
  memcpy (&first, memory, sizeof first);
  for (gsize at = 0; at < ARENA_BLOCK_BYTES; at += 4096) {
    memcpy (&other, memory + at, sizeof other);
    g_assert_cmpuint (other, ==, first);
  }
  return first;
}

static void
figures (struct rig *rig, struct lease_donor_figures *ret_figures) {
  lease_donor_figures (lender_leases (rig->lender), ret_figures);
}

static guint64
memory_bytes (struct rig *rig) {
  LenderFigures f;

  lender_figures (rig->lender, &f);
  return f.memory_bytes;
}

static void
wait_until_clear (struct rig *rig) {
  struct lease_donor_figures f;

  for (figures (rig, &f); f.dirty; figures (rig, &f))
    g_main_context_iteration (NULL, TRUE);
}

/* ---- cases ---- */

static void
test_blocks (void) {
  struct rig *rig = rig_new ();
  struct borrower borrower = { 0 };
  struct lease_donor_figures f;
  gpointer export;

  attach (rig, &borrower, 1, 4);
  export = open_export (rig, &borrower);
  g_assert_nonnull (export);
  g_assert_cmpuint (memory_bytes (rig), ==, 0); /* a promise takes nothing yet */
  g_assert_null (lender_exports.look (rig->lender, export, 3));
  for (guint64 block = 0; block < 8; block += 2)
    g_assert_cmpint (put (rig, export, block, 100 + block), ==, 0);
  g_assert_cmpint (put (rig, export, 9, 1), ==, ENOSPC);
  g_assert_cmpint (put (rig, export, 64, 1), ==, EINVAL);
  g_assert_null (lender_exports.look (rig->lender, export, 64));
  g_assert_cmpint (put (rig, export, 2, 102), ==, 0); /* again is nothing new */
  g_assert_cmpuint (memory_bytes (rig), ==, 4ull * ARENA_BLOCK_BYTES);
  for (guint64 block = 0; block < 8; block++)
    g_assert_cmpuint (get (rig, export, block), ==, block % 2 ? 0 : 100 + block);
  lender_exports.drop (rig->lender, export, 2);
  lender_exports.drop (rig->lender, export, 3);
  g_assert_null (lender_exports.look (rig->lender, export, 2));
  g_assert_cmpint (put (rig, export, 9, 109), ==, 0);
  wait_until_clear (rig);
  g_assert_cmpuint (memory_bytes (rig), ==, 4ull * ARENA_BLOCK_BYTES);
  g_assert_cmpint (ask (rig, &borrower, LEASE_END, 0), ==, LEASE_OK);
  g_assert_cmpuint (rig->exports->len, ==, 0);
  wait_until_clear (rig);
  g_assert_cmpuint (memory_bytes (rig), ==, 0);
  figures (rig, &f);
  g_assert_cmpuint (f.free, ==, BLOCKS);
  g_assert_cmpuint (f.leases, ==, 0);
  rig_free (rig);
}

/* All blocks go round between two leases, without a moment in between: what one has written the other never sees. */
static void
test_zeroes (void) {
  struct rig *rig = rig_new ();
  struct borrower one = { 0 }, other = { 0 };
  gpointer export;
  int failure;

  attach (rig, &one, 1, BLOCKS);
  export = open_export (rig, &one);
  for (guint64 block = 0; block < BLOCKS; block++)
    g_assert_cmpint (put (rig, export, block, 7), ==, 0);
  g_assert_cmpint (ask (rig, &one, LEASE_END, 0), ==, LEASE_OK);
  attach (rig, &other, 2, BLOCKS);
  export = open_export (rig, &other);
  for (guint64 block = 0; block < BLOCKS; block++) {
    const guint8 *memory = lender_exports.take (rig->lender, export, block, &failure);

    g_assert_nonnull (memory);
    g_assert_true (is_zero (memory));
    g_assert_cmpint (put (rig, export, block, 8), ==, 0);
  }
  /* and within a lease */
  for (guint64 block = 0; block < BLOCKS; block++) {
    lender_exports.drop (rig->lender, export, block);
    g_assert_true (is_zero (lender_exports.take (rig->lender, export, block, &failure)));
  }
  rig_free (rig);
}

static void
test_fence (void) {
  struct rig *rig = rig_new ();
  struct borrower borrower = { 0 }, old;
  gpointer export, newer;

  attach (rig, &borrower, 1, 4);
  export = open_export (rig, &borrower);
  g_assert_cmpint (put (rig, export, 0, 5), ==, 0);
  old = borrower;

  /* connections that do not close are no reason to go on */
  rig->deaf = TRUE;
  borrower.session++;
  g_assert_cmpint (ask (rig, &borrower, LEASE_ATTACH, 64), ==, LEASE_BUSY);
  g_assert_cmpint (put (rig, export, 0, 6), ==, 0); /* still the one in force */
  rig->deaf = FALSE;
  g_assert_cmpint (ask (rig, &borrower, LEASE_ATTACH, 64), ==, LEASE_OK);
  g_assert_cmpuint (rig->exports->len, ==, 0);
  g_assert_cmpuint (borrower.last.lease, ==, old.last.lease);
  g_assert_cmpuint (borrower.last.epoch, >, old.last.epoch);
  g_assert_null (open_export (rig, &old));
  newer = open_export (rig, &borrower);
  g_assert_cmpuint (get (rig, newer, 0), ==, 6);
  g_assert_cmpuint (lender_connections (rig->lender, borrower.last.lease), ==, 1);
  g_assert_cmpint (ask (rig, &old, LEASE_KEEP, 0), ==, LEASE_OLD_SESSION);
  g_assert_nonnull (open_export (rig, &borrower)); /* several connections */
  g_assert_cmpuint (lender_connections (rig->lender, borrower.last.lease), ==, 2);

  /* the operator's order ends it */
  g_assert_true (lender_forget (rig->lender, borrower.last.lease, NULL));
  g_assert_cmpuint (rig->exports->len, ==, 0);
  g_assert_false (lender_forget (rig->lender, borrower.last.lease, NULL));
  g_assert_cmpint (ask (rig, &borrower, LEASE_KEEP, 0), ==, LEASE_UNKNOWN);
  rig_free (rig);
}

/* A smaller size calls back from all in proportion; a greater one lets go, but not of the operator's. */
static void
test_size (void) {
  struct rig *rig = rig_new ();
  struct borrower one = { 0 }, two = { 0 }, three = { 0 };
  gpointer export;

  attach (rig, &one, 1, 8);
  attach (rig, &two, 2, 4);
  lender_set_max (rig->lender, 12);
  g_assert_cmpint (ask (rig, &one, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_cmpuint (one.last.revoke, ==, 0);
  attach (rig, &three, 3, 0);
  g_assert_cmpint (ask (rig, &three, LEASE_GRANT, 1), ==, LEASE_NO_ROOM);

  lender_set_max (rig->lender, 6);
  ask (rig, &one, LEASE_KEEP, 0);
  ask (rig, &two, LEASE_KEEP, 0);
  g_assert_cmpuint (one.last.revoke, !=, 0);
  g_assert_cmpuint (one.last.revoke_level, ==, 4);
  g_assert_cmpuint (two.last.revoke_level, ==, 2);
  g_assert_cmpuint (one.last.revoke_left_ms, >, 0);
  /* no new revoke for the same wish: `number` would grow */
  {
    const uint64_t number = one.last.revoke;

    lender_set_max (rig->lender, 6);
    ask (rig, &one, LEASE_KEEP, 0);
    g_assert_cmpuint (one.last.revoke, ==, number);
  }
  /* nothing is taken by force */
  export = open_export (rig, &one);
  for (guint64 block = 0; block < 8; block++)
    g_assert_cmpint (put (rig, export, block, 1), ==, 0);
  for (guint64 block = 4; block < 8; block++)
    lender_exports.drop (rig->lender, export, block);
  g_assert_cmpint (ask (rig, &one, LEASE_RELEASE, 4), ==, LEASE_OK);
  g_assert_cmpuint (one.last.revoke, ==, 0);
  /* lower again: only what is not on its way already */
  lender_set_max (rig->lender, 3);
  ask (rig, &one, LEASE_KEEP, 0);
  ask (rig, &two, LEASE_KEEP, 0);
  g_assert_cmpuint (one.last.revoke_level + two.last.revoke_level, <=, 3);
  g_assert_cmpuint (one.last.revoke_level, ==, 2);

  g_assert_true (lender_revoke (rig->lender, two.last.lease, 0, NULL));
  g_assert_false (lender_revoke (rig->lender, 4711, 0, NULL));
  lender_set_max (rig->lender, BLOCKS);
  ask (rig, &one, LEASE_KEEP, 0);
  ask (rig, &two, LEASE_KEEP, 0);
  g_assert_cmpuint (one.last.revoke, ==, 0);
  g_assert_cmpuint (two.last.revoke, !=, 0);
  g_assert_cmpuint (two.last.revoke_level, ==, 0);
  g_assert_cmpint (ask (rig, &two, LEASE_RELEASE, 0), ==, LEASE_OK);
  g_assert_cmpuint (two.last.revoke, ==, 0);
  rig_free (rig);
}

/* The host's own memory decides: with a reserve of more than there is, nothing is lent. */
static void
test_host (void) {
  struct rig *rig = rig_new ();
  struct borrower borrower = { 0 };
  LenderFigures f;

  end_worker (rig);
  rig->options.fixed = FALSE;
  rig->options.reserve_bytes = 1ull << 50;
  begin_worker (rig);
  attach (rig, &borrower, 1, 0);
  g_assert_cmpint (ask (rig, &borrower, LEASE_GRANT, 1), ==, LEASE_NO_ROOM);
  lender_figures (rig->lender, &f);
  g_assert_cmpuint (f.wanted_blocks, ==, 0);
  g_assert_cmpuint (f.host_available_bytes, >, 0);
  end_worker (rig);
  rig->options.reserve_bytes = 0;
  begin_worker (rig);
  g_assert_cmpint (ask (rig, &borrower, LEASE_GRANT, 1), ==, LEASE_OK);
  rig_free (rig);
}

/* Warnings are what is to be expected there. */
static gboolean
not_fatal (const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
  return FALSE;
}

static void
not_shown (const char *domain, GLogLevelFlags level, const char *message, gpointer data) {
  g_test_message ("%s", message);
}

/* What the host can't do is an answer to the borrower, and nothing is lost or shown to others by it. */
static void
test_no_memory (void) {
  struct rig *rig = rig_new ();
  struct borrower borrower = { 0 };
  struct lease_donor_figures f;
  LenderFigures counts;
  gpointer export;
  int failure = 0;
  const guint handler = g_log_set_handler (NULL, G_LOG_LEVEL_WARNING | G_LOG_FLAG_FATAL, not_shown, NULL);

  attach (rig, &borrower, 1, BLOCKS);
  export = open_export (rig, &borrower);
  g_test_log_set_fatal_handler (not_fatal, NULL);
  no_memory = TRUE;
  g_assert_cmpint (put (rig, export, 3, 1), ==, ENOSPC);
  no_memory = FALSE;
  g_assert_null (lender_exports.look (rig->lender, export, 3));
  wait_until_clear (rig);
  figures (rig, &f);
  g_assert_cmpuint (f.free, ==, BLOCKS);
  for (guint64 block = 0; block < BLOCKS; block++)
    g_assert_cmpint (put (rig, export, block, 5), ==, 0);

  /* blocks that can't be cleared are lent to nobody */
  no_punching = TRUE;
  lender_exports.drop (rig->lender, export, 3);
  while (g_main_context_iteration (NULL, FALSE))
    ;
  g_assert_null (lender_exports.take (rig->lender, export, 3, &failure));
  g_assert_cmpint (failure, ==, ENOSPC);
  figures (rig, &f);
  g_assert_cmpuint (f.dirty, ==, 1);
  no_punching = FALSE;
  g_assert_nonnull (lender_exports.take (rig->lender, export, 3, &failure));
  g_assert_true (is_zero (lender_exports.look (rig->lender, export, 3)));
  lender_figures (rig->lender, &counts);
  g_assert_cmpuint (counts.fill_failures, ==, 1);
  g_assert_cmpuint (counts.clear_failures, >, 0);
  g_log_remove_handler (NULL, handler);
  rig_free (rig);
}

static void
test_nonsense (void) {
  static const char *const names[]
      = { "", "lease-", "default", "lease-0000000000000001.0000000000000001.00000000000000000000000000000000",
          "lease-ffffffffffffffff.ffffffffffffffff.01020300000000000000000000000000" };
  struct rig *rig = rig_new ();
  guint8 bytes[LEASE_REQUEST_BYTES] = { 0 }, answer[LEASE_ANSWER_BYTES];
  GRand *rand = testing_rand ();

  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    const char *why = NULL;
    guint64 size;

    g_assert_null (lender_exports.open (rig->lender, "me", names[i], &size, &why));
    g_assert_nonnull (why);
  }
  g_assert_cmpuint (lender_exports.lease (rig->lender, "me", bytes, 0, answer), ==, 0);
  g_assert_cmpuint (lender_exports.lease (rig->lender, "me", bytes, sizeof bytes, answer), ==, 0);
  for (guint i = 0; i < testing_steps (20000); i++) {
    gsize n;

    for (guint b = 0; b < sizeof bytes; b++)
      bytes[b] = testing_once_in (rand, 3) ? (guint8)g_rand_int (rand) : 0;
    n = lender_exports.lease (rig->lender, "me", bytes, testing_below (rand, sizeof bytes + 1), answer);
    g_assert_true (n == 0 || n == LEASE_ANSWER_BYTES);
  }
  g_rand_free (rand);
  rig_free (rig);
}

/* Leases, blocks, deaths and ends in any order, against a list of what must be where. */
static void
test_random (void) {
  enum { BORROWERS = 4, EXPORT = 64 };
  GRand *rand = testing_rand ();
  struct rig *rig = rig_new ();
  struct borrower borrowers[BORROWERS] = { 0 };
  gpointer exports[BORROWERS] = { NULL };
  guint64 shadow[BORROWERS][EXPORT] = { 0 }, levels[BORROWERS] = { 0 }, stamp = 1;
  const unsigned steps = testing_steps (3000);

  for (unsigned step = 0; step < steps; step++) {
    const unsigned b = (unsigned)testing_below (rand, BORROWERS), what = (unsigned)testing_below (rand, 100);
    const guint64 block = testing_below (rand, 2 * BLOCKS);
    struct borrower *borrower = &borrowers[b];
    guint64 used = 0;

    if (!exports[b]) { /* a new worker of the borrower's, or of the donor's */
      const gboolean had = borrower->last.lease != 0;

      borrower->disk = b;
      borrower->session++;
      borrower->seq = 0;
      g_assert_cmpint (ask (rig, borrower, LEASE_ATTACH, EXPORT), ==, LEASE_OK);
      if (had)
        g_assert_cmpuint (borrower->last.level, ==, levels[b]);
      levels[b] = borrower->last.level;
      exports[b] = open_export (rig, borrower);
      g_assert_nonnull (exports[b]);
      continue;
    }
    for (guint i = 0; i < EXPORT; i++)
      used += shadow[b][i] != 0;
    testing_trace ("%u: borrower %u does %u with block %" G_GUINT64_FORMAT ", level %" G_GUINT64_FORMAT
                   ", used %" G_GUINT64_FORMAT,
                   step, b, what, block, levels[b], used);
    if (what < 45) {
      const int failure = put (rig, exports[b], block, stamp);

      g_assert_cmpint (failure, ==, shadow[b][block] || used < levels[b] ? 0 : ENOSPC);
      if (failure == 0)
        shadow[b][block] = stamp++;
    } else if (what < 65) {
      lender_exports.drop (rig->lender, exports[b], block);
      shadow[b][block] = 0;
    } else if (what < 75) {
      const guint64 wanted = levels[b] + testing_below (rand, 6);

      if (wanted > levels[b]) {
        const enum lease_verdict verdict = ask (rig, borrower, LEASE_GRANT, wanted);

        g_assert_true (verdict == LEASE_OK || verdict == LEASE_NO_ROOM || verdict == LEASE_LIMIT);
        if (verdict == LEASE_OK)
          g_assert_cmpuint (borrower->last.level, ==, wanted);
        levels[b] = borrower->last.level;
      }
    } else if (what < 83) {
      const guint64 wanted = testing_below (rand, levels[b] + 1);
      const enum lease_verdict verdict = ask (rig, borrower, LEASE_RELEASE, wanted);

      g_assert_true (verdict == LEASE_OK || verdict == LEASE_IN_USE);
      levels[b] = borrower->last.level;
      g_assert_cmpuint (levels[b], ==, MAX (wanted, used));
    } else if (what < 87) {
      exports[b] = NULL; /* its connection is closed when it attaches again */
    } else if (what < 89) {
      g_assert_cmpint (ask (rig, borrower, LEASE_END, 0), ==, LEASE_OK);
      exports[b] = NULL;
      borrower->last = (struct lease_answer){ 0 };
      levels[b] = 0;
      memset (shadow[b], 0, sizeof shadow[b]);
    } else if (what < 92) {
      end_worker (rig);
      begin_worker (rig);
      memset (exports, 0, sizeof exports);
    } else if (what < 95) {
      while (g_main_context_iteration (NULL, FALSE))
        ;
    } else {
      guint64 promised = 0, contents = 0;
      struct lease_donor_figures f;

      for (guint i = 0; i < BORROWERS; i++) {
        promised += levels[i];
        for (guint j = 0; j < EXPORT; j++) {
          contents += shadow[i][j] != 0;
          if (exports[i])
            g_assert_cmpuint (get (rig, exports[i], j), ==, shadow[i][j]);
        }
      }
      figures (rig, &f);
      g_assert_cmpuint (f.promised, ==, promised);
      g_assert_cmpuint (f.used, ==, contents);
      g_assert_cmpuint (f.used + f.dirty + f.free, ==, BLOCKS);
      wait_until_clear (rig);
      g_assert_cmpuint (memory_bytes (rig), ==, contents * ARENA_BLOCK_BYTES);
    }
  }
  rig_free (rig);
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/lender/blocks", test_blocks);
  g_test_add_func ("/lender/zeroes", test_zeroes);
  g_test_add_func ("/lender/fence", test_fence);
  g_test_add_func ("/lender/size", test_size);
  g_test_add_func ("/lender/host", test_host);
  g_test_add_func ("/lender/no-memory", test_no_memory);
  g_test_add_func ("/lender/nonsense", test_nonsense);
  g_test_add_func ("/lender/random", test_random);
  return g_test_run ();
}
