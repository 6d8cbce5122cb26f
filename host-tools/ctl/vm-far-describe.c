/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-far-describe.h"
#include "ctl/text.h"

/* What a guest may wait for storage before that is worth a word. */
#define WAIT_TOLD_MS 1000

static char *
size_or_unknown (guint64 bytes) {
  return bytes == VM_UNKNOWN ? g_strdup ("?") : text_size_short (bytes);
}

static gboolean
is_some (guint64 count) {
  return count != VM_UNKNOWN && count > 0;
}

char *
vm_far_disk_text (const VmFarDisk *disk) {
  g_autofree char *used = size_or_unknown (vm_far_used_bytes (disk)), *size = size_or_unknown (disk->size_bytes),
                  *stored = size_or_unknown (disk->stored_bytes);
  GString *text = g_string_new (NULL);

  g_string_append_printf (text, "%s of %s, stored in %s", used, size, stored);
  if (disk->read_p50_us != VM_UNKNOWN && disk->read_p99_us != VM_UNKNOWN)
    g_string_append_printf (text, "; reads take %" G_GUINT64_FORMAT " µs (p50), %" G_GUINT64_FORMAT " µs (p99)",
                            disk->read_p50_us, disk->read_p99_us);
  if (is_some (disk->prefetched_pages) && disk->prefetch_used_pages != VM_UNKNOWN)
    g_string_append_printf (text, "; %u%% of the pages read ahead were used",
                            (unsigned)(MIN (disk->prefetch_used_pages, disk->prefetched_pages) * 100 / disk->prefetched_pages));
  if (is_some (disk->reserve_blocks) && disk->reserved_blocks != VM_UNKNOWN) {
    g_autofree char *ready = text_size_short (disk->reserved_blocks * DOMAIN_BLOCK_BYTES),
                    *wanted = text_size_short (disk->reserve_blocks * DOMAIN_BLOCK_BYTES);

    g_string_append_printf (text, "; %s ready for the guest, which wants %s", ready, wanted);
  }
  if (disk->held)
    g_string_append (text, "; writes are held back by its wear budget");
  if (!disk->connected)
    g_string_append (text, "; not connected to QEMU");
  return g_string_free (text, FALSE);
}

char *
vm_far_disk_trouble (const VmFarDisk *disk) {
  if (is_some (disk->damaged_pages) || is_some (disk->lost_pages))
    return g_strdup_printf ("%" G_GUINT64_FORMAT
                            " pages that the storage gave back were not what had been stored; the storage is "
                            "broken, or somebody else writes to it",
                            is_some (disk->damaged_pages) ? disk->damaged_pages : disk->lost_pages);
  if (disk->unreachable && disk->copies.n_donors)
    return g_strdup ("its storage can't be reached, so that new copies are with donors only; see that its server is up");
  if (disk->unreachable)
    return g_strdup ("its storage can't be reached, and the guest's requests wait for it; see that its server is up");
  if (is_some (disk->waiting) && is_some (disk->oldest_wait_ms) && disk->oldest_wait_ms > WAIT_TOLD_MS)
    return g_strdup_printf ("%" G_GUINT64_FORMAT
                            " requests of the guest wait for the storage%s, the oldest for %" G_GUINT64_FORMAT
                            " s; see that %s",
                            disk->waiting, disk->copies.n_donors ? " or donors" : "", disk->oldest_wait_ms / 1000,
                            disk->copies.n_donors ? "they answer" : "it answers");
  if (is_some (disk->errors))
    return g_strdup_printf ("%" G_GUINT64_FORMAT " requests of the guest ended in an error; see its log", disk->errors);
  return vm_copies_trouble (&disk->copies);
}

gboolean
vm_far_waits (const Vm *vm) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const VmFarDisk *disk = &vm->far_status.disks[tier];

    if (vm->have_far_status && disk->there && is_some (disk->waiting) && is_some (disk->oldest_wait_ms)
        && disk->oldest_wait_ms > WAIT_TOLD_MS)
      return TRUE;
  }
  return FALSE;
}

char *
vm_far_trouble (const Vm *vm) {
  if (vm->far_problem)
    return g_strdup (vm->far_problem->message);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const VmFarDisk *disk = &vm->far_status.disks[tier];
    g_autofree char *trouble = vm->have_far_status && disk->there ? vm_far_disk_trouble (disk) : NULL;

    if (trouble)
      return g_strdup_printf ("far disk '%s': %s", domain_far_tier_name (tier), trouble);
  }
  if (vm->have_far_status && vm->far_status.worker.rolled_back) {
    g_autofree char *log = vm_far_log_path (vm);
    const char *version = vm->far_status.worker.version;

    return g_strdup_printf ("the last upgrade of its domybs-far was undone, because workers of the new version died: it is at "
                            "version %s; see %s",
                            version ? version : "unknown", log);
  }
  return NULL;
}

/* Used, of all; what is not known is not summed. */
char *
vm_far_cell (const Vm *vm) {
  guint64 used = 0, size = 0;
  g_autofree char *used_text = NULL, *size_text = NULL;

  if (!vm->have_far && !vm->far_pending)
    return g_strdup ("-");
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const VmFarDisk *disk = &vm->far_status.disks[tier];
    const guint64 bytes = vm->have_far_status && disk->there ? vm_far_used_bytes (disk) : VM_UNKNOWN;

    size += vm->far.bytes[tier];
    used += bytes == VM_UNKNOWN ? 0 : bytes;
  }
  size_text = text_size_short (size);
  used_text = vm->have_far_status ? text_size_short (used) : g_strdup (vm->far_problem ? "?" : "-");
  return g_strdup_printf ("%s/%s%s", used_text, size_text, vm_far_waits (vm) ? " waits" : "");
}

/* ---- JSON ---- */

static void
json_count (Ctl *ctl, const char *name, guint64 value) {
  if (value == VM_UNKNOWN)
    ctl_json_null (ctl, name);
  else
    ctl_json_int (ctl, name, (gint64)value);
}

static void
json_disk (Ctl *ctl, DomainFarTier tier, const VmFarDisk *disk) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_object (builder);
  ctl_json_string (ctl, "tier", domain_far_tier_name (tier));
  ctl_json_bool (ctl, "connected", disk->connected);
  ctl_json_string (ctl, "storage", disk->storage);
  ctl_json_bool (ctl, "storage-reachable", !disk->unreachable);
  json_count (ctl, "size-bytes", disk->size_bytes);
  json_count (ctl, "used-bytes", vm_far_used_bytes (disk));
  json_count (ctl, "stored-bytes", disk->stored_bytes);
  json_count (ctl, "same-pages", disk->same_pages);
  json_count (ctl, "raw-pages", disk->raw_pages);
  json_count (ctl, "packed-pages", disk->packed_pages);
  json_count (ctl, "lost-pages", disk->lost_pages);
  json_count (ctl, "damaged-pages", disk->damaged_pages);
  json_count (ctl, "waiting", disk->waiting);
  json_count (ctl, "oldest-wait-ms", disk->oldest_wait_ms);
  json_count (ctl, "reads", disk->reads);
  json_count (ctl, "writes", disk->writes);
  json_count (ctl, "discards", disk->discards);
  json_count (ctl, "errors", disk->errors);
  json_count (ctl, "read-p50-us", disk->read_p50_us);
  json_count (ctl, "read-p99-us", disk->read_p99_us);
  json_count (ctl, "write-p50-us", disk->write_p50_us);
  json_count (ctl, "write-p99-us", disk->write_p99_us);
  json_count (ctl, "prefetched-pages", disk->prefetched_pages);
  json_count (ctl, "prefetch-used-pages", disk->prefetch_used_pages);
  json_count (ctl, "prefetch-wasted-pages", disk->prefetch_wasted_pages);
  json_count (ctl, "reserve-blocks", disk->reserve_blocks);
  json_count (ctl, "reserved-blocks", disk->reserved_blocks);
  json_count (ctl, "wear-left-bytes", disk->wear_left_bytes);
  ctl_json_bool (ctl, "wear-held", disk->held);
  json_count (ctl, "wear-held-ms", disk->held_ms);
  vm_copies_json (ctl, &disk->copies);
  json_builder_end_object (builder);
}

void
vm_far_json_disks (Ctl *ctl, const Vm *vm) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_array (builder);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (vm->have_far_status && vm->far_status.disks[tier].there)
      json_disk (ctl, tier, &vm->far_status.disks[tier]);
  json_builder_end_array (builder);
}
