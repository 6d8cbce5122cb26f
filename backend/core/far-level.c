/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/far-level.h"
#include "core/far-store-internal.h"

/* Blocks that are not in use. */
static uint64_t
left (const struct far_figures *figures, uint64_t n_blocks) {
  return n_blocks > figures->blocks_in_use ? n_blocks - figures->blocks_in_use : 0;
}

uint64_t
far_level_ready (const struct far_figures *figures, uint64_t n_blocks) {
  const uint64_t blocks = left (figures, n_blocks);
  const uint64_t spare = figures->free > FAR_RESERVED_PLACES ? figures->free - FAR_RESERVED_PLACES : 0;

  if (figures->covered == figures->places && figures->bad == 0)
    return blocks;
  return spare < blocks ? spare : blocks;
}

bool
far_level_wants_more (const struct far_figures *figures, uint64_t n_blocks, uint64_t level) {
  const uint64_t blocks = left (figures, n_blocks), wanted = level < blocks ? level : blocks;

  return figures->covered < figures->places && far_level_ready (figures, n_blocks) < wanted;
}
