/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What is read out of domain XML, whose author need not be a friend. */
#include <string.h>

#include "domain-fixture.h"
#include "domain-xml.h"
#include "testing.h"

#define UUID "5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b02"

static void
assert_one_line (const GError *error) {
  g_test_message ("%s", error->message);
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  for (const char *at = error->message; *at; at++)
    g_assert_false (g_ascii_iscntrl (*at));
  g_assert_nonnull (strchr (error->message, ';'));
}

/* ---- the document ---- */

static void
refused_document (const char *text, const char *word) {
  GError *errors[6] = { NULL };
  g_autofree char *attached = domain_attach (text, &fixture_options, &fixture_host, FIXTURE_SOCKET, NULL, &errors[0]);
  DomainMemory memory = { .window_bytes = DOMAIN_WINDOW_BYTES_MIN };
  DomainIdentity identity;

  g_assert_null (attached);
  g_assert_null (domain_detach (text, NULL, &errors[1]));
  g_assert_false (domain_read_identity (text, &identity, &errors[2]));
  g_assert_false (domain_read_memory (text, &memory, &errors[3]));
  g_assert_false (domain_check_live (text, fixture_options.window_bytes, &errors[4]));
  g_assert_null (domain_metadata_for_libvirt (text, &memory, &errors[5]));
  g_assert_null (domain_read_dac_label (text));
  g_assert_null (domain_read_emulator (text));
  for (int i = 0; i < 6; i++) {
    g_assert_error (errors[i], CTL_ERROR, CTL_ERROR_REFUSED);
    assert_one_line (errors[i]);
    if (!strstr (errors[i]->message, word))
      g_error ("no “%s” in “%s”", word, errors[i]->message);
    g_clear_error (&errors[i]);
  }
}

static void
test_documents (void) {
  g_autoptr (GString) large = g_string_new ("<domain>");
  g_autoptr (GString) deep = g_string_new ("<domain>");

  refused_document ("", "the XML can't be read: line 1");
  refused_document ("no XML", "the XML can't be read: line 1");
  refused_document ("<domain>", "the XML can't be read: line 1");
  refused_document ("<domain>\n\n<a></b></domain>", "line 3");
  refused_document ("<domain>\n<a x='1' x='2'/></domain>", "line 2");
  refused_document ("<domain>\n&unknown;</domain>", "line 2");
  refused_document ("<domain>\n<a\x01/></domain>", "line 2");
  refused_document ("<domain>\n\xff</domain>", "line 2 is not UTF-8");
  refused_document ("<domain/><domain/>", "line 1");
  refused_document ("<domain>\n<qemu:commandline/></domain>", "line 2: Namespace prefix qemu");
  refused_document ("<network/>", "its root is <network>");
  refused_document ("<x:domain xmlns:x='urn:x'/>", "its root is <domain>");
  refused_document ("<domain xmlns='urn:x'/>", "its root is <domain>");
  refused_document ("<?xml version='1.0' encoding='ISO-8859-1'?><domain/>", "encoding is ISO-8859-1");
  refused_document ("<?xml version='1.0' encoding='UTF-16'?><domain/>", "");
  refused_document ("<!DOCTYPE domain><domain/>", "has a DTD");
  refused_document ("<!DOCTYPE domain SYSTEM 'file:///etc/passwd'><domain/>", "has a DTD");
  refused_document ("<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><domain><name>&e;</name></domain>", "has a DTD");
  refused_document (
      "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;'>]><domain>&c;</domain>",
      "has a DTD");
  refused_document ("<!DOCTYPE d [<!ATTLIST domain type CDATA 'kvm'>]><domain/>", "has a DTD");

  for (int i = 0; i < 100000; i++)
    g_string_append (deep, "<a>");
  refused_document (deep->str, "");
  while (large->len <= DOMAIN_XML_BYTES_MAX)
    g_string_append (large, "<!-- 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef -->");
  g_string_append (large, "</domain>");
  refused_document (large->str, "libvirt takes no more than");
}

/* ---- identity ---- */

static void
test_identity (void) {
  g_auto (DomainIdentity) identity = { 0 };
  g_autofree char *text = fixture_read ("hand-comments.xml"),
                  *running = fixture_replace (text, "type = \"qemu\"", "type='qemu' id='17'");
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_read_identity (text, &identity, &error));
  g_assert_cmpstr (identity.name, ==, "ledger & books");
  g_assert_cmpstr (identity.uuid, ==, "5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b03");
  g_assert_cmpint (identity.id, ==, -1);
  domain_identity_clear (&identity);
  g_assert_true (domain_read_identity (running, &identity, &error));
  g_assert_cmpint (identity.id, ==, 17);
}

static void
test_bad_identity (void) {
  static const struct {
    const char *name, *uuid;
  } cases[] = {
    { "", UUID },
    { "..", UUID },
    { ".", UUID },
    { "../../etc/passwd", UUID },
    { "a/b", UUID },
    { "a\nb", UUID },
    { "a&#27;[2Jb", UUID },
    { "a&#x85;b", UUID },
    { "vm", "" },
    { "vm", "../../../etc/cron.d/aaaaaaaaaaaaaaaaaa" },
    { "vm", "5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b0" },
    { "vm", "5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b022" },
    { "vm", "5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b0g" },
    { "vm", "5a1c7d0e/6f0b/4e52/9a53/2d8d3a1c0b02" },
    { "vm", "5a1c7d0e6f0b4e529a532d8d3a1c0b020000" },
    { "vm", "{5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b0}" },
  };
  g_autofree char *long_name = g_strnfill (256, 'a'),
                  *long_text = g_strdup_printf ("<domain><name>%s</name><uuid>" UUID "</uuid></domain>", long_name);

  for (gsize i = 0; i <= G_N_ELEMENTS (cases); i++) {
    g_autofree char *text = i == G_N_ELEMENTS (cases) ? g_strdup (long_text)
                                                      : g_strdup_printf ("<domain><name>%s</name><uuid>%s</uuid></domain>",
                                                                         cases[i].name, cases[i].uuid);
    DomainIdentity identity = { (char *)1, (char *)2, 3 };
    g_autoptr (GError) error = NULL;

    g_assert_false (domain_read_identity (text, &identity, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    assert_one_line (error);
    g_assert_true (identity.name == (char *)1 && identity.uuid == (char *)2 && identity.id == 3);
  }
  g_assert_false (domain_read_identity ("<domain/>", &(DomainIdentity){ 0 }, NULL));
}

static void
test_small_things (void) {
  static const char seclabels[] = "<domain><seclabel type='dynamic' model='apparmor'><label>libvirt-1</label></seclabel>"
                                  "<seclabel model='dac'>\n<label> +64055:+64055 "
                                  "</label></seclabel><devices><emulator>/usr/bin/q</emulator></devices></domain>";
  g_autofree char *label = domain_read_dac_label (seclabels), *emulator = domain_read_emulator (seclabels);

  g_assert_cmpstr (label, ==, "+64055:+64055");
  g_assert_cmpstr (emulator, ==, "/usr/bin/q");
  g_assert_null (domain_read_dac_label ("<domain><seclabel model='dac'/></domain>"));
  g_assert_null (domain_read_dac_label ("<domain/>"));
  g_assert_null (domain_read_emulator ("<domain/>"));
}

/* ---- metadata ---- */

/* A domain with this inside our element. */
static char *
with_metadata (const char *inside) {
  return g_strdup_printf ("<domain type='qemu'>\n<name>vm</name><uuid>" UUID
                          "</uuid><memory>1048576</memory><os><type machine='q35'>hvm</type></os>\n"
                          "<metadata><d:domybs xmlns:d='" DOMAIN_METADATA_URI "'>%s</d:domybs></metadata></domain>",
                          inside);
}

static void
test_metadata (void) {
  g_autofree char *text = with_metadata (
      "<d:memory present='no' window='2147483648' local-max='2097152' grant='populate' unknown='1'/><d:later/>");
  DomainMemory memory;
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_read_memory (text, &memory, &error));
  g_assert_cmpuint (memory.window_bytes, ==, 2147483648u);
  g_assert_cmpuint (memory.local_max_bytes, ==, 2097152);
  g_assert_true (memory.populate);
  g_assert_false (memory.present);
  g_assert_cmpint (memory.numa_node, ==, -1);
}

static void
test_bad_metadata (void) {
#define GOOD "window='4294967296' local-max='2097152' grant='reserve' present='yes'"
#define WINDOW(value) "<d:memory window='" value "' local-max='2097152' grant='reserve' present='yes'/>"
#define MAX_OF(value) "<d:memory window='4294967296' local-max='" value "' grant='reserve' present='yes'/>"
#define ADDED(text) "<d:memory " GOOD "/><d:added " text "/>"
  static const char *const cases[] = {
    "",
    "<memory " GOOD "/>", /* in no namespace */
    "<d:memory/>",
    "<d:memory " GOOD "/></d:domybs><d:domybs xmlns:d='" DOMAIN_METADATA_URI "'><d:memory " GOOD "/>",
    "<d:memory " GOOD "/><d:memory " GOOD "/>",
    WINDOW (""),
    WINDOW ("4G"),
    WINDOW ("-4294967296"),
    WINDOW ("+4294967296"),
    WINDOW (" 4294967296"),
    WINDOW ("0x100000000"),
    WINDOW ("4294967296.0"),
    WINDOW ("4294967297"),
    WINDOW ("1073741824"),
    WINDOW ("0"),
    WINDOW ("18446744073709551616"),
    WINDOW ("18446744073709551615"),
    WINDOW ("9223372036854775808"),
    MAX_OF ("0"),
    MAX_OF ("1048576"),
    MAX_OF ("2097153"),
    MAX_OF ("4296015872"),
    MAX_OF ("1e9"),
    "<d:memory window='4294967296' local-max='2097152' grant='Reserve' present='yes'/>",
    "<d:memory window='4294967296' local-max='2097152' present='yes'/>",
    "<d:memory window='4294967296' local-max='2097152' grant='reserve' present='maybe'/>",
    "<d:memory window='4294967296' local-max='2097152' grant='reserve'/>",
    "<d:memory " GOOD " numa-node=''/>",
    "<d:memory " GOOD " numa-node='-1'/>",
    "<d:memory " GOOD " numa-node='128'/>",
    "<d:memory " GOOD " numa-node='1 --socket-path=/x'/>",
    ADDED (""),
    ADDED ("what='everything'"),
    ADDED ("what='devices'"),
    ADDED ("what='cpu'/><d:added what='cpu'"),
    ADDED ("what='cpu' was='none'"),
    ADDED ("what='source' was='file'"),
    ADDED ("what='access' was='shared'"),
    ADDED ("what='memAccess'"),
    ADDED ("what='memAccess' cell='1'"),
    ADDED ("what='memAccess' was='private'"),
    ADDED ("what='memAccess' cell='128' was='private'"),
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *text = with_metadata (cases[i]);
    DomainMemory memory = { .window_bytes = 77 };
    GError *errors[4] = { NULL };

    g_test_message ("%s", cases[i]);
    g_assert_false (domain_read_memory (text, &memory, &errors[0]));
    g_assert_cmpuint (memory.window_bytes, ==, 77);
    g_assert_null (domain_detach (text, NULL, &errors[1]));
    g_assert_null (domain_attach (text, &fixture_options, &fixture_host, FIXTURE_SOCKET, NULL, &errors[2]));
    g_assert_null (domain_metadata_for_libvirt (text, &memory, &errors[3]));
    for (int k = 0; k < 4; k++) {
      g_assert_error (errors[k], CTL_ERROR, CTL_ERROR_REFUSED);
      g_assert_nonnull (strstr (errors[k]->message, "damaged: line 3: "));
      assert_one_line (errors[k]);
      g_clear_error (&errors[k]);
    }
  }
}

/* The record is believed only where the XML still looks like it: it can't be used to have other people's parts removed. */
static void
test_lying_record (void) {
  g_autofree char *before = fixture_read ("many-devices.xml");
  g_autoptr (GString) all
      = g_string_new ("<metadata><d:domybs xmlns:d='" DOMAIN_METADATA_URI "'><d:memory " GOOD " numa-node='0'/>");
  static const char *const kinds[]
      = { "memoryBacking", "source", "access", "cpu", "numa", "cell", "xmlns", "commandline", "metadata" };
  g_autofree char *lying = NULL, *after = NULL;

  for (gsize i = 0; i < G_N_ELEMENTS (kinds); i++)
    g_string_append_printf (all, "<d:added what='%s'/>", kinds[i]);
  g_string_append (
      all, "<d:added what='memAccess' cell='0' was='private'/></d:domybs></metadata>\n  <memory unit='KiB'>1048576</memory>");
  lying = fixture_replace (before, "<memory unit='KiB'>1048576</memory>", all->str);
  after = fixture_detach (lying);
  fixture_assert_same ("many-devices.xml", after, before);
}

static void
test_for_libvirt (void) {
  g_autofree char *before = fixture_read ("backing-anonymous.xml"), *attached = fixture_attach (before), *element = NULL,
                  *none = NULL;
  DomainMemory memory;
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_read_memory (attached, &memory, &error));
  memory.present = FALSE;
  memory.window_bytes = DOMAIN_WINDOW_BYTES_MIN;
  element = domain_metadata_for_libvirt (attached, &memory, &error);
  g_assert_no_error (error);
  fixture_assert_same (
      "element", element,
      "<domybs>\n  <memory window=\"2147483648\" local-max=\"2147483648\" grant=\"reserve\" numa-node=\"1\" present=\"no\"/>\n"
      "  <added what=\"source\" was=\"anonymous\"/>\n  <added what=\"access\" was=\"private\"/>\n  <added what=\"cpu\"/>\n"
      "  <added what=\"numa\"/>\n  <added what=\"cell\"/>\n  <added what=\"xmlns\"/>\n  <added what=\"commandline\"/>\n"
      "  <added what=\"metadata\"/>\n</domybs>");
  none = domain_metadata_for_libvirt (before, &memory, &error);
  g_assert_null (none);
  g_assert_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND);
}

/* ---- a running domain ---- */

static void
not_live (const char *text, guint64 window_bytes, const char *word) {
  g_autoptr (GError) error = NULL;

  g_assert_false (domain_check_live (text, window_bytes, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  assert_one_line (error);
  if (!strstr (error->message, word))
    g_error ("no “%s” in “%s”", word, error->message);
}

static void
test_live (void) {
  static const char hostdev[] = "<devices><hostdev mode='subsystem' type='pci'/></devices>";
  const guint64 window = fixture_options.window_bytes;
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (before),
                  *private = fixture_replace (attached, "<access mode='shared'/>", ""),
                  *portless = fixture_replace (attached, "id=domybs-port,", "id=other,"),
                  *odd_room = fixture_replace (attached, "reserve=8G", "reserve=-8G"),
                  *plugged = fixture_replace (attached, "<devices/>", hostdev),
                  *locked = fixture_replace (attached, "<memoryBacking>", "<memoryBacking><locked/>"),
                  *cells = fixture_replace (private, "unit='GiB'/>", "unit='GiB' memAccess='shared'/>");
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_check_live (attached, window, &error));
  g_assert_true (domain_check_live (attached, window / 2, &error));
  g_assert_true (domain_check_live (cells, window, &error));
  not_live (attached, window * 2, "has room for a window of 4 GiB, not of 8 GiB; use --window 4G");
  not_live (before, window, "memory is not shared");
  not_live (private, window, "memory is not shared (<memoryBacking> has no <access mode='shared'/>)");
  not_live (portless, window, "started without a port");
  not_live (odd_room, window, "started without a port");
  not_live (plugged, window, "a PCI device of the host");
  not_live (locked, window, "memory is locked");
}

static void
test_start (void) {
  static const struct {
    const char *from, *to, *word;
  } cases[] = {
    { "<devices/>", "<devices><hostdev mode='subsystem' type='mdev'/></devices>", "a mediated device" },
    { "<memoryBacking>", "<memoryBacking><locked/>", "memory is locked" },
    { "<devices/>", "<devices/><launchSecurity type='sev'/>", "encrypted" },
    { "<access mode='shared'/>", "<access mode='private'/>",
      "memory is not shared (<memoryBacking> has no <access mode='shared'/> (line " },
    { "<qemu:arg value='-numa'/>", "<qemu:arg value='-overcommit'/><qemu:arg value='mem-lock=on'/><qemu:arg value='-numa'/>",
      "locks memory" },
    { "<qemu:arg value='-numa'/>",
      "<qemu:arg value='-device'/><qemu:arg value='vfio-pci,host=1:0.0'/><qemu:arg value='-numa'/>", "a device of the host" },
    { "</domain>", "", "can't be read" },
  };
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (before);
  g_autoptr (GError) none = NULL;

  g_assert_true (domain_check_start (attached, &none));
  g_assert_no_error (none);
  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *edited = fixture_replace (attached, cases[i].from, cases[i].to);
    g_autoptr (GError) error = NULL;

    g_assert_false (domain_check_start (edited, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    assert_one_line (error);
    if (!strstr (error->message, cases[i].word))
      g_error ("no “%s” in “%s”", cases[i].word, error->message);
    if (i + 1 < G_N_ELEMENTS (cases))
      g_assert_true (g_str_has_suffix (error->message, ", or take the memory device away with 'domybsctl detach'"));
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/read/no domain's XML", test_documents);
  g_test_add_func ("/read/identity", test_identity);
  g_test_add_func ("/read/identity that can't be one", test_bad_identity);
  g_test_add_func ("/read/seclabel, emulator", test_small_things);
  g_test_add_func ("/read/metadata", test_metadata);
  g_test_add_func ("/read/metadata that can't be right", test_bad_metadata);
  g_test_add_func ("/read/a record that lies", test_lying_record);
  g_test_add_func ("/read/metadata for libvirt", test_for_libvirt);
  g_test_add_func ("/read/a domain that is to start", test_start);
  g_test_add_func ("/read/a running domain", test_live);
  return g_test_run ();
}
