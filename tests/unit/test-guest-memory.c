/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where a guest's address becomes a pointer: only wholly inside of one region, and never in the window. */
#include "core/guest-memory.h"

#include "testing.h"

/* Pointers here are only computed, never followed, so the regions need no memory behind them. */
static uint8_t *
fake_host (uint64_t n) {
  return (uint8_t *)(uintptr_t)(n << 40);
}

static struct guest_memory
two_regions (void) {
  return (struct guest_memory){
    .n_regions = 2,
    .regions = { { .guest_addr = 0x1000, .bytes = 0x2000, .user_addr = 0x7f0000001000, .host = fake_host (1) },
                 { .guest_addr = 0x3000, .bytes = 0x1000, .user_addr = 0x100, .host = fake_host (2) } },
  };
}

static void
test_bounds (void) {
  const struct guest_memory memory = two_regions ();
  static const struct {
    uint64_t addr, bytes, region, offset; /* region 0 = refused */
  } cases[] = {
    { 0x1000, 1, 1, 0 },
    { 0x1000, 0x2000, 1, 0 },
    { 0x1000, 0x2001, 0, 0 }, /* into the next region, though that touches this one */
    { 0x0fff, 1, 0, 0 },
    { 0x0fff, 2, 0, 0 },
    { 0x2fff, 1, 1, 0x1fff },
    { 0x2fff, 2, 0, 0 },
    { 0x3000, 0x1000, 2, 0 },
    { 0x3fff, 1, 2, 0xfff },
    { 0x3fff, 2, 0, 0 },
    { 0x4000, 1, 0, 0 },
    { 0x1000, 0, 0, 0 },
    { 0x1000, UINT64_MAX, 0, 0 },
    { 0x1001, UINT64_MAX, 0, 0 },       /* the sum wraps to the start */
    { UINT64_MAX, 0x1002, 0, 0 },       /* … and to inside */
    { UINT64_MAX, UINT64_MAX, 0, 0 },
    { UINT64_MAX - 0xfff, 0x3000, 0, 0 },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const void *expected = cases[i].region ? fake_host (cases[i].region) + cases[i].offset : NULL;

    g_test_message ("case %zu", i);
    g_assert_true (guest_memory_at (&memory, cases[i].addr, cases[i].bytes) == expected);
  }
}

static void
test_user_addresses (void) {
  const struct guest_memory memory = two_regions ();

  g_assert_true (guest_memory_at_user (&memory, 0x7f0000001000, 0x2000) == fake_host (1));
  g_assert_true (guest_memory_at_user (&memory, 0x7f0000002fff, 1) == fake_host (1) + 0x1fff);
  g_assert_null (guest_memory_at_user (&memory, 0x7f0000002fff, 2));
  g_assert_true (guest_memory_at_user (&memory, 0x1000, 0x100) == fake_host (2) + 0xf00);
  g_assert_null (guest_memory_at_user (&memory, 0xff, 1));
  g_assert_null (guest_memory_at_user (&memory, 0x7f0000001000, 0));
  g_assert_null (guest_memory_at_user (&memory, 0x1001, UINT64_MAX));
}

static void
test_empty_table (void) {
  const struct guest_memory memory = { 0 };

  g_assert_null (guest_memory_at (&memory, 0, 1));
  g_assert_null (guest_memory_at_user (&memory, 0, 1));
}

static void
test_last_byte_of_the_address_space (void) {
  const struct guest_memory memory = {
    .n_regions = 1,
    .regions = { { .guest_addr = UINT64_MAX - 0x1000, .bytes = 0x1000, .user_addr = UINT64_MAX - 0x1000, .host = fake_host (1) } },
  };

  g_assert_true (guest_memory_at (&memory, UINT64_MAX - 1, 1) == fake_host (1) + 0xfff);
  g_assert_null (guest_memory_at (&memory, UINT64_MAX, 1));
  g_assert_null (guest_memory_at (&memory, UINT64_MAX - 1, 2));
  g_assert_null (guest_memory_at (&memory, UINT64_MAX - 1, 3));
}

static void
test_own_memory (void) {
  /* the window: mapped for us like any other memory, but nothing for a guest to point at */
  struct guest_memory memory = two_regions ();

  memory.regions[1].own = true;
  g_assert_nonnull (guest_memory_at (&memory, 0x2fff, 1));
  g_assert_null (guest_memory_at (&memory, 0x3000, 1));
  g_assert_null (guest_memory_at (&memory, 0x3fff, 1));
  g_assert_null (guest_memory_at (&memory, 0x2fff, 2));
  g_assert_nonnull (guest_memory_at_user (&memory, 0x7f0000001000, 1));
  g_assert_null (guest_memory_at_user (&memory, 0x100, 1));
  g_assert_null (guest_memory_at_user (&memory, 0x100, 0x1000));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/guest-memory/a range is valid wholly inside of one region only", test_bounds);
  g_test_add_func ("/guest-memory/addresses of the front-end have the same rules", test_user_addresses);
  g_test_add_func ("/guest-memory/nothing is valid in an empty table", test_empty_table);
  g_test_add_func ("/guest-memory/no sum wraps at the end of the address space", test_last_byte_of_the_address_space);
  g_test_add_func ("/guest-memory/nothing is valid in memory that the device shares itself", test_own_memory);
  return g_test_run ();
}
