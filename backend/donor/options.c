/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor/options.h"
#include "io/option-values.h"
#include "io/tcp.h"

#include <string.h>

#define LEASES_DEFAULT 1024
#define REVOKE_DEFAULT_S 60
#define TTL_DEFAULT_HOURS 24
#define HOURS_MAX (24 * 366 * 10)

struct raw {
  char *name, *size, *reserve, *most;
  int leases, identity_leases, ttl_hours, revoke_s;
  gboolean no_tls, no_lock, standalone;
};

static gboolean
is_in (const char *option, int value, int min, int max, GError **error) {
  return (value >= min && value <= max)
         || option_usage (error, "--%s: %d is not a whole number from %d to %d", option, value, min, max);
}

static gboolean
get_blocks (const char *option, const char *text, uint64_t fallback, uint64_t *ret_blocks, GError **error) {
  uint64_t bytes;

  if (!option_size (option, text, fallback * LEASE_BLOCK_BYTES, &bytes, error))
    return FALSE;
  if (bytes == 0 || bytes % LEASE_BLOCK_BYTES || bytes / LEASE_BLOCK_BYTES > LEASE_DONOR_BLOCKS_MAX)
    return option_usage (error, "--%s: '%s' is not a multiple of 2M from 2M to 128T", option, text);
  *ret_blocks = bytes / LEASE_BLOCK_BYTES;
  return TRUE;
}

static gboolean
check_addresses (char **addresses, GError **error) {
  struct sockaddr_storage socket_address;
  socklen_t bytes;
  unsigned n = 0;

  for (char **address = addresses; address && *address; address++, n++)
    if (!tcp_parse (*address, &socket_address, &bytes, error)) {
      g_prefix_error (error, "--listen: ");
      return FALSE;
    }
  if (n == 0)
    return option_usage (error, "--listen is missing: where borrowers connect to, for example --listen 192.0.2.7:10809");
  return n <= DONOR_LISTEN_MAX || option_usage (error, "--listen: there are more than %u", DONOR_LISTEN_MAX);
}

static gboolean
understand (const struct raw *raw, DonorOptions *options, GError **error) {
  const char *why;

  if (raw->name && !option_is_good_name (raw->name))
    return option_usage (error, "--name must be printable text of 1 to %d bytes", OPTION_NAME_BYTES_MAX);
  options->name = g_strdup (raw->name ? raw->name : "donor");
  if (!raw->size)
    return option_usage (error, "--size is missing: how much memory this host lends at most, for example --size 16G");
  if (!get_blocks ("size", raw->size, 0, &options->geometry.n_blocks, error)
      || !get_blocks ("identity-size", raw->most, options->geometry.n_blocks, &options->limits.blocks, error)
      || !option_size ("reserve", raw->reserve, DONOR_RESERVE_DEFAULT, &options->reserve_bytes, error)
      || !is_in ("leases", raw->leases, 1, LEASE_DONOR_LEASES_MAX, error)
      || !is_in ("identity-leases", raw->identity_leases, 0, LEASE_DONOR_LEASES_MAX, error)
      || !is_in ("ttl", raw->ttl_hours, 0, HOURS_MAX, error) || !is_in ("revoke-time", raw->revoke_s, 1, 24 * 3600, error)
      || !check_addresses (options->listen, error))
    return FALSE;
  options->geometry.n_leases = (uint32_t)raw->leases;
  options->limits.leases = (uint32_t)(raw->identity_leases ? raw->identity_leases : raw->leases);
  options->ttl_ms = (uint64_t)raw->ttl_hours * 3600000;
  options->revoke_ms = (uint64_t)raw->revoke_s * 1000;
  options->lock = !raw->no_lock;
  why = lease_donor_check_geometry (&options->geometry);
  if (why)
    return option_usage (error, "--size, --leases: %s", why);
  if (!options->psk_path == !raw->no_tls)
    return option_usage (
        error, raw->no_tls
                   ? "--psk and --no-tls can't be used together"
                   : "--psk is missing: a file with a line IDENTITY:KEY (hexadecimal) for each borrower, as psktool makes it; "
                     "--no-tls lends to whoever can connect, for tests");
  return TRUE;
}

DonorOptions *
donor_options_parse (int *argc, char ***argv, GError **error) {
  g_autoptr (DonorOptions) options = g_new0 (DonorOptions, 1);
  struct raw raw = { .leases = LEASES_DEFAULT, .ttl_hours = TTL_DEFAULT_HOURS, .revoke_s = REVOKE_DEFAULT_S };
  const GOptionEntry entries[] = {
    { "name", 0, 0, G_OPTION_ARG_STRING, &raw.name, "This donor's name, for logs (donor)", "NAME" },
    { "size", 0, 0, G_OPTION_ARG_STRING, &raw.size, "The most that is lent", "SIZE" },
    { "reserve", 0, 0, G_OPTION_ARG_STRING, &raw.reserve,
      "What stays available to the host (a tenth of its memory, 512M to 8G)", "SIZE" },
    { "fixed-size", 0, 0, G_OPTION_ARG_NONE, &options->fixed, "Lend --size whatever the host's memory is like: for tests",
      NULL },
    { "listen", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options->listen,
      "Where borrowers connect to: HOST:PORT, [V6]:PORT, or unix:PATH; once for each", "ADDRESS" },
    { "psk", 0, 0, G_OPTION_ARG_FILENAME, &options->psk_path, "Identities and keys of borrowers, as psktool makes them",
      "FILE" },
    { "no-tls", 0, 0, G_OPTION_ARG_NONE, &raw.no_tls, "Lend to whoever can connect: for tests and measurements", NULL },
    { "leases", 0, 0, G_OPTION_ARG_INT, &raw.leases, "The most leases, one for each far disk of a VM (1024)", "N" },
    { "identity-leases", 0, 0, G_OPTION_ARG_INT, &raw.identity_leases, "The most of these that one identity may have (all)",
      "N" },
    { "identity-size", 0, 0, G_OPTION_ARG_STRING, &raw.most, "The most memory that one identity may have (all)", "SIZE" },
    { "ttl", 0, 0, G_OPTION_ARG_INT, &raw.ttl_hours, "End leases that nobody has asked for for so long; 0: never (24)",
      "HOURS" },
    { "revoke-time", 0, 0, G_OPTION_ARG_INT, &raw.revoke_s, "How long borrowers get to give memory back (60)", "SECONDS" },
    { "no-lock", 0, 0, G_OPTION_ARG_NONE, &raw.no_lock, "Let the host swap the arena", NULL },
    { "control-socket", 0, 0, G_OPTION_ARG_FILENAME, &options->control_path, "Take commands (JSON lines) at this unix socket",
      "PATH" },
    { "standalone", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &raw.standalone, NULL, NULL },
    { "worker", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &options->is_worker, NULL, NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version and end", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– lends memory of this host to VMs of others");
  gboolean ok;

  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_description (
      context,
      "Sizes are bytes or have a binary unit: 512M, 4G, 1.5T. SIGTERM ends the program, and with it all that was lent.\n"
      "Example: domybs-donor --size 64G --listen 192.0.2.7:10809 --psk /etc/domybs/borrowers.psk\n");
  ok = g_option_context_parse (context, argc, argv, error);
  if (ok && *argc > 1)
    ok = option_usage (error, "unknown argument '%s'; see --help", (*argv)[1]);
  if (ok && !options->version)
    ok = understand (&raw, options, error);
  g_free (raw.name);
  g_free (raw.size);
  g_free (raw.reserve);
  g_free (raw.most);
  return ok ? g_steal_pointer (&options) : NULL;
}

void
donor_options_free (DonorOptions *options) {
  g_free (options->name);
  g_strfreev (options->listen);
  g_free (options->psk_path);
  g_free (options->control_path);
  g_free (options);
}
