/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the harness asks the guest's agent for; the protocol is described at the head of guest/agent.c. */
#include "vm-internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_SECONDS 120.0
#define DRIVER_SECONDS 20.0
#define POLL_US 50000

/* ---- requests ---- */

/* Reads an answer's first line and its bytes. */
static void
read_answer (Vm *vm, double seconds, char **ret_tag, int *ret_status, char **ret_output) {
  g_autoptr (GError) error = NULL;
  g_autofree char *line = channel_read_line (vm->agent, seconds, &error);
  g_auto (GStrv) words = NULL;

  if (!line)
    vm_fail_with (vm, error, "waiting for the guest's agent");
  words = g_strsplit (line, " ", -1);
  if (g_strv_length (words) != 3)
    vm_fail (vm, "the guest's agent said '%s', which is no answer", line);
  *ret_output = channel_read_bytes (vm->agent, (gsize)g_ascii_strtoull (words[2], NULL, 10), seconds, &error);
  if (!*ret_output)
    vm_fail_with (vm, error, "waiting for the guest's agent");
  *ret_status = atoi (words[1]);
  *ret_tag = g_strdup (words[0]);
}

static int
request (Vm *vm, double seconds, char **ret_output, const char *text) {
  g_autoptr (GError) error = NULL;
  g_autofree char *expected = g_strdup_printf ("%u", ++vm->tag);
  g_autofree char *line = g_strdup_printf ("%s %s\n", expected, text);

  if (strchr (text, '\n'))
    vm_fail (vm, "a request to the agent is one line: '%s'", text);
  if (!channel_write (vm->agent, line, strlen (line), seconds, &error))
    vm_fail_with (vm, error, text);
  for (;;) {
    g_autofree char *tag = NULL;
    g_autofree char *output = NULL;
    int status;

    read_answer (vm, seconds, &tag, &status, &output);
    if (g_str_equal (tag, "hello"))
      vm_fail (vm, "the guest booted again, unasked, during '%s'", text);
    if (!g_str_equal (tag, expected))
      continue; /* to a request that was given up */
    if (ret_output)
      *ret_output = g_steal_pointer (&output);
    return status;
  }
}

int
vm_request (Vm *vm, double seconds, char **ret_output, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  return request (vm, seconds, ret_output, text);
}

void
vm_wait_hello (Vm *vm, double seconds) {
  gint64 began = g_get_monotonic_time ();
  g_autoptr (GError) error = NULL;

  for (;;) {
    double left = seconds - (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC;
    g_autofree char *line = channel_read_line (vm->agent, left, &error);
    const char *hello;

    if (!line)
      vm_fail_with (vm, error, "waiting for the guest to boot");
    /* a guest that was reset may have been in the middle of a line */
    hello = strstr (line, "hello 0 ");
    if (hello) {
      g_autofree char *release = channel_read_bytes (vm->agent, strtoul (hello + 8, NULL, 10), left, &error);

      if (!release)
        vm_fail_with (vm, error, "waiting for the guest to boot");
      break;
    }
  }
  vm->boot_seconds = (double)(g_get_monotonic_time () - began) / G_USEC_PER_SEC;
  g_clear_pointer (&vm->driver_folder, g_free);
}

int
vm_run (Vm *vm, char **ret_output, const char *format, ...) {
  g_autofree char *command = NULL;
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  text = g_strconcat ("run ", command, NULL);
  return request (vm, REQUEST_SECONDS, ret_output, text);
}

char *
vm_run_ok (Vm *vm, const char *format, ...) {
  g_autofree char *command = NULL;
  g_autofree char *text = NULL;
  char *output = NULL;
  va_list arguments;
  int status;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  text = g_strconcat ("run ", command, NULL);
  status = request (vm, REQUEST_SECONDS, &output, text);
  if (status)
    vm_fail (vm, "in the guest, '%s' ended with status %d:\n%s", command, status, output);
  return output;
}

/* ---- background jobs ---- */

static GString *
job_output (Vm *vm, const char *job) {
  GString *output = g_hash_table_lookup (vm->jobs, job);

  if (!output) {
    output = g_string_new (NULL);
    g_hash_table_insert (vm->jobs, g_strdup (job), output);
  }
  return output;
}

static void
job_forget (Vm *vm, const char *job) {
  g_string_free (job_output (vm, job), TRUE);
  g_hash_table_remove (vm->jobs, job);
}

/* Fetches what it printed. TRUE while it runs, else with its status. */
static gboolean
job_poll (Vm *vm, const char *job, int *ret_status) {
  g_autofree char *answer = NULL;
  char *output;
  int status = vm_request (vm, REQUEST_SECONDS, &answer, "poll %s", job);

  if (status)
    vm_fail (vm, "the guest's agent knows no job %s", job);
  output = strchr (answer, '\n');
  *output++ = '\0';
  g_string_append (job_output (vm, job), output);
  if (g_str_equal (answer, "running"))
    return TRUE;
  *ret_status = atoi (answer + strlen ("exit "));
  return FALSE;
}

void
vm_job_start (Vm *vm, const char *job, const char *format, ...) {
  g_autofree char *command = NULL;
  g_autofree char *answer = NULL;
  va_list arguments;
  int status;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  status = vm_request (vm, REQUEST_SECONDS, &answer, "start %s %s", job, command);
  if (status)
    vm_fail (vm, "starting the job %s, '%s': %s", job, command, answer);
}

void
vm_job_tell (Vm *vm, const char *job, const char *text) {
  int status = vm_request (vm, REQUEST_SECONDS, NULL, "tell %s %s", job, text);

  if (status)
    vm_fail (vm, "telling the job %s '%s': %s", job, text, g_strerror (status));
}

void
vm_job_kill (Vm *vm, const char *job) {
  int status = vm_request (vm, REQUEST_SECONDS, NULL, "kill %s", job);

  if (status)
    vm_fail (vm, "killing the job %s: %s", job, g_strerror (status));
  job_forget (vm, job);
}

gboolean
vm_job_is_running (Vm *vm, const char *job) {
  int status;

  return job_poll (vm, job, &status);
}

/* The next whole line of what was fetched, NULL if there is none yet. */
static char *
job_take_line (Vm *vm, const char *job) {
  GString *output = job_output (vm, job);
  const char *end = strchr (output->str, '\n');
  char *line;

  if (!end)
    return NULL;
  line = g_strndup (output->str, (gsize)(end - output->str));
  g_string_erase (output, 0, end + 1 - output->str);
  return line;
}

char *
vm_job_expect (Vm *vm, const char *job, const char *prefix, double seconds) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);
  gboolean running = TRUE;
  int status = 0;

  for (;;) {
    char *line;

    while ((line = job_take_line (vm, job))) {
      if (g_str_has_prefix (line, prefix))
        return line;
      if (g_str_has_prefix (line, "failed") || g_str_has_prefix (line, "mismatch"))
        vm_fail (vm, "the job %s, expected to say '%s…', said: %s", job, prefix, line);
      g_free (line);
    }
    if (!running)
      vm_fail (vm, "the job %s ended with status %d before it said '%s…'", job, status, prefix);
    if (g_get_monotonic_time () > deadline)
      vm_fail (vm, "the job %s has not said '%s…' after %g s", job, prefix, seconds);
    running = job_poll (vm, job, &status);
    if (running && !strchr (job_output (vm, job)->str, '\n'))
      g_usleep (POLL_US);
  }
}

int
vm_job_wait (Vm *vm, const char *job, double seconds, char **ret_output) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(seconds * G_USEC_PER_SEC);
  int status = 0;

  while (job_poll (vm, job, &status)) {
    if (g_get_monotonic_time () > deadline)
      vm_fail (vm, "the job %s runs on after %g s; so far it said:\n%s", job, seconds, job_output (vm, job)->str);
    g_usleep (POLL_US);
  }
  if (ret_output)
    *ret_output = g_strdup (job_output (vm, job)->str);
  vm_job_kill (vm, job);
  return status;
}

char *
vm_job_ask (Vm *vm, const char *job, const char *text, double seconds) {
  vm_job_tell (vm, job, text);
  return vm_job_expect (vm, job, "ok", seconds);
}

/* ---- modules and files ---- */

int
vm_load (Vm *vm, const char *module, const char *parameters) {
  g_clear_pointer (&vm->driver_folder, g_free); /* the kernel may number the device anew */
  return vm_request (vm, REQUEST_SECONDS, NULL, "load %s %s", module, parameters);
}

int
vm_unload (Vm *vm, const char *module) {
  return vm_request (vm, REQUEST_SECONDS, NULL, "unload %s", module);
}

int
vm_write (Vm *vm, const char *path, const char *text) {
  return vm_request (vm, REQUEST_SECONDS, NULL, "write %s %s", path, text);
}

char *
vm_read_if_there (Vm *vm, const char *path) {
  g_autofree char *output = NULL;

  if (vm_request (vm, REQUEST_SECONDS, &output, "read %s", path))
    return NULL;
  return g_strchomp (g_steal_pointer (&output));
}

char *
vm_read (Vm *vm, const char *path) {
  g_autofree char *output = NULL;
  int status = vm_request (vm, REQUEST_SECONDS, &output, "read %s", path);

  if (status)
    vm_fail (vm, "in the guest, reading %s: %s", path, g_strerror (status));
  return g_strchomp (g_steal_pointer (&output));
}

/* The number after `key` and any of " :" at the beginning of a line. */
static guint64
number_in (Vm *vm, const char *path, const char *key) {
  g_autofree char *text = vm_read (vm, path);
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);
  gsize length = strlen (key);

  for (int i = 0; lines[i]; i++)
    if (g_str_has_prefix (lines[i], key) && strchr (": ", lines[i][length]) && lines[i][length])
      return g_ascii_strtoull (lines[i] + length + strspn (lines[i] + length, ": "), NULL, 10);
  vm_fail (vm, "in the guest, %s has no line '%s'", path, key);
}

guint64
vm_guest_meminfo (Vm *vm, const char *key) {
  return number_in (vm, "/proc/meminfo", key) * 1024;
}

guint64
vm_guest_vmstat (Vm *vm, const char *key) {
  return number_in (vm, "/proc/vmstat", key);
}

/* ---- the driver ---- */

static const char *
driver_folder (Vm *vm) {
  gint64 deadline = g_get_monotonic_time () + (gint64)(DRIVER_SECONDS * G_USEC_PER_SEC);

  while (!vm->driver_folder) {
    g_autofree char *found = NULL;

    /* numbered by the kernel, so the folder has to be looked for; a shell is not needed once it is found */
    if (vm_run (vm, &found, "ls -d /sys/bus/virtio/drivers/virtio_domybs/virtio*/domybs") == 0)
      vm->driver_folder = g_strdup (g_strchomp (found));
    else if (g_get_monotonic_time () > deadline)
      vm_fail (vm, "the guest driver has bound no device (%s)", found);
    else
      g_usleep (POLL_US);
  }
  return vm->driver_folder;
}

char *
vm_driver_get (Vm *vm, const char *file) {
  g_autofree char *path = g_strdup_printf ("%s/%s", driver_folder (vm), file);

  return vm_read (vm, path);
}

guint64
vm_driver_number (Vm *vm, const char *file) {
  g_autofree char *text = vm_driver_get (vm, file);
  guint64 number;

  if (!g_ascii_string_to_unsigned (text, 10, 0, G_MAXUINT64, &number, NULL))
    vm_fail (vm, "the driver's %s is '%s', not a number", file, text);
  return number;
}

int
vm_driver_set (Vm *vm, const char *file, const char *format, ...) {
  g_autofree char *path = g_strdup_printf ("%s/%s", driver_folder (vm), file);
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  return vm_write (vm, path, text);
}
