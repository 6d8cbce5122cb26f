/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a guest wants to have ready of far memory, and what is known of it: between the guest's requests and device/far-link. */
#include "device/backend-internal.h"

void
backend_tell_levels (Backend *backend) {
  if (backend->levels_changed)
    backend->levels_changed (backend->levels_data);
}

void
backend_reserve (Backend *backend, struct device_plan *plan) {
  const BackendFarTier *tier = &backend->far.tiers[device_far_tier (plan->request.reserve.tier)];
  enum device_outcome outcome = DEVICE_DONE;

  if (!backend->far.is_connected)
    outcome = DEVICE_RETRY;
  else if (!tier->is_there)
    outcome = DEVICE_NO_TIER;
  else if (tier->is_full && tier->reserved_blocks < plan->request.reserve.blocks)
    outcome = DEVICE_NO_HOST_CAPACITY;
  memory_device_finish (&backend->device, plan, outcome, tier->reserved_blocks, 0);
  backend_tell_levels (backend);
}

void
backend_watch_levels (Backend *backend, BackendChanged changed, gpointer data) {
  backend->levels_changed = changed;
  backend->levels_data = data;
}

/* Whether a RESERVE that got less than it asked for may get more now. */
static gboolean
far_has_more (const BackendFar *before, const BackendFar *now) {
  if (now->is_connected && !before->is_connected)
    return TRUE;
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++)
    if (before->tiers[i].is_full && !now->tiers[i].is_full)
      return TRUE;
  return FALSE;
}

void
backend_set_far (Backend *backend, const BackendFar *far) {
  const BackendFar before = backend->far;

  backend->far = *far;
  if (!far_has_more (&before, far) || !backend->device.far_offer_wanted || !backend->device.session || backend->busy_mode)
    return;
  backend->device.far_offer_wanted = false;
  guest_events_offer (&backend->events);
  backend_commit (backend);
  backend_send_events (backend);
}

void
backend_set_level (Backend *backend, unsigned tier, uint64_t blocks) {
  if (!backend->device.levels[tier].known)
    backend->device.levels[tier] = (struct device_level){ true, blocks };
}
