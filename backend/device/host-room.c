/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/host-room.h"
#include "io/log-limit.h"
#include "io/host-memory.h"
#include "io/source.h"

/* /proc/meminfo is read at most this often: reading it costs more than a grant does. */
#define HOST_MEMORY_AGE_US (100 * 1000)
/* How often it is looked at for a guest that was refused for the host's sake. */
#define WATCH_INTERVAL_MS 1000

struct HostRoom {
  HostAccount *account;
  uint64_t reserve_bytes;
  char *name;
  HostMemory memory;
  gint64 memory_at;         /* g_get_monotonic_time; 0 = never read */
  uint64_t promised_blocks; /* taken since then, less those given back: not in the figures of `memory` yet */
  LogLimit log;
  GSource *watch_source; /* NULL: nobody waits */
  gboolean (*is_wanted) (gpointer data);
  void (*there_is) (gpointer data);
  gpointer watch_data;
};

HostRoom *
host_room_new (HostAccount *account, uint64_t reserve_bytes, const char *name) {
  HostRoom *room = g_new0 (HostRoom, 1);

  room->account = account;
  room->reserve_bytes = reserve_bytes;
  room->name = g_strdup (name);
  return room;
}

void
host_room_free (HostRoom *room) {
  source_clear (&room->watch_source);
  host_account_free (room->account);
  g_free (room->name);
  g_free (room);
}

/* How many blocks the host's free memory has room for, on top of what is kept back. */
static uint64_t
memory_blocks (HostRoom *room) {
  const gint64 now = g_get_monotonic_time ();
  uint64_t blocks;

  if (room->memory_at == 0 || now - room->memory_at > HOST_MEMORY_AGE_US) {
    g_autoptr (GError) error = NULL;

    if (!host_memory_read (&room->memory, &error)) {
      if (log_limit_pass (&room->log))
        g_warning ("%s: %s", room->name, error->message);
      return 0;
    }
    room->memory_at = now;
    room->promised_blocks = 0;
  }
  if (room->memory.available_bytes <= room->reserve_bytes)
    return 0;
  blocks = (room->memory.available_bytes - room->reserve_bytes) >> DOMYBS_BLOCK_SHIFT;
  return blocks - MIN (blocks, room->promised_blocks);
}

uint64_t
host_room_take (HostRoom *room, uint64_t blocks, enum device_shortage *ret_shortage) {
  const uint64_t wanted = MIN (blocks, memory_blocks (room));
  const int64_t taken = wanted ? host_account_reserve (room->account, wanted) : 0;

  *ret_shortage = wanted < blocks ? DEVICE_SHORTAGE_HOST_MEMORY : DEVICE_SHORTAGE_NONE;
  if (taken < 0) {
    *ret_shortage = DEVICE_SHORTAGE_HOST_BUSY;
    return 0;
  }
  if ((uint64_t)taken < wanted)
    *ret_shortage = DEVICE_SHORTAGE_HOST_LIMIT;
  room->promised_blocks += (uint64_t)taken;
  return (uint64_t)taken;
}

void
host_room_give_back (HostRoom *room, uint64_t blocks) {
  host_account_return (room->account, blocks);
  room->promised_blocks -= MIN (room->promised_blocks, blocks);
}

void
host_room_set (HostRoom *room, uint64_t blocks) {
  host_account_set (room->account, blocks);
}

gboolean
host_room_is_there (HostRoom *room) {
  return memory_blocks (room) && host_account_used (room->account) < host_account_limit (room->account);
}

static gboolean
on_watch (gpointer data) {
  HostRoom *room = data;

  if (!room->is_wanted (room->watch_data)) {
    source_clear (&room->watch_source);
    return G_SOURCE_REMOVE;
  }
  if (host_room_is_there (room))
    room->there_is (room->watch_data);
  return G_SOURCE_CONTINUE;
}

void
host_room_watch (HostRoom *room, gboolean (*is_wanted) (gpointer data), void (*there_is) (gpointer data), gpointer data) {
  room->is_wanted = is_wanted;
  room->there_is = there_is;
  room->watch_data = data;
  if (!room->watch_source && is_wanted (data))
    room->watch_source = source_timeout (WATCH_INTERVAL_MS, on_watch, room);
}

uint64_t
host_room_used (HostRoom *room) {
  return host_account_used (room->account);
}

uint64_t
host_room_limit (const HostRoom *room) {
  return host_account_limit (room->account);
}

uint64_t
host_room_reserve_bytes (const HostRoom *room) {
  return room->reserve_bytes;
}
