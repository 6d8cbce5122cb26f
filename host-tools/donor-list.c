/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor-list.h"
#include "donor-live.h"
#include "ctl/term.h"
#include "ctl/text.h"

#include <unistd.h>

gboolean
donor_list_add (Ctl *ctl, const HostDonor *donor, GError **error) {
  if (!host_donor_add (donor, error))
    return FALSE;
  ctl_json_string (ctl, "name", donor->name);
  ctl_say (ctl, "VMs that are started from now on may borrow from donor '%s'.", donor->name);
  donor_live_add (ctl, donor);
  return TRUE;
}

gboolean
donor_list_remove (Ctl *ctl, const char *name, int wait_s, GError **error) {
  g_autoptr (GError) reason = NULL;

  /* One that was removed, and that VMs which run have not been able to leave yet, is asked after. */
  if (!host_donor_remove (name, &reason) && !(reason->code == CTL_ERROR_NOT_FOUND && donor_live_is_there (name))) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  ctl_json_string (ctl, "name", name);
  ctl_say (ctl, "VMs that are started from now on do without donor '%s'.", name);
  return donor_live_remove (ctl, name, wait_s, error);
}

static void
json_donor (Ctl *ctl, const HostDonor *donor) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_object (builder);
  ctl_json_string (ctl, "name", donor->name);
  ctl_json_string (ctl, "address", donor->address);
  ctl_json_string (ctl, "psk", donor->psk);
  ctl_json_string (ctl, "identity", donor->identity);
  ctl_json_string (ctl, "domain", donor->domain ? donor->domain : donor->name);
  ctl_json_string (ctl, "size", donor->size);
  ctl_json_string (ctl, "problem", donor->problem);
  json_builder_end_object (builder);
}

gboolean
donor_list_show (Ctl *ctl, GError **error) {
  static const char *const heads[] = { "NAME", "ADDRESS", "DOMAIN", ">SIZE", "KEY", NULL };
  g_autoptr (GPtrArray) donors = host_donors_list ();
  g_autoptr (TextTable) table = text_table_new (heads);
  JsonBuilder *builder = ctl_json (ctl);
  g_autofree char *text = NULL;
  int columns, lines;

  if (builder) {
    json_builder_set_member_name (builder, "donors");
    json_builder_begin_array (builder);
    for (guint i = 0; i < donors->len; i++)
      json_donor (ctl, g_ptr_array_index (donors, i));
    json_builder_end_array (builder);
    return TRUE;
  }
  if (donors->len == 0) {
    ctl_say (ctl, "There are none; 'domybsctl donor add NAME --address=HOST:PORT --psk=FILE' makes one known.");
    return TRUE;
  }
  for (guint i = 0; i < donors->len; i++) {
    const HostDonor *donor = g_ptr_array_index (donors, i);

    text_table_add (table, donor->name, donor->address ? donor->address : "?", donor->domain ? donor->domain : donor->name,
                    donor->size ? donor->size : "any", donor->psk ? donor->psk : "?", NULL);
    if (donor->problem)
      ctl_warn (ctl, "donor '%s' is left out: %s", donor->name, donor->problem);
  }
  term_size (STDOUT_FILENO, &columns, &lines);
  text = text_table_format (table, columns);
  ctl_print (ctl, text);
  return TRUE;
}
