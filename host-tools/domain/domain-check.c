/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "domain-check.h"

#include <string.h>

#include "domain-args.h"
#include "domain-far.h"
#include "domain-object.h"
#include "domain-ram.h"
#include "error.h"

/* QEMU gives a VM this many bits of physical address where nothing says otherwise. */
#define PHYS_BITS_DEFAULT 40
/* Measured (SeaBIOS, QEMU 11.1): a window that is there at boot may take half of the 2^bits of addresses. One that is plugged
 * in later finds room for certain up to an eighth: the port keeps twice its size. */
#define WINDOW_SHIFT 3
/* AMD's processors use the last 12 GiB of the first TiB themselves. */
#define RESERVED_BITS 40
#define RESERVED_BYTES (G_GUINT64_CONSTANT (12) << 30)

/* A message quotes values of the XML, which may hold line ends; it is one line all the same. */
G_GNUC_PRINTF (2, 3)
static gboolean
refuse (GError **error, const char *format, ...) {
  g_autofree char *text = NULL;
  va_list arguments;

  va_start (arguments, format);
  text = g_strdup_vprintf (format, arguments);
  va_end (arguments);
  for (char *at = text; *at; at++)
    if (g_ascii_iscntrl (*at))
      *at = ' ';
  g_set_error_literal (error, CTL_ERROR, CTL_ERROR_REFUSED, text);
  return FALSE;
}

char *
domain_size_text (guint64 bytes) {
  static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB" };
  guint i = 0;

  for (; i + 1 < G_N_ELEMENTS (units) && bytes >= 1024 && bytes % 1024 == 0; i++)
    bytes /= 1024;
  return g_strdup_printf ("%" G_GUINT64_FORMAT " %s", bytes, units[i]);
}

guint64
domain_port_room (guint64 window_bytes) {
  return 2 * window_bytes;
}

static gboolean
check_far_options (const DomainFar *far, GError **error) {
  unsigned n = 0;

  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    const guint64 bytes = far->bytes[tier];
    const char *name = domain_far_tier_name (tier);
    g_autofree char *text = domain_size_text (bytes);

    if (!bytes)
      continue;
    n++;
    if (bytes < DOMAIN_FAR_BYTES_MIN || bytes > DOMAIN_FAR_BYTES_MAX)
      return refuse (error, "a far disk '%s' of %s is not between 64 MiB and 16 TiB; change --far", name, text);
    if (bytes % DOMAIN_BLOCK_BYTES)
      return refuse (error, "a far disk '%s' of %s is not a multiple of 2 MiB; change --far", name, text);
  }
  if (n == 0)
    return refuse (error, "neither a memory device, a far disk nor an object is asked for; use --window, --far or --object");
  if (!domain_far_storage_is_valid (far->storage))
    return refuse (
        error, "the far storage is neither an absolute path nor an NBD URI (nbd://…), or it has a comma; change --far-storage");
  if (n > 1 && domain_far_storage_is_nbd (far->storage))
    return refuse (error, "one NBD export can't be the storage of two far disks; use one disk, or a folder as --far-storage");
  return TRUE;
}

gboolean
domain_check_options (const DomainAttachOptions *options, GError **error) {
  const guint64 window = options->window_bytes, local_max = options->local_max_bytes;
  g_autofree char *window_text = domain_size_text (window), *local_max_text = domain_size_text (local_max);

  if (options->far && !check_far_options (options->far, error))
    return FALSE;
  if ((options->far || options->objects) && !window)
    return TRUE;
  if (window < DOMAIN_WINDOW_BYTES_MIN || (window & (window - 1)))
    return refuse (error,
                   "a window of %s is not a power of two of at least 2 GiB (it becomes a PCI BAR of the VM); use --window 2G, "
                   "4G, … 64G, …",
                   window_text);
  if (window > DOMAIN_WINDOW_BYTES_MAX)
    return refuse (error, "a window of %s is beyond any VM's physical addresses; use a smaller --window", window_text);
  if (local_max < DOMAIN_BLOCK_BYTES || local_max > window)
    return refuse (error, "a local-max of %s is not between 2 MiB and the window's %s; change --local-max or --window",
                   local_max_text, window_text);
  if (local_max % DOMAIN_BLOCK_BYTES)
    return refuse (error, "a local-max of %s is not a multiple of 2 MiB, the unit of every grant; change --local-max",
                   local_max_text);
  return TRUE;
}

/* ---- the machine ---- */

static gboolean
check_type (const DomainXml *xml, const char *what, GError **error) {
  g_autofree char *kind = domain_xml_attribute (domain_xml_root (xml), "type");

  if (g_strcmp0 (kind, "kvm") != 0 && g_strcmp0 (kind, "qemu") != 0)
    return refuse (error, "its type is '%s': only QEMU has %s; use a domain of type 'kvm' (or 'qemu')", kind ? kind : "", what);
  return TRUE;
}

static gboolean
check_machine (const DomainXml *xml, GError **error) {
  xmlNode *type = domain_xml_child (domain_xml_child (domain_xml_root (xml), "os"), "type");
  g_autofree char *arch = domain_xml_attribute (type, "arch"), *machine = domain_xml_attribute (type, "machine"),
                  *os = domain_xml_content (type);

  if (arch && strcmp (arch, "x86_64") != 0)
    return refuse (error, "its architecture is %s: the memory device is for x86_64 only; use an x86_64 VM", arch);
  if (os && strcmp (os, "hvm") != 0)
    return refuse (error, "its <os><type> is '%s': the memory device is for fully virtualised VMs; use one of type 'hvm'", os);
  if (!machine || (strcmp (machine, "q35") != 0 && !g_str_has_prefix (machine, "pc-q35")))
    return refuse (error,
                   "its machine type is '%s': the memory device needs PCI Express, so machine type q35; install a new VM with "
                   "q35 (an existing "
                   "guest may not find its disks after a change)",
                   machine ? machine : "not given (i440fx)");
  return TRUE;
}

static gboolean
check_qemu (const DomainHost *host, GError **error) {
  const unsigned long version = host->qemu_version;

  if (version != 0 && version < DOMAIN_QEMU_VERSION_MIN)
    return refuse (error,
                   "its QEMU is %lu.%lu.%lu, too old: the memory device needs QEMU %lu.0; install a newer one (Debian 13: "
                   "trixie-backports) or name it in "
                   "<emulator>",
                   version / 1000000, version / 1000 % 1000, version % 1000, DOMAIN_QEMU_VERSION_MIN / 1000000);
  return TRUE;
}

/* How many bits of physical address the VM will have; 0 where that is not known. *ret_of says by what. */
static unsigned
phys_bits (const DomainXml *xml, const DomainHost *host, const char **ret_of) {
  xmlNode *root = domain_xml_root (xml), *cpu = domain_xml_child (root, "cpu"), *max = domain_xml_child (cpu, "maxphysaddr");
  const gboolean has_kvm = domain_xml_attribute_is (root, "type", "kvm"),
                 is_passed_on = domain_xml_attribute_is (max, "mode", "passthrough");
  const gboolean is_host
      = domain_xml_attribute_is (cpu, "mode", "host-passthrough") || domain_xml_attribute_is (cpu, "mode", "maximum");
  const unsigned host_bits = host->phys_bits >= 32 && host->phys_bits <= 64 ? host->phys_bits : 0;
  g_autofree char *bits = domain_xml_attribute (max, "bits"), *limit = domain_xml_attribute (max, "limit");
  guint64 number;

  *ret_of = "<maxphysaddr>";
  if (domain_xml_attribute_is (max, "mode", "emulate") && domain_xml_number (bits, 32, 64, &number))
    return (unsigned)number;
  if (is_passed_on && domain_xml_number (limit, 32, 64, &number) && (host_bits == 0 || number < host_bits))
    return (unsigned)number;
  *ret_of = "the host's processor";
  if (is_passed_on || (!max && has_kvm && is_host))
    return host_bits;
  /* QEMU's default for all other models is below what nearly every server has, but above some desktop processors. */
  if (has_kvm && host_bits && host_bits < PHYS_BITS_DEFAULT)
    return host_bits;
  *ret_of = "its CPU model";
  return PHYS_BITS_DEFAULT;
}

/* Where the VM's own memory ends, what may be plugged in later included. */
static guint64
memory_end (const DomainXml *xml) {
  const guint64 hole = G_GUINT64_CONSTANT (4) << 30;
  xmlNode *max = domain_xml_child (domain_xml_root (xml), "maxMemory");
  g_autofree char *number = domain_xml_content (max), *unit = domain_xml_attribute (max, "unit");
  guint64 boot = 0, pluggable;

  (void)domain_boot_memory (xml, &boot);
  return hole + (domain_xml_size (number, unit, &pluggable) ? MAX (boot, pluggable) : boot);
}

static gboolean
window_fits (guint64 window_bytes, guint64 memory_end_bytes, unsigned bits) {
  const guint64 all = G_GUINT64_CONSTANT (1) << MIN (bits, 62);
  const guint64 begin = (memory_end_bytes + window_bytes - 1) / window_bytes * window_bytes;

  return window_bytes <= all >> WINDOW_SHIFT
         && begin + domain_port_room (window_bytes) <= all - (bits == RESERVED_BITS ? RESERVED_BYTES : 0);
}

static gboolean
check_window_fits (const DomainXml *xml, guint64 window_bytes, const DomainHost *host, GError **error) {
  const char *of;
  const unsigned bits = phys_bits (xml, host, &of);
  const guint64 end = memory_end (xml);
  g_autofree char *wanted = domain_size_text (window_bytes), *way_out = NULL;
  guint64 fits = window_bytes;

  if (bits == 0 || window_fits (window_bytes, end, bits))
    return TRUE;
  while (fits >= DOMAIN_WINDOW_BYTES_MIN && !window_fits (fits, end, bits))
    fits /= 2;
  if (fits >= DOMAIN_WINDOW_BYTES_MIN)
    way_out = g_strdup_printf ("use --window %" G_GUINT64_FORMAT "%c or less, or ", fits >> (fits >> 40 ? 40 : 30),
                               fits >> 40 ? 'T' : 'G');
  return refuse (error,
                 "a window of %s does not fit beside its memory into the VM's %u bits of physical address (of %s); %sgive the "
                 "VM more bits with <maxphysaddr> "
                 "in <cpu>",
                 wanted, bits, of, way_out ? way_out : "");
}

/* ---- what is beside it ---- */

static const char PINS[] = "it pins the whole window, so the host would pay for all of it at once";

static gboolean
check_devices (const DomainXml *xml, GError **error) {
  static const struct {
    const char *device, *attribute, *value, *what;
  } pinning[] = {
    { "hostdev", "type", "pci", "a PCI device of the host (VFIO)" },
    { "hostdev", "type", "mdev", "a mediated device of the host (VFIO)" },
    { "interface", "type", "hostdev", "a network card of the host (VFIO)" },
    { "interface", "type", "vdpa", "a vDPA network card" },
    { "disk", "type", "nvme", "an NVMe disk of the host (VFIO)" },
    { "disk", "type", "vhostvdpa", "a vDPA disk" },
  };
  xmlNode *devices = domain_xml_child (domain_xml_root (xml), "devices");

  for (gsize i = 0; i < G_N_ELEMENTS (pinning); i++) {
    for (xmlNode *node = domain_xml_child (devices, pinning[i].device); node; node = domain_xml_next (node))
      if (domain_xml_attribute_is (node, pinning[i].attribute, pinning[i].value))
        return refuse (error, "it has %s (line %lu: <%s %s='%s'>): %s; remove that device", pinning[i].what,
                       domain_xml_line (node), pinning[i].device, pinning[i].attribute, pinning[i].value, PINS);
  }
  return TRUE;
}

/* What keeps any process besides QEMU from the VM's memory. */
static gboolean
check_shareable (const DomainXml *xml, const char *what, GError **error) {
  xmlNode *root = domain_xml_root (xml), *devices = domain_xml_child (root, "devices"),
          *security = domain_xml_child (root, "launchSecurity");

  for (xmlNode *node = domain_xml_child (devices, "memory"); node; node = domain_xml_next (node))
    if (domain_xml_attribute_is (node, "access", "private"))
      return refuse (
          error,
          "a <memory> device has access='private' (line %lu), but the back-end of %s has to map the VM's memory; make "
          "it shared",
          domain_xml_line (node), what);
  if (security)
    return refuse (error, "its memory is encrypted (line %lu: <launchSecurity>), which %s can't share; remove <launchSecurity>",
                   domain_xml_line (security), what);
  return TRUE;
}

/* -overcommit mem-lock, and what that was called before. */
static gboolean
locks_memory (const char *arg) {
  static const char *const keys[] = { "mem-lock", "mlock" };
  g_autofree char *first = domain_arg_value (arg, NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (keys); i++) {
    g_autofree char *value = domain_arg_value (arg, keys[i]);

    if (strcmp (first, keys[i]) == 0 || (value && strcmp (value, "off") != 0))
      return TRUE;
  }
  return FALSE;
}

static gboolean
check_pinning_arguments (const DomainXml *xml, GError **error) {
  g_autoptr (GPtrArray) args = domain_args (xml);

  for (guint i = 0; i < args->len; i++) {
    const DomainArg *arg = args->pdata[i];
    const unsigned long line = domain_xml_line (arg->node);

    if (strstr (arg->value, "vfio") || strstr (arg->value, "vhost-vdpa"))
      return refuse (error, "its <qemu:commandline> has a device of the host (line %lu): %s; remove it", line, PINS);
    if (locks_memory (arg->value))
      return refuse (error, "its <qemu:commandline> locks memory (line %lu): %s; remove it", line, PINS);
  }
  return TRUE;
}

static gboolean
check_arguments (const DomainXml *xml, GError **error) {
  /* attach never writes JSON */
  static const char *const quoted_ids[]
      = { "\"" DOMAIN_PORT_ID "\"", "\"" DOMAIN_CHARDEV_ID "\"", "\"" DOMAIN_DEVICE_ID "\"", "\"" DOMAIN_INITIATOR_ID "\"" };
  g_autoptr (GPtrArray) args = domain_args (xml);

  for (guint i = 0; i < args->len; i++) {
    const DomainArg *arg = args->pdata[i];
    const char *option = domain_args_option (args, i);
    const unsigned long line = domain_xml_line (arg->node);

    if (strstr (arg->value, DOMAIN_DEVICE_DRIVER) && strstr (arg->value, G_STRINGIFY (DOMAIN_DEVICE_VIRTIO_ID)))
      return refuse (
          error,
          "its <qemu:commandline> has a memory device already (line %lu), attached by hand; remove that one and its chardev",
          line);
    if (domain_arg_is_ours (option, arg->value, -1))
      return refuse (error,
                     "its <qemu:commandline> has an id of the memory device (line %lu), but <metadata> has no record of it; "
                     "remove it with 'domybsctl "
                     "detach' first",
                     line);
    for (gsize k = 0; k < G_N_ELEMENTS (quoted_ids); k++)
      if (strstr (arg->value, quoted_ids[k]))
        return refuse (error,
                       "its <qemu:commandline> uses the memory device's id %s for something else (line %lu); rename that",
                       quoted_ids[k], line);
  }
  return TRUE;
}

static const char MEMORY_DEVICE[] = "the memory device", FAR_DISKS[] = "a far disk", OBJECTS[] = "an object";

gboolean
domain_check_neighbours (const DomainXml *xml, GError **error) {
  xmlNode *locked = domain_xml_child (domain_xml_child (domain_xml_root (xml), "memoryBacking"), "locked");

  if (!check_devices (xml, error) || !check_pinning_arguments (xml, error))
    return FALSE;
  if (locked)
    return refuse (error, "its memory is locked (line %lu: <locked/>): %s; remove <locked/>", domain_xml_line (locked), PINS);
  return check_shareable (xml, MEMORY_DEVICE, error);
}

/* QEMU tells every vhost-user device of every region, the window too. */
gboolean
domain_check_regions (const DomainXml *xml, gboolean window, GError **error) {
  g_autofree char *how = NULL;
  const unsigned n = domain_ram_regions (xml, &how), room = DOMAIN_RAM_REGIONS_MAX - (window ? 1 : 0);

  if (n > room)
    return refuse (error,
                   "its memory has %u regions (%s), and vhost-user has room for %u%s; use fewer NUMA cells or <memory> devices",
                   n, how, room, window ? " and the window" : "");
  return TRUE;
}

/* Any guest has a driver for them, so they ask for less. */
gboolean
domain_check_far_neighbours (const DomainXml *xml, GError **error) {
  for (DomainFarTier tier = 0; tier < DOMAIN_FAR_TIERS; tier++) {
    xmlNode *disk = domain_far_disk (xml, tier);

    if (disk)
      return refuse (
          error,
          "it has a far disk already (line %lu), but <metadata> has no record of it; remove it with 'domybsctl detach' "
          "first",
          domain_xml_line (disk));
  }
  if (!domain_xml_child (domain_xml_root (xml), "devices"))
    return refuse (error, "it has no <devices> to add a far disk to; correct it");
  return check_shareable (xml, FAR_DISKS, error);
}

gboolean
domain_check_object_neighbours (const DomainXml *xml, GError **error) {
  if (!domain_xml_child (domain_xml_root (xml), "devices"))
    return refuse (error, "it has no <devices> to add an object's disk to; correct it");
  return check_shareable (xml, OBJECTS, error);
}

/* Of which there can be none where there is no record. */
static gboolean
check_object_disks (const DomainXml *xml, GError **error) {
  DomainObjects there;

  domain_object_disks (xml, &there);
  if (there.n)
    return refuse (
        error,
        "it has a disk of object '%s' already, but <metadata> has no record of it; remove it with 'domybsctl detach' first",
        there.items[0].name);
  return domain_check_object_neighbours (xml, error);
}

gboolean
domain_check_attachable (const DomainXml *xml, const DomainAttachOptions *options, const DomainHost *host, GError **error) {
  const gboolean window = options->window_bytes != 0;
  guint64 bytes;

  if (!check_type (xml, window ? MEMORY_DEVICE : options->far ? FAR_DISKS : OBJECTS, error))
    return FALSE;
  if (window
      && (!check_machine (xml, error) || !check_qemu (host, error) || !domain_check_neighbours (xml, error)
          || !check_arguments (xml, error)))
    return FALSE;
  if ((options->far && !domain_check_far_neighbours (xml, error)) || (options->objects && !check_object_disks (xml, error)))
    return FALSE;
  if (!domain_boot_memory (xml, &bytes))
    return refuse (error, "its <memory> can't be understood (line %lu); correct it",
                   domain_xml_line (domain_xml_child (domain_xml_root (xml), "memory")));
  return domain_check_regions (xml, window, error) && (!window || check_window_fits (xml, options->window_bytes, host, error));
}
