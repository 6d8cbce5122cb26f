/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client of a Redis server inside a test guest, that knows what every value must be.
 *
 *     redistool SOCKET COUNT SIZE SEED SECONDS
 *
 * Sets COUNT keys to values of SIZE bytes on average (half to one and a half times that), which don't compress; then, for
 * SECONDS, gets keys at random and checks them, and sets one in four anew; then gets all and checks them. Says "ok filled …",
 * "ok churned …", "ok verified …". Exit status: 0 all well, 1 could not do it, 2 usage, 3 a value was not what it should be
 * ("mismatch …").
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define BATCH 16u /* requests under way */

static uint64_t seed;
static uint32_t count, size;
static uint32_t *versions; /* of each key's value */
static FILE *from, *to;
static uint64_t *value; /* room for one */
static char *got;

static void __attribute__ ((noreturn, format (printf, 2, 3))) fail (int status, const char *format, ...) {
  va_list arguments;

  printf (status == 3 ? "mismatch " : "failed: ");
  va_start (arguments, format);
  vprintf (format, arguments);
  va_end (arguments);
  printf ("\n");
  exit (status);
}

static uint64_t
mix (uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ull;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

static double
now (void) {
  struct timespec t;

  clock_gettime (CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of the value of a key, a multiple of 8. */
static uint32_t
bytes_of (uint32_t key) {
  return (size / 2 + (uint32_t)(mix (seed ^ key) % size)) & ~7u;
}

static void
make_value (uint32_t key) {
  uint64_t word = mix (seed + ((uint64_t)key << 32 | versions[key]));

  for (uint32_t i = 0; i < bytes_of (key) / 8; i++)
    value[i] = word += 0x9e3779b97f4a7c15ull;
}

/* ---- the protocol ---- */

static void
expect_line (char *line, int room, const char *doing) {
  if (!fgets (line, room, from))
    fail (1, "%s: the server has gone", doing);
  if (*line == '-')
    fail (1, "%s: %s", doing, line);
}

static void
send_set (uint32_t key) {
  char name[16];
  const int length = snprintf (name, sizeof name, "key:%" PRIu32, key);

  versions[key]++;
  make_value (key);
  fprintf (to, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%" PRIu32 "\r\n", length, name, bytes_of (key));
  fwrite (value, 1, bytes_of (key), to);
  fputs ("\r\n", to);
}

static void
take_set (void) {
  char line[128];

  expect_line (line, sizeof line, "SET");
  if (strncmp (line, "+OK", 3))
    fail (1, "SET: %s", line);
}

static void
send_get (uint32_t key) {
  char name[16];
  const int length = snprintf (name, sizeof name, "key:%" PRIu32, key);

  fprintf (to, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", length, name);
}

static void
take_get (uint32_t key) {
  char line[128];

  expect_line (line, sizeof line, "GET");
  if (*line != '$' || strtoul (line + 1, NULL, 10) != bytes_of (key))
    fail (3, "of key %" PRIu32 ": %s", key, line);
  if (fread (got, 1, bytes_of (key) + 2, from) != bytes_of (key) + 2)
    fail (1, "GET: the server has gone");
  make_value (key);
  if (memcmp (got, value, bytes_of (key)))
    fail (3, "of key %" PRIu32 ", version %" PRIu32, key, versions[key]);
}

/* ---- what is done ---- */

static void
fill (void) {
  const double began = now ();
  uint64_t bytes = 0;

  for (uint32_t key = 0; key < count; key += BATCH) {
    const uint32_t end = count - key < BATCH ? count : key + BATCH;

    for (uint32_t i = key; i < end; i++) {
      send_set (i);
      bytes += bytes_of (i);
    }
    fflush (to);
    for (uint32_t i = key; i < end; i++)
      take_set ();
  }
  printf ("ok filled %" PRIu64 " bytes in %.1f s\n", bytes, now () - began);
}

static void
churn (double seconds) {
  const double end = now () + seconds;
  uint64_t gets = 0, sets = 0, state = seed;

  while (now () < end) {
    uint32_t keys[BATCH];

    for (unsigned i = 0; i < BATCH; i++) {
      state = mix (state + 0x9e3779b97f4a7c15ull);
      keys[i] = (uint32_t)(state % count);
      send_get (keys[i]);
    }
    fflush (to);
    for (unsigned i = 0; i < BATCH; i++)
      take_get (keys[i]);
    gets += BATCH;
    for (unsigned i = 0; i < BATCH / 4; i++)
      send_set (keys[i]);
    fflush (to);
    for (unsigned i = 0; i < BATCH / 4; i++)
      take_set ();
    sets += BATCH / 4;
  }
  printf ("ok churned %" PRIu64 " gets and %" PRIu64 " sets\n", gets, sets);
}

static void
verify (void) {
  for (uint32_t key = 0; key < count; key++) {
    send_get (key);
    fflush (to);
    take_get (key);
  }
  printf ("ok verified %" PRIu32 " values\n", count);
}

int
main (int argc, char **argv) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd;

  if (argc != 6 || strlen (argv[1]) >= sizeof address.sun_path)
    return 2;
  setvbuf (stdout, NULL, _IOLBF, 0);
  count = (uint32_t)strtoul (argv[2], NULL, 10);
  size = (uint32_t)strtoul (argv[3], NULL, 10);
  seed = strtoull (argv[4], NULL, 10);
  if (!count || size < 64)
    return 2;
  versions = calloc (count, sizeof *versions);
  value = malloc (2 * size);
  got = malloc (2 * size + 2);
  if (!versions || !value || !got)
    fail (1, "no memory");
  memcpy (address.sun_path, argv[1], strlen (argv[1]));
  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  /* The server may be starting yet. */
  for (int tries = 0; connect (fd, (struct sockaddr *)&address, sizeof address); tries++) {
    if (tries == 600)
      fail (1, "connecting: %s", strerror (errno));
    usleep (100000);
  }
  from = fdopen (fd, "r");
  to = fdopen (dup (fd), "w");
  if (!from || !to)
    fail (1, "no memory");
  fill ();
  churn (strtod (argv[5], NULL));
  verify ();
  return 0;
}
