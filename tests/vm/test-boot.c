/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lab, the guest programs and the harness themselves, without the memory device: every kernel boots, obeys and ends. */
#include "vm.h"

#include <errno.h>
#include <string.h>

typedef struct {
  const char *series;
  Vm *vm; /* one VM for all cases of a series */
} Kernel;

static Vm *
get_vm (Kernel *kernel) {
  static const char *const devices[] = {
    "-device", "virtio-balloon-pci,id=balloon0",
    "-object", "memory-backend-memfd,id=more,size=512M,share=on,reserve=off",
    "-device", "virtio-mem-pci,id=vmem0,memdev=more,requested-size=0,bus=pcie.0",
    NULL,
  };
  g_autofree char *name = g_strdup_printf ("boot-%s", kernel->series);

  return vm_shared (&kernel->vm,
                    &(VmConfig){ .name = name, .series = kernel->series, .max_ram_mib = 2048, .qemu_args = devices });
}

static void
test_agent (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);
  g_autofree char *output = NULL;
  g_autofree char *text = NULL;

  g_test_message ("%s: %.1f s from QEMU's start to the agent's hello", vm_series (vm), vm_boot_seconds (vm));
  g_assert_cmpint (vm_run (vm, &output, "echo to stdout; echo to stderr >&2; exit 7"), ==, 7);
  g_assert_cmpstr (output, ==, "to stdout\nto stderr\n");
  g_assert_cmpint (vm_run (vm, NULL, "kill -9 $$"), ==, 128 + 9);
  g_assert_cmpuint (vm_guest_meminfo (vm, "MemTotal"), >, 850 * VM_MIB);
  g_assert_cmpuint (vm_guest_meminfo (vm, "MemTotal"), <, 1024 * VM_MIB);

  g_assert_cmpint (vm_write (vm, "/proc/sys/kernel/hostname", "lab"), ==, 0);
  text = vm_read (vm, "/proc/sys/kernel/hostname");
  g_assert_cmpstr (text, ==, "lab");
  g_assert_cmpint (vm_write (vm, "/sys/kernel/mm/nothing", "x"), ==, ENOENT);
  g_assert_null (vm_read_if_there (vm, "/sys/kernel/mm/nothing"));
  g_assert_cmpint (vm_load (vm, "nothing", ""), ==, ENOENT);
  g_assert_cmpint (vm_unload (vm, "virtio_mem"), ==, 0);
  g_assert_cmpint (vm_load (vm, "virtio_mem", ""), ==, 0);
}

static void
test_jobs (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);
  g_autofree char *line = NULL;
  g_autofree char *output = NULL;

  vm_job_start (vm, "cat", "while read x; do echo said $x; done; exit 5");
  vm_job_start (vm, "sleeper", "sleep 1000");
  vm_job_tell (vm, "cat", "one");
  line = vm_job_expect (vm, "cat", "said", 30);
  g_assert_cmpstr (line, ==, "said one");
  /* a running job does not keep the agent from answering */
  g_free (vm_run_ok (vm, "true"));
  g_assert_true (vm_job_is_running (vm, "sleeper"));
  vm_job_kill (vm, "sleeper");
  vm_job_kill (vm, "cat");

  vm_job_start (vm, "ends", "echo last words; exit 5");
  g_assert_cmpint (vm_job_wait (vm, "ends", 30, &output), ==, 5);
  g_assert_cmpstr (output, ==, "last words\n");
}

static void
test_memtool (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);
  g_autofree char *half = NULL;
  g_autofree char *same_half = NULL;
  int status;

  vm_job_start (vm, "memory", "exec memtool fill 256M --seed 42 --hold");
  g_free (vm_job_expect (vm, "memory", "ok verified 268435456", 120));
  half = vm_job_ask (vm, "memory", "free-random 0.5 7", 60);
  g_free (vm_job_ask (vm, "memory", "verify", 60));
  g_free (vm_job_ask (vm, "memory", "refill", 60));
  g_free (vm_job_ask (vm, "memory", "verify", 60));
  same_half = vm_job_ask (vm, "memory", "free-random 0.5 7", 60);
  g_assert_cmpstr (half, ==, same_half);
  g_free (vm_job_ask (vm, "memory", "free-random 0.3 8 2M", 60));
  g_free (vm_job_ask (vm, "memory", "free", 60));
  g_free (vm_job_ask (vm, "memory", "refill", 60));

  /* it must see a single wrong bit */
  g_free (vm_job_ask (vm, "memory", "spoil 12345", 60));
  vm_job_tell (vm, "memory", "verify");
  status = vm_job_wait (vm, "memory", 60, NULL);
  g_assert_cmpint (status, ==, 3);
}

/* More than there is: the agent has to answer while the guest kills a process for want of memory. */
static void
test_out_of_memory (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);

  /* Others that may be killed, as in any guest: while the hog's memory is not back yet the agent may want some, and a kernel that
   * finds nobody to kill panics. */
  vm_job_start (vm, "others", "for i in 1 2 3 4 5 6 7 8; do sleep 600 & done; wait");
  vm_job_start (vm, "hog", "exec memtool fill 2G");
  for (int i = 0; vm_job_is_running (vm, "hog"); i++) {
    g_autofree char *uptime = vm_read (vm, "/proc/uptime");

    g_assert_cmpint (i, <, 2000);
    g_usleep (50000);
  }
  g_assert_cmpint (vm_job_wait (vm, "hog", 10, NULL), ==, 128 + 9);
  vm_job_kill (vm, "others");
  g_free (vm_run_ok (vm, "true"));
}

static gboolean
has_total (Vm *vm, gpointer mib) {
  guint64 total = vm_guest_meminfo (vm, "MemTotal") / VM_MIB;

  return GPOINTER_TO_INT (mib) < 0 ? total < (guint64)-GPOINTER_TO_INT (mib) : total > (guint64)GPOINTER_TO_INT (mib);
}

static void
test_balloon_and_virtio_mem (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);

  json_node_unref (vm_qmp (vm, "{\"execute\": \"balloon\", \"arguments\": {\"value\": %" G_GUINT64_FORMAT "}}", 768 * VM_MIB));
  g_assert_true (vm_wait_until (vm, has_total, GINT_TO_POINTER (-750), 60));
  json_node_unref (vm_qmp (vm, "{\"execute\": \"balloon\", \"arguments\": {\"value\": %" G_GUINT64_FORMAT "}}", 1024 * VM_MIB));
  g_assert_true (vm_wait_until (vm, has_total, GINT_TO_POINTER (850), 60));

  /* 6.1 leaves hot-added memory offline by itself; movable, so that it can be taken away again */
  g_assert_cmpint (vm_write (vm, "/sys/devices/system/memory/auto_online_blocks", "online_movable"), ==, 0);
  json_node_unref (vm_qmp (vm,
                           "{\"execute\": \"qom-set\", \"arguments\": {\"path\": \"vmem0\", \"property\": \"requested-size\", "
                           "\"value\": %" G_GUINT64_FORMAT "}}",
                           512 * VM_MIB));
  g_assert_true (vm_wait_until (vm, has_total, GINT_TO_POINTER (1400), 60));
  json_node_unref (vm_qmp (vm,
                           "{\"execute\": \"qom-set\", \"arguments\": {\"path\": \"vmem0\", \"property\": \"requested-size\", "
                           "\"value\": 0}}"));
  g_assert_true (vm_wait_until (vm, has_total, GINT_TO_POINTER (-1024), 60));
}

static void
test_pause (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);

  vm_pause (vm);
  g_usleep (300000);
  vm_resume (vm);
  g_free (vm_run_ok (vm, "true"));
}

static void
test_reboot (gconstpointer data) {
  Vm *vm = get_vm ((Kernel *)data);

  g_free (vm_run_ok (vm, "touch /tmp/before"));
  vm_reboot (vm);
  g_assert_cmpint (vm_run (vm, NULL, "test -e /tmp/before"), ==, 1);
  vm_reset (vm);
  g_free (vm_run_ok (vm, "true"));
}

static void
test_poweroff (gconstpointer data) {
  Kernel *kernel = (Kernel *)data;

  vm_poweroff (get_vm (kernel));
  vm_stop (g_steal_pointer (&kernel->vm));
}

/* Direct I/O to disks, and two VMs at a time. */
static void
test_disks (void) {
  static const char *const forgetful[] = { "-blockdev", "driver=null-co,node-name=forgets,size=67108864,read-zeroes=on",
                                           "-device", "virtio-blk-pci,drive=forgets", NULL };
  Vm *vms[2];

  for (int i = 0; i < 2; i++)
    vms[i] = vm_start (&(VmConfig){ .name = i ? "two" : "one", .ram_mib = 512, .disk_mib = 64, .qemu_args = forgetful });
  for (int i = 0; i < 2; i++) {
    g_autofree char *output = NULL;

    g_free (vm_run_ok (vms[i], "memtool dio /dev/vda 8M 3 --seconds 1"));
    /* a disk that keeps nothing: memtool has to notice */
    g_assert_cmpint (vm_run (vms[i], &output, "memtool dio /dev/vdb 8M 3"), ==, 3);
    g_assert_nonnull (strstr (output, "mismatch"));
    /* node 0 is all there is, and none of it is where the window would be */
    g_free (vm_run_ok (vms[i], "memtool dio /dev/vda 1M 3 --node 0 --window 0x1000-0x100000000"));
    g_assert_cmpint (vm_run (vms[i], NULL, "memtool dio /dev/vda 1M 3 --window 0x100000000-0x200000000"), ==, 4);
  }
  for (int i = 0; i < 2; i++)
    vm_stop (vms[i]);
}

int
main (int argc, char **argv) {
  static Kernel kernels[] = { { "6.1" }, { "6.12" }, { "new" } };
  static const struct {
    const char *name;
    GTestDataFunc run;
  } cases[] = {
    { "agent", test_agent },
    { "jobs", test_jobs },
    { "memtool", test_memtool },
    { "out-of-memory", test_out_of_memory },
    { "balloon-and-virtio-mem", test_balloon_and_virtio_mem },
    { "pause", test_pause },
    { "reboot", test_reboot },
    { "poweroff", test_poweroff },
  };

  vm_test_init (&argc, &argv);
  for (guint kernel = 0; kernel < G_N_ELEMENTS (kernels); kernel++)
    for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
      g_autofree char *path = g_strdup_printf ("/boot/%s/%s", kernels[kernel].series, cases[i].name);

      g_test_add_data_func (path, &kernels[kernel], cases[i].run);
    }
  g_test_add_func ("/boot/disks", test_disks);
  return vm_test_run ();
}
