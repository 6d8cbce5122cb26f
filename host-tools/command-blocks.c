/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/picture.h"
#include "ctl/resize-run.h"
#include "ctl/term.h"
#include "ctl/text.h"
#include "ctl/vm.h"

#include <unistd.h>

#define ROWS_MOST 16
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
json_picture (Ctl *ctl, const Vm *vm, const VmStatus *status, const Picture *picture) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
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

gboolean
command_blocks (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autoptr (ControlClient) client = NULL;
  g_autoptr (Vm) vm = NULL;
  Picture picture = { 0 };
  int columns, lines;
  VmStatus status;

  if (!ctl_parse (ctl, NULL, &argc, &argv, 1, 1, error))
    return FALSE;
  vm = vm_open (ctl, argv[0], &client, error);
  if (!vm)
    return FALSE;
  if (!resize_status (client, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  term_size (STDOUT_FILENO, &columns, &lines);
  if (!ask_blocks (client, picture_cells (columns, ROWS_MOST, status.window_blocks), &picture, error)) {
    vm_prefix_error (vm, error);
    vm_status_clear (&status);
    return FALSE;
  }
  json_picture (ctl, vm, &status, &picture);
  print_picture (ctl, vm, &status, &picture, columns);
  g_free ((gpointer)picture.granted);
  vm_status_clear (&status);
  return TRUE;
}
