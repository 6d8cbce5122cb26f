/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "operations.h"

#include <string.h>

static void
grant (struct guest *guest) {
  guest_submit_grant (guest, 1, DOMYBS_HINT_ANY, 0, 0, 0);
}

static void
grant_and_release (struct guest *guest) {
  guest_submit_grant (guest, 3, DOMYBS_HINT_LOCAL, DOMYBS_GRANT_F_ALL, 0, 0);
  guest_submit_release (guest, 3, 2);
  guest_submit_stats (guest, 2);
}

static void
release (struct guest *guest) {
  if (!guest_submit_release (guest, 4, 2))
    guest_submit_grant (guest, 40, DOMYBS_HINT_ANY, 0, 0, 0);
}

static void
repeat (struct guest *guest) {
  guest_submit_again (guest, 1, false);
  if (guest_has_slot (guest))
    guest_submit_again (guest, 2, true);
}

static void
bye (struct guest *guest) {
  guest_submit_bye (guest);
}

static void
hello (struct guest *guest) {
  guest_submit_hello (guest, g_rand_int (guest->random) | 1ull << 40, 64);
}

static void
pause_requests (struct guest *guest) {
  guest_submit_stats (guest, 1);
  guest_pause (guest, DOMYBS_VQ_REQUEST);
}

static void
pause_events (struct guest *guest) {
  guest_pause (guest, DOMYBS_VQ_EVENT);
}

static void
new_call (struct guest *guest) {
  guest_new_call (guest, DOMYBS_VQ_REQUEST);
}

static void
read_config (struct guest *guest) {
  guest_read_config (guest, false);
}

static void
set_target (struct guest *guest) {
  guest_set_target (guest, true, g_rand_int_range (guest->random, 0, 900));
}

static void
reclaim (struct guest *guest) {
  guest_reclaim (guest, 7);
}

const struct operation operations[] = {
  { "grant", grant },
  { "grant-and-release", grant_and_release },
  { "release", release },
  { "repeat", repeat },
  { "bye", bye },
  { "hello", hello },
  { "pause-requests", pause_requests },
  { "pause-events", pause_events },
  { "memory-table", guest_same_table },
  { "new-call", new_call },
  { "read-config", read_config },
  { "set-target", set_target },
  { "reclaim", reclaim },
  { "reset", guest_reset },
  { "reconnect", guest_reconnect },
};

const size_t n_operations = G_N_ELEMENTS (operations);

const struct operation *
operation_named (const char *name) {
  for (size_t i = 0; i < n_operations; i++)
    if (strcmp (operations[i].name, name) == 0)
      return &operations[i];
  g_error ("there is no operation '%s'", name);
}
