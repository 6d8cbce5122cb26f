/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Demand paging of a program's memory to a vhost-user-blk disk, within that program: what a guest's kernel does, without the
 * guest.
 *
 * A page that is not there is a real fault (userfaultfd, as a signal): it is read from the disk, one at a time, and mapped. To
 * make room, pages that were not used lately (second chance, 32 at a time) are unmapped; those that were changed since they
 * were read are written to free clusters of the disk, in runs, behind the program's back, and stay readable until that is done;
 * clusters of 2 MiB that nothing is left in are discarded. What a processor notes in its page tables (used, changed), the
 * program says before each access.
 *
 * One for a process, used by one thread. An I/O error ends the program.
 */
#ifndef DOMYBS_TESTS_PAGER_H
#define DOMYBS_TESTS_PAGER_H

#include "blk.h"

#define PAGER_PAGE ((size_t)BLK_PAGE)

enum { PAGER_USED = 1, PAGER_CHANGED = 2, PAGER_PRESENT = 4, PAGER_WRITING = 8, PAGER_CHOSEN = 16 };

struct pager {
  uint8_t *area;  /* the memory */
  uint8_t *flags; /* of each page */
  uint32_t n_pages;
  unsigned poll_us;           /* how long a wait looks for an answer before it sleeps; may be set at any time; 0 at first */
  uint64_t faults, ins, outs; /* pages; a fault that is not an `in` is a page's first use, or was still being written */
};

/* blk: connected, at least twice as large, one queue; stays the caller's. All of it is zero, and may be in memory. */
struct pager *pager_new (struct blk *blk, uint32_t n_pages);
void pager_free (struct pager *pager);

/* How many pages may be in memory from now on; the others are moved out before it returns. At least 256. */
void pager_limit (struct pager *pager, uint32_t n_local);

/* Before each access. */
static inline void
pager_note (struct pager *pager, uint32_t page, bool change) {
  pager->flags[page] |= change ? PAGER_USED | PAGER_CHANGED : PAGER_USED;
}

#endif
