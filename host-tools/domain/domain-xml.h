/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A domain's XML that is edited by replacing pieces of its text: libxml2 says what is where, and every byte that an edit is not
 * about stays as it is: quotes, blanks, comments, entities, line ends. So an edit that is undone leaves no trace.
 *
 * After each edit the text is parsed anew, and every node that was found before is void. An edit that fails (the text would
 * become too long, or it is a mistake in this program) is remembered and makes the later ones do nothing, whatever node they
 * are given.
 */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_XML_H
#define DOMYBS_HOST_TOOLS_DOMAIN_XML_H

#include <glib.h>
#include <libxml/tree.h>

/* What libvirt's RPC carries at most in one string: no domain's XML that comes from libvirt is longer. */
#define DOMAIN_XML_BYTES_MAX (4u << 20)

typedef struct DomainXml DomainXml;

/* A document with root <domain>, in UTF-8, without a DTD; else CTL_ERROR_REFUSED, with the line. */
DomainXml *domain_xml_new (const char *text, GError **error);
void domain_xml_free (DomainXml *xml);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (DomainXml, domain_xml_free)

/* FALSE with the first error of all edits. */
gboolean domain_xml_check (const DomainXml *xml, GError **error);

/* The text as it is now, or that error. */
char *domain_xml_finish (const DomainXml *xml, GError **error);

/* ---- reading: NULL where there is none; a NULL node has nothing ---- */

xmlNode *domain_xml_root (const DomainXml *xml);

/* The first child element of that name, and the next element of the same name beside it. uri NULL: in no namespace. */
xmlNode *domain_xml_child_ns (xmlNode *parent, const char *uri, const char *name);
xmlNode *domain_xml_child (xmlNode *parent, const char *name);
xmlNode *domain_xml_next (xmlNode *node);
xmlNode *domain_xml_last_child (xmlNode *parent); /* of any name */

/* Values are copies. Text is that of all inside, without blanks at its ends. */
char *domain_xml_attribute (xmlNode *node, const char *name);
char *domain_xml_content (xmlNode *node);
gboolean domain_xml_attribute_is (xmlNode *node, const char *name, const char *value);

/* The line where an element begins; 0 for NULL. */
unsigned long domain_xml_line (xmlNode *node);

/* Decimal digits alone, min ≤ number ≤ max; FALSE for anything else and for NULL. */
gboolean domain_xml_number (const char *text, guint64 min, guint64 max, guint64 *ret_number);

/* A size with libvirt's `unit` ("KiB" where it is missing); FALSE for what libvirt would not take, and beyond 2^60. */
gboolean domain_xml_size (const char *number, const char *unit, guint64 *ret_bytes);

/* ---- editing. A fragment is one or more elements, inner lines indented by two spaces as if it stood at the margin. ---- */

void domain_xml_insert_after (DomainXml *xml, xmlNode *node, const char *fragment);
void domain_xml_append (DomainXml *xml, xmlNode *parent, const char *fragment);

/* The opposite of both: with the blanks before it; a parent that has nothing else becomes an empty-element tag again if it was
 * one. */
void domain_xml_remove (DomainXml *xml, xmlNode *node);

/* Changes an attribute that is there. */
void domain_xml_set_attribute (DomainXml *xml, xmlNode *node, const char *name, const char *value);

/* Declares a namespace prefix on the root, and removes that declaration if it is there and nothing uses the namespace. */
void domain_xml_declare (DomainXml *xml, const char *prefix, const char *uri);
void domain_xml_undeclare (DomainXml *xml, const char *prefix, const char *uri);

/* Whether an element has no child but blanks. */
gboolean domain_xml_is_blank (xmlNode *node);

#endif
