/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "vm-internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* An emulated guest is at its agent after 2 to 4 s on an idle machine; a machine may be very busy. */
#define BOOT_SECONDS 180.0
#define LISTEN_SECONDS 20.0
#define END_SECONDS 15.0
#define LIVING_MAX 16
#define LOG_TAIL_BYTES 3000

const char *const vm_all_series[] = { "6.1", "6.12", "new", NULL };

static Vm *living[LIVING_MAX]; /* fixed, because a signal handler reads it */
static GHashTable *initramfs_of; /* series → path; made once for each program */
static char *program_folder;     /* for what all VMs of this program share */
static char *accelerator;

/* ---- where things are ---- */

static const char *
setting (const char *variable, const char *otherwise) {
  const char *value = g_getenv (variable);

  return value && *value ? value : otherwise;
}

char *
vm_lab_script (void) {
  return g_build_filename (setting ("DOMYBS_SOURCE", DOMYBS_SOURCE), "scripts", "lab", NULL);
}

/* ---- failing ---- */

static void
show_tail (const char *what, const char *path) {
  static char bytes[LOG_TAIL_BYTES];
  int fd = path ? open (path, O_RDONLY | O_CLOEXEC) : -1;
  off_t size;
  ssize_t got;

  if (fd < 0)
    return;
  size = lseek (fd, 0, SEEK_END);
  got = pread (fd, bytes, sizeof bytes, size > LOG_TAIL_BYTES ? size - LOG_TAIL_BYTES : 0);
  close (fd);
  dprintf (STDERR_FILENO, "---- the end of the %s log, %s:\n", what, path);
  if (got > 0 && write (STDERR_FILENO, bytes, (size_t)got) < 0)
    return;
  dprintf (STDERR_FILENO, "\n");
}

static void
show_logs (const Vm *vm) {
  show_tail ("guest's console", vm->serial);
  show_tail ("QEMU", vm->qemu.log);
  show_tail ("back-end", vm->backend.log);
  if (vm->folder)
    dprintf (STDERR_FILENO, "---- the VM's folder: %s\n", vm->folder);
}

/* A failed assertion, a time limit of the test runner, or Ctrl-C: says what the VMs were doing, and ends them. Calls nothing but
 * what a signal handler may. */
static void
on_end (int number) {
  for (int i = 0; i < LIVING_MAX; i++) {
    if (!living[i])
      continue;
    if (number != SIGINT)
      show_logs (living[i]);
    if (living[i]->foreign) /* somebody else's to end */
      continue;
    if (living[i]->qemu.pid)
      kill (living[i]->qemu.pid, SIGKILL);
    if (living[i]->backend.pid)
      kill (living[i]->backend.pid, SIGKILL);
  }
  /* the VMs' folders tell what happened, this one holds nothing that can't be made again */
  if (program_folder && fork () == 0) {
    execl ("/bin/rm", "rm", "-rf", "--one-file-system", "--", program_folder, NULL);
    _exit (127);
  }
  signal (number, SIG_DFL);
  raise (number);
}

void
vm_fail (Vm *vm, const char *format, ...) {
  g_autofree char *message = NULL;
  g_autofree char *whole = NULL;
  va_list arguments;

  va_start (arguments, format);
  message = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  whole = g_strdup_printf ("VM %s: %s", vm->name, message);
  g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, whole);
  abort ();
}

void
vm_fail_with (Vm *vm, GError *error, const char *doing) {
  vm_fail (vm, "%s: %s", doing, error->message);
}

gboolean
vm_watch (gpointer data, GError **error) {
  Vm *vm = data;

  if (!vm->ending && !vm_process_runs (&vm->qemu)) {
    g_autofree char *how = vm_process_describe (&vm->qemu);

    g_set_error (error, G_IO_ERROR, G_IO_ERROR_BROKEN_PIPE, "QEMU has ended: %s", how);
    return FALSE;
  }
  if (vm->backend.log && !vm->expect_backend_death && !vm->ending && !vm_process_runs (&vm->backend)) {
    g_autofree char *how = vm_process_describe (&vm->backend);

    g_set_error (error, G_IO_ERROR, G_IO_ERROR_BROKEN_PIPE, "the back-end has ended: %s", how);
    return FALSE;
  }
  return TRUE;
}

/* ---- the test program ---- */

static const char *
why_no_lab (void) {
  if (geteuid () != 0)
    return "the lab needs root";
  if (!g_file_test ("/etc/debian_version", G_FILE_TEST_EXISTS))
    return "the lab is made of Debian packages on Debian only";
  return NULL;
}

void
vm_test_init (int *argc, char ***argv) {
  const char *reason = why_no_lab ();
  g_autofree char *lab = vm_lab_script ();
  const char *const make[] = { lab, "make", NULL };
  const char *const find[] = { lab, "accelerator", NULL };
  struct sigaction action = { .sa_handler = on_end, .sa_flags = (int)SA_RESETHAND };

  if (reason) {
    g_print ("1..0 # SKIP %s\n", reason);
    exit (0);
  }
  testing_init (argc, argv);
  sigaction (SIGABRT, &action, NULL);
  sigaction (SIGTERM, &action, NULL);
  sigaction (SIGINT, &action, NULL);
  g_free (vm_script (make));
  accelerator = vm_script (find);
  g_print ("# guests run under %s\n", accelerator);
  initramfs_of = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, g_free);
}

void
vm_delete_folder (const char *folder) {
  const char *const command[] = { "rm", "-rf", "--one-file-system", "--", folder, NULL };

  g_free (vm_script (command));
}

int
vm_test_run (void) {
  int status = g_test_run ();

  for (int i = 0; i < LIVING_MAX; i++)
    vm_stop (living[i]);
  if (program_folder)
    vm_delete_folder (program_folder);
  g_clear_pointer (&program_folder, g_free);
  g_clear_pointer (&initramfs_of, g_hash_table_unref);
  g_clear_pointer (&accelerator, g_free);
  return status;
}

gboolean
vm_is_fast (void) {
  return g_str_equal (accelerator, "kvm");
}

double
vm_patience (double seconds) {
  return vm_is_fast () ? seconds : 3 * seconds;
}

/* ---- starting ---- */

/* The lab sees /tmp, whatever TMPDIR says; and socket paths must stay short. */
char *
vm_make_folder (const char *name) {
  g_autofree char *template = g_strdup_printf ("%s/domybs-vm-%s-XXXXXX", setting ("DOMYBS_FOLDERS", "/tmp"), name);

  if (!g_mkdtemp (template))
    g_error ("can't create a folder like %s: %s", template, g_strerror (errno));
  return g_steal_pointer (&template);
}

/* The driver for the series, built now if it is not up to date. */
static char *
driver_path (const char *series) {
  g_autofree char *lab = vm_lab_script ();
  g_autofree char *source = g_build_filename (setting ("DOMYBS_SOURCE", DOMYBS_SOURCE), "guest-driver", NULL);
  const char *folder = g_getenv ("DOMYBS_MODULES");

  if (!folder) {
    const char *const build[] = { lab, "modules", source, DOMYBS_BUILD_MODULES, series, NULL };

    folder = DOMYBS_BUILD_MODULES;
    g_free (vm_script (build));
  }
  return g_build_filename (folder, series, "virtio_domybs.ko", NULL);
}

/* more: further arguments of scripts/lab initramfs, NULL at the end; may be NULL. */
static const char *
initramfs (const char *series, gboolean with_driver, const char *const *more) {
  g_autofree char *more_text = more ? g_strjoinv ("\n", (char **)more) : g_strdup ("");
  g_autofree char *key = g_strdup_printf ("%s-%s\n%s", series, with_driver ? "driver" : "plain", more_text);
  g_autofree char *lab = vm_lab_script ();
  g_autofree char *driver = NULL;
  g_autofree char *name = NULL;
  g_autoptr (GPtrArray) arguments = g_ptr_array_new ();
  char *path = g_hash_table_lookup (initramfs_of, key);

  if (path)
    return path;
  if (!program_folder)
    program_folder = vm_make_folder ("initramfs");
  name = g_strdup_printf ("%s-%u", series, g_hash_table_size (initramfs_of));
  path = g_build_filename (program_folder, name, NULL);
  g_ptr_array_add (arguments, lab);
  g_ptr_array_add (arguments, (char *)"initramfs");
  g_ptr_array_add (arguments, (char *)series);
  g_ptr_array_add (arguments, path);
  g_ptr_array_add (arguments, (char *)"--programs");
  g_ptr_array_add (arguments, (char *)setting ("DOMYBS_GUEST_PROGRAMS", DOMYBS_GUEST_PROGRAMS));
  if (with_driver) {
    driver = driver_path (series);
    g_ptr_array_add (arguments, (char *)"--driver");
    g_ptr_array_add (arguments, driver);
  }
  for (; more && *more; more++)
    g_ptr_array_add (arguments, (char *)*more);
  g_ptr_array_add (arguments, NULL);
  g_free (vm_script ((const char *const *)arguments->pdata));
  g_hash_table_insert (initramfs_of, g_steal_pointer (&key), path);
  return path;
}

const char *
vm_initramfs (const char *series, gboolean with_driver) {
  return initramfs (series, with_driver, NULL);
}

/* Connecting to see whether it listens would be taken for QEMU; the kernel's list of sockets tells without. */
static gboolean
listens (const char *path) {
  g_autofree char *sockets = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents ("/proc/net/unix", &sockets, NULL, NULL))
    return FALSE;
  lines = g_strsplit (sockets, "\n", -1);
  for (int i = 0; lines[i]; i++) {
    g_auto (GStrv) fields = g_strsplit_set (lines[i], " ", -1);
    guint count = g_strv_length (fields);

    if (count > 3 && g_str_equal (fields[count - 1], path) && g_str_equal (fields[3], "00010000"))
      return TRUE;
  }
  return FALSE;
}

static void
start_backend (Vm *vm, const VmConfig *config) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *socket = g_build_filename (vm->folder, "backend.sock", NULL);
  gint64 deadline;

  for (int i = 0; config->backend_wrapper && config->backend_wrapper[i]; i++)
    g_ptr_array_add (arguments, g_strdup (config->backend_wrapper[i]));
  g_ptr_array_add (arguments, g_strdup (setting ("DOMYBS_BACKEND", DOMYBS_BACKEND)));
  g_ptr_array_add (arguments, g_strdup ("--standalone"));
  g_ptr_array_add (arguments, g_strdup_printf ("--name=%s", vm->name));
  g_ptr_array_add (arguments, g_strdup_printf ("--socket-path=%s", socket));
  g_ptr_array_add (arguments, g_strdup_printf ("--control-path=%s/control.sock", vm->folder));
  /* An account of its own, so that VMs of other tests and of the machine's owner do not count; a later option overrides it */
  g_ptr_array_add (arguments, g_strdup_printf ("--host-account=%s/account", vm->folder));
  if (config->own_node)
    g_ptr_array_add (arguments, g_strdup ("--numa-node=1"));
  for (int i = 0; config->backend_args[i]; i++)
    g_ptr_array_add (arguments, g_strdup (config->backend_args[i]));
  g_ptr_array_add (arguments, NULL);
  vm_process_start (vm, &vm->backend, "backend", (const char *const *)arguments->pdata);

  deadline = g_get_monotonic_time () + (gint64)(LISTEN_SECONDS * G_USEC_PER_SEC);
  while (!listens (socket)) {
    if (!vm_process_runs (&vm->backend))
      vm_fail (vm, "the back-end ended before it listened at %s", socket);
    if (g_get_monotonic_time () > deadline)
      vm_fail (vm, "the back-end does not listen at %s after %g s", socket, LISTEN_SECONDS);
    g_usleep (10000);
  }
}

static void G_GNUC_PRINTF (2, 3)
add (GPtrArray *arguments, const char *format, ...) {
  va_list values;

  va_start (values, format);
  g_ptr_array_add (arguments, g_strdup_vprintf (format, values));
  va_end (values);
}

static void
add_disk (GPtrArray *arguments, Vm *vm, guint mib) {
  g_autofree char *path = g_build_filename (vm->folder, "disk.img", NULL);
  int fd = open (path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

  if (fd < 0 || ftruncate (fd, (off_t)(mib * VM_MIB)))
    vm_fail (vm, "can't create the disk %s: %s", path, g_strerror (errno));
  close (fd);
  add (arguments, "-blockdev");
  add (arguments, "driver=file,node-name=disk,filename=%s", path);
  add (arguments, "-device");
  add (arguments, "virtio-blk-pci,drive=disk");
}

static void
add_memory_device (GPtrArray *arguments, const Vm *vm, const VmConfig *config) {
  add (arguments, "-chardev");
  add (arguments, "socket,id=domybs-chr,path=%s/backend.sock", vm->folder);
  if (config->root_port) {
    add (arguments, "-device");
    add (arguments, "pcie-root-port,id=domybs-port,bus=pcie.0,addr=0x10,chassis=16");
  }
  add (arguments, "-device");
  add (arguments, "vhost-user-test-device-pci,id=domybs0,chardev=domybs-chr,virtio-id=37,num_vqs=2,config_size=64%s",
       config->root_port ? ",bus=domybs-port" : "");
  if (config->own_node) {
    add (arguments, "-numa");
    add (arguments, "node,nodeid=0,cpus=0-%u,memdev=ram", (config->vcpus ? config->vcpus : 2) - 1);
    add (arguments, "-numa");
    add (arguments, "node,nodeid=1");
    /* without it Linux would not even reserve a number for the empty node */
    add (arguments, "-object");
    add (arguments, "acpi-generic-initiator,id=domybs-initiator,pci-dev=domybs0,node=1");
  }
}

static void
start_qemu (Vm *vm, const VmConfig *config) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *lab = vm_lab_script ();
  guint ram = config->ram_mib ? config->ram_mib : 1024;

  add (arguments, "%s", lab);
  add (arguments, "run");
  add (arguments, "qemu-system-x86_64");
  add (arguments, "-nodefaults");
  add (arguments, "-no-user-config");
  add (arguments, "-display");
  add (arguments, "none");
  add (arguments, "-machine");
  add (arguments, "q35%s", config->own_node ? "" : ",memory-backend=ram");
  add (arguments, "-accel");
  add (arguments, vm_is_fast () ? "kvm" : "tcg,thread=multi");
  add (arguments, "-cpu");
  /* Emulated, `rep stosb` clears memory byte by byte. Without these two bits Linux takes wider stores: touching memory is six times as fast. */
  /* Firmware puts the window at the top of 40 bits, which is reserved on AMD (as which the emulated processor poses), so that a
   * device that is plugged in later would find no room there. */
  add (arguments, "%s%s", vm_is_fast () ? "host" : "max,erms=off,fsrm=off",
       config->root_port && !vm_is_fast () ? ",phys-bits=46" : "");
  add (arguments, "-smp");
  add (arguments, "%u", config->vcpus ? config->vcpus : 2);
  add (arguments, "-m");
  if (config->max_ram_mib)
    add (arguments, "size=%uM,slots=4,maxmem=%uM", ram, config->max_ram_mib);
  else
    add (arguments, "%uM", ram);
  add (arguments, "-object");
  add (arguments, "memory-backend-memfd,id=ram,size=%uM,share=on", ram);
  add (arguments, "-kernel");
  add (arguments, "/srv/kernels/%s/vmlinux", vm->series);
  add (arguments, "-initrd");
  add (arguments, "%s", initramfs (vm->series, config->driver_params != NULL, config->initramfs_args));
  add (arguments, "-append");
  add (arguments, "%s %s", vm_kernel_args (), config->kernel_args ? config->kernel_args : "");
  add (arguments, "-serial");
  add (arguments, "file:%s", vm->serial);
  add (arguments, "-qmp");
  add (arguments, "unix:%s/qmp.sock,server=on,wait=off", vm->folder);
  add (arguments, "-device");
  add (arguments, "virtio-serial-pci");
  add (arguments, "-chardev");
  add (arguments, "socket,id=agent,path=%s/agent.sock,server=on,wait=off", vm->folder);
  add (arguments, "-device");
  add (arguments, "virtserialport,chardev=agent,name=domybs.agent");
  if (config->disk_mib)
    add_disk (arguments, vm, config->disk_mib);
  if (config->backend_args)
    add_memory_device (arguments, vm, config);
  for (int i = 0; config->qemu_args && config->qemu_args[i]; i++)
    add (arguments, "%s", config->qemu_args[i]);
  g_ptr_array_add (arguments, NULL);
  vm_process_start (vm, &vm->qemu, "qemu", (const char *const *)arguments->pdata);
}

void
vm_load_driver (Vm *vm) {
  if (!vm->driver_params)
    return;
  int error = vm_load (vm, "virtio_domybs", vm->driver_params);
  if (error)
    vm_fail (vm, "loading virtio_domybs with '%s': %s", vm->driver_params, g_strerror (error));
}

Vm *
vm_new (const char *name, const char *series, const char *driver_params) {
  Vm *vm = g_new0 (Vm, 1);
  int slot = 0;

  vm->series = g_strdup (series ? series : "6.12");
  vm->name = g_strdup (name ? name : vm->series);
  vm->driver_params = g_strdup (driver_params);
  vm->jobs = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  while (slot < LIVING_MAX && living[slot])
    slot++;
  g_assert_cmpint (slot, <, LIVING_MAX);
  living[slot] = vm;
  return vm;
}

Vm *
vm_start (const VmConfig *config) {
  Vm *vm = vm_new (config->name, config->series, config->driver_params);
  g_autoptr (GError) error = NULL;
  g_autofree char *agent = NULL;
  g_autofree char *qmp = NULL;

  vm->expect_complaints = config->expect_complaints;
  vm->expect_backend_death = config->expect_backend_death;
  vm->folder = vm_make_folder (vm->name);
  vm->serial = g_build_filename (vm->folder, "serial.log", NULL);
  vm->control_path = g_build_filename (vm->folder, "control.sock", NULL);
  if (config->backend_args)
    start_backend (vm, config);
  start_qemu (vm, config);
  agent = g_build_filename (vm->folder, "agent.sock", NULL);
  qmp = g_build_filename (vm->folder, "qmp.sock", NULL);
  vm->agent = channel_connect (agent, LISTEN_SECONDS, vm_watch, vm, &error);
  if (!vm->agent)
    vm_fail_with (vm, error, "starting QEMU");
  vm->qmp = qmp_connect (qmp, TRUE, LISTEN_SECONDS, vm_watch, vm, &error);
  if (!vm->qmp)
    vm_fail_with (vm, error, "starting QEMU");
  vm_wait_hello (vm, BOOT_SECONDS);
  vm_load_driver (vm);
  return vm;
}

Vm *
vm_shared (Vm **slot, const VmConfig *config) {
  if (!*slot)
    *slot = vm_start (config);
  return *slot;
}

/* ---- ending ---- */

static void
free_job (gpointer key, gpointer output, gpointer data) {
  g_string_free (output, TRUE);
}

void
vm_free (Vm *vm) {
  for (int i = 0; i < LIVING_MAX; i++)
    if (living[i] == vm)
      living[i] = NULL;
  g_hash_table_foreach (vm->jobs, free_job, NULL);
  g_hash_table_unref (vm->jobs);
  g_clear_pointer (&vm->agent, channel_free);
  g_clear_pointer (&vm->qmp, qmp_free);
  g_clear_pointer (&vm->control, qmp_free);
  if (vm->folder && !g_getenv ("DOMYBS_KEEP"))
    vm_delete_folder (vm->folder);
  vm_process_clear (&vm->qemu);
  vm_process_clear (&vm->backend);
  g_free (vm->driver_folder);
  g_free (vm->driver_params);
  g_free (vm->control_path);
  g_free (vm->serial);
  g_free (vm->folder);
  g_free (vm->series);
  g_free (vm->name);
  g_free (vm);
}

void
vm_stop (Vm *vm) {
  g_autoptr (JsonNode) answer = NULL;
  g_autofree char *complaints = NULL;
  gboolean backend_in_time;

  if (!vm)
    return;
  if (vm->foreign) {
    vm_release (vm);
    return;
  }
  if (vm->backend.log && !vm->expect_backend_death && vm_worker_deaths (vm))
    vm_fail (vm, "a worker of the back-end has died");
  vm->ending = TRUE;
  if (vm_process_runs (&vm->qemu)) {
    answer = qmp_execute (vm->qmp, "{\"execute\": \"quit\"}", END_SECONDS, NULL);
    if (!vm_process_wait (&vm->qemu, END_SECONDS)) {
      vm_process_end (&vm->qemu, END_SECONDS);
      vm_fail (vm, "QEMU did not end within %g s of QMP's quit", END_SECONDS);
    }
  }
  if (vm->backend.log && !vm->expect_backend_death) {
    backend_in_time = vm_process_end (&vm->backend, END_SECONDS);
    if (!backend_in_time)
      vm_fail (vm, "the back-end did not end within %g s of SIGTERM", END_SECONDS);
    if (!WIFEXITED (vm->backend.status) || WEXITSTATUS (vm->backend.status) != 0) {
      g_autofree char *how = vm_process_describe (&vm->backend);

      vm_fail (vm, "the back-end ended badly: %s", how);
    }
  } else {
    vm_process_end (&vm->backend, END_SECONDS);
  }
  complaints = vm->expect_complaints ? NULL : vm_kernel_complaints (vm);
  if (complaints)
    vm_fail (vm, "the guest's kernel complained:\n%s", complaints);
  vm_free (vm);
}

/* ---- life ---- */

void
vm_reboot (Vm *vm) {
  vm_request (vm, 30, NULL, "reboot");
  vm_wait_hello (vm, BOOT_SECONDS);
  vm_load_driver (vm);
}

void
vm_reset (Vm *vm) {
  g_autoptr (JsonNode) done = vm_qmp (vm, "{\"execute\": \"system_reset\"}");

  vm_wait_hello (vm, BOOT_SECONDS);
  vm_load_driver (vm);
}

void
vm_poweroff (Vm *vm) {
  vm->ending = TRUE;
  vm_request (vm, 30, NULL, "poweroff");
  if (!vm_process_wait (&vm->qemu, 60))
    vm_fail (vm, "QEMU runs on 60 s after the guest powered itself off");
}

void
vm_pause (Vm *vm) {
  g_autoptr (JsonNode) done = vm_qmp (vm, "{\"execute\": \"stop\"}");
}

void
vm_resume (Vm *vm) {
  g_autoptr (JsonNode) done = vm_qmp (vm, "{\"execute\": \"cont\"}");
}

double
vm_boot_seconds (Vm *vm) {
  return vm->boot_seconds;
}

const char *
vm_series (Vm *vm) {
  return vm->series;
}

const char *
vm_folder (Vm *vm) {
  return vm->folder;
}
