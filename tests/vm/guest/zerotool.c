/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a disk reads as zeroes, beside the page cache.
 *
 *     zerotool FILE SKIP
 *
 * SKIP bytes at the beginning don't count. Says "ok zero N bytes" or "mismatch at OFFSET". Exit status: 0 it does, 1 it can't
 * be read, 2 usage, 3 it does not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE (1u << 20)

int
main (int argc, char **argv) {
  unsigned long long at = 0, skip;
  char *buffer;
  ssize_t n;
  int fd;

  if (argc != 3)
    return 2;
  skip = strtoull (argv[2], NULL, 0);
  fd = open (argv[1], O_RDONLY | O_DIRECT | O_CLOEXEC);
  buffer = aligned_alloc (4096, PIECE);
  if (fd < 0 || !buffer) {
    printf ("failed: %s: %s\n", argv[1], strerror (errno));
    return 1;
  }
  while ((n = read (fd, buffer, PIECE)) > 0) {
    for (ssize_t i = at < skip ? (ssize_t)(skip - at) : 0; i < n; i++)
      if (buffer[i]) {
        printf ("mismatch at %llu: %02x\n", at + (unsigned long long)i, (unsigned char)buffer[i]);
        return 3;
      }
    at += (unsigned long long)n;
  }
  if (n < 0) {
    printf ("failed: %s at %llu: %s\n", argv[1], at, strerror (errno));
    return 1;
  }
  printf ("ok zero %llu bytes\n", at - skip);
  return 0;
}
