/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/host-facts.h"
#include "check/check.h"
#include "host/qemu-group.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIBVIRT_VERSION_MIN 9000000ul

/* The kernel gives the time of its boot in whole seconds, and clocks are set. */
#define CLOCK_SLACK_S 3

static char *
version_text (unsigned long version) {
  return g_strdup_printf ("%lu.%lu.%lu", version / 1000000, version / 1000 % 1000, version % 1000);
}

void
probe_libvirt (Check *check) {
  g_autofree char *uri = check->connection ? virConnectGetURI (check->connection) : NULL, *text = NULL;
  unsigned long version = 0;

  if (!check->connection) {
    check_todo (check, "start libvirt's daemon ('systemctl start libvirtd' or 'virtqemud.socket')", "%s",
                check->connection_error);
    return;
  }
  if (virConnectGetLibVersion (check->connection, &version) < 0) {
    check_todo (check, "look at libvirt's log", "libvirt at '%s' does not say its version", uri);
    return;
  }
  text = version_text (version);
  if (version < LIBVIRT_VERSION_MIN)
    check_todo (check, "use libvirt 9.0 or newer", "libvirt %s at %s is too old", text, uri);
  else
    check_ok (check, "libvirt %s at %s", text, uri);
}

/* ---- QEMU ---- */

/* What `-device …,help` answers: whether this QEMU has been built with the device. */
static gboolean
knows_device (const char *emulator) {
  const char *const argv[] = { emulator, "-device", DOMAIN_DEVICE_DRIVER ",help", NULL };
  int status;

  return g_spawn_sync ("/", (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                       NULL, &status, NULL)
         && WIFEXITED (status) && WEXITSTATUS (status) == 0;
}

void
probe_qemu (Check *check) {
  static const char install[]
      = "install QEMU 11.0 or newer (Debian 13: trixie-backports), or name one in the domains' <emulator>";
  const unsigned long version = check->emulator ? host_emulator_version (check->emulator) : 0;
  g_autofree char *text = version_text (version), *min = version_text (DOMAIN_QEMU_VERSION_MIN);

  if (!check->emulator)
    check_todo (check, install, "no QEMU for x86_64 was found");
  else if (version == 0)
    check_todo (check, "run it as '… --version' yourself; it must belong to root", "%s does not say its version",
                check->emulator);
  else if (version < DOMAIN_QEMU_VERSION_MIN)
    check_todo (check, install, "%s is QEMU %s, and the memory device needs %s", check->emulator, text, min);
  else if (!knows_device (check->emulator))
    check_todo (check, install, "%s is QEMU %s, but was built without the device " DOMAIN_DEVICE_DRIVER, check->emulator, text);
  else
    check_ok (check, "%s is QEMU %s and has the device " DOMAIN_DEVICE_DRIVER, check->emulator, text);
}

/* The value of a line `name = number`. */
static gboolean
config_is_zero (const char *text, const char *name) {
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  gboolean zero = FALSE;
  int value;

  for (char **line = lines; *line; line++) {
    g_strstrip (*line);
    if (g_str_has_prefix (*line, name) && sscanf (*line + strlen (name), " = %d", &value) == 1)
      zero = value == 0;
  }
  return zero;
}

void
probe_qemu_user (Check *check) {
  g_autoptr (GError) error = NULL;
  g_autofree char *user = NULL;
  const struct group *group;
  gid_t gid;

  if (!check->qemu_config && geteuid () != 0)
    check_note (check, "run it as root to be sure", QEMU_GROUP_CONFIG_PATH " can't be read by this user");
  if (!qemu_group_find (NULL, &gid, &error)) {
    check_todo (check, NULL, "%s", error->message);
    return;
  }
  group = getgrgid (gid);
  check_ok (check, "QEMU's group is %s (%u): the sockets are for it", group ? group->gr_name : "nameless", (unsigned)gid);
  user = check->qemu_config ? qemu_config_get (check->qemu_config, "user") : NULL;
  if (g_strcmp0 (user, "root") == 0 || g_strcmp0 (user, "+0") == 0)
    check_note (check, "take `user` out of " QEMU_GROUP_CONFIG_PATH, "QEMU runs as root");
  if (check->qemu_config && config_is_zero (check->qemu_config, "seccomp_sandbox"))
    check_note (check, "take `seccomp_sandbox` out of " QEMU_GROUP_CONFIG_PATH,
                "QEMU runs without its sandbox; the memory device works with it");
}

/* ---- the hook ---- */

/* When a process was started, in seconds since 1970; 0: there is none. */
static gint64
start_of_daemon (const char *pid_path) {
  g_autofree char *pid_text = NULL, *stat_path = NULL, *stat = NULL, *boot = NULL;
  unsigned long long ticks, boot_seconds;
  const char *p;

  if (!g_file_get_contents (pid_path, &pid_text, NULL, NULL))
    return 0;
  stat_path = g_strdup_printf ("/proc/%d/stat", atoi (pid_text));
  if (!g_file_get_contents (stat_path, &stat, NULL, NULL) || !g_file_get_contents ("/proc/stat", &boot, NULL, NULL))
    return 0;
  p = strrchr (stat, ')');
  if (!p || sscanf (p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &ticks) != 1)
    return 0;
  p = strstr (boot, "\nbtime ");
  return p && sscanf (p, " btime %llu", &boot_seconds) == 1
             ? (gint64)(boot_seconds + ticks / (unsigned long long)sysconf (_SC_CLK_TCK))
             : 0;
}

/* libvirtd uses a folder of hooks if there was one in it when it started. The folder's birth tells that as well as can be: the
 * times of the hook itself also change when it is replaced by a newer one. 0: not known. */
static gint64
birth_of_folder (const char *path) {
  g_autofree char *folder = g_path_get_dirname (path);
  struct statx stx;

  return statx (AT_FDCWD, folder, 0, STATX_BTIME, &stx) == 0 && (stx.stx_mask & STATX_BTIME) ? stx.stx_btime.tv_sec : 0;
}

void
probe_hook (Check *check) {
  static const char *const daemons[][2] = { { "/run/libvirtd.pid", "libvirtd" }, { "/run/virtqemud.pid", "virtqemud" } };
  const char *path = host_hook_path ();
  const gint64 born = birth_of_folder (path);
  gboolean fine = TRUE;
  struct stat st;

  if (stat (path, &st) < 0) {
    check_todo (check, "install it again ('meson install' with the prefix /usr), then restart libvirtd: its VMs run on",
                "libvirt's hook %s is missing: nothing would start back-ends", path);
    return;
  }
  if (!S_ISREG (st.st_mode) || st.st_uid != 0 || (st.st_mode & (S_IWGRP | S_IWOTH)) || !(st.st_mode & S_IXUSR)) {
    check_todo (check, "chown root: and chmod 755", "libvirt's hook %s must be root's alone, and executable", path);
    return;
  }
  for (size_t i = 0; i < G_N_ELEMENTS (daemons); i++) {
    const gint64 started = start_of_daemon (daemons[i][0]);
    g_autofree char *advice = g_strdup_printf ("systemctl restart %s: its VMs run on", daemons[i][1]);

    if (started == 0 || started + CLOCK_SLACK_S >= born)
      continue;
    fine = FALSE;
    check_todo (check, advice, "%s looks for hooks when it starts, and was started before the hook was installed",
                daemons[i][1]);
  }
  if (fine)
    check_ok (check, "libvirt's hook %s is there", path);
}
