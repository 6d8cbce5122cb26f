/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An object's reader on storage that answers when, and in which order, the test wants it to, with errors and damage: each
 * request is answered once, with the right bytes; one fails only if one of its own pages is damaged or can't be read, whatever
 * becomes of what was read ahead; and nothing is touched of requests whose owner is gone.
 */
#include "far/object-internal.h"
#include "io/object-file.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

#define PAGES 400u
#define IN_FLIGHT_MAX 100u /* more than there are buffers */
#define PAGES_MAX 80u      /* in one request: more than in one read */

/* ---- storage ---- */

static struct {
  StorageIo *submitted[512], *under_way[512];
  unsigned n_submitted, n_under_way;
  const guint8 *content;
} disk;

void
storage_submit (Storage *storage, StorageIo *io) {
  g_assert_cmpuint (disk.n_submitted, <, G_N_ELEMENTS (disk.submitted));
  g_assert_false (io->is_write);
  disk.submitted[disk.n_submitted++] = io;
}

void
storage_kick (Storage *storage) {
  for (unsigned i = 0; i < disk.n_submitted; i++)
    disk.under_way[disk.n_under_way++] = disk.submitted[i];
  disk.n_submitted = 0;
}

unsigned
storage_reap (Storage *storage) {
  return 0;
}

void
storage_free (Storage *storage) {
  disk.n_under_way = disk.n_submitted = 0; /* no done is called any more */
}

const char *
storage_description (const Storage *storage) {
  return "test";
}

/* ---- requests ---- */

typedef struct {
  FarIo io; /* first */
  gboolean in_flight;
  guint8 *buf; /* of PAGES_MAX pages */
} Request;

typedef struct {
  FarObject *object;
  GRand *random;
  guint8 *content, *meta;
  gboolean damaged[PAGES], demand_errors;
  Request requests[IN_FLIGHT_MAX];
  unsigned n_in_flight;
  guint64 at, answered, failed, forgotten, ahead_errors;
} Stage;

static Stage *stage;

static guint8 *
page_at (FarIo *io, guint64 i) {
  return ((Request *)io)->buf + i * OBJECT_PAGE_BYTES;
}

static void start_one (void);

static void
done (FarIo *io, gboolean ok) {
  Request *request = (Request *)io;
  gboolean any_damaged = FALSE;

  g_assert_true (request->in_flight); /* and not twice */
  request->in_flight = FALSE;
  stage->n_in_flight--;
  stage->answered++;
  stage->failed += !ok;
  for (guint64 i = 0; i < io->n; i++) {
    const guint64 page = io->first + i;

    any_damaged |= stage->damaged[page];
    if (ok)
      g_assert_cmpint (
          memcmp (request->buf + i * OBJECT_PAGE_BYTES, stage->content + page * OBJECT_PAGE_BYTES, OBJECT_PAGE_BYTES), ==, 0);
  }
  if (ok)
    g_assert_false (any_damaged);
  else
    g_assert_true (any_damaged || stage->demand_errors);
  if (testing_once_in (stage->random, 3))
    start_one ();
}

static void
start_one (void) {
  Request *request = stage->requests;
  guint64 n = 1 + testing_below (stage->random, testing_once_in (stage->random, 4) ? PAGES_MAX : 4);

  if (stage->n_in_flight == IN_FLIGHT_MAX)
    return;
  while (request->in_flight)
    request++;
  if (testing_once_in (stage->random, 5) || stage->at + n > PAGES)
    stage->at = testing_below (stage->random, PAGES - n); /* mostly in a row */
  request->io = (FarIo){ .operation = BLK_READ, .first = stage->at, .n = n, .page_at = page_at, .done = done };
  request->in_flight = TRUE;
  memset (request->buf, 0xee, n * OBJECT_PAGE_BYTES);
  stage->n_in_flight++;
  stage->at += n;
  far_object_pages.start (stage->object, &request->io);
}

/* Any of those that are under way ends. */
static void
end_one (gboolean errors) {
  const unsigned which = (unsigned)testing_below (stage->random, disk.n_under_way);
  StorageIo *io = disk.under_way[which];
  const gboolean is_ahead = (guint8 *)io->buf >= stage->object->ring
                            && (guint8 *)io->buf < stage->object->ring + stage->object->options.ahead_bytes;
  int error = 0;

  disk.under_way[which] = disk.under_way[--disk.n_under_way];
  memcpy (io->buf, disk.content + io->offset - object_data_offset (PAGES), io->bytes);
  if (errors && testing_once_in (stage->random, 3) && (is_ahead || stage->demand_errors)) {
    error = EIO;
    memset (io->buf, 0xbb, io->bytes);
    stage->ahead_errors += is_ahead;
  }
  io->done (io, error);
}

static void
forget_one (void) {
  Request *request = &stage->requests[testing_below (stage->random, IN_FLIGHT_MAX)];

  if (!request->in_flight)
    return;
  far_object_pages.forget (stage->object, &request->io);
  request->in_flight = FALSE;
  memset (&request->io, 0xdd, sizeof request->io);
  memset (request->buf, 0xdd, PAGES_MAX * OBJECT_PAGE_BYTES);
  stage->n_in_flight--;
  stage->forgotten++;
}

typedef struct {
  guint64 ahead_bytes;
  gboolean damage, ahead_errors, demand_errors, forget;
} Variant;

static void
stage_begin (const Variant *variant) {
  stage = g_new0 (Stage, 1);
  stage->random = testing_rand ();
  stage->demand_errors = variant->demand_errors;
  stage->content = g_malloc0 (PAGES * OBJECT_PAGE_BYTES);
  stage->meta = g_malloc0 (object_data_offset (PAGES));
  for (unsigned page = 0; page < PAGES; page++) {
    guint8 *bytes = stage->content + page * OBJECT_PAGE_BYTES, sum[OBJECT_SUM_BYTES];

    if (testing_once_in (stage->random, 20))
      continue;
    memcpy (bytes, &page, sizeof page);
    bytes[OBJECT_PAGE_BYTES - 1] = 1;
    g_assert_true (object_sum (bytes, OBJECT_PAGE_BYTES, sum));
    memcpy (stage->meta + OBJECT_HEADER_BYTES + page * OBJECT_DIGEST_BYTES, sum, OBJECT_DIGEST_BYTES);
    stage->damaged[page] = variant->damage && testing_once_in (stage->random, 15);
    if (stage->damaged[page])
      bytes[1000] ^= 1;
  }
  disk.content = stage->content;
  for (unsigned i = 0; i < IN_FLIGHT_MAX; i++)
    stage->requests[i].buf = g_malloc (PAGES_MAX * OBJECT_PAGE_BYTES);
  stage->object = far_object_new (&(FarObjectOptions){ .name = "test", .ahead_bytes = variant->ahead_bytes }, stage->meta,
                                  PAGES * OBJECT_PAGE_BYTES, NULL);
}

static void
stage_end (void) {
  far_object_pages.free (stage->object);
  for (unsigned i = 0; i < IN_FLIGHT_MAX; i++)
    g_free (stage->requests[i].buf);
  g_rand_free (stage->random);
  g_free (stage->content);
  g_free (stage->meta);
  g_free (stage);
}

static GLogWriterOutput
no_log (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data) {
  return level & (G_LOG_LEVEL_CRITICAL | G_LOG_LEVEL_ERROR) ? g_log_writer_standard_streams (level, fields, n_fields, data)
                                                            : G_LOG_WRITER_HANDLED;
}

static void
random_order (gconstpointer data) {
  const Variant *variant = data;
  FarObjectFigures f;

  stage_begin (variant);
  for (unsigned i = 0; i < testing_steps (20000); i++) {
    switch (testing_below (stage->random, variant->forget ? 9 : 8)) {
    case 0:
    case 1:
    case 2:
      start_one ();
      far_object_pages.kick (stage->object);
      break;
    case 8:
      forget_one ();
      break;
    default:
      if (disk.n_under_way)
        end_one (variant->ahead_errors || variant->demand_errors);
    }
  }
  while (disk.n_under_way || stage->n_in_flight) {
    far_object_pages.kick (stage->object);
    g_assert_cmpuint (disk.n_under_way, >, 0); /* who waits, waits for something */
    end_one (FALSE);
  }
  far_object_figures (stage->object, &f);
  g_test_message ("%d answered, %d of them failed, %d forgotten; %d pages ahead, %d used, %d pieces failed",
                  (int)stage->answered, (int)stage->failed, (int)stage->forgotten, (int)f.ahead_pages, (int)f.ahead_used,
                  (int)stage->ahead_errors);
  g_assert_cmpuint (f.waiting, ==, 0);
  g_assert_cmpuint (f.oldest_wait_us, ==, 0);
  g_assert_cmpuint (stage->answered, >, 0);
  if (variant->ahead_bytes)
    g_assert_cmpuint (f.ahead_used, >, 0);
  else
    g_assert_cmpuint (f.ahead_pages, ==, 0);
  if (variant->ahead_errors)
    g_assert_cmpuint (stage->ahead_errors, >, 0);
  stage_end ();
}

/* Who wants what is on its way waits for it, and does not read it once more. */
static void
no_page_twice (void) {
  stage_begin (&(Variant){ .ahead_bytes = 1 << 20 });
  for (guint64 page = 0; page < 300; page++) {
    Request *request = &stage->requests[0];
    guint8 read_now[PAGES] = { 0 };

    request->io = (FarIo){ .operation = BLK_READ, .first = page, .n = 1, .page_at = page_at, .done = done };
    request->in_flight = TRUE;
    stage->n_in_flight = IN_FLIGHT_MAX + 1; /* done starts no others */
    far_object_pages.start (stage->object, &request->io);
    far_object_pages.kick (stage->object);
    for (unsigned i = 0; i < disk.n_under_way; i++) {
      const guint64 first = (disk.under_way[i]->offset - object_data_offset (PAGES)) / OBJECT_PAGE_BYTES;

      for (guint64 k = first; k < first + disk.under_way[i]->bytes / OBJECT_PAGE_BYTES; k++)
        g_assert_cmpuint (read_now[k]++, ==, 0);
    }
    while (request->in_flight) /* those that are only for later may stay */
      end_one (FALSE);
  }
  stage->n_in_flight = 0;
  stage_end ();
}

int
main (int argc, char **argv) {
  static const Variant plain
      = { .ahead_bytes = 1 << 20 },
      none = { 0 }, small = { .ahead_bytes = 64 << 10, .forget = TRUE }, damage = { .ahead_bytes = 1 << 20, .damage = TRUE },
      ahead_errors = { .ahead_bytes = 1 << 20, .ahead_errors = TRUE },
      all = { .ahead_bytes = 1 << 20, .damage = TRUE, .ahead_errors = TRUE, .demand_errors = TRUE, .forget = TRUE };

  testing_init (&argc, &argv);
  g_log_set_always_fatal (G_LOG_LEVEL_CRITICAL | G_LOG_FATAL_MASK); /* damage is a warning */
  g_log_set_writer_func (no_log, NULL, NULL);
  g_test_add_data_func ("/object/reader/plain", &plain, random_order);
  g_test_add_data_func ("/object/reader/nothing-ahead", &none, random_order);
  g_test_add_data_func ("/object/reader/small-ring", &small, random_order);
  g_test_add_data_func ("/object/reader/damage", &damage, random_order);
  g_test_add_data_func ("/object/reader/failed-ahead", &ahead_errors, random_order);
  g_test_add_data_func ("/object/reader/all-trouble", &all, random_order);
  g_test_add_func ("/object/reader/no-page-twice", no_page_twice);
  return g_test_run ();
}
