#include "engine/text/pretokenize.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/bpe_json.h"
#include "engine/text/pretokenize_regex.h"
#include "engine/text/text_buffer.h"
#include "engine/text/unicode.h"

enum { MAX_STEPS = 16 };

static const char GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* What becomes of the matches and of what lies between them. */
enum behavior {
	ISOLATED,
	REMOVED,
	MERGED_WITH_PREVIOUS,
	MERGED_WITH_NEXT,
	CONTIGUOUS,
};

/* A step of a Sequence: text may be put in front and replaced, then it is split where there is something to match. */
struct step {
	enum behavior behavior;
	bool invert;

	/* What is matched: at most one of these. */
	struct regex *regex;
	char *literal;
	bool (*is_match)(uint32_t code_point);

	bool metaspace; /* spaces become `replacement` */
	char replacement[8];
	enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } prepend; /* `replacement`, or a space, where there is none in front */
};

struct pretokenizer {
	struct step steps[MAX_STEPS];
	int count;
	bool byte_level;
};

struct pretokenize_run {
	const struct pretokenizer *pretokenizer;
	struct regex_matcher *matcher;
	struct text_buffer buffers[MAX_STEPS]; /* the rewritten text of each step */
	pretokenize_piece piece;
	void *arg;
};

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
static enum status parse_behavior(const cJSON *json, const char *what, enum behavior *ret, struct error *err)
{
	static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
	const char *name = NULL;
	TRY(json_get_string(json, what, "behavior", &name, err));
	if (!name) return STATUS_OK;
	for (int i = 0; i < 5; i++)
		if (strcmp(name, names[i]) == 0) {
			*ret = (enum behavior)i;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED, "%s: behavior '%.100s' is not supported", what, name);
}

static enum status parse_split(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"pattern", "behavior", "invert", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	const char *pattern;
	bool is_regex;
	TRY(parse_behavior(json, what, &step->behavior, err));
	TRY(json_get_bool(json, what, "invert", &step->invert, err));
	TRY(bpe_json_pattern(json, what, &pattern, &is_regex, err));
	if (is_regex) return regex_compile(pattern, what, &step->regex, err);
	step->literal = strdup(pattern);
	return step->literal ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

static enum status parse_byte_level(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	bool prefix = true, use_regex = true;
	TRY(json_get_bool(json, what, "add_prefix_space", &prefix, err));
	TRY(json_get_bool(json, what, "use_regex", &use_regex, err));
	strcpy(step->replacement, " ");
	step->prepend = prefix ? PREPEND_ALWAYS : PREPEND_NEVER;
	return use_regex ? regex_compile(GPT2, what, &step->regex, err) : STATUS_OK;
}

static enum status parse_metaspace(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	const char *replacement, *scheme = "always";
	bool prefix = true, split = true;
	TRY(bpe_json_string(json, what, "replacement", &replacement, err));
	TRY(json_get_bool(json, what, "add_prefix_space", &prefix, err));
	TRY(json_get_string(json, what, "prepend_scheme", &scheme, err));
	TRY(json_get_bool(json, what, "split", &split, err));

	const char *end = replacement;
	if (*end) utf8_next(&end);
	if (end == replacement || *end) return error_set(err, STATUS_INVALID, "%s: 'replacement' must be one character", what);
	strcpy(step->replacement, replacement);
	step->metaspace = true;
	if (strcmp(scheme, "always") == 0)
		step->prepend = PREPEND_ALWAYS;
	else if (strcmp(scheme, "first") == 0)
		step->prepend = PREPEND_FIRST;
	else if (strcmp(scheme, "never") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: prepend_scheme '%.100s' is not supported", what, scheme);
	if (!prefix) {
		/* The older field; the package refuses the two when they contradict each other. */
		if (step->prepend != PREPEND_NEVER && cJSON_GetObjectItemCaseSensitive(json, "prepend_scheme"))
			return error_set(err, STATUS_INVALID, "%s: add_prefix_space contradicts prepend_scheme", what);
		step->prepend = PREPEND_NEVER;
	}
	step->behavior = MERGED_WITH_NEXT;
	if (split && !(step->literal = strdup(replacement))) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	return STATUS_OK;
}

static enum status parse_digits(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"individual_digits", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	bool individual = false;
	TRY(json_get_bool(json, what, "individual_digits", &individual, err));
	step->is_match = unicode_is_number;
	step->behavior = individual ? ISOLATED : CONTIGUOUS;
	return STATUS_OK;
}

static enum status parse_punctuation(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"behavior", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	step->is_match = unicode_is_punctuation;
	return parse_behavior(json, what, &step->behavior, err);
}

static enum status parse_any(const cJSON *json, const char *what, struct pretokenizer *pretokenizer, struct error *err)
{
	const char *type;
	TRY(bpe_json_type(json, what, &type, err));
	if (pretokenizer->byte_level)
		return error_set(err, STATUS_UNSUPPORTED, "%s: a pre_tokenizer after ByteLevel is not supported", what);
	if (strcmp(type, "Sequence") == 0) {
		static const char *const keys[] = {"pretokenizers", NULL};
		const cJSON *array, *child;
		TRY(bpe_json_only(json, what, keys, err));
		TRY(bpe_json_array(json, what, "pretokenizers", &array, err));
		int i = 0;
		cJSON_ArrayForEach(child, array)
		{
			struct bpe_place place = bpe_place("%s.pretokenizers[%d]", what, i++);
			TRY(parse_any(child, place.text, pretokenizer, err));
		}
		return STATUS_OK;
	}
	if (pretokenizer->count == MAX_STEPS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: more than %d pre_tokenizers are not supported", what, MAX_STEPS);
	struct step *step = &pretokenizer->steps[pretokenizer->count++];
	if (strcmp(type, "ByteLevel") == 0) {
		pretokenizer->byte_level = true;
		return parse_byte_level(json, what, step, err);
	}
	if (strcmp(type, "Split") == 0) return parse_split(json, what, step, err);
	if (strcmp(type, "Metaspace") == 0) return parse_metaspace(json, what, step, err);
	if (strcmp(type, "Digits") == 0) return parse_digits(json, what, step, err);
	if (strcmp(type, "Punctuation") == 0) return parse_punctuation(json, what, step, err);
	if (strcmp(type, "WhitespaceSplit") == 0) {
		step->is_match = unicode_is_space;
		step->behavior = REMOVED;
		return STATUS_OK;
	}
	return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
}

enum status pretokenizer_parse(const cJSON *json, const char *what, struct pretokenizer **ret, struct error *err)
{
	struct pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
	if (!pretokenizer) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	if (json && !cJSON_IsNull(json)) {
		struct bpe_place place = bpe_place("%s: pre_tokenizer", what);
		enum status status = parse_any(json, place.text, pretokenizer, err);
		if (status != STATUS_OK) {
			pretokenizer_free(pretokenizer);
			return status;
		}
	}
	*ret = pretokenizer;
	return STATUS_OK;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
	if (!pretokenizer) return;
	for (int i = 0; i < pretokenizer->count; i++) {
		regex_free(pretokenizer->steps[i].regex);
		free(pretokenizer->steps[i].literal);
	}
	free(pretokenizer);
}

bool pretokenizer_is_byte_level(const struct pretokenizer *pretokenizer)
{
	return pretokenizer->byte_level;
}

/* ---- cutting -------------------------------------------------------------------------------------------------------------- */
enum status pretokenize_run_new(const struct pretokenizer *pretokenizer, pretokenize_piece piece, void *arg,
				struct pretokenize_run **ret, struct error *err)
{
	struct pretokenize_run *run = calloc(1, sizeof *run);
	struct regex_matcher *matcher = regex_matcher_new();
	if (!run || !matcher) {
		free(run);
		regex_matcher_free(matcher);
		return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	}
	*run = (struct pretokenize_run){.pretokenizer = pretokenizer, .matcher = matcher, .piece = piece, .arg = arg};
	*ret = run;
	return STATUS_OK;
}

void pretokenize_run_free(struct pretokenize_run *run)
{
	if (!run) return;
	for (int i = 0; i < MAX_STEPS; i++)
		text_buffer_free(&run->buffers[i]);
	regex_matcher_free(run->matcher);
	free(run);
}

static enum status find(struct pretokenize_run *run, const struct step *step, const char *text, size_t bytes, size_t from,
			bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err)
{
	if (step->regex) return regex_find(step->regex, run->matcher, text, bytes, from, ret_found, ret_start, ret_end, err);
	*ret_found = false;
	if (step->literal) {
		size_t length = strlen(step->literal);
		const char *at = memmem(text + from, bytes - from, step->literal, length);
		if (!at) return STATUS_OK;
		*ret_found = true;
		*ret_start = (size_t)(at - text);
		*ret_end = *ret_start + length;
		return STATUS_OK;
	}
	for (const char *at = text + from, *end = text + bytes; at < end;) {
		const char *start = at;
		if (!step->is_match(utf8_next(&at))) continue;
		*ret_found = true;
		*ret_start = (size_t)(start - text);
		*ret_end = (size_t)(at - text);
		return STATUS_OK;
	}
	return STATUS_OK;
}

static enum status run_step(struct pretokenize_run *run, int index, const char *text, size_t bytes, bool first, struct error *err);

/* The pieces of one text under one step. A piece is held back until what follows tells whether it grows. */
struct cut {
	struct pretokenize_run *run;
	int index;
	const char *text;
	bool first;
	size_t start, end; /* what is held back; empty at first */
	bool is_match;     /* of the range before */
};

static enum status cut_flush(struct cut *cut, struct error *err)
{
	size_t start = cut->start;
	cut->start = cut->end;
	if (start == cut->end) return STATUS_OK;
	return run_step(cut->run, cut->index + 1, cut->text + start, cut->end - start, cut->first && start == 0, err);
}

/* Takes the next range, [cut->end, end), a match or what lies between two. */
static enum status cut_add(struct cut *cut, enum behavior behavior, size_t end, bool is_match, struct error *err)
{
	bool grows = false;
	if (behavior == MERGED_WITH_PREVIOUS)
		grows = is_match && !cut->is_match;
	else if (behavior == MERGED_WITH_NEXT)
		grows = !is_match && cut->is_match;
	else if (behavior == CONTIGUOUS)
		grows = is_match == cut->is_match;
	cut->is_match = is_match;
	if (!grows) TRY(cut_flush(cut, err));
	cut->end = end;
	if (behavior == REMOVED && is_match) cut->start = end;
	return STATUS_OK;
}

static enum status split(struct pretokenize_run *run, int index, const char *text, size_t bytes, bool first, struct error *err)
{
	const struct step *step = &run->pretokenizer->steps[index];
	struct cut cut = {.run = run, .index = index, .text = text, .first = first};
	size_t at = 0;
	while (at < bytes) {
		bool found;
		size_t start = bytes, end = bytes;
		TRY(find(run, step, text, bytes, at, &found, &start, &end, err));
		if (!found) break;
		if (start > at) TRY(cut_add(&cut, step->behavior, start, step->invert, err));
		TRY(cut_add(&cut, step->behavior, end, !step->invert, err));
		at = end;
	}
	if (at < bytes) TRY(cut_add(&cut, step->behavior, bytes, step->invert, err));
	return cut_flush(&cut, err);
}

/* The text with spaces replaced and one put in front, as the step says, in the step's buffer. */
static enum status rewrite(struct text_buffer *out, const struct step *step, const char *text, size_t bytes, bool prepend,
			   struct error *err)
{
	size_t length = strlen(step->replacement);
	out->size = 0;
	if (prepend) TRY(text_append(out, step->replacement, length, err));
	if (!step->metaspace) return text_append(out, text, bytes, err);
	for (const char *end = text + bytes; text < end;) {
		const char *space = memchr(text, ' ', (size_t)(end - text));
		const char *stop = space ? space : end;
		TRY(text_append(out, text, (size_t)(stop - text), err));
		if (space) TRY(text_append(out, step->replacement, length, err));
		text = space ? space + 1 : end;
	}
	return STATUS_OK;
}

static bool starts_with(const char *text, size_t bytes, const char *prefix)
{
	size_t length = strlen(prefix);
	return bytes >= length && memcmp(text, prefix, length) == 0;
}

static enum status run_step(struct pretokenize_run *run, int index, const char *text, size_t bytes, bool first, struct error *err)
{
	if (index == run->pretokenizer->count) return run->piece(run->arg, text, bytes, err);
	const struct step *step = &run->pretokenizer->steps[index];
	bool prepend = step->prepend == PREPEND_ALWAYS || (step->prepend == PREPEND_FIRST && first);
	prepend = prepend && !starts_with(text, bytes, step->replacement) && !(step->metaspace && *text == ' ');
	if (step->metaspace || prepend) {
		struct text_buffer *buffer = &run->buffers[index];
		TRY(rewrite(buffer, step, text, bytes, prepend, err));
		text = buffer->data;
		bytes = buffer->size;
	}
	if (step->regex || step->literal || step->is_match) return split(run, index, text, bytes, first, err);
	return run_step(run, index + 1, text, bytes, first, err);
}

enum status pretokenize(struct pretokenize_run *run, const char *text, size_t bytes, bool first, struct error *err)
{
	return bytes ? run_step(run, 0, text, bytes, first, err) : STATUS_OK;
}
