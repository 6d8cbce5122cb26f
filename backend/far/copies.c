/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/copies-internal.h"
#include "io/error.h"

#include <string.h>

/* ---- what is known of donors ---- */

static guint64
level_of (const Donor *donor) {
  const struct lease_answer *lease = &donor->figures.lease;

  if (donor->options.leaves)
    return 0;
  return lease->revoke ? MIN (lease->level, lease->revoke_level) : lease->level;
}

const struct copies_policy *
copies_policy_now (FarCopies *c) {
  gint64 since;

  for (guint d = 0; d < c->options.n_donors; d++) {
    const Donor *donor = &c->donors[d];
    const guint64 used = copies_used (c->map, d), level = level_of (donor);

    if (donor->up)
      c->policy.donors[d] = (donor->figures.lease.revoke || donor->options.leaves) && used > level ? COPIES_DONOR_LEAVING : COPIES_DONOR_UP;
    else
      c->policy.donors[d] = donor->away_source ? COPIES_DONOR_AWAY : COPIES_DONOR_GONE;
    c->policy.room[d] = donor->up && level > used ? level - used : 0;
    c->policy.free[d] = donor->figures.lease.free;
  }
  c->policy.local_down = !storage_is_reachable (c->local, &since);
  return &c->policy;
}

void
copies_update_wants (FarCopies *c) {
  if (c->ending || c->closing)
    return;
  for (guint d = 0; d < c->options.n_donors; d++) {
    Donor *donor = &c->donors[d];
    const struct lease_answer *lease = &donor->figures.lease;
    const struct copies_need need = { .used = copies_used (c->map, d),
                                      .asked = donor->wanted,
                                      .free = donor->up ? lease->free : G_MAXUINT64,
                                      .most = MIN (donor->options.blocks_max, c->options.n_places),
                                      .grows = c->options.mode != COPIES_STORAGE,
                                      .is_revoked = lease->revoke != 0 || donor->options.leaves,
                                      .revoke_level = donor->options.leaves ? 0 : lease->revoke_level };
    const guint64 wanted = copies_want (&need);

    if (wanted == donor->wanted || !donor->channel || donor->ending)
      continue;
    donor->wanted = wanted;
    page_channel_want (donor->channel, wanted);
  }
}

/* ---- donors come and go ---- */

static gboolean
on_change (gpointer data) {
  FarCopies *c = data;

  source_clear (&c->change_source);
  copies_update_wants (c);
  copies_io_retry (c);
  copies_repair_wake (c);
  copies_kick (c);
  return G_SOURCE_REMOVE;
}

/* Not from within the channel's call. */
static void
note_change (FarCopies *c) {
  if (!c->change_source && !c->closing)
    c->change_source = source_timeout (0, on_change, c);
}

static gboolean
on_away (gpointer data) {
  Donor *donor = data;

  source_clear (&donor->away_source);
  g_warning ("%s: donor %s can't be reached for %u s: its copies are made elsewhere", donor->copies->name, donor->options.name,
             donor->copies->options.away_ms / 1000);
  note_change (donor->copies);
  return G_SOURCE_REMOVE;
}

static void
gone_for_certain (Donor *donor, guint64 gone) {
  donor->life++;
  if (gone)
    g_warning ("%s: donor %s has lost what it had: %" G_GUINT64_FORMAT " copies of 2 MiB; they are made anew",
               donor->copies->name, donor->options.name, gone);
}

static void
attached (Donor *donor) {
  FarCopies *c = donor->copies;
  const struct lease_answer *lease = &donor->figures.lease;
  guint8 incarnation[LEASE_ID_BYTES];
  guint64 number;

  copies_donor (c->map, donor->number, incarnation, &number);
  if (number != lease->lease || memcmp (incarnation, lease->incarnation, sizeof incarnation) != 0)
    gone_for_certain (donor, copies_donor_attached (c->map, donor->number, lease->incarnation, lease->lease));
  if (!donor->up)
    g_message ("%s: donor %s: attached, %" G_GUINT64_FORMAT " blocks in use there", c->name, donor->options.name,
               copies_used (c->map, donor->number));
  donor->up = TRUE;
  source_clear (&donor->away_source);
}

static void
detached (Donor *donor) {
  FarCopies *c = donor->copies;

  if (!donor->up)
    return;
  donor->up = FALSE;
  g_warning ("%s: donor %s: %s", c->name, donor->options.name, donor->figures.why ? donor->figures.why : "it can't be reached");
  donor->away_source = source_timeout (c->options.away_ms, on_away, donor);
}

static void
on_changed (PageChannel *channel, gpointer data) {
  Donor *donor = data;
  FarCopies *c = donor->copies;
  const struct lease_answer was = donor->figures.lease;
  const gboolean was_up = donor->up;

  page_channel_figures (channel, &donor->figures);
  if (c->ending || c->closing || donor->ending)
    return;
  switch (donor->figures.state) {
  case PAGE_CHANNEL_ATTACHED:
    attached (donor);
    break;
  case PAGE_CHANNEL_LOST:
    detached (donor);
    gone_for_certain (donor, copies_donor_lost (c->map, donor->number));
    page_channel_begin_anew (channel);
    break;
  case PAGE_CHANNEL_DOWN:
  case PAGE_CHANNEL_REFUSED:
  default:
    detached (donor);
  }
  if (was_up != donor->up || was.level != donor->figures.lease.level || was.revoke != donor->figures.lease.revoke
      || was.revoke_level != donor->figures.lease.revoke_level || was.lease != donor->figures.lease.lease
      || !was.free != !donor->figures.lease.free)
    note_change (c);
}

/* ---- as storage ---- */

static void
settled (gpointer data) {
  FarCopies *c = data;

  storage_settle (&c->base);
  copies_repair_wake (c);
}

static void
carry_out_discards (FarCopies *c) {
  struct storage_discard *discard;

  while ((discard = storage_next_discard (&c->base))) {
    const guint32 first = (guint32)(discard->offset / PLACE_BYTES), n = (guint32)(discard->bytes / PLACE_BYTES);

    for (guint32 p = first; p < first + n; p++) {
      c->generations[p]++;
      copies_discard (c->map, p);
    }
    storage_discard (c->local, discard->offset, discard->bytes);
    c->local_kick = TRUE;
    storage_discard_ended (&c->base, discard);
    copies_repair_wake (c);
  }
}

void
copies_kick (FarCopies *c) {
  if (c->closing)
    return;
  carry_out_discards (c);
  if (c->local_kick)
    storage_kick (c->local);
  c->local_kick = FALSE;
  for (guint d = 0; d < c->options.n_donors; d++)
    if (c->donors[d].kick) {
      c->donors[d].kick = FALSE;
      page_channel_kick (c->donors[d].channel);
    }
}

static void
kick (Storage *storage) {
  copies_kick ((FarCopies *)storage);
}

static unsigned
reap (Storage *storage) {
  return storage_reap (((FarCopies *)storage)->local);
}

static gboolean
allocate (Storage *storage, guint64 offset, guint64 bytes, GError **error) {
  return storage_allocate (((FarCopies *)storage)->local, offset, bytes, error);
}

static gboolean
wears (Storage *storage, guint64 offset) {
  FarCopies *c = (FarCopies *)storage;
  struct copies_plan plan;

  copies_plan_write (copies_policy_now (c), c->map, (guint32)(offset / PLACE_BYTES), &plan);
  return plan.add & COPIES_LOCAL_BIT;
}

static void
clear (Storage *storage) {
  FarCopies *c = (FarCopies *)storage;

  c->closing = TRUE;
  source_clear (&c->change_source);
  source_clear (&c->end_source);
  copies_repair_clear (c);
  for (guint d = 0; d < c->options.n_donors; d++) {
    source_clear (&c->donors[d].away_source);
    g_clear_pointer (&c->donors[d].channel, page_channel_free);
  }
  g_clear_pointer (&c->local, storage_free);
  copies_io_clear (c);
  g_clear_pointer (&c->busy, g_hash_table_unref);
  g_clear_pointer (&c->map, copies_close);
  g_free (c->generations);
  g_free (c->name);
}

static const struct storage_kind copies_kind = {
  .submit = copies_io_submit,
  .kick = kick,
  .reap = reap,
  .allocate = allocate,
  .discards_depth = 1,
  .read_again = copies_io_read_again,
  .wears = wears,
  .free = clear,
};

/* ---- life ---- */

static gboolean
open_donor (FarCopies *c, guint d, GError **error) {
  Donor *donor = &c->donors[d];
  const PageChannelWatch watch = { .changed = on_changed, .data = donor };
  PageChannelOptions options = { .disk = c->options.disk, .worker = c->options.worker, .export_blocks = c->options.n_places };

  donor->copies = c;
  donor->number = d;
  donor->options = c->options.donors[d];
  if (!donor->options.name) { /* it has left */
    copies_donor_left (c->map, d);
    return TRUE;
  }
  options.name = donor->options.name;
  options.address = donor->options.address;
  options.psk_identity = donor->options.psk_identity;
  options.psk = donor->options.psk;
  options.psk_bytes = donor->options.psk_bytes;
  memcpy (options.vm, c->options.vm, sizeof options.vm);
  memcpy (options.host, c->options.host, sizeof options.host);
  memcpy (options.boot, c->options.boot, sizeof options.boot);
  copies_donor (c->map, d, options.incarnation, &options.lease);
  donor->channel = page_channel_new (&options, &watch, error);
  if (!donor->channel)
    return FALSE;
  page_channel_figures (donor->channel, &donor->figures);
  /* Until it was tried, nobody knows. */
  donor->away_source = source_timeout (c->options.away_ms, on_away, donor);
  return TRUE;
}

static void
make_placement (FarCopies *c) {
  guint32 domains[COPIES_DONORS_MAX] = { 0 };
  guint64 seed;

  for (guint d = 0; d < c->options.n_donors; d++) {
    domains[d] = d;
    for (guint other = 0; other < d && domains[d] == d; other++)
      if (g_strcmp0 (c->options.donors[other].domain, c->options.donors[d].domain) == 0)
        domains[d] = other; /* the first one of the same domain, which gives it its number */
  }
  memcpy (&seed, c->options.vm, sizeof seed);
  placement_init (&c->policy.placement, c->options.n_donors, domains, copies_wanted_donors (c->options.mode),
                  PLACEMENT_SCATTER_DEFAULT, seed);
}

Storage *
far_copies_new (const FarCopiesOptions *options, Storage *local, void *state, gsize state_bytes, GError **error) {
  FarCopies *c = g_new0 (FarCopies, 1);
  const char *why;

  storage_init (&c->base, &copies_kind, options->n_places * PLACE_BYTES, g_strdup (storage_description (local)));
  c->local = local;
  c->options = *options;
  c->options.repair_rate = options->repair_rate ? options->repair_rate : FAR_REPAIR_RATE_DEFAULT;
  c->options.away_ms = options->away_ms ? options->away_ms : FAR_AWAY_MS_DEFAULT;
  c->options.deadline_ms = options->deadline_ms ? options->deadline_ms : FAR_DEADLINE_MS_DEFAULT;
  c->options.n_donors = 0; /* those that are there */
  c->name = g_strdup (options->name);
  c->policy.mode = options->mode;
  c->policy.n_donors = options->n_donors;
  c->tokens_at = g_get_monotonic_time ();
  c->busy = g_hash_table_new (NULL, NULL);
  c->generations = g_new0 (guint32, options->n_places);
  c->map = copies_open (state, state_bytes, options->n_places, &why);
  if (!c->map) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "%s: can't go on with its copies: %s", options->name, why);
    storage_free (&c->base);
    return NULL;
  }
  for (guint d = 0; d < options->n_donors; d++) {
    if (!open_donor (c, d, error)) {
      storage_free (&c->base);
      return NULL;
    }
    c->options.n_donors++;
  }
  for (guint d = options->n_donors; d < COPIES_DONORS_MAX; d++)
    copies_donor_left (c->map, d); /* it had the highest number */
  make_placement (c);
  copies_update_wants (c);
  storage_on_settled (local, settled, c);
  return &c->base;
}

FarCopies *
far_copies_of (Storage *storage) {
  return (FarCopies *)storage;
}

/* ---- the end ---- */

static gboolean
on_ended (gpointer data) {
  FarCopies *c = data;

  source_clear (&c->end_source);
  c->end_done (c->end_data);
  return G_SOURCE_REMOVE;
}

static void
one_ended (gpointer data, gboolean ok) {
  Donor *donor = data;
  FarCopies *c = donor->copies;

  if (!ok)
    g_warning ("%s: donor %s did not answer at the end: it keeps what it has of this VM until its operator says 'forget', or "
               "for a day",
               c->name, donor->options.name);
  if (--c->end_left == 0 && !c->end_source)
    c->end_source = source_timeout (0, on_ended, c);
}

void
far_copies_end (FarCopies *c, guint timeout_ms, void (*done) (gpointer data), gpointer data) {
  if (c->ending)
    return;
  c->ending = TRUE;
  c->end_done = done;
  c->end_data = data;
  for (guint d = 0; d < c->options.n_donors; d++)
    c->end_left += c->donors[d].channel && !c->donors[d].ending;
  if (c->end_left == 0)
    c->end_source = source_timeout (0, on_ended, c);
  for (guint d = 0; d < c->options.n_donors; d++)
    if (c->donors[d].channel && !c->donors[d].ending)
      page_channel_end_lease (c->donors[d].channel, timeout_ms, one_ended, &c->donors[d]);
}

void
far_copies_donor_leaves (FarCopies *c, guint d, gboolean leaves) {
  c->donors[d].options.leaves = leaves;
  note_change (c);
}

void
far_copies_donor_end (FarCopies *c, guint d, guint timeout_ms, void (*done) (gpointer data, gboolean ok), gpointer data) {
  c->donors[d].ending = TRUE;
  c->donors[d].up = FALSE;
  page_channel_end_lease (c->donors[d].channel, timeout_ms, done, data);
}

/* ---- figures ---- */

void
far_copies_figures (FarCopies *c, FarCopiesFigures *ret_figures) {
  const struct copies_policy *policy = copies_policy_now (c);
  struct copies_protection protection;
  struct copies_figures map;

  *ret_figures = c->figures;
  ret_figures->mode = c->options.mode;
  ret_figures->n_donors = c->options.n_donors;
  copies_protection (policy, c->map, &protection);
  ret_figures->places = protection.places;
  ret_figures->protected = protection.is_protected;
  ret_figures->degraded = protection.degraded;
  ret_figures->endangered = protection.endangered;
  copies_figures (c->map, &map);
  ret_figures->lost = map.lost;
  ret_figures->local_valid = map.count[COPIES_LOCAL][COPY_VALID];
  ret_figures->waiting = c->n_waiting;
  ret_figures->repairs_under_way = c->repairs_under_way;
  ret_figures->repairing = c->repairs_under_way || c->trims_under_way || (c->scan_wanted && c->repair_source);
}

void
far_copies_donor_figures (FarCopies *c, guint d, FarDonorFigures *ret_figures) {
  const Donor *donor = &c->donors[d];
  const struct copies_policy *policy = copies_policy_now (c);
  struct copies_figures map;

  copies_figures (c->map, &map);
  *ret_figures = (FarDonorFigures){ .name = donor->options.name,
                                    .domain = donor->options.domain,
                                    .address = donor->options.address,
                                    .state = policy->donors[d],
                                    .valid = map.count[1 + d][COPY_VALID],
                                    .old = map.count[1 + d][COPY_OLD],
                                    .suspect = map.count[1 + d][COPY_SUSPECT],
                                    .wanted_blocks = donor->wanted,
                                    .damaged = donor->damaged,
                                    .failed_writes = donor->failed_writes,
                                    .read_p50_us = (guint64)c->speeds[1 + d].p50_us,
                                    .read_p95_us = (guint64)c->speeds[1 + d].p95_us,
                                    .leaves = donor->options.leaves };
  if (donor->channel)
    page_channel_figures (donor->channel, &ret_figures->channel);
}
