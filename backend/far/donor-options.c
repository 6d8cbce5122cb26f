/* SPDX-License-Identifier: GPL-2.0-or-later */
/* --donor: the neighbours that lend memory, by configuration. */
#include "far/options.h"
#include "core/size.h"
#include "io/option-values.h"
#include "io/psk-keys.h"

#include <string.h>

#define THERE_ARE "there are: address, psk, identity, tls, domain, size"

gboolean
far_donor_name_is_good (const char *name) {
  const size_t n = strspn (name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

  return n > 0 && n <= FAR_DONOR_NAME_BYTES_MAX && !name[n];
}

static gboolean
take (char **where, const char *value) {
  g_free (*where);
  *where = g_strdup (value);
  return TRUE;
}

static gboolean
understand_part (const char *part, FarDonorChoice *donor, GError **error) {
  g_auto (GStrv) pair = g_strsplit (part, "=", 2);
  const char *name = pair[0], *value = pair[0] ? pair[1] : NULL;

  if (!value || !value[0])
    return option_usage (error, "--donor %s: '%s' is no NAME=VALUE; " THERE_ARE, donor->name, part);
  if (g_str_equal (name, "address"))
    return take (&donor->address, value);
  if (g_str_equal (name, "psk"))
    return take (&donor->psk_path, value);
  if (g_str_equal (name, "identity"))
    return take (&donor->identity, value);
  if (g_str_equal (name, "domain"))
    return take (&donor->domain, value);
  if (g_str_equal (name, "tls")) {
    donor->no_tls = g_str_equal (value, "off");
    return donor->no_tls || g_str_equal (value, "on")
           || option_usage (error, "--donor %s: tls='%s' is neither on nor off", donor->name, value);
  }
  if (g_str_equal (name, "size"))
    return (size_parse (value, &donor->bytes_max) && donor->bytes_max >= FAR_SEGMENT_BYTES)
           || option_usage (error, "--donor %s: size='%s' is no size of 2M or more; write for example 512M or 16G", donor->name,
                            value);
  return option_usage (error, "--donor %s: there is no '%s'; " THERE_ARE, donor->name, name);
}

gboolean
far_donor_option (const char *text, FarOptions *options, GError **error) {
  FarDonorChoice *donor = &options->donors[options->n_donors];
  g_auto (GStrv) parts = far_option_split (text);

  if (options->n_donors == COPIES_DONORS_MAX)
    return option_usage (error, "--donor: there are more than %u", COPIES_DONORS_MAX);
  options->n_donors++; /* what it has is freed with the options from now on */
  if (!far_donor_name_is_good (parts[0]))
    return option_usage (error, "--donor: '%s' is no name of a donor; write at most %u letters, digits, '.', '_' and '-'",
                         parts[0], FAR_DONOR_NAME_BYTES_MAX);
  donor->name = g_strdup (parts[0]);
  donor->bytes_max = UINT64_MAX;
  for (char **part = parts + 1; *part; part++)
    if (!understand_part (*part, donor, error))
      return FALSE;
  if (!donor->address)
    return option_usage (error, "--donor %s: address=HOST:PORT is missing", donor->name);
  if (!donor->psk_path && !donor->no_tls)
    return option_usage (
        error, "--donor %s: psk=FILE is missing, with the key (a line IDENTITY:HEXKEY); tls=off goes without, for measurements",
        donor->name);
  if (donor->psk_path && donor->no_tls)
    return option_usage (error, "--donor %s: psk= and tls=off can't be used together", donor->name);
  if (!donor->domain)
    donor->domain = g_strdup (donor->name);
  if (strlen (donor->domain) >= sizeof ((struct far_donor_slot *)NULL)->domain
      || strlen (donor->address) >= sizeof ((struct far_donor_slot *)NULL)->address)
    return option_usage (error, "--donor %s: its address or domain has more than 127 bytes", donor->name);
  for (unsigned i = 0; i + 1 < options->n_donors; i++)
    if (g_str_equal (options->donors[i].name, donor->name) || g_str_equal (options->donors[i].address, donor->address))
      return option_usage (error, "--donor %s: it has the name or the address of another one", donor->name);
  return TRUE;
}

void
far_donor_choice_clear (FarDonorChoice *donor) {
  g_free (donor->name);
  g_free (donor->address);
  g_free (donor->domain);
  g_free (donor->psk_path);
  g_free (donor->identity);
}

gboolean
far_donor_key (const FarDonorChoice *donor, struct far_donor_key *ret_key, GError **error) {
  g_autoptr (PskKeys) keys = NULL;
  const char *identity;
  const guint8 *key;
  gsize bytes;

  if (donor->no_tls)
    return TRUE;
  keys = psk_keys_load (donor->psk_path, error);
  if (!keys)
    return FALSE;
  identity = donor->identity ? donor->identity : psk_keys_count (keys) ? psk_keys_identity (keys, 0) : NULL;
  if (!identity || !psk_keys_find (keys, identity, &key, &bytes))
    return option_usage (error, "--donor %s: there is no key of '%s' in %s", donor->name, identity ? identity : "anybody",
                         donor->psk_path);
  g_strlcpy (ret_key->identity, identity, sizeof ret_key->identity);
  memcpy (ret_key->key, key, bytes);
  ret_key->bytes = (uint32_t)bytes;
  return TRUE;
}
