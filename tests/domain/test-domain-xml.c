/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Editing by pieces of text: what is not edited stays to the byte, and what is put in and taken out leaves no trace. */
#include "domain-xml.h"

#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

static DomainXml *
xml_of (const char *text) {
  g_autoptr (GError) error = NULL;
  DomainXml *xml = domain_xml_new (text, &error);

  g_assert_no_error (error);
  return xml;
}

static void
assert_text (const DomainXml *xml, const char *text) {
  g_autoptr (GError) error = NULL;
  g_autofree char *is = domain_xml_finish (xml, &error);

  g_assert_no_error (error);
  fixture_assert_same ("text", is, text);
}

static void
test_append_and_remove (void) {
  static const struct {
    const char *before, *after;
  } cases[] = {
    { "<domain><p/></domain>", "<domain><p>\n  <e/>\n</p></domain>" },
    { "<domain><p a='1' /></domain>", "<domain><p a='1' >\n  <e/>\n</p></domain>" },
    { "<domain><p\n/></domain>", "<domain><p\n>\n  <e/>\n</p></domain>" },
    { "<domain>\n\t<p/>\n</domain>", "<domain>\n\t<p>\n\t  <e/>\n\t</p>\n</domain>" },
    { "<domain><p></p></domain>", "<domain><p><e/></p></domain>" },
    { "<domain><p> </p></domain>", "<domain><p> <e/></p></domain>" },
    { "<domain><p>\n</p></domain>", "<domain><p>\n<e/></p></domain>" },
    { "<domain><p>\n  </p  ></domain>", "<domain><p>\n  <e/></p  ></domain>" },
    { "<domain><p><a/></p></domain>", "<domain><p><a/>\n<e/></p></domain>" },
    { "<domain><p>\n   <a/>\n  </p></domain>", "<domain><p>\n   <a/>\n   <e/>\n  </p></domain>" },
    { "<domain><p>\r\n\t<a></a>\r\n</p></domain>", "<domain><p>\r\n\t<a></a>\n\t<e/>\r\n</p></domain>" },
    { "<domain><p>\n  <!-- c -->\n</p></domain>", "<domain><p>\n  <!-- c -->\n  <e/>\n</p></domain>" },
    { "<domain><p>text</p></domain>", "<domain><p>text\n  <e/></p></domain>" },
    { "<domain><p>\n <a/> <!-- of a --> <b/></p></domain>", "<domain><p>\n <a/> <!-- of a --> <b/>\n<e/></p></domain>" },
    { "<domain><p>\n <a/> <!-- of a -->\n</p></domain>", "<domain><p>\n <a/> <!-- of a -->\n <e/>\n</p></domain>" },
    { "<domain><p>\n <a/>\n <!-- alone -->\n</p></domain>", "<domain><p>\n <a/>\n <e/>\n <!-- alone -->\n</p></domain>" },
    { "<domain><p>\n <a/><!-- on\n two lines --></p></domain>",
      "<domain><p>\n <a/>\n <e/><!-- on\n two lines --></p></domain>" },
    { "<domain><p>\n <a/><![CDATA[x]]></p></domain>", "<domain><p>\n <a/>\n <e/><![CDATA[x]]></p></domain>" },
    { "<domain><p x=\">\" y='/>'/></domain>", "<domain><p x=\">\" y='/>'>\n  <e/>\n</p></domain>" },
    { "<domain xmlns:n='urn:n'><n:p xmlns='urn:o'/><p/></domain>",
      "<domain xmlns:n='urn:n'><n:p xmlns='urn:o'/><p>\n  <e/>\n</p></domain>" },
    { "\xef\xbb\xbf<?xml version='1.0'?>\n<!-- \xc3\xa4 --><domain n='\xe2\x82\xac'><p/></domain>\n\n",
      "\xef\xbb\xbf<?xml version='1.0'?>\n<!-- \xc3\xa4 --><domain n='\xe2\x82\xac'><p>\n  <e/>\n</p></domain>\n\n" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (DomainXml) xml = xml_of (cases[i].before);

    g_test_message ("%s", cases[i].before);
    domain_xml_append (xml, domain_xml_child (domain_xml_root (xml), "p"), "<e/>");
    assert_text (xml, cases[i].after);
    domain_xml_remove (xml, domain_xml_child (domain_xml_child (domain_xml_root (xml), "p"), "e"));
    assert_text (xml, cases[i].before);
  }
}

static void
test_several (void) {
  static const char before[] = "<domain>\n  <p/>\n</domain>";
  g_autoptr (DomainXml) xml = xml_of (before);

  domain_xml_append (xml, domain_xml_child (domain_xml_root (xml), "p"), "<e>\n  <f/>\n</e>\n<g/>");
  assert_text (xml, "<domain>\n  <p>\n    <e>\n      <f/>\n    </e>\n    <g/>\n  </p>\n</domain>");
  domain_xml_remove (xml, domain_xml_child (domain_xml_child (domain_xml_root (xml), "p"), "g"));
  domain_xml_remove (xml, domain_xml_child (domain_xml_child (domain_xml_root (xml), "p"), "e"));
  assert_text (xml, before);
}

static void
test_attributes (void) {
  static const char before[] = "<domain><a  x = \"1\"\n y='a=\"b\" z'\tz='&lt;'xy='2'/></domain>";
  g_autoptr (DomainXml) xml = NULL;
  g_autoptr (GError) error = NULL;

  /* A blank between attributes is missing: libxml2 has to say so, since the editor relies on it */
  g_assert_null (domain_xml_new (before, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  xml = xml_of ("<domain><a  x = \"1\"\n y='a=\"b\" z'\tz='&lt;' xy='2'/></domain>");
  domain_xml_set_attribute (xml, domain_xml_child (domain_xml_root (xml), "a"), "x", "it's");
  domain_xml_set_attribute (xml, domain_xml_child (domain_xml_root (xml), "a"), "y", "\"<&");
  domain_xml_set_attribute (xml, domain_xml_child (domain_xml_root (xml), "a"), "z", "");
  domain_xml_set_attribute (xml, domain_xml_child (domain_xml_root (xml), "a"), "xy", "3");
  domain_xml_set_attribute (xml, domain_xml_child (domain_xml_root (xml), "a"), "none", "4");
  assert_text (xml, "<domain><a  x = \"it&apos;s\"\n y='&quot;&lt;&amp;'\tz='' xy='3'/></domain>");
}

static void
test_namespaces (void) {
  static const char before[] = "<domain type='q' ><a/></domain>",
                    declared[] = "<domain type='q' xmlns:q='urn:q' ><a/></domain>";
  g_autoptr (DomainXml) xml = xml_of (before);

  domain_xml_declare (xml, "q", "urn:q");
  assert_text (xml, declared);
  domain_xml_append (xml, domain_xml_child (domain_xml_root (xml), "a"), "<b q:c='1'/>");
  domain_xml_undeclare (xml, "q", "urn:q"); /* in use */
  domain_xml_remove (xml, domain_xml_child (domain_xml_child (domain_xml_root (xml), "a"), "b"));
  domain_xml_undeclare (xml, "q", "urn:other"); /* somebody else's */
  assert_text (xml, declared);
  domain_xml_undeclare (xml, "q", "urn:q");
  domain_xml_undeclare (xml, "q", "urn:q");
  assert_text (xml, before);
}

/* An edit that would break the document is remembered, and changes nothing. */
static void
test_bad_edit (void) {
  g_autoptr (DomainXml) xml = xml_of ("<domain><p/></domain>");
  g_autoptr (GError) error = NULL;

  domain_xml_append (xml, domain_xml_child (domain_xml_root (xml), "p"), "<e>");
  domain_xml_append (xml, domain_xml_child (domain_xml_root (xml), "p"), "<f/>");
  domain_xml_remove (xml, domain_xml_child (domain_xml_root (xml), "p"));
  g_assert_null (domain_xml_finish (xml, &error));
  g_assert_nonnull (strstr (error->message, "an edit went wrong"));
}

static void
test_sizes (void) {
  static const struct {
    const char *number, *unit;
    guint64 bytes; /* 0: not taken */
  } cases[] = {
    { "1", NULL, 1024 },
    { "1", "b", 1 },
    { "1", "bytes", 1 },
    { "2", "KB", 2000 },
    { "2", "kib", 2048 },
    { "1", "k", 1024 },
    { "3", "M", 3 << 20 },
    { "3", "MB", 3000000 },
    { "1", "GiB", 1 << 30 },
    { "1", "T", 1ull << 40 },
    { "1048576", "TiB", 1ull << 60 },
    { "1048577", "TiB", 0 },
    { "1", "PiB", 0 },
    { "1", "", 0 },
    { "", "KiB", 0 },
    { "-1", "KiB", 0 },
    { "+1", "KiB", 0 },
    { " 1", "KiB", 0 },
    { "1 ", "KiB", 0 },
    { "1.5", "GiB", 0 },
    { "0x10", "KiB", 0 },
    { "99999999999999999999", "b", 0 },
    { NULL, "KiB", 0 },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    guint64 bytes = 7;

    g_test_message ("%s %s", cases[i].number, cases[i].unit);
    g_assert_cmpint (domain_xml_size (cases[i].number, cases[i].unit, &bytes), ==, cases[i].bytes != 0);
    g_assert_cmpuint (bytes, ==, cases[i].bytes ? cases[i].bytes : 7);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/xml/append and remove", test_append_and_remove);
  g_test_add_func ("/xml/several elements", test_several);
  g_test_add_func ("/xml/attributes", test_attributes);
  g_test_add_func ("/xml/namespaces", test_namespaces);
  g_test_add_func ("/xml/an edit that can't be", test_bad_edit);
  g_test_add_func ("/xml/sizes", test_sizes);
  return g_test_run ();
}
