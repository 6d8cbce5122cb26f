/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "demo-story.h"

#include <string.h>

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
story_detach (Story *story, const char *plain_xml) {
  g_autofree char *xml = NULL;
  g_autofree char *remains = NULL;

  story_step (story, "The VM ends, and the domain is as it was …");
  screen_line (story->screen, "        # virsh destroy demo");
  lab_domain_stop (story->domain);
  story_run (story, "domybsctl detach demo");
  xml = lab_domain_xml (story->domain);
  story_check (story, g_str_equal (xml, plain_xml), "the domain's XML is what it was before, byte for byte");
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

