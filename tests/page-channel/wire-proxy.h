/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A wire between a channel and its donor that somebody spoils: a process that passes bytes on, with knobs. */
#ifndef DOMYBS_TESTS_WIRE_PROXY_H
#define DOMYBS_TESTS_WIRE_PROXY_H

#include <glib.h>
#include <sys/types.h>

typedef struct {
  char *address;
  pid_t pid;
  struct wire_knobs {
    gint stall_up, stall_down; /* bytes in that direction (up: to the donor) stay here, also those of connections that their
                                  sender has closed */
    gint stall_until;          /* the same, up, of the first so many connections: see `connections` */
    gint piece;                /* bytes passed on at a time; 0: what there is */
    gint flip;                 /* one bit of so many KiB that go down is another one; 0: none */
    gint refuse;               /* ends new ones at once */
    gint cuts, cut;            /* see wire_proxy_cut: asked for, done */
    gint flipped, connections; /* counted */
  } * knobs;
} WireProxy;

WireProxy *wire_proxy_new (const char *to, guint32 seed);
void wire_proxy_free (WireProxy *proxy);
/* Ends all connections: they have when it returns. */
void wire_proxy_cut (WireProxy *proxy);
/* Seen by it at its next turn, some ms later at most. */
#define wire_proxy_set(proxy, knob, value) g_atomic_int_set (&(proxy)->knobs->knob, (value))

#endif
