/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/host-facts.h"
#include "domain/domain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

unsigned
host_phys_bits (void) {
  g_autofree char *text = NULL;
  const char *line;
  unsigned bits = 0;

  if (!g_file_get_contents ("/proc/cpuinfo", &text, NULL, NULL))
    return 0;
  line = strstr (text, "address sizes");
  return line && sscanf (line, "address sizes : %u bits physical", &bits) == 1 ? bits : 0;
}

static gboolean
is_trustworthy (const char *path) {
  g_autofree char *real = realpath (path, NULL);
  g_autofree char *name = real ? g_path_get_basename (real) : NULL;
  struct stat st;

  if (!name || (!g_str_has_prefix (name, "qemu") && !g_str_has_prefix (name, "kvm")) || stat (real, &st) < 0)
    return FALSE;
  return S_ISREG (st.st_mode) && st.st_uid == 0 && !(st.st_mode & (S_IWGRP | S_IWOTH | S_ISUID | S_ISGID));
}

unsigned long
host_emulator_version (const char *emulator) {
  const char *const argv[] = { emulator, "--version", NULL };
  g_autofree char *out = NULL;
  unsigned major, minor, micro;
  const char *text;

  if (!is_trustworthy (emulator)
      || !g_spawn_sync ("/", (char **)argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &out, NULL, NULL, NULL))
    return 0;
  text = strstr (out, "version ");
  if (!text || sscanf (text, "version %u.%u.%u", &major, &minor, &micro) != 3 || major > 999 || minor > 999 || micro > 999)
    return 0;
  return major * 1000000ul + minor * 1000ul + micro;
}

unsigned long
host_qemu_version (ctl_connect_t *connection, const char *xml) {
  g_autofree char *emulator = domain_read_emulator (xml);
  unsigned long version = 0;

  if (emulator)
    return host_emulator_version (emulator);
  return virConnectGetVersion (connection, &version) == 0 ? version : 0;
}

const char *
host_hook_path (void) {
  return DOMYBS_HOOK;
}
