/* A SentencePiece model as the tree of a tokenizer.json: transformers' convert_slow_tokenizer.py and generate_merges, version
 * 5.24. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/component.h"
#include "engine/text/sentencepiece.h"
#include "engine/text/string_map.h"
#include "engine/text/unicode.h"

struct builder {
	const struct sentencepiece *model;
	const char **names;    /* of the pieces */
	struct string_map ids; /* by name; of `mergeable` pieces alone */
	struct error *err;
};

static enum status no_memory(const struct builder *builder)
{
	return error_set(builder->err, STATUS_NO_MEMORY, "no memory to load a SentencePiece model");
}

/* Adds `item` to an array or, with a key, to an object; frees it when that fails. */
static enum status add(const struct builder *builder, cJSON *parent, const char *key, cJSON *item)
{
	if (item && (key ? cJSON_AddItemToObject(parent, key, item) : cJSON_AddItemToArray(parent, item))) return STATUS_OK;
	cJSON_Delete(item);
	return no_memory(builder);
}

/* A copy of the `json` text under `key`: it is ours and parses. */
static enum status add_json(const struct builder *builder, cJSON *parent, const char *key, const char *json)
{
	return add(builder, parent, key, cJSON_Parse(json));
}

/* ---- vocabulary and merges ------------------------------------------------------------------------------------------------ */
static enum status add_vocabulary(const struct builder *builder, cJSON *tree)
{
	cJSON *vocabulary = cJSON_AddObjectToObject(tree, "vocab");
	if (!vocabulary) return no_memory(builder);
	for (size_t i = 0; i < builder->model->count; i++)
		TRY(add(builder, vocabulary, builder->names[i], cJSON_CreateNumber((double)i)));
	return STATUS_OK;
}

static enum status add_scores(const struct builder *builder, cJSON *tree)
{
	cJSON *vocabulary = cJSON_AddArrayToObject(tree, "vocab");
	if (!vocabulary) return no_memory(builder);
	for (size_t i = 0; i < builder->model->count; i++) {
		cJSON *pair = cJSON_CreateArray();
		TRY(add(builder, vocabulary, NULL, pair));
		TRY(add(builder, pair, NULL, cJSON_CreateString(builder->names[i])));
		TRY(add(builder, pair, NULL, cJSON_CreateNumber(builder->model->pieces[i].score)));
	}
	return STATUS_OK;
}

/* The merges that make a piece out of two others, the shortest left part first. */
static enum status add_merges_of(const struct builder *builder, cJSON *merges, const char *piece)
{
	const char *end = piece + strlen(piece), *at = piece;
	struct text_buffer left = {0};
	enum status status = STATUS_OK;
	while (status == STATUS_OK && at < end) {
		utf8_next(&at);
		size_t bytes = (size_t)(at - piece);
		if (at == end || string_map_get(&builder->ids, piece, bytes) < 0 ||
		    string_map_get(&builder->ids, at, (size_t)(end - at)) < 0)
			continue;
		cJSON *pair = cJSON_CreateArray();
		status = add(builder, merges, NULL, pair);
		left.size = 0;
		if (status == STATUS_OK) status = text_append(&left, piece, bytes, builder->err);
		if (status == STATUS_OK) status = text_append(&left, "", 1, builder->err);
		if (status == STATUS_OK) status = add(builder, pair, NULL, cJSON_CreateString(left.data));
		if (status == STATUS_OK) status = add(builder, pair, NULL, cJSON_CreateString(at));
	}
	text_buffer_free(&left);
	return status;
}

struct ranked {
	double score;
	size_t id;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->score != y->score) return x->score > y->score ? -1 : 1;
	return (x->id > y->id) - (x->id < y->id);
}

/* All merges, in the order of the pieces' ids or, `by_score`, of their scores. */
static enum status add_merges(const struct builder *builder, cJSON *tree, bool by_score)
{
	const struct sentencepiece *model = builder->model;
	cJSON *merges = cJSON_AddArrayToObject(tree, "merges");
	struct ranked *ranked = calloc(model->count, sizeof *ranked);
	enum status status = merges && ranked ? STATUS_OK : no_memory(builder);
	size_t count = 0;
	for (size_t i = 0; i < model->count && status == STATUS_OK; i++)
		/* Of pieces of one name the last counts. */
		if (string_map_get(&builder->ids, builder->names[i], strlen(builder->names[i])) == (int32_t)i)
			ranked[count++] = (struct ranked){by_score ? model->pieces[i].score : 0, i};
	if (status == STATUS_OK) qsort(ranked, count, sizeof *ranked, compare_ranked);
	for (size_t i = 0; i < count && status == STATUS_OK; i++)
		status = add_merges_of(builder, merges, builder->names[ranked[i].id]);
	free(ranked);
	return status;
}

/* The piece that an entry of an added_tokens_decoder renames, or -1. */
static int64_t renamed_piece(const struct sentencepiece *model, const cJSON *token)
{
	char *end;
	unsigned long long id = strtoull(token->string, &end, 10);
	const cJSON *content = cJSON_GetObjectItemCaseSensitive(token, "content");
	return *token->string && *end == 0 && id < model->count && cJSON_IsString(content) ? (int64_t)id : -1;
}

/* Gives pieces the names of an added_tokens_decoder, except names that another piece keeps. */
static enum status rename_pieces(struct builder *builder, const cJSON *names)
{
	const struct sentencepiece *model = builder->model;
	struct string_map kept = {0};
	bool *renamed = calloc(model->count, 1);
	enum status status = renamed ? STATUS_OK : no_memory(builder);
	const cJSON *token;
	if (renamed) cJSON_ArrayForEach(token, names)
		{
			int64_t id = renamed_piece(model, token);
			if (id >= 0) renamed[id] = true;
		}
	for (size_t i = 0; i < model->count && status == STATUS_OK; i++)
		if (!renamed[i])
			status = string_map_put(&kept, builder->names[i], strlen(builder->names[i]), (int32_t)i, builder->err);
	if (status == STATUS_OK) cJSON_ArrayForEach(token, names)
		{
			int64_t id = renamed_piece(model, token);
			if (id < 0) continue;
			const char *name = cJSON_GetObjectItemCaseSensitive(token, "content")->valuestring;
			if (string_map_get(&kept, name, strlen(name)) < 0) builder->names[id] = name;
		}
	free(renamed);
	string_map_free(&kept);
	return status;
}

/* Names the pieces and notes which may be merged: all, or the normal ones. */
static enum status name_pieces(struct builder *builder, const cJSON *names, bool only_normal)
{
	const struct sentencepiece *model = builder->model;
	if (model->count >= INT32_MAX)
		return error_set(builder->err, STATUS_UNSUPPORTED, "a SentencePiece model of %zu pieces", model->count);
	builder->names = calloc(model->count, sizeof *builder->names);
	if (!builder->names) return no_memory(builder);
	for (size_t i = 0; i < model->count; i++)
		builder->names[i] = model->pieces[i].text;
	if (names) TRY(rename_pieces(builder, names));
	for (size_t i = 0; i < model->count; i++)
		if (!only_normal || model->pieces[i].type == PIECE_NORMAL)
			TRY(string_map_put(&builder->ids, builder->names[i], strlen(builder->names[i]), (int32_t)i, builder->err));
	return STATUS_OK;
}

/* ---- trees ---------------------------------------------------------------------------------------------------------------- */
/* Ends the building: hands the tree out, or frees it. */
static enum status deliver(struct builder *builder, enum status status, cJSON *tree, cJSON **ret)
{
	free(builder->names);
	string_map_free(&builder->ids);
	if (status == STATUS_OK)
		*ret = tree;
	else
		cJSON_Delete(tree);
	return status;
}

enum status sentencepiece_to_class(const struct sentencepiece *model, cJSON **ret, struct error *err)
{
	struct builder builder = {.model = model, .err = err};
	cJSON *tree = cJSON_CreateObject(), *part = tree ? cJSON_AddObjectToObject(tree, "model") : NULL;
	enum status status = part ? name_pieces(&builder, NULL, false) : no_memory(&builder);
	if (status == STATUS_OK) status = add_json(&builder, part, "type", "\"BPE\"");
	if (status == STATUS_OK) status = add_vocabulary(&builder, part);
	if (status == STATUS_OK) status = add_merges(&builder, part, false);
	return deliver(&builder, status, tree, ret);
}

static enum status add_model(const struct builder *builder, cJSON *tree, bool user_defined)
{
	const struct sentencepiece *model = builder->model;
	cJSON *part = cJSON_AddObjectToObject(tree, "model");
	if (!part) return no_memory(builder);
	TRY(add(builder, part, "byte_fallback", cJSON_CreateBool(model->byte_fallback)));
	if (model->unigram) {
		TRY(add_json(builder, part, "type", "\"Unigram\""));
		if (model->unk_id >= 0) TRY(add(builder, part, "unk_id", cJSON_CreateNumber((double)model->unk_id)));
		return add_scores(builder, part);
	}
	TRY(add_json(builder, part, "type", "\"BPE\""));
	TRY(add(builder, part, "unk_token", cJSON_CreateString(model->unk_piece)));
	TRY(add_json(builder, part, "fuse_unk", "true"));
	TRY(add(builder, part, "ignore_merges", cJSON_CreateBool(user_defined)));
	TRY(add_vocabulary(builder, part));
	return add_merges(builder, part, true);
}

static enum status add_charsmap(const struct builder *builder, cJSON *normalizers)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const struct sentencepiece *model = builder->model;
	const unsigned char *bytes = (const unsigned char *)model->charsmap;
	char *text = malloc(model->charsmap_bytes / 3 * 4 + 5);
	if (!text) return no_memory(builder);
	size_t size = 0;
	for (size_t i = 0; i < model->charsmap_bytes; i += 3) {
		size_t rest = model->charsmap_bytes - i;
		uint32_t bits = (uint32_t)bytes[i] << 16 | (rest > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
				(rest > 2 ? (uint32_t)bytes[i + 2] : 0);
		text[size++] = digits[bits >> 18];
		text[size++] = digits[bits >> 12 & 63];
		text[size++] = rest > 1 ? digits[bits >> 6 & 63] : '=';
		text[size++] = rest > 2 ? digits[bits & 63] : '=';
	}
	text[size] = 0;
	cJSON *step = cJSON_CreateObject();
	enum status status = add(builder, normalizers, NULL, step);
	if (status == STATUS_OK) status = add_json(builder, step, "type", "\"Precompiled\"");
	if (status == STATUS_OK) status = add(builder, step, "precompiled_charsmap", cJSON_CreateString(text));
	free(text);
	return status;
}

static enum status add_normalizers(const struct builder *builder, cJSON *tree, bool legacy)
{
	const struct sentencepiece *model = builder->model;
	cJSON *normalizer = cJSON_AddObjectToObject(tree, "normalizer");
	if (!normalizer) return no_memory(builder);
	TRY(add_json(builder, normalizer, "type", "\"Sequence\""));
	cJSON *steps = cJSON_AddArrayToObject(normalizer, "normalizers");
	if (!steps) return no_memory(builder);
	if (model->charsmap) TRY(add_charsmap(builder, steps));
	if (model->remove_extra_spaces) {
		TRY(add_json(builder, steps, NULL,
			     "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A +| +\\\\z\"},\"content\":\"\"}"));
		TRY(add_json(builder, steps, NULL, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" {2,}\"},\"content\":\" \"}"));
	}
	if (model->escape_spaces)
		TRY(add_json(builder, steps, NULL, "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}"));
	if (model->dummy_prefix && legacy)
		TRY(add_json(builder, steps, NULL, "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"\\\\A▁\"},\"content\":\"▁▁\"}"));
	return STATUS_OK;
}

static size_t characters(const char *text)
{
	size_t count = 0;
	for (; *text; text++)
		count += (*text & 0xc0) != 0x80;
	return count;
}

struct named {
	const char *name;
	size_t characters, at;
};

static int compare_named(const void *a, const void *b)
{
	const struct named *x = a, *y = b;
	if (x->characters != y->characters) return x->characters > y->characters ? -1 : 1;
	return (x->at > y->at) - (x->at < y->at);
}

/* The user-defined pieces as a regular expression, the longest first. */
static enum status write_pattern(const struct builder *builder, struct text_buffer *out)
{
	const struct sentencepiece *model = builder->model;
	struct named *named = calloc(model->count, sizeof *named);
	enum status status = named ? STATUS_OK : no_memory(builder);
	size_t count = 0;
	for (size_t i = 0; i < model->count && status == STATUS_OK; i++)
		if (model->pieces[i].type == PIECE_USER_DEFINED)
			named[count++] = (struct named){builder->names[i], characters(builder->names[i]), i};
	if (status == STATUS_OK) qsort(named, count, sizeof *named, compare_named);
	for (size_t i = 0; i < count && status == STATUS_OK; i++) {
		if (i) status = text_append(out, "|", 1, builder->err);
		for (const char *c = named[i].name; *c && status == STATUS_OK; c++) {
			bool plain = (*c & 0x80) || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') ||
				     (*c >= '0' && *c <= '9') || *c == '_';
			if (!plain) status = text_append(out, "\\", 1, builder->err);
			if (status == STATUS_OK) status = text_append(out, c, 1, builder->err);
		}
	}
	free(named);
	return status == STATUS_OK ? text_append(out, "", 1, builder->err) : status;
}

static enum status add_pretokenizers(const struct builder *builder, cJSON *tree, bool legacy, bool user_defined)
{
	if (!builder->model->dummy_prefix && !user_defined) return STATUS_OK;
	cJSON *pretokenizer = cJSON_AddObjectToObject(tree, "pre_tokenizer");
	if (!pretokenizer) return no_memory(builder);
	TRY(add_json(builder, pretokenizer, "type", "\"Sequence\""));
	cJSON *steps = cJSON_AddArrayToObject(pretokenizer, "pretokenizers");
	if (!steps) return no_memory(builder);
	if (builder->model->dummy_prefix)
		TRY(add_json(
			builder, steps, NULL,
			legacy ? "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"always\",\"split\":false}"
			       : "{\"type\":\"Metaspace\",\"replacement\":\"▁\",\"prepend_scheme\":\"first\",\"split\":false}"));
	if (!user_defined) return STATUS_OK;
	struct text_buffer pattern = {0};
	cJSON *step = NULL, *part = NULL;
	enum status status = write_pattern(builder, &pattern);
	if (status == STATUS_OK) status = add(builder, steps, NULL, step = cJSON_CreateObject());
	if (status == STATUS_OK) status = add_json(builder, step, "type", "\"Split\"");
	if (status == STATUS_OK) status = add_json(builder, step, "behavior", "\"Isolated\"");
	if (status == STATUS_OK) status = add(builder, step, "pattern", part = cJSON_CreateObject());
	if (status == STATUS_OK) status = add(builder, part, "Regex", cJSON_CreateString(pattern.data));
	text_buffer_free(&pattern);
	return status;
}

enum status sentencepiece_to_tree(const struct sentencepiece *model, bool legacy, const cJSON *names, cJSON **ret,
				  struct error *err)
{
	struct builder builder = {.model = model, .err = err};
	bool user_defined = false;
	for (size_t i = 0; i < model->count; i++)
		user_defined = user_defined || model->pieces[i].type == PIECE_USER_DEFINED;
	cJSON *tree = cJSON_CreateObject();
	enum status status = tree ? name_pieces(&builder, model->unigram ? NULL : names, true) : no_memory(&builder);
	if (status == STATUS_OK) status = add_model(&builder, tree, user_defined);
	if (status == STATUS_OK) status = add_normalizers(&builder, tree, legacy);
	if (status == STATUS_OK) status = add_pretokenizers(&builder, tree, legacy, user_defined);
	return deliver(&builder, status, tree, ret);
}
