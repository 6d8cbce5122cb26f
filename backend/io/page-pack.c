/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/page-pack.h"

#include <lz4.h>
#include <string.h>

/* Four values at a time: the compiler makes of it what the machine has. A guest may have its pages at odd addresses. */
typedef uint64_t values __attribute__ ((vector_size (32), aligned (1), may_alias));
#define STRIDE 8u /* vectors between two looks: 256 bytes */
#define N_VECTORS (FAR_PAGE_BYTES / sizeof (values))

gboolean
page_is_same (const uint8_t *page, uint64_t *ret_value) {
  const values *const v = (const values *)page;
  uint64_t value, last;

  memcpy (&value, page, sizeof value);
  memcpy (&last, page + FAR_PAGE_BYTES - sizeof last, sizeof last);
  if (value != last) /* most pages are found out here, or in the first stride */
    return FALSE;
  for (unsigned i = 0; i < N_VECTORS; i += STRIDE) {
    values different = v[i] ^ value;

    for (unsigned j = 1; j < STRIDE; j++)
      different |= v[i + j] ^ value;
    if (different[0] | different[1] | different[2] | different[3])
      return FALSE;
  }
  *ret_value = value;
  return TRUE;
}

void
page_fill (uint8_t *page, uint64_t value) {
  values *const v = (values *)page;

  for (unsigned i = 0; i < N_VECTORS; i++)
    v[i] = (values){ value, value, value, value };
}

/*
 * How much LZ4 hurries: ns per page to pack, and what is left of it, measured on
 *                            1             4             8            16
 *   memory of a program   2990 36 %     2890 37 %     2810 38 %     2640 40 %
 *   text                  6620 66 %     4710 84 %     2930 95 %     1510 99 %
 *   programs' code        5840 70 %     4100 76 %     2700 82 %     1680 86 %
 * Far pages are mostly the first. With what else a write takes (tests/bench/bench-seal: the whole path) that is 0.7 to 1.1 GB/s a core.
 */
#define HURRY 8

unsigned
page_pack (const uint8_t *page, uint8_t *out) {
  static LZ4_stream_t state;
  const int bytes
      = LZ4_compress_fast_extState (&state, (const char *)page, (char *)out, FAR_PAGE_BYTES, PAGE_PACKED_BYTES_MAX, HURRY);

  return bytes > 0 ? (unsigned)bytes : 0;
}

gboolean
page_unpack (const uint8_t *packed, unsigned bytes, uint8_t *out) {
  if (bytes <= PAGE_PACKED_BYTES_MAX
      && LZ4_decompress_safe ((const char *)packed, (char *)out, (int)bytes, FAR_PAGE_BYTES) == (int)FAR_PAGE_BYTES)
    return TRUE;
  memset (out, 0, FAR_PAGE_BYTES);
  return FALSE;
}
