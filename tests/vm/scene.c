/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "scene.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- one VM at a time ---- */

static Vm *current;
static char *current_name;

Vm *
scene_vm (const VmConfig *config) {
  if (current && !g_str_equal (current_name, config->name))
    scene_end ();
  if (!current) {
    current_name = g_strdup (config->name);
    current = vm_start (config);
    scene_booted (current);
  }
  return current;
}

Vm *
scene_small_vm (const char *group, const char *series, const char *const *backend_args) {
  g_autofree char *name = g_strdup_printf ("%s-%s", group, series);

  return scene_vm (&(VmConfig){
      .name = name, .series = series, .ram_mib = 512, .backend_args = backend_args, .driver_params = "mode=manual" });
}

void
scene_booted (Vm *vm) {
  /* off by default in guests of this size; programs still have to ask for them */
  g_assert_cmpint (vm_write (vm, "/sys/kernel/mm/transparent_hugepage/enabled", "madvise"), ==, 0);
}

void
scene_end (void) {
  Vm *vm = g_steal_pointer (&current);

  g_clear_pointer (&current_name, g_free);
  vm_stop (vm);
}

static void
end_case (gconstpointer data) {
  scene_end ();
}

static gboolean
runs_on (const SceneCase *test, const char *series) {
  if (g_str_equal (series, "new"))
    return test->kernels == SCENE_EVERYWHERE;
  return test->kernels != SCENE_ONCE || g_str_equal (series, "6.12");
}

void
scene_add_cases (const char *group, const SceneCase *cases, guint count) {
  for (int s = 0; vm_all_series[s]; s++) {
    const char *series = vm_all_series[s];
    g_autofree char *last = g_strdup_printf ("/%s/%s/no-complaint", group, series);
    guint added = 0;

    for (guint i = 0; i < count; i++) {
      g_autofree char *path = g_strdup_printf ("/%s/%s/%s", group, series, cases[i].name);

      if (!runs_on (&cases[i], series))
        continue;
      g_test_add_data_func (path, series, cases[i].run);
      added++;
    }
    if (added)
      g_test_add_data_func (last, series, end_case);
  }
}

/* ---- the driver ---- */

void
scene_want (Vm *vm, guint64 blocks) {
  g_assert_cmpint (vm_driver_set (vm, "mode", "manual"), ==, 0);
  g_assert_cmpint (vm_driver_set (vm, "wanted_blocks", "%" PRIu64, blocks), ==, 0);
}

guint64
scene_granted (Vm *vm) {
  return vm_driver_number (vm, "granted_blocks");
}

void
scene_have (Vm *vm, guint64 blocks, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(vm_patience (seconds) * G_USEC_PER_SEC);

  scene_want (vm, blocks);
  while (scene_granted (vm) != blocks) {
    if (g_get_monotonic_time () > deadline) {
      g_autofree char *state = vm_driver_get (vm, "state");

      vm_fail (vm, "%" PRIu64 " blocks wanted, %" PRIu64 " granted after %g s; the driver's state: %s", blocks,
               scene_granted (vm), seconds, state);
    }
    g_usleep (20000);
  }
}

void
scene_set_target (Vm *vm, const char *blocks) {
  g_autoptr (JsonNode) answer = vm_control (vm, "{\"execute\": \"set-target\", \"arguments\": {\"blocks\": %s}}", blocks);
}

void
scene_expect_granted (Vm *vm, guint64 blocks, double seconds) {
  vm_expect_within (vm, seconds, scene_granted (vm) == blocks);
  vm_expect_within (vm, 5, (guint64)vm_status_number (vm, "granted-blocks") == blocks);
}

void
scene_set_parameter (Vm *vm, const char *name, const char *value) {
  g_autofree char *path = g_strconcat ("/sys/module/virtio_domybs/parameters/", name, NULL);

  g_assert_cmpint (vm_write (vm, path, value), ==, 0);
}

guint64
scene_counter (Vm *vm, const char *name) {
  g_autofree char *text = vm_driver_get (vm, "counters");
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  gsize length = strlen (name);

  for (int i = 0; lines[i]; i++)
    if (g_str_has_prefix (lines[i], name) && lines[i][length] == ' ')
      return g_ascii_strtoull (lines[i] + length, NULL, 10);
  vm_fail (vm, "the driver has no counter %s", name);
}

gboolean
scene_state_is (Vm *vm, const char *word) {
  g_autofree char *state = vm_driver_get (vm, "state");
  gsize length = strlen (word);

  return g_str_has_prefix (state, word) && (state[length] == ' ' || state[length] == '\0');
}

void
scene_unload (Vm *vm, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(vm_patience (seconds) * G_USEC_PER_SEC);
  int error;

  while ((error = vm_unload (vm, "virtio_domybs"))) {
    if (g_get_monotonic_time () > deadline) {
      g_autofree char *users = vm_read (vm, "/sys/module/virtio_domybs/refcnt");
      g_autofree char *sections = vm_driver_get (vm, "sections");
      g_autofree char *state = vm_driver_get (vm, "state");

      vm_fail (vm, "after %g s the driver can't be unloaded (%s): %s users, sections %s, state %s", seconds, g_strerror (error),
               users, sections, state);
    }
    g_usleep (50000);
  }
}

void
scene_load (Vm *vm, const char *mode) {
  g_autofree char *parameters = g_strconcat ("mode=", mode, NULL);

  g_assert_cmpint (vm_load (vm, "virtio_domybs", parameters), ==, 0);
}

void
scene_expect_nothing_granted (Vm *vm, double seconds) {
  vm_expect_within (vm, seconds, scene_granted (vm) == 0);
  vm_expect_within (vm, 5, vm_status_number (vm, "granted-blocks") == 0);
  vm_expect_within (vm, 5, vm_host_memfd_bytes (vm) == 0);
}

void
scene_expect_sane (Vm *vm) {
  g_autofree char *broken = vm_driver_get (vm, "broken");
  g_autofree char *complaints = vm_kernel_complaints (vm);

  if (!g_str_equal (broken, "0"))
    vm_fail (vm, "the driver is broken: %s", broken);
  if (complaints)
    vm_fail (vm, "the guest's kernel complained:\n%s", complaints);
  if (vm_guest_vmstat (vm, "oom_kill") != 0)
    vm_fail (vm, "the guest's kernel killed a process for want of memory");
  /* The driver may be at work, so they need not agree at once. */
  vm_expect_within (vm, 10, scene_granted (vm) == (guint64)vm_status_number (vm, "granted-blocks"));
}

/* ---- the device ---- */

void
scene_plug_out (Vm *vm) {
  g_autoptr (JsonNode) answer = vm_qmp (vm, "{\"execute\": \"device_del\", \"arguments\": {\"id\": \"domybs0\"}}");
  gint64 deadline = g_get_monotonic_time () + 60 * G_USEC_PER_SEC;

  for (;;) {
    g_autoptr (GError) error = NULL;
    g_autoptr (JsonNode) gone = NULL;

    /* Two events come, the second when the whole device has gone; only then its chardev is free. */
    vm_wait_qmp_event (vm, "DEVICE_DELETED", 60);
    gone = vm_qmp_try (vm, &error, "{\"execute\": \"chardev-remove\", \"arguments\": {\"id\": \"domybs-chr\"}}");
    if (gone)
      return;
    if (g_get_monotonic_time () > deadline)
      vm_fail (vm, "the device's chardev is not free: %s", error->message);
  }
}

void
scene_plug_in (Vm *vm) {
  g_autoptr (JsonNode) chardev = vm_qmp (
      vm,
      "{\"execute\": \"chardev-add\", \"arguments\": {\"id\": \"domybs-chr\", \"backend\": {\"type\": \"socket\", \"data\": "
      "{\"server\": false, \"addr\": {\"type\": \"unix\", \"data\": {\"path\": \"%s/backend.sock\"}}}}}}",
      vm_folder (vm));
  g_autoptr (JsonNode) device
      = vm_qmp (vm, "{\"execute\": \"device_add\", \"arguments\": {\"driver\": \"vhost-user-test-device-pci\", "
                    "\"id\": \"domybs0\", \"chardev\": \"domybs-chr\", \"virtio-id\": 37, \"num_vqs\": 2, "
                    "\"config_size\": 64, \"bus\": \"domybs-port\"}}");
}

/* ---- the window's pages ---- */

void
scene_window (Vm *vm, guint64 *ret_start, guint64 *ret_end) {
  /* BAR 4, the fifth line; its last address is inclusive */
  g_autofree char *line = vm_run_ok (vm, "sed -n 5p /sys/bus/virtio/drivers/virtio_domybs/virtio*/../resource");

  if (sscanf (line, "%" SCNx64 " %" SCNx64, ret_start, ret_end) != 2 || *ret_end <= *ret_start)
    vm_fail (vm, "the memory device has no BAR 4: '%s'", line);
  (*ret_end)++;
}

guint64
scene_releasable_bytes (Vm *vm) {
  guint64 start, end, bytes;
  g_autofree char *answer = NULL;

  scene_window (vm, &start, &end);
  answer = vm_run_ok (vm, "windowtool free-blocks 0x%" PRIx64 "-0x%" PRIx64, start, end);
  if (sscanf (answer, "ok free-blocks %" SCNu64, &bytes) != 1)
    vm_fail (vm, "windowtool says: %s", answer);
  return bytes * VM_BLOCK_BYTES;
}

/* ---- programs ---- */

void
scene_fill (Vm *vm, const char *job, guint mib, guint64 seed, const char *options, double seconds) {
  vm_job_start (vm, job, "memtool fill %uM --seed %" PRIu64 " %s --hold", mib, seed, options);
  g_free (vm_job_expect (vm, job, "ok verified", seconds));
}

void
scene_verify (Vm *vm, const char *job) {
  g_autofree char *answer = vm_job_ask (vm, job, "verify", 60);

  g_assert_true (g_str_has_prefix (answer, "ok verified"));
}

guint64
scene_free (Vm *vm, const char *job, const char *command) {
  g_autofree char *answer = vm_job_ask (vm, job, command, 60);
  guint64 bytes;

  if (sscanf (answer, "ok freed %" SCNu64, &bytes) != 1)
    vm_fail (vm, "memtool answers '%s' with: %s", command, answer);
  return bytes;
}

void
scene_fill_end (Vm *vm, const char *job) {
  vm_job_tell (vm, job, "exit");
  if (vm_job_wait (vm, job, 60, NULL) != 0)
    vm_fail (vm, "the job %s ended badly", job);
}

/* ---- figures ---- */

double
scene_now (void) {
  return (double)g_get_monotonic_time () / G_USEC_PER_SEC;
}

double
scene_mib (guint64 bytes) {
  return (double)bytes / (double)VM_MIB;
}
