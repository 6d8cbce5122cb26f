/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/nbd-uri.h"
#include "io/error.h"

#include <netdb.h>
#include <string.h>
#include <sys/un.h>

#define DEFAULT_PORT "10809"

static gboolean
refuse (GError **error, const char *text, const char *why) {
  g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s: %s", text, why);
  return FALSE;
}

static gboolean
take_parameters (NbdUri *uri, const char *query, GError **error) {
  GUriParamsIter iter;
  char *name, *value;
  g_autoptr (GError) bad = NULL;

  g_uri_params_iter_init (&iter, query, -1, "&;", G_URI_PARAMS_NONE);
  while (g_uri_params_iter_next (&iter, &name, &value, &bad)) {
    char **const to = strcmp (name, "socket") == 0             ? &uri->socket
                      : strcmp (name, "tls-psk-file") == 0     ? &uri->psk_file
                      : strcmp (name, "tls-certificates") == 0 ? &uri->certificates
                                                               : NULL;
    const gboolean ok = to && !*to;

    if (ok)
      *to = g_steal_pointer (&value);
    else
      g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_USAGE, "%s: parameter '%s' is %s", uri->text, name,
                   to ? "there twice" : "not known (known are: socket, tls-psk-file, tls-certificates)");
    g_free (name);
    g_free (value);
    if (!ok)
      return FALSE;
  }
  return !bad || refuse (error, uri->text, bad->message);
}

static gboolean
parse (NbdUri *uri, GError **error) {
  g_autoptr (GError) bad = NULL;
  g_autoptr (GUri) parsed = g_uri_parse (uri->text, G_URI_FLAGS_NONE, &bad);
  gboolean is_unix;

  if (!parsed)
    return refuse (error, uri->text, bad->message);
  is_unix = g_str_has_suffix (g_uri_get_scheme (parsed), "+unix");
  uri->tls = g_str_has_prefix (g_uri_get_scheme (parsed), "nbds");
  if (g_uri_get_query (parsed)) {
    /* still with its escapes */
    const char *query = strchr (uri->text, '?') + 1;
    g_autofree char *until_fragment = g_strndup (query, strcspn (query, "#"));

    if (!take_parameters (uri, until_fragment, error))
      return FALSE;
  }
  if (is_unix != (uri->socket != NULL))
    return refuse (error, uri->text, is_unix ? "has no socket=PATH" : "socket=PATH is for nbd+unix:// only");
  if (is_unix && g_uri_get_host (parsed) && *g_uri_get_host (parsed))
    return refuse (error, uri->text, "has a host and a socket (three slashes in nbd+unix:///EXPORT?socket=PATH)");
  if (!is_unix && (!g_uri_get_host (parsed) || !*g_uri_get_host (parsed)))
    return refuse (error, uri->text, "names no host");
  if (!uri->tls && (uri->psk_file || uri->certificates || g_uri_get_userinfo (parsed)))
    return refuse (error, uri->text, "TLS parameters and users are for nbds:// only");
  if (uri->psk_file && uri->certificates)
    return refuse (error, uri->text, "has a PSK file and certificates: one of them is enough");
  if (uri->socket && strlen (uri->socket) >= sizeof ((struct sockaddr_un *)NULL)->sun_path)
    return refuse (error, uri->text, "the socket's path is too long");
  uri->user = g_strdup (g_uri_get_userinfo (parsed));
  uri->host = g_strdup (g_uri_get_host (parsed));
  uri->port = g_uri_get_port (parsed) > 0 ? g_strdup_printf ("%d", g_uri_get_port (parsed)) : g_strdup (DEFAULT_PORT);
  uri->export
      = g_strdup (g_str_has_prefix (g_uri_get_path (parsed), "/") ? g_uri_get_path (parsed) + 1 : g_uri_get_path (parsed));
  return TRUE;
}

NbdUri *
nbd_uri_parse (const char *text, GError **error) {
  NbdUri *uri = g_new0 (NbdUri, 1);

  uri->text = g_strdup (text);
  if (parse (uri, error))
    return uri;
  nbd_uri_free (uri);
  return NULL;
}

void
nbd_uri_free (NbdUri *uri) {
  g_free (uri->text);
  g_free (uri->export);
  g_free (uri->host);
  g_free (uri->port);
  g_free (uri->socket);
  g_free (uri->user);
  g_free (uri->psk_file);
  g_free (uri->certificates);
  g_free (uri);
}

gboolean
nbd_uri_look_up (NbdUri *uri, GError **error) {
  const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
  struct addrinfo *found = NULL;
  int result;

  uri->n_addresses = 0;
  if (uri->socket) {
    struct sockaddr_un *un = (struct sockaddr_un *)&uri->addresses[0].address;

    un->sun_family = AF_UNIX;
    g_strlcpy (un->sun_path, uri->socket, sizeof un->sun_path);
    uri->addresses[0].bytes = sizeof *un;
    uri->n_addresses = 1;
    return TRUE;
  }
  result = getaddrinfo (uri->host, uri->port, &hints, &found);
  if (result != 0) {
    g_set_error (error, DOMYBS_ERROR, DOMYBS_ERROR_FAILED, "can't find host %s: %s", uri->host, gai_strerror (result));
    return FALSE;
  }
  for (const struct addrinfo *a = found; a && uri->n_addresses < NBD_ADDRESSES_MAX; a = a->ai_next)
    if (a->ai_addrlen <= sizeof uri->addresses[0].address) {
      memcpy (&uri->addresses[uri->n_addresses].address, a->ai_addr, a->ai_addrlen);
      uri->addresses[uri->n_addresses++].bytes = a->ai_addrlen;
    }
  freeaddrinfo (found);
  return TRUE;
}
