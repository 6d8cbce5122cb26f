/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of domain XML share. Every text is to be freed. */
#ifndef DOMYBS_TESTS_DOMAIN_FIXTURE_H
#define DOMYBS_TESTS_DOMAIN_FIXTURE_H

#include <glib.h>

#include "domain.h"
#include "error.h"

#define FIXTURE_SOCKET "/run/domybs/vm/5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b01/backend.sock"

/* What most tests attach: a window of 4 GiB with a NUMA node of its own. */
extern const DomainAttachOptions fixture_options;

/* A host that is good for it. */
extern const DomainHost fixture_host;

/* Names of all files in tests/fixtures/domains, sorted; and one of them. */
GPtrArray *fixture_names (void);
char *fixture_read (const char *name);

/* Both have to succeed. */
char *fixture_attach (const char *xml);
char *fixture_detach (const char *xml);

/* `text` with each `from`, of which there has to be at least one, replaced. */
char *fixture_replace (const char *text, const char *from, const char *to);

/* That two texts are the same; names the first line that is not. */
void fixture_assert_same (const char *what, const char *is, const char *should_be);

/* That domain_attach refuses it with a message that has all of the words (NULL-terminated), and a next step after a semicolon.
 */
void fixture_assert_refused (const char *xml, const DomainAttachOptions *options, const DomainHost *host,
                             ...) G_GNUC_NULL_TERMINATED;

#endif
