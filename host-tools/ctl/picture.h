/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A window's blocks as lines of text. Pure. */
#ifndef DOMYBS_HOST_TOOLS_PICTURE_H
#define DOMYBS_HOST_TOOLS_PICTURE_H

#include <glib.h>

typedef struct {
  guint64 window_blocks, cell_blocks; /* the last cell may stand for fewer */
  unsigned n;                         /* cells */
  const guint64 *granted;             /* of each */
} Picture;

/* Whether the figures can be: cells cover the window, none has more blocks than it stands for. */
gboolean picture_is_sane (const Picture *picture);

/* How many cells to ask for, for lines of `columns` columns (0: 80) and at most `rows` of them. A power of two. */
unsigned picture_cells (int columns, int rows, guint64 window_blocks);

/* The picture: lines with the address where each begins, runs of lines that are wholly free folded into one; then a line that
 * explains the signs. In ASCII alone where utf8 is FALSE. */
char *picture_draw (const Picture *picture, int columns, gboolean utf8);

#endif
