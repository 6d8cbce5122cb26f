/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage-scene.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define PAGE STORAGE_ALIGN

void
scene_init (int *argc, char ***argv) {
  signal (SIGPIPE, SIG_IGN);
  g_log_writer_default_set_use_stderr (TRUE); /* stdout is for results */
  testing_init (argc, argv);
}

char *
scene_folder (const char *where) {
  g_autofree char *name = g_build_filename (where ? where : g_get_tmp_dir (), "domybs-storage-XXXXXX", NULL);

  g_assert_nonnull (g_mkdtemp (name));
  return g_steal_pointer (&name);
}

void
scene_folder_free (char *folder) {
  const char *const command[] = { "rm", "-rf", "--one-file-system", folder, NULL };

  g_spawn_sync (NULL, (char **)command, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
  g_free (folder);
}

/* ---- time ---- */

static gboolean
on_time (gpointer data) {
  *(gboolean *)data = TRUE;
  return G_SOURCE_REMOVE;
}

void
scene_wait (const gboolean *flag, unsigned seconds) {
  gboolean late = FALSE;
  const guint timeout = g_timeout_add_seconds (seconds, on_time, &late);

  while (!*flag && !late)
    g_main_context_iteration (NULL, TRUE);
  if (!late)
    g_source_remove (timeout);
  if (!*flag)
    g_error ("what was waited for did not come within %u s", seconds);
}

void
scene_run_for (unsigned ms) {
  gboolean over = FALSE;

  g_timeout_add (ms, on_time, &over);
  while (!over)
    g_main_context_iteration (NULL, TRUE);
}

/* ---- requests ---- */

static void
on_done (StorageIo *io, int error) {
  SceneIo *scene_io_ = io->data;

  g_assert_false (scene_io_->ended);
  scene_io_->ended = TRUE;
  scene_io_->error = error;
}

void
scene_io (SceneIo *io, gboolean is_write, guint64 offset, void *buf, gsize bytes) {
  *io = (SceneIo){ .io = { .is_write = is_write, .offset = offset, .buf = buf, .bytes = bytes, .done = on_done } };
  io->io.data = io;
}

void
scene_submit (Storage *storage, SceneIo *io) {
  storage_submit (storage, &io->io);
  g_assert_false (io->ended);
}

int
scene_do (Storage *storage, gboolean is_write, guint64 offset, void *buf, gsize bytes) {
  SceneIo io;

  scene_io (&io, is_write, offset, buf, bytes);
  scene_submit (storage, &io);
  storage_kick (storage);
  g_assert_false (io.ended);
  scene_wait (&io.ended, 60);
  return io.error;
}

guint8 *
scene_buffer (gsize bytes) {
  void *buf = NULL;

  g_assert_cmpint (posix_memalign (&buf, PAGE, bytes), ==, 0);
  return buf;
}

void
scene_pattern (guint8 *buf, guint64 offset, gsize bytes, guint32 version) {
  for (gsize i = 0; i < bytes; i += 8) {
    const guint64 word = ((offset + i) * 0x9e3779b97f4a7c15u) ^ ((guint64)version << 32 | version);

    memcpy (buf + i, &word, sizeof word);
  }
}

gboolean
scene_is_pattern (const guint8 *buf, guint64 offset, gsize bytes, guint32 version) {
  for (gsize i = 0; i < bytes; i += 8) {
    const guint64 word = ((offset + i) * 0x9e3779b97f4a7c15u) ^ ((guint64)version << 32 | version);

    if (memcmp (buf + i, &word, sizeof word) != 0)
      return FALSE;
  }
  return TRUE;
}

/* ---- the round trip ---- */

#define DISCARDED G_MAXUINT32 /* any contents: not compared */

struct trip {
  const SceneTrip *asked;
  guint32 *versions; /* of each page; 0: never written */
  guint8 *busy;
  guint64 n_pages;
  guint32 next_version;
  unsigned under_way;
  unsigned writes, discards, compared; /* requests, requests, pages */
};

struct trip_io {
  StorageIo io;
  struct trip *trip;
  guint32 version;
};

static void
on_trip_done (StorageIo *io, int error) {
  struct trip_io *one = (struct trip_io *)io;
  struct trip *trip = one->trip;

  g_assert_cmpint (error, ==, 0);
  for (guint64 at = 0; at < io->bytes; at += PAGE) {
    const guint64 page = (io->offset + at) / PAGE;

    trip->busy[page] = 0;
    if (io->is_write || trip->versions[page] == DISCARDED || trip->versions[page] == 0)
      continue;
    trip->compared++;
    if (!scene_is_pattern ((guint8 *)io->buf + at, io->offset + at, PAGE, trip->versions[page]))
      g_error ("page %" G_GUINT64_FORMAT " is not version %u", page, trip->versions[page]);
  }
  trip->under_way--;
  free (io->buf);
  g_free (one);
}

static gboolean
is_free (const struct trip *trip, guint64 first, guint64 n) {
  for (guint64 i = first; i < first + n; i++)
    if (trip->busy[i])
      return FALSE;
  return TRUE;
}

static void
start (struct trip *trip, gboolean is_write, guint64 first, guint64 n) {
  struct trip_io *one = g_new0 (struct trip_io, 1);

  one->trip = trip;
  one->io = (StorageIo){
    .is_write = is_write, .offset = first * PAGE, .bytes = n * PAGE, .buf = scene_buffer (n * PAGE), .done = on_trip_done
  };
  memset (trip->busy + first, 1, n);
  if (is_write) {
    one->version = ++trip->next_version;
    trip->writes++;
    scene_pattern (one->io.buf, one->io.offset, one->io.bytes, one->version);
    for (guint64 i = first; i < first + n; i++)
      trip->versions[i] = one->version;
  } else
    memset (one->io.buf, 0xee, one->io.bytes);
  trip->under_way++;
  storage_submit (trip->asked->storage, &one->io);
}

static void
discard (struct trip *trip, guint64 first, guint64 n) {
  for (guint64 i = first; i < first + n; i++)
    trip->versions[i] = DISCARDED;
  trip->discards++;
  storage_discard (trip->asked->storage, first * PAGE, n * PAGE);
}

static void
step (struct trip *trip, GRand *rand) {
  const SceneTrip *asked = trip->asked;
  const guint64 most = asked->most / PAGE;
  guint64 n = testing_once_in (rand, 2) ? 1 : 1 + testing_below (rand, most), first;
  unsigned tries = 20;

  n = MIN (n, trip->n_pages);
  do {
    if (tries-- == 0)
      return;
    first = testing_below (rand, trip->n_pages - n + 1);
  } while (!is_free (trip, first, n));
  testing_trace ("%" G_GUINT64_FORMAT " + %" G_GUINT64_FORMAT, first, n);
  if (asked->discards && testing_once_in (rand, 8))
    discard (trip, first, n);
  else
    start (trip, testing_once_in (rand, 2), first, n);
}

static void
drain (struct trip *trip, unsigned most) {
  storage_kick (trip->asked->storage);
  while (trip->under_way > most)
    g_main_context_iteration (NULL, TRUE);
}

void
scene_round_trip (GRand *rand, const SceneTrip *asked) {
  struct trip trip = { .asked = asked, .n_pages = asked->bytes / PAGE };

  trip.versions = g_new0 (guint32, trip.n_pages);
  trip.busy = g_new0 (guint8, trip.n_pages);
  for (unsigned i = 0; i < asked->steps; i++) {
    if (asked->disturb && testing_once_in (rand, 16))
      asked->disturb (asked->disturb_data);
    step (&trip, rand);
    if (testing_once_in (rand, 4))
      storage_kick (asked->storage);
    if (testing_once_in (rand, 8))
      storage_reap (asked->storage);
    if (trip.under_way >= asked->at_a_time)
      drain (&trip, (unsigned)testing_below (rand, asked->at_a_time));
  }
  drain (&trip, 0);
  for (guint64 i = 0; i < trip.n_pages; i++)
    if (trip.versions[i] == 0)
      start (&trip, TRUE, i, 1);
  drain (&trip, 0);
  for (guint64 i = 0; i < trip.n_pages; i++)
    start (&trip, FALSE, i, 1);
  drain (&trip, 0);
  g_test_message ("%u writes, %u discards, %u pages compared", trip.writes, trip.discards, trip.compared);
  g_assert_cmpuint (trip.compared, >, 0);
  g_free (trip.versions);
  g_free (trip.busy);
}
