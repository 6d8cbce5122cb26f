/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Between the parts of a guest. */
#ifndef DOMYBS_TESTS_GUEST_INTERNAL_H
#define DOMYBS_TESTS_GUEST_INTERNAL_H

#include "guest.h"

#define GUEST_PAGE 4096u
#define GUEST_MARK 0xcc /* what lies in an answer's page after it was read */

/* guest.c */
void guest_fill_block (struct guest *guest, uint64_t block);   /* with something new; it is granted */
void guest_verify_block (struct guest *guest, uint64_t block);
void guest_expect_zero (struct guest *guest, uint64_t block);
void guest_refill_block (struct guest *guest, uint64_t block);
void guest_take_events (struct guest *guest);

/* guest-judge.c */
void guest_judge (struct guest *guest, const struct guest_request *request, unsigned slot, uint32_t len);
void guest_void_books (struct guest *guest); /* no session, nothing granted */

#endif
