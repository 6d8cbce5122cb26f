/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The arena's wanted size, on simulated hosts: programs come and go, borrowers fill what they were promised, and give it back
 * late. */
#include "core/arena-size.h"
#include "testing.h"

#define SECOND 1000u

struct host {
  struct arena_limits limits;
  struct arena_size size;
  uint64_t total, programs; /* MiB: what programs hold of it */
  uint64_t lent;            /* promised to borrowers */
  uint64_t has;             /* of that, filled */
  uint64_t now;
  unsigned some, full;
  unsigned ups, downs;
};

static uint64_t
available (const struct host *host) {
  const uint64_t used = host->programs + host->has;

  return used < host->total ? host->total - used : 0;
}

/* A second of it. */
static enum arena_reason
step (struct host *host) {
  const struct arena_sample sample = { .now_ms = host->now,
                                       .available_mib = available (host),
                                       .has_mib = host->has,
                                       .promised_mib = host->lent - host->has,
                                       .some = host->some,
                                       .full = host->full };
  const uint64_t before = host->size.wanted_mib, room = sample.available_mib + sample.has_mib;
  const enum arena_reason reason = arena_size_step (&host->size, &host->limits, &sample);
  const uint64_t after = host->size.wanted_mib;

  host->now += SECOND;
  host->ups += after > before;
  host->downs += after < before;
  /* hard, whatever else is */
  g_assert_cmpuint (after, <=, host->limits.max_mib);
  g_assert_cmpuint (after, <=, room > host->limits.reserve_mib ? room - host->limits.reserve_mib : 0);
  g_assert_cmpint (reason == ARENA_KEEP, ==, after == before && reason != ARENA_OPERATOR && reason != ARENA_BEGUN);
  g_assert_cmpint (reason == ARENA_GROW, ==, after > before && reason != ARENA_OPERATOR && reason != ARENA_BEGUN);
  return reason;
}

static struct host
make (uint64_t total, uint64_t programs, uint64_t max, uint64_t reserve) {
  struct host host = { .limits = { max, reserve }, .total = total, .programs = programs, .now = 77 };

  g_assert_cmpint (step (&host), ==, ARENA_BEGUN);
  host.ups = host.downs = 0;
  return host;
}

static void
run (struct host *host, unsigned seconds) {
  while (seconds--)
    step (host);
}

static void
test_begin (void) {
  struct host host = make (64 << 10, 16 << 10, 1 << 20, 4 << 10);
  const uint64_t margin = arena_margin_mib (&host.limits);

  g_assert_cmpuint (margin, ==, 512);
  g_assert_cmpuint (host.size.wanted_mib, ==, (44 << 10) - margin);
  host = make (64 << 10, 16 << 10, 8 << 10, 4 << 10);
  g_assert_cmpuint (host.size.wanted_mib, ==, 8 << 10);
  host = make (1 << 10, 1 << 10, 8 << 10, 4 << 10); /* has less than its reserve */
  g_assert_cmpuint (host.size.wanted_mib, ==, 0);
  run (&host, 1000);
  g_assert_cmpuint (host.size.wanted_mib, ==, 0);
}

/* What stays as it is makes no changes; neither does what goes up and down within the margins. */
static void
test_steady (void) {
  GRand *rand = testing_rand ();

  for (unsigned round = 0; round < 50; round++) {
    const uint64_t total = 1024 + testing_below (rand, 1 << 20), reserve = total / 16, programs = testing_below (rand, total);
    struct host host = make (total, programs, 1 + testing_below (rand, total), reserve);
    const uint64_t wanted = host.size.wanted_mib, margin = arena_margin_mib (&host.limits);
    const uint64_t room = total - programs > reserve ? total - programs - reserve : 0;

    if (wanted == 0 || room < 2 * margin)
      continue;
    for (unsigned i = 0; i < 2000; i++) {
      host.programs = programs + testing_below (rand, margin); /* into the margin, never beyond */
      host.lent = host.has = testing_below (rand, wanted + 1);
      if (host.has + host.programs > total)
        host.has = host.lent = 0;
      step (&host);
      g_assert_cmpuint (host.size.wanted_mib, ==, wanted);
    }
  }
  g_rand_free (rand);
}

/* A program takes all but the reserve: the size is down within one step, whatever is lent; and up again when it has gone,
 * slowly. */
static void
test_squeeze (void) {
  struct host host = make (64 << 10, 16 << 10, 32 << 10, 4 << 10);
  unsigned seconds = 0;

  g_assert_cmpuint (host.size.wanted_mib, ==, 32 << 10);
  host.lent = host.has = 32 << 10;
  for (unsigned i = 1; i <= 4; i++) { /* all but 1 GiB of what is left, again and again */
    const uint64_t had = host.has;

    host.programs = (63 << 10) - host.has;
    g_assert_cmpint (step (&host), ==, ARENA_RESERVE);
    g_assert_cmpuint (host.size.wanted_mib, ==, had - (3 << 10) - 512);
    run (&host, 200); /* the borrowers take their time: nothing more happens */
    g_assert_cmpuint (host.downs, ==, i);
    host.lent = host.has = host.size.wanted_mib;
    run (&host, 200);
    g_assert_cmpuint (host.downs, ==, i);
  }
  g_assert_cmpuint (host.ups, ==, 0);
  host.programs = 16 << 10;
  g_assert_cmpint (step (&host), ==, ARENA_GROW);
  g_assert_cmpuint (host.size.wanted_mib, ==, 22 << 10);
  while (host.size.wanted_mib < 32 << 10) {
    step (&host);
    g_assert_cmpuint (++seconds, <, 60);
  }
  g_assert_cmpuint (seconds, >=, 20);
  /* a moment's fright puts it off */
  host.programs = (63 << 10) - host.has;
  host.limits.max_mib = 48 << 10;
  g_assert_cmpuint (host.ups, ==, 4);
  run (&host, 1);
  host.programs = 0;
  run (&host, 29);
  g_assert_cmpuint (host.ups, ==, 4);
  run (&host, 2);
  g_assert_cmpuint (host.ups, ==, 5);
}

static void
test_pressure (void) {
  struct host host = make (64 << 10, 26 << 10, 32 << 10, 4 << 10);

  /* others' own limits: much is available */
  host.some = host.full = 9000;
  host.programs = 10 << 10;
  host.lent = host.has = 4 << 10;
  run (&host, 500);
  g_assert_cmpuint (host.downs, ==, 0);
  /* little is: down and down, an eighth each ten seconds */
  host.lent = host.has = 32 << 10;
  host.programs = (64 << 10) - (32 << 10) - (5 << 10);
  host.some = ARENA_PRESSURE_SOME;
  host.full = 0;
  run (&host, 1);
  g_assert_cmpuint (host.size.wanted_mib, ==, 28 << 10);
  run (&host, 10);
  g_assert_cmpuint (host.size.wanted_mib, ==, (28 << 10) - (28 << 10) / 8);
  g_assert_cmpuint (host.downs, ==, 2);
  host.some = ARENA_PRESSURE_SOME - 1; /* that is the usual business */
  run (&host, 100);
  g_assert_cmpuint (host.downs, ==, 2);
  host.full = ARENA_PRESSURE_FULL;
  for (unsigned i = 0; i < 1000; i++) { /* the borrowers follow, and it helps nothing */
    host.lent = host.has = host.size.wanted_mib;
    host.programs = (64 << 10) - host.has - (5 << 10);
    step (&host);
  }
  g_assert_cmpuint (host.size.wanted_mib, ==, 0);
}

/* What was promised and not filled is not spare: pressure counts it as used. */
static void
test_promises (void) {
  struct host host = make (64 << 10, 16 << 10, 32 << 10, 4 << 10);

  host.some = 5000;
  host.lent = 32 << 10;
  host.has = 0;
  host.programs = 24 << 10; /* 40 GiB available, of which 32 are promised: as much as the reserve beyond it */
  run (&host, 30);
  g_assert_cmpuint (host.downs, ==, 0);
  host.limits.reserve_mib = 5 << 10;
  run (&host, 9);
  g_assert_cmpuint (host.downs, ==, 1);
  g_assert_cmpuint (host.size.wanted_mib, ==, 28 << 10);
}

/* Random hosts. After any history that ends in calm, it comes to rest: near what there is, and without another change. */
static void
test_random (void) {
  GRand *rand = testing_rand ();
  const unsigned rounds = testing_steps (60);

  for (unsigned round = 0; round < rounds; round++) {
    const uint64_t total = 512 + testing_below (rand, 1 << 20), max = testing_below (rand, 2 * total);
    struct host host = make (total, testing_below (rand, total + 1), max, testing_below (rand, total / 2));
    uint64_t wanted, room, margin;

    for (unsigned i = 0; i < 3000; i++) {
      if (testing_once_in (rand, 20))
        host.programs = testing_below (rand, total + 1);
      if (testing_once_in (rand, 40))
        host.limits.max_mib = testing_below (rand, 2 * total);
      if (testing_once_in (rand, 30)) {
        host.some = (unsigned)testing_below (rand, 10000);
        host.full = (unsigned)testing_below (rand, 1000);
      }
      if (host.lent < host.size.wanted_mib)
        host.lent += testing_below (rand, host.size.wanted_mib - host.lent + 1);
      else if (testing_once_in (rand, 3)) /* late, or never */
        host.lent -= testing_below (rand, host.lent - host.size.wanted_mib + 1);
      if (host.has > host.lent || testing_once_in (rand, 4))
        host.has = testing_below (rand, host.lent + 1);
      step (&host);
      if (testing_once_in (rand, 50))
        host.now += testing_below (rand, 100 * SECOND);
    }
    host.some = host.full = 0;
    host.lent = host.has = 0;
    run (&host, 400);
    wanted = host.size.wanted_mib;
    host.ups = host.downs = 0;
    run (&host, 1000);
    g_assert_cmpuint (host.ups + host.downs, ==, 0);
    margin = arena_margin_mib (&host.limits);
    room = available (&host) > host.limits.reserve_mib ? available (&host) - host.limits.reserve_mib : 0;
    g_assert_cmpuint (wanted + 2 * margin, >=, MIN (room, host.limits.max_mib));
  }
  g_rand_free (rand);
}

/* Another process goes on: what is lent is not called back because that one had not kept the margin. */
static void
test_again (void) {
  struct arena_size size = { 0 };
  const struct arena_limits limits = { 32 << 10, 4 << 10 };

  g_assert_cmpint (arena_size_step (&size, &limits, &(struct arena_sample){ 5, 5 << 10, 10 << 10, 800, 0, 0 }), ==,
                   ARENA_BEGUN);
  g_assert_cmpuint (size.wanted_mib, ==, (10 << 10) + 800);
  size = (struct arena_size){ 0 };
  arena_size_step (&size, &limits, &(struct arena_sample){ 5, 3 << 10, 10 << 10, 800, 0, 0 }); /* into the reserve */
  g_assert_cmpuint (size.wanted_mib, ==, (9 << 10) - 512);
}

/* Shares: never more in sum than there is, each less than a unit below its part. */
static void
test_shares (void) {
  GRand *rand = testing_rand ();

  for (unsigned round = 0; round < testing_steps (3000); round++) {
    uint64_t levels[40], sum = 0, shares = 0, size;
    const unsigned n = 1 + (unsigned)testing_below (rand, G_N_ELEMENTS (levels));

    for (unsigned i = 0; i < n; i++)
      sum += levels[i] = testing_edgy (rand) & ((1u << 26) - 1);
    size = testing_once_in (rand, 2) ? testing_below (rand, sum + 1) : testing_edgy (rand) & ((1u << 26) - 1);
    for (unsigned i = 0; i < n; i++) {
      const uint64_t share = arena_share (levels[i], size, sum);

      g_assert_cmpuint (share, <=, levels[i]);
      shares += share;
    }
    if (size >= sum) {
      g_assert_cmpuint (shares, ==, sum);
    } else {
      g_assert_cmpuint (shares, <=, size);
      g_assert_cmpuint (shares + n, >, size);
    }
  }
  g_rand_free (rand);
}

/* Whatever is said, nothing overflows. */
static void
test_edges (void) {
  GRand *rand = testing_rand ();
  struct arena_size size = { 0 };
  uint64_t now = 0;

  for (unsigned i = 0; i < testing_steps (200000); i++) {
    const struct arena_limits limits = { testing_edgy (rand), testing_edgy (rand) };
    const struct arena_sample sample
        = { now, testing_edgy (rand), testing_edgy (rand), testing_edgy (rand), (unsigned)testing_edgy (rand), 0 };
    const uint64_t sum
        = sample.available_mib + sample.has_mib < sample.has_mib ? UINT64_MAX : sample.available_mib + sample.has_mib;

    arena_size_step (&size, &limits, &sample);
    g_assert_cmpuint (size.wanted_mib, <=, limits.max_mib);
    if (size.wanted_mib)
      g_assert_cmpuint (size.wanted_mib, <=, MAX (sum, limits.reserve_mib));
    now += testing_below (rand, 20000);
  }
  g_rand_free (rand);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/arena-size/begin", test_begin);
  g_test_add_func ("/arena-size/steady", test_steady);
  g_test_add_func ("/arena-size/squeeze", test_squeeze);
  g_test_add_func ("/arena-size/pressure", test_pressure);
  g_test_add_func ("/arena-size/promises", test_promises);
  g_test_add_func ("/arena-size/random", test_random);
  g_test_add_func ("/arena-size/edges", test_edges);
  g_test_add_func ("/arena-size/again", test_again);
  g_test_add_func ("/arena-size/shares", test_shares);
  return g_test_run ();
}
