/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * QEMU with a guest in it, for the operator's tools to look at: a front-end of tests/frontend in a thread of its own that
 * follows the host's target as the driver does, or fails to in the ways that guests fail.
 */
#ifndef DOMYBS_TESTS_CTL_GUEST_H
#define DOMYBS_TESTS_CTL_GUEST_H

#include "frontend.h"

typedef struct {
  unsigned step_blocks;   /* per request (64) */
  unsigned pause_ms;      /* between requests (5) */
  uint64_t stuck_blocks;  /* it does not give these back, and says so */
  uint64_t needed_blocks; /* it does not give these back, and says nothing */
  uint64_t most_blocks;   /* it never asks for more; 0: no limit */
  bool overshoots;        /* grows by whole sections of 64 blocks, and gives the rest back after that */
  bool silent;            /* says HELLO and then nothing */
  bool no_driver;         /* connects, and has no session */
} GuestHabits;

typedef struct Guest Guest;

/* Connects to a back-end's socket; returns when it has a session (or, without a driver, is connected). */
Guest *guest_start (const char *socket_path, const GuestHabits *habits);
void guest_stop (Guest *guest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Guest, guest_stop)

#endif
