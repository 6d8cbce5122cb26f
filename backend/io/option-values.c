/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/option-values.h"
#include "core/size.h"
#include "io/error.h"

#include <errno.h>
#include <grp.h>
#include <string.h>

/* An entry of the group database that is larger than this is broken. */
#define GROUP_ENTRY_BYTES_MAX (1u << 20)

gboolean
option_usage (GError **error, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  g_set_error_literal (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, text);
  return FALSE;
}

gboolean
option_size (const char *option, const char *text, uint64_t fallback, uint64_t *ret_bytes, GError **error) {
  *ret_bytes = fallback;
  if (text && !size_parse (text, ret_bytes))
    return option_usage (error, "--%s: '%s' is not a size; write for example 512M, 4G or 1.5T", option, text);
  return TRUE;
}

gboolean
option_group (const char *option, const char *text, gid_t *ret_group, GError **error) {
  g_autofree char *buffer = NULL;
  struct group entry, *found = NULL;
  guint64 number;
  int result;

  *ret_group = LISTEN_GROUP_UNCHANGED;
  if (!text)
    return TRUE;
  for (size_t n = 1024;; n *= 2) { /* a group of many members needs more */
    buffer = g_realloc (buffer, n);
    result = getgrnam_r (text, &entry, buffer, n, &found);
    if (result != ERANGE || n > GROUP_ENTRY_BYTES_MAX)
      break;
  }
  if (result == 0 && found)
    *ret_group = found->gr_gid;
  else if (g_ascii_isdigit (text[0]) && g_ascii_string_to_unsigned (text, 10, 0, G_MAXUINT32 - 1, &number, NULL))
    *ret_group = (gid_t)number;
  else
    return option_usage (error, "--%s: there is no group '%s' on this host; see 'getent group'", option, text);
  return TRUE;
}

gboolean
option_mode (const char *option, const char *text, int *ret_mode, GError **error) {
  guint64 number;

  *ret_mode = LISTEN_MODE_UMASK;
  if (!text)
    return TRUE;
  if (!g_ascii_isdigit (text[0]) || !g_ascii_string_to_unsigned (text, 8, 0, 0777, &number, NULL))
    return option_usage (error, "--%s: '%s' is not an octal mode from 0 to 777; write for example 0660", option, text);
  *ret_mode = (int)number;
  return TRUE;
}

gboolean
option_is_good_name (const char *name) {
  if (!*name || strlen (name) > OPTION_NAME_BYTES_MAX || !g_utf8_validate (name, -1, NULL))
    return FALSE;
  for (const char *p = name; *p; p = g_utf8_next_char (p))
    if (!g_unichar_isprint (g_utf8_get_char (p)))
      return FALSE;
  return TRUE;
}
