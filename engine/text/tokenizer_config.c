#include "engine/text/tokenizer_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lfs.h"
#include "engine/text/string_map.h"

enum { MAX_CONFIG_BYTES = 64 << 20 };

/* transformers' SPECIAL_TOKENS_ATTRIBUTES, in its order. */
static const char *const attributes[] = {"bos_token", "eos_token", "unk_token", "sep_token",
					 "pad_token", "cls_token", "mask_token"};
enum { ATTRIBUTES = sizeof attributes / sizeof *attributes };

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to load a tokenizer");
}

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

/* The content of a token: a string, or an object's "content". */
static const char *token_text(const cJSON *token)
{
	return cJSON_GetStringValue(cJSON_IsObject(token) ? member(token, "content") : token);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */
/* *ret becomes the object in a file of the directory, NULL where the file is not there. */
static enum status read_object(const struct place *model, const char *name, cJSON **ret, struct error *err)
{
	char *text;
	size_t bytes;
	bool there;
	*ret = NULL;
	TRY(place_look(model, name, &there, err));
	if (!there) return STATUS_OK;
	char *path = place_text(model, name);
	if (!path) return no_memory(err);
	enum status status = place_slurp(model, name, MAX_CONFIG_BYTES, &text, &bytes, err);
	if (status == STATUS_OK) {
		status =
			is_lfs_pointer(text, bytes) ? lfs_pointer_error(path, err) : json_parse_python(text, bytes, path, ret, err);
		free(text);
	}
	if (status == STATUS_OK && !cJSON_IsObject(*ret)) {
		cJSON_Delete(*ret);
		*ret = NULL;
		status = error_set(err, STATUS_INVALID, "%s: not a JSON object", path);
	}
	free(path);
	return status;
}

static enum status put_copy(cJSON *object, const char *key, const cJSON *item, struct error *err)
{
	cJSON *copy = cJSON_Duplicate(item, true);
	cJSON_DeleteItemFromObjectCaseSensitive(object, key);
	if (copy && cJSON_AddItemToObject(object, key, copy)) return STATUS_OK;
	cJSON_Delete(copy);
	return no_memory(err);
}

static bool is_full(const cJSON *list)
{
	return list && list->child;
}

/* Version 4's name of the list of further special tokens becomes version 5's. */
static void rename_extra(cJSON *config)
{
	if (!member(config, "additional_special_tokens") || is_full(member(config, "extra_special_tokens"))) return;
	cJSON_DeleteItemFromObjectCaseSensitive(config, "extra_special_tokens");
	cJSON *list = cJSON_DetachItemFromObjectCaseSensitive(config, "additional_special_tokens");
	if (!cJSON_AddItemToObject(config, "extra_special_tokens", list)) cJSON_Delete(list);
}

/* A token given as an object is special, whatever it says. */
static enum status make_special(cJSON *token, struct error *err)
{
	if (!cJSON_IsObject(token)) return STATUS_OK;
	cJSON_DeleteItemFromObjectCaseSensitive(token, "special");
	return cJSON_AddTrueToObject(token, "special") ? STATUS_OK : no_memory(err);
}

/* Adds the map's extra_special_tokens to the config's. */
static enum status merge_extra(cJSON *config, const cJSON *list, struct error *err)
{
	const cJSON *item;
	cJSON *mine = cJSON_GetObjectItemCaseSensitive(config, "extra_special_tokens");
	if (!cJSON_IsArray(mine) || !cJSON_IsArray(list)) return put_copy(config, "extra_special_tokens", list, err);
	cJSON_ArrayForEach(item, list)
	{
		cJSON *copy = cJSON_Duplicate(item, true);
		if (!copy || !cJSON_AddItemToArray(mine, copy)) {
			cJSON_Delete(copy);
			return no_memory(err);
		}
		TRY(make_special(copy, err));
	}
	return STATUS_OK;
}

/* Puts a special_tokens_map.json over the config. */
static enum status merge_special_tokens(struct tokenizer_config *config, const struct place *model, struct error *err)
{
	cJSON *map;
	const cJSON *item;
	TRY(read_object(model, "special_tokens_map.json", &map, err));
	enum status status = STATUS_OK;
	cJSON_ArrayForEach(item, map)
	{
		if (strcmp(item->string, "extra_special_tokens") == 0) {
			status = merge_extra(config->json, item, err);
		} else {
			status = put_copy(config->json, item->string, item, err);
			if (status == STATUS_OK)
				status = make_special(cJSON_GetObjectItemCaseSensitive(config->json, item->string), err);
		}
		if (status != STATUS_OK) break;
	}
	cJSON_Delete(map);
	return status;
}

static bool is_special_token(const struct tokenizer_config *config, const char *text)
{
	for (int i = 0; i < ATTRIBUTES; i++) {
		const char *named = token_text(member(config->json, attributes[i]));
		if (named && strcmp(named, text) == 0) return true;
	}
	const cJSON *token;
	cJSON_ArrayForEach(token, member(config->json, "extra_special_tokens"))
	{
		const char *named = token_text(token);
		if (named && strcmp(named, text) == 0) return true;
	}
	return false;
}

/* Adds an added_tokens.json, {token: id}, to the decoder. */
static enum status decode_added_tokens(struct tokenizer_config *config, const struct place *model, struct error *err)
{
	cJSON *added;
	const cJSON *item;
	TRY(read_object(model, "added_tokens.json", &added, err));
	enum status status = STATUS_OK;
	cJSON_ArrayForEach(item, added)
	{
		char id[24];
		snprintf(id, sizeof id, "%.0f", cJSON_IsNumber(item) ? item->valuedouble : 0);
		bool special = is_special_token(config, item->string);
		cJSON *token = cJSON_CreateObject();
		if (!token || !cJSON_AddStringToObject(token, "content", item->string) ||
		    !cJSON_AddBoolToObject(token, "normalized", !special) || !cJSON_AddBoolToObject(token, "special", special) ||
		    !cJSON_AddItemToObject(config->decoder, id, token)) {
			cJSON_Delete(token);
			status = no_memory(err);
			break;
		}
	}
	cJSON_Delete(added);
	return status;
}

/* The added_tokens_decoder, or what stands for it in older directories. */
static enum status read_decoder(struct tokenizer_config *config, const struct place *model, const cJSON *tree, struct error *err)
{
	const cJSON *token, *decoder = member(config->json, "added_tokens_decoder");
	if (decoder && !cJSON_IsNull(decoder)) {
		if (!cJSON_IsObject(decoder))
			return error_set(err, STATUS_INVALID, "tokenizer_config.json: 'added_tokens_decoder' must be an object");
		config->decoder = cJSON_Duplicate(decoder, true);
		return config->decoder ? STATUS_OK : no_memory(err);
	}
	config->decoder = cJSON_CreateObject();
	if (!config->decoder) return no_memory(err);
	TRY(merge_special_tokens(config, model, err));
	TRY(decode_added_tokens(config, model, err));
	cJSON_ArrayForEach(token, member(tree, "added_tokens"))
	{
		const cJSON *id = member(token, "id");
		char key[24];
		if (!cJSON_IsNumber(id)) continue;
		snprintf(key, sizeof key, "%.0f", id->valuedouble);
		TRY(put_copy(config->decoder, key, token, err));
	}
	return STATUS_OK;
}

/* What must be true or false, where it is there. */
static enum status check_flags(struct tokenizer_config *config, struct error *err)
{
	static const char *const flags[] = {"add_bos_token", "add_prefix_space", "legacy", "split_special_tokens"};
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
		config->split_special = false;
		TRY(json_get_bool(config->json, "tokenizer_config.json", flags[i], &config->split_special, err));
	}
	return STATUS_OK;
}

enum status tokenizer_config_read(const struct place *model, const cJSON *tree, bool bytes, struct tokenizer_config *ret,
				  struct error *err)
{
	*ret = (struct tokenizer_config){0};
	cJSON *config;
	TRY(read_object(model, "tokenizer_config.json", &ret->json, err));
	if (!ret->json && !(ret->json = cJSON_CreateObject())) return no_memory(err);
	rename_extra(ret->json);
	TRY(read_object(model, "config.json", &config, err));
	const char *named = cJSON_GetStringValue(member(ret->json, "tokenizer_class"));
	if (!named) named = cJSON_GetStringValue(member(config, "tokenizer_class"));
	ret->class = tokenizer_class_choose(named, cJSON_GetStringValue(member(config, "model_type")), bytes, &ret->overruled);
	cJSON_Delete(config);
	TRY(read_decoder(ret, model, tree, err));
	return check_flags(ret, err);
}

void tokenizer_config_free(struct tokenizer_config *config)
{
	cJSON_Delete(config->json);
	cJSON_Delete(config->decoder);
	*config = (struct tokenizer_config){0};
}

static const char *default_token(const struct tokenizer_class *class, const char *key)
{
	const char *const tokens[ATTRIBUTES] = {class->bos, class->eos, class->unk, NULL, class->pad, NULL, class->mask};
	for (int i = 0; i < ATTRIBUTES; i++)
		if (strcmp(key, attributes[i]) == 0) return tokens[i];
	return NULL;
}

const char *tokenizer_config_token(const struct tokenizer_config *config, const char *key)
{
	const cJSON *token = member(config->json, key);
	return token ? token_text(token) : default_token(config->class, key); /* null: none at all */
}

bool tokenizer_config_flag(const struct tokenizer_config *config, const char *key, bool otherwise)
{
	const cJSON *flag = member(config->json, key);
	return cJSON_IsBool(flag) ? cJSON_IsTrue(flag) : otherwise;
}

/* ---- added tokens --------------------------------------------------------------------------------------------------------- */
struct collector {
	const struct tokenizer_config *config;
	struct string_map known;    /* contents that are there already */
	struct string_map appended; /* special tokens, with their flags */
	cJSON *tokens;
	struct error *err;
};

static enum status know(struct collector *collector, const char *text)
{
	return string_map_put(&collector->known, text, strlen(text), 0, collector->err);
}

static bool ends_with_token(const char *key)
{
	size_t length = strlen(key);
	return length > 6 && strcmp(key + length - 6, "_token") == 0;
}

/* Whether it is a special token that has a name, as "eos_token" or a model's own "image_token". */
static bool is_named(const struct tokenizer_config *config, const char *text)
{
	for (int i = 0; i < ATTRIBUTES; i++) {
		const char *named = tokenizer_config_token(config, attributes[i]);
		if (named && strcmp(named, text) == 0) return true;
	}
	const cJSON *item;
	cJSON_ArrayForEach(item, config->json)
	{
		const char *named = ends_with_token(item->string) ? token_text(item) : NULL;
		if (named && strcmp(named, text) == 0) return true;
	}
	return false;
}

/* Appends a token of the flags of `token` (an object), which is special if `special` says so or it has a name. */
static enum status append(struct collector *collector, const char *text, const cJSON *token, bool special)
{
	static const char *const flags[] = {"single_word", "lstrip", "rstrip"};
	cJSON *copy = cJSON_CreateObject();
	bool is_special = special || cJSON_IsTrue(member(token, "special")) || is_named(collector->config, text);
	const cJSON *normalized = member(token, "normalized");
	bool ok = copy && cJSON_AddStringToObject(copy, "content", text);
	for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
		ok = ok && cJSON_AddBoolToObject(copy, flags[i], cJSON_IsTrue(member(token, flags[i])));
	ok = ok && cJSON_AddBoolToObject(copy, "normalized", cJSON_IsBool(normalized) ? cJSON_IsTrue(normalized) : !is_special);
	ok = ok && cJSON_AddBoolToObject(copy, "special", is_special);
	if (ok && cJSON_AddItemToArray(collector->tokens, copy)) return STATUS_OK;
	cJSON_Delete(copy);
	return no_memory(collector->err);
}

/* Appends a special token unless the vocabulary's added tokens have it, or the very same has been appended. One of other flags
 * is, and its flags count. */
static enum status append_new(struct collector *collector, const cJSON *token, const char *text)
{
	if (!text || string_map_get(&collector->known, text, strlen(text)) >= 0) return STATUS_OK;
	struct text_buffer form = {0};
	enum status status = STATUS_OK;
	const char flags[] = {cJSON_IsObject(token) ? 'o' : 's', cJSON_IsTrue(member(token, "single_word")) ? '1' : '0',
			      cJSON_IsTrue(member(token, "lstrip")) ? '1' : '0', cJSON_IsTrue(member(token, "rstrip")) ? '1' : '0',
			      cJSON_IsTrue(member(token, "normalized")) ? '1' : '0'};
	status = text_append(&form, flags, sizeof flags, collector->err);
	if (status == STATUS_OK) status = text_append(&form, text, strlen(text), collector->err);
	if (status == STATUS_OK && string_map_get(&collector->appended, form.data, form.size) < 0) {
		status = append(collector, text, token, !cJSON_IsObject(token));
		if (status == STATUS_OK) status = string_map_put(&collector->appended, form.data, form.size, 0, collector->err);
	}
	text_buffer_free(&form);
	return status;
}

struct decoded {
	double id;
	const cJSON *token;
};

static int compare_decoded(const void *a, const void *b)
{
	const struct decoded *x = a, *y = b;
	return (x->id > y->id) - (x->id < y->id);
}

/* The decoder's tokens, by id. */
static enum status collect_decoded(struct collector *collector)
{
	const cJSON *token, *decoder = collector->config->decoder;
	size_t count = 0;
	struct decoded *decoded = calloc((size_t)cJSON_GetArraySize(decoder) + 1, sizeof *decoded);
	enum status status = decoded ? STATUS_OK : no_memory(collector->err);
	if (decoded) cJSON_ArrayForEach(token, decoder) decoded[count++] = (struct decoded){strtod(token->string, NULL), token};
	if (decoded) qsort(decoded, count, sizeof *decoded, compare_decoded);
	for (size_t i = 0; i < count && status == STATUS_OK; i++) {
		const char *text = token_text(decoded[i].token);
		if (!text || !cJSON_IsObject(decoded[i].token))
			status = error_set(collector->err, STATUS_INVALID,
					   "tokenizer_config.json: added_tokens_decoder '%.32s' must be an object with 'content'",
					   decoded[i].token->string);
		if (status == STATUS_OK) status = append(collector, text, decoded[i].token, false);
		if (status == STATUS_OK) status = know(collector, text);
	}
	free(decoded);
	return status;
}

/* Special tokens under names of the model's own, "image_token", or of the class. */
static enum status collect_own(struct collector *collector)
{
	const cJSON *item, *extra = member(collector->config->json, "extra_special_tokens");
	cJSON_ArrayForEach(item, collector->config->json)
	{
		bool attribute = false;
		for (int i = 0; i < ATTRIBUTES; i++)
			attribute = attribute || strcmp(item->string, attributes[i]) == 0;
		if (!attribute && ends_with_token(item->string)) TRY(append_new(collector, item, token_text(item)));
	}
	if (cJSON_IsObject(extra)) cJSON_ArrayForEach(item, extra) TRY(append_new(collector, item, token_text(item)));
	for (const char *const *own = collector->config->class->own; own && *own; own++)
		TRY(append_new(collector, NULL, *own));
	return STATUS_OK;
}

/* A class that adds its special tokens once more, as plain as can be. */
static enum status append_plain(struct collector *collector, const cJSON *extra)
{
	const cJSON *token;
	for (int i = 0; i < ATTRIBUTES; i++) {
		const char *text = tokenizer_config_token(collector->config, attributes[i]);
		if (text) TRY(append(collector, text, NULL, true));
	}
	cJSON_ArrayForEach(token, extra)
	{
		const char *text = token_text(token);
		if (text) TRY(append(collector, text, NULL, true));
	}
	return STATUS_OK;
}

static enum status collect(struct collector *collector, const cJSON *present, const cJSON *pieces)
{
	const struct tokenizer_config *config = collector->config;
	const cJSON *token, *extra = member(config->json, "extra_special_tokens");
	cJSON_ArrayForEach(token, present)
	{
		const char *text = token_text(token);
		if (text) TRY(know(collector, text));
	}
	TRY(collect_decoded(collector));
	for (int i = 0; i < ATTRIBUTES; i++)
		TRY(append_new(collector, member(config->json, attributes[i]), tokenizer_config_token(config, attributes[i])));
	TRY(collect_own(collector));
	if (!extra) extra = pieces ? pieces : member(config->json, "additional_special_tokens");
	if (!cJSON_IsArray(extra)) extra = NULL;
	cJSON_ArrayForEach(token, extra) TRY(append_new(collector, token, token_text(token)));
	return config->class->plain_special ? append_plain(collector, extra) : STATUS_OK;
}

enum status tokenizer_config_added(const struct tokenizer_config *config, const cJSON *present, const cJSON *pieces, cJSON **ret,
				   struct error *err)
{
	struct collector collector = {.config = config, .tokens = cJSON_CreateArray(), .err = err};
	enum status status = collector.tokens ? collect(&collector, present, pieces) : no_memory(err);
	string_map_free(&collector.known);
	string_map_free(&collector.appended);
	if (status != STATUS_OK) {
		cJSON_Delete(collector.tokens);
		return status;
	}
	*ret = collector.tokens;
	return STATUS_OK;
}
