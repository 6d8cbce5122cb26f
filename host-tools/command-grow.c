/* SPDX-License-Identifier: GPL-2.0-or-later */
/* grow and shrink: one thing in two directions. */
#include "ctl/resize-run.h"
#include "ctl/text.h"
#include "ctl/vm.h"

#include <string.h>

#define TIMEOUT_DEFAULT_S 60
#define TIMEOUT_MAX_S 86400
#define BLOCK_SHIFT 21

static char *
blocks_text (guint64 blocks) {
  return text_size (blocks << BLOCK_SHIFT);
}

/* What SIZE says. */
typedef struct {
  gboolean relative;
  guint64 blocks;
} Wish;

static gboolean
read_wish (const char *command, gboolean grows, const char *text, Wish *ret_wish, GError **error) {
  const char sign = grows ? '+' : '-', wrong = grows ? '-' : '+';
  g_autofree char *what = g_strdup_printf ("%s: SIZE", command);
  guint64 bytes;

  ret_wish->relative = *text == sign;
  if (*text == wrong) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: '%s' goes the other way; use 'domybsctl %s', or %cSIZE", command, text,
                 grows ? "shrink" : "grow", sign);
    return FALSE;
  }
  if (!ctl_parse_size (what, text + ret_wish->relative, &bytes, error))
    return FALSE;
  ret_wish->blocks = bytes >> BLOCK_SHIFT;
  return TRUE;
}

/* The amount to go to, from what is granted now. */
static gboolean
goal_of (const Vm *vm, const VmStatus *status, gboolean grows, const Wish *wish, guint64 *ret_goal, GError **error) {
  const guint64 now = status->granted_blocks;

  if (wish->relative && grows)
    *ret_goal = now + wish->blocks;
  else if (wish->relative)
    *ret_goal = now > wish->blocks ? now - wish->blocks : 0;
  else
    *ret_goal = wish->blocks;
  if (grows ? *ret_goal < now : *ret_goal > now) {
    g_autofree char *has = blocks_text (now), *goal = blocks_text (*ret_goal);

    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "domain '%s': it has %s, which is %s than %s; use 'domybsctl %s %s %s'",
                 vm->label, has, grows ? "more" : "less", goal, grows ? "shrink" : "grow", vm->word, goal);
    return FALSE;
  }
  return TRUE;
}

static void
json_result (Ctl *ctl, const Vm *vm, guint64 start, guint64 goal, const ResizeOutcome *outcome, const VmStatus *status) {
  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  ctl_json_bytes (ctl, "start-bytes", start << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "goal-bytes", goal << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "reached-bytes", outcome->reached_blocks << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "used-bytes", status->memfd_bytes);
  if (status->have_target)
    ctl_json_bytes (ctl, "target-bytes", status->target_blocks << BLOCK_SHIFT);
  else
    ctl_json_null (ctl, "target-bytes");
  ctl_json_string (ctl, "reason", resize_reason_name (outcome->reason));
  ctl_json_bytes (ctl, "stuck-bytes", outcome->stuck_blocks << BLOCK_SHIFT);
}

/* How it ended, in words: an error unless it was reached. */
static gboolean
tell (Ctl *ctl, const Vm *vm, guint64 goal, const ResizeOutcome *outcome, const VmStatus *status, GError **error) {
  g_autofree char *reached = blocks_text (outcome->reached_blocks), *wanted = blocks_text (goal);
  g_autofree char *target = status->have_target ? blocks_text (status->target_blocks) : g_strdup ("auto");
  g_autofree char *used = text_size_short (status->memfd_bytes), *why = NULL;

  if (outcome->verdict == RESIZE_REACHED) {
    ctl_say (ctl, "Domain '%s' has %s (%s of the host's memory really used). Its target stays %s.", vm->label, reached, used,
             target);
    return TRUE;
  }
  if (ctl->interrupted) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE,
                 "domain '%s': has %s of %s; its target stays %s and it goes on; 'domybsctl target %s auto' ends that",
                 vm->label, reached, wanted, target, vm->word);
    return FALSE;
  }
  why = resize_explain (outcome->reason, status, outcome->stuck_blocks, vm->word);
  g_set_error (error, CTL_ERROR, CTL_ERROR_INCOMPLETE, "domain '%s': has %s, not %s: %s (its target stays %s)", vm->label,
               reached, wanted, why, target);
  return FALSE;
}

static gboolean
resize (Ctl *ctl, int argc, char **argv, gboolean grows, GError **error) {
  int timeout_s = TIMEOUT_DEFAULT_S;
  const GOptionEntry entries[] = {
    { "timeout", 't', 0, G_OPTION_ARG_INT, &timeout_s, "Wait at most so long (60)", "SECONDS" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (ControlClient) client = NULL;
  g_autoptr (Vm) vm = NULL;
  ResizeRequest request = { 0 };
  ResizeOutcome outcome = { 0 };
  VmStatus status = { 0 };
  guint64 start;
  Wish wish;
  gboolean ok;

  if (!ctl_parse (ctl, entries, &argc, &argv, 2, 2, error))
    return FALSE;
  if (timeout_s < 1 || timeout_s > TIMEOUT_MAX_S) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --timeout: %d is not between 1 and %d seconds", ctl->command,
                 timeout_s, TIMEOUT_MAX_S);
    return FALSE;
  }
  if (!read_wish (ctl->command, grows, argv[1], &wish, error))
    return FALSE;
  vm = vm_open (ctl, argv[0], &client, error);
  if (!vm)
    return FALSE;
  if (!resize_status (client, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  start = status.granted_blocks;
  ok = goal_of (vm, &status, grows, &wish, &request.goal_blocks, error);
  vm_status_clear (&status);
  if (!ok)
    return FALSE;
  request.timeout_ms = timeout_s * 1000;
  request.paused = vm->state == VM_PAUSED;
  if (!resize_run (ctl, client, vm->label, &request, &outcome, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  json_result (ctl, vm, start, request.goal_blocks, &outcome, &status);
  ok = tell (ctl, vm, request.goal_blocks, &outcome, &status, error);
  vm_status_clear (&status);
  return ok;
}

gboolean
command_grow (Ctl *ctl, int argc, char **argv, GError **error) {
  return resize (ctl, argc, argv, TRUE, error);
}

gboolean
command_shrink (Ctl *ctl, int argc, char **argv, GError **error) {
  return resize (ctl, argc, argv, FALSE, error);
}
