/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The third part of scripts/demo: neighbour hosts lend memory, and fail. Host A runs a small VM with a far disk; hosts B and C
 * lend memory to it. While a program in the guest compares what it has there, the donor on B is killed, its memory with it, and
 * the one on C hangs; then C goes on, B begins anew with nothing, and copies are made until all are there again.
 *
 * Host A is the lab's host (host.h); B and C are networks of their own (tests/cluster) with nothing but a donor in them. The
 * figures are those of host A's domybs-far (control socket): what it says of a donor is what it knows of it.
 */
#include "cluster.h"
#include "demo-story.h"
#include "vm-internal.h"

#include <signal.h>
#include <string.h>
#include <sys/random.h>

#define EVERY_US (250 * 1000)
#define PROGRAM_SECONDS 240
#define STATE_SECONDS 60
#define PROTECT_SECONDS 120
#define BOOT_MIB 256
#define FAR "shared=2G" /* from half full on the guest's kernel gives swap free that it has read, and writes it again */
#define LENT "768M"
#define PLACE_MIB 2u
#define DONORS 2u
#define KEY_BYTES 32u
#define KEYS_FOLDER "/etc/domybs/"

typedef struct {
  gint64 places, protected, lost, in_storage; /* of 2 MiB */
  gint64 held[DONORS];                        /* places with a copy that counts there */
  char state[DONORS][8];
  gint64 wait_ms, read_p99_us, repaired, elsewhere, errors;
} Sample;

typedef struct {
  const char *what;
  Sample at;
  gint64 longest_ms;
  double seconds;
} Row;

typedef struct {
  Story story;
  int fill_mib;
  struct cluster *cluster;
  char *folder;
  VmProcess donors[DONORS];
  Qmp *far;          /* domybs-far's control socket */
  GString *output;   /* of the program in the guest */
  gsize heard;       /* of that: up to the end of its last round */
  unsigned rounds;   /* that it has verified all */
  gboolean resting;  /* it is not told to begin another */
  gint64 longest_ms; /* that a request of the guest was seen to wait in this step */
  Row rows[6];
  unsigned n_rows;
} Demo;

static const char *const hosts[] = { "B", "C" }, *const names[] = { "hostb", "hostc" };

/* ---- figures ---- */

static void
sample (Demo *demo, Sample *ret) {
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) answer = qmp_execute (demo->far, "{\"execute\":\"status\"}", 30, &error);
  JsonObject *disk, *copies;
  JsonArray *donors;

  if (!answer)
    vm_fail (demo->story.domain->vm, "domybs-far does not answer: %s", error->message);
  disk = json_array_get_object_element (json_object_get_array_member (json_node_get_object (answer), "disks"), 0);
  copies = json_object_get_object_member (disk, "copies");
  donors = json_object_get_array_member (copies, "donors");
  *ret = (Sample){
    .places = story_member (copies, "places"),
    .protected = story_member (copies, "protected"),
    .lost = story_member (copies, "lost"),
    .in_storage = story_member (copies, "in-storage"),
    .wait_ms = story_member (disk, "oldest-wait-ms"),
    .read_p99_us = story_member (json_object_get_object_member (disk, "read-latency-us"), "p99"),
    .repaired = story_member (copies, "repaired-bytes"),
    .elsewhere = story_member (copies, "read-elsewhere") + story_member (copies, "hedges-won"),
    .errors = story_member (disk, "errors") + story_member (disk, "damaged-pages"),
  };
  for (unsigned d = 0; d < DONORS; d++) {
    JsonObject *donor = json_array_get_object_element (donors, d);

    ret->held[d] = story_member (donor, "copies");
    g_strlcpy (ret->state[d], json_object_get_string_member (donor, "state"), sizeof ret->state[d]);
  }
  demo->longest_ms = MAX (demo->longest_ms, ret->wait_ms);
}

static unsigned
mib (gint64 places) {
  return (unsigned)places * PLACE_MIB;
}

static void
show (Demo *demo, const Sample *now) {
  /* With all bars the line takes 116 columns, without any 79 */
  const unsigned columns = screen_columns (demo->story.screen), cells = columns > 116 ? 5 : 0;
  const double scale = (double)MAX (now->places, 1);
  char storage[SCREEN_BAR_BYTES] = "", donors[DONORS][SCREEN_BAR_BYTES] = { "", "" }, full[SCREEN_BAR_BYTES] = "";

  for (unsigned d = 0; cells && d < DONORS; d++)
    screen_bar (demo->story.screen, donors[d], cells, (double)now->held[d] / scale, 0);
  if (cells)
    screen_bar (demo->story.screen, storage, cells, (double)now->in_storage / scale, 0);
  if (columns > 90)
    screen_bar (demo->story.screen, full, 8, (double)now->protected / scale, 0);
  screen_live (demo->story.screen, "[%4.0fs] A %s%4u | B %s%4u %-4s | C %s%4u %-4s | two copies %s%4u of %4u MiB | round %u",
               story_seconds (demo->story.began), storage, mib (now->in_storage), donors[0], mib (now->held[0]), now->state[0],
               donors[1], mib (now->held[1]), now->state[1], full, mib (now->protected), mib (now->places), demo->rounds + 1);
}

static void
step_done (Demo *demo, const char *what) {
  Row *row = &demo->rows[demo->n_rows++];

  g_assert_cmpuint (demo->n_rows, <=, G_N_ELEMENTS (demo->rows));
  *row = (Row){ .what = what, .seconds = story_seconds (demo->story.step_began) };
  sample (demo, &row->at);
  row->longest_ms = demo->longest_ms;
  demo->longest_ms = 0;
  demo->story.step_began = g_get_monotonic_time ();
}

/* ---- the program in the guest ---- */

/* It verifies once when it has filled, and then whenever it is told to: each round that has ended is checked and, unless it is
 * to rest, followed by the next. */
static void
listen (Demo *demo) {
  static const char verified[] = "ok verified ";
  const char *said;

  story_program_said (&demo->story, NULL, G_MAXINT64, demo->output);
  while ((said = strstr (demo->output->str + demo->heard, verified)) && strchr (said, '\n')) {
    if (g_ascii_strtoull (said + strlen (verified), NULL, 10) != (guint64)demo->fill_mib * VM_MIB)
      vm_fail (demo->story.domain->vm, "the program in the guest did not verify all: %s", said);
    demo->heard = (gsize)(strchr (said, '\n') - demo->output->str);
    demo->rounds++;
    if (!demo->resting)
      story_program_request (&demo->story, "tell program verify");
  }
}

typedef gboolean (*Condition) (Demo *demo, const Sample *now, gconstpointer data);

/* Shows figures until condition is met. */
static void
watch (Demo *demo, Condition condition, gconstpointer data, int seconds, const char *what, Sample *ret_now) {
  const gint64 deadline = g_get_monotonic_time () + seconds * G_USEC_PER_SEC;

  for (;; g_usleep (EVERY_US)) {
    listen (demo);
    sample (demo, ret_now);
    show (demo, ret_now);
    if (condition (demo, ret_now, data))
      return;
    if (g_get_monotonic_time () > deadline)
      vm_fail (demo->story.domain->vm, "not within %d s: %s", seconds, what);
  }
}

static gboolean
is_filled (Demo *demo, const Sample *now, gconstpointer data) {
  return strstr (demo->output->str, "ok filled") != NULL;
}

static gboolean
is_protected (Demo *demo, const Sample *now, gconstpointer data) {
  return now->places > 0 && now->protected == now->places;
}

static gboolean
is_up (Demo *demo, const Sample *now, gconstpointer data) {
  return g_str_equal (now->state[0], "up");
}

static gboolean
is_whole (Demo *demo, const Sample *now, gconstpointer data) {
  return is_protected (demo, now, data) && g_str_equal (now->state[0], "up") && g_str_equal (now->state[1], "up");
}

/* data: how many rounds it takes */
static gboolean
has_verified (Demo *demo, const Sample *now, gconstpointer data) {
  return demo->rounds >= *(const unsigned *)data;
}

/* data: when */
static gboolean
is_late (Demo *demo, const Sample *now, gconstpointer data) {
  return g_get_monotonic_time () >= *(const gint64 *)data;
}

static void
look_for (Demo *demo, int ms) {
  const gint64 until = g_get_monotonic_time () + ms * 1000;
  Sample now;

  watch (demo, is_late, &until, STATE_SECONDS, "time passes", &now);
}

/* ---- hosts ---- */

/* Host A's link goes from the cluster's own host 0 to the lab's host. */
static void
join_lab (Demo *demo) {
  g_autofree char *process = g_path_get_dirname (host_root (host_get ())), *pid = g_path_get_basename (process),
                  *network = g_strdup_printf ("--net=%s/ns/net", process), *address = cluster_address (demo->cluster, 0, 0),
                  *prefix = g_strdup_printf ("%.*s/24", (int)strcspn (address, ":"), address);
  const char *const give[] = { "ip", "link", "set", "eth0", "netns", pid, NULL };
  const char *const set[] = { "nsenter", network, "ip", "addr", "add", prefix, "dev", "eth0", NULL };
  const char *const up[] = { "nsenter", network, "ip", "link", "set", "eth0", "up", NULL };
  const char *const *const commands[] = { give, set, up };

  cluster_enter (demo->cluster, 0);
  for (unsigned i = 0; i < G_N_ELEMENTS (commands); i++) {
    g_autoptr (GError) error = NULL;
    g_autofree char *complaint = NULL;
    int status;

    if (!g_spawn_sync (NULL, (char **)commands[i], NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, &complaint, &status, &error)
        || !g_spawn_check_wait_status (status, &error))
      g_error ("%s: %s: %s", commands[i][0], error->message, complaint);
  }
}

/* A key for A and one of the others, in psktool's form: one file on either side. */
static void
make_key (Demo *demo, unsigned d) {
  g_autofree char *there = g_strdup_printf ("%s/%s.psk", demo->folder, names[d]),
                  *here = g_strdup_printf (KEYS_FOLDER "%s.psk", names[d]);
  g_autoptr (GString) line = g_string_new ("hosta:");
  guint8 key[KEY_BYTES];

  g_assert_cmpint (getrandom (key, sizeof key, 0), ==, sizeof key);
  for (unsigned i = 0; i < sizeof key; i++)
    g_string_append_printf (line, "%02x", key[i]);
  g_string_append_c (line, '\n');
  g_assert_true (g_file_set_contents_full (there, line->str, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  host_write (host_get (), here, line->str);
  g_free (host_run_ok (host_get (), "chmod", "600", here, NULL));
}

static void
start_donor (Demo *demo, unsigned d) {
  g_autofree char *address = cluster_address (demo->cluster, 1 + d, 0),
                  *psk = g_strdup_printf ("%s/%s.psk", demo->folder, names[d]),
                  *control = g_strdup_printf ("%s/%s.sock", demo->folder, names[d]);
  const char *build = g_getenv ("DOMYBS_BUILD");
  g_autofree char *program = g_build_filename (build ? build : DOMYBS_BUILD, "backend", "domybs-donor", NULL);
  const char *const arguments[]
      = { program, "--fixed-size", "--size", LENT, "--listen", address, "--psk", psk, "--control-socket", control, NULL };
  const gint64 deadline = g_get_monotonic_time () + STATE_SECONDS * G_USEC_PER_SEC;
  g_autoptr (GError) error = NULL;

  screen_line (demo->story.screen, "        host %s: # domybs-donor --fixed-size --size " LENT " --listen %s --psk %s.psk",
               hosts[d], address, names[d]);
  unlink (control);
  cluster_enter (demo->cluster, 1 + d);
  if (!vm_process_spawn (&demo->donors[d], names[d], demo->folder, arguments, &error))
    g_error ("%s", error->message);
  cluster_enter (demo->cluster, 0);
  while (!g_file_test (control, G_FILE_TEST_EXISTS)) {
    if (!vm_process_runs (&demo->donors[d]) || g_get_monotonic_time () > deadline) {
      g_autofree char *log = NULL;

      g_file_get_contents (demo->donors[d].log, &log, NULL, NULL);
      g_error ("the donor on host %s does not begin: %s", hosts[d], log ? log : "no log");
    }
    g_usleep (20000);
  }
}

/* The worker of a donor: its child. */
static GPid
worker_of (GPid keeper) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/task/%d/children", (int)keeper, (int)keeper), *text = NULL;

  return g_file_get_contents (path, &text, NULL, NULL) ? (GPid)g_ascii_strtoll (text, NULL, 10) : 0;
}

/* What an operator sees. */
static void
show_status (Demo *demo) {
  static const char line[] = "domybsctl status demo | grep '… '";
  g_autofree char *text = host_shell (host_get (), "%s; true", line);
  g_auto (GStrv) lines = g_strsplit (text, "\n", -1);

  screen_line (demo->story.screen, "        # %s", line);
  for (unsigned i = 0; lines[i]; i++)
    if (*lines[i])
      screen_line (demo->story.screen, "        %s", lines[i]);
}

/* ---- the story ---- */

static void
lend (Demo *demo) {
  story_step (&demo->story,
              "Three hosts (networks of their own here): A is short of memory, B and C lend it some, over TLS 1.3 …");
  demo->cluster = cluster_new (1 + DONORS);
  if (!demo->cluster)
    g_error ("network namespaces can't be made here");
  demo->folder = vm_make_folder ("donors");
  join_lab (demo);
  for (unsigned d = 0; d < DONORS; d++) {
    g_autofree char *address = cluster_address (demo->cluster, 1 + d, 0), *add = NULL;

    make_key (demo, d);
    start_donor (demo, d);
    add = g_strdup_printf ("domybsctl donor add %s --address %s --psk " KEYS_FOLDER "%s.psk", names[d], address, names[d]);
    story_run (&demo->story, add);
  }
}

static void
boot (Demo *demo) {
  g_autofree char *control = NULL;
  g_autoptr (GError) error = NULL;

  story_step (&demo->story,
              "A VM of %d MiB on A, with a far disk: of each page there, one copy is in A's storage, one with B or C …",
              BOOT_MIB);
  story_define (&demo->story, BOOT_MIB);
  story_run (&demo->story, "domybsctl attach demo --far " FAR);
  screen_line (demo->story.screen, "        # virsh start demo");
  lab_domain_start (demo->story.domain);
  lab_domain_swap_on (demo->story.domain);
  screen_line (demo->story.screen, "        guest: # domybs-swap start     (with udev that happens by itself)");
  control = g_strdup_printf ("%s/run/domybs/vm/%s/far-control.sock", host_root (host_get ()), demo->story.domain->uuid);
  demo->far = qmp_connect (control, FALSE, 30, NULL, NULL, &error);
  if (!demo->far)
    vm_fail (demo->story.domain->vm, "domybs-far does not answer: %s", error->message);
  step_done (demo, "booted, the far disk is swap");
}

static void
fill (Demo *demo) {
  g_autofree char *request = g_strdup_printf ("start program memtool fill %dM --hold", demo->fill_mib);
  Sample now;

  story_step (&demo->story, "A program in the guest fills %d MiB, %.1f times what the VM has …", demo->fill_mib,
              (double)demo->fill_mib / BOOT_MIB);
  screen_line (
      demo->story.screen,
      "        (MiB in A's storage, with B, with C; away: does not answer; gone: nor for ten seconds, its copies don't count)");
  story_program_request (&demo->story, request);
  watch (demo, is_filled, NULL, PROGRAM_SECONDS, "the program has filled its memory", &now);
  watch (demo, is_protected, NULL, PROTECT_SECONDS, "two copies of all", &now);
  story_check (&demo->story, now.in_storage > 0 && now.held[0] > 0 && now.held[1] > 0,
               "two copies of all %u MiB: %u MiB in A's storage, %u MiB with B, %u MiB with C, all sealed", mib (now.places),
               mib (now.in_storage), mib (now.held[0]), mib (now.held[1]));
  step_done (demo, "memory filled, two copies of all");
}

static void
fail_both (Demo *demo) {
  const GPid keeper = demo->donors[0].pid, worker = worker_of (keeper), hung = worker_of (demo->donors[1].pid);
  gint64 elsewhere;
  Sample now;
  unsigned until;

  story_step (&demo->story, "It compares every word with what it wrote, again and again; meanwhile both neighbours fail …");
  look_for (demo, 1000);
  sample (demo, &now);
  elsewhere = now.elsewhere;
  g_assert_cmpint (worker, >, 1);
  g_assert_cmpint (hung, >, 1);
  kill (keeper, SIGKILL);
  kill (worker, SIGKILL);
  story_check (&demo->story, vm_process_wait (&demo->donors[0], 30),
               "host B: kill -9 of the donor's processes %d and %d: the memory that it had lent is gone", (int)keeper,
               (int)worker);
  look_for (demo, 1500);
  story_check (&demo->story, kill (demo->donors[1].pid, SIGSTOP) == 0 && kill (hung, SIGSTOP) == 0,
               "host C: the donor hangs (SIGSTOP): it takes what it is sent, and answers nothing");
  until = demo->rounds + (vm_is_fast () ? 2 : 1); /* most of this round is still to come where guests are emulated */
  watch (demo, has_verified, &until, PROGRAM_SECONDS, "the program has verified its memory", &now);
  story_check (&demo->story, now.errors == 0 && now.lost == 0, "%d MiB are as they were written, and nothing failed",
               demo->fill_mib);
  if (now.elsewhere > elsewhere)
    screen_line (demo->story.screen, "        (%d reads were answered by another copy than the one that was asked first)",
                 (int)(now.elsewhere - elsewhere));
  show_status (demo);
  step_done (demo, "B killed, C hung; all verified");
}

static void
recover (Demo *demo) {
  const GPid hung = worker_of (demo->donors[1].pid);
  Sample now;
  unsigned until;

  story_step (&demo->story,
              "B begins anew, with nothing; then C goes on, with all that it had. What has one copy only gets a second one …");
  start_donor (demo, 0);
  watch (demo, is_up, NULL, STATE_SECONDS, "host A has found host B again", &now);
  g_assert_cmpint (hung, >, 1);
  kill (hung, SIGCONT);
  kill (demo->donors[1].pid, SIGCONT);
  watch (demo, is_whole, NULL, PROTECT_SECONDS, "two copies of all again", &now);
  story_check (
      &demo->story, now.errors == 0 && now.lost == 0,
      "two copies of all %u MiB again, %u MiB were copied for that: %u MiB in A's storage, %u MiB with B, %u MiB with C",
      mib (now.places), story_mib ((guint64)now.repaired), mib (now.in_storage), mib (now.held[0]), mib (now.held[1]));
  step_done (demo, "B anew, C goes on; two copies");
  story_step (&demo->story, "The program goes on to the end of its round …");
  until = demo->rounds + 1;
  watch (demo, has_verified, &until, PROGRAM_SECONDS, "the program has verified its memory", &now);
  story_check (&demo->story, now.errors == 0, "%d MiB are as they were written", demo->fill_mib);
  step_done (demo, "all verified again");
}

static void
end (Demo *demo) {
  qmp_free (demo->far);
  story_detach (&demo->story);
  for (unsigned d = 0; d < DONORS; d++) {
    story_check (&demo->story, vm_process_end (&demo->donors[d], 20), "the donor on host %s has ended", hosts[d]);
    vm_process_clear (&demo->donors[d]);
  }
  cluster_free (demo->cluster);
  vm_delete_folder (demo->folder);
  g_free (demo->folder);
  g_string_free (demo->output, TRUE);
}

/* What is with a donor, for the table: its state where that can't be counted on. */
static const char *
cell (const Sample *at, unsigned d, char ret_text[16]) {
  if (g_str_equal (at->state[d], "up"))
    g_snprintf (ret_text, 16, "%u MiB", mib (at->held[d]));
  else
    g_strlcpy (ret_text, at->state[d], 16);
  return ret_text;
}

static void
summary (Demo *demo) {
  Screen *screen = demo->story.screen;

  screen_line (screen, "\n %-32s %9s %9s %9s %9s %9s %8s %10s %8s", "", "in A's", "with", "with", "with two", "copied",
               "longest", "99 % reads", "");
  screen_line (screen, " %-32s %9s %9s %9s %9s %9s %8s %10s %8s", "step", "storage", "B", "C", "copies", "anew", "wait",
               "within", "seconds");
  screen_line (
      screen,
      " -------------------------------- --------- --------- --------- --------- --------- -------- ---------- --------");
  for (unsigned i = 0; i < demo->n_rows; i++) {
    const Row *row = &demo->rows[i];
    char donors[DONORS][16];

    screen_line (screen, " %-32s %5u MiB %9s %9s %7.0f %% %5u MiB %6.1f s %7.1f ms %8.1f", row->what, mib (row->at.in_storage),
                 cell (&row->at, 0, donors[0]), cell (&row->at, 1, donors[1]),
                 row->at.places ? 100.0 * (double)row->at.protected / (double)row->at.places : 100.0,
                 story_mib ((guint64)row->at.repaired), (double)row->longest_ms / 1000, (double)row->at.read_p99_us / 1000,
                 row->seconds);
  }
  screen_line (
      screen,
      " (as host A knows it; longest wait: of a request of the guest for storage or room, looked at four times a second)\n");
  if (demo->story.failures)
    screen_line (screen, "FAILED: %u of the checks above did not hold.", demo->story.failures);
  else
    screen_line (screen,
                 "Proved: an unchanged QEMU and Linux used %.1f times the VM's own memory, intact, while one neighbour that "
                 "held copies of it "
                 "lost its memory and the other one hung; nothing failed, and all copies were made again.",
                 (double)demo->fill_mib / BOOT_MIB);
}

int
main (int argc, char **argv) {
  Demo demo = { .fill_mib = 640 };
  const GOptionEntry entries[] = {
    { "fill", 0, 0, G_OPTION_ARG_INT, &demo.fill_mib, "what the program in the guest fills (default 640)", "MIB" },
    { NULL },
  };

  story_begin (&demo.story, entries, argc, argv);
  demo.output = g_string_new (NULL);
  lend (&demo);
  boot (&demo);
  fill (&demo);
  fail_both (&demo);
  recover (&demo);
  end (&demo);
  summary (&demo);
  return story_end (&demo.story);
}
