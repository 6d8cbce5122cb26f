/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Far disks of a running domain: what can be plugged into it, and what its metadata says then; and all kinds of far disks. */
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

#define GIB(n) ((guint64)(n) << 30)
#define FOLDER "/run/domybs/vm/5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b01"
#define SHARED "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
#define PORT(n) "<controller type='pci' index='" #n "' model='pcie-root-port'/>"

static const DomainFar two = { { GIB (8), GIB (32) }, (char *)"/srv/a&b", FALSE };
static const DomainFar four = { { GIB (1), GIB (2), GIB (3), GIB (4) }, (char *)"/var/lib/domybs/far", TRUE, GIB (100),
                               DOMAIN_FAR_PROTECTION_MIRROR };

static char *
live (const char *devices) {
  return g_strdup_printf ("<domain type='kvm' id='3'><name>vm</name><memory unit='GiB'>1</memory>" SHARED
                          "<vcpu>3</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>%s</devices></domain>",
                          devices);
}

static void
assert_has (const char *text, const char *part) {
  if (!strstr (text, part))
    g_error ("no “%s” in:\n%s", part, text);
}

/* ---- four kinds ---- */

/* Attached, read, and taken back in every shape, each disk with its own names. */
static void
all_kinds (void) {
  g_autoptr (GPtrArray) names = fixture_names ();

  for (guint i = 0; i < names->len; i++) {
    const DomainAttachOptions options = { .far = &four };
    g_autofree char *before = fixture_read (names->pdata[i]), *attached = NULL, *after = NULL;
    g_autoptr (GError) error = NULL;
    g_auto (DomainFar) far = { 0 };
    unsigned queues[DOMAIN_FAR_TIERS];
    gboolean there[DOMAIN_FAR_TIERS];

    attached = domain_attach (before, &options, &fixture_host, FIXTURE_SOCKET, NULL, &error);
    g_assert_no_error (error);
    g_assert_true (domain_read_far (attached, &far, queues, &error));
    g_assert_cmpuint (domain_far_there (attached, there), ==, DOMAIN_FAR_TIERS);
    for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
      g_autofree char *alias = domain_far_alias (tier), *socket = domain_far_socket_name (tier),
                      *path = g_build_filename (FOLDER, socket, NULL);

      g_assert_cmpuint (far.bytes[tier], ==, four.bytes[tier]);
      g_assert_cmpuint (far.wear_bytes, ==, four.wear_bytes);
      g_assert_cmpint (far.protection, ==, four.protection);
      g_assert_cmpuint (queues[tier], >, 0);
      g_assert_true (there[tier]);
      assert_has (attached, alias);
      assert_has (attached, path);
    }
    after = fixture_detach (attached);
    fixture_assert_same (names->pdata[i], after, before);
  }
}

/* ---- what can be plugged ---- */

static void
counts_ports (void) {
  static const char bridge[] = "<controller type='pci' index='0' model='pcie-root'/>";
  static const struct {
    const char *devices;
    gboolean fits;
  } cases[] = {
    { PORT (1) PORT (2), TRUE },
    { PORT (1) PORT (2) PORT (3), TRUE },
    { PORT (1), FALSE },
    { "", FALSE },
    { PORT (1) PORT (2) "<controller type='sata'><address type='pci' bus='0x02'/></controller>", FALSE },
    { PORT (1) PORT (10) "<interface><address type='pci' bus='0x0b'/></interface>", TRUE },
    { PORT (1) PORT (10) "<interface><address type='pci' bus='0x0a'/></interface>", FALSE },
    { PORT (1) "<controller type='pci' index='2' model='pcie-root-port'><target hotplug='off'/></controller>", FALSE },
    { PORT (1) "<controller type='pci' index='2' model='pcie-root-port'><target hotplug='on'/></controller>", TRUE },
    { PORT (1) "<controller type='pci' index='2' model='pcie-switch-downstream-port'/>", TRUE },
    { PORT (1) "<controller type='pci' index='2' model='pcie-to-pci-bridge'/>", FALSE },
    { PORT (1) "<controller type='pci' index='many' model='pcie-root-port'/>", FALSE },
    { PORT (1) "<controller type='usb' index='2' model='pcie-root-port'/>", FALSE },
  };
  g_autofree char *other = live ("<controller type='pci' index='0' model='pci-root'/>");
  g_autoptr (GError) other_error = NULL;

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *devices = g_strconcat (bridge, cases[i].devices, NULL), *xml = live (devices);
    g_autoptr (GError) error = NULL;

    g_test_message ("%s", cases[i].devices);
    g_assert_cmpint (domain_check_live_far (xml, &two, &error), ==, cases[i].fits);
    if (cases[i].fits)
      continue;
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    assert_has (error->message, "its far disks need 2; attach with --config");
  }
  g_assert_true (domain_check_live_far (other, &two, &other_error)); /* libvirt knows */
  g_assert_no_error (other_error);
}

static void
refuses (void) {
  static const struct {
    const char *from, *to, *word;
  } cases[] = {
    { SHARED, "", "memory is not shared" },
    { "access mode='shared'", "access mode='private'", "memory is not shared" },
    { "<devices>", "<devices><disk type='vhostuser'><alias name='ua-domybs-mem-remote'/></disk>", "far disk already" },
    { "<devices>", "<devices><launchSecurity/><memory access='private'/>", "private" },
    { "<devices>", "<devices><memory/><memory/><memory/><memory/><memory/><memory/><memory/><memory/>", "regions" },
    { "</domain>", "", "line" },
  };
  g_autofree char *good = live (PORT (1) PORT (2));

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *bad = fixture_replace (good, cases[i].from, cases[i].to);
    g_autoptr (GError) error = NULL;

    g_assert_false (domain_check_live_far (bad, &two, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    assert_has (error->message, cases[i].word);
  }
}

/* ---- what is plugged ---- */

static void
makes_devices (void) {
  g_autofree char *xml = live ("<disk type='file'><target dev='vda' bus='virtio'/></disk>");
  unsigned queues[DOMAIN_FAR_TIERS];
  g_autoptr (GError) error = NULL;
  g_autoptr (GPtrArray) devices = domain_far_devices (xml, &four, FIXTURE_SOCKET, queues, &error);

  g_assert_no_error (error);
  g_assert_cmpuint (devices->len, ==, DOMAIN_FAR_TIERS);
  for (guint i = 0; i < devices->len; i++) {
    g_autofree char *alias = domain_far_alias (i), *socket = domain_far_socket_name (i),
                    *path = g_strdup_printf ("path='" FOLDER "/%s'", socket),
                    *target = g_strdup_printf ("dev='vd%c'", 'b' + (int)i); /* each its own */

    g_assert_true (g_str_has_prefix (devices->pdata[i], "<disk type='vhostuser'"));
    assert_has (devices->pdata[i], alias);
    assert_has (devices->pdata[i], path);
    assert_has (devices->pdata[i], target);
    assert_has (devices->pdata[i], "queues='3'");
    g_assert_cmpuint (queues[i], ==, 3);
  }
}

/* From nothing to far disks and back, beside the memory device or without it. */
static void
changes_metadata (void) {
  const DomainAttachOptions both = { fixture_options.window_bytes, fixture_options.local_max_bytes, FALSE, TRUE, &two };
  g_autofree char *plain = live (""), *minimal = fixture_read ("hand-minimal.xml"), *memory = fixture_attach (minimal),
                  *attached = domain_attach (minimal, &both, &fixture_host, FIXTURE_SOCKET, NULL, NULL),
                  *damaged = fixture_replace (attached, "compress=\"no\"", "compress=\"maybe\""), *first = NULL, *second = NULL,
                  *third = NULL, *fourth = NULL, *none = (char *)"x";
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_metadata_with_far (plain, &two, &first, &error));
  assert_has (first,
              "<far shared=\"8589934592\" remote=\"34359738368\" storage=\"/srv/a&amp;b\" compress=\"no\" last-bus=\"0\"/>");
  g_assert_null (strstr (first, "<memory"));
  g_assert_true (domain_metadata_with_far (memory, &four, &second, &error));
  assert_has (second, "mem-remote=\"4294967296\"");
  assert_has (second, "<memory window=");
  assert_has (second, "<added what=");
  g_assert_true (domain_metadata_with_far (attached, NULL, &third, &error));
  assert_has (third, "<memory window=");
  g_assert_null (strstr (third, "<far"));
  g_assert_true (domain_metadata_with_far (plain, NULL, &none, &error));
  g_assert_null (none);
  g_assert_no_error (error);
  assert_has (second, "wear=\"107374182400\" protection=\"mirror\"");
  g_assert_false (domain_metadata_with_far (damaged, &two, &fourth, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  g_assert_null (fourth);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/live-far/all kinds of disks", all_kinds);
  g_test_add_func ("/live-far/counts ports", counts_ports);
  g_test_add_func ("/live-far/refuses", refuses);
  g_test_add_func ("/live-far/makes devices", makes_devices);
  g_test_add_func ("/live-far/changes metadata", changes_metadata);
  return g_test_run ();
}
