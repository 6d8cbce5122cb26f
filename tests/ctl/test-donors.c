/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybsctl donor, against a running domybs-donor with a borrower. */
#include "ctl-scene.h"
#include "donor.h"
#include "fake-control.h"
#include "load.h"
#include "testing.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

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

/* ---- VMs that run ---- */

#define KEY_LINE "a:000102030405060708090a0b0c0d0e0f\n"

static char *
write_key (void) {
  char *key = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "key", NULL);

  g_assert_true (g_file_set_contents_full (key, KEY_LINE, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  return key;
}

static void
remove_folder (void) {
  g_autofree char *folder = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "donors.d", NULL);

  g_rmdir (folder);
}

/* A neighbour comes and goes while the VM runs, with all that the VM has there; nothing is read from a file that the worker of
 * domybs-far could not read. */
static void
running (void) {
  static const char *const tiers[] = { "shared" }, *const arguments[] = { "--donors-later", "--stage=8M", NULL };
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *key = write_key (), *psk = g_strdup_printf ("--psk=%s", key),
                  *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR));
  struct far *far = far_start (
      &(struct far_options){ .bytes = 16u << 20, .tiers = tiers, .disk_extra = ",protection=ssd", .arguments = arguments });
  struct donor *there[2];
  g_autoptr (GRand) random = testing_rand ();
  struct load load;

  load_init (&load, far, far_connect (far, 0), 0, random);
  g_assert_cmpint (symlink (far->backend->control_path, path), ==, 0);
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  for (unsigned i = 0; i < 2; i++) {
    g_auto (Run) add = { 0 }, status = { 0 };
    g_autofree char *name = g_strdup_printf ("n%u", i), *address = NULL, *line = g_strdup_printf ("… donor %s", name);

    there[i] = donor_start (&(struct donor_options){ .keys = KEY_LINE });
    address = g_strdup_printf ("--address=%s", there[i]->address);
    scene_run (scene, &add, ARGS ("donor", "add", name, address, psk, "--size=32M"));
    run_must_succeed (&add);
    must_say (add.out, "1 VM that runs borrows from it from now on, too.");
    while (far_status_top (far, "worker.starts") < (int64_t)i + 2) /* the one that has it */
      g_usleep (5000);
    g_assert_true (far_wait_status (far, 0, "copies.degraded", 0, fe_patience_ms ()));
    g_setenv ("LC_ALL", "C.UTF-8", TRUE);
    scene_run (scene, &status, ARGS ("status", "vm1"));
    must_say (status.out, line);
    g_unsetenv ("LC_ALL");
  }
  {
    g_auto (Run) remove = { 0 }, again = { 0 };

    scene_run (scene, &remove, ARGS ("donor", "remove", "n0"));
    run_must_succeed (&remove);
    must_say (remove.out, "1 VM that runs has nothing there any more.");
    g_assert_true (donor_wait_status (there[0], "leases", 0));
    g_assert_true (far_wait_status (far, 0, "copies.degraded", 0, fe_patience_ms ()));
    g_assert_cmpint (far_status (far, 0, "copies.lost"), ==, 0);
    g_assert_cmpint (donor_status (there[1], "used-blocks"), >, 0);
    scene_run (scene, &again, ARGS ("donor", "remove", "n0"));
    must_fail (&again, 3, "there is none of that name");
  }
  load_check_all (&load);
  load_clear (&load);
  {
    g_auto (Run) last = { 0 };

    scene_run (scene, &last, ARGS ("donor", "remove", "n1", "--json"));
    run_must_succeed (&last);
    must_say (last.out, "\"changed\":true");
  }
  far_end (far);
  for (unsigned i = 0; i < 2; i++) {
    g_assert_true (donor_wait_status (there[i], "leases", 0));
    donor_end (there[i]);
  }
  g_unlink (path);
  g_unlink (key);
  remove_folder ();
}

/* What can't be had, or can't be done yet, is said; the order stays. */
static void
can_not (void) {
  static const char waits[] = "\"name\":\"vm\\u001b1\",\"disks\":[{\"tier\":\"shared\",\"protection\":\"ssd\",\"copies\":{\"donors\":["
                              "{\"name\":\"n1\",\"state\":\"gone\",\"why\":\"no answer\",\"copies\":12,\"leaves\":true}]}}]",
                    nonsense[] = "\"disks\":[{\"tier\":\"shared\",\"copies\":{\"donors\":{\"name\":7}}}]";
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *key = write_key (), *psk = g_strdup_printf ("--psk=%s", key),
                  *path = scene_far_control_path (scene, scene_add (scene, "vm1", TRUE, SCENE_FAR)),
                  *odd_path = scene_far_control_path (scene, scene_add (scene, "vm2", TRUE, SCENE_FAR));
  g_autoptr (FakeControl) fake = fake_control_start (path, &(FakeHabits){ .status = waits }),
                          odd = fake_control_start (odd_path, &(FakeHabits){ .status = nonsense });
  g_auto (Run) add = { 0 }, remove = { 0 }, again = { 0 }, other = { 0 }, late = { 0 }, list = { 0 };

  scene_run (scene, &add, ARGS ("donor", "add", "n1", "--address=1.2.3.4:5", psk));
  run_must_succeed (&add);
  scene_run (scene, &remove, ARGS ("donor", "remove", "n1", "--timeout=0"));
  must_fail (&remove, 1, "24M of VM 'vm");
  must_say (remove.err, "are still there: it can't be reached (no answer); the order stays");
  g_assert_null (strchr (remove.err, '\033'));
  scene_run (scene, &again, ARGS ("donor", "remove", "n1", "--timeout=1"));
  must_fail (&again, 1, "the order stays");
  scene_run (scene, &other, ARGS ("donor", "remove", "n2", "--timeout=0"));
  must_fail (&other, 3, "there is none of that name");
  scene_run (scene, &late, ARGS ("donor", "remove", "n1", "--timeout=-5"));
  must_fail (&late, 2, "0 or more");
  scene_run (scene, &list, ARGS ("donor", "list", "--timeout=5"));
  must_fail (&list, 2, "is for remove");
  g_unlink (key);
  remove_folder ();
}

/* Keys come and go; a file that can't be right changes nothing. */
static void
reloads (void) {
  static const struct {
    const char *text, *words;
    int mode;
  } bad[] = {
    { KEY_LINE "b\n", "line 2 of ", 0600 },
    { KEY_LINE "b:00\n", "is not IDENTITY:KEY", 0600 },
    { KEY_LINE KEY_LINE, "has the identity of line 1", 0600 },
    { KEY_LINE, "can be read by others", 0644 },
    { "", "has no key", 0600 },
    { "# nobody\n", "has no key", 0600 },
    { KEY_LINE "a b:0f0e0d0c0b0a09080706050403020100\n", "is not IDENTITY:KEY", 0600 },
  };
  static const struct borrower_key a = { "a", { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
                                   b = { "b", { 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0 } };
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *a_line = g_strdup_printf ("a:000102030405060708090a0b0c0d0e0f10%030d\n", 0);
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ .keys = a_line });
  g_autofree char *socket = g_strdup_printf ("--socket=%s", donor->backend->control_path);
  struct borrower one, two;
  guint64 stamp;

  donor_borrower (donor, 1, &a, &one);
  g_assert_cmpint (borrower_attach (&one, 64), ==, LEASE_OK);
  g_assert_cmpint (borrower_ask (&one, LEASE_GRANT, 16), ==, LEASE_OK);
  g_assert_cmpint (borrower_put (&one, 3, 77), ==, 0);
  for (unsigned i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_auto (Run) run = { 0 };

    g_assert_true (g_file_set_contents_full (donor->psk_path, bad[i].text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
    g_assert_cmpint (g_chmod (donor->psk_path, bad[i].mode), ==, 0);
    scene_run (scene, &run, ARGS ("donor", "reload", socket));
    must_fail (&run, 4, bad[i].words);
    must_say (run.err, "its keys stay as they were");
  }
  g_assert_cmpint (g_chmod (donor->psk_path, 0600), ==, 0);
  g_assert_cmpint (donor_status (donor, "worker.starts"), ==, 1);
  g_assert_cmpint (borrower_get (&one, 3, &stamp), ==, 0); /* nobody was disturbed */
  {
    g_autofree char *text = g_strdup_printf ("%sb:0f0e0d0c0b0a09080706050403020100%032d\n", a_line, 0);
    g_auto (Run) run = { 0 };

    g_assert_true (g_file_set_contents_full (donor->psk_path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
    scene_run (scene, &run, ARGS ("donor", "reload", socket));
    run_must_succeed (&run);
    must_say (run.out, "It knows 2 keys; there were 1.");
  }
  donor_borrower (donor, 2, &b, &two);
  g_assert_cmpint (borrower_attach (&two, 64), ==, LEASE_OK);
  borrower_leave (&one);
  g_assert_cmpint (borrower_attach (&one, 64), ==, LEASE_OK); /* with all that it had */
  g_assert_cmpint (borrower_get (&one, 3, &stamp), ==, 0);
  g_assert_cmpuint (stamp, ==, 77);
  {
    g_autofree char *text = g_strdup_printf ("b:0f0e0d0c0b0a09080706050403020100%032d\n", 0);
    g_auto (Run) run = { 0 };

    g_assert_true (g_file_set_contents_full (donor->psk_path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
    scene_run (scene, &run, ARGS ("donor", "reload", socket));
    run_must_succeed (&run);
    must_say (run.out, "It knows 1 keys; there were 2.");
  }
  g_assert_cmpint (borrower_get (&one, 3, &stamp), !=, 0); /* its connections were closed, … */
  g_assert_null (wire_open (donor->address, &a));          /* it gets no others, … */
  g_assert_cmpint (donor_status (donor, "leases"), ==, 2); /* … and what it has stays */
  g_assert_cmpint (donor_status (donor, "used-blocks"), ==, 1);
  borrower_leave (&one);
  borrower_leave (&two);
}

/* What VMs were promised, and what there is. */
static void
checks (void) {
  static const char mirror[] = "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:far shared='1073741824' "
                               "storage='/srv/far' compress='no' protection='mirror' last-bus='4'/></domybs:domybs>",
                    ssd[] = "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:far shared='1073741824' "
                            "storage='/srv/far' compress='no' protection='ssd' last-bus='4'/></domybs:domybs>";
  g_autoptr (Scene) scene = scene_new ();
  g_autofree char *key = write_key (), *psk = g_strdup_printf ("--psk=%s", key), *address = NULL, *answers = NULL;
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ .keys = KEY_LINE });
  g_auto (Run) none = { 0 }, add = { 0 }, other = { 0 }, one = { 0 }, open = { 0 }, remove = { 0 }, also = { 0 };

  scene_add (scene, "vm1", FALSE, mirror);
  scene_add (scene, "vm2", FALSE, ssd);
  scene_add (scene, "vm3", FALSE, SCENE_FAR);
  scene_run (scene, &none, ARGS ("check"));
  must_say (none.out, "domain 'vm1': its protection 'mirror' needs donors of two domains, and there are 0");
  must_say (none.out, "domain 'vm2': its protection 'ssd' needs a donor, and there is none");
  g_assert_null (strstr (none.out, "domain 'vm3': its protection"));
  address = g_strdup_printf ("--address=%s", donor->address);
  answers = g_strdup_printf ("donor 'n1': %s answers, domain 'rack1'", donor->address);
  scene_run (scene, &add, ARGS ("donor", "add", "n1", address, psk, "--domain=rack1"));
  run_must_succeed (&add);
  scene_run (scene, &other, ARGS ("donor", "add", "n2", "--address=127.0.0.1:1", psk, "--domain=rack1"));
  run_must_succeed (&other);
  scene_run (scene, &one, ARGS ("check", "vm1"));
  must_say (one.out, answers);
  must_say (one.out, "donor 'n2': 127.0.0.1:1 can't be reached: Connection refused");
  must_say (one.out, "domain 'vm1': its protection 'mirror' needs donors of two domains, and there is 1");
  g_assert_null (strstr (one.out, "'vm2'"));
  g_assert_cmpint (g_chmod (key, 0640), ==, 0);
  scene_run (scene, &open, ARGS ("check"));
  must_say (open.out, "donor 'n1': no VM gets it: its key");
  must_say (open.out, "chmod 600");
  must_say (open.out, "domain 'vm2': its protection 'ssd' needs a donor");
  scene_run (scene, &remove, ARGS ("donor", "remove", "n1"));
  run_must_succeed (&remove);
  scene_run (scene, &also, ARGS ("donor", "remove", "n2"));
  run_must_succeed (&also);
  g_unlink (key);
  remove_folder ();
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
  testing_init (&argc, &argv);
  g_test_add_func ("/donors/all", donors);
  g_test_add_func ("/donors/known", known);
  g_test_add_func ("/donors/running", running);
  g_test_add_func ("/donors/can not", can_not);
  g_test_add_func ("/donors/reloads", reloads);
  g_test_add_func ("/donors/checks", checks);
  g_test_add_func ("/donors/wrong", wrong);
  return g_test_run ();
}
