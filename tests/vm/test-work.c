/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What people do with memory, on far disks: Redis with three times the data that it has RAM for, a guest that thrashes its
 * swap while programs do O_DIRECT I/O out of the same memory, fio --verify. Meanwhile the disks' worker is killed, restarted
 * and upgraded, the VM stopped and continued, and the storage slow, hung, gone, failing, full. Every byte is checked; nobody
 * may notice anything but pauses and, where storage has failed, errors. After a reset, nothing of the boot before is on the
 * swap disk.
 *
 * All on Debian's 6.12, swap on the other kernels, too; DOMYBS_LONG=1: all on all, and ten times as long, and Redis with three
 * times the RAM of the whole guest.
 */
#include "far.h"
#include "lab-run.h"
#include "scene.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define SWAP_MIB 640
#define SCRATCH_MIB 64 /* the disk that is not ours */
#define DIO_MIB 24
#define THRASH_RAM_MIB 160
#define THRASH_MIB 256
#define FREED_PAGES ((gint64)(THRASH_MIB - THRASH_RAM_MIB) * 256 / 2) /* less than half of what could not be in memory */
#define REDIS_RAM_MIB 48                                              /* that Redis may have; and three times that of data */
#define REDIS_GUEST_MIB 112                                           /* and where it may have all of the guest's */
#define REDIS_VALUE 32768u

enum { SWAP, DATA, DISKS }; /* far disks: the guest's swap, and one for a program */

typedef struct {
  Vm *vm;
  struct far *far;
  LabServer server; /* the swap disk's storage, where it is an NBD server */
  char *folder;
  char *scratch; /* file */
  guint kills, upgrades, stops;
} Work;

static char *tools; /* the image with fio and Redis */
static char *common_folder;

static double
long_times (void) {
  return g_getenv ("DOMYBS_LONG") ? 10 : 1;
}

/* ---- a VM with far disks ---- */

static void
G_GNUC_PRINTF (2, 3) add (GPtrArray *arguments, const char *format, ...) {
  va_list values;

  va_start (values, format);
  g_ptr_array_add (arguments, g_strdup_vprintf (format, values));
  va_end (values);
}

/* Name (vda …) of the disk with that serial. */
static char *
disk_of (Work *work, const char *serial) {
  char *name = g_strchomp (
      vm_run_ok (work->vm, "for d in /sys/block/vd*; do [ \"$(cat $d/serial)\" != %s ] || echo ${d##*/}; done", serial));

  if (!*name)
    vm_fail (work->vm, "the guest has no disk %s", serial);
  return name;
}

/* After each boot. */
static void
booted (Work *work) {
  g_autofree char *image = disk_of (work, "tools");

  g_free (vm_run_ok (work->vm,
                     "mkdir -p /w && mount -t squashfs -o ro /dev/%s /w && ln -s /w/lib /lib && ln -s /w/lib64 /lib64", image));
  g_free (vm_run_ok (work->vm, "echo 1 >/proc/sys/vm/overcommit_memory; echo 4 >/proc/sys/vm/page-cluster"));
}

static void
swap_on (Work *work) {
  g_free (vm_run_ok (work->vm, "sh /w/bin/domybs-swap start"));
}

static void
begin (Work *work, const char *series, guint ram_mib, const char *storage) {
  static const char *const tiers[] = { "shared", "data" };
  static const char *const modules[] = { "--module", "squashfs", NULL };
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  int fd;

  work->folder = lab_folder ("work");
  work->scratch = g_build_filename (work->folder, "scratch", NULL);
  fd = open (work->scratch, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  g_assert_cmpint (ftruncate (fd, (off_t)SCRATCH_MIB << 20), ==, 0);
  close (fd);
  /* With a small stage most page-ins wait for storage. */
  work->far = far_start (&(struct far_options){ .bytes = (uint64_t)SWAP_MIB << 20,
                                                .n_disks = DISKS,
                                                .tiers = tiers,
                                                .storage = storage,
                                                .disk_extra = ",queues=2,give-back=2",
                                                .arguments = (const char *const[]){ "--stage=16M", NULL } });
  for (unsigned i = 0; i < DISKS; i++) {
    for (int tries = 0; !g_file_test (work->far->socket_paths[i], G_FILE_TEST_EXISTS); tries++) {
      g_assert_cmpint (tries, <, 600);
      g_usleep (50000);
    }
    add (arguments, "-chardev");
    add (arguments, "socket,id=far%u,path=%s,reconnect-ms=50", i, work->far->socket_paths[i]);
    add (arguments, "-device");
    add (arguments, "vhost-user-blk-pci,chardev=far%u,num-queues=2", i);
  }
  add (arguments, "-drive");
  add (arguments, "if=none,id=scratch,file=%s,format=raw,cache=none", work->scratch);
  add (arguments, "-device");
  add (arguments, "virtio-blk-pci,drive=scratch,serial=scratch");
  add (arguments, "-drive");
  add (arguments, "if=none,id=tools,file=%s,format=raw,readonly=on", tools);
  add (arguments, "-device");
  add (arguments, "virtio-blk-pci,drive=tools,serial=tools");
  g_ptr_array_add (arguments, NULL);
  work->vm = vm_start (&(VmConfig){ .name = "work",
                                    .series = series,
                                    .ram_mib = ram_mib,
                                    .qemu_args = (const char *const *)arguments->pdata,
                                    .initramfs_args = modules });
  booted (work);
}

/* Without a server, storage is a file. */
static void
begin_with_server (Work *work, const char *series, LabServerKind kind) {
  lab_server_start (&work->server, kind, (guint64)(SWAP_MIB + SWAP_MIB / 8 + 64) << 20);
  begin (work, series, THRASH_RAM_MIB, work->server.uri);
}

/* may_fail: requests to storage did, so the guest may have seen errors. */
static void
end (Work *work, gboolean may_fail) {
  for (unsigned i = 0; i < DISKS; i++) {
    g_assert_cmpint (far_status (work->far, i, "damaged-pages"), ==, 0);
    if (!may_fail)
      g_assert_cmpint (far_status (work->far, i, "errors"), ==, 0);
  }
  if (!may_fail) {
    g_autofree char *errors = vm_run_ok (work->vm, "dmesg | grep -c 'I/O error\\|-error on swap' || true");

    g_assert_cmpint (atoi (errors), ==, 0);
  }
  /* No worker died but by our hand, and those that were asked to did go. */
  g_assert_cmpint (far_status_top (work->far, "worker.deaths"), ==, work->kills);
  g_assert_cmpint (far_status_top (work->far, "worker.starts"), ==, 1 + work->kills + work->upgrades);
  g_test_message ("%u kills, %u restarts and upgrades, %u stops of the VM", work->kills, work->upgrades, work->stops);
  vm_stop (work->vm);
  far_end (work->far);
  if (work->server.folder)
    lab_server_end (&work->server);
  vm_delete_folder (work->folder);
  g_free (work->folder);
  g_free (work->scratch);
}

/* ---- what happens meanwhile ---- */

static void
kill_worker (Work *work) {
  far_kill_worker (work->far);
  work->kills++;
}

static void
replace_worker (Work *work, gboolean upgrade) {
  const pid_t before = backend_wait_worker (work->far->backend, 0, fe_patience_ms ());
  g_autoptr (JsonNode) answer
      = backend_control_once (work->far->backend, upgrade ? "{\"execute\":\"upgrade\"}" : "{\"execute\":\"restart\"}");

  /* The answer is the end of the connection. */
  g_assert_true (!answer || !json_object_has_member (json_node_get_object (answer), "error"));
  g_assert_cmpint (backend_wait_worker (work->far->backend, before, fe_patience_ms ()), >, 0);
  work->upgrades++;
  /* Until it answers it may be one of two, of which the first is about to end. */
  vm_expect_within (work->vm, 30, far_status_top (work->far, "worker.starts") == 1 + work->kills + work->upgrades);
}

static void
stop_and_continue (Work *work, GRand *rand) {
  vm_pause (work->vm);
  if (testing_once_in (rand, 2))
    kill_worker (work);
  g_usleep (testing_below (rand, 300000));
  vm_resume (work->vm);
  work->stops++;
}

static void
trouble_once (Work *work, GRand *rand) {
  switch (testing_below (rand, 5)) {
  case 0:
    replace_worker (work, TRUE);
    break;
  case 1:
    replace_worker (work, FALSE);
    break;
  case 2:
    stop_and_continue (work, rand);
    break;
  default:
    kill_worker (work);
  }
}

/* Each kind at least once, and more while there is time. */
static void
trouble (Work *work, GRand *rand, double seconds) {
  const gint64 until = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);

  kill_worker (work);
  replace_worker (work, TRUE);
  stop_and_continue (work, rand);
  while (g_get_monotonic_time () < until) {
    trouble_once (work, rand);
    g_usleep (200000 + testing_below (rand, 800000));
  }
}

static gint64
stored_pages (Work *work, unsigned disk) {
  return far_status (work->far, disk, "pages.raw") + far_status (work->far, disk, "pages.packed")
         + far_status (work->far, disk, "pages.same");
}

/* What the storage file takes. */
static guint64
file_bytes (Work *work) {
  struct stat st;

  g_assert_cmpint (stat (work->far->storage_path, &st), ==, 0);
  return (guint64)st.st_blocks * 512;
}

/* ---- swap ---- */

/* Two programs: one with more memory than there is, one whose buffers devices reach into meanwhile. */
static void
thrash_start (Work *work, GRand *rand, guint mib, double seconds) {
  g_autofree char *scratch = disk_of (work, "scratch"), *data = disk_of (work, "domybs-data");

  vm_job_start (work->vm, "fill", "memtool fill %uM --seed %u --seconds %g --hold", mib, g_rand_int (rand), seconds);
  vm_job_start (work->vm, "dio", "memtool dio /dev/%s %uM %u --seconds %g --hold", scratch, DIO_MIB, g_rand_int (rand),
                seconds);
  vm_job_start (work->vm, "far-dio", "memtool dio /dev/%s %uM %u --seconds %g --hold", data, DIO_MIB / 2, g_rand_int (rand),
                seconds);
}

/* Pages whose program ends while they are written stay in swap, and each keeps its cluster of 2 MiB: so none is being written
 * then. */
static void
end_fill (Work *work) {
  vm_expect_within (work->vm, 60, vm_run (work->vm, NULL, "grep -q '^Writeback: *0 kB' /proc/meminfo") == 0);
  vm_job_kill (work->vm, "fill");
}

static void
thrash_ends (Work *work, double seconds) {
  static const char *const jobs[] = { "dio", "far-dio" };

  g_free (vm_job_expect (work->vm, "fill", "ok verified", vm_patience (seconds)));
  for (unsigned i = 0; i < G_N_ELEMENTS (jobs); i++) {
    g_autofree char *line = vm_job_expect (work->vm, jobs[i], "ok dio", vm_patience (seconds));

    g_test_message ("%s: %s", jobs[i], line);
    vm_job_kill (work->vm, jobs[i]);
  }
  g_free (vm_job_ask (work->vm, "fill", "verify", vm_patience (seconds)));
  end_fill (work);
}

static void
test_swap (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  const gboolean whole = long_times () > 1 || g_str_equal (series, "6.12");
  const double seconds = (whole ? 8 : 4) * long_times ();
  g_autofree char *disk = NULL, *zero = NULL;
  guint64 full;
  Work work = { 0 };

  begin (&work, series, THRASH_RAM_MIB, NULL);
  swap_on (&work);
  thrash_start (&work, rand, THRASH_MIB, seconds);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) > 4000);
  trouble (&work, rand, seconds);
  thrash_ends (&work, 60);
  g_test_message ("%" G_GINT64_FORMAT " pages were read from storage since the last worker began",
                  far_status (work.far, SWAP, "read-pages-from-storage"));
  /* What the guest has freed, the host gets back; other programs of the guest have some of their pages there, too. */
  full = file_bytes (&work);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) < FREED_PAGES);
  vm_expect_within (work.vm, 60, file_bytes (&work) < full / 2);
  g_test_message ("storage: %" G_GUINT64_FORMAT " MiB came back to %" G_GUINT64_FORMAT ", for %" G_GINT64_FORMAT " pages", full >> 20,
                  file_bytes (&work) >> 20, stored_pages (&work, SWAP));

  if (!whole) {
    end (&work, FALSE);
    return;
  }

  /* The reset button, in the middle of it: what is on the disk is nobody's, and goes at swapon. */
  thrash_start (&work, rand, THRASH_MIB, 600);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) > 8000);
  vm_reset (work.vm);
  booted (&work);
  g_assert_cmpint (stored_pages (&work, SWAP), >, 8000);
  disk = disk_of (&work, "domybs-shared");
  g_assert_cmpint (vm_run (work.vm, NULL, "zerotool /dev/%s 4096", disk), ==, 3);
  swap_on (&work);
  zero = vm_run_ok (work.vm, "zerotool /dev/%s 4096", disk);
  g_test_message ("%s", zero);
  g_assert_cmpint (stored_pages (&work, SWAP), <=, 1); /* the swap header */
  thrash_start (&work, rand, THRASH_MIB, 1);
  kill_worker (&work);
  thrash_ends (&work, 60);
  end (&work, FALSE);
}

/* ---- Redis ---- */

/* group_mib: what Redis may have of the guest's RAM; 0: all of it. */
static void
redis (const char *series, guint ram_mib, guint group_mib) {
  g_autoptr (GRand) rand = testing_rand ();
  const double seconds = 8 * long_times ();
  const guint n_values = (group_mib ? group_mib : ram_mib) * 3 * (1u << 20) / REDIS_VALUE;
  Work work = { 0 };

  begin (&work, series, ram_mib, NULL);
  swap_on (&work);
  g_free (vm_run_ok (work.vm, "mkdir -p /cgroup/redis")); /* without a group, a folder like any */
  if (group_mib) /* so that it is Redis that has too little, and not the rest of the guest */
    g_free (vm_run_ok (work.vm,
                       "mount -t cgroup2 none /cgroup && echo +memory >/cgroup/cgroup.subtree_control &&"
                       " mkdir /cgroup/redis && echo %uM >/cgroup/redis/memory.max",
                       group_mib));
  vm_job_start (work.vm, "redis",
                "echo $$ >/cgroup/redis/cgroup.procs && exec /w/bin/redis-server --port 0 --unixsocket /tmp/redis --save ''"
                " --appendonly no --dir /tmp");
  vm_job_start (work.vm, "client", "redistool /tmp/redis %u %u %u %g", n_values, REDIS_VALUE, g_rand_int (rand), seconds);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) > 2000);
  trouble (&work, rand, 2);
  for (unsigned i = 0; i < 2; i++) {
    g_autofree char *line = vm_job_expect (work.vm, "client", i ? "ok churned" : "ok filled", vm_patience (120 + seconds));

    g_test_message ("%s", line);
    trouble (&work, rand, i ? 1 : seconds / 2);
  }
  g_free (vm_job_expect (work.vm, "client", "ok verified", vm_patience (120)));
  g_assert_cmpint (vm_job_wait (work.vm, "client", 10, NULL), ==, 0);
  g_assert_true (vm_job_is_running (work.vm, "redis"));
  /* Most of it can't be in memory. */
  g_assert_cmpint (stored_pages (&work, SWAP), >, (gint64)n_values * REDIS_VALUE / 4096 / 2);
  vm_job_kill (work.vm, "redis");
  end (&work, FALSE);
}

static void
test_redis (gconstpointer series) {
  redis (series, THRASH_RAM_MIB + REDIS_RAM_MIB, REDIS_RAM_MIB);
}

static void
test_redis_whole (gconstpointer series) {
  redis (series, REDIS_GUEST_MIB, 0);
}

/* ---- fio ---- */

static void
test_fio (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  const double seconds = 6 * long_times ();
  g_autofree char *disk = NULL;
  int status;
  Work work = { 0 };

  begin (&work, series, 384, NULL);
  disk = disk_of (&work, "domybs-data");
  /* Small ones at random, checked while they are written, and big ones in order, checked afterwards; again and again. */
  vm_job_start (
      work.vm, "fio",
      "end=$(($(date +%%s) + %d)); n=0; while [ $(date +%%s) -lt $end ] || [ $n = 0 ]; do n=$((n + 1));"
      " /w/bin/fio --filename=/dev/%s --direct=1 --ioengine=libaio --thread --group_reporting --minimal"
      " --verify=crc32c --verify_fatal=1 --randseed=$n"
      " --name=small --rw=randrw --bs=4k --iodepth=16 --size=16M --verify_backlog=512"
      " --name=big --rw=write --bs=256k --iodepth=4 --offset=64M --size=48M --do_verify=1"
      " --name=mixed --rw=randwrite --bsrange=4k-64k --bs_unaligned=0 --iodepth=8 --offset=128M --size=24M --do_verify=1"
      " >/tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }; done; echo ok fio $n rounds",
      (int)seconds, disk);
  vm_expect_within (work.vm, 60, stored_pages (&work, DATA) > 500);
  trouble (&work, rand, seconds);
  {
    g_autofree char *output = NULL;

    status = vm_job_wait (work.vm, "fio", vm_patience (120 + seconds), &output);
    g_test_message ("%s", output);
    g_assert_cmpint (status, ==, 0);
    g_assert_nonnull (strstr (output, "ok fio"));
  }
  /* It does look: with a byte changed behind its back it fails. */
  g_free (vm_run_ok (work.vm, "dd if=/dev/zero of=/dev/%s bs=4096 seek=17000 count=1 conv=notrunc 2>/dev/null", disk));
  g_assert_cmpint (
      vm_run (work.vm, NULL,
              "/w/bin/fio --filename=/dev/%s --direct=1 --thread --verify=crc32c --verify_only --name=big --rw=write --bs=256k"
              " --offset=64M --size=48M >/dev/null 2>&1",
              disk),
      !=, 0);
  end (&work, FALSE);
}

/* ---- storage in trouble ---- */

static void
test_slow_storage (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  Work work = { 0 };

  begin_with_server (&work, series, LAB_SERVER_SLOW);
  swap_on (&work);
  thrash_start (&work, rand, THRASH_MIB - 48, 1);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) > 4000);
  lab_server_hang (&work.server);
  kill_worker (&work);
  g_usleep (1500000);
  lab_server_go_on (&work.server);
  stop_and_continue (&work, rand);
  lab_server_kill (&work.server);
  g_usleep (500000);
  replace_worker (&work, TRUE);
  lab_server_again (&work.server);
  thrash_ends (&work, 120);
  end (&work, FALSE);
}

/* A page that can't be read ends the program that had it (SIGBUS), and no other; a wrong byte is never seen. */
static void
test_failing_storage (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  Work work = { 0 };
  guint victims = 0;

  begin_with_server (&work, series, LAB_SERVER_FAILS);
  swap_on (&work);
  for (unsigned round = 0; round < 2; round++) {
    g_autofree char *output = NULL;
    int status;

    vm_job_start (work.vm, "fill", "memtool fill %uM --seed %u --hold", THRASH_MIB - 48, round);
    g_free (vm_job_expect (work.vm, "fill", "ok verified", vm_patience (90)));
    g_assert_true (g_file_set_contents (work.server.trouble, "", 0, NULL));
    vm_job_tell (work.vm, "fill", "verify");
    vm_job_tell (work.vm, "fill", "exit");
    status = vm_job_wait (work.vm, "fill", vm_patience (120), &output);
    g_unlink (work.server.trouble);
    g_test_message ("status %d: %s", status, output);
    g_assert_null (strstr (output, "mismatch"));
    g_assert_cmpint (status, !=, 3);
    victims += status != 0;
    if (round == 0)
      kill_worker (&work);
  }
  /* One read of fifty fails: that nobody was hit can't be. */
  g_assert_cmpuint (victims, >, 0);
  g_assert_cmpint (far_status (work.far, SWAP, "storage-errors"), >, 0);
  thrash_start (&work, rand, THRASH_MIB - 48, 1);
  thrash_ends (&work, 120);
  end (&work, TRUE);
}

/* No space for what the guest would like to page out. Linux goes on and on trying to, where swap has free slots but no write
 * ends well, and kills nobody: so we end the program that asks too much. The other one has all that it had. */
static void
test_full_storage (gconstpointer series) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autofree char *folder = lab_folder ("full"), *storage = g_build_filename (folder, "storage", NULL);
  const guint fits = THRASH_RAM_MIB + 16;
  Work work = { 0 };

  g_assert_cmpint (mount ("none", folder, "tmpfs", 0, "size=288m,mode=0755"), ==, 0);
  begin (&work, series, THRASH_RAM_MIB, storage);
  swap_on (&work);
  vm_job_start (work.vm, "fill", "memtool fill %uM --seed %u --hold", fits, g_rand_int (rand));
  g_free (vm_job_expect (work.vm, "fill", "ok verified", vm_patience (90)));
  g_assert_cmpint (far_status (work.far, SWAP, "errors"), ==, 0);
  vm_job_start (work.vm, "hog", "memtool fill %uM", 2 * THRASH_MIB);
  vm_expect_within (work.vm, 60, far_status (work.far, SWAP, "errors") > 0);
  kill_worker (&work);
  vm_job_kill (work.vm, "hog");
  g_free (vm_job_ask (work.vm, "fill", "verify", vm_patience (90)));
  end_fill (&work);
  vm_expect_within (work.vm, 60, stored_pages (&work, SWAP) < FREED_PAGES);
  vm_job_start (work.vm, "fill", "memtool fill %uM --seed %u", fits, g_rand_int (rand));
  g_assert_cmpint (vm_job_wait (work.vm, "fill", vm_patience (120), NULL), ==, 0);
  end (&work, TRUE);
  umount2 (folder, MNT_DETACH);
  g_rmdir (folder);
}

static void
add_cases (const char *name, GTestDataFunc run, gboolean everywhere) {
  for (const char *const *series = vm_all_series; *series; series++) {
    g_autofree char *path = g_strdup_printf ("/work/%s/%s", *series, name);

    if (everywhere || long_times () > 1 || g_str_equal (*series, "6.12"))
      g_test_add_data_func (path, *series, run);
  }
}

static void
make_tools (void) {
  g_autofree char *script = g_build_filename (DOMYBS_SOURCE, "tests", "vm", "mktools", NULL),
                  *swap = g_build_filename (DOMYBS_SOURCE, "guest-driver", "udev", "domybs-swap", NULL);

  common_folder = lab_folder ("tools");
  tools = g_build_filename (common_folder, "image", NULL);
  g_free (vm_script ((const char *const[]){ script, tools, swap, NULL }));
}

int
main (int argc, char **argv) {
  int result;

  vm_test_init (&argc, &argv);
  make_tools ();
  add_cases ("swap", test_swap, TRUE);
  add_cases ("redis", test_redis, FALSE);
  if (long_times () > 1)
    add_cases ("redis, the whole guest", test_redis_whole, FALSE);
  add_cases ("fio", test_fio, FALSE);
  add_cases ("slow storage", test_slow_storage, FALSE);
  add_cases ("failing storage", test_failing_storage, FALSE);
  add_cases ("full storage", test_full_storage, FALSE);
  result = vm_test_run ();
  vm_delete_folder (common_folder);
  g_free (common_folder);
  g_free (tools);
  return result;
}
