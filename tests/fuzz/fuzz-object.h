/* SPDX-License-Identifier: GPL-2.0-or-later */
#ifndef DOMYBS_TESTS_FUZZ_OBJECT_H
#define DOMYBS_TESTS_FUZZ_OBJECT_H

#define FUZZ_OBJECT_FILE_SIZE 1u /* options: behind the header is the size of the file, in pages (2 bytes) */

#endif
