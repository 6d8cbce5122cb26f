/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The real keeper in a process of its own, with workers in the test's hands: each worker that it starts is this program again, which
 * gives its end of the keeper's socket to the test and then does nothing but end when it is told to. So the test says and hears
 * everything itself, in an order of its own choosing, and can end a worker between any two messages.
 */
#ifndef DOMYBS_TESTS_KEEPER_RIG_H
#define DOMYBS_TESTS_KEEPER_RIG_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/keeper-wire.h"

#define PATIENCE_MS 20000

struct rig {
  pid_t pid; /* the keeper's; 0 when it was waited for */
  char *directory, *program, *socket_path, *log_path;
  int workers_fd; /* where workers come */
  int given_fd;   /* --connected: our end of the connection that the keeper was started with */
  bool silent;    /* a peer that ended it ends no test */
};
typedef struct rig rig_t;

/* Does what a process of this kind has to do, if this is not the test program itself. First thing in main. */
void rig_be_another (int argc, char **argv);

/* Starts a keeper. connected: it gets one connection and does not listen. */
struct rig *rig_start (bool connected);
void rig_free (struct rig *rig); /* ends it, if it still lives, with SIGTERM: that must give status 0 */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (rig_t, rig_free)

bool rig_lives (struct rig *rig);
int rig_wait (struct rig *rig); /* its wait status; fails when it does not end */
unsigned rig_fds (struct rig *rig); /* how many descriptors it holds */
bool rig_logged (struct rig *rig, const char *text);
unsigned rig_log_count (struct rig *rig, const char *text);
int rig_connect (struct rig *rig); /* as a front-end */
/* Another file takes the place of its program, as when a package is upgraded. */
void rig_install (struct rig *rig);
uint64_t rig_installed_inode (struct rig *rig);

/* ---- workers ---- */

struct hand {
  pid_t pid;
  uint64_t inode; /* of its program */
  int wire;       /* the keeper's socket */
  int control;    /* the process that waits */
  struct keeper_hello hello;
  int slots[KEEPER_SLOTS]; /* what SLOT messages brought; -1: nothing */
  struct keeper_message slot_messages[KEEPER_SLOTS];
  uint64_t seen_at_us;
};
typedef struct hand hand_t;

/* The next worker that the keeper starts: HELLO was read, and the state's slot. */
struct hand *rig_worker (struct rig *rig);
/* The same, CHECKED and told to GO. */
struct hand *rig_running_worker (struct rig *rig);
bool rig_no_worker (struct rig *rig, int ms);
void hand_check (struct hand *hand); /* says CHECKED */
void hand_go (struct hand *hand);    /* waits for GO */
void hand_free (struct hand *hand);  /* closes what we hold; the process then ends, too */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (hand_t, hand_free)
void hand_kill (struct hand *hand);             /* SIGKILL */
void hand_exit (struct hand *hand, int status); /* exit() */

struct heard {
  struct keeper_message message;
  uint8_t bytes[KEEPER_BYTES_MAX + 1];
};
/* The next message other than SLOT, which is kept in hand->slots. NULL: none within ms, or the keeper hung up. The pointer is good until
 * the next call. */
const struct heard *hand_hear (struct hand *hand, int ms);
/* The next one must be this. */
const struct heard *hand_expect (struct hand *hand, enum keeper_type type);
void hand_say (struct hand *hand, const struct keeper_message *message, const void *bytes, int fd);
/* Short forms. */
void hand_want (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, unsigned count);
void hand_send (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t number, const void *bytes, unsigned n, unsigned slot);
void hand_say_type (struct hand *hand, enum keeper_type type, uint64_t epoch, unsigned slot, unsigned count);
void hand_close (struct hand *hand, uint64_t epoch); /* the connection, and our own copies of what came with it */
/* Says something to which there is an answer, and waits for nothing but that: so all before it was dealt with. Uses slot 15. */
void hand_sync (struct hand *hand, struct rig *rig);

/* The next message must be this DATA, or this GONE. */
void hand_expect_data (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, const void *bytes, unsigned n,
                       unsigned n_slots);
void hand_expect_gone (struct hand *hand, enum keeper_stream stream, uint64_t epoch, uint64_t position, enum keeper_gone why);

/* A keeper with a running worker and one front-end, told as connection 1. */
void rig_begin (struct rig **ret_rig, struct hand **ret_hand, int *ret_peer);
#define RIG_BEGIN \
  g_autoptr (rig_t) rig = NULL; \
  g_autoptr (hand_t) hand = NULL; \
  int peer; \
\
  rig_begin (&rig, &hand, &peer)

/* ---- front-ends ---- */

void peer_send (int fd, const void *bytes, size_t n, const int *fds, unsigned n_fds);
/* Reads exactly n bytes. */
void peer_expect (int fd, const void *bytes, size_t n);
bool peer_is_quiet (int fd, int ms);
bool peer_is_closed (int fd, int ms); /* waits for that */
int new_eventfd (uint64_t mark);      /* a descriptor that can be told from others … */
uint64_t mark_of (int fd);            /* … by this, once */
int64_t rig_now_ms (void);

#endif
