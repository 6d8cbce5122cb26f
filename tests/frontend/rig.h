/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The test rig: one back-end, shared by the tests of a program, and the check that every test must end with.
 *
 *   rig_check: the back-end lives, and its worker is still the first one; a fresh, well-behaved front-end gets a session, blocks that
 *   read as zero, and can give them back; descriptors, mappings and anonymous memory are what they were before the test.
 *
 * rig_add registers a test and runs that check after it, so no test can forget it.
 */
#ifndef DOMYBS_TESTS_RIG_H
#define DOMYBS_TESTS_RIG_H

#include "frontend.h"
#include "process.h"

#define RIG_WINDOW_BLOCKS 1024u /* 2 GiB */
#define RIG_SECTION_BLOCKS 64u
#define RIG_AUDIT_MS 200

struct rig {
  struct backend *backend;
  pid_t worker; /* the first one: nothing that a peer does may end it */
  unsigned fds, maps; /* with nobody connected */
  uint64_t anonymous_kib;
  size_t log_mark; /* where the current test's log begins */
};

/* The rig of this program; started at the first call with "--window=2G --audit-interval=200" and $rig_arguments. */
struct rig *rig_get (void);
/* More arguments for its back-end (NULL-terminated); set before the first rig_get. */
extern const char *const *rig_arguments;

typedef void (*rig_test) (struct rig *rig, const void *data);
void rig_add (const char *path, rig_test test, const void *data);
int rig_run (void); /* g_test_run, then stops the back-end: SIGTERM must end it with exit status 0 */

/* A connected front-end with a session; aborts the test otherwise. */
struct fe *rig_open (struct rig *rig);
/* As far as `step`. */
struct fe *rig_open_to (struct rig *rig, enum fe_step step);

/* Waits until the connection was closed and a reason was logged since the test began. reason may be NULL: any. */
void rig_expect_closed (struct rig *rig, struct fe *fe, const char *reason);
/* Waits until a reason was logged since the test began; the connection may go on. */
void rig_expect_logged (struct rig *rig, const char *reason);
/* Waits until something was logged at all. */
void rig_expect_any_log (struct rig *rig);
/* The queue was declared broken or the device closed: a reason is logged and the submitted chain is not answered. */
void rig_expect_queue_broken (struct rig *rig, struct fe *fe, const char *reason);
/* Marks where "since the test began" starts, within a test. */
void rig_mark (struct rig *rig);

void rig_check (struct rig *rig);

/* Whether others are served while something floods: counts each time that somebody waited, in ms. A moment in which this
 * machine stood still is nobody's fault: so it is the usual wait that must be short, a tenth of fe_patience_ms, and not the
 * longest one. */
struct rig_waits {
  unsigned n, slow;
};
void rig_waited (struct rig_waits *waits, int64_t ms);
void rig_expect_short_waits (const struct rig_waits *waits);

/* The call must succeed; otherwise the test fails with the front-end's reason. */
#define fe_must(fe, call) \
  do { \
    if (!(call)) { \
      g_autofree char *text_ = g_strdup_printf ("%s: %s", #call, (fe)->why ? (fe)->why : "?"); \
      g_assertion_message (G_LOG_DOMAIN, __FILE__, __LINE__, G_STRFUNC, text_); \
    } \
  } while (0)

#endif
