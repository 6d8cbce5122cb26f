/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What arrives late, with the kernel's own TCP: a connection that was given up goes on delivering once its way is whole again.
 * Rules 1, 2 and 6 of backend/donor/leases.md.
 */
#include "cluster.h"
#include "donor.h"
#include "frontend.h"
#include "testing.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define KEYS "host:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define BLOCKS 8u

static const struct borrower_key key = { "host", { 0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                                   16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31 } };

static struct donor *
lend (struct cluster *cluster, unsigned host, unsigned blocks) {
  g_autofree char *one = cluster_address (cluster, host, 0), *two = cluster_address (cluster, host, 1);
  g_autofree char *listen = g_strdup_printf ("--listen=%s", one), *also = g_strdup_printf ("--listen=%s", two);
  const char *const arguments[] = { listen, also, NULL };

  cluster_enter (cluster, host);
  return donor_start (
      &(struct donor_options){ .bytes = (uint64_t)blocks * LEASE_BLOCK_BYTES, .keys = KEYS, .arguments = arguments });
}

/* A borrower on `host`, which is entered; address is the caller's. */
static void
borrow (struct cluster *cluster, unsigned host, struct donor *donor, const char *address, uint64_t level,
        struct borrower *borrower) {
  cluster_enter (cluster, host);
  donor_borrower (donor, (uint8_t)(1 + host), &key, borrower);
  borrower->address = address;
  g_assert_cmpint (borrower_attach (borrower, 2 * BLOCKS), ==, LEASE_OK);
  g_assert_cmpint (borrower_ask (borrower, LEASE_GRANT, level), ==, LEASE_OK);
}

static guint64
stamp_of (struct borrower *borrower, guint64 block) {
  guint64 stamp;

  g_assert_cmpint (borrower_get (borrower, block, &stamp), ==, 0);
  return stamp;
}

/* A write whose answer is not waited for: a page, at the start of a block. */
static void
send_page (struct wire *wire, guint64 block, guint64 stamp) {
  const struct nbd_request request
      = { .command = NBD_CMD_WRITE, .cookie = 1, .offset = block * LEASE_BLOCK_BYTES, .bytes = 4096 };
  guint8 bytes[NBD_REQUEST_BYTES + 4096];

  nbd_request_encode (&request, bytes);
  for (gsize at = 0; at < 4096; at += sizeof stamp)
    memcpy (bytes + NBD_REQUEST_BYTES + at, &stamp, sizeof stamp);
  g_assert_true (wire_write (wire, bytes, sizeof bytes));
}

/* The first page of a block. */
static guint64
page_stamp (struct borrower *borrower, guint64 block) {
  guint64 page[512];

  g_assert_cmpint (wire_request (borrower->pages, NBD_CMD_READ, block * LEASE_BLOCK_BYTES, sizeof page, page), ==, 0);
  return page[0];
}

struct late {
  struct cluster *cluster;
  struct donor *donor;
  struct borrower borrower;
  char *paths[CLUSTER_PATHS];
  struct wire *old; /* given up, with a write of 2 on its way to block 0, which has 1 */
};

/* False: skipped. The borrower has no connection for pages and knows the other path. */
static bool
late_init (struct late *late) {
  memset (late, 0, sizeof *late);
  late->cluster = cluster_new (2);
  if (!late->cluster)
    return false;
  late->donor = lend (late->cluster, 1, BLOCKS);
  for (unsigned path = 0; path < CLUSTER_PATHS; path++)
    late->paths[path] = cluster_address (late->cluster, 1, path);
  borrow (late->cluster, 0, late->donor, late->paths[0], 4, &late->borrower);
  g_assert_cmpint (borrower_put (&late->borrower, 0, 1), ==, 0);
  cluster_cut (late->cluster, 0, 1, 0);
  late->old = late->borrower.pages;
  late->borrower.pages = NULL;
  send_page (late->old, 0, 2);
  wire_close (late->borrower.lease);
  late->borrower.lease = NULL;
  late->borrower.address = late->paths[1];
  return true;
}

static void
late_clear (struct late *late) {
  wire_close (late->old);
  borrower_leave (&late->borrower);
  donor_end (late->donor);
  for (unsigned path = 0; path < CLUSTER_PATHS; path++)
    g_free (late->paths[path]);
  cluster_free (late->cluster);
}

/* The next attachment is a new session, as it must be. */
static void
fenced (void) {
  const int64_t deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;
  struct late late;
  struct pollfd gone;

  if (!late_init (&late))
    return;
  g_assert_cmpint (borrower_attach (&late.borrower, 2 * BLOCKS), ==, LEASE_OK);
  g_assert_cmpint (borrower_put (&late.borrower, 0, 3), ==, 0);
  cluster_heal (late.cluster, 0, 1, 0);
  /* The kernel sends the write again and hears that there is nobody any more */
  gone = (struct pollfd){ .fd = wire_fd (late.old), .events = POLLRDHUP };
  while (!(gone.revents & (POLLHUP | POLLERR))) {
    if (fe_now_ms () > deadline)
      g_error ("the old connection does not end");
    poll (&gone, 1, 100);
    g_usleep (10000);
  }
  g_assert_cmpuint (stamp_of (&late.borrower, 0), ==, 3);
  late_clear (&late);
}

/* The same without: the write that was given up overtakes the one that came after it. (Else the test above would show nothing.)
 */
static void
not_fenced (void) {
  const int64_t deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;
  struct late late;

  if (!late_init (&late))
    return;
  g_assert_true (borrower_open_pages (&late.borrower)); /* of the same epoch */
  g_assert_cmpint (borrower_put (&late.borrower, 0, 3), ==, 0);
  g_assert_cmpuint (page_stamp (&late.borrower, 0), ==, 3);
  cluster_heal (late.cluster, 0, 1, 0);
  while (page_stamp (&late.borrower, 0) == 3) {
    if (fe_now_ms () > deadline)
      g_error ("the late write does not arrive: this test can't show what it should");
    g_usleep (10000);
  }
  g_assert_cmpuint (page_stamp (&late.borrower, 0), ==, 2);
  late_clear (&late);
}

/* A GRANT on a lease connection that was given up arrives when the borrower has already been told what is in force. */
static void
level (void) {
  struct late late;
  struct lease_request request;
  struct lease_answer answer;
  struct wire *old;
  int64_t requests, deadline;

  if (!late_init (&late))
    return;
  /* Attached over the other path, and once more over the first one, whose way back is whole: a connection is made, then cut */
  g_assert_cmpint (borrower_attach (&late.borrower, 2 * BLOCKS), ==, LEASE_OK);
  cluster_heal (late.cluster, 0, 1, 0);
  old = wire_open (late.paths[0], &key);
  g_assert_nonnull (old);
  cluster_cut (late.cluster, 0, 1, 0);
  request = (struct lease_request){ .verb = LEASE_GRANT,
                                    .session = late.borrower.session,
                                    .lease = late.borrower.last.lease,
                                    .epoch = late.borrower.last.epoch,
                                    .seq = 1,
                                    .blocks = 7,
                                    .number = 1000,
                                    .disk = late.borrower.disk };
  memcpy (request.vm, late.borrower.vm, sizeof request.vm);
  memcpy (request.host, late.borrower.host, sizeof request.host);
  memcpy (request.boot, late.borrower.boot, sizeof request.boot);
  memcpy (request.incarnation, late.borrower.last.incarnation, sizeof request.incarnation);
  {
    guint8 bytes[NBD_OPTION_BYTES + LEASE_REQUEST_BYTES];

    nbd_option_encode (NBD_OPT_LEASE, LEASE_REQUEST_BYTES, bytes);
    lease_request_encode (&request, bytes + NBD_OPTION_BYTES);
    g_assert_true (wire_write (old, bytes, sizeof bytes));
  }
  request.verb = LEASE_KEEP; /* with the seq that was made up: what has not come until now, comes too late */
  request.blocks = 0;
  request.number++;
  g_assert_true (wire_lease (late.borrower.lease, &request, &answer));
  g_assert_cmpint (answer.verdict, ==, LEASE_OK);
  g_assert_cmpuint (answer.level, ==, 4);
  requests = donor_status (late.donor, "requests.leases");
  cluster_heal (late.cluster, 0, 1, 0);
  deadline = fe_now_ms () + CLUSTER_PATIENCE_MS;
  while (donor_status (late.donor, "requests.leases") == requests) {
    if (fe_now_ms () > deadline)
      g_error ("the late request does not arrive");
    g_usleep (10000);
  }
  g_assert_cmpint (donor_lease (late.donor, late.borrower.last.lease, "blocks"), ==, 4);
  wire_close (old);
  late_clear (&late);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/cluster/late/fenced", fenced);
  g_test_add_func ("/cluster/late/not-fenced", not_fenced);
  g_test_add_func ("/cluster/late/level", level);
  return g_test_run ();
}
