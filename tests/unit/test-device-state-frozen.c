/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images that programs of every version of the state have written (tests/fixtures/state), read by this one. A worker of any
 * later version goes on from them, or says that it can't; it never takes them for something else. They were frozen when their
 * version was made: if this fails, the program is wrong and not the image.
 */
#include <gio/gio.h>

#include "requests.h"
#include "state-image.h"
#include "testing.h"

#define SESSION 0x5e55101ull

static struct image
read_image (const char *name) {
  g_autofree char *path = g_build_filename (DOMYBS_FIXTURES, name, NULL);
  g_autoptr (GConverter) gzip = G_CONVERTER (g_zlib_decompressor_new (G_ZLIB_COMPRESSOR_FORMAT_GZIP));
  g_autoptr (GFile) file = g_file_new_for_path (path);
  g_autoptr (GError) error = NULL;
  g_autoptr (GFileInputStream) plain = g_file_read (file, NULL, &error);
  g_autoptr (GInputStream) stream = NULL;
  const size_t room = 1 << 20;
  struct image image = { .memory = g_malloc0 (room) };
  gsize n = 0;

  g_assert_no_error (error);
  stream = g_converter_input_stream_new (G_INPUT_STREAM (plain), gzip);
  g_assert_true (g_input_stream_read_all (stream, image.memory, room, &n, NULL, &error));
  g_assert_cmpstr (device_state_check (image.memory, n, IMAGE_WINDOW), ==, NULL);
  device_state_attach (&image.state, image.memory);
  g_assert_cmpuint (image.state.bytes, ==, n);
  return image;
}

struct frozen {
  unsigned version;
  const char *kind;
  bool pending;
  uint64_t granted;
};

static const struct frozen all[] = {
  { 1, "idle", false, 0 }, { 1, "session", false, 317 }, { 1, "in-flight", true, 312 }, { 1, "mapping", true, 0 },
  { 2, "idle", false, 0 }, { 2, "session", false, 317 }, { 2, "in-flight", true, 312 }, { 2, "mapping", true, 0 },
};

static int
ask (struct memory_device *device, struct request_bytes request, struct device_plan *plan) {
  struct domybs_response response;

  memory_device_plan (device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, plan);
  memory_device_finish (device, plan, DEVICE_DONE, UINT64_MAX, 1);
  memcpy (&response, plan->answer, sizeof response);
  return le16toh (response.status);
}

/* The guest goes on as if nothing had been. */
static void
check_guest (struct memory_device *device, const struct frozen *frozen) {
  const uint64_t last_id = frozen->pending ? 19 : 18;
  struct device_plan plan;
  struct domybs_run run;

  g_assert_cmpuint (device->session, ==, SESSION);
  g_assert_cmpuint (device->nonce, ==, 0xabc);
  g_assert_cmpuint (device->last_id, ==, last_id);
  g_assert_cmpstr (device->driver, ==, "test");
  g_assert_cmpuint (device->regions.region_blocks, ==, 64);
  g_assert_cmpuint (device->stats[DOMYBS_STAT_MEM_FREE], ==, 123456789);
  g_assert_cmpuint (regions_count (&device->regions, 10, 2), ==, 0);
  g_assert_cmpuint (regions_count (&device->regions, 0, 5), ==, frozen->pending ? 0 : 5);
  g_assert_cmpuint (regions_count (&device->regions, 510, 20), ==, 20);
  g_assert_cmpuint (regions_count (&device->regions, 540, 484), ==, 0);
  /* repetitions get their answers, the longest ago too, one before that does not */
  g_assert_cmpint (ask (device, request_grant (SESSION, 18, 0, 0, 20, 510, 30), &plan), ==, DOMYBS_OK);
  memcpy (&run, plan.answer + sizeof (struct domybs_response), sizeof run);
  g_assert_cmpuint (le64toh (run.start), ==, 510);
  g_assert_cmpuint (le64toh (run.count), ==, 20);
  if (frozen->pending)
    g_assert_cmpint (ask (device, request_release_one (SESSION, 19, 0, 5), &plan), ==, DOMYBS_OK);
  g_assert_cmpint (ask (device, request_grant (SESSION, last_id - 15, 0, 0, 20, (last_id - 16) * 30, 30), &plan), ==,
                   DOMYBS_OK);
  g_assert_cmpint (ask (device, request_stat (SESSION, last_id - 16, 2, 0), &plan), ==, DOMYBS_STALE);
  g_assert_cmpint (ask (device, request_hello (0xabc, 64), &plan), ==, DOMYBS_OK);
  g_assert_cmpuint (device->counters.sessions, ==, 1);
  g_assert_cmpint (ask (device, request_grant (SESSION, last_id + 1, 0, 0, 1, 0, 0), &plan), ==, DOMYBS_OK);
  g_assert_cmpuint (device->regions.granted, ==, frozen->granted + 1);
}

static void
check_session (const struct state_session *session, bool mapping) {
  g_assert_cmpuint (session->connection, ==, 3);
  g_assert_cmpuint (session->closed, ==, 2);
  g_assert_cmpuint (session->consumed, ==, 1500);
  g_assert_cmpuint (session->sent, ==, 14);
  g_assert_cmpuint (session->channel_epoch, ==, 3);
  g_assert_cmpuint (session->channel_slot, ==, 17);
  g_assert_cmpuint (session->channel_sent, ==, mapping ? 2 : 1);
  g_assert_cmpuint (session->n_regions, ==, 3);
  g_assert_cmpuint (session->regions[2].user_addr, ==, 0x7f2000000000);
  g_assert_cmpuint (session->regions[2].slot, ==, 22);
  g_assert_cmpuint (session->queues[1].num, ==, 128);
  g_assert_cmpuint (session->queues[1].used, ==, 0x7f0000112000);
  g_assert_cmpuint (session->queues[1].next_avail, ==, 8);
  g_assert_cmpuint (session->queues[0].next_used - session->queues[0].next_avail, ==, 0);
  g_assert_cmpuint (session->queues[1].kick_slot, ==, 25);
}

static void
test_frozen (gconstpointer data) {
  const struct frozen *frozen = data;
  g_autofree char *name = g_strdup_printf ("v%u-%s.gz", frozen->version, frozen->kind);
  const bool idle = g_str_equal (frozen->kind, "idle"), mapping = g_str_equal (frozen->kind, "mapping");
  struct image image = read_image (name);
  const struct state_scalars *scalars = image.state.scalars;
  const struct state_record *record = image.state.record;
  struct memory_device device;

  g_assert_cmpuint (image.state.header->version, ==, frozen->version);
  g_assert_cmpstr (image.state.header->program, ==, "0.1.0");
  g_assert_cmpint (device_state_recover (&image.state), ==, frozen->pending);
  if (frozen->pending && !mapping) {
    g_assert_cmpuint (record->have_push, ==, 1);
    g_assert_cmpuint (record->push_head, ==, 5);
    g_assert_cmpuint (record->push_bytes, ==, sizeof (struct domybs_response));
    g_assert_cmpuint (record->out_bytes[0] + record->out_bytes[1], ==, 0);
  } else if (mapping) {
    g_assert_cmpuint (record->have_push, ==, 0);
    g_assert_cmpuint (record->out_bytes[1], ==, 52);
    g_assert_cmpuint (record->out[1][51], ==, 0x77);
    g_assert_cmpuint (record->out_slot, ==, 5);
  }
  if (frozen->pending)
    device_state_done (&image.state);
  device_state_adopt (&image.state, "test");
  g_assert_cmpuint (image.state.header->version, ==, DOMYBS_STATE_VERSION);

  image_device_init (&device);
  g_assert_cmpstr (device_state_load_device (&image.state, &device), ==, NULL);
  g_assert_true (device.options.have_target);
  g_assert_cmpuint (device.options.target_blocks, ==, 500);
  g_assert_cmpuint (device.generation, ==, 2);
  g_assert_cmpuint (device.regions.granted, ==, frozen->granted);
  if (!idle)
    check_session (&scalars->session, mapping);
  g_assert_cmpuint (scalars->backend.window_slot, ==, idle ? STATE_NONE : mapping ? 5 : 4);
  g_assert_cmpuint (scalars->backend.map_on_its_way, ==, mapping);
  if (DOMYBS_STATE_VERSION >= 2) {
    const uint16_t type = frozen->version >= 2 && !idle ? DOMYBS_EVENT_RECLAIM : 0;

    g_assert_cmpuint (le16toh (scalars->backend.events[0].type), ==, type);
    g_assert_cmpuint (le64toh (scalars->backend.events[0].blocks), ==, type ? 16 : 0);
  }
  if (!idle && !mapping)
    check_guest (&device, frozen);
  /* and what this program makes of it is good */
  (void)image_begin (&image, &device);
  image_commit (&image);
  g_assert_cmpstr (image_check (&image), ==, NULL);
  memory_device_clear (&device);
  image_clear (&image);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (size_t i = 0; i < G_N_ELEMENTS (all); i++) {
    g_autofree char *path = g_strdup_printf ("/device-state/frozen/version %u, %s", all[i].version, all[i].kind);

    g_test_add_data_func (path, &all[i], test_frozen);
  }
  return g_test_run ();
}
