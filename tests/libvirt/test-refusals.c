/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What can't be done with a real libvirtd: one clear line, the right exit status, nothing changed. (What needs no libvirtd is
 * in tests/ctl, tests/domain and tests/hook.)
 */
#include "lab-domain.h"

#include <string.h>

enum { USAGE = 2, NOT_FOUND = 3, REFUSED = 4, NO_ACCESS = 5 };

#define ATTACH "attach", "--window=4G", "--local-max=512M"
#define OLD_QEMU "/srv/old-qemu/qemu-system-x86_64"

static char *
with (const char *find, const char *put) {
  g_auto (GStrv) halves = g_strsplit (lab_domain_plain, find, 2);

  g_assert_cmpuint (g_strv_length (halves), ==, 2);
  return g_strconcat (halves[0], put, find, halves[1], NULL);
}

static void
expect_error (const HostResult *result, int status, const char *words) {
  g_auto (GStrv) all = g_strsplit (words, "|", -1);
  const gchar *end = strchr (result->err, '\n');

  if (result->status != status)
    host_fail (result, "expected is exit status %d", status);
  if (!g_str_has_prefix (result->err, "domybsctl: error: ") || !end || end[1] || strlen (result->err) > 500)
    host_fail (result, "expected is one line");
  for (guint i = 0; all[i]; i++)
    if (!strstr (result->err, all[i]))
      host_fail (result, "expected is '%s' in it", all[i]);
  g_test_message ("%.*s", (int)(end - result->err), result->err);
}

/* ---- attach refuses ---- */

typedef struct {
  const char *name;
  const char *before, *put; /* puts something into the plain domain's XML, before the first place of that text */
  const char *emulator;
  const char *window;
  int status;
  const char *words; /* that the error has, separated by | */
} Refusal;

static const Refusal refusals[] = {
  { "qemu-too-old", NULL, NULL, OLD_QEMU, "--window=4G", REFUSED, "domain 'plain': |10.0.|11.0|; " },
  { "window-beyond-phys-bits", NULL, NULL, NULL, "--window=64T", REFUSED, "domain 'plain': |46|; " },
  { "window-no-size", NULL, NULL, NULL, "--window=many", USAGE, "--window|'many'" },
  { "window-no-power-of-two", NULL, NULL, NULL, "--window=5G", USAGE, "--window|5G|power of two" },
  { "locked-memory", "  <vcpu>", "<memoryBacking><locked/></memoryBacking>", NULL, "--window=4G", REFUSED,
    "domain 'plain': |locked|; " },
  { "hostdev", "    <memballoon",
    "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0' bus='0' slot='3' "
    "function='0'/></source></hostdev>",
    NULL, "--window=4G", REFUSED, "domain 'plain': |hostdev|; " },
};

static void
test_attach (gconstpointer data) {
  const Refusal *refusal = data;
  g_autofree char *xml = refusal->before ? with (refusal->before, refusal->put) : g_strdup (lab_domain_plain);
  LabDomain *domain = lab_domain_define (xml, &(LabDomainOptions){ .emulator = refusal->emulator });
  g_autofree char *before = lab_domain_xml (domain);
  g_autofree char *after = NULL;
  g_autoptr (HostResult) result = lab_domain_ctl (domain, "attach", refusal->window, NULL);

  expect_error (result, refusal->status, refusal->words);
  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, before);
  host_expect_clean (host_get (), 0);
  lab_domain_free (domain);
}

/* A VM that was started without the port has no place to plug the device into. */
static void
test_live_without_port (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autoptr (HostResult) started = lab_domain_start_only (domain);
  g_autofree char *before = lab_domain_xml (domain);
  g_autofree char *after = NULL;
  g_autoptr (HostResult) result = NULL;

  g_assert_cmpint (started->status, ==, 0);
  result = lab_domain_ctl (domain, "attach", "--live", "--window=4G", NULL);
  expect_error (result, REFUSED, "domain 'plain': |restart|; ");
  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, before);
  g_assert_cmpint (lab_domain_backend (domain), ==, 0);
  lab_domain_free (domain);
  host_expect_clean (host_get (), 5);
}

/* ---- who may not ---- */

static void
test_no_permission (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  Host *host = host_get ();
  g_autofree char *before = NULL;
  g_autofree char *after = NULL;

  g_free (lab_domain_ctl_ok (domain, ATTACH, NULL));
  before = lab_domain_xml (domain);
  g_autoptr (HostResult) started = lab_domain_start_only (domain);
  g_assert_cmpint (started->status, ==, 0);

  /* anybody may read what libvirt lets anybody read, and is told what is missing */
  g_autoptr (HostResult) list
      = host_run (host, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "domybsctl", "list", NULL);
  if (list->status != 0 || !strstr (list->out, "plain") || !strstr (list->err, "domain 'plain': no permission"))
    host_fail (list, "expected is a list, and a word about permission");
  g_autoptr (HostResult) detach
      = host_run (host, "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "domybsctl", "detach", "plain", NULL);
  expect_error (detach, NO_ACCESS, "qemu:///system|; ");
  /* libvirt's, but the back-end's control socket is root's */
  g_autoptr (HostResult) grow = host_run (host, "setpriv", "--reuid=nobody", "--regid=nogroup", "--groups=libvirt", "domybsctl",
                                          "grow", "plain", "128M", NULL);
  expect_error (grow, NO_ACCESS, "domain 'plain': |; ");

  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, before);
  g_assert_cmpint (lab_domain_backend (domain), !=, 0);
  lab_domain_free (domain);
  host_expect_clean (host, 5);
}

static void
test_no_libvirtd (void) {
  host_libvirtd (host_get (), "kill");
  g_autoptr (HostResult) result = host_run (host_get (), "domybsctl", "attach", "plain", NULL);
  expect_error (result, NO_ACCESS, "qemu:///system|; ");
  host_libvirtd (host_get (), "start");
}

static void
test_unknown_domain (void) {
  g_autoptr (HostResult) result = host_run (host_get (), "domybsctl", "grow", "nowhere", "1G", NULL);

  expect_error (result, NOT_FOUND, "'nowhere'|; ");
}

/* ---- libvirt refuses to start it ---- */

static void
expect_no_start (LabDomain *domain, const char *words) {
  g_autoptr (HostResult) started = lab_domain_start_only (domain);
  g_auto (GStrv) all = g_strsplit (words, "|", -1);

  if (started->status == 0)
    host_fail (started, "it should not start");
  for (guint i = 0; all[i]; i++)
    if (!strstr (started->err, all[i]))
      host_fail (started, "expected is '%s' in it", all[i]);
  host_expect_clean (host_get (), 5);
}

static void
test_no_backend (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autofree char *program = g_strstrip (host_shell (host_get (), "command -v domybs-backend"));

  g_free (lab_domain_ctl_ok (domain, ATTACH, NULL));
  g_free (host_shell (host_get (), "mv %s %s.away", program, program));
  expect_no_start (domain, "domybs|domain 'plain'|; ");
  g_free (host_shell (host_get (), "mv %s.away %s", program, program));
  host_result_free (lab_domain_start_only (domain));
  g_assert_cmpint (lab_domain_backend (domain), !=, 0);
  lab_domain_free (domain);
}

/* The author of a domain's XML may be less privileged than who reads it. */
static void
test_broken_metadata (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autofree char *broken = NULL;
  g_autofree char *after = NULL;

  g_free (lab_domain_ctl_ok (domain, ATTACH, NULL));
  g_free (host_run_ok (host_get (), "virsh", "-q", "metadata", domain->name, "--config", "--uri", "urn:domybs:libvirt:1",
                       "--key", "domybs", "--set",
                       "<domybs><memory window='--help' local-max='1' grant='../../etc' numa-node='9999'/></domybs>", NULL));
  broken = lab_domain_xml (domain);
  g_autoptr (HostResult) attach = lab_domain_ctl (domain, ATTACH, NULL);
  expect_error (attach, REFUSED, "domain 'plain': |metadata|; ");
  g_autoptr (HostResult) detach = lab_domain_ctl (domain, "detach", NULL);
  expect_error (detach, REFUSED, "domain 'plain': |metadata|; ");
  after = lab_domain_xml (domain);
  g_assert_cmpstr (after, ==, broken);
  expect_no_start (domain, "domybs|metadata|; ");
  lab_domain_free (domain);
}

/* What somebody adds later may make it impossible: then the VM does not start, rather than take all of the window at once. */
static void
test_locked_afterwards (void) {
  LabDomain *domain = lab_domain_define (lab_domain_plain, NULL);
  g_autofree char *plain = lab_domain_xml (domain);
  g_autofree char *attached = NULL;
  g_autofree char *after = NULL;

  g_free (lab_domain_ctl_ok (domain, ATTACH, NULL));
  attached = lab_domain_xml (domain);
  g_auto (GStrv) halves = g_strsplit (attached, "<access mode='shared'/>", 2);
  g_autofree char *locked = g_strjoinv ("<access mode='shared'/><locked/>", halves);
  g_assert_cmpstr (locked, !=, attached);
  host_write (host_get (), LAB_DOMAIN_FOLDER "/locked.xml", locked);
  g_free (host_run_ok (host_get (), "virsh", "-q", "define", LAB_DOMAIN_FOLDER "/locked.xml", NULL));
  expect_no_start (domain, "domybs|domain 'plain'|locked|; ");

  /* detach takes away what is ours; what somebody added stays */
  g_free (lab_domain_ctl_ok (domain, "detach", NULL));
  after = lab_domain_xml (domain);
  g_assert_nonnull (strstr (after, "<locked/>"));
  g_assert_null (strstr (after, "domybs-port"));
  g_assert_null (strstr (after, "<access"));
  g_assert_cmpstr (after, !=, plain);
  lab_domain_free (domain);
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  for (guint i = 0; i < G_N_ELEMENTS (refusals); i++) {
    g_autofree char *path = g_strdup_printf ("/libvirt/refusals/attach/%s", refusals[i].name);

    g_test_add_data_func (path, &refusals[i], test_attach);
  }
  g_test_add_func ("/libvirt/refusals/live-without-port", test_live_without_port);
  g_test_add_func ("/libvirt/refusals/no-permission", test_no_permission);
  g_test_add_func ("/libvirt/refusals/no-libvirtd", test_no_libvirtd);
  g_test_add_func ("/libvirt/refusals/unknown-domain", test_unknown_domain);
  g_test_add_func ("/libvirt/refusals/no-back-end", test_no_backend);
  g_test_add_func ("/libvirt/refusals/broken-metadata", test_broken_metadata);
  g_test_add_func ("/libvirt/refusals/locked-afterwards", test_locked_afterwards);
  status = vm_test_run ();
  host_end ();
  return status;
}
