/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "neighbours.h"
#include "frontend.h"
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <glib/gstdio.h>

#define KEYS "host1:000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n"
#define BYTES_DEFAULT (16ull << 20)
#define BLOCKS_DEFAULT 64u

bool
neighbours_leave_out (bool is_long) {
  return is_long && !g_getenv ("DOMYBS_LONG");
}

/* ---- life ---- */

static void
lend (struct neighbours *n, unsigned d, unsigned blocks) {
  g_autofree char *listen = n->addresses[d] ? g_strdup_printf ("--listen=%s", n->addresses[d]) : NULL;
  const char *const arguments[] = { listen, NULL };

  n->donors[d]
      = donor_start (&(struct donor_options){ .bytes = (uint64_t)(blocks ? blocks : BLOCKS_DEFAULT) * LEASE_BLOCK_BYTES,
                                              .keys = n->plain ? NULL : KEYS,
                                              .arguments = arguments });
  if (!n->addresses[d])
    n->addresses[d] = g_strdup (n->donors[d]->address);
}

void
neighbours_lend (struct neighbours *n, unsigned n_donors, const unsigned *blocks, bool plain) {
  *n = (struct neighbours){ .n_donors = n_donors, .plain = plain, .random = testing_rand () };
  n->folder = g_dir_make_tmp ("domybs-neighbours-XXXXXX", NULL);
  n->key_path = g_build_filename (n->folder, "keys", NULL);
  g_assert_true (g_file_set_contents_full (n->key_path, KEYS, -1, G_FILE_SET_CONTENTS_NONE, 0600, NULL));
  for (unsigned d = 0; d < n_donors; d++)
    lend (n, d, blocks ? blocks[d] : 0);
}

void
neighbours_borrow (struct neighbours *n, const struct neighbours_options *options) {
  g_autoptr (GPtrArray) arguments = g_ptr_array_new_with_free_func (g_free);
  g_autofree char *extra = g_strdup_printf (",queues=1,prefetch=0,protection=%s", options->mode);

  for (unsigned d = 0; d < n->n_donors; d++) {
    const char *address = options->via && options->via[d] ? options->via[d] : n->addresses[d];

    g_ptr_array_add (arguments, n->plain ? g_strdup_printf ("--donor=d%u,address=%s,tls=off", d, address)
                                         : g_strdup_printf ("--donor=d%u,address=%s,psk=%s", d, address, n->key_path));
  }
  g_ptr_array_add (arguments, g_strdup ("--stage=8M"));
  for (const char *const *more = options->arguments; more && *more; more++)
    g_ptr_array_add (arguments, g_strdup (*more));
  g_ptr_array_add (arguments, NULL);
  n->far = far_start (&(struct far_options){ .bytes = options->bytes ? options->bytes : BYTES_DEFAULT,
                                             .disk_extra = extra,
                                             .arguments = (const char *const *)arguments->pdata,
                                             .program = options->program,
                                             .crash_file = options->crash_file });
  load_init (&n->load, n->far, far_connect (n->far, 0), 0, n->random);
  n->load.kinds = 1u << LOAD_RANDOM | 1u << LOAD_SAME;
}

void
neighbours_end (struct neighbours *n) {
  load_clear (&n->load);
  far_end (n->far);
  for (unsigned d = 0; d < n->n_donors; d++) {
    if (backend_is_alive (n->donors[d]->backend))
      g_assert_true (donor_wait_status (n->donors[d], "used-blocks", 0));
    donor_end (n->donors[d]);
    g_free (n->addresses[d]);
  }
  g_unlink (n->key_path);
  g_rmdir (n->folder);
  g_free (n->key_path);
  g_free (n->folder);
  g_rand_free (n->random);
}

/* Dead; who is to bury it may take a while. */
static bool
has_ended (pid_t pid) {
  g_autofree char *path = g_strdup_printf ("/proc/%d/stat", (int)pid), *stat = NULL;
  const char *state;

  if (!g_file_get_contents (path, &stat, NULL, NULL))
    return true;
  state = strrchr (stat, ')');
  return !state || state[2] == 'Z' || state[2] == 'X';
}

void
neighbours_kill (struct neighbours *n, unsigned donor) {
  struct backend *backend = n->donors[donor]->backend;
  const pid_t worker = backend_wait_worker (backend, 0, fe_patience_ms ());

  g_assert_cmpint (kill (backend->pid, SIGKILL), ==, 0);
  g_assert_true (backend_wait_end (backend, fe_patience_ms ()));
  NEIGHBOURS_UNTIL (has_ended (worker), "a worker ends with its keeper"); /* and has the port until then */
}

void
neighbours_return (struct neighbours *n, unsigned donor, unsigned blocks) {
  donor_end (n->donors[donor]);
  lend (n, donor, blocks);
}

/* ---- what it says ---- */

int64_t
neighbours_copies (struct neighbours *n, const char *member) {
  g_autofree char *path = g_strdup_printf ("copies.%s", member);

  return far_status (n->far, 0, path);
}

/* Free it. */
static JsonNode *
donor_node (struct neighbours *n, unsigned donor, const char *member) {
  g_autoptr (JsonNode) answer = backend_control_again (n->far->backend, "{\"execute\":\"status\"}");
  JsonObject *object = json_object_get_object_member (json_node_get_object (answer), "return");

  object = json_array_get_object_element (json_object_get_array_member (object, "disks"), 0);
  object = json_object_get_object_member (object, "copies");
  object = json_array_get_object_element (json_object_get_array_member (object, "donors"), donor);
  g_assert_true (json_object_has_member (object, member));
  return json_node_copy (json_object_get_member (object, member));
}

int64_t
neighbours_donor (struct neighbours *n, unsigned donor, const char *member) {
  g_autoptr (JsonNode) node = donor_node (n, donor, member);

  return JSON_NODE_HOLDS_VALUE (node) ? json_node_get_int (node) : INT64_MIN;
}

/* Both sides say so: either of them may not know yet that the other one is another one. */
static bool
are_attached (struct neighbours *n) {
  bool are = true;

  for (unsigned d = 0; d < n->n_donors && are; d++) {
    g_autoptr (JsonNode) channel = donor_node (n, d, "channel");

    are = !backend_is_alive (n->donors[d]->backend)
          || (donor_status (n->donors[d], "leases") > 0 && g_str_equal (json_node_get_string (channel), "attached"));
  }
  return are;
}

static void
in_vain (struct neighbours *n, const char *what) {
  g_autofree char *log = backend_log_from (n->far->backend, 0);

  g_error ("%s: in vain: places %d, protected %d, degraded %d, endangered %d, lost %d, in storage %d; log:\n%s", what,
           (int)neighbours_copies (n, "places"), (int)neighbours_copies (n, "protected"),
           (int)neighbours_copies (n, "degraded"), (int)neighbours_copies (n, "endangered"), (int)neighbours_copies (n, "lost"),
           (int)neighbours_copies (n, "in-storage"), log);
}

static bool
is_quiet (struct neighbours *n) {
  return far_status (n->far, 0, "storage-settled") == 1 && far_status (n->far, 0, "stage.writing") == 0
         && neighbours_copies (n, "repairing") == 0;
}

void
neighbours_wait_quiet (struct neighbours *n) {
  const int64_t deadline = fe_now_ms () + NEIGHBOURS_PATIENCE_MS;

  while (!is_quiet (n)) {
    if (fe_now_ms () > deadline)
      in_vain (n, "it comes to rest");
    g_usleep (5000);
  }
}

void
neighbours_wait_attached (struct neighbours *n) {
  NEIGHBOURS_UNTIL (are_attached (n), "all donors are attached");
}

void
neighbours_wait_protected (struct neighbours *n) {
  const int64_t deadline = fe_now_ms () + NEIGHBOURS_PATIENCE_MS;

  while (!are_attached (n) || !is_quiet (n) || neighbours_copies (n, "places") <= 0
         || neighbours_copies (n, "protected") != neighbours_copies (n, "places")) {
    if (fe_now_ms () > deadline)
      in_vain (n, "all is protected");
    g_usleep (5000);
  }
}

/* ---- every page ---- */

void
neighbours_check (struct neighbours *n) {
  load_check_all (&n->load);
  g_assert_cmpint (neighbours_copies (n, "lost"), ==, 0);
  g_assert_cmpint (far_status (n->far, 0, "damaged-pages"), ==, 0);
}

unsigned
neighbours_read_each (struct neighbours *n) {
  struct load *load = &n->load;
  const struct blk_shape plain = { 0 };
  unsigned failed = 0;

  load_drain (load);
  for (uint64_t at = 0; at < load->n_pages || load->blk->n_in_flight;) {
    uint8_t status, page[BLK_PAGE] __attribute__ ((aligned (8)));
    unsigned slot;
    int free_slot;
    uint64_t number;

    while (at < load->n_pages && (free_slot = blk_free_slot (load->blk)) >= 0) {
      blk_prepare (load->blk, (unsigned)free_slot, BLK_IN, at++, 1);
      blk_submit (load->blk, (unsigned)free_slot, &plain, NULL);
    }
    blk_kick (load->blk, 0);
    blk_must (load->blk, blk_wait (load->blk, &slot, &status, NEIGHBOURS_PATIENCE_MS));
    number = load->blk->slots[slot].first;
    if (status == BLK_S_IOERR) {
      load->pages[number].damaged = true;
      failed++;
      continue;
    }
    g_assert_cmpint (status, ==, BLK_S_OK);
    load_fill (load, number, &load->pages[number], page);
    if (memcmp (page, blk_data (load->blk, slot), BLK_PAGE) != 0)
      g_error ("page %" G_GUINT64_FORMAT " is not what was written, and is read as if it was", number);
  }
  return failed;
}

void
neighbours_forget_damage (struct neighbours *n) {
  for (uint64_t page = 0; page < n->load.n_pages; page++)
    n->load.pages[page].damaged = false;
}

/* ---- behind a donor's back ---- */

int
neighbours_arena (struct neighbours *n, unsigned donor) {
  g_autofree char *folder = g_strdup_printf ("/proc/%d/fd", (int)n->donors[donor]->backend->pid);
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  const char *name;

  while (dir && (name = g_dir_read_name (dir))) {
    g_autofree char *path = g_build_filename (folder, name, NULL), *what = g_file_read_link (path, NULL);

    if (what && g_str_has_prefix (what, "/memfd:domybs-arena"))
      return open (path, O_RDWR | O_CLOEXEC);
  }
  g_test_skip ("this user may not look into a donor's files");
  return -1;
}
