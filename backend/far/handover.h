/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the keeper of domybs-far hands to each of its workers: descriptors of fixed numbers, one page of memory that both map,
 * and what a worker says with its exit status. Keepers outlive upgrades: within FAR_HANDOVER_VERSION nothing changes its
 * meaning, what is reserved is zero, and a descriptor that is not there is closed.
 */
#ifndef DOMYBS_FAR_HANDOVER_H
#define DOMYBS_FAR_HANDOVER_H

#include <signal.h>
#include <stdint.h>

#define FAR_DISKS_MAX 8u
#define FAR_HANDOVER_VERSION 1u
#define FAR_HANDOVER_BYTES 4096u
#define FAR_COOKIE_BYTES 16u

enum {
  FAR_FD_PAGE = 3,    /* memfd with struct far_handover */
  FAR_FD_KEY = 4,     /* memfd of SEAL_KEY_BYTES, for reading; closed with --no-seal */
  FAR_FD_CONTROL = 5, /* listening; closed without --control-socket */
  FAR_FD_CONNECTOR = 6, /* far/connector.h; closed without --memory-device, and by keepers that do not know it */
  FAR_FD_DONORS = 7, /* memfd with struct far_identities and what follows it; closed without --donor and --donors-later, and by keepers that do not know it */
  FAR_FD_DISKS = 8,   /* FAR_DISK_FDS for each disk, in the order of the command line */
};

enum far_disk_fd {
  FAR_FD_LISTEN,     /* for QEMU */
  FAR_FD_STATE,      /* memfd of far_store_state_bytes, formatted */
  FAR_FD_STAGE,      /* memfd of n_stage_slots × FAR_SEGMENT_BYTES */
  FAR_FD_STORAGE,    /* closed for NBD */
  FAR_FD_GONE_WRITE, /* io/storage.h: this worker's pipe … */
  FAR_FD_GONE_READ,  /* … and that of those before; closed for the first one */
  FAR_FD_COPIES,     /* memfd of copies_state_bytes, formatted (core/copies.h); closed without --donor, and by keepers that do not know it */
  FAR_DISK_FDS = 8
};

static inline int
far_fd (unsigned disk, enum far_disk_fd which) {
  return FAR_FD_DISKS + (int)(disk * FAR_DISK_FDS + which);
}
#define FAR_FD_END (FAR_FD_DISKS + (int)(FAR_DISKS_MAX * FAR_DISK_FDS))

/* All is the keeper's to write but `good`. */
struct far_handover {
  uint32_t version, n_disks;
  uint32_t keeper_pid;
  int32_t last_status;              /* wait status of the last worker that died unasked */
  uint64_t starts;                  /* workers so far, this one included */
  uint64_t deaths;                  /* those that died unasked */
  uint64_t last_death_us;           /* CLOCK_MONOTONIC; 0: none */
  uint64_t started_us;              /* the keeper */
  uint32_t strikes;                 /* deaths in a row before a `good` */
  uint32_t rolled_back;             /* 1: the last upgrade was undone, its workers could not go on */
  uint8_t cookie[FAR_COOKIE_BYTES]; /* random: by which a front-end is known that is another keeper's */

  uint64_t good; /* the worker's: `starts` as it found it, once it has lived for a while */
};

/* Who we are to donors, and the keys by which they know it: in the order of the command line. */
#define FAR_DONORS_MAX 16u
struct far_donor_key {
  char identity[132]; /* with a 0 at its end; "": no TLS */
  uint32_t bytes;
  uint8_t key[64];
};
struct far_identities {
  uint8_t host[16], boot[16]; /* machine-id, boot id */
  struct far_donor_key donors[FAR_DONORS_MAX];
};
_Static_assert (sizeof (struct far_identities) <= 4096, "");

/* Behind them, with keepers that know it: the donors that there are now (far/donor-table.h). The worker's to write. */
#define FAR_DONORS_TABLE_OFFSET 4096u
#define FAR_DONORS_BYTES 32768u
#define FAR_DONOR_TABLE_VERSION 1u
enum far_donor_slot_state { FAR_DONOR_NONE = 0, FAR_DONOR_THERE = 1, FAR_DONOR_LEAVES = 2 };
struct far_donor_slot {
  char name[64], address[128], domain[128]; /* each with a 0 at its end */
  struct far_donor_key key;
  uint64_t bytes_max; /* UINT64_MAX: as much as it lends */
  uint32_t state, reserved;
};
struct far_donor_table {
  uint32_t version;
  uint32_t current; /* its lowest bit: which half is in force */
  struct far_donor_slot slots[2][FAR_DONORS_MAX]; /* by their number */
};
_Static_assert (FAR_DONORS_TABLE_OFFSET + sizeof (struct far_donor_table) <= FAR_DONORS_BYTES, "");

/* The keeper says with this signal that the VM has ended: a worker that has leases gives them back, and ends with KEEPER_EXIT_DONE. */
#define FAR_SIGNAL_END SIGUSR2

/* Exit statuses of a worker, with those of enum keeper_exit (core/keeper-wire.h): DONE and CANT. Any other, and every signal,
 * is a death. */
enum far_exit {
  FAR_EXIT_RESTART = 67, /* start the program that runs again … */
  FAR_EXIT_UPGRADE = 68, /* … or the one that is installed at its path now */
};

#endif
