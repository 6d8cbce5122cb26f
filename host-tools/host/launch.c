/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/launch.h"
#include "error.h"
#include "host/process.h"
#include "host/qemu-group.h"
#include "host/unix-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PID_NAME "backend.pid"
#define SOCKET_NAME "backend.sock"
#define CONTROL_NAME "control.sock"

/* libvirt waits for its hook without a limit of its own, and so does a VM's start. A back-end listens within 10 ms. */
#define LISTEN_TIMEOUT_MS 10000
#define LISTEN_POLL_MS 2
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

static gboolean fail (GError **error, int code, const char *format, ...) G_GNUC_PRINTF (3, 4);

static gboolean
fail (GError **error, int code, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, CTL_ERROR, code, text);
  return FALSE;
}

static gboolean
fail_errno (GError **error, const char *doing, const char *path) {
  const int code = errno;

  return fail (error, code == EACCES || code == EPERM ? CTL_ERROR_ACCESS : CTL_ERROR_FAILED, "can't %s %s: %s; %s", doing, path,
               g_strerror (code), code == EACCES || code == EPERM ? "do it as root" : "look at what is there");
}

/* ---- names ---- */

char *
launch_folder (const char *uuid) {
  return g_build_filename (launch_rundir (), "vm", uuid, NULL);
}

char *
launch_socket_path (const char *uuid) {
  return g_build_filename (launch_rundir (), "vm", uuid, SOCKET_NAME, NULL);
}

char *
launch_control_path (const char *uuid) {
  return g_build_filename (launch_rundir (), "vm", uuid, CONTROL_NAME, NULL);
}

/* A domain's name can hold blanks, slashes' look-alikes and anything else that a file's name had better not. */
char *
launch_log_path (const DomainIdentity *identity) {
  g_autofree char *name = g_strndup (identity->name, LOG_NAME_BYTES_MAX);
  g_autofree char *file = NULL;

  g_strcanon (name, G_CSET_A_2_Z G_CSET_a_2_z G_CSET_DIGITS "._+-", '_');
  if (*name == '.')
    *name = '_';
  /* What was changed may be the same as another VM's now. */
  file = strcmp (name, identity->name) == 0 ? g_strdup_printf ("%s.log", name)
                                            : g_strdup_printf ("%s-%s.log", name, identity->uuid);
  return g_build_filename (launch_logdir (), file, NULL);
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
    fail_errno (error, "make the folder", name);
    return -1;
  }
  fd = openat (parent_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) {
    fail_errno (error, "open the folder", name);
    return -1;
  }
  if (fstat (fd, &st) < 0 || (made && fchmod (fd, mode) < 0)) {
    fail_errno (error, "use the folder", name);
  } else if (st.st_uid != geteuid () || (st.st_mode & (S_IWGRP | S_IWOTH))) {
    fail (error, CTL_ERROR_REFUSED, "the folder %s can be written by others than root; remove it, it is made again", name);
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
    fail_errno (error, "open the file .lock in", launch_rundir ());
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
  fail (error, CTL_ERROR_FAILED, "another %s did not end within %d s; try again", what, LOCK_TIMEOUT_MS / 1000);
  close (fd);
  return -1;
}

int
launch_lock_plug (const char *uuid, GError **error) {
  const int vm_fd = open_vm_folder (TRUE, error);
  const int fd = vm_fd < 0 ? -1 : lock (vm_fd, LOCK_PLUG_OFFSET + lock_byte (uuid), "attach or detach of it", error);

  if (vm_fd >= 0)
    close (vm_fd);
  return fd;
}

/* What a VM has on the host, while it is locked. */
typedef struct {
  const char *uuid;
  char *socket_path, *argument; /* argument: of the back-end, no other process has it */
  int vm_fd, lock_fd, folder_fd;
  Process process;
} Place;

static void
place_clear (Place *place) {
  process_clear (&place->process);
  g_free (place->socket_path);
  g_free (place->argument);
  if (place->folder_fd >= 0)
    close (place->folder_fd);
  if (place->lock_fd >= 0)
    close (place->lock_fd);
  if (place->vm_fd >= 0)
    close (place->vm_fd);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Place, place_clear)

#define PLACE_NONE ((Place){ .vm_fd = -1, .lock_fd = -1, .folder_fd = -1, .process = PROCESS_NONE })

/* Locks the VM and opens its folder. FALSE without error set (make FALSE): there is none. */
static gboolean
place_open (Place *place, const char *uuid, gboolean make, GError **error) {
  place->uuid = uuid;
  place->socket_path = launch_socket_path (uuid);
  place->argument = g_strdup_printf ("--socket-path=%s", place->socket_path);
  place->vm_fd = open_vm_folder (make, error);
  if (place->vm_fd < 0)
    return FALSE;
  if (!make && faccessat (place->vm_fd, uuid, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
    return FALSE;
  place->lock_fd = lock (place->vm_fd, lock_byte (uuid), "start or stop of its back-end", error);
  if (place->lock_fd < 0)
    return FALSE;
  if (!make && faccessat (place->vm_fd, uuid, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
    return FALSE; /* who held the lock has removed it */
  place->folder_fd = open_folder (place->vm_fd, uuid, 0700, make, error);
  if (place->folder_fd < 0)
    return FALSE;
  process_find (place->folder_fd, PID_NAME, place->argument, &place->process);
  return TRUE;
}

/* ---- ending ---- */

/* Whether the back-end has a connection and goes on having it. */
static gboolean
stays_connected (const Place *place) {
  const gint64 deadline = g_get_monotonic_time () + launch_patience_ms (DISCONNECT_TIMEOUT_MS) * (gint64)1000;

  while (unix_socket_state (place->socket_path) & UNIX_SOCKET_CONNECTED) {
    if (g_get_monotonic_time () > deadline)
      return TRUE;
    if (process_wait (&place->process, DISCONNECT_POLL_MS))
      return FALSE;
  }
  return FALSE;
}

/* Ends our back-end, if there is one and it serves no living QEMU. */
static gboolean
end_backend (Place *place, GError **error) {
  pid_t qemu;

  if (place->process.pidfd < 0)
    return TRUE;
  if (stays_connected (place) && (qemu = process_find_qemu (place->uuid, place->socket_path)))
    return fail (error, CTL_ERROR_REFUSED,
                 "its back-end (process %d) serves a running QEMU (process %d); end that first, the back-end ends with it",
                 (int)place->process.pid, (int)qemu);
  if (!process_end (&place->process, launch_patience_ms (TERM_TIMEOUT_MS), KILL_TIMEOUT_MS))
    return fail (error, CTL_ERROR_FAILED,
                 "its back-end (process %d) does not end, it hangs in the kernel; look at /proc/%d/stack",
                 (int)place->process.pid, (int)place->process.pid);
  process_clear (&place->process);
  return TRUE;
}

static void
remove_files (const Place *place) {
  static const char *const names[] = { SOCKET_NAME, CONTROL_NAME, PID_NAME, PID_NAME ".new" };

  for (size_t i = 0; i < G_N_ELEMENTS (names); i++)
    unlinkat (place->folder_fd, names[i], 0);
}

static gboolean
remove_folder (const Place *place, GError **error) {
  g_autofree char *folder = launch_folder (place->uuid);

  remove_files (place);
  return unlinkat (place->vm_fd, place->uuid, AT_REMOVEDIR) == 0 || errno == ENOENT
         || fail_errno (error, "remove the folder", folder);
}

/* Somebody else than a back-end of ours listens, and goes on listening: what a back-end that was killed had begun to start may
 * have its socket for a moment. */
static gboolean
is_foreign (const Place *place) {
  const gint64 deadline = g_get_monotonic_time () + FOREIGN_TIMEOUT_MS * (gint64)1000;

  if (place->process.pidfd >= 0)
    return FALSE;
  while (unix_socket_state (place->socket_path) & UNIX_SOCKET_LISTENS) {
    if (g_get_monotonic_time () > deadline)
      return TRUE;
    g_usleep (LISTEN_POLL_MS * 1000);
  }
  return FALSE;
}

gboolean
launch_stop (const char *uuid, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GError) local = NULL;

  if (!place_open (&place, uuid, FALSE, &local)) {
    if (!local)
      return TRUE;
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  return is_foreign (&place) || (end_backend (&place, error) && remove_folder (&place, error));
}

pid_t
launch_pid (const char *uuid) {
  g_autofree char *folder = launch_folder (uuid);
  g_autofree char *socket_path = launch_socket_path (uuid);
  g_autofree char *argument = g_strdup_printf ("--socket-path=%s", socket_path);
  const int fd = open (folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  g_auto (Process) process = PROCESS_NONE;

  if (fd < 0)
    return 0;
  process_find (fd, PID_NAME, argument, &process);
  close (fd);
  return process.pid;
}

pid_t
launch_last_pid (const char *uuid) {
  g_autofree char *folder = launch_folder (uuid);
  const int fd = open (folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  pid_t pid;

  if (fd < 0)
    return 0;
  pid = process_last_pid (fd, PID_NAME);
  close (fd);
  return pid;
}

/* ---- starting ---- */

/* Printable text of 1 to 255 bytes, as the back-end wants it. */
static char *
printable_name (const DomainIdentity *identity) {
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

/* Only numbers, words of ours and compiled-in paths; and the name, which nothing but logs see. */
static GPtrArray *
make_arguments (const Place *place, const DomainIdentity *identity, const DomainMemory *memory, gid_t gid) {
  GPtrArray *arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *control_path = launch_control_path (identity->uuid);
  g_autofree char *name = printable_name (identity);

  g_ptr_array_add (arguments, g_strdup (launch_program ()));
  g_ptr_array_add (arguments, g_strdup ("--standalone"));
  g_ptr_array_add (arguments, g_strdup ("--once"));
  g_ptr_array_add (arguments, g_strdup_printf ("--name=%s", name));
  g_ptr_array_add (arguments, g_strdup_printf ("--window=%" G_GUINT64_FORMAT, memory->window_bytes));
  g_ptr_array_add (arguments, g_strdup_printf ("--local-max=%" G_GUINT64_FORMAT, memory->local_max_bytes));
  g_ptr_array_add (arguments, g_strdup_printf ("--grant=%s", memory->populate ? "populate" : "reserve"));
  if (memory->numa_node >= 0)
    g_ptr_array_add (arguments, g_strdup_printf ("--numa-node=%d", memory->numa_node));
  g_ptr_array_add (arguments, g_strdup (place->argument));
  g_ptr_array_add (arguments, g_strdup_printf ("--socket-group=%u", (unsigned)gid));
  g_ptr_array_add (arguments, g_strdup ("--socket-mode=0660"));
  g_ptr_array_add (arguments, g_strdup_printf ("--control-path=%s", control_path));
  g_ptr_array_add (arguments, g_strdup_printf ("--host-account=%s/host-account", launch_rundir ()));
  g_ptr_array_add (arguments, NULL);
  return arguments;
}

static int
open_log (const DomainIdentity *identity, GError **error) {
  g_autofree char *path = launch_log_path (identity);
  struct stat st;
  int fd;

  if (g_mkdir_with_parents (launch_logdir (), 0750) < 0) {
    fail_errno (error, "make the folder", launch_logdir ());
    return -1;
  }
  fd = open (path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0640);
  if (fd < 0) {
    fail_errno (error, "open the log", path);
    return -1;
  }
  if (fstat (fd, &st) < 0 || !S_ISREG (st.st_mode)) {
    close (fd);
    fail (error, CTL_ERROR_FAILED, "the log %s is not a file; remove it", path);
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

static gboolean
wait_until_it_listens (Place *place, int log_fd, off_t log_from, const char *log_path, GError **error) {
  const gint64 deadline = g_get_monotonic_time () + launch_patience_ms (LISTEN_TIMEOUT_MS) * (gint64)1000;

  while (!(unix_socket_state (place->socket_path) & UNIX_SOCKET_LISTENS)) {
    if (process_wait (&place->process, LISTEN_POLL_MS)) {
      g_autofree char *said = last_line (log_fd, log_from);

      return fail (error, CTL_ERROR_FAILED, "its back-end ended at once: %s; see %s", said, log_path);
    }
    if (g_get_monotonic_time () > deadline)
      return fail (error, CTL_ERROR_FAILED, "its back-end does not listen after %d s; see %s", LISTEN_TIMEOUT_MS / 1000,
                   log_path);
  }
  return TRUE;
}

static gboolean
start_backend (Place *place, const DomainIdentity *identity, const char *const *arguments, gid_t gid, GError **error) {
  /* C.UTF-8: the name is UTF-8, and libvirt runs its hooks in the C locale. */
  static const char *const environment[]
      = { "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", NULL };
  g_autofree char *log_path = launch_log_path (identity);
  gboolean ok;
  off_t log_from;
  int log_fd;

  remove_files (place);
  if (fchown (place->folder_fd, geteuid (), gid) < 0 || fchmod (place->folder_fd, 0750) < 0)
    return fail_errno (error, "give to QEMU's group the folder", identity->uuid);
  log_fd = open_log (identity, error);
  if (log_fd < 0)
    return FALSE;
  log_start (log_fd, arguments);
  log_from = lseek (log_fd, 0, SEEK_END);
  ok = process_spawn (arguments, environment, log_fd, place->folder_fd, PID_NAME, &place->process, error)
       && wait_until_it_listens (place, log_fd, log_from, log_path, error);
  close (log_fd);
  return ok;
}

/* It runs with these options, and no QEMU has come yet. With --once one whose QEMU has gone is about to end: it gets a moment
 * for that. */
static gboolean
is_fresh (const Place *place, const char *const *arguments) {
  return place->process.pidfd >= 0 && process_has_arguments (&place->process, arguments)
         && unix_socket_state (place->socket_path) == UNIX_SOCKET_LISTENS && !process_wait (&place->process, 20)
         && unix_socket_state (place->socket_path) == UNIX_SOCKET_LISTENS;
}

gboolean
launch_start (const DomainIdentity *identity, const DomainMemory *memory, const char *dac_label, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GPtrArray) arguments = NULL;
  gid_t gid;

  if (!qemu_group_find (dac_label, &gid, error) || !place_open (&place, identity->uuid, TRUE, error))
    return FALSE;
  if (is_foreign (&place))
    return TRUE;
  arguments = make_arguments (&place, identity, memory, gid);
  if (is_fresh (&place, (const char *const *)arguments->pdata))
    return TRUE;
  if (!end_backend (&place, error))
    return FALSE;
  if (start_backend (&place, identity, (const char *const *)arguments->pdata, gid, error))
    return TRUE;
  if (end_backend (&place, NULL))
    remove_folder (&place, NULL);
  return FALSE;
}
