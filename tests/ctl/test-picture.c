/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/picture.h"
#include "testing.h"
#include "ctl/text.h"

#include <string.h>

static void
draws_shades (void) {
  static const guint64 granted[] = { 0, 1, 8, 15, 16, 16, 0, 4 };
  const Picture picture = { 128, 16, G_N_ELEMENTS (granted), granted };
  g_autofree char *utf8 = picture_draw (&picture, 16, TRUE), *ascii = picture_draw (&picture, 16, FALSE);

  g_assert_true (picture_is_sane (&picture));
  g_assert_true (g_str_has_prefix (utf8, "      0 ·░▒▓██·░\n"));
  g_assert_true (g_str_has_prefix (ascii, "      0 .-+*##.-\n"));
  g_assert_true (g_str_is_ascii (ascii));
  g_assert_nonnull (strstr (utf8, "32M"));
}

static void
folds_what_is_free (void) {
  guint64 granted[512] = { 0 };
  const Picture picture = { 512 * 16, 16, G_N_ELEMENTS (granted), granted };
  g_autofree char *empty = picture_draw (&picture, 80, FALSE);

  g_assert_true (g_str_has_prefix (empty, "      0 . free up to 16G\n\n"));
  granted[511] = 1;
  g_autofree char *end = picture_draw (&picture, 80, FALSE);
  g_assert_nonnull (strstr (end, ".-\n\n"));
}

static void
refuses_nonsense (void) {
  static const guint64 granted[] = { 0, 17, 0, 0 };
  const Picture bad[] = {
    { 64, 16, 4, granted }, /* more granted than there is */
    { 64, 16, 1, granted }, /* cells are missing */
    { 16, 16, 4, granted }, /* … or too many */
    { 64, 1ull << 62, 1, granted },
    { 64, 0, 4, granted }, /* of nothing */
    { 0, 16, 0, granted }, /* nothing */
    { 1ull << 60, 1ull << 58, 4, granted },
  };
  const Picture good = { 17 * 3 + 1, 17, 4, granted };

  for (size_t i = 0; i < G_N_ELEMENTS (bad); i++)
    g_assert_false (picture_is_sane (&bad[i]));
  g_assert_true (picture_is_sane (&good));
}

/* Any terminal, any window: lines fit, and there are not too many. */
static void
fits_the_terminal (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned step = 0; step < testing_steps (500); step++) {
    const int columns = (int)testing_below (rand, 300);
    const guint64 window = 1024ull << testing_below (rand, 10);
    const unsigned cells = picture_cells (columns, 16, window);
    const guint64 cell = (window + cells - 1) / cells;
    Picture picture = { window, cell, (unsigned)((window + cell - 1) / cell), NULL };
    g_autofree guint64 *granted = g_new0 (guint64, picture.n);
    g_autofree char *drawing = NULL;
    g_auto (GStrv) lines = NULL;

    for (unsigned i = 0; i < picture.n; i++)
      granted[i] = testing_below (rand, cell + 1);
    picture.granted = granted;
    g_assert_true (picture_is_sane (&picture));
    drawing = picture_draw (&picture, columns, TRUE);
    lines = g_strsplit (drawing, "\n", -1);
    for (unsigned i = 0; lines[i] && *lines[i]; i++)
      g_assert_cmpint (text_width (lines[i]), <=, MAX (columns ? columns : 80, 16));
    g_assert_cmpuint (g_strv_length (lines), <=, 16 + 3);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/picture/draws-shades", draws_shades);
  g_test_add_func ("/picture/folds-what-is-free", folds_what_is_free);
  g_test_add_func ("/picture/refuses-nonsense", refuses_nonsense);
  g_test_add_func ("/picture/fits-the-terminal", fits_the_terminal);
  return g_test_run ();
}
