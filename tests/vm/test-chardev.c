/* SPDX-License-Identifier: GPL-2.0-or-later */
/* /dev/domybs: programs of the guest that have blocks of their own. */
#include "scene.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=512M", NULL };

  return scene_small_vm ("chardev", series, backend);
}

static void
begin (Vm *vm, const char *job) {
  vm_job_start (vm, job, "usertool");
  g_free (vm_job_expect (vm, job, "ready", 30));
}

static void
ask (Vm *vm, const char *job, const char *command) {
  g_free (vm_job_ask (vm, job, command, 60));
}

/* Expects that the driver says no, for this reason. */
static void
expect_refused (Vm *vm, const char *job, const char *command, int reason) {
  g_autofree char *answer = NULL;

  vm_job_tell (vm, job, command);
  answer = vm_job_expect (vm, job, "refused", 60);
  g_test_message ("%s: %s", command, answer);
  g_assert_cmpint (atoi (answer + strlen ("refused ")), ==, reason);
}

static void
expect_user_blocks (Vm *vm, guint64 blocks) {
  vm_expect_within (vm, 30, vm_driver_number (vm, "user_blocks") == blocks);
}

/* ---- the four hints ---- */

static void
test_hints (gconstpointer series) {
  Vm *vm = get_vm (series);

  scene_have (vm, 0, 30);
  begin (vm, "program");
  ask (vm, "program", "allocate 0 30 local 1");
  ask (vm, "program", "allocate 1 17 any 2"); /* 9 blocks */
  expect_refused (vm, "program", "allocate 2 16 shared 3", EOPNOTSUPP);
  expect_refused (vm, "program", "allocate 2 16 remote 3", EOPNOTSUPP);
  expect_user_blocks (vm, 24);
  /* nothing but what the program has is taken from the host in the end */
  vm_expect_within (vm, 30, scene_granted (vm) == 24);
  vm_expect_within (vm, 10, vm_host_memfd_bytes (vm) == 24 * VM_BLOCK_BYTES);
  ask (vm, "program", "verify 0");
  ask (vm, "program", "verify 1");
  ask (vm, "program", "free 0");
  expect_user_blocks (vm, 9);
  vm_expect_within (vm, 30, vm_host_memfd_bytes (vm) == 9 * VM_BLOCK_BYTES);
  ask (vm, "program", "allocate 0 8 local 5"); /* in a section that is in use; zero again */
  ask (vm, "program", "verify 1");
  ask (vm, "program", "free 0");
  ask (vm, "program", "free 1");
  expect_user_blocks (vm, 0);
  scene_expect_nothing_granted (vm, 30);
  vm_job_kill (vm, "program");
  scene_expect_sane (vm);
}

/* ---- beside everything else ---- */

static void
test_beside_growth (gconstpointer series) {
  Vm *vm = get_vm (series);
  int error;

  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  scene_fill (vm, "data", 80, 1, "", 60);
  begin (vm, "program");
  ask (vm, "program", "allocate 0 60 local 7");
  for (int i = 0; i < 4; i++) {
    scene_have (vm, 200, 30);
    scene_want (vm, 40);
    vm_expect_within (vm, 60, scene_granted (vm) <= 40);
    ask (vm, "program", "verify 0");
    scene_verify (vm, "data");
  }
  error = vm_unload (vm, "virtio_domybs");
  g_assert_true (error == EBUSY || error == EWOULDBLOCK);
  g_assert_cmpint (vm_write (vm, "/proc/sys/vm/compact_memory", "1"), ==, 0);
  ask (vm, "program", "verify 0");
  vm_job_tell (vm, "program", "exit");
  g_assert_cmpint (vm_job_wait (vm, "program", 30, NULL), ==, 0);
  expect_user_blocks (vm, 0);
  scene_verify (vm, "data");
  scene_fill_end (vm, "data");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* ---- programs come and go ---- */

static void
test_death_frees (gconstpointer series) {
  Vm *vm = get_vm (series);

  scene_have (vm, 0, 30);
  begin (vm, "one");
  begin (vm, "two");
  ask (vm, "one", "allocate 0 40 local 1");
  ask (vm, "two", "allocate 0 50 any 2");
  ask (vm, "one", "allocate 1 6 local 3");
  expect_user_blocks (vm, 48);
  vm_job_kill (vm, "two"); /* SIGKILL */
  expect_user_blocks (vm, 23);
  ask (vm, "one", "verify 0");
  ask (vm, "one", "verify 1");
  begin (vm, "two");
  ask (vm, "two", "allocate 0 30 local 4");
  expect_user_blocks (vm, 38);
  vm_job_kill (vm, "one");
  ask (vm, "two", "verify 0");
  vm_job_kill (vm, "two");
  expect_user_blocks (vm, 0);
  scene_expect_nothing_granted (vm, 30);
  scene_unload (vm, 30);
  scene_load (vm, "manual");
  scene_expect_sane (vm);
}

/* ---- limits ---- */

static void
test_limits (gconstpointer series) {
  Vm *vm = get_vm (series);

  scene_have (vm, 0, 30);
  begin (vm, "program");
  expect_refused (vm, "program", "raw 0 1 0", EINVAL);
  expect_refused (vm, "program", "raw 1 4 0", EINVAL);
  expect_refused (vm, "program", "raw 1 1 1", EINVAL);
  expect_refused (vm, "program", "raw 18446744073709551615 1 0", EDQUOT);
  expect_refused (vm, "program", "allocate 0 2100 local 1", EDQUOT); /* 1050 blocks, one file may have 1024 */
  expect_refused (vm, "program", "allocate 0 600 local 1", ENOSPC);  /* the VM may have 256 */
  scene_set_parameter (vm, "user_max_open_blocks", "10");
  ask (vm, "program", "allocate 0 16 local 1");
  expect_refused (vm, "program", "allocate 1 6 local 1", EDQUOT);
  scene_set_parameter (vm, "user_max_blocks", "12");
  begin (vm, "other");
  expect_refused (vm, "other", "allocate 0 10 local 2", EDQUOT);
  ask (vm, "other", "allocate 0 8 local 2");
  ask (vm, "program", "verify 0");
  ask (vm, "other", "verify 0");
  scene_set_parameter (vm, "user_max_open_blocks", "1024");
  scene_set_parameter (vm, "user_max_blocks", "4096");
  vm_job_kill (vm, "program");
  vm_job_kill (vm, "other");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 30);
  scene_expect_sane (vm);
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "hints", test_hints, SCENE_EVERYWHERE },
    { "beside-growth", test_beside_growth, SCENE_ONCE },
    { "death-frees", test_death_frees, SCENE_BOTH },
    { "limits", test_limits, SCENE_BOTH },
  };

  vm_test_init (&argc, &argv);
  scene_add_cases ("chardev", cases, G_N_ELEMENTS (cases));
  return vm_test_run ();
}
