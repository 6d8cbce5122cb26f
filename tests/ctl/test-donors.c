/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybsctl donor, against a running domybs-donor with a borrower. */
#include "ctl-scene.h"
#include "donor.h"

#include <glib/gstdio.h>
#include <string.h>

static void
must_say (const char *text, const char *part) {
  if (!strstr (text, part))
    g_error ("no “%s” in:\n%s", part, text);
}

static void
must_fail (Run *run, int code, const char *part) {
  g_assert_cmpint (run->status, ==, code);
  must_say (run->err, part);
}

static void
donors (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autoptr (donor_t) donor
      = donor_start (&(struct donor_options){ .arguments = (const char *const[]){ "--revoke-time=3600", NULL } });
  g_autofree char *socket = g_strdup_printf ("--socket=%s", donor->backend->control_path), *lease = NULL;
  struct borrower one;

  {
    g_auto (Run) status = { 0 }, leases = { 0 };

    scene_run (scene, &status, ARGS ("donor", socket));
    run_must_succeed (&status);
    must_say (status.out, "no TLS: whoever can connect");
    must_say (status.out, "64M of at most 64M (does not follow the host's memory)");
    must_say (status.out, "Lent           0 to 0 far disks");
    scene_run (scene, &leases, ARGS ("donor", "leases", socket));
    run_must_succeed (&leases);
    must_say (leases.out, "Nothing is lent.");
  }
  donor_borrower (donor, 0xab, NULL, &one);
  g_assert_cmpint (borrower_attach (&one, 64), ==, LEASE_OK);
  g_assert_cmpint (borrower_ask (&one, LEASE_GRANT, 16), ==, LEASE_OK);
  for (guint64 block = 0; block < 3; block++)
    g_assert_cmpint (borrower_put (&one, block, 5), ==, 0);
  lease = g_strdup_printf ("%" G_GINT64_MODIFIER "x", one.last.lease);
  {
    g_auto (Run) status = { 0 }, leases = { 0 }, revoke = { 0 }, again = { 0 }, size = { 0 }, restart = { 0 }, after = { 0 };

    scene_run (scene, &status, ARGS ("donor", "status", socket));
    must_say (status.out, "Lent           32M to 1 far disks, 6M of it in use");
    scene_run (scene, &leases, ARGS ("donor", "leases", socket));
    run_must_succeed (&leases);
    must_say (leases.out, "abababab");
    must_say (leases.out, "attached");
    scene_run (scene, &revoke, ARGS ("donor", "revoke", lease, "8M", socket));
    run_must_succeed (&revoke);
    g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_OK);
    g_assert_cmpuint (one.last.revoke_level, ==, 4);
    scene_run (scene, &again, ARGS ("donor", "leases", socket));
    must_say (again.out, "to 8M in ");
    scene_run (scene, &size, ARGS ("donor", "size", "2M", socket));
    run_must_succeed (&size);
    g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_OK);
    g_assert_cmpuint (one.last.revoke_level, ==, 1);
    scene_run (scene, &restart, ARGS ("donor", "restart", socket));
    run_must_succeed (&restart);
    must_say (restart.out, "all that is lent is where it was");
    scene_run (scene, &after, ARGS ("donor", "status", socket));
    must_say (after.out, "2M of at most 2M");
    must_say (after.out, "6M of it in use");
  }
  {
    g_auto (Run) forget = { 0 }, none = { 0 };

    scene_run (scene, &forget, ARGS ("donor", "forget", lease, socket));
    run_must_succeed (&forget);
    g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_UNKNOWN);
    scene_run (scene, &none, ARGS ("donor", "forget", lease, socket));
    must_fail (&none, 1, "there is no lease");
  }
  borrower_leave (&one);
}

/* What neighbours are known; what can't be is refused, and what has become bad is said and left out. */
static void
known (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *folder = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "donors.d", NULL),
                  *key = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "key", NULL),
                  *psk = g_strdup_printf ("--psk=%s", key), *strange = g_build_filename (folder, "strange.conf", NULL);
  static const struct {
    const char *name, *more, *words;
    int code;
  } bad[] = {
    { "a/b", "--address=1.2.3.4:5", "a name has at most", 2 },
    { ".x", "--address=1.2.3.4:5", "a name has at most", 2 },
    { "n2", "--address=1.2.3.4", "none of HOST:PORT", 2 },
    { "n2", "--address=1.2.3.4:0", "none of HOST:PORT", 2 },
    { "n2", "--address=fe80::1:5", "none of HOST:PORT", 2 },
    { "n1", "--address=1.2.3.4:6", "there is one of that name", 4 },
    { "n2", "--address=1.2.3.4:5", "the address of donor 'n1'", 4 },
  };

  {
    g_auto (Run) none = { 0 }, add = { 0 }, list = { 0 };

    scene_run (scene, &none, ARGS ("donor", "list"));
    run_must_succeed (&none);
    must_say (none.out, "There are none");
    g_assert_true (g_file_set_contents_full (key, "a:00112233445566778899aabbccddeeff\n", -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    scene_run (scene, &add, ARGS ("donor", "add", "n1", "--address=1.2.3.4:5", psk, "--domain=rack1", "--size=16G"));
    run_must_succeed (&add);
    scene_run (scene, &list, ARGS ("donor", "list"));
    run_must_succeed (&list);
    must_say (list.out, "n1    1.2.3.4:5  rack1    16G");
  }
  for (unsigned i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_auto (Run) run = { 0 };

    scene_run (scene, &run, ARGS ("donor", "add", bad[i].name, bad[i].more, psk));
    must_fail (&run, bad[i].code, bad[i].words);
  }
  {
    g_auto (Run) missing = { 0 }, open = { 0 }, relative = { 0 }, size = { 0 }, elsewhere = { 0 };

    scene_run (scene, &missing, ARGS ("donor", "add", "n2", psk));
    must_fail (&missing, 2, "--address=HOST:PORT is missing");
    scene_run (scene, &relative, ARGS ("donor", "add", "n2", "--address=1.2.3.4:6", "--psk=key"));
    must_fail (&relative, 2, "no absolute path");
    scene_run (scene, &size, ARGS ("donor", "add", "n2", "--address=1.2.3.4:6", psk, "--size=much"));
    must_fail (&size, 2, "no size of 2M or more");
    scene_run (scene, &elsewhere, ARGS ("donor", "list", psk));
    must_fail (&elsewhere, 2, "are for add");
    {
      g_auto (Run) nobody = { 0 }, broken = { 0 };

      scene_run (scene, &nobody, ARGS ("donor", "add", "n2", "--address=1.2.3.4:6", psk, "--identity=b"));
      must_fail (&nobody, 2, "has no line for b");
      g_assert_true (g_file_set_contents_full (key, "a:00\n", -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
      scene_run (scene, &broken, ARGS ("donor", "add", "n2", "--address=1.2.3.4:6", psk));
      must_fail (&broken, 2, "is not IDENTITY:KEY");
    }
    g_assert_cmpint (g_chmod (key, 0644), ==, 0);
    scene_run (scene, &open, ARGS ("donor", "add", "n2", "--address=1.2.3.4:6", psk));
    must_fail (&open, 2, "chmod 600");
  }
  {
    g_auto (Run) list = { 0 }, remove = { 0 }, again = { 0 };

    g_assert_true (g_file_set_contents (strange, "nonsense", -1, NULL));
    scene_run (scene, &list, ARGS ("donor", "list"));
    g_assert_cmpint (list.status, ==, 0);
    must_say (list.err, "donor 'n1' is left out: its key");
    must_say (list.err, "donor 'strange' is left out: ");
    scene_run (scene, &remove, ARGS ("donor", "remove", "n1"));
    run_must_succeed (&remove);
    scene_run (scene, &again, ARGS ("donor", "remove", "n1"));
    must_fail (&again, 3, "there is none of that name");
  }
  g_unlink (strange);
  g_unlink (key);
  g_rmdir (folder);
}

static void
wrong (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_auto (Run) nobody = { 0 }, action = { 0 }, missing = { 0 }, more = { 0 }, size = { 0 };

  scene_run (scene, &nobody, ARGS ("donor"));
  must_fail (&nobody, 5, "/donor/control.sock");
  scene_run (scene, &action, ARGS ("donor", "dance"));
  must_fail (&action, 2, "there is no 'dance'");
  scene_run (scene, &missing, ARGS ("donor", "revoke", "7"));
  must_fail (&missing, 2, "there are 1 arguments for 2");
  scene_run (scene, &more, ARGS ("donor", "leases", "7"));
  must_fail (&more, 2, "there are 1 arguments for 0");
  scene_run (scene, &size, ARGS ("donor", "size"));
  must_fail (&size, 2, "there are 0 arguments for 1");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/donors/all", donors);
  g_test_add_func ("/donors/known", known);
  g_test_add_func ("/donors/wrong", wrong);
  return g_test_run ();
}
