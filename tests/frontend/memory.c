/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guest memory as the front-end sees and announces it. */
#include "frontend.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *
fe_at (struct fe *fe, uint64_t gpa) {
  if (gpa >= FE_RAM_GPA && gpa < FE_RAM_GPA + FE_RAM_BYTES)
    return fe->ram + (gpa - FE_RAM_GPA);
  if (fe->window.map && gpa >= FE_WINDOW_GPA && gpa < FE_WINDOW_GPA + fe->window.bytes)
    return fe->window.map + (gpa - FE_WINDOW_GPA);
  return NULL;
}

uint8_t *
fe_block (struct fe *fe, uint64_t block) {
  return fe_at (fe, FE_WINDOW_GPA + block * DOMYBS_BLOCK_BYTES);
}

struct fe_region
fe_ram_region (struct fe *fe) {
  return (struct fe_region){ FE_RAM_GPA, FE_RAM_BYTES, (uint64_t)(uintptr_t)fe->ram, 0 };
}

static void
encode_regions (const struct fe_region *regions, unsigned n, uint8_t *out) {
  const uint32_t head[2] = { n, 0 };

  memcpy (out, head, sizeof head);
  for (unsigned i = 0; i < n; i++) {
    const uint64_t region[4] = { regions[i].gpa, regions[i].bytes, regions[i].user, regions[i].offset };

    memcpy (out + sizeof head + i * sizeof region, region, sizeof region);
  }
}

bool
fe_send_regions (struct fe *fe, const struct fe_region *regions, unsigned n, const int *fds, unsigned n_fds, uint64_t *ret_ack) {
  g_autofree uint8_t *payload = g_malloc (8 + n * 32);
  uint32_t bytes;

  encode_regions (regions, n, payload);
  *ret_ack = UINT64_MAX;
  if (!fe_send (fe, FE_SET_MEM_TABLE, FE_FLAG_NEED_REPLY, payload, 8 + n * 32, fds, n_fds))
    return false;
  if (!fe_receive (fe, FE_SET_MEM_TABLE, ret_ack, sizeof *ret_ack, &bytes))
    return strstr (fe->why, "closed") || strstr (fe->why, "reset");
  return true;
}

bool
fe_send_mem_table (struct fe *fe) {
  struct fe_region regions[2] = { fe_ram_region (fe) };
  int fds[2] = { fe->ram_fd };
  unsigned n = 1;
  uint8_t payload[8 + 2 * 32];

  if (fe->window.map) {
    regions[n] = (struct fe_region){ FE_WINDOW_GPA + fe->window.shm_offset, fe->window.bytes,
                                     (uint64_t)(uintptr_t)fe->window.map, fe->window.fd_offset };
    fds[n++] = fe->window.fd;
  }
  encode_regions (regions, n, payload);
  return fe_send_acked (fe, FE_SET_MEM_TABLE, payload, 8 + n * 32, fds, n);
}

bool
fe_drop_window (struct fe *fe) {
  if (fe->window.map)
    munmap (fe->window.map, fe->window.bytes);
  fe->window.map = NULL;
  fe_close (&fe->window.fd);
  return fe->sock < 0 || fe_send_mem_table (fe);
}
