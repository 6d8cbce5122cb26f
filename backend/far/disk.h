/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk: a vhost-user-blk device on an engine, or on an object. It listens; QEMU connects, and connects again after this process was replaced, with
 * the inflight descriptor, so that requests which had no answer are carried out again.
 */
#ifndef DOMYBS_FAR_DISK_H
#define DOMYBS_FAR_DISK_H

#include "far/pages.h"

typedef struct FarDisk FarDisk;

typedef struct {
  const char *name;   /* for the log: "vm1/shared" */
  const char *id;     /* for the guest, its first 20 bytes: "domybs-shared" */
  unsigned n_queues;  /* 1 … 16 */
  gboolean read_only;
  gboolean mem_slots; /* VhostUserDevice */
  const uint8_t *inflight_owner; /* 16 bytes that are this keeper's and no other's (VhostUserDevice); must outlive the disk */
  void (*closed) (gpointer data); /* a connection has ended; NULL: nobody wants to know */
  gpointer data;
} FarDiskOptions;

/* listen_fd and engine are taken over. */
FarDisk *far_disk_new (const FarDiskOptions *options, int listen_fd, FarEngine *engine);
/* The same for pages of any kind. */
FarDisk *far_disk_new_of (const FarDiskOptions *options, int listen_fd, const FarPagesKind *kind, gpointer pages);
/* Accepts front-ends from now on. */
void far_disk_start (FarDisk *disk);
void far_disk_free (FarDisk *disk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FarDisk, far_disk_free)

FarEngine *far_disk_engine (FarDisk *disk); /* NULL: its pages are of another kind */
gpointer far_disk_pages (FarDisk *disk);
gboolean far_disk_is_connected (const FarDisk *disk);
guint64 far_disk_connections (const FarDisk *disk);
/* Requests of the guest that have no answer yet. */
unsigned far_disk_in_flight (const FarDisk *disk);

#endif
