/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The buddy allocator, against a plain list of who has which unit. */
#include "core/buddy.h"
#include "testing.h"

#include <string.h>

#define FREE 0u

struct chunk {
  uint64_t unit;
  unsigned order;
};

struct rig {
  struct buddy buddy;
  uint64_t n;
  void *memory;
  uint32_t *owner; /* of each unit: FREE, or a number of the chunk */
  uint64_t free;
};

static void
rig_init (struct rig *rig, uint64_t n) {
  const size_t bytes = buddy_bytes (n);

  g_assert_cmpuint (bytes, >, 0);
  *rig = (struct rig){ .n = n, .memory = g_malloc (bytes + 8), .owner = g_new (uint32_t, n) };
  memset (rig->memory, 0xa5, bytes + 8);
  memset (rig->owner, 0xff, n * sizeof *rig->owner);
  buddy_init (&rig->buddy, n, rig->memory);
}

static void
rig_clear (struct rig *rig) {
  g_assert_cmpuint (*((uint8_t *)rig->memory + buddy_bytes (rig->n)), ==, 0xa5); /* nothing was written behind it */
  g_free (rig->memory);
  g_free (rig->owner);
}

static void
give_all (struct rig *rig) {
  g_assert_true (buddy_release_run (&rig->buddy, 0, rig->n));
  memset (rig->owner, 0, rig->n * sizeof *rig->owner);
  rig->free = rig->n;
}

/* Whether a chunk of that order is free in the list. */
static bool
has_chunk (const struct rig *rig, unsigned order) {
  for (uint64_t start = 0; start + (1ull << order) <= rig->n; start += 1ull << order) {
    uint64_t i = 0;

    while (i < 1ull << order && rig->owner[start + i] == FREE)
      i++;
    if (i == 1ull << order)
      return true;
  }
  return false;
}

static uint64_t
count_in_order (const struct rig *rig, unsigned order) {
  uint64_t sum = 0;

  for (uint64_t start = 0; start + (1ull << order) <= rig->n; start += 1ull << order) {
    uint64_t i = 0;

    while (i < 1ull << order && rig->owner[start + i] == FREE)
      i++;
    sum += i == 1ull << order ? i : 0;
  }
  return sum;
}

static void
check (const struct rig *rig) {
  for (uint64_t unit = 0; unit < rig->n; unit++)
    g_assert_cmpint (buddy_is_free (&rig->buddy, unit), ==, rig->owner[unit] == FREE);
  g_assert_cmpuint (rig->buddy.free, ==, rig->free);
  for (unsigned order = 0; order < 12; order++) {
    const uint64_t whole = count_in_order (rig, order);

    g_assert_cmpuint (buddy_free_in_order (&rig->buddy, order), ==, whole);
    g_assert_cmpuint (buddy_fragmentation_permille (&rig->buddy, order), ==,
                      rig->free ? (rig->free - whole) * 1000 / rig->free : 0);
  }
}

static void
note (struct rig *rig, uint64_t start, uint64_t count, uint32_t before, uint32_t after) {
  g_assert_cmpuint (start + count, <=, rig->n);
  for (uint64_t i = start; i < start + count; i++) {
    g_assert_cmpuint (rig->owner[i], ==, before);
    rig->owner[i] = after;
  }
  rig->free += after == FREE ? count : -count;
}

/* ---- cases ---- */

static void
test_sizes (void) {
  g_assert_cmpuint (buddy_bytes (0), ==, 0);
  g_assert_cmpuint (buddy_bytes (BUDDY_UNITS_MAX + 1ull), ==, 0);
  g_assert_cmpuint (buddy_bytes (UINT64_MAX), ==, 0);
  g_assert_cmpuint (buddy_bytes (BUDDY_UNITS_MAX), <, BUDDY_UNITS_MAX / 3); /* two and a bit bits a unit */
  g_assert_cmpuint (buddy_bytes (1), ==, 8);
  for (uint64_t n = 1; n < 300; n++) {
    struct rig rig;

    rig_init (&rig, n);
    g_assert_cmpuint (buddy_take (&rig.buddy, 0), ==, BUDDY_NONE);
    give_all (&rig);
    for (uint64_t i = 0; i < n; i++) { /* from the front */
      const uint64_t unit = buddy_take (&rig.buddy, 0);

      note (&rig, unit, 1, FREE, 1);
    }
    g_assert_cmpuint (buddy_take (&rig.buddy, 0), ==, BUDDY_NONE);
    g_assert_cmpuint (rig.buddy.orders, ==, 0);
    rig_clear (&rig);
  }
}

static void
test_lowest_first (void) {
  struct rig rig;

  rig_init (&rig, 1024);
  give_all (&rig);
  g_assert_cmpuint (buddy_take (&rig.buddy, 0), ==, 0);
  g_assert_cmpuint (buddy_take (&rig.buddy, 1), ==, 2);
  g_assert_cmpuint (buddy_take (&rig.buddy, 0), ==, 1); /* the smallest that fits, not the next in a row */
  g_assert_cmpuint (buddy_take (&rig.buddy, 9), ==, 512);
  g_assert_cmpuint (buddy_take (&rig.buddy, 9), ==, BUDDY_NONE);
  g_assert_true (buddy_release (&rig.buddy, 1, 0));
  g_assert_true (buddy_release (&rig.buddy, 512, 9));
  g_assert_cmpuint (buddy_take (&rig.buddy, 0), ==, 1);
  rig_clear (&rig);
}

static void
test_refused (void) {
  struct rig rig;

  rig_init (&rig, 1000);
  give_all (&rig);
  g_assert_false (buddy_release (&rig.buddy, 0, 0)); /* free already */
  g_assert_cmpuint (rig.buddy.free, ==, 1000);
  rig_clear (&rig);

  rig_init (&rig, 1000);
  g_assert_false (buddy_release (&rig.buddy, 1000, 0));
  g_assert_false (buddy_release (&rig.buddy, UINT64_MAX, 0));
  g_assert_false (buddy_release (&rig.buddy, 992, 4)); /* ends behind the end */
  g_assert_false (buddy_release (&rig.buddy, 3, 1));
  g_assert_false (buddy_release (&rig.buddy, 0, BUDDY_ORDERS));
  g_assert_false (buddy_release_run (&rig.buddy, 1, 1000));
  g_assert_false (buddy_release_run (&rig.buddy, 1001, 0));
  g_assert_cmpuint (buddy_take (&rig.buddy, BUDDY_ORDERS), ==, BUDDY_NONE);
  g_assert_cmpuint (buddy_take (&rig.buddy, 77), ==, BUDDY_NONE);
  g_assert_false (buddy_take_unit (&rig.buddy, 1000));
  g_assert_false (buddy_take_unit (&rig.buddy, 5));
  g_assert_false (buddy_is_free (&rig.buddy, UINT64_MAX));
  g_assert_cmpuint (rig.buddy.free, ==, 0);
  rig_clear (&rig);
}

/* Anything in any order; now and then what is used is all that is known, as after a death. */
static void
test_random (void) {
  GRand *rand = testing_rand ();

  for (unsigned round = 0; round < 30; round++) {
    const uint64_t n = 1 + testing_below (rand, round % 3 ? 200 : 20000);
    g_autoptr (GArray) chunks = g_array_new (FALSE, FALSE, sizeof (struct chunk));
    const unsigned steps = testing_steps (4000), per_check = n > 1000 ? 1000 : 50;
    uint32_t number = 1;
    struct rig rig;

    rig_init (&rig, n);
    give_all (&rig);
    for (unsigned step = 0; step < steps; step++) {
      const unsigned order = (unsigned)testing_below (rand, 9), what = (unsigned)testing_below (rand, 100);

      if (what < 55) {
        const uint64_t unit = what < 5 ? testing_below (rand, n) : buddy_take (&rig.buddy, order);
        const unsigned o = what < 5 ? 0 : order;

        if (what < 5) {
          g_assert_cmpint (buddy_take_unit (&rig.buddy, unit), ==, rig.owner[unit] == FREE);
          if (rig.owner[unit] != FREE)
            continue;
        } else if (unit == BUDDY_NONE) {
          g_assert_false (n < 1000 && has_chunk (&rig, order));
          continue;
        }
        g_assert_cmpuint (unit & ((1ull << o) - 1), ==, 0);
        note (&rig, unit, 1ull << o, FREE, ++number);
        g_array_append_vals (chunks, &(struct chunk){ unit, o }, 1);
      } else if (chunks->len) {
        const guint i = (guint)testing_below (rand, chunks->len);
        const struct chunk chunk = g_array_index (chunks, struct chunk, i);
        const uint64_t unit = chunk.unit;
        const unsigned o = chunk.order;

        note (&rig, unit, 1ull << o, rig.owner[unit], FREE);
        g_assert_true (what & 1 ? buddy_release (&rig.buddy, unit, o) : buddy_release_run (&rig.buddy, unit, 1ull << o));
        g_assert_false (buddy_release (&rig.buddy, unit, o));
        g_array_remove_index_fast (chunks, i);
      }
      if (step % per_check == 0)
        check (&rig);
      if (testing_once_in (rand, 1000)) { /* made anew from who owns what */
        buddy_init (&rig.buddy, n, rig.memory);
        for (uint64_t unit = 0, end; unit < n; unit = end + 1) {
          for (end = unit; end < n && rig.owner[end] == FREE; end++)
            ;
          g_assert_true (buddy_release_run (&rig.buddy, unit, end - unit));
        }
        check (&rig);
      }
    }
    check (&rig);
    while (chunks->len) {
      const struct chunk chunk = g_array_index (chunks, struct chunk, chunks->len - 1);

      note (&rig, chunk.unit, 1ull << chunk.order, rig.owner[chunk.unit], FREE);
      g_assert_true (buddy_release (&rig.buddy, chunk.unit, chunk.order));
      g_array_set_size (chunks, chunks->len - 1);
    }
    check (&rig);
    g_assert_cmpuint (buddy_free_in_order (&rig.buddy, 0), ==, n); /* all of it, and as whole as at the start */
    rig_clear (&rig);
  }
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/buddy/sizes", test_sizes);
  g_test_add_func ("/buddy/lowest-first", test_lowest_first);
  g_test_add_func ("/buddy/refused", test_refused);
  g_test_add_func ("/buddy/random", test_random);
  return g_test_run ();
}
