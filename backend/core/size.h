/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Sizes as operators write them. Pure. */
#ifndef DOMYBS_CORE_SIZE_H
#define DOMYBS_CORE_SIZE_H

#include <stdbool.h>
#include <stdint.h>

/* Reads "64G", "512M", "2MiB", "1.5T", "4096" (bytes): decimal number, then nothing or one of K M G T (binary, as QEMU and libvirt
 * read them), optionally followed by "iB" or "B". No sign, no space; at most three decimals. False on anything else or on
 * overflow; *ret_bytes is untouched then. */
bool size_parse (const char *text, uint64_t *ret_bytes);

#endif
