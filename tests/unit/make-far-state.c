/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes images of a page store's state that this build's version makes: make-far-state FOLDER →
 * FOLDER/far-vN-{used,committed}.gz, and what they say, as text (…/far-vN-….txt.gz). For a new version:
 * tests/fixtures/state/README.md. What is there already is never made anew.
 */
#include <gio/gio.h>
#include <stdlib.h>
#include <string.h>

#include "core/crash-point.h"
#include "far-image.h"

static struct far_geometry geometry;
static uint8_t *state;
static size_t state_bytes;
static const char *folder;
static bool armed; /* the next commit is the one to die at */

static void
save (const char *name, const char *suffix, const void *bytes, size_t n) {
  g_autofree char *path = g_strdup_printf ("%s/far-v%u-%s.%s", folder, FAR_STATE_VERSION, name, suffix);
  g_autoptr (GConverter) gzip = G_CONVERTER (g_zlib_compressor_new (G_ZLIB_COMPRESSOR_FORMAT_GZIP, 9));
  g_autoptr (GFile) file = g_file_new_for_path (path);
  g_autoptr (GError) error = NULL;
  g_autoptr (GFileOutputStream) plain = g_file_create (file, G_FILE_CREATE_NONE, NULL, &error);
  g_autoptr (GOutputStream) stream = NULL;

  if (!plain)
    g_error ("%s", error->message);
  stream = g_converter_output_stream_new (G_OUTPUT_STREAM (plain), gzip);
  if (!g_output_stream_write_all (stream, bytes, n, NULL, NULL, &error) || !g_output_stream_close (stream, NULL, &error))
    g_error ("%s: %s", path, error->message);
}

/* What a process that dies now leaves, and what the next one makes of it. */
static void
save_image (const char *name) {
  uint8_t *copy = g_malloc (state_bytes);
  g_autofree char *text = NULL;
  struct far_store *next;
  const char *why;

  memcpy (copy, state, state_bytes);
  save (name, "gz", copy, state_bytes);
  next = far_store_open (copy, state_bytes, &geometry, &why);
  if (!next)
    g_error ("%s: %s", name, why);
  text = image_text (next);
  save (name, "txt.gz", text, strlen (text));
  far_store_close (next);
  g_free (copy);
}

void
crash_point (const char *name) {
  if (!armed || strcmp (name, "far-committed") != 0)
    return;
  armed = false;
  save_image ("committed");
}

static void
put (struct far_store *store, uint32_t first, uint32_t n, enum far_kind kind) {
  struct far_change *changes = g_new0 (struct far_change, n);
  const uint64_t version = far_store_take_versions (store, n);

  for (uint32_t i = 0; i < n; i++) {
    struct far_page *page = &changes[i].now;
    struct far_spot spot;

    changes[i].page = first + i;
    page->kind = kind;
    if (kind == FAR_SAME)
      page->value = 0x1111111111111111ull * (i % 15 + 1);
    if (kind != FAR_RAW && kind != FAR_PACKED)
      continue;
    page->bytes = kind == FAR_RAW ? FAR_PAGE_BYTES : 300 + 97 * (i % 27);
    page->version = version + i;
    for (unsigned k = 0; k < FAR_TAG_BYTES; k++)
      page->tag[k] = (uint8_t)(page->version * 31 + k * 7 + first);
    if (far_store_place (store, kind == FAR_RAW ? FAR_CLASS_RAW : FAR_CLASS_PACKED, page->bytes, &spot) != FAR_ROOM)
      g_error ("no room");
    page->segment = spot.segment;
    page->offset = spot.offset;
  }
  far_store_commit (store, changes, n);
  g_free (changes);
}

int
main (int argc, char **argv) {
  struct far_store *store;
  struct far_places given;
  struct far_write write;
  const char *why;

  if (argc != 2) {
    g_printerr ("usage: make-far-state FOLDER\n");
    return 2;
  }
  folder = argv[1];
  geometry = image_geometry ();
  state_bytes = far_store_state_bytes (&geometry);
  state = g_malloc0 (state_bytes);
  far_store_format (state, &geometry);
  store = far_store_open (state, state_bytes, &geometry, &why);
  if (!store)
    g_error ("%s", why);
  far_store_cover (store, 9);
  for (uint32_t first = 0; first < 2 * FAR_BLOCK_PAGES; first += 128)
    put (store, first, 128, FAR_RAW); /* two segments */
  put (store, 1200, 200, FAR_PACKED);
  put (store, 1500, 40, FAR_SAME);
  put (store, 1600, 3, FAR_LOST);
  /* the first to storage, the second to another place than its own, because that is bad */
  far_store_close_open (store);
  if (!far_store_next_write (store, &write))
    g_error ("nothing to write");
  far_store_written (store, write.segment);
  if (!far_store_next_write (store, &write) || !far_store_not_written (store, write.segment))
    g_error ("no other place");
  far_store_discard (store, 100, 77, 1000);
  put (store, 300, 50, FAR_RAW); /* overwritten, in a segment that is open */
  put (store, 1300, 20, FAR_PACKED);
  if (!far_store_next_write (store, &write)) /* being written */
    g_error ("nothing to write");
  far_store_take_versions (store, 1000); /* and never used */
  far_store_cover (store, 12);
  if (!far_store_give_back (store, 2, &given)) /* since version 2 */
    g_error ("nothing to give back");
  save_image ("used");
  armed = true;
  put (store, 1000, 100, FAR_PACKED);
  far_store_close (store);
  g_free (state);
  return armed;
}
