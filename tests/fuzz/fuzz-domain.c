/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Any text as a domain's XML: read, attached, detached. What comes out is either a result or one line of error. */
#include <glib.h>

#include "domain.h"
#include "fuzz.h"

static const DomainAttachOptions options
    = { .window_bytes = DOMAIN_WINDOW_BYTES_MIN, .local_max_bytes = DOMAIN_BLOCK_BYTES, .own_node = TRUE };
static const DomainHost host = { .qemu_version = DOMAIN_QEMU_VERSION_MIN };

/* The text that a step gave; an error has to be one line. */
static void
check (bool ok, GError *error) {
  g_assert (ok == !error);
  if (error) {
    g_assert (*error->message);
    for (const char *at = error->message; *at; at++)
      g_assert (!g_ascii_iscntrl (*at));
    g_error_free (error);
  }
}

static char *
attach (const char *text) {
  GError *error = NULL;
  char *attached = domain_attach (text, &options, &host, "/run/domybs/vm/x/backend.sock", NULL, &error);

  check (attached, error);
  return attached;
}

static char *
detach (const char *text) {
  GError *error = NULL;
  char *detached = domain_detach (text, NULL, &error);

  check (detached, error);
  return detached;
}

static void
read_all (const char *text) {
  g_auto (DomainIdentity) identity = { 0 };
  GError *error = NULL;
  DomainMemory memory;
  bool ok = domain_read_identity (text, &identity, &error);

  check (ok, error);
  g_free (domain_read_dac_label (text));
  g_free (domain_read_emulator (text));
  error = NULL;
  ok = domain_check_live (text, options.window_bytes, &error);
  check (ok, error);
  error = NULL;
  ok = domain_check_start (text, &error);
  check (ok, error);
  error = NULL;
  if (domain_read_memory (text, &memory, &error)) {
    g_autofree char *element = domain_metadata_for_libvirt (text, &memory, NULL);

    g_assert (!error && element);
    g_assert (memory.local_max_bytes >= DOMAIN_BLOCK_BYTES && memory.local_max_bytes <= memory.window_bytes);
  }
  g_clear_error (&error);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  g_autofree char *text = size ? g_strndup ((const char *)data, size) : g_strdup (""), *detached = NULL, *attached = NULL;

  read_all (text);
  detached = detach (text);
  attached = attach (text);
  if (attached) {
    g_autofree char *again = attach (attached), *back = detach (attached);

    g_assert (g_strcmp0 (again, attached) == 0);
    g_assert (back);
    /* A domain to which nothing was attached is what it was before. */
    if (!detached)
      g_assert (g_strcmp0 (back, text) == 0);
  }
  return 0;
}
