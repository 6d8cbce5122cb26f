/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/psk-keys.h"
#include "io/error.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES_MAX 4096u

struct key {
  char identity[PSK_IDENTITY_BYTES_MAX + 1];
  guint8 bytes[PSK_KEY_BYTES_MAX];
  gsize n;
};

struct PskKeys {
  gatomicrefcount refs;
  guint n;
  struct key *keys;        /* of LINES_MAX at most, in the order of the file */
  GHashTable *by_identity; /* of struct key */
};

PskKeys *
psk_keys_ref (PskKeys *keys) {
  g_atomic_ref_count_inc (&keys->refs);
  return keys;
}

void
psk_keys_unref (PskKeys *keys) {
  if (!keys || !g_atomic_ref_count_dec (&keys->refs))
    return;
  g_hash_table_unref (keys->by_identity);
  explicit_bzero (keys->keys, keys->n * sizeof *keys->keys);
  g_free (keys->keys);
  g_free (keys);
}

/* A line's parts. Returns what is wrong with it, or NULL. */
static const char *
parse_line (const char *line, gsize bytes, struct key *ret_key) {
  const char *colon = memchr (line, ':', bytes);
  const gsize name = colon ? (gsize)(colon - line) : 0;
  gsize i, digits;

  if (!colon)
    return "it is not IDENTITY:KEY";
  if (name == 0 || name > PSK_IDENTITY_BYTES_MAX)
    return "an identity has 1 to 128 characters";
  for (i = 0; i < name; i++) {
    if (line[i] <= ' ' || line[i] > '~')
      return "an identity has printable ASCII characters only";
  }
  memcpy (ret_key->identity, line, name);
  ret_key->identity[name] = '\0';
  digits = bytes - name - 1;
  if (digits % 2 || digits / 2 < PSK_KEY_BYTES_MIN || digits / 2 > PSK_KEY_BYTES_MAX)
    return "a key has 32 to 128 hexadecimal digits, an even number";
  for (i = 0; i < digits / 2; i++) {
    const int high = g_ascii_xdigit_value (colon[1 + 2 * i]), low = g_ascii_xdigit_value (colon[2 + 2 * i]);

    if (high < 0 || low < 0)
      return "a key has hexadecimal digits only";
    ret_key->bytes[i] = (guint8)(high << 4 | low);
  }
  ret_key->n = digits / 2;
  return NULL;
}

/* Number of lines that are not empty, so that keys never move. */
static guint
count_lines (const char *text, gsize bytes) {
  guint n = 1;
  gsize i;

  for (i = 0; i < bytes; i++)
    n += text[i] == '\n';
  return n;
}

PskKeys *
psk_keys_parse (const char *text, gsize bytes, const char *name, GError **error) {
  g_autoptr (PskKeys) keys = g_new0 (PskKeys, 1);
  const char *at = text, *end = text + bytes;
  const guint lines = count_lines (text, bytes);
  guint line = 0;

  g_atomic_ref_count_init (&keys->refs);
  keys->keys = g_new0 (struct key, MIN (lines, LINES_MAX));
  keys->by_identity = g_hash_table_new (g_str_hash, g_str_equal);
  for (; at < end; line++) {
    const char *newline = memchr (at, '\n', (gsize)(end - at)), *line_end = newline ? newline : end,
               *next = newline ? newline + 1 : end;
    const char *wrong = NULL;

    if (line_end > at && line_end[-1] == '\r')
      line_end--;
    if (line_end > at && *at != '#') {
      if (keys->n == LINES_MAX) {
        g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s has more than %u keys", name, LINES_MAX);
        return NULL;
      }
      wrong = parse_line (at, (gsize)(line_end - at), &keys->keys[keys->n++]);
      if (!wrong && !g_hash_table_add (keys->by_identity, &keys->keys[keys->n - 1]))
        wrong = "this identity has a key already";
    }
    if (wrong) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s, line %u: %s (write the file with psktool)", name, line + 1,
                   wrong);
      return NULL;
    }
    at = next;
  }
  if (keys->n == 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s has no key: write one with psktool -u IDENTITY -p %s", name,
                 name);
    return NULL;
  }
  return g_steal_pointer (&keys);
}

PskKeys *
psk_keys_load (const char *path, GError **error) {
  const int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  g_autofree char *text = NULL;
  PskKeys *keys = NULL;
  struct stat st;
  gsize have = 0;
  gssize n = 0;

  if (fd < 0) {
    domybs_error_errno (error, "can't open key file %s", path);
    return NULL;
  }
  if (fstat (fd, &st) < 0)
    domybs_error_errno (error, "can't look at key file %s", path);
  else if (!S_ISREG (st.st_mode))
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "key file %s is no regular file", path);
  else if ((st.st_mode & 077) || (st.st_uid != 0 && st.st_uid != geteuid ()))
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE,
                 "key file %s can be read or written by others: chown root %s; chmod 600 %s", path, path, path);
  else if (st.st_size > (off_t)PSK_FILE_BYTES_MAX)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "key file %s is larger than 1 MiB", path);
  else {
    text = g_malloc (PSK_FILE_BYTES_MAX);
    while (have < PSK_FILE_BYTES_MAX && (n = read (fd, text + have, PSK_FILE_BYTES_MAX - have)) > 0)
      have += (gsize)n;
    if (n < 0)
      domybs_error_errno (error, "can't read key file %s", path);
    else
      keys = psk_keys_parse (text, have, path, error);
    explicit_bzero (text, have);
  }
  close (fd);
  return keys;
}

gboolean
psk_keys_find (const PskKeys *keys, const char *identity, const guint8 **ret_key, gsize *ret_bytes) {
  const struct key *key = g_hash_table_lookup (keys->by_identity, identity);

  if (!key)
    return FALSE;
  *ret_key = key->bytes;
  *ret_bytes = key->n;
  return TRUE;
}

guint
psk_keys_count (const PskKeys *keys) {
  return keys->n;
}

const char *
psk_keys_identity (const PskKeys *keys, guint i) {
  return i < keys->n ? keys->keys[i].identity : NULL;
}
