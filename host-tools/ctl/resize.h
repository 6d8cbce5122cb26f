/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Is it done, and if not, why not: what grow, shrink and detach decide from the back-end's figures. Pure: time comes in as an
 * argument.
 *
 *   resize_begin    with the figures from before the target was set
 *   resize_look     with each set of figures from after it → goes on, reached, or ended short with a reason
 *
 * What the guest says ("guest" in the figures) chooses the words of the explanation and may end the waiting early. It never
 * makes anything count as reached: that is decided by the back-end's own books.
 */
#ifndef DOMYBS_HOST_TOOLS_RESIZE_H
#define DOMYBS_HOST_TOOLS_RESIZE_H

#include "ctl/vm-status.h"

typedef enum {
  RESIZE_NO_REASON,
  RESIZE_CAPACITY,       /* the VM has its --local-max */
  RESIZE_HOST_LIMIT,     /* all VMs together have what this host lends */
  RESIZE_HOST_MEMORY,    /* the host itself is short of memory */
  RESIZE_POPULATE,       /* grants are populated, and the kernel gave no memory (a cgroup's limit) */
  RESIZE_AREA,           /* the free part of the window is too scattered for what the guest asks for */
  RESIZE_HOST_FAILED,    /* the host could not: the back-end's log says why */
  RESIZE_NOT_CONNECTED,  /* no QEMU at the back-end */
  RESIZE_NO_DRIVER,      /* no session */
  RESIZE_PAUSED,         /* the guest's processors stand still */
  RESIZE_GUEST_SILENT,   /* there is a session, but the guest says nothing */
  RESIZE_GUEST_NEEDS,    /* it would come below its low watermark */
  RESIZE_STUCK,          /* pages in the blocks that can't be moved */
  RESIZE_GUEST_DECLINES, /* growing: the guest asks for no more, and nobody refused it anything */
  RESIZE_TARGET_CHANGED, /* somebody set another target meanwhile */
  RESIZE_TIMEOUT,        /* it still moved when time was up */
  RESIZE_REASONS
} ResizeReason;

/* As in JSON: "capacity", "host-limit", …; NULL for RESIZE_NO_REASON. */
const char *resize_reason_name (ResizeReason reason);

/* Why the last GRANT got less than it asked for, if that is not longer ago than within_ms, and lasting. */
ResizeReason resize_refusal (const VmStatus *status, guint64 within_ms);

typedef enum { RESIZE_GOES_ON, RESIZE_REACHED, RESIZE_SHORT } ResizeVerdict;

typedef struct {
  ResizeVerdict verdict;
  ResizeReason reason;    /* RESIZE_SHORT */
  guint64 reached_blocks; /* what the back-end said last */
  guint64 stuck_blocks;   /* the guest's word; 0: none */
} ResizeOutcome;

typedef struct {
  guint64 goal, start; /* blocks */
  gboolean grows, paused;
  gint64 deadline_ms;
  gint64 moved_ms;                 /* when granted last changed by more than a trickle … */
  guint64 mark;                    /* … to this */
  gint64 connected_ms;             /* when there was last a QEMU … */
  gint64 session_ms;               /* … and a session */
  gint64 heard_ms;                 /* when the guest last made a request */
  guint64 granted, requests, most; /* as last seen; the most it can get */
} Resize;

/* goal in blocks, as it was asked for (may exceed the VM's maximum: the most it can get is that). paused: libvirt says so. */
void resize_begin (Resize *resize, const VmStatus *status, guint64 goal, gboolean paused, gint64 now_ms, int timeout_ms);
void resize_look (Resize *resize, const VmStatus *status, gint64 now_ms, ResizeOutcome *ret_outcome);
/* 0 to 1, for a bar. */
double resize_progress (const Resize *resize);

/* "cause; next step", for behind "domain 'vm1': has 3G of 4G: ". label is the domain's, as it stands in commands. */
char *resize_explain (ResizeReason reason, const VmStatus *status, guint64 stuck_blocks, const char *label);

#endif
