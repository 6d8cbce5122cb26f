/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/live-far.h"
#include "attach/live-disk.h"
#include "attach/live.h"
#include "ctl/text.h"
#include "host/launch.h"

#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES ((guint64)DOMAIN_BLOCK_BYTES)

static const char THEM[] = "its far disks";

/* ---- what is there ---- */

gboolean
live_far_is (const char *xml, const DomainFar *far) {
  g_auto (DomainFar) there = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];

  if (!domain_read_far (xml, &there, queues, NULL))
    return domain_far_is_none (far);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (there.bytes[tier] != far->bytes[tier] || (there.bytes[tier] && !queues[tier]))
      return FALSE;
  return there.compress == far->compress && there.wear_bytes == far->wear_bytes && there.protection == far->protection
         && g_strcmp0 (there.storage, far->storage) == 0;
}

gboolean
live_far_check (const Vm *vm, const char *xml, const DomainFar *far, GError **error) {
  gboolean there[DOMAIN_FAR_TIERS];

  if (!vm->have_far && domain_far_there (xml, there) == 0)
    return domain_check_live_far (xml, far, error);
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
               "the running VM has other far disks; 'domybsctl detach %s --far --live' takes them out first, or restart the VM",
               vm->word);
  return FALSE;
}

/* ---- steps ---- */

/* far NULL: it has none any more. */
static gboolean
set_metadata (const Vm *vm, ctl_domain_t *domain, const char *xml, const DomainFar *far, GError **error) {
  g_autofree char *element = NULL;

  if (domain_metadata_with_far (xml, far, &element, error))
    return live_disks_set_metadata (vm, domain, element, error);
  vm_prefix_error (vm, error);
  return FALSE;
}

/* As live_disks_take_out. */
static gboolean
take_out (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, GError **error) {
  g_autoptr (GPtrArray) aliases = g_ptr_array_new_with_free_func (g_free);

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    g_ptr_array_add (aliases, domain_far_alias (tier));
  return live_disks_take_out (ctl, vm, domain, aliases, THEM, error);
}

/* ---- plug ---- */

/* What was plugged before one failed. When the guest does not let go of it, it stays as it is, and can be detached later. */
static void
undo (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, const char *xml) {
  g_autofree char *now = ctl_domain_xml (domain, 0, NULL);
  gboolean there[DOMAIN_FAR_TIERS];

  if (!now || (domain_far_there (now, there) && !take_out (ctl, vm, domain, NULL))) {
    ctl_warn (ctl,
              "domain '%s': some of its far disks were plugged in, and the guest does not let go of them; "
              "'domybsctl detach %s --far --live' takes them out",
              vm->label, vm->word);
    return;
  }
  set_metadata (vm, domain, xml, NULL, NULL);
  launch_far_stop (vm->uuid, NULL);
}

static gboolean
plug (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, const char *xml, const DomainFar *far, GError **error) {
  g_autofree char *dac_label = domain_read_dac_label (xml), *socket_path = launch_socket_path (vm->uuid),
                  *object = g_strdup_printf ("domain '%s'", vm->label);
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };
  unsigned queues[DOMAIN_FAR_TIERS];
  g_autoptr (GPtrArray) devices = domain_far_devices (xml, far, socket_path, queues, error);

  if (!devices || !launch_far_start (&identity, far, queues, vm->attached, dac_label, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (!set_metadata (vm, domain, xml, far, error)) {
    launch_far_stop (vm->uuid, NULL);
    return FALSE;
  }
  for (guint i = 0; i < devices->len; i++)
    if (virDomainAttachDeviceFlags (domain, devices->pdata[i], VIR_DOMAIN_AFFECT_LIVE) < 0) {
      ctl_libvirt_error (error, object, "libvirt can't plug in a far disk", "nothing was changed");
      undo (ctl, vm, domain, xml);
      return FALSE;
    }
  return TRUE;
}

gboolean
live_far_plug (Ctl *ctl, ctl_domain_t *domain, const DomainFar *far, gboolean *ret_changed, GError **error) {
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);
  gboolean ok;

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  ok = live_far_is (xml, far);
  if (!ok) {
    ctl_interrupt_begin (ctl); /* it is a matter of moments, and nothing may stay half done */
    ok = live_far_check (vm, xml, far, error);
    if (!ok)
      vm_prefix_error (vm, error);
    else
      *ret_changed = ok = plug (ctl, vm, domain, xml, far, error);
    ctl_interrupt_end (ctl);
  }
  close (lock);
  return ok;
}

/* ---- unplug ---- */

static gboolean
refuse_full (const Vm *vm, DomainFarTier tier, guint64 blocks, GError **error) {
  const gboolean swap = tier == DOMAIN_FAR_SHARED || tier == DOMAIN_FAR_REMOTE;
  g_autofree char *bytes = text_size (blocks * BLOCK_BYTES);

  g_set_error (
      error, CTL_ERROR, CTL_ERROR_REFUSED,
      "domain '%s': not detached: something of the guest is on its far disk '%s' (in blocks of %s); %s, then do it again",
      vm->label, domain_far_tier_name (tier), bytes,
      swap ? "run 'domybs-swap stop' in the guest" : "end the programs in the guest that have memory there");
  return FALSE;
}

/* Whether nothing is on any of them. One that is gone has lost all already, which is no reason to keep it. */
static gboolean
check_empty (Ctl *ctl, Vm *vm, const gboolean *there, GError **error) {
  g_autofree char *path = launch_far_control_path (vm->uuid);

  if (control_client_nobody (path)) {
    ctl_warn (ctl, "domain '%s': its domybs-far is gone, and with it all that the guest had on its far disks", vm->label);
    return TRUE;
  }
  vm_ask (vm);
  if (vm->far_problem) {
    g_set_error (error, CTL_ERROR, vm->far_problem->code,
                 "domain '%s': not detached: whether something of the guest is on its far disks can't be told: %s", vm->label,
                 vm->far_problem->message);
    return FALSE;
  }
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const VmFarDisk *disk = &vm->far_status.disks[tier];

    if (there[tier] && disk->there && disk->blocks_in_use == VM_UNKNOWN) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                   "domain '%s': not detached: its domybs-far does not say what is on far disk '%s'; 'domybsctl backend "
                   "upgrade %s', then do it again",
                   vm->label, domain_far_tier_name (tier), vm->word);
      return FALSE;
    }
    if (there[tier] && disk->there && disk->blocks_in_use)
      return refuse_full (vm, tier, disk->blocks_in_use, error);
  }
  return TRUE;
}

static gboolean
empty_and_take_out (Ctl *ctl, Vm *vm, ctl_domain_t *domain, const gboolean *there, GError **error) {
  g_autoptr (GError) reason = NULL;
  gboolean ok;

  if (!check_empty (ctl, vm, there, error))
    return FALSE;
  ctl_interrupt_begin (ctl);
  ok = take_out (ctl, vm, domain, &reason);
  ctl_interrupt_end (ctl);
  if (reason)
    g_propagate_error (error, g_steal_pointer (&reason));
  else if (!ok)
    live_disks_not_let_go (ctl, vm, THEM, error);
  return ok;
}

gboolean
live_far_unplug (Ctl *ctl, ctl_domain_t *domain, gboolean *ret_changed, GError **error) {
  gboolean there[DOMAIN_FAR_TIERS], ok, any;
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  any = domain_far_there (xml, there) > 0;
  ok = !any || empty_and_take_out (ctl, vm, domain, there, error);
  if (ok) {
    ctl_interrupt_begin (ctl);
    ok = launch_far_stop (vm->uuid, error);
    if (!ok)
      vm_prefix_error (vm, error);
    else
      ok = !vm->have_far || set_metadata (vm, domain, xml, NULL, error);
    ctl_interrupt_end (ctl);
    *ret_changed = any || vm->have_far;
  }
  close (lock);
  return ok;
}
