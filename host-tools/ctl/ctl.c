/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/ctl.h"
#include "core/size.h"
#include "ctl/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BLOCK_BYTES (2ull << 20)
/* 1 EiB: beyond any machine, and sums of a few stay far from an overflow. */
#define SIZE_MAX_BYTES (1ull << 60)

/* ---- arguments ---- */

#define usage(error, ...) ctl_fail (error, CTL_ERROR_USAGE, __VA_ARGS__)

/* Whether the argument is an option of entries whose value is the next argument. */
static gboolean
takes_value (const GOptionEntry *entries, const char *argument) {
  for (; entries && entries->long_name; entries++) {
    if (entries->arg == G_OPTION_ARG_NONE)
      continue;
    if (g_str_has_prefix (argument, "--") && strcmp (argument + 2, entries->long_name) == 0)
      return TRUE;
    if (entries->short_name && argument[0] == '-' && argument[1] == entries->short_name && !argument[2])
      return TRUE;
  }
  return FALSE;
}

/* GOption takes "-4G" for an option. Nothing that begins with a digit is one of ours: such arguments go behind a "--". */
static void
protect_negative_sizes (Ctl *ctl, const GOptionEntry *common, const GOptionEntry *entries, int *argc, char ***argv) {
  g_autoptr (GPtrArray) plain = g_ptr_array_new (), negative = g_ptr_array_new ();
  char **old = *argv;
  int i = 0;

  for (; i < *argc && strcmp (old[i], "--") != 0; i++) {
    const gboolean is_value = i > 0 && (takes_value (common, old[i - 1]) || takes_value (entries, old[i - 1]));

    g_ptr_array_add (old[i][0] == '-' && g_ascii_isdigit (old[i][1]) && !is_value ? negative : plain, old[i]);
  }
  if (!negative->len)
    return;
  g_ptr_array_add (plain, (gpointer) "--");
  g_ptr_array_extend (plain, negative, NULL, NULL);
  for (i++; i < *argc; i++) /* past the "--" that was there */
    g_ptr_array_add (plain, old[i]);
  *argc = (int)plain->len;
  g_ptr_array_add (plain, NULL);
  ctl->argv = (char **)g_ptr_array_free (g_steal_pointer (&plain), FALSE);
  *argv = ctl->argv;
}

/* The word of "DOMAIN SIZE" that stands for argument i. */
static char *
argument_name (const Ctl *ctl, int i) {
  g_auto (GStrv) words = g_strsplit (ctl->arguments, " ", -1);

  return i < (int)g_strv_length (words) ? g_strdup (words[i]) : g_strdup ("an argument");
}

gboolean
ctl_parse (Ctl *ctl, const GOptionEntry *entries, int *argc, char ***argv, int min, int max, GError **error) {
  gboolean json; /* main has looked for it already: also a wrong option is to be told in JSON */
  char *uri = NULL;
  const GOptionEntry common[] = {
    { "connect", 'c', 0, G_OPTION_ARG_FILENAME, &uri, "Use the libvirt at this address", "URI" },
    { "json", 0, 0, G_OPTION_ARG_NONE, &json, "Print one JSON object (" CTL_JSON_SCHEMA ")", NULL },
    { "quiet", 'q', 0, G_OPTION_ARG_NONE, &ctl->quiet, "Print nothing but what was asked for, and errors", NULL },
    { "help", 'h', 0, G_OPTION_ARG_NONE, &ctl->help, "Print this and end", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autofree char *usage_line = g_strdup_printf ("%s%s%s", ctl->command, *ctl->arguments ? " " : "", ctl->arguments);
  g_autoptr (GOptionContext) context = g_option_context_new (usage_line);
  g_autoptr (GError) reason = NULL;

  if (entries)
    g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_add_main_entries (context, common, NULL);
  g_option_context_set_summary (context, ctl->summary);
  g_option_context_set_help_enabled (context, FALSE);
  protect_negative_sizes (ctl, common, entries, argc, argv);
  if (!g_option_context_parse (context, argc, argv, &reason))
    return usage (error, "%s: %s; see 'domybsctl help %s'", ctl->command, reason->message, ctl->command);
  if (uri) {
    g_free (ctl->uri);
    ctl->uri = uri;
  }
  if (ctl->help) {
    g_autofree char *text = g_option_context_get_help (context, TRUE, NULL);

    g_print ("%s", text);
    return FALSE;
  }
  --*argc;
  ++*argv;
  /* GOption leaves the first "--" where something that looks like an option follows it. */
  for (int i = 0; i < *argc; i++)
    if (strcmp ((*argv)[i], "--") == 0) {
      memmove (&(*argv)[i], &(*argv)[i + 1], sizeof **argv * (size_t)(*argc - i));
      --*argc;
      break;
    }
  if (*argc < min) {
    g_autofree char *name = argument_name (ctl, *argc);

    return usage (error, "%s: %s is missing; usage: domybsctl %s", ctl->command, name, usage_line);
  }
  if (*argc > max)
    return usage (error, "%s: '%s' is one argument too many; usage: domybsctl %s", ctl->command, (*argv)[max], usage_line);
  return TRUE;
}

gboolean
ctl_parse_size (const char *what, const char *text, guint64 *ret_bytes, GError **error) {
  guint64 bytes;

  if (!size_parse (text, &bytes))
    return usage (error, "%s: '%s' is not a size; write for example 512M, 4G or 1.5T", what, text);
  if (bytes % BLOCK_BYTES)
    return usage (error, "%s: '%s' is not a multiple of 2M, the size of a block", what, text);
  if (bytes > SIZE_MAX_BYTES)
    return usage (error, "%s: '%s' is more than any machine has", what, text);
  *ret_bytes = bytes;
  return TRUE;
}

/* ---- text ---- */

void
ctl_say (Ctl *ctl, const char *format, ...) {
  g_autofree char *text = NULL, *clean = NULL;
  va_list args;

  if (ctl->json || ctl->quiet)
    return;
  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  clean = ctl_escape (text);
  g_print ("%s\n", clean);
}

void
ctl_warn (Ctl *ctl, const char *format, ...) {
  g_autofree char *text = NULL, *clean = NULL;
  va_list args;

  if (ctl->quiet)
    return;
  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  clean = ctl_escape (text);
  g_printerr ("domybsctl: warning: %s\n", clean);
}

void
ctl_print (Ctl *ctl, const char *text) {
  if (!ctl->json)
    g_print ("%s", text);
}

/* ---- JSON ---- */

JsonBuilder *
ctl_json (Ctl *ctl) {
  if (!ctl->json)
    return NULL;
  if (!ctl->builder) {
    ctl->builder = json_builder_new ();
    json_builder_begin_object (ctl->builder);
    json_builder_set_member_name (ctl->builder, "schema");
    json_builder_add_string_value (ctl->builder, CTL_JSON_SCHEMA);
    json_builder_set_member_name (ctl->builder, "command");
    if (ctl->command)
      json_builder_add_string_value (ctl->builder, ctl->command);
    else
      json_builder_add_null_value (ctl->builder);
  }
  return ctl->builder;
}

static JsonBuilder *
member (Ctl *ctl, const char *name) {
  JsonBuilder *builder = ctl_json (ctl);

  if (builder)
    json_builder_set_member_name (builder, name);
  return builder;
}

void
ctl_json_string (Ctl *ctl, const char *name, const char *value) {
  JsonBuilder *builder = member (ctl, name);
  g_autofree char *valid = NULL;

  if (!builder)
    return;
  valid = value ? g_utf8_make_valid (value, -1) : NULL;
  if (valid)
    json_builder_add_string_value (builder, valid);
  else
    json_builder_add_null_value (builder);
}

void
ctl_json_int (Ctl *ctl, const char *name, gint64 value) {
  JsonBuilder *builder = member (ctl, name);

  if (builder)
    json_builder_add_int_value (builder, value);
}

void
ctl_json_bytes (Ctl *ctl, const char *name, guint64 value) {
  ctl_json_int (ctl, name, (gint64)MIN (value, (guint64)G_MAXINT64));
}

void
ctl_json_bool (Ctl *ctl, const char *name, gboolean value) {
  JsonBuilder *builder = member (ctl, name);

  if (builder)
    json_builder_add_boolean_value (builder, value);
}

void
ctl_json_null (Ctl *ctl, const char *name) {
  JsonBuilder *builder = member (ctl, name);

  if (builder)
    json_builder_add_null_value (builder);
}

void
ctl_json_flush (Ctl *ctl) {
  JsonBuilder *builder = ctl_json (ctl);
  g_autoptr (JsonGenerator) generator = NULL;
  g_autoptr (JsonNode) root = NULL;
  g_autofree char *text = NULL;

  if (!builder)
    return;
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  generator = json_generator_new ();
  json_generator_set_root (generator, root);
  text = json_generator_to_data (generator, NULL);
  /* Not g_print: JSON is UTF-8 whatever the locale is. */
  fprintf (stdout, "%s\n", text);
  fflush (stdout);
  g_clear_object (&ctl->builder);
}
