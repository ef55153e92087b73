/* A model's config.json with other members. What is not replaced keeps its text: 10000.0 read and written again could become
 * 10000, which is another type to Python. */
#ifndef BESAD_ENGINE_OUTPUT_CONFIG_JSON_H
#define BESAD_ENGINE_OUTPUT_CONFIG_JSON_H

#include <cjson/cJSON.h>

#include "base/buffer.h"
#include "base/place.h"

/* The text of the model's `name` with the members of the object `members`, which take the place of those of the same name or
 * come behind the others; null takes a place and leaves nothing there. The caller frees *ret with buffer_free. STATUS_INVALID
 * when there is no JSON object, as Python reads it, in the file. */
enum status config_json_complete(const struct place *model, const char *name, const cJSON *members, struct buffer *ret,
				 struct error *err);

#endif
