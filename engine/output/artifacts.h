/* The files of an output, as its besad.json lists them. */
#ifndef BESAD_ENGINE_OUTPUT_ARTIFACTS_H
#define BESAD_ENGINE_OUTPUT_ARTIFACTS_H

#include <stdatomic.h>

#include <cjson/cJSON.h>

#include "base/place.h"

/* [{"name", "bytes", "sha256"}] of every file in the directory `work` and below it, by name, but for hidden ones and besad.json,
 * which cannot hold its own hash. Each is read once. STATUS_CANCELLED when `stop` is raised. The caller frees *ret. */
enum status artifacts_describe(const struct place *work, const atomic_bool *stop, cJSON **ret, struct error *err);

/* Adds {"name", "bytes", "sha256"} of one open file to such a list. STATUS_CANCELLED when `stop`, which may be NULL, is raised. */
enum status artifacts_add(cJSON *list, const char *name, const struct file *, const atomic_bool *stop, struct error *err);

#endif
