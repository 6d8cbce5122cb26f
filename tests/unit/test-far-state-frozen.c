/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images of a page store's state that programs of every version have written (tests/fixtures/state), opened by this one: a
 * worker of any later version finds every page where it was, and goes on. They were frozen when their version was made: if this
 * fails, the program is wrong and not the image.
 */
#include <gio/gio.h>
#include <string.h>

#include "far-image.h"
#include "testing.h"

/* Free it; there is a 0 behind it. */
static uint8_t *
read_fixture (const char *name, const char *suffix, gsize *ret_n) {
  g_autofree char *path = g_strdup_printf ("%s/%s.%s", DOMYBS_FIXTURES, name, suffix);
  g_autoptr (GConverter) gzip = G_CONVERTER (g_zlib_decompressor_new (G_ZLIB_COMPRESSOR_FORMAT_GZIP));
  g_autoptr (GFile) file = g_file_new_for_path (path);
  g_autoptr (GError) error = NULL;
  g_autoptr (GFileInputStream) plain = g_file_read (file, NULL, &error);
  g_autoptr (GInputStream) stream = NULL;
  const gsize room = 1 << 20;
  uint8_t *bytes = g_malloc0 (room + 1);

  g_assert_no_error (error);
  stream = g_converter_input_stream_new (G_INPUT_STREAM (plain), gzip);
  g_assert_true (g_input_stream_read_all (stream, bytes, room, ret_n, NULL, &error));
  return bytes;
}

/* A page that is written now has a version that none had, and is there for the next process. */
static void
go_on (struct far_store *store, uint8_t *image, size_t bytes, const struct far_geometry *geometry) {
  struct far_change change = { .page = 1111, .now = { .kind = FAR_RAW, .bytes = FAR_PAGE_BYTES } };
  struct far_figures f;
  struct far_spot spot;
  struct far_page page;
  struct far_write write;
  const char *why = NULL;
  unsigned writes = 0;

  far_store_figures (store, &f);
  change.now.version = far_store_take_versions (store, 1);
  g_assert_cmpuint (change.now.version, ==, f.versions + 1);
  g_assert_cmpint (far_store_place (store, FAR_CLASS_RAW, FAR_PAGE_BYTES, &spot), ==, FAR_ROOM);
  change.now.segment = spot.segment;
  change.now.offset = spot.offset;
  memset (change.now.tag, 0xa5, sizeof change.now.tag);
  far_store_commit (store, &change, 1);
  far_store_close_open (store);
  for (; far_store_next_write (store, &write); writes++)
    far_store_written (store, write.segment);
  g_assert_cmpuint (writes, >=, 3); /* what was staged, and what was being written, too */
  far_store_close (store);

  store = far_store_open (image, bytes, geometry, &why);
  g_assert_cmpstr (why, ==, NULL);
  far_store_get (store, 1111, &page);
  g_assert_cmpint (page.kind, ==, FAR_RAW);
  g_assert_cmpuint (page.version, ==, f.versions + 1);
  g_assert_cmpuint (page.tag[7], ==, 0xa5);
  far_store_figures (store, &f);
  g_assert_cmpuint (f.slots_free, ==, f.slots);
  far_store_close (store);
}

static void
test_frozen (gconstpointer data) {
  const char *name = data;
  const struct far_geometry geometry = image_geometry ();
  const size_t bytes = far_store_state_bytes (&geometry);
  gsize n, n_text;
  g_autofree uint8_t *image = read_fixture (name, "gz", &n);
  g_autofree uint8_t *expected = read_fixture (name, "txt.gz", &n_text);
  g_autofree char *text = NULL;
  struct far_store *store;
  const char *why = NULL;

  g_assert_cmpuint (n, ==, bytes);
  g_assert_cmpstr (far_store_check_header (image, bytes, &geometry), ==, NULL);
  store = far_store_open (image, bytes, &geometry, &why);
  g_assert_cmpstr (why, ==, NULL);
  text = image_text (store);
  g_assert_cmpstr (text, ==, (const char *)expected);
  g_assert_cmpuint (far_store_wear_full_at (store), ==, 0); /* what is newer than the image is as if it had never been used */
  go_on (store, image, bytes, &geometry);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/far-state/frozen/version 1, used", "far-v1-used", test_frozen);
  g_test_add_data_func ("/far-state/frozen/version 1, committed and not applied", "far-v1-committed", test_frozen);
  g_test_add_data_func ("/far-state/frozen/version 2, used", "far-v2-used", test_frozen);
  g_test_add_data_func ("/far-state/frozen/version 2, committed and not applied", "far-v2-committed", test_frozen);
  return g_test_run ();
}
