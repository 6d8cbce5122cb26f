/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * The domybs memory device: everything that crosses between guest and host.
 *
 * This one header is compiled into the guest driver (kernel), the back-end and the tests. The prose specification, with the
 * rules that a struct cannot say, is domybs-device.md beside this file.
 *
 * All fields are little-endian. Sizes are asserted at the end; a layout never changes within an ABI version, new fields take
 * reserved space (which is zero until then, and ignored by the receiver).
 *
 * Units: "block" is always 2 MiB; block numbers count from the start of the window. "bytes" only where the name says so.
 */
#ifndef DOMYBS_ABI_H
#define DOMYBS_ABI_H

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/types.h>
typedef __u8 domybs_u8;
typedef __le16 domybs_le16;
typedef __le32 domybs_le32;
typedef __le64 domybs_le64;
#define DOMYBS_ASSERT_SIZE(type, bytes) static_assert(sizeof(type) == (bytes), #type " is " #bytes " bytes")
#else
#include <stdint.h>
typedef uint8_t domybs_u8;
typedef uint16_t domybs_le16; /* convert with le16toh()/htole16() */
typedef uint32_t domybs_le32;
typedef uint64_t domybs_le64;
#define DOMYBS_ASSERT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is " #bytes " bytes")
#endif

#define DOMYBS_ABI_VERSION 1u

/* virtio device id by default. Taken from the ids that QEMU's generic device knows by name and that no driver in Linux binds;
 * the magic in config space tells ours from a real device of that id. */
#define DOMYBS_VIRTIO_ID_DEFAULT 37u
#define DOMYBS_MAGIC 0x42594d44u /* "DMYB" */

#define DOMYBS_BLOCK_SHIFT 21u
#define DOMYBS_BLOCK_BYTES (1ull << DOMYBS_BLOCK_SHIFT)
#define DOMYBS_SHM_WINDOW 0u                 /* id of the shared-memory region that is the window */
#define DOMYBS_WINDOW_ALIGN_BYTES (2ull << 30) /* window sizes are powers of two and at least this */

#define DOMYBS_VQ_REQUEST 0u /* driver → device requests, answered in the same chain */
#define DOMYBS_VQ_EVENT 1u   /* buffers of struct domybs_event that the device fills */
#define DOMYBS_VQ_COUNT 2u

/* ---- config space: read-only for the driver ---- */

#define DOMYBS_CONFIG_F_TARGET (1u << 0)    /* target_blocks is the host's wish; without it the driver decides by pressure */
#define DOMYBS_CONFIG_F_NUMA_NODE (1u << 1) /* numa_pxm is valid */

struct domybs_config {
  domybs_le32 magic;           /* DOMYBS_MAGIC */
  domybs_le16 abi_version;     /* DOMYBS_ABI_VERSION */
  domybs_le16 flags;           /* DOMYBS_CONFIG_F_* */
  domybs_le32 block_bytes;     /* DOMYBS_BLOCK_BYTES */
  domybs_le32 grow_min_blocks; /* a driver asks for at least this much at a time when it grows under pressure */
  domybs_le64 window_blocks;   /* size of the window; the last section of it is never granted (see the specification) */
  domybs_le64 max_blocks;      /* the most that this VM may have granted at a time */
  domybs_le64 target_blocks;   /* with F_TARGET: how many blocks the host wants the VM to have */
  domybs_le32 generation;      /* goes up with every change of target, limit or flags */
  domybs_le32 numa_pxm;        /* with F_NUMA_NODE: proximity domain (ACPI) of the window, = QEMU's node number */
  domybs_u8 reserved[16];
};
DOMYBS_ASSERT_SIZE(struct domybs_config, 64);

/* ---- request queue ----
 * One chain is one request: device-readable bytes (struct domybs_request and what follows it), then device-writable bytes for
 * struct domybs_response and what follows it. At most DOMYBS_REQUEST_BYTES_MAX and DOMYBS_RESPONSE_BYTES_MAX; how the bytes are
 * cut into descriptors means nothing. */

enum domybs_request_type {
  DOMYBS_REQ_HELLO = 1,   /* struct domybs_hello: begins a session; every earlier grant is void and its content gone */
  DOMYBS_REQ_GRANT = 2,   /* struct domybs_grant → runs of granted blocks; their content is zero */
  DOMYBS_REQ_RELEASE = 3, /* runs: gives granted blocks back; their content is gone */
  DOMYBS_REQ_STATS = 4,   /* struct domybs_stat[]: what the guest knows about its memory */
  DOMYBS_REQ_BYE = 5,     /* releases everything and ends the session */
  DOMYBS_REQ_RESERVE = 6, /* struct domybs_reserve: what far memory the host is to have ready, beyond what is in use */
};

/* Tier hints */
enum domybs_hint {
  DOMYBS_HINT_ANY = 0,
  DOMYBS_HINT_LOCAL = 1,
  DOMYBS_HINT_SHARED = 2,
  DOMYBS_HINT_REMOTE = 3,
};

enum domybs_status {
  DOMYBS_OK = 0,
  DOMYBS_BUSY = 1,             /* nothing was done; ask again after retry_ms */
  DOMYBS_NO_VM_CAPACITY = 2,   /* the VM has max_blocks, or the area asked for has no ungranted block left */
  DOMYBS_NO_HOST_CAPACITY = 3, /* the host has nothing (RESERVE: no more) to give now; an OFFER event follows when it has */
  DOMYBS_NO_TIER = 4,          /* tier not available */
  DOMYBS_BAD_REQUEST = 5,      /* malformed, out of range, or a run that is not wholly granted */
  DOMYBS_BAD_SESSION = 6,      /* not the current session: say HELLO */
  DOMYBS_STALE = 7,            /* the id is older than the device remembers */
  DOMYBS_FAILED = 8,           /* the host could not do it (its log says why); nothing was granted or released */
};

struct domybs_run {
  domybs_le64 start; /* first block */
  domybs_le64 count; /* ≥ 1 */
};
DOMYBS_ASSERT_SIZE(struct domybs_run, 16);

/* At most this many runs in one request or response: keeps both in one page and their handling bounded. */
#define DOMYBS_RUNS_MAX 128u
#define DOMYBS_STATS_MAX 64u
#define DOMYBS_REQUEST_BYTES_MAX 4096u
#define DOMYBS_RESPONSE_BYTES_MAX 4096u
/* The device repeats its answer, and does nothing twice, for the last so many ids; a driver has at most that many in flight. */
#define DOMYBS_REPLAY_DEPTH 16u

struct domybs_request {
  domybs_le16 type;    /* enum domybs_request_type */
  domybs_le16 flags;   /* 0 */
  domybs_le32 count;   /* how many runs (RELEASE) or stats (STATS) follow; 1 for HELLO, GRANT and RESERVE, 0 for BYE */
  domybs_le64 session; /* from HELLO's answer; 0 in HELLO itself */
  domybs_le64 id;      /* ≥ 1, counts up by one from request to request of a session; 0 in HELLO */
};
DOMYBS_ASSERT_SIZE(struct domybs_request, 24);

struct domybs_hello {
  domybs_le32 abi_version;    /* what the driver speaks; the device refuses (BAD_REQUEST) what it does not */
  domybs_le32 section_blocks; /* the guest's unit of memory hot-add, in blocks: a power of two from 1 to 1024 */
  domybs_le64 nonce;          /* ≠ 0, new for each session; the current session's nonce again gets the current session again */
  domybs_u8 driver[32];       /* name and version for the host's log: printable ASCII, NUL-padded */
};
DOMYBS_ASSERT_SIZE(struct domybs_hello, 48);

#define DOMYBS_GRANT_F_ALL (1u << 0)     /* all blocks or none */
#define DOMYBS_GRANT_F_SECTION (1u << 1) /* only whole, wholly ungranted sections */

struct domybs_grant {
  domybs_le32 hint;        /* enum domybs_hint */
  domybs_le32 flags;       /* DOMYBS_GRANT_F_* */
  domybs_le64 blocks;      /* how many: 1 to the window's size */
  domybs_le64 area_start;  /* grant only within [area_start, area_start + area_blocks) … */
  domybs_le64 area_blocks; /* … or anywhere in the window if 0 (then area_start is 0 too) */
};
DOMYBS_ASSERT_SIZE(struct domybs_grant, 32);

/* A far disk of 16 TiB, the largest that there is. */
#define DOMYBS_RESERVE_BLOCKS_MAX (1ull << 23)

struct domybs_reserve {
  domybs_le32 tier;   /* DOMYBS_HINT_SHARED or DOMYBS_HINT_REMOTE */
  domybs_le32 flags;  /* 0 */
  domybs_le64 blocks; /* the level from now on: so many blocks of that tier's far disk, beyond those in use, can be written without
                       * waiting for room to be made; 0: none need be. At most DOMYBS_RESERVE_BLOCKS_MAX */
};
DOMYBS_ASSERT_SIZE(struct domybs_reserve, 16);

enum domybs_stat_tag { /* bytes unless said otherwise; unknown tags are ignored */
  DOMYBS_STAT_MEM_TOTAL = 1,
  DOMYBS_STAT_MEM_FREE = 2,
  DOMYBS_STAT_MEM_AVAILABLE = 3,
  DOMYBS_STAT_SWAP_TOTAL = 4,
  DOMYBS_STAT_SWAP_FREE = 5,
  DOMYBS_STAT_SWAP_IN = 6,      /* pages since boot */
  DOMYBS_STAT_SWAP_OUT = 7,     /* pages since boot */
  DOMYBS_STAT_PSI_SOME_US = 8,  /* /proc/pressure/memory, total µs of "some" since boot */
  DOMYBS_STAT_PSI_FULL_US = 9,  /* … and of "full" */
  DOMYBS_STAT_BLOCKS_ONLINE = 10, /* blocks: granted and in use by the guest's page allocator */
  DOMYBS_STAT_BLOCKS_HELD = 11,   /* blocks: in added sections, but released */
  DOMYBS_STAT_BLOCKS_STUCK = 12,  /* blocks: could not be freed when the host last asked for less */
  DOMYBS_STAT_OOM_KILLS = 13,     /* events since boot */
};

struct domybs_stat {
  domybs_le32 tag;
  domybs_le32 reserved;
  domybs_le64 value;
};
DOMYBS_ASSERT_SIZE(struct domybs_stat, 16);

struct domybs_response {
  domybs_le16 status;   /* enum domybs_status */
  domybs_le16 reserved;
  domybs_le32 count;    /* how many struct domybs_run follow (GRANT) */
  domybs_le64 session;  /* the current session */
  domybs_le64 id;       /* the request's id */
  domybs_le64 blocks;   /* GRANT/RELEASE: how many were; a GRANT may get fewer than it asked for unless F_ALL. RESERVE (OK,
                         * NO_HOST_CAPACITY): how many of the level there are now */
  domybs_le64 granted;  /* how many the VM has now */
  domybs_le32 retry_ms; /* with BUSY */
  domybs_le32 generation; /* config generation that this answer was made under */
};
DOMYBS_ASSERT_SIZE(struct domybs_response, 48);

/* ---- event queue ---- */

enum domybs_event_type {
  DOMYBS_EVENT_RECLAIM = 1, /* give back `blocks` within deadline_ms, as far as it can be done */
  DOMYBS_EVENT_OFFER = 2,   /* after NO_HOST_CAPACITY or BUSY, of a GRANT or a RESERVE: asking again is worth while */
  DOMYBS_EVENT_CONFIG = 3,  /* config space changed */
};

struct domybs_event {
  domybs_le16 type; /* enum domybs_event_type */
  domybs_le16 reserved;
  domybs_le32 deadline_ms;
  domybs_le64 blocks;
  domybs_le64 session;
  domybs_le32 generation;
  domybs_le32 reserved2;
};
DOMYBS_ASSERT_SIZE(struct domybs_event, 32);

#endif
