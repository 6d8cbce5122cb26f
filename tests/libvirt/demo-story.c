/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "demo-story.h"

#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void
print_nothing (const char *text) {
}

void
story_begin (Story *story, const GOptionEntry *entries, int argc, char **argv) {
  const GOptionEntry series[] = {
    { "series", 0, 0, G_OPTION_ARG_STRING, &story->series, "guest kernel: 6.1, 6.12 (default) or new", "SERIES" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new (NULL);
  g_autoptr (GError) error = NULL;
  const char *before = g_getenv ("DOMYBS_SECONDS");
  char *no_args[] = { argv[0], NULL }, **test_argv = no_args;
  int test_argc = 1;

  setlocale (LC_ALL, "");
  g_option_context_add_main_entries (context, series, NULL);
  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1) {
    fprintf (stderr, "%s: %s (see --help)\n", g_get_prgname (),
             error ? error->message : "what is left over on the command line is no option");
    exit (2);
  }
  if (!story->series)
    story->series = g_strdup ("6.12");
  /* The harness speaks the language of test runners, and this is no test. It also ends the VM on Ctrl-C. */
  story->print = g_set_print_handler (print_nothing);
  /* scripts/demo has told the time before us */
  story->began = g_get_monotonic_time () - (before ? g_ascii_strtoll (before, NULL, 10) : 0) * G_USEC_PER_SEC;
  vm_test_init (&test_argc, &test_argv);
  story->screen = screen_new (stdout);
}

int
story_end (Story *story) {
  screen_free (story->screen);
  vm_test_run (); /* no tests: only the harness's own files are deleted */
  host_end ();
  g_set_print_handler (story->print);
  g_free (story->series);
  g_free (story->plain_xml);
  return story->failures ? 1 : 0;
}

void
story_define (Story *story, int boot_mib) {
  g_autofree char *xml = g_strdup_printf ("<domain type='kvm'>\n"
                                          "  <name>demo</name>\n"
                                          "  <memory unit='MiB'>%d</memory>\n"
                                          "  <vcpu>2</vcpu>\n"
                                          "  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n"
                                          "  <features><acpi/><apic/></features>\n"
                                          "  <devices><memballoon model='none'/></devices>\n"
                                          "</domain>\n",
                                          boot_mib);

  story->domain = lab_domain_define (xml, &(LabDomainOptions){ .series = story->series, .ram_mib_max = (guint)boot_mib });
  story->plain_xml = lab_domain_xml (story->domain);
}

gint64
story_member (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) ? json_node_get_int (node) : 0;
}

double
story_seconds (gint64 began) {
  return (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC;
}

unsigned
story_mib (guint64 bytes) {
  return (unsigned)(bytes / VM_MIB);
}

guint64
story_meminfo (const char *meminfo, const char *key) {
  const char *line = strstr (meminfo, key);

  return line ? g_ascii_strtoull (line + strlen (key), NULL, 10) * 1024 : 0;
}

void
story_check (Story *story, gboolean good, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  screen_line (story->screen, "        %s %s", good ? "ok:" : "NOT OK:", text);
  story->failures += !good;
}

void
story_step (Story *story, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list args;

  va_start (args, format);
  text = g_strdup_vprintf (format, args);
  va_end (args);
  screen_line (story->screen, "%s[%4.0fs] %s", story->has_steps ? "\n" : "", story_seconds (story->began), text);
  story->has_steps = TRUE;
  story->step_began = g_get_monotonic_time ();
}

/* What it printed since the last time; *ret_status is its exit status, or -1 while it runs. */
char *
story_program_poll (Story *story, int *ret_status) {
  g_autofree char *answer = NULL;
  const char *rest;

  if (vm_request (story->domain->vm, 30, &answer, "poll program") != 0)
    vm_fail (story->domain->vm, "the guest's agent lost the program: %s", answer);
  *ret_status = g_str_has_prefix (answer, "exit ") ? (int)g_ascii_strtoll (answer + 5, NULL, 10) : -1;
  rest = strchr (answer, '\n');
  return g_strdup (rest ? rest + 1 : "");
}

void
story_program_request (Story *story, const char *request) {
  g_autofree char *answer = NULL;

  if (vm_request (story->domain->vm, 30, &answer, "%s", request) != 0)
    vm_fail (story->domain->vm, "%s: %s", request, answer);
}

gboolean
story_program_said (Story *story, const char *wanted, gint64 deadline, GString *output) {
  int status;
  g_autofree char *printed = story_program_poll (story, &status);

  g_string_append (output, printed);
  if (wanted && strstr (output->str, wanted))
    return TRUE;
  if (status >= 0 || strstr (output->str, "mismatch") || strstr (output->str, "failed"))
    vm_fail (story->domain->vm, "the program in the guest ended (status %d)%s%s; it said: %s", status,
             wanted ? " before it said: " : "", wanted ? wanted : "", output->str);
  if (g_get_monotonic_time () > deadline)
    vm_fail (story->domain->vm, "the program in the guest takes too long%s%s; it said: %s", wanted ? " to say: " : "",
             wanted ? wanted : "", output->str);
  return FALSE;
}

/* Shows a command, runs it on the host, and shows what it says. */
void
story_run (Story *story, const char *command) {
  g_auto (GStrv) argv = g_strsplit (command, " ", -1);
  g_autoptr (HostResult) result = NULL;
  g_auto (GStrv) lines = NULL;

  screen_line (story->screen, "        # %s", command);
  result = host_run_argv (host_get (), (const char *const *)argv);
  if (result->status != 0)
    host_fail (result, "the demo's VM %s", story->domain->name);
  lines = g_strsplit (result->out, "\n", -1);
  for (int i = 0; lines[i]; i++)
    if (*lines[i])
      screen_line (story->screen, "        %s", lines[i]);
}

void
story_detach (Story *story) {
  g_autofree char *xml = NULL;
  g_autofree char *remains = NULL;

  story_step (story, "The VM ends, and the domain is as it was …");
  screen_line (story->screen, "        # virsh destroy demo");
  lab_domain_stop (story->domain);
  story_run (story, "domybsctl detach demo");
  xml = lab_domain_xml (story->domain);
  story_check (story, g_str_equal (xml, story->plain_xml), "the domain's XML is what it was before, byte for byte");
  for (int i = 0; i < 10; i++) {
    g_free (remains);
    remains = host_remains (host_get ());
    if (!*remains)
      break;
    g_usleep (300 * 1000);
  }
  story_check (story, !*remains, "no process, socket or file of it remains on the host%s%s", *remains ? ":\n" : "", remains);
  lab_domain_free (story->domain);
}

