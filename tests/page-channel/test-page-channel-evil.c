/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The page channel and donors that break the rules: it goes on trying, says why, never takes anything for lost, and each
 * request ends. */
#include "channel-scene.h"
#include "evil-donor.h"
#include "testing.h"

#include <errno.h>
#include <string.h>

struct setting {
  const char *name;
  enum evil evil;
  gboolean tls;
  enum page_channel_state state; /* what it comes to */
  int error;                     /* ATTACHED: of a read */
};

static const struct setting settings[] = {
  { "silent", EVIL_SILENT, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "noise", EVIL_NOISE, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "old-style", EVIL_OLD_STYLE, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "long-reply", EVIL_LONG_REPLY, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "other-option", EVIL_OTHER_OPTION, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "no-leases", EVIL_NO_LEASES, FALSE, PAGE_CHANNEL_REFUSED, 0 },
  { "lease-short", EVIL_LEASE_SHORT, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "lease-noise", EVIL_LEASE_NOISE, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "size", EVIL_SIZE, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "read-only", EVIL_READ_ONLY, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "no-info", EVIL_NO_INFO, FALSE, PAGE_CHANNEL_DOWN, 0 },
  { "no-tls", EVIL_NO_TLS, TRUE, PAGE_CHANNEL_REFUSED, 0 },
  { "tls-injected", EVIL_TLS_INJECTED, TRUE, PAGE_CHANNEL_DOWN, 0 },
  { "tls-noise", EVIL_TLS_NOISE, TRUE, PAGE_CHANNEL_REFUSED, 0 },
  { "cookie", EVIL_COOKIE, FALSE, PAGE_CHANNEL_ATTACHED, ENOTCONN },
  { "chunk", EVIL_CHUNK, FALSE, PAGE_CHANNEL_ATTACHED, ENOTCONN },
  { "cut", EVIL_CUT, FALSE, PAGE_CHANNEL_ATTACHED, ENOTCONN },
};

static Scene *
begin (EvilDonor *donor, gboolean tls) {
  const SceneOptions options = { .tls = tls, .address = donor->address };

  return scene_new (&options);
}

static void
check_why (const Scene *scene) {
  const char *const why = scene_figures (scene).why;

  g_assert_nonnull (why);
  g_assert_cmpuint (strlen (why), <, 400);
  g_assert_true (g_utf8_validate (why, -1, NULL));
  for (const char *c = why; *c; c++)
    g_assert_cmpint (*c, !=, '\a');
}

static void
test_evil (gconstpointer data) {
  const struct setting *const setting = data;
  EvilDonor *donor = evil_donor_new (setting->evil, SCENE_PAGES * (guint64)SCENE_PAGE);
  Scene *scene = begin (donor, setting->tls);

  if (setting->state == PAGE_CHANNEL_ATTACHED) {
    for (guint i = 0; i < 5; i++) {
      scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
      g_assert_cmpint (scene_read (scene, PAGE_DEMAND, i, 1), ==, setting->error);
      scene_wait_state (scene, PAGE_CHANNEL_DOWN);
      check_why (scene);
    }
  } else {
    scene_wait (scene_figures (scene).reconnects >= 3 && scene_figures (scene).state == setting->state);
    check_why (scene);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, 0, 1), ==, ENOTCONN);
  }
  scene_free (scene);
  evil_donor_free (donor);
}

/* The second answer is to nothing that was asked, or it comes while the page of another read is awaited: that one does not get
 * it. */
static void
test_twice (void) {
  EvilDonor *donor = evil_donor_new (EVIL_TWICE, SCENE_PAGES * (guint64)SCENE_PAGE);
  Scene *scene = begin (donor, FALSE);

  for (guint i = 0; i < 5; i++) {
    SceneIo *ios[8];

    scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
    for (guint j = 0; j < G_N_ELEMENTS (ios); j++)
      ios[j] = scene_begin (scene, PAGE_READ, PAGE_DEMAND, j * 3, 2, 0, 0);
    page_channel_kick (scene->channel);
    g_assert_cmpint (scene_end (ios[0]), ==, 0);
    for (guint j = 1; j < G_N_ELEMENTS (ios); j++)
      g_assert_cmpint (scene_end (ios[j]), ==, ENOTCONN);
    scene_wait_state (scene, PAGE_CHANNEL_DOWN);
  }
  scene_free (scene);
  evil_donor_free (donor);
}

/* Errors of the wire are numbers of its own. */
static void
test_errors (void) {
  static const struct {
    gint wire;
    int ours;
  } errors[] = { { 1, EPERM },       { 5, EIO },      { 12, ENOMEM }, { 22, EINVAL },    { 28, ENOSPC }, { 75, EOVERFLOW },
                 { 95, EOPNOTSUPP }, { 108, ESTALE }, { 12345, EIO }, { G_MININT, EIO }, { -1, EIO },    { ENOTCONN, EIO } };
  EvilDonor *donor = evil_donor_new (EVIL_ERROR, SCENE_PAGES * (guint64)SCENE_PAGE);
  Scene *scene = begin (donor, FALSE);

  scene_wait_state (scene, PAGE_CHANNEL_ATTACHED);
  for (guint i = 0; i < G_N_ELEMENTS (errors); i++) {
    g_atomic_int_set (donor->error, errors[i].wire);
    g_assert_cmpint (scene_read (scene, PAGE_DEMAND, i, 1), ==, errors[i].ours);
    g_assert_cmpint (scene_write (scene, PAGE_WRITE_OUT, i, 1, 5), ==, errors[i].ours);
  }
  g_assert_cmpint (scene->told, ==, PAGE_CHANNEL_ATTACHED);
  g_assert_cmpuint (scene_figures (scene).errors, ==, 2 * G_N_ELEMENTS (errors));
  scene_free (scene);
  evil_donor_free (donor);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  for (guint i = 0; i < G_N_ELEMENTS (settings); i++) {
    g_autofree char *name = g_strdup_printf ("/page-channel-evil/%s", settings[i].name);

    g_test_add_data_func (name, &settings[i], test_evil);
  }
  g_test_add_func ("/page-channel-evil/twice", test_twice);
  g_test_add_func ("/page-channel-evil/errors", test_errors);
  return g_test_run ();
}
