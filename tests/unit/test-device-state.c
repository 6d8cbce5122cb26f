/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device's state over the death of its worker: whatever instant that comes at, the next one finds the transaction before or
 * the one after, and never anything between. This program is built once for each version of the state.
 */
#include "core/crash-point.h"
#include "requests.h"
#include "shadow-device.h"
#include "state-image.h"
#include "testing.h"

/* ---- deaths: an image as it is at each crash point ---- */

static struct {
  const struct image *watched; /* NULL: nobody looks */
  GPtrArray *snapshots;        /* of uint8_t[] */
  GPtrArray *names;
} deaths;

void
crash_point (const char *name) {
  if (!deaths.watched)
    return;
  g_ptr_array_add (deaths.snapshots, g_memdup2 (deaths.watched->memory, deaths.watched->state.bytes));
  g_ptr_array_add (deaths.names, (gpointer)name);
}

static void
watch (const struct image *image) {
  deaths.watched = image;
  deaths.snapshots = g_ptr_array_new_with_free_func (g_free);
  deaths.names = g_ptr_array_new ();
}

static void
unwatch (GPtrArray **ret_snapshots, GPtrArray **ret_names) {
  deaths.watched = NULL;
  *ret_snapshots = deaths.snapshots;
  *ret_names = deaths.names;
}

/* All that counts of an image between two transactions. */
static void
same_content (const struct image *image, const struct image *expected) {
  const struct state_header *header = expected->state.header;

  g_assert_cmpmem (image->state.scalars, header->scalars_bytes, expected->state.scalars, header->scalars_bytes);
  g_assert_cmpmem (image->state.bits, header->bits_bytes, expected->state.bits, header->bits_bytes);
  for (unsigned i = 0; i < DOMYBS_REPLAY_DEPTH; i++) {
    const struct state_answer *a = &image->state.answers[i], *b = &expected->state.answers[i];

    g_assert_cmpuint (a->id, ==, b->id);
    g_assert_cmpuint (a->digest, ==, b->digest);
    g_assert_cmpmem (a->response, a->bytes, b->response, b->bytes);
  }
}

/* What a worker does that finds this image: afterwards it is `before` or `after`, as its own counter says. deeper: the worker
 * dies in that, too, at each point. */
static void
recover_to (const uint8_t *bytes, const struct image *before, const struct image *after, bool deeper) {
  struct image image = { .memory = g_memdup2 (bytes, before->state.bytes) };
  const struct image *expected;
  bool pending;

  device_state_attach (&image.state, image.memory);
  g_assert_cmpstr (image_check (&image), ==, NULL);
  expected = image.state.header->committed == before->state.header->committed ? before : after;
  g_assert_cmpuint (image.state.header->committed, ==, expected->state.header->committed);
  if (deeper)
    watch (&image);
  pending = device_state_recover (&image.state);
  g_assert_cmpint (pending, ==, image.state.header->done != expected->state.header->done);
  if (pending) { /* the effects can be made sure of: the record is still that of this transaction */
    g_assert_cmpuint (image.state.record->have_push, ==, after->state.record->have_push);
    g_assert_cmpmem (image.state.record->push_payload, image.state.record->push_bytes, after->state.record->push_payload,
                     after->state.record->push_bytes);
    device_state_done (&image.state);
  }
  device_state_adopt (&image.state, "the next");
  if (deeper) {
    g_autoptr (GPtrArray) snapshots = NULL, names = NULL;

    unwatch (&snapshots, &names);
    for (guint i = 0; i < snapshots->len; i++)
      recover_to (snapshots->pdata[i], before, after, false);
  }
  same_content (&image, expected);
  g_assert_cmpuint (image.state.header->done, ==, expected->state.header->done);
  g_assert_cmpstr (image_check (&image), ==, NULL);
  image_clear (&image);
}

/* A store of many bytes can end at any of them: each byte of what a transaction changes after its commit is the old or the new
 * one. */
static void
recover_torn (const struct image *before, const struct image *after, GRand *rand) {
  struct image torn = image_copy (before);
  const struct state_header *header = before->state.header;
  const uint32_t odds = 1 + (uint32_t)testing_below (rand, 4);

  memcpy (torn.state.record, after->state.record, header->record_bytes);
  torn.state.header->committed = after->state.header->committed;
  for (size_t i = header->scalars_at; i < header->bytes; i++)
    if ((i < header->record_at || i >= header->bits_at) && testing_once_in (rand, odds))
      torn.memory[i] = after->memory[i];
  recover_to (torn.memory, before, after, false);
  image_clear (&torn);
}

/* While nothing is committed the record is nobody's business. */
static void
recover_filling (const struct image *before, const struct image *after, GRand *rand) {
  struct image filling = image_copy (before);
  uint8_t *record = (uint8_t *)filling.state.record;

  for (size_t i = 0; i < sizeof *filling.state.record; i += 1 + testing_below (rand, 64))
    record[i] = (uint8_t)testing_below (rand, 256);
  recover_to (filling.memory, before, after, false);
  image_clear (&filling);
}

/* ---- a guest that does anything ---- */

struct guest {
  struct shadow_device shadow;
  struct image image;
  GRand *rand;
  struct request_bytes last;
  bool pushed; /* the last step was a request that was answered */
};

static uint64_t
below (struct guest *guest, uint64_t n) {
  return testing_below (guest->rand, n);
}

static struct request_bytes
some_release (struct guest *guest, uint64_t session, uint64_t id) {
  struct domybs_run runs[DOMYBS_RUNS_MAX];
  const uint64_t most = testing_once_in (guest->rand, 3) ? DOMYBS_RUNS_MAX : 3;
  uint64_t cursor = below (guest, IMAGE_WINDOW / 2), n = 0;
  struct block_run run;

  while (n < most && regions_next_run (&guest->shadow.device.regions, true, &cursor, &run)) {
    run.count = 1 + below (guest, run.count);
    cursor = run.start + run.count + 1;
    runs[n++] = (struct domybs_run){ run.start, run.count };
  }
  if (n == 0)
    runs[n++] = (struct domybs_run){ below (guest, IMAGE_WINDOW), 1 };
  return request_release (session, id, runs, (uint32_t)n);
}

static struct request_bytes
some_request (struct guest *guest) {
  const uint64_t session = guest->shadow.session, id = guest->shadow.last_id + 1;

  if (guest->last.n && testing_once_in (guest->rand, 12))
    return guest->last;
  if (session == 0 || testing_once_in (guest->rand, 60))
    return request_hello (1 + below (guest, 4), 1u << below (guest, 11));
  switch (below (guest, 40)) {
  case 0:
    return request_bye (session, id);
  case 1:
  case 2:
    return request_stat (session, id, (uint32_t)below (guest, 40), testing_edgy (guest->rand));
  case 3:
    return request_grant (session, id, DOMYBS_HINT_REMOTE, 0, 1, 0, 0);
  case 4:
    return request_grant (session + 1, id, 0, 0, 1, 0, 0);
  default:
    break;
  }
  if (testing_once_in (guest->rand, 2))
    return some_release (guest, session, id);
  return request_grant (session, id, 0, testing_once_in (guest->rand, 4) ? (uint32_t)below (guest, 4) : 0,
                        1 + below (guest, testing_once_in (guest->rand, 4) ? 700 : 30), 0, 0);
}

/* Something happens to the device; it is not saved yet. */
static void
step (struct guest *guest) {
  const struct shadow_host host = {
    .busy = testing_once_in (guest->rand, 20),
    .drop = testing_once_in (guest->rand, 20),
    .outcome = testing_once_in (guest->rand, 8) ? (enum device_outcome)below (guest, 4) : DEVICE_DONE,
    .blocks = testing_once_in (guest->rand, 6) ? below (guest, 60) : UINT64_MAX,
    .new_session = 1 + below (guest, 1000),
  };

  guest->pushed = false;
  switch (below (guest, 50)) {
  case 0:
    shadow_reset (&guest->shadow);
    return;
  case 1:
    (void)memory_device_set_target (&guest->shadow.device, testing_once_in (guest->rand, 2), below (guest, 1000));
    return;
  default:
    guest->last = some_request (guest);
    guest->pushed = shadow_request (&guest->shadow, guest->last.bytes, guest->last.n, DOMYBS_RESPONSE_BYTES_MAX, &host) >= 0;
    return;
  }
}

/* … and is committed. */
static void
save (struct guest *guest) {
  struct state_record *record = image_begin (&guest->image, &guest->shadow.device);
  const struct device_plan *plan = &guest->shadow.plan;

  record->scalars.session.consumed += 12;
  record->scalars.backend.stats_at_us++;
  if (DOMYBS_STATE_VERSION >= 2)
    record->scalars.backend.events[0].type = htole16 ((uint16_t)below (guest, 4));
  if (guest->pushed)
    image_push (record, (uint16_t)below (guest, 128), plan->answer, plan->answer_bytes);
  if (testing_once_in (guest->rand, 10)) {
    record->out_bytes[1] = 52;
    memset (record->out[1], (int)below (guest, 256), 52);
    record->scalars.session.channel_sent++;
  }
  image_commit (&guest->image);
}

static void
check_load (struct guest *guest) {
  struct memory_device loaded;

  image_device_init (&loaded);
  g_assert_cmpstr (device_state_load_device (&guest->image.state, &loaded), ==, NULL);
  image_same_device (&loaded, &guest->shadow.device);
  g_assert_cmpint (loaded.change.kind, ==, DEVICE_CHANGE_NONE);
  g_assert_cmpint (loaded.answered, ==, -1);
  if (testing_once_in (guest->rand, 10)) { /* life goes on with it */
    memory_device_clear (&guest->shadow.device);
    guest->shadow.device = loaded;
    /* what is not saved: the next one finds out */
    for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++) {
      g_assert_cmpint (loaded.levels[i].known, ==, loaded.session == 0);
      guest->shadow.device.levels[i] = (struct device_level){ true, guest->shadow.levels[i] };
    }
    guest->shadow.far_offer_wanted = loaded.far_offer_wanted;
    return;
  }
  memory_device_clear (&loaded);
}

static void
guest_init (struct guest *guest) {
  static const struct memory_device_options options = { .window_blocks = IMAGE_WINDOW, .max_blocks = 800 };

  memset (guest, 0, sizeof *guest);
  shadow_init (&guest->shadow, &options);
  guest->image = image_new ("test");
  guest->rand = testing_rand ();
}

static void
guest_clear (struct guest *guest) {
  shadow_clear (&guest->shadow);
  image_clear (&guest->image);
  g_rand_free (guest->rand);
}

static void
test_random_deaths (void) {
  const unsigned steps = testing_steps (600);
  g_autoptr (GHashTable) died_at = g_hash_table_new (g_str_hash, g_str_equal);
  struct guest guest;

  guest_init (&guest);
  for (unsigned i = 0; i < steps; i++) {
    struct image before = image_copy (&guest.image);
    g_autoptr (GPtrArray) snapshots = NULL, names = NULL;

    step (&guest);
    testing_trace ("step %u: change %d of %u runs", i, guest.shadow.device.change.kind, guest.shadow.device.change.n_runs);
    watch (&guest.image);
    save (&guest);
    unwatch (&snapshots, &names);
    g_assert_cmpstr (image_check (&guest.image), ==, NULL);
    g_assert_cmpmem (guest.image.state.scalars, sizeof (struct state_scalars), &guest.image.state.record->scalars,
                     sizeof (struct state_scalars));
    for (guint k = 0; k < snapshots->len; k++) {
      recover_to (snapshots->pdata[k], &before, &guest.image, snapshots->len < 40 && testing_once_in (guest.rand, 16));
      g_hash_table_add (died_at, names->pdata[k]);
    }
    recover_torn (&before, &guest.image, guest.rand);
    recover_filling (&before, &guest.image, guest.rand);
    check_load (&guest);
    image_clear (&before);
  }
  if (steps >= 100) /* all that the file has, but those of recovery */
    g_assert_cmpuint (g_hash_table_size (died_at), ==, 13);
  guest_clear (&guest);
}

/* ---- what a transaction leaves ---- */

/* A session with some blocks, saved. */
static void
some_session (struct image *image, struct memory_device *device) {
  static const struct { uint64_t start, count; } wanted[] = { { 0, 3 }, { 64, 64 }, { 200, 1 } };
  struct device_plan plan;

  image_device_init (device);
  *image = image_new ("test");
  for (int i = -1; i < (int)G_N_ELEMENTS (wanted); i++) {
    const struct request_bytes request
        = i < 0 ? request_hello (7, 64)
                : request_grant (99, (uint64_t)i + 1, 0, 0, wanted[i].count, wanted[i].start, wanted[i].count);
    struct state_record *record;

    memory_device_plan (device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
    memory_device_finish (device, &plan, DEVICE_DONE, UINT64_MAX, 99);
    record = image_begin (image, device);
    image_push (record, 0, plan.answer, plan.answer_bytes);
    image_commit (image);
  }
  g_assert_cmpuint (device->regions.granted, ==, 68);
}

static void
test_fresh (void) {
  struct image image = image_new ("0.1.0");
  struct memory_device device, loaded;

  g_assert_cmpstr (image_check (&image), ==, NULL);
  g_assert_cmpuint (image.state.header->version, ==, DOMYBS_STATE_VERSION);
  g_assert_cmpuint (image.state.header->oldest_reader, ==, 1);
  g_assert_cmpstr (image.state.header->program, ==, "0.1.0");
  g_assert_cmpuint (image.state.scalars->session.queues[15].err_slot, ==, STATE_NONE);
  g_assert_cmpuint (image.state.scalars->session.regions[7].slot, ==, STATE_NONE);
  g_assert_cmpuint (image.state.scalars->backend.window_slot, ==, STATE_NONE);
  g_assert_false (device_state_recover (&image.state));
  /* nothing was saved: the operator's target stays */
  image_device_init (&device);
  image_device_init (&loaded);
  (void)memory_device_set_target (&device, true, 33);
  (void)memory_device_set_target (&loaded, true, 33);
  g_assert_cmpstr (device_state_load_device (&image.state, &loaded), ==, NULL);
  image_same_device (&loaded, &device);
  memory_device_clear (&device);
  memory_device_clear (&loaded);
  image_clear (&image);
}

static void
test_sizes (void) {
  g_assert_cmpuint (device_state_bytes (0), ==, 0);
  g_assert_cmpuint (device_state_bytes (1000), ==, 0);
  g_assert_cmpuint (device_state_bytes (1ull << 40), ==, 0);
  g_assert_cmpuint (device_state_bytes (1ull << 34), >, 1ull << 31);
  g_assert_cmpuint (device_state_bytes (2048), ==, device_state_bytes (1024) + 128);
}

static void
test_target_over_options (void) {
  static const struct memory_device_options small
      = { .window_blocks = IMAGE_WINDOW, .max_blocks = 100, .have_target = true, .target_blocks = 5 };
  struct memory_device device, loaded;
  struct image image;
  const char *why;

  some_session (&image, &device);
  (void)memory_device_set_target (&device, true, 300);
  (void)image_begin (&image, &device);
  image_commit (&image);
  g_assert_true (memory_device_init (&loaded, &small, &why));
  g_assert_cmpstr (device_state_load_device (&image.state, &loaded), ==, NULL);
  g_assert_true (loaded.options.have_target);
  g_assert_cmpuint (loaded.options.target_blocks, ==, 100);
  g_assert_cmpuint (loaded.generation, ==, 2);
  memory_device_clear (&loaded);
  memory_device_clear (&device);
  image_clear (&image);
}

static void
test_note_is_cleared (void) {
  struct memory_device device;
  struct image image;
  const struct state_record *record;

  some_session (&image, &device);
  g_assert_cmpint (device.change.kind, ==, DEVICE_CHANGE_NONE);
  g_assert_cmpint (device.answered, ==, -1);
  record = image_begin (&image, &device); /* nothing happened since */
  g_assert_cmpuint (record->change, ==, DEVICE_CHANGE_NONE);
  g_assert_cmpuint (record->n_runs, ==, 0);
  g_assert_cmpuint (record->answer, ==, STATE_NO_ANSWER);
  memory_device_reset (&device);
  record = image_begin (&image, &device);
  g_assert_cmpuint (record->change, ==, DEVICE_CHANGE_CLEAR);
  image_commit (&image);
  for (unsigned i = 0; i < IMAGE_WINDOW / 64; i++)
    g_assert_cmpuint (image.state.bits[i], ==, 0);
  memory_device_clear (&device);
  image_clear (&image);
}

static void
test_answer_is_what_is_pushed (void) {
  struct memory_device device;
  struct image image;
  struct device_plan plan;
  const struct request_bytes request = request_grant (99, 4, 0, 0, 2, 300, 100);
  const struct state_record *record;

  some_session (&image, &device);
  memory_device_plan (&device, request.bytes, request.n, DOMYBS_RESPONSE_BYTES_MAX, &plan);
  memory_device_finish (&device, &plan, DEVICE_DONE, UINT64_MAX, 0);
  record = image_begin (&image, &device);
  g_assert_cmpuint (record->change, ==, DEVICE_CHANGE_TAKE);
  g_assert_cmpuint (record->n_runs, ==, 1);
  g_assert_cmpuint (record->answer, ==, 4);
  g_assert_cmpuint (record->answer_id, ==, 4);
  g_assert_cmpmem (record->push_payload, record->push_bytes, plan.answer, plan.answer_bytes);
  memory_device_clear (&device);
  image_clear (&image);
}

/* ---- versions ---- */

static void
test_versions (void) {
  static const struct {
    uint32_t version, oldest;
    bool v1_reads, v2_reads;
  } cases[] = {
    { 1, 1, true, true },   { 2, 1, true, true },   { 2, 2, false, true },  { 3, 1, true, true },   { 3, 2, false, true },
    { 3, 3, false, false }, { 9, 3, false, false }, { 0, 0, false, false }, { 1, 2, false, false }, { 0, 1, false, false },
  };
  struct image image = image_new ("test");

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const bool good = DOMYBS_STATE_VERSION == 1 ? cases[i].v1_reads : cases[i].v2_reads;

    g_test_message ("case %zu", i);
    image.state.header->version = cases[i].version;
    image.state.header->oldest_reader = cases[i].oldest;
    g_assert_cmpint (image_check (&image) == NULL, ==, good);
    g_assert_cmpint (device_state_check_header (image.memory, image.state.bytes, IMAGE_WINDOW) == NULL, ==, good);
    if (!good)
      continue;
    (void)device_state_recover (&image.state);
    device_state_adopt (&image.state, "other");
    g_assert_cmpuint (image.state.header->version, ==, DOMYBS_STATE_VERSION);
    g_assert_cmpuint (image.state.header->oldest_reader, ==, 1);
    g_assert_cmpstr (image.state.header->program, ==, "other");
  }
  image_clear (&image);
}

/* What version 1 leaves where version 2 has its events is nothing. */
static void
test_events_of_version_1 (void) {
  static const struct domybs_event none[4];
  struct memory_device device;
  struct image image;

  some_session (&image, &device);
  memset (image.state.scalars->backend.events, 0xee, sizeof none);
  image.state.header->version = 1;
  g_assert_cmpstr (image_check (&image), ==, NULL);
  (void)device_state_recover (&image.state);
  device_state_adopt (&image.state, "test");
  if (DOMYBS_STATE_VERSION >= 2) {
    g_assert_cmpmem (image.state.scalars->backend.events, sizeof none, none, sizeof none);
    image.state.scalars->backend.events[1].type = htole16 (DOMYBS_EVENT_CONFIG);
    (void)device_state_recover (&image.state);
    device_state_adopt (&image.state, "test");
    g_assert_cmpuint (image.state.scalars->backend.events[1].type, ==, htole16 (DOMYBS_EVENT_CONFIG));
  } else {
    g_assert_cmpuint (((const uint8_t *)image.state.scalars->backend.events)[0], ==, 0xee); /* not its business */
  }
  memory_device_clear (&device);
  image_clear (&image);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/device-state/a fresh image says that nothing was saved", test_fresh);
  g_test_add_func ("/device-state/an image is as large as its window needs", test_sizes);
  g_test_add_func ("/device-state/the saved target wins as far as the options allow", test_target_over_options);
  g_test_add_func ("/device-state/what was saved is not saved again", test_note_is_cleared);
  g_test_add_func ("/device-state/the answer remembered is the answer pushed", test_answer_is_what_is_pushed);
  g_test_add_func ("/device-state/versions read each other as their rule says", test_versions);
  g_test_add_func ("/device-state/version 1 has no events", test_events_of_version_1);
  g_test_add_func ("/device-state/a death at any store leaves one transaction or the next", test_random_deaths);
  return g_test_run ();
}
