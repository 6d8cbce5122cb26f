/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The borrower's worker dies in each phase of what it does with copies: in the program with crash points, at each of them
 * (DOMYBS_LONG: at its first five passings). A mirror, so that nothing but the donors has the pages; they fail one at a time
 * meanwhile. (test-kill has the same for storage alone; test-donors, points at random.) At last it dies while the leases end.
 */
#include "neighbours.h"
#include "testing.h"

#include "io/crash-point.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define DONORS 3u
#define LATER 5u /* by DOMYBS_LONG: up to the fifth time */

struct stage {
  struct neighbours n;
  volatile struct crash_file *crash;
  char *path;
  unsigned turn, deaths;
};

static void
begin (struct stage *stage, const char *mode) {
  static const char *const arguments[] = { "--donor-away=1", NULL };
  int fd;

  memset (stage, 0, sizeof *stage);
  fd = g_file_open_tmp ("domybs-phases-XXXXXX", &stage->path, NULL);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, (off_t)CRASH_FILE_BYTES_WITH_NONCES), ==, 0);
  stage->crash = mmap (NULL, sizeof *stage->crash, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  g_assert_true (stage->crash != MAP_FAILED);
  close (fd);
  neighbours_lend (&stage->n, DONORS, NULL, false);
  neighbours_borrow (&stage->n, &(struct neighbours_options){ .mode = mode,
                                                              .arguments = arguments,
                                                              .program = g_getenv ("DOMYBS_FAR_CRASH"),
                                                              .crash_file = stage->path });
  for (unsigned d = 0; d < DONORS; d++)
    NEIGHBOURS_UNTIL (neighbours_donor (&stage->n, d, "level") > 0, "it has been lent something");
  load_write_all (&stage->n.load, 0, stage->n.load.n_pages, LOAD_RANDOM);
  neighbours_wait_protected (&stage->n);
}

static void
finish (struct stage *stage) {
  neighbours_wait_protected (&stage->n);
  neighbours_check (&stage->n);
  g_test_message ("%u deaths, %u seals", stage->deaths, (unsigned)stage->crash->nonces);
  g_assert_cmpuint (stage->crash->nonces, >, 0);
  g_assert_cmpuint (stage->crash->nonces_again, ==, 0);
  g_assert_cmpuint (stage->crash->nonces_out_of_range, ==, 0);
  neighbours_end (&stage->n);
  munmap ((void *)stage->crash, sizeof *stage->crash);
  g_unlink (stage->path);
  g_free (stage->path);
}

/* The worker dies where it passes that point for the n-th time from now. */
static void
arm (struct stage *stage, const char *point, unsigned n) {
  __atomic_store_n (&stage->crash->countdown[0], 0, __ATOMIC_SEQ_CST);
  __atomic_store_n (&stage->crash->crashes, 0, __ATOMIC_SEQ_CST);
  g_strlcpy ((char *)stage->crash->only, point, sizeof stage->crash->only);
  __atomic_store_n (&stage->crash->countdown[0], n, __ATOMIC_SEQ_CST);
}

static bool
has_died (struct stage *stage) {
  return __atomic_load_n (&stage->crash->crashes, __ATOMIC_SEQ_CST) > 0;
}

/* ---- phases ---- */

/* A row of writes to all copies. */
static void
do_write (struct stage *stage) {
  struct load *load = &stage->n.load;

  load_write_all (load, 0, load->n_pages / 2, LOAD_RANDOM);
}

/* A donor comes back with nothing: that is noted, and all that it had is made again. */
static void
do_loss (struct stage *stage) {
  const unsigned d = stage->turn++ % DONORS;

  neighbours_wait_protected (&stage->n);
  neighbours_kill (&stage->n, d);
  neighbours_return (&stage->n, d, 0);
  load_run (&stage->n.load, 50);
}

/* The borrower hears of it with its next keep-alive; at once, when it has to attach anew. */
static void
set_size (struct donor *donor, unsigned blocks) {
  g_assert_true (donor_order (donor, "{\"execute\":\"size\",\"arguments\":{\"blocks\":%u}}", blocks));
  donor_kill_worker (donor);
}

/* A donor wants all of it back: copies are made elsewhere, then given back. */
static void
do_revoke (struct stage *stage) {
  const unsigned d = stage->turn++ % DONORS;
  struct donor *donor = stage->n.donors[d];

  neighbours_wait_protected (&stage->n);
  set_size (donor, 0);
  load_run (&stage->n.load, 50);
  NEIGHBOURS_UNTIL (donor_status (donor, "promised-blocks") == 0, "a donor gets its memory back");
  set_size (donor, 64);
  NEIGHBOURS_UNTIL (neighbours_donor (&stage->n, d, "level") > 0, "it lends again");
}

static const struct phase {
  const char *name;
  void (*run) (struct stage *stage);
  const char *points[6];
} phases[] = {
  { "/cluster/phases/write", do_write, { "copies-write", "copies-place", "copies-written" } },
  { "/cluster/phases/loss",
    do_loss,
    { "copies-donor-lost", "copies-incarnation", "copies-donor", "copies-repair", "copies-repaired" } },
  { "/cluster/phases/revoke", do_revoke, { "copies-repair", "copies-place", "copies-repaired", "copies-trim" } },
};

/* A copy that is noted is there, and good: none was ever noted before. */
static void
check (struct stage *stage) {
  neighbours_check (&stage->n);
  for (unsigned d = 0; d < DONORS; d++)
    g_assert_cmpint (neighbours_donor (&stage->n, d, "damaged"), ==, 0);
}

static void
each_point (gconstpointer data) {
  const struct phase *phase = data;
  struct stage stage;

  begin (&stage, "mirror");
  for (unsigned i = 0; i < G_N_ELEMENTS (phase->points) && phase->points[i]; i++)
    for (unsigned n = 1; n <= (g_getenv ("DOMYBS_LONG") ? LATER : 1); n++) {
      arm (&stage, phase->points[i], n);
      phase->run (&stage);
      if (n == 1)
        NEIGHBOURS_UNTIL (has_died (&stage), phase->points[i]);
      load_run (&stage.n.load, 20);
      stage.deaths += (unsigned)stage.crash->crashes;
      arm (&stage, "", 0);
      testing_trace ("%s %u", phase->points[i], n);
      check (&stage);
    }
  finish (&stage);
}

/* ---- the end ---- */

/* It dies when the leases are being ended, and one donor does not answer: the others have nothing of it any more, and that one
 * keeps what it has until its operator says that this VM will not come back. */
static void
end (void) {
  struct neighbours n;
  struct backend *far;
  pid_t worker, hung;

  neighbours_lend (&n, 2, NULL, false);
  neighbours_borrow (&n, &(struct neighbours_options){ .mode = "ssd" });
  load_write_all (&n.load, 0, n.load.n_pages, LOAD_RANDOM);
  neighbours_wait_protected (&n);
  far = n.far->backend;
  worker = backend_wait_worker (far, 0, fe_patience_ms ());
  hung = backend_wait_worker (n.donors[0]->backend, 0, fe_patience_ms ());
  g_assert_true (testing_stop (hung));
  g_assert_cmpint (kill (far->pid, SIGTERM), ==, 0);
  g_assert_true (donor_wait_status (n.donors[1], "used-blocks", 0));
  backend_kill_worker (worker);
  g_assert_true (backend_wait_end (far, NEIGHBOURS_PATIENCE_MS));
  g_test_message ("domybs-far: %s", backend_end_text (far));
  g_assert_cmpint (kill (hung, SIGCONT), ==, 0);
  if (donor_status (n.donors[0], "leases") == 1 && donor_status (n.donors[0], "used-blocks") > 0) {
    g_autoptr (JsonNode) answer = backend_control_again (n.donors[0]->backend, "{\"execute\":\"leases\"}");
    JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");

    object = json_array_get_object_element (json_object_get_array_member (object, "leases"), 0);
    donor_order (n.donors[0], "{\"execute\":\"forget\",\"arguments\":{\"lease\":\"%s\"}}",
                 json_object_get_string_member (object, "lease"));
  }
  neighbours_end (&n); /* waits until donors have nothing of it any more */
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (unsigned i = 0; i < G_N_ELEMENTS (phases); i++)
    g_test_add_data_func (phases[i].name, &phases[i], each_point);
  g_test_add_func ("/cluster/phases/end", end);
  return g_test_run ();
}
