/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keeper-rig-internal.h"
#include "device/keeper.h"
#include "io/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

/* ---- no allocation ---- */

static volatile bool allocation_is_forbidden;

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
void *__libc_malloc (size_t n);
void *__libc_calloc (size_t n, size_t size);
void *__libc_realloc (void *old, size_t n);

static void
allocated (void) {
  static const char text[] = "the keeper allocates memory\n";

  if (!allocation_is_forbidden)
    return;
  allocation_is_forbidden = false;
  if (write (2, text, sizeof text - 1) > 0)
    abort ();
}

void *
malloc (size_t n) {
  allocated ();
  return __libc_malloc (n);
}

void *
calloc (size_t n, size_t size) {
  allocated ();
  return __libc_calloc (n, size);
}

void *
realloc (void *old, size_t n) {
  allocated ();
  return __libc_realloc (old, n);
}
#endif

/* ---- the other processes ---- */

/* Another user is sandbox.c's affair and that of its tests; here the workers have to reach the test. */
int
sandbox_become_worker (void) {
  return 0;
}

static struct sockaddr_un
address_of (const char *directory, const char *name) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };

  g_snprintf (address.sun_path, sizeof address.sun_path, "%s/%s", directory, name);
  return address;
}

static int
listen_at (const char *directory, const char *name, int type) {
  const struct sockaddr_un address = address_of (directory, name);
  const int fd = socket (AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

  if (fd < 0 || bind (fd, (const struct sockaddr *)&address, sizeof address) < 0 || listen (fd, 64) < 0)
    g_error ("can't listen at %s: %s", address.sun_path, g_strerror (errno));
  return fd;
}

static int
connect_to (const char *directory, const char *name, int type) {
  const struct sockaddr_un address = address_of (directory, name);
  const int fd = socket (AF_UNIX, type | SOCK_CLOEXEC, 0);

  if (fd < 0 || connect (fd, (const struct sockaddr *)&address, sizeof address) < 0)
    return -1;
  return fd;
}

void
rig_send_with_fds (int to, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
  union {
    char buf[CMSG_SPACE (sizeof (int) * 250)];
    struct cmsghdr align;
  } control;
  struct iovec iov = { (void *)bytes, n };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

  if (n_fds) {
    msg.msg_control = control.buf;
    msg.msg_controllen = CMSG_SPACE (sizeof (int) * n_fds);
    memset (control.buf, 0, msg.msg_controllen);
    CMSG_FIRSTHDR (&msg)->cmsg_len = CMSG_LEN (sizeof (int) * n_fds);
    CMSG_FIRSTHDR (&msg)->cmsg_level = SOL_SOCKET;
    CMSG_FIRSTHDR (&msg)->cmsg_type = SCM_RIGHTS;
    memcpy (CMSG_DATA (CMSG_FIRSTHDR (&msg)), fds, sizeof (int) * n_fds);
  }
  /* A keeper that has just ended this worker hears nothing any more: what follows from that is for the test to see. */
  if (sendmsg (to, &msg, MSG_NOSIGNAL) != (ssize_t)n && errno != EPIPE && errno != ECONNRESET)
    g_error ("sendmsg: %s", g_strerror (errno));
}

/* One message and at most one descriptor. Returns as recvmsg. */
ssize_t
rig_receive_with_fd (int from, void *bytes, size_t n, int *ret_fd) {
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control;
  struct iovec iov = { bytes, n };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
  const ssize_t result = recvmsg (from, &msg, MSG_CMSG_CLOEXEC);

  *ret_fd = -1;
  if (result > 0 && CMSG_FIRSTHDR (&msg))
    memcpy (ret_fd, CMSG_DATA (CMSG_FIRSTHDR (&msg)), sizeof (int));
  return result;
}

static unsigned
fds_of (pid_t pid) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/fd", (int)pid);
  g_autoptr (GDir) directory = g_dir_open (path, 0, NULL);
  unsigned n = 0;

  while (directory && g_dir_read_name (directory))
    n++;
  return n;
}

static void __attribute__ ((noreturn))
be_worker (const char *directory) {
  struct report report = { .pid = getpid (), .n_fds = (int)fds_of (getpid ()) - 5 };
  const int to = connect_to (directory, "workers", SOCK_SEQPACKET);
  const int wire = KEEPER_WORKER_FD;
  struct stat st;
  sigset_t blocked;
  int command;

  if (to < 0)
    _exit (90);
  if (stat ("/proc/self/exe", &st) == 0)
    report.inode = st.st_ino;
  prctl (PR_GET_PDEATHSIG, &report.death_signal);
  sigprocmask (SIG_SETMASK, NULL, &blocked);
  report.signals_blocked = sigismember (&blocked, SIGTERM) || sigismember (&blocked, SIGCHLD) || sigismember (&blocked, SIGINT);
  rig_send_with_fds (to, &report, sizeof report, &wire, 1);
  close (wire);
  _exit (recv (to, &command, sizeof command, 0) == sizeof command ? command : 91);
}

static void __attribute__ ((noreturn))
be_keeper (const char *program, const char *directory, bool connected) {
  char *const worker_argv[] = { (char *)program, (char *)"--worker", (char *)directory, NULL };
  const struct keeper_options options = {
    .name = "rig",
    .listen_fd = connected ? -1 : listen_at (directory, "socket", SOCK_STREAM),
    .connection_fd = connected ? 30 : -1,
    .control_fd = new_eventfd (1001),
    .account_fd = new_eventfd (1002),
    .worker_argv = worker_argv,
  };

  signal (SIGPIPE, SIG_IGN);
  open ("/dev/null", O_RDONLY); /* inherited by mistake: no worker may have it */
  allocation_is_forbidden = true;
  const int status = keeper_run (&options);
  allocation_is_forbidden = false;
  _exit (status);
}

void
rig_be_another (int argc, char **argv) {
  if (argc >= 3 && strcmp (argv[1], "--worker") == 0)
    be_worker (argv[2]);
  if (argc >= 3 && g_str_has_prefix (argv[1], "--keeper"))
    be_keeper (argv[0], argv[2], strcmp (argv[1], "--keeper-connected") == 0);
}

/* ---- the keeper ---- */

int64_t
rig_now_ms (void) {
  return g_get_monotonic_time () / 1000;
}

void
rig_install (struct rig *rig) {
  g_autofree char *temporary = g_strconcat (rig->program, ".new", NULL), *text = NULL;
  g_autoptr (GError) error = NULL;
  gsize n;

  g_file_get_contents ("/proc/self/exe", &text, &n, &error);
  g_assert_no_error (error);
  g_file_set_contents_full (temporary, text, (gssize)n, G_FILE_SET_CONTENTS_NONE, 0755, &error);
  g_assert_no_error (error);
  g_assert_cmpint (g_rename (temporary, rig->program), ==, 0);
}

uint64_t
rig_installed_inode (struct rig *rig) {
  struct stat st;

  g_assert_cmpint (stat (rig->program, &st), ==, 0);
  return st.st_ino;
}

struct rig *
rig_start (bool connected) {
  struct rig *rig = g_new0 (struct rig, 1);
  g_autoptr (GError) error = NULL;
  int pair[2] = { -1, -1 };

  rig->directory = g_dir_make_tmp ("domybs-keeper-XXXXXX", &error);
  g_assert_no_error (error);
  rig->program = g_build_filename (rig->directory, "program", NULL);
  rig->socket_path = g_build_filename (rig->directory, "socket", NULL);
  rig->log_path = g_build_filename (rig->directory, "log", NULL);
  rig_install (rig);
  rig->workers_fd = listen_at (rig->directory, "workers", SOCK_SEQPACKET);
  if (connected)
    g_assert_cmpint (socketpair (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), ==, 0);
  rig->given_fd = pair[0];
  rig->pid = fork ();
  g_assert_cmpint (rig->pid, >=, 0);
  if (rig->pid == 0) {
    const int log = open (rig->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    const char *const argv[] = { rig->program, connected ? "--keeper-connected" : "--keeper", rig->directory, NULL };

    prctl (PR_SET_PDEATHSIG, SIGKILL);
    dup2 (log, 1);
    dup2 (log, 2);
    if (connected)
      dup2 (pair[1], 30);
    for (int fd = 3; fd < 1024; fd++)
      if (fd != 30 || !connected)
        close (fd);
    execv (rig->program, (char *const *)argv);
    _exit (127);
  }
  if (connected)
    close (pair[1]);
  return rig;
}

static char *
log_of (struct rig *rig) {
  char *text = NULL;

  g_file_get_contents (rig->log_path, &text, NULL, NULL);
  return text ? text : g_strdup ("");
}

void __attribute__ ((noreturn))
rig_fail (struct rig *rig, const char *what) {
  g_autofree char *log = log_of (rig);

  g_error ("%s. The keeper's log:\n%s", what, log);
}

bool
rig_lives (struct rig *rig) {
  int status;

  if (rig->pid && waitpid (rig->pid, &status, WNOHANG) == rig->pid) {
    rig->pid = 0;
    rig_fail (rig, "the keeper has ended");
  }
  return rig->pid != 0;
}

int
rig_wait (struct rig *rig) {
  const int64_t deadline = rig_now_ms () + PATIENCE_MS;
  int status;

  while (waitpid (rig->pid, &status, WNOHANG) != rig->pid) {
    if (rig_now_ms () > deadline)
      rig_fail (rig, "the keeper does not end");
    g_usleep (1000);
  }
  rig->pid = 0;
  return status;
}

void
rig_free (struct rig *rig) {
  static const char *const names[] = { "program", "socket", "workers", "log" };

  if (rig->pid) {
    kill (rig->pid, SIGTERM);
    if (rig_wait (rig) != 0)
      rig_fail (rig, "SIGTERM did not end the keeper with status 0");
  }
  for (unsigned i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = g_build_filename (rig->directory, names[i], NULL);

    g_unlink (path);
  }
  g_rmdir (rig->directory);
  close (rig->workers_fd);
  if (rig->given_fd >= 0)
    close (rig->given_fd);
  g_free (rig->directory);
  g_free (rig->program);
  g_free (rig->socket_path);
  g_free (rig->log_path);
  g_free (rig);
}

unsigned
rig_fds (struct rig *rig) {
  return fds_of (rig->pid);
}

unsigned
rig_log_count (struct rig *rig, const char *text) {
  g_autofree char *log = log_of (rig);
  unsigned n = 0;

  for (const char *p = log; (p = strstr (p, text)); p++)
    n++;
  return n;
}

bool
rig_logged (struct rig *rig, const char *text) {
  return rig_log_count (rig, text) > 0;
}

int
rig_connect (struct rig *rig) {
  const int64_t deadline = rig_now_ms () + PATIENCE_MS;
  int fd;

  while ((fd = connect_to (rig->directory, "socket", SOCK_STREAM)) < 0) {
    if (rig_now_ms () > deadline)
      rig_fail (rig, "nobody listens");
    g_usleep (1000);
  }
  return fd;
}
