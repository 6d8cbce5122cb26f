/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/live.h"
#include "attach/monitor.h"
#include "host/launch.h"
#include "ctl/resize-run.h"
#include "ctl/text.h"

#include <string.h>
#include <unistd.h>

#define BLOCK_SHIFT 21

/* QEMU frees the chardev some time after the device has gone (0.7 s were seen). */
#define CHARDEV_FREE_TIMEOUT_MS 10000
#define CHARDEV_FREE_POLL_MS 100

/* ---- steps ---- */

static gboolean
set_metadata (const Vm *vm, ctl_domain_t *domain, const char *xml, const DomainMemory *memory, GError **error) {
  g_autofree char *element = domain_metadata_for_libvirt (xml, memory, error);

  if (!element) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (virDomainSetMetadata (domain, VIR_DOMAIN_METADATA_ELEMENT, element, DOMAIN_METADATA_PREFIX, DOMAIN_METADATA_URI,
                            VIR_DOMAIN_AFFECT_LIVE)
      == 0)
    return TRUE;
  ctl_libvirt_error (error, "libvirt", "can't set its live metadata", NULL);
  vm_prefix_error (vm, error);
  return FALSE;
}

static gboolean
add_chardev (ctl_domain_t *domain, const char *socket_path, GError **error) {
  JsonObject *arguments = json_object_new (), *backend = json_object_new (), *data = json_object_new (),
             *address = json_object_new (), *address_data = json_object_new ();
  g_autoptr (JsonNode) answer = NULL;

  json_object_set_string_member (address_data, "path", socket_path);
  json_object_set_string_member (address, "type", "unix");
  json_object_set_object_member (address, "data", address_data);
  json_object_set_object_member (data, "addr", address);
  json_object_set_boolean_member (data, "server", FALSE); /* and no "reconnect": QEMU would abort at the first one */
  json_object_set_string_member (backend, "type", "socket");
  json_object_set_object_member (backend, "data", data);
  json_object_set_string_member (arguments, "id", DOMAIN_CHARDEV_ID);
  json_object_set_object_member (arguments, "backend", backend);
  answer = monitor_execute (domain, "chardev-add", arguments, error);
  return answer != NULL;
}

static gboolean
add_device (ctl_domain_t *domain, GError **error) {
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonNode) answer = NULL;

  json_object_set_string_member (arguments, "driver", DOMAIN_DEVICE_DRIVER);
  json_object_set_string_member (arguments, "id", DOMAIN_DEVICE_ID);
  json_object_set_string_member (arguments, "bus", DOMAIN_PORT_ID);
  json_object_set_string_member (arguments, "chardev", DOMAIN_CHARDEV_ID);
  json_object_set_int_member (arguments, "virtio-id", DOMAIN_DEVICE_VIRTIO_ID);
  json_object_set_int_member (arguments, "num_vqs", DOMAIN_DEVICE_QUEUES);
  json_object_set_int_member (arguments, "config_size", DOMAIN_DEVICE_CONFIG_BYTES);
  answer = monitor_execute (domain, "device_add", arguments, error);
  return answer != NULL;
}

static JsonObject *
id_argument (const char *id) {
  JsonObject *arguments = json_object_new ();

  json_object_set_string_member (arguments, "id", id);
  return arguments;
}

/* Removes the chardev if it is there, as soon as QEMU does not use it any more. */
static gboolean
remove_chardev (ctl_domain_t *domain, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + CHARDEV_FREE_TIMEOUT_MS * (gint64)1000;

  for (;;) {
    g_autoptr (GError) reason = NULL;
    g_autoptr (JsonNode) answer = NULL;
    gboolean has;

    if (!monitor_has_chardev (domain, DOMAIN_CHARDEV_ID, &has, error))
      return FALSE;
    if (!has)
      return TRUE;
    answer = monitor_execute (domain, "chardev-remove", id_argument (DOMAIN_CHARDEV_ID), &reason);
    if (answer)
      return TRUE;
    if (g_get_monotonic_time () > deadline) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return FALSE;
    }
    g_usleep (CHARDEV_FREE_POLL_MS * 1000);
  }
}

/* ---- plug ---- */

static gboolean
plug (const Vm *vm, ctl_domain_t *domain, const char *xml, const DomainMemory *memory, GError **error) {
  g_autofree char *dac_label = domain_read_dac_label (xml), *socket_path = launch_socket_path (vm->uuid);
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };
  DomainMemory before = vm->memory;
  gboolean said = FALSE, has_chardev = FALSE;

  before.present = FALSE;
  if (!launch_start (&identity, memory, dac_label, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  said = set_metadata (vm, domain, xml, memory, error);
  has_chardev = said && add_chardev (domain, socket_path, error);
  if (has_chardev && add_device (domain, error))
    return TRUE;
  if (has_chardev)
    remove_chardev (domain, NULL);
  if (said)
    set_metadata (vm, domain, xml, &before, NULL);
  launch_stop (vm->uuid, NULL);
  return FALSE;
}

Vm *
live_lock (ctl_domain_t *domain, int *ret_lock, char **ret_xml, GError **error) {
  char uuid[VIR_UUID_STRING_BUFLEN];
  g_autoptr (Vm) vm = NULL;

  if (virDomainGetUUIDString (domain, uuid) < 0) {
    ctl_libvirt_error (error, "libvirt", "can't read a domain's UUID", "try again");
    return NULL;
  }
  *ret_lock = launch_lock_plug (uuid, error);
  if (*ret_lock < 0) {
    g_prefix_error (error, "domain '%s': ", ctl_domain_label (domain));
    return NULL;
  }
  vm = vm_read (domain, error);
  *ret_xml = vm ? ctl_domain_xml (domain, 0, error) : NULL;
  if (*ret_xml)
    return g_steal_pointer (&vm);
  close (*ret_lock);
  return NULL;
}

gboolean
live_plug (Ctl *ctl, ctl_domain_t *domain, const DomainMemory *memory, gboolean *ret_changed, GError **error) {
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);
  gboolean has, ok;

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  ctl_interrupt_begin (ctl); /* it is a matter of moments, and nothing may stay half done */
  ok = monitor_has_device (domain, DOMAIN_DEVICE_ID, &has, error);
  if (ok && has && vm_is_gone (vm)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': the device that it has is dead, its back-end is gone; 'domybsctl detach %s --live' takes it out "
                 "first",
                 vm->label, vm->word);
    ok = FALSE;
  } else if (ok && has)
    ok = vm->memory.present || set_metadata (vm, domain, xml, memory, error);
  else if (ok)
    *ret_changed = ok = remove_chardev (domain, error) && plug (vm, domain, xml, memory, error);
  ctl_interrupt_end (ctl);
  close (lock);
  return ok;
}

/* ---- unplug ---- */

/* The way back: what the host wanted before holds again. */
static void
restore_target (Ctl *ctl, const Vm *vm, ControlClient *client, const VmStatus *before) {
  g_autoptr (GError) error = NULL;

  if (!resize_set_target (client, before->have_target, before->target_blocks, &error))
    ctl_warn (ctl, "domain '%s': its target stays 0: %s", vm->label, error->message);
}

static char *
target_text (const VmStatus *status) {
  return status->have_target ? text_size (status->target_blocks << BLOCK_SHIFT) : g_strdup ("auto");
}

static void
json_result (Ctl *ctl, const VmStatus *before, const ResizeOutcome *outcome) {
  ctl_json_bytes (ctl, "start-bytes", before->granted_blocks << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "reached-bytes", outcome->reached_blocks << BLOCK_SHIFT);
  ctl_json_string (ctl, "reason", resize_reason_name (outcome->reason));
  ctl_json_bytes (ctl, "stuck-bytes", outcome->stuck_blocks << BLOCK_SHIFT);
}

/* Brings the guest to nothing; the target is 0 then, so that it takes nothing new until the device is gone. */
static gboolean
empty (Ctl *ctl, const Vm *vm, ControlClient *client, const VmStatus *before, int timeout_ms, GError **error) {
  const ResizeRequest request = { .goal_blocks = 0, .timeout_ms = timeout_ms, .paused = vm->state == VM_PAUSED };
  g_autofree char *target = target_text (before), *reached = NULL, *why = NULL;
  ResizeOutcome outcome = { 0 };
  VmStatus status = { 0 };

  if (!resize_run (ctl, client, vm->label, &request, &outcome, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  json_result (ctl, before, &outcome);
  if (outcome.verdict != RESIZE_REACHED) {
    reached = text_size (outcome.reached_blocks << BLOCK_SHIFT);
    why = ctl->interrupted ? g_strdup ("it was interrupted; do it again")
                           : resize_explain (outcome.reason, &status, outcome.stuck_blocks, vm->word);
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                 "domain '%s': not detached: it could be shrunk to %s and not to 0: %s (its target is %s again)", vm->label,
                 reached, why, target);
  }
  vm_status_clear (&status);
  return outcome.verdict == RESIZE_REACHED;
}

/* Asks the guest to let go of the device, and waits. FALSE without error: it did not in that time, or there was an interrupt.
 */
static gboolean
delete_device (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, int timeout_ms, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + timeout_ms * (gint64)1000;
  g_autoptr (CtlProgress) progress = ctl_progress_new (ctl, vm->label);
  g_autoptr (GError) reason = NULL;
  g_autoptr (JsonNode) answer = monitor_execute (domain, "device_del", id_argument (DOMAIN_DEVICE_ID), &reason);
  gboolean has;

  /* Asked for before, when the guest was not listening. */
  if (!answer && !strstr (reason->message, "already in the process of unplug")) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  for (;;) {
    if (!monitor_has_device (domain, DOMAIN_DEVICE_ID, &has, error))
      return FALSE;
    if (!has)
      return TRUE;
    if (ctl_interrupted (ctl) || g_get_monotonic_time () > deadline)
      break;
    ctl_progress_show (progress, -1, "waiting for the guest to let go of the device");
    ctl_wait (ctl, -1, LIVE_LET_GO_POLL_MS);
  }
  return FALSE;
}

/* What is left when the device has gone. */
static gboolean
clean_up (const Vm *vm, ctl_domain_t *domain, const char *xml, GError **error) {
  DomainMemory memory = vm->memory;

  memory.present = FALSE;
  if (!remove_chardev (domain, error))
    return FALSE;
  if (!launch_stop (vm->uuid, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  return !vm->memory.present || set_metadata (vm, domain, xml, &memory, error);
}

/* Without a back-end nobody can ask the guest to shrink, nor count what it has. But its driver empties a device that is to go
 * by itself, and does not wait for answers for long while it does. */
static gboolean
delete_of_gone (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, int timeout_ms, GError **error) {
  g_autoptr (GError) reason = NULL;
  gboolean ok;

  ctl_json_bool (ctl, "backend-gone", TRUE);
  ctl_interrupt_begin (ctl);
  ok = delete_device (ctl, vm, domain, timeout_ms + LIVE_LET_GO_TIMEOUT_MS, &reason);
  ctl_interrupt_end (ctl);
  if (reason)
    g_propagate_error (error, g_steal_pointer (&reason));
  else if (!ok)
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                 "domain '%s': not detached: its back-end is gone, and the guest %s; it stays asked to; %s and do it again",
                 vm->label,
                 ctl->interrupted ? "was not waited for to let go of the device" : "did not let go of the device in time",
                 "end something in it that needs the memory, see that it is not paused,");
  return ok;
}

static gboolean
empty_and_delete (Ctl *ctl, const Vm *vm, ctl_domain_t *domain, int timeout_ms, GError **error) {
  g_autofree char *path = launch_control_path (vm->uuid);
  g_autoptr (GError) reason = NULL;
  g_autoptr (ControlClient) client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, &reason);
  VmStatus before = { 0 };
  gboolean ok;

  if (!client && control_client_nobody (path))
    return delete_of_gone (ctl, vm, domain, timeout_ms, error);
  if (!client || !resize_status (client, &before, &reason)) {
    /* What the guest has can't be told then, nor taken back. */
    g_propagate_prefixed_error (error, g_steal_pointer (&reason), "domain '%s': not detached: ", vm->label);
    return FALSE;
  }
  ok = empty (ctl, vm, client, &before, timeout_ms, error);
  if (ok) {
    ctl_interrupt_begin (ctl);
    ok = delete_device (ctl, vm, domain, LIVE_LET_GO_TIMEOUT_MS, &reason);
    ctl_interrupt_end (ctl);
    if (reason)
      g_propagate_error (error, g_steal_pointer (&reason));
    else if (!ok)
      g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                   "domain '%s': not detached: it has given back all memory, but %s; %s", vm->label,
                   ctl->interrupted ? "it was not waited for the guest to let go of the device"
                                    : "the guest did not let go of the device within 30 s",
                   ctl->interrupted ? "do it again"
                                    : "see that it is up, not paused, and has PCI hot-plug (pciehp), then do it again");
  }
  if (!ok)
    restore_target (ctl, vm, client, &before);
  vm_status_clear (&before);
  return ok;
}

gboolean
live_unplug (Ctl *ctl, ctl_domain_t *domain, int timeout_ms, gboolean *ret_changed, GError **error) {
  g_autofree char *xml = NULL;
  int lock;
  g_autoptr (Vm) vm = live_lock (domain, &lock, &xml, error);
  gboolean has, ok;

  *ret_changed = FALSE;
  if (!vm)
    return FALSE;
  ok = monitor_has_device (domain, DOMAIN_DEVICE_ID, &has, error)
       && (!has || empty_and_delete (ctl, vm, domain, timeout_ms, error));
  if (ok) {
    ctl_interrupt_begin (ctl);
    ok = clean_up (vm, domain, xml, error);
    ctl_interrupt_end (ctl);
    *ret_changed = has;
  }
  close (lock);
  return ok;
}
