/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs of the guest with ranges of far disks: /dev/domybs with the hints shared and remote.
 *
 * The disk for SHARED is domybs-far's, with storage that somebody else fills up. That for REMOTE is QEMU's own, on a file whose sectors of choice can't be read or
 * written, and it can be unplugged.
 */
#include "far.h"
#include "scene.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define RAM_MIB 256
#define SHARED_MIB 1024
#define SHARED_BLOCKS (SHARED_MIB / 2)
#define REMOTE_MIB 64
#define REMOTE_BLOCKS (REMOTE_MIB / 2)
#define STORAGE_MIB 512 /* the file system of its storage: less than it may need */
#define BAD_READ_SECTOR 20488  /* in block 5, the second page of it */
#define BAD_WRITE_SECTOR 40968 /* in block 10 */

static struct far *far;
static char *folder;

static char *
in_folder (const char *name) {
  return g_build_filename (folder, name, NULL);
}

static void
shared_begins (void) {
  g_autofree char *socket = in_folder ("shared.sock"), *control = in_folder ("control.sock"), *mounted = in_folder ("storage"),
                  *storage = g_build_filename (mounted, "file", NULL), *size = g_strdup_printf ("size=%dm,mode=0755", STORAGE_MIB);
  g_autofree char *disk = g_strdup_printf ("--disk=mem-shared,size=%dM,socket=%s,storage=%s,give-back=2", SHARED_MIB, socket, storage);
  g_autofree char *control_argument = g_strdup_printf ("--control-socket=%s", control);
  const char *const arguments[] = { "--name=ranges", control_argument, disk, NULL };

  g_assert_cmpint (g_mkdir (mounted, 0755), ==, 0);
  g_assert_cmpint (mount ("none", mounted, "tmpfs", 0, size), ==, 0);
  far = far_start_arguments (arguments);
  g_free (far->backend->control_path);
  far->backend->control_path = g_steal_pointer (&control);
  for (int tries = 0; !g_file_test (socket, G_FILE_TEST_EXISTS) && tries < 1200; tries++)
    g_usleep (50000);
}

static void
make_remote (const char *name) {
  g_autofree char *path = in_folder (name);
  const int fd = open (path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  g_autofree char *garbage = g_malloc (1 << 20);

  /* What a boot before has left there. */
  memset (garbage, 0xa5, 1 << 20);
  for (int i = 0; i < REMOTE_MIB; i++)
    g_assert_cmpint (write (fd, garbage, 1 << 20), ==, 1 << 20);
  close (fd);
}

static Vm *
start (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=256M", NULL };
  g_autofree char *socket = NULL, *chardev = NULL, *remote = NULL, *blockdev = NULL;

  folder = g_dir_make_tmp ("domybs-ranges-XXXXXX", NULL);
  shared_begins ();
  make_remote ("remote");
  socket = in_folder ("shared.sock");
  remote = in_folder ("remote");
  chardev = g_strdup_printf ("socket,id=far0,path=%s,reconnect-ms=50", socket);
  blockdev
      = g_strdup_printf ("driver=blkdebug,node-name=remote,discard=unmap,image.driver=file,image.filename=%s,"
                         "image.discard=unmap,inject-error.0.event=none,inject-error.0.iotype=read,inject-error.0.sector=%d,"
                         "inject-error.0.once=off,inject-error.1.event=none,inject-error.1.iotype=write,"
                         "inject-error.1.sector=%d,inject-error.1.once=off",
                         remote, BAD_READ_SECTOR, BAD_WRITE_SECTOR);
  return vm_start (&(VmConfig){
      .name = "ranges",
      .series = series,
      .ram_mib = RAM_MIB,
      .disk_mib = 32,
      .qemu_args
      = (const char *const[]){ "-chardev", chardev, "-device", "vhost-user-blk-pci,chardev=far0,num-queues=2", "-device",
                               "pcie-root-port,id=farport,bus=pcie.0,addr=0x12,chassis=18", "-blockdev", blockdev, "-device",
                               "virtio-blk-pci,id=remote,drive=remote,serial=domybs-mem-remote,bus=farport,rerror=report,"
                               "werror=report,logical_block_size=4096,physical_block_size=4096",
                               NULL },
      .backend_args = backend,
      .driver_params = "mode=manual",
  });
}

static void
end (Vm *vm) {
  static const char *const names[] = { "remote", "another", "shared.sock", "control.sock" };
  g_autofree char *mounted = in_folder ("storage");

  vm_stop (vm);
  g_clear_pointer (&far, far_end);
  umount2 (mounted, MNT_DETACH);
  g_rmdir (mounted);
  for (gsize i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *path = in_folder (names[i]);

    g_unlink (path);
  }
  g_assert_cmpint (g_rmdir (folder), ==, 0);
  g_clear_pointer (&folder, g_free);
}

/* ---- programs ---- */

static void
begin (Vm *vm, const char *job) {
  vm_job_start (vm, job, "rangetool");
  g_free (vm_job_expect (vm, job, "ready", 30));
}

static void
ask (Vm *vm, const char *job, const char *command) {
  g_autofree char *answer = vm_job_ask (vm, job, command, 200);

  g_test_message ("%s: %s: %s", job, command, answer);
}

static void
expect_refused (Vm *vm, const char *job, const char *command, int reason) {
  g_autofree char *answer = NULL;

  vm_job_tell (vm, job, command);
  answer = vm_job_expect (vm, job, "refused", 60);
  g_test_message ("%s: %s: %s", job, command, answer);
  g_assert_cmpint (atoi (answer + strlen ("refused ")), ==, reason);
}

struct far_said {
  int shared, shared_of, remote, remote_of, own;
};

static struct far_said
ask_far (Vm *vm, const char *job) {
  g_autofree char *answer = vm_job_ask (vm, job, "far", 60);
  struct far_said said;

  g_assert_cmpint (sscanf (answer, "ok far shared %d of %d remote %d of %d own %d", &said.shared, &said.shared_of, &said.remote,
                           &said.remote_of, &said.own),
                   ==, 5);
  return said;
}

struct pages {
  int right, bus, zero, wrong;
};

static struct pages
probe (Vm *vm, const char *job, int slot) {
  g_autofree char *command = g_strdup_printf ("probe %d", slot), *answer = vm_job_ask (vm, job, command, 200);
  struct pages pages;

  g_test_message ("%s: %s: %s", job, command, answer);
  g_assert_cmpint (
      sscanf (answer, "ok pages right %d bus %d zero %d wrong %d", &pages.right, &pages.bus, &pages.zero, &pages.wrong), ==, 4);
  return pages;
}

static gint64
host_blocks (void) {
  return far_status (far, 0, "blocks-in-use");
}

/* The guest's name of a disk: vda … */
static char *
disk_of (Vm *vm, const char *serial) {
  return g_strstrip (
      vm_run_ok (vm, "for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" != %s ] || echo ${d##*/}; done", serial));
}

/* ---- more than there is of memory ---- */

static void
more_than_memory (Vm *vm) {
  g_autofree char *answer = NULL;
  const int blocks = 320 / 2;
  struct far_said said;
  int child;

  begin (vm, "one");
  said = ask_far (vm, "one");
  g_assert_cmpint (said.shared_of, ==, SHARED_BLOCKS);
  g_assert_cmpint (said.remote_of, ==, REMOTE_BLOCKS);
  g_assert_cmpint (said.shared, ==, 0);
  ask (vm, "one", "allocate 0 320 shared");
  vm_job_tell (vm, "one", "fill 0 1000000000000");
  far_kill_worker (far);
  g_free (vm_job_expect (vm, "one", "ok filled", 200));
  ask (vm, "one", "verify 0");
  ask (vm, "one", "sync 0");
  g_assert_cmpint (host_blocks (), ==, blocks);
  said = ask_far (vm, "one");
  g_assert_cmpint (said.shared, ==, blocks);
  g_assert_cmpint (said.own, ==, blocks);

  /* A child has it, too; it goes on when the parent has freed it and when the parent dies. Nobody can unload the driver
   * meanwhile. */
  answer = vm_job_ask (vm, "one", "fork 0", 60);
  g_assert_cmpint (sscanf (answer, "ok child %d", &child), ==, 1);
  ask (vm, "one", "free 0");
  ask (vm, "one", "ask");
  begin (vm, "two");
  said = ask_far (vm, "two");
  g_assert_cmpint (said.shared, ==, blocks);
  g_assert_cmpint (said.own, ==, 0);
  ask (vm, "two", "allocate 1 60 shared");
  ask (vm, "two", "fill 1 2000000000000");
  ask (vm, "two", "stray 1"); /* the child's pages are in reach of it, if anything lets it */
  vm_job_kill (vm, "two");
  vm_job_tell (vm, "one", "exit");
  g_assert_cmpint (vm_job_wait (vm, "one", 30, NULL), ==, 0);
  g_assert_cmpint (vm_unload (vm, "virtio_domybs"), !=, 0);
  vm_expect_within (vm, 60, host_blocks () == blocks);
  g_free (vm_run_ok (vm, "kill -9 %d", child));
  /* Freed on the disk, too, by nobody's asking; and all of it is there for the next, and zero. */
  vm_expect_within (vm, 60, host_blocks () == 0);
  begin (vm, "three");
  vm_expect_within (vm, 30, ask_far (vm, "three").shared == 0);
  ask (vm, "three", "allocate 1 32 shared");
  ask (vm, "three", "fill 1 3500000000000");
  ask (vm, "three", "dio 1 /dev/vda");
  ask (vm, "three", "free 1");
  ask (vm, "three", "allocate 0 1024 shared");
  ask (vm, "three", "free 0");
  ask (vm, "three", "allocate 0 200 shared"); /* while that is being freed */
  ask (vm, "three", "fill 0 3000000000000");
  vm_job_kill (vm, "three");
  vm_expect_within (vm, 60, host_blocks () == 0);
}

/* ---- limits ---- */

static void
limits (Vm *vm) {
  g_autofree char *shared = disk_of (vm, "domybs-mem-shared");

  begin (vm, "one");
  expect_refused (vm, "one", "allocate 0 1026 shared", ENOSPC);
  scene_set_parameter (vm, "user_max_open_far_blocks", "10");
  ask (vm, "one", "allocate 0 16 shared");
  expect_refused (vm, "one", "allocate 1 6 shared", EDQUOT);
  expect_refused (vm, "one", "allocate 1 6 remote", EDQUOT);
  scene_set_parameter (vm, "user_max_far_blocks", "12");
  begin (vm, "two");
  expect_refused (vm, "two", "allocate 0 10 shared", EDQUOT);
  ask (vm, "two", "allocate 0 8 shared");
  ask (vm, "one", "allocate 1 4 local"); /* is another account */
  ask (vm, "one", "free 1");
  ask (vm, "one", "free 0");
  ask (vm, "two", "fill 0 5000000000000");
  ask (vm, "two", "cut 0");
  g_assert_cmpint (ask_far (vm, "two").shared, ==, 4); /* a hole gives nothing back */
  scene_set_parameter (vm, "user_max_open_far_blocks", "0");
  scene_set_parameter (vm, "user_max_far_blocks", "0");

  /* The disk is the driver's while there is a range, and the other's when somebody else has it. */
  g_assert_cmpint (vm_run (vm, NULL, "mkswap /dev/%s >/dev/null && swapon /dev/%s", shared, shared), !=, 0);
  vm_job_kill (vm, "two");
  vm_expect_within (vm, 30, ask_far (vm, "one").shared == 0);
  vm_expect_within (vm, 30, vm_run (vm, NULL, "mkswap /dev/%s >/dev/null && swapon /dev/%s", shared, shared) == 0);
  expect_refused (vm, "one", "allocate 0 2 shared", EBUSY);
  g_free (vm_run_ok (vm, "swapoff /dev/%s", shared));
  ask (vm, "one", "allocate 0 16 shared");
  ask (vm, "one", "fill 0 6000000000000"); /* no trace of the swap */
  ask (vm, "one", "allocate 1 16 local");
  ask (vm, "one", "fill 1 1");
  ask (vm, "one", "verify 0");
  vm_job_kill (vm, "one");
  vm_expect_within (vm, 60, host_blocks () == 0);
  scene_expect_nothing_granted (vm, 30);
}

/* ---- a disk that hangs ---- */

/* Has the kernel forget what is not dirty. */
static void
forget (Vm *vm, const char *job) {
  ask (vm, job, "forget 0");
  g_free (vm_run_ok (vm, "sync; echo 3 >/proc/sys/vm/drop_caches"));
}

/* The one program that there is sleeps in the kernel, for something that only a fatal signal ends. */
static gboolean
waits (Vm *vm) {
  return vm_run (vm, NULL, "grep -q '^State:.D' /proc/$(pidof rangetool)/status") == 0;
}

/* Whoever waits for it can be killed, and is gone at once. What there was is freed when the disk goes on. */
static void
disk_hangs (Vm *vm) {
  begin (vm, "one");
  ask (vm, "one", "allocate 0 32 shared");
  ask (vm, "one", "fill 0 100000000000");
  ask (vm, "one", "sync 0");
  forget (vm, "one");
  backend_signal_all (far->backend, SIGSTOP);
  vm_job_tell (vm, "one", "verify 0");
  vm_expect_within (vm, 60, waits (vm));
  vm_job_kill (vm, "one");
  begin (vm, "two");
  vm_job_tell (vm, "two", "allocate 0 1024 shared"); /* waits for what is being freed */
  vm_expect_within (vm, 60, waits (vm));
  vm_job_kill (vm, "two");
  backend_signal_all (far->backend, SIGCONT);
  begin (vm, "three");
  vm_expect_within (vm, 60, ask_far (vm, "three").shared == 0);
  ask (vm, "three", "allocate 0 1024 shared");
  vm_job_kill (vm, "three");
}

/* ---- storage that is full for a while ---- */

/* Takes all that the file system of the storage has left. */
static char *
take_the_rest (void) {
  char *path = g_build_filename (folder, "storage", "somebody-elses", NULL);
  g_autofree char *bytes = g_malloc0 (1 << 20);
  const int fd = open (path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

  g_assert_cmpint (fd, >=, 0);
  for (gssize n = 1 << 20; n > 0;) /* by halves, to the last page */
    if (write (fd, bytes, (gsize)n) < n)
      n = n > 4096 ? n / 2 : 0;
  close (fd);
  return path;
}

static gboolean
is_synced (Vm *vm, const char *job) {
  g_autofree char *answer = NULL;

  vm_job_tell (vm, job, "sync 0");
  answer = vm_job_expect (vm, job, "", 200);
  g_test_message ("%s: sync 0: %s", job, answer);
  return g_str_has_prefix (answer, "ok");
}

/* Pages that can't be written stay, and are stored when there is room again. */
static void
storage_is_full (Vm *vm) {
  const int mib = 96;
  g_autofree char *others = NULL, *allocate = g_strdup_printf ("allocate 0 %d shared", mib);
  struct pages pages;

  /* What the disk had for the ranges before, it has given back. */
  vm_expect_within (vm, 120, far_status (far, 0, "segments.covered") < 36); /* 48 are needed */
  others = take_the_rest ();
  begin (vm, "one");
  ask (vm, "one", allocate);
  ask (vm, "one", "fill 0 11000000000000");
  expect_refused (vm, "one", "sync 0", EIO);
  g_assert_cmpint (far_status (far, 0, "errors"), >, 0);
  forget (vm, "one");
  pages = probe (vm, "one", 0);
  g_assert_cmpint (pages.right, ==, mib * 256);
  g_unlink (others);
  vm_expect_within (vm, 120, is_synced (vm, "one")); /* a failure since it was asked last is said once more */
  vm_expect_within (vm, 60, far_status (far, 0, "pages.raw") >= mib * 256);
  forget (vm, "one");
  far_kill_worker (far);
  pages = probe (vm, "one", 0);
  g_assert_cmpint (pages.right, ==, mib * 256);
  vm_job_kill (vm, "one");
  vm_expect_within (vm, 60, host_blocks () == 0);
}

/* ---- a disk that fails, and one that goes ---- */

static void
expect_lost (struct pages pages, int least, int most) {
  g_assert_cmpint (pages.zero, ==, 0); /* as it was before */
  g_assert_cmpint (pages.wrong, ==, 0);
  g_assert_cmpint (pages.bus, >=, least);
  g_assert_cmpint (pages.bus, <=, most);
}

static void
disk_fails (Vm *vm) {
  /* Kernels from 6.15 on may have a page cache of larger units: a bad page takes its neighbours along. */
  const int unit = g_str_equal (vm_series (vm), "new") ? 64 : 1;
  struct pages pages;

  /* A page that can't be read is SIGBUS, and no other page. Block 0 to 7: the bad page is in block 5. */
  begin (vm, "reader");
  ask (vm, "reader", "allocate 0 16 remote");
  ask (vm, "reader", "write 0 8000000000000");
  expect_lost (probe (vm, "reader", 0), 1, unit);
  ask (vm, "reader", "sync 0");
  forget (vm, "reader");
  pages = probe (vm, "reader", 0);
  g_assert_cmpint (pages.bus, >=, 1);
  g_assert_cmpint (pages.bus + pages.zero, <=, unit); /* the neighbours could not be written, and may be readable now */

  /* Block 8 to 15: a page in block 10 can't be written. It stays, however much memory is wanted: it must not come back as it
   * was before. And it is nothing to the others. */
  begin (vm, "writer");
  ask (vm, "writer", "allocate 0 16 remote");
  ask (vm, "writer", "fill 0 9000000000000");
  expect_refused (vm, "writer", "sync 0", EIO);
  forget (vm, "writer");
  expect_lost (probe (vm, "writer", 0), 0, 0);
  forget (vm, "reader");
  forget (vm, "writer");
  begin (vm, "greedy");
  ask (vm, "greedy", "allocate 0 260 shared");
  ask (vm, "greedy", "fill 0 9700000000000");
  vm_job_kill (vm, "greedy");
  expect_lost (probe (vm, "writer", 0), 0, 0);
  pages = probe (vm, "reader", 0);
  g_assert_cmpint (pages.bus + pages.zero, <=, unit);
  g_assert_cmpint (pages.wrong, ==, 0);
  vm_job_kill (vm, "writer");
  vm_job_kill (vm, "reader");
  begin (vm, "next");
  vm_expect_within (vm, 30, ask_far (vm, "next").remote == 0);
  ask (vm, "next", "allocate 0 8 remote");
  ask (vm, "next", "fill 0 9500000000000");
  ask (vm, "next", "sync 0");
  forget (vm, "next");
  pages = probe (vm, "next", 0);
  g_assert_cmpint (pages.right, ==, 2048);
  vm_job_kill (vm, "next");
}

static void
plug_another (Vm *vm) {
  g_autofree char *path = in_folder ("another");

  make_remote ("another");
  json_node_unref (vm_qmp (vm,
                           "{'execute': 'blockdev-add', 'arguments': {'driver': 'file', 'node-name': 'another',"
                           " 'discard': 'unmap', 'filename': '%s'}}",
                           path));
  json_node_unref (vm_qmp (vm, "{'execute': 'device_add', 'arguments': {'driver': 'virtio-blk-pci', 'id': 'another',"
                               " 'drive': 'another', 'serial': 'domybs-mem-remote', 'bus': 'farport',"
                               " 'logical_block_size': 4096, 'physical_block_size': 4096}}"));
}

static void
disk_goes (Vm *vm) {
  begin (vm, "loser");
  ask (vm, "loser", "allocate 0 8 remote");
  ask (vm, "loser", "fill 0 4000000000000");
  json_node_unref (vm_qmp (vm, "{'execute': 'device_del', 'arguments': {'id': 'remote'}}"));
  vm_wait_qmp_event (vm, "DEVICE_DELETED", 60);
  expect_lost (probe (vm, "loser", 0), 0, 2048);
  ask (vm, "loser", "forget 0");
  expect_lost (probe (vm, "loser", 0), 0, 2048);
  begin (vm, "next");
  expect_refused (vm, "next", "allocate 0 2 remote", EOPNOTSUPP);
  plug_another (vm);
  vm_expect_within (vm, 60, ask_far (vm, "next").remote_of == REMOTE_BLOCKS);
  ask (vm, "next", "allocate 0 64 remote"); /* all of it, while the other one's range still is */
  ask (vm, "next", "fill 0 4500000000000");
  expect_lost (probe (vm, "loser", 0), 0, 2048);
  vm_job_kill (vm, "loser");
  ask (vm, "next", "sync 0");
  forget (vm, "next");
  ask (vm, "next", "verify 0");
  g_assert_cmpint (ask_far (vm, "next").remote, ==, REMOTE_BLOCKS);
  vm_job_kill (vm, "next");
}

/* What happens to one disk is nothing to those who use the other. */
static void
trouble (Vm *vm) {
  begin (vm, "witness");
  ask (vm, "witness", "allocate 0 32 shared");
  ask (vm, "witness", "fill 0 7000000000000");
  disk_fails (vm);
  forget (vm, "witness");
  disk_goes (vm);
  ask (vm, "witness", "verify 0");
  vm_job_kill (vm, "witness");
}

static void
test_ranges (gconstpointer series) {
  Vm *vm = start (series);

  more_than_memory (vm);
  limits (vm);
  disk_hangs (vm);
  storage_is_full (vm);
  trouble (vm);
  vm_expect_within (vm, 60, vm_unload (vm, "virtio_domybs") == 0);
  end (vm);
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  for (const char *const *series = vm_all_series; *series; series++) {
    g_autofree char *path = g_strdup_printf ("/ranges/%s", *series);

    g_test_add_data_func (path, *series, test_ranges);
  }
  return vm_test_run ();
}
