/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "far/options.h"
#include "core/size.h"
#include "core/wear.h"
#include "io/option-values.h"
#include "io/vhost-user-session.h"

#include <string.h>
#include <sys/un.h>
#include <unistd.h>

#define SPARE_DEFAULT_PERCENT 10u
#define SPARE_MAX_PERCENT 400u
#define STAGE_DEFAULT_BYTES (64ull << 20)
#define QUEUES_DEFAULT 4u
#define GIVE_BACK_DEFAULT_S 10u
#define GIVE_BACK_MAX_S 86400u
#define PREFETCH_DEFAULT_BYTES (4ull << 20)
#define PREFETCH_MIN_BYTES (256ull << 10)
#define PREFETCH_MAX_BYTES (1ull << 30)
/* With "domybs-" before it, it is what the guest sees: 20 bytes. */
#define TIER_BYTES_MAX 13u
#define THERE_ARE "there are: size, socket, storage, queues, spare, prefetch, wear, give-back, protection, memory-slots"

/* Enough for 1 GiB in some seconds, little enough that a fast network has room for what the guest waits for. */
#define REPAIR_RATE_DEFAULT (512ull << 20)
#define REPAIR_RATE_MIN (4ull << 20)
#define AWAY_DEFAULT_S 10
#define AWAY_MAX_S 86400

struct raw {
  char *name, *stage, *socket_group, *socket_mode, *repair_rate;
  int donor_away_s;
  char **disks, **objects, **donors;
  gboolean compress, no_compress, no_seal, standalone;
};

/* It becomes a part of names of devices and files in the guest. */
static gboolean
is_good_tier (const char *tier) {
  const size_t n = strspn (tier, "abcdefghijklmnopqrstuvwxyz0123456789-");

  return n > 0 && n <= TIER_BYTES_MAX && !tier[n] && tier[0] != '-' && tier[n - 1] != '-';
}

static gboolean
get_number (const char *disk, const char *name, const char *text, unsigned min, unsigned max, unsigned *ret_number,
            GError **error) {
  guint64 number;

  if (!g_ascii_isdigit (text[0]) || !g_ascii_string_to_unsigned (text, 10, min, max, &number, NULL))
    return option_usage (error, "--disk %s: %s='%s' is not a whole number from %u to %u", disk, name, text, min, max);
  *ret_number = (unsigned)number;
  return TRUE;
}

char **
far_option_split (const char *text) {
  GPtrArray *parts = g_ptr_array_new ();
  GString *part = g_string_new (NULL);

  for (const char *p = text; *p; p++)
    if (*p != ',') {
      g_string_append_c (part, *p);
    } else if (p[1] == ',') {
      g_string_append_c (part, *p++);
    } else {
      g_ptr_array_add (parts, g_string_free (part, FALSE));
      part = g_string_new (NULL);
    }
  g_ptr_array_add (parts, g_string_free (part, FALSE));
  g_ptr_array_add (parts, NULL);
  return (char **)g_ptr_array_free (parts, FALSE);
}

static gboolean
get_prefetch (const char *text, FarDiskChoice *disk, GError **error) {
  if (!size_parse (text, &disk->prefetch_bytes)
      || (disk->prefetch_bytes && (disk->prefetch_bytes < PREFETCH_MIN_BYTES || disk->prefetch_bytes > PREFETCH_MAX_BYTES)))
    return option_usage (error, "--disk %s: prefetch='%s' is neither 0 nor a size from 256K to 1G", disk->tier, text);
  return TRUE;
}

static gboolean
get_wear (const char *text, FarDiskChoice *disk, GError **error) {
  if (!size_parse (text, &disk->wear_day_bytes)
      || (disk->wear_day_bytes && (disk->wear_day_bytes < WEAR_DAY_BYTES_MIN || disk->wear_day_bytes > WEAR_DAY_BYTES_MAX)))
    return option_usage (error, "--disk %s: wear='%s' is neither 0 nor a size of 64M or more: what may be written to storage in a day",
                         disk->tier, text);
  return TRUE;
}

struct sizes {
  uint64_t bytes;
  unsigned spare_percent;
  gboolean have_size;
};

static gboolean
understand_part (const char *part, FarDiskChoice *disk, struct sizes *sizes, GError **error) {
  const char *value = strchr (part, '=');
  const size_t n = value ? (size_t)(value - part) : 0;

  if (!value || !value[1])
    return option_usage (error, "--disk %s: '%s' is no NAME=VALUE; " THERE_ARE, disk->tier, part);
  value++;
  if (n == 4 && strncmp (part, "size", n) == 0) {
    if (!size_parse (value, &sizes->bytes))
      return option_usage (error, "--disk %s: size='%s' is not a size; write for example 512M, 4G or 1.5T", disk->tier, value);
    sizes->have_size = TRUE;
  } else if (n == 6 && strncmp (part, "socket", n) == 0) {
    g_free (disk->socket_path);
    disk->socket_path = g_strdup (value);
  } else if (n == 7 && strncmp (part, "storage", n) == 0) {
    g_free (disk->storage);
    disk->storage = g_strdup (value);
  } else if (n == 6 && strncmp (part, "queues", n) == 0) {
    return get_number (disk->tier, "queues", value, 1, VHOST_USER_QUEUES_MAX, &disk->n_queues, error);
  } else if (n == 5 && strncmp (part, "spare", n) == 0) {
    return get_number (disk->tier, "spare", value, 0, SPARE_MAX_PERCENT, &sizes->spare_percent, error);
  } else if (n == 8 && strncmp (part, "prefetch", n) == 0) {
    return get_prefetch (value, disk, error);
  } else if (n == 4 && strncmp (part, "wear", n) == 0) {
    return get_wear (value, disk, error);
  } else if (n == 9 && strncmp (part, "give-back", n) == 0) {
    return get_number (disk->tier, "give-back", value, 0, GIVE_BACK_MAX_S, &disk->give_back_s, error);
  } else if (n == 10 && strncmp (part, "protection", n) == 0) {
    disk->has_protection = TRUE;
    return copies_mode_parse (value, &disk->protection)
           || option_usage (error, "--disk %s: protection='%s' is none of ssd, mirror, storage", disk->tier, value);
  } else if (n == 12 && strncmp (part, "memory-slots", n) == 0) {
    if (strcmp (value, "on") != 0 && strcmp (value, "off") != 0)
      return option_usage (error, "--disk %s: memory-slots='%s' is neither on nor off", disk->tier, value);
    disk->mem_slots = value[1] == 'n';
  } else {
    return option_usage (error, "--disk %s: there is no '%.*s'; " THERE_ARE, disk->tier, (int)n, part);
  }
  return TRUE;
}

static gboolean
make_geometry (FarDiskChoice *disk, const struct sizes *sizes, uint64_t stage_bytes, unsigned number, GError **error) {
  const uint64_t block_bytes = (uint64_t)FAR_BLOCK_PAGES * FAR_PAGE_BYTES;
  const char *why;

  if (!sizes->have_size)
    return option_usage (error, "--disk %s: size=SIZE is missing, what the guest may put on it", disk->tier);
  if (sizes->bytes == 0 || sizes->bytes % block_bytes)
    return option_usage (error, "--disk %s: its size is not a multiple of 2M", disk->tier);
  if (sizes->bytes / FAR_PAGE_BYTES > FAR_PAGES_MAX)
    return option_usage (error, "--disk %s: its size is more than 16T; use several disks", disk->tier);
  disk->geometry = (struct far_geometry){
    .n_pages = sizes->bytes / FAR_PAGE_BYTES,
    .n_stage_slots = (uint32_t)(stage_bytes / FAR_SEGMENT_BYTES),
    .device = number,
  };
  disk->geometry.n_places
    = far_store_places_needed (disk->geometry.n_pages, sizes->spare_percent * 10, disk->geometry.n_stage_slots);
  why = far_store_check_geometry (&disk->geometry);
  return why ? option_usage (error, "--disk %s: %s", disk->tier, why) : TRUE;
}

static gboolean
understand_disk (const char *text, uint64_t stage_bytes, FarOptions *options, GError **error) {
  FarDiskChoice *disk = &options->disks[options->n_disks];
  struct sizes sizes = { .spare_percent = SPARE_DEFAULT_PERCENT };
  g_auto (GStrv) parts = far_option_split (text);

  if (options->n_disks == FAR_DISKS_MAX)
    return option_usage (error, "--disk: there are more than %u; start a second domybs-far", FAR_DISKS_MAX);
  options->n_disks++; /* what it has is freed with the options from now on */
  disk->n_queues = QUEUES_DEFAULT;
  disk->give_back_s = GIVE_BACK_DEFAULT_S;
  disk->prefetch_bytes = PREFETCH_DEFAULT_BYTES;
  if (!is_good_tier (parts[0]))
    return option_usage (error, "--disk: '%s' is no name of a disk; write shared, remote, or at most %u of a-z, 0-9 and '-'", parts[0],
                         TIER_BYTES_MAX);
  disk->tier = g_strdup (parts[0]);
  disk->id = g_strdup_printf ("domybs-%s", disk->tier);
  disk->name = g_strdup_printf ("%s/%s", options->name, disk->tier);
  for (char **part = parts + 1; *part; part++)
    if (!understand_part (*part, disk, &sizes, error))
      return FALSE;
  if (!disk->socket_path)
    return option_usage (error, "--disk %s: socket=PATH is missing, where QEMU connects to", disk->tier);
  if (!disk->storage)
    return option_usage (error, "--disk %s: storage= is missing: a file, a block device, or the URI of an NBD export", disk->tier);
  for (unsigned i = 0; i + 1 < options->n_disks; i++) {
    const FarDiskChoice *other = &options->disks[i];

    if (strcmp (other->tier, disk->tier) == 0)
      return option_usage (error, "--disk %s: there are two of that name", disk->tier);
    if (strcmp (other->socket_path, disk->socket_path) == 0 || strcmp (other->storage, disk->storage) == 0)
      return option_usage (error, "--disk %s: it has the socket or the storage of disk %s; each needs its own", disk->tier, other->tier);
  }
  return make_geometry (disk, &sizes, stage_bytes, options->n_disks - 1, error);
}

static gboolean
understand_donors (const struct raw *raw, FarOptions *options, GError **error) {
  options->donor_away_s = (unsigned)raw->donor_away_s;
  if (raw->donor_away_s < 1 || raw->donor_away_s > AWAY_MAX_S)
    return option_usage (error, "--donor-away must be from 1 to %d seconds", AWAY_MAX_S);
  if (!option_size ("repair-rate", raw->repair_rate, REPAIR_RATE_DEFAULT, &options->repair_rate, error))
    return FALSE;
  if (options->repair_rate < REPAIR_RATE_MIN || options->repair_rate > (1ull << 50))
    return option_usage (error, "--repair-rate: '%s' is not a size of 4M or more: bytes in a second", raw->repair_rate);
  for (char **donor = raw->donors; donor && *donor; donor++)
    if (!far_donor_option (*donor, options, error))
      return FALSE;
  for (unsigned i = 0; i < options->n_disks; i++) {
    FarDiskChoice *disk = &options->disks[i];

    if (disk->has_protection && disk->protection != COPIES_STORAGE && options->n_donors == 0 && !options->donors_later)
      return option_usage (error, "--disk %s: protection=%s needs donors: --donor NAME,address=HOST:PORT,psk=FILE", disk->tier,
                           copies_mode_name (disk->protection));
    if (!disk->has_protection)
      disk->protection = options->n_donors ? COPIES_SSD : COPIES_STORAGE;
  }
  return TRUE;
}

static gboolean
understand (const struct raw *raw, FarOptions *options, GError **error) {
  uint64_t stage_bytes;

  if (!raw->name)
    return option_usage (error, "--name is missing: the VM's name, for logs");
  if (!option_is_good_name (raw->name))
    return option_usage (error, "--name must be printable text of 1 to %d bytes", OPTION_NAME_BYTES_MAX);
  options->name = g_strdup (raw->name);
  if (raw->compress && raw->no_compress)
    return option_usage (error, "--compress and --no-compress can't be used together");
  options->pack = raw->compress;
  options->seal = !raw->no_seal;
  if (!option_size ("stage", raw->stage, STAGE_DEFAULT_BYTES, &stage_bytes, error))
    return FALSE;
  if (stage_bytes % FAR_SEGMENT_BYTES || stage_bytes / FAR_SEGMENT_BYTES < FAR_STAGE_SLOTS_MIN
      || stage_bytes / FAR_SEGMENT_BYTES > FAR_STAGE_SLOTS_MAX)
    return option_usage (error, "--stage: '%s' is not a multiple of 2M from %uM to %uM", raw->stage, 2 * FAR_STAGE_SLOTS_MIN,
                         2 * FAR_STAGE_SLOTS_MAX);
  if (options->memory_device && strlen (options->memory_device) >= sizeof ((struct sockaddr_un *)NULL)->sun_path)
    return option_usage (error, "--memory-device: '%s' is longer than a socket's path may be", options->memory_device);
  if ((!raw->disks || !*raw->disks) && (!raw->objects || !*raw->objects))
    return option_usage (error, "--disk is missing; for example --disk shared,size=8G,socket=/run/domybs/vm1.shared,storage=/srv/vm1");
  for (char **disk = raw->disks; disk && *disk; disk++)
    if (!understand_disk (*disk, stage_bytes, options, error))
      return FALSE;
  if (!understand_donors (raw, options, error))
    return FALSE;
  for (char **object = raw->objects; object && *object; object++)
    if (!far_object_option (*object, options, error))
      return FALSE;
  /* A worker has no use for it, and is not to read the host's files. */
  return option_group ("socket-group", options->is_worker ? NULL : raw->socket_group, &options->socket_rights.group, error)
         && option_mode ("socket-mode", raw->socket_mode, &options->socket_rights.mode, error);
}

FarOptions *
far_options_parse (int *argc, char ***argv, GError **error) {
  g_autoptr (FarOptions) options = g_new0 (FarOptions, 1);
  struct raw raw = { .donor_away_s = AWAY_DEFAULT_S };
  const GOptionEntry entries[] = {
    { "name", 0, 0, G_OPTION_ARG_STRING, &raw.name, "The VM's name, for logs", "NAME" },
    { "disk", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw.disks, "A disk of that tier (shared, remote); once for each, see below", "TIER,…" },
    { "object", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw.objects, "A read-only disk of an object; once for each, see below", "NAME,…" },
    { "donor", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw.donors, "A neighbour that lends memory for copies; once for each, see below", "NAME,…" },
    { "donors-later", 0, 0, G_OPTION_ARG_NONE, &options->donors_later, "Disks with a protection start without donors, too, which come later", NULL },
    { "donor-away", 0, 0, G_OPTION_ARG_INT, &raw.donor_away_s, "Make copies elsewhere when a donor can't be reached for so long (10)", "SECONDS" },
    { "repair-rate", 0, 0, G_OPTION_ARG_STRING, &raw.repair_rate, "Copies that are missing are made no faster, in bytes a second (512M)", "SIZE" },
    { "stage", 0, 0, G_OPTION_ARG_STRING, &raw.stage, "Memory of each disk for pages on their way to storage (64M)", "SIZE" },
    { "compress", 0, 0, G_OPTION_ARG_NONE, &raw.compress, "Store pages packed (LZ4) where that makes them a quarter smaller", NULL },
    { "no-compress", 0, 0, G_OPTION_ARG_NONE, &raw.no_compress, "Store pages as they are (the default)", NULL },
    { "no-seal", 0, 0, G_OPTION_ARG_NONE, &raw.no_seal, "Store pages neither encrypted nor authenticated: for measurements", NULL },
    { "control-socket", 0, 0, G_OPTION_ARG_FILENAME, &options->control_path, "Take commands (JSON lines) at this unix socket", "PATH" },
    { "memory-device", 0, 0, G_OPTION_ARG_FILENAME, &options->memory_device,
      "Have far memory ready as the guest asks the VM's domybs-backend for it, whose control socket this is", "PATH" },
    { "socket-group", 0, 0, G_OPTION_ARG_STRING, &raw.socket_group, "Give the disks' sockets to this group (unchanged)", "GROUP" },
    { "socket-mode", 0, 0, G_OPTION_ARG_STRING, &raw.socket_mode, "Their mode, octal, for example 0660 (by the umask)", "MODE" },
    { "standalone", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &raw.standalone, NULL, NULL },
    { "worker", 0, G_OPTION_FLAG_HIDDEN, G_OPTION_ARG_NONE, &options->is_worker, NULL, NULL },
    { "once", 0, 0, G_OPTION_ARG_NONE, &options->once, "End when QEMU has gone", NULL },
    { "version", 0, 0, G_OPTION_ARG_NONE, &options->version, "Print the version and end", NULL },
    G_OPTION_ENTRY_NULL,
  };
  g_autoptr (GOptionContext) context = g_option_context_new ("– far memory for one VM: disks for its pages");
  gboolean ok;

  g_option_context_add_main_entries (context, entries, NULL);
  g_option_context_set_description (
    context, "A disk: TIER,size=SIZE,socket=PATH,storage=FILE-OR-DEVICE-OR-NBD-URI[,queues=N][,spare=PERCENT][,prefetch=SIZE][,wear=SIZE][,give-back=SECONDS][,protection=ssd|mirror|storage][,memory-slots=on]\n"
             "A donor: NAME,address=HOST:PORT,psk=FILE[,identity=IDENTITY][,domain=NAME][,size=SIZE]\n"
             "An object: NAME,file=PATH,socket=PATH[,queues=N][,prefetch=SIZE][,memory-slots=on]\n"
             "Sizes are bytes or have a binary unit: 512M, 4G, 1.5T. SIGTERM ends the program.\n"
             "Example: domybs-far --name vm1 --disk shared,size=64G,socket=/run/domybs/vm1.shared,storage=/srv/far/vm1\n");
  ok = g_option_context_parse (context, argc, argv, error);
  if (ok && *argc > 1)
    ok = option_usage (error, "unknown argument '%s'; see --help", (*argv)[1]);
  if (ok && !options->version)
    ok = understand (&raw, options, error);
  g_free (raw.name);
  g_free (raw.stage);
  g_free (raw.socket_group);
  g_free (raw.socket_mode);
  g_free (raw.repair_rate);
  g_strfreev (raw.donors);
  g_strfreev (raw.disks);
  g_strfreev (raw.objects);
  return ok ? g_steal_pointer (&options) : NULL;
}

void
far_options_free (FarOptions *options) {
  for (unsigned i = 0; i < options->n_disks; i++) {
    FarDiskChoice *disk = &options->disks[i];

    g_free (disk->tier);
    g_free (disk->id);
    g_free (disk->name);
    g_free (disk->socket_path);
    g_free (disk->storage);
  }
  for (unsigned i = 0; i < options->n_objects; i++)
    far_object_choice_clear (&options->objects[i]);
  for (unsigned i = 0; i < options->n_donors; i++)
    far_donor_choice_clear (&options->donors[i]);
  g_free (options->name);
  g_free (options->control_path);
  g_free (options->memory_device);
  g_free (options);
}
