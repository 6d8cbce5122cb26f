/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A small world in which leases are lent and used: donors with an arena of a few blocks, hosts with VMs, and what is between
 * them. The code of core/lease-donor.c and core/lease-borrower.c is the product's; the rest (page server, page channel, map of
 * copies, processes, network) is a model of what those parts promise, in events of one thread and one clock that jumps.
 *
 * A block has PAGES pages, a page is one number; each write has new numbers, so that the numbers are a shadow of every page's
 * bytes.
 *
 * Transport: connections are in order and without doubles, as TCP; but what was sent arrives late, also after its connection
 * was given up by who sent it, beside and after what newer connections bring; or it does not arrive. A link may stop carrying
 * in one direction. Lease requests (not writes) are also said again, as they were, at any later time.
 *
 * After each event world_check looks at everything.
 */
#ifndef DOMYBS_TESTS_WORLD_H
#define DOMYBS_TESTS_WORLD_H

#include "core/lease-borrower.h"
#include "core/lease-donor.h"

#include <glib.h>
#include <setjmp.h>

#define DONORS_MAX 3u
#define HOSTS_MAX 3u
#define VMS_MAX 4u
#define PLACES_MAX 16u
#define BLOCKS_MAX 32u
#define LEASES_MAX 12u
#define PAGES 4u
#define FLIGHTS_MAX 24u
#define ALL_VMS (VMS_MAX * 64) /* of all lives */

#define KEEP_MS 2000u
#define DEADLINE_MS 3000u /* of a data request */
#define TICK_MS 200u

/* ---- what is to happen: made from a seed, or read from a file (scenario.c) ---- */

enum fault {
  FAULT_KILL_DONOR,  /* its worker; the keeper starts another */
  FAULT_LOSE_ARENA,  /* its keeper */
  FAULT_STOP_DONOR,  /* SIGSTOP for `ms` */
  FAULT_KILL_WORKER, /* the borrower's */
  FAULT_STOP_VM,     /* its worker, for `ms` */
  FAULT_END_VM,      /* in order: END is asked */
  FAULT_DROP_VM,     /* its keeper is killed: nobody says END */
  FAULT_REBOOT,      /* a host */
  FAULT_CUT,         /* a: host, b: donor, both ways for `ms` */
  FAULT_CUT_THERE,   /* … what the borrower says */
  FAULT_CUT_BACK,    /* … what the donor says */
  FAULT_OUTAGE,      /* all links, for `ms` */
  FAULT_BREAK,       /* all connections between host a and donor b */
  FAULT_REVOKE,      /* a: donor, b: of its leases, ms: to this level */
  FAULT_FORGET,      /* a: donor, b: of its leases */
  FAULT_LIMIT,       /* a: donor, ms: blocks */
  FAULT_CRASH, /* a: donor, b: its worker dies at the b-th store from then on; or at the first that is stores[b − STORE_NAMED]
                */
  FAULTS
};
extern const char *const fault_names[FAULTS];

/* Every place at which a donor's table is half changed. */
#define STORES 19u
#define STORE_NAMED 100u
extern const char *const stores[STORES];

struct plan_fault {
  enum fault fault;
  uint32_t a, b;
  uint64_t at, ms;
};

struct plan {
  uint64_t seed; /* of all that is not in here: delays, what VMs do */
  uint32_t donors, hosts, vms, places, blocks;
  uint32_t loss;       /* permille of messages that break their connection */
  uint32_t late;       /* permille that come late, by seconds */
  uint32_t again;      /* permille of lease requests that come once more */
  uint32_t slow_fence; /* 1: closing a connection takes time */
  uint32_t liars;      /* 1: somebody with a key of his own says what he likes; 2: and a donor answers nonsense */
  uint64_t ttl_ms;
  uint64_t calm_at; /* from then on there are no more faults */
  GArray *faults;   /* of struct plan_fault */
};

void plan_make (struct plan *plan, uint64_t seed);
gboolean plan_read (struct plan *plan, const char *path, GError **error);
char *plan_write (const struct plan *plan);
void plan_clear (struct plan *plan);

/* ---- the world ---- */

enum side { THERE, BACK }; /* to the donor, to the borrower */

enum message_kind { SAY_CONNECT, SAY_CLOSE, SAY_LEASE, SAY_OPEN, SAY_WRITE, SAY_TRIM, SAY_READ };

struct message {
  enum message_kind kind;
  uint64_t at;
  int error; /* of answers */
  uint32_t cookie;
  uint32_t block;
  uint64_t pages[PAGES];
  uint8_t bytes[LEASE_REQUEST_BYTES]; /* LEASE; OPEN: the name */
};

enum event_kind {
  EVENT_ARRIVE,     /* a: connection */
  EVENT_PIECE,      /* a: connection */
  EVENT_DONOR_TICK, /* a: donor, here and below */
  EVENT_DONOR_START,
  EVENT_VM_TICK, /* a: vm, here and below */
  EVENT_WORKER_START,
  EVENT_FAULT, /* a: which of the plan's */
  EVENT_AGAIN, /* a: donor; message: a lease request, cookie: of which vm */
  EVENT_LIE,
};

struct event {
  uint64_t at, order;
  enum event_kind kind;
  enum side side;
  uint32_t a;
  uint64_t life; /* of who it is for: void when that has ended */
  struct message *message;
};

struct conn {
  gboolean client_open, server_open, closing; /* closing: the donor fences it, what it writes still goes on */
  gboolean is_lease, dead;                    /* dead: what is said from now on is not carried */
  uint32_t vm, donor;                         /* vm: of all lives */
  uint32_t pending;                           /* events that name it */
  uint64_t session;                           /* of who has made it */
  uint64_t last_at[2];
  GQueue queues[2];           /* of struct message, each with an event */
  struct lease_export export; /* the donor's side; lease 0: none */
  gboolean piece;             /* a write is under way, and this is what is left of it */
  struct message write;
  uint32_t next_page;
  uint64_t busy_until;
};

struct sim_donor {
  uint32_t number;
  uint64_t life; /* of its worker */
  gboolean running, liar;
  uint64_t paused_until;
  void *state;
  struct lease_donor *table;
  uint64_t arena[BLOCKS_MAX][PAGES];
  uint64_t limit;
  uint64_t highest_number; /* that was seen as an epoch or lease id in this incarnation */
  uint64_t stores_to_live; /* 0: for ever */
  const char *store_to_die_at;
  uint64_t deaths, arenas;
  uint32_t n_live;
  struct lease_info live[LEASES_MAX]; /* before the call that is under way */
};

struct flight { /* a data request */
  gboolean used;
  enum message_kind kind;
  uint32_t block;
  uint64_t version; /* of the place, when it was made */
  uint64_t deadline;
};

struct channel {
  struct lease_borrower lease;
  uint32_t lease_conn, data_conn; /* 0: none */
  gboolean lease_up, data_up;
  uint64_t lease_since, data_since, lease_retry, data_retry;
  struct flight flights[FLIGHTS_MAX];
  gboolean maybe[PLACES_MAX]; /* the donor may have a block for it */
  uint64_t attached_at;
  uint64_t settled_session, settled_seq; /* an answer has come that was asked for after these were made up */
};

/* A life of a VM. What a keeper holds, and the worker of the moment. */
struct sim_vm {
  uint32_t number, host;
  uint64_t vm_id, boot;
  gboolean alive, running, ending;
  uint64_t ended_at;
  uint64_t life, paused_until;
  uint64_t workers;
  uint64_t truth[PLACES_MAX][PAGES];
  uint64_t version[PLACES_MAX];
  struct {
    gboolean valid[PLACES_MAX];
    uint8_t incarnation[LEASE_ID_BYTES];
    uint64_t lease;
  } map[DONORS_MAX];
  struct channel channels[DONORS_MAX];
};

struct world {
  struct plan plan;
  uint64_t now, orders, random, numbers;
  GArray *heap;     /* of struct event */
  GPtrArray *conns; /* of struct conn, or NULL; 0 is none */
  struct sim_donor donors[DONORS_MAX];
  uint64_t boots[HOSTS_MAX];
  uint64_t cut_until[HOSTS_MAX][DONORS_MAX][2];
  struct sim_vm *vms[ALL_VMS];
  uint32_t n_vms;
  GHashTable *forgotten; /* donor.arena.lease that an order has ended */
  GHashTable *seqs;      /* of donor.arena.lease.epoch: the seq + 1 of the last change of its level */
  GHashTable *sessions;  /* of donor.arena.lease and of donor.arena.lease.epoch: the last session that it was told to */
  struct lease_request lies[DONORS_MAX]; /* the last that was OK, with what the donor has answered */
  jmp_buf death;
  struct sim_donor *guarded;
  GHashTable *points; /* names of stores at which somebody died; may be NULL */

  uint64_t events, writes, reads, trims, bytes_checked, leases_ended[4], lost, revokes, busy;
};

/* Runs the plan to its end, checking after each event; g_error on the first thing that is wrong. */
void world_run (struct world *world, const struct plan *plan);
void world_clear (struct world *world);

uint64_t world_below (struct world *world, uint64_t n);
gboolean world_odds (struct world *world, unsigned permille);
void world_trace (struct world *world, const char *format, ...) G_GNUC_PRINTF (2, 3);
void world_at (struct world *world, uint64_t at, enum event_kind kind, uint32_t a, uint64_t life);

/* ---- network (world.c) ---- */
struct conn *world_conn (struct world *world, uint32_t conn);
uint32_t world_connect (struct world *world, uint32_t vm, uint32_t donor, gboolean is_lease);
/* Consumes message. */
void world_send (struct world *world, uint32_t conn, enum side side, const struct message *message);
/* One side closes; the other hears of it some time, after all that was sent. */
void world_close (struct world *world, uint32_t conn, enum side by);

/* ---- donor (sim-donor.c) ---- */
void donor_make (struct world *world, uint32_t number);
void donor_new_arena (struct world *world, struct sim_donor *donor);
void donor_start (struct world *world, struct sim_donor *donor);
void donor_die (struct world *world, struct sim_donor *donor);
void donor_hear (struct world *world, uint32_t conn, const struct message *message);
void donor_piece (struct world *world, uint32_t conn);
void donor_tick (struct world *world, struct sim_donor *donor);
void donor_order (struct world *world, struct sim_donor *donor, const struct plan_fault *fault);
/* A request with that identity, from nobody's connection. */
void donor_told (struct world *world, struct sim_donor *donor, const char *identity, const struct message *message,
                 struct lease_answer *ret_answer);
/* Looks into its state, not at what it says. */
gboolean donor_has_lease (const struct sim_donor *donor, const uint8_t incarnation[LEASE_ID_BYTES], uint64_t lease,
                          struct lease_export *ret_export);
void donor_check (struct world *world, struct sim_donor *donor);

/* ---- borrower (sim-vm.c) ---- */
struct sim_vm *vm_make (struct world *world, uint32_t host);
void vm_start_worker (struct world *world, struct sim_vm *vm);
void vm_kill_worker (struct world *world, struct sim_vm *vm);
void vm_end (struct world *world, struct sim_vm *vm); /* at once, saying nothing */
void vm_hear (struct world *world, uint32_t conn, const struct message *message);
void vm_tick (struct world *world, struct sim_vm *vm);
void vm_check (struct world *world, struct sim_vm *vm);
void vm_check_calm (struct world *world, struct sim_vm *vm);
const char *vm_identity (const struct world *world, uint32_t vm);

#endif
