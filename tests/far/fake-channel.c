/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "fake-channel.h"
#include "io/source.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

struct PageChannel {
  guint donor;
  PageChannelWatch watch;
  PageChannelOptions options;
  PageChannelFigures figures;
  GQueue submitted, sent; /* of PageIo */
  GSource *work_source, *change_source;
  guint64 wanted;
  gboolean anew, ended;
};

typedef struct {
  guint64 arena, lease, level, used, capacity, takes;
  GHashTable *blocks; /* number → memory */
  gboolean up, hung, revoke;
  guint slow_ms, corrupt;
  guint64 revoke_level, revoke_number, requests, asked;
  PageChannel *channel;
} Fake;

static Fake fakes[FAKE_DONORS];
static GRand *fake_rand;
static guint64 ended_leases;

const char *
fake_name (guint donor) {
  static const char *const names[FAKE_DONORS] = { "donor0", "donor1", "donor2", "donor3", "donor4", "donor5" };

  return names[donor];
}

void
fake_init (guint64 capacity, GRand *rand) {
  fake_rand = rand;
  ended_leases = 0;
  for (guint d = 0; d < FAKE_DONORS; d++)
    fakes[d] = (Fake){
      .arena = d + 1, .capacity = capacity, .takes = G_MAXUINT64, .up = TRUE, .blocks = g_hash_table_new_full (NULL, NULL, NULL, g_free)
    };
}

void
fake_clear (void) {
  for (guint d = 0; d < FAKE_DONORS; d++)
    g_clear_pointer (&fakes[d].blocks, g_hash_table_unref);
}

/* ---- requests ---- */

static void
carry_out (Fake *fake, PageIo *io) {
  const guint64 block = io->offset / LEASE_BLOCK_BYTES;
  guint8 *memory = g_hash_table_lookup (fake->blocks, GSIZE_TO_POINTER (block));
  int error = 0;

  fake->requests++;
  if (io->op == PAGE_TRIM) {
    g_hash_table_remove (fake->blocks, GSIZE_TO_POINTER (block));
  } else if (io->op == PAGE_READ) {
    if (memory)
      memcpy (io->buf, memory + io->offset % LEASE_BLOCK_BYTES, io->bytes);
    else
      memset (io->buf, 0, io->bytes);
    if (testing_below (fake_rand, 1000) < fake->corrupt)
      for (gsize at = 0; at < io->bytes; at += 4096)
        ((guint8 *)io->buf)[at + testing_below (fake_rand, 4096)] ^= 1;
  } else if (!memory && g_hash_table_size (fake->blocks) >= MIN (fake->level, fake->takes)) {
    error = ENOSPC;
  } else {
    if (!memory)
      g_hash_table_insert (fake->blocks, GSIZE_TO_POINTER (block), memory = g_malloc0 (LEASE_BLOCK_BYTES));
    memcpy (memory + io->offset % LEASE_BLOCK_BYTES, io->buf, io->bytes);
  }
  io->done (io, error);
}

static void
end_all (PageChannel *channel, int error) {
  GQueue all = channel->sent;
  PageIo *io;

  g_queue_init (&channel->sent);
  while ((io = g_queue_pop_head (&channel->submitted)))
    g_queue_push_tail (&all, io);
  while ((io = g_queue_pop_head (&all)))
    io->done (io, error);
}

static void change_soon (PageChannel *channel);

static gboolean
on_work (gpointer data) {
  PageChannel *channel = data;
  Fake *fake = &fakes[channel->donor];
  const gint64 now = g_get_monotonic_time ();
  const gboolean usable = fake->up && channel->figures.state == PAGE_CHANNEL_ATTACHED;
  guint n = channel->sent.length;

  source_clear (&channel->work_source);
  while (n-- && channel->sent.head) {
    PageIo *io = g_queue_pop_head (&channel->sent);

    if (!usable)
      io->done (io, ENOTCONN);
    else if (!fake->hung && now - io->began >= fake->slow_ms * 1000)
      carry_out (fake, io);
    else if (io->deadline_ms && now - io->began > io->deadline_ms * 1000) {
      channel->figures.state = PAGE_CHANNEL_DOWN;
      io->done (io, ETIMEDOUT);
      end_all (channel, ENOTCONN);
      change_soon (channel);
    } else
      g_queue_push_tail (&channel->sent, io);
  }
  if (channel->sent.head && !channel->work_source)
    channel->work_source = source_timeout (1, on_work, channel);
  return G_SOURCE_REMOVE;
}

void
page_channel_submit (PageChannel *channel, PageIo *io) {
  io->began = g_get_monotonic_time ();
  fakes[channel->donor].asked++;
  g_queue_push_tail (&channel->submitted, io);
}

void
page_channel_kick (PageChannel *channel) {
  PageIo *io;

  while ((io = g_queue_pop_head (&channel->submitted)))
    g_queue_push_tail (&channel->sent, io);
  if (channel->sent.head && !channel->work_source)
    channel->work_source = source_timeout (0, on_work, channel);
}

/* ---- states ---- */

static void
answer_level (PageChannel *channel) {
  Fake *fake = &fakes[channel->donor];
  struct lease_answer *lease = &channel->figures.lease;
  const guint64 used = g_hash_table_size (fake->blocks),
                most = fake->revoke ? MIN (fake->capacity, MAX (fake->revoke_level, used)) : fake->capacity;

  fake->level = MAX (MIN (channel->wanted, most), used);
  lease->level = fake->level;
  lease->used = used;
  lease->free = fake->revoke || fake->capacity < fake->level ? 0 : fake->capacity - fake->level;
  lease->revoke = fake->revoke ? fake->revoke_number : 0;
  lease->revoke_level = fake->revoke ? fake->revoke_level : 0;
}

static gboolean
on_change (gpointer data) {
  PageChannel *channel = data;
  Fake *fake = &fakes[channel->donor];
  PageChannelFigures *f = &channel->figures;
  guint8 arena[LEASE_ID_BYTES] = { 0 };

  source_clear (&channel->change_source);
  if (channel->ended)
    return G_SOURCE_REMOVE;
  memcpy (arena, &fake->arena, sizeof fake->arena);
  if (!fake->up || fake->hung) {
    if (f->state == PAGE_CHANNEL_ATTACHED && !fake->up) {
      end_all (channel, ENOTCONN);
      f->state = PAGE_CHANNEL_DOWN;
    }
    if (f->state == PAGE_CHANNEL_ATTACHED)
      return G_SOURCE_REMOVE; /* hung: it is found out by deadlines */
    f->state = PAGE_CHANNEL_DOWN;
  } else if (channel->options.lease
             && (channel->options.lease != fake->lease || memcmp (arena, channel->options.incarnation, sizeof arena) != 0)) {
    end_all (channel, ESTALE);
    f->state = PAGE_CHANNEL_LOST;
    channel->options.lease = 0;
  } else if (f->state != PAGE_CHANNEL_LOST || channel->anew) {
    channel->anew = FALSE;
    if (!channel->options.lease)
      fake->lease++;
    channel->options.lease = fake->lease;
    memcpy (channel->options.incarnation, arena, sizeof arena);
    f->lease.lease = fake->lease;
    memcpy (f->lease.incarnation, arena, sizeof arena);
    answer_level (channel);
    f->state = PAGE_CHANNEL_ATTACHED;
  }
  channel->watch.changed (channel, channel->watch.data);
  return G_SOURCE_REMOVE;
}

static void
change_soon (PageChannel *channel) {
  if (channel && !channel->change_source)
    channel->change_source = source_timeout (0, on_change, channel);
}

PageChannel *
page_channel_new (const PageChannelOptions *options, const PageChannelWatch *watch, GError **error) {
  PageChannel *channel = g_new0 (PageChannel, 1);

  for (guint d = 0; d < FAKE_DONORS; d++)
    if (g_str_equal (options->name, fake_name (d)))
      channel->donor = d;
  channel->options = *options;
  channel->watch = *watch;
  channel->figures.state = PAGE_CHANNEL_DOWN;
  fakes[channel->donor].channel = channel;
  change_soon (channel);
  return channel;
}

void
page_channel_free (PageChannel *channel) {
  if (!channel)
    return;
  end_all (channel, ENOTCONN);
  source_clear (&channel->work_source);
  source_clear (&channel->change_source);
  fakes[channel->donor].channel = NULL;
  g_free (channel);
}

void
page_channel_want (PageChannel *channel, guint64 blocks) {
  channel->wanted = blocks;
  change_soon (channel);
}

void
page_channel_begin_anew (PageChannel *channel) {
  channel->anew = TRUE;
  change_soon (channel);
}

void
page_channel_end_lease (PageChannel *channel, guint timeout_ms, void (*done) (gpointer data, gboolean ok), gpointer data) {
  Fake *fake = &fakes[channel->donor];

  channel->ended = TRUE;
  end_all (channel, ESTALE);
  if (fake->up && !fake->hung) {
    ended_leases++;
    fake->lease++;
    g_hash_table_remove_all (fake->blocks);
  }
  done (data, fake->up && !fake->hung);
}

void
page_channel_figures (const PageChannel *channel, PageChannelFigures *ret_figures) {
  *ret_figures = channel->figures;
}

/* ---- what tests do to them ---- */

void
fake_set_up (guint donor, gboolean up) {
  fakes[donor].up = up;
  change_soon (fakes[donor].channel);
}

void
fake_set_hung (guint donor, gboolean hung) {
  fakes[donor].hung = hung;
  change_soon (fakes[donor].channel);
}

void
fake_set_slow (guint donor, guint ms) {
  fakes[donor].slow_ms = ms;
}

void
fake_set_corrupt (guint donor, guint permille) {
  fakes[donor].corrupt = permille;
}

void
fake_damage (guint donor) {
  GHashTableIter iter;
  gpointer memory;

  g_hash_table_iter_init (&iter, fakes[donor].blocks);
  while (g_hash_table_iter_next (&iter, NULL, &memory))
    for (gsize at = 512u << 10; at < LEASE_BLOCK_BYTES; at += 4096)
      ((guint8 *)memory)[at + testing_below (fake_rand, 4096)] ^= 1;
}

guint64
fake_differences (guint a, guint b) {
  GHashTableIter iter;
  gpointer block, memory;
  guint64 n = 0;

  g_hash_table_iter_init (&iter, fakes[a].blocks);
  while (g_hash_table_iter_next (&iter, &block, &memory)) {
    const guint8 *other = g_hash_table_lookup (fakes[b].blocks, block);

    n += other && memcmp (memory, other, LEASE_BLOCK_BYTES) != 0;
  }
  return n;
}

void
fake_set_capacity (guint donor, guint64 blocks) {
  fakes[donor].capacity = blocks;
  change_soon (fakes[donor].channel);
}

void
fake_shrink (guint donor, guint64 level) {
  fakes[donor].takes = level;
}

void
fake_lose_arena (guint donor) {
  fakes[donor].arena += 100;
  fakes[donor].lease++;
  g_hash_table_remove_all (fakes[donor].blocks);
  if (fakes[donor].channel && fakes[donor].channel->figures.state == PAGE_CHANNEL_ATTACHED) {
    end_all (fakes[donor].channel, ESTALE);
    fakes[donor].channel->figures.state = PAGE_CHANNEL_DOWN;
  }
  change_soon (fakes[donor].channel);
}

void
fake_revoke (guint donor, gboolean revoke, guint64 level) {
  fakes[donor].revoke = revoke;
  fakes[donor].revoke_level = level;
  fakes[donor].revoke_number++;
  change_soon (fakes[donor].channel);
}

gboolean
fake_is_quiet (guint n_donors) {
  for (guint d = 0; d < n_donors; d++)
    if (!fakes[d].channel || fakes[d].channel->change_source || fakes[d].channel->figures.state != PAGE_CHANNEL_ATTACHED)
      return FALSE;
  return TRUE;
}

guint64
fake_used (guint donor) {
  return g_hash_table_size (fakes[donor].blocks);
}

guint64
fake_requests (guint donor) {
  return fakes[donor].requests;
}

guint64
fake_ended_leases (void) {
  return ended_leases;
}

guint64
fake_asked (guint donor) {
  return fakes[donor].asked;
}
