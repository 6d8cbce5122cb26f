/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/vm-copies.h"
#include "ctl/text.h"
#include "ctl/vm-far.h"

#include <string.h>

#define PLACE_BYTES (2ull << 20)

/* ---- reading ---- */

static void
read_donor (JsonObject *object, VmCopyDonor *donor) {
  *donor = (VmCopyDonor){
    .name = vm_json_text (object, "name"),
    .address = vm_json_text (object, "address"),
    .domain = vm_json_text (object, "domain"),
    .channel = vm_json_text (object, "channel"),
    .why = vm_json_text (object, "why"),
    .state = vm_json_text (object, "state"),
    .channel_age_ms = vm_json_count (object, "channel-age-ms"),
    .copies = vm_json_count (object, "copies"),
    .suspect = vm_json_count (object, "suspect"),
    .old = vm_json_count (object, "old"),
    .level_blocks = vm_json_count (object, "level"),
    .wanted_blocks = vm_json_count (object, "wanted"),
    .read_bytes = vm_json_count (object, "read-bytes"),
    .written_bytes = vm_json_count (object, "written-bytes"),
    .failed_writes = vm_json_count (object, "failed-writes"),
    .damaged = vm_json_count (object, "damaged"),
    .timeouts = vm_json_count (object, "timeouts"),
    .reconnects = vm_json_count (object, "reconnects"),
    .read_p50_us = vm_json_count (object, "read-p50-us"),
    .read_p95_us = vm_json_count (object, "read-p95-us"),
    .leaves = vm_json_bool (object, "leaves"),
  };
}

void
vm_copies_read (JsonObject *disk, VmCopies *ret_copies) {
  JsonObject *object = vm_json_object (disk, "copies");
  JsonNode *node = object ? json_object_get_member (object, "donors") : NULL;
  JsonArray *donors = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

  *ret_copies = (VmCopies){
    .protection = vm_json_text (disk, "protection"),
    .known = object != NULL,
    .places = vm_json_count (object, "places"),
    .protected = vm_json_count (object, "protected"),
    .degraded = vm_json_count (object, "degraded"),
    .endangered = vm_json_count (object, "endangered"),
    .lost = vm_json_count (object, "lost"),
    .in_storage = vm_json_count (object, "in-storage"),
    .waiting = vm_json_count (object, "waiting"),
    .repaired_bytes = vm_json_count (object, "repaired-bytes"),
    .repairs_failed = vm_json_count (object, "repairs-failed"),
    .degraded_writes = vm_json_count (object, "degraded-writes"),
    .repairing = object && vm_json_bool (object, "repairing"),
  };
  for (guint i = 0; donors && i < json_array_get_length (donors) && ret_copies->n_donors < VM_COPIES_DONORS_MAX; i++) {
    JsonNode *element = json_array_get_element (donors, i);

    if (JSON_NODE_HOLDS_OBJECT (element))
      read_donor (json_node_get_object (element), &ret_copies->donors[ret_copies->n_donors++]);
  }
}

void
vm_copies_clear (VmCopies *copies) {
  for (unsigned i = 0; i < copies->n_donors; i++) {
    VmCopyDonor *donor = &copies->donors[i];

    g_free (donor->name);
    g_free (donor->address);
    g_free (donor->domain);
    g_free (donor->channel);
    g_free (donor->why);
    g_free (donor->state);
  }
  g_free (copies->protection);
  *copies = (VmCopies){ 0 };
}

/* ---- words ---- */

static guint64
known (guint64 count) {
  return count == VM_UNKNOWN ? 0 : count;
}

char *
vm_copies_text (const VmCopies *copies) {
  GString *text;

  if (!copies->protection || (!copies->known && strcmp (copies->protection, "storage") == 0))
    return NULL;
  text = g_string_new (copies->protection);
  if (!copies->known)
    return g_string_free (text, FALSE);
  g_string_append_printf (text,
                          ": %" G_GUINT64_FORMAT " places of 2M protected, %" G_GUINT64_FORMAT " degraded, %" G_GUINT64_FORMAT
                          " endangered, %" G_GUINT64_FORMAT " lost",
                          known (copies->protected), known (copies->degraded), known (copies->endangered),
                          known (copies->lost));
  if (copies->repairing) {
    g_autofree char *done = text_size_short (known (copies->repaired_bytes));

    g_string_append_printf (text, "; copies are being made, %s so far", done);
  }
  if (known (copies->waiting))
    g_string_append_printf (text, "; %" G_GUINT64_FORMAT " reads wait for a copy", copies->waiting);
  if (copies->n_donors == 0)
    g_string_append (text, "; no donors");
  return g_string_free (text, FALSE);
}

char *
vm_copies_donor_text (const VmCopyDonor *donor) {
  GString *text = g_string_new (donor->domain ? donor->domain : "?");

  g_string_append_printf (text, ", %s", donor->state ? donor->state : "?");
  if (donor->leaves)
    g_string_append (text, " (removed)");
  if (donor->channel && strcmp (donor->channel, "attached") != 0) {
    g_autofree char *age = text_age (known (donor->channel_age_ms));

    g_string_append_printf (text, ", %s for %s", donor->channel, age);
    if (donor->why)
      g_string_append_printf (text, " (%s)", donor->why);
  }
  g_string_append_printf (text, ", %" G_GUINT64_FORMAT " copies", known (donor->copies));
  if (known (donor->suspect) || known (donor->damaged))
    g_string_append_printf (text, ", %" G_GUINT64_FORMAT " reads damaged", known (donor->damaged));
  if (donor->read_p50_us != VM_UNKNOWN && donor->read_p95_us != VM_UNKNOWN)
    g_string_append_printf (text, "; reads take %" G_GUINT64_FORMAT " µs (p50), %" G_GUINT64_FORMAT " µs (p95)",
                            donor->read_p50_us, donor->read_p95_us);
  return g_string_free (text, FALSE);
}

/* "a, b": those that are not up; NULL: all are. */
static char *
absent (const VmCopies *copies) {
  GString *text = NULL;

  for (unsigned i = 0; i < copies->n_donors; i++) {
    const VmCopyDonor *donor = &copies->donors[i];

    if (!donor->state || (strcmp (donor->state, "gone") != 0 && strcmp (donor->state, "away") != 0))
      continue;
    if (!text)
      text = g_string_new (NULL);
    g_string_append_printf (text, "%s%s", text->len ? ", " : "", donor->name ? donor->name : "?");
  }
  return text ? g_string_free (text, FALSE) : NULL;
}

char *
vm_copies_trouble (const VmCopies *copies) {
  g_autofree char *names = absent (copies), *who = names ? g_strdup_printf ("its donors %s can't be reached", names)
                                                         : g_strdup ("its donors have no room");

  if (!copies->known)
    return NULL;
  if (known (copies->lost))
    return g_strdup_printf ("no copy is left of %" G_GUINT64_FORMAT " places of 2M, and what the guest reads there are errors; "
                            "restart its programs that had memory there, and use --far-protection=mirror or ssd with donors of "
                            "two domains",
                            copies->lost);
  if (known (copies->endangered))
    return g_strdup_printf ("%" G_GUINT64_FORMAT " places of 2M have no copy that counts (%s), and what the guest reads there "
                            "waits; bring them back, 'domybsctl donor list' has their addresses",
                            copies->endangered, who);
  if (known (copies->degraded) && !copies->repairing)
    return g_strdup_printf ("%" G_GUINT64_FORMAT " places of 2M have fewer copies than '%s' wants, as %s; see that they come "
                            "back, or add one with 'domybsctl donor add'",
                            copies->degraded, copies->protection ? copies->protection : "?",
                            copies->n_donors ? who : "there are no donors");
  return NULL;
}

/* ---- JSON ---- */

static void
json_count (Ctl *ctl, const char *name, guint64 value) {
  if (value == VM_UNKNOWN)
    ctl_json_null (ctl, name);
  else
    ctl_json_int (ctl, name, (gint64)value);
}

static void
json_donor (Ctl *ctl, const VmCopyDonor *donor) {
  JsonBuilder *builder = ctl_json (ctl);

  json_builder_begin_object (builder);
  ctl_json_string (ctl, "name", donor->name);
  ctl_json_string (ctl, "address", donor->address);
  ctl_json_string (ctl, "domain", donor->domain);
  ctl_json_string (ctl, "channel", donor->channel);
  json_count (ctl, "channel-age-ms", donor->channel_age_ms);
  ctl_json_string (ctl, "why", donor->why);
  ctl_json_string (ctl, "state", donor->state);
  ctl_json_bool (ctl, "leaves", donor->leaves);
  json_count (ctl, "copies", donor->copies);
  json_count (ctl, "suspect", donor->suspect);
  json_count (ctl, "old", donor->old);
  json_count (ctl, "level-blocks", donor->level_blocks);
  json_count (ctl, "wanted-blocks", donor->wanted_blocks);
  json_count (ctl, "read-bytes", donor->read_bytes);
  json_count (ctl, "written-bytes", donor->written_bytes);
  json_count (ctl, "failed-writes", donor->failed_writes);
  json_count (ctl, "damaged", donor->damaged);
  json_count (ctl, "timeouts", donor->timeouts);
  json_count (ctl, "reconnects", donor->reconnects);
  json_count (ctl, "read-p50-us", donor->read_p50_us);
  json_count (ctl, "read-p95-us", donor->read_p95_us);
  json_builder_end_object (builder);
}

void
vm_copies_json (Ctl *ctl, const VmCopies *copies) {
  JsonBuilder *builder = ctl_json (ctl);

  ctl_json_string (ctl, "protection", copies->protection);
  if (!copies->known) {
    ctl_json_null (ctl, "copies");
    return;
  }
  json_builder_set_member_name (builder, "copies");
  json_builder_begin_object (builder);
  json_count (ctl, "places", copies->places);
  json_count (ctl, "protected", copies->protected);
  json_count (ctl, "degraded", copies->degraded);
  json_count (ctl, "endangered", copies->endangered);
  json_count (ctl, "lost", copies->lost);
  json_count (ctl, "in-storage", copies->in_storage);
  json_count (ctl, "waiting", copies->waiting);
  ctl_json_bool (ctl, "repairing", copies->repairing);
  json_count (ctl, "repaired-bytes", copies->repaired_bytes);
  json_count (ctl, "repairs-failed", copies->repairs_failed);
  json_count (ctl, "degraded-writes", copies->degraded_writes);
  json_builder_set_member_name (builder, "donors");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < copies->n_donors; i++)
    json_donor (ctl, &copies->donors[i]);
  json_builder_end_array (builder);
  json_builder_end_object (builder);
}
