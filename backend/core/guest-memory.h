/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The memory table of a vhost-user device, and the one place where a guest's address becomes a pointer.
 *
 * A range is valid only if it lies wholly within one region, and never within memory that the device itself shares (its window):
 * otherwise a guest could make us touch, and so populate, blocks that it was never given, or have us answer a RELEASE into the very
 * block that it releases. Drivers keep their rings and requests in the VM's own RAM anyway.
 *
 * Pure: mapping and unmapping is io/guest-map's. The table does not own its pointers.
 */
#ifndef DOMYBS_CORE_GUEST_MEMORY_H
#define DOMYBS_CORE_GUEST_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/vhost-user.h"

#define GUEST_REGIONS_MAX 32u

struct guest_region {
  uint64_t guest_addr;
  uint64_t bytes;
  uint64_t user_addr; /* in the front-end */
  uint8_t *host;      /* here */
  bool own;                /* shared memory of the device itself: nothing in it is valid as a ring or a buffer */
};

struct guest_memory {
  unsigned n_regions;
  struct guest_region regions[GUEST_REGIONS_MAX];
};

/* The pointer to [guest_addr, + bytes), or NULL where that is not valid; bytes = 0 is never valid. */
void *guest_memory_at (const struct guest_memory *memory, uint64_t guest_addr, uint64_t bytes);

/* The same for an address of the front-end's own address space, as SET_VRING_ADDR uses. */
void *guest_memory_at_user (const struct guest_memory *memory, uint64_t user_addr, uint64_t bytes);

#endif
