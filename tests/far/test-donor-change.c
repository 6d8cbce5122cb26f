/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Donors of a domybs-far that runs come and go, with the disk under load and every page compared: the commands add-donor and
 * remove-donor (far/donor-table.h). */
#include "donor.h"
#include "load.h"
#include "testing.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define N_DONORS 3u
#define IDENTITY "host1"
#define KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define KEYS IDENTITY ":" KEY "\n"
#define BYTES (16ull << 20)

struct scene {
  struct donor *donors[N_DONORS];
  char *folder, *key_path;
  struct far *far;
  struct load load;
  GRand *random;
};

/* n_first: those that are there from the start on. */
static void
scene_init (struct scene *scene, const char *mode, unsigned n_donors, unsigned n_first) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *extra = g_strdup_printf (",protection=%s", mode);

  *scene = (struct scene){ .random = testing_rand () };
  scene->folder = g_dir_make_tmp ("domybs-far-change-XXXXXX", NULL);
  scene->key_path = g_build_filename (scene->folder, "keys", NULL);
  g_assert_true (g_file_set_contents_full (scene->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  for (unsigned d = 0; d < n_donors; d++) {
    scene->donors[d] = donor_start (&(struct donor_options){ .bytes = 64ull << 20, .keys = KEYS });
    if (d < n_first)
      g_ptr_array_add (arguments,
                       g_strdup_printf ("--donor=d%u,address=%s,psk=%s", d, scene->donors[d]->address, scene->key_path));
  }
  g_ptr_array_add (arguments, g_strdup ("--donors-later"));
  g_ptr_array_add (arguments, g_strdup ("--donor-away=1"));
  g_ptr_array_add (arguments, g_strdup ("--stage=8M"));
  g_ptr_array_add (arguments, NULL);
  scene->far = far_start (
      &(struct far_options){ .bytes = BYTES, .disk_extra = extra, .arguments = (const char *const *)arguments->pdata });
  load_init (&scene->load, scene->far, far_connect (scene->far, 0), 0, scene->random);
  scene->load.kinds = 1u << LOAD_RANDOM | 1u << LOAD_SAME;
}

static void
scene_clear (struct scene *scene) {
  load_clear (&scene->load);
  g_assert_cmpint (far_status_top (scene->far, "worker.deaths"), ==, 0);
  far_end (scene->far);
  for (unsigned d = 0; d < N_DONORS; d++)
    if (scene->donors[d]) {
      g_assert_true (donor_wait_status (scene->donors[d], "used-blocks", 0));
      g_assert_true (donor_wait_status (scene->donors[d], "leases", 0));
      donor_end (scene->donors[d]);
    }
  g_unlink (scene->key_path);
  g_rmdir (scene->folder);
  g_free (scene->key_path);
  g_free (scene->folder);
  g_rand_free (scene->random);
}

/* The answer's object; its worker may be in the middle of being replaced. */
static JsonNode *
order (struct scene *scene, const char *format, ...) {
  g_autofree char *command = NULL;
  va_list arguments;

  va_start (arguments, format);
  command = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  return backend_control_again (scene->far->backend, command);
}

static bool
is_error (JsonNode *answer, const char *word) {
  JsonObject *object = json_node_get_object (answer);
  g_autofree char *text = json_to_string (answer, FALSE);

  testing_trace ("%s", text);
  return json_object_has_member (object, "error") && strstr (text, word);
}

#define ADD "{\"execute\":\"add-donor\",\"arguments\":{%s}}"
#define REMOVE "{\"execute\":\"remove-donor\",\"arguments\":{\"name\":\"%s\"}}"

/* TRUE: something has changed. Does it again where it is told to. */
static bool
changes (struct scene *scene, const char *command) {
  const int64_t deadline = fe_now_ms () + fe_patience_ms ();

  for (;;) {
    g_autoptr (JsonNode) answer = order (scene, "%s", command);
    JsonObject *object = json_node_get_object (answer);

    if (json_object_has_member (object, "return"))
      return json_object_get_boolean_member (json_object_get_object_member (object, "return"), "changed");
    if (!is_error (answer, "in a moment") || fe_now_ms () > deadline) {
      g_autofree char *text = json_to_string (answer, FALSE);

      g_error ("%s: %s", command, text);
    }
    g_usleep (10000);
  }
}

static bool
add_as (struct scene *scene, unsigned d, const char *more) {
  g_autofree char *arguments
      = g_strdup_printf ("\"name\":\"d%u\",\"address\":\"%s\",\"identity\":\"" IDENTITY "\",\"key\":\"" KEY "\"%s", d,
                         scene->donors[d]->address, more),
      *command = g_strdup_printf (ADD, arguments);

  return changes (scene, command);
}

static bool
add (struct scene *scene, unsigned d) {
  return add_as (scene, d, "");
}

static bool
remove_donor (struct scene *scene, const char *name) {
  g_autofree char *command = g_strdup_printf (REMOVE, name);

  return changes (scene, command);
}

static int64_t
copies (struct scene *scene, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (scene->far, 0, path);
}

/* A figure of the donor of that name; INT64_MIN: there is none of that name. */
static int64_t
figure_at (struct scene *scene, const char *name, const char *member) {
  g_autoptr (JsonNode) answer = order (scene, "{\"execute\":\"status\"}");
  JsonArray *donors = json_object_get_array_member (
      json_object_get_object_member (
          json_array_get_object_element (
              json_object_get_array_member (json_object_get_object_member (json_node_get_object (answer), "return"), "disks"),
              0),
          "copies"),
      "donors");

  for (guint i = 0; i < json_array_get_length (donors); i++) {
    JsonObject *donor = json_array_get_object_element (donors, i);

    if (strcmp (json_object_get_string_member (donor, "name"), name) == 0)
      return json_object_get_int_member (donor, member);
  }
  return INT64_MIN;
}

static int64_t
copies_at (struct scene *scene, const char *name) {
  return figure_at (scene, name, "copies");
}

#define WAIT_FOR(scene, condition)                                                                                             \
  do {                                                                                                                         \
    const int64_t deadline_ = fe_now_ms () + fe_patience_ms () * 2;                                                            \
    while (!(condition)) {                                                                                                     \
      if (fe_now_ms () > deadline_) {                                                                                          \
        g_autofree char *log_ = backend_log_from ((scene)->far->backend, 0);                                                   \
        g_error ("it does not come to %s: places %d protected %d degraded %d; log:\n%s", #condition,                           \
                 (int)copies (scene, "places"), (int)copies (scene, "protected"), (int)copies (scene, "degraded"), log_);      \
      }                                                                                                                        \
      g_usleep (10000);                                                                                                        \
    }                                                                                                                          \
  } while (0)

static bool
is_protected (struct scene *scene) {
  return copies (scene, "places") > 0 && copies (scene, "protected") == copies (scene, "places");
}

/* ---- tests ---- */

/* From none to one to two; the first one leaves, and a third one comes in its place. */
static void
come_and_go (void) {
  struct scene scene;

  scene_init (&scene, "ssd", 3, 0);
  load_write_all (&scene.load, 0, scene.load.n_pages, LOAD_RANDOM);
  WAIT_FOR (&scene, copies (&scene, "places") > 0 && copies (&scene, "degraded") == copies (&scene, "places"));
  g_assert_true (add (&scene, 0));
  load_run (&scene.load, 300);
  WAIT_FOR (&scene, is_protected (&scene));
  g_assert_cmpint (copies_at (&scene, "d0"), >, 0);
  g_assert_false (add (&scene, 0)); /* once is enough */
  g_assert_true (add (&scene, 1));
  load_run (&scene.load, 300);
  WAIT_FOR (&scene, copies_at (&scene, "d1") >= 0);
  g_assert_true (remove_donor (&scene, "d0"));
  load_run (&scene.load, 300);
  WAIT_FOR (&scene, copies_at (&scene, "d0") == INT64_MIN);
  WAIT_FOR (&scene, is_protected (&scene));
  g_assert_cmpint (copies (&scene, "lost"), ==, 0);
  g_assert_true (donor_wait_status (scene.donors[0], "leases", 0));
  g_assert_false (remove_donor (&scene, "d0"));
  load_check_all (&scene.load);
  g_assert_true (add (&scene, 2)); /* has the number that was d0's */
  WAIT_FOR (&scene, copies_at (&scene, "d2") >= 0);
  g_assert_true (remove_donor (&scene, "d1"));
  WAIT_FOR (&scene, copies_at (&scene, "d1") == INT64_MIN);
  WAIT_FOR (&scene, is_protected (&scene));
  load_run (&scene.load, 300);
  load_check_all (&scene.load);
  scene_clear (&scene);
}

/* A worker's death forgets no order; and one can be taken back. */
static void
orders_stay (void) {
  struct scene scene;
  pid_t stopped;

  scene_init (&scene, "mirror", 3, 2);
  load_write_all (&scene.load, 0, scene.load.n_pages, LOAD_RANDOM);
  WAIT_FOR (&scene, is_protected (&scene));
  stopped = backend_wait_worker (scene.donors[0]->backend, 0, fe_patience_ms ()); /* so that it can't leave at once */
  g_assert_true (testing_stop (stopped));
  g_assert_true (remove_donor (&scene, "d0"));
  far_kill_worker (scene.far);
  WAIT_FOR (&scene, copies_at (&scene, "d0") >= 0);
  g_assert_false (remove_donor (&scene, "d0"));
  g_assert_true (add (&scene, 0)); /* it stays after all */
  g_assert_cmpint (kill (stopped, SIGCONT), ==, 0);
  WAIT_FOR (&scene, is_protected (&scene));
  g_assert_cmpint (copies_at (&scene, "d0"), >, 0);
  g_assert_true (add (&scene, 2));
  far_kill_worker (scene.far);
  WAIT_FOR (&scene, copies_at (&scene, "d2") >= 0);
  g_assert_true (remove_donor (&scene, "d1"));
  far_kill_worker (scene.far);
  WAIT_FOR (&scene, copies_at (&scene, "d1") == INT64_MIN);
  WAIT_FOR (&scene, is_protected (&scene));
  g_assert_cmpint (copies (&scene, "lost"), ==, 0);
  load_check_all (&scene.load);
  load_clear (&scene.load);
  far_end (scene.far);
  scene.far = NULL;
  for (unsigned d = 0; d < N_DONORS; d++) {
    g_assert_true (donor_wait_status (scene.donors[d], "used-blocks", 0));
    donor_end (scene.donors[d]);
  }
  g_unlink (scene.key_path);
  g_rmdir (scene.folder);
  g_free (scene.key_path);
  g_free (scene.folder);
  g_rand_free (scene.random);
}

/* One that is dead leaves when nothing depends on it any more, and not before. */
static void
dead_one (void) {
  struct scene scene;
  unsigned dead;
  char name[8];

  scene_init (&scene, "ssd", 2, 2);
  load_write_all (&scene.load, 0, scene.load.n_pages, LOAD_RANDOM);
  WAIT_FOR (&scene, is_protected (&scene));
  dead = copies_at (&scene, "d0") == 0; /* one that has copies */
  g_snprintf (name, sizeof name, "d%u", dead);
  g_assert_cmpint (copies_at (&scene, name), >, 0);
  donor_end (scene.donors[dead]);
  scene.donors[dead] = NULL;
  g_assert_true (remove_donor (&scene, name));
  WAIT_FOR (&scene, copies_at (&scene, name) == INT64_MIN);
  WAIT_FOR (&scene, is_protected (&scene));
  g_assert_cmpint (copies (&scene, "lost"), ==, 0);
  load_check_all (&scene.load);
  scene_clear (&scene);
}

/* One that could not be told that it was to leave, and that comes again: it still has what it had, and all is protected once
 * more. */
static void
comes_again (gconstpointer data) {
  const unsigned which = GPOINTER_TO_UINT (data);
  struct scene scene;
  pid_t stopped;
  char name[8];

  scene_init (&scene, "mirror", 2, 2);
  load_write_all (&scene.load, 0, scene.load.n_pages / 4, LOAD_RANDOM);
  WAIT_FOR (&scene, is_protected (&scene));
  g_snprintf (name, sizeof name, "d%u", which);
  stopped = backend_wait_worker (scene.donors[which]->backend, 0, fe_patience_ms ());
  g_assert_true (testing_stop (stopped));
  g_assert_true (remove_donor (&scene, name));
  WAIT_FOR (&scene, copies_at (&scene, name) == INT64_MIN);
  WAIT_FOR (&scene, copies (&scene, "in-storage") == copies (&scene, "places"));
  g_assert_cmpint (kill (stopped, SIGCONT), ==, 0);
  load_write_all (&scene.load, 0, scene.load.n_pages, LOAD_RANDOM); /* so that the blocks which it has are others */
  g_assert_true (add (&scene, which));
  WAIT_FOR (&scene, copies_at (&scene, name) > 0);
  load_run (&scene.load, 500);
  WAIT_FOR (&scene, is_protected (&scene) && figure_at (&scene, "d0", "old") == 0 && figure_at (&scene, "d1", "old") == 0);
  /* What it had before, and nobody needs, it has got back. */
  WAIT_FOR (&scene, donor_status (scene.donors[which], "used-blocks") == copies_at (&scene, name));
  g_assert_cmpint (copies (&scene, "lost"), ==, 0);
  load_check_all (&scene.load);
  scene_clear (&scene);
}

/* What is with nobody else that can be reached is elsewhere before it leaves: here in storage, as the other one is stopped. */
static void
copies_first (void) {
  struct scene scene;
  pid_t stopped;

  scene_init (&scene, "mirror", 2, 2);
  /* Room for all that is written, so that nothing is in storage. */
  WAIT_FOR (&scene, figure_at (&scene, "d0", "level") > 0 && figure_at (&scene, "d1", "level") > 0);
  for (uint64_t page = 0; page < scene.load.n_pages; page += scene.load.n_pages / 4) {
    load_write_all (&scene.load, page, scene.load.n_pages / 4, LOAD_RANDOM);
    WAIT_FOR (&scene, is_protected (&scene));
  }
  stopped = backend_wait_worker (scene.donors[1]->backend, 0, fe_patience_ms ());
  g_assert_true (testing_stop (stopped));
  g_assert_cmpint (copies (&scene, "in-storage"), <, copies (&scene, "places"));
  g_assert_true (remove_donor (&scene, "d0"));
  WAIT_FOR (&scene, copies_at (&scene, "d0") == INT64_MIN);
  WAIT_FOR (&scene, copies (&scene, "in-storage") == copies (&scene, "places"));
  load_check_all (&scene.load);
  g_assert_cmpint (kill (stopped, SIGCONT), ==, 0);
  WAIT_FOR (&scene, copies_at (&scene, "d1") > 0);
  g_assert_cmpint (copies (&scene, "lost"), ==, 0);
  load_check_all (&scene.load);
  scene_clear (&scene);
}

#define KEY_OK "\"identity\":\"a\",\"key\":\"" KEY "\""

static void
hostile (void) {
  static const struct {
    const char *arguments, *word;
  } cases[] = {
    { "", "'name'" },
    { "\"name\":\"x\"", "'address'" },
    { "\"name\":7,\"address\":\"127.0.0.1:9\"", "'name'" },
    { "\"name\":\"\",\"address\":\"127.0.0.1:9\"", "'name'" },
    { "\"name\":\"a,b\",\"address\":\"127.0.0.1:9\"", "'name' must be letters" },
    { "\"name\":\"../x\",\"address\":\"127.0.0.1:9\"", "'name' must be letters" },
    { "\"name\":\"0123456789012345678901234567890123456789012345678901234567890123\",\"address\":\"127.0.0.1:9\"", "'name'" },
    { "\"name\":\"x\",\"address\":\"nowhere\"", "nowhere" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:99999\"", "127.0.0.1:99999" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"domain\":\"a b\"", "'domain'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"domain\":null", "'domain'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"key\":\"" KEY "\"", "go together" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"identity\":\"a\"", "go together" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"identity\":\"a\",\"key\":\"00\"", "32 to 128" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"identity\":\"a\",\"key\":\"" KEY "g0\"", "32 to 128" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"identity\":\"a\",\"key\":\"" KEY "0\"", "32 to 128" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"identity\":\"a\",\"key\":\"" KEY KEY KEY "\"", "'key'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\"," KEY_OK ",\"bytes\":-1", "'bytes'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\"," KEY_OK ",\"bytes\":2097151", "'bytes'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\"," KEY_OK ",\"bytes\":\"64M\"", "'bytes'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"file\":\"/etc/shadow\"", "no argument 'file'" },
    { "\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"name address\":\"x\"", "no argument 'name address'" },
    { "\"name\":\"d0\",\"address\":\"127.0.0.1:9\"," KEY_OK, "remove that one first" },
  };
  g_autofree char *long_domain = g_strnfill (128, 'd'),
                  *long_one = g_strdup_printf ("\"name\":\"x\",\"address\":\"127.0.0.1:9\",\"domain\":\"%s\"", long_domain);
  struct scene scene;
  g_autofree char *twice = NULL;

  scene_init (&scene, "ssd", 1, 1);
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (JsonNode) answer = order (&scene, ADD, cases[i].arguments);

    if (!is_error (answer, cases[i].word))
      g_error ("%s: not refused with '%s'", cases[i].arguments, cases[i].word);
  }
  {
    g_autoptr (JsonNode) answer = order (&scene, ADD, long_one);

    g_assert_true (is_error (answer, "'domain' must be a text of 1 to 127 bytes"));
  }
  twice = g_strdup_printf ("\"name\":\"x\",\"address\":\"%s\"," KEY_OK, scene.donors[0]->address);
  {
    g_autoptr (JsonNode) answer = order (&scene, ADD, twice);

    g_assert_true (is_error (answer, "is the address of its donor 'd0'"));
  }
  g_assert_cmpint (far_status_top (scene.far, "worker.starts"), ==, 1);
  /* As many as there can be, and no more. */
  for (unsigned d = 1; d < 16; d++) {
    g_autofree char *arguments = g_strdup_printf ("\"name\":\"x%u\",\"address\":\"127.0.0.1:%u\"," KEY_OK, d, d),
                    *command = g_strdup_printf (ADD, arguments);

    g_assert_true (changes (&scene, command));
    WAIT_FOR (&scene, far_status_top (scene.far, "worker.starts") == (int64_t)d + 1);
  }
  {
    g_autoptr (JsonNode) answer = order (&scene, ADD, "\"name\":\"y\",\"address\":\"127.0.0.1:99\"," KEY_OK);

    g_assert_true (is_error (answer, "which is the most"));
  }
  g_assert_cmpint (copies_at (&scene, "x15"), ==, 0);
  scene_clear (&scene);
}

/* Where all is in storage none can come; nor where nobody said that they may. */
static void
storage_only (void) {
  struct scene scene;

  scene_init (&scene, "storage", 0, 0);
  {
    g_autoptr (JsonNode) answer = order (&scene, ADD, "\"name\":\"x\",\"address\":\"127.0.0.1:9\"," KEY_OK);

    g_assert_true (is_error (answer, "with the VM's next start"));
  }
  scene_clear (&scene);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/donor-change/come and go", come_and_go);
  g_test_add_func ("/donor-change/orders stay", orders_stay);
  g_test_add_func ("/donor-change/a dead one", dead_one);
  g_test_add_func ("/donor-change/copies first", copies_first);
  if (g_getenv ("DOMYBS_LONG"))
    g_test_add_data_func ("/donor-change/comes again", GUINT_TO_POINTER (0), comes_again);
  g_test_add_data_func ("/donor-change/comes again, the last one", GUINT_TO_POINTER (1), comes_again);
  g_test_add_func ("/donor-change/hostile", hostile);
  g_test_add_func ("/donor-change/storage only", storage_only);
  return g_test_run ();
}
