/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The frame that every command of domybsctl works in.
 *
 * A command is one file, command-NAME.c, with one public function of type CtlCommandFunction, and a line in the table of
 * domybsctl.c:
 *
 *     gboolean
 *     command_frob (Ctl *ctl, int argc, char **argv, GError **error) {
 *       gboolean hard = FALSE;
 *       const GOptionEntry entries[] = {
 *         { "hard", 0, 0, G_OPTION_ARG_NONE, &hard, "Frob with force", NULL },
 *         G_OPTION_ENTRY_NULL,
 *       };
 *       g_autoptr (ctl_connect_t) connection = NULL;
 *       g_autoptr (ctl_domain_t) domain = NULL;
 *
 *       if (!ctl_parse (ctl, entries, &argc, &argv, 1, 1, error))
 *         return FALSE;
 *       connection = ctl_connect (ctl, CTL_CHANGES, error);
 *       domain = connection ? ctl_domain_find (connection, argv[0], error) : NULL;
 *       if (!domain)
 *         return FALSE;
 *       …
 *       ctl_say (ctl, "frobbed domain '%s'", ctl_domain_label (domain));
 *       ctl_json_bool (ctl, "frobbed", TRUE);
 *       return TRUE;
 *     }
 *
 * It never prints JSON, errors or an exit code by itself: main does, from the members that it added with ctl_json and from its
 * GError (CTL_ERROR_*: the code is the exit code). Everything that comes from outside (names, messages, XML) goes through
 * ctl_escape before it reaches a terminal; ctl_say, ctl_warn and main do that themselves.
 *
 * Messages, and so JSON's "message", are English in every locale: only LC_CTYPE is set.
 */
#ifndef DOMYBS_HOST_TOOLS_CTL_H
#define DOMYBS_HOST_TOOLS_CTL_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include <libvirt/libvirt.h>

#include "error.h"

#define CTL_JSON_SCHEMA "domybsctl/1"
#define CTL_EXIT_INTERRUPTED 130

typedef struct Ctl {
  const char *command;   /* which one runs; NULL before it is known */
  const char *arguments; /* its arguments for the usage line, from the table */
  const char *summary;
  char *uri; /* -c; NULL: the default, see ctl_connect */
  gboolean json, quiet;
  gboolean help;        /* --help was given */
  gboolean interrupted; /* the command was ended by a signal: exit code 130 */
  JsonBuilder *builder; /* with --json: the object under way, else NULL */
  char **argv;          /* the arguments where ctl_parse had to reorder them; main frees it, and not the strings */
} Ctl;

/* FALSE: failed, with error set; or, without, all is done already (--help). */
typedef gboolean (*CtlCommandFunction) (Ctl *ctl, int argc, char **argv, GError **error);

typedef struct {
  const char *name;
  CtlCommandFunction run;
  const char *arguments; /* "DOMAIN SIZE"; "" if none */
  const char *summary;   /* one line for `help` */
} CtlCommand;

/* ---- arguments (ctl.c) ---- */

/* Parses the command's options (entries, may be NULL) and those common to all, wherever they are. argv[0], the command, is
 * taken away as well: what is left is argc arguments, min to max of them, else CTL_ERROR_USAGE. FALSE without error: --help
 * was printed. "-4G" and the like are arguments, not options. argv's strings live as long as the program. */
gboolean ctl_parse (Ctl *ctl, const GOptionEntry *entries, int *argc, char ***argv, int min, int max, GError **error);

/* A size: "512M", "4G", …; a multiple of 2M. what names it in the error: "--window", "SIZE". CTL_ERROR_USAGE. */
gboolean ctl_parse_size (const char *what, const char *text, guint64 *ret_bytes, GError **error);

/* ---- output (ctl.c) ---- */

/* A line on stdout for people: not with --json, and not with --quiet. */
void ctl_say (Ctl *ctl, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* "domybsctl: warning: …" on stderr; not with --quiet. */
void ctl_warn (Ctl *ctl, const char *format, ...) G_GNUC_PRINTF (2, 3);
/* What the command is for, a table or XML, on stdout: also with --quiet, but not with --json. The text must be clean. */
void ctl_print (Ctl *ctl, const char *text);

/* The object under way: members are added at its top level; what is opened must be closed again. NULL without --json. The
 * members "schema", "command" (first) and "error" (last) are main's. Every member is documented in json.md. */
JsonBuilder *ctl_json (Ctl *ctl);
/* One member of the innermost object under way; nothing without --json. */
void ctl_json_string (Ctl *ctl, const char *name, const char *value); /* NULL: null; not UTF-8: made so */
void ctl_json_bytes (Ctl *ctl, const char *name, guint64 value);
void ctl_json_int (Ctl *ctl, const char *name, gint64 value);
void ctl_json_bool (Ctl *ctl, const char *name, gboolean value);
void ctl_json_null (Ctl *ctl, const char *name);
/* Prints the object as one line and begins the next one: for live views. */
void ctl_json_flush (Ctl *ctl);

/* ---- libvirt (connect.c) ---- */

typedef enum {
  CTL_READS,   /* a read-only connection will do */
  CTL_CHANGES, /* domains are changed */
} CtlAccess;

typedef virConnect ctl_connect_t;
typedef virDomain ctl_domain_t;
static inline void
ctl_connect_close (ctl_connect_t *connection) {
  virConnectClose (connection);
}
static inline void
ctl_domain_unref (ctl_domain_t *domain) {
  virDomainFree (domain);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ctl_connect_t, ctl_connect_close)
G_DEFINE_AUTOPTR_CLEANUP_FUNC (ctl_domain_t, ctl_domain_unref)

/* Connects to -c URI, else $VIRSH_DEFAULT_CONNECT_URI, else $LIBVIRT_DEFAULT_URI, else qemu:///system. Another host's libvirt
 * is refused (CTL_ERROR_REFUSED): back-ends are this host's processes. CTL_ERROR_ACCESS when it can't be reached. libvirt's own
 * messages on stderr are off from here on. */
ctl_connect_t *ctl_connect (Ctl *ctl, CtlAccess access, GError **error);

/* The domain of that name, else UUID, else id. CTL_ERROR_NOT_FOUND. */
ctl_domain_t *ctl_domain_find (ctl_connect_t *connection, const char *text, GError **error);

/* Its name, for messages: "domain '%s': …". Escaped, so that it can be printed; interned, never freed. */
const char *ctl_domain_label (ctl_domain_t *domain);

/* Sets error from libvirt's last one, with the matching code: "OBJECT: what: <libvirt's message>[; next]". what says what
 * failed ("can't read its XML"); next, the next step, may be NULL. Returns FALSE. */
gboolean ctl_libvirt_error (GError **error, const char *object, const char *what, const char *next);

/* The domain's XML; flags as virDomainGetXMLDesc takes them. The caller frees it. */
char *ctl_domain_xml (ctl_domain_t *domain, unsigned flags, GError **error);

/* ---- signals (interrupt.c) ---- */

/* From here on SIGINT, SIGTERM and SIGHUP only make ctl_interrupted true and ctl_wait return: the command ends by itself,
 * cleanly, and says what state things are in. A second one ends the program at once. Pairs can be nested. */
void ctl_interrupt_begin (Ctl *ctl);
gboolean ctl_interrupted (Ctl *ctl); /* sets ctl->interrupted when it is so */
void ctl_interrupt_end (Ctl *ctl);
/* What the second one calls, in a signal handler; NULL: nothing. */
void ctl_interrupt_last_words (void (*function) (void));
/* Waits until fd (−1: none) is readable, an interrupt, or for timeout_ms. TRUE: fd is readable. */
gboolean ctl_wait (Ctl *ctl, int fd, int timeout_ms);

/* ---- progress (progress.c) ---- */

/* A bar on stderr, when that is a terminal and neither --quiet nor TERM=dumb is in force; else nothing is printed at all. */
typedef struct CtlProgress CtlProgress;
CtlProgress *ctl_progress_new (Ctl *ctl, const char *label);
/* done: 0 to 1, below 0: not known. text stands behind the bar. */
void ctl_progress_show (CtlProgress *progress, double done, const char *text);
void ctl_progress_end (CtlProgress *progress); /* wipes it; frees it */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (CtlProgress, ctl_progress_end)

/* ---- the commands ---- */

gboolean command_attach (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_backend (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_blocks (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_check (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_detach (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_donor (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_grow (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_list (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_object (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_shrink (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_status (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_target (Ctl *ctl, int argc, char **argv, GError **error);
gboolean command_top (Ctl *ctl, int argc, char **argv, GError **error);

#endif
