/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host's side of a VM: QMP, the control socket, and measurements that trust neither. */
#include "vm-internal.h"
#include "testing.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMMAND_SECONDS 60.0
#define POLL_US 50000
#define CONTROL_TRIES 10
#define WORKER_SECONDS 20.0 /* for the next one to be there, however busy the machine is */

/* ---- QMP and control ---- */

static JsonNode *
execute (Qmp *qmp, GError **error, const char *format, va_list arguments) {
  g_autofree char *command = g_strdup_vprintf (format, arguments);

  return qmp_execute (qmp, command, COMMAND_SECONDS, error);
}

JsonNode *
vm_qmp_try (Vm *vm, GError **error, const char *format, ...) {
  JsonNode *answer;
  va_list arguments;

  g_assert_nonnull (vm->qmp);
  va_start (arguments, format);
  answer = execute (vm->qmp, error, format, arguments);
  va_end (arguments);
  return answer;
}

JsonNode *
vm_qmp (Vm *vm, const char *format, ...) {
  g_autoptr (GError) error = NULL;
  JsonNode *answer;
  va_list arguments;

  g_assert_nonnull (vm->qmp);
  va_start (arguments, format);
  answer = execute (vm->qmp, &error, format, arguments);
  va_end (arguments);
  if (!answer)
    vm_fail_with (vm, error, "QMP");
  return answer;
}

void
vm_wait_qmp_event (Vm *vm, const char *event, double seconds) {
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonObject) object = qmp_wait_event (vm->qmp, event, seconds, &error);

  if (!object)
    vm_fail_with (vm, error, "QMP");
}

static Qmp *
control (Vm *vm, GError **error) {
  if (!vm->control)
    vm->control = qmp_connect (vm->control_path, FALSE, COMMAND_SECONDS, vm_watch, vm, error);
  return vm->control;
}

/* A worker that goes takes its clients' connections along: the next one is asked again. */
static JsonNode *
ask (Vm *vm, GError **error, const char *format, va_list arguments) {
  g_autofree char *command = g_strdup_vprintf (format, arguments);

  for (int tries = 1;; tries++) {
    g_autoptr (GError) reason = NULL;
    Qmp *qmp = control (vm, &reason);
    JsonNode *answer = qmp ? qmp_execute (qmp, command, COMMAND_SECONDS, &reason) : NULL;

    if (answer)
      return answer;
    if (!g_error_matches (reason, G_IO_ERROR, G_IO_ERROR_CONNECTION_CLOSED) || tries == CONTROL_TRIES) {
      g_propagate_error (error, g_steal_pointer (&reason));
      return NULL;
    }
    g_clear_pointer (&vm->control, qmp_free);
  }
}

JsonNode *
vm_control_try (Vm *vm, GError **error, const char *format, ...) {
  JsonNode *answer;
  va_list arguments;

  va_start (arguments, format);
  answer = ask (vm, error, format, arguments);
  va_end (arguments);
  return answer;
}

JsonNode *
vm_control (Vm *vm, const char *format, ...) {
  g_autoptr (GError) error = NULL;
  JsonNode *answer;
  va_list arguments;

  va_start (arguments, format);
  answer = ask (vm, &error, format, arguments);
  va_end (arguments);
  if (!answer)
    vm_fail_with (vm, error, "the back-end's control socket");
  return answer;
}

gint64
vm_status_number (Vm *vm, const char *member) {
  g_autoptr (JsonNode) status = vm_control (vm, "{\"execute\": \"status\"}");
  JsonObject *object = json_node_get_object (status);

  if (!object || !json_object_has_member (object, member))
    vm_fail (vm, "the back-end's status has no member %s", member);
  return json_object_get_int_member (object, member);
}

/* ---- workers ---- */

static gboolean
is_zombie (const char *pid) {
  g_autofree char *path = g_strdup_printf ("/proc/%s/stat", pid);
  g_autofree char *stat = NULL;
  const char *end;

  if (!g_file_get_contents (path, &stat, NULL, NULL))
    return TRUE;
  end = strrchr (stat, ')');
  return !end || end[1] != ' ' || end[2] == 'Z' || end[2] == 'X';
}

GPid
vm_worker_pid (Vm *vm) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/task/%d/children", vm->backend.pid, vm->backend.pid);
  g_autofree char *children = NULL;
  g_auto (GStrv) pids = NULL;
  GPid worker = 0;

  if (!g_file_get_contents (path, &children, NULL, NULL))
    return 0;
  pids = g_strsplit (g_strchomp (children), " ", -1);
  for (int i = 0; pids[i]; i++)
    if (*pids[i] && !is_zombie (pids[i]))
      worker = (GPid)g_ascii_strtoll (pids[i], NULL, 10);
  return worker;
}

static gint64
worker_number (Vm *vm, const char *member) {
  g_autoptr (JsonNode) status = vm_control (vm, "{\"execute\": \"status\"}");
  JsonObject *object = json_node_get_object (status);

  return json_object_get_int_member (json_object_get_object_member (object, "worker"), member);
}

gint64
vm_worker_deaths (Vm *vm) {
  if (!vm_process_runs (&vm->backend))
    return 0;
  return worker_number (vm, "deaths") - vm->shots;
}

struct VmShot {
  Vm *vm;
  GThread *thread;
  GPid pid;
  guint after_us;
  gint64 starts; /* workers that there had been */
  gint64 fired;
};

/* One that is to stay: after some deaths that came too soon a worker only keeps the guest waiting, and is replaced after a while. */
static gboolean
aim (Vm *vm, VmShot *shot) {
  g_autoptr (JsonNode) status = vm_control (vm, "{\"execute\": \"status\"}");
  JsonObject *worker = json_object_get_object_member (json_node_get_object (status), "worker");

  shot->pid = (GPid)json_object_get_int_member (worker, "pid");
  shot->starts = json_object_get_int_member (worker, "starts");
  return strcmp (json_object_get_string_member (worker, "mode"), "normal") == 0;
}

static gpointer
fire (gpointer data) {
  VmShot *shot = data;

  g_usleep (shot->after_us);
  shot->fired = g_get_monotonic_time ();
  return GINT_TO_POINTER (kill (shot->pid, SIGKILL));
}

VmShot *
vm_shoot_worker (Vm *vm, gboolean held, guint after_us) {
  VmShot *shot = g_new0 (VmShot, 1);

  *shot = (VmShot){ .vm = vm, .after_us = after_us };
  vm_expect_within (vm, WORKER_SECONDS, aim (vm, shot));
  if (held && !testing_stop (shot->pid))
    vm_fail (vm, "the worker %d has gone", (int)shot->pid);
  shot->thread = g_thread_new ("shot", fire, shot);
  return shot;
}

double
vm_shot_wait (VmShot *shot) {
  Vm *vm = shot->vm;
  double seconds;

  if (GPOINTER_TO_INT (g_thread_join (shot->thread)))
    vm_fail (vm, "the worker %d had ended already", (int)shot->pid);
  vm->shots++;
  vm_expect_within (vm, WORKER_SECONDS, worker_number (vm, "starts") > shot->starts);
  seconds = (double)(g_get_monotonic_time () - shot->fired) / G_USEC_PER_SEC;
  g_free (shot);
  return seconds;
}

/* ---- measurements ---- */

/* Calls with the path of each open file of a process of the back-end; returns how many there are. */
static guint
for_each_fd (Vm *vm, GPid pid, void (*call) (const char *path, gpointer data), gpointer data) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/fd", pid);
  g_autoptr (GDir) fds = g_dir_open (folder, 0, NULL);
  const char *name;
  guint count = 0;

  if (!fds)
    vm_fail (vm, "the back-end has gone: no %s", folder);
  while ((name = g_dir_read_name (fds))) {
    g_autofree char *path = g_build_filename (folder, name, NULL);

    if (call)
      call (path, data);
    count++;
  }
  return count;
}

static void
add_window_bytes (const char *path, gpointer data) {
  guint64 *most = data;
  g_autofree char *target = g_file_read_link (path, NULL);
  struct stat st;

  /* the guest's boot memory is a memfd, too, which QEMU has passed to the back-end, and so is the worker's state */
  if (target && g_str_has_prefix (target, "/memfd:domybs-window") && stat (path, &st) == 0)
    *most = MAX (*most, (guint64)st.st_blocks * 512);
}

guint64
vm_host_memfd_bytes (Vm *vm) {
  guint64 bytes = 0;

  for_each_fd (vm, vm->backend.pid, add_window_bytes, &bytes);
  return bytes;
}

guint
vm_backend_fds (Vm *vm) {
  const GPid worker = vm_worker_pid (vm);

  return for_each_fd (vm, vm->backend.pid, NULL, NULL) + (worker ? for_each_fd (vm, worker, NULL, NULL) : 0);
}

static guint64
rss (Vm *vm, GPid pid) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/statm", pid);
  g_autofree char *text = NULL;
  g_auto (GStrv) fields = NULL;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    vm_fail (vm, "the back-end has gone: no %s", path);
  fields = g_strsplit (text, " ", -1);
  g_assert_cmpuint (g_strv_length (fields), >=, 2);
  return g_ascii_strtoull (fields[1], NULL, 10) * (guint64)sysconf (_SC_PAGESIZE);
}

guint64
vm_backend_rss (Vm *vm) {
  const GPid worker = vm_worker_pid (vm);

  return rss (vm, vm->backend.pid) + (worker ? rss (vm, worker) : 0);
}

GPid
vm_backend_pid (Vm *vm) {
  return vm->backend.pid;
}

GPid
vm_qemu_pid (Vm *vm) {
  return vm->qemu.pid;
}

char *
vm_kernel_complaints (Vm *vm) {
  static const char *const signs[] = {
    "WARNING: ", "BUG: ",     "kernel BUG at",         "Oops",        "Kernel panic", "general protection fault", "KASAN: ",
    "UBSAN:",    "Bad page ", "blocked for more than", "refcount_t: "
  };
  g_autofree char *console = NULL;
  g_autoptr (GString) complaints = g_string_new (NULL);
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (vm->serial, &console, NULL, NULL))
    return NULL;
  lines = g_strsplit (console, "\n", -1);
  for (int i = 0; lines[i]; i++)
    for (guint sign = 0; sign < G_N_ELEMENTS (signs); sign++)
      if (strstr (lines[i], signs[sign])) {
        g_string_append_printf (complaints, "%s\n", g_strchomp (lines[i]));
        break;
      }
  return complaints->len ? g_string_free (g_steal_pointer (&complaints), FALSE) : NULL;
}

gboolean
vm_wait_until (Vm *vm, VmPredicate predicate, gpointer data, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(vm_patience (seconds) * G_USEC_PER_SEC);

  while (!predicate (vm, data)) {
    if (g_get_monotonic_time () > deadline)
      return FALSE;
    g_usleep (POLL_US);
  }
  return TRUE;
}
