#include "engine/export/vocabulary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/lfs.h"
#include "base/text.h"
#include "engine/export/pre_tokenizer.h"

enum { MAX_FILE_BYTES = 256 << 20 };

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for a vocabulary");
}

/* ---- files ----------------------------------------------------------------------------------------------------------------- */

/* *ret stays NULL where the file is not there. */
static enum status read_text(const struct place *model, const char *name, char **ret, size_t *ret_bytes, struct error *err)
{
	bool there;
	TRY(place_look(model, name, &there, err));
	if (!there) return STATUS_OK;
	TRY(place_slurp(model, name, MAX_FILE_BYTES, ret, ret_bytes, err));
	return is_lfs_pointer(*ret, *ret_bytes) ? lfs_pointer_error(name, err) : STATUS_OK;
}

static enum status read_object(const struct place *model, const char *name, cJSON **ret, struct error *err)
{
	char *text = NULL;
	size_t bytes = 0;
	enum status status = read_text(model, name, &text, &bytes, err);
	if (status == STATUS_OK && text) status = json_parse_python(text, bytes, name, ret, err);
	free(text);
	if (status == STATUS_OK && *ret && !cJSON_IsObject(*ret))
		status = error_set(err, STATUS_INVALID, "%s: not a JSON object", name);
	return status;
}

enum status tokenizer_files_read(const struct place *model, struct tokenizer_files *ret, struct error *err)
{
	size_t bytes = 0;
	*ret = (struct tokenizer_files){0};
	TRY(read_object(model, "tokenizer.json", &ret->json, err));
	TRY(read_object(model, "tokenizer_config.json", &ret->config, err));
	TRY(read_object(model, "added_tokens.json", &ret->added, err));
	TRY(read_object(model, "config.json", &ret->model_config, err));
	TRY(read_text(model, "tokenizer.model", &ret->model, &ret->model_bytes, err));
	TRY(read_text(model, "chat_template.jinja", &ret->template, &bytes, err));
	if (ret->template && (!utf8_valid(ret->template, bytes) || strlen(ret->template) != bytes))
		return error_set(err, STATUS_INVALID, "chat_template.jinja: not text in UTF-8");
	return STATUS_OK;
}

void tokenizer_files_free(struct tokenizer_files *files)
{
	cJSON_Delete(files->json);
	cJSON_Delete(files->config);
	cJSON_Delete(files->added);
	cJSON_Delete(files->model_config);
	free(files->model);
	free(files->template);
	*files = (struct tokenizer_files){0};
}

/* ---- tokens ---------------------------------------------------------------------------------------------------------------- */

enum status vocabulary_set(struct vocabulary *vocabulary, int64_t id, const char *text, enum token_type type, float score,
			   struct error *err)
{
	if (id < 0) return error_set(err, STATUS_INVALID, "the token '%.64s' has the id %" PRId64, text, id);
	if (id >= vocabulary->size) {
		vocabulary->beyond++;
		return STATUS_OK;
	}
	struct token *token = &vocabulary->tokens[id];
	char *copy = strdup(text);
	if (!copy) return no_memory(err);
	free(token->text);
	*token = (struct token){copy, score, type};
	return STATUS_OK;
}

/* As the converter's does_token_look_special. */
static bool looks_special(const char *text)
{
	static const char *const special[] = {"<pad>", "<mask>", "<2mass>", "[@BOS@]"};
	static const char *const around[][2] = {{"<|", "|>"}, {"<｜", "｜>"}, {"<unused", ">"}};
	for (size_t i = 0; i < sizeof special / sizeof *special; i++)
		if (strcmp(text, special[i]) == 0) return true;
	for (size_t i = 0; i < sizeof around / sizeof *around; i++)
		if (text_starts_with(text, around[i][0]) && text_ends_with(text, around[i][1])) return true;
	return false;
}

enum status vocabulary_set_added(struct vocabulary *vocabulary, int64_t id, const char *text, bool special, float score,
				 struct error *err)
{
	static const char mark[] = "▁";
	if (special || looks_special(text)) return vocabulary_set(vocabulary, id, text, TOKEN_CONTROL, score, err);
	struct buffer spelled = {0};
	for (const char *at = text; *at;) {
		bool is_mark = text_starts_with(at, mark);
		buffer_append(&spelled, is_mark ? " " : at, 1);
		at += is_mark ? sizeof mark - 1 : 1;
	}
	enum status status =
		spelled.failed ? no_memory(err)
			       : vocabulary_set(vocabulary, id, spelled.data ? spelled.data : "", TOKEN_USER_DEFINED, score, err);
	buffer_free(&spelled);
	return status;
}

static void add_tokens(struct gguf *gguf, const struct vocabulary *vocabulary, bool scores)
{
	uint64_t size = (uint64_t)vocabulary->size;
	gguf_array(gguf, "tokenizer.ggml.tokens", GGUF_TEXT, size);
	for (int64_t id = 0; id < vocabulary->size; id++) {
		char unused[32];
		snprintf(unused, sizeof unused, "[PAD%" PRId64 "]", id);
		const char *text = vocabulary->tokens[id].text ? vocabulary->tokens[id].text : unused;
		gguf_add_text(gguf, text, strlen(text));
	}
	if (scores) gguf_array(gguf, "tokenizer.ggml.scores", GGUF_F32, size);
	for (int64_t id = 0; scores && id < vocabulary->size; id++)
		gguf_add_f32(gguf, vocabulary->tokens[id].text ? vocabulary->tokens[id].score : -10000);
	gguf_array(gguf, "tokenizer.ggml.token_type", GGUF_I32, size);
	for (int64_t id = 0; id < vocabulary->size; id++)
		gguf_add_i32(gguf, (int32_t)(vocabulary->tokens[id].text ? vocabulary->tokens[id].type : TOKEN_UNUSED));
}

/* ---- merges ---------------------------------------------------------------------------------------------------------------- */

/* A space within a merge would be the one between its parts: it is written as the byte it stands for. */
static void spell_part(struct buffer *buffer, const char *part)
{
	for (; *part; part++)
		buffer_append(buffer, *part == ' ' ? "Ġ" : part, *part == ' ' ? strlen("Ġ") : 1);
}

static enum status add_merges(struct gguf *gguf, const cJSON *merges, struct error *err)
{
	const cJSON *merge;
	gguf_array(gguf, "tokenizer.ggml.merges", GGUF_TEXT, (uint64_t)cJSON_GetArraySize(merges));
	cJSON_ArrayForEach(merge, merges)
	{
		struct buffer text = {0};
		const char *left = cJSON_GetStringValue(cJSON_GetArrayItem(merge, 0));
		const char *right = cJSON_GetStringValue(cJSON_GetArrayItem(merge, 1));
		if (cJSON_IsString(merge)) {
			gguf_add_text(gguf, merge->valuestring, strlen(merge->valuestring));
			continue;
		}
		if (!left || !right || cJSON_GetArraySize(merge) != 2)
			return error_set(err, STATUS_INVALID, "tokenizer.json: a merge is neither a text nor two");
		spell_part(&text, left);
		buffer_append(&text, " ", 1);
		spell_part(&text, right);
		if (text.failed) gguf->no_memory = true;
		gguf_add_text(gguf, text.data, text.size);
		buffer_free(&text);
	}
	return STATUS_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------- */

static enum status add_byte_level(struct gguf *gguf, const struct place *model, const struct vocabulary *vocabulary,
				  const struct tokenizer_files *files, struct warnings *warnings, enum placed *ret_bos,
				  struct error *err)
{
	const char *pre;
	struct tokenizer *tokenizer;
	TRY(tokenizer_load(model, vocabulary->size, NULL, &tokenizer, err));
	enum status status = pre_tokenizer_name(tokenizer, &pre, err);
	*ret_bos = tokenizer_bos(tokenizer) >= 0 ? PLACED : PLACED_NOT;
	tokenizer_free(tokenizer);
	TRY(status);
	if (!pre)
		warnings_add(warnings, "llama.cpp knows tokenizers by name, and this is none that its converter knows: "
				       "'tokenizer.ggml.pre' of the "
				       "GGUF is \"default\", and text may be split otherwise there than here");
	gguf_text(gguf, "tokenizer.ggml.model", "gpt2");
	gguf_text(gguf, "tokenizer.ggml.pre", pre ? pre : "default");
	add_tokens(gguf, vocabulary, false);
	return add_merges(gguf, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(files->json, "model"), "merges"),
			  err);
}

static enum status add(struct gguf *gguf, const struct place *model, struct vocabulary *vocabulary,
		       const struct tokenizer_files *files, struct warnings *warnings, struct error *err)
{
	enum placed bos = PLACED_UNKNOWN;
	if (files->model) {
		TRY(vocabulary_from_model(vocabulary, files, err));
		gguf_text(gguf, "tokenizer.ggml.model", "llama");
		gguf_text(gguf, "tokenizer.ggml.pre", "default");
		add_tokens(gguf, vocabulary, true);
	} else {
		TRY(vocabulary_from_json(vocabulary, files, model, err));
		TRY(add_byte_level(gguf, model, vocabulary, files, warnings, &bos, err));
	}
	if (vocabulary->beyond)
		warnings_add(warnings,
			     "%" PRId64 " tokens have ids beyond the %" PRId64 " rows of the embeddings: the GGUF is without them",
			     vocabulary->beyond, vocabulary->size);
	special_tokens_add(gguf, files, vocabulary->size, bos);
	return STATUS_OK;
}

enum status vocabulary_add(struct gguf *gguf, const struct place *model, const struct tokenizer_files *files, int64_t vocab,
			   struct warnings *warnings, struct error *err)
{
	struct vocabulary vocabulary = {calloc((size_t)vocab, sizeof *vocabulary.tokens), vocab, 0};
	if (!vocabulary.tokens) return no_memory(err);
	enum status status = add(gguf, model, &vocabulary, files, warnings, err);
	for (int64_t id = 0; id < vocab; id++)
		free(vocabulary.tokens[id].text);
	free(vocabulary.tokens);
	return status;
}
