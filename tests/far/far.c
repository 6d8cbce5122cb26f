/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define DEFAULT_BYTES (64ull << 20)

static struct far *
new_far (void) {
  struct far *far = g_new0 (struct far, 1);

  far->backend = backend_new ("domybs-far-XXXXXX", "far-0.sock");
  return far;
}

/* Takes over argv. */
static struct far *
run (struct far *far, GPtrArray *argv, const char *program, const char *crash_file) {
  if (!program)
    program = g_getenv ("DOMYBS_FAR");
  g_assert_nonnull (program);
  g_ptr_array_insert (argv, 0, g_strdup (program));
  g_ptr_array_add (argv, NULL);
  backend_run (far->backend, (const char *const *)argv->pdata, -1, crash_file);
  g_ptr_array_unref (argv);
  return far;
}

struct far *
far_start (const struct far_options *options) {
  const uint64_t bytes = options->bytes ? options->bytes : DEFAULT_BYTES;
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);
  const char *folder = g_getenv ("DOMYBS_FAR_FOLDER");
  struct far *far = new_far ();

  far->n_disks = MAX (options->n_disks, 1u);
  if (options->storage)
    far->storage_path = g_strdup (options->storage);
  else
    far->storage_path = g_strdup_printf ("%s/%d-storage-0", folder ? folder : far->backend->directory, (int)getpid ());
  g_ptr_array_add (argv, g_strdup ("--name=test"));
  g_ptr_array_add (argv, g_strdup_printf ("--control-socket=%s", far->backend->control_path));
  for (unsigned i = 0; i < far->n_disks; i++) {
    g_autofree char *storage = i ? g_strdup_printf ("%s/storage-%u", far->backend->directory, i) : g_strdup (far->storage_path);

    far->socket_paths[i] = g_strdup_printf ("%s/far-%u.sock", far->backend->directory, i);
    g_autofree char *tier = options->tiers ? g_strdup (options->tiers[i]) : g_strdup_printf ("disk%u", i);
    g_ptr_array_add (argv, g_strdup_printf ("--disk=%s,size=%" G_GUINT64_FORMAT ",socket=%s,storage=%s%s", tier, bytes,
                                            far->socket_paths[i], storage, options->disk_extra ? options->disk_extra : ""));
  }
  for (const char *const *argument = options->arguments; argument && *argument; argument++)
    g_ptr_array_add (argv, g_strdup (*argument));
  return run (far, argv, options->program, options->crash_file);
}

struct far *
far_start_arguments (const char *const *arguments) {
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);
  struct far *far = new_far ();

  for (; *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  return run (far, argv, NULL, NULL);
}

void
far_end (struct far *far) {
  int status;

  if (!far)
    return;
  if (backend_is_alive (far->backend)) {
    status = backend_stop (far->backend);
    g_assert_cmpint (status, ==, 0);
  }
  for (unsigned i = 0; i < far->n_disks; i++) {
    g_autofree char *storage = g_strdup_printf ("%s/storage-%u", far->backend->directory, i);

    g_unlink (storage);
    g_unlink (far->socket_paths[i]);
    g_free (far->socket_paths[i]);
  }
  if (far->storage_path)
    g_unlink (far->storage_path);
  g_free (far->storage_path);
  backend_free (far->backend);
  g_free (far);
}

struct blk *
far_connect (struct far *far, unsigned disk) {
  struct blk *blk = blk_new ();

  if (!blk_connect (blk, far->socket_paths[disk])) {
    g_autofree char *log = backend_log_from (far->backend, 0);

    g_error ("disk %u: %s; %s; log:\n%s", disk, blk->fe->why, backend_end_text (far->backend), log);
  }
  return blk;
}

void
far_kill_worker (struct far *far) {
  const pid_t worker = backend_wait_worker (far->backend, 0, fe_patience_ms ());

  g_assert_cmpint (worker, >, 0);
  backend_kill_worker (worker);
  g_assert_cmpint (backend_wait_worker (far->backend, worker, fe_patience_ms ()), >, 0);
}

/* ---- status ---- */

static JsonNode *
find (JsonObject *object, const char *path) {
  g_auto (GStrv) names = g_strsplit (path, ".", -1);
  JsonNode *node = NULL;

  for (char **name = names; *name; name++) {
    node = json_object_get_member (object, *name);
    if (!node || !name[1])
      return node;
    if (!JSON_NODE_HOLDS_OBJECT (node))
      return NULL;
    object = json_node_get_object (node);
  }
  return node;
}

/* disk -1: the top level. Free it. */
static JsonNode *
status_node (struct far *far, int disk, const char *path) {
  g_autoptr (JsonNode) answer = backend_control_again (far->backend, "{\"execute\":\"status\"}");
  JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");
  JsonNode *node;

  g_assert_nonnull (object);
  if (disk >= 0)
    object = json_array_get_object_element (json_object_get_array_member (object, "disks"), (guint)disk);
  node = find (object, path);
  return node ? json_node_copy (node) : NULL;
}

static int64_t
number (JsonNode *node) {
  int64_t value = INT64_MIN;

  if (node && JSON_NODE_HOLDS_VALUE (node))
    value = json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : json_node_get_int (node);

  g_clear_pointer (&node, json_node_unref);
  return value;
}

int64_t
far_status (struct far *far, unsigned disk, const char *path) {
  return number (status_node (far, (int)disk, path));
}

int64_t
far_status_top (struct far *far, const char *path) {
  return number (status_node (far, -1, path));
}

char *
far_status_text (struct far *far, unsigned disk, const char *path) {
  g_autoptr (JsonNode) node = status_node (far, (int)disk, path);

  return node && JSON_NODE_HOLDS_VALUE (node) ? json_node_dup_string (node) : NULL;
}

bool
far_wait_status (struct far *far, unsigned disk, const char *path, int64_t value, int timeout_ms) {
  const int64_t deadline = fe_now_ms () + timeout_ms;

  while (far_status (far, disk, path) != value) {
    if (fe_now_ms () > deadline || !backend_is_alive (far->backend))
      return false;
    g_usleep (5000);
  }
  return true;
}
