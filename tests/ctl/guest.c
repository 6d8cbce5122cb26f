/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "guest.h"

#include <string.h>

#define SECTION_BLOCKS 64u
#define STATS_EVERY_MS 500

struct Guest {
  GuestHabits habits;
  char *path;
  GThread *thread;
  GMutex lock;
  GCond ready_changed;
  bool ready;
  int stop; /* atomic */

  struct fe *fe;
  GArray *runs; /* of struct domybs_run: what is granted */
  uint64_t granted, stuck;
  int64_t stats_ms;
};

static void
must (Guest *guest, bool ok, const char *what) {
  if (!ok && !g_atomic_int_get (&guest->stop))
    g_error ("the guest can't %s: %s", what, guest->fe->why ? guest->fe->why : "?");
}

static void
send_stats (Guest *guest) {
  const struct domybs_stat stats[] = {
    { DOMYBS_STAT_MEM_TOTAL, 0, 1ull << 30 },         { DOMYBS_STAT_MEM_AVAILABLE, 0, 300ull << 20 },
    { DOMYBS_STAT_BLOCKS_ONLINE, 0, guest->granted }, { DOMYBS_STAT_BLOCKS_HELD, 0, 0 },
    { DOMYBS_STAT_BLOCKS_STUCK, 0, guest->stuck },
  };
  struct fe_answer answer;

  guest->stats_ms = fe_now_ms ();
  must (guest, fe_stats (guest->fe, stats, G_N_ELEMENTS (stats), &answer), "send figures");
}

static void
grow (Guest *guest, uint64_t blocks) {
  struct fe_answer answer = { 0 };

  must (guest, fe_grant (guest->fe, MIN (blocks, guest->habits.step_blocks), DOMYBS_HINT_ANY, 0, 0, 0, &answer),
        "ask for blocks");
  if (answer.status != DOMYBS_OK) {
    g_usleep (100000);
    return;
  }
  g_array_append_vals (guest->runs, answer.runs, answer.count);
  guest->granted += answer.blocks;
  /* As a program that uses them would. */
  for (uint32_t i = 0; i < answer.count; i++)
    for (uint64_t block = answer.runs[i].start; block < answer.runs[i].start + answer.runs[i].count; block++)
      *fe_block (guest->fe, block) = 1;
}

static void
shrink (Guest *guest, uint64_t blocks) {
  struct domybs_run *last = &g_array_index (guest->runs, struct domybs_run, guest->runs->len - 1);
  const uint64_t n = MIN (MIN (blocks, last->count), guest->habits.step_blocks);
  const struct domybs_run run = { last->start + last->count - n, n };
  struct fe_answer answer = { 0 };

  must (guest, fe_release (guest->fe, &run, 1, &answer), "give blocks back");
  if (answer.status != DOMYBS_OK)
    return;
  last->count -= n;
  guest->granted -= n;
  if (!last->count)
    g_array_set_size (guest->runs, guest->runs->len - 1);
}

/* One thing that a driver would do now. */
static void
live (Guest *guest) {
  const GuestHabits *habits = &guest->habits;
  const uint64_t keeps = MAX (habits->stuck_blocks, habits->needed_blocks);
  struct domybs_config config;
  uint64_t goal, down;

  must (guest, fe_get_config (guest->fe, &config), "read its configuration");
  if (g_atomic_int_get (&guest->stop))
    return;
  guest->stuck = 0;
  if (GUINT16_FROM_LE (config.flags) & DOMYBS_CONFIG_F_TARGET) {
    goal = MIN (GUINT64_FROM_LE (config.target_blocks), GUINT64_FROM_LE (config.max_blocks));
    if (habits->most_blocks)
      goal = MIN (goal, habits->most_blocks);
    down = MAX (goal, keeps);
    if (guest->granted < goal)
      grow (guest, habits->overshoots ? SECTION_BLOCKS : goal - guest->granted);
    else if (guest->granted > down)
      shrink (guest, guest->granted - down);
    if (guest->granted > goal && guest->granted <= habits->stuck_blocks)
      guest->stuck = guest->granted - goal;
  }
  if (fe_now_ms () - guest->stats_ms >= STATS_EVERY_MS)
    send_stats (guest);
}

static void
announce (Guest *guest) {
  g_mutex_lock (&guest->lock);
  guest->ready = true;
  g_cond_broadcast (&guest->ready_changed);
  g_mutex_unlock (&guest->lock);
}

static gpointer
run (gpointer data) {
  Guest *guest = data;

  must (guest, fe_steps_to (guest->fe, guest->habits.no_driver ? FE_STEP_SHMEM_CONFIG : FE_STEP_HELLO, guest->path), "begin");
  announce (guest);
  while (!g_atomic_int_get (&guest->stop)) {
    must (guest, fe_serve_channel (guest->fe), "serve its channel");
    if (!guest->habits.silent && !guest->habits.no_driver)
      live (guest);
    g_usleep (guest->habits.pause_ms * 1000);
  }
  return NULL;
}

Guest *
guest_start (const char *socket_path, const GuestHabits *habits) {
  Guest *guest = g_new0 (Guest, 1);

  if (habits)
    guest->habits = *habits;
  if (!guest->habits.step_blocks)
    guest->habits.step_blocks = 64;
  if (!guest->habits.pause_ms)
    guest->habits.pause_ms = 5;
  guest->path = g_strdup (socket_path);
  guest->fe = fe_new ();
  guest->runs = g_array_new (FALSE, FALSE, sizeof (struct domybs_run));
  g_mutex_init (&guest->lock);
  g_cond_init (&guest->ready_changed);
  guest->thread = g_thread_new ("guest", run, guest);
  g_mutex_lock (&guest->lock);
  while (!guest->ready)
    g_cond_wait (&guest->ready_changed, &guest->lock);
  g_mutex_unlock (&guest->lock);
  return guest;
}

void
guest_stop (Guest *guest) {
  g_atomic_int_set (&guest->stop, 1);
  g_thread_join (guest->thread);
  fe_free (guest->fe);
  g_array_unref (guest->runs);
  g_mutex_clear (&guest->lock);
  g_cond_clear (&guest->ready_changed);
  g_free (guest->path);
  g_free (guest);
}
