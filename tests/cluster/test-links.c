/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Wires that are slow, or dead for one kind of connection in one direction (leases or pages, there or back): requests end
 * without an error, by the other copy, and every page is what was written last, also when what was stuck arrives at last.
 */
#include "neighbours.h"
#include "relay.h"
#include "testing.h"

#include <string.h>

static void
begin (struct neighbours *n, Relay **relays, unsigned n_donors, const char *mode) {
  static const char *const arguments[] = { "--donor-away=1", NULL };
  const char *via[NEIGHBOURS_MAX];

  neighbours_lend (n, n_donors, NULL, true);
  for (unsigned d = 0; d < n_donors; d++) {
    relays[d] = relay_new (n->addresses[d]);
    via[d] = relays[d]->address;
  }
  neighbours_borrow (n, &(struct neighbours_options){ .mode = mode, .via = via, .arguments = arguments });
  for (unsigned d = 0; d < n_donors; d++)
    NEIGHBOURS_UNTIL (neighbours_donor (n, d, "level") > 0, "it has been lent something");
  load_write_all (&n->load, 0, n->load.n_pages, LOAD_RANDOM);
  neighbours_wait_protected (n);
}

static void
end (struct neighbours *n, Relay **relays) {
  neighbours_wait_protected (n);
  neighbours_check (n);
  for (unsigned d = 0; d < n->n_donors; d++)
    g_assert_cmpint (donor_status (n->donors[d], "leases"), ==, 1); /* unreachable was never taken for lost */
  neighbours_end (n);
  for (unsigned d = 0; d < n->n_donors; d++)
    relay_free (relays[d]);
}

/* ---- slow ---- */

static const struct slow_case {
  const char *name, *mode;
  unsigned n_donors;
  int ms;
  bool is_long;
} slow_cases[] = {
  { "/cluster/links/100-ms", "ssd", 1, 100, false },
  { "/cluster/links/400-ms-mirror", "mirror", 2, 400, false },
  { "/cluster/links/2-s", "ssd", 1, 2000, true },
  { "/cluster/links/2-s-mirror", "mirror", 2, 2000, true },
};

/* One donor answers late. Which copy is asked is a matter of speed, but that one is tried now and then. */
static void
slow (gconstpointer data) {
  const struct slow_case *one = data;
  Relay *relays[NEIGHBOURS_MAX];
  struct neighbours n;
  int64_t began;

  begin (&n, relays, one->n_donors, one->mode);
  load_check_all (&n.load);
  relay_set (relays[0], delay_ms[RELAY_DOWN], one->ms);
  began = fe_now_ms ();
  n.load.read_percent = 100;
  NEIGHBOURS_UNTIL ((load_run (&n.load, 100), neighbours_copies (&n, "hedges-won") > 0), "another copy was faster");
  g_test_message ("%" G_GUINT64_FORMAT " requests in %d ms with a donor that takes %d ms: %d hedged, %d won", n.load.done,
                  (int)(fe_now_ms () - began), one->ms, (int)neighbours_copies (&n, "hedged"),
                  (int)neighbours_copies (&n, "hedges-won"));
  n.load.read_percent = 40;
  load_run (&n.load, 200);
  neighbours_check (&n);
  g_assert_cmpint (neighbours_copies (&n, "waiting"), ==, 0);
  relay_set (relays[0], delay_ms[RELAY_DOWN], 0);
  load_run (&n.load, 100);
  end (&n, relays);
}

/* ---- dead one way ---- */

/* Each of four donors in its own way, all at the same time: storage has all. */
static void
one_way (void) {
  Relay *relays[NEIGHBOURS_MAX];
  struct neighbours n;

  begin (&n, relays, 4, "ssd");
  for (unsigned d = 0; d < 4; d++)
    g_assert_cmpint (g_atomic_int_get (&relays[d]->knobs->connections[RELAY_LEASE]), >=, 1); /* they are told apart */
  for (unsigned d = 0; d < 4; d++)
    relay_set (relays[d], stalled[d / 2][d % 2], 1);
  load_run (&n.load, 100);
  load_check_all (&n.load);
  /* Pages: noticed when a request is not answered in time */
  for (unsigned d = 0; d < 2; d++)
    NEIGHBOURS_UNTIL ((load_run (&n.load, 50), neighbours_donor (&n, d, "timeouts") > 0), "a dead wire is noticed");
  /* Leases: when two keep-alives have had no answer */
  for (unsigned d = 2; d < 4 && g_getenv ("DOMYBS_LONG"); d++) {
    const int64_t reconnects = neighbours_donor (&n, d, "reconnects");

    NEIGHBOURS_UNTIL ((load_run (&n.load, 50), neighbours_donor (&n, d, "reconnects") > reconnects), "a dead wire is noticed");
  }
  neighbours_check (&n);
  for (unsigned d = 0; d < 4; d++)
    relay_set (relays[d], stalled[d / 2][d % 2], 0);
  load_run (&n.load, 300);
  neighbours_check (&n);
  end (&n, relays);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (unsigned i = 0; i < G_N_ELEMENTS (slow_cases); i++)
    if (!neighbours_leave_out (slow_cases[i].is_long))
      g_test_add_data_func (slow_cases[i].name, &slow_cases[i], slow);
  g_test_add_func ("/cluster/links/one-way", one_way);
  return g_test_run ();
}
