/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a domybs-far says to the memory device, when it is none, or one that a guest has taken over; and what guests ask of it.
 */
#include "request-bytes.h"

#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVE "{\"execute\":\"far-serve\"}"
#define TIERS "{\"execute\":\"far-tiers\",\"arguments\":{\"tiers\":[{\"tier\":\"shared\",\"blocks\":100}]}}"
#define RESERVED(text) "{\"execute\":\"far-reserved\",\"arguments\":{" text "}}"
#define GOOD_RESERVED RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":1,\"full\":false")

static const char *
class_of (JsonNode *answer) {
  JsonObject *object = json_node_get_object (answer);

  return json_object_has_member (object, "error")
             ? json_object_get_string_member (json_object_get_object_member (object, "error"), "class")
             : "";
}

static void
must (int fd, const char *line) {
  g_autoptr (JsonNode) answer = control_call (fd, line);

  g_assert_cmpstr (class_of (answer), ==, "");
}

static void
refused (int fd, const char *line, const char *class) {
  g_autoptr (JsonNode) answer = control_call (fd, line);

  g_test_message ("%s", line);
  g_assert_cmpstr (class_of (answer), ==, class);
}

/* The next line that is no event. */
static JsonNode *
read_answer (int fd) {
  JsonNode *node;

  while ((node = control_read (fd, fe_patience_ms ())) && json_object_has_member (json_node_get_object (node), "event"))
    json_node_unref (node);
  g_assert_nonnull (node);
  return node;
}

/* Until the server has seen the end of the one before. */
static int
serve (struct rig *rig) {
  for (int64_t deadline = fe_now_ms () + fe_patience_ms ();;) {
    const int fd = control_open (rig->backend);
    g_autoptr (JsonNode) answer = control_call (fd, SERVE);

    if (strcmp (class_of (answer), "") == 0)
      return fd;
    g_assert_cmpstr (class_of (answer), ==, "in-use");
    g_assert_cmpint (fe_now_ms (), <, deadline);
    close (fd);
    g_usleep (2000);
  }
}

static void
out_of_turn (struct rig *rig, const void *data) {
  const int other = control_open (rig->backend);
  int fd = control_open (rig->backend);

  refused (fd, TIERS, "usage");
  refused (fd, GOOD_RESERVED, "usage");
  close (fd);
  fd = serve (rig);
  refused (fd, GOOD_RESERVED, "usage");
  refused (fd, SERVE, "in-use");
  refused (other, SERVE, "in-use");
  refused (other, TIERS, "usage");
  must (fd, TIERS);
  refused (fd, TIERS, "usage");
  refused (other, GOOD_RESERVED, "usage");
  must (fd, GOOD_RESERVED);
  must (other, "{\"execute\":\"status\"}");
  close (fd);
  close (other);
}

/* Who has taken over the process behind this connection can't steer the device with it. */
static void
nothing_else (struct rig *rig, const void *data) {
  static const char *const lines[] = {
    "{\"execute\":\"status\"}",
    "{\"execute\":\"blocks\"}",
    "{\"execute\":\"version\"}",
    "{\"execute\":\"audit\"}",
    "{\"execute\":\"restart\"}",
    "{\"execute\":\"upgrade\"}",
    "{\"execute\":\"set-target\",\"arguments\":{\"blocks\":1}}",
    "{\"execute\":\"reclaim\",\"arguments\":{\"blocks\":1}}",
    "{\"execute\":\"subscribe\",\"arguments\":{\"events\":[\"granted\"]}}",
  };
  const int fd = serve (rig);

  for (size_t i = 0; i < G_N_ELEMENTS (lines); i++)
    refused (fd, lines[i], "usage");
  must (fd, TIERS);
  for (size_t i = 0; i < G_N_ELEMENTS (lines); i++)
    refused (fd, lines[i], "usage");
  g_assert_cmpint (backend_status (rig->backend, "target-blocks"), ==, INT64_MIN);
  close (fd);
}

static void
bad_tiers (struct rig *rig, const void *data) {
  static const char *const arguments[] = {
    "",
    "\"tiers\":null",
    "\"tiers\":1",
    "\"tiers\":{}",
    "\"tiers\":[1]",
    "\"tiers\":[[]]",
    "\"tiers\":[{}]",
    "\"tiers\":[{\"tier\":\"shared\"}]",
    "\"tiers\":[{\"tier\":1,\"blocks\":1}]",
    "\"tiers\":[{\"tier\":\"local\",\"blocks\":1}]",
    "\"tiers\":[{\"tier\":\"\",\"blocks\":1}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":-1}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":1.5}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":\"1\"}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":8388609}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":9223372036854775807}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":1},{\"tier\":\"shared\",\"blocks\":1}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":1},{\"tier\":\"remote\",\"blocks\":1},{\"tier\":\"shared\",\"blocks\":1}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":1,\"level-blocks\":-1}]",
    "\"tiers\":[{\"tier\":\"shared\",\"blocks\":1,\"level-blocks\":null}]",
    "\"tiers\":[],\"more\":1",
  };
  const int fd = serve (rig);

  for (size_t i = 0; i < G_N_ELEMENTS (arguments); i++) {
    g_autofree char *line = g_strdup_printf ("{\"execute\":\"far-tiers\",\"arguments\":{%s}}", arguments[i]);

    refused (fd, line, "usage");
  }
  must (fd, "{\"execute\":\"far-tiers\",\"arguments\":{\"tiers\":[]}}"); /* one that has other disks only */
  refused (fd, GOOD_RESERVED, "usage");
  close (fd);
}

static void
bad_figures (struct rig *rig, const void *data) {
  static const char *const lines[] = {
    RESERVED (""),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":1"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"full\":false"),
    RESERVED ("\"tier\":\"shared\",\"in-use-blocks\":1,\"full\":false"),
    RESERVED ("\"blocks\":5,\"in-use-blocks\":1,\"full\":false"),
    RESERVED ("\"tier\":\"remote\",\"blocks\":5,\"in-use-blocks\":1,\"full\":false"), /* was not said to be there */
    RESERVED ("\"tier\":\"shared\",\"blocks\":-5,\"in-use-blocks\":1,\"full\":false"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":-1,\"full\":false"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":8388609,\"in-use-blocks\":1,\"full\":false"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":1,\"full\":0"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":1,\"full\":null"),
    RESERVED ("\"tier\":\"shared\",\"blocks\":5,\"in-use-blocks\":1,\"full\":false,\"more\":1"),
  };
  const int fd = serve (rig);

  must (fd, TIERS);
  for (size_t i = 0; i < G_N_ELEMENTS (lines); i++)
    refused (fd, lines[i], "usage");
  must (fd, GOOD_RESERVED);
  close (fd);
}

/* More than there is, more than was asked for: the guest is told no more than it asked for, and its own memory is as it was. */
static void
liar (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int fd = serve (rig);
  struct fe_answer answer;

  must (fd, TIERS);
  must (fd, RESERVED ("\"tier\":\"shared\",\"blocks\":8388608,\"in-use-blocks\":8388608,\"full\":true"));
  fe_must (fe, fe_reserve (fe, DOMYBS_HINT_SHARED, 7, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_OK);
  g_assert_cmpuint (answer.blocks, ==, 7);
  fe_must (fe, fe_reserve (fe, DOMYBS_HINT_REMOTE, 7, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_TIER);
  fe_must (fe, fe_grant (fe, 3, DOMYBS_HINT_SHARED, 0, 0, 0, &answer)); /* the window's blocks are no far memory */
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_TIER);
  close (fd);
}

/* Full, and not, and full again: one OFFER for each answer that was a no at the most. */
static void
flood_of_figures (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int fd = serve (rig);
  struct domybs_event event;
  struct fe_answer answer;

  fe_post_events (fe, 4);
  must (fd, TIERS);
  must (fd, RESERVED ("\"tier\":\"shared\",\"blocks\":1,\"in-use-blocks\":1,\"full\":true"));
  fe_must (fe, fe_reserve (fe, DOMYBS_HINT_SHARED, 7, &answer));
  g_assert_cmpuint (answer.status, ==, DOMYBS_NO_HOST_CAPACITY);
  g_assert_cmpuint (answer.blocks, ==, 1);
  for (unsigned i = 0; i < 500; i++) {
    const char *line = i % 2 ? RESERVED ("\"tier\":\"shared\",\"blocks\":1,\"in-use-blocks\":1,\"full\":true")
                             : RESERVED ("\"tier\":\"shared\",\"blocks\":1,\"in-use-blocks\":1,\"full\":false");
    g_autofree char *sent = g_strconcat (line, "\n", NULL);
    g_autoptr (JsonNode) node = NULL;

    g_assert_cmpint (send (fd, sent, strlen (sent), MSG_NOSIGNAL), ==, (ssize_t)strlen (sent));
    node = read_answer (fd);
    g_assert_cmpstr (class_of (node), ==, "");
  }
  fe_must (fe, fe_wait_event (fe, DOMYBS_EVENT_OFFER, &event, fe_patience_ms ()));
  g_assert_false (fe_wait_event (fe, DOMYBS_EVENT_OFFER, &event, 300));
  g_clear_pointer (&fe->why, g_free);
  close (fd);
}

/* It never reads what the guest wants: it is dropped, and the guest is told "not now". */
static void
never_reads (struct rig *rig, const void *data) {
  g_autoptr (fe_t) fe = rig_open (rig);
  const int fd = serve (rig);
  struct fe_answer answer = { .status = DOMYBS_OK };
  const int64_t deadline = fe_now_ms () + 20 * fe_patience_ms ();

  must (fd, TIERS);
  /* Its answers fill up what the kernel has room for; levels are told at most every 50 ms. */
  for (unsigned i = 0; send (fd, GOOD_RESERVED "\n", sizeof GOOD_RESERVED, MSG_NOSIGNAL | MSG_DONTWAIT) != -1 && i < 1000000;)
    i++;
  for (unsigned i = 0; answer.status == DOMYBS_OK && fe_now_ms () < deadline; i++) {
    send (fd, GOOD_RESERVED "\n", sizeof GOOD_RESERVED, MSG_NOSIGNAL | MSG_DONTWAIT);
    fe_must (fe, fe_reserve (fe, DOMYBS_HINT_SHARED, 1 + i % 50, &answer));
  }
  g_assert_cmpuint (answer.status, ==, DOMYBS_BUSY);
  close (fd);
}

/* ---- the guest ---- */

static void
put_reserve (struct bytes *bytes, struct fe *fe, uint32_t tier, uint32_t flags, uint64_t blocks) {
  put_header (bytes, DOMYBS_REQ_RESERVE, 0, 1, fe->session, 1);
  put (bytes, tier, 4);
  put (bytes, flags, 4);
  put (bytes, blocks, 8);
}

static void
requests_with_nonsense (struct rig *rig, const void *data) {
  static const struct {
    uint32_t tier, flags;
    uint64_t blocks;
  } cases[] = {
    { 0, 0, 1 },
    { 1, 0, 1 },
    { 4, 0, 1 },
    { UINT32_MAX, 0, 1 },
    { 2, 1, 1 },
    { 3, 1u << 31, 1 },
    { 2, 0, (1ull << 23) + 1 },
    { 3, 0, UINT64_MAX },
    { 2, 0, 1ull << 63 },
    { 258, 0, 1 },
  };
  g_autoptr (fe_t) fe = rig_open (rig);
  struct bytes bytes;

  for (size_t i = 0; i < G_N_ELEMENTS (cases); i++) {
    put_reserve (&bytes, fe, cases[i].tier, cases[i].flags, cases[i].blocks);
    expect_status (fe, &bytes, DOMYBS_BAD_REQUEST);
  }
  put_reserve (&bytes, fe, 2, 0, 1ull << 23);
  expect_status (fe, &bytes, DOMYBS_BUSY); /* as much as can be asked for; but there is nobody */
  rig_expect_logged (rig, "RESERVE refused");
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  rig_add ("/far-link/out-of-turn", out_of_turn, NULL);
  rig_add ("/far-link/nothing-else", nothing_else, NULL);
  rig_add ("/far-link/bad-tiers", bad_tiers, NULL);
  rig_add ("/far-link/bad-figures", bad_figures, NULL);
  rig_add ("/far-link/liar", liar, NULL);
  rig_add ("/far-link/flood-of-figures", flood_of_figures, NULL);
  rig_add ("/far-link/never-reads", never_reads, NULL);
  rig_add ("/far-link/requests-with-nonsense", requests_with_nonsense, NULL);
  return rig_run ();
}
