/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The neighbours that lend memory to this host's VMs, by configuration: a file NAME.conf for each in ETC/domybs/donors.d.
 *
 *     [donor]
 *     address=192.0.2.7:10809
 *     psk=/etc/domybs/host-a.psk
 *     identity=host-a          may be missing, as all that follows
 *     domain=rack1
 *     size=16G
 *
 * What is there is given to each domybs-far that is started (--donor, see domybs-far(8)).
 */
#ifndef DOMYBS_HOST_TOOLS_DONORS_H
#define DOMYBS_HOST_TOOLS_DONORS_H

#include <glib.h>

#define HOST_DONORS_MAX 16u /* that a domybs-far can have */
#define HOST_DONOR_NAME_BYTES_MAX 63u
#define HOST_DONOR_TEXT_BYTES_MAX 127u /* of address and domain */

typedef struct {
  char *name, *address, *psk;
  char *identity, *domain, *size; /* NULL: not said */
  char *problem;                  /* why nobody is given it; NULL: it is good */
} HostDonor;

void host_donor_free (HostDonor *donor);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (HostDonor, host_donor_free)

/* Where the files are; answered by rundir.c. */
const char *launch_donors_folder (void);

/* By name, the broken ones too. Never NULL: where there is no folder there are none. Of HostDonor; free it with
 * g_ptr_array_unref. */
GPtrArray *host_donors_list (void);
/* All but name is checked: NULL, or what is wrong with it and what to do. Free it. */
char *host_donor_problem (const HostDonor *donor);
/* Writes its file. USAGE, REFUSED (there is one of that name or address), ACCESS. */
gboolean host_donor_add (const HostDonor *donor, GError **error);
/* NOT_FOUND, ACCESS. */
gboolean host_donor_remove (const char *name, GError **error);

/* A file of keys as domybs-donor reads it (--psk): NULL, or what is wrong with it. Free it. */
char *host_keys_problem (const char *path);

/* The key that it knows this host by: both to be freed. The donor has no problem. */
gboolean host_donor_key (const HostDonor *donor, char **ret_identity, char **ret_key, GError **error);

/* Adds --donor=… for each that is good. */
void host_donors_arguments (GPtrArray *arguments);

#endif
