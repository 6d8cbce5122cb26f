/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What gossip costs and how fast it is, in simulated time: a zone whose hosts change state all the time, with loss, and with
 * hosts that are starved (run for 50–550 ms, then do not for 0.5–8 s). Prints a line per run. Not a test: see --help.
 */
#include "gossip-world.h"

#include <string.h>

#define WARM_MS 60000u    /* until the zone has formed, is quiet, and changes begin to be counted */
#define KILL_AT_MS 90000u /* first host that is killed */
#define KILL_EVERY_MS 6000u
#define LATE_MS 30000u /* a change that is not there by then was lost */

static int hosts = 256, loss = 50, starved = 50, kills = 10, every_ms = 10000, seconds = 180, delay_ms = 10;
static int spread_ms = -1, pushes = -1, own_pushes = -1, late_pushes = -1, sync_ms = -1, recent_ms = -1, alpha = -1, beta = -1,
           k = -1, probe_ms = -1;
static gint64 seed = 1;
static gboolean kinds = FALSE;
static char *rules = NULL;

static const GOptionEntry entries[] = {
  { "hosts", 0, 0, G_OPTION_ARG_INT, &hosts, "in the zone, ≤ 256 (256)", "N" },
  { "loss", 0, 0, G_OPTION_ARG_INT, &loss, "of packets, in permille (50)", "N" },
  { "starved", 0, 0, G_OPTION_ARG_INT, &starved, "hosts, in permille (50)", "N" },
  { "kills", 0, 0, G_OPTION_ARG_INT, &kills, "hosts killed, one each 6 s (10)", "N" },
  { "every", 0, 0, G_OPTION_ARG_INT, &every_ms, "each host changes state, in ms (10000); 0: never", "MS" },
  { "seconds", 0, 0, G_OPTION_ARG_INT, &seconds, "simulated, ≥ 150 (180)", "N" },
  { "delay", 0, 0, G_OPTION_ARG_INT, &delay_ms, "of packets, 1 to that (10)", "MS" },
  { "kinds", 0, 0, G_OPTION_ARG_NONE, &kinds, "print what went out, by kind of packet, per host and second", NULL },
  { "seed", 0, 0, G_OPTION_ARG_INT64, &seed, "of everything (1)", "N" },
  { "rules", 0, 0, G_OPTION_ARG_STRING, &rules,
    "ours; swim, lifeguard: probing and suspicion as in the papers (memberlist's α, β, K)", "NAME" },
  { "spread-ms", 0, 0, G_OPTION_ARG_INT, &spread_ms, "here and below: a rule's number", "MS" },
  { "pushes", 0, 0, G_OPTION_ARG_INT, &pushes, "", "N" },
  { "late-pushes", 0, 0, G_OPTION_ARG_INT, &late_pushes, "", "N" },
  { "own-pushes", 0, 0, G_OPTION_ARG_INT, &own_pushes, "", "N" },
  { "sync-ms", 0, 0, G_OPTION_ARG_INT, &sync_ms, "", "MS" },
  { "recent-ms", 0, 0, G_OPTION_ARG_INT, &recent_ms, "", "MS" },
  { "probe-ms", 0, 0, G_OPTION_ARG_INT, &probe_ms, "", "MS" },
  { "alpha", 0, 0, G_OPTION_ARG_INT, &alpha, "permille", "N" },
  { "beta", 0, 0, G_OPTION_ARG_INT, &beta, "", "N" },
  { "confirmations", 0, 0, G_OPTION_ARG_INT, &k, "", "N" },
  { NULL, 0, 0, 0, NULL, NULL, NULL },
};

struct scale {
  uint64_t *changed_at; /* per host: when it said what it says now */
  uint64_t *version;
  gboolean *counted;
  uint64_t *killed_at;          /* 0: lives */
  GArray *spreads, *detections; /* ms */
  uint64_t records, false_deaths, false_by_starved;
};

static int
by_value (gconstpointer a, gconstpointer b) {
  const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

  return x < y ? -1 : x > y;
}

static uint64_t
quantile (GArray *values, unsigned permille) {
  if (!values->len)
    return 0;
  g_array_sort (values, by_value);
  return g_array_index (values, uint64_t, MIN (values->len - 1, (guint)((uint64_t)values->len * permille / 1000)));
}

static gboolean
is_starved (const struct gossip_host *host) {
  return host->starved_until > 0;
}

static void
changed (struct gossip_world *world, struct gossip_host *host, uint32_t about, const struct gossip_member *member) {
  struct scale *scale = world->data;
  const uint64_t stamp = (uint64_t)member->record->incarnation << 32 | member->record->version;

  if (stamp != host->seen[about] && scale->counted[about] && stamp == scale->version[about] && !is_starved (host)
      && host->fate == HOST_RUNS) {
    const uint64_t took = world->now - scale->changed_at[about];

    g_array_append_val (scale->spreads, took);
  }
  if (member->state != GOSSIP_DEAD || host->states[about] == GOSSIP_DEAD || host->fate != HOST_RUNS)
    return;
  if (world->hosts[about].fate == HOST_KILLED) {
    const uint64_t took = world->now - scale->killed_at[about];

    if (!is_starved (host))
      g_array_append_val (scale->detections, took);
  } else if (!is_starved (&world->hosts[about]) && world->now > WARM_MS) {
    if (is_starved (host))
      scale->false_by_starved++;
    else
      scale->false_deaths++;
  }
}

static double
per_second (const struct gossip_world *world, uint64_t value) {
  return (double)value * 1000 / (double)(world->now - WARM_MS - 20000) / world->plan.hosts;
}

/* The hosts change one after the other, evenly; after each, time goes on. */
static void
drive (struct gossip_world *world, struct scale *scale) {
  const uint64_t end = (uint64_t)seconds * 1000, stop = end - LATE_MS;
  uint64_t bytes = 0, receivers = 0, changes = 0, expected = 0, deadliest = KILL_AT_MS;
  uint32_t number = 0, killed = 0;
  double floor_bytes, sent;

  gossip_world_run (world, WARM_MS);
  for (uint32_t i = 0; i < world->plan.hosts; i++) /* spread over the zone, not the first ones */
    if (i * (uint64_t)starved / 1000 != (i + 1) * (uint64_t)starved / 1000) {
      world->hosts[i].starved_until = UINT64_MAX;
      gossip_world_pause (world, &world->hosts[i], 500 + gossip_world_below (world, 7500));
    }
  for (uint64_t at = WARM_MS; at < stop; at += 1) {
    gossip_world_run (world, at);
    if (at == WARM_MS + 20000)
      for (uint32_t i = 0; i < world->plan.hosts; i++)
        world->hosts[i].bytes = 0;
    if (at == WARM_MS + 20000)
      memset (world->sent, 0, sizeof world->sent);
    if (killed < (uint32_t)kills && at == deadliest) {
      struct gossip_host *host = &world->hosts[world->plan.hosts - 1 - killed * 3 % world->plan.hosts];

      deadliest += KILL_EVERY_MS;
      killed++;
      if (host->fate == HOST_RUNS) {
        scale->killed_at[host->number] = at;
        gossip_world_kill (world, host);
      }
    }
    while (every_ms && (at - WARM_MS) * world->plan.hosts / (uint64_t)every_ms > changes) {
      struct gossip_host *host = &world->hosts[number++ % world->plan.hosts];

      changes++;
      if (host->fate != HOST_RUNS || host->paused_until)
        continue;
      scale->counted[host->number] = at >= WARM_MS + 20000;
      scale->changed_at[host->number] = at;
      gossip_world_change (world, host);
      scale->version[host->number]
          = (uint64_t)gossip_own (host->gossip)->incarnation << 32 | gossip_own (host->gossip)->version;
      scale->records += scale->counted[host->number];
      for (uint32_t i = 0; scale->counted[host->number] && i < world->plan.hosts; i++)
        expected += i != host->number && world->hosts[i].fate == HOST_RUNS && !is_starved (&world->hosts[i]);
    }
  }
  for (uint32_t i = 0; i < world->plan.hosts; i++)
    if (!is_starved (&world->hosts[i]) && world->hosts[i].fate == HOST_RUNS) {
      bytes += world->hosts[i].bytes;
      receivers++;
    }
  for (unsigned kind = GOSSIP_PING; kinds && kind <= GOSSIP_WANT; kind++)
    g_print ("  kind %u: %.2f packets, %.0f bytes, %.2f records\n", kind, per_second (world, world->sent[kind].packets),
             per_second (world, world->sent[kind].bytes), per_second (world, world->sent[kind].records));
  gossip_world_run (world, end);
  sent = (double)bytes / (double)receivers * 1000 / (double)(stop - WARM_MS - 20000);
  floor_bytes = (double)scale->records * GOSSIP_RECORD_BYTES * 1000 / (double)(stop - WARM_MS - 20000);
  g_print ("hosts %u rules %s loss %d starved %d: ", world->plan.hosts, rules ? rules : "ours", loss, starved);
  if (scale->records)
    g_print ("spread p50 %" PRIu64 " p99 %" PRIu64 " p99.9 %" PRIu64 " ms (%.3f%% arrived), ", quantile (scale->spreads, 500),
             quantile (scale->spreads, 990), quantile (scale->spreads, 999),
             100.0 * (double)scale->spreads->len / (double)MAX (expected, 1));
  g_print ("detection p50 %" PRIu64 " p99 %" PRIu64 " max %" PRIu64 " ms (%u), false %" PRIu64 " (by starved %" PRIu64
           "), %.0f B/s per host",
           quantile (scale->detections, 500), quantile (scale->detections, 990), quantile (scale->detections, 1000),
           scale->detections->len, scale->false_deaths, scale->false_by_starved, sent);
  if (scale->records)
    g_print (" = %.2f x floor %.0f", sent / floor_bytes, floor_bytes);
  g_print ("\n");
}

static void
set_rules (struct gossip_rules *set) {
  *set = gossip_rules_default;
  if (rules && strcmp (rules, "ours") != 0) {
    /* memberlist's for a LAN: ack 500 ms, α 4 (× log10), β 6, K = suspicion multiple − 2; SWIM alone: a fixed suspicion */
    set->ack_ms = 500;
    set->suspicion_permille = 4000;
    set->help_to_confirm = false;
    set->confirmations = 2;
    if (strcmp (rules, "swim") == 0) {
      set->confirmations = 0;
      set->suspicion_longest = 1;
      set->health = set->buddy = false;
    } else if (strcmp (rules, "lifeguard") != 0)
      g_error ("no rules are named %s", rules);
  }
#define SET(field, value)                                                                                                      \
  if ((value) >= 0)                                                                                                            \
    set->field = (uint32_t)(value);
  SET (spread_ms, spread_ms)
  SET (pushes, pushes)
  SET (late_pushes, late_pushes)
  SET (own_pushes, own_pushes)
  SET (sync_ms, sync_ms)
  SET (recent_ms, recent_ms)
  SET (probe_ms, probe_ms)
  SET (suspicion_permille, alpha)
  SET (suspicion_longest, beta)
  SET (confirmations, k)
#undef SET
}

int
main (int argc, char **argv) {
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  struct gossip_world world = { 0 };
  struct gossip_plan plan = { 0 };
  struct scale scale = { 0 };

  g_option_context_set_summary (context, "Simulates a zone and prints how fast news and deaths spread, and what it costs.");
  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || hosts < 3 || hosts > (int)WORLD_HOSTS_MAX || seconds < 150) {
    g_printerr ("gossip-scale: error: %s\n", error ? error->message : "--hosts is 3 to 256, --seconds at least 150");
    return 2;
  }
  plan = (struct gossip_plan){ .seed = (uint64_t)seed,
                               .hosts = (uint32_t)hosts,
                               .loss = (uint32_t)loss,
                               .delay_ms = (uint32_t)delay_ms,
                               .calm_at = UINT64_MAX / 2,
                               .end_at = UINT64_MAX / 2 };
  set_rules (&plan.rules);
  scale.changed_at = g_new0 (uint64_t, (gsize)hosts);
  scale.version = g_new0 (uint64_t, (gsize)hosts);
  scale.counted = g_new0 (gboolean, (gsize)hosts);
  scale.killed_at = g_new0 (uint64_t, (gsize)hosts);
  scale.spreads = g_array_new (FALSE, FALSE, sizeof (uint64_t));
  scale.detections = g_array_new (FALSE, FALSE, sizeof (uint64_t));
  world.data = &scale;
  world.changed = changed;
  gossip_world_init (&world, &plan);
  drive (&world, &scale);
  gossip_world_clear (&world);
  g_array_unref (scale.spreads);
  g_array_unref (scale.detections);
  g_free (scale.changed_at);
  g_free (scale.version);
  g_free (scale.counted);
  g_free (scale.killed_at);
  return 0;
}
