/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the images of a donor's table (tests/fixtures/state) are made with and what they say. */
#ifndef DOMYBS_TESTS_LEASE_IMAGE_H
#define DOMYBS_TESTS_LEASE_IMAGE_H

#include "core/lease-donor.h"

#include <glib.h>

#define IMAGE_BLOCKS 40u
#define IMAGE_LEASES 6u
static const struct lease_donor_geometry image_geometry = { IMAGE_BLOCKS, IMAGE_LEASES };

static inline bool
image_fence (void *data, uint64_t lease, uint64_t below) {
  return true;
}

static inline struct lease_donor *
image_open (void *state, const char **ret_why) {
  const struct lease_donor_ops ops = { .fence = image_fence };

  return lease_donor_open (state, lease_donor_state_bytes (&image_geometry), &image_geometry, IMAGE_BLOCKS, 0x1234567, &ops,
                           ret_why);
}

/* All that is in it. */
static inline char *
image_text (const struct lease_donor *donor) {
  GString *text = g_string_new (NULL);
  struct lease_donor_figures f;

  lease_donor_figures (donor, &f);
  g_string_append_printf (text, "arena %.16s, used %u, dirty %u, free %u, promised %u\n", (const char *)f.incarnation,
                          (unsigned)f.used, (unsigned)f.dirty, (unsigned)f.free, (unsigned)f.promised);
  for (uint32_t slot = 0; slot < IMAGE_LEASES; slot++) {
    struct lease_export export = { .slot = slot };
    struct lease_info info;

    if (!lease_donor_lease (donor, slot, &info))
      continue;
    g_string_append_printf (
        text,
        "slot %u: lease %u.%u, session %u, of %s, vm %.16s, host %.16s, boot %.16s, disk %u, export %u, level %u, "
        "silent %u, revoke %u to %u until %u:",
        slot, (unsigned)info.lease, (unsigned)info.epoch, (unsigned)info.session, info.identity, (const char *)info.vm,
        (const char *)info.host, (const char *)info.boot, info.disk, (unsigned)info.export_blocks, (unsigned)info.level,
        (unsigned)info.silent_ms, (unsigned)info.revoke, info.revoke ? (unsigned)info.revoke_level : 0,
        info.revoke ? (unsigned)info.revoke_until_ms : 0);
    export.lease = info.lease;
    export.epoch = info.epoch;
    for (uint64_t block = 0; block < info.export_blocks; block++) {
      uint64_t at;

      if (lease_donor_look (donor, &export, block, &at))
        g_string_append_printf (text, " %u@%u", (unsigned)block, (unsigned)at);
    }
    g_string_append_c (text, '\n');
  }
  for (uint32_t block = 0; block < IMAGE_BLOCKS; block++)
    g_string_append_c (text, "FUD?"[lease_donor_block (donor, block)]);
  g_string_append_c (text, '\n');
  return g_string_free (text, FALSE);
}

#endif
