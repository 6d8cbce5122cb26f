/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processes that shut themselves in, one for each case: there is no way back. */
#ifndef DOMYBS_TESTS_SANDBOX_CASE_H
#define DOMYBS_TESTS_SANDBOX_CASE_H

#include <glib.h>
#include <sys/types.h>

#if defined __SANITIZE_ADDRESS__
#define CASE_HAS_FILTERS FALSE
#else
#define CASE_HAS_FILTERS TRUE
#endif

/* The exit status: 0 is good; others are the number of what was not. */
typedef int (*CaseBody) (void);

/* Runs before, then in a keeper's sandbox keeper, and from there, in a process of its own, in a worker's sandbox worker;
 * each may be NULL. Returns the wait status of the last of them, and what all of them wrote to stderr (may be NULL). */
int case_run (CaseBody before, CaseBody keeper, CaseBody worker, char **ret_text);

/* For a keeper's children: become a worker, do that, and return its exit status. */
int case_as_worker (CaseBody worker);

int case_wait (pid_t pid);

void case_expect_good (int status, const char *text);
void case_expect_text (const char *text, const char *part);

gboolean case_is_root (void);

#endif
