/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "error.h"
#include "host/donors.h"
#include "host/launch-place.h"
#include "host/qemu-group.h"

#include <fcntl.h>
#include <unistd.h>

#define PID_NAME "far.pid"
#define CONTROL_NAME "far-control.sock"

static const char *const files[] = { "far-shared.sock", "far-remote.sock", "far-mem-shared.sock", "far-mem-remote.sock",
                                     CONTROL_NAME,      PID_NAME,          PID_NAME ".new",       NULL };
static const PlaceKind kind = { "domybs-far", PID_NAME, files };

char *
launch_far_control_path (const char *uuid) {
  return g_build_filename (launch_rundir (), "vm", uuid, CONTROL_NAME, NULL);
}

char *
launch_far_log_path (const DomainIdentity *identity) {
  return place_log_path (identity, ".far.log");
}

static char *
socket_path (const char *uuid, DomainFarTier tier) {
  g_autofree char *name = domain_far_socket_name (tier);

  return g_build_filename (launch_rundir (), "vm", uuid, name, NULL);
}

/* queues NULL: all disks that there can be. */
static gboolean
open_place (Place *place, const char *uuid, const unsigned *queues, gboolean make, GError **error) {
  unsigned n = 0;

  place->last_socket = launch_far_control_path (uuid);
  place->greeter = g_strdup (place->last_socket);
  place->argument = g_strdup_printf ("--control-socket=%s", place->last_socket);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    if (!queues || queues[tier])
      place->sockets[n++] = socket_path (uuid, tier);
  return place_open (place, &kind, uuid, make, error);
}

gboolean
launch_far_stop (const char *uuid, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GError) local = NULL;

  if (!open_place (&place, uuid, NULL, FALSE, &local)) {
    if (!local)
      return TRUE;
    g_propagate_error (error, g_steal_pointer (&local));
    return FALSE;
  }
  return place_is_foreign (&place) || (place_end_process (&place, error) && place_remove (&place, error));
}

pid_t
launch_far_pid (const char *uuid) {
  g_autofree char *folder = launch_folder (uuid), *control_path = launch_far_control_path (uuid),
                  *argument = g_strdup_printf ("--control-socket=%s", control_path);
  const int fd = open (folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  g_auto (Process) process = PROCESS_NONE;

  if (fd < 0)
    return 0;
  process_find (fd, PID_NAME, argument, &process);
  close (fd);
  return process.pid;
}

/* ---- starting ---- */

/* A folder's file for one disk; NULL: the storage is no folder. */
static char *
file_in_folder (const DomainFar *far, const char *uuid, DomainFarTier tier) {
  g_autofree char *name = NULL;

  if (domain_far_storage_is_nbd (far->storage) || !g_file_test (far->storage, G_FILE_TEST_IS_DIR))
    return NULL;
  name = g_strdup_printf ("%s-%s.far", uuid, domain_far_tier_name (tier));
  return g_build_filename (far->storage, name, NULL);
}

/* As in launch.c, numbers and words of ours, and the storage, which the metadata's reader has checked for commas and the like.
 */
static GPtrArray *
make_arguments (const Place *place, const DomainIdentity *identity, const DomainFar *far, const unsigned *queues,
                gboolean memory_device, gid_t gid) {
  GPtrArray *arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *name = place_printable_name (identity),
                  *wear = far->wear_bytes ? g_strdup_printf (",wear=%" G_GUINT64_FORMAT, far->wear_bytes) : g_strdup (""),
                  *protection = far->protection
                                    ? g_strconcat (",protection=", domain_far_protection_name (far->protection), NULL)
                                    : g_strdup ("");

  g_ptr_array_add (arguments, g_strdup (launch_far_program ()));
  g_ptr_array_add (arguments, g_strdup ("--once"));
  g_ptr_array_add (arguments, g_strdup_printf ("--name=%s", name));
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *socket = socket_path (identity->uuid, tier), *file = file_in_folder (far, identity->uuid, tier);

    if (queues[tier])
      g_ptr_array_add (arguments, g_strdup_printf ("--disk=%s,size=%" G_GUINT64_FORMAT ",queues=%u,socket=%s,storage=%s%s%s",
                                                   domain_far_tier_name (tier), far->bytes[tier], queues[tier], socket,
                                                   file ? file : far->storage, wear, protection));
  }
  host_donors_arguments (arguments);
  if (far->protection == DOMAIN_FAR_PROTECTION_SSD || far->protection == DOMAIN_FAR_PROTECTION_MIRROR)
    g_ptr_array_add (arguments, g_strdup ("--donors-later")); /* it starts without any, too; 'check' says so */
  if (far->compress)
    g_ptr_array_add (arguments, g_strdup ("--compress"));
  if (memory_device) {
    g_autofree char *control_path = launch_control_path (identity->uuid);

    g_ptr_array_add (arguments, g_strconcat ("--memory-device=", control_path, NULL));
  }
  g_ptr_array_add (arguments, g_strdup_printf ("--socket-group=%u", (unsigned)gid));
  g_ptr_array_add (arguments, g_strdup ("--socket-mode=0660"));
  g_ptr_array_add (arguments, g_strdup (place->argument));
  g_ptr_array_add (arguments, NULL);
  return arguments;
}

/* The files in a folder have no use without the process that has them open, and no names from the moment when it does: whatever
 * happens to it, or to the host, they are gone with it. */
static void
unlink_files (const DomainFar *far, const char *uuid) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *file = file_in_folder (far, uuid, tier);

    if (file)
      unlink (file);
  }
}

static gboolean
make_folder (const DomainFar *far, GError **error) {
  if (g_strcmp0 (far->storage, launch_far_folder ()) != 0 || g_mkdir_with_parents (far->storage, 0700) == 0)
    return TRUE;
  return place_fail_errno (error, "make the folder", far->storage);
}

gboolean
launch_far_start (const DomainIdentity *identity, const DomainFar *far, const unsigned queues[DOMAIN_FAR_TIERS],
                  gboolean memory_device, const char *dac_label, GError **error) {
  g_auto (Place) place = PLACE_NONE;
  g_autoptr (GPtrArray) arguments = NULL;
  g_autofree char *log_path = launch_far_log_path (identity);
  gid_t gid;
  gboolean ok, any = FALSE;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    any |= queues[tier] != 0;
  if (!any)
    return TRUE;
  if (!make_folder (far, error) || !qemu_group_find (dac_label, &gid, error)
      || !open_place (&place, identity->uuid, queues, TRUE, error))
    return FALSE;
  if (place_is_foreign (&place))
    return TRUE;
  arguments = make_arguments (&place, identity, far, queues, memory_device, gid);
  if (place_is_fresh (&place, (const char *const *)arguments->pdata))
    return TRUE;
  if (!place_end_process (&place, error))
    return FALSE;
  ok = place_start (&place, (const char *const *)arguments->pdata, log_path, gid, error);
  if (!ok && place_end_process (&place, NULL))
    place_remove (&place, NULL);
  unlink_files (far, identity->uuid);
  return ok;
}
