/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/start.h"
#include "device/keeper.h"
#include "io/error.h"
#include "io/sandbox.h"
#include "io/sandbox-calls.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (unlink), SANDBOX_CALL (unlinkat));

/* An inherited descriptor may be a listening socket or an established connection. */
static gboolean
use_fd (int fd, struct keeper_options *keeper, GError **error) {
  int listening = 0;
  socklen_t length = sizeof listening;

  if (getsockopt (fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) < 0) {
    domybs_error_errno (error, "--fd %d is not a socket", fd);
    return FALSE;
  }
  if (fcntl (fd, F_SETFD, FD_CLOEXEC) < 0 || !g_unix_set_fd_nonblocking (fd, TRUE, error))
    return FALSE;
  if (listening)
    keeper->listen_fd = fd;
  else
    keeper->connection_fd = fd;
  return TRUE;
}

static gboolean
open_sockets (const Options *options, struct keeper_options *keeper, GError **error) {
  if (options->control_path) {
    keeper->control_fd = listen_unix (options->control_path, &(ListenRights){ .group = LISTEN_GROUP_UNCHANGED, .mode = 0600 }, error);
    if (keeper->control_fd < 0)
      return FALSE;
  }
  if (!options->socket_path)
    return use_fd (options->fd, keeper, error);
  keeper->listen_fd = listen_unix (options->socket_path, &options->socket_rights, error);
  return keeper->listen_fd >= 0;
}

static void
remove_sockets (const Options *options, const struct keeper_options *keeper) {
  if (keeper->control_fd >= 0)
    unlink (options->control_path);
  if (options->socket_path && keeper->listen_fd >= 0)
    unlink (options->socket_path);
}

int
start_run (const Options *options, char *const *arguments) {
  struct keeper_options keeper = { .name = options->backend.name, .listen_fd = -1, .connection_fd = -1, .control_fd = -1, .account_fd = -1 };
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (HostAccount) account = NULL;
  g_autoptr (GError) error = NULL;
  int slot = -1, status = EXIT_FAILURE;

  if (options->host_account_path) {
    account = host_account_open (options->host_account_path, options->backend.name, options->host_limit_bytes >> DOMYBS_BLOCK_SHIFT,
                                 &error);
    if (account) {
      slot = host_account_slot (account);
      keeper.account_fd = host_account_fd (account);
    }
  }
  g_ptr_array_add (argv, g_strdup (arguments[0]));
  g_ptr_array_add (argv, g_strdup_printf ("--worker=%d", slot)); /* not at the end: "--" may be there */
  for (arguments++; *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  g_ptr_array_add (argv, NULL);
  keeper.worker_argv = (char *const *)argv->pdata;
  if (!error && open_sockets (options, &keeper, &error) && sandbox_keeper (&error))
    status = keeper_run (&keeper);
  if (error)
    fprintf (stderr, "domybs-backend: %s\n", error->message);
  remove_sockets (options, &keeper);
  return status;
}
