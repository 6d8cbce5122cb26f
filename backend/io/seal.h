/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Seals of far pages: AES-256-GCM (GnuTLS) under a key that lives as long as the VM's keeper and is nowhere but in its memory.
 *
 *   nonce           device (4 bytes), version (8): a version is never used twice (core/far-store.h)
 *
 *   authenticated   page number (8 bytes), stored bytes (4), kind (4); all of them big endian
 *
 * A tag stays with the page table, so whoever has the sealed bytes can neither read, alter, exchange nor replay them: an older
 * version has another nonce, another page another number.
 */
#ifndef DOMYBS_IO_SEAL_H
#define DOMYBS_IO_SEAL_H

#include <glib.h>

#include "core/far-store.h"

#define SEAL_KEY_BYTES 32u

typedef struct Seal Seal;

/* key NULL: pages are not sealed (tags are zero, opening always succeeds): for measurements, and for storage that one trusts.
 * The caller wipes its key; what the cipher keeps of it is in memory that is locked where that may be (RLIMIT_MEMLOCK), and
 * wiped by seal_free. Before sandbox_worker. */
Seal *seal_new (const uint8_t key[SEAL_KEY_BYTES], uint32_t device, GError **error);
void seal_free (Seal *seal);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Seal, seal_free)

/* Reads page->bytes (1 … 4096) of in, which may change under it (guest memory), writes as many to out, and sets page->tag,
 * which is right for what it wrote to out. page->kind, bytes and version are set. FALSE: the cipher failed (never seen; then
 * nothing may be stored). */
gboolean seal_close_page (Seal *seal, uint64_t number, struct far_page *page, const uint8_t *in, uint8_t *out);

/* The other way; in and out may change under it (storage, guest memory). FALSE: these are not the bytes that were sealed; out
 * is zeroed then. In neither function it matters whether in and out overlap. */
gboolean seal_open_page (Seal *seal, uint64_t number, const struct far_page *page, const uint8_t *in, uint8_t *out);

#endif
