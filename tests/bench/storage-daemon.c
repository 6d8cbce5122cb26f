/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "storage-daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define START_MS 20000

struct storage_daemon *
storage_daemon_start (const char *folder, uint64_t bytes) {
  g_autofree char *program = g_find_program_in_path ("qemu-storage-daemon");
  g_autofree char *blockdev = NULL, *export = NULL;
  struct storage_daemon *daemon;
  int fd;

  if (!program)
    return NULL;
  daemon = g_new0 (struct storage_daemon, 1);
  daemon->folder = g_build_filename (folder, "domybs-bench-XXXXXX", NULL);
  if (!g_mkdtemp (daemon->folder))
    g_error ("%s: %s", daemon->folder, g_strerror (errno));
  daemon->socket_path = g_build_filename (daemon->folder, "s", NULL);
  daemon->storage_path = g_build_filename (daemon->folder, "disk", NULL);
  fd = open (daemon->storage_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd < 0 || (errno = posix_fallocate (fd, 0, (off_t)bytes)))
    g_error ("%s: %s", daemon->storage_path, g_strerror (errno));
  close (fd);
  blockdev = g_strdup_printf ("driver=file,filename=%s,node-name=n,aio=io_uring,cache.direct=on,discard=unmap",
                              daemon->storage_path);
  export
      = g_strdup_printf ("type=vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s,writable=on,logical-block-size=4096",
                         daemon->socket_path);
  daemon->pid = fork ();
  if (daemon->pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    execl (program, program, "--blockdev", blockdev, "--export", export, NULL);
    _exit (127);
  }
  for (int i = 0; i < START_MS / 10 && access (daemon->socket_path, F_OK) < 0; i++)
    g_usleep (10000);
  if (access (daemon->socket_path, F_OK) < 0)
    g_error ("%s does not listen at %s", program, daemon->socket_path);
  return daemon;
}

void
storage_daemon_end (struct storage_daemon *daemon) {
  if (!daemon)
    return;
  kill (daemon->pid, SIGKILL);
  waitpid (daemon->pid, NULL, 0);
  g_unlink (daemon->socket_path);
  g_unlink (daemon->storage_path);
  g_rmdir (daemon->folder);
  g_free (daemon->folder);
  g_free (daemon->socket_path);
  g_free (daemon->storage_path);
  g_free (daemon);
}
