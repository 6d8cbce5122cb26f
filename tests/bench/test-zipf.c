/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The paging benchmarks' workload is what it says: its distribution, its keys, its values, its clock's sums. */
#include "testing.h"
#include "zipf.h"

#include <lz4.h>
#include <math.h>
#include <stdlib.h>

#define VALUES 4096u

static void
begin (struct zipf *zipf, uint32_t n) {
  zipf_init (zipf, n, g_malloc (zipf_table_bytes (n)));
}

static void
end (struct zipf *zipf) {
  g_free (zipf->threshold);
}

/* Every rank comes as often as its share says. */
static void
test_shares (void) {
  g_autoptr (GRand) rand = testing_rand ();
  const uint32_t draws = testing_steps (8u << 20);
  guint *counts = g_new0 (guint, VALUES);
  uint64_t state = testing_below (rand, UINT64_MAX - 1) + 1;
  struct zipf zipf;
  double sum = 0, chi = 0;

  begin (&zipf, VALUES);
  for (uint32_t i = 0; i < draws; i++)
    counts[zipf_next (&zipf, &state)]++;
  for (uint32_t i = 0; i < VALUES; i++)
    sum += pow (i + 1, -ZIPF_EXPONENT);
  for (uint32_t i = 0; i < VALUES; i++) {
    const double share = pow (i + 1, -ZIPF_EXPONENT) / sum * draws;
    const double off = counts[zipf_hash (i, VALUES)] - share;

    chi += off * off / share;
  }
  g_test_message ("chi square %.0f for %u ranks", chi, VALUES);
  /* VALUES on average, ± √(2 VALUES) */
  g_assert_cmpfloat (fabs (chi - VALUES), <, 8 * sqrt (2.0 * VALUES));
  g_free (counts);
  end (&zipf);
}

/* Keys are values one to one, and those that are wanted most lie nowhere in particular: not two of the first 64 in one page
 * more often than by chance. */
static void
test_keys (void) {
  for (uint32_t n = 2; n <= 1u << 20; n <<= 1) {
    g_autofree guint8 *seen = g_new0 (guint8, n);

    for (uint32_t rank = 0; rank < n; rank++) {
      const uint32_t i = zipf_hash (rank, n);

      g_assert_cmpuint (i, <, n);
      g_assert_cmpuint (seen[i]++, ==, 0);
    }
  }
  {
    g_autoptr (GHashTable) pages = g_hash_table_new (NULL, NULL);

    for (uint32_t rank = 0; rank < 64; rank++)
      g_hash_table_add (pages, GUINT_TO_POINTER (zipf_hash (rank, 1u << 17) / (4096 / ZIPF_VALUE_BYTES) + 1));
    g_assert_cmpuint (g_hash_table_size (pages), >=, 60);
  }
}

static void
test_values (void) {
  g_autofree uint8_t *values = g_malloc (VALUES * (size_t)ZIPF_VALUE_BYTES);
  g_autofree char *packed = g_malloc ((gsize)LZ4_compressBound (4096));
  g_autoptr (GRand) rand = testing_rand ();
  uint64_t state = 1;
  gsize sum = 0;
  struct zipf zipf;

  begin (&zipf, VALUES);
  zipf_fill (values, VALUES);
  for (unsigned i = 0; i < VALUES * 20; i++)
    g_assert_true (zipf_operation (&zipf, values, &state));
  for (uint32_t i = 0; i < VALUES; i++) {
    uint8_t *value = values + i * (size_t)ZIPF_VALUE_BYTES;
    const gsize bit = testing_below (rand, ZIPF_VALUE_BYTES * 8);

    g_assert_true (zipf_check (value, i));
    g_assert_false (zipf_check (value, i ^ 1)); /* somebody else's */
    value[bit / 8] ^= (uint8_t)(1u << bit % 8);
    g_assert_false (zipf_check (value, i));
    value[bit / 8] ^= (uint8_t)(1u << bit % 8);
  }
  for (gsize at = 0; at < VALUES * (gsize)ZIPF_VALUE_BYTES; at += 4096)
    sum += (gsize)LZ4_compress_default ((const char *)values + at, packed, 4096, LZ4_compressBound (4096));
  g_test_message ("packed to %.3f", (double)sum / VALUES / ZIPF_VALUE_BYTES);
  g_assert_cmpfloat ((double)sum / VALUES / ZIPF_VALUE_BYTES, <, 0.36);
  g_assert_cmpfloat ((double)sum / VALUES / ZIPF_VALUE_BYTES, >, 0.30);
  end (&zipf);
}

static void
test_times (void) {
  struct zipf_times times = { 0 };

  g_assert_cmpfloat (zipf_times_at (&times, 0.5), ==, 0);
  for (uint64_t ns = 1; ns <= 1000000; ns++)
    zipf_times_add (&times, ns);
  g_assert_cmpuint (times.count, ==, 1000000);
  g_assert_cmpuint (times.sum_ns, ==, 500000500000);
  for (double quantile = 0.001; quantile < 1; quantile += 0.037)
    g_assert_cmpfloat (fabs (zipf_times_at (&times, quantile) / (quantile * 1e6) - 1), <, 1.0 / ZIPF_STEPS);
  zipf_times_add (&times, 0);
  zipf_times_add (&times, UINT64_MAX);
  g_assert_cmpfloat (zipf_times_at (&times, 1), >, 0);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/zipf/shares", test_shares);
  g_test_add_func ("/zipf/keys", test_keys);
  g_test_add_func ("/zipf/values", test_values);
  g_test_add_func ("/zipf/times", test_times);
  return g_test_run ();
}
