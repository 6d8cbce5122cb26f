/* SPDX-License-Identifier: GPL-2.0-or-later */
/* However a domain ends, nothing of the memory device remains on the host; and a domain lives on without libvirtd. */
#include "lab-domain.h"

#include <signal.h>

#define CLEAN_SECONDS 10

static LabDomain *
start (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);

  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
  lab_domain_start (domain);
  g_assert_cmpint (lab_domain_backend (domain), !=, 0);
  g_free (lab_domain_ctl_ok (domain, "grow", "128M", NULL));
  return domain;
}

/* The check itself can fail: a host on which a domain runs is not clean. */
static void
expect_not_clean (void) {
  g_autofree char *remains = host_remains (host_get ());

  g_assert_cmpstr (remains, !=, "");
}

static void
test_destroyed (void) {
  LabDomain *domain = start ();

  expect_not_clean ();
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

static void
test_powered_off (void) {
  LabDomain *domain = start ();

  vm_may_end (domain->vm);
  vm_request (domain->vm, 30, NULL, "poweroff");
  host_expect_clean (host_get (), CLEAN_SECONDS + 10);
  lab_domain_has_ended (domain);
  lab_domain_free (domain);
}

/* The back-end, too, lives through a reboot of the guest. */
static void
test_rebooted (void) {
  LabDomain *domain = start ();
  GPid backend = lab_domain_backend (domain);

  vm_reboot (domain->vm);
  vm_expect_within (domain->vm, 20, vm_driver_number (domain->vm, "session") != 0);
  /* the host's wish is still the same */
  vm_expect_within (domain->vm, 20, vm_status_number (domain->vm, "granted-blocks") == 64);
  g_free (lab_domain_ctl_ok (domain, "grow", "256M", NULL));
  g_assert_cmpint (lab_domain_backend (domain), ==, backend);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

/* What happens to one is nothing to the other. */
static void
test_beside_another (void) {
  g_auto (GStrv) halves = g_strsplit (lab_domain_plain, "plain", 2);
  g_autofree char *xml = g_strconcat (halves[0], "another one", halves[1], NULL);
  LabDomain *domain = start ();
  LabDomain *other = lab_domain_define (xml, NULL);
  g_autoptr (HostResult) started = NULL;
  GPid backend = lab_domain_backend (domain);

  g_free (lab_domain_ctl_ok (other, "attach", "--window=4G", "--local-max=512M", NULL));
  started = lab_domain_start_only (other);
  g_assert_cmpint (started->status, ==, 0);
  g_assert_cmpint (lab_domain_backend (other), !=, 0);
  g_assert_cmpint (lab_domain_backend (other), !=, backend);
  g_assert_cmpint (kill (lab_domain_qemu (other), SIGKILL), ==, 0);
  vm_expect_within (domain->vm, CLEAN_SECONDS, lab_domain_backend (other) == 0);
  g_assert_cmpint (lab_domain_backend (domain), ==, backend);
  g_free (lab_domain_ctl_ok (domain, "grow", "256M", NULL));
  lab_domain_free (other);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

static void
test_qemu_killed (void) {
  LabDomain *domain = start ();

  vm_may_end (domain->vm);
  g_assert_cmpint (kill (lab_domain_qemu (domain), SIGKILL), ==, 0);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_has_ended (domain);
  /* and it can be started again */
  lab_domain_start (domain);
  g_free (lab_domain_ctl_ok (domain, "grow", "128M", NULL));
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

static void
test_undefined_while_running (void) {
  LabDomain *domain = start ();

  g_free (host_run_ok (host_get (), "virsh", "-q", "undefine", domain->name, NULL));
  /* it is transient now, and still ours to work with */
  g_free (lab_domain_ctl_ok (domain, "grow", "256M", NULL));
  g_assert_cmpint (vm_status_number (domain->vm, "granted-blocks"), ==, 128);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

static void
test_libvirtd_restarted (void) {
  LabDomain *domain = start ();
  GPid qemu = lab_domain_qemu (domain);
  GPid backend = lab_domain_backend (domain);
  g_autofree char *state = NULL;

  vm_job_start (domain->vm, "use", "memtool fill 400M --hold");
  g_free (vm_job_expect (domain->vm, "use", "ok verified", 60));
  for (int i = 0; i < 2; i++) {
    host_libvirtd (host_get (), i == 0 ? "stop" : "kill");
    g_free (vm_job_ask (domain->vm, "use", "verify", 60));
    host_libvirtd (host_get (), "start");
    g_free (lab_domain_ctl_ok (domain, "grow", i == 0 ? "256M" : "384M", NULL));
    g_assert_cmpint (vm_status_number (domain->vm, "granted-blocks"), ==, i == 0 ? 128 : 192);
    g_assert_cmpint (lab_domain_qemu (domain), ==, qemu);
    g_assert_cmpint (lab_domain_backend (domain), ==, backend);
  }
  g_free (vm_job_ask (domain->vm, "use", "verify", 60));
  state = lab_domain_state (domain);
  g_assert_cmpstr (state, ==, "running");
  lab_domain_stop (domain);
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_free (domain);
}

static void
test_killed_without_libvirtd (void) {
  LabDomain *domain = start ();
  g_autofree char *state = NULL;

  host_libvirtd (host_get (), "kill");
  vm_may_end (domain->vm);
  g_assert_cmpint (kill (lab_domain_qemu (domain), SIGKILL), ==, 0);
  /* nobody tells the back-end, yet it is of no use any more */
  vm_expect_within (domain->vm, CLEAN_SECONDS, lab_domain_backend (domain) == 0);
  host_libvirtd (host_get (), "start");
  host_expect_clean (host_get (), CLEAN_SECONDS);
  lab_domain_has_ended (domain);
  state = lab_domain_state (domain);
  g_assert_cmpstr (state, ==, "shut off");
  lab_domain_free (domain);
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/life/destroyed", test_destroyed);
  g_test_add_func ("/libvirt/life/powered-off", test_powered_off);
  g_test_add_func ("/libvirt/life/rebooted", test_rebooted);
  g_test_add_func ("/libvirt/life/beside-another", test_beside_another);
  g_test_add_func ("/libvirt/life/qemu-killed", test_qemu_killed);
  g_test_add_func ("/libvirt/life/undefined-while-running", test_undefined_while_running);
  g_test_add_func ("/libvirt/life/libvirtd-restarted", test_libvirtd_restarted);
  g_test_add_func ("/libvirt/life/killed-without-libvirtd", test_killed_without_libvirtd);
  status = vm_test_run ();
  host_end ();
  return status;
}
