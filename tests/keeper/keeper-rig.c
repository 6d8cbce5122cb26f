/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "keeper-rig.h"
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

/* What a worker's process reports of itself when it begins. */
struct report {
  pid_t pid;
  uint64_t inode;
  int n_fds; /* besides 0 to 3 and its own */
  int death_signal;
  bool signals_blocked;
};

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

static void
send_with_fds (int to, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
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
static ssize_t
receive_with_fd (int from, void *bytes, size_t n, int *ret_fd) {
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
  send_with_fds (to, &report, sizeof report, &wire, 1);
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

static void __attribute__ ((noreturn))
fail (struct rig *rig, const char *what) {
  g_autofree char *log = log_of (rig);

  g_error ("%s. The keeper's log:\n%s", what, log);
}

bool
rig_lives (struct rig *rig) {
  int status;

  if (rig->pid && waitpid (rig->pid, &status, WNOHANG) == rig->pid) {
    rig->pid = 0;
    fail (rig, "the keeper has ended");
  }
  return rig->pid != 0;
}

int
rig_wait (struct rig *rig) {
  const int64_t deadline = rig_now_ms () + PATIENCE_MS;
  int status;

  while (waitpid (rig->pid, &status, WNOHANG) != rig->pid) {
    if (rig_now_ms () > deadline)
      fail (rig, "the keeper does not end");
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
      fail (rig, "SIGTERM did not end the keeper with status 0");
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
      fail (rig, "nobody listens");
    g_usleep (1000);
  }
  return fd;
}

/* ---- workers ---- */

static bool
is_readable (int fd, int ms) {
  struct pollfd pfd = { fd, POLLIN, 0 };

  return poll (&pfd, 1, ms) == 1;
}

bool
rig_no_worker (struct rig *rig, int ms) {
  return !is_readable (rig->workers_fd, ms);
}

static bool
hear_one (struct hand *hand, struct heard *heard, int ms) {
  ssize_t n;
  int fd;

  if (!is_readable (hand->wire, ms))
    return false;
  n = receive_with_fd (hand->wire, heard, sizeof heard->message + KEEPER_BYTES_MAX, &fd);
  if (n <= 0)
    return false;
  g_assert_cmpuint ((size_t)n, ==, sizeof heard->message + heard->message.n_bytes);
  heard->bytes[heard->message.n_bytes] = 0;
  if (heard->message.type == KEEPER_SLOT) {
    const unsigned slot = heard->message.slot;

    g_assert_cmpint (fd, >=, 0);
    g_assert_cmpuint (slot, <, KEEPER_SLOTS);
    if (hand->slots[slot] >= 0)
      close (hand->slots[slot]);
    hand->slots[slot] = fd;
    hand->slot_messages[slot] = heard->message;
  } else {
    g_assert_cmpint (fd, ==, -1);
  }
  return true;
}

const struct heard *
hand_hear (struct hand *hand, int ms) {
  static struct heard heard;

  while (hear_one (hand, &heard, ms))
    if (heard.message.type != KEEPER_SLOT)
      return &heard;
  return NULL;
}

const struct heard *
hand_expect (struct hand *hand, enum keeper_type type) {
  const struct heard *heard = hand_hear (hand, PATIENCE_MS);

  if (!heard)
    g_error ("the keeper did not say %d", type);
  g_assert_cmpint (heard->message.type, ==, type);
  return heard;
}

struct hand *
rig_worker (struct rig *rig) {
  struct hand *hand = g_new0 (struct hand, 1);
  struct report report;
  struct heard heard;

  if (!is_readable (rig->workers_fd, PATIENCE_MS))
    fail (rig, "no worker comes");
  hand->control = accept4 (rig->workers_fd, NULL, NULL, SOCK_CLOEXEC);
  g_assert_cmpint (hand->control, >=, 0);
  if (!is_readable (hand->control, PATIENCE_MS)
      || receive_with_fd (hand->control, &report, sizeof report, &hand->wire) != sizeof report)
    fail (rig, "a worker says nothing");
  hand->seen_at_us = (uint64_t)g_get_monotonic_time ();
  hand->pid = report.pid;
  hand->inode = report.inode;
  g_assert_cmpint (report.n_fds, ==, 0);
  g_assert_cmpint (report.death_signal, ==, SIGKILL);
  g_assert_false (report.signals_blocked);
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    hand->slots[i] = -1;
  memcpy (&hand->hello, hand_expect (hand, KEEPER_HELLO)->bytes, sizeof hand->hello);
  g_assert_cmpuint (hand->hello.wire_version, ==, KEEPER_WIRE_VERSION);
  g_assert_cmpint ((int)hand->hello.keeper_pid, ==, rig->pid);
  if (hand->hello.has_state) {
    g_assert_true (hear_one (hand, &heard, PATIENCE_MS));
    g_assert_cmpint (hand->slots[KEEPER_SLOT_STATE], >=, 0);
  }
  return hand;
}

void
hand_check (struct hand *hand) {
  hand_say_type (hand, KEEPER_CHECKED, 0, KEEPER_NO_SLOT, 0);
}

void
hand_go (struct hand *hand) {
  const struct heard *heard = hand_expect (hand, KEEPER_GO);

  g_assert_cmpuint (heard->message.n_bytes, ==, sizeof hand->hello);
  memcpy (&hand->hello, heard->bytes, sizeof hand->hello);
}

struct hand *
rig_running_worker (struct rig *rig) {
  struct hand *hand = rig_worker (rig);

  hand_check (hand);
  hand_go (hand);
  return hand;
}

void
hand_free (struct hand *hand) {
  for (unsigned i = 0; i < KEEPER_SLOTS; i++)
    if (hand->slots[i] >= 0)
      close (hand->slots[i]);
  close (hand->wire);
  close (hand->control);
  g_free (hand);
}

/* Returns when the process has let go of everything. */
static void
wait_for_end (struct hand *hand) {
  char c;

  g_assert_true (is_readable (hand->control, PATIENCE_MS));
  g_assert_cmpint (recv (hand->control, &c, 1, 0), <=, 0);
}

void
hand_kill (struct hand *hand) {
  kill (hand->pid, SIGKILL);
  wait_for_end (hand);
}

void
hand_exit (struct hand *hand, int status) {
  send_with_fds (hand->control, &status, sizeof status, NULL, 0);
  wait_for_end (hand);
}

void
hand_say (struct hand *hand, const struct keeper_message *message, const void *bytes, int fd) {
  uint8_t whole[KEEPER_MESSAGE_BYTES_MAX];

  memcpy (whole, message, sizeof *message);
  memcpy (whole + sizeof *message, bytes, message->n_bytes);
  send_with_fds (hand->wire, whole, sizeof *message + message->n_bytes, &fd, fd >= 0 ? 1 : 0);
}

void
hand_say_type (struct hand *hand, enum keeper_type type, uint64_t epoch, unsigned slot, unsigned count) {
  hand_say (hand, &(struct keeper_message){ .type = type, .epoch = epoch, .slot = (uint8_t)slot, .count = count }, "", -1);
}

void
hand_want (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count) {
  hand_say (hand,
            &(struct keeper_message){ .type = KEEPER_WANT, .stream = stream, .epoch = epoch, .position = position, .count = count },
            "", -1);
}

void
hand_send (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t number, const void *bytes, unsigned n,
           unsigned slot) {
  hand_say (hand,
            &(struct keeper_message){
              .type = KEEPER_SEND, .stream = stream, .epoch = epoch, .position = number, .n_bytes = n, .slot = (uint8_t)slot },
            bytes, -1);
}

void
hand_close (struct hand *hand, uint64_t epoch) {
  for (unsigned slot = KEEPER_SLOT_STREAM_FIRST; slot < KEEPER_SLOTS; slot++)
    if (hand->slots[slot] >= 0) {
      close (hand->slots[slot]);
      hand->slots[slot] = -1;
    }
  hand_say_type (hand, KEEPER_CLOSE, epoch, KEEPER_NO_SLOT, 0);
}

/* The keeper closes what it is told to drop: our end of a pipe shows that. */
void
hand_sync (struct hand *hand, struct rig *rig) {
  const struct keeper_message put = { .type = KEEPER_PUT, .slot = 15 };
  int ends[2];

  g_assert_cmpint (pipe2 (ends, O_CLOEXEC), ==, 0);
  hand_say (hand, &put, "", ends[1]);
  close (ends[1]);
  hand_say_type (hand, KEEPER_DROP, 0, 15, 0);
  if (!is_readable (ends[0], PATIENCE_MS))
    fail (rig, "the keeper does not listen");
  close (ends[0]);
}

/* ---- front-ends ---- */

void
peer_send (int fd, const void *bytes, size_t n, const int *fds, unsigned n_fds) {
  send_with_fds (fd, bytes, n, fds, n_fds);
}

void
peer_expect (int fd, const void *bytes, size_t n) {
  g_autofree uint8_t *got = g_malloc (n);

  for (size_t have = 0; have < n;) {
    g_assert_true (is_readable (fd, PATIENCE_MS));
    const ssize_t more = recv (fd, got + have, n - have, 0);

    g_assert_cmpint (more, >, 0);
    have += (size_t)more;
  }
  g_assert_cmpmem (got, n, bytes, n);
}

bool
peer_is_quiet (int fd, int ms) {
  return !is_readable (fd, ms);
}

bool
peer_is_closed (int fd, int ms) {
  char c;

  return is_readable (fd, ms) && recv (fd, &c, 1, 0) <= 0;
}

int
new_eventfd (uint64_t mark) {
  const int fd = eventfd (0, EFD_CLOEXEC | EFD_NONBLOCK);

  if (fd < 0 || write (fd, &mark, sizeof mark) != sizeof mark)
    abort ();
  return fd;
}

uint64_t
mark_of (int fd) {
  uint64_t mark = 0;

  if (read (fd, &mark, sizeof mark) == sizeof mark && write (fd, &mark, sizeof mark) != sizeof mark)
    abort ();
  return mark;
}
