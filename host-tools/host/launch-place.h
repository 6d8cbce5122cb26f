/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process of a VM on the host, while the VM is locked: its folder, its pid file, its sockets. What launch.c (the back-end)
 * and launch-far.c have in common; see launch.h for the rules.
 */
#ifndef DOMYBS_HOST_TOOLS_LAUNCH_PLACE_H
#define DOMYBS_HOST_TOOLS_LAUNCH_PLACE_H

#include "host/launch.h"
#include "host/process.h"

/* One for each far disk that a VM can have. */
#define PLACE_SOCKETS_MAX ((unsigned)DOMAIN_FAR_TIERS)

typedef struct {
  const char *what;         /* in messages: "its %s …" */
  const char *pid_name;     /* its pid file in the VM's folder */
  const char *const *files; /* all that it may leave there, NULL-ended */
} PlaceKind;

typedef struct {
  const PlaceKind *kind;
  const char *uuid;
  char *sockets[PLACE_SOCKETS_MAX + 1]; /* that QEMU connects to, NULL-ended */
  char *last_socket; /* the one that it opens last, and so at which it listens when it is ready; NULL: those above tell */
  char *greeter; /* a control socket of its, whose greeting says that it does not only listen, but works; NULL: there is none */
  char *argument; /* no other process has it */
  int vm_fd, lock_fd, folder_fd;
  Process process;
} Place;

#define PLACE_NONE ((Place){ .vm_fd = -1, .lock_fd = -1, .folder_fd = -1, .process = PROCESS_NONE })
void place_clear (Place *place);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Place, place_clear)

/* Locks the VM, opens its folder, and finds the process; sockets, greeter and argument are set before, and taken over. FALSE
 * without error set (make FALSE): there is no folder. */
gboolean place_open (Place *place, const PlaceKind *kind, const char *uuid, gboolean make, GError **error);

/* Somebody else than a process of ours listens, and goes on listening. */
gboolean place_is_foreign (const Place *place);

/* It runs with these arguments, and no QEMU has come yet. */
gboolean place_is_fresh (const Place *place, const char *const *arguments);

/* Starts it, with gid the group of the folder; returns when it is ready. */
gboolean place_start (Place *place, const char *const *arguments, const char *log_path, gid_t gid, GError **error);

/* Ends it, if there is one and it serves no living QEMU. */
gboolean place_end_process (Place *place, GError **error);

/* Removes its files, and the folder if nothing of others is in there. */
gboolean place_remove (const Place *place, GError **error);

/* The VM's name as the programs take it: printable text of 1 to 255 bytes. To be freed. */
char *place_printable_name (const DomainIdentity *identity);

/* LOGDIR/NAME<suffix>. */
char *place_log_path (const DomainIdentity *identity, const char *suffix);

gboolean place_fail_errno (GError **error, const char *doing, const char *path);

/* Takes the lock of launch_lock_plug. */
int place_lock_plug (const char *uuid, GError **error);

#endif
