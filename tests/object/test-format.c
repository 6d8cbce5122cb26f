/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an object's file may say about itself. */
#include "core/object.h"
#include "testing.h"

#include <string.h>

/* Any bytes will do for a sum: the core compares them only. */
static const uint8_t sum[OBJECT_SUM_BYTES] = "the header's";

static void
make (const struct object_header *header, uint8_t out[OBJECT_HEADER_BYTES]) {
  object_header_write (header, out);
  memcpy (out + OBJECT_SUMMED_BYTES, sum, sizeof sum);
}

static const struct object_header good = { .size_bytes = 1000 * OBJECT_PAGE_BYTES - 7, .n_stored = 900, .table_sum = "table" };

static void
names (void) {
  static const char *const are[] = { "a", "base", "debian-13", "0123456789abc", "sharedx", "memory", "mem" };
  static const char *const are_not[] = {
    "", "-", "-a", "a-", "A", "a b", "a/b", "../a", "a.b", "ä", "0123456789abcd", "shared", "remote", "mem-", "mem-shared"
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (are); i++)
    g_assert_true (object_name_is_good (are[i]));
  for (unsigned i = 0; i < G_N_ELEMENTS (are_not); i++)
    g_assert_false (object_name_is_good (are_not[i]));
}

static void
geometry (void) {
  g_assert_cmpuint (object_n_pages (1), ==, 1);
  g_assert_cmpuint (object_n_pages (4096), ==, 1);
  g_assert_cmpuint (object_n_pages (4097), ==, 2);
  g_assert_cmpuint (object_data_offset (1), ==, 8192);
  g_assert_cmpuint (object_data_offset (256), ==, 8192);
  g_assert_cmpuint (object_data_offset (257), ==, 12288);
  g_assert_cmpuint (object_file_bytes (OBJECT_PAGES_MAX), ==, 4096 + (4ull << 30) + (1ull << 40));
}

static void
round_trip (void) {
  static const uint64_t sizes[] = { 1, 4095, 4096, 4097, 1ull << 30, OBJECT_PAGES_MAX * OBJECT_PAGE_BYTES };

  for (unsigned i = 0; i < G_N_ELEMENTS (sizes); i++) {
    const struct object_header header = { .size_bytes = sizes[i], .n_stored = object_n_pages (sizes[i]), .table_sum = "x" };
    const uint64_t bytes = object_file_bytes (object_n_pages (sizes[i]));
    uint8_t wire[OBJECT_HEADER_BYTES];
    struct object_header back;

    make (&header, wire);
    g_assert_null (object_header_check (wire, sum, bytes, &back));
    g_assert_null (object_header_check (wire, sum, 0, &back));
    g_assert_cmpmem (&back, sizeof back, &header, sizeof header);
    g_assert_cmpstr (object_header_check (wire, sum, bytes - 1, &back), ==, "was cut short");
    g_assert_cmpstr (object_header_check (wire, sum, bytes + 4096, &back), ==, "is longer than its header says");
  }
}

/* Each field with a sum that is right, as somebody makes it who means harm. */
static void
wrong_fields (void) {
  static const struct {
    unsigned offset, bytes;
    uint64_t value;
    const char *why;
  } wrong[] = {
    { 0, 1, 'x', "is no object" },
    { 15, 1, 'x', "is no object" },
    { 16, 4, 0, "another version" },
    { 16, 4, 2, "another version" },
    { 20, 4, 8192, "another size" },
    { 24, 4, 0, "another size" },
    { 24, 4, 512, "another size" },
    { 28, 4, 32, "another size" },
    { 32, 8, 0, "no object can have" },
    { 32, 8, UINT64_MAX, "no object can have" },
    { 32, 8, OBJECT_PAGES_MAX * OBJECT_PAGE_BYTES + 1, "no object can have" },
    { 32, 8, 999 * OBJECT_PAGE_BYTES, "contradicts" },
    { 40, 8, 0, "contradicts" },
    { 40, 8, UINT64_MAX, "contradicts" },
    { 48, 8, 1001, "contradicts" },
    { 56, 8, 0, "contradicts" },
    { 56, 8, 1ull << 63, "contradicts" },
    { 96, 1, 'x', "damaged" },
    { 128, 1, 1, "behind its end" },
    { 4095, 1, 1, "behind its end" },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    const uint64_t value = GUINT64_TO_LE (wrong[i].value);
    uint8_t wire[OBJECT_HEADER_BYTES];
    struct object_header back = { .size_bytes = 77 };
    const char *why;

    make (&good, wire);
    memcpy (wire + wrong[i].offset, &value, wrong[i].bytes);
    why = object_header_check (wire, sum, object_file_bytes (1000), &back);
    g_assert_nonnull (why);
    if (!strstr (why, wrong[i].why))
      g_error ("field at %u: “%s” and not “%s”", wrong[i].offset, why, wrong[i].why);
    g_assert_cmpuint (back.size_bytes, ==, 77);
  }
}

static void
table (void) {
  const struct object_header header = { .size_bytes = 3 * OBJECT_PAGE_BYTES, .n_stored = 2, .table_sum = "table" };
  uint8_t digests[OBJECT_PAGE_BYTES] = { [0] = 1, [2 * OBJECT_DIGEST_BYTES + 15] = 1 };

  g_assert_null (object_table_check (&header, digests, header.table_sum));
  g_assert_cmpstr (object_table_check (&header, digests, sum), ==, "has a table of digests that was damaged");
  digests[OBJECT_DIGEST_BYTES + 8] = 1;
  g_assert_cmpstr (object_table_check (&header, digests, header.table_sum), ==,
                   "has another number of pages than its header says");
  digests[OBJECT_DIGEST_BYTES + 8] = 0;
  digests[OBJECT_PAGE_BYTES - 1] = 1;
  g_assert_cmpstr (object_table_check (&header, digests, header.table_sum), ==,
                   "has a table of digests with something behind its end");
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/object/format/names", names);
  g_test_add_func ("/object/format/geometry", geometry);
  g_test_add_func ("/object/format/round-trip", round_trip);
  g_test_add_func ("/object/format/wrong-fields", wrong_fields);
  g_test_add_func ("/object/format/table", table);
  return g_test_run ();
}
