/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that changes between the device's check and its use: threads rewrite descriptors, request bytes, ring indexes and indirect
 * tables while requests run. Whatever the device saw, it saw once: it answers something consistent or breaks the queue, and its books
 * agree with its answers.
 *
 * The threads use a generator of their own, seeded from g_test's seed, which the test program prints first (--seed repeats it).
 */
#include "rig.h"

#include <endian.h>
#include <string.h>

#define PAGE 4096u
#define ROUND_MS 150
#define ROUNDS 8
#define BURST 32
/* Fewer walks are no race: on a slow or busy machine a round takes longer then. */
#define ROUND_WALKS_MIN (4 * BURST)

struct flipper {
  struct fe *fe;
  guint32 seed;
  volatile int stop;
};

typedef void (*flip_function) (struct fe *fe, GRand *random);

struct race {
  const char *name;
  flip_function flip;
  bool indirect;
};

/* Good for most of the time and bad for a moment: the device mostly gets past its check, and is then to be caught after it. */
static void
pause_turns (GRand *random, int most) {
  const int turns = g_rand_int_range (random, 0, most);

  for (volatile int i = 0; i < turns; i++)
    ;
}

static void
pause_bad (GRand *random) {
  pause_turns (random, 100);
}

static void
pause_good (GRand *random) {
  pause_turns (random, 1500);
}

/* A descriptor's address and length go from good to bad and back. */
static void
flip_descriptor (struct fe *fe, GRand *random) {
  static const uint64_t addresses[] = { 0, UINT64_MAX, FE_RAM_GPA + FE_RAM_BYTES - 8, FE_WINDOW_GPA, FE_RAM_GPA };
  static const uint32_t lengths[] = { 0, 1, UINT32_MAX, PAGE, 56 };
  volatile struct fe_desc *desc = &fe->queues[0].desc[g_rand_int_range (random, 0, 2)];
  const uint64_t address = desc->addr;
  const uint32_t length = desc->len;
  const uint16_t flags = desc->flags, next = desc->next;

  switch (g_rand_int_range (random, 0, 4)) {
  case 0:
    desc->addr = addresses[g_rand_int_range (random, 0, G_N_ELEMENTS (addresses))];
    break;
  case 1:
    desc->len = lengths[g_rand_int_range (random, 0, G_N_ELEMENTS (lengths))];
    break;
  case 2:
    desc->flags = (uint16_t)g_rand_int_range (random, 0, 8);
    break;
  default:
    desc->next = (uint16_t)g_rand_int_range (random, 0, 65536);
    break;
  }
  pause_bad (random);
  desc->addr = address;
  desc->len = length;
  desc->flags = flags;
  desc->next = next;
}

/* The request says one thing when its length is looked at and another when its runs are read. */
static void
flip_request (struct fe *fe, GRand *random) {
  volatile uint8_t *request = fe_at (fe, fe_request_gpa (0));
  const unsigned at = (unsigned)g_rand_int_range (random, 0, 56);
  const uint8_t was = request[at];

  request[at] = (uint8_t)g_rand_int (random);
  pause_bad (random);
  request[at] = was;
}

static void
flip_index (struct fe *fe, GRand *random) {
  volatile uint16_t *avail = fe->queues[0].avail;
  const uint16_t was = avail[1];

  avail[1] = (uint16_t)(was + g_rand_int_range (random, -70, 70));
  pause_bad (random);
  avail[1] = was;
  avail[2 + g_rand_int_range (random, 0, FE_QUEUE_SIZE)] = (uint16_t)g_rand_int_range (random, 0, 2 * FE_QUEUE_SIZE);
}

static void
flip_used (struct fe *fe, GRand *random) {
  volatile uint16_t *used = fe->queues[0].used;

  used[g_rand_int_range (random, 0, 2 + FE_QUEUE_SIZE * 4 + 1)] = (uint16_t)g_rand_int (random);
}

static void
flip_indirect (struct fe *fe, GRand *random) {
  volatile uint8_t *table = fe_at (fe, fe_scratch_gpa (0));
  const unsigned at = (unsigned)g_rand_int_range (random, 0, 32);
  const uint8_t was = table[at];

  table[at] = (uint8_t)g_rand_int (random);
  pause_bad (random);
  table[at] = was;
}

static const struct race races[] = {
  { "descriptor-rewritten-after-its-check", flip_descriptor, false },
  { "request-rewritten-after-its-check", flip_request, false },
  { "indirect-table-rewritten-after-its-check", flip_indirect, true },
  { "ring-index-rewritten-while-requests-run", flip_index, false },
  { "used-ring-rewritten-while-requests-run", flip_used, false },
};

struct flip_thread {
  struct flipper flipper;
  const struct race *race;
};

static gpointer
flip_all_the_time (gpointer data) {
  struct flip_thread *thread = data;
  GRand *random = g_rand_new_with_seed (thread->flipper.seed);

  while (!thread->flipper.stop)
    for (int i = 0; i < 100; i++) {
      thread->race->flip (thread->flipper.fe, random);
      pause_good (random);
    }
  g_rand_free (random);
  return NULL;
}

/* A broken queue is set up anew, and the race goes on. */
static void
restart_queue (struct fe *fe) {
  struct fe_queue *queue = &fe->queues[0];

  fe_must (fe, fe_stop_queue (fe, 0));
  memset ((void *)queue->avail, 0, 4 + 2 * FE_QUEUE_SIZE + 2);
  memset ((void *)queue->used, 0, 4 + 8 * FE_QUEUE_SIZE + 2);
  queue->next_avail = queue->next_used = 0;
  fe_must (fe, fe_start_queue (fe, 0));
}

/* Waits until the device has used `n` more chains; false when it stops doing so: the queue is broken, or its index was overwritten. */
static bool
wait_used_by (struct fe_queue *queue, uint16_t before, unsigned n) {
  uint16_t last = before;

  for (int idle = 0; idle < 20; idle++) {
    const uint16_t now = queue->used[1];

    if ((uint16_t)(now - before) == n)
      return true;
    if (now != last)
      idle = 0;
    last = now;
    g_usleep (10);
  }
  return false;
}

/* Offers a request and its release in turn, each of them once, and then the same chain again and again (which repeats the answer): many
 * walks over the descriptors for each that is acted on. What comes back is not looked at closely: with a ring that lies there is
 * nothing to be sure of. */
static void
offer_requests (struct fe *fe, const struct race *race, unsigned *walks, unsigned *breaks) {
  struct fe_queue *queue = &fe->queues[0];
  const int64_t end = fe_now_ms () + ROUND_MS;
  const unsigned enough = *walks + ROUND_WALKS_MIN;

  for (uint64_t id = 1; fe_now_ms () < end || (*walks < enough && fe_now_ms () < end + 4 * fe_patience_ms ());) {
    const struct domybs_run run = { 0, 2 };
    uint8_t *request = fe_at (fe, fe_request_gpa (0));
    const size_t n = id % 2 ? fe_encode_grant (fe, request, id, 2, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, 0, 2)
                            : fe_encode_release (fe, request, id, &run, 1);
    const struct fe_piece pieces[] = { { fe_request_gpa (0), (uint32_t)n, false }, { fe_response_gpa (0), PAGE, true } };
    const uint16_t before = queue->used[1];
    uint32_t status;

    if (race->indirect)
      fe_write_indirect (fe, queue, 0, pieces, 2, fe_scratch_gpa (0));
    else
      fe_write_chain (queue, 0, pieces, 2);
    for (int i = 0; i < BURST; i++)
      fe_publish (queue, 0);
    fe_kick (queue);
    *walks += BURST;
    if (!wait_used_by (queue, before, BURST)) {
      restart_queue (fe);
      ++*breaks;
      continue;
    }
    status = le16toh (((struct domybs_response *)fe_at (fe, fe_response_gpa (0)))->status);
    if (status != DOMYBS_BAD_REQUEST && status != DOMYBS_BAD_SESSION && status != DOMYBS_STALE)
      id++; /* not refused: the id is used up */
  }
}

static void
race_it (struct rig *rig, const void *data) {
  const struct race *race = data;
  unsigned walks = 0, breaks = 0;

  for (int round = 0; round < ROUNDS; round++) {
    g_autoptr (fe_t) fe = rig_open (rig);
    struct flip_thread thread = { { fe, (guint32)g_test_rand_int (), 0 }, race };
    GThread *flipper = g_thread_new ("flip", flip_all_the_time, &thread);
    int64_t granted;

    offer_requests (fe, race, &walks, &breaks);
    thread.flipper.stop = 1;
    g_thread_join (flipper);
    granted = backend_status (rig->backend, "granted-blocks");
    g_assert_cmpint (granted, >=, 0);
    g_assert_cmpint (granted, <=, RIG_WINDOW_BLOCKS - RIG_SECTION_BLOCKS);
    g_assert_cmpint (backend_status (rig->backend, "blocks-granted-total") - backend_status (rig->backend, "blocks-released-total"),
                     >=, granted);
  }
  g_test_message ("%u chains, %u times the queue broke", walks, breaks);
  g_assert_cmpuint (walks, >=, ROUNDS * ROUND_WALKS_MIN);
}

/* The memory table is replaced, also by one without the window, while requests run. */
static gpointer
kick_all_the_time (gpointer data) {
  struct flipper *flipper = data;

  while (!flipper->stop) {
    fe_kick (&flipper->fe->queues[0]);
    fe_kick (&flipper->fe->queues[1]);
    g_usleep (20);
  }
  return NULL;
}

static void
memory_table_replaced_while_requests_run (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct flipper flipper = { fe, 0, 0 };
  GThread *thread = g_thread_new ("kick", kick_all_the_time, &flipper);
  const struct fe_region ram = fe_ram_region (fe);
  struct fe_answer answer;

  for (int i = 0; i < 200; i++) {
    uint8_t request[PAGE];
    uint64_t ack;

    fe_submit (fe, 0, request, fe_encode_grant (fe, request, 0, 1, DOMYBS_HINT_ANY, 0, 0, 0), PAGE);
    if (i % 10 == 9) {
      fe_must (fe, fe_send_regions (fe, &ram, 1, &fe->ram_fd, 1, &ack));
      fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
      fe_must (fe, fe_hello (fe, 64, &answer));
      g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    } else {
      fe_must (fe, fe_send_mem_table (fe));
      fe_must (fe, fe_complete (fe, 0, &answer, fe_patience_ms ()));
    }
  }
  flipper.stop = 1;
  g_thread_join (thread);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  for (size_t i = 0; i < G_N_ELEMENTS (races); i++) {
    g_autofree char *path = g_strdup_printf ("/races/%s", races[i].name);

    rig_add (path, race_it, &races[i]);
  }
  rig_add ("/races/memory-table-replaced-while-requests-run", memory_table_replaced_while_requests_run, NULL);
  return rig_run ();
}
