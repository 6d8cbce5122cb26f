/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the terminal is like. */
#ifndef DOMYBS_HOST_TOOLS_TERM_H
#define DOMYBS_HOST_TOOLS_TERM_H

#include <glib.h>

/* Columns and lines of the terminal at fd; 0 where there is none (or it does not say). */
void term_size (int fd, int *ret_columns, int *ret_lines);
/* Is fd a terminal that can move its cursor (TERM is neither unset nor "dumb")? */
gboolean term_is_live (int fd);
/* Does the locale's character set have the blocks that pictures are drawn with? */
gboolean term_is_utf8 (void);

#endif
