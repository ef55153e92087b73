#include "engine/text/tokenizer_json.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/added_tokens.h"
#include "engine/text/component.h"
#include "engine/text/model.h"
#include "engine/text/normalize.h"
#include "engine/text/post_processor.h"
#include "engine/text/pretokenize.h"
#include "engine/text/unicode.h"
#include "engine/text/words.h"

struct tokenizer_json {
	struct normalizer *normalizer;
	struct pretokenizer *pretokenizer;
	struct model *model;
	struct added_tokens *added;
	int32_t bos;
	enum token_spelling spelling;
};

/* Whether a normalizer or pre-tokenizer is a ByteLevel, or has one in it. */
static bool spells_bytes(const cJSON *json)
{
	const cJSON *child;
	const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "type"));
	if (type && strcmp(type, "ByteLevel") == 0) return true;
	cJSON_ArrayForEach(child, json) if ((cJSON_IsObject(child) || cJSON_IsArray(child)) && spells_bytes(child)) return true;
	return false;
}

static enum token_spelling spelling_of(const cJSON *json)
{
	const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
	if (!model_takes_bytes(model) && !model_is_unigram(model)) return TOKENS_SPELL_OTHERWISE;
	bool bytes = spells_bytes(cJSON_GetObjectItemCaseSensitive(json, "normalizer")) ||
		     spells_bytes(cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer"));
	return bytes ? TOKENS_SPELL_BYTES : TOKENS_SPELL_SPACES;
}

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
static enum status load(struct tokenizer_json *tokenizer, const cJSON *json, const cJSON *more, bool split_special,
			const char *path, struct error *err)
{
	const char *version = "1.0";
	TRY(json_get_string(json, path, "version", &version, err));
	if (strcmp(version, "1.0") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: version '%.100s' is not supported", path, version);
	const cJSON *model = cJSON_GetObjectItemCaseSensitive(json, "model");
	bool keep_bytes = cJSON_IsObject(model) && model_takes_bytes(model);
	TRY(normalizer_parse(cJSON_GetObjectItemCaseSensitive(json, "normalizer"), path, &tokenizer->normalizer, err));
	TRY(pretokenizer_parse(cJSON_GetObjectItemCaseSensitive(json, "pre_tokenizer"), path, keep_bytes, &tokenizer->pretokenizer,
			       err));
	TRY(model_parse(model, path, pretokenizer_gives_bytes(tokenizer->pretokenizer), &tokenizer->model, err));
	TRY(added_tokens_parse(cJSON_GetObjectItemCaseSensitive(json, "added_tokens"), more, path, tokenizer->model,
			       tokenizer->normalizer, split_special, &tokenizer->added, err));
	tokenizer->spelling = spelling_of(json);
	return post_processor_parse(cJSON_GetObjectItemCaseSensitive(json, "post_processor"), path, &tokenizer->bos, err);
}

enum status tokenizer_json_load(const cJSON *json, const cJSON *more, bool split_special, const char *path,
				struct tokenizer_json **ret, struct error *err)
{
	struct tokenizer_json *tokenizer = calloc(1, sizeof *tokenizer);
	enum status status;
	if (!tokenizer)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to load %s", path);
	else if (!cJSON_IsObject(json))
		status = error_set(err, STATUS_INVALID, "%s: not a JSON object", path);
	else
		status = load(tokenizer, json, more, split_special, path, err);
	if (status != STATUS_OK) {
		tokenizer_json_free(tokenizer);
		return status;
	}
	*ret = tokenizer;
	return STATUS_OK;
}

void tokenizer_json_free(struct tokenizer_json *tokenizer)
{
	if (!tokenizer) return;
	added_tokens_free(tokenizer->added);
	model_free(tokenizer->model);
	pretokenizer_free(tokenizer->pretokenizer);
	normalizer_free(tokenizer->normalizer);
	free(tokenizer);
}

int64_t tokenizer_json_size(const struct tokenizer_json *tokenizer)
{
	int32_t added = added_tokens_largest_id(tokenizer->added), model = tokenizer->model->largest_id;
	return 1 + (int64_t)(added > model ? added : model);
}

int32_t tokenizer_json_bos(const struct tokenizer_json *tokenizer)
{
	return tokenizer->bos;
}

int32_t tokenizer_json_id(const struct tokenizer_json *tokenizer, const char *token)
{
	int32_t id = added_tokens_id(tokenizer->added, token);
	return id >= 0 ? id : string_map_get(&tokenizer->model->vocabulary, token, strlen(token));
}

bool tokenizer_json_name(const struct tokenizer_json *tokenizer, int32_t id, const char **ret_text, size_t *ret_bytes)
{
	return added_tokens_name(tokenizer->added, id, ret_text, ret_bytes) ||
	       string_map_find_value(&tokenizer->model->vocabulary, id, ret_text, ret_bytes);
}

enum token_spelling tokenizer_json_spelling(const struct tokenizer_json *tokenizer)
{
	return tokenizer->spelling;
}

bool tokenizer_json_added(const struct tokenizer_json *tokenizer, int32_t id, struct string_view *ret, bool *ret_special)
{
	return added_tokens_text(tokenizer->added, id, ret, ret_special);
}

void tokenizer_json_tokens(const struct tokenizer_json *tokenizer, struct string_view *ret, int64_t count)
{
	string_map_invert(&tokenizer->model->vocabulary, ret, count);
}

/* ---- encoding ------------------------------------------------------------------------------------------------------------- */
/* The way of a text: tokens found in it as it is, the rest normalized, tokens found in that, the rest cut into pieces, the model
 * on each. */
struct encoding {
	const struct tokenizer_json *tokenizer;
	struct normalize_run normalize;
	struct pretokenize_run *pretokenize;
	void *scratch; /* the model's */
	struct words words;
	bool first; /* the normalized text at hand starts where the whole text does */
};

static enum status on_id(void *arg, int32_t id, struct error *err)
{
	struct encoding *encoding = arg;
	return words_id(&encoding->words, id, err);
}

static enum status on_piece(void *arg, const char *text, size_t bytes, struct error *err)
{
	struct encoding *encoding = arg;
	return encoding->tokenizer->model->kind->encode(encoding->scratch, &encoding->words, text, bytes, err);
}

static enum status on_normalized(void *arg, const char *text, size_t bytes, bool first, struct error *err)
{
	struct encoding *encoding = arg;
	return pretokenize(encoding->pretokenize, text, bytes, encoding->first && first, err);
}

static enum status on_text(void *arg, const char *text, size_t bytes, bool first, struct error *err)
{
	struct encoding *encoding = arg;
	struct added_sink sink = {on_normalized, on_id, encoding};
	encoding->first = first;
	TRY(normalize(encoding->tokenizer->normalizer, &encoding->normalize, text, bytes, &text, &bytes, &encoding->first, err));
	if (bytes == 0) return STATUS_OK;
	return added_tokens_split(encoding->tokenizer->added, true, text, bytes, &sink, err);
}

enum status tokenizer_json_encode(const struct tokenizer_json *tokenizer, const char *text, size_t bytes, int32_t **ret_ids,
				  size_t *ret_count, struct error *err)
{
	char *repaired = NULL;
	if (bytes == 0) text = ""; /* may be NULL */
	if (!utf8_valid(text, bytes)) {
		TRY(utf8_repair(text, bytes, &repaired, &bytes, err));
		text = repaired;
	}
	const struct model *model = tokenizer->model;
	struct encoding encoding = {.tokenizer = tokenizer};
	struct added_sink sink = {on_text, on_id, &encoding};
	enum status status = words_new(bytes, &encoding.words, err);
	if (status == STATUS_OK) status = model->kind->scratch_new(model, &encoding.scratch, err);
	if (status == STATUS_OK)
		status = pretokenize_run_new(tokenizer->pretokenizer, on_piece, &encoding, &encoding.pretokenize, err);
	if (status == STATUS_OK) status = added_tokens_split(tokenizer->added, false, text, bytes, &sink, err);
	if (status == STATUS_OK) words_take(&encoding.words, ret_ids, ret_count);
	words_free(&encoding.words);
	model->kind->scratch_free(encoding.scratch);
	pretokenize_run_free(encoding.pretokenize);
	normalize_run_free(&encoding.normalize);
	free(repaired);
	return status;
}
