#include "engine/text/tokenizer.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/lfs.h"
#include "engine/text/sentencepiece.h"
#include "engine/text/tokenizer_config.h"
#include "engine/text/tokenizer_json.h"

enum { MAX_FILE_BYTES = 256 << 20 };
static const char JSON[] = "tokenizer.json", MODEL[] = "tokenizer.model";

struct tokenizer {
	struct tokenizer_json *parts;
	int32_t bos;
	int64_t vocab;
	char *path; /* of the file it is from */
};

/* What is loaded from, and what it told. */
struct loader {
	const struct place *model;
	struct warnings *warnings;
	struct tokenizer *tokenizer;
	bool damaged; /* the tokenizer.json itself does not parse: another file may stand in */
};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for a tokenizer");
}

/* The content of the file `name` of the directory, whose path is `path`. */
static enum status read_file(const struct loader *loader, const char *name, const char *path, char **ret, size_t *ret_bytes,
			     struct error *err)
{
	TRY(place_slurp(loader->model, name, MAX_FILE_BYTES, ret, ret_bytes, err));
	if (!is_lfs_pointer(*ret, *ret_bytes)) return STATUS_OK;
	free(*ret);
	return lfs_pointer_error(path, err);
}

/* The BOS that a class or the config asks for, or -1. */
static enum status class_bos(const struct tokenizer_config *config, const struct tokenizer_json *parts, bool add, int32_t *ret,
			     struct error *err)
{
	const char *token = add ? tokenizer_config_token(config, "bos_token") : NULL;
	*ret = token ? tokenizer_json_id(parts, token) : -1;
	if (!token || *ret >= 0) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "tokenizer_config.json: 'bos_token' '%.64s' is not in the vocabulary", token);
}

/* ---- tokenizer.json ------------------------------------------------------------------------------------------------------- */
static enum status build_json(struct loader *loader, const struct tokenizer_config *config, cJSON *tree, const char *path,
			      struct error *err)
{
	const struct tokenizer_class *class = config->class;
	struct tokenizer *tokenizer = loader->tokenizer;
	cJSON *added;
	if (class->known)
		TRY(tokenizer_class_rebuild(config, tree, err));
	else if (class->rebuilt)
		warnings_add(
			loader->warnings,
			"%s: transformers would build a new %s, which tokenizer_config.json names; this file is taken as it is",
			path, class->name);
	if (config->overruled && !tokenizer_class_splits_alike(config->overruled, tree))
		warnings_add(loader->warnings, "%s: splits text otherwise than %s, which transformers takes for this model type",
			     path, config->overruled->name);
	TRY(tokenizer_config_added(config, cJSON_GetObjectItemCaseSensitive(tree, "added_tokens"), NULL, &added, err));
	enum status status = tokenizer_json_load(tree, added, config->split_special, path, &tokenizer->parts, err);
	cJSON_Delete(added);
	TRY(status);
	tokenizer->bos = tokenizer_json_bos(tokenizer->parts);
	if (class->post == POST_FILE) return STATUS_OK;
	return class_bos(config, tokenizer->parts, class->post == POST_BOS, &tokenizer->bos, err);
}

static enum status load_json(struct loader *loader, const char *path, struct error *err)
{
	char *text;
	size_t bytes;
	cJSON *tree = NULL;
	loader->damaged = true;
	TRY(read_file(loader, JSON, path, &text, &bytes, err));
	bool names_bytes = memmem(text, bytes, "\"ByteLevel\"", 11) != NULL;
	enum status status = json_parse(text, bytes, path, &tree, err);
	free(text);
	TRY(status);
	struct tokenizer_config config;
	loader->damaged = false;
	status = tokenizer_config_read(loader->model, tree, names_bytes, &config, err);
	if (status == STATUS_OK) {
		status = build_json(loader, &config, tree, path, err);
		loader->damaged = status == STATUS_INVALID;
	}
	tokenizer_config_free(&config);
	cJSON_Delete(tree);
	return status;
}

/* ---- tokenizer.model ------------------------------------------------------------------------------------------------------ */
/* The control pieces, and unless `only_control` the user-defined ones, as added tokens. */
static enum status list_pieces(const struct sentencepiece *model, bool only_control, cJSON **ret, struct error *err)
{
	cJSON *list = cJSON_CreateArray();
	bool ok = list != NULL;
	for (size_t i = 0; i < model->count && ok; i++) {
		bool control = model->pieces[i].type == PIECE_CONTROL;
		if (!control && (only_control || model->pieces[i].type != PIECE_USER_DEFINED)) continue;
		cJSON *token = cJSON_CreateObject();
		ok = token && cJSON_AddStringToObject(token, "content", model->pieces[i].text) &&
		     cJSON_AddFalseToObject(token, "normalized") && cJSON_AddBoolToObject(token, "special", control) &&
		     cJSON_AddItemToArray(list, token);
		if (!ok) cJSON_Delete(token);
	}
	if (!ok) {
		cJSON_Delete(list);
		return error_set(err, STATUS_NO_MEMORY, "no memory to load a SentencePiece model");
	}
	*ret = list;
	return STATUS_OK;
}

/* Where the config does not name a special token, the model does. */
static enum status name_token(struct tokenizer_config *config, const char *key, int64_t id, const char *piece, struct error *err)
{
	if (id < 0 || cJSON_GetObjectItemCaseSensitive(config->json, key) || cJSON_AddStringToObject(config->json, key, piece))
		return STATUS_OK;
	return error_set(err, STATUS_NO_MEMORY, "no memory to load a SentencePiece model");
}

/* Added tokens are found in the text as it is, so that what is between them gets its own prefix. */
static void match_raw(cJSON *decoder)
{
	cJSON *token;
	cJSON_ArrayForEach(token, decoder)
	{
		cJSON *normalized = cJSON_GetObjectItemCaseSensitive(token, "normalized");
		if (cJSON_IsObject(token) && (!normalized || cJSON_IsTrue(normalized))) {
			cJSON_DeleteItemFromObjectCaseSensitive(token, "normalized");
			cJSON_AddFalseToObject(token, "normalized");
		}
	}
}

/* As TokenizersBackend does. */
static enum status convert_by_settings(const struct sentencepiece *model, struct tokenizer_config *config, cJSON **ret,
				       struct error *err)
{
	if (model->dummy_prefix) match_raw(config->decoder);
	TRY(name_token(config, "bos_token", model->bos_id, model->bos_piece, err));
	TRY(name_token(config, "eos_token", model->eos_id, model->eos_piece, err));
	TRY(name_token(config, "unk_token", model->unk_id, model->unk_piece, err));
	return sentencepiece_to_tree(model, tokenizer_config_flag(config, "legacy", true), config->decoder, ret, err);
}

/* As one of the classes does. */
static enum status convert_by_class(const struct sentencepiece *model, const struct tokenizer_config *config, cJSON **ret,
				    struct error *err)
{
	cJSON *tree;
	TRY(sentencepiece_to_class(model, &tree, err));
	enum status status = tokenizer_class_rebuild(config, tree, err);
	if (status == STATUS_OK)
		*ret = tree;
	else
		cJSON_Delete(tree);
	return status;
}

static enum status build_model(struct loader *loader, const struct sentencepiece *model, struct tokenizer_config *config,
			       const char *path, struct error *err)
{
	const struct tokenizer_class *class = config->class;
	struct tokenizer *tokenizer = loader->tokenizer;
	cJSON *tree = NULL, *pieces = NULL, *added = NULL;
	if (class->rebuilt && !class->known)
		return error_set(err, STATUS_UNSUPPORTED, "%s: a %s is not supported without a tokenizer.json", path, class->name);
	enum status status =
		class->known ? convert_by_class(model, config, &tree, err) : convert_by_settings(model, config, &tree, err);
	if (status == STATUS_OK) status = list_pieces(model, !class->known, &pieces, err);
	if (status == STATUS_OK) status = tokenizer_config_added(config, NULL, pieces, &added, err);
	if (status == STATUS_OK) status = tokenizer_json_load(tree, added, config->split_special, path, &tokenizer->parts, err);
	cJSON_Delete(tree);
	cJSON_Delete(pieces);
	cJSON_Delete(added);
	TRY(status);
	bool add = class->post != POST_NOTHING && tokenizer_config_flag(config, "add_bos_token", class->post == POST_BOS);
	return class_bos(config, tokenizer->parts, add, &tokenizer->bos, err);
}

static enum status load_model(struct loader *loader, const char *path, struct error *err)
{
	char *bytes;
	size_t size;
	struct sentencepiece model;
	struct tokenizer_config config = {0};
	TRY(read_file(loader, MODEL, path, &bytes, &size, err));
	enum status status = sentencepiece_read(bytes, size, path, &model, err);
	free(bytes);
	if (status == STATUS_OK) status = tokenizer_config_read(loader->model, NULL, false, &config, err);
	if (status == STATUS_OK) status = build_model(loader, &model, &config, path, err);
	tokenizer_config_free(&config);
	sentencepiece_free(&model);
	return status;
}

/* ---- the choice ----------------------------------------------------------------------------------------------------------- */
/* tokenizer.json does not parse: tokenizer.model may do instead. */
static enum status load_other(struct loader *loader, const char *model, struct error *err)
{
	struct error first = *err, second;
	tokenizer_json_free(loader->tokenizer->parts);
	loader->tokenizer->parts = NULL;
	if (load_model(loader, model, &second) != STATUS_OK)
		return error_set(err, first.status, "%.900s; nor does the other file serve: %.900s", first.message, second.message);
	warnings_add(loader->warnings, "%s; the tokenizer is from tokenizer.model", first.message);
	return STATUS_OK;
}

static enum status load(struct loader *loader, const char *json, const char *model, struct error *err)
{
	struct tokenizer *tokenizer = loader->tokenizer;
	bool has_model, has_json;
	const char *path = json;
	TRY(place_look(loader->model, MODEL, &has_model, err));
	TRY(place_look(loader->model, JSON, &has_json, err));
	if (has_json) {
		enum status status = load_json(loader, json, err);
		if (status != STATUS_OK && loader->damaged && has_model) {
			path = model;
			status = load_other(loader, model, err);
		}
		TRY(status);
	} else if (has_model) {
		path = model;
		TRY(load_model(loader, model, err));
	} else {
		return error_set(err, STATUS_NOT_FOUND, "%s: is not there, nor is a tokenizer.model", json);
	}
	tokenizer->path = strdup(path);
	if (!tokenizer->path) return no_memory(err);
	if (tokenizer->bos >= tokenizer_json_size(tokenizer->parts))
		return error_set(err, STATUS_INVALID,
				 "%s: the token in front of a text has the id %d, but the vocabulary %" PRId64 " ids", path,
				 tokenizer->bos, tokenizer_json_size(tokenizer->parts));
	if (tokenizer->bos < tokenizer->vocab) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: the token in front of a text has the id %d, but the model's embedding has %" PRId64 " rows", path,
			 tokenizer->bos, tokenizer->vocab);
}

enum status tokenizer_load(const struct place *model, int64_t vocab, struct warnings *warnings, struct tokenizer **ret,
			   struct error *err)
{
	struct tokenizer *tokenizer = calloc(1, sizeof *tokenizer);
	struct loader loader = {.model = model, .warnings = warnings, .tokenizer = tokenizer};
	char *json_path = place_text(model, JSON), *model_path = place_text(model, MODEL);
	enum status status;
	if (!tokenizer || !json_path || !model_path) {
		status = no_memory(err);
	} else {
		tokenizer->vocab = vocab;
		status = load(&loader, json_path, model_path, err);
	}
	free(json_path);
	free(model_path);
	if (status != STATUS_OK) {
		tokenizer_free(tokenizer);
		return status;
	}
	*ret = tokenizer;
	return STATUS_OK;
}

void tokenizer_free(struct tokenizer *tokenizer)
{
	if (!tokenizer) return;
	tokenizer_json_free(tokenizer->parts);
	free(tokenizer->path);
	free(tokenizer);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------- */
static enum status beyond(const struct tokenizer *tokenizer, int32_t id, struct error *err)
{
	const char *text = "?";
	size_t bytes = 1;
	tokenizer_json_name(tokenizer->parts, id, &text, &bytes);
	return error_set(err, STATUS_INVALID,
			 "%s: the text holds the token '%.*s' of id %d, but the model's embedding has %" PRId64 " rows",
			 tokenizer->path, (int)(bytes < 64 ? bytes : 64), text, id, tokenizer->vocab);
}

enum status tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int32_t **ret_ids,
			     size_t *ret_count, struct error *err)
{
	int32_t *ids;
	size_t count;
	TRY(tokenizer_json_encode(tokenizer->parts, text, bytes, &ids, &count, err));
	for (size_t i = 0; i < count; i++)
		if (ids[i] >= tokenizer->vocab) {
			enum status status = beyond(tokenizer, ids[i], err);
			free(ids);
			return status;
		}
	*ret_ids = ids;
	*ret_count = count;
	return STATUS_OK;
}

int32_t tokenizer_bos(const struct tokenizer *tokenizer)
{
	return tokenizer->bos;
}

const struct tokenizer_json *tokenizer_parts(const struct tokenizer *tokenizer)
{
	return tokenizer->parts;
}
