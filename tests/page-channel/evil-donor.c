/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "evil-donor.h"

#include "core/lease.h"
#include "core/nbd.h"
#include "io/tcp.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct evil_peer {
  enum evil evil;
  guint64 export_bytes;
  int fd;
  const gint *error;
  guint8 data[(2u << 20)];
};

static void
get (struct evil_peer *peer, void *to, gsize bytes) {
  for (gsize got = 0; got < bytes;) {
    const ssize_t n = read (peer->fd, (guint8 *)to + got, bytes - got);

    if (n <= 0)
      _exit (0);
    got += (gsize)n;
  }
}

static void
put (struct evil_peer *peer, const void *from, gsize bytes) {
  for (gsize done = 0; done < bytes;) {
    const ssize_t n = send (peer->fd, (const guint8 *)from + done, bytes - done, MSG_NOSIGNAL);

    if (n <= 0)
      _exit (0);
    done += (gsize)n;
  }
}

static void
reply (struct evil_peer *peer, guint32 option, guint32 type, const void *data, guint32 bytes) {
  guint8 out[NBD_OPTION_REPLY_BYTES + 512];

  nbd_option_reply_encode (option + (peer->evil == EVIL_OTHER_OPTION), type,
                           peer->evil == EVIL_LONG_REPLY ? G_MAXUINT32 : bytes, out);
  if (bytes)
    memcpy (out + NBD_OPTION_REPLY_BYTES, data, bytes);
  put (peer, out, NBD_OPTION_REPLY_BYTES + bytes);
}

/* ---- leases ---- */

static void
answer_lease (struct evil_peer *peer, const guint8 *data, gsize bytes) {
  static guint64 level;
  struct lease_request request;
  struct lease_answer answer = { .verdict = LEASE_OK, .lease = 9, .free = 100 };
  guint8 out[LEASE_ANSWER_BYTES];

  if (peer->evil == EVIL_NO_LEASES) {
    char text[400];

    memset (text, '\a', sizeof text);
    reply (peer, NBD_OPT_LEASE, NBD_REP_ERR_UNSUP, text, sizeof text);
    return;
  }
  if (!lease_request_decode (data, bytes, &request))
    _exit (0);
  if (request.verb == LEASE_GRANT || request.verb == LEASE_RELEASE)
    level = request.blocks;
  memset (answer.incarnation, 5, sizeof answer.incarnation);
  answer.epoch = 10;
  answer.level = level;
  answer.seq = request.seq;
  answer.number = request.number;
  lease_answer_encode (&answer, out);
  if (peer->evil == EVIL_LEASE_NOISE)
    memset (out + 8, 0xff, sizeof out - 8);
  reply (peer, NBD_OPT_LEASE, NBD_REP_LEASE, out, sizeof out - (peer->evil == EVIL_LEASE_SHORT));
}

/* ---- pages ---- */

static void
answer (struct evil_peer *peer, const struct nbd_request *request, guint64 cookie, guint32 error) {
  guint8 header[NBD_CHUNK_BYTES];
  const gsize bytes = request->command == NBD_CMD_READ && error == 0 ? request->bytes : 0;

  memset (peer->data, 0, bytes);
  if (peer->evil == EVIL_CHUNK) {
    nbd_chunk_encode (NBD_CHUNK_FLAG_DONE, NBD_CHUNK_NONE, cookie, 0, header);
    put (peer, header, NBD_CHUNK_BYTES);
    return;
  }
  nbd_simple_encode (error, cookie, header);
  put (peer, header, NBD_SIMPLE_BYTES);
  if (peer->evil == EVIL_CUT) {
    put (peer, peer->data, bytes / 2);
    _exit (0);
  }
  put (peer, peer->data, bytes);
}

static void
serve_pages (struct evil_peer *peer) {
  guint8 header[NBD_REQUEST_BYTES];
  struct nbd_request request;

  for (;;) {
    get (peer, header, sizeof header);
    if (!nbd_request_decode (header, &request))
      _exit (0);
    if (request.command == NBD_CMD_WRITE)
      get (peer, peer->data, request.bytes);
    answer (peer, &request, request.cookie + (peer->evil == EVIL_COOKIE ? G_GUINT64_CONSTANT (1) << 32 : 0),
            peer->evil == EVIL_ERROR ? (guint32)g_atomic_int_get (peer->error) : 0);
    if (peer->evil == EVIL_TWICE)
      answer (peer, &request, request.cookie, 0);
  }
}

/* ---- handshake ---- */

static void
open_export (struct evil_peer *peer) {
  guint8 info[NBD_INFO_EXPORT_BYTES];
  const guint16 flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_TRIM | (peer->evil == EVIL_READ_ONLY ? NBD_FLAG_READ_ONLY : 0);

  nbd_info_export_encode (peer->evil == EVIL_SIZE ? peer->export_bytes / 2 : peer->export_bytes, flags, info);
  if (peer->evil != EVIL_NO_INFO)
    reply (peer, NBD_OPT_GO, NBD_REP_INFO, info, sizeof info);
  reply (peer, NBD_OPT_GO, NBD_REP_ACK, NULL, 0);
  serve_pages (peer);
}

static void
start_tls (struct evil_peer *peer) {
  guint8 out[2 * NBD_OPTION_REPLY_BYTES];

  if (peer->evil == EVIL_NO_TLS) {
    reply (peer, NBD_OPT_STARTTLS, NBD_REP_ERR_POLICY, "no", 2);
    return;
  }
  nbd_option_reply_encode (NBD_OPT_STARTTLS, NBD_REP_ACK, 0, out);
  nbd_option_reply_encode (NBD_OPT_LEASE, NBD_REP_ACK, 0, out + NBD_OPTION_REPLY_BYTES);
  put (peer, out, peer->evil == EVIL_TLS_INJECTED ? sizeof out : sizeof out / 2);
  get (peer, out, 1);
  put (peer, "this is no record of TLS, and will never be one", 47);
  pause ();
}

static void
serve (struct evil_peer *peer) {
  guint8 greeting[NBD_GREETING_BYTES], flags[NBD_CLIENT_FLAGS_BYTES], header[NBD_OPTION_BYTES], data[512];
  uint32_t option, bytes;

  if (peer->evil == EVIL_SILENT)
    pause ();
  nbd_greeting_encode (peer->evil == EVIL_OLD_STYLE ? 0 : NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES, greeting);
  if (peer->evil == EVIL_NOISE)
    memset (greeting, 0x5a, sizeof greeting);
  put (peer, greeting, sizeof greeting);
  get (peer, flags, sizeof flags);
  for (;;) {
    get (peer, header, sizeof header);
    if (!nbd_option_decode (header, &option, &bytes) || bytes > sizeof data)
      _exit (0);
    get (peer, data, bytes);
    if (option == NBD_OPT_LEASE)
      answer_lease (peer, data, bytes);
    else if (option == NBD_OPT_GO)
      open_export (peer);
    else if (option == NBD_OPT_STARTTLS)
      start_tls (peer);
  }
}

EvilDonor *
evil_donor_new (enum evil evil, guint64 export_bytes) {
  EvilDonor *donor = g_new0 (EvilDonor, 1);
  const int listening = tcp_listen ("127.0.0.1:0", 64, NULL);

  g_assert_cmpint (listening, >=, 0);
  donor->address = g_strdup_printf ("127.0.0.1:%u", tcp_port (listening));
  donor->error = mmap (NULL, sizeof *donor->error, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  donor->pid = fork ();
  g_assert_cmpint (donor->pid, >=, 0);
  if (donor->pid == 0) {
    struct evil_peer *peer = g_new0 (struct evil_peer, 1);
    struct pollfd poll_fd = { listening, POLLIN, 0 };

    prctl (PR_SET_PDEATHSIG, SIGKILL);
    signal (SIGCHLD, SIG_IGN);
    *peer = (struct evil_peer){ .evil = evil, .export_bytes = export_bytes, .error = donor->error };
    for (;;) {
      poll (&poll_fd, 1, -1);
      peer->fd = accept (listening, NULL, NULL);
      if (peer->fd < 0)
        continue;
      if (fork () == 0) {
        prctl (PR_SET_PDEATHSIG, SIGKILL);
        close (listening);
        serve (peer);
      }
      close (peer->fd);
    }
  }
  close (listening);
  return donor;
}

void
evil_donor_free (EvilDonor *donor) {
  kill (donor->pid, SIGKILL);
  g_assert_cmpint (waitpid (donor->pid, NULL, 0), ==, donor->pid);
  munmap (donor->error, sizeof *donor->error);
  g_free (donor->address);
  g_free (donor);
}
