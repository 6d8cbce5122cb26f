/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The input of the request fuzzer: operations one after the other, each a code, the host's mood where it makes a request, and
 * its arguments. So mutations change what a guest does, and most of what it does gets past the first check.
 */
#ifndef DOMYBS_TESTS_FUZZ_REQUEST_H
#define DOMYBS_TESTS_FUZZ_REQUEST_H

enum fuzz_operation {   /* arguments: 8 and 16 are bits */
  FUZZ_HELLO,           /* nonce 8, log2 of the section size 8 */
  FUZZ_GRANT,           /* hint and flags 8, blocks 16, area start 16, area blocks 16 */
  FUZZ_RELEASE,         /* number of runs 8, then start 16 and count 8 for each */
  FUZZ_RELEASE_GRANTED, /* start 16, count 8: of the first granted run from there on */
  FUZZ_STATS,           /* number 8, then tag 8 and value 16 for each */
  FUZZ_BYE,
  FUZZ_RAW,             /* length 8, bytes: with session and id of the moment */
  FUZZ_RAW_ALL,         /* length 8, bytes: with nothing changed */
  FUZZ_REPEAT,          /* which of the last 32 requests 8 */
  FUZZ_RESET,
  FUZZ_TARGET,          /* whether 8, blocks 16 */
  FUZZ_RESERVE,         /* tier and flags 8, blocks 16 */
  FUZZ_OPERATIONS
};

/* The host's mood, 8 bits: */
#define FUZZ_MOOD_OUTCOME 3u   /* enum device_outcome */
#define FUZZ_MOOD_DROP 4u      /* the queue is stopped between plan and finish */
#define FUZZ_MOOD_SCARCE 8u    /* room for the number of blocks in the upper four bits only */
#define FUZZ_MOOD_TIGHT 16u    /* without SCARCE: little room for the answer */
#define FUZZ_MOOD_WRONG_ID 32u /* without SCARCE: not the next id, but 20 more minus the length of the input so far */
#define FUZZ_MOOD_WRONG_SESSION 64u

#define FUZZ_WINDOW_BLOCKS 1024u
#define FUZZ_MAX_BLOCKS 500u

#endif
