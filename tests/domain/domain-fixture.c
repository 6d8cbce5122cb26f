/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-fixture.h"

#include <string.h>

const DomainAttachOptions fixture_options = {
  .window_bytes = G_GUINT64_CONSTANT (4) << 30,
  .local_max_bytes = G_GUINT64_CONSTANT (2) << 30,
  .own_node = TRUE,
};

const DomainHost fixture_host = { .qemu_version = 11001003, .phys_bits = 46 };

static int
by_name (gconstpointer a, gconstpointer b) {
  return strcmp (*(char *const *)a, *(char *const *)b);
}

GPtrArray *
fixture_names (void) {
  g_autoptr (GError) error = NULL;
  g_autoptr (GDir) folder = g_dir_open (DOMYBS_FIXTURES, 0, &error);
  GPtrArray *names = g_ptr_array_new_with_free_func (g_free);
  const char *name;

  g_assert_no_error (error);
  while ((name = g_dir_read_name (folder)))
    if (g_str_has_suffix (name, ".xml"))
      g_ptr_array_add (names, g_strdup (name));
  g_ptr_array_sort (names, by_name);
  g_assert_cmpuint (names->len, >=, 20);
  return names;
}

char *
fixture_read (const char *name) {
  g_autofree char *path = g_build_filename (DOMYBS_FIXTURES, name, NULL);
  g_autoptr (GError) error = NULL;
  char *text = NULL;

  (void)g_file_get_contents (path, &text, NULL, &error);
  g_assert_no_error (error);
  return text;
}

char *
fixture_attach (const char *xml) {
  g_autoptr (GError) error = NULL;
  char *text = domain_attach (xml, &fixture_options, &fixture_host, FIXTURE_SOCKET, NULL, &error);

  g_assert_no_error (error);
  g_assert_nonnull (text);
  return text;
}

char *
fixture_detach (const char *xml) {
  g_autoptr (GError) error = NULL;
  char *text = domain_detach (xml, NULL, &error);

  g_assert_no_error (error);
  g_assert_nonnull (text);
  return text;
}

char *
fixture_replace (const char *text, const char *from, const char *to) {
  g_auto (GStrv) parts = g_strsplit (text, from, -1);

  if (g_strv_length (parts) < 2)
    g_error ("there is no “%s” to replace in:\n%s", from, text);
  return g_strjoinv (to, parts);
}

void
fixture_assert_same (const char *what, const char *is, const char *should_be) {
  g_auto (GStrv) lines = g_strsplit (is, "\n", -1), expected = g_strsplit (should_be, "\n", -1);

  if (strcmp (is, should_be) == 0)
    return;
  for (int i = 0; lines[i] || expected[i]; i++)
    if (g_strcmp0 (lines[i], expected[i]) != 0)
      g_error ("%s: line %d is\n  “%s”, not\n  “%s”; all of it:\n%s", what, i + 1, lines[i], expected[i], is);
}

void
fixture_assert_refused (const char *xml, const DomainAttachOptions *options, const DomainHost *host, ...) {
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autofree char *text = domain_attach (xml, options, host, FIXTURE_SOCKET, changes, &error);
  va_list words;

  g_assert_null (text);
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  g_assert_cmpuint (changes->len, ==, 0);
  g_test_message ("%s", error->message);
  g_assert_null (strchr (error->message, '\n'));
  g_assert_nonnull (strchr (error->message, ';'));
  g_assert_false (g_str_has_suffix (error->message, "."));
  va_start (words, host);
  for (const char *word; (word = va_arg (words, const char *));)
    if (!strstr (error->message, word))
      g_error ("the message has no “%s”: %s", word, error->message);
  va_end (words);
}
