/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an operator's program sees through the control socket: the picture of the window, why a grant was short, and events. */
#include "rig.h"

#include <string.h>
#include <unistd.h>

#define USABLE (RIG_WINDOW_BLOCKS - RIG_SECTION_BLOCKS)
#define ALL_EVENTS "\"connection\",\"session\",\"target\",\"granted\",\"refused\",\"audit\""
/* What the specification says (control.md), not what the back-end's headers say. */
#define INTERVAL_MS 100

static JsonObject *
returned (JsonNode *answer) {
  JsonNode *node = json_object_get_member (json_node_get_object (answer), "return");

  g_assert_true (node && JSON_NODE_HOLDS_OBJECT (node));
  return json_node_get_object (node);
}

static void
grant_run (struct fe *fe, uint64_t start, uint64_t count) {
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, count, DOMYBS_HINT_ANY, DOMYBS_GRANT_F_ALL, start, count, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
}

/* ---- status ---- */

static void
status_names_the_process (struct rig *rig, const void *data) {
  g_autoptr (JsonNode) answer = backend_control (rig->backend, "{\"execute\":\"status\"}");
  JsonObject *status = returned (answer);

  g_assert_cmpint (json_object_get_int_member (status, "pid"), ==, rig->backend->pid);
  g_assert_cmpstr (json_object_get_string_member (status, "name"), ==, "the rig's");
  g_assert_cmpint (json_object_get_int_member (status, "host-reserve-bytes"), ==, 3 << 20);
  g_assert_true (json_object_get_null_member (status, "refused-reason"));
  g_assert_true (json_object_get_null_member (status, "refused-age-ms"));
  g_assert_true (json_object_get_null_member (status, "stats-age-ms"));
}

static void
has_reason (struct backend *backend, const char *reason) {
  g_autoptr (JsonNode) answer = backend_control (backend, "{\"execute\":\"status\"}");
  JsonObject *status = returned (answer);

  if (!reason) {
    g_assert_true (json_object_get_null_member (status, "refused-reason"));
    g_assert_true (json_object_get_null_member (status, "refused-age-ms"));
    return;
  }
  g_assert_cmpstr (json_object_get_string_member (status, "refused-reason"), ==, reason);
  g_assert_cmpint (json_object_get_int_member (status, "refused-age-ms"), >=, 0);
  g_assert_cmpint (json_object_get_int_member (status, "refused-age-ms"), <, fe_patience_ms ());
}

static void
reason_comes_and_goes (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  fe_must (fe, fe_grant (fe, USABLE + 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.blocks, ==, USABLE);
  has_reason (rig->backend, "capacity");
  g_usleep (50000);
  g_assert_cmpint (backend_status (rig->backend, "refused-age-ms"), >=, 50);
  const struct domybs_run run = { 0, 10 };
  fe_must (fe, fe_release (fe, &run, 1, &answer));
  fe_must (fe, fe_grant (fe, 10, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  has_reason (rig->backend, NULL);
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_SHARED, 0, 0, 0, &answer));
  has_reason (rig->backend, "tier");
  fe_must (fe, fe_hello (fe, RIG_SECTION_BLOCKS, &answer));
  has_reason (rig->backend, NULL);
}

static void
reason_of_the_host (void) {
  static const struct {
    const char *argument, *reason;
    uint64_t got;
  } cases[] = {
    { "--host-limit=20M", "host-limit", 10 },
    { "--host-reserve=100T", "host-memory", 0 },
    { "--local-max=10M", "capacity", 5 },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    const char *const arguments[] = { "--window=2G", "--host-account=none", cases[i].argument, NULL };
    g_autoptr (backend_t) backend = backend_start (arguments);
    g_autoptr (fe_t) fe = fe_new ();
    struct fe_answer answer;

    fe_must (fe, fe_open (fe, backend->socket_path));
    has_reason (backend, NULL);
    fe_must (fe, fe_grant (fe, 12, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.blocks, ==, cases[i].got);
    has_reason (backend, cases[i].reason);
    g_assert_cmpint (backend_status (backend, "grants-short"), ==, 1);
  }
}

static void
age_of_stats (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const struct domybs_stat stat = { DOMYBS_STAT_MEM_TOTAL, 0, 1u << 30 };
  struct fe_answer answer;
  int64_t age;

  fe_must (fe, fe_stats (fe, &stat, 1, &answer));
  g_usleep (60000);
  age = backend_status (rig->backend, "stats-age-ms");
  g_assert_cmpint (age, >=, 60);
  g_assert_cmpint (age, <, fe_patience_ms ());
  fe_must (fe, fe_hello (fe, RIG_SECTION_BLOCKS, &answer));
  g_assert_cmpint (backend_status (rig->backend, "stats-age-ms"), ==, INT64_MIN); /* null */
}

/* ---- blocks ---- */

/* Blocks that are granted in [start, end) by the test's own book. */
static uint64_t
booked (const struct domybs_run *runs, size_t n, uint64_t start, uint64_t end) {
  uint64_t blocks = 0;

  for (size_t i = 0; i < n; i++)
    for (uint64_t b = runs[i].start; b < runs[i].start + runs[i].count; b++)
      blocks += b >= start && b < end;
  return blocks;
}

static void
picture_of_the_window (struct rig *rig, const void *data) {
  static const unsigned cells[] = { 1, 2, 3, 7, 64, 100, 333, 1000, 1023, 1024, 1025, 4096 };
  static const struct domybs_run runs[] = { { 0, 1 }, { 63, 2 }, { 100, 100 }, { 511, 3 }, { USABLE - 1, 1 } };
  g_autoptr (fe_t) fe = rig_open (rig);

  for (size_t i = 0; i < G_N_ELEMENTS (runs); i++)
    grant_run (fe, runs[i].start, runs[i].count);
  for (size_t i = 0; i <= G_N_ELEMENTS (cells); i++) {
    g_autofree char *command = i < G_N_ELEMENTS (cells)
                                   ? g_strdup_printf ("{\"execute\":\"blocks\",\"arguments\":{\"cells\":%u}}", cells[i])
                                   : g_strdup ("{\"execute\":\"blocks\"}");
    const uint64_t asked = i < G_N_ELEMENTS (cells) ? cells[i] : 64;
    g_autoptr (JsonNode) answer = backend_control (rig->backend, command);
    JsonObject *blocks = returned (answer);
    JsonArray *granted = json_object_get_array_member (blocks, "granted");
    const uint64_t cell = (uint64_t)json_object_get_int_member (blocks, "cell-blocks");

    g_test_message ("%s", command);
    g_assert_cmpint (json_object_get_int_member (blocks, "window-blocks"), ==, RIG_WINDOW_BLOCKS);
    g_assert_cmpint (json_object_get_int_member (blocks, "usable-blocks"), ==, USABLE);
    g_assert_cmpint (json_object_get_int_member (blocks, "block-bytes"), ==, 2 << 20);
    g_assert_cmpuint (cell, ==, (RIG_WINDOW_BLOCKS + asked - 1) / asked);
    g_assert_cmpuint (json_array_get_length (granted), ==, (RIG_WINDOW_BLOCKS + cell - 1) / cell);
    g_assert_cmpuint (json_array_get_length (granted), <=, asked);
    for (guint k = 0; k < json_array_get_length (granted); k++)
      g_assert_cmpint (json_array_get_int_element (granted, k), ==,
                       (gint64)booked (runs, G_N_ELEMENTS (runs), k * cell, MIN ((k + 1) * cell, RIG_WINDOW_BLOCKS)));
  }
}

/* ---- events ---- */

static int
subscriber (struct rig *rig, const char *events) {
  const int fd = control_open (rig->backend);
  g_autofree char *command = g_strdup_printf ("{\"execute\":\"subscribe\",\"arguments\":{\"events\":[%s]}}", events);
  g_autoptr (JsonNode) answer = control_call (fd, command);

  g_assert_cmpuint (json_object_get_size (returned (answer)), ==, 0);
  return fd;
}

/* The next line, which must be this event; its data. */
static JsonNode *
next_event (int fd, const char *name) {
  g_autoptr (JsonNode) line = control_read (fd, fe_patience_ms ());
  JsonObject *event, *time;
  gint64 now = g_get_real_time () / G_USEC_PER_SEC;

  g_assert_nonnull (line);
  event = json_node_get_object (line);
  g_assert_cmpstr (json_object_get_string_member_with_default (event, "event", "none"), ==, name);
  time = json_object_get_object_member (event, "timestamp");
  g_assert_cmpint (ABS (json_object_get_int_member (time, "seconds") - now), <=, fe_patience_ms () / 1000);
  g_assert_cmpint (json_object_get_int_member (time, "microseconds"), >=, 0);
  g_assert_cmpint (json_object_get_int_member (time, "microseconds"), <, 1000000);
  return json_node_copy (json_object_get_member (event, "data"));
}

static void
next_event_has (int fd, const char *name, const char *member, int64_t value) {
  g_autoptr (JsonNode) data = next_event (fd, name);
  JsonNode *node = json_object_get_member (json_node_get_object (data), member);

  g_assert_nonnull (node);
  if (JSON_NODE_HOLDS_NULL (node))
    g_assert_cmpint (value, ==, INT64_MIN);
  else if (json_node_get_value_type (node) == G_TYPE_BOOLEAN)
    g_assert_cmpint (json_node_get_boolean (node), ==, value);
  else
    g_assert_cmpint (json_node_get_int (node), ==, value);
}

static void
nothing_comes (int fd) {
  g_autoptr (JsonNode) line = control_read (fd, 3 * INTERVAL_MS);

  if (line) {
    g_autofree char *text = json_to_string (line, FALSE);

    g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text);
  }
}

/* So that what follows is told at once, in lines of its own. */
static void
let_interval_pass (void) {
  g_usleep (2 * INTERVAL_MS * 1000);
}

static void
whole_life_in_events (struct rig *rig, const void *data) {
  const int fd = subscriber (rig, ALL_EVENTS);
  struct fe *fe = rig_open_to (rig, FE_STEP_ENABLE);
  struct fe_answer answer;

  next_event_has (fd, "connection", "connected", TRUE);
  let_interval_pass ();
  fe_must (fe, fe_hello (fe, RIG_SECTION_BLOCKS, &answer));
  next_event_has (fd, "session", "session", TRUE);
  let_interval_pass ();
  grant_run (fe, 0, 100);
  next_event_has (fd, "granted", "granted-blocks", 100);
  let_interval_pass ();

  fe_must (fe, fe_grant (fe, USABLE, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  next_event_has (fd, "granted", "granted-blocks", USABLE); /* what is the same step comes in the table's order */
  {
    g_autoptr (JsonNode) event = next_event (fd, "refused");
    JsonObject *refused = json_node_get_object (event);

    g_assert_cmpstr (json_object_get_string_member (refused, "reason"), ==, "capacity");
    g_assert_cmpint (json_object_get_int_member (refused, "asked-blocks"), ==, USABLE);
    g_assert_cmpint (json_object_get_int_member (refused, "got-blocks"), ==, USABLE - 100);
    g_assert_cmpint (json_object_get_int_member (refused, "times"), ==, 1);
  }
  let_interval_pass ();

  g_autoptr (JsonNode) set = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":77}}");
  next_event_has (fd, "target", "target-blocks", 77);
  let_interval_pass ();
  g_autoptr (JsonNode) unset = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
  next_event_has (fd, "target", "target-blocks", INT64_MIN);
  let_interval_pass ();

  memset (fe_block (fe, RIG_WINDOW_BLOCKS - 2), 1, 4096); /* never granted */
  {
    g_autoptr (JsonNode) event = next_event (fd, "audit");
    const int64_t bytes = json_object_get_int_member (json_node_get_object (event), "punched-bytes");

    g_assert_cmpint (bytes, >=, 4096); /* a page, or a huge one */
    g_assert_cmpint (bytes, <=, 2 << 20);
  }
  let_interval_pass ();

  fe_must (fe, fe_drop_window (fe)); /* the guest is reset */
  next_event_has (fd, "session", "session", FALSE);
  next_event_has (fd, "granted", "granted-blocks", 0);
  let_interval_pass ();
  fe_free (fe);
  next_event_has (fd, "connection", "connected", FALSE);
  nothing_comes (fd);
  close (fd);
}

/* A client gets what it asked for, from then on, and until it asks for something else. */
static void
only_to_subscribers (struct rig *rig, const void *data) {
  const int nothing = control_open (rig->backend), target = subscriber (rig, "\"target\""),
            granted = subscriber (rig, "\"granted\"");
  g_autoptr (fe_t) fe = rig_open (rig);

  grant_run (fe, 0, 5);
  next_event_has (granted, "granted", "granted-blocks", 5);
  g_autoptr (JsonNode) set = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":1}}");
  next_event_has (target, "target", "target-blocks", 1);
  g_autoptr (JsonNode) end = control_call (target, "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[]}}");
  returned (end);
  g_autoptr (JsonNode) unset = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
  nothing_comes (target);
  nothing_comes (granted);
  nothing_comes (nothing);
  /* what changed while nobody listened is not told to who comes later */
  g_autoptr (JsonNode) end_too = control_call (granted, "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[]}}");
  returned (end_too);
  grant_run (fe, 5, 5);
  const int later = subscriber (rig, ALL_EVENTS ",\"granted\"");
  nothing_comes (later);
  grant_run (fe, 10, 1);
  next_event_has (later, "granted", "granted-blocks", 11);
  close (nothing);
  close (target);
  close (granted);
  close (later);
}

/* What comes and goes within one interval shows in counters. */
static void
short_visits_are_told (struct rig *rig, const void *data) {
  const int fd = subscriber (rig, "\"connection\",\"session\"");
  const int64_t connections = backend_status (rig->backend, "connections"),
                sessions = backend_status (rig->backend, "sessions");
  int64_t seen = connections, seen_sessions = sessions;
  bool connected = true;

  for (int i = 0; i < 5; i++) {
    g_autoptr (fe_t) fe = rig_open (rig);
  }
  while (seen < connections + 5 || seen_sessions < sessions + 5 || connected) {
    g_autoptr (JsonNode) line = control_read (fd, fe_patience_ms ());
    JsonObject *event;

    g_assert_nonnull (line);
    event = json_object_get_object_member (json_node_get_object (line), "data");
    seen = json_object_get_int_member_with_default (event, "connections", seen);
    seen_sessions = json_object_get_int_member_with_default (event, "sessions", seen_sessions);
    connected = json_object_get_boolean_member_with_default (event, "connected", connected);
  }
  g_assert_cmpint (seen, ==, connections + 5);
  g_assert_cmpint (seen_sessions, ==, sessions + 5);
  close (fd);
}

/* A guest that asks thousands of times a second makes ten lines a second, and the last of them is how it is. */
static void
floods_are_summed_up (struct rig *rig, const void *data) {
  const int fd = subscriber (rig, "\"granted\",\"refused\"");
  g_autoptr (fe_t) fe = rig_open (rig);
  const int64_t begin = fe_now_ms ();
  unsigned lines = 0, n = 0;
  int64_t granted = -1, refusals = 0, most;
  struct fe_answer answer;

  while (fe_now_ms () < begin + 1000) {
    const struct domybs_run run = { 0, 8 };

    grant_run (fe, 0, 8);
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 8, &answer)); /* none is left there */
    fe_must (fe, fe_release (fe, &run, 1, &answer));
    n++;
  }
  grant_run (fe, 100, 3);
  most = (fe_now_ms () - begin) / INTERVAL_MS + 2;
  g_test_message ("%u rounds", n);
  while (granted != 3 || refusals < n) {
    g_autoptr (JsonNode) line = control_read (fd, fe_patience_ms ());
    JsonObject *event;

    g_assert_nonnull (line);
    event = json_object_get_object_member (json_node_get_object (line), "data");
    lines++;
    granted = json_object_get_int_member_with_default (event, "granted-blocks", granted);
    refusals += json_object_get_int_member_with_default (event, "times", 0);
  }
  g_assert_cmpint (refusals, ==, n);
  g_assert_cmpuint (lines, <=, 2 * most);
  g_assert_cmpuint (lines, >=, 2);
  nothing_comes (fd);
  close (fd);
}

static void
all_places_subscribed (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  int fds[16];

  for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
    fds[i] = subscriber (rig, i % 2 ? "\"granted\"" : "\"granted\",\"target\"");
  for (unsigned round = 1; round <= 3; round++) {
    grant_run (fe, round, 1);
    for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
      next_event_has (fds[i], "granted", "granted-blocks", round);
    let_interval_pass ();
  }
  for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
    close (fds[i]);
}

int
main (int argc, char **argv) {
  static const char *const arguments[] = { "--name=the rig's", "--host-reserve=3M", NULL };

  g_test_init (&argc, &argv, NULL);
  rig_arguments = arguments;
  rig_add ("/monitor/status-names-the-process", status_names_the_process, NULL);
  rig_add ("/monitor/reason-comes-and-goes", reason_comes_and_goes, NULL);
  g_test_add_func ("/monitor/reason-of-the-host", reason_of_the_host);
  rig_add ("/monitor/age-of-stats", age_of_stats, NULL);
  rig_add ("/monitor/picture-of-the-window", picture_of_the_window, NULL);
  rig_add ("/monitor/whole-life-in-events", whole_life_in_events, NULL);
  rig_add ("/monitor/only-to-subscribers", only_to_subscribers, NULL);
  rig_add ("/monitor/short-visits-are-told", short_visits_are_told, NULL);
  rig_add ("/monitor/floods-are-summed-up", floods_are_summed_up, NULL);
  rig_add ("/monitor/all-places-subscribed", all_places_subscribed, NULL);
  return rig_run ();
}
