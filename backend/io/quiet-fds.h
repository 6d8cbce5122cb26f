/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Descriptors on which little happens, behind a single one (epoll), so that the main loop does not look at each of them in each
 * of its turns: poll(2) takes some 0.1 µs for a descriptor, twice a turn, and GLib as much again for a source.
 *
 * Who has a descriptor says so each time that something happens on it. Of those that have been silent while much happened on
 * others, the source is taken away, until there is something to read.
 */
#ifndef DOMYBS_IO_QUIET_FDS_H
#define DOMYBS_IO_QUIET_FDS_H

#include <glib.h>

typedef struct QuietFds QuietFds; /* those of a context */
typedef struct QuietFd QuietFd;

typedef struct {
  /* May nothing but input be waited for? TRUE: its owner's source for it has been taken away. Not called for the descriptor
   * that has just been said to be busy. */
  gboolean (*rest) (gpointer owner);
  /* There is input (or an end, or an error), or quiet_fd_wake was called: the owner's source is to be there again. */
  void (*wake) (gpointer owner);
} QuietFdKind;

/* The owner's. */
struct QuietFd {
  QuietFds *set;
  const QuietFdKind *kind;
  gpointer owner;
  int fd;
  gboolean resting, busy;
  QuietFd *next, **link;
};

/* Joins those of the calling thread's default context. The descriptor stays the owner's, and is open until quiet_fd_clear. */
void quiet_fd_init (QuietFd *quiet, int fd, const QuietFdKind *kind, gpointer owner);
/* Before the descriptor is closed. By the same thread, as all of these. */
void quiet_fd_clear (QuietFd *quiet);
/* Something has happened on it; others may be put to rest from within. */
void quiet_fd_busy (QuietFd *quiet);
/* It rests no more. Calls `wake`, if it did. */
void quiet_fd_wake (QuietFd *quiet);

#endif
