/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl-scene.h"
#include "ctl/text.h"

#include <gio/gio.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define RUN_MS_MAX 60000

struct Scene {
  char *folder, *file, *uri;
  GString *domains;
  char *xml; /* what the file is to hold; NULL: not written yet */
  unsigned n_domains;
  GPtrArray *backends, *links;
};

struct Running {
  GPid pid;
  char *command, *out_path, *err_path;
};

Scene *
scene_new (void) {
  Scene *scene = g_new0 (Scene, 1);
  g_autofree char *vms = NULL;

  scene->folder = g_dir_make_tmp ("domybs-ctl-XXXXXX", NULL);
  g_assert_nonnull (scene->folder);
  vms = g_build_filename (scene->folder, "vm", NULL);
  g_assert_cmpint (g_mkdir (vms, 0755), ==, 0);
  scene->file = g_build_filename (scene->folder, "libvirt.xml", NULL);
  scene->uri = g_strdup_printf ("test://%s", scene->file);
  scene->domains = g_string_new (NULL);
  scene->backends = g_ptr_array_new_with_free_func ((GDestroyNotify)backend_free);
  scene->links = g_ptr_array_new_with_free_func (g_free);
  setenv ("DOMYBS_TEST_RUNDIR", scene->folder, 1); /* as g_setenv, which complains where there ever was a thread */
  return scene;
}

static void
write_file (Scene *scene) {
  g_autoptr (GError) error = NULL;

  if (!scene->xml)
    scene->xml
        = g_strdup_printf ("<node xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>%s</node>\n", scene->domains->str);
  g_file_set_contents (scene->file, scene->xml, -1, &error);
  g_assert_no_error (error);
}

const char *
scene_uri (Scene *scene) {
  if (!scene->xml)
    write_file (scene);
  return scene->uri;
}

void
scene_use_xml (Scene *scene, const char *xml) {
  g_free (scene->xml);
  scene->xml = g_strdup (xml);
  write_file (scene);
}

/* A disk for each object of the metadata. */
static char *
object_disks (const char *metadata) {
  const char *names = metadata ? strstr (metadata, "<domybs:objects names='") : NULL;
  g_autofree char *text = names ? g_strndup (names + 23, strcspn (names + 23, "'")) : g_strdup ("");
  g_auto (GStrv) all = g_strsplit (text, " ", -1);
  GString *disks = g_string_new (NULL);

  for (unsigned i = 0; all[i]; i++)
    g_string_append_printf (disks,
                            "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw' queues='1'/><source "
                            "type='unix' path='/run/object-%s.sock'/><target dev='vd%c' bus='virtio'/>"
                            "<alias name='ua-domybs-object-%s'/></disk>",
                            all[i], 'f' + (int)i, all[i]);
  return g_string_free (disks, FALSE);
}

const char *
scene_add (Scene *scene, const char *name, gboolean running, const char *metadata) {
  static const char disk[] = "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw' queues='1'/><source "
                             "type='unix' path='/run/far-shared.sock'/><target dev='vda' bus='virtio'/>"
                             "<alias name='ua-domybs-shared'/></disk>";
  g_autofree char *objects = object_disks (metadata);
  const unsigned number = ++scene->n_domains;
  g_autofree char *clean = g_markup_escape_text (name, -1);
  g_autofree char *uuid = g_strdup_printf ("0f5c1a52-8d1e-4f0a-9a57-%012u", number);

  g_clear_pointer (&scene->xml, g_free);
  /* test:runstate 5 is VIR_DOMAIN_SHUTOFF */
  g_string_append_printf (scene->domains,
                          "<domain type='test'>%s<name>%s</name><uuid>%s</uuid><memory unit='KiB'>1048576</memory>"
                          "<os><type>hvm</type></os>%s%s%s<devices>%s%s</devices></domain>\n",
                          running ? "" : "<test:runstate>5</test:runstate>", clean, uuid, metadata ? "<metadata>" : "",
                          metadata ? metadata : "", metadata ? "</metadata>" : "",
                          metadata && strstr (metadata, "<domybs:far") ? disk : "", objects);
  return g_intern_string (uuid);
}

char *
scene_control_path (Scene *scene, const char *uuid) {
  g_autofree char *folder = g_build_filename (scene->folder, "vm", uuid, NULL);

  g_mkdir (folder, 0750);
  return g_build_filename (folder, "control.sock", NULL);
}

char *
scene_far_control_path (Scene *scene, const char *uuid) {
  g_autofree char *beside = scene_control_path (scene, uuid), *folder = g_path_get_dirname (beside);

  return g_build_filename (folder, "far-control.sock", NULL);
}

char *
scene_object_control_path (Scene *scene, const char *uuid, const char *name) {
  g_autofree char *beside = scene_control_path (scene, uuid), *folder = g_path_get_dirname (beside),
                  *file = g_strdup_printf ("object-%s.control.sock", name);

  return g_build_filename (folder, file, NULL);
}

struct backend *
scene_backend (Scene *scene, const char *uuid, const char *const *arguments) {
  static const char *const fixed[] = { "--window=4G", "--host-account=none", "--audit-interval=200", NULL };
  g_autoptr (GPtrArray) all = g_ptr_array_new ();
  g_autofree char *path = scene_control_path (scene, uuid);
  struct backend *backend;
  int fd = -1;

  for (unsigned i = 0; fixed[i]; i++)
    g_ptr_array_add (all, (gpointer)fixed[i]);
  for (; arguments && *arguments; arguments++)
    g_ptr_array_add (all, (gpointer)*arguments);
  g_ptr_array_add (all, NULL);
  backend = backend_start ((const char *const *)all->pdata);
  g_ptr_array_add (scene->backends, backend);
  g_assert_cmpint (symlink (backend->control_path, path), ==, 0);
  g_ptr_array_add (scene->links, g_steal_pointer (&path));
  for (const int64_t deadline = fe_now_ms () + fe_patience_ms (); (fd = control_connect (backend->control_path)) < 0;
       g_usleep (5000))
    g_assert_cmpint (fe_now_ms (), <, deadline);
  close (fd);
  return backend;
}

static void
remove_tree (const char *path) {
  g_autoptr (GDir) folder = g_file_test (path, G_FILE_TEST_IS_SYMLINK) ? NULL : g_dir_open (path, 0, NULL);
  const char *name;

  while (folder && (name = g_dir_read_name (folder))) {
    g_autofree char *inside = g_build_filename (path, name, NULL);

    remove_tree (inside);
  }
  g_remove (path);
}

void
scene_free (Scene *scene) {
  if (scene->xml) {
    g_autofree char *now = NULL;

    g_assert_true (g_file_get_contents (scene->file, &now, NULL, NULL));
    g_assert_cmpstr (now, ==, scene->xml);
  }
  g_ptr_array_unref (scene->backends);
  g_ptr_array_unref (scene->links);
  remove_tree (scene->folder);
  g_string_free (scene->domains, TRUE);
  g_free (scene->folder);
  g_free (scene->file);
  g_free (scene->uri);
  g_free (scene->xml);
  g_free (scene);
}

/* ---- running it ---- */

void
run_clear (Run *run) {
  g_clear_pointer (&run->out, g_free);
  g_clear_pointer (&run->err, g_free);
}

/* With DOMYBS_TRACE, for whoever wants to see what operators see. */
static void
trace_run (const char *command, const Run *run) {
  g_autofree char *text = ctl_escape (command);

  if (g_getenv ("DOMYBS_TRACE"))
    g_test_message ("domybsctl %s: %d\n%.1000s%.1000s", text, run->status, run->out, run->err);
}

static void
redirect (gpointer data) {
  const Running *running = data;

  /* Files and not pipes: nobody has to read while it runs. */
  if (!freopen (running->out_path, "w", stdout) || !freopen (running->err_path, "w", stderr))
    _exit (126);
  signal (SIGINT, SIG_DFL);
}

Running *
scene_start (Scene *scene, const char *const *arguments) {
  static unsigned number;
  const char *program = g_getenv ("DOMYBSCTL");
  Running *running = g_new0 (Running, 1);
  g_autoptr (GPtrArray) argv = g_ptr_array_new ();
  g_autoptr (GError) error = NULL;

  number++;
  running->command = g_strjoinv (" ", (char **)arguments);
  running->out_path = g_strdup_printf ("%s/out-%u", scene->folder, number);
  running->err_path = g_strdup_printf ("%s/err-%u", scene->folder, number);
  g_assert_nonnull (program);
  g_ptr_array_add (argv, (gpointer)program);
  g_ptr_array_add (argv, (gpointer) "-c");
  g_ptr_array_add (argv, (gpointer)scene_uri (scene));
  for (; *arguments; arguments++)
    g_ptr_array_add (argv, (gpointer)*arguments);
  g_ptr_array_add (argv, NULL);
  g_spawn_async (NULL, (char **)argv->pdata, NULL, G_SPAWN_DO_NOT_REAP_CHILD, redirect, running, &running->pid, &error);
  g_assert_no_error (error);
  return running;
}

void
scene_finish (Running *running, int number, Run *ret) {
  const int64_t deadline = fe_now_ms () + RUN_MS_MAX;
  int status;

  run_clear (ret);
  if (number)
    kill (running->pid, number);
  while (waitpid (running->pid, &status, WNOHANG) == 0) {
    if (fe_now_ms () > deadline) {
      kill (running->pid, SIGKILL);
      g_error ("domybsctl does not end");
    }
    g_usleep (2000);
  }
  ret->status = WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
  g_assert_true (g_file_get_contents (running->out_path, &ret->out, NULL, NULL));
  g_assert_true (g_file_get_contents (running->err_path, &ret->err, NULL, NULL));
  trace_run (running->command, ret);
  g_free (running->command);
  g_free (running->out_path);
  g_free (running->err_path);
  g_free (running);
}

void
scene_run (Scene *scene, Run *ret_run, const char *const *arguments) {
  scene_finish (scene_start (scene, arguments), 0, ret_run);
}

/* ---- what must hold ---- */

void
run_must_fail (const Run *run, int status, const char *const *words) {
  const char *newline = strchr (run->err, '\n');

  if (run->status != status || !newline || strcmp (newline, "\n") != 0 || !g_str_has_prefix (run->err, "domybsctl: "))
    g_error ("expected were status %d and one line, and not %d and: %s", status, run->status, run->err);
  g_assert_cmpstr (run->out, ==, "");
  for (; *words; words++)
    if (!strstr (run->err, *words))
      g_error ("'%s' is not in: %s", *words, run->err);
}

void
run_must_succeed (const Run *run) {
  g_assert_cmpstr (run->err, ==, "");
  g_assert_cmpint (run->status, ==, 0);
}

JsonObject *
run_json (const Run *run) {
  g_autoptr (JsonParser) parser = json_parser_new ();
  g_autoptr (GError) error = NULL;
  const char *newline = strchr (run->out, '\n');
  JsonObject *object;

  g_assert_nonnull (newline);
  g_assert_cmpstr (newline, ==, "\n");
  json_parser_load_from_data (parser, run->out, -1, &error);
  g_assert_no_error (error);
  g_assert_true (JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)));
  object = json_node_get_object (json_parser_get_root (parser));
  g_assert_cmpstr (json_object_get_string_member (object, "schema"), ==, "domybsctl/1");
  return json_object_ref (object);
}

void
scene_must_have (struct backend *backend, const char *member, gint64 value) {
  g_assert_cmpint (backend_status (backend, member), ==, value);
}

/* ---- one VM ---- */

Stage
stage_new (const GuestHabits *habits, const char *const *arguments) {
  Stage stage = { .scene = scene_new () };

  stage.uuid = scene_add (stage.scene, "vm1", TRUE, SCENE_MEMORY (SCENE_GIB));
  stage.backend = scene_backend (stage.scene, stage.uuid, arguments);
  stage.guest = habits ? guest_start (stage.backend->socket_path, habits) : NULL;
  return stage;
}

void
stage_clear (Stage *stage) {
  g_clear_pointer (&stage->guest, guest_stop);
  g_clear_pointer (&stage->scene, scene_free);
}

void
stage_resize (Stage *stage, const char *command, const char *size, const char *option, int status, const char *reason) {
  g_auto (Run) run = { 0 };
  g_autoptr (JsonObject) object = NULL;

  scene_run (stage->scene, &run, ARGS (command, "vm1", size, "--json", option));
  if (run.status != status)
    g_error ("%s %s: expected was status %d, and not %d: %s", command, size, status, run.status, run.err);
  object = run_json (&run);
  g_assert_cmpstr (json_object_get_string_member_with_default (object, "reason", NULL), ==, reason);
  g_assert_cmpint (json_object_get_int_member (object, "reached-bytes"), ==,
                   backend_status (stage->backend, "granted-blocks") << 21);
  g_assert_cmpint (json_object_has_member (object, "error"), ==, status != 0);
  if (status) {
    g_assert_cmpstr (json_object_get_string_member (json_object_get_object_member (object, "error"), "code"), ==, "incomplete");
    g_assert_true (g_str_has_prefix (run.err, "domybsctl: error: domain 'vm1': has "));
  } else {
    g_assert_cmpstr (run.err, ==, "");
  }
}
