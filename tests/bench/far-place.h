/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A far disk for benchmarks, with what its pages are kept in: storage (a file in memory; or an NBD server whose answers come
 * later by some µs) and perhaps a neighbour, a domybs-donor on this host, over TLS, with protection ssd.
 */
#ifndef DOMYBS_TESTS_FAR_PLACE_H
#define DOMYBS_TESTS_FAR_PLACE_H

#include "donor.h"
#include "far.h"
#include "storage/nbd-server.h"

struct far_place_options {
  const char *folder, *stage; /* of files; of domybs-far */
  uint64_t bytes;             /* the disk's */
  unsigned delay_us;          /* of NBD storage; 0: a file */
  bool neighbour;
};

struct far_place {
  far_t *far;
  donor_t *donor;    /* NULL: none */
  NbdServer *server; /* NULL: a file */
  pid_t relay;
  char *key_path, *storage_path;
};

/* Whether storage can have a delay here (nbdkit). */
bool far_place_can_delay (void);
/* Aborts where it can't. Its socket is that of far. */
struct far_place *far_place_start (const struct far_place_options *options);
void far_place_end (struct far_place *place);

/* CPU time of domybs-far and the donor: not of the server that plays slow storage, which is another host or a device. */
double far_place_cpu_us (struct far_place *place);
void far_place_pin (struct far_place *place, gboolean pinned);
/* Waits until each page has the copies that it should have. */
void far_place_wait_protected (struct far_place *place);

#endif
