/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device that talks nonsense (malicious-backend.c): the driver refuses it or marks it broken, with a reason, and the guest
 * goes on with the memory it has.
 *
 * Every case ends with the same questions. Is the content of the guest's memory what it was, in a section that came from this
 * very host? Does the guest still start programs that get memory? Did its kernel complain of anything? And when the device has
 * come to its senses, does the driver work again, after a reload or, where memory of ours is in use, after a reboot?
 */
#include "vm.h"

#include <glib/gstdio.h>
#include <string.h>

#define SECTION 64u /* blocks: 128 MiB */
#define SOON 30     /* seconds; an emulated guest on a busy machine */

typedef enum {
  AT_PROBE, /* the driver does not take the device */
  AT_HELLO, /* it does, and gives up at the first answer */
  AT_FIRST, /* at the first GRANT: nothing of the host's is in use */
  AT_GRANT, /* memory is in use already, more is asked for */
  AT_RELEASE,
  AT_RESERVE, /* it asks by itself, once it has a session */
  AT_EVENT,
  AT_FIRST_EVENT,
  AT_CONFIG, /* config space changes while memory is in use */
  HARMLESS,  /* at probe: nonsense in what is only advice */
  IGNORED,   /* an event that means nothing: no reason to do anything */
  STORM,     /* while it lasts the guest is well, and after it everything works */
} When;

typedef struct {
  const char *lie;
  When when;
  const char *reason; /* a part of what the driver says */
  gboolean on_6_1;    /* too */
} Case;

static const Case cases[] = {
  { "config-magic", AT_PROBE, "not a domybs memory device" },
  { "config-version", AT_PROBE, "ABI version 2", TRUE },
  { "config-block-size", AT_PROBE, "blocks of 4096 bytes" },
  { "config-window-odd", AT_PROBE, "not a power of two" },
  { "config-window-zero", AT_PROBE, "not a power of two" },
  { "config-window-double", AT_PROBE, "the region has", TRUE },
  { "config-window-wraps", AT_PROBE, "not a power of two" },
  { "config-grow-min", HARMLESS },
  { "config-grow-min-zero", HARMLESS },
  { "config-node", HARMLESS, NULL, TRUE },
  { "config-flags", HARMLESS },
  { "config-max", AT_CONFIG, "configuration: at most" },
  { "config-target", AT_CONFIG, "configuration: at most" },
  { "config-flaps", STORM },
  { "config-storm", STORM },

  { "hello-status", AT_HELLO, "status 65535", TRUE },
  { "hello-refused", AT_HELLO, "HELLO answered with status 5" },
  { "hello-no-session", AT_HELLO, "session 0" },
  { "hello-id", AT_HELLO, "id 7, not 0" },
  { "hello-granted", AT_HELLO, "5 blocks granted" },
  { "hello-runs", AT_HELLO, "3 runs" },
  { "hello-short", AT_HELLO, "20 bytes of answer to HELLO" },
  { "hello-long", AT_HELLO, "2147483648 bytes of answer to HELLO" },
  { "hello-empty", AT_HELLO, "0 bytes of answer to HELLO" },
  { "hello-silent", AT_HELLO, NULL },

  { "grant-outside", AT_GRANT, "asked for 64 blocks", TRUE },
  { "grant-elsewhere", AT_FIRST, "asked for 64 blocks" },
  { "grant-twice", AT_GRANT, "asked for 64 blocks", TRUE },
  { "grant-wraps", AT_FIRST, "asked for 64 blocks" },
  { "grant-overlap", AT_FIRST, "asked for 64 blocks" },
  { "grant-empty-run", AT_FIRST, "asked for 64 blocks" },
  { "grant-nothing", AT_FIRST, "asked for 64 blocks" },
  { "grant-more", AT_FIRST, "asked for 64 blocks" },
  { "grant-part", AT_FIRST, "asked for 64 blocks" },
  { "grant-sum", AT_FIRST, "asked for 64 blocks" },
  { "grant-books", AT_FIRST, "asked for 64 blocks" },
  { "grant-count", AT_FIRST, "129 runs" },
  { "grant-count-huge", AT_FIRST, "4294967295 runs", TRUE },
  { "grant-cut", AT_FIRST, "1 runs in 48 bytes" },
  { "grant-id", AT_FIRST, "answer to GRANT has status 0 and id" },
  { "grant-session", AT_FIRST, "of another session" },
  { "grant-status", AT_FIRST, "status 77" },
  { "grant-refused-with-runs", AT_FIRST, "1 runs" },
  { "grant-no-session", AT_FIRST, "no longer knows this session" },
  { "grant-short", AT_FIRST, "20 bytes of answer to GRANT" },
  { "grant-long", AT_FIRST, "2147483648 bytes of answer to GRANT" },
  { "grant-empty", AT_FIRST, "0 bytes of answer to GRANT" },
  { "ring-silent", AT_GRANT, NULL },
  { "ring-twice", AT_GRANT, "" },
  { "ring-wrong-head", AT_GRANT, "", TRUE },
  { "ring-wild-head", AT_GRANT, "" },
  { "ring-index", AT_GRANT, "" },

  { "release-blocks", AT_RELEASE, "released 64 blocks, was answered 65", TRUE },
  { "release-books", AT_RELEASE, "released 64 blocks" },
  { "release-runs", AT_RELEASE, "1 runs" },
  { "release-id", AT_RELEASE, "id 0, not" },
  { "release-refused", AT_RELEASE, "the host calls a RELEASE wrong" },

  { "reserve-more", AT_RESERVE, "reserved 32 blocks, was answered 33", TRUE },
  { "reserve-unknown", HARMLESS },

  { "event-reclaim-huge", AT_EVENT, "RECLAIM of 18446744073709551615 blocks", TRUE },
  { "event-short", AT_FIRST_EVENT, "event of 4 bytes" },
  { "event-long", AT_FIRST_EVENT, "event of 64 bytes" },
  { "event-unknown", IGNORED },
  { "event-zero", IGNORED },
  { "event-other-session", IGNORED },
  { "event-no-time", IGNORED },
  { "signal-silent", STORM },
  { "signal-storm", STORM, NULL, TRUE },
};

static char *lie_path;
static Vm *vm_6_12, *vm_6_1;

static void
tell (const char *lie) {
  g_autoptr (GError) error = NULL;

  g_file_set_contents (lie_path, lie, -1, &error);
  g_assert_no_error (error);
}

static Vm *
vm_of (const char *series) {
  static const char *const backend_args[] = { "--window=4G", NULL };
  const VmConfig config
      = { .name = "nonsense", .series = series, .backend_args = backend_args, .driver_params = "mode=manual" };

  tell ("");
  return vm_shared (g_str_equal (series, "6.1") ? &vm_6_1 : &vm_6_12, &config);
}

/* ---- what the driver says ---- */

static gboolean
said (Vm *vm, const char *reason) {
  g_autofree char *log = vm_run_ok (vm, "dmesg");

  return strstr (log, reason) != NULL;
}

static gboolean
is_broken (Vm *vm, const char *reason) {
  g_autofree char *broken = vm_driver_get (vm, "broken");

  if (!g_str_has_prefix (broken, "1 "))
    return FALSE;
  if (!strstr (broken, reason))
    vm_fail (vm, "the driver found another mistake than '%s': %s", reason, broken);
  if (!said (vm, broken + 2))
    vm_fail (vm, "the driver's log does not say '%s'", broken + 2);
  return TRUE;
}

static gboolean
is_bound (Vm *vm) {
  return vm_run (vm, NULL, "ls -d /sys/bus/virtio/drivers/virtio_domybs/virtio*/domybs") == 0;
}

static void
reload (Vm *vm) {
  g_assert_cmpint (vm_unload (vm, "virtio_domybs"), ==, 0);
  g_assert_cmpint (vm_load (vm, "virtio_domybs", "mode=manual"), ==, 0);
}

/* ---- before and after ---- */

static void
grow_to (Vm *vm, unsigned blocks) {
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", blocks), ==, 0);
  vm_expect_within (vm, SOON, vm_driver_number (vm, "online_blocks") == blocks);
}

/* Memory of this host, in use: what a program gets comes from movable memory first. */
static void
use (Vm *vm, unsigned sections) {
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
  grow_to (vm, sections * SECTION);
  vm_job_start (vm, "user", "memtool fill 100M --hold");
  g_free (vm_job_expect (vm, "user", "ok verified", 60));
  if (vm_host_memfd_bytes (vm) < 64 * VM_MIB)
    vm_fail (vm, "the program's memory did not come from the host");
}

static void
guest_is_well (Vm *vm) {
  g_autofree char *complaints = vm_kernel_complaints (vm);

  if (complaints)
    vm_fail (vm, "the guest's kernel complained:\n%s", complaints);
  g_free (vm_run_ok (vm, "memtool fill 16M"));
  g_assert_cmpuint (vm_guest_vmstat (vm, "oom_kill"), ==, 0);
}

static void
use_is_well (Vm *vm) {
  g_free (vm_job_ask (vm, "user", "verify", 60));
  vm_job_tell (vm, "user", "exit");
  g_assert_cmpint (vm_job_wait (vm, "user", 30, NULL), ==, 0);
  guest_is_well (vm);
}

static void
works_again (Vm *vm) {
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
  grow_to (vm, SECTION);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "0"), ==, 0);
  vm_expect_within (vm, SOON, vm_driver_number (vm, "granted_blocks") == 0);
  guest_is_well (vm);
}

/* Nothing of ours is in use. */
static void
after_reload (Vm *vm) {
  tell ("");
  reload (vm);
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
}

/* Memory of ours is in use, so the module stays. */
static void
after_reboot (Vm *vm) {
  g_assert_cmpint (vm_unload (vm, "virtio_domybs"), !=, 0);
  g_free (vm_read (vm, "/proc/uptime"));
  tell ("");
  vm_reboot (vm);
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
}

/* ---- the cases ---- */

static void
at_probe (Vm *vm, const Case *c) {
  tell (c->lie);
  reload (vm);
  g_assert_false (is_bound (vm));
  if (!said (vm, c->reason))
    vm_fail (vm, "the driver did not take the device, but does not say '%s'", c->reason);
  guest_is_well (vm);
  after_reload (vm);
}

static void
harmless (Vm *vm, const Case *c) {
  tell (c->lie);
  reload (vm);
  works_again (vm);
  after_reload (vm);
}

static void
at_hello (Vm *vm, const Case *c) {
  tell (c->lie);
  reload (vm);
  if (c->reason)
    vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  else
    g_usleep (2 * G_USEC_PER_SEC); /* no answer is no mistake: the VM may have been paused */
  g_assert_cmpuint (vm_driver_number (vm, "session"), ==, 0);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", SECTION), ==, 0);
  guest_is_well (vm);
  after_reload (vm);
}

static void
at_reserve (Vm *vm, const Case *c) {
  tell (c->lie);
  reload (vm);
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  g_assert_cmpuint (vm_driver_number (vm, "session"), !=, 0);
  guest_is_well (vm);
  after_reload (vm);
}

static void
at_first (Vm *vm, const Case *c) {
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
  tell (c->lie);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", SECTION), ==, 0);
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  g_assert_cmpuint (vm_driver_number (vm, "granted_blocks"), ==, 0);
  guest_is_well (vm);
  after_reload (vm);
}

static void
at_grant (Vm *vm, const Case *c) {
  use (vm, 1);
  tell (c->lie);
  /* Two sections: some lies show only at the request after */
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", 3 * SECTION), ==, 0);
  if (c->reason) {
    vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  } else {
    g_usleep (2 * G_USEC_PER_SEC);
    g_assert_cmpuint (vm_driver_number (vm, "granted_blocks"), ==, SECTION);
  }
  use_is_well (vm);
  after_reboot (vm);
}

static void
at_release (Vm *vm, const Case *c) {
  use (vm, 3);
  tell (c->lie);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", 2 * SECTION), ==, 0);
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  use_is_well (vm);
  after_reboot (vm);
}

/* Makes the back-end send an event. */
static void
cause_event (Vm *vm) {
  g_autoptr (JsonNode) done
      = vm_control (vm, "{\"execute\": \"reclaim\", \"arguments\": {\"blocks\": 1, \"deadline-ms\": 2000}}");
}

static void
at_event (Vm *vm, const Case *c) {
  use (vm, 1);
  tell (c->lie);
  cause_event (vm);
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  use_is_well (vm);
  after_reboot (vm);
}

static void
at_first_event (Vm *vm, const Case *c) {
  vm_expect_within (vm, SOON, vm_driver_number (vm, "session") != 0);
  tell (c->lie);
  cause_event (vm);
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  guest_is_well (vm);
  after_reload (vm);
}

static void
ignored (Vm *vm, const Case *c) {
  use (vm, 1);
  tell (c->lie);
  cause_event (vm);
  grow_to (vm, 2 * SECTION);
  tell ("");
  use_is_well (vm);
  works_again (vm);
}

static void
at_config (Vm *vm, const Case *c) {
  g_autoptr (JsonNode) set = NULL, unset = NULL;

  use (vm, 1);
  tell (c->lie);
  set = vm_control (vm, "{\"execute\": \"set-target\", \"arguments\": {\"blocks\": 1}}");
  vm_expect_within (vm, SOON, is_broken (vm, c->reason));
  unset = vm_control (vm, "{\"execute\": \"set-target\", \"arguments\": {\"blocks\": null}}");
  use_is_well (vm);
  after_reboot (vm);
}

/* That more memory comes meanwhile is not asked for: a host that does this need not give any. */
static void
storm (Vm *vm, const Case *c) {
  use (vm, 1);
  tell (c->lie);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%u", 2 * SECTION), ==, 0);
  g_usleep (3 * G_USEC_PER_SEC);
  g_free (vm_job_ask (vm, "user", "verify", 60));
  tell ("");
  vm_expect_within (vm, SOON, vm_driver_number (vm, "online_blocks") == 2 * SECTION);
  use_is_well (vm);
  works_again (vm);
}

static void
run_case (gconstpointer data, const char *series) {
  static void (*const how[]) (Vm *, const Case *) = {
    [AT_PROBE] = at_probe,
    [AT_HELLO] = at_hello,
    [AT_FIRST] = at_first,
    [AT_GRANT] = at_grant,
    [AT_RELEASE] = at_release,
    [AT_RESERVE] = at_reserve,
    [AT_EVENT] = at_event,
    [AT_FIRST_EVENT] = at_first_event,
    [AT_CONFIG] = at_config,
    [HARMLESS] = harmless,
    [IGNORED] = ignored,
    [STORM] = storm,
  };
  const Case *c = data;

  how[c->when](vm_of (series), c);
}

static void
on_6_12 (gconstpointer data) {
  run_case (data, "6.12");
}

static void
on_6_1 (gconstpointer data) {
  if (vm_6_12) {
    vm_stop (vm_6_12); /* one at a time: emulated guests take all there is */
    vm_6_12 = NULL;
  }
  run_case (data, "6.1");
}

int
main (int argc, char **argv) {
  g_autofree char *folder = NULL;
  int status;

  vm_test_init (&argc, &argv);
  folder = g_dir_make_tmp ("domybs-nonsense-XXXXXX", NULL);
  g_assert_nonnull (folder);
  lie_path = g_build_filename (folder, "lie", NULL);
  g_setenv ("DOMYBS_LIE", lie_path, TRUE);
  g_setenv ("DOMYBS_BACKEND", MALICIOUS_BACKEND, TRUE);

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = g_strdup_printf ("/nonsense/6.12/%s", cases[i].lie);

    g_test_add_data_func (path, &cases[i], on_6_12);
  }
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *path = g_strdup_printf ("/nonsense/6.1/%s", cases[i].lie);

    if (cases[i].on_6_1)
      g_test_add_data_func (path, &cases[i], on_6_1);
  }
  status = vm_test_run ();
  g_remove (lie_path);
  g_rmdir (folder);
  g_free (lie_path);
  return status;
}
