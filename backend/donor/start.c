/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/start.h"
#include "donor/arena.h"
#include "io/error.h"
#include "io/listen.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"
#include "io/tcp.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (unlink), SANDBOX_CALL (unlinkat));

#define BACKLOG 64
/* Of a worker, beside the arena: keys. */
#define WORKER_LOCK_BYTES ((gsize)8 << 20)

typedef struct {
  const DonorOptions *options;
  struct process_keeper_options keeper;
} Start;

static int *
fd_of (struct process_keeper_options *keeper, enum donor_fd number) {
  return &keeper->fds[(int)number - PROCESS_FD_FIRST];
}

/* Memory that outlives workers and can't change its size under them. */
static int
make_memory (const char *name, gsize bytes, void **ret_memory, GError **error) {
  const int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

  *ret_memory = MAP_FAILED;
  if (fd >= 0 && ftruncate (fd, (off_t)bytes) == 0 && fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
    *ret_memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (*ret_memory != MAP_FAILED)
    return fd;
  domybs_error_errno (error, "can't make %" G_GSIZE_FORMAT " bytes of memory (%s)", bytes, name);
  if (fd >= 0)
    close (fd);
  return -1;
}

static gboolean
make_page (Start *start, GError **error) {
  struct donor_page *page;
  void *memory;

  *fd_of (&start->keeper, DONOR_FD_PAGE) = make_memory ("domybs-donor-handover", PROCESS_PAGE_BYTES, &memory, error);
  if (memory == MAP_FAILED)
    return FALSE;
  page = memory;
  page->process.version = DONOR_PAGE_VERSION;
  page->process.parts = g_strv_length (start->options->listen);
  start->keeper.page = &page->process;
  if (getrandom (page->process.cookie, PROCESS_COOKIE_BYTES, 0) == (gssize)PROCESS_COOKIE_BYTES)
    return TRUE;
  domybs_error_errno (error, "no random numbers");
  return FALSE;
}

static gboolean
make_arena (Start *start, GError **error) {
  const struct lease_donor_geometry *geometry = &start->options->geometry;
  const gsize bytes = lease_donor_state_bytes (geometry);
  void *table;

  *fd_of (&start->keeper, DONOR_FD_TABLE) = make_memory ("domybs-donor-table", bytes, &table, error);
  if (table == MAP_FAILED)
    return FALSE;
  lease_donor_format (table, geometry, start->keeper.page->cookie);
  munmap (table, bytes);
  *fd_of (&start->keeper, DONOR_FD_ARENA) = arena_create (geometry->n_blocks, error);
  return *fd_of (&start->keeper, DONOR_FD_ARENA) >= 0;
}

static int
open_keys (const char *path) {
  return open (path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

/* Another worker reads the keys that there are by then. A file that can't be opened now changes nothing. */
static bool
renew_keys (struct process_keeper_options *keeper, bool first) {
  const Start *start = (const Start *)((const char *)keeper - offsetof (Start, keeper));
  int *fd = fd_of (keeper, DONOR_FD_KEYS), renewed;

  if (first || !start->options->psk_path)
    return true;
  renewed = process_keeper_move_up (open_keys (start->options->psk_path));
  if (renewed < 0) {
    fprintf (stderr, "warning: domybs-donor: can't open %s again: %s; the keys stay as they were\n", start->options->psk_path,
             g_strerror (errno));
    return true;
  }
  close (*fd);
  *fd = renewed;
  return true;
}

static gboolean
open_sockets (Start *start, GError **error) {
  const DonorOptions *options = start->options;

  for (unsigned i = 0; options->listen[i]; i++) {
    int *fd = &start->keeper.fds[DONOR_FD_LISTEN - PROCESS_FD_FIRST + (int)i];

    *fd = tcp_listen (options->listen[i], BACKLOG, error);
    if (*fd < 0)
      return FALSE;
  }
  return TRUE;
}

/* The control socket is the last one: where it is, all is. */
static gboolean
open_all (Start *start, GError **error) {
  const DonorOptions *options = start->options;
  int *control = fd_of (&start->keeper, DONOR_FD_CONTROL), *keys = fd_of (&start->keeper, DONOR_FD_KEYS);

  if (!make_page (start, error) || !make_arena (start, error))
    return FALSE;
  if (options->psk_path && (*keys = open_keys (options->psk_path)) < 0) {
    domybs_error_errno (error, "can't open %s", options->psk_path);
    return FALSE;
  }
  if (!open_sockets (start, error))
    return FALSE;
  if (options->control_path)
    *control = listen_unix (options->control_path, &(ListenRights){ .group = LISTEN_GROUP_UNCHANGED, .mode = 0600 }, error);
  return !options->control_path || *control >= 0;
}

static void
clean_up (Start *start) {
  const DonorOptions *options = start->options;

  if (*fd_of (&start->keeper, DONOR_FD_CONTROL) >= 0)
    unlink (options->control_path);
  for (unsigned i = 0; options->listen[i]; i++)
    if (g_str_has_prefix (options->listen[i], "unix:") && start->keeper.fds[DONOR_FD_LISTEN - PROCESS_FD_FIRST + (int)i] >= 0)
      unlink (options->listen[i] + strlen ("unix:"));
}

int
donor_start_run (const DonorOptions *options, char *const *arguments) {
  static Start start;
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  int status = EXIT_FAILURE;

  start.options = options;
  start.keeper = (struct process_keeper_options){
    .program = "domybs-donor", .name = options->name, .n_fds = (unsigned)(DONOR_FD_END - PROCESS_FD_FIRST), .before = renew_keys
  };
  for (unsigned i = 0; i < PROCESS_FDS_MAX; i++)
    start.keeper.fds[i] = -1;
  g_ptr_array_add (argv, g_strdup (arguments[0]));
  g_ptr_array_add (argv, g_strdup ("--worker")); /* not at the end: "--" may be there */
  for (arguments++; *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  g_ptr_array_add (argv, NULL);
  start.keeper.worker_argv = (char *const *)argv->pdata;
  sandbox_let_worker_lock (WORKER_LOCK_BYTES + (options->lock ? options->geometry.n_blocks * ARENA_BLOCK_BYTES : 0));
  if (open_all (&start, &error) && sandbox_keeper (&error))
    status = process_keeper_run (&start.keeper);
  if (error)
    fprintf (stderr, "domybs-donor: %s\n", error->message);
  clean_up (&start);
  return status;
}
