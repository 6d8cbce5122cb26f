/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The group that libvirt gives to a domain's QEMU process: the back-end's socket is for it. */
#ifndef DOMYBS_HOST_TOOLS_QEMU_GROUP_H
#define DOMYBS_HOST_TOOLS_QEMU_GROUP_H

#include <glib.h>
#include <sys/types.h>

#define QEMU_GROUP_CONFIG_PATH "/etc/libvirt/qemu.conf"

/* dac_label: that of the domain ("+64055:+64055", "qemu:kvm"), or NULL. Live XML has it, from the hook's `start` on. Without a
 * group in it: `group` in qemu.conf, else the group libvirt-qemu, else qemu, else the first group of the user of that name. Not
 * the first group of libvirt-qemu before the group of its name: Debian makes kvm the user's first group, but QEMU's process
 * does not have it. `user` in qemu.conf says nothing about the group. CTL_ERROR_FAILED. */
gboolean qemu_group_find (const char *dac_label, gid_t *ret_gid, GError **error);

/* The value of a string setting of qemu.conf's text, the last one as for libvirt; NULL when it is not set. */
char *qemu_config_get (const char *text, const char *name);

#endif
