/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guests that can't do what they are told: the commands end in bounded time and say exactly how far it went, and why. */
#include "lab-domain.h"

#include <string.h>

#define INCOMPLETE 6
#define SECONDS_MAX 45 /* below the commands' own limit of 60 s: they have noticed */

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

/* A command that must end incomplete: its JSON. */
static JsonNode *
expect_incomplete (HostResult *result, const char *reason) {
  g_autoptr (JsonNode) node = NULL;
  g_autoptr (GError) error = NULL;
  JsonObject *object, *failure;
  const char *message;

  if (result->status != INCOMPLETE)
    host_fail (result, "expected is exit status %d", INCOMPLETE);
  if (result->seconds > SECONDS_MAX)
    host_fail (result, "expected is an end within %d s", SECONDS_MAX);
  node = json_from_string (result->out, &error);
  if (!node || !JSON_NODE_HOLDS_OBJECT (node))
    host_fail (result, "its output is no JSON object");
  object = json_node_get_object (node);
  failure = json_object_get_object_member (object, "error");
  message = json_object_get_string_member_with_default (failure, "message", "");
  g_assert_cmpstr (json_object_get_string_member_with_default (failure, "code", ""), ==, "incomplete");
  g_assert_cmpstr (json_object_get_string_member_with_default (object, "reason", ""), ==, reason);
  /* one line that names the domain and gives cause and next step */
  g_assert_true (g_str_has_suffix (result->err, "\n") && strchr (result->err, '\n') == result->err + strlen (result->err) - 1);
  g_assert_nonnull (strstr (result->err, message));
  g_assert_nonnull (strstr (result->err, "domain 'plain': "));
  g_assert_nonnull (strstr (result->err, "; "));
  g_test_message ("after %.1f s: %s", result->seconds, g_strchomp (result->err));
  return g_steal_pointer (&node);
}

static gint64
bytes (JsonNode *node, const char *member) {
  JsonObject *object = json_node_get_object (node);

  if (!json_object_has_member (object, member))
    g_error ("no member %s", member);
  return json_object_get_int_member (object, member);
}

/* What a command said that it reached is what there is, by the back-end's books, the guest's, and the host's kernel. */
static void
expect_reached (LabDomain *d, gint64 reached) {
  g_assert_cmpint (vm_status_number (d->vm, "granted-blocks"), ==, reached / (gint64)VM_BLOCK_BYTES);
  g_assert_cmpuint (vm_driver_number (d->vm, "granted_blocks"), ==, (guint64)reached / VM_BLOCK_BYTES);
  g_assert_cmpuint (vm_host_memfd_bytes (d->vm), <=, (guint64)reached);
}

static void
expect_back (LabDomain *d) {
  g_free (lab_domain_ctl_ok (d, "shrink", "0", NULL));
  expect_reached (d, 0);
}

/* ---- the guest needs what it has ---- */

static void
test_needed (void) {
  LabDomain *d = get_domain ();
  g_autoptr (HostResult) result = NULL;
  g_autoptr (JsonNode) node = NULL;
  gint64 reached;

  g_free (lab_domain_ctl_ok (d, "grow", "512M", NULL));
  vm_job_start (d->vm, "use", "memtool fill 700M --hold");
  g_free (vm_job_expect (d->vm, "use", "ok verified", 60));
  result = lab_domain_ctl (d, "shrink", "0", "--json", NULL);
  node = expect_incomplete (result, "guest-needs");
  reached = bytes (node, "reached-bytes");
  g_assert_cmpint (reached, >, 100 * (gint64)VM_MIB);
  g_assert_cmpint (reached, <, 512 * (gint64)VM_MIB);
  expect_reached (d, reached);
  g_assert_cmpint (bytes (node, "start-bytes"), ==, 512 * (gint64)VM_MIB);
  g_assert_cmpint (bytes (node, "goal-bytes"), ==, 0);
  g_free (vm_job_ask (d->vm, "use", "verify", 60));
  vm_job_tell (d->vm, "use", "exit");
  g_assert_cmpint (vm_job_wait (d->vm, "use", 60, NULL), ==, 0);
  expect_back (d);
}

/* ---- pages that can't be moved ---- */

/* A program in the guest has blocks of its own, by way of /dev/domybs: those are its, whatever the host wants. */
static void
allocate (LabDomain *d, guint mib) {
  g_autofree char *line = g_strdup_printf ("allocate 0 %u local 1", mib);

  vm_job_start (d->vm, "hold", "usertool");
  g_free (vm_job_ask (d->vm, "hold", line, 60));
}

static void
end_hold (LabDomain *d) {
  vm_job_tell (d->vm, "hold", "exit");
  g_assert_cmpint (vm_job_wait (d->vm, "hold", 60, NULL), ==, 0);
}

static void
test_held (void) {
  LabDomain *d = get_domain ();
  g_autoptr (HostResult) result = NULL;
  g_autoptr (JsonNode) node = NULL;
  gint64 reached;

  g_free (lab_domain_ctl_ok (d, "grow", "384M", NULL));
  allocate (d, 64);
  result = lab_domain_ctl (d, "shrink", "0", "--json", NULL);
  node = expect_incomplete (result, "stuck");
  reached = bytes (node, "reached-bytes");
  g_assert_cmpint (reached, ==, 64 * (gint64)VM_MIB);
  expect_reached (d, reached);
  g_free (vm_job_ask (d->vm, "hold", "verify 0", 60));
  end_hold (d);
  expect_back (d);
}

/* ---- growing beyond what there is ---- */

static void
test_capacity (void) {
  LabDomain *d = get_domain ();
  g_autoptr (HostResult) result = lab_domain_ctl (d, "grow", "1G", "--json", NULL);
  g_autoptr (JsonNode) node = expect_incomplete (result, "capacity");

  g_assert_cmpint (bytes (node, "reached-bytes"), ==, 512 * (gint64)VM_MIB);
  expect_reached (d, 512 * (gint64)VM_MIB);
  expect_back (d);
}

/* ---- live detach ---- */

static void
test_detach (void) {
  LabDomain *d = get_domain ();
  g_autoptr (HostResult) result = NULL;
  g_autoptr (JsonNode) node = NULL;
  g_autofree char *before = lab_domain_xml (d);
  g_autofree char *after = NULL;
  gint64 reached;

  g_free (lab_domain_ctl_ok (d, "grow", "256M", NULL));
  allocate (d, 64);
  result = lab_domain_ctl (d, "detach", "--live", "--json", NULL);
  node = expect_incomplete (result, "stuck");
  reached = bytes (node, "reached-bytes");
  g_assert_cmpint (reached, >=, 64 * (gint64)VM_MIB);
  g_assert_cmpint (reached, <, 256 * (gint64)VM_MIB);
  /* nothing is as if it had been detached: the target is as it was, so the guest gets back what it gave */
  g_assert_cmpint (vm_status_number (d->vm, "target-blocks"), ==, 128);
  vm_expect_within (d->vm, 20, vm_status_number (d->vm, "granted-blocks") == 128);
  g_free (vm_job_ask (d->vm, "hold", "verify 0", 60));
  after = lab_domain_xml (d);
  g_assert_cmpstr (after, ==, before);
  end_hold (d);
  g_free (lab_domain_ctl_ok (d, "detach", "--live", NULL));
  lab_domain_find_backend (d);
  g_assert_cmpint (lab_domain_backend (d), ==, 0);
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
  g_test_add_func ("/libvirt/stuck/needed", test_needed);
  g_test_add_func ("/libvirt/stuck/held", test_held);
  g_test_add_func ("/libvirt/stuck/capacity", test_capacity);
  g_test_add_func ("/libvirt/stuck/detach", test_detach);
  g_test_add_func ("/libvirt/stuck/no-complaint", test_end);
  status = vm_test_run ();
  host_end ();
  return status;
}
