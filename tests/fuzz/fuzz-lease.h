/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DOMYBS_TESTS_FUZZ_LEASE_H
#define DOMYBS_TESTS_FUZZ_LEASE_H

/* What the input is made of: one of these (1 byte), then … */
enum {
  FUZZ_LEASE_ASK,  /* verb, vm, host, boot, flags (1 byte each), session, blocks, seq (1 byte each): numbers are filled in as
                      flags say */
  FUZZ_LEASE_RAW,  /* LEASE_REQUEST_BYTES */
  FUZZ_LEASE_NAME, /* LEASE_EXPORT_NAME_BYTES − 1 */
  FUZZ_LEASE_USE,  /* block (1 byte), what (1): take, look, drop */
  FUZZ_LEASE_RESTART,
  FUZZ_LEASE_ZERO,
  FUZZ_LEASE_ORDER, /* lease, level, what (1 byte each): revoke, limit; never forget */
  FUZZ_LEASE_TIME,  /* seconds (1 byte) */
  FUZZ_LEASE_ACTIONS
};

/* Flags of ASK: whose numbers. */
#define FUZZ_LEASE_VICTIM 1u    /* those of the good borrower's lease; else of the last answer */
#define FUZZ_LEASE_NO_LEASE 2u  /* none */
#define FUZZ_LEASE_OLD_EPOCH 4u /* one less */
#define FUZZ_LEASE_OTHER_ARENA 8u
#define FUZZ_LEASE_OTHER_KEY 16u /* of another bad identity */

#endif
