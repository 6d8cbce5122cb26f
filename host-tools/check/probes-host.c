/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check/check.h"
#include "host/launch.h"
#include "io/host-memory.h"
#include "ctl/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#define HUGE_PAGES_PATH "/sys/kernel/mm/transparent_hugepage/shmem_enabled"
#define APPARMOR_FOLDER DOMYBS_ETC "/apparmor.d"

static char *
read_text (const char *path) {
  char *text = NULL;

  return g_file_get_contents (path, &text, NULL, NULL) ? g_strstrip (text) : NULL;
}

/* The kernel's calls that the back-end is made of (memfd seals, close_range, pidfd) are all there from 5.14 on. */
void
probe_kernel (Check *check) {
  struct utsname name;
  unsigned major, minor;

  if (uname (&name) < 0 || sscanf (name.release, "%u.%u", &major, &minor) != 2)
    check_note (check, NULL, "the kernel's version is not known");
  else if (major < 5 || (major == 5 && minor < 14))
    check_todo (check, "use Linux 5.14 or newer on the host", "Linux %s is too old", name.release);
  else
    check_ok (check, "Linux %s", name.release);
}

void
probe_kvm (Check *check) {
  const int fd = open ("/dev/kvm", O_RDWR | O_CLOEXEC);

  if (fd >= 0) {
    close (fd);
    check_ok (check, "/dev/kvm can be used");
  } else if (errno == EACCES || errno == EPERM) {
    check_note (check, "run it as root to be sure", "/dev/kvm is there, but not for this user");
  } else {
    check_todo (
        check,
        "switch virtualisation on in the firmware, and load kvm_intel or kvm_amd (without it VMs run, emulated and slow)",
        "/dev/kvm can't be used: %s", g_strerror (errno));
  }
}

void
probe_memory (Check *check) {
  g_autofree char *total = NULL, *available = NULL, *reserve = NULL, *meminfo = NULL, *swap_text = NULL;
  unsigned long long swap_kib = 0;
  g_autoptr (GError) error = NULL;
  HostMemory memory;
  const char *line;

  if (!host_memory_read (&memory, &error)) {
    check_todo (check, "mount /proc", "%s", error->message);
    return;
  }
  meminfo = read_text ("/proc/meminfo");
  line = meminfo ? strstr (meminfo, "SwapTotal:") : NULL;
  if (line)
    sscanf (line, "SwapTotal: %llu", &swap_kib);
  total = text_size_short (memory.total_bytes);
  available = text_size_short (memory.available_bytes);
  reserve = text_size_short (host_memory_reserve (memory.total_bytes));
  swap_text = text_size_short (swap_kib << 10);
  if (memory.available_bytes <= host_memory_reserve (memory.total_bytes))
    check_todo (check, "stop something, or give the host more memory",
                "of %s only %s are available: VMs get nothing while that is less than %s", total, available, reserve);
  else
    check_ok (check, "%s, of which %s are available; %s are never lent; swap %s", total, available, reserve, swap_text);
}

/* The file shows all choices with the one in force in brackets. */
void
probe_huge_pages (Check *check) {
  static const char advice[] = "echo advise > " HUGE_PAGES_PATH ", and at every boot: 'w " HUGE_PAGES_PATH
                               " - - - - advise' in /etc/tmpfiles.d/domybs.conf";
  g_autofree char *text = read_text (HUGE_PAGES_PATH);
  char *begin = text ? strchr (text, '[') : NULL, *end = begin ? strchr (begin, ']') : NULL;

  if (!end) {
    check_note (check, "use a kernel with CONFIG_TRANSPARENT_HUGEPAGE for speed",
                "this kernel has no huge pages for shared memory");
    return;
  }
  *end = '\0';
  if (strcmp (begin + 1, "never") == 0 || strcmp (begin + 1, "deny") == 0)
    check_todo (check, advice, "huge pages for shared memory are off (%s): borrowed memory works, but slower", begin + 1);
  else
    check_ok (check, "huge pages for shared memory: %s", begin + 1);
}

/* ---- AppArmor, SELinux ---- */

static gboolean
file_says (const char *path, const char *words) {
  g_autofree char *text = read_text (path);

  return text && strstr (text, words);
}

void
probe_apparmor (Check *check) {
  static const char snippet[] = APPARMOR_FOLDER "/abstractions/libvirt-qemu.d/domybs";
  g_autofree char *enabled = read_text ("/sys/module/apparmor/parameters/enabled");

  if (g_strcmp0 (enabled, "Y") != 0) {
    check_ok (check, "AppArmor is off");
    return;
  }
  if (!g_file_test (snippet, G_FILE_TEST_EXISTS))
    check_todo (check, "install it again", "AppArmor is on, but %s is missing: QEMU may not use the back-end's socket",
                snippet);
  else if (!file_says (APPARMOR_FOLDER "/abstractions/libvirt-qemu", "abstractions/libvirt-qemu.d")
           && !file_says (APPARMOR_FOLDER "/local/abstractions/libvirt-qemu", "libvirt-qemu.d/domybs"))
    check_todo (check,
                "add the line 'include <abstractions/libvirt-qemu.d/domybs>' to " APPARMOR_FOLDER
                "/local/abstractions/libvirt-qemu",
                "AppArmor is on, and this libvirt's rules do not include libvirt-qemu.d by themselves");
  else
    check_ok (check,
              "AppArmor is on, and lets QEMU use the back-end's socket (VMs that run already: from their next start on)");
  if (!g_str_has_prefix (launch_program (), "/usr/bin/")
      && g_file_test (APPARMOR_FOLDER "/usr.sbin.libvirtd", G_FILE_TEST_EXISTS))
    check_todo (check, "install with --prefix=/usr, or allow it in " APPARMOR_FOLDER "/local/usr.sbin.libvirtd",
                "AppArmor lets libvirt's hook run programs in /usr/bin and /usr/sbin only, and the back-end is %s",
                launch_program ());
}

void
probe_selinux (Check *check) {
  g_autofree char *enforce = read_text ("/sys/fs/selinux/enforce");

  if (g_strcmp0 (enforce, "1") != 0)
    check_ok (check, enforce ? "SELinux only warns" : "SELinux is off");
  else
    check_todo (check,
                "start a VM, then make a module of what was denied: ausearch -m avc -c qemu-kvm --raw | audit2allow -M domybs "
                "&& semodule -i domybs.pp",
                "SELinux is on, and no policy of ours is there that lets QEMU connect to a back-end");
}

/* ---- our own files ---- */

void
probe_programs (Check *check) {
  const char *const argv[] = { launch_program (), "--version", NULL };
  g_autofree char *out = NULL;

  if (!g_file_test (launch_program (), G_FILE_TEST_IS_EXECUTABLE))
    check_todo (check, "install it again ('meson install')", "the back-end %s is missing", launch_program ());
  else if (!g_spawn_sync ("/", (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL, NULL, NULL)
           || strcmp (g_strchomp (out), "domybs-backend " DOMYBS_VERSION) != 0)
    check_todo (check, "install both from one version", "the back-end %s is not of this version, " DOMYBS_VERSION,
                launch_program ());
  else
    check_ok (check, "%s " DOMYBS_VERSION, launch_program ());
}

static gboolean
folder_is_safe (Check *check, const char *path) {
  struct stat st;

  if (lstat (path, &st) < 0) {
    check_todo (check, "run it as root", "%s can't be looked at: %s", path, g_strerror (errno));
    return FALSE;
  }
  if (!S_ISDIR (st.st_mode) || st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH))) {
    check_todo (check, "remove it, it is made again with the next VM; or: chown root: and chmod 755",
                "%s can be written by others than root", path);
    return FALSE;
  }
  if (!(st.st_mode & S_IXOTH)) {
    check_todo (check, "chmod 755", "%s is closed to QEMU", path);
    return FALSE;
  }
  return TRUE;
}

void
probe_folder (Check *check) {
  g_autofree char *vms = g_build_filename (launch_rundir (), "vm", NULL);

  if (!g_file_test (vms, G_FILE_TEST_EXISTS))
    check_ok (check, "%s is made with the first VM", vms);
  else if (folder_is_safe (check, launch_rundir ()) && folder_is_safe (check, vms))
    check_ok (check, "%s is root's alone, and QEMU can reach its sockets there", vms);
}

/* Those that the tests of this version boot. */
void
probe_guests (Check *check) {
  check_ok (check, "guest kernels tested with this version: Linux 6.1, 6.12 and 7.3 (6.1 is the oldest that can work)");
}
