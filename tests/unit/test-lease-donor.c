/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The donor's side, story by story. What happens over deaths, losses and late requests is simulated (tests/simulation). */
#include "core/lease-donor-internal.h"
#include "testing.h"

#include <string.h>

#define SECOND 1000u

struct scene {
  struct lease_donor_geometry geometry;
  uint64_t *state;
  size_t bytes;
  struct lease_donor *donor;
  struct lease_donor_limits limits;
  uint64_t now, number;
  bool fence_takes_time;
  uint64_t fenced, below; /* the last call */
  unsigned fences;
};

/* A borrower as far as a donor knows one. */
struct who {
  const char *identity;
  char vm, host, boot;
  uint64_t session;
  struct lease_answer last;
};

static bool
fence (void *data, uint64_t lease, uint64_t below) {
  struct scene *scene = data;

  scene->fenced = lease;
  scene->below = below;
  scene->fences++;
  return !scene->fence_takes_time;
}

static void
open_table (struct scene *scene) {
  const struct lease_donor_ops ops = { .fence = fence, .data = scene };
  const char *why = NULL;

  scene->donor = lease_donor_open (scene->state, scene->bytes, &scene->geometry, scene->geometry.n_blocks, 12345, &ops, &why);
  g_assert_cmpstr (why, ==, NULL);
  g_assert_nonnull (scene->donor);
}

static void
scene_init (struct scene *scene, uint64_t n_blocks, uint32_t n_leases) {
  const uint8_t incarnation[LEASE_ID_BYTES] = "an arena";

  *scene = (struct scene){ .geometry = { n_blocks, n_leases }, .limits = { 8, UINT64_MAX }, .now = 1000 * SECOND };
  scene->bytes = lease_donor_state_bytes (&scene->geometry);
  scene->state = g_malloc0 (scene->bytes);
  lease_donor_format (scene->state, &scene->geometry, incarnation);
  open_table (scene);
}

static void
scene_clear (struct scene *scene) {
  lease_donor_close (scene->donor);
  g_free (scene->state);
}

static void
restart (struct scene *scene) {
  lease_donor_close (scene->donor);
  open_table (scene);
}

static struct lease_request
request_of (struct scene *scene, const struct who *who, enum lease_verb verb) {
  struct lease_request request = { .verb = verb, .session = who->session, .number = ++scene->number };

  request.vm[0] = (uint8_t)who->vm;
  request.host[0] = (uint8_t)who->host;
  request.boot[0] = (uint8_t)who->boot;
  if (who->last.lease) {
    request.lease = who->last.lease;
    request.epoch = verb == LEASE_ATTACH ? 0 : who->last.epoch;
    memcpy (request.incarnation, who->last.incarnation, LEASE_ID_BYTES);
  }
  return request;
}

static enum lease_verdict
send (struct scene *scene, struct who *who, const struct lease_request *request) {
  struct lease_answer answer;

  lease_donor_step (scene->donor, scene->now, who->identity, &scene->limits, request, &answer);
  g_assert_cmpuint (answer.number, ==, request->number);
  if (answer.lease)
    who->last = answer;
  return answer.verdict;
}

static enum lease_verdict
attach (struct scene *scene, struct who *who) {
  struct lease_request request = request_of (scene, who, LEASE_ATTACH);

  request.blocks = 100;
  return send (scene, who, &request);
}

static enum lease_verdict
ask_level (struct scene *scene, struct who *who, enum lease_verb verb, uint64_t blocks) {
  struct lease_request request = request_of (scene, who, verb);

  request.blocks = blocks;
  request.seq = who->last.seq + 1;
  return send (scene, who, &request);
}

static enum lease_verdict
say (struct scene *scene, struct who *who, enum lease_verb verb) {
  const struct lease_request request = request_of (scene, who, verb);

  return send (scene, who, &request);
}

static struct lease_export
export_of (struct scene *scene, const struct who *who) {
  struct lease_export export = { 0 };
  const char *why = NULL;
  uint64_t blocks = 0;
  char name[LEASE_EXPORT_NAME_BYTES];

  lease_export_name (who->last.lease, who->last.epoch, who->last.incarnation, name);
  if (!lease_donor_export (scene->donor, who->identity, name, &export, &blocks, &why))
    g_assert_nonnull (why);
  else
    g_assert_cmpuint (blocks, ==, 100);
  return export;
}

static enum lease_take
take (struct scene *scene, const struct who *who, uint64_t block) {
  const struct lease_export export = export_of (scene, who);
  uint64_t arena_block;
  bool fresh;

  return lease_donor_take (scene->donor, &export, block, &arena_block, &fresh);
}

#define ALICE                                                                                                                  \
  {                                                                                                                            \
    "host-a", 'v', 'a', 'b', 1, {                                                                                              \
      0                                                                                                                        \
    }                                                                                                                          \
  }

static void
test_life (void) {
  struct who alice = ALICE;
  struct lease_donor_figures figures;
  struct lease_export export;
  struct scene scene;
  uint64_t block, again;
  bool fresh;

  scene_init (&scene, 10, 4);
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 0);
  g_assert_cmpint (take (&scene, &alice, 5), ==, LEASE_TAKE_NO_LEVEL);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 3), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 3);
  export = export_of (&scene, &alice);
  g_assert_false (lease_donor_look (scene.donor, &export, 5, &block));
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 5, &block, &fresh), ==, LEASE_TAKEN);
  g_assert_true (fresh);
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 5, &again, &fresh), ==, LEASE_TAKEN);
  g_assert_false (fresh);
  g_assert_cmpuint (block, ==, again);
  g_assert_true (lease_donor_look (scene.donor, &export, 5, &again));
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 100, &again, &fresh), ==, LEASE_TAKE_BAD);
  g_assert_cmpint (take (&scene, &alice, 99), ==, LEASE_TAKEN);
  g_assert_cmpint (take (&scene, &alice, 0), ==, LEASE_TAKEN);
  g_assert_cmpint (take (&scene, &alice, 1), ==, LEASE_TAKE_NO_LEVEL);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, 1), ==, LEASE_IN_USE);
  g_assert_cmpuint (alice.last.level, ==, 3);
  lease_donor_drop (scene.donor, &export, 5);
  lease_donor_drop (scene.donor, &export, 5);
  g_assert_cmpint (lease_donor_block (scene.donor, block), ==, LEASE_BLOCK_DIRTY);
  g_assert_false (lease_donor_look (scene.donor, &export, 5, &again));
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, 1), ==, LEASE_IN_USE);
  g_assert_cmpuint (alice.last.level, ==, 2);
  g_assert_cmpuint (alice.last.used, ==, 2);
  /* Over a restart all is as it was */
  restart (&scene);
  g_assert_true (lease_donor_look (scene.donor, &export, 99, &again));
  lease_donor_figures (scene.donor, &figures);
  g_assert_cmpuint (figures.used, ==, 2);
  g_assert_cmpuint (figures.dirty, ==, 1);
  g_assert_cmpuint (figures.free, ==, 7);
  g_assert_cmpuint (figures.promised, ==, 2);
  g_assert_true (lease_donor_next_dirty (scene.donor, &again));
  g_assert_cmpuint (again, ==, block);
  g_assert_true (lease_donor_zeroed (scene.donor, block));
  g_assert_false (lease_donor_zeroed (scene.donor, block));
  g_assert_false (lease_donor_next_dirty (scene.donor, &again));
  /* The end, and once more */
  g_assert_cmpint (say (&scene, &alice, LEASE_END), ==, LEASE_OK);
  g_assert_cmpuint (scene.fenced, ==, export.lease);
  g_assert_cmpuint (scene.below, ==, UINT64_MAX);
  g_assert_cmpint (say (&scene, &alice, LEASE_END), ==, LEASE_UNKNOWN);
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 1, &again, &fresh), ==, LEASE_TAKE_STALE);
  lease_donor_figures (scene.donor, &figures);
  g_assert_cmpuint (figures.dirty, ==, 2);
  g_assert_cmpuint (figures.ended_by_end, ==, 1);
  scene_clear (&scene);
}

static void
test_sessions (void) {
  struct who alice = ALICE, before;
  struct lease_request late;
  struct lease_export old;
  struct scene scene;
  uint64_t block;
  bool fresh;

  scene_init (&scene, 10, 4);
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  before = alice;
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.epoch, ==, before.last.epoch); /* the same again */
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 4), ==, LEASE_OK);
  old = export_of (&scene, &alice);
  late = request_of (&scene, &alice, LEASE_KEEP);
  alice.session = 2;
  /* Not before the connections of the one before have ended */
  scene.fence_takes_time = true;
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_BUSY);
  g_assert_cmpuint (scene.below, >, old.epoch);
  g_assert_cmpint (lease_donor_take (scene.donor, &old, 0, &block, &fresh), ==, LEASE_TAKEN);
  scene.fence_takes_time = false;
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.epoch, >, old.epoch);
  g_assert_cmpuint (alice.last.lease, ==, old.lease);
  g_assert_cmpuint (alice.last.level, ==, 4); /* what was promised stays */
  g_assert_cmpuint (alice.last.seq, ==, 0);
  g_assert_cmpint (lease_donor_take (scene.donor, &old, 1, &block, &fresh), ==, LEASE_TAKE_STALE);
  g_assert_false (lease_donor_look (scene.donor, &old, 0, &block));
  lease_donor_drop (scene.donor, &old, 0);
  old = export_of (&scene, &alice);
  g_assert_true (lease_donor_look (scene.donor, &old, 0, &block));
  /* What the one before has said comes late */
  g_assert_cmpint (send (&scene, &before, &late), ==, LEASE_OLD_SESSION);
  g_assert_cmpint (attach (&scene, &before), ==, LEASE_OLD_SESSION);
  scene_clear (&scene);
}

static void
test_levels (void) {
  struct who alice = ALICE, bob = { "host-b", 'w', 'h', 'c', 9, { 0 } };
  struct lease_request old;
  struct scene scene;

  scene_init (&scene, 10, 4);
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  g_assert_cmpint (attach (&scene, &bob), ==, LEASE_OK);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 7), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.free, ==, 3);
  g_assert_cmpint (ask_level (&scene, &bob, LEASE_GRANT, 7), ==, LEASE_NO_ROOM);
  g_assert_cmpuint (bob.last.level, ==, 3);
  /* An earlier request, late: it changes nothing, whatever it says */
  old = request_of (&scene, &alice, LEASE_RELEASE);
  old.seq = alice.last.seq;
  old.blocks = 0;
  g_assert_cmpint (send (&scene, &alice, &old), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 7);
  /* A KEEP has said that nobody waits for it any more */
  old = request_of (&scene, &alice, LEASE_KEEP);
  old.seq = alice.last.seq + 1;
  g_assert_cmpint (send (&scene, &alice, &old), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.seq, ==, old.seq);
  old.verb = LEASE_RELEASE;
  g_assert_cmpint (send (&scene, &alice, &old), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 7);
  /* A GRANT never lowers, a RELEASE never raises */
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 2), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 7);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, UINT64_MAX), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.level, ==, 7);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, UINT64_MAX), ==, LEASE_NO_ROOM);
  g_assert_cmpuint (alice.last.level, ==, 7);
  /* Less is lent from now on; what is promised stays */
  lease_donor_set_limit (scene.donor, 5);
  g_assert_cmpint (ask_level (&scene, &bob, LEASE_RELEASE, 0), ==, LEASE_OK);
  g_assert_cmpint (ask_level (&scene, &bob, LEASE_GRANT, 1), ==, LEASE_NO_ROOM);
  g_assert_cmpuint (bob.last.level, ==, 0);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, 4), ==, LEASE_OK);
  g_assert_cmpint (ask_level (&scene, &bob, LEASE_GRANT, 2), ==, LEASE_NO_ROOM);
  g_assert_cmpuint (bob.last.level, ==, 1);
  /* What an identity may have in all */
  lease_donor_set_limit (scene.donor, UINT64_MAX);
  scene.limits.blocks = 6;
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 9), ==, LEASE_NO_ROOM);
  g_assert_cmpuint (alice.last.level, ==, 6);
  scene_clear (&scene);
}

/* Only dirty blocks are left: none is handed out before it was zeroed. */
static void
test_dirty (void) {
  struct who alice = ALICE, bob = { "host-b", 'w', 'h', 'c', 9, { 0 } };
  struct lease_export export;
  struct scene scene;
  uint64_t block, again;
  bool fresh;

  scene_init (&scene, 3, 4);
  (void)attach (&scene, &alice);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 3);
  for (uint64_t i = 0; i < 3; i++)
    g_assert_cmpint (take (&scene, &alice, i), ==, LEASE_TAKEN);
  g_assert_cmpint (say (&scene, &alice, LEASE_END), ==, LEASE_OK);
  (void)attach (&scene, &bob);
  g_assert_cmpint (ask_level (&scene, &bob, LEASE_GRANT, 3), ==, LEASE_OK);
  export = export_of (&scene, &bob);
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 7, &block, &fresh), ==, LEASE_TAKE_ZERO);
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 7, &again, &fresh), ==, LEASE_TAKE_ZERO);
  g_assert_cmpuint (block, ==, again);
  restart (&scene);
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 7, &again, &fresh), ==, LEASE_TAKE_ZERO);
  g_assert_true (lease_donor_zeroed (scene.donor, again));
  g_assert_cmpint (lease_donor_take (scene.donor, &export, 7, &block, &fresh), ==, LEASE_TAKEN);
  g_assert_cmpuint (block, ==, again);
  scene_clear (&scene);
}

static void
test_others (void) {
  struct who alice = ALICE, mallory = { "host-m", 'v', 'a', 'b', 100, { 0 } }, stranger = ALICE;
  struct lease_request request;
  struct scene scene;

  scene_init (&scene, 10, 4);
  (void)attach (&scene, &alice);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 3);
  g_assert_cmpint (take (&scene, &alice, 1), ==, LEASE_TAKEN);
  /* Who says all that alice says, but has another key */
  mallory.last = alice.last;
  mallory.session = alice.session;
  for (enum lease_verb verb = LEASE_GRANT; verb <= LEASE_END; verb++)
    g_assert_cmpint (say (&scene, &mallory, verb), ==, LEASE_NOT_YOURS);
  g_assert_cmpint (attach (&scene, &mallory), ==, LEASE_NOT_YOURS);
  g_assert_cmpint (take (&scene, &mallory, 1), ==, LEASE_TAKE_STALE);
  mallory.last.lease = 0;
  g_assert_cmpint (attach (&scene, &mallory), ==, LEASE_OK); /* a lease of his own */
  g_assert_cmpuint (mallory.last.lease, !=, alice.last.lease);
  /* The same key, but another boot, or VM, under alice's lease */
  stranger.last = alice.last;
  stranger.boot = 'x';
  g_assert_cmpint (say (&scene, &stranger, LEASE_END), ==, LEASE_BAD);
  g_assert_cmpint (attach (&scene, &stranger), ==, LEASE_BAD);
  /* Numbers that were never given, another arena */
  request = request_of (&scene, &alice, LEASE_END);
  request.epoch++;
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_BAD);
  request.lease += 1000;
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_BAD);
  request = request_of (&scene, &alice, LEASE_END);
  request.incarnation[0] ^= 1;
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_OTHER_INCARNATION);
  memset (request.incarnation, 0, LEASE_ID_BYTES);
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_BAD);
  request.verb = LEASE_ATTACH; /* a lease without its arena */
  request.blocks = 100;
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_BAD);
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_OK);
  scene_clear (&scene);
}

/* A disk's copies are in a lease that somebody has ended: it must hear that, also if there is a new one by then. */
static void
test_named (void) {
  struct who alice = ALICE, next;
  struct scene scene;

  scene_init (&scene, 10, 4);
  (void)attach (&scene, &alice);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 3);
  g_assert_false (lease_donor_forget (scene.donor, alice.last.lease + 100));
  scene.fence_takes_time = true;
  g_assert_false (lease_donor_forget (scene.donor, alice.last.lease));
  scene.fence_takes_time = false;
  g_assert_true (lease_donor_forget (scene.donor, alice.last.lease));
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_UNKNOWN);
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_UNKNOWN);
  next = alice;
  next.last.lease = 0;
  g_assert_cmpint (attach (&scene, &next), ==, LEASE_OK);
  g_assert_cmpuint (next.last.lease, >, alice.last.epoch); /* never the same again */
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_UNKNOWN);
  g_assert_cmpint (take (&scene, &alice, 0), ==, LEASE_TAKE_STALE);
  scene_clear (&scene);
}

static void
test_evidence (void) {
  struct who old = ALICE, now = { "host-a", 'w', 'a', 'c', 5, { 0 } }, other_host = { "host-a", 'x', 'z', 'd', 5, { 0 } },
             other_key = { "host-b", 'y', 'a', 'e', 5, { 0 } };
  struct lease_request late;
  struct scene scene;

  scene_init (&scene, 10, 6);
  (void)attach (&scene, &old);
  (void)ask_level (&scene, &old, LEASE_GRANT, 3);
  late = request_of (&scene, &old, LEASE_KEEP);
  (void)attach (&scene, &now);
  (void)attach (&scene, &other_host);
  (void)attach (&scene, &other_key);
  (void)ask_level (&scene, &now, LEASE_GRANT, 3);
  /* Not while it may be heard of */
  scene.now += LEASE_DONOR_DETACHED_MS / 2;
  g_assert_cmpint (say (&scene, &now, LEASE_KEEP), ==, LEASE_OK);
  scene.now += LEASE_DONOR_DETACHED_MS / 2;
  g_assert_cmpint (say (&scene, &other_host, LEASE_KEEP), ==, LEASE_OK);
  g_assert_cmpint (say (&scene, &other_key, LEASE_KEEP), ==, LEASE_OK);
  /* What the old boot said comes late, when nobody has heard of the one of now for long: no evidence */
  scene.now += 2 * LEASE_DONOR_DETACHED_MS;
  g_assert_cmpint (send (&scene, &old, &late), ==, LEASE_OK);
  g_assert_cmpint (say (&scene, &now, LEASE_KEEP), ==, LEASE_OK);
  /* An ATTACH is none, either: it names no epoch */
  scene.now += LEASE_DONOR_DETACHED_MS;
  g_assert_cmpint (attach (&scene, &now), ==, LEASE_OK);
  g_assert_cmpint (send (&scene, &old, &late), ==, LEASE_OK);
  scene.now += LEASE_DONOR_DETACHED_MS;
  g_assert_cmpint (say (&scene, &now, LEASE_KEEP), ==, LEASE_OK);
  g_assert_cmpint (send (&scene, &old, &late), ==, LEASE_UNKNOWN);
  g_assert_cmpint (say (&scene, &other_host, LEASE_KEEP), ==, LEASE_OK);
  g_assert_cmpint (say (&scene, &other_key, LEASE_KEEP), ==, LEASE_OK);
  scene_clear (&scene);
}

static void
test_time (void) {
  struct who alice = ALICE, empty = { "host-a", 'e', 'a', 'b', 1, { 0 } };
  const uint64_t day = 24ull * 3600 * SECOND;
  struct scene scene;

  scene_init (&scene, 10, 4);
  (void)attach (&scene, &alice);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 3);
  (void)attach (&scene, &empty);
  /* Nobody could reach a donor that was stopped */
  scene.now += 25 * day;
  g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, day), ==, 0);
  restart (&scene);
  scene.now += 25 * day;
  g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, day), ==, 0);
  scene.now -= 10 * day; /* nor does a clock that goes back */
  g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, day), ==, 0);
  /* It serves for a day, less two minutes */
  for (uint64_t i = 0; i < 24 * 60 - 2; i++) {
    scene.now += 60 * SECOND;
    g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, day), ==, 0);
    if (i == 700)
      restart (&scene);
  }
  g_assert_cmpint (say (&scene, &empty, LEASE_KEEP), ==, LEASE_UNKNOWN); /* it had nothing to lose */
  scene.now += 60 * SECOND;
  g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, 0), ==, 0); /* without an order nothing is freed */
  scene.now += 60 * SECOND;
  g_assert_cmpuint (lease_donor_pass_time (scene.donor, scene.now, day), ==, 1);
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_UNKNOWN);
  scene_clear (&scene);
}

static void
test_revoke (void) {
  struct who alice = ALICE;
  struct lease_request request;
  struct lease_export export;
  struct lease_info info;
  uint64_t first;
  struct scene scene;

  scene_init (&scene, 10, 4);
  (void)attach (&scene, &alice);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 5);
  for (uint64_t i = 0; i < 4; i++)
    g_assert_cmpint (take (&scene, &alice, i), ==, LEASE_TAKEN);
  g_assert_false (lease_donor_revoke (scene.donor, alice.last.lease + 100, 0, 0));
  g_assert_true (lease_donor_revoke (scene.donor, alice.last.lease, 3, scene.now + 9 * SECOND));
  scene.now += 4 * SECOND;
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_OK);
  first = alice.last.revoke;
  g_assert_cmpuint (first, !=, 0);
  g_assert_cmpuint (alice.last.revoke_level, ==, 3);
  g_assert_cmpuint (alice.last.revoke_left_ms, ==, 5 * SECOND);
  request = request_of (&scene, &alice, LEASE_KEEP);
  request.revoke_seen = first;
  g_assert_cmpint (send (&scene, &alice, &request), ==, LEASE_OK);
  g_assert_true (lease_donor_lease (scene.donor, 0, &info));
  g_assert_true (info.revoke_seen);
  /* It stays over deaths, sessions and the deadline, and no level is raised meanwhile */
  restart (&scene);
  scene.now += 100 * SECOND;
  alice.session++;
  g_assert_cmpint (attach (&scene, &alice), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.revoke, ==, first);
  g_assert_cmpuint (alice.last.revoke_left_ms, ==, 0);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 6), ==, LEASE_NO_ROOM);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, 4), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.revoke, ==, first);
  /* Another one in its place; then it is done */
  g_assert_true (lease_donor_revoke (scene.donor, alice.last.lease, 1, scene.now + 9 * SECOND));
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.revoke, >, first);
  g_assert_cmpuint (alice.last.revoke_level, ==, 1);
  export = export_of (&scene, &alice);
  for (uint64_t i = 1; i < 4; i++)
    lease_donor_drop (scene.donor, &export, i);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_RELEASE, 1), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.revoke, ==, 0);
  g_assert_cmpuint (alice.last.level, ==, 1);
  g_assert_cmpint (ask_level (&scene, &alice, LEASE_GRANT, 5), ==, LEASE_OK);
  /* Taken back */
  g_assert_true (lease_donor_revoke (scene.donor, alice.last.lease, 2, 0));
  g_assert_true (lease_donor_revoke (scene.donor, alice.last.lease, 5, 0));
  g_assert_cmpint (say (&scene, &alice, LEASE_KEEP), ==, LEASE_OK);
  g_assert_cmpuint (alice.last.revoke, ==, 0);
  scene_clear (&scene);
}

static void
test_too_many (void) {
  struct who who[5];
  char identity[LEASE_IDENTITY_BYTES + 1];
  struct scene scene;

  scene_init (&scene, 10, 4);
  scene.limits.leases = 3;
  for (unsigned i = 0; i < 5; i++)
    who[i] = (struct who){ i < 4 ? "a" : "b", (char)('1' + i), 'h', 'b', 1, { 0 } };
  for (unsigned i = 0; i < 3; i++)
    g_assert_cmpint (attach (&scene, &who[i]), ==, LEASE_OK);
  g_assert_cmpint (attach (&scene, &who[3]), ==, LEASE_LIMIT);
  g_assert_cmpint (attach (&scene, &who[4]), ==, LEASE_OK);
  scene.limits.leases = 9;
  g_assert_cmpint (attach (&scene, &who[3]), ==, LEASE_LIMIT); /* the table is full */
  g_assert_cmpint (say (&scene, &who[0], LEASE_END), ==, LEASE_OK);
  g_assert_cmpint (attach (&scene, &who[3]), ==, LEASE_OK);
  /* Names that have no room */
  memset (identity, 'i', sizeof identity);
  identity[LEASE_IDENTITY_BYTES] = '\0';
  who[0] = (struct who){ identity, 'n', 'h', 'b', 1, { 0 } };
  g_assert_cmpint (say (&scene, &who[2], LEASE_END), ==, LEASE_OK);
  g_assert_cmpint (attach (&scene, &who[0]), ==, LEASE_BAD);
  identity[LEASE_IDENTITY_BYTES - 1] = '\0';
  g_assert_cmpint (attach (&scene, &who[0]), ==, LEASE_OK);
  restart (&scene);
  g_assert_cmpint (say (&scene, &who[0], LEASE_KEEP), ==, LEASE_OK);
  scene_clear (&scene);
}

/* A state that somebody has changed is refused, or what is made of it is sound; it is unchanged if it is refused. */
static void
test_damage (void) {
  const unsigned steps = testing_steps (20000);
  struct scene fenced = { 0 };
  const struct lease_donor_ops ops = { .fence = fence, .data = &fenced };
  g_autoptr (GRand) rand = testing_rand ();
  struct who alice = ALICE, bob = { "host-b", 'w', 'h', 'c', 9, { 0 } };
  unsigned n_refused = 0;
  struct scene scene;

  scene_init (&scene, 10, 4);
  (void)attach (&scene, &alice);
  (void)attach (&scene, &bob);
  (void)ask_level (&scene, &alice, LEASE_GRANT, 4);
  (void)ask_level (&scene, &bob, LEASE_GRANT, 3);
  for (uint64_t i = 0; i < 3; i++) {
    (void)take (&scene, &alice, 10 + i);
    (void)take (&scene, &bob, 20 + i);
  }
  (void)lease_donor_revoke (scene.donor, bob.last.lease, 1, 5);
  for (unsigned i = 0; i < steps; i++) {
    g_autofree uint64_t *damaged = g_memdup2 (scene.state, scene.bytes), *before = NULL;
    struct scene other = scene;
    struct lease_donor_figures figures;
    const char *why = NULL;

    for (uint64_t n = 1 + testing_below (rand, 3); n; n--) {
      static const size_t parts[3][2] = { { 0, 12 }, { 4096 / 8, 4 * 256 / 8 }, { (4096 + 4 * 256) / 8, 10 } };
      const size_t *part = parts[testing_below (rand, 3)];
      uint64_t *word = &damaged[part[0] + testing_below (rand, part[1])];

      *word = testing_once_in (rand, 2) ? *word ^ 1ull << testing_below (rand, 64) : testing_edgy (rand);
    }
    before = g_memdup2 (damaged, scene.bytes);
    other.state = damaged;
    other.donor = lease_donor_open (damaged, scene.bytes, &scene.geometry, 10, 1, &ops, &why);
    if (!other.donor) {
      n_refused++;
      g_assert_nonnull (why);
      g_assert_cmpmem (before, scene.bytes, damaged, scene.bytes);
      continue;
    }
    lease_donor_figures (other.donor, &figures);
    g_assert_cmpuint (figures.promised, <=, 10);
    g_assert_cmpuint (figures.used + figures.dirty + figures.free, ==, 10);
    for (uint32_t slot = 0; slot < 4; slot++) {
      struct lease_info info;

      if (lease_donor_lease (other.donor, slot, &info))
        g_assert_cmpuint (info.used, <=, info.level);
    }
    (void)say (&other, &alice, LEASE_KEEP);
    (void)lease_donor_pass_time (other.donor, other.now + 5, 1);
    lease_donor_close (other.donor);
  }
  g_assert_cmpuint (n_refused, >, steps / 4);
  scene_clear (&scene);
}

static void
test_header (void) {
  struct lease_donor_geometry geometry = { 10, 4 };
  const size_t bytes = lease_donor_state_bytes (&geometry);
  g_autofree uint64_t *state = g_malloc0 (bytes);
  struct donor_header *header = (void *)state;

  g_assert_cmpstr (lease_donor_check_header (state, bytes, &geometry), ==, "it is no table of leases");
  lease_donor_format (state, &geometry, (const uint8_t *)"0123456789abcdef");
  g_assert_null (lease_donor_check_header (state, bytes, &geometry));
  geometry.n_blocks++;
  g_assert_cmpstr (lease_donor_check_header (state, bytes, &geometry), ==, "it is for an arena of another size");
  geometry.n_blocks--;
  g_assert_nonnull (lease_donor_check_header (state, bytes - 4096, &geometry));
  header->version = LEASE_DONOR_STATE_VERSION + 1;
  g_assert_null (lease_donor_check_header (state, bytes, &geometry)); /* newer, but readable */
  header->oldest_reader = LEASE_DONOR_STATE_VERSION + 1;
  g_assert_cmpstr (lease_donor_check_header (state, bytes, &geometry), ==,
                   "it was written by a newer version, for that and newer ones only");
  /* Version 1 stays where it is */
  g_assert_cmpuint (offsetof (struct donor_header, incarnation), ==, 40);
  g_assert_cmpuint (offsetof (struct donor_header, next_number), ==, 56);
  g_assert_cmpuint (offsetof (struct donor_header, served_ms), ==, 72);
  g_assert_cmpuint (offsetof (struct donor_record, level), ==, 32);
  g_assert_cmpuint (offsetof (struct donor_record, vm), ==, 96);
  g_assert_cmpuint (offsetof (struct donor_record, identity), ==, 144);
  g_assert_cmpuint (donor_word (3, 5), ==, 1 | 3 << 2 | 5 << 18);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/lease-donor/life", test_life);
  g_test_add_func ("/lease-donor/sessions", test_sessions);
  g_test_add_func ("/lease-donor/levels", test_levels);
  g_test_add_func ("/lease-donor/dirty", test_dirty);
  g_test_add_func ("/lease-donor/others", test_others);
  g_test_add_func ("/lease-donor/named", test_named);
  g_test_add_func ("/lease-donor/evidence", test_evidence);
  g_test_add_func ("/lease-donor/time", test_time);
  g_test_add_func ("/lease-donor/revoke", test_revoke);
  g_test_add_func ("/lease-donor/too-many", test_too_many);
  g_test_add_func ("/lease-donor/damage", test_damage);
  g_test_add_func ("/lease-donor/header", test_header);
  return g_test_run ();
}
