/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the memory device in a VM say again and again. Sizes are blocks of 2 MiB unless a name says otherwise.
 *
 * Each program walks through its cases once per kernel. The cases of one kernel share a VM as far as they can, because booting
 * an emulated guest is what costs time; scene_vm() ends the VM before when another is asked for, so that one runs at a time.
 */
#ifndef DOMYBS_TESTS_VM_SCENE_H
#define DOMYBS_TESTS_VM_SCENE_H

#include "vm.h"

#define SCENE_SECTION_BLOCKS 64u /* of a guest with little boot memory: 128 MiB */

/* The VM of this name: the one that runs, or a new one in its place. */
Vm *scene_vm (const VmConfig *config);

/* The same for what most programs here need: 512 MiB of boot memory and the driver under manual control. */
Vm *scene_small_vm (const char *group, const char *series, const char *const *backend_args);

/* What a guest needs to be told after each boot; scene_vm() has done it for the first. */
void scene_booted (Vm *vm);

/* Ends the VM of scene_vm() now, with all that vm_stop() checks. */
void scene_end (void);

/* Adds the cases for each of the kernels, all cases of a kernel together; data of a case is the kernel's series. */
typedef enum {
  SCENE_BOTH,       /* on Debian's two stable kernels */
  SCENE_EVERYWHERE, /* on the newest one, too, where only a selection runs */
  SCENE_ONCE,       /* on 6.12 alone: what hardly depends on the guest's kernel */
} SceneKernels;
typedef struct {
  const char *name;
  GTestDataFunc run;
  SceneKernels kernels;
} SceneCase;
void scene_add_cases (const char *group, const SceneCase *cases, guint count);

/* ---- the driver ---- */

/* Puts the driver under manual control and asks for so many blocks; does not wait. */
void scene_want (Vm *vm, guint64 blocks);

/* The same, and waits until exactly so many are granted. */
void scene_have (Vm *vm, guint64 blocks, double seconds);

/* The host's target; "null" for none. Does not wait. */
void scene_set_target (Vm *vm, const char *blocks);

/* Waits until exactly so many are granted, by both sides' books. */
void scene_expect_granted (Vm *vm, guint64 blocks, double seconds);

void scene_set_parameter (Vm *vm, const char *name, const char *value); /* of the module */

guint64 scene_granted (Vm *vm);
guint64 scene_counter (Vm *vm, const char *name); /* of the driver's counters file */
gboolean scene_state_is (Vm *vm, const char *word); /* the first word of the driver's state */

/* Unloads the driver, as soon as nothing of it is in use any more; loads it with the mode given. */
void scene_unload (Vm *vm, double seconds);
void scene_load (Vm *vm, const char *mode);

/* Nothing granted, by both sides' books, and no memory taken on the host. */
void scene_expect_nothing_granted (Vm *vm, double seconds);

/* The books of both sides agree, the driver is not broken, and the kernel has killed nobody and complained of nothing. */
void scene_expect_sane (Vm *vm);

/* Unplugs the device of a VM with a root_port, which takes until the guest has let go of it; and plugs in another one. */
void scene_plug_out (Vm *vm);
void scene_plug_in (Vm *vm);

/* Guest-physical range of the window, [start, end). */
void scene_window (Vm *vm, guint64 *ret_start, guint64 *ret_end);

/* Bytes of the window's whole 2 MiB pieces in which every page is free, as the guest's kernel flags its pages in
 * /proc/kpageflags: what could be given back. Pages that the driver holds already do not count. */
guint64 scene_releasable_bytes (Vm *vm);

/* ---- memory that programs in the guest use ---- */

/* Starts `memtool fill` with --hold and waits until it has filled and verified; seconds as in vm_job_expect. */
void scene_fill (Vm *vm, const char *job, guint mib, guint64 seed, const char *options, double seconds);

/* Has it check every word. */
void scene_verify (Vm *vm, const char *job);

/* Has it free something ("free", "free-random 0.5 7 2M"); returns how many bytes. */
guint64 scene_free (Vm *vm, const char *job, const char *command);

/* Ends it, as the end of its standard input would, and expects that it was content. */
void scene_fill_end (Vm *vm, const char *job);

/* ---- figures ---- */

double scene_now (void); /* seconds */
double scene_mib (guint64 bytes);

#endif
