/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How long a memory device is silent when its worker dies: from kill -9 to the next answer, as the front-end sees it, with
 * nothing to do and under load, on one processor and on any. Peers, in the same run: what any process takes that begins (fork,
 * execve and exit of the same program with the same libraries), and a vhost-user back-end that is killed and started anew by
 * whoever watches it (qemu-storage-daemon with a vhost-user-blk export), until it has accepted a front-end and answers its
 * GET_FEATURES.
 */
#include "frontend.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib/gstdio.h>

static int kills = 200;
static char *json_path, *storage_daemon;
static GString *json;

static double
now_us (void) {
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* ---- results ---- */

static int
compare_doubles (const void *a, const void *b) {
  const double x = *(const double *)a, y = *(const double *)b;

  return x < y ? -1 : x > y;
}

static double
quantile (const double *sorted, double q) {
  return sorted[(int)(q * (kills - 1) + 0.5)] / 1000;
}

static void
record_result (const char *name, bool pinned, double *values) {
  qsort (values, (size_t)kills, sizeof *values, compare_doubles);
  printf ("  %-68s %8.2f %8.2f %8.2f\n", name, quantile (values, 0.5), quantile (values, 0.99), quantile (values, 1));
  fflush (stdout);
  g_string_append_printf (json,
                          "%s{\"name\": \"%s\", \"pinned\": %s, \"n\": %d, \"unit\": \"ms\", \"p50\": %.3f, \"p99\": %.3f, \"max\": %.3f}",
                          json->len ? ",\n  " : "", name, pinned ? "true" : "false", kills, quantile (values, 0.5),
                          quantile (values, 0.99), quantile (values, 1));
}

/* All that is started from now on, and this, on one processor; or on any. */
static void
pin (bool pinned) {
  const int n = (int)sysconf (_SC_NPROCESSORS_ONLN);
  cpu_set_t set;

  CPU_ZERO (&set);
  for (int i = pinned ? n - 1 : 0; i < n; i++)
    CPU_SET (i, &set);
  if (sched_setaffinity (0, sizeof set, &set) < 0)
    g_error ("sched_setaffinity: %s", g_strerror (errno));
}

/* ---- processes ---- */

static pid_t
start (char *const *argv) {
  const pid_t pid = fork ();

  if (pid == 0) {
    const int null = open ("/dev/null", O_RDWR);

    prctl (PR_SET_PDEATHSIG, SIGKILL);
    dup2 (null, 0);
    dup2 (null, 1);
    if (!g_getenv ("DOMYBS_TEST_LOG"))
      dup2 (null, 2);
    execv (argv[0], argv);
    _exit (127);
  }
  g_assert_cmpint (pid, >, 0);
  return pid;
}

static void
beginnings (bool pinned) {
  g_autofree double *values = g_new (double, kills);
  g_autofree char *program = backend_program ();
  char *const argv[] = { program, (char *)"--version", NULL };

  for (int i = 0; i < kills; i++) {
    const double began = now_us ();
    int status;

    waitpid (start (argv), &status, 0);
    values[i] = now_us () - began;
    if (!WIFEXITED (status) || WEXITSTATUS (status) != 0)
      g_error ("%s --version failed", program);
  }
  record_result ("fork, execve, --version and exit of domybs-backend", pinned, values);
}

/* ---- ours ---- */

enum load { NOTHING, A_MESSAGE, REQUESTS };

#define must(fe, call) \
  do { \
    if (!(call)) \
      g_error ("%s: %s", #call, (fe)->why ? (fe)->why : "?"); \
  } while (0)

static void
submit_stats (struct fe *fe, unsigned slot) {
  const struct domybs_stat stat = { DOMYBS_STAT_BLOCKS_ONLINE, 0, 1 };
  uint8_t buf[4096];

  fe_submit (fe, slot, buf, fe_encode_stats (fe, buf, 0, &stat, 1), sizeof buf);
}

/* From the kill to the answer of what was asked last before it (a request in the ring, 16 of them, or a message of QEMU's). */
static double
one_kill (struct fe *fe, struct backend *backend, enum load load) {
  const unsigned n = load == REQUESTS ? FE_SLOTS : 1;
  const pid_t worker = backend_wait_worker (backend, 0, fe_patience_ms ());
  const int pidfd = (int)syscall (SYS_pidfd_open, worker, 0);
  struct fe_answer answer;
  uint64_t features;
  double began, took = 0;

  g_assert_cmpint (pidfd, >=, 0);
  if (load == REQUESTS)
    for (int round = 0; round < 20; round++)
      for (unsigned half = 0; half < 2; half++) {
        for (unsigned i = 0; i < n / 2; i++)
          submit_stats (fe, half * n / 2 + i);
        for (unsigned i = 0; i < n / 2; i++)
          must (fe, fe_complete (fe, half * n / 2 + i, &answer, fe_patience_ms ()));
      }
  began = now_us ();
  syscall (SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
  if (load == A_MESSAGE) {
    must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &features));
    took = now_us () - began;
  }
  for (unsigned i = 0; i < n; i++)
    submit_stats (fe, i);
  for (unsigned i = 0; i < n; i++) {
    must (fe, fe_complete (fe, i, &answer, fe_patience_ms ()));
    if (answer.status != DOMYBS_OK)
      g_error ("status %u", answer.status);
    if (took == 0)
      took = now_us () - began;
  }
  close (pidfd);
  return took;
}

static void
blackouts (const char *name, bool pinned, enum load load, const char *grant) {
  const char *const arguments[] = { "--window=2G", "--host-account=none", "--host-reserve=0", grant, NULL };
  g_autofree double *values = g_new (double, kills);
  g_autoptr (backend_t) backend = backend_start (arguments);
  g_autoptr (fe_t) fe = fe_new ();
  struct fe_answer answer;

  must (fe, fe_open (fe, backend->socket_path));
  must (fe, fe_grant (fe, 256, DOMYBS_HINT_ANY, 0, 0, 0, &answer));
  for (int i = -5; i < kills; i++) {
    const double took = one_kill (fe, backend, load);

    if (i >= 0)
      values[i] = took;
    g_usleep (2000); /* the worker has settled */
  }
  record_result (name, pinned, values);
}

/* ---- qemu-storage-daemon ---- */

/* Where it runs: in a root file system of its own (the lab's), or here. */
struct place {
  const char *root; /* NULL: here */
  char *folder;     /* seen from here */
  const char *inside;
};

static bool
find_place (struct place *ret) {
  const char *lab = g_getenv ("DOMYBS_LAB");
  g_autofree char *in_lab = NULL, *template = NULL;

  *ret = (struct place){ 0 };
  storage_daemon = storage_daemon ? storage_daemon : g_find_program_in_path ("qemu-storage-daemon");
  if (!storage_daemon) {
    lab = lab ? lab : "/var/cache/domybs-lab";
    in_lab = g_build_filename (lab, "usr", "bin", "qemu-storage-daemon", NULL);
    if (geteuid () != 0 || !g_file_test (in_lab, G_FILE_TEST_IS_EXECUTABLE))
      return false;
    ret->root = lab;
    storage_daemon = g_strdup ("/usr/bin/qemu-storage-daemon");
  }
  template = g_build_filename (ret->root ? ret->root : "/", "tmp", "domybs-bench-XXXXXX", NULL);
  ret->folder = g_strdup (g_mkdtemp (template));
  ret->inside = ret->folder + (ret->root ? strlen (ret->root) : 0);
  return ret->folder != NULL;
}

static void
storage_daemons (bool pinned, const struct place *place) {
  g_autofree double *values = g_new (double, kills);
  g_autofree char *socket_path = g_build_filename (place->folder, "blk.sock", NULL);
  g_autofree char *export = g_strdup_printf ("type=vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path=%s/blk.sock,writable=on",
                                             place->inside);
  char *const argv[] = { (char *)"/usr/sbin/chroot", (char *)place->root, storage_daemon, (char *)"--blockdev",
                         (char *)"driver=null-co,node-name=n,size=1073741824", (char *)"--export", export, NULL };
  char *const here[] = { storage_daemon, argv[3], argv[4], argv[5], export, NULL };
  pid_t pid = 0;

  for (int i = -2; i < kills; i++) {
    g_autoptr (fe_t) fe = fe_new ();
    const double began = now_us ();
    uint64_t features;

    if (pid > 0) {
      kill (pid, SIGKILL);
      waitpid (pid, NULL, 0);
      g_unlink (socket_path);
    }
    pid = start (place->root ? argv : here);
    while (access (socket_path, F_OK) < 0) {
      if (now_us () - began > 10e6)
        g_error ("%s does not listen", storage_daemon);
      g_usleep (50);
    }
    must (fe, fe_connect (fe, socket_path));
    must (fe, fe_get_u64 (fe, FE_GET_FEATURES, &features));
    if (i >= 0)
      values[i] = now_us () - began;
  }
  kill (pid, SIGKILL);
  waitpid (pid, NULL, 0);
  g_unlink (socket_path);
  record_result ("peer: qemu-storage-daemon killed and started, until GET_FEATURES", pinned, values);
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "kills", 0, 0, G_OPTION_ARG_INT, &kills, "Kills of each measurement (200)", "N" },
    { "storage-daemon", 0, 0, G_OPTION_ARG_FILENAME, &storage_daemon, "qemu-storage-daemon (from PATH, else the lab's)", "FILE" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    { NULL },
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– how long a device is silent when its worker is killed");
  g_autoptr (GError) error = NULL;
  struct place place;
  bool have_peer;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || argc > 1 || kills < 2) {
    g_printerr ("bench-kill: %s\n", error ? error->message : "wrong arguments");
    return 2;
  }
  json = g_string_new (NULL);
  have_peer = find_place (&place);
  printf ("%ld processors, %d kills of each; ms\n", sysconf (_SC_NPROCESSORS_ONLN), kills);
  for (int pinned = 0; pinned < 2; pinned++) {
    pin (pinned);
    printf ("%-70s %8s %8s %8s\n", pinned ? "All on one processor" : "On any processor", "p50", "p99", "max");
    beginnings (pinned);
    blackouts ("worker killed, nothing to do: until a request is answered", pinned, NOTHING, "--grant=reserve");
    blackouts ("worker killed, nothing to do: until GET_FEATURES is answered", pinned, A_MESSAGE, "--grant=reserve");
    blackouts ("worker killed under load: until the next of 16 requests is answered", pinned, REQUESTS, "--grant=reserve");
    blackouts ("the same, 512 MiB populated", pinned, REQUESTS, "--grant=populate");
    if (have_peer)
      storage_daemons (pinned, &place);
  }
  if (have_peer)
    g_rmdir (place.folder);
  else
    printf ("no qemu-storage-daemon to compare with: neither in PATH nor, for root, in the lab\n");
  if (json_path) {
    g_autofree char *text = g_strdup_printf ("[\n  %s\n]\n", json->str);

    if (!g_file_set_contents (json_path, text, -1, &error)) {
      g_printerr ("bench-kill: %s\n", error->message);
      return 1;
    }
  }
  g_string_free (json, TRUE);
  return 0;
}
