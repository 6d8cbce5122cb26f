/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that this driver is built for (6.1 to 7.3), in one place.
 */
#ifndef DOMYBS_COMPAT_H
#define DOMYBS_COMPAT_H

#include <linux/gfp.h>
#include <linux/memory-tiers.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/timer.h>
#include <linux/version.h>
#include <linux/virtio_config.h>

/* The biggest order of a free chunk; MAX_ORDER used to be one more than that. */
#ifdef MAX_PAGE_ORDER
#define DOMYBS_MAX_ORDER MAX_PAGE_ORDER
#else
#define DOMYBS_MAX_ORDER (MAX_ORDER - 1)
#endif

#ifdef timer_container_of
#define domybs_from_timer timer_container_of
#else
#define domybs_from_timer from_timer
#endif

static inline int
domybs_alloc_contig (unsigned long pfn, unsigned long pages, gfp_t gfp) {
#ifdef ACR_FLAGS_NONE
  return alloc_contig_range (pfn, pfn + pages, ACR_FLAGS_NONE, gfp);
#else
  return alloc_contig_range (pfn, pfn + pages, MIGRATE_MOVABLE, gfp);
#endif
}

static inline int
domybs_find_vqs (struct virtio_device *vdev, struct virtqueue *vqs[2], vq_callback_t *request_cb, vq_callback_t *event_cb) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
  struct virtqueue_info info[2] = {
    { .name = "request", .callback = request_cb },
    { .name = "event", .callback = event_cb },
  };

  return virtio_find_vqs (vdev, 2, vqs, info, NULL);
#else
  vq_callback_t *callbacks[2] = { request_cb, event_cb };
  static const char *const names[2] = { "request", "event" };

  return virtio_find_vqs (vdev, 2, vqs, callbacks, names, NULL);
#endif
}

/* From 6.15 on virtio devices are reset at shutdown unless their driver has a callback of its own. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
#define DOMYBS_HAVE_SHUTDOWN 1
#endif

/* Up to 6.10 offlining takes a section's every page from the managed ones, also those that an owner marked offline and has
 * taken from them already. The owner then adds them again before, and takes them away again if it comes to nothing. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 11, 0)
#define DOMYBS_OFFLINE_COUNTS_ALL 1
#else
#define DOMYBS_OFFLINE_COUNTS_ALL 0
#endif

static inline void
domybs_vma_set_flags (struct vm_area_struct *vma, unsigned long flags) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 3, 0)
  vm_flags_set (vma, flags);
#else
  vma->vm_flags |= flags;
#endif
}

/* A block device that is ours alone; close() takes the same holder. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 9, 0)
typedef struct file domybs_bdev_handle;
#define domybs_bdev_open(devt, holder) bdev_file_open_by_dev (devt, BLK_OPEN_READ | BLK_OPEN_WRITE, holder, NULL)
#define domybs_bdev_close(handle, holder) bdev_fput (handle)
#define domybs_bdev_of(handle) file_bdev (handle)
#define domybs_bdev_mapping(handle) ((handle)->f_mapping)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
typedef struct bdev_handle domybs_bdev_handle;
#define domybs_bdev_open(devt, holder) bdev_open_by_dev (devt, BLK_OPEN_READ | BLK_OPEN_WRITE, holder, NULL)
#define domybs_bdev_close(handle, holder) bdev_release (handle)
#define domybs_bdev_of(handle) ((handle)->bdev)
#define domybs_bdev_mapping(handle) ((handle)->bdev->bd_inode->i_mapping)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
typedef struct block_device domybs_bdev_handle;
#define domybs_bdev_open(devt, holder) blkdev_get_by_dev (devt, BLK_OPEN_READ | BLK_OPEN_WRITE, holder, NULL)
#define domybs_bdev_close(handle, holder) blkdev_put (handle, holder)
#define domybs_bdev_of(handle) (handle)
#define domybs_bdev_mapping(handle) ((handle)->bd_inode->i_mapping)
#else
typedef struct block_device domybs_bdev_handle;
#define domybs_bdev_open(devt, holder) blkdev_get_by_dev (devt, FMODE_READ | FMODE_WRITE | FMODE_EXCL, holder)
#define domybs_bdev_close(handle, holder) blkdev_put (handle, FMODE_READ | FMODE_WRITE | FMODE_EXCL)
#define domybs_bdev_of(handle) (handle)
#define domybs_bdev_mapping(handle) ((handle)->bd_inode->i_mapping)
#endif

static inline void
domybs_put_memory_type (struct memory_dev_type *type) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
  put_memory_type (type);
#else
  destroy_memory_type (type);
#endif
}

/* Shrinkers became refcounted objects of the kernel's own in 6.7. `own` is used before that only. */
static inline struct shrinker *
domybs_shrinker_new (struct shrinker *own, unsigned long (*count) (struct shrinker *, struct shrink_control *),
                     unsigned long (*scan) (struct shrinker *, struct shrink_control *), void *data) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
  struct shrinker *shrinker = shrinker_alloc (0, "domybs");

  if (!shrinker)
    return NULL;
  shrinker->count_objects = count;
  shrinker->scan_objects = scan;
  shrinker->private_data = data;
  shrinker_register (shrinker);
  return shrinker;
#else
  own->count_objects = count;
  own->scan_objects = scan;
  own->seeks = DEFAULT_SEEKS;
  return register_shrinker (own, "domybs") ? NULL : own;
#endif
}

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
#define domybs_from_shrinker(shrinker, type, member) ((type *)(shrinker)->private_data)
#else
#define domybs_from_shrinker(shrinker, type, member) container_of (shrinker, type, member)
#endif

static inline void
domybs_shrinker_free (struct shrinker *shrinker) {
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
  shrinker_free (shrinker);
#else
  if (shrinker)
    unregister_shrinker (shrinker);
#endif
}

#endif
