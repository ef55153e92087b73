#include "engine/text/bpe.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/byte_spelling.h"
#include "engine/text/component.h"
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

/* The vocabulary's single characters. */
static enum status index_characters(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
{
	const cJSON *child, *vocabulary = cJSON_GetObjectItemCaseSensitive(json, "vocab");
	cJSON_ArrayForEach(child, vocabulary)
	{
		const char *end = child->string;
		if (*end == 0) continue;
		uint32_t code_point = utf8_next(&end);
		if (*end == 0) TRY(add_character(model, code_point, (int32_t)child->valuedouble, what, err));
	}
	return STATUS_OK;
}

static void set_bytes(struct bpe_model *model)
{
	uint32_t table[256];
	byte_spelling_table(table);
	for (int byte = 0; byte < 256; byte++) {
		char encoded[4];
		int length = utf8_write(table[byte], encoded);
		memcpy(model->byte_characters[byte], encoded, (size_t)length);
		model->byte_ids[byte] = string_map_get(&model->base.vocabulary, encoded, (size_t)length);
	}
	model_byte_tokens(&model->base, model->byte_tokens);
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
	TRY(component_array(json, what, "merges", &array, err));
	size_t count = (size_t)cJSON_GetArraySize(array);
	model->merge_capacity = 64;
	while (model->merge_capacity < count * 2)
		model->merge_capacity *= 2;
	model->merges = malloc(model->merge_capacity * sizeof *model->merges);
	if (!model->merges) return no_memory(what, err);
	memset(model->merges, 0xff, model->merge_capacity * sizeof *model->merges);

	struct text_buffer joined = {0};
	uint32_t rank = 0;
	size_t index = 0, prefix = strlen(model->prefix);
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
		if (right_bytes < prefix) {
			status = error_set(err, STATUS_INVALID, "%s: merges[%zu] lacks the prefix", what, place);
			break;
		}
		if ((status = text_append(&joined, left, left_bytes, err)) != STATUS_OK) break;
		if ((status = text_append(&joined, right + prefix, right_bytes - prefix, err)) != STATUS_OK) break;
		int32_t left_id = string_map_get(&model->base.vocabulary, left, left_bytes);
		int32_t right_id = string_map_get(&model->base.vocabulary, right, right_bytes);
		int32_t result = string_map_get(&model->base.vocabulary, joined.data, joined.size);
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
static enum status parse_affix(const cJSON *json, const char *what, const char *key, char **ret, struct error *err)
{
	const char *affix = "";
	TRY(json_get_string(json, what, key, &affix, err));
	*ret = strdup(affix);
	return *ret ? STATUS_OK : no_memory(what, err);
}

static enum status parse_options(struct bpe_model *model, const cJSON *json, const char *what, struct error *err)
{
	const char *unk = NULL;
	double dropout = 0;
	TRY(json_get_double(json, what, "dropout", &dropout, err));
	if (dropout != 0) return error_set(err, STATUS_UNSUPPORTED, "%s: dropout %g is not supported", what, dropout);
	TRY(parse_affix(json, what, "continuing_subword_prefix", &model->prefix, err));
	TRY(parse_affix(json, what, "end_of_word_suffix", &model->suffix, err));
	TRY(json_get_bool(json, what, "byte_fallback", &model->byte_fallback, err));
	TRY(json_get_bool(json, what, "fuse_unk", &model->fuse_unk, err));
	TRY(json_get_bool(json, what, "ignore_merges", &model->ignore_merges, err));
	TRY(json_get_string(json, what, "unk_token", &unk, err));
	model->unk = unk ? string_map_get(&model->base.vocabulary, unk, strlen(unk)) : BPE_UNK_NONE;
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
	TRY(component_only(json, what, keys, err));
	TRY(model_parse_vocabulary(&model->base, json, what, err));
	TRY(index_characters(model, json, what, err));
	TRY(parse_options(model, json, what, err));
	set_bytes(model);
	bool affixes = *model->prefix || *model->suffix;
	model->splits_at_space = !model->byte_level && !model->ignore_merges && !affixes && bpe_model_character(model, 0x2581);
	return parse_merges(model, json, what, err);
}

static void free_model(struct model *base)
{
	struct bpe_model *model = (struct bpe_model *)base;
	string_map_free(&base->vocabulary);
	free(model->merges);
	free(model->prefix);
	free(model->suffix);
	for (int i = 0; i < BPE_PAGES; i++)
		free(model->pages[i]);
	free(model);
}

enum status bpe_parse(const cJSON *json, const char *what, bool byte_level, struct model **ret, struct error *err)
{
	static const struct model_kind kind = {free_model, bpe_scratch_new, bpe_scratch_free, bpe_encode};
	struct bpe_model *model = calloc(1, sizeof *model);
	if (!model) return no_memory(what, err);
	model->base.kind = &kind;
	model->byte_level = byte_level;
	enum status status = parse(model, json, what, err);
	if (status != STATUS_OK) {
		free_model(&model->base);
		return status;
	}
	*ret = &model->base;
	return STATUS_OK;
}
