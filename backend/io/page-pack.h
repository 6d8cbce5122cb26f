/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What of a page is worth storing: nothing if it is one value throughout, fewer bytes if LZ4 makes it so. Not for
 * several threads at a time: page_pack has one state. */
#ifndef DOMYBS_IO_PAGE_PACK_H
#define DOMYBS_IO_PAGE_PACK_H

#include <glib.h>

#include "core/far-store.h"

/* Packed pages longer than this are not worth unpacking: they are stored RAW. */
#define PAGE_PACKED_BYTES_MAX (FAR_PAGE_BYTES * 3 / 4)

/* Whether the page is one 8-byte value, repeated. Ends at the first difference. The page may change under it: then every part
 * of it was of that value when it was looked at. */
gboolean page_is_same (const uint8_t *page, uint64_t *ret_value);
void page_fill (uint8_t *page, uint64_t value);

/* page must not change meanwhile. Returns the packed length (≤ PAGE_PACKED_BYTES_MAX), 0: not worth it. out: FAR_PAGE_BYTES. */
unsigned page_pack (const uint8_t *page, uint8_t *out);
/* FALSE: that is no packed page (out is zeroed). packed must not change meanwhile, out may. */
gboolean page_unpack (const uint8_t *packed, unsigned bytes, uint8_t *out);

#endif
