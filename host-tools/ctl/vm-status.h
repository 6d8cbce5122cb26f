/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The back-end's answer to `status`, read and checked. Pure. Its members: backend/device/control.md. */
#ifndef DOMYBS_HOST_TOOLS_VM_STATUS_H
#define DOMYBS_HOST_TOOLS_VM_STATUS_H

#include <glib.h>
#include <json-glib/json-glib.h>

#define VM_UNKNOWN G_MAXUINT64 /* a figure that this back-end, or this guest, does not give */

/* Of the back-end's processes: the keeper stays, workers come and go. What is not known is VM_UNKNOWN or NULL. */
typedef struct {
  gboolean known; /* FALSE: a back-end of an older version, which has none of this */
  guint64 pid, keeper_pid, state_version;
  char *version;
  gboolean busy;   /* workers died one after the other: the guest is told to ask again later */
  guint64 starts;  /* workers so far, this one included */
  guint64 deaths;  /* those that ended unasked */
  guint64 strikes; /* … the last ones of them in a row, without having done anything */
  char *last_death;
  guint64 last_death_age_ms, age_ms, keeper_age_ms;
  gboolean rolled_back; /* the last upgrade was undone, because workers of the new version died */
} VmWorker;

/* Reads "worker" of a `status`, a back-end's or a domybs-far's; known is FALSE where there is none. */
void vm_worker_read (JsonObject *answer, VmWorker *ret_worker);
void vm_worker_clear (VmWorker *worker);

typedef struct {
  guint64 block_bytes;
  guint64 window_blocks, max_blocks, granted_blocks;
  gboolean have_target;
  guint64 target_blocks;
  gboolean connected, window_mapped, session;
  guint64 memfd_bytes; /* of the host's memory, by the kernel's count */
  guint64 fragmentation_permille;
  guint64 requests, requests_refused, audit_punched_bytes;
  guint64 host_used_blocks, host_limit_blocks, host_reserve_bytes; /* the last: VM_UNKNOWN from older back-ends */
  guint64 pid;
  char *refused_reason;                 /* NULL: none */
  guint64 refused_age_ms, stats_age_ms; /* since the last refused GRANT, the last STATS; VM_UNKNOWN: there was none */
  /* The guest's word; VM_UNKNOWN, or NULL, where it gave none */
  char *driver;
  guint64 section_blocks, mem_total_bytes, mem_available_bytes, swap_total_bytes, swap_free_bytes;
  guint64 blocks_online, blocks_held, blocks_stuck;
  VmWorker worker;
} VmStatus;

/* FALSE (CTL_ERROR_ACCESS: "its back-end's answer makes no sense: …") when a member that must be there is missing, has another
 * type or contradicts another one; nothing is allocated then. */
gboolean vm_status_read (JsonObject *answer, VmStatus *ret_status, GError **error);
void vm_status_clear (VmStatus *status);

#endif
