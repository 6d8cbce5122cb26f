/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/source.h"

GSource *
source_fd (GMainContext *context, int fd, GIOCondition condition, GUnixFDSourceFunc function, gpointer data) {
  GSource *source = g_unix_fd_source_new (fd, condition);
  g_autoptr (GMainContext) ours = context ? g_main_context_ref (context) : g_main_context_ref_thread_default ();

  g_source_set_callback (source, G_SOURCE_FUNC (function), data, NULL);
  g_source_attach (source, ours);
  return source;
}

GSource *
source_timeout (unsigned ms, GSourceFunc function, gpointer data) {
  GSource *source = g_timeout_source_new (ms);
  g_autoptr (GMainContext) context = g_main_context_ref_thread_default ();

  g_source_set_callback (source, function, data, NULL);
  g_source_attach (source, context);
  return source;
}

void
source_clear (GSource **source) {
  if (*source) {
    g_source_destroy (*source);
    g_source_unref (*source);
  }
  *source = NULL;
}
