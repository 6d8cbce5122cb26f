/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the domybs-far of one object of a VM says (backend/far/control.md), and in words and JSON. */
#ifndef DOMYBS_HOST_TOOLS_VM_OBJECT_H
#define DOMYBS_HOST_TOOLS_VM_OBJECT_H

#include "ctl/ctl.h"
#include "ctl/vm-status.h"

/* Figures that an answer lacks are VM_UNKNOWN. */
typedef struct {
  gboolean known; /* it answered */
  gboolean connected;
  guint64 pid, size_bytes;
  guint64 reads, read_pages, errors, damaged_pages;
  guint64 waiting, oldest_wait_ms; /* requests of the guest that wait for storage */
  guint64 read_p50_us, read_p99_us;
  guint64 prefetched_pages, prefetch_used_pages, storage_read_bytes;
  VmWorker worker;
} VmObjectStatus;

/* Reads the answer to `status`. CTL_ERROR_ACCESS where it makes no sense, or is about another object. */
gboolean vm_object_read (JsonObject *answer, const char *name, VmObjectStatus *ret_status, GError **error);
void vm_object_clear (VmObjectStatus *status);

/* "4G; reads take 90 µs (p50), 400 µs (p99)", to be freed. */
char *vm_object_text (const VmObjectStatus *status);

/* What an operator should know of it, "cause; next step", without the object; NULL: nothing. */
char *vm_object_trouble (const VmObjectStatus *status);

/* Its members of an "object-disk" of json.md. */
void vm_object_json (Ctl *ctl, const VmObjectStatus *status);

#endif
