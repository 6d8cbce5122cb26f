/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/unix-socket.h"

#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Of <uapi/linux/net.h>, which the C library does not have: SS_CONNECTED; and __SO_ACCEPTCON, as the flag of a listening
 * socket. */
#define STATE_CONNECTED 3
#define FLAG_LISTENS (1ul << 16)

/* A line is "Num RefCount Protocol Flags Type St Inode Path"; sockets that were accepted carry the path of the one that
 * listens. */
static UnixSocketState
line_state (const char *line) {
  unsigned long flags = 0;
  unsigned state = 0;

  if (sscanf (line, "%*s %*x %*x %lx %*x %x", &flags, &state) != 2)
    return 0;
  if (flags & FLAG_LISTENS)
    return UNIX_SOCKET_LISTENS;
  return state == STATE_CONNECTED ? UNIX_SOCKET_CONNECTED : 0;
}

UnixSocketState
unix_socket_state (const char *path) {
  g_autofree char *list = NULL;
  const size_t length = strlen (path);
  UnixSocketState state = 0;
  char *line, *end;

  if (!g_file_get_contents ("/proc/net/unix", &list, NULL, NULL))
    return 0;
  for (line = list; (end = strchr (line, '\n')); line = end + 1) {
    if ((size_t)(end - line) <= length || end[-(ptrdiff_t)length - 1] != ' ' || strncmp (end - length, path, length) != 0)
      continue;
    state |= line_state (line);
  }
  return state;
}

gboolean
unix_socket_greets (const char *path, int ms) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  struct pollfd wait = { .events = POLLIN };
  gboolean greets;
  char byte;

  if (strlen (path) >= sizeof address.sun_path)
    return FALSE;
  strcpy (address.sun_path, path);
  wait.fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (wait.fd < 0)
    return FALSE;
  greets = connect (wait.fd, (struct sockaddr *)&address, sizeof address) == 0 && poll (&wait, 1, ms) == 1
           && read (wait.fd, &byte, 1) == 1;
  close (wait.fd);
  return greets;
}
