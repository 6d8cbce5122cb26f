/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes as operators write them. */
#include "core/size.h"

#include "testing.h"

static void
test_good (void) {
  static const struct {
    const char *text;
    uint64_t bytes;
  } cases[] = {
    { "0", 0 },
    { "4096", 4096 },
    { "4096B", 4096 },
    { "007", 7 },
    { "1K", 1024 },
    { "1k", 1024 },
    { "2MiB", 2ull << 20 },
    { "2MB", 2ull << 20 },
    { "2miB", 2ull << 20 },
    { "64G", 64ull << 30 },
    { "1.5T", 3ull << 39 },
    { "0.5K", 512 },
    { "1.125K", 1152 },
    { "1.0", 1 }, /* a fraction that is none */
    { "0.001T", (1ull << 40) / 1000 },
    { "18446744073709551615", UINT64_MAX },
    { "18014398509481983K", UINT64_MAX - 1023 },
    { "16777215T", 16777215ull << 40 },
    { "16777215.999T", (16777215ull << 40) + (999ull << 40) / 1000 },
    { "0.000", 0 },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    uint64_t bytes = 12345;

    g_test_message ("%s", cases[i].text);
    g_assert_true (size_parse (cases[i].text, &bytes));
    g_assert_cmpuint (bytes, ==, cases[i].bytes);
  }
}

static void
test_bad (void) {
  static const char *const texts[] = {
    "", " ", "G", "B", "-1", "+1", " 1", "1 ", "1 G", "1GG", "1Gi", "1iB", "1GIB", "1Gb", "1GBs", "1X", "1P", "0x10", "1e3", ".5G",
    "1.G", "1.", "1.5", "1.5B", "1.2345G", "1,5G", "1..5G",
    "18446744073709551616", "99999999999999999999999999", "184467440737095516150",
    "18014398509481984K", "17179869184G", "16777216T", "16777216.5T",
  };

  for (size_t i = 0; i < G_N_ELEMENTS (texts); i++) {
    uint64_t bytes = 12345;

    g_test_message ("“%s”", texts[i]);
    g_assert_false (size_parse (texts[i], &bytes));
    g_assert_cmpuint (bytes, ==, 12345);
  }
}

static void
test_random (void) {
  g_autoptr (GRand) rand = testing_rand ();
  static const char letters[] = "KMGT";

  for (unsigned step = 0, steps = testing_steps (100000); step < steps; step++) {
    const uint64_t number = testing_edgy (rand);
    const unsigned unit = (unsigned)testing_below (rand, 4), shift = 10 * (unit + 1);
    const char *rest = testing_once_in (rand, 2) ? "iB" : "";
    g_autofree char *text = g_strdup_printf ("%" G_GUINT64_FORMAT "%c%s", number, letters[unit], rest);
    uint64_t bytes = 12345;
    const bool fits = number <= UINT64_MAX >> shift;

    g_assert_cmpint (size_parse (text, &bytes), ==, fits);
    g_assert_cmpuint (bytes, ==, fits ? number << shift : 12345);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/size/what operators write is understood", test_good);
  g_test_add_func ("/size/anything else is refused", test_bad);
  g_test_add_func ("/size/whole numbers of any size are exact or refused", test_random);
  return g_test_run ();
}
