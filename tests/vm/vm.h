/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whole virtual machines for tests: a domybs-backend, a stock QEMU from the lab, a stock Debian kernel, and in the guest the
 * agent of guest/agent.c.
 *
 * A call that can't do its work ends the test program as a failed assertion does, after it has printed the ends of the VM's logs
 * and where they are. What a test may expect to fail returns its status instead, and says so. Nothing waits without a limit, and no
 * process outlives the test program, however that ends.
 *
 *     int main (int argc, char **argv) {
 *       vm_test_init (&argc, &argv);
 *       g_test_add_data_func ("/grow/6.12", "6.12", grow);
 *       return vm_test_run ();
 *     }
 *
 * Environment: DOMYBS_SEED (see testing.h); DOMYBS_KEEP=1 keeps the VMs' folders; DOMYBS_FOLDERS is the folder, in /tmp, that they
 * are made in (default /tmp); DOMYBS_KERNEL_ARGS are further kernel parameters of all guests; DOMYBS_BACKEND, DOMYBS_GUEST_PROGRAMS and
 * DOMYBS_MODULES (folders of guest/ programs and of built drivers) take the place of what meson built.
 */
#ifndef DOMYBS_TESTS_VM_VM_H
#define DOMYBS_TESTS_VM_VM_H

#include "testing.h"

#include <gio/gio.h>
#include <json-glib/json-glib.h>

#define VM_MIB ((guint64)1 << 20)
#define VM_BLOCK_BYTES (2 * VM_MIB)

/* The kernel series that the lab has, NULL at the end. */
extern const char *const vm_all_series[];

typedef struct Vm Vm;

/* What is 0 or NULL gets the default. Strings are not kept. */
typedef struct {
  const char *name;                /* in messages and in the folder's name; default: the series */
  const char *series;              /* "6.1", "6.12" (default) or "new" */
  guint ram_mib;                   /* boot memory; default 1024 */
  guint max_ram_mib;               /* up to which QEMU's own devices (virtio-mem) may add to it; default: none */
  guint vcpus;                     /* default 2 */
  guint disk_mib;                  /* size of a disk, /dev/vda, that is a sparse file in the VM's folder; default: none */
  const char *kernel_args;         /* further kernel parameters */
  const char *const *qemu_args;    /* further QEMU arguments, NULL at the end */
  const char *const *initramfs_args; /* further arguments of scripts/lab initramfs ("--module", "zram"), NULL at the end */
  const char *const *backend_args; /* NULL: no memory device. Else: what its back-end gets besides --standalone and its sockets */
  const char *const *backend_wrapper; /* a command that the back-end is started with (valgrind, prlimit), NULL at the end */
  gboolean own_node;               /* the window is NUMA node 1, which has no processor and no other memory */
  gboolean root_port;              /* the device is behind a PCIe root port, so that it can be unplugged: device id "domybs0" */
  const char *driver_params;       /* loads virtio_domybs with these parameters after boot ("" is none); NULL: does not load it */
  gboolean expect_complaints;      /* kernel warnings (see vm_kernel_complaints) are not a failure at vm_stop */
  gboolean expect_backend_death;   /* nor is the end of the back-end or of its workers: vm_stop and waiting calls do not mind */
} VmConfig;

/* ---- the test program ---- */

/* In place of g_test_init. Ends the program with a skipped plan where there can't be a lab: not root, or not Debian. */
void vm_test_init (int *argc, char ***argv);

/* In place of g_test_run: stops what is left running afterwards. */
int vm_test_run (void);

/* ---- life ---- */

/* Starts the back-end (if any) and QEMU, waits for the guest's agent, and loads the driver (if asked to). */
Vm *vm_start (const VmConfig *config);

/* Ends all processes, and deletes the VM's folder. Fails the test if the guest's kernel complained, or if the back-end crashed,
 * a worker of it died, it did not end in time, or ended with a failure. NULL is fine. */
void vm_stop (Vm *vm);

/* For a VM that several test cases use one after the other: starts it into *slot if that is empty. What is in a slot when the
 * program ends is stopped by vm_test_run. */
Vm *vm_shared (Vm **slot, const VmConfig *config);

/* The guest's own reboot, at once (no process is ended before), and QEMU's reset button. Both wait for the agent, and load the
 * driver again if the configuration says so. */
void vm_reboot (Vm *vm);
void vm_reset (Vm *vm);

/* Waits until QEMU has ended by itself after the guest powered itself off. vm_stop is still to be called. */
void vm_poweroff (Vm *vm);

void vm_pause (Vm *vm);
void vm_resume (Vm *vm);

/* Seconds from the start of QEMU (or reboot) to the agent's hello. */
double vm_boot_seconds (Vm *vm);
const char *vm_series (Vm *vm);
const char *vm_folder (Vm *vm); /* for further files of the VM: disks, sockets; visible in the lab, too */

/* True if guests run under KVM here, and false if emulated. */
gboolean vm_is_fast (void);

/* Fails the test on behalf of this VM, with its logs. */
void vm_fail (Vm *vm, const char *format, ...) G_GNUC_PRINTF (2, 3) G_GNUC_NORETURN;

/* ---- VMs that somebody else starts ---- */

/* What a guest's agent and its harness expect of a kernel's command line, and the initramfs that goes with it (stays the
 * harness's; made at the first call). */
const char *vm_kernel_args (void);
const char *vm_initramfs (const char *series, gboolean with_driver);

/* A VM whose processes are somebody else's. Everything here works with it, but for vm_qmp and what speaks QMP (vm_reset, vm_pause,
 * vm_resume, vm_wait_qmp_event), because its QMP is somebody else's, too. */
typedef struct {
  const char *name, *series;
  const char *agent_path;    /* the host's end of the agent's port */
  const char *serial_log;    /* the guest's console */
  const char *qemu_log;      /* may be NULL */
  const char *driver_params; /* as in VmConfig */
  GPid qemu;
} VmForeign;

/* Waits for the guest's agent, and loads the driver if asked to. */
Vm *vm_adopt (const VmForeign *foreign);

/* Its back-end, when there is one: from now on its death is a failure. pid 0: there is none any more. */
void vm_adopt_backend (Vm *vm, GPid pid, const char *control_path, const char *log);

/* It may end from now on, as far as the harness is concerned. */
void vm_may_end (Vm *vm);

/* Forgets it, as vm_stop does, too; fails the test if the guest's kernel complained. NULL is fine. */
void vm_release (Vm *vm);

/* ---- in the guest ---- */

/* Runs a shell command; returns its exit status and, if ret_output is not NULL, what it printed. At most 120 s. */
int vm_run (Vm *vm, char **ret_output, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* The same, but anything else than status 0 fails the test; returns what it printed. */
char *vm_run_ok (Vm *vm, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* A request of the agent's protocol as it is, with a time limit of its own. Returns the status. */
int vm_request (Vm *vm, double seconds, char **ret_output, const char *format, ...) G_GNUC_PRINTF (4, 5);

/* Background jobs: a command whose output can be waited for and whose standard input can be written to. */
void vm_job_start (Vm *vm, const char *job, const char *format, ...) G_GNUC_PRINTF (3, 4);
void vm_job_tell (Vm *vm, const char *job, const char *text);
void vm_job_kill (Vm *vm, const char *job);
/* Waits for a line that begins with prefix and returns the line. Lines before it are dropped. Fails the test if the job ends
 * or says "failed…" or "mismatch…" before. */
char *vm_job_expect (Vm *vm, const char *job, const char *prefix, double seconds);
/* Waits for its end, forgets it, and returns its exit status; ret_output: what vm_job_expect has not read. */
int vm_job_wait (Vm *vm, const char *job, double seconds, char **ret_output);
/* TRUE while it runs. */
gboolean vm_job_is_running (Vm *vm, const char *job);
/* Tells it text and waits for the answer "ok…" (the manner of memtool). */
char *vm_job_ask (Vm *vm, const char *job, const char *text, double seconds);

/* 0 or an errno. */
int vm_load (Vm *vm, const char *module, const char *parameters);
int vm_unload (Vm *vm, const char *module);
int vm_write (Vm *vm, const char *path, const char *text);

/* The content of a file without its last newline. vm_read fails the test if there is none, vm_read_if_there returns NULL. */
char *vm_read (Vm *vm, const char *path);
char *vm_read_if_there (Vm *vm, const char *path);

/* A line of /proc/meminfo, in bytes; of /proc/vmstat, as it is. */
guint64 vm_guest_meminfo (Vm *vm, const char *key);
guint64 vm_guest_vmstat (Vm *vm, const char *key);

/* A file of the driver's sysfs folder, as text, as a number; and writing one (0 or an errno). */
char *vm_driver_get (Vm *vm, const char *file);
guint64 vm_driver_number (Vm *vm, const char *file);
int vm_driver_set (Vm *vm, const char *file, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* What the guest's kernel complained about so far (WARNING, BUG, Oops, panic …), NULL if nothing. */
char *vm_kernel_complaints (Vm *vm);

/* ---- on the host ---- */

/* QMP, and the back-end's control socket: the "return" of a command, given as JSON text. *_try return NULL with error for a
 * refused command, the others fail the test. */
JsonNode *vm_qmp (Vm *vm, const char *format, ...) G_GNUC_PRINTF (2, 3);
JsonNode *vm_qmp_try (Vm *vm, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);
JsonNode *vm_control (Vm *vm, const char *format, ...) G_GNUC_PRINTF (2, 3);
JsonNode *vm_control_try (Vm *vm, GError **error, const char *format, ...) G_GNUC_PRINTF (3, 4);
void vm_wait_qmp_event (Vm *vm, const char *event, double seconds);

/* A number of the back-end's status. */
gint64 vm_status_number (Vm *vm, const char *member);

/* Host memory that the window has now: the blocks of its memfd as the host's kernel counts them, by way of /proc/PID/fd of the
 * back-end, not by its own figures. 0 if it has no window now. */
guint64 vm_host_memfd_bytes (Vm *vm);

/* Open file descriptors and resident memory (bytes) of the back-end, its keeper and its worker together. */
guint vm_backend_fds (Vm *vm);
guint64 vm_backend_rss (Vm *vm);
GPid vm_backend_pid (Vm *vm); /* the keeper */
GPid vm_qemu_pid (Vm *vm);

/* The back-end's worker that runs now, the youngest if there are two; 0: none does just now. */
GPid vm_worker_pid (Vm *vm);

/* SIGKILL to the worker, after so many microseconds, from a thread, so that the test can do something meanwhile. held: it is
 * stopped at once, so that whoever needs it until then waits for certain. vm_shot_wait waits for the kill and until the next
 * worker answers, and returns how many seconds that one took to do so. Deaths that are not made by this fail the test at
 * vm_stop: what kills a worker is a bug, even where another one takes over. */
typedef struct VmShot VmShot;
VmShot *vm_shoot_worker (Vm *vm, gboolean held, guint after_us);
double vm_shot_wait (VmShot *shot);

/* How long a wait may take that should take so many seconds: three times that where guests are emulated, and share the processors. */
double vm_patience (double seconds);

/* Waits until predicate says TRUE, asking every 50 ms; FALSE when the time (vm_patience) is over. */
typedef gboolean (*VmPredicate) (Vm *vm, gpointer data);
gboolean vm_wait_until (Vm *vm, VmPredicate predicate, gpointer data, double seconds);

/* Waits until expression is true, else fails, after vm_patience (seconds), the test with the expression's text. */
#define vm_expect_within(vm, seconds, expression)                                                                              \
  G_STMT_START {                                                                                                               \
    gint64 vm_deadline_ = g_get_monotonic_time () + (gint64)(vm_patience (seconds) * G_USEC_PER_SEC);                          \
    while (!(expression)) {                                                                                                    \
      if (g_get_monotonic_time () > vm_deadline_)                                                                              \
        vm_fail (vm, "%s:%d: not within %g s: %s", __FILE__, __LINE__, (double)(seconds), #expression);                        \
      g_usleep (50000);                                                                                                        \
    }                                                                                                                          \
  }                                                                                                                            \
  G_STMT_END

#endif
