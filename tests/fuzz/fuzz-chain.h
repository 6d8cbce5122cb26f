/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input of the descriptor walk: one byte of options, the driver's index (2 bytes), then guest memory from its start:
 *
 *   0x000 descriptors (32)   0x200 available ring   0x280 used ring   0x400 anything   0x1000 end
 *
 * A piece of the device's own window lies right behind it.
 */
#ifndef DOMYBS_TESTS_FUZZ_CHAIN_H
#define DOMYBS_TESTS_FUZZ_CHAIN_H

#define CHAIN_NUM_SHIFT_MASK 7u /* of the options: log2 of the queue's size, up to 5 */
#define CHAIN_INDIRECT 8u
#define CHAIN_EVENT_IDX 16u
#define CHAIN_UNPOP 32u /* put every other chain back once */

#define CHAIN_AVAIL 0x200u
#define CHAIN_USED 0x280u
#define CHAIN_RAM_BYTES 0x1000u
#define CHAIN_RAM_BASE 0x8000u /* guest address of the memory */
#define CHAIN_WINDOW_BASE (CHAIN_RAM_BASE + CHAIN_RAM_BYTES)
#define CHAIN_WINDOW_BYTES 0x1000u

#endif
