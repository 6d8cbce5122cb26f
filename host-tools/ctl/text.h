/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Text for terminals. Pure: no I/O, no locale. */
#ifndef DOMYBS_HOST_TOOLS_TEXT_H
#define DOMYBS_HOST_TOOLS_TEXT_H

#include <glib.h>

/* text as it can be shown on one line of any terminal: control characters, line and direction marks, and bytes that are no
 * UTF-8 become "\n", "\x1b", "\u202e" … */
char *ctl_escape (const char *text);

/* The same for a character set that lacks the signs of our messages: "..." for "…", "->" for "→" and so on. */
char *text_plain (const char *text);

/* How many columns UTF-8 text takes. */
int text_width (const char *text);

/* Exact, in the largest unit that leaves a whole number: "4G", "1022M", "4097" (bytes); 0 is "0". */
char *text_size (guint64 bytes);
/* For tables: at most 5 columns up to 9999T: "0", "512M", "1.5G", "33.2G". Rounded to nearest. */
char *text_size_short (guint64 bytes);

/* How long that is, for people: "0 s", "59 s", "5 min", "47 h", "3 days". Rounded down. */
char *text_age (guint64 ms);

/* A table of UTF-8 cells. Columns are as wide as their widest cell, two blanks apart, no blanks at a line's end. */
typedef struct TextTable TextTable;
/* heads: NULL-terminated; a head that begins with '>' (not shown) is a right-aligned column. A row has a cell for each. */
TextTable *text_table_new (const char *const *heads);
void text_table_free (TextTable *table);
void text_table_add (TextTable *table, ...) G_GNUC_NULL_TERMINATED; /* const char *; each is copied and escaped */
unsigned text_table_rows (const TextTable *table);
/* width: lines are cut to that many columns; 0: not. With its head line; each line ends with '\n'. */
char *text_table_format (const TextTable *table, int width);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (TextTable, text_table_free)

#endif
