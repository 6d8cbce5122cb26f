/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Donors within the test's process, behind the calls of io/page-channel.h: they die, hang, lie and come back when the test says
 * so. */
#ifndef DOMYBS_TESTS_FAR_FAKE_CHANNEL_H
#define DOMYBS_TESTS_FAR_FAKE_CHANNEL_H

#include "io/page-channel.h"

#define FAKE_DONORS 6u

/* All are there, empty, with room for so many blocks each. */
void fake_init (guint64 capacity, GRand *rand);
void fake_clear (void);
/* Its name, as the options of a channel have it: "donor0". */
const char *fake_name (guint donor);

void fake_set_up (guint donor, gboolean up);
/* Takes requests, and does not answer. */
void fake_set_hung (guint donor, gboolean hung);
void fake_set_slow (guint donor, guint ms);
/* So many of a thousand reads come with a byte changed. */
void fake_set_corrupt (guint donor, guint permille);
/* So much is there to be lent. */
void fake_set_capacity (guint donor, guint64 blocks);
/* It takes no more blocks than that, whatever it has promised; nobody is told. G_MAXUINT64: as
 * before. */
void fake_shrink (guint donor, guint64 level);
/* One byte of each page that it has, but for the first 512 KiB of a block, is another one from now on. */
void fake_damage (guint donor);
/* Blocks that both have and that differ. */
guint64 fake_differences (guint a, guint b);
/* All of its memory is gone. */
void fake_lose_arena (guint donor);
/* 0: nothing is wanted back. Otherwise it is to come down to `level`. */
void fake_revoke (guint donor, gboolean revoke, guint64 level);
/* All donors are attached, and nothing that the test did is still to be told. */
gboolean fake_is_quiet (guint n_donors);
/* Blocks that have contents. */
guint64 fake_used (guint donor);
guint64 fake_ended_leases (void);
/* Reads and writes that were answered, of all donors. */
guint64 fake_requests (guint donor);
/* Those that were asked of it. */
guint64 fake_asked (guint donor);

#endif
