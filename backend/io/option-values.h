/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Values of command lines that several programs know. option: its name without dashes, for errors (DOMYBS_ERROR_USAGE). */
#ifndef DOMYBS_IO_OPTION_VALUES_H
#define DOMYBS_IO_OPTION_VALUES_H

#include <glib.h>
#include <stdint.h>

#include "io/listen.h"

#define OPTION_NAME_BYTES_MAX 255

/* Sets error, returns FALSE. */
gboolean option_usage (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

/* text NULL: the fallback. */
gboolean option_size (const char *option, const char *text, uint64_t fallback, uint64_t *ret_bytes, GError **error);

/* A group's name, or its number, which need not have a name on this host. text NULL: LISTEN_GROUP_UNCHANGED. */
gboolean option_group (const char *option, const char *text, gid_t *ret_group, GError **error);

/* Octal. text NULL: LISTEN_MODE_UMASK. */
gboolean option_mode (const char *option, const char *text, int *ret_mode, GError **error);

/* A VM's name goes into logs and answers: it must be text, on one line, of bounded length. */
gboolean option_is_good_name (const char *name);

#endif
