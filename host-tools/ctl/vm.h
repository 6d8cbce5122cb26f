/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains with all that libvirt, their metadata and their back-ends say about them. */
#ifndef DOMYBS_HOST_TOOLS_VM_H
#define DOMYBS_HOST_TOOLS_VM_H

#include "ctl/control-client.h"
#include "ctl/ctl.h"
#include "ctl/vm-far.h"
#include "ctl/vm-object.h"
#include "domain/domain.h"
#include "ctl/vm-status.h"

/* What libvirt says its state is; only the difference that matters to operators. */
typedef enum { VM_SHUT_OFF, VM_RUNNING, VM_PAUSED, VM_CRASHED, VM_OTHER } VmState;

typedef struct {
  char *name, *uuid;
  const char *label; /* the name, escaped for messages */
  const char *word;  /* … and quoted for a shell where it needs that, for commands in messages */
  int id;            /* of a running one, else −1 */
  VmState state;
  gboolean attached;   /* the device is in the XML that is in force now */
  gboolean pending;    /* … or only in the configuration: from the next start on */
  DomainMemory memory; /* of either */
  gboolean have_far;   /* the same for far disks */
  gboolean far_pending;
  DomainFar far;
  gboolean have_objects; /* … and for objects */
  gboolean objects_pending;
  DomainObjects objects;
  VmObjectStatus object_status[DOMAIN_OBJECTS_MAX]; /* of each: what its domybs-far says, */
  GError *object_problems[DOMAIN_OBJECTS_MAX];      /* or why that is not known, though it should be */
  char *dac_label;                                  /* of one with objects: whom its QEMU runs as */
  gboolean have_far_status;                         /* its domybs-far answered */
  VmFarStatus far_status;
  GError *far_problem;  /* why it did not, though it should */
  gboolean have_status; /* its back-end answered */
  VmStatus status;
  gboolean gone;   /* it runs, and its back-end does not: vm_gone_error says what that means, and is its problem */
  GError *problem; /* why attached or have_status are not what they should be; without the object. NULL: none */
} Vm;

void vm_free (Vm *vm);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Vm, vm_free)

/* "running", "paused", "shut off", "crashed", "other"; in JSON "shut-off". */
const char *vm_state_text (VmState state);

/* All domains by name, or only those that have the device (or will). Domains that vanish meanwhile are left out. */
GPtrArray *vm_gather (ctl_connect_t *connection, gboolean all, GError **error);
/* Asks their back-ends, all at once: those that do not answer cost VM_GATHER_MS together, and are the problem of their VMs
 * only. */
#define VM_GATHER_MS 2000
void vm_ask_all (GPtrArray *vms);

/* One domain, without asking its back-end. What is wrong with it is its problem. */
Vm *vm_read (ctl_domain_t *domain, GError **error);
/* Asks its back-end, if it should have one. */
void vm_ask (Vm *vm);

/* A client of its back-end, for a command that needs its device to work: attached, running, and its back-end reached. Else an
 * error that says what to do. */
ControlClient *vm_connect (Vm *vm, GError **error);

/* The domain that text names, with that. *ret_client is the caller's. */
Vm *vm_open (Ctl *ctl, const char *text, ControlClient **ret_client, GError **error);

/* Whether nobody listens at the control socket of a VM that runs with the device: QEMU can't be without a back-end from the
 * start, so it was killed or has crashed. Sets vm->gone. */
gboolean vm_is_gone (Vm *vm);
/* CTL_ERROR_ACCESS: what came of that, and the way out; without the object. */
void vm_gone_error (const Vm *vm, GError **error);

/* The same for its domybs-far: a client of it, for a VM that runs with far disks; and what came of it when nobody listens. */
ControlClient *vm_connect_far (const Vm *vm, GError **error);
void vm_far_gone_error (const Vm *vm, GError **error);

/* … and for one of its objects, by its number. */
ControlClient *vm_connect_object (const Vm *vm, unsigned number, GError **error);
void vm_object_gone_error (const Vm *vm, unsigned number, GError **error);

/* Its back-end's log, its domybs-far's, and that of an object's. */
char *vm_log_path (const Vm *vm);
char *vm_far_log_path (const Vm *vm);
char *vm_object_log_path (const Vm *vm, unsigned number);

/* An object of it that should be served now: it runs, and the object's disk is there. */
gboolean vm_object_is_served (const Vm *vm, unsigned number);

/* Puts "domain 'x': " in front of an error. */
void vm_prefix_error (const Vm *vm, GError **error);

#endif
