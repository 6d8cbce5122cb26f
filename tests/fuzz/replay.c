/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In place of libFuzzer's main: runs a harness over files, or all files of folders, and over every beginning of each. For builds
 * without clang, for debuggers, and to see a finding fixed.
 */
#include <glib.h>

#include "fuzz.h"

static unsigned n_files, n_inputs;

static bool
replay_file (const char *path, GError **error) {
  g_autofree char *data = NULL;
  gsize size;

  if (!g_file_get_contents (path, &data, &size, error))
    return false;
  g_print ("%s: %" G_GSIZE_FORMAT " bytes\n", path, size);
  for (gsize n = 0; n <= size; n++) {
    g_autofree uint8_t *copy = g_memdup2 (data, n); /* its end is the end of its memory */

    (void)LLVMFuzzerTestOneInput (copy, n);
    n_inputs++;
  }
  n_files++;
  return true;
}

static bool
replay_folder (const char *path, GError **error) {
  g_autoptr (GDir) folder = g_dir_open (path, 0, error);
  const char *name;

  if (!folder)
    return false;
  while ((name = g_dir_read_name (folder))) {
    g_autofree char *file = g_build_filename (path, name, NULL);

    if (!replay_file (file, error))
      return false;
  }
  return true;
}

int
main (int argc, char **argv) {
  for (int i = 1; i < argc; i++) {
    g_autoptr (GError) error = NULL;

    if (!(g_file_test (argv[i], G_FILE_TEST_IS_DIR) ? replay_folder : replay_file) (argv[i], &error)) {
      g_printerr ("%s\n", error->message);
      return 1;
    }
  }
  if (n_files == 0) {
    g_printerr ("Usage: %s FILE_OR_FOLDER…: no input found\n", argv[0]);
    return 1;
  }
  g_print ("%u files, %u inputs, no complaint\n", n_files, n_inputs);
  return 0;
}
