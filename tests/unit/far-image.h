/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images of a page store's state: of which disk they are, and what is in one, as text. */
#ifndef DOMYBS_TESTS_UNIT_FAR_IMAGE_H
#define DOMYBS_TESTS_UNIT_FAR_IMAGE_H

#include "core/far-store.h"

#include <glib.h>

#define IMAGE_PAGES (4 * FAR_BLOCK_PAGES)
#define IMAGE_SLOTS 5u

static inline struct far_geometry
image_geometry (void) {
  return (struct far_geometry){ .n_pages = IMAGE_PAGES,
                                .n_places = far_store_places_needed (IMAGE_PAGES, 100, IMAGE_SLOTS),
                                .n_stage_slots = IMAGE_SLOTS,
                                .device = 3 };
}

/* All that a store says of itself, and nothing that a later program may decide otherwise. */
static inline char *
image_text (const struct far_store *store) {
  GString *text = g_string_new (NULL);
  struct far_figures f;

  far_store_figures (store, &f);
  g_string_append_printf (text,
                          "none %" G_GUINT64_FORMAT " same %" G_GUINT64_FORMAT " raw %" G_GUINT64_FORMAT
                          " packed %" G_GUINT64_FORMAT " lost %" G_GUINT64_FORMAT "\nstored %" G_GUINT64_FORMAT
                          " blocks %" G_GUINT64_FORMAT " covered %u bad %u versions %" G_GUINT64_FORMAT "\n",
                          f.pages[FAR_NONE], f.pages[FAR_SAME], f.pages[FAR_RAW], f.pages[FAR_PACKED], f.pages[FAR_LOST],
                          f.stored_bytes, f.blocks_in_use, f.covered, f.bad, f.versions);
  if (f.given)
    g_string_append_printf (text, "given %u\n", f.given);
  for (uint32_t number = 0; number < IMAGE_PAGES; number++) {
    struct far_segment segment = { -1, 0 };
    struct far_page page;

    far_store_get (store, number, &page);
    if (page.kind == FAR_NONE)
      continue;
    if (page.kind == FAR_RAW || page.kind == FAR_PACKED)
      far_store_segment (store, page.segment, &segment);
    g_string_append_printf (
        text, "page %u kind %d bytes %u segment %u offset %u version %" G_GUINT64_FORMAT " slot %d place %u", number,
        (int)page.kind, page.bytes, page.segment, page.offset, page.version, segment.slot, segment.place);
    if (page.kind == FAR_SAME)
      g_string_append_printf (text, " value %" G_GINT64_MODIFIER "x", page.value);
    for (unsigned i = 0; i < FAR_TAG_BYTES && page.kind != FAR_SAME; i++)
      g_string_append_printf (text, "%s%02x", i ? "" : " tag ", page.tag[i]);
    g_string_append_c (text, '\n');
  }
  return g_string_free (text, FALSE);
}

#endif
