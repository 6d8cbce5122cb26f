/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * domybs-backend with a liar at its mouth, for tests of the guest driver.
 *
 * It is the real back-end, all of it, linked with --wrap around the few functions through which bytes leave for the guest:
 * config space, what is written into a chain, the used ring, and signals. So it is honest, and stays up to date, in everything
 * but the one lie that is asked for: the name in the file DOMYBS_LIE, looked at each time (no file, an empty one: the truth).
 * Lies are told until the file says otherwise. test-nonsense.c says what the driver should make of each.
 */
#include "core/memory-device.h"
#include "io/vhost-user-internal.h"

#include <endian.h>
#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define STORM_MS 1
#define STORM_SIGNALS 5 /* in each of them */

static VhostUserSession *the_session; /* the last one that signalled */
static uint16_t last_type;            /* of the request that was read last */
static uint32_t flapping;
static GSource *storm;

/* TRUE if this lie is to be told now. */
static gboolean
lie (const char *name) {
  const char *path = g_getenv ("DOMYBS_LIE");
  g_autofree char *wanted = NULL;

  if (!path || !g_file_get_contents (path, &wanted, NULL, NULL))
    return FALSE;
  return g_str_equal (g_strchomp (wanted), name);
}

/* ---- config space ---- */

void __real_memory_device_config (const struct memory_device *device, struct domybs_config *ret_config);
void __wrap_memory_device_config (const struct memory_device *device, struct domybs_config *ret_config);

void
__wrap_memory_device_config (const struct memory_device *device, struct domybs_config *config) {
  __real_memory_device_config (device, config);
  if (lie ("config-magic"))
    config->magic = htole32 (0x12345678);
  else if (lie ("config-version"))
    config->abi_version = htole16 (DOMYBS_ABI_VERSION + 1);
  else if (lie ("config-block-size"))
    config->block_bytes = htole32 (4096);
  else if (lie ("config-window-odd"))
    config->window_blocks = htole64 (3000);
  else if (lie ("config-window-zero"))
    config->window_blocks = 0;
  else if (lie ("config-window-double"))
    config->window_blocks = htole64 (le64toh (config->window_blocks) * 2);
  else if (lie ("config-window-wraps"))
    config->window_blocks = htole64 (1ull << 63);
  else if (lie ("config-grow-min"))
    config->grow_min_blocks = htole32 (0xffffffff);
  else if (lie ("config-grow-min-zero"))
    config->grow_min_blocks = 0;
  else if (lie ("config-node")) {
    config->flags = htole16 (le16toh (config->flags) | DOMYBS_CONFIG_F_NUMA_NODE);
    config->numa_pxm = htole32 (0xfffffff0);
  } else if (lie ("config-flags"))
    config->flags = htole16 (le16toh (config->flags) | 0xff00);
  else if (lie ("config-max"))
    config->max_blocks = htole64 (UINT64_MAX);
  else if (lie ("config-target")) {
    config->flags = htole16 (le16toh (config->flags) | DOMYBS_CONFIG_F_TARGET);
    config->target_blocks = htole64 (1ull << 62);
  } else if (lie ("config-flaps"))
    config->generation = htole32 (++flapping);
}

/* ---- answers and events ---- */

size_t __real_virtqueue_chain_read (const struct virtqueue_chain *chain, size_t offset, void *buf, size_t cap);
size_t __wrap_virtqueue_chain_read (const struct virtqueue_chain *chain, size_t offset, void *buf, size_t cap);

size_t
__wrap_virtqueue_chain_read (const struct virtqueue_chain *chain, size_t offset, void *buf, size_t cap) {
  const size_t n = __real_virtqueue_chain_read (chain, offset, buf, cap);
  struct domybs_request *request = buf;

  if (offset == 0 && n >= sizeof *request)
    last_type = le16toh (request->type);
  if (last_type == DOMYBS_REQ_RESERVE && offset == 0 && lie ("reserve-unknown"))
    request->type = htole16 (77); /* as to a device that is older than that request */
  return n;
}

struct answer {
  struct domybs_response head;
  struct domybs_run runs[DOMYBS_RUNS_MAX];
};

static void
lie_in_hello (struct answer *answer) {
  if (lie ("hello-status"))
    answer->head.status = htole16 (0xffff);
  else if (lie ("hello-refused"))
    answer->head.status = htole16 (DOMYBS_BAD_REQUEST);
  else if (lie ("hello-no-session"))
    answer->head.session = 0;
  else if (lie ("hello-id"))
    answer->head.id = htole64 (7);
  else if (lie ("hello-granted"))
    answer->head.granted = htole64 (5);
  else if (lie ("hello-runs"))
    answer->head.count = htole32 (3);
}

static void
lie_in_grant (struct answer *answer) {
  struct domybs_run *run = answer->runs;
  const uint64_t start = le64toh (run->start), blocks = le64toh (answer->head.blocks), granted = le64toh (answer->head.granted);

  if (lie ("grant-outside"))
    run->start = htole64 (1ull << 40);
  else if (lie ("grant-elsewhere"))
    run->start = htole64 (start + blocks); /* the next section: not what was asked for */
  else if (lie ("grant-twice"))
    run->start = 0; /* in use since long */
  else if (lie ("grant-wraps"))
    run[0] = (struct domybs_run){ htole64 (start + 1), htole64 (UINT64_MAX) };
  else if (lie ("grant-overlap")) {
    run[0].count = htole64 (blocks / 2 + 1);
    run[1] = (struct domybs_run){ htole64 (start + blocks / 2), htole64 (blocks - blocks / 2) };
    answer->head.count = htole32 (2);
  } else if (lie ("grant-empty-run"))
    run->count = 0;
  else if (lie ("grant-nothing")) {
    answer->head.count = 0;
    answer->head.blocks = 0;
    answer->head.granted = htole64 (granted - blocks);
  } else if (lie ("grant-more")) {
    run->count = htole64 (blocks + 1);
    answer->head.blocks = htole64 (blocks + 1);
    answer->head.granted = htole64 (granted + 1);
  } else if (lie ("grant-part")) { /* the driver asked for all or none */
    run->count = htole64 (blocks - 1);
    answer->head.blocks = htole64 (blocks - 1);
    answer->head.granted = htole64 (granted - 1);
  } else if (lie ("grant-sum"))
    answer->head.blocks = htole64 (blocks + 1);
  else if (lie ("grant-books"))
    answer->head.granted = htole64 (granted + 1000);
  else if (lie ("grant-count"))
    answer->head.count = htole32 (DOMYBS_RUNS_MAX + 1);
  else if (lie ("grant-count-huge"))
    answer->head.count = htole32 (0xffffffff);
  else if (lie ("grant-id"))
    answer->head.id = htole64 (le64toh (answer->head.id) + 1);
  else if (lie ("grant-session"))
    answer->head.session = htole64 (le64toh (answer->head.session) ^ 1);
  else if (lie ("grant-status"))
    answer->head.status = htole16 (77);
  else if (lie ("grant-refused-with-runs"))
    answer->head.status = htole16 (DOMYBS_BUSY);
  else if (lie ("grant-no-session")) {
    answer->head.status = htole16 (DOMYBS_BAD_SESSION);
    answer->head.count = 0;
  }
}

static void
lie_in_release (struct answer *answer) {
  if (lie ("release-blocks"))
    answer->head.blocks = htole64 (le64toh (answer->head.blocks) + 1);
  else if (lie ("release-books"))
    answer->head.granted = htole64 (UINT64_MAX);
  else if (lie ("release-runs"))
    answer->head.count = htole32 (1);
  else if (lie ("release-id"))
    answer->head.id = 0;
  else if (lie ("release-refused"))
    answer->head.status = htole16 (DOMYBS_BAD_REQUEST);
}

static void
lie_in_reserve (struct answer *answer) {
  if (!lie ("reserve-more"))
    return;
  answer->head.status = htole16 (DOMYBS_OK);
  answer->head.blocks = htole64 (33);
}

static void
lie_in_event (struct domybs_event *event) {
  if (lie ("event-unknown")) {
    event->type = htole16 (0x7777);
    event->blocks = htole64 (UINT64_MAX);
  } else if (lie ("event-zero"))
    event->type = 0;
  else if (lie ("event-reclaim-huge")) {
    event->type = htole16 (DOMYBS_EVENT_RECLAIM);
    event->blocks = htole64 (UINT64_MAX);
  } else if (lie ("event-other-session"))
    event->session = htole64 (le64toh (event->session) ^ 1);
  else if (lie ("event-no-time")) {
    event->type = htole16 (DOMYBS_EVENT_RECLAIM);
    event->deadline_ms = 0;
    event->blocks = 0;
  }
}

size_t __real_virtqueue_chain_write (const struct virtqueue_chain *chain, const void *buf, size_t bytes);
size_t __wrap_virtqueue_chain_write (const struct virtqueue_chain *chain, const void *buf, size_t bytes);

size_t
__wrap_virtqueue_chain_write (const struct virtqueue_chain *chain, const void *buf, size_t bytes) {
  struct answer answer = { 0 };

  memcpy (&answer, buf, MIN (bytes, sizeof answer));
  if (bytes == sizeof (struct domybs_event)) {
    lie_in_event ((struct domybs_event *)(void *)&answer);
  } else if (last_type == DOMYBS_REQ_HELLO) {
    lie_in_hello (&answer);
  } else if (last_type == DOMYBS_REQ_GRANT && answer.head.status == DOMYBS_OK) {
    lie_in_grant (&answer);
    if (le32toh (answer.head.count) == 2)
      bytes = sizeof answer.head + 2 * sizeof *answer.runs;
  } else if (last_type == DOMYBS_REQ_RELEASE && answer.head.status == DOMYBS_OK) {
    lie_in_release (&answer);
  } else if (last_type == DOMYBS_REQ_RESERVE) {
    lie_in_reserve (&answer);
  }
  return __real_virtqueue_chain_write (chain, &answer, bytes);
}

/* ---- the ring ---- */

void __real_virtqueue_push (struct virtqueue *vq, uint16_t head, uint32_t written);
void __wrap_virtqueue_push (struct virtqueue *vq, uint16_t head, uint32_t written);

void
__wrap_virtqueue_push (struct virtqueue *vq, uint16_t head, uint32_t written) {
  const gboolean event = written == sizeof (struct domybs_event);
  const gboolean grant = !event && last_type == DOMYBS_REQ_GRANT, hello = !event && last_type == DOMYBS_REQ_HELLO;

  if ((grant && lie ("grant-short")) || (hello && lie ("hello-short")))
    written = 20;
  else if ((grant && lie ("grant-long")) || (hello && lie ("hello-long")))
    written = 0x80000000u;
  else if ((grant && lie ("grant-empty")) || (hello && lie ("hello-empty")))
    written = 0;
  else if (grant && lie ("grant-cut"))
    written = sizeof (struct domybs_response); /* the runs that it counts are not in it */
  else if (event && lie ("event-short"))
    written = 4;
  else if (event && lie ("event-long"))
    written = 64;

  if (grant && (lie ("ring-silent")))
    return;
  if (hello && lie ("hello-silent"))
    return;
  if (grant && lie ("ring-wrong-head")) {
    __real_virtqueue_push (vq, (uint16_t)((head + 1) % vq->num), written);
    return;
  }
  if (grant && lie ("ring-wild-head")) {
    __real_virtqueue_push (vq, 0xffff, written);
    return;
  }
  __real_virtqueue_push (vq, head, written);
  if (grant && lie ("ring-twice"))
    __real_virtqueue_push (vq, head, written);
  if (grant && lie ("ring-index")) {
    vq->next_used = (uint16_t)(vq->next_used + 100);
    vq->used[1] = htole16 (vq->next_used);
  }
}

/* ---- signals ---- */

static void
signal_anyway (VhostUserSession *session, unsigned queue) {
  const uint64_t one = 1;
  const int fd = vhost_user_session_fd (session, session->queues[queue].call_slot);

  if (fd >= 0 && write (fd, &one, sizeof one) != sizeof one)
    return;
}

/* The real back-end never asks for this interrupt. */
static void
config_changed_anyway (VhostUserSession *session) {
  uint8_t message[VHU_HEADER_BYTES];
  const size_t n = vhu_encode_backend (VHU_BACKEND_CONFIG_CHANGE, false, NULL, message, sizeof message);

  const int fd = vhost_user_session_fd (session, session->channel_slot);

  /* past the keeper, which takes a front-end that is flooded for one that does not read */
  if (fd >= 0 && send (fd, message, n, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)n)
    return;
}

/* A liar reads its lines while it plays, wherever they are. */
gboolean __wrap_sandbox_keeper (GError **error);
gboolean __wrap_sandbox_worker (GError **error);
int __wrap_sandbox_become_worker (void);

gboolean
__wrap_sandbox_keeper (GError **error) {
  return TRUE;
}

gboolean
__wrap_sandbox_worker (GError **error) {
  return TRUE;
}

int
__wrap_sandbox_become_worker (void) {
  return 0;
}

static gboolean
on_storm (gpointer data) {
  if (!the_session)
    return G_SOURCE_CONTINUE;
  for (int i = 0; i < STORM_SIGNALS; i++) {
    if (lie ("signal-storm")) {
      signal_anyway (the_session, DOMYBS_VQ_REQUEST);
      signal_anyway (the_session, DOMYBS_VQ_EVENT);
    }
    if (lie ("config-storm") || lie ("config-flaps"))
      config_changed_anyway (the_session);
  }
  return G_SOURCE_CONTINUE;
}

void __real_vhost_user_session_signal (VhostUserSession *session, unsigned queue);
void __wrap_vhost_user_session_signal (VhostUserSession *session, unsigned queue);

void
__wrap_vhost_user_session_signal (VhostUserSession *session, unsigned queue) {
  the_session = session;
  if (!storm) {
    storm = g_timeout_source_new (STORM_MS);
    g_source_set_callback (storm, on_storm, NULL, NULL);
    g_source_attach (storm, session->context);
  }
  if (!lie ("signal-silent"))
    __real_vhost_user_session_signal (session, queue);
}

void __real_memory_device_reset (struct memory_device *device);
void __wrap_memory_device_reset (struct memory_device *device);

/* Comes when the guest was reset and when the connection is over: the session may be gone after it. */
void
__wrap_memory_device_reset (struct memory_device *device) {
  the_session = NULL;
  __real_memory_device_reset (device);
}
