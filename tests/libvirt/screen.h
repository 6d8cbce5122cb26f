/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A terminal on which one line at the bottom is redrawn; into a file or pipe the same lines come one after the other. */
#ifndef DOMYBS_TESTS_VM_SCREEN_H
#define DOMYBS_TESTS_VM_SCREEN_H

#include <glib.h>
#include <stdio.h>

#define SCREEN_BAR_BYTES 128 /* 32 cells of up to 3 bytes, brackets and the end */

typedef struct Screen Screen;

/* stream stays the caller's. */
Screen *screen_new (FILE *stream);
/* Ends the live line. */
void screen_free (Screen *screen);

/* The terminal's width now; 120 where it is none. */
unsigned screen_columns (Screen *screen);

/* A line that stays, broken between words where it is too long. Ends the live line first. */
void screen_line (Screen *screen, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* Takes the place of the last live line, cut to the terminal's width. Not on a terminal: printed at most once a second, and
 * only if it says something new. */
void screen_live (Screen *screen, const char *format, ...) G_GNUC_PRINTF (2, 3);

typedef enum { SCREEN_FULL, SCREEN_HALF, SCREEN_EMPTY } ScreenMark;

/* What a cell of a bar looks like on this terminal. */
const char *screen_mark (Screen *screen, ScreenMark mark);

/* A bar of so many cells (at most 32) for shares from 0 to 1: full up to `full`, half up to `half`, the rest empty. */
void screen_bar (Screen *screen, char ret_bar[SCREEN_BAR_BYTES], unsigned cells, double full, double half);

#endif
