#include "engine/text/bpe_normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/text/bpe_json.h"
#include "engine/text/pretokenize_regex.h"
#include "engine/text/unicode.h"
#include "engine/text/unicode_form.h"

enum { MAX_STEPS = 32 };

struct step {
	enum { UNICODE_FORM, LOWERCASE, STRIP, PREPEND, REPLACE } kind;
	enum unicode_form form;
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
	TRY(bpe_json_only(json, what, keys, err));
	step->kind = STRIP;
	TRY(json_get_bool(json, what, "strip_left", &step->strip_left, err));
	return json_get_bool(json, what, "strip_right", &step->strip_right, err);
}

static enum status parse_prepend(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"prepend", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	const char *content;
	TRY(bpe_json_string(json, what, "prepend", &content, err));
	step->kind = PREPEND;
	return copy_string(content, what, &step->content, err);
}

static enum status parse_replace(const cJSON *json, const char *what, struct step *step, struct error *err)
{
	static const char *const keys[] = {"pattern", "content", NULL};
	TRY(bpe_json_only(json, what, keys, err));
	const char *content, *pattern;
	bool is_regex;
	TRY(bpe_json_string(json, what, "content", &content, err));
	TRY(bpe_json_pattern(json, what, &pattern, &is_regex, err));
	step->kind = REPLACE;
	TRY(copy_string(content, what, &step->content, err));
	return is_regex ? regex_compile(pattern, what, &step->regex, err) : copy_string(pattern, what, &step->literal, err);
}

static enum status parse_any(const cJSON *json, const char *what, struct normalizer *normalizer, struct error *err)
{
	static const struct {
		const char *type;
		enum unicode_form form;
	} forms[] = {
		{"NFC", UNICODE_NFC},
		{"NFD", UNICODE_NFD},
		{"NFKC", UNICODE_NFKC},
		{"NFKD", UNICODE_NFKD},
	};
	static const char *const no_keys[] = {NULL};
	const char *type;
	TRY(bpe_json_type(json, what, &type, err));
	if (strcmp(type, "Sequence") == 0) {
		static const char *const keys[] = {"normalizers", NULL};
		const cJSON *array, *child;
		TRY(bpe_json_only(json, what, keys, err));
		TRY(bpe_json_array(json, what, "normalizers", &array, err));
		int i = 0;
		cJSON_ArrayForEach(child, array)
		{
			struct bpe_place place = bpe_place("%s.normalizers[%d]", what, i++);
			TRY(parse_any(child, place.text, normalizer, err));
		}
		return STATUS_OK;
	}
	if (normalizer->count == MAX_STEPS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: more than %d normalizers are not supported", what, MAX_STEPS);
	struct step *step = &normalizer->steps[normalizer->count++];
	if (strcmp(type, "Prepend") == 0) return parse_prepend(json, what, step, err);
	if (strcmp(type, "Replace") == 0) return parse_replace(json, what, step, err);
	if (strcmp(type, "Strip") == 0) return parse_strip(json, what, step, err);
	if (strcmp(type, "Lowercase") == 0) {
		step->kind = LOWERCASE;
		return bpe_json_only(json, what, no_keys, err);
	}
	for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
		if (strcmp(type, forms[i].type) == 0) {
			step->kind = UNICODE_FORM;
			step->form = forms[i].form;
			return bpe_json_only(json, what, no_keys, err);
		}
	return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
}

enum status normalizer_parse(const cJSON *json, const char *what, struct normalizer **ret, struct error *err)
{
	struct normalizer *normalizer = calloc(1, sizeof *normalizer);
	if (!normalizer) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	if (json && !cJSON_IsNull(json)) {
		struct bpe_place place = bpe_place("%s: normalizer", what);
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

static enum status lowercase(struct text_buffer *out, const char *text, size_t bytes, struct error *err)
{
	for (const char *end = text + bytes; text < end;) {
		char encoded[8];
		int length;
		uint32_t c = utf8_next(&text);
		if (c == 0x130) /* the one character whose lower case is two */
			length = 1 + utf8_write(0x307, strcpy(encoded, "i") + 1);
		else
			length = utf8_write((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), encoded);
		TRY(text_append(out, encoded, (size_t)length, err));
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

static enum status replace(struct text_buffer *out, struct normalize_run *run, const struct step *step, const char *text,
			   size_t bytes, struct error *err)
{
	size_t content = strlen(step->content), length = step->literal ? strlen(step->literal) : 0;
	if (step->regex && !run->matcher && !(run->matcher = regex_matcher_new()))
		return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	for (size_t at = 0; at < bytes;) {
		bool found;
		size_t start = bytes, end = bytes;
		if (step->literal) {
			const char *match = length == 1 ? memchr(text + at, *step->literal, bytes - at)
							: memmem(text + at, bytes - at, step->literal, length);
			found = match != NULL;
			if (found) {
				start = (size_t)(match - text);
				end = start + length;
			}
		} else {
			TRY(regex_find(step->regex, run->matcher, text, bytes, at, &found, &start, &end, err));
		}
		TRY(text_append(out, text + at, start - at, err));
		if (found) TRY(text_append(out, step->content, content, err));
		at = end;
	}
	return STATUS_OK;
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
		case LOWERCASE:
			status = lowercase(out, text, bytes, err);
			break;
		case STRIP:
			status = strip(out, step, text, bytes, first, err);
			break;
		case PREPEND:
			status = text_append(out, step->content, strlen(step->content), err);
			if (status == STATUS_OK) status = text_append(out, text, bytes, err);
			break;
		case REPLACE:
			status = replace(out, run, step, text, bytes, err);
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
