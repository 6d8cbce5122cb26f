/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk with a wear budget that is used up, as its guest and QEMU see it: writes wait over a worker's death, a pause of the VM
 * does not, nothing is lost. And what the options of wear and prefetch may be, and what status says of both. */
#include "load.h"
#include "testing.h"

#include <string.h>

#define BURST_BYTES (8 << 20) /* of 64 MiB a day */

/* Random writes, until all of them wait for the budget. */
static void
write_until_held (struct load *load) {
  const int64_t end = g_get_monotonic_time () + (int64_t)fe_patience_ms () * 1000;

  do {
    if (g_get_monotonic_time () > end)
      g_error ("it is not held back: %" G_GINT64_FORMAT " of %" G_GINT64_FORMAT " bytes are left, %" G_GINT64_FORMAT
               " were written",
               far_status (load->far, 0, "wear.left-bytes"), far_status (load->far, 0, "wear.burst-bytes"),
               far_status (load->far, 0, "storage-written-bytes"));
    while (load->blk->n_in_flight < load->depth)
      load_begin (load);
    while (load_end_one (load, 20))
      load_begin (load);
  } while (far_status (load->far, 0, "wear.held-wait-ms") == INT64_MIN || far_status (load->far, 0, "waiting") < load->depth);
}

static void
held (void) {
  static const char *const arguments[] = { "--stage=8M", NULL };
  g_autoptr (far_t) far
      = far_start (&(struct far_options){ .bytes = 64ull << 20, .disk_extra = ",wear=64M", .arguments = arguments });
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  load.read_percent = load.discard_percent = 0;
  load.kinds = 1u << LOAD_RANDOM;
  g_assert_cmpint (far_status (far, 0, "wear.day-bytes"), ==, 64 << 20);
  g_assert_cmpint (far_status (far, 0, "wear.burst-bytes"), ==, BURST_BYTES);
  write_until_held (&load);
  g_assert_cmpint (far_status (far, 0, "storage-written-bytes"), <=, BURST_BYTES + (1 << 20)); /* which flows in meanwhile */
  g_assert_cmpint (far_status (far, 0, "wear.left-bytes"), <, 2 << 20);
  g_assert_cmpint (far_status (far, 0, "errors"), ==, 0);

  /* the next worker has no more than this one had */
  far_kill_worker (far);
  load_reconnect (&load);
  write_until_held (&load);
  g_assert_cmpint (far_status (far, 0, "storage-written-bytes"), <=, 1 << 20);
  g_assert_cmpint (far_status (far, 0, "errors"), ==, 0);

  /* a pause, which QEMU's main loop waits for */
  blk_must (load.blk, blk_stop_queues (load.blk));
  blk_must (load.blk, blk_start_queues (load.blk));
  load_drain (&load);
  g_assert_cmpint (far_status (far, 0, "waiting"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "wear.left-bytes"), ==, 0);
  load_check_all (&load);
  write_until_held (&load); /* it holds again */

  /* and a guest that goes away while it waits */
  blk_must (load.blk, blk_stop_queues (load.blk));
  load_drain (&load);
  load_clear (&load);
}

static void
says (void) {
  g_autoptr (far_t) far = far_start (&(struct far_options){ .bytes = 64ull << 20, .n_disks = 1 });
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  g_assert_cmpint (far_status (far, 0, "wear.day-bytes"), ==, INT64_MIN);
  g_assert_cmpint (far_status (far, 0, "prefetch-bytes"), ==, 4 << 20);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  far_kill_worker (far); /* the counters begin anew */
  load_reconnect (&load);
  load_check_all (&load); /* in a row */
  g_assert_cmpint (far_status (far, 0, "prefetched-pages"), >, 0);
  g_assert_cmpint (far_status (far, 0, "prefetch-used-pages"), >, 0);
  g_assert_cmpint (far_status (far, 0, "prefetch-used-pages") + far_status (far, 0, "prefetch-wasted-pages"), <=,
                   far_status (far, 0, "prefetched-pages"));
  g_assert_cmpint (far_status (far, 0, "damaged-pages"), ==, 0);
  load_clear (&load);
}

static void
wrong_options (void) {
  static const char *const wrong[] = { "wear=1M", "wear=x", "wear=-1", "prefetch=100K", "prefetch=2G", "prefetch=x" };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++) {
    g_autofree char *disk = g_strdup_printf ("--disk=shared,size=4M,socket=/nowhere/s,storage=/nowhere/t,%s", wrong[i]);
    g_autofree char *name = g_strndup (wrong[i], strcspn (wrong[i], "=")), *said = g_strdup_printf ("%s='", name), *log = NULL;
    struct far *far = far_start_arguments ((const char *const[]){ "--name=x", disk, NULL });

    g_assert_true (backend_wait_end (far->backend, fe_patience_ms ()));
    log = backend_log_from (far->backend, 0);
    if (!strstr (log, said))
      g_error ("%s: %s", wrong[i], log);
    far_end (far);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/far/budget/held", held);
  g_test_add_func ("/far/budget/says", says);
  g_test_add_func ("/far/budget/wrong-options", wrong_options);
  return g_test_run ();
}
