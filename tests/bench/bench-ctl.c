/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What domybsctl itself takes: the start-up of every command, and a list of many domains. libvirt is its test driver here, in
 * the same process, so its share is measured apart (connect; connect and ask for all domains what the list asks) and taken off.
 */
#include "ctl-scene.h"

#include <fcntl.h>
#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "domain/domain.h"

#define MANY 500
#define GOAL_START_MS 100.0
#define GOAL_MANY_MS 1000.0

static int rounds = 21;
static char *json_path;

struct result {
  char *name;
  double median, min, max, own; /* ms; own: the least less libvirt's least, which other work on the machine disturbs least */
};
static GArray *results;

static double
now_ms (void) {
  return (double)g_get_monotonic_time () / 1000;
}

static int
by_value (gconstpointer a, gconstpointer b) {
  const double left = *(const double *)a, right = *(const double *)b;

  return (left > right) - (left < right);
}

/* Runs it once, output to nowhere; returns milliseconds. */
static double
run_once (const char *const *arguments, int expected) {
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  const double began = now_ms ();
  pid_t pid;
  int status;

  g_ptr_array_add (argv, (gpointer)g_getenv ("DOMYBSCTL"));
  for (; *arguments; arguments++)
    g_ptr_array_add (argv, (gpointer)*arguments);
  g_ptr_array_add (argv, NULL);
  pid = fork ();
  if (pid == 0) {
    const int null = open ("/dev/null", O_RDWR);

    dup2 (null, 0);
    dup2 (null, 1);
    dup2 (null, 2);
    execv (argv->pdata[0], (char **)argv->pdata);
    _exit (127);
  }
  waitpid (pid, &status, 0);
  if (!WIFEXITED (status) || WEXITSTATUS (status) != expected)
    g_error ("domybsctl %s ended with %d and not %d", (const char *)argv->pdata[1], WEXITSTATUS (status), expected);
  return now_ms () - began;
}

static double
note (const char *name, double *times, double libvirt_ms) {
  struct result result = { .name = g_strdup (name) };

  qsort (times, (size_t)rounds, sizeof *times, by_value);
  result.median = times[rounds / 2];
  result.min = times[0];
  result.max = times[rounds - 1];
  result.own = result.min - libvirt_ms;
  g_array_append_val (results, result);
  printf ("  %-44s %9.2f %9.2f %9.2f %9.2f\n", name, result.median, result.min, result.max, result.own);
  return result.own;
}

static double
measure (const char *name, const char *const *arguments, int expected, double libvirt_ms) {
  g_autofree double *times = g_new (double, rounds);

  run_once (arguments, expected); /* from a warm cache */
  for (int i = 0; i < rounds; i++)
    times[i] = run_once (arguments, expected);
  return note (name, times, libvirt_ms);
}

/* ---- libvirt's share ---- */

static void
say_nothing (void *data, virErrorPtr error) {
}

/* What the list asks, and nothing else is done with it. */
static void
ask_all (virConnectPtr connection) {
  virDomainPtr *domains;
  const int n = virConnectListAllDomains (connection, &domains, 0);

  for (int i = 0; i < n; i++) {
    int state;

    virDomainGetState (domains[i], &state, NULL, 0);
    free (virDomainGetMetadata (domains[i], VIR_DOMAIN_METADATA_ELEMENT, DOMAIN_METADATA_URI, 0));
    free (virDomainGetXMLDesc (domains[i], 0));
    virDomainFree (domains[i]);
  }
  free (domains);
}

static double
measure_libvirt (const char *name, const char *uri, gboolean asks) {
  g_autofree double *times = g_new (double, rounds);

  for (int i = -1; i < rounds; i++) {
    const double began = now_ms ();
    virConnectPtr connection = virConnectOpenReadOnly (uri);

    if (!connection)
      g_error ("libvirt: %s", virGetLastErrorMessage ());
    if (asks)
      ask_all (connection);
    virConnectClose (connection);
    if (i >= 0)
      times[i] = now_ms () - began;
  }
  note (name, times, 0);
  return times[0];
}

/* ---- many back-ends: one thread that answers for all ---- */

struct crowd {
  struct pollfd polls[MANY + 1];
  GThread *thread;
};

static void
answer (int listener) {
  static const char greeting[] = "{\"domybs\":{\"program\":\"domybs-backend\",\"version\":\"0.1.0\",\"protocol\":1}}\n";
  static const char status[]
      = "{\"return\":{\"name\":\"vm\",\"pid\":4711,\"block-bytes\":2097152,\"window-blocks\":2048,\"max-blocks\":1024,"
        "\"target-blocks\":null,\"granted-blocks\":77,\"fragmentation-permille\":0,\"connected\":true,\"connections\":1,"
        "\"window-mapped\":true,\"session\":true,\"generation\":1,\"memfd-bytes\":123456,\"memfd-path\":\"/proc/4711/fd/9\","
        "\"audit-punched-bytes\":0,\"host-used-blocks\":77,\"host-limit-blocks\":16384,\"host-reserve-bytes\":1073741824,"
        "\"requests\":100,\"requests-refused\":0,\"refused-reason\":null,\"refused-age-ms\":null,\"stats-age-ms\":1500,"
        "\"guest\":{\"driver\":\"virtio_domybs 0.1\",\"section-blocks\":64,\"mem-total-bytes\":1073741824,"
        "\"mem-available-bytes\":536870912,\"blocks-online\":77,\"blocks-held\":0,\"blocks-stuck\":0}},\"id\":1}\n";
  const int fd = accept (listener, NULL, NULL);
  char line[4096];

  if (fd < 0)
    return;
  if (send (fd, greeting, sizeof greeting - 1, MSG_NOSIGNAL) > 0 && recv (fd, line, sizeof line, 0) > 0)
    if (send (fd, status, sizeof status - 1, MSG_NOSIGNAL) < 0)
      perror ("crowd");
  close (fd);
}

static gpointer
crowd_run (gpointer data) {
  struct crowd *crowd = data;

  while (poll (crowd->polls, MANY + 1, -1) > 0 && !crowd->polls[MANY].revents)
    for (unsigned i = 0; i < MANY; i++)
      if (crowd->polls[i].revents)
        answer (crowd->polls[i].fd);
  return NULL;
}

static void
crowd_add (struct crowd *crowd, unsigned i, const char *path) {
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  const int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  strcpy (address.sun_path, path);
  if (bind (fd, (const struct sockaddr *)&address, sizeof address) < 0 || listen (fd, 16) < 0)
    g_error ("%s: %m", path);
  crowd->polls[i] = (struct pollfd){ fd, POLLIN, 0 };
}

/* ---- the table ---- */

static void
heading (const char *text) {
  printf ("\n%-46s %9s %9s %9s %9s\n", text, "median", "min", "max", "own");
}

static void
verdict (const char *what, double value, double goal) {
  printf ("  %-56s %9.2f ms, goal %g: %s\n", what, value, goal, value <= goal ? "met" : "MISSED");
}

static void
write_json (void) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();
  g_autoptr (JsonGenerator) generator = json_generator_new ();
  g_autoptr (JsonNode) root = NULL;
  g_autoptr (GError) error = NULL;

  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "benchmark");
  json_builder_add_string_value (builder, "ctl");
  json_builder_set_member_name (builder, "rounds");
  json_builder_add_int_value (builder, rounds);
  json_builder_set_member_name (builder, "results");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < results->len; i++) {
    const struct result *result = &g_array_index (results, struct result, i);
    const struct {
      const char *name;
      double value;
    } figures[] = { { "median", result->median }, { "min", result->min }, { "max", result->max }, { "own", result->own } };

    json_builder_begin_object (builder);
    json_builder_set_member_name (builder, "name");
    json_builder_add_string_value (builder, result->name);
    json_builder_set_member_name (builder, "unit");
    json_builder_add_string_value (builder, "ms");
    for (unsigned j = 0; j < G_N_ELEMENTS (figures); j++) {
      json_builder_set_member_name (builder, figures[j].name);
      json_builder_add_double_value (builder, figures[j].value);
    }
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  root = json_builder_get_root (builder);
  json_generator_set_root (generator, root);
  json_generator_set_pretty (generator, TRUE);
  if (!json_generator_to_file (generator, json_path, &error))
    g_error ("%s", error->message);
  printf ("\nThe same as JSON: %s\n", json_path);
}

/* ---- what is measured ---- */

/* The slowest command's own time. */
static double
start_ups (void) {
  g_auto (Stage) stage = stage_new (&(const GuestHabits){ 0 }, NULL);
  const char *uri = scene_uri (stage.scene);
  const struct {
    const char *name;
    const char *const *arguments;
    int expected;
    gboolean connects;
  } commands[] = {
    { "--version", ARGS ("--version"), 0, FALSE },
    { "help", ARGS ("help"), 0, FALSE },
    { "wrong option", ARGS ("list", "--frob"), 2, FALSE },
    { "list", ARGS ("-c", uri, "list"), 0, TRUE },
    { "list --names", ARGS ("-c", uri, "list", "--names"), 0, TRUE },
    { "status", ARGS ("-c", uri, "status"), 0, TRUE },
    { "status vm1", ARGS ("-c", uri, "status", "vm1"), 0, TRUE },
    { "top --count=1", ARGS ("-c", uri, "top", "--count=1"), 0, TRUE },
    { "target vm1", ARGS ("-c", uri, "target", "vm1"), 0, TRUE },
    { "target vm1 0", ARGS ("-c", uri, "target", "vm1", "0"), 0, TRUE },
    { "grow vm1 0 (is there already)", ARGS ("-c", uri, "grow", "vm1", "0"), 0, TRUE },
    { "shrink vm1 0 (is there already)", ARGS ("-c", uri, "shrink", "vm1", "0"), 0, TRUE },
    { "blocks vm1", ARGS ("-c", uri, "blocks", "vm1"), 0, TRUE },
    { "attach vm1 (refused: no QEMU)", ARGS ("-c", uri, "attach", "vm1"), 4, TRUE },
    { "detach vm1 --dry-run", ARGS ("-c", uri, "detach", "vm1", "--dry-run"), 0, TRUE },
    { "check (finds something to do)", ARGS ("-c", uri, "check"), 1, TRUE },
    { "status nope (not found)", ARGS ("-c", uri, "status", "nope"), 3, TRUE },
  };
  double slowest = 0, connect;

  heading ("start-up, one domain, ms");
  connect = measure_libvirt ("libvirt: connect", uri, FALSE);
  for (size_t i = 0; i < G_N_ELEMENTS (commands); i++) {
    const double own
        = measure (commands[i].name, commands[i].arguments, commands[i].expected, commands[i].connects ? connect : 0);

    slowest = MAX (slowest, own);
  }
  return slowest;
}

static double
many_domains (void) {
  g_autoptr (Scene) scene = scene_new ();
  g_autofree struct crowd *crowd = g_new0 (struct crowd, 1);
  int stop[2];
  double asks, plain;

  for (unsigned i = 0; i < MANY; i++) {
    g_autofree char *name = g_strdup_printf ("vm-%03u", i), *path = NULL;

    path = scene_control_path (scene, scene_add (scene, name, TRUE, SCENE_MEMORY (SCENE_GIB)));
    crowd_add (crowd, i, path);
  }
  if (pipe (stop) < 0)
    g_error ("pipe: %m");
  crowd->polls[MANY] = (struct pollfd){ stop[0], POLLIN, 0 };
  crowd->thread = g_thread_new ("crowd", crowd_run, crowd);
  heading ("500 running domains with back-ends, ms");
  measure_libvirt ("libvirt: connect", scene_uri (scene), FALSE);
  asks = measure_libvirt ("libvirt: connect, list, state, metadata, XML", scene_uri (scene), TRUE);
  plain = measure ("list", ARGS ("-c", scene_uri (scene), "list"), 0, asks);
  measure ("list --json", ARGS ("-c", scene_uri (scene), "list", "--json"), 0, asks);
  measure ("status", ARGS ("-c", scene_uri (scene), "status"), 0, asks);
  measure ("top --count=1", ARGS ("-c", scene_uri (scene), "top", "--count=1"), 0, asks);
  close (stop[1]);
  g_thread_join (crowd->thread);
  for (unsigned i = 0; i < MANY; i++)
    close (crowd->polls[i].fd);
  close (stop[0]);
  return plain;
}

int
main (int argc, char **argv) {
  const GOptionEntry entries[] = {
    { "rounds", 0, 0, G_OPTION_ARG_INT, &rounds, "Rounds of each measurement (21)", "N" },
    { "json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "Write the results there, too", "FILE" },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– what domybsctl itself takes");
  g_autoptr (GError) error = NULL;
  double start, many;

  g_option_context_add_main_entries (context, entries, NULL);
  if (!g_option_context_parse (context, &argc, &argv, &error) || rounds < 5 || rounds > 1000) {
    fprintf (stderr, "%s\n", error ? error->message : "--rounds: 5 to 1000");
    return 1;
  }
  results = g_array_new (FALSE, FALSE, sizeof (struct result));
  virSetErrorFunc (NULL, say_nothing);
  printf ("%ld cores, %d rounds of each; own: the least less libvirt's least\n", sysconf (_SC_NPROCESSORS_ONLN), rounds);
  start = start_ups ();
  many = many_domains ();
  printf ("\nGoals\n");
  verdict ("own start-up of the slowest command", start, GOAL_START_MS);
  verdict ("list of 500 domains, own time", many, GOAL_MANY_MS);
  if (json_path)
    write_json ();
  return 0;
}
