/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "host/donors.h"
#include "core/size.h"
#include "error.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

#define IDENTITY_BYTES_MAX 128
#define KEYS_MAX 4096u /* of a donor's file */

#define GROUP "donor"
#define SUFFIX ".conf"

void
host_donor_free (HostDonor *donor) {
  g_free (donor->name);
  g_free (donor->address);
  g_free (donor->psk);
  g_free (donor->identity);
  g_free (donor->domain);
  g_free (donor->size);
  g_free (donor->problem);
  g_free (donor);
}

/* ---- what may be ---- */

static gboolean
name_is_good (const char *name) {
  const gsize n = strspn (name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

  return n > 0 && n <= HOST_DONOR_NAME_BYTES_MAX && !name[n] && name[0] != '.' && name[0] != '-';
}

/* It becomes a part of a command line and of a line of a file. */
static gboolean
text_is_good (const char *text) {
  for (const char *p = text; *p; p++)
    if ((guchar)*p <= ' ' || *p == 0x7f)
      return FALSE;
  return *text && g_utf8_validate (text, -1, NULL);
}

static gboolean
address_is_good (const char *address) {
  const char *colon = strrchr (address, ':');

  if (!text_is_good (address))
    return FALSE;
  if (g_str_has_prefix (address, "unix:"))
    return address[5] == '/';
  return colon && colon > address && g_ascii_string_to_unsigned (colon + 1, 10, 1, 65535, NULL, NULL)
         && (address[0] == '[' || !memchr (address, ':', (gsize)(colon - address)));
}

/* As io/psk-keys has it. */
static gboolean
line_is_key (const char *line, const char *identity, gboolean *found) {
  const char *colon = strchr (line, ':');
  const gsize digits = colon ? strspn (colon + 1, "0123456789abcdefABCDEF") : 0;

  if (!colon || colon == line || colon - line > IDENTITY_BYTES_MAX || colon[1 + digits] || digits < 32 || digits > 128
      || digits % 2)
    return FALSE;
  for (const char *p = line; p < colon; p++)
    if (*p <= ' ' || *p > '~')
      return FALSE;
  *found |= !identity || (strlen (identity) == (gsize)(colon - line) && strncmp (line, identity, strlen (identity)) == 0);
  return TRUE;
}

/* A key that domybs-far would not take would keep VMs from starting: it is looked at here. */
static char *
key_problem (const HostDonor *donor) {
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;
  g_autoptr (GError) error = NULL;
  gboolean found = FALSE;

  if (!g_file_get_contents (donor->psk, &text, NULL, &error))
    return g_strdup_printf ("can't read its key: %s", error->message);
  lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line; line++)
    if (**line && **line != '#' && !line_is_key (*line, donor->identity, &found))
      return g_strdup_printf ("line %d of its key %s is not IDENTITY:KEY, with 32 to 128 hexadecimal digits",
                              (int)(line - lines) + 1, donor->psk);
  return found ? NULL
               : g_strdup_printf ("its key %s has no line for %s", donor->psk, donor->identity ? donor->identity : "anybody");
}

/* "PATH …": what keeps everybody from using it. */
static char *
file_problem (const char *path) {
  GStatBuf st;

  if (g_stat (path, &st) < 0)
    return g_strdup_printf ("%s can't be looked at: %s", path, g_strerror (errno));
  if (!S_ISREG (st.st_mode))
    return g_strdup_printf ("%s is no file", path);
  if (st.st_mode & 077)
    return g_strdup_printf ("%s can be read by others than its owner; chmod 600 %s", path, path);
  if (st.st_size > (1 << 20))
    return g_strdup_printf ("%s has more than 1M", path);
  return NULL;
}

char *
host_keys_problem (const char *path) {
  g_autofree char *text = NULL;
  g_autoptr (GError) error = NULL;
  g_auto (GStrv) lines = NULL;
  gboolean found = FALSE;
  guint n = 0;
  char *problem = file_problem (path);

  if (problem)
    return problem;
  if (!g_file_get_contents (path, &text, NULL, &error))
    return g_strdup (error->message);
  lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line; line++) {
    if (**line && **line != '#' && !line_is_key (*line, NULL, &found))
      return g_strdup_printf ("line %d of %s is not IDENTITY:KEY, with 32 to 128 hexadecimal digits", (int)(line - lines) + 1,
                              path);
    for (char **other = lines; **line && **line != '#' && other < line; other++)
      if (strncmp (*other, *line, strcspn (*line, ":") + 1) == 0)
        return g_strdup_printf ("line %d of %s has the identity of line %d", (int)(line - lines) + 1, path,
                                (int)(other - lines) + 1);
    n += **line && **line != '#';
  }
  if (n > KEYS_MAX)
    return g_strdup_printf ("%s has more than %u keys", path, KEYS_MAX);
  return found ? NULL : g_strdup_printf ("%s has no key", path);
}

char *
host_donor_problem (const HostDonor *donor) {
  guint64 bytes;
  char *problem;

  if (!donor->address || !address_is_good (donor->address))
    return g_strdup_printf ("its address '%s' is none of HOST:PORT, [V6]:PORT, unix:PATH",
                            donor->address ? donor->address : "");
  if (!donor->psk || donor->psk[0] != '/' || !text_is_good (donor->psk))
    return g_strdup_printf ("'%s' is no absolute path of a file with its key", donor->psk ? donor->psk : "");
  if ((donor->identity && !text_is_good (donor->identity)) || (donor->domain && !text_is_good (donor->domain)))
    return g_strdup ("its identity or domain has blanks or other signs that it may not have");
  if (strlen (donor->address) > HOST_DONOR_TEXT_BYTES_MAX
      || (donor->domain && strlen (donor->domain) > HOST_DONOR_TEXT_BYTES_MAX))
    return g_strdup_printf ("its address or domain has more than %u bytes", HOST_DONOR_TEXT_BYTES_MAX);
  if (donor->size && (!size_parse (donor->size, &bytes) || bytes < (2u << 20)))
    return g_strdup_printf ("its size '%s' is no size of 2M or more; write for example 512M or 16G", donor->size);
  problem = file_problem (donor->psk);
  if (problem) {
    char *text = g_strdup_printf ("its key %s", problem);

    g_free (problem);
    return text;
  }
  return key_problem (donor);
}

/* ---- files ---- */

static char *
path_of (const char *name) {
  g_autofree char *file = g_strconcat (name, SUFFIX, NULL);

  return g_build_filename (launch_donors_folder (), file, NULL);
}

static HostDonor *
read_donor (const char *name) {
  g_autofree char *path = path_of (name);
  g_autoptr (GKeyFile) file = g_key_file_new ();
  g_autoptr (GError) error = NULL;
  HostDonor *donor = g_new0 (HostDonor, 1);

  donor->name = g_strdup (name);
  if (!g_key_file_load_from_file (file, path, G_KEY_FILE_NONE, &error)) {
    donor->problem = g_strdup_printf ("%s: %s", path, error->message);
    return donor;
  }
  donor->address = g_key_file_get_string (file, GROUP, "address", NULL);
  donor->psk = g_key_file_get_string (file, GROUP, "psk", NULL);
  donor->identity = g_key_file_get_string (file, GROUP, "identity", NULL);
  donor->domain = g_key_file_get_string (file, GROUP, "domain", NULL);
  donor->size = g_key_file_get_string (file, GROUP, "size", NULL);
  donor->problem = host_donor_problem (donor);
  return donor;
}

static int
by_name (gconstpointer a, gconstpointer b) {
  return strcmp ((*(const HostDonor *const *)a)->name, (*(const HostDonor *const *)b)->name);
}

static HostDonor *
find_address (GPtrArray *donors, guint end, const char *address) {
  for (guint i = 0; i < end; i++) {
    HostDonor *donor = g_ptr_array_index (donors, i);

    if (!donor->problem && g_strcmp0 (donor->address, address) == 0)
      return donor;
  }
  return NULL;
}

GPtrArray *
host_donors_list (void) {
  GPtrArray *donors = g_ptr_array_new_with_free_func ((GDestroyNotify)host_donor_free);
  GDir *folder = g_dir_open (launch_donors_folder (), 0, NULL);
  const char *entry;
  guint good = 0;

  while (folder && (entry = g_dir_read_name (folder))) {
    g_autofree char *name = g_str_has_suffix (entry, SUFFIX) ? g_strndup (entry, strlen (entry) - strlen (SUFFIX)) : NULL;

    if (name && name_is_good (name))
      g_ptr_array_add (donors, read_donor (name));
  }
  if (folder)
    g_dir_close (folder);
  g_ptr_array_sort (donors, by_name);
  for (guint i = 0; i < donors->len; i++) {
    HostDonor *donor = g_ptr_array_index (donors, i), *other;

    if (donor->problem)
      continue;
    other = find_address (donors, i, donor->address);
    if (other)
      donor->problem = g_strdup_printf ("it has the address of '%s'", other->name);
    else if (++good > HOST_DONORS_MAX)
      donor->problem = g_strdup_printf ("there are more than %u donors", HOST_DONORS_MAX);
  }
  return donors;
}

static void
set (GKeyFile *file, const char *key, const char *value) {
  if (value)
    g_key_file_set_string (file, GROUP, key, value);
}

gboolean
host_donor_add (const HostDonor *donor, GError **error) {
  g_autofree char *problem = NULL, *path = NULL;
  g_autoptr (GPtrArray) others = NULL;
  g_autoptr (GKeyFile) file = NULL;
  g_autoptr (GError) reason = NULL;
  HostDonor *other;

  if (!name_is_good (donor->name))
    return ctl_fail (error, CTL_ERROR_USAGE, "donor '%s': a name has at most %u letters, digits, '.', '_' and '-'", donor->name,
                     HOST_DONOR_NAME_BYTES_MAX);
  problem = host_donor_problem (donor);
  if (problem)
    return ctl_fail (error, CTL_ERROR_USAGE, "donor '%s': %s", donor->name, problem);
  others = host_donors_list ();
  path = path_of (donor->name);
  if (g_file_test (path, G_FILE_TEST_EXISTS))
    return ctl_fail (error, CTL_ERROR_REFUSED, "donor '%s': there is one of that name; remove it first", donor->name);
  other = find_address (others, others->len, donor->address);
  if (other)
    return ctl_fail (error, CTL_ERROR_REFUSED, "donor '%s': that is the address of donor '%s'", donor->name, other->name);
  if (others->len >= HOST_DONORS_MAX)
    return ctl_fail (error, CTL_ERROR_REFUSED,
                     "donor '%s': there are %u already, which is all that a far disk can have; remove one", donor->name,
                     HOST_DONORS_MAX);
  file = g_key_file_new ();
  set (file, "address", donor->address);
  set (file, "psk", donor->psk);
  set (file, "identity", donor->identity);
  set (file, "domain", donor->domain);
  set (file, "size", donor->size);
  if (g_mkdir_with_parents (launch_donors_folder (), 0755) < 0)
    return ctl_fail (error, CTL_ERROR_ACCESS, "donor '%s': can't make the folder %s: %s", donor->name, launch_donors_folder (),
                     g_strerror (errno));
  if (!g_key_file_save_to_file (file, path, &reason))
    return ctl_fail (error, CTL_ERROR_ACCESS, "donor '%s': can't write %s: %s", donor->name, path, reason->message);
  return TRUE;
}

gboolean
host_donor_remove (const char *name, GError **error) {
  g_autofree char *path = name_is_good (name) ? path_of (name) : NULL;

  if (path && g_unlink (path) == 0)
    return TRUE;
  if (!path || errno == ENOENT)
    return ctl_fail (error, CTL_ERROR_NOT_FOUND, "donor '%s': there is none of that name; see 'domybsctl donor list'", name);
  return ctl_fail (error, CTL_ERROR_ACCESS, "donor '%s': can't remove %s: %s", name, path, g_strerror (errno));
}

gboolean
host_donor_key (const HostDonor *donor, char **ret_identity, char **ret_key, GError **error) {
  g_autofree char *text = NULL;
  g_autoptr (GError) reason = NULL;
  g_auto (GStrv) lines = NULL;

  if (!g_file_get_contents (donor->psk, &text, NULL, &reason))
    return ctl_fail (error, CTL_ERROR_ACCESS, "donor '%s': can't read its key: %s", donor->name, reason->message);
  lines = g_strsplit (text, "\n", -1);
  for (char **line = lines; *line; line++) {
    gboolean found = FALSE;

    if (**line == '#' || !line_is_key (*line, donor->identity, &found) || !found)
      continue;
    *ret_identity = g_strndup (*line, (gsize)(strchr (*line, ':') - *line));
    *ret_key = g_strdup (strchr (*line, ':') + 1);
    return TRUE;
  }
  return ctl_fail (error, CTL_ERROR_ACCESS, "donor '%s': its key %s has no line for it any more", donor->name, donor->psk);
}

/* ---- domybs-far's command line ---- */

/* A comma in a value is written twice. */
static void
add_part (GString *text, const char *name, const char *value) {
  if (!value)
    return;
  g_string_append_printf (text, ",%s=", name);
  for (; *value; value++)
    g_string_append (text, *value == ',' ? ",," : (char[]){ *value, 0 });
}

void
host_donors_arguments (GPtrArray *arguments) {
  g_autoptr (GPtrArray) donors = host_donors_list ();

  for (guint i = 0; i < donors->len; i++) {
    const HostDonor *donor = g_ptr_array_index (donors, i);
    GString *text;

    if (donor->problem)
      continue; /* a VM starts without it; 'domybsctl donor list' says why */
    text = g_string_new ("--donor=");
    g_string_append (text, donor->name);
    add_part (text, "address", donor->address);
    add_part (text, "psk", donor->psk);
    add_part (text, "identity", donor->identity);
    add_part (text, "domain", donor->domain);
    add_part (text, "size", donor->size);
    g_ptr_array_add (arguments, g_string_free (text, FALSE));
  }
}
