/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A domain's configuration is changed as a whole or not at all, and nobody else's change to it gets lost. With libvirt's test
 * driver. */
#include "attach/config.h"
#include "attach/scope.h"

#include <libvirt/virterror.h>
#include <string.h>

static ctl_connect_t *connection;
static ctl_domain_t *domain;

static void
define (const char *name, const char *title) {
  g_autofree char *xml = g_strdup_printf ("<domain type='test'><name>%s</name><title>%s</title><description>plain</description>"
                                          "<memory>1024</memory><os><type>hvm</type></os></domain>",
                                          name, title);
  g_autoptr (ctl_domain_t) defined = virDomainDefineXML (connection, xml);

  g_assert_nonnull (defined);
}

static void
set_up (void) {
  connection = virConnectOpen ("test:///default");
  g_assert_nonnull (connection);
  define ("one", "first");
  domain = virDomainLookupByName (connection, "one");
  g_assert_nonnull (domain);
}

static void
tear_down (void) {
  if (virDomainIsActive (domain) == 1)
    virDomainDestroy (domain);
  if (virDomainIsPersistent (domain) == 1)
    virDomainUndefine (domain);
  virDomainFree (domain);
  virConnectClose (connection);
}

static char *
current (void) {
  return virDomainGetXMLDesc (domain, VIR_DOMAIN_XML_INACTIVE | VIR_DOMAIN_XML_SECURE);
}

static void
has (const char *words) {
  g_autofree char *xml = current ();

  if (!strstr (xml, words))
    g_error ("no %s in %s", words, xml);
}

/* What another administrator does while an edit is under way: so many times. */
static int rivals;

static char *
edit (const char *xml, gpointer data, GPtrArray *changes, GError **error) {
  g_auto (GStrv) halves = g_strsplit (xml, "<description>plain</description>", 2);

  if (rivals-- > 0) {
    g_autofree char *title = g_strdup_printf ("rival %d", rivals);

    g_assert_cmpint (virDomainSetMetadata (domain, VIR_DOMAIN_METADATA_TITLE, title, NULL, NULL, VIR_DOMAIN_AFFECT_CONFIG), ==,
                     0);
  }
  if (g_strv_length (halves) < 2)
    return g_strdup (xml);
  g_ptr_array_add (changes, g_strdup ("edits the description"));
  return g_strconcat (halves[0], "<description>edited</description>", halves[1], NULL);
}

static char *
edit_badly (const char *xml, gpointer data, GPtrArray *changes, GError **error) {
  return g_strdup ("<domain type='test'><name>one</name>");
}

static void
defines_what_was_planned (void) {
  g_auto (Config) config = { 0 };
  g_autofree char *before = NULL, *after = NULL;

  set_up ();
  before = current ();
  g_assert_true (config_plan (domain, edit, NULL, &config, NULL));
  g_assert_true (config_is_changed (&config));
  g_assert_cmpuint (config.changes->len, ==, 1);
  has ("plain");
  g_assert_true (config_apply (connection, domain, edit, NULL, &config, NULL));
  has ("edited");
  g_assert_true (config_revert (connection, domain, &config, NULL));
  after = current ();
  g_assert_cmpstr (after, ==, before);
  tear_down ();
}

static void
takes_in_what_others_changed (void) {
  g_auto (Config) config = { 0 };

  set_up ();
  rivals = 3;
  g_assert_true (config_plan (domain, edit, NULL, &config, NULL));
  g_assert_true (config_apply (connection, domain, edit, NULL, &config, NULL));
  has ("edited");
  has ("<title>rival 0</title>");
  tear_down ();
}

static void
gives_up_on_a_busy_one (void) {
  g_auto (Config) config = { 0 };
  g_autoptr (GError) error = NULL;

  set_up ();
  rivals = 100;
  g_assert_true (config_plan (domain, edit, NULL, &config, NULL));
  g_assert_false (config_apply (connection, domain, edit, NULL, &config, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_FAILED);
  g_assert_true (g_str_has_prefix (error->message, "domain 'one': "));
  has ("plain");
  rivals = 0;
  tear_down ();
}

static void
reverts_nobody_elses_change (void) {
  g_auto (Config) config = { 0 };
  g_autoptr (GError) error = NULL;

  set_up ();
  g_assert_true (config_plan (domain, edit, NULL, &config, NULL));
  g_assert_true (config_apply (connection, domain, edit, NULL, &config, NULL));
  g_assert_cmpint (virDomainSetMetadata (domain, VIR_DOMAIN_METADATA_TITLE, "later", NULL, NULL, VIR_DOMAIN_AFFECT_CONFIG), ==,
                   0);
  g_assert_false (config_revert (connection, domain, &config, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
  has ("edited");
  has ("<title>later</title>");
  tear_down ();
}

static void
changes_nothing_by_a_bad_edit (void) {
  g_auto (Config) config = { 0 };
  g_autoptr (GError) error = NULL;
  g_autofree char *before = NULL, *after = NULL;

  set_up ();
  before = current ();
  g_assert_true (config_plan (domain, edit_badly, NULL, &config, NULL));
  g_assert_false (config_apply (connection, domain, edit_badly, NULL, &config, &error));
  g_assert_error (error, CTL_ERROR, CTL_ERROR_FAILED);
  g_assert_null (strchr (error->message, '\n'));
  after = current ();
  g_assert_cmpstr (after, ==, before);
  tear_down ();
}

/* ---- which side ---- */

static void
expect_scope (gboolean live, gboolean config, const char *expected) {
  g_autoptr (GError) error = NULL;
  Scope scope;
  const gboolean ok = scope_choose (domain, live, config, &scope, &error);
  const char *got = !ok                          ? "refused"
                    : scope.live && scope.config ? "both"
                    : scope.live                 ? "live"
                    : scope.config               ? "config"
                                                 : "none";

  g_assert_cmpstr (got, ==, expected);
  if (!ok)
    g_assert_error (error, CTL_ERROR, CTL_ERROR_REFUSED);
}

static void
chooses_a_side (void) {
  set_up ();
  expect_scope (FALSE, FALSE, "config");
  expect_scope (FALSE, TRUE, "config");
  expect_scope (TRUE, FALSE, "refused");
  expect_scope (TRUE, TRUE, "refused");
  g_assert_cmpint (virDomainCreate (domain), ==, 0);
  expect_scope (FALSE, FALSE, "both");
  expect_scope (FALSE, TRUE, "config");
  expect_scope (TRUE, FALSE, "live");
  expect_scope (TRUE, TRUE, "both");
  g_assert_cmpint (virDomainUndefine (domain), ==, 0);
  expect_scope (FALSE, FALSE, "live");
  expect_scope (FALSE, TRUE, "refused");
  expect_scope (TRUE, FALSE, "live");
  expect_scope (TRUE, TRUE, "refused");
  tear_down ();
}

static void
tells_the_cause (void) {
  static const char *const texts[][2] = {
    { "domain 'x': it is too old; buy another", "it is too old" },
    { "it is too old; buy another; or two", "it is too old" },
    { "domain 'y': it is", "domain 'y': it is" },
    { "", "" },
  };

  for (size_t i = 0; i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (GError) error = g_error_new_literal (CTL_ERROR, CTL_ERROR_FAILED, texts[i][0]);
    g_autofree char *cause = scope_cause ("x", error);

    g_assert_cmpstr (cause, ==, texts[i][1]);
  }
}

static void
say_nothing (void *data, virErrorPtr error) {
}

int
main (int argc, char **argv) {
  g_test_init (&argc, &argv, NULL);
  virSetErrorFunc (NULL, say_nothing);
  g_test_add_func ("/config/defines-what-was-planned", defines_what_was_planned);
  g_test_add_func ("/config/takes-in-what-others-changed", takes_in_what_others_changed);
  g_test_add_func ("/config/gives-up-on-a-busy-one", gives_up_on_a_busy_one);
  g_test_add_func ("/config/reverts-nobody-elses-change", reverts_nobody_elses_change);
  g_test_add_func ("/config/changes-nothing-by-a-bad-edit", changes_nothing_by_a_bad_edit);
  g_test_add_func ("/scope/chooses-a-side", chooses_a_side);
  g_test_add_func ("/scope/tells-the-cause", tells_the_cause);
  return g_test_run ();
}
