/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/listen.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Listening begins before there is a sandbox. */
SANDBOX_CALLS (SANDBOX_CALL (accept4));

#define BACKLOG 16

/* Removes a socket that a dead process left behind. FALSE: there is something that must not be removed. */
static gboolean
clear_path (const struct sockaddr_un *address, GError **error) {
  struct stat st;
  int fd, result;

  if (lstat (address->sun_path, &st) < 0)
    return TRUE;
  if (!S_ISSOCK (st.st_mode)) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "%s exists and is not a socket; choose another path", address->sun_path);
    return FALSE;
  }
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    domybs_error_errno (error, "can't create a socket");
    return FALSE;
  }
  result = connect (fd, (const struct sockaddr *)address, sizeof *address);
  if (result < 0 && errno == ECONNREFUSED)
    result = unlink (address->sun_path);
  else
    result = -1;
  close (fd);
  if (result < 0)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "%s is in use by another process; stop that or choose another path",
                 address->sun_path);
  return result == 0;
}

/* Connections are refused until listen(), so nobody gets in between these steps. The mode comes from the umask: at no moment is
 * there a file with other rights than it. */
static gboolean
bind_with_rights (int fd, const struct sockaddr_un *address, const ListenRights *rights, GError **error) {
  const mode_t before = umask (0);
  int result;

  umask (rights->mode == LISTEN_MODE_UMASK ? before : (mode_t)(~rights->mode & 0777));
  result = bind (fd, (const struct sockaddr *)address, sizeof *address);
  umask (before);
  if (result < 0) {
    domybs_error_errno (error, "can't listen at %s", address->sun_path);
    return FALSE;
  }
  if (rights->group != LISTEN_GROUP_UNCHANGED && lchown (address->sun_path, (uid_t)-1, rights->group) < 0) {
    domybs_error_errno (error, "can't give %s to group %u", address->sun_path, (unsigned)rights->group);
    unlink (address->sun_path);
    return FALSE;
  }
  return TRUE;
}

int
listen_unix (const char *path, const ListenRights *rights, GError **error) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  if (strlen (path) >= sizeof address.sun_path) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "socket path %s is longer than %zu bytes", path, sizeof address.sun_path - 1);
    return -1;
  }
  g_strlcpy (address.sun_path, path, sizeof address.sun_path);
  if (!clear_path (&address, error))
    return -1;
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) {
    domybs_error_errno (error, "can't create a socket");
    return -1;
  }
  if (!bind_with_rights (fd, &address, rights, error)) {
    close (fd);
    return -1;
  }
  if (listen (fd, BACKLOG) < 0) {
    domybs_error_errno (error, "can't listen at %s", path);
    unlink (path);
    close (fd);
    return -1;
  }
  return fd;
}

int
listen_accept (int fd) {
  return accept4 (fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}
