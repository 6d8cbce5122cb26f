/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Far disks and block device programs that nobody here has written: QEMU's tools as clients, by way of libblkio (its driver
 * virtio-blk-vhost-user), and QEMU's storage daemon as the NBD server behind a disk. No VM; the programs are the lab's. Clients
 * of libblkio can't connect again, so a worker that dies ends the one that is at work: what it had written is for the next to
 * see.
 */
#include "lab-run.h"
#include "load.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define DISK_MIB 64u
#define DISK_BYTES ((gsize)DISK_MIB << 20)
#define PAGE 4096u
#define DISK_PAGES (DISK_BYTES / PAGE)
#define PIECE_BYTES (16 * PAGE) /* of what qemu-io writes out of a file */
#define ROUNDS 12
#define COMMANDS 16 /* in a round */

/* A disk, its clients' folder, and what has to be on it. */
typedef struct {
  struct far *far;
  char *folder;
  char *image_opts; /* how QEMU's tools are told of the disk */
  char *model_path; /* a file with what is on the disk */
  guint8 *model;
  char *piece_path;
  guint8 piece[PIECE_BYTES];
} Scene;

static void
begin (Scene *scene, const char *const *arguments) {
  *scene = (Scene){ .folder = lab_folder ("clients"), .model = g_malloc0 (DISK_BYTES) };
  scene->far = far_start (
      &(struct far_options){ .bytes = DISK_BYTES, .disk_extra = ",memory-slots=on,queues=4", .arguments = arguments });
  scene->image_opts = g_strdup_printf ("driver=virtio-blk-vhost-user,path=%s,cache.direct=on", scene->far->socket_paths[0]);
  scene->model_path = g_build_filename (scene->folder, "model", NULL);
  scene->piece_path = g_build_filename (scene->folder, "piece", NULL);
  g_assert_cmpint (backend_wait_worker (scene->far->backend, 0, fe_patience_ms ()), >, 0);
  /* Made last of all that it makes. */
  for (int tries = 0; !g_file_test (scene->far->backend->control_path, G_FILE_TEST_EXISTS); tries++) {
    g_assert_cmpint (tries, <, 2000);
    g_usleep (10000);
  }
}

static void
end (Scene *scene) {
  g_assert_cmpint (far_status (scene->far, 0, "damaged-pages"), ==, 0);
  far_end (scene->far);
  vm_delete_folder (scene->folder);
  g_free (scene->folder);
  g_free (scene->image_opts);
  g_free (scene->model_path);
  g_free (scene->piece_path);
  g_free (scene->model);
}

/* The disk, read by qemu-img. Free it. */
static guint8 *
read_disk (Scene *scene) {
  g_autofree char *path = g_build_filename (scene->folder, "copy", NULL), *said = NULL;
  gsize length;
  char *bytes;

  said = lab_run_ok (scene->folder, "qemu-img convert --image-opts -O raw %s %s", scene->image_opts, path);
  g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
  g_assert_cmpuint (length, ==, DISK_BYTES);
  g_unlink (path);
  return (guint8 *)bytes;
}

static void
check_disk (Scene *scene) {
  g_autofree guint8 *bytes = read_disk (scene);

  for (gsize page = 0; page < DISK_PAGES; page++)
    if (memcmp (bytes + page * PAGE, scene->model + page * PAGE, PAGE) != 0)
      g_error ("page %zu is not what was written: it begins with %02x, and not with %02x", page, bytes[page * PAGE],
               scene->model[page * PAGE]);
}

static void
save_model (Scene *scene) {
  g_assert_true (g_file_set_contents (scene->model_path, (const char *)scene->model, (gssize)DISK_BYTES, NULL));
}

static void
fill_random (GRand *rand, guint8 *bytes, gsize length) {
  for (gsize i = 0; i < length; i += 4) {
    const guint32 word = g_rand_int (rand);

    memcpy (bytes + i, &word, 4);
  }
}

/* ---- qemu-img ---- */

static void
bench (void) {
  static const struct {
    unsigned bytes, depth, count, pattern;
  } runs[] = { { 4096, 1, 2000, 0x11 }, { 4096, 32, 8000, 0xa5 }, { 262144, 8, 500, 0x3c }, { 65536, 64, 2000, 0x77 } };
  Scene scene;

  begin (&scene, NULL);
  for (unsigned i = 0; i < G_N_ELEMENTS (runs); i++) {
    /* It never comes to an image's last piece. */
    const gsize length = MIN ((gsize)runs[i].bytes * runs[i].count, DISK_BYTES - runs[i].bytes);
    const int64_t writes = far_status (scene.far, 0, "written-pages");
    g_autofree char *written = NULL, *read = NULL, *checked = NULL;

    written = lab_run_ok (scene.folder, "qemu-img bench --image-opts -w -t none --pattern=%u -c %u -d %u -s %u %s",
                          runs[i].pattern, runs[i].count, runs[i].depth, runs[i].bytes, scene.image_opts);
    g_test_message ("%s", written);
    g_assert_cmpint (far_status (scene.far, 0, "written-pages") - writes, ==, (int64_t)runs[i].count * (runs[i].bytes / PAGE));
    read = lab_run_ok (scene.folder, "qemu-img bench --image-opts -t none -c %u -d %u -s %u %s", runs[i].count, runs[i].depth,
                       runs[i].bytes, scene.image_opts);
    g_test_message ("%s", read);
    checked
        = lab_run_ok (scene.folder, "qemu-io --image-opts %s -c 'read -P %u 0 %zu'", scene.image_opts, runs[i].pattern, length);
    g_assert_null (strstr (checked, "verification failed"));
    memset (scene.model, (int)runs[i].pattern, length);
  }
  check_disk (&scene);
  end (&scene);
}

/* An image with all kinds of pages comes onto the disk and is compared there, also by the next worker. */
static void
convert (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autofree char *qcow = NULL, *said = NULL, *spoilt = NULL, *output = NULL;
  Scene scene;

  begin (&scene, (const char *const[]){ "--compress", "--stage=8M", NULL });
  for (gsize page = 0; page < DISK_PAGES; page++) {
    guint8 *bytes = scene.model + page * PAGE;

    switch (testing_below (rand, 5)) {
    case 0:
      break;
    case 1:
      memset (bytes, (int)testing_below (rand, 256), PAGE);
      break;
    case 2:
      fill_random (rand, bytes, 512); /* packs well */
      break;
    default:
      fill_random (rand, bytes, PAGE);
    }
  }
  save_model (&scene);
  qcow = g_build_filename (scene.folder, "qcow", NULL);
  g_free (lab_run_ok (scene.folder, "qemu-img convert -f raw -O qcow2 %s %s", scene.model_path, qcow));
  g_free (lab_run_ok (scene.folder, "qemu-img convert -n -W -m 16 --target-image-opts -f qcow2 %s %s", qcow, scene.image_opts));
  for (unsigned i = 0; i < 2; i++) {
    said = lab_run_ok (scene.folder, "qemu-img compare --image-opts driver=raw,file.driver=file,file.filename=%s %s",
                       scene.model_path, scene.image_opts);
    g_assert_nonnull (strstr (said, "identical"));
    g_clear_pointer (&said, g_free);
    far_kill_worker (scene.far);
  }
  check_disk (&scene);
  g_assert_cmpint (far_status (scene.far, 0, "pages.packed"), >, (int64_t)DISK_PAGES / 10);
  g_assert_cmpint (far_status (scene.far, 0, "pages.raw"), >, (int64_t)DISK_PAGES / 4);
  /* One byte, and they see it: so they look. */
  scene.model[DISK_BYTES / 3] ^= 1;
  spoilt = lab_run_ok (scene.folder, "qemu-io --image-opts %s -c 'write -P %u %zu 1'", scene.image_opts,
                       scene.model[DISK_BYTES / 3], DISK_BYTES / 3);
  g_assert_cmpint (lab_run (scene.folder, 60, &output,
                            "qemu-img compare --image-opts driver=raw,file.driver=file,file.filename=%s %s", scene.model_path,
                            scene.image_opts),
                   ==, 1);
  check_disk (&scene);
  end (&scene);
}

/* ---- qemu-io ---- */

/* Adds a command, and does to the model what it does to the disk. Ranges are bytes: QEMU makes whole pages of them. */
static void
add_command (Scene *scene, GRand *rand, GString *line) {
  const bool whole = !testing_once_in (rand, 4);
  const gsize unit = whole ? PAGE : 512, most = MIN (DISK_BYTES / unit / 8, 512), units = 1 + testing_below (rand, most),
              first = testing_below (rand, DISK_BYTES / unit - units), offset = first * unit, length = units * unit;
  const unsigned pattern = (unsigned)testing_below (rand, 256);

  switch (testing_below (rand, 6)) {
  case 0:
    g_string_append_printf (line, " -c 'write -z %zu %zu'", offset, length);
    memset (scene->model + offset, 0, length);
    break;
  case 1:
    g_string_append_printf (line, " -c 'write -z -u %zu %zu'", offset, length);
    memset (scene->model + offset, 0, length);
    break;
  case 2:
    g_string_append_printf (line, " -c 'write -P %u %zu %zu' -c 'read -P %u %zu %zu'", pattern, offset, length, pattern, offset,
                            length);
    memset (scene->model + offset, (int)pattern, length);
    break;
  case 3: /* several at a time, and what came before them is over */
    for (gsize at = 0; at < length; at += 8 * unit) {
      const gsize some = MIN (8 * unit, length - at);

      g_string_append_printf (line, " -c 'aio_write -q -P %u %zu %zu'", (unsigned)(guint8)(pattern + at / unit), offset + at,
                              some);
      memset (scene->model + offset + at, (guint8)(pattern + at / unit), some);
    }
    g_string_append (line, " -c aio_flush");
    break;
  default: /* again and again, from the file's beginning on */
    g_string_append_printf (line, " -c 'write -s %s %zu %zu'", scene->piece_path, offset, length);
    for (gsize at = 0; at < length; at += PIECE_BYTES)
      memcpy (scene->model + offset + at, scene->piece, MIN (PIECE_BYTES, length - at));
  }
  if (testing_once_in (rand, 5))
    g_string_append (line, " -c flush");
}

static void
commands (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autofree char *wrong = NULL;
  Scene scene;

  begin (&scene, (const char *const[]){ "--stage=8M", NULL });
  for (unsigned round = 0; round < ROUNDS; round++) {
    g_autoptr (GString) line = g_string_new (NULL);
    g_autofree char *said = NULL;

    fill_random (rand, scene.piece, PIECE_BYTES);
    g_assert_true (g_file_set_contents (scene.piece_path, (const char *)scene.piece, PIECE_BYTES, NULL));
    for (unsigned i = 0; i < COMMANDS; i++)
      add_command (&scene, rand, line);
    testing_trace ("%s", line->str);
    said = lab_run_ok (scene.folder, "qemu-io --image-opts %s%s", scene.image_opts, line->str);
    if (strstr (said, "failed"))
      g_error ("%s\n%s", line->str, said);
    if (round % 3 == 2)
      far_kill_worker (scene.far);
    if (round % 2)
      check_disk (&scene);
  }
  /* It would have said so. */
  g_free (lab_run_ok (scene.folder, "qemu-io --image-opts %s -c 'write -P 1 0 4096'", scene.image_opts));
  g_assert_cmpint (lab_run (scene.folder, 60, &wrong, "qemu-io --image-opts %s -c 'read -P 2 0 4096'", scene.image_opts), ==,
                   1);
  g_assert_nonnull (strstr (wrong, "verification failed"));
  end (&scene);
}

/* ---- a worker that dies under a client ---- */

static void
killed (void) {
  g_autoptr (GRand) rand = testing_rand ();
  Scene scene;
  unsigned mixed = 0;

  begin (&scene, (const char *const[]){ "--stage=8M", NULL });
  for (unsigned round = 0; round < 4; round++) {
    const unsigned before = 2 * round + 1, after = before + 1;
    const int64_t some = (int64_t)testing_below (rand, DISK_PAGES);
    g_autofree guint8 *bytes = NULL;
    VmProcess client = { 0 };
    gsize of_after = 0;
    int64_t written;
    bool in_time;

    g_free (
        lab_run_ok (scene.folder, "qemu-io --image-opts %s -c 'write -P %u 0 %u'", scene.image_opts, before, DISK_MIB << 20));
    written = far_status (scene.far, 0, "written-pages");
    lab_spawn (&client, "client", scene.folder, "qemu-img bench --image-opts -w -t none --pattern=%u -c %zu -d 16 -s 4096 %s",
               after, DISK_PAGES, scene.image_opts);
    while (far_status (scene.far, 0, "written-pages") < written + some && vm_process_runs (&client))
      g_usleep (200);
    far_kill_worker (scene.far);
    /* It may have been done, say that its disk has gone, or wait for ever: that's libblkio's to know. */
    in_time = vm_process_wait (&client, 2);
    if (!in_time) {
      kill (client.pid, SIGKILL);
      g_assert_true (vm_process_wait (&client, 20));
    }
    vm_process_clear (&client);

    bytes = read_disk (&scene);
    for (gsize page = 0; page < DISK_PAGES; page++) {
      const guint8 first = bytes[page * PAGE];

      g_assert_true (first == before || first == after);
      for (unsigned i = 1; i < PAGE; i++)
        if (bytes[page * PAGE + i] != first)
          g_error ("round %u: page %zu is of two writes", round, page);
      of_after += first == after;
    }
    g_test_message ("%zu of %zu pages were written; the client %s", of_after, DISK_PAGES, in_time ? "ended" : "was ended");
    mixed += of_after > 0 && of_after < DISK_PAGES - 1; /* which bench leaves alone */
  }
  g_assert_cmpuint (mixed, >, 0);
  end (&scene);
}

/* ---- qemu-storage-daemon as storage ---- */

static void
storage (void) {
  g_autoptr (GRand) rand = testing_rand ();
  LabServer server;
  struct load load;
  struct far *far;

  lab_server_start (&server, LAB_SERVER_QEMU, 256 << 20);
  far = far_start (&(struct far_options){
      .bytes = 32 << 20, .storage = server.uri, .arguments = (const char *const[]){ "--stage=8M", NULL } });
  load_init (&load, far, far_connect (far, 0), 0, rand);
  load.kinds = 1u << LOAD_RANDOM | 1u << LOAD_TEXT;
  load_write_all (&load, 0, load.n_pages, LOAD_RANDOM);
  for (unsigned round = 0; round < 6; round++) {
    load_run (&load, testing_steps (1500));
    for (unsigned i = 0; i < 16; i++)
      load_begin (&load);
    switch (round % 3) {
    case 0:
      far_kill_worker (far);
      break;
    case 1:
      lab_server_kill (&server);
      g_usleep (testing_below (rand, 50000));
      lab_server_again (&server);
      break;
    default:
      lab_server_hang (&server);
      if (testing_once_in (rand, 2))
        far_kill_worker (far);
      g_usleep (200000);
      lab_server_go_on (&server);
    }
    load_check_all (&load);
  }
  g_assert_cmpint (far_status (far, 0, "damaged-pages"), ==, 0);
  g_assert_cmpint (far_status (far, 0, "storage-written-bytes") + far_status (far, 0, "storage-read-bytes"), >, 0);
  load_clear (&load);
  far_end (far);
  lab_server_end (&server);
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  g_test_add_func ("/clients/qemu-img bench", bench);
  g_test_add_func ("/clients/qemu-img convert and compare", convert);
  g_test_add_func ("/clients/qemu-io at random", commands);
  g_test_add_func ("/clients/a worker dies under one", killed);
  g_test_add_func ("/clients/qemu-storage-daemon as storage", storage);
  return vm_test_run ();
}
