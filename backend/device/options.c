/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/options.h"
#include "io/host-memory.h"
#include "io/option-values.h"

#include <string.h>
#include <unistd.h>

#define WINDOW_DEFAULT_BYTES (16ull << 30)
/* A grow step under pressure: one section of a small guest. */
#define GROW_MIN_DEFAULT_BYTES (128ull << 20)
#define AUDIT_INTERVAL_DEFAULT_MS 1000
#define NOT_A_WORKER (-2) /* --worker is not there; -1: it is, without a slot in the host account */

/* What the command line says, before it is understood. */
struct raw {
  char *window, *local_max, *grant, *host_limit, *host_reserve, *grow_min, *target, *name, *socket_group, *socket_mode;
  int numa_node, audit_interval_ms, worker;
  gboolean standalone;
};

static gboolean
get_blocks (const char *option, const char *text, uint64_t fallback_blocks, uint64_t *ret_blocks, GError **error) {
  uint64_t bytes;

  if (!option_size (option, text, fallback_blocks << DOMYBS_BLOCK_SHIFT, &bytes, error))
    return FALSE;
  if (bytes % DOMYBS_BLOCK_BYTES)
    return option_usage (error, "--%s: '%s' is not a multiple of 2M, the size of a block", option, text);
  *ret_blocks = bytes >> DOMYBS_BLOCK_SHIFT;
  return TRUE;
}

static gboolean
get_name (const char *text, Options *options, GError **error) {
  g_autofree char *name = NULL;

  if (text && !option_is_good_name (text))
    return option_usage (error, "--name must be printable text of 1 to %d bytes", OPTION_NAME_BYTES_MAX);
  if (text)
    name = g_strdup (text);
  else if (options->socket_path)
    name = g_path_get_basename (options->socket_path);
  if (name && option_is_good_name (name))
    options->backend.name = g_steal_pointer (&name);
  else if (options->fd < 0)
    options->backend.name = g_strdup_printf ("pid-%d", (int)(options->is_worker ? getppid () : getpid ()));
  else
    options->backend.name = g_strdup_printf ("fd-%d", options->fd);
  return TRUE;
}

static gboolean
understand (const struct raw *raw, Options *options, GError **error) {
  struct memory_device_options *device = &options->backend.device;
  HostMemory host;
  uint64_t reserve, grow_min = 0;

  if (!host_memory_read (&host, error))
    return FALSE;
  reserve = host_memory_reserve (host.total_bytes);
  if (!get_blocks ("window", raw->window, WINDOW_DEFAULT_BYTES >> DOMYBS_BLOCK_SHIFT, &device->window_blocks, error))
    return FALSE;
  if ((device->window_blocks & (device->window_blocks - 1)) || device->window_blocks << DOMYBS_BLOCK_SHIFT < DOMYBS_WINDOW_ALIGN_BYTES)
    return option_usage (error, "--window: '%s' is not a power of two of at least 2G (it becomes a PCI BAR of the VM)", raw->window);
  if (!get_blocks ("local-max", raw->local_max, device->window_blocks, &device->max_blocks, error)
      || !get_blocks ("target", raw->target, 0, &device->target_blocks, error)
      || !get_blocks ("grow-min", raw->grow_min, GROW_MIN_DEFAULT_BYTES >> DOMYBS_BLOCK_SHIFT, &grow_min, error)
      || !option_size ("host-reserve", raw->host_reserve, reserve, &options->backend.host_reserve_bytes, error)
      || !option_size ("host-limit", raw->host_limit, host.total_bytes - reserve, &options->host_limit_bytes, error))
    return FALSE;
  if (device->max_blocks == 0 || device->max_blocks > device->window_blocks)
    return option_usage (error, "--local-max must be between 2M and the window's size");
  if (grow_min == 0 || grow_min > device->window_blocks)
    return option_usage (error, "--grow-min must be between 2M and the window's size");
  device->grow_min_blocks = (uint32_t)grow_min;
  device->have_target = raw->target != NULL;
  if (device->have_target && device->target_blocks > device->max_blocks)
    return option_usage (error, "--target is larger than --local-max");
  device->have_numa_pxm = raw->numa_node >= 0;
  if (raw->numa_node > 1023)
    return option_usage (error, "--numa-node: %d is not a NUMA node of a guest (0 to 1023)", raw->numa_node);
  device->numa_pxm = device->have_numa_pxm ? (uint32_t)raw->numa_node : 0;
  if (raw->audit_interval_ms < 0 || raw->audit_interval_ms > 3600 * 1000)
    return option_usage (error, "--audit-interval must be between 0 (never) and 3600000 ms");
  options->backend.audit_interval_ms = (unsigned)raw->audit_interval_ms;
  if (!raw->grant || strcmp (raw->grant, "reserve") == 0)
    options->backend.grant_mode = GRANT_RESERVE;
  else if (strcmp (raw->grant, "populate") == 0)
    options->backend.grant_mode = GRANT_POPULATE;
  else
    return option_usage (error, "--grant: '%s' is neither reserve nor populate", raw->grant);
  if (!options->socket_path && options->fd < 0)
    return option_usage (error, "--socket-path or --fd is needed; see --help");
  if (options->socket_path && options->fd >= 0)
    return option_usage (error, "--socket-path and --fd can't be used together");
  if (!options->socket_path && (raw->socket_group || raw->socket_mode))
    return option_usage (error, "--socket-group and --socket-mode are for --socket-path; an inherited socket has its rights already");
  /* A worker has no use for it, and is not to read the host's files. */
  if (!option_group ("socket-group", options->is_worker ? NULL : raw->socket_group, &options->socket_rights.group, error)
      || !option_mode ("socket-mode", raw->socket_mode, &options->socket_rights.mode, error))
    return FALSE;
  if (!options->host_account_path)
    options->host_account_path = g_strdup (HOST_ACCOUNT_PATH);
  if (strcmp (options->host_account_path, "none") == 0)
    g_clear_pointer (&options->host_account_path, g_free);
  return get_name (raw->name, options, error);
}

Options *
options_parse (int *argc, char ***argv, GError **error) {
  g_autoptr (Options) options = g_new0 (Options, 1);
  struct raw raw = { .numa_node = -1, .audit_interval_ms = AUDIT_INTERVAL_DEFAULT_MS, .worker = NOT_A_WORKER };
  const GOptionEntry entries[] = {
    { "socket-path", 0, 0, G_OPTION_ARG_FILENAME, &options->socket_path, "Listen for QEMU at this unix socket", "PATH" },
    { "socket-group", 0, 0, G_OPTION_ARG_STRING, &raw.socket_group, "Give that socket to this group (unchanged)", "GROUP" },
    { "socket-mode", 0, 0, G_OPTION_ARG_STRING, &raw.socket_mode, "Its mode, octal, for example 0660 (by the umask)", "MODE" },
    { "fd", 0, 0, G_OPTION_ARG_INT, &options->fd, "Use this inherited socket (listening or connected) instead", "N" },
    { "control-path", 0, 0, G_OPTION_ARG_FILENAME, &options->control_path, "Take commands (JSON lines) at this unix socket", "PATH" },
    { "name", 0, 0, G_OPTION_ARG_STRING, &raw.name, "The VM's name, for logs and the host's account", "NAME" },
    { "window", 0, 0, G_OPTION_ARG_STRING, &raw.window, "Size of the window, a power of two from 2G on (16G)", "SIZE" },
    { "local-max", 0, 0, G_OPTION_ARG_STRING, &raw.local_max, "The most host memory this VM may have (as much as fits)", "SIZE" },
    { "grant", 0, 0, G_OPTION_ARG_STRING, &raw.grant, "reserve: memory is taken at first touch; populate: at once (reserve)", "MODE" },
    { "target", 0, 0, G_OPTION_ARG_STRING, &raw.target, "How much the VM is to have (by the guest's pressure)", "SIZE" },
    { "grow-min", 0, 0, G_OPTION_ARG_STRING, &raw.grow_min, "Advice to the guest: grow by at least this much (128M)", "SIZE" },
    { "numa-node", 0, 0, G_OPTION_ARG_INT, &raw.numa_node, "The VM's NUMA node for the window (none of its own)", "N" },
    { "host-limit", 0, 0, G_OPTION_ARG_STRING, &raw.host_limit, "The most that all VMs of this host's account may have (RAM less the host's reserve)", "SIZE" },
    { "host-account", 0, 0, G_OPTION_ARG_FILENAME, &options->host_account_path, "File that the back-ends of this host share, or 'none' (" HOST_ACCOUNT_PATH ")", "PATH" },
    { "host-reserve", 0, 0, G_OPTION_ARG_STRING, &raw.host_reserve, "Grant nothing while the host has less than this available (10%, 512M to 8G)", "SIZE" },
    { "audit-interval", 0, 0, G_OPTION_ARG_INT, &raw.audit_interval_ms, "How often memory touched without a grant is taken back; 0: never (1000)", "MS" },
    { "standalone", 0, 0, G_OPTION_ARG_NONE, &raw.standalone, "Work without a pool daemon: this host's memory only (the default)", NULL },
    { "worker", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_INT, &raw.worker, NULL, NULL },
    { "once", 0, 0, G_OPTION_ARG_NONE, &options->once, "End when the first QEMU has gone", NULL },
    { "print-capabilities", 0, 0, G_OPTION_ARG_NONE, &options->print_capabilities, "Print what this back-end can do, as JSON, and end", NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version and end", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– memory for one VM, block by block");
  gboolean ok;

  options->fd = -1;
  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_description (context, "Sizes are bytes or have a binary unit: 512M, 4G, 1.5T. SIGTERM ends the program.\n"
                                             "Example: domybs-backend --standalone --window 64G --socket-path /run/domybs/vm1.sock\n");
  ok = g_option_context_parse (context, argc, argv, error);
  options->is_worker = raw.worker != NOT_A_WORKER;
  options->account_slot = raw.worker;
  if (ok && *argc > 1 && !options->print_capabilities)
    ok = option_usage (error, "unknown argument '%s'; see --help", (*argv)[1]);
  if (ok && !options->print_capabilities && !options->version)
    ok = understand (&raw, options, error);
  g_free (raw.window);
  g_free (raw.local_max);
  g_free (raw.grant);
  g_free (raw.host_limit);
  g_free (raw.host_reserve);
  g_free (raw.grow_min);
  g_free (raw.target);
  g_free (raw.name);
  g_free (raw.socket_group);
  g_free (raw.socket_mode);
  return ok ? g_steal_pointer (&options) : NULL;
}

void
options_free (Options *options) {
  g_free (options->socket_path);
  g_free (options->control_path);
  g_free (options->host_account_path);
  g_free (options->backend.name);
  g_free (options);
}
