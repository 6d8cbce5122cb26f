/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/prefetch.h"

#include <stddef.h>
#include <string.h>

/* Requests of a stream overtake each other by so many pages at most. */
#define SLACK 64
/* Reads that are further apart are no strides; nor are those with so many others between them. */
#define STRIDE_MAX 8192
#define STRIDE_LOOK_BACK 12u
/* A stream may leave out so many of its strides. */
#define STRIDES_LEFT_OUT 4
#define WINDOW_FIRST 8u
/* So many reads, one after the other, that are near a stream and not so close to its next one: that is chance. */
#define LOOSE_MAX 6u
#define CLOSE 8
#define HOLD_AFTER_WASTE 4u
#define CREDIT_FIRST 128
#define CREDIT_MAX 4096
/* Streams that last so long are worth it, whatever came of the others. */
#define MATCHES_TO_LAST 16u

void
prefetch_init (struct prefetch *prefetch, uint64_t n_pages, uint32_t ahead_max) {
  memset (prefetch, 0, sizeof *prefetch);
  prefetch->n_pages = n_pages;
  prefetch->ahead_max = ahead_max;
  prefetch->credit = CREDIT_FIRST;
  for (unsigned i = 0; i < PREFETCH_HISTORY; i++)
    prefetch->history[i].first = prefetch->history[i].end = UINT64_MAX; /* next to nothing */
}

static uint32_t
clamp_window (const struct prefetch *prefetch, uint64_t pages) {
  return pages < prefetch->ahead_max ? (uint32_t)pages : prefetch->ahead_max;
}

/* ---- streams that are known ---- */

/* Whether the read is near the stream; *ret_close: very near. Moves the stream on to it. */
static bool
is_near (struct prefetch_stream *s, int64_t first, int64_t end, bool *ret_close) {
  int64_t k;

  switch (s->way) {
  case PREFETCH_FORWARDS:
    if (first < s->at - SLACK || first > (s->edge > s->at + SLACK ? s->edge : s->at + SLACK))
      return false;
    *ret_close = first >= s->at - CLOSE && first <= s->at + CLOSE;
    s->at = end > s->at ? end : s->at;
    s->edge = s->at > s->edge ? s->at : s->edge;
    return true;
  case PREFETCH_BACKWARDS:
    if (end > s->at + SLACK || end < (s->edge < s->at - SLACK ? s->edge : s->at - SLACK))
      return false;
    *ret_close = end >= s->at - CLOSE && end <= s->at + CLOSE;
    s->at = first < s->at ? first : s->at;
    s->edge = s->at < s->edge ? s->at : s->edge;
    return true;
  case PREFETCH_STRIDES:
    if (end - first != s->n || (first - s->at) % s->stride)
      return false;
    k = (first - s->at) / s->stride;
    if (k < -STRIDES_LEFT_OUT || (k > STRIDES_LEFT_OUT && k >= (s->edge - s->at) / s->stride))
      return false;
    *ret_close = k >= -1 && k <= 2;
    if (k > 0)
      s->at = first;
    if ((s->edge - s->at) / s->stride <= 0)
      s->edge = s->at + s->stride;
    return true;
  case PREFETCH_FREE:
  default:
    return false;
  }
}

/* Whether the read belongs to the stream. One that has nothing but reads nearby has ended. */
static bool
goes_on (struct prefetch_stream *s, int64_t first, int64_t end) {
  bool close;

  if (!is_near (s, first, end, &close))
    return false;
  s->loose = close ? 0 : s->loose + 1;
  if (s->loose <= LOOSE_MAX)
    return true;
  memset (s, 0, sizeof *s);
  return false;
}

/* The one that was not used for the longest time. */
static struct prefetch_stream *
new_stream (struct prefetch *prefetch) {
  struct prefetch_stream *oldest = &prefetch->streams[0];

  for (unsigned i = 1; i < PREFETCH_STREAMS; i++)
    if (prefetch->streams[i].used < oldest->used)
      oldest = &prefetch->streams[i];
  memset (oldest, 0, sizeof *oldest);
  oldest->number = ++prefetch->last_number;
  return oldest;
}

/* ---- finding new ones ---- */

/* Whether there was a read [first, + n), among the `among` last ones but `from`. Returns its age, counting from 1; 0: there was
 * none. */
static unsigned
find (const struct prefetch *prefetch, int64_t first, uint64_t n, unsigned from, unsigned among) {
  for (unsigned age = from + 1; age <= among && age <= PREFETCH_HISTORY; age++) {
    const unsigned i = (prefetch->newest + PREFETCH_HISTORY + 1 - age) % PREFETCH_HISTORY;

    if (prefetch->history[i].first == (uint64_t)first && prefetch->history[i].end == (uint64_t)first + n)
      return age;
  }
  return 0;
}

/* Three in a row: this one, one that it continues, and one that that one does. */
static enum prefetch_way
in_a_row (const struct prefetch *prefetch, uint64_t first, uint64_t end) {
  for (unsigned i = 0; i < PREFETCH_HISTORY; i++) {
    const uint64_t h_first = prefetch->history[i].first, h_end = prefetch->history[i].end;

    if (h_end != first && h_first != end)
      continue;
    for (unsigned k = 0; k < PREFETCH_HISTORY; k++) {
      if (k == i)
        continue;
      if (h_end == first && prefetch->history[k].end == h_first)
        return PREFETCH_FORWARDS;
      if (h_first == end && prefetch->history[k].first == h_end)
        return PREFETCH_BACKWARDS;
    }
  }
  return PREFETCH_FREE;
}

/* Four at equal distances, one after the other. Returns the distance, 0: there are none. */
static int64_t
in_strides (const struct prefetch *prefetch, int64_t first, uint64_t n) {
  for (unsigned age = 1; age <= STRIDE_LOOK_BACK; age++) {
    const unsigned i = (prefetch->newest + PREFETCH_HISTORY + 1 - age) % PREFETCH_HISTORY;
    const int64_t distance = first - (int64_t)prefetch->history[i].first;
    unsigned second;

    if (distance == 0 || distance > STRIDE_MAX || distance < -STRIDE_MAX
        || prefetch->history[i].end - prefetch->history[i].first != n)
      continue;
    second = find (prefetch, first - 2 * distance, n, age, age + STRIDE_LOOK_BACK);
    if (second && find (prefetch, first - 3 * distance, n, second, second + STRIDE_LOOK_BACK))
      return distance;
  }
  return 0;
}

static struct prefetch_stream *
find_new (struct prefetch *prefetch, uint64_t first, uint64_t end) {
  const uint64_t n = end - first;
  enum prefetch_way way = in_a_row (prefetch, first, end);
  int64_t stride = 0;
  struct prefetch_stream *s;

  if (way == PREFETCH_FREE) {
    stride = in_strides (prefetch, (int64_t)first, n);
    if (stride == 0)
      return NULL;
    way = PREFETCH_STRIDES;
  }
  s = new_stream (prefetch);
  s->way = way;
  s->matches = 1;
  s->stride = stride;
  s->n = (uint32_t)n;
  s->window = clamp_window (prefetch, 2 * n > WINDOW_FIRST ? 2 * n : WINDOW_FIRST);
  s->at = way == PREFETCH_FORWARDS ? (int64_t)end : (int64_t)first;
  s->edge = s->at + stride;
  return s;
}

/* ---- what is next ---- */

static void
grow (const struct prefetch *prefetch, struct prefetch_stream *s) {
  if (s->hold)
    s->hold--;
  else
    s->window = clamp_window (prefetch, 2ull * s->window);
}

static unsigned
ask_row (const struct prefetch *prefetch, struct prefetch_stream *s, struct prefetch_range *ret) {
  const bool forwards = s->way == PREFETCH_FORWARDS;
  const int64_t ahead = forwards ? s->edge - s->at : s->at - s->edge;
  int64_t begin, end;

  if (2 * ahead > s->window)
    return 0;
  begin = forwards ? s->edge : s->at - s->window;
  end = forwards ? s->at + s->window : s->edge;
  begin = begin > 0 ? begin : 0;
  end = end < (int64_t)prefetch->n_pages ? end : (int64_t)prefetch->n_pages;
  if (begin >= end)
    return 0;
  *ret = (struct prefetch_range){ (uint64_t)begin, (uint32_t)(end - begin), s->number };
  s->edge = forwards ? end : begin;
  grow (prefetch, s);
  return 1;
}

static unsigned
ask_strides (const struct prefetch *prefetch, struct prefetch_stream *s, struct prefetch_range *ret, unsigned max) {
  const int64_t window = s->window > s->n ? s->window / s->n : 1, ahead = (s->edge - s->at) / s->stride - 1;
  const int64_t last = s->at + window * s->stride;
  unsigned n = 0;

  if (2 * ahead > window)
    return 0;
  for (; n < max && (last - s->edge) / s->stride >= 0; n++, s->edge += s->stride) {
    if (s->edge < 0 || s->edge + (int64_t)s->n > (int64_t)prefetch->n_pages)
      break;
    ret[n] = (struct prefetch_range){ (uint64_t)s->edge, s->n, s->number };
  }
  if (n)
    grow (prefetch, s);
  return n;
}

unsigned
prefetch_read (struct prefetch *prefetch, uint64_t first, uint64_t n, struct prefetch_range *ret_ranges, unsigned max) {
  struct prefetch_stream *s = NULL;

  for (unsigned i = 0; i < PREFETCH_STREAMS && !s; i++)
    if (goes_on (&prefetch->streams[i], (int64_t)first, (int64_t)(first + n)))
      s = &prefetch->streams[i];
  prefetch->now++;
  if (s)
    s->matches++;
  else
    s = find_new (prefetch, first, first + n);
  prefetch->newest = (prefetch->newest + 1) % PREFETCH_HISTORY;
  prefetch->history[prefetch->newest].first = first;
  prefetch->history[prefetch->newest].end = first + n;
  if (!s)
    return 0;
  s->used = prefetch->now;
  if (max == 0 || (prefetch->credit < 0 && s->matches < MATCHES_TO_LAST))
    return 0;
  if (s->way == PREFETCH_STRIDES)
    return ask_strides (prefetch, s, ret_ranges, max < PREFETCH_RANGES_MAX ? max : PREFETCH_RANGES_MAX);
  return ask_row (prefetch, s, ret_ranges);
}

/* ---- what came of it ---- */

void
prefetch_used (struct prefetch *prefetch, uint32_t pages) {
  const int64_t credit = (int64_t)prefetch->credit + pages;

  prefetch->credit = credit < CREDIT_MAX ? (int32_t)credit : CREDIT_MAX;
}

void
prefetch_wasted (struct prefetch *prefetch, uint32_t stream, uint32_t pages) {
  const int64_t credit = (int64_t)prefetch->credit - pages;

  prefetch->credit = credit > -CREDIT_MAX ? (int32_t)credit : -CREDIT_MAX;
  for (unsigned i = 0; i < PREFETCH_STREAMS; i++) {
    struct prefetch_stream *s = &prefetch->streams[i];

    if (s->way == PREFETCH_FREE || s->number != stream)
      continue;
    s->window /= 2;
    s->hold = HOLD_AFTER_WASTE;
    if (s->window < WINDOW_FIRST / 2)
      memset (s, 0, sizeof *s);
  }
}
