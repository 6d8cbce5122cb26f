/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/config.h"

#include <libvirt/virterror.h>
#include <string.h>

#define TRIES_MAX 5

/* With secrets (SECURE): what is defined without them has lost them. */
#define XML_FLAGS (VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE)

void
config_clear (Config *config) {
  g_clear_pointer (&config->before, g_free);
  g_clear_pointer (&config->after, g_free);
  g_clear_pointer (&config->defined, g_free);
  g_clear_pointer (&config->changes, g_ptr_array_unref);
}

gboolean
config_plan (ctl_domain_t *domain, ConfigEdit edit, gpointer data, Config *ret_config, GError **error) {
  g_auto (Config) config = { 0 };

  config.before = ctl_domain_xml (domain, XML_FLAGS, error);
  if (!config.before)
    return FALSE;
  config.changes = g_ptr_array_new_with_free_func (g_free);
  config.after = edit (config.before, data, config.changes, error);
  if (!config.after) {
    g_prefix_error (error, "domain '%s': ", ctl_domain_label (domain));
    return FALSE;
  }
  *ret_config = config;
  config = (Config){ 0 };
  return TRUE;
}

gboolean
config_is_changed (const Config *config) {
  return strcmp (config->before, config->after) != 0;
}

/* Checked against libvirt's schema, unless that fails: then it was something in there that was not to the schema's taste
 * before. What we add is. */
static gboolean
define (ctl_connect_t *connection, ctl_domain_t *domain, const char *xml, GError **error) {
  g_autofree char *object = g_strdup_printf ("domain '%s'", ctl_domain_label (domain));
  virDomainPtr defined = virDomainDefineXMLFlags (connection, xml, VIR_DOMAIN_DEFINE_VALIDATE);

  if (!defined && virGetLastErrorCode () == VIR_ERR_XML_INVALID_SCHEMA)
    defined = virDomainDefineXMLFlags (connection, xml, 0);
  if (!defined)
    return ctl_libvirt_error (error, object, "libvirt does not take the changed XML", "nothing was changed");
  virDomainFree (defined);
  return TRUE;
}

/* Whether the XML is still the same. -1 with error: it can't be read. */
static int
is_still (ctl_domain_t *domain, const char *xml, GError **error) {
  g_autofree char *now = ctl_domain_xml (domain, XML_FLAGS, error);

  return now ? strcmp (now, xml) == 0 : -1;
}

gboolean
config_apply (ctl_connect_t *connection, ctl_domain_t *domain, ConfigEdit edit, gpointer data, Config *config, GError **error) {
  for (int i = 0; i < TRIES_MAX; i++) {
    const int still = is_still (domain, config->before, error);

    if (still < 0)
      return FALSE;
    if (still && !config_is_changed (config))
      return TRUE;
    if (still) {
      if (!define (connection, domain, config->after, error))
        return FALSE;
      config->defined = ctl_domain_xml (domain, XML_FLAGS, NULL);
      return TRUE;
    }
    config_clear (config);
    if (!config_plan (domain, edit, data, config, error))
      return FALSE;
  }
  g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
               "domain '%s': somebody changes its configuration all the time; nothing was changed, try again",
               ctl_domain_label (domain));
  return FALSE;
}

gboolean
config_revert (ctl_connect_t *connection, ctl_domain_t *domain, Config *config, GError **error) {
  const int still = config->defined ? is_still (domain, config->defined, error) : TRUE;

  if (still < 0)
    return FALSE;
  if (!still) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': somebody has changed its configuration since; it stays as it is", ctl_domain_label (domain));
    return FALSE;
  }
  if (config->defined && !define (connection, domain, config->before, error))
    return FALSE;
  g_clear_pointer (&config->defined, g_free);
  return TRUE;
}
