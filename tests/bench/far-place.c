/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far-place.h"
#include "processes.h"
#include "slow-relay.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"

bool
far_place_can_delay (void) {
  g_autofree char *path = g_find_program_in_path ("nbdkit");

  return path != NULL;
}

/* Returns the URI of storage whose answers come later. */
static char *
start_slow_storage (struct far_place *place, const struct far_place_options *options) {
  g_autofree char *path = NULL;

  place->server = nbd_server_new ("nbdkit", options->bytes * 3, NULL, NULL);
  nbd_server_start (place->server);
  path = g_build_filename (place->server->folder, "relay", NULL);
  place->relay = slow_relay_start (path, place->server->socket, options->delay_us);
  if (chmod (place->server->folder, 0711) < 0) /* a worker is nobody */
    g_error ("%s: %s", place->server->folder, g_strerror (errno));
  return g_strdup_printf ("nbd+unix:///?socket=%s", path);
}

static char *
start_neighbour (struct far_place *place, const struct far_place_options *options) {
  place->donor = donor_start (&(struct donor_options){ .bytes = options->bytes + options->bytes / 4, .keys = KEYS });
  place->key_path = g_strdup_printf ("%s/domybs-bench-%d-%d", options->folder, (int)getpid (), (int)place->donor->backend->pid);
  if (!g_file_set_contents_full (place->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL))
    g_error ("%s can't be written", place->key_path);
  return g_strdup_printf ("--donor=neighbour,address=%s,psk=%s", place->donor->address, place->key_path);
}

struct far_place *
far_place_start (const struct far_place_options *options) {
  struct far_place *place = g_new0 (struct far_place, 1);
  static unsigned n_files; /* each has its own */
  g_autofree char *storage
      = options->delay_us ? start_slow_storage (place, options)
                          : g_strdup_printf ("%s/domybs-bench-storage-%d-%u", options->folder, (int)getpid (), n_files++),
      *donor = options->neighbour ? start_neighbour (place, options) : NULL;
  const char *const arguments[] = { "--stage", options->stage, donor, NULL };

  g_setenv ("DOMYBS_FAR_FOLDER", options->folder, TRUE); /* of its sockets */
  place->far = far_start (&(struct far_options){ .bytes = options->bytes,
                                                 .storage = storage,
                                                 .disk_extra = options->neighbour ? ",queues=1,protection=ssd" : ",queues=1",
                                                 .arguments = arguments });
  place->storage_path = options->delay_us ? NULL : g_steal_pointer (&storage);
  return place;
}

void
far_place_end (struct far_place *place) {
  far_end (place->far);
  if (place->donor)
    donor_end (place->donor);
  if (place->relay)
    slow_relay_end (place->relay);
  if (place->server)
    nbd_server_free (place->server);
  if (place->storage_path)
    g_unlink (place->storage_path);
  if (place->key_path)
    g_unlink (place->key_path);
  g_free (place->storage_path);
  g_free (place->key_path);
  g_free (place);
}

static pid_t
worker_of (struct backend *backend) {
  return backend_wait_worker (backend, 0, fe_patience_ms ());
}

double
far_place_cpu_us (struct far_place *place) {
  double us = processes_cpu_us (place->far->backend->pid) + processes_cpu_us (worker_of (place->far->backend));

  if (place->donor)
    us += processes_cpu_us (place->donor->backend->pid) + processes_cpu_us (worker_of (place->donor->backend));
  return us;
}

void
far_place_pin (struct far_place *place, gboolean pinned) {
  processes_pin (place->far->backend->pid, pinned);
  processes_pin (worker_of (place->far->backend), pinned);
  if (place->donor) {
    processes_pin (place->donor->backend->pid, pinned);
    processes_pin (worker_of (place->donor->backend), pinned);
  }
}

void
far_place_wait_protected (struct far_place *place) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  if (!place->donor)
    return;
  while (far_status (place->far, 0, "copies.places") <= 0
         || far_status (place->far, 0, "copies.protected") != far_status (place->far, 0, "copies.places")) {
    if (fe_now_ms () > deadline)
      g_error ("pages do not get the copies that they should have");
    g_usleep (10000);
  }
}
