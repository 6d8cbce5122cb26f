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

/* As the XML of a running domain, to be plugged into. */
static void
read_live (const char *text) {
  static const DomainFar far = { { 1 << 30, 1 << 30, 1 << 30, 1 << 30 }, (char *)"/var/lib/domybs/far", TRUE, 1 << 30 };
  g_autoptr (GPtrArray) devices = NULL;
  g_autofree char *element = NULL, *none = NULL;
  gboolean there[DOMAIN_FAR_TIERS];
  unsigned queues[DOMAIN_FAR_TIERS];
  GError *error = NULL;
  bool ok = domain_check_live_far (text, &far, &error);

  check (ok, error);
  g_assert (!ok || domain_far_there (text, there) == 0);
  error = NULL;
  devices = domain_far_devices (text, &far, "/run/domybs/vm/x/backend.sock", queues, &error);
  check (devices, error);
  g_assert (!devices || devices->len == DOMAIN_FAR_TIERS);
  error = NULL;
  ok = domain_metadata_with_far (text, &far, &element, &error);
  check (ok, error);
  g_assert (ok == (element != NULL));
  ok = domain_metadata_with_far (text, NULL, &none, NULL);
  g_assert (ok == (element != NULL));
}

static void
read_objects (const char *text) {
  const DomainObjects one = { .n = 1, .items = { { .name = "model" } } };
  g_autofree char *device = NULL, *element = NULL;
  DomainObjects objects;
  GError *error = NULL;
  unsigned queues;
  bool ok = domain_read_objects (text, &objects, &error);

  if (ok)
    g_assert (!error && objects.n > 0 && objects.n <= DOMAIN_OBJECTS_MAX);
  g_clear_error (&error);
  g_assert (domain_objects_there (text, &objects) <= DOMAIN_OBJECTS_MAX);
  ok = domain_check_live_objects (text, &one, 0, &error);
  check (ok, error);
  error = NULL;
  device = domain_object_device (text, "model", "/run/domybs/vm/x/backend.sock", &queues, &error);
  check (device, error);
  error = NULL;
  ok = domain_metadata_with_objects (text, &one, &element, &error);
  check (ok, error);
  g_assert (ok == (element != NULL));
}

/* All there can be, and each part of it taken away. */
static void
take_parts (const char *text) {
  static const DomainFar far = { { 1 << 30, 1 << 30 }, (char *)"/var/lib/domybs/far" };
  static const DomainParts parts[] = { { .memory = TRUE }, { .far = TRUE }, { .all_objects = TRUE } };
  const DomainObjects one = { .n = 1, .items = { { .name = "model" } } };
  DomainAttachOptions all = options;
  g_autofree char *now = NULL;

  all.far = &far;
  all.objects = &one;
  now = domain_attach (text, &all, &host, "/run/domybs/vm/x/backend.sock", NULL, NULL);
  for (unsigned i = 0; now && i < G_N_ELEMENTS (parts); i++) {
    GError *error = NULL;
    char *next = domain_detach_parts (now, &parts[i], NULL, &error);

    check (next, error);
    g_assert (next); /* it is there, so it can be taken away */
    g_free (now);
    now = next;
  }
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size) {
  g_autofree char *text = size ? g_strndup ((const char *)data, size) : g_strdup (""), *detached = NULL, *attached = NULL;

  read_all (text);
  read_live (text);
  read_objects (text);
  take_parts (text);
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
