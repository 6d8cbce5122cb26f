/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/guest-memory.h"

/* Whether [addr, + bytes) is within [start, + size): written so that no sum can wrap. */
static bool
within (uint64_t addr, uint64_t bytes, uint64_t start, uint64_t size) {
  return addr >= start && bytes <= size && addr - start <= size - bytes;
}

void *
guest_memory_at (const struct guest_memory *memory, uint64_t guest_addr, uint64_t bytes) {
  if (bytes == 0)
    return NULL;
  for (unsigned i = 0; i < memory->n_regions; i++) {
    const struct guest_region *region = &memory->regions[i];

    if (within (guest_addr, bytes, region->guest_addr, region->bytes))
      return region->own ? NULL : region->host + (guest_addr - region->guest_addr);
  }
  return NULL;
}

void *
guest_memory_at_user (const struct guest_memory *memory, uint64_t user_addr, uint64_t bytes) {
  if (bytes == 0)
    return NULL;
  for (unsigned i = 0; i < memory->n_regions; i++) {
    const struct guest_region *region = &memory->regions[i];

    if (within (user_addr, bytes, region->user_addr, region->bytes))
      return region->own ? NULL : region->host + (user_addr - region->user_addr);
  }
  return NULL;
}
