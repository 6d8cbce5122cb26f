/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "attach/scope.h"

#include <string.h>

gboolean
scope_is_system (ctl_connect_t *connection, GError **error) {
  g_autofree char *uri = virConnectGetURI (connection);

  if (!uri || (!g_str_has_suffix (uri, "/session") && !strstr (uri, "/embed")))
    return TRUE;
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
               "libvirt at '%s': only the system's libvirt has the hook that starts back-ends; use -c qemu:///system", uri);
  return FALSE;
}

gboolean
scope_choose (ctl_domain_t *domain, gboolean live, gboolean config, Scope *ret_scope, GError **error) {
  const char *label = ctl_domain_label (domain);
  const int running = virDomainIsActive (domain), persistent = virDomainIsPersistent (domain);

  if (running < 0 || persistent < 0) {
    g_autofree char *object = g_strdup_printf ("domain '%s'", label);

    return ctl_libvirt_error (error, object, "can't ask for its state", NULL);
  }
  if (live && !running) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': it is not running, so --live has nothing to change; start it, or use --config", label);
    return FALSE;
  }
  if (config && !persistent) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "domain '%s': it is transient and has no configuration to keep; use --live, or define it in libvirt first",
                 label);
    return FALSE;
  }
  *ret_scope = (Scope){
    .live = running && (live || !config),
    .config = persistent && (config || !live),
    .live_asked = live,
    .running = running,
    .persistent = persistent,
  };
  return TRUE;
}

char *
scope_cause (const char *label, const GError *error) {
  g_autofree char *object = g_strdup_printf ("domain '%s': ", label);
  const char *cause = error->message + (g_str_has_prefix (error->message, object) ? strlen (object) : 0);
  const char *end = strstr (cause, "; ");

  return end ? g_strndup (cause, (gsize)(end - cause)) : g_strdup (cause);
}
