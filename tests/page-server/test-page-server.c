/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a page server does for a client that keeps to the rules: each request, plain and with TLS, and what closing an export
 * promises. */
#include "scene.h"

#include "core/lease.h"
#include "testing.h"

#include <string.h>

static gboolean tls; /* of this run of the test */

static void
fill (GRand *rand, guint8 *bytes, gsize n) {
  gsize i;

  for (i = 0; i + 4 <= n; i += 4)
    nbd_put32 (bytes + i, g_rand_int (rand));
}

static void
set_level (Scene *scene, gpointer data) {
  scene->exports.level = GPOINTER_TO_UINT (data);
}

static void
get_used (Scene *scene, gpointer data) {
  *(guint *)data = scene->exports.used;
}

static guint
used (Scene *scene) {
  guint n;

  scene_call (scene, get_used, &n);
  return n;
}

/* ---- data ---- */

/* Any ranges, over borders of blocks too, against a shadow. */
static void
test_data (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  g_autofree guint8 *shadow = g_malloc0 (SCENE_BYTES), *got = g_malloc (NBD_REQUEST_DATA_MAX);
  GRand *rand = testing_rand ();
  guint i;

  g_assert_cmpuint (peer->size, ==, SCENE_BYTES);
  g_assert_cmphex (peer->flags & NBD_FLAG_CAN_MULTI_CONN, !=, 0);
  for (i = 0; i < 200; i++) {
    const guint32 n = 1 + (guint32)testing_below (rand, testing_once_in (rand, 10) ? NBD_REQUEST_DATA_MAX : 20000);
    const guint64 offset = testing_below (rand, SCENE_BYTES - n + 1);

    testing_trace ("step %u: %u bytes at %" G_GUINT64_FORMAT, i, n, offset);
    if (testing_once_in (rand, 2)) {
      fill (rand, shadow + offset, n);
      g_assert_cmpuint (peer_write (peer, offset, shadow + offset, n), ==, NBD_OK);
    } else {
      g_assert_cmpuint (peer_read (peer, offset, got, n), ==, NBD_OK);
      g_assert_cmpmem (got, n, shadow + offset, n);
    }
  }
  g_rand_free (rand);
}

/* Many requests before the first answer is read; what a READ brings is from between the writes around it. */
static void
test_pipelined (void) {
  enum { ROUNDS = 100 };
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  guint8 page[4096], got[4096];
  guint i;

  for (i = 0; i < ROUNDS; i++) {
    memset (page, (int)i, sizeof page);
    peer_request (peer, NBD_CMD_WRITE, 0, 2 * i, 8192, sizeof page);
    peer_send (peer, page, sizeof page);
    peer_request (peer, NBD_CMD_READ, 0, 2 * i + 1, 8192, sizeof page);
  }
  for (i = 0; i < ROUNDS; i++) {
    memset (page, (int)i, sizeof page);
    g_assert_cmpuint (peer_simple (peer, 2 * i), ==, NBD_OK);
    g_assert_cmpuint (peer_simple (peer, 2 * i + 1), ==, NBD_OK);
    peer_receive (peer, got, sizeof got);
    g_assert_cmpmem (got, sizeof got, page, sizeof page);
  }
}

/* Reads whose answers are more than the socket holds, while the client sends on. */
static void
test_backlog (void) {
  enum { READS = 24 };
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  g_autofree guint8 *data = g_malloc (EXPORT_BLOCK_BYTES), *got = g_malloc (EXPORT_BLOCK_BYTES);
  GRand *rand = testing_rand ();
  guint i;

  fill (rand, data, EXPORT_BLOCK_BYTES);
  g_assert_cmpuint (peer_write (peer, 4096, data, EXPORT_BLOCK_BYTES), ==, NBD_OK);
  for (i = 0; i < READS; i++)
    peer_request (peer, NBD_CMD_READ, 0, i, 4096, EXPORT_BLOCK_BYTES);
  for (i = 0; i < READS; i++) {
    g_assert_cmpuint (peer_simple (peer, i), ==, NBD_OK);
    peer_receive (peer, got, EXPORT_BLOCK_BYTES);
    g_assert_cmpmem (got, EXPORT_BLOCK_BYTES, data, EXPORT_BLOCK_BYTES);
  }
  g_rand_free (rand);
}

/* ---- blocks that come and go ---- */

static void
test_sparse (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  guint8 page[4096], got[4096];
  static const guint8 none[4096];

  memset (page, 0xa5, sizeof page);
  g_assert_cmpuint (peer_read (peer, 5 * EXPORT_BLOCK_BYTES, got, sizeof got), ==, NBD_OK);
  g_assert_cmpmem (got, sizeof got, none, sizeof none);
  g_assert_cmpuint (used (scene), ==, 0);
  g_assert_cmpuint (peer_write (peer, 5 * EXPORT_BLOCK_BYTES - 100, page, 200), ==, NBD_OK);
  g_assert_cmpuint (used (scene), ==, 2);
  /* Part of a block is not given back; zeroes over it are zeroes. */
  peer_request (peer, NBD_CMD_TRIM, 0, 1, 5 * EXPORT_BLOCK_BYTES, 4096);
  g_assert_cmpuint (peer_simple (peer, 1), ==, NBD_OK);
  g_assert_cmpuint (used (scene), ==, 2);
  peer_request (peer, NBD_CMD_WRITE_ZEROES, 0, 2, 5 * EXPORT_BLOCK_BYTES - 50, 4096);
  g_assert_cmpuint (peer_simple (peer, 2), ==, NBD_OK);
  g_assert_cmpuint (peer_read (peer, 5 * EXPORT_BLOCK_BYTES - 100, got, 200), ==, NBD_OK);
  g_assert_cmpmem (got, 50, page, 50);
  g_assert_cmpmem (got + 50, 150, none, 150);
  /* Everything, in one request. */
  peer_request (peer, NBD_CMD_TRIM, 0, 3, 0, (guint32)SCENE_BYTES);
  g_assert_cmpuint (peer_simple (peer, 3), ==, NBD_OK);
  g_assert_cmpuint (used (scene), ==, 0);
  /* Zeroes that are to have memory, more of them than are made in one go; then without. */
  peer_request (peer, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 4, 1234, 3 * EXPORT_BLOCK_BYTES);
  g_assert_cmpuint (peer_simple (peer, 4), ==, NBD_OK);
  g_assert_cmpuint (used (scene), ==, 4);
  peer_request (peer, NBD_CMD_WRITE_ZEROES, 0, 5, 0, (guint32)SCENE_BYTES);
  peer_request (peer, NBD_CMD_FLUSH, 0, 6, 0, 0);
  g_assert_cmpuint (peer_simple (peer, 5), ==, NBD_OK);
  g_assert_cmpuint (peer_simple (peer, 6), ==, NBD_OK);
  g_assert_cmpuint (used (scene), ==, 0);
}

static void
test_beyond (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  g_autofree guint8 *data = g_malloc0 (EXPORT_BLOCK_BYTES), *got = g_malloc (EXPORT_BLOCK_BYTES);

  scene_call (scene, set_level, GUINT_TO_POINTER (2));
  memset (data, 1, EXPORT_BLOCK_BYTES);
  g_assert_cmpuint (peer_write (peer, 0, data, EXPORT_BLOCK_BYTES), ==, NBD_OK);
  /* The second half is beyond: an error, and the connection goes on behind the data. */
  g_assert_cmpuint (peer_write (peer, 7 * EXPORT_BLOCK_BYTES - 8192, data, EXPORT_BLOCK_BYTES), ==, NBD_ENOSPC);
  g_assert_cmpuint (peer_read (peer, 0, got, EXPORT_BLOCK_BYTES), ==, NBD_OK);
  g_assert_cmpmem (got, EXPORT_BLOCK_BYTES, data, EXPORT_BLOCK_BYTES);
  /* Past the end, and too large. */
  g_assert_cmpuint (peer_write (peer, SCENE_BYTES - 10, data, 20), ==, NBD_ENOSPC);
  g_assert_cmpuint (peer_read (peer, SCENE_BYTES - 10, got, 20), ==, NBD_EINVAL);
  g_assert_cmpuint (peer_read (peer, 0, got, NBD_REQUEST_DATA_MAX + 1), ==, NBD_EINVAL);
  g_assert_cmpuint (peer_read (peer, 0, got, 10), ==, NBD_OK);
  peer_request (peer, NBD_CMD_DISC, 0, 0, 0, 0);
  peer_expect_end (peer);
}

/* Structured replies: holes as holes, errors as chunks, the map of what is there. */
static void
test_structured (void) {
  static const guint8 query[] = { 0,   0,   0,   4,   'd', 'i', 's', 'k', 0,   0,   0,   1,   0,   0,   0,  15,
                                  'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n' };
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new (scene);
  guint8 header[NBD_CHUNK_BYTES], data[4096], page[512];
  guint16 flags, type;
  guint32 n, i;
  guint64 cookie;

  memset (page, 7, sizeof page);
  if (tls)
    g_assert (peer_start_tls_as (peer, scene, "alice"));
  peer_option (peer, NBD_OPT_SET_META_CONTEXT, query, sizeof query);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_SET_META_CONTEXT, NULL, NULL), ==, NBD_REP_ERR_INVALID);
  peer_option (peer, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STRUCTURED_REPLY, NULL, NULL), ==, NBD_REP_ACK);
  peer_option (peer, NBD_OPT_SET_META_CONTEXT, query, sizeof query);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_SET_META_CONTEXT, data, &n), ==, NBD_REP_META_CONTEXT);
  g_assert_cmpmem (data + 4, n - 4, NBD_CONTEXT_ALLOCATION, strlen (NBD_CONTEXT_ALLOCATION));
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_SET_META_CONTEXT, NULL, NULL), ==, NBD_REP_ACK);
  g_assert_cmphex (peer_go (peer, "disk"), ==, NBD_REP_ACK);
  g_assert_cmphex (peer->flags & NBD_FLAG_SEND_DF, !=, 0);
  g_assert_cmpuint (peer_write (peer, 3 * EXPORT_BLOCK_BYTES + 512, page, sizeof page), ==, NBD_OK);
  g_assert_cmpuint (peer_write (peer, 4 * EXPORT_BLOCK_BYTES, page, sizeof page), ==, NBD_OK);
  /* A hole; a hole in one piece with data; data; an error; the map. */
  peer_request (peer, NBD_CMD_READ, 0, 1, 0, 4096);
  peer_request (peer, NBD_CMD_READ, NBD_CMD_FLAG_DF, 2, 0, 64);
  peer_request (peer, NBD_CMD_READ, 0, 3, 3 * EXPORT_BLOCK_BYTES + 500, 20);
  peer_request (peer, NBD_CMD_READ, 0, 4, SCENE_BYTES, 1);
  peer_request (peer, NBD_CMD_BLOCK_STATUS, 0, 5, EXPORT_BLOCK_BYTES + 1, 5 * EXPORT_BLOCK_BYTES);
  peer_request (peer, NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, 6, 3 * EXPORT_BLOCK_BYTES, 5 * EXPORT_BLOCK_BYTES);
  for (i = 1; i <= 6; i++) {
    static const struct {
      guint16 type;
      guint32 n;
    } want[] = { { NBD_CHUNK_OFFSET_HOLE, 12 }, { NBD_CHUNK_OFFSET_DATA, 8 + 64 },  { NBD_CHUNK_OFFSET_DATA, 8 + 20 },
                 { NBD_CHUNK_ERROR, 6 },        { NBD_CHUNK_BLOCK_STATUS, 4 + 24 }, { NBD_CHUNK_BLOCK_STATUS, 4 + 8 } };

    peer_receive (peer, header, sizeof header);
    g_assert (nbd_chunk_decode (header, &flags, &type, &cookie, &n));
    g_assert_cmphex (flags, ==, NBD_CHUNK_FLAG_DONE);
    g_assert_cmpuint (cookie, ==, i);
    g_assert_cmphex (type, ==, want[i - 1].type);
    g_assert_cmpuint (n, ==, want[i - 1].n);
    peer_receive (peer, data, n);
    if (i == 3) {
      g_assert_cmphex (data[8 + 11], ==, 0);
      g_assert_cmphex (data[8 + 12], ==, 7);
    } else if (i == 5) {
      g_assert_cmpuint (nbd_get32 (data + 4), ==, 2 * EXPORT_BLOCK_BYTES - 1);
      g_assert_cmpuint (nbd_get32 (data + 8), ==, NBD_STATE_HOLE | NBD_STATE_ZERO);
      g_assert_cmpuint (nbd_get32 (data + 12), ==, 2 * EXPORT_BLOCK_BYTES);
      g_assert_cmpuint (nbd_get32 (data + 16), ==, 0);
      g_assert_cmpuint (nbd_get32 (data + 20), ==, EXPORT_BLOCK_BYTES + 1);
    } else if (i == 6)
      g_assert_cmpuint (nbd_get32 (data + 4), ==, 2 * EXPORT_BLOCK_BYTES);
  }
}

/* ---- leases and fences ---- */

static void
test_lease (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new (scene);
  guint8 request[LEASE_REQUEST_BYTES] = { 'x', 1, 2, 3 }, answer[4096];
  PageServerFigures figures;
  guint32 n;
  guint i;

  if (tls)
    g_assert (peer_start_tls_as (peer, scene, "alice"));
  for (i = 0; i < 3; i++) {
    peer_option (peer, NBD_OPT_LEASE, request, sizeof request);
    g_assert_cmphex (peer_option_reply (peer, NBD_OPT_LEASE, answer, &n), ==, NBD_REP_LEASE);
    g_assert_cmpmem (answer, n, request, LEASE_ANSWER_BYTES);
  }
  scene_figures (scene, &figures);
  g_assert_cmpuint (figures.with_lease, ==, 1);
  g_assert_cmpuint (figures.lease_requests, ==, 3);
  request[0] = 'N';
  peer_option (peer, NBD_OPT_LEASE, request, sizeof request);
  peer_expect_end (peer);
}

struct fence_seen {
  guint used, closed;
  guint8 byte;
};

static void
look_at_fence (Scene *scene, gpointer data) {
  struct fence_seen *seen = data;

  seen->used = scene->exports.used;
  seen->closed = scene->exports.closed;
  seen->byte = scene->exports.block[0] ? scene->exports.block[0][EXPORT_BLOCK_BYTES - 1] : 0;
}

/* Half a WRITE has come when the fence falls: when the lease request is answered the export is closed, and the other half is
 * written nowhere. */
static void
test_fence (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) data = peer_new_open (scene, "disk"), lease = peer_new (scene);
  g_autofree guint8 *bytes = g_malloc (EXPORT_BLOCK_BYTES);
  guint8 request[LEASE_REQUEST_BYTES] = { 'F' };
  struct fence_seen seen;

  memset (bytes, 9, EXPORT_BLOCK_BYTES);
  if (tls)
    g_assert (peer_start_tls_as (lease, scene, "alice"));
  g_assert_cmpuint (peer_write (data, 4096, bytes, 4096), ==, NBD_OK);
  peer_request (data, NBD_CMD_WRITE, 0, 1, 0, EXPORT_BLOCK_BYTES);
  peer_send (data, bytes, EXPORT_BLOCK_BYTES / 2);
  peer_option (lease, NBD_OPT_LEASE, request, sizeof request);
  g_assert_cmphex (peer_option_reply (lease, NBD_OPT_LEASE, NULL, NULL), ==, NBD_REP_LEASE);
  scene_call (scene, look_at_fence, &seen);
  g_assert_cmpuint (seen.closed, ==, 1);
  (void)peer_try_send (data, bytes, EXPORT_BLOCK_BYTES / 2);
  peer_expect_end (data);
  scene_wait_connections (scene, 1);
  scene_call (scene, look_at_fence, &seen);
  g_assert_cmphex (seen.byte, ==, 0);
}

static void
set_fence (Scene *scene, gpointer data) {
  scene->exports.fence_at_take = GPOINTER_TO_UINT (data);
}

static void
set_stale (Scene *scene, gpointer data) {
  scene->exports.stale = TRUE;
}

static void
check_nobodys (Scene *scene, gpointer data) {
  guint i;

  for (i = 0; i < EXPORT_BLOCK_BYTES; i++)
    g_assert_cmphex (scene->exports.nobodys[i], ==, 0xee);
  scene->exports.fence_at_take = 0;
}

/* The fence falls in the middle of the export's own call, at each of them, and what that returns is nobody's any more. */
static void
test_fence_within (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autofree guint8 *bytes = g_malloc0 (EXPORT_BLOCK_BYTES);
  guint at, way;

  memset (bytes, 9, EXPORT_BLOCK_BYTES);
  for (at = 1; at <= 4; at++) {
    for (way = 0; way < 3; way++) {
      g_autoptr (Peer) peer = peer_new_open (scene, "disk");

      scene_call (scene, set_fence, GUINT_TO_POINTER (at));
      if (way == 0)
        peer_request (peer, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 1, 4096, 8 * EXPORT_BLOCK_BYTES);
      else { /* in pieces, or with the request */
        g_autofree guint8 *all = g_malloc (NBD_REQUEST_BYTES + EXPORT_BLOCK_BYTES);
        const struct nbd_request write = { 0, NBD_CMD_WRITE, 1, 4096, EXPORT_BLOCK_BYTES };
        gsize sent, piece = way == 1 ? 700000 : NBD_REQUEST_BYTES + EXPORT_BLOCK_BYTES;

        nbd_request_encode (&write, all);
        memcpy (all + NBD_REQUEST_BYTES, bytes, EXPORT_BLOCK_BYTES);
        for (sent = 0; sent < NBD_REQUEST_BYTES + EXPORT_BLOCK_BYTES; sent += piece) {
          piece = MIN (piece, NBD_REQUEST_BYTES + EXPORT_BLOCK_BYTES - sent);
          if (!peer_try_send (peer, all + sent, piece))
            break;
          g_usleep (1000); /* so that it is likely a piece for the server, too */
        }
        (void)peer_try_send (peer, all, NBD_REQUEST_BYTES);
        (void)peer_try_send (peer, bytes, EXPORT_BLOCK_BYTES);
      }
      peer_expect_end (peer);
      scene_call (scene, check_nobodys, NULL);
    }
  }
  scene_wait_connections (scene, 0);
}

static void
test_stale (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk"), other = peer_new_open (scene, "disk");
  guint8 page[4096] = { 0 };

  scene_call (scene, set_stale, NULL);
  peer_request (peer, NBD_CMD_WRITE, 0, 1, 0, sizeof page);
  g_assert_cmpuint (peer_simple (peer, 1), ==, NBD_ESHUTDOWN);
  peer_expect_end (peer);
  peer_request (other, NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_NO_HOLE, 1, 0, sizeof page);
  g_assert_cmpuint (peer_simple (other, 1), ==, NBD_ESHUTDOWN);
  peer_expect_end (other);
}

/* ---- who may ---- */

static void
test_names (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) peer = peer_new (scene), old = peer_new (scene);
  guint8 answer[4096], data[64];
  guint32 n;

  if (tls)
    g_assert (peer_start_tls_as (peer, scene, "alice") && peer_start_tls_as (old, scene, "alice"));
  g_assert_cmphex (peer_go (peer, "nothing"), ==, NBD_REP_ERR_UNKNOWN);
  g_assert_cmphex (peer_go (peer, "bobs"), ==, NBD_REP_ERR_UNKNOWN);
  peer_option (peer, NBD_OPT_INFO, data, (guint32)nbd_go_encode ("bobs", data));
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_INFO, answer, &n), ==, NBD_REP_ERR_UNKNOWN);
  g_assert_cmpmem (answer, n, "this is not yours", strlen ("this is not yours"));
  peer_option (peer, NBD_OPT_LIST, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_LIST, NULL, NULL), ==, NBD_REP_ACK);
  peer_option (peer, 77, "abc", 3);
  g_assert_cmphex (peer_option_reply (peer, 77, NULL, NULL), ==, NBD_REP_ERR_UNSUP);
  peer_option (peer, NBD_OPT_INFO, data, (guint32)nbd_go_encode ("disk", data));
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_INFO, NULL, NULL), ==, NBD_REP_INFO);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_INFO, NULL, NULL), ==, NBD_REP_INFO);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_INFO, NULL, NULL), ==, NBD_REP_ACK);
  peer_option (peer, NBD_OPT_ABORT, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_ABORT, NULL, NULL), ==, NBD_REP_ACK);
  peer_expect_end (peer);
  /* The old way to say which. */
  peer_option (old, NBD_OPT_EXPORT_NAME, "disk", 4);
  peer_receive (old, answer, 10);
  g_assert_cmpuint (nbd_get64 (answer), ==, SCENE_BYTES);
  g_assert_cmpuint (peer_read (old, 0, data, sizeof data), ==, NBD_OK);
}

static void
test_bobs (void) {
  g_autoptr (Scene) scene = scene_new (TRUE, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "bobs");

  g_assert_cmpuint (peer->size, ==, SCENE_BYTES);
}

/* ---- idle ---- */

/* Connections that nobody uses wake nobody up. */
static void
test_idle (void) {
  g_autoptr (Scene) scene = scene_new (tls, NULL);
  g_autoptr (Peer) one = peer_new_open (scene, "disk"), two = peer_new_open (scene, "disk"), lease = peer_new (scene);
  guint8 request[LEASE_REQUEST_BYTES] = { 'x' }, page[4096] = { 0 };
  guint before;

  if (tls)
    g_assert (peer_start_tls_as (lease, scene, "alice"));
  peer_option (lease, NBD_OPT_LEASE, request, sizeof request);
  g_assert_cmphex (peer_option_reply (lease, NBD_OPT_LEASE, NULL, NULL), ==, NBD_REP_LEASE);
  g_assert_cmpuint (peer_write (one, 0, page, sizeof page), ==, NBD_OK);
  g_assert_cmpuint (peer_read (two, 0, page, sizeof page), ==, NBD_OK);
  before = (guint)g_atomic_int_get (&scene->turns);
  g_usleep (400 * 1000);
  g_assert_cmpuint ((guint)g_atomic_int_get (&scene->turns) - before, <, 20);
}

/* ---- keys ---- */

static void
test_keys (void) {
  static const struct {
    const char *text, *wrong;
  } cases[] = {
    { "", "no key" },
    { "alice", "IDENTITY:KEY" },
    { ":00112233445566778899aabbccddeeff", "1 to 128" },
    { "al ice:00112233445566778899aabbccddeeff", "printable" },
    { "alice:00112233445566778899aabbccddee", "32 to 128" },
    { "alice:00112233445566778899aabbccddeeff0", "32 to 128" },
    { "alice:00112233445566778899aabbccddeefg", "hexadecimal" },
    { "alice:00112233445566778899aabbccddeeff\n\n#x\nalice:00112233445566778899aabbccddeeff", "line 4" },
  };
  static const char text[] = "#c\r\n\r\na:00112233445566778899AABBCCDDEEFF\r\nb:ffffffffffffffffffffffffffffffff";
  g_autoptr (PskKeys) keys = psk_keys_parse (text, strlen (text), "text", NULL);
  const guint8 *key;
  gsize n;
  guint i;

  g_assert_nonnull (keys);
  g_assert_cmpuint (psk_keys_count (keys), ==, 2);
  g_assert_cmpstr (psk_keys_identity (keys, 1), ==, "b");
  g_assert (psk_keys_find (keys, "a", &key, &n) && n == 16 && key[10] == 0xaa);
  g_assert_false (psk_keys_find (keys, "c", &key, &n));
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GError) error = NULL;

    g_assert_null (psk_keys_parse (cases[i].text, strlen (cases[i].text), "keys", &error));
    g_assert_nonnull (strstr (error->message, cases[i].wrong));
    g_assert_null (strstr (error->message, "00112233"));
  }
}

#define BOTH(name, function)                                                                                                   \
  g_test_add_data_func ("/page-server/plain/" name, GINT_TO_POINTER (0), function##_either);                                   \
  g_test_add_data_func ("/page-server/tls/" name, GINT_TO_POINTER (1), function##_either)

#define EITHER(function)                                                                                                       \
  static void function##_either (gconstpointer data) {                                                                         \
    tls = GPOINTER_TO_INT (data);                                                                                              \
    function ();                                                                                                               \
  }

EITHER (test_data)
EITHER (test_pipelined)
EITHER (test_backlog)
EITHER (test_sparse)
EITHER (test_beyond)
EITHER (test_structured)
EITHER (test_lease)
EITHER (test_fence)
EITHER (test_fence_within)
EITHER (test_stale)
EITHER (test_names)
EITHER (test_idle)

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/page-server/keys", test_keys);
  g_test_add_func ("/page-server/bobs", test_bobs);
  BOTH ("data", test_data);
  BOTH ("pipelined", test_pipelined);
  BOTH ("backlog", test_backlog);
  BOTH ("sparse", test_sparse);
  BOTH ("beyond", test_beyond);
  BOTH ("structured", test_structured);
  BOTH ("lease", test_lease);
  BOTH ("fence", test_fence);
  BOTH ("fence-within", test_fence_within);
  BOTH ("stale", test_stale);
  BOTH ("names", test_names);
  BOTH ("idle", test_idle);
  return g_test_run ();
}
