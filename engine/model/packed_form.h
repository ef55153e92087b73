/* How the weights of linears are packed in a checkpoint: the form "pack-quantized" of compressed-tensors, as config.json tells
 * it. The tensors themselves are packed.h's. */
#ifndef BESAD_ENGINE_PACKED_FORM_H
#define BESAD_ENGINE_PACKED_FORM_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"

struct packed_form {
	int bits;      /* of a code: 4 or 8; 0: nothing is packed */
	int64_t group; /* neighbouring weights of a row that have a grid of their own; 0: a row has one */
	bool symmetric;
};

static inline bool packed_form_has_bits(int bits)
{
	return bits == 4 || bits == 8;
}

/* Does a `quantization_config` speak of that form? Then packed_form_parse says whether besad reads it. */
bool packed_form_is_meant(const cJSON *quantization);

/* STATUS_UNSUPPORTED names the field that makes it another variant than those that besad reads: codes of 4 or 8 bits, the same
 * for all packed linears, by groups or rows, in their order, and activations as they are. `path` and `key` name what is parsed
 * in errors. */
enum status packed_form_parse(const cJSON *quantization, const char *path, const char *key, struct packed_form *ret,
			      struct error *err);

/* The object that config.json gets; `ignore`, a list of names or "re:" patterns of linears that are not packed, becomes a part
 * of it. NULL: no memory, and `ignore` is freed. */
cJSON *packed_form_json(const struct packed_form *, cJSON *ignore);

#endif
