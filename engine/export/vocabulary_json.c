/* The vocabulary of a tokenizer.json. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/export/vocabulary.h"

enum { MAX_DEPTH = 8 };

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static bool has_type(const cJSON *object, const char *type)
{
	const char *text = cJSON_GetStringValue(member(object, "type"));
	return text && strcmp(text, type) == 0;
}

/* Whether a pre-tokenizer, or one in its sequence, turns bytes into characters. */
static bool takes_bytes(const cJSON *pretokenizer, int depth)
{
	const cJSON *inner;
	if (has_type(pretokenizer, "ByteLevel")) return true;
	cJSON_ArrayForEach(inner, member(pretokenizer, "pretokenizers")) if (depth < MAX_DEPTH &&
									     takes_bytes(inner, depth + 1)) return true;
	return false;
}

static enum status take_id(const cJSON *number, const char *text, int64_t *ret, struct error *err)
{
	if (!text) return error_set(err, STATUS_INVALID, "tokenizer.json: a token is not a text");
	if (!cJSON_IsNumber(number) || number->valuedouble != (double)number->valueint)
		return error_set(err, STATUS_INVALID, "tokenizer.json: the id of '%.64s' is not a number", text);
	*ret = number->valueint;
	return STATUS_OK;
}

static enum status add_vocabulary(struct vocabulary *vocabulary, const cJSON *json, struct error *err)
{
	const cJSON *entry;
	int64_t id;
	cJSON_ArrayForEach(entry, json)
	{
		TRY(take_id(entry, entry->string, &id, err));
		TRY(vocabulary_set(vocabulary, id, entry->string, TOKEN_NORMAL, 0, err));
	}
	return STATUS_OK;
}

static enum status add_added(struct vocabulary *vocabulary, const struct tokenizer_files *files, struct error *err)
{
	const cJSON *entry;
	int64_t id;
	cJSON_ArrayForEach(entry, member(files->json, "added_tokens"))
	{
		const char *text = cJSON_GetStringValue(member(entry, "content"));
		TRY(take_id(member(entry, "id"), text, &id, err));
		TRY(vocabulary_set_added(vocabulary, id, text, cJSON_IsTrue(member(entry, "special")), 0, err));
	}
	/* What tokenizer_config.json adds beside them. */
	cJSON_ArrayForEach(entry, member(files->config, "added_tokens_decoder"))
	{
		const char *text = cJSON_GetStringValue(member(entry, "content"));
		id = strtoll(entry->string, NULL, 10);
		if (!text || id < 0 || (id < vocabulary->size && vocabulary->tokens[id].text)) continue;
		TRY(vocabulary_set_added(vocabulary, id, text, cJSON_IsTrue(member(entry, "special")), 0, err));
	}
	return STATUS_OK;
}

enum status vocabulary_from_json(struct vocabulary *vocabulary, const struct tokenizer_files *files, const struct place *model,
				 struct error *err)
{
	const cJSON *bpe = member(files->json, "model");
	if (!files->json)
		return error_set(err, STATUS_NOT_FOUND,
				 "%s: has neither a tokenizer.json nor a tokenizer.model, and a GGUF needs one", model->path);
	if (!has_type(bpe, "BPE") || !cJSON_IsObject(member(bpe, "vocab")) || !cJSON_IsArray(member(bpe, "merges")))
		return error_set(err, STATUS_UNSUPPORTED,
				 "tokenizer.json: its model is not BPE: as a GGUF besad writes BPE of bytes, or "
				 "what a tokenizer.model holds");
	if (!takes_bytes(member(files->json, "pre_tokenizer"), 0))
		return error_set(
			err, STATUS_UNSUPPORTED,
			"tokenizer.json: its BPE is one of characters, and the model has no tokenizer.model: a GGUF needs the "
			"scores in that; copy it from the model's origin");
	TRY(add_vocabulary(vocabulary, member(bpe, "vocab"), err));
	return add_added(vocabulary, files, err);
}
