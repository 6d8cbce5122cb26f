/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long requests took: two buckets to a power of two, bucket b has what took less than 2^(b/2) µs. */
#ifndef DOMYBS_FAR_LATENCY_H
#define DOMYBS_FAR_LATENCY_H

#include <json-glib/json-glib.h>

#include "far/engine.h"

guint latency_bucket (gint64 us);
/* An object of that name with p50, p95, p99: the upper ends of their buckets, in µs; null where nothing was counted. */
void latency_add (JsonBuilder *builder, const char *name, const guint64 buckets[FAR_LATENCY_BUCKETS]);

#endif
