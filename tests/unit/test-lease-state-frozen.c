/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images of a donor's table that programs of every version have written (tests/fixtures/state), opened by this one: a worker of
 * any later version finds every lease and block where it was. They were frozen when their version was made: if this fails, the
 * program is wrong and not the image.
 */
#include <gio/gio.h>
#include <string.h>

#include "lease-image.h"
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
  const gsize room = 1 << 18;
  uint8_t *bytes = g_malloc0 (room + 1);

  g_assert_no_error (error);
  stream = g_converter_input_stream_new (G_INPUT_STREAM (plain), gzip);
  g_assert_true (g_input_stream_read_all (stream, bytes, room, ret_n, NULL, &error));
  return bytes;
}

/* Numbers go on from where they were, and what was promised stays so. */
static void
go_on (struct lease_donor *donor, uint64_t highest) {
  const struct lease_donor_limits limits = { 9, 100 };
  struct lease_request request
      = { .verb = LEASE_ATTACH, .vm = "new", .host = "new", .boot = "new", .session = 1, .blocks = 50 };
  struct lease_answer answer;

  lease_donor_step (donor, 99999, "new", &limits, &request, &answer);
  g_assert_cmpint (answer.verdict, ==, LEASE_OK);
  g_assert_cmpuint (answer.lease, >, highest);
  request.verb = LEASE_GRANT;
  request.lease = answer.lease;
  request.epoch = answer.epoch;
  request.seq = 1;
  memcpy (request.incarnation, answer.incarnation, LEASE_ID_BYTES);
  lease_donor_step (donor, 99999, "new", &limits, &request, &answer);
  g_assert_cmpint (answer.verdict, ==, LEASE_NO_ROOM);
}

static void
test_frozen (gconstpointer data) {
  const char *name = data;
  gsize n, n_text;
  g_autofree uint8_t *image = read_fixture (name, "gz", &n);
  g_autofree uint8_t *expected = read_fixture (name, "txt.gz", &n_text);
  g_autofree char *text = NULL;
  struct lease_donor *donor;
  struct lease_info info;
  const char *why = NULL;
  uint64_t highest = 0;

  g_assert_cmpuint (n, ==, lease_donor_state_bytes (&image_geometry));
  donor = image_open (image, &why);
  g_assert_cmpstr (why, ==, NULL);
  text = image_text (donor);
  g_assert_cmpstr (text, ==, (const char *)expected);
  for (uint32_t slot = 0; slot < IMAGE_LEASES; slot++)
    if (lease_donor_lease (donor, slot, &info))
      highest = MAX (highest, info.epoch);
  lease_donor_set_limit (donor, 1);
  go_on (donor, highest);
  lease_donor_close (donor);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/lease-state/frozen/version 1, used", "lease-v1-used", test_frozen);
  g_test_add_data_func ("/lease-state/frozen/version 1, a lease that ends", "lease-v1-ending", test_frozen);
  return g_test_run ();
}
