/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "donor.h"
#include "frontend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define DEFAULT_BYTES (64ull << 20)

static struct donor *
new_donor (void) {
  struct donor *donor = g_new0 (struct donor, 1);

  donor->backend = backend_new ("domybs-donor-XXXXXX", "none.sock");
  return donor;
}

/* Takes over argv. */
static struct donor *
run (struct donor *donor, GPtrArray *argv, const char *program, const char *crash_file) {
  if (!program)
    program = g_getenv ("DOMYBS_DONOR");
  g_assert_nonnull (program);
  g_ptr_array_insert (argv, 0, g_strdup (program));
  g_ptr_array_add (argv, NULL);
  backend_run (donor->backend, (const char *const *)argv->pdata, -1, crash_file);
  g_ptr_array_unref (argv);
  return donor;
}

static JsonNode *
find (JsonObject *object, const char *path) {
  g_auto (GStrv) names = g_strsplit (path, ".", -1);
  JsonNode *node = NULL;

  for (char **name = names; *name; name++) {
    node = json_object_get_member (object, *name);
    if (!node || !name[1])
      return node;
    if (!JSON_NODE_HOLDS_OBJECT (node))
      return NULL;
    object = json_node_get_object (node);
  }
  return node;
}

static int64_t
number (JsonNode *node) {
  if (!node || !JSON_NODE_HOLDS_VALUE (node))
    return INT64_MIN;
  return json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : json_node_get_int (node);
}

static char *
real_address (struct donor *donor) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (!g_file_test (donor->backend->control_path, G_FILE_TEST_EXISTS)) {
    if (!backend_is_alive (donor->backend) || fe_now_ms () > deadline) {
      g_autofree char *log = backend_log_from (donor->backend, 0);

      g_error ("the donor does not begin: %s; log:\n%s", backend_end_text (donor->backend), log);
    }
    g_usleep (2000);
  }
  {
    g_autoptr (JsonNode) answer = backend_control_again (donor->backend, "{\"execute\":\"status\"}");
    JsonObject *status = json_object_get_object_member (json_node_get_object (answer), "return");

    return g_strdup (json_array_get_string_element (json_object_get_array_member (status, "listen"), 0));
  }
}

struct donor *
donor_start (const struct donor_options *options) {
  const uint64_t bytes = options->bytes ? options->bytes : DEFAULT_BYTES;
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);
  struct donor *donor = new_donor ();

  g_ptr_array_add (argv, g_strdup ("--name=test"));
  g_ptr_array_add (argv, g_strdup ("--fixed-size"));
  g_ptr_array_add (argv, g_strdup ("--listen=127.0.0.1:0"));
  g_ptr_array_add (argv, g_strdup_printf ("--size=%" G_GUINT64_FORMAT, bytes));
  g_ptr_array_add (argv, g_strdup_printf ("--control-socket=%s", donor->backend->control_path));
  if (options->keys) {
    donor->psk_path = g_build_filename (donor->backend->directory, "keys", NULL);
    g_assert_true (g_file_set_contents_full (donor->psk_path, options->keys, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    g_ptr_array_add (argv, g_strdup_printf ("--psk=%s", donor->psk_path));
  } else {
    g_ptr_array_add (argv, g_strdup ("--no-tls"));
  }
  for (const char *const *argument = options->arguments; argument && *argument; argument++)
    g_ptr_array_add (argv, g_strdup (*argument));
  run (donor, argv, options->program, options->crash_file);
  donor->address = real_address (donor);
  return donor;
}

struct donor *
donor_start_arguments (const char *const *arguments) {
  GPtrArray *argv = g_ptr_array_new_with_free_func (g_free);
  struct donor *donor = new_donor ();

  for (; *arguments; arguments++)
    g_ptr_array_add (argv, g_strdup (*arguments));
  return run (donor, argv, NULL, NULL);
}

void
donor_end (struct donor *donor) {
  if (!donor)
    return;
  if (backend_is_alive (donor->backend))
    g_assert_cmpint (backend_stop (donor->backend), ==, 0);
  if (donor->psk_path)
    g_unlink (donor->psk_path);
  g_free (donor->psk_path);
  g_free (donor->address);
  backend_free (donor->backend);
  g_free (donor);
}

void
donor_kill_worker (struct donor *donor) {
  const pid_t worker = backend_wait_worker (donor->backend, 0, fe_patience_ms ());

  g_assert_cmpint (worker, >, 0);
  backend_kill_worker (worker);
  g_assert_cmpint (backend_wait_worker (donor->backend, worker, fe_patience_ms ()), >, 0);
}

int64_t
donor_status (struct donor *donor, const char *path) {
  g_autoptr (JsonNode) answer = backend_control_again (donor->backend, "{\"execute\":\"status\"}");
  JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");

  g_assert_nonnull (object);
  return number (find (object, path));
}

bool
donor_wait_status (struct donor *donor, const char *path, int64_t value) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (donor_status (donor, path) != value) {
    if (fe_now_ms () > deadline || !backend_is_alive (donor->backend))
      return false;
    g_usleep (5000);
  }
  return true;
}

/* Free it. NULL: there is no such lease. */
static JsonNode *
lease_node (struct donor *donor, uint64_t lease, const char *path) {
  g_autoptr (JsonNode) answer = backend_control_again (donor->backend, "{\"execute\":\"leases\"}");
  JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");
  JsonArray *leases = json_object_get_array_member (object, "leases");
  g_autofree char *id = g_strdup_printf ("%016" G_GINT64_MODIFIER "x", lease);

  for (guint i = 0; i < json_array_get_length (leases); i++) {
    JsonObject *one = json_array_get_object_element (leases, i);
    JsonNode *node = find (one, path);

    if (g_str_equal (json_object_get_string_member (one, "lease"), id))
      return node ? json_node_copy (node) : NULL;
  }
  return NULL;
}

int64_t
donor_lease (struct donor *donor, uint64_t lease, const char *path) {
  g_autoptr (JsonNode) node = lease_node (donor, lease, path);

  return number (node);
}

char *
donor_lease_text (struct donor *donor, uint64_t lease, const char *path) {
  g_autoptr (JsonNode) node = lease_node (donor, lease, path);

  return node ? json_node_dup_string (node) : NULL;
}

bool
donor_order (struct donor *donor, const char *format, ...) {
  g_autofree char *command = NULL;
  g_autoptr (JsonNode) answer = NULL;
  va_list args;

  va_start (args, format);
  command = g_strdup_vprintf (format, args);
  va_end (args);
  answer = backend_control_again (donor->backend, command);
  return json_object_has_member (json_node_get_object (answer), "return");
}

void
donor_borrower (struct donor *donor, uint8_t vm, const struct borrower_key *key, struct borrower *ret_borrower) {
  *ret_borrower = (struct borrower){ .address = donor->address, .key = key };
  memset (ret_borrower->vm, vm, sizeof ret_borrower->vm);
  memset (ret_borrower->host, 0x22, sizeof ret_borrower->host);
  memset (ret_borrower->boot, 0x33, sizeof ret_borrower->boot);
}
