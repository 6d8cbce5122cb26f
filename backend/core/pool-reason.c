/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/pool-reason.h"

#include <string.h>

/* In a pattern: %h, %o the hosts' names; %0 to %3 the numbers. */
static const struct {
  const char *name, *pattern;
} reasons[] = {
  [POOL_YES] = { "yes", "nothing is against it" },
  [POOL_NO_FROZEN] = { "frozen", "the pool is frozen" },
  [POOL_NO_SENSE] = { "bad-request", "%0 blocks can't be granted" },
  [POOL_NO_MODE] = { "storage-only", "it is protected by storage alone: it needs no donor" },
  [POOL_NO_QUOTA] = { "quota", "%0 blocks more would exceed its quota: it has %1 of %2" },
  [POOL_NO_TENANT] = { "tenant-quota", "%0 blocks more would exceed its tenant's quota: that has %1 of %2" },
  [POOL_NO_SQUEEZED] = { "borrower-lends", "its host %h is under pressure and lends %0 blocks itself: these come back first" },
  [POOL_NO_HEADROOM] = { "headroom", "%0 blocks would be missing to make anew what %h lends (%1), should it die" },
  [POOL_NO_PRIORITY] = { "priority", "%1 blocks would be left, and the last %0 are for borrowers of higher priority" },
  [POOL_NO_DONOR] = { "no-donor", "of %0 hosts %1 could take something, but none as much" },
  [POOL_NOT_OWN] = { "own-host", "%h: the VM runs there itself" },
  [POOL_NOT_UP] = { "down", "%h is not heard of" },
  [POOL_NOT_FROZEN] = { "host-frozen", "%h is frozen" },
  [POOL_NOT_DRAINED] = { "draining", "%h is being drained" },
  [POOL_NOT_PRESSED] = { "pressure", "%h is under memory pressure itself" },
  [POOL_NOT_KNOWN] = { "no-keys", "%h is no donor of this VM" },
  [POOL_NOT_ZONE] = { "other-zone", "%h is in another zone" },
  [POOL_NOT_DOMAIN] = { "same-domain", "%h may fail together with %o, which has the other copy" },
  [POOL_NOT_SET] = { "no-copyset", "%h shares no copyset with %o, which has the other copy" },
  [POOL_NOT_ROOM] = { "no-room", "%h has room for %1 blocks, not for %0" },
  [POOL_NOT_ADMITTED] = { "not-admitted", "%h was asked and refused" },
  [POOL_TWO] = { "emptier-of-two", "of two drawn, %h will lend %0 of %1 blocks, %o would %2 of %3" },
  [POOL_ONLY] = { "only-one", "nothing else would do; %h will lend %0 of %1 blocks" },
  [POOL_SAME] = { "same-of-two", "of two copysets drawn, %h is the fuller host in both; it will lend %0 of %1 blocks" },
  [POOL_ADMIT_LESS] = { "admits-less", "%h takes %0 blocks and no more" },
  [POOL_MOVE_DRAIN] = { "drain", "%h is being drained; %o lends %2 of %3 blocks" },
  [POOL_MOVE_LIMIT] = { "over-limit", "%h lends %0 blocks and wants to lend %1; %o lends %2 of %3" },
  [POOL_MOVE_FULL] = { "over-share", "%h lends %0 of %1 blocks, which is above its share; %o %2 of %3" },
  [POOL_MOVE_EMPTY] = { "under-share", "%o lends %2 of %3 blocks, which is below its share; %h %0 of %1" },
  [POOL_MOVE_ROOM] = { "make-room", "%h needs the room for what may not lie with %o" },
  [POOL_CALL_MOVE] = { "to-donor", "%o has room for %0 blocks" },
  [POOL_CALL_STORAGE] = { "to-storage", "to storage, because no donor may take them" },
  [POOL_CALL_LAST] = { "to-storage-last", "to storage, though the guest is short of memory: %h has none left" },
};

struct text {
  char *at;
  size_t left; /* without the terminating 0 */
};

static void
add (struct text *text, const char *piece, size_t n) {
  n = n < text->left ? n : text->left;
  memcpy (text->at, piece, n);
  text->at += n;
  text->left -= n;
}

static void
add_number (struct text *text, uint64_t number) {
  char digits[20];
  size_t n = 0;

  do
    digits[sizeof digits - ++n] = (char)('0' + number % 10);
  while (number /= 10);
  add (text, digits + sizeof digits - n, n);
}

static void
add_host (struct text *text, const struct pool_snapshot *snapshot, uint32_t host) {
  if (host < snapshot->n_hosts)
    add (text, snapshot->hosts[host].name, strlen (snapshot->hosts[host].name));
  else
    add (text, "nobody", 6);
}

const char *
pool_reason_text (const struct pool_snapshot *snapshot, const struct pool_reason *reason, char *buffer) {
  struct text text = { buffer, POOL_REASON_BYTES - 1 };

  for (const char *p = (unsigned)reason->why < sizeof reasons / sizeof reasons[0] ? reasons[reason->why].pattern : "?"; *p;
       p++) {
    if (*p != '%') {
      add (&text, p, 1);
      continue;
    }
    p++;
    if (*p == 'h' || *p == 'o')
      add_host (&text, snapshot, *p == 'h' ? reason->host : reason->other);
    else
      add_number (&text, reason->n[(*p - '0') & 3]);
  }
  *text.at = 0;
  return buffer;
}

const char *
pool_why_name (enum pool_why why) {
  return (unsigned)why < sizeof reasons / sizeof reasons[0] ? reasons[why].name : "?";
}
