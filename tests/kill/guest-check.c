/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What operators do and see: the control socket, the host account, and whether all of that agrees with the guest's books. */
#include "guest-internal.h"

#include <string.h>
#include <sys/stat.h>

/* The host account's file: a header of 64 bytes, then slots of 64 bytes, whose first 8 are how many blocks. */
#define ACCOUNT_ENTRY_BYTES 64u

static JsonObject *
returned (struct guest *guest, JsonNode *answer, const char *command) {
  JsonObject *object = json_node_get_object (answer);

  if (!json_object_has_member (object, "return")) {
    g_autofree char *text = json_to_string (answer, FALSE);

    guest_fail (guest, "%s: %s", command, text);
  }
  return json_object_get_object_member (object, "return");
}

static gint64
integer (JsonObject *object, const char *name) {
  JsonNode *node = object ? json_object_get_member (object, name) : NULL;

  return node && JSON_NODE_HOLDS_VALUE (node) ? json_node_get_int (node) : G_MININT64;
}

/* ---- operators ---- */

void
guest_set_target (struct guest *guest, bool have_target, uint64_t blocks) {
  g_autofree char *command = have_target
    ? g_strdup_printf ("{\"execute\":\"set-target\",\"arguments\":{\"blocks\":%" G_GUINT64_FORMAT "}}", blocks)
    : g_strdup ("{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
  const uint64_t target = have_target ? MIN (blocks, guest->max_blocks) : 0;

  guest_trace (guest, "target %" G_GUINT64_FORMAT " (%d)", blocks, have_target);
  g_autoptr (JsonNode) answer = backend_control_again (guest->backend, command);
  returned (guest, answer, command);
  /* Acknowledged: it must not be forgotten any more, whoever dies. */
  if (guest->session && (guest->have_target != have_target || guest->target != target))
    guest->config_due = true;
  guest->have_target = have_target;
  guest->target = target;
  guest_trace (guest, "target is set");
}

void
guest_reclaim (struct guest *guest, uint64_t blocks) {
  g_autofree char *command
    = g_strdup_printf ("{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":%" G_GUINT64_FORMAT ",\"deadline-ms\":1000}}", blocks);
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  guest_trace (guest, "reclaim %" G_GUINT64_FORMAT, blocks);
  for (;;) {
    g_autoptr (JsonNode) answer = NULL;

    guest->reclaims_asked++; /* before it is sent: without an answer nobody knows */
    answer = backend_control_once (guest->backend, command);
    if (answer) {
      returned (guest, answer, command);
      break;
    }
    if (fe_now_ms () > deadline)
      guest_fail (guest, "no answer to reclaim");
  }
  guest->reclaim_due = true;
  guest_trace (guest, "reclaim is asked for");
}

/* ---- checks ---- */

static uint64_t
account_sum (struct guest *guest) {
  g_autofree char *bytes = NULL;
  uint64_t sum = 0;
  gsize n;

  if (!g_file_get_contents (guest->account_path, &bytes, &n, NULL))
    guest_fail (guest, "host account %s can't be read", guest->account_path);
  for (gsize at = ACCOUNT_ENTRY_BYTES; at + ACCOUNT_ENTRY_BYTES <= n; at += ACCOUNT_ENTRY_BYTES) {
    uint64_t blocks;

    memcpy (&blocks, bytes + at, sizeof blocks);
    sum += blocks;
  }
  return sum;
}

static void
check_status (struct guest *guest, JsonObject *status) {
  const struct {
    const char *name;
    gint64 value;
  } expected[] = {
    { "granted-blocks", (gint64)guest->n_granted },
    { "host-used-blocks", (gint64)guest->n_granted },
    { "window-blocks", (gint64)guest->window_blocks },
    { "target-blocks", guest->have_target ? (gint64)guest->target : G_MININT64 },
    { "session", guest->session != 0 },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (expected); i++) {
    JsonNode *node = json_object_get_member (status, expected[i].name);
    const gint64 value = !node || JSON_NODE_HOLDS_NULL (node)                    ? G_MININT64
                         : json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node)
                                                                             : json_node_get_int (node);

    if (value != expected[i].value)
      guest_fail (guest, "status says %s %" G_GINT64_FORMAT ", expected %" G_GINT64_FORMAT, expected[i].name, value, expected[i].value);
  }
  if (integer (status, "generation") < MAX (guest->generation, guest->config_generation))
    guest_fail (guest, "status says generation %" G_GINT64_FORMAT ", the guest saw %u", integer (status, "generation"), guest->generation);
  if (guest->last_stat) {
    JsonNode *node = json_object_get_member (status, "guest");

    if (!node || !JSON_NODE_HOLDS_OBJECT (node) || integer (json_node_get_object (node), "blocks-online") != (gint64)guest->last_stat)
      guest_fail (guest, "status does not say what the guest said last (%" G_GUINT64_FORMAT ")", guest->last_stat);
  }
}

static void
check_blocks (struct guest *guest) {
  g_autofree char *command
    = g_strdup_printf ("{\"execute\":\"blocks\",\"arguments\":{\"cells\":%" G_GUINT64_FORMAT "}}", guest->window_blocks);
  g_autoptr (JsonNode) answer = backend_control_again (guest->backend, command);
  JsonArray *granted = json_object_get_array_member (returned (guest, answer, command), "granted");

  if (json_array_get_length (granted) != guest->window_blocks)
    guest_fail (guest, "blocks: %u cells", json_array_get_length (granted));
  for (guint i = 0; i < guest->window_blocks; i++)
    if ((json_array_get_int_element (granted, i) != 0) != (guest->keys[i] != 0))
      guest_fail (guest, "block %u is %s, the back-end's books say otherwise", i, guest->keys[i] ? "granted" : "not granted");
}

/* An event that is due must come: asked for, acknowledged, and there are buffers. */
static void
check_events (struct guest *guest, gint64 generation) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  for (;;) {
    guest_take_events (guest);
    if (guest->config_due && guest->config_event_generation == generation)
      guest->config_due = false;
    if (!guest->config_due && !guest->reclaim_due)
      return;
    if (fe_now_ms () > deadline)
      guest_fail (guest, "no %s event: generation %" G_GINT64_FORMAT ", the last event's was %u", guest->config_due ? "CONFIG" : "RECLAIM",
                  generation, guest->config_event_generation);
    g_usleep (200);
  }
}

int64_t
guest_check (struct guest *guest) {
  JsonObject *status, *worker;
  struct stat st;

  guest_drain (guest);
  for (uint64_t block = 0; block < guest->window_blocks; block++)
    if (guest->keys[block])
      guest_verify_block (guest, block);
  g_autoptr (JsonNode) answer = backend_control_again (guest->backend, "{\"execute\":\"status\"}");
  status = returned (guest, answer, "status");
  check_status (guest, status);
  check_blocks (guest);
  if (guest->account_path && account_sum (guest) != guest->n_granted)
    guest_fail (guest, "the host account says %" G_GUINT64_FORMAT " blocks, %" G_GUINT64_FORMAT " are granted", account_sum (guest),
                guest->n_granted);
  if (guest->fe->window.fd >= 0) {
    g_autoptr (JsonNode) audit = backend_control_again (guest->backend, "{\"execute\":\"audit\"}");

    returned (guest, audit, "audit");
    if (fstat (guest->fe->window.fd, &st) < 0 || (uint64_t)st.st_blocks * 512 != guest->n_granted * guest->block_cost)
      guest_fail (guest, "the window costs %" G_GUINT64_FORMAT " KiB, expected are %" G_GUINT64_FORMAT, (uint64_t)st.st_blocks / 2,
                  guest->n_granted * guest->block_cost / 1024);
  }
  check_events (guest, integer (status, "generation"));
  guest_trace (guest, "checked");
  worker = json_object_has_member (status, "worker") ? json_object_get_object_member (status, "worker") : NULL;
  return worker ? integer (worker, "deaths") : 0;
}
