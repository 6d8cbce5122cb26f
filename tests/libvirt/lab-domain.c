/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "lab-domain.h"
#include "adapt.h"

#include <stdarg.h>
#include <string.h>

#define SERIES_DEFAULT "6.12"
#define RAM_MIB_MAX_DEFAULT 512
#define FILL_SECONDS 60
#define LOG_FOLDER "/var/log/guests"

const char lab_domain_plain[] = "<domain type='kvm'>\n"
                                "  <name>plain</name>\n"
                                "  <memory unit='GiB'>1</memory>\n"
                                "  <vcpu>2</vcpu>\n"
                                "  <os>\n"
                                "    <type arch='x86_64' machine='q35'>hvm</type>\n"
                                "  </os>\n"
                                "  <features><acpi/><apic/></features>\n"
                                "  <devices>\n"
                                "    <emulator>/usr/bin/qemu-system-x86_64</emulator>\n"
                                "    <memballoon model='none'/>\n"
                                "  </devices>\n"
                                "</domain>\n";

/* ---- defining ---- */

/* The initramfs is copied to the host: libvirt gives it to QEMU's user, and what it says on the outside shall stay. */
static char *
initramfs (Host *host, const char *series) {
  g_autofree char *path = g_strconcat (LAB_DOMAIN_FOLDER "/initramfs-", series, NULL);
  g_autofree char *outside = g_build_filename (host_root (host), path, NULL);
  g_autoptr (GFile) source = g_file_new_for_path (vm_initramfs (series, TRUE));
  g_autoptr (GFile) target = g_file_new_for_path (outside);
  g_autoptr (GError) error = NULL;

  if (g_file_query_exists (target, NULL))
    return g_steal_pointer (&path);
  g_free (host_run_ok (host, "mkdir", "-p", "-m", "755", LAB_DOMAIN_FOLDER, NULL));
  g_free (host_run_ok (host, "mkdir", "-p", "-m", "1777", LOG_FOLDER, NULL));
  if (!g_file_copy (source, target, G_FILE_COPY_NONE, NULL, NULL, NULL, &error))
    g_error ("%s", error->message);
  return g_steal_pointer (&path);
}

static void
make_disks (Host *host, const GPtrArray *disks) {
  for (guint i = 0; i < disks->len; i++) {
    const AdaptDisk *disk = g_ptr_array_index (disks, i);
    g_autofree char *folder = g_path_get_dirname (disk->path);

    g_free (host_run_ok (host, "mkdir", "-p", folder, NULL));
    g_free (host_run_ok (host, "qemu-img", "create", "-q", "-f", disk->format, disk->path, "64M", NULL));
  }
}

LabDomain *
lab_domain_define (const char *xml, const LabDomainOptions *options) {
  static const LabDomainOptions defaults;
  const LabDomainOptions *chosen = options ? options : &defaults;
  const char *series = chosen->series ? chosen->series : SERIES_DEFAULT;
  Host *host = host_get ();
  g_autofree char *id = g_uuid_string_random ();
  g_autofree char *agent = g_strdup_printf ("/run/guests/%s", id);
  g_autofree char *serial = g_strdup_printf (LOG_FOLDER "/%s", id);
  g_autofree char *kernel = g_strdup_printf ("/srv/kernels/%s/vmlinux", series);
  g_autofree char *initrd = initramfs (host, series);
  const AdaptTo to = {
    .kvm = vm_is_fast (),
    .emulator = chosen->emulator ? chosen->emulator : "/usr/bin/qemu-system-x86_64",
    .kernel = kernel,
    .initramfs = initrd,
    .kernel_args = vm_kernel_args (),
    .agent = agent,
    .serial = serial,
    .ram_mib_max = chosen->ram_mib_max ? chosen->ram_mib_max : RAM_MIB_MAX_DEFAULT,
  };
  g_autoptr (GPtrArray) disks = g_ptr_array_new_with_free_func ((GDestroyNotify)adapt_disk_free);
  g_autofree char *adapted = adapt_domain (xml, &to, disks);
  LabDomain *domain = g_new0 (LabDomain, 1);

  make_disks (host, disks);
  g_free (host_run_ok (host, "mkdir", "-p", "/run/guests", NULL));
  host_write (host, LAB_DOMAIN_FOLDER "/define.xml", adapted);
  g_free (host_run_ok (host, "virsh", "-q", "define", "--validate", LAB_DOMAIN_FOLDER "/define.xml", NULL));
  domain->series = g_strdup (series);
  domain->name = adapt_find (adapted, "/domain/name");
  domain->uuid = g_strstrip (host_run_ok (host, "virsh", "domuuid", domain->name, NULL));
  return domain;
}

void
lab_domain_free (LabDomain *domain) {
  Host *host = host_get ();

  if (!domain)
    return;
  if (lab_domain_qemu (domain))
    lab_domain_stop (domain);
  vm_release (domain->vm);
  host_result_free (host_run (host, "virsh", "-q", "undefine", domain->name, NULL));
  g_free (domain->name);
  g_free (domain->uuid);
  g_free (domain->series);
  g_free (domain);
}

/* ---- running ---- */

GPid
lab_domain_qemu (LabDomain *domain) {
  g_autofree char *needle = g_strdup_printf ("-uuid %s", domain->uuid);

  return host_find_process (host_get (), "qemu-system-x86", needle);
}

GPid
lab_domain_backend (LabDomain *domain) {
  g_autofree char *needle = g_strdup_printf ("/run/domybs/vm/%s/", domain->uuid);

  return host_find_process (host_get (), "domybs-backend", needle);
}

void
lab_domain_find_backend (LabDomain *domain) {
  Host *host = host_get ();
  g_autofree char *control = g_strdup_printf ("%s/run/domybs/vm/%s/control.sock", host_root (host), domain->uuid);
  g_autofree char *log = g_strdup_printf ("%s/domybs/%s.log", host_log (host), domain->name);

  vm_adopt_backend (domain->vm, lab_domain_backend (domain), control, log);
}

HostResult *
lab_domain_start_only (LabDomain *domain) {
  return host_run (host_get (), "virsh", "-q", "start", domain->name, NULL);
}

Vm *
lab_domain_start (LabDomain *domain) {
  Host *host = host_get ();
  g_autofree char *xml = NULL;
  g_autofree char *agent_inside = NULL;
  g_autofree char *serial_inside = NULL;
  g_autofree char *agent = NULL;
  g_autofree char *serial = NULL;
  g_autofree char *log = g_strdup_printf ("%s/libvirt/qemu/%s.log", host_log (host), domain->name);
  g_autoptr (HostResult) started = lab_domain_start_only (domain);

  if (started->status != 0)
    host_fail (started, "starting the domain %s", domain->name);
  g_assert_null (domain->vm);
  xml = host_run_ok (host, "virsh", "dumpxml", domain->name, NULL);
  agent_inside = adapt_find (xml, "/domain/devices/channel[target/@name='domybs.agent']/source/@path");
  serial_inside = adapt_find (xml, "/domain/devices/serial/source/@path");
  g_assert_true (serial_inside && g_str_has_prefix (serial_inside, "/var/log/"));
  agent = g_strconcat (host_root (host), agent_inside, NULL);
  serial = g_strconcat (host_log (host), serial_inside + strlen ("/var/log"), NULL);
  domain->vm = vm_adopt (&(VmForeign){ .name = domain->name,
                                       .series = domain->series,
                                       .agent_path = agent,
                                       .serial_log = serial,
                                       .qemu_log = log,
                                       .driver_params = "",
                                       .qemu = lab_domain_qemu (domain) });
  lab_domain_find_backend (domain);
  return domain->vm;
}

void
lab_domain_has_ended (LabDomain *domain) {
  vm_release (g_steal_pointer (&domain->vm));
}

void
lab_domain_stop (LabDomain *domain) {
  if (domain->vm)
    vm_may_end (domain->vm);
  g_free (host_run_ok (host_get (), "virsh", "-q", "destroy", domain->name, NULL));
  lab_domain_has_ended (domain);
}

char *
lab_domain_state (LabDomain *domain) {
  return g_strstrip (host_run_ok (host_get (), "virsh", "domstate", domain->name, NULL));
}

char *
lab_domain_xml (LabDomain *domain) {
  return host_run_ok (host_get (), "virsh", "dumpxml", "--inactive", domain->name, NULL);
}

/* ---- domybsctl ---- */

static HostResult *
ctl_list (LabDomain *domain, const char *verb, va_list more) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();

  g_ptr_array_add (argv, (gpointer) "domybsctl");
  g_ptr_array_add (argv, (gpointer)verb);
  g_ptr_array_add (argv, domain->name);
  for (const char *word; (word = va_arg (more, const char *));)
    g_ptr_array_add (argv, (gpointer)word);
  g_ptr_array_add (argv, NULL);
  return host_run_argv (host_get (), (const char *const *)argv->pdata);
}

HostResult *
lab_domain_ctl (LabDomain *domain, const char *verb, ...) {
  HostResult *result;
  va_list more;

  va_start (more, verb);
  result = ctl_list (domain, verb, more);
  va_end (more);
  return result;
}

char *
lab_domain_ctl_ok (LabDomain *domain, const char *verb, ...) {
  g_autoptr (HostResult) result = NULL;
  va_list more;

  va_start (more, verb);
  result = ctl_list (domain, verb, more);
  va_end (more);
  if (result->status != 0)
    host_fail (result, "domybsctl");
  return g_steal_pointer (&result->out);
}

/* ---- checks ---- */

void
lab_domain_use (LabDomain *domain, guint mib, guint borrowed_mib) {
  Vm *vm = domain->vm;
  guint64 host_mib;

  vm_job_start (vm, "use", "memtool fill %uM --hold", mib);
  g_free (vm_job_expect (vm, "use", "ok verified", FILL_SECONDS));
  host_mib = vm_host_memfd_bytes (vm) / VM_MIB;
  if (host_mib < borrowed_mib)
    vm_fail (vm, "a program in the guest uses %u MiB, and behind the window there are %u MiB; expected are %u", mib,
             (unsigned)host_mib, borrowed_mib);
  vm_job_tell (vm, "use", "exit");
  g_assert_cmpint (vm_job_wait (vm, "use", FILL_SECONDS, NULL), ==, 0);
}

static guint64
status_field (const char *status, const char *key, guint index) {
  const char *line = strstr (status, key);
  g_auto (GStrv) fields = line ? g_strsplit_set (line + 1, "\t\n", 6) : NULL;

  g_assert_true (line && g_strv_length (fields) > index);
  return g_ascii_strtoull (fields[index], NULL, 10);
}

void
lab_domain_expect_confined (LabDomain *domain) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/status", (int)lab_domain_qemu (domain));
  g_autofree char *user = g_strstrip (host_run_ok (host_get (), "id", "-u", "libvirt-qemu", NULL));
  g_autofree char *status = NULL;

  g_assert_true (g_file_get_contents (path, &status, NULL, NULL));
  for (guint i = 1; i <= 4; i++)
    g_assert_cmpuint (status_field (status, "\nUid:", i), ==, g_ascii_strtoull (user, NULL, 10));
  g_assert_cmpuint (status_field (status, "\nSeccomp:", 1), ==, 2);
}

/* The guest has no such file: it comes as text, in pieces that fit the agent's lines. */
void
lab_domain_swap_on (LabDomain *domain) {
  g_autofree char *script = NULL, *text = NULL;
  const gsize piece = 512;
  gsize length;

  g_assert_true (g_file_get_contents (DOMYBS_SWAP, &script, &length, NULL));
  text = g_base64_encode ((const guchar *)script, length);
  g_free (vm_run_ok (domain->vm, "rm -f /tmp/script"));
  for (gsize at = 0; at < strlen (text); at += piece)
    g_free (vm_run_ok (domain->vm, "echo %.*s >>/tmp/script", (int)piece, text + at));
  g_free (vm_run_ok (domain->vm, "base64 -d /tmp/script >/tmp/domybs-swap && sh /tmp/domybs-swap start"));
}
