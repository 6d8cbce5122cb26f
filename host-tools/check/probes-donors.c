/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The neighbours that VMs borrow from: whether they are there, and enough for what VMs were promised. */
#include "check/check.h"
#include "ctl/text.h"
#include "ctl/vm.h"
#include "host/donors.h"
#include "io/tcp.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* For all donors together. */
#define CONNECT_MS 1000

/* Sets errnos[i] of each that can't be reached; −1: not to be asked. */
static void
connect_all (GPtrArray *donors, int *errnos) {
  g_autofree struct pollfd *polls = g_new0 (struct pollfd, donors->len);
  const gint64 deadline = g_get_monotonic_time () + CONNECT_MS * 1000;
  guint left = 0;

  for (guint i = 0; i < donors->len; i++) {
    const HostDonor *donor = donors->pdata[i];

    errnos[i] = donor->problem ? -1 : ETIMEDOUT;
    polls[i] = (struct pollfd){ .fd = donor->problem ? -1 : tcp_connect (donor->address, NULL), .events = POLLOUT };
    if (polls[i].fd >= 0)
      left++;
    else if (!donor->problem)
      errnos[i] = ECONNREFUSED;
  }
  while (left && g_get_monotonic_time () < deadline) {
    if (poll (polls, donors->len, (int)((deadline - g_get_monotonic_time ()) / 1000) + 1) <= 0)
      continue;
    for (guint i = 0; i < donors->len; i++)
      if (polls[i].fd >= 0 && polls[i].revents) {
        errnos[i] = tcp_connected (polls[i].fd);
        close (polls[i].fd);
        polls[i].fd = -1;
        left--;
      }
  }
  for (guint i = 0; i < donors->len; i++)
    if (polls[i].fd >= 0)
      close (polls[i].fd);
}

/* How many good ones there are, and how many of them can't fail together. */
static guint
look_at_donors (Check *check, GPtrArray *donors, guint *ret_domains) {
  g_autofree int *errnos = g_new0 (int, donors->len);
  g_autoptr (GHashTable) domains = g_hash_table_new (g_str_hash, g_str_equal);
  guint good = 0;

  connect_all (donors, errnos);
  for (guint i = 0; i < donors->len; i++) {
    const HostDonor *donor = donors->pdata[i];

    if (donor->problem && geteuid () != 0) {
      check_note (check, "run it as root to be sure", "donor '%s': %s", donor->name, donor->problem);
    } else if (donor->problem) {
      g_autofree char *advice = g_strdup_printf ("correct that, or 'domybsctl donor remove %s'", donor->name);

      check_todo (check, advice, "donor '%s': no VM gets it: %s", donor->name, donor->problem);
      continue;
    } else if (errnos[i]) {
      check_todo (check, "see that its host is up and domybs-donor listens there, and what the firewalls between say",
                  "donor '%s': %s can't be reached: %s", donor->name, donor->address, g_strerror (errnos[i]));
    } else {
      check_ok (check, "donor '%s': %s answers, domain '%s'", donor->name, donor->address,
                donor->domain ? donor->domain : donor->name);
    }
    good++;
    g_hash_table_add (domains, donor->domain ? donor->domain : donor->name);
  }
  *ret_domains = g_hash_table_size (domains);
  return good;
}

static void
look_at_protection (Check *check, const char *label, DomainFarProtection protection, guint donors, guint domains) {
  static const char advice[] = "'domybsctl donor add' makes more known; until then there are fewer copies";

  if (protection == DOMAIN_FAR_PROTECTION_MIRROR && domains < 2)
    check_todo (
        check, advice,
        "domain '%s': its protection 'mirror' needs donors of two domains, and there %s %u: a copy is in storage instead",
        label, domains == 1 ? "is" : "are", domains);
  else if (protection == DOMAIN_FAR_PROTECTION_SSD && donors == 0)
    check_todo (check, advice, "domain '%s': its protection 'ssd' needs a donor, and there is none: all is in storage alone",
                label);
}

void
probe_donors (Check *check) {
  g_autoptr (GPtrArray) donors = host_donors_list (), vms = NULL;
  guint domains, good = look_at_donors (check, donors, &domains);

  vms = check->connection && !check->domain ? vm_gather (check->connection, FALSE, NULL) : NULL;
  for (guint i = 0; vms && i < vms->len; i++) {
    const Vm *vm = vms->pdata[i];

    if (vm->have_far || vm->far_pending)
      look_at_protection (check, vm->label, vm->far.protection, good, domains);
  }
  if (check->domain) {
    g_autoptr (Vm) vm = vm_read (check->domain, NULL);

    if (vm && (vm->have_far || vm->far_pending))
      look_at_protection (check, vm->label, vm->far.protection, good, domains);
  }
}
