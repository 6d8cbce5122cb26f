/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-describe.h"
#include "ctl/term.h"

#include <unistd.h>

static void
print_names (Ctl *ctl, GPtrArray *vms) {
  for (unsigned i = 0; i < vms->len; i++) {
    g_autofree char *line = g_strdup_printf ("%s\n", ((const Vm *)vms->pdata[i])->label);

    ctl_print (ctl, line);
  }
}

static void
print_table (Ctl *ctl, GPtrArray *vms) {
  g_autoptr (TextTable) table = vm_table_new (vms);
  g_autofree char *text = NULL;
  int columns, lines;

  term_size (STDOUT_FILENO, &columns, &lines);
  text = text_table_format (table, columns);
  ctl_print (ctl, text);
}

gboolean
command_list (Ctl *ctl, int argc, char **argv, GError **error) {
  gboolean all = FALSE, names = FALSE;
  const GOptionEntry entries[] = {
    { "all", 'a', 0, G_OPTION_ARG_NONE, &all, "Show every domain, with the device or without", NULL },
    { "names", 0, 0, G_OPTION_ARG_NONE, &names, "Print names only, one a line", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (ctl_connect_t) connection = NULL;
  g_autoptr (GPtrArray) vms = NULL;
  JsonBuilder *builder;

  if (!ctl_parse (ctl, entries, &argc, &argv, 0, 0, error))
    return FALSE;
  connection = ctl_connect (ctl, CTL_READS, error);
  vms = connection ? vm_gather (connection, all, error) : NULL;
  if (!vms)
    return FALSE;
  if (!names)
    vm_ask_all (vms);
  builder = ctl_json (ctl);
  if (builder) {
    json_builder_set_member_name (builder, "domains");
    json_builder_begin_array (builder);
    for (unsigned i = 0; i < vms->len; i++)
      vm_json (ctl, vms->pdata[i]);
    json_builder_end_array (builder);
  }
  if (names) {
    print_names (ctl, vms);
    return TRUE;
  }
  if (vms->len)
    print_table (ctl, vms);
  else
    ctl_say (ctl, all ? "There are no domains."
                      : "No domain has the memory device; 'domybsctl attach DOMAIN' gives it to one, 'list --all' shows all.");
  vm_warn (ctl, vms);
  return TRUE;
}
