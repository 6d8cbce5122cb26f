/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/object.h"

#include <endian.h>
#include <string.h>

static const char magic[16] = "domybs object\n\0";

struct wire {
  char magic[16];
  uint32_t version, header_bytes, page_bytes, digest_bytes;
  uint64_t size_bytes, n_pages, n_stored, data_offset;
  uint8_t table_sum[OBJECT_SUM_BYTES];
  uint8_t header_sum[OBJECT_SUM_BYTES];
  uint8_t zeros[OBJECT_HEADER_BYTES - OBJECT_SUMMED_BYTES - OBJECT_SUM_BYTES];
};
_Static_assert(sizeof (struct wire) == OBJECT_HEADER_BYTES, "");
_Static_assert(offsetof (struct wire, header_sum) == OBJECT_SUMMED_BYTES, "");

static bool
starts_with (const char *text, const char *start) {
  return strncmp (text, start, strlen (start)) == 0;
}

bool
object_name_is_good (const char *name) {
  const size_t n = strnlen (name, OBJECT_NAME_BYTES_MAX + 1);

  if (n == 0 || n > OBJECT_NAME_BYTES_MAX || name[0] == '-' || name[n - 1] == '-')
    return false;
  for (size_t i = 0; i < n; i++)
    if (!(name[i] >= 'a' && name[i] <= 'z') && !(name[i] >= '0' && name[i] <= '9') && name[i] != '-')
      return false;
  return strcmp (name, "shared") != 0 && strcmp (name, "remote") != 0 && !starts_with (name, "mem-");
}

uint64_t
object_n_pages (uint64_t size_bytes) {
  return size_bytes / OBJECT_PAGE_BYTES + (size_bytes % OBJECT_PAGE_BYTES != 0);
}

uint64_t
object_data_offset (uint64_t n_pages) {
  const uint64_t per_page = OBJECT_PAGE_BYTES / OBJECT_DIGEST_BYTES;

  return OBJECT_HEADER_BYTES + (n_pages + per_page - 1) / per_page * OBJECT_PAGE_BYTES;
}

uint64_t
object_file_bytes (uint64_t n_pages) {
  return object_data_offset (n_pages) + n_pages * OBJECT_PAGE_BYTES;
}

bool
object_digest_is_zero (const uint8_t digest[OBJECT_DIGEST_BYTES]) {
  uint64_t words[OBJECT_DIGEST_BYTES / 8];

  memcpy (words, digest, sizeof words);
  return (words[0] | words[1]) == 0;
}

/* ---- header ---- */

void
object_header_write (const struct object_header *header, uint8_t out[OBJECT_HEADER_BYTES]) {
  const uint64_t n_pages = object_n_pages (header->size_bytes);
  struct wire wire = {
    .version = htole32 (OBJECT_VERSION),
    .header_bytes = htole32 (OBJECT_HEADER_BYTES),
    .page_bytes = htole32 (OBJECT_PAGE_BYTES),
    .digest_bytes = htole32 (OBJECT_DIGEST_BYTES),
    .size_bytes = htole64 (header->size_bytes),
    .n_pages = htole64 (n_pages),
    .n_stored = htole64 (header->n_stored),
    .data_offset = htole64 (object_data_offset (n_pages)),
  };

  memcpy (wire.magic, magic, sizeof magic);
  memcpy (wire.table_sum, header->table_sum, sizeof wire.table_sum);
  memcpy (out, &wire, sizeof wire);
}

const char *
object_header_check (const uint8_t in[OBJECT_HEADER_BYTES], const uint8_t sum[OBJECT_SUM_BYTES], uint64_t file_bytes,
                     struct object_header *ret_header) {
  struct wire wire;
  uint64_t size_bytes, n_pages;

  memcpy (&wire, in, sizeof wire);
  if (memcmp (wire.magic, magic, sizeof magic) != 0)
    return "is no object";
  /* Before the sum, of which a later version may have another one. */
  if (le32toh (wire.version) != OBJECT_VERSION)
    return "is an object of another version than this program knows";
  if (memcmp (wire.header_sum, sum, OBJECT_SUM_BYTES) != 0)
    return "has a header that was damaged";
  if (le32toh (wire.header_bytes) != OBJECT_HEADER_BYTES || le32toh (wire.page_bytes) != OBJECT_PAGE_BYTES
      || le32toh (wire.digest_bytes) != OBJECT_DIGEST_BYTES)
    return "has pages or digests of another size than this program knows";
  size_bytes = le64toh (wire.size_bytes);
  if (size_bytes == 0 || size_bytes > OBJECT_PAGES_MAX * OBJECT_PAGE_BYTES)
    return "says that it has a size that no object can have";
  n_pages = object_n_pages (size_bytes);
  if (le64toh (wire.n_pages) != n_pages || le64toh (wire.n_stored) > n_pages
      || le64toh (wire.data_offset) != object_data_offset (n_pages))
    return "has a header that contradicts itself";
  for (size_t i = 0; i < sizeof wire.zeros; i++)
    if (wire.zeros[i])
      return "has a header with something behind its end";
  if (file_bytes && file_bytes != object_file_bytes (n_pages))
    return file_bytes < object_file_bytes (n_pages) ? "was cut short" : "is longer than its header says";
  ret_header->size_bytes = size_bytes;
  ret_header->n_stored = le64toh (wire.n_stored);
  memcpy (ret_header->table_sum, wire.table_sum, sizeof ret_header->table_sum);
  return NULL;
}

const char *
object_table_check (const struct object_header *header, const uint8_t *table, const uint8_t sum[OBJECT_SUM_BYTES]) {
  const uint64_t n_pages = object_n_pages (header->size_bytes);
  const uint64_t table_bytes = object_data_offset (n_pages) - OBJECT_HEADER_BYTES;
  uint64_t n_stored = 0;

  if (memcmp (header->table_sum, sum, OBJECT_SUM_BYTES) != 0)
    return "has a table of digests that was damaged";
  for (uint64_t i = 0; i < n_pages; i++)
    n_stored += !object_digest_is_zero (table + i * OBJECT_DIGEST_BYTES);
  if (n_stored != header->n_stored)
    return "has another number of pages than its header says";
  for (uint64_t at = n_pages * OBJECT_DIGEST_BYTES; at < table_bytes; at += OBJECT_DIGEST_BYTES)
    if (!object_digest_is_zero (table + at))
      return "has a table of digests with something behind its end";
  return NULL;
}
