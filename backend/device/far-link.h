/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The back-end's end of its connection with the VM's domybs-far (far/reserve.h is the other end): tells it how much far memory
 * the guest wants to have ready, and hears how much there is. One of the clients of the control socket, which has said
 * far-serve: from then on it may say nothing but what is here, because who speaks is a process that a guest's requests go
 * through.
 */
#ifndef DOMYBS_DEVICE_FAR_LINK_H
#define DOMYBS_DEVICE_FAR_LINK_H

#include "device/backend.h"
#include "io/control-server.h"

/* The bit of its event among those of the control socket; device/monitor.h has the others. */
#define FAR_LINK_EVENT (1u << 31)

typedef struct FarLink FarLink;

/* Both must outlive it. */
FarLink *far_link_new (Backend *backend, ControlServer *server);
/* Before the server. */
void far_link_free (FarLink *link);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (FarLink, far_link_free)

gboolean far_link_is (const FarLink *link, const ControlClient *client);

/* The commands: far-serve; far-tiers and far-reserved, of the client that said it. */
JsonNode *far_link_serve (FarLink *link, ControlClient *client, GError **error);
JsonNode *far_link_tiers (FarLink *link, ControlClient *client, JsonObject *arguments, GError **error);
JsonNode *far_link_reserved (FarLink *link, ControlClient *client, JsonObject *arguments, GError **error);

#endif
