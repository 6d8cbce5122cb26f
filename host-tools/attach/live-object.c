/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/live-object.h"
#include "attach/live-disk.h"
#include "attach/live.h"
#include "host/launch.h"

#include <unistd.h>

static const char THEM[] = "its objects' disks";

gboolean
live_objects_check (const char *xml, const DomainObjects *objects, unsigned others, DomainObjects *ret_missing,
                    GError **error) {
  DomainObjects there;

  domain_objects_there (xml, &there);
  *ret_missing = *objects;
  domain_objects_remove (ret_missing, &there);
  if (!ret_missing->n)
    return TRUE;
  if (there.n + ret_missing->n > DOMAIN_OBJECTS_MAX) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the running VM would have %u objects, and it can have %u; detach one first", there.n + ret_missing->n,
                 DOMAIN_OBJECTS_MAX);
    return FALSE;
  }
  return domain_check_live_objects (xml, ret_missing, others, error);
}

/* The element with `added` (NULL: none) more objects, and without `gone` (NULL: all). */
static gboolean
set_metadata (const Vm *vm, ctl_domain_t *domain, const char *added, const DomainObjects *gone, GError **error) {
  g_autofree char *xml = ctl_domain_xml (domain, 0, error), *element = NULL;
  DomainObjects objects = { 0 };

  if (!xml)
    return FALSE;
  (void)domain_read_objects (xml, &objects, NULL); /* what is damaged is refused right below */
  if (!gone)
    objects.n = 0;
  else
    domain_objects_remove (&objects, gone);
  if (added)
    domain_objects_add (&objects, added);
  if (domain_metadata_with_objects (xml, &objects, &element, error))
    return live_disks_set_metadata (vm, domain, element, error);
  vm_prefix_error (vm, error);
  return FALSE;
}

/* ---- plug ---- */

static gboolean
plug_one (const Vm *vm, ctl_domain_t *domain, const char *name, GError **error) {
  g_autofree char *xml = ctl_domain_xml (domain, 0, error), *dac_label = xml ? domain_read_dac_label (xml) : NULL,
                  *socket_path = launch_socket_path (vm->uuid), *label = g_strdup_printf ("domain '%s'", vm->label),
                  *device = NULL, *doing = g_strdup_printf ("libvirt can't plug in object '%s'", name);
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };
  const DomainObjects none = { 0 };
  DomainObjects one = { 0 };

  domain_objects_add (&one, name);
  if (!xml)
    return FALSE;
  device = domain_object_device (xml, name, socket_path, &one.items[0].queues, error);
  if (!device || !launch_object_start (&identity, &one.items[0], dac_label, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (set_metadata (vm, domain, name, &none, error)) {
    if (virDomainAttachDeviceFlags (domain, device, VIR_DOMAIN_AFFECT_LIVE) == 0)
      return TRUE;
    ctl_libvirt_error (error, label, doing, "see QEMU's log in /var/log/libvirt/qemu");
    set_metadata (vm, domain, NULL, &one, NULL);
  }
  launch_object_stop (vm->uuid, name, NULL);
  return FALSE;
}

gboolean
live_objects_plug (Ctl *ctl, ctl_domain_t *domain, const DomainObjects *objects, gboolean *ret_changed, GError **error) {
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);
  DomainObjects missing;
  gboolean ok;

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  ctl_interrupt_begin (ctl); /* it is a matter of moments, and nothing may stay half done */
  ok = live_objects_check (xml, objects, 0, &missing, error);
  if (!ok)
    vm_prefix_error (vm, error);
  for (unsigned i = 0; ok && i < missing.n; i++) {
    ok = plug_one (vm, domain, missing.items[i].name, error);
    *ret_changed |= ok;
  }
  ctl_interrupt_end (ctl);
  close (lock);
  return ok;
}

/* ---- unplug ---- */

static gboolean
take_out (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, const DomainObjects *objects, GError **error) {
  g_autoptr (GPtrArray) aliases = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) reason = NULL;

  for (unsigned i = 0; i < objects->n; i++)
    g_ptr_array_add (aliases, domain_object_alias (objects->items[i].name));
  if (live_disks_take_out (ctl, vm, domain, aliases, THEM, &reason))
    return TRUE;
  if (reason)
    g_propagate_error (error, g_steal_pointer (&reason));
  else
    live_disks_not_let_go (ctl, vm, THEM, error);
  return FALSE;
}

gboolean
live_objects_unplug (Ctl *ctl, ctl_domain_t *domain, const DomainObjects *objects, gboolean *ret_changed, GError **error) {
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);
  DomainObjects gone, others;
  gboolean ok;

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  domain_objects_there (xml, &gone);
  for (unsigned i = 0; i < vm->objects.n; i++)
    domain_objects_add (&gone, vm->objects.items[i].name);
  if (objects) {
    others = gone;
    domain_objects_remove (&others, objects);
    domain_objects_remove (&gone, &others);
  }
  ctl_interrupt_begin (ctl);
  ok = !gone.n || take_out (ctl, vm, domain, &gone, error);
  for (unsigned i = 0; ok && i < gone.n; i++) {
    ok = launch_object_stop (vm->uuid, gone.items[i].name, error);
    if (!ok)
      vm_prefix_error (vm, error);
  }
  ok = ok && (!gone.n || !vm->have_objects || set_metadata (vm, domain, NULL, &gone, error));
  *ret_changed = ok && gone.n;
  ctl_interrupt_end (ctl);
  close (lock);
  return ok;
}
