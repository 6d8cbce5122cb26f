/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/secure-side.h"
#include "io/error.h"

#include <gnutls/crypto.h>
#include <string.h>

/* TLS 1.3 with a pre-shared key and a fresh Diffie-Hellman exchange, and nothing else. The hash of GnuTLS's pre-shared keys is
 * SHA-256, so ciphers with another one cannot come about; GnuTLS wants signatures to be named, though nobody signs. */
#define PRIORITIES "NONE:+VERS-TLS1.3:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+ECDHE-PSK:+GROUP-X25519:+GROUP-SECP256R1:+SIGN-ALL"

#define HANDSHAKE_BYTES_MAX (16u * 1024)

static int
find_key (gnutls_session_t session, const char *username, gnutls_datum_t *key) {
  const SecureSide *side = gnutls_session_get_ptr (session);
  guint8 nobodys[PSK_KEY_BYTES_MIN];
  const guint8 *bytes = nobodys;
  gsize n = sizeof nobodys;

  /* Who has no key here gets one that nobody has: it looks the same to him as a wrong one. */
  if (!psk_keys_find (side->keys, username, &bytes, &n) && gnutls_rnd (GNUTLS_RND_NONCE, nobodys, sizeof nobodys) < 0)
    return -1;
  key->data = gnutls_malloc (n);
  if (!key->data)
    return -1;
  memcpy (key->data, bytes, n);
  key->size = (unsigned)n;
  return 0;
}

static SecureSide *
side_new (void) {
  SecureSide *side = g_new0 (SecureSide, 1);

  g_atomic_ref_count_init (&side->refs);
  return side;
}

static gboolean
check (int result, const char *what, GError **error) {
  if (result >= 0)
    return TRUE;
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "TLS: %s: %s", what, gnutls_strerror (result));
  return FALSE;
}

SecureSide *
secure_side_new_server (PskKeys *keys, GError **error) {
  g_autoptr (SecureSide) side = side_new ();

  side->keys = psk_keys_ref (keys);
  if (!check (gnutls_priority_init (&side->priority, PRIORITIES, NULL), "ciphers", error)
      || !check (gnutls_psk_allocate_server_credentials (&side->server), "credentials", error))
    return NULL;
  gnutls_psk_set_server_credentials_function (side->server, find_key);
  return g_steal_pointer (&side);
}

SecureSide *
secure_side_new_client (const char *identity, const guint8 *key, gsize bytes, GError **error) {
  g_autoptr (SecureSide) side = side_new ();
  const gnutls_datum_t datum = { (guint8 *)key, (unsigned)bytes };

  side->identity = g_strdup (identity);
  if (!check (gnutls_priority_init (&side->priority, PRIORITIES, NULL), "ciphers", error)
      || !check (gnutls_psk_allocate_client_credentials (&side->client), "credentials", error)
      || !check (gnutls_psk_set_client_credentials (side->client, identity, &datum, GNUTLS_PSK_KEY_RAW), "the key", error))
    return NULL;
  return g_steal_pointer (&side);
}

SecureSide *
secure_side_ref (SecureSide *side) {
  g_atomic_ref_count_inc (&side->refs);
  return side;
}

void
secure_side_unref (SecureSide *side) {
  if (!side || !g_atomic_ref_count_dec (&side->refs))
    return;
  if (side->priority)
    gnutls_priority_deinit (side->priority);
  if (side->server)
    gnutls_psk_free_server_credentials (side->server);
  if (side->client)
    gnutls_psk_free_client_credentials (side->client); /* wipes the key */
  g_clear_pointer (&side->keys, psk_keys_unref);
  g_free (side->identity);
  g_free (side);
}

int
secure_side_begin (SecureSide *side, gnutls_session_t *ret_session) {
  const unsigned flags = side->server ? GNUTLS_SERVER | GNUTLS_NO_TICKETS : GNUTLS_CLIENT | GNUTLS_NO_TICKETS;
  int result = gnutls_init (ret_session, flags | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL);

  if (result < 0) {
    *ret_session = NULL;
    return result;
  }
  gnutls_session_set_ptr (*ret_session, side);
  gnutls_handshake_set_max_packet_length (*ret_session, HANDSHAKE_BYTES_MAX);
  result = gnutls_priority_set (*ret_session, side->priority);
  if (result < 0)
    return result;
  return gnutls_credentials_set (*ret_session, GNUTLS_CRD_PSK, side->server ? (void *)side->server : side->client);
}
