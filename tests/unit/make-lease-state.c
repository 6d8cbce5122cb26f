/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes images of a donor's table that this build's version makes: make-lease-state FOLDER → FOLDER/lease-vN-{used,ending}.gz,
 * and what they say, as text (…/lease-vN-….txt.gz). For a new version: tests/fixtures/state/README.md. What is there already is
 * never made anew.
 */
#include <gio/gio.h>
#include <string.h>

#include "core/crash-point.h"
#include "lease-image.h"

static uint8_t *state;
static size_t state_bytes;
static const char *folder;
static unsigned countdown; /* to the store to die at */

static void
save (const char *name, const char *suffix, const void *bytes, size_t n) {
  g_autofree char *path = g_strdup_printf ("%s/lease-v%u-%s.%s", folder, LEASE_DONOR_STATE_VERSION, name, suffix);
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
  g_autofree uint8_t *copy = g_memdup2 (state, state_bytes);
  g_autofree char *text = NULL;
  struct lease_donor *next;
  const char *why;

  save (name, "gz", copy, state_bytes);
  next = image_open (copy, &why);
  if (!next)
    g_error ("%s: %s", name, why);
  text = image_text (next);
  save (name, "txt.gz", text, strlen (text));
  lease_donor_close (next);
}

void
crash_point (const char *name) {
  if (countdown && strcmp (name, "lease-dirty") == 0 && --countdown == 0)
    save_image ("ending");
}

static struct lease_answer
ask (struct lease_donor *donor, char who, enum lease_verb verb, uint64_t session, uint64_t blocks,
     const struct lease_answer *last) {
  const struct lease_donor_limits limits = { 3, 30 };
  struct lease_request request = { .verb = verb, .disk = (uint32_t)who, .session = session, .blocks = blocks };
  const char identity[] = { 'h', 'o', 's', 't', '-', who, '\0' };
  static uint64_t now = 1000;
  struct lease_answer answer;

  memset (request.vm, who, LEASE_ID_BYTES - 1);
  memset (request.host, 'h', LEASE_ID_BYTES - 1);
  memset (request.boot, 'b', LEASE_ID_BYTES - 1);
  if (last) {
    request.lease = last->lease;
    request.epoch = last->epoch;
    request.seq = last->seq + 1;
    memcpy (request.incarnation, last->incarnation, LEASE_ID_BYTES);
  }
  lease_donor_step (donor, now += 250, identity, &limits, &request, &answer);
  if (answer.verdict != LEASE_OK)
    g_error ("verdict %d", answer.verdict);
  return answer;
}

static void
use (struct lease_donor *donor, const char *identity, const struct lease_answer *answer, uint64_t first, unsigned n) {
  struct lease_export export;
  uint64_t blocks, block;
  const char *why;
  char name[LEASE_EXPORT_NAME_BYTES];
  bool fresh;

  lease_export_name (answer->lease, answer->epoch, answer->incarnation, name);
  if (!lease_donor_export (donor, identity, name, &export, &blocks, &why))
    g_error ("%s", why);
  for (unsigned i = 0; i < n; i++)
    if (lease_donor_take (donor, &export, first + 3 * i, &block, &fresh) != LEASE_TAKEN)
      g_error ("no block");
  lease_donor_drop (donor, &export, first);
}

int
main (int argc, char **argv) {
  struct lease_answer a, b, c;
  struct lease_donor *donor;
  const char *why;

  if (argc != 2) {
    g_printerr ("usage: make-lease-state FOLDER\n");
    return 2;
  }
  folder = argv[1];
  state_bytes = lease_donor_state_bytes (&image_geometry);
  state = g_malloc0 (state_bytes);
  lease_donor_format (state, &image_geometry, (const uint8_t *)"frozen arena one");
  donor = image_open (state, &why);
  if (!donor)
    g_error ("%s", why);
  a = ask (donor, 'a', LEASE_ATTACH, 1, 100, NULL);
  b = ask (donor, 'b', LEASE_ATTACH, 1, 64, NULL);
  c = ask (donor, 'c', LEASE_ATTACH, 5, 7, NULL);
  a = ask (donor, 'a', LEASE_GRANT, 1, 12, &a);
  b = ask (donor, 'b', LEASE_GRANT, 1, 9, &b);
  c = ask (donor, 'c', LEASE_GRANT, 5, 2, &c);
  use (donor, "host-a", &a, 10, 9);
  use (donor, "host-b", &b, 0, 7);
  a = ask (donor, 'a', LEASE_ATTACH, 2, 100, &a);
  (void)lease_donor_revoke (donor, b.lease, 4, 123456);
  save_image ("used");
  countdown = 4;
  (void)ask (donor, 'a', LEASE_END, 2, 0, &a);
  lease_donor_close (donor);
  g_free (state);
  return 0;
}
