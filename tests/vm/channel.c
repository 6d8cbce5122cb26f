/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WATCHDOG_MS 100
#define CONNECT_RETRY_US 10000

struct Channel {
  int fd;
  char *path;
  GByteArray *received;
  ChannelWatchdog watchdog;
  gpointer data;
};

static gint64
deadline_after (double seconds) {
  return g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);
}

static gboolean
connect_once (int fd, const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  return connect (fd, (struct sockaddr *)&address, sizeof address) == 0;
}

Channel *
channel_connect (const char *path, double seconds, ChannelWatchdog watchdog, gpointer data, GError **error) {
  gint64 deadline = deadline_after (seconds);
  g_autoptr (Channel) channel = g_new0 (Channel, 1);

  channel->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  channel->path = g_strdup (path);
  channel->received = g_byte_array_new ();
  channel->watchdog = watchdog;
  channel->data = data;
  while (!connect_once (channel->fd, path)) {
    int failure = errno;

    if (watchdog && !watchdog (data, error))
      return NULL;
    if ((failure != ENOENT && failure != ECONNREFUSED && failure != EAGAIN) || g_get_monotonic_time () > deadline) {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (failure), "can't connect to %s: %s", path, g_strerror (failure));
      return NULL;
    }
    g_usleep (CONNECT_RETRY_US);
  }
  return g_steal_pointer (&channel);
}

void
channel_free (Channel *channel) {
  if (channel->fd >= 0)
    close (channel->fd);
  g_byte_array_unref (channel->received);
  g_free (channel->path);
  g_free (channel);
}

/* Waits until the socket is ready for events, or the deadline is over. */
static gboolean
wait_ready (Channel *channel, short events, gint64 deadline, GError **error) {
  for (;;) {
    struct pollfd fd = { .fd = channel->fd, .events = events };
    gint64 left_ms = (deadline - g_get_monotonic_time ()) / 1000;

    if (poll (&fd, 1, (int)CLAMP (left_ms, 0, WATCHDOG_MS)) > 0)
      return TRUE;
    if (channel->watchdog && !channel->watchdog (channel->data, error))
      return FALSE;
    if (left_ms <= 0) {
      g_set_error (error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT, "%s: no answer in time", channel->path);
      return FALSE;
    }
  }
}

gboolean
channel_write (Channel *channel, const char *bytes, gsize length, double seconds, GError **error) {
  gint64 deadline = deadline_after (seconds);

  while (length > 0) {
    if (!wait_ready (channel, POLLOUT, deadline, error))
      return FALSE;
    ssize_t done = send (channel->fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (done < 0 && errno != EAGAIN && errno != EINTR) {
      g_set_error (error, G_IO_ERROR, g_io_error_from_errno (errno), "writing to %s: %s", channel->path, g_strerror (errno));
      return FALSE;
    }
    if (done > 0) {
      bytes += done;
      length -= (gsize)done;
    }
  }
  return TRUE;
}

static gboolean
read_some (Channel *channel, gint64 deadline, GError **error) {
  guint8 bytes[16384];

  if (!wait_ready (channel, POLLIN, deadline, error))
    return FALSE;
  ssize_t got = recv (channel->fd, bytes, sizeof bytes, MSG_DONTWAIT);
  if (got < 0 && (errno == EAGAIN || errno == EINTR))
    return TRUE;
  if (got <= 0) {
    /* the watchdog knows better why the other side is gone */
    if (channel->watchdog && !channel->watchdog (channel->data, error))
      return FALSE;
    g_set_error (error, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED, "%s: the other side has closed the connection",
                 channel->path);
    return FALSE;
  }
  g_byte_array_append (channel->received, bytes, (guint)got);
  return TRUE;
}

static char *
take (Channel *channel, gsize length, gsize dropped) {
  char *text = g_malloc (length + 1);

  memcpy (text, channel->received->data, length);
  text[length] = '\0';
  g_byte_array_remove_range (channel->received, 0, (guint)(length + dropped));
  return text;
}

char *
channel_read_line (Channel *channel, double seconds, GError **error) {
  gint64 deadline = deadline_after (seconds);

  for (;;) {
    const guint8 *end = channel->received->len ? memchr (channel->received->data, '\n', channel->received->len) : NULL;

    if (end)
      return take (channel, (gsize)(end - channel->received->data), 1);
    if (!read_some (channel, deadline, error))
      return NULL;
  }
}

char *
channel_read_bytes (Channel *channel, gsize length, double seconds, GError **error) {
  gint64 deadline = deadline_after (seconds);

  while (channel->received->len < length)
    if (!read_some (channel, deadline, error))
      return NULL;
  return take (channel, length, 0);
}
