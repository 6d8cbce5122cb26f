/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The persistent XML of a domain, changed as a whole. libvirt has no "define if it is still that": so the XML is read once more
 * right before it is defined, and where somebody else has changed it meanwhile, their change is taken in and ours made anew.
 */
#ifndef DOMYBS_HOST_TOOLS_CONFIG_H
#define DOMYBS_HOST_TOOLS_CONFIG_H

#include "ctl/ctl.h"

/* XML → XML; appends a sentence for each change to changes. Errors without the object. */
typedef char *(*ConfigEdit) (const char *xml, gpointer data, GPtrArray *changes, GError **error);

typedef struct {
  char *before, *after; /* the same text: nothing is to be changed */
  GPtrArray *changes;   /* of char * */
  char *defined;        /* what libvirt made of it; NULL before it is defined */
} Config;

void config_clear (Config *config);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Config, config_clear)

/* Reads and edits; changes nothing. */
gboolean config_plan (ctl_domain_t *domain, ConfigEdit edit, gpointer data, Config *ret_config, GError **error);
gboolean config_is_changed (const Config *config);

/* Defines it, if it differs. */
gboolean config_apply (ctl_connect_t *connection, ctl_domain_t *domain, ConfigEdit edit, gpointer data, Config *config,
                       GError **error);

/* Defines what was there before config_apply. REFUSED when somebody has changed it since. */
gboolean config_revert (ctl_connect_t *connection, ctl_domain_t *domain, Config *config, GError **error);

#endif
