/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An object that two domains have, one from its start on, the other one plugged in while it runs: both read what was imported,
 * also over the death of all that is behind it; it goes without touching the memory device or the other object; and in the end
 * the configuration is what it was, to the byte.
 */
#include "lab-domain.h"

#include <signal.h>
#include <string.h>

#define OBJECT_MIB 12
#define PORT(n) "    <controller type='pci' index='" #n "' model='pcie-root-port'/>\n"
#define PORTS "    <controller type='pci' index='0' model='pcie-root'/>\n" PORT (1) PORT (2) PORT (3) PORT (4) PORT (5) PORT (6)
#define SHARED "  <memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>\n"

/* The plain domain under another name, with free ports for hot plug and shared memory if that is said. */
static char *
domain_xml (const char *name, gboolean hot) {
  g_auto (GStrv) named = g_strsplit (lab_domain_plain, "<name>", 2),
                 halves = g_strsplit (strstr (named[1], "</name>"), "    <memballoon", 2),
                 parts = g_strsplit (halves[0], "  <vcpu>", 2);

  return g_strconcat (named[0], "<name>", name, parts[0], hot ? SHARED : "", "  <vcpu>", parts[1], hot ? PORTS : "",
                      "    <memballoon", halves[1], NULL);
}

static LabDomain *
define (const char *name, gboolean hot) {
  const LabDomainOptions small = { .ram_mib_max = 256 };
  g_autofree char *xml = domain_xml (name, hot);

  return lab_domain_define (xml, &small);
}

/* Imports random content; returns its sum. */
static char *
import (const char *name) {
  char *sum
      = host_shell (host_get (),
                    "head -c %dM /dev/urandom >" LAB_DOMAIN_FOLDER "/content && domybsctl -q object import " LAB_DOMAIN_FOLDER
                    "/content --name %s && sha256sum <" LAB_DOMAIN_FOLDER "/content | cut -d' ' -f1",
                    OBJECT_MIB, name);

  return g_strstrip (sum);
}

/* A shell's words for the disk with that object. */
#define DISK(name) "/dev/$(grep -lsx domybs-" name " /sys/block/*/serial | cut -d/ -f4)"
#define DISKS "grep -hsx 'domybs-.*' /sys/block/*/serial | sort | tr '\\n' ' '"

static void
expect_disks (LabDomain *domain, const char *expected) {
  g_autofree char *got = NULL;

  for (int tries = 400; g_strcmp0 (got, expected) != 0 && tries > 0; tries--) {
    if (got)
      g_usleep (50000);
    g_free (got);
    got = g_strstrip (vm_run_ok (domain->vm, DISKS));
  }
  g_assert_cmpstr (got, ==, expected);
}

static void
expect_content (LabDomain *domain, const char *disk, const char *sum) {
  g_autofree char *got = vm_run_ok (domain->vm, "echo 3 >/proc/sys/vm/drop_caches; sha256sum <%s | cut -d' ' -f1", disk);

  g_assert_cmpstr (g_strstrip (got), ==, sum);
}

static GPid
keeper_of (LabDomain *domain, const char *name) {
  g_autofree char *needle = g_strdup_printf ("/run/domybs/vm/%s/object-%s.sock", domain->uuid, name);

  return host_find_process (host_get (), "domybs-far", needle);
}

/* With all that is behind the object gone the guest waits; another one is started, and it has what it asked for. */
static void
dies_and_comes_back (LabDomain *domain, const char *sum) {
  Vm *vm = domain->vm;
  const GPid before = keeper_of (domain, "data");
  g_autofree char *status = NULL, *said = NULL;

  g_assert_cmpint (before, !=, 0);
  g_assert_cmpint (kill (before, SIGKILL), ==, 0);
  while (keeper_of (domain, "data") == before)
    g_usleep (10000);
  vm_job_start (vm, "read", "echo 3 >/proc/sys/vm/drop_caches; sha256sum <" DISK ("data") " | cut -d' ' -f1");
  status = lab_domain_ctl_ok (domain, "status", NULL);
  if (!strstr (status, "its domybs-far for object 'data' is gone"))
    g_error ("%s", status);
  said = host_run_ok (host_get (), "domybsctl", "backend", "restart", domain->name, NULL);
  g_assert_nonnull (strstr (said, "domybs-far for object 'data' was gone, and is started again"));
  g_assert_cmpint (keeper_of (domain, "data"), !=, before);
  g_free (vm_job_expect (vm, "read", sum, vm_patience (60)));
  g_assert_cmpint (vm_job_wait (vm, "read", 10, NULL), ==, 0);
}

static void
test_shared (void) {
  LabDomain *hot = define ("hot", TRUE), *cold = define ("cold", FALSE);
  g_autofree char *sum = import ("data"), *other_sum = import ("other"), *list = NULL;
  g_autofree char *hot_before = lab_domain_xml (hot), *cold_before = lab_domain_xml (cold), *hot_after = NULL,
                  *cold_after = NULL, *live = NULL;
  g_autoptr (HostResult) refused = NULL;

  g_free (lab_domain_ctl_ok (cold, "attach", "--window=4G", "--local-max=128M", "--object=data", NULL));
  lab_domain_start (cold);
  lab_domain_start (hot);
  expect_disks (cold, "domybs-data");
  expect_disks (hot, "");
  g_free (lab_domain_ctl_ok (hot, "attach", "--object=data", "--live", NULL));
  expect_disks (hot, "domybs-data");
  g_free (lab_domain_ctl_ok (hot, "attach", "--object=data", "--object=other", "--live", NULL)); /* one of them is new */
  expect_disks (hot, "domybs-data domybs-other");
  expect_content (hot, DISK ("data"), sum);
  expect_content (hot, DISK ("other"), other_sum);
  expect_content (cold, DISK ("data"), sum);
  g_assert_cmpint (vm_run (hot->vm, NULL, "dd if=/dev/zero of=" DISK ("data") " bs=4096 count=1 2>/dev/null"), !=, 0);
  list = host_run_ok (host_get (), "domybsctl", "object", "list", NULL);
  if (!strstr (list, "cold") || !strstr (list, "hot"))
    g_error ("%s", list);
  refused = host_run (host_get (), "domybsctl", "object", "remove", "data", NULL);
  g_assert_cmpint (refused->status, ==, 4);

  dies_and_comes_back (hot, sum);
  expect_content (cold, DISK ("data"), sum);

  /* each goes by itself, and the memory device without the object */
  g_free (lab_domain_ctl_ok (hot, "detach", "--object=data", "--live", NULL));
  expect_disks (hot, "domybs-other");
  g_assert_cmpint (keeper_of (hot, "data"), ==, 0);
  expect_content (hot, DISK ("other"), other_sum);
  g_free (lab_domain_ctl_ok (cold, "detach", "--memory", NULL));
  lab_domain_find_backend (cold);
  g_assert_cmpint (lab_domain_backend (cold), ==, 0);
  expect_content (cold, DISK ("data"), sum);
  cold_after = lab_domain_xml (cold);
  g_assert_nonnull (strstr (cold_after, "object-data.sock"));
  g_assert_nonnull (strstr (cold_after, "mode='shared'"));
  g_assert_null (strstr (cold_after, "virtio-id"));
  g_clear_pointer (&cold_after, g_free);
  g_free (lab_domain_ctl_ok (hot, "detach", "--all-objects", "--live", NULL));
  expect_disks (hot, "");
  live = host_run_ok (host_get (), "virsh", "dumpxml", hot->name, NULL);
  g_assert_null (strstr (live, "domybs:"));
  lab_domain_stop (hot);
  lab_domain_stop (cold);
  host_expect_clean (host_get (), 10);
  g_free (lab_domain_ctl_ok (cold, "detach", NULL));
  hot_after = lab_domain_xml (hot);
  cold_after = lab_domain_xml (cold);
  g_assert_cmpstr (hot_after, ==, hot_before);
  g_assert_cmpstr (cold_after, ==, cold_before);
  g_free (host_run_ok (host_get (), "domybsctl", "object", "remove", "data", NULL));
  lab_domain_free (hot);
  lab_domain_free (cold);
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/object/two domains share one", test_shared);
  status = vm_test_run ();
  host_end ();
  return status;
}
