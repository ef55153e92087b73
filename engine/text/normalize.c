#include "engine/text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/text/byte_spelling.h"
#include "engine/text/component.h"
#include "engine/text/precompiled.h"
#include "engine/text/regex.h"
#include "engine/text/unicode.h"
#include "engine/text/unicode_form.h"

enum { MAX_STEPS = 32 };

/* What becomes of single characters: returns how many code points are written to out[0..3]. */
typedef int (*map_character)(uint32_t code_point, uint32_t out[3]);

struct step {
	enum { UNICODE_FORM, MAP, STRIP, PREPEND, REPLACE, SPELL_BYTES, PRECOMPILED } kind;
	enum unicode_form form;
	map_character map;
	struct precompiled *precompiled;
	bool strip_left, strip_right;
	struct regex *regex; /* what is replaced: this or `literal` */
	char *literal;
	char *content; /* what is put in front, or there instead */
};

struct normalizer {
	struct step steps[MAX_STEPS];
	int count;
};

/* ---- loading -------------------------------------------------------------------------------------------------------------- */
static enum status copy_string(const char *string, const char *what, char **ret, struct error *err)
{
	*ret = strdup(string);
	return *ret ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
}

static enum status parse_strip(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"strip_left", "strip_right", NULL};
	TRY(component_only(json, what, keys, err));
	step->kind = STRIP;
	TRY(json_get_bool(json, what, "strip_left", &step->strip_left, err));
	return json_get_bool(json, what, "strip_right", &step->strip_right, err);
}

static enum status parse_prepend(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"prepend", NULL};
	TRY(component_only(json, what, keys, err));
	const char *content;
	TRY(component_string(json, what, "prepend", &content, err));
	step->kind = PREPEND;
	return copy_string(content, what, &step->content, err);
}

static enum status parse_replace(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"pattern", "content", NULL};
	TRY(component_only(json, what, keys, err));
	const char *content, *pattern;
	bool is_regex;
	TRY(component_string(json, what, "content", &content, err));
	TRY(component_pattern(json, what, &pattern, &is_regex, err));
	step->kind = REPLACE;
	TRY(copy_string(content, what, &step->content, err));
	return is_regex ? regex_compile(pattern, what, &step->regex, err) : copy_string(pattern, what, &step->literal, err);
}

/* ---- maps of characters ---- */
static int lowercase(uint32_t c, uint32_t out[3])
{
	if (c == 0x130) { /* the one character whose lower case is two */
		out[0] = 'i';
		out[1] = 0x307;
		return 2;
	}
	out[0] = c < 0x80 ? (c >= 'A' && c <= 'Z' ? c + 32 : c) : (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
	return 1;
}

static int without_combining(uint32_t c, uint32_t out[3])
{
	out[0] = c;
	return !unicode_is_combining(c);
}

static int without_nonspacing(uint32_t c, uint32_t out[3])
{
	out[0] = c;
	return !unicode_is_nonspacing(c);
}

static int clean(uint32_t c, uint32_t out[3])
{
	out[0] = unicode_is_space(c) ? ' ' : c;
	return !unicode_is_unprintable(c);
}

static int space_chinese(uint32_t c, uint32_t out[3])
{
	bool chinese = (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x20000 && c <= 0x2a6df) ||
		       (c >= 0x2a700 && c <= 0x2b73f) || (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
		       (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
	out[0] = out[2] = ' ';
	out[chinese] = c;
	return chinese ? 3 : 1;
}

static int nmt(uint32_t c, uint32_t out[3])
{
	bool dropped = (c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f || c == 0x9f;
	bool space = c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) || c == 0x2028 ||
		     c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd;
	out[0] = space ? ' ' : c;
	return !dropped;
}

/* ---- */
static enum status add_step(struct normalizer *normalizer, const char *what, struct step **ret, struct error *err)
{
	if (normalizer->count == MAX_STEPS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: more than %d normalizers are not supported", what, MAX_STEPS);
	*ret = &normalizer->steps[normalizer->count++];
	return STATUS_OK;
}

static enum status add_map(struct normalizer *normalizer, const char *what, map_character map, struct error *err)
{
	struct step *step = NULL;
	TRY(add_step(normalizer, what, &step, err));
	step->kind = MAP;
	step->map = map;
	return STATUS_OK;
}

static enum status parse_bert(const cJSON *json, const char *what, struct normalizer *normalizer, struct error *err)
{
	static const char *const keys[] = {"clean_text", "handle_chinese_chars", "strip_accents", "lowercase", NULL};
	bool clean_text = true, chinese = true, lower = true;
	struct step *step = NULL;
	TRY(component_only(json, what, keys, err));
	TRY(json_get_bool(json, what, "clean_text", &clean_text, err));
	TRY(json_get_bool(json, what, "handle_chinese_chars", &chinese, err));
	TRY(json_get_bool(json, what, "lowercase", &lower, err));
	bool accents = lower; /* null: as lowercase */
	TRY(json_get_bool(json, what, "strip_accents", &accents, err));
	if (clean_text) TRY(add_map(normalizer, what, clean, err));
	if (chinese) TRY(add_map(normalizer, what, space_chinese, err));
	if (accents) {
		TRY(add_step(normalizer, what, &step, err));
		step->kind = UNICODE_FORM;
		step->form = UNICODE_NFD;
		TRY(add_map(normalizer, what, without_nonspacing, err));
	}
	return lower ? add_map(normalizer, what, lowercase, err) : STATUS_OK;
}

static enum status parse_precompiled(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"precompiled_charsmap", NULL};
	const char *charsmap;
	TRY(component_only(json, what, keys, err));
	TRY(component_string(json, what, "precompiled_charsmap", &charsmap, err));
	step->kind = PRECOMPILED;
	return precompiled_load(charsmap, what, &step->precompiled, err);
}

static enum status parse_any(const cJSON *json, const char *what, struct normalizer *normalizer, struct error *err);

static enum status parse_sequence(const cJSON *json, const char *what, struct normalizer *normalizer, struct error *err)
{
	static const char *const keys[] = {"normalizers", NULL};
	const cJSON *array, *child;
	TRY(component_only(json, what, keys, err));
	TRY(component_array(json, what, "normalizers", &array, err));
	int i = 0;
	cJSON_ArrayForEach(child, array)
	{
		struct component_path path = component_path("%s.normalizers[%d]", what, i++);
		TRY(parse_any(child, path.text, normalizer, err));
	}
	return STATUS_OK;
}

/* The types that have no fields. */
static const struct {
	const char *type;
	struct step step;
} plain_steps[] = {
	{"NFC", {.kind = UNICODE_FORM, .form = UNICODE_NFC}},
	{"NFD", {.kind = UNICODE_FORM, .form = UNICODE_NFD}},
	{"NFKC", {.kind = UNICODE_FORM, .form = UNICODE_NFKC}},
	{"NFKD", {.kind = UNICODE_FORM, .form = UNICODE_NFKD}},
	{"Lowercase", {.kind = MAP, .map = lowercase}},
	{"StripAccents", {.kind = MAP, .map = without_combining}},
	{"Nmt", {.kind = MAP, .map = nmt}},
	{"ByteLevel", {.kind = SPELL_BYTES}},
};

static enum status parse_any(const cJSON *json, const char *what, struct normalizer *normalizer, struct error *err)
{
	static const struct {
		const char *type;
		enum status (*parse)(const cJSON *json, const char *what, struct step *step, struct error *err);
	} parsers[] = {
		{"Prepend", parse_prepend},
		{"Replace", parse_replace},
		{"Strip", parse_strip},
		{"Precompiled", parse_precompiled},
	};
	static const char *const no_keys[] = {NULL};
	const char *type;
	struct step *step = NULL;
	TRY(component_type(json, what, &type, err));
	if (strcmp(type, "Sequence") == 0) return parse_sequence(json, what, normalizer, err);
	if (strcmp(type, "BertNormalizer") == 0) return parse_bert(json, what, normalizer, err);
	for (size_t i = 0; i < sizeof parsers / sizeof *parsers; i++)
		if (strcmp(type, parsers[i].type) == 0) {
			TRY(add_step(normalizer, what, &step, err));
			return parsers[i].parse(json, what, step, err);
		}
	for (size_t i = 0; i < sizeof plain_steps / sizeof *plain_steps; i++)
		if (strcmp(type, plain_steps[i].type) == 0) {
			TRY(add_step(normalizer, what, &step, err));
			*step = plain_steps[i].step;
			return component_only(json, what, no_keys, err);
		}
	return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
}

enum status normalizer_parse(const cJSON *json, const char *what, struct normalizer **ret, struct error *err)
{
	struct normalizer *normalizer = calloc(1, sizeof *normalizer);
	if (!normalizer) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	if (json && !cJSON_IsNull(json)) {
		struct component_path place = component_path("%s: normalizer", what);
		enum status status = parse_any(json, place.text, normalizer, err);
		if (status != STATUS_OK) {
			normalizer_free(normalizer);
			return status;
		}
	}
	*ret = normalizer;
	return STATUS_OK;
}

void normalizer_free(struct normalizer *normalizer)
{
	if (!normalizer) return;
	for (int i = 0; i < normalizer->count; i++) {
		regex_free(normalizer->steps[i].regex);
		free(normalizer->steps[i].literal);
		free(normalizer->steps[i].content);
		precompiled_free(normalizer->steps[i].precompiled);
	}
	free(normalizer);
}

/* ---- normalizing ---------------------------------------------------------------------------------------------------------- */
void normalize_run_free(struct normalize_run *run)
{
	text_buffer_free(&run->buffers[0]);
	text_buffer_free(&run->buffers[1]);
	text_buffer_free(&run->code_points);
	regex_matcher_free(run->matcher);
	run->matcher = NULL;
}

static enum status map_all(struct text_buffer *out, map_character map, const char *text, size_t bytes, bool *first,
			   struct error *err)
{
	const char *start = text;
	for (const char *end = text + bytes; text < end;) {
		char encoded[12];
		uint32_t code_points[3];
		size_t length = 0;
		bool at_start = text == start;
		int count = map(utf8_next(&text), code_points);
		if (at_start && count == 0) *first = false;
		for (int i = 0; i < count; i++)
			length += (size_t)utf8_write(code_points[i], encoded + length);
		TRY(text_append(out, encoded, length, err));
	}
	return STATUS_OK;
}

static enum status strip(struct text_buffer *out, const struct step *step, const char *text, size_t bytes, bool *first,
			 struct error *err)
{
	const char *end = text + bytes, *start = text;
	for (const char *at = text; step->strip_left && at < end;) {
		if (!unicode_is_space(utf8_next(&at))) break;
		start = at;
	}
	while (step->strip_right && end > start) {
		const char *previous = utf8_previous(end), *at = previous;
		if (!unicode_is_space(utf8_next(&at))) break;
		end = previous;
	}
	if (start > text) *first = false;
	return text_append(out, start, (size_t)(end - start), err);
}

/* Whether what replaces text[0, bytes), at the start, starts where the text does: not where nothing replaces it, or it
 * replaces more than one character. */
static bool keeps_start(const struct step *step, const char *text, size_t bytes)
{
	if (bytes == 0) return true;
	const char *next = text;
	utf8_next(&next);
	return *step->content && next == text + bytes;
}

static enum status replace_literal(struct text_buffer *out, const struct step *step, const char *text, size_t bytes, bool *first,
				   struct error *err)
{
	size_t content = strlen(step->content), length = strlen(step->literal);
	const char *start = text, *end = text + bytes;
	while (text < end) {
		const char *match = length == 1 ? memchr(text, *step->literal, (size_t)(end - text))
						: memmem(text, (size_t)(end - text), step->literal, length);
		TRY(text_append(out, text, (size_t)((match ? match : end) - text), err));
		if (!match) break;
		if (match == start && !keeps_start(step, match, length)) *first = false;
		TRY(text_append(out, step->content, content, err));
		text = match + length;
	}
	return STATUS_OK;
}

static enum status replace(struct text_buffer *out, struct normalize_run *run, const struct step *step, const char *text,
			   size_t bytes, bool *first, struct error *err)
{
	if (step->literal) return replace_literal(out, step, text, bytes, first, err);
	size_t content = strlen(step->content), done = 0;
	if (!run->matcher && !(run->matcher = regex_matcher_new()))
		return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	for (struct regex_position at = {0};;) {
		bool found;
		size_t start, end;
		TRY(regex_next(step->regex, run->matcher, text, bytes, &at, &found, &start, &end, err));
		if (!found) break;
		if (start == 0 && !keeps_start(step, text, end)) *first = false;
		TRY(text_append(out, text + done, start - done, err));
		TRY(text_append(out, step->content, content, err));
		done = end;
	}
	return text_append(out, text + done, bytes - done, err);
}

enum status normalize(const struct normalizer *normalizer, struct normalize_run *run, const char *text, size_t bytes,
		      const char **ret_text, size_t *ret_bytes, bool *first, struct error *err)
{
	for (int i = 0; i < normalizer->count && bytes; i++) {
		const struct step *step = &normalizer->steps[i];
		struct text_buffer *out = &run->buffers[i & 1];
		out->size = 0;
		enum status status = STATUS_OK;
		switch (step->kind) {
		case UNICODE_FORM:
			status = unicode_normalize(out, &run->code_points, step->form, text, bytes, err);
			break;
		case MAP:
			status = map_all(out, step->map, text, bytes, first, err);
			break;
		case SPELL_BYTES:
			status = byte_spelling(out, text, bytes, err);
			break;
		case PRECOMPILED:
			status = precompiled_apply(step->precompiled, out, text, bytes, err);
			break;
		case STRIP:
			status = strip(out, step, text, bytes, first, err);
			break;
		case PREPEND:
			status = text_append(out, step->content, strlen(step->content), err);
			if (status == STATUS_OK) status = text_append(out, text, bytes, err);
			break;
		case REPLACE:
			status = replace(out, run, step, text, bytes, first, err);
			break;
		}
		if (status != STATUS_OK) return status;
		text = out->data;
		bytes = out->size;
	}
	*ret_text = text;
	*ret_bytes = bytes;
	return STATUS_OK;
}
