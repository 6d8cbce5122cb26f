/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Requests written byte by byte, so that each can be wrong in one way. */
#ifndef DOMYBS_TESTS_REQUEST_BYTES_H
#define DOMYBS_TESTS_REQUEST_BYTES_H

#include "rig.h"

/* A request as little-endian fields put one behind the other. */
struct bytes {
  uint8_t data[8192];
  size_t n;
};

void put (struct bytes *bytes, uint64_t value, size_t width);
void put_header (struct bytes *bytes, unsigned type, unsigned flags, uint32_t count, uint64_t session, uint64_t id); /* at the start */
/* Sends it: the answer must have that status, and grant nothing. */
void expect_status (struct fe *fe, const struct bytes *bytes, unsigned status);

#endif
