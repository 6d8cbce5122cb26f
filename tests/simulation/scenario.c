/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is to happen: made from a seed, or read from a file. A file has a line for each setting ("donors 2") and each fault
 * ("at 12000 kill-donor 0 0 0": when, what, a, b, ms); # begins a comment.
 */
#include "world.h"

#include <string.h>

const char *const fault_names[FAULTS] = {
  [FAULT_KILL_DONOR] = "kill-donor",
  [FAULT_LOSE_ARENA] = "lose-arena",
  [FAULT_STOP_DONOR] = "stop-donor",
  [FAULT_KILL_WORKER] = "kill-worker",
  [FAULT_STOP_VM] = "stop-vm",
  [FAULT_END_VM] = "end-vm",
  [FAULT_DROP_VM] = "drop-vm",
  [FAULT_REBOOT] = "reboot",
  [FAULT_CUT] = "cut",
  [FAULT_CUT_THERE] = "cut-there",
  [FAULT_CUT_BACK] = "cut-back",
  [FAULT_OUTAGE] = "outage",
  [FAULT_BREAK] = "break",
  [FAULT_REVOKE] = "revoke",
  [FAULT_FORGET] = "forget",
  [FAULT_LIMIT] = "limit",
  [FAULT_CRASH] = "crash",
};

const char *const stores[STORES] = {
  "lease-served",      "lease-seen",        "lease-number",       "lease-made",         "lease-epoch",
  "lease-seq-anew",    "lease-session",     "lease-level",        "lease-seq",          "lease-taken",
  "lease-dirty",       "lease-zeroed",      "lease-ending",       "lease-ended",        "lease-revoke",
  "lease-revoke-over", "lease-next-revoke", "lease-revoke-level", "lease-revoke-until",
};

/* ---- from a seed ---- */

enum character { MIXED, OUTAGE, DESTRUCTIVE, SQUEEZED, LIARS, OLD_AGE, CHARACTERS };

static enum fault
some_fault (GRand *rand, enum character character) {
  static const enum fault harmless[] = { FAULT_KILL_DONOR, FAULT_STOP_DONOR, FAULT_KILL_WORKER, FAULT_STOP_VM,    FAULT_CUT,
                                         FAULT_CUT_THERE,  FAULT_CUT_BACK,   FAULT_BREAK,       FAULT_REVOKE,     FAULT_LIMIT,
                                         FAULT_CRASH,      FAULT_CRASH,      FAULT_CRASH,       FAULT_KILL_WORKER };
  static const enum fault destructive[] = { FAULT_LOSE_ARENA, FAULT_END_VM, FAULT_DROP_VM, FAULT_REBOOT, FAULT_FORGET };

  if (character == SQUEEZED && g_rand_int_range (rand, 0, 2))
    return g_rand_int_range (rand, 0, 4) ? FAULT_REVOKE : FAULT_LIMIT;
  if ((character == DESTRUCTIVE || character == OLD_AGE) && g_rand_int_range (rand, 0, 3) == 0)
    return destructive[g_rand_int_range (rand, 0, G_N_ELEMENTS (destructive))];
  return harmless[g_rand_int_range (rand, 0, G_N_ELEMENTS (harmless))];
}

static void
add_fault (GRand *rand, struct plan *plan, enum fault what) {
  struct plan_fault fault = { .fault = what, .at = 2000 + (uint64_t)g_rand_int_range (rand, 0, (int)plan->calm_at - 2000) };

  fault.a = (uint32_t)g_rand_int_range (rand, 0, (int)plan->donors);
  fault.b = (uint32_t)g_rand_int_range (rand, 0, 16);
  fault.ms = (uint64_t)g_rand_int_range (rand, 0, g_rand_int_range (rand, 0, 3) ? 2000 : 9000);
  switch (what) {
  case FAULT_CUT:
  case FAULT_CUT_THERE:
  case FAULT_CUT_BACK:
  case FAULT_BREAK:
    fault.b = fault.a;
    fault.a = (uint32_t)g_rand_int_range (rand, 0, (int)plan->hosts);
    break;
  case FAULT_REBOOT:
    fault.a = (uint32_t)g_rand_int_range (rand, 0, (int)plan->hosts);
    break;
  case FAULT_KILL_WORKER:
  case FAULT_STOP_VM:
  case FAULT_END_VM:
  case FAULT_DROP_VM:
    fault.a = (uint32_t)g_rand_int_range (rand, 0, 16);
    break;
  case FAULT_OUTAGE:
    fault.ms = g_rand_int_range (rand, 0, 2) ? 10 * KEEP_MS : LEASE_DONOR_DETACHED_MS + 6000;
    break;
  case FAULT_REVOKE:
    fault.ms = (uint64_t)g_rand_int_range (rand, 0, (int)plan->places);
    break;
  case FAULT_LIMIT:
    fault.ms = (uint64_t)g_rand_int_range (rand, 0, (int)plan->blocks + 1);
    break;
  case FAULT_CRASH:
    fault.b = g_rand_int_range (rand, 0, 2) ? STORE_NAMED + (uint32_t)g_rand_int_range (rand, 0, STORES)
                                            : 1 + (uint32_t)g_rand_int_range (rand, 0, g_rand_int_range (rand, 0, 2) ? 4 : 60);
    break;
  default:
    break;
  }
  g_array_append_val (plan->faults, fault);
}

void
plan_make (struct plan *plan, uint64_t seed) {
  const guint32 seeds[2] = { (guint32)seed, (guint32)(seed >> 32) };
  g_autoptr (GRand) rand = g_rand_new_with_seed_array (seeds, 2);
  const enum character character = (enum character)g_rand_int_range (rand, 0, CHARACTERS);
  const int n = g_rand_int_range (rand, 0, 3) ? g_rand_int_range (rand, 0, 25) : g_rand_int_range (rand, 0, 60);

  *plan = (struct plan){
    .seed = seed,
    .donors = (uint32_t)g_rand_int_range (rand, 1, DONORS_MAX),
    .hosts = (uint32_t)g_rand_int_range (rand, 1, HOSTS_MAX + 1),
    .vms = (uint32_t)g_rand_int_range (rand, 1, VMS_MAX),
    .places = (uint32_t)g_rand_int_range (rand, 2, PLACES_MAX + 1),
    .blocks = (uint32_t)g_rand_int_range (rand, 2, BLOCKS_MAX + 1),
    .loss = g_rand_int_range (rand, 0, 3) ? 0 : (uint32_t)g_rand_int_range (rand, 0, 40),
    .late = g_rand_int_range (rand, 0, 2) ? 0 : (uint32_t)g_rand_int_range (rand, 0, 60),
    .again = g_rand_int_range (rand, 0, 2) ? 0 : (uint32_t)g_rand_int_range (rand, 0, 300),
    .slow_fence = g_rand_int_range (rand, 0, 3) == 0,
    .calm_at = (uint64_t)g_rand_int_range (rand, 5000, 35000),
  };
  plan->faults = g_array_new (FALSE, TRUE, sizeof (struct plan_fault));
  if (character == LIARS)
    plan->liars = (uint32_t)g_rand_int_range (rand, 1, 3);
  if (character == OLD_AGE)
    plan->ttl_ms = (uint64_t)g_rand_int_range (rand, 20000, 60000);
  if (character == OUTAGE || (character != MIXED && g_rand_int_range (rand, 0, 4) == 0))
    add_fault (rand, plan, FAULT_OUTAGE);
  for (int i = 0; i < n; i++)
    add_fault (rand, plan, some_fault (rand, character));
}

void
plan_clear (struct plan *plan) {
  g_clear_pointer (&plan->faults, g_array_unref);
}

/* ---- from a file ---- */

#define SETTINGS(plan)                                                                                                         \
  {                                                                                                                            \
    { "donors", &(plan)->donors, 1, DONORS_MAX }, { "hosts", &(plan)->hosts, 1, HOSTS_MAX },                                   \
        { "vms", &(plan)->vms, 1, VMS_MAX }, { "places", &(plan)->places, 1, PLACES_MAX },                                     \
        { "blocks", &(plan)->blocks, 1, BLOCKS_MAX }, { "loss", &(plan)->loss, 0, 1000 }, { "late", &(plan)->late, 0, 1000 },  \
        { "again", &(plan)->again, 0, 1000 }, { "slow-fence", &(plan)->slow_fence, 0, 1 }, { "liars", &(plan)->liars, 0, 2 },  \
  }

struct setting {
  const char *name;
  uint32_t *value;
  uint32_t least, most;
};

char *
plan_write (const struct plan *plan) {
  struct plan copy = *plan;
  const struct setting settings[] = SETTINGS (&copy);
  GString *text = g_string_new (NULL);

  g_string_append_printf (text, "seed %" G_GUINT64_FORMAT "\nttl-ms %" G_GUINT64_FORMAT "\ncalm-at %" G_GUINT64_FORMAT "\n",
                          plan->seed, plan->ttl_ms, plan->calm_at);
  for (guint i = 0; i < G_N_ELEMENTS (settings); i++)
    g_string_append_printf (text, "%s %u\n", settings[i].name, *settings[i].value);
  for (guint i = 0; i < plan->faults->len; i++) {
    const struct plan_fault *fault = &g_array_index (plan->faults, struct plan_fault, i);

    g_string_append_printf (text, "at %" G_GUINT64_FORMAT " %s %u %u %" G_GUINT64_FORMAT "\n", fault->at,
                            fault_names[fault->fault], fault->a, fault->b, fault->ms);
  }
  return g_string_free (text, FALSE);
}

static gboolean
read_fault (struct plan *plan, char **words) {
  struct plan_fault fault = { 0 };
  guint64 a, b;

  if (g_strv_length (words) != 6)
    return FALSE;
  while (fault.fault < FAULTS && strcmp (fault_names[fault.fault], words[2]) != 0)
    fault.fault++;
  if (fault.fault == FAULTS || !g_ascii_string_to_unsigned (words[1], 10, 0, G_MAXUINT64, &fault.at, NULL)
      || !g_ascii_string_to_unsigned (words[3], 10, 0, 1000, &a, NULL)
      || !g_ascii_string_to_unsigned (words[4], 10, 0, 1000, &b, NULL)
      || !g_ascii_string_to_unsigned (words[5], 10, 0, G_MAXUINT64, &fault.ms, NULL))
    return FALSE;
  fault.a = (uint32_t)a;
  fault.b = (uint32_t)b;
  g_array_append_val (plan->faults, fault);
  return TRUE;
}

static gboolean
read_setting (struct plan *plan, char **words) {
  const struct setting settings[] = SETTINGS (plan);
  guint64 value;

  if (g_strv_length (words) != 2 || !g_ascii_string_to_unsigned (words[1], 10, 0, G_MAXUINT64, &value, NULL))
    return FALSE;
  if (strcmp (words[0], "seed") == 0)
    plan->seed = value;
  else if (strcmp (words[0], "ttl-ms") == 0)
    plan->ttl_ms = value;
  else if (strcmp (words[0], "calm-at") == 0)
    plan->calm_at = value;
  else
    for (guint i = 0;; i++) {
      if (i == G_N_ELEMENTS (settings))
        return FALSE;
      if (strcmp (words[0], settings[i].name) != 0)
        continue;
      if (value < settings[i].least || value > settings[i].most)
        return FALSE;
      *settings[i].value = (uint32_t)value;
      break;
    }
  return TRUE;
}

gboolean
plan_read (struct plan *plan, const char *path, GError **error) {
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (path, &text, NULL, error))
    return FALSE;
  *plan = (struct plan){ .donors = 1, .hosts = 1, .vms = 1, .places = 4, .blocks = 8, .calm_at = 10000 };
  plan->faults = g_array_new (FALSE, TRUE, sizeof (struct plan_fault));
  lines = g_strsplit (text, "\n", -1);
  for (guint i = 0; lines[i]; i++) {
    g_auto (GStrv) words = NULL;

    *strchrnul (lines[i], '#') = '\0';
    g_strstrip (lines[i]);
    if (!*lines[i])
      continue;
    words = g_strsplit (lines[i], " ", -1);
    if (strcmp (words[0], "at") == 0 ? read_fault (plan, words) : read_setting (plan, words))
      continue;
    g_set_error (error, G_FILE_ERROR, G_FILE_ERROR_INVAL, "%s:%u: no setting or fault: %s", path, i + 1, lines[i]);
    plan_clear (plan);
    return FALSE;
  }
  return TRUE;
}
