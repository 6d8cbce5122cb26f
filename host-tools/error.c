/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "error.h"

G_DEFINE_QUARK (domybs - ctl - error, ctl_error)

gboolean
ctl_fail (GError **error, CtlErrorCode code, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, CTL_ERROR, code, text);
  return FALSE;
}

const char *
ctl_error_name (int code) {
  switch (code) {
  case CTL_ERROR_USAGE:
    return "usage";
  case CTL_ERROR_NOT_FOUND:
    return "not-found";
  case CTL_ERROR_REFUSED:
    return "refused";
  case CTL_ERROR_ACCESS:
    return "access";
  case CTL_ERROR_INCOMPLETE:
    return "incomplete";
  default:
    return "failed";
  }
}
