/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/ctl.h"
#include "ctl/text.h"

#include <errno.h>
#include <libvirt/virterror.h>
#include <libxml/xmlerror.h>
#include <string.h>

#define URI_DEFAULT "qemu:///system"

static void
say_nothing (void *data, virErrorPtr error) {
}

/* libvirt's test driver reads files with libxml2 in this process, which talks to stderr, too. */
static void
say_nothing_of_xml (void *data, const char *format, ...) {
}

static const char *
wanted_uri (Ctl *ctl) {
  static const char *const variables[] = { "VIRSH_DEFAULT_CONNECT_URI", "LIBVIRT_DEFAULT_URI" };

  if (ctl->uri)
    return ctl->uri;
  for (unsigned i = 0; i < G_N_ELEMENTS (variables); i++) {
    const char *uri = g_getenv (variables[i]);

    if (uri && *uri)
      return uri;
  }
  return URI_DEFAULT;
}

/* Another host's libvirt would show domains whose back-ends we would then look for on this host. */
static gboolean
is_here (const char *text, GError **error) {
  g_autoptr (GUri) uri = g_uri_parse (text, G_URI_FLAGS_NON_DNS | G_URI_FLAGS_ENCODED, NULL);
  const char *host = uri ? g_uri_get_host (uri) : NULL;

  if (!host || !*host || strcmp (host, "localhost") == 0 || strcmp (host, "127.0.0.1") == 0 || strcmp (host, "::1") == 0)
    return TRUE;
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
               "libvirt at '%s': that is another host, and domybsctl works with the processes of its own; run it there "
               "('ssh %s domybsctl …')",
               text, host);
  return FALSE;
}

static CtlErrorCode
error_code (const virError *reason) {
  switch (reason->code) {
  case VIR_ERR_NO_DOMAIN:
    return CTL_ERROR_NOT_FOUND;
  case VIR_ERR_NO_CONNECT:
  case VIR_ERR_AUTH_FAILED:
  case VIR_ERR_AUTH_CANCELLED:
  case VIR_ERR_AUTH_UNAVAILABLE:
  case VIR_ERR_ACCESS_DENIED:
  case VIR_ERR_OPERATION_DENIED:
  case VIR_ERR_INVALID_CONN:
    return CTL_ERROR_ACCESS;
  case VIR_ERR_SYSTEM_ERROR:
    return reason->int1 == EACCES || reason->int1 == EPERM ? CTL_ERROR_ACCESS : CTL_ERROR_FAILED;
  case VIR_ERR_RPC:
  case VIR_ERR_INTERNAL_ERROR:
    /* "client socket is closed", "End of file while reading data": the daemon went away under us. */
    return reason->domain == VIR_FROM_RPC ? CTL_ERROR_ACCESS : CTL_ERROR_FAILED;
  default:
    return CTL_ERROR_FAILED;
  }
}

/* libvirt's last message, on one line and without a full stop. */
static char *
last_message (void) {
  virErrorPtr reason = virGetLastError ();
  char *text = g_strdup (reason && reason->message && *reason->message ? reason->message : "libvirt does not say why");

  g_strdelimit (text, "\n\r\t", ' ');
  g_strchomp (text);
  if (g_str_has_suffix (text, "."))
    text[strlen (text) - 1] = 0;
  return text;
}

gboolean
ctl_libvirt_error (GError **error, const char *object, const char *what, const char *next) {
  virErrorPtr reason = virGetLastError ();
  g_autofree char *text = last_message ();

  g_set_error (error, CTL_ERROR, reason ? error_code (reason) : CTL_ERROR_FAILED, "%s: %s: %s%s%s", object, what, text,
               next ? "; " : "", next ? next : "");
  return FALSE;
}

static const char *
connect_advice (const virError *reason) {
  const int number = reason && reason->code == VIR_ERR_SYSTEM_ERROR ? reason->int1 : 0;

  if (number == EACCES || number == EPERM
      || (reason && error_code (reason) == CTL_ERROR_ACCESS && reason->code != VIR_ERR_NO_CONNECT))
    return "run it as root, or as a user who may manage libvirt";
  if (number == ENOENT || number == ECONNREFUSED)
    return "start libvirt's daemon ('systemctl start libvirtd' or 'virtqemud.socket'), or name another one with -c URI";
  return "check the address (-c URI)";
}

ctl_connect_t *
ctl_connect (Ctl *ctl, CtlAccess access, GError **error) {
  const char *uri = wanted_uri (ctl);
  g_autoptr (ctl_connect_t) connection = NULL;
  g_autofree char *real = NULL;

  virSetErrorFunc (NULL, say_nothing);
  xmlSetGenericErrorFunc (NULL, say_nothing_of_xml);
  if (!is_here (uri, error))
    return NULL;
  connection = virConnectOpenAuth (uri, virConnectAuthPtrDefault, access == CTL_READS ? VIR_CONNECT_RO : 0);
  if (!connection) {
    g_autofree char *text = last_message ();

    g_set_error (error, CTL_ERROR, CTL_ERROR_ACCESS, "libvirt at '%s': can't connect: %s; %s", uri, text,
                 connect_advice (virGetLastError ()));
    return NULL;
  }
  /* An alias of libvirt.conf can lead anywhere. */
  real = virConnectGetURI (connection);
  if (real && !is_here (real, error))
    return NULL;
  return g_steal_pointer (&connection);
}

static gboolean
is_number (const char *text) {
  return *text && strspn (text, "0123456789") == strlen (text) && strlen (text) < 10;
}

ctl_domain_t *
ctl_domain_find (ctl_connect_t *connection, const char *text, GError **error) {
  virDomainPtr domain = virDomainLookupByName (connection, text);
  g_autofree char *uri = NULL;
  virErrorPtr reason;

  if (!domain && virGetLastErrorCode () == VIR_ERR_NO_DOMAIN && g_uuid_string_is_valid (text))
    domain = virDomainLookupByUUIDString (connection, text);
  if (!domain && virGetLastErrorCode () == VIR_ERR_NO_DOMAIN && is_number (text))
    domain = virDomainLookupByID (connection, atoi (text));
  if (domain)
    return domain;
  reason = virGetLastError ();
  if (reason && reason->code != VIR_ERR_NO_DOMAIN && reason->code != VIR_ERR_INVALID_ARG) {
    g_autofree char *object = g_strdup_printf ("domain '%s'", text);

    ctl_libvirt_error (error, object, "can't look it up", NULL);
    return NULL;
  }
  uri = virConnectGetURI (connection);
  g_set_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND,
               "domain '%s': no domain at %s has that name, UUID or id; 'domybsctl list --all' shows those there are", text,
               uri ? uri : "this libvirt");
  return NULL;
}

const char *
ctl_domain_label (ctl_domain_t *domain) {
  const char *name = virDomainGetName (domain);
  g_autofree char *clean = ctl_escape (name ? name : "?");

  return g_intern_string (clean);
}

char *
ctl_domain_xml (ctl_domain_t *domain, unsigned flags, GError **error) {
  char *xml = virDomainGetXMLDesc (domain, flags);

  if (!xml) {
    g_autofree char *object = g_strdup_printf ("domain '%s'", ctl_domain_label (domain));

    ctl_libvirt_error (error, object, "can't read its XML", NULL);
  }
  return xml;
}
