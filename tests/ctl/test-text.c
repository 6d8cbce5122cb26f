/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "testing.h"
#include "ctl/text.h"

#include <string.h>

static void
must_escape (const char *text, const char *expected) {
  g_autofree char *clean = ctl_escape (text);

  g_assert_cmpstr (clean, ==, expected);
}

static void
escapes_what_moves_the_cursor (void) {
  must_escape ("", "");
  must_escape ("plain vm-1", "plain vm-1");
  must_escape ("Größe 大 é", "Größe 大 é");
  must_escape ("a\nb\tc\rd", "a\\nb\\tc\\x0dd");
  must_escape ("\033[2Jred", "\\x1b[2Jred");
  must_escape ("\302\2332J", "\\u009b2J");       /* CSI in one character */
  must_escape ("\342\200\256txt", "\\u202etxt"); /* right to left from here */
  must_escape ("a\342\200\250b", "a\\u2028b");
  must_escape ("\177", "\\x7f");
}

static void
escapes_what_is_no_utf8 (void) {
  must_escape ("\377\376", "\\xff\\xfe");
  must_escape ("a\303", "a\\xc3");
  must_escape ("\300\200", "\\xc0\\x80");
  must_escape ("\355\240\200", "\\xed\\xa0\\x80"); /* a surrogate */
}

/* Whatever comes in, what comes out is UTF-8 without control characters. */
static void
escapes_anything (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned step = 0; step < testing_steps (20000); step++) {
    char bytes[16] = { 0 };
    g_autofree char *clean = NULL;

    for (unsigned i = 0; i < sizeof bytes - 1; i++)
      bytes[i] = (char)testing_below (rand, 256);
    clean = ctl_escape (bytes);
    g_assert_true (g_utf8_validate (clean, -1, NULL));
    for (const char *at = clean; *at; at = g_utf8_next_char (at))
      g_assert_false (g_unichar_iscntrl (g_utf8_get_char (at)));
    g_assert_cmpint (text_width (clean), >=, 0);
  }
}

static void
counts_columns (void) {
  g_assert_cmpint (text_width (""), ==, 0);
  g_assert_cmpint (text_width ("abc"), ==, 3);
  g_assert_cmpint (text_width ("äöü"), ==, 3);
  g_assert_cmpint (text_width ("大きい"), ==, 6);
  g_assert_cmpint (text_width ("e\314\201"), ==, 1); /* e and a combining accent */
}

static void
writes_sizes (void) {
  static const struct {
    guint64 bytes;
    const char *exact, *rounded;
  } cases[] = {
    { 0, "0", "0" },
    { 1, "1", "1" },
    { 1023, "1023", "1023" },
    { 1024, "1K", "1K" },
    { 2ull << 20, "2M", "2M" },
    { 1022ull << 20, "1022M", "1022M" },
    { 1ull << 30, "1G", "1G" },
    { 3ull << 29, "1536M", "1.5G" },
    { 33ull << 30, "33G", "33G" },
    { (33ull << 30) + (200ull << 20), "33992M", "33.2G" },
    { 1ull << 40, "1T", "1T" },
    { (1ull << 40) - 1, "1099511627775", "1024G" },
    { 9999ull << 40, "9999T", "9999T" },
    { G_MAXUINT64, "18446744073709551615", "16777216T" },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *exact = text_size (cases[i].bytes), *rounded = text_size_short (cases[i].bytes);

    g_assert_cmpstr (exact, ==, cases[i].exact);
    g_assert_cmpstr (rounded, ==, cases[i].rounded);
  }
}

static void
writes_ages (void) {
  static const struct {
    guint64 ms;
    const char *text;
  } cases[] = {
    { 0, "0 s" },       { 59999, "59 s" },     { 60000, "1 min" },      { 3599999, "59 min" },
    { 3600000, "1 h" }, { 172799999, "47 h" }, { 172800000, "2 days" }, { G_MAXUINT64, "213503982334 days" },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *text = text_age (cases[i].ms);

    g_assert_cmpstr (text, ==, cases[i].text);
  }
}

static void
writes_plainly (void) {
  g_autofree char *plain = text_plain ("ssh host domybsctl … → “x” größe");

  g_assert_cmpstr (plain, ==, "ssh host domybsctl ... -> 'x' größe");
}

static void
aligns_tables (void) {
  static const char *const heads[] = { "NAME", ">SIZE", "NOTE", NULL };
  g_autoptr (TextTable) table = text_table_new (heads);
  g_autofree char *whole = NULL, *cut = NULL;

  text_table_add (table, "大", "1G", "", NULL);
  text_table_add (table, "a\nb", "12.5G", "x", NULL);
  g_assert_cmpuint (text_table_rows (table), ==, 2);
  whole = text_table_format (table, 0);
  g_assert_cmpstr (whole, ==,
                   "NAME   SIZE  NOTE\n"
                   "大       1G\n"
                   "a\\nb  12.5G  x\n");
  cut = text_table_format (table, 9);
  g_assert_cmpstr (cut, ==, "NAME   SI\n大\na\\nb  12.\n");
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/text/escapes-what-moves-the-cursor", escapes_what_moves_the_cursor);
  g_test_add_func ("/text/escapes-what-is-no-utf8", escapes_what_is_no_utf8);
  g_test_add_func ("/text/escapes-anything", escapes_anything);
  g_test_add_func ("/text/counts-columns", counts_columns);
  g_test_add_func ("/text/writes-sizes", writes_sizes);
  g_test_add_func ("/text/writes-ages", writes_ages);
  g_test_add_func ("/text/writes-plainly", writes_plainly);
  g_test_add_func ("/text/aligns-tables", aligns_tables);
  return g_test_run ();
}
