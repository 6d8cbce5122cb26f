/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Storage of a far disk: a file or block device (io_uring, O_DIRECT where the file system has it), or an NBD server (libnbd).
 * Reads and writes are asynchronous; they end in any order, on the thread-default GMainContext of who opened it. Nothing here
 * blocks after the opening.
 *
 * What is in the storage copy is worth nothing after the VM's end, so there are no flushes.
 *
 * Two processes that follow each other. A process that was killed may have writes on their way still: until they have ended
 * nothing may be written, for they could come later than what the next process writes to the same place. So storage holds
 * writes back until it is settled, which takes a pipe for each process, made by who starts it (the keeper).
 *
 * The process registers the write end with its ring, and nobody else has it. The kernel takes a ring down after its last
 * request, so the pipe hangs up when nothing is on its way any more, which may be long after waitpid.
 *
 * The keeper keeps the read end, and gives it to the next process. When a process ends while the read end that *it* was given
 * has not hung up yet, then it has written nothing: the keeper keeps the older read end for the next one, and closes the newer.
 *
 * With NBD there is no such thing: nobody knows what a server still does for a connection that is gone. There, storage is
 * settled some seconds after the process before ended, or a connection broke.
 */
#ifndef DOMYBS_IO_STORAGE_H
#define DOMYBS_IO_STORAGE_H

#include <glib.h>

#define STORAGE_ALIGN 4096u /* of offsets, lengths and buffers */

typedef struct Storage Storage;
typedef struct StorageIo StorageIo;

/* error: 0, or an errno (a short read is EIO). storage_free must not be called from here; all else may. */
typedef void (*StorageDone) (StorageIo *io, int error);

/* The caller's, and left alone until done was called. */
struct StorageIo {
  gboolean is_write;
  gboolean ahead; /* a read that nobody waits for yet */
  guint64 offset;
  void *buf;
  gsize bytes; /* 1 … STORAGE_IO_BYTES_MAX */
  StorageDone done;
  gpointer data;
  gint64 began; /* µs, set by storage_submit */
  gpointer internal[2];
};
#define STORAGE_IO_BYTES_MAX (32u << 20)

/* What the process that opens files (the keeper) gives to those that use them: descriptors for a file, a URI for NBD. spec: a
 * path, or a URI nbd://, nbds://, nbd+unix://, nbds+unix:// with the export's name. A file that is missing is made, of `bytes`
 * (sparse) and a mark at its end, by which it is known as ours the next time; a file that exists must be empty or have the
 * mark. A block device must have `bytes` at least, and be used by nobody else. The file is locked (OFD lock) against a second
 * VM's use. Returns the descriptor, -1 with error; for NBD -1 without error. */
int storage_open_file (const char *spec, guint64 bytes, GError **error);

gboolean storage_spec_is_nbd (const char *spec);

/* fd: of storage_open_file; ignored for NBD. gone_write_fd: the write end of this process's pipe (above): it is closed here,
 * whatever comes; -1: there will be no next process. gone_read_fd: what the keeper has of the processes before; -1: there was
 * none. fd and gone_read_fd stay the caller's, who may close them afterwards.
 *
 * NBD: waits for the server's first answer, a few seconds at most; a server that is not there, does not know the export or has
 * less than `bytes` is an error here, later on it is waited for. */
Storage *storage_new (const char *spec, int fd, guint64 bytes, int gone_write_fd, int gone_read_fd, GError **error);

/* Waits until the kernel has ended what it has under way of a file, however long that takes, for buffers are its own until
 * then; no done is called any more. */
void storage_free (Storage *storage);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Storage, storage_free)

/* Queues it; storage_kick hands what is queued to the kernel in one call. An error comes through done, never from within these
 * two. */
void storage_submit (Storage *storage, StorageIo *io);
void storage_kick (Storage *storage);

/* From done of a read without error, or afterwards until it is submitted again: what it brought is not what was written there. TRUE: it is
 * under way again, and done comes once more, with what another copy has; kick. FALSE: there is no other copy. */
gboolean storage_read_again (Storage *storage, StorageIo *io);
/* Whether there can be other copies. */
gboolean storage_has_copies (const Storage *storage);

/* What those who write to a storage with copies know, and its copies ask before they make others of themselves. */
typedef struct {
  /* Whether what was read at that offset is what was written there, as far as anybody wants it still. Only what begins in
   * buf's bytes [from, to) is looked at. */
  gboolean (*is_sound) (gpointer data, guint64 offset, const guint8 *buf, gsize from, gsize to);
  /* Whether anybody wants anything of what is at that offset. */
  gboolean (*is_wanted) (gpointer data, guint64 offset);
  /* So many bytes are about to be written to what wears out: on behalf of whoever. */
  void (*spend) (gpointer data, gsize bytes);
  /* µs until so many may be written within the budget; 0: now. */
  guint64 (*spend_wait_us) (gpointer data, gsize bytes);
} StorageOwner;
/* owner stays. Only for storage with copies. */
void storage_set_owner (Storage *storage, const StorageOwner *owner, gpointer data);
/* Whether a write there would go to what wears out. With copies, the owner is told (spend) of all that does. */
gboolean storage_wears (Storage *storage, guint64 offset);

/* Calls done of what has ended by now, without waiting for the main loop's next turn. Returns how many have. Costs no system
 * call if nothing has. */
unsigned storage_reap (Storage *storage);

/* Calls `settled` once, when writes are no longer held back (see above), at the next turn of the main loop at the earliest. */
void storage_on_settled (Storage *storage, void (*settled) (gpointer data), gpointer data);
gboolean storage_is_settled (const Storage *storage);

/* Backs [offset, + bytes) with real space (fallocate), so that writing there can't fail for lack of it; blocks for the time of
 * a fallocate. TRUE for devices and NBD. */
gboolean storage_allocate (Storage *storage, guint64 offset, guint64 bytes, GError **error);

/* Gives space back, as far as the storage can; best effort, errors are ignored. Asynchronous, and begun by the next
 * storage_kick: a read or write that was submitted before should have ended; what is submitted afterwards for the same place
 * comes after it. */
void storage_discard (Storage *storage, guint64 offset, guint64 bytes);

/* How it is reached, for people: "file /srv/x (O_DIRECT, io_uring)". */
const char *storage_description (const Storage *storage);

/* Files: always. NBD: whether there is a connection now; since_us: when that began or ended (monotonic µs). */
gboolean storage_is_reachable (const Storage *storage, gint64 *ret_since_us);

#endif
