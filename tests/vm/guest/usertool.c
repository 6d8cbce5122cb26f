/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that uses /dev/domybs by way of libdomybs. Obeys lines from standard input, each answered by one line:
 *
 *     allocate SLOT MIB HINT SEED   HINT: any local shared remote; checks that the memory is zero, fills it with a pattern
 *     verify SLOT                   checks every word
 *     dio SLOT FILE                 writes it to a disk with O_DIRECT, wipes it, reads it back the same way, and verifies
 *     free SLOT
 *     raw BLOCKS HINT FLAGS         the ioctl itself, with any numbers
 *     stats
 *     exit
 *
 * The answer is "ok …", or "refused ERRNO text" where the driver said no, or "mismatch …" and the end with status 3. All that
 * it has is still allocated when it exits or is killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "domybs-uapi.h"
#include "libdomybs.h"

#define SLOTS 8u
#define STEP 0x9e3779b97f4a7c15ull /* as in memtool: no two words of a fill are equal */
#define IO_BYTES (1ul << 20)

static struct domybs_memory memory[SLOTS];
static uint64_t seed_of[SLOTS];

static void
refused(int error) {
  printf("refused %d %s\n", -error, domybs_client_strerror(error));
}

static void
mismatch(unsigned slot, size_t word, uint64_t found) {
  printf("mismatch in slot %u, word %zu: %016" PRIx64 "\n", slot, word, found);
  exit(3);
}

static size_t
words_in(unsigned slot) {
  return memory[slot].bytes / sizeof(uint64_t);
}

static void
verify(unsigned slot) {
  const uint64_t *words = memory[slot].address;
  uint64_t value = seed_of[slot] * STEP;

  for (size_t i = 0; i < words_in(slot); i++, value += STEP)
    if (words[i] != value)
      mismatch(slot, i, words[i]);
}

static void
fill(unsigned slot) {
  uint64_t *words = memory[slot].address, value = seed_of[slot] * STEP;

  for (size_t i = 0; i < words_in(slot); i++, value += STEP) {
    if (words[i] != 0)
      mismatch(slot, i, words[i]);
    words[i] = value;
  }
}

static void
allocate(struct domybs_client *client, unsigned slot, uint64_t mib, const char *hint_name, uint64_t seed) {
  static const char *const names[] = { "any", "local", "shared", "remote" };
  int error, hint = 0;

  while (hint < 3 && strcmp(hint_name, names[hint]))
    hint++;
  error = domybs_client_allocate(client, mib << 20, (enum domybs_client_hint)hint, &memory[slot]);
  if (error) {
    refused(error);
    return;
  }
  seed_of[slot] = seed;
  fill(slot);
  verify(slot);
  printf("ok allocated %zu bytes\n", memory[slot].bytes);
}

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

static void
raw(uint64_t blocks, uint32_t hint, uint32_t flags) {
  struct domybs_ioc_alloc argument = { .blocks = blocks, .hint = hint, .flags = flags };
  int fd = open(DOMYBS_CLIENT_DEVICE, O_RDWR | O_CLOEXEC);

  if (fd < 0 || ioctl(fd, DOMYBS_IOC_ALLOC, &argument) < 0)
    refused(-errno);
  else
    printf("ok raw\n");
  if (fd >= 0)
    close(fd);
}

static void
stats(struct domybs_client *client) {
  struct domybs_client_stats now;
  int error = domybs_client_stats(client, &now);

  if (error)
    refused(error);
  else
    printf("ok stats granted %" PRIu64 " user %" PRIu64 " own %" PRIu64 " max %" PRIu64 "\n", now.granted, now.user, now.own,
           now.max);
}

int
main(void) {
  struct domybs_client *client;
  char line[256], word[128];
  int error = domybs_client_open(NULL, &client);

  setvbuf(stdout, NULL, _IOLBF, 0);
  if (error) {
    printf("failed %s: %s\n", DOMYBS_CLIENT_DEVICE, domybs_client_strerror(error));
    return 1;
  }
  printf("ready\n");
  while (fgets(line, sizeof line, stdin)) {
    unsigned slot = 0;
    uint64_t number, seed;
    uint32_t hint, flags;

    if (sscanf(line, "allocate %u %" SCNu64 " %127s %" SCNu64, &slot, &number, word, &seed) == 4 && slot < SLOTS) {
      allocate(client, slot, number, word, seed);
    } else if (sscanf(line, "verify %u", &slot) == 1 && slot < SLOTS) {
      verify(slot);
      printf("ok verified %zu bytes\n", memory[slot].bytes);
    } else if (sscanf(line, "dio %u %127s", &slot, word) == 2 && slot < SLOTS) {
      dio(slot, word);
    } else if (sscanf(line, "free %u", &slot) == 1 && slot < SLOTS) {
      error = domybs_client_free(client, &memory[slot]);
      memory[slot].bytes = 0;
      if (error)
        refused(error);
      else
        printf("ok freed\n");
    } else if (sscanf(line, "raw %" SCNu64 " %" SCNu32 " %" SCNu32, &number, &hint, &flags) == 3) {
      raw(number, hint, flags);
    } else if (!strcmp(line, "stats\n")) {
      stats(client);
    } else if (!strcmp(line, "exit\n")) {
      return 0;
    } else {
      printf("failed: no such command: %s", line);
    }
  }
  return 0;
}
