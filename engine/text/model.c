#include "engine/text/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/component.h"

/* The type, or for old files that have none, what their fields make it. */
static const char *type_of(const cJSON *json)
{
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
	if (type) return type;
	if (cJSON_GetObjectItemCaseSensitive(json, "merges")) return "BPE";
	if (cJSON_GetObjectItemCaseSensitive(json, "max_input_chars_per_word")) return "WordPiece";
	if (cJSON_IsArray(cJSON_GetObjectItemCaseSensitive(json, "vocab"))) return "Unigram";
	return cJSON_GetObjectItemCaseSensitive(json, "unk_token") ? "WordLevel" : "BPE";
}

static bool has_text(const cJSON *json, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, key));
	return text && *text;
}

bool model_takes_bytes(const cJSON *json)
{
	return strcmp(type_of(json), "BPE") == 0 && !has_text(json, "continuing_subword_prefix") &&
	       !has_text(json, "end_of_word_suffix");
}

bool model_is_unigram(const cJSON *json)
{
	return strcmp(type_of(json), "Unigram") == 0;
}

enum status model_parse(const cJSON *json, const char *what, bool byte_level, struct model **ret, struct error *err)
{
	struct component_path path = component_path("%s: model", what);
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "%s must be an object", path.text);
	const char *type = type_of(json);
	if (strcmp(type, "BPE") == 0) return bpe_parse(json, path.text, byte_level, ret, err);
	if (strcmp(type, "Unigram") == 0) return unigram_parse(json, path.text, ret, err);
	if (strcmp(type, "WordPiece") == 0) return wordpiece_parse(json, path.text, ret, err);
	if (strcmp(type, "WordLevel") == 0) return wordlevel_parse(json, path.text, ret, err);
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: the type '%.100s' is not supported; BPE, Unigram, WordPiece and WordLevel are", path.text, type);
}

void model_free(struct model *model)
{
	if (model) model->kind->free(model);
}

enum status model_parse_vocabulary(struct model *model, const cJSON *json, const char *what, struct error *err)
{
	const cJSON *child, *vocabulary = cJSON_GetObjectItemCaseSensitive(json, "vocab");
	if (!cJSON_IsObject(vocabulary)) return error_set(err, STATUS_INVALID, "%s: 'vocab' must be an object", what);
	model->largest_id = -1;
	cJSON_ArrayForEach(child, vocabulary)
	{
		double id = cJSON_IsNumber(child) ? child->valuedouble : -1;
		if (!(id >= 0 && id < INT32_MAX) || id != (int32_t)id)
			return error_set(err, STATUS_INVALID, "%s: the id of '%.100s' in 'vocab' must be an integer from 0 to %d",
					 what, child->string, INT32_MAX - 1);
		size_t bytes = strlen(child->string);
		TRY(string_map_put(&model->vocabulary, child->string, bytes, (int32_t)id, err));
		if ((int32_t)id > model->largest_id) model->largest_id = (int32_t)id;
		if (bytes > model->longest) model->longest = bytes;
	}
	model->size = (int64_t)model->vocabulary.count;
	return STATUS_OK;
}

void model_byte_tokens(const struct model *model, int32_t ids[256])
{
	for (int byte = 0; byte < 256; byte++) {
		char name[8];
		snprintf(name, sizeof name, "<0x%02X>", byte);
		ids[byte] = string_map_get(&model->vocabulary, name, 6);
	}
}
