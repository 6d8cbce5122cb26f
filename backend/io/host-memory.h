/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the host's kernel says of its own memory. */
#ifndef DOMYBS_IO_HOST_MEMORY_H
#define DOMYBS_IO_HOST_MEMORY_H

#include <glib.h>
#include <stdint.h>

typedef struct {
  uint64_t total_bytes;
  uint64_t available_bytes;
} HostMemory;

/* From /proc/meminfo, which stays open from the first call on. */
gboolean host_memory_read (HostMemory *ret_memory, GError **error);

/* What of the host's memory is never lent to guests: a tenth, at least 512 MiB, at most 8 GiB; and never more than half, so that
 * small hosts have something to lend. The host's own services, page tables and QEMU's overhead live there. */
uint64_t host_memory_reserve (uint64_t total_bytes);

#endif
