/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page channel within the sandbox: a process that is a keeper first, then a worker, then works, and connects again. What it
 * lacks, it would be ended for. */
#include "donor-process.h"
#include "testing.h"

#include "io/page-channel.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS 4u

/* In place of an exec, at which the keeper's lock on all memory ends. */
SANDBOX_KEEPER_CALLS (SANDBOX_CALL (munlockall));

/* GLib's own asks whether stderr is a terminal. */
static GLogWriterOutput
write_log (GLogLevelFlags level, const GLogField *fields, gsize n_fields, gpointer data) {
  for (gsize i = 0; i < n_fields; i++)
    if (strcmp (fields[i].key, "MESSAGE") == 0)
      dprintf (STDERR_FILENO, "# %s\n", (const char *)fields[i].value);
  return G_LOG_WRITER_HANDLED;
}

static gboolean
tick (gpointer data) {
  return G_SOURCE_CONTINUE;
}

static PageChannelFigures
figures_of (const PageChannel *channel) {
  PageChannelFigures figures;

  page_channel_figures (channel, &figures);
  return figures;
}

static void
on_done (PageIo *io, int error) {
  *(int *)io->data = error;
}

static void
one (PageChannel *channel, enum page_op op, guint8 *buf) {
  int error = -1;
  PageIo io = { .op = op, .bytes = 65536, .buf = buf, .deadline_ms = 100000, .done = on_done, .data = &error };

  page_channel_submit (channel, &io);
  page_channel_kick (channel);
  while (error < 0)
    g_main_context_iteration (NULL, TRUE);
  g_assert_cmpint (error, ==, 0);
}

static void
go (const DonorProcess *donor, int tell_fd) {
  static guint8 buf[65536];
  PageChannelOptions options
      = { .name = "donor", .worker = 1, .export_blocks = BLOCKS, .vm = { 1 }, .host = { 1 }, .boot = { 1 }, .keep_ms = 50 };
  g_autoptr (GError) error = NULL;
  PageChannel *channel;

  g_log_set_default_handler (g_log_default_handler, NULL); /* not g_test's */
  g_log_set_writer_func (write_log, NULL, NULL);
  g_assert_true (sandbox_keeper (&error));
  g_assert_cmpint (sandbox_become_worker (), ==, 0);
  g_assert_cmpint (munlockall (), ==, 0);
  options.address = donor->address;
  if (donor->tls) {
    options.psk_identity = DONOR_IDENTITY;
    options.psk = donor_key;
    options.psk_bytes = sizeof donor_key;
  }
  channel = page_channel_new (&options, NULL, &error);
  g_assert_no_error (error);
  g_assert_true (sandbox_worker (&error));
  g_timeout_add (20, tick, NULL);
  page_channel_want (channel, BLOCKS);
  while (figures_of (channel).state != PAGE_CHANNEL_ATTACHED || figures_of (channel).lease.level != BLOCKS)
    g_main_context_iteration (NULL, TRUE);
  memset (buf, 7, sizeof buf);
  one (channel, PAGE_WRITE, buf);
  g_assert_cmpint (write (tell_fd, "x", 1), ==, 1);
  while (figures_of (channel).state != PAGE_CHANNEL_DOWN)
    g_main_context_iteration (NULL, TRUE);
  while (figures_of (channel).state != PAGE_CHANNEL_ATTACHED)
    g_main_context_iteration (NULL, TRUE);
  memset (buf, 0, sizeof buf);
  one (channel, PAGE_READ, buf);
  for (guint i = 0; i < sizeof buf; i++)
    g_assert_cmpuint (buf[i], ==, 7);
  one (channel, PAGE_TRIM, NULL);
  page_channel_free (channel);
  _exit (0);
}

static void
test_sandbox (gconstpointer data) {
  DonorProcess *donor = donor_process_new (BLOCKS, GPOINTER_TO_INT (data));
  int ends[2], status;
  pid_t child;
  char c;

  g_assert_cmpint (pipe (ends), ==, 0);
  child = fork ();
  g_assert_cmpint (child, >=, 0);
  if (child == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    close (ends[0]);
    go (donor, ends[1]);
  }
  close (ends[1]);
  g_assert_cmpint (read (ends[0], &c, 1), ==, 1);
  donor_process_kill (donor);
  donor_process_start (donor);
  g_assert_cmpint (waitpid (child, &status, 0), ==, child);
  g_test_message ("status %x", status);
  g_assert_true (WIFEXITED (status) && WEXITSTATUS (status) == 0);
  close (ends[0]);
  donor_process_free (donor);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_data_func ("/page-channel-sandbox/plain", GINT_TO_POINTER (FALSE), test_sandbox);
  g_test_add_data_func ("/page-channel-sandbox/tls", GINT_TO_POINTER (TRUE), test_sandbox);
  return g_test_run ();
}
