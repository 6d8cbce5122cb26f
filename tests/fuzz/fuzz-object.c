/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of an object, made by somebody who can compute sums: its header and table are refused, or they say nothing that is
 * out of bounds, and are what would be written for what they say.
 *
 * The input: options (1 byte), the number of bytes of the header (2 bytes), these, then the table; the rest of both is zeros.
 */
#include "fuzz-object.h"

#include <glib.h>
#include <string.h>

#include "core/object.h"
#include "fuzz.h"

#define TABLE_BYTES_MAX (1u << 20)

static void
check_table (const struct object_header *header, struct input *input) {
  const uint64_t n_pages = object_n_pages (header->size_bytes), bytes = object_data_offset (n_pages) - OBJECT_HEADER_BYTES;
  g_autofree uint8_t *table = NULL;
  uint64_t stored = 0;

  if (bytes > TABLE_BYTES_MAX)
    return;
  table = g_malloc0 (bytes); /* of exactly its size, so that a sanitizer sees each byte too much */
  input_bytes (input, table, bytes);
  if (object_table_check (header, table, header->table_sum))
    return;
  for (uint64_t i = 0; i < bytes / OBJECT_DIGEST_BYTES; i++)
    stored += !object_digest_is_zero (table + i * OBJECT_DIGEST_BYTES);
  g_assert_cmpuint (stored, ==, header->n_stored);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  struct input input = { data, size };
  const uint8_t options = input_8 (&input);
  const uint16_t n = input_16 (&input);
  g_autofree uint8_t *wire = g_malloc0 (OBJECT_HEADER_BYTES);
  uint8_t again[OBJECT_HEADER_BYTES], sum[OBJECT_SUM_BYTES];
  struct object_header header = { 0 };
  uint64_t file_bytes = 0;
  const char *why;

  input_bytes (&input, wire, MIN (n, OBJECT_HEADER_BYTES));
  memcpy (sum, wire + OBJECT_SUMMED_BYTES, sizeof sum); /* as if it were right */
  if (options & FUZZ_OBJECT_FILE_SIZE)
    file_bytes = (uint64_t)input_16 (&input) * OBJECT_PAGE_BYTES;
  why = object_header_check (wire, sum, file_bytes, &header);
  if (why) {
    g_assert_cmpuint (header.size_bytes, ==, 0); /* left alone */
    return 0;
  }
  g_assert_cmpuint (header.size_bytes, >, 0);
  g_assert_cmpuint (object_n_pages (header.size_bytes), <=, OBJECT_PAGES_MAX);
  g_assert_cmpuint (header.n_stored, <=, object_n_pages (header.size_bytes));
  if (file_bytes)
    g_assert_cmpuint (file_bytes, ==, object_file_bytes (object_n_pages (header.size_bytes)));
  object_header_write (&header, again);
  memcpy (again + OBJECT_SUMMED_BYTES, sum, sizeof sum);
  g_assert_cmpmem (again, sizeof again, wire, OBJECT_HEADER_BYTES);
  check_table (&header, &input);
  return 0;
}
