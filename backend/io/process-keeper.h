/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A process that holds what must outlive its worker (memory, sockets, files), and starts workers of the same program: one at a time, another one
 * whenever it dies, and another program when one was installed. Carries no bytes, and never touches what it holds.
 *
 * The worker is the program that the keeper was started from, by a descriptor of it, with `--worker` in its arguments. It gets descriptors of fixed
 * numbers and one page of memory that both map. Keepers outlive upgrades: numbers, page and exit statuses keep their meaning within a version
 * of the page, what is reserved is zero, and a descriptor that is not there is closed.
 */
#ifndef DOMYBS_IO_PROCESS_KEEPER_H
#define DOMYBS_IO_PROCESS_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#define PROCESS_PAGE_BYTES 4096u
#define PROCESS_COOKIE_BYTES 16u
#define PROCESS_FDS_MAX 80u
#define PROCESS_FD_FIRST 3
#define PROCESS_FD_END (PROCESS_FD_FIRST + (int)PROCESS_FDS_MAX)

/* The layout is that of struct far_handover. All is the keeper's to write but `good`. */
struct process_page {
  uint32_t version, parts; /* the program's: what it hands over, and how many of them */
  uint32_t keeper_pid;
  int32_t last_status;    /* wait status of the last worker that died unasked */
  uint64_t starts;        /* workers so far, this one included */
  uint64_t deaths;        /* those that died unasked */
  uint64_t last_death_us; /* CLOCK_MONOTONIC; 0: none */
  uint64_t started_us;    /* the keeper */
  uint32_t strikes;       /* deaths in a row before a `good` */
  uint32_t rolled_back;   /* 1: the last upgrade was undone, its workers could not go on */
  uint8_t cookie[PROCESS_COOKIE_BYTES]; /* random, of this keeper */

  uint64_t good; /* the worker's: `starts` as it found it, once it has done something or has lived for a while */
};

/* Exit statuses of a worker, with those of enum keeper_exit (core/keeper-wire.h): DONE and CANT. Any other, and every signal, is a death. */
enum process_exit {
  PROCESS_EXIT_RESTART = 67, /* start the program that runs again … */
  PROCESS_EXIT_UPGRADE = 68, /* … or the one that is installed at its path now */
};

struct process_keeper_options {
  const char *program; /* "domybs-donor", for the log */
  const char *name;    /* what it does it for, for the log */
  /* The worker gets fds[i] as descriptor PROCESS_FD_FIRST + i; −1: closed. */
  unsigned n_fds;
  int fds[PROCESS_FDS_MAX];
  struct process_page *page; /* version, parts and cookie are set; one of the descriptors is its */
  int end_signal;            /* 0: the worker is killed at the end; otherwise it is asked to end with this signal, and killed if it has not after two seconds */
  char *const *worker_argv;  /* with --worker: the worker reads the same options */

  /* What a program needs beyond that; any may be NULL. What they put into fds has a number of PROCESS_FD_END or more (process_keeper_move_up). */
  bool (*before) (struct process_keeper_options *options, bool first); /* a worker starts; false: none can start now */
  void (*started) (struct process_keeper_options *options);            /* it has its descriptors */
  void (*ended) (struct process_keeper_options *options);              /* for whatever reason, or it could not be started */
  /* While a worker runs: a descriptor to wait for, and how long it may wait at most (*wait_ms, −1: for ever); −1: none, for now. */
  int (*watch) (struct process_keeper_options *options, int64_t now_ms, int64_t *wait_ms);
  void (*ready) (struct process_keeper_options *options, int64_t now_ms); /* it can be read, or has hung up */
};

/* The same file at a number that no worker's descriptor has; closes fd. −1 with errno. */
int process_keeper_move_up (int fd);

/* Runs until SIGTERM or SIGINT, a worker's KEEPER_EXIT_DONE, or a first worker's KEEPER_EXIT_CANT. Returns the exit status for main. Closes and removes
 * nothing: the caller does. Gives what it was given other numbers. Its worker is dead then. For one keeper in a process. */
int process_keeper_run (struct process_keeper_options *options);

#endif
