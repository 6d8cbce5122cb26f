/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The input of the state fuzzer: options 8; then the damages, each part 8 (header, scalars, answers, record, bits), length 8,
 * offset 16, bytes; then what the guest does if the image is found good: see live_on. */
#ifndef DOMYBS_TESTS_FUZZ_STATE_H
#define DOMYBS_TESTS_FUZZ_STATE_H

#define FUZZ_STATE_PENDING 1u      /* a transaction is committed and not applied */
#define FUZZ_STATE_DAMAGES_SHIFT 4 /* the upper four bits: how many damages */

#endif
