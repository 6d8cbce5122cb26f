/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domybs-far for one object of a VM: each has its own, so that objects come and go without touching anything else. */
#include "core/object.h"
#include "error.h"
#include "host/launch-place.h"
#include "host/qemu-group.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define PREFIX "object-"
#define PID_SUFFIX ".pid"

/* Names of one object's files; a Place refers to them. */
typedef struct {
  char *what, *pid, *new_pid, *socket, *control;
  const char *files[5];
  PlaceKind kind;
} Names;

static void
names_clear (Names *names) {
  g_free (names->what);
  g_free (names->pid);
  g_free (names->new_pid);
  g_free (names->socket);
  g_free (names->control);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Names, names_clear)

static void
names_set (Names *names, const char *name) {
  names->what = g_strdup_printf ("domybs-far for object '%s'", name);
  names->pid = g_strconcat (PREFIX, name, PID_SUFFIX, NULL);
  names->new_pid = g_strconcat (names->pid, ".new", NULL);
  names->socket = domain_object_socket_name (name);
  names->control = g_strconcat (PREFIX, name, LAUNCH_OBJECT_CONTROL_SUFFIX, NULL);
  names->files[0] = names->socket;
  names->files[1] = names->control;
  names->files[2] = names->pid;
  names->files[3] = names->new_pid;
  names->kind = (PlaceKind){ names->what, names->pid, names->files };
}

/* ---- names ---- */

char *
launch_object_path (const char *name) {
  g_autofree char *file = g_strconcat (name, ".object", NULL);

  return g_build_filename (launch_object_folder (), file, NULL);
}

char *
launch_object_control_path (const char *uuid, const char *name) {
  g_autofree char *file = g_strconcat (PREFIX, name, LAUNCH_OBJECT_CONTROL_SUFFIX, NULL);

  return g_build_filename (launch_rundir (), "vm", uuid, file, NULL);
}

char *
launch_object_log_path (const DomainIdentity *identity, const char *name) {
  g_autofree char *suffix = g_strdup_printf (".object-%s.log", name);

  return place_log_path (identity, suffix);
}

/* A pid file stays until somebody has seen to its process, so that all there can be to stop have one. */
void
launch_object_list (const char *uuid, DomainObjects *ret_objects) {
  g_autofree char *folder = launch_folder (uuid);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *file;

  *ret_objects = (DomainObjects){ 0 };
  while (dir && (file = g_dir_read_name (dir))) {
    g_autofree char *name = NULL;

    if (!g_str_has_prefix (file, PREFIX) || !g_str_has_suffix (file, PID_SUFFIX) || strlen (file) <= strlen (PREFIX PID_SUFFIX))
      continue;
    name = g_strndup (file + strlen (PREFIX), strlen (file) - strlen (PREFIX PID_SUFFIX));
    domain_objects_add (ret_objects, name);
  }
}

/* ---- ending ---- */

static gboolean
open_place (Place *place, const Names *names, const char *uuid, const char *name, gboolean make, GError **error) {
  g_autofree char *folder = launch_folder (uuid);

  place->sockets[0] = g_build_filename (folder, names->socket, NULL);
  place->last_socket = launch_object_control_path (uuid, name);
  place->greeter = g_strdup (place->last_socket);
  place->argument = g_strdup_printf ("--control-socket=%s", place->last_socket);
  return place_open (place, &names->kind, uuid, make, error);
}

gboolean
launch_object_stop (const char *uuid, const char *name, GError **error) {
  g_auto (Names) names = { 0 };
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GError) local = NULL;

  names_set (&names, name);
  if (!open_place (&place, &names, uuid, name, FALSE, &local)) {
    if (!local)
      return TRUE;
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  return place_is_foreign (&place) || (place_end_process (&place, error) && place_remove (&place, error));
}

gboolean
launch_objects_stop (const char *uuid, GError **error) {
  DomainObjects objects;
  gboolean ok = TRUE;

  launch_object_list (uuid, &objects);
  for (unsigned i = 0; i < objects.n; i++)
    ok = launch_object_stop (uuid, objects.items[i].name, ok ? error : NULL) && ok;
  return ok;
}

pid_t
launch_object_pid (const char *uuid, const char *name) {
  g_autofree char *folder = launch_folder (uuid), *control_path = launch_object_control_path (uuid, name),
                  *argument = g_strdup_printf ("--control-socket=%s", control_path),
                  *pid_name = g_strconcat (PREFIX, name, PID_SUFFIX, NULL);
  const int fd = open (folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  g_auto (Process) process = PROCESS_NONE;

  if (fd < 0)
    return 0;
  process_find (fd, pid_name, argument, &process);
  close (fd);
  return process.pid;
}

/* ---- starting ---- */

/* As in launch.c, numbers and words of ours. */
static GPtrArray *
make_arguments (const Place *place, const DomainIdentity *identity, const DomainObject *object, const char *path, gid_t gid) {
  GPtrArray *arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *name = place_printable_name (identity);

  g_ptr_array_add (arguments, g_strdup (launch_far_program ()));
  g_ptr_array_add (arguments, g_strdup ("--once"));
  g_ptr_array_add (arguments, g_strdup_printf ("--name=%s", name));
  g_ptr_array_add (arguments, g_strdup_printf ("--object=%s,file=%s,socket=%s,queues=%u", object->name, path, place->sockets[0],
                                               object->queues));
  g_ptr_array_add (arguments, g_strdup_printf ("--socket-group=%u", (unsigned)gid));
  g_ptr_array_add (arguments, g_strdup ("--socket-mode=0660"));
  g_ptr_array_add (arguments, g_strdup (place->argument));
  g_ptr_array_add (arguments, NULL);
  return arguments;
}

gboolean
launch_object_start (const DomainIdentity *identity, const DomainObject *object, const char *dac_label, GError **error) {
  g_auto (Names) names = { 0 };
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GPtrArray) arguments = NULL;
  g_autofree char *log_path = launch_object_log_path (identity, object->name), *path = launch_object_path (object->name);
  gid_t gid;

  if (access (path, F_OK) < 0 && errno == ENOENT)
    return ctl_fail (
        error, CTL_ERROR_NOT_FOUND,
        "its object '%s' is not on this host; 'domybsctl object import FILE --name %s' makes it, 'domybsctl detach' "
        "with --object %s does without it",
        object->name, object->name, object->name);
  names_set (&names, object->name);
  if (!qemu_group_find (dac_label, &gid, error) || !open_place (&place, &names, identity->uuid, object->name, TRUE, error))
    return FALSE;
  if (place_is_foreign (&place))
    return TRUE;
  arguments = make_arguments (&place, identity, object, path, gid);
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

gboolean
launch_objects_start (const DomainIdentity *identity, const DomainObjects *objects, const char *dac_label, GError **error) {
  for (unsigned i = 0; i < objects->n; i++) {
    if (!objects->items[i].queues || launch_object_start (identity, &objects->items[i], dac_label, error))
      continue;
    launch_objects_stop (identity->uuid, NULL);
    return FALSE;
  }
  return TRUE;
}
