/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The keeper's lines on stderr: nothing is allocated, and what stderr does not take at once is lost. */
#ifndef DOMYBS_IO_KEEPER_LOG_H
#define DOMYBS_IO_KEEPER_LOG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define KEEPER_LINE_BYTES_MAX 4096 /* longer ones are cut */

void keeper_log (const char *format, ...) __attribute__ ((format (printf, 1, 2)));

/* For lines of which a guest, or a broken program, may be able to make any number: 20 at once, after that one a second. */
bool keeper_log_has_room (int64_t now_ms);

/* "signal 9 (Killed)", "exit status 1". */
const char *keeper_status_text (int wait_status);

#endif
