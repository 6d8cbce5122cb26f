/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The borrower's side, story by story, and against a donor that says anything. With a real donor it is simulated
 * (tests/simulation). */
#include "core/lease-borrower.h"
#include "testing.h"

#include <string.h>

struct scene {
  struct lease_borrower lease;
  uint64_t now;
  struct lease_request asked;
  struct lease_answer answer; /* of a donor that has all it should */
};

static void
scene_init (struct scene *scene, uint64_t lease) {
  struct lease_borrower_options options = { .vm = "vm",
                                            .host = "host",
                                            .boot = "boot",
                                            .disk = 3,
                                            .session = 7ull << 32,
                                            .export_blocks = 50,
                                            .keep_ms = 5000,
                                            .lease = lease };

  *scene = (struct scene){ .now = 1000 };
  if (lease)
    memcpy (options.incarnation, "arena", 6);
  scene->answer = (struct lease_answer){ .incarnation = "arena", .lease = 5, .epoch = 6 };
  lease_borrower_init (&scene->lease, &options);
}

static enum lease_verb
next (struct scene *scene) {
  return lease_borrower_next (&scene->lease, scene->now, &scene->asked) ? scene->asked.verb : (enum lease_verb)0;
}

static void
hear (struct scene *scene, enum lease_verdict verdict) {
  scene->answer.verdict = verdict;
  scene->answer.number = scene->asked.number;
  g_assert_true (lease_borrower_answer (&scene->lease, scene->now, &scene->answer));
}

static void
attach (struct scene *scene) {
  lease_borrower_connected (&scene->lease, scene->now);
  g_assert_cmpint (next (scene), ==, LEASE_ATTACH);
  hear (scene, LEASE_OK);
  g_assert_cmpint (scene->lease.state, ==, LEASE_ATTACHED);
}

static void
test_life (void) {
  struct scene scene;
  char name[LEASE_EXPORT_NAME_BYTES];

  scene_init (&scene, 0);
  g_assert_cmpint (scene.lease.state, ==, LEASE_DOWN);
  g_assert_cmpint (next (&scene), ==, 0);
  g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, UINT64_MAX);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, 0);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  g_assert_cmpuint (scene.asked.session, ==, 7ull << 32);
  g_assert_cmpuint (scene.asked.lease, ==, 0);
  g_assert_cmpuint (scene.asked.blocks, ==, 50);
  g_assert_cmpint (next (&scene), ==, 0); /* one at a time */
  g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, LEASE_ANSWER_MS);
  hear (&scene, LEASE_OK);
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHED);
  g_assert_cmpuint (scene.lease.options.lease, ==, 5);
  lease_borrower_export_name (&scene.lease, name);
  g_assert_cmpstr (name, ==, "lease-0000000000000005.0000000000000006.6172656e610000000000000000000000");
  /* A level, a keep-alive, less */
  lease_borrower_want (&scene.lease, 10);
  g_assert_cmpint (next (&scene), ==, LEASE_GRANT);
  g_assert_cmpuint (scene.asked.blocks, ==, 10);
  g_assert_cmpuint (scene.asked.seq, ==, 1);
  g_assert_cmpuint (scene.asked.epoch, ==, 6);
  scene.answer.level = 4;
  scene.answer.seq = 1;
  hear (&scene, LEASE_NO_ROOM);
  g_assert_cmpint (next (&scene), ==, 0); /* not at once again */
  g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, LEASE_NO_ROOM_MS);
  scene.now += LEASE_NO_ROOM_MS;
  g_assert_cmpint (next (&scene), ==, LEASE_GRANT);
  g_assert_cmpuint (scene.asked.seq, ==, 2);
  scene.answer.level = 10;
  scene.answer.used = 8;
  scene.answer.seq = 2;
  hear (&scene, LEASE_OK);
  g_assert_cmpint (next (&scene), ==, 0);
  g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, 5000);
  scene.now += 5000;
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  hear (&scene, LEASE_OK);
  lease_borrower_want (&scene.lease, 5);
  g_assert_cmpint (next (&scene), ==, LEASE_RELEASE);
  g_assert_cmpuint (scene.asked.blocks, ==, 5);
  scene.answer.level = 8;
  scene.answer.seq = 3;
  hear (&scene, LEASE_IN_USE);
  g_assert_cmpint (next (&scene), ==, 0); /* all of them have contents */
  lease_borrower_hurry (&scene.lease);
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  scene.answer.used = 3;
  hear (&scene, LEASE_OK);
  g_assert_cmpint (next (&scene), ==, LEASE_RELEASE);
  scene.answer.level = 5;
  hear (&scene, LEASE_OK);
  /* It is not known whether a GRANT comes: the next KEEP settles that */
  lease_borrower_want (&scene.lease, 9);
  g_assert_cmpint (next (&scene), ==, LEASE_GRANT);
  {
    const uint64_t seq = scene.asked.seq;

    lease_borrower_disconnected (&scene.lease);
    lease_borrower_connected (&scene.lease, scene.now);
    g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
    g_assert_cmpuint (scene.asked.seq, ==, seq);
  }
  hear (&scene, LEASE_OK);
  lease_borrower_want (&scene.lease, 5);
  /* The end: asked until it is answered */
  lease_borrower_end (&scene.lease);
  g_assert_cmpint (next (&scene), ==, LEASE_END);
  lease_borrower_disconnected (&scene.lease);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpint (next (&scene), ==, LEASE_END);
  hear (&scene, LEASE_BUSY);
  g_assert_cmpint (next (&scene), ==, 0);
  scene.now += LEASE_BUSY_MS;
  g_assert_cmpint (next (&scene), ==, LEASE_END);
  scene.answer.lease = scene.answer.epoch = scene.answer.level = scene.answer.used = 0;
  hear (&scene, LEASE_UNKNOWN); /* the first one was carried out */
  g_assert_cmpint (scene.lease.state, ==, LEASE_ENDED);
  scene.now += 100000;
  g_assert_cmpint (next (&scene), ==, 0);
}

static void
test_connections (void) {
  struct scene scene;
  struct lease_answer late;

  scene_init (&scene, 0);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  late = scene.answer;
  late.number = scene.asked.number;
  scene.now += LEASE_ANSWER_MS - 1;
  g_assert_false (lease_borrower_timed_out (&scene.lease, scene.now));
  scene.now++;
  g_assert_true (lease_borrower_timed_out (&scene.lease, scene.now));
  lease_borrower_disconnected (&scene.lease);
  g_assert_cmpint (scene.lease.state, ==, LEASE_DOWN);
  g_assert_true (lease_borrower_answer (&scene.lease, scene.now, &late)); /* of another connection: nothing */
  g_assert_cmpint (scene.lease.state, ==, LEASE_DOWN);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  g_assert_cmpuint (scene.asked.session, ==, 7ull << 32); /* nobody has written under it */
  g_assert_true (lease_borrower_answer (&scene.lease, scene.now, &late));
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHING);
  hear (&scene, LEASE_OK);
  /* The lease connection alone: the epoch stays, and is asked about at once */
  lease_borrower_disconnected (&scene.lease);
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHED);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  /* A data connection with writes under way: another epoch. What is under way is of no interest any more */
  lease_borrower_renew (&scene.lease);
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHING);
  lease_borrower_renew (&scene.lease); /* of the next one that breaks */
  g_assert_cmpint (next (&scene), ==, 0);
  hear (&scene, LEASE_UNKNOWN); /* would be a lie, but is not even looked at */
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHING);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  g_assert_cmpuint (scene.asked.session, ==, (7ull << 32) + 1);
  g_assert_cmpuint (scene.asked.lease, ==, 5);
  scene.answer.epoch = 9;
  hear (&scene, LEASE_OK);
  g_assert_cmpuint (scene.lease.epoch, ==, 9);
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHED);
}

static void
test_lost (void) {
  struct scene scene;

  scene_init (&scene, 5);
  lease_borrower_connected (&scene.lease, scene.now);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  g_assert_cmpuint (scene.asked.lease, ==, 5);
  memcpy (scene.answer.incarnation, "other", 6);
  hear (&scene, LEASE_OTHER_INCARNATION);
  g_assert_cmpint (scene.lease.state, ==, LEASE_LOST);
  g_assert_cmpint (next (&scene), ==, 0);
  lease_borrower_disconnected (&scene.lease);
  lease_borrower_connected (&scene.lease, scene.now);
  lease_borrower_renew (&scene.lease);
  g_assert_cmpint (scene.lease.state, ==, LEASE_LOST); /* until the owner knows */
  g_assert_cmpint (next (&scene), ==, 0);
  lease_borrower_begin_anew (&scene.lease);
  g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
  g_assert_cmpuint (scene.asked.lease, ==, 0);
  g_assert_cmpuint (scene.asked.incarnation[0], ==, 0);
  scene.answer.lease = 77;
  scene.answer.epoch = 78;
  hear (&scene, LEASE_OK);
  g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHED);
  g_assert_cmpuint (scene.lease.options.lease, ==, 77);
  /* Ended by somebody */
  lease_borrower_hurry (&scene.lease);
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  hear (&scene, LEASE_UNKNOWN);
  g_assert_cmpint (scene.lease.state, ==, LEASE_LOST);
}

static void
test_refused (void) {
  static const enum lease_verdict verdicts[] = { LEASE_BAD, LEASE_OLD_SESSION, LEASE_NOT_YOURS, LEASE_LIMIT };

  for (unsigned i = 0; i < G_N_ELEMENTS (verdicts); i++) {
    struct scene scene;

    scene_init (&scene, 5);
    lease_borrower_connected (&scene.lease, scene.now);
    g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
    hear (&scene, verdicts[i]);
    g_assert_cmpint (scene.lease.state, ==, LEASE_REFUSED); /* which is not lost */
    g_assert_cmpint (scene.lease.verdict, ==, verdicts[i]);
    g_assert_cmpint (next (&scene), ==, 0);
    lease_borrower_disconnected (&scene.lease);
    lease_borrower_connected (&scene.lease, scene.now);
    g_assert_cmpint (next (&scene), ==, 0);
    g_assert_cmpuint (lease_borrower_wait_ms (&scene.lease, scene.now), ==, LEASE_REFUSED_MS);
    scene.now += LEASE_REFUSED_MS;
    g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
    g_assert_cmpuint (scene.asked.session, ==, 7ull << 32);
    hear (&scene, LEASE_OK);
    g_assert_cmpint (scene.lease.state, ==, LEASE_ATTACHED);
    /* Out of an attachment: what its connections may still write is to be fenced */
    lease_borrower_hurry (&scene.lease);
    g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
    hear (&scene, verdicts[i]);
    g_assert_cmpint (scene.lease.state, ==, LEASE_REFUSED);
    scene.now += LEASE_REFUSED_MS;
    g_assert_cmpint (next (&scene), ==, LEASE_ATTACH);
    g_assert_cmpuint (scene.asked.session, ==, (7ull << 32) + 1);
  }
}

static void
test_revoke (void) {
  struct scene scene;

  scene_init (&scene, 0);
  lease_borrower_want (&scene.lease, 10);
  scene.answer.level = 10;
  scene.answer.used = 8;
  attach (&scene);
  g_assert_cmpint (next (&scene), ==, 0);
  lease_borrower_hurry (&scene.lease);
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  scene.answer.revoke = 3;
  scene.answer.revoke_level = 6;
  scene.answer.revoke_left_ms = 700;
  hear (&scene, LEASE_OK);
  g_assert_cmpuint (scene.lease.revoke_until_ms, ==, scene.now + 700);
  g_assert_cmpint (next (&scene), ==, LEASE_RELEASE); /* what has no contents goes back at once */
  g_assert_cmpuint (scene.asked.blocks, ==, 6);
  scene.answer.level = 8;
  hear (&scene, LEASE_IN_USE);
  g_assert_cmpint (next (&scene), ==, 0);
  lease_borrower_hurry (&scene.lease); /* trimmed */
  g_assert_cmpint (next (&scene), ==, LEASE_KEEP);
  g_assert_cmpuint (scene.asked.revoke_seen, ==, 3);
  scene.answer.used = 6;
  hear (&scene, LEASE_OK);
  g_assert_cmpint (next (&scene), ==, LEASE_RELEASE);
  scene.answer.level = 6;
  scene.answer.revoke = 0;
  hear (&scene, LEASE_OK);
  g_assert_cmpint (next (&scene), ==, LEASE_GRANT); /* perhaps there is room again */
}

/* Answers that nobody makes who knows what he says. */
static void
test_senseless (void) {
  static const struct {
    enum lease_verb to;
    struct lease_answer answer;
  } cases[] = {
    { LEASE_ATTACH,
      { .verdict = LEASE_OK, .incarnation = "arena", .lease = 6, .epoch = 8 } }, /* another lease than was named */
    { LEASE_ATTACH, { .verdict = LEASE_OK, .incarnation = "other", .lease = 5, .epoch = 8 } },
    { LEASE_ATTACH, { .verdict = LEASE_OK, .incarnation = "arena", .lease = 5 } },
    { LEASE_ATTACH, { .verdict = LEASE_OK, .incarnation = "arena", .lease = 5, .epoch = 8, .used = 1 } }, /* above its level */
    { LEASE_ATTACH, { .verdict = LEASE_OK, .incarnation = "arena", .lease = 5, .epoch = 8, .level = 1ull << 41 } },
    { LEASE_ATTACH, { .verdict = LEASE_OK, .lease = 5, .epoch = 8 } },
    { LEASE_ATTACH, { .verdict = LEASE_OTHER_INCARNATION, .incarnation = "arena" } },
    { LEASE_ATTACH, { .verdict = LEASE_UNKNOWN, .incarnation = "other" } },
    { LEASE_KEEP, { .verdict = LEASE_OK, .incarnation = "arena", .lease = 5, .epoch = 7 } }, /* an epoch that it did not give */
    { LEASE_KEEP, { .verdict = LEASE_OK, .incarnation = "arena" } },
    { LEASE_END, { .verdict = LEASE_NO_ROOM, .incarnation = "arena", .lease = 5, .epoch = 6 } },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (cases); i++) {
    struct lease_answer answer = cases[i].answer;
    struct scene scene;

    scene_init (&scene, 5);
    if (cases[i].to != LEASE_ATTACH)
      attach (&scene);
    else
      lease_borrower_connected (&scene.lease, scene.now);
    if (cases[i].to == LEASE_KEEP)
      lease_borrower_hurry (&scene.lease);
    if (cases[i].to == LEASE_END)
      lease_borrower_end (&scene.lease);
    g_assert_cmpint (next (&scene), ==, cases[i].to);
    answer.number = scene.asked.number;
    g_assert_false (lease_borrower_answer (&scene.lease, scene.now, &answer));
    g_assert_cmpint (scene.lease.state, !=, LEASE_LOST);
    lease_borrower_disconnected (&scene.lease);
    g_assert_cmpint (scene.lease.state, !=, LEASE_LOST);
  }
}

/* Whatever a donor says and whatever happens: one request at a time, each goes on until it is answered or the connection is
 * over, sessions only grow, the lease that copies are in stays the same until they are lost, and there is always a next time.
 */
static void
test_anything (void) {
  g_autoptr (GRand) rand = testing_rand ();
  uint64_t n_attached = 0;

  for (unsigned i = 0; i < testing_steps (300); i++) {
    uint64_t session = 0, lease = 0;
    struct scene scene;

    scene_init (&scene, testing_once_in (rand, 2) ? 5 : 0);
    for (unsigned step = 0; step < 300; step++) {
      struct lease_borrower *b = &scene.lease;

      scene.now += testing_below (rand, 3000);
      switch (testing_below (rand, 10)) {
      case 0:
        lease_borrower_connected (b, scene.now);
        break;
      case 1:
        if (testing_once_in (rand, 4))
          lease_borrower_disconnected (b);
        break;
      case 2:
        lease_borrower_want (b, testing_below (rand, 12));
        break;
      case 3:
        if (testing_once_in (rand, 4))
          lease_borrower_renew (b);
        break;
      case 4:
        lease_borrower_begin_anew (b);
        lease = b->options.lease;
        break;
      case 5:
        lease_borrower_hurry (b);
        break;
      default: {
        uint64_t *const numbers[] = { &scene.answer.lease,  &scene.answer.epoch,        &scene.answer.level, &scene.answer.used,
                                      &scene.answer.revoke, &scene.answer.revoke_level, &scene.answer.seq };

        if (b->under_way && testing_once_in (rand, 2))
          scene.answer.number = b->request.number;
        scene.answer.verdict
            = (enum lease_verdict) (testing_once_in (rand, 2) ? LEASE_OK : testing_below (rand, LEASE_IN_USE + 1));
        *numbers[testing_below (rand, G_N_ELEMENTS (numbers))]
            = testing_once_in (rand, 3) ? testing_edgy (rand) : testing_below (rand, 10);
        if (b->options.lease && testing_once_in (rand, 2)) {
          scene.answer.lease = b->options.lease;
          scene.answer.epoch = b->epoch ? b->epoch : 3;
        }
        if (!lease_borrower_answer (b, scene.now, &scene.answer))
          lease_borrower_disconnected (b);
      }
      }
      if (lease_borrower_next (b, scene.now, &scene.asked)) {
        g_assert_true (b->connected);
        g_assert_cmpuint (scene.asked.session, >=, session);
        session = scene.asked.session;
        g_assert_false (lease_borrower_next (b, scene.now, &scene.asked));
        g_assert_true (scene.asked.lease == 0 || scene.asked.incarnation[0]);
      }
      if (lease && b->state != LEASE_LOST)
        g_assert_cmpuint (b->options.lease, ==, lease);
      if (b->state == LEASE_ATTACHED) {
        lease = b->options.lease;
        n_attached++;
        g_assert_cmpuint (lease, !=, 0);
      }
      if (lease_borrower_timed_out (b, scene.now))
        lease_borrower_disconnected (b);
      if (b->connected && b->state != LEASE_LOST && b->state != LEASE_ENDED)
        g_assert_cmpuint (lease_borrower_wait_ms (b, scene.now), <=, MAX (LEASE_REFUSED_MS, LEASE_ANSWER_MS));
    }
  }
  g_assert_cmpuint (n_attached, >, 0);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/lease-borrower/life", test_life);
  g_test_add_func ("/lease-borrower/connections", test_connections);
  g_test_add_func ("/lease-borrower/lost", test_lost);
  g_test_add_func ("/lease-borrower/refused", test_refused);
  g_test_add_func ("/lease-borrower/revoke", test_revoke);
  g_test_add_func ("/lease-borrower/senseless", test_senseless);
  g_test_add_func ("/lease-borrower/anything", test_anything);
  return g_test_run ();
}
