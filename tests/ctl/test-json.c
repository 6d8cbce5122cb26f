/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What json.md says and what domybsctl prints are the same: every member is documented with its type, and every documented one
 * appears. */
#include "ctl-scene.h"
#include "donor.h"
#include "fake-control.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

typedef struct {
  char *type; /* as documented, without ", optional" */
  gboolean optional, seen;
} Member;

typedef GHashTable Section; /* name → Member */

static GHashTable *sections; /* name → Section; "" for what every object has */

static void
member_free (gpointer data) {
  Member *member = data;

  g_free (member->type);
  g_free (member);
}

/* ---- reading json.md: "## NAME", then rows "| `member` | type | …" ---- */

static void
read_row (Section *section, const char *line) {
  g_auto (GStrv) cells = g_strsplit (line, "|", -1);
  Member *member;
  char *name, *type;

  if (g_strv_length (cells) < 4)
    return;
  name = g_strstrip (cells[1]);
  type = g_strstrip (cells[2]);
  if (*name != '`' || name[strlen (name) - 1] != '`' || g_ascii_isdigit (*type))
    return;
  name[strlen (name) - 1] = 0;
  member = g_new0 (Member, 1);
  member->optional = g_str_has_suffix (type, ", optional");
  member->type = member->optional ? g_strndup (type, strlen (type) - strlen (", optional")) : g_strdup (type);
  g_hash_table_replace (section, g_strdup (name + 1), member);
}

static void
read_document (void) {
  g_autofree char *text = NULL;
  g_auto (GStrv) lines = NULL;
  gboolean is_members = TRUE;
  Section *section;

  g_assert_true (g_file_get_contents (g_getenv ("DOMYBS_JSON_MD"), &text, NULL, NULL));
  lines = g_strsplit (text, "\n", -1);
  sections = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, (GDestroyNotify)g_hash_table_unref);
  section = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, member_free);
  g_hash_table_insert (sections, g_strdup (""), section);
  for (char **line = lines; *line; line++) {
    if (g_str_has_prefix (*line, "## ")) {
      section = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, member_free);
      g_hash_table_insert (sections, g_strdup (*line + 3), section);
    } else if (g_str_has_prefix (*line, "| ")) {
      if (!strstr (*line, "`") || g_str_has_prefix (*line, "| `code` | exit") || g_str_has_prefix (*line, "| `reason` | |"))
        is_members = g_str_has_prefix (*line, "| member |"); /* a table's head */
      else if (is_members)
        read_row (section, *line);
    }
  }
}

/* ---- looking at what is printed ---- */

static void check_object (JsonObject *object, const char *section_name, gboolean is_top);

static void
check_value (JsonNode *node, const char *where, const char *type) {
  g_autofree char *plain
      = g_str_has_suffix (type, " or null") ? g_strndup (type, strlen (type) - strlen (" or null")) : g_strdup (type);
  GType value = JSON_NODE_HOLDS_VALUE (node) ? json_node_get_value_type (node) : G_TYPE_INVALID;
  gboolean ok = FALSE;

  if (JSON_NODE_HOLDS_NULL (node)) {
    ok = strcmp (plain, type) != 0;
  } else if (g_str_has_prefix (plain, "array of ")) {
    ok = JSON_NODE_HOLDS_ARRAY (node);
    for (unsigned i = 0; ok && i < json_array_get_length (json_node_get_array (node)); i++)
      check_value (json_array_get_element (json_node_get_array (node), i), where, plain + strlen ("array of "));
  } else if (strcmp (plain, "string") == 0) {
    ok = value == G_TYPE_STRING;
  } else if (strcmp (plain, "integer") == 0) {
    ok = value == G_TYPE_INT64;
  } else if (strcmp (plain, "boolean") == 0) {
    ok = value == G_TYPE_BOOLEAN;
  } else {
    ok = JSON_NODE_HOLDS_OBJECT (node);
    if (ok)
      check_object (json_node_get_object (node), plain, FALSE);
  }
  if (!ok)
    g_error ("%s is no %s", where, type);
}

static Member *
find_member (const char *section_name, const char *name, gboolean is_top) {
  Section *section = g_hash_table_lookup (sections, section_name), *common = g_hash_table_lookup (sections, "");
  Member *member;

  if (!section)
    g_error ("json.md has no section '%s'", section_name);
  member = g_hash_table_lookup (section, name);
  return member || !is_top ? member : g_hash_table_lookup (common, name);
}

static void
check_object (JsonObject *object, const char *section_name, gboolean is_top) {
  Section *section = g_hash_table_lookup (sections, section_name);
  GHashTableIter members;
  JsonObjectIter iter;
  const char *name;
  Member *member;
  JsonNode *node;

  json_object_iter_init (&iter, object);
  while (json_object_iter_next (&iter, &name, &node)) {
    g_autofree char *where = g_strdup_printf ("%s.%s", section_name, name);

    member = find_member (section_name, name, is_top);
    if (!member)
      g_error ("%s is not in json.md", where);
    /* Only a value shows that it can be: a null alone does not. */
    member->seen |= !JSON_NODE_HOLDS_NULL (node);
    check_value (node, where, member->type);
  }
  if (is_top && json_object_has_member (object, "error"))
    return;
  g_hash_table_iter_init (&members, section);
  while (g_hash_table_iter_next (&members, (gpointer *)&name, (gpointer *)&member))
    if (!member->optional && !json_object_has_member (object, name))
      g_error ("%s.%s is in json.md, and is missing", section_name, name);
}

static void
check_run (Scene *scene, const char *section, const char *const *arguments) {
  g_auto (Run) run = { 0 };
  g_autoptr (JsonObject) object = NULL;

  scene_run (scene, &run, arguments);
  object = run_json (&run);
  if (section)
    g_assert_cmpstr (json_object_get_string_member (object, "command"), ==, *arguments);
  check_object (object, section ? section : "", TRUE);
}

/* attach needs a libvirt that runs QEMU (tests/libvirt has one): here at least the words are looked for in its source. */
static void
check_source (const char *section_name, const char *const *files) {
  g_autofree char *folder = g_path_get_dirname (g_getenv ("DOMYBS_JSON_MD"));
  g_autoptr (GRegex) call = g_regex_new ("ctl_json_\\w+ \\(ctl, \"([^\"]+)\"|member_name \\(builder, \"([^\"]+)\"", 0, 0, NULL);
  GHashTableIter members;
  const char *name;
  Member *member;

  for (; *files; files++) {
    g_autofree char *path = g_build_filename (folder, *files, NULL), *text = NULL;
    g_autoptr (GMatchInfo) match = NULL;

    g_assert_true (g_file_get_contents (path, &text, NULL, NULL));
    for (g_regex_match (call, text, 0, &match); g_match_info_matches (match); g_match_info_next (match, NULL)) {
      g_autofree char *one = g_match_info_fetch (match, 1), *other = g_match_info_fetch (match, 2);

      member = find_member (section_name, *one ? one : other, TRUE);
      if (!member)
        g_error ("%s.%s is not in json.md", section_name, *one ? one : other);
      member->seen = TRUE;
    }
  }
  g_hash_table_iter_init (&members, g_hash_table_lookup (sections, section_name));
  while (g_hash_table_iter_next (&members, (gpointer *)&name, (gpointer *)&member))
    if (!member->seen)
      g_error ("%s.%s is in json.md, and not in the source", section_name, name);
}

/* One object that is good, one that somebody has open and has damaged, and one that is none at all. */
static void
check_objects (Scene *scene) {
  g_autofree char *folder = g_build_filename (g_getenv ("DOMYBS_TEST_RUNDIR"), "objects", NULL),
                  *source = g_build_filename (folder, "source", NULL), *used = g_build_filename (folder, "used.object", NULL),
                  *none = g_build_filename (folder, "none.object", NULL);
  int fd;

  g_assert_cmpint (g_mkdir_with_parents (folder, 0700), ==, 0);
  g_assert_true (g_file_set_contents (source, "content", -1, NULL));
  check_run (scene, "object", ARGS ("object", "import", source, "--json"));
  check_run (scene, "object", ARGS ("object", "import", source, "--name=used", "--json"));
  g_assert_true (g_file_set_contents (none, "nothing", -1, NULL));
  fd = open (used, O_RDWR | O_CLOEXEC);
  g_assert_cmpint (pwrite (fd, "damage", 6, 8192), ==, 6);
  check_run (scene, "object", ARGS ("object", "list", "--json"));
  check_run (scene, "object", ARGS ("object", "verify", "--all", "--json"));
  close (fd);
  check_run (scene, "object", ARGS ("object", "show", "used", "--json"));
  check_run (scene, "object", ARGS ("object", "remove", "used", "--json"));
}

/* A donor with one borrower, from whom something is wanted back. */
static void
check_donor (Scene *scene) {
  g_autoptr (donor_t) donor = donor_start (&(struct donor_options){ 0 });
  g_autofree char *socket = g_strdup_printf ("--socket=%s", donor->backend->control_path);
  struct borrower borrower;

  donor_borrower (donor, 1, NULL, &borrower);
  g_assert_cmpint (borrower_attach (&borrower, 16), ==, LEASE_OK);
  g_assert_cmpint (borrower_ask (&borrower, LEASE_GRANT, 8), ==, LEASE_OK);
  check_run (scene, "donor", ARGS ("donor", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "leases", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "revoke", "1", "4M", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "leases", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "size", "32M", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "restart", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "forget", "1", "--json", socket));
  check_run (scene, "donor", ARGS ("donor", "forget", "1", "--json", socket));
  borrower_leave (&borrower);
  {
    g_autoptr (donor_t) with_keys = donor_start (&(struct donor_options){ .keys = "a:00112233445566778899aabbccddeeff\n" });
    g_autofree char *its_socket = g_strdup_printf ("--socket=%s", with_keys->backend->control_path);

    check_run (scene, "donor", ARGS ("donor", "reload", "--json", its_socket));
  }
  {
    g_autofree char *key = g_build_filename (donor->backend->directory, "key", NULL), *psk = g_strdup_printf ("--psk=%s", key);

    g_assert_true (g_file_set_contents_full (key, "a:00112233445566778899aabbccddeeff\n", -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
    check_run (scene, "donor", ARGS ("donor", "add", "n1", "--address=1.2.3.4:5", psk, "--identity=a", "--size=1G", "--json"));
    check_run (scene, "donor", ARGS ("donor", "list", "--json"));
    g_assert_cmpint (g_chmod (key, 0644), ==, 0);
    check_run (scene, "donor", ARGS ("donor", "list", "--json"));
    check_run (scene, "donor", ARGS ("donor", "remove", "n1", "--json"));
    check_run (scene, "donor", ARGS ("donor", "remove", "b", "--timeout=0", "--json")); /* the fake one's */
    g_assert_cmpint (unlink (key), ==, 0);
  }
}

static void
is_documented (void) {
  const GuestHabits habits = { .stuck_blocks = 10 };
  const FakeHabits fake_habits = { .deaths = 1 }, far_habits = { .status = SCENE_FAR_STATUS },
                   object_habits = { .status = SCENE_OBJECT_STATUS };
  g_autoptr (FakeControl) fake = NULL, far = NULL, object = NULL;
  g_autofree char *fake_path = NULL, *far_path = NULL, *object_path = NULL;
  g_auto (Stage) stage = { 0 };
  GHashTableIter all, members;
  const char *section_name, *name;
  Section *section;
  Member *member;

  read_document ();
  stage.scene = scene_new ();
  scene_add (stage.scene, "plain", TRUE, NULL);
  scene_add (stage.scene, "off", FALSE, SCENE_MEMORY (SCENE_GIB));
  scene_add (stage.scene, "dead", TRUE, SCENE_MEMORY (SCENE_GIB));
  scene_add (stage.scene, "node", FALSE,
             "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' local-max='4294967296' "
             "grant='populate' numa-node='1' present='yes'/></domybs:domybs>");
  stage.uuid = scene_add (stage.scene, "vm1", TRUE, SCENE_MEMORY (SCENE_GIB));
  stage.backend = scene_backend (stage.scene, stage.uuid, ARGS ("--host-limit=80M"));
  fake_path = scene_control_path (stage.scene, scene_add (stage.scene, "fake", TRUE, SCENE_MEMORY (SCENE_GIB)));
  fake = fake_control_start (fake_path, &fake_habits);
  far_path = scene_far_control_path (stage.scene, scene_add (stage.scene, "far", TRUE, SCENE_FAR));
  far = fake_control_start (far_path, &far_habits);
  scene_add (stage.scene, "far-dead", TRUE, SCENE_FAR);
  object_path = scene_object_control_path (stage.scene, scene_add (stage.scene, "object", TRUE, SCENE_OBJECTS), "model");
  object = fake_control_start (object_path, &object_habits);
  stage.guest = guest_start (stage.backend->socket_path, &habits);

  check_run (stage.scene, "target", ARGS ("target", "vm1", "--json"));
  check_run (stage.scene, "grow", ARGS ("grow", "vm1", "64M", "--json"));
  check_run (stage.scene, "grow", ARGS ("grow", "vm1", "1G", "--json"));
  check_run (stage.scene, "grow", ARGS ("grow", "off", "1G", "--json"));
  check_run (stage.scene, "target", ARGS ("target", "vm1", "--json"));
  check_run (stage.scene, "blocks", ARGS ("blocks", "vm1", "--json"));
  check_run (stage.scene, "blocks", ARGS ("blocks", "far", "--json"));
  check_run (stage.scene, "list", ARGS ("list", "--all", "--json"));
  check_run (stage.scene, "status", ARGS ("status", "--json"));
  check_run (stage.scene, "status", ARGS ("status", "vm1", "--json"));
  check_run (stage.scene, "status", ARGS ("status", "dead", "--json"));
  check_run (stage.scene, "status", ARGS ("status", "nope", "--json"));
  check_run (stage.scene, "top", ARGS ("top", "-n", "1", "--json"));
  check_run (stage.scene, "grow", ARGS ("shrink", "vm1", "0", "--json"));
  check_run (stage.scene, "check", ARGS ("check", "--json"));
  check_run (stage.scene, "backend restart", ARGS ("backend", "restart", "fake", "--json"));
  check_run (stage.scene, "backend restart", ARGS ("backend", "upgrade", "--all", "--json"));
  check_run (stage.scene, "status", ARGS ("status", "fake", "--json"));
  check_run (stage.scene, "detach", ARGS ("detach", "off", "--dry-run", "--json"));
  check_run (stage.scene, "attach", ARGS ("attach", "plain", "--json"));
  check_source ("attach", ARGS ("command-attach.c"));
  check_source ("detach", ARGS ("command-detach.c", "attach/live.c"));
  check_objects (stage.scene);
  check_donor (stage.scene);
  check_run (stage.scene, "help", ARGS ("help", "--json"));
  check_run (stage.scene, NULL, ARGS ("frob", "--json"));
  {
    g_auto (Run) run = { 0 };
    g_autoptr (JsonObject) version = NULL;

    scene_run (stage.scene, &run, ARGS ("--version", "--json"));
    version = run_json (&run);
    check_object (version, "version", TRUE);
  }

  g_hash_table_iter_init (&all, sections);
  while (g_hash_table_iter_next (&all, (gpointer *)&section_name, (gpointer *)&section)) {
    g_hash_table_iter_init (&members, section);
    while (g_hash_table_iter_next (&members, (gpointer *)&name, (gpointer *)&member))
      /* the guest of the tests has no swap to tell of */
      if (!member->seen && !g_str_has_prefix (name, "swap-"))
        g_error ("%s.%s is in json.md, and was never seen", section_name, name);
  }
  g_hash_table_unref (sections);
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/json/is-documented", is_documented);
  return g_test_run ();
}
