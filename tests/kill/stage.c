/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "stage.h"

#include <glib/gstdio.h>

#include "testing.h"

unsigned
stage_kills (unsigned otherwise) {
  const char *text = g_getenv ("DOMYBS_KILLS");
  guint64 number = otherwise;
  g_autoptr (GError) error = NULL;

  if (text && !g_ascii_string_to_unsigned (text, 10, 0, 10000000, &number, &error))
    g_error ("DOMYBS_KILLS=%s: %s", text, error->message);
  return (unsigned)number;
}

void
stage_begin (struct stage *stage, const char *const *arguments) {
  g_autoptr (GPtrArray) all = g_ptr_array_new_with_free_func (g_free);

  *stage = (struct stage){ .random = testing_rand () };
  stage->directory = g_dir_make_tmp ("domybs-kill-XXXXXX", NULL);
  stage->account_path = g_build_filename (stage->directory, "account", NULL);
  g_ptr_array_add (all, g_strdup ("--window=2G"));
  g_ptr_array_add (all, g_strdup ("--audit-interval=30"));
  g_ptr_array_add (all, g_strdup ("--host-reserve=0"));
  g_ptr_array_add (all, g_strdup_printf ("--host-account=%s", stage->account_path));
  for (; arguments && *arguments; arguments++)
    g_ptr_array_add (all, g_strdup (*arguments));
  g_ptr_array_add (all, NULL);
  stage->backend = backend_start ((const char *const *)all->pdata);
  reaper_start (&stage->reaper, stage->backend);
  stage->guest = guest_new (stage->backend, stage->random);
  stage->guest->account_path = g_strdup (stage->account_path);
  stage->guest->reaper = &stage->reaper;
  reaper_watch (&stage->reaper, &stage->guest->fe->queues[DOMYBS_VQ_REQUEST]);
  guest_begin (stage->guest);
}

void
stage_check (struct stage *stage) {
  int64_t deaths;

  reaper_wait (&stage->reaper);
  deaths = guest_check (stage->guest);
  if (deaths != g_atomic_int_get (&stage->reaper.kills))
    guest_fail (stage->guest, "%" G_GINT64_FORMAT " workers died, %d were killed", deaths, g_atomic_int_get (&stage->reaper.kills));
}

void
stage_end (struct stage *stage) {
  stage_check (stage);
  reaper_stop (&stage->reaper);
  guest_free (stage->guest);
  g_assert_cmpint (backend_stop (stage->backend), ==, 0);
  backend_free (stage->backend);
  g_unlink (stage->account_path);
  g_rmdir (stage->directory);
  g_free (stage->account_path);
  g_free (stage->directory);
  g_rand_free (stage->random);
}

void
stage_report (struct stage *stage) {
  const struct guest *guest = stage->guest;
  g_autofree char *alone = reaper_summary (stage->reaper.blackouts);
  g_autofree char *chains = reaper_summary (stage->reaper.chains);

  g_test_message ("%d kills, %" G_GUINT64_FORMAT " requests: %" G_GUINT64_FORMAT " busy, %" G_GUINT64_FORMAT " repeated, %" G_GUINT64_FORMAT
                  " refused; %" G_GUINT64_FORMAT " sessions, %" G_GUINT64_FORMAT " resets",
                  g_atomic_int_get (&stage->reaper.kills), guest->answered, guest->busy, guest->replayed, guest->refused, guest->hellos,
                  guest->resets);
  g_test_message ("from a kill to the next answer: %s", alone);
  g_test_message ("… of kills in a row: %s", chains);
}

/* ---- what happens ---- */

static bool
once_in (struct stage *stage, unsigned n) {
  return testing_once_in (stage->random, n);
}

/* Some requests, then some answers; what is left in flight meets what comes next. */
static void
requests (struct stage *stage) {
  struct guest *guest = stage->guest;
  const unsigned n = (unsigned)testing_below (stage->random, FE_SLOTS + 1), keep = (unsigned)testing_below (stage->random, 10);

  for (unsigned i = 0; i < n && guest_has_slot (guest); i++)
    guest_submit_random (guest);
  while (guest->n_in_flight > keep)
    if (!guest_take (guest, fe_patience_ms ()))
      guest_fail (guest, "%u requests in flight, and no answer within %d ms", guest->n_in_flight, fe_patience_ms ());
}

static void
other_session (struct stage *stage) {
  struct guest *guest = stage->guest;

  guest_drain (guest); /* a guest that says good-bye must not write to what an answer before it brings */
  if (once_in (stage, 3))
    guest_submit_bye (guest);
  /* what is sent behind it is of no session any more */
  for (unsigned i = 0; i < 3 && guest_has_slot (guest); i++)
    guest_submit_stats (guest, 1);
  if (once_in (stage, 2) && guest_has_slot (guest)) {
    guest_submit_hello (guest, g_rand_int (stage->random) | 1ull << 40, 32u << testing_below (stage->random, 3));
    for (unsigned i = 0; i < 2 && guest_has_slot (guest); i++)
      guest_submit_grant (guest, 3, DOMYBS_HINT_ANY, 0, 0, 0);
  }
  guest_drain (guest);
}

void
stage_act (struct stage *stage) {
  struct guest *guest = stage->guest;
  const unsigned die = (unsigned)testing_below (stage->random, 200);

  guest_look_at_some (guest, 6);
  if (guest->session == 0)
    guest_begin (guest);
  if (die < 150)
    requests (stage);
  else if (die < 158)
    guest_pause (guest, DOMYBS_VQ_REQUEST);
  else if (die < 162)
    guest_pause (guest, DOMYBS_VQ_EVENT);
  else if (die < 168)
    guest_same_table (guest);
  else if (die < 172)
    guest_new_call (guest, (unsigned)testing_below (stage->random, DOMYBS_VQ_COUNT));
  else if (die < 180)
    guest_read_config (guest, once_in (stage, 2));
  else if (die < 186)
    guest_set_target (guest, !once_in (stage, 4), testing_below (stage->random, guest->max_blocks + 1));
  else if (die < 189)
    guest_reclaim (guest, 1 + testing_below (stage->random, 50));
  else if (die < 194)
    other_session (stage);
  else if (die < 198)
    guest_reset (guest);
  else if (once_in (stage, 2))
    guest_reconnect (guest);
}
