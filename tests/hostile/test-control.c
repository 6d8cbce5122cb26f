/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control socket in clumsy and in hostile hands. Each client gets an error it can read or is dropped; nobody else notices. */
#include "rig.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* FALSE: the server has hung up. */
static bool
send_all (int fd, const void *bytes, size_t n) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  while (n) {
    const ssize_t sent = send (fd, bytes, n, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN)
      return false;
    if (sent < 0) {
      g_assert_cmpint (fe_now_ms (), <, deadline);
      g_usleep (1000);
      continue;
    }
    bytes = (const char *)bytes + sent;
    n -= (size_t)sent;
  }
  return true;
}

static bool
is_dropped (int fd) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();
  char sink[65536];

  while (fe_now_ms () < deadline) {
    struct pollfd pfd = { fd, POLLIN, 0 };
    ssize_t n;

    if (poll (&pfd, 1, 50) <= 0)
      continue;
    n = read (fd, sink, sizeof sink);
    if (n <= 0)
      return true;
  }
  return false;
}

/* Lines that are answered with an error, all on one connection; a good one behind each still works. */
static void
bad_lines_get_errors (struct rig *rig, const void *data) {
  static const char *const lines[] = {
    "",
    " ",
    "garbage",
    "null",
    "1",
    "\"status\"",
    "[]",
    "{}",
    "[{\"execute\":\"status\"}]",
    "{\"execute\":null}",
    "{\"execute\":1}",
    "{\"execute\":{}}",
    "{\"execute\":[\"status\"]}",
    "{\"execute\":\"\"}",
    "{\"execute\":\"STATUS\"}",
    "{\"execute\":\"no-such-command\"}",
    "{\"execute\":\"%s%s%s%n\"}",
    "{\"execute\":\"status\",\"arguments\":1}",
    "{\"execute\":\"status\",\"arguments\":[]}",
    "{\"execute\":\"status\",\"arguments\":null}",
    "{\"execute\":\"status\",\"arguments\":{\"unknown\":1}}",
    "{\"execute\":\"set-target\"}",
    "{\"execute\":\"set-target\",\"arguments\":{}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":-1}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":1.5}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":\"10\"}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":true}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":[1]}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":1e300}}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":-9223372036854775808}}",
    "{\"execute\":\"reclaim\"}",
    "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1,\"deadline-ms\":-1}}",
    "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1,\"deadline-ms\":4294967296}}",
    "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1,\"deadline-ms\":\"soon\"}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":0}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":-1}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":4097}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":9223372036854775807}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":1.5}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":\"10\"}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":null}}",
    "{\"execute\":\"blocks\",\"arguments\":{\"cells\":10,\"start\":0}}",
    "{\"execute\":\"subscribe\"}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":null}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":\"granted\"}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":{\"granted\":true}}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",\"no-such-event\"]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",\"\"]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",null]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",1]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",[\"granted\"]]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",{}]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"GRANTED\"]}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"%s%n\"]}}",
    "{\"execute\":\"status\"",
    "{\"execute\":\"status\"}}",
    "\xff\xfe{}",
    "{\"execute\":\"\xed\xa0\x80\"}",
    "{\"execute\":\"\\ud800\"}",
  };
  const int fd = control_open (rig->backend);

  for (size_t i = 0; i < G_N_ELEMENTS (lines); i++) {
    g_autofree char *both = g_strconcat (lines[i], "\n{\"execute\":\"version\",\"id\":7}\n", NULL);
    g_autoptr (JsonNode) bad = NULL;
    g_autoptr (JsonNode) good = NULL;
    JsonObject *error;
    g_autofree char *shown = g_strescape (lines[i], NULL);

    g_test_message ("%s", shown);
    g_assert_true (send_all (fd, both, strlen (both)));
    bad = control_read (fd, fe_patience_ms ());
    g_assert_nonnull (bad);
    g_assert_true (json_object_has_member (json_node_get_object (bad), "error"));
    error = json_object_get_object_member (json_node_get_object (bad), "error");
    g_assert_cmpuint (strlen (json_object_get_string_member (error, "class")), >, 0);
    g_assert_cmpuint (strlen (json_object_get_string_member (error, "desc")), >, 0);
    good = control_read (fd, fe_patience_ms ());
    g_assert_nonnull (good);
    g_assert_true (json_object_has_member (json_node_get_object (good), "return"));
    g_assert_cmpint (json_object_get_int_member (json_node_get_object (good), "id"), ==, 7);
  }
  close (fd);
}

/* A subscription that is refused is refused as a whole: no event comes of its good names. */
static void
refused_subscription_changes_nothing (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  g_autoptr (fe_t) fe = rig_open (rig);
  g_autoptr (JsonNode) bad
      = control_call (fd, "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\",\"session\",\"grants\"]}}");
  struct fe_answer answer;

  g_assert_true (json_object_has_member (json_node_get_object (bad), "error"));
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_autoptr (JsonNode) line = control_read (fd, 300);
  g_assert_null (line);
  close (fd);
}

/* As many names as fit into a line, all of them the same. */
static void
subscription_of_many_names (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  g_autoptr (GString) command = g_string_new ("{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"audit\"");

  while (command->len < 4000)
    g_string_append (command, ",\"audit\"");
  g_string_append (command, "]}}");
  for (int i = 0; i < 200; i++) {
    g_autoptr (JsonNode) answer = control_call (fd, command->str);

    g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
  }
  close (fd);
}

/* The server has taken what was sent to it on other connections, and has sent what it could of the answers: it serves
 * connections in turns, and that takes two of them. */
static void
let_server_catch_up (int fd) {
  for (int i = 0; i < 3; i++) {
    g_autoptr (JsonNode) answer = control_call (fd, "{\"execute\":\"version\"}");
  }
}

/* Asks, one command at a time, until the server has hung up, and returns how often that went; reads nothing. Without pauses the
 * answers would be cut otherwise each time, and so would fit more or fewer of them into the kernel's buffer. */
static unsigned
ask_until_dropped (int fd, int other, const char *line) {
  unsigned n = 0;

  for (; send (fd, line, strlen (line), MSG_NOSIGNAL) == (ssize_t)strlen (line); n++) {
    g_assert_cmpuint (n, <, 100000);
    let_server_catch_up (other);
  }
  return n;
}

/* A subscriber that does not read is dropped by an event, as it would be by an answer, and nobody else waits for it. */
static void
events_are_never_read (struct rig *rig, const void *data) {
  static const char subscribe[] = "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\"]}}\n";
  static const char big[] = "{\"execute\":\"blocks\",\"arguments\":{\"cells\":1024}}\n"; /* 2 KiB of answer */
  const int probe = control_open (rig->backend), fd = control_open (rig->backend), good = control_open (rig->backend);
  g_autoptr (fe_t) fe = rig_open (rig);
  const uint64_t before = backend_anonymous_kib (rig->backend);
  struct pollfd slow = { fd, POLLIN, 0 };
  unsigned room, events = 0;
  struct rig_waits waits = { 0 };
  struct fe_answer answer;

  g_assert_true (send_all (probe, subscribe, sizeof subscribe - 1));
  room = ask_until_dropped (probe, good, big);
  close (probe);
  g_assert_cmpuint (room, >, 20);
  g_assert_true (send_all (fd, subscribe, sizeof subscribe - 1));
  for (unsigned i = 0; i < room - 3; i++) { /* almost as much as it may leave unread */
    g_assert_true (send_all (fd, big, sizeof big - 1));
    let_server_catch_up (good);
  }
  g_autoptr (JsonNode) subscribed = control_call (good, "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\"]}}");
  g_assert_true (json_object_has_member (json_node_get_object (subscribed), "return"));
  for (;; events++) {
    const int64_t asked = fe_now_ms ();

    g_assert_cmpuint (events, <, 200);
    fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
    g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
    rig_waited (&waits, fe_now_ms () - asked);
    g_autoptr (JsonNode) event = control_read (good, fe_patience_ms ());
    g_assert_nonnull (event);
    g_assert_cmpint (poll (&slow, 1, 0), >=, 0);
    if (slow.revents & POLLHUP)
      break;
  }
  g_test_message ("%u answers and %u events", room - 3, events);
  g_assert_cmpuint (events, >, 5); /* it was an event that was too much */
  rig_expect_short_waits (&waits);
  if (!backend_is_instrumented (rig->backend))
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <, before + 2048);
  close (fd);
  close (good);
}

static void
target_is_capped (struct rig *rig, const void *data) {
  g_autoptr (JsonNode) answer
    = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":9223372036854775807}}");
  int64_t max = backend_status (rig->backend, "max-blocks");

  g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
  g_assert_cmpint (backend_status (rig->backend, "target-blocks"), <=, max);
  g_autoptr (JsonNode) undone = backend_control (rig->backend, "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":null}}");
}

static void
line_without_an_end (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  g_autofree char *much = g_malloc (1 << 20);
  const uint64_t before = backend_anonymous_kib (rig->backend);

  memset (much, 'a', 1 << 20);
  for (int i = 0; i < 32 && send_all (fd, much, 1 << 20); i++)
    ;
  g_assert_true (is_dropped (fd));
  close (fd);
  if (!backend_is_instrumented (rig->backend))
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <, before + 2048);
}

static void
deep_nesting (struct rig *rig, const void *data) {
  uint64_t kib = 0;

  for (int i = 0; i < 60; i++) {
    const int fd = control_open (rig->backend);
    char line[4000];

    memset (line, '[', sizeof line);
    line[sizeof line - 1] = '\n';
    g_assert_true (send_all (fd, line, sizeof line));
    g_autoptr (JsonNode) answer = control_read (fd, fe_patience_ms ());
    g_assert_nonnull (answer);
    g_assert_true (json_object_has_member (json_node_get_object (answer), "error"));
    close (fd);
    if (i == 10)
      kib = backend_anonymous_kib (rig->backend);
  }
  if (!backend_is_instrumented (rig->backend))
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <=, kib + 512);
}

static void
zero_bytes (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  static const char line[] = "{\"execute\":\"status\0\"}\n\0\0\0\n";

  g_assert_true (send_all (fd, line, sizeof line - 1));
  g_autoptr (JsonNode) answer = control_read (fd, fe_patience_ms ());
  g_assert_nonnull (answer);
  g_assert_true (json_object_has_member (json_node_get_object (answer), "error"));
  close (fd);
}

static void
bytes_trickle_one_at_a_time (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  static const char line[] = "{\"execute\":\"version\"}\n";

  for (size_t i = 0; i < sizeof line - 1; i++) {
    g_assert_true (send_all (fd, line + i, 1));
    g_usleep (500);
  }
  g_autoptr (JsonNode) answer = control_read (fd, fe_patience_ms ());
  g_assert_nonnull (answer);
  g_assert_true (json_object_has_member (json_node_get_object (answer), "return"));
  close (fd);
}

static void
half_a_line_then_gone (struct rig *rig, const void *data) {
  for (int i = 0; i < 100; i++) {
    const int fd = control_open (rig->backend);

    g_assert_true (send_all (fd, "{\"execute\":\"sta", 15));
    close (fd);
  }
}

static void
gone_before_the_greeting (struct rig *rig, const void *data) {
  for (int i = 0; i < 200; i++) {
    const int fd = control_connect (rig->backend->control_path);

    close (fd);
  }
}

static void
answers_are_never_read (struct rig *rig, const void *data) {
  const int fd = control_open (rig->backend);
  const uint64_t before = backend_anonymous_kib (rig->backend);
  static const char line[] = "{\"execute\":\"status\"}\n";
  int i = 0;

  /* either it is dropped at some point, or not read from any more */
  for (const int64_t end = fe_now_ms () + fe_patience_ms (); fe_now_ms () < end; i++) {
    const ssize_t sent = send (fd, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent < 0 && errno != EAGAIN)
      break;
    if (sent < 0 && i > 20000)
      break;
    if (sent < 0)
      g_usleep (100);
  }
  g_assert_cmpint (backend_status (rig->backend, "granted-blocks"), ==, 0);
  if (!backend_is_instrumented (rig->backend))
    g_assert_cmpuint (backend_anonymous_kib (rig->backend), <, before + 4096);
  close (fd);
}

/* More clients than it serves: the surplus is told, the rest work, and places become free again. */
static void
more_clients_than_places (struct rig *rig, const void *data) {
  int fds[100];
  unsigned served = 0;
  g_autoptr (fe_t) fe = rig_open (rig);
  struct fe_answer answer;

  for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
    fds[i] = control_connect (rig->backend->control_path);
  for (size_t i = 0; i < G_N_ELEMENTS (fds); i++) {
    g_autoptr (JsonNode) line = control_read (fds[i], fe_patience_ms ());

    g_assert_nonnull (line); /* a greeting or an error */
    served += json_object_has_member (json_node_get_object (line), "domybs");
  }
  g_assert_cmpuint (served, >=, 1);
  g_assert_cmpuint (served, <, G_N_ELEMENTS (fds));
  fe_must (fe, fe_grant (fe, 1, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  for (size_t i = 0; i < G_N_ELEMENTS (fds); i++)
    close (fds[i]);
  for (const int64_t deadline = fe_now_ms () + fe_patience_ms ();; g_usleep (5000)) {
    const int fd = control_connect (rig->backend->control_path);
    g_autoptr (JsonNode) line = control_read (fd, fe_patience_ms ());

    close (fd);
    if (line && json_object_has_member (json_node_get_object (line), "domybs"))
      break;
    g_assert_cmpint (fe_now_ms (), <, deadline);
  }
}

static void
flood_of_commands_leaves_room_for_the_guest (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int fd = control_open (rig->backend);
  static const char line[] = "{\"execute\":\"version\"}\n";
  struct rig_waits waits = { 0 };

  for (int i = 0; i < 300; i++) {
    struct fe_answer answer;
    char sink[65536];
    int64_t asked;

    for (int k = 0; k < 20; k++)
      send (fd, line, sizeof line - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
    asked = fe_now_ms ();
    fe_must (fe, fe_stats (fe, NULL, 0, &answer));
    rig_waited (&waits, fe_now_ms () - asked);
    while (recv (fd, sink, sizeof sink, MSG_DONTWAIT) > 0)
      ;
  }
  rig_expect_short_waits (&waits);
  close (fd);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/control/bad-lines-get-errors", bad_lines_get_errors, NULL);
  rig_add ("/control/refused-subscription-changes-nothing", refused_subscription_changes_nothing, NULL);
  rig_add ("/control/subscription-of-many-names", subscription_of_many_names, NULL);
  rig_add ("/control/events-are-never-read", events_are_never_read, NULL);
  rig_add ("/control/target-is-capped", target_is_capped, NULL);
  rig_add ("/control/line-without-an-end", line_without_an_end, NULL);
  rig_add ("/control/deep-nesting", deep_nesting, NULL);
  rig_add ("/control/zero-bytes", zero_bytes, NULL);
  rig_add ("/control/bytes-trickle-one-at-a-time", bytes_trickle_one_at_a_time, NULL);
  rig_add ("/control/half-a-line-then-gone", half_a_line_then_gone, NULL);
  rig_add ("/control/gone-before-the-greeting", gone_before_the_greeting, NULL);
  rig_add ("/control/answers-are-never-read", answers_are_never_read, NULL);
  rig_add ("/control/more-clients-than-places", more_clients_than_places, NULL);
  rig_add ("/control/flood-of-commands-leaves-room-for-the-guest", flood_of_commands_leaves_room_for_the_guest, NULL);
  return rig_run ();
}
