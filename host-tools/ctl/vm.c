/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm.h"
#include "host/launch.h"

#include <libvirt/virterror.h>
#include <string.h>

void
vm_free (Vm *vm) {
  g_free (vm->name);
  g_free (vm->uuid);
  vm_status_clear (&vm->status);
  domain_far_clear (&vm->far);
  vm_far_clear (&vm->far_status);
  for (unsigned i = 0; i < DOMAIN_OBJECTS_MAX; i++) {
    vm_object_clear (&vm->object_status[i]);
    g_clear_error (&vm->object_problems[i]);
  }
  g_free (vm->dac_label);
  g_clear_error (&vm->far_problem);
  g_clear_error (&vm->problem);
  g_free (vm);
}

const char *
vm_state_text (VmState state) {
  static const char *const texts[] = {
    [VM_SHUT_OFF] = "shut off", [VM_RUNNING] = "running", [VM_PAUSED] = "paused",
    [VM_CRASHED] = "crashed",   [VM_OTHER] = "other",
  };

  return texts[state];
}

static VmState
state_of (int state) {
  switch (state) {
  case VIR_DOMAIN_RUNNING:
  case VIR_DOMAIN_BLOCKED:
  case VIR_DOMAIN_SHUTDOWN: /* being shut down */
    return VM_RUNNING;
  case VIR_DOMAIN_PAUSED:
    return VM_PAUSED;
  case VIR_DOMAIN_SHUTOFF:
    return VM_SHUT_OFF;
  case VIR_DOMAIN_CRASHED:
    return VM_CRASHED;
  default:
    return VM_OTHER;
  }
}

static const char *
shell_word (const char *label) {
  g_autofree char *quoted = NULL;

  if (strspn (label, G_CSET_a_2_z G_CSET_A_2_Z G_CSET_DIGITS "-_.+:@%/") == strlen (label))
    return label;
  quoted = g_shell_quote (label);
  return g_intern_string (quoted);
}

/* Whether there is metadata of ours; a cheap question. FALSE with error set: it can't be said. */
static gboolean
has_metadata (ctl_domain_t *domain, unsigned flags, GError **error) {
  char *element = virDomainGetMetadata (domain, VIR_DOMAIN_METADATA_ELEMENT, DOMAIN_METADATA_URI, flags);

  if (!element && virGetLastErrorCode () != VIR_ERR_NO_DOMAIN_METADATA)
    ctl_libvirt_error (error, "libvirt", "can't read its metadata", NULL);
  free (element);
  return element != NULL;
}

/* Sets what is attached or pending, or problem. FALSE: the domain is gone. */
static gboolean
read_memory (Vm *vm, ctl_domain_t *domain, GError **error) {
  g_autoptr (GError) reason = NULL;
  gboolean there = has_metadata (domain, 0, &reason), pending = FALSE;
  unsigned flags = 0, queues[DOMAIN_FAR_TIERS];
  char *xml;

  if (g_error_matches (reason, CTL_ERROR, CTL_ERROR_NOT_FOUND)) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  if (!there && !reason && vm->id >= 0 && virDomainIsPersistent (domain) == 1) {
    there = has_metadata (domain, VIR_DOMAIN_AFFECT_CONFIG, NULL);
    pending = TRUE;
    flags = VIR_DOMAIN_XML_INACTIVE;
  }
  vm->problem = g_steal_pointer (&reason);
  if (!there)
    return TRUE;
  xml = ctl_domain_xml (domain, flags, error);
  if (!xml)
    return FALSE;
  *(pending ? &vm->pending : &vm->attached) = domain_read_memory (xml, &vm->memory, &vm->problem);
  *(pending ? &vm->far_pending : &vm->have_far) = !vm->problem && domain_read_far (xml, &vm->far, queues, &vm->problem);
  *(pending ? &vm->objects_pending : &vm->have_objects) = !vm->problem && domain_read_objects (xml, &vm->objects, &vm->problem);
  if (vm->objects.n)
    vm->dac_label = domain_read_dac_label (xml);
  free (xml);
  return TRUE;
}

Vm *
vm_read (ctl_domain_t *domain, GError **error) {
  g_autoptr (Vm) vm = g_new0 (Vm, 1);
  char uuid[VIR_UUID_STRING_BUFLEN];
  int state;

  vm->name = g_strdup (virDomainGetName (domain));
  vm->label = ctl_domain_label (domain);
  vm->word = shell_word (vm->label);
  vm->id = (int)virDomainGetID (domain);
  if (virDomainGetUUIDString (domain, uuid) < 0 || virDomainGetState (domain, &state, NULL, 0) < 0) {
    g_autofree char *object = g_strdup_printf ("domain '%s'", vm->label);

    ctl_libvirt_error (error, object, "can't ask for its state", NULL);
    return NULL;
  }
  vm->uuid = g_strdup (uuid);
  vm->state = state_of (state);
  return read_memory (vm, domain, error) ? g_steal_pointer (&vm) : NULL;
}

static gboolean
should_have_backend (const Vm *vm) {
  return vm->attached && vm->memory.present && vm->id >= 0;
}

char *
vm_log_path (const Vm *vm) {
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };

  return launch_log_path (&identity);
}

gboolean
vm_is_gone (Vm *vm) {
  g_autofree char *path = launch_control_path (vm->uuid);

  vm->gone = should_have_backend (vm) && control_client_nobody (path);
  return vm->gone;
}

void
vm_gone_error (const Vm *vm, GError **error) {
  const int pid = (int)launch_last_pid (vm->uuid);
  g_autofree char *process = pid ? g_strdup_printf (" (process %d)", pid) : g_strdup ("");
  g_autofree char *log = vm_log_path (vm);

  g_set_error (
      error, CTL_ERROR, CTL_ERROR_ACCESS,
      "its back-end%s is gone and QEMU runs on: the guest keeps the memory that it has, but can get and give back none, and "
      "QEMU would end if it rebooted; 'domybsctl detach %s --live' and then 'domybsctl attach %s --live' give it a new "
      "one, %s may say what happened",
      process, vm->word, vm->word, log);
}

static void
take_answer (Vm *vm, JsonObject *answer, GError *error) {
  if (answer) {
    vm->have_status = vm_status_read (answer, &vm->status, &vm->problem);
  } else if (vm_is_gone (vm)) {
    vm_gone_error (vm, &vm->problem);
    g_error_free (error);
  } else {
    vm->problem = error;
  }
}

static void
ask_all (Vm **vms, unsigned n) {
  g_autofree char **paths = g_new0 (char *, n);
  g_autofree JsonObject **answers = g_new0 (JsonObject *, n);
  g_autofree GError **errors = g_new0 (GError *, n);

  for (unsigned i = 0; i < n; i++)
    if (should_have_backend (vms[i]))
      paths[i] = launch_control_path (vms[i]->uuid);
  control_client_gather ((const char *const *)paths, n, "status", VM_GATHER_MS, answers, errors);
  for (unsigned i = 0; i < n; i++) {
    if (paths[i])
      take_answer (vms[i], answers[i], errors[i]);
    g_clear_pointer (&answers[i], json_object_unref);
    g_free (paths[i]);
  }
}

char *
vm_far_log_path (const Vm *vm) {
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };

  return launch_far_log_path (&identity);
}

void
vm_far_gone_error (const Vm *vm, GError **error) {
  g_autofree char *log = vm_far_log_path (vm);

  g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS,
               "its domybs-far is gone, and with it all that the guest has in far memory: programs of the guest that need it "
               "wait for ever; 'virsh destroy %s' and start it again, %s may say what happened",
               vm->word, log);
}

static void
take_far_answer (Vm *vm, const char *path, JsonObject *answer, GError *error) {
  if (answer) {
    vm->have_far_status = vm_far_read (answer, &vm->far_status, &vm->far_problem);
  } else if (control_client_nobody (path)) {
    vm_far_gone_error (vm, &vm->far_problem);
    g_error_free (error);
  } else {
    vm->far_problem = error;
  }
}

static void
ask_all_far (Vm **vms, unsigned n) {
  g_autofree char **paths = g_new0 (char *, n);
  g_autofree JsonObject **answers = g_new0 (JsonObject *, n);
  g_autofree GError **errors = g_new0 (GError *, n);
  gboolean any = FALSE;

  for (unsigned i = 0; i < n; i++)
    if (vms[i]->have_far && vms[i]->id >= 0) {
      paths[i] = launch_far_control_path (vms[i]->uuid);
      any = TRUE;
    }
  if (any)
    control_client_gather ((const char *const *)paths, n, "status", VM_GATHER_MS, answers, errors);
  for (unsigned i = 0; i < n; i++) {
    if (paths[i])
      take_far_answer (vms[i], paths[i], answers[i], errors[i]);
    g_clear_pointer (&answers[i], json_object_unref);
    g_free (paths[i]);
  }
}

/* ---- objects ---- */

gboolean
vm_object_is_served (const Vm *vm, unsigned number) {
  return vm->have_objects && vm->id >= 0 && number < vm->objects.n && vm->objects.items[number].queues;
}

char *
vm_object_log_path (const Vm *vm, unsigned number) {
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };

  return launch_object_log_path (&identity, vm->objects.items[number].name);
}

void
vm_object_gone_error (const Vm *vm, unsigned number, GError **error) {
  g_autofree char *log = vm_object_log_path (vm, number);

  g_set_error (
      error, CTL_ERROR, CTL_ERROR_ACCESS,
      "its domybs-far for object '%s' is gone, and the guest waits for what it reads there; 'domybsctl backend restart "
      "%s' starts another one, %s may say what happened",
      vm->objects.items[number].name, vm->word, log);
}

static void
take_object_answer (Vm *vm, unsigned number, const char *path, JsonObject *answer, GError *error) {
  GError **problem = &vm->object_problems[number];

  if (answer) {
    vm_object_read (answer, vm->objects.items[number].name, &vm->object_status[number], problem);
  } else if (control_client_nobody (path)) {
    vm_object_gone_error (vm, number, problem);
    g_error_free (error);
  } else {
    *problem = error;
  }
}

static void
ask_all_objects (Vm **vms, unsigned n) {
  g_autofree char **paths = g_new0 (char *, n *DOMAIN_OBJECTS_MAX);
  g_autofree JsonObject **answers = g_new0 (JsonObject *, n * DOMAIN_OBJECTS_MAX);
  g_autofree GError **errors = g_new0 (GError *, n * DOMAIN_OBJECTS_MAX);
  gboolean any = FALSE;

  for (unsigned i = 0; i < n; i++)
    for (unsigned k = 0; k < vms[i]->objects.n; k++)
      if (vm_object_is_served (vms[i], k)) {
        paths[i * DOMAIN_OBJECTS_MAX + k] = launch_object_control_path (vms[i]->uuid, vms[i]->objects.items[k].name);
        any = TRUE;
      }
  if (any)
    control_client_gather ((const char *const *)paths, n * DOMAIN_OBJECTS_MAX, "status", VM_GATHER_MS, answers, errors);
  for (unsigned i = 0; i < n * DOMAIN_OBJECTS_MAX; i++) {
    if (paths[i])
      take_object_answer (vms[i / DOMAIN_OBJECTS_MAX], i % DOMAIN_OBJECTS_MAX, paths[i], answers[i], errors[i]);
    g_clear_pointer (&answers[i], json_object_unref);
    g_free (paths[i]);
  }
}

void
vm_ask (Vm *vm) {
  ask_all (&vm, 1);
  ask_all_far (&vm, 1);
  ask_all_objects (&vm, 1);
}

void
vm_ask_all (GPtrArray *vms) {
  ask_all ((Vm **)vms->pdata, vms->len);
  ask_all_far ((Vm **)vms->pdata, vms->len);
  ask_all_objects ((Vm **)vms->pdata, vms->len);
}

static int
by_name (gconstpointer a, gconstpointer b) {
  const Vm *const *left = a, *const *right = b;

  return strcmp ((*left)->name, (*right)->name);
}

GPtrArray *
vm_gather (ctl_connect_t *connection, gboolean all, GError **error) {
  g_autoptr (GPtrArray) vms = g_ptr_array_new_with_free_func ((GDestroyNotify)vm_free);
  virDomainPtr *domains = NULL;
  const int n = virConnectListAllDomains (connection, &domains, 0);
  gboolean ok = TRUE;

  if (n < 0) {
    ctl_libvirt_error (error, "libvirt", "can't list the domains", NULL);
    return NULL;
  }
  for (int i = 0; i < n; i++) {
    g_autoptr (GError) reason = NULL;
    g_autoptr (Vm) vm = ok ? vm_read (domains[i], &reason) : NULL;

    if (vm
        && (all || vm->attached || vm->pending || vm->have_far || vm->far_pending || vm->have_objects || vm->objects_pending
            || vm->problem))
      g_ptr_array_add (vms, g_steal_pointer (&vm));
    else if (reason && !g_error_matches (reason, CTL_ERROR, CTL_ERROR_NOT_FOUND)) {
      g_propagate_error (error, g_steal_pointer (&reason));
      ok = FALSE;
    }
    virDomainFree (domains[i]);
  }
  free (domains);
  if (!ok)
    return NULL;
  g_ptr_array_sort (vms, by_name);
  return g_steal_pointer (&vms);
}

void
vm_prefix_error (const Vm *vm, GError **error) {
  g_prefix_error (error, "domain '%s': ", vm->label);
}

/* What keeps the device of this domain from being used. */
static gboolean
is_usable (const Vm *vm, GError **error) {
  if (vm->problem) {
    g_propagate_error (error, g_error_copy (vm->problem));
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (vm->pending)
    g_set_error (
        error, CTL_ERROR, CTL_ERROR_REFUSED,
        "domain '%s': its memory device is there from the next start on; shut it down and start it, or attach with --live",
        vm->label);
  else if (!vm->attached)
    g_set_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND,
                 "domain '%s': no memory device is attached; 'domybsctl attach %s' gives it one", vm->label, vm->word);
  else if (vm->id < 0)
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "domain '%s': it is not running; start it first ('virsh start %s')",
                 vm->label, vm->word);
  else if (!vm->memory.present)
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': its memory device is unplugged; 'domybsctl attach %s --live' plugs it in again", vm->label,
                 vm->word);
  else
    return TRUE;
  return FALSE;
}

ControlClient *
vm_connect (Vm *vm, GError **error) {
  g_autofree char *path = NULL;
  ControlClient *client;

  if (!is_usable (vm, error))
    return NULL;
  path = launch_control_path (vm->uuid);
  client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, error);
  if (client)
    return client;
  if (vm_is_gone (vm)) {
    g_clear_error (error);
    vm_gone_error (vm, error);
  }
  vm_prefix_error (vm, error);
  return NULL;
}

ControlClient *
vm_connect_far (const Vm *vm, GError **error) {
  g_autofree char *path = launch_far_control_path (vm->uuid);
  ControlClient *client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, error);

  if (client)
    return client;
  if (control_client_nobody (path)) {
    g_clear_error (error);
    vm_far_gone_error (vm, error);
  }
  vm_prefix_error (vm, error);
  return NULL;
}

ControlClient *
vm_connect_object (const Vm *vm, unsigned number, GError **error) {
  g_autofree char *path = launch_object_control_path (vm->uuid, vm->objects.items[number].name);
  ControlClient *client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, error);

  if (client)
    return client;
  if (control_client_nobody (path)) {
    g_clear_error (error);
    vm_object_gone_error (vm, number, error);
  }
  vm_prefix_error (vm, error);
  return NULL;
}

Vm *
vm_open (Ctl *ctl, const char *text, ControlClient **ret_client, GError **error) {
  g_autoptr (ctl_connect_t) connection = ctl_connect (ctl, CTL_READS, error);
  g_autoptr (ctl_domain_t) domain = connection ? ctl_domain_find (connection, text, error) : NULL;
  g_autoptr (Vm) vm = domain ? vm_read (domain, error) : NULL;

  *ret_client = vm ? vm_connect (vm, error) : NULL;
  return *ret_client ? g_steal_pointer (&vm) : NULL;
}
