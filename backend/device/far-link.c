/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "device/far-link.h"
#include "io/json-members.h"
#include "io/error.h"
#include "io/source.h"

#include <string.h>

/* At most one line for each tier in so many ms, however often the guest changes its mind. */
#define TELL_INTERVAL_MS 50

struct FarLink {
  Backend *backend;
  ControlServer *server;
  ControlClient *client; /* NULL: none */
  GSource *timer;
  gint64 told_at;     /* g_get_monotonic_time; 0: nothing yet */
  gboolean has_tiers; /* they were said */
  BackendFar far;
  struct device_level told[DEVICE_FAR_TIERS];
};

static const char *const tier_names[DEVICE_FAR_TIERS] = { "shared", "remote" };

static const struct device_level *
levels_of (FarLink *link) {
  BackendState state;

  backend_state (link->backend, &state);
  return state.device->levels;
}

/* ---- what the guest wants ---- */

static void
add_level (JsonBuilder *builder, unsigned tier, const struct device_level *level) {
  json_builder_begin_object (builder);
  add_string (builder, "tier", tier_names[tier]);
  add_int (builder, "blocks", level->blocks);
  json_builder_end_object (builder);
}

static gboolean
is_news (const struct device_level *told, const struct device_level *now) {
  return now->known && (!told->known || told->blocks != now->blocks);
}

static gboolean
on_time_to_tell (gpointer data) {
  FarLink *link = data;
  const struct device_level *levels = levels_of (link);

  source_clear (&link->timer);
  link->told_at = g_get_monotonic_time ();
  for (unsigned i = 0; i < DEVICE_FAR_TIERS && link->client; i++)
    if (link->far.tiers[i].is_there && is_news (&link->told[i], &levels[i])) {
      g_autoptr (JsonBuilder) builder = json_builder_new ();

      link->told[i] = levels[i];
      add_level (builder, i, &levels[i]);
      control_server_emit (link->server, FAR_LINK_EVENT, "reserve", json_builder_get_root (builder)); /* may end the client */
    }
  return G_SOURCE_REMOVE;
}

static void
on_levels_changed (gpointer data) {
  FarLink *link = data;
  gint64 wait_ms;

  if (link->timer || !link->client || !link->has_tiers)
    return;
  wait_ms = link->told_at ? TELL_INTERVAL_MS - (g_get_monotonic_time () - link->told_at) / 1000 : 0;
  link->timer = source_timeout ((unsigned)CLAMP (wait_ms, 0, TELL_INTERVAL_MS), on_time_to_tell, link);
}

/* ---- what it says ---- */

static void
on_end (gpointer data) {
  FarLink *link = data;

  source_clear (&link->timer);
  link->client = NULL;
  link->has_tiers = FALSE;
  link->far = (BackendFar){ 0 };
  backend_set_far (link->backend, &link->far);
}

static gboolean
get_tier (JsonObject *object, unsigned *ret_tier, GError **error) {
  JsonNode *node = json_object_get_member (object, "tier");
  const char *name = node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING
                         ? json_node_get_string (node)
                         : "";

  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++)
    if (strcmp (tier_names[i], name) == 0) {
      *ret_tier = i;
      return TRUE;
    }
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "'tier' must be shared or remote");
  return FALSE;
}

/* optional: leaves *ret_blocks where there is none. */
static gboolean
get_blocks (JsonObject *object, const char *name, gboolean optional, uint64_t *ret_blocks, GError **error) {
  JsonNode *node = json_object_get_member (object, name);
  gint64 value;

  if (!node && optional)
    return TRUE;
  value
      = node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : -1;
  if (value < 0 || value > (gint64)DOMYBS_RESERVE_BLOCKS_MAX) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "'%s' must be a whole number between 0 and %llu", name,
                 DOMYBS_RESERVE_BLOCKS_MAX);
    return FALSE;
  }
  *ret_blocks = (uint64_t)value;
  return TRUE;
}

static JsonNode *
nothing (void) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

gboolean
far_link_is (const FarLink *link, const ControlClient *client) {
  return link->client && link->client == client;
}

static gboolean
is_speaking (const FarLink *link, const ControlClient *client, gboolean with_tiers, GError **error) {
  if (!far_link_is (link, client))
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "say far-serve first: this is for domybs-far");
  else if (link->has_tiers != with_tiers)
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, with_tiers ? "say far-tiers first" : "far-tiers was said already");
  else
    return TRUE;
  return FALSE;
}

JsonNode *
far_link_serve (FarLink *link, ControlClient *client, GError **error) {
  if (link->client) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_IN_USE, "a domybs-far is connected already");
    return NULL;
  }
  link->client = client;
  memset (link->told, 0, sizeof link->told);
  control_client_subscribe (client, FAR_LINK_EVENT);
  control_client_on_end (client, on_end, link);
  return nothing ();
}

static gboolean
read_tiers (JsonObject *arguments, BackendFar *ret_far, struct device_level *ret_levels, GError **error) {
  JsonNode *node = json_object_get_member (arguments, "tiers");
  JsonArray *array = node && JSON_NODE_HOLDS_ARRAY (node) ? json_node_get_array (node) : NULL;

  if (!array || json_array_get_length (array) > DEVICE_FAR_TIERS) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "'tiers' must be an array of at most %u objects", DEVICE_FAR_TIERS);
    return FALSE;
  }
  for (guint k = 0; k < json_array_get_length (array); k++) {
    JsonNode *element = json_array_get_element (array, k);
    JsonObject *object = JSON_NODE_HOLDS_OBJECT (element) ? json_node_get_object (element) : NULL;
    unsigned i;

    if (!object) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "each of 'tiers' must be an object");
      return FALSE;
    }
    if (!get_tier (object, &i, error) || !get_blocks (object, "blocks", FALSE, &ret_far->tiers[i].blocks, error))
      return FALSE;
    if (ret_far->tiers[i].is_there) {
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "'tiers' has %s twice", tier_names[i]);
      return FALSE;
    }
    ret_far->tiers[i].is_there = TRUE;
    ret_levels[i].known = json_object_has_member (object, "level-blocks");
    if (!get_blocks (object, "level-blocks", TRUE, &ret_levels[i].blocks, error))
      return FALSE;
  }
  return TRUE;
}

/* Whoever of the two knows the level tells the other one: it outlives the death of either. */
JsonNode *
far_link_tiers (FarLink *link, ControlClient *client, JsonObject *arguments, GError **error) {
  struct device_level levels[DEVICE_FAR_TIERS] = { { 0 } };
  g_autoptr (JsonBuilder) builder = NULL;
  BackendFar far = { .is_connected = TRUE };

  if (!is_speaking (link, client, FALSE, error) || !read_tiers (arguments, &far, levels, error))
    return NULL;
  link->has_tiers = TRUE;
  link->far = far;
  backend_set_far (link->backend, &far);
  builder = json_builder_new ();
  json_builder_begin_object (builder);
  json_builder_set_member_name (builder, "levels");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < DEVICE_FAR_TIERS; i++) {
    if (levels[i].known)
      backend_set_level (link->backend, i, levels[i].blocks);
    link->told[i] = levels_of (link)[i];
    if (far.tiers[i].is_there && link->told[i].known)
      add_level (builder, i, &link->told[i]);
  }
  json_builder_end_array (builder);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

JsonNode *
far_link_reserved (FarLink *link, ControlClient *client, JsonObject *arguments, GError **error) {
  JsonNode *full = json_object_get_member (arguments, "full");
  uint64_t blocks, in_use;
  unsigned i;

  if (!is_speaking (link, client, TRUE, error) || !get_tier (arguments, &i, error)
      || !get_blocks (arguments, "blocks", FALSE, &blocks, error)
      || !get_blocks (arguments, "in-use-blocks", FALSE, &in_use, error))
    return NULL;
  if (!full || !JSON_NODE_HOLDS_VALUE (full) || json_node_get_value_type (full) != G_TYPE_BOOLEAN) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "'full' must be true or false");
    return NULL;
  }
  if (!link->far.tiers[i].is_there) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s was not among the tiers of far-tiers", tier_names[i]);
    return NULL;
  }
  link->far.tiers[i].reserved_blocks = blocks;
  link->far.tiers[i].in_use_blocks = in_use;
  link->far.tiers[i].is_full = json_node_get_boolean (full);
  backend_set_far (link->backend, &link->far);
  return nothing ();
}

/* ---- life ---- */

FarLink *
far_link_new (Backend *backend, ControlServer *server) {
  FarLink *link = g_new0 (FarLink, 1);

  link->backend = backend;
  link->server = server;
  backend_watch_levels (backend, on_levels_changed, link);
  return link;
}

void
far_link_free (FarLink *link) {
  backend_watch_levels (link->backend, NULL, NULL);
  if (link->client)
    control_client_on_end (link->client, NULL, NULL);
  source_clear (&link->timer);
  g_free (link);
}
