/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Random requests, good and bad, in pieces of any size, against a plain second opinion: what each of them has to answer, byte
 * for byte, and what the export's memory has to be afterwards. Client and server take turns in one thread, so that a seed is a
 * run. DOMYBS_FUZZED says how many requests (1,000,000 take some minutes).
 */
#include "scene.h"

#include "testing.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define OUT_BYTES_MAX (3u << 20) /* of requests that are made before the answers are looked at */

static const guint8 garbage[NBD_REQUEST_BYTES] = { 0x25, 0x60, 0x95, 0x14 };

typedef struct {
  GRand *rand;
  GMainContext *context;
  SceneExports exports;
  PageServer *server;
  SecureSide *server_side, *client_side; /* NULL: plain */
  SecureStream *client;                  /* NULL: no connection */
  gboolean structured, allocation, ends;
  GByteArray *out, *expected;
  guint sent, seen; /* of these */
  guint requests, connections;
  /* the second opinion */
  guint8 *data;
  gboolean have[SCENE_BLOCKS];
  guint used;
} Run;

/* ---- what is to be answered ---- */

static void
expect (Run *run, const void *bytes, gsize n) {
  g_byte_array_append (run->expected, bytes, (guint)n);
}

static void
expect_simple (Run *run, const struct nbd_request *request, guint32 error) {
  guint8 header[16];

  nbd_put32 (header, 0x67446698);
  nbd_put32 (header + 4, error);
  nbd_put64 (header + 8, request->cookie);
  expect (run, header, sizeof header);
}

static void
expect_chunk (Run *run, const struct nbd_request *request, guint16 type, guint32 bytes) {
  guint8 header[20];

  nbd_put32 (header, 0x668e33ef);
  nbd_put16 (header + 4, 1);
  nbd_put16 (header + 6, type);
  nbd_put64 (header + 8, request->cookie);
  nbd_put32 (header + 16, bytes);
  expect (run, header, sizeof header);
}

static void
expect_error (Run *run, const struct nbd_request *request, guint32 error) {
  guint8 body[6] = { 0 };

  if (!run->structured) {
    expect_simple (run, request, error);
    return;
  }
  nbd_put32 (body, error);
  expect_chunk (run, request, 0x8001, sizeof body);
  expect (run, body, sizeof body);
}

/* ---- the second opinion ---- */

static gboolean
model_take (Run *run, guint64 block) {
  if (!run->have[block] && run->used == run->exports.level)
    return FALSE;
  run->used += !run->have[block];
  run->have[block] = TRUE;
  return TRUE;
}

static void
model_drop (Run *run, guint64 block) {
  run->used -= run->have[block];
  run->have[block] = FALSE;
  memset (run->data + block * EXPORT_BLOCK_BYTES, 0, EXPORT_BLOCK_BYTES);
}

static guint32
flags_allowed (Run *run, guint16 command) {
  if (command == NBD_CMD_READ && run->structured)
    return 1 | 4;
  if (command == NBD_CMD_WRITE_ZEROES)
    return 1 | 2;
  return command == NBD_CMD_BLOCK_STATUS ? 1 | 8 : 1;
}

static guint32
model_check (Run *run, const struct nbd_request *r) {
  const gboolean inside = r->offset <= SCENE_BYTES && SCENE_BYTES - r->offset >= r->bytes;

  if (r->command > NBD_CMD_BLOCK_STATUS || r->command == NBD_CMD_CACHE || r->command == NBD_CMD_DISC
      || (r->flags & ~flags_allowed (run, r->command)))
    return NBD_EINVAL;
  if (r->command == NBD_CMD_FLUSH)
    return NBD_OK;
  if (r->bytes == 0 || ((r->command == NBD_CMD_READ || r->command == NBD_CMD_WRITE) && r->bytes > (2u << 20))
      || (r->command == NBD_CMD_BLOCK_STATUS && !run->allocation))
    return NBD_EINVAL;
  if (inside)
    return NBD_OK;
  return r->command == NBD_CMD_WRITE || r->command == NBD_CMD_WRITE_ZEROES ? NBD_ENOSPC : NBD_EINVAL;
}

static void
model_read (Run *run, const struct nbd_request *r) {
  const guint64 first = r->offset / EXPORT_BLOCK_BYTES, last = (r->offset + r->bytes - 1) / EXPORT_BLOCK_BYTES;
  guint8 body[12];

  nbd_put64 (body, r->offset);
  nbd_put32 (body + 8, r->bytes);
  if (!run->structured)
    expect_simple (run, r, NBD_OK);
  else if (!(r->flags & 4) && !run->have[first] && !run->have[last]) { /* two at most */
    expect_chunk (run, r, 2, 12);
    expect (run, body, 12);
    return;
  } else {
    expect_chunk (run, r, 1, 8 + r->bytes);
    expect (run, body, 8);
  }
  expect (run, run->data + r->offset, r->bytes);
}

static void
model_status (Run *run, const struct nbd_request *r) {
  guint8 extents[4 + 8 * SCENE_BLOCKS];
  guint64 at = r->offset, end = r->offset + r->bytes;
  guint n = 0;

  nbd_put32 (extents, 1);
  while (at < end && !(n == 1 && (r->flags & 8))) {
    const gboolean have = run->have[at / EXPORT_BLOCK_BYTES];
    guint64 next = at;

    while (next < end && run->have[next / EXPORT_BLOCK_BYTES] == have)
      next = MIN (end, (next / EXPORT_BLOCK_BYTES + 1) * EXPORT_BLOCK_BYTES);
    nbd_put32 (extents + 4 + 8 * n, (guint32)(next - at));
    nbd_put32 (extents + 8 + 8 * n, have ? 0 : 3);
    n++;
    at = next;
  }
  expect_chunk (run, r, 5, 4 + 8 * n);
  expect (run, extents, 4 + 8 * n);
}

static void
model_write (Run *run, const struct nbd_request *r, guint32 error, const guint8 *bytes) {
  guint64 block;

  for (block = r->offset / EXPORT_BLOCK_BYTES; error == NBD_OK && block <= (r->offset + r->bytes - 1) / EXPORT_BLOCK_BYTES;
       block++)
    error = model_take (run, block) ? NBD_OK : NBD_ENOSPC;
  if (error == NBD_OK)
    memcpy (run->data + r->offset, bytes, r->bytes);
  expect_simple (run, r, error);
}

static void
model_wide (Run *run, const struct nbd_request *r) {
  guint64 at = r->offset, next, end = r->offset + r->bytes;

  for (; at < end; at = next) {
    const guint64 block = at / EXPORT_BLOCK_BYTES;

    next = MIN (end, (block + 1) * EXPORT_BLOCK_BYTES);
    if (next - at == EXPORT_BLOCK_BYTES && !(r->flags & 2))
      model_drop (run, block);
    else if (r->command == NBD_CMD_WRITE_ZEROES) {
      if ((r->flags & 2) && !model_take (run, block)) {
        expect_simple (run, r, NBD_ENOSPC);
        return;
      }
      memset (run->data + at, 0, next - at);
    }
  }
  expect_simple (run, r, NBD_OK);
}

/* ---- requests ---- */

static guint64
any_offset (Run *run, guint32 bytes) {
  switch (testing_below (run->rand, 8)) {
  case 0:
    return testing_edgy (run->rand);
  case 1:
    return SCENE_BYTES - testing_below (run->rand, 3 * (guint64)bytes + 2);
  case 2: /* near a border */
    return testing_below (run->rand, SCENE_BLOCKS) * EXPORT_BLOCK_BYTES;
  case 3:
    return (1 + testing_below (run->rand, SCENE_BLOCKS - 1)) * EXPORT_BLOCK_BYTES
           - testing_below (run->rand, (guint64)bytes + 1);
  default:
    return testing_below (run->rand, SCENE_BYTES);
  }
}

static guint32
any_bytes (Run *run, guint16 command) {
  if (command == NBD_CMD_READ || command == NBD_CMD_WRITE) {
    if (testing_once_in (run->rand, 500))
      return (2u << 20) - 2 + (guint32)testing_below (run->rand, 5);
    if (testing_once_in (run->rand, 100))
      return (guint32)testing_below (run->rand, 1u << 20);
    return (guint32)testing_below (run->rand, testing_once_in (run->rand, 2) ? 5000 : 200);
  }
  if (testing_once_in (run->rand, 10))
    return (guint32)testing_edgy (run->rand);
  return testing_once_in (run->rand, 3) ? (guint32)testing_below (run->rand, 4) * EXPORT_BLOCK_BYTES
                                        : (guint32)testing_below (run->rand, 5 * EXPORT_BLOCK_BYTES);
}

static void
add_request (Run *run) {
  static const guint16 likely[]
      = { NBD_CMD_READ,  NBD_CMD_READ,  NBD_CMD_READ, NBD_CMD_READ,         NBD_CMD_WRITE,        NBD_CMD_WRITE,
          NBD_CMD_WRITE, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLUSH };
  struct nbd_request r = { .cookie = (guint64)g_rand_int (run->rand) << 32 | run->requests };
  guint8 header[NBD_REQUEST_BYTES];
  guint32 error;
  guint i;

  r.command = testing_once_in (run->rand, 50) ? (guint16)testing_edgy (run->rand)
                                              : likely[testing_below (run->rand, G_N_ELEMENTS (likely))];
  if (r.command == NBD_CMD_DISC)
    r.command = NBD_CMD_CACHE;
  if (testing_once_in (run->rand, 4))
    r.flags = (guint16)(1u << testing_below (run->rand, testing_once_in (run->rand, 8) ? 16 : 4));
  r.bytes = any_bytes (run, r.command);
  r.offset = any_offset (run, r.bytes);
  if (r.command == NBD_CMD_WRITE_ZEROES && (r.flags & 2) && r.bytes > (4u << 20))
    r.bytes >>= 6; /* so much is dear */
  testing_trace ("request %u: command %u flags %#x %u bytes at %" G_GUINT64_FORMAT, run->requests, r.command, r.flags, r.bytes,
                 r.offset);
  run->requests++;
  nbd_request_encode (&r, header);
  g_byte_array_append (run->out, header, sizeof header);
  error = model_check (run, &r);
  if (r.command == NBD_CMD_WRITE) {
    const guint at = run->out->len;

    if (r.bytes > OUT_BYTES_MAX)
      g_assert_not_reached ();
    g_byte_array_set_size (run->out, at + r.bytes);
    for (i = 0; i < r.bytes; i++)
      run->out->data[at + i] = (guint8)(r.cookie + i * 7 + (i >> 8));
    if (r.bytes)
      model_write (run, &r, error, run->out->data + at);
    else
      expect_simple (run, &r, error);
    return;
  }
  if (error != NBD_OK)
    expect_error (run, &r, error);
  else if (r.command == NBD_CMD_READ)
    model_read (run, &r);
  else if (r.command == NBD_CMD_BLOCK_STATUS)
    model_status (run, &r);
  else if (r.command == NBD_CMD_FLUSH)
    expect_simple (run, &r, NBD_OK);
  else
    model_wide (run, &r);
}

/* ---- client and server take turns ---- */

/* A piece of what is to be sent, and of what has come. FALSE: nothing has moved. */
static gboolean
turn (Run *run) {
  static guint8 got[1u << 20];
  gboolean moved = FALSE;
  gssize n;

  if (run->sent < run->out->len) {
    const gsize piece = 1 + testing_below (run->rand, testing_once_in (run->rand, 3) ? 100 : 300000);

    n = secure_stream_write (run->client, run->out->data + run->sent, MIN (piece, run->out->len - run->sent));
    if (n > 0)
      run->sent += (guint)n;
    moved |= n > 0;
  } else if (secure_stream_unsent (run->client))
    secure_stream_write (run->client, NULL, 0);
  moved |= g_main_context_iteration (run->context, FALSE);
  n = secure_stream_read (run->client, got, 1 + testing_below (run->rand, sizeof got));
  if (n > 0) {
    g_assert_cmpuint (run->seen + (gsize)n, <=, run->expected->len);
    if (memcmp (got, run->expected->data + run->seen, (gsize)n) != 0)
      g_error ("request %u or one before it: other bytes than expected", run->requests);
    run->seen += (guint)n;
  } else if (n != -EAGAIN) {
    g_assert_true (run->ends);
    g_clear_pointer (&run->client, secure_stream_free);
  }
  return moved || n != -EAGAIN;
}

/* Until all is sent and answered; or the connection has ended. */
static void
finish (Run *run) {
  guint idle = 0;

  while (run->client && (run->ends || run->sent < run->out->len || run->seen < run->expected->len)) {
    idle = turn (run) ? 0 : idle + 1;
    if (idle > 20)
      g_usleep (100);
    if (idle > 100000)
      g_error ("request %u: no answer", run->requests);
  }
  if (run->client && run->out->len) {
    g_byte_array_set_size (run->out, 0);
    g_byte_array_set_size (run->expected, 0);
    run->sent = run->seen = 0;
  }
}

static void
check_memory (Run *run) {
  guint i;

  g_assert_cmpuint (run->exports.used, ==, run->used);
  for (i = 0; i < SCENE_BLOCKS; i++) {
    g_assert_cmpint (run->exports.block[i] != NULL, ==, run->have[i]);
    if (run->have[i])
      g_assert_cmpint (memcmp (run->exports.block[i], run->data + (gsize)i * EXPORT_BLOCK_BYTES, EXPORT_BLOCK_BYTES), ==, 0);
  }
}

static void
say_option (Run *run, guint32 option, const void *data, guint32 n) {
  guint8 header[NBD_OPTION_BYTES];

  nbd_option_encode (option, n, header);
  g_byte_array_append (run->out, header, sizeof header);
  g_byte_array_append (run->out, data, n);
}

static void
expect_option (Run *run, guint32 option, guint32 type, const void *data, guint32 n) {
  guint8 header[NBD_OPTION_REPLY_BYTES];

  nbd_option_reply_encode (option, type, n, header);
  expect (run, header, sizeof header);
  expect (run, data, n);
}

static void
connect_client (Run *run) {
  static const guint8 context[] = { 0,   0,   0,   4,   'd', 'i', 's', 'k', 0,   0,   0,   1,   0,   0,   0,  15,
                                    'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n' };
  guint8 data[64] = { 0 };
  int fds[2];

  g_byte_array_set_size (run->out, 0);
  g_byte_array_set_size (run->expected, 0);
  run->sent = run->seen = 0;
  run->ends = FALSE;
  run->connections++;
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), ==, 0);
  run->client = secure_stream_new (fds[0]);
  page_server_adopt (run->server, fds[1]);
  nbd_greeting_encode (3, data);
  expect (run, data, NBD_GREETING_BYTES);
  nbd_put32 (data, 3);
  g_byte_array_append (run->out, data, 4);
  if (run->server_side) {
    say_option (run, NBD_OPT_STARTTLS, NULL, 0);
    expect_option (run, NBD_OPT_STARTTLS, NBD_REP_ACK, NULL, 0);
    finish (run);
    secure_stream_start_tls (run->client, run->client_side);
  }
  run->structured = testing_once_in (run->rand, 2);
  run->allocation = run->structured && testing_once_in (run->rand, 2);
  if (run->structured) {
    say_option (run, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    expect_option (run, NBD_OPT_STRUCTURED_REPLY, NBD_REP_ACK, NULL, 0);
  }
  if (run->allocation) {
    say_option (run, NBD_OPT_SET_META_CONTEXT, context, sizeof context);
    expect_option (run, NBD_OPT_SET_META_CONTEXT, NBD_REP_META_CONTEXT, "\0\0\0\1base:allocation", 19);
    expect_option (run, NBD_OPT_SET_META_CONTEXT, NBD_REP_ACK, NULL, 0);
  }
  say_option (run, NBD_OPT_GO, data, (guint32)nbd_go_encode ("disk", data));
  nbd_info_export_encode (SCENE_BYTES, run->structured ? 0x1ed : 0x16d, data);
  expect_option (run, NBD_OPT_GO, NBD_REP_INFO, data, NBD_INFO_EXPORT_BYTES);
  nbd_info_block_size_encode (1, 4096, 2u << 20, data);
  expect_option (run, NBD_OPT_GO, NBD_REP_INFO, data, NBD_INFO_BLOCK_SIZE_BYTES);
  expect_option (run, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
  finish (run);
  g_assert_nonnull (run->client);
}

static gboolean
every (gpointer export, gpointer data) {
  return TRUE;
}

/* The connection's end, in one of four ways; all that was asked for before has been answered. */
static void
disconnect (Run *run) {
  const struct nbd_request bye = { .command = NBD_CMD_DISC };
  guint8 header[NBD_REQUEST_BYTES];
  guint way = (guint)testing_below (run->rand, 4);

  run->ends = TRUE;
  if (way == 0) { /* what is no request */
    g_byte_array_append (run->out, garbage, sizeof garbage);
    finish (run);
  } else if (way == 1) {
    nbd_request_encode (&bye, header);
    g_byte_array_append (run->out, header, sizeof header);
    finish (run);
  } else if (way == 2) {
    g_assert_cmpuint (page_server_close_export (run->server, every, NULL), ==, 1);
    finish (run);
  } else
    g_clear_pointer (&run->client, secure_stream_free);
  while (run->exports.opened != run->exports.closed)
    g_main_context_iteration (run->context, TRUE);
  check_memory (run);
}

static void
test_random (gconstpointer data) {
  const PageServerLimits limits = { 0 };
  const char *asked = g_getenv ("DOMYBS_FUZZED");
  const gboolean tls = GPOINTER_TO_INT (data);
  guint requests = asked ? (guint)strtoul (asked, NULL, 10) : testing_steps (tls ? 4000 : 20000);
  g_autoptr (PskKeys) keys = psk_keys_parse ("x:00112233445566778899aabbccddeeff", 34, "keys", NULL);
  Run run = {
    .rand = testing_rand (), .context = g_main_context_new (), .out = g_byte_array_new (), .expected = g_byte_array_new ()
  };
  const guint8 *key;
  gsize bytes;

  g_assert (psk_keys_find (keys, "x", &key, &bytes));
  g_main_context_push_thread_default (run.context);
  if (tls) {
    run.server_side = secure_side_new_server (keys, NULL);
    run.client_side = secure_side_new_client ("x", key, bytes, NULL);
  }
  run.data = g_malloc0 (SCENE_BYTES);
  run.exports.level = SCENE_BLOCKS - 3;
  run.exports.server = run.server = page_server_new (-1, run.server_side, &scene_exports_kind, &run.exports, &limits);
  while (run.requests < requests) {
    guint left = 1 + (guint)testing_below (run.rand, testing_once_in (run.rand, 4) ? 20 : 1000);

    connect_client (&run);
    while (left) {
      guint batch = 1 + (guint)testing_below (run.rand, 64);

      for (; batch && left && run.out->len < OUT_BYTES_MAX && run.expected->len < 4 * OUT_BYTES_MAX; batch--, left--)
        add_request (&run);
      finish (&run);
    }
    disconnect (&run);
  }
  g_test_message ("%u requests over %u connections", run.requests, run.connections);
  page_server_free (run.server);
  g_assert_cmpuint (run.exports.late, ==, 0);
  scene_exports_clear (&run.exports);
  g_main_context_pop_thread_default (run.context);
  g_main_context_unref (run.context);
  secure_side_unref (run.server_side);
  secure_side_unref (run.client_side);
  g_byte_array_unref (run.out);
  g_byte_array_unref (run.expected);
  g_free (run.data);
  g_rand_free (run.rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/page-random/plain", GINT_TO_POINTER (0), test_random);
  g_test_add_data_func ("/page-random/tls", GINT_TO_POINTER (1), test_random);
  return g_test_run ();
}
