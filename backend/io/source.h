/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sources of the main loop: made and attached in one call, and owned by who made them. */
#ifndef DOMYBS_IO_SOURCE_H
#define DOMYBS_IO_SOURCE_H

#include <glib-unix.h>

/* Calls function when fd is in `condition`. context NULL: the thread's default. End it with source_clear. */
GSource *source_fd (GMainContext *context, int fd, GIOCondition condition, GUnixFDSourceFunc function, gpointer data);

/* Calls function every ms milliseconds, in the thread's default context. */
GSource *source_timeout (unsigned ms, GSourceFunc function, gpointer data);

/* Ends the source, if there is one, and sets it to NULL; also from within its own function. */
void source_clear (GSource **source);

#endif
