/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The commands of domybs-far's control socket; control.md describes them. */
#ifndef DOMYBS_FAR_COMMANDS_H
#define DOMYBS_FAR_COMMANDS_H

#include "far/copies.h"
#include "far/disk.h"
#include "far/options.h"
#include "far/reserve.h"
#include "io/control-server.h"

typedef struct FarOperator FarOperator;
struct FarDonorTable;

/* What the commands work on. */
struct FarOperator {
  const FarOptions *options;
  FarDisk *disks[FAR_DISKS_MAX];
  Storage *storages[FAR_DISKS_MAX]; /* their engines' */
  FarCopies *copies[FAR_DISKS_MAX]; /* NULL: storage is the only one */
  struct FarDonorTable *donors;     /* far/donor-table.h; NULL: none, and none can come */
  FarDisk *objects[FAR_DISKS_MAX];
  struct far_handover *page;
  ControlServer *server;
  FarReserve *reserve; /* NULL: there is no memory device */
  gint64 started_at; /* g_get_monotonic_time: this worker */
  gboolean ending;   /* the VM has ended, its leases are being given back: nothing may come in between */
  /* Ends the worker with that status at the main loop's next turn. */
  void (*leave) (FarOperator *op, int status);
};

/* A ControlHandler; data is a FarOperator. */
JsonNode *far_command (gpointer data, ControlClient *client, const char *command, JsonObject *arguments, GError **error);

#endif
