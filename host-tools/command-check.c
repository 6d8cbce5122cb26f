/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check/check.h"
#include "host/qemu-group.h"
#include "ctl/text.h"

#include <libvirt/virterror.h>
#include <string.h>

static const Probe probes[] = {
  { "kernel", probe_kernel },     { "kvm", probe_kvm },
  { "memory", probe_memory },     { "huge-pages", probe_huge_pages },
  { "programs", probe_programs }, { "libvirt", probe_libvirt },
  { "qemu", probe_qemu },         { "qemu-user", probe_qemu_user },
  { "hook", probe_hook },         { "apparmor", probe_apparmor },
  { "selinux", probe_selinux },   { "folder", probe_folder },
  { "guests", probe_guests },     { "donors", probe_donors },
  { "strays", probe_strays },     { "domain", probe_domain },
};

/* ---- findings ---- */

static void
finding_free (gpointer data) {
  Finding *finding = data;

  g_free (finding->text);
  g_free (finding->advice);
  g_free (finding);
}

static void
add (Check *check, CheckVerdict verdict, const char *advice, const char *format, va_list args) {
  Finding *finding = g_new0 (Finding, 1);

  finding->probe = check->probe;
  finding->verdict = verdict;
  finding->text = g_strdup_vprintf (format, args);
  finding->advice = g_strdup (advice);
  g_ptr_array_add (check->findings, finding);
}

void
check_ok (Check *check, const char *format, ...) {
  va_list args;

  va_start (args, format);
  add (check, CHECK_OK, NULL, format, args);
  va_end (args);
}

void
check_note (Check *check, const char *advice, const char *format, ...) {
  va_list args;

  va_start (args, format);
  add (check, CHECK_NOTE, advice, format, args);
  va_end (args);
}

void
check_todo (Check *check, const char *advice, const char *format, ...) {
  va_list args;

  va_start (args, format);
  add (check, CHECK_TODO, advice, format, args);
  va_end (args);
}

/* ---- what the probes look at ---- */

/* The <path> of libvirt's domain capabilities: the emulator that a domain gets where it names none. */
static char *
default_emulator (ctl_connect_t *connection) {
  static const char *const usual[]
      = { "/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm", "/usr/local/bin/qemu-system-x86_64" };
  g_autofree char *xml = connection ? virConnectGetDomainCapabilities (connection, NULL, "x86_64", NULL, NULL, 0) : NULL;
  const char *begin = xml ? strstr (xml, "<path>") : NULL, *end = begin ? strstr (begin, "</path>") : NULL;

  if (end)
    return g_strndup (begin + strlen ("<path>"), (gsize)(end - begin) - strlen ("<path>"));
  for (size_t i = 0; i < G_N_ELEMENTS (usual); i++)
    if (g_file_test (usual[i], G_FILE_TEST_IS_EXECUTABLE))
      return g_strdup (usual[i]);
  return NULL;
}

static char *
domain_emulator (ctl_domain_t *domain) {
  g_autofree char *xml = ctl_domain_xml (domain, 0, NULL);

  return xml ? domain_read_emulator (xml) : NULL;
}

static void
check_clear (Check *check) {
  g_clear_pointer (&check->domain, ctl_domain_unref);
  g_clear_pointer (&check->connection, ctl_connect_close);
  g_clear_pointer (&check->findings, g_ptr_array_unref);
  g_clear_pointer (&check->connection_error, g_free);
  g_clear_pointer (&check->emulator, g_free);
  g_clear_pointer (&check->qemu_config, g_free);
}
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Check, check_clear)

/* A libvirt that can't be reached is a finding, unless a domain of it was asked for. */
static gboolean
prepare (Ctl *ctl, Check *check, const char *name, GError **error) {
  g_autoptr (GError) reason = NULL;

  check->findings = g_ptr_array_new_with_free_func (finding_free);
  check->connection = ctl_connect (ctl, CTL_READS, &reason);
  if (!check->connection && (name || !g_error_matches (reason, CTL_ERROR, CTL_ERROR_ACCESS))) {
    g_propagate_error (error, g_steal_pointer (&reason));
    return FALSE;
  }
  check->connection_error = reason ? g_strndup (reason->message, strcspn (reason->message, ";")) : NULL;
  if (name) {
    check->domain = ctl_domain_find (check->connection, name, error);
    if (!check->domain)
      return FALSE;
    check->emulator = domain_emulator (check->domain);
  }
  if (!check->emulator)
    check->emulator = default_emulator (check->connection);
  g_file_get_contents (QEMU_GROUP_CONFIG_PATH, &check->qemu_config, NULL, NULL);
  return TRUE;
}

/* ---- saying it ---- */

static const char *const words[] = { [CHECK_OK] = "OK", [CHECK_NOTE] = "NOTE", [CHECK_TODO] = "TO DO" };
static const char *const json_words[] = { [CHECK_OK] = "ok", [CHECK_NOTE] = "note", [CHECK_TODO] = "to-do" };

static void
json_findings (Ctl *ctl, const Check *check) {
  JsonBuilder *builder = ctl_json (ctl);

  if (!builder)
    return;
  json_builder_set_member_name (builder, "findings");
  json_builder_begin_array (builder);
  for (guint i = 0; i < check->findings->len; i++) {
    const Finding *finding = check->findings->pdata[i];

    json_builder_begin_object (builder);
    ctl_json_string (ctl, "probe", finding->probe);
    ctl_json_string (ctl, "verdict", json_words[finding->verdict]);
    ctl_json_string (ctl, "text", finding->text);
    ctl_json_string (ctl, "advice", finding->advice);
    json_builder_end_object (builder);
  }
  json_builder_end_array (builder);
}

/* Returns how many things there are to do. */
static unsigned
print_finding (Ctl *ctl, const Finding *finding) {
  g_autofree char *advice = finding->advice ? g_strdup_printf (" → %s", finding->advice) : g_strdup ("");
  g_autofree char *text = g_strconcat (finding->text, advice, NULL), *clean = ctl_escape (text);
  g_autofree char *line = g_strdup_printf ("%-5s  %s\n", words[finding->verdict], clean);

  ctl_print (ctl, line);
  return finding->verdict == CHECK_TODO;
}

gboolean
command_check (Ctl *ctl, int argc, char **argv, GError **error) {
  g_auto (Check) check = { 0 };
  unsigned todo = 0;

  if (!ctl_parse (ctl, NULL, &argc, &argv, 0, 1, error) || !prepare (ctl, &check, argc ? argv[0] : NULL, error))
    return FALSE;
  for (size_t i = 0; i < G_N_ELEMENTS (probes); i++) {
    check.probe = probes[i].name;
    probes[i].run (&check);
  }
  for (guint i = 0; i < check.findings->len; i++)
    todo += print_finding (ctl, check.findings->pdata[i]);
  json_findings (ctl, &check);
  if (todo == 0)
    return TRUE;
  g_set_error (error, CTL_ERROR, CTL_ERROR_FAILED, "this host: %u finding%s something to be done; see the lines marked TO DO",
               todo, todo == 1 ? " wants" : "s want");
  return FALSE;
}
