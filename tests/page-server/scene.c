/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "scene.h"

#include "core/lease.h"
#include "io/tcp.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PATIENCE_MS 20000

static const char keys_text[] = "# who may borrow\n"
                                "alice:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
                                "bob:ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100\n";

/* ---- the exports ---- */

struct export {
  SceneExports *exports;
};

/* The export, or NULL where it was closed: then nobody should have asked. */
static SceneExports *
opened (gpointer exports_data, gpointer export) {
  SceneExports *exports = exports_data;

  if (exports->open && g_hash_table_contains (exports->open, export))
    return exports;
  exports->late++;
  return NULL;
}

static gpointer
open_export (gpointer data, const char *identity, const char *name, guint64 *ret_bytes, const char **ret_why) {
  SceneExports *exports = data;
  struct export *export;

  *ret_why = "nothing is called so here";
  if (strcmp (name, "disk") != 0 && strcmp (name, "bobs") != 0)
    return NULL;
  *ret_why = "this is not yours";
  if (strcmp (name, "bobs") == 0 && strcmp (identity, "bob") != 0)
    return NULL;
  if (!exports->open)
    exports->open = g_hash_table_new (NULL, NULL);
  export = g_new0 (struct export, 1);
  g_hash_table_add (exports->open, export);
  exports->opened++;
  *ret_bytes = SCENE_BYTES;
  return export;
}

static void
close_export (gpointer data, gpointer export) {
  SceneExports *exports = opened (data, export);

  if (!exports)
    return;
  g_hash_table_remove (exports->open, export);
  exports->closed++;
  g_free (export);
}

static const guint8 *
look (gpointer data, gpointer export, guint64 block) {
  SceneExports *exports = opened (data, export);

  return exports && block < SCENE_BLOCKS ? exports->block[block] : NULL;
}

static gboolean
is_fenced (gpointer export, gpointer fenced) {
  return export == fenced;
}

static guint8 *
take (gpointer data, gpointer export, guint64 block, int *ret_errno) {
  SceneExports *exports = opened (data, export);

  *ret_errno = ESTALE;
  if (!exports || exports->stale)
    return NULL;
  if (exports->fence_at_take && --exports->fence_at_take == 0) {
    g_assert_cmpuint (page_server_close_export (exports->server, is_fenced, export), ==, 1);
    memset (exports->nobodys, 0xee, sizeof exports->nobodys);
    return exports->nobodys;
  }
  g_assert_cmpuint (block, <, SCENE_BLOCKS);
  *ret_errno = ENOSPC;
  if (!exports->block[block]) {
    void *memory;

    if (exports->used == exports->level)
      return NULL;
    memory = mmap (NULL, EXPORT_BLOCK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    g_assert (memory != MAP_FAILED);
    exports->block[block] = memory;
    exports->used++;
  }
  return exports->block[block];
}

static void
drop (gpointer data, gpointer export, guint64 block) {
  SceneExports *exports = opened (data, export);

  if (!exports || block >= SCENE_BLOCKS || !exports->block[block])
    return;
  munmap (exports->block[block], EXPORT_BLOCK_BYTES);
  exports->block[block] = NULL;
  exports->used--;
}

static gboolean
any_export (gpointer export, gpointer data) {
  return TRUE;
}

/* A request is answered by its bytes; one that begins with F closes every export first, one that begins with N is none. */
static gsize
lease (gpointer data, const char *identity, const guint8 *request, gsize bytes, guint8 *ret_answer) {
  SceneExports *exports = data;

  if (bytes != LEASE_REQUEST_BYTES || request[0] == 'N')
    return 0;
  if (request[0] == 'F')
    page_server_close_export (exports->server, any_export, NULL);
  memcpy (ret_answer, request, LEASE_ANSWER_BYTES);
  return LEASE_ANSWER_BYTES;
}

const ExportsKind scene_exports_kind = { open_export, close_export, look, take, drop, lease };

void
scene_exports_clear (SceneExports *exports) {
  guint i;

  for (i = 0; i < SCENE_BLOCKS; i++) {
    if (exports->block[i])
      munmap (exports->block[i], EXPORT_BLOCK_BYTES);
    exports->block[i] = NULL;
  }
  exports->used = 0;
  g_clear_pointer (&exports->open, g_hash_table_unref);
}

/* ---- the server's thread ---- */

struct turns_source {
  GSource base;
  Scene *scene;
};

static gboolean
count_turn (GSource *source, int *ret_timeout) {
  *ret_timeout = -1;
  g_atomic_int_inc (&((struct turns_source *)source)->scene->turns);
  return FALSE;
}

static gboolean
never (GSource *source) {
  return FALSE;
}

static gboolean
not_called (GSource *source, GSourceFunc function, gpointer data) {
  return G_SOURCE_CONTINUE;
}

static gpointer
serve (gpointer data) {
  static GSourceFuncs functions = { .prepare = count_turn, .check = never, .dispatch = not_called };
  Scene *scene = data;
  g_autoptr (GSource) turns = g_source_new (&functions, sizeof (struct turns_source));

  ((struct turns_source *)turns)->scene = scene;
  g_source_attach (turns, scene->context);
  g_main_context_push_thread_default (scene->context);
  scene->exports.server = page_server_new (scene->fd, scene->side, &scene_exports_kind, &scene->exports, &scene->limits);
  g_main_loop_run (scene->loop);
  page_server_free (scene->exports.server);
  g_main_context_pop_thread_default (scene->context);
  return NULL;
}

Scene *
scene_new (gboolean tls, const PageServerLimits *limits) {
  Scene *scene = g_new0 (Scene, 1);
  g_autoptr (GError) error = NULL;

  scene->folder = g_dir_make_tmp ("domybs-page-server-XXXXXX", &error);
  g_assert_no_error (error);
  scene->key_file = g_build_filename (scene->folder, "keys.psk", NULL);
  g_assert (g_file_set_contents_full (scene->key_file, keys_text, -1, G_FILE_SET_CONTENTS_NONE, 0600, &error));
  if (tls) {
    scene->keys = psk_keys_load (scene->key_file, &error);
    g_assert_no_error (error);
    scene->side = secure_side_new_server (scene->keys, &error);
    g_assert_no_error (error);
  }
  if (limits)
    scene->limits = *limits;
  scene->exports.level = SCENE_BLOCKS;
  scene->fd = tcp_listen ("127.0.0.1:0", 64, &error);
  g_assert_no_error (error);
  scene->port = tcp_port (scene->fd);
  scene->context = g_main_context_new ();
  scene->loop = g_main_loop_new (scene->context, FALSE);
  scene->thread = g_thread_new ("page server", serve, scene);
  return scene;
}

struct call {
  Scene *scene;
  void (*function) (Scene *scene, gpointer data);
  gpointer data;
  GMutex mutex;
  GCond cond;
  gboolean done;
};

static gboolean
run_call (gpointer data) {
  struct call *call = data;

  call->function (call->scene, call->data);
  g_mutex_lock (&call->mutex);
  call->done = TRUE;
  g_cond_signal (&call->cond);
  g_mutex_unlock (&call->mutex);
  return G_SOURCE_REMOVE;
}

void
scene_call (Scene *scene, void (*function) (Scene *scene, gpointer data), gpointer data) {
  struct call call = { .scene = scene, .function = function, .data = data };
  g_autoptr (GSource) source = g_idle_source_new ();

  g_mutex_init (&call.mutex);
  g_cond_init (&call.cond);
  g_source_set_priority (source, G_PRIORITY_DEFAULT);
  g_source_set_callback (source, run_call, &call, NULL);
  g_source_attach (source, scene->context);
  g_mutex_lock (&call.mutex);
  while (!call.done)
    g_cond_wait (&call.cond, &call.mutex);
  g_mutex_unlock (&call.mutex);
  g_mutex_clear (&call.mutex);
  g_cond_clear (&call.cond);
}

static void
quit (Scene *scene, gpointer data) {
  g_main_loop_quit (scene->loop);
}

void
scene_free (Scene *scene) {
  scene_call (scene, quit, NULL);
  g_thread_join (scene->thread);
  g_main_loop_unref (scene->loop);
  g_main_context_unref (scene->context);
  g_assert_cmpuint (scene->exports.opened, ==, scene->exports.closed);
  g_assert_cmpuint (scene->exports.late, ==, 0);
  scene_exports_clear (&scene->exports);
  secure_side_unref (scene->side);
  psk_keys_unref (scene->keys);
  close (scene->fd);
  g_unlink (scene->key_file);
  g_assert_cmpint (g_rmdir (scene->folder), ==, 0);
  g_free (scene->key_file);
  g_free (scene->folder);
  g_free (scene);
}

static void
get_figures (Scene *scene, gpointer data) {
  page_server_figures (scene->exports.server, data);
}

void
scene_figures (Scene *scene, PageServerFigures *ret_figures) {
  scene_call (scene, get_figures, ret_figures);
}

void
scene_wait_connections (Scene *scene, guint n) {
  const gint64 until = g_get_monotonic_time () + PATIENCE_MS * 1000;
  PageServerFigures figures;

  for (;;) {
    scene_figures (scene, &figures);
    if (figures.connections == n)
      return;
    g_assert_cmpint (g_get_monotonic_time (), <, until);
    g_usleep (1000);
  }
}

/* ---- the client ---- */

static void
wait_for (Peer *peer, short events) {
  struct pollfd poll_fd = { secure_stream_fd (peer->stream), events, 0 };
  int result;

  if (secure_stream_unsent (peer->stream))
    poll_fd.events |= POLLOUT;
  do
    result = poll (&poll_fd, 1, PATIENCE_MS);
  while (result < 0 && errno == EINTR);
  if (result == 0)
    g_error ("the page server has said nothing for %d ms", PATIENCE_MS);
}

Peer *
peer_new_raw (Scene *scene) {
  g_autofree char *address = g_strdup_printf ("127.0.0.1:%u", scene->port);
  Peer *peer = g_new0 (Peer, 1);
  g_autoptr (GError) error = NULL;
  int fd = tcp_connect (address, &error);

  g_assert_no_error (error);
  peer->stream = secure_stream_new (fd);
  wait_for (peer, POLLOUT);
  g_assert_cmpint (tcp_connected (fd), ==, 0);
  return peer;
}

Peer *
peer_new (Scene *scene) {
  Peer *peer = peer_new_raw (scene);
  guint8 greeting[NBD_GREETING_BYTES], flags[NBD_CLIENT_FLAGS_BYTES];
  guint16 server_flags;

  peer_receive (peer, greeting, sizeof greeting);
  g_assert (nbd_greeting_decode (greeting, &server_flags));
  g_assert_cmphex (server_flags, ==, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  nbd_put32 (flags, server_flags);
  peer_send (peer, flags, sizeof flags);
  return peer;
}

void
peer_free (Peer *peer) {
  secure_stream_free (peer->stream);
  g_free (peer);
}

gboolean
peer_try_send (Peer *peer, const void *bytes, gsize n) {
  const guint8 *at = bytes;
  gssize gone;

  while (n || secure_stream_unsent (peer->stream)) {
    gone = n ? secure_stream_write (peer->stream, at, n) : secure_stream_write (peer->stream, "", 0);
    if (gone < 0 && gone != -EAGAIN)
      return FALSE;
    if (gone > 0) {
      at += gone;
      n -= (gsize)gone;
    } else if (n || secure_stream_unsent (peer->stream))
      wait_for (peer, peer->stream && secure_stream_identity (peer->stream) ? POLLOUT : POLLOUT | POLLIN);
  }
  return TRUE;
}

void
peer_send (Peer *peer, const void *bytes, gsize n) {
  g_assert (peer_try_send (peer, bytes, n));
}

gboolean
peer_try_receive (Peer *peer, void *bytes, gsize n) {
  guint8 *at = bytes;
  gssize have;

  while (n) {
    have = secure_stream_read (peer->stream, at, n);
    if (have == -EAGAIN)
      wait_for (peer, POLLIN);
    else if (have <= 0)
      return FALSE;
    else {
      at += have;
      n -= (gsize)have;
    }
  }
  return TRUE;
}

void
peer_receive (Peer *peer, void *bytes, gsize n) {
  if (!peer_try_receive (peer, bytes, n))
    g_error ("the page server has ended the connection (%s)", secure_stream_why (peer->stream));
}

void
peer_expect_end (Peer *peer) {
  guint8 byte;

  while (peer_try_receive (peer, &byte, 1))
    ;
}

void
peer_option (Peer *peer, guint32 option, const void *data, guint32 n) {
  guint8 header[NBD_OPTION_BYTES];

  nbd_option_encode (option, n, header);
  peer_send (peer, header, sizeof header);
  if (n)
    peer_send (peer, data, n);
}

guint32
peer_option_reply (Peer *peer, guint32 option, guint8 *ret_data, guint32 *ret_n) {
  guint8 header[NBD_OPTION_REPLY_BYTES], data[4096];
  guint32 of, type, n;

  peer_receive (peer, header, sizeof header);
  g_assert (nbd_option_reply_decode (header, &of, &type, &n));
  g_assert_cmphex (of, ==, option);
  g_assert_cmpuint (n, <=, sizeof data);
  peer_receive (peer, ret_data ? ret_data : data, n);
  if (ret_n)
    *ret_n = n;
  return type;
}

gboolean
peer_start_tls (Peer *peer, const char *identity, const guint8 *key, gsize bytes) {
  g_autoptr (SecureSide) side = secure_side_new_client (identity, key, bytes, NULL);
  gssize n;

  g_assert_nonnull (side);
  peer_option (peer, NBD_OPT_STARTTLS, NULL, 0);
  g_assert_cmphex (peer_option_reply (peer, NBD_OPT_STARTTLS, NULL, NULL), ==, NBD_REP_ACK);
  secure_stream_start_tls (peer->stream, side);
  while ((n = secure_stream_read (peer->stream, NULL, 0)) == -EAGAIN && !secure_stream_identity (peer->stream))
    wait_for (peer, POLLIN);
  return secure_stream_identity (peer->stream) != NULL;
}

gboolean
peer_start_tls_as (Peer *peer, Scene *scene, const char *identity) {
  const guint8 *key;
  gsize bytes;

  g_assert (psk_keys_find (scene->keys, identity, &key, &bytes));
  return peer_start_tls (peer, identity, key, bytes);
}

guint32
peer_go (Peer *peer, const char *name) {
  guint8 data[NBD_NAME_BYTES_MAX + 8];
  guint32 n = (guint32)nbd_go_encode (name, data), type;

  peer_option (peer, NBD_OPT_GO, data, n);
  while ((type = peer_option_reply (peer, NBD_OPT_GO, data, &n)) == NBD_REP_INFO)
    nbd_info_export_decode (data, n, &peer->size, &peer->flags);
  return type;
}

Peer *
peer_new_open (Scene *scene, const char *name) {
  Peer *peer = peer_new (scene);

  if (scene->side)
    g_assert (peer_start_tls_as (peer, scene, strcmp (name, "bobs") == 0 ? "bob" : "alice"));
  g_assert_cmphex (peer_go (peer, name), ==, NBD_REP_ACK);
  return peer;
}

void
peer_request (Peer *peer, guint16 command, guint16 flags, guint64 cookie, guint64 offset, guint32 bytes) {
  const struct nbd_request request = { flags, command, cookie, offset, bytes };
  guint8 out[NBD_REQUEST_BYTES];

  nbd_request_encode (&request, out);
  peer_send (peer, out, sizeof out);
}

guint32
peer_simple (Peer *peer, guint64 cookie) {
  guint8 header[NBD_SIMPLE_BYTES];
  guint32 error;
  guint64 of;

  peer_receive (peer, header, sizeof header);
  g_assert (nbd_simple_decode (header, &error, &of));
  g_assert_cmphex (of, ==, cookie);
  return error;
}

guint32
peer_read (Peer *peer, guint64 offset, void *bytes, guint32 n) {
  const guint64 cookie = offset ^ 0x5eedu;
  guint32 error;

  peer_request (peer, NBD_CMD_READ, 0, cookie, offset, n);
  error = peer_simple (peer, cookie);
  if (error == NBD_OK)
    peer_receive (peer, bytes, n);
  return error;
}

guint32
peer_write (Peer *peer, guint64 offset, const void *bytes, guint32 n) {
  const guint64 cookie = offset ^ 0xdead0000u;

  peer_request (peer, NBD_CMD_WRITE, 0, cookie, offset, n);
  peer_send (peer, bytes, n);
  return peer_simple (peer, cookie);
}
