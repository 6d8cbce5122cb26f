/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Other devices that reach into the same memory: a disk that reads and writes blocks of the window while others come and go,
 * and the two devices that change a guest's memory, too. */
#include "scene.h"

#include <inttypes.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DISK_MIB 64

/* For every VM of this program; QEMU locks it, and they run one after the other. */
static char *disk_path;

static Vm *
get_vm (const char *series) {
  static const char *const backend[] = { "--window=2G", "--local-max=512M", NULL };
  g_autofree char *name = g_strdup_printf ("devices-%s", series);
  g_autofree char *file = g_strdup_printf ("file,node-name=file0,filename=%s", disk_path);
  const char *const devices[] = {
    "-blockdev", file,
    "-blockdev", "raw,node-name=disk0,file=file0",
    "-device",   "virtio-blk-pci,drive=disk0",
    "-device",   "virtio-balloon-pci,id=balloon0",
    "-object",   "memory-backend-memfd,id=more,size=256M,share=on,reserve=off",
    "-device",   "virtio-mem-pci,id=vmem0,memdev=more,requested-size=0,bus=pcie.0",
    NULL,
  };

  return scene_vm (&(VmConfig){ .name = name,
                                .series = series,
                                .ram_mib = 512,
                                .max_ram_mib = 1024,
                                .qemu_args = devices,
                                .backend_args = backend,
                                .driver_params = "mode=manual" });
}

/* ---- a disk ---- */

static void
start_dio (Vm *vm, const char *job, const char *size, guint64 seed, guint seconds) {
  guint64 start, end;

  scene_window (vm, &start, &end);
  vm_job_start (vm, job, "memtool dio /dev/vda %s %" PRIu64 " --window 0x%" PRIx64 "-0x%" PRIx64 " --seconds %u", size, seed,
                start, end, seconds);
  g_free (vm_job_expect (vm, job, "ok ready", 60));
}

/* The disk's buffers are in blocks; blocks around them are released and granted, and hold other data, all the while. */
static void
test_disk (gconstpointer series) {
  Vm *vm = get_vm (series);
  g_autofree char *answer = NULL;
  guint changes = 0, seconds;
  double began = scene_now ();
  guint64 rounds, bytes, least, pages;

  /* long enough for some changes, also where each takes its time; they take longer beside a disk */
  scene_have (vm, 150, 30);
  scene_fill (vm, "other", 60, 1, "--thp off", 60);
  scene_fill_end (vm, "other");
  scene_have (vm, SCENE_SECTION_BLOCKS, 30);
  seconds = (guint)CLAMP (6 * (scene_now () - began), 6, 60);
  start_dio (vm, "disk", "16M", 11, seconds);
  while (vm_job_is_running (vm, "disk")) {
    scene_have (vm, changes % 2 ? 40 : 150, 30);
    if (changes++ % 4 == 0) {
      scene_fill (vm, "other", 60, changes, changes % 8 ? "--thp on" : "--thp off", 60);
      scene_free (vm, "other", "free-random 0.5 3 2M");
    } else if (changes % 4 == 0) {
      scene_verify (vm, "other");
      scene_fill_end (vm, "other");
    }
  }
  answer = vm_job_expect (vm, "disk", "ok dio", 10);
  g_test_message ("%s; meanwhile, in %u s, %u changes between 40 and 150 blocks", answer, seconds, changes);
  if (sscanf (answer, "ok dio %" SCNu64 " rounds of %" SCNu64 " bytes, at least %" SCNu64 " of %" SCNu64, &rounds, &bytes,
              &least, &pages)
      != 4)
    vm_fail (vm, "memtool says: %s", answer);
  g_assert_cmpint (vm_job_wait (vm, "disk", 10, NULL), ==, 0);
  g_assert_cmpuint (rounds, >=, 2);
  g_assert_cmpuint (changes, >=, 4);
  /* blocks that are taken back may push the buffer's pages into boot memory, but not most of them: others were free */
  g_assert_cmpuint (least, >=, pages / 4);
  if ((changes - 1) % 4 != 3)
    vm_job_kill (vm, "other");
  scene_have (vm, 0, 30);
  scene_expect_nothing_granted (vm, 5);
  scene_expect_sane (vm);
}

/* Blocks of a program's own, by way of /dev/domybs, as a disk's target. */
static void
test_disk_and_user_blocks (gconstpointer series) {
  Vm *vm = get_vm (series);

  scene_have (vm, 0, 30);
  vm_job_start (vm, "program", "usertool");
  g_free (vm_job_expect (vm, "program", "ready", 30));
  g_free (vm_job_ask (vm, "program", "allocate 0 16 local 1", 30));
  for (int i = 0; i < 3; i++) {
    scene_have (vm, 100, 30);
    g_free (vm_job_ask (vm, "program", "dio 0 /dev/vda", 60));
    scene_want (vm, 0);
    g_free (vm_job_ask (vm, "program", "dio 0 /dev/vda", 60));
    vm_expect_within (vm, 30, scene_granted (vm) == 8);
  }
  g_free (vm_job_ask (vm, "program", "verify 0", 60));
  vm_job_kill (vm, "program");
  scene_expect_nothing_granted (vm, 30);
  scene_expect_sane (vm);
}

/* ---- virtio-balloon and virtio-mem ---- */

static void
set_balloon (Vm *vm, guint64 mib) {
  g_autoptr (JsonNode) answer
      = vm_qmp (vm, "{\"execute\": \"balloon\", \"arguments\": {\"value\": %" PRIu64 "}}", mib * VM_MIB);
}

static guint64
balloon_mib (Vm *vm) {
  g_autoptr (JsonNode) answer = vm_qmp (vm, "{\"execute\": \"query-balloon\"}");

  return (guint64)json_object_get_int_member (json_node_get_object (answer), "actual") / VM_MIB;
}

static void
set_virtio_mem (Vm *vm, guint64 mib) {
  g_autoptr (JsonNode) answer = vm_qmp (vm,
                                        "{\"execute\": \"qom-set\", \"arguments\": {\"path\": \"vmem0\", \"property\": "
                                        "\"requested-size\", \"value\": %" PRIu64 "}}",
                                        mib * VM_MIB);
}

static guint64
virtio_mem_mib (Vm *vm) {
  g_autoptr (JsonNode) answer
      = vm_qmp (vm, "{\"execute\": \"qom-get\", \"arguments\": {\"path\": \"vmem0\", \"property\": \"size\"}}");

  return (guint64)json_node_get_int (answer) / VM_MIB;
}

static void
test_three_at_once (gconstpointer series) {
  Vm *vm = get_vm (series);
  guint64 sections = SCENE_SECTION_BLOCKS;

  scene_have (vm, 0, 30);
  g_assert_cmpuint (balloon_mib (vm), ==, 512);
  /* nobody else brings virtio-mem's memory online here; later kernels of Debian do it by themselves */
  g_assert_cmpint (vm_write (vm, "/sys/devices/system/memory/auto_online_blocks", "online"), ==, 0);
  for (int round = 0; round < 3; round++) {
    /* everything at the same time: the other two are asynchronous, ours is waited for */
    set_virtio_mem (vm, 256);
    scene_have (vm, 3 * sections, 30);
    vm_expect_within (vm, 30, virtio_mem_mib (vm) == 256);
    scene_fill (vm, "data", 250, 20 + (guint64)round, round % 2 ? "--thp on" : "--thp off", 60);
    set_balloon (vm, 512 - 100);
    scene_have (vm, 2 * sections + 10, 60);
    vm_expect_within (vm, 30, balloon_mib (vm) <= 512 - 90);
    scene_verify (vm, "data");
    scene_free (vm, "data", "free-random 0.6 8 2M");
    set_balloon (vm, 512);
    set_virtio_mem (vm, 0);
    scene_have (vm, sections, 60);
    scene_verify (vm, "data");
    vm_expect_within (vm, 30, balloon_mib (vm) == 512);
    /* virtio-mem's own unplug is a matter of luck in a zone for the kernel: only that it ends is ours to expect */
    scene_fill_end (vm, "data");
    scene_have (vm, 0, 60);
    scene_expect_nothing_granted (vm, 10);
    scene_expect_sane (vm);
  }
  g_test_message ("virtio-mem has %" PRIu64 " MiB left, the balloon is back at %" PRIu64 " MiB", virtio_mem_mib (vm),
                  balloon_mib (vm));
}

int
main (int argc, char **argv) {
  static const SceneCase cases[] = {
    { "disk", test_disk, SCENE_EVERYWHERE },
    { "disk-and-user-blocks", test_disk_and_user_blocks, SCENE_ONCE },
    { "balloon-and-virtio-mem", test_three_at_once, SCENE_BOTH },
  };
  int fd, status;

  vm_test_init (&argc, &argv);
  fd = g_file_open_tmp ("domybs-disk-XXXXXX", &disk_path, NULL);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (ftruncate (fd, DISK_MIB * (off_t)VM_MIB), ==, 0);
  close (fd);
  scene_add_cases ("devices", cases, G_N_ELEMENTS (cases));
  status = vm_test_run ();
  unlink (disk_path);
  g_free (disk_path);
  return status;
}
