/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The stage for tests of domybsctl: a libvirt of its own (the test driver, reading a file), a run folder of its own, and the
 * program, made of the very files that are installed except for the one that says where run folders are.
 */
#ifndef DOMYBS_TESTS_CTL_SCENE_H
#define DOMYBS_TESTS_CTL_SCENE_H

#include <json-glib/json-glib.h>

#include "guest.h"
#include "process.h"

typedef struct Scene Scene;

/* A test's beginning and end. The end checks that the file libvirt reads is what it was. */
Scene *scene_new (void);
void scene_free (Scene *scene);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (Scene, scene_free)

/* The metadata of a domain with a window of 4 GiB of which it may have local_max bytes. */
#define SCENE_MEMORY(local_max)                                                                                                \
  "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' local-max='" local_max                \
  "' grant='reserve' present='yes'/></domybs:domybs>"
#define SCENE_GIB "1073741824"
/* … of one that has two far disks and no memory device; and what its domybs-far may say of the first. */
#define SCENE_FAR                                                                                                              \
  "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:far shared='1073741824' remote='2147483648' storage='/srv/far' "  \
  "compress='no' last-bus='4'/></domybs:domybs>"
/* … and of one that has both. */
#define SCENE_BOTH                                                                                                             \
  "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:memory window='4294967296' local-max='1073741824' "              \
  "grant='reserve' present='yes'/><domybs:far shared='1073741824' storage='/srv/far' compress='no' last-bus='4'/>"             \
  "</domybs:domybs>"
/* … of one that has two objects, with a disk of each. */
#define SCENE_OBJECTS                                                                                                          \
  "<domybs:domybs xmlns:domybs='urn:domybs:libvirt:1'><domybs:objects names='model data-set' last-bus='4'/></domybs:domybs>"
#define SCENE_OBJECT_STATUS                                                                                                    \
  "\"pid\":7,\"worker\":{\"deaths\":0},\"disks\":[],\"objects\":[{\"name\":\"model\",\"connected\":true,"                            \
  "\"size-bytes\":1073741824,\"waiting\":0,\"oldest-wait-ms\":0,\"reads\":5,\"read-pages\":50,\"prefetched-pages\":40,"           \
  "\"prefetch-used-pages\":30,\"storage-read-bytes\":200000,\"read-latency-us\":{\"p50\":90,\"p95\":200,\"p99\":400},"            \
  "\"errors\":0,\"damaged-pages\":0}]"
#define SCENE_FAR_STATUS                                                                                                       \
  "\"pid\":7,\"worker\":{\"deaths\":0},\"disks\":[{\"tier\":\"shared\",\"connected\":true,\"size-bytes\":1073741824,"                \
  "\"pages\":{\"same\":1024,\"raw\":2048,\"packed\":1024,\"lost\":0},\"stored-bytes\":10485760,\"waiting\":0,\"oldest-wait-ms\":0,"   \
  "\"reads\":5,\"writes\":6,\"discards\":7,\"errors\":0,\"damaged-pages\":0,\"read-latency-us\":{\"p50\":90,\"p95\":200,\"p99\":400}," \
  "\"prefetched-pages\":200,\"prefetch-used-pages\":150,\"prefetch-wasted-pages\":8,\"reserve-blocks\":32,\"reserved-blocks\":16," \
  "\"wear\":{\"day-bytes\":1073741824,\"left-bytes\":4096,\"held\":true,\"held-ms\":12},"                                      \
  "\"write-latency-us\":{\"p50\":10,\"p95\":20,\"p99\":30},\"storage\":\"file /srv/far/x\","                                          \
  "\"protection\":\"ssd\",\"copies\":{\"places\":5,\"protected\":5,\"degraded\":0,\"endangered\":0,\"lost\":0,\"in-storage\":5,"    \
  "\"waiting\":0,\"repairing\":false,\"repaired-bytes\":0,\"repairs-failed\":0,\"degraded-writes\":0,\"donors\":["                   \
  "{\"name\":\"b\",\"address\":\"b:1\",\"domain\":\"rack1\",\"channel\":\"down\",\"channel-age-ms\":5,\"why\":\"no answer\","        \
  "\"state\":\"up\",\"leaves\":false,\"copies\":5,\"suspect\":0,\"old\":0,\"level\":64,\"wanted\":64,\"read-bytes\":1,"                 \
  "\"written-bytes\":1,\"failed-writes\":0,\"damaged\":0,\"timeouts\":0,\"reconnects\":0,\"read-p50-us\":90,\"read-p95-us\":210}]}," \
  "\"blocks\":512,\"cell-blocks\":256,\"in-use\":[3,0]}]" /* this line: `blocks` */

/* Adds a domain; metadata is what stands in <metadata>, NULL for none. Running unless that is said. Returns its UUID. */
const char *scene_add (Scene *scene, const char *name, gboolean running, const char *metadata);
/* In place of all that: what the test driver is to read. */
void scene_use_xml (Scene *scene, const char *xml);
/* -c of libvirt's test driver. */
const char *scene_uri (Scene *scene);

/* Where the VM's sockets belong; the folder is made. */
char *scene_control_path (Scene *scene, const char *uuid);
char *scene_far_control_path (Scene *scene, const char *uuid);
char *scene_object_control_path (Scene *scene, const char *uuid, const char *name);
/* Starts a real back-end for it (arguments NULL-terminated, may be NULL); it ends with the scene. */
struct backend *scene_backend (Scene *scene, const char *uuid, const char *const *arguments);

/* What came of a run. */
typedef struct {
  int status; /* exit status; 128 + signal */
  char *out, *err;
} Run;
void run_clear (Run *run);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Run, run_clear)

/* Runs domybsctl -c URI with these arguments. It must end within a minute. DOMYBS_TRACE=1 shows what it said. */
void scene_run (Scene *scene, Run *ret_run, const char *const *arguments);
#define ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })
/* Starts it; scene_interrupt sends it a signal and collects it. */
typedef struct Running Running;
Running *scene_start (Scene *scene, const char *const *arguments);
void scene_finish (Running *running, int signal, Run *ret_run); /* signal 0: none */

/* The run failed with that status, said nothing on stdout, and one line on stderr that has every one of the words. */
void run_must_fail (const Run *run, int status, const char *const *words);
/* The run succeeded and stderr is empty. */
void run_must_succeed (const Run *run);
/* stdout is one JSON object of our schema; it is returned. */
JsonObject *run_json (const Run *run);

/* A scene with one running domain "vm1", a back-end with these arguments, and a guest of these habits; habits NULL: no QEMU. */
typedef struct {
  Scene *scene;
  const char *uuid;
  struct backend *backend;
  Guest *guest;
} Stage;
Stage stage_new (const GuestHabits *habits, const char *const *arguments);
void stage_clear (Stage *stage);
G_DEFINE_AUTO_CLEANUP_CLEAR_FUNC (Stage, stage_clear)

/* Runs grow or shrink on it with --json and one more option (NULL: none). It must end with that status and reason (NULL: none),
 * and say that exactly what the back-end has was reached. */
void stage_resize (Stage *stage, const char *command, const char *size, const char *option, int status, const char *reason);

/* One integer of the back-end's status. */
void scene_must_have (struct backend *backend, const char *member, gint64 value);

#endif
