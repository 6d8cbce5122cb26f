/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A program that an upgrade finds installed, and that does nothing but end. */
int
main (void) {
  return EXIT_STATUS;
}
