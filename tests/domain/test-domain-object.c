/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Objects: attached to domains of many shapes, alone and beside the other parts, and each part taken back without the others.
 */
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

#define GIB(n) ((guint64)(n) << 30)
#define FOLDER "/run/domybs/vm/5a1c7d0e-6f0b-4e52-9a53-2d8d3a1c0b01"
#define SHARED "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
#define PORT(n) "<controller type='pci' index='" #n "' model='pcie-root-port'/>"

static const DomainFar far_disks = { { GIB (8), GIB (32) }, (char *)"/var/lib/domybs/far", FALSE };

static DomainObjects
objects_of (const char *names) {
  g_auto (GStrv) all = g_strsplit (names, " ", -1);
  DomainObjects objects = { 0 };

  for (char **name = all; *name; name++)
    g_assert_true (domain_objects_add (&objects, *name));
  return objects;
}

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

/* names NULL: no objects. */
static char *
attach (const char *xml, gboolean memory, gboolean far, const char *names, GPtrArray *changes) {
  DomainAttachOptions options = memory ? fixture_options : (DomainAttachOptions){ 0 };
  DomainObjects objects = names ? objects_of (names) : (DomainObjects){ 0 };
  g_autoptr (GError) error = NULL;
  char *text;

  options.far = far ? &far_disks : NULL;
  options.objects = names ? &objects : NULL;
  text = domain_attach (xml, &options, &fixture_host, FIXTURE_SOCKET, changes, &error);
  g_assert_no_error (error);
  return text;
}

static char *
detach (const char *xml, const DomainParts *parts) {
  g_autoptr (GError) error = NULL;
  char *text = domain_detach_parts (xml, parts, NULL, &error);

  g_assert_no_error (error);
  return text;
}

/* Just these parts are there, by the record, and with all that they need. */
static void
assert_parts (const char *xml, gboolean memory, gboolean far, const char *names) {
  g_auto (DomainFar) read_far = { 0 };
  unsigned queues[DOMAIN_FAR_TIERS];
  DomainObjects objects = { 0 }, there;
  g_autoptr (GError) error = NULL;
  g_autofree char *read = NULL;
  DomainMemory read_memory;

  g_assert_cmpint (domain_read_memory (xml, &read_memory, &error), ==, memory);
  g_assert_no_error (error);
  g_assert_cmpint (domain_read_far (xml, &read_far, queues, &error), ==, far);
  g_assert_no_error (error);
  g_assert_cmpint (domain_read_objects (xml, &objects, &error), ==, names != NULL);
  g_assert_no_error (error);
  read = domain_objects_text (&objects, " ");
  g_assert_cmpstr (read, ==, names ? names : "");
  g_assert_cmpuint (domain_objects_there (xml, &there), ==, objects.n);
  for (unsigned i = 0; i < objects.n; i++) {
    g_autofree char *path = g_strdup_printf ("path='" FOLDER "/object-%s.sock'", objects.items[i].name);

    g_assert_cmpuint (objects.items[i].queues, >, 0);
    assert_has (xml, path);
  }
  g_assert_cmpint (strstr (xml, "virtio-id=37") != NULL, ==, memory);
  g_assert_cmpint (strstr (xml, "far-shared.sock") != NULL, ==, far);
  if (memory || far || names) {
    g_assert_true (domain_check_start (xml, &error)); /* above all, memory is shared still */
    g_assert_no_error (error);
  }
}

/* ---- every fixture ---- */

static void
test_alone (gconstpointer name) {
  g_autofree char *before = fixture_read (name), *attached = attach (before, FALSE, FALSE, "model", NULL),
                  *again = attach (attached, FALSE, FALSE, "model", NULL),
                  *more = attach (attached, FALSE, FALSE, "model data-set", NULL),
                  *direct = attach (before, FALSE, FALSE, "model data-set", NULL),
                  *fewer = detach (more, &(DomainParts){ .objects = objects_of ("data-set") }), *after = fixture_detach (more),
                  *after_parts = detach (more, &(DomainParts){ .all_objects = TRUE }),
                  *after_both = detach (more, &(DomainParts){ .objects = objects_of ("data-set model other") });

  assert_parts (attached, FALSE, FALSE, "model");
  assert_parts (more, FALSE, FALSE, "model data-set");
  fixture_assert_same (name, again, attached);
  fixture_assert_same (name, more, direct);
  fixture_assert_same (name, fewer, attached);
  fixture_assert_same (name, after, before);
  fixture_assert_same (name, after_parts, before);
  fixture_assert_same (name, after_both, before);
}

/* All three, taken away in every order: what stays has what it needs, and in the end nothing is left. */
static void
test_every_order (gconstpointer name) {
  static const char orders[][4] = { "mfo", "mof", "fmo", "fom", "omf", "ofm" };
  g_autofree char *before = fixture_read (name), *all = attach (before, TRUE, TRUE, "model data-set", NULL),
                  *again = attach (all, TRUE, TRUE, "model data-set", NULL);

  assert_parts (all, TRUE, TRUE, "model data-set");
  fixture_assert_same (name, again, all);
  for (gsize i = 0; i < G_N_ELEMENTS (orders); i++) {
    gboolean memory = TRUE, far = TRUE, objects = TRUE;
    g_autofree char *now = g_strdup (all);

    for (const char *part = orders[i]; *part; part++) {
      const DomainParts parts = { .memory = *part == 'm', .far = *part == 'f', .all_objects = *part == 'o' };
      char *next = detach (now, &parts);

      memory &= !parts.memory;
      far &= !parts.far;
      objects &= !parts.all_objects;
      g_free (now);
      now = next;
      assert_parts (now, memory, far, objects ? "model data-set" : NULL);
    }
    fixture_assert_same (name, now, before);
  }
}

/* libvirt has added ports for the disks: each goes with its own, and the others' stay. */
static void
test_ports (void) {
  g_autofree char *before = fixture_read ("hand-minimal.xml"), *all = attach (before, FALSE, TRUE, "model data-set", NULL),
                  *placed = NULL, *one = NULL, *two = NULL, *three = NULL;
  static const char *const aliases[] = { "shared", "remote", "object-model", "object-data-set" };
  GString *ports = g_string_new (NULL);

  placed = g_strdup (all);
  for (guint i = 0; i < G_N_ELEMENTS (aliases); i++) {
    g_autofree char *alias = g_strdup_printf ("<alias name='ua-domybs-%s'/>", aliases[i]),
                    *address = g_strdup_printf ("%s<address type='pci' bus='0x0%u'/>", alias, i + 1),
                    *next = fixture_replace (placed, alias, address);

    g_free (placed);
    placed = g_steal_pointer (&next);
    g_string_append_printf (ports, "  <controller type='pci' index='%u' model='pcie-root-port'/>\n  ", i + 1);
  }
  g_string_append (ports, "</devices>");
  one = fixture_replace (placed, "</devices>", ports->str);
  g_string_free (ports, TRUE);
  two = detach (one, &(DomainParts){ .objects = objects_of ("model") });
  assert_lacks (two, "index='3'");
  assert_has (two, "index='4'");
  assert_has (two, "index='1'");
  three = detach (two, &(DomainParts){ .far = TRUE });
  assert_lacks (three, "index='1'");
  assert_lacks (three, "index='2'");
  assert_has (three, "index='4'");
  assert_parts (three, FALSE, FALSE, "data-set");
  {
    g_autofree char *after = fixture_detach (three);

    assert_lacks (after, "<controller");
    assert_lacks (after, "domybs");
  }
}

/* What needs shared memory besides keeps it; an object's disk is not that for itself. */
static void
test_foreign_disk (void) {
  static const char foreign[] = "<disk type='vhostuser' device='disk'><target dev='vdq' bus='virtio'/></disk></devices>";
  g_autofree char *before = fixture_read ("virt-install-print-xml.xml"),
                  *attached = attach (before, FALSE, FALSE, "model", NULL),
                  *with = fixture_replace (attached, "</devices>", foreign), *after = fixture_detach (with);

  assert_has (after, "<access mode=");
  assert_has (after, "vdq");
  assert_lacks (after, "domybs");
}

/* ---- refusals ---- */

static void
test_refuses (void) {
  const DomainObjects one = objects_of ("model"), none = { 0 };
  const DomainAttachOptions options = { .objects = &one };
  g_autofree char *minimal
      = fixture_read ("hand-minimal.xml"),
      *stray = fixture_replace (minimal, "<devices/>",
                                "<devices><disk type='vhostuser'><alias name='ua-domybs-object-old'/></disk></devices>"),
      *encrypted = fixture_replace (minimal, "<devices/>", "<devices/><launchSecurity type='sev'/>"),
      *no_devices = fixture_replace (minimal, "<devices/>", ""), *attached = attach (minimal, FALSE, FALSE, "model", NULL),
      *private_memory = fixture_replace (attached, "mode='shared'", "mode='private'"), *gone = NULL;
  g_autoptr (GError) error = NULL, missing = NULL, other = NULL;

  fixture_assert_refused (stray, &options, &fixture_host, "object 'old'", "detach", NULL);
  fixture_assert_refused (encrypted, &options, &fixture_host, "launchSecurity", "an object", NULL);
  fixture_assert_refused (no_devices, &options, &fixture_host, "<devices>", NULL);
  g_assert_false (domain_check_start (private_memory, &error));
  assert_has (error->message, "take the objects away");
  g_assert_null (domain_detach_parts (minimal, &(DomainParts){ .all_objects = TRUE }, NULL, &missing));
  g_assert_error (missing, CTL_ERROR, CTL_ERROR_NOT_FOUND);
  g_assert_null (domain_detach_parts (attached, &(DomainParts){ .objects = objects_of ("other") }, NULL, &other));
  g_assert_error (other, CTL_ERROR, CTL_ERROR_NOT_FOUND);
  gone = fixture_detach (stray); /* what has lost its record goes, too */
  assert_lacks (gone, "domybs");
  g_assert_cmpuint (none.n, ==, 0);
}

static void
test_names (void) {
  DomainObjects objects = { 0 }, others = objects_of ("n1 n3 x");
  g_autofree char *text = NULL;

  g_assert_false (domain_objects_add (&objects, "shared"));
  g_assert_false (domain_objects_add (&objects, "../x"));
  g_assert_false (domain_objects_add (&objects, "a b"));
  g_assert_false (domain_objects_add (&objects, ""));
  g_assert_false (domain_objects_add (&objects, "fourteen-bytes"));
  for (unsigned i = 0; i < DOMAIN_OBJECTS_MAX; i++) {
    g_autofree char *name = g_strdup_printf ("n%u", i);

    g_assert_true (domain_objects_add (&objects, name));
    g_assert_true (domain_objects_add (&objects, name));
  }
  g_assert_false (domain_objects_add (&objects, "one-more"));
  domain_objects_remove (&objects, &others);
  text = domain_objects_text (&objects, " ");
  g_assert_cmpstr (text, ==, "n0 n2 n4 n5 n6 n7");
}

/* The record's author may be less privileged than its reader. */
static void
test_damaged (void) {
  static const char *const names[] = { "",         " ",     "model model", "../../etc/passwd",  "a/b",
                                       "model  x", "MODEL", "shared",      "a b c d e f g h i", "model,file=/x" };
  g_autofree char *minimal = fixture_read ("hand-minimal.xml"), *attached = attach (minimal, FALSE, FALSE, "model", NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autofree char *with = g_strdup_printf ("names=\"%s\"", names[i]),
                    *damaged = fixture_replace (attached, "names=\"model\"", with);
    DomainObjects objects;
    g_autoptr (GError) error = NULL;

    g_assert_false (domain_read_objects (damaged, &objects, &error));
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
    assert_has (error->message, "is damaged");
  }
}

/* ---- the running VM ---- */

static char *
live (const char *devices) {
  return g_strdup_printf ("<domain type='kvm' id='3'><name>vm</name><memory unit='GiB'>1</memory>" SHARED
                          "<vcpu>3</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>%s</devices></domain>",
                          devices);
}

static void
test_live (void) {
  static const char bridge[] = "<controller type='pci' index='0' model='pcie-root'/>";
  const DomainObjects two = objects_of ("model data");
  g_autofree char *devices = g_strconcat (bridge, PORT (1) PORT (2), NULL), *xml = live (devices),
                  *unshared = fixture_replace (xml, SHARED, ""), *device = NULL, *element = NULL, *none = (char *)"x",
                  *memory_xml = NULL, *minimal = fixture_read ("hand-minimal.xml"), *with_both = NULL;
  g_autoptr (GError) error = NULL, ports = NULL, private_memory = NULL;
  const DomainObjects empty = { 0 };
  unsigned queues;

  g_assert_true (domain_check_live_objects (xml, &two, 0, &error));
  g_assert_no_error (error);
  g_assert_false (domain_check_live_objects (xml, &two, 1, &ports));
  assert_has (ports->message, "2 free PCI Express ports for hot plug, and its new disks need 3");
  g_assert_false (domain_check_live_objects (unshared, &two, 0, &private_memory));
  assert_has (private_memory->message, "not shared");
  device = domain_object_device (xml, "model", FIXTURE_SOCKET, &queues, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (queues, ==, 3);
  assert_has (device, "path='" FOLDER "/object-model.sock'");
  assert_has (device, "dev='vda'");
  g_assert_true (domain_metadata_with_objects (xml, &two, &element, &error));
  assert_has (element, "<objects names=\"model data\" last-bus=\"2\"/>");
  g_assert_true (domain_metadata_with_objects (xml, &empty, &none, &error));
  g_assert_null (none);
  with_both = attach (minimal, TRUE, TRUE, "model", NULL);
  g_assert_true (domain_metadata_with_far (with_both, NULL, &memory_xml, &error));
  assert_has (memory_xml, "<objects names=\"model\"");
  assert_lacks (memory_xml, "<far");
  g_clear_pointer (&memory_xml, g_free);
  g_assert_true (domain_metadata_with_objects (with_both, &empty, &memory_xml, &error));
  assert_has (memory_xml, "<far");
  assert_lacks (memory_xml, "<objects");
  g_assert_no_error (error);
}

/* Objects alone stay when the last far disk has left the running VM. */
static void
test_live_far_goes (void) {
  g_autofree char *minimal = fixture_read ("hand-minimal.xml"), *both = attach (minimal, FALSE, TRUE, "model", NULL),
                  *element = NULL;
  g_autoptr (GError) error = NULL;

  g_assert_true (domain_metadata_with_far (both, NULL, &element, &error));
  g_assert_nonnull (element);
  assert_has (element, "<objects names=\"model\"");
}

int
main (int argc, char **argv) {
  g_autoptr (GPtrArray) names = NULL;

  testing_init (&argc, &argv);
  names = fixture_names ();
  for (guint i = 0; i < names->len; i++) {
    g_autofree char *alone = g_strdup_printf ("/object/alone/%s", (char *)names->pdata[i]),
                    *order = g_strdup_printf ("/object/every-order/%s", (char *)names->pdata[i]);

    g_test_add_data_func (alone, names->pdata[i], test_alone);
    g_test_add_data_func (order, names->pdata[i], test_every_order);
  }
  g_test_add_func ("/object/ports", test_ports);
  g_test_add_func ("/object/foreign disk", test_foreign_disk);
  g_test_add_func ("/object/refuses", test_refuses);
  g_test_add_func ("/object/names", test_names);
  g_test_add_func ("/object/damaged", test_damaged);
  g_test_add_func ("/object/live", test_live);
  g_test_add_func ("/object/live, far disks go", test_live_far_goes);
  return g_test_run ();
}
