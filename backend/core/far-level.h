/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How much of a far disk is ready ahead of its use: blocks beyond those in use that can be written, whatever is in their pages,
 * without waiting for storage to be reserved for them. The guest says how many it wants to have ready (its level,
 * DOMYBS_REQ_RESERVE).
 *
 * A block takes a place of its own while no place has gaps: so as many blocks are ready as places are covered and free, but for
 * those that are kept for cleaning. When all places are covered, the whole disk is: its geometry has room for all of its pages.
 *
 * Pure.
 */
#ifndef DOMYBS_CORE_FAR_LEVEL_H
#define DOMYBS_CORE_FAR_LEVEL_H

#include "core/far-store.h"

/* Of a disk of n_blocks, with these figures. */
uint64_t far_level_ready (const struct far_figures *figures, uint64_t n_blocks);

/* Whether covering more places (far_store_cover) brings the disk nearer to `level` blocks that are ready. */
bool far_level_wants_more (const struct far_figures *figures, uint64_t n_blocks, uint64_t level);

#endif
