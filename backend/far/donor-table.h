/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The donors of a VM that runs: they come (`add-donor`) and go (`remove-donor`) while it does. The table is memory that
 * outlives workers (FAR_FD_DONORS): a donor has the same number in it as in the maps of the copies (core/copies.h), for as long
 * as there is anything of it there.
 *
 * What a new one needs is let through by the sandbox before it closes, so that the worker makes room for another one after each
 * addition: the guest waits for a moment, and everything stays where it is. One that is to leave is taken for a donor that
 * wants all of its memory back; when nothing depends on it any more, its leases are ended and its number is free again.
 *
 * A change is written to the half of the table that is not in force, and comes into force by one store.
 */
#ifndef DOMYBS_FAR_DONOR_TABLE_H
#define DOMYBS_FAR_DONOR_TABLE_H

#include "far/commands.h"

typedef struct FarDonorTable FarDonorTable;

/* The keeper's: writes what the command line says into zeroed memory of FAR_DONORS_BYTES. */
void far_donor_table_format (void *memory, const FarOptions *options);

/* The worker's. fd is the keeper's, and is closed. An older keeper's memory has no table: then the command line is all that
 * there is, and nothing can be changed. NULL with error. */
FarDonorTable *far_donor_table_open (int fd, const FarOptions *options, GError **error);
/* Who we are to donors. */
const struct far_identities *far_donor_table_identities (const FarDonorTable *table);
/* How many numbers there are, those that are free included; their options, with name NULL for a free one. */
guint far_donor_table_count (const FarDonorTable *table);
const FarDonorOptions *far_donor_table_options (const FarDonorTable *table);
/* The disks are there: looks after donors that are to leave. */
void far_donor_table_start (FarDonorTable *table, FarOperator *op);

/* The commands; control.md describes them. */
JsonNode *far_donor_table_add (FarDonorTable *table, JsonObject *arguments, GError **error);
JsonNode *far_donor_table_remove (FarDonorTable *table, JsonObject *arguments, GError **error);

#endif
