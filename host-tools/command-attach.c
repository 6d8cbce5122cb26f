/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/config.h"
#include "attach/far-wish.h"
#include "attach/host-facts.h"
#include "attach/live-far.h"
#include "attach/live-object.h"
#include "attach/live.h"
#include "attach/scope.h"
#include "host/launch.h"
#include "io/host-memory.h"
#include "ctl/text.h"
#include "ctl/vm.h"
#include "object/object.h"

#include <string.h>

/* Holds what most hosts could lend, and fits where a VM has no more than 40 bits of physical address, QEMU's default. It costs
 * nothing. */
#define WINDOW_DEFAULT_BYTES (64ull << 30)

/* What was asked for, and what comes of it. */
typedef struct {
  guint64 window_bytes, local_max_bytes; /* 0: not given */
  gboolean have_grant, populate, no_node;
  FarWish far_wish;
  DomainObjects more_objects; /* besides those that are there */
  DomainHost host;
  char *socket_path;
  gboolean have_base; /* what the running VM had before its device was unplugged */
  DomainMemory base;
  gboolean have_memory; /* what it will be: none at all, if only far disks were asked for */
  DomainMemory memory;
  DomainFar far;
  DomainObjects objects;
} Wish;

static void
wish_clear (Wish *wish) {
  g_free (wish->socket_path);
  far_wish_clear (&wish->far_wish);
  domain_far_clear (&wish->far);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Wish, wish_clear)

/* ---- what is asked for ---- */

/* All that this host could ever lend, in whole blocks. */
static guint64
lendable_bytes (void) {
  HostMemory memory;

  if (!host_memory_read (&memory, NULL))
    return WINDOW_DEFAULT_BYTES;
  return MAX ((memory.total_bytes - host_memory_reserve (memory.total_bytes)) / DOMAIN_BLOCK_BYTES, 1) * DOMAIN_BLOCK_BYTES;
}

/* Nothing was said about the memory device, but something about far disks or objects: it stays as it is, be it there or not. */
static gboolean
leaves_memory (const Wish *wish) {
  return (far_wish_is_any (&wish->far_wish) || wish->more_objects.n) && !wish->window_bytes && !wish->local_max_bytes
         && !wish->have_grant && !wish->no_node;
}

/* The options, where base (NULL: none) is what holds for all that was not given. */
static DomainAttachOptions
options_from (const Wish *wish, const DomainMemory *base) {
  DomainAttachOptions options = {
    .window_bytes = wish->window_bytes ? wish->window_bytes
                    : base             ? base->window_bytes
                                       : WINDOW_DEFAULT_BYTES,
    .local_max_bytes = wish->local_max_bytes,
    .populate = wish->have_grant ? wish->populate : base && base->populate,
    .own_node = !wish->no_node && (!base || base->numa_node >= 0),
  };

  if (!wish->window_bytes)
    while (options.window_bytes < wish->local_max_bytes && options.window_bytes < DOMAIN_WINDOW_BYTES_MAX)
      options.window_bytes *= 2;
  if (!options.local_max_bytes)
    options.local_max_bytes = base ? base->local_max_bytes : MIN (options.window_bytes, lendable_bytes ());
  return options;
}

/* base: those that are there. */
static gboolean
add_objects (const DomainObjects *base, Wish *wish, GError **error) {
  wish->objects = *base;
  for (unsigned i = 0; i < wish->more_objects.n; i++)
    if (!domain_objects_add (&wish->objects, wish->more_objects.items[i].name)) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "it would have more than %u objects; detach one first",
                   DOMAIN_OBJECTS_MAX);
      return FALSE;
    }
  return TRUE;
}

/* A ConfigEdit. Where the window was left to us, it is the largest up to the default that this VM can have. */
static char *
edit (const char *xml, gpointer data, GPtrArray *changes, GError **error) {
  Wish *wish = data;
  g_autoptr (GError) first = NULL;
  g_auto (DomainFar) base_far = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];
  DomainObjects base_objects = { 0 };
  DomainMemory memory;
  const gboolean attached = domain_read_memory (xml, &memory, NULL), has_far = domain_read_far (xml, &base_far, queues, NULL);
  const DomainMemory *base = attached ? &memory : wish->have_base ? &wish->base : NULL;
  DomainAttachOptions options = { 0 };
  guint64 local_max;
  char *after;

  domain_far_clear (&wish->far);
  (void)domain_read_objects (xml, &base_objects, NULL);
  if (!add_objects (&base_objects, wish, error)
      || !far_wish_apply (&wish->far_wish, has_far ? &base_far : NULL, &wish->far, error))
    return NULL;
  if (attached || !leaves_memory (wish))
    options = options_from (wish, base);
  if (!domain_far_is_none (&wish->far))
    options.far = &wish->far;
  if (wish->objects.n)
    options.objects = &wish->objects;
  if (!options.far && !options.objects && !options.window_bytes)
    return domain_detach_parts (xml, &(DomainParts){ .far = TRUE }, changes, error);
  local_max = options.local_max_bytes;
  after = domain_attach (xml, &options, &wish->host, wish->socket_path, changes, &first);
  while (!after && options.window_bytes && !wish->window_bytes && !base && options.window_bytes > DOMAIN_WINDOW_BYTES_MIN
         && options.window_bytes / 2 >= wish->local_max_bytes) {
    g_ptr_array_set_size (changes, 0);
    options.window_bytes /= 2;
    options.local_max_bytes = MIN (local_max, options.window_bytes);
    after = domain_attach (xml, &options, &wish->host, wish->socket_path, changes, NULL);
  }
  if (!after)
    g_propagate_error (error, g_steal_pointer (&first));
  else
    wish->have_memory = domain_read_memory (after, &wish->memory, NULL);
  return after;
}

/* ---- the running VM ---- */

typedef struct {
  char *xml;
  DomainMemory memory; /* to be plugged */
  gboolean possible, there;
  gboolean plugs_far;
  DomainObjects plugs_objects;
  char *why_not; /* what it takes a restart for; NULL: it does not */
} Live;

static void
live_clear (Live *live) {
  g_free (live->xml);
  g_free (live->why_not);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Live, live_clear)

static gboolean
refuse_live (const Vm *vm, GError **error, const char *why) {
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "domain '%s': %s", vm->label, why);
  return FALSE;
}

/* The far disks that were asked for. */
static gboolean
check_live_far (const Vm *vm, const Wish *wish, Live *live, GError **error) {
  if (!far_wish_is_any (&wish->far_wish) || live_far_is (live->xml, &wish->far))
    return TRUE;
  if (domain_far_is_none (&wish->far)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': attach takes no far disks out of a running VM; 'domybsctl detach %s --far --live' does",
                 vm->label, vm->word);
    return FALSE;
  }
  live->plugs_far = live_far_check (vm, live->xml, &wish->far, error);
  if (!live->plugs_far)
    vm_prefix_error (vm, error);
  return live->plugs_far;
}

static unsigned
count_far (const Live *live, const Wish *wish) {
  unsigned n = 0;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS && live->plugs_far; tier++)
    n += wish->far.bytes[tier] != 0;
  return n;
}

/* The objects that were asked for. */
static gboolean
check_live_objects (const Vm *vm, const Wish *wish, Live *live, GError **error) {
  if (!wish->more_objects.n
      || live_objects_check (live->xml, &wish->more_objects, count_far (live, wish), &live->plugs_objects, error))
    return TRUE;
  live->plugs_objects.n = 0;
  vm_prefix_error (vm, error);
  return FALSE;
}

/* Whether the wish can be plugged into the running VM as it is. FALSE with error. */
static gboolean
check_live (const Vm *vm, const Wish *wish, Live *live, GError **error) {
  if (vm->problem) {
    g_propagate_error (error, g_error_copy (vm->problem));
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (!check_live_far (vm, wish, live, error) || !check_live_objects (vm, wish, live, error))
    return FALSE;
  if (!wish->have_memory || leaves_memory (wish)) {
    live->there = TRUE;
    return TRUE;
  }
  live->memory = wish->memory;
  live->memory.numa_node = vm->attached && !wish->no_node ? vm->memory.numa_node : -1;
  live->memory.present = TRUE;
  if (vm->attached && vm->memory.present) {
    live->there = live->memory.window_bytes == vm->memory.window_bytes
                  && live->memory.local_max_bytes == vm->memory.local_max_bytes && live->memory.populate == vm->memory.populate;
    live->possible = live->there;
    return live->there
           || refuse_live (vm, error,
                           "the running VM has the device with other options; detach it with --live first, or restart the VM");
  }
  if (!domain_check_live (live->xml, live->memory.window_bytes, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (!vm->attached)
    return refuse_live (vm, error, "the running VM has a port for the device, but no <metadata> of it; restart the VM");
  live->possible = TRUE;
  return TRUE;
}

/* ---- saying what was done ---- */

static char *
describe_memory (const DomainMemory *memory) {
  g_autofree char *window = text_size (memory->window_bytes), *local_max = text_size (memory->local_max_bytes);
  g_autofree char *node = memory->numa_node >= 0 ? g_strdup_printf (", NUMA node %d", memory->numa_node) : g_strdup ("");

  return g_strdup_printf ("window %s, at most %s, grant %s%s", window, local_max, memory->populate ? "populate" : "reserve",
                          node);
}

/* "the memory device (window …) and far disks: … and object 'x'". */
static char *
describe (const Wish *wish) {
  g_autofree char *memory = wish->have_memory ? describe_memory (&wish->memory) : NULL, *far = far_describe (&wish->far),
                  *objects = domain_objects_text (&wish->objects, "', '");
  GString *text = g_string_new (NULL);

  if (memory)
    g_string_append_printf (text, "the memory device (%s)", memory);
  if (far)
    g_string_append_printf (text, "%sfar disks: %s", text->len ? " and " : "", far);
  if (wish->objects.n)
    g_string_append_printf (text, "%sobject%s '%s'", text->len ? " and " : "", wish->objects.n == 1 ? "" : "s", objects);
  if (!text->len)
    g_string_append (text, "nothing");
  return g_string_free (text, FALSE);
}

static void
json_memory (Ctl *ctl, const DomainMemory *memory) {
  ctl_json_bytes (ctl, "window-bytes", memory->window_bytes);
  ctl_json_bytes (ctl, "local-max-bytes", memory->local_max_bytes);
  ctl_json_string (ctl, "grant", memory->populate ? "populate" : "reserve");
  if (memory->numa_node >= 0)
    ctl_json_int (ctl, "numa-node", memory->numa_node);
  else
    ctl_json_null (ctl, "numa-node");
}

static void
json_result (Ctl *ctl, const Vm *vm, const Wish *wish, const Config *config, gboolean config_changed, gboolean live_changed,
             const char *restart_reason, gboolean dry_run) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  ctl_json_string (ctl, "domain", vm->name);
  ctl_json_string (ctl, "uuid", vm->uuid);
  ctl_json_bool (ctl, "dry-run", dry_run);
  ctl_json_bool (ctl, "config-changed", config_changed);
  ctl_json_bool (ctl, "live-changed", live_changed);
  ctl_json_string (ctl, "restart-reason", restart_reason);
  if (wish->have_memory)
    json_memory (ctl, &wish->memory);
  if (!domain_far_is_none (&wish->far)) {
    json_builder_set_member_name (builder, "far");
    far_json (ctl, &wish->far);
  }
  if (wish->objects.n) {
    json_builder_set_member_name (builder, "objects");
    json_builder_begin_array (builder);
    for (unsigned i = 0; i < wish->objects.n; i++)
      json_builder_add_string_value (builder, wish->objects.items[i].name);
    json_builder_end_array (builder);
  }
  json_builder_set_member_name (builder, "changes");
  json_builder_begin_array (builder);
  for (guint i = 0; config->changes && i < config->changes->len; i++)
    json_builder_add_string_value (builder, config->changes->pdata[i]);
  json_builder_end_array (builder);
}

static void
tell (Ctl *ctl, const Vm *vm, const Wish *wish, gboolean config_changed, gboolean live_changed, const char *restart_reason) {
  g_autofree char *what = describe (wish);

  if (!config_changed && !live_changed)
    ctl_say (ctl, "Domain '%s' has %s already; nothing was changed.", vm->label, what);
  else
    ctl_say (ctl, "Domain '%s' has %s, %s.", vm->label, what,
             config_changed && live_changed ? "now and after a restart"
             : live_changed                 ? "now"
                                            : "from its next start on");
  if (config_changed && wish->have_memory && (!wish->window_bytes || !wish->local_max_bytes) && !wish->have_base)
    ctl_say (ctl, "What was not given was chosen; --window and --local-max change it.");
  if (restart_reason)
    ctl_say (ctl, "It takes a restart (shut it down and start it): %s.", restart_reason);
}

static void
show_plan (Ctl *ctl, const Config *config, const Live *live) {
  g_autofree char *objects = domain_objects_text (&live->plugs_objects, "', '");

  for (guint i = 0; config->changes && i < config->changes->len; i++)
    ctl_say (ctl, "configuration: %s", (const char *)config->changes->pdata[i]);
  if (live->plugs_far)
    ctl_say (ctl, "running VM: plugs the far disks into free PCI ports");
  if (live->plugs_objects.n)
    ctl_say (ctl, "running VM: plugs object%s '%s' into free PCI ports", live->plugs_objects.n == 1 ? "" : "s", objects);
  if (live->possible && !live->there)
    ctl_say (ctl, "running VM: plugs the device into its port");
}

/* What keeps the new configuration from coming into force: without the hook the VM would not start, its QEMU would find nobody
 * at the socket; and what was saved comes back as it was. */
static void
warn (Ctl *ctl, ctl_domain_t *domain, const Vm *vm) {
  if (!g_file_test (host_hook_path (), G_FILE_TEST_IS_EXECUTABLE))
    ctl_warn (ctl, "domain '%s': libvirt's hook %s is missing, so nothing will start its back-end; see 'domybsctl check'",
              vm->label, host_hook_path ());
  if (virDomainHasManagedSaveImage (domain, 0) == 1)
    ctl_warn (ctl,
              "domain '%s': its saved state would be restored without the device; 'virsh managedsave-remove' drops that state",
              vm->label);
}

/* ---- doing it ---- */

typedef struct {
  gboolean live, config, print_xml, dry_run;
} Flags;

/* The running VM. *ret_changed: something of it was, also where the rest failed. */
static gboolean
plug (Ctl *ctl, ctl_domain_t *domain, const Vm *vm, const Wish *wish, const Live *live, gboolean *ret_changed, GError **error) {
  gboolean far_changed = FALSE, objects_changed = FALSE, memory_changed = FALSE, ok;

  ok = !live->plugs_far || live_far_plug (ctl, domain, &wish->far, &far_changed, error);
  ok = ok && (!live->plugs_objects.n || live_objects_plug (ctl, domain, &live->plugs_objects, &objects_changed, error));
  ok = ok && (!live->possible || live_plug (ctl, domain, &live->memory, &memory_changed, error));
  *ret_changed = far_changed || objects_changed || memory_changed;
  if (!ok && *ret_changed)
    ctl_warn (ctl, "domain '%s': its %s are plugged in, and stay", vm->label,
              !objects_changed ? "far disks"
              : far_changed    ? "far disks and some objects"
                               : "first objects");
  return ok;
}

static gboolean
apply (Ctl *ctl, ctl_connect_t *connection, ctl_domain_t *domain, const Vm *vm, Wish *wish, Config *config, Live *live,
       GError **error) {
  const gboolean config_changes = config->before && config_is_changed (config);
  gboolean live_changed = FALSE;

  if (config->before && !config_apply (connection, domain, edit, wish, config, error))
    return FALSE;
  if (!plug (ctl, domain, vm, wish, live, &live_changed, error)) {
    g_autoptr (GError) reason = NULL;

    if (config_changes && !live_changed && !config_revert (connection, domain, config, &reason))
      ctl_warn (ctl, "%s", reason->message);
    return FALSE;
  }
  if (config_changes)
    warn (ctl, domain, vm);
  json_result (ctl, vm, wish, config, config_changes, live_changed, live->why_not, FALSE);
  tell (ctl, vm, wish, config_changes, live_changed, live->why_not);
  return TRUE;
}

/* What comes of the wish for far disks where there is no configuration to plan them in. */
static gboolean
plan_far (const Vm *vm, Wish *wish, GError **error) {
  if (!far_wish_is_any (&wish->far_wish) || far_wish_apply (&wish->far_wish, vm->have_far ? &vm->far : NULL, &wish->far, error))
    return TRUE;
  vm_prefix_error (vm, error);
  return FALSE;
}

static gboolean
plan_objects (const Vm *vm, Wish *wish, GError **error) {
  const DomainObjects none = { 0 };

  if (add_objects (vm->have_objects ? &vm->objects : &none, wish, error))
    return TRUE;
  vm_prefix_error (vm, error);
  return FALSE;
}

/* What is to be done: the new configuration (none for --live), the live part. */
static gboolean
plan (ctl_domain_t *domain, const Vm *vm, const Scope *scope, Wish *wish, Config *config, Live *live, GError **error) {
  g_autoptr (GError) reason = NULL;
  DomainAttachOptions options;

  if (scope->config) {
    if (!config_plan (domain, edit, wish, config, error))
      return FALSE;
  } else if (!plan_far (vm, wish, error) || !plan_objects (vm, wish, error)) {
    return FALSE;
  } else if (!leaves_memory (wish)) {
    options = options_from (wish, wish->have_base ? &wish->base : NULL);
    wish->memory = (DomainMemory){ options.window_bytes, options.local_max_bytes, options.populate, -1, TRUE };
    wish->have_memory = TRUE;
  }
  if (!scope->live || check_live (vm, wish, live, &reason)) {
    if (!scope->config && wish->have_memory)
      wish->memory = live->memory;
    return TRUE;
  }
  if (scope->live_asked || !scope->config) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  live->plugs_far = FALSE;
  live->plugs_objects.n = 0;
  live->why_not = scope_cause (vm->label, reason);
  return TRUE;
}

static gboolean
check_storage (Ctl *ctl, const Vm *vm, const Wish *wish, GError **error) {
  g_autofree char *warning = NULL;

  if (!far_wish_is_any (&wish->far_wish))
    return TRUE;
  if (!far_storage_check (&wish->far, &warning, error)) {
    vm_prefix_error (vm, error);
    return FALSE;
  }
  if (warning)
    ctl_warn (ctl, "domain '%s': %s", vm->label, warning);
  return TRUE;
}

static gboolean
attach (Ctl *ctl, const char *name, const Flags *flags, Wish *wish, GError **error) {
  g_autoptr (ctl_connect_t) connection = ctl_connect (ctl, CTL_CHANGES, error);
  g_autoptr (ctl_domain_t) domain = connection ? ctl_domain_find (connection, name, error) : NULL;
  g_autoptr (Vm) vm = domain && scope_is_system (connection, error) ? vm_read (domain, error) : NULL;
  g_autofree char *xml = NULL;
  g_auto (Config) config = { 0 };
  g_auto (Live) live = { 0 };
  Scope scope;

  if (!vm || !scope_choose (domain, flags->live, flags->config, &scope, error)
      || !object_check_all (&wish->more_objects, error))
    return FALSE;
  if (flags->print_xml && !scope.config) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --print-xml shows the configuration, which --live does not change",
                 ctl->command);
    return FALSE;
  }
  xml = ctl_domain_xml (domain, 0, error);
  if (!xml)
    return FALSE;
  wish->host = (DomainHost){ host_qemu_version (connection, xml), host_phys_bits () };
  wish->socket_path = launch_socket_path (vm->uuid);
  wish->have_base = vm->attached;
  wish->base = vm->memory;
  live.xml = g_steal_pointer (&xml);
  if (!plan (domain, vm, &scope, wish, &config, &live, error) || !check_storage (ctl, vm, wish, error))
    return FALSE;
  if (!flags->print_xml && !flags->dry_run)
    return apply (ctl, connection, domain, vm, wish, &config, &live, error);

  json_result (ctl, vm, wish, &config, config.before && config_is_changed (&config),
               live.plugs_far || live.plugs_objects.n || (live.possible && !live.there), live.why_not, TRUE);
  if (flags->print_xml) {
    ctl_json_string (ctl, "xml", config.after);
    ctl_print (ctl, config.after);
    return TRUE;
  }
  show_plan (ctl, &config, &live);
  if (live.why_not)
    ctl_say (ctl, "running VM: takes a restart: %s", live.why_not);
  if ((!config.changes || config.changes->len == 0) && !live.plugs_far && !live.plugs_objects.n
      && !(live.possible && !live.there))
    ctl_say (ctl, "Domain '%s' has that already; nothing would be changed.", vm->label);
  return TRUE;
}

static gboolean
read_grant (Ctl *ctl, const char *grant, Wish *wish, GError **error) {
  wish->have_grant = grant != NULL;
  wish->populate = g_strcmp0 (grant, "populate") == 0;
  if (!grant || wish->populate || strcmp (grant, "reserve") == 0)
    return TRUE;
  g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --grant: '%s' is neither reserve nor populate", ctl->command, grant);
  return FALSE;
}

/* What no domain could have is wrong usage; what this one can't have is for domain_attach to say. */
static gboolean
read_sizes (Ctl *ctl, const char *window, const char *local_max, Wish *wish, GError **error) {
  if (window) {
    const guint64 *bytes = &wish->window_bytes;

    if (!ctl_parse_size ("--window", window, &wish->window_bytes, error))
      return FALSE;
    if (*bytes < DOMAIN_WINDOW_BYTES_MIN || *bytes > DOMAIN_WINDOW_BYTES_MAX || (*bytes & (*bytes - 1))) {
      g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE,
                   "%s: --window: %s is not a power of two of at least 2G (it becomes a PCI BAR); use 4G, 64G or the like",
                   ctl->command, window);
      return FALSE;
    }
  }
  if (local_max && !ctl_parse_size ("--local-max", local_max, &wish->local_max_bytes, error))
    return FALSE;
  if (local_max && (!wish->local_max_bytes || (window && wish->local_max_bytes > wish->window_bytes))) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: --local-max: %s is not between 2M and the window's size", ctl->command,
                 local_max);
    return FALSE;
  }
  return TRUE;
}

gboolean
command_attach (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autofree char *window = NULL, *local_max = NULL, *grant = NULL, *far = NULL, *far_storage = NULL, *far_wear = NULL,
                  *far_protection = NULL;
  g_auto (GStrv) objects = NULL;
  Flags flags = { 0 };
  g_auto (Wish) wish = { 0 };
  const GOptionEntry entries[] = {
    { "window", 0, 0, G_OPTION_ARG_STRING, &window,
      "Addresses in the VM where memory can appear: 2G, 4G, 8G, … (64G, or what fits)", "SIZE" },
    { "local-max", 0, 0, G_OPTION_ARG_STRING, &local_max,
      "The most that the VM may have at a time (the host's RAM without its reserve)", "SIZE" },
    { "grant", 0, 0, G_OPTION_ARG_STRING, &grant, "reserve: memory is taken at first touch; populate: at once (reserve)",
      "MODE" },
    { "no-node", 0, 0, G_OPTION_ARG_NONE, &wish.no_node, "Give the memory no NUMA node of its own", NULL },
    { "far", 0, 0, G_OPTION_ARG_STRING, &far,
      "Far disks: shared=SIZE, remote=SIZE, mem-shared=SIZE, mem-remote=SIZE with commas; or none", "DISKS" },
    { "far-storage", 0, 0, G_OPTION_ARG_STRING, &far_storage,
      "Where their pages go: a folder, a file, a block device, an NBD URI (" FAR_STORAGE_DEFAULT ")", "WHERE" },
    { "far-wear", 0, 0, G_OPTION_ARG_STRING, &far_wear, "What each may write to its storage in a day, or none (none)", "SIZE" },
    { "far-protection", 0, 0, G_OPTION_ARG_STRING, &far_protection,
      "Copies: ssd (storage and a neighbour), mirror (two neighbours), storage; or default (ssd, where there are donors)",
      "MODE" },
    { "far-compress", 0, 0, G_OPTION_ARG_NONE, &wish.far_wish.compress, "Compress their pages (LZ4)", NULL },
    { "no-far-compress", 0, 0, G_OPTION_ARG_NONE, &wish.far_wish.no_compress, "Store their pages as they are", NULL },
    { "object", 0, 0, G_OPTION_ARG_STRING_ARRAY, &objects, "A read-only disk of this object; once for each", "NAME" },
    { "live", 0, 0, G_OPTION_ARG_NONE, &flags.live, "Change the running VM", NULL },
    { "config", 0, 0, G_OPTION_ARG_NONE, &flags.config, "Change the configuration: from the next start on", NULL },
    { "print-xml", 0, 0, G_OPTION_ARG_NONE, &flags.print_xml, "Print the new configuration, change nothing", NULL },
    { "dry-run", 0, 0, G_OPTION_ARG_NONE, &flags.dry_run, "Say what would be changed, change nothing", NULL },
    G_OPTION_ENTRY_NULL,
  };

  return ctl_parse (ctl, entries, &argc, &argv, 1, 1, error) && read_sizes (ctl, window, local_max, &wish, error)
         && read_grant (ctl, grant, &wish, error)
         && far_wish_read (ctl, far, far_storage, far_wear, far_protection, &wish.far_wish, error)
         && object_read_names (ctl->command, objects, &wish.more_objects, error) && attach (ctl, argv[0], &flags, &wish, error);
}
