/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Attach and detach on domains of many shapes, with nothing and with somebody's edits in between. */
#include <libxml/parser.h>
#include <libxml/relaxng.h>
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

static void
assert_has (const char *text, const char *part) {
  if (!strstr (text, part))
    g_error ("no “%s” in:\n%s", part, text);
}

static void
assert_lacks (const char *text, const char *part) {
  if (strstr (text, part))
    g_error ("there is “%s” in:\n%s", part, text);
}

static unsigned
count (const char *text, const char *part) {
  g_auto (GStrv) parts = g_strsplit (text, part, -1);

  return g_strv_length (parts) - 1;
}

/* ---- every fixture ---- */

static void
test_back (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before), *after = fixture_detach (attached);
  DomainMemory memory;
  g_autoptr (GError) error = NULL;

  g_assert_cmpstr (before, !=, attached);
  g_assert_true (domain_read_memory (attached, &memory, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (memory.window_bytes, ==, fixture_options.window_bytes);
  g_assert_cmpuint (memory.local_max_bytes, ==, fixture_options.local_max_bytes);
  g_assert_false (memory.populate);
  g_assert_true (memory.present);
  g_assert_cmpint (memory.numa_node, >, 0);
  assert_has (attached,
              "vhost-user-test-device-pci,id=domybs0,bus=domybs-port,chardev=domybs-chr,virtio-id=37,num_vqs=2,config_size=64");
  assert_has (attached, "socket,id=domybs-chr,path=" FIXTURE_SOCKET "'");
  assert_lacks (attached, "reconnect");
  fixture_assert_same (name, after, before);
  g_assert_false (domain_read_memory (after, &memory, &error));
  g_assert_no_error (error);
}

/* Every line of the file is still there, in its order: attach only adds lines, or parts of lines. */
static void
test_nothing_lost (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before);
  g_auto (GStrv) lines = g_strsplit (before, "\n", -1), new_lines = g_strsplit (attached, "\n", -1);
  int n_changed = 0, at = 0;

  for (int i = 0; lines[i]; i++) {
    int next = at;

    while (new_lines[next] && strcmp (lines[i], new_lines[next]) != 0)
      next++;
    if (new_lines[next])
      at = next + 1;
    else
      n_changed++;
  }
  /* <domain> gets a namespace, <cpu/> and <memoryBacking/> content, private becomes shared, anonymous memfd */
  g_assert_cmpint (n_changed, <=, 5);
}

static void
test_twice (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before);
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *again = domain_attach (attached, &fixture_options, &fixture_host, FIXTURE_SOCKET, changes, NULL);

  fixture_assert_same (name, again, attached);
  g_assert_cmpuint (changes->len, ==, 0);
}

static void
test_update (gconstpointer name) {
  const DomainAttachOptions other
      = { .window_bytes = G_GUINT64_CONSTANT (8) << 30, .local_max_bytes = 2 << 20, .populate = TRUE };
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before);
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autofree char *updated = domain_attach (attached, &other, &fixture_host, FIXTURE_SOCKET, changes, &error), *after = NULL;
  g_autofree char *direct = domain_attach (before, &other, &fixture_host, FIXTURE_SOCKET, NULL, NULL);
  DomainMemory memory;

  g_assert_no_error (error);
  g_assert_cmpuint (changes->len, >, 1);
  g_assert_true (domain_read_memory (updated, &memory, NULL));
  g_assert_cmpuint (memory.window_bytes, ==, other.window_bytes);
  g_assert_true (memory.populate);
  g_assert_cmpint (memory.numa_node, ==, -1);
  fixture_assert_same (name, updated, direct);
  after = fixture_detach (updated);
  fixture_assert_same (name, after, before);
}

G_GNUC_PRINTF (2, 3)
static void
print_invalid (void *name, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  g_test_message ("%s: %s", (char *)name, text);
}

/* Against libvirt's own schema, where it is installed. */
static void
test_schema (void) {
  static const char schema_path[] = "/usr/share/libvirt/schemas/domain.rng";
  g_autoptr (GPtrArray) names = fixture_names ();
  xmlRelaxNGParserCtxt *parser;
  xmlRelaxNG *schema;
  unsigned n_valid = 0;

  if (!g_file_test (schema_path, G_FILE_TEST_EXISTS)) {
    g_test_skip ("libvirt's schemas are not installed (package libvirt0)");
    return;
  }
  parser = xmlRelaxNGNewParserCtxt (schema_path);
  schema = xmlRelaxNGParse (parser);
  g_assert_nonnull (schema);
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *before = fixture_read (names->pdata[i]), *attached = fixture_attach (before);
    const char *const texts[] = { before, attached };
    int valid[2];

    for (int k = 0; k < 2; k++) {
      xmlDoc *document = xmlReadMemory (texts[k], (int)strlen (texts[k]), NULL, NULL, XML_PARSE_NONET);
      xmlRelaxNGValidCtxt *context = xmlRelaxNGNewValidCtxt (schema);

      xmlRelaxNGSetValidErrors (context, print_invalid, NULL, (void *)names->pdata[i]);
      valid[k] = xmlRelaxNGValidateDoc (context, document);
      xmlRelaxNGFreeValidCtxt (context);
      xmlFreeDoc (document);
    }
    /* An old libvirt's schema does not know all that the newer fixtures have. */
    if (valid[0] != 0)
      g_test_message ("%s itself is not valid for this libvirt's schema", (char *)names->pdata[i]);
    else
      g_assert_cmpint (valid[1], ==, 0);
    n_valid += valid[1] == 0;
  }
  xmlRelaxNGFree (schema);
  xmlRelaxNGFreeParserCtxt (parser);
  g_assert_cmpuint (n_valid, >, names->len / 2);
}

/* ---- what exactly is added ---- */

static char *
attach_telling (const char *xml, const DomainAttachOptions *options, const char *sentence) {
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  char *text = domain_attach (xml, options, &fixture_host, FIXTURE_SOCKET, changes, &error);
  gboolean told = FALSE;

  g_assert_no_error (error);
  for (guint i = 0; i < changes->len; i++) {
    g_test_message ("%s", (char *)changes->pdata[i]);
    told |= strstr (changes->pdata[i], sentence) != NULL;
  }
  g_assert_true (told);
  return text;
}

static void
test_whole (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (before);

  fixture_assert_same (
      "hand-minimal.xml", attached,
      "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n"
      "  <name>tiny</name>\n"
      "  <uuid>5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b02</uuid>\n"
      "  <metadata>\n"
      "    <domybs:domybs xmlns:domybs=\"urn:domybs:libvirt:1\">\n"
      "      <domybs:memory window=\"4294967296\" local-max=\"2147483648\" grant=\"reserve\" numa-node=\"1\" "
      "present=\"yes\"/>\n"
      "      <domybs:added what=\"memoryBacking\"/>\n"
      "      <domybs:added what=\"source\"/>\n"
      "      <domybs:added what=\"access\"/>\n"
      "      <domybs:added what=\"cpu\"/>\n"
      "      <domybs:added what=\"numa\"/>\n"
      "      <domybs:added what=\"cell\"/>\n"
      "      <domybs:added what=\"xmlns\"/>\n"
      "      <domybs:added what=\"commandline\"/>\n"
      "      <domybs:added what=\"metadata\"/>\n"
      "    </domybs:domybs>\n"
      "  </metadata>\n"
      "  <memory unit='GiB'>1</memory>\n"
      "  <memoryBacking>\n"
      "    <source type='memfd'/>\n"
      "    <access mode='shared'/>\n"
      "  </memoryBacking>\n"
      "  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n"
      "  <cpu>\n"
      "    <numa>\n"
      "      <cell id='0' cpus='0' memory='1' unit='GiB'/>\n"
      "    </numa>\n"
      "  </cpu>\n"
      "  <devices/>\n"
      "  <qemu:commandline>\n"
      "    <qemu:arg value='-device'/>\n"
      "    <qemu:arg value='pcie-root-port,id=domybs-port,bus=pcie.0,addr=0x10,port=0x80,chassis=255,pref64-reserve=8G'/>\n"
      "    <qemu:arg value='-chardev'/>\n"
      "    <qemu:arg value='socket,id=domybs-chr,path=" FIXTURE_SOCKET "'/>\n"
      "    <qemu:arg value='-device'/>\n"
      "    <qemu:arg "
      "value='vhost-user-test-device-pci,id=domybs0,bus=domybs-port,chardev=domybs-chr,virtio-id=37,num_vqs=2,config_size=64'/"
      ">\n"
      "    <qemu:arg value='-numa'/>\n"
      "    <qemu:arg value='node,nodeid=1'/>\n"
      "    <qemu:arg value='-object'/>\n"
      "    <qemu:arg value='acpi-generic-initiator,id=domybs-initiator,pci-dev=domybs-port,node=1'/>\n"
      "  </qemu:commandline>\n"
      "</domain>\n");
}

static void
test_port (void) {
  static const struct {
    const char *name, *port;
  } cases[] = {
    { "many-devices.xml", ",addr=0x14,port=0xa0,chassis=254," }, /* 0x10 to 0x13 and chassis 255 are libvirt's */
    { "commandline-args-and-env.xml",
      ",addr=0x12,port=0x90,chassis=255," }, /* 0x10 and 0x11 are the user's, in both syntaxes */
    { "commandline-own-prefix.xml", ",addr=0x10,port=0x80,chassis=254," },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *before = fixture_read (cases[i].name), *attached = fixture_attach (before);

    assert_has (attached, cases[i].port);
  }
  g_autofree char *raw = fixture_read ("hand-minimal.xml");
  g_autofree char *indexed
      = fixture_replace (raw, "<devices/>", "<devices><controller type='pci' index='255' model='pcie-root-port'/></devices>");
  g_autofree char *attached = fixture_attach (indexed);

  assert_has (attached, "chassis=254,");
}

static void
test_commas (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *after = NULL;
  g_autofree char *attached = domain_attach (before, &fixture_options, &fixture_host, "/tmp/a,b'<&>\"c.sock", NULL, NULL);

  assert_has (attached, "path=/tmp/a,,b&apos;&lt;&amp;&gt;&quot;c.sock'/>");
  after = fixture_detach (attached);
  fixture_assert_same ("commas", after, before);
}

static void
test_prefix (void) {
  g_autofree char *before = fixture_read ("commandline-own-prefix.xml"), *attached = fixture_attach (before);
  g_autofree char *none = fixture_replace (before, "xmlns:q=\"http://libvirt.org/schemas/domain/qemu/1.0\"",
                                           "xmlns:q='urn:a' xmlns:qemu=\"urn:other\"");

  g_assert_cmpuint (count (attached, "<q:arg value='"), ==, 10);
  assert_lacks (attached, "qemu:arg");
  assert_lacks (attached, "xmlns:qemu");
  fixture_assert_refused (none, &fixture_options, &fixture_host, "prefix 'qemu'", NULL);

  /* No prefix at all */
  g_autofree char *minimal = fixture_read ("hand-minimal.xml");
  g_autofree char *bare = fixture_replace (minimal, "<devices/>",
                                           "<devices/>\n  <commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'/>");
  g_autofree char *bare_attached = fixture_attach (bare), *bare_after = fixture_detach (bare_attached);

  assert_has (bare_attached, "\n    <arg value='-chardev'/>");
  fixture_assert_same ("bare", bare_after, bare);
}

static void
test_node (void) {
  const DomainAttachOptions no_node
      = { .window_bytes = fixture_options.window_bytes, .local_max_bytes = fixture_options.local_max_bytes };
  g_autofree char *distances = fixture_read ("numa-distances.xml"), *with_distances = fixture_attach (distances);
  g_autofree char *hmat = fixture_read ("numa-hmat.xml"), *with_hmat = fixture_attach (hmat);
  g_autofree char *minimal = fixture_read ("hand-minimal.xml");
  g_autofree char *without = attach_telling (minimal, &no_node, "shared");
  g_autofree char *user_text = fixture_read ("commandline-own-prefix.xml");
  g_autofree char *user = fixture_replace (user_text, "-smbios", "-numa"), *with_user = NULL;
  g_autofree char *dimm = fixture_replace (minimal, "<devices/>", "<devices><memory model='dimm'/></devices>"),
                  *with_dimm = NULL;
  DomainMemory memory;

  assert_has (with_distances, "'node,nodeid=3'");
  for (int i = 0; i < 3; i++) {
    g_autofree char *to = g_strdup_printf ("'dist,src=%d,dst=3,val=31'", i),
                    *from = g_strdup_printf ("'dist,src=3,dst=%d,val=31'", i);

    assert_has (with_distances, to);
    assert_has (with_distances, from);
  }
  assert_lacks (with_distances, "dst=3,val=10");
  assert_has (with_hmat, "'node,nodeid=2,initiator=1'"); /* cell 0 has no processor */
  assert_lacks (with_hmat, "'dist,");
  g_autofree char *two = fixture_read ("numa-two-cells.xml");
  g_autofree char *cache
      = fixture_replace (two, "memory='524288' unit='KiB'/>", "memory='524288' unit='KiB'><cache level='1'/></cell>");
  g_autofree char *with_cache = fixture_attach (cache);

  assert_has (with_cache, "'node,nodeid=2,initiator=0'");

  assert_lacks (without, "-numa");
  assert_lacks (without, "<cell");
  assert_lacks (without, "initiator");
  g_assert_true (domain_read_memory (without, &memory, NULL));
  g_assert_cmpint (memory.numa_node, ==, -1);

  static const char *const bad_vcpus[] = { "<vcpu>0</vcpu>", "<vcpu>-1</vcpu>", "<vcpu>many</vcpu>", "<vcpu>65536</vcpu>" };

  for (gsize i = 0; i < G_N_ELEMENTS (bad_vcpus); i++) {
    g_autofree char *devices = g_strconcat (bad_vcpus[i], "<devices/>", NULL),
                    *bad = fixture_replace (minimal, "<devices/>", devices);
    g_autofree char *with_bad = attach_telling (bad, &fixture_options, "its <vcpu> or <memory> can't be understood");

    assert_lacks (with_bad, "<cell");
  }
  with_user
      = attach_telling (user, &fixture_options, "no NUMA node of its own: its <qemu:commandline> has NUMA nodes of its own");
  assert_lacks (with_user, "nodeid");
  assert_lacks (with_user, "<cell");
  with_dimm = attach_telling (dimm, &fixture_options, "no NUMA node of its own: it has <memory> devices but no NUMA cell");
  assert_lacks (with_dimm, "<cell");
}

static void
test_shared (void) {
  static const struct {
    const char *name, *has, *lacks;
  } cases[] = {
    { "backing-memfd-shared.xml", "<source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>",
      "what=\"source\"" },
    { "backing-file-shared.xml", "<source type='file'/>\n    <access mode='shared'/>", "what=\"access\"" },
    { "backing-anonymous.xml", "<source type='memfd'/>\n    <access mode='shared'/>\n    <allocation mode='immediate'/>",
      "anonymous'" },
    { "backing-anonymous.xml", "what=\"source\" was=\"anonymous\"/>\n      <domybs:added what=\"access\" was=\"private\"/>",
      "what=\"memoryBacking\"" },
    { "xml-only-hugepages.xml",
      "    </hugepages>\n    <nosharepages/>\n    <source type='memfd'/>\n    <access mode='shared'/>\n  </memoryBacking>",
      "what=\"memoryBacking\"" },
    { "numa-distances.xml", "what=\"memAccess\" cell=\"1\" was=\"private\"", "cell=\"2\"" },
    { "xml-only-kubevirt.xml", "what=\"cell\"", "what=\"source\"" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *before = fixture_read (cases[i].name), *attached = fixture_attach (before);

    g_test_message ("%s", cases[i].name);
    assert_has (attached, cases[i].has);
    assert_lacks (attached, cases[i].lacks);
    assert_lacks (attached, "memAccess='private'");
  }
}

/* A file stays what memory comes from, whoever chose it. */
static void
test_shared_file (void) {
  g_autofree char *fixture = fixture_read ("backing-file-shared.xml"),
                  *before = fixture_replace (fixture, "    <access mode='shared'/>\n", ""), *attached = fixture_attach (before),
                  *after = fixture_detach (attached);

  assert_has (attached, "<source type='file'/>\n    <access mode='shared'/>\n    <allocation");
  assert_lacks (attached, "what=\"source\"");
  fixture_assert_same ("file", after, before);
}

/* ---- edits in between ---- */

/* An edit made before attach, and the same one made after it: detach has to give the first. */
static void
edit_between (const char *name, const char *from, const char *to) {
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before),
                  *edited = fixture_replace (attached, from, to), *after = fixture_detach (edited),
                  *expected = fixture_replace (before, from, to), *again = NULL, *after_again = NULL;

  g_test_message ("%s: %s → %s", name, from, to);
  fixture_assert_same (name, after, expected);
  /* A second attach may move our part (the port, where somebody took its slot), but does not add to what detach takes back. */
  again = fixture_attach (edited);
  after_again = fixture_detach (again);
  fixture_assert_same (name, after_again, expected);
}

static void
test_edits_remain (void) {
  static const char with_disk[] = "<devices>\n    <disk type='file' device='disk'>\n      <source file='/d.img'/>\n      "
                                  "<target dev='vdb'/>\n    </disk>";

  edit_between ("numa-two-cells.xml", "<devices>", with_disk);
  edit_between ("numa-two-cells.xml", "<vcpu placement='static'>4<", "<vcpu placement='static' current='2'>4<");
  edit_between ("numa-two-cells.xml", "cpus='2-3' memory='524288'", "cpus='2-3' memory='1048576'");
  edit_between ("numa-distances.xml", "cpus='2-3'", "cpus='2,3'");
  edit_between ("vcpus-hotpluggable.xml", "current='2'>4</vcpu>", "current='3'>8</vcpu>");
  edit_between ("vcpus-hotpluggable.xml", "qemu64", "kvm64");
  edit_between ("vcpus-hotpluggable.xml", "<title>Spare capacity</title>\n  ", "");
  edit_between ("hand-minimal.xml", "<devices/>", "<devices><input type='tablet'/></devices>");
  edit_between ("hand-minimal.xml", "<name>tiny</name>", "<name>tiny</name> <!-- no --><title>Small</title>");
  edit_between ("hand-minimal.xml", "<memory unit='GiB'>1</memory>",
                "<memory unit='GiB'>1</memory>\n  <currentMemory>5</currentMemory>");
  edit_between ("hand-comments.xml", "<!-- no balloon -->", "<!-- <qemu:arg value='-device'/> domybs0 -->");
  edit_between ("hand-comments.xml", "<features>", "<memtune/>\r\n<features>");
  edit_between ("metadata-of-others.xml", "    <!-- billing reads this -->\n", "");
  edit_between ("metadata-of-others.xml", "<app:rate currency=\"EUR\">0.03</app:rate>",
                "<app:rate currency=\"EUR\">0.04</app:rate><app:a/>");
  edit_between ("commandline-args-and-env.xml", "<qemu:env name='EXAMPLE_EMPTY'/>",
                "<qemu:env name='EXAMPLE_EMPTY' value='1'/>\n    <qemu:env name='B' value=''/>");
  edit_between (
      "commandline-args-and-env.xml",
      "    <qemu:arg value='-fw_cfg'/>\n    <qemu:arg value='name=opt/com.example/note,string=a,,b &amp; &apos;c&apos;'/>\n",
      "");
  edit_between ("commandline-own-prefix.xml", "<q:arg value=\"-device\"/>", "<q:arg value=\"-S\"/><q:arg value=\"-device\"/>");
  edit_between ("backing-anonymous.xml", "<nosharepages/>", "<hugepages/>");
  edit_between ("many-devices.xml", "slot='0x13'", "slot='0x14'"); /* where our port was */
}

/* An edit that only makes sense when the device is attached: detach has to give `expected`, made from the file by another edit.
 */
static void
edit_ours (const char *name, const char *from, const char *to, const char *file_from, const char *file_to) {
  g_autofree char *before = fixture_read (name), *attached = fixture_attach (before),
                  *edited = fixture_replace (attached, from, to), *after = fixture_detach (edited),
                  *expected = file_from ? fixture_replace (before, file_from, file_to) : g_strdup (before);

  g_test_message ("%s: %s → %s", name, from, to);
  fixture_assert_same (name, after, expected);
}

static void
test_edits_of_ours (void) {
  static const char virtiofs[] = "<devices><filesystem><driver type='virtiofs'/></filesystem></devices>",
                    end[] = "  <devices/>\n";
  static const char shared[] = "  <memory unit='GiB'>1</memory>\n  <memoryBacking>\n    <source type='memfd'/>\n    <access "
                               "mode='shared'/>\n  </memoryBacking>\n";

  /* Memory that was changed since stays; what was not is taken back */
  edit_ours ("hand-minimal.xml", "<access mode='shared'/>", "<access mode='private'/>", "<memory unit='GiB'>1</memory>\n",
             "<memory unit='GiB'>1</memory>\n  <memoryBacking>\n    <access mode='private'/>\n  </memoryBacking>\n");
  edit_ours ("hand-minimal.xml", "<source type='memfd'/>", "<source type='file'/>", "<memory unit='GiB'>1</memory>\n",
             "<memory unit='GiB'>1</memory>\n  <memoryBacking>\n    <source type='file'/>\n  </memoryBacking>\n");
  edit_ours ("hand-minimal.xml", "<memoryBacking>", "<memoryBacking>\n    <hugepages/>", "<memory unit='GiB'>1</memory>\n",
             "<memory unit='GiB'>1</memory>\n  <memoryBacking>\n    <hugepages/>\n  </memoryBacking>\n");
  edit_ours ("backing-anonymous.xml", "<access mode='shared'/>", "", "<access mode='private'/>", "");
  edit_ours ("backing-anonymous.xml", "<source type='memfd'/>", "<source type='file'/>", "<source type='anonymous'/>",
             "<source type='file'/>");
  edit_ours ("numa-distances.xml", "memory='512' unit='MiB' memAccess='shared'", "memory='512' unit='MiB'",
             " memAccess='private'", "");

  /* Another application's metadata beside ours */
  edit_ours ("hand-minimal.xml", "<metadata>", "<metadata>\n    <a:a xmlns:a='urn:a'/>", "</uuid>\n",
             "</uuid>\n  <metadata>\n    <a:a xmlns:a='urn:a'/>\n  </metadata>\n");
  edit_ours ("hand-minimal.xml", "  </metadata>", "    <a:a xmlns:a='urn:a'/>\n  </metadata>", "</uuid>\n",
             "</uuid>\n  <metadata>\n    <a:a xmlns:a='urn:a'/>\n  </metadata>\n");

  /* Somebody else needs it shared now */
  {
    g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (before),
                    *edited = fixture_replace (attached, "<devices/>", virtiofs), *after = fixture_detach (edited),
                    *with = fixture_replace (before, "<devices/>", virtiofs),
                    *expected = fixture_replace (with, "  <memory unit='GiB'>1</memory>\n", shared);

    fixture_assert_same ("virtiofs", after, expected);
  }

  /* The cell: gone with whatever was changed in it; left when there is another one now */
  edit_ours ("vcpus-hotpluggable.xml", "cpus='0-3' memory='1049601' unit='KiB'/>",
             "cpus='0-7' memory='2097152' unit='KiB'><distances/></cell>", NULL, NULL);
  edit_ours ("hand-minimal.xml", "<cpu>", "<cpu mode='custom'>\n    <model fallback='forbid'>qemu64</model>", end,
             "  <cpu mode='custom'>\n    <model fallback='forbid'>qemu64</model>\n  </cpu>\n  <devices/>\n");
  edit_ours ("hand-minimal.xml", "memory='1' unit='GiB'/>", "memory='1' unit='GiB'/>\n      <cell id='1' memory='1'/>", end,
             "  <cpu>\n    <numa>\n      <cell id='0' cpus='0' memory='1' unit='GiB'/>\n      <cell id='1' memory='1'/>\n    "
             "</numa>\n  </cpu>\n  <devices/>\n");
  edit_ours ("hand-minimal.xml",
             "  <cpu>\n    <numa>\n      <cell id='0' cpus='0' memory='1' unit='GiB'/>\n    </numa>\n  </cpu>\n", "", NULL,
             NULL);

  /* Arguments of somebody between ours */
  {
    static const char own[] = "    <qemu:arg value='-S'/>\n    <qemu:env name='A'/>\n";
    g_autofree char *before
        = fixture_read ("hand-minimal.xml"),
        *attached = fixture_attach (before),
        *edited = fixture_replace (attached, "    <qemu:arg value='-numa'/>\n",
                                   "    <qemu:arg value='-S'/>\n    <qemu:env name='A'/>\n    <qemu:arg value='-numa'/>\n"),
        *after = fixture_detach (edited),
        *commandline = g_strdup_printf ("  <qemu:commandline>\n%s  </qemu:commandline>\n</domain>", own),
        *with = fixture_replace (before, "</domain>", commandline),
        *expected = fixture_replace (with, "'qemu'>", "'qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>");

    fixture_assert_same ("arguments between ours", after, expected);
  }
}

static char *
cut (const char *text, const char *from, const char *to) {
  const char *begin = strstr (text, from), *end = begin ? strstr (begin, to) : NULL;

  g_assert_nonnull (end);
  return g_strdup_printf ("%.*s%s", (int)(begin - text), text, end + strlen (to));
}

/* With anything of ours deleted by hand, detach removes the rest. */
static void
test_deleted_parts (void) {
  static const struct {
    const char *from, *to;
  } parts[] = {
    { "    <qemu:arg value='-chardev'/>", "backend.sock'/>\n" },
    { "    <qemu:arg value='socket,", "backend.sock'/>\n" }, /* only the value: the option is nobody's, see below */
    { "    <qemu:arg value='-numa'/>\n", "node,nodeid=1'/>\n" },
    { "    <qemu:arg value='-object'/>\n", "node=1'/>\n" },
    { "  <qemu:commandline>", "</qemu:commandline>\n" },
    { "  <memoryBacking>", "</memoryBacking>\n" },
    { "  <cpu>", "</cpu>\n" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (parts); i++) {
    g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (before),
                    *less = cut (attached, parts[i].from, parts[i].to), *after = fixture_detach (less),
                    *repaired = fixture_attach (less);

    g_test_message ("without %s", parts[i].from);
    if (i == 1) {
      assert_has (after, "<qemu:arg value='-chardev'/>\n  </qemu:commandline>");
      continue;
    }
    fixture_assert_same ("rest", after, before);
    fixture_assert_same ("repaired", repaired, attached);
  }
}

static void
test_deleted_record (void) {
  g_autofree char *before = fixture_read ("numa-two-cells.xml"), *attached = fixture_attach (before),
                  *bare = cut (attached, "  <metadata>", "</metadata>\n");
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GError) error = NULL;
  g_autofree char *after = domain_detach (bare, changes, &error);
  DomainMemory memory;

  g_assert_no_error (error);
  assert_lacks (after, "domybs");
  assert_lacks (after, "-numa");
  assert_has (after, "<access mode='shared'/>"); /* who made it so is not known any more */
  g_assert_nonnull (strstr (changes->pdata[0], "no record"));
  g_assert_false (domain_read_memory (bare, &memory, &error));
  g_assert_no_error (error);
  fixture_assert_refused (bare, &fixture_options, &fixture_host, "no record", "domybsctl detach", NULL);
}

static void
test_not_attached (void) {
  g_autoptr (GPtrArray) names = fixture_names ();

  for (guint i = 0; i < names->len; i++) {
    g_autofree char *before = fixture_read (names->pdata[i]);
    g_autoptr (GError) error = NULL;

    g_assert_null (domain_detach (before, NULL, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND);
    g_assert_nonnull (strchr (error->message, ';'));
  }
}

/* XML that is nearly as long as can be: attach stops at one of its edits, and says so. */
static void
test_long (void) {
  g_autofree char *before = fixture_read ("backing-empty.xml");
  unsigned n_refused = 0;

  for (gsize room = 0; room < 3000; room += 3000 / testing_steps (20)) {
    const gsize length = 4 * 1024 * 1024 - room - strlen (before) - strlen ("<!---->");
    g_autofree char *filling = g_strnfill (length, 'x'), *comment = g_strdup_printf ("<!--%s--><devices>", filling),
                    *text = fixture_replace (before, "<devices>", comment), *attached = NULL;
    g_autoptr (GError) error = NULL;

    attached = domain_attach (text, &fixture_options, &fixture_host, FIXTURE_SOCKET, NULL, &error);
    g_assert_true ((attached == NULL) == (error != NULL));
    if (error)
      g_assert_nonnull (strstr (error->message, "libvirt takes no more"));
    n_refused += error != NULL;
  }
  g_assert_cmpuint (n_refused, >, 0);
  g_assert_cmpuint (n_refused, <, 20);
}

static void
test_sentences (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = NULL, *after = NULL;
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free), back = g_ptr_array_new_with_free_func (g_free);

  attached = domain_attach (before, &fixture_options, &fixture_host, FIXTURE_SOCKET, changes, NULL);
  g_assert_cmpuint (changes->len, ==, 4);
  after = domain_detach (attached, back, NULL);
  g_assert_cmpuint (back->len, ==, 4);
  for (guint i = 0; i < 8; i++) {
    const char *sentence = i < 4 ? changes->pdata[i] : back->pdata[i - 4];

    g_test_message ("%s", sentence);
    g_assert_null (strchr (sentence, '\n'));
  }
}

static void
add_for_all (const char *what, void (*test) (gconstpointer name)) {
  g_autoptr (GPtrArray) names = fixture_names ();

  for (guint i = 0; i < names->len; i++) {
    g_autofree char *path = g_strdup_printf ("/attach/%s/%s", what, (char *)names->pdata[i]);

    g_test_add_data_func_full (path, g_strdup (names->pdata[i]), (GTestDataFunc)test, g_free);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  add_for_all ("detach gives the same bytes back", test_back);
  add_for_all ("nothing is lost", test_nothing_lost);
  add_for_all ("a second time changes nothing", test_twice);
  add_for_all ("other options are an update", test_update);
  g_test_add_func ("/attach/libvirt's schema accepts it", test_schema);
  g_test_add_func ("/attach/the whole of it", test_whole);
  g_test_add_func ("/attach/the port's slot and chassis are free", test_port);
  g_test_add_func ("/attach/special characters in the socket's path", test_commas);
  g_test_add_func ("/attach/any prefix of qemu:commandline", test_prefix);
  g_test_add_func ("/attach/NUMA node", test_node);
  g_test_add_func ("/attach/memory is shared with the least change", test_shared);
  g_test_add_func ("/attach/memory from files", test_shared_file);
  g_test_add_func ("/attach/XML that gets too long", test_long);
  g_test_add_func ("/attach/sentences for the operator", test_sentences);
  g_test_add_func ("/detach/edits in between remain", test_edits_remain);
  g_test_add_func ("/detach/edits of what attach made", test_edits_of_ours);
  g_test_add_func ("/detach/parts of it were deleted", test_deleted_parts);
  g_test_add_func ("/detach/the record was deleted", test_deleted_record);
  g_test_add_func ("/detach/not attached", test_not_attached);
  return g_test_run ();
}
