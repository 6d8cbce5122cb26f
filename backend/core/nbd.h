/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The NBD wire (fixed newstyle), as far as the page channel needs it: numbers, and headers to bytes and back.
 *
 *   server  NBDMAGIC IHAVEOPT flags                       client  flags
 *   client  IHAVEOPT option length data                   server  REPLYMAGIC option type length data      … until GO or
 * EXPORT_NAME client  REQMAGIC flags command cookie offset length (data of a WRITE) server  SIMPLEMAGIC error cookie (data of a
 * READ)     or, where STRUCTURED_REPLY was asked for, chunks: CHUNKMAGIC flags type cookie length data
 *
 * All numbers are big endian. Lengths from the wire are bounded here or by the caller before anything is done with them;
 * nothing is allocated. Source: the NBD project's doc/proto.md. Pure.
 */
#ifndef DOMYBS_CORE_NBD_H
#define DOMYBS_CORE_NBD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_GREETING_BYTES 18u
#define NBD_CLIENT_FLAGS_BYTES 4u
#define NBD_OPTION_BYTES 16u       /* header */
#define NBD_OPTION_REPLY_BYTES 20u /* header */
#define NBD_REQUEST_BYTES 28u
#define NBD_SIMPLE_BYTES 16u /* header of a simple reply */
#define NBD_CHUNK_BYTES 20u  /* header of a chunk of a structured reply */
#define NBD_NAME_BYTES_MAX 4096u
#define NBD_REQUEST_DATA_MAX (2u << 20) /* of a READ or WRITE: ours, announced */

enum nbd_handshake_flags { NBD_FLAG_FIXED_NEWSTYLE = 1u << 0, NBD_FLAG_NO_ZEROES = 1u << 1 }; /* server's and client's alike */

enum nbd_option {
  NBD_OPT_EXPORT_NAME = 1,
  NBD_OPT_ABORT = 2,
  NBD_OPT_LIST = 3,
  NBD_OPT_STARTTLS = 5,
  NBD_OPT_INFO = 6,
  NBD_OPT_GO = 7,
  NBD_OPT_STRUCTURED_REPLY = 8,
  NBD_OPT_LIST_META_CONTEXT = 9,
  NBD_OPT_SET_META_CONTEXT = 10,
  NBD_OPT_LEASE
  = 0x444d5942, /* private, "DMYB": a lease request (core/lease.h); answered by one reply of the type of the same number */
};

enum nbd_option_reply {
  NBD_REP_ACK = 1,
  NBD_REP_SERVER = 2,
  NBD_REP_INFO = 3,
  NBD_REP_META_CONTEXT = 4,
  NBD_REP_LEASE = 0x444d5942,
};
/* Errors: their data is text for people. */
#define NBD_REP_IS_ERROR(type) (((type)&0x80000000u) != 0)
#define NBD_REP_ERR_UNSUP 0x80000001u
#define NBD_REP_ERR_POLICY 0x80000002u
#define NBD_REP_ERR_INVALID 0x80000003u
#define NBD_REP_ERR_TLS_REQD 0x80000005u
#define NBD_REP_ERR_UNKNOWN 0x80000006u
#define NBD_REP_ERR_TOO_BIG 0x80000009u

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };
#define NBD_INFO_EXPORT_BYTES 12u     /* type, size, transmission flags */
#define NBD_INFO_BLOCK_SIZE_BYTES 14u /* type, smallest, preferred, largest */

enum nbd_transmission_flags {
  NBD_FLAG_HAS_FLAGS = 1u << 0,
  NBD_FLAG_READ_ONLY = 1u << 1,
  NBD_FLAG_SEND_FLUSH = 1u << 2,
  NBD_FLAG_SEND_FUA = 1u << 3,
  NBD_FLAG_SEND_TRIM = 1u << 5,
  NBD_FLAG_SEND_WRITE_ZEROES = 1u << 6,
  NBD_FLAG_SEND_DF = 1u << 7,
  NBD_FLAG_CAN_MULTI_CONN = 1u << 8,
};

enum nbd_command {
  NBD_CMD_READ = 0,
  NBD_CMD_WRITE = 1,
  NBD_CMD_DISC = 2,
  NBD_CMD_FLUSH = 3,
  NBD_CMD_TRIM = 4,
  NBD_CMD_CACHE = 5,
  NBD_CMD_WRITE_ZEROES = 6,
  NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flags {
  NBD_CMD_FLAG_FUA = 1u << 0,
  NBD_CMD_FLAG_NO_HOLE = 1u << 1,
  NBD_CMD_FLAG_DF = 1u << 2,
  NBD_CMD_FLAG_REQ_ONE = 1u << 3,
};

enum nbd_error {
  NBD_OK = 0,
  NBD_EPERM = 1,
  NBD_EIO = 5,
  NBD_ENOMEM = 12,
  NBD_EINVAL = 22,
  NBD_ENOSPC = 28,
  NBD_EOVERFLOW = 75,
  NBD_ENOTSUP = 95,
  NBD_ESHUTDOWN = 108, /* ours: the lease or epoch is not that any more; the connection ends */
};

enum nbd_chunk_type {
  NBD_CHUNK_NONE = 0,
  NBD_CHUNK_OFFSET_DATA = 1,
  NBD_CHUNK_OFFSET_HOLE = 2,
  NBD_CHUNK_BLOCK_STATUS = 5,
  NBD_CHUNK_ERROR = 0x8001,
  NBD_CHUNK_ERROR_OFFSET = 0x8002,
};
#define NBD_CHUNK_FLAG_DONE 1u

#define NBD_STATE_HOLE 1u /* of base:allocation */
#define NBD_STATE_ZERO 2u
#define NBD_CONTEXT_ALLOCATION "base:allocation"

/* Big-endian numbers at any address. */
static inline void
nbd_put16 (uint8_t *out, uint16_t value) {
  out[0] = (uint8_t)(value >> 8);
  out[1] = (uint8_t)value;
}

static inline void
nbd_put32 (uint8_t *out, uint32_t value) {
  nbd_put16 (out, (uint16_t)(value >> 16));
  nbd_put16 (out + 2, (uint16_t)value);
}

static inline void
nbd_put64 (uint8_t *out, uint64_t value) {
  nbd_put32 (out, (uint32_t)(value >> 32));
  nbd_put32 (out + 4, (uint32_t)value);
}

static inline uint16_t
nbd_get16 (const uint8_t *in) {
  return (uint16_t)(in[0] << 8 | in[1]);
}

static inline uint32_t
nbd_get32 (const uint8_t *in) {
  return (uint32_t)nbd_get16 (in) << 16 | nbd_get16 (in + 2);
}

static inline uint64_t
nbd_get64 (const uint8_t *in) {
  return (uint64_t)nbd_get32 (in) << 32 | nbd_get32 (in + 4);
}

/* ---- handshake ---- */

void nbd_greeting_encode (uint16_t flags, uint8_t out[NBD_GREETING_BYTES]);
/* FALSE: it is no server of the fixed newstyle. */
bool nbd_greeting_decode (const uint8_t in[NBD_GREETING_BYTES], uint16_t *ret_flags);

void nbd_option_encode (uint32_t option, uint32_t bytes, uint8_t out[NBD_OPTION_BYTES]);
bool nbd_option_decode (const uint8_t in[NBD_OPTION_BYTES], uint32_t *ret_option, uint32_t *ret_bytes);

void nbd_option_reply_encode (uint32_t option, uint32_t type, uint32_t bytes, uint8_t out[NBD_OPTION_REPLY_BYTES]);
bool nbd_option_reply_decode (const uint8_t in[NBD_OPTION_REPLY_BYTES], uint32_t *ret_option, uint32_t *ret_type,
                              uint32_t *ret_bytes);

/* A string of the peer's, in its bytes. */
struct nbd_text {
  const uint8_t *bytes;
  uint32_t n;
};

/* Data of GO and INFO. FALSE: it is none, or the name has more than NBD_NAME_BYTES_MAX. */
bool nbd_go_decode (const uint8_t *data, size_t bytes, struct nbd_text *ret_name);
/* Data of GO for that name, with no wishes; returns the bytes (6 + name). */
size_t nbd_go_encode (const char *name, uint8_t *out);

/* Data of LIST_META_CONTEXT and SET_META_CONTEXT, checked as a whole: the name, then `count` queries, of which at most `max`
 * are returned. */
bool nbd_meta_decode (const uint8_t *data, size_t bytes, struct nbd_text *ret_name, struct nbd_text *ret_queries, uint32_t max,
                      uint32_t *ret_count);
bool nbd_text_is (const struct nbd_text *text, const char *string);

void nbd_info_export_encode (uint64_t size, uint16_t flags, uint8_t out[NBD_INFO_EXPORT_BYTES]);
/* FALSE: it is something else, or not of that length. */
bool nbd_info_export_decode (const uint8_t *data, size_t bytes, uint64_t *ret_size, uint16_t *ret_flags);
void nbd_info_block_size_encode (uint32_t least, uint32_t preferred, uint32_t most, uint8_t out[NBD_INFO_BLOCK_SIZE_BYTES]);

/* ---- transmission ---- */

struct nbd_request {
  uint16_t flags;   /* NBD_CMD_FLAG_… */
  uint16_t command; /* enum nbd_command, or anything */
  uint64_t cookie, offset;
  uint32_t bytes;
};

void nbd_request_encode (const struct nbd_request *request, uint8_t out[NBD_REQUEST_BYTES]);
/* FALSE: no request begins here; the connection cannot go on. */
bool nbd_request_decode (const uint8_t in[NBD_REQUEST_BYTES], struct nbd_request *ret_request);
/* Whether a disk of `size` bytes that takes all commands of ours can do that: NBD_OK, or what is to be answered. structured:
 * STRUCTURED_REPLY was asked for, allocation: and SET_META_CONTEXT of base:allocation. */
enum nbd_error nbd_request_check (const struct nbd_request *request, uint64_t size, bool structured, bool allocation);

void nbd_simple_encode (uint32_t error, uint64_t cookie, uint8_t out[NBD_SIMPLE_BYTES]);
bool nbd_simple_decode (const uint8_t in[NBD_SIMPLE_BYTES], uint32_t *ret_error, uint64_t *ret_cookie);

void nbd_chunk_encode (uint16_t flags, uint16_t type, uint64_t cookie, uint32_t bytes, uint8_t out[NBD_CHUNK_BYTES]);
bool nbd_chunk_decode (const uint8_t in[NBD_CHUNK_BYTES], uint16_t *ret_flags, uint16_t *ret_type, uint64_t *ret_cookie,
                       uint32_t *ret_bytes);

#endif
