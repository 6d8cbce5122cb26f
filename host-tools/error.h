/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Errors of the host tools: one domain, whose codes are domybsctl's exit codes and so never change their meaning. */
#ifndef DOMYBS_HOST_TOOLS_ERROR_H
#define DOMYBS_HOST_TOOLS_ERROR_H

#include <glib.h>

#define CTL_ERROR (ctl_error_quark ())
GQuark ctl_error_quark (void);

/* A message names the object first ("domain 'vm1': …"), then the cause, then after a semicolon the next step; no full stop. */
typedef enum {
  CTL_ERROR_FAILED = 1,     /* it was tried and did not work */
  CTL_ERROR_USAGE = 2,      /* wrong command, option or argument */
  CTL_ERROR_NOT_FOUND = 3,  /* no such domain, or nothing is attached to it */
  CTL_ERROR_REFUSED = 4,    /* it can't be for a reason that is given with the way out; nothing was changed */
  CTL_ERROR_ACCESS = 5,     /* no permission, or libvirt or a socket can't be reached */
  CTL_ERROR_INCOMPLETE = 6, /* less was reached than asked for: how much, and why */
} CtlErrorCode;

/* Sets the error; always FALSE, for `return ctl_fail (…)`. */
gboolean ctl_fail (GError **error, CtlErrorCode code, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* The code's name in JSON: "failed", "usage", "not-found", "refused", "access", "incomplete". */
const char *ctl_error_name (int code);

#endif
