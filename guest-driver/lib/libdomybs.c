/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-3-Clause) */
/* A thin coat over the ioctls of domybs-uapi.h: sizes instead of blocks, a mapping with each allocation, words for errors. */
#include "libdomybs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "domybs-uapi.h"

struct domybs_client {
  int fd;
};

_Static_assert((int)DOMYBS_CLIENT_REMOTE == 3, "hints are the ABI's");

static int
client_ioctl (struct domybs_client *client, unsigned long request, void *argument) {
  return ioctl (client->fd, request, argument) < 0 ? -errno : 0;
}

int
domybs_client_open (const char *device, struct domybs_client **ret_client) {
  struct domybs_ioc_info info = { 0 };
  struct domybs_client *client = malloc (sizeof *client);
  int error;

  if (!client)
    return -ENOMEM;
  client->fd = open (device ? device : DOMYBS_CLIENT_DEVICE, O_RDWR | O_CLOEXEC);
  if (client->fd < 0) {
    error = -errno;
    free (client);
    return error;
  }
  error = client_ioctl (client, DOMYBS_IOC_INFO, &info);
  if (!error && (info.uapi_version != DOMYBS_UAPI_VERSION || info.block_bytes != DOMYBS_CLIENT_BLOCK_BYTES))
    error = -EPROTONOSUPPORT;
  if (error) {
    domybs_client_close (client);
    return error;
  }
  *ret_client = client;
  return 0;
}

void
domybs_client_close (struct domybs_client *client) {
  if (!client)
    return;
  close (client->fd);
  free (client);
}

int
domybs_client_info (struct domybs_client *client, struct domybs_client_info *ret_info) {
  struct domybs_ioc_info info = { 0 };
  int error = client_ioctl (client, DOMYBS_IOC_INFO, &info);

  if (error)
    return error;
  *ret_info = (struct domybs_client_info){
    .block_bytes = info.block_bytes,
    .section_blocks = info.section_blocks,
    .window_blocks = info.window_blocks,
    .max_blocks = info.max_blocks,
    .client_max_blocks = info.file_max_blocks,
    .user_max_blocks = info.user_max_blocks,
  };
  return 0;
}

int
domybs_client_stats (struct domybs_client *client, struct domybs_client_stats *ret_stats) {
  struct domybs_ioc_stats stats = { 0 };
  int error = client_ioctl (client, DOMYBS_IOC_STATS, &stats);

  if (error)
    return error;
  *ret_stats = (struct domybs_client_stats){
    .granted = stats.granted,
    .online = stats.online,
    .held = stats.held,
    .reserve = stats.reserve,
    .user = stats.user,
    .own = stats.file_blocks,
    .stuck = stats.stuck,
    .max = stats.max_blocks,
    .granted_ever = stats.grants,
    .released_ever = stats.releases,
  };
  return 0;
}

int
domybs_client_far (struct domybs_client *client, struct domybs_client_far *ret_far) {
  struct domybs_ioc_far far = { 0 };
  int error = client_ioctl (client, DOMYBS_IOC_FAR, &far);

  if (error)
    return error;
  *ret_far = (struct domybs_client_far){
    .shared_blocks = far.disk_blocks[0],
    .remote_blocks = far.disk_blocks[1],
    .shared_used = far.used_blocks[0],
    .remote_used = far.used_blocks[1],
    .own = far.file_blocks,
    .client_max_blocks = far.file_max_blocks,
    .user_max_blocks = far.user_max_blocks,
  };
  return 0;
}

int
domybs_client_allocate (struct domybs_client *client, size_t bytes, enum domybs_client_hint hint,
                        struct domybs_memory *ret_memory) {
  struct domybs_ioc_alloc alloc = { .hint = (unsigned)hint };
  struct domybs_ioc_free undo = { 0 };
  void *address;
  int error;

  if (bytes == 0 || bytes > SIZE_MAX - (DOMYBS_CLIENT_BLOCK_BYTES - 1))
    return -EINVAL;
  alloc.blocks = (bytes + DOMYBS_CLIENT_BLOCK_BYTES - 1) / DOMYBS_CLIENT_BLOCK_BYTES;
  error = client_ioctl (client, DOMYBS_IOC_ALLOC, &alloc);
  if (error)
    return error;

  bytes = alloc.blocks * DOMYBS_CLIENT_BLOCK_BYTES;
  address = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, client->fd, (off_t)alloc.offset);
  if (address == MAP_FAILED) {
    error = -errno;
    undo.handle = alloc.handle;
    client_ioctl (client, DOMYBS_IOC_FREE, &undo);
    return error;
  }
  *ret_memory = (struct domybs_memory){ .address = address, .bytes = bytes, .handle = alloc.handle };
  return 0;
}

int
domybs_client_free (struct domybs_client *client, const struct domybs_memory *memory) {
  struct domybs_ioc_free arg = { .handle = memory->handle };

  if (munmap (memory->address, memory->bytes) < 0)
    return -errno;
  return client_ioctl (client, DOMYBS_IOC_FREE, &arg);
}

const char *
domybs_client_strerror (int error) {
  switch (error < 0 ? -error : error) {
  case 0:
    return "no error";
  case EOPNOTSUPP:
    return "tier not available";
  case EDQUOT:
    return "more than one program, or all of them, may have";
  case ENOSPC:
    return "the VM has all the blocks that it may have, or the far disk no so many free ones in a row";
  case ENOMEM:
    return "the host has no blocks to give now";
  case ENODEV:
    return "the memory device is gone or broken";
  case EBUSY:
    return "somebody else uses the far disk";
  case EIO:
    return "the far disk fails";
  case ENOENT:
    return "no such device or allocation (is virtio_domybs loaded?)";
  case EACCES:
  case EPERM:
    return "not allowed to use the memory device";
  case EINVAL:
    return "invalid argument";
  case EINTR:
    return "interrupted";
  case EPROTONOSUPPORT:
    return "the driver is of another version than this library";
  default:
    return "the memory device could not do it";
  }
}
