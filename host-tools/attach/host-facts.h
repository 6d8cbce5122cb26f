/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What attach has to know of the host. */
#ifndef DOMYBS_HOST_TOOLS_HOST_FACTS_H
#define DOMYBS_HOST_TOOLS_HOST_FACTS_H

#include "ctl/ctl.h"

/* Bits of physical address of the host's processors; 0: not known. */
unsigned host_phys_bits (void);

/* The version of an emulator, as libvirt writes versions; 0: not known. It is run with --version only if it is called qemu… or
 * kvm… and nobody but root can have put it there: its path comes from XML. */
unsigned long host_emulator_version (const char *emulator);

/* Of the emulator that this XML names; of libvirt's default one if it names none. */
unsigned long host_qemu_version (ctl_connect_t *connection, const char *xml);

/* Where libvirt looks for the hook that starts back-ends; compiled in. */
const char *host_hook_path (void);

#endif
