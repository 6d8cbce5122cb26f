/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The back-end's answer to `status` is read, or refused as a whole; and each state of a VM is explained. */
#include "error.h"
#include "testing.h"
#include "ctl/vm-describe.h"

#include <string.h>

#define GOOD                                                                                                                   \
  "\"block-bytes\":2097152,\"window-blocks\":2048,\"max-blocks\":1024,\"granted-blocks\":5,\"target-blocks\":null,"            \
  "\"connected\":true,\"window-mapped\":true,\"session\":true,\"memfd-bytes\":4096,\"requests\":7"

static gboolean
read_text (const char *text, VmStatus *ret_status, GError **error) {
  g_autoptr (JsonNode) node = json_from_string (text, NULL);

  g_assert_nonnull (node);
  return vm_status_read (json_node_get_object (node), ret_status, error);
}

static void
reads_the_least (void) {
  g_autoptr (GError) error = NULL;
  VmStatus status;

  g_assert_true (read_text ("{" GOOD "}", &status, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (status.granted_blocks, ==, 5);
  g_assert_false (status.have_target);
  g_assert_cmpuint (status.blocks_stuck, ==, VM_UNKNOWN);
  g_assert_cmpuint (status.host_reserve_bytes, ==, VM_UNKNOWN);
  g_assert_null (status.refused_reason);
  g_assert_null (status.driver);
  vm_status_clear (&status);
}

static void
reads_all (void) {
  g_autoptr (GError) error = NULL;
  VmStatus status;

  g_assert_true (read_text ("{" GOOD ",\"refused-reason\":\"capacity\",\"refused-age-ms\":9,\"stats-age-ms\":null,\"pid\":12,"
                            "\"future\":[1,{}],\"guest\":{\"driver\":\"x 1\",\"blocks-stuck\":3,\"mem-total-bytes\":\"lie\"}}",
                            &status, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (status.refused_reason, ==, "capacity");
  g_assert_cmpuint (status.refused_age_ms, ==, 9);
  g_assert_cmpuint (status.stats_age_ms, ==, VM_UNKNOWN);
  g_assert_cmpstr (status.driver, ==, "x 1");
  g_assert_cmpuint (status.blocks_stuck, ==, 3);
  g_assert_cmpuint (status.mem_total_bytes, ==, VM_UNKNOWN);
  vm_status_clear (&status);
}

/* Nothing of it may keep the figures from being shown. */
static void
reads_workers (void) {
  static const char *const odd[] = { "null", "7", "[]", "{}", "{\"pid\":-1,\"mode\":9,\"last-death\":{},\"rolled-back\":1}" };
  g_autoptr (GError) error = NULL;
  VmStatus status;

  g_assert_true (read_text ("{" GOOD "}", &status, &error));
  g_assert_false (status.worker.known);
  vm_status_clear (&status);
  g_assert_true (read_text ("{" GOOD ",\"worker\":{\"pid\":12,\"keeper-pid\":11,\"version\":\"0.1.0\",\"state-version\":2,"
                            "\"mode\":\"busy\",\"starts\":5,\"deaths\":4,\"strikes\":3,\"last-death\":\"exit status 1\","
                            "\"last-death-age-ms\":9,\"age-ms\":8,\"keeper-age-ms\":7,\"rolled-back\":true}}",
                            &status, &error));
  g_assert_no_error (error);
  g_assert_true (status.worker.known && status.worker.busy && status.worker.rolled_back);
  g_assert_cmpuint (status.worker.pid, ==, 12);
  g_assert_cmpuint (status.worker.keeper_pid, ==, 11);
  g_assert_cmpuint (status.worker.state_version, ==, 2);
  g_assert_cmpuint (status.worker.starts, ==, 5);
  g_assert_cmpuint (status.worker.deaths, ==, 4);
  g_assert_cmpuint (status.worker.strikes, ==, 3);
  g_assert_cmpuint (status.worker.last_death_age_ms, ==, 9);
  g_assert_cmpuint (status.worker.age_ms, ==, 8);
  g_assert_cmpuint (status.worker.keeper_age_ms, ==, 7);
  g_assert_cmpstr (status.worker.version, ==, "0.1.0");
  g_assert_cmpstr (status.worker.last_death, ==, "exit status 1");
  vm_status_clear (&status);
  for (size_t i = 0; i < G_N_ELEMENTS (odd); i++) {
    g_autofree char *text = g_strdup_printf ("{" GOOD ",\"worker\":%s}", odd[i]);

    g_assert_true (read_text (text, &status, &error));
    g_assert_false (status.worker.busy || status.worker.rolled_back);
    g_assert_null (status.worker.last_death);
    if (status.worker.known)
      g_assert_cmpuint (status.worker.pid, ==, VM_UNKNOWN);
    vm_status_clear (&status);
  }
}

static void
refuses_nonsense (void) {
  static const char *const bad[] = {
    "{}",
    "{" GOOD ",\"block-bytes\":4096}",
    "{" GOOD ",\"window-blocks\":-1}",
    "{" GOOD ",\"window-blocks\":\"2048\"}",
    "{" GOOD ",\"window-blocks\":2048.5}",
    "{" GOOD ",\"window-blocks\":9223372036854775807}",
    "{" GOOD ",\"max-blocks\":2049}",
    "{" GOOD ",\"granted-blocks\":2049}",
    "{" GOOD ",\"granted-blocks\":null}",
    "{" GOOD ",\"target-blocks\":true}",
    "{" GOOD ",\"connected\":1}",
    "{" GOOD ",\"session\":null}",
    "{" GOOD ",\"memfd-bytes\":-5}",
    "{" GOOD ",\"requests\":[]}",
  };

  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_autoptr (GError) error = NULL;
    VmStatus status;

    g_test_message ("%s", bad[i]);
    g_assert_false (read_text (bad[i], &status, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_ACCESS);
  }
}

/* ---- words ---- */

static Vm
good_vm (void) {
  return (Vm){
    .name = (char *)"vm1",
    .label = "vm1",
    .word = "vm1",
    .id = 3,
    .state = VM_RUNNING,
    .attached = TRUE,
    .memory = { .window_bytes = 4ull << 30, .local_max_bytes = 2ull << 30, .numa_node = -1, .present = TRUE },
    .have_status = TRUE,
    .status = { .block_bytes = 2u << 20,
                .window_blocks = 2048,
                .max_blocks = 1024,
                .connected = TRUE,
                .session = TRUE,
                .refused_age_ms = VM_UNKNOWN,
                .host_limit_blocks = 4096,
                .host_reserve_bytes = 1u << 30,
                .blocks_stuck = VM_UNKNOWN },
  };
}

static void
must_say (const Vm *vm, const char *words) {
  g_autofree char *why = vm_explain (vm);

  g_test_message ("%s", why);
  if (!strstr (why, words))
    g_error ("'%s' is not in: %s", words, why);
  g_assert_null (strchr (why, '\n'));
}

static void
explains_states (void) {
  g_autoptr (GError) problem = g_error_new_literal (CTL_ERROR, CTL_ERROR_ACCESS, "its back-end is not running");
  Vm vm = good_vm ();

  must_say (&vm, "has enough memory of its own");
  vm.status.granted_blocks = 100;
  must_say (&vm, "The guest decides");
  vm.status.granted_blocks = 1024;
  must_say (&vm, "all that it may borrow");
  vm.status.refused_reason = (char *)"host-memory";
  vm.status.refused_age_ms = 100;
  must_say (&vm, "short of memory");
  vm.status.refused_age_ms = 1000000;
  must_say (&vm, "all that it may borrow");
  vm.status.have_target = TRUE;
  vm.status.target_blocks = 1024;
  must_say (&vm, "that is what it has");
  vm.status.target_blocks = 512;
  must_say (&vm, "on its way");
  vm.status.blocks_stuck = 512;
  must_say (&vm, "can't move");
  vm.status.granted_blocks = 100;
  vm.status.refused_age_ms = 10;
  must_say (&vm, "short of memory");
  vm.status.session = FALSE;
  must_say (&vm, "virtio_domybs is not loaded");
  vm.state = VM_PAUSED;
  must_say (&vm, "virsh resume vm1");
  vm.status.connected = FALSE;
  must_say (&vm, "waits for QEMU");
  vm.problem = problem;
  must_say (&vm, "its back-end is not running");
  vm.problem = NULL;
  vm.memory.present = FALSE;
  must_say (&vm, "attach vm1 --live");
  vm.id = -1;
  must_say (&vm, "not running");
  vm.attached = FALSE;
  must_say (&vm, "domybsctl attach vm1");
  vm.pending = TRUE;
  must_say (&vm, "next start");
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/vm-status/reads-the-least", reads_the_least);
  g_test_add_func ("/vm-status/reads-all", reads_all);
  g_test_add_func ("/vm-status/reads-workers", reads_workers);
  g_test_add_func ("/vm-status/refuses-nonsense", refuses_nonsense);
  g_test_add_func ("/vm-status/explains-states", explains_states);
  return g_test_run ();
}
