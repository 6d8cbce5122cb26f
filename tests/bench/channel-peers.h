/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a 4 KiB read over a page channel is compared with: servers of others, each a process of its own on TCP of localhost,
 * asked by a client that does nothing else and waits for each answer. All have PEER_PAGES pages. */
#ifndef DOMYBS_TESTS_CHANNEL_PEERS_H
#define DOMYBS_TESTS_CHANNEL_PEERS_H

#include <glib.h>
#include <sys/types.h>

#define PEER_PAGES 16384u
#define PEER_PAGE_BYTES 4096u

typedef struct {
  const char *name;
  pid_t pid;
  void (*read) (gpointer peer, guint page); /* waits for it */
  gpointer data;
} ChannelPeer;

/* 28 bytes there, 16 bytes and a page back: nothing but the two system calls on each side. */
ChannelPeer *channel_peer_raw (void);
/* NULL: not installed. */
ChannelPeer *channel_peer_nbdkit (void);
ChannelPeer *channel_peer_memcached (void);
ChannelPeer *channel_peer_redis (void);
/* Its server ends. */
void channel_peer_free (ChannelPeer *peer);

#endif
