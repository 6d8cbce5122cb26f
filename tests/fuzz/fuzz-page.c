/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The page server, with a client that says anything: it ends, its exports are closed as often as they were opened and are not
 * asked for anything afterwards, and no more blocks are there than may be.
 */
#include "fuzz-page.h"

#include <glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/lease.h"
#include "fuzz.h"
#include "scene.h"

#define TURNS_MAX 200u

typedef struct {
  SceneExports exports;
  GMainContext *context;
  uint8_t options;
  int fd; /* the client's; -1: none */
} Run;

static GLogWriterOutput
say_nothing (GLogLevelFlags level, const GLogField *fields, gsize n, gpointer data) {
  return level & G_LOG_LEVEL_ERROR ? g_log_writer_default (level, fields, n, data) : G_LOG_WRITER_HANDLED;
}

/* The server's turn; its answers are taken. */
static void
turn (Run *run) {
  static uint8_t answers[1u << 18];
  unsigned i;

  for (i = 0; i < TURNS_MAX; i++) {
    const gboolean more = g_main_context_iteration (run->context, FALSE);
    const ssize_t n = run->fd >= 0 ? recv (run->fd, answers, sizeof answers, MSG_DONTWAIT) : -1;

    if (!more && n <= 0)
      break;
  }
}

static void
say (Run *run, const void *bytes, size_t n) {
  const uint8_t *at = bytes;
  unsigned tries = 0;

  while (run->fd >= 0 && n && tries++ < TURNS_MAX) {
    const ssize_t gone = send (run->fd, at, n, MSG_DONTWAIT | MSG_NOSIGNAL);

    if (gone > 0) {
      at += gone;
      n -= (size_t)gone;
    } else
      turn (run);
  }
}

static void
say_option (Run *run, uint32_t option, uint32_t said, const void *data, size_t n) {
  uint8_t header[NBD_OPTION_BYTES];

  nbd_option_encode (option, said, header);
  say (run, header, sizeof header);
  say (run, data, n);
}

static void
connect_client (Run *run) {
  static const uint8_t context[] = { 0,   0,   0,   4,   'd', 'i', 's', 'k', 0,   0,   0,   1,   0,   0,   0,  15,
                                     'b', 'a', 's', 'e', ':', 'a', 'l', 'l', 'o', 'c', 'a', 't', 'i', 'o', 'n' };
  uint8_t go[16];
  int fds[2];

  if (run->fd >= 0)
    close (run->fd);
  if (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0)
    g_error ("no sockets");
  run->fd = fds[0];
  page_server_adopt (run->exports.server, fds[1]);
  if (!(run->options & FUZZ_PAGE_OPEN))
    return;
  say (run, "\0\0\0\3", 4);
  if (run->options & FUZZ_PAGE_STRUCTURED)
    say_option (run, NBD_OPT_STRUCTURED_REPLY, 0, NULL, 0);
  if (run->options & FUZZ_PAGE_CONTEXT)
    say_option (run, NBD_OPT_SET_META_CONTEXT, sizeof context, context, sizeof context);
  say_option (run, NBD_OPT_GO, (uint32_t)nbd_go_encode ("disk", go), go, 10);
}

static gboolean
every (gpointer export, gpointer data) {
  return TRUE;
}

static void
operate (Run *run, struct input *input) {
  static const uint32_t options[] = FUZZ_PAGE_OPTIONS;
  static const uint8_t anything[UINT16_MAX] = { 1 };
  uint8_t bytes[256], header[NBD_REQUEST_BYTES];
  struct nbd_request request;
  size_t n;

  switch (input_8 (input) % FUZZ_PAGE_OPERATIONS) {
  case FUZZ_PAGE_RAW:
    n = input_8 (input);
    input_bytes (input, bytes, n);
    say (run, bytes, n);
    break;
  case FUZZ_PAGE_OPTION: {
    const uint32_t option = options[input_8 (input) % G_N_ELEMENTS (options)];
    const uint32_t more = input_8 (input);

    n = input_8 (input);
    input_bytes (input, bytes, n);
    say_option (run, option, (uint32_t)n + more * more * more, bytes, n);
    break;
  }
  case FUZZ_PAGE_REQUEST:
    request.command = input_8 (input);
    request.flags = input_8 (input);
    request.cookie = input->left;
    request.offset = (uint64_t)input_8 (input) * EXPORT_BLOCK_BYTES;
    request.offset += (int16_t)input_16 (input);
    request.bytes = (uint32_t)input_8 (input) * EXPORT_BLOCK_BYTES;
    request.bytes += input_16 (input);
    nbd_request_encode (&request, header);
    say (run, header, sizeof header);
    break;
  case FUZZ_PAGE_DATA:
    say (run, anything, input_16 (input));
    break;
  case FUZZ_PAGE_TURN:
    turn (run);
    break;
  case FUZZ_PAGE_CLOSE:
    page_server_close_export (run->exports.server, every, NULL);
    break;
  case FUZZ_PAGE_LEVEL:
    n = input_8 (input) % (SCENE_BLOCKS + 1);
    run->exports.level = MAX ((guint)n, run->exports.used);
    break;
  case FUZZ_PAGE_STALE:
    run->exports.stale = input_8 (input) & 1;
    break;
  default:
    connect_client (run);
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  static gboolean quiet;
  const PageServerLimits limits = { .handshaking = 4, .connections = 8 };
  struct input input = { data, size };
  Run run = { .fd = -1, .context = g_main_context_new () };
  unsigned i, there = 0;

  if (!quiet)
    g_log_set_writer_func (say_nothing, NULL, NULL);
  quiet = TRUE;
  run.options = input_8 (&input);
  run.exports.level = 4;
  g_main_context_push_thread_default (run.context);
  run.exports.server = page_server_new (-1, NULL, &scene_exports_kind, &run.exports, &limits);
  connect_client (&run);
  while (input.left) {
    operate (&run, &input);
    g_assert_cmpuint (run.exports.used, <=, run.exports.level);
  }
  turn (&run);
  close (run.fd);
  turn (&run);
  page_server_free (run.exports.server);
  g_main_context_pop_thread_default (run.context);
  g_main_context_unref (run.context);
  g_assert_cmpuint (run.exports.opened, ==, run.exports.closed);
  g_assert_cmpuint (run.exports.late, ==, 0);
  for (i = 0; i < SCENE_BLOCKS; i++)
    there += run.exports.block[i] != NULL;
  g_assert_cmpuint (there, ==, run.exports.used);
  scene_exports_clear (&run.exports);
  return 0;
}
