/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to the bytes of a page, on one core: looking whether it is one value, packing, sealing, and back. CPU time per
 * page, and MB/s of application bytes; medians of the rounds. Pages are gone through one after the other, in more memory than
 * the L2 cache has (--pages), as a guest's are.
 */
#include "figures.h"
#include "io/page-pack.h"
#include "io/seal.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>

#define PAGE FAR_PAGE_BYTES

static int n_pages = 4096;
static guint64 allocations;

/* Counts; the C library's own is behind it. */
extern void *__libc_malloc (size_t bytes);
void *malloc (size_t bytes);
void *
malloc (size_t bytes) {
  allocations++;
  return __libc_malloc (bytes);
}

struct work {
  uint8_t *in, *out;
  struct far_page *pages;
  Seal *seal;
  gnutls_aead_cipher_hd_t cipher;
  uint64_t version;
  unsigned sink;
};

typedef void (*Step) (struct work *work, unsigned i);

static void
measure (const char *name, struct work *work, Step step) {
  g_autofree double *ns = g_new (double, figures_rounds), *rate = g_new (double, figures_rounds);
  g_autofree char *rate_name = g_strconcat (name, ": application bytes", NULL);
  const guint64 before = allocations;
  guint64 allocated;

  for (int round = 0; round < figures_rounds; round++) {
    const double start = figures_cpu_us ();

    for (int i = 0; i < n_pages; i++)
      step (work, (unsigned)i);
    ns[round] = (figures_cpu_us () - start) * 1000 / n_pages;
    rate[round] = PAGE / ns[round] * 1000;
  }
  allocated = allocations - before;
  figures_record (name, "ns", ns);
  figures_record (rate_name, "MB/s", rate);
  if (allocated)
    g_print ("    %.2f allocations per page\n", (double)allocated / n_pages / figures_rounds);
}

/* ---- what pages hold ---- */

enum contents { ZERO, RANDOM, TEXT, POINTERS };

static void
fill (struct work *work, enum contents contents) {
  static const char *const words[]
      = { "page", "the", "memory", "of", "host", "block", "a", "guest", "kernel", "and", "42", "is", "lease", "epoch" };
  g_autoptr (GRand) rand = g_rand_new_with_seed (1);

  for (size_t i = 0; i < (size_t)n_pages * PAGE;) {
    char *const to = (char *)work->in + i;

    if (contents == ZERO || contents == RANDOM) {
      const guint32 value = contents == ZERO ? 0 : g_rand_int (rand);

      memcpy (to, &value, 4);
      i += 4;
    } else if (contents == POINTERS) {
      const guint64 value = g_rand_int_range (rand, 0, 3) ? 0x7f3a00000000u + (guint64)g_rand_int_range (rand, 0, 1 << 16) * 16
                                                          : (guint64)g_rand_int_range (rand, 0, 8);

      memcpy (to, &value, 8);
      i += 8;
    } else {
      const char *word = words[g_rand_int_range (rand, 0, G_N_ELEMENTS (words))];
      const size_t n = MIN (strlen (word), (size_t)n_pages * PAGE - i);

      memcpy (to, word, n);
      i += n;
      if (i < (size_t)n_pages * PAGE)
        work->in[i++] = ' ';
    }
  }
}

/* ---- steps ---- */

static void
step_copy (struct work *work, unsigned i) {
  memcpy (work->out + (size_t)i * PAGE, work->in + (size_t)i * PAGE, PAGE);
  __asm__ volatile("" ::: "memory");
}

static void
step_same (struct work *work, unsigned i) {
  uint64_t value = 0;

  work->sink += (unsigned)page_is_same (work->in + (size_t)i * PAGE, &value);
}

static void
step_fill (struct work *work, unsigned i) {
  page_fill (work->out + (size_t)i * PAGE, i);
}

static void
step_pack (struct work *work, unsigned i) {
  work->pages[i].bytes = page_pack (work->in + (size_t)i * PAGE, work->out + (size_t)i * PAGE);
}

static void
step_unpack (struct work *work, unsigned i) {
  static uint8_t page[PAGE];

  work->sink += (unsigned)page_unpack (work->out + (size_t)i * PAGE, work->pages[i].bytes, page);
}

static void
step_cipher (struct work *work, unsigned i) {
  static uint8_t out[PAGE + 16];
  size_t bytes = sizeof out;
  uint8_t nonce[12] = { 0 };

  work->version++;
  memcpy (nonce, &work->version, 8);
  gnutls_aead_cipher_encrypt (work->cipher, nonce, sizeof nonce, nonce, 12, 16, work->in + (size_t)i * PAGE, PAGE, out, &bytes);
}

static void
close_page (struct work *work, unsigned i, uint32_t bytes, const uint8_t *in) {
  work->pages[i] = (struct far_page){ .kind = FAR_RAW, .bytes = bytes, .version = work->version++ };
  work->sink += (unsigned)seal_close_page (work->seal, i, &work->pages[i], in, work->out + (size_t)i * PAGE);
}

static void
step_close (struct work *work, unsigned i) {
  close_page (work, i, PAGE, work->in + (size_t)i * PAGE);
}

static void
step_close_part (struct work *work, unsigned i) {
  close_page (work, i, 1500, work->in + (size_t)i * PAGE);
}

static void
step_open (struct work *work, unsigned i) {
  static uint8_t page[PAGE];

  work->sink += (unsigned)!seal_open_page (work->seal, i, &work->pages[i], work->out + (size_t)i * PAGE, page);
}

/* As the engine does it. */
static void
step_write (struct work *work, unsigned i) {
  static uint8_t copy[PAGE], packed[PAGE];
  uint64_t value;
  unsigned bytes;

  if (page_is_same (work->in + (size_t)i * PAGE, &value))
    return;
  memcpy (copy, work->in + (size_t)i * PAGE, PAGE);
  bytes = page_pack (copy, packed);
  close_page (work, i, bytes ? bytes : PAGE, bytes ? packed : copy);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[]
      = { { "pages", 0, 0, G_OPTION_ARG_INT, &n_pages, "Pages that are gone through (4096)", "N" }, { NULL } };
  uint8_t key[32] = { 1 };
  const gnutls_datum_t datum = { key, sizeof key };
  struct work work = { 0 };

  figures_begin (argc, argv, "A page of 4 KiB", "– what sealing and packing pages costs", entries);
  work.in = g_aligned_alloc (PAGE, (gsize)n_pages, PAGE);
  work.out = g_aligned_alloc (PAGE, (gsize)n_pages, PAGE);
  memset (work.out, 1, (size_t)n_pages * PAGE);
  work.pages = g_new0 (struct far_page, n_pages);
  work.seal = seal_new (key, 1, NULL);
  gnutls_aead_cipher_init (&work.cipher, GNUTLS_CIPHER_AES_256_GCM, &datum);

  fill (&work, ZERO);
  measure ("one value? zeros", &work, step_same);
  measure ("pack: zeros", &work, step_pack);
  fill (&work, RANDOM);
  measure ("copy", &work, step_copy);
  measure ("fill with a value", &work, step_fill);
  measure ("one value? random", &work, step_same);
  measure ("pack: random", &work, step_pack);
  measure ("the cipher alone", &work, step_cipher);
  measure ("seal", &work, step_close);
  measure ("open", &work, step_open);
  measure ("seal 1500 bytes", &work, step_close_part);
  measure ("value?, copy, pack, seal: random", &work, step_write);
  fill (&work, TEXT);
  measure ("pack: text", &work, step_pack);
  measure ("unpack: text", &work, step_unpack);
  measure ("value?, copy, pack, seal: text", &work, step_write);
  fill (&work, POINTERS);
  measure ("pack: pointers", &work, step_pack);
  measure ("unpack: pointers", &work, step_unpack);
  measure ("value?, copy, pack, seal: pointers", &work, step_write);

  gnutls_aead_cipher_deinit (work.cipher);
  seal_free (work.seal);
  g_free (work.pages);
  g_aligned_free (work.in);
  g_aligned_free (work.out);
  return figures_end ();
}
