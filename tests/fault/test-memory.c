/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory that can't be had. Whichever allocation or mapping of a worker fails: either the request is refused, or the worker
 * ends and the next one answers it; nothing is lost, and nothing is answered twice. Each operation is repeated with its first
 * allocation failing, its second, and so on until none is left; and so is the start of a worker. The keeper has no such case:
 * it allocates nothing.
 */
#include "fault-rig.h"
#include "operations.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

static const char *const none[] = { NULL };

struct failing {
  struct operation operation;
  enum fault_kind kind;
  unsigned stride; /* about so many calls from one that fails to the next */
};

static void
open_stage (struct stage *stage) {
  fault_begin (stage, none, 1024, GUEST_BYTES_TOUCHED);
  guest_submit_grant (stage->guest, 100, DOMYBS_HINT_ANY, 0, 0, 0);
  guest_drain (stage->guest);
}

static void
every_call (gconstpointer data) {
  const struct failing *failing = data;
  unsigned sum;
  struct stage stage;

  open_stage (&stage);
  sum = fault_every_call (&stage, &failing->operation, failing->kind, ENOMEM, failing->stride);
  if (failing->kind == FAULT_MAP || failing->stride > 1) /* most requests need no allocation at all */
    g_assert_cmpuint (sum, >, 0);
  fault_end (&stage);
}

/* ---- operators ---- */

static void
ask (struct guest *guest, const char *command) {
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\"}", command);
  g_autoptr (JsonNode) answer = backend_control_again (guest->backend, line);

  g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
}

static void
ask_status (struct guest *guest) {
  ask (guest, "status");
}

static void
ask_audit (struct guest *guest) {
  ask (guest, "audit");
}

/* ---- starts ---- */

/* A start makes some hundred allocations: so many places of them, at random. A few make libseccomp hang, until the worker is
 * given up. */
#define STARTS 12u

static void
every_start (gconstpointer data) {
  struct stage stage;

  open_stage (&stage);
  fault_every_start (&stage, GPOINTER_TO_UINT (data), ENOMEM, testing_steps (STARTS));
  fault_end (&stage);
}

/* Nobody can have anything for a while: workers die, each time the keeper waits longer, and when it is over the guest gets its
 * answers. */
static void
none_for_a_while (void) {
  struct stage stage;
  unsigned deaths;

  open_stage (&stage);
  fault_arm (FAULT_WORKER, FAULT_ALLOC, 1, UINT64_MAX / 2, ENOMEM, 0);
  for (int i = 0; i < 8; i++)
    guest_submit_random (stage.guest);
  g_assert_true (backend_wait_log (stage.backend, 0, "; 6 in a row", 2 * fe_patience_ms ()));
  g_assert_true (backend_is_alive (stage.backend));
  fault_disarm (FAULT_WORKER, FAULT_ALLOC);
  deaths = fault_check (&stage);
  g_test_message ("%u workers died", deaths);
  g_assert_cmpuint (deaths, >=, 6);
  fault_end (&stage);
}

/* The keeper has all that it needs from the start on: not even a dying worker, another front-end or an upgrade makes it ask
 * for more. */
static void
keeper_needs_none (void) {
  uint64_t calls, maps;
  struct stage stage;

  open_stage (&stage);
  calls = fault_calls (FAULT_KEEPER, FAULT_ALLOC);
  maps = fault_calls (FAULT_KEEPER, FAULT_MAP);
  g_assert_cmpuint (calls, >, 0);
  for (size_t i = 0; i < n_operations; i++) {
    operations[i].run (stage.guest);
    if (i % 3 == 0)
      fault_restart (&stage, FAULT_ALLOC, 1, 0, 0);
    fault_settle (&stage);
    if (stage.guest->session == 0)
      guest_begin (stage.guest);
  }
  backend_control_once (stage.backend, "{\"execute\":\"restart\"}");
  backend_control_once (stage.backend, "{\"execute\":\"upgrade\"}");
  fault_check (&stage);
  g_assert_cmpuint (fault_calls (FAULT_KEEPER, FAULT_ALLOC), ==, calls);
  g_assert_cmpuint (fault_calls (FAULT_KEEPER, FAULT_MAP), ==, maps);
  fault_end (&stage);
}

/* Operators' commands, which make many allocations for their JSON, and a whole life. */
static bool
is_long (const struct operation *operation) {
  return strcmp (operation->name, "set-target") == 0 || strcmp (operation->name, "reclaim") == 0
         || strcmp (operation->name, "reconnect") == 0;
}

int
main (int argc, char **argv) {
  static const char *const mapping[] = { "memory-table", "reset", "reconnect" };
  static const struct operation asking[] = { { "status", ask_status }, { "audit", ask_audit } };
  static struct failing failing[64];
  size_t n = 0;

  fault_init (&argc, &argv);
  for (size_t i = 0; i < n_operations; i++)
    failing[n++] = (struct failing){ operations[i], FAULT_ALLOC, is_long (&operations[i]) ? 4 : 1 };
  for (size_t i = 0; i < G_N_ELEMENTS (asking); i++)
    failing[n++] = (struct failing){ asking[i], FAULT_ALLOC, 8 };
  for (size_t i = 0; i < G_N_ELEMENTS (mapping); i++)
    failing[n++] = (struct failing){ *operation_named (mapping[i]), FAULT_MAP, 1 };
  for (size_t i = 0; i < n; i++) {
    g_autofree char *name
      = g_strdup_printf ("/fault/memory/%s/%s", failing[i].kind == FAULT_ALLOC ? "allocation" : "mapping", failing[i].operation.name);

    g_test_add_data_func (name, &failing[i], every_call);
  }
  g_test_add_data_func ("/fault/memory/allocation/of-a-start", GUINT_TO_POINTER (FAULT_ALLOC), every_start);
  g_test_add_data_func ("/fault/memory/mapping/of-a-start", GUINT_TO_POINTER (FAULT_MAP), every_start);
  g_test_add_func ("/fault/memory/none-for-a-while", none_for_a_while);
  g_test_add_func ("/fault/memory/keeper-needs-none", keeper_needs_none);
  return g_test_run ();
}
