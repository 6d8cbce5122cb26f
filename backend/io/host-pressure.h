/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How long the host's tasks wait for memory (PSI). */
#ifndef DOMYBS_IO_HOST_PRESSURE_H
#define DOMYBS_IO_HOST_PRESSURE_H

#include <glib.h>

typedef struct {
  unsigned some, full; /* of the last ten seconds, in hundredths of a percent */
} HostPressure;

/* From /proc/pressure/memory, which stays open from the first call on. FALSE: the kernel does not say (ret_pressure is zeroes).
 */
gboolean host_pressure_read (HostPressure *ret_pressure);

#endif
