/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Several hosts in one: network namespaces on a bridge, which is in a namespace of its own, so that nothing of the machine's
 * network is touched, and all of it is gone with the test's process. Each host has an address on each of two paths, so that one
 * connection can be cut while another one between the same two hosts goes on.
 *
 * Calls are for the main thread: what it starts and what sockets it makes belong to the host that it has entered.
 */
#ifndef DOMYBS_TESTS_CLUSTER_CLUSTER_H
#define DOMYBS_TESTS_CLUSTER_CLUSTER_H

#include <glib.h>

#define CLUSTER_HOSTS_MAX 8u
#define CLUSTER_PATHS 2u
#define CLUSTER_PORT 7600u /* of each host's donor: they have ports of their own */

/* Links that come back are found again by timers that grow. */
#define CLUSTER_PATIENCE_MS (12 * fe_patience_ms ())

struct cluster;
typedef struct cluster cluster_t;

/* NULL, and the test is skipped, where namespaces can't be made (it takes root). */
struct cluster *cluster_new (unsigned n_hosts);
/* The test is back in its own network. */
void cluster_free (struct cluster *cluster);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (cluster_t, cluster_free)

void cluster_enter (struct cluster *cluster, unsigned host);
/* "10.86.PATH.HOST:PORT", for --listen and for those who connect. */
char *cluster_address (const struct cluster *cluster, unsigned host, unsigned path);

/* From now on nothing that one host sends to the other arrives; neither of them is told. What the other one sends still does.
 */
void cluster_cut (struct cluster *cluster, unsigned from, unsigned to, unsigned path);
void cluster_heal (struct cluster *cluster, unsigned from, unsigned to, unsigned path);
/* Both ways, on all paths. */
void cluster_part (struct cluster *cluster, unsigned one, unsigned other);
void cluster_join (struct cluster *cluster, unsigned one, unsigned other);

#endif
