/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/nbd.h"

#include <string.h>

#define MAGIC_NBD UINT64_C (0x4e42444d41474943)    /* "NBDMAGIC" */
#define MAGIC_OPTION UINT64_C (0x49484156454f5054) /* "IHAVEOPT" */
#define MAGIC_OPTION_REPLY UINT64_C (0x0003e889045565a9)
#define MAGIC_REQUEST 0x25609513u
#define MAGIC_SIMPLE 0x67446698u
#define MAGIC_CHUNK 0x668e33efu

/* ---- handshake ---- */

void
nbd_greeting_encode (uint16_t flags, uint8_t out[NBD_GREETING_BYTES]) {
  nbd_put64 (out, MAGIC_NBD);
  nbd_put64 (out + 8, MAGIC_OPTION);
  nbd_put16 (out + 16, flags);
}

bool
nbd_greeting_decode (const uint8_t in[NBD_GREETING_BYTES], uint16_t *ret_flags) {
  *ret_flags = nbd_get16 (in + 16);
  return nbd_get64 (in) == MAGIC_NBD && nbd_get64 (in + 8) == MAGIC_OPTION && (*ret_flags & NBD_FLAG_FIXED_NEWSTYLE);
}

void
nbd_option_encode (uint32_t option, uint32_t bytes, uint8_t out[NBD_OPTION_BYTES]) {
  nbd_put64 (out, MAGIC_OPTION);
  nbd_put32 (out + 8, option);
  nbd_put32 (out + 12, bytes);
}

bool
nbd_option_decode (const uint8_t in[NBD_OPTION_BYTES], uint32_t *ret_option, uint32_t *ret_bytes) {
  *ret_option = nbd_get32 (in + 8);
  *ret_bytes = nbd_get32 (in + 12);
  return nbd_get64 (in) == MAGIC_OPTION;
}

void
nbd_option_reply_encode (uint32_t option, uint32_t type, uint32_t bytes, uint8_t out[NBD_OPTION_REPLY_BYTES]) {
  nbd_put64 (out, MAGIC_OPTION_REPLY);
  nbd_put32 (out + 8, option);
  nbd_put32 (out + 12, type);
  nbd_put32 (out + 16, bytes);
}

bool
nbd_option_reply_decode (const uint8_t in[NBD_OPTION_REPLY_BYTES], uint32_t *ret_option, uint32_t *ret_type,
                         uint32_t *ret_bytes) {
  *ret_option = nbd_get32 (in + 8);
  *ret_type = nbd_get32 (in + 12);
  *ret_bytes = nbd_get32 (in + 16);
  return nbd_get64 (in) == MAGIC_OPTION_REPLY;
}

/* What is left of a peer's data. */
struct reader {
  const uint8_t *at;
  size_t left;
};

static bool
take_text (struct reader *reader, struct nbd_text *ret_text) {
  uint32_t n;

  if (reader->left < 4)
    return false;
  n = nbd_get32 (reader->at);
  if (n > NBD_NAME_BYTES_MAX || n > reader->left - 4)
    return false;
  *ret_text = (struct nbd_text){ reader->at + 4, n };
  reader->at += 4 + n;
  reader->left -= 4 + n;
  return true;
}

bool
nbd_go_decode (const uint8_t *data, size_t bytes, struct nbd_text *ret_name) {
  struct reader reader = { data, bytes };

  if (!take_text (&reader, ret_name) || reader.left < 2)
    return false;
  return reader.left == 2 + 2u * nbd_get16 (reader.at);
}

size_t
nbd_go_encode (const char *name, uint8_t *out) {
  const size_t n = strlen (name);

  nbd_put32 (out, (uint32_t)n);
  memcpy (out + 4, name, n);
  nbd_put16 (out + 4 + n, 0);
  return n + 6;
}

bool
nbd_meta_decode (const uint8_t *data, size_t bytes, struct nbd_text *ret_name, struct nbd_text *ret_queries, uint32_t max,
                 uint32_t *ret_count) {
  struct reader reader = { data, bytes };
  struct nbd_text query;
  uint32_t count, i;

  *ret_count = 0;
  if (!take_text (&reader, ret_name) || reader.left < 4)
    return false;
  count = nbd_get32 (reader.at);
  reader.at += 4;
  reader.left -= 4;
  /* Each takes four bytes of what is there at least, so a large count ends this soon. */
  for (i = 0; i < count; i++) {
    if (!take_text (&reader, &query))
      return false;
    if (*ret_count < max)
      ret_queries[(*ret_count)++] = query;
  }
  return reader.left == 0;
}

bool
nbd_text_is (const struct nbd_text *text, const char *string) {
  return text->n == strlen (string) && memcmp (text->bytes, string, text->n) == 0;
}

void
nbd_info_export_encode (uint64_t size, uint16_t flags, uint8_t out[NBD_INFO_EXPORT_BYTES]) {
  nbd_put16 (out, NBD_INFO_EXPORT);
  nbd_put64 (out + 2, size);
  nbd_put16 (out + 10, flags);
}

bool
nbd_info_export_decode (const uint8_t *data, size_t bytes, uint64_t *ret_size, uint16_t *ret_flags) {
  if (bytes != NBD_INFO_EXPORT_BYTES || nbd_get16 (data) != NBD_INFO_EXPORT)
    return false;
  *ret_size = nbd_get64 (data + 2);
  *ret_flags = nbd_get16 (data + 10);
  return (*ret_flags & NBD_FLAG_HAS_FLAGS) != 0;
}

void
nbd_info_block_size_encode (uint32_t least, uint32_t preferred, uint32_t most, uint8_t out[NBD_INFO_BLOCK_SIZE_BYTES]) {
  nbd_put16 (out, NBD_INFO_BLOCK_SIZE);
  nbd_put32 (out + 2, least);
  nbd_put32 (out + 6, preferred);
  nbd_put32 (out + 10, most);
}

/* ---- transmission ---- */

void
nbd_request_encode (const struct nbd_request *request, uint8_t out[NBD_REQUEST_BYTES]) {
  nbd_put32 (out, MAGIC_REQUEST);
  nbd_put16 (out + 4, request->flags);
  nbd_put16 (out + 6, request->command);
  nbd_put64 (out + 8, request->cookie);
  nbd_put64 (out + 16, request->offset);
  nbd_put32 (out + 24, request->bytes);
}

bool
nbd_request_decode (const uint8_t in[NBD_REQUEST_BYTES], struct nbd_request *ret_request) {
  *ret_request = (struct nbd_request){
    .flags = nbd_get16 (in + 4),
    .command = nbd_get16 (in + 6),
    .cookie = nbd_get64 (in + 8),
    .offset = nbd_get64 (in + 16),
    .bytes = nbd_get32 (in + 24),
  };
  return nbd_get32 (in) == MAGIC_REQUEST;
}

/* Flags that a command may have: FUA is for all of them, and means nothing to memory. */
static uint16_t
flags_of (uint16_t command, bool structured) {
  switch (command) {
  case NBD_CMD_READ:
    return structured ? NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_DF : NBD_CMD_FLAG_FUA;
  case NBD_CMD_WRITE_ZEROES:
    return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE;
  case NBD_CMD_BLOCK_STATUS:
    return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
  default:
    return NBD_CMD_FLAG_FUA;
  }
}

enum nbd_error
nbd_request_check (const struct nbd_request *request, uint64_t size, bool structured, bool allocation) {
  const bool writes = request->command == NBD_CMD_WRITE || request->command == NBD_CMD_WRITE_ZEROES;

  switch (request->command) {
  case NBD_CMD_READ:
  case NBD_CMD_WRITE:
    if (request->bytes > NBD_REQUEST_DATA_MAX)
      return NBD_EINVAL;
    break;
  case NBD_CMD_TRIM:
  case NBD_CMD_WRITE_ZEROES:
    break;
  case NBD_CMD_BLOCK_STATUS:
    if (!allocation)
      return NBD_EINVAL;
    break;
  case NBD_CMD_FLUSH:
    return request->flags & ~flags_of (request->command, structured) ? NBD_EINVAL : NBD_OK;
  default:
    return NBD_EINVAL;
  }
  if (request->flags & ~flags_of (request->command, structured) || request->bytes == 0)
    return NBD_EINVAL;
  if (request->offset > size || request->bytes > size - request->offset)
    return writes ? NBD_ENOSPC : NBD_EINVAL;
  return NBD_OK;
}

void
nbd_simple_encode (uint32_t error, uint64_t cookie, uint8_t out[NBD_SIMPLE_BYTES]) {
  nbd_put32 (out, MAGIC_SIMPLE);
  nbd_put32 (out + 4, error);
  nbd_put64 (out + 8, cookie);
}

bool
nbd_simple_decode (const uint8_t in[NBD_SIMPLE_BYTES], uint32_t *ret_error, uint64_t *ret_cookie) {
  *ret_error = nbd_get32 (in + 4);
  *ret_cookie = nbd_get64 (in + 8);
  return nbd_get32 (in) == MAGIC_SIMPLE;
}

void
nbd_chunk_encode (uint16_t flags, uint16_t type, uint64_t cookie, uint32_t bytes, uint8_t out[NBD_CHUNK_BYTES]) {
  nbd_put32 (out, MAGIC_CHUNK);
  nbd_put16 (out + 4, flags);
  nbd_put16 (out + 6, type);
  nbd_put64 (out + 8, cookie);
  nbd_put32 (out + 16, bytes);
}

bool
nbd_chunk_decode (const uint8_t in[NBD_CHUNK_BYTES], uint16_t *ret_flags, uint16_t *ret_type, uint64_t *ret_cookie,
                  uint32_t *ret_bytes) {
  *ret_flags = nbd_get16 (in + 4);
  *ret_type = nbd_get16 (in + 6);
  *ret_cookie = nbd_get64 (in + 8);
  *ret_bytes = nbd_get32 (in + 16);
  return nbd_get32 (in) == MAGIC_CHUNK;
}
