/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "ctl/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- escaping ---- */

/* What would move the cursor, start a new line, or change the direction of what follows. */
static gboolean
must_be_escaped (gunichar c) {
  switch (g_unichar_type (c)) {
  case G_UNICODE_CONTROL:
  case G_UNICODE_FORMAT:
  case G_UNICODE_LINE_SEPARATOR:
  case G_UNICODE_PARAGRAPH_SEPARATOR:
    return TRUE;
  default:
    return FALSE;
  }
}

char *
ctl_escape (const char *text) {
  GString *clean = g_string_sized_new (strlen (text) + 8);

  while (*text) {
    const gunichar c = g_utf8_get_char_validated (text, -1);

    if (c == (gunichar)-1 || c == (gunichar)-2) {
      g_string_append_printf (clean, "\\x%02x", (unsigned char)*text++);
      continue;
    }
    if (c == '\n')
      g_string_append (clean, "\\n");
    else if (c == '\t')
      g_string_append (clean, "\\t");
    else if (c < 0x80 && must_be_escaped (c))
      g_string_append_printf (clean, "\\x%02x", c);
    else if (must_be_escaped (c))
      g_string_append_printf (clean, c > 0xffff ? "\\U%08x" : "\\u%04x", c);
    else
      g_string_append_unichar (clean, c);
    text = g_utf8_next_char (text);
  }
  return g_string_free (clean, FALSE);
}

char *
text_plain (const char *text) {
  static const struct {
    const char *sign, *plain;
  } signs[] = { { "…", "..." }, { "→", "->" }, { "–", "-" }, { "·", "." }, { "≥", ">=" }, { "“", "'" }, { "”", "'" } };
  GString *plain = g_string_new (text);

  for (unsigned i = 0; i < G_N_ELEMENTS (signs); i++)
    g_string_replace (plain, signs[i].sign, signs[i].plain, 0);
  return g_string_free (plain, FALSE);
}

/* ---- widths ---- */

static int
char_width (gunichar c) {
  return g_unichar_iszerowidth (c) ? 0 : g_unichar_iswide (c) ? 2 : 1;
}

int
text_width (const char *text) {
  int width = 0;

  for (; *text; text = g_utf8_next_char (text))
    width += char_width (g_utf8_get_char (text));
  return width;
}

/* How many bytes of text fit into width columns. */
static size_t
bytes_within (const char *text, size_t length, int width) {
  const char *at = text;

  for (; at < text + length; at = g_utf8_next_char (at)) {
    width -= char_width (g_utf8_get_char (at));
    if (width < 0)
      break;
  }
  return (size_t)(at - text);
}

/* ---- sizes ---- */

static const char units[] = { 0, 'K', 'M', 'G', 'T' };

char *
text_size (guint64 bytes) {
  unsigned unit = 0;

  while (bytes && bytes % 1024 == 0 && unit + 1 < G_N_ELEMENTS (units)) {
    bytes /= 1024;
    unit++;
  }
  return g_strdup_printf ("%" G_GUINT64_FORMAT "%.1s", bytes, &units[unit]);
}

char *
text_size_short (guint64 bytes) {
  char number[G_ASCII_DTOSTR_BUF_SIZE];
  double value = (double)bytes;
  unsigned unit = 0;

  while (value >= 1024 && unit + 1 < G_N_ELEMENTS (units)) {
    value /= 1024;
    unit++;
  }
  g_ascii_formatd (number, sizeof number, unit == 0 || value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value);
  if (strchr (number, '.')) {
    char *end = number + strlen (number);

    while (end[-1] == '0')
      *--end = 0;
    if (end[-1] == '.')
      *--end = 0;
  }
  return g_strdup_printf ("%s%.1s", number, &units[unit]);
}

/* ---- times ---- */

char *
text_age (guint64 ms) {
  const guint64 s = ms / 1000;

  if (s < 60)
    return g_strdup_printf ("%" G_GUINT64_FORMAT " s", s);
  if (s < 3600)
    return g_strdup_printf ("%" G_GUINT64_FORMAT " min", s / 60);
  if (s < 48 * 3600)
    return g_strdup_printf ("%" G_GUINT64_FORMAT " h", s / 3600);
  return g_strdup_printf ("%" G_GUINT64_FORMAT " days", s / 86400);
}

/* ---- tables ---- */

struct TextTable {
  unsigned n_columns;
  char **heads;
  gboolean *right;
  GPtrArray *rows; /* of char ** */
};

TextTable *
text_table_new (const char *const *heads) {
  TextTable *table = g_new0 (TextTable, 1);

  table->n_columns = g_strv_length ((char **)heads);
  table->heads = g_new0 (char *, table->n_columns + 1);
  table->right = g_new0 (gboolean, table->n_columns);
  for (unsigned i = 0; i < table->n_columns; i++) {
    table->right[i] = *heads[i] == '>';
    table->heads[i] = g_strdup (heads[i] + table->right[i]);
  }
  table->rows = g_ptr_array_new_with_free_func ((GDestroyNotify)g_strfreev);
  return table;
}

void
text_table_free (TextTable *table) {
  g_strfreev (table->heads);
  g_free (table->right);
  g_ptr_array_unref (table->rows);
  g_free (table);
}

void
text_table_add (TextTable *table, ...) {
  char **row = g_new0 (char *, table->n_columns + 1);
  const char *cell;
  va_list args;

  va_start (args, table);
  for (unsigned i = 0; i < table->n_columns && (cell = va_arg (args, const char *)); i++)
    row[i] = ctl_escape (cell);
  va_end (args);
  for (unsigned i = 0; i < table->n_columns; i++)
    if (!row[i])
      row[i] = g_strdup ("");
  g_ptr_array_add (table->rows, row);
}

unsigned
text_table_rows (const TextTable *table) {
  return table->rows->len;
}

static void
append_line (GString *out, const TextTable *table, char **cells, const int *widths, int width) {
  const size_t start = out->len;
  size_t length;

  for (unsigned i = 0; i < table->n_columns; i++) {
    const int pad = widths[i] - text_width (cells[i]);

    if (i)
      g_string_append (out, "  ");
    if (table->right[i])
      g_string_append_printf (out, "%*s", pad, "");
    g_string_append (out, cells[i]);
    if (!table->right[i])
      g_string_append_printf (out, "%*s", pad, "");
  }
  length = out->len - start;
  if (width > 0)
    length = bytes_within (out->str + start, length, width);
  while (length && out->str[start + length - 1] == ' ')
    length--;
  g_string_truncate (out, start + length);
  g_string_append_c (out, '\n');
}

char *
text_table_format (const TextTable *table, int width) {
  g_autofree int *widths = g_new0 (int, table->n_columns);
  GString *out = g_string_new (NULL);

  for (unsigned i = 0; i < table->n_columns; i++) {
    widths[i] = text_width (table->heads[i]);
    for (unsigned row = 0; row < table->rows->len; row++)
      widths[i] = MAX (widths[i], text_width (((char **)table->rows->pdata[row])[i]));
  }
  append_line (out, table, table->heads, widths, width);
  for (unsigned row = 0; row < table->rows->len; row++)
    append_line (out, table, table->rows->pdata[row], widths, width);
  return g_string_free (out, FALSE);
}
