/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The lock on an object's file says that somebody has it, and not who: that is in /proc. */
#include "object/object.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
user_free (gpointer data) {
  ObjectUser *user = data;

  g_free (user->name);
  g_free (user);
}

/* The command line's words; NULL: it has gone, or has none. */
static char **
arguments_of (const char *pid) {
  g_autofree char *path = g_build_filename ("/proc", pid, "cmdline", NULL), *text = NULL;
  GPtrArray *words;
  gsize n;

  if (!g_file_get_contents (path, &text, &n, NULL) || n == 0)
    return NULL;
  words = g_ptr_array_new ();
  for (const char *at = text; at < text + n; at += strlen (at) + 1)
    g_ptr_array_add (words, g_strdup (at));
  g_ptr_array_add (words, NULL);
  return (char **)g_ptr_array_free (words, FALSE);
}

/* What `--name` says, else the program's name. NULL: a worker, which its keeper stands for. */
static char *
name_of (char **arguments) {
  g_autofree char *name = g_path_get_basename (arguments[0]);

  for (char **argument = arguments + 1; *argument; argument++) {
    if (strcmp (*argument, "--worker") == 0)
      return NULL;
    if (g_str_has_prefix (*argument, "--name=")) {
      g_free (name);
      name = g_strdup (*argument + strlen ("--name="));
    } else if (strcmp (*argument, "--name") == 0 && argument[1]) {
      g_free (name);
      name = g_strdup (*++argument);
    }
  }
  return g_steal_pointer (&name);
}

static gboolean
has_open (const char *pid, const struct stat *file) {
  g_autofree char *folder = g_build_filename ("/proc", pid, "fd", NULL);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *fd;
  struct stat st;

  while (dir && (fd = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, fd, NULL);

    if (stat (path, &st) == 0 && st.st_dev == file->st_dev && st.st_ino == file->st_ino)
      return TRUE;
  }
  return FALSE;
}

GPtrArray *
object_users (const char *path) {
  GPtrArray *users = g_ptr_array_new_with_free_func (user_free);
  g_autoptr (GDir) dir = g_dir_open ("/proc", 0, NULL);
  struct stat file;
  const char *pid;

  if (stat (path, &file) < 0)
    return users;
  while (dir && (pid = g_dir_read_name (dir))) {
    g_auto (GStrv) arguments = NULL;
    ObjectUser *user;
    char *name;

    if (!g_ascii_isdigit (pid[0]) || g_ascii_strtoll (pid, NULL, 10) == getpid () || !has_open (pid, &file))
      continue;
    arguments = arguments_of (pid);
    name = arguments ? name_of (arguments) : NULL;
    if (!name)
      continue;
    user = g_new (ObjectUser, 1);
    *user = (ObjectUser){ .pid = g_ascii_strtoll (pid, NULL, 10), .name = name };
    g_ptr_array_add (users, user);
  }
  return users;
}

char *
object_users_text (GPtrArray *users) {
  GString *text = g_string_new (NULL);

  for (unsigned i = 0; i < users->len; i++) {
    const ObjectUser *user = users->pdata[i];

    g_string_append_printf (text, "%s'%s' (process %" G_GINT64_FORMAT ")", i ? ", " : "", user->name, user->pid);
  }
  return g_string_free (text, users->len == 0);
}
