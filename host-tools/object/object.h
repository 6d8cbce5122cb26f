/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The objects of this host: named read-only content (backend/far/object.md), a file NAME.object for each in one folder
 * (launch_object_folder). Errors are CTL_ERROR_…, and name the object.
 */
#ifndef DOMYBS_HOST_TOOLS_OBJECT_H
#define DOMYBS_HOST_TOOLS_OBJECT_H

#include <glib.h>

#include "core/object.h"
#include "domain/domain.h"

typedef struct {
  char *name, *path;
  GError *problem;      /* why the rest is not known; NULL: it is */
  guint64 size_bytes;   /* of what was imported */
  guint64 stored_bytes; /* of its pages that are not zeros */
  guint64 disk_bytes;   /* that the file takes */
  gint64 imported_at;   /* seconds since 1970 */
  char *id;             /* in hexadecimal digits: two objects of one id have the same content */
} Object;

void object_free (Object *object);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Object, object_free)

/* USAGE: no object can have that name. */
gboolean object_check_name (const char *name, GError **error);
/* Where it is, or would be; name is good. */
char *object_path (const char *name);

/* One that is there. NOT_FOUND; what else is wrong with it is its problem. */
Object *object_read (const char *name, GError **error);
/* All of them, by name. Files that are no objects' are left out. */
GPtrArray *object_list (GError **error);

/* The names that are given to --object of a command; USAGE. */
gboolean object_read_names (const char *command, char **names, DomainObjects *ret_objects, GError **error);
/* That all of them are there, and can be read: NOT_FOUND, REFUSED. */
gboolean object_check_all (const DomainObjects *objects, GError **error);

/* The folder, made where it is missing. */
gboolean object_make_folder (GError **error);

/* An error of io/object-file.h as one of CTL_ERROR, with "object 'NAME': " in front. */
void object_take_error (GError **error, const char *name, GError *from);

/* ---- who has it open (object-users.c) ---- */

typedef struct {
  gint64 pid;
  char *name; /* what it was started for: the VM's name, or the program's */
} ObjectUser;

/* Processes that have the file at path open, workers not counted twice. Those that we may not look at are left out. */
GPtrArray *object_users (const char *path);
/* "vm1 (process 12), vm2 (process 34)"; NULL: there are none. */
char *object_users_text (GPtrArray *users);

#endif
