/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far memory ahead of need, from a guest's driver to its far disk's storage: the driver asks its memory device, that tells
 * domybs-far, which backs so much more than is in use. A guest under pressure has four times as much ready, and its pages go
 * there; afterwards it is as before. Over deaths of both programs' workers, and a reset of the guest.
 */
#include "far.h"
#include "scene.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define FAR_MIB 1024 /* all that the program has may have a place there at a time, and more is to be ready */
#define RAM_MIB 384
#define BASE 32 /* blocks: the parameter's 64 MiB */
#define RAISED 128

static struct far *far;
static char *device_path; /* that of the memory device's socket, which has its name when there is a VM */

static Vm *
start (const char *series) {
  static const char *const backend_args[] = { "--window=2G", "--local-max=128M", NULL };
  static const char *const tiers[] = { "shared", NULL };
  g_autofree char *folder = g_dir_make_tmp ("domybs-standby-XXXXXX", NULL), *chardev = NULL, *argument = NULL;

  device_path = g_build_filename (folder, "device.sock", NULL);
  argument = g_strdup_printf ("--memory-device=%s", device_path);
  far = far_start (&(struct far_options){
      .bytes = (uint64_t)FAR_MIB << 20, .tiers = tiers, .arguments = (const char *const[]){ "--stage=8M", argument, NULL } });
  for (int tries = 0; !g_file_test (far->socket_paths[0], G_FILE_TEST_EXISTS) && tries < 1200; tries++)
    g_usleep (50000);
  chardev = g_strdup_printf ("socket,id=far0,path=%s,reconnect-ms=50", far->socket_paths[0]);
  return vm_start (&(VmConfig){
      .name = "standby",
      .series = series,
      .ram_mib = RAM_MIB,
      .qemu_args
      = (const char *const[]){ "-chardev", chardev, "-device", "vhost-user-blk-pci,chardev=far0,num-queues=2", NULL },
      .backend_args = backend_args,
      .driver_params = "mode=manual low_mib=64 standby_calm_ms=3000",
  });
}

static void
end (Vm *vm) {
  g_autofree char *folder = g_path_get_dirname (device_path);

  vm_stop (vm);
  g_clear_pointer (&far, far_end);
  g_unlink (device_path);
  g_rmdir (folder);
  g_clear_pointer (&device_path, g_free);
}

/* The driver's line of the tier. */
static gboolean
driver_says (Vm *vm, const char *line) {
  g_autofree char *text = vm_driver_get (vm, "standby");
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);

  return g_strv_contains ((const char *const *)lines, line);
}

/* There is no more than what it has got, and it knows. */
static gboolean
driver_has_less (Vm *vm) {
  g_autofree char *text = vm_driver_get (vm, "standby");

  return strstr (text, "shared asked 50000 ready ") && strstr (text, " the host has no more");
}

static gint64
ready (void) {
  return far_status (far, 0, "reserved-blocks");
}

static gint64
level (void) {
  return far_status (far, 0, "reserve-blocks");
}

static void
expect_base (Vm *vm) {
  vm_expect_within (vm, 90, driver_says (vm, "shared asked 32 ready 32 ready"));
  vm_expect_within (vm, 30, level () == BASE && ready () >= BASE);
}

static void
test_standby (gconstpointer series) {
  Vm *vm = start (series);
  g_autofree char *control = g_build_filename (vm_folder (vm), "control.sock", NULL), *answer = NULL;
  guint64 in_use;

  /* Nobody has far memory for this VM yet; then somebody has, and the driver need not wait for its next try. */
  vm_expect_within (vm, 60, driver_says (vm, "shared asked 32 ready 0 the host has no far memory for this VM yet"));
  g_assert_true (driver_says (vm, "remote asked 0 ready 0 not asked for"));
  g_assert_cmpint (symlink (control, device_path), ==, 0);
  expect_base (vm);

  /* More than there is memory for, in a guest that gets none of its host: it goes to the far disk. */
  g_free (vm_run_ok (vm, "echo 0 >/sys/block/vda/queue/rotational; mkswap /dev/vda >/dev/null; swapon /dev/vda"));
  scene_fill (vm, "much", RAM_MIB + 80, 1, "--thp off", 240);
  vm_expect_within (vm, 60, level () == RAISED);
  vm_expect_within (vm, 60, ready () >= RAISED);
  in_use = (guint64)far_status (far, 0, "blocks-in-use");
  g_test_message ("%" G_GUINT64_FORMAT " blocks of %d in use, %" G_GINT64_FORMAT " ready", in_use, FAR_MIB / 2, ready ());
  g_assert_cmpuint (in_use, >, 50);

  /* Whoever dies, it is as before. */
  far_kill_worker (far);
  vm_expect_within (vm, 60, level () == RAISED && ready () >= RAISED);
  vm_shot_wait (vm_shoot_worker (vm, FALSE, 0));
  vm_expect_within (vm, 60, far_status_top (far, "memory-device.connected") == 1 && level () == RAISED);
  answer = vm_job_ask (vm, "much", "verify", 300); /* all of it comes in again */
  g_assert_true (g_str_has_prefix (answer, "ok verified"));
  g_assert_cmpint (far_status (far, 0, "errors"), ==, 0);

  /* The pressure ends. */
  scene_fill_end (vm, "much");
  expect_base (vm);

  /* By hand. */
  scene_set_parameter (vm, "standby_shared", "20");
  scene_set_parameter (vm, "standby_remote", "20");
  vm_expect_within (vm, 60, driver_says (vm, "shared asked 10 ready 10 ready"));
  vm_expect_within (vm, 60, driver_says (vm, "remote asked 10 ready 0 this VM has no far memory of this tier"));
  scene_set_parameter (vm, "standby_shared", "100000"); /* more than the disk has */
  vm_expect_within (vm, 60, level () == 50000);
  vm_expect_within (vm, 60, ready () + far_status (far, 0, "blocks-in-use") == FAR_MIB / 2);
  vm_expect_within (vm, 60, driver_has_less (vm));
  scene_set_parameter (vm, "standby_shared", "0");
  vm_expect_within (vm, 60, level () == 0);

  /* Another boot is another guest. */
  vm_reset (vm);
  expect_base (vm);
  scene_expect_sane (vm);
  end (vm);
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  for (const char *const *series = vm_all_series; *series; series++) {
    g_autofree char *path = g_strdup_printf ("/standby/%s/far memory is ready ahead of need", *series);

    if (g_str_equal (*series, "6.12") || g_getenv ("DOMYBS_LONG"))
      g_test_add_data_func (path, *series, test_standby);
  }
  return vm_test_run ();
}
