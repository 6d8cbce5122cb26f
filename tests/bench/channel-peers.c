/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "channel-peers.h"

#include <arpa/inet.h>
#include <libnbd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRIES 500
#define TRY_US 20000
#define REQUEST_BYTES 28u
#define HEADER_BYTES 16u

struct client {
  int fd;
  struct nbd_handle *nbd;
  guint8 answer[PEER_PAGE_BYTES + 256];
  gboolean is_redis;
};

/* ---- sockets ---- */

static int
bind_any (guint *ret_port) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  socklen_t bytes = sizeof address;
  const int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  if (fd < 0 || bind (fd, (struct sockaddr *)&address, sizeof address) < 0
      || getsockname (fd, (struct sockaddr *)&address, &bytes) < 0)
    g_error ("no port of localhost can be had");
  *ret_port = ntohs (address.sin_port);
  return fd;
}

static int
connect_to (guint port) {
  const struct sockaddr_in address
      = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK), .sin_port = htons ((guint16)port) };
  const int one = 1;

  for (int i = 0; i < TRIES; i++) {
    const int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect (fd, (const struct sockaddr *)&address, sizeof address) == 0) {
      setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      return fd;
    }
    close (fd);
    g_usleep (TRY_US);
  }
  g_error ("nobody listens at port %u", port);
}

static gboolean
get_all (int fd, void *to, gsize bytes) {
  for (gsize got = 0; got < bytes;) {
    const ssize_t n = recv (fd, (guint8 *)to + got, bytes - got, 0);

    if (n <= 0)
      return FALSE;
    got += (gsize)n;
  }
  return TRUE;
}

static void
put_all (int fd, const void *from, gsize bytes) {
  for (gsize put = 0; put < bytes;) {
    const ssize_t n = send (fd, (const guint8 *)from + put, bytes - put, MSG_NOSIGNAL);

    if (n <= 0)
      g_error ("a server has ended");
    put += (gsize)n;
  }
}

static ChannelPeer *
new_peer (const char *name, pid_t pid, void (*read_page) (gpointer peer, guint page)) {
  ChannelPeer *peer = g_new0 (ChannelPeer, 1);

  *peer = (ChannelPeer){ .name = name, .pid = pid, .read = read_page, .data = g_new0 (struct client, 1) };
  return peer;
}

static pid_t
spawn (const char *const *argv) {
  const pid_t pid = fork ();

  if (pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    execvp (argv[0], (char *const *)argv);
    _exit (1);
  }
  return pid;
}

static gboolean
have (const char *program) {
  g_autofree char *path = g_find_program_in_path (program);

  if (!path)
    g_print ("  %s is not installed (Debian's package has the same name)\n", program);
  return path != NULL;
}

static guint
free_port (void) {
  guint port;

  close (bind_any (&port));
  return port;
}

void
channel_peer_free (ChannelPeer *peer) {
  struct client *client = peer->data;

  if (client->nbd)
    nbd_close (client->nbd);
  else
    close (client->fd);
  kill (peer->pid, SIGKILL);
  waitpid (peer->pid, NULL, 0);
  g_free (client);
  g_free (peer);
}

/* ---- the floor ---- */

static void
serve_raw (int listening) {
  const int fd = accept (listening, NULL, NULL), one = 1;
  guint8 *pages = g_malloc (PEER_PAGES * (gsize)PEER_PAGE_BYTES), header[HEADER_BYTES] = { 0 };
  guint32 request[REQUEST_BYTES / 4];

  memset (pages, 1, PEER_PAGES * (gsize)PEER_PAGE_BYTES);
  setsockopt (fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  while (get_all (fd, request, sizeof request)) {
    const struct iovec pieces[]
        = { { header, sizeof header }, { pages + (gsize)request[0] * PEER_PAGE_BYTES, PEER_PAGE_BYTES } };

    if (writev (fd, pieces, 2) != sizeof header + PEER_PAGE_BYTES)
      break;
  }
  _exit (0);
}

static void
read_raw (gpointer data, guint page) {
  struct client *client = data;
  const guint32 request[REQUEST_BYTES / 4] = { page };

  put_all (client->fd, request, sizeof request);
  get_all (client->fd, client->answer, HEADER_BYTES + PEER_PAGE_BYTES);
}

ChannelPeer *
channel_peer_raw (void) {
  ChannelPeer *peer;
  guint port;
  const int listening = bind_any (&port);
  pid_t pid;

  listen (listening, 1);
  pid = fork ();
  if (pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    serve_raw (listening);
  }
  close (listening);
  peer = new_peer ("raw TCP ping-pong", pid, read_raw);
  ((struct client *)peer->data)->fd = connect_to (port);
  return peer;
}

/* ---- nbdkit ---- */

static void
read_nbd (gpointer data, guint page) {
  struct client *client = data;

  if (nbd_pread (client->nbd, client->answer, PEER_PAGE_BYTES, (guint64)page * PEER_PAGE_BYTES, 0) < 0)
    g_error ("nbdkit: %s", nbd_get_error ());
}

ChannelPeer *
channel_peer_nbdkit (void) {
  g_autofree char *port = g_strdup_printf ("%u", free_port ());
  const char *const argv[] = { "nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", port, "memory", "64M", NULL };
  guint8 *page;
  struct client *client;
  ChannelPeer *peer;

  if (!have ("nbdkit"))
    return NULL;
  peer = new_peer ("nbdkit memory and libnbd", spawn (argv), read_nbd);
  client = peer->data;
  close (connect_to ((guint)atoi (port)));
  client->nbd = nbd_create ();
  if (nbd_connect_tcp (client->nbd, "127.0.0.1", port) < 0)
    g_error ("nbdkit: %s", nbd_get_error ());
  nbd_set_pread_initialize (client->nbd, false);
  page = g_malloc (1 << 20);
  memset (page, 1, 1 << 20);
  for (guint i = 0; i < 64; i++)
    nbd_pwrite (client->nbd, page, 1 << 20, (guint64)i << 20, 0);
  g_free (page);
  return peer;
}

/* ---- stores of values ---- */

static gsize
value_header (const struct client *client, guint page, char *out) {
  return (gsize)(client->is_redis ? g_snprintf (out, 64, "$%u\r\n", PEER_PAGE_BYTES)
                                  : g_snprintf (out, 64, "VALUE k%05u 0 %u\r\n", page, PEER_PAGE_BYTES));
}

static void
read_value (gpointer data, guint page) {
  struct client *client = data;
  char text[64];
  gsize bytes = (gsize)g_snprintf (text, sizeof text, client->is_redis ? "GET k%05u\r\n" : "get k%05u\r\n", page);

  put_all (client->fd, text, bytes);
  bytes = value_header (client, page, text) + PEER_PAGE_BYTES + (client->is_redis ? 2 : 7);
  if (!get_all (client->fd, client->answer, bytes) || memcmp (client->answer, text, 5) != 0)
    g_error ("a store of values does not have %u", page);
}

static void
fill_values (struct client *client) {
  guint8 value[PEER_PAGE_BYTES + 2];
  char text[96], answer[8];

  memset (value, 1, sizeof value);
  memcpy (value + PEER_PAGE_BYTES, "\r\n", 2);
  for (guint page = 0; page < PEER_PAGES; page++) {
    if (client->is_redis)
      g_snprintf (text, sizeof text, "*3\r\n$3\r\nSET\r\n$6\r\nk%05u\r\n$%u\r\n", page, PEER_PAGE_BYTES);
    else
      g_snprintf (text, sizeof text, "set k%05u 0 0 %u\r\n", page, PEER_PAGE_BYTES);
    put_all (client->fd, text, strlen (text));
    put_all (client->fd, value, sizeof value);
    get_all (client->fd, answer, client->is_redis ? 5 : 8); /* +OK, STORED */
  }
}

static ChannelPeer *
store_of_values (const char *name, const char *const *argv, guint port, gboolean is_redis) {
  ChannelPeer *peer;
  struct client *client;

  if (!have (argv[0]))
    return NULL;
  peer = new_peer (name, spawn (argv), read_value);
  client = peer->data;
  client->is_redis = is_redis;
  client->fd = connect_to (port);
  fill_values (client);
  return peer;
}

ChannelPeer *
channel_peer_memcached (void) {
  const guint port = free_port ();
  g_autofree char *number = g_strdup_printf ("%u", port);
  const char *const argv[]
      = { "memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", number, "-U", "0", "-t", "1", "-m", "256", NULL };

  return store_of_values ("memcached, get", argv, port, FALSE);
}

ChannelPeer *
channel_peer_redis (void) {
  const guint port = free_port ();
  g_autofree char *number = g_strdup_printf ("%u", port);
  const char *const argv[] = { "redis-server", "--port", number,        "--bind", "127.0.0.1", "--save",    "",
                               "--appendonly", "no",     "--daemonize", "no",     "--logfile", "/dev/null", NULL };

  return store_of_values ("redis, GET", argv, port, TRUE);
}
