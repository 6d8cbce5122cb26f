/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Clients that break the rules of NBD, of TLS or of good manners: each is refused or ended, and everybody else is served
 * meanwhile. */
#include "scene.h"

#include "core/lease.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <string.h>
#include <sys/socket.h>

#define SOON_MS 300u /* of limits that are to be reached */

static guint8 megabytes[40u << 20];

/* Somebody who keeps to the rules is served. */
static void
check_alive (Scene *scene) {
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  guint8 page[4096], got[4096];

  memset (page, 0x5a, sizeof page);
  g_assert_cmpuint (peer_write (peer, 0, page, sizeof page), ==, NBD_OK);
  g_assert_cmpuint (peer_read (peer, 0, got, sizeof got), ==, NBD_OK);
  g_assert_cmpmem (got, sizeof got, page, sizeof page);
}

/* ---- TLS ---- */

static void
test_wrong_key (void) {
  g_autoptr (Scene) scene = scene_new (TRUE, NULL);
  static const struct {
    const char *identity;
    gsize bytes;
  } cases[] = { { "alice", 32 }, { "alice", 16 }, { "mallory", 32 }, { "alic", 32 }, { "alice2", 32 } };
  const guint8 *bobs;
  PageServerFigures figures;
  gsize bytes;
  guint i;

  g_assert (psk_keys_find (scene->keys, "bob", &bobs, &bytes));
  for (i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (Peer) peer = peer_new (scene);

    g_assert_false (peer_start_tls (peer, cases[i].identity, bobs, cases[i].bytes));
    g_assert (secure_stream_refused (peer->stream));
    g_assert_nonnull (secure_stream_why (peer->stream));
    g_assert_null (secure_stream_identity (peer->stream));
  }
  scene_wait_connections (scene, 0);
  scene_figures (scene, &figures);
  g_assert_cmpuint (figures.handshakes_failed, ==, G_N_ELEMENTS (cases));
  check_alive (scene);
}

/* Everything but STARTTLS and ABORT is for later. */
static void
test_before_tls (void) {
  static const guint32 options[] = { NBD_OPT_LIST,
                                     NBD_OPT_INFO,
                                     NBD_OPT_GO,
                                     NBD_OPT_STRUCTURED_REPLY,
                                     NBD_OPT_LIST_META_CONTEXT,
                                     NBD_OPT_SET_META_CONTEXT,
                                     NBD_OPT_LEASE,
                                     4,
                                     99 };
  g_autoptr (Scene) scene = scene_new (TRUE, NULL);
  g_autoptr (Peer) peer = peer_new (scene), old = peer_new (scene), aborting = peer_new (scene);
  guint8 data[LEASE_REQUEST_BYTES] = { 0 };
  guint i;

  nbd_go_encode ("disk", data);
  for (i = 0; i < G_N_ELEMENTS (options); i++) {
    peer_option (peer, options[i], data, options[i] == NBD_OPT_LEASE ? sizeof data : 10);
    g_assert_cmphex (peer_option_reply (peer, options[i], NULL, NULL), ==, NBD_REP_ERR_TLS_REQD);
  }
  peer_option (peer, NBD_OPT_STARTTLS, data, 4);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ERR_INVALID);
  g_assert (peer_start_tls_as (peer, scene, "alice"));
  peer_option (peer, NBD_OPT_STARTTLS, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ERR_INVALID);
  g_assert_cmphex (peer_go (peer, "disk"), ==, NBD_REP_ACK);
  peer_option (old, NBD_OPT_EXPORT_NAME, "disk", 4);
  peer_expect_end (old);
  peer_option (aborting, NBD_OPT_ABORT, NULL, 0);
  g_assert_cmphex (peer_option_reply (aborting, NBD_OPT_ABORT, NULL, NULL), ==, NBD_REP_ACK);
  peer_expect_end (aborting);
  check_alive (scene);
}

static void
get_opened (Scene *scene, gpointer data) {
  *(guint *)data = scene->exports.opened;
}

/* Plain options right behind STARTTLS, as somebody in the middle would slip them in: they are no TLS, and nothing of them is
 * done. */
static void
test_injected (void) {
  g_autoptr (Scene) scene = scene_new (TRUE, NULL);
  guint8 bytes[2 * NBD_OPTION_BYTES + 64];
  guint opened = 1, round;

  for (round = 0; round < 3; round++) {
    g_autoptr (Peer) peer = peer_new (scene);
    gsize n;

    nbd_option_encode (NBD_OPT_STARTTLS, 0, bytes);
    n = nbd_go_encode ("disk", bytes + 2 * NBD_OPTION_BYTES);
    nbd_option_encode (round == 2 ? NBD_OPT_LEASE : NBD_OPT_GO, (guint32)n, bytes + NBD_OPTION_BYTES);
    peer_send (peer, bytes, 2 * NBD_OPTION_BYTES + n);
    g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ACK);
    if (round == 1) { /* and then the client's handshake */
      const guint8 *key;
      gsize key_bytes;
      g_autoptr (SecureSide) side = NULL;

      g_assert (psk_keys_find (scene->keys, "alice", &key, &key_bytes));
      side = secure_side_new_client ("alice", key, key_bytes, NULL);
      secure_stream_start_tls (peer->stream, side);
    }
    peer_expect_end (peer);
    g_assert_null (secure_stream_identity (peer->stream));
  }
  scene_wait_connections (scene, 0);
  scene_call (scene, get_opened, &opened);
  g_assert_cmpuint (opened, ==, 0);
  check_alive (scene);
}

/* A client that offers less than TLS 1.3 with a key. */
static void
handshake_with (Scene *scene, const char *priorities, gboolean anonymous) {
  g_autoptr (Peer) peer = peer_new (scene);
  gnutls_psk_client_credentials_t psk;
  gnutls_anon_client_credentials_t anon;
  gnutls_session_t session;
  const guint8 *key;
  gnutls_datum_t datum;
  gsize bytes;
  int fd, result;

  g_assert (psk_keys_find (scene->keys, "alice", &key, &bytes));
  datum = (gnutls_datum_t){ (guint8 *)key, (unsigned)bytes };
  peer_option (peer, NBD_OPT_STARTTLS, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ACK);
  fd = secure_stream_fd (peer->stream);
  g_assert_cmpint (fcntl (fd, F_SETFL, 0), ==, 0);
  g_assert_cmpint (gnutls_init (&session, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL), ==, 0);
  g_assert_cmpint (gnutls_priority_set_direct (session, priorities, NULL), ==, 0);
  gnutls_psk_allocate_client_credentials (&psk);
  gnutls_anon_allocate_client_credentials (&anon);
  gnutls_psk_set_client_credentials (psk, "alice", &datum, GNUTLS_PSK_KEY_RAW);
  gnutls_credentials_set (session, anonymous ? GNUTLS_CRD_ANON : GNUTLS_CRD_PSK, anonymous ? (void *)anon : psk);
  gnutls_transport_set_int (session, fd);
  gnutls_handshake_set_timeout (session, 20000);
  do
    result = gnutls_handshake (session);
  while (result < 0 && !gnutls_error_is_fatal (result));
  g_test_message ("%s: %s", priorities, gnutls_strerror (result));
  g_assert_cmpint (result, <, 0);
  g_assert_cmpint (result, !=, GNUTLS_E_TIMEDOUT);
  gnutls_deinit (session);
  gnutls_psk_free_client_credentials (psk);
  gnutls_anon_free_client_credentials (anon);
}

static void
test_downgrade (void) {
  g_autoptr (Scene) scene = scene_new (TRUE, NULL);

  handshake_with (scene, "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK:+PSK", FALSE);
  handshake_with (scene, "NORMAL:-VERS-ALL:+VERS-TLS1.1:+VERS-TLS1.0:+ECDHE-PSK:+DHE-PSK:+PSK", FALSE);
  handshake_with (scene, "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ANON-ECDH:+ANON-DH", TRUE);
  handshake_with (scene, "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+PSK", FALSE); /* without a fresh exchange */
  handshake_with (scene, "NORMAL", TRUE);
  check_alive (scene);
}

static void
test_no_tls (void) {
  g_autoptr (Scene) scene = scene_new (FALSE, NULL);
  g_autoptr (Peer) peer = peer_new (scene);

  peer_option (peer, NBD_OPT_STARTTLS, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ERR_UNSUP);
  g_assert_cmphex (peer_go (peer, "disk"), ==, NBD_REP_ACK);
}

/* ---- options ---- */

static void
test_options (void) {
  static const struct {
    guint32 option, n;
    guint8 data[32];
  } malformed[] = {
    { NBD_OPT_GO, 0, { 0 } },
    { NBD_OPT_GO, 5, { 0, 0, 0, 0, 0 } },
    { NBD_OPT_GO, 6, { 0, 0, 0, 0, 0, 1 } },
    { NBD_OPT_GO, 10, { 255, 255, 255, 255, 'd', 'i', 's', 'k', 0, 0 } },
    { NBD_OPT_GO, 10, { 0, 0, 0, 5, 'd', 'i', 's', 'k', 0, 0 } },
    { NBD_OPT_GO, 11, { 0, 0, 0, 4, 'd', 'i', 's', 'k', 0, 0, 0 } },
    { NBD_OPT_INFO, 10, { 0, 0, 0, 4, 'd', 'i', 's', 'k', 255, 255 } },
    { NBD_OPT_LIST, 1, { 0 } },
    { NBD_OPT_STRUCTURED_REPLY, 1, { 0 } },
    { NBD_OPT_SET_META_CONTEXT, 4, { 0, 0, 0, 0 } },
    { NBD_OPT_SET_META_CONTEXT, 8, { 0, 0, 0, 0, 255, 255, 255, 255 } },
    { NBD_OPT_SET_META_CONTEXT, 12, { 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1 } },
    { NBD_OPT_SET_META_CONTEXT, 12, { 0, 0, 0, 0, 0, 0, 0, 1, 255, 255, 255, 255 } },
    { NBD_OPT_LIST_META_CONTEXT, 9, { 0, 0, 0, 0, 0, 0, 0, 0, 0 } },
  };
  g_autoptr (Scene) scene = scene_new (FALSE, NULL);
  g_autoptr (Peer) peer = peer_new (scene);
  guint i;

  for (i = 0; i < G_N_ELEMENTS (malformed); i++) {
    peer_option (peer, malformed[i].option, malformed[i].data, malformed[i].n);
    g_assert_cmphex (peer_option_reply (peer, malformed[i].option, NULL, NULL), ==, NBD_REP_ERR_INVALID);
  }
  /* A name with a zero in it is no name; data that are too many are skipped. */
  peer_option (peer, NBD_OPT_GO, "\0\0\0\4di\0k\0\0", 10);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_GO, NULL, NULL), ==, NBD_REP_ERR_UNKNOWN);
  peer_option (peer, 33, megabytes, 8193);
  g_assert_cmphex (peer_option_reply (peer, 33, NULL, NULL), ==, NBD_REP_ERR_TOO_BIG);
  peer_option (peer, NBD_OPT_GO, megabytes, 64 * 1024);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_GO, NULL, NULL), ==, NBD_REP_ERR_TOO_BIG);
  g_assert_cmphex (peer_go (peer, "disk"), ==, NBD_REP_ACK);
}

/* Each ends the connection, and nothing else. */
static void
test_ended (void) {
  static const guint8 flags[] = { 0, 0, 0, 0x83 };
  g_autoptr (Scene) scene = scene_new (FALSE, NULL);
  g_autoptr (Peer) raw = peer_new_raw (scene), option = peer_new (scene), large = peer_new (scene), lease = peer_new (scene),
                   request = peer_new_open (scene, "disk"), write = peer_new_open (scene, "disk"), old = peer_new (scene),
                   half = peer_new_open (scene, "disk");
  guint8 header[NBD_OPTION_BYTES];

  peer_send (raw, flags, sizeof flags);
  peer_expect_end (raw);
  peer_send (option, megabytes, NBD_OPTION_BYTES);
  peer_expect_end (option);
  nbd_option_encode (NBD_OPT_GO, 64 * 1024 + 1, header);
  peer_send (large, header, sizeof header);
  peer_expect_end (large);
  peer_option (lease, NBD_OPT_LEASE, "too short", 9);
  peer_expect_end (lease);
  peer_send (request, megabytes, NBD_REQUEST_BYTES);
  peer_expect_end (request);
  peer_request (write, NBD_CMD_WRITE, 0, 1, 0, (32u << 20) + 1);
  peer_expect_end (write);
  peer_option (old, NBD_OPT_EXPORT_NAME, "nothing", 7);
  peer_expect_end (old);
  /* Goes away in the middle of a request's data. */
  peer_request (half, NBD_CMD_WRITE, 0, 1, 0, 8192);
  peer_send (half, megabytes, 4096);
  secure_stream_end (half->stream);
  peer_expect_end (half);
  scene_wait_connections (scene, 0);
  check_alive (scene);
}

static void
test_requests (void) {
  g_autoptr (Scene) scene = scene_new (FALSE, NULL);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  static const struct nbd_request wrong[] = {
    { 0, NBD_CMD_READ, 1, 0, 0 },
    { 0, NBD_CMD_READ, 2, UINT64_MAX, 1 },
    { 0, NBD_CMD_READ, 3, UINT64_MAX - 10, 4096 },
    { 0, NBD_CMD_READ, 4, SCENE_BYTES, 4096 },
    { NBD_CMD_FLAG_DF, NBD_CMD_READ, 5, 0, 4096 },
    { 0x8000, NBD_CMD_READ, 6, 0, 4096 },
    { 0, NBD_CMD_READ, 7, 0, UINT32_MAX },
    { 0, NBD_CMD_TRIM, 8, SCENE_BYTES - 1, 2 },
    { NBD_CMD_FLAG_NO_HOLE, NBD_CMD_TRIM, 9, 0, 2 },
    { 0, NBD_CMD_TRIM, 10, 0, 0 },
    { 0, NBD_CMD_BLOCK_STATUS, 11, 0, 4096 }, /* nobody asked for a context */
    { 0, NBD_CMD_CACHE, 12, 0, 4096 },
    { 0, 8, 13, 0, 4096 },
    { 0, UINT16_MAX, 14, UINT64_MAX, UINT32_MAX },
    { 4, NBD_CMD_FLUSH, 15, 0, 0 },
  };
  guint i;

  for (i = 0; i < G_N_ELEMENTS (wrong); i++) {
    peer_request (peer, wrong[i].command, wrong[i].flags, wrong[i].cookie, wrong[i].offset, wrong[i].bytes);
    g_assert_cmpuint (peer_simple (peer, wrong[i].cookie), ==, NBD_EINVAL);
  }
  peer_request (peer, NBD_CMD_WRITE_ZEROES, 0, 1, SCENE_BYTES, UINT32_MAX);
  g_assert_cmpuint (peer_simple (peer, 1), ==, NBD_ENOSPC);
  g_assert_cmpuint (peer_write (peer, 0, megabytes, NBD_REQUEST_DATA_MAX + 1), ==, NBD_EINVAL);
  g_assert_cmpuint (peer_write (peer, UINT64_MAX, megabytes, 5), ==, NBD_ENOSPC);
  g_assert_cmpuint (peer_write (peer, 0, megabytes, 32u << 20), ==, NBD_EINVAL);
  peer_request (peer, NBD_CMD_WRITE, 0x10, 2, 0, 5);
  peer_send (peer, megabytes, 5);
  g_assert_cmpuint (peer_simple (peer, 2), ==, NBD_EINVAL);
  check_alive (scene);
}

/* ---- time ---- */

/* Asks and asks, and never reads. */
static void
test_never_reads (gconstpointer tls) {
  const PageServerLimits limits = { .request_ms = SOON_MS };
  g_autoptr (Scene) scene = scene_new (GPOINTER_TO_INT (tls), &limits);
  g_autoptr (Peer) peer = peer_new_open (scene, "disk");
  const struct nbd_request read = { 0, NBD_CMD_READ, 1, 0, EXPORT_BLOCK_BYTES };
  guint8 request[NBD_REQUEST_BYTES];
  PageServerFigures figures;
  guint i;

  nbd_request_encode (&read, request);
  for (i = 0; i < 100; i++)
    g_assert (peer_try_send (peer, request, sizeof request));
  check_alive (scene);
  scene_wait_connections (scene, 0);
  scene_figures (scene, &figures);
  g_assert_cmpuint (figures.broken, ==, 1);
  g_assert_cmpuint (figures.bytes_read, <, 100 * EXPORT_BLOCK_BYTES); /* of which most was never looked at */
}

/* A byte now and then is not enough. */
static void
test_trickles (void) {
  const PageServerLimits limits = { .request_ms = 5 * SOON_MS, .handshake_ms = 5 * SOON_MS, .lease_idle_ms = 5 * SOON_MS };
  g_autoptr (Scene) scene = scene_new (FALSE, &limits);
  g_autoptr (Peer) handshake = peer_new (scene), request = peer_new_open (scene, "disk"), data = peer_new_open (scene, "disk"),
                   lease = peer_new (scene), idle = peer_new_open (scene, "disk");
  guint8 bytes[LEASE_REQUEST_BYTES] = { 0 };
  gboolean more = TRUE;
  guint i;

  g_usleep (100 * 1000); /* the other deadlines are later */
  peer_option (lease, NBD_OPT_LEASE, bytes, sizeof bytes);
  g_assert_cmphex (peer_option_reply (lease, NBD_OPT_LEASE, NULL, NULL), ==, NBD_REP_LEASE);
  nbd_option_encode (NBD_OPT_GO, 4096, bytes);
  peer_send (handshake, bytes, NBD_OPTION_BYTES);
  nbd_request_encode (&(struct nbd_request){ 0, NBD_CMD_WRITE, 1, 0, 4096 }, bytes);
  peer_send (data, bytes, NBD_REQUEST_BYTES);
  for (i = 0; more && i < 2000; i++) {
    more = peer_try_send (handshake, "x", 1);
    if (i < NBD_REQUEST_BYTES - 1)
      more |= peer_try_send (request, bytes + i, 1);
    if (i < 4095)
      more |= peer_try_send (data, "x", 1);
    g_usleep (10000);
  }
  g_assert_false (more);
  scene_wait_connections (scene, 1); /* idle between requests is no fault */
  g_assert_cmpuint (peer_read (idle, 0, bytes, sizeof bytes), ==, NBD_OK);
}

/* ---- many ---- */

static void
test_many_silent (void) {
  enum { MANY = 40 };
  const PageServerLimits limits = { .handshaking = 4, .connections = 8 };
  g_autoptr (Scene) scene = scene_new (TRUE, &limits);
  g_autoptr (Peer) good = peer_new_open (scene, "disk");
  Peer *silent[MANY];
  PageServerFigures figures;
  guint8 page[64];
  guint i;

  for (i = 0; i < MANY; i++)
    silent[i] = peer_new_raw (scene);
  check_alive (scene);
  scene_figures (scene, &figures);
  g_assert_cmpuint (figures.connections, <=, 8);
  g_assert_cmpuint (figures.refused, >=, MANY - 4);
  g_assert_cmpuint (peer_read (good, 0, page, sizeof page), ==, NBD_OK);
  for (i = 0; i < MANY; i++)
    peer_free (silent[i]);
  scene_wait_connections (scene, 1);
}

static void
test_many_open (void) {
  const PageServerLimits limits = { .connections = 3, .per_identity = 2 };
  g_autoptr (Scene) scene = scene_new (TRUE, &limits);
  g_autoptr (Peer) first = peer_new_open (scene, "disk"), second = peer_new_open (scene, "disk"), third = peer_new (scene),
                   bob = NULL, fifth = NULL;
  guint8 page[64];

  /* A third of alice's is too many; bob has his own; when all places are taken nobody comes in. */
  g_assert (peer_start_tls_as (third, scene, "alice"));
  peer_option (third, NBD_OPT_LIST, NULL, 0);
  g_assert_false (peer_try_receive (third, page, 1));
  bob = peer_new_open (scene, "bobs");
  fifth = peer_new_raw (scene);
  peer_expect_end (fifth);
  g_assert_cmpuint (peer_read (first, 0, page, sizeof page), ==, NBD_OK);
  g_assert_cmpuint (peer_read (second, 0, page, sizeof page), ==, NBD_OK);
  g_assert_cmpuint (peer_read (bob, 0, page, sizeof page), ==, NBD_OK);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/page-hostile/wrong-key", test_wrong_key);
  g_test_add_func ("/page-hostile/before-tls", test_before_tls);
  g_test_add_func ("/page-hostile/injected", test_injected);
  g_test_add_func ("/page-hostile/downgrade", test_downgrade);
  g_test_add_func ("/page-hostile/no-tls", test_no_tls);
  g_test_add_func ("/page-hostile/options", test_options);
  g_test_add_func ("/page-hostile/ended", test_ended);
  g_test_add_func ("/page-hostile/requests", test_requests);
  g_test_add_data_func ("/page-hostile/never-reads/plain", GINT_TO_POINTER (0), test_never_reads);
  g_test_add_data_func ("/page-hostile/never-reads/tls", GINT_TO_POINTER (1), test_never_reads);
  g_test_add_func ("/page-hostile/trickles", test_trickles);
  g_test_add_func ("/page-hostile/many-silent", test_many_silent);
  g_test_add_func ("/page-hostile/many-open", test_many_open);
  return g_test_run ();
}
