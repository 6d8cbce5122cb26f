/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What every harness here offers: to libFuzzer, and to replay.c. */
#ifndef DOMYBS_TESTS_FUZZ_H
#define DOMYBS_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* A reader of the input that gives zeroes after its end: a shorter input is the same with zeroes behind it. */
struct input {
  const uint8_t *at;
  size_t left;
};

static inline void
input_bytes (struct input *input, void *out, size_t n) {
  const size_t have = n < input->left ? n : input->left;

  if (n)
    memset (out, 0, n);
  if (have == 0)
    return; /* perhaps input->at, or even out, is NULL */
  memcpy (out, input->at, have);
  input->at += have;
  input->left -= have;
}

static inline uint8_t
input_8 (struct input *input) {
  uint8_t value;
  input_bytes (input, &value, sizeof value);
  return value;
}

static inline uint16_t
input_16 (struct input *input) {
  const uint8_t low = input_8 (input);
  return (uint16_t)(low | input_8 (input) << 8);
}

#endif
