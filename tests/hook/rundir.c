/* SPDX-License-Identifier: GPL-2.0-or-later */
/* In the place of host-tools/host/rundir.c: where things are is the test's to say. */
#include "host/donors.h"
#include "host/launch.h"

#include <stdlib.h>

static const char *
from_env (const char *name) {
  const char *value = g_getenv (name);

  if (!value)
    g_error ("%s is not set: a test that has no run folder of its own would use the host's", name);
  return value;
}

const char *
launch_rundir (void) {
  return from_env ("DOMYBS_TEST_RUNDIR");
}

const char *
launch_logdir (void) {
  g_autofree char *path = g_build_filename (from_env ("DOMYBS_TEST_RUNDIR"), "log", NULL);

  return g_intern_string (path);
}

const char *
launch_program (void) {
  return from_env ("DOMYBS_BACKEND");
}

const char *
launch_far_program (void) {
  return from_env ("DOMYBS_FAR");
}

const char *
launch_far_folder (void) {
  g_autofree char *path = g_build_filename (from_env ("DOMYBS_TEST_RUNDIR"), "far", NULL);

  return g_intern_string (path);
}

const char *
launch_object_folder (void) {
  g_autofree char *path = g_build_filename (from_env ("DOMYBS_TEST_RUNDIR"), "objects", NULL);

  return g_intern_string (path);
}

const char *
launch_donors_folder (void) {
  g_autofree char *path = g_build_filename (from_env ("DOMYBS_TEST_RUNDIR"), "donors.d", NULL);

  return g_intern_string (path);
}

int
launch_patience_ms (int ms) {
  const char *haste = g_getenv ("DOMYBS_TEST_HASTE");

  return haste ? ms / MAX (atoi (haste), 1) : ms;
}
