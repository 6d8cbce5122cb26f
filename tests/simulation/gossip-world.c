/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "gossip-world.h"

#include <string.h>

#define FALSE_DEATH_MS 20000u /* a live, reachable, healthy host may be taken for dead so long */
#define SETTLE_MS 30000u      /* after a fault */
#define SENDS_MAX 10u         /* packets that one packet may cause */

enum event_kind { EVENT_ARRIVE, EVENT_STEP, EVENT_RESUME, EVENT_PUBLISH, EVENT_FAULT, EVENT_LIE, EVENT_START, EVENT_JOIN };

struct parcel {
  uint32_t from, to;
  size_t n;
  uint8_t bytes[];
};

struct gossip_event {
  uint64_t at, order;
  enum event_kind kind;
  uint32_t host;
  uint64_t life;
  struct parcel *parcel;
};

/* ---- numbers ---- */

static uint64_t
mix (uint64_t z) {
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

uint64_t
gossip_world_below (struct gossip_world *world, uint64_t n) {
  return mix (world->random += 0x9e3779b97f4a7c15ull) % n;
}

gboolean
gossip_world_odds (struct gossip_world *world, unsigned permille) {
  return gossip_world_below (world, 1000) < permille;
}

static uint64_t
hash (uint64_t key, const uint8_t *bytes, size_t n) {
  uint64_t value = key;

  for (size_t i = 0; i < n; i += 8) {
    uint64_t word = 0;

    memcpy (&word, bytes + i, MIN (8, n - i));
    value = mix ((value ^ word) + 0x9e3779b97f4a7c15ull);
  }
  return value;
}

/* ---- the heap ---- */

static gboolean
before (const struct gossip_event *a, const struct gossip_event *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void
push (struct gossip_world *world, uint64_t at, enum event_kind kind, uint32_t host, uint64_t life, struct parcel *parcel) {
  struct gossip_event event = { at, ++world->orders, kind, host, life, parcel }, *heap;
  guint i = world->heap->len;

  g_array_append_val (world->heap, event);
  heap = (struct gossip_event *)(gpointer)world->heap->data;
  for (; i && before (&event, &heap[(i - 1) / 2]); i = (i - 1) / 2)
    heap[i] = heap[(i - 1) / 2];
  heap[i] = event;
}

static struct gossip_event
pop (struct gossip_world *world) {
  struct gossip_event *heap = (struct gossip_event *)(gpointer)world->heap->data;
  const struct gossip_event first = heap[0], last = heap[world->heap->len - 1];
  const guint n = world->heap->len - 1;
  guint i = 0, child;

  for (; (child = 2 * i + 1) < n; i = child) {
    if (child + 1 < n && before (&heap[child + 1], &heap[child]))
      child++;
    if (!before (&heap[child], &last))
      break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  g_array_set_size (world->heap, n);
  return first;
}

/* ---- keys ---- */

/* UINT32_MAX: nobody's. */
static uint32_t
number_of (const struct gossip_world *world, const uint8_t *id) {
  const uint32_t number = (uint32_t)id[30] << 8 | id[31];

  return number < world->plan.hosts && memcmp (world->hosts[number].id, id, GOSSIP_ID_BYTES) == 0 ? number : UINT32_MAX;
}

static uint64_t
secret (const struct gossip_world *world, uint32_t number) {
  return mix (world->plan.seed ^ (number + 1) * 0x1234567ull);
}

static void
make_signature (const struct gossip_world *world, uint32_t number, const uint8_t *bytes, size_t n, uint8_t *signature) {
  const uint64_t value = hash (secret (world, number), bytes, n);

  for (unsigned i = 0; i < GOSSIP_SIGNATURE_BYTES; i += 8)
    memcpy (signature + i, &value, 8);
}

static void
note_said (struct gossip_world *world, uint32_t number, const uint8_t *bytes, size_t n) {
  uint64_t *said = g_new (uint64_t, 1);

  *said = hash (number, bytes, n);
  g_hash_table_add (world->said, said);
}

void
gossip_world_sign (struct gossip_world *world, uint32_t host, struct gossip_record *record) {
  uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

  gossip_record_encode (record, bytes);
  make_signature (world, host, bytes, sizeof bytes, record->signature);
}

static void
sign (void *data, const uint8_t *bytes, size_t n, uint8_t *ret_signature) {
  struct gossip_world *world = data;

  make_signature (world, world->caller, bytes, n, ret_signature);
  if (world->plan.check)
    note_said (world, world->caller, bytes, n);
}

static bool
verify (void *data, const uint8_t *id, const uint8_t *bytes, size_t n, const uint8_t *signature) {
  struct gossip_world *world = data;
  const uint32_t number = number_of (world, id);
  uint8_t good[GOSSIP_SIGNATURE_BYTES];

  if (number == UINT32_MAX)
    return false;
  make_signature (world, number, bytes, n, good);
  return memcmp (good, signature, sizeof good) == 0;
}

/* ---- the network ---- */

static void
carry (struct gossip_world *world, uint32_t from, uint32_t to, const uint8_t *bytes, size_t n) {
  struct parcel *parcel = g_malloc (sizeof *parcel + n);
  uint64_t delay = 1 + gossip_world_below (world, world->plan.delay_ms);

  if (world->plan.late && gossip_world_odds (world, world->plan.late))
    delay += gossip_world_below (world, 3000);
  *parcel = (struct parcel){ from, to, n };
  memcpy (parcel->bytes, bytes, n);
  push (world, world->now + delay, EVENT_ARRIVE, to, 0, parcel);
}

void
gossip_world_inject (struct gossip_world *world, uint32_t from, uint32_t to, const uint8_t *bytes, size_t n) {
  carry (world, from, to, bytes, n);
}

static void
capture (struct gossip_world *world, uint32_t from, const uint8_t *bytes, size_t n) {
  const uint64_t at = gossip_world_below (world, WORLD_CAPTURED);

  world->captured[at].from = from;
  world->captured[at].n = (guint)n;
  memcpy (world->captured[at].bytes, bytes, n);
}

static void
send_packet (void *data, const uint8_t *to, const uint8_t *address, const uint8_t *bytes, size_t n) {
  struct gossip_world *world = data;
  struct gossip_host *from = &world->hosts[world->caller];
  const uint32_t number = (uint32_t)address[0] << 8 | address[1];

  world->packets++;
  world->sends++;
  from->packets++;
  from->bytes += n + WORLD_OVERHEAD;
  world->sent[bytes[1]].packets++;
  world->sent[bytes[1]].bytes += n + WORLD_OVERHEAD;
  world->sent[bytes[1]].records += bytes[4];
  if (world->plan.check) {
    static struct gossip_packet packet;

    if (n > GOSSIP_PACKET_BYTES || !gossip_packet_decode (bytes, n, &packet))
      g_error ("host %u sends %zu bytes that nobody would take", from->number, n);
    if (world->plan.replays && gossip_world_odds (world, 50))
      capture (world, from->number, bytes, n);
  }
  if (number >= world->plan.hosts || (to && number_of (world, to) != number))
    return; /* a liar's address */
  if (world->cut[from->number * world->plan.hosts + number] > world->now || gossip_world_odds (world, world->plan.loss))
    return;
  carry (world, from->number, number, bytes, n);
  if (world->plan.again && gossip_world_odds (world, world->plan.again))
    carry (world, from->number, number, bytes, n);
  if (world->plan.replays && gossip_world_odds (world, world->plan.replays)) {
    const uint64_t at = gossip_world_below (world, WORLD_CAPTURED);

    if (world->captured[at].n)
      carry (world, world->captured[at].from, (uint32_t)gossip_world_below (world, world->plan.hosts),
             world->captured[at].bytes, world->captured[at].n);
  }
}

/* ---- hosts ---- */

static gboolean
runs (const struct gossip_host *host) {
  return host->fate == HOST_RUNS;
}

static void
check_record (struct gossip_world *world, const struct gossip_host *host, uint32_t about, const struct gossip_record *record,
              enum gossip_state state) {
  const uint64_t stamp = (uint64_t)record->incarnation << 32 | record->version;
  uint64_t said;
  uint8_t bytes[GOSSIP_RECORD_SIGNED_BYTES];

  if (stamp < host->seen[about])
    g_error ("host %u goes back with %u, from %" PRIx64 " to %" PRIx64, host->number, about, host->seen[about], stamp);
  if (world->hosts[about].liar)
    return;
  if (!(record->flags & GOSSIP_LEFT) != (state != GOSSIP_GONE))
    g_error ("host %u has not understood whether %u has left", host->number, about);
  gossip_record_encode (record, bytes);
  said = hash (about, bytes, sizeof bytes);
  if (!g_hash_table_contains (world->said, &said))
    g_error ("host %u holds %u.%u of %u, which never said that", host->number, record->incarnation, record->version, about);
}

static void
check_death (struct gossip_world *world, const struct gossip_host *host, uint32_t about) {
  const struct gossip_host *other = &world->hosts[about];
  const uint64_t since
      = MAX (MAX (host->dead_since[about], other->healthy_since), MAX (host->healthy_since, world->plan.calm_at + SETTLE_MS));

  if (runs (other) && !other->liar && !other->paused_until && world->now > since + FALSE_DEATH_MS)
    g_error ("host %u takes %u for dead, which is well and reachable, for %" PRIu64 " ms", host->number, about,
             world->now - since);
}

/* What it holds now, against what it held; and when to come again. */
void
gossip_world_touched (struct gossip_world *world, struct gossip_host *host) {
  struct gossip_member member;
  uint64_t at, own;
  uint32_t n = 0;

  if (!host->gossip)
    return;
  own = (uint64_t)gossip_own (host->gossip)->incarnation << 32 | gossip_own (host->gossip)->version;
  if (own != host->own_stamp) {
    host->own_stamp = own;
    host->own_since = world->now;
  }
  for (; gossip_member (host->gossip, n, &member); n++) {
    const uint64_t stamp = (uint64_t)member.record->incarnation << 32 | member.record->version;
    const uint32_t about = number_of (world, member.record->id);

    if (about == UINT32_MAX || about == host->number)
      g_error ("host %u has a member that is none", host->number);
    if (stamp != host->seen[about] || member.state != host->states[about]) {
      if (world->plan.check)
        check_record (world, host, about, member.record, member.state);
      if (world->changed)
        world->changed (world, host, about, &member);
      world->deaths += member.state == GOSSIP_DEAD && host->states[about] != GOSSIP_DEAD;
      host->dead_since[about] = member.state != GOSSIP_DEAD ? 0
                                : host->dead_since[about]   ? host->dead_since[about]
                                                            : world->now;
      host->seen[about] = stamp;
      host->states[about] = member.state;
    }
    if (world->plan.check && runs (host) && member.state == GOSSIP_DEAD)
      check_death (world, host, about);
  }
  if (n > MIN (world->plan.hosts, GOSSIP_MEMBERS_MAX))
    g_error ("host %u has %u members", host->number, n);
  at = world->now + MAX (gossip_wait_ms (host->gossip, world->now), 1);
  if (at != host->step_at) {
    host->step_at = at;
    push (world, at, EVENT_STEP, host->number, host->life, NULL);
  }
}

/* Seeds: all hosts. As a daemon does it, one after the other, if it is not known. */
static void
join (struct gossip_world *world, struct gossip_host *host) {
  const struct gossip_host *seed = &world->hosts[gossip_world_below (world, world->plan.hosts)];
  struct gossip_member member;
  const gboolean known = gossip_find (host->gossip, seed->id, &member);

  world->caller = host->number;
  if (seed != host && !known && !host->paused_until)
    gossip_join (host->gossip, world->now, seed->address);
  gossip_world_touched (world, host);
  push (world, world->now + (gossip_member (host->gossip, 0, &member) ? 10000 : 500), EVENT_JOIN, host->number, host->life,
        NULL);
}

void
gossip_world_start (struct gossip_world *world, struct gossip_host *host, gboolean remembers) {
  struct gossip_options options = { .zone = WORLD_ZONE,
                                    .seed = gossip_world_below (world, UINT64_MAX),
                                    .rules = world->plan.rules,
                                    .ops = { send_packet, sign, verify, world } };
  const uint32_t before = host->gossip ? gossip_own (host->gossip)->incarnation : 0;

  gossip_free (host->gossip);
  memcpy (options.id, host->id, sizeof options.id);
  memcpy (options.address, host->address, sizeof options.address);
  /* One that does not remember has at least a clock, perhaps one that was put back: no incarnation has two lives. */
  host->high = MAX (host->high, before);
  options.incarnation = !before ? 100 : remembers ? host->high + 1 : --host->low;
  world->caller = host->number;
  host->fate = HOST_RUNS;
  host->life++;
  host->step_at = 0;
  host->paused_until = 0;
  host->healthy_since = world->now;
  memset (host->seen, 0, world->plan.hosts * sizeof host->seen[0]);
  memset (host->states, 0, world->plan.hosts);
  memset (host->dead_since, 0, world->plan.hosts * sizeof host->dead_since[0]);
  host->tiers[0].load = (uint8_t)gossip_world_below (world, 101); /* not what an earlier life said with that number */
  host->tiers[0].capacity = 100 + (uint32_t)host->life;
  host->gossip = gossip_new (&options, world->now);
  g_assert_nonnull (host->gossip);
  gossip_publish (host->gossip, world->now, host->tiers);
  join (world, host);
  if (host->publish_every_ms)
    push (world, world->now + gossip_world_below (world, host->publish_every_ms), EVENT_PUBLISH, host->number, host->life,
          NULL);
}

void
gossip_world_kill (struct gossip_world *world, struct gossip_host *host) {
  host->fate = HOST_KILLED;
  host->life++;
  host->paused_until = 0;
  g_queue_clear_full (&host->waiting, g_free);
}

void
gossip_world_pause (struct gossip_world *world, struct gossip_host *host, uint64_t ms) {
  if (!runs (host) || host->paused_until)
    return;
  host->paused_until = world->now + ms;
  push (world, host->paused_until, EVENT_RESUME, host->number, host->life, NULL);
}

void
gossip_world_change (struct gossip_world *world, struct gossip_host *host) {
  for (unsigned i = 0; i < GOSSIP_TIERS; i++)
    host->tiers[i] = (struct gossip_tier){ .capacity = 1000 + host->number,
                                           .free = (uint32_t)gossip_world_below (world, 1000),
                                           .rate = (uint16_t)gossip_world_below (world, 65536),
                                           .fragmentation = (uint8_t)gossip_world_below (world, 101),
                                           .load = (uint8_t)gossip_world_below (world, 101),
                                           .pressure = (uint8_t)gossip_world_below (world, 101) };
  world->caller = host->number;
  gossip_publish (host->gossip, world->now, host->tiers);
  gossip_world_touched (world, host);
}

static void
deliver (struct gossip_world *world, struct gossip_host *host, struct parcel *parcel) {
  const struct gossip_host *from = &world->hosts[parcel->from];

  world->caller = host->number;
  world->sends = 0;
  gossip_receive (host->gossip, world->now, from->id, true, from->address, parcel->bytes, parcel->n);
  if (world->sends > SENDS_MAX)
    g_error ("one packet made host %u send %u", host->number, world->sends);
  g_free (parcel);
}

static void
arrive (struct gossip_world *world, struct gossip_host *host, struct parcel *parcel) {
  if (runs (host) && !host->paused_until) {
    deliver (world, host, parcel);
    gossip_world_touched (world, host);
  } else if (runs (host) && host->waiting.length < WORLD_QUEUE)
    g_queue_push_tail (&host->waiting, parcel);
  else
    g_free (parcel);
}

static void
resume (struct gossip_world *world, struct gossip_host *host) {
  host->paused_until = 0;
  host->healthy_since = world->now;
  world->caller = host->number;
  if (gossip_world_odds (world, 500))
    gossip_step (host->gossip, world->now);
  while (host->waiting.length)
    deliver (world, host, g_queue_pop_head (&host->waiting));
  gossip_world_touched (world, host);
  if (world->now < host->starved_until) { /* runs for a moment, then not */
    const uint64_t run = 50 + gossip_world_below (world, 500);

    host->healthy_since = world->now + run;
    push (world, world->now + run, EVENT_FAULT, host->number, host->life, NULL);
  }
}

/* ---- what happens ---- */

static void
fault (struct gossip_world *world, struct gossip_host *host) {
  const uint64_t ms = 500 + gossip_world_below (world, 8000);
  const uint32_t n = world->plan.hosts;

  switch (gossip_world_below (world, 8)) {
  case 0:
    if (runs (host)) {
      gossip_world_kill (world, host);
      world->restarts++;
      if (gossip_world_odds (world, 800))
        push (world, world->now + ms, EVENT_START, host->number, host->life, NULL);
    }
    break;
  case 1:
    gossip_world_pause (world, host, ms);
    break;
  case 2:
    host->starved_until = world->now + ms;
    gossip_world_pause (world, host, 100 + gossip_world_below (world, 4000));
    break;
  case 3:
    if (runs (host) && !host->paused_until && !host->liar) {
      world->caller = host->number;
      gossip_leave (host->gossip, world->now);
      host->fate = HOST_LEFT;
      gossip_world_touched (world, host);
      if (gossip_world_odds (world, 600))
        push (world, world->now + ms, EVENT_START, host->number, host->life, NULL);
    }
    break;
  case 4: /* in or out */
    for (uint32_t i = 0; i < n; i++)
      world->cut[i * n + host->number] = world->now + ms;
    break;
  case 5:
    for (uint32_t i = 0; i < n; i++)
      world->cut[host->number * n + i] = world->now + ms;
    break;
  case 6:
    world->cut[host->number * n + gossip_world_below (world, n)] = world->now + 4 * ms;
    break;
  default: { /* two sides, for long enough that they give each other up */
    const uint64_t side = gossip_world_below (world, UINT64_MAX);

    for (uint32_t i = 0; i < n * n; i++)
      if ((side >> i / n % 64 & 1) != (side >> i % n % 64 & 1))
        world->cut[i] = world->now + 3 * ms;
  }
  }
}

static void
handle (struct gossip_world *world, const struct gossip_event *event) {
  struct gossip_host *host = &world->hosts[event->host];

  if (event->kind == EVENT_ARRIVE) {
    arrive (world, host, event->parcel);
    return;
  }
  if (event->kind == EVENT_FAULT && event->life == 0) {
    fault (world, host);
    return;
  }
  if (event->life != host->life && event->kind != EVENT_LIE)
    return;
  switch (event->kind) {
  case EVENT_STEP:
    if (host->step_at != world->now || host->paused_until || !host->gossip)
      return;
    host->step_at = 0;
    world->caller = host->number;
    gossip_step (host->gossip, world->now);
    gossip_world_touched (world, host);
    break;
  case EVENT_RESUME:
    resume (world, host);
    break;
  case EVENT_PUBLISH:
    if (!host->paused_until && runs (host) && world->now < world->plan.end_at - 20000)
      gossip_world_change (world, host);
    push (world, world->now + host->publish_every_ms, EVENT_PUBLISH, host->number, host->life, NULL);
    break;
  case EVENT_FAULT: /* one that is starved stops again */
    gossip_world_pause (world, host, 500 + gossip_world_below (world, 7500));
    break;
  case EVENT_JOIN:
    if (runs (host))
      join (world, host);
    break;
  case EVENT_LIE:
    gossip_world_lie (world, host);
    if (world->now < world->plan.calm_at)
      push (world, world->now + 20 + gossip_world_below (world, 600), EVENT_LIE, host->number, 0, NULL);
    break;
  default:
    gossip_world_start (world, host, gossip_world_odds (world, 500));
  }
}

void
gossip_world_run (struct gossip_world *world, uint64_t until) {
  while (world->heap->len && g_array_index (world->heap, struct gossip_event, 0).at <= until) {
    const struct gossip_event event = pop (world);

    world->now = event.at;
    world->events++;
    handle (world, &event);
  }
  world->now = until;
}

/* ---- life ---- */

void
gossip_plan_make (struct gossip_plan *plan, uint64_t seed) {
  struct gossip_world world = { .random = seed };

  *plan = (struct gossip_plan){ .seed = seed,
                                .hosts = (uint32_t)(3 + gossip_world_below (&world, 1 + gossip_world_below (&world, 22))),
                                .delay_ms = (uint32_t)(1 + gossip_world_below (&world, 60)),
                                .calm_at = 76000,
                                .end_at = 150000,
                                .rules = gossip_rules_default,
                                .check = TRUE };
  if (gossip_world_odds (&world, 700)) {
    plan->loss = (uint32_t)gossip_world_below (&world, 100);
    plan->again = (uint32_t)gossip_world_below (&world, 50);
    plan->late = (uint32_t)gossip_world_below (&world, 20);
  }
  if (gossip_world_odds (&world, 500))
    plan->replays = (uint32_t)gossip_world_below (&world, 100);
  if (gossip_world_odds (&world, 400) && plan->hosts > 3)
    plan->liars = (uint32_t)(1 + gossip_world_below (&world, 2));
  plan->faults = (uint32_t)gossip_world_below (&world, 12);
}

static guint
said_hash (gconstpointer key) {
  return (guint) * (const uint64_t *)key;
}

void
gossip_world_init (struct gossip_world *world, const struct gossip_plan *plan) {
  world->plan = *plan;
  world->random = mix (plan->seed ^ 99);
  world->heap = g_array_new (FALSE, FALSE, sizeof (struct gossip_event));
  world->said = g_hash_table_new_full (said_hash, g_int64_equal, g_free, NULL);
  world->hosts = g_new0 (struct gossip_host, plan->hosts);
  world->cut = g_new0 (uint64_t, plan->hosts * plan->hosts);
  for (uint32_t i = 0; i < plan->hosts; i++) {
    struct gossip_host *host = &world->hosts[i];

    host->number = i;
    for (unsigned k = 0; k < 30; k++)
      host->id[k] = (uint8_t)(mix (plan->seed + i * 1000ull + k) | (k == 0));
    host->id[30] = (uint8_t)(i >> 8);
    host->id[31] = (uint8_t)i;
    host->address[0] = (uint8_t)(i >> 8);
    host->address[1] = (uint8_t)i;
    host->liar = i < plan->liars;
    host->low = host->high = 100;
    host->seen = g_new0 (uint64_t, plan->hosts);
    host->states = g_new0 (uint8_t, plan->hosts);
    host->dead_since = g_new0 (uint64_t, plan->hosts);
    host->publish_every_ms = plan->check ? 3000 + gossip_world_below (world, 30000) : 0;
    push (world, 1 + gossip_world_below (world, 2000), EVENT_START, i, 0, NULL);
    if (host->liar)
      push (world, 5000, EVENT_LIE, i, 0, NULL);
  }
  for (uint32_t i = 0; i < plan->faults; i++)
    push (world, 5000 + gossip_world_below (world, 35000), EVENT_FAULT, (uint32_t)gossip_world_below (world, plan->hosts), 0,
          NULL);
}

static void
check_agreed (struct gossip_world *world, struct gossip_host *host, struct gossip_host *other) {
  struct gossip_member member = { 0 };
  const gboolean known = gossip_find (host->gossip, other->id, &member);

  if (other->fate != HOST_RUNS) {
    if (known && member.state < GOSSIP_DEAD && !other->liar) /* whose last records may still contradict each other */
      g_error ("host %u still believes in %u (state %u, since %" PRIu64 ", %u accusers, fate %u)", host->number, other->number,
               member.state, member.since_ms, member.accusers, other->fate);
    return;
  }
  if (!known)
    g_error ("host %u does not know %u", host->number, other->number);
  if (!other->liar && member.state >= GOSSIP_DEAD) /* a liar may say that it has left */
    g_error ("host %u takes %u for %s since %" PRIu64 ", as %u.%u, which is %u.%u", host->number, other->number,
             member.state == GOSSIP_DEAD ? "dead" : "gone", member.since_ms, member.record->incarnation, member.record->version,
             gossip_own (other->gossip)->incarnation, gossip_own (other->gossip)->version);
  if (!other->liar
      && (member.record->version != gossip_own (other->gossip)->version
          || member.record->incarnation != gossip_own (other->gossip)->incarnation)
      && (world->plan.loss == 0 || world->now > other->own_since + 15000)) /* with loss, a refutation may just be under way */
    g_error ("host %u has an old record of %u", host->number, other->number);
}

void
gossip_world_check_calm (struct gossip_world *world) {
  for (uint32_t i = 0; i < world->plan.hosts; i++) {
    struct gossip_host *host = &world->hosts[i];

    if (host->fate != HOST_RUNS || host->liar)
      continue;
    for (uint32_t k = 0; k < world->plan.hosts; k++)
      if (k != i)
        check_agreed (world, host, &world->hosts[k]);
  }
}

void
gossip_world_clear (struct gossip_world *world) {
  while (world->heap->len)
    g_free (pop (world).parcel);
  for (uint32_t i = 0; i < world->plan.hosts; i++) {
    struct gossip_host *host = &world->hosts[i];

    gossip_free (host->gossip);
    g_queue_clear_full (&host->waiting, g_free);
    g_free (host->seen);
    g_free (host->states);
    g_free (host->dead_since);
  }
  g_array_unref (world->heap);
  g_hash_table_unref (world->said);
  g_free (world->hosts);
  g_free (world->cut);
}
