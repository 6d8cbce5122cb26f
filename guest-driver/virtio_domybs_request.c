// SPDX-License-Identifier: GPL-2.0-only
/*
 * The request queue. One request at a time is in flight: the worker is the only one to ask, and everything it does depends on
 * the answer.
 *
 * The answer is copied once into memory that the device cannot write, and only the copy is looked at. It is believed as far as
 * it can be checked: numbers must fit the question, runs must lie where blocks were asked for and must not be granted yet. An
 * answer that fits not is nonsense: the device is marked broken, and the guest goes on with what it has.
 *
 * A request has no timeout. A paused VM answers when it goes on, and a request that was given up on might still be carried out.
 */
#include <linux/jiffies.h>
#include <linux/random.h>
#include <linux/scatterlist.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/vmstat.h>

#include "compat.h"
#include "domybs-drv.h"

#define DOMYBS_WARN_AFTER (10 * HZ)
/* Only while the device is being removed: a device that never answers, because its back-end has died, must not keep remove() for
 * ever, nor an operator who plugs in another one. A back-end that lives answers within a second, even when it is exchanged. */
#define DOMYBS_GIVE_UP_AFTER (10 * HZ)

static const char *const domybs_request_names[] = {
  [DOMYBS_REQ_HELLO] = "HELLO", [DOMYBS_REQ_GRANT] = "GRANT", [DOMYBS_REQ_RELEASE] = "RELEASE",
  [DOMYBS_REQ_STATS] = "STATS", [DOMYBS_REQ_BYE] = "BYE",     [DOMYBS_REQ_RESERVE] = "RESERVE",
};

struct domybs_answer {
  u16 status;
  u32 count, retry_ms, generation;
  u64 session, id, blocks, granted;
};

void
domybs_request_done (struct virtqueue *vq) {
  struct domybs *d = vq->vdev->priv;

  complete (&d->answered);
}

static bool
domybs_give_up (struct domybs *d, unsigned long since) {
  bool leaving;

  spin_lock_irq (&d->lock);
  leaving = d->draining || d->stopping;
  spin_unlock_irq (&d->lock);
  return leaving && time_after (jiffies, since + DOMYBS_GIVE_UP_AFTER);
}

static int
domybs_wait_answer (struct domybs *d, u16 type, unsigned int *ret_len) {
  unsigned long since = jiffies, warn = since + DOMYBS_WARN_AFTER;

  for (;;) {
    void *token = virtqueue_get_buf (d->request_vq, ret_len);

    if (token == d)
      return 0;
    if (token) {
      domybs_break (d, "answer to a request that was never sent");
      return -EIO;
    }
    if (virtqueue_is_broken (d->request_vq)) {
      d->in_flight = true;
      domybs_break (d, "the request queue is dead");
      return -EIO;
    }
    if (domybs_give_up (d, since)) {
      d->in_flight = true;
      domybs_break (d, "no answer to %s while the device is being removed", domybs_request_names[type]);
      return -EIO;
    }
    if (time_after (jiffies, warn)) {
      dev_warn (d->dev, "%s unanswered for %u s, still waiting\n", domybs_request_names[type],
                jiffies_to_msecs (jiffies - since) / 1000);
      warn = jiffies + 6 * DOMYBS_WARN_AFTER;
    }
    /* The timeout is for a lost interrupt and for the checks above; the answer is looked for in the ring each time. */
    wait_for_completion_timeout (&d->answered, HZ);
  }
}

/*
 * Sends what is in the request page (header filled in here) and copies the answer. 0: the answer is well formed, whatever its
 * status. For GRANT its runs are in d->runs, not checked yet.
 */
static int
domybs_ask (struct domybs *d, u16 type, u32 count, size_t payload, struct domybs_answer *ret) {
  struct domybs_request *request = d->request_page;
  struct domybs_response wire;
  struct scatterlist out, in, *sgs[2] = { &out, &in };
  u64 session = type == DOMYBS_REQ_HELLO ? 0 : d->session;
  u64 id = type == DOMYBS_REQ_HELLO ? 0 : d->next_id;
  unsigned int len = 0;
  u32 i;
  int rc;

  if (READ_ONCE (d->broken))
    return -EIO;
  if (d->in_flight)
    return -ESHUTDOWN;

  request->type = cpu_to_le16 (type);
  request->flags = 0;
  request->count = cpu_to_le32 (count);
  request->session = cpu_to_le64 (session);
  request->id = cpu_to_le64 (id);
  memset (d->response_page, 0, sizeof wire);
  sg_init_one (&out, d->request_page, sizeof *request + payload);
  sg_init_one (&in, d->response_page, DOMYBS_RESPONSE_BYTES_MAX);
  reinit_completion (&d->answered);

  /* GFP_ATOMIC: a failure to get an indirect table only means that the ring's own descriptors are used. */
  rc = virtqueue_add_sgs (d->request_vq, sgs, 1, 1, d, GFP_ATOMIC);
  if (rc) {
    domybs_break (d, "the request queue takes no request: %d", rc);
    return -EIO;
  }
  if (type != DOMYBS_REQ_HELLO)
    d->next_id++;
  d->counters.requests++;
  virtqueue_kick (d->request_vq);
  rc = domybs_wait_answer (d, type, &len);
  if (rc)
    return rc;

  if (len < sizeof wire || len > DOMYBS_RESPONSE_BYTES_MAX) {
    domybs_break (d, "%u bytes of answer to %s", len, domybs_request_names[type]);
    return -EIO;
  }
  memcpy (&wire, d->response_page, sizeof wire);
  ret->status = le16_to_cpu (wire.status);
  ret->count = le32_to_cpu (wire.count);
  ret->session = le64_to_cpu (wire.session);
  ret->id = le64_to_cpu (wire.id);
  ret->blocks = le64_to_cpu (wire.blocks);
  ret->granted = le64_to_cpu (wire.granted);
  ret->retry_ms = le32_to_cpu (wire.retry_ms);
  ret->generation = le32_to_cpu (wire.generation);

  if (ret->status > DOMYBS_FAILED || ret->id != id) {
    domybs_break (d, "answer to %s has status %u and id %llu, not %llu", domybs_request_names[type], ret->status, ret->id, id);
    return -EIO;
  }
  if (ret->count > DOMYBS_RUNS_MAX || len < sizeof wire + ret->count * sizeof (struct domybs_run)
      || (ret->count && (type != DOMYBS_REQ_GRANT || ret->status != DOMYBS_OK))) {
    domybs_break (d, "answer to %s has %u runs in %u bytes", domybs_request_names[type], ret->count, len);
    return -EIO;
  }
  for (i = 0; i < ret->count; i++) {
    struct domybs_run run;

    memcpy (&run, d->response_page + sizeof wire + i * sizeof run, sizeof run);
    d->runs[i].start = le64_to_cpu (run.start);
    d->runs[i].count = le64_to_cpu (run.count);
  }
  if (type != DOMYBS_REQ_HELLO && type != DOMYBS_REQ_BYE && ret->status == DOMYBS_OK && ret->session != d->session) {
    domybs_break (d, "answer to %s is of another session", domybs_request_names[type]);
    return -EIO;
  }
  if (type != DOMYBS_REQ_HELLO && ret->generation != d->config.generation)
    domybs_kick (d, DOMYBS_KICK_CONFIG);
  return 0;
}

/* What a refusal means for us. Also remembers how long not to ask again. */
static int
domybs_refusal (struct domybs *d, u16 type, const struct domybs_answer *answer) {
  u32 wait_ms = 0;
  int rc;

  switch (answer->status) {
  case DOMYBS_BUSY:
    wait_ms = clamp (answer->retry_ms, 10u, 10000u);
    rc = -EAGAIN;
    break;
  case DOMYBS_NO_VM_CAPACITY:
    wait_ms = 1000;
    rc = -ENOSPC;
    break;
  case DOMYBS_NO_HOST_CAPACITY:
    /* An OFFER ends the wait at once; asking now and then as well costs little and survives a lost event. */
    wait_ms = d->ask_backoff_ms = clamp (d->ask_backoff_ms * 2, 500u, 15000u);
    rc = -ENOMEM;
    break;
  case DOMYBS_NO_TIER:
    return -EOPNOTSUPP;
  case DOMYBS_FAILED:
    dev_warn_ratelimited (d->dev, "the host could not do a %s\n", domybs_request_names[type]);
    wait_ms = 5000;
    rc = -EAGAIN;
    break;
  case DOMYBS_BAD_SESSION:
    domybs_break (d, "the host no longer knows this session, so what it granted is gone");
    return -EIO;
  default:
    domybs_break (d, "the host calls a %s wrong: status %u", domybs_request_names[type], answer->status);
    return -EIO;
  }
  if (type == DOMYBS_REQ_GRANT) {
    d->ask_after = jiffies + msecs_to_jiffies (wait_ms);
    if (!d->ask_after)
      d->ask_after = 1;
  }
  return rc;
}

int
domybs_hello (struct domybs *d) {
  struct domybs_hello *hello = d->request_page + sizeof (struct domybs_request);
  struct domybs_answer answer;
  int rc;

  memset (hello, 0, sizeof *hello);
  hello->abi_version = cpu_to_le32 (DOMYBS_ABI_VERSION);
  hello->section_blocks = cpu_to_le32 (d->section_blocks);
  hello->nonce = cpu_to_le64 (d->nonce);
  strscpy ((char *)hello->driver, "virtio_domybs " DOMYBS_DRIVER_VERSION, sizeof hello->driver);
  rc = domybs_ask (d, DOMYBS_REQ_HELLO, 1, sizeof *hello, &answer);
  if (rc)
    return rc;
  if (answer.status == DOMYBS_BUSY || answer.status == DOMYBS_FAILED) {
    domybs_refusal (d, DOMYBS_REQ_HELLO, &answer);
    return -EAGAIN;
  }
  if (answer.status != DOMYBS_OK || !answer.session || answer.granted) {
    domybs_break (d, "HELLO answered with status %u, session %llu, %llu blocks granted", answer.status, answer.session,
                  answer.granted);
    return -EIO;
  }
  d->session = answer.session;
  d->next_id = 1;
  return 0;
}

/* Runs lie in the area, are disjoint, and not granted already. */
static bool
domybs_runs_good (struct domybs *d, u32 count, u64 area_start, u64 area_blocks, u64 *ret_blocks) {
  u64 end = area_start + area_blocks, total = 0;
  u32 i, k;

  for (i = 0; i < count; i++) {
    u64 start = d->runs[i].start, n = d->runs[i].count, b;

    if (start < area_start || start >= end || !n || n > end - start)
      return false;
    for (k = 0; k < i; k++)
      if (start < d->runs[k].start + d->runs[k].count && d->runs[k].start < start + n)
        return false;
    for (b = start; b < start + n; b++) {
      enum domybs_block_state state = domybs_block_get (d, b);

      if (state != DOMYBS_BLOCK_VOID && state != DOMYBS_BLOCK_HELD)
        return false;
    }
    total += n;
  }
  *ret_blocks = total;
  return true;
}

int
domybs_grant (struct domybs *d, u32 hint, u32 flags, u64 blocks, u64 area_start, u64 area_blocks, u32 *ret_runs,
              u64 *ret_blocks) {
  struct domybs_grant *grant = d->request_page + sizeof (struct domybs_request);
  u64 usable = (u64)d->sections * d->section_blocks, total = 0;
  struct domybs_answer answer;
  int rc;

  if (!area_blocks)
    area_blocks = usable;
  grant->hint = cpu_to_le32 (hint);
  grant->flags = cpu_to_le32 (flags);
  grant->blocks = cpu_to_le64 (blocks);
  grant->area_start = cpu_to_le64 (area_start);
  grant->area_blocks = cpu_to_le64 (area_blocks);
  rc = domybs_ask (d, DOMYBS_REQ_GRANT, 1, sizeof *grant, &answer);
  if (rc)
    return rc;
  if (answer.status != DOMYBS_OK)
    return domybs_refusal (d, DOMYBS_REQ_GRANT, &answer);

  if (!domybs_runs_good (d, answer.count, area_start, area_blocks, &total) || total != answer.blocks || !total || total > blocks
      || ((flags & DOMYBS_GRANT_F_ALL) && total != blocks) || answer.granted != domybs_granted (d) + total) {
    domybs_break (d, "asked for %llu blocks, was answered %llu in %u runs of %llu, %llu granted where %llu are known", blocks,
                  answer.blocks, answer.count, total, answer.granted, domybs_granted (d));
    return -EIO;
  }
  d->counters.granted += total;
  d->ask_after = 0;
  d->ask_backoff_ms = 0;
  *ret_runs = answer.count;
  *ret_blocks = total;
  return 0;
}

int
domybs_release (struct domybs *d, const struct domybs_extent *runs, u32 count) {
  struct domybs_run *wire = d->request_page + sizeof (struct domybs_request);
  struct domybs_answer answer;
  u64 total = 0;
  u32 i;
  int rc;

  if (WARN_ON_ONCE (!count || count > DOMYBS_RUNS_MAX))
    return -EINVAL;
  for (i = 0; i < count; i++) {
    wire[i].start = cpu_to_le64 (runs[i].start);
    wire[i].count = cpu_to_le64 (runs[i].count);
    total += runs[i].count;
  }
  rc = domybs_ask (d, DOMYBS_REQ_RELEASE, count, count * sizeof *wire, &answer);
  if (rc)
    return rc;
  if (answer.status != DOMYBS_OK)
    return domybs_refusal (d, DOMYBS_REQ_RELEASE, &answer);
  if (answer.blocks != total || answer.granted != domybs_granted (d) - total) {
    domybs_break (d, "released %llu blocks, was answered %llu, %llu granted where %llu are known", total, answer.blocks,
                  answer.granted, domybs_granted (d) - total);
    return -EIO;
  }
  d->counters.released += total;
  return 0;
}

static u32
domybs_stat (struct domybs_stat *stat, u32 n, u32 tag, u64 value) {
  stat[n].tag = cpu_to_le32 (tag);
  stat[n].reserved = 0;
  stat[n].value = cpu_to_le64 (value);
  return n + 1;
}

int
domybs_stats_send (struct domybs *d) {
  struct domybs_stat *stat = d->request_page + sizeof (struct domybs_request);
  struct domybs_answer answer;
  u64 online, held, stuck;
  u32 n = 0;
  int rc;
#ifdef CONFIG_VM_EVENT_COUNTERS
  unsigned long *events = (unsigned long *)d->runs; /* a page; free between requests */

  BUILD_BUG_ON (NR_VM_EVENT_ITEMS * sizeof (unsigned long) > PAGE_SIZE);
  all_vm_events (events);
  n = domybs_stat (stat, n, DOMYBS_STAT_SWAP_IN, events[PSWPIN]);
  n = domybs_stat (stat, n, DOMYBS_STAT_SWAP_OUT, events[PSWPOUT]);
  n = domybs_stat (stat, n, DOMYBS_STAT_OOM_KILLS, events[OOM_KILL]);
#endif
  spin_lock_irq (&d->lock);
  online = d->count[DOMYBS_BLOCK_USED] + d->count[DOMYBS_BLOCK_USER];
  held = d->count[DOMYBS_BLOCK_HELD];
  stuck = d->stuck;
  spin_unlock_irq (&d->lock);

  n = domybs_stat (stat, n, DOMYBS_STAT_MEM_TOTAL, (u64)totalram_pages () << PAGE_SHIFT);
  n = domybs_stat (stat, n, DOMYBS_STAT_MEM_FREE, (u64)global_zone_page_state (NR_FREE_PAGES) << PAGE_SHIFT);
  n = domybs_stat (stat, n, DOMYBS_STAT_MEM_AVAILABLE, (u64)max (si_mem_available (), 0l) << PAGE_SHIFT);
  n = domybs_stat (stat, n, DOMYBS_STAT_SWAP_FREE, (u64)get_nr_swap_pages () << PAGE_SHIFT);
  n = domybs_stat (stat, n, DOMYBS_STAT_BLOCKS_ONLINE, online);
  n = domybs_stat (stat, n, DOMYBS_STAT_BLOCKS_HELD, held);
  n = domybs_stat (stat, n, DOMYBS_STAT_BLOCKS_STUCK, stuck);
  rc = domybs_ask (d, DOMYBS_REQ_STATS, n, n * sizeof *stat, &answer);
  if (rc)
    return rc;
  return answer.status == DOMYBS_OK ? 0 : domybs_refusal (d, DOMYBS_REQ_STATS, &answer);
}

int
domybs_far_reserve (struct domybs *d, u32 tier, u64 blocks, u64 *ret_ready) {
  struct domybs_reserve *reserve = d->request_page + sizeof (struct domybs_request);
  struct domybs_answer answer;
  int rc;

  reserve->tier = cpu_to_le32 (tier);
  reserve->flags = 0;
  reserve->blocks = cpu_to_le64 (blocks);
  rc = domybs_ask (d, DOMYBS_REQ_RESERVE, 1, sizeof *reserve, &answer);
  if (rc)
    return rc;
  switch (answer.status) {
  case DOMYBS_OK:
  case DOMYBS_NO_HOST_CAPACITY:
    if (answer.blocks > blocks) {
      domybs_break (d, "reserved %llu blocks, was answered %llu", blocks, answer.blocks);
      return -EIO;
    }
    *ret_ready = answer.blocks;
    return answer.status == DOMYBS_OK ? 0 : -ENOMEM;
  case DOMYBS_BUSY:
  case DOMYBS_FAILED:
    return -EAGAIN;
  case DOMYBS_BAD_REQUEST:
    d->next_id--; /* what is refused so has not used it up */
    return -ENOSYS;
  default:
    return domybs_refusal (d, DOMYBS_REQ_RESERVE, &answer);
  }
}

int
domybs_bye (struct domybs *d) {
  struct domybs_answer answer;
  int rc;

  if (!d->session)
    return 0;
  rc = domybs_ask (d, DOMYBS_REQ_BYE, 0, 0, &answer);
  if (rc)
    return rc;
  if (answer.status != DOMYBS_OK)
    return domybs_refusal (d, DOMYBS_REQ_BYE, &answer);
  d->session = 0;
  return 0;
}
