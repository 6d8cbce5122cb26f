/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "nbd-server.h"
#include "storage-scene.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

gboolean
nbd_server_have (const char *program) {
  g_autofree char *path = g_find_program_in_path (program), *reason = g_strdup_printf ("%s is not installed", program);

  if (!path)
    g_test_skip (reason);
  return path != NULL;
}

static void
add (NbdServer *server, GPtrArray *argv, const char *const *words) {
  for (; words && *words; words++) {
    GString *word = g_string_new (*words);

    g_string_replace (word, "FILE", server->file, 0);
    g_string_replace (word, "FOLDER", server->folder, 0);
    g_ptr_array_add (argv, g_string_free (word, FALSE));
  }
}

NbdServer *
nbd_server_new (const char *kind, guint64 bytes, const char *const *filters, const char *const *parameters) {
  NbdServer *server = g_new0 (NbdServer, 1);
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  int fd;

  server->folder = scene_folder (NULL);
  server->file = g_build_filename (server->folder, "export", NULL);
  server->socket = g_build_filename (server->folder, "socket", NULL);
  server->uri = g_strdup_printf ("nbd+unix:///?socket=%s", server->socket);
  fd = open (server->file, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (fd, (off_t)bytes), ==, 0);
  close (fd);
  if (strcmp (kind, "nbdkit") == 0) {
    const char *const first[] = { "nbdkit", "--foreground", "--exit-with-parent", "--unix", server->socket, NULL };
    const char *const plugin[] = { "file", "FILE", NULL };

    add (server, argv, first);
    add (server, argv, filters);
    add (server, argv, plugin);
    add (server, argv, parameters);
  } else if (strcmp (kind, "qemu-nbd") == 0) {
    const char *const words[] = { "qemu-nbd",     "--persistent", "--shared=8", "--format=raw", "--discard=unmap", "--socket",
                                  server->socket, "FILE",         NULL };

    add (server, argv, words);
  } else {
    const char *const words[] = { "qemu-storage-daemon",
                                  "--blockdev",
                                  "driver=file,node-name=f,filename=FILE,discard=unmap",
                                  "--nbd-server",
                                  "addr.type=unix,addr.path=FOLDER/socket,max-connections=8",
                                  "--export",
                                  "type=nbd,id=e,node-name=f,name=,writable=on",
                                  NULL };

    add (server, argv, words);
  }
  g_ptr_array_add (argv, NULL);
  server->argv = (char **)g_ptr_array_steal (argv, NULL);
  return server;
}

void
nbd_server_use_tcp (NbdServer *server) {
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK) };
  const int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  socklen_t bytes = sizeof address;

  /* a port that is free now, most likely still is in a moment */
  g_assert_cmpint (bind (fd, (struct sockaddr *)&address, bytes), ==, 0);
  g_assert_cmpint (getsockname (fd, (struct sockaddr *)&address, &bytes), ==, 0);
  close (fd);
  server->port = ntohs (address.sin_port);
  g_free (server->uri);
  server->uri = g_strdup_printf ("nbd://localhost:%u/", server->port);
  for (char **word = server->argv; *word; word++)
    if (strcmp (*word, "--unix") == 0) {
      g_free (word[0]);
      word[0] = g_strdup ("--ipaddr=127.0.0.1");
      g_free (word[1]);
      word[1] = g_strdup_printf ("--port=%u", server->port);
    }
}

/* After fork: an end with the test. */
static void
end_with_parent (gpointer data) {
  prctl (PR_SET_PDEATHSIG, SIGKILL);
}

static gboolean
answers (const NbdServer *server) {
  struct sockaddr_in tcp
      = { .sin_family = AF_INET, .sin_addr.s_addr = htonl (INADDR_LOOPBACK), .sin_port = htons ((uint16_t)server->port) };
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int fd = socket (server->port ? AF_INET : AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  gboolean ok;

  g_strlcpy (address.sun_path, server->socket, sizeof address.sun_path);
  ok = server->port ? connect (fd, (const struct sockaddr *)&tcp, sizeof tcp) == 0
                    : connect (fd, (const struct sockaddr *)&address, sizeof address) == 0;
  close (fd);
  return ok;
}

void
nbd_server_start (NbdServer *server) {
  g_autoptr (GError) error = NULL;
  const GSpawnFlags flags
      = G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL
        | (g_test_verbose () ? 0 : G_SPAWN_STDERR_TO_DEV_NULL);

  g_assert_cmpint (server->pid, ==, 0);
  unlink (server->socket);
  g_spawn_async (NULL, server->argv, NULL, flags, end_with_parent, NULL, &server->pid, &error);
  g_assert_no_error (error);
  for (int i = 0; i < 3000 && !answers (server); i++) {
    g_assert_cmpint (waitpid (server->pid, NULL, WNOHANG), ==, 0);
    g_usleep (10000);
  }
  g_assert_true (answers (server));
}

void
nbd_server_signal (NbdServer *server, int signal) {
  g_assert_true (signal == SIGSTOP ? testing_stop (server->pid) : kill (server->pid, signal) == 0);
}

void
nbd_server_kill (NbdServer *server) {
  if (server->pid == 0)
    return;
  nbd_server_signal (server, SIGKILL);
  while (waitpid (server->pid, NULL, 0) < 0 && errno == EINTR)
    ;
  server->pid = 0;
}

void
nbd_server_free (NbdServer *server) {
  nbd_server_kill (server);
  scene_folder_free (server->folder);
  g_free (server->file);
  g_free (server->socket);
  g_free (server->uri);
  g_strfreev (server->argv);
  g_free (server);
}

static gboolean
openssl (const char *folder, const char *arguments) {
  g_autofree char *command = g_strconcat ("openssl ", arguments, NULL);
  g_auto (GStrv) argv = NULL;
  int status;

  return g_shell_parse_argv (command, NULL, &argv, NULL)
         && g_spawn_sync (folder, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL,
                          NULL, NULL, NULL, NULL, &status, NULL)
         && status == 0;
}

gboolean
nbd_server_make_certificates (const char *folder, const char *name) {
  g_autofree char *request
      = g_strdup_printf ("req -newkey rsa:2048 -nodes -keyout server-key.pem -out server.csr -subj /CN=%s", name);
  g_autofree char *extensions = g_build_filename (folder, "extensions", NULL),
                  *text = g_strdup_printf ("subjectAltName=DNS:%s\n", name);

  return g_file_set_contents (extensions, text, -1, NULL)
         && openssl (folder,
                     "req -x509 -newkey rsa:2048 -nodes -keyout ca-key.pem -out ca-cert.pem -subj /CN=domybs-test -days 2")
         && openssl (folder, request)
         && openssl (folder, "x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile "
                             "extensions -out server-cert.pem");
}
