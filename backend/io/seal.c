/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/seal.h"
#include "core/crash-point.h"
#include "io/error.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

SANDBOX_KEEPER_CALLS (SANDBOX_CALL (mlock));

#define NONCE_BYTES 12u
#define AUTHENTICATED_BYTES 16u

/*
 * Of GnuTLS's interfaces (3.7, 4 KiB, ns): gnutls_aead_cipher_encrypt is the only one that ends in the code that goes over the
 * bytes once for both the cipher and the tag, 930; encryptv2 (in place, tag apart) and gnutls_cipher_encrypt2 go over them
 * twice, 1450. It wants the tag behind the bytes: so all goes through a buffer of ours, which costs 50, and by which it does
 * not matter what happens to guest memory meanwhile: only the cipher's one pass reads or writes it.
 */
struct Seal {
  gnutls_aead_cipher_hd_t cipher; /* NULL: nothing is sealed */
  uint32_t device;
  uint8_t sealed[FAR_PAGE_BYTES + FAR_TAG_BYTES] __attribute__ ((aligned (64)));
};

struct bound {
  uint8_t nonce[NONCE_BYTES];
  uint8_t authenticated[AUTHENTICATED_BYTES];
};

/* The cipher has its key schedule on the heap, which one can't get at but as a whole. It is small at this time. */
static gboolean
lock_heap (void) {
  FILE *maps = fopen ("/proc/self/maps", "re");
  gboolean ok = FALSE;
  char line[256];

  while (maps && fgets (line, sizeof line, maps)) {
    unsigned long start, end;

    if (strstr (line, "[heap]") && sscanf (line, "%lx-%lx", &start, &end) == 2)
      ok = mlock ((const void *)start, end - start) == 0 && madvise ((void *)start, end - start, MADV_DONTDUMP) == 0;
  }
  if (maps)
    fclose (maps);
  return ok;
}

Seal *
seal_new (const uint8_t key[SEAL_KEY_BYTES], uint32_t device, GError **error) {
  Seal *seal = g_aligned_alloc0 (1, sizeof *seal, 64);
  int result;

  seal->device = device;
  if (key) {
    /* takes its own copy of the key, and leaves this one as it is */
    const gnutls_datum_t datum = { (unsigned char *)key, SEAL_KEY_BYTES };

    result = gnutls_aead_cipher_init (&seal->cipher, GNUTLS_CIPHER_AES_256_GCM, &datum);
    if (result < 0) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "no AES-256-GCM: %s", gnutls_strerror (result));
      seal->cipher = NULL;
      seal_free (seal);
      return NULL;
    }
    if (!lock_heap ())
      g_message ("the key of the far pages can't be locked in memory, so it may get into the host's swap; raise the limit "
                 "(ulimit -l, LimitMEMLOCK=)");
  }
  return seal;
}

void
seal_free (Seal *seal) {
  if (seal && seal->cipher)
    gnutls_aead_cipher_deinit (seal->cipher); /* wipes it */
  g_aligned_free (seal);
}

static void
put32 (uint8_t *to, uint32_t value) {
  value = GUINT32_TO_BE (value);
  memcpy (to, &value, sizeof value);
}

static void
put64 (uint8_t *to, uint64_t value) {
  value = GUINT64_TO_BE (value);
  memcpy (to, &value, sizeof value);
}

static void
bind_to (const Seal *seal, uint64_t number, const struct far_page *page, struct bound *to) {
  put32 (to->nonce, seal->device);
  put64 (to->nonce + 4, page->version);
  put64 (to->authenticated, number);
  put32 (to->authenticated + 8, page->bytes);
  put32 (to->authenticated + 12, page->kind);
}

/*
 * The cipher reads `in` once, and makes the tag of what it wrote, so a page that changes meanwhile is sealed as some mixture of
 * before and after, like any write that a guest does not wait for. (Tested with a thread that does just that.)
 */
gboolean
seal_close_page (Seal *seal, uint64_t number, struct far_page *page, const uint8_t *in, uint8_t *out) {
  size_t sealed_bytes = sizeof seal->sealed;
  struct bound to;

  g_return_val_if_fail (page->bytes <= FAR_PAGE_BYTES, FALSE);
  if (!seal->cipher) {
    memmove (out, in, page->bytes);
    memset (page->tag, 0, FAR_TAG_BYTES);
    return TRUE;
  }
  CRASH_NONCE (seal->device, page->version);
  bind_to (seal, number, page, &to);
  if (gnutls_aead_cipher_encrypt (seal->cipher, to.nonce, sizeof to.nonce, to.authenticated, sizeof to.authenticated,
                                  FAR_TAG_BYTES, in, page->bytes, seal->sealed, &sealed_bytes)
          < 0
      || sealed_bytes != page->bytes + FAR_TAG_BYTES)
    return FALSE;
  memcpy (out, seal->sealed, page->bytes);
  memcpy (page->tag, seal->sealed + page->bytes, FAR_TAG_BYTES);
  return TRUE;
}

gboolean
seal_open_page (Seal *seal, uint64_t number, const struct far_page *page, const uint8_t *in, uint8_t *out) {
  size_t bytes = page->bytes;
  struct bound to;

  g_return_val_if_fail (page->bytes <= FAR_PAGE_BYTES, FALSE);
  if (!seal->cipher) {
    memmove (out, in, page->bytes);
    return TRUE;
  }
  bind_to (seal, number, page, &to);
  memcpy (seal->sealed, in, page->bytes);
  memcpy (seal->sealed + page->bytes, page->tag, FAR_TAG_BYTES);
  if (gnutls_aead_cipher_decrypt (seal->cipher, to.nonce, sizeof to.nonce, to.authenticated, sizeof to.authenticated,
                                  FAR_TAG_BYTES, seal->sealed, page->bytes + FAR_TAG_BYTES, out, &bytes)
          == 0
      && bytes == page->bytes)
    return TRUE;
  memset (out, 0, page->bytes);
  return FALSE;
}
