/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "cluster.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define NOBODY 0xfeu /* the last byte of a hardware address that nobody has */

struct cluster {
  unsigned n_hosts, current;
  int own, bridge, hosts[CLUSTER_HOSTS_MAX];
};

/* The namespace that this thread is in. */
static int
this_network (void) {
  const int fd = open ("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

  g_assert_cmpint (fd, >=, 0);
  return fd;
}

static void
enter (int network) {
  if (setns (network, CLONE_NEWNET) < 0)
    g_error ("setns: %s", g_strerror (errno));
}

/* Lines for ip -batch, in the namespace that this thread is in. */
static void
ip (const char *format, ...) {
  g_autofree char *lines = NULL;
  va_list arguments;
  FILE *pipe = popen ("ip -batch -", "we");
  int status;

  g_assert_nonnull (pipe);
  va_start (arguments, format);
  lines = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  fputs (lines, pipe);
  status = pclose (pipe);
  if (status != 0)
    g_error ("ip (Debian package iproute2) ends with status %d for:\n%s", status, lines);
}

/* In the namespace of `from`: where what is sent to `to` goes. Set by hand, so that nobody asks and nothing is forgotten. */
static void
set_neighbour (unsigned to, unsigned path, unsigned hardware) {
  ip ("neigh replace 10.86.%u.%u lladdr 02:00:00:00:00:%02x dev eth0 nud permanent\n", path, to + 1, hardware);
}

static void
plug (struct cluster *cluster, unsigned host) {
  enter (cluster->bridge);
  ip ("link add port%u type veth peer name end%u\n"
      "link set port%u master bridge0 up\n"
      "link set end%u address 02:00:00:00:00:%02x\n"
      "link set end%u netns /proc/%d/fd/%d name eth0\n",
      host, host, host, host, host + 1, host, (int)getpid (), cluster->hosts[host]);
  enter (cluster->hosts[host]);
  ip ("link set lo up\nlink set eth0 up\n");
  for (unsigned path = 0; path < CLUSTER_PATHS; path++) {
    ip ("addr add 10.86.%u.%u/24 dev eth0\n", path, host + 1);
    for (unsigned other = 0; other < cluster->n_hosts; other++)
      if (other != host)
        set_neighbour (other, path, other + 1);
  }
}

struct cluster *
cluster_new (unsigned n_hosts) {
  struct cluster *cluster = g_new0 (struct cluster, 1);
  g_autofree char *program = g_find_program_in_path ("ip");

  g_assert_cmpuint (n_hosts, <=, CLUSTER_HOSTS_MAX);
  cluster->n_hosts = n_hosts;
  cluster->own = this_network ();
  if (!program || unshare (CLONE_NEWNET) < 0) {
    g_autofree char *why = program ? g_strdup_printf ("no network namespaces here: %s", g_strerror (errno))
                                   : g_strdup ("no program 'ip' (Debian package iproute2)");

    close (cluster->own);
    g_free (cluster);
    g_test_skip (why);
    return NULL;
  }
  cluster->bridge = this_network ();
  ip ("link add bridge0 type bridge\nlink set bridge0 up\n");
  for (unsigned host = 0; host < n_hosts; host++) {
    g_assert_cmpint (unshare (CLONE_NEWNET), ==, 0);
    cluster->hosts[host] = this_network ();
  }
  for (unsigned host = 0; host < n_hosts; host++)
    plug (cluster, host);
  cluster_enter (cluster, 0);
  return cluster;
}

void
cluster_free (struct cluster *cluster) {
  if (!cluster)
    return;
  enter (cluster->own);
  for (unsigned host = 0; host < cluster->n_hosts; host++)
    close (cluster->hosts[host]);
  close (cluster->bridge);
  close (cluster->own);
  g_free (cluster);
}

void
cluster_enter (struct cluster *cluster, unsigned host) {
  g_assert_cmpuint (host, <, cluster->n_hosts);
  enter (cluster->hosts[host]);
  cluster->current = host;
}

char *
cluster_address (const struct cluster *cluster, unsigned host, unsigned path) {
  return g_strdup_printf ("10.86.%u.%u:%u", path, host + 1, CLUSTER_PORT);
}

static void
set_way (struct cluster *cluster, unsigned from, unsigned to, unsigned path, unsigned hardware) {
  const unsigned current = cluster->current;

  cluster_enter (cluster, from);
  set_neighbour (to, path, hardware);
  cluster_enter (cluster, current);
}

void
cluster_cut (struct cluster *cluster, unsigned from, unsigned to, unsigned path) {
  set_way (cluster, from, to, path, NOBODY);
}

void
cluster_heal (struct cluster *cluster, unsigned from, unsigned to, unsigned path) {
  set_way (cluster, from, to, path, to + 1);
}

void
cluster_part (struct cluster *cluster, unsigned one, unsigned other) {
  for (unsigned path = 0; path < CLUSTER_PATHS; path++) {
    cluster_cut (cluster, one, other, path);
    cluster_cut (cluster, other, one, path);
  }
}

void
cluster_join (struct cluster *cluster, unsigned one, unsigned other) {
  for (unsigned path = 0; path < CLUSTER_PATHS; path++) {
    cluster_heal (cluster, one, other, path);
    cluster_heal (cluster, other, one, path);
  }
}
