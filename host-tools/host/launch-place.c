/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/launch-place.h"
#include "error.h"
#include "host/unix-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* libvirt waits for its hook without a limit of its own, and so does a VM's start. A back-end listens within 10 ms. */
#define LISTEN_TIMEOUT_MS 10000
#define LISTEN_POLL_MS 2
#define GREET_POLL_MS 100
#define TERM_TIMEOUT_MS 3000
#define KILL_TIMEOUT_MS 3000
/* How long a connection may outlast its QEMU: the back-end has to see it first, on a busy host. */
#define DISCONNECT_TIMEOUT_MS 2000
#define DISCONNECT_POLL_MS 10
#define FOREIGN_TIMEOUT_MS 200
/* Longer than a stop of the same VM can take. */
#define LOCK_TIMEOUT_MS 30000
#define LOCK_POLL_MS 10

#define LOG_NAME_BYTES_MAX 200
#define NAME_BYTES_MAX 255
#define LOG_TAIL_BYTES 2048

gboolean
place_fail_errno (GError **error, const char *doing, const char *path) {
  const int code = errno;

  return ctl_fail (error, code == EACCES || code == EPERM ? CTL_ERROR_ACCESS : CTL_ERROR_FAILED, "can't %s %s: %s; %s", doing,
                   path, g_strerror (code), code == EACCES || code == EPERM ? "do it as root" : "look at what is there");
}

/* ---- names ---- */

/* A domain's name can hold blanks, slashes' look-alikes and anything else that a file's name had better not. */
char *
place_log_path (const DomainIdentity *identity, const char *suffix) {
  g_autofree char *name = g_strndup (identity->name, LOG_NAME_BYTES_MAX);
  g_autofree char *file = NULL;

  g_strcanon (name, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._+-", '_');
  if (*name == '.')
    *name = '_';
  /* What was changed may be the same as another VM's now. */
  file = strcmp (name, identity->name) == 0 ? g_strconcat (name, suffix, NULL)
                                            : g_strconcat (name, "-", identity->uuid, suffix, NULL);
  return g_build_filename (launch_logdir (), file, NULL);
}

/* Printable text of 1 to 255 bytes, as the back-end wants it. */
char *
place_printable_name (const DomainIdentity *identity) {
  g_autofree char *valid = g_utf8_make_valid (identity->name, -1);
  g_autoptr (GString) name = g_string_new (NULL);

  for (const char *p = valid; *p; p = g_utf8_next_char (p)) {
    const gunichar c = g_utf8_get_char (p);

    if (name->len + 6 > NAME_BYTES_MAX)
      break;
    g_string_append_unichar (name, g_unichar_isprint (c) ? c : '?');
  }
  return g_strdup (name->len ? name->str : identity->uuid);
}

/* ---- folders and the lock ---- */

/* Opens the folder `name` in parent_fd (AT_FDCWD: an absolute path), made with this mode where it is missing. It must be ours
 * alone to write. */
static int
open_folder (int parent_fd, const char *name, mode_t mode, gboolean make, GError **error) {
  const gboolean made = make && mkdirat (parent_fd, name, 0700) == 0;
  struct stat st;
  int fd;

  if (make && !made && errno != EEXIST) {
    place_fail_errno (error, "make the folder", name);
    return -1;
  }
  fd = openat (parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    place_fail_errno (error, "open the folder", name);
    return -1;
  }
  if (fstat (fd, &st) < 0 || (made && fchmod (fd, mode) < 0)) {
    place_fail_errno (error, "use the folder", name);
  } else if (st.st_uid != geteuid () || (st.st_mode & (S_IWGRP | S_IWOTH))) {
    ctl_fail (error, CTL_ERROR_REFUSED, "the folder %s can be written by others than root; remove it, it is made again", name);
  } else {
    return fd;
  }
  close (fd);
  return -1;
}

/* RUNDIR/vm. -1 without error set: there is none, and it was not to be made. */
static int
open_vm_folder (gboolean make, GError **error) {
  g_autofree char *path = g_build_filename (launch_rundir (), "vm", NULL);
  int run_fd, vm_fd;

  if (!make && !g_file_test (path, G_FILE_TEST_EXISTS))
    return -1;
  run_fd = open_folder (AT_FDCWD, launch_rundir (), 0755, make, error);
  if (run_fd < 0)
    return -1;
  vm_fd = open_folder (run_fd, "vm", 0755, make, error);
  close (run_fd);
  return vm_fd;
}

/* Behind the bytes for starts and stops lie those for plugging. */
#define LOCK_PLUG_OFFSET ((off_t)1 << 48)

/* The byte of the lock file that stands for this VM: 48 bits of the UUID. Two VMs that share one only wait for each other. */
static off_t
lock_byte (const char *uuid) {
  off_t byte = 0;

  for (int digits = 0; *uuid && digits < 12; uuid++)
    if (g_ascii_isxdigit (*uuid)) {
      byte = byte * 16 + g_ascii_xdigit_value (*uuid);
      digits++;
    }
  return byte;
}

/* Held until the descriptor is closed, however that comes about. what: for the message. */
static int
lock (int vm_fd, off_t byte, const char *what, GError **error) {
  const int fd = openat (vm_fd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  const gint64 deadline = g_get_monotonic_time () + LOCK_TIMEOUT_MS * (gint64)1000;

  if (fd < 0) {
    place_fail_errno (error, "open the file .lock in", launch_rundir ());
    return -1;
  }
  for (;;) {
    struct flock range = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

    if (fcntl (fd, F_OFD_SETLK, &range) == 0)
      return fd;
    if ((errno != EAGAIN && errno != EACCES && errno != EINTR) || g_get_monotonic_time () > deadline)
      break;
    g_usleep (LOCK_POLL_MS * 1000);
  }
  ctl_fail (error, CTL_ERROR_FAILED, "another %s did not end within %d s; try again", what, LOCK_TIMEOUT_MS / 1000);
  close (fd);
  return -1;
}

int
place_lock_plug (const char *uuid, GError **error) {
  const int vm_fd = open_vm_folder (TRUE, error);
  const int fd = vm_fd < 0 ? -1 : lock (vm_fd, LOCK_PLUG_OFFSET + lock_byte (uuid), "attach or detach of it", error);

  if (vm_fd >= 0)
    close (vm_fd);
  return fd;
}

void
place_clear (Place *place) {
  process_clear (&place->process);
  for (gsize i = 0; i < G_N_ELEMENTS (place->sockets); i++)
    g_free (place->sockets[i]);
  g_free (place->last_socket);
  g_free (place->greeter);
  g_free (place->argument);
  if (place->folder_fd >= 0)
    close (place->folder_fd);
  if (place->lock_fd >= 0)
    close (place->lock_fd);
  if (place->vm_fd >= 0)
    close (place->vm_fd);
}

gboolean
place_open (Place *place, const PlaceKind *kind, const char *uuid, gboolean make, GError **error) {
  place->kind = kind;
  place->uuid = uuid;
  place->vm_fd = open_vm_folder (make, error);
  if (place->vm_fd < 0)
    return FALSE;
  if (!make && faccessat (place->vm_fd, uuid, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
    return FALSE;
  place->lock_fd = lock (place->vm_fd, lock_byte (uuid), "start or stop of what it needs", error);
  if (place->lock_fd < 0)
    return FALSE;
  if (!make && faccessat (place->vm_fd, uuid, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
    return FALSE; /* who held the lock has removed it */
  place->folder_fd = open_folder (place->vm_fd, uuid, 0700, make, error);
  if (place->folder_fd < 0)
    return FALSE;
  process_find (place->folder_fd, place->kind->pid_name, place->argument, &place->process);
  return TRUE;
}

/* ---- ending ---- */

/* Whether at least one socket is in one of these states. */
static gboolean
any_socket (const Place *place, unsigned states) {
  for (char *const *path = place->sockets; *path; path++)
    if (unix_socket_state (*path) & states)
      return TRUE;
  return FALSE;
}

static gboolean
all_listen (const Place *place) {
  if (place->last_socket && !(unix_socket_state (place->last_socket) & UNIX_SOCKET_LISTENS))
    return FALSE;
  for (char *const *path = place->sockets; *path; path++)
    if (!(unix_socket_state (*path) & UNIX_SOCKET_LISTENS))
      return FALSE;
  return TRUE;
}

/* Whether the back-end has a connection and goes on having it. */
static gboolean
stays_connected (const Place *place) {
  const gint64 deadline = g_get_monotonic_time () + launch_patience_ms (DISCONNECT_TIMEOUT_MS) * (gint64)1000;

  while (any_socket (place, UNIX_SOCKET_CONNECTED)) {
    if (g_get_monotonic_time () > deadline)
      return TRUE;
    if (process_wait (&place->process, DISCONNECT_POLL_MS))
      return FALSE;
  }
  return FALSE;
}

gboolean
place_end_process (Place *place, GError **error) {
  pid_t qemu;

  if (place->process.pidfd < 0)
    return TRUE;
  if (stays_connected (place) && (qemu = process_find_qemu (place->uuid, place->sockets[0])))
    return ctl_fail (error, CTL_ERROR_REFUSED,
                     "its %s (process %d) serves a running QEMU (process %d); end that first, the %s ends with it",
                     place->kind->what, (int)place->process.pid, (int)qemu, place->kind->what);
  if (!process_end (&place->process, launch_patience_ms (TERM_TIMEOUT_MS), KILL_TIMEOUT_MS))
    return ctl_fail (error, CTL_ERROR_FAILED,
                     "its %s (process %d) does not end, it hangs in the kernel; look at /proc/%d/stack", place->kind->what,
                     (int)place->process.pid, (int)place->process.pid);
  process_clear (&place->process);
  return TRUE;
}

static void
remove_files (const Place *place) {
  for (const char *const *name = place->kind->files; *name; name++)
    unlinkat (place->folder_fd, *name, 0);
}

gboolean
place_remove (const Place *place, GError **error) {
  g_autofree char *folder = launch_folder (place->uuid);

  remove_files (place);
  return unlinkat (place->vm_fd, place->uuid, AT_REMOVEDIR) == 0 || errno == ENOENT || errno == ENOTEMPTY
         || place_fail_errno (error, "remove the folder", folder);
}

/* Somebody else than a back-end of ours listens, and goes on listening: what a back-end that was killed had begun to start may
 * have its socket for a moment. */
gboolean
place_is_foreign (const Place *place) {
  const gint64 deadline = g_get_monotonic_time () + FOREIGN_TIMEOUT_MS * (gint64)1000;

  if (place->process.pidfd >= 0)
    return FALSE;
  while (any_socket (place, UNIX_SOCKET_LISTENS)) {
    if (g_get_monotonic_time () > deadline)
      return TRUE;
    g_usleep (LISTEN_POLL_MS * 1000);
  }
  return FALSE;
}

/* ---- starting ---- */

static int
open_log (const char *path, GError **error) {
  struct stat st;
  int fd;

  if (g_mkdir_with_parents (launch_logdir (), 0750) < 0) {
    place_fail_errno (error, "make the folder", launch_logdir ());
    return -1;
  }
  fd = open (path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
  if (fd < 0) {
    place_fail_errno (error, "open the log", path);
    return -1;
  }
  if (fstat (fd, &st) < 0 || !S_ISREG (st.st_mode)) {
    close (fd);
    ctl_fail (error, CTL_ERROR_FAILED, "the log %s is not a file; remove it", path);
    return -1;
  }
  return fd;
}

/* A log goes on from start to start: where one begins, and with what options. */
static void
log_start (int log_fd, const char *const *arguments) {
  g_autoptr (GDateTime) now = g_date_time_new_now_local ();
  g_autofree char *when = g_date_time_format (now, "%F %T%z");
  g_autofree char *command = g_strjoinv (" ", (char **)arguments);
  g_autofree char *line = g_strdup_printf ("-- %s: %s\n", when, command);

  if (write (log_fd, line, strlen (line)) < 0)
    g_debug ("the log can't be written: %s", g_strerror (errno)); /* the back-end runs without, too */
}

/* The last line that was written to the log since it had `from` bytes. */
static char *
last_line (int log_fd, off_t from) {
  char text[LOG_TAIL_BYTES + 1];
  const off_t size = lseek (log_fd, 0, SEEK_END);
  const ssize_t n = pread (log_fd, text, LOG_TAIL_BYTES, MAX (from, size - LOG_TAIL_BYTES));
  const char *newline;

  if (n <= 0)
    return g_strdup ("it said nothing");
  text[n] = 0;
  g_strchomp (text);
  newline = strrchr (text, '\n');
  return g_strdup (newline ? newline + 1 : text);
}

/* That it listens is not enough: what does the work begins after that, and may find that it can't. */
static gboolean
wait_until_it_works (Place *place, int log_fd, off_t log_from, const char *log_path, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + launch_patience_ms (LISTEN_TIMEOUT_MS) * (gint64)1000;
  gboolean listens;

  while (!(listens = all_listen (place)) || (place->greeter && !unix_socket_greets (place->greeter, GREET_POLL_MS))) {
    if (process_wait (&place->process, LISTEN_POLL_MS)) {
      g_autofree char *said = last_line (log_fd, log_from);

      return ctl_fail (error, CTL_ERROR_FAILED, "its %s ended at once: %s; see %s", place->kind->what, said, log_path);
    }
    if (g_get_monotonic_time () > deadline)
      return ctl_fail (error, CTL_ERROR_FAILED, "its %s does not %s after %d s; see %s", place->kind->what,
                       listens ? "begin to work" : "listen", LISTEN_TIMEOUT_MS / 1000, log_path);
  }
  return TRUE;
}

gboolean
place_start (Place *place, const char *const *arguments, const char *log_path, gid_t gid, GError **error) {
  /* C.UTF-8: the name is UTF-8, and libvirt runs its hooks in the C locale. */
  static const char *const environment[]
      = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL };
  gboolean ok;
  off_t log_from;
  int log_fd;

  remove_files (place);
  if (fchown (place->folder_fd, geteuid (), gid) < 0 || fchmod (place->folder_fd, 0750) < 0)
    return place_fail_errno (error, "give to QEMU's group the folder", place->uuid);
  log_fd = open_log (log_path, error);
  if (log_fd < 0)
    return FALSE;
  log_start (log_fd, arguments);
  log_from = lseek (log_fd, 0, SEEK_END);
  ok = process_spawn (arguments, environment, log_fd, place->folder_fd, place->kind->pid_name, &place->process, error)
       && wait_until_it_works (place, log_fd, log_from, log_path, error);
  close (log_fd);
  return ok;
}

/* The sockets listen, and nobody is connected. */
static gboolean
is_idle (const Place *place) {
  return all_listen (place) && !any_socket (place, UNIX_SOCKET_CONNECTED);
}

/* With --once one whose QEMU has gone is about to end: it gets a moment for that. */
gboolean
place_is_fresh (const Place *place, const char *const *arguments) {
  return place->process.pidfd >= 0 && process_has_arguments (&place->process, arguments) && is_idle (place)
         && !process_wait (&place->process, 20) && is_idle (place);
}
