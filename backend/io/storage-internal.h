/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What storage.c (what all storage has in common) and the kinds of storage share. */
#ifndef DOMYBS_IO_STORAGE_INTERNAL_H
#define DOMYBS_IO_STORAGE_INTERNAL_H

#include "io/storage.h"

/* Requests that wait, in order, linked by themselves. */
struct io_queue {
  StorageIo *first, *last;
};

void io_queue_push (struct io_queue *queue, StorageIo *io);
StorageIo *io_queue_pop (struct io_queue *queue); /* NULL: empty */

/* A place that is to be given back. Requests of the same place wait for its end. */
struct storage_discard {
  guint64 offset, bytes;
  gboolean under_way;
};

/* What a kind does. submit gets requests that are in bounds, and allowed now; it may keep internal[1] for itself, and
 * internal[0] when it does not queue it. */
struct storage_kind {
  void (*submit) (Storage *storage, StorageIo *io);
  void (*kick) (Storage *storage);
  unsigned (*reap) (Storage *storage);
  gboolean (*allocate) (Storage *storage, guint64 offset, guint64 bytes, GError **error); /* NULL: there is nothing to do */
  unsigned discards_depth;                                                                /* discards under way at a time */
  /* For when too many discards wait: carries it out on the spot, or not at all. May be NULL. */
  void (*discard_now) (Storage *storage, guint64 offset, guint64 bytes);
  gboolean (*read_again) (Storage *storage, StorageIo *io); /* NULL: there is one copy only */
  gboolean (*wears) (Storage *storage, guint64 offset);     /* NULL: always */
  void (*free) (Storage *storage); /* all but what is below */
};

struct Storage {
  const struct storage_kind *kind;
  guint64 bytes;
  char *description;
  gboolean reachable;
  gint64 reachable_since;

  const StorageOwner *owner; /* NULL: nobody */
  gpointer owner_data;
  gboolean settled;
  struct io_queue held; /* writes that wait for that */
  void (*on_settled) (gpointer data);
  gpointer on_settled_data;
  GSource *settled_source;

  GQueue discards; /* of struct storage_discard; those that are under way come first */
  unsigned discards_under_way;
  gboolean no_discards;    /* this storage has none */
  struct io_queue blocked; /* by a discard of the same place */

  struct io_queue refused; /* ended, but done is to be called by the main loop; internal[1]: errno */
  GSource *refused_source;
};

/* The kind's own struct begins with a Storage. description is taken over. */
void storage_init (Storage *storage, const struct storage_kind *kind, guint64 bytes, char *description);
/* From now on, at the next turn of the main loop: writes are let go. */
void storage_settle (Storage *storage);
void storage_set_reachable (Storage *storage, gboolean reachable);
/* The next one to carry out, for the kind's kick; NULL: none now. */
struct storage_discard *storage_next_discard (Storage *storage);
/* Its end; it is freed. What it was blocking is submitted. */
void storage_discard_ended (Storage *storage, struct storage_discard *discard);
gboolean storage_discard_overlaps (const Storage *storage, guint64 offset, guint64 bytes);

/* What the owner says, and what holds where there is none. */
gboolean storage_is_sound (const Storage *storage, guint64 offset, const guint8 *buf, gsize from, gsize to);
gboolean storage_is_wanted (const Storage *storage, guint64 offset);
void storage_spend (const Storage *storage, gsize bytes);
guint64 storage_spend_wait_us (const Storage *storage, gsize bytes);

/* Ends it with an error, at the next turn of the main loop. */
void storage_refuse (Storage *storage, StorageIo *io, int error);

Storage *storage_file_new (const char *path, int fd, guint64 bytes, int gone_write_fd, int gone_read_fd, GError **error);
Storage *storage_nbd_new (const char *uri, guint64 bytes, gboolean had_process_before, GError **error);

#endif
