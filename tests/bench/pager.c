/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "pager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NOWHERE UINT32_MAX
#define CLUSTER 512u /* pages: 2 MiB, Linux's unit of discard on such a disk */
#define BATCH 32u    /* pages moved out at a time, as Linux does */
#define LOW 64u      /* free frames: with fewer, pages are moved out while a read is waited for */
#define WRITES_MAX 8u
#define DISCARDS_MAX 4u
#define LOCAL_MIN 256u
#define READ_SLOT 0u /* for reads only: what was read stays there until it is mapped */

G_STATIC_ASSERT (1 + WRITES_MAX + DISCARDS_MAX <= BLK_SLOTS);

/* A request in flight. */
struct op {
  enum blk_type type;
  uint32_t first, n;              /* places */
  uint32_t pages[BLK_SLOT_PAGES]; /* of a write */
  bool done;
};

struct private_pager {
  struct pager public;
  struct blk *blk;
  int uffd, self;                         /* self: this process, as a pidfd */
  uint32_t n_local, n_present, n_writing; /* pages */
  uint32_t hand;
  uint32_t *places;       /* page → where it is on the disk; NOWHERE: it was never written */
  uint32_t *writes;       /* page → slot × BLK_SLOT_PAGES + index, while PAGER_WRITING */
  uint8_t *used;          /* of each place */
  uint16_t *cluster_used; /* of each cluster: places; CLUSTER + 1: it is being discarded */
  uint32_t n_clusters, cursor;
  unsigned writes_in_flight, discards_in_flight;
  struct op ops[BLK_SLOTS];
};

static struct private_pager *the_pager; /* the signal handler's */
static const struct blk_shape shape = { .indirect = true };

/* ---- requests ---- */

static void
submit (struct private_pager *pager, unsigned slot) {
  struct op *op = &pager->ops[slot];

  op->done = false;
  blk_submit (pager->blk, slot, &shape, NULL);
}

static unsigned
prepare (struct private_pager *pager, enum blk_type type, uint32_t first, uint32_t n) {
  unsigned slot = READ_SLOT;

  if (type != BLK_IN)
    do
      slot++; /* WRITES_MAX and DISCARDS_MAX leave some */
    while (pager->blk->slots[slot].in_flight);
  blk_prepare (pager->blk, slot, type, first, n);
  pager->ops[slot].type = type;
  pager->ops[slot].first = first;
  pager->ops[slot].n = n;
  return slot;
}

/* An answer that comes soon, as KVM waits for an interrupt of a processor that idles. */
static bool
poll_one (struct private_pager *pager, unsigned *ret_slot, uint8_t *ret_status) {
  const int64_t end = pager->public.poll_us ? g_get_monotonic_time () + pager->public.poll_us : 0;

  while (end && g_get_monotonic_time () < end)
    if (blk_poll (pager->blk, ret_slot, ret_status))
      return true;
  return false;
}

static void
complete_one (struct private_pager *pager) {
  struct op *op;
  unsigned slot;
  uint8_t status = BLK_S_OK;

  if ((!poll_one (pager, &slot, &status) && !blk_wait (pager->blk, &slot, &status, fe_patience_ms ())) || status != BLK_S_OK)
    g_error ("a request of the pager failed: status %u (%s)", status, pager->blk->fe->why ? pager->blk->fe->why : "?");
  op = &pager->ops[slot];
  op->done = true;
  if (op->type == BLK_OUT) {
    for (uint32_t i = 0; i < op->n; i++)
      pager->public.flags[op->pages[i]] &= (uint8_t)~PAGER_WRITING;
    pager->n_writing -= op->n;
    pager->writes_in_flight--;
  } else if (op->type == BLK_T_DISCARD) {
    pager->cluster_used[op->first / CLUSTER] = 0;
    pager->discards_in_flight--;
  }
}

/* ---- places ---- */

static void
free_place (struct private_pager *pager, uint32_t place) {
  const uint32_t cluster = place / CLUSTER;

  pager->used[place] = 0;
  if (--pager->cluster_used[cluster] > 0 || cluster == pager->cursor / CLUSTER)
    return;
  while (pager->discards_in_flight >= DISCARDS_MAX)
    complete_one (pager);
  pager->cluster_used[cluster] = CLUSTER + 1;
  pager->discards_in_flight++;
  submit (pager, prepare (pager, BLK_T_DISCARD, cluster * CLUSTER, CLUSTER));
}

/* Whole free clusters first, then holes. */
static void
next_cluster (struct private_pager *pager) {
  const uint32_t now = pager->cursor / CLUSTER;

  for (uint16_t most = 0;; most = CLUSTER - 1) {
    for (uint32_t i = 1; i <= pager->n_clusters; i++) {
      const uint32_t cluster = (now + i) % pager->n_clusters;

      if (pager->cluster_used[cluster] <= most) {
        pager->cursor = cluster * CLUSTER;
        return;
      }
    }
    g_assert_cmpuint (most, ==, 0); /* the disk is twice as large as the memory */
  }
}

static uint32_t
take_place (struct private_pager *pager) {
  for (;;) {
    const uint32_t place = pager->cursor;

    if (pager->cluster_used[place / CLUSTER] >= CLUSTER || place % CLUSTER == CLUSTER - 1)
      next_cluster (pager);
    else
      pager->cursor++;
    if (!pager->used[place] && pager->cluster_used[place / CLUSTER] < CLUSTER) {
      pager->used[place] = 1;
      pager->cluster_used[place / CLUSTER]++;
      return place;
    }
  }
}

/* ---- moving out ---- */

static uint8_t *
address (struct private_pager *pager, uint32_t page) {
  return pager->public.area + page * PAGER_PAGE;
}

/* All in one call where the kernel has that (process_madvise for oneself: Linux 6.13): as cheap as a kernel does it for itself.
 */
static void
unmap (struct private_pager *pager, const uint32_t *pages, uint32_t n) {
  struct iovec ranges[BATCH];

  for (uint32_t i = 0; i < n; i++) {
    ranges[i] = (struct iovec){ address (pager, pages[i]), PAGER_PAGE };
    g_assert_cmpint (pager->public.flags[pages[i]] & PAGER_CHOSEN, !=, 0);
    pager->public.flags[pages[i]] &= (uint8_t) ~(PAGER_PRESENT | PAGER_CHOSEN);
  }
  pager->n_present -= n;
  if (pager->self >= 0 && syscall (SYS_process_madvise, pager->self, ranges, n, MADV_DONTNEED, 0) == (long)(n * PAGER_PAGE))
    return;
  for (uint32_t i = 0; i < n; i++)
    if (madvise (ranges[i].iov_base, PAGER_PAGE, MADV_DONTNEED))
      g_error ("MADV_DONTNEED: %s", g_strerror (errno));
}

/* Next page that is in memory and was not used since the hand passed it last. */
static uint32_t
choose (struct private_pager *pager) {
  for (;;) {
    const uint32_t page = pager->hand;
    uint8_t *flags = &pager->public.flags[page];

    pager->hand = page + 1 == pager->public.n_pages ? 0 : page + 1;
    if (!(*flags & PAGER_PRESENT) || *flags & (PAGER_WRITING | PAGER_CHOSEN))
      continue;
    if (!(*flags & PAGER_USED)) {
      *flags |= PAGER_CHOSEN; /* the hand may come by again before it is unmapped */
      return page;
    }
    *flags &= (uint8_t)~PAGER_USED;
  }
}

/* A write of as many of the pages as lie in a row. Returns how many. */
static uint32_t
write_run (struct private_pager *pager, const uint32_t *pages, uint32_t n) {
  const uint32_t first = pager->places[pages[0]];
  uint32_t in_row = 1;
  struct op *op;
  unsigned slot;
  uint8_t *data;

  while (in_row < n && in_row < BLK_SLOT_PAGES && pager->places[pages[in_row]] == first + in_row)
    in_row++;
  while (pager->writes_in_flight >= WRITES_MAX)
    complete_one (pager);
  slot = prepare (pager, BLK_OUT, first, in_row);
  op = &pager->ops[slot];
  data = blk_data (pager->blk, slot);
  for (uint32_t i = 0; i < in_row; i++) {
    memcpy (data + i * PAGER_PAGE, address (pager, pages[i]), PAGER_PAGE);
    op->pages[i] = pages[i];
    pager->writes[pages[i]] = slot * BLK_SLOT_PAGES + i;
    pager->public.flags[pages[i]] = (uint8_t)((pager->public.flags[pages[i]] & ~PAGER_CHANGED) | PAGER_WRITING);
  }
  pager->n_writing += in_row;
  pager->writes_in_flight++;
  pager->public.outs += in_row;
  submit (pager, slot);
  return in_row;
}

static void
move_out (struct private_pager *pager) {
  uint32_t victims[BATCH], changed[BATCH], n = 0;

  for (uint32_t i = 0; i < BATCH; i++) {
    const uint32_t page = victims[i] = choose (pager);

    if (pager->places[page] != NOWHERE && !(pager->public.flags[page] & PAGER_CHANGED))
      continue;
    if (pager->places[page] != NOWHERE)
      free_place (pager, pager->places[page]);
    pager->places[page] = take_place (pager);
    changed[n++] = page;
  }
  for (uint32_t at = 0; at < n;)
    at += write_run (pager, changed + at, n - at);
  unmap (pager, victims, BATCH);
  blk_kick (pager->blk, 0);
}

static uint32_t
n_free (const struct private_pager *pager) {
  const uint32_t taken = pager->n_present + pager->n_writing;

  return taken < pager->n_local ? pager->n_local - taken : 0;
}

static void
make_room (struct private_pager *pager) {
  while (n_free (pager) == 0)
    if (pager->n_writing >= 4 * BATCH || pager->n_present < LOCAL_MIN / 2)
      complete_one (pager);
    else
      move_out (pager);
}

/* ---- moving in ---- */

static void
map (struct private_pager *pager, uint32_t page, const void *data) {
  struct uffdio_copy copy = { .dst = (uintptr_t)address (pager, page), .src = (uintptr_t)data, .len = PAGER_PAGE };

  if (ioctl (pager->uffd, UFFDIO_COPY, &copy))
    g_error ("UFFDIO_COPY: %s", g_strerror (errno));
  pager->public.flags[page] |= PAGER_PRESENT;
  pager->n_present++;
}

static void
fault (struct private_pager *pager, uint32_t page) {
  static const uint8_t zeros[PAGER_PAGE];
  unsigned slot;

  pager->public.faults++;
  make_room (pager);
  if (pager->public.flags[page] & PAGER_WRITING) {
    map (pager, page,
         blk_data (pager->blk, pager->writes[page] / BLK_SLOT_PAGES) + pager->writes[page] % BLK_SLOT_PAGES * PAGER_PAGE);
    return;
  }
  if (pager->places[page] == NOWHERE) {
    map (pager, page, zeros);
    return;
  }
  slot = prepare (pager, BLK_IN, pager->places[page], 1);
  submit (pager, slot);
  blk_kick (pager->blk, 0);
  if (n_free (pager) < LOW)
    move_out (pager);
  while (!pager->ops[slot].done)
    complete_one (pager);
  pager->public.ins++;
  map (pager, page, blk_data (pager->blk, slot));
}

/* An access to a page that is not there, by this thread: it is synchronous, so anything may be called. */
static void
on_sigbus (int number, siginfo_t *info, void *context) {
  const uintptr_t at = (uintptr_t)info->si_addr - (uintptr_t)the_pager->public.area;
  const int saved = errno;

  if (at / PAGER_PAGE >= the_pager->public.n_pages) {
    signal (SIGBUS, SIG_DFL);
    return;
  }
  fault (the_pager, (uint32_t)(at / PAGER_PAGE));
  errno = saved;
}

/* ---- life ---- */

static int
open_uffd (void *area, size_t bytes) {
  const int fd = (int)syscall (SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
  struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
  struct uffdio_register range = { .range = { (uintptr_t)area, bytes }, .mode = UFFDIO_REGISTER_MODE_MISSING };

  if (fd < 0 || ioctl (fd, UFFDIO_API, &api) || ioctl (fd, UFFDIO_REGISTER, &range))
    g_error ("userfaultfd: %s", g_strerror (errno));
  return fd;
}

struct pager *
pager_new (struct blk *blk, uint32_t n_pages) {
  struct private_pager *pager = g_new0 (struct private_pager, 1);
  const size_t bytes = n_pages * PAGER_PAGE;
  const struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = (int)(SA_SIGINFO | SA_NODEFER) };

  g_assert_null (the_pager);
  g_assert_cmpuint (blk->config.capacity / (BLK_PAGE / 512), >=, 2 * (uint64_t)n_pages);
  pager->blk = blk;
  pager->n_local = n_pages + LOW + BATCH;
  pager->public.n_pages = n_pages;
  pager->public.flags = g_new0 (uint8_t, n_pages);
  pager->places = g_new (uint32_t, n_pages);
  memset (pager->places, 0xff, n_pages * sizeof *pager->places);
  pager->writes = g_new0 (uint32_t, n_pages);
  pager->n_clusters = 2 * n_pages / CLUSTER;
  pager->used = g_new0 (uint8_t, pager->n_clusters * (size_t)CLUSTER);
  pager->cluster_used = g_new0 (uint16_t, pager->n_clusters);
  pager->public.area = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (pager->public.area == MAP_FAILED || madvise (pager->public.area, bytes, MADV_NOHUGEPAGE))
    g_error ("mmap: %s", g_strerror (errno));
  pager->self = (int)syscall (SYS_pidfd_open, getpid (), 0);
  pager->uffd = open_uffd (pager->public.area, bytes);
  the_pager = pager;
  sigaction (SIGBUS, &action, NULL);
  return &pager->public;
}

void
pager_limit (struct pager *public, uint32_t n_local) {
  struct private_pager *pager = (struct private_pager *)public;

  g_assert_cmpuint (n_local, >=, LOCAL_MIN);
  pager->n_local = n_local;
  make_room (pager);
}

void
pager_free (struct pager *public) {
  struct private_pager *pager = (struct private_pager *)public;

  while (pager->blk->n_in_flight)
    complete_one (pager);
  signal (SIGBUS, SIG_DFL);
  the_pager = NULL;
  close (pager->uffd);
  if (pager->self >= 0)
    close (pager->self);
  munmap (pager->public.area, pager->public.n_pages * PAGER_PAGE);
  g_free (pager->public.flags);
  g_free (pager->places);
  g_free (pager->writes);
  g_free (pager->used);
  g_free (pager->cluster_used);
  g_free (pager);
}
