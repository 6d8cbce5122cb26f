/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pre-shared keys in the form of GnuTLS's psktool: a line `identity:key` each, the key in hexadecimal digits; empty lines and
 * lines that begin with # are left out. An identity is 1–128 printable ASCII characters without a colon; a key 16–64 bytes. At
 * most 4096 lines.
 *
 * Keys are wiped when they are freed, and never appear in an error.
 */
#ifndef DOMYBS_IO_PSK_KEYS_H
#define DOMYBS_IO_PSK_KEYS_H

#include <glib.h>

#define PSK_IDENTITY_BYTES_MAX 128u
#define PSK_KEY_BYTES_MIN 16u
#define PSK_KEY_BYTES_MAX 64u
#define PSK_FILE_BYTES_MAX (1u << 20)

typedef struct PskKeys PskKeys;

/* From a file that only its owner, root or this user, may read. */
PskKeys *psk_keys_load (const char *path, GError **error);
/* From such a file's bytes; name is for errors. */
PskKeys *psk_keys_parse (const char *text, gsize bytes, const char *name, GError **error);

/* FALSE: there is none. The key stays the keys'. */
gboolean psk_keys_find (const PskKeys *keys, const char *identity, const guint8 **ret_key, gsize *ret_bytes);
guint psk_keys_count (const PskKeys *keys);
/* The identity number i, in the order of the file. */
const char *psk_keys_identity (const PskKeys *keys, guint i);

PskKeys *psk_keys_ref (PskKeys *keys);
void psk_keys_unref (PskKeys *keys);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (PskKeys, psk_keys_unref)

#endif
