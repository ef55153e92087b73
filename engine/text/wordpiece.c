/* WordPiece: a word is cut into the longest tokens from its start, those within it with a prefix; and WordLevel: a word is a
 * token. */
#include <stdlib.h>
#include <string.h>

#include "engine/text/component.h"
#include "engine/text/model.h"
#include "engine/text/text_buffer.h"
#include "engine/text/unicode.h"

struct wordpiece {
	struct model base;
	char *prefix;         /* of tokens within a word */
	int64_t longest_word; /* characters; longer ones are unknown */
	int32_t unk;          /* -1: the vocabulary lacks it */
};

struct scratch {
	const struct wordpiece *model;
	struct text_buffer word; /* behind room for the prefix */
};

static enum status add_unknown(const struct wordpiece *model, struct words *words, struct error *err)
{
	if (model->unk < 0)
		return error_set(err, STATUS_INVALID, "the tokenizer's unk_token, which the text needs, is not in its vocabulary");
	return words_id(words, model->unk, err);
}

static bool is_too_long(const struct wordpiece *model, const char *text, size_t bytes)
{
	int64_t characters = 0;
	for (size_t i = 0; i < bytes; i++)
		characters += (text[i] & 0xc0) != 0x80;
	return characters > model->longest_word;
}

/* The end of the longest token that starts at `start` of the word, which lies behind room for the prefix; 0 for none. */
static size_t longest_token(const struct wordpiece *model, char *room, size_t start, size_t bytes, int32_t *ret_id)
{
	size_t prefix = strlen(model->prefix);
	char *word = room + prefix, *key = word + start;
	if (start > 0) {
		key -= prefix; /* over what has been cut off already */
		memcpy(key, model->prefix, prefix);
	}
	size_t end = bytes, most = (size_t)(word + start - key) + model->base.longest;
	if (end - start > most) {
		end = start + most;
		while (end > start && (word[end] & 0xc0) == 0x80)
			end--;
	}
	for (; end > start; end = (size_t)(utf8_previous(word + end) - word)) {
		*ret_id = string_map_get(&model->base.vocabulary, key, (size_t)(word + end - key));
		if (*ret_id >= 0) return end;
	}
	return 0;
}

static enum status encode_word(void *arg, struct words *words, const char *text, size_t bytes, struct error *err)
{
	struct scratch *scratch = arg;
	const struct wordpiece *model = scratch->model;
	if (is_too_long(model, text, bytes)) return add_unknown(model, words, err);
	scratch->word.size = 0;
	TRY(text_append(&scratch->word, model->prefix, strlen(model->prefix), err));
	TRY(text_append(&scratch->word, text, bytes, err));
	size_t before = words->count;
	for (size_t start = 0; start < bytes;) {
		int32_t id;
		start = longest_token(model, scratch->word.data, start, bytes, &id);
		if (start == 0) {
			words->count = before;
			return add_unknown(model, words, err);
		}
		TRY(words_id(words, id, err));
	}
	return STATUS_OK;
}

static enum status encode_wordpiece(void *scratch, struct words *words, const char *text, size_t bytes, struct error *err)
{
	return words_encode(words, text, bytes, encode_word, scratch, err);
}

static enum status encode_wordlevel(void *arg, struct words *words, const char *text, size_t bytes, struct error *err)
{
	const struct scratch *scratch = arg;
	int32_t id = string_map_get(&scratch->model->base.vocabulary, text, bytes);
	return id >= 0 ? words_id(words, id, err) : add_unknown(scratch->model, words, err);
}

static enum status scratch_new(const struct model *model, void **ret, struct error *err)
{
	struct scratch *scratch = calloc(1, sizeof *scratch);
	if (!scratch) return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	scratch->model = (const struct wordpiece *)model;
	*ret = scratch;
	return STATUS_OK;
}

static void scratch_free(void *arg)
{
	struct scratch *scratch = arg;
	if (!scratch) return;
	text_buffer_free(&scratch->word);
	free(scratch);
}

static void free_model(struct model *base)
{
	string_map_free(&base->vocabulary);
	free(((struct wordpiece *)base)->prefix);
	free(base);
}

static enum status parse(struct wordpiece *model, const cJSON *json, const char *what, bool pieces, struct error *err)
{
	static const char *const piece_keys[] = {"unk_token", "continuing_subword_prefix", "max_input_chars_per_word", "vocab",
						 NULL};
	static const char *const level_keys[] = {"unk_token", "vocab", NULL};
	const char *unk, *prefix = "##";
	TRY(component_only(json, what, pieces ? piece_keys : level_keys, err));
	TRY(model_parse_vocabulary(&model->base, json, what, err));
	TRY(component_string(json, what, "unk_token", &unk, err));
	model->unk = string_map_get(&model->base.vocabulary, unk, strlen(unk));
	model->longest_word = 100;
	TRY(json_get_string(json, what, "continuing_subword_prefix", &prefix, err));
	TRY(json_get_int(json, what, "max_input_chars_per_word", 0, INT64_C(1) << 53, &model->longest_word, err));
	model->prefix = strdup(prefix);
	return model->prefix ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

static enum status load(const cJSON *json, const char *what, const struct model_kind *kind, bool pieces, struct model **ret,
			struct error *err)
{
	struct wordpiece *model = calloc(1, sizeof *model);
	if (!model) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	model->base.kind = kind;
	enum status status = parse(model, json, what, pieces, err);
	if (status != STATUS_OK) {
		free_model(&model->base);
		return status;
	}
	*ret = &model->base;
	return STATUS_OK;
}

enum status wordpiece_parse(const cJSON *json, const char *what, struct model **ret, struct error *err)
{
	static const struct model_kind kind = {free_model, scratch_new, scratch_free, encode_wordpiece};
	return load(json, what, &kind, true, ret, err);
}

enum status wordlevel_parse(const cJSON *json, const char *what, struct model **ret, struct error *err)
{
	static const struct model_kind kind = {free_model, scratch_new, scratch_free, encode_wordlevel};
	return load(json, what, &kind, false, ret, err);
}
