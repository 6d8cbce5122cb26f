/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor-process.h"
#include "testing.h"

#include "donor/arena.h"
#include "donor/lender.h"
#include "donor/page-server.h"
#include "io/source.h"
#include "io/tcp.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

const guint8 donor_key[32] = { 7, 1, 7, 2, 7, 3, 7, 4, 7, 5, 7, 6 };

#define N_LEASES 8u

struct command {
  enum { REVOKE, FORGET, COUNT } what;
  guint64 number;
};

/* ---- the child ---- */

struct child {
  Lender *lender;
  PageServer *server;
  int commands;
};

static gboolean
is_old (gpointer export, gpointer data) {
  return lender_export_is_old (export, data);
}

static void
close_old (gpointer data, const LenderOld *old) {
  struct child *child = data;

  page_server_close_export (child->server, is_old, (gpointer)old);
}

static gboolean
on_command (int fd, GIOCondition condition, gpointer data) {
  struct child *const child = data;
  struct command command;
  struct lease_info lease;
  guint64 answer = 0;

  if (read (fd, &command, sizeof command) != sizeof command)
    _exit (0);
  for (guint i = 0; i < N_LEASES; i++)
    if (lease_donor_lease (lender_leases (child->lender), i, &lease)) {
      if (command.what == REVOKE)
        answer = lender_revoke (child->lender, lease.lease, command.number, NULL);
      else if (command.what == FORGET)
        answer = lender_forget (child->lender, lease.lease, NULL);
      else
        answer++;
    }
  g_assert_cmpint (write (fd, &answer, sizeof answer), ==, sizeof answer);
  return G_SOURCE_CONTINUE;
}

static SecureSide *
server_side (void) {
  g_autoptr (GString) text = g_string_new (DONOR_IDENTITY ":");
  g_autoptr (PskKeys) keys = NULL;
  g_autoptr (GError) error = NULL;
  SecureSide *side;

  for (guint i = 0; i < sizeof donor_key; i++)
    g_string_append_printf (text, "%02x", donor_key[i]);
  keys = psk_keys_parse (text->str, text->len, "test", NULL);
  g_assert_nonnull (keys);
  side = secure_side_new_server (keys, &error);
  g_assert_no_error (error);
  return side;
}

static void
serve (DonorProcess *donor, int commands) {
  GMainContext *const context = g_main_context_new ();
  const LenderOptions options = { .name = "test",
                                  .geometry = { donor->n_blocks, N_LEASES },
                                  .limits = { N_LEASES, donor->n_blocks },
                                  .revoke_ms = 60000,
                                  .fixed = TRUE };
  const PageServerLimits limits = { 0 };
  struct child child = { .commands = commands };
  g_autoptr (GError) error = NULL;
  Arena *arena;
  int fd;
  guint port;

  g_main_context_push_thread_default (context);
  fd = tcp_listen (donor->address, 64, &error);
  g_assert_no_error (error);
  port = tcp_port (fd);
  arena = arena_open (dup (donor->arena_fd), donor->n_blocks, FALSE, &error);
  g_assert_no_error (error);
  child.lender = lender_new (&options, arena, donor->table, donor->table_bytes, donor->n_blocks, &error);
  g_assert_no_error (error);
  child.server = page_server_new (fd, donor->tls ? server_side () : NULL, &lender_exports, child.lender, &limits);
  g_assert_nonnull (child.server);
  lender_set_fence (child.lender, close_old, &child);
  lender_start (child.lender);
  source_fd (NULL, commands, G_IO_IN | G_IO_HUP, on_command, &child);
  g_assert_cmpint (write (commands, &port, sizeof port), ==, sizeof port);
  for (;;)
    g_main_context_iteration (context, TRUE);
}

/* ---- the test's side ---- */

static void
format (DonorProcess *donor) {
  const struct lease_donor_geometry geometry = { donor->n_blocks, N_LEASES };
  uint8_t incarnation[LEASE_ID_BYTES];

  for (guint i = 0; i < sizeof incarnation; i++)
    incarnation[i] = (uint8_t)g_random_int ();
  memset (donor->table, 0, donor->table_bytes);
  lease_donor_format (donor->table, &geometry, incarnation);
  donor->arena_fd = arena_create (donor->n_blocks, NULL);
  g_assert_cmpint (donor->arena_fd, >=, 0);
}

DonorProcess *
donor_process_new (guint64 n_blocks, gboolean tls) {
  const struct lease_donor_geometry geometry = { n_blocks, N_LEASES };
  DonorProcess *donor = g_new0 (DonorProcess, 1);

  donor->n_blocks = n_blocks;
  donor->tls = tls;
  donor->commands = -1;
  g_strlcpy (donor->address, "127.0.0.1:0", sizeof donor->address);
  donor->table_bytes = lease_donor_state_bytes (&geometry);
  donor->table = mmap (NULL, donor->table_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  g_assert_true (donor->table != MAP_FAILED);
  format (donor);
  donor_process_start (donor);
  return donor;
}

void
donor_process_start (DonorProcess *donor) {
  int ends[2];

  g_assert_cmpint (donor->pid, ==, 0);
  g_assert_cmpint (socketpair (AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), ==, 0);
  donor->pid = fork ();
  g_assert_cmpint (donor->pid, >=, 0);
  if (donor->pid == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    close (ends[0]);
    serve (donor, ends[1]);
    _exit (1);
  }
  close (ends[1]);
  donor->commands = ends[0];
  g_assert_cmpint (read (ends[0], &donor->port, sizeof donor->port), ==, sizeof donor->port);
  g_snprintf (donor->address, sizeof donor->address, "127.0.0.1:%u", donor->port);
}

void
donor_process_kill (DonorProcess *donor) {
  if (donor->pid == 0)
    return;
  kill (donor->pid, SIGKILL);
  g_assert_cmpint (waitpid (donor->pid, NULL, 0), ==, donor->pid);
  donor->pid = 0;
  close (donor->commands);
}

void
donor_process_lose_arena (DonorProcess *donor) {
  g_assert_cmpint (donor->pid, ==, 0);
  close (donor->arena_fd);
  format (donor);
}

void
donor_process_stop (DonorProcess *donor, gboolean stop) {
  if (stop)
    g_assert_true (testing_stop (donor->pid));
  else
    kill (donor->pid, SIGCONT);
}

void
donor_process_free (DonorProcess *donor) {
  donor_process_kill (donor);
  close (donor->arena_fd);
  munmap (donor->table, donor->table_bytes);
  g_free (donor);
}

static guint64
ask (DonorProcess *donor, int what, guint64 number) {
  const struct command command = { what, number };
  guint64 answer;

  g_assert_cmpint (write (donor->commands, &command, sizeof command), ==, sizeof command);
  g_assert_cmpint (read (donor->commands, &answer, sizeof answer), ==, sizeof answer);
  return answer;
}

void
donor_process_revoke (DonorProcess *donor, guint64 level) {
  g_assert_cmpuint (ask (donor, REVOKE, level), ==, 1);
}

void
donor_process_forget (DonorProcess *donor) {
  g_assert_cmpuint (ask (donor, FORGET, 0), ==, 1);
}

guint
donor_process_leases (DonorProcess *donor) {
  return (guint)ask (donor, COUNT, 0);
}
