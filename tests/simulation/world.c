/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Time, network and faults of the simulated world. */
#include "world.h"

#include <stdarg.h>
#include <string.h>

/* ---- chance: splitmix64 (Steele, Lea and Flood, 2014); cheap, and the same everywhere ---- */

static uint64_t
next_random (struct world *world) {
  uint64_t z = world->random += 0x9e3779b97f4a7c15ull;

  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ z >> 27) * 0x94d049bb133111ebull;
  return z ^ z >> 31;
}

uint64_t
world_below (struct world *world, uint64_t n) {
  return next_random (world) % n;
}

gboolean
world_odds (struct world *world, unsigned permille) {
  return world_below (world, 1000) < permille;
}

void
world_trace (struct world *world, const char *format, ...) {
  static int tracing = -1;
  va_list args;

  if (tracing < 0)
    tracing = g_getenv ("DOMYBS_TRACE") != NULL;
  if (!tracing)
    return;
  va_start (args, format);
  g_autofree char *text = g_strdup_vprintf (format, args);
  va_end (args);
  g_printerr ("%8" G_GUINT64_FORMAT " %s\n", world->now, text);
}

/* ---- events: a binary heap ---- */

static gboolean
is_before (const struct event *a, const struct event *b) {
  return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void
push (struct world *world, struct event event) {
  struct event *heap;
  guint at = world->heap->len;

  event.order = ++world->orders;
  g_array_append_val (world->heap, event);
  heap = (struct event *)(void *)world->heap->data;
  for (; at > 0 && is_before (&event, &heap[(at - 1) / 2]); at = (at - 1) / 2)
    heap[at] = heap[(at - 1) / 2];
  heap[at] = event;
}

static gboolean
pop (struct world *world, struct event *ret_event) {
  struct event *heap = (struct event *)(void *)world->heap->data;
  const guint n = world->heap->len - 1;
  struct event last;
  guint at = 0, child;

  if (world->heap->len == 0)
    return FALSE;
  *ret_event = heap[0];
  last = heap[n];
  for (; (child = 2 * at + 1) < n; at = child) {
    if (child + 1 < n && is_before (&heap[child + 1], &heap[child]))
      child++;
    if (!is_before (&heap[child], &last))
      break;
    heap[at] = heap[child];
  }
  heap[at] = last;
  g_array_set_size (world->heap, n);
  return TRUE;
}

void
world_at (struct world *world, uint64_t at, enum event_kind kind, uint32_t a, uint64_t life) {
  push (world, (struct event){ .at = at, .kind = kind, .a = a, .life = life });
}

/* ---- connections ---- */

struct conn *
world_conn (struct world *world, uint32_t conn) {
  return world->conns->pdata[conn];
}

static void
put_message (struct world *world, uint32_t number, enum side side, const struct message *message, uint64_t delay) {
  struct conn *conn = world_conn (world, number);
  struct message *copy = g_memdup2 (message, sizeof *message);

  copy->at = conn->last_at[side] = MAX (conn->last_at[side], world->now + delay);
  g_queue_push_tail (&conn->queues[side], copy);
  conn->pending++;
  push (world, (struct event){ .at = copy->at, .kind = EVENT_ARRIVE, .side = side, .a = number });
}

static uint64_t
some_delay (struct world *world) {
  if (world_odds (world, world->plan.late))
    return world_below (world, 12000);
  return world_below (world, 8) ? 1 + world_below (world, 4) : 1 + world_below (world, 400);
}

static void
say_again (struct world *world, uint32_t vm, uint32_t donor, const struct message *message) {
  struct message *copy = g_memdup2 (message, sizeof *message);

  copy->cookie = vm;
  push (world,
        (struct event){ .at = world->now + world_below (world, 30000), .kind = EVENT_AGAIN, .a = donor, .message = copy });
}

void
world_send (struct world *world, uint32_t number, enum side side, const struct message *message) {
  struct conn *conn = world_conn (world, number);

  if (message->kind == SAY_LEASE && side == THERE && world_odds (world, world->plan.again))
    say_again (world, conn->vm, conn->donor, message);
  if (world_odds (world, world->plan.loss))
    conn->dead = TRUE;
  if (!conn->dead)
    put_message (world, number, side, message, some_delay (world));
}

uint32_t
world_connect (struct world *world, uint32_t vm, uint32_t donor, gboolean is_lease) {
  const struct message message = { .kind = SAY_CONNECT };
  struct conn *conn = g_new0 (struct conn, 1);
  uint32_t number = 1;

  while (number < world->conns->len && world->conns->pdata[number])
    number++;
  if (number == world->conns->len)
    g_ptr_array_add (world->conns, conn);
  else
    world->conns->pdata[number] = conn;
  conn->vm = vm;
  conn->donor = donor;
  conn->is_lease = is_lease;
  conn->client_open = TRUE;
  g_queue_init (&conn->queues[THERE]);
  g_queue_init (&conn->queues[BACK]);
  world_send (world, number, THERE, &message);
  return number;
}

static void
forget_conn (struct world *world, uint32_t number) {
  struct conn *conn = world_conn (world, number);

  if (conn->client_open || conn->server_open || conn->pending)
    return;
  g_free (conn);
  world->conns->pdata[number] = NULL;
}

void
world_close (struct world *world, uint32_t number, enum side by) {
  struct conn *conn = world_conn (world, number);
  const struct message message = { .kind = SAY_CLOSE };

  if (by == THERE) {
    conn->client_open = FALSE;
    if (world_below (world, 4) == 0)
      conn->dead = TRUE; /* a half that nobody tells */
  } else {
    conn->server_open = FALSE;
    conn->export.lease = 0;
  }
  if (!conn->dead)
    put_message (world, number, by == THERE ? THERE : BACK, &message, some_delay (world));
  forget_conn (world, number);
}

/* ---- arrival ---- */

/* When it can be; now: it is. */
static uint64_t
arrival (const struct world *world, const struct conn *conn, enum side side) {
  const struct sim_vm *vm = world->vms[conn->vm];
  const struct sim_donor *donor = &world->donors[conn->donor];
  uint64_t at = MAX (world->now, world->cut_until[vm->host][conn->donor][side]);

  if (side == BACK)
    return MAX (at, vm->paused_until);
  at = MAX (at, donor->paused_until);
  return conn->piece ? MAX (at, conn->busy_until + 1) : at;
}

static void
arrive_there (struct world *world, uint32_t number, const struct message *message) {
  const struct message back = { .kind = SAY_CONNECT };
  struct conn *conn = world_conn (world, number);

  if (message->kind == SAY_CONNECT) {
    conn->server_open = TRUE;
    if (!world->donors[conn->donor].running)
      world_close (world, number, BACK);
    else
      world_send (world, number, BACK, &back);
  } else if (message->kind == SAY_CLOSE) {
    conn->server_open = FALSE;
    conn->export.lease = 0;
  } else if (conn->server_open && !conn->closing) {
    donor_hear (world, number, message);
  }
}

static void
arrive (struct world *world, const struct event *event) {
  struct conn *conn = world_conn (world, event->a);
  const uint64_t at = arrival (world, conn, event->side);
  g_autofree struct message *message = NULL;

  if (at > world->now) {
    struct event later = *event;

    later.at = at;
    push (world, later);
    return;
  }
  message = g_queue_pop_head (&conn->queues[event->side]);
  if (event->side == THERE)
    arrive_there (world, event->a, message);
  else if (conn->client_open)
    vm_hear (world, event->a, message);
  conn->pending--;
  forget_conn (world, event->a);
}

static void
piece (struct world *world, const struct event *event) {
  struct conn *conn = world_conn (world, event->a);
  const struct sim_donor *donor = &world->donors[conn->donor];

  if (conn->piece && donor->paused_until > world->now) {
    struct event later = *event;

    later.at = conn->busy_until = donor->paused_until;
    push (world, later);
    return;
  }
  donor_piece (world, event->a);
  conn->pending--;
  forget_conn (world, event->a);
}

/* ---- faults ---- */

static void
cut (struct world *world, uint32_t host, uint32_t donor, gboolean there, gboolean back, uint64_t until) {
  uint64_t *cuts = world->cut_until[host][donor];

  if (there)
    cuts[THERE] = MAX (cuts[THERE], until);
  if (back)
    cuts[BACK] = MAX (cuts[BACK], until);
}

static void
reboot (struct world *world, uint32_t host) {
  const uint32_t n = world->n_vms;

  world->boots[host] = ++world->numbers;
  for (uint32_t i = 0; i < n; i++)
    if (world->vms[i]->alive && world->vms[i]->host == host) {
      vm_end (world, world->vms[i]);
      (void)vm_make (world, host);
    }
}

static void
break_all (struct world *world, uint32_t host, uint32_t donor) {
  const struct message message = { .kind = SAY_CLOSE };

  for (uint32_t i = 1; i < world->conns->len; i++) {
    struct conn *conn = world_conn (world, i);

    if (!conn || conn->donor != donor || world->vms[conn->vm]->host != host)
      continue;
    conn->dead = TRUE;
    if (world_below (world, 2))
      put_message (world, i, THERE, &message, world_below (world, 5000));
    if (world_below (world, 2))
      put_message (world, i, BACK, &message, world_below (world, 5000));
  }
}

static struct sim_vm *
some_vm (struct world *world, uint32_t which) {
  uint32_t n = 0;

  for (uint32_t i = 0; i < world->n_vms; i++)
    n += world->vms[i]->alive;
  which %= MAX (n, 1);
  for (uint32_t i = 0; i < world->n_vms; i++)
    if (world->vms[i]->alive && which-- == 0)
      return world->vms[i];
  return NULL;
}

static void
befall_vm (struct world *world, const struct plan_fault *fault) {
  struct sim_vm *vm = some_vm (world, fault->a);

  if (!vm)
    return;
  switch (fault->fault) {
  case FAULT_KILL_WORKER:
    vm_kill_worker (world, vm);
    break;
  case FAULT_STOP_VM:
    vm->paused_until = MAX (vm->paused_until, world->now + fault->ms);
    break;
  case FAULT_END_VM:
    if (vm->ending)
      break;
    vm->ending = TRUE;
    vm->ended_at = world->now;
    (void)vm_make (world, vm->host);
    break;
  default:
    vm_end (world, vm);
    (void)vm_make (world, vm->host);
  }
}

static void
befall_donor (struct world *world, const struct plan_fault *fault) {
  struct sim_donor *donor = &world->donors[fault->a];

  switch (fault->fault) {
  case FAULT_KILL_DONOR:
    if (donor->running)
      donor_die (world, donor);
    break;
  case FAULT_LOSE_ARENA:
    if (donor->running)
      donor_die (world, donor);
    donor_new_arena (world, donor);
    break;
  case FAULT_STOP_DONOR:
    donor->paused_until = MAX (donor->paused_until, world->now + fault->ms);
    break;
  case FAULT_CRASH:
    donor->stores_to_live = fault->b < STORE_NAMED ? fault->b : 0;
    donor->store_to_die_at = fault->b < STORE_NAMED ? NULL : stores[(fault->b - STORE_NAMED) % STORES];
    break;
  default:
    donor_order (world, donor, fault);
  }
}

static void
befall (struct world *world, const struct plan_fault *fault) {
  const uint64_t until = world->now + fault->ms;

  world_trace (world, "%s %u %u %" G_GUINT64_FORMAT, fault_names[fault->fault], fault->a, fault->b, fault->ms);
  switch (fault->fault) {
  case FAULT_REBOOT:
    reboot (world, fault->a);
    break;
  case FAULT_CUT:
    cut (world, fault->a, fault->b, TRUE, TRUE, until);
    break;
  case FAULT_CUT_THERE:
    cut (world, fault->a, fault->b, TRUE, FALSE, until);
    break;
  case FAULT_CUT_BACK:
    cut (world, fault->a, fault->b, FALSE, TRUE, until);
    break;
  case FAULT_OUTAGE:
    for (uint32_t host = 0; host < HOSTS_MAX; host++)
      for (uint32_t donor = 0; donor < DONORS_MAX; donor++)
        cut (world, host, donor, TRUE, TRUE, until);
    break;
  case FAULT_BREAK:
    break_all (world, fault->a, fault->b);
    break;
  case FAULT_KILL_WORKER:
  case FAULT_STOP_VM:
  case FAULT_END_VM:
  case FAULT_DROP_VM:
    befall_vm (world, fault);
    break;
  default:
    befall_donor (world, fault);
  }
}

/* ---- who says again, and who says what he likes ---- */

static void
again (struct world *world, const struct event *event) {
  struct sim_donor *donor = &world->donors[event->a];
  struct lease_answer answer;

  if (donor->running && donor->paused_until <= world->now)
    donor_told (world, donor, vm_identity (world, event->message->cookie), event->message, &answer);
}

static void
lie (struct world *world) {
  struct sim_donor *donor = &world->donors[world_below (world, world->plan.donors)];
  const struct sim_vm *vm = world->vms[world_below (world, world->n_vms)];
  const uint32_t d = donor->number;
  struct lease_request request = { .verb = LEASE_ATTACH + (enum lease_verb)world_below (world, 5), .disk = 1 };
  uint64_t *const numbers[] = { &request.session, &request.lease, &request.epoch, &request.seq, &request.blocks };
  struct lease_donor_figures figures;
  struct message message = { .kind = SAY_LEASE };
  struct lease_answer answer;
  const uint64_t ids[3] = { world_below (world, 3) ? vm->vm_id : 7, 100 + vm->host, world_below (world, 2) ? vm->boot : 77 };

  world_at (world, world->now + world_below (world, 400), EVENT_LIE, 0, 0);
  if (!donor->running || donor->paused_until > world->now)
    return;
  /* As somebody who has heard all that the VM and the donor say, but has another key */
  lease_donor_figures (donor->table, &figures);
  memcpy (request.vm, &ids[0], 8);
  memcpy (request.host, &ids[1], 8);
  memcpy (request.boot, &ids[2], 8);
  request.session = vm->channels[d].lease.session;
  request.lease = request.verb == LEASE_ATTACH && world_below (world, 2) ? 0 : vm->map[d].lease;
  request.epoch = vm->channels[d].lease.epoch;
  request.blocks = 1 + world_below (world, 20);
  request.seq = world_below (world, 20);
  if (request.lease)
    memcpy (request.incarnation, figures.incarnation, LEASE_ID_BYTES);
  for (uint64_t n = world_below (world, 3); n; n--)
    *numbers[world_below (world, G_N_ELEMENTS (numbers))]
        = world_below (world, 2) ? world_below (world, 40) : next_random (world);
  if (world->lies[d].lease && world_below (world, 2)) {
    request = world->lies[d]; /* and now and then as he should */
    request.verb = LEASE_KEEP;
  }
  lease_request_encode (&request, message.bytes);
  donor_told (world, donor, "liar", &message, &answer);
  if (donor->running && answer.verdict == LEASE_OK && answer.lease) {
    request.lease = answer.lease;
    request.epoch = answer.epoch;
    memcpy (request.incarnation, answer.incarnation, LEASE_ID_BYTES);
    world->lies[d] = request;
  }
}

/* ---- the run ---- */

static gboolean
is_paused (struct world *world, const struct event *event, uint64_t until) {
  struct event later = *event;

  if (until <= world->now)
    return FALSE;
  later.at = until;
  push (world, later);
  return TRUE;
}

static void
happen (struct world *world, const struct event *event) {
  struct sim_donor *donor = &world->donors[event->kind == EVENT_DONOR_TICK || event->kind == EVENT_DONOR_START ? event->a : 0];
  struct sim_vm *vm = world->vms[event->kind == EVENT_VM_TICK || event->kind == EVENT_WORKER_START ? event->a : 0];

  switch (event->kind) {
  case EVENT_ARRIVE:
    arrive (world, event);
    break;
  case EVENT_PIECE:
    piece (world, event);
    break;
  case EVENT_DONOR_TICK:
    if (event->life == donor->life && !is_paused (world, event, donor->paused_until))
      donor_tick (world, donor);
    break;
  case EVENT_DONOR_START:
    if (event->life == donor->life)
      donor_start (world, donor);
    break;
  case EVENT_VM_TICK:
    if (event->life == vm->life && !is_paused (world, event, vm->paused_until))
      vm_tick (world, vm);
    break;
  case EVENT_WORKER_START:
    if (event->life == vm->life)
      vm_start_worker (world, vm);
    break;
  case EVENT_FAULT:
    befall (world, &g_array_index (world->plan.faults, struct plan_fault, event->a));
    break;
  case EVENT_AGAIN:
    again (world, event);
    break;
  case EVENT_LIE:
    lie (world);
    break;
  }
}

static void
check (struct world *world) {
  for (uint32_t d = 0; d < world->plan.donors; d++)
    donor_check (world, &world->donors[d]);
  for (uint32_t i = 0; i < world->n_vms; i++)
    vm_check (world, world->vms[i]);
}

static void
begin (struct world *world, const struct plan *plan) {
  GHashTable *points = world->points;

  memset (world, 0, sizeof *world);
  world->plan = *plan;
  world->points = points;
  world->random = plan->seed;
  world->now = 1000;
  world->heap = g_array_new (FALSE, FALSE, sizeof (struct event));
  world->conns = g_ptr_array_new ();
  g_ptr_array_add (world->conns, NULL);
  world->forgotten = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  world->seqs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  world->sessions = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  for (uint32_t host = 0; host < HOSTS_MAX; host++)
    world->boots[host] = ++world->numbers;
  for (uint32_t d = 0; d < plan->donors; d++) {
    donor_make (world, d);
    donor_start (world, &world->donors[d]);
  }
  for (uint32_t i = 0; i < plan->vms; i++)
    (void)vm_make (world, i % plan->hosts);
  for (guint i = 0; i < plan->faults->len; i++)
    world_at (world, g_array_index (plan->faults, struct plan_fault, i).at, EVENT_FAULT, i, 0);
  if (plan->liars)
    world_at (world, world->now, EVENT_LIE, 0, 0);
}

/* From then on nothing goes wrong; whoever waits long enough must have all that is his. */
static void
calm_down (struct world *world) {
  world->plan.loss = world->plan.late = world->plan.again = 0;
  memset (world->cut_until, 0, sizeof world->cut_until);
  for (uint32_t d = 0; d < world->plan.donors; d++) {
    world->donors[d].paused_until = 0;
    world->donors[d].stores_to_live = 0;
    world->donors[d].store_to_die_at = NULL;
  }
  for (uint32_t i = 0; i < world->n_vms; i++)
    world->vms[i]->paused_until = 0;
}

void
world_run (struct world *world, const struct plan *plan) {
  const uint64_t end = plan->calm_at + 60000;
  struct event event;
  gboolean calm = FALSE;

  begin (world, plan);
  while (pop (world, &event) && event.at < end) {
    world->now = event.at;
    world->events++;
    if (!calm && world->now >= plan->calm_at) {
      calm = TRUE;
      calm_down (world);
    }
    happen (world, &event);
    g_free (event.message);
    check (world);
  }
  g_free (event.message);
  for (uint32_t i = 0; i < world->n_vms; i++)
    vm_check_calm (world, world->vms[i]);
}

void
world_clear (struct world *world) {
  struct event event;

  while (pop (world, &event))
    g_free (event.message);
  for (guint i = 1; i < world->conns->len; i++) {
    struct conn *conn = world->conns->pdata[i];

    for (unsigned side = 0; conn && side < 2; side++)
      g_queue_clear_full (&conn->queues[side], g_free);
    g_free (conn);
  }
  for (uint32_t d = 0; d < world->plan.donors; d++) {
    lease_donor_close (world->donors[d].table);
    g_free (world->donors[d].state);
  }
  for (uint32_t i = 0; i < world->n_vms; i++)
    g_free (world->vms[i]);
  g_array_unref (world->heap);
  g_ptr_array_unref (world->conns);
  g_hash_table_unref (world->forgotten);
  g_hash_table_unref (world->seqs);
  g_hash_table_unref (world->sessions);
}
