/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Domains as virt-install, virt-manager, OpenStack, oVirt and hands write them (tests/fixtures/domains): the memory device is
 * attached and used, and once it is detached nothing of it is left in the domain's XML, and nothing else has changed.
 */
#include "lab-domain.h"

#include <string.h>

#define OVERCOMMIT_HUGEPAGES "/proc/sys/vm/nr_overcommit_hugepages"
#define ADDED_DISK LAB_DOMAIN_FOLDER "/added.qcow2"

/* Those in which a guest boots and uses the memory; of the others QEMU is started. Emulated, a guest takes some seconds. */
static const char *const with_guest[]
    = { "hand-comments", "many-devices", "numa-distances", "numa-hmat", "numa-six-cells", "xml-only-hugepages-plain" };

/* What an operator does to a domain, each in a way that fits all of them. */
static void
edit (LabDomain *domain) {
  Host *host = host_get ();

  g_free (host_run_ok (host, "virsh", "-q", "setvcpus", domain->name, "1", "--config", NULL));
  g_free (
      host_run_ok (host, "virsh", "-q", "desc", domain->name, "--config", "--title", "--new-desc", "edited in between", NULL));
  g_free (host_run_ok (host, "virsh", "-q", "metadata", domain->name, "--config", "--uri", "http://example.com/in-between",
                       "--key", "between", "--set", "<note when='now'>kept</note>", NULL));
  g_free (host_shell (host, "qemu-img create -q -f qcow2 " ADDED_DISK " 16M"));
  g_free (host_run_ok (host, "virsh", "-q", "attach-disk", domain->name, ADDED_DISK, "vdz", "--config", "--driver", "qemu",
                       "--subdriver", "qcow2", "--targetbus", "virtio", NULL));
}

static void
expect_xml (LabDomain *domain, const char *expected, const char *when) {
  g_autofree char *xml = lab_domain_xml (domain);

  if (g_str_equal (xml, expected))
    return;
  host_write (host_get (), LAB_DOMAIN_FOLDER "/expected.xml", expected);
  host_write (host_get (), LAB_DOMAIN_FOLDER "/got.xml", xml);
  g_autoptr (HostResult) difference
      = host_run (host_get (), "diff", "-u", LAB_DOMAIN_FOLDER "/expected.xml", LAB_DOMAIN_FOLDER "/got.xml", NULL);
  g_error ("%s: the XML %s is not as it should be:\n%s", domain->name, when, difference->out);
}

static void
attach (LabDomain *domain) {
  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
}

static void
expect_second_attach_changes_nothing (LabDomain *domain) {
  g_autofree char *xml = lab_domain_xml (domain);
  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
  expect_xml (domain, xml, "after a second attach");
}

/* Large pages for guests that want them: none is reserved, they come as they are needed. Returns what was set before. */
static char *
allow_hugepages (const char *number) {
  char *before = NULL;

  g_assert_true (g_file_get_contents (OVERCOMMIT_HUGEPAGES, &before, NULL, NULL));
  g_assert_true (g_file_set_contents_full (OVERCOMMIT_HUGEPAGES, number, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  return before;
}

static void
run_with_guest (LabDomain *domain) {
  Vm *vm = lab_domain_start (domain);

  lab_domain_expect_confined (domain);
  g_free (lab_domain_ctl_ok (domain, "grow", "256M", NULL));
  g_assert_cmpint (vm_status_number (vm, "granted-blocks"), ==, 128);
  lab_domain_use (domain, 520, 64);
  g_free (lab_domain_ctl_ok (domain, "shrink", "0", NULL));
  g_assert_cmpint (vm_status_number (vm, "granted-blocks"), ==, 0);
  vm_expect_within (vm, 5, vm_host_memfd_bytes (vm) == 0);
  lab_domain_stop (domain);
}

static void
run_without_guest (LabDomain *domain) {
  g_autoptr (HostResult) started = lab_domain_start_only (domain);

  if (started->status != 0)
    host_fail (started, "with the memory device attached");
  lab_domain_expect_confined (domain);
  g_assert_cmpint (lab_domain_backend (domain), !=, 0);
  lab_domain_stop (domain);
}

static void
start_detached (LabDomain *domain) {
  g_autoptr (HostResult) started = lab_domain_start_only (domain);

  if (started->status != 0)
    host_fail (started, "with the memory device detached");
  g_assert_cmpint (lab_domain_backend (domain), ==, 0);
}

static void
test_shape (gconstpointer name) {
  g_autofree char *path = g_strdup_printf ("%s/%s.xml", DOMYBS_FIXTURES, (const char *)name);
  g_autofree char *xml = NULL;
  g_autofree char *plain = NULL;
  g_autofree char *edited = NULL;
  g_autofree char *hugepages = NULL;
  g_autoptr (GError) error = NULL;
  LabDomain *domain;
  gboolean guest = FALSE;

  if (!g_file_get_contents (path, &xml, NULL, &error))
    g_error ("%s", error->message);
  for (guint i = 0; i < G_N_ELEMENTS (with_guest); i++)
    guest |= g_str_equal (with_guest[i], name);
  /* where KubeVirt's own part of QEMU's command line has a socket */
  g_free (host_run_ok (host_get (), "install", "-d", "-o", "libvirt-qemu", "/var/run/kubevirt-private", NULL));
  domain = lab_domain_define (xml, NULL);
  plain = lab_domain_xml (domain);

  attach (domain);
  expect_second_attach_changes_nothing (domain);
  if (strstr (plain, "<hugepages"))
    hugepages = allow_hugepages ("1024");
  if (guest)
    run_with_guest (domain);
  else
    run_without_guest (domain);
  host_expect_clean (host_get (), 5);
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  expect_xml (domain, plain, "after detach");

  /* edits while it is attached remain, and nothing else */
  attach (domain);
  edit (domain);
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  edited = lab_domain_xml (domain);
  g_assert_nonnull (strstr (edited, "edited in between"));
  host_write (host_get (), LAB_DOMAIN_FOLDER "/plain.xml", plain);
  g_free (host_run_ok (host_get (), "virsh", "-q", "define", LAB_DOMAIN_FOLDER "/plain.xml", NULL));
  expect_xml (domain, plain, "defined again");
  edit (domain);
  expect_xml (domain, edited, "edited without and with the memory device attached");

  start_detached (domain);
  lab_domain_free (domain);
  if (hugepages)
    g_free (allow_hugepages (hugepages));
  host_expect_clean (host_get (), 5);
}

int
main (int argc, char **argv) {
  g_autoptr (GDir) fixtures = NULL;
  const char *file;
  int status;

  vm_test_init (&argc, &argv);
  fixtures = g_dir_open (DOMYBS_FIXTURES, 0, NULL);
  while (fixtures && (file = g_dir_read_name (fixtures)))
    if (g_str_has_suffix (file, ".xml")) {
      char *name = g_strndup (file, strlen (file) - strlen (".xml"));
      g_autofree char *path = g_strdup_printf ("/libvirt/shapes/%s", name);

      g_test_add_data_func_full (path, name, test_shape, g_free);
    }
  status = vm_test_run ();
  host_end ();
  return status;
}
