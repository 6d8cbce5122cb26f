/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back-end process of one VM: started before QEMU (by libvirt's hook) or before a hot plug (by domybsctl), ended with the
 * VM or after a hot unplug. It is nobody's child: it outlives who started it. "The back-end" is its keeper here, which stays as
 * long as QEMU; the workers that do all the work are the keeper's children, come and go, and are for nobody else to start,
 * signal or look for. They have the keeper's arguments and --worker besides, and may be another user's.
 *
 *     RUNDIR/vm/UUID/       0750 root:QEMU's group; above it everything is 0755
 *       backend.sock        0660 root:QEMU's group, for QEMU
 *       control.sock        for root
 *       backend.pid         pid and start time, see process.h
 *     LOGDIR/NAME.log       0640
 * (launch.c; what it shares with domybs-far is in launch-place.h)
 *
 * Back-ends run with --once: each ends by itself when its QEMU has closed the connection. That is what makes it safe to say
 * that a back-end is never ended while its QEMU lives (QEMU would crash), for then nobody has to end one that is connected:
 *  - QEMU killed, with libvirtd running, down, or gone for good: the kernel closes the connection, the back-end goes. The hook
 *    (`release`, which libvirtd makes up for when it starts again) removes the folder; so does the next start of the VM.
 *  - libvirtd restarted or upgraded, the hook called by mistake: a connected back-end with a living QEMU is left alone.
 *  - Hot unplug and plug: the connection ends with chardev-remove, so every plug has a back-end of its own.
 *  - The guest reboots, or libvirt resets it: QEMU keeps the connection.
 * The price is that a connection by somebody else, before QEMU, uses a back-end up; only root and QEMU's group can do that. A
 * back-end that closed the connection itself (QEMU broke the protocol) stays and audits the window; the hook ends it when QEMU
 * is gone.
 *
 * What somebody else listens at in a VM's folder (the systemd units domybs-backend@UUID) is taken as it is and never ended.
 *
 * Starts and stops of one VM exclude each other over all processes of the host, by a lock on a byte of RUNDIR/vm/.lock: no file
 * has to be removed, so none can be removed under somebody who waits for it.
 */
#ifndef DOMYBS_HOST_TOOLS_LAUNCH_H
#define DOMYBS_HOST_TOOLS_LAUNCH_H

#include "domain/domain.h"

/* Compiled in (rundir.c): RUNDIR, LOGDIR, the installed domybs-backend and domybs-far, and the folder for far pages that is
 * made when it is missing. */
const char *launch_rundir (void);
const char *launch_logdir (void);
const char *launch_program (void);
const char *launch_far_program (void);
const char *launch_far_folder (void);
const char *launch_object_folder (void); /* where objects are (object/object.h) */
/* How long to wait where it is said to be ms: just so, but tests have less patience. */
int launch_patience_ms (int ms);

/* Paths of a VM's runtime files; uuid was checked by domain_read_identity. */
char *launch_folder (const char *uuid);
char *launch_socket_path (const char *uuid);  /* for QEMU */
char *launch_control_path (const char *uuid); /* for domybsctl */
char *launch_log_path (const DomainIdentity *identity);

/* Makes the folder and starts the back-end; returns when it listens and its first worker has begun. One that can't begin is
 * an error with its last words, and leaves nothing behind. Does nothing when one runs already with the same options
 * and without a QEMU, or when somebody else listens there. One that is left over from a QEMU that is gone is ended first.
 * dac_label: whom QEMU runs as, see qemu-group.h; may be NULL. CTL_ERROR_REFUSED when it serves a QEMU now. Errors name no
 * object: "its back-end …". */
gboolean launch_start (const DomainIdentity *identity, const DomainMemory *memory, const char *dac_label, GError **error);

/* Ends it (SIGTERM, then SIGKILL after a few seconds) and removes the folder. Fine when there is none, or when it is somebody
 * else's. CTL_ERROR_REFUSED when its QEMU lives and is connected: then nothing is changed, and it will end with QEMU. */
gboolean launch_stop (const char *uuid, GError **error);

/* The same for the process behind the far disks (domybs-far). It has its own sockets, pid file and log beside the back-end's:
 *
 *     RUNDIR/vm/UUID/far-shared.sock and so on for each disk, far-control.sock, far.pid
 *     LOGDIR/NAME.far.log
 *
 * queues: as domain_read_far says, 0 for a disk that is not there. memory_device: the VM has one, whose back-end may come later
 * and may go; it says what the guest wants to have ready. QEMU would wait for it to come back, but what it keeps is lost
 * when it ends; so here, too, one that serves a QEMU is left alone. */
char *launch_far_control_path (const char *uuid);
char *launch_far_log_path (const DomainIdentity *identity);
gboolean launch_far_start (const DomainIdentity *identity, const DomainFar *far, const unsigned queues[DOMAIN_FAR_TIERS],
                           gboolean memory_device, const char *dac_label, GError **error);
gboolean launch_far_stop (const char *uuid, GError **error);
pid_t launch_far_pid (const char *uuid); /* as launch_pid */

/* The same for objects. Each has a domybs-far of its own, so that it can come and go by itself (launch-object.c):
 *
 *     RUNDIR/vm/UUID/object-NAME.sock, object-NAME.control.sock, object-NAME.pid
 *     LOGDIR/NAME.object-NAME.log
 *
 * It keeps nothing that the object's file does not have: where one has died, another one can be started beside a running QEMU,
 * which connects to it by itself. */
#define LAUNCH_OBJECT_CONTROL_SUFFIX ".control.sock"
char *launch_object_path (const char *name); /* its file */
char *launch_object_control_path (const char *uuid, const char *name);
char *launch_object_log_path (const DomainIdentity *identity, const char *name);
/* object->queues: not 0. CTL_ERROR_NOT_FOUND: there is no such object. */
gboolean launch_object_start (const DomainIdentity *identity, const DomainObject *object, const char *dac_label,
                              GError **error);
gboolean launch_object_stop (const char *uuid, const char *name, GError **error);
pid_t launch_object_pid (const char *uuid, const char *name);
/* All that have a disk, or none of them; all that there are. */
gboolean launch_objects_start (const DomainIdentity *identity, const DomainObjects *objects, const char *dac_label,
                               GError **error);
gboolean launch_objects_stop (const char *uuid, GError **error);
/* The objects for which something was started and not stopped. */
void launch_object_list (const char *uuid, DomainObjects *ret_objects);

/* Keeps everybody else from plugging and unplugging this VM's device until the descriptor is closed; the hook's starts and
 * stops go on. Waits half a minute for another one. -1: CTL_ERROR_FAILED. */
int launch_lock_plug (const char *uuid, GError **error);

/* A back-end that was started by us and runs: its pid; else 0. For listing strays: whoever acts on it calls the functions
 * above. */
pid_t launch_pid (const char *uuid);

/* The pid that the last back-end of ours had, which may run or not; 0 when there was none, or its folder has gone with it or
 * can't be read. For words only: another process may have it by now. */
pid_t launch_last_pid (const char *uuid);

#endif
