/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/process.h"
#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PID_FILE_BYTES_MAX 64
#define COMMAND_LINE_BYTES_MAX (256 * 1024)
/* A process that ends gives back its memory first, which takes a while for one that has much. */
#define END_TIMEOUT_MS 5000

/* The out-of-memory killer shall take the VM rather than its back-end: without that the VM ends as well, and no memory is
 * freed. */
#define OOM_SCORE_ADJ "-999"

void
process_clear (Process *process) {
  if (process->pidfd >= 0)
    close (process->pidfd);
  *process = PROCESS_NONE;
}

/* ---- /proc ---- */

/* NULL when there is no such process. At most max bytes, NUL-terminated. */
static char *
read_proc (pid_t pid, const char *name, gsize max, gsize *ret_bytes) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/%s", (int)pid, name);
  const int fd = open (path, O_RDONLY | O_CLOEXEC);
  g_autoptr (GString) text = NULL;
  char part[4096];
  ssize_t n = 0;

  if (fd < 0)
    return NULL;
  text = g_string_new (NULL);
  while (text->len < max && (n = read (fd, part, MIN (sizeof part, max - text->len))) > 0)
    g_string_append_len (text, part, n);
  close (fd);
  if (n < 0)
    return NULL;
  *ret_bytes = text->len;
  return g_string_free (g_steal_pointer (&text), FALSE);
}

/* Field 22 of stat, in clock ticks since boot. The name in field 2 may hold anything, parentheses and blanks too. */
static gboolean
start_time (pid_t pid, guint64 *ret_ticks) {
  gsize n;
  g_autofree char *stat = read_proc (pid, "stat", 4096, &n);
  const char *p = stat ? strrchr (stat, ')') : NULL;
  unsigned long long ticks;

  if (!p || sscanf (p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
    return FALSE;
  *ret_ticks = ticks;
  return TRUE;
}

/* It has let go of its memory already, and with that of its command line, but maybe not yet of its sockets. */
static gboolean
is_ending (pid_t pid) {
  gsize n;
  g_autofree char *line = read_proc (pid, "cmdline", 1, &n);

  return line && n == 0;
}

static gboolean
has_argument (pid_t pid, const char *argument) {
  gsize n;
  g_autofree char *line = read_proc (pid, "cmdline", COMMAND_LINE_BYTES_MAX, &n);

  for (const char *p = line; p && p < line + n; p += strlen (p) + 1)
    if (strcmp (p, argument) == 0)
      return TRUE;
  return FALSE;
}

gboolean
process_has_arguments (const Process *process, const char *const *argv) {
  gsize n;
  g_autofree char *line = read_proc (process->pid, "cmdline", COMMAND_LINE_BYTES_MAX, &n);
  const char *p = line;

  if (!line)
    return FALSE;
  for (; *argv && p < line + n; argv++, p += strlen (p) + 1)
    if (strcmp (p, *argv) != 0)
      return FALSE;
  return !*argv && p == line + n;
}

/* libvirt gives every QEMU `-uuid UUID`; others can be told by the chardev on their command line. */
static gboolean
is_qemu_of (pid_t pid, const char *uuid, const char *path_setting) {
  gsize n;
  g_autofree char *line = read_proc (pid, "cmdline", COMMAND_LINE_BYTES_MAX, &n);
  gboolean uuid_follows = FALSE;

  for (const char *p = line; p && p < line + n; p += strlen (p) + 1) {
    if ((uuid_follows && g_ascii_strcasecmp (p, uuid) == 0) || strstr (p, path_setting))
      return TRUE;
    uuid_follows = strcmp (p, "-uuid") == 0;
  }
  return FALSE;
}

pid_t
process_find_qemu (const char *uuid, const char *socket_path) {
  g_autofree char *path_setting = g_strdup_printf (",path=%s", socket_path);
  g_autoptr (GDir) processes = g_dir_open ("/proc", 0, NULL);
  const char *name;

  while (processes && (name = g_dir_read_name (processes))) {
    const pid_t pid = g_ascii_isdigit (*name) ? (pid_t)g_ascii_strtoll (name, NULL, 10) : 0;

    if (pid > 0 && pid != getpid () && is_qemu_of (pid, uuid, path_setting))
      return pid;
  }
  return 0;
}

/* ---- the pid file ---- */

static gboolean
read_pid_file (int folder_fd, const char *pid_name, pid_t *ret_pid, guint64 *ret_ticks) {
  char text[PID_FILE_BYTES_MAX + 1];
  const int fd = openat (folder_fd, pid_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  unsigned long long ticks;
  ssize_t n;
  int pid;

  if (fd < 0)
    return FALSE;
  n = read (fd, text, PID_FILE_BYTES_MAX);
  close (fd);
  if (n <= 0)
    return FALSE;
  text[n] = 0;
  if (sscanf (text, "%d %llu", &pid, &ticks) != 2 || pid <= 0)
    return FALSE;
  *ret_pid = pid;
  *ret_ticks = ticks;
  return TRUE;
}

/* Complete or not at all. */
static gboolean
write_pid_file (int folder_fd, const char *pid_name, pid_t pid, GError **error) {
  g_autofree char *new_name = g_strdup_printf ("%s.new", pid_name);
  g_autofree char *text = NULL;
  gboolean ok = FALSE;
  guint64 ticks;
  int fd;

  if (!start_time (pid, &ticks)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "can't read /proc/%d/stat; mount /proc", (int)pid);
    return FALSE;
  }
  text = g_strdup_printf ("%d %" G_GUINT64_FORMAT "\n", (int)pid, ticks);
  unlinkat (folder_fd, new_name, 0);
  fd = openat (folder_fd, new_name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (fd >= 0) {
    ok = write (fd, text, strlen (text)) == (ssize_t)strlen (text);
    ok = close (fd) == 0 && ok && renameat (folder_fd, new_name, folder_fd, pid_name) == 0;
  }
  if (!ok)
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "can't write %s: %s; see that there is room in /run", pid_name,
                 g_strerror (errno));
  return ok;
}

gboolean
process_find (int folder_fd, const char *pid_name, const char *argument, Process *ret_process) {
  g_auto (Process) process = PROCESS_NONE;
  guint64 ticks, ticks_now;

  if (!read_pid_file (folder_fd, pid_name, &process.pid, &ticks))
    return FALSE;
  /* First the handle, then the look: what /proc says after that is about the process of the handle, or about none. */
  process.pidfd = pidfd_open (process.pid, 0);
  if (process.pidfd < 0 || !start_time (process.pid, &ticks_now) || ticks_now != ticks)
    return FALSE;
  if (is_ending (process.pid))
    process_wait (&process, END_TIMEOUT_MS);
  if (!has_argument (process.pid, argument))
    return FALSE;
  *ret_process = process;
  process = PROCESS_NONE;
  return TRUE;
}

pid_t
process_last_pid (int folder_fd, const char *pid_name) {
  guint64 ticks;
  pid_t pid;

  return read_pid_file (folder_fd, pid_name, &pid, &ticks) ? pid : 0;
}

/* ---- waiting and ending ---- */

gboolean
process_wait (const Process *process, int timeout_ms) {
  const gint64 deadline = g_get_monotonic_time () + timeout_ms * (gint64)1000;
  struct pollfd pfd = { process->pidfd, POLLIN, 0 };

  for (;;) {
    const gint64 left_ms = (deadline - g_get_monotonic_time () + 999) / 1000;
    const int n = poll (&pfd, 1, (int)MAX (left_ms, 0));

    if (n > 0)
      return TRUE;
    if (left_ms <= 0 || (n < 0 && errno != EINTR))
      return FALSE;
  }
}

gboolean
process_end (const Process *process, int term_ms, int kill_ms) {
  pidfd_send_signal (process->pidfd, SIGTERM, NULL, 0);
  if (process_wait (process, term_ms))
    return TRUE;
  pidfd_send_signal (process->pidfd, SIGKILL, NULL, 0);
  return process_wait (process, kill_ms);
}

/* ---- starting ---- */

/* What was started from somebody's login would end with it where that is so (KillUserProcesses=, systemd-oomd): it goes to the
 * root of the cgroups, which is nobody's to end. What libvirtd started stays there: stopping it spares what is not itself
 * (KillMode=process). */
static void
leave_login (pid_t pid) {
  static const char *const roots[] = { "/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd" };
  g_autofree char *pid_text = g_strdup_printf ("%d\n", (int)pid);
  gsize n;
  g_autofree char *cgroup = read_proc (pid, "cgroup", 4096, &n);

  if (!cgroup || !strstr (cgroup, "/user.slice/"))
    return;
  for (size_t i = 0; i < G_N_ELEMENTS (roots); i++) {
    g_autofree char *path = g_build_filename (roots[i], "cgroup.procs", NULL);
    const int fd = open (path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
      continue;
    if (write (fd, pid_text, strlen (pid_text)) < 0)
      g_debug ("%s: %s", path, g_strerror (errno)); /* it stays where it is, as any other program would */
    close (fd);
  }
}

/* In the process that becomes the program. Only what is safe after fork in a program that may have threads. */
static void
become (const char *const *argv, const char *const *environment, int log_fd, int go_fd, int failure_fd) {
  const int null_fd = open ("/dev/null", O_RDONLY);
  const int oom_fd = open ("/proc/self/oom_score_adj", O_WRONLY);
  struct sigaction action = { .sa_handler = SIG_DFL };
  sigset_t none;
  char go;
  int failure;

  if (read (go_fd, &go, 1) != 1)
    _exit (127); /* who started us has died before it wrote the pid file: nobody would ever find us again */
  for (int number = 1; number < NSIG; number++)
    sigaction (number, &action, NULL);
  sigemptyset (&none);
  sigprocmask (SIG_SETMASK, &none, NULL);
  /* Where it is not allowed, as in a container, the process is as likely a victim as others. */
  failure = oom_fd < 0 || write (oom_fd, OOM_SCORE_ADJ, sizeof OOM_SCORE_ADJ - 1) < 0 ? errno : 0;
  umask (022);
  if (chdir ("/") < 0 || null_fd < 0 || dup2 (null_fd, 0) < 0 || dup2 (log_fd, 1) < 0 || dup2 (log_fd, 2) < 0
      || dup2 (failure_fd, 3) < 0 || fcntl (3, F_SETFD, FD_CLOEXEC) < 0)
    _exit (127);
  close_range (4, ~0u, 0);
  execve (argv[0], (char *const *)argv, (char *const *)environment);
  failure = errno;
  if (write (3, &failure, sizeof failure) < 0)
    _exit (126);
  _exit (127);
}

static gboolean
read_all (int fd, void *data, size_t bytes) {
  ssize_t n;

  do
    n = read (fd, data, bytes);
  while (n < 0 && errno == EINTR);
  return n == (ssize_t)bytes;
}

/* Pipe ends above 3, so that become can put its own at 0 to 3 without closing one of them. */
static gboolean
make_pipe (int ret_fds[2]) {
  int fds[2];

  if (pipe2 (fds, O_CLOEXEC) < 0)
    return FALSE;
  for (int i = 0; i < 2; i++) {
    ret_fds[i] = fcntl (fds[i], F_DUPFD_CLOEXEC, 10);
    close (fds[i]);
  }
  return ret_fds[0] >= 0 && ret_fds[1] >= 0;
}

static void
close_pipe (int fds[2]) {
  for (int i = 0; i < 2; i++)
    if (fds[i] >= 0)
      close (fds[i]);
}

/* The child forks once more and ends, so that the program is init's child; it tells the program's pid through pid_fd. */
static pid_t
fork_twice (const char *const *argv, const char *const *environment, int log_fd, int pid_fds[2], int go_fds[2],
            int failure_fds[2]) {
  const pid_t child = fork ();
  pid_t pid;

  if (child != 0)
    return child;
  setsid ();
  pid = fork ();
  if (pid == 0) {
    close (go_fds[1]); /* else our own end would keep us waiting for ever */
    close (failure_fds[0]);
    become (argv, environment, log_fd, go_fds[0], failure_fds[1]);
  }
  if (write (pid_fds[1], &pid, sizeof pid) < 0)
    _exit (1);
  _exit (0);
}

gboolean
process_spawn (const char *const *argv, const char *const *environment, int log_fd, int folder_fd, const char *pid_name,
               Process *ret_process, GError **error) {
  g_auto (Process) process = PROCESS_NONE;
  int pid_fds[2] = { -1, -1 }, go_fds[2] = { -1, -1 }, failure_fds[2] = { -1, -1 }, failure = 0;
  gboolean ok = FALSE;
  pid_t child = -1;

  if (make_pipe (pid_fds) && make_pipe (go_fds) && make_pipe (failure_fds))
    child = fork_twice (argv, environment, log_fd, pid_fds, go_fds, failure_fds);
  if (child > 0) {
    while (waitpid (child, NULL, 0) < 0 && errno == EINTR)
      ;
    close (pid_fds[1]);
    close (failure_fds[1]);
    pid_fds[1] = failure_fds[1] = -1; /* both ends of go stay: nobody gets SIGPIPE, the child has closed its copy of ours */
    if (read_all (pid_fds[0], &process.pid, sizeof process.pid) && process.pid > 0)
      process.pidfd = pidfd_open (process.pid, 0); /* it waits for our word: the pid is its own still */
  }
  if (process.pidfd < 0)
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "can't start a process: %s; see what limits there are ('systemctl status libvirtd')", g_strerror (errno));
  else if (write_pid_file (folder_fd, pid_name, process.pid, error)) {
    leave_login (process.pid);
    ok = write (go_fds[1], "g", 1) == 1;
  }
  if (ok && read_all (failure_fds[0], &failure, sizeof failure)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "can't run %s: %s; install it, or see 'domybsctl check'", argv[0],
                 g_strerror (failure));
    ok = FALSE;
  } else if (!ok && error && !*error) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "%s ended before it ran; try again", argv[0]);
  }
  close_pipe (pid_fds);
  close_pipe (go_fds);
  close_pipe (failure_fds);
  if (ok) {
    *ret_process = process;
    process = PROCESS_NONE;
  } else {
    unlinkat (folder_fd, pid_name, 0);
  }
  return ok;
}
