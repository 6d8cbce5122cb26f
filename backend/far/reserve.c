/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/reserve.h"
#include "core/far-level.h"
#include "io/json-members.h"
#include "far/connector.h"
#include "io/log-limit.h"
#include "io/source.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* After the end of a connection: workers of the other side are back within milliseconds. */
#define CONNECT_FIRST_MS 50u
#define CONNECT_MAX_MS 10000u
/* Figures are looked at, and told, so often at most. */
#define LOOK_MS 100u
/* When storage has no more: the next try is later each time. */
#define COVER_FIRST_MS 500u
#define COVER_MAX_MS 60000u
#define LINE_BYTES_MAX 4096u

typedef struct {
  guint64 ready, in_use;
  gboolean full;
} Said;

typedef struct {
  FarReserveTier is;
  guint64 n_blocks;
  gboolean has_level;
  guint64 level;
  gboolean refused; /* storage had no more */
  gint64 cover_at;  /* then: µs, not before */
  unsigned cover_ms;
  gboolean has_said; /* on this connection */
  Said said;
} Tier;

struct FarReserve {
  char *name, *path;
  int connector_fd, fd; /* fd -1: not connected */
  gboolean serving;     /* the other side has taken our tiers */
  unsigned connect_ms;
  GSource *connect_source, *answer_source, *in_source, *look_source, *cover_source;
  char in[LINE_BYTES_MAX];
  gsize in_bytes;
  gboolean log_said; /* what is wrong with the connection is said once */
  unsigned n_tiers;
  Tier tiers[FAR_RESERVE_TIERS];
};

static void look_soon (FarReserve *reserve, unsigned ms);
static void disconnect (FarReserve *reserve, const char *why);

/* ---- lines out ---- */

/* FALSE: the connection is gone. */
static gboolean
send_command (FarReserve *reserve, JsonBuilder *builder) {
  g_autoptr (JsonNode) node = json_builder_get_root (builder);
  g_autofree char *text = json_to_string (node, FALSE), *line = g_strconcat (text, "\n", NULL);
  const size_t n = strlen (line);

  if (send (reserve->fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)n)
    return TRUE;
  disconnect (reserve, errno == EAGAIN ? "it does not read" : g_strerror (errno)); /* half a line is as bad */
  return FALSE;
}

static JsonBuilder *
begin_command (const char *name) {
  JsonBuilder *builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_string (builder, "execute", name);
  json_builder_set_member_name (builder, "arguments");
  json_builder_begin_object (builder);
  return builder;
}

static void
end_command (JsonBuilder *builder) {
  json_builder_end_object (builder);
  json_builder_end_object (builder);
}

static void
say_tiers (FarReserve *reserve) {
  g_autoptr (JsonBuilder) builder = begin_command ("far-tiers");

  json_builder_set_member_name (builder, "tiers");
  json_builder_begin_array (builder);
  for (unsigned i = 0; i < reserve->n_tiers; i++) {
    const Tier *tier = &reserve->tiers[i];

    json_builder_begin_object (builder);
    add_string (builder, "tier", tier->is.tier);
    add_int (builder, "blocks", tier->n_blocks);
    if (tier->has_level)
      add_int (builder, "level-blocks", tier->level);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
  end_command (builder);
  send_command (reserve, builder);
}

static gboolean
say_reserved (FarReserve *reserve, const Tier *tier) {
  g_autoptr (JsonBuilder) builder = begin_command ("far-reserved");

  add_string (builder, "tier", tier->is.tier);
  add_int (builder, "blocks", tier->said.ready);
  add_int (builder, "in-use-blocks", tier->said.in_use);
  add_bool (builder, "full", tier->said.full);
  end_command (builder);
  return send_command (reserve, builder);
}

/* ---- covering ---- */

static void
get_store_figures (const Tier *tier, struct far_figures *ret_figures) {
  FarEngineFigures figures;

  far_engine_figures (tier->is.engine, &figures);
  *ret_figures = figures.store;
}

/* Whether there is a step to do now; if storage had no more, *ret_wait_ms (left alone else) says when it is asked again. */
static gboolean
can_cover (const Tier *tier, unsigned *ret_wait_ms) {
  struct far_figures figures;
  gint64 wait_us;

  get_store_figures (tier, &figures);
  if (!far_level_wants_more (&figures, tier->n_blocks, tier->level))
    return FALSE;
  wait_us = tier->refused ? tier->cover_at - g_get_monotonic_time () : 0;
  if (wait_us <= 0)
    return TRUE;
  *ret_wait_ms = MIN (*ret_wait_ms, (unsigned)(wait_us / 1000 + 1));
  return FALSE;
}

static void
cover (Tier *tier) {
  tier->refused = !far_engine_cover_more (tier->is.engine);
  if (!tier->refused) {
    tier->cover_ms = 0;
    return;
  }
  tier->cover_ms = tier->cover_ms ? MIN (tier->cover_ms * 2, COVER_MAX_MS) : COVER_FIRST_MS;
  tier->cover_at = g_get_monotonic_time () + tier->cover_ms * 1000;
}

static void cover_soon (FarReserve *reserve);

static gboolean
on_cover (gpointer data) {
  FarReserve *reserve = data;
  unsigned wait_ms = G_MAXUINT;

  source_clear (&reserve->cover_source);
  for (unsigned i = 0; i < reserve->n_tiers; i++)
    if (can_cover (&reserve->tiers[i], &wait_ms))
      cover (&reserve->tiers[i]);
  look_soon (reserve, LOOK_MS);
  cover_soon (reserve);
  return G_SOURCE_REMOVE;
}

static void
cover_soon (FarReserve *reserve) {
  unsigned wait_ms = G_MAXUINT;

  source_clear (&reserve->cover_source);
  for (unsigned i = 0; i < reserve->n_tiers; i++)
    if (can_cover (&reserve->tiers[i], &wait_ms))
      wait_ms = 0;
  if (wait_ms != G_MAXUINT)
    reserve->cover_source = source_timeout (wait_ms, on_cover, reserve);
}

/* What there is now, as far as the guest is to know it: no more than the level, so that not every page tells. */
static Said
judge (const Tier *tier) {
  struct far_figures figures;
  guint64 ready;

  get_store_figures (tier, &figures);
  ready = far_level_ready (&figures, tier->n_blocks);
  return (Said){
    .ready = MIN (ready, tier->level),
    .in_use = figures.blocks_in_use,
    .full = ready < tier->level && (tier->refused || !far_level_wants_more (&figures, tier->n_blocks, tier->level)),
  };
}

static gboolean
on_look (gpointer data) {
  FarReserve *reserve = data;

  source_clear (&reserve->look_source);
  if (!reserve->cover_source)
    cover_soon (reserve);
  for (unsigned i = 0; i < reserve->n_tiers && reserve->serving; i++) {
    Tier *tier = &reserve->tiers[i];
    const Said now = judge (tier);

    if (tier->has_said && tier->said.ready == now.ready && tier->said.in_use == now.in_use && tier->said.full == now.full)
      continue;
    tier->said = now;
    tier->has_said = TRUE;
    say_reserved (reserve, tier);
  }
  return G_SOURCE_REMOVE;
}

static void
look_soon (FarReserve *reserve, unsigned ms) {
  if (!reserve->look_source)
    reserve->look_source = source_timeout (ms, on_look, reserve);
}

static void
on_room (gpointer data) {
  look_soon (data, LOOK_MS);
}

static void
set_level (FarReserve *reserve, Tier *tier, guint64 blocks) {
  tier->has_level = TRUE;
  tier->level = blocks;
  far_engine_set_level (tier->is.engine, blocks);
  tier->refused = FALSE; /* storage is asked anew */
  tier->cover_ms = 0;
  tier->has_said = FALSE; /* whoever asks wants to know */
  source_clear (&reserve->look_source);
  look_soon (reserve, 0);
  cover_soon (reserve);
}

/* ---- lines in ---- */

static const char *
get_string (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node)
                                                                                                  : NULL;
}

static JsonObject *
get_object (JsonObject *object, const char *name) {
  JsonNode *node = json_object_get_member (object, name);

  return node && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

/* {"tier": …, "blocks": …}; of tiers that are not ours, nothing. */
static void
take_level (FarReserve *reserve, JsonObject *object) {
  JsonNode *node = json_object_get_member (object, "blocks");
  const char *name = get_string (object, "tier");
  gint64 blocks = -1;

  if (node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64)
    blocks = json_node_get_int (node);
  for (unsigned i = 0; name && blocks >= 0 && i < reserve->n_tiers; i++)
    if (strcmp (reserve->tiers[i].is.tier, name) == 0)
      set_level (reserve, &reserve->tiers[i], (guint64)blocks);
}

static void
take_levels (FarReserve *reserve, JsonArray *levels) {
  for (guint i = 0; i < json_array_get_length (levels); i++) {
    JsonNode *node = json_array_get_element (levels, i);

    if (JSON_NODE_HOLDS_OBJECT (node))
      take_level (reserve, json_node_get_object (node));
  }
  reserve->serving = TRUE;
  reserve->connect_ms = 0;
  reserve->log_said = FALSE;
  look_soon (reserve, 0);
}

/* NULL, or what is wrong with it. */
static const char *
take_line (FarReserve *reserve, const char *line, gsize n) {
  g_autoptr (JsonParser) parser = json_parser_new_immutable ();
  JsonObject *root, *object;
  const char *name;

  if (!g_utf8_validate (line, (gssize)n, NULL) || !json_parser_load_from_data (parser, line, (gssize)n, NULL)
      || !json_parser_get_root (parser) || !JSON_NODE_HOLDS_OBJECT (json_parser_get_root (parser)))
    return "what it says is not JSON";
  root = json_node_get_object (json_parser_get_root (parser));
  if ((object = get_object (root, "domybs")))
    return g_strcmp0 (get_string (object, "program"), "domybs-backend") == 0 ? NULL : "it is no memory device";
  if (json_object_has_member (root, "error"))
    return "it refuses (of an older version, or another domybs-far is connected)";
  if ((name = get_string (root, "event"))) {
    if (strcmp (name, "reserve") == 0 && (object = get_object (root, "data")))
      take_level (reserve, object);
    return NULL;
  }
  object = get_object (root, "return");
  if (object && json_object_has_member (object, "levels")) {
    JsonNode *levels = json_object_get_member (object, "levels");

    if (!JSON_NODE_HOLDS_ARRAY (levels))
      return "its levels are no array";
    take_levels (reserve, json_node_get_array (levels));
  }
  return NULL;
}

static gboolean
on_readable (gint fd, GIOCondition condition, gpointer data) {
  FarReserve *reserve = data;
  const ssize_t n = recv (fd, reserve->in + reserve->in_bytes, sizeof reserve->in - reserve->in_bytes, MSG_DONTWAIT);
  char *start = reserve->in, *newline;

  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return G_SOURCE_CONTINUE;
  if (n <= 0) {
    disconnect (reserve, NULL);
    return G_SOURCE_REMOVE;
  }
  reserve->in_bytes += (gsize)n;
  while ((newline = memchr (start, '\n', reserve->in_bytes - (gsize)(start - reserve->in)))) {
    const char *why = take_line (reserve, start, (gsize)(newline - start));

    if (why)
      disconnect (reserve, why);
    if (reserve->fd < 0)
      return G_SOURCE_REMOVE;
    start = newline + 1;
  }
  reserve->in_bytes -= (gsize)(start - reserve->in);
  memmove (reserve->in, start, reserve->in_bytes);
  if (reserve->in_bytes < sizeof reserve->in)
    return G_SOURCE_CONTINUE;
  disconnect (reserve, "its line is too long");
  return G_SOURCE_REMOVE;
}

/* ---- connections ---- */

static void connect_later (FarReserve *reserve);

/* why NULL: it ended, as it does with each worker of the other side. */
static void
disconnect (FarReserve *reserve, const char *why) {
  source_clear (&reserve->in_source);
  source_clear (&reserve->answer_source);
  if (reserve->fd >= 0)
    close (reserve->fd);
  reserve->fd = -1;
  reserve->serving = FALSE;
  if (why && !reserve->log_said) {
    reserve->log_said = TRUE;
    g_message ("%s: the memory device at %s: %s; tried again now and then", reserve->name, reserve->path, why);
  }
  connect_later (reserve);
}

static void
connected (FarReserve *reserve, int fd) {
  reserve->fd = fd;
  reserve->in_bytes = 0;
  for (unsigned i = 0; i < reserve->n_tiers; i++)
    reserve->tiers[i].has_said = FALSE;
  reserve->in_source = source_fd (NULL, fd, G_IO_IN, on_readable, reserve);
  say_tiers (reserve);
}

static gboolean
on_answer (gint fd, GIOCondition condition, gpointer data) {
  FarReserve *reserve = data;
  const int connection = far_connector_take (fd);

  if (connection < 0 && (errno == EAGAIN || errno == EINTR))
    return G_SOURCE_CONTINUE;
  source_clear (&reserve->answer_source);
  if (connection >= 0)
    connected (reserve, connection);
  else
    disconnect (reserve, g_strerror (errno));
  return G_SOURCE_REMOVE;
}

static gboolean
on_connect (gpointer data) {
  FarReserve *reserve = data;

  source_clear (&reserve->connect_source);
  if (far_connector_ask (reserve->connector_fd))
    reserve->answer_source = source_fd (NULL, reserve->connector_fd, G_IO_IN, on_answer, reserve);
  else
    disconnect (reserve, g_strerror (errno));
  return G_SOURCE_REMOVE;
}

static void
connect_later (FarReserve *reserve) {
  source_clear (&reserve->connect_source);
  reserve->connect_ms = reserve->connect_ms ? MIN (reserve->connect_ms * 2, CONNECT_MAX_MS) : CONNECT_FIRST_MS;
  reserve->connect_source = source_timeout (reserve->connect_ms, on_connect, reserve);
}

/* ---- public ---- */

gboolean
far_reserve_is_connected (const FarReserve *reserve) {
  return reserve->serving;
}

gboolean
far_reserve_level (const FarReserve *reserve, const FarEngine *engine, guint64 *ret_blocks) {
  for (unsigned i = 0; i < reserve->n_tiers; i++)
    if (reserve->tiers[i].is.engine == engine && reserve->tiers[i].has_level) {
      *ret_blocks = reserve->tiers[i].level;
      return TRUE;
    }
  return FALSE;
}

FarReserve *
far_reserve_new (const char *name, const char *path, int connector_fd, const FarReserveTier *tiers, unsigned n_tiers) {
  FarReserve *reserve = g_new0 (FarReserve, 1);

  g_return_val_if_fail (n_tiers <= FAR_RESERVE_TIERS, NULL);
  reserve->name = g_strdup (name);
  reserve->path = g_strdup (path);
  reserve->connector_fd = connector_fd;
  reserve->fd = -1;
  reserve->n_tiers = n_tiers;
  for (unsigned i = 0; i < n_tiers; i++) {
    reserve->tiers[i].is = tiers[i];
    reserve->tiers[i].n_blocks = far_engine_n_pages (tiers[i].engine) / FAR_BLOCK_PAGES;
    far_engine_on_room (tiers[i].engine, on_room, reserve);
  }
  return reserve;
}

void
far_reserve_start (FarReserve *reserve) {
  reserve->connect_source = source_timeout (0, on_connect, reserve);
}

void
far_reserve_free (FarReserve *reserve) {
  source_clear (&reserve->connect_source);
  source_clear (&reserve->answer_source);
  source_clear (&reserve->in_source);
  source_clear (&reserve->look_source);
  source_clear (&reserve->cover_source);
  for (unsigned i = 0; i < reserve->n_tiers; i++)
    far_engine_on_room (reserve->tiers[i].is.engine, NULL, NULL);
  if (reserve->fd >= 0)
    close (reserve->fd);
  g_free (reserve->name);
  g_free (reserve->path);
  g_free (reserve);
}
