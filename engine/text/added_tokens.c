#include "engine/text/added_tokens.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/component.h"
#include "engine/text/unicode.h"

struct added_token {
	char *text; /* what is looked for */
	size_t bytes;
	int32_t id;
	bool single_word, lstrip, rstrip, normalized, special;
};

/* Tokens in the order of their bytes; those that start with byte b are [first[b], first[b + 1]). */
struct token_set {
	struct added_token *tokens;
	size_t count, first[257];
};

struct added_tokens {
	struct token_set sets[2]; /* [normalized] */
	int32_t largest_id;
	bool split_special;
};

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
struct loader {
	const struct model *model;
	const struct normalizer *normalizer;
	struct normalize_run run;
	struct string_map places; /* content to its place in `tokens` */
	struct added_token *tokens;
	size_t count, capacity;
	int32_t next_id;
};

static enum status parse_token(struct loader *loader, const cJSON *json, const char *what, struct error *err)
{
	static const char *const keys[] = {"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL};
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "%s must be an object", what);
	TRY(component_only(json, what, keys, err));
	struct added_token token = {0};
	const char *content;
	TRY(component_string(json, what, "content", &content, err));
	TRY(json_get_bool(json, what, "special", &token.special, err));
	token.normalized = !token.special;
	TRY(json_get_bool(json, what, "normalized", &token.normalized, err));
	TRY(json_get_bool(json, what, "single_word", &token.single_word, err));
	TRY(json_get_bool(json, what, "lstrip", &token.lstrip, err));
	TRY(json_get_bool(json, what, "rstrip", &token.rstrip, err));
	size_t bytes = strlen(content);
	if (bytes == 0) return STATUS_OK;

	int32_t place = string_map_get(&loader->places, content, bytes);
	if (place >= 0) {
		token.id = loader->tokens[place].id;
	} else {
		token.id = string_map_get(&loader->model->vocabulary, content, bytes);
		if (token.id < 0) token.id = loader->next_id++;
		place = (int32_t)loader->count;
		TRY(string_map_put(&loader->places, content, bytes, place, err));
	}
	const char *text = content;
	bool first = true;
	if (token.normalized) TRY(normalize(loader->normalizer, &loader->run, content, bytes, &text, &bytes, &first, err));
	if (bytes == 0) return error_set(err, STATUS_INVALID, "%s: '%.100s' normalized is empty", what, content);
	token.text = malloc(bytes);
	if (!token.text) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	memcpy(token.text, text, bytes);
	token.bytes = bytes;
	if ((size_t)place == loader->count)
		loader->count++;
	else
		free(loader->tokens[place].text);
	loader->tokens[place] = token;
	return STATUS_OK;
}

static int compare(const void *a, const void *b)
{
	const struct added_token *x = a, *y = b;
	size_t shared = x->bytes < y->bytes ? x->bytes : y->bytes;
	int order = memcmp(x->text, y->text, shared);
	return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Moves the tokens that are normalized, or are not, into their set. */
static enum status fill_set(struct token_set *set, struct loader *loader, bool normalized, const char *what, struct error *err)
{
	set->tokens = calloc(loader->count + 1, sizeof *set->tokens);
	if (!set->tokens) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	for (size_t i = 0; i < loader->count; i++)
		if (loader->tokens[i].normalized == normalized) {
			set->tokens[set->count++] = loader->tokens[i];
			loader->tokens[i].text = NULL;
		}
	qsort(set->tokens, set->count, sizeof *set->tokens, compare);
	for (size_t i = 1; i < set->count; i++)
		if (compare(&set->tokens[i - 1], &set->tokens[i]) == 0)
			return error_set(err, STATUS_INVALID, "%s: tokens %d and %d are the same when normalized", what,
					 set->tokens[i - 1].id, set->tokens[i].id);
	size_t at = 0;
	for (int byte = 0; byte <= 256; byte++) {
		while (at < set->count && (unsigned char)set->tokens[at].text[0] < byte)
			at++;
		set->first[byte] = at;
	}
	return STATUS_OK;
}

/* Reads one array. The ids of tokens that the vocabulary lacks start behind it, or behind those that were added before. */
static enum status parse_tokens(struct loader *loader, const cJSON *json, const char *what, struct error *err)
{
	if (!json || cJSON_IsNull(json)) return STATUS_OK;
	if (!cJSON_IsArray(json)) return error_set(err, STATUS_INVALID, "%s must be an array", what);
	size_t more = (size_t)cJSON_GetArraySize(json);
	TRY(words_grow(&loader->tokens, loader->count + more + 1, sizeof *loader->tokens, err));
	int64_t next = loader->model->size;
	for (size_t i = 0; i < loader->count; i++)
		if (loader->tokens[i].id >= next) next = loader->tokens[i].id + 1;
	if (next + (int64_t)more >= INT32_MAX)
		return error_set(err, STATUS_UNSUPPORTED, "%s: more than %d ids are not supported", what, INT32_MAX);
	loader->next_id = (int32_t)next;
	const cJSON *child;
	int i = 0;
	cJSON_ArrayForEach(child, json)
	{
		struct component_path path = component_path("%s[%d]", what, i++);
		TRY(parse_token(loader, child, path.text, err));
	}
	return STATUS_OK;
}

static enum status load(struct added_tokens *added, struct loader *loader, const cJSON *json, const cJSON *more, const char *what,
			struct error *err)
{
	struct component_path path = component_path("%s: added_tokens", what);
	TRY(parse_tokens(loader, json, path.text, err));
	TRY(parse_tokens(loader, more, "tokenizer_config.json: added tokens", err));
	added->largest_id = -1;
	for (size_t k = 0; k < loader->count; k++)
		if (loader->tokens[k].id > added->largest_id) added->largest_id = loader->tokens[k].id;
	TRY(fill_set(&added->sets[false], loader, false, path.text, err));
	return fill_set(&added->sets[true], loader, true, path.text, err);
}

enum status added_tokens_parse(const cJSON *json, const cJSON *more, const char *what, const struct model *model,
			       const struct normalizer *normalizer, bool split_special, struct added_tokens **ret,
			       struct error *err)
{
	struct added_tokens *added = calloc(1, sizeof *added);
	if (!added) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	added->split_special = split_special;
	struct loader loader = {.model = model, .normalizer = normalizer};
	enum status status = load(added, &loader, json, more, what, err);
	for (size_t i = 0; i < loader.count; i++)
		free(loader.tokens[i].text);
	free(loader.tokens);
	string_map_free(&loader.places);
	normalize_run_free(&loader.run);
	if (status != STATUS_OK) {
		added_tokens_free(added);
		return status;
	}
	*ret = added;
	return STATUS_OK;
}

void added_tokens_free(struct added_tokens *added)
{
	if (!added) return;
	for (int i = 0; i < 2; i++) {
		for (size_t k = 0; k < added->sets[i].count; k++)
			free(added->sets[i].tokens[k].text);
		free(added->sets[i].tokens);
	}
	free(added);
}

bool added_tokens_text(const struct added_tokens *added, int32_t id, struct string_view *ret, bool *ret_special)
{
	for (int i = 0; i < 2; i++)
		for (size_t k = 0; k < added->sets[i].count; k++) {
			const struct added_token *token = &added->sets[i].tokens[k];
			if (token->id != id) continue;
			*ret = (struct string_view){token->text, token->bytes};
			*ret_special = token->special;
			return true;
		}
	return false;
}

bool added_tokens_name(const struct added_tokens *added, int32_t id, const char **ret_text, size_t *ret_bytes)
{
	struct string_view text;
	bool special;
	if (!added_tokens_text(added, id, &text, &special)) return false;
	*ret_text = text.text;
	*ret_bytes = text.bytes;
	return true;
}

int32_t added_tokens_id(const struct added_tokens *added, const char *text)
{
	size_t bytes = strlen(text);
	for (int i = 0; i < 2; i++)
		for (size_t k = 0; k < added->sets[i].count; k++)
			if (added->sets[i].tokens[k].bytes == bytes && memcmp(added->sets[i].tokens[k].text, text, bytes) == 0)
				return added->sets[i].tokens[k].id;
	return -1;
}

int32_t added_tokens_largest_id(const struct added_tokens *added)
{
	return added->largest_id;
}

/* ---- finding -------------------------------------------------------------------------------------------------------------- */
/* The first of tokens[low..high), which share `depth` bytes and are longer, whose next byte is at least `byte`. */
static size_t lower_bound(const struct token_set *set, size_t low, size_t high, size_t depth, int byte)
{
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if ((unsigned char)set->tokens[middle].text[depth] < byte)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* The longest token that `text` starts with, or NULL. */
static const struct added_token *longest(const struct token_set *set, const char *text, const char *end)
{
	const struct added_token *found = NULL;
	int byte = (unsigned char)*text;
	size_t low = set->first[byte], high = set->first[byte + 1];
	for (size_t depth = 1; low < high; depth++) {
		if (set->tokens[low].bytes == depth) found = &set->tokens[low++];
		if (text + depth == end) break;
		byte = (unsigned char)text[depth];
		low = lower_bound(set, low, high, depth, byte);
		high = lower_bound(set, low, high, depth, byte + 1);
	}
	return found;
}

static bool is_single_word(const char *text, const char *start, const char *stop, const char *end)
{
	if (start > text) {
		const char *before = utf8_previous(start);
		if (unicode_is_word(utf8_next(&before))) return false;
	}
	return stop == end || !unicode_is_word(utf8_next(&stop));
}

enum status added_tokens_split(const struct added_tokens *added, bool normalized, const char *text, size_t bytes,
			       const struct added_sink *sink, struct error *err)
{
	const struct token_set *set = &added->sets[normalized];
	const char *end = text + bytes;
	const char *done = text; /* what is before has been handed on */
	for (const char *at = text; set->count && at < end;) {
		const struct added_token *token = longest(set, at, end);
		if (!token) {
			at++;
			continue;
		}
		const char *start = at, *stop = at + token->bytes;
		at = stop; /* the search goes on behind the token, whether or not white space is taken with it */
		if (added->split_special && token->special) continue;
		if (token->single_word && !is_single_word(text, start, stop, end)) continue;
		while (token->lstrip && start > text) {
			const char *before = utf8_previous(start), *next = before;
			if (!unicode_is_space(utf8_next(&next))) break;
			start = before;
		}
		if (token->lstrip && start < done) start = done;
		while (token->rstrip && stop < end) {
			const char *next = stop;
			if (!unicode_is_space(utf8_next(&next))) break;
			stop = next;
		}
		if (done < start) TRY(sink->text(sink->arg, done, (size_t)(start - done), done == text, err));
		TRY(sink->id(sink->arg, token->id, err));
		done = stop;
	}
	if (done == end) return STATUS_OK;
	return sink->text(sink->arg, done, (size_t)(end - done), done == text, err);
}
