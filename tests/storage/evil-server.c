/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "evil-server.h"
#include "testing.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define OPT_EXPORT_NAME 1u
#define OPT_GO 7u
#define OPT_STRUCTURED_REPLY 8u
#define REP_MAGIC 0x3e889045565a9u
#define REP_ACK 1u
#define REP_INFO 3u
#define REP_ERR_UNSUP 0x80000001u
#define CMD_READ 0u
#define CMD_WRITE 1u
#define CMD_DISC 2u
#define REQUEST_MAGIC 0x25609513u
#define REPLY_MAGIC 0x67446698u
#define CHUNK_MAGIC 0x668e33efu

struct evil_session {
  EvilServer *server;
  GRand *rand;
  guint8 *data;
  guint64 bytes;
  int fd;
  gboolean structured;
};

static gboolean
evil_now (struct evil_session *s, unsigned one_in) {
  return !g_atomic_int_get (&s->server->shared->good) && testing_once_in (s->rand, one_in);
}

static void
note (struct evil_session *s, enum evil evil) {
  g_atomic_int_inc (&s->server->shared->done[evil]);
}

/* ---- bytes ---- */

static gboolean
get (struct evil_session *s, void *to, gsize bytes) {
  gsize got = 0;

  while (got < bytes) {
    const ssize_t n = read (s->fd, (char *)to + got, bytes - got);

    if (n <= 0)
      return FALSE;
    got += (gsize)n;
  }
  return TRUE;
}

static gboolean
put_all (struct evil_session *s, const void *from, gsize bytes) {
  gsize put = 0;

  while (put < bytes) {
    const ssize_t n = send (s->fd, (const char *)from + put, bytes - put, MSG_NOSIGNAL);

    if (n <= 0)
      return FALSE;
    put += (gsize)n;
  }
  return TRUE;
}

static gboolean
put_noise (struct evil_session *s) {
  guint8 noise[200];

  for (unsigned i = 0; i < sizeof noise; i++)
    noise[i] = (guint8)testing_below (s->rand, 256);
  note (s, EVIL_NOISE);
  return put_all (s, noise, 1 + testing_below (s->rand, sizeof noise));
}

/* Sends it, or not quite. */
static gboolean
put (struct evil_session *s, const void *from, gsize bytes) {
  if (evil_now (s, 40)) {
    note (s, EVIL_CLOSE);
    return FALSE;
  }
  if (bytes > 1 && evil_now (s, 40)) {
    note (s, EVIL_SHORT);
    put_all (s, from, testing_below (s->rand, bytes));
    return FALSE;
  }
  if (evil_now (s, 60))
    return put_noise (s);
  if (evil_now (s, 30)) {
    note (s, EVIL_SLOW);
    for (gsize at = 0; at < MIN (bytes, 40); at++) {
      if (!put_all (s, (const char *)from + at, 1))
        return FALSE;
      g_usleep (200);
    }
    return bytes <= 40 || put_all (s, (const char *)from + 40, bytes - 40);
  }
  return put_all (s, from, bytes);
}

static void
add (GByteArray *to, guint64 value, unsigned bytes) {
  const guint64 swapped = htobe64 (value << (64 - 8 * bytes));

  g_byte_array_append (to, (const guint8 *)&swapped, bytes);
}

static gboolean
put_array (struct evil_session *s, GByteArray *array) {
  return put (s, array->data, array->len);
}

static guint64
get_number (const guint8 *from, unsigned bytes) {
  guint64 value = 0;

  for (unsigned i = 0; i < bytes; i++)
    value = value << 8 | from[i];
  return value;
}

/* ---- handshake ---- */

static gboolean
answer_option (struct evil_session *s, guint32 option, guint32 reply, const guint8 *data, guint32 bytes) {
  g_autoptr (GByteArray) out = g_byte_array_new ();

  if (evil_now (s, 40)) {
    note (s, EVIL_OPTION);
    option ^= 1u << testing_below (s->rand, 32);
  }
  if (evil_now (s, 40)) {
    note (s, EVIL_OPTION);
    reply = testing_once_in (s->rand, 2) ? REP_ERR_UNSUP + (guint32)testing_below (s->rand, 20)
                                         : (guint32)testing_below (s->rand, 10);
  }
  add (out, REP_MAGIC ^ (evil_now (s, 60) ? (note (s, EVIL_MAGIC), 1u) : 0), 8);
  add (out, option, 4);
  add (out, reply, 4);
  add (out, evil_now (s, 60) ? (guint32)testing_edgy (s->rand) : bytes, 4);
  if (bytes)
    g_byte_array_append (out, data, bytes);
  return put_array (s, out);
}

static gboolean
answer_go (struct evil_session *s) {
  g_autoptr (GByteArray) export = g_byte_array_new (), sizes = g_byte_array_new ();
  guint64 bytes = s->bytes, flags = 1 | 1 << 5; /* has flags, trim */

  if (evil_now (s, 10)) {
    note (s, EVIL_EXPORT);
    bytes = testing_edgy (s->rand);
  }
  if (evil_now (s, 10)) {
    note (s, EVIL_EXPORT);
    flags = testing_below (s->rand, 1 << 16);
  }
  add (export, 0, 2);
  add (export, bytes, 8);
  add (export, flags, 2);
  if (!answer_option (s, OPT_GO, REP_INFO, export->data, export->len))
    return FALSE;
  if (evil_now (s, 5)) {
    note (s, EVIL_EXPORT);
    add (sizes, 3, 2);
    for (int i = 0; i < 3; i++)
      add (sizes, testing_edgy (s->rand), 4);
    if (!answer_option (s, OPT_GO, REP_INFO, sizes->data, sizes->len))
      return FALSE;
  }
  return answer_option (s, OPT_GO, REP_ACK, NULL, 0);
}

static gboolean
shake_hands (struct evil_session *s) {
  g_autoptr (GByteArray) hello = g_byte_array_new ();
  guint8 head[16], flags[4];

  add (hello, 0x4e42444d41474943u ^ (evil_now (s, 60) ? (note (s, EVIL_MAGIC), 4u) : 0), 8);
  add (hello, 0x49484156454f5054u, 8);
  add (hello, 3, 2);
  if (!put_array (s, hello) || !get (s, flags, 4))
    return FALSE;
  for (;;) {
    g_autofree guint8 *data = NULL;
    guint32 option, bytes;
    gboolean ok;

    if (!get (s, head, 16))
      return FALSE;
    option = (guint32)get_number (head + 8, 4);
    bytes = (guint32)get_number (head + 12, 4);
    data = g_malloc (bytes + 1);
    if (bytes > 4096 || !get (s, data, bytes))
      return FALSE;
    if (option == OPT_GO && !evil_now (s, 40))
      return answer_go (s);
    if (option == OPT_STRUCTURED_REPLY && !evil_now (s, 3)) {
      s->structured = TRUE;
      ok = answer_option (s, option, REP_ACK, NULL, 0);
    } else
      ok = answer_option (s, option, REP_ERR_UNSUP, NULL, 0);
    if (!ok)
      return FALSE;
  }
}

/* ---- requests ---- */

static gboolean
answer_simple (struct evil_session *s, guint32 error, guint64 cookie, const guint8 *data, gsize bytes) {
  g_autoptr (GByteArray) out = g_byte_array_new ();

  add (out, REPLY_MAGIC ^ (evil_now (s, 80) ? (note (s, EVIL_MAGIC), 1u) : 0), 4);
  add (out, error, 4);
  add (out, cookie, 8);
  if (error == 0 && bytes)
    g_byte_array_append (out, data, (guint)bytes);
  return put_array (s, out);
}

static gboolean
answer_chunk (struct evil_session *s, guint16 type, guint16 flags, guint64 cookie, guint64 offset, const guint8 *data,
              gsize bytes) {
  g_autoptr (GByteArray) out = g_byte_array_new ();
  guint32 length = (guint32)(type == 0 ? 0 : bytes + 8);

  if (evil_now (s, 20)) {
    note (s, EVIL_CHUNK);
    switch (testing_below (s->rand, 4)) {
    case 0:
      type = (guint16)testing_edgy (s->rand);
      break;
    case 1:
      offset = testing_edgy (s->rand);
      break;
    case 2:
      length = (guint32)testing_edgy (s->rand);
      break;
    default: /* the end, without the data */
      type = 0;
      length = 0;
    }
  }
  add (out, CHUNK_MAGIC, 4);
  add (out, flags, 2);
  add (out, type, 2);
  add (out, cookie, 8);
  add (out, length, 4);
  if (type != 0) {
    add (out, offset, 8);
    g_byte_array_append (out, data, (guint)bytes);
  }
  return put_array (s, out);
}

static gboolean
answer_request (struct evil_session *s, guint16 type, guint64 cookie, guint64 offset, guint32 bytes) {
  guint32 error = offset > s->bytes || bytes > s->bytes - offset ? 22 : 0;
  unsigned times = 1;

  if (evil_now (s, 60)) {
    note (s, EVIL_COOKIE);
    cookie = testing_once_in (s->rand, 2) ? cookie + 1 : testing_edgy (s->rand);
  }
  if (evil_now (s, 60)) {
    note (s, EVIL_TWICE);
    times = 2;
  }
  if (evil_now (s, 30)) {
    note (s, EVIL_ERROR);
    error = testing_once_in (s->rand, 3) ? 108 /* shutting down */ : (guint32)testing_edgy (s->rand);
  }
  if (evil_now (s, 100)) {
    note (s, EVIL_SILENT);
    return TRUE;
  }
  for (; times > 0; times--) {
    const gboolean read_ok = type == CMD_READ && error == 0 && offset <= s->bytes && bytes <= s->bytes - offset;
    gboolean ok;

    if (read_ok && s->structured)
      ok = answer_chunk (s, 1, 1, cookie, offset, s->data + offset, bytes);
    else
      ok = answer_simple (s, error, cookie, read_ok ? s->data + offset : NULL, read_ok ? bytes : 0);
    if (!ok)
      return FALSE;
  }
  return TRUE;
}

static void
serve_one (struct evil_session *s) {
  guint8 head[28];

  s->structured = FALSE;
  if (!shake_hands (s))
    return;
  while (get (s, head, sizeof head)) {
    const guint16 type = (guint16)get_number (head + 6, 2);
    const guint64 offset = get_number (head + 16, 8);
    const guint32 bytes = (guint32)get_number (head + 24, 4);

    if (get_number (head, 4) != REQUEST_MAGIC || type == CMD_DISC)
      return;
    if (type == CMD_WRITE && (offset > s->bytes || bytes > s->bytes - offset || !get (s, s->data + offset, bytes)))
      return;
    if (!answer_request (s, type, get_number (head + 8, 8), offset, bytes))
      return;
    /* silence ends when the server becomes good */
  }
}

/* ---- the process ---- */

G_NORETURN static void
serve (EvilServer *server, int listen_fd, guint64 bytes, guint32 seed) {
  struct evil_session s = { .server = server, .rand = g_rand_new_with_seed (seed), .data = g_malloc0 (bytes), .bytes = bytes };
  const struct timeval patience = { .tv_sec = 0, .tv_usec = 300000 };

  prctl (PR_SET_PDEATHSIG, SIGKILL);
  for (;;) {
    s.fd = accept (listen_fd, NULL, NULL);
    if (s.fd < 0)
      continue;
    g_atomic_int_inc (&server->shared->connections);
    /* while it is evil, it takes another one soon */
    if (!g_atomic_int_get (&server->shared->good))
      setsockopt (s.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    serve_one (&s);
    close (s.fd);
  }
}

EvilServer *
evil_server_new (const char *folder, guint64 bytes, guint32 seed) {
  EvilServer *server = g_new0 (EvilServer, 1);
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  server->socket = g_build_filename (folder, "evil", NULL);
  server->shared = mmap (NULL, sizeof *server->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (server->shared != MAP_FAILED);
  g_strlcpy (address.sun_path, server->socket, sizeof address.sun_path);
  g_assert_cmpint (bind (fd, (const struct sockaddr *)&address, sizeof address), ==, 0);
  g_assert_cmpint (listen (fd, 16), ==, 0);
  server->pid = fork ();
  g_assert_cmpint (server->pid, >=, 0);
  if (server->pid == 0)
    serve (server, fd, bytes, seed);
  close (fd);
  return server;
}

void
evil_server_free (EvilServer *server) {
  kill (server->pid, SIGKILL);
  waitpid (server->pid, NULL, 0);
  munmap (server->shared, sizeof *server->shared);
  g_free (server->socket);
  g_free (server);
}
