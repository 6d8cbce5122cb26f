/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/config.h"
#include "attach/live-far.h"
#include "attach/live-object.h"
#include "attach/live.h"
#include "attach/scope.h"
#include "ctl/vm.h"
#include "object/object.h"

#define TIMEOUT_DEFAULT_S 60
#define TIMEOUT_MAX_S 86400

typedef struct {
  DomainParts parts; /* what to take away; all: all there is, whatever that says */
  gboolean all, live, config, print_xml, dry_run;
  int timeout_s;
} Flags;

static gboolean
takes_memory (const Flags *flags) {
  return flags->all || flags->parts.memory;
}

static gboolean
takes_far (const Flags *flags) {
  return flags->all || flags->parts.far;
}

static gboolean
takes_all_objects (const Flags *flags) {
  return flags->all || flags->parts.all_objects;
}

/* Of those that the running VM has, the ones that are to be taken away. */
static void
choose_objects (const Vm *vm, const Flags *flags, DomainObjects *ret_objects) {
  DomainObjects others;

  *ret_objects = vm->have_objects ? vm->objects : (DomainObjects){ 0 };
  if (takes_all_objects (flags))
    return;
  others = *ret_objects;
  domain_objects_remove (&others, &flags->parts.objects);
  domain_objects_remove (ret_objects, &others);
}

static gboolean
has_far (const char *xml) {
  g_auto (DomainFar) far = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];

  return xml && domain_read_far (xml, &far, queues, NULL);
}

/* A ConfigEdit. That nothing is attached is no error here: it may be attached to the running VM only. */
static char *
edit (const char *xml, gpointer data, GPtrArray *changes, GError **error) {
  const Flags *flags = data;
  g_autoptr (GError) reason = NULL;
  char *after = flags->all ? domain_detach (xml, changes, &reason) : domain_detach_parts (xml, &flags->parts, changes, &reason);

  if (!after && g_error_matches (reason, CTL_ERROR, CTL_ERROR_NOT_FOUND))
    return g_strdup (xml);
  if (!after)
    g_propagate_error (error, g_steal_pointer (&reason));
  return after;
}

static void
json_result (Ctl *ctl, const Vm *vm, const Config *config, gboolean live_changed, gboolean dry_run) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  ctl_json_bool (ctl, "dry-run", dry_run);
  ctl_json_bool (ctl, "config-changed", config->before && config_is_changed (config));
  ctl_json_bool (ctl, "live-changed", live_changed);
  json_builder_set_member_name (builder, "changes");
  json_builder_begin_array (builder);
  for (guint i = 0; config->changes && i < config->changes->len; i++)
    json_builder_add_string_value (builder, config->changes->pdata[i]);
  json_builder_end_array (builder);
}

/* What became of the running VM. */
typedef struct {
  gboolean memory, far, objects; /* is out of it */
  char *far_why_not;             /* NULL: it was not tried, or done */
  char *objects_why_not;
} Taken;

static void
taken_clear (Taken *taken) {
  g_free (taken->far_why_not);
  g_free (taken->objects_why_not);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Taken, taken_clear)

/* What the configuration had and has not any more: "the memory device and far disks". */
static char *
describe_lost (const Config *config) {
  GString *text = g_string_new (NULL);
  DomainObjects before = { 0 }, after = { 0 };
  DomainMemory memory;

  if (domain_read_memory (config->before, &memory, NULL) && !domain_read_memory (config->after, &memory, NULL))
    g_string_append (text, "the memory device");
  if (has_far (config->before) && !has_far (config->after))
    g_string_append_printf (text, "%sfar disks", text->len ? " and " : "");
  (void)domain_read_objects (config->before, &before, NULL);
  (void)domain_read_objects (config->after, &after, NULL);
  domain_objects_remove (&before, &after);
  if (before.n) {
    g_autofree char *names = domain_objects_text (&before, "', '");

    g_string_append_printf (text, "%sobject%s '%s'", text->len ? " and " : "", before.n == 1 ? "" : "s", names);
  }
  if (!text->len)
    g_string_append (text, "the memory device"); /* what was left of it, without a record */
  return g_string_free (text, FALSE);
}

static void
tell (Ctl *ctl, const Vm *vm, const Scope *scope, const Flags *flags, const Config *config, gboolean config_changed,
      const Taken *taken) {
  DomainObjects objects;

  choose_objects (vm, flags, &objects);
  if (taken->far)
    ctl_say (ctl, "Domain '%s': the far disks are out of the running VM.", vm->label);
  if (taken->objects) {
    g_autofree char *names = domain_objects_text (&objects, "', '");

    ctl_say (ctl, "Domain '%s': object%s '%s' %s out of the running VM.", vm->label, objects.n == 1 ? "" : "s", names,
             objects.n == 1 ? "is" : "are");
  }
  if (taken->memory)
    ctl_say (ctl,
             "Domain '%s': the device is out of the running VM. Its empty port stays until the VM is shut down, so that the "
             "device can be attached again.",
             vm->label);
  if (config_changed) {
    g_autofree char *lost = describe_lost (config);

    ctl_say (ctl, "Domain '%s' will start without %s.", vm->label, lost);
  }
  if (scope->running && vm->have_far && takes_far (flags) && !taken->far)
    ctl_say (ctl, "The running VM keeps its far disks until it is shut down%s%s.", taken->far_why_not ? ": " : "",
             taken->far_why_not ? taken->far_why_not : "");
  if (scope->running && objects.n && !taken->objects)
    ctl_say (ctl, "The running VM keeps its objects until it is shut down%s%s.", taken->objects_why_not ? ": " : "",
             taken->objects_why_not ? taken->objects_why_not : "");
  if (config_changed && scope->running && !scope->live && takes_memory (flags) && vm->attached && vm->memory.present)
    ctl_say (ctl, "The running VM keeps the device until it is shut down; 'domybsctl detach %s --live' takes it out now.",
             vm->word);
  if (!config_changed && (taken->memory || taken->far || taken->objects) && scope->persistent && !scope->config)
    ctl_say (ctl, "Its configuration was not changed.");
}

/* Nothing is attached where we were to take it from: to say so is an error of its own. */
static gboolean
nothing (const Vm *vm, const Scope *scope, const Flags *flags, GError **error) {
  const char *where = scope->live && scope->config ? "" : scope->live ? " to the running VM" : " to its configuration";

  g_set_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND,
               "domain '%s': no %s is attached%s; 'domybsctl list --all' shows where one is", vm->label,
               takes_memory (flags)       ? "memory device"
               : takes_far (flags)        ? "far disk"
               : flags->parts.all_objects ? "object"
                                          : "object of that name",
               where);
  return FALSE;
}

/* What can't be taken out of the running VM now is an error only for who has asked for that; else *ret_why_not. */
static gboolean
is_no_error (Ctl *ctl, const Vm *vm, const Scope *scope, GError *reason, char **ret_why_not, GError **error) {
  if (scope->live_asked || !scope->config || ctl->interrupted) {
    g_propagate_error (error, reason);
    return FALSE;
  }
  *ret_why_not = scope_cause (vm->label, reason);
  g_error_free (reason);
  return TRUE;
}

/* Of the running VM. */
static gboolean
take (Ctl *ctl, ctl_domain_t *domain, const Vm *vm, const Scope *scope, const Flags *flags, Taken *taken, GError **error) {
  GError *reason = NULL;
  DomainObjects objects;

  if (!scope->live)
    return TRUE;
  choose_objects (vm, flags, &objects);
  if (vm->have_far && takes_far (flags) && !live_far_unplug (ctl, domain, &taken->far, &reason)
      && !is_no_error (ctl, vm, scope, reason, &taken->far_why_not, error))
    return FALSE;
  reason = NULL;
  if (objects.n && !live_objects_unplug (ctl, domain, &objects, &taken->objects, &reason)
      && !is_no_error (ctl, vm, scope, reason, &taken->objects_why_not, error))
    return FALSE;
  if (!vm->attached || !takes_memory (flags) || live_unplug (ctl, domain, flags->timeout_s * 1000, &taken->memory, error))
    return TRUE;
  if (taken->far || taken->objects)
    ctl_warn (ctl, "domain '%s': its %s are out of it already", vm->label,
              !taken->objects ? "far disks"
              : !taken->far   ? "objects"
                              : "far disks and objects");
  return FALSE;
}

/* First the running VM, which may refuse; then the configuration. */
static gboolean
apply (Ctl *ctl, ctl_connect_t *connection, ctl_domain_t *domain, const Vm *vm, const Scope *scope, const Flags *flags,
       Config *config, GError **error) {
  const gboolean config_changes = config->before && config_is_changed (config),
                 live = scope->live && vm->attached && takes_memory (flags);
  g_auto (Taken) taken = { 0 };
  gboolean any_taken;

  if (!take (ctl, domain, vm, scope, flags, &taken, error))
    return FALSE;
  any_taken = taken.memory || taken.far || taken.objects;
  if (config_changes && !config_apply (connection, domain, edit, (gpointer)flags, config, error)) {
    if (any_taken)
      g_prefix_error (error, "taken out of the running VM, but not of the configuration: ");
    return FALSE;
  }
  json_result (ctl, vm, config, any_taken, FALSE);
  tell (ctl, vm, scope, flags, config, config_changes, &taken);
  return any_taken || config_changes || (live && vm->memory.present) || nothing (vm, scope, flags, error);
}

static gboolean
detach (Ctl *ctl, const char *name, const Flags *flags, GError **error) {
  g_autoptr (ctl_connect_t) connection = ctl_connect (ctl, CTL_CHANGES, error);
  g_autoptr (ctl_domain_t) domain = connection ? ctl_domain_find (connection, name, error) : NULL;
  g_autoptr (Vm) vm = domain ? vm_read (domain, error) : NULL;
  g_auto (Config) config = { 0 };
  gboolean live_changes, live_far_changes;
  DomainObjects objects = { 0 };
  Scope scope;

  if (!vm || !scope_choose (domain, flags->live, flags->config, &scope, error))
    return FALSE;
  if (flags->print_xml && !scope.config) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --print-xml shows the configuration, which --live does not change",
                 ctl->command);
    return FALSE;
  }
  if (vm->problem && scope.live) {
    g_propagate_error (error, g_error_copy (vm->problem));
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (scope.config && !config_plan (domain, edit, (gpointer)flags, &config, error))
    return FALSE;
  if (!flags->print_xml && !flags->dry_run)
    return apply (ctl, connection, domain, vm, &scope, flags, &config, error);

  live_changes = scope.live && vm->attached && vm->memory.present && takes_memory (flags);
  live_far_changes = scope.live && vm->have_far && takes_far (flags);
  if (scope.live)
    choose_objects (vm, flags, &objects);
  if (!live_changes && !live_far_changes && !objects.n && !(config.before && config_is_changed (&config)))
    return nothing (vm, &scope, flags, error);
  json_result (ctl, vm, &config, live_changes || live_far_changes || objects.n, TRUE);
  if (flags->print_xml) {
    ctl_json_string (ctl, "xml", config.after);
    ctl_print (ctl, config.after);
    return TRUE;
  }
  if (live_far_changes)
    ctl_say (ctl, "running VM: unplugs the far disks, if they are empty");
  if (objects.n) {
    g_autofree char *names = domain_objects_text (&objects, "', '");

    ctl_say (ctl, "running VM: unplugs object%s '%s'", objects.n == 1 ? "" : "s", names);
  }
  if (live_changes)
    ctl_say (ctl, "running VM: shrinks it to 0 and unplugs the device; its empty port stays until the VM is shut down");
  for (guint i = 0; config.changes && i < config.changes->len; i++)
    ctl_say (ctl, "configuration: %s", (const char *)config.changes->pdata[i]);
  return TRUE;
}

gboolean
command_detach (Ctl *ctl, int argc, char **argv, GError **error) {
  Flags flags = { .timeout_s = TIMEOUT_DEFAULT_S };
  g_auto (GStrv) objects = NULL;
  const GOptionEntry entries[] = {
    { "memory", 0, 0, G_OPTION_ARG_NONE, &flags.parts.memory, "Take only the memory device away", NULL },
    { "far", 0, 0, G_OPTION_ARG_NONE, &flags.parts.far, "… the far disks", NULL },
    { "object", 0, 0, G_OPTION_ARG_STRING_ARRAY, &objects, "… this object; once for each", "NAME" },
    { "all-objects", 0, 0, G_OPTION_ARG_NONE, &flags.parts.all_objects, "… all objects", NULL },
    { "live", 0, 0, G_OPTION_ARG_NONE, &flags.live,
      "Take it out of the running VM, which must give back all that it has borrowed; far disks must be empty", NULL },
    { "config", 0, 0, G_OPTION_ARG_NONE, &flags.config, "Take it out of the configuration: from the next start on", NULL },
    { "timeout", 't', 0, G_OPTION_ARG_INT, &flags.timeout_s, "Wait at most so long for the guest to shrink (60)", "SECONDS" },
    { "print-xml", 0, 0, G_OPTION_ARG_NONE, &flags.print_xml, "Print the new configuration, change nothing", NULL },
    { "dry-run", 0, 0, G_OPTION_ARG_NONE, &flags.dry_run, "Say what would be changed, change nothing", NULL },
    G_OPTION_ENTRY_NULL,
  };

  if (!ctl_parse (ctl, entries, &argc, &argv, 1, 1, error))
    return FALSE;
  if (flags.timeout_s < 1 || flags.timeout_s > TIMEOUT_MAX_S) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --timeout: %d is not between 1 and %d seconds", ctl->command,
                 flags.timeout_s, TIMEOUT_MAX_S);
    return FALSE;
  }
  if (!object_read_names (ctl->command, objects, &flags.parts.objects, error))
    return FALSE;
  flags.all = !flags.parts.memory && !flags.parts.far && !flags.parts.all_objects && !flags.parts.objects.n;
  return detach (ctl, argv[0], &flags, error);
}
