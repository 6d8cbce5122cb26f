/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where things are on a host. By itself, because tests link other answers; what is installed can't be led elsewhere. */
#include "host/donors.h"
#include "host/launch.h"

const char *
launch_rundir (void) {
  return DOMYBS_RUNDIR;
}

const char *
launch_logdir (void) {
  return DOMYBS_LOGDIR;
}

const char *
launch_program (void) {
  return DOMYBS_BACKEND;
}

const char *
launch_far_program (void) {
  return DOMYBS_FAR;
}

const char *
launch_far_folder (void) {
  return DOMYBS_FAR_FOLDER;
}

const char *
launch_object_folder (void) {
  return DOMYBS_OBJECT_FOLDER;
}

const char *
launch_donors_folder (void) {
  return DOMYBS_DONORS_FOLDER;
}

int
launch_patience_ms (int ms) {
  return ms;
}
