/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/monitor.h"

#include <libvirt/libvirt-qemu.h>
#include <string.h>

static char *
make_command (const char *command, JsonObject *arguments) {
  g_autoptr (JsonNode) root = json_node_new (JSON_NODE_OBJECT);
  JsonObject *object = json_object_new ();

  json_object_set_string_member (object, "execute", command);
  if (arguments)
    json_object_set_object_member (object, "arguments", arguments);
  json_node_take_object (root, object);
  return json_to_string (root, FALSE);
}

/* QEMU's words, if the answer is an error. */
static const char *
refusal (JsonObject *answer) {
  JsonNode *node = json_object_get_member (answer, "error"), *desc;

  if (!node)
    return NULL;
  desc = JSON_NODE_HOLDS_OBJECT (node) ? json_object_get_member (json_node_get_object (node), "desc") : NULL;
  return desc && json_node_get_value_type (desc) == G_TYPE_STRING ? json_node_get_string (desc) : "it does not say why";
}

JsonNode *
monitor_execute (ctl_domain_t *domain, const char *command, JsonObject *arguments, GError **error) {
  const char *label = ctl_domain_label (domain);
  g_autofree char *object = g_strdup_printf ("domain '%s'", label), *line = make_command (command, arguments);
  g_autofree char *text = NULL;
  g_autoptr (JsonNode) root = NULL;
  JsonNode *result;
  const char *why;

  if (virDomainQemuMonitorCommand (domain, line, &text, VIR_DOMAIN_QEMU_MONITOR_COMMAND_DEFAULT) < 0) {
    g_autofree char *what = g_strdup_printf ("QEMU can't be asked for '%s'", command);

    ctl_libvirt_error (error, object, what, "see that it still runs");
    return NULL;
  }
  root = json_from_string (text, NULL);
  if (!root || !JSON_NODE_HOLDS_OBJECT (root)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "%s: QEMU's answer to '%s' makes no sense; see its log in /var/log/libvirt/qemu", object, command);
    return NULL;
  }
  why = refusal (json_node_get_object (root));
  if (why) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "%s: QEMU refuses '%s': %s; see its log in /var/log/libvirt/qemu", object,
                 command, why);
    return NULL;
  }
  result = json_object_get_member (json_node_get_object (root), "return");
  return result ? json_node_copy (result) : json_node_new (JSON_NODE_NULL);
}

/* Whether one of the objects in a list has this string member. */
static gboolean
list_has (JsonNode *list, const char *member, const char *value) {
  JsonArray *array = JSON_NODE_HOLDS_ARRAY (list) ? json_node_get_array (list) : NULL;

  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    JsonNode *element = json_array_get_element (array, i);
    JsonNode *node = JSON_NODE_HOLDS_OBJECT (element) ? json_object_get_member (json_node_get_object (element), member) : NULL;

    if (node && json_node_get_value_type (node) == G_TYPE_STRING && strcmp (json_node_get_string (node), value) == 0)
      return TRUE;
  }
  return FALSE;
}

gboolean
monitor_has_device (ctl_domain_t *domain, const char *id, gboolean *ret_has, GError **error) {
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonNode) list = NULL;

  json_object_set_string_member (arguments, "path", "/machine/peripheral");
  list = monitor_execute (domain, "qom-list", arguments, error);
  if (!list)
    return FALSE;
  *ret_has = list_has (list, "name", id);
  return TRUE;
}

gboolean
monitor_has_chardev (ctl_domain_t *domain, const char *id, gboolean *ret_has, GError **error) {
  g_autoptr (JsonNode) list = monitor_execute (domain, "query-chardev", NULL, error);

  if (!list)
    return FALSE;
  *ret_has = list_has (list, "label", id);
  return TRUE;
}
