/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A wire to a donor that is slow, or dead in one direction for one kind of connection: a process that passes bytes on, with
 * knobs. (A kernel's netem would do for the first, where there is one; nothing else tells apart what goes to the same port.)
 */
#ifndef DOMYBS_TESTS_CLUSTER_RELAY_H
#define DOMYBS_TESTS_CLUSTER_RELAY_H

#include <glib.h>
#include <sys/types.h>

/* Known by their first option, so only without TLS; with it all are RELAY_DATA. */
enum relay_kind { RELAY_DATA, RELAY_LEASE, RELAY_KINDS };
enum relay_way { RELAY_UP /* to the donor */, RELAY_DOWN, RELAY_WAYS };

struct relay_knobs {
  gint delay_ms[RELAY_WAYS];             /* each byte arrives so much later */
  gint stalled[RELAY_KINDS][RELAY_WAYS]; /* nothing arrives; what was sent does when this is over, for that is how TCP is */
  gint connections[RELAY_KINDS];         /* counted */
};

typedef struct {
  char *address;
  pid_t pid;
  struct relay_knobs *knobs;
} Relay;

Relay *relay_new (const char *to);
void relay_free (Relay *relay);
/* Seen at its next turn, some ms later at most. */
#define relay_set(relay, knob, value) g_atomic_int_set (&(relay)->knobs->knob, (value))

#endif
