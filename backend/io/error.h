/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one error domain of the back-end's I/O layer and programs. A message names the object, the cause and, where there is one,
 * the next step. */
#ifndef DOMYBS_IO_ERROR_H
#define DOMYBS_IO_ERROR_H

#include <glib.h>

#define DOMYBS_ERROR (domybs_error_quark ())

typedef enum {
  DOMYBS_ERROR_FAILED,   /* the system refused something: message carries errno's text */
  DOMYBS_ERROR_USAGE,    /* an option or a command's argument is wrong */
  DOMYBS_ERROR_PROTOCOL, /* a peer broke the rules */
  DOMYBS_ERROR_IN_USE,   /* somebody else has it */
  DOMYBS_ERROR_CORRUPT,  /* a file of ours holds what we never write */
} DomybsError;

GQuark domybs_error_quark (void);

/* Sets *error from errno: "<what>: <strerror>". */
void domybs_error_errno (GError **error, const char *format, ...) G_GNUC_PRINTF (2, 3);

#endif
