/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/resize.h"
#include "ctl/text.h"

#include <string.h>

/* A section that grows or shrinks takes the guest well below a second, ten times that under emulation: who has not moved for
 * this long does not move. */
#define STALL_MS 3000
/* A guest that has nothing more to give still finds a block now and then: that is no movement, unless it adds up. */
#define TRICKLE_BLOCKS 4
/* The driver sends figures every ten seconds when nothing changes. */
#define SILENT_MS 12000
/* Without a refusal we can't know that a guest will not ask any more. */
#define DECLINE_MS 10000
/* A guest that boots, or whose driver is being loaded. */
#define ABSENT_MS 5000
/* Growing goes by whole sections, and what is too much comes back right after. */
#define SETTLE_MS 1500
/* How long a guest may take to see a new target: figures from before then say nothing about it. */
#define NOTICE_MS 2000

static const char *const reason_names[RESIZE_REASONS] = {
  [RESIZE_CAPACITY] = "capacity",
  [RESIZE_HOST_LIMIT] = "host-limit",
  [RESIZE_HOST_MEMORY] = "host-memory",
  [RESIZE_POPULATE] = "populate",
  [RESIZE_AREA] = "area",
  [RESIZE_HOST_FAILED] = "host-failed",
  [RESIZE_NOT_CONNECTED] = "not-connected",
  [RESIZE_NO_DRIVER] = "no-driver",
  [RESIZE_PAUSED] = "paused",
  [RESIZE_GUEST_SILENT] = "guest-silent",
  [RESIZE_GUEST_NEEDS] = "guest-needs",
  [RESIZE_STUCK] = "stuck",
  [RESIZE_GUEST_DECLINES] = "guest-declines",
  [RESIZE_TARGET_CHANGED] = "target-changed",
  [RESIZE_TIMEOUT] = "timeout",
};

const char *
resize_reason_name (ResizeReason reason) {
  return reason < RESIZE_REASONS ? reason_names[reason] : NULL;
}

void
resize_begin (Resize *resize, const VmStatus *status, guint64 goal, gboolean paused, gint64 now_ms, int timeout_ms) {
  *resize = (Resize){
    .goal = goal,
    .start = status->granted_blocks,
    .grows = goal > status->granted_blocks,
    .paused = paused,
    .deadline_ms = now_ms + timeout_ms,
    .moved_ms = now_ms,
    .connected_ms = now_ms,
    .session_ms = now_ms,
    .heard_ms = now_ms,
    .mark = status->granted_blocks,
    .granted = status->granted_blocks,
    .requests = status->requests,
    .most = MIN (goal, status->max_blocks),
  };
}

ResizeReason
resize_refusal (const VmStatus *status, guint64 within_ms) {
  /* As in backend/device/control.md. The driver gets over some of them by itself. */
  static const struct {
    const char *name;
    ResizeReason reason;
  } refusals[] = {
    { "capacity", RESIZE_CAPACITY },
    { "host-limit", RESIZE_HOST_LIMIT },
    { "host-memory", RESIZE_HOST_MEMORY },
    { "populate", RESIZE_POPULATE },
    { "area", RESIZE_AREA },
    { "host-busy", RESIZE_NO_REASON },
    { "runs", RESIZE_NO_REASON },
  };

  if (!status->refused_reason || status->refused_age_ms > within_ms)
    return RESIZE_NO_REASON;
  for (unsigned i = 0; i < G_N_ELEMENTS (refusals); i++)
    if (strcmp (status->refused_reason, refusals[i].name) == 0)
      return refusals[i].reason;
  return RESIZE_HOST_FAILED;
}

/* Whether the guest has sent figures at least `after_ms` after the last movement, still_ms ago. */
static gboolean
has_figures (const VmStatus *status, gint64 still_ms, gint64 after_ms) {
  return status->stats_age_ms != VM_UNKNOWN && still_ms >= after_ms && status->stats_age_ms <= (guint64)(still_ms - after_ms);
}

/* Why nothing moves; RESIZE_NO_REASON when it is too early to say. */
static ResizeReason
stall_reason (const Resize *resize, const VmStatus *status, gint64 now_ms) {
  const gint64 still_ms = now_ms - resize->moved_ms;
  const gboolean stuck = status->blocks_stuck != VM_UNKNOWN && status->blocks_stuck > 0;

  if (!status->connected)
    return now_ms - resize->connected_ms >= ABSENT_MS ? RESIZE_NOT_CONNECTED : RESIZE_NO_REASON;
  if (still_ms < STALL_MS)
    return RESIZE_NO_REASON;
  if (resize->paused)
    return RESIZE_PAUSED;
  if (!status->session)
    return now_ms - resize->session_ms >= ABSENT_MS ? RESIZE_NO_DRIVER : RESIZE_NO_REASON;
  if (resize->grows && resize_refusal (status, (guint64)still_ms))
    return resize_refusal (status, (guint64)still_ms);
  if (!resize->grows && stuck && has_figures (status, still_ms, 0))
    return RESIZE_STUCK;
  if (!resize->grows && !stuck && has_figures (status, still_ms, NOTICE_MS))
    return RESIZE_GUEST_NEEDS;
  if (now_ms - resize->heard_ms >= SILENT_MS)
    return RESIZE_GUEST_SILENT;
  if (resize->grows && still_ms >= DECLINE_MS && resize->heard_ms > resize->moved_ms)
    return RESIZE_GUEST_DECLINES;
  return RESIZE_NO_REASON;
}

void
resize_look (Resize *resize, const VmStatus *status, gint64 now_ms, ResizeOutcome *ret) {
  const guint64 granted = status->granted_blocks;

  if (granted > resize->mark + TRICKLE_BLOCKS || granted + TRICKLE_BLOCKS < resize->mark) {
    resize->moved_ms = now_ms;
    resize->mark = granted;
  }
  if (status->requests != resize->requests)
    resize->heard_ms = now_ms;
  if (status->connected)
    resize->connected_ms = now_ms;
  if (status->session)
    resize->session_ms = now_ms;
  resize->granted = granted;
  resize->requests = status->requests;
  resize->most = MIN (resize->goal, status->max_blocks);

  *ret = (ResizeOutcome){
    .verdict = RESIZE_GOES_ON,
    .reached_blocks = granted,
    .stuck_blocks = status->blocks_stuck != VM_UNKNOWN ? status->blocks_stuck : 0,
  };
  if (granted == resize->goal || (!resize->grows && granted < resize->goal)) {
    ret->verdict = RESIZE_REACHED;
    return;
  }
  if (resize->grows && granted > resize->goal) {
    if (now_ms - resize->moved_ms >= SETTLE_MS || now_ms >= resize->deadline_ms)
      ret->verdict = RESIZE_REACHED;
    return;
  }
  if (!status->have_target || status->target_blocks != resize->most)
    ret->reason = RESIZE_TARGET_CHANGED;
  else if (resize->grows && granted >= status->max_blocks)
    ret->reason = RESIZE_CAPACITY;
  else
    ret->reason = stall_reason (resize, status, now_ms);
  if (!ret->reason && now_ms >= resize->deadline_ms)
    ret->reason = RESIZE_TIMEOUT;
  if (ret->reason)
    ret->verdict = RESIZE_SHORT;
}

double
resize_progress (const Resize *resize) {
  const double whole = (double)resize->most - (double)resize->start, done = (double)resize->granted - (double)resize->start;

  return whole == 0 ? 1 : CLAMP (done / whole, 0, 1);
}

/* ---- words ---- */

static char *
blocks_text (guint64 blocks) {
  return text_size (blocks << 21);
}

char *
resize_explain (ResizeReason reason, const VmStatus *status, guint64 stuck_blocks, const char *label) {
  g_autofree char *max = blocks_text (status->max_blocks);

  switch (reason) {
  case RESIZE_CAPACITY:
    return g_strdup_printf ("that is all it may have (--local-max is %s%s); detach it and attach it with a larger --local-max",
                            max,
                            status->granted_blocks < status->max_blocks && status->max_blocks == status->window_blocks
                                ? ", less the last section of the window, which is never granted"
                                : "");
  case RESIZE_HOST_LIMIT: {
    g_autofree char *limit
        = status->host_limit_blocks != VM_UNKNOWN ? blocks_text (status->host_limit_blocks) : g_strdup ("its limit");

    return g_strdup_printf ("this host lends no more to all its VMs together (%s); shrink another one, see 'domybsctl list'",
                            limit);
  }
  case RESIZE_HOST_MEMORY: {
    g_autofree char *reserve = status->host_reserve_bytes != VM_UNKNOWN ? text_size_short (status->host_reserve_bytes) : NULL;

    return g_strdup_printf (
        "the host itself is short of memory%s%s%s; end something on it or shrink another VM, see 'domybsctl status'",
        reserve ? " (it keeps " : "", reserve ? reserve : "", reserve ? " for itself)" : "");
  }
  case RESIZE_POPULATE:
    return g_strdup ("the kernel gave no memory to populate it with, perhaps for a cgroup's limit; the back-end's log in "
                     "/var/log/domybs says more");
  case RESIZE_AREA:
    return g_strdup_printf (
        "what is free of the window is too scattered for the guest; see 'domybsctl blocks %s', shrink it first", label);
  case RESIZE_HOST_FAILED:
    return g_strdup ("the host could not do it; the back-end's log in /var/log/domybs says why");
  case RESIZE_NOT_CONNECTED:
    return g_strdup_printf ("no QEMU is connected to its back-end; see 'domybsctl status %s'", label);
  case RESIZE_NO_DRIVER:
    return g_strdup ("no guest driver is there to follow; load virtio_domybs in the guest");
  case RESIZE_PAUSED:
    return g_strdup_printf ("the guest is paused; 'virsh resume %s' lets it go on", label);
  case RESIZE_GUEST_SILENT:
    return g_strdup ("the guest does not respond; look at its console");
  case RESIZE_GUEST_NEEDS: {
    g_autofree char *available
        = status->mem_available_bytes != VM_UNKNOWN ? text_size_short (status->mem_available_bytes) : NULL;

    return g_strdup_printf ("the guest needs the rest%s%s%s; end something in the guest, or ask for less",
                            available ? " (it has " : "", available ? available : "", available ? " available)" : "");
  }
  case RESIZE_STUCK: {
    g_autofree char *stuck = blocks_text (stuck_blocks);

    return g_strdup_printf (
        "%s of it hold pages that the guest can't move; end what uses them in the guest, or try again later", stuck);
  }
  case RESIZE_GUEST_DECLINES:
    return g_strdup (
        "the guest asks for no more; /sys/bus/virtio/drivers/virtio_domybs/virtio*/domybs/state in the guest says why");
  case RESIZE_TARGET_CHANGED: {
    g_autofree char *target = status->have_target ? blocks_text (status->target_blocks) : g_strdup ("auto");

    return g_strdup_printf ("somebody else set the target to %s meanwhile; agree, and try again", target);
  }
  case RESIZE_TIMEOUT:
    return g_strdup ("it was still on its way when the time was up; wait, or give it more with --timeout");
  case RESIZE_NO_REASON:
  case RESIZE_REASONS:
    break;
  }
  return g_strdup ("it goes on");
}
