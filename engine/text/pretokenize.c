#include "engine/text/pretokenize.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/byte_spelling.h"
#include "engine/text/component.h"
#include "engine/text/regex.h"
#include "engine/text/text_buffer.h"
#include "engine/text/unicode.h"

enum { MAX_STEPS = 32 };

static const char GPT2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/* What becomes of the matches and of what lies between them. */
enum behavior {
	ISOLATED,
	REMOVED,
	MERGED_WITH_PREVIOUS,
	MERGED_WITH_NEXT,
	CONTIGUOUS,
};

/* A step of a Sequence: text may be put in front and replaced, then it is split where there is something to match, or at other
 * places, or its bytes are spelled out. */
struct step {
	enum behavior behavior;
	bool invert;

	/* What is matched: at most one of these. */
	struct regex *regex;
	char *literal;
	bool (*is_match)(uint32_t code_point);

	int64_t fixed_length; /* characters of a piece, or 0 */
	bool by_script;       /* split where the script changes */
	bool spell_bytes;     /* every byte becomes the character that ByteLevel gives it */

	bool metaspace; /* spaces become `replacement` */
	char replacement[8];
	enum { PREPEND_NEVER, PREPEND_FIRST, PREPEND_ALWAYS } prepend; /* `replacement`, or a space, where there is none in front */
};

struct pretokenizer {
	struct step steps[MAX_STEPS];
	int count;
	bool bytes; /* the last step would spell the bytes out, and is left out */
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
	TRY(component_only(json, what, keys, err));
	const char *pattern;
	bool is_regex;
	TRY(parse_behavior(json, what, &step->behavior, err));
	TRY(json_get_bool(json, what, "invert", &step->invert, err));
	TRY(component_pattern(json, what, &pattern, &is_regex, err));
	if (is_regex) return regex_compile(pattern, what, &step->regex, err);
	step->literal = strdup(pattern);
	return step->literal ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

static enum status parse_byte_level(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};
	TRY(component_only(json, what, keys, err));
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
	TRY(component_only(json, what, keys, err));
	const char *replacement, *scheme = "always";
	bool prefix = true, split = true;
	TRY(component_string(json, what, "replacement", &replacement, err));
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
	TRY(component_only(json, what, keys, err));
	bool individual = false;
	TRY(json_get_bool(json, what, "individual_digits", &individual, err));
	step->is_match = unicode_is_number;
	step->behavior = individual ? ISOLATED : CONTIGUOUS;
	return STATUS_OK;
}

static enum status parse_punctuation(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"behavior", NULL};
	TRY(component_only(json, what, keys, err));
	step->is_match = unicode_is_punctuation;
	return parse_behavior(json, what, &step->behavior, err);
}

static enum status parse_delimiter(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"delimiter", NULL};
	const char *delimiter;
	TRY(component_only(json, what, keys, err));
	TRY(component_string(json, what, "delimiter", &delimiter, err));
	const char *end = delimiter;
	if (*end) utf8_next(&end);
	if (end == delimiter || *end) return error_set(err, STATUS_INVALID, "%s: 'delimiter' must be one character", what);
	step->behavior = REMOVED;
	step->literal = strdup(delimiter);
	return step->literal ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

static enum status parse_fixed_length(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"length", NULL};
	TRY(component_only(json, what, keys, err));
	step->fixed_length = 5;
	return json_get_int(json, what, "length", 1, INT32_MAX, &step->fixed_length, err);
}

static enum status parse_any(const cJSON *json, const char *what, struct pretokenizer *pretokenizer, struct error *err);

static enum status parse_sequence(const cJSON *json, const char *what, struct pretokenizer *pretokenizer, struct error *err)
{
	static const char *const keys[] = {"pretokenizers", NULL};
	const cJSON *array, *child;
	TRY(component_only(json, what, keys, err));
	TRY(component_array(json, what, "pretokenizers", &array, err));
	int i = 0;
	cJSON_ArrayForEach(child, array)
	{
		struct component_path path = component_path("%s.pretokenizers[%d]", what, i++);
		TRY(parse_any(child, path.text, pretokenizer, err));
	}
	return STATUS_OK;
}

/* A component may be two steps: white space removed, then ... */
static struct step *add_space_split(struct pretokenizer *pretokenizer)
{
	struct step *step = &pretokenizer->steps[pretokenizer->count++];
	step->is_match = unicode_is_space;
	step->behavior = REMOVED;
	return step;
}

static enum status parse_any(const cJSON *json, const char *what, struct pretokenizer *pretokenizer, struct error *err)
{
	static const char *const no_keys[] = {NULL};
	static const struct {
		const char *type;
		enum status (*parse)(const cJSON *json, const char *what, struct step *step, struct error *err);
	} parsers[] = {
		{"Split", parse_split},
		{"Metaspace", parse_metaspace},
		{"Digits", parse_digits},
		{"Punctuation", parse_punctuation},
		{"CharDelimiterSplit", parse_delimiter},
		{"Delimiter", parse_delimiter},
		{"FixedLength", parse_fixed_length},
	};
	const char *type;
	TRY(component_type(json, what, &type, err));
	if (strcmp(type, "Sequence") == 0) return parse_sequence(json, what, pretokenizer, err);
	if (pretokenizer->count + 2 > MAX_STEPS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: more than %d pre_tokenizers are not supported", what, MAX_STEPS);
	for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++)
		if (strcmp(type, parsers[i].type) == 0)
			return parsers[i].parse(json, what, &pretokenizer->steps[pretokenizer->count++], err);
	if (strcmp(type, "ByteLevel") == 0) {
		TRY(parse_byte_level(json, what, &pretokenizer->steps[pretokenizer->count++], err));
		pretokenizer->steps[pretokenizer->count++].spell_bytes = true;
		return STATUS_OK;
	}
	if (strcmp(type, "WhitespaceSplit") == 0) {
		add_space_split(pretokenizer);
		return component_only(json, what, no_keys, err);
	}
	if (strcmp(type, "Whitespace") == 0) { /* \w+|[^\w\s]+ */
		add_space_split(pretokenizer)[1] = (struct step){.is_match = unicode_is_word, .behavior = CONTIGUOUS};
		pretokenizer->count++;
		return component_only(json, what, no_keys, err);
	}
	if (strcmp(type, "BertPreTokenizer") == 0) {
		add_space_split(pretokenizer)[1] = (struct step){.is_match = unicode_is_punctuation, .behavior = ISOLATED};
		pretokenizer->count++;
		return component_only(json, what, no_keys, err);
	}
	if (strcmp(type, "UnicodeScripts") == 0) {
		pretokenizer->steps[pretokenizer->count++].by_script = true;
		return component_only(json, what, no_keys, err);
	}
	return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
}

enum status pretokenizer_parse(const cJSON *json, const char *what, bool keep_bytes, struct pretokenizer **ret, struct error *err)
{
	struct pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
	if (!pretokenizer) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	if (json && !cJSON_IsNull(json)) {
		struct component_path path = component_path("%s: pre_tokenizer", what);
		enum status status = parse_any(json, path.text, pretokenizer, err);
		if (status != STATUS_OK) {
			pretokenizer_free(pretokenizer);
			return status;
		}
	}
	pretokenizer->bytes = keep_bytes && pretokenizer->count && pretokenizer->steps[pretokenizer->count - 1].spell_bytes;
	if (pretokenizer->bytes) pretokenizer->count--;
	*ret = pretokenizer;
	return STATUS_OK;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
	if (!pretokenizer) return;
	for (int i = 0; i < MAX_STEPS; i++) {
		regex_free(pretokenizer->steps[i].regex);
		free(pretokenizer->steps[i].literal);
	}
	free(pretokenizer);
}

bool pretokenizer_gives_bytes(const struct pretokenizer *pretokenizer)
{
	return pretokenizer->bytes;
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

/* The next match behind *at. */
static enum status find(struct pretokenize_run *run, const struct step *step, const char *text, size_t bytes,
			struct regex_position *at, bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err)
{
	if (step->regex) return regex_next(step->regex, run->matcher, text, bytes, at, ret_found, ret_start, ret_end, err);
	const char *found = NULL, *end = text + bytes, *next = text + at->from;
	if (step->literal) {
		size_t length = strlen(step->literal);
		found = memmem(next, bytes - at->from, step->literal, length);
		next = found ? found + length : end;
	} else {
		while (next < end && !found) {
			const char *start = next;
			if (step->is_match(utf8_next(&next))) found = start;
		}
	}
	*ret_found = found != NULL;
	if (!found) return STATUS_OK;
	*ret_start = (size_t)(found - text);
	*ret_end = at->from = (size_t)(next - text);
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
	struct regex_position at = {0};
	size_t done = 0;
	for (;;) {
		bool found;
		size_t start, end;
		TRY(find(run, step, text, bytes, &at, &found, &start, &end, err));
		if (!found) break;
		if (start > done) TRY(cut_add(&cut, step->behavior, start, step->invert, err));
		TRY(cut_add(&cut, step->behavior, end, !step->invert, err));
		done = end;
	}
	if (done < bytes) TRY(cut_add(&cut, step->behavior, bytes, step->invert, err));
	return cut_flush(&cut, err);
}

/* Cuts where the script changes. As the package has it, what stands before the first letter of a script in the whole text is
 * dropped but for spaces: a piece starts at a character of a script other than the last one's. */
static enum status split_by_script(struct pretokenize_run *run, int index, const char *text, size_t bytes, bool first,
				   struct error *err)
{
	const char *end = text + bytes, *start = NULL;
	int last = -1; /* none yet */
	for (const char *at = text; at < end;) {
		const char *character = at;
		int script = unicode_script_group(utf8_next(&at));
		if (script == UNICODE_SCRIPT_ANY) continue;
		if (script != last) {
			if (start && character > start)
				TRY(run_step(run, index + 1, start, (size_t)(character - start), first && start == text, err));
			start = character;
		}
		last = script;
	}
	if (!start) return STATUS_OK;
	return run_step(run, index + 1, start, (size_t)(end - start), first && start == text, err);
}

static enum status split_by_length(struct pretokenize_run *run, int index, const char *text, size_t bytes, bool first,
				   struct error *err)
{
	int64_t length = run->pretokenizer->steps[index].fixed_length;
	for (const char *at = text, *end = text + bytes; at < end;) {
		const char *start = at;
		for (int64_t i = 0; i < length && at < end; i++)
			utf8_next(&at);
		TRY(run_step(run, index + 1, start, (size_t)(at - start), first && start == text, err));
	}
	return STATUS_OK;
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
	if (step->spell_bytes) {
		struct text_buffer *buffer = &run->buffers[index];
		buffer->size = 0;
		TRY(byte_spelling(buffer, text, bytes, err));
		text = buffer->data;
		bytes = buffer->size;
	}
	if (step->fixed_length) return split_by_length(run, index, text, bytes, first, err);
	if (step->by_script) return split_by_script(run, index, text, bytes, first, err);
	if (step->regex || step->literal || step->is_match) return split(run, index, text, bytes, first, err);
	return run_step(run, index + 1, text, bytes, first, err);
}

enum status pretokenize(struct pretokenize_run *run, const char *text, size_t bytes, bool first, struct error *err)
{
	return bytes ? run_step(run, 0, text, bytes, first, err) : STATUS_OK;
}
