/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-args.h"

#include <string.h>

#include "domain.h"

static void
arg_free (DomainArg *arg) {
  g_free (arg->value);
  g_free (arg);
}

GPtrArray *
domain_args (const DomainXml *xml) {
  GPtrArray *args = g_ptr_array_new_with_free_func ((GDestroyNotify)arg_free);
  xmlNode *commandline = domain_xml_child_ns (domain_xml_root (xml), DOMAIN_QEMU_URI, "commandline");

  for (; commandline; commandline = domain_xml_next (commandline)) {
    for (xmlNode *node = domain_xml_child_ns (commandline, DOMAIN_QEMU_URI, "arg"); node; node = domain_xml_next (node)) {
      DomainArg *arg = g_new0 (DomainArg, 1);

      arg->node = node;
      arg->value = domain_xml_attribute (node, "value");
      if (!arg->value)
        arg->value = g_strdup ("");
      g_ptr_array_add (args, arg);
    }
  }
  return args;
}

guint
domain_args_count (const DomainXml *xml) {
  g_autoptr (GPtrArray) args = domain_args (xml);

  return args->len;
}

/* The word that begins at `at`, with doubled commas made single; *ret_next is the begin of the next, or NULL. */
static char *
read_word (const char *at, const char **ret_next) {
  GString *word = g_string_new (NULL);

  for (; *at; at++) {
    if (*at == ',' && *++at != ',')
      break;
    g_string_append_c (word, *at);
  }
  *ret_next = *at ? at : NULL;
  return g_string_free (word, FALSE);
}

char *
domain_arg_value (const char *arg, const char *key) {
  for (const char *at = arg, *next; at; at = next) {
    g_autofree char *word = read_word (at, &next);
    const gsize length = key ? strlen (key) : 0;

    if (!key)
      return g_steal_pointer (&word);
    if (strncmp (word, key, length) == 0 && word[length] == '=')
      return g_strdup (word + length + 1);
  }
  return NULL;
}

static gboolean
is_numa_node (const char *text, int numa_node) {
  guint64 number;

  return numa_node >= 0 && domain_xml_number (text, 0, G_MAXINT, &number) && number == (guint64)numa_node;
}

gboolean
domain_arg_is_ours (const char *option, const char *value, int numa_node) {
  static const struct {
    const char *option, *id;
  } ours[] = {
    { "-device", DOMAIN_PORT_ID },
    { "-device", DOMAIN_DEVICE_ID },
    { "-chardev", DOMAIN_CHARDEV_ID },
    { "-object", DOMAIN_INITIATOR_ID },
  };
  g_autofree char *id = domain_arg_value (value, "id");

  /* Where somebody took the option away, the id alone tells. */
  for (gsize i = 0; id && i < G_N_ELEMENTS (ours); i++)
    if (strcmp (id, ours[i].id) == 0 && (!option || strcmp (option, ours[i].option) == 0))
      return TRUE;
  if (g_strcmp0 (option, "-numa") == 0) {
    g_autofree char *kind = domain_arg_value (value, NULL), *node = domain_arg_value (value, "nodeid"),
                    *source = domain_arg_value (value, "src"), *destination = domain_arg_value (value, "dst");

    if (strcmp (kind, "node") == 0)
      return is_numa_node (node, numa_node);
    return strcmp (kind, "dist") == 0 && (is_numa_node (source, numa_node) || is_numa_node (destination, numa_node));
  }
  return FALSE;
}

const char *
domain_args_option (GPtrArray *args, guint i) {
  const DomainArg *before = i > 0 ? args->pdata[i - 1] : NULL;

  if (!before || before->value[0] != '-')
    return NULL;
  return before->value + (before->value[1] == '-' ? 1 : 0);
}

gboolean
domain_args_have_ours (GPtrArray *args) {
  for (guint i = 0; i < args->len; i++)
    if (domain_arg_is_ours (domain_args_option (args, i), ((DomainArg *)args->pdata[i])->value, -1))
      return TRUE;
  return FALSE;
}

int
domain_args_numa_node (GPtrArray *args) {
  for (guint i = 0; i < args->len; i++) {
    const char *value = ((DomainArg *)args->pdata[i])->value;
    g_autofree char *id = domain_arg_value (value, "id"), *node = domain_arg_value (value, "node");
    guint64 number;

    if (g_strcmp0 (id, DOMAIN_INITIATOR_ID) == 0 && domain_xml_number (node, 0, DOMAIN_NUMA_NODES_MAX - 1, &number))
      return (int)number;
  }
  return -1;
}
