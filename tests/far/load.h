/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests on a disk, and what each of its pages must be: a number and a kind for each, from which its bytes follow. A
 * page is part of one request at a time, so every read has one right answer, also when requests are carried out twice after a
 * back-end's death.
 */
#ifndef DOMYBS_TESTS_FAR_LOAD_H
#define DOMYBS_TESTS_FAR_LOAD_H

#include "far.h"

enum load_kind { LOAD_ZERO, LOAD_SAME, LOAD_TEXT /* packs well */, LOAD_RANDOM, LOAD_KINDS };

struct load_page {
  uint32_t number;
  uint8_t kind; /* enum load_kind */
  bool busy;    /* part of a request in flight */
  bool damaged; /* a read must end in an I/O error, until it is written again */
  bool unknown; /* a write of it has failed: it may have been done, or not */
};

struct load {
  struct far *far;
  struct blk *blk;
  GRand *random;
  unsigned disk;
  uint64_t n_pages, hot_pages; /* requests go to the first hot_pages */
  struct load_page *pages;
  struct load_page *next; /* what a write in flight makes of them: of the same index */
  uint32_t numbers;
  unsigned depth;                         /* requests in flight at most */
  unsigned max_pages;                     /* in one request */
  unsigned read_percent, discard_percent; /* the others are writes, and some flushes */
  unsigned kinds;                         /* 1 << kind: those that are written */
  bool plain;                             /* chains of the plainest shape */
  bool may_fail_writes;                   /* an I/O error for a write is no failure … */
  bool may_fail_reads;                    /* … or for a read */
  uint64_t done, reads, writes, discards, failed_writes, failed_reads, expected_errors;
};

/* Takes over blk. All kinds, depth 16, 16 pages, 40 % reads, 8 % discards. */
void load_init (struct load *load, struct far *far, struct blk *blk, unsigned disk, GRand *random);
void load_clear (struct load *load);

void load_fill (const struct load *load, uint64_t page, const struct load_page *what, uint8_t *bytes);

/* Begins one more request at random, if there is room. */
void load_begin (struct load *load);
/* Deals with one answer if there is one within timeout_ms; after a lost connection, connects again first. False: none came. */
bool load_end_one (struct load *load, int timeout_ms);
/* n requests, all answered at the end. */
void load_run (struct load *load, unsigned n);
void load_drain (struct load *load);
/* Writes pages [first, + n) with `kind`, in order, many at a time. */
void load_write_all (struct load *load, uint64_t first, uint64_t n, enum load_kind kind);
/* Reads every page and compares. */
void load_check_all (struct load *load);
/* Connects again, and kicks. Aborts the test when that fails. */
void load_reconnect (struct load *load);

#endif
