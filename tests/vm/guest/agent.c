/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The first (and only) daemon of a test guest: PID 1, the init process of the initramfs.
 *
 * It mounts what a Linux system needs, loads the modules of /modules/list, and then obeys the host over a virtio-serial port.
 * Tests drive the guest into memory shortage on purpose, so it must answer when nothing else in the guest gets memory: all its
 * memory is static and locked, it never allocates, and everyday queries (read, write, load, unload) need no new process.
 *
 * Wire format, both ways. The host sends one line:
 *
 *     TAG VERB [ARGUMENTS]\n
 *
 * and the agent answers each with one line and as many bytes as it announces:
 *
 *     TAG STATUS LENGTH\n BYTES
 *
 * TAG is a word of the host's choice that ties an answer to its request. STATUS is 0, an exit code, 128 + signal, or for verbs
 * that run no process an errno. One request at a time. Unasked, after each boot, the agent says "hello 0 LENGTH\nRELEASE\n".
 *
 *     run COMMAND         runs it with busybox sh; answers when it has ended; BYTES is what it printed (at most 1 MiB)
 *     start NAME COMMAND  runs it in the background; its standard input is kept open for tell
 *     tell NAME TEXT      writes the line TEXT to a background job's standard input
 *     poll NAME           answers "running" or "exit STATUS", a new line, and what it printed since the last poll (last 64 KiB)
 *     kill NAME           kills the job with all its children and forgets it
 *     load MODULE [PARAMETERS] / unload MODULE     MODULE is a file name in /modules without .ko
 *     read PATH           the content of a (sysfs, proc) file
 *     write PATH TEXT     writes TEXT and a new line to a file with a single write()
 *     reboot | poweroff   answers, then does it at once, without ending processes: a guest's sudden death is what tests want
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PORT_NAME "domybs.agent"
#define PORT_WAIT_MS 60000 /* a TCG guest on a busy host may take long to find its devices */
#define LINE_BYTES (64 * 1024)
#define RUN_OUTPUT_BYTES (1024 * 1024)
#define JOB_OUTPUT_BYTES (64 * 1024)
#define JOBS 16
#define NAME_BYTES 32

/* What a process printed. As a ring (background jobs) the oldest bytes give way, so that a chatty job never stalls on us. */
struct output {
  char *bytes;
  size_t size;
  size_t start;
  size_t length;
};

struct job {
  char name[NAME_BYTES];
  pid_t pid; /* 0 once it has ended */
  int status;
  int in_fd;  /* our end of its standard input, -1 if closed */
  int out_fd; /* our end of its output, -1 at its end */
  struct output out;
  bool used;
};

static char job_bytes[JOBS][JOB_OUTPUT_BYTES];
static char run_bytes[RUN_OUTPUT_BYTES];
static struct job jobs[JOBS];
static struct job
    run_job; /* the process of a "run" request; its answer goes out when it has ended and its output is complete */
static char run_tag[NAME_BYTES];
static char line[LINE_BYTES];
static char command[LINE_BYTES + 64];
static char scratch[RUN_OUTPUT_BYTES + 64];
static int port = -1;
static int child_fd = -1;

static void
complain (const char *what) {
  char text[256];
  int length = snprintf (text, sizeof text, "agent: %s: %s\n", what, strerror (errno));
  if (write (STDERR_FILENO, text, (size_t)length) < 0)
    return;
}

/* ---- answers ---- */

static void
port_write (const char *bytes, size_t length) {
  while (length > 0) {
    ssize_t done = write (port, bytes, length);
    if (done < 0) {
      if (errno == EINTR)
        continue;
      if (errno == EAGAIN) {
        struct pollfd wait = { .fd = port, .events = POLLOUT };
        poll (&wait, 1, 1000);
        continue;
      }
      complain ("writing to the host");
      return;
    }
    bytes += done;
    length -= (size_t)done;
  }
}

static void
answer (const char *tag, int status, const char *bytes, size_t length) {
  char head[NAME_BYTES + 64];
  int head_length = snprintf (head, sizeof head, "%s %d %zu\n", tag, status, length);
  port_write (head, (size_t)head_length);
  port_write (bytes, length);
}

static void
answer_text (const char *tag, int status, const char *text) {
  answer (tag, status, text, strlen (text));
}

static void
answer_errno (const char *tag, int error) {
  answer_text (tag, error, error ? strerror (error) : "");
}

/* ---- jobs ---- */

static void
output_add (struct output *out, const char *bytes, size_t length, bool ring) {
  for (size_t i = 0; i < length; i++) {
    if (out->length < out->size) {
      out->bytes[(out->start + out->length++) % out->size] = bytes[i];
    } else if (ring) {
      out->bytes[out->start] = bytes[i];
      out->start = (out->start + 1) % out->size;
    }
  }
}

/* Copies what is there to `to`, in order, and empties it. */
static size_t
output_take (struct output *out, char *to) {
  size_t length = out->length;
  size_t first = out->size - out->start;
  if (first > length)
    first = length;
  memcpy (to, out->bytes + out->start, first);
  memcpy (to + first, out->bytes, length - first);
  out->start = 0;
  out->length = 0;
  return length;
}

static void
close_fd (int *fd) {
  if (*fd >= 0)
    close (*fd);
  *fd = -1;
}

/* Starts `text` with the shell. posix_spawn (and not fork) because it shares our memory until the exec: a fork would have to
 * copy page tables, and every locked page that we write meanwhile. */
static int
job_start (struct job *job, const char *text, bool with_input) {
  int in[2] = { -1, -1 };
  int out[2] = { -1, -1 };
  int error = 0;
  if (pipe2 (out, O_CLOEXEC) || (with_input && pipe2 (in, O_CLOEXEC)))
    error = errno;
  if (!with_input)
    in[0] = open ("/dev/null", O_RDONLY | O_CLOEXEC);

  pid_t pid = 0;
  if (!error) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    sigemptyset (&none);
    posix_spawn_file_actions_init (&actions);
    posix_spawn_file_actions_adddup2 (&actions, in[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2 (&actions, out[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2 (&actions, out[1], STDERR_FILENO);
    posix_spawnattr_init (&attributes);
    posix_spawnattr_setflags (&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP);
    posix_spawnattr_setsigmask (&attributes, &none);
    posix_spawnattr_setpgroup (&attributes, 0);
    /* our immunity from the OOM killer is inherited; a test's program must be as mortal as any other */
    snprintf (command, sizeof command, "echo 0 >/proc/self/oom_score_adj\n%s", text);
    char *const argv[] = { "sh", "-c", command, NULL };
    char *const envp[] = { "PATH=/bin:/sbin", "HOME=/", NULL };
    error = posix_spawn (&pid, "/bin/busybox", &actions, &attributes, argv, envp);
    posix_spawn_file_actions_destroy (&actions);
    posix_spawnattr_destroy (&attributes);
  }
  close_fd (&in[0]);
  close_fd (&out[1]);
  if (error) {
    close_fd (&in[1]);
    close_fd (&out[0]);
    return error;
  }
  fcntl (out[0], F_SETFL, O_NONBLOCK);
  if (in[1] >= 0)
    fcntl (in[1], F_SETFL, O_NONBLOCK);
  job->pid = pid;
  job->status = 0;
  job->in_fd = in[1];
  job->out_fd = out[0];
  job->out.start = 0;
  job->out.length = 0;
  job->used = true;
  return 0;
}

static void
job_read (struct job *job, bool ring) {
  static char chunk[16384];
  if (job->out_fd < 0)
    return;
  for (;;) {
    ssize_t got = read (job->out_fd, chunk, sizeof chunk);
    if (got > 0) {
      output_add (&job->out, chunk, (size_t)got, ring);
      continue;
    }
    if (got == 0 || (errno != EAGAIN && errno != EINTR))
      close_fd (&job->out_fd);
    return;
  }
}

static void
job_forget (struct job *job) {
  close_fd (&job->in_fd);
  close_fd (&job->out_fd);
  job->used = false;
  job->name[0] = '\0';
}

static struct job *
job_find (const char *name) {
  for (int i = 0; i < JOBS; i++)
    if (jobs[i].used && !strcmp (jobs[i].name, name))
      return &jobs[i];
  return NULL;
}

static void
run_finish_if_ended (void) {
  if (!run_job.used || run_job.pid != 0)
    return;
  /* the shell has ended; what it left running in the background may hold the pipe for ever, so its end is not waited for */
  job_read (&run_job, false);
  size_t length = output_take (&run_job.out, scratch);
  int status = run_job.status;
  job_forget (&run_job);
  answer (run_tag, status, scratch, length);
}

static void
reap_children (void) {
  int status;
  pid_t pid;
  while ((pid = waitpid (-1, &status, WNOHANG)) > 0) {
    int code = WIFSIGNALED (status) ? 128 + WTERMSIG (status) : WEXITSTATUS (status);
    if (run_job.used && run_job.pid == pid) {
      run_job.pid = 0;
      run_job.status = code;
    }
    for (int i = 0; i < JOBS; i++) {
      if (jobs[i].used && jobs[i].pid == pid) {
        jobs[i].pid = 0;
        jobs[i].status = code;
      }
    }
  }
}

/* ---- verbs ---- */

/* Cuts the first word off *text. */
static char *
next_word (char **text) {
  char *word = *text + strspn (*text, " ");
  size_t length = strcspn (word, " ");
  *text = word + length;
  if (**text)
    *(*text)++ = '\0';
  return word;
}

static void
verb_start (const char *tag, char *arguments) {
  char *name = next_word (&arguments);
  if (!*name || strlen (name) >= NAME_BYTES || job_find (name)) {
    answer_text (tag, EINVAL, "start: the job's name is missing, too long, or taken");
    return;
  }
  for (int i = 0; i < JOBS; i++) {
    if (!jobs[i].used) {
      int error = job_start (&jobs[i], arguments, true);
      if (!error)
        strcpy (jobs[i].name, name);
      answer_errno (tag, error);
      return;
    }
  }
  answer_text (tag, EAGAIN, "start: too many jobs; kill one that has ended");
}

static void
verb_tell (const char *tag, char *arguments) {
  struct job *job = job_find (next_word (&arguments));
  if (!job || job->in_fd < 0) {
    answer_errno (tag, ESRCH);
    return;
  }
  size_t length = strlen (arguments);
  arguments[length++] = '\n'; /* in place of the terminating zero, which nobody needs any more */
  ssize_t done = write (job->in_fd, arguments, length);
  answer_errno (tag, done == (ssize_t)length ? 0 : done < 0 ? errno : EAGAIN);
}

static void
verb_poll (const char *tag, char *arguments) {
  struct job *job = job_find (next_word (&arguments));
  if (!job) {
    answer_errno (tag, ESRCH);
    return;
  }
  job_read (job, true);
  int head;
  if (job->pid)
    head = sprintf (scratch, "running\n");
  else
    head = sprintf (scratch, "exit %d\n", job->status);
  size_t length = output_take (&job->out, scratch + head);
  answer (tag, 0, scratch, (size_t)head + length);
}

static void
verb_kill (const char *tag, char *arguments) {
  struct job *job = job_find (next_word (&arguments));
  if (!job) {
    answer_errno (tag, ESRCH);
    return;
  }
  if (job->pid) {
    kill (-job->pid, SIGKILL);
    /* the answer means that its memory is free again */
    while (waitpid (job->pid, NULL, 0) < 0 && errno == EINTR)
      continue;
  }
  job_forget (job);
  answer_errno (tag, 0);
}

static int
load_module (const char *name, const char *parameters) {
  char path[256];
  snprintf (path, sizeof path, "/modules/%s.ko", name);
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return errno;
  int error = syscall (SYS_finit_module, fd, parameters, 0) ? errno : 0;
  close (fd);
  return error;
}

static void
verb_read (const char *tag, char *arguments) {
  int fd = open (next_word (&arguments), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) {
    answer_errno (tag, errno);
    return;
  }
  size_t length = 0;
  ssize_t got;
  while ((got = read (fd, scratch + length, RUN_OUTPUT_BYTES - length)) > 0)
    length += (size_t)got;
  int error = got < 0 ? errno : 0;
  close (fd);
  if (error)
    answer_errno (tag, error);
  else
    answer (tag, 0, scratch, length);
}

static void
verb_write (const char *tag, char *arguments) {
  char *path = next_word (&arguments);
  int fd = open (path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) {
    answer_errno (tag, errno);
    return;
  }
  size_t length = strlen (arguments);
  arguments[length++] = '\n';
  int error = write (fd, arguments, length) < 0 ? errno : 0;
  close (fd);
  answer_errno (tag, error);
}

static void
obey (char *text) {
  char *tag = next_word (&text);
  char *verb = next_word (&text);
  if (strlen (tag) >= NAME_BYTES)
    tag[NAME_BYTES - 1] = '\0';

  if (!strcmp (verb, "run")) {
    if (run_job.used) {
      answer_text (tag, EBUSY, "run: another command is running; use start for background jobs");
      return;
    }
    int error = job_start (&run_job, text, false);
    if (error)
      answer_errno (tag, error);
    else
      strcpy (run_tag, tag);
  } else if (!strcmp (verb, "start")) {
    verb_start (tag, text);
  } else if (!strcmp (verb, "tell")) {
    verb_tell (tag, text);
  } else if (!strcmp (verb, "poll")) {
    verb_poll (tag, text);
  } else if (!strcmp (verb, "kill")) {
    verb_kill (tag, text);
  } else if (!strcmp (verb, "load")) {
    char *name = next_word (&text);
    answer_errno (tag, load_module (name, text));
  } else if (!strcmp (verb, "unload")) {
    answer_errno (tag, syscall (SYS_delete_module, next_word (&text), O_NONBLOCK) ? errno : 0);
  } else if (!strcmp (verb, "read")) {
    verb_read (tag, text);
  } else if (!strcmp (verb, "write")) {
    verb_write (tag, text);
  } else if (!strcmp (verb, "reboot")) {
    answer_errno (tag, 0);
    reboot (RB_AUTOBOOT);
  } else if (!strcmp (verb, "poweroff")) {
    answer_errno (tag, 0);
    reboot (RB_POWER_OFF);
  } else {
    answer_text (tag, ENOSYS, "no such verb");
  }
}

/* ---- boot ---- */

static void
mount_all (void) {
  static const struct {
    const char *type, *where;
  } mounts[] = { { "proc", "/proc" }, { "sysfs", "/sys" }, { "devtmpfs", "/dev" }, { "tmpfs", "/tmp" } };

  for (size_t i = 0; i < sizeof mounts / sizeof *mounts; i++) {
    mkdir (mounts[i].where, 0755);
    if (mount (mounts[i].type, mounts[i].where, mounts[i].type, 0, NULL))
      complain (mounts[i].where);
  }
}

/* /modules/list holds one module a line, a dependency before what depends on it, parameters after the name. */
static void
load_listed_modules (void) {
  FILE *list = fopen ("/modules/list", "re");
  char entry[512];
  if (!list)
    return;
  while (fgets (entry, sizeof entry, list)) {
    entry[strcspn (entry, "\n")] = '\0';
    char *text = entry;
    char *name = next_word (&text);
    int error = *name ? load_module (name, text) : 0;
    if (error && error != EEXIST) {
      errno = error;
      complain (name);
    }
  }
  fclose (list);
}

static int
open_port_once (void) {
  int fd = -1;
  DIR *ports = opendir ("/sys/class/virtio-ports");
  if (!ports)
    return -1;
  for (struct dirent *entry; fd < 0 && (entry = readdir (ports));) {
    char path[512];
    char name[64] = "";
    snprintf (path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
    FILE *file = fopen (path, "re");
    if (!file)
      continue;
    if (fgets (name, sizeof name, file)) {
      name[strcspn (name, "\n")] = '\0';
      if (!strcmp (name, PORT_NAME)) {
        snprintf (path, sizeof path, "/dev/%s", entry->d_name);
        fd = open (path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
      }
    }
    fclose (file);
  }
  closedir (ports);
  return fd;
}

static void
open_port (void) {
  for (int waited = 0; waited < PORT_WAIT_MS && port < 0; waited += 10) {
    port = open_port_once ();
    if (port < 0)
      usleep (10000);
  }
  if (port < 0) {
    /* nobody will ever talk to us: end the guest, so that the test sees it at once */
    fputs ("agent: no virtio-serial port named " PORT_NAME " appeared\n", stderr);
    reboot (RB_POWER_OFF);
  }
}

static void
lock_memory (void) {
  int fd = open ("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write (fd, "-1000\n", 6) < 0)
    complain ("/proc/self/oom_score_adj");
  if (fd >= 0)
    close (fd);
  if (mlockall (MCL_CURRENT | MCL_FUTURE))
    complain ("mlockall");
}

static void
say_hello (void) {
  struct utsname name;
  char text[256];
  uname (&name);
  int length = snprintf (text, sizeof text, "%s\n", name.release);
  answer ("hello", 0, text, (size_t)length);
}

/* ---- main loop ---- */

static void
read_port (void) {
  static size_t filled;
  ssize_t got = read (port, line + filled, sizeof line - filled);
  if (got <= 0) {
    /* end of file: nobody is connected on the host's side now; poll() would return at once for ever */
    if (got == 0)
      usleep (50000);
    return;
  }
  filled += (size_t)got;
  for (;;) {
    char *end = memchr (line, '\n', filled);
    if (!end) {
      if (filled == sizeof line)
        filled = 0; /* a line longer than any request */
      return;
    }
    *end = '\0';
    size_t used = (size_t)(end + 1 - line);
    obey (line);
    memmove (line, line + used, filled - used);
    filled -= used;
  }
}

static void
serve (void) {
  for (;;) {
    struct pollfd fds[JOBS + 3] = {
      { .fd = port, .events = POLLIN },
      { .fd = child_fd, .events = POLLIN },
      { .fd = run_job.used ? run_job.out_fd : -1, .events = POLLIN },
    };
    for (int i = 0; i < JOBS; i++)
      fds[3 + i] = (struct pollfd){ .fd = jobs[i].used ? jobs[i].out_fd : -1, .events = POLLIN };
    if (poll (fds, JOBS + 3, -1) < 0)
      continue;

    if (fds[1].revents) {
      struct signalfd_siginfo info;
      while (read (child_fd, &info, sizeof info) > 0)
        continue;
      reap_children ();
    }
    if (fds[2].revents)
      job_read (&run_job, false);
    for (int i = 0; i < JOBS; i++)
      if (fds[3 + i].revents)
        job_read (&jobs[i], true);
    run_finish_if_ended ();
    if (fds[0].revents)
      read_port ();
  }
}

int
main (void) {
  sigset_t set;
  mount_all ();
  lock_memory ();
  sigemptyset (&set);
  sigaddset (&set, SIGCHLD);
  sigaddset (&set, SIGPIPE); /* a job that closed its input is an errno, not our end */
  sigprocmask (SIG_BLOCK, &set, NULL);
  sigdelset (&set, SIGPIPE);
  child_fd = signalfd (-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  for (int i = 0; i < JOBS; i++)
    jobs[i] = (struct job){ .out = { .bytes = job_bytes[i], .size = JOB_OUTPUT_BYTES }, .in_fd = -1, .out_fd = -1 };
  run_job = (struct job){ .out = { .bytes = run_bytes, .size = RUN_OUTPUT_BYTES }, .in_fd = -1, .out_fd = -1 };
  load_listed_modules ();
  open_port ();
  say_hello ();
  serve ();
}
