/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A vhost-user front-end for tests and benchmarks: it is QEMU and the guest driver in one process, without a VM.
 *
 * The well-behaved half does what QEMU 11 does, in QEMU's order: negotiates, hands over a backend channel, shares a guest RAM of
 * its own, maps the window when the back-end asks for it (answers the MAP first, then sends a new memory table on the main
 * socket), runs both virtqueues in guest RAM. The other half is raw access to all of it: bytes and descriptors on the sockets,
 * descriptor tables, ring indexes, the memory table.
 *
 * Everything waits with poll() and a deadline (fe_patience_ms), so that a back-end that hangs fails a test and does not hang it.
 * Like QEMU, it does not look at the backend channel while it waits for a reply on the main socket.
 *
 * Calls return false on failure; fe->why then says what happened (a string of fe's). None of them asserts: the tests decide what
 * is wrong. Not thread-safe, but several front-ends can live side by side.
 */
#ifndef DOMYBS_TESTS_FRONTEND_H
#define DOMYBS_TESTS_FRONTEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <glib.h>

#include "domybs-abi.h"

/* Numbers of the vhost-user protocol, written down here once more on purpose: the tests must not inherit the back-end's typos. */
enum fe_request {
  FE_GET_FEATURES = 1,
  FE_SET_FEATURES = 2,
  FE_SET_OWNER = 3,
  FE_RESET_OWNER = 4,
  FE_SET_MEM_TABLE = 5,
  FE_SET_LOG_BASE = 6,
  FE_SET_VRING_NUM = 8,
  FE_SET_VRING_ADDR = 9,
  FE_SET_VRING_BASE = 10,
  FE_GET_VRING_BASE = 11,
  FE_SET_VRING_KICK = 12,
  FE_SET_VRING_CALL = 13,
  FE_SET_VRING_ERR = 14,
  FE_GET_PROTOCOL_FEATURES = 15,
  FE_SET_PROTOCOL_FEATURES = 16,
  FE_GET_QUEUE_NUM = 17,
  FE_SET_VRING_ENABLE = 18,
  FE_SET_BACKEND_REQ_FD = 21,
  FE_GET_CONFIG = 24,
  FE_SET_CONFIG = 25,
  FE_RESET_DEVICE = 34,
  FE_GET_SHMEM_CONFIG = 44,
};

enum { FE_CHANNEL_CONFIG_CHANGE = 2, FE_CHANNEL_SHMEM_MAP = 9, FE_CHANNEL_SHMEM_UNMAP = 10 };

#define FE_FLAG_VERSION 0x1u
#define FE_FLAG_REPLY 0x4u
#define FE_FLAG_NEED_REPLY 0x8u
#define FE_VRING_NOFD 0x100u

#define FE_F_INDIRECT (1ull << 28)
#define FE_F_EVENT_IDX (1ull << 29)
#define FE_F_PROTOCOL (1ull << 30)
#define FE_F_VERSION_1 (1ull << 32)
/* MQ, REPLY_ACK, BACKEND_REQ, CONFIG, BACKEND_SEND_FD, SHMEM: what QEMU asks a memory device for */
#define FE_PROTOCOL_WANTED ((1ull << 0) | (1ull << 3) | (1ull << 5) | (1ull << 9) | (1ull << 10) | (1ull << 22))

#define FE_DESC_NEXT 1u
#define FE_DESC_WRITE 2u
#define FE_DESC_INDIRECT 4u

/* Guest-physical layout */
#define FE_RAM_GPA 0x40000000ull
#define FE_RAM_BYTES (16ull << 20)
#define FE_WINDOW_GPA 0x4000000000ull /* aligned to any window that a test uses */

#define FE_QUEUE_SIZE 64u
#define FE_SLOTS DOMYBS_REPLAY_DEPTH /* requests that can be in flight: 4 descriptors and two pages each */

struct fe_desc {
  uint64_t addr;
  uint32_t len;
  uint16_t flags;
  uint16_t next;
};

struct fe_piece { /* one descriptor of a chain */
  uint64_t gpa;
  uint32_t len;
  bool write; /* for the device to write */
};

struct fe_queue {
  unsigned index;
  uint16_t num;
  uint64_t desc_gpa, avail_gpa, used_gpa; /* may be moved by a test before fe_start; then fe_queue_locate */
  struct fe_desc *desc;
  volatile uint16_t *avail; /* flags, idx, ring[num], used_event */
  volatile uint16_t *used;  /* flags, idx, {u32 id, u32 len}[num], avail_event */
  uint16_t next_avail, next_used;
  int kick, call; /* eventfds */
  bool started;
};

/* What the front-end does with a MAP that comes on the backend channel. */
enum fe_channel_mode {
  FE_CHANNEL_SERVE,         /* maps it, answers 0, sends the new memory table */
  FE_CHANNEL_MUTE,          /* reads it, never answers */
  FE_CHANNEL_REFUSE,        /* answers 1 */
  FE_CHANNEL_NO_TABLE,      /* answers 0, but the memory table never changes (QEMU beyond 8 regions) */
  FE_CHANNEL_GARBAGE,       /* answers with bytes that are no message */
  FE_CHANNEL_WRONG_REQUEST, /* answers for another request */
  FE_CHANNEL_HALF_ANSWER,   /* answers the first half of an answer, then nothing */
  FE_CHANNEL_TWO_ANSWERS,   /* serves it, and answers a second time */
  FE_CHANNEL_CLOSE,         /* closes the channel instead of answering */
  FE_CHANNEL_OTHER_FD,      /* answers 0, then sends a table with another memfd in the window's place */
  FE_CHANNEL_HOLD,          /* reads it and keeps it: fe_map_now serves it later */
};

struct fe {
  char *why;

  /* Not NULL: what goes to the main socket goes byte by byte, and this is called before each. */
  void (*trickle) (void *data);
  void *trickle_data;

  int sock;
  int channel;         /* our end of the backend channel */
  int channel_theirs;  /* sent to the back-end, closed after that */
  uint64_t features_offered, features;
  uint64_t protocol_offered, protocol;
  uint64_t features_mask; /* which of the offered features to take; set before fe_negotiate */
  uint64_t queue_count;
  uint64_t shmem_bytes; /* GET_SHMEM_CONFIG's region 0 */

  int ram_fd;
  uint8_t *ram;

  enum fe_channel_mode channel_mode;
  struct {
    int fd; /* -1: nothing mapped */
    uint64_t fd_offset, shm_offset, bytes, flags;
    uint8_t *map;
  } window;
  bool huge; /* advise huge pages for the window, as QEMU does; only where the host's shmem_enabled is "advise" it means anything */
  bool held; /* FE_CHANNEL_HOLD: a MAP waits in window */
  unsigned maps, unmaps, config_changes; /* counted since fe_new */

  struct fe_queue queues[DOMYBS_VQ_COUNT];

  uint64_t session, next_id, nonce;
};

struct fe_answer {
  uint32_t used_bytes; /* what the device says it wrote */
  uint16_t status;
  uint32_t count;
  uint64_t session, id, blocks, granted;
  uint32_t retry_ms, generation;
  struct domybs_run runs[DOMYBS_RUNS_MAX]; /* in host order */
};

/* How long a wait may take: 5 s, times $DOMYBS_TEST_SLOW (valgrind, sanitizers). */
int fe_patience_ms (void);
int64_t fe_now_ms (void);
void fe_close (int *fd); /* if it is open; -1 then */

/* ---- life (life.c) ---- */

struct fe *fe_new (void);
void fe_free (struct fe *fe);
typedef struct fe fe_t; /* for g_autoptr */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (fe_t, fe_free)

bool fe_fail (struct fe *fe, const char *format, ...) G_GNUC_PRINTF (2, 3); /* sets why, returns false */

/* The steps of a life, in QEMU's order. fe_step does one of them; their names are for tests that stop in between. */
enum fe_step {
  FE_STEP_CONNECT,
  FE_STEP_GET_FEATURES,
  FE_STEP_GET_PROTOCOL,
  FE_STEP_SET_PROTOCOL,
  FE_STEP_QUEUE_NUM,
  FE_STEP_CHANNEL,
  FE_STEP_OWNER,
  FE_STEP_VRING_CALLS,
  FE_STEP_SHMEM_CONFIG, /* realized: what the guest's DRIVER_OK sets off follows */
  FE_STEP_SET_FEATURES,
  FE_STEP_MEM_TABLE,
  FE_STEP_VRING_NUM,
  FE_STEP_VRING_BASE,
  FE_STEP_VRING_ADDR,
  FE_STEP_VRING_KICK,
  FE_STEP_VRING_CALL,
  FE_STEP_ENABLE,
  FE_STEP_HELLO,
  FE_STEPS
};
const char *fe_step_name (enum fe_step step);
bool fe_step (struct fe *fe, enum fe_step step, const char *path);
/* All steps up to and with `last`. */
bool fe_steps_to (struct fe *fe, enum fe_step last, const char *path);
/* From connect to a session. */
bool fe_open (struct fe *fe, const char *path);

/* ---- main socket (wire.c) ---- */

bool fe_connect (struct fe *fe, const char *path); /* tries again while nobody listens */
void fe_disconnect (struct fe *fe);                /* main socket and channel; RAM and rings stay */
/* All n bytes, with fds on the first of them (more than 253 cannot be sent by the kernel). */
bool fe_send_raw (struct fe *fe, int sock, const void *bytes, size_t n, const int *fds, unsigned n_fds);
bool fe_send (struct fe *fe, uint32_t request, uint32_t flags, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds);
/* Reads one reply to `request`; its payload's length goes to ret_bytes. */
bool fe_receive (struct fe *fe, uint32_t request, void *payload, size_t cap, uint32_t *ret_bytes);
bool fe_get_u64 (struct fe *fe, uint32_t request, uint64_t *ret_value);
bool fe_set_u64 (struct fe *fe, uint32_t request, uint64_t value);
bool fe_set_state (struct fe *fe, uint32_t request, uint32_t index, uint32_t num);
/* With NEED_REPLY: fails unless the answer is 0. */
bool fe_send_acked (struct fe *fe, uint32_t request, const void *payload, uint32_t bytes, const int *fds, unsigned n_fds);
bool fe_get_config (struct fe *fe, struct domybs_config *ret_config);
/* True when the back-end has closed the connection within timeout_ms; what it still sends is read and dropped. */
bool fe_wait_closed (struct fe *fe, int timeout_ms);

/* ---- memory (memory.c) ---- */

void *fe_at (struct fe *fe, uint64_t gpa); /* RAM or window; NULL elsewhere */
/* RAM and, when mapped, the window. */
bool fe_send_mem_table (struct fe *fe);
bool fe_drop_window (struct fe *fe); /* as QEMU at a reset: table without the window */
/* Raw regions with raw fds, NEED_REPLY; *ret_ack is the answer, or UINT64_MAX when the connection was closed instead. */
struct fe_region {
  uint64_t gpa, bytes, user, offset;
};
bool fe_send_regions (struct fe *fe, const struct fe_region *regions, unsigned n, const int *fds, unsigned n_fds, uint64_t *ret_ack);
struct fe_region fe_ram_region (struct fe *fe);

/* ---- backend channel (channel.c) ---- */

/* Serves what lies on the backend channel now. */
bool fe_serve_channel (struct fe *fe);
bool fe_map_now (struct fe *fe); /* the held MAP */

/* ---- virtqueues (ring.c) ---- */

bool fe_queue_locate (struct fe *fe, struct fe_queue *queue); /* gpa → pointers */
/* One step for one queue, as FE_STEP_VRING_* do for all. */
bool fe_queue_send_addr (struct fe *fe, struct fe_queue *queue);
bool fe_queue_send_kick (struct fe *fe, struct fe_queue *queue);
bool fe_queue_send_call (struct fe *fe, struct fe_queue *queue);
bool fe_start_queue (struct fe *fe, unsigned index); /* NUM, BASE, ADDR, KICK, CALL, ENABLE */
bool fe_stop_queue (struct fe *fe, unsigned index);  /* ENABLE 0, GET_VRING_BASE; the position is kept for fe_start_queue */

uint64_t fe_request_gpa (unsigned slot);  /* a page for the request … */
uint64_t fe_response_gpa (unsigned slot); /* … and one for the answer */
uint64_t fe_scratch_gpa (unsigned page);  /* pages for anything else */

/* Fills descriptors from `first` on, linked. Returns how many. */
unsigned fe_write_chain (struct fe_queue *queue, uint16_t first, const struct fe_piece *pieces, unsigned n);
/* Puts the pieces into an indirect table at table_gpa and one descriptor for it at `first`. */
void fe_write_indirect (struct fe *fe, struct fe_queue *queue, uint16_t first, const struct fe_piece *pieces, unsigned n,
                        uint64_t table_gpa);
void fe_publish (struct fe_queue *queue, uint16_t head); /* into the available ring; no kick */
void fe_kick (struct fe_queue *queue);                   /* whatever the device said about kicks */
void fe_kick_if_wanted (struct fe *fe, struct fe_queue *queue);
/* Whether something was used, without waiting. */
bool fe_poll_used (struct fe_queue *queue, uint32_t *ret_head, uint32_t *ret_len);
/* Waits for it, serving the backend channel meanwhile. Fails at once when the back-end hangs up. */
bool fe_wait_used (struct fe *fe, struct fe_queue *queue, uint32_t *ret_head, uint32_t *ret_len, int timeout_ms);

/* ---- the device's requests (device.c) ---- */

/* Puts request bytes (n ≤ one page) into a slot and publishes the chain; cap = bytes for the answer. */
void fe_submit (struct fe *fe, unsigned slot, const void *request, size_t n, uint32_t cap);
/* Waits for a submitted request of that slot and reads its answer. A refused request has not used up its id: fe takes it again. */
bool fe_complete (struct fe *fe, unsigned slot, struct fe_answer *ret_answer, int timeout_ms);
bool fe_read_answer (struct fe *fe, uint64_t gpa, uint32_t used_bytes, struct fe_answer *ret_answer);
/* Both, in slot 0. */
bool fe_call (struct fe *fe, const void *request, size_t n, struct fe_answer *ret_answer);

/* Encoders; buf is a page. They use and advance fe's session and id where `id` is 0. */
size_t fe_encode_hello (uint8_t *buf, uint32_t section_blocks, uint64_t nonce);
size_t fe_encode_grant (struct fe *fe, uint8_t *buf, uint64_t id, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start,
                        uint64_t area_blocks);
size_t fe_encode_release (struct fe *fe, uint8_t *buf, uint64_t id, const struct domybs_run *runs, uint32_t n);
size_t fe_encode_stats (struct fe *fe, uint8_t *buf, uint64_t id, const struct domybs_stat *stats, uint32_t n);
size_t fe_encode_reserve (struct fe *fe, uint8_t *buf, uint64_t id, uint32_t tier, uint32_t flags, uint64_t blocks);
size_t fe_encode_bye (struct fe *fe, uint8_t *buf, uint64_t id);

/* True when an answer came, of whatever status. ret_answer may be NULL where only that matters. */
bool fe_hello (struct fe *fe, uint32_t section_blocks, struct fe_answer *ret_answer); /* with a new nonce */
bool fe_grant (struct fe *fe, uint64_t blocks, uint32_t hint, uint32_t flags, uint64_t area_start, uint64_t area_blocks,
               struct fe_answer *ret_answer);
bool fe_release (struct fe *fe, const struct domybs_run *runs, uint32_t n, struct fe_answer *ret_answer);
bool fe_stats (struct fe *fe, const struct domybs_stat *stats, uint32_t n, struct fe_answer *ret_answer);
bool fe_reserve (struct fe *fe, uint32_t tier, uint64_t blocks, struct fe_answer *ret_answer);
bool fe_bye (struct fe *fe, struct fe_answer *ret_answer);

/* Gives the device n buffers for events. */
void fe_post_events (struct fe *fe, unsigned n);
/* Waits for an event of that type; others are dropped and their buffers given back. */
bool fe_wait_event (struct fe *fe, uint16_t type, struct domybs_event *ret_event, int timeout_ms);

uint8_t *fe_block (struct fe *fe, uint64_t block); /* in our mapping of the window */

#endif
