/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input of the block requests: one byte of options, the disk's size in pages (4 bytes), the numbers of readable and
 * writable bytes (2 each), a byte that says how to cut them, then the readable bytes from their start.
 */
#ifndef DOMYBS_TESTS_FUZZ_BLK_H
#define DOMYBS_TESTS_FUZZ_BLK_H

#define FUZZ_BLK_READ_ONLY 1u /* options */
#define FUZZ_BLK_LARGE 2u     /* the disk's size is 2¹² times that */

/* How to cut: a piece of so many bytes, then one of twice as many, … and again; 0: one piece. */

#endif
