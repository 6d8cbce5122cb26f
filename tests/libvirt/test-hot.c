/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The memory device comes and goes while the domain runs. */
#include "lab-domain.h"

#define ROUNDS 5

static gboolean
guest_has_device (LabDomain *domain) {
  return vm_run (domain->vm, NULL, "grep -qs 0x0025 /sys/bus/virtio/devices/*/device") == 0;
}

static void
test_five_times (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autofree char *plain = lab_domain_xml (domain);
  g_autofree char *attached = NULL;

  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
  attached = lab_domain_xml (domain);
  lab_domain_start (domain);
  g_assert_true (guest_has_device (domain));
  for (int round = 0; round < ROUNDS; round++) {
    gint64 began = g_get_monotonic_time ();
    g_autofree char *xml = NULL;

    g_free (lab_domain_ctl_ok (domain, "detach", "--live", NULL));
    lab_domain_find_backend (domain);
    g_assert_cmpint (lab_domain_backend (domain), ==, 0);
    g_assert_false (guest_has_device (domain));

    g_free (lab_domain_ctl_ok (domain, "attach", "--live", "--window=4G", "--local-max=512M", NULL));
    lab_domain_find_backend (domain);
    g_assert_cmpint (lab_domain_backend (domain), !=, 0);
    g_free (lab_domain_ctl_ok (domain, "grow", "256M", NULL));
    lab_domain_use (domain, 520, 64);
    /* the guest still has blocks then: detach takes them back */
    g_assert_cmpint (vm_status_number (domain->vm, "granted-blocks"), ==, 128);
    xml = lab_domain_xml (domain);
    g_assert_cmpstr (xml, ==, attached);
    g_test_message ("round %d: %.1f s", round + 1, (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC);
  }
  lab_domain_expect_confined (domain);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 5);
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  g_free (attached);
  attached = lab_domain_xml (domain);
  g_assert_cmpstr (attached, ==, plain);
  lab_domain_free (domain);
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/hot/five-times", test_five_times);
  status = vm_test_run ();
  host_end ();
  return status;
}
