/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "channel-scene.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

#define BLOCK_PAGES 512u

/* ---- beginning and end ---- */

static void
on_changed (PageChannel *channel, gpointer data) {
  Scene *const scene = data;
  PageChannelFigures figures;

  page_channel_figures (channel, &figures);
  testing_trace ("changed: state %d level %" G_GUINT64_FORMAT " epoch %" G_GUINT64_FORMAT " %s", figures.state,
                 figures.lease.level, figures.lease.epoch, figures.why ? figures.why : "");
  scene->told = figures.state;
  scene->changes++;
}

static gboolean
tick (gpointer data) {
  return G_SOURCE_CONTINUE;
}

static void
open_channel (Scene *scene) {
  const PageChannelWatch watch = { on_changed, scene };
  g_autoptr (GError) error = NULL;

  scene->told = PAGE_CHANNEL_DOWN;
  scene->channel = page_channel_new (&scene->channel_options, &watch, &error);
  g_assert_no_error (error);
}

Scene *
scene_new (const SceneOptions *options) {
  Scene *scene = g_new0 (Scene, 1);
  PageChannelOptions *const o = &scene->channel_options;
  const char *address = options->address;

  scene->options = *options;
  scene->rand = testing_rand ();
  if (!address) {
    scene->donor = donor_process_new (options->arena_blocks ? options->arena_blocks : SCENE_BLOCKS, options->tls);
    address = scene->donor->address;
  }
  if (options->proxy) {
    scene->proxy = wire_proxy_new (address, g_rand_int (scene->rand));
    address = scene->proxy->address;
  }
  *o = (PageChannelOptions){
    .name = "donor", .address = address, .disk = 3, .worker = 1, .export_blocks = SCENE_BLOCKS, .keep_ms = 200
  };
  if (options->tls && !options->plain_client) {
    o->psk_identity = options->identity ? options->identity : DONOR_IDENTITY;
    o->psk = options->key ? options->key : donor_key;
    o->psk_bytes = sizeof donor_key;
  }
  memset (o->vm, 1, sizeof o->vm);
  memset (o->host, 2, sizeof o->host);
  memset (o->boot, 3, sizeof o->boot);
  g_timeout_add (20, tick, NULL); /* conditions are looked at now and then, whatever happens */
  open_channel (scene);
  return scene;
}

void
scene_next_worker (Scene *scene) {
  const PageChannelFigures figures = scene_figures (scene);

  page_channel_free (scene->channel);
  memcpy (scene->channel_options.incarnation, figures.lease.incarnation, LEASE_ID_BYTES);
  scene->channel_options.lease = figures.lease.lease;
  scene->channel_options.worker++;
  open_channel (scene);
}

void
scene_free (Scene *scene) {
  page_channel_free (scene->channel);
  g_assert_cmpuint (scene->under_way, ==, 0);
  if (scene->proxy)
    wire_proxy_free (scene->proxy);
  if (scene->donor)
    donor_process_free (scene->donor);
  g_rand_free (scene->rand);
  g_free (scene);
}

PageChannelFigures
scene_figures (const Scene *scene) {
  PageChannelFigures figures;

  page_channel_figures (scene->channel, &figures);
  return figures;
}

void
scene_wait_state (Scene *scene, enum page_channel_state state) {
  scene_wait (scene->told == state);
}

void
scene_level (Scene *scene, guint64 blocks) {
  page_channel_want (scene->channel, blocks);
  scene_wait (scene->told == PAGE_CHANNEL_ATTACHED && scene_figures (scene).lease.level == blocks);
}

/* ---- values ---- */

static guint64
word (guint32 value, guint page) {
  return value == 0 ? 0 : ((guint64)value << 32 | page) * G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
}

static void
put_value (guint8 *at, guint32 value, guint page) {
  const guint64 w = word (value, page);

  for (guint i = 0; i < SCENE_PAGE; i += 8)
    memcpy (at + i, &w, 8);
}

void
scene_forget (Scene *scene) {
  memset (scene->values, 0, sizeof scene->values);
  memset (scene->more, 0, sizeof scene->more);
}

static void
set_value (Scene *scene, guint page, guint32 value) {
  scene->values[page][0] = value;
  scene->more[page] = 0;
}

/* It may have got that value. */
static void
add_value (Scene *scene, guint page, guint32 value) {
  g_assert_cmpuint (scene->more[page], <, SCENE_VALUES - 1);
  scene->values[page][++scene->more[page]] = value;
}

static gboolean
has (const guint8 *at, guint64 w) {
  return memcmp (at, &w, 8) == 0;
}

/* What it is found to hold wholly, it holds from now on. */
static void
check_page (Scene *scene, const guint8 *at, guint page) {
  const guint32 *const values = scene->values[page];
  const guint n = scene->more[page] + 1u;
  guint whole = 0, known = 0;
  guint64 found;

  if (scene->options.lies)
    return;
  memcpy (&found, at, 8);
  for (guint v = 0; v < n; v++) {
    const guint64 w = word (values[v], page);

    for (whole = 0; whole < SCENE_PAGE && has (at + whole, w); whole += 8)
      ;
    if (whole == SCENE_PAGE) {
      set_value (scene, page, values[v]);
      return;
    }
  }
  /* Torn between any two bytes */
  for (guint i = 0; i < SCENE_PAGE; i++)
    for (guint v = 0; v < n; v++)
      if (at[i] == (guint8)(word (values[v], page) >> i % 8 * 8)) {
        known++;
        break;
      }
  if (known != SCENE_PAGE)
    g_error ("page %u should hold %u, or one of %u others: it begins with %" G_GINT64_MODIFIER "x, for %" G_GINT64_MODIFIER "x",
             page, values[0], n - 1, found, word (values[0], page));
}

/* ---- requests ---- */

static void
on_done (PageIo *page_io, int error) {
  SceneIo *const io = page_io->data;
  Scene *const scene = io->scene;

  testing_trace ("end of %d at %u + %u value %u: %d", page_io->op, io->page, io->pages, io->value, error);
  for (guint i = 0; i < io->pages; i++) {
    const guint page = io->page + i;

    scene->busy[page] = FALSE;
    if (page_io->op == PAGE_READ && error == 0)
      check_page (scene, (guint8 *)page_io->buf + (gsize)i * SCENE_PAGE, page);
    else if (page_io->op != PAGE_READ && error == 0)
      set_value (scene, page, io->value);
    else if (page_io->op != PAGE_READ && error != ENOSPC && error != EINVAL)
      add_value (scene, page, io->value);
  }
  scene->ended++;
  scene->good += error == 0;
  scene->nospace += error == ENOSPC;
  scene->unknown += error == ENOTCONN || error == ETIMEDOUT || error == ESTALE;
  scene->last_error = error;
  scene->under_way--;
  io->error = error;
  io->ended = TRUE;
}

SceneIo *
scene_begin (Scene *scene, enum page_op op, enum page_class class, guint page, guint pages, guint32 value, guint deadline_ms) {
  SceneIo *io = g_new0 (SceneIo, 1);

  *io = (SceneIo){ .scene = scene, .page = page, .pages = pages, .value = value };
  io->io = (PageIo){ .op = op,
                     .class = class,
                     .offset = (guint64)page * SCENE_PAGE,
                     .bytes = (gsize)pages * SCENE_PAGE,
                     .deadline_ms = deadline_ms,
                     .done = on_done,
                     .data = io };
  if (op != PAGE_TRIM)
    io->io.buf = g_malloc (io->io.bytes);
  for (guint i = 0; i < pages; i++) {
    scene->busy[page + i] = TRUE;
    if (op == PAGE_WRITE)
      put_value ((guint8 *)io->io.buf + (gsize)i * SCENE_PAGE, value, page + i);
    else if (op == PAGE_READ)
      put_value ((guint8 *)io->io.buf + (gsize)i * SCENE_PAGE, G_MAXUINT32, page + i);
  }
  scene->under_way++;
  page_channel_submit (scene->channel, &io->io);
  g_assert_false (io->ended);
  return io;
}

void
scene_io_free (SceneIo *io) {
  g_assert_true (io->ended);
  g_free (io->io.buf);
  g_free (io);
}

int
scene_end (SceneIo *io) {
  int error;

  scene_wait (io->ended);
  error = io->error;
  scene_io_free (io);
  return error;
}

static int
one (Scene *scene, enum page_op op, enum page_class class, guint page, guint pages, guint32 value) {
  SceneIo *const io = scene_begin (scene, op, class, page, pages, value, 0);

  page_channel_kick (scene->channel);
  g_assert_false (io->ended);
  return scene_end (io);
}

int
scene_write (Scene *scene, enum page_class class, guint page, guint pages, guint32 value) {
  return one (scene, PAGE_WRITE, class, page, pages, value);
}

int
scene_trim (Scene *scene, guint block) {
  return one (scene, PAGE_TRIM, PAGE_WRITE_OUT, block * BLOCK_PAGES, BLOCK_PAGES, 0);
}

int
scene_read (Scene *scene, enum page_class class, guint page, guint pages) {
  return one (scene, PAGE_READ, class, page, pages, 0);
}

void
scene_check_all (Scene *scene) {
  for (guint block = 0; block < SCENE_BLOCKS; block++) {
    int error;

    /* The last trouble may be on its way still */
    while ((error = scene_read (scene, PAGE_DEMAND, block * BLOCK_PAGES, BLOCK_PAGES)) == ENOTCONN)
      ;
    g_assert_cmpint (error, ==, 0);
  }
}

/* ---- load ---- */

static gboolean
is_busy (const Scene *scene, guint page, guint pages) {
  for (guint i = 0; i < pages; i++)
    if (scene->busy[page + i])
      return TRUE;
  return FALSE;
}

/* No room to note one more. */
static gboolean
has_many_values (const Scene *scene, guint page, guint pages) {
  for (guint i = 0; i < pages; i++)
    if (scene->more[page + i] == SCENE_VALUES - 1)
      return TRUE;
  return FALSE;
}

static SceneIo *
begin_any (Scene *scene, guint deadline_ms) {
  const guint what = (guint)testing_below (scene->rand, 100);
  const enum page_op op = what < 50 ? PAGE_READ : what < 99 ? PAGE_WRITE : PAGE_TRIM;
  const enum page_class class = (enum page_class)testing_below (scene->rand, PAGE_CLASSES);
  guint page = (guint)testing_below (scene->rand, SCENE_PAGES), pages = 1;

  if (op == PAGE_TRIM || testing_once_in (scene->rand, 50)) {
    page -= page % BLOCK_PAGES;
    pages = BLOCK_PAGES;
  } else if (testing_once_in (scene->rand, 3))
    pages = 1 + (guint)testing_below (scene->rand, MIN (64, SCENE_PAGES - page));
  if (is_busy (scene, page, pages) || (op != PAGE_READ && has_many_values (scene, page, pages)))
    return NULL;
  return scene_begin (scene, op, class, page, pages, op == PAGE_WRITE ? ++scene->next_value : 0, deadline_ms);
}

void
scene_load (Scene *scene, guint64 requests, guint deadline_ms, void (*between) (Scene *scene)) {
  SceneIo *ios[SCENE_DEPTH] = { NULL };
  guint64 begun = 0;

  do {
    const guint64 ended = scene->ended;

    for (guint i = 0; i < SCENE_DEPTH && begun < requests; i++)
      if (!ios[i] && scene->told == PAGE_CHANNEL_ATTACHED && (ios[i] = begin_any (scene, deadline_ms)))
        begun++;
    page_channel_kick (scene->channel);
    g_main_context_iteration (NULL, TRUE);
    for (guint i = 0; i < SCENE_DEPTH; i++)
      if (ios[i] && ios[i]->ended)
        g_clear_pointer (&ios[i], scene_io_free);
    if (between && scene->ended != ended)
      between (scene);
  } while (begun < requests || scene->under_way > 0);
}
