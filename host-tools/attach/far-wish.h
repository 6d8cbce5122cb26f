/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What `attach` is asked for far disks. */
#ifndef DOMYBS_HOST_TOOLS_FAR_WISH_H
#define DOMYBS_HOST_TOOLS_FAR_WISH_H

#include "ctl/ctl.h"
#include "domain/domain.h"

/* Where far pages go when nothing is said: a folder, made when it is needed, with a file for each disk of a running VM. */
#define FAR_STORAGE_DEFAULT "/var/lib/domybs/far"

typedef struct {
  gboolean have_bytes; /* --far was given; all 0: "none" */
  guint64 bytes[DOMAIN_FAR_TIERS];
  char *storage; /* NULL: not given */
  gboolean compress, no_compress;
  gboolean have_wear;
  guint64 wear_bytes; /* 0: "none" */
  gboolean have_protection;
  DomainFarProtection protection;
} FarWish;

void far_wish_clear (FarWish *wish);

/* Reads the options' texts (NULL: not given). CTL_ERROR_USAGE. */
gboolean far_wish_read (Ctl *ctl, const char *far, const char *storage, const char *wear, const char *protection,
                        FarWish *wish, GError **error);

/* Something was said about far disks. */
gboolean far_wish_is_any (const FarWish *wish);

/* What comes of it where base (NULL: none) is attached; domain_far_is_none: no far disks. CTL_ERROR_REFUSED when there are none
 * that the other options could be about. */
gboolean far_wish_apply (const FarWish *wish, const DomainFar *base, DomainFar *ret_far, GError **error);

/* Whether the storage is there, as far as can be seen from outside; *ret_warning (NULL: none) says what may go wrong.
 * CTL_ERROR_REFUSED. */
gboolean far_storage_check (const DomainFar *far, char **ret_warning, GError **error);

/* "far disks shared 8G, remote 32G in /var/lib/domybs/far"; NULL where there are none. */
char *far_describe (const DomainFar *far);

/* The object "far" (the value, after its name). */
void far_json (Ctl *ctl, const DomainFar *far);

#endif
