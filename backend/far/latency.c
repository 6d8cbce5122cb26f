/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/latency.h"
#include "io/json-members.h"

guint
latency_bucket (gint64 us) {
  guint log2, b;

  if (us < 1)
    return 0;
  log2 = 63 - (guint)__builtin_clzll ((guint64)us);
  /* 2^(log2 + 1/2) is about 1.414 × 2^log2 */
  b = 2 * log2 + ((guint64)us * 1000 < (1414ull << log2) ? 1 : 2);
  return MIN (b, FAR_LATENCY_BUCKETS - 1);
}

/* The time below which that share of the requests was answered. */
static guint64
percentile (const guint64 *buckets, guint permille) {
  guint64 sum = 0, below = 0, wanted;

  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++)
    sum += buckets[b];
  wanted = (sum * permille + 999) / 1000;
  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++) {
    below += buckets[b];
    if (below >= wanted)
      return b % 2 ? (1414ull << (b / 2)) / 1000 : 1ull << (b / 2);
  }
  return 1ull << (FAR_LATENCY_BUCKETS / 2);
}

void
latency_add (JsonBuilder *builder, const char *name, const guint64 buckets[FAR_LATENCY_BUCKETS]) {
  gboolean any = FALSE;

  for (guint b = 0; b < FAR_LATENCY_BUCKETS; b++)
    any = any || buckets[b];
  json_builder_set_member_name (builder, name);
  json_builder_begin_object (builder);
  add_int_or_null (builder, "p50", any, percentile (buckets, 500));
  add_int_or_null (builder, "p95", any, percentile (buckets, 950));
  add_int_or_null (builder, "p99", any, percentile (buckets, 990));
  json_builder_end_object (builder);
}
