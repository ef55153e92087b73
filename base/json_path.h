/* Fields of JSON by paths of keys: "besa.epochs". */
#ifndef BESAD_BASE_JSON_PATH_H
#define BESAD_BASE_JSON_PATH_H

#include <cjson/cJSON.h>

#include "base/error.h"

/* Sets the member of `json` that `path` names by keys with dots between, making objects on the way. A number is a place in a list
 * ("evaluation.perplexity.0.path"), at most the one behind its last element, which is added. Takes `value`, which may be NULL: no
 * memory. STATUS_INVALID where the path leads nowhere. */
enum status json_path_set(cJSON *json, const char *path, cJSON *value, struct error *err);

#endif
