/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Writes the seed corpora: make-corpus FOLDER → FOLDER/{message,chain,request,state,blk,object,lease,page,gossip}/NAME. The same bytes each time. */
#include <errno.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>

#include "core/gossip-wire.h"
#include "core/vhost-user.h"
#include "core/device-state.h"
#include "core/memory-device.h"
#include "core/object.h"
#include "fuzz-blk.h"
#include "fuzz-chain.h"
#include "fuzz-lease.h"
#include "fuzz-object.h"
#include "fuzz-page.h"
#include "fuzz-request.h"
#include "fuzz-state.h"

static const char *folder;

static void
save (const char *harness, const char *name, GByteArray *seed) {
  g_autofree char *parent = g_build_filename (folder, harness, NULL);
  g_autofree char *path = g_build_filename (parent, name, NULL);
  g_autoptr (GError) error = NULL;

  if (g_mkdir_with_parents (parent, 0777) != 0)
    g_error ("%s: %s", parent, g_strerror (errno));
  if (!g_file_set_contents (path, (const char *)seed->data, seed->len, &error))
    g_error ("%s", error->message);
  g_byte_array_unref (seed);
}

static void
add (GByteArray *seed, const void *bytes, guint n) {
  g_byte_array_append (seed, bytes, n);
}

/* Little-endian values of one and two bytes, as many as there are. */
#define ADD_8(seed, ...) add ((seed), (const uint8_t[]){ __VA_ARGS__ }, sizeof ((const uint8_t[]){ __VA_ARGS__ }))

static void
add_16 (GByteArray *seed, uint16_t value) {
  ADD_8 (seed, (uint8_t)value, (uint8_t)(value >> 8));
}

/* ---- messages: number of file descriptors, header, payload ---- */

static void
add_message (GByteArray *seed, uint32_t request, unsigned fds, const void *payload, uint32_t bytes) {
  const uint32_t header[3] = { request, 1 | 8 /* version, reply wanted */, bytes };

  ADD_8 (seed, (uint8_t)fds);
  add (seed, header, sizeof header);
  if (bytes)
    add (seed, payload, bytes);
}

static void
add_number (GByteArray *seed, uint32_t request, unsigned fds, uint64_t number) {
  add_message (seed, request, fds, &number, sizeof number);
}

static void
add_memory_table (GByteArray *seed, unsigned n) {
  uint64_t table[1 + 8 * 4] = { n };

  for (unsigned i = 0; i < n; i++) {
    uint64_t *region = &table[1 + i * 4];

    region[0] = (uint64_t)i << 30;
    region[1] = 1ull << 30;
    region[2] = 0x7f0000000000ull + ((uint64_t)i << 31);
    region[3] = i * 4096;
  }
  add_message (seed, VHU_SET_MEM_TABLE, n, table, 8 + n * 32);
}

static void
add_config (GByteArray *seed, uint32_t request, uint32_t offset, uint32_t bytes) {
  uint32_t payload[3 + 64] = { offset, bytes, 0 };

  add_message (seed, request, 0, payload, 12 + bytes);
}

/* What QEMU says while it realises the device. */
static GByteArray *
qemu_realizes (void) {
  GByteArray *seed = g_byte_array_new ();

  add_message (seed, VHU_GET_FEATURES, 0, NULL, 0);
  add_message (seed, VHU_GET_PROTOCOL_FEATURES, 0, NULL, 0);
  add_number (seed, VHU_SET_PROTOCOL_FEATURES, 0, 1u << 0 | 1u << 3 | 1u << 5 | 1u << 9 | 1u << 10 | 1u << 22);
  add_message (seed, VHU_GET_QUEUE_NUM, 0, NULL, 0);
  add_message (seed, VHU_SET_BACKEND_REQ_FD, 1, NULL, 0);
  add_message (seed, VHU_SET_OWNER, 0, NULL, 0);
  add_number (seed, VHU_SET_VRING_CALL, 1, 0);
  add_number (seed, VHU_SET_VRING_ERR, 1, 1);
  add_message (seed, VHU_GET_SHMEM_CONFIG, 0, NULL, 0);
  add_config (seed, VHU_GET_CONFIG, 0, 64);
  return seed;
}

/* … and when the driver is ready. */
static GByteArray *
qemu_starts (void) {
  GByteArray *seed = g_byte_array_new ();
  const uint64_t addr[5] = { 0, 0x7f0000001000, 0x7f0000003000, 0x7f0000002000, 0 };

  add_number (seed, VHU_SET_FEATURES, 0, 1ull << 30 | 1ull << 32);
  add_memory_table (seed, 2);
  add_number (seed, VHU_SET_VRING_NUM, 0, 128ull << 32);
  add_number (seed, VHU_SET_VRING_BASE, 0, 0);
  add_message (seed, VHU_SET_VRING_ADDR, 0, addr, sizeof addr);
  add_number (seed, VHU_SET_VRING_KICK, 1, 0);
  add_number (seed, VHU_SET_VRING_CALL, 0, 1 | VHU_VRING_NOFD_MASK);
  add_number (seed, VHU_SET_VRING_ENABLE, 0, 1ull << 32);
  add_number (seed, VHU_GET_VRING_BASE, 0, 0);
  return seed;
}

/* … and a disk's, which is to survive its back-end: padded as QEMU says it, then packed. */
static GByteArray *
qemu_disk_starts (void) {
  GByteArray *seed = g_byte_array_new ();
  const uint64_t asked[3] = { 0, 0, 128ull << 16 | 4 }, given[3] = { 4 * 2112, 0, 128ull << 16 | 4 };

  add_number (seed, VHU_SET_PROTOCOL_FEATURES, 0, 1u << 0 | 1u << 3 | 1u << 5 | 1u << 9 | 1u << 12);
  add_message (seed, VHU_GET_INFLIGHT_FD, 0, asked, 24);
  add_message (seed, VHU_SET_INFLIGHT_FD, 1, given, 24);
  add_message (seed, VHU_GET_INFLIGHT_FD, 0, asked, 20);
  add_message (seed, VHU_SET_INFLIGHT_FD, 1, given, 20);
  add_number (seed, VHU_SET_VRING_BASE, 0, 0);
  return seed;
}

/* As libblkio gives its memory, and takes it away. */
static GByteArray *
memory_slots (void) {
  GByteArray *seed = g_byte_array_new ();
  const uint64_t region[5] = { 0, 0x7f0000000000, 2 << 20, 0x7f0000000000, 4096 };

  add_message (seed, VHU_GET_MAX_MEM_SLOTS, 0, NULL, 0);
  add_message (seed, VHU_ADD_MEM_REG, 1, region, sizeof region);
  add_message (seed, VHU_REM_MEM_REG, 0, region, sizeof region);
  add_message (seed, VHU_REM_MEM_REG, 1, region, sizeof region);
  return seed;
}

static void
message_seeds (void) {
  GByteArray *seed = g_byte_array_new ();

  save ("message", "qemu-realizes", qemu_realizes ());
  save ("message", "qemu-starts", qemu_starts ());
  save ("message", "qemu-disk-starts", qemu_disk_starts ());
  save ("message", "memory-slots", memory_slots ());
  add_memory_table (seed, 8);
  add_memory_table (seed, 0);
  save ("message", "memory-tables", seed);
  seed = g_byte_array_new ();
  add_config (seed, VHU_SET_CONFIG, 0, 64);
  add_config (seed, VHU_GET_CONFIG, 0, 256);
  add_config (seed, VHU_GET_CONFIG, 255, 1);
  save ("message", "config-ranges", seed);
  seed = g_byte_array_new ();
  add_number (seed, VHU_SET_FEATURES, 3, 0);
  add_message (seed, VHU_RESET_DEVICE, 0, NULL, 0);
  add_message (seed, VHU_RESET_OWNER, 0, NULL, 0);
  add_message (seed, 40, 0, NULL, 0);
  save ("message", "odd-ones", seed);
}

/* ---- chains ---- */

struct memory {
  uint8_t options;
  uint16_t start; /* where the device's index stands */
  uint8_t bytes[CHAIN_RAM_BYTES];
  unsigned used_bytes; /* a seed ends where nothing but zeroes follows */
};

static void
put (struct memory *memory, unsigned offset, const void *bytes, unsigned n) {
  memcpy (memory->bytes + offset, bytes, n);
  memory->used_bytes = MAX (memory->used_bytes, offset + n);
}

static void
desc (struct memory *memory, unsigned table, unsigned index, uint64_t addr, uint32_t len, uint16_t flags, uint16_t next) {
  const uint16_t tail[2] = { flags, next };

  put (memory, table + index * 16, &addr, 8);
  put (memory, table + index * 16 + 8, &len, 4);
  put (memory, table + index * 16 + 12, tail, 4);
}

static void
offer (struct memory *memory, uint16_t slot, uint16_t head) {
  put (memory, CHAIN_AVAIL + 4 + 2u * slot, &head, 2);
}

static void
save_chain (const char *name, struct memory *memory, uint16_t n_offered) {
  GByteArray *seed = g_byte_array_new ();
  const uint16_t index = (uint16_t)(memory->start + n_offered);

  put (memory, CHAIN_AVAIL + 2, &index, 2);
  ADD_8 (seed, memory->options);
  add_16 (seed, memory->start);
  add (seed, memory->bytes, memory->used_bytes);
  save ("chain", name, seed);
}

static void
chain_seeds (void) {
  const uint64_t data = CHAIN_RAM_BASE + 0x800, table = CHAIN_RAM_BASE + 0x400;
  enum { NEXT = 1, WRITE = 2, INDIRECT = 4 };
  struct memory direct = { .options = 3, .start = 0 };
  struct memory wraps = { .options = 1 | CHAIN_EVENT_IDX | CHAIN_UNPOP, .start = 0xffff };
  struct memory indirect = { .options = 2 | CHAIN_INDIRECT, .start = 7 };
  struct memory window = { .options = 2 | CHAIN_INDIRECT, .start = 0 };
  struct memory loop = { .options = 2, .start = 0 };

  desc (&direct, 0, 0, data, 24, NEXT, 1);
  desc (&direct, 0, 1, data + 64, 32, NEXT, 2);
  desc (&direct, 0, 2, data + 128, 48, WRITE, 0);
  desc (&direct, 0, 3, data + 256, 32, WRITE, 0);
  offer (&direct, 0, 0);
  offer (&direct, 1, 3);
  save_chain ("direct", &direct, 2);

  desc (&wraps, 0, 0, data, 1, WRITE, 0);
  desc (&wraps, 0, 1, data + 8, 1, 0, 0);
  offer (&wraps, 1, 0);
  offer (&wraps, 0, 1);
  save_chain ("index-wraps", &wraps, 2);

  desc (&indirect, 0, 0, data, 24, NEXT, 1);
  desc (&indirect, 0, 1, table, 32, INDIRECT, 0);
  desc (&indirect, 0x400, 0, data + 64, 8, NEXT, 1);
  desc (&indirect, 0x400, 1, data + 128, 64, WRITE, 0);
  desc (&indirect, 0, 2, table, 32, INDIRECT, 0);
  offer (&indirect, 3, 0);
  offer (&indirect, 0, 2);
  save_chain ("indirect", &indirect, 2);

  desc (&window, 0, 0, data, 8, NEXT, 1);
  desc (&window, 0, 1, CHAIN_WINDOW_BASE - 64, 64, WRITE, 0);
  desc (&window, 0, 2, CHAIN_WINDOW_BASE, 64, WRITE, 0);
  offer (&window, 0, 0);
  offer (&window, 1, 2);
  save_chain ("window", &window, 2);

  desc (&loop, 0, 0, data, 8, NEXT, 1);
  desc (&loop, 0, 1, data, 8, NEXT, 0);
  offer (&loop, 0, 0);
  save_chain ("loop", &loop, 1);
}

/* ---- requests ---- */

static void
hello (GByteArray *seed, uint8_t mood, uint8_t nonce, uint8_t section_shift) {
  ADD_8 (seed, FUZZ_HELLO, mood, nonce, section_shift);
}

static void
grant (GByteArray *seed, uint8_t mood, uint8_t hint, uint8_t flags, uint16_t blocks, uint16_t start, uint16_t area) {
  ADD_8 (seed, FUZZ_GRANT, mood, (uint8_t)(hint | flags << 3));
  add_16 (seed, blocks);
  add_16 (seed, start);
  add_16 (seed, area);
}

static void
release_granted (GByteArray *seed, uint8_t mood, uint16_t from, uint8_t count) {
  ADD_8 (seed, FUZZ_RELEASE_GRANTED, mood);
  add_16 (seed, from);
  ADD_8 (seed, (uint8_t)(count - 1));
}

/* Section by section, some of it back, all of it back: a guest on a good day. */
static GByteArray *
good_day (void) {
  GByteArray *seed = g_byte_array_new ();

  hello (seed, 0, 1, 6);
  for (uint16_t section = 0; section < 3; section++)
    grant (seed, 0, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 64, section * 64, 64);
  ADD_8 (seed, FUZZ_STATS, 0, 2, DOMYBS_STAT_MEM_TOTAL, 0, 4, DOMYBS_STAT_MEM_FREE, 9, 0);
  release_granted (seed, 0, 70, 5);
  grant (seed, 0, DOMYBS_HINT_ANY, 0, 5, 64, 64);
  ADD_8 (seed, FUZZ_REPEAT, 0, 2);
  release_granted (seed, 0, 0, 192);
  ADD_8 (seed, FUZZ_BYE, 0);
  return seed;
}

/* Runs over runs, until the answer has no more room for them. */
static GByteArray *
fragments (void) {
  GByteArray *seed = g_byte_array_new ();

  hello (seed, 0, 2, 4);
  grant (seed, 0, DOMYBS_HINT_LOCAL, 0, 200, 0, 0);
  ADD_8 (seed, FUZZ_RELEASE, 0, 9);
  for (uint16_t i = 0; i < 10; i++) {
    add_16 (seed, (uint16_t)(i * 2));
    ADD_8 (seed, 1);
  }
  grant (seed, FUZZ_MOOD_TIGHT, DOMYBS_HINT_LOCAL, 0, 10, 0, 40);
  grant (seed, 0, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 30, 0, 40);
  grant (seed, 0, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_SECTION, 100, 0, 0);
  return seed;
}

/* A host that has little, fails, or is stopped. */
static GByteArray *
poor_host (void) {
  GByteArray *seed = g_byte_array_new ();

  hello (seed, DEVICE_RETRY, 3, 6);
  hello (seed, 0, 3, 6);
  grant (seed, FUZZ_MOOD_SCARCE | 3 << 4, DOMYBS_HINT_LOCAL, 0, 100, 0, 0);
  grant (seed, FUZZ_MOOD_SCARCE | 3 << 4, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 100, 0, 0);
  grant (seed, DEVICE_FAILED, DOMYBS_HINT_LOCAL, 0, 10, 0, 0);
  grant (seed, FUZZ_MOOD_DROP, DOMYBS_HINT_LOCAL, 0, 10, 0, 0);
  release_granted (seed, FUZZ_MOOD_DROP, 0, 4);
  release_granted (seed, DEVICE_FAILED, 0, 4);
  ADD_8 (seed, FUZZ_BYE, DEVICE_RETRY);
  ADD_8 (seed, FUZZ_RESET);
  hello (seed, 0, 3, 9);
  return seed;
}

static GByteArray *
raw_and_wrong (void) {
  const struct domybs_request release = { .type = DOMYBS_REQ_RELEASE, .count = 2 };
  const struct domybs_run runs[2] = { { 0, 2 }, { 1, 1 } };
  const struct domybs_request unknown = { .type = 77 };
  GByteArray *seed = g_byte_array_new ();

  hello (seed, 0, 4, 6);
  grant (seed, 0, DOMYBS_HINT_SHARED, 0, 1, 0, 0);
  grant (seed, 0, DOMYBS_HINT_LOCAL, 0, 2, 0, 0);
  ADD_8 (seed, FUZZ_RAW, 0, sizeof release + sizeof runs);
  add (seed, &release, sizeof release);
  add (seed, runs, sizeof runs);
  ADD_8 (seed, FUZZ_RAW_ALL, 0, sizeof unknown);
  add (seed, &unknown, sizeof unknown);
  grant (seed, FUZZ_MOOD_WRONG_ID, DOMYBS_HINT_LOCAL, 0, 1, 0, 0);
  grant (seed, FUZZ_MOOD_WRONG_SESSION, DOMYBS_HINT_LOCAL, 0, 1, 0, 0);
  ADD_8 (seed, FUZZ_TARGET, 1, 200, 0);
  ADD_8 (seed, FUZZ_REPEAT, 0, 0);
  return seed;
}

/* ---- states ---- */

static GByteArray *
state_seed (bool pending, uint8_t damages) {
  GByteArray *seed = g_byte_array_new ();

  ADD_8 (seed, (uint8_t)((pending ? FUZZ_STATE_PENDING : 0) | damages << FUZZ_STATE_DAMAGES_SHIFT));
  return seed;
}

static void
damage (GByteArray *seed, uint8_t part, size_t at, uint8_t bytes, uint64_t value) {
  ADD_8 (seed, part, bytes);
  add_16 (seed, (uint16_t)at);
  add (seed, &value, bytes);
}

static void
state_seeds (void) {
  enum { HEADER, SCALARS, ANSWERS, RECORD, BITS };
  GByteArray *seed = state_seed (true, 0);

  ADD_8 (seed, 3, 1, 100, 0, 3, 67, 2, 0, 5); /* GRANT, RELEASE, GRANT twice, BYE, HELLO */
  save ("state", "in-flight", seed);
  seed = state_seed (false, 2);
  damage (seed, SCALARS, offsetof (struct state_scalars, device.region_blocks), 4, 128);
  damage (seed, BITS, 0, 8, UINT64_MAX);
  ADD_8 (seed, 3, 3, 0, 9);
  save ("state", "cut-otherwise", seed);
  seed = state_seed (true, 3);
  damage (seed, RECORD, offsetof (struct state_record, runs), 8, 950);
  damage (seed, RECORD, offsetof (struct state_record, change), 4, DEVICE_CHANGE_CLEAR);
  damage (seed, RECORD, offsetof (struct state_record, out_bytes), 4, STATE_OUT_BYTES_MAX);
  save ("state", "cleared", seed);
  seed = state_seed (false, 3);
  damage (seed, HEADER, offsetof (struct state_header, version), 8, 1ull << 32 | 3);
  damage (seed, ANSWERS, offsetof (struct state_answer, bytes), 4, DOMYBS_RESPONSE_BYTES_MAX);
  damage (seed, SCALARS, offsetof (struct state_scalars, session.n_regions), 4, 8);
  save ("state", "newer", seed);
}

/* ---- block requests ---- */

static GByteArray *
blk_seed (uint8_t options, uint32_t n_pages, uint16_t out, uint16_t in, uint8_t how, uint32_t type, uint64_t sector) {
  const uint32_t head[2] = { type, 0 };
  GByteArray *seed = g_byte_array_new ();

  ADD_8 (seed, options);
  add_16 (seed, (uint16_t)n_pages);
  add_16 (seed, (uint16_t)(n_pages >> 16));
  add_16 (seed, out);
  add_16 (seed, in);
  ADD_8 (seed, how);
  add (seed, head, sizeof head);
  add (seed, &sector, sizeof sector);
  return seed;
}

static void
add_blk_range (GByteArray *seed, uint64_t sector, uint32_t n_sectors, uint32_t flags) {
  const uint32_t tail[2] = { n_sectors, flags };

  add (seed, &sector, sizeof sector);
  add (seed, tail, sizeof tail);
}

static void
blk_seeds (void) {
  GByteArray *seed;

  save ("blk", "read", blk_seed (0, 100, 16, 8 * 4096 + 1, 0, 0, 92 * 8));
  save ("blk", "read-cut", blk_seed (0, 100, 16, 3 * 4096 + 1, 7, 0, 8));
  save ("blk", "write-cut", blk_seed (0, 100, 16 + 2 * 4096, 1, 100, 1, 0));
  save ("blk", "write-read-only", blk_seed (FUZZ_BLK_READ_ONLY, 100, 16 + 4096, 1, 0, 1, 0));
  save ("blk", "flush", blk_seed (0, 100, 16, 1, 1, 4, 0));
  save ("blk", "get-id", blk_seed (0, 100, 16, 21, 3, 8, 0));
  save ("blk", "no-status", blk_seed (0, 100, 16, 0, 0, 0, 0));
  save ("blk", "short-header", blk_seed (0, 100, 15, 1, 2, 0, 0));
  save ("blk", "sector-overflows", blk_seed (0, 100, 16, 4097, 0, 0, UINT64_MAX - 7));
  seed = blk_seed (FUZZ_BLK_LARGE, 1u << 20, 16 + 3 * 16, 1, 5, 11, 0);
  add_blk_range (seed, 0, 8, 0);
  add_blk_range (seed, (1ull << 35) - 8, 8, 0);
  add_blk_range (seed, 1ull << 35, 8, 0);
  save ("blk", "discard", seed);
  seed = blk_seed (0, 1000, 16 + 2 * 16, 1, 0, 13, 0);
  add_blk_range (seed, 0, 8000, 1);
  add_blk_range (seed, 0, 8, 2);
  save ("blk", "write-zeroes", seed);
}

/* ---- objects ---- */

static void
save_object (const char *name, uint64_t size_bytes, uint64_t n_stored, uint8_t options, uint64_t file_pages) {
  const struct object_header header = { .size_bytes = size_bytes, .n_stored = n_stored, .table_sum = "sum of the table" };
  GByteArray *seed = g_byte_array_new ();
  uint8_t wire[OBJECT_HEADER_BYTES];

  object_header_write (&header, wire);
  memcpy (wire + OBJECT_SUMMED_BYTES, "sum of the header", 17);
  ADD_8 (seed, options);
  add_16 (seed, OBJECT_SUMMED_BYTES + OBJECT_SUM_BYTES);
  add (seed, wire, OBJECT_SUMMED_BYTES + OBJECT_SUM_BYTES);
  if (options & FUZZ_OBJECT_FILE_SIZE)
    add_16 (seed, (uint16_t)file_pages);
  for (uint64_t i = 0; i < n_stored && i < 64; i++)
    ADD_8 (seed, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
  save ("object", name, seed);
}

static void
object_seeds (void) {
  save_object ("small", 3 * OBJECT_PAGE_BYTES - 1, 3, FUZZ_OBJECT_FILE_SIZE, 5);
  save_object ("cut-short", 3 * OBJECT_PAGE_BYTES, 3, FUZZ_OBJECT_FILE_SIZE, 4);
  save_object ("zeros", 300 * OBJECT_PAGE_BYTES, 0, 0, 0);
  save_object ("too-few", 300 * OBJECT_PAGE_BYTES, 70, 0, 0);
  save_object ("largest", OBJECT_PAGES_MAX * OBJECT_PAGE_BYTES, 1, 0, 0);
}

/* ---- page server ---- */

static void
add_page_request (GByteArray *seed, uint8_t command, uint8_t flags, uint8_t block, uint16_t within, uint8_t blocks, uint16_t bytes) {
  ADD_8 (seed, FUZZ_PAGE_REQUEST, command, flags, block);
  add_16 (seed, within);
  ADD_8 (seed, blocks);
  add_16 (seed, bytes);
}

static void
page_seeds (void) {
  GByteArray *seed = g_byte_array_new ();
  uint8_t i;

  /* Options, each with something that could be its data. */
  ADD_8 (seed, 0, FUZZ_PAGE_RAW, 4, 0, 0, 0, 3);
  for (i = 0; i < 11; i++)
    ADD_8 (seed, FUZZ_PAGE_OPTION, i, 0, 10, 0, 0, 0, 4, 'n', 'o', 'n', 'e', 0, 0, FUZZ_PAGE_TURN);
  save ("page", "options", seed);
  seed = g_byte_array_new ();
  ADD_8 (seed, 0, FUZZ_PAGE_RAW, 4, 0, 0, 0, 3, FUZZ_PAGE_OPTION, 6, 21, 4, 1, 2, 3, 4, FUZZ_PAGE_DATA, 61, 36, FUZZ_PAGE_TURN);
  save ("page", "too-long", seed);
  /* Requests: write, read over a border, zeroes, trim, map; then beyond the level, and closed in the middle of a write. */
  seed = g_byte_array_new ();
  ADD_8 (seed, FUZZ_PAGE_OPEN | FUZZ_PAGE_STRUCTURED | FUZZ_PAGE_CONTEXT);
  add_page_request (seed, 1, 0, 1, (uint16_t)-512, 0, 1024);
  ADD_8 (seed, FUZZ_PAGE_DATA, 0, 4, FUZZ_PAGE_TURN);
  add_page_request (seed, 0, 0, 1, (uint16_t)-4096, 0, 8192);
  add_page_request (seed, 0, 4, 7, 0, 0, 8192);
  add_page_request (seed, 6, 2, 2, 100, 1, 0);
  add_page_request (seed, 7, 0, 0, 0, 16, 0);
  add_page_request (seed, 4, 0, 0, 0, 3, 0);
  add_page_request (seed, 7, 8, 0, 1, 15, 0);
  add_page_request (seed, 3, 0, 0, 0, 0, 0);
  save ("page", "requests", seed);
  seed = g_byte_array_new ();
  ADD_8 (seed, FUZZ_PAGE_OPEN, FUZZ_PAGE_LEVEL, 1);
  add_page_request (seed, 6, 2, 0, 0, 8, 0);
  add_page_request (seed, 1, 0, 0, 0, 0, 60000);
  ADD_8 (seed, FUZZ_PAGE_DATA, 0, 4, FUZZ_PAGE_TURN, FUZZ_PAGE_CLOSE, FUZZ_PAGE_DATA, 0, 4, FUZZ_PAGE_CONNECT);
  add_page_request (seed, 1, 0, 0, 0, 0, 100);
  ADD_8 (seed, FUZZ_PAGE_STALE, 1, FUZZ_PAGE_DATA, 100, 0);
  save ("page", "closed", seed);
}

/* ---- leases ---- */

static void
add_lease_ask (GByteArray *seed, uint8_t verb, uint8_t flags, uint8_t session, uint8_t blocks, uint8_t seq) {
  ADD_8 (seed, FUZZ_LEASE_ASK, verb, 'w', 'h', 'b', flags, session, blocks, seq);
}

static void
lease_seeds (void) {
  enum { ATTACH = 1, GRANT, RELEASE, KEEP, END };
  GByteArray *seed = g_byte_array_new ();

  add_lease_ask (seed, ATTACH, FUZZ_LEASE_NO_LEASE, 1, 50, 0);
  add_lease_ask (seed, GRANT, 0, 1, 3, 1);
  for (uint8_t block = 0; block < 4; block++)
    ADD_8 (seed, FUZZ_LEASE_USE, block, 9);
  ADD_8 (seed, FUZZ_LEASE_USE, 1, 2, FUZZ_LEASE_RESTART, FUZZ_LEASE_ZERO);
  add_lease_ask (seed, RELEASE, 0, 1, 0, 2);
  add_lease_ask (seed, ATTACH, 0, 2, 50, 0);
  ADD_8 (seed, FUZZ_LEASE_USE, 1, 0);
  add_lease_ask (seed, END, 0, 2, 0, 0);
  ADD_8 (seed, FUZZ_LEASE_ZERO, FUZZ_LEASE_ZERO, FUZZ_LEASE_RESTART, FUZZ_LEASE_TIME, 200);
  save ("lease", "good-life", seed);
  seed = g_byte_array_new ();
  for (uint8_t verb = ATTACH; verb <= END; verb++) {
    add_lease_ask (seed, verb, FUZZ_LEASE_VICTIM, 3, 1, 9);
    add_lease_ask (seed, verb, FUZZ_LEASE_VICTIM | FUZZ_LEASE_OLD_EPOCH | FUZZ_LEASE_OTHER_KEY, 200, 1, 9);
    add_lease_ask (seed, verb, FUZZ_LEASE_VICTIM | FUZZ_LEASE_OTHER_ARENA, 3, 0, 0);
  }
  save ("lease", "of-another", seed);
  seed = g_byte_array_new ();
  add_lease_ask (seed, ATTACH, FUZZ_LEASE_NO_LEASE, 1, 50, 0);
  add_lease_ask (seed, GRANT, 0, 1, 4, 1);
  ADD_8 (seed, FUZZ_LEASE_ORDER, 3, 1, 0);
  add_lease_ask (seed, GRANT, 0, 1, 9, 2);
  add_lease_ask (seed, RELEASE, 0, 1, 1, 3);
  ADD_8 (seed, FUZZ_LEASE_ORDER, 0, 2, 1);
  add_lease_ask (seed, GRANT, 0, 1, 9, 4);
  save ("lease", "revoked", seed);
  seed = g_byte_array_new ();
  ADD_8 (seed, FUZZ_LEASE_NAME);
  add (seed, "lease-0000000000000001.0000000000000002.6f66207468697320617265616e612e2e", 72);
  ADD_8 (seed, FUZZ_LEASE_RAW, 0, 1, 0, 1);
  save ("lease", "names", seed);
}

/* ---- gossip: packets of the liar (4) to a host that knows 1, 2, 3; time ---- */

static void
add_gossip (GByteArray *seed, const struct gossip_packet *packet) {
  uint8_t bytes[GOSSIP_PACKET_BYTES];
  const size_t n = gossip_packet_encode (packet, bytes);

  ADD_8 (seed, 1);
  add_16 (seed, (uint16_t)n);
  add (seed, bytes, (guint)n);
}

static struct gossip_packet
gossip_packet (enum gossip_kind kind) {
  struct gossip_packet packet = { .kind = kind, .zone = 1, .low = 1 };

  packet.target[0] = kind == GOSSIP_PING || (kind >= GOSSIP_PING_REQ && kind <= GOSSIP_NACK) ? 200 : 0;
  return packet;
}

static void
gossip_seeds (void) {
  GByteArray *seed = g_byte_array_new ();
  struct gossip_packet packet = gossip_packet (GOSSIP_TELL);

  /* Its own record, with the largest numbers; a friend's one, changed; accusations of all. */
  packet.n_records = 2;
  packet.records[0] = (struct gossip_record){ .id = { 4 }, .incarnation = UINT32_MAX, .version = UINT32_MAX };
  packet.records[0].tiers[0] = (struct gossip_tier){ .capacity = UINT32_MAX, .free = UINT32_MAX };
  packet.records[1] = (struct gossip_record){ .id = { 2 }, .incarnation = 2, .version = 8, .flags = GOSSIP_LEFT };
  for (uint8_t i = 0; i < 4; i++)
    packet.accusations[packet.n_accusations++]
        = (struct gossip_accusation){ .accused = { i ? i : 200 }, .accuser = { 4 }, .incarnation = 1 };
  add_gossip (seed, &packet);
  ADD_8 (seed, 0, 20, 0, 40, 0, 255, 0, 255);
  save ("gossip", "records-and-accusations", seed);
  seed = g_byte_array_new ();
  for (enum gossip_kind kind = GOSSIP_PING; kind <= GOSSIP_NACK; kind++) {
    packet = gossip_packet (kind);
    add_gossip (seed, &packet);
    packet.target[0] = packet.target[0] ? 1 : 0;
    packet.zone = kind % 2;
    add_gossip (seed, &packet);
    ADD_8 (seed, 0, 10);
  }
  save ("gossip", "probes", seed);
  seed = g_byte_array_new ();
  packet = gossip_packet (GOSSIP_SYNC);
  packet.low = 0;
  packet.high = GOSSIP_PREFIX_MAX;
  add_gossip (seed, &packet);
  packet.n_entries = 4;
  for (uint8_t i = 0; i < 4; i++)
    packet.entries[i] = (struct gossip_entry){ .prefix = (uint32_t)(i ? i : 200) << 16, .version = (uint16_t)(i * 9) };
  add_gossip (seed, &packet);
  packet = gossip_packet (GOSSIP_WANT);
  packet.n_entries = GOSSIP_PACKET_ENTRIES;
  for (unsigned i = 0; i < packet.n_entries; i++)
    packet.entries[i].prefix = (1 + i % 4) << 16;
  add_gossip (seed, &packet);
  save ("gossip", "digests", seed);
}

int
main (int argc, char **argv) {
  if (argc != 2) {
    g_printerr ("Usage: %s FOLDER\n", argv[0]);
    return 1;
  }
  folder = argv[1];
  message_seeds ();
  chain_seeds ();
  save ("request", "good-day", good_day ());
  save ("request", "fragments", fragments ());
  save ("request", "poor-host", poor_host ());
  save ("request", "raw-and-wrong", raw_and_wrong ());
  state_seeds ();
  blk_seeds ();
  object_seeds ();
  lease_seeds ();
  page_seeds ();
  gossip_seeds ();
  return 0;
}
