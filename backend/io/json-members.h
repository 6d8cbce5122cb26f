/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Members of the JSON objects that go to the control socket. */
#ifndef DOMYBS_IO_JSON_MEMBERS_H
#define DOMYBS_IO_JSON_MEMBERS_H

#include <json-glib/json-glib.h>

static inline void
add_int (JsonBuilder *builder, const char *name, guint64 value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_int_value (builder, (gint64)MIN (value, (guint64)G_MAXINT64)); /* JSON-GLib's numbers have a sign */
}

static inline void
add_null (JsonBuilder *builder, const char *name) {
  json_builder_set_member_name (builder, name);
  json_builder_add_null_value (builder);
}

static inline void
add_int_or_null (JsonBuilder *builder, const char *name, gboolean have_it, guint64 value) {
  if (have_it)
    add_int (builder, name, value);
  else
    add_null (builder, name);
}

static inline void
add_bool (JsonBuilder *builder, const char *name, gboolean value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_boolean_value (builder, value);
}

static inline void
add_string (JsonBuilder *builder, const char *name, const char *value) {
  json_builder_set_member_name (builder, name);
  json_builder_add_string_value (builder, value);
}

#endif
