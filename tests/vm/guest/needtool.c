/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A program that needs more memory than there is: waits until the guest has grown, then touches memory, and says how long both
 * took.
 *
 *     needtool GROW TOUCH
 *
 * Both in MiB. Prints "ok waiting"; when MemTotal is GROW above what it was at the start, "ok capacity SECONDS"; when one word in
 * every page of TOUCH has been written, "ok touched SECONDS"; then holds the memory until it gets a line. Figures are read every
 * 2 ms; seconds are those of the step alone.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096ul
#define MIB (1ul << 20)
#define EVERY_NS 2000000

static double
now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* MemTotal is the first line. */
static uint64_t
total(void) {
  char text[128];
  int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
  ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (n <= 0) {
    puts("failed: no /proc/meminfo");
    exit(1);
  }
  close(fd);
  text[n] = '\0';
  return strtoull(text + strlen("MemTotal:"), NULL, 10) * 1024;
}

int
main(int argc, char **argv) {
  const struct timespec pause = { .tv_nsec = EVERY_NS };
  uint64_t wanted, touch;
  double began;
  char word[16];
  char *start;

  if (argc != 3) {
    fputs("usage: needtool GROW TOUCH (both in MiB)\n", stderr);
    return 2;
  }
  wanted = total() + strtoull(argv[1], NULL, 10) * MIB;
  touch = strtoull(argv[2], NULL, 10) * MIB;
  setvbuf(stdout, NULL, _IOLBF, 0);
  start = mmap(NULL, touch, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (start == MAP_FAILED) {
    puts("failed: mmap");
    return 1;
  }

  puts("ok waiting");
  began = now();
  while (total() < wanted)
    nanosleep(&pause, NULL);
  printf("ok capacity %.4f\n", now() - began);
  began = now();
  for (uint64_t at = 0; at < touch; at += PAGE)
    *(volatile uint64_t *)(void *)(start + at) = at + 1;
  printf("ok touched %.4f\n", now() - began);
  return !fgets(word, sizeof word, stdin);
}
