/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/resize-run.h"
#include "ctl/text.h"

/* Events come when something happens; the clock has to be looked at all the same. */
#define LOOK_EVERY_MS 500
/* A guest that grows sends many events in a row: no need to draw each. */
#define LOOK_LEAST_MS 50
#define EVENTS_AT_ONCE 256

static gint64
now_ms (void) {
  return g_get_monotonic_time () / 1000;
}

gboolean
resize_status (ControlClient *client, VmStatus *ret_status, GError **error) {
  g_autoptr (JsonObject) answer = control_client_execute (client, "status", NULL, CONTROL_CLIENT_TIMEOUT_MS, error);

  return answer && vm_status_read (answer, ret_status, error);
}

gboolean
resize_set_target (ControlClient *client, gboolean have_target, guint64 blocks, GError **error) {
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonObject) answer = NULL;

  if (have_target)
    json_object_set_int_member (arguments, "blocks", (gint64)MIN (blocks, (guint64)G_MAXINT64));
  else
    json_object_set_null_member (arguments, "blocks");
  answer = control_client_execute (client, "set-target", arguments, CONTROL_CLIENT_TIMEOUT_MS, error);
  return answer != NULL;
}

static void
show (CtlProgress *progress, const Resize *resize) {
  g_autofree char *granted = text_size_short (resize->granted << 21), *goal = text_size_short (resize->goal << 21);
  g_autofree char *text = g_strdup_printf ("%s of %s, %" G_GINT64_FORMAT " s left", granted, goal,
                                           MAX (resize->deadline_ms - now_ms () + 999, 0) / 1000);

  ctl_progress_show (progress, resize_progress (resize), text);
}

/* Takes the events that have come, though not without end; what they say is asked for with `status` in any case. */
static gboolean
drop_events (ControlClient *client, GError **error) {
  g_autoptr (GError) reason = NULL;

  for (unsigned n = 0; n < EVENTS_AT_ONCE && !reason; n++) {
    g_autofree char *event = control_client_event (client, &reason);

    if (!event)
      break;
  }
  if (!reason)
    return TRUE;
  g_propagate_error (error, g_steal_pointer (&reason));
  return FALSE;
}

gboolean
resize_run (Ctl *ctl, ControlClient *client, const char *label, const ResizeRequest *request, ResizeOutcome *ret_outcome,
            VmStatus *ret_status, GError **error) {
  static const char *const events[] = { "granted", "session", "connection", "target", "refused", NULL };
  g_autoptr (CtlProgress) progress = ctl_progress_new (ctl, label);
  g_autoptr (GError) reason = NULL;
  VmStatus status;
  Resize resize;

  if (!control_client_subscribe (client, events, &reason) && reason) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  if (!resize_status (client, &status, error))
    return FALSE;
  resize_begin (&resize, &status, request->goal_blocks, request->paused, now_ms (), request->timeout_ms);
  vm_status_clear (&status);
  if (!resize_set_target (client, TRUE, request->goal_blocks, error))
    return FALSE;

  ctl_interrupt_begin (ctl);
  for (;;) {
    const gint64 looked_ms = now_ms ();

    if (!drop_events (client, error) || !resize_status (client, &status, error))
      break;
    resize_look (&resize, &status, looked_ms, ret_outcome);
    show (progress, &resize);
    if (ret_outcome->verdict != RESIZE_GOES_ON || ctl_interrupted (ctl)) {
      ctl_interrupt_end (ctl);
      *ret_status = status;
      return TRUE;
    }
    vm_status_clear (&status);
    if (ctl_wait (ctl, control_client_fd (client), (int)MIN (LOOK_EVERY_MS, MAX (resize.deadline_ms - looked_ms, 1))))
      ctl_wait (ctl, -1, LOOK_LEAST_MS);
  }
  ctl_interrupt_end (ctl);
  return FALSE;
}
