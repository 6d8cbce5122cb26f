/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far disks: attached to domains of many shapes, alone and beside the memory device, and taken back. */
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

#define GIB(n) ((guint64)(n) << 30)
#define FOLDER "/run/domybs/vm/5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b01"

static const DomainFar both = { { GIB (8), GIB (32) }, (char *)"/var/lib/domybs/far", FALSE };
static const DomainFar one = { { GIB (2), 0 }, (char *)"nbd+unix:///far?socket=/run/a&b.sock", TRUE, .protection = DOMAIN_FAR_PROTECTION_SSD };
static const DomainAttachOptions far_only = { .far = &both }, one_only = { .far = &one };

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

static char *
attach (const char *xml, const DomainAttachOptions *options, GPtrArray *changes) {
  g_autoptr (GError) error = NULL;
  char *text = domain_attach (xml, options, &fixture_host, FIXTURE_SOCKET, changes, &error);

  g_assert_no_error (error);
  return text;
}

static char *
detach_far (const char *xml) {
  g_autoptr (GError) error = NULL;
  char *text = domain_detach_parts (xml, &(DomainParts){ .far = TRUE }, NULL, &error);

  g_assert_no_error (error);
  return text;
}

static DomainAttachOptions
with_memory (const DomainFar *far) {
  DomainAttachOptions options = fixture_options;

  options.far = far;
  return options;
}

static void
assert_far (const char *xml, const DomainFar *expected) {
  g_auto (DomainFar) far = { { 0 }, NULL, FALSE };
  unsigned queues[DOMAIN_FAR_TIERS];
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_read_far (xml, &far, queues, &error));
  g_assert_no_error (error);
  g_assert_cmpstr (far.storage, ==, expected->storage);
  g_assert_cmpint (far.compress, ==, expected->compress);
  g_assert_cmpint (far.protection, ==, expected->protection);
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    g_assert_cmpuint (far.bytes[tier], ==, expected->bytes[tier]);
    g_assert_cmpuint (queues[tier] > 0, ==, expected->bytes[tier] > 0);
    g_assert_cmpuint (queues[tier], <=, DOMAIN_FAR_QUEUES_MAX);
  }
}

static void
assert_no_far (const char *xml) {
  g_auto (DomainFar) far = { { 0 }, NULL, FALSE };
  unsigned queues[DOMAIN_FAR_TIERS];
  g_autoptr (GError) error = NULL;

  g_assert_false (domain_read_far (xml, &far, queues, &error));
  g_assert_no_error (error);
}

/* ---- every fixture ---- */

static void
test_alone (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = attach (before, &far_only, NULL),
                  *again = attach (attached, &far_only, NULL), *after = fixture_detach (attached),
                  *after_far = detach_far (attached);
  g_autoptr (GError) error = NULL;
  DomainMemory memory;

  assert_far (attached, &both);
  g_assert_false (domain_read_memory (attached, &memory, &error));
  g_assert_no_error (error);
  g_assert_true (domain_check_start (attached, &error));
  assert_has (attached, "path='" FOLDER "/far-shared.sock'");
  assert_has (attached, "path='" FOLDER "/far-remote.sock'");
  assert_lacks (attached, "virtio-id=");
  fixture_assert_same (name, again, attached);
  fixture_assert_same (name, after, before);
  fixture_assert_same (name, after_far, before);
}

static void
test_beside (gconstpointer name) {
  const DomainAttachOptions options = with_memory (&both);
  g_autofree char *before = fixture_read (name), *memory_only = fixture_attach (before),
                  *attached = attach (before, &options, NULL), *added = attach (memory_only, &options, NULL),
                  *after = fixture_detach (attached), *without_far = detach_far (attached),
                  *updated = attach (without_far, &fixture_options, NULL);
  DomainMemory memory;
  g_autoptr (GError) error = NULL;

  assert_far (attached, &both);
  g_assert_true (domain_read_memory (attached, &memory, &error));
  g_assert_no_error (error);
  g_assert_cmpuint (memory.window_bytes, ==, fixture_options.window_bytes);
  fixture_assert_same (name, added, attached);
  fixture_assert_same (name, after, before);
  assert_no_far (without_far);
  assert_lacks (without_far, "ua-domybs");
  /* but for the slot of the hidden port, which leaves one to libvirt beside far disks */
  if (strcmp (updated, without_far) == 0)
    fixture_assert_same (name, without_far, memory_only);
  else
    fixture_assert_same (name, updated, memory_only);
}

/* Other sizes, another storage, one disk instead of two. */
static void
test_update (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = attach (before, &far_only, NULL);
  g_autoptr (GPtrArray) changes = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *updated = attach (attached, &one_only, changes), *direct = attach (before, &one_only, NULL),
                  *after = fixture_detach (updated);

  g_assert_cmpuint (changes->len, >, 1);
  assert_far (updated, &one);
  fixture_assert_same (name, updated, direct);
  fixture_assert_same (name, after, before);
}

/* ---- what exactly ---- */

static void
test_whole (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = attach (before, &one_only, NULL);

  fixture_assert_same ("hand-minimal.xml", attached,
                       "<domain type='qemu'>\n"
                       "  <name>tiny</name>\n"
                       "  <uuid>5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b02</uuid>\n"
                       "  <metadata>\n"
                       "    <domybs:domybs xmlns:domybs=\"urn:domybs:libvirt:1\">\n"
                       "      <domybs:far shared=\"2147483648\" storage=\"nbd+unix:///far?socket=/run/a&amp;b.sock\" "
                       "compress=\"yes\" protection=\"ssd\" last-bus=\"0\"/>\n"
                       "      <domybs:added what=\"memoryBacking\"/>\n"
                       "      <domybs:added what=\"source\"/>\n"
                       "      <domybs:added what=\"access\"/>\n"
                       "      <domybs:added what=\"metadata\"/>\n"
                       "    </domybs:domybs>\n"
                       "  </metadata>\n"
                       "  <memory unit='GiB'>1</memory>\n"
                       "  <memoryBacking>\n"
                       "    <source type='memfd'/>\n"
                       "    <access mode='shared'/>\n"
                       "  </memoryBacking>\n"
                       "  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n"
                       "  <devices>\n"
                       "    <disk type='vhostuser' device='disk' snapshot='no'>\n"
                       "      <driver name='qemu' type='raw' queues='1'/>\n"
                       "      <source type='unix' path='" FOLDER "/far-shared.sock'>\n"
                       "        <reconnect enabled='yes' timeout='1'/>\n"
                       "      </source>\n"
                       "      <target dev='vda' bus='virtio'/>\n"
                       "      <alias name='ua-domybs-shared'/>\n"
                       "    </disk>\n"
                       "  </devices>\n"
                       "</domain>\n");
}

static char *
with_devices (const char *devices) {
  g_autofree char *minimal = fixture_read ("hand-minimal.xml");

  return fixture_replace (minimal, "<devices/>", devices);
}

static void
test_targets (void) {
  static const struct {
    const char *taken, *shared, *remote;
  } cases[] = {
    { "vda", "vdb", "vdc" },      { "vdz", "vdaa", "vdab" }, { "vdy", "vdz", "vdaa" },
    { "vdzz", "vdaaa", "vdaab" }, { "sda", "vda", "vdb" },   { "vdzzy", "vdzzz", "vda" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *devices
        = g_strdup_printf ("<devices>\n    <disk><target dev='%s'/></disk>\n    <disk><target "
                           "dev='hda'/></disk>\n  </devices>",
                           cases[i].taken),
        *before = with_devices (devices), *attached = attach (before, &far_only, NULL), *after = NULL,
        *shared = g_strdup_printf ("<target dev='%s' bus='virtio'/>\n      <alias name='ua-domybs-shared'/>", cases[i].shared),
        *remote = g_strdup_printf ("<target dev='%s' bus='virtio'/>\n      <alias name='ua-domybs-remote'/>", cases[i].remote);

    assert_has (attached, shared);
    assert_has (attached, remote);
    after = fixture_detach (attached);
    fixture_assert_same (cases[i].taken, after, before);
  }
}

static void
test_queues (void) {
  static const struct {
    const char *vcpu, *queues;
  } cases[] = {
    { "<vcpu>1</vcpu>", "'1'" },
    { "<vcpu current='1'>3</vcpu>", "'3'" },
    { "<vcpu>64</vcpu>", "'4'" },
    { "<vcpu>x</vcpu>", "'1'" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *devices = g_strconcat (cases[i].vcpu, "<devices/>", NULL), *before = with_devices (devices),
                    *attached = attach (before, &one_only, NULL),
                    *expected = g_strconcat (" queues=", cases[i].queues, "/>", NULL);

    assert_has (attached, expected);
  }
}

/* libvirt gives the disks addresses, and adds root ports for them. */
static void
test_ports (void) {
  static const char port[]
      = "    <controller type='pci' index='%d' model='pcie-root-port'>\n      <model name='pcie-root-port'/>\n"
        "      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x%d'/>\n"
        "    </controller>\n";
  static const char nic[] = "    <interface><address type='pci' bus='0x%02x'/></interface>\n";
  g_autofree char *port1 = g_strdup_printf (port, 1, 1), *port2 = g_strdup_printf (port, 2, 2),
                  *devices = g_strdup_printf ("<devices>\n%s%s  </devices>", port1, port2), *before = with_devices (devices),
                  *attached = attach (before, &far_only, NULL),
                  *at2 = fixture_replace (attached, "      <alias name='ua-domybs-shared'/>\n",
                                          "      <alias name='ua-domybs-shared'/>\n      <address type='pci' bus='0x02'/>\n"),
                  *at3 = fixture_replace (at2, "      <alias name='ua-domybs-remote'/>\n",
                                          "      <alias name='ua-domybs-remote'/>\n      <address type='pci' bus='0x03'/>\n"),
                  *port34 = NULL, *defined = NULL, *after = NULL, *with_nic = NULL, *used = NULL, *after_used = NULL;

  assert_has (attached, " last-bus=\"2\"/>");
  {
    g_autofree char *port3 = g_strdup_printf (port, 3, 3), *nic3 = g_strdup_printf (nic, 3), *nic_and_end = NULL;

    port34 = g_strconcat (port3, "  </devices>", NULL);
    defined = fixture_replace (at3, "  </devices>", port34);
    after = fixture_detach (defined);
    fixture_assert_same ("port of its own", after, before);

    /* One that somebody uses stays. */
    nic_and_end = g_strconcat (nic3, "  </devices>", NULL);
    with_nic = fixture_replace (defined, "  </devices>", nic_and_end);
    after_used = fixture_detach (with_nic);
    used = g_strdup_printf ("<devices>\n%s%s%s%s  </devices>", port1, port2, port3, nic3);
    g_autofree char *expected = with_devices (used);

    fixture_assert_same ("port in use", after_used, expected);
  }
}

static void
test_edits_remain (void) {
  g_autofree char *before = fixture_read ("many-devices.xml"), *attached = attach (before, &far_only, NULL),
                  *edited = fixture_replace (attached, "</on_crash>", "</on_crash>\n  <!-- mine -->"),
                  *after = fixture_detach (edited),
                  *expected = fixture_replace (before, "</on_crash>", "</on_crash>\n  <!-- mine -->");

  fixture_assert_same ("edited", after, expected);
}

/* A disk that somebody has removed is not started for; attach puts it there again. */
static void
test_deleted_disk (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = attach (before, &far_only, NULL);
  const char *begin = strstr (attached, "    <disk"), *end = strstr (begin, "</disk>\n") + strlen ("</disk>\n");
  g_autofree char *less = g_strdup_printf ("%.*s%s", (int)(begin - attached), attached, end);
  g_auto (DomainFar) far = { { 0 }, NULL, FALSE };
  unsigned queues[DOMAIN_FAR_TIERS];
  g_autofree char *after = NULL, *repaired = NULL;

  g_assert_true (domain_read_far (less, &far, queues, NULL));
  g_assert_cmpuint (queues[DOMAIN_FAR_SHARED], ==, 0);
  g_assert_cmpuint (queues[DOMAIN_FAR_REMOTE], ==, 1);
  after = fixture_detach (less);
  repaired = attach (less, &far_only, NULL);
  fixture_assert_same ("after", after, before);
  fixture_assert_same ("repaired", repaired, attached);
}

static void
test_deleted_record (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = attach (before, &far_only, NULL);
  const char *begin = strstr (attached, "  <metadata>"), *end = strstr (begin, "</metadata>\n") + strlen ("</metadata>\n");
  g_autofree char *bare = g_strdup_printf ("%.*s%s", (int)(begin - attached), attached, end), *after = NULL;

  assert_no_far (bare);
  fixture_assert_refused (bare, &far_only, &fixture_host, "far disk already", "no record", "domybsctl detach", NULL);
  after = fixture_detach (bare);
  assert_lacks (after, "ua-domybs");
}

/* ---- refused ---- */

static void
refuse_far (DomainFar far, const char *word) {
  const DomainAttachOptions options = { .far = &far };
  g_autofree char *xml = fixture_read ("hand-minimal.xml");

  fixture_assert_refused (xml, &options, &fixture_host, word, NULL);
}

static void
test_refused (void) {
  static char folder[] = "/srv";
  static char *const bad[]
      = { (char *)"far", (char *)"", (char *)"nbd:x", (char *)"/a,b", (char *)"/a\nb", (char *)"http://x/", NULL };
  g_autofree char *xml = fixture_read ("hand-minimal.xml");

  refuse_far ((DomainFar){ { 0, 0 }, folder, FALSE }, "neither");
  refuse_far ((DomainFar){ { GIB (16384) + (2 << 20), 0 }, folder, FALSE }, "16 TiB");
  refuse_far ((DomainFar){ { 0, 32 << 20 }, folder, FALSE }, "'remote' of 32 MiB");
  refuse_far ((DomainFar){ { GIB (1) + 4096, 0 }, folder, FALSE }, "multiple of 2 MiB");
  refuse_far ((DomainFar){ { GIB (1), GIB (1) }, (char *)"nbd://a/b", FALSE }, "two far disks");
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++)
    refuse_far ((DomainFar){ { GIB (1), 0 }, bad[i], FALSE }, "--far-storage");

  static const struct {
    const char *from, *to, *word;
  } shapes[] = {
    { "type='qemu'", "type='lxc'", "only QEMU" },
    { "<devices/>", "", "<devices>" },
    { "<devices/>", "<devices/><launchSecurity type='sev'/>", "encrypted" },
    { "<devices/>", "<devices><memory access='private'/></devices>", "private" },
    { "<devices/>", "<devices><memory/><memory/><memory/><memory/><memory/><memory/><memory/><memory/></devices>",
      "9 regions" },
    { "<memory unit='GiB'>1</memory>", "<memory>many</memory>", "<memory>" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (shapes); i++) {
    g_autofree char *odd = fixture_replace (xml, shapes[i].from, shapes[i].to);

    fixture_assert_refused (odd, &far_only, &fixture_host, shapes[i].word, NULL);
  }
}

/* What rules the memory device out, but not a disk. */
static void
test_not_refused (void) {
  static const struct {
    const char *from, *to;
  } shapes[] = {
    { "machine='q35'", "machine='pc'" },
    { "arch='x86_64' machine='q35'", "arch='aarch64' machine='virt'" },
    { "<devices/>", "<devices><hostdev type='pci'/></devices>" },
    { "<devices/>", "<devices><memory/><memory/><memory/><memory/><memory/><memory/><memory/></devices>" },
  };
  const DomainHost old = { .qemu_version = 7002000 };
  const DomainAttachOptions memory_too = with_memory (&both);
  g_autofree char *xml = fixture_read ("hand-minimal.xml");

  for (gsize i = 0; i < G_N_ELEMENTS (shapes); i++) {
    g_autofree char *odd = fixture_replace (xml, shapes[i].from, shapes[i].to),
                    *attached = domain_attach (odd, &far_only, &old, FIXTURE_SOCKET, NULL, NULL), *after = NULL;
    g_autoptr (GError) error = NULL;

    g_assert_nonnull (attached);
    g_assert_true (domain_check_start (attached, &error));
    after = fixture_detach (attached);
    fixture_assert_same (shapes[i].to, after, odd);
    fixture_assert_refused (odd, &memory_too, &old, ";", NULL);
  }
}

static void
test_damaged (void) {
  static const struct {
    const char *from, *to;
  } edits[] = {
    { "shared=\"8589934592\"", "shared=\"8589934593\"" },
    { "shared=\"8589934592\"", "shared=\"-1\"" },
    { "shared=\"8589934592\"", "shared=\"99999999999999\"" },
    { "compress=\"no\"", "compress=\"maybe\"" },
    { "compress=\"no\"", "compress=\"no\" wear=\"1\"" },
    { "compress=\"no\"", "compress=\"no\" protection=\"raid\"" },
    { "compress=\"no\"", "compress=\"no\" protection=\"default\"" },
    { "compress=\"no\"", "compress=\"no\" protection=\"ssd,storage=/etc/shadow\"" },
    { "compress=\"no\"", "compress=\"no\" protection=\"\"" },
    { "compress=\"no\"", "compress=\"no\" wear=\"1152921504606846976\"" },
    { "shared=\"8589934592\"", "shared=\"8589934592\" mem-shared=\"1\"" },
    { "storage=\"/var/lib/domybs/far\"", "storage=\"var\"" },
    { "storage=\"/var/lib/domybs/far\"", "" },
    { "storage=\"/var/lib/domybs/far\"", "storage=\"/a,size=1\"" },
    { " last-bus=\"0\"", "" },
    { " last-bus=\"0\"", " last-bus=\"256\"" },
    { "shared=\"8589934592\" remote=\"34359738368\"", "" },
    { "<domybs:far ", "<domybs:far/><domybs:far " },
  };
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = attach (before, &far_only, NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (edits); i++) {
    g_autofree char *damaged = fixture_replace (attached, edits[i].from, edits[i].to);
    g_auto (DomainFar) far = { { 0 }, NULL, FALSE };
    unsigned queues[DOMAIN_FAR_TIERS];
    g_autoptr (GError) error = NULL, detach_error = NULL, far_error = NULL;

    g_assert_false (domain_read_far (damaged, &far, queues, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    g_assert_nonnull (strstr (error->message, "damaged"));
    g_assert_null (domain_detach (damaged, NULL, &detach_error));
    g_assert_error (detach_error, CTL_ERROR, CTL_ERROR_REFUSED);
    g_assert_null (domain_detach_parts (damaged, &(DomainParts){ .far = TRUE }, NULL, &far_error));
    g_assert_error (far_error, CTL_ERROR, CTL_ERROR_REFUSED);
  }
  static const char *const queues_edits[] = { "queues='0'", "queues='17'", "queues='many'" };

  for (gsize i = 0; i < G_N_ELEMENTS (queues_edits); i++) {
    g_autofree char *damaged = fixture_replace (attached, "queues='1'", queues_edits[i]);
    g_auto (DomainFar) far = { { 0 }, NULL, FALSE };
    unsigned queues[DOMAIN_FAR_TIERS];
    g_autoptr (GError) error = NULL;

    g_assert_false (domain_read_far (damaged, &far, queues, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  }
}

static void
test_not_attached (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *memory_only = fixture_attach (before);
  g_autoptr (GError) error = NULL, error_beside = NULL;

  g_assert_null (domain_detach_parts (before, &(DomainParts){ .far = TRUE }, NULL, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND);
  g_assert_null (domain_detach_parts (memory_only, &(DomainParts){ .far = TRUE }, NULL, &error_beside));
  g_assert_error (error_beside, CTL_ERROR, CTL_ERROR_NOT_FOUND);
}

/* libvirt takes the element without prefix; the far disks in it must survive a hot unplug of the memory device. */
static void
test_metadata (void) {
  const DomainAttachOptions options = with_memory (&both);
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *attached = attach (before, &options, NULL),
                  *alone = attach (before, &far_only, NULL), *text = NULL;
  g_autoptr (GError) error = NULL;
  DomainMemory memory;

  g_assert_true (domain_read_memory (attached, &memory, NULL));
  memory.present = FALSE;
  text = domain_metadata_for_libvirt (attached, &memory, &error);
  g_assert_no_error (error);
  assert_has (text, "<far shared=\"8589934592\" remote=\"34359738368\" storage=\"/var/lib/domybs/far\"");
  assert_has (text, "present=\"no\"");
  g_assert_null (domain_metadata_for_libvirt (alone, &memory, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_NOT_FOUND);
}

static void
add_for_all (const char *what, void (*test) (gconstpointer name)) {
  g_autoptr (GPtrArray) names = fixture_names ();

  for (guint i = 0; i < names->len; i++) {
    g_autofree char *path = g_strdup_printf ("/far/%s/%s", what, (char *)names->pdata[i]);

    g_test_add_data_func_full (path, g_strdup (names->pdata[i]), (GTestDataFunc)test, g_free);
  }
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  add_for_all ("alone and back", test_alone);
  add_for_all ("beside the memory device and back", test_beside);
  add_for_all ("other disks are an update", test_update);
  g_test_add_func ("/far/the whole of it", test_whole);
  g_test_add_func ("/far/targets are behind all others", test_targets);
  g_test_add_func ("/far/a queue for each processor, up to four", test_queues);
  g_test_add_func ("/far/ports that libvirt adds go with the disks", test_ports);
  g_test_add_func ("/far/edits in between remain", test_edits_remain);
  g_test_add_func ("/far/a disk was deleted", test_deleted_disk);
  g_test_add_func ("/far/the record was deleted", test_deleted_record);
  g_test_add_func ("/far/refused", test_refused);
  g_test_add_func ("/far/not refused", test_not_refused);
  g_test_add_func ("/far/damaged", test_damaged);
  g_test_add_func ("/far/not attached", test_not_attached);
  g_test_add_func ("/far/metadata as libvirt takes it", test_metadata);
  return g_test_run ();
}
