/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random edits between attach and detach, and texts that are nearly domain XML. */
#include <string.h>

#include "domain-fixture.h"
#include "testing.h"

static char *
random_fixture (GRand *rand) {
  g_autoptr (GPtrArray) names = fixture_names ();
  const char *name = names->pdata[testing_below (rand, names->len)];

  g_autofree char *text = fixture_read (name);

  testing_trace ("%s", name);
  /* What was put between two tags that had only blanks between them is known by its place. With an edit beside it, detach
   * leaves the edit, but may take the wrong blanks. libvirt never writes such an element. */
  return strstr (text, "<cpu>\n  </cpu>") ? fixture_replace (text, "<cpu>\n  </cpu>", "<cpu/>") : g_steal_pointer (&text);
}

static bool
is_read (const char *text) {
  g_autoptr (GError) error = NULL;
  g_auto (DomainFar) there = { { 0 }, NULL, FALSE };
  unsigned queues[DOMAIN_FAR_TIERS];
  DomainMemory memory;

  (void)(domain_read_memory (text, &memory, &error) || error || domain_read_far (text, &there, queues, &error));
  return !error;
}

static const DomainFar far = { { (guint64)8 << 30, (guint64)32 << 30 }, (char *)"/var/lib/domybs/far", FALSE };

/* The memory device, far disks, or both. */
static DomainAttachOptions
random_options (GRand *rand) {
  DomainAttachOptions options = fixture_options;
  const uint64_t kind = testing_below (rand, 3);

  if (kind > 0)
    options.far = &far;
  if (kind == 2)
    options.window_bytes = 0;
  testing_trace ("%s%s", kind < 2 ? "memory device " : "", kind > 0 ? "far disks" : "");
  return options;
}

static char *
attach (const char *text, const DomainAttachOptions *options) {
  char *attached = domain_attach (text, options, &fixture_host, FIXTURE_SOCKET, NULL, NULL);

  g_assert_nonnull (attached);
  return attached;
}

static unsigned
count_lines (char **lines, const char *line) {
  unsigned n = 0;

  for (; *lines; lines++)
    n += strcmp (*lines, line) == 0;
  return n;
}

/* Puts `insert` behind the nth line that is `line`, in place of it if replace is set. */
static char *
edit_line (char **lines, const char *line, unsigned nth, const char *insert, bool replace) {
  g_autoptr (GPtrArray) edited = g_ptr_array_new ();

  for (; *lines; lines++) {
    const bool is_here = strcmp (*lines, line) == 0 && nth-- == 0;

    if (!is_here || !replace)
      g_ptr_array_add (edited, *lines);
    if (is_here && insert)
      g_ptr_array_add (edited, (char *)insert);
  }
  g_ptr_array_add (edited, NULL);
  return g_strjoinv ("\n", (char **)edited->pdata);
}

/* The same edit in the file and in what attach made of it. False if there is no sense in it. */
static bool
edit_both (GRand *rand, char **ret_plain, char **ret_attached) {
  static const char *const inserts[] = {
    "<!-- note -->",
    "",
    "   ",
    "\t<!--\n two\n\tlines -->",
    "<title>t</title>",
    "  <foo:bar xmlns:foo='urn:foo'><a/></foo:bar>",
    "<a>\n\n</a> <b/>",
    "<?php ?>",
  };
  g_auto (GStrv) plain = g_strsplit (*ret_plain, "\n", -1), attached = g_strsplit (*ret_attached, "\n", -1);
  const char *line = plain[testing_below (rand, g_strv_length (plain))],
             *insert = inserts[testing_below (rand, G_N_ELEMENTS (inserts))];
  const unsigned n = count_lines (plain, line), nth = (unsigned)testing_below (rand, n);
  const bool replace = testing_once_in (rand, 4);
  g_autofree char *new_plain = edit_line (plain, line, nth, insert, replace),
                  *new_attached = edit_line (attached, line, nth, insert, replace);

  /* A line that attach has changed, or has made more of, is none that can be edited the same way on both sides. */
  if (count_lines (attached, line) != n || !is_read (new_plain) || !is_read (new_attached))
    return false;
  testing_trace ("%s “%s” %u: “%s”", replace ? "replace" : "behind", line, nth, insert);
  g_free (*ret_plain);
  g_free (*ret_attached);
  *ret_plain = g_steal_pointer (&new_plain);
  *ret_attached = g_steal_pointer (&new_attached);
  return true;
}

/* Elements with nothing in them as empty-element tags. */
static char *
shorten (const char *text) {
  g_autoptr (GRegex) empty = g_regex_new ("<([A-Za-z:_]+)([^<>]*)>\\s*</\\1>", 0, 0, NULL);

  return g_regex_replace (empty, text, -1, 0, "<\\1\\2/>", 0, NULL);
}

static void
test_edits (void) {
  g_autoptr (GRand) rand = testing_rand ();
  unsigned n_edits = 0;
  const unsigned steps = testing_steps (1000);

  for (unsigned step = 0; step < steps; step++) {
    const DomainAttachOptions options = random_options (rand);
    g_autofree char *plain = random_fixture (rand), *attached = attach (plain, &options), *after = NULL;

    for (uint64_t n = 1 + testing_below (rand, 6); n > 0; n--)
      n_edits += edit_both (rand, &plain, &attached);
    after = domain_detach (attached, NULL, NULL);
    g_assert_nonnull (after);
    /* Where an edit took the only other child away, nothing tells <a></a> from <a/> any more. */
    g_autofree char *after_short = shorten (after), *plain_short = shorten (plain);

    fixture_assert_same ("edited", after_short, plain_short);
  }
  g_assert_cmpuint (n_edits, >, steps);
}

/* Whatever comes out of bytes that were damaged: a result that can be read, or one line of error; never both, never neither. */
static void
test_damage (void) {
  g_autoptr (GRand) rand = testing_rand ();
  static const char *const pieces[] = {
    "<",
    ">",
    "/>",
    "'",
    "\"",
    "&",
    "=",
    "</",
    "<!--",
    "-->",
    "<![CDATA[",
    "]]>",
    "domybs",
    "ua-domybs-shared",
    "<disk type='vhostuser'><alias name='ua-domybs-remote'/></disk>",
    "<domybs:far shared='2097152'/>",
    "last-bus='0'",
    "queues='0'",
    "<address type='pci' bus='0x7'/>",
    "memory",
    "present='no'",
    "was='private'",
    "18446744073709551615",
    "-1",
    "\xff",
    "<qemu:arg value='-device'/>",
    "<cell id='0'/>",
    "<numa/>",
    "xmlns=''",
    "<domybs:added what='cell'/>",
    ",id=domybs0,",
    "-numa",
    "node,nodeid=1",
    "<metadata/>",
    "<cpu/>",
  };
  unsigned n_good = 0;

  for (unsigned step = 0, steps = testing_steps (4000); step < steps; step++) {
    const DomainAttachOptions options = random_options (rand);
    g_autofree char *plain = random_fixture (rand), *attached = attach (plain, &options);
    GString *text = g_string_new (attached);

    for (uint64_t n = 1 + testing_below (rand, 3); n > 0; n--) {
      const gsize at = testing_below (rand, text->len), some = testing_below (rand, 40), length = MIN (some, text->len - at);

      if (testing_once_in (rand, 2))
        g_string_erase (text, (gssize)at, (gssize)length);
      else
        g_string_insert (text, (gssize)at, pieces[testing_below (rand, G_N_ELEMENTS (pieces))]);
    }

    g_autofree char *damaged = g_string_free (text, FALSE);
    g_autoptr (GError) error = NULL, attach_error = NULL;
    g_autofree char *after = domain_detach (damaged, NULL, &error),
                    *again = domain_attach (damaged, &options, &fixture_host, FIXTURE_SOCKET, NULL, &attach_error);

    g_assert_true ((after == NULL) == (error != NULL));
    g_assert_true ((again == NULL) == (attach_error != NULL));
    if (error)
      g_assert_null (strpbrk (error->message, "\n\r\x1b"));
    if (after) {
      g_assert_true (is_read (after));
      n_good++;
    }
    if (again) {
      g_autofree char *twice = domain_attach (again, &options, &fixture_host, FIXTURE_SOCKET, NULL, NULL),
                      *back = domain_detach (again, NULL, NULL);

      fixture_assert_same ("again", twice, again);
      g_assert_nonnull (back);
    }
  }
  g_assert_cmpuint (n_good, >, 0);
}

int
main (int argc, char **argv) {
  testing_init (&argc, &argv);
  g_test_add_func ("/random/edits remain, ours goes", test_edits);
  g_test_add_func ("/random/damaged texts", test_damage);
  return g_test_run ();
}
