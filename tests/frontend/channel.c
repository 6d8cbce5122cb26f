/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The backend channel: the back-end asks, the front-end does. One message is read and handled at a time, as QEMU does. */
#include "frontend.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

struct channel_message {
  uint32_t request, flags, bytes;
  uint8_t payload[64];
  int fd; /* -1: none came */
};

/* Reads one whole message; the back-end has to send it with one sendmsg, because QEMU blocks on half a one. */
static bool
read_message (struct fe *fe, struct channel_message *ret) {
  union {
    struct cmsghdr align;
    char buf[CMSG_SPACE (4 * sizeof (int))];
  } control;
  uint8_t bytes[12 + sizeof ret->payload];
  struct iovec iov = { bytes, 12 };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
  ssize_t got = recvmsg (fe->channel, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

  ret->fd = -1;
  if (got <= 0) {
    if (got < 0 && errno == EAGAIN)
      return false;
    fe_close (&fe->channel);
    return fe_fail (fe, "the back-end closed its channel");
  }
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR (&msg); cmsg; cmsg = CMSG_NXTHDR (&msg, cmsg))
    if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
      memcpy (&ret->fd, CMSG_DATA (cmsg), sizeof ret->fd);
  if (got == 12) {
    memcpy (&ret->request, bytes, 4);
    memcpy (&ret->flags, bytes + 4, 4);
    memcpy (&ret->bytes, bytes + 8, 4);
    if (ret->bytes <= sizeof ret->payload
        && (ret->bytes == 0 || recv (fe->channel, ret->payload, ret->bytes, MSG_DONTWAIT) == (ssize_t)ret->bytes))
      return true;
  }
  fe_close (&ret->fd);
  return fe_fail (fe, "half a message on the backend channel: QEMU would block on it");
}

static bool
answer (struct fe *fe, uint32_t request, uint64_t value) {
  const uint32_t header[3] = { request, FE_FLAG_VERSION | FE_FLAG_REPLY, 8 };
  uint8_t bytes[20];

  memcpy (bytes, header, sizeof header);
  memcpy (bytes + sizeof header, &value, sizeof value);
  return fe_send_raw (fe, fe->channel, bytes, sizeof bytes, NULL, 0);
}

static bool
map_window (struct fe *fe) {
  const int protection = fe->window.flags & 1 ? PROT_READ | PROT_WRITE : PROT_READ;
  void *map = mmap (NULL, fe->window.bytes, protection, MAP_SHARED | MAP_NORESERVE, fe->window.fd, (off_t)fe->window.fd_offset);

  if (map == MAP_FAILED)
    return fe_fail (fe, "map of %" G_GUINT64_FORMAT " bytes: %s", fe->window.bytes, g_strerror (errno));
  if (fe->huge)
    madvise (map, fe->window.bytes, MADV_HUGEPAGE);
  fe->window.map = map;
  fe->maps++;
  return true;
}

/* As QEMU: the answer first, the new memory table (main socket) after it. */
bool
fe_map_now (struct fe *fe) {
  fe->held = false;
  return map_window (fe) && answer (fe, FE_CHANNEL_SHMEM_MAP, 0) && fe_send_mem_table (fe);
}

/* A table that claims another file to be the window. */
static bool
send_other_window (struct fe *fe) {
  const int other = memfd_create ("not-the-window", MFD_CLOEXEC);
  struct fe_region regions[2] = { fe_ram_region (fe),
                                  { FE_WINDOW_GPA, fe->window.bytes, (uint64_t)(uintptr_t)fe->window.map, 0 } };
  const int fds[2] = { fe->ram_fd, other };
  uint64_t ack;
  bool ok = ftruncate (other, (off_t)fe->window.bytes) == 0 && fe_send_regions (fe, regions, 2, fds, 2, &ack);

  close (other);
  return ok;
}

static bool
handle_map (struct fe *fe, struct channel_message *message) {
  if (message->bytes != 40 || message->fd < 0 || !(message->flags & FE_FLAG_NEED_REPLY)) {
    fe_close (&message->fd);
    return fe_fail (fe, "a SHMEM_MAP of %u bytes, flags %#x", message->bytes, message->flags);
  }
  if (fe->window.map)
    munmap (fe->window.map, fe->window.bytes);
  fe->window.map = NULL;
  fe_close (&fe->window.fd);
  fe->window.fd = message->fd;
  memcpy (&fe->window.fd_offset, message->payload + 8, 8);
  memcpy (&fe->window.shm_offset, message->payload + 16, 8);
  memcpy (&fe->window.bytes, message->payload + 24, 8);
  memcpy (&fe->window.flags, message->payload + 32, 8);

  switch (fe->channel_mode) {
  case FE_CHANNEL_SERVE:
    return fe_map_now (fe);
  case FE_CHANNEL_MUTE:
    fe->maps++;
    return true;
  case FE_CHANNEL_HOLD:
    fe->held = true;
    return true;
  case FE_CHANNEL_REFUSE:
    fe->maps++;
    return answer (fe, FE_CHANNEL_SHMEM_MAP, 1);
  case FE_CHANNEL_NO_TABLE:
    return map_window (fe) && answer (fe, FE_CHANNEL_SHMEM_MAP, 0);
  case FE_CHANNEL_GARBAGE: {
    uint8_t garbage[64];

    fe->maps++;
    memset (garbage, 0xa5, sizeof garbage);
    return fe_send_raw (fe, fe->channel, garbage, sizeof garbage, NULL, 0);
  }
  case FE_CHANNEL_WRONG_REQUEST:
    fe->maps++;
    return answer (fe, FE_CHANNEL_SHMEM_UNMAP, 0);
  case FE_CHANNEL_HALF_ANSWER: {
    const uint32_t header[3] = { FE_CHANNEL_SHMEM_MAP, FE_FLAG_VERSION | FE_FLAG_REPLY, 8 };

    fe->maps++;
    return fe_send_raw (fe, fe->channel, header, 10, NULL, 0);
  }
  case FE_CHANNEL_TWO_ANSWERS:
    return fe_map_now (fe) && answer (fe, FE_CHANNEL_SHMEM_MAP, 0);
  case FE_CHANNEL_CLOSE:
    fe->maps++;
    fe_close (&fe->channel);
    return true;
  case FE_CHANNEL_OTHER_FD:
    return map_window (fe) && answer (fe, FE_CHANNEL_SHMEM_MAP, 0) && send_other_window (fe);
  }
  return false;
}

bool
fe_serve_channel (struct fe *fe) {
  struct channel_message message;
  struct pollfd pfd = { fe->channel, POLLIN, 0 };

  while (fe->channel >= 0 && poll (&pfd, 1, 0) > 0) {
    if (!read_message (fe, &message))
      return false;
    switch (message.request) {
    case FE_CHANNEL_SHMEM_MAP:
      if (!handle_map (fe, &message))
        return false;
      break;
    case FE_CHANNEL_SHMEM_UNMAP:
      fe->unmaps++;
      if (fe->window.map)
        munmap (fe->window.map, fe->window.bytes);
      fe->window.map = NULL;
      fe_close (&fe->window.fd);
      if (!answer (fe, FE_CHANNEL_SHMEM_UNMAP, 0) || !fe_send_mem_table (fe))
        return false;
      break;
    case FE_CHANNEL_CONFIG_CHANGE:
      fe->config_changes++;
      if ((message.flags & FE_FLAG_NEED_REPLY) && !answer (fe, FE_CHANNEL_CONFIG_CHANGE, 0))
        return false;
      break;
    default:
      fe_close (&message.fd);
      return fe_fail (fe, "request %u on the backend channel", message.request);
    }
  }
  return true;
}
