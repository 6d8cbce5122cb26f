/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor-live.h"
#include "core/size.h"
#include "ctl/control-client.h"
#include "ctl/text.h"
#include "ctl/vm-far.h"
#include "host/launch.h"

#include <string.h>

#define LOOK_MS 300
/* A domybs-far that is being changed says so, and is asked again. */
#define AGAIN_MS 100
#define AGAIN_TIMES 50
#define PLACE_BYTES (2ull << 20)

typedef struct {
  char *uuid, *label; /* label: the VM's name, escaped, or the UUID */
  ControlClient *client;
  gboolean there; /* it has the donor */
  gboolean changed;
  guint64 copies; /* that are with it */
  char *why;      /* why it can't have it, or why it waits */
} Vm;

static void
vm_free (gpointer data) {
  Vm *vm = data;

  g_clear_pointer (&vm->client, control_client_free);
  g_free (vm->uuid);
  g_free (vm->label);
  g_free (vm->why);
  g_free (vm);
}

/* ---- who runs ---- */

static GPtrArray *
find_vms (void) {
  GPtrArray *vms = g_ptr_array_new_with_free_func (vm_free);
  g_autofree char *folder = g_build_filename (launch_rundir (), "vm", NULL);
  GDir *entries = g_dir_open (folder, 0, NULL);
  const char *uuid;

  while (entries && (uuid = g_dir_read_name (entries))) {
    g_autofree char *path = g_uuid_string_is_valid (uuid) ? launch_far_control_path (uuid) : NULL;
    g_autoptr (GError) error = NULL;
    Vm *vm;

    if (!path || control_client_nobody (path))
      continue;
    vm = g_new0 (Vm, 1);
    vm->uuid = g_strdup (uuid);
    vm->label = g_strdup (uuid);
    vm->client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, &error);
    if (!vm->client)
      vm->why = g_strdup (error->message);
    g_ptr_array_add (vms, vm);
  }
  if (entries)
    g_dir_close (entries);
  return vms;
}

/* What it says of the donor now. */
static void
look (Vm *vm, const char *name) {
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) answer
      = vm->client ? control_client_execute (vm->client, "status", NULL, CONTROL_CLIENT_TIMEOUT_MS, &error) : NULL;
  g_autofree char *vm_name = answer ? vm_json_text (answer, "name") : NULL;
  VmFarStatus status;

  if (!answer || !vm_far_read (answer, &status, &error)) {
    g_autofree char *path = launch_far_control_path (vm->uuid);

    if (control_client_nobody (path)) { /* the VM has ended, and what was there with it */
      vm->there = FALSE;
      vm->copies = 0;
      g_clear_pointer (&vm->why, g_free);
      return;
    }
    if (error) {
      g_free (vm->why);
      vm->why = g_strdup (error->message);
    }
    return;
  }
  if (vm_name) {
    g_free (vm->label);
    vm->label = ctl_escape (vm_name);
  }
  vm->there = FALSE;
  vm->copies = 0;
  g_clear_pointer (&vm->why, g_free);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const VmCopies *copies = &status.disks[tier].copies;

    for (unsigned i = 0; status.disks[tier].there && i < copies->n_donors; i++) {
      const VmCopyDonor *donor = &copies->donors[i];

      if (g_strcmp0 (donor->name, name) != 0)
        continue;
      vm->there = TRUE;
      for (const guint64 *count = (const guint64[]){ donor->copies, donor->suspect, donor->old, VM_UNKNOWN }, *end = count + 3;
           count < end; count++)
        vm->copies += *count == VM_UNKNOWN ? 0 : *count;
      g_free (vm->why);
      vm->why = donor->why ? g_strdup_printf ("it can't be reached (%s)", donor->why) : NULL;
      if (!vm->why)
        vm->why = status.disks[tier].unreachable ? g_strdup ("its storage can't be reached") : vm_copies_trouble (copies);
    }
  }
  vm_far_clear (&status);
}

/* FALSE: vm->why says why not. */
static gboolean
order (Ctl *ctl, Vm *vm, const char *command, JsonObject *arguments) {
  for (int turn = 0; vm->client; turn++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (JsonObject) answer
        = control_client_execute (vm->client, command, json_object_ref (arguments), CONTROL_CLIENT_TIMEOUT_MS, &error);

    if (answer) {
      vm->changed |= vm_json_bool (answer, "changed");
      return TRUE;
    }
    if (turn < AGAIN_TIMES && strstr (error->message, "in a moment") && !ctl_interrupted (ctl)) {
      ctl_wait (ctl, -1, AGAIN_MS);
      continue;
    }
    g_free (vm->why);
    vm->why = g_strdup (error->message);
    return FALSE;
  }
  return FALSE;
}

static void
json_vms (Ctl *ctl, GPtrArray *vms) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "vms");
  json_builder_begin_array (builder);
  for (guint i = 0; i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "name", vm->label);
    ctl_json_string (ctl, "uuid", vm->uuid);
    ctl_json_bool (ctl, "changed", vm->changed);
    ctl_json_int (ctl, "copies", (gint64)vm->copies);
    ctl_json_string (ctl, "problem", vm->why);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}

gboolean
donor_live_is_there (const char *name) {
  g_autoptr (GPtrArray) vms = find_vms ();
  gboolean any = FALSE;

  for (guint i = 0; i < vms->len && !any; i++) {
    look (vms->pdata[i], name);
    any = ((const Vm *)vms->pdata[i])->there;
  }
  return any;
}

/* ---- one comes ---- */

static JsonObject *
donor_arguments (const HostDonor *donor, GError **error) {
  g_autofree char *identity = NULL, *key = NULL;
  JsonObject *arguments;
  guint64 bytes;

  if (!host_donor_key (donor, &identity, &key, error))
    return NULL;
  arguments = json_object_new ();
  json_object_set_string_member (arguments, "name", donor->name);
  json_object_set_string_member (arguments, "address", donor->address);
  if (donor->domain)
    json_object_set_string_member (arguments, "domain", donor->domain);
  json_object_set_string_member (arguments, "identity", identity);
  json_object_set_string_member (arguments, "key", key);
  if (donor->size && size_parse (donor->size, &bytes))
    json_object_set_int_member (arguments, "bytes", (gint64)MIN (bytes, (guint64)G_MAXINT64));
  return arguments;
}

void
donor_live_add (Ctl *ctl, const HostDonor *donor) {
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) arguments = donor_arguments (donor, &error);
  g_autoptr (GPtrArray) vms = find_vms ();
  guint n = 0;

  for (guint i = 0; arguments && i < vms->len; i++) {
    Vm *vm = vms->pdata[i];
    gboolean ok;

    look (vm, donor->name);
    g_clear_pointer (&vm->why, g_free);
    ok = order (ctl, vm, "add-donor", arguments);
    n += ok;
    if (!ok)
      ctl_warn (ctl, "VM '%s' that runs does without it: %s", vm->label, vm->why ? vm->why : "it can't be asked");
  }
  if (error)
    ctl_warn (ctl, "VMs that run do without it: %s", error->message);
  json_vms (ctl, vms);
  if (n)
    ctl_say (ctl, "%u VM%s that run%s borrow%s from it from now on, too.", n, n == 1 ? "" : "s", n == 1 ? "s" : "",
             n == 1 ? "s" : "");
}

/* ---- one goes ---- */

/* Copies that are still with it, over all VMs; *ret_left: VMs that have it. */
static guint64
look_at_all (GPtrArray *vms, const char *name, guint *ret_left) {
  guint64 copies = 0;

  *ret_left = 0;
  for (guint i = 0; i < vms->len; i++) {
    Vm *vm = vms->pdata[i];

    if (!vm->there)
      continue;
    look (vm, name);
    *ret_left += vm->there;
    copies += vm->copies;
  }
  return copies;
}

static gboolean
still_there (Ctl *ctl, GPtrArray *vms, const char *name, GError **error) {
  for (guint i = 0; i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];
    g_autofree char *size = text_size_short (vm->copies * PLACE_BYTES);

    if (vm->there)
      return ctl_fail (
          error, CTL_ERROR_FAILED,
          "donor '%s': %s of VM '%s' are still there%s%s; the order stays, and 'domybsctl donor remove %s' shows how "
          "far it is",
          name, size, vm->label, vm->why ? ": " : "", vm->why ? vm->why : "", name);
  }
  return TRUE;
}

gboolean
donor_live_remove (Ctl *ctl, const char *name, int wait_s, GError **error) {
  g_autoptr (JsonObject) arguments = json_object_new ();
  g_autoptr (GPtrArray) vms = find_vms ();
  g_autoptr (CtlProgress) progress = NULL;
  const gint64 deadline = g_get_monotonic_time () + (gint64)wait_s * G_USEC_PER_SEC;
  guint64 copies, most = 0;
  guint left, had = 0;
  gboolean ok;

  json_object_set_string_member (arguments, "name", name);
  ctl_interrupt_begin (ctl);
  for (guint i = 0; i < vms->len; i++) {
    Vm *vm = vms->pdata[i];

    look (vm, name);
    if (!vm->there && vm->why)
      ctl_warn (ctl, "VM '%s' that runs may keep what it has there: %s", vm->label, vm->why);
    if (!vm->there)
      continue;
    had++;
    if (!order (ctl, vm, "remove-donor", arguments)) {
      ctl_warn (ctl, "VM '%s' that runs keeps what it has there: %s", vm->label, vm->why ? vm->why : "it can't be asked");
      vm->there = FALSE;
      had--;
    }
  }
  progress = ctl_progress_new (ctl, name);
  for (;;) {
    g_autofree char *size = NULL, *text = NULL;

    copies = look_at_all (vms, name, &left);
    most = MAX (most, copies);
    if (!left || g_get_monotonic_time () >= deadline || ctl_interrupted (ctl))
      break;
    size = text_size_short (copies * PLACE_BYTES);
    text = g_strdup_printf ("%s of %u VM%s still there", size, left, left == 1 ? "" : "s");
    ctl_progress_show (progress, most ? 1 - (double)copies / (double)most : -1, text);
    ctl_wait (ctl, -1, LOOK_MS);
  }
  g_clear_pointer (&progress, ctl_progress_end);
  ctl_interrupt_end (ctl);
  json_vms (ctl, vms);
  ok = still_there (ctl, vms, name, error);
  if (ok && had)
    ctl_say (ctl, "%u VM%s that run%s %s nothing there any more.", had, had == 1 ? "" : "s", had == 1 ? "s" : "",
             had == 1 ? "has" : "have");
  return ok;
}
