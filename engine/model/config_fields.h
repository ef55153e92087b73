/* Which fields of config.json may be there: those that a family heeds, those that are known to change no maths, and those whose
 * value says that a feature is off. Any other is refused by name. */
#ifndef BESAD_ENGINE_CONFIG_FIELDS_H
#define BESAD_ENGINE_CONFIG_FIELDS_H

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/warnings.h"
#include "engine/model/families.h"

/* STATUS_UNSUPPORTED names the first field that is refused. A field that other families heed and transformers ignores for this
 * one is a warning. Where it says that weights are packed, *ret_packing is how, unless that is NULL, and then it is refused. */
enum status config_fields_check(const cJSON *json, const struct family *, const char *path, struct packed_form *ret_packing,
				struct warnings *, struct error *err);

/* Of the whole of a model of texts and images, whose other fields are not the language model's. */
enum status config_fields_check_quantization(const cJSON *json, const char *path, struct packed_form *ret_packing,
					     struct error *err);

#endif
