/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far disks through libvirt: domains of all shapes start with them and are afterwards what they were, to the byte; and a guest
 * that has them as swap gets more memory than it has, intact, also while domybs-far's worker is killed.
 */
#include "lab-domain.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define STORAGE "/var/lib/domybs/far"

static GPid
find_far (LabDomain *domain) {
  g_autofree char *needle = g_strdup_printf ("/run/domybs/vm/%s/", domain->uuid);

  return host_find_process (host_get (), "domybs-far", needle);
}

static void
expect_same (const char *is, const char *expected, const char *when) {
  if (g_str_equal (is, expected))
    return;
  host_write (host_get (), LAB_DOMAIN_FOLDER "/expected.xml", expected);
  host_write (host_get (), LAB_DOMAIN_FOLDER "/got.xml", is);
  g_autoptr (HostResult) difference
      = host_run (host_get (), "diff", "-u", LAB_DOMAIN_FOLDER "/expected.xml", LAB_DOMAIN_FOLDER "/got.xml", NULL);
  g_error ("the XML %s is not as it should be:\n%s", when, difference->out);
}

/* What `status --json` says of the disk of that tier. */
static JsonObject *
status_disk (LabDomain *domain, const char *tier, JsonParser **ret_parser) {
  g_autofree char *text = lab_domain_ctl_ok (domain, "status", "--json", NULL);
  JsonObject *far;
  JsonArray *disks;

  *ret_parser = json_parser_new ();
  g_assert_true (json_parser_load_from_data (*ret_parser, text, -1, NULL));
  far = json_object_get_object_member (
      json_object_get_object_member (json_node_get_object (json_parser_get_root (*ret_parser)), "domain"), "far");
  disks = json_object_get_array_member (far, "disks");
  for (guint i = 0; i < json_array_get_length (disks); i++)
    if (g_str_equal (json_object_get_string_member (json_array_get_object_element (disks, i), "tier"), tier))
      return json_array_get_object_element (disks, i);
  g_error ("no disk '%s' in %s", tier, text);
}

static gint64
disk_number (LabDomain *domain, const char *tier, const char *member) {
  g_autoptr (JsonParser) parser = NULL;

  return json_object_get_int_member (status_disk (domain, tier, &parser), member);
}

static gboolean
is_connected (LabDomain *domain, const char *tier) {
  g_autoptr (JsonParser) parser = NULL;

  return json_object_get_boolean_member (status_disk (domain, tier, &parser), "connected");
}

static void
expect_no_files (void) {
  g_autofree char *files = host_shell (host_get (), "ls -A " STORAGE);

  g_assert_cmpstr (files, ==, "");
}

/* ---- shapes ---- */

static void
start_and_stop (LabDomain *domain) {
  g_autoptr (HostResult) started = lab_domain_start_only (domain);

  if (started->status != 0)
    host_fail (started, "with far disks attached");
  lab_domain_expect_confined (domain);
  g_assert_cmpint (find_far (domain), !=, 0);
  g_assert_true (is_connected (domain, "shared"));
  g_assert_true (is_connected (domain, "remote"));
  expect_no_files ();
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 10);
  expect_no_files ();
}

static void
test_shape (gconstpointer name) {
  g_autofree char *path = g_strdup_printf ("%s/%s.xml", DOMYBS_FIXTURES, (const char *)name);
  g_autofree char *xml = NULL, *plain = NULL, *attached = NULL, *again = NULL, *without = NULL, *after = NULL,
                  *hugepages = NULL;
  LabDomain *domain;

  g_assert_true (g_file_get_contents (path, &xml, NULL, NULL));
  g_free (host_run_ok (host_get (), "install", "-d", "-o", "libvirt-qemu", "/var/run/kubevirt-private", NULL));
  domain = lab_domain_define (xml, NULL);
  plain = lab_domain_xml (domain);
  g_free (lab_domain_ctl_ok (domain, "attach", "--far=shared=256M,remote=128M", NULL));
  attached = lab_domain_xml (domain);
  g_free (lab_domain_ctl_ok (domain, "attach", "--far=shared=256M,remote=128M", NULL));
  again = lab_domain_xml (domain);
  expect_same (again, attached, "after a second attach");
  if (!strstr (plain, "<hugepages"))
    start_and_stop (domain);

  /* The memory device beside them, which then goes alone. */
  g_free (lab_domain_ctl_ok (domain, "attach", "--window=4G", "--local-max=512M", NULL));
  if (g_str_has_prefix (name, "many") || g_str_has_prefix (name, "numa-six"))
    start_and_stop (domain);
  g_free (lab_domain_ctl_ok (domain, "detach", "--far", NULL));
  without = lab_domain_xml (domain);
  g_assert_null (strstr (without, "vhostuser"));
  g_assert_nonnull (strstr (without, "domybs-port"));
  g_free (lab_domain_ctl_ok (domain, "attach", "--far=remote=128M", NULL));
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  after = lab_domain_xml (domain);
  expect_same (after, plain, "after detach");
  lab_domain_free (domain);
}

/* ---- a guest ---- */

static void
test_guest (void) {
  const LabDomainOptions small = { .ram_mib_max = 256 };
  LabDomain *domain = lab_domain_define (lab_domain_plain, &small);
  Vm *vm;

  g_free (lab_domain_ctl_ok (domain, "attach", "--far=shared=1G,remote=256M", NULL));
  vm = lab_domain_start (domain);
  lab_domain_swap_on (domain);
  vm_job_start (vm, "use", "memtool fill 360M --hold");
  g_free (vm_job_expect (vm, "use", "ok verified", 180));
  g_assert_cmpint (disk_number (domain, "shared", "used-bytes"), >, 64 << 20);
  g_assert_cmpint (disk_number (domain, "remote", "used-bytes"), <, 1 << 20); /* its turn comes when the first is full */

  for (int i = 0; i < 2; i++) {
    const GPid worker = host_find_process (host_get (), "domybs-far-work", "--worker");

    g_assert_cmpint (worker, >, 0);
    vm_job_tell (vm, "use", "verify");
    g_usleep (200000);
    g_assert_cmpint (kill (worker, SIGKILL), ==, 0);
    g_free (vm_job_expect (vm, "use", "ok", 180));
  }
  g_assert_cmpint (disk_number (domain, "shared", "errors"), ==, 0);
  vm_job_tell (vm, "use", "exit");
  g_assert_cmpint (vm_job_wait (vm, "use", 60, NULL), ==, 0);
  vm_expect_within (vm, 20, disk_number (domain, "shared", "used-bytes") < 32 << 20);

  /* What a boot has left is nobody's. */
  vm_job_start (vm, "use", "memtool fill 280M --hold");
  g_free (vm_job_expect (vm, "use", "ok verified", 180));
  vm_reboot (vm);
  lab_domain_swap_on (domain);
  vm_expect_within (vm, 20, disk_number (domain, "shared", "used-bytes") < 16 << 20);
  lab_domain_stop (domain);
  host_expect_clean (host_get (), 10);
  lab_domain_free (domain);
}

/* ---- what is refused ---- */

static void
expect_refused (LabDomain *domain, const char *option, const char *more, const char *word) {
  g_autoptr (HostResult) result = lab_domain_ctl (domain, "attach", option, more, NULL);

  g_assert_cmpint (result->status, ==, 4);
  if (!strstr (result->err, word))
    host_fail (result, "it does not say “%s”", word);
}

static void
test_refused (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autofree char *plain = lab_domain_xml (domain), *after = NULL;
  g_autoptr (HostResult) started = NULL;

  expect_refused (domain, "--far=shared=1G", "--far-storage=/nowhere/at/all", "not there");
  expect_refused (domain, "--far=shared=1G,remote=1G", "--far-storage=/etc/passwd", "one file");
  expect_refused (domain, "--far=shared=1G", "--far-storage=/dev/null", "neither a folder");
  after = lab_domain_xml (domain);
  expect_same (after, plain, "after what was refused");

  /* A file that is somebody's is left alone, and the VM does not start. */
  g_free (lab_domain_ctl_ok (domain, "attach", "--far=shared=256M", "--far-storage=/etc/passwd", NULL));
  started = lab_domain_start_only (domain);
  g_assert_cmpint (started->status, !=, 0);
  if (!strstr (started->err, "domybs-far"))
    host_fail (started, "it does not say why");
  host_expect_clean (host_get (), 10);
  g_free (host_run_ok (host_get (), "grep", "-q", "^root:", "/etc/passwd", NULL));
  lab_domain_free (domain);
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
      g_autofree char *path = g_strdup_printf ("/libvirt/far/shape/%s", name);

      g_test_add_data_func_full (path, name, test_shape, g_free);
    }
  g_test_add_func ("/libvirt/far/guest", test_guest);
  g_test_add_func ("/libvirt/far/refused", test_refused);
  status = vm_test_run ();
  host_end ();
  return status;
}
