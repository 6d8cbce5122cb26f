/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "io/fd-message.h"
#include "io/sandbox-calls.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

SANDBOX_CALLS (SANDBOX_CALL (sendmsg), SANDBOX_CALL (recvmsg));

ssize_t
fd_message_send (int to, const void *head, size_t n_head, const void *body, size_t n_body, int fd) {
  union {
    char buf[CMSG_SPACE (sizeof (int))];
    struct cmsghdr align;
  } control = { { 0 } };
  struct iovec iov[2] = { { (void *)head, n_head }, { (void *)body, n_body } };
  struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
  ssize_t n;

  if (fd >= 0) {
    struct cmsghdr *cmsg;

    msg.msg_control = control.buf;
    msg.msg_controllen = sizeof control.buf;
    cmsg = CMSG_FIRSTHDR (&msg);
    *cmsg = (struct cmsghdr){ .cmsg_len = CMSG_LEN (sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy (CMSG_DATA (cmsg), &fd, sizeof fd);
  }
  do
    n = sendmsg (to, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
  while (n < 0 && errno == EINTR);
  return n;
}

ssize_t
fd_message_receive (int from, void *bytes, size_t n, struct fd_message_fds *ret_fds) {
  union {
    char buf[CMSG_SPACE (sizeof (int) * FD_MESSAGE_FDS_MAX)];
    struct cmsghdr align;
  } control;
  struct iovec iov = { bytes, n };
  struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.buf, .msg_controllen = sizeof control.buf };
  ssize_t result;

  ret_fds->n = 0;
  ret_fds->truncated = false;
  do
    result = recvmsg (from, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  while (result < 0 && errno == EINTR);
  if (result < 0)
    return result;
  ret_fds->truncated = (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
  for (struct cmsghdr *cmsg = CMSG_FIRSTHDR (&msg); cmsg; cmsg = CMSG_NXTHDR (&msg, cmsg)) {
    size_t n_bytes = cmsg->cmsg_len - CMSG_LEN (0);

    if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
      continue;
    memcpy (ret_fds->fds + ret_fds->n, CMSG_DATA (cmsg), n_bytes); /* they fit: the buffer has room for no more */
    ret_fds->n += (unsigned)(n_bytes / sizeof (int));
  }
  return result;
}
