/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An object that two VMs have at the same time, each from its own domybs-far: both read what was imported, also when a worker
 * dies meanwhile; neither can write; and a page that the host's storage has damaged is an I/O error in the guest, for that page
 * only.
 */
#include "object-scene.h"
#include "vm.h"

#include <stdlib.h>
#include <string.h>

#define PAGES 6000
#define VMS 2

static Vm *
start (struct far *far, const char *name) {
  const char *arguments[5] = { "-chardev", NULL, "-device", "vhost-user-blk-pci,chardev=object,num-queues=2", NULL };
  g_autofree char *chardev = g_strdup_printf ("socket,id=object,path=%s,reconnect-ms=50", far->socket_paths[0]);

  for (int tries = 0; !g_file_test (far->socket_paths[0], G_FILE_TEST_EXISTS) && tries < 400; tries++)
    g_usleep (50000);
  arguments[1] = chardev;
  return vm_start (&(VmConfig){ .name = name, .series = "6.12", .ram_mib = 384, .qemu_args = arguments });
}

static void
must_be (Vm *vm, const char *command, const char *expected) {
  g_autofree char *got = vm_run_ok (vm, "%s", command);

  g_assert_cmpstr (g_strstrip (got), ==, expected);
}

static void
shared (void) {
  g_autoptr (Scene) scene = scene_new (PAGES);
  g_autofree char *sum = g_compute_checksum_for_data (G_CHECKSUM_SHA256, scene->content, PAGES * (gsize)OBJECT_PAGE_BYTES);
  g_autofree char *read = g_strdup_printf ("echo 3 > /proc/sys/vm/drop_caches; sha256sum /dev/vda | cut -d' ' -f1");
  g_autofree char *bad = NULL, *good = NULL;
  struct far *fars[VMS];
  Vm *vms[VMS];
  guint64 page = PAGES / 2;

  scene_import (scene);
  for (unsigned i = 0; i < VMS; i++) {
    g_autofree char *name = g_strdup_printf ("object%u", i);

    fars[i] = scene_serve (scene, name, ",queues=2");
    vms[i] = start (fars[i], name);
  }
  for (unsigned i = 0; i < VMS; i++) {
    must_be (vms[i], "cat /sys/block/vda/serial", "domybs-base");
    must_be (vms[i], "cat /sys/block/vda/ro", "1");
    must_be (vms[i], read, sum);
    must_be (vms[i], "dd if=/dev/zero of=/dev/vda bs=4096 count=1 2>/dev/null && echo written || echo refused", "refused");
    g_assert_cmpint (scene_status (fars[i], "prefetch-used-pages"), >, 0);
  }

  /* killed while it reads */
  for (unsigned round = 0; round < 3; round++) {
    vm_job_start (vms[0], "read", "%s", read);
    g_usleep (100000 * (round + 1));
    far_kill_worker (fars[0]);
    g_free (vm_job_expect (vms[0], "read", sum, vm_patience (60)));
    g_assert_cmpint (vm_job_wait (vms[0], "read", 10, NULL), ==, 0);
  }

  while (scene_page_is_zero (scene, page))
    page++;
  scene_flip (scene, scene_offset (scene, page) + 100);
  bad = g_strdup_printf ("echo 3 > /proc/sys/vm/drop_caches; blockdev --setra 0 /dev/vda; "
                         "dd if=/dev/vda of=/dev/null bs=4096 skip=%u count=1 2>/dev/null && echo read || echo error",
                         (unsigned)page);
  good = g_strdup_printf ("dd if=/dev/vda of=/dev/null bs=4096 skip=%u count=20 2>/dev/null && echo read || echo error",
                          (unsigned)page + 1);
  for (unsigned i = 0; i < VMS; i++) {
    must_be (vms[i], bad, "error");
    must_be (vms[i], good, "read");
    g_assert_cmpint (scene_status (fars[i], "damaged-pages"), >, 0);
  }
  scene_flip (scene, scene_offset (scene, page) + 100);
  for (unsigned i = 0; i < VMS; i++) {
    must_be (vms[i], read, sum);
    vm_stop (vms[i]);
    far_end (fars[i]);
  }
}

int
main (int argc, char **argv) {
  vm_test_init (&argc, &argv);
  g_test_add_func ("/object/6.12/two VMs have one", shared);
  return vm_test_run ();
}
