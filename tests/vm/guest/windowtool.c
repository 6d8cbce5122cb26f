/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Looks at, and misuses, the memory device's window from inside a test guest.
 *
 *     windowtool free-blocks START-END
 *         counts the 2 MiB pieces of a physical range in which every page is free
 *     windowtool touch FILE OFFSET SIZE
 *         writes a word into every page of a part of a PCI resource file (…/resource4), as a guest would that takes memory which
 *         nobody granted it
 *     windowtool pin PAGES
 *         has so many pages, one per 2 MiB, that the kernel can't move: they are in a pipe; obeys "verify" and ends with its input
 *
 * Prints one line, "ok …", or "failed …"; exit status 0 or 1.
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
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096ul
#define HUGE (2ul << 20)
#define PAGES_PER_BLOCK (HUGE / PAGE)
#define PIN_PAGES_MAX 256ul /* a pipe's slots, each holds one page; root may have so many */
#define KPF_BUDDY 10        /* from linux/kernel-page-flags.h */
#define MEMORY "/sys/devices/system/memory/"

static int
fail(const char *what) {
  printf("failed %s: %s\n", what, strerror(errno));
  return 1;
}

/* The kernel flags only the first page of a free piece as BUDDY; the others, and free pages that are in a processor's own list,
 * show no flag at all. In memory that is for movable pages only, pages in use always show one (LRU, ANON, MMAP, OFFLINE, …). */
static bool
block_is_free(const uint64_t *flags) {
  for (unsigned i = 0; i < PAGES_PER_BLOCK; i++)
    if (flags[i] & ~(1ull << KPF_BUDDY))
      return false;
  return true;
}

/* Whether the kernel uses its memory block (of this size) at that address. */
static bool
is_online(uint64_t address, uint64_t section_bytes) {
  char path[64], state[8] = "";
  FILE *file;

  snprintf(path, sizeof path, MEMORY "memory%" PRIu64 "/state", address / section_bytes);
  file = fopen(path, "r");
  if (!file)
    return false;
  if (fscanf(file, "%7s", state) != 1)
    state[0] = '\0';
  fclose(file);
  return !strcmp(state, "online");
}

static int
free_blocks(const char *range) {
  static uint64_t flags[PAGES_PER_BLOCK];
  uint64_t start, end, section_bytes, found = 0;
  int fd = open("/proc/kpageflags", O_RDONLY | O_CLOEXEC);
  FILE *size = fopen(MEMORY "block_size_bytes", "r");

  if (fd < 0 || !size || fscanf(size, "%" SCNx64, &section_bytes) != 1)
    return fail("/proc/kpageflags or block_size_bytes");
  if (sscanf(range, "%" SCNi64 "-%" SCNi64, (int64_t *)&start, (int64_t *)&end) != 2)
    return 2;
  for (uint64_t section = start; section < end; section += section_bytes) {
    if (!is_online(section, section_bytes))
      continue;
    for (uint64_t address = section; address < section + section_bytes; address += HUGE) {
      ssize_t got = pread(fd, flags, sizeof flags, (off_t)(address / PAGE * sizeof flags[0]));
      found += got == (ssize_t)sizeof flags && block_is_free(flags);
    }
  }
  printf("ok free-blocks %" PRIu64 "\n", found);
  return 0;
}

static int
touch(const char *path, uint64_t offset, uint64_t size) {
  int fd = open(path, O_RDWR | O_CLOEXEC);
  volatile uint32_t *words;

  if (fd < 0)
    return fail(path);
  words = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
  if (words == MAP_FAILED)
    return fail("mmap");
  for (uint64_t at = 0; at < size; at += PAGE)
    words[at / sizeof *words] = 0xbadf00d;
  printf("ok touched %" PRIu64 " bytes\n", size);
  return 0;
}

static int
pin(unsigned long pages) {
  char *area = mmap(NULL, (pages + 1) * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  static struct iovec vector[PIN_PAGES_MAX];
  char line[16];
  int fds[2];

  if (pages < 1 || pages > PIN_PAGES_MAX)
    return 2;
  if (area == MAP_FAILED || pipe2(fds, O_CLOEXEC))
    return fail("mmap or pipe");
  if (fcntl(fds[1], F_SETPIPE_SZ, (int)(PIN_PAGES_MAX * PAGE)) < 0)
    return fail("F_SETPIPE_SZ");
  area = (char *)(((uintptr_t)area + HUGE - 1) & ~(HUGE - 1));
  if (madvise(area, pages * HUGE, MADV_HUGEPAGE))
    return fail("madvise");
  /* whole huge pages at first, so that the pinned ones are in different blocks; then only those are kept */
  for (unsigned long i = 0; i < pages; i++)
    memset(area + i * HUGE, (int)i, PAGE);
  for (unsigned long i = 0; i < pages; i++) {
    if (madvise(area + i * HUGE + PAGE, HUGE - PAGE, MADV_DONTNEED))
      return fail("madvise");
    vector[i] = (struct iovec){ .iov_base = area + i * HUGE, .iov_len = PAGE };
  }
  if (vmsplice(fds[1], vector, pages, 0) != (ssize_t)(pages * PAGE))
    return fail("vmsplice");
  printf("ok pinned %lu pages\n", pages);
  while (fgets(line, sizeof line, stdin)) {
    for (unsigned long i = 0; i < pages; i++)
      for (unsigned long at = 0; at < PAGE; at++)
        if (area[i * HUGE + at] != (char)i) {
          printf("mismatch in pinned page %lu\n", i);
          return 3;
        }
    printf("ok verified %lu pages\n", pages);
  }
  return 0;
}

int
main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc == 3 && !strcmp(argv[1], "free-blocks"))
    return free_blocks(argv[2]);
  if (argc == 5 && !strcmp(argv[1], "touch"))
    return touch(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0));
  if (argc == 3 && !strcmp(argv[1], "pin"))
    return pin(strtoul(argv[2], NULL, 0));
  fputs("usage: windowtool free-blocks START-END | touch FILE OFFSET SIZE | pin PAGES\n", stderr);
  return 2;
}
