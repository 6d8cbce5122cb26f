/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What meson installs is whole, and finds its parts on a host. */
#include "lab-domain.h"

static char *
verdict_of (const char *probe) {
  g_autoptr (HostResult) result = host_run (host_get (), "domybsctl", "check", "--json", NULL);
  g_autoptr (JsonNode) node = json_from_string (result->out, NULL);
  JsonArray *findings;

  if (!node || !JSON_NODE_HOLDS_OBJECT (node))
    host_fail (result, "its output is no JSON object");
  findings = json_object_get_array_member (json_node_get_object (node), "findings");
  for (guint i = 0; findings && i < json_array_get_length (findings); i++) {
    JsonObject *finding = json_array_get_object_element (findings, i);

    if (g_str_equal (json_object_get_string_member_with_default (finding, "probe", ""), probe))
      return g_strdup (json_object_get_string_member_with_default (finding, "verdict", "none"));
  }
  host_fail (result, "it has nothing to say about '%s'", probe);
}

static void
expect_verdict (const char *probe, const char *expected) {
  g_autofree char *verdict = verdict_of (probe);

  if (!g_str_equal (verdict, expected))
    g_error ("domybsctl check says '%s' of '%s', expected is '%s'", verdict, probe, expected);
}

static void
test_check (void) {
  static const char *const good[] = { "programs", "libvirt", "qemu", "qemu-user", "hook", "strays" };
  g_autofree char *hook = NULL;

  for (guint i = 0; i < G_N_ELEMENTS (good); i++)
    expect_verdict (good[i], "ok");
  /* it does look */
  hook = g_strstrip (host_shell (host_get (), "ls /etc/libvirt/hooks/qemu.d/domybs"));
  g_free (host_run_ok (host_get (), "mv", hook, "/root/hook", NULL));
  expect_verdict ("hook", "to-do");
  g_free (host_run_ok (host_get (), "mv", "/root/hook", hook, NULL));
  /* libvirtd looks for hooks when it starts, and the check knows that */
  host_libvirtd (host_get (), "kill");
  host_libvirtd (host_get (), "start");
  expect_verdict ("hook", "ok");
}

static void
test_units (void) {
  g_free (host_shell (host_get (), "systemd-analyze verify --man=no domybs-backend@.service domybs-backend@.socket"));
  g_free (host_shell (host_get (), "systemd-tmpfiles --create --dry-run domybs.conf"));
}

/* The user whom workers are: without the file they would be nobody, as on a host where it was not applied. */
static void
test_user (void) {
  g_autofree char *would = NULL;

  would = host_shell (host_get (), "systemd-sysusers --dry-run domybs.conf 2>&1");
  g_test_message ("%s", g_strchomp (would));
  g_free (host_shell (host_get (), "systemd-sysusers domybs.conf && test \"$(id -un domybs)\" = domybs"));
  /* nobody's to log in with */
  g_free (host_shell (host_get (), "getent passwd domybs | grep -q ':/usr/sbin/nologin$'"));
}

static void
test_shells (void) {
  g_free (host_shell (host_get (), "sh -n /etc/libvirt/hooks/qemu.d/domybs"));
  g_free (host_shell (host_get (), "bash -n \"$(find /usr -path '*bash-completion/completions/domybsctl')\""));
}

int
main (int argc, char **argv) {
  int status;

  vm_test_init (&argc, &argv);
  g_test_add_func ("/libvirt/installed/check", test_check);
  g_test_add_func ("/libvirt/installed/units", test_units);
  g_test_add_func ("/libvirt/installed/user", test_user);
  g_test_add_func ("/libvirt/installed/shells", test_shells);
  status = vm_test_run ();
  host_end ();
  return status;
}
