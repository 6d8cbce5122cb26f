/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Seals: that they are AES-256-GCM as NIST says, and that nothing else opens them than what was sealed. */
#include "io/seal.h"
#include "testing.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

#define PAGE FAR_PAGE_BYTES

static void
fill (GRand *rand, uint8_t *buf, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    buf[i] = (uint8_t)testing_below (rand, 256);
}

static Seal *
make_seal (GRand *rand, uint32_t device) {
  uint8_t key[SEAL_KEY_BYTES];
  g_autoptr (GError) error = NULL;
  Seal *seal;

  fill (rand, key, sizeof key);
  seal = seal_new (key, device, &error);
  g_assert_no_error (error);
  return seal;
}

static gboolean
is_zero (const uint8_t *buf, size_t bytes) {
  for (size_t i = 0; i < bytes; i++)
    if (buf[i])
      return FALSE;
  return TRUE;
}

static size_t
from_hex (const char *hex, uint8_t *out) {
  for (size_t i = 0; hex[2 * i]; i++)
    out[i] = (uint8_t)(g_ascii_xdigit_value (hex[2 * i]) << 4 | g_ascii_xdigit_value (hex[2 * i + 1]));
  return strlen (hex) / 2;
}

/* ---- known answers ---- */

/* Vectors for AES-256-GCM with a tag of 128 bits: McGrew and Viega, "The Galois/Counter Mode of Operation", test cases 13 to
 * 16; checked against the library, because that is what the seals below are compared with. */
static const struct {
  const char *key, *nonce, *authenticated, *plain, *sealed, *tag;
} vectors[] = {
  { "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "", "", "",
    "530f8afbc74536b9a963b4f1c4cb738b" },
  { "0000000000000000000000000000000000000000000000000000000000000000", "000000000000000000000000", "",
    "00000000000000000000000000000000", "cea7403d4d606b6e074ec5d3baf39d18", "d0d1c8a799996bf0265b98b5d48ab919" },
  { "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888", "",
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391a"
    "afd255",
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f66289"
    "8015ad",
    "b094dac5d93471bdec1a502270e3cc6c" },
  { "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
    "feedfacedeadbeeffeedfacedeadbeefabaddad2",
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
    "76fc6ece0f4e1768cddf8853bb2d551b" },
};

static void
test_vectors (void) {
  for (unsigned i = 0; i < G_N_ELEMENTS (vectors); i++) {
    uint8_t key[32], nonce[12], authenticated[64], plain[64], sealed[64 + 16], expected[64 + 16];
    const gnutls_datum_t datum = { key, (unsigned)from_hex (vectors[i].key, key) };
    const size_t n_authenticated = from_hex (vectors[i].authenticated, authenticated),
                 n_plain = from_hex (vectors[i].plain, plain);
    gnutls_aead_cipher_hd_t cipher;
    size_t n_sealed = sizeof sealed;

    from_hex (vectors[i].nonce, nonce);
    from_hex (vectors[i].tag, expected + from_hex (vectors[i].sealed, expected));
    g_assert_cmpint (gnutls_aead_cipher_init (&cipher, GNUTLS_CIPHER_AES_256_GCM, &datum), ==, 0);
    g_assert_cmpint (
        gnutls_aead_cipher_encrypt (cipher, nonce, 12, authenticated, n_authenticated, 16, plain, n_plain, sealed, &n_sealed),
        ==, 0);
    g_assert_cmpmem (sealed, n_sealed, expected, n_plain + 16);
    gnutls_aead_cipher_deinit (cipher);
  }
}

/* That a seal is this cipher over what seal.h says, in the order that it says: it may be opened by another version years later.
 */
static void
test_layout (void) {
  g_autoptr (GRand) rand = testing_rand ();

  for (unsigned i = 0; i < testing_steps (300); i++) {
    const uint32_t device = (uint32_t)testing_edgy (rand);
    const uint64_t number = testing_edgy (rand);
    struct far_page page = { .kind = testing_once_in (rand, 2) ? FAR_RAW : FAR_PACKED, .version = testing_edgy (rand) };
    uint8_t key[32], in[PAGE], out[PAGE], nonce[12], authenticated[16], expected[PAGE + 16];
    const gnutls_datum_t datum = { key, sizeof key };
    gnutls_aead_cipher_hd_t cipher;
    size_t bytes = sizeof expected;
    g_autoptr (Seal) seal = NULL;

    page.bytes = 1 + (uint32_t)testing_below (rand, PAGE);
    fill (rand, key, sizeof key);
    fill (rand, in, sizeof in);
    seal = seal_new (key, device, NULL);
    g_assert_true (seal_close_page (seal, number, &page, in, out));
    for (unsigned j = 0; j < 8; j++) {
      if (j < 4) {
        nonce[j] = (uint8_t)(device >> (24 - 8 * j));
        authenticated[8 + j] = (uint8_t)(page.bytes >> (24 - 8 * j));
        authenticated[12 + j] = (uint8_t)((uint32_t)page.kind >> (24 - 8 * j));
      }
      nonce[4 + j] = (uint8_t)(page.version >> (56 - 8 * j));
      authenticated[j] = (uint8_t)(number >> (56 - 8 * j));
    }
    g_assert_cmpint (gnutls_aead_cipher_init (&cipher, GNUTLS_CIPHER_AES_256_GCM, &datum), ==, 0);
    g_assert_cmpint (gnutls_aead_cipher_encrypt (cipher, nonce, 12, authenticated, 16, 16, in, page.bytes, expected, &bytes),
                     ==, 0);
    gnutls_aead_cipher_deinit (cipher);
    g_assert_cmpmem (out, page.bytes, expected, page.bytes);
    g_assert_cmpmem (page.tag, 16, expected + page.bytes, 16);
  }
}

/* ---- round trips ---- */

static void
test_round_trip (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (Seal) seal = make_seal (rand, 3);

  for (unsigned i = 0; i < testing_steps (3000); i++) {
    const uint32_t bytes = i < 40 ? i + 1 : testing_once_in (rand, 3) ? PAGE : 1 + (uint32_t)testing_below (rand, PAGE);
    struct far_page page = { .kind = FAR_RAW, .bytes = bytes, .version = i };
    const uint64_t number = testing_edgy (rand);
    uint8_t in[PAGE + 1], out[PAGE + 2], back[PAGE + 3];
    const gboolean in_place = testing_once_in (rand, 4);

    fill (rand, in, sizeof in);
    memset (out, 0x11, sizeof out);
    memset (back, 0x22, sizeof back);
    /* at odd addresses, as guests may have them; nothing is written behind the end */
    g_assert_true (seal_close_page (seal, number, &page, in + 1, out + 1));
    g_assert_cmpint (out[0], ==, 0x11);
    g_assert_cmpint (out[bytes + 1], ==, 0x11);
    if (bytes >= 8) /* else by chance */
      g_assert_cmpint (memcmp (in + 1, out + 1, bytes), !=, 0);
    if (in_place)
      memcpy (back + 2, out + 1, bytes);
    g_assert_true (seal_open_page (seal, number, &page, in_place ? back + 2 : out + 1, back + 2));
    g_assert_cmpmem (back + 2, bytes, in + 1, bytes);
    g_assert_cmpint (back[1], ==, 0x22);
    if (bytes < PAGE)
      g_assert_cmpint (back[bytes + 2], ==, 0x22);
  }
}

static void
test_no_key (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (Seal) seal = seal_new (NULL, 0, NULL);
  struct far_page page = { .kind = FAR_RAW, .bytes = PAGE, .version = 1 };
  uint8_t in[PAGE], out[PAGE], back[PAGE];

  fill (rand, in, sizeof in);
  memset (page.tag, 1, sizeof page.tag);
  g_assert_true (seal_close_page (seal, 1, &page, in, out));
  g_assert_cmpmem (in, PAGE, out, PAGE);
  g_assert_true (is_zero (page.tag, sizeof page.tag));
  g_assert_true (seal_open_page (seal, 1, &page, out, back));
  g_assert_cmpmem (in, PAGE, back, PAGE);
}

/* ---- what must not open ---- */

struct sealed {
  Seal *seal;
  uint64_t number;
  struct far_page page;
  uint8_t in[PAGE], out[PAGE];
};

static void
sealed_begin (struct sealed *s, GRand *rand, uint32_t bytes) {
  s->seal = make_seal (rand, 7);
  s->number = testing_below (rand, FAR_PAGES_MAX);
  s->page = (struct far_page){ .kind = bytes == PAGE ? FAR_RAW : FAR_PACKED,
                               .bytes = bytes,
                               .version = testing_below (rand, 1ull << 40) };
  fill (rand, s->in, sizeof s->in);
  g_assert_true (seal_close_page (s->seal, s->number, &s->page, s->in, s->out));
}

static void
expect_refused (Seal *seal, uint64_t number, const struct far_page *page, const uint8_t *in) {
  uint8_t back[PAGE];

  memset (back, 0x33, sizeof back);
  g_assert_false (seal_open_page (seal, number, page, in, back));
  g_assert_true (is_zero (back, page->bytes));
}

static void
sealed_end (struct sealed *s) {
  uint8_t back[PAGE];

  /* it still opens: nothing of the above was refused for another reason */
  g_assert_true (seal_open_page (s->seal, s->number, &s->page, s->out, back));
  g_assert_cmpmem (back, s->page.bytes, s->in, s->page.bytes);
  seal_free (s->seal);
}

static void
flip (void *of, unsigned bit) {
  ((uint8_t *)of)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* Every single bit of the bytes, tag, version, number, length and kind. */
static void
test_bits (gconstpointer data) {
  const uint32_t bytes = GPOINTER_TO_UINT (data);
  const unsigned step = testing_steps (16) < 16 ? 61 : 1; /* under valgrind, some of them */
  g_autoptr (GRand) rand = testing_rand ();
  struct sealed s;

  sealed_begin (&s, rand, bytes);
  for (unsigned bit = 0; bit < bytes * 8; bit += step) {
    flip (s.out, bit);
    expect_refused (s.seal, s.number, &s.page, s.out);
    flip (s.out, bit);
  }
  for (unsigned bit = 0; bit < 128; bit++) {
    struct far_page page = s.page;

    flip (page.tag, bit);
    expect_refused (s.seal, s.number, &page, s.out);
  }
  for (unsigned bit = 0; bit < 64; bit++) {
    struct far_page page = s.page;

    page.version ^= 1ull << bit;
    expect_refused (s.seal, s.number, &page, s.out);
    expect_refused (s.seal, s.number ^ 1ull << bit, &s.page, s.out);
  }
  for (unsigned bit = 0; bit < 32; bit++) {
    struct far_page page = s.page;

    page.kind ^= 1u << bit;
    expect_refused (s.seal, s.number, &page, s.out);
    page.kind = s.page.kind;
    page.bytes ^= 1u << bit;
    if (page.bytes <= PAGE)
      expect_refused (s.seal, s.number, &page, s.out);
  }
  sealed_end (&s);
}

static void
test_exchange (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct sealed s;

  sealed_begin (&s, rand, PAGE);
  for (unsigned i = 0; i < testing_steps (200); i++) {
    struct far_page other = { .kind = FAR_RAW, .bytes = PAGE, .version = s.page.version + 1 + i };
    const uint64_t number = s.number ^ (1 + testing_below (rand, FAR_PAGES_MAX - 1));
    uint8_t in[PAGE], out[PAGE];

    memcpy (in, s.in, PAGE); /* even with the same contents */
    g_assert_true (seal_close_page (s.seal, number, &other, in, out));
    expect_refused (s.seal, s.number, &s.page, out); /* its bytes in this one's place */
    expect_refused (s.seal, number, &other, s.out);
    expect_refused (s.seal, s.number, &other, out); /* with version and tag */
    expect_refused (s.seal, number, &s.page, s.out);
    g_assert_true (seal_open_page (s.seal, number, &other, out, in));
  }
  sealed_end (&s);
}

/* Older versions of the same page, with older tags, and older tags with newer versions. */
static void
test_replay (void) {
  g_autoptr (GRand) rand = testing_rand ();
  struct sealed s;

  sealed_begin (&s, rand, PAGE);
  for (unsigned i = 0; i < testing_steps (200); i++) {
    struct far_page now = s.page, mixed;
    uint8_t in[PAGE], out[PAGE];

    now.version = s.page.version + 1 + testing_below (rand, 1000);
    fill (rand, in, sizeof in);
    g_assert_true (seal_close_page (s.seal, s.number, &now, in, out));
    expect_refused (s.seal, s.number, &now, s.out);
    mixed = now;
    memcpy (mixed.tag, s.page.tag, sizeof mixed.tag);
    expect_refused (s.seal, s.number, &mixed, s.out);
  }
  sealed_end (&s);
}

static void
test_others (void) {
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (Seal) other_key = make_seal (rand, 7), other_device = NULL, one = NULL;
  struct far_page page = { .kind = FAR_RAW, .bytes = PAGE, .version = 1 };
  uint8_t key[SEAL_KEY_BYTES], in[PAGE], out[PAGE];
  struct sealed s;

  sealed_begin (&s, rand, PAGE);
  expect_refused (other_key, s.number, &s.page, s.out);
  sealed_end (&s);
  fill (rand, key, sizeof key);
  fill (rand, in, sizeof in);
  one = seal_new (key, 1, NULL);
  other_device = seal_new (key, 2, NULL);
  memset (key, 0, sizeof key); /* it is the caller's again */
  g_assert_true (seal_close_page (one, 5, &page, in, out));
  expect_refused (other_device, 5, &page, out);
  g_assert_true (seal_open_page (one, 5, &page, out, in));
}

/* ---- a page that changes meanwhile ---- */

struct changing {
  uint8_t page[PAGE];
  gint stop;
};

static gpointer
change (gpointer data) {
  struct changing *changing = data;

  for (uint64_t i = 1; !g_atomic_int_get (&changing->stop); i++)
    for (unsigned at = 0; at < PAGE; at += 8)
      *(volatile uint64_t *)(changing->page + at) = i * 0x0101010101010101u;
  return NULL;
}

static void
test_changing (void) {
  struct changing *changing = g_aligned_alloc0 (1, sizeof *changing, 64);
  g_autoptr (GRand) rand = testing_rand ();
  g_autoptr (Seal) seal = make_seal (rand, 1);
  GThread *thread = g_thread_new ("guest", change, changing);
  unsigned mixtures = 0;

  for (unsigned i = 0; i < testing_steps (100000); i++) {
    struct far_page page = { .kind = FAR_RAW, .bytes = PAGE, .version = i };
    uint8_t out[PAGE], back[PAGE];

    g_assert_true (seal_close_page (seal, i, &page, changing->page, out));
    g_assert_true (seal_open_page (seal, i, &page, out, back));
    mixtures += memcmp (back, back + 8, PAGE - 8) != 0;
  }
  g_atomic_int_set (&changing->stop, 1);
  g_thread_join (thread);
  g_test_message ("%u pages changed while they were sealed", mixtures);
  g_aligned_free (changing);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/seal/vectors", test_vectors);
  g_test_add_func ("/seal/layout", test_layout);
  g_test_add_func ("/seal/round-trip", test_round_trip);
  g_test_add_func ("/seal/no-key", test_no_key);
  g_test_add_data_func ("/seal/bits/whole", GUINT_TO_POINTER (PAGE), test_bits);
  g_test_add_data_func ("/seal/bits/packed", GUINT_TO_POINTER (513), test_bits);
  g_test_add_func ("/seal/exchange", test_exchange);
  g_test_add_func ("/seal/replay", test_replay);
  g_test_add_func ("/seal/others", test_others);
  g_test_add_func ("/seal/changing", test_changing);
  return g_test_run ();
}
