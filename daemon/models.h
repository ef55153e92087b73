#ifndef BESAD_DAEMON_MODELS_H
#define BESAD_DAEMON_MODELS_H

#include <cjson/cJSON.h>

#include "engine/error.h"

/* The model directories below the NULL-terminated `roots`, as the contract's list: {name, family, blocks, bytes, supported, reason}, name
 * being what a job's `model` takes. Directories that begin with a dot are left out. */
enum status models_find(char *const *roots, cJSON **ret, struct error *err);

#endif
