/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/resize-run.h"
#include "ctl/text.h"
#include "ctl/vm.h"

#include <string.h>

#define BLOCK_SHIFT 21

/* Sets it. Unlike grow, what can't be is refused: nobody waits here to see what came of it. */
static gboolean
set_target (const Vm *vm, ControlClient *client, const VmStatus *status, gboolean automatic, guint64 blocks, GError **error) {
  if (!automatic && blocks > status->max_blocks) {
    g_autofree char *wanted = text_size (blocks << BLOCK_SHIFT), *max = text_size (status->max_blocks << BLOCK_SHIFT);

    g_set_error (
        error, CTL_ERROR, CTL_ERROR_REFUSED,
        "domain '%s': a target of %s is more than it may have (--local-max is %s); ask for less, or attach it with more",
        vm->label, wanted, max);
    return FALSE;
  }
  if (resize_set_target (client, !automatic, blocks, error))
    return TRUE;
  vm_prefix_error (vm, error);
  return FALSE;
}

static void
show (Ctl *ctl, const Vm *vm, const VmStatus *status) {
  g_autofree char *granted = text_size (status->granted_blocks << BLOCK_SHIFT);
  g_autofree char *target = status->have_target ? text_size (status->target_blocks << BLOCK_SHIFT) : g_strdup ("auto");
  g_autofree char *line = g_strdup_printf ("%s\n", target);

  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  if (status->have_target)
    ctl_json_bytes (ctl, "target-bytes", status->target_blocks << BLOCK_SHIFT);
  else
    ctl_json_null (ctl, "target-bytes");
  ctl_json_bytes (ctl, "granted-bytes", status->granted_blocks << BLOCK_SHIFT);
  ctl_json_bytes (ctl, "max-bytes", status->max_blocks << BLOCK_SHIFT);
  if (ctl->quiet)
    ctl_print (ctl, line);
  else if (status->have_target)
    ctl_say (ctl, "Domain '%s': target %s, has %s.", vm->label, target, granted);
  else
    ctl_say (ctl, "Domain '%s': target auto (its guest decides), has %s.", vm->label, granted);
}

gboolean
command_target (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autoptr (ControlClient) client = NULL;
  g_autoptr (Vm) vm = NULL;
  gboolean automatic, ok;
  VmStatus status;
  guint64 bytes = 0;

  if (!ctl_parse (ctl, NULL, &argc, &argv, 1, 2, error))
    return FALSE;
  automatic = argc == 2 && strcmp (argv[1], "auto") == 0;
  if (argc == 2 && !automatic && !ctl_parse_size ("target: SIZE", argv[1], &bytes, error))
    return FALSE;
  vm = vm_open (ctl, argv[0], &client, error);
  if (!vm)
    return FALSE;
  if (!resize_status (client, &status, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (argc == 2) {
    ok = set_target (vm, client, &status, automatic, bytes >> BLOCK_SHIFT, error);
    vm_status_clear (&status);
    if (!ok)
      return FALSE;
    if (!resize_status (client, &status, error)) {
      vm_prefix_error (vm, error);
      return FALSE;
    }
  }
  show (ctl, vm, &status);
  vm_status_clear (&status);
  return TRUE;
}
