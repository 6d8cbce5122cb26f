/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Brings a running VM to an amount of memory: sets the target, watches, ends in bounded time. For grow, shrink and a live
 * detach. */
#ifndef DOMYBS_HOST_TOOLS_RESIZE_RUN_H
#define DOMYBS_HOST_TOOLS_RESIZE_RUN_H

#include "ctl/control-client.h"
#include "ctl/ctl.h"
#include "ctl/resize.h"

typedef struct {
  guint64 goal_blocks;
  int timeout_ms;
  gboolean paused; /* libvirt says that the guest's processors stand still */
} ResizeRequest;

/* Asks for the figures. Its error names no object, as the control client's. */
gboolean resize_status (ControlClient *client, VmStatus *ret_status, GError **error);

/* Sets the target: blocks, or by pressure. */
gboolean resize_set_target (ControlClient *client, gboolean have_target, guint64 blocks, GError **error);

/* Sets the target and watches until there is a verdict, with a progress bar; label is the domain's. *ret_status (the caller's
 * to clear) has the last figures, which the outcome is made from. FALSE with error only when the back-end can't be talked to:
 * an amount that was not reached is an outcome. The target stays as it was set. After an interrupt ctl->interrupted is set and
 * the verdict may be RESIZE_GOES_ON. */
gboolean resize_run (Ctl *ctl, ControlClient *client, const char *label, const ResizeRequest *request,
                     ResizeOutcome *ret_outcome, VmStatus *ret_status, GError **error);

#endif
