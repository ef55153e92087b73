/* Reads of the components of a tokenizer.json: objects with a "type", whose every key must be one we know. `what` is the file's
 * path and the component's place in it, "…/tokenizer.json: pre_tokenizer.pretokenizers[0]". */
#ifndef BESAD_ENGINE_COMPONENT_H
#define BESAD_ENGINE_COMPONENT_H

#include "base/json.h"

/* Where in the file an object is. */
struct component_path {
	char text[512];
};
struct component_path component_path(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The "type" of `object`, which must be an object. */
enum status component_type(const cJSON *object, const char *what, const char **ret, struct error *err);

/* STATUS_UNSUPPORTED, with the name, for a key of `object` that is neither "type" nor in `keys` (ends with NULL). */
enum status component_only(const cJSON *object, const char *what, const char *const *keys, struct error *err);

/* A string that must be there. */
enum status component_string(const cJSON *object, const char *what, const char *key, const char **ret, struct error *err);

/* An array that must be there. */
enum status component_array(const cJSON *object, const char *what, const char *key, const cJSON **ret, struct error *err);

/* {"String": s} or {"Regex": s} under "pattern", not empty. */
enum status component_pattern(const cJSON *object, const char *what, const char **ret, bool *ret_regex, struct error *err);

#endif
