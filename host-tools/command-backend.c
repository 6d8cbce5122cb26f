/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Another worker for the back-ends of running VMs, and for what is behind their far disks and objects: of the program that runs
 * (restart), or of the one that is installed now (upgrade). QEMU and the guest go on; what is in flight at that moment is
 * answered by the new worker. What is behind an object has nothing to lose, so where it has died, another one is started. */
#include "ctl/resize-run.h"
#include "ctl/vm.h"
#include "host/launch.h"

#include <string.h>

/* The keeper gives a new worker 10 s to say that it can go on, and there may be another replacement before. */
#define PATIENCE_MS 15000
/* A new version that can't do its work dies at the guest's first request; a guest with a driver makes one every few seconds,
 * and one that is at work many in this time. */
#define SETTLE_MS 300
/* QEMU looks once a second whether it can connect to a far disk again. */
#define CONNECT_TIMEOUT_MS 15000
#define CONNECT_POLL_MS 20

typedef struct {
  const char *verb, *done; /* "upgrade", "upgraded" */
  gboolean upgrades, all, keep_going;
} Order;

/* Whose worker: the memory device's back-end's, domybs-far's, or that of an object's domybs-far. */
typedef enum { BACKEND, FAR, OBJECT } Kind;

typedef struct {
  Vm *vm;
  Kind kind;
  unsigned number; /* of the object */
} Target;

static const char *
object_name (const Target *target) {
  return target->vm->objects.items[target->number].name;
}

/* To be freed. */
static char *
what (const Target *target) {
  return target->kind == OBJECT ? g_strdup_printf ("domybs-far for object '%s'", object_name (target))
                                : g_strdup (target->kind == FAR ? "domybs-far" : "back-end");
}

/* What became of one. */
typedef struct {
  char *version_before, *version_after; /* NULL: not known */
  gint64 took_ms;                       /* below 0: not replaced */
  gboolean started;                     /* there was none */
} Replaced;

static void
replaced_clear (Replaced *replaced) {
  g_free (replaced->version_before);
  g_free (replaced->version_after);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Replaced, replaced_clear)

#define REPLACED_NONE ((Replaced){ .took_ms = -1 })

/* ---- one ---- */

/* Whether the worker that we see is another one, and well. */
static gboolean
is_well (const Order *order, const VmWorker *before, const VmWorker *now, GError **error) {
  const char *version = now->version ? now->version : "unknown";

  if (now->rolled_back && (!before->rolled_back || now->deaths > before->deaths))
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "its upgrade was undone, because workers of the new version died (%s): it is at version %s again; see its log",
                 now->last_death ? now->last_death : "cause not known", version);
  else if (now->deaths > before->deaths)
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "its new worker (version %s) died (%s) and was replaced; see its log",
                 version, now->last_death ? now->last_death : "cause not known");
  else if (now->pid == before->pid && now->starts == before->starts)
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "its worker (process %" G_GUINT64_FORMAT ") is the same as before; see its log", now->pid);
  else
    return TRUE;
  return FALSE;
}

/* What there is to see: the worker, and how many disks QEMU is connected to. */
typedef struct {
  VmWorker worker;
  unsigned connected;
} Seen;

static gboolean
see_far (ControlClient *client, Seen *ret_seen, GError **error) {
  g_autoptr (JsonObject) answer = control_client_execute (client, "status", NULL, CONTROL_CLIENT_TIMEOUT_MS, error);
  VmFarStatus status = { 0 };

  if (!answer || !vm_far_read (answer, &status, error))
    return FALSE;
  *ret_seen = (Seen){ .worker = status.worker };
  status.worker = (VmWorker){ 0 };
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    ret_seen->connected += status.disks[tier].connected;
  vm_far_clear (&status);
  return TRUE;
}

static gboolean
see_object (ControlClient *client, const char *name, Seen *ret_seen, GError **error) {
  g_autoptr (JsonObject) answer = control_client_execute (client, "status", NULL, CONTROL_CLIENT_TIMEOUT_MS, error);
  VmObjectStatus status = { 0 };

  if (!answer || !vm_object_read (answer, name, &status, error))
    return FALSE;
  *ret_seen = (Seen){ .worker = status.worker, .connected = status.connected };
  status.worker = (VmWorker){ 0 };
  vm_object_clear (&status);
  return TRUE;
}

static gboolean
see_backend (ControlClient *client, Seen *ret_seen, GError **error) {
  VmStatus status = { 0 };

  if (!resize_status (client, &status, error))
    return FALSE;
  *ret_seen = (Seen){ .worker = status.worker };
  status.worker = (VmWorker){ 0 };
  vm_status_clear (&status);
  return TRUE;
}

/* Takes a look; new figures take the place of those in *seen. */
static gboolean
look (ControlClient *client, const Target *target, Seen *seen, GError **error) {
  Seen now = { 0 };

  if (!(target->kind == FAR      ? see_far (client, &now, error)
        : target->kind == OBJECT ? see_object (client, object_name (target), &now, error)
                                 : see_backend (client, &now, error)))
    return FALSE;
  vm_worker_clear (&seen->worker);
  *seen = now;
  return TRUE;
}

/* The new worker is there: waits until QEMU is connected to as many disks as before; it is of no use to the guest before. */
static gboolean
wait_for_qemu (Ctl *ctl, ControlClient *client, const Target *target, const Seen *before, Seen *now, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + launch_patience_ms (CONNECT_TIMEOUT_MS) * (gint64)1000;

  while (now->connected < before->connected) {
    if (g_get_monotonic_time () > deadline) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                   "QEMU has not connected to its new worker within %d s; see its log, and QEMU's in /var/log/libvirt/qemu",
                   CONNECT_TIMEOUT_MS / 1000);
      return FALSE;
    }
    ctl_wait (ctl, -1, CONNECT_POLL_MS);
    if (!look (client, target, now, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean
replace (Ctl *ctl, const Order *order, const Target *target, ControlClient *client, Replaced *ret, GError **error) {
  Seen before = { 0 }, now = { 0 };
  const gint64 began = g_get_monotonic_time ();
  gboolean ok = look (client, target, &before, error)
                && control_client_replace (client, order->verb, launch_patience_ms (PATIENCE_MS), error);

  ret->version_before = g_strdup (before.worker.version);
  if (ok) {
    ok = look (client, target, &now, error) && is_well (order, &before.worker, &now.worker, error)
         && wait_for_qemu (ctl, client, target, &before, &now, error);
    ret->took_ms = (g_get_monotonic_time () - began + 999) / 1000;
    if (ok && order->upgrades) {
      ctl_wait (ctl, -1, SETTLE_MS);
      ok = look (client, target, &now, error) && is_well (order, &before.worker, &now.worker, error);
    }
    ret->version_after = g_strdup (now.worker.version);
  }
  vm_worker_clear (&before.worker);
  vm_worker_clear (&now.worker);
  return ok;
}

/* Another keeper and worker for an object whose keeper is gone; QEMU connects to them by itself. */
static gboolean
start_again (Ctl *ctl, const Target *target, Replaced *ret, GError **error) {
  const Vm *vm = target->vm;
  const DomainIdentity identity = { vm->name, vm->uuid, vm->id };
  const gint64 began = g_get_monotonic_time ();
  const Seen before = { .connected = 1 };
  g_autoptr (ControlClient) client = NULL;
  Seen now = { 0 };
  gboolean ok;

  if (!launch_object_start (&identity, &vm->objects.items[target->number], vm->dac_label, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  client = vm_connect_object (vm, target->number, error);
  if (!client)
    return FALSE;
  ok = look (client, target, &now, error) && wait_for_qemu (ctl, client, target, &before, &now, error);
  if (ok)
    ret->took_ms = (g_get_monotonic_time () - began + 999) / 1000;
  else
    vm_prefix_error (vm, error);
  ret->version_after = g_strdup (now.worker.version);
  ret->started = TRUE;
  vm_worker_clear (&now.worker);
  return ok;
}

static ControlClient *
connect_to (const Target *target, GError **error) {
  return target->kind == FAR      ? vm_connect_far (target->vm, error)
         : target->kind == OBJECT ? vm_connect_object (target->vm, target->number, error)
                                  : vm_connect (target->vm, error);
}

static gboolean
is_gone (const Target *target) {
  g_autofree char *path = target->kind == OBJECT ? launch_object_control_path (target->vm->uuid, object_name (target)) : NULL;

  return path && control_client_nobody (path);
}

static gboolean
replace_one (Ctl *ctl, const Order *order, const Target *target, double share, Replaced *ret, GError **error) {
  g_autoptr (CtlProgress) progress = ctl_progress_new (ctl, target->vm->label);
  g_autofree char *name = what (target), *waiting = g_strdup_printf ("waiting for the new worker of its %s", name);
  g_autoptr (ControlClient) client = NULL;

  ctl_progress_show (progress, share, waiting);
  if (is_gone (target))
    return start_again (ctl, target, ret, error);
  client = connect_to (target, error);
  if (!client)
    return FALSE;
  if (replace (ctl, order, target, client, ret, error))
    return TRUE;
  if (target->kind != BACKEND && error && !strstr ((*error)->message, "domybs-far"))
    g_prefix_error (error, "%s: ", name);
  vm_prefix_error (target->vm, error);
  return FALSE;
}

/* ---- saying it ---- */

static void
tell (Ctl *ctl, const Order *order, const Target *target, const Replaced *replaced) {
  const char *label = target->vm->label;
  g_autofree char *name = what (target);
  const char *before = replaced->version_before ? replaced->version_before : "unknown";
  const char *after = replaced->version_after ? replaced->version_after : "unknown";

  if (replaced->started)
    ctl_say (ctl, "Domain '%s': %s was gone, and is started again, version %s.", label, name, after);
  else if (strcmp (before, after) != 0)
    ctl_say (ctl, "Domain '%s': %s %s, %s → %s, in %" G_GINT64_FORMAT " ms (its guest waited at most that long).", label, name,
             order->done, before, after, replaced->took_ms);
  else
    ctl_say (ctl, "Domain '%s': %s %s, %s %s, in %" G_GINT64_FORMAT " ms (its guest waited at most that long).", label, name,
             order->done, order->upgrades ? "still version" : "version", after, replaced->took_ms);
}

/* tried FALSE: it was left out, because one before it failed. */
static void
json_replaced (Ctl *ctl, const Target *target, const Replaced *replaced, gboolean tried, const GError *problem) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_begin_object (builder);
  ctl_json_string (ctl, "domain", target->vm->name);
  ctl_json_string (ctl, "uuid", target->vm->uuid);
  ctl_json_string (ctl, "process", target->kind == FAR ? "far" : target->kind == OBJECT ? "object" : "backend");
  if (target->kind == OBJECT)
    ctl_json_string (ctl, "object", object_name (target));
  ctl_json_string (ctl, "result", !tried ? "not-tried" : problem ? "failed" : "done");
  ctl_json_string (ctl, "version-before", replaced->version_before);
  ctl_json_string (ctl, "version-after", replaced->version_after);
  if (replaced->took_ms >= 0)
    ctl_json_int (ctl, "took-ms", replaced->took_ms);
  else
    ctl_json_null (ctl, "took-ms");
  json_builder_set_member_name (builder, "problem");
  if (problem) {
    json_builder_begin_object (builder);
    ctl_json_string (ctl, "code", ctl_error_name (problem->code));
    ctl_json_string (ctl, "message", problem->message);
    json_builder_end_object (builder);
  } else {
    json_builder_add_null_value (builder);
  }
  json_builder_end_object (builder);
}

/* ---- one after the other ---- */

/* Counts, and the first reason. */
typedef struct {
  unsigned done, failed, not_tried;
  GError *first;
} Sum;

static void
add_failure (Ctl *ctl, const Order *order, Sum *sum, GError *reason) {
  sum->failed++;
  /* Where it ends with this one, its end is told by it */
  if (order->all && order->keep_going)
    ctl_warn (ctl, "%s", reason->message);
  if (sum->first)
    g_error_free (reason);
  else
    sum->first = reason;
}

static gboolean
conclude (Ctl *ctl, const Order *order, Sum *sum, GError **error) {
  const unsigned all = sum->done + sum->failed + sum->not_tried;

  if (!order->all && sum->first) {
    g_propagate_error (error, sum->first);
    return FALSE;
  }
  if (ctl->interrupted && sum->not_tried) {
    g_clear_error (&sum->first);
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE, "%u of %u back-ends %s, %u not tried any more; do it again", sum->done,
                 all, order->done, sum->not_tried);
    return FALSE;
  }
  if (!sum->first) {
    if (order->all && !all)
      ctl_say (ctl, "No running domain has the memory device, far disks or objects.");
    return TRUE;
  }
  if (order->keep_going)
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE, "%u of %u back-ends %s, %u failed; the first of those: %s", sum->done,
                 all, order->done, sum->failed, sum->first->message);
  else
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                 "%s (%u of %u back-ends %s, %u not tried; --keep-going goes on after a failure)", sum->first->message,
                 sum->done, all, order->done, sum->not_tried);
  g_clear_error (&sum->first);
  return FALSE;
}

/* What there is of each. A VM that has nothing that runs is there, too: the attempt says why it has none. */
static GArray *
targets_of (GPtrArray *vms) {
  GArray *targets = g_array_new (FALSE, FALSE, sizeof (Target));

  for (unsigned i = 0; i < vms->len; i++) {
    Vm *vm = vms->pdata[i];
    const gboolean far = vm->have_far && vm->id >= 0;
    gboolean others = far;

    for (unsigned k = 0; k < vm->objects.n; k++)
      others |= vm_object_is_served (vm, k);
    if (!others || vm->problem || (vm->attached && vm->memory.present))
      g_array_append_val (targets, ((Target){ vm, BACKEND, 0 }));
    if (far)
      g_array_append_val (targets, ((Target){ vm, FAR, 0 }));
    for (unsigned k = 0; k < vm->objects.n; k++)
      if (vm_object_is_served (vm, k))
        g_array_append_val (targets, ((Target){ vm, OBJECT, k }));
  }
  return targets;
}

static gboolean
run (Ctl *ctl, const Order *order, GPtrArray *vms, GError **error) {
  g_autoptr (GArray) targets = targets_of (vms);
  JsonBuilder *builder = ctl_json (ctl);
  Sum sum = { 0 };

  ctl_json_string (ctl, "action", order->verb);
  if (builder) {
    json_builder_set_member_name (builder, "domains");
    json_builder_begin_array (builder);
  }
  ctl_interrupt_begin (ctl);
  for (unsigned i = 0; i < targets->len; i++) {
    const Target *target = &g_array_index (targets, Target, i);
    const gboolean tried = !ctl_interrupted (ctl) && (!sum.failed || order->keep_going);
    g_auto (Replaced) replaced = REPLACED_NONE;
    g_autoptr (GError) reason = NULL;

    if (!tried) {
      sum.not_tried++;
    } else if (replace_one (ctl, order, target, (double)i / targets->len, &replaced, &reason)) {
      sum.done++;
      tell (ctl, order, target, &replaced);
    }
    json_replaced (ctl, target, &replaced, tried, reason);
    if (reason)
      add_failure (ctl, order, &sum, g_steal_pointer (&reason));
  }
  ctl_interrupt_end (ctl);
  if (builder)
    json_builder_end_array (builder);
  return conclude (ctl, order, &sum, error);
}

/* ---- which ---- */

static GPtrArray *
find_one (ctl_connect_t *connection, const char *name, GError **error) {
  g_autoptr (GPtrArray) vms = g_ptr_array_new_with_free_func ((GDestroyNotify)vm_free);
  g_autoptr (ctl_domain_t) domain = ctl_domain_find (connection, name, error);
  Vm *vm = domain ? vm_read (domain, error) : NULL;

  if (!vm)
    return NULL;
  g_ptr_array_add (vms, vm);
  return g_steal_pointer (&vms);
}

/* Those that should have a back-end, far disks or objects now; one about which that can't be said is among them. */
static GPtrArray *
find_all (ctl_connect_t *connection, GError **error) {
  GPtrArray *vms = vm_gather (connection, FALSE, error);

  for (unsigned i = 0; vms && i < vms->len;) {
    const Vm *vm = vms->pdata[i];

    if (vm->id >= 0 && (vm->problem || vm->have_far || vm->have_objects || (vm->attached && vm->memory.present)))
      i++;
    else
      g_ptr_array_remove_index (vms, i);
  }
  return vms;
}

static gboolean
read_order (int argc, char **argv, Order *order, GError **error) {
  static const char usage[] = "usage: domybsctl backend restart|upgrade DOMAIN|--all";

  order->verb = argv[0];
  order->upgrades = strcmp (argv[0], "upgrade") == 0;
  order->done = order->upgrades ? "upgraded" : "restarted";
  if (!order->upgrades && strcmp (argv[0], "restart") != 0)
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "backend: '%s' is neither restart nor upgrade; %s", argv[0], usage);
  else if (order->all ? argc > 1 : argc < 2)
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "backend %s: %s; %s", argv[0],
                 order->all ? "a domain and --all can't both be" : "a domain is missing, or --all", usage);
  else
    return TRUE;
  return FALSE;
}

gboolean
command_backend (Ctl *ctl, int argc, char **argv, GError **error) {
  Order order = { 0 };
  const GOptionEntry entries[] = {
    { "all", 'a', 0, G_OPTION_ARG_NONE, &order.all, "Of all running domains with the device, far disks or objects, one by one",
      NULL },
    { "keep-going", 'k', 0, G_OPTION_ARG_NONE, &order.keep_going, "Go on with the others after a failure", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (ctl_connect_t) connection = NULL;
  g_autoptr (GPtrArray) vms = NULL;

  if (!ctl_parse (ctl, entries, &argc, &argv, 1, 2, error) || !read_order (argc, argv, &order, error))
    return FALSE;
  connection = ctl_connect (ctl, CTL_READS, error);
  if (connection)
    vms = order.all ? find_all (connection, error) : find_one (connection, argv[1], error);
  return vms && run (ctl, &order, vms, error);
}
