/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a worker gets connections to the control socket of the VM's memory device: from the keeper, because that socket is open
 * to root and to nobody else, and workers of all VMs are one user. What the worker gets has said far-serve already, and so can
 * say nothing but what a domybs-far is to say (device/far-link.h): whoever takes over a worker can't steer the memory device
 * with it, nor reach that of another VM.
 *
 * A pair of SOCK_SEQPACKET sockets: the worker sends a byte, the keeper answers with struct far_connector_answer and, if that
 * is good, the descriptor. No GLib, allocates nothing, waits for nobody.
 */
#ifndef DOMYBS_FAR_CONNECTOR_H
#define DOMYBS_FAR_CONNECTOR_H

#include <stdbool.h>
#include <stdint.h>

struct far_connector_answer {
  int32_t error; /* 0, or an errno */
};

/* How long a keeper takes no other question after an answer. */
#define FAR_CONNECTOR_PAUSE_MS 20

/* ret_ends[0]: the keeper's, ret_ends[1]: for the worker. */
bool far_connector_pair (int ret_ends[2]);

/* The keeper's end is readable: answers one question. False: there are no more to come. */
bool far_connector_serve (int fd, const char *path);

/* The worker's end. */
bool far_connector_ask (int fd);
/* Takes the answer: a descriptor, or -1 with errno (EAGAIN: there is none yet). */
int far_connector_take (int fd);

#endif
