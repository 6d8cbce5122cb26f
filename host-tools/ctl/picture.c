/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/picture.h"
#include "ctl/text.h"

#define LABEL_COLUMNS 8
#define COLUMNS_DEFAULT 80
#define CELLS_LEAST 64
#define CELLS_MOST 4096 /* what the control command gives */

/* From free to wholly granted; the steps between are quarters. A cell with a block at all is not drawn as free. */
static const char *const signs_utf8[] = { "·", "░", "▒", "▓", "█" };
static const char *const signs_ascii[] = { ".", "-", "+", "*", "#" };
#define FULL (G_N_ELEMENTS (signs_utf8) - 1)

static guint64
blocks_of_cell (const Picture *picture, unsigned cell) {
  return MIN (picture->cell_blocks, picture->window_blocks - cell * picture->cell_blocks);
}

gboolean
picture_is_sane (const Picture *picture) {
  if (!picture->n || !picture->cell_blocks || picture->cell_blocks > picture->window_blocks
      || picture->window_blocks > 1ull << 40
      || picture->n != (picture->window_blocks + picture->cell_blocks - 1) / picture->cell_blocks)
    return FALSE;
  for (unsigned i = 0; i < picture->n; i++)
    if (picture->granted[i] > blocks_of_cell (picture, i))
      return FALSE;
  return TRUE;
}

/* Cells of a line: a power of two, so that each line begins at a round address. */
static unsigned
cells_of_line (int columns) {
  const int room = (columns > 0 ? columns : COLUMNS_DEFAULT) - LABEL_COLUMNS;
  unsigned cells = 8;

  while ((int)cells * 2 <= room && cells < 256)
    cells *= 2;
  return cells;
}

unsigned
picture_cells (int columns, int rows, guint64 window_blocks) {
  const unsigned line = cells_of_line (columns);
  unsigned cells = line;

  while (cells * 2 <= line * (unsigned)MAX (rows, 1) && cells * 2 <= CELLS_MOST && cells * 2 <= window_blocks)
    cells *= 2;
  return CLAMP (cells, CELLS_LEAST, CELLS_MOST);
}

static unsigned
shade (const Picture *picture, unsigned cell) {
  const guint64 blocks = blocks_of_cell (picture, cell), granted = picture->granted[cell];

  if (granted == 0 || granted == blocks)
    return granted ? FULL : 0;
  return 1 + (unsigned)(granted * (FULL - 1) / blocks);
}

static gboolean
line_is_free (const Picture *picture, unsigned first, unsigned cells) {
  for (unsigned i = first; i < MIN (first + cells, picture->n); i++)
    if (picture->granted[i])
      return FALSE;
  return TRUE;
}

char *
picture_draw (const Picture *picture, int columns, gboolean utf8) {
  const char *const *signs = utf8 ? signs_utf8 : signs_ascii;
  const unsigned line = cells_of_line (columns);
  GString *out = g_string_new (NULL);
  g_autofree char *cell = text_size (picture->cell_blocks << 21);

  for (unsigned first = 0; first < picture->n; first += line) {
    g_autofree char *label = text_size ((guint64)first * picture->cell_blocks << 21);
    unsigned free_lines = 0;

    while (first + free_lines * line < picture->n && line_is_free (picture, first + free_lines * line, line))
      free_lines++;
    g_string_append_printf (out, "%*s ", LABEL_COLUMNS - 1, label);
    if (free_lines > 2) {
      const guint64 end = MIN ((guint64)(first + free_lines * line) * picture->cell_blocks, picture->window_blocks);
      g_autofree char *text = text_size (end << 21);

      g_string_append_printf (out, "%s free up to %s\n", signs[0], text);
      first += (free_lines - 1) * line;
      continue;
    }
    for (unsigned i = first; i < MIN (first + line, picture->n); i++)
      g_string_append (out, signs[shade (picture, i)]);
    g_string_append_c (out, '\n');
  }
  g_string_append_printf (out, "\n%s granted  %s%s%s partly  %s free; each stands for %s\n", signs[FULL], signs[3], signs[2],
                          signs[1], signs[0], cell);
  return g_string_free (out, FALSE);
}
