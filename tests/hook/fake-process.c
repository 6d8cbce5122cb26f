/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plays the processes around a VM. What it does depends on the name that it is called by:
 *
 *   dies       says why on stderr and ends with 1
 *   deaf       runs and never listens
 *   refuses    listens, and then finds that it can't work: says why on stderr and ends with 1
 *   idle       listens, but who should begin to work does not
 *   stubborn   works, as far as can be seen, and ignores SIGTERM
 *   hung       the same, takes one connection and then does nothing, whatever comes
 *   qemu       connects to the socket whose path is its last argument and stays
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int
open_socket (const char *path, struct sockaddr_un *address) {
  *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
  if (!path || strlen (path) >= sizeof address->sun_path)
    _exit (2);
  strcpy (address->sun_path, path);
  return socket (AF_UNIX, SOCK_STREAM, 0);
}

static int
listen_at (int argc, char **argv, const char *option) {
  struct sockaddr_un address;
  const char *path = NULL;
  int fd;

  for (int i = 1; i < argc; i++)
    if (strncmp (argv[i], option, strlen (option)) == 0)
      path = argv[i] + strlen (option);
  fd = open_socket (path, &address);
  if (fd < 0 || bind (fd, (struct sockaddr *)&address, sizeof address) < 0 || listen (fd, 4) < 0)
    _exit (2);
  return fd;
}

static void
run (void) {
  for (;;)
    pause ();
}

/* Speaks first to the one that looks whether it works. */
static int
work_at (int argc, char **argv) {
  const int control = listen_at (argc, argv, "--control-path="), fd = listen_at (argc, argv, "--socket-path=");
  const int client = accept (control, NULL, NULL);

  if (client < 0 || write (client, "{}\n", 3) != 3)
    _exit (2);
  close (client);
  return fd;
}

int
main (int argc, char **argv) {
  const char *slash = strrchr (argv[0], '/'), *name = slash ? slash + 1 : argv[0];
  struct sockaddr_un address;
  int fd;

  alarm (120); /* whatever becomes of the test */
  if (strcmp (name, "dies") == 0) {
    fprintf (stderr, "a first line\nno memory for you: \"all\" of it is out\n");
    return 1;
  }
  if (strcmp (name, "deaf") == 0)
    run ();
  if (strcmp (name, "refuses") == 0 || strcmp (name, "idle") == 0) {
    listen_at (argc, argv, "--control-path=");
    listen_at (argc, argv, "--socket-path=");
    if (strcmp (name, "idle") == 0)
      run ();
    usleep (300 * 1000); /* long enough to be taken for one that works */
    fprintf (stderr, "a first line\nthere is no room for a window\n");
    return 1;
  }
  if (strcmp (name, "stubborn") == 0) {
    signal (SIGTERM, SIG_IGN);
    work_at (argc, argv);
    run ();
  }
  if (strcmp (name, "hung") == 0) {
    signal (SIGTERM, SIG_IGN);
    if (accept (work_at (argc, argv), NULL, NULL) < 0)
      return 2;
    run ();
  }
  if (strcmp (name, "qemu") == 0) {
    prctl (PR_SET_PDEATHSIG, SIGKILL);
    fd = open_socket (argv[argc - 1], &address);
    if (fd < 0 || connect (fd, (struct sockaddr *)&address, sizeof address) < 0)
      return 2;
    run ();
  }
  return 2;
}
