/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/picture.h"
#include "ctl/resize-run.h"
#include "ctl/term.h"
#include "ctl/text.h"
#include "ctl/vm.h"
#include "host/launch.h"

#include <unistd.h>

#define ROWS_MOST 16
#define FAR_ROWS_MOST 8
/* domybs-far's limit */
#define FAR_CELLS_MAX 1024
#define BLOCK_SHIFT 21

/* The back-end's answer, checked. ret_picture->granted is the caller's. */
static gboolean
ask_blocks (ControlClient *client, unsigned cells, Picture *ret_picture, GError **error) {
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonObject) answer = NULL;
  g_autofree guint64 *granted = NULL;
  JsonNode *list;
  Picture picture;

  json_object_set_int_member (arguments, "cells", cells);
  answer = control_client_execute (client, "blocks", arguments, CONTROL_CLIENT_TIMEOUT_MS, error);
  if (!answer)
    return FALSE;
  list = json_object_get_member (answer, "granted");
  picture.window_blocks = (guint64)MAX (json_object_get_int_member_with_default (answer, "window-blocks", 0), 0);
  picture.cell_blocks = (guint64)MAX (json_object_get_int_member_with_default (answer, "cell-blocks", 0), 0);
  picture.n = list && JSON_NODE_HOLDS_ARRAY (list) ? json_array_get_length (json_node_get_array (list)) : 0;
  granted = g_new0 (guint64, MAX (picture.n, 1));
  for (unsigned i = 0; i < picture.n; i++) {
    JsonNode *node = json_array_get_element (json_node_get_array (list), i);

    granted[i] = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64
                     ? (guint64)json_node_get_int (node)
                     : G_MAXUINT64;
  }
  picture.granted = granted;
  if (!picture_is_sane (&picture)) {
    g_set_error (
        error, CTL_ERROR, CTL_ERROR_ACCESS,
        "its back-end's answer makes no sense ('blocks' does not cover the window); its version does not fit this domybsctl");
    return FALSE;
  }
  picture.granted = g_steal_pointer (&granted);
  *ret_picture = picture;
  return TRUE;
}

static void
json_window (Ctl *ctl, const VmStatus *status, const Picture *picture) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  ctl_json_bytes (ctl, "window-bytes", picture->window_blocks << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "granted-bytes", status->granted_blocks << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "used-bytes", status->memfd_bytes);
  ctl_json_bytes (ctl, "cell-bytes", picture->cell_blocks << BLOCK_SHIFT);
  json_builder_set_member_name (builder, "cells-granted-bytes");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < picture->n; i++)
    json_builder_add_int_value (builder, (gint64)(picture->granted[i] << BLOCK_SHIFT));
  json_builder_end_array (builder);
}

static void
print_picture (Ctl *ctl, const Vm *vm, const VmStatus *status, const Picture *picture, int columns) {
  g_autofree char *granted = text_size (status->granted_blocks << BLOCK_SHIFT), *used = text_size_short (status->memfd_bytes);
  g_autofree char *window = text_size (picture->window_blocks << BLOCK_SHIFT);
  g_autofree char *drawing = picture_draw (picture, columns, term_is_utf8 ());

  if (!ctl->quiet)
    ctl_say (ctl, "Domain '%s': %s granted in a window of %s, %s of the host's memory really used", vm->label, granted, window,
             used);
  ctl_print (ctl, drawing);
}

/* ---- far disks ---- */

typedef struct {
  char *tier;
  Picture picture;
} FarPicture;

static void
far_picture_free (FarPicture *far) {
  g_free (far->tier);
  g_free ((gpointer)far->picture.granted);
  g_free (far);
}

/* One disk of the answer; NULL: it makes no sense. */
static FarPicture *
read_disk (JsonNode *node) {
  JsonObject *disk = JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  JsonNode *cells = disk ? json_object_get_member (disk, "in-use") : NULL;
  const char *tier = disk ? json_object_get_string_member_with_default (disk, "tier", NULL) : NULL;
  JsonArray *array = cells && JSON_NODE_HOLDS_ARRAY (cells) ? json_node_get_array (cells) : NULL;
  FarPicture *far;
  guint64 *used;

  if (!tier || !array || json_array_get_length (array) > FAR_CELLS_MAX)
    return NULL;
  used = g_new0 (guint64, MAX (json_array_get_length (array), 1));
  for (unsigned i = 0; i < json_array_get_length (array); i++) {
    JsonNode *element = json_array_get_element (array, i);

    used[i] = JSON_NODE_HOLDS_VALUE (element) && json_node_get_value_type (element) == G_TYPE_INT64
                  ? (guint64)json_node_get_int (element)
                  : G_MAXUINT64;
  }
  far = g_new0 (FarPicture, 1);
  far->tier = g_strdup (tier);
  far->picture = (Picture){
    .window_blocks = (guint64)MAX (json_object_get_int_member_with_default (disk, "blocks", 0), 0),
    .cell_blocks = (guint64)MAX (json_object_get_int_member_with_default (disk, "cell-blocks", 0), 0),
    .n = json_array_get_length (array),
    .granted = used,
  };
  if (picture_is_sane (&far->picture))
    return far;
  far_picture_free (far);
  return NULL;
}

/* Of all its far disks; CTL_ERROR_ACCESS. */
static GPtrArray *
ask_far (const Vm *vm, int columns, GError **error) {
  g_autofree char *path = launch_far_control_path (vm->uuid);
  g_autoptr (ControlClient) client = control_client_new (path, CONTROL_CLIENT_TIMEOUT_MS, error);
  g_autoptr (GPtrArray) pictures = g_ptr_array_new_with_free_func ((GDestroyNotify)far_picture_free);
  g_autoptr (JsonObject) answer = NULL;
  JsonObject *arguments;
  JsonNode *disks;

  if (!client)
    return NULL;
  arguments = json_object_new ();
  json_object_set_int_member (arguments, "cells", MIN (picture_cells (columns, FAR_ROWS_MOST, FAR_CELLS_MAX), FAR_CELLS_MAX));
  answer = control_client_execute (client, "blocks", arguments, CONTROL_CLIENT_TIMEOUT_MS, error);
  if (!answer)
    return NULL;
  disks = json_object_get_member (answer, "disks");
  for (unsigned i = 0; disks && JSON_NODE_HOLDS_ARRAY (disks) && i < json_array_get_length (json_node_get_array (disks)); i++) {
    FarPicture *far = read_disk (json_array_get_element (json_node_get_array (disks), i));

    if (far)
      g_ptr_array_add (pictures, far);
  }
  if (pictures->len)
    return g_steal_pointer (&pictures);
  g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS,
               "the answer of its domybs-far makes no sense ('blocks'); its version does not fit this domybsctl");
  return NULL;
}

static guint64
used_bytes (const Picture *picture) {
  guint64 blocks = 0;

  for (unsigned i = 0; i < picture->n; i++)
    blocks += picture->granted[i];
  return blocks << BLOCK_SHIFT;
}

static void
json_far (Ctl *ctl, GPtrArray *pictures) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "far");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < pictures->len; i++) {
    const FarPicture *far = pictures->pdata[i];
    const Picture *picture = &far->picture;

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "tier", far->tier);
    ctl_json_bytes (ctl, "size-bytes", picture->window_blocks << BLOCK_SHIFT);
    ctl_json_bytes (ctl, "blocks-used-bytes", used_bytes (picture));
    ctl_json_bytes (ctl, "cell-bytes", picture->cell_blocks << BLOCK_SHIFT);
    json_builder_set_member_name (builder, "cells-used-bytes");
    json_builder_begin_array (builder);
    for (unsigned k = 0; k < picture->n; k++)
      json_builder_add_int_value (builder, (gint64)(picture->granted[k] << BLOCK_SHIFT));
    json_builder_end_array (builder);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}

static void
print_far (Ctl *ctl, const Vm *vm, GPtrArray *pictures, int columns) {
  for (unsigned i = 0; i < pictures->len; i++) {
    const FarPicture *far = pictures->pdata[i];
    g_autofree char *tier = ctl_escape (far->tier), *used = text_size (used_bytes (&far->picture)),
                    *size = text_size (far->picture.window_blocks << BLOCK_SHIFT),
                    *drawing = picture_draw (&far->picture, columns, term_is_utf8 ());

    ctl_say (ctl, "Domain '%s': far disk '%s' of %s, of which blocks of %s are in use", vm->label, tier, size, used);
    ctl_print (ctl, drawing);
  }
}

static gboolean
far_blocks (Ctl *ctl, const Vm *vm, int columns, GError **error) {
  g_autoptr (GPtrArray) pictures = ask_far (vm, columns, error);

  if (!pictures) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  json_far (ctl, pictures);
  print_far (ctl, vm, pictures, columns);
  return TRUE;
}

/* ---- all ---- */

static gboolean
window_blocks (Ctl *ctl, Vm *vm, int columns, GError **error) {
  g_autoptr (ControlClient) client = vm_connect (vm, error);
  Picture picture = { 0 };
  VmStatus status;

  if (!client)
    return FALSE;
  if (!resize_status (client, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (!ask_blocks (client, picture_cells (columns, ROWS_MOST, status.window_blocks), &picture, error)) {
    vm_prefix_error (vm, error);
    vm_status_clear (&status);
    return FALSE;
  }
  json_window (ctl, &status, &picture);
  print_picture (ctl, vm, &status, &picture, columns);
  g_free ((gpointer)picture.granted);
  vm_status_clear (&status);
  return TRUE;
}

gboolean
command_blocks (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autoptr (ctl_connect_t) connection = NULL;
  g_autoptr (ctl_domain_t) domain = NULL;
  g_autoptr (Vm) vm = NULL;
  gboolean far, window;
  int columns, lines;

  if (!ctl_parse (ctl, NULL, &argc, &argv, 1, 1, error))
    return FALSE;
  connection = ctl_connect (ctl, CTL_READS, error);
  domain = connection ? ctl_domain_find (connection, argv[0], error) : NULL;
  vm = domain ? vm_read (domain, error) : NULL;
  if (!vm)
    return FALSE;
  term_size (STDOUT_FILENO, &columns, &lines);
  far = vm->have_far && vm->id >= 0;
  /* Of a VM with far disks alone the window is nothing to complain about. */
  window = !far || vm->problem || (vm->attached && vm->memory.present);
  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  return (!window || window_blocks (ctl, vm, columns, error)) && (!far || far_blocks (ctl, vm, columns, error));
}
