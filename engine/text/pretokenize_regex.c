#include "engine/text/pretokenize_regex.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/text_buffer.h"

struct regex {
	pcre2_code *code;
	char *what;
};

struct regex_matcher {
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
};

/* ---- translation ---------------------------------------------------------------------------------------------------------- */
/* PCRE2's \s has U+180E in addition, its \w all numbers; Oniguruma's \w counts Latin-1's superscripts and fractions as well. */
static const char WORD[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

struct translation {
	const char *at; /* in the pattern */
	const char *pattern, *what;
	struct text_buffer out;
	struct error *err;
};

static enum status refuse(const struct translation *t, const char *construct)
{
	return error_set(t->err, STATUS_UNSUPPORTED, "%s: %s in the regular expression '%.300s' is not supported", t->what,
			 construct, t->pattern);
}

static enum status put(struct translation *t, const char *text)
{
	return text_append(&t->out, text, strlen(text), t->err);
}

/* Copies the next `bytes` bytes of the pattern. */
static enum status keep(struct translation *t, size_t bytes)
{
	TRY(text_append(&t->out, t->at, bytes, t->err));
	t->at += bytes;
	return STATUS_OK;
}

/* \p{..} and \P{..}: a general category, or a script, which PCRE2 would take for the script's extensions. */
static enum status translate_property(struct translation *t)
{
	const char *name = t->at + 3, *end = t->at[2] == '{' ? strchr(name, '}') : NULL;
	if (!end || end == name) return refuse(t, "\\p without a name in braces");
	for (const char *c = name; c < end; c++)
		if (!isalpha((unsigned char)*c) && *c != '_') return refuse(t, "this kind of \\p{…}");
	if (end - name <= 2) return keep(t, (size_t)(end + 1 - t->at));
	TRY(keep(t, 3));
	TRY(put(t, "sc:"));
	return keep(t, (size_t)(end + 1 - t->at));
}

static enum status translate_escape(struct translation *t, bool in_class)
{
	char c = t->at[1];
	if (c == 's' || c == 'S') {
		t->at += 2;
		return put(t, c == 's' ? "\\p{wspace}" : "\\P{wspace}");
	}
	if (c == 'w' || c == 'W') {
		if (in_class && c == 'W') return refuse(t, "\\W in a class");
		t->at += 2;
		if (!in_class) TRY(put(t, c == 'w' ? "[" : "[^"));
		TRY(put(t, WORD));
		return in_class ? STATUS_OK : put(t, "]");
	}
	if (c == 'p' || c == 'P') return translate_property(t);
	if (c == 'u') {
		for (int i = 2; i < 6; i++)
			if (!isxdigit((unsigned char)t->at[i])) return refuse(t, "\\u without four digits");
		TRY(put(t, "\\x{"));
		TRY(text_append(&t->out, t->at + 2, 4, t->err));
		t->at += 6;
		return put(t, "}");
	}
	if ((c && strchr("dDrnt", c)) || ispunct((unsigned char)c)) return keep(t, 2);
	char construct[] = "the escape \\?";
	construct[sizeof construct - 2] = isgraph((unsigned char)c) ? c : '?';
	return refuse(t, construct);
}

static enum status translate_class(struct translation *t)
{
	TRY(keep(t, t->at[1] == '^' ? 2 : 1));
	if (*t->at == ']') return refuse(t, "a class that starts with ]");
	while (*t->at != ']') {
		if (*t->at == 0) return refuse(t, "a class without an end");
		if (*t->at == '[') return refuse(t, "a class in a class");
		if (t->at[0] == '&' && t->at[1] == '&') return refuse(t, "an intersection of classes");
		TRY(*t->at == '\\' ? translate_escape(t, true) : keep(t, 1));
	}
	return keep(t, 1);
}

static enum status translate_group(struct translation *t)
{
	static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};
	if (t->at[1] == '*') return refuse(t, "(*");
	if (t->at[1] != '?') return keep(t, 1);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strncmp(t->at, known[i], strlen(known[i])) == 0) return keep(t, strlen(known[i]));
	return refuse(t, "this kind of group");
}

/* {n}, {n,} and {n,m}: a + behind means possessive to one and "again" to the other, as does a ?. */
static enum status translate_interval(struct translation *t)
{
	const char *end = t->at + 1;
	if (!isdigit((unsigned char)*end)) return refuse(t, "a { that no number follows");
	end += strspn(end, "0123456789");
	if (*end == ',') end += 1 + strspn(end + 1, "0123456789");
	if (*end != '}' || end[1] == '+' || end[1] == '?') return refuse(t, "this kind of repetition");
	return keep(t, (size_t)(end + 1 - t->at));
}

static enum status translate(struct translation *t)
{
	while (*t->at) {
		switch (*t->at) {
		case '\\':
			TRY(translate_escape(t, false));
			break;
		case '[':
			TRY(translate_class(t));
			break;
		case '(':
			TRY(translate_group(t));
			break;
		case '{':
			TRY(translate_interval(t));
			break;
		case '^':
		case '$':
			return refuse(t, "an anchor (^ or $)");
		default:
			TRY(keep(t, 1));
		}
	}
	return STATUS_OK;
}

/* ---- matching ------------------------------------------------------------------------------------------------------------- */
static enum status compile(const struct translation *t, struct regex **ret)
{
	struct regex *regex = calloc(1, sizeof *regex);
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	enum status status = STATUS_OK;
	if (!regex || !context || !(regex->what = strdup(t->what))) {
		status = error_set(t->err, STATUS_NO_MEMORY, "no memory for a regular expression");
		goto out;
	}
	int code;
	PCRE2_SIZE offset;
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	regex->code = pcre2_compile((PCRE2_SPTR)t->out.data, t->out.size, PCRE2_UTF | PCRE2_UCP, &code, &offset, context);
	if (!regex->code) {
		char message[128];
		pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
		status = refuse(t, message);
		goto out;
	}
	uint32_t empty = 0;
	pcre2_pattern_info(regex->code, PCRE2_INFO_MATCHEMPTY, &empty);
	if (empty) {
		status = refuse(t, "a match of nothing");
		goto out;
	}
	/* Where executable memory cannot be had, pcre2_match interprets. */
	pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE);
	*ret = regex;
	regex = NULL;
out:
	pcre2_compile_context_free(context);
	regex_free(regex);
	return status;
}

enum status regex_compile(const char *pattern, const char *what, struct regex **ret, struct error *err)
{
	struct translation t = {.at = pattern, .pattern = pattern, .what = what, .err = err};
	enum status status = translate(&t);
	if (status == STATUS_OK) status = compile(&t, ret);
	text_buffer_free(&t.out);
	return status;
}

void regex_free(struct regex *regex)
{
	if (!regex) return;
	pcre2_code_free(regex->code);
	free(regex->what);
	free(regex);
}

struct regex_matcher *regex_matcher_new(void)
{
	struct regex_matcher *matcher = calloc(1, sizeof *matcher);
	if (!matcher) return NULL;
	matcher->data = pcre2_match_data_create(1, NULL);
	matcher->context = pcre2_match_context_create(NULL);
	matcher->stack = pcre2_jit_stack_create(32 << 10, 64 << 20, NULL);
	if (!matcher->data || !matcher->context) {
		regex_matcher_free(matcher);
		return NULL;
	}
	/* Without a stack of its own the compiled code uses 32 KiB of the thread's. */
	if (matcher->stack) pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
	return matcher;
}

void regex_matcher_free(struct regex_matcher *matcher)
{
	if (!matcher) return;
	pcre2_match_data_free(matcher->data);
	pcre2_match_context_free(matcher->context);
	pcre2_jit_stack_free(matcher->stack);
	free(matcher);
}

enum status regex_find(const struct regex *regex, struct regex_matcher *matcher, const char *text, size_t bytes, size_t from,
		       bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err)
{
	int count = pcre2_match(regex->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
	if (count == PCRE2_ERROR_NOMATCH) {
		*ret_found = false;
		return STATUS_OK;
	}
	if (count < 0) {
		char message[128];
		pcre2_get_error_message(count, (PCRE2_UCHAR *)message, sizeof message);
		return error_set(err, STATUS_INVALID, "%s: the regular expression fails on the text at byte %zu: %s", regex->what,
				 from, message);
	}
	const PCRE2_SIZE *range = pcre2_get_ovector_pointer(matcher->data);
	*ret_found = true;
	*ret_start = range[0];
	*ret_end = range[1];
	return STATUS_OK;
}
