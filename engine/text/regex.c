#include "engine/text/regex.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "engine/text/text_buffer.h"

enum { MAX_GROUPS = 64 };

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
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}"
#define HEX "0-9a-fA-F"

struct translation {
	const char *at; /* in the pattern */
	const char *pattern, *what;
	struct text_buffer out;
	size_t atom;               /* where in `out` starts what a repetition would repeat */
	size_t groups[MAX_GROUPS]; /* where the open groups start */
	int depth;
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

static enum status insert(struct translation *t, size_t at, const char *text)
{
	size_t bytes = strlen(text), behind = t->out.size - at;
	TRY(put(t, text));
	memmove(t->out.data + at + bytes, t->out.data + at, behind);
	memcpy(t->out.data + at, text, bytes);
	return STATUS_OK;
}

/* Copies the next `bytes` bytes of the pattern. */
static enum status keep(struct translation *t, size_t bytes)
{
	TRY(text_append(&t->out, t->at, bytes, t->err));
	t->at += bytes;
	return STATUS_OK;
}

/* Puts `text` for the next `bytes` bytes. */
static enum status rewrite(struct translation *t, size_t bytes, const char *text)
{
	t->at += bytes;
	return put(t, text);
}

/* ---- properties ---- */
/* The names that are neither general categories of one or two letters nor scripts: as they are written, and PCRE2's. */
static const struct {
	const char *name, *inside; /* what stands for it in a class */
} properties[] = {
	{"Letter", "\\p{L}"},
	{"Uppercase_Letter", "\\p{Lu}"},
	{"Lowercase_Letter", "\\p{Ll}"},
	{"Titlecase_Letter", "\\p{Lt}"},
	{"Modifier_Letter", "\\p{Lm}"},
	{"Other_Letter", "\\p{Lo}"},
	{"Mark", "\\p{M}"},
	{"Nonspacing_Mark", "\\p{Mn}"},
	{"Number", "\\p{N}"},
	{"Decimal_Number", "\\p{Nd}"},
	{"Letter_Number", "\\p{Nl}"},
	{"Other_Number", "\\p{No}"},
	{"Punctuation", "\\p{P}"},
	{"Symbol", "\\p{S}"},
	{"Separator", "\\p{Z}"},
	{"Space_Separator", "\\p{Zs}"},
	{"Other", "\\p{C}"},
	{"Any", "\\p{Any}"},
	{"Alphabetic", "\\p{Alphabetic}"},
	{"Alpha", "\\p{Alphabetic}"},
	{"Alnum", "\\p{Alphabetic}\\p{Nd}"},
	{"Digit", "\\p{Nd}"},
	{"Upper", "\\p{Uppercase}"},
	{"Uppercase", "\\p{Uppercase}"},
	{"Lower", "\\p{Lowercase}"},
	{"Lowercase", "\\p{Lowercase}"},
	{"Space", "\\p{wspace}"},
	{"White_Space", "\\p{wspace}"},
	{"Blank", "\\p{Zs}\\t"},
	{"Cntrl", "\\p{Cc}"},
	{"Punct", "\\p{P}$+<=>\\^`|~"},
	{"Word", WORD},
	{"XDigit", HEX},
	{"ASCII", "\\x00-\\x7f"},
	{"Emoji", "\\p{Emoji}"},
	{"Ideographic", "\\p{Ideographic}"},
};

static const char *find_property(const char *name, size_t bytes)
{
	for (size_t i = 0; i < sizeof properties / sizeof *properties; i++)
		if (strlen(properties[i].name) == bytes && strncasecmp(properties[i].name, name, bytes) == 0)
			return properties[i].inside;
	return NULL;
}

/* \p{..}, \P{..} and \p{^..}: a general category, a name of the table, or a script, which PCRE2 would take for the script's
 * extensions. */
static enum status translate_property(struct translation *t, bool in_class)
{
	bool negated = t->at[1] == 'P';
	const char *name = t->at + 3, *end = t->at[2] == '{' ? strchr(name, '}') : NULL;
	if (end && *name == '^') {
		negated = !negated;
		name++;
	}
	if (!end || end == name) return refuse(t, "\\p without a name in braces");
	for (const char *c = name; c < end; c++)
		if (!isalpha((unsigned char)*c) && *c != '_') return refuse(t, "this kind of \\p{…}");
	size_t bytes = (size_t)(end - name);
	const char *known = find_property(name, bytes);
	t->at = end + 1;
	if (!known) {
		TRY(put(t, negated ? "\\P{" : "\\p{"));
		if (bytes > 2) TRY(put(t, "sc:"));
		TRY(text_append(&t->out, name, bytes, t->err));
		return put(t, "}");
	}
	if (in_class && negated) return refuse(t, "the negation of this property in a class");
	if (!in_class) TRY(put(t, negated ? "[^" : "["));
	TRY(put(t, known));
	return in_class ? STATUS_OK : put(t, "]");
}

/* ---- escapes ---- */
static enum status translate_code_point(struct translation *t)
{
	size_t digits = t->at[1] == 'u' ? 4 : 2;
	if (t->at[1] == 'x' && t->at[2] == '{') {
		const char *end = t->at + 3 + strspn(t->at + 3, "0123456789abcdefABCDEF");
		if (*end != '}' || end == t->at + 3 || end - t->at > 11) return refuse(t, "this kind of \\x{…}");
		return keep(t, (size_t)(end + 1 - t->at));
	}
	for (size_t i = 0; i < digits; i++)
		if (!isxdigit((unsigned char)t->at[2 + i])) return refuse(t, "\\u without four digits, or \\x without two");
	if (digits == 2 && t->at[2] >= '8') return refuse(t, "a byte of \\x80 or more");
	TRY(put(t, "\\x{"));
	TRY(text_append(&t->out, t->at + 2, digits, t->err));
	return rewrite(t, 2 + digits, "}");
}

static enum status refuse_escape(const struct translation *t)
{
	char construct[] = "the escape \\?";
	construct[sizeof construct - 2] = isgraph((unsigned char)t->at[1]) ? t->at[1] : '?';
	return refuse(t, construct);
}

static enum status translate_escape(struct translation *t, bool in_class)
{
	char c = t->at[1];
	if (c == 'p' || c == 'P') return translate_property(t, in_class);
	if (c == 'u' || c == 'x') return translate_code_point(t);
	if ((c && strchr("dDrntfae", c)) || ispunct((unsigned char)c) || isspace((unsigned char)c)) return keep(t, 2);
	switch (c) {
	case 's':
		return rewrite(t, 2, "\\p{wspace}");
	case 'S':
		return rewrite(t, 2, "\\P{wspace}");
	case 'v':
		return rewrite(t, 2, "\\x{0b}");
	case 'w':
		return rewrite(t, 2, in_class ? WORD : "[" WORD "]");
	case 'h':
		return rewrite(t, 2, in_class ? HEX : "[" HEX "]");
	case 'W':
		return in_class ? refuse(t, "\\W in a class") : rewrite(t, 2, "[^" WORD "]");
	case 'H':
		return in_class ? refuse(t, "\\H in a class") : rewrite(t, 2, "[^" HEX "]");
	}
	if (in_class) return refuse_escape(t);
	switch (c) {
	case 'b':
		return rewrite(t, 2, "(?:(?<=[" WORD "])(?![" WORD "])|(?<![" WORD "])(?=[" WORD "]))");
	case 'B':
		return rewrite(t, 2, "(?:(?<=[" WORD "])(?=[" WORD "])|(?<![" WORD "])(?![" WORD "]))");
	case 'A':
	case 'z':
	case 'Z':
	case 'R':
	case 'X':
		return keep(t, 2);
	}
	if (c >= '1' && c <= '9' && !isdigit((unsigned char)t->at[2])) return keep(t, 2);
	if (c == 'k' && t->at[2] == '<') {
		const char *end = t->at + 3;
		while (isalpha((unsigned char)*end) || *end == '_')
			end++;
		if (*end == '>' && end > t->at + 3) return keep(t, (size_t)(end + 1 - t->at));
	}
	return refuse_escape(t);
}

/* ---- classes ---- */
static enum status translate_class(struct translation *t, int depth);

/* [:alpha:] within a class. */
static enum status translate_posix(struct translation *t)
{
	const char *name = t->at + 2, *end = strstr(name, ":]");
	const char *known = end && *name != '^' ? find_property(name, (size_t)(end - name)) : NULL;
	if (!known) return refuse(t, "this kind of [:…:]");
	return rewrite(t, (size_t)(end + 2 - t->at), known);
}

/* A class in a class: its members, unless it is the whole of a part ("[^b]" in "[a&&[^b]]"): then *ret_whole. */
static enum status translate_nested(struct translation *t, size_t part, int depth, bool *ret_whole)
{
	size_t start = t->out.size;
	TRY(translate_class(t, depth + 1));
	if (start == part + 1 && (*t->at == ']' || (t->at[0] == '&' && t->at[1] == '&'))) {
		memmove(t->out.data + part, t->out.data + part + 1, --t->out.size - part); /* the part's own "[" */
		*ret_whole = true;
		return STATUS_OK;
	}
	if (t->out.data[start] != '[' || t->out.data[start + 1] == '^') return refuse(t, "this kind of class in a class");
	memmove(t->out.data + start, t->out.data + start + 1, --t->out.size - start);
	t->out.size--;
	return STATUS_OK;
}

/* One part of "[a&&b]", up to the "&&" or the "]", as a class of its own. */
static enum status translate_part(struct translation *t, int depth)
{
	size_t part = t->out.size;
	bool whole = false;
	TRY(put(t, "["));
	while (*t->at != ']' && !(t->at[0] == '&' && t->at[1] == '&')) {
		if (*t->at == 0) return refuse(t, "a class without an end");
		if (whole) return refuse(t, "this kind of class in a class");
		if (*t->at == '^' && t->out.size == part + 1)
			TRY(rewrite(t, 1, "\\^"));
		else if (t->at[0] == '[' && t->at[1] == ':')
			TRY(translate_posix(t));
		else if (*t->at == '[')
			TRY(translate_nested(t, part, depth, &whole));
		else
			TRY(*t->at == '\\' ? translate_escape(t, true) : keep(t, 1));
	}
	return whole ? STATUS_OK : put(t, "]");
}

/* "[a&&b]" becomes "(?:(?=[a])[b])". */
static enum status translate_class(struct translation *t, int depth)
{
	if (depth > 8) return refuse(t, "so deep a class");
	size_t start = t->out.size;
	bool negated = t->at[1] == '^', several = false;
	t->at += negated ? 2 : 1;
	if (*t->at == ']') return refuse(t, "a class that starts with ]");
	for (;;) {
		size_t part = t->out.size;
		TRY(translate_part(t, depth));
		if (*t->at == ']') break;
		t->at += 2;
		several = true;
		TRY(insert(t, part, "(?="));
		TRY(put(t, ")"));
	}
	t->at++;
	if (several) {
		TRY(insert(t, start, negated ? "(?:(?!" : "(?:"));
		return put(t, negated ? ")(?s:.))" : ")");
	}
	if (!negated) return STATUS_OK;
	if (t->out.data[start] != '[' || t->out.data[start + 1] == '^') return refuse(t, "a class negated twice");
	return insert(t, start + 1, "^");
}

/* ---- groups and repetitions ---- */
/* (?i), (?m), (?-i:…): Oniguruma's m is PCRE2's s. */
static enum status translate_options(struct translation *t)
{
	const char *end = t->at + 2 + strspn(t->at + 2, "im-");
	bool to_end = *end == ')';
	if ((*end != ':' && !to_end) || end == t->at + 2) return refuse(t, "this kind of group");
	/* Elsewhere the two differ in how far such an option reaches. */
	if (to_end && t->at != t->pattern) return refuse(t, "an option that is not at the start");
	TRY(put(t, "(?"));
	for (t->at += 2; t->at < end; t->at++)
		TRY(put(t, *t->at == 'm' ? "s" : *t->at == 'i' ? "i" : "-"));
	if (to_end) t->depth--;
	return keep(t, 1);
}

static enum status translate_group(struct translation *t)
{
	static const char *const known[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
	if (t->depth == MAX_GROUPS) return refuse(t, "so deep a group");
	t->groups[t->depth++] = t->out.size;
	if (t->at[1] == '*') return refuse(t, "(*");
	if (t->at[1] != '?') return keep(t, 1);
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strncmp(t->at, known[i], strlen(known[i])) == 0) return keep(t, strlen(known[i]));
	if (t->at[2] == '<' && isalpha((unsigned char)t->at[3])) {
		const char *end = strchr(t->at, '>');
		if (end) return keep(t, (size_t)(end + 1 - t->at));
	}
	return translate_options(t);
}

/* {n}, {n,}, {,m} and {n,m}. A + behind means possessive to PCRE2, but "again" to Oniguruma, as does a ? behind {n}. */
static enum status translate_interval(struct translation *t)
{
	const char *end = t->at + 1;
	size_t low = strspn(end, "0123456789");
	end += low;
	bool is_range = *end == ',';
	if (is_range) end++;
	size_t high = is_range ? strspn(end, "0123456789") : 0;
	end += high;
	if (*end != '}' || (!low && !high)) {
		t->atom = t->out.size;
		return rewrite(t, 1, "\\{");
	}
	if (low > 5 || high > 5) return refuse(t, "so large a repetition");
	bool again = end[1] == '+' || (end[1] == '?' && !is_range);
	if (again) TRY(insert(t, t->atom, "(?:"));
	TRY(put(t, low ? "{" : "{0"));
	t->at++;
	TRY(keep(t, (size_t)(end + 1 - t->at)));
	return again ? put(t, ")") : STATUS_OK;
}

static enum status translate(struct translation *t)
{
	while (*t->at) {
		size_t start = t->out.size;
		switch (*t->at) {
		case '\\':
			TRY(translate_escape(t, false));
			t->atom = start;
			break;
		case '[':
			TRY(translate_class(t, 0));
			t->atom = start;
			break;
		case '(':
			TRY(translate_group(t));
			break;
		case ')':
			if (t->depth == 0) return refuse(t, "a ) without a (");
			TRY(keep(t, 1));
			t->atom = t->groups[--t->depth];
			break;
		case '{':
			TRY(translate_interval(t));
			break;
		case '*':
		case '+':
		case '?':
			TRY(keep(t, 1));
			break;
		default:
			if (((unsigned char)*t->at & 0xc0) != 0x80) t->atom = start;
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
	regex->code = pcre2_compile((PCRE2_SPTR)t->out.data, t->out.size, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &offset,
				    context);
	if (!regex->code) {
		char message[128];
		pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
		status = refuse(t, message);
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

static enum status find(const struct regex *regex, struct regex_matcher *matcher, const char *text, size_t bytes, size_t from,
			bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err)
{
	int count = pcre2_match(regex->code, (PCRE2_SPTR)text, bytes, from, PCRE2_NO_UTF_CHECK, matcher->data, matcher->context);
	*ret_found = count != PCRE2_ERROR_NOMATCH;
	if (!*ret_found) return STATUS_OK;
	if (count < 0) {
		char message[128];
		pcre2_get_error_message(count, (PCRE2_UCHAR *)message, sizeof message);
		return error_set(err, STATUS_INVALID, "%s: the regular expression fails on the text at byte %zu: %s", regex->what,
				 from, message);
	}
	const PCRE2_SIZE *range = pcre2_get_ovector_pointer(matcher->data);
	*ret_start = range[0];
	*ret_end = range[1];
	return STATUS_OK;
}

enum status regex_next(const struct regex *regex, struct regex_matcher *matcher, const char *text, size_t bytes,
		       struct regex_position *at, bool *ret_found, size_t *ret_start, size_t *ret_end, struct error *err)
{
	while (at->from <= bytes) {
		TRY(find(regex, matcher, text, bytes, at->from, ret_found, ret_start, ret_end, err));
		if (!*ret_found) return STATUS_OK;
		if (*ret_start != *ret_end || !at->matched || *ret_end != at->end) {
			at->from = at->end = *ret_end;
			at->matched = true;
			return STATUS_OK;
		}
		at->from++; /* nothing, right behind the last match: on to the next character */
		while (at->from < bytes && (text[at->from] & 0xc0) == 0x80)
			at->from++;
	}
	*ret_found = false;
	return STATUS_OK;
}
