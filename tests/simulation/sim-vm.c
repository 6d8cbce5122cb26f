/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A borrower: what a VM's keeper holds (the truth, which the local storage has as well, and the map of copies), and a worker
 * with a channel to each donor. It keeps the rules of backend/donor/leases.md: a copy is no copy before a write goes out, and
 * one again after the answer; two requests for a place are never under way at once; a write that may still come is fenced
 * before anything else is written there.
 */
#include "world.h"

#include <string.h>

#define RETRY_MS 400u
#define CONNECT_MS 3000u

/* By time and subject of who is wrong. */
#define WRONG(world, vm, format, ...)                                                                                          \
  g_error ("at %" G_GUINT64_FORMAT ": vm %u: " format, (world)->now, (vm)->number, ##__VA_ARGS__)

const char *
vm_identity (const struct world *world, uint32_t vm) {
  static const char *const names[HOSTS_MAX] = { "host-0", "host-1", "host-2" };

  return names[world->vms[vm]->host];
}

struct sim_vm *
vm_make (struct world *world, uint32_t host) {
  struct sim_vm *vm;

  if (world->n_vms == ALL_VMS)
    return NULL;
  vm = g_new0 (struct sim_vm, 1);
  vm->number = world->n_vms;
  vm->host = host;
  vm->vm_id = ++world->numbers;
  vm->boot = world->boots[host];
  vm->alive = TRUE;
  world->vms[world->n_vms++] = vm;
  vm_start_worker (world, vm);
  return vm;
}

static void
set_id (uint8_t id[LEASE_ID_BYTES], uint64_t number) {
  memset (id, 0, LEASE_ID_BYTES);
  memcpy (id, &number, sizeof number);
}

void
vm_start_worker (struct world *world, struct sim_vm *vm) {
  if (vm->running || !vm->alive)
    return;
  vm->running = TRUE;
  vm->life++;
  vm->workers++;
  for (uint32_t d = 0; d < world->plan.donors; d++) {
    struct lease_borrower_options options = { .disk = 1, .export_blocks = world->plan.places, .keep_ms = KEEP_MS };
    struct channel *channel = &vm->channels[d];

    set_id (options.vm, vm->vm_id);
    set_id (options.host, 100 + vm->host);
    set_id (options.boot, vm->boot);
    options.session = vm->workers << LEASE_SESSION_SHIFT;
    options.lease = vm->map[d].lease;
    memcpy (options.incarnation, vm->map[d].incarnation, LEASE_ID_BYTES);
    memset (channel, 0, sizeof *channel);
    lease_borrower_init (&channel->lease, &options);
    lease_borrower_want (&channel->lease, 1 + world_below (world, world->plan.places));
  }
  world_at (world, world->now + 1 + world_below (world, TICK_MS), EVENT_VM_TICK, vm->number, vm->life);
}

static void
hang_up (struct world *world, uint32_t *conn) {
  if (*conn)
    world_close (world, *conn, THERE);
  *conn = 0;
}

static void
stop_worker (struct world *world, struct sim_vm *vm) {
  vm->running = FALSE;
  vm->life++;
  for (uint32_t d = 0; d < world->plan.donors; d++) {
    hang_up (world, &vm->channels[d].lease_conn);
    hang_up (world, &vm->channels[d].data_conn);
  }
}

void
vm_kill_worker (struct world *world, struct sim_vm *vm) {
  if (!vm->running)
    return;
  stop_worker (world, vm);
  world_at (world, world->now + 1 + world_below (world, 300), EVENT_WORKER_START, vm->number, vm->life);
}

void
vm_end (struct world *world, struct sim_vm *vm) {
  stop_worker (world, vm);
  vm->alive = FALSE;
}

/* ---- a channel ---- */

static gboolean
has_flight (const struct channel *channel, uint32_t place) {
  for (unsigned i = 0; i < FLIGHTS_MAX; i++)
    if (channel->flights[i].used && channel->flights[i].block == place)
      return TRUE;
  return FALSE;
}

static gboolean
place_is_quiet (const struct world *world, const struct sim_vm *vm, uint32_t place) {
  for (uint32_t d = 0; d < world->plan.donors; d++)
    if (has_flight (&vm->channels[d], place))
      return FALSE;
  return TRUE;
}

static gboolean
can_ask (const struct channel *channel) {
  return channel->data_up && channel->lease.state == LEASE_ATTACHED;
}

/* False: too many are under way. */
static gboolean
ask (struct world *world, struct sim_vm *vm, uint32_t d, enum message_kind kind, uint32_t place) {
  struct channel *channel = &vm->channels[d];
  struct message message = { .kind = kind, .block = place };

  for (uint32_t i = 0; i < FLIGHTS_MAX; i++) {
    if (channel->flights[i].used)
      continue;
    channel->flights[i] = (struct flight){ TRUE, kind, place, vm->version[place], world->now + DEADLINE_MS };
    message.cookie = i;
    if (kind == SAY_WRITE)
      memcpy (message.pages, vm->truth[place], sizeof message.pages);
    if (kind != SAY_READ)
      channel->maybe[place] = TRUE;
    world_send (world, channel->data_conn, THERE, &message);
    return TRUE;
  }
  return FALSE;
}

/* The data connection is over: what it was to write may still come. */
static void
data_over (struct world *world, struct channel *channel) {
  gboolean unknown = FALSE;

  hang_up (world, &channel->data_conn);
  channel->data_up = FALSE;
  channel->data_retry = world->now + world_below (world, RETRY_MS);
  for (unsigned i = 0; i < FLIGHTS_MAX; i++)
    unknown |= channel->flights[i].used && channel->flights[i].kind != SAY_READ;
  memset (channel->flights, 0, sizeof channel->flights);
  if (unknown)
    lease_borrower_renew (&channel->lease);
}

static void
lease_over (struct world *world, struct channel *channel) {
  hang_up (world, &channel->lease_conn);
  channel->lease_up = FALSE;
  channel->lease_retry = world->now + world_below (world, RETRY_MS);
  lease_borrower_disconnected (&channel->lease);
}

/* Whether what was lent is gone: the donor has another arena, or has ended that lease (and whether it might is looked at
 * there). */
static gboolean
is_gone (struct world *world, const struct sim_vm *vm, uint32_t d) {
  struct lease_export export;

  return world->donors[d].table && !donor_has_lease (&world->donors[d], vm->map[d].incarnation, vm->map[d].lease, &export);
}

static void
lose (struct world *world, struct sim_vm *vm, uint32_t d) {
  struct channel *channel = &vm->channels[d];

  if (!world->donors[d].liar && world->donors[d].running && vm->map[d].lease && !is_gone (world, vm, d))
    WRONG (world, vm, "takes what donor %u has for lost, and it is there", d);
  world->lost++;
  memset (vm->map[d].valid, 0, sizeof vm->map[d].valid);
  vm->map[d].lease = 0;
  memset (vm->map[d].incarnation, 0, LEASE_ID_BYTES);
  data_over (world, channel);
  memset (channel->maybe, 0, sizeof channel->maybe);
  lease_borrower_begin_anew (&channel->lease);
}

/* ATTACHED: the lease is noted before the first copy in it counts. What the donor may have and the map does not know is trimmed
 * some time. */
static void
note_attached (struct world *world, struct sim_vm *vm, uint32_t d) {
  struct channel *channel = &vm->channels[d];
  const struct lease_borrower_options *now = &channel->lease.options;

  if (vm->map[d].lease && !world->donors[d].liar
      && (vm->map[d].lease != now->lease || memcmp (vm->map[d].incarnation, now->incarnation, LEASE_ID_BYTES) != 0))
    WRONG (world, vm, "is attached to another lease of donor %u than its copies are in", d);
  channel->attached_at = world->now;
  vm->map[d].lease = now->lease;
  memcpy (vm->map[d].incarnation, now->incarnation, LEASE_ID_BYTES);
  for (uint32_t place = 0; place < world->plan.places; place++)
    channel->maybe[place] = TRUE;
}

static void
dial_data (struct world *world, struct channel *channel, uint32_t vm, uint32_t d) {
  struct message open = { .kind = SAY_OPEN };

  channel->data_conn = world_connect (world, vm, d, FALSE);
  channel->data_since = world->now;
  world_conn (world, channel->data_conn)->session = channel->lease.session;
  lease_borrower_export_name (&channel->lease, (char *)open.bytes);
  world_send (world, channel->data_conn, THERE, &open);
  channel->data_up = world_below (world, 4) == 0; /* one that does not wait for the answer */
}

static void
drive_lease (struct world *world, struct sim_vm *vm, uint32_t d) {
  struct channel *channel = &vm->channels[d];
  struct message message = { .kind = SAY_LEASE };
  struct lease_request request;

  if (channel->lease_conn
      && (lease_borrower_timed_out (&channel->lease, world->now)
          || (!channel->lease_up && world->now - channel->lease_since > CONNECT_MS)))
    lease_over (world, channel);
  if (!channel->lease_conn && world->now >= channel->lease_retry) {
    channel->lease_conn = world_connect (world, vm->number, d, TRUE);
    channel->lease_since = world->now;
  }
  if (channel->lease_up && lease_borrower_next (&channel->lease, world->now, &request)) {
    lease_request_encode (&request, message.bytes);
    world_send (world, channel->lease_conn, THERE, &message);
  }
}

static void
drive (struct world *world, struct sim_vm *vm, uint32_t d) {
  struct channel *channel = &vm->channels[d];

  drive_lease (world, vm, d);
  for (unsigned i = 0; i < FLIGHTS_MAX; i++)
    if (channel->flights[i].used && world->now > channel->flights[i].deadline) {
      data_over (world, channel);
      break;
    }
  if (channel->data_conn
      && (channel->lease.state != LEASE_ATTACHED || (!channel->data_up && world->now - channel->data_since > CONNECT_MS)))
    data_over (world, channel);
  if (!channel->data_conn && channel->lease.state == LEASE_ATTACHED && world->now >= channel->data_retry)
    dial_data (world, channel, vm->number, d);
}

/* ---- what a worker does ---- */

static void
change_place (struct world *world, struct sim_vm *vm, uint32_t place) {
  if (!place_is_quiet (world, vm, place))
    return;
  for (uint32_t d = 0; d < world->plan.donors; d++)
    vm->map[d].valid[place] = FALSE;
  vm->version[place]++;
  for (unsigned page = 0; page < PAGES; page++)
    vm->truth[place][page] = ++world->numbers;
}

static void
trim (struct world *world, struct sim_vm *vm, uint32_t d, uint32_t place) {
  if (has_flight (&vm->channels[d], place))
    return;
  vm->map[d].valid[place] = FALSE;
  (void)ask (world, vm, d, SAY_TRIM, place);
}

/* Down to what a revoke leaves: first what is no copy, then copies (the local storage has them). */
static void
make_room (struct world *world, struct sim_vm *vm, uint32_t d) {
  struct channel *channel = &vm->channels[d];
  const uint64_t level = channel->lease.revoke ? channel->lease.revoke_level : channel->lease.wanted;
  uint64_t n = channel->lease.used;

  for (uint32_t place = 0; place < world->plan.places; place++)
    if (channel->maybe[place] && !vm->map[d].valid[place] && (n > level || world_below (world, 10) == 0))
      trim (world, vm, d, place);
  for (uint32_t place = 0; place < world->plan.places && n > level; place++)
    if (vm->map[d].valid[place]) {
      trim (world, vm, d, place);
      n--;
    }
}

static void
use (struct world *world, struct sim_vm *vm, uint32_t d) {
  const uint32_t place = (uint32_t)world_below (world, world->plan.places);
  struct channel *channel = &vm->channels[d];

  make_room (world, vm, d);
  switch (world_below (world, 6)) {
  case 0:
    if (vm->map[d].valid[place])
      trim (world, vm, d, place);
    break;
  case 1:
    if (vm->map[d].valid[place] && !has_flight (channel, place))
      (void)ask (world, vm, d, SAY_READ, place);
    break;
  default:
    if (!vm->map[d].valid[place] && !has_flight (channel, place) && !channel->lease.revoke)
      (void)ask (world, vm, d, SAY_WRITE, place);
  }
}

void
vm_tick (struct world *world, struct sim_vm *vm) {
  for (uint32_t d = 0; d < world->plan.donors; d++) {
    struct channel *channel = &vm->channels[d];

    if (world_below (world, 60) == 0)
      lease_borrower_want (&channel->lease, world_below (world, world->plan.places + 1));
    if (vm->ending)
      lease_borrower_end (&channel->lease);
    drive (world, vm, d);
    for (uint64_t n = 1 + world_below (world, 4); n && can_ask (channel) && !vm->ending; n--)
      use (world, vm, d);
  }
  if (world_below (world, 3))
    change_place (world, vm, (uint32_t)world_below (world, world->plan.places));
  if (vm->ending && world->now > vm->ended_at + 8000) {
    vm_end (world, vm);
    return;
  }
  world_at (world, world->now + TICK_MS / 2 + world_below (world, TICK_MS), EVENT_VM_TICK, vm->number, vm->life);
}

/* ---- what it hears ---- */

static void
hear_answer (struct world *world, struct sim_vm *vm, uint32_t d, const struct message *message) {
  struct channel *channel = &vm->channels[d];
  const enum lease_borrower_state before = channel->lease.state;
  const uint64_t epoch = channel->lease.epoch;
  struct lease_answer answer;

  if (!lease_answer_decode (message->bytes, LEASE_ANSWER_BYTES, &answer)
      || !lease_borrower_answer (&channel->lease, world->now, &answer)) {
    if (!world->donors[d].liar)
      WRONG (world, vm, "finds an honest answer of donor %u senseless", d);
    lease_over (world, channel);
    return;
  }
  if (!channel->lease.under_way) {
    channel->settled_session = channel->lease.request.session;
    channel->settled_seq = channel->lease.request.session == channel->lease.session ? channel->lease.seq : UINT64_MAX;
  }
  if (channel->lease.state == LEASE_LOST)
    lose (world, vm, d);
  else if (channel->lease.state == LEASE_ATTACHED && (before != LEASE_ATTACHED || epoch != channel->lease.epoch))
    note_attached (world, vm, d);
  drive (world, vm, d);
}

static void
hear_data (struct world *world, struct sim_vm *vm, uint32_t d, const struct message *message) {
  struct channel *channel = &vm->channels[d];
  const struct flight flight = channel->flights[message->cookie];
  const uint32_t place = message->block;

  if (!flight.used)
    WRONG (world, vm, "hears what it has not asked donor %u for", d);
  channel->flights[message->cookie].used = FALSE;
  if (message->error == ESTALE) {
    channel->flights[message->cookie].used = TRUE; /* refused, but it is no harm to count it as unknown */
    data_over (world, channel);
    return;
  }
  if (flight.kind == SAY_TRIM && !message->error) {
    channel->maybe[place] = FALSE;
    lease_borrower_hurry (&channel->lease);
  } else if (flight.kind == SAY_WRITE && message->error == ENOSPC) {
    channel->maybe[place] = FALSE;
  } else if (flight.kind == SAY_WRITE && !message->error && flight.version == vm->version[place]) {
    vm->map[d].valid[place] = TRUE;
  } else if (flight.kind == SAY_READ && flight.version == vm->version[place] && vm->map[d].valid[place]) {
    if (memcmp (message->pages, vm->truth[place], sizeof message->pages) != 0) {
      if (!world->donors[d].liar)
        WRONG (world, vm, "reads place %u from donor %u, and it is not what was written", place, d);
      vm->map[d].valid[place] = FALSE; /* the seals say so */
    }
    world->bytes_checked += sizeof message->pages;
  }
}

void
vm_hear (struct world *world, uint32_t number, const struct message *message) {
  const struct conn *conn = world_conn (world, number);
  struct sim_vm *vm = world->vms[conn->vm];
  const uint32_t d = conn->donor;
  struct channel *channel = &vm->channels[d];

  switch (message->kind) {
  case SAY_CONNECT:
    if (conn->is_lease) {
      channel->lease_up = TRUE;
      lease_borrower_connected (&channel->lease, world->now);
      drive (world, vm, d);
    }
    break;
  case SAY_CLOSE:
    if (conn->is_lease)
      lease_over (world, channel);
    else
      data_over (world, channel);
    break;
  case SAY_OPEN:
    if (message->error) {
      data_over (world, channel);
      lease_borrower_hurry (&channel->lease);
    } else {
      channel->data_up = TRUE;
    }
    break;
  case SAY_LEASE:
    hear_answer (world, vm, d, message);
    break;
  default:
    hear_data (world, vm, d, message);
  }
}

/* ---- what must be so ---- */

/* Each copy that counts is there, unless what it is in is gone for certain. */
void
vm_check (struct world *world, struct sim_vm *vm) {
  for (uint32_t d = 0; vm->alive && d < world->plan.donors; d++) {
    const struct sim_donor *donor = &world->donors[d];
    struct lease_export export;
    uint64_t block;

    if (donor->liar || !donor->running || !vm->map[d].lease
        || !donor_has_lease (donor, vm->map[d].incarnation, vm->map[d].lease, &export))
      continue;
    for (uint32_t place = 0; place < world->plan.places; place++) {
      if (!vm->map[d].valid[place])
        continue;
      if (!lease_donor_look (donor->table, &export, place, &block))
        WRONG (world, vm, "its copy of place %u at donor %u is not there any more", place, d);
      if (memcmp (donor->arena[block], vm->truth[place], sizeof vm->truth[place]) != 0)
        WRONG (world, vm, "its copy of place %u at donor %u is something else", place, d);
    }
  }
}

/* When nothing has gone wrong for a while. */
void
vm_check_calm (struct world *world, struct sim_vm *vm) {
  for (uint32_t d = 0; vm->running && !vm->ending && d < world->plan.donors; d++) {
    const struct channel *channel = &vm->channels[d];
    const struct lease_borrower *lease = &channel->lease;
    struct lease_info info;

    if (world->donors[d].liar)
      continue;
    if (lease->state == LEASE_REFUSED && lease->verdict == LEASE_LIMIT)
      continue; /* more VMs have lived than there is room for */
    if (lease->state == LEASE_ATTACHED && world->now - channel->attached_at < CONNECT_MS)
      continue; /* there was no room before */
    if (lease->state != LEASE_ATTACHED || !channel->data_up)
      WRONG (world, vm, "is not attached to donor %u: state %d, verdict %d", d, lease->state, lease->verdict);
    for (uint32_t slot = 0; slot < LEASES_MAX; slot++) {
      if (!lease_donor_lease (world->donors[d].table, slot, &info))
        continue;
      if (info.lease == lease->options.lease && info.revoke)
        WRONG (world, vm,
               "has not done what donor %u has revoked: level %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
               ", used %" G_GUINT64_FORMAT,
               d, info.level, info.revoke_level, info.used);
      if (info.level && strcmp (info.identity, vm_identity (world, vm->number)) == 0
          && memcmp (info.boot, lease->options.boot, LEASE_ID_BYTES) != 0)
        WRONG (world, vm, "donor %u keeps lease %" G_GUINT64_FORMAT " of an earlier boot", d, info.lease);
    }
  }
}
