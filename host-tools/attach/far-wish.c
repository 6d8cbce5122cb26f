/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/far-wish.h"
#include "ctl/text.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

void
far_wish_clear (FarWish *wish) {
  g_clear_pointer (&wish->storage, g_free);
}

gboolean
far_wish_is_any (const FarWish *wish) {
  return wish->have_bytes || wish->storage || wish->compress || wish->no_compress || wish->have_wear || wish->have_protection;
}

/* ---- the options ---- */

G_GNUC_PRINTF (3, 4)
static gboolean
usage (Ctl *ctl, GError **error, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, CTL_ERROR, CTL_ERROR_USAGE, "%s: %s", ctl->command, text);
  return FALSE;
}

/* "shared=8G" */
static gboolean
read_disk (Ctl *ctl, const char *disk, FarWish *wish, GError **error) {
  const char *size = strchr (disk, '=');
  const gsize length = size ? (gsize)(size - disk) : strlen (disk);

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const char *name = domain_far_tier_name (tier);

    if (strlen (name) != length || memcmp (name, disk, length) != 0)
      continue;
    if (!size)
      break;
    if (wish->bytes[tier])
      return usage (ctl, error, "--far: '%s' is there twice", name);
    if (!ctl_parse_size ("--far", size + 1, &wish->bytes[tier], error))
      return FALSE;
    if (wish->bytes[tier] < DOMAIN_FAR_BYTES_MIN || wish->bytes[tier] > DOMAIN_FAR_BYTES_MAX)
      return usage (ctl, error, "--far: %s is not between 64M and 16T", disk);
    return TRUE;
  }
  return usage (ctl, error, "--far: '%s' is neither shared=SIZE nor remote=SIZE, mem-shared=SIZE or mem-remote=SIZE", disk);
}

static gboolean
read_wear (Ctl *ctl, const char *wear, FarWish *wish, GError **error) {
  wish->have_wear = wear != NULL;
  if (!wear || strcmp (wear, "none") == 0)
    return TRUE;
  if (!ctl_parse_size ("--far-wear", wear, &wish->wear_bytes, error))
    return FALSE;
  return (wish->wear_bytes >= DOMAIN_FAR_WEAR_BYTES_MIN && wish->wear_bytes <= DOMAIN_FAR_WEAR_BYTES_MAX)
         || usage (ctl, error, "--far-wear: %s is neither none nor between 64M and 1024T", wear);
}

gboolean
far_wish_read (Ctl *ctl, const char *far, const char *storage, const char *wear, const char *protection, FarWish *wish,
               GError **error) {
  g_auto (GStrv) disks = far && strcmp (far, "none") != 0 ? g_strsplit (far, ",", -1) : NULL;

  wish->have_bytes = far != NULL;
  for (char **disk = disks; disk && *disk; disk++)
    if (!read_disk (ctl, *disk, wish, error))
      return FALSE;
  if (far && !*far)
    return usage (ctl, error, "--far: it is empty; use shared=8G,remote=32G or the like, or none");
  if (wish->compress && wish->no_compress)
    return usage (ctl, error, "--far-compress and --no-far-compress are opposites");
  if (!read_wear (ctl, wear, wish, error))
    return FALSE;
  wish->have_protection = protection != NULL;
  if (protection && !domain_far_protection_parse (protection, &wish->protection))
    return usage (ctl, error, "--far-protection: '%s' is none of ssd, mirror, storage, default", protection);
  if (!storage)
    return TRUE;
  wish->storage = strstr (storage, "://") ? g_strdup (storage) : g_canonicalize_filename (storage, NULL);
  if (!*storage || !domain_far_storage_is_valid (wish->storage))
    return usage (ctl, error, "--far-storage: '%s' is neither a path without commas nor an NBD URI (nbd://…)", storage);
  return TRUE;
}

gboolean
far_wish_apply (const FarWish *wish, const DomainFar *base, DomainFar *ret_far, GError **error) {
  const char *storage = wish->storage ? wish->storage : base ? base->storage : FAR_STORAGE_DEFAULT;
  DomainFar far = {
    .compress = wish->compress || (!wish->no_compress && base && base->compress),
    .wear_bytes = wish->have_wear ? wish->wear_bytes
                  : base          ? base->wear_bytes
                                  : 0,
    .protection = wish->have_protection ? wish->protection
                  : base                ? base->protection
                                        : DOMAIN_FAR_PROTECTION_DEFAULT,
  };

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++)
    far.bytes[tier] = wish->have_bytes ? wish->bytes[tier] : base ? base->bytes[tier] : 0;
  if (!wish->have_bytes && !base && far_wish_is_any (wish)) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "no far disk is attached to it; use --far, too");
    return FALSE;
  }
  far.storage = g_strdup (storage);
  *ret_far = far;
  return TRUE;
}

/* ---- the storage ---- */

G_GNUC_PRINTF (3, 4)
static gboolean
refuse (GError **error, const DomainFar *far, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "the far storage %s %s", far->storage, text);
  return FALSE;
}

static unsigned
count_disks (const DomainFar *far, guint64 *ret_bytes) {
  unsigned n = 0;

  *ret_bytes = 0;
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    n += far->bytes[tier] != 0;
    *ret_bytes += far->bytes[tier];
  }
  return n;
}

/* Sparse files: more may be promised than there is, and that is the operator's to know. */
static char *
room_warning (const DomainFar *far, const char *where, guint64 bytes) {
  g_autofree char *wanted = text_size_short (bytes), *there = NULL;
  struct statvfs fs;
  guint64 room;

  if (statvfs (where, &fs) < 0)
    return NULL;
  room = (guint64)fs.f_bavail * fs.f_frsize;
  if (room >= bytes)
    return NULL;
  there = text_size_short (room);
  return g_strdup_printf ("the far disks may need %s in %s, which has %s free now", wanted, far->storage, there);
}

gboolean
far_storage_check (const DomainFar *far, char **ret_warning, GError **error) {
  g_autofree char *parent = NULL;
  struct stat st, parent_st;
  guint64 bytes;
  const unsigned n = count_disks (far, &bytes);
  gboolean there;

  *ret_warning = NULL;
  if (n == 0 || domain_far_storage_is_nbd (far->storage))
    return TRUE;
  there = stat (far->storage, &st) == 0;
  if (there && S_ISDIR (st.st_mode)) {
    *ret_warning = room_warning (far, far->storage, bytes);
    return TRUE;
  }
  if (!there && errno != ENOENT)
    return refuse (error, far, "can't be looked at: %s; name another one with --far-storage", g_strerror (errno));
  if (!there && strcmp (far->storage, FAR_STORAGE_DEFAULT) == 0)
    return TRUE;
  if (n > 1)
    return refuse (error, far, "is %s; two far disks need a folder, name one with --far-storage",
                   there ? "one file" : "not there");
  if (there)
    return S_ISREG (st.st_mode) || S_ISBLK (st.st_mode)
           || refuse (error, far, "is neither a folder, a file nor a block device; name another one with --far-storage");
  parent = g_path_get_dirname (far->storage);
  if (stat (parent, &parent_st) < 0 || !S_ISDIR (parent_st.st_mode))
    return refuse (error, far, "is not there, nor the folder it would be in; make it, or name another one with --far-storage");
  *ret_warning = room_warning (far, parent, bytes);
  return TRUE;
}

/* ---- saying what there is ---- */

char *
far_describe (const DomainFar *far) {
  GString *text = NULL;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_autofree char *size = text_size (far->bytes[tier]);

    if (!far->bytes[tier])
      continue;
    if (text)
      g_string_append (text, ", ");
    else
      text = g_string_new (NULL);
    g_string_append_printf (text, "%s %s", domain_far_tier_name (tier), size);
  }
  if (!text)
    return NULL;
  g_string_append_printf (text, " in %s%s", far->storage, far->compress ? ", compressed" : "");
  if (far->wear_bytes) {
    g_autofree char *wear = text_size (far->wear_bytes);

    g_string_append_printf (text, ", %s written a day each at most", wear);
  }
  if (far->protection)
    g_string_append_printf (text, ", protection %s", domain_far_protection_name (far->protection));
  return g_string_free (text, FALSE);
}

void
far_json (Ctl *ctl, const DomainFar *far) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_begin_object (builder);
  ctl_json_bytes (ctl, "shared-bytes", far->bytes[DOMAIN_FAR_SHARED]);
  ctl_json_bytes (ctl, "remote-bytes", far->bytes[DOMAIN_FAR_REMOTE]);
  ctl_json_bytes (ctl, "mem-shared-bytes", far->bytes[DOMAIN_FAR_MEM_SHARED]);
  ctl_json_bytes (ctl, "mem-remote-bytes", far->bytes[DOMAIN_FAR_MEM_REMOTE]);
  ctl_json_string (ctl, "storage", far->storage);
  ctl_json_bool (ctl, "compress", far->compress);
  ctl_json_bytes (ctl, "wear-bytes", far->wear_bytes);
  ctl_json_string (ctl, "protection", domain_far_protection_name (far->protection));
  json_builder_end_object (builder);
}
