/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The input of the page server's harness: options, then operations one after the other, each a code and its arguments. */
#ifndef DOMYBS_TESTS_FUZZ_PAGE_H
#define DOMYBS_TESTS_FUZZ_PAGE_H

#define FUZZ_PAGE_OPEN 1u       /* options: each connection begins with an open export */
#define FUZZ_PAGE_STRUCTURED 2u /* with structured replies */
#define FUZZ_PAGE_CONTEXT 4u    /* and base:allocation */

enum fuzz_page_operation {                    /* arguments: 8 and 16 are bits */
                           FUZZ_PAGE_RAW,     /* length 8, bytes */
                           FUZZ_PAGE_OPTION,  /* which 8, length said less length 8, length 8, data */
                           FUZZ_PAGE_REQUEST, /* command 8, flags 8, block 8, bytes in the block 16, blocks 8, bytes 16 */
                           FUZZ_PAGE_DATA,    /* length 16: so many bytes of anything */
                           FUZZ_PAGE_TURN,    /* the server's turn */
                           FUZZ_PAGE_CLOSE,   /* the exports are closed */
                           FUZZ_PAGE_LEVEL,   /* blocks 8 */
                           FUZZ_PAGE_STALE,   /* whether 8 */
                           FUZZ_PAGE_CONNECT, /* another connection instead */
                           FUZZ_PAGE_OPERATIONS
};

/* Options by number: 0 is one that nobody knows. */
#define FUZZ_PAGE_OPTIONS                                                                                                      \
  { 77, 1, 2, 3, 5, 6, 7, 8, 9, 10, 0x444d5942 }

#endif
