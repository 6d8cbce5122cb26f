/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-xml.h"

#include <libxml/parser.h>
#include <libxml/parserInternals.h>
#include <libxml/SAX2.h>
#include <string.h>

#include "error.h"

/* Where an element stands in the text. */
typedef struct {
  gsize begin;       /* of its start tag: '<' */
  gsize tag_end;     /* '>' of the start tag, or '/' of an empty-element tag */
  gsize content_end; /* '<' of its end tag; 0: an empty-element tag */
  gsize end;         /* behind the last '>' */
} Span;

struct DomainXml {
  char *text;
  gsize length;
  xmlDoc *document;
  GArray *spans; /* of Span; node->_private is the index + 1 */
  gboolean has_dtd;
  gboolean is_lost; /* the parser's positions do not fit the text */
  GError *error;    /* the first edit that failed */
};

/* ---- parsing ---- */

static Span *
span_of (const DomainXml *xml, const xmlNode *node) {
  return &g_array_index (xml->spans, Span, GPOINTER_TO_SIZE (node->_private) - 1);
}

static gsize
position_before (const DomainXml *xml, gsize position) {
  while (position > 0 && xml->text[position] != '<')
    position--;
  return position;
}

/* libxml2 reports an element when it stands before the end of its start tag. No '<' can be in there but the one that begins it.
 */
static void
on_element_start (void *data, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri, int n_namespaces,
                  const xmlChar **namespaces, int n_attributes, int n_defaulted, const xmlChar **attributes) {
  xmlParserCtxt *parser = data;
  DomainXml *xml = parser->_private;
  const glong position = xmlByteConsumed (parser);
  Span span = { 0 };

  xmlSAX2StartElementNs (data, name, prefix, uri, n_namespaces, namespaces, n_attributes, n_defaulted, attributes);
  if (position <= 0 || (gsize)position >= xml->length || (xml->text[position] != '>' && xml->text[position] != '/')
      || !parser->node) {
    xml->is_lost = TRUE;
    return;
  }
  span.tag_end = (gsize)position;
  span.begin = position_before (xml, span.tag_end);
  g_array_append_val (xml->spans, span);
  parser->node->_private = GSIZE_TO_POINTER (xml->spans->len);
}

static void
on_element_end (void *data, const xmlChar *name, const xmlChar *prefix, const xmlChar *uri) {
  xmlParserCtxt *parser = data;
  DomainXml *xml = parser->_private;
  const glong position = xmlByteConsumed (parser);

  if (!parser->node || !parser->node->_private || position <= 0 || (gsize)position > xml->length) {
    xml->is_lost = TRUE;
  } else {
    Span *span = span_of (xml, parser->node);

    if (xml->text[span->tag_end] == '/') {
      span->end = span->tag_end + 2;
    } else {
      span->end = (gsize)position;
      span->content_end = position_before (xml, span->end - 1);
      xml->is_lost |= xml->text[span->end - 1] != '>' || xml->text[span->content_end + 1] != '/';
    }
  }
  xmlSAX2EndElementNs (data, name, prefix, uri);
}

/* Nothing in a domain's XML needs a DTD, and its entities are a way to make a reader busy: the parser stops where one begins.
 */
static void
on_dtd (void *data, const xmlChar *name, const xmlChar *public_id, const xmlChar *system_id) {
  xmlParserCtxt *parser = data;
  DomainXml *xml = parser->_private;

  xml->has_dtd = TRUE;
  xmlStopParser (parser);
}

static gboolean
refuse_unreadable (const DomainXml *xml, xmlParserCtxt *parser, GError **error) {
  const xmlError *reason = xmlCtxtGetLastError (parser);
  g_autofree char *text = NULL;

  if (xml->has_dtd) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "the XML has a DTD (<!DOCTYPE>), which is not read; remove it");
    return FALSE;
  }
  text = g_strdup (reason && reason->message ? reason->message : "no element");
  for (char *at = text; *at; at++)
    if (g_ascii_iscntrl (*at))
      *at = ' ';
  g_strstrip (text);
  g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED, "the XML can't be read: line %d: %s; correct it", reason ? reason->line : 1,
               text);
  return FALSE;
}

static gboolean
check_document (const DomainXml *xml, GError **error) {
  const xmlNode *root = domain_xml_root (xml);
  const char *encoding = (const char *)xml->document->encoding;

  if (encoding && g_ascii_strcasecmp (encoding, "UTF-8") != 0) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the XML says that its encoding is %s; libvirt's XML is UTF-8, save it as that", encoding);
    return FALSE;
  }
  if (root->ns || strcmp ((const char *)root->name, "domain") != 0) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the XML is not a domain's: its root is <%s>; give one that 'virsh dumpxml' made", (const char *)root->name);
    return FALSE;
  }
  /* Spans are checked where they are made, but only of elements that were reported. */
  if (xml->is_lost) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED,
                 "the XML parser (libxml2 %s) does not tell where elements are; report this", xmlParserVersion);
    return FALSE;
  }
  return TRUE;
}

static gboolean
parse (DomainXml *xml, GError **error) {
  xmlParserCtxt *parser = xmlNewParserCtxt ();
  gboolean ok;

  g_assert (parser);
  parser->_private = xml;
  parser->sax->startElementNs = on_element_start;
  parser->sax->endElementNs = on_element_end;
  parser->sax->internalSubset = on_dtd;
  xml->document = xmlCtxtReadMemory (parser, xml->text, (int)xml->length, NULL, NULL,
                                     XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING | XML_PARSE_BIG_LINES);
  /* A prefix that is not declared makes libvirt overlook an element. Declaring it for ours would bring that to life. */
  ok = (xml->document && parser->nsWellFormed && !xml->has_dtd && domain_xml_root (xml))
           ? check_document (xml, error)
           : refuse_unreadable (xml, parser, error);
  xmlFreeParserCtxt (parser);
  return ok;
}

DomainXml *
domain_xml_new (const char *text, GError **error) {
  g_autoptr (DomainXml) xml = NULL;
  const gsize length = strlen (text);
  const char *end;

  if (length > DOMAIN_XML_BYTES_MAX) {
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the XML is %" G_GSIZE_FORMAT " bytes long; libvirt takes no more than %u", length, DOMAIN_XML_BYTES_MAX);
    return NULL;
  }
  if (!g_utf8_validate (text, (gssize)length, &end)) {
    guint64 line = 1;

    for (const char *at = text; at < end; at++)
      line += *at == '\n';
    g_set_error (error, CTL_ERROR, CTL_ERROR_REFUSED,
                 "the XML can't be read: line %" G_GUINT64_FORMAT " is not UTF-8; save it as that", line);
    return NULL;
  }
  xml = g_new0 (DomainXml, 1);
  xml->text = g_strndup (text, length);
  xml->length = length;
  xml->spans = g_array_new (FALSE, FALSE, sizeof (Span));
  return parse (xml, error) ? g_steal_pointer (&xml) : NULL;
}

void
domain_xml_free (DomainXml *xml) {
  if (!xml)
    return;
  if (xml->document)
    xmlFreeDoc (xml->document);
  g_array_unref (xml->spans);
  g_clear_error (&xml->error);
  g_free (xml->text);
  g_free (xml);
}

gboolean
domain_xml_check (const DomainXml *xml, GError **error) {
  if (xml->error)
    g_propagate_error (error, g_error_copy (xml->error));
  return !xml->error;
}

char *
domain_xml_finish (const DomainXml *xml, GError **error) {
  return domain_xml_check (xml, error) ? g_strndup (xml->text, xml->length) : NULL;
}

/* ---- reading ---- */

xmlNode *
domain_xml_root (const DomainXml *xml) {
  return xmlDocGetRootElement (xml->document);
}

static gboolean
is_element (const xmlNode *node, const char *uri, const char *name) {
  return node->type == XML_ELEMENT_NODE && strcmp ((const char *)node->name, name) == 0
         && g_strcmp0 (node->ns ? (const char *)node->ns->href : NULL, uri) == 0;
}

xmlNode *
domain_xml_child_ns (xmlNode *parent, const char *uri, const char *name) {
  xmlNode *node = parent ? parent->children : NULL;

  while (node && !is_element (node, uri, name))
    node = node->next;
  return node;
}

xmlNode *
domain_xml_child (xmlNode *parent, const char *name) {
  return domain_xml_child_ns (parent, NULL, name);
}

xmlNode *
domain_xml_next (xmlNode *node) {
  const char *uri = node->ns ? (const char *)node->ns->href : NULL, *name = (const char *)node->name;

  do
    node = node->next;
  while (node && !is_element (node, uri, name));
  return node;
}

xmlNode *
domain_xml_last_child (xmlNode *parent) {
  xmlNode *node = parent ? parent->last : NULL;

  while (node && node->type != XML_ELEMENT_NODE)
    node = node->prev;
  return node;
}

static char *
copy_of (xmlChar *text) {
  char *copy = g_strdup ((const char *)text);

  xmlFree (text);
  return copy;
}

char *
domain_xml_attribute (xmlNode *node, const char *name) {
  return node ? copy_of (xmlGetNoNsProp (node, (const xmlChar *)name)) : NULL;
}

char *
domain_xml_content (xmlNode *node) {
  return node ? g_strstrip (copy_of (xmlNodeGetContent (node))) : NULL;
}

gboolean
domain_xml_attribute_is (xmlNode *node, const char *name, const char *value) {
  g_autofree char *is = domain_xml_attribute (node, name);

  return g_strcmp0 (is, value) == 0;
}

unsigned long
domain_xml_line (xmlNode *node) {
  return node ? (unsigned long)MAX (0, xmlGetLineNo (node)) : 0;
}

gboolean
domain_xml_number (const char *text, guint64 min, guint64 max, guint64 *ret_number) {
  /* It takes a sign and blanks, but not for an unsigned number with base 10: those are errors there. */
  return text && g_ascii_string_to_unsigned (text, 10, min, max, ret_number, NULL);
}

gboolean
domain_xml_size (const char *number, const char *unit, guint64 *ret_bytes) {
  static const struct {
    const char *name;
    guint64 bytes;
  } units[] = {
    { "b", 1 },
    { "bytes", 1 },
    { "k", G_GUINT64_CONSTANT (1) << 10 },
    { "KB", 1000 },
    { "KiB", G_GUINT64_CONSTANT (1) << 10 },
    { "M", G_GUINT64_CONSTANT (1) << 20 },
    { "MB", 1000000 },
    { "MiB", G_GUINT64_CONSTANT (1) << 20 },
    { "G", G_GUINT64_CONSTANT (1) << 30 },
    { "GB", 1000000000 },
    { "GiB", G_GUINT64_CONSTANT (1) << 30 },
    { "T", G_GUINT64_CONSTANT (1) << 40 },
    { "TB", G_GUINT64_CONSTANT (1000000000000) },
    { "TiB", G_GUINT64_CONSTANT (1) << 40 },
  };
  const guint64 max = G_GUINT64_CONSTANT (1) << 60;
  guint64 count;

  for (gsize i = 0; i < G_N_ELEMENTS (units); i++) {
    if (g_ascii_strcasecmp (unit ? unit : "KiB", units[i].name) != 0)
      continue;
    if (!domain_xml_number (number, 0, max / units[i].bytes, &count))
      return FALSE;
    *ret_bytes = count * units[i].bytes;
    return TRUE;
  }
  return FALSE;
}

gboolean
domain_xml_is_blank (xmlNode *node) {
  for (xmlNode *child = node->children; child; child = child->next)
    if (!xmlIsBlankNode (child))
      return FALSE;
  return TRUE;
}

/* Whether an element or attribute is in that namespace. */
static gboolean
uses_below (const xmlNode *node, const char *uri) {
  if (node->type != XML_ELEMENT_NODE)
    return FALSE;
  if (node->ns && strcmp ((const char *)node->ns->href, uri) == 0)
    return TRUE;
  for (const xmlAttr *attribute = node->properties; attribute; attribute = attribute->next)
    if (attribute->ns && strcmp ((const char *)attribute->ns->href, uri) == 0)
      return TRUE;
  for (const xmlNode *child = node->children; child; child = child->next)
    if (uses_below (child, uri))
      return TRUE;
  return FALSE;
}

/* ---- editing ---- */

static gboolean
is_blank (char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static gsize
blanks_before (const DomainXml *xml, gsize position) {
  while (position > 0 && is_blank (xml->text[position - 1]))
    position--;
  return position;
}

static gsize
blanks_after (const DomainXml *xml, gsize position) {
  while (is_blank (xml->text[position]))
    position++;
  return position;
}

static void
splice (DomainXml *xml, gsize begin, gsize end, const char *replacement) {
  g_autoptr (DomainXml) edited = NULL;
  g_autofree char *text = NULL;

  if (xml->error)
    return;
  text = g_strdup_printf ("%.*s%s%s", (int)begin, xml->text, replacement, xml->text + end);
  edited = domain_xml_new (text, &xml->error);
  if (!edited) {
    g_prefix_error (&xml->error, "an edit went wrong: ");
    return;
  }
  /* The caller keeps its handle: what is in there changes places. */
  const DomainXml before = *xml;

  *xml = *edited;
  *edited = before;
}

/* The blanks that stand before an element on its line; none if something else stands there, too. */
static char *
indentation (const DomainXml *xml, gsize position) {
  const gsize first = blanks_before (xml, position);
  gsize line = position;

  while (line > first && xml->text[line - 1] != '\n')
    line--;
  return line > first || line == 0 ? g_strndup (xml->text + line, position - line) : g_strdup ("");
}

/* A line end and the indentation before every line. */
static char *
indent (const char *fragment, const char *indentation_text) {
  g_auto (GStrv) lines = g_strsplit (fragment, "\n", -1);
  GString *text = g_string_new (NULL);

  for (char **line = lines; *line; line++)
    g_string_append_printf (text, "\n%s%s", indentation_text, *line);
  return g_string_free (text, FALSE);
}

void
domain_xml_insert_after (DomainXml *xml, xmlNode *node, const char *fragment) {
  if (xml->error)
    return;

  const Span *span = span_of (xml, node);
  g_autofree char *before = indentation (xml, span->begin), *text = indent (fragment, before);
  const xmlNode *next = node->next;
  gsize position = span->end;

  /* A comment on the same line is about the element before it. */
  if (next && next->type == XML_TEXT_NODE && xmlIsBlankNode (next) && !strchr ((const char *)next->content, '\n'))
    next = next->next;
  if (next && next->type == XML_COMMENT_NODE) {
    const char *close = strstr (xml->text + position, "-->"), *line = strpbrk (xml->text + position, "\n");

    if (close && (!line || close < line))
      position = (gsize)(close + 3 - xml->text);
  }
  splice (xml, position, position, text);
}

void
domain_xml_append (DomainXml *xml, xmlNode *parent, const char *fragment) {
  xmlNode *last = domain_xml_last_child (parent);

  if (xml->error)
    return;
  if (last) {
    domain_xml_insert_after (xml, last, fragment);
    return;
  }

  const Span *span = span_of (xml, parent);
  g_autofree char *outer = indentation (xml, span->begin), *inner = g_strconcat (outer, "  ", NULL),
                  *lines = indent (fragment, inner);

  if (span->content_end == 0) {
    /* <a/> becomes <a>…</a>: blanks on both sides are what domain_xml_remove knows it by. */
    const gsize name = span->begin + 1, name_length = strcspn (xml->text + name, " \t\r\n/>");
    g_autofree char *text = g_strdup_printf (">%s\n%s</%.*s>", lines, outer, (int)name_length, xml->text + name);

    splice (xml, span->tag_end, span->end, text);
  } else if (domain_xml_is_blank (parent)) {
    /* … so there must not be blanks on both sides here. */
    splice (xml, span->content_end, span->content_end, lines + 1 + strlen (inner));
  } else {
    const gsize position = blanks_before (xml, span->content_end);

    splice (xml, position, position, lines);
  }
}

void
domain_xml_remove (DomainXml *xml, xmlNode *node) {
  if (xml->error)
    return;

  const Span *span = span_of (xml, node), *parent = span_of (xml, node->parent);
  const gsize before = blanks_before (xml, span->begin), after = blanks_after (xml, span->end);
  const gboolean is_alone = before == parent->tag_end + 1 && after == parent->content_end;
  gsize line = span->begin;

  if (is_alone && before < span->begin && span->end < after) {
    splice (xml, parent->tag_end, parent->end, "/>");
    return;
  }
  /* An insertion begins with one line end: blank lines before that are somebody's. */
  while (line > before && xml->text[line] != '\n')
    line--;
  if (line > before && xml->text[line - 1] == '\r')
    line--;
  splice (xml, is_alone ? span->begin : line, span->end, "");
}

/* Finds an attribute in a start tag, which is known to be well-formed: the blanks before it, its value, the quote behind that.
 */
static gboolean
find_attribute (const DomainXml *xml, const Span *span, const char *name, gsize *ret_begin, gsize *ret_value, gsize *ret_end) {
  gsize at = span->begin + 1 + strcspn (xml->text + span->begin + 1, " \t\r\n/>");

  while (at < span->tag_end) {
    const gsize begin = at, name_at = blanks_after (xml, at), length = strcspn (xml->text + name_at, " \t\r\n=");
    gsize value, end;

    if (name_at >= span->tag_end)
      break;
    value = blanks_after (xml, name_at + length); /* '=' */
    value = blanks_after (xml, value + 1) + 1;    /* behind the quote */
    end = value + strcspn (xml->text + value, xml->text[value - 1] == '"' ? "\"" : "'");
    if (length == strlen (name) && memcmp (xml->text + name_at, name, length) == 0) {
      *ret_begin = begin;
      *ret_value = value;
      *ret_end = end;
      return TRUE;
    }
    at = end + 1;
  }
  return FALSE;
}

void
domain_xml_set_attribute (DomainXml *xml, xmlNode *node, const char *name, const char *value) {
  g_autofree char *escaped = g_markup_escape_text (value, -1);
  gsize begin, at, end;

  if (!xml->error && find_attribute (xml, span_of (xml, node), name, &begin, &at, &end))
    splice (xml, at, end, escaped);
}

void
domain_xml_declare (DomainXml *xml, const char *prefix, const char *uri) {
  const Span *span = span_of (xml, domain_xml_root (xml));
  const gsize position = blanks_before (xml, span->tag_end);
  g_autofree char *text = g_markup_printf_escaped (" xmlns:%s='%s'", prefix, uri);

  splice (xml, position, position, text);
}

void
domain_xml_undeclare (DomainXml *xml, const char *prefix, const char *uri) {
  const xmlNode *root = domain_xml_root (xml);
  const xmlNs *ns = root->nsDef;
  g_autofree char *name = g_strconcat ("xmlns:", prefix, NULL);
  gsize begin, value, end;

  while (ns && (g_strcmp0 ((const char *)ns->prefix, prefix) != 0 || strcmp ((const char *)ns->href, uri) != 0))
    ns = ns->next;
  if (ns && !xml->error && !uses_below (root, uri) && find_attribute (xml, span_of (xml, root), name, &begin, &value, &end))
    splice (xml, begin, end + 1, "");
}
