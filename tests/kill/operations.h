/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can be under way when a worker dies or fails, one of each kind: for tests that go through all of them. */
#ifndef DOMYBS_TESTS_OPERATIONS_H
#define DOMYBS_TESTS_OPERATIONS_H

#include "guest.h"

struct operation {
  const char *name;
  void (*run) (struct guest *guest); /* with nothing in flight before; leaves requests in flight */
};

extern const struct operation operations[];
extern const size_t n_operations;

/* The one of that name. */
const struct operation *operation_named (const char *name);

#endif
