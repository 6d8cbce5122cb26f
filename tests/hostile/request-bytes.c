/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "request-bytes.h"

#include <endian.h>
#include <string.h>

void
put (struct bytes *bytes, uint64_t value, size_t width) {
  const uint64_t little = htole64 (value);

  memcpy (bytes->data + bytes->n, &little, width);
  bytes->n += width;
}

void
put_header (struct bytes *bytes, unsigned type, unsigned flags, uint32_t count, uint64_t session, uint64_t id) {
  bytes->n = 0;
  put (bytes, type, 2);
  put (bytes, flags, 2);
  put (bytes, count, 4);
  put (bytes, session, 8);
  put (bytes, id, 8);
}

void
expect_status (struct fe *fe, const struct bytes *bytes, unsigned status) {
  struct fe_answer answer;

  fe_must (fe, fe_call (fe, bytes->data, bytes->n, &answer));
  g_assert_cmpuint (answer.status, ==, status);
  g_assert_cmpuint (answer.blocks, ==, 0);
  g_assert_cmpuint (answer.count, ==, 0);
}
