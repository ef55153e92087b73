/* tokenizer_config.json and what stands beside it, as transformers 5.24 reads them: which class the tokenizer is of, what its
 * special tokens are, and which tokens are added to its vocabulary. */
#ifndef BESAD_ENGINE_TOKENIZER_CONFIG_H
#define BESAD_ENGINE_TOKENIZER_CONFIG_H

#include <stdbool.h>

#include "base/json.h"
#include "base/place.h"
#include "engine/text/tokenizer_class.h"

struct tokenizer_config {
	cJSON *json;    /* tokenizer_config.json, with special_tokens_map.json in it where that counts; {} without a file */
	cJSON *decoder; /* an added_tokens_decoder: the object of its tokens by id */
	const struct tokenizer_class *class, *overruled; /* see tokenizer_class_choose */
	bool split_special;                              /* special tokens in the text are text */
};

/* From a model directory. `tree`: its tokenizer.json, or NULL where there is none that counts; `bytes`: that one names
 * ByteLevel. Freed with tokenizer_config_free, whatever the status. */
enum status tokenizer_config_read(const struct place *model, const cJSON *tree, bool bytes, struct tokenizer_config *ret,
				  struct error *err);
void tokenizer_config_free(struct tokenizer_config *);

/* The content of a special token ("bos_token" …), or the class's own where the file does not have it, or NULL. */
const char *tokenizer_config_token(const struct tokenizer_config *, const char *key);

/* Whether a member that is true or false is true; `otherwise` where it is not there. */
bool tokenizer_config_flag(const struct tokenizer_config *, const char *key, bool otherwise);

/* The tokens that are added behind those of `present`, an array of added tokens or NULL: *ret becomes an array in the form of a
 * tokenizer.json's added_tokens. `pieces`, an array of them or NULL, are those that a
 * tokenizer.model has itself. */
enum status tokenizer_config_added(const struct tokenizer_config *, const cJSON *present, const cJSON *pieces, cJSON **ret,
				   struct error *err);

#endif
