/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "error.h"
#include "host/launch-place.h"
#include "host/qemu-group.h"

#include <fcntl.h>
#include <unistd.h>

#define PID_NAME "backend.pid"
#define SOCKET_NAME "backend.sock"
#define CONTROL_NAME "control.sock"

static const char *const files[] = { SOCKET_NAME, CONTROL_NAME, PID_NAME, PID_NAME ".new", NULL };
static const PlaceKind kind = { "back-end", PID_NAME, files };

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

char *
launch_log_path (const DomainIdentity *identity) {
  return place_log_path (identity, ".log");
}

int
launch_lock_plug (const char *uuid, GError **error) {
  return place_lock_plug (uuid, error);
}

/* ---- ending ---- */

static gboolean
open_place (Place *place, const char *uuid, gboolean make, GError **error) {
  place->sockets[0] = launch_socket_path (uuid);
  place->greeter = launch_control_path (uuid);
  place->argument = g_strdup_printf ("--socket-path=%s", place->sockets[0]);
  return place_open (place, &kind, uuid, make, error);
}

gboolean
launch_stop (const char *uuid, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GError) local = NULL;

  if (!open_place (&place, uuid, FALSE, &local)) {
    if (!local)
      return TRUE;
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  return place_is_foreign (&place) || (place_end_process (&place, error) && place_remove (&place, error));
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

/* Only numbers, words of ours and compiled-in paths; and the name, which nothing but logs see. */
static GPtrArray *
make_arguments (const Place *place, const DomainIdentity *identity, const DomainMemory *memory, gid_t gid) {
  GPtrArray *arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *control_path = launch_control_path (identity->uuid);
  g_autofree char *name = place_printable_name (identity);

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

gboolean
launch_start (const DomainIdentity *identity, const DomainMemory *memory, const char *dac_label, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GPtrArray) arguments = NULL;
  g_autofree char *log_path = launch_log_path (identity);
  gid_t gid;

  if (!qemu_group_find (dac_label, &gid, error) || !open_place (&place, identity->uuid, TRUE, error))
    return FALSE;
  if (place_is_foreign (&place))
    return TRUE;
  arguments = make_arguments (&place, identity, memory, gid);
  if (place_is_fresh (&place, (const char *const *)arguments->pdata))
    return TRUE;
  if (!place_end_process (&place, error))
    return FALSE;
  if (place_start (&place, (const char *const *)arguments->pdata, log_path, gid, error))
    return TRUE;
  if (place_end_process (&place, NULL))
    place_remove (&place, NULL);
  return FALSE;
}
