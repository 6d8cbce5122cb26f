/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Makes of a domain's XML, as people write it, one that starts in the lab with a test guest in it. */
#ifndef DOMYBS_TESTS_LIBVIRT_ADAPT_H
#define DOMYBS_TESTS_LIBVIRT_ADAPT_H

#include <glib.h>

/* All paths are the host's. */
typedef struct {
  gboolean kvm;
  const char *emulator;
  const char *kernel, *initramfs, *kernel_args;
  const char *agent;  /* socket of the port domybs.agent */
  const char *serial; /* file for the guest's console */
  guint ram_mib_max;  /* a larger domain is cut down to that, its NUMA cells evenly */
} AdaptTo;

/* A file that the domain expects to be there; format is qemu-img's. */
typedef struct {
  char *path, *format;
} AdaptDisk;
void adapt_disk_free (AdaptDisk *disk);

/*
 * What changes, and nothing else does: the domain's type, emulator and CPU, where guests are emulated; the way it boots (kernel
 * and initramfs of the test); what the lab has not is left out or replaced: other makers' machine types, firmware, TPM, USB
 * devices of the host, shared folders, SPICE, pinning to processors, limits of locked memory, pages of 1 GiB; networks become
 * QEMU's own, block devices files; a serial console into a file and the agent's port are added. Appends the disks that have to
 * exist to disks.
 */
char *adapt_domain (const char *xml, const AdaptTo *to, GPtrArray *disks);

/* The text of the first element at an XPath, e.g. "/domain/name"; NULL if there is none. */
char *adapt_find (const char *xml, const char *xpath);

#endif
