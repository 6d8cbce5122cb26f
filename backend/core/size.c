/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "core/size.h"

#include <string.h>

static bool
is_digit (char c) {
  return c >= '0' && c <= '9';
}

/* The power of 2 of a unit; -1 if it is none. */
static int
unit_shift (const char *unit) {
  static const char letters[] = "KMGT";
  const char *letter;

  if (*unit == '\0' || strcmp (unit, "B") == 0)
    return 0;
  letter = strchr (letters, *unit >= 'a' ? *unit - 'a' + 'A' : *unit);
  if (!letter || (unit[1] && strcmp (unit + 1, "B") != 0 && strcmp (unit + 1, "iB") != 0))
    return -1;
  return 10 * (int)(letter - letters + 1);
}

bool
size_parse (const char *text, uint64_t *ret_bytes) {
  uint64_t whole = 0, thousandths = 0;
  int shift;

  if (!is_digit (*text))
    return false;
  for (; is_digit (*text); text++)
    if (__builtin_mul_overflow (whole, 10, &whole) || __builtin_add_overflow (whole, (uint64_t)(*text - '0'), &whole))
      return false;
  if (*text == '.') {
    uint64_t place = 100;

    if (!is_digit (*++text))
      return false;
    for (; is_digit (*text); text++, place /= 10) {
      if (place == 0)
        return false;
      thousandths += place * (uint64_t)(*text - '0');
    }
  }
  shift = unit_shift (text);
  if (shift < 0 || (thousandths && shift == 0) || whole > (UINT64_MAX >> shift))
    return false;
  whole <<= shift;
  thousandths = thousandths * (1ull << shift) / 1000; /* < 2^50: no overflow */
  if (whole + thousandths < whole)
    return false;
  *ret_bytes = whole + thousandths;
  return true;
}
