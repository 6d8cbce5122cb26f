/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VM's memory, as a vhost-user front-end gives it: all at once, or region by region. */
#include "io/vhost-user-internal.h"
#include "io/guest-map.h"

#include <string.h>
#include <sys/stat.h>

static void
unmap (struct guest_memory *memory) {
  for (unsigned i = 0; i < memory->n_regions; i++)
    guest_unmap (memory->regions[i].host);
  memset (memory, 0, sizeof *memory);
}

/* Regions that were removed: nobody uses them any more. */
static void
unmap_leaving (VhostUserSession *session) {
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    session->queues[i].n_old = 0;
  unmap (&session->leaving);
}

static void
unmap_leaving_if_unused (VhostUserSession *session) {
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (session->queues[i].n_old)
      return;
  unmap_leaving (session);
}

static void
leave_memory (VhostUserSession *session) {
  for (unsigned i = 0; i < VHOST_USER_QUEUES_MAX; i++)
    virtqueue_unresolve (&session->queues[i].vq);
  for (unsigned i = 0; i < session->memory.n_regions; i++)
    vhost_user_session_drop (session, &session->region_slots[i]);
}

void
vhost_user_session_unmap_all (VhostUserSession *session) {
  leave_memory (session);
  unmap (&session->memory);
  unmap_leaving (session);
}

gboolean
vhost_user_session_map_region (VhostUserSession *session, struct guest_region *region, unsigned slot, uint64_t offset) {
  const int fd = vhost_user_session_fd (session, slot);
  g_autoptr (GError) error = NULL;
  struct stat st;

  region->host = guest_map (fd, offset, region->bytes, &error);
  if (!region->host || fstat (fd, &st) < 0) {
    g_message ("%s: memory region at %#" G_GINT64_MODIFIER "x: %s", session->type->name, region->guest_addr,
               error ? error->message : "can't look at its file");
    guest_unmap (region->host);
    return FALSE;
  }
  region->own = session->type->own_memory && session->type->own_memory (session->device, &st);
  return TRUE;
}

static gboolean
map_new (VhostUserSession *session, const struct vhu_memory_region *asked, unsigned slot, struct guest_region *ret_region) {
  *ret_region = (struct guest_region){
    .guest_addr = asked->guest_addr,
    .bytes = asked->bytes,
    .user_addr = asked->user_addr,
  };
  return vhost_user_session_map_region (session, ret_region, slot, asked->mmap_offset);
}

static void
keep_slot (VhostUserSession *session, unsigned i, uint64_t offset, uint8_t *slot) {
  session->region_offsets[i] = offset;
  session->region_slots[i] = *slot;
  *slot = STATE_NONE;
}

/* ---- all at once ---- */

const char *
vhost_user_session_set_memory (VhostUserSession *session, const struct vhu_memory_table *table, uint8_t *slots) {
  struct guest_memory memory = { 0 };

  /* The new table is mapped before the old one goes, so that a table that can't be mapped changes nothing. */
  for (unsigned i = 0; i < table->n_regions; i++) {
    if (!map_new (session, &table->regions[i], slots[i], &memory.regions[i])) {
      unmap (&memory);
      return "a memory region can't be mapped";
    }
    memory.n_regions++;
  }
  leave_memory (session);
  session->old_memory = session->memory;
  session->memory = memory;
  for (unsigned i = 0; i < table->n_regions; i++)
    keep_slot (session, i, table->regions[i].mmap_offset, &slots[i]);
  if (session->type->memory_changed)
    session->type->memory_changed (session->device);
  unmap (&session->old_memory);
  unmap_leaving (session);
  for (unsigned i = 0; i < session->type->n_queues; i++)
    vhost_user_session_resolve_queue (session, i);
  for (unsigned i = 0; i < session->type->n_queues; i++)
    vhost_user_session_push_late (session, i);
  return NULL;
}

static void *
moved_from (const VhostUserSession *session, const struct guest_memory *old, const uint8_t *at, size_t n) {
  for (unsigned i = 0; i < old->n_regions; i++) {
    const struct guest_region *region = &old->regions[i];

    if (at >= region->host && n <= region->bytes && (uint64_t)(at - region->host) <= region->bytes - n)
      return guest_memory_at (&session->memory, region->guest_addr + (uint64_t)(at - region->host), n);
  }
  return NULL;
}

void *
vhost_user_session_moved (VhostUserSession *session, const void *address, size_t n) {
  void *now = moved_from (session, &session->old_memory, address, n);

  return now ? now : moved_from (session, &session->leaving, address, n);
}

gboolean
vhost_user_session_move_chain (VhostUserSession *session, struct virtqueue_chain *chain) {
  struct iovec moved[VIRTQUEUE_PIECES_MAX];
  const unsigned n = chain->n_out + chain->n_in;

  for (unsigned i = 0; i < n; i++) {
    moved[i].iov_base = vhost_user_session_moved (session, chain->pieces[i].iov_base, chain->pieces[i].iov_len);
    moved[i].iov_len = chain->pieces[i].iov_len;
    if (!moved[i].iov_base)
      return FALSE;
  }
  memcpy (chain->pieces, moved, n * sizeof *moved);
  return TRUE;
}

/* ---- region by region (CONFIGURE_MEM_SLOTS) ----
 *
 * A front-end that changes a region removes it and adds it again, with requests in flight and with rings in it. So what is
 * removed stays mapped until the requests have ended that may use it (it is the VM's memory still, only its place changes),
 * and a queue whose rings were in it waits for them to come back. */

static gboolean
overlaps (const struct guest_region *region, uint64_t guest_addr, uint64_t bytes) {
  return guest_addr < region->guest_addr + region->bytes && region->guest_addr < guest_addr + bytes;
}

static gboolean
rings_are_there (const VhostUserSession *session, const struct virtqueue *vq) {
  return guest_memory_at_user (&session->memory, vq->addr.desc, 1) && guest_memory_at_user (&session->memory, vq->addr.avail, 1)
         && guest_memory_at_user (&session->memory, vq->addr.used, 1);
}

const char *
vhost_user_session_add_memory (VhostUserSession *session, const struct vhu_memory_region *region, uint8_t *slot) {
  struct guest_memory *memory = &session->memory;

  for (unsigned i = 0; i < memory->n_regions; i++)
    if (overlaps (&memory->regions[i], region->guest_addr, region->bytes))
      return "memory regions overlap";
  if (memory->n_regions == GUEST_REGIONS_MAX)
    return "more memory regions than there are slots";
  if (!map_new (session, region, *slot, &memory->regions[memory->n_regions]))
    return "a memory region can't be mapped";
  keep_slot (session, memory->n_regions++, region->mmap_offset, slot);
  for (unsigned i = 0; i < session->type->n_queues; i++)
    if (session->queues[i].vq.state == VIRTQUEUE_IDLE && rings_are_there (session, &session->queues[i].vq)) {
      vhost_user_session_resolve_queue (session, i);
      vhost_user_session_push_late (session, i);
    }
  return NULL;
}

/* Notes what is in flight now. Whether anything is. */
static gboolean
note_old (VhostUserSession *session) {
  gboolean any = FALSE;

  for (unsigned i = 0; i < session->type->n_queues; i++) {
    SessionQueue *queue = &session->queues[i];

    memcpy (queue->old_bits, queue->inflight.bits, sizeof queue->old_bits);
    queue->n_old = queue->tracked ? queue->inflight.n : 0;
    any |= queue->n_old > 0;
  }
  return any;
}

void
vhost_user_session_left (VhostUserSession *session, SessionQueue *queue, uint16_t head) {
  const uint64_t bit = 1ull << (head % 64);

  if (head >= VIRTQUEUE_SIZE_MAX || !(queue->old_bits[head / 64] & bit))
    return;
  queue->old_bits[head / 64] &= ~bit;
  queue->n_old--;
  unmap_leaving_if_unused (session);
}

void
vhost_user_session_all_left (VhostUserSession *session, SessionQueue *queue) {
  queue->n_old = queue->n_late = 0;
  unmap_leaving_if_unused (session);
}

static gboolean
is_in (const struct guest_region *region, const void *address) {
  const uint8_t *at = address;

  return at >= region->host && at < region->host + region->bytes;
}

const char *
vhost_user_session_remove_memory (VhostUserSession *session, const struct vhu_memory_region *asked) {
  struct guest_memory *memory = &session->memory;
  struct guest_region region;
  unsigned i = 0;

  while (i < memory->n_regions
         && (memory->regions[i].guest_addr != asked->guest_addr || memory->regions[i].user_addr != asked->user_addr
             || memory->regions[i].bytes != asked->bytes))
    i++;
  if (i == memory->n_regions)
    return "no such memory region";
  region = memory->regions[i];
  if (note_old (session)) {
    if (session->leaving.n_regions == GUEST_REGIONS_MAX)
      return "too many memory regions are removed while requests wait";
    session->leaving.regions[session->leaving.n_regions++] = region;
  } else {
    guest_unmap (region.host);
  }
  for (unsigned k = 0; k < session->type->n_queues; k++) {
    struct virtqueue *vq = &session->queues[k].vq;

    if (vq->state == VIRTQUEUE_READY && (is_in (&region, vq->desc) || is_in (&region, vq->avail) || is_in (&region, vq->used)))
      virtqueue_unresolve (vq);
  }
  vhost_user_session_drop (session, &session->region_slots[i]);
  memory->n_regions--;
  memmove (&memory->regions[i], &memory->regions[i + 1], (memory->n_regions - i) * sizeof region);
  memmove (&session->region_slots[i], &session->region_slots[i + 1], memory->n_regions - i);
  memmove (&session->region_offsets[i], &session->region_offsets[i + 1],
           (memory->n_regions - i) * sizeof session->region_offsets[0]);
  session->region_slots[memory->n_regions] = STATE_NONE;
  return NULL;
}
