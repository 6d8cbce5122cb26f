/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes images of the state that this build's version makes: make-state FOLDER →
 * FOLDER/vN-{idle,session,in-flight,mapping}.gz. For a new version: tests/fixtures/state/README.md. What is there already is
 * never made anew.
 */
#include <gio/gio.h>

#include "requests.h"
#include "state-image.h"

#define SESSION 0x5e55101ull

struct maker {
  struct image image;
  struct memory_device device;
  struct device_plan plan;
};

static void
save (struct maker *maker, const char *folder, const char *name) {
  g_autofree char *path = g_strdup_printf ("%s/v%u-%s.gz", folder, DOMYBS_STATE_VERSION, name);
  g_autoptr (GConverter) gzip = G_CONVERTER (g_zlib_compressor_new (G_ZLIB_COMPRESSOR_FORMAT_GZIP, 9));
  g_autoptr (GFile) file = g_file_new_for_path (path);
  g_autoptr (GError) error = NULL;
  g_autoptr (GFileOutputStream) plain = g_file_create (file, G_FILE_CREATE_NONE, NULL, &error);
  g_autoptr (GOutputStream) stream = NULL;

  if (!plain)
    g_error ("%s", error->message);
  stream = g_converter_output_stream_new (G_OUTPUT_STREAM (plain), gzip);
  if (!g_output_stream_write_all (stream, maker->image.memory, maker->image.state.bytes, NULL, NULL, &error)
      || !g_output_stream_close (stream, NULL, &error))
    g_error ("%s: %s", path, error->message);
}

static void
do_request (struct maker *maker, struct request_bytes request) {
  memory_device_plan (&maker->device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &maker->plan);
  memory_device_finish (&maker->device, &maker->plan, DEVICE_DONE, UINT64_MAX, SESSION);
}

static struct state_record *
begin (struct maker *maker, bool answers) {
  struct state_record *record = image_begin (&maker->image, &maker->device);

  if (answers)
    image_push (record, 5, maker->plan.answer, maker->plan.answer_bytes);
  return record;
}

/* A VM with two pieces of RAM and the window, whose driver has both queues running. */
static void
connect_vm (struct state_session *session) {
  session->connection = 3;
  session->closed = 2;
  session->consumed = 1500;
  session->sent = 14;
  session->channel_epoch = 3;
  session->channel_slot = 17;
  session->channel_sent = 1;
  session->channel_consumed = 20;
  session->features = 1ull << 30 | 1ull << 32;
  session->protocol_features = 1ull << VHU_PROTOCOL_F_SHMEM | 1ull << VHU_PROTOCOL_F_REPLY_ACK;
  session->have_features = session->have_protocol_features = 1;
  session->n_regions = 3;
  session->regions[0] = (struct state_region){ 0, 1ull << 31, 0x7f0000000000, 0, 20, { 0 } };
  session->regions[1] = (struct state_region){ 1ull << 32, 1ull << 31, 0x7f0080000000, 1ull << 31, 21, { 0 } };
  session->regions[2] = (struct state_region){ 1ull << 40, (1ull << 31) - 4096, 0x7f2000000000, 0, 22, { 0 } };
  for (unsigned i = 0; i < 2; i++)
    session->queues[i] = (struct state_queue){ .started = 1,
                                               .enabled = 1,
                                               .have_addr = 1,
                                               .num = 128,
                                               .desc = 0x7f0000100000 + i * 0x10000ull,
                                               .avail = 0x7f0000101000 + i * 0x10000ull,
                                               .used = 0x7f0000102000 + i * 0x10000ull,
                                               .next_avail = (uint16_t)(7 + i),
                                               .next_used = (uint16_t)(7 + i),
                                               .kick_slot = (uint8_t)(24 + i),
                                               .call_slot = (uint8_t)(26 + i),
                                               .err_slot = STATE_NONE };
}

int
main (int argc, char **argv) {
  struct maker *maker = g_new0 (struct maker, 1);
  const struct domybs_run released[] = { { 10, 2 }, { 15, 1 } };
  struct state_record *record;
  struct memory_device *device = &maker->device;

  if (argc != 2) {
    g_printerr ("Usage: %s FOLDER\n", argv[0]);
    return 1;
  }
  image_device_init (device);
  maker->image = image_new ("0.1.0");
  (void)memory_device_set_target (device, true, 500);
  (void)begin (maker, false);
  image_commit (&maker->image);
  save (maker, argv[1], "idle");

  do_request (maker, request_hello (0xabc, 64));
  record = begin (maker, true);
  connect_vm (&record->scalars.session);
  record->scalars.backend.window_slot = 4;
  record->scalars.backend.connections = 3;
  image_commit (&maker->image);
  for (uint64_t id = 1; id <= 18; id++) {
    do_request (maker, id == 2    ? request_release (SESSION, id, released, 2)
                       : id == 17 ? request_stat (SESSION, id, DOMYBS_STAT_MEM_FREE, 123456789)
                                  : request_grant (SESSION, id, 0, 0, 20, (id - 1) * 30, 30));
    record = begin (maker, true);
    if (DOMYBS_STATE_VERSION >= 2)
      record->scalars.backend.events[0] = (struct domybs_event){ .type = htole16 (DOMYBS_EVENT_RECLAIM),
                                                                 .deadline_ms = htole32 (5000),
                                                                 .blocks = htole64 (16) };
    image_commit (&maker->image);
  }
  save (maker, argv[1], "session");

  /* dies between step 2 and step 3 */
  do_request (maker, request_release_one (SESSION, 19, 0, 5));
  (void)begin (maker, true);
  maker->image.state.header->committed++;
  save (maker, argv[1], "in-flight");
  maker->image.state.header->committed--;
  image_commit (&maker->image);

  /* the guest was reset, its next driver's HELLO waits for the window: dies with the message to QEMU not sent yet */
  memory_device_reset (device);
  record = begin (maker, false);
  record->scalars.session.map_open = 1;
  record->scalars.session.channel_sent = 2;
  record->scalars.backend.map_on_its_way = 1;
  record->scalars.backend.window_slot = 5;
  record->out_bytes[1] = 52;
  record->out_slot = 5;
  memset (record->out[1], 0x77, 52);
  maker->image.state.header->committed++;
  save (maker, argv[1], "mapping");
  memory_device_clear (device);
  image_clear (&maker->image);
  g_free (maker);
  return 0;
}
