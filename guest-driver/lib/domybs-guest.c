/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/*
 * domybs-guest: /dev/domybs from the command line, and an example of libdomybs.
 *
 *     domybs-guest info | stats | far
 *     domybs-guest hold SIZE [any|local|shared|remote]
 *
 * hold allocates SIZE (a number of bytes, or with K, M, G), fills it with a pattern, says "holding", waits until its standard
 * input ends, verifies the pattern, and frees. Exit status: 0 well, 1 refused or failed (the reason is printed), 2 usage, 3
 * wrong content.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libdomybs.h"

static int
usage (void) {
  fprintf (stderr, "usage: domybs-guest info | stats | far | hold SIZE [any|local|shared|remote]\n");
  return 2;
}

static int
refused (const char *what, int error) {
  fprintf (stderr, "domybs-guest: %s: %s\n", what, domybs_client_strerror (error));
  return 1;
}

static int
parse_size (const char *text, size_t *ret_bytes) {
  char *end;
  unsigned long long n = strtoull (text, &end, 10);
  unsigned shift = 0;

  if (end == text || text[0] == '-')
    return -1;
  if (*end == 'K')
    shift = 10;
  else if (*end == 'M')
    shift = 20;
  else if (*end == 'G')
    shift = 30;
  if (end[shift ? 1 : 0] != '\0' || n > (SIZE_MAX >> shift))
    return -1;
  *ret_bytes = (size_t)n << shift;
  return 0;
}

static int
parse_hint (const char *text, enum domybs_client_hint *ret_hint) {
  static const char *const names[] = { "any", "local", "shared", "remote" };

  for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
    if (strcmp (text, names[i]) == 0) {
      *ret_hint = (enum domybs_client_hint)i;
      return 0;
    }
  return -1;
}

/* The word at each address is the address' offset, stirred: neighbours differ everywhere. */
static uint64_t
pattern (size_t word) {
  return (word + 1) * UINT64_C (0x9e3779b97f4a7c15);
}

static int
hold (struct domybs_client *client, size_t bytes, enum domybs_client_hint hint) {
  struct domybs_memory memory;
  uint64_t *words;
  size_t count, wrong = 0;
  char sink[256];
  int error = domybs_client_allocate (client, bytes, hint, &memory);

  if (error)
    return refused ("allocate", error);
  words = memory.address;
  count = memory.bytes / sizeof *words;
  for (size_t i = 0; i < count; i++) {
    wrong += words[i] != 0;
    words[i] = pattern (i);
  }
  if (wrong)
    fprintf (stderr, "domybs-guest: %zu words of fresh memory were not zero\n", wrong);
  printf ("holding %zu bytes\n", memory.bytes);
  fflush (stdout);
  while (read (STDIN_FILENO, sink, sizeof sink) > 0)
    continue;
  for (size_t i = 0; i < count; i++)
    wrong += words[i] != pattern (i);
  printf ("%s\n", wrong ? "content is wrong" : "content is right");
  error = domybs_client_free (client, &memory);
  if (error)
    return refused ("free", error);
  return wrong ? 3 : 0;
}

static int
print_info (struct domybs_client *client) {
  struct domybs_client_info info;
  int error = domybs_client_info (client, &info);

  if (error)
    return refused ("info", error);
  printf ("block-bytes %zu\nsection-blocks %" PRIu64 "\nwindow-blocks %" PRIu64 "\nmax-blocks %" PRIu64
          "\nclient-max-blocks %" PRIu64 "\nuser-max-blocks %" PRIu64 "\n",
          info.block_bytes, info.section_blocks, info.window_blocks, info.max_blocks, info.client_max_blocks,
          info.user_max_blocks);
  return 0;
}

static int
print_stats (struct domybs_client *client) {
  struct domybs_client_stats stats;
  int error = domybs_client_stats (client, &stats);

  if (error)
    return refused ("stats", error);
  printf ("granted %" PRIu64 "\nonline %" PRIu64 "\nheld %" PRIu64 "\nreserve %" PRIu64 "\nuser %" PRIu64 "\nstuck %" PRIu64
          "\nmax %" PRIu64 "\ngranted-ever %" PRIu64 "\nreleased-ever %" PRIu64 "\n",
          stats.granted, stats.online, stats.held, stats.reserve, stats.user, stats.stuck, stats.max, stats.granted_ever,
          stats.released_ever);
  return 0;
}

static int
print_far (struct domybs_client *client) {
  struct domybs_client_far far;
  int error = domybs_client_far (client, &far);

  if (error)
    return refused ("far", error);
  printf ("shared-blocks %" PRIu64 "\nshared-used %" PRIu64 "\nremote-blocks %" PRIu64 "\nremote-used %" PRIu64 "\n"
          "client-max-blocks %" PRIu64 "\nuser-max-blocks %" PRIu64 "\n",
          far.shared_blocks, far.shared_used, far.remote_blocks, far.remote_used, far.client_max_blocks, far.user_max_blocks);
  return 0;
}

int
main (int argc, char **argv) {
  struct domybs_client *client;
  enum domybs_client_hint hint = DOMYBS_CLIENT_ANY;
  size_t bytes = 0;
  int error, status;

  if (argc < 2)
    return usage ();
  if (strcmp (argv[1], "hold") == 0) {
    if (argc < 3 || argc > 4 || parse_size (argv[2], &bytes) < 0 || (argc == 4 && parse_hint (argv[3], &hint) < 0))
      return usage ();
  } else if (argc != 2 || (strcmp (argv[1], "info") != 0 && strcmp (argv[1], "stats") != 0 && strcmp (argv[1], "far") != 0)) {
    return usage ();
  }
  error = domybs_client_open (NULL, &client);
  if (error)
    return refused (DOMYBS_CLIENT_DEVICE, error);
  if (argv[1][0] == 'h')
    status = hold (client, bytes, hint);
  else if (argv[1][0] == 'f')
    status = print_far (client);
  else
    status = argv[1][0] == 'i' ? print_info (client) : print_stats (client);
  domybs_client_close (client);
  return status;
}
