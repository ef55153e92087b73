/* A study's grid: fields of a spec, each with the values that it is to take; and the jobs that all combinations of them make.
 * Plain functions of JSON: nothing here knows of requests or of the database. */
#ifndef BESAD_API_GRID_H
#define BESAD_API_GRID_H

#include <stdbool.h>
#include <stddef.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/error.h"

enum { GRID_MAX_FIELDS = 16, GRID_MAX_PATH = 200 };

/* Is `grid` {"besa.candidates": [2, 5], "method": [...]}: 1 to GRID_MAX_FIELDS fields, none of them below another one or one
 * that each job has of its own (name, output), each with 1 or more values that differ, `limit` combinations at most? Else
 * `errors`, an array of problems, has more. *ret_count is the number of combinations. */
bool grid_check(const cJSON *grid, size_t limit, size_t *ret_count, cJSON *errors);

/* What follows is of a grid that has passed, and of its combination `index`, counted from 0: the last field changes first. */

/* {"besa.candidates": 2, "method": …}. NULL without memory. */
cJSON *grid_settings(const cJSON *grid, size_t index);

/* `spec` with these settings in place. STATUS_INVALID with the name of the field where `spec` has something else than an object
 * or a list on the way to it. */
enum status grid_spec(const cJSON *spec, const cJSON *settings, cJSON **ret, struct error *err);

/* "besa.candidates=2, method=wanda", for people, long values cut; freed by the caller, NULL without memory. */
char *grid_describe(const cJSON *settings);

/* "03_besa.candidates-2_method-wanda": the name of a directory that no other combination has, of `count`. As above. */
char *grid_directory(const cJSON *settings, size_t index, size_t count);

/* Appends up to `limit` bytes of the text as a part of such a name: what would need quotes in a shell, or begin the name of a
 * hidden file, becomes '-', or nothing behind another one and at the name's beginning. */
void grid_append_plain(struct buffer *name, const char *text, size_t limit);

/* Where in a study the field of a job's spec is that the JSON pointer names: "/besa/candidates" is in "/grid/besa.candidates/0",
 * or else in "/spec/besa/candidates". As above. */
char *grid_pointer(const cJSON *grid, size_t index, const char *pointer);

#endif
