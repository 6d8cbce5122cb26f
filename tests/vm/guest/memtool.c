/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Uses memory inside a test guest, and can tell afterwards whether every word of it is what was written.
 *
 *     memtool fill SIZE [--seed N] [--thp on|off] [--seconds N] [--hold]
 *     memtool dio FILE SIZE SEED [--seconds N] [--node N] [--window START-END [--search SIZE]] [--hold]
 *
 * fill writes a pattern into SIZE bytes of anonymous memory and verifies it, again and again for --seconds. With --hold it then
 * obeys lines from standard input, each answered by one line "ok …" or "failed …":
 *
 *     verify                           checks every word that is held
 *     free                             gives all of it back to the kernel, keeping the address range
 *     free-random FRACTION SEED [2M]   gives back about FRACTION of the held pages (or aligned 2 MiB pieces), the same ones for
 *                                      the same SEED
 *     refill                           writes the pattern into what was given back
 *     held                             how many bytes are held
 *     spoil PAGE                       flips a bit in that page, so that a test can see that verify finds it
 *     exit
 *
 * dio is for devices that reach into memory: it writes SIZE bytes to a disk or file with O_DIRECT, spoils the buffer, reads
 * them back into it and verifies them, for --seconds, with a new pattern in each round. --node binds the buffer to a NUMA node.
 * --window keeps only buffer pages whose physical addresses are in START-END (from --search bytes of memory tried, default
 * 4 × SIZE), and proves before each round where they are. With --hold it waits for the end of standard input afterwards.
 *
 * Sizes take K, M, G. Exit status: 0 all well, 1 could not do it, 2 usage, 3 a word was not what it should be (the line
 * "mismatch …" says where), 4 not enough memory in the window.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define WORDS_PER_PAGE (PAGE / sizeof (uint64_t))
/* Any odd number with bits all over it: neighbouring words differ everywhere, and no two words of a fill are equal. A plain sum
 * and no hash, because the emulated processor that usually runs this is the slow part. */
#define STEP 0x9e3779b97f4a7c15ull
#define MPOL_BIND 2 /* from linux/mempolicy.h, which libc has no header for */

static void __attribute__ ((noreturn)) fail (int status, const char *what) {
  printf ("failed %s: %s\n", what, strerror (errno));
  exit (status);
}

static double
now (void) {
  struct timespec t;
  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t
mix (uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static uint64_t
parse_size (const char *text) {
  char *end;
  uint64_t value = strtoull (text, &end, 0);
  switch (*end) {
  case 'K':
    return value << 10;
  case 'M':
    return value << 20;
  case 'G':
    return value << 30;
  case '\0':
    return value;
  default:
    printf ("failed: '%s' is not a size\n", text);
    exit (2);
  }
}

/* ---- the pattern: word i of page p is a function of seed, p and i only ---- */

static uint64_t
page_base (uint64_t seed, uint64_t page) {
  return mix (seed) + page * WORDS_PER_PAGE * STEP;
}

static void
page_fill (uint64_t *words, uint64_t seed, uint64_t page) {
  uint64_t value = page_base (seed, page);
  for (size_t i = 0; i < WORDS_PER_PAGE; i++, value += STEP)
    words[i] = value;
}

static void
page_verify (const uint64_t *words, uint64_t seed, uint64_t page) {
  uint64_t value = page_base (seed, page);
  for (size_t i = 0; i < WORDS_PER_PAGE; i++, value += STEP) {
    if (words[i] != value) {
      printf ("mismatch at %p (page %" PRIu64 ", word %zu): expected %016" PRIx64 " found %016" PRIx64 "\n",
              (const void *)&words[i], page, i, value, words[i]);
      exit (3);
    }
  }
}

/* ---- fill ---- */

struct area {
  char *start; /* aligned to 2 MiB */
  uint64_t pages;
  uint64_t held; /* pages */
  uint64_t seed;
  uint8_t *holds; /* one byte per page */
};

static uint64_t *
area_page (const struct area *area, uint64_t page) {
  return (uint64_t *)(void *)(area->start + page * PAGE);
}

static char *
map_aligned (uint64_t bytes) {
  char *raw = mmap (NULL, bytes + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (raw == MAP_FAILED)
    fail (1, "mmap");
  return (char *)(((uintptr_t)raw + HUGE - 1) & ~(HUGE - 1));
}

static void
area_fill_missing (struct area *area, bool progress) {
  double began = now ();
  uint64_t filled = 0, eighth = (area->pages + 7) / 8;
  for (uint64_t page = 0; page < area->pages; page++) {
    if (!area->holds[page]) {
      page_fill (area_page (area, page), area->seed, page);
      area->holds[page] = 1;
      area->held++;
      filled++;
    }
    if (progress && (page + 1) % eighth == 0)
      printf ("filled %" PRIu64 " of %" PRIu64 " MiB in %.1f s\n", (page + 1) * PAGE >> 20, area->pages * PAGE >> 20,
              now () - began);
  }
  printf ("ok filled %" PRIu64 " bytes\n", filled * PAGE);
}

static void
area_verify (const struct area *area) {
  for (uint64_t page = 0; page < area->pages; page++)
    if (area->holds[page])
      page_verify (area_page (area, page), area->seed, page);
  printf ("ok verified %" PRIu64 " bytes\n", area->held * PAGE);
}

static uint64_t
area_free (struct area *area, uint64_t first, uint64_t count) {
  uint64_t freed = 0;
  if (madvise (area_page (area, first), count * PAGE, MADV_DONTNEED))
    fail (1, "madvise");
  for (uint64_t page = first; page < first + count; page++) {
    freed += area->holds[page];
    area->holds[page] = 0;
  }
  area->held -= freed;
  return freed;
}

static void
area_free_random (struct area *area, double fraction, uint64_t seed, uint64_t piece) {
  uint64_t freed = 0, run_start = 0, run = 0;
  /* neighbouring pieces are given back with one call: a call per page would take an emulated guest minutes */
  for (uint64_t page = 0; page + piece <= area->pages; page += piece) {
    bool chosen = (double)(mix (seed ^ mix (page / piece)) >> 11) * 0x1p-53 < fraction;
    if (chosen && run == 0)
      run_start = page;
    if (chosen)
      run += piece;
    if (run > 0 && (!chosen || page + 2 * piece > area->pages)) {
      freed += area_free (area, run_start, run);
      run = 0;
    }
  }
  printf ("ok freed %" PRIu64 " bytes\n", freed * PAGE);
}

static void
obey (struct area *area) {
  char line[256];
  while (fgets (line, sizeof line, stdin)) {
    double fraction;
    uint64_t seed, page;
    char unit[8] = "";
    line[strcspn (line, "\n")] = '\0';
    if (!strcmp (line, "verify")) {
      area_verify (area);
    } else if (!strcmp (line, "free")) {
      printf ("ok freed %" PRIu64 " bytes\n", area_free (area, 0, area->pages) * PAGE);
    } else if (sscanf (line, "free-random %lf %" SCNu64 " %7s", &fraction, &seed, unit) >= 2) {
      area_free_random (area, fraction, seed, strcmp (unit, "2M") ? 1 : HUGE / PAGE);
    } else if (!strcmp (line, "refill")) {
      area_fill_missing (area, false);
    } else if (!strcmp (line, "held")) {
      printf ("ok held %" PRIu64 " bytes\n", area->held * PAGE);
    } else if (sscanf (line, "spoil %" SCNu64, &page) == 1 && page < area->pages && area->holds[page]) {
      area_page (area, page)[page % WORDS_PER_PAGE] ^= 1ull << page % 64;
      printf ("ok spoilt page %" PRIu64 "\n", page);
    } else if (!strcmp (line, "exit")) {
      printf ("ok exit\n");
      return;
    } else {
      printf ("failed: no such command: %s\n", line);
    }
  }
}

struct options {
  uint64_t seed;
  double seconds;
  bool hold;
  int thp; /* -1: the system's default */
  int node;
  uint64_t window_start, window_end, search;
};

static int
main_fill (const char *size, const struct options *options) {
  struct area area = { .seed = options->seed, .pages = parse_size (size) / PAGE };
  double end;
  if (area.pages == 0)
    return 2;
  area.start = map_aligned (area.pages * PAGE);
  area.holds = mmap (NULL, area.pages, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area.holds == MAP_FAILED)
    fail (1, "mmap");
  if (options->thp >= 0 && madvise (area.start, area.pages * PAGE, options->thp ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
    fail (1, "madvise for --thp");

  printf ("seed %" PRIu64 "\n", area.seed);
  area_fill_missing (&area, true);
  end = now () + options->seconds;
  do {
    area_verify (&area);
  } while (now () < end);
  if (options->hold)
    obey (&area);
  return 0;
}

/* ---- dio ---- */

/* Physical address of the page at `address`, 0 if it has none. */
static uint64_t
physical (int pagemap, const void *address) {
  uint64_t entry;
  if (pread (pagemap, &entry, sizeof entry, (off_t)((uintptr_t)address / PAGE * sizeof entry)) != sizeof entry)
    fail (1, "/proc/self/pagemap");
  return entry >> 63 ? (entry & ((1ull << 55) - 1)) * PAGE : 0;
}

struct buffer {
  char **pages;
  uint64_t count;
  int pagemap;
};

static uint64_t
buffer_in_window (const struct buffer *buffer, const struct options *options) {
  uint64_t in = 0;
  for (uint64_t i = 0; i < buffer->count; i++) {
    uint64_t address = physical (buffer->pagemap, buffer->pages[i]);
    in += address >= options->window_start && address < options->window_end;
  }
  return in;
}

/* Touches memory and keeps the first `count` pages that are where they should be. */
static void
buffer_make (struct buffer *buffer, uint64_t count, const struct options *options) {
  bool any = options->window_end == 0;
  uint64_t tried = any ? count : (options->search ? options->search : 4 * count * PAGE) / PAGE;
  char *start = map_aligned (tried * PAGE);
  if (options->node >= 0) {
    unsigned long nodes = 1ul << options->node;
    if (syscall (SYS_mbind, start, tried * PAGE, MPOL_BIND, &nodes, sizeof nodes * 8 + 1, 0))
      fail (1, "mbind");
  }
  buffer->pagemap = open ("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  if (buffer->pagemap < 0)
    fail (1, "/proc/self/pagemap");
  buffer->pages = calloc (count, sizeof *buffer->pages);
  if (!buffer->pages)
    fail (1, "calloc");
  for (uint64_t i = 0; i < tried && buffer->count < count; i++) {
    char *page = start + i * PAGE;
    *(volatile char *)page = 1;
    uint64_t address = physical (buffer->pagemap, page);
    if (any || (address >= options->window_start && address < options->window_end))
      buffer->pages[buffer->count++] = page;
  }
  /* What was tried and is elsewhere goes back only now, or the kernel would hand the same pages out again. */
  for (uint64_t i = 0, kept = 0; i < tried; i++) {
    char *page = start + i * PAGE;
    if (kept < buffer->count && buffer->pages[kept] == page)
      kept++;
    else if (!any)
      madvise (page, PAGE, MADV_DONTNEED);
  }
  if (buffer->count < count) {
    printf ("failed: only %" PRIu64 " of %" PRIu64 " pages are in the window\n", buffer->count, count);
    exit (4);
  }
}

/* One transfer of the whole buffer, at offset 0 of the file: as many pages at a time as one call takes. */
static void
transfer (int fd, const struct buffer *buffer, bool write_out) {
  struct iovec vector[256];
  for (uint64_t first = 0; first < buffer->count;) {
    uint64_t pages = buffer->count - first < 256 ? buffer->count - first : 256;
    for (uint64_t i = 0; i < pages; i++)
      vector[i] = (struct iovec){ .iov_base = buffer->pages[first + i], .iov_len = PAGE };
    ssize_t done = write_out ? pwritev (fd, vector, (int)pages, (off_t)(first * PAGE))
                             : preadv (fd, vector, (int)pages, (off_t)(first * PAGE));
    if (done < 0 || done % (ssize_t)PAGE)
      fail (1, write_out ? "pwritev" : "preadv");
    if (done == 0) {
      printf ("failed: the file ends at %" PRIu64 " bytes\n", first * PAGE);
      exit (1);
    }
    first += (uint64_t)done / PAGE;
  }
}

static int
main_dio (const char *path, const char *size, const struct options *options) {
  struct buffer buffer = { 0 };
  uint64_t rounds = 0, least_in_window = UINT64_MAX, count = parse_size (size) / PAGE;
  double end = now () + options->seconds;
  char word[16];
  int fd = open (path, O_RDWR | O_DIRECT | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    fail (1, path);
  if (count == 0)
    return 2;
  buffer_make (&buffer, count, options);
  printf ("ok ready %" PRIu64 " pages, first at %#" PRIx64 "\n", buffer.count, physical (buffer.pagemap, buffer.pages[0]));

  do {
    uint64_t seed = mix (options->seed + rounds);
    uint64_t in = options->window_end ? buffer_in_window (&buffer, options) : buffer.count;
    if (in < least_in_window)
      least_in_window = in;
    for (uint64_t i = 0; i < buffer.count; i++)
      page_fill ((uint64_t *)(void *)buffer.pages[i], seed, i);
    transfer (fd, &buffer, true);
    for (uint64_t i = 0; i < buffer.count; i++)
      memset (buffer.pages[i], 0xee, PAGE);
    transfer (fd, &buffer, false);
    for (uint64_t i = 0; i < buffer.count; i++)
      page_verify ((const uint64_t *)(void *)buffer.pages[i], seed, i);
    rounds++;
  } while (now () < end);

  printf ("ok dio %" PRIu64 " rounds of %" PRIu64 " bytes, at least %" PRIu64 " of %" PRIu64 " pages in the window\n", rounds,
          buffer.count * PAGE, least_in_window, buffer.count);
  if (options->hold)
    while (fgets (word, sizeof word, stdin))
      continue;
  return 0;
}

/* ---- command line ---- */

static int
usage (void) {
  fputs ("usage: memtool fill SIZE [--seed N] [--thp on|off] [--seconds N] [--hold]\n"
         "       memtool dio FILE SIZE SEED [--seconds N] [--node N] [--window START-END [--search SIZE]] [--hold]\n",
         stderr);
  return 2;
}

int
main (int argc, char **argv) {
  struct options options = { .thp = -1, .node = -1, .seed = 1 };
  const char *positional[4];
  int given = 0;
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (!strcmp (argv[i], "--hold")) {
      options.hold = true;
      continue;
    }
    if (argv[i][0] != '-') {
      if (given == 4)
        return usage ();
      positional[given++] = argv[i];
      continue;
    }
    if (!value)
      return usage ();
    if (!strcmp (argv[i], "--seed"))
      options.seed = strtoull (value, NULL, 0);
    else if (!strcmp (argv[i], "--seconds"))
      options.seconds = strtod (value, NULL);
    else if (!strcmp (argv[i], "--thp"))
      options.thp = !strcmp (value, "on");
    else if (!strcmp (argv[i], "--node"))
      options.node = atoi (value);
    else if (!strcmp (argv[i], "--search"))
      options.search = parse_size (value);
    else if (strcmp (argv[i], "--window")
             || sscanf (value, "%" SCNi64 "-%" SCNi64, (int64_t *)&options.window_start, (int64_t *)&options.window_end) != 2)
      return usage ();
    i++;
  }
  /* a line at a time, so that whoever polls sees whole answers */
  setvbuf (stdout, NULL, _IOLBF, 0);

  if (given == 2 && !strcmp (positional[0], "fill"))
    return main_fill (positional[1], &options);
  if (given == 4 && !strcmp (positional[0], "dio")) {
    options.seed = strtoull (positional[3], NULL, 0);
    return main_dio (positional[1], positional[2], &options);
  }
  return usage ();
}
