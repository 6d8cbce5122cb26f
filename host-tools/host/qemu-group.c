/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/qemu-group.h"
#include "error.h"

#include <grp.h>
#include <pwd.h>
#include <string.h>

#define ID_MAX ((guint64)G_MAXUINT32 - 1) /* (gid_t)−1 means "leave it" to chown */

static const char *const known[] = { "libvirt-qemu", "qemu" };

char *
qemu_config_get (const char *text, const char *name) {
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  char *value = NULL;

  for (char **line = lines; *line; line++) {
    const char *p = g_strstrip (*line), *end;

    if (!g_str_has_prefix (p, name))
      continue;
    for (p += strlen (name); g_ascii_isspace (*p); p++)
      ;
    if (*p++ != '=')
      continue;
    while (g_ascii_isspace (*p))
      p++;
    if ((*p != '"' && *p != '\'') || !(end = strchr (p + 1, *p)))
      continue;
    g_free (value);
    value = g_strndup (p + 1, (gsize)(end - p - 1));
  }
  return value;
}

/* libvirt's way to write a group: a name, "+NUMBER", or a number that is no name. */
static gboolean
group_from_text (const char *text, gid_t *ret_gid) {
  const struct group *group = *text == '+' ? NULL : getgrnam (text);
  guint64 number;

  if (group) {
    *ret_gid = group->gr_gid;
    return TRUE;
  }
  if (!g_ascii_string_to_unsigned (*text == '+' ? text + 1 : text, 10, 0, ID_MAX, &number, NULL))
    return FALSE;
  *ret_gid = (gid_t)number;
  return TRUE;
}

gboolean
qemu_group_find (const char *dac_label, gid_t *ret_gid, GError **error) {
  const char *colon = dac_label ? strchr (dac_label, ':') : NULL;
  g_autofree char *config = NULL;
  g_autofree char *setting = NULL;
  const char *source = "the domain's DAC label", *text = colon && colon[1] ? colon + 1 : NULL;

  if (!text && g_file_get_contents (QEMU_GROUP_CONFIG_PATH, &config, NULL, NULL)) {
    setting = qemu_config_get (config, "group");
    source = QEMU_GROUP_CONFIG_PATH;
    text = setting;
  }
  if (text) {
    if (group_from_text (text, ret_gid))
      return TRUE;
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "%s names the group '%s' for QEMU, which does not exist; create or correct it", source, text);
    return FALSE;
  }
  for (size_t i = 0; i < G_N_ELEMENTS (known); i++)
    if (group_from_text (known[i], ret_gid))
      return TRUE;
  for (size_t i = 0; i < G_N_ELEMENTS (known); i++) {
    const struct passwd *user = getpwnam (known[i]);

    if (user) {
      *ret_gid = user->pw_gid;
      return TRUE;
    }
  }
  g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
               "the group that QEMU runs as is not known, there is neither a group libvirt-qemu nor qemu; set `group` in %s",
               QEMU_GROUP_CONFIG_PATH);
  return FALSE;
}
