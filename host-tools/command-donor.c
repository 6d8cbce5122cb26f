/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Neighbours that lend memory: those that this host's VMs may borrow from; and this host's own donor: what it lends, to whom,
 * and orders to it. */
#include "ctl/control-client.h"
#include "ctl/ctl.h"
#include "ctl/term.h"
#include "ctl/text.h"
#include "donor-list.h"
#include "donor-live.h"
#include "host/launch.h"

#include <string.h>
#include <unistd.h>

#define BLOCK_BYTES (2ull << 20)
#define REPLACE_TIMEOUT_MS 15000

static const char usage[]
    = "usage: domybsctl donor list | add NAME --address=HOST:PORT --psk=FILE | remove NAME; "
      "of this host's own: donor [status | leases | size SIZE | revoke LEASE SIZE | forget LEASE | reload | restart | upgrade]";

typedef struct {
  Ctl *ctl;
  char *path;
  ControlClient *client;
} Run;

/* ---- what a donor says: missing is 0, FALSE, or "" ---- */

static JsonObject *
get_object (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static gint64
get_int (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : 0;
}

static guint64
get_blocks (JsonObject *object, const char *name) {
  const gint64 blocks = get_int (object, name);

  return blocks > 0 ? (guint64)blocks * BLOCK_BYTES : 0;
}

static gboolean
get_bool (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN
         && json_node_get_boolean (node);
}

static const char *
get_string (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : "";
}

static JsonArray *
get_array (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;
}

/* The object that is an element of the array; NULL: it is none. */
static JsonObject *
element (JsonArray *array, guint i) {
  JsonNode *node = json_array_get_element (array, i);

  return JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static char *
string_of (JsonNode *node) {
  return JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING
             ? g_utf8_make_valid (json_node_get_string (node), -1)
             : g_strdup ("?");
}

/* ---- asking ---- */

static JsonObject *
ask (Run *run, const char *command, JsonObject *arguments, GError **error) {
  JsonObject *answer = control_client_execute (run->client, command, arguments, CONTROL_CLIENT_TIMEOUT_MS, error);

  if (!answer)
    g_prefix_error (error, "donor at %s: ", run->path);
  return answer;
}

/* ---- status ---- */

static char *
addresses_text (JsonObject *status) {
  JsonArray *array = get_array (status, "listen");
  GString *text = g_string_new (NULL);

  for (guint i = 0; array && i < json_array_get_length (array); i++) {
    g_autofree char *one = string_of (json_array_get_element (array, i));

    g_string_append_printf (text, "%s%s", text->len ? ", " : "", one);
  }
  return g_string_free (text, FALSE);
}

static void
json_status (Ctl *ctl, JsonObject *status) {
  JsonObject *worker = get_object (status, "worker"), *connections = get_object (status, "connections");
  JsonArray *listen = get_array (status, "listen");
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "donor");
  json_builder_begin_object (builder);
  ctl_json_string (ctl, "name", get_string (status, "name"));
  ctl_json_int (ctl, "pid", get_int (status, "pid"));
  ctl_json_string (ctl, "version", get_string (worker, "version"));
  json_builder_set_member_name (builder, "listen");
  json_builder_begin_array (builder);
  for (guint i = 0; listen && i < json_array_get_length (listen); i++) {
    g_autofree char *text = string_of (json_array_get_element (listen, i));

    json_builder_add_string_value (builder, text);
  }
  json_builder_end_array (builder);
  ctl_json_bool (ctl, "tls", get_bool (status, "tls"));
  ctl_json_int (ctl, "identities", get_int (status, "identities"));
  ctl_json_bytes (ctl, "most-bytes", get_blocks (status, "max-blocks"));
  ctl_json_bytes (ctl, "size-bytes", get_blocks (status, "size-blocks"));
  ctl_json_string (ctl, "size-reason", get_string (status, "size-reason"));
  ctl_json_bytes (ctl, "promised-bytes", get_blocks (status, "promised-blocks"));
  ctl_json_bytes (ctl, "used-bytes", get_blocks (status, "used-blocks"));
  ctl_json_bytes (ctl, "memory-bytes", (guint64)get_int (status, "memory-bytes"));
  ctl_json_bool (ctl, "locked", get_bool (status, "locked"));
  ctl_json_int (ctl, "leases", get_int (status, "leases"));
  ctl_json_int (ctl, "connections", get_int (connections, "open"));
  ctl_json_int (ctl, "deaths", get_int (worker, "deaths"));
  json_builder_end_object (builder);
}

static gboolean
show_status (Run *run, GError **error) {
  g_autoptr (JsonObject) status = ask (run, "status", NULL, error);
  g_autofree char *addresses = NULL, *most = NULL, *size = NULL, *promised = NULL, *used = NULL, *memory = NULL, *text = NULL;
  g_autofree char *plain = NULL, *name = NULL, *keys = NULL, *reason = NULL;
  JsonObject *host;

  if (!status)
    return FALSE;
  json_status (run->ctl, status);
  host = get_object (status, "host");
  plain = addresses_text (status);
  addresses = ctl_escape (plain);
  name = ctl_escape (get_string (status, "name"));
  reason = get_bool (host, "followed") ? ctl_escape (get_string (status, "size-reason"))
                                       : g_strdup ("does not follow the host's memory");
  most = text_size (get_blocks (status, "max-blocks"));
  size = text_size (get_blocks (status, "size-blocks"));
  promised = text_size (get_blocks (status, "promised-blocks"));
  used = text_size (get_blocks (status, "used-blocks"));
  memory = text_size_short ((guint64)get_int (status, "memory-bytes"));
  keys = get_bool (status, "tls") ? g_strdup_printf ("TLS, %" G_GINT64_FORMAT " identities", get_int (status, "identities"))
                                  : g_strdup ("no TLS: whoever can connect");
  text = g_strdup_printf (
      "Donor          %s, process %" G_GINT64_FORMAT "\nListens        %s (%s)\nSize           %s of at most %s (%s)\n"
      "Lent           %s to %" G_GINT64_FORMAT " far disks, %s of it in use\nMemory         %s%s\n",
      name, get_int (status, "pid"), addresses, keys, size, most, reason, promised, get_int (status, "leases"), used, memory,
      get_bool (status, "locked") ? "" : ", not locked: the host may swap it");
  ctl_print (run->ctl, text);
  return TRUE;
}

/* ---- leases ---- */

static char *
revoke_text (JsonObject *revoke) {
  g_autofree char *size = revoke ? text_size_short (get_blocks (revoke, "blocks")) : NULL;

  if (!revoke)
    return g_strdup ("-");
  if (get_bool (revoke, "overdue"))
    return g_strdup_printf ("to %s, overdue", size);
  return g_strdup_printf ("to %s in %" G_GINT64_FORMAT " s", size, (get_int (revoke, "left-ms") + 999) / 1000);
}

static void
json_lease (Ctl *ctl, JsonObject *lease) {
  JsonObject *revoke = get_object (lease, "revoke");
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_object (builder);
  ctl_json_string (ctl, "lease", get_string (lease, "lease"));
  ctl_json_string (ctl, "identity", get_string (lease, "identity"));
  ctl_json_string (ctl, "host", get_string (lease, "host"));
  ctl_json_string (ctl, "vm", get_string (lease, "vm"));
  ctl_json_int (ctl, "disk", get_int (lease, "disk"));
  ctl_json_string (ctl, "state", get_string (lease, "state"));
  ctl_json_int (ctl, "silent-ms", get_int (lease, "silent-ms"));
  ctl_json_int (ctl, "connections", get_int (lease, "connections"));
  ctl_json_bytes (ctl, "size-bytes", get_blocks (lease, "blocks"));
  ctl_json_bytes (ctl, "used-bytes", get_blocks (lease, "used-blocks"));
  if (revoke) {
    json_builder_set_member_name (builder, "revoke");
    json_builder_begin_object (builder);
    ctl_json_bytes (ctl, "size-bytes", get_blocks (revoke, "blocks"));
    ctl_json_int (ctl, "left-ms", get_int (revoke, "left-ms"));
    ctl_json_bool (ctl, "overdue", get_bool (revoke, "overdue"));
    json_builder_end_object (builder);
  } else {
    ctl_json_null (ctl, "revoke");
  }
  json_builder_end_object (builder);
}

static void
table_lease (TextTable *table, JsonObject *lease) {
  const char *identity = get_string (lease, "identity"), *number = get_string (lease, "lease");
  const gboolean detached = strcmp (get_string (lease, "state"), "detached") == 0;
  g_autofree char *size = text_size_short (get_blocks (lease, "blocks")),
                  *used = text_size_short (get_blocks (lease, "used-blocks")),
                  *age = text_age ((guint64)MAX (get_int (lease, "silent-ms"), 0)),
                  *revoke = revoke_text (get_object (lease, "revoke")), *vm = g_strndup (get_string (lease, "vm"), 8),
                  *disk = g_strdup_printf ("%" G_GINT64_FORMAT, get_int (lease, "disk")),
                  *state = detached ? g_strdup_printf ("silent for %s", age) : g_strdup ("attached");

  while (number[0] == '0' && number[1])
    number++;
  text_table_add (table, number, *identity ? identity : "-", vm, disk, size, used, state, revoke, NULL);
}

/* One answer of the donor's after the other; `from` goes up, so that it ends. */
static gboolean
show_leases (Run *run, GError **error) {
  static const char *const heads[] = { "LEASE", "BORROWER", "VM", ">DISK", ">SIZE", ">USED", "STATE", "WANTED BACK", NULL };
  g_autoptr (TextTable) table = text_table_new (heads);
  JsonBuilder *builder = ctl_json (run->ctl);
  gint64 from = 0, next = 0;
  int columns, lines;

  if (builder) {
    json_builder_set_member_name (builder, "leases");
    json_builder_begin_array (builder);
  }
  do {
    g_autoptr (JsonObject) answer = NULL;
    JsonObject *arguments = json_object_new ();
    JsonArray *leases;

    from = next;
    json_object_set_int_member (arguments, "from", from);
    answer = ask (run, "leases", arguments, error);
    if (!answer)
      break;
    leases = get_array (answer, "leases");
    for (guint i = 0; leases && i < json_array_get_length (leases); i++) {
      JsonObject *lease = element (leases, i);

      if (lease && builder)
        json_lease (run->ctl, lease);
      else if (lease)
        table_lease (table, lease);
    }
    next = get_int (answer, "next");
  } while (next > from);
  if (builder)
    json_builder_end_array (builder);
  if (error && *error)
    return FALSE;
  if (!builder && text_table_rows (table) == 0) {
    ctl_say (run->ctl, "Nothing is lent.");
  } else {
    g_autofree char *text = NULL;

    term_size (STDOUT_FILENO, &columns, &lines);
    text = text_table_format (table, columns);
    ctl_print (run->ctl, text);
  }
  return TRUE;
}

/* ---- orders ---- */

static gboolean
order (Run *run, const char *command, const char *lease, const guint64 *bytes, GError **error) {
  JsonObject *arguments = json_object_new ();
  g_autoptr (JsonObject) answer = NULL;

  if (lease)
    json_object_set_string_member (arguments, "lease", lease);
  if (bytes)
    json_object_set_int_member (arguments, "blocks", (gint64)(*bytes / BLOCK_BYTES));
  answer = ask (run, command, arguments, error);
  if (!answer)
    return FALSE;
  if (lease)
    ctl_json_string (run->ctl, "lease", lease);
  if (bytes)
    ctl_json_bytes (run->ctl, "size-bytes", *bytes);
  return TRUE;
}

static gboolean
set_size (Run *run, const char *text, GError **error) {
  g_autofree char *size = NULL;
  guint64 bytes;

  if (!ctl_parse_size ("SIZE", text, &bytes, error) || !order (run, "size", NULL, &bytes, error))
    return FALSE;
  size = text_size (bytes);
  ctl_say (run->ctl, "The donor lends at most %s from now on; what is lent beyond is wanted back.", size);
  return TRUE;
}

static gboolean
revoke_lease (Run *run, const char *lease, const char *text, GError **error) {
  g_autofree char *size = NULL;
  guint64 bytes;

  if (!ctl_parse_size ("SIZE", text, &bytes, error) || !order (run, "revoke", lease, &bytes, error))
    return FALSE;
  size = text_size (bytes);
  ctl_say (run->ctl, "Lease %s: its borrower is told to come down to %s; 'domybsctl donor leases' shows whether it has.", lease,
           size);
  return TRUE;
}

static gboolean
forget (Run *run, const char *lease, GError **error) {
  if (!order (run, "forget", lease, NULL, error))
    return FALSE;
  ctl_say (run->ctl, "Lease %s has ended, with what was in it.", lease);
  return TRUE;
}

static gboolean
replace (Run *run, const char *action, GError **error) {
  g_autofree char *before = g_strdup (control_client_version (run->client));
  g_autoptr (JsonObject) status = NULL;
  JsonObject *worker;
  gint64 deaths;

  status = ask (run, "status", NULL, error);
  if (!status)
    return FALSE;
  deaths = get_int (get_object (status, "worker"), "deaths");
  g_clear_pointer (&status, json_object_unref);
  if (!control_client_replace (run->client, action, REPLACE_TIMEOUT_MS, error)) {
    g_prefix_error (error, "donor at %s: ", run->path);
    return FALSE;
  }
  status = ask (run, "status", NULL, error);
  if (!status)
    return FALSE;
  worker = get_object (status, "worker");
  ctl_json_string (run->ctl, "version-before", before);
  ctl_json_string (run->ctl, "version-after", get_string (worker, "version"));
  if (get_int (worker, "deaths") > deaths)
    return ctl_fail (error, CTL_ERROR_FAILED, "donor at %s: its new worker died (%s)%s; see its log", run->path,
                     get_string (worker, "last-death"),
                     get_bool (worker, "rolled-back") ? ", and the program before goes on" : "");
  ctl_say (run->ctl, "The donor has another worker, of version %s; all that is lent is where it was.",
           get_string (worker, "version"));
  return TRUE;
}

/* The keys are what another worker reads. A file that it could not begin with is refused here: borrowers would wait. */
static gboolean
reload (Run *run, GError **error) {
  g_autoptr (JsonObject) before = ask (run, "status", NULL, error), after = NULL;
  const char *path = before ? get_string (before, "psk") : "";
  g_autofree char *problem = *path ? host_keys_problem (path) : NULL;

  if (!before)
    return FALSE;
  if (!*path)
    return ctl_fail (error, CTL_ERROR_REFUSED, "donor at %s: %s; nothing was changed", run->path,
                     get_bool (before, "tls") ? "it is of an older version; 'domybsctl donor upgrade' reads its keys anew, too"
                                              : "it has no keys (--no-tls)");
  if (problem)
    return ctl_fail (error, CTL_ERROR_REFUSED, "donor at %s: its keys stay as they were: %s", run->path, problem);
  if (!replace (run, "restart", error))
    return FALSE;
  after = ask (run, "status", NULL, error);
  if (!after)
    return FALSE;
  ctl_json_int (run->ctl, "identities", get_int (after, "identities"));
  ctl_say (run->ctl, "It knows %" G_GINT64_FORMAT " keys; there were %" G_GINT64_FORMAT ".", get_int (after, "identities"),
           get_int (before, "identities"));
  return TRUE;
}

/* ---- the command ---- */

static const struct {
  const char *name;
  int arguments;
} actions[] = { { "list", 0 },   { "add", 1 },    { "remove", 1 }, { "status", 0 },  { "leases", 0 }, { "size", 1 },
                { "revoke", 2 }, { "forget", 1 }, { "reload", 0 }, { "restart", 0 }, { "upgrade", 0 } };

static gboolean
check_action (const char *action, int n, GError **error) {
  for (unsigned i = 0; i < G_N_ELEMENTS (actions); i++)
    if (strcmp (action, actions[i].name) == 0)
      return n == actions[i].arguments
             || ctl_fail (error, CTL_ERROR_USAGE, "donor %s: there are %d arguments for %d; %s", action, n,
                          actions[i].arguments, usage);
  return ctl_fail (error, CTL_ERROR_USAGE, "donor: there is no '%s'; %s", action, usage);
}

static gboolean
act (Run *run, const char *action, char **argv, GError **error) {
  ctl_json_string (run->ctl, "socket", run->path);
  if (strcmp (action, "status") == 0)
    return show_status (run, error);
  if (strcmp (action, "leases") == 0)
    return show_leases (run, error);
  if (strcmp (action, "size") == 0)
    return set_size (run, argv[1], error);
  if (strcmp (action, "revoke") == 0)
    return revoke_lease (run, argv[1], argv[2], error);
  if (strcmp (action, "forget") == 0)
    return forget (run, argv[1], error);
  if (strcmp (action, "reload") == 0)
    return reload (run, error);
  return replace (run, action, error);
}

/* With this host's own. */
static gboolean
steer (Ctl *ctl, const char *socket, const char *action, char **argv, GError **error) {
  Run run = { .ctl = ctl };
  gboolean ok = FALSE;

  run.path = socket ? g_strdup (socket) : g_build_filename (launch_rundir (), "donor", "control.sock", NULL);
  run.client = control_client_new_of (run.path, "domybs-donor", CONTROL_CLIENT_TIMEOUT_MS, error);
  if (run.client) {
    ok = act (&run, action, argv, error);
    control_client_free (run.client);
  } else {
    g_prefix_error (error, "donor at %s: ", run.path);
  }
  g_free (run.path);
  return ok;
}

gboolean
command_donor (Ctl *ctl, int argc, char **argv, GError **error) {
  g_autoptr (HostDonor) donor = g_new0 (HostDonor, 1);
  g_autofree char *socket = NULL;
  int wait_s = -1;
  const GOptionEntry entries[] = {
    { "address", 0, 0, G_OPTION_ARG_STRING, &donor->address, "add: where the donor listens: HOST:PORT, [V6]:PORT", "ADDRESS" },
    { "psk", 0, 0, G_OPTION_ARG_FILENAME, &donor->psk, "add: the file with the key, a line IDENTITY:HEXKEY", "FILE" },
    { "identity", 0, 0, G_OPTION_ARG_STRING, &donor->identity, "add: which of the file's identities (the first)", "IDENTITY" },
    { "domain", 0, 0, G_OPTION_ARG_STRING, &donor->domain, "add: what fails together with it, for example a rack (itself)",
      "NAME" },
    { "size", 0, 0, G_OPTION_ARG_STRING, &donor->size, "add: the most that each VM borrows there (any)", "SIZE" },
    { "timeout", 't', 0, G_OPTION_ARG_INT, &wait_s, "remove: wait for VMs that run at most so long (300)", "SECONDS" },
    { "socket", 0, 0, G_OPTION_ARG_FILENAME, &socket, "The control socket of this host's own donor (domybs-donor.service's)",
      "PATH" },
    G_OPTION_ENTRY_NULL,
  };
  const char *action;
  gboolean adds, removes;

  if (!ctl_parse (ctl, entries, &argc, &argv, 0, 3, error))
    return FALSE;
  action = argc > 0 ? argv[0] : "status";
  if (!check_action (action, MAX (argc - 1, 0), error))
    return FALSE;
  adds = strcmp (action, "add") == 0;
  if (!adds && (donor->address || donor->psk || donor->identity || donor->domain || donor->size))
    return ctl_fail (error, CTL_ERROR_USAGE, "donor %s: --address, --psk, --identity, --domain and --size are for add; %s",
                     action, usage);
  removes = strcmp (action, "remove") == 0;
  if (wait_s != -1 && (!removes || wait_s < 0))
    return ctl_fail (error, CTL_ERROR_USAGE, "donor %s: --timeout is for remove, and 0 or more; %s", action, usage);
  if (adds && (!donor->address || !donor->psk))
    return ctl_fail (error, CTL_ERROR_USAGE, "donor add: %s is missing; %s",
                     donor->address ? "--psk=FILE" : "--address=HOST:PORT", usage);
  ctl_json_string (ctl, "action", action);
  if (adds) {
    donor->name = g_strdup (argv[1]);
    return donor_list_add (ctl, donor, error);
  }
  if (removes)
    return donor_list_remove (ctl, argv[1], wait_s < 0 ? DONOR_LIVE_WAIT_S : wait_s, error);
  if (strcmp (action, "list") == 0)
    return donor_list_show (ctl, error);
  return steer (ctl, socket, action, argv, error);
}
