/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A caller of the page store as the engine is one, with stage and storage that are plain arrays: each unit of 256 bytes is a
 * number, the version of the page that was put there. And a plain list of what each page must be, against which all of it is
 * checked.
 */
#ifndef DOMYBS_TESTS_FAR_MODEL_H
#define DOMYBS_TESTS_FAR_MODEL_H

#include <glib.h>

#include "core/far-store-internal.h"

struct model_page { /* what it must be */
  enum far_kind kind;
  uint32_t bytes;
  uint64_t version, value;
};

enum model_call {
  CALL_VERSIONS,
  CALL_PLACE,
  CALL_COMMIT,
  CALL_DISCARD,
  CALL_NEXT_WRITE,
  CALL_WRITTEN,
  CALL_NOT_WRITTEN,
  CALL_CLOSE_OPEN,
  CALL_COVER,
  CALL_GIVE_BACK,
};

struct far_model {
  struct far_geometry geometry;
  uint64_t *state;
  size_t state_bytes;
  struct far_store *store;
  uint32_t *stage, *storage; /* FAR_UNITS for each slot, each place */
  struct model_page *pages;
  uint64_t versions; /* the first that was not taken */
  GRand *rand;
  struct far_write writes[FAR_STAGE_SLOTS_MAX]; /* under way */
  unsigned n_writes;
  uint32_t bad; /* writes that failed */
  bool failing; /* every other write of model_write_out fails */

  /* what is being changed by a call, for who looks at its middle */
  struct far_change changes[FAR_COMMIT_MAX];
  unsigned n_changes;
  uint64_t discard_first, discard_n;
  void (*begin) (struct far_model *model, enum model_call call);
  void (*end) (struct far_model *model, enum model_call call);

  uint64_t pages_written, pages_moved, segments_written, victims, given;
};

/* covers all places */
void model_init (struct far_model *model, uint64_t n_pages, unsigned spare_permille, unsigned n_slots);
void model_clear (struct far_model *model);
/* With a state of its own, a copy of `state`, and its own stage and storage; no store, nothing under way. */
void model_copy (struct far_model *copy, const struct far_model *model, const void *state);
/* Opens the state, where that must be possible. */
void model_open (struct far_model *model);
/* The process dies: writes that were under way may have been done in part. The next one goes on. */
void model_die (struct far_model *model);

/* Writes pages as one commit (several, if the stage fills up): of a kind, or with FAR_NONE of any kinds; cleans and writes the
 * stage as it must. */
void model_write (struct far_model *model, const uint32_t *pages, unsigned n, enum far_kind kind);
/* Puts a RAW page as it is at another spot. False: there is no place. */
bool model_put (struct far_model *model, enum far_class class, uint32_t page);
void model_discard (struct far_model *model, uint64_t first, uint64_t n, unsigned max_pages);
/* Cleans one segment wholly. False: there is no victim. */
bool model_clean (struct far_model *model);
/* Cleans while that is wanted. */
void model_keep_clean (struct far_model *model);
/* Begins to write one segment. False: there is none. */
bool model_begin_write (struct far_model *model);
/* Ends the write with that index. */
void model_end_write (struct far_model *model, unsigned index, bool good);
/* Gives up to `most` places back, whose bytes are gone then. False: there are none to spare. */
bool model_give_back (struct far_model *model, uint32_t most);
/* Backs up to `most` that were given back, or were never covered. False: there are none. */
bool model_cover (struct far_model *model, uint32_t most);
/* Writes all that is closed. */
void model_write_out (struct far_model *model);
/* Any of the above. */
void model_step (struct far_model *model);

/* What a page says must be what it must be, and where it says it is. */
void model_check_page (const struct far_model *model, uint32_t page);
void model_check_pages (const struct far_model *model);
/* Whether the page is as `expected` says. */
bool model_page_is (const struct far_model *model, uint32_t page, const struct model_page *expected);
void model_after_change (const struct far_page *now, struct model_page *ret_page);

/* Counts everything anew and compares: lists, buckets, slots, places, figures. */
void model_recount (const struct far_model *model);

#endif
