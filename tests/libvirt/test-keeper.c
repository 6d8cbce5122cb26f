/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A running domain's back-end gets new workers, and then it is killed, keeper and all: what the commands say of that, and the
 * way out. */
#include "lab-domain.h"

#include <signal.h>
#include <string.h>

#define ACCESS 5
#define REFUSED 4

static LabDomain *domain; /* of all cases */

static LabDomain *
get_domain (void) {
  if (!domain) {
    domain = lab_domain_define (lab_domain_plain, NULL);
    g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
    lab_domain_start (domain);
  }
  return domain;
}

static void
expect (HostResult *result, int status, const char *words) {
  if (result->status != status)
    host_fail (result, "expected is exit status %d", status);
  if (!strstr (result->err, words) && !strstr (result->out, words))
    host_fail (result, "expected is '%s'", words);
}

static void
test_replaced (void) {
  static const char *const verbs[] = { "restart", "upgrade" };
  LabDomain *d = get_domain ();
  const GPid keeper = lab_domain_backend (d);

  g_free (lab_domain_ctl_ok (d, "grow", "256M", NULL));
  vm_job_start (d->vm, "use", "memtool fill 400M --hold");
  g_free (vm_job_expect (d->vm, "use", "ok verified", 60));
  for (guint i = 0; i < G_N_ELEMENTS (verbs); i++) {
    g_autofree char *out = host_run_ok (host_get (), "domybsctl", "backend", verbs[i], d->name, NULL);

    g_test_message ("%s", g_strchomp (out));
    g_assert_nonnull (strstr (out, "Domain 'plain': back-end "));
    g_free (vm_job_ask (d->vm, "use", "verify", 60));
  }
  g_assert_cmpint (lab_domain_backend (d), ==, keeper);
  g_assert_cmpint (vm_status_number (d->vm, "granted-blocks"), ==, 128);
}

static void
test_killed (void) {
  LabDomain *d = get_domain ();
  const GPid keeper = lab_domain_backend (d);
  g_autoptr (HostResult) status = NULL, check = NULL, list = NULL, grow = NULL, attach = NULL;
  gint64 began;

  vm_adopt_backend (d->vm, 0, "", NULL);
  g_assert_cmpint (kill (keeper, SIGKILL), ==, 0);
  vm_expect_within (d->vm, 10, lab_domain_backend (d) == 0);
  status = lab_domain_ctl (d, "status", NULL);
  expect (status, ACCESS, "is gone and QEMU runs on");
  g_test_message ("%s", g_strchomp (status->err));
  check = lab_domain_ctl (d, "check", NULL);
  expect (check, 1, "TO DO  domain 'plain': its back-end (process ");
  list = host_run (host_get (), "domybsctl", "list", NULL);
  expect (list, 0, "(gone)");
  grow = lab_domain_ctl (d, "grow", "384M", NULL);
  expect (grow, ACCESS, "detach plain --live");
  attach = lab_domain_ctl (d, "attach", "--live", "--window=4G", "--local-max=512M", NULL);
  expect (attach, REFUSED, "the device that it has is dead");
  g_free (vm_job_ask (d->vm, "use", "verify", 60));
  /* its programs need room elsewhere for what they have in there */
  g_free (vm_job_ask (d->vm, "use", "free-random 0.6 5 2M", 60));

  began = g_get_monotonic_time ();
  g_free (lab_domain_ctl_ok (d, "detach", "--live", NULL));
  g_test_message ("detached in %.1f s", (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC);
  g_free (vm_job_ask (d->vm, "use", "verify", 60));
  g_free (lab_domain_ctl_ok (d, "attach", "--live", NULL));
  lab_domain_find_backend (d);
  g_assert_cmpint (lab_domain_backend (d), !=, 0);
  g_free (lab_domain_ctl_ok (d, "grow", "256M", NULL));
  g_free (vm_job_ask (d->vm, "use", "verify", 60));
  vm_job_tell (d->vm, "use", "exit");
  g_assert_cmpint (vm_job_wait (d->vm, "use", 60, NULL), ==, 0);
  lab_domain_use (d, 520, 64);
}

static void
test_end (void) {
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 10);
  lab_domain_free (domain);
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/keeper/replaced", test_replaced);
  g_test_add_func ("/libvirt/keeper/killed", test_killed);
  g_test_add_func ("/libvirt/keeper/no-complaint", test_end);
  status = vm_test_run ();
  host_end ();
  return status;
}
