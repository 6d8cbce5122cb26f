/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Processes that outlive who started them, known again by a pid file. A pid alone proves nothing, it may belong to another
 * process by now. So the file holds the start time, too, and a process counts as ours only if the kernel gives the same start
 * time for it and its command line has the argument that is ours alone; and then it is held by a pidfd, through which alone it
 * is signalled.
 */
#ifndef DOMYBS_HOST_TOOLS_PROCESS_H
#define DOMYBS_HOST_TOOLS_PROCESS_H

#include <glib.h>
#include <sys/types.h>

typedef struct {
  pid_t pid;
  int pidfd;
} Process;

/* Must be set to this before first use. */
#define PROCESS_NONE ((Process){ 0, -1 })
void process_clear (Process *process);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Process, process_clear)

/* The process that the file pid_name in folder_fd names, if it still is the one that was started with this argument. Waits for
 * one that is about to end, so that nothing of it is left when this says that there is none. */
gboolean process_find (int folder_fd, const char *pid_name, const char *argument, Process *ret_process);

/* The pid in that file, whoever has it now; 0: there is none. */
pid_t process_last_pid (int folder_fd, const char *pid_name);

/* Starts argv in a session of its own, as nobody's child, with the environment `environment`, stdin /dev/null, both outputs to
 * log_fd and nothing else open. The pid file is written before the program runs. Returns when it was executed.
 * CTL_ERROR_FAILED. */
gboolean process_spawn (const char *const *argv, const char *const *environment, int log_fd, int folder_fd,
                        const char *pid_name, Process *ret_process, GError **error);

/* Whether it has ended, at the latest after timeout_ms. */
gboolean process_wait (const Process *process, int timeout_ms);

/* SIGTERM; SIGKILL after term_ms. FALSE when even that did not end it within kill_ms (it hangs in the kernel). */
gboolean process_end (const Process *process, int term_ms, int kill_ms);

/* Its command line is exactly argv. */
gboolean process_has_arguments (const Process *process, const char *const *argv);

/* The pid of the running QEMU of the libvirt domain uuid, or of one that was given this socket's path; 0: there is none. */
pid_t process_find_qemu (const char *uuid, const char *socket_path);

#endif
