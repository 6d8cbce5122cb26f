/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The clients that everybody has, against the page server: libnbd's nbdinfo and nbdcopy, QEMU's qemu-io and qemu-img, fio. */
#include "scene.h"

#include "testing.h"

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#define DATA_BYTES (9u * EXPORT_BLOCK_BYTES / 2) /* four blocks and a half */

typedef struct {
  Scene *scene;
  char *uri, *wrong_uri, *plain_uri, *qemu; /* qemu: options of a disk */
  char *data, *copy;                        /* files */
} Clients;

static gboolean
have (const char *program) {
  g_autofree char *path = g_find_program_in_path (program);

  return path != NULL;
}

/* Runs a command (NULL-terminated). Returns its standard output if it has succeeded as it should; free it. */
static char *
run (gboolean succeeds, ...) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autofree char *out = NULL, *err = NULL, *line = NULL;
  g_autoptr (GError) error = NULL;
  const char *argument;
  va_list ap;
  int status;

  g_ptr_array_add (argv, (gpointer) "timeout");
  g_ptr_array_add (argv, (gpointer) "60");
  va_start (ap, succeeds);
  while ((argument = va_arg (ap, const char *)))
    g_ptr_array_add (argv, (gpointer)argument);
  va_end (ap);
  g_ptr_array_add (argv, NULL);
  line = g_strjoinv (" ", (char **)argv->pdata);
  g_assert (g_spawn_sync (NULL, (char **)argv->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error));
  if (g_spawn_check_wait_status (status, NULL) != succeeds || strstr (out, "Pattern verification failed"))
    g_error ("%s: %s\n%s%s", line, succeeds ? "has failed" : "has succeeded", out, err);
  return g_steal_pointer (&out);
}

#define RUN(...) g_free (run (TRUE, __VA_ARGS__, NULL))
#define REFUSED(...) g_free (run (FALSE, __VA_ARGS__, NULL))

static void
clients_begin (Clients *clients, gconstpointer data) {
  const gboolean tls = GPOINTER_TO_INT (data);
  g_autofree char *wrong = NULL, *bytes = g_malloc (DATA_BYTES);
  GRand *rand = testing_rand ();
  Scene *scene = clients->scene = scene_new (tls, NULL);
  gsize i;

  wrong = g_build_filename (scene->folder, "wrong.psk", NULL);
  clients->data = g_build_filename (scene->folder, "data", NULL);
  clients->copy = g_build_filename (scene->folder, "copy", NULL);
  clients->plain_uri = g_strdup_printf ("nbd://127.0.0.1:%u/disk", scene->port);
  clients->uri = tls ? g_strdup_printf ("nbds://alice@127.0.0.1:%u/disk?tls-psk-file=%s", scene->port, scene->key_file)
                     : g_strdup (clients->plain_uri);
  clients->wrong_uri = g_strdup_printf ("nbds://alice@127.0.0.1:%u/disk?tls-psk-file=%s", scene->port, wrong);
  clients->qemu = g_strdup_printf ("driver=nbd,host=127.0.0.1,port=%u,export=disk,discard=unmap%s", scene->port,
                                   tls ? ",tls-creds=psk" : "");
  g_assert (g_file_set_contents (wrong, "alice:00000000000000000000000000000000\n", -1, NULL));
  for (i = 0; i < DATA_BYTES; i += 4)
    nbd_put32 ((guint8 *)bytes + i, g_rand_int (rand));
  memset (bytes + EXPORT_BLOCK_BYTES, 0, EXPORT_BLOCK_BYTES); /* one of them is none */
  g_assert (g_file_set_contents (clients->data, bytes, DATA_BYTES, NULL));
  g_assert_cmpint (truncate (clients->data, SCENE_BYTES), ==, 0);
  g_rand_free (rand);
}

static void
clients_end (Clients *clients, gconstpointer data) {
  g_autofree char *wrong = g_build_filename (clients->scene->folder, "wrong.psk", NULL);

  g_unlink (wrong);
  g_unlink (clients->data);
  g_unlink (clients->copy);
  scene_free (clients->scene);
  g_free (clients->uri);
  g_free (clients->wrong_uri);
  g_free (clients->plain_uri);
  g_free (clients->qemu);
  g_free (clients->data);
  g_free (clients->copy);
}

/* ---- libnbd ---- */

static void
test_libnbd (Clients *clients, gconstpointer data) {
  g_autofree char *size = NULL, *map = NULL, *all = NULL;

  if (!have ("nbdinfo") || !have ("nbdcopy")) {
    g_test_skip ("no nbdinfo or nbdcopy (package libnbd-bin)");
    return;
  }
  size = run (TRUE, "nbdinfo", "--size", clients->uri, NULL);
  g_assert_cmpuint (g_ascii_strtoull (size, NULL, 10), ==, SCENE_BYTES);
  RUN ("nbdcopy", clients->data, clients->uri);
  RUN ("nbdcopy", clients->uri, clients->copy);
  RUN ("cmp", clients->data, clients->copy);
  map = run (TRUE, "nbdinfo", "--map", "--totals", clients->uri, NULL);
  g_assert_nonnull (strstr (map, "data")); /* and a hole: what nbdcopy found to be zeroes */
  g_assert_nonnull (strstr (map, "hole,zero"));
  all = run (TRUE, "nbdinfo", "--json", clients->uri, NULL);
  g_assert_nonnull (strstr (all, "\"can_multi_conn\": true"));
  g_assert_nonnull (strstr (all, GPOINTER_TO_INT (data) ? "\"TLS\": true" : "\"TLS\": false"));
}

/* A plain client, a wrong key, another's export. */
static void
test_refused (Clients *clients, gconstpointer data) {
  g_autofree char *bobs
      = g_strdup_printf ("nbds://alice@127.0.0.1:%u/bobs?tls-psk-file=%s", clients->scene->port, clients->scene->key_file);
  g_autofree char *nobody
      = g_strdup_printf ("nbds://mallory@127.0.0.1:%u/disk?tls-psk-file=%s", clients->scene->port, clients->scene->key_file);

  if (!have ("nbdinfo")) {
    g_test_skip ("no nbdinfo (package libnbd-bin)");
    return;
  }
  REFUSED ("nbdinfo", "--size", clients->plain_uri);
  REFUSED ("nbdinfo", "--size", clients->wrong_uri);
  REFUSED ("nbdinfo", "--size", bobs);
  REFUSED ("nbdinfo", "--size", nobody);
  RUN ("nbdinfo", "--size", clients->uri);
}

/* ---- QEMU ---- */

static void
test_qemu (Clients *clients, gconstpointer data) {
  g_autofree char *object
      = g_strdup_printf ("tls-creds-psk,id=psk,endpoint=client,username=alice,dir=%s", clients->scene->folder);

  if (!have ("qemu-io") || !have ("qemu-img")) {
    g_test_skip ("no qemu-io or qemu-img (package qemu-utils)");
    return;
  }
  RUN ("qemu-io", "--object", object, "--image-opts", clients->qemu, "-c", "write -P 0x11 0 6M", "-c",
       "write -P 0x22 4095 4098", "-c", "discard 2M 2M", "-c", "write -z 5M 512k", "-c", "write -z -u 7M 3M", "-c",
       "aio_write -P 0x33 20M 64k", "-c", "aio_write -P 0x44 21M 64k", "-c", "aio_flush");
  RUN ("qemu-io", "--object", object, "--image-opts", clients->qemu, "-c", "read -P 0x11 0 4095", "-c",
       "read -P 0x22 4095 4098", "-c", "read -P 0x11 8193 16k", "-c", "read -P 0 2M 2M", "-c", "read -P 0x11 4M 1M", "-c",
       "read -P 0 5M 512k", "-c", "read -P 0x11 5632k 512k", "-c", "read -P 0 6M 14M", "-c", "read -P 0x33 20M 64k", "-c",
       "read -P 0x44 21M 64k", "-c", "read -P 0 30M 2M");
  RUN ("qemu-img", "convert", "-n", "--object", object, "--target-image-opts", "-f", "raw", clients->data, clients->qemu);
  RUN ("qemu-img", "convert", "--object", object, "--image-opts", "-O", "raw", clients->qemu, clients->copy);
  RUN ("cmp", clients->data, clients->copy);
}

/* ---- fio ---- */

#define FIO                                                                                                                    \
  "fio --name=pages --ioengine=nbd --uri=\"$uri\" --rw=randrw --bsrange=4k-256k --iodepth=16 --size=24m --io_size=48m"         \
  " --verify=crc32c --verify_fatal=1 --verify_backlog=64 --randrepeat=0"

/* fio lets no URI name a key file: with TLS nbdkit's client is between. */
static void
test_fio (Clients *clients, gconstpointer data) {
  g_autofree char *engines = have ("fio") ? run (TRUE, "fio", "--enghelp", NULL) : NULL, *port = NULL, *key = NULL,
                  *plain = NULL;

  if (!engines || !strstr (engines, "nbd") || !have ("nbdkit")) {
    g_test_skip ("no fio with an engine for NBD (package fio), or no nbdkit");
    return;
  }
  plain = g_strdup_printf ("uri=%s; " FIO, clients->uri);
  port = g_strdup_printf ("port=%u", clients->scene->port);
  key = g_strdup_printf ("tls-psk=%s", clients->scene->key_file);
  if (GPOINTER_TO_INT (data))
    RUN ("nbdkit", "--exit-with-parent", "-U", "-", "nbd", "hostname=127.0.0.1", port, "export=disk", "tls=require",
         "tls-username=alice", key, "--run", FIO);
  else
    RUN ("sh", "-c", plain);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add ("/page-clients/plain/libnbd", Clients, GINT_TO_POINTER (0), clients_begin, test_libnbd, clients_end);
  g_test_add ("/page-clients/plain/qemu", Clients, GINT_TO_POINTER (0), clients_begin, test_qemu, clients_end);
  g_test_add ("/page-clients/plain/fio", Clients, GINT_TO_POINTER (0), clients_begin, test_fio, clients_end);
  g_test_add ("/page-clients/tls/libnbd", Clients, GINT_TO_POINTER (1), clients_begin, test_libnbd, clients_end);
  g_test_add ("/page-clients/tls/refused", Clients, GINT_TO_POINTER (1), clients_begin, test_refused, clients_end);
  g_test_add ("/page-clients/tls/qemu", Clients, GINT_TO_POINTER (1), clients_begin, test_qemu, clients_end);
  g_test_add ("/page-clients/tls/fio", Clients, GINT_TO_POINTER (1), clients_begin, test_fio, clients_end);
  return g_test_run ();
}
