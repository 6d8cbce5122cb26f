/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where the copies of a far disk are: what domybs-far says of that (`protection` and `copies` of backend/far/control.md), in
 * words and in JSON. Texts are to be freed. */
#ifndef DOMYBS_HOST_TOOLS_VM_COPIES_H
#define DOMYBS_HOST_TOOLS_VM_COPIES_H

#include "ctl/ctl.h"

/* As many as a domybs-far can have. */
#define VM_COPIES_DONORS_MAX 16u

/* Figures that an answer lacks are VM_UNKNOWN, texts NULL. */
typedef struct {
  char *name, *address, *domain, *channel, *why, *state;
  guint64 channel_age_ms;
  guint64 copies, suspect, old, level_blocks, wanted_blocks;
  guint64 read_bytes, written_bytes, failed_writes, damaged, timeouts, reconnects;
  guint64 read_p50_us, read_p95_us;
  gboolean leaves; /* it was removed, and goes when nothing depends on it any more */
} VmCopyDonor;

typedef struct {
  char *protection; /* "ssd"; NULL: an older domybs-far */
  gboolean known;   /* what follows: it has donors, or could have */
  guint64 places, protected, degraded, endangered, lost, in_storage, waiting;
  guint64 repaired_bytes, repairs_failed, degraded_writes;
  gboolean repairing;
  unsigned n_donors;
  VmCopyDonor donors[VM_COPIES_DONORS_MAX];
} VmCopies;

/* disk: one of `disks`. */
void vm_copies_read (JsonObject *disk, VmCopies *ret_copies);
void vm_copies_clear (VmCopies *copies);

/* "ssd: 340 places of 2M protected, 12 degraded, 0 endangered, 0 lost; …"; NULL: there is nothing to say. */
char *vm_copies_text (const VmCopies *copies);
/* "rack1, up, 170 copies; reads take 90 µs (p50), 210 µs (p95)" */
char *vm_copies_donor_text (const VmCopyDonor *donor);
/* As vm_far_disk_trouble. */
char *vm_copies_trouble (const VmCopies *copies);

/* Members `protection` and `copies` of the object that is being built. */
void vm_copies_json (Ctl *ctl, const VmCopies *copies);

#endif
