/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A back-end's control socket as operators see it, with nothing behind it: workers that are replaced, die, or refuse on a
 * test's order. What it says is backend/device/control.md's, as far as domybsctl asks for it.
 */
#ifndef DOMYBS_TESTS_CTL_FAKE_CONTROL_H
#define DOMYBS_TESTS_CTL_FAKE_CONTROL_H

#include <glib.h>

/* NULL, 0 and FALSE: a back-end of version 0.1.0 to which nothing has ever happened. */
typedef struct {
  const char *installed;  /* the version that `upgrade` brings (0.1.0) */
  gboolean too_old;       /* it knows neither restart nor upgrade, and its status has no worker */
  const char *refusal;    /* … or refuses them in these words */
  gboolean silent;        /* … or neither answers nor ends */
  gboolean same;          /* … or ends the connection, and the worker is the one that it was */
  gboolean short_lived;   /* … or the new worker dies, and an upgrade is undone */
  unsigned hang_ups;      /* so many questions find their worker dying, and are not answered */
  unsigned deaths;        /* workers that had died before, … */
  unsigned strikes;       /* … and in a row, … */
  const char *last_death; /* … as this says, five minutes ago */
  gboolean busy;
  const char *status; /* it is a domybs-far, which answers this to "status" (members of an object) */
  gboolean far;       /* it is a domybs-far with one disk, shared, and one object, model */
  unsigned away;      /* … and after each new worker so many looks find QEMU not connected to it */
  unsigned blocks;    /* … and so many blocks of it are in use */
} FakeHabits;

typedef struct FakeControl FakeControl;

/* Listens at path until it is stopped. */
FakeControl *fake_control_start (const char *path, const FakeHabits *habits);
void fake_control_stop (FakeControl *control);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FakeControl, fake_control_stop)

/* Workers so far; of `restart` and `upgrade`, how many have come. */
unsigned fake_control_starts (FakeControl *control);
unsigned fake_control_orders (FakeControl *control);

#endif
