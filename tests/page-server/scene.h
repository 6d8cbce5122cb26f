/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A page server in a thread of its own, with exports that a test looks into; and a client that can also say what no client
 * would.
 *
 *   disk      for anybody; SCENE_BLOCKS blocks, of which `level` may be there
 *   bobs      for the identity bob only
 */
#ifndef DOMYBS_TESTS_PAGE_SERVER_SCENE_H
#define DOMYBS_TESTS_PAGE_SERVER_SCENE_H

#include "core/nbd.h"
#include "donor/page-server.h"
#include "io/psk-keys.h"
#include "io/secure-stream.h"

#define SCENE_BLOCKS 16u
#define SCENE_BYTES ((guint64)SCENE_BLOCKS * EXPORT_BLOCK_BYTES)

/* Of the exports: everything is the server's thread's, but for scene_call. */
typedef struct {
  PageServer *server;
  guint8 *block[SCENE_BLOCKS];
  guint level, used;
  gboolean stale;      /* take says ESTALE */
  guint fence_at_take; /* the so many'th take closes the export that it is for, and then returns nobodys; 0: none does */
  guint8 nobodys[EXPORT_BLOCK_BYTES];
  guint opened, closed, late; /* late: calls for an export that was closed */
  GHashTable *open;           /* exports that are open */
} SceneExports;

extern const ExportsKind scene_exports_kind;
void scene_exports_clear (SceneExports *exports);

typedef struct {
  SceneExports exports;
  PageServerLimits limits;
  PskKeys *keys; /* NULL: no TLS */
  SecureSide *side;
  char *folder; /* with the socket and keys.psk */
  char *key_file;
  guint port;
  int fd;
  GMainContext *context;
  GMainLoop *loop;
  GThread *thread;
  guint turns; /* of its main loop; atomic */
} Scene;

/* tls: with keys for alice and bob, in folder/keys.psk. limits may be NULL. */
Scene *scene_new (gboolean tls, const PageServerLimits *limits);
void scene_free (Scene *scene);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Scene, scene_free)
/* Runs function in the server's thread, and waits for its end. */
void scene_call (Scene *scene, void (*function) (Scene *scene, gpointer data), gpointer data);
void scene_figures (Scene *scene, PageServerFigures *ret_figures);
/* Waits until the server has that many connections. */
void scene_wait_connections (Scene *scene, guint n);

/* A client. All calls wait up to 20 s. */
typedef struct {
  SecureStream *stream;
  guint64 size;
  guint16 flags;
} Peer;

Peer *peer_new (Scene *scene);     /* connected, greeted, flags sent */
Peer *peer_new_raw (Scene *scene); /* connected only */
void peer_free (Peer *peer);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Peer, peer_free)
void peer_send (Peer *peer, const void *bytes, gsize n);
/* FALSE: the connection has ended. */
gboolean peer_try_send (Peer *peer, const void *bytes, gsize n);
gboolean peer_try_receive (Peer *peer, void *bytes, gsize n);
void peer_receive (Peer *peer, void *bytes, gsize n);
/* The connection ends, whatever comes before. */
void peer_expect_end (Peer *peer);

void peer_option (Peer *peer, guint32 option, const void *data, guint32 n);
/* The answer's type; its data in ret_data (of 4096 bytes), NULL: not wanted. */
guint32 peer_option_reply (Peer *peer, guint32 option, guint8 *ret_data, guint32 *ret_n);
/* STARTTLS and the handshake; FALSE: it failed. */
gboolean peer_start_tls (Peer *peer, const char *identity, const guint8 *key, gsize bytes);
gboolean peer_start_tls_as (Peer *peer, Scene *scene, const char *identity);
/* GO; returns the type of the last answer. */
guint32 peer_go (Peer *peer, const char *name);
/* Everything up to an open export; with TLS as alice. */
Peer *peer_new_open (Scene *scene, const char *name);

void peer_request (Peer *peer, guint16 command, guint16 flags, guint64 cookie, guint64 offset, guint32 bytes);
/* A simple reply's error. */
guint32 peer_simple (Peer *peer, guint64 cookie);
guint32 peer_read (Peer *peer, guint64 offset, void *bytes, guint32 n);
guint32 peer_write (Peer *peer, guint64 offset, const void *bytes, guint32 n);

#endif
