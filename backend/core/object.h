/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The file of an object: named read-only content that VMs of a host share (far/object.md has the format). What a file says
 * about itself is checked here, all of it, and nowhere else. Pure: sums (SHA-256) are computed by the caller
 * (io/object-file.h).
 */
#ifndef DOMYBS_CORE_OBJECT_H
#define DOMYBS_CORE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OBJECT_VERSION 1u
#define OBJECT_PAGE_BYTES 4096u
#define OBJECT_DIGEST_BYTES 16u /* of one page: the first bytes of its SHA-256; all zeros: the page is zeros, and not stored   \
                                 */
#define OBJECT_SUM_BYTES 32u    /* SHA-256 of the table, and of the header */
#define OBJECT_HEADER_BYTES 4096u
/* What the header's own sum is of: all that comes before it. */
#define OBJECT_SUMMED_BYTES 96u
/* 1 TiB: its table, which whoever serves it has in memory, takes 4 GiB. */
#define OBJECT_PAGES_MAX (1ull << 28)
/* With "domybs-" before it, it is what the guest sees: 20 bytes. */
#define OBJECT_NAME_BYTES_MAX 13u

struct object_header {
  uint64_t size_bytes; /* of what was imported: 1 … OBJECT_PAGES_MAX pages; the rest of the last page is zeros */
  uint64_t n_stored;   /* pages that are not zeros */
  uint8_t table_sum[OBJECT_SUM_BYTES];
};

/* a-z, 0-9 and '-', not at an end; and no name that a disk of another kind has in the guest: shared, remote, mem-…. */
bool object_name_is_good (const char *name);

/* size_bytes: any number up to OBJECT_PAGES_MAX pages. */
uint64_t object_n_pages (uint64_t size_bytes);
/* Where the pages begin: behind the header and the table, which is filled up with zeros to a whole page. */
uint64_t object_data_offset (uint64_t n_pages);
/* Of the whole file. */
uint64_t object_file_bytes (uint64_t n_pages);

/* Writes a header but for its own sum, which the caller puts at out + OBJECT_SUMMED_BYTES: that of the bytes before it. */
void object_header_write (const struct object_header *header, uint8_t out[OBJECT_HEADER_BYTES]);

/* Whether it is the header of a file of file_bytes (0: of any size) that this program can read. sum: SHA-256 of its first
 * OBJECT_SUMMED_BYTES. Returns NULL and sets *ret_header, or says why not ("is …", "has …", "was …": the file's name goes
 * before). */
const char *object_header_check (const uint8_t in[OBJECT_HEADER_BYTES], const uint8_t sum[OBJECT_SUM_BYTES],
                                 uint64_t file_bytes, struct object_header *ret_header);

/* The same for the table: object_data_offset - OBJECT_HEADER_BYTES bytes of it, with their sum. */
const char *object_table_check (const struct object_header *header, const uint8_t *table, const uint8_t sum[OBJECT_SUM_BYTES]);

bool object_digest_is_zero (const uint8_t digest[OBJECT_DIGEST_BYTES]);

#endif
