/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/far-wish.h"
#include "attach/host-facts.h"
#include "attach/scope.h"
#include "check/check.h"
#include "host/launch.h"
#include "ctl/text.h"
#include "ctl/vm-describe.h"
#include "ctl/vm-far-describe.h"
#include "ctl/vm-object-describe.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <string.h>
#include <unistd.h>

/* ---- back-ends without a VM, VMs without a back-end ---- */

/* 1: the domain runs; 0: it does not; −1: can't be told. */
static int
domain_runs (Check *check, const char *uuid) {
  g_autoptr (ctl_domain_t) domain = virDomainLookupByUUIDString (check->connection, uuid);

  if (!domain)
    return virGetLastErrorCode () == VIR_ERR_NO_DOMAIN ? 0 : -1;
  return virDomainIsActive (domain);
}

static unsigned
stray_objects (Check *check, const char *uuid, const DomainObjects *objects) {
  unsigned n = 0;

  for (unsigned i = 0; i < objects->n; i++) {
    const char *name = objects->items[i].name;
    const pid_t pid = launch_object_pid (uuid, name);
    g_autofree char *advice = g_strdup_printf ("kill %d", (int)pid);

    if (!pid)
      continue;
    n++;
    check_todo (check, advice, "domybs-far process %d for object '%s' is for no running VM of this libvirt (UUID %s)", (int)pid,
                name, uuid);
  }
  return n;
}

static unsigned
look_at_folders (Check *check) {
  g_autofree char *vms = g_build_filename (launch_rundir (), "vm", NULL);
  g_autoptr (GDir) folders = g_dir_open (vms, 0, NULL);
  unsigned strays = 0;
  const char *uuid;

  while (folders && (uuid = g_dir_read_name (folders))) {
    DomainObjects objects;
    pid_t pid, far_pid;
    unsigned others;

    if (!g_uuid_string_is_valid (uuid) || domain_runs (check, uuid) != 0)
      continue;
    strays++;
    pid = launch_pid (uuid);
    far_pid = launch_far_pid (uuid);
    launch_object_list (uuid, &objects);
    others = stray_objects (check, uuid, &objects);
    if (far_pid) {
      g_autofree char *advice = g_strdup_printf ("kill %d", (int)far_pid);

      check_todo (check, advice, "domybs-far process %d is for no running VM of this libvirt (UUID %s)", (int)far_pid, uuid);
    }
    if (pid) {
      g_autofree char *advice = g_strdup_printf ("kill %d", (int)pid);

      check_todo (check, advice, "back-end process %d is for no running VM of this libvirt (UUID %s)", (int)pid, uuid);
    } else if (!far_pid && !others) {
      check_note (check, "it goes with the VM's next start; or remove it",
                  "the folder %s/%s is left over from a VM that does not run", vms, uuid);
    }
  }
  return strays;
}

/* A VM that runs and whose back-end does not answer. */
static void
look_at_problem (Check *check, const Vm *vm) {
  g_autofree char *text = g_strdup (vm->problem ? vm->problem->message : "its back-end does not answer");
  char *next = strstr (text, "; ");

  if (next)
    *next = 0;
  check_todo (check, next ? next + 2 : NULL, "domain '%s': %s", vm->label, text);
}

/* What its back-end says of its own processes. Returns how much there is to do. */
static unsigned
look_at_worker (Check *check, const Vm *vm) {
  const VmWorker *worker = &vm->status.worker;
  g_autofree char *trouble = vm_worker_trouble (vm), *deaths = vm_worker_deaths (worker), *upgrade = NULL, *log = NULL,
                  *path = NULL;

  if (trouble) {
    char *next = strstr (trouble, "; ");

    if (next)
      *next = 0;
    check_todo (check, next ? next + 2 : NULL, "domain '%s': %s", vm->label, trouble);
    return 1;
  }
  if (deaths) {
    path = vm_log_path (vm);
    log = g_strdup_printf ("its guest noticed nothing but delays; %s may say why", path);
    check_note (check, log, "domain '%s': %s", vm->label, deaths);
  }
  if (!worker->known) {
    check_note (check, "it can't be replaced while its QEMU runs; the VM gets the installed one with its next start",
                "domain '%s': its back-end is of an older version", vm->label);
  } else if (worker->version && strcmp (worker->version, DOMYBS_VERSION) != 0) {
    upgrade = g_strdup_printf ("domybsctl backend upgrade %s", vm->word);
    check_note (check, upgrade, "domain '%s': its back-end is of version %s, not of this one, " DOMYBS_VERSION, vm->label,
                worker->version);
  }
  return 0;
}

/* What is worth a note of a domybs-far that is well; what: "domybs-far". */
static void
note_far (Check *check, const Vm *vm, const VmWorker *worker, const char *what, const char *log_path) {
  g_autofree char *deaths = vm_worker_deaths (worker);

  if (deaths) {
    g_autofree char *log = g_strdup_printf ("its guest noticed nothing but delays; %s may say why", log_path);

    check_note (check, log, "domain '%s': %s: %s", vm->label, what, deaths);
  }
  if (worker->version && strcmp (worker->version, DOMYBS_VERSION) != 0) {
    g_autofree char *upgrade = g_strdup_printf ("domybsctl backend upgrade %s", vm->word);

    check_note (check, upgrade, "domain '%s': its %s is of version %s, not of this one, " DOMYBS_VERSION, vm->label, what,
                worker->version);
  }
}

/* What its domybs-far says, or that it does not. */
static unsigned
look_at_far (Check *check, const Vm *vm) {
  g_autofree char *trouble = vm->have_far && vm->id >= 0 ? vm_far_trouble (vm) : NULL;
  char *next = trouble ? strstr (trouble, "; ") : NULL;

  if (!trouble) {
    if (vm->have_far_status) {
      g_autofree char *log_path = vm_far_log_path (vm);

      note_far (check, vm, &vm->far_status.worker, "domybs-far", log_path);
    }
    return 0;
  }
  if (geteuid () != 0 && vm->far_problem) {
    check_note (check, "run it as root to be sure", "domain '%s': its domybs-far can't be asked by this user", vm->label);
    return 0;
  }
  if (next)
    *next = 0;
  check_todo (check, next ? next + 2 : NULL, "domain '%s': %s", vm->label, trouble);
  return 1;
}

static unsigned
look_at_objects (Check *check, const Vm *vm) {
  unsigned wrong = 0;

  for (unsigned i = 0; i < vm->objects.n; i++) {
    g_autofree char *trouble = vm_object_trouble_of (vm, i), *log_path = vm_object_log_path (vm, i),
                    *what = g_strdup_printf ("domybs-far for object '%s'", vm->objects.items[i].name);
    char *next = trouble ? strstr (trouble, "; ") : NULL;

    if (!vm_object_is_served (vm, i))
      continue;
    if (!trouble) {
      note_far (check, vm, &vm->object_status[i].worker, what, log_path);
      continue;
    }
    if (geteuid () != 0 && vm->object_problems[i]) {
      check_note (check, "run it as root to be sure", "domain '%s': its %s can't be asked by this user", vm->label, what);
      continue;
    }
    if (next)
      *next = 0;
    check_todo (check, next ? next + 2 : NULL, "domain '%s': %s", vm->label, trouble);
    wrong++;
  }
  return wrong;
}

static unsigned
look_at_vms (Check *check, unsigned *ret_running) {
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) vms = vm_gather (check->connection, FALSE, &error);
  unsigned wrong = 0;

  if (!vms) {
    check_todo (check, NULL, "%s", error->message);
    return 1;
  }
  vm_ask_all (vms);
  for (guint i = 0; i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];

    wrong += look_at_far (check, vm) + look_at_objects (check, vm);
    if (vm->id < 0 || !vm->attached || !vm->memory.present)
      continue;
    ++*ret_running;
    if (vm->have_status) {
      wrong += look_at_worker (check, vm);
      continue;
    }
    if (geteuid () != 0) {
      check_note (check, "run it as root to be sure", "domain '%s': its back-end can't be asked by this user", vm->label);
      continue;
    }
    wrong++;
    look_at_problem (check, vm);
  }
  return wrong;
}

void
probe_strays (Check *check) {
  unsigned running = 0, wrong;

  if (!check->connection)
    return;
  wrong = look_at_folders (check);
  wrong += look_at_vms (check, &running);
  if (!wrong)
    check_ok (check, "%u VM%s with the memory device run%s; no back-end is without its VM", running, running == 1 ? "" : "s",
              running == 1 ? "s" : "");
}

/* ---- one domain ---- */

static void
split_finding (Check *check, const char *label, const GError *error) {
  g_autofree char *cause = scope_cause (label, error);
  const char *next = strstr (error->message, "; ");

  check_todo (check, next ? next + 2 : NULL, "domain '%s': %s", label, cause);
}

/* The objects that it is to have with its next start. */
static void
look_at_object_files (Check *check, const char *label, const DomainObjects *objects) {
  for (unsigned i = 0; i < objects->n; i++) {
    const char *name = objects->items[i].name;
    g_autofree char *path = launch_object_path (name),
                    *advice = g_strdup_printf ("domybsctl object import FILE --name %s", name);

    if (access (path, F_OK) < 0 && errno == ENOENT)
      check_todo (check, advice, "domain '%s': object '%s' in its configuration is not on this host", label, name);
    else
      check_ok (check, "domain '%s': has object '%s' in its configuration", label, name);
  }
}

/* With the least window, so that only what is in the way of any shows. */
static void
look_at_config (Check *check, const char *label, const char *xml) {
  const DomainAttachOptions options
      = { .window_bytes = DOMAIN_WINDOW_BYTES_MIN, .local_max_bytes = DOMAIN_WINDOW_BYTES_MIN, .own_node = TRUE };
  const DomainHost host = { host_qemu_version (check->connection, xml), host_phys_bits () };
  g_autoptr (GError) error = NULL;
  g_autofree char *after = NULL;
  g_auto (DomainFar) far = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];
  DomainObjects objects;
  DomainMemory memory;

  if (domain_read_far (xml, &far, queues, NULL)) {
    g_autofree char *what = far_describe (&far), *warning = NULL;

    if (far_storage_check (&far, &warning, &error))
      check_ok (check, "domain '%s': has far disks in its configuration: %s", label, what);
    else
      split_finding (check, label, error);
    g_clear_error (&error);
    if (warning)
      check_note (check, "make room there, or watch it with 'df'", "domain '%s': %s", label, warning);
  }

  if (domain_read_objects (xml, &objects, NULL))
    look_at_object_files (check, label, &objects);
  if (domain_read_memory (xml, &memory, &error)) {
    g_autofree char *window = text_size (memory.window_bytes), *local_max = text_size (memory.local_max_bytes);

    check_ok (check, "domain '%s': has the memory device in its configuration: window %s, at most %s", label, window,
              local_max);
    return;
  }
  after = error ? NULL : domain_attach (xml, &options, &host, "/nowhere", NULL, &error);
  if (after)
    check_ok (check, "domain '%s': nothing is in the way of attaching the memory device", label);
  else
    split_finding (check, label, error);
}

static void
look_at_running (Check *check, const Vm *vm, const char *xml) {
  g_autoptr (GError) error = NULL;

  if (vm->attached && vm->memory.present)
    check_ok (check, "domain '%s': the running VM has the device", vm->label);
  else if (domain_check_live (xml, vm->attached ? vm->memory.window_bytes : DOMAIN_WINDOW_BYTES_MIN, &error))
    check_ok (check, "domain '%s': the device can be attached to the running VM (--live)", vm->label);
  else {
    g_autofree char *cause = scope_cause (vm->label, error);

    check_note (check, "attach to the configuration, then restart the VM", "domain '%s': %s", vm->label, cause);
  }
}

void
probe_domain (Check *check) {
  g_autoptr (GError) error = NULL;
  g_autoptr (Vm) vm = check->domain ? vm_read (check->domain, &error) : NULL;
  g_autofree char *config = NULL, *live = NULL;

  if (!check->domain)
    return;
  if (vm && virDomainIsPersistent (check->domain) == 1)
    config = ctl_domain_xml (check->domain, VIR_DOMAIN_XML_INACTIVE, &error);
  if (vm && vm->id >= 0 && !error)
    live = ctl_domain_xml (check->domain, 0, &error);
  if (error) {
    check_todo (check, NULL, "%s", error->message);
    return;
  }
  if (config)
    look_at_config (check, vm->label, config);
  if (live)
    look_at_running (check, vm, live);
}
