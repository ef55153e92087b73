#include "engine/text/bpe_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe_json.h"
#include "engine/text/unicode.h"

static const char SPACE[] = "\xe2\x96\x81"; /* ▁ */

static enum status no_memory(const char *what, struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

/* ---- vocabulary ----------------------------------------------------------------------------------------------------------- */
static enum status add_character(struct bpe_model *model, uint32_t code_point, int32_t id, const char *what, struct error *err)
{
	struct bpe_character **page = &model->pages[code_point >> 8];
	if (!*page) {
		*page = malloc(256 * sizeof **page);
		if (!*page) return no_memory(what, err);
		for (int i = 0; i < 256; i++)
			(*page)[i] = (struct bpe_character){.id = -1};
	}
	(*page)[code_point & 0xff].id = id;
	return STATUS_OK;
}

static enum status parse_vocabulary(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
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
		const char *end = child->string;
		uint32_t code_point = *end ? utf8_next(&end) : 0;
		if (bytes && *end == 0) TRY(add_character(model, code_point, (int32_t)id, what, err));
	}
	return STATUS_OK;
}

/* The characters that ByteLevel gives the 256 bytes: printable Latin-1 stands for itself, the others follow from U+0100 on. */
static void set_bytes(struct bpe_model *model)
{
	uint32_t next = 0x100;
	for (int byte = 0; byte < 256; byte++) {
		bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
		char encoded[4];
		int length = utf8_write(printable ? (uint32_t)byte : next++, encoded);
		memcpy(model->byte_characters[byte], encoded, (size_t)length);
		model->byte_ids[byte] = string_map_get(&model->vocabulary, encoded, (size_t)length);
		char name[8];
		snprintf(name, sizeof name, "<0x%02X>", byte);
		model->byte_tokens[byte] = string_map_get(&model->vocabulary, name, 6);
	}
}

/* ---- merges --------------------------------------------------------------------------------------------------------------- */
static void put_merge(struct bpe_model *model, struct bpe_merge merge)
{
	struct bpe_merge *found = (struct bpe_merge *)bpe_model_merge(model, merge.left, merge.right);
	if (found) { /* the package keeps the last one, too */
		*found = merge;
		return;
	}
	uint64_t key = ((uint64_t)merge.left << 32 | merge.right) * 0x9e3779b97f4a7c15u;
	size_t i = (size_t)(key >> 32 ^ key >> 17);
	while (model->merges[i & (model->merge_capacity - 1)].rank != UINT32_MAX)
		i++;
	model->merges[i & (model->merge_capacity - 1)] = merge;
}

/* A merge's two strings: "a b", or ["a", "b"]. */
static bool read_pair(const cJSON *json, const char **left, size_t *left_bytes, const char **right, size_t *right_bytes)
{
	if (cJSON_IsString(json)) {
		const char *space = strchr(json->valuestring, ' ');
		if (!space || strchr(space + 1, ' ')) return false;
		*left = json->valuestring;
		*left_bytes = (size_t)(space - *left);
		*right = space + 1;
	} else {
		const cJSON *a = cJSON_IsArray(json) ? json->child : NULL, *b = a ? a->next : NULL;
		if (!cJSON_IsString(a) || !cJSON_IsString(b) || b->next) return false;
		*left = a->valuestring;
		*left_bytes = strlen(*left);
		*right = b->valuestring;
	}
	*right_bytes = strlen(*right);
	return true;
}

/* Whether it looks like <0x0A>. */
static bool is_byte_token(const char *text, size_t bytes)
{
	return bytes == 6 && memcmp(text, "<0x", 3) == 0 && text[5] == '>';
}

/* Notes what a merge says of text before a "▁": it may join its left part's last character to it. Where bytes or the unknown
 * token are merged, characters do not tell. */
static void note_space(struct bpe_model *model, const char *left, size_t left_bytes, const char *right, size_t right_bytes,
		       int32_t left_id, int32_t right_id)
{
	if (!left_bytes || is_byte_token(left, left_bytes) || is_byte_token(right, right_bytes) || left_id == model->unk ||
	    right_id == model->unk)
		model->splits_at_space = false;
	if (!left_bytes || right_bytes < 3 || memcmp(right, SPACE, 3) != 0) return;
	const char *last = utf8_previous(left + left_bytes);
	struct bpe_character *character = (struct bpe_character *)bpe_model_character(model, utf8_next(&last));
	if (character) character->joins_space = true;
}

static enum status parse_merges(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
{
	const cJSON *array, *child;
	TRY(bpe_json_array(json, what, "merges", &array, err));
	size_t count = (size_t)cJSON_GetArraySize(array);
	model->merge_capacity = 64;
	while (model->merge_capacity < count * 2)
		model->merge_capacity *= 2;
	model->merges = malloc(model->merge_capacity * sizeof *model->merges);
	if (!model->merges) return no_memory(what, err);
	memset(model->merges, 0xff, model->merge_capacity * sizeof *model->merges);

	struct text_buffer joined = {0};
	uint32_t rank = 0;
	size_t index = 0;
	enum status status = STATUS_OK;
	cJSON_ArrayForEach(child, array)
	{
		const char *left, *right;
		size_t left_bytes, right_bytes, place = index++;
		if (cJSON_IsString(child) && strncmp(child->valuestring, "#version", 8) == 0) continue;
		if (!read_pair(child, &left, &left_bytes, &right, &right_bytes)) {
			status = error_set(err, STATUS_INVALID, "%s: merges[%zu] must be two tokens", what, place);
			break;
		}
		joined.size = 0;
		if ((status = text_append(&joined, left, left_bytes, err)) != STATUS_OK) break;
		if ((status = text_append(&joined, right, right_bytes, err)) != STATUS_OK) break;
		int32_t left_id = string_map_get(&model->vocabulary, left, left_bytes);
		int32_t right_id = string_map_get(&model->vocabulary, right, right_bytes);
		int32_t result = string_map_get(&model->vocabulary, joined.data, joined.size);
		if (left_id < 0 || right_id < 0 || result < 0) {
			status =
				error_set(err, STATUS_INVALID, "%s: merges[%zu] names a token that is not in 'vocab'", what, place);
			break;
		}
		put_merge(model, (struct bpe_merge){(uint32_t)left_id, (uint32_t)right_id, rank++, result});
		note_space(model, left, left_bytes, right, right_bytes, left_id, right_id);
	}
	text_buffer_free(&joined);
	return status;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */
static enum status parse_options(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
{
	static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
	const char *unk = NULL;
	double dropout = 0;
	TRY(json_get_double(json, what, "dropout", &dropout, err));
	if (dropout != 0) return error_set(err, STATUS_UNSUPPORTED, "%s: dropout %g is not supported", what, dropout);
	for (int i = 0; i < 2; i++) {
		const char *affix = "";
		TRY(json_get_string(json, what, affixes[i], &affix, err));
		if (*affix) return error_set(err, STATUS_UNSUPPORTED, "%s: %s '%.100s' is not supported", what, affixes[i], affix);
	}
	TRY(json_get_bool(json, what, "byte_fallback", &model->byte_fallback, err));
	TRY(json_get_bool(json, what, "fuse_unk", &model->fuse_unk, err));
	TRY(json_get_bool(json, what, "ignore_merges", &model->ignore_merges, err));
	TRY(json_get_string(json, what, "unk_token", &unk, err));
	model->unk = unk ? string_map_get(&model->vocabulary, unk, strlen(unk)) : BPE_UNK_NONE;
	if (unk && model->unk < 0) model->unk = BPE_UNK_MISSING;
	return STATUS_OK;
}

static enum status parse(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
{
	static const char *const keys[] = {"dropout",
					   "unk_token",
					   "continuing_subword_prefix",
					   "end_of_word_suffix",
					   "fuse_unk",
					   "byte_fallback",
					   "ignore_merges",
					   "vocab",
					   "merges",
					   NULL};
	const char *type = "BPE"; /* old files have none */
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "%s must be an object", what);
	TRY(json_get_string(json, what, "type", &type, err));
	if (strcmp(type, "BPE") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported, only BPE is", what, type);
	TRY(bpe_json_only(json, what, keys, err));
	TRY(parse_vocabulary(model, json, what, err));
	TRY(parse_options(model, json, what, err));
	set_bytes(model);
	model->splits_at_space = !model->byte_level && !model->ignore_merges && bpe_model_character(model, 0x2581);
	return parse_merges(model, json, what, err);
}

enum status bpe_model_parse(const cJSON *json, const char *what, bool byte_level, struct bpe_model **ret, struct error *err)
{
	struct bpe_model *model = calloc(1, sizeof *model);
	if (!model) return no_memory(what, err);
	model->byte_level = byte_level;
	struct bpe_place place = bpe_place("%s: model", what);
	enum status status = parse(model, json, place.text, err);
	if (status != STATUS_OK) {
		bpe_model_free(model);
		return status;
	}
	*ret = model;
	return STATUS_OK;
}

void bpe_model_free(struct bpe_model *model)
{
	if (!model) return;
	string_map_free(&model->vocabulary);
	free(model->merges);
	for (int i = 0; i < BPE_PAGES; i++)
		free(model->pages[i]);
	free(model);
}
