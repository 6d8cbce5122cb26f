/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What makes far disks swap in a guest (guest-driver/udev/domybs-swap), with QEMU's own disks in their place: that it takes
 * those with our serials and no other, in the right order, and that the host gets back what the guest has freed. A guest with
 * nothing but a shell and busybox is the least there is.
 */
#include "scene.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DISK_MIB 512
#define RAM_MIB 256

static char *folder;

static char *
disk_path (const char *name) {
  return g_build_filename (folder, name, NULL);
}

static guint64
used_bytes (const char *name) {
  g_autofree char *path = disk_path (name);
  struct stat st;

  g_assert_cmpint (stat (path, &st), ==, 0);
  return (guint64)st.st_blocks * 512;
}

static Vm *
start (const char *series) {
  static const char *const names[] = { "remote", "other", "shared" };
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = disk_path (names[i]);
    const int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

    g_assert_cmpint (ftruncate (fd, (off_t)DISK_MIB << 20), ==, 0);
    close (fd);
    g_ptr_array_add (arguments, g_strdup ("-drive"));
    g_ptr_array_add (arguments, g_strdup_printf ("if=none,id=%s,file=%s,format=raw,discard=unmap", names[i], path));
    g_ptr_array_add (arguments, g_strdup ("-device"));
    g_ptr_array_add (arguments, g_strdup_printf ("virtio-blk-pci,drive=%s,serial=%s%s", names[i],
                                                 strcmp (names[i], "other") == 0 ? "" : "domybs-", names[i]));
  }
  g_ptr_array_add (arguments, NULL);
  return vm_start (
      &(VmConfig){ .name = "swap", .series = series, .ram_mib = RAM_MIB, .qemu_args = (const char *const *)arguments->pdata });
}

/* The guest has no such file: it comes as text, in pieces that fit the agent's lines. */
static void
install (Vm *vm) {
  g_autofree char *script = NULL, *text = NULL;
  const gsize piece = 512;
  gsize length;

  g_assert_true (g_file_get_contents (DOMYBS_SWAP, &script, &length, NULL));
  text = g_base64_encode ((const guchar *)script, length);
  for (gsize at = 0; at < strlen (text); at += piece)
    g_free (vm_run_ok (vm, "echo %.*s >>/tmp/script", (int)piece, text + at));
  g_free (vm_run_ok (vm, "base64 -d /tmp/script >/tmp/domybs-swap"));
}

/* Disk (vda …) of a serial. */
static char *
disk_of (Vm *vm, const char *serial) {
  return g_strstrip (
      vm_run_ok (vm, "for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" != %s ] || echo ${d##*/}; done", serial));
}

static void
expect_off (Vm *vm, const char *shared, const char *remote) {
  g_autofree char *list = vm_run_ok (vm, "sh /tmp/domybs-swap list"),
                  *expected = g_strdup_printf ("/dev/%s shared off\n/dev/%s remote off", shared, remote);

  g_assert_cmpstr (g_strchomp (list), ==, expected);
}

/* Debian's busybox can't set priorities: what matters is which is the higher one, and the newest kernels give all the same. */
static gboolean
expect_on (Vm *vm, const char *shared, const char *remote) {
  g_autofree char *list = vm_run_ok (vm, "sh /tmp/domybs-swap list"),
                  *format = g_strdup_printf ("/dev/%s shared %%d\n/dev/%s remote %%d", shared, remote);
  int high, low;

  g_test_message ("%s", list);
  g_assert_cmpint (sscanf (list, format, &high, &low), ==, 2);
  g_assert_cmpint (high, >=, low);
  return high > low;
}

/* Both ways of emptying them; a page or two are what QEMU's zeroes take. */
static void
expect_emptied (Vm *vm, const char *disk, const char *way) {
  g_free (vm_run_ok (vm, "%s sh /tmp/domybs-swap start", way));
  g_free (vm_run_ok (vm, "%s sh /tmp/domybs-swap stop", way));
  g_free (vm_run_ok (vm, "cmp -n 1048576 /dev/%s /dev/zero", disk));
  g_assert_cmpuint (used_bytes ("shared") + used_bytes ("remote"), <=, 64 << 10);
}

static void
test_swap (gconstpointer series) {
  Vm *vm = start (series);
  g_autofree char *shared = NULL, *remote = NULL, *other = NULL, *swaps = NULL, *again = NULL, *refused = NULL,
                  *rotational = NULL;
  const guint64 filled = (guint64)100 << 20;
  gboolean in_order;

  install (vm);
  shared = disk_of (vm, "domybs-shared");
  remote = disk_of (vm, "domybs-remote");
  other = disk_of (vm, "other");
  g_assert_cmpstr (shared, !=, "");
  expect_off (vm, shared, remote);
  g_free (vm_run_ok (vm, "sh /tmp/domybs-swap start"));
  in_order = expect_on (vm, shared, remote);
  g_assert_true (in_order || strcmp (series, "new") == 0);
  swaps = vm_run_ok (vm, "cat /proc/swaps");
  g_test_message ("%s", swaps);
  g_assert_null (strstr (swaps, other));
  rotational = vm_run_ok (vm, "cat /sys/block/%s/queue/rotational", other);
  g_assert_cmpint (atoi (rotational), ==, 1);
  g_free (vm_run_ok (vm, "sh /tmp/domybs-swap start")); /* is a fine thing to say twice */
  again = vm_run_ok (vm, "cat /proc/swaps");
  g_assert_cmpstr (again, ==, swaps);
  g_assert_cmpint (vm_run (vm, &refused, "sh /tmp/domybs-swap start /dev/%s 2>&1", other), ==, 1);
  g_assert_nonnull (strstr (refused, "no far disk"));

  /* More than there is of memory, and then the end of the program that had it. */
  vm_job_start (vm, "fill", "memtool fill %uM --hold", RAM_MIB + 100);
  /* Until the kernel writes nothing of it any more: pages whose program ends while they are written stay, and each keeps its
   * cluster of 2 MiB. */
  g_free (vm_job_expect (vm, "fill", "ok", 300));
  g_assert_cmpuint (used_bytes ("shared") + used_bytes ("remote"), >, filled);
  vm_expect_within (vm, 60, vm_run (vm, NULL, "grep -q '^Writeback: *0 kB' /proc/meminfo") == 0);
  g_assert_true (!in_order || used_bytes ("remote") < (guint64)1 << 20);
  g_assert_cmpuint (used_bytes ("other"), <, (guint64)1 << 20);
  vm_job_kill (vm, "fill");
  vm_expect_within (vm, 60, used_bytes ("shared") + used_bytes ("remote") < filled / 2);

  g_free (vm_run_ok (vm, "sh /tmp/domybs-swap stop"));
  expect_off (vm, shared, remote);
  g_assert_cmpuint (used_bytes ("shared") + used_bytes ("remote"), <=, 64 << 10);
  expect_emptied (vm, shared, "");
  g_free (vm_run_ok (
      vm,
      "mkdir -p /tmp/few && for a in sh cat tr grep dd mkswap swapon swapoff echo; do ln -sf /bin/busybox /tmp/few/$a; done"));
  expect_emptied (vm, remote, "PATH=/tmp/few");
  g_free (vm_run_ok (vm, "sh /tmp/domybs-swap stop /dev/vdz")); /* has gone */
  vm_stop (vm);
}

int
main (int argc, char **argv) {
  int result;

  vm_test_init (&argc, &argv);
  folder = g_dir_make_tmp ("domybs-swap-XXXXXX", NULL);
  for (const char *const *series = vm_all_series; *series; series++) {
    g_autofree char *path = g_strdup_printf ("/swap/%s", *series);

    g_test_add_data_func (path, *series, test_swap);
  }
  result = vm_test_run ();
  for (gsize i = 0; i < 3; i++) {
    static const char *const names[] = { "remote", "other", "shared" };
    g_autofree char *path = disk_path (names[i]);

    unlink (path);
  }
  rmdir (folder);
  return result;
}
