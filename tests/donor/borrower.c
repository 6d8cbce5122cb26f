/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "borrower.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <gnutls/gnutls.h>

#define PATIENCE_S 60
#define TRIES 16 /* a worker may die under each */

struct wire {
  int fd;
  gnutls_session_t tls; /* NULL: plain */
  gnutls_psk_client_credentials_t credentials;
};

/* ---- bytes ---- */

static int
connect_to (const char *address) {
  const struct timeval patience = { PATIENCE_S, 0 };
  const int on = 1;
  union {
    struct sockaddr any;
    struct sockaddr_un un;
    struct sockaddr_in in;
  } to = { .any = { 0 } };
  socklen_t bytes = sizeof to.un;
  int fd;

  if (g_str_has_prefix (address, "unix:")) {
    to.un.sun_family = AF_UNIX;
    g_strlcpy (to.un.sun_path, address + 5, sizeof to.un.sun_path);
  } else {
    g_auto (GStrv) parts = g_strsplit (address, ":", 2);

    to.in.sin_family = AF_INET;
    to.in.sin_port = htons ((guint16)g_ascii_strtoull (parts[1], NULL, 10));
    g_assert_cmpint (inet_pton (AF_INET, parts[0], &to.in.sin_addr), ==, 1);
    bytes = sizeof to.in;
  }
  fd = socket (to.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  g_assert_cmpint (fd, >=, 0);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect (fd, &to.any, bytes) == 0)
    return fd;
  close (fd);
  return -1;
}

static gssize
some (struct wire *wire, gboolean out, void *bytes, gsize n) {
  gssize done;

  do {
    if (wire->tls)
      done = out ? gnutls_record_send (wire->tls, bytes, n) : gnutls_record_recv (wire->tls, bytes, n);
    else
      done = out ? send (wire->fd, bytes, n, MSG_NOSIGNAL) : recv (wire->fd, bytes, n, 0);
    if (done < 0 && !wire->tls && errno == EAGAIN)
      g_error ("the donor lets a borrower wait for %d s", PATIENCE_S);
    if (done == GNUTLS_E_AGAIN && wire->tls)
      g_error ("the donor lets a borrower wait for %d s", PATIENCE_S);
  } while ((done < 0 && !wire->tls && errno == EINTR) || (wire->tls && done == GNUTLS_E_INTERRUPTED));
  return done;
}

static gboolean
all (struct wire *wire, gboolean out, void *bytes, gsize n) {
  for (gsize at = 0; at < n;) {
    const gssize done = some (wire, out, (guint8 *)bytes + at, n - at);

    if (done <= 0)
      return FALSE;
    at += (gsize)done;
  }
  return TRUE;
}

gboolean
wire_write (struct wire *wire, const void *bytes, gsize n) {
  return all (wire, TRUE, (void *)bytes, n);
}

gboolean
wire_read (struct wire *wire, void *bytes, gsize n) {
  return all (wire, FALSE, bytes, n);
}

int
wire_fd (const struct wire *wire) {
  return wire->fd;
}

void
wire_close (struct wire *wire) {
  if (!wire)
    return;
  if (wire->tls) {
    gnutls_deinit (wire->tls);
    gnutls_psk_free_client_credentials (wire->credentials);
  }
  close (wire->fd);
  g_free (wire);
}

/* ---- handshake ---- */

/* One option, and the head of the first reply to it. FALSE: closed. */
static gboolean
option (struct wire *wire, guint32 number, const void *data, guint32 n, guint32 *ret_type, guint32 *ret_bytes) {
  guint8 head[NBD_OPTION_BYTES], reply[NBD_OPTION_REPLY_BYTES];
  guint32 of;

  nbd_option_encode (number, n, head);
  if (!wire_write (wire, head, sizeof head) || !wire_write (wire, data, n) || !wire_read (wire, reply, sizeof reply))
    return FALSE;
  g_assert_true (nbd_option_reply_decode (reply, &of, ret_type, ret_bytes));
  g_assert_cmpuint (of, ==, number);
  g_assert_cmpuint (*ret_bytes, <=, 4096);
  return TRUE;
}

static gboolean
start_tls (struct wire *wire, const struct borrower_key *key) {
  const gnutls_datum_t datum = { (guint8 *)key->key, sizeof key->key };
  guint32 type, bytes;
  int result;

  if (!option (wire, NBD_OPT_STARTTLS, "", 0, &type, &bytes) || type != NBD_REP_ACK || bytes != 0)
    return FALSE;
  gnutls_init (&wire->tls, GNUTLS_CLIENT);
  gnutls_psk_allocate_client_credentials (&wire->credentials);
  gnutls_psk_set_client_credentials (wire->credentials, key->identity, &datum, GNUTLS_PSK_KEY_RAW);
  gnutls_credentials_set (wire->tls, GNUTLS_CRD_PSK, wire->credentials);
  g_assert_cmpint (gnutls_priority_set_direct (wire->tls, "NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+ECDHE-PSK", NULL), ==, 0);
  gnutls_transport_set_int (wire->tls, wire->fd);
  do
    result = gnutls_handshake (wire->tls);
  while (result < 0 && !gnutls_error_is_fatal (result) && result != GNUTLS_E_AGAIN);
  return result == 0;
}

struct wire *
wire_open (const char *address, const struct borrower_key *key) {
  struct wire *wire = g_new0 (struct wire, 1);
  guint8 greeting[NBD_GREETING_BYTES], flags[NBD_CLIENT_FLAGS_BYTES];
  guint16 server;

  wire->fd = connect_to (address);
  if (wire->fd < 0) {
    g_free (wire);
    return NULL;
  }
  nbd_put32 (flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  if (wire_read (wire, greeting, sizeof greeting) && wire_write (wire, flags, sizeof flags)) {
    g_assert_true (nbd_greeting_decode (greeting, &server));
    if (!key || start_tls (wire, key))
      return wire;
  }
  wire_close (wire);
  return NULL;
}

gboolean
wire_lease (struct wire *wire, const struct lease_request *request, struct lease_answer *ret_answer) {
  guint8 bytes[LEASE_REQUEST_BYTES], answer[LEASE_ANSWER_BYTES];
  guint32 type, n;

  lease_request_encode (request, bytes);
  if (!option (wire, NBD_OPT_LEASE, bytes, sizeof bytes, &type, &n))
    return FALSE;
  g_assert_cmphex (type, ==, NBD_REP_LEASE);
  g_assert_cmpuint (n, ==, LEASE_ANSWER_BYTES);
  if (!wire_read (wire, answer, sizeof answer))
    return FALSE;
  g_assert_true (lease_answer_decode (answer, sizeof answer, ret_answer));
  g_assert_cmpuint (ret_answer->number, ==, request->number);
  return TRUE;
}

gint64
wire_go (struct wire *wire, const char *name, guint64 *ret_bytes) {
  guint8 data[4096], head[NBD_OPTION_REPLY_BYTES];
  guint32 type, n, of;
  guint16 flags;

  *ret_bytes = 0;
  if (!option (wire, NBD_OPT_GO, data, (guint32)nbd_go_encode (name, data), &type, &n))
    return -1;
  for (;;) {
    if (!wire_read (wire, data, n))
      return -1;
    if (NBD_REP_IS_ERROR (type))
      return type;
    if (type == NBD_REP_ACK)
      return 0;
    g_assert_cmpuint (type, ==, NBD_REP_INFO);
    nbd_info_export_decode (data, n, ret_bytes, &flags);
    if (!wire_read (wire, head, sizeof head))
      return -1;
    g_assert_true (nbd_option_reply_decode (head, &of, &type, &n));
    g_assert_cmpuint (n, <=, sizeof data);
  }
}

int
wire_request (struct wire *wire, guint16 command, guint64 offset, guint32 bytes, void *data) {
  static guint64 cookies;
  const struct nbd_request request = { .command = command, .cookie = ++cookies, .offset = offset, .bytes = bytes };
  guint8 head[NBD_REQUEST_BYTES], reply[NBD_SIMPLE_BYTES];
  guint64 cookie;
  guint32 error;

  nbd_request_encode (&request, head);
  if (!wire_write (wire, head, sizeof head) || (command == NBD_CMD_WRITE && !wire_write (wire, data, bytes))
      || !wire_read (wire, reply, sizeof reply))
    return -1;
  g_assert_true (nbd_simple_decode (reply, &error, &cookie));
  g_assert_cmpuint (cookie, ==, request.cookie);
  if (command == NBD_CMD_READ && error == 0 && !wire_read (wire, data, bytes))
    return -1;
  return (int)error;
}

/* ---- a borrower ---- */

static void
close_pages (struct borrower *borrower) {
  wire_close (borrower->pages);
  borrower->pages = NULL;
}

void
borrower_leave (struct borrower *borrower) {
  wire_close (borrower->lease);
  borrower->lease = NULL;
  close_pages (borrower);
}

enum lease_verdict
borrower_ask (struct borrower *borrower, enum lease_verb verb, uint64_t blocks) {
  static uint64_t number;
  struct lease_request request = { .verb = verb, .disk = borrower->disk, .session = borrower->session, .blocks = blocks };

  memcpy (request.vm, borrower->vm, sizeof request.vm);
  memcpy (request.host, borrower->host, sizeof request.host);
  memcpy (request.boot, borrower->boot, sizeof request.boot);
  memcpy (request.incarnation, borrower->last.incarnation, sizeof request.incarnation);
  request.lease = borrower->last.lease;
  request.number = ++number;
  if (verb != LEASE_ATTACH)
    request.epoch = borrower->last.epoch;
  if (verb == LEASE_GRANT || verb == LEASE_RELEASE)
    request.seq = ++borrower->seq;
  for (guint i = 0; i < TRIES; i++) {
    struct lease_answer answer;

    if (!borrower->lease)
      borrower->lease = wire_open (borrower->address, borrower->key);
    if (borrower->lease && wire_lease (borrower->lease, &request, &answer)) {
      if (answer.verdict == LEASE_OK || answer.verdict == LEASE_NO_ROOM || answer.verdict == LEASE_IN_USE)
        borrower->last = answer;
      return answer.verdict;
    }
    wire_close (borrower->lease);
    borrower->lease = NULL;
  }
  g_error ("there is no donor at %s", borrower->address);
}

gboolean
borrower_open_pages (struct borrower *borrower) {
  char name[LEASE_EXPORT_NAME_BYTES];
  guint64 bytes;

  close_pages (borrower);
  lease_export_name (borrower->last.lease, borrower->last.epoch, borrower->last.incarnation, name);
  borrower->pages = wire_open (borrower->address, borrower->key);
  if (borrower->pages && wire_go (borrower->pages, name, &bytes) == 0)
    return TRUE;
  close_pages (borrower);
  return FALSE;
}

enum lease_verdict
borrower_attach (struct borrower *borrower, uint64_t export_blocks) {
  enum lease_verdict verdict;

  close_pages (borrower);
  borrower->session++;
  borrower->seq = 0;
  verdict = borrower_ask (borrower, LEASE_ATTACH, export_blocks);
  for (guint i = 0; i < TRIES && verdict == LEASE_OK; i++)
    if (borrower_open_pages (borrower))
      return LEASE_OK;
  g_assert_cmpint (verdict, !=, LEASE_OK);
  return verdict;
}

static guint8 *
buffer (void) {
  static guint8 *bytes;

  return bytes ? bytes : (bytes = g_malloc (LEASE_BLOCK_BYTES));
}

int
borrower_put (struct borrower *borrower, guint64 block, guint64 stamp) {
  for (gsize at = 0; at < LEASE_BLOCK_BYTES; at += sizeof stamp)
    memcpy (buffer () + at, &stamp, sizeof stamp);
  return wire_request (borrower->pages, NBD_CMD_WRITE, block * LEASE_BLOCK_BYTES, LEASE_BLOCK_BYTES, buffer ());
}

int
borrower_get (struct borrower *borrower, guint64 block, guint64 *ret_stamp) {
  const int error = wire_request (borrower->pages, NBD_CMD_READ, block * LEASE_BLOCK_BYTES, LEASE_BLOCK_BYTES, buffer ());

  if (error == 0) {
    memcpy (ret_stamp, buffer (), sizeof *ret_stamp);
    g_assert_cmpint (memcmp (buffer (), buffer () + sizeof *ret_stamp, LEASE_BLOCK_BYTES - sizeof *ret_stamp), ==, 0);
  }
  return error;
}

int
borrower_trim (struct borrower *borrower, guint64 block) {
  return wire_request (borrower->pages, NBD_CMD_TRIM, block * LEASE_BLOCK_BYTES, LEASE_BLOCK_BYTES, NULL);
}
