/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What attach refuses: each with the reason and the way out, and nothing changed. */
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

#define GIB (G_GUINT64_CONSTANT (1) << 30)

/* A fixture with one edit is refused; without it, it is not. */
static void
refused_with (const char *name, const char *from, const char *to, const char *word, const char *way_out) {
  g_autofree char *good = fixture_read (name), *bad = fixture_replace (good, from, to), *attached = fixture_attach (good);

  fixture_assert_refused (bad, &fixture_options, &fixture_host, word, way_out, NULL);
}

static void
accepted_with (const char *name, const char *from, const char *to) {
  g_autofree char *good = fixture_read (name), *other = fixture_replace (good, from, to), *attached = fixture_attach (other),
                  *after = fixture_detach (attached);

  fixture_assert_same (to, after, other);
}

static void
test_machine (void) {
  refused_with ("hand-minimal.xml", "machine='q35'", "machine='pc-i440fx-9.2'", "'pc-i440fx-9.2'", "q35");
  refused_with ("hand-minimal.xml", "machine='q35'", "machine='pc'", "'pc'", "q35");
  refused_with ("hand-minimal.xml", "machine='q35'", "machine='microvm'", "'microvm'", "q35");
  refused_with ("hand-minimal.xml", " machine='q35'", "", "not given", "q35");
  refused_with ("hand-minimal.xml", "x86_64", "aarch64", "architecture is aarch64", "x86_64 only");
  refused_with ("hand-minimal.xml", "type='qemu'", "type='xen'", "its type is 'xen'", "use a domain of type 'kvm'");
  refused_with ("hand-minimal.xml", " type='qemu'", "", "its type is ''", "use a domain of type 'kvm'");
  refused_with ("hand-minimal.xml", ">hvm<", ">exe<", "'exe'", "'hvm'");
  refused_with ("hand-minimal.xml", ">hvm<", ">e\tx\ne<", "'e x e'", "'hvm'"); /* still one line */
  refused_with ("hand-minimal.xml", "  <os><type arch='x86_64' machine='q35'>hvm</type></os>\n", "", "not given", "q35");
  accepted_with ("hand-minimal.xml", "machine='q35'", "machine='pc-q35-rhel9.6.0'");
  accepted_with ("hand-minimal.xml", " arch='x86_64'", " ");
}

static void
test_qemu (void) {
  g_autofree char *good = fixture_read ("hand-minimal.xml"), *attached = NULL, *newer = NULL;
  const DomainHost old = { .qemu_version = 10000002 }, first = { .qemu_version = DOMAIN_QEMU_VERSION_MIN }, unknown = { 0 };

  fixture_assert_refused (good, &fixture_options, &old, "QEMU is 10.0.2", "needs QEMU 11.0", "install a newer one", NULL);
  attached = domain_attach (good, &fixture_options, &unknown, FIXTURE_SOCKET, NULL, NULL);
  g_assert_nonnull (attached);
  newer = domain_attach (good, &fixture_options, &first, FIXTURE_SOCKET, NULL, NULL);
  g_assert_nonnull (newer);
}

static void
test_neighbours (void) {
  static const struct {
    const char *device, *word;
  } cases[] = {
    { "<hostdev mode='subsystem' type='pci' managed='yes'/>", "a PCI device of the host" },
    { "<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>", "a mediated device" },
    { "<interface type='hostdev'/>", "a network card of the host" },
    { "<interface type='vdpa'/>", "vDPA" },
    { "<disk type='nvme' device='disk'/>", "NVMe" },
    { "<disk type='vhostvdpa' device='disk'/>", "vDPA" },
    { "<memory model='dimm' access='private'/>", "access='private'" },
  };
  static const char *const fine[] = {
    "<hostdev mode='subsystem' type='usb'/>",
    "<hostdev mode='subsystem' type='scsi'/>",
    "<hostdev mode='subsystem' type='scsi_host'/>",
    "<interface type='bridge'/>",
    "<memory model='dimm'/>",
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *devices = g_strdup_printf ("<devices>%s</devices>", cases[i].device);

    refused_with ("hand-minimal.xml", "<devices/>", devices, cases[i].word, "; ");
  }
  for (gsize i = 0; i < G_N_ELEMENTS (fine); i++) {
    g_autofree char *devices = g_strdup_printf ("<devices>%s</devices>", fine[i]);

    accepted_with ("hand-minimal.xml", "<devices/>", devices);
  }
}

static void
test_memory (void) {
  refused_with ("backing-empty.xml", "<memoryBacking />", "<memoryBacking><locked/></memoryBacking>", "memory is locked",
                "remove <locked/>");
  refused_with ("hand-minimal.xml", "<devices/>", "<launchSecurity type='sev'/><devices/>", "encrypted",
                "remove <launchSecurity>");
  refused_with ("hand-minimal.xml", "<devices/>", "<launchSecurity type='tdx'/><devices/>", "encrypted",
                "remove <launchSecurity>");
  refused_with ("hand-minimal.xml", "<memory unit='GiB'>1<", "<memory unit='GiB'>-1<", "<memory> can't be understood (line 4)",
                "correct it");
  refused_with ("hand-minimal.xml", "unit='GiB'>1<", "unit='EiB'>16<", "<memory> can't be understood", "correct it");
  refused_with ("hand-minimal.xml", "unit='GiB'>1<", "unit='GiB'>0<", "<memory> can't be understood", "correct it");
  refused_with ("hand-minimal.xml", "<memory unit='GiB'>1</memory>", "", "<memory> can't be understood", "correct it");
  refused_with ("backing-memfd-shared.xml", "type='memfd'", "type='anonymous2'", "can't be made shared",
                "correct <memoryBacking>");
  refused_with ("backing-memfd-shared.xml", "mode='shared'", "mode='sometimes'", "can't be made shared",
                "correct <memoryBacking>");
}

static void
test_arguments (void) {
  static const struct {
    const char *option, *value, *word;
  } cases[] = {
    { "-device", "vfio-pci,host=01:00.0", "a device of the host" },
    { "-device", "{&quot;driver&quot;:&quot;vfio-pci&quot;,&quot;host&quot;:&quot;01:00.0&quot;}", "a device of the host" },
    { "-netdev", "vhost-vdpa,vhostdev=/dev/vhost-vdpa-0,id=v", "a device of the host" },
    { "-overcommit", "mem-lock=on", "locks memory" },
    { "-overcommit", "mem-lock", "locks memory" },
    { "-overcommit", "cpu-pm=on,mem-lock=on-fault", "locks memory" },
    { "-realtime", "mlock=on", "locks memory" },
    { "-device", "vhost-user-test-device-pci,chardev=c0,virtio-id=37,num_vqs=2,config_size=64", "memory device already" },
    { "-device", "virtio-rng-pci,id=domybs0", "no record" },
    { "-chardev", "null,id=domybs-chr", "no record" },
    { "-device", "{&quot;driver&quot;:&quot;virtio-rng-pci&quot;,&quot;id&quot;:&quot;domybs0&quot;}", "for something else" },
  };
  static const char *const fine[] = { "mem-lock=off", "virtio-rng-pci,id=domybs1", "virtio-rng-pci,id=my-domybs0",
                                      "vhost-user-test-device-pci,virtio-id=30" };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *pair = g_strdup_printf ("<qemu:arg value='%s'/><qemu:arg value='%s'/>\n<qemu:env name='EXAMPLE_EMPTY'/>",
                                             cases[i].option, cases[i].value);

    refused_with ("commandline-args-and-env.xml", "<qemu:env name='EXAMPLE_EMPTY'/>", pair, cases[i].word, "; re");
  }
  for (gsize i = 0; i < G_N_ELEMENTS (fine); i++) {
    g_autofree char *pair
        = g_strdup_printf ("<qemu:arg value='-x'/><qemu:arg value='%s'/>\n<qemu:env name='EXAMPLE_EMPTY'/>", fine[i]);

    accepted_with ("commandline-args-and-env.xml", "<qemu:env name='EXAMPLE_EMPTY'/>", pair);
  }
}

/* vhost-user's table has eight regions, and the window is one. */
static void
test_regions (void) {
  static const struct {
    unsigned cells, dimms, shmem, vga;
    guint64 cell_mib;
    gboolean fits;
  } cases[] = {
    { 7, 0, 0, 0, 256, TRUE },                             /* 1.75 GiB: all below 4 GiB */
    { 8, 0, 0, 0, 256, FALSE }, { 6, 0, 0, 0, 512, TRUE }, /* 3 GiB, cut at 2 GiB between two cells */
    { 7, 0, 0, 0, 512, TRUE },  { 6, 0, 0, 0, 600, TRUE }, /* cut within a cell: one more */
    { 7, 0, 0, 0, 600, FALSE }, { 5, 2, 0, 0, 256, TRUE }, { 5, 3, 0, 0, 256, FALSE }, { 5, 1, 1, 0, 256, TRUE },
    { 5, 1, 2, 0, 256, FALSE }, { 6, 0, 0, 1, 256, TRUE }, { 7, 0, 0, 1, 256, FALSE },
  };
  g_autofree char *good = fixture_read ("hand-minimal.xml");

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autoptr (GString) devices = g_string_new ("<cpu><numa>");
    g_autofree char *text = NULL, *attached = NULL;

    for (unsigned k = 0; k < cases[i].cells; k++)
      g_string_append_printf (devices, "<cell id='%u' cpus='%u' memory='%" G_GUINT64_FORMAT "' unit='MiB'/>", k, k,
                              cases[i].cell_mib);
    g_string_append (devices, "</numa></cpu><devices>");
    for (unsigned k = 0; k < cases[i].dimms; k++)
      g_string_append (devices, k % 2 ? "<memory model='virtio-mem'/>" : "<memory model='dimm'/>");
    for (unsigned k = 0; k < cases[i].shmem; k++)
      g_string_append (devices, "<shmem name='s'/>");
    if (cases[i].vga)
      g_string_append (devices, "<video><model type='vga'/></video>");
    g_string_append (devices, "</devices>");
    text = fixture_replace (good, "<devices/>", devices->str);
    g_test_message ("case %" G_GSIZE_FORMAT, i);
    if (cases[i].fits)
      attached = fixture_attach (text);
    else
      fixture_assert_refused (text, &fixture_options, &fixture_host, "has 8 regions", "room for 7 and the window", "use fewer",
                              NULL);
  }
}

static void
test_options (void) {
  g_autofree char *good = fixture_read ("hand-minimal.xml");
  static const struct {
    guint64 window, local_max;
    const char *word, *way_out;
  } cases[] = {
    { 3 * GIB, GIB, "3 GiB is not a power of two", "--window" },
    { GIB, GIB, "1 GiB is not a power of two of at least 2 GiB", "--window" },
    { 0, GIB, "0 bytes is not", "--window" },
    { GIB << 20, GIB, "beyond any VM's physical addresses", "--window" },
    { 4 * GIB, 8 * GIB, "8 GiB is not between 2 MiB and the window's 4 GiB", "--local-max" },
    { 4 * GIB, 0, "0 bytes is not between", "--local-max" },
    { 4 * GIB, 1 << 20, "1 MiB is not between", "--local-max" },
    { 4 * GIB, GIB + 1, "is not a multiple of 2 MiB", "--local-max" },
  };

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    const DomainAttachOptions options = { .window_bytes = cases[i].window, .local_max_bytes = cases[i].local_max };

    fixture_assert_refused (good, &options, &fixture_host, cases[i].word, cases[i].way_out, NULL);
  }
}

/* Twice the window has to fit beside the VM's memory. */
static void
test_phys_bits (void) {
  static const struct {
    const char *cpu, *type;
    unsigned host_bits;
    guint64 fits; /* the largest window, in GiB; 0: any */
    const char *word;
  } cases[] = {
    { "", "qemu", 46, 128, "40 bits of physical address (of its CPU model)" },
    { "<cpu mode='maximum'/>", "qemu", 46, 128, "40 bits" },
    { "<cpu mode='custom'><model>Nehalem</model></cpu>", "kvm", 46, 128, "40 bits" },
    { "<cpu mode='custom'><model>Nehalem</model></cpu>", "kvm", 39, 64,
      "39 bits of physical address (of the host's processor)" },
    { "<cpu mode='host-model'/>", "kvm", 46, 128, "40 bits" },
    { "<cpu mode='host-passthrough'/>", "kvm", 46, 8192, "46 bits of physical address (of the host's processor)" },
    { "<cpu mode='maximum'/>", "kvm", 39, 64, "39 bits" },
    { "<cpu mode='host-passthrough'/>", "kvm", 0, 0, NULL },
    { "<cpu mode='host-passthrough'/>", "kvm", 7, 0, NULL },
    { "<cpu><maxphysaddr mode='emulate' bits='36'/></cpu>", "qemu", 46, 8, "36 bits of physical address (of <maxphysaddr>)" },
    { "<cpu><maxphysaddr mode='emulate' bits='46'/></cpu>", "qemu", 39, 8192, "46 bits" },
    { "<cpu mode='host-passthrough'><maxphysaddr mode='passthrough' limit='42'/></cpu>", "kvm", 46, 512, "42 bits" },
    { "<cpu mode='host-passthrough'><maxphysaddr mode='passthrough' limit='48'/></cpu>", "kvm", 46, 8192, "46 bits" },
    { "<maxMemory unit='GiB'>300</maxMemory>", "qemu", 46, 128, "40 bits" },
    { "<maxMemory unit='GiB'>600</maxMemory>", "qemu", 46, 128, "40 bits" }, /* 640 + 256 ≤ 1012 */
    { "<maxMemory unit='GiB'>880</maxMemory>", "qemu", 46, 32, "40 bits" },  /* 896 + 128 > 1012 */
    { "<maxMemory unit='GiB'>900</maxMemory>", "qemu", 46, 32, "40 bits" },  /* 928 + 64 ≤ 1012 */
  };
  g_autofree char *good = fixture_read ("hand-minimal.xml");

  for (gsize i = 0; i < G_N_ELEMENTS (cases); i++) {
    const DomainHost host = { .qemu_version = 11001003, .phys_bits = cases[i].host_bits };
    const guint64 fits = cases[i].fits ? cases[i].fits * GIB : DOMAIN_WINDOW_BYTES_MAX;
    DomainAttachOptions options = { .window_bytes = fits, .local_max_bytes = GIB };
    g_autofree char *with_cpu = g_strdup_printf ("%s<devices/>", cases[i].cpu),
                    *type = g_strdup_printf ("<domain type='%s'>", cases[i].type);
    g_autofree char *with = fixture_replace (good, "<devices/>", with_cpu),
                    *text = fixture_replace (with, "<domain type='qemu'>", type), *attached = NULL;
    g_autoptr (GError) error = NULL;

    g_test_message ("%s, host has %u", cases[i].cpu, cases[i].host_bits);
    attached = domain_attach (text, &options, &host, FIXTURE_SOCKET, NULL, &error);
    g_assert_no_error (error);
    options.window_bytes *= 2;
    if (cases[i].word) {
      g_autofree char *way_out
          = g_strdup_printf ("; use --window %" G_GUINT64_FORMAT "%c or less, or give",
                             cases[i].fits >> (cases[i].fits >= 1024 ? 10 : 0), cases[i].fits >= 1024 ? 'T' : 'G');

      fixture_assert_refused (text, &options, &host, cases[i].word, way_out, "<maxphysaddr>", NULL);
    }
  }
}

static void
test_no_window_fits (void) {
  g_autofree char *good = fixture_read ("hand-minimal.xml"),
                  *text = fixture_replace (good, "<devices/>", "<maxMemory unit='GiB'>1020</maxMemory><devices/>");

  fixture_assert_refused (text, &fixture_options, &fixture_host, "40 bits", "; give the VM more bits", NULL);
}

static void
test_slots (void) {
  g_autofree char *good = fixture_read ("commandline-args-and-env.xml");
  g_autoptr (GString) taken = g_string_new (NULL);
  g_autofree char *text = NULL;

  for (int slot = 0x12; slot < 0x1b; slot++)
    g_string_append_printf (taken, "<qemu:arg value='-device'/><qemu:arg value='virtio-rng-pci,addr=%x.0'/>", (unsigned)slot);
  g_string_append (taken, "<qemu:env name='EXAMPLE_EMPTY'/>");
  text = fixture_replace (good, "<qemu:env name='EXAMPLE_EMPTY'/>", taken->str);
  fixture_assert_refused (text, &fixture_options, &fixture_host, "0x10 to 0x1a are all taken", "move a device", NULL);
}

/* Attached, and then somebody adds what rules it out: an update is refused, detach is not. */
static void
test_later (void) {
  g_autofree char *good = fixture_read ("hand-minimal.xml"), *attached = fixture_attach (good),
                  *locked = fixture_replace (attached, "<memoryBacking>", "<memoryBacking><locked/>"), *after = NULL;

  fixture_assert_refused (locked, &fixture_options, &fixture_host, "memory is locked", NULL);
  after = fixture_detach (locked);
  g_assert_null (strstr (after, "domybs"));
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/refuse/another machine", test_machine);
  g_test_add_func ("/refuse/an old QEMU", test_qemu);
  g_test_add_func ("/refuse/devices that pin memory", test_neighbours);
  g_test_add_func ("/refuse/memory that can't be shared", test_memory);
  g_test_add_func ("/refuse/arguments of the user", test_arguments);
  g_test_add_func ("/refuse/too many regions", test_regions);
  g_test_add_func ("/refuse/wrong sizes", test_options);
  g_test_add_func ("/refuse/a window beyond the physical addresses", test_phys_bits);
  g_test_add_func ("/refuse/any window", test_no_window_fits);
  g_test_add_func ("/refuse/no free slot", test_slots);
  g_test_add_func ("/refuse/what came after attach", test_later);
  return g_test_run ();
}
