/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program with ranges of far disks (/dev/domybs, hints shared and remote), by way of libdomybs. Obeys lines from standard input, each
 * answered by one line:
 *
 *     allocate SLOT MIB HINT     touches nothing
 *     fill SLOT SEED             checks that it is zero, and fills it with a pattern
 *     write SLOT SEED            the same without the check, and a page may be SIGBUS, as with probe
 *     verify SLOT                checks every word
 *     probe SLOT                 the same, but a page may be SIGBUS: says how many pages are right, bus, zero and wrong
 *     sync SLOT                  msync()
 *     forget SLOT                unmaps all its pages, so that they can be dropped; the mapping stays
 *     dio SLOT FILE              writes it to a disk with O_DIRECT, wipes it, reads it back the same way, and verifies
 *     stray SLOT                 tries to get at what is not its own by way of its mapping
 *     cut SLOT                   unmaps the middle third
 *     fork SLOT                  a child, which closes the device, keeps the mapping of this slot, and verifies at SIGUSR1
 *     ask                        SIGUSR1 to the child
 *     free SLOT
 *     far                        used blocks of the two disks, and the program's own
 *     exit
 *
 * The answer is "ok …", or "refused ERRNO text" where the driver said no, or "mismatch …" and the end with status 3.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "libdomybs.h"

#define SLOTS 8u
#define STEP 0x9e3779b97f4a7c15ull /* as in memtool: no two words of a fill are equal */
#define PAGE_BYTES ((size_t)4096)
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define IO_BYTES ((size_t)1 << 20)

static struct domybs_memory memory[SLOTS];
static uint64_t seed_of[SLOTS];
static struct domybs_client *client;
static pid_t child;
static sigjmp_buf on_bus;

static void
refused(int error) {
  printf("refused %d %s\n", error < 0 ? -error : error, domybs_client_strerror(error));
}

static void
mismatch(const char *what, unsigned slot, size_t word, uint64_t found) {
  printf("mismatch: %s in slot %u, word %zu: %016" PRIx64 "\n", what, slot, word, found);
  exit(3);
}

static uint64_t
pattern(unsigned slot, size_t word) {
  return (seed_of[slot] + word) * STEP;
}

static void
verify(unsigned slot) {
  const uint64_t *words = memory[slot].address;

  for (size_t i = 0; i < memory[slot].bytes / sizeof *words; i++)
    if (words[i] != pattern(slot, i))
      mismatch("content", slot, i, words[i]);
}

static void
fill(unsigned slot, bool check) {
  uint64_t *words = memory[slot].address;

  for (size_t i = 0; i < memory[slot].bytes / sizeof *words; i++) {
    if (check && words[i] != 0)
      mismatch("fresh memory", slot, i, words[i]);
    words[i] = pattern(slot, i);
  }
}

/* ---- pages that may be lost ---- */

static void
bus(int number) {
  (void)number;
  siglongjmp(on_bus, 1);
}

enum outcome { RIGHT, BUS, ZERO, WRONG };

static enum outcome
page_look(unsigned slot, size_t page) {
  const uint64_t *words = (const uint64_t *)memory[slot].address + page * PAGE_WORDS;
  bool right = true, zero = true;

  for (size_t i = 0; i < PAGE_WORDS; i++) {
    right = right && words[i] == pattern(slot, page * PAGE_WORDS + i);
    zero = zero && words[i] == 0;
  }
  return right ? RIGHT : zero ? ZERO : WRONG;
}

static enum outcome
page_write(unsigned slot, size_t page) {
  uint64_t *words = (uint64_t *)memory[slot].address + page * PAGE_WORDS;

  for (size_t i = 0; i < PAGE_WORDS; i++)
    words[i] = pattern(slot, page * PAGE_WORDS + i);
  return RIGHT;
}

static enum outcome
page_try(unsigned slot, size_t page, enum outcome (*what)(unsigned slot, size_t page)) {
  return sigsetjmp(on_bus, 1) ? BUS : what(slot, page);
}

static void
pages_try(unsigned slot, enum outcome (*what)(unsigned slot, size_t page)) {
  struct sigaction action = { .sa_handler = bus }, before;
  size_t count[4] = { 0, 0, 0, 0 };

  sigaction(SIGBUS, &action, &before);
  for (size_t page = 0; page < memory[slot].bytes / PAGE_BYTES; page++)
    count[page_try(slot, page, what)]++;
  sigaction(SIGBUS, &before, NULL);
  printf("ok pages right %zu bus %zu zero %zu wrong %zu\n", count[RIGHT], count[BUS], count[ZERO], count[WRONG]);
}

/* ---- I/O ---- */

static void
dio(unsigned slot, const char *path) {
  int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
  char *bytes = memory[slot].address;
  bool good = fd >= 0;

  for (size_t at = 0; good && at < memory[slot].bytes; at += IO_BYTES)
    good = pwrite(fd, bytes + at, IO_BYTES, (off_t)at) == (ssize_t)IO_BYTES;
  if (good)
    memset(bytes, 0xee, memory[slot].bytes);
  for (size_t at = 0; good && at < memory[slot].bytes; at += IO_BYTES)
    good = pread(fd, bytes + at, IO_BYTES, (off_t)at) == (ssize_t)IO_BYTES;
  if (!good) {
    printf("failed %s: %s\n", path, strerror(errno));
    exit(1);
  }
  close(fd);
  verify(slot);
  printf("ok dio %zu bytes\n", memory[slot].bytes);
}

/* ---- what is not its own ---- */

static void
must_fail(bool failed, const char *what) {
  if (!failed) {
    printf("mismatch: %s was allowed\n", what);
    exit(3);
  }
}

static void
stray(unsigned slot) {
  char *address = memory[slot].address;
  const size_t bytes = memory[slot].bytes;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
  /* Any page of a mapping's file: with a block device's own file that would be any page of the disk. */
  for (size_t block = 0; block < 512; block++) {
    const size_t page = block * 512;
    uint64_t found;

    if (remap_file_pages(address, PAGE_BYTES, 0, page, 0) < 0)
      continue;
    memcpy(&found, address, sizeof found);
    for (size_t i = 0; i < bytes / PAGE_BYTES; i++)
      if (found == pattern(slot, i * PAGE_WORDS)) {
        found = 0;
        break;
      }
    must_fail(found == 0, "remap_file_pages() of somebody else's page");
  }
  must_fail(remap_file_pages(address, PAGE_BYTES, 0, (size_t)1 << 40, 0) < 0, "remap_file_pages() far outside");
#pragma GCC diagnostic pop
  must_fail(mremap(address + bytes - PAGE_BYTES, PAGE_BYTES, 2 * PAGE_BYTES, MREMAP_MAYMOVE) == MAP_FAILED, "growing by mremap()");
  printf("ok stray\n");
}

/* ---- children ---- */

static void
child_lives(unsigned slot) {
  sigset_t set;
  int number;

  domybs_client_close(client);
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  while (sigwait(&set, &number) == 0) {
    verify(slot);
    printf("ok child verified\n");
    fflush(stdout);
  }
  _exit(1);
}

static void
fork_child(unsigned slot) {
  sigset_t set;

  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  sigprocmask(SIG_BLOCK, &set, NULL);
  fflush(stdout);
  child = fork();
  if (child == 0)
    child_lives(slot);
  printf("ok child %d\n", (int)child);
}

/* ---- commands ---- */

static void
allocate(unsigned slot, uint64_t mib, const char *hint_name) {
  static const char *const names[] = { "any", "local", "shared", "remote" };
  int error, hint = 0;

  while (hint < 3 && strcmp(hint_name, names[hint]))
    hint++;
  error = domybs_client_allocate(client, mib << 20, (enum domybs_client_hint)hint, &memory[slot]);
  if (error)
    refused(error);
  else
    printf("ok allocated %zu bytes\n", memory[slot].bytes);
}

static void
far(void) {
  struct domybs_client_far now;
  int error = domybs_client_far(client, &now);

  if (error)
    refused(error);
  else
    printf("ok far shared %" PRIu64 " of %" PRIu64 " remote %" PRIu64 " of %" PRIu64 " own %" PRIu64 "\n", now.shared_used,
           now.shared_blocks, now.remote_used, now.remote_blocks, now.own);
}

static bool
obey_slot(const char *line) {
  char command[32], word[128];
  unsigned slot = 0;
  uint64_t number = 0;
  int error = 0;

  if (sscanf(line, "%31s %u", command, &slot) != 2 || slot >= SLOTS)
    return false;
  if (sscanf(line, "allocate %u %" SCNu64 " %127s", &slot, &number, word) == 3) {
    allocate(slot, number, word);
  } else if (sscanf(line, "fill %u %" SCNu64, &slot, &seed_of[slot]) == 2) {
    fill(slot, true);
    printf("ok filled\n");
  } else if (sscanf(line, "write %u %" SCNu64, &slot, &seed_of[slot]) == 2) {
    pages_try(slot, page_write);
  } else if (!strcmp(command, "verify")) {
    verify(slot);
    printf("ok verified %zu bytes\n", memory[slot].bytes);
  } else if (!strcmp(command, "probe")) {
    pages_try(slot, page_look);
  } else if (!strcmp(command, "sync")) {
    error = msync(memory[slot].address, memory[slot].bytes, MS_SYNC) < 0 ? errno : 0;
    if (error)
      refused(error);
    else
      printf("ok synced\n");
  } else if (!strcmp(command, "forget")) {
    printf(madvise(memory[slot].address, memory[slot].bytes, MADV_DONTNEED) == 0 ? "ok forgot\n" : "failed to forget\n");
  } else if (sscanf(line, "dio %u %127s", &slot, word) == 2) {
    dio(slot, word);
  } else if (!strcmp(command, "stray")) {
    stray(slot);
  } else if (!strcmp(command, "cut")) {
    const size_t third = memory[slot].bytes / 3 / PAGE_BYTES * PAGE_BYTES;

    munmap((char *)memory[slot].address + third, third);
    printf("ok cut\n");
  } else if (!strcmp(command, "fork")) {
    fork_child(slot);
  } else if (!strcmp(command, "free")) {
    error = domybs_client_free(client, &memory[slot]);
    if (error)
      refused(error);
    else
      printf("ok freed\n");
  } else {
    return false;
  }
  return true;
}

int
main(void) {
  char line[256];
  int error = domybs_client_open(NULL, &client);

  setvbuf(stdout, NULL, _IOLBF, 0);
  if (error) {
    printf("failed %s: %s\n", DOMYBS_CLIENT_DEVICE, domybs_client_strerror(error));
    return 1;
  }
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    if (!strcmp(line, "ask\n"))
      kill(child, SIGUSR1);
    else if (!strcmp(line, "far\n"))
      far();
    else if (!strcmp(line, "exit\n"))
      return 0;
    else if (!obey_slot(line))
      printf("failed: no such command: %s", line);
  }
  return 0;
}
