/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What domybs-far says of a VM's far disks (backend/far/control.md), in words and in JSON. */
#ifndef DOMYBS_HOST_TOOLS_VM_FAR_H
#define DOMYBS_HOST_TOOLS_VM_FAR_H

#include "ctl/vm-copies.h"
#include "ctl/vm-status.h"
#include "domain/domain.h"

/* Members of an answer, which may hold anything: VM_UNKNOWN, NULL or FALSE for what is not there or of another type. Counts are
 * such that sums of them in bytes do not overflow. The first two take NULL for the object. */
guint64 vm_json_count (JsonObject *object, const char *name);
JsonObject *vm_json_object (JsonObject *object, const char *name);
gboolean vm_json_bool (JsonObject *object, const char *name);
char *vm_json_text (JsonObject *object, const char *name); /* to be freed */

/* Figures that an answer lacks are VM_UNKNOWN. */
typedef struct {
  gboolean there;
  gboolean connected;
  gboolean unreachable; /* it says that there is no connection to its storage */
  guint64 size_bytes;
  guint64 same_pages, raw_pages, packed_pages, lost_pages; /* that hold something: of one value, as they are, compressed */
  guint64 stored_bytes;                                    /* what they take */
  guint64 blocks_in_use;                                   /* of 2 MiB, with at least one of them */
  guint64 waiting, oldest_wait_ms;                         /* requests of the guest that wait for storage */
  guint64 reads, writes, discards, errors, damaged_pages;
  guint64 read_p50_us, read_p99_us, write_p50_us, write_p99_us;
  guint64 prefetched_pages, prefetch_used_pages, prefetch_wasted_pages; /* read ahead of the guest; what came of them */
  guint64 reserve_blocks, reserved_blocks; /* that the guest wants to have ready beyond those in use; that are */
  gboolean held;                           /* its day's budget of writes is used up, and the guest's writes wait for it */
  guint64 wear_left_bytes, held_ms;
  char *storage;
  VmCopies copies;
} VmFarDisk;

typedef struct {
  VmFarDisk disks[DOMAIN_FAR_TIERS];
  guint64 pid;
  VmWorker worker;
} VmFarStatus;

/* Reads the answer to `status`. CTL_ERROR_ACCESS where it makes no sense. */
gboolean vm_far_read (JsonObject *answer, VmFarStatus *ret_status, GError **error);
void vm_far_clear (VmFarStatus *status);

/* Bytes of the guest that are on it. */
guint64 vm_far_used_bytes (const VmFarDisk *disk);

#endif
