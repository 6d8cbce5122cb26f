/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/wear.h"

/* Of a day's bytes the eighth is the bucket, the rest flows into it: in a day. */
#define FLOW_US(bytes, day_bytes) ((bytes) * (WEAR_DAY_US * 8 / 7) / (day_bytes))
#define BURST_US (WEAR_DAY_US / 7) /* for an eighth to flow in */
/* Nobody owes more; and a number that can't be one does not hold back for ever. */
#define DEBT_MAX_US (WEAR_DAY_US + BURST_US)

static uint64_t
until_full (uint64_t full_at_us, uint64_t now_us) {
  const uint64_t us = full_at_us > now_us ? full_at_us - now_us : 0;

  return us < DEBT_MAX_US ? us : DEBT_MAX_US;
}

uint64_t
wear_burst_bytes (uint64_t day_bytes) {
  return day_bytes / 8;
}

uint64_t
wear_left (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us) {
  const uint64_t flow = day_bytes - wear_burst_bytes (day_bytes), us = until_full (full_at_us, now_us);

  if (us >= BURST_US)
    return 0;
  /* in two parts, so that nothing overflows */
  return (BURST_US - us) * (flow / WEAR_DAY_US) + (BURST_US - us) / 1000 * (flow % WEAR_DAY_US) / (WEAR_DAY_US / 1000);
}

uint64_t
wear_wait_us (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes) {
  const uint64_t us = until_full (full_at_us, now_us);
  const uint64_t after = us + FLOW_US (bytes, day_bytes);

  if (us == 0 || after <= BURST_US)
    return 0;
  return after - BURST_US < us ? after - BURST_US : us;
}

uint64_t
wear_spend (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes) {
  const uint64_t us = until_full (full_at_us, now_us) + FLOW_US (bytes, day_bytes) + 1; /* rounded up */

  return now_us + (us < DEBT_MAX_US ? us : DEBT_MAX_US);
}

uint64_t
wear_spend_left (uint64_t day_bytes, uint64_t full_at_us, uint64_t now_us, uint64_t bytes) {
  const uint64_t was = until_full (full_at_us, now_us), us = was + FLOW_US (bytes, day_bytes) + 1,
                 most = was > BURST_US ? was : BURST_US;

  return now_us + (us < most ? us : most);
}
