/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operator's command line: the table of commands, help, and how a command ends. */
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <errno.h>
#include <locale.h>
#include <stdio.h>
#include <string.h>

static const CtlCommand commands[] = {
  { "attach", command_attach, "DOMAIN", "Give a domain the memory device" },
  { "detach", command_detach, "DOMAIN", "Take the memory device away, and leave the rest of the domain as it is" },
  { "list", command_list, "", "Show the domains that have the memory device" },
  { "status", command_status, "[DOMAIN]", "Show all about one domain and why it is so; or about this host" },
  { "top", command_top, "", "Watch all domains" },
  { "grow", command_grow, "DOMAIN SIZE", "Have a domain borrow SIZE in all, or +SIZE more" },
  { "shrink", command_shrink, "DOMAIN SIZE", "Have a domain give back all but SIZE, or -SIZE of what it has" },
  { "target", command_target, "DOMAIN [SIZE|auto]", "Show or set how much a domain is to have; auto: its guest decides" },
  { "blocks", command_blocks, "DOMAIN", "Draw which blocks of its window a domain has" },
  { "backend", command_backend, "ACTION [DOMAIN]",
    "Give running domains another back-end process: restart or upgrade, DOMAIN or --all" },
  { "object", command_object, "ACTION [FILE|NAME]", "Import, list, show, verify or remove read-only content that VMs share" },
  { "donor", command_donor, "[ACTION …]", "Make neighbours known that lend memory: list, add, remove; show and steer what this host lends" },
  { "check", command_check, "[DOMAIN]", "Check whether this host can do it, and say what to do where not" },
};

/* ---- help ---- */

static char *
overall_help (void) {
  GString *text = g_string_new ("Usage:\n  domybsctl [-c URI] [--json] [-q] COMMAND …\n\n"
                                "Lends this host's memory to its VMs, block by block.\n\nCommands:\n");

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autofree char *call = g_strdup_printf ("%s %s", commands[i].name, commands[i].arguments);

    g_string_append_printf (text, "  %-26s %s\n", g_strchomp (call), commands[i].summary);
  }
  g_string_append (
      text,
      "  help [COMMAND]             Show the options of a command, or this\n\n"
      "Options, before or after the command:\n"
      "  -c, --connect=URI          Use the libvirt at this address, as for virsh (qemu:///system)\n"
      "  --json                     Print one JSON object\n"
      "  -q, --quiet                Print nothing but what was asked for, and errors\n"
      "  -h, --help                 Print this and end\n"
      "  --version                  Print the version and end\n\n"
      "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 refused, 5 no access, 6 incomplete, 130 interrupted.\n"
      "See also domybsctl(1).\n");
  return g_string_free (text, FALSE);
}

static void
show_help (Ctl *ctl) {
  g_autofree char *text = overall_help ();
  JsonBuilder *builder = ctl_json (ctl);

  ctl_print (ctl, text);
  if (!builder)
    return;
  json_builder_set_member_name (builder, "commands");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    json_builder_begin_object (builder);
    ctl_json_string (ctl, "name", commands[i].name);
    ctl_json_string (ctl, "arguments", commands[i].arguments);
    ctl_json_string (ctl, "summary", commands[i].summary);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}

/* ---- finding a command ---- */

/* How many letters have to be put in, left out, changed or swapped with their neighbour to make b of a. */
static unsigned
distance (const char *a, const char *b) {
  enum { LONGEST = 24 };
  const size_t m = strlen (a), n = strlen (b);
  unsigned d[LONGEST + 1][LONGEST + 1];

  if (m > LONGEST || n > LONGEST)
    return G_MAXUINT;
  for (size_t i = 0; i <= m; i++)
    for (size_t j = 0; j <= n; j++) {
      if (i == 0 || j == 0) {
        d[i][j] = (unsigned)(i + j);
        continue;
      }
      d[i][j] = MIN (MIN (d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = MIN (d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[m][n];
}

static const CtlCommand *
find_command (const char *name, GError **error) {
  const CtlCommand *nearest = NULL;
  unsigned least = strlen (name) >= 5 ? 3 : 2; /* further away is another word */

  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    unsigned far;

    if (strcmp (commands[i].name, name) == 0)
      return &commands[i];
    far = strlen (name) >= 3 && g_str_has_prefix (commands[i].name, name) ? 0 : distance (name, commands[i].name);
    if (far < least) {
      least = far;
      nearest = &commands[i];
    }
  }
  if (nearest)
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "unknown command '%s'; did you mean '%s'? See 'domybsctl help'", name,
                 nearest->name);
  else
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "unknown command '%s'; 'domybsctl help' lists the commands", name);
  return NULL;
}

/* ---- running ---- */

static gboolean
run_command (Ctl *ctl, int argc, char **argv, GError **error) {
  const CtlCommand *command = find_command (argv[0], error);

  if (!command)
    return FALSE;
  ctl->command = command->name;
  ctl->arguments = command->arguments;
  ctl->summary = command->summary;
  return command->run (ctl, argc, argv, error);
}

static gboolean
run_help (Ctl *ctl, int argc, char **argv, GError **error) {
  char *help[] = { NULL, (char *)"--help", NULL };

  ctl->command = "help";
  ctl->arguments = "[COMMAND]";
  ctl->summary = "Show the options of a command, or all commands";
  if (!ctl_parse (ctl, NULL, &argc, &argv, 0, 1, error))
    return FALSE;
  if (argc == 0 || strcmp (argv[0], "help") == 0) {
    show_help (ctl);
    return TRUE;
  }
  help[0] = argv[0];
  return run_command (ctl, 2, help, error);
}

/* Options before the command, then the command. */
static gboolean
run (Ctl *ctl, int argc, char **argv, GError **error) {
  gboolean version = FALSE, json; /* see asks_for_json */
  const GOptionEntry entries[] = {
    { "connect", 'c', 0, G_OPTION_ARG_FILENAME, &ctl->uri, NULL, NULL },
    { "json", 0, 0, G_OPTION_ARG_NONE, &json, NULL, NULL },
    { "quiet", 'q', 0, G_OPTION_ARG_NONE, &ctl->quiet, NULL, NULL },
    { "help", 'h', 0, G_OPTION_ARG_NONE, &ctl->help, NULL, NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &version, NULL, NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) reason = NULL;

  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_help_enabled (context, FALSE);
  g_option_context_set_strict_posix (context, TRUE);
  if (!g_option_context_parse (context, &argc, &argv, &reason)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s; see 'domybsctl help'", reason->message);
    return FALSE;
  }
  if (version) {
    ctl->command = "version";
    ctl_json_string (ctl, "version", DOMYBS_VERSION);
    ctl_print (ctl, "domybsctl " DOMYBS_VERSION "\n");
    return TRUE;
  }
  if (argc > 1 && strcmp (argv[1], "--") == 0) {
    argc--;
    argv++;
  }
  if (argc < 2 && ctl->help) {
    ctl->command = "help";
    show_help (ctl);
    return TRUE;
  }
  if (argc < 2) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "a command is missing; 'domybsctl help' lists them");
    return FALSE;
  }
  if (strcmp (argv[1], "help") == 0)
    return run_help (ctl, argc - 1, argv + 1, error);
  return run_command (ctl, argc - 1, argv + 1, error);
}

/* Prints what is left to be printed; returns the exit status. */
static int
finish (Ctl *ctl, const GError *error) {
  const int code = !error ? 0 : error->domain == CTL_ERROR ? error->code : CTL_ERROR_FAILED;

  if (error) {
    g_autofree char *clean = ctl_escape (error->message);
    JsonBuilder *builder = ctl_json (ctl);

    g_printerr ("domybsctl: %s: %s\n", ctl->interrupted ? "interrupted" : "error", clean);
    if (builder) {
      json_builder_set_member_name (builder, "error");
      json_builder_begin_object (builder);
      ctl_json_string (ctl, "code", ctl->interrupted ? "interrupted" : ctl_error_name (code));
      ctl_json_string (ctl, "message", error->message);
      json_builder_end_object (builder);
    }
  }
  if (ctl->builder)
    ctl_json_flush (ctl);
  if (fflush (stdout) != 0 || ferror (stdout)) {
    g_printerr ("domybsctl: error: standard output: can't write: %s\n", g_strerror (errno));
    return code ? code : CTL_ERROR_FAILED;
  }
  return ctl->interrupted ? CTL_EXIT_INTERRUPTED : code;
}

/* Wrong options are to be told in JSON as well, and GOption forgets all of a line that has one. */
static gboolean
asks_for_json (int argc, char **argv) {
  for (int i = 1; i < argc && strcmp (argv[i], "--") != 0; i++)
    if (strcmp (argv[i], "--json") == 0)
      return TRUE;
  return FALSE;
}

/* ---- the terminal's character set ---- */

static void
put (FILE *file, const char *text) {
  const char *charset;

  if (g_get_charset (&charset)) {
    fputs (text, file);
  } else {
    g_autofree char *plain = text_plain (text);
    g_autofree char *converted = g_convert_with_fallback (plain, -1, charset, "UTF-8", "?", NULL, NULL, NULL);

    fputs (converted ? converted : "?\n", file);
  }
  fflush (file);
}

static void
put_out (const char *text) {
  put (stdout, text);
}

static void
put_err (const char *text) {
  put (stderr, text);
}

int
main (int argc, char **argv) {
  g_autoptr (GError) error = NULL;
  Ctl ctl = { .json = asks_for_json (argc, argv) };
  int code;

  setlocale (LC_CTYPE, "");
  g_set_prgname ("domybsctl");
  g_set_print_handler (put_out);
  g_set_printerr_handler (put_err);
  run (&ctl, argc, argv, &error);
  code = finish (&ctl, error);
  g_free (ctl.uri);
  g_free (ctl.argv);
  return code;
}
