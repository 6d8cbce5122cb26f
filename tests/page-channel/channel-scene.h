/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A page channel, a donor process, a wire between them that can be spoiled, and a shadow of what the donor must have. */
#ifndef DOMYBS_TESTS_CHANNEL_SCENE_H
#define DOMYBS_TESTS_CHANNEL_SCENE_H

#include "donor-process.h"
#include "wire-proxy.h"

#include "io/page-channel.h"

#define SCENE_PAGE 4096u
#define SCENE_BLOCKS 8u
#define SCENE_PAGES (SCENE_BLOCKS * 512u)
#define SCENE_DEPTH 24u
#define SCENE_VALUES 8u

typedef struct {
  gboolean tls, proxy, lies; /* lies: bytes may be changed on the way unnoticed: data is not compared */
  const char *address;       /* of another server; NULL: a donor process */
  guint64 arena_blocks;      /* 0: SCENE_BLOCKS */
  const char *identity;      /* NULL: the right one */
  const guint8 *key;         /* NULL: the right one */
  gboolean plain_client;     /* though the donor has TLS */
} SceneOptions;

typedef struct {
  SceneOptions options;
  GRand *rand;
  DonorProcess *donor;
  WireProxy *proxy;
  PageChannel *channel;
  PageChannelOptions channel_options;
  enum page_channel_state told; /* at the last `changed` */
  guint changes;
  /* Each page holds one of n values (0: zeroes; else a pattern made of it), or some of each, if their writes had no answer; n −
   * 1, since most have 1. */
  guint32 values[SCENE_PAGES][SCENE_VALUES];
  guint8 more[SCENE_PAGES];
  gboolean busy[SCENE_PAGES];
  guint32 next_value;
  guint64 ended, good, unknown, nospace; /* requests */
  int last_error;
  guint under_way;
} Scene;

Scene *scene_new (const SceneOptions *options);
void scene_free (Scene *scene);
/* A channel of another worker in place of the first, which ends. */
void scene_next_worker (Scene *scene);

/* Turns the main loop until it is so. */
#define scene_wait(condition)                                                                                                  \
  while (!(condition))                                                                                                         \
  g_main_context_iteration (NULL, TRUE)
void scene_wait_state (Scene *scene, enum page_channel_state state);
PageChannelFigures scene_figures (const Scene *scene);
/* Waits until the level is that. */
void scene_level (Scene *scene, guint64 blocks);

/* All pages are zeroes, for certain. */
void scene_forget (Scene *scene);
/* One request, and its end: error. Pages get `value`, or must have it. */
int scene_write (Scene *scene, enum page_class class, guint page, guint pages, guint32 value);
int scene_trim (Scene *scene, guint block);
/* Returns the error; compares each page with the shadow, and from then on it must stay what it was found to be. */
int scene_read (Scene *scene, enum page_class class, guint page, guint pages);
void scene_check_all (Scene *scene);

/* A request that is not waited for; free it when ended. */
typedef struct {
  PageIo io;
  Scene *scene;
  guint page, pages;
  guint32 value;
  gboolean ended;
  int error;
} SceneIo;
SceneIo *scene_begin (Scene *scene, enum page_op op, enum page_class class, guint page, guint pages, guint32 value,
                      guint deadline_ms);
int scene_end (SceneIo *io);
void scene_io_free (SceneIo *io);

/* So many random requests, SCENE_DEPTH at a time; while there is no connection it waits. between (may be NULL) is called after
 * each end. */
void scene_load (Scene *scene, guint64 requests, guint deadline_ms, void (*between) (Scene *scene));

#endif
