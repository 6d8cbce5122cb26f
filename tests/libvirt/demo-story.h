/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the demos tell what they do: steps with the time, commands with what they print, checks, and a program in the guest. */
#ifndef DOMYBS_TESTS_LIBVIRT_DEMO_STORY_H
#define DOMYBS_TESTS_LIBVIRT_DEMO_STORY_H

#include "lab-domain.h"
#include "screen.h"

typedef struct {
  Screen *screen;
  gint64 began, step_began;
  gboolean has_steps;
  unsigned failures;
  char *series; /* the guest's kernel */
  LabDomain *domain;
  char *plain_xml; /* of the domain before anything was attached */
  GPrintFunc print;
} Story;

/* For main(): reads the command line, --series and what entries say, and begins. Wrong usage ends the program with status 2. */
void story_begin (Story *story, const GOptionEntry *entries, int argc, char **argv);
/* Frees it, ends the host, and returns the program's exit status. */
int story_end (Story *story);

double story_seconds (gint64 began);
unsigned story_mib (guint64 bytes);

/* "[ 12s] …", with an empty line before it but for the first. */
void story_step (Story *story, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* "ok: …" or "NOT OK: …", which counts. */
void story_check (Story *story, gboolean good, const char *format, ...) G_GNUC_PRINTF (3, 4);
/* Shows a command, runs it on the host, and shows what it says. */
void story_run (Story *story, const char *command);

/* A domain "demo" as one writes it by hand. */
void story_define (Story *story, int boot_mib);

/* A number of a JSON object; 0: there is none. */
gint64 story_member (JsonObject *object, const char *name);

/* One line of /proc/meminfo ("MemTotal:"), in bytes; 0: it has none. */
guint64 story_meminfo (const char *meminfo, const char *key);

/* To the guest's agent, about the job `program`: what it printed since the last time; *ret_status: -1 while it runs. */
char *story_program_poll (Story *story, int *ret_status);
void story_program_request (Story *story, const char *request);
/* Adds what it printed to output. TRUE: wanted is in there now, which may be NULL. That it has ended without, found a wrong word, or
 * takes longer than until deadline (monotonic), ends the demo. */
gboolean story_program_said (Story *story, const char *wanted, gint64 deadline, GString *output);

/* The VM ends, the device goes, and all is as it was before. */
void story_detach (Story *story);

#endif
