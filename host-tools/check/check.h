/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What `domybsctl check` looks at: each probe is a function that reports what it found, in one or several findings. A finding
 * is fine, or says what to do, or is worth a word without being wrong. Nothing is changed by looking.
 */
#ifndef DOMYBS_HOST_TOOLS_CHECK_H
#define DOMYBS_HOST_TOOLS_CHECK_H

#include "ctl/ctl.h"
#include "domain/domain.h"

typedef enum { CHECK_OK, CHECK_NOTE, CHECK_TODO } CheckVerdict;

typedef struct {
  const char *probe; /* its name, stable: JSON has it */
  CheckVerdict verdict;
  char *text;   /* what was found */
  char *advice; /* what to do; NULL when there is nothing */
} Finding;

typedef struct {
  ctl_connect_t *connection; /* NULL: there is none, and why is known already */
  char *connection_error;
  ctl_domain_t *domain; /* NULL: the host alone is looked at */
  char *emulator;       /* libvirt's default one, or the domain's; NULL: not found */
  char *qemu_config;    /* text of qemu.conf; NULL: can't be read */
  const char *probe;    /* the one that runs */
  GPtrArray *findings;  /* of Finding */
} Check;

typedef struct {
  const char *name;
  void (*run) (Check *check);
} Probe;

void check_ok (Check *check, const char *format, ...) G_GNUC_PRINTF (2, 3);
void check_note (Check *check, const char *advice, const char *format, ...) G_GNUC_PRINTF (3, 4);
void check_todo (Check *check, const char *advice, const char *format, ...) G_GNUC_PRINTF (3, 4);

/* What the host is (probes-host.c). */
void probe_kernel (Check *check);
void probe_kvm (Check *check);
void probe_memory (Check *check);
void probe_huge_pages (Check *check);
void probe_apparmor (Check *check);
void probe_selinux (Check *check);
void probe_programs (Check *check);
void probe_folder (Check *check);
void probe_guests (Check *check);

/* What libvirt and QEMU are (probes-libvirt.c). */
void probe_libvirt (Check *check);
void probe_qemu (Check *check);
void probe_qemu_user (Check *check);
void probe_hook (Check *check);

/* Neighbours that lend memory (probes-donors.c). */
void probe_donors (Check *check);

/* What is running, and one domain (probes-domain.c). */
void probe_strays (Check *check);
void probe_domain (Check *check);

#endif
