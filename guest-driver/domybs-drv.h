/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * virtio_domybs: what its files know of each other.
 *
 * - main: probe, remove, power management
 * - events: configuration changes and the event queue
 * - request: the request queue, one question at a time
 * - sections: memory blocks of the guest kernel: spares, growing by one, leaving one
 * - hotplug: adding, bringing online, taking offline, removing: with the kernel's help
 * - blocks: 2 MiB inside of sections: take, hold, give back
 * - room: the kernel's own zones: are they short, and what was set aside for that
 * - policy: how many blocks do we want? Numbers in, decision out
 * - worker: the one thread that carries decisions out
 * - standby: far memory that the host has ready for us
 * - pressure: OOM notifier and shrinker, which tell the worker: now
 * - chardev: /dev/domybs
 * - ranges: blocks of far disks, for /dev/domybs
 * - disks: those far disks
 * - sysfs: knobs and figures
 *
 * Locks, outermost first:
 *
 * - hotplug (mutex): no block of an online section changes hands while a section goes on- or offline. The worker holds it while
 *   it works on blocks; the memory notifier holds it from GOING_* to the end of the operation, whoever began it. The worker
 *   therefore drops it before it brings a section on- or offline itself.
 * - lock (spinlock, interrupts off): block states, section states, counters, the list of operations and the small flags. Never
 *   held over anything that sleeps. The OOM notifier needs only this one.
 *
 * Everything marked "worker" is touched by the worker alone, once it runs, and by probe and remove while it does not.
 */
#ifndef DOMYBS_DRV_H
#define DOMYBS_DRV_H

#include <linux/completion.h>
#include <linux/crash_dump.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/memory.h>
#include <linux/miscdevice.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/shrinker.h>
#include <linux/spinlock.h>
#include <linux/timer.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "domybs-abi.h"
#include "domybs-standby.h"
#include "domybs-uapi.h"

#define DOMYBS_DRIVER_VERSION "0.1"
#define DOMYBS_PAGES_PER_BLOCK (1ul << (DOMYBS_BLOCK_SHIFT - PAGE_SHIFT))
#define DOMYBS_BLOCK_ORDER (DOMYBS_BLOCK_SHIFT - PAGE_SHIFT)
#define DOMYBS_BLOCKS_PER_MIB(mib) ((u64)(mib) >> (DOMYBS_BLOCK_SHIFT - 20))
/* Events are few (the host's wishes change slowly); more buffers than the event types can be pending at once is plenty. */
#define DOMYBS_EVENT_BUFFERS 8
#define DOMYBS_SECTION_NONE (~0u)
#define DOMYBS_OOM_PLENTY 16ul /* blocks available: it is not for want of those that a process is to be killed */
#define DOMYBS_STANDBY_TIERS 2 /* shared, remote */
#define DOMYBS_ROOM_MAX 32     /* blocks that can be set aside for the kernel's own needs */

enum domybs_section_state {
  DOMYBS_SECTION_ABSENT = 0, /* unknown to the kernel; if there are PARKED blocks in it, they are still to be released */
  DOMYBS_SECTION_SPARE,      /* added and offline, nothing granted: it has a memmap, the memory itself is never touched */
  DOMYBS_SECTION_PARKED,     /* added and offline, something granted: on its way to online, or offlined and not yet released */
  DOMYBS_SECTION_ONLINING,   /* the notifier let it pass; becomes ONLINE or, if that fails, PARKED again */
  DOMYBS_SECTION_ONLINE,     /* its USED blocks are the page allocator's */
  DOMYBS_SECTION_LEAVING,    /* going offline, blocks as before; becomes PARKED or SPARE or, if that fails, ONLINE again */
  DOMYBS_SECTION_STATES
};

enum domybs_block_state {
  DOMYBS_BLOCK_VOID = 0, /* not granted, not in the kernel's hands: in a section that is absent or offline */
  DOMYBS_BLOCK_PARKED,   /* granted, in a section that is absent or offline */
  DOMYBS_BLOCK_USED,     /* granted, in an online section, owned by the page allocator (free or not) */
  DOMYBS_BLOCK_TAKEN,    /* granted, pages taken from the allocator and marked offline; to be released next */
  DOMYBS_BLOCK_RESERVE,  /* like TAKEN, but kept for the OOM notifier */
  DOMYBS_BLOCK_HELD,     /* released to the host; pages still taken and marked offline, because their section is online */
  DOMYBS_BLOCK_USER,     /* granted, in an online section, owned by a user of /dev/domybs; pages are ordinary, refcounted */
  DOMYBS_BLOCK_STATES
};

enum domybs_mode {
  DOMYBS_MODE_AUTO,   /* the host's target if it sets one, else by pressure */
  DOMYBS_MODE_TARGET, /* the host's target, nothing without one */
  DOMYBS_MODE_MANUAL, /* sysfs: wanted_blocks */
};

/* Why the last decision was as it was; texts in policy.c. */
enum domybs_reason {
  DOMYBS_WHY_STARTING,
  DOMYBS_WHY_ENOUGH,
  DOMYBS_WHY_LOW,
  DOMYBS_WHY_OOM,
  DOMYBS_WHY_HIGH_WAIT,
  DOMYBS_WHY_HIGH,
  DOMYBS_WHY_TARGET_ABOVE,
  DOMYBS_WHY_TARGET_BELOW,
  DOMYBS_WHY_TARGET_NEEDED,
  DOMYBS_WHY_TARGET_NONE,
  DOMYBS_WHY_MANUAL_ABOVE,
  DOMYBS_WHY_MANUAL_BELOW,
  DOMYBS_WHY_MANUAL_NEEDED,
  DOMYBS_WHY_RECLAIM,
  DOMYBS_WHY_RECLAIM_NEEDED,
  DOMYBS_WHY_MAX,
  DOMYBS_WHY_OVER_MAX,
  DOMYBS_WHY_DRAIN,
  DOMYBS_WHY_STOPPING,
  DOMYBS_WHY_COUNT
};

struct domybs_extent { /* struct domybs_run in CPU byte order */
  u64 start, count;
};

/* All of it in blocks of 2 MiB, times in ms. */
struct domybs_view {
  enum domybs_mode mode;
  bool draining, stopping, oom;
  bool have_target;
  u64 target, wanted, max;
  u64 granted, used, held, reserve, user;
  u64 available, low, high; /* the guest's available memory and its watermarks */
  u64 section_blocks, grow_min, step;
  u64 reclaim; /* what is left of the host's RECLAIM */
  u32 above_high_ms, hysteresis_ms;
};

enum domybs_action { DOMYBS_REST, DOMYBS_GROW, DOMYBS_SHRINK };

struct domybs_decision {
  enum domybs_action action;
  enum domybs_reason why;
  u64 blocks;   /* > 0 unless REST */
  bool migrate; /* SHRINK: used pages may be moved to free whole blocks */
  bool watch;   /* look again soon even if nothing was done */
};

struct domybs_section {
  enum domybs_section_state state; /* lock */
  u32 count[DOMYBS_BLOCK_STATES];  /* lock */
  struct file *state_file;     /* as sysfs_mnt: …/memoryN/state, opened when the section is added because opening allocates */
  unsigned long retry_jiffies; /* worker: emptying it failed; not before this time again */
  u8 failures;                 /* worker: how often in a row */
};

/* What a user of /dev/domybs asks the worker to do. Owned by both sides until each has put it. */
struct domybs_op {
  struct kref ref;
  struct list_head list; /* lock */
  struct completion done;
  u32 hint;
  u32 blocks;
  bool abandoned; /* lock: the asker was killed; the worker gives everything back */
  bool finished;  /* lock */
  int result;
  u32 got;
  u32 *block; /* numbers of the blocks, `got` of them */
};

struct domybs_hotplug { /* one operation for the workqueue */
  bool busy;            /* lock */
  int rc;               /* lock */
  bool add;             /* or remove */
  u32 section;
};

struct domybs_config_seen { /* worker; copies of config space fields that may change */
  u64 max_blocks, target_blocks;
  u32 generation;
  bool have_target;
};

struct domybs_counters { /* worker, except the OOM ones (lock) */
  u64 requests, granted, released, added, onlined, offlined, removed, refused_online;
  u64 taken_order9, taken_range, offline_failed, room_given, spares_dropped;
  u64 reclaim_asked, reclaim_done;
  u64 oom_calls, oom_saved;
};

struct domybs {
  struct virtio_device *vdev;
  struct device *dev;
  struct kref ref; /* the device and every open file */

  /* Set at probe, then constant. */
  u64 window_phys;
  u64 window_blocks;
  u32 section_blocks;
  u32 sections; /* usable ones: the window's last section is not among them */
  u32 grow_min;
  int node;
  bool in_tier; /* node is in the memory tier of its own */
  char resource_name[32];

  struct mutex hotplug;
  spinlock_t lock;
  struct domybs_section *section;           /* [sections] */
  u8 *block;                                /* [sections * section_blocks], enum domybs_block_state; lock */
  u64 count[DOMYBS_BLOCK_STATES];           /* lock */
  u32 section_count[DOMYBS_SECTION_STATES]; /* lock */
  u32 onlining;                             /* lock: the section that the worker is bringing online, or NONE */
  u32 hotplug_owner;                        /* hotplug: the section for which the notifier holds `hotplug`, or NONE */
  struct notifier_block memory_nb;
  struct work_struct hotplug_work, bury_work;
  struct domybs_hotplug hotplug_command; /* the worker writes it while it is not busy */
  wait_queue_head_t hotplug_wait;        /* for the command, and for the burial */
  bool buried;                           /* lock */
  struct list_head dying;                /* domybs_resources_lock, with dying_pci: devices that are being removed */
  struct device *dying_pci;              /* only compared, no reference; NULL: its BARs have gone */
  struct vfsmount *sysfs_mnt;            /* who opens a state file: worker or workqueue, never both at a time */
  bool module_held;                      /* worker: we hold a reference to our own module, because something is granted */

  /* Request queue */
  struct virtqueue *request_vq, *event_vq;
  struct domybs_event *events;        /* EVENT_BUFFERS of them; the device writes them */
  void *request_page, *response_page; /* the device reads and writes these while a request is in flight */
  struct domybs_extent *runs;         /* worker, a page: the validated copy of the last answer's runs */
  struct completion answered;
  u64 session, next_id; /* worker */
  bool in_flight;       /* worker: the device still owns the two pages (it was given up on) */
  u64 nonce;
  bool broken;             /* lock; read anywhere */
  char broken_reason[128]; /* written once, before broken */

  /* Policy and worker */
  struct task_struct *worker;
  wait_queue_head_t wake;                     /* the worker sleeps here */
  unsigned long kicks;                        /* bits DOMYBS_KICK_* */
  wait_queue_head_t progress;                 /* others wait here for the worker: progress_seq, drained, bye_said */
  unsigned long progress_seq;                 /* lock: goes up when memory came online, or could not */
  bool progress_good;                         /* lock: the former */
  bool draining, drained, stopping, bye_said; /* lock */
  enum domybs_mode mode;                      /* lock */
  u64 wanted;                                 /* lock */
  u64 reclaim_left;                           /* lock */
  unsigned long reclaim_deadline;             /* lock, jiffies */
  struct domybs_config_seen config;           /* worker writes under lock */
  struct domybs_decision last;                /* worker writes under lock */
  u64 stuck;                                  /* worker writes under lock */
  /* lock: blocks set aside for the kernel, room_blocks of them; 512 pages with a reference each */
  struct page *room_block[DOMYBS_ROOM_MAX];
  u32 room_blocks;
  struct list_head room_middles; /* lock: pages in the middle of blocks that were given back */
  unsigned long room_after;      /* worker, jiffies: nothing could be set aside; not before this time again */
  bool no_spare_memory;          /* worker: the spare waits for kernel memory */
  unsigned long ask_after;       /* worker, jiffies: the host said no; not before this time again, unless it makes an OFFER */
  u32 ask_backoff_ms;
  unsigned long shrink_after; /* worker, jiffies: nothing could be freed; not before this time again */
  u32 shrink_backoff_ms;
  unsigned long above_high_since; /* worker, jiffies; 0 = not above */
  unsigned long last_grow;        /* worker, jiffies */
  unsigned long stats_after;      /* worker, jiffies */
  u64 stats_granted;              /* worker: granted blocks when STATS were sent last … */
  enum domybs_reason stats_why;   /* … and why there were that many */
  unsigned long config_read;      /* worker, jiffies: when config space was read last */
  struct domybs_standby standby[DOMYBS_STANDBY_TIERS]; /* worker writes under lock */
  unsigned long standby_at[DOMYBS_STANDBY_TIERS];      /* worker, jiffies: when it was answered last */
  unsigned long standby_pressed_at;                    /* worker, jiffies */
  bool standby_raised, standby_offered;                /* worker */
  u64 step;                       /* worker */
  unsigned long *scan;            /* worker: bitmap of section_blocks */
  struct timer_list offline_timer;
  bool offlining; /* lock: the worker is in an offline that a signal may end */
  struct domybs_counters counters;

  struct notifier_block oom_nb, pm_nb, reboot_nb;
  struct shrinker *shrinker;
  struct shrinker own_shrinker; /* before 6.7 */
  unsigned long shrinker_kick;  /* jiffies of its last kick; races are harmless */
#ifdef CONFIG_PROC_VMCORE
  struct vmcore_cb vmcore_cb;
#endif

  /* /dev/domybs */
  struct miscdevice misc;
  char misc_name[24];
  int misc_index;
  bool gone;            /* lock: the device was removed; only open files keep the struct */
  struct list_head ops; /* lock */
  struct domybs_op *op; /* worker: the one that it is at; blocks that become USER are noted in it */
  u64 user_reserved;    /* lock: blocks that files have or have asked for, against the global cap */
  u64 user_far;         /* lock: the same of far disks */
};

#define DOMYBS_KICK_WAKE 0   /* look at the numbers now */
#define DOMYBS_KICK_EVENT 1  /* the event queue has something */
#define DOMYBS_KICK_CONFIG 2 /* config space changed */
#define DOMYBS_KICK_OFFER 3  /* the host has something to give again */
#define DOMYBS_KICK_OOM 4    /* the kernel is about to kill somebody */

static inline u64
domybs_granted_locked (const struct domybs *d) {
  return d->count[DOMYBS_BLOCK_PARKED] + d->count[DOMYBS_BLOCK_USED] + d->count[DOMYBS_BLOCK_TAKEN]
         + d->count[DOMYBS_BLOCK_RESERVE] + d->count[DOMYBS_BLOCK_USER];
}

static inline u64
domybs_section_start_block (const struct domybs *d, u32 s) {
  return (u64)s * d->section_blocks;
}

static inline unsigned long
domybs_block_pfn (const struct domybs *d, u64 block) {
  return (unsigned long)((d->window_phys >> PAGE_SHIFT) + block * DOMYBS_PAGES_PER_BLOCK);
}

static inline u64
domybs_section_phys (const struct domybs *d, u32 s) {
  return d->window_phys + ((u64)s * d->section_blocks << DOMYBS_BLOCK_SHIFT);
}

static inline u64
domybs_section_bytes (const struct domybs *d) {
  return (u64)d->section_blocks << DOMYBS_BLOCK_SHIFT;
}

/* ---- main ---- */
void domybs_put (struct domybs *d);
void domybs_kick (struct domybs *d, int bit);
u64 domybs_granted (struct domybs *d);
/* Marks the device unusable: it answered nonsense. Memory that the guest has stays as it is; no further request is sent. */
__printf (2, 3) void domybs_break (struct domybs *d, const char *fmt, ...);

/* ---- events: what the device says unasked ---- */
void domybs_config_refresh (struct domybs *d);
void domybs_config_changed (struct virtio_device *vdev);
void domybs_event_arrived (struct virtqueue *vq);
void domybs_events_fill (struct domybs *d); /* gives the device all event buffers, once it is ready */
void domybs_events_drain (struct domybs *d);

/* ---- request ----
 * 0, or -EIO (broken), -EAGAIN (ask later), -ENOSPC (the VM's maximum), -ENOMEM (the host has none), -EOPNOTSUPP (no such
 * tier), -ESHUTDOWN (given up on). */
void domybs_request_done (struct virtqueue *vq);
int domybs_hello (struct domybs *d);
/* Runs are in d->runs, *ret_runs of them, *ret_blocks in all; each block in them was VOID or HELD. The caller changes the
 * states. */
int domybs_grant (struct domybs *d, u32 hint, u32 flags, u64 blocks, u64 area_start, u64 area_blocks, u32 *ret_runs,
                  u64 *ret_blocks);
int domybs_release (struct domybs *d, const struct domybs_extent *runs, u32 count); /* ≤ RUNS_MAX */
int domybs_stats_send (struct domybs *d);
/* The level of a tier of far memory, and how much of it there is (0, and -ENOMEM: there is no more to be had). -ENOSYS: the device is
 * older than that. */
int domybs_far_reserve (struct domybs *d, u32 tier, u64 blocks, u64 *ret_ready);
int domybs_bye (struct domybs *d);

/* ---- sections ---- */
int domybs_sections_init (struct domybs *d);
void domybs_sections_exit (struct domybs *d);
void domybs_section_set (struct domybs *d, u32 s, enum domybs_section_state state);
/* Adds spares up to the parameter. -ENOMEM when the kernel's own memory is too short for their memmap. */
int domybs_spare_fill (struct domybs *d, bool pressed);
bool domybs_spare_drop (struct domybs *d); /* for its memmap */
/* Grants a spare section and brings it online. Returns blocks gained or an error as in request. */
int domybs_section_grow (struct domybs *d, u32 *ret_section);
/* Takes a section offline, moving its pages if it must, for ms at the most. settle() is to follow: several sections are
 * offlined faster one after the other, because waiting for the host in between makes each wait for RCU again. */
int domybs_section_leave (struct domybs *d, u32 s, unsigned int ms);
void domybs_demotion_allow (struct domybs *d);
void domybs_offline_abort (struct domybs *d); /* any context: the worker has better things to do than to empty a section */
/* Releases whatever is granted in offline or absent sections, and removes the spares too many. Returns blocks released; what
 * the host has no time for now stays PARKED. */
u64 domybs_sections_settle (struct domybs *d);

/* ---- hotplug ---- */
int domybs_hotplug_module_init (void);
void domybs_hotplug_module_exit (void);
int domybs_hotplug_init (struct domybs *d);
void domybs_hotplug_exit (struct domybs *d);
/* Writes to the sysfs file of the section's memory block. */
int domybs_hotplug_state (struct domybs *d, u32 s, const char *word);
int domybs_sysfs_write (struct domybs *d, const char *path, const char *word); /* path below /sys */
/* Worker. -ESHUTDOWN: the device is being removed; the operation may still happen, and bury() comes after it. */
int domybs_hotplug_add (struct domybs *d, u32 s);
int domybs_hotplug_remove (struct domybs *d, u32 s);
/* Removes what sections there still are, now or as soon as it can be; then domybs_sections_exit(). */
/* The virtio device is being removed; before bury. When its PCI device goes, the places of its sections stay taken. */
void domybs_hotplug_dying (struct domybs *d, struct virtio_device *vdev);
void domybs_hotplug_bury (struct domybs *d);

/* Probe, of a device without a window: whether that may be for want of room while another one is being buried. Then the device is
 * probed again after that. */
bool domybs_hotplug_again (struct virtio_device *vdev);

/* ---- blocks: all with `hotplug` held, unless said otherwise ---- */
void domybs_block_set (struct domybs *d, u64 block, enum domybs_block_state state);
void domybs_block_set_locked (struct domybs *d, u64 block, enum domybs_block_state state);
enum domybs_block_state domybs_block_get (const struct domybs *d, u64 block);
/* Fills d->scan with the blocks of an online section that look wholly free; returns how many. A guess: nothing is locked. */
u32 domybs_blocks_scan (struct domybs *d, u32 s);
/* Takes up to `want` free blocks out of the allocator into TAKEN; migrate: also used ones, by moving their pages. */
u32 domybs_blocks_take (struct domybs *d, u32 want, bool migrate);
u32 domybs_blocks_take_in (struct domybs *d, u32 s, u32 want, bool migrate, enum domybs_block_state into);
/* Finds blocks in a state, from *from on, as runs that may span sections: at most RUNS_MAX, and *from is where to go on. Returns how
 * many runs; 0 at the end. */
u32 domybs_block_runs (struct domybs *d, enum domybs_block_state state, u64 *from, struct domybs_extent *runs);
/* Releases all TAKEN blocks: they become HELD; if the host does not want them now, USED again. Returns blocks released. */
u32 domybs_blocks_release_taken (struct domybs *d);
/* Asks for up to `want` HELD blocks back into `into` (USED or USER). Returns blocks or an error. */
int domybs_blocks_regrant (struct domybs *d, u32 want, enum domybs_block_state into, u32 *ret_blocks);
u32 domybs_blocks_reserve_fill (struct domybs *d, u32 want);
u32 domybs_blocks_reserve_give (struct domybs *d, u32 want); /* any context that may free pages */
void domybs_blocks_reserve_drop (struct domybs *d, u32 keep);
void domybs_pages_set_offline (struct domybs *d, u64 block);
void domybs_pages_free (unsigned long pfn, unsigned long pages);
void domybs_pages_give (struct domybs *d, u64 block);
void domybs_pages_ref_drop (struct domybs *d, u64 block);
void domybs_pages_ref_restore (struct domybs *d, u64 block);

/* ---- room: memory for the kernel itself ---- */
bool domybs_may_add (const struct domybs *d, bool pressed); /* is there memory for another section's memmap? */
u32 domybs_room_short (const struct domybs *d);
/* Any context that may free pages. Returns blocks given back to the kernel's zones. */
u32 domybs_room_give (struct domybs *d, u32 want);
bool domybs_room_drain (struct domybs *d); /* worker: gets free pages off the per-CPU lists; did that help? */
/* Worker: sets some aside again. enough: memory is available, even if not free. */
void domybs_room_fill (struct domybs *d, bool enough);
void domybs_room_empty (struct domybs *d);

/* ---- policy ---- */
void domybs_decide (const struct domybs_view *view, struct domybs_decision *ret);
const char *domybs_why_text (enum domybs_reason why);

/* ---- worker ---- */
int domybs_worker (void *data);
bool domybs_pressed (struct domybs *d);
u64 domybs_low_blocks (void);
u64 domybs_to_spare_blocks (void); /* by how much available memory is above the low watermark */
u64 domybs_high_blocks (const struct domybs *d);
extern unsigned int domybs_poll_ms, domybs_hysteresis_ms, domybs_batch_blocks, domybs_reserve_blocks, domybs_spares;

/* ---- standby: worker, but for show ---- */
void domybs_standby_run (struct domybs *d, const struct domybs_view *v); /* at each turn, with a session */
void domybs_standby_reset (struct domybs *d);                            /* another session: nothing was asked yet */
ssize_t domybs_standby_show (struct domybs *d, char *buf);

/* ---- pressure ---- */
int domybs_pressure_init (struct domybs *d);
void domybs_pressure_exit (struct domybs *d);

/* ---- chardev ---- */
int domybs_chardev_init (struct domybs *d);
void domybs_chardev_exit (struct domybs *d);
void domybs_op_put (struct kref *ref);
bool domybs_ops_run (struct domybs *d);

/* ---- ranges: of the whole module, whichever device's /dev/domybs is asked ---- */
#define DOMYBS_FAR_TIERS 2 /* shared, remote */
struct domybs_range;
int domybs_ranges_init (void);
void domybs_ranges_exit (void);
void domybs_disks_bus_set (const struct bus_type *bus); /* the one that virtio's devices are on */
/* Takes blocks of the tier's disk; waits for that disk, until the caller is killed. freed is called once, with owner, when nobody has
 * the range any more: put and all mappings gone. Any context that may sleep. -EOPNOTSUPP: no such disk · -ENOSPC: no run of so
 * many blocks is free · -EBUSY: somebody else uses the disk · -EINTR, -ENOMEM, or what the disk says. freed isn't called then. */
int domybs_range_new (u32 hint, u32 blocks, void (*freed) (void *owner, u32 blocks), void *owner, struct domybs_range **ret);
void domybs_range_put (struct domybs_range *range);
int domybs_range_mmap (struct domybs_range *range, struct vm_area_struct *vma, u64 inside); /* inside: bytes from its start */
void domybs_ranges_sizes (u64 ret_blocks[DOMYBS_FAR_TIERS]); /* of the disks; 0: none. Asks them */
void domybs_ranges_used (u64 ret_blocks[DOMYBS_FAR_TIERS]);
extern const struct attribute_group *domybs_groups[];

#endif
