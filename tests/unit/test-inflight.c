/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests in flight over the death of their process: whatever instant that comes at, also while recovering from the last
 * one, each request is answered once, and those that are carried out again are so in their order.
 */
#include "core/inflight.h"
#include "core/crash-point.h"

#include "ring.h"
#include "testing.h"

#define NUM 8u /* small: heads and indices wrap around all the time */

/* ---- a driver, and the process that dies ---- */

struct world {
  struct ring ring;
  uint8_t *region; /* as long as it says it is, and not a byte more */
  struct inflight inflight;
  /* what the driver knows */
  bool offered[NUM];
  uint16_t order[NUM]; /* heads offered and not answered, in the order of their offers */
  unsigned n_order;
  uint16_t seen_used;
};

static void
world_init (struct world *world, uint16_t start) {
  memset (world, 0, sizeof *world);
  ring_init (&world->ring, NUM, start);
  world->seen_used = start;
  for (unsigned i = 0; i < NUM; i++)
    ring_desc (&world->ring, i, i * 64, 16, WRITE, 0);
  world->region = g_malloc0 (inflight_region_bytes (NUM));
}

static void
world_clear (struct world *world) {
  ring_clear (&world->ring);
  g_free (world->region);
}

static struct inflight_region *
region_of (struct world *world) {
  return (struct inflight_region *)world->region;
}

static void
offer (struct world *world, uint16_t head) {
  g_assert_false (world->offered[head]);
  world->offered[head] = true;
  world->order[world->n_order++] = head;
  ring_offer (&world->ring, head);
}

/* What the driver finds in the used ring: each answer is to a request that had none. */
static unsigned
collect (struct world *world) {
  const uint16_t used = ring_get16 (&world->ring, RING_USED + 2);
  unsigned n = 0;

  for (; world->seen_used != used; world->seen_used++, n++) {
    const uint32_t head = ring_get32 (&world->ring, RING_USED + 4 + 8 * (world->seen_used % NUM));
    unsigned i = 0;

    g_assert_cmpuint (head, <, NUM);
    g_assert_true (world->offered[head]); /* or it was answered twice */
    world->offered[head] = false;
    while (world->order[i] != head)
      i++;
    memmove (&world->order[i], &world->order[i + 1], (world->n_order - i - 1) * sizeof world->order[0]);
    world->n_order--;
    g_assert_cmpuint (n, <, NUM);
  }
  return n;
}

/* The next process: it knows nothing but the ring and the region. The front-end tells it a position that is wrong, when it
 * should not be believed any more. */
static bool
begin (struct world *world, const char **ret_why) {
  struct virtqueue *vq = &world->ring.vq;

  memset (&world->inflight, 0x5a, sizeof world->inflight);
  if (region_of (world)->version)
    vq->next_avail = (uint16_t)(vq->next_avail + 3);
  g_assert_true (virtqueue_resolve (vq, &world->ring.memory, ret_why));
  return inflight_start (&world->inflight, region_of (world), vq, ret_why);
}

static void
begin_well (struct world *world) {
  const char *why = NULL;

  if (!begin (world, &why))
    g_error ("%s", why);
}

/* Takes the next chain as a session does. -1: there is none. */
static int
take (struct world *world) {
  int head = inflight_next_again (&world->inflight);

  if (head >= 0) {
    inflight_took_again (&world->inflight);
    return head;
  }
  if (ring_pop (&world->ring) != VIRTQUEUE_POP_CHAIN)
    return -1;
  g_assert_true (inflight_take (&world->inflight, world->ring.chain.head));
  return world->ring.chain.head;
}

static void
answer (struct world *world, uint16_t head) {
  inflight_push (&world->inflight, &world->ring.vq, head, 16);
}

/* ---- deaths: the memory that outlives a process, at each crash point ---- */

struct death {
  const char *name;
  uint8_t ring[RING_BYTES];
  uint8_t region[16 + 16 * NUM];
};

static struct {
  const struct world *watched; /* NULL: nobody looks */
  GPtrArray *deaths;           /* of struct death */
} watcher;

void
crash_point (const char *name) {
  struct death *death;

  if (!watcher.watched)
    return;
  death = g_new (struct death, 1);
  death->name = name;
  memcpy (death->ring, watcher.watched->ring.bytes, RING_BYTES);
  memcpy (death->region, watcher.watched->region, sizeof death->region);
  g_ptr_array_add (watcher.deaths, death);
}

static void
watch (const struct world *world) {
  watcher.watched = world;
  watcher.deaths = g_ptr_array_new_with_free_func (g_free);
}

static GPtrArray *
unwatch (void) {
  watcher.watched = NULL;
  return g_steal_pointer (&watcher.deaths);
}

/* A world of its own, as it was at a death: the driver is alive, and knows what it knew when the step began. */
static void
world_at (struct world *world, const struct world *before, const struct death *death) {
  *world = *before;
  world->ring.bytes = g_memdup2 (death->ring, RING_BYTES);
  world->ring.memory.regions[0].host = world->ring.bytes;
  world->region = g_memdup2 (death->region, sizeof death->region);
}

/* Everything that the driver has offered is taken, in the order of its offers, and answered, by who comes after a death. */
static void
goes_on (struct world *world) {
  uint16_t expected[NUM];
  unsigned n;

  collect (world);
  n = world->n_order;
  memcpy (expected, world->order, sizeof expected);
  for (unsigned i = 0; i < n; i++)
    g_assert_cmpint (take (world), ==, expected[i]);
  g_assert_cmpint (take (world), ==, -1);
  g_assert_cmpuint (world->inflight.n, ==, n);
  for (unsigned i = n; i-- > 0;) /* not in that order, as disks do */
    answer (world, expected[i]);
  g_assert_cmpuint (collect (world), ==, n);
  g_assert_cmpuint (world->n_order, ==, 0);
  g_assert_cmpuint (world->inflight.n, ==, 0);
}

/* Recovers from a death; deeper: dies in that, at each point, too. */
static void
recovers (const struct world *before, const struct death *death, bool deeper) {
  struct world world;

  testing_trace ("death at %s", death->name);
  world_at (&world, before, death);
  if (deeper) {
    g_autoptr (GPtrArray) deaths = NULL;

    watch (&world);
    begin_well (&world);
    deaths = unwatch ();
    for (guint i = 0; i < deaths->len; i++)
      recovers (before, deaths->pdata[i], false);
  } else {
    begin_well (&world);
  }
  goes_on (&world);
  /* and the next one finds it settled */
  begin_well (&world);
  g_assert_cmpuint (world.inflight.n, ==, 0);
  offer (&world, 3);
  offer (&world, 1);
  goes_on (&world);
  world_clear (&world);
}

static void
test_every_death (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (GHashTable) points = g_hash_table_new (g_str_hash, g_str_equal);
  const unsigned steps = testing_steps (3000);
  uint16_t taken[NUM];
  unsigned n_taken = 0;
  struct world world;

  world_init (&world, 0xfff0);
  begin_well (&world);
  for (unsigned step = 0; step < steps; step++) {
    struct world before = world;
    g_autoptr (GPtrArray) deaths = NULL;
    const unsigned what = (unsigned)testing_below (rand, 3);

    if (what == 0) {
      const uint16_t head = (uint16_t)testing_below (rand, NUM);

      if (!world.offered[head])
        offer (&world, head);
      continue;
    }
    watch (&world);
    if (what == 1) {
      const int head = take (&world);

      testing_trace ("take: %d", head);
      if (head >= 0)
        taken[n_taken++] = (uint16_t)head;
    } else if (n_taken) {
      const unsigned i = (unsigned)testing_below (rand, n_taken);

      testing_trace ("answer %u", taken[i]);
      answer (&world, taken[i]);
      taken[i] = taken[--n_taken];
    }
    deaths = unwatch ();
    for (guint i = 0; i < deaths->len; i++) {
      const struct death *death = deaths->pdata[i];

      g_hash_table_add (points, (gpointer)death->name);
      recovers (&before, death, true);
    }
    collect (&world);
    if (testing_once_in (rand, 50)) { /* this one dies for good, between two steps */
      begin_well (&world);
      n_taken = 0;
    }
  }
  g_assert_cmpuint (g_hash_table_size (points), ==, 8); /* all that are in a take and in an answer */
  world_clear (&world);
}

/* ---- recovery ---- */

static void
test_new_region (void) {
  struct world world;

  world_init (&world, 100); /* a ring that has run before, without a region */
  begin_well (&world);
  g_assert_cmpuint (world.ring.vq.next_avail, ==, 100); /* the front-end's word */
  g_assert_cmpuint (region_of (&world)->version, ==, 1);
  g_assert_cmpuint (region_of (&world)->desc_num, ==, NUM);
  g_assert_cmpuint (region_of (&world)->used_idx, ==, 100);
  offer (&world, 5);
  g_assert_cmpint (take (&world), ==, 5);
  begin_well (&world);
  g_assert_cmpuint (world.ring.vq.next_avail, ==, 101);
  g_assert_cmpint (inflight_next_again (&world.inflight), ==, 5);
  world_clear (&world);
}

static void
test_order_of_counters (void) {
  static const uint16_t heads[] = { 6, 0, 3, 7, 1 };
  struct world world;

  world_init (&world, 0);
  begin_well (&world);
  for (unsigned i = 0; i < G_N_ELEMENTS (heads); i++) {
    offer (&world, heads[i]);
    g_assert_cmpint (take (&world), ==, heads[i]);
  }
  answer (&world, 3);
  collect (&world);
  for (unsigned deaths = 0; deaths < 3; deaths++) { /* however often */
    begin_well (&world);
    g_assert_cmpuint (world.inflight.n_again, ==, 4);
    g_assert_cmpint (take (&world), ==, 6);
    g_assert_cmpint (take (&world), ==, 0);
  }
  offer (&world, 3); /* later than those that are done again, also after the next death */
  g_assert_cmpint (take (&world), ==, 7);
  g_assert_cmpint (take (&world), ==, 1);
  g_assert_cmpint (take (&world), ==, 3);
  begin_well (&world);
  goes_on (&world);
  world_clear (&world);
}

/* Another back-end may answer several at once: a list of them, and one step of the index. */
static void
test_batch (void) {
  struct world world;
  struct inflight_region *region;

  world_init (&world, 7);
  region = region_of (&world);
  begin_well (&world);
  for (uint16_t head = 0; head < 5; head++)
    offer (&world, head);
  for (unsigned i = 0; i < 5; i++)
    take (&world);
  region->desc[1].next = region->last_batch_head;
  region->desc[4].next = 1;
  region->desc[2].next = 4;
  region->last_batch_head = 2;
  virtqueue_push (&world.ring.vq, 1, 0);
  virtqueue_push (&world.ring.vq, 4, 0);
  virtqueue_push (&world.ring.vq, 2, 0);
  region->desc[4].inflight = 0; /* and here it died */
  begin_well (&world);
  g_assert_cmpuint (region->used_idx, ==, 10);
  goes_on (&world);
  world_clear (&world);
}

static void
test_without_region (void) {
  const char *why = NULL;
  struct world world;

  world_init (&world, 0);
  g_assert_true (inflight_start (&world.inflight, NULL, &world.ring.vq, &why));
  offer (&world, 2);
  offer (&world, 1);
  goes_on (&world);
  for (size_t i = 0; i < inflight_region_bytes (NUM); i++)
    g_assert_cmpuint (world.region[i], ==, 0);
  world_clear (&world);
}

/* ---- a driver, or a front-end, that means no good ---- */

static void
test_same_head_twice (void) {
  struct world world;

  world_init (&world, 0);
  begin_well (&world);
  offer (&world, 2);
  g_assert_cmpint (take (&world), ==, 2);
  ring_offer (&world.ring, 2);
  g_assert_cmpint (ring_pop (&world.ring), ==, VIRTQUEUE_POP_CHAIN);
  g_assert_false (inflight_take (&world.inflight, 2));
  g_assert_cmpuint (world.inflight.n, ==, 1);
  answer (&world, 2);
  answer (&world, 2); /* nobody's any more */
  g_assert_cmpuint (world.inflight.n, ==, 0);
  g_assert_cmpuint (ring_get16 (&world.ring, RING_USED + 2), ==, 1);
  g_assert_false (inflight_take (&world.inflight, NUM));
  answer (&world, NUM);
  answer (&world, 0xffff);
  g_assert_cmpuint (ring_get16 (&world.ring, RING_USED + 2), ==, 1);
  world_clear (&world);
}

/* What a broken queue can't tell its driver is told when the queue is set up anew. */
static void
test_broken_queue (void) {
  struct world world;

  world_init (&world, 0);
  begin_well (&world);
  offer (&world, 4);
  g_assert_cmpint (take (&world), ==, 4);
  world.ring.vq.state = VIRTQUEUE_BROKEN;
  answer (&world, 4);
  g_assert_cmpuint (world.inflight.n, ==, 0);
  g_assert_cmpuint (collect (&world), ==, 0);
  begin_well (&world);
  goes_on (&world);
  world_clear (&world);
}

static void
test_nonsense_reasons (void) {
  struct world world;
  struct inflight_region *region;
  const char *why = NULL;

  world_init (&world, 3);
  region = region_of (&world);
  region->version = 2;
  g_assert_false (begin (&world, &why));
  g_assert_cmpstr (why, ==, "the inflight region is of another version");
  region->version = 1;
  region->features = 1ull << 63;
  g_assert_false (begin (&world, &why));
  g_assert_cmpstr (why, ==, "the inflight region has features that we do not know");
  region->features = 0;
  region->used_idx = 2;
  region->last_batch_head = NUM;
  g_assert_false (begin (&world, &why));
  g_assert_cmpstr (why, ==, "the inflight region names a descriptor that is none");
  region->last_batch_head = 0;
  region->used_idx = (uint16_t)(3 - NUM - 1);
  g_assert_false (begin (&world, &why));
  g_assert_cmpstr (why, ==, "the used index is not ours");
  region->used_idx = (uint16_t)(3 - NUM); /* a list that goes round: it ends all the same */
  g_assert_true (begin (&world, &why));
  world_clear (&world);
}

static void
test_random_nonsense (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const unsigned steps = testing_steps (20000);
  unsigned good = 0;
  struct world world;

  world_init (&world, 0);
  for (unsigned step = 0; step < steps; step++) {
    struct inflight_region *region = region_of (&world);
    const char *why = NULL;
    uint32_t seen = 0;
    int head;

    for (size_t i = 0; i < inflight_region_bytes (NUM); i++)
      world.region[i] = (uint8_t)(testing_once_in (rand, 2) ? testing_below (rand, NUM) : testing_below (rand, 256));
    if (testing_once_in (rand, 2)) {
      region->features = 0;
      region->version = 1;
    }
    if (testing_once_in (rand, 2))
      region->used_idx = (uint16_t)(ring_get16 (&world.ring, RING_USED + 2) - testing_below (rand, 4));
    if (!begin (&world, &why)) {
      g_assert_nonnull (why);
      continue;
    }
    good++;
    g_assert_cmpuint (world.inflight.n, <=, NUM);
    while ((head = inflight_next_again (&world.inflight)) >= 0) {
      g_assert_cmpint (head, <, NUM);
      g_assert_false (seen & (1u << head));
      seen |= 1u << head;
      inflight_took_again (&world.inflight);
    }
    for (unsigned i = 0; i < 4; i++)
      answer (&world, (uint16_t)testing_below (rand, NUM + 2));
  }
  g_assert_cmpuint (good, >, steps / 20);
  world_clear (&world);
}

static void
test_sizes (void) {
  g_assert_cmpuint (inflight_region_bytes (0), ==, 0);
  g_assert_cmpuint (inflight_region_bytes (1), ==, 64);
  g_assert_cmpuint (inflight_region_bytes (3), ==, 64);
  g_assert_cmpuint (inflight_region_bytes (4), ==, 128);
  g_assert_cmpuint (inflight_region_bytes (128), ==, 2112);
  g_assert_cmpuint (inflight_region_bytes (1024), ==, 16448);
  g_assert_cmpuint (inflight_region_bytes (1025), ==, 0);
  g_assert_cmpuint (inflight_region_bytes (UINT32_MAX), ==, 0);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/inflight/whenever a process dies no request is lost and none answered twice", test_every_death);
  g_test_add_func ("/inflight/recovery/a new region believes the front-end", test_new_region);
  g_test_add_func ("/inflight/recovery/what is done again is so in its order, however often", test_order_of_counters);
  g_test_add_func ("/inflight/recovery/a batch that was answered is settled", test_batch);
  g_test_add_func ("/inflight/without a region nothing is written", test_without_region);
  g_test_add_func ("/inflight/hostile/the same head twice is refused", test_same_head_twice);
  g_test_add_func ("/inflight/hostile/a broken queue keeps what it could not answer", test_broken_queue);
  g_test_add_func ("/inflight/hostile/nonsense in a region is refused", test_nonsense_reasons);
  g_test_add_func ("/inflight/hostile/any bytes in a region do no harm", test_random_nonsense);
  g_test_add_func ("/inflight/sizes are whole cache lines", test_sizes);
  return g_test_run ();
}
