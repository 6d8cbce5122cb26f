/* SPDX-License-Identifier: GPL-2.0-or-later */
/* domybs-donor as a program: command lines, leases over real connections, plain and TLS, workers that die, are restarted and
 * upgraded, the keeper's end, fences, keys, the operator. */
#include "donor.h"
#include "frontend.h"
#include "testing.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define EXPORT_BLOCKS 64u
#define KEY_A "host-a:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n"
#define KEY_B "host-b:ff112233445566778899aabbccddeeff00112233445566778899aabbccddee00\n"

static const struct borrower_key key_a
    = { "host-a", { 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
                    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff } };
static const struct borrower_key key_b
    = { "host-b", { 0xff, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff,
                    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0x00 } };

/* ---- command lines ---- */

static void
expect_refused (const char *const *arguments, int status, const char *words) {
  struct donor *donor = donor_start_arguments (arguments);
  g_autofree char *log = NULL;

  if (!backend_wait_end (donor->backend, fe_patience_ms ()))
    g_error ("it runs");
  log = backend_log_from (donor->backend, 0);
  if (WEXITSTATUS (donor->backend->wait_status) != status || !strstr (log, words))
    g_error ("%s, log: %s; expected exit %d and '%s'", backend_end_text (donor->backend), log, status, words);
  donor_end (donor);
}

static void
command_lines (void) {
#define SIZE "--size=4M"
#define LISTEN "--listen=127.0.0.1:0"
#define PLAIN "--no-tls"
  static const struct {
    const char *arguments[6];
    const char *words;
  } wrong[] = {
    { { NULL }, "--size is missing" },
    { { SIZE, NULL }, "--listen is missing" },
    { { SIZE, LISTEN, NULL }, "--psk is missing" },
    { { SIZE, LISTEN, PLAIN, "--psk=/x", NULL }, "can't be used together" },
    { { "--size=3M", LISTEN, PLAIN, NULL }, "not a multiple of 2M" },
    { { "--size=0", LISTEN, PLAIN, NULL }, "not a multiple of 2M" },
    { { "--size=x", LISTEN, PLAIN, NULL }, "is not a size" },
    { { "--size=256T", LISTEN, PLAIN, NULL }, "to 128T" },
    { { SIZE, "--listen=nowhere", PLAIN, NULL }, "--listen: " },
    { { SIZE, "--listen=1.2.3.4:70000", PLAIN, NULL }, "--listen: " },
    { { SIZE, LISTEN, PLAIN, "--leases=0", NULL }, "from 1 to" },
    { { SIZE, LISTEN, PLAIN, "--ttl=-1", NULL }, "from 0 to" },
    { { SIZE, LISTEN, PLAIN, "--revoke-time=0", NULL }, "from 1 to" },
    { { SIZE, LISTEN, PLAIN, "--identity-size=1M", NULL }, "not a multiple of 2M" },
    { { SIZE, LISTEN, PLAIN, "--name=a\nb", NULL }, "printable text" },
    { { SIZE, LISTEN, PLAIN, "more", NULL }, "unknown argument 'more'" },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++)
    expect_refused (wrong[i].arguments, 2, wrong[i].words);
  expect_refused ((const char *const[]){ SIZE, LISTEN, "--psk=/nowhere/keys", NULL }, 1, "/nowhere/keys");
  expect_refused ((const char *const[]){ SIZE, "--listen=unix:/nowhere/sock", PLAIN, NULL }, 1, "/nowhere/sock");
}

/* Keys that others can read, and what is no file of keys, are no keys. */
static void
bad_keys (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-donor-XXXXXX", NULL), *path = g_build_filename (directory, "keys", NULL),
                  *psk = g_strdup_printf ("--psk=%s", path);

  g_assert_true (g_file_set_contents_full (path, KEY_A, -1, G_FILE_SET_CONTENTS_NONE, 0644, NULL));
  expect_refused ((const char *const[]){ SIZE, LISTEN, psk, NULL }, 1, "chmod 600");
  g_assert_true (g_file_set_contents_full (path, "host-a 0011\n", -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  g_assert_cmpint (g_chmod (path, 0600), ==, 0);
  expect_refused ((const char *const[]){ SIZE, LISTEN, psk, NULL }, 1, path);
  g_unlink (path);
  expect_refused ((const char *const[]){ SIZE, LISTEN, psk, NULL }, 1, "No such file");
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* ---- leases ---- */

static void
begin (struct donor *donor, uint8_t vm, const struct borrower_key *key, uint64_t level, struct borrower *borrower) {
  donor_borrower (donor, vm, key, borrower);
  g_assert_cmpint (borrower_attach (borrower, EXPORT_BLOCKS), ==, LEASE_OK);
  g_assert_cmpint (borrower_ask (borrower, LEASE_GRANT, level), ==, LEASE_OK);
}

static void
expect (struct borrower *borrower, guint64 block, guint64 stamp) {
  guint64 got = G_MAXUINT64;

  g_assert_cmpint (borrower_get (borrower, block, &got), ==, 0);
  g_assert_cmpuint (got, ==, stamp);
}

static void
lends (void) {
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ 0 });
  struct borrower one, two;

  begin (donor, 1, NULL, 4, &one);
  begin (donor, 2, NULL, 28, &two);
  g_assert_cmpuint (one.last.lease, !=, two.last.lease);
  for (guint64 block = 0; block < 4; block++)
    g_assert_cmpint (borrower_put (&one, 10 + block, 100 + block), ==, 0);
  g_assert_cmpint (borrower_put (&one, 20, 1), ==, NBD_ENOSPC);
  g_assert_cmpint (borrower_put (&two, 10, 200), ==, 0);
  expect (&one, 10, 100);
  expect (&two, 10, 200);
  expect (&one, 20, 0);
  g_assert_cmpint (donor_status (donor, "promised-blocks"), ==, 32);
  g_assert_cmpint (donor_status (donor, "used-blocks"), ==, 5);
  g_assert_cmpint (donor_status (donor, "memory-bytes"), ==, 5ll * LEASE_BLOCK_BYTES);
  g_assert_cmpint (donor_lease (donor, one.last.lease, "used-blocks"), ==, 4);
  g_assert_cmpint (donor_lease (donor, one.last.lease, "connections"), ==, 1);
  g_assert_cmpint (borrower_trim (&one, 11), ==, 0);
  g_assert_cmpint (borrower_put (&one, 20, 120), ==, 0);
  expect (&one, 11, 0);
  expect (&one, 20, 120);
  g_assert_cmpint (borrower_ask (&one, LEASE_END, 0), ==, LEASE_OK);
  g_assert_cmpint (borrower_get (&one, 10, &(guint64){ 0 }), ==, -1); /* its connection was closed */
  g_assert_true (donor_wait_status (donor, "memory-bytes", LEASE_BLOCK_BYTES));
  g_assert_true (donor_wait_status (donor, "free-blocks", 31));
  expect (&two, 10, 200);
  borrower_leave (&one);
  borrower_leave (&two);
}

/* What a dead worker had is the next one's; leases, levels and epochs too. */
static void
worker_dies (void) {
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ 0 });
  struct borrower borrower;
  struct lease_answer before;

  begin (donor, 1, NULL, 8, &borrower);
  for (guint64 block = 0; block < 8; block++)
    g_assert_cmpint (borrower_put (&borrower, block, 1 + block), ==, 0);
  before = borrower.last;
  for (unsigned i = 0; i < 3; i++) {
    donor_kill_worker (donor);
    g_assert_cmpint (borrower_ask (&borrower, LEASE_KEEP, 0), ==, LEASE_OK); /* on a new connection */
    g_assert_cmpuint (borrower.last.lease, ==, before.lease);
    g_assert_cmpuint (borrower.last.level, ==, 8);
    g_assert_cmpuint (borrower.last.used, ==, 8);
    g_assert_true (borrower_open_pages (&borrower)); /* of the same epoch */
    for (guint64 block = 0; block < 8; block++)
      expect (&borrower, block, 1 + block);
    expect (&borrower, 9, 0);
  }
  g_assert_cmpint (donor_status (donor, "worker.deaths"), ==, 3);
  g_assert_cmpint (borrower_attach (&borrower, EXPORT_BLOCKS), ==, LEASE_OK);
  g_assert_cmpuint (borrower.last.epoch, >, before.epoch);
  expect (&borrower, 7, 8);
  borrower_leave (&borrower);
}

static void
command (struct donor *donor, const char *name) {
  g_autofree char *line = g_strdup_printf ("{\"execute\":\"%s\"}", name);
  const int64_t starts = donor_status (donor, "worker.starts"), deadline = fe_now_ms () + fe_patience_ms ();
  JsonNode *answer = backend_control_once (donor->backend, line);

  g_assert_null (answer); /* the answer to success is the end of the connection */
  while (donor_status (donor, "worker.starts") == starts) {
    g_assert_cmpint (fe_now_ms (), <, deadline);
    g_usleep (2000);
  }
}

static void
copy (const char *from, const char *to) {
  g_autofree char *text = NULL, *beside = g_strconcat (to, ".new", NULL);
  gsize n;

  g_assert_true (g_file_get_contents (from, &text, &n, NULL));
  g_assert_true (g_file_set_contents (beside, text, (gssize)n, NULL));
  g_assert_cmpint (g_chmod (beside, 0755), ==, 0);
  g_assert_cmpint (g_rename (beside, to), ==, 0);
}

static void
check_contents (struct borrower *borrower) {
  g_assert_cmpint (borrower_ask (borrower, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_true (borrower_open_pages (borrower));
  expect (borrower, 3, 33);
}

static void
upgrades (void) {
  g_autofree char *directory = g_dir_make_tmp ("domybs-donor-XXXXXX", NULL),
                  *program = g_build_filename (directory, "domybs-donor", NULL);
  struct borrower borrower;
  struct donor *donor;

  copy (g_getenv ("DOMYBS_DONOR"), program);
  donor = donor_start (&(struct donor_options){ .program = program });
  begin (donor, 1, NULL, 8, &borrower);
  g_assert_cmpint (borrower_put (&borrower, 3, 33), ==, 0);
  command (donor, "restart");
  check_contents (&borrower);
  copy (g_getenv ("DOMYBS_DONOR"), program);
  command (donor, "upgrade");
  check_contents (&borrower);
  g_assert_cmpint (donor_status (donor, "worker.deaths"), ==, 0);
  /* One that says it can't, and one that just dies: the program before goes on. */
  for (unsigned i = 0; i < 2; i++) {
    copy (g_getenv (i ? "DOMYBS_FAR_DIES" : "DOMYBS_FAR_CANT"), program);
    command (donor, "upgrade");
    check_contents (&borrower);
    g_assert_cmpint (donor_status (donor, "worker.deaths"), >, i);
    g_assert_cmpint (donor_status (donor, "worker.rolled-back"), ==, 1);
    g_assert_true (backend_wait_log (donor->backend, 0, "back to the program before the upgrade", fe_patience_ms ()));
  }
  borrower_leave (&borrower);
  donor_end (donor);
  g_unlink (program);
  g_assert_cmpint (g_rmdir (directory), ==, 0);
}

/* Another keeper is another arena: what was in the old one is gone for certain, and nothing of it can be reached by its old
 * names. */
static void
another_arena (void) {
  struct donor *donor = donor_start (&(struct donor_options){ 0 });
  struct borrower borrower;

  begin (donor, 1, NULL, 8, &borrower);
  g_assert_cmpint (borrower_put (&borrower, 3, 33), ==, 0);
  backend_kill (donor->backend);
  g_assert_cmpint (borrower_get (&borrower, 3, &(guint64){ 0 }), ==, -1);
  donor_end (donor);
  donor = donor_start (&(struct donor_options){ 0 });
  borrower_leave (&borrower);
  borrower.address = donor->address;
  g_assert_cmpint (borrower_ask (&borrower, LEASE_KEEP, 0), ==, LEASE_OTHER_INCARNATION);
  g_assert_false (borrower_open_pages (&borrower));
  borrower.session++;
  g_assert_cmpint (borrower_ask (&borrower, LEASE_ATTACH, EXPORT_BLOCKS), ==, LEASE_OTHER_INCARNATION);
  borrower.last = (struct lease_answer){ 0 };
  g_assert_cmpint (borrower_attach (&borrower, EXPORT_BLOCKS), ==, LEASE_OK);
  expect (&borrower, 3, 0);
  borrower_leave (&borrower);
  donor_end (donor);
}

/* A write of which a half has come when the next session attaches: whatever of it is there, is there before the answer. The
 * other half changes nothing. */
static void
fence (void) {
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ 0 });
  g_autofree guint8 *half = g_malloc (LEASE_BLOCK_BYTES / 2), *now = g_malloc (LEASE_BLOCK_BYTES),
                    *later = g_malloc (LEASE_BLOCK_BYTES);
  struct borrower borrower;
  struct wire *old;

  begin (donor, 1, NULL, 8, &borrower);
  g_assert_cmpint (borrower_put (&borrower, 5, 1), ==, 0);
  for (unsigned round = 0; round < 8; round++) {
    const struct nbd_request request
        = { .command = NBD_CMD_WRITE, .cookie = 1, .offset = 5ull * LEASE_BLOCK_BYTES, .bytes = LEASE_BLOCK_BYTES };
    guint8 head[NBD_REQUEST_BYTES];

    nbd_request_encode (&request, head);
    memset (half, 0x80 + (int)round, LEASE_BLOCK_BYTES / 2);
    old = g_steal_pointer (&borrower.pages);
    g_assert_true (wire_write (old, head, sizeof head));
    g_assert_true (wire_write (old, half, LEASE_BLOCK_BYTES / 2));
    g_assert_cmpint (borrower_attach (&borrower, EXPORT_BLOCKS), ==, LEASE_OK);
    g_assert_cmpint (wire_request (borrower.pages, NBD_CMD_READ, 5ull * LEASE_BLOCK_BYTES, LEASE_BLOCK_BYTES, now), ==, 0);
    memset (half, 0x40, LEASE_BLOCK_BYTES / 2);
    if (wire_write (old, half, LEASE_BLOCK_BYTES / 2)) /* into a closed connection: may seem to go well */
      g_assert_false (wire_read (old, head, 1));
    g_assert_cmpint (donor_lease (donor, borrower.last.lease, "connections"), ==, 1);
    g_assert_cmpint (wire_request (borrower.pages, NBD_CMD_READ, 5ull * LEASE_BLOCK_BYTES, LEASE_BLOCK_BYTES, later), ==, 0);
    g_assert_cmpmem (now, LEASE_BLOCK_BYTES, later, LEASE_BLOCK_BYTES);
    wire_close (old);
  }
  borrower_leave (&borrower);
}

/* ---- keys ---- */

static void
keys (void) {
  g_autoptr (donor_t) donor = donor_start (
      &(struct donor_options){ .keys = KEY_A, .arguments = (const char *const[]){ "--identity-size=16M", NULL } });
  struct borrower_key wrong = key_a;
  struct borrower one, two;
  char name[LEASE_EXPORT_NAME_BYTES];
  struct wire *wire;
  guint64 bytes;

  g_assert_cmpint (donor_status (donor, "identities"), ==, 1);
  begin (donor, 1, &key_a, 8, &one);
  g_assert_cmpint (borrower_ask (&one, LEASE_GRANT, 9), ==, LEASE_NO_ROOM); /* --identity-size */
  g_assert_cmpint (borrower_put (&one, 3, 33), ==, 0);
  expect (&one, 3, 33);
  wrong.key[5] ^= 1;
  g_assert_null (wire_open (donor->address, &wrong));
  g_assert_null (wire_open (donor->address, &key_b));
  /* without TLS: nothing is said about leases or exports */
  wire = wire_open (donor->address, NULL);
  g_assert_nonnull (wire);
  lease_export_name (one.last.lease, one.last.epoch, one.last.incarnation, name);
  g_assert_cmphex ((guint64)wire_go (wire, name, &bytes), ==, NBD_REP_ERR_TLS_REQD);
  wire_close (wire);

  /* a key more, for the next worker; who had one goes on */
  g_assert_true (g_file_set_contents_full (donor->psk_path, KEY_A KEY_B, -1, G_FILE_SET_CONTENTS_CONSISTENT, 0600, NULL));
  g_assert_null (wire_open (donor->address, &key_b));
  command (donor, "restart");
  g_assert_cmpint (donor_status (donor, "identities"), ==, 2);
  begin (donor, 2, &key_b, 8, &two);
  /* that is not its own */
  {
    struct borrower thief = two;

    thief.last = one.last;
    thief.lease = thief.pages = NULL;
    g_assert_cmpint (borrower_ask (&thief, LEASE_KEEP, 0), ==, LEASE_NOT_YOURS);
    g_assert_cmpint (borrower_ask (&thief, LEASE_END, 0), ==, LEASE_NOT_YOURS);
    g_assert_false (borrower_open_pages (&thief));
    borrower_leave (&thief);
  }
  g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_true (borrower_open_pages (&one));
  expect (&one, 3, 33);
  expect (&two, 3, 0);
  borrower_leave (&one);
  borrower_leave (&two);
}

/* ---- the operator ---- */

static void
operator(void) {
  g_autoptr (donor_t) donor
      = donor_start (&(struct donor_options){ .arguments = (const char *const[]){ "--revoke-time=1", NULL } });
  g_autofree char *state = NULL;
  struct borrower one, two;

  begin (donor, 1, NULL, 16, &one);
  begin (donor, 2, NULL, 8, &two);
  g_assert_cmpint (borrower_put (&one, 0, 7), ==, 0);
  state = donor_lease_text (donor, one.last.lease, "state");
  g_assert_cmpstr (state, ==, "attached");

  g_assert_true (donor_order (
      donor, "{\"execute\":\"revoke\",\"arguments\":{\"lease\":\"%" G_GINT64_MODIFIER "x\",\"blocks\":3}}", one.last.lease));
  g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_cmpuint (one.last.revoke, !=, 0);
  g_assert_cmpuint (one.last.revoke_level, ==, 3);
  /* overdue: it is shown, and nothing is taken */
  while (donor_lease (donor, one.last.lease, "revoke.overdue") != 1)
    g_usleep (5000);
  g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_cmpuint (one.last.revoke_left_ms, ==, 0);
  g_assert_cmpuint (one.last.level, ==, 16);
  expect (&one, 0, 7);
  g_assert_cmpint (borrower_ask (&one, LEASE_RELEASE, 3), ==, LEASE_OK);
  g_assert_cmpint (donor_lease (donor, one.last.lease, "revoke.blocks"), ==, INT64_MIN);

  /* the size, and that it outlives the worker */
  g_assert_false (donor_order (donor, "{\"execute\":\"size\",\"arguments\":{\"blocks\":33}}"));
  g_assert_true (donor_order (donor, "{\"execute\":\"size\",\"arguments\":{\"blocks\":4}}"));
  donor_kill_worker (donor);
  g_assert_cmpint (donor_status (donor, "max-blocks"), ==, 4);
  g_assert_cmpint (borrower_ask (&two, LEASE_KEEP, 0), ==, LEASE_OK);
  g_assert_cmpuint (two.last.revoke_level, <=, 3);
  g_assert_cmpint (borrower_ask (&two, LEASE_GRANT, 9), ==, LEASE_NO_ROOM);

  g_assert_true (
      donor_order (donor, "{\"execute\":\"forget\",\"arguments\":{\"lease\":\"%016" G_GINT64_MODIFIER "x\"}}", one.last.lease));
  g_assert_false (
      donor_order (donor, "{\"execute\":\"forget\",\"arguments\":{\"lease\":\"%016" G_GINT64_MODIFIER "x\"}}", one.last.lease));
  g_assert_cmpint (borrower_ask (&one, LEASE_KEEP, 0), ==, LEASE_UNKNOWN);
  g_assert_false (donor_order (donor, "{\"execute\":\"forget\",\"arguments\":{\"lease\":\"0\"}}"));
  g_assert_false (donor_order (donor, "{\"execute\":\"revoke\",\"arguments\":{\"lease\":\"zz\",\"blocks\":1}}"));
  g_assert_false (donor_order (donor, "{\"execute\":\"revoke\",\"arguments\":{\"lease\":\"1\",\"blocks\":-1}}"));
  g_assert_false (donor_order (donor, "{\"execute\":\"leases\",\"arguments\":{\"from\":\"x\"}}"));
  g_assert_false (donor_order (donor, "{\"execute\":\"status\",\"arguments\":{\"more\":1}}"));
  g_assert_false (donor_order (donor, "{\"execute\":\"nothing\"}"));
  borrower_leave (&one);
  borrower_leave (&two);
}

/* A page of `leases` has 64 of them; all are found by going on. */
static void
many (void) {
  g_autoptr (donor_t) donor
      = donor_start (&(struct donor_options){ .arguments = (const char *const[]){ "--leases=150", NULL } });
  int64_t from = 0;
  guint n = 0;

  for (unsigned i = 0; i < 151; i++) {
    struct borrower borrower;

    donor_borrower (donor, (uint8_t)(i + 1), NULL, &borrower);
    borrower.disk = i;
    borrower.session = 1;
    g_assert_cmpint (borrower_ask (&borrower, LEASE_ATTACH, 1), ==, i < 150 ? LEASE_OK : LEASE_LIMIT);
    borrower_leave (&borrower);
  }
  while (from >= 0) {
    g_autofree char *line = g_strdup_printf ("{\"execute\":\"leases\",\"arguments\":{\"from\":%" G_GINT64_FORMAT "}}", from);
    g_autoptr (JsonNode) answer = backend_control_again (donor->backend, line);
    JsonObject *page = json_object_get_object_member (json_node_get_object (answer), "return");

    n += json_array_get_length (json_object_get_array_member (page, "leases"));
    from = json_object_get_null_member (page, "next") ? -1 : json_object_get_int_member (page, "next");
  }
  g_assert_cmpuint (n, ==, 150);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  signal (SIGPIPE, SIG_IGN);
  g_test_add_func ("/donor/command-lines", command_lines);
  g_test_add_func ("/donor/bad-keys", bad_keys);
  g_test_add_func ("/donor/lends", lends);
  g_test_add_func ("/donor/worker-dies", worker_dies);
  g_test_add_func ("/donor/upgrades", upgrades);
  g_test_add_func ("/donor/another-arena", another_arena);
  g_test_add_func ("/donor/fence", fence);
  g_test_add_func ("/donor/keys", keys);
  g_test_add_func ("/donor/operator", operator);
  g_test_add_func ("/donor/many", many);
  return g_test_run ();
}
