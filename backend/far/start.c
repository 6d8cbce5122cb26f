/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/start.h"
#include "far/donor-table.h"
#include "far/keeper.h"
#include "far/object-disk.h"
#include "io/error.h"
#include "io/sandbox-calls.h"
#include "io/sandbox.h"
#include "io/seal.h"
#include "io/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (unlink), SANDBOX_CALL (unlinkat));

/* A worker's heap has the key schedules, some KiB for each disk, and is locked as a whole while it is small. */
#define WORKER_LOCK_BYTES ((size_t)8 << 20)

typedef struct {
  const FarOptions *options;
  struct far_keeper_options keeper;
  uint8_t *key; /* mapped; NULL: none */
  struct far_identities *identities; /* mapped; NULL: none */
  gboolean made_storage[FAR_DISKS_MAX];
} Start;

/* Memory that outlives workers and can't change its size under them. */
static int
make_memory (const char *name, size_t bytes, GError **error) {
  const int fd = memfd_create (name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

  if (fd >= 0 && ftruncate (fd, (off_t)bytes) == 0 && fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
    return fd;
  domybs_error_errno (error, "can't make %zu bytes of memory (%s)", bytes, name);
  if (fd >= 0)
    close (fd);
  return -1;
}

static void *
map_memory (int fd, size_t bytes, GError **error) {
  void *memory = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

  if (memory != MAP_FAILED)
    return memory;
  domybs_error_errno (error, "can't map %zu bytes of memory", bytes);
  return NULL;
}

/* We keep the only mapping that can be written to, to wipe it at the end. */
static gboolean
make_key (Start *start, GError **error) {
  if (!start->options->seal)
    return TRUE;
  start->keeper.key_fd = make_memory ("domybs-far-key", SEAL_KEY_BYTES, error);
  if (start->keeper.key_fd < 0 || !(start->key = map_memory (start->keeper.key_fd, SEAL_KEY_BYTES, error)))
    return FALSE;
  if (mlock (start->key, SEAL_KEY_BYTES) < 0 || madvise (start->key, FAR_PAGE_BYTES, MADV_DONTDUMP) < 0)
    g_debug ("key: %s", g_strerror (errno)); /* said by the sandbox, which locks all */
  if (getrandom (start->key, SEAL_KEY_BYTES, 0) == (ssize_t)SEAL_KEY_BYTES
      && fcntl (start->keeper.key_fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0)
    return TRUE;
  domybs_error_errno (error, "can't make a key");
  return FALSE;
}

/* 32 hexadecimal digits, maybe with dashes. */
static gboolean
read_id (const char *path, uint8_t id[16]) {
  g_autofree char *text = NULL;
  unsigned n = 0;

  if (!g_file_get_contents (path, &text, NULL, NULL))
    return FALSE;
  memset (id, 0, 16);
  for (const char *p = text; *p && n < 32; p++)
    if (g_ascii_isxdigit (*p)) {
      id[n / 2] = (uint8_t)(id[n / 2] << 4 | g_ascii_xdigit_value (*p));
      n++;
    }
  return n == 32;
}

/* Who we are to donors. As the key, it is ours to wipe. */
static gboolean
make_identities (Start *start, GError **error) {
  const FarOptions *options = start->options;

  if (options->n_donors == 0 && !options->donors_later)
    return TRUE;
  start->keeper.donors_fd = make_memory ("domybs-far-donors", FAR_DONORS_BYTES, error);
  if (start->keeper.donors_fd < 0 || !(start->identities = map_memory (start->keeper.donors_fd, FAR_DONORS_BYTES, error)))
    return FALSE;
  if (mlock (start->identities, FAR_DONORS_BYTES) < 0 || madvise (start->identities, FAR_DONORS_BYTES, MADV_DONTDUMP) < 0)
    g_debug ("keys of donors: %s", g_strerror (errno));
  if (!read_id ("/proc/sys/kernel/random/boot_id", start->identities->boot)) {
    domybs_error_errno (error, "can't read the host's boot id, which donors want to know");
    return FALSE;
  }
  if (!read_id ("/etc/machine-id", start->identities->host)) {
    g_warning ("this host has no /etc/machine-id: donors will not know it again after a restart of the host, and keep what they have lent for a day; see "
               "systemd-machine-id-setup(1)");
    memcpy (start->identities->host, start->identities->boot, sizeof start->identities->host);
  }
  for (unsigned i = 0; i < options->n_donors; i++)
    if (!far_donor_key (&options->donors[i], &start->identities->donors[i], error))
      return FALSE;
  far_donor_table_format (start->identities, options); /* from now on the workers' */
  if (fcntl (start->keeper.donors_fd, F_ADD_SEALS, F_SEAL_SEAL) == 0)
    return TRUE;
  domybs_error_errno (error, "can't seal what donors' keys are in");
  return FALSE;
}

static gboolean
make_page (Start *start, GError **error) {
  start->keeper.page_fd = make_memory ("domybs-far-handover", FAR_HANDOVER_BYTES, error);
  if (start->keeper.page_fd < 0 || !(start->keeper.page = map_memory (start->keeper.page_fd, FAR_HANDOVER_BYTES, error)))
    return FALSE;
  if (getrandom (start->keeper.page->cookie, FAR_COOKIE_BYTES, 0) == (ssize_t)FAR_COOKIE_BYTES)
    return TRUE;
  domybs_error_errno (error, "no random numbers");
  return FALSE;
}

static gboolean
make_store (const FarDiskChoice *choice, struct far_keeper_disk *disk, GError **error) {
  const size_t bytes = far_store_state_bytes (&choice->geometry);
  void *state;

  disk->state_fd = make_memory ("domybs-far-state", bytes, error);
  if (disk->state_fd < 0 || !(state = map_memory (disk->state_fd, bytes, error)))
    return FALSE;
  far_store_format (state, &choice->geometry);
  munmap (state, bytes);
  disk->stage_fd = make_memory ("domybs-far-stage", (size_t)choice->geometry.n_stage_slots * FAR_SEGMENT_BYTES, error);
  return disk->stage_fd >= 0;
}

static gboolean
make_copies (const FarDiskChoice *choice, struct far_keeper_disk *disk, GError **error) {
  const size_t bytes = copies_state_bytes (choice->geometry.n_places);
  void *state;

  disk->copies_fd = make_memory ("domybs-far-copies", bytes, error);
  if (disk->copies_fd < 0 || !(state = map_memory (disk->copies_fd, bytes, error)))
    return FALSE;
  copies_format (state, choice->geometry.n_places);
  munmap (state, bytes);
  return TRUE;
}

static gboolean
open_disk (Start *start, unsigned i, GError **error) {
  const FarDiskChoice *choice = &start->options->disks[i];
  struct far_keeper_disk *disk = &start->keeper.disks[i];

  disk->name = choice->name;
  disk->listen_fd = listen_unix (choice->socket_path, &start->options->socket_rights, error);
  if (disk->listen_fd < 0)
    return FALSE;
  if (!storage_spec_is_nbd (choice->storage)) {
    const gboolean was_there = faccessat (AT_FDCWD, choice->storage, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

    disk->storage_fd = storage_open_file (choice->storage, (guint64)choice->geometry.n_places * FAR_SEGMENT_BYTES, error);
    if (disk->storage_fd < 0)
      return FALSE;
    start->made_storage[i] = !was_there;
  }
  return make_store (choice, disk, error) && (choice->protection == COPIES_STORAGE || make_copies (choice, disk, error));
}

static gboolean
open_objects (Start *start, GError **error) {
  const FarOptions *options = start->options;

  for (unsigned i = 0; i < options->n_objects; i++)
    if (!object_disk_open (&options->objects[i], &options->socket_rights, &start->keeper.disks[options->n_disks + i], error))
      return FALSE;
  return TRUE;
}

/* The control socket is the last one: where it is, the disks are. */
static gboolean
open_all (Start *start, GError **error) {
  for (unsigned i = 0; i < start->options->n_disks; i++)
    if (!open_disk (start, i, error))
      return FALSE;
  if (!open_objects (start, error) || !make_page (start, error) || !make_key (start, error) || !make_identities (start, error))
    return FALSE;
  if (start->options->control_path)
    start->keeper.control_fd
        = listen_unix (start->options->control_path, &(ListenRights){ .group = LISTEN_GROUP_UNCHANGED, .mode = 0600 }, error);
  return !start->options->control_path || start->keeper.control_fd >= 0;
}

/* If it still is what we made. */
static void
remove_storage (int fd, const char *path) {
  struct stat ours, there;

  if (fstat (fd, &ours) == 0 && fstatat (AT_FDCWD, path, &there, AT_SYMLINK_NOFOLLOW) == 0 && ours.st_dev == there.st_dev
      && ours.st_ino == there.st_ino)
    unlink (path);
}

/* What is in the storage copies is worth nothing without the key. A file that was there before is the operator's, who may have
 * had a reason for its place and rights: it stays. */
static void
clean_up (Start *start) {
  if (start->key)
    explicit_bzero (start->key, SEAL_KEY_BYTES);
  if (start->identities)
    explicit_bzero (start->identities, FAR_DONORS_BYTES);
  if (start->keeper.control_fd >= 0)
    unlink (start->options->control_path);
  for (unsigned i = 0; i < start->options->n_objects; i++)
    if (start->keeper.disks[start->options->n_disks + i].listen_fd >= 0)
      unlink (start->options->objects[i].socket_path);
  for (unsigned i = 0; i < start->options->n_disks; i++) {
    if (start->keeper.disks[i].listen_fd >= 0)
      unlink (start->options->disks[i].socket_path);
    if (start->made_storage[i])
      remove_storage (start->keeper.disks[i].storage_fd, start->options->disks[i].storage);
  }
}

int
far_start_run (const FarOptions *options, char *const *arguments) {
  static Start start;
  g_autoptr (GPtrArray) argv = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  int status = EXIT_FAILURE;

  start.options = options;
  start.keeper = (struct far_keeper_options){
    .name = options->name, .n_disks = options->n_disks + options->n_objects, .key_fd = -1, .control_fd = -1, .page_fd = -1, .donors_fd = -1,
    .memory_device = options->memory_device
  };
  for (unsigned i = 0; i < FAR_DISKS_MAX; i++)
    start.keeper.disks[i] = (struct far_keeper_disk){ .listen_fd = -1, .state_fd = -1, .stage_fd = -1, .storage_fd = -1, .copies_fd = -1 };
  g_ptr_array_add (argv, g_strdup (arguments[0]));
  g_ptr_array_add (argv, g_strdup ("--worker")); /* not at the end: "--" may be there */
  for (arguments++; *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  g_ptr_array_add (argv, NULL);
  start.keeper.worker_argv = (char *const *)argv->pdata;
  sandbox_let_worker_lock (WORKER_LOCK_BYTES);
  if (open_all (&start, &error) && sandbox_keeper (&error))
    status = far_keeper_run (&start.keeper);
  if (error)
    fprintf (stderr, "domybs-far: %s\n", error->message);
  clean_up (&start);
  return status;
}
