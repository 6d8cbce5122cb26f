/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A libvirt domain on the lab's host, with a test guest in it, and the product's own command line to work on it.
 *
 *     LabDomain *domain = lab_domain_define (xml, NULL);
 *     lab_domain_ctl_ok (domain, "attach", "--window=4G", NULL);
 *     Vm *vm = lab_domain_start (domain);       as tests of VMs know it: vm_run, vm_driver_get, …
 *     lab_domain_stop (domain);
 *     lab_domain_free (domain);
 */
#ifndef DOMYBS_TESTS_LIBVIRT_LAB_DOMAIN_H
#define DOMYBS_TESTS_LIBVIRT_LAB_DOMAIN_H

#include "host.h"

/* On the host, for files of tests. */
#define LAB_DOMAIN_FOLDER "/var/lib/domybs-lab"

typedef struct {
  char *name, *uuid, *series;
  Vm *vm; /* NULL: not started, or its guest was not waited for */
} LabDomain;

/* What is 0 or NULL gets the default. */
typedef struct {
  const char *series;   /* the guest's kernel, see vm_all_series; default "6.12" */
  const char *emulator; /* default: the lab's QEMU */
  guint ram_mib_max;    /* a larger domain is cut down to that; default 512, so that a program soon needs more */
} LabDomainOptions;

/* A plain domain as one writes it by hand: 1 GiB, 2 processors, no NUMA, no shared memory. */
extern const char lab_domain_plain[];

/* Fits the XML to the lab (see adapt.h) and has libvirt define it. options may be NULL. */
LabDomain *lab_domain_define (const char *xml, const LabDomainOptions *options);

/* Ends and undefines it, whatever it does. NULL is fine. */
void lab_domain_free (LabDomain *domain);

/* virsh start. The first waits for the guest's agent, loads the guest driver, and finds the back-end if there is one. */
Vm *lab_domain_start (LabDomain *domain);
HostResult *lab_domain_start_only (LabDomain *domain);

/* virsh destroy; fails the test if the guest's kernel had complained. */
void lab_domain_stop (LabDomain *domain);

/* The test has ended QEMU, or has had it ended: forgets the Vm, as above. */
void lab_domain_has_ended (LabDomain *domain);

/* QEMU, and the back-end, as the outside numbers them; 0: none runs. */
GPid lab_domain_qemu (LabDomain *domain);
GPid lab_domain_backend (LabDomain *domain);

/* After a hot plug or unplug: domain->vm takes note of the back-end that runs now. */
void lab_domain_find_backend (LabDomain *domain);

/* virsh domstate: "running", "shut off". */
char *lab_domain_state (LabDomain *domain);

/* virsh dumpxml --inactive. */
char *lab_domain_xml (LabDomain *domain);

/* domybsctl VERB DOMAIN …; *_ok fails the test at any other status than 0 and returns what it printed. */
HostResult *lab_domain_ctl (LabDomain *domain, const char *verb, ...) G_GNUC_NULL_TERMINATED;
char *lab_domain_ctl_ok (LabDomain *domain, const char *verb, ...) G_GNUC_NULL_TERMINATED;

/* The guest's programs use that much memory, intact; at least so much of it is the host's behind the window. Frees it again. */
void lab_domain_use (LabDomain *domain, guint mib, guint borrowed_mib);

/* The guest makes its far disks swap, with guest-driver/udev/domybs-swap (a test's guest has no udev); anew after each boot. */
void lab_domain_swap_on (LabDomain *domain);

/* Fails the test unless QEMU runs as libvirt's unprivileged user, with its seccomp sandbox on. */
void lab_domain_expect_confined (LabDomain *domain);

#endif
