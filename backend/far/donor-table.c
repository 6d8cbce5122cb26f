/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/donor-table.h"
#include "core/crash-point.h"
#include "io/error.h"
#include "io/json-members.h"
#include "io/source.h"
#include "io/tcp.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Between looks whether a donor that is to leave can. */
#define LOOK_MS 250
/* A donor that does not say by then that its lease has ended keeps it for a day. */
#define END_MS 1500
/* The answer to a command is sent first. */
#define RESTART_MS 50
#define BLOCK_BYTES ((guint64)FAR_SEGMENT_BYTES)

struct FarDonorTable {
  struct far_identities *identities; /* mapped, with the table behind them */
  struct far_donor_table *table;     /* NULL: an older keeper's */
  const FarOptions *options;
  FarOperator *op;
  guint count;
  FarDonorOptions donors[COPIES_DONORS_MAX]; /* as of this worker's start */
  GSource *look_source, *restart_source;
  gboolean ending; /* a donor's leases are */
  guint end_number, end_left;
};

/* ---- the memory ---- */

static void
fill_slot (struct far_donor_slot *slot, const FarDonorChoice *choice, const struct far_donor_key *key) {
  *slot = (struct far_donor_slot){ .state = FAR_DONOR_THERE, .bytes_max = choice->bytes_max, .key = *key };
  g_strlcpy (slot->name, choice->name, sizeof slot->name);
  g_strlcpy (slot->address, choice->address, sizeof slot->address);
  g_strlcpy (slot->domain, choice->domain, sizeof slot->domain);
}

void
far_donor_table_format (void *memory, const FarOptions *options) {
  struct far_identities *identities = memory;
  struct far_donor_table *table = (struct far_donor_table *)((guint8 *)memory + FAR_DONORS_TABLE_OFFSET);

  for (unsigned d = 0; d < options->n_donors; d++)
    fill_slot (&table->slots[0][d], &options->donors[d], &identities->donors[d]);
  table->version = FAR_DONOR_TABLE_VERSION;
}

static struct far_donor_slot *
slots (const FarDonorTable *t) {
  return t->table->slots[t->table->current & 1];
}

/* All of it is there, or nothing. */
static void
commit (FarDonorTable *t, guint number, const struct far_donor_slot *slot) {
  const uint32_t other = (t->table->current & 1) ^ 1;

  memcpy (t->table->slots[other], slots (t), sizeof t->table->slots[other]);
  t->table->slots[other][number] = *slot;
  CRASH_POINT ("donor-table-written");
  __atomic_store_n (&t->table->current, other, __ATOMIC_RELEASE);
  explicit_bzero (t->table->slots[other ^ 1], sizeof t->table->slots[0]);
  CRASH_POINT ("donor-table-changed");
}

/* What is in the table is our own workers' word, and theirs may have been taken over: ends are where they belong. */
static void
read_slots (FarDonorTable *t) {
  for (guint d = 0; d < COPIES_DONORS_MAX; d++) {
    struct far_donor_slot *slot = &slots (t)[d];

    if (slot->state != FAR_DONOR_THERE && slot->state != FAR_DONOR_LEAVES)
      continue;
    slot->name[sizeof slot->name - 1] = slot->address[sizeof slot->address - 1] = slot->domain[sizeof slot->domain - 1] = 0;
    slot->key.identity[sizeof slot->key.identity - 1] = 0;
    t->count = d + 1;
    t->donors[d] = (FarDonorOptions){ .name = g_strdup (slot->name),
                                      .address = g_strdup (slot->address),
                                      .domain = g_strdup (slot->domain),
                                      .psk_identity = slot->key.identity[0] ? slot->key.identity : NULL,
                                      .psk = slot->key.key,
                                      .psk_bytes = MIN (slot->key.bytes, sizeof slot->key.key),
                                      .blocks_max = slot->bytes_max / BLOCK_BYTES,
                                      .leaves = slot->state == FAR_DONOR_LEAVES };
  }
}

static void
read_options (FarDonorTable *t) {
  t->count = t->options->n_donors;
  for (guint d = 0; d < t->count; d++) {
    const FarDonorChoice *choice = &t->options->donors[d];
    const struct far_donor_key *key = &t->identities->donors[d];

    t->donors[d] = (FarDonorOptions){ .name = choice->name,
                                      .address = choice->address,
                                      .domain = choice->domain,
                                      .psk_identity = key->identity[0] ? key->identity : NULL,
                                      .psk = key->key,
                                      .psk_bytes = MIN (key->bytes, sizeof key->key),
                                      .blocks_max = choice->bytes_max / BLOCK_BYTES };
  }
}

FarDonorTable *
far_donor_table_open (int fd, const FarOptions *options, GError **error) {
  FarDonorTable *t = g_new0 (FarDonorTable, 1);
  struct stat st;
  gboolean has_table;
  void *memory;

  t->options = options;
  if (fstat (fd, &st) < 0 || st.st_size < (off_t)sizeof *t->identities) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT, "the keeper gave no keys of donors");
    g_free (t);
    return NULL;
  }
  has_table = st.st_size == FAR_DONORS_BYTES;
  memory = mmap (NULL, (size_t)st.st_size, has_table ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
  close (fd);
  if (memory == MAP_FAILED) {
    domybs_error_errno (error, "can't map the keys of donors");
    g_free (t);
    return NULL;
  }
  if (madvise (memory, (size_t)st.st_size, MADV_DONTDUMP) < 0)
    g_debug ("keys of donors: %s", g_strerror (errno));
  t->identities = memory;
  if (has_table)
    t->table = (struct far_donor_table *)((guint8 *)memory + FAR_DONORS_TABLE_OFFSET);
  if (t->table && t->table->version != FAR_DONOR_TABLE_VERSION) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_CORRUPT,
                 "this program can't go on from the table of donors: it is of version %u", t->table->version);
    return NULL;
  }
  if (t->table)
    read_slots (t);
  else
    read_options (t);
  return t;
}

const struct far_identities *
far_donor_table_identities (const FarDonorTable *t) {
  return t->identities;
}

guint
far_donor_table_count (const FarDonorTable *t) {
  return t->count;
}

const FarDonorOptions *
far_donor_table_options (const FarDonorTable *t) {
  return t->donors;
}

/* ---- those that leave ---- */

static gboolean
on_restart (gpointer data) {
  FarDonorTable *t = data;

  source_clear (&t->restart_source);
  t->op->leave (t->op, FAR_EXIT_RESTART);
  return G_SOURCE_REMOVE;
}

static void
restart_soon (FarDonorTable *t) {
  if (!t->restart_source)
    t->restart_source = source_timeout (RESTART_MS, on_restart, t);
}

/* Nothing is there any more, or nothing that anybody needs and it can't be reached to be told so. */
static gboolean
can_go (FarCopies *copies, guint number) {
  FarDonorFigures donor;
  FarCopiesFigures all;

  far_copies_donor_figures (copies, number, &donor);
  if (donor.valid + donor.suspect + donor.old == 0)
    return TRUE;
  if (donor.state != COPIES_DONOR_GONE)
    return FALSE;
  far_copies_figures (copies, &all);
  for (guint d = 0; d < all.n_donors; d++) {
    far_copies_donor_figures (copies, d, &donor);
    if (donor.name && donor.state == COPIES_DONOR_AWAY)
      return FALSE; /* it may turn out to have lost what this one still has */
  }
  return all.endangered == 0 && !all.repairing;
}

static void
one_ended (gpointer data, gboolean ok) {
  FarDonorTable *t = data;
  const struct far_donor_slot none = { .state = FAR_DONOR_NONE };

  if (--t->end_left)
    return;
  g_message ("%s: donor %s has left", t->options->name, t->donors[t->end_number].name);
  commit (t, t->end_number, &none);
  restart_soon (t);
}

static gboolean
on_look (gpointer data) {
  FarDonorTable *t = data;

  for (guint d = 0; d < t->count && !t->ending && !t->restart_source && !t->op->ending; d++) {
    gboolean ready = t->donors[d].name && t->donors[d].leaves;

    for (unsigned i = 0; ready && i < t->options->n_disks; i++)
      ready = !t->op->copies[i] || can_go (t->op->copies[i], d);
    if (!ready)
      continue;
    t->ending = TRUE;
    t->end_number = d;
    for (unsigned i = 0; i < t->options->n_disks; i++)
      t->end_left += t->op->copies[i] != NULL;
    for (unsigned i = 0; i < t->options->n_disks; i++)
      if (t->op->copies[i])
        far_copies_donor_end (t->op->copies[i], d, END_MS, one_ended, t);
  }
  return G_SOURCE_CONTINUE;
}

static void
look_after (FarDonorTable *t) {
  gboolean any = FALSE;

  for (guint d = 0; d < t->count; d++)
    any |= t->donors[d].name && t->donors[d].leaves;
  if (!any)
    source_clear (&t->look_source);
  else if (!t->look_source)
    t->look_source = source_timeout (LOOK_MS, on_look, t);
}

void
far_donor_table_start (FarDonorTable *t, FarOperator *op) {
  t->op = op;
  look_after (t);
}

/* ---- commands ---- */

G_GNUC_PRINTF (3, 4)
static gboolean
refuse (GError **error, DomybsError code, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, DOMYBS_ERROR, code, "%s", text);
  return FALSE;
}

static gboolean
can_change (const FarDonorTable *t, GError **error) {
  gboolean any = FALSE;

  for (unsigned i = 0; i < t->options->n_disks; i++)
    any |= t->op->copies[i] != NULL;
  if (!any)
    return refuse (error, DOMYBS_ERROR_IN_USE,
                   "its far disks keep copies in storage only; donors come with the VM's next start");
  if (!t->table)
    return refuse (error, DOMYBS_ERROR_IN_USE,
                   "it was started by an older version; its donors change with the VM's next start");
  if (t->op->ending)
    return refuse (error, DOMYBS_ERROR_IN_USE, "the VM has ended");
  if (t->ending || t->restart_source)
    return refuse (error, DOMYBS_ERROR_IN_USE, "its donors are being changed; do it again in a moment");
  return TRUE;
}

/* A string of 1 to bytes − 1 bytes without blanks or controls, copied; "" where it is optional and missing. */
static gboolean
take_text (JsonObject *arguments, const char *name, gboolean optional, char *to, gsize bytes, GError **error) {
  JsonNode *node = json_object_get_member (arguments, name);
  const char *text = node && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING
                         ? json_node_get_string (node)
                         : NULL;

  to[0] = 0;
  if (!node && optional)
    return TRUE;
  for (const char *p = text; p && *p; p++)
    if ((guchar)*p <= ' ' || *p == 0x7f)
      text = NULL;
  if (!text || !*text || g_strlcpy (to, text, bytes) >= bytes)
    return refuse (error, DOMYBS_ERROR_USAGE, "argument '%s' must be a text of 1 to %zu bytes without blanks", name, bytes - 1);
  return TRUE;
}

static gboolean
take_key (JsonObject *arguments, struct far_donor_key *key, GError **error) {
  char digits[2 * sizeof key->key + 1];
  gsize n;

  if (!take_text (arguments, "identity", TRUE, key->identity, sizeof key->identity, error)
      || !take_text (arguments, "key", TRUE, digits, sizeof digits, error)) {
    explicit_bzero (digits, sizeof digits);
    return FALSE;
  }
  n = strspn (digits, "0123456789abcdefABCDEF");
  if (!key->identity[0] != !n || digits[n] || n % 2 || (n && n < 32)) {
    explicit_bzero (digits, sizeof digits);
    return refuse (error, DOMYBS_ERROR_USAGE,
                   "arguments 'identity' and 'key' go together; a key is 32 to 128 hexadecimal digits");
  }
  for (gsize i = 0; i < n / 2; i++)
    key->key[i] = (uint8_t)(g_ascii_xdigit_value (digits[2 * i]) << 4 | g_ascii_xdigit_value (digits[2 * i + 1]));
  key->bytes = (uint32_t)(n / 2);
  explicit_bzero (digits, sizeof digits);
  return TRUE;
}

static gboolean
take_bytes (JsonObject *arguments, uint64_t *ret_bytes, GError **error) {
  JsonNode *node = json_object_get_member (arguments, "bytes");
  gint64 value;

  *ret_bytes = UINT64_MAX;
  if (!node)
    return TRUE;
  value = JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_INT64 ? json_node_get_int (node) : 0;
  *ret_bytes = (uint64_t)value;
  return value >= (gint64)BLOCK_BYTES || refuse (error, DOMYBS_ERROR_USAGE, "argument 'bytes' must be 2097152 or more");
}

/* On a private copy; what is asked for is looked at nowhere else. */
static gboolean
take_slot (JsonObject *arguments, struct far_donor_slot *slot, GError **error) {
  struct sockaddr_storage address;
  socklen_t bytes;

  *slot = (struct far_donor_slot){ .state = FAR_DONOR_THERE };
  if (!take_text (arguments, "name", FALSE, slot->name, sizeof slot->name, error)
      || !take_text (arguments, "address", FALSE, slot->address, sizeof slot->address, error)
      || !take_text (arguments, "domain", TRUE, slot->domain, sizeof slot->domain, error)
      || !take_key (arguments, &slot->key, error) || !take_bytes (arguments, &slot->bytes_max, error))
    return FALSE;
  if (!far_donor_name_is_good (slot->name))
    return refuse (error, DOMYBS_ERROR_USAGE, "argument 'name' must be letters, digits, '.', '_' and '-'");
  if (!slot->domain[0])
    g_strlcpy (slot->domain, slot->name, sizeof slot->domain);
  return tcp_parse (slot->address, &address, &bytes, error);
}

/* Its number, or that of a free one, which has been free since this worker's start; -1 with error. */
static int
find_place (const FarDonorTable *t, const struct far_donor_slot *slot, GError **error) {
  const struct far_donor_slot *all = slots (t);
  int free_number = -1;

  for (int d = 0; d < (int)COPIES_DONORS_MAX; d++) {
    const gboolean is_there = all[d].state == FAR_DONOR_THERE || all[d].state == FAR_DONOR_LEAVES;

    if (!is_there) {
      if (free_number < 0 && !t->donors[d].name)
        free_number = d;
      continue;
    }
    if (strcmp (all[d].name, slot->name) == 0) {
      if (strcmp (all[d].address, slot->address) == 0)
        return d;
      refuse (error, DOMYBS_ERROR_IN_USE, "it has a donor '%s' at %s%s", slot->name, all[d].address,
              all[d].state == FAR_DONOR_LEAVES ? ", which is still leaving" : "; remove that one first");
      return -1;
    }
    if (strcmp (all[d].address, slot->address) == 0) {
      refuse (error, DOMYBS_ERROR_IN_USE, "%s is the address of its donor '%s'", slot->address, all[d].name);
      return -1;
    }
  }
  if (free_number < 0)
    refuse (error, DOMYBS_ERROR_IN_USE, "it has %u donors, which is the most; remove one first", COPIES_DONORS_MAX);
  return free_number;
}

static JsonNode *
answer (gboolean changed) {
  g_autoptr (JsonBuilder) builder = json_builder_new ();

  json_builder_begin_object (builder);
  add_bool (builder, "changed", changed);
  json_builder_end_object (builder);
  return json_builder_get_root (builder);
}

/* Live, too: it need not be told again. */
static void
set_leaves (FarDonorTable *t, guint number, gboolean leaves) {
  t->donors[number].leaves = leaves;
  for (unsigned i = 0; i < t->options->n_disks; i++)
    if (t->op->copies[i])
      far_copies_donor_leaves (t->op->copies[i], number, leaves);
  look_after (t);
}

static gboolean
same_but_state (const struct far_donor_slot *a, const struct far_donor_slot *b) {
  return strcmp (a->domain, b->domain) == 0 && strcmp (a->key.identity, b->key.identity) == 0 && a->key.bytes == b->key.bytes
         && memcmp (a->key.key, b->key.key, sizeof a->key.key) == 0 && a->bytes_max == b->bytes_max;
}

JsonNode *
far_donor_table_add (FarDonorTable *t, JsonObject *arguments, GError **error) {
  struct far_donor_slot slot;
  gboolean changed = FALSE, is_new;
  int number;

  if (!can_change (t, error) || !take_slot (arguments, &slot, error) || (number = find_place (t, &slot, error)) < 0) {
    explicit_bzero (&slot, sizeof slot);
    return NULL;
  }
  is_new = slots (t)[number].state == FAR_DONOR_NONE || !same_but_state (&slots (t)[number], &slot);
  changed = is_new || slots (t)[number].state != FAR_DONOR_THERE;
  if (changed)
    commit (t, (guint)number, &slot);
  if (is_new)
    restart_soon (t);
  else if (changed)
    set_leaves (t, (guint)number, FALSE);
  explicit_bzero (&slot, sizeof slot);
  return answer (changed);
}

JsonNode *
far_donor_table_remove (FarDonorTable *t, JsonObject *arguments, GError **error) {
  char name[FAR_DONOR_NAME_BYTES_MAX + 1];

  if (!can_change (t, error) || !take_text (arguments, "name", FALSE, name, sizeof name, error))
    return NULL;
  for (guint d = 0; d < COPIES_DONORS_MAX; d++) {
    struct far_donor_slot slot = slots (t)[d];
    const gboolean is_it = (slot.state == FAR_DONOR_THERE || slot.state == FAR_DONOR_LEAVES) && strcmp (slot.name, name) == 0,
                   changed = slot.state == FAR_DONOR_THERE;

    slot.state = FAR_DONOR_LEAVES;
    if (is_it && changed)
      commit (t, d, &slot);
    explicit_bzero (&slot, sizeof slot);
    if (!is_it)
      continue;
    set_leaves (t, d, TRUE);
    return answer (changed);
  }
  return answer (FALSE);
}
