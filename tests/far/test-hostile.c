/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A hostile front-end: what it sends, puts into rings, requests and the inflight region, and what it does to the memory that it
 * shares. After each attack the worker is the first one still, serves a good front-end, and no page has changed that was not
 * written. Attacks on the session itself, which the memory device shares, are in tests/hostile.
 */
#include "load.h"
#include "testing.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SAFE_PAGES 64u /* at the disk's end: nobody but the check writes there */

static struct far *far;
static uint64_t n_pages;
static unsigned fds_before;

/* ---- the check after each test ---- */

static void
safe_page (uint8_t *page, uint64_t i) {
  for (unsigned k = 0; k < BLK_PAGE; k++)
    page[k] = (uint8_t)(i * 7 + k * 13 + k / 256);
}

/* Others' connections end a moment after the attack. */
static void
check (void) {
  uint8_t page[BLK_PAGE], right[BLK_PAGE];
  struct blk *blk = far_connect (far, 0);

  for (uint64_t i = 0; i < SAFE_PAGES; i++) {
    g_assert_cmpint (blk_io (blk, BLK_IN, n_pages - 1 - i, 1, page), ==, BLK_S_OK);
    safe_page (right, i);
    g_assert_cmpint (memcmp (page, right, BLK_PAGE), ==, 0);
  }
  g_assert_cmpint (blk_io (blk, BLK_OUT, 3, 1, right), ==, BLK_S_OK);
  g_assert_cmpint (blk_io (blk, BLK_IN, 3, 1, page), ==, BLK_S_OK);
  g_assert_cmpint (memcmp (page, right, BLK_PAGE), ==, 0);
  blk_free (blk);
  g_assert_cmpint (far_status_top (far, "worker.starts"), ==, 1);
  g_assert_true (far_wait_status (far, 0, "connected", 0, fe_patience_ms ()));
  g_assert_cmpint (far_status (far, 0, "in-flight"), ==, 0);
  for (int64_t deadline = fe_now_ms () + fe_patience_ms (); backend_fds (far->backend) > fds_before + 1;) {
    if (fe_now_ms () > deadline) {
      g_autofree char *text = backend_fds_text (far->backend);

      g_error ("it holds more descriptors than before:%s", text);
    }
    g_usleep (2000);
  }
}

static void
begin (void) {
  uint8_t page[BLK_PAGE];
  struct blk *blk;

  far = far_start (&(struct far_options){ .bytes = 16ull << 20, .disk_extra = ",queues=2" });
  blk = far_connect (far, 0);
  n_pages = blk->config.capacity / 8;
  for (uint64_t i = 0; i < SAFE_PAGES; i++) {
    safe_page (page, i);
    g_assert_cmpint (blk_io (blk, BLK_OUT, n_pages - 1 - i, 1, page), ==, BLK_S_OK);
  }
  blk_free (blk);
  g_assert_true (far_wait_status (far, 0, "connected", 0, fe_patience_ms ()));
  fds_before = backend_fds (far->backend);
}

/* ---- messages ---- */

static void
random_messages (void) {
  g_autoptr (GRand) random = testing_rand ();

  for (unsigned i = 0; i < testing_steps (300); i++) {
    g_autoptr (blk_t) blk = blk_new ();
    uint8_t payload[512];

    if (!blk_negotiate (blk, far->socket_paths[0]))
      g_error ("%s", blk->fe->why);
    if (testing_once_in (random, 2) && !blk_start_queues (blk))
      g_error ("%s", blk->fe->why);
    for (unsigned k = 0; k < 5 && blk_is_connected (blk); k++) {
      const uint32_t bytes = (uint32_t)testing_below (random, testing_once_in (random, 3) ? sizeof payload : 48);
      const int fds[2] = { blk->fe->ram_fd, blk->queues[0].kick };

      for (unsigned b = 0; b < bytes; b += 8) {
        const uint64_t word = testing_edgy (random);

        memcpy (payload + b, &word, MIN (8, bytes - b));
      }
      fe_send (blk->fe, (uint32_t)testing_below (random, 48), testing_once_in (random, 2) ? FE_FLAG_NEED_REPLY : 0, payload,
               bytes, fds, (unsigned)testing_below (random, 3));
    }
  }
  check ();
}

static void
inflight_messages (void) {
  static const struct blk_inflight_wire wrong[] = {
    { .bytes = 0, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 1, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = UINT64_MAX, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 1ull << 40, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 65536, .offset = 1, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 65536, .offset = UINT64_MAX - 65535, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 65536, .offset = 1ull << 50, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 65536, .n_queues = 0, .queue_size = BLK_QUEUE_SIZE },
    { .bytes = 65536, .n_queues = UINT16_MAX, .queue_size = UINT16_MAX },
    { .bytes = 65536, .n_queues = 2, .queue_size = 0 },
    { .bytes = 65536, .n_queues = 2, .queue_size = 3 },
    { .bytes = 4096, .n_queues = 2, .queue_size = 32768 },
  };

  for (unsigned i = 0; i < G_N_ELEMENTS (wrong); i++)
    for (unsigned set = 0; set < 2; set++) {
      g_autoptr (blk_t) blk = blk_new ();

      if (!blk_negotiate (blk, far->socket_paths[0]) || !blk_get_inflight (blk))
        g_error ("%s", blk->fe->why);
      if (set) {
        blk_set_inflight (blk, &wrong[i], blk->inflight_fd);
        blk_set_inflight (blk, &blk->inflight, blk->queues[0].kick); /* an eventfd is no memory */
      } else {
        fe_send (blk->fe, BLK_GET_INFLIGHT_FD, 0, &wrong[i], sizeof wrong[i], NULL, 0);
      }
      fe_wait_closed (blk->fe, 20);
    }
  check ();
}

/* ---- the inflight region ---- */

/* The region is full of nonsense when a connection begins with it; also with requests that were never made. */
static void
inflight_contents (void) {
  g_autoptr (GRand) random = testing_rand ();

  for (unsigned i = 0; i < testing_steps (200); i++) {
    g_autoptr (blk_t) blk = far_connect (far, 0);
    const size_t bytes = blk->inflight.bytes;
    uint64_t *words = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, blk->inflight_fd, (off_t)blk->inflight.offset);
    uint8_t page[BLK_PAGE] = { 1 };

    g_assert_true (words != MAP_FAILED);
    if (blk_io (blk, BLK_OUT, 1, 1, page) != BLK_S_OK)
      g_error ("%s", blk->fe->why);
    blk_disconnect (blk);
    /* The owner's mark is at the end: with that gone, nothing else would be looked at. */
    for (unsigned k = 0; k < 40; k++)
      words[testing_below (random, testing_once_in (random, 2) ? 4 : (bytes - 64) / 8)] = testing_edgy (random);
    if (testing_once_in (random, 3))
      for (size_t k = 2; k < (bytes - 64) / 8; k += 2)
        words[k] = 1; /* all is in flight */
    munmap (words, bytes);
    if (testing_once_in (random, 4))
      blk->queues[0].used[1] = (uint16_t)g_rand_int (random);
    if (blk_connect (blk, far->socket_paths[0]))
      fe_wait_closed (blk->fe, 5);
  }
  check ();
}

static void
inflight_cut (void) {
  g_autoptr (blk_t) blk = far_connect (far, 0);
  uint8_t page[BLK_PAGE] = { 1 };

  if (ftruncate (blk->inflight_fd, 0) == 0) { /* unless it is sealed */
    blk_io (blk, BLK_OUT, 1, 1, page);
    blk_io (blk, BLK_IN, 1, 1, page);
  }
  blk_disconnect (blk);
  check ();
}

/* A memory of the front-end's own, which it cuts while requests run. */
static void
inflight_of_ours (void) {
  g_autoptr (blk_t) blk = blk_new ();
  const int fd = memfd_create ("inflight", MFD_CLOEXEC);
  const struct blk_inflight_wire wire = { .bytes = 65536, .n_queues = 2, .queue_size = BLK_QUEUE_SIZE };
  uint8_t page[BLK_PAGE] = { 1 };

  g_assert_cmpint (ftruncate (fd, 65536), ==, 0);
  if (blk_negotiate (blk, far->socket_paths[0])) {
    blk->inflight = wire;
    blk->inflight_fd = fd;
    if (blk_start_queues (blk)) {
      g_assert_cmpint (ftruncate (fd, 0), ==, 0);
      blk_io (blk, BLK_OUT, 1, 1, page);
    }
  }
  blk_disconnect (blk);
  check ();
}

/* ---- guest memory ---- */

static void
memory_cut (void) {
  for (unsigned i = 0; i < 8; i++) {
    g_autoptr (blk_t) blk = far_connect (far, 0);
    const struct blk_shape plain = { 0 };

    for (unsigned slot = 0; slot < 32; slot++) {
      blk_prepare (blk, slot, i % 2 ? BLK_IN : BLK_OUT, slot * 8, 8);
      blk_submit (blk, slot, &plain, NULL);
    }
    /* The rings stay, or go as well. */
    g_assert_cmpint (ftruncate (blk->fe->ram_fd, i < 4 ? 0x400000 : 0), ==, 0);
    fe_kick (&blk->queues[0]);
    fe_kick (&blk->queues[1]);
    fe_wait_closed (blk->fe, 50);
    munmap (blk->fe->ram, FE_RAM_BYTES); /* we may not touch it, either */
    blk->fe->ram = mmap (NULL, FE_RAM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  }
  check ();
}

/* ---- rings and requests ---- */

/* Chains of the right shape with wrong numbers in them, and rings with any indexes: each costs its queue at most. */
static void
random_chains (void) {
  g_autoptr (GRand) random = testing_rand ();

  for (unsigned i = 0; i < testing_steps (400); i++) {
    g_autoptr (blk_t) blk = far_connect (far, 0);

    blk->fe->features &= ~FE_F_EVENT_IDX;
    for (unsigned k = 0; k < 8; k++) {
      const struct blk_shape shape = blk_random_shape (random);
      static const enum blk_type types[] = { BLK_IN, BLK_OUT, BLK_T_FLUSH, BLK_T_GET_ID, BLK_T_DISCARD, BLK_T_WRITE_ZEROES };
      const enum blk_type type = types[testing_below (random, G_N_ELEMENTS (types))];
      struct fe_desc *desc;
      struct fe_queue *queue;

      /* Not near the safe pages, as long as nobody changes the header. */
      blk_prepare (blk, k, type, testing_below (random, n_pages / 2), 1 + (unsigned)testing_below (random, 8));
      queue = &blk->queues[blk->slots[k].queue];
      blk_submit (blk, k, &shape, random);
      desc = &queue->desc[blk->slots[k].head];
      if (desc->flags & FE_DESC_INDIRECT && testing_once_in (random, 2))
        desc = (struct fe_desc *)fe_at (blk->fe, desc->addr) + testing_below (random, 3);
      switch (testing_below (random, 8)) {
      case 0:
        desc->addr = testing_edgy (random);
        break;
      case 1:
        desc->len = (uint32_t)testing_edgy (random);
        break;
      case 2:
        desc->flags = (uint16_t)testing_edgy (random);
        break;
      case 3:
        desc->next = (uint16_t)testing_edgy (random);
        break;
      case 4:
        queue->avail[2 + testing_below (random, queue->num)] = (uint16_t)testing_edgy (random);
        break;
      case 5:
        queue->avail[1] = (uint16_t)testing_edgy (random);
        break;
      case 6: { /* the data of a discard */
        struct blk_range_wire *range = fe_at (blk->fe, blk->slots[k].data_gpa);

        if (type == BLK_T_DISCARD || type == BLK_T_WRITE_ZEROES)
          *range = (struct blk_range_wire){ testing_edgy (random) | 1ull << 40, (uint32_t)testing_edgy (random),
                                            (uint32_t)testing_edgy (random) };
        break;
      }
      default:
        break;
      }
      fe_kick (queue);
    }
    fe_wait_closed (blk->fe, (int)testing_below (random, 4));
  }
  check ();
}

/* Requests whose bytes change while they are carried out: no more than the guest's own data may suffer. */
static void
changing_data (void) {
  g_autoptr (GRand) random = testing_rand ();
  g_autoptr (blk_t) blk = far_connect (far, 0);
  const struct blk_shape plain = { 0 };
  uint8_t status;
  unsigned slot;

  for (unsigned i = 0; i < testing_steps (500); i++) {
    for (unsigned k = 0; k < 8; k++) {
      blk_prepare (blk, k, BLK_OUT, k * 32, 32);
      blk_submit (blk, k, &plain, NULL);
    }
    blk_kick (blk, 0);
    blk_kick (blk, 1);
    while (blk->n_in_flight) {
      uint64_t *words = (uint64_t *)(void *)blk_data (blk, (unsigned)testing_below (random, 8));

      for (unsigned k = 0; k < 4096; k++)
        words[k * 4] = k % 3 ? i : 0;
      while (blk_poll (blk, &slot, &status))
        g_assert_cmpint (status, ==, BLK_S_OK);
      if (blk->n_in_flight && testing_once_in (random, 50))
        blk_must (blk, blk_is_connected (blk));
    }
  }
  for (unsigned k = 0; k < 8; k++) /* whatever they are: they can be opened */
    g_assert_cmpint (blk_io (blk, BLK_IN, k * 32, 32, NULL), ==, BLK_S_OK);
  g_assert_cmpint (far_status (far, 0, "damaged-pages"), ==, 0);
  blk_disconnect (blk);
  check ();
}

/* ---- many connections ---- */

static void
flood (void) {
  struct fe *front_ends[64];

  for (unsigned i = 0; i < G_N_ELEMENTS (front_ends); i++) {
    front_ends[i] = fe_new ();
    if (i < 12) /* the rest would wait for the first ones */
      g_assert_true (fe_connect (front_ends[i], far->socket_paths[0]));
  }
  for (unsigned i = 0; i < G_N_ELEMENTS (front_ends); i++)
    fe_free (front_ends[i]);
  check ();
}

/* A queue that is broken, set up and broken again: the host's log does not grow with each. */
static void
log_flood (void) {
  g_autoptr (blk_t) blk = far_connect (far, 0);
  g_autofree char *before = backend_log_from (far->backend, 0), *log = NULL;
  const int64_t began = fe_now_ms ();
  int64_t lines = 0;

  for (unsigned i = 0; i < 300; i++) {
    (void)blk_stop_queues (blk);
    blk->queues[0].avail[1] = (uint16_t)(blk->queues[0].used[1] + 20000); /* more than the queue has */
    blk_must (blk, blk_start_queues (blk));
  }
  (void)blk_stop_queues (blk);
  log = backend_log_from (far->backend, strlen (before));
  for (const char *at = log; (at = strstr (at, "is closed until")); at++)
    lines++;
  g_test_message ("%" G_GINT64_FORMAT " lines", lines);
  g_assert_cmpint (lines, >=, 1);
  g_assert_cmpint (lines, <=, 10 + (fe_now_ms () - began) / 1000 + 1);
  blk_disconnect (blk);
  check ();
}

int
main (int argc, char **argv) {
  int result;

  testing_init (&argc, &argv);
  begin ();
  g_test_add_func ("/far/hostile/random-messages", random_messages);
  g_test_add_func ("/far/hostile/inflight-messages", inflight_messages);
  g_test_add_func ("/far/hostile/inflight-contents", inflight_contents);
  g_test_add_func ("/far/hostile/inflight-cut", inflight_cut);
  g_test_add_func ("/far/hostile/inflight-of-ours", inflight_of_ours);
  g_test_add_func ("/far/hostile/memory-cut", memory_cut);
  g_test_add_func ("/far/hostile/random-chains", random_chains);
  g_test_add_func ("/far/hostile/changing-data", changing_data);
  g_test_add_func ("/far/hostile/flood", flood);
  g_test_add_func ("/far/hostile/log-flood", log_flood);
  result = g_test_run ();
  far_end (far);
  return result;
}
