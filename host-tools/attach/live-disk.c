/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/live-disk.h"
#include "attach/live.h"
#include "domain/domain.h"

#include <libvirt/virterror.h>
#include <string.h>

gboolean
live_disks_set_metadata (const Vm *vm, ctl_domain_t *domain, const char *element, GError **error) {
  if (virDomainSetMetadata (domain, VIR_DOMAIN_METADATA_ELEMENT, element, element ? DOMAIN_METADATA_PREFIX : NULL,
                            DOMAIN_METADATA_URI, VIR_DOMAIN_AFFECT_LIVE)
          == 0
      || (!element && virGetLastErrorCode () == VIR_ERR_NO_DOMAIN_METADATA))
    return TRUE;
  ctl_libvirt_error (error, "libvirt", "can't set its live metadata", NULL);
  vm_prefix_error (vm, error);
  return FALSE;
}

/* Asks the guest for them. Once only: a second request takes back the first one, as a second push of a slot's button does; QEMU
 * refuses it for some time. */
static gboolean
ask_for (const Vm *vm, ctl_domain_t *domain, GPtrArray *aliases, GError **error) {
  g_autofree char *object = g_strdup_printf ("domain '%s'", vm->label);

  for (guint i = 0; i < aliases->len; i++) {
    if (virDomainDetachDeviceAlias (domain, aliases->pdata[i], VIR_DOMAIN_AFFECT_LIVE) == 0
        || virGetLastErrorCode () == VIR_ERR_DEVICE_MISSING || strstr (virGetLastErrorMessage (), "in the process of unplug"))
      continue;
    return ctl_libvirt_error (error, object, "not detached: libvirt can't unplug its disk", "see that QEMU still runs");
  }
  return TRUE;
}

gboolean
live_disks_take_out (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, GPtrArray *aliases, const char *what, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + LIVE_LET_GO_TIMEOUT_MS * (gint64)1000;
  g_autoptr (CtlProgress) progress = ctl_progress_new (ctl, vm->label);
  g_autofree char *text = g_strdup_printf ("waiting for the guest to let go of %s", what);
  gboolean asked = FALSE;

  for (;;) {
    g_autofree char *xml = ctl_domain_xml (domain, 0, error);
    g_autoptr (GPtrArray) there = xml ? domain_disks_there (xml, aliases) : NULL;

    if (!xml)
      return FALSE;
    if (there->len == 0)
      return TRUE;
    if (!asked && !ask_for (vm, domain, there, error))
      return FALSE;
    asked = TRUE;
    if (ctl_interrupted (ctl) || g_get_monotonic_time () > deadline)
      return FALSE;
    ctl_progress_show (progress, -1, text);
    ctl_wait (ctl, -1, LIVE_LET_GO_POLL_MS);
  }
}

void
live_disks_not_let_go (Ctl *ctl, const Vm *vm, const char *what, GError **error) {
  if (ctl->interrupted)
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                 "domain '%s': not detached: it was not waited for the guest to let go of %s; do it again", vm->label, what);
  else
    g_set_error (
        error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
        "domain '%s': not detached: the guest did not let go of %s within 30 s; see that it is up, not paused, and has "
        "PCI hot-plug (pciehp), then do it again",
        vm->label, what);
}
