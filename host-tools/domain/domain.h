/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a libvirt domain's XML says about the memory device, far disks and objects, and how it says so after attach and detach.
 * Pure: text in, text out; no file, no libvirt. Whoever calls defines the result.
 *
 * Everything that attach changes is either recognised by its own ids ("domybs-…") or recorded in <metadata>, so that detach
 * takes back just that: foreign parts of the XML, and edits made in between, stay as they are, to the byte.
 *
 * Error messages give the cause, then after a semicolon the next step; the caller puts the domain's name before them. XML that
 * can't be read is CTL_ERROR_REFUSED, with the line, everywhere.
 */
#ifndef DOMYBS_HOST_TOOLS_DOMAIN_H
#define DOMYBS_HOST_TOOLS_DOMAIN_H

#include <glib.h>

#define DOMAIN_METADATA_URI "urn:domybs:libvirt:1"
#define DOMAIN_METADATA_PREFIX "domybs"

/* Ids in QEMU's command line. */
#define DOMAIN_PORT_ID "domybs-port"
#define DOMAIN_CHARDEV_ID "domybs-chr"
#define DOMAIN_DEVICE_ID "domybs0"
#define DOMAIN_INITIATOR_ID "domybs-initiator"

/* The device, for hot plug too. Its chardev is of type socket, a client that never reconnects. */
#define DOMAIN_DEVICE_DRIVER "vhost-user-test-device-pci"
#define DOMAIN_DEVICE_VIRTIO_ID 37
#define DOMAIN_DEVICE_QUEUES 2
#define DOMAIN_DEVICE_CONFIG_BYTES 64

#define DOMAIN_BLOCK_BYTES (2u << 20)
#define DOMAIN_WINDOW_BYTES_MIN (G_GUINT64_CONSTANT (2) << 30)
#define DOMAIN_WINDOW_BYTES_MAX (G_GUINT64_CONSTANT (1) << 48) /* of 52 bits of address, which is what x86-64 can have */
#define DOMAIN_NUMA_NODES_MAX 128                              /* QEMU's limit */

/* The PCI device that stands for the NUMA node: the port, which stays when the device is unplugged. */
#define DOMAIN_INITIATOR_PCI_ID DOMAIN_PORT_ID

/* The oldest QEMU whose generic vhost-user device has a shared-memory window, as libvirt writes versions. */
#define DOMAIN_QEMU_VERSION_MIN 11000000ul

/* What is attached, as the metadata says. All sizes in bytes. */
typedef struct {
  guint64 window_bytes;    /* a power of two, ≥ 2 GiB */
  guint64 local_max_bytes; /* a multiple of 2 MiB, ≤ window_bytes */
  gboolean populate;       /* grant mode */
  int numa_node;           /* of the VM; -1: none of its own */
  gboolean present;        /* FALSE: only the port is there (after a live detach) */
} DomainMemory;

/* Far disks. The first two are what the guest's kernel pages to. The others are memory of its programs: the guest's driver
 * hands out ranges of them through /dev/domybs, and they never become swap. */
typedef enum {
  DOMAIN_FAR_SHARED,
  DOMAIN_FAR_REMOTE,
  DOMAIN_FAR_MEM_SHARED,
  DOMAIN_FAR_MEM_REMOTE,
  DOMAIN_FAR_TIERS,
} DomainFarTier;

/* The smallest disk that is of any use; the largest that domybs-far can have. */
#define DOMAIN_FAR_BYTES_MIN (G_GUINT64_CONSTANT (64) << 20)
#define DOMAIN_FAR_BYTES_MAX (G_GUINT64_CONSTANT (16) << 40)
/* A day's budget of writes, within domybs-far's limits. */
#define DOMAIN_FAR_WEAR_BYTES_MIN (G_GUINT64_CONSTANT (64) << 20)
#define DOMAIN_FAR_WEAR_BYTES_MAX (G_GUINT64_CONSTANT (1) << 50)
/* How many queues attach gives a disk at most, and how many it can have. */
#define DOMAIN_FAR_QUEUES_MAX 4u
#define DOMAIN_FAR_QUEUES_LIMIT 16u

/* Where copies of far pages are (core/copies.h). Nobody said: DEFAULT is ssd where the host has donors when the VM starts, and
 * storage where it has none. */
typedef enum {
  DOMAIN_FAR_PROTECTION_DEFAULT,
  DOMAIN_FAR_PROTECTION_SSD,
  DOMAIN_FAR_PROTECTION_MIRROR,
  DOMAIN_FAR_PROTECTION_STORAGE,
  DOMAIN_FAR_PROTECTIONS,
} DomainFarProtection;

typedef struct {
  guint64 bytes[DOMAIN_FAR_TIERS]; /* multiples of 2 MiB; 0: no disk of that tier */
  char *storage;                   /* absolute path of a folder, a file or a block device, or an NBD URI */
  gboolean compress;
  guint64 wear_bytes; /* that each of them may write to its storage in a day; 0: as many as it likes */
  DomainFarProtection protection;
} DomainFar;

void domain_far_clear (DomainFar *far);
/* *ret_far is to be cleared. */
void domain_far_copy (const DomainFar *far, DomainFar *ret_far);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (DomainFar, domain_far_clear)
gboolean domain_far_is_none (const DomainFar *far);

/* "shared", "mem-shared": with "domybs-" before it the serial that the guest sees; and the name of the disk's socket, beside
 * the back-end's: "far-shared.sock", to be freed. */
const char *domain_far_tier_name (DomainFarTier tier);
char *domain_far_socket_name (DomainFarTier tier);
/* "default", "ssd", "mirror", "storage". FALSE: there is no such one. */
const char *domain_far_protection_name (DomainFarProtection protection);
gboolean domain_far_protection_parse (const char *text, DomainFarProtection *ret_protection);

/* Whether it can be the storage of far disks, as far as the text tells; and whether it is an NBD server's. */
gboolean domain_far_storage_is_valid (const char *storage);
gboolean domain_far_storage_is_nbd (const char *storage);

/* Objects of this host (backend/far/object.md): each is a read-only disk of the VM. */
#define DOMAIN_OBJECTS_MAX 8u

typedef struct {
  char name[16];   /* a good one (core/object.h) */
  unsigned queues; /* of its disk in the XML; 0: it is not there, as somebody may have removed it */
} DomainObject;

typedef struct {
  unsigned n;
  DomainObject items[DOMAIN_OBJECTS_MAX]; /* each name once */
} DomainObjects;

/* NULL: it is not among them. */
const DomainObject *domain_objects_find (const DomainObjects *objects, const char *name);
/* FALSE: no object can have that name, or there are too many. Adding what is there is fine. */
gboolean domain_objects_add (DomainObjects *objects, const char *name);
/* Takes out all that are among the others. */
void domain_objects_remove (DomainObjects *objects, const DomainObjects *others);
/* Their names with that between them; the name of one's socket, beside the back-end's; the alias of its disk. To be freed. */
char *domain_objects_text (const DomainObjects *objects, const char *between);
char *domain_object_socket_name (const char *name);
char *domain_object_alias (const char *name);

/* What is known of the host; 0 is unknown, and then that check is left to QEMU. */
typedef struct {
  unsigned long qemu_version; /* of the domain's emulator: 1000000 × major + 1000 × minor + micro */
  unsigned phys_bits;         /* of the host's processors, for CPU modes that pass it on */
} DomainHost;

typedef struct {
  guint64 window_bytes; /* 0: no memory device; then the next three mean nothing */
  guint64 local_max_bytes;
  gboolean populate;
  gboolean own_node;            /* give the memory a NUMA node of its own */
  const DomainFar *far;         /* NULL: no far disks */
  const DomainObjects *objects; /* NULL: none */
} DomainAttachOptions;

/* What there can be, for taking some of it away. */
typedef struct {
  gboolean memory, far;
  gboolean all_objects;  /* else: */
  DomainObjects objects; /* these */
} DomainParts;

/* Who it is. name and uuid are the caller's to free (domain_identity_clear); a UUID is 36 characters, checked. */
typedef struct {
  char *name, *uuid;
  int id; /* of a running domain, else -1 */
} DomainIdentity;

gboolean domain_read_identity (const char *xml, DomainIdentity *ret_identity, GError **error);
void domain_identity_clear (DomainIdentity *identity);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (DomainIdentity, domain_identity_clear)

/* <emulator>, or NULL. */
char *domain_read_emulator (const char *xml);

/* The owner that libvirt's DAC driver gave the domain's QEMU (<label> of <seclabel model='dac'>: "+64055:+64055"), or NULL. */
char *domain_read_dac_label (const char *xml);

/* The memory device that is attached. FALSE without error set when none is; FALSE with error (CTL_ERROR_REFUSED) when metadata
 * is there that can't be right. Every value is checked: the XML's author may be less privileged than the reader. */
gboolean domain_read_memory (const char *xml, DomainMemory *ret_memory, GError **error);

/* The far disks that are attached, and how many queues each has in the XML: 0 for one that is not there (somebody may have
 * removed it). FALSE as above. */
gboolean domain_read_far (const char *xml, DomainFar *ret_far, unsigned ret_queues[DOMAIN_FAR_TIERS], GError **error);

/* The objects that are attached. FALSE as above. */
gboolean domain_read_objects (const char *xml, DomainObjects *ret_objects, GError **error);

/* The XML with the device, far disks and objects attached, the back-end's socket at socket_path, the disks' beside it. Appends
 * to changes (of strings, may be NULL) a sentence for each change made. Attached already with the same options: the XML as it
 * was and no change; with others: an update. CTL_ERROR_REFUSED where it can't be: not q35, VFIO/hostdev, locked memory, more
 * RAM regions than vhost-user has room for, QEMU too old, window beyond the VM's physical addresses, arguments with our ids but
 * without our record, … */
char *domain_attach (const char *xml, const DomainAttachOptions *options, const DomainHost *host, const char *socket_path,
                     GPtrArray *changes, GError **error);

/* The XML as if nothing had ever been attached, with all other edits made since; or as if just these parts had not: the others
 * stay with all that they need. CTL_ERROR_NOT_FOUND when nothing of it is attached. */
char *domain_detach (const char *xml, GPtrArray *changes, GError **error);
char *domain_detach_parts (const char *xml, const DomainParts *parts, GPtrArray *changes, GError **error);

/* Whether a domain to which it is attached can still be started with it: nothing that pins memory has come beside it since, and
 * memory is shared. Else CTL_ERROR_REFUSED. */
gboolean domain_check_start (const char *xml, GError **error);

/* Whether the device can be plugged into this *running* domain (xml: its live XML): its port with enough room for the window is
 * there, and its memory is shared. Else CTL_ERROR_REFUSED, saying that it takes a restart of the VM and why. */
gboolean domain_check_live (const char *xml, guint64 window_bytes, GError **error);

/* Whether these far disks can be plugged into this *running* domain: its memory is shared, and it has a free port for each.
 * Else CTL_ERROR_REFUSED, as above; also when it has far disks. */
gboolean domain_check_live_far (const char *xml, const DomainFar *far, GError **error);

/* Those disks as virDomainAttachDeviceFlags takes them (of strings, in the order of the tiers), with their sockets beside
 * socket_path, and how many queues each has. NULL with error. */
GPtrArray *domain_far_devices (const char *xml, const DomainFar *far, const char *socket_path,
                               unsigned ret_queues[DOMAIN_FAR_TIERS], GError **error);

/* Those of the aliases (of strings) that a disk of this XML has; to be unreferenced. */
GPtrArray *domain_disks_there (const char *xml, GPtrArray *aliases);

/* Which far disks this XML has, by their aliases, whatever the metadata says; returns how many. The alias is to be freed. */
unsigned domain_far_there (const char *xml, gboolean ret_there[DOMAIN_FAR_TIERS]);
char *domain_far_alias (DomainFarTier tier);

/* The metadata element as virDomainSetMetadata takes it, with these far disks in place of those that were in there (far NULL:
 * with none). *ret_element NULL: nothing is attached any more, there should be none. */
gboolean domain_metadata_with_far (const char *xml, const DomainFar *far, char **ret_element, GError **error);

/* The same for objects; others: ports that something else will take. The disk of one has its socket beside socket_path; NULL
 * with error. */
gboolean domain_check_live_objects (const char *xml, const DomainObjects *objects, unsigned others, GError **error);
char *domain_object_device (const char *xml, const char *name, const char *socket_path, unsigned *ret_queues, GError **error);
unsigned domain_objects_there (const char *xml, DomainObjects *ret_objects);
gboolean domain_metadata_with_objects (const char *xml, const DomainObjects *objects, char **ret_element, GError **error);

/* The metadata element as virDomainSetMetadata takes it (it wants neither prefix nor xmlns, but adds them): with `memory`, and
 * with the record of what attach added to this XML. CTL_ERROR_NOT_FOUND when no memory device is attached. */
char *domain_metadata_for_libvirt (const char *xml, const DomainMemory *memory, GError **error);

#endif
