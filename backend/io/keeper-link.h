/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The worker's end of its keeper (core/keeper-wire.h). The beginning is synchronous (a worker has nothing else to do before
 * GO), all later messages come through the thread-default GMainContext. If the keeper is gone, the process exits at once and
 * touches nothing: QEMU may still use the window.
 */
#ifndef DOMYBS_IO_KEEPER_LINK_H
#define DOMYBS_IO_KEEPER_LINK_H

#include <glib.h>

#include "core/keeper-wire.h"
#include "io/vhost-user-transport.h"

typedef struct KeeperLink KeeperLink;

typedef struct {
  void (*connected) (gpointer data, uint64_t epoch);
  /* slots: what came with the bytes. */
  void (*received) (gpointer data, enum keeper_stream stream, uint64_t epoch, uint64_t position, const uint8_t *bytes, size_t n,
                    const uint8_t *slots, unsigned n_slots, gboolean truncated);
  void (*gone) (gpointer data, enum keeper_stream stream, uint64_t epoch, uint64_t end_position, enum keeper_gone why);
  void (*replace_failed) (gpointer data, const char *why);
} KeeperLinkEvents;

/* Takes over fd; reads HELLO, and the state's slot if there is one. Sets FD_CLOEXEC on it. */
KeeperLink *keeper_link_open (int fd, GError **error);
void keeper_link_free (KeeperLink *link);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (KeeperLink, keeper_link_free)

const struct keeper_hello *keeper_link_hello (const KeeperLink *link);

/* CHECKED, and waits for GO. FALSE when the keeper has let go of us. hello.mode is that of GO afterwards. */
gboolean keeper_link_checked (KeeperLink *link, GError **error);

/* From now on the events come. */
void keeper_link_run (KeeperLink *link, const KeeperLinkEvents *events, gpointer data);

/* Our own descriptor of what is in that slot; -1: nothing. Stays the link's. */
int keeper_link_fd (const KeeperLink *link, unsigned slot);

/* The link as what carries a vhost-user session. */
VhostUserTransport *keeper_link_transport (KeeperLink *link);

/* Whether a slot holds something that came with bytes of MAIN at or after position: not ours to judge yet. */
gboolean keeper_link_is_ahead (const KeeperLink *link, unsigned slot, uint64_t position);

void keeper_link_want (KeeperLink *link, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count);
void keeper_link_send (KeeperLink *link, enum keeper_stream stream, uint64_t epoch, uint64_t number, const uint8_t *bytes, size_t n,
                       unsigned slot);
/* A free slot for a descriptor of ours, which the link takes over; KEEPER_NO_SLOT when there is none (then fd is closed). */
unsigned keeper_link_put (KeeperLink *link, int fd);
void keeper_link_put_at (KeeperLink *link, unsigned slot, int fd);
/* Closes our descriptor, too. KEEPER_NO_SLOT is ignored. */
void keeper_link_drop (KeeperLink *link, unsigned slot);
void keeper_link_set_channel (KeeperLink *link, uint64_t epoch, unsigned slot);
void keeper_link_close (KeeperLink *link, uint64_t epoch);
void keeper_link_good (KeeperLink *link);
void keeper_link_replace (KeeperLink *link, enum keeper_program program);

#endif
