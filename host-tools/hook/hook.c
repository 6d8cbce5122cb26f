/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What libvirt calls at the turns of a domain's life: NAME OPERATION SUBOPERATION EXTRA, the domain's live XML on stdin
 * (https://libvirt.org/hooks.html). Two of them matter:
 *
 * - start begin: all is prepared and labelled, QEMU is not started yet, be it for a start, a restore or an incoming
 *   migration. The back-end, domybs-far and those of the objects must listen when QEMU is. Failing here makes libvirt refuse
 * the start, with our line in its message: a VM never starts silently without its memory, nor beside what would pin all of it.
 * Not at `prepare begin`, whose XML does not say yet as whom QEMU will run.
 * - release end: QEMU is gone, whatever way. The back-end went with it, its folder goes now. libvirtd catches up on it when it
 *   comes back after a QEMU died. Failing here changes nothing for libvirt, which only logs it.
 *
 * The others are nothing to us and succeed at once, above all `reconnect` (libvirtd was restarted: the back-end runs on;
 * failing would kill the VM), `started` and `stopped`. Restore and migration are not possible with this device; QEMU says so
 * itself.
 *
 * libvirt holds the domain's job meanwhile: calling it from here would wait for ever. So this reads nothing but what it was
 * given. It writes nothing to stdout, which is the XML of the next hook in some operations.
 */
#include "domain/domain.h"
#include "error.h"
#include "host/launch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* libvirt's own limit for a domain's XML is 10 MiB. */
#define XML_BYTES_MAX (16u << 20)

/* What fits of stdin. */
static char *
read_xml (void) {
  g_autoptr (GString) xml = g_string_new (NULL);
  char part[16384];
  ssize_t n;

  while (xml->len < XML_BYTES_MAX && (n = read (STDIN_FILENO, part, sizeof part)) > 0)
    g_string_append_len (xml, part, n);
  return g_string_free (g_steal_pointer (&xml), FALSE);
}

/* All of them, whatever comes of the first. */
static gboolean
stop (const char *uuid, GError **error) {
  gboolean ok = launch_objects_stop (uuid, error);

  ok = launch_far_stop (uuid, ok ? error : NULL) && ok;
  return launch_stop (uuid, ok ? error : NULL) && ok;
}

static gboolean
start (const char *xml, const DomainIdentity *identity, GError **error) {
  g_autofree char *dac_label = domain_read_dac_label (xml);
  g_autoptr (GError) reason = NULL;
  g_auto (DomainFar) far = { 0 };
  DomainObjects objects = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];
  DomainMemory memory;
  /* present FALSE: only the port is there; hot plug starts a back-end */
  const gboolean has_device = domain_read_memory (xml, &memory, &reason), has_memory = has_device && memory.present,
                 has_far = !reason && domain_read_far (xml, &far, queues, &reason),
                 has_objects = !reason && domain_read_objects (xml, &objects, &reason);

  if (reason || !(has_memory || has_far || has_objects) || !domain_check_start (xml, &reason)) {
    const gboolean ok = !reason;

    if (!ok)
      g_propagate_error (error, g_steal_pointer (&reason));
    return ok;
  }
  if ((!has_memory || launch_start (identity, &memory, dac_label, &reason))
      && (!has_far || launch_far_start (identity, &far, queues, has_device, dac_label, &reason))
      && launch_objects_start (identity, &objects, dac_label, &reason))
    return TRUE;
  stop (identity->uuid, NULL); /* what was started before it; what serves a QEMU is left alone */
  g_propagate_error (error, g_steal_pointer (&reason));
  return FALSE;
}

static gboolean
run (gboolean starts, GError **error) {
  g_autofree char *xml = read_xml ();
  const gboolean ours = strstr (xml, DOMAIN_METADATA_URI) != NULL;
  DomainIdentity identity = { 0 };
  gboolean ok;

  /* Nobody else's VM is kept from starting, or costs more than a look. One that was ours may have lost its metadata since it
   * was started. */
  if (starts && !ours)
    return TRUE;
  if (!domain_read_identity (xml, &identity, ours ? error : NULL))
    return !ours;
  ok = starts ? start (xml, &identity, error) : stop (identity.uuid, error);
  domain_identity_clear (&identity);
  return ok;
}

int
main (int argc, char **argv) {
  g_autoptr (GError) error = NULL;
  gboolean starts, ends;

  if (argc < 4) {
    fprintf (stderr,
             "usage: domybs-hook NAME OPERATION SUBOPERATION [EXTRA], as libvirt calls it, with the domain's XML on stdin\n");
    return 2;
  }
  starts = strcmp (argv[2], "start") == 0 && strcmp (argv[3], "begin") == 0;
  ends = strcmp (argv[2], "release") == 0 && strcmp (argv[3], "end") == 0;
  if (!starts && !ends)
    return EXIT_SUCCESS;
  signal (SIGPIPE, SIG_IGN);
  if (run (starts, &error))
    return EXIT_SUCCESS;
  for (char *p = argv[1]; *p; p++)
    if (g_ascii_iscntrl (*p))
      *p = '?';
  g_strdelimit (error->message, "\n\r", ' ');
  fprintf (stderr, "domybs: domain '%s': %s\n", argv[1], error->message);
  return EXIT_FAILURE;
}
