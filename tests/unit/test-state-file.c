/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A device's state in its memfd: what the next worker gets, and which descriptors it refuses. */
#include "io/state-file.h"
#include "io/error.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "testing.h"

#define WINDOW 1024u

static void
test_create_and_open (void) {
  struct device_state mine, next;
  g_autoptr (GError) error = NULL;
  const int fd = state_file_create (WINDOW, &mine, &error);
  struct stat st;

  g_assert_no_error (error);
  g_assert_cmpint (fd, >=, 0);
  g_assert_cmpint (fcntl (fd, F_GETFD) & FD_CLOEXEC, !=, 0);
  g_assert_cmpstr (mine.header->program, ==, DOMYBS_VERSION);
  g_assert_cmpint (fstat (fd, &st), ==, 0);
  g_assert_cmpuint ((uint64_t)st.st_size, ==, device_state_bytes (WINDOW));
  g_assert_cmpuint ((uint64_t)st.st_blocks * 512, >=, (uint64_t)st.st_size); /* no store can find memory missing */
  g_assert_cmpint (ftruncate (fd, 100), <, 0);
  g_assert_cmpint (ftruncate (fd, 1 << 20), <, 0);
  g_assert_true (state_file_is_ours (fd, WINDOW, &error));
  mine.scalars->session.consumed = 77;
  g_assert_true (state_file_open (fd, WINDOW, &next, &error));
  g_assert_no_error (error);
  close (fd);
  g_assert_cmpuint (next.scalars->session.consumed, ==, 77);
  g_assert_cmpuint (next.bytes, ==, mine.bytes);
  next.record->n_runs = 5; /* writable, and the same memory */
  g_assert_cmpuint (mine.record->n_runs, ==, 5);
  state_file_close (&mine);
  g_assert_null (mine.header);
  state_file_close (&mine); /* again: nothing */
  state_file_close (&next);
}

static void
expect_refusal (int fd, uint64_t window, const char *why) {
  struct device_state state;
  g_autoptr (GError) error = NULL, again = NULL;

  memset (&state, 0xee, sizeof state);
  g_assert_false (state_file_open (fd, window, &state, &error));
  g_assert_cmpstr (error->message, ==, why);
  g_assert_cmpuint (state.bytes, ==, 0xeeeeeeeeeeeeeeee); /* untouched */
  g_assert_false (state_file_is_ours (fd, window, &again));
  g_assert_cmpstr (again->message, ==, why);
}

static void
test_versions_are_named (void) {
  struct device_state state;
  const int fd = state_file_create (WINDOW, &state, NULL);

  state.header->version = 7;
  state.header->oldest_reader = 5;
  expect_refusal (fd, WINDOW,
                  "the device's state has version 7, which versions from 5 on can read; this program (" DOMYBS_VERSION
                  ") reads up to version 2");
  state.header->oldest_reader = 1;
  g_assert_true (state_file_is_ours (fd, WINDOW, NULL));
  state.header->version = 0;
  expect_refusal (fd, WINDOW, "can't go on from the device's state: its version is none that there was");
  state_file_close (&state);
  close (fd);
}

static void
test_refusals (void) {
  struct device_state state;
  const int good = state_file_create (WINDOW, &state, NULL);
  int fd = memfd_create ("unsealed", MFD_CLOEXEC);
  g_autoptr (GError) error = NULL;

  expect_refusal (good, 2048, "can't go on from the device's state: it is for a window of another size");
  state.header->magic++;
  expect_refusal (good, WINDOW, "can't go on from the device's state: it is no state of a memory device");
  state.header->magic--;
  g_assert_cmpint (write (fd, state.header, state.bytes), ==, (ssize_t)state.bytes);
  expect_refusal (fd, WINDOW, "can't go on from the device's state: it is no sealed memory file");
  close (fd);
  fd = memfd_create ("short", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  g_assert_cmpint (write (fd, state.header, 100), ==, 100);
  g_assert_cmpint (fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), ==, 0);
  expect_refusal (fd, WINDOW, "can't go on from the device's state: it is no state of a memory device");
  close (fd);
  fd = memfd_create ("empty", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  g_assert_cmpint (fcntl (fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), ==, 0);
  expect_refusal (fd, WINDOW, "can't go on from the device's state: it is no sealed memory file");
  close (fd);
  expect_refusal (-1, WINDOW, "can't look at the device's state: Bad file descriptor");
  g_assert_cmpint (state_file_create (1000, &state, &error), ==, -1);
  g_assert_cmpstr (error->message, ==, "there is no state for a window of 1000 blocks");
  state_file_close (&state);
  close (good);
}

/* A damaged one is seen when all is looked at, which is when its worker has ended. */
static void
test_damage (void) {
  struct device_state state, next;
  const int fd = state_file_create (WINDOW, &state, NULL);
  g_autoptr (GError) error = NULL;

  state.scalars->session.n_regions = 1000;
  g_assert_true (state_file_is_ours (fd, WINDOW, NULL));
  g_assert_false (state_file_open (fd, WINDOW, &next, &error));
  g_assert_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT);
  state_file_close (&state);
  close (fd);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/state-file/what one worker writes the next one reads", test_create_and_open);
  g_test_add_func ("/state-file/too new a version is refused with both versions", test_versions_are_named);
  g_test_add_func ("/state-file/what is no state of ours is refused", test_refusals);
  g_test_add_func ("/state-file/damage is refused when its worker has ended", test_damage);
  return g_test_run ();
}
