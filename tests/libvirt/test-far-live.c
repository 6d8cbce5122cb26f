/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far disks come and go while the domain runs, with a guest that uses them as swap; they don't go while something of the guest
 * is on them. Their domybs-far is replaced while it is used.
 */
#include "lab-domain.h"

#include <string.h>

#define STORAGE "/var/lib/domybs/far"
/* As virt-install does it: more ports than are needed. libvirt takes some for devices that it adds. */
#define PORT(n) "    <controller type='pci' index='" #n "' model='pcie-root-port'/>\n"
#define PORTS "    <controller type='pci' index='0' model='pcie-root'/>\n" PORT (1) PORT (2) PORT (3) PORT (4) PORT (5) PORT (6)
#define SHARED "  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\n"

/* The plain domain, with free ports for hot plug, or with shared memory, or with both. */
static char *
domain_xml (gboolean ports, gboolean shared) {
  g_auto (GStrv) halves = g_strsplit (lab_domain_plain, "    <memballoon", 2), parts = g_strsplit (halves[0], "  <vcpu>", 2);

  return g_strconcat (parts[0], shared ? SHARED : "", "  <vcpu>", parts[1], ports ? PORTS : "", "    <memballoon", halves[1],
                      NULL);
}

static GPid
find_far (LabDomain *domain) {
  g_autofree char *needle = g_strdup_printf ("/run/domybs/vm/%s/", domain->uuid);

  return host_find_process (host_get (), "domybs-far", needle);
}

static char *
live_xml (LabDomain *domain) {
  return host_run_ok (host_get (), "virsh", "dumpxml", domain->name, NULL);
}

static guint
guest_disks (LabDomain *domain) {
  g_autofree char *n = vm_run_ok (domain->vm, "cat /sys/block/vd*/serial 2>/dev/null | grep -o domybs- | wc -l");

  return (guint)g_ascii_strtoull (n, NULL, 10);
}

/* Nothing of far disks is left in the running VM, nor on the host. */
static void
expect_none (LabDomain *domain) {
  g_autofree char *xml = live_xml (domain), *files = host_shell (host_get (), "ls -A " STORAGE),
                  *run = host_shell (host_get (), "ls -A /run/domybs/vm 2>/dev/null | grep -v '^.lock$' || true");

  if (strstr (xml, "vhostuser") || strstr (xml, "<domybs:far"))
    g_error ("there is something left of it in the running VM:\n%s", xml);
  g_assert_cmpint (find_far (domain), ==, 0);
  g_assert_cmpstr (files, ==, "");
  g_assert_cmpstr (run, ==, "");
  vm_expect_within (domain->vm, 20, guest_disks (domain) == 0);
}

static void
expect_refused (LabDomain *domain, const char *verb, const char *word) {
  g_autoptr (HostResult) result = strcmp (verb, "attach") == 0
                                      ? lab_domain_ctl (domain, "attach", "--far=shared=128M,remote=128M", "--live", NULL)
                                      : lab_domain_ctl (domain, "detach", "--far", "--live", NULL);

  g_assert_cmpint (result->status, ==, 4);
  if (!strstr (result->err, word))
    host_fail (result, "it does not say “%s”", word);
}

/* Memory that the guest does not have, intact after what is done to domybs-far meanwhile. */
static void
use (LabDomain *domain, const char *action) {
  Vm *vm = domain->vm;
  g_autofree char *said = NULL;

  vm_job_start (vm, "use", "memtool fill 240M --hold");
  g_free (vm_job_expect (vm, "use", "ok verified", 180));
  vm_job_tell (vm, "use", "verify");
  said = host_run_ok (host_get (), "domybsctl", "backend", action, domain->name, NULL);
  g_test_message ("%s", said);
  g_assert_nonnull (strstr (said, "domybs-far "));
  g_free (vm_job_expect (vm, "use", "ok", 180));
  expect_refused (domain, "detach", "domybs-swap stop");
  vm_job_tell (vm, "use", "exit");
  g_assert_cmpint (vm_job_wait (vm, "use", 60, NULL), ==, 0);
}

static void
test_comes_and_goes (void) {
  const LabDomainOptions small = { .ram_mib_max = 256 };
  g_autofree char *xml = domain_xml (TRUE, TRUE), *before = NULL, *after = NULL;
  LabDomain *domain = lab_domain_define (xml, &small);
  g_autoptr (HostResult) none = NULL;
  Vm *vm;

  before = lab_domain_xml (domain);
  vm = lab_domain_start (domain);
  g_assert_cmpuint (guest_disks (domain), ==, 0);
  for (int round = 0; round < 2; round++) {
    g_autofree char *said = lab_domain_ctl_ok (domain, "attach", "--far=shared=512M,remote=128M", "--live", NULL);

    g_assert_nonnull (strstr (said, ", now."));
    g_free (lab_domain_ctl_ok (domain, "attach", "--far=shared=512M,remote=128M", "--live", NULL)); /* has that already */
    g_assert_cmpint (find_far (domain), !=, 0);
    vm_expect_within (vm, 20, guest_disks (domain) == 2);
    expect_refused (domain, "attach", "has other far disks");
    lab_domain_swap_on (domain);
    use (domain, round ? "upgrade" : "restart");
    expect_refused (domain, "detach", "domybs-swap stop");
    g_free (vm_run_ok (vm, "for d in $(grep -o '^/dev/[a-z]*' /proc/swaps); do swapoff $d; done")); /* is not enough */
    expect_refused (domain, "detach", "far disk 'shared'");
    g_free (vm_run_ok (vm, "sh /tmp/domybs-swap stop"));
    g_free (lab_domain_ctl_ok (domain, "detach", "--far", "--live", NULL));
    expect_none (domain);
  }
  none = lab_domain_ctl (domain, "detach", "--far", "--live", NULL);
  g_assert_cmpint (none->status, ==, 3);
  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, before);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 10);
  lab_domain_free (domain);
}

/* Both sides at once, beside the memory device; disks that are full stay in the running VM. */
static void
test_both_sides (void) {
  g_autofree char *xml = domain_xml (TRUE, FALSE), *before = NULL, *attached = NULL, *again = NULL, *after = NULL, *said = NULL,
                  *live = NULL;
  LabDomain *domain = lab_domain_define (xml, NULL);
  Vm *vm;

  before = lab_domain_xml (domain);
  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
  vm = lab_domain_start (domain);
  g_free (lab_domain_ctl_ok (domain, "attach", "--far=mem-shared=128M,remote=128M", NULL));
  vm_expect_within (vm, 20, guest_disks (domain) == 2);
  attached = lab_domain_xml (domain);
  g_assert_nonnull (strstr (attached, "far-mem-shared.sock"));
  lab_domain_find_backend (domain);
  g_assert_cmpint (lab_domain_backend (domain), !=, 0);
  lab_domain_swap_on (domain); /* the one that is for that */
  g_assert_cmpint (vm_run (vm, NULL, "grep -c ^/dev /proc/swaps | grep -q ^1$"), ==, 0);
  said = lab_domain_ctl_ok (domain, "detach", "--far", NULL);
  if (!strstr (said, "keeps its far disks until it is shut down: "))
    g_error ("%s", said);
  live = live_xml (domain);
  g_assert_nonnull (strstr (live, "far-remote.sock"));
  again = lab_domain_xml (domain);
  g_assert_null (strstr (again, "vhostuser"));
  g_free (vm_run_ok (vm, "sh /tmp/domybs-swap stop"));
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  lab_domain_find_backend (domain);
  expect_none (domain);
  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, before);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 10);
  lab_domain_free (domain);
}

/* libvirt gives each domain one free port by itself. */
static void
test_refused (void) {
  static const struct {
    gboolean ports, shared;
    const char *word;
  } cases[] = {
    { TRUE, FALSE, "memory is not shared" },
    { FALSE, TRUE, "has 1 free PCI Express port for hot plug, and its far disks need 2" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *xml = domain_xml (cases[i].ports, cases[i].shared), *said = NULL, *before = NULL, *after = NULL;
    LabDomain *domain = lab_domain_define (xml, NULL);
    g_autoptr (HostResult) started = lab_domain_start_only (domain);

    if (started->status != 0)
      host_fail (started, "a plain domain");
    before = live_xml (domain);
    expect_refused (domain, "attach", cases[i].word);
    after = live_xml (domain);
    g_assert_cmpstr (after, ==, before);
    g_assert_cmpint (find_far (domain), ==, 0);
    /* With neither --live nor --config it is for the next start. */
    said = lab_domain_ctl_ok (domain, "attach", "--far=shared=128M,remote=128M", NULL);
    g_assert_nonnull (strstr (said, "It takes a restart"));
    g_free (lab_domain_ctl_ok (domain, "detach", NULL));
    lab_domain_stop (domain);
    host_expect_clean (host_get (), 10);
    lab_domain_free (domain);
  }
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/far-live/refused", test_refused);
  g_test_add_func ("/libvirt/far-live/comes-and-goes", test_comes_and_goes);
  g_test_add_func ("/libvirt/far-live/both-sides", test_both_sides);
  status = vm_test_run ();
  host_end ();
  return status;
}
