#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/chat/letters.h"
#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/strings.h"
#include "engine/text/unicode.h"

#define FILTER(name)                                                                                                               \
	static enum status name(struct run *run, const struct value *self, const struct value *arguments, struct value *ret)

static const struct text space = {" ", 1, 1};

/* An argument where none means that it is not given. */
static const struct value *unless_none(const struct value *argument)
{
	static const struct value missing = {.kind = VALUE_MISSING};
	return argument->kind == VALUE_NONE ? &missing : argument;
}

/* Runs a method of a string on the value's str(). */
static enum status as_method(struct run *run, const char *name, const struct value *self, const struct call *call,
			     struct value *ret)
{
	struct value text;
	TRY(value_to_string(run, self, &text));
	const struct text method = {name, strlen(name), strlen(name)};
	return routine_run(run, python_method_find(&text, &method), &text, call, ret);
}

/* ---- strings ------------------------------------------------------------------------------------------------------------- */
FILTER(filter_trim)
{
	const struct call call = {.positional = arguments, .count = is_given(&arguments[0])};
	return as_method(run, "strip", self, &call, ret);
}

FILTER(filter_upper)
{
	(void)arguments;
	return as_method(run, "upper", self, &(struct call){0}, ret);
}

FILTER(filter_lower)
{
	(void)arguments;
	return as_method(run, "lower", self, &(struct call){0}, ret);
}

FILTER(filter_capitalize)
{
	(void)arguments;
	return as_method(run, "capitalize", self, &(struct call){0}, ret);
}

static bool begins_word(uint32_t c)
{
	return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || letter_is_space(c);
}

/* Words begin behind spaces, hyphens and opening brackets. */
static enum status title_into(struct run *run, struct buffer *buffer, const struct text *text)
{
	const char *at = text->data, *end = at + text->bytes;
	bool separators = false, first = true; /* the kind of the part, and whether `at` begins it */
	while (at < end) {
		const char *next = at;
		bool is_separator = begins_word(utf8_next(&next));
		first = at == text->data || is_separator != separators;
		separators = is_separator;
		const struct text letter = {.data = at, .bytes = (size_t)(next - at), .characters = 1};
		TRY(letters_change(run, buffer, &letter, first ? CASE_UPPER : CASE_LOWER));
		at = next;
	}
	return STATUS_OK;
}

FILTER(filter_title)
{
	struct buffer buffer = {0};
	struct value text;
	(void)arguments;
	TRY(value_to_string(run, self, &text));
	return string_take(run, title_into(run, &buffer, text.text), &buffer, ret);
}

FILTER(filter_replace)
{
	struct value text, old, new;
	int64_t most;
	TRY(value_to_string(run, self, &text));
	TRY(value_to_string(run, &arguments[0], &old));
	TRY(value_to_string(run, &arguments[1], &new));
	TRY(argument_int(run, unless_none(&arguments[2]), "count", -1, &most));
	return string_replace(run, text.text, old.text, new.text, most, ret);
}

FILTER(filter_string)
{
	(void)arguments;
	return value_to_string(run, self, ret);
}

FILTER(filter_safe)
{
	(void)arguments;
	TRY(value_to_string(run, self, ret));
	ret->safe = true;
	return STATUS_OK;
}

static enum status escape_into(struct run *run, struct buffer *buffer, const struct text *text)
{
	static const char from[] = "&<>'\"";
	static const char *const to[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
	const char *at = text->data, *end = at + text->bytes;
	while (at < end) {
		const char *start = at, *known = NULL;
		while (at < end && !(known = *at ? strchr(from, *at) : NULL))
			at++;
		TRY(run_append(run, buffer, start, (size_t)(at - start)));
		if (at == end) break;
		TRY(run_append(run, buffer, to[known - from], strlen(to[known - from])));
		at++;
	}
	return STATUS_OK;
}

FILTER(filter_forceescape)
{
	struct buffer buffer = {0};
	struct value text;
	(void)arguments;
	TRY(value_to_string(run, self, &text));
	TRY(string_take(run, escape_into(run, &buffer, text.text), &buffer, ret));
	ret->safe = true;
	return STATUS_OK;
}

FILTER(filter_escape)
{
	if (self->kind != VALUE_STRING || !self->safe) return filter_forceescape(run, self, arguments, ret);
	*ret = *self;
	return STATUS_OK;
}

static enum status indent_into(struct run *run, struct buffer *buffer, const struct list *lines, const struct text *by, bool first,
			       bool blank)
{
	for (size_t i = 0; i < lines->count; i++) {
		const struct text *line = lines->items[i].text;
		if (i) TRY(run_append(run, buffer, "\n", 1));
		if (i ? blank || line->bytes : first) TRY(run_append(run, buffer, by->data, by->bytes));
		TRY(run_append(run, buffer, line->data, line->bytes));
	}
	return STATUS_OK;
}

/* Every line but the first, and what is empty. */
FILTER(filter_indent)
{
	struct buffer buffer = {0};
	struct value text, lines, by = arguments[0];
	int64_t width;
	TRY(value_need(run, self));
	if (self->kind != VALUE_STRING) return run_fail(run, "indent of a value of type '%s'", value_type(self));
	if (by.kind != VALUE_STRING) {
		TRY(argument_int(run, &arguments[0], "width", 4, &width));
		TRY(string_repeat(run, &space, width, &by));
	}
	struct buffer whole = {0};
	enum status status = run_append(run, &whole, self->text->data, self->text->bytes);
	if (status == STATUS_OK) status = run_append(run, &whole, "\n", 1);
	TRY(string_take(run, status, &whole, &text));
	TRY(string_lines(run, text.text, false, &lines));
	status = indent_into(run, &buffer, lines.list, by.text, value_truth(&arguments[1]), value_truth(&arguments[2]));
	TRY(string_take(run, status, &buffer, ret));
	ret->safe = self->safe;
	return STATUS_OK;
}

FILTER(filter_center)
{
	struct value text;
	struct buffer buffer = {0};
	int64_t width;
	TRY(value_to_string(run, self, &text));
	TRY(argument_int(run, &arguments[0], "width", 80, &width));
	if (width < 0) width = 0;
	int64_t pad = width - (int64_t)text.text->characters;
	if (pad <= 0 || pad > RUN_OUTPUT) {
		*ret = text;
		return pad <= 0 ? STATUS_OK : run_refuse(run, "such a width");
	}
	int64_t left = pad / 2 + (pad & width & 1);
	enum status status = STATUS_OK;
	for (int64_t i = 0; i < pad && status == STATUS_OK; i++) {
		if (i == left) status = run_append(run, &buffer, text.text->data, text.text->bytes);
		if (status == STATUS_OK) status = run_append(run, &buffer, " ", 1);
	}
	if (left == pad && status == STATUS_OK) status = run_append(run, &buffer, text.text->data, text.text->bytes);
	return string_take(run, status, &buffer, ret);
}

/* %s, %d and %% of Python's formats. */
static enum status format_into(struct run *run, const struct text *text, const struct call *call, struct buffer *buffer)
{
	const char *at = text->data, *end = at + text->bytes;
	size_t used = 0;
	while (at < end) {
		const char *start = at;
		while (at < end && *at != '%')
			at++;
		TRY(run_append(run, buffer, start, (size_t)(at - start)));
		if (at == end) break;
		char kind = at + 1 < end ? at[1] : 0;
		at += 2;
		if (kind == '%') {
			TRY(run_append(run, buffer, "%", 1));
			continue;
		}
		if (!kind || !strchr("sdir", kind)) return run_refuse(run, "a format of other than %%s, %%d, %%i, %%r and %%%%");
		if (used == call->count) return run_fail(run, "not enough arguments for format string");
		struct value value = call->positional[used++];
		if (kind == 'd' || kind == 'i') {
			TRY(value_need(run, &value));
			if (!value_is_number(&value))
				return run_fail(run, "%%%c of a value of type '%s'", kind, value_type(&value));
			if (!value_is_whole(&value))
				return run_refuse(run, "%%%c of a value of type '%s'", kind, value_type(&value));
			value = VALUE_OF_INT(value_whole(&value));
		}
		TRY(kind == 'r' ? print_repr(run, buffer, &value) : print_value(run, buffer, &value));
	}
	return used == call->count ? STATUS_OK : run_fail(run, "not all arguments converted during string formatting");
}

static enum status filter_format(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	struct buffer buffer = {0};
	struct value text;
	TRY(value_to_string(run, self, &text));
	if (call->named_count || text.safe) return run_refuse(run, "a format by names, or of a string that is marked safe");
	return string_take(run, format_into(run, text.text, call, &buffer), &buffer, ret);
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------- */
FILTER(filter_abs)
{
	(void)arguments;
	TRY(value_need(run, self));
	if (!value_is_number(self)) return run_fail(run, "abs of a value of type '%s'", value_type(self));
	if (self->kind == VALUE_FLOAT) {
		*ret = VALUE_OF_FLOAT(fabs(self->real));
		return STATUS_OK;
	}
	int64_t whole = value_whole(self);
	if (whole == INT64_MIN) return run_refuse(run, "a number beyond 64 bits");
	*ret = VALUE_OF_INT(whole < 0 ? -whole : whole);
	return STATUS_OK;
}

/* Reads a whole text as Python's float() does; false where it is none. */
static bool read_float(const struct text *text, double *ret)
{
	char plain[128];
	size_t count = 0, at = 0, end = text->bytes;
	while (at < end && (text->data[at] == ' ' || (text->data[at] >= '\t' && text->data[at] <= '\r')))
		at++;
	while (end > at && (text->data[end - 1] == ' ' || (text->data[end - 1] >= '\t' && text->data[end - 1] <= '\r')))
		end--;
	for (; at < end; at++) {
		char c = text->data[at];
		if (c == '_' && count && at + 1 < end && plain[count - 1] >= '0' && plain[count - 1] <= '9' &&
		    text->data[at + 1] >= '0' && text->data[at + 1] <= '9')
			continue;
		if (!strchr("0123456789+-.eE", c) || !c || count == sizeof plain - 1) return false;
		plain[count++] = c;
	}
	plain[count] = 0;
	char *stop;
	*ret = strtod(plain, &stop);
	return count && !*stop;
}

static bool read_int(const struct text *text, int64_t base, int64_t *ret)
{
	char plain[80], *stop;
	size_t count = 0;
	for (size_t i = 0; i < text->bytes; i++) {
		char c = text->data[i];
		if (c == '_') continue;
		if (!c || count == sizeof plain - 1) return false;
		plain[count++] = c;
	}
	plain[count] = 0;
	char *start = plain + strspn(plain, " \t\n\v\f\r");
	while (count && strchr(" \t\n\v\f\r", plain[count - 1]))
		plain[--count] = 0;
	*ret = strtoll(start, &stop, (int)base);
	return *start && !*stop && *ret != INT64_MAX && *ret != INT64_MIN;
}

FILTER(filter_int)
{
	const struct value zero = VALUE_OF_INT(0);
	int64_t base, whole;
	double real;
	TRY(value_need(run, self));
	if (self->kind == VALUE_STRING) TRY(run_spend_bytes(run, self->text->bytes));
	TRY(argument_int(run, unless_none(&arguments[1]), "base", 10, &base));
	if (base != 10 && base != 16 && base != 8 && base != 2) return run_refuse(run, "int of the base %lld", (long long)base);
	*ret = is_given(&arguments[0]) ? arguments[0] : zero;
	if (value_is_whole(self)) {
		*ret = VALUE_OF_INT(value_whole(self));
	} else if (self->kind == VALUE_STRING && read_int(self->text, base, &whole)) {
		*ret = VALUE_OF_INT(whole);
	} else if (self->kind == VALUE_FLOAT || (self->kind == VALUE_STRING && read_float(self->text, &real))) {
		if (self->kind == VALUE_FLOAT) real = self->real;
		if (isfinite(real) && fabs(real) > 9e18) return run_refuse(run, "a number beyond 64 bits");
		if (isinf(real)) return run_fail(run, "cannot convert float infinity to integer");
		if (isfinite(real)) *ret = VALUE_OF_INT(real);
	}
	return STATUS_OK;
}

FILTER(filter_float)
{
	double real;
	TRY(value_need(run, self));
	if (self->kind == VALUE_STRING) TRY(run_spend_bytes(run, self->text->bytes));
	*ret = is_given(&arguments[0]) ? arguments[0] : VALUE_OF_FLOAT(0);
	if (value_is_number(self)) *ret = VALUE_OF_FLOAT(value_real(self));
	if (self->kind == VALUE_STRING && read_float(self->text, &real)) *ret = VALUE_OF_FLOAT(real);
	return STATUS_OK;
}

FILTER(filter_round)
{
	const struct text *method = NULL;
	int64_t precision;
	char text[400];
	TRY(value_need(run, self));
	TRY(argument_int(run, &arguments[0], "precision", 0, &precision));
	if (is_given(&arguments[1])) TRY(argument_text(run, &arguments[1], "method", &method));
	if (!value_is_number(self)) return run_fail(run, "round of a value of type '%s'", value_type(self));
	if (precision < 0 || precision > 15) return run_refuse(run, "round to %lld digits", (long long)precision);
	double real = value_real(self), scale = pow(10, (double)precision);
	if (method && text_is(method, "ceil")) {
		*ret = VALUE_OF_FLOAT(ceil(real * scale) / scale);
	} else if (method && text_is(method, "floor")) {
		*ret = VALUE_OF_FLOAT(floor(real * scale) / scale);
	} else if (method && !text_is(method, "common")) {
		return run_fail(run, "method must be common, ceil or floor");
	} else if (value_is_whole(self)) {
		*ret = VALUE_OF_INT(value_whole(self));
	} else {
		snprintf(text, sizeof text, "%.*f", (int)precision, real);
		*ret = VALUE_OF_FLOAT(isfinite(real) ? strtod(text, NULL) : real);
	}
	return STATUS_OK;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */
static enum status json_separators(struct run *run, const struct value *pair, struct json_style *style)
{
	if (!is_given(pair) || pair->kind == VALUE_NONE) return STATUS_OK;
	if ((pair->kind != VALUE_TUPLE && pair->kind != VALUE_LIST) || pair->list->count != 2)
		return run_fail(run, "separators must be two strings");
	TRY(argument_text(run, &pair->list->items[0], "a separator", &style->item));
	return argument_text(run, &pair->list->items[1], "a separator", &style->key);
}

FILTER(filter_tojson)
{
	static const struct text comma_space = {", ", 2, 2}, comma = {",", 1, 1}, colon = {": ", 2, 2};
	struct buffer buffer = {0};
	struct value indent;
	int64_t width;
	struct json_style style = {
		.ascii = value_truth(&arguments[0]), .item = &comma_space, .key = &colon, .sorted = value_truth(&arguments[3])};
	if (is_given(&arguments[1]) && arguments[1].kind != VALUE_NONE) {
		indent = arguments[1];
		if (indent.kind != VALUE_STRING) {
			TRY(argument_int(run, &arguments[1], "indent", 0, &width));
			TRY(string_repeat(run, &space, width, &indent));
		}
		style.indent = indent.text;
		style.item = &comma;
	}
	TRY(json_separators(run, &arguments[2], &style));
	return string_take(run, print_json(run, &buffer, self, &style), &buffer, ret);
}

/* ---- default ------------------------------------------------------------------------------------------------------------- */
FILTER(filter_default)
{
	bool falls = self->kind == VALUE_UNDEFINED || (value_truth(&arguments[1]) && !value_truth(self));
	*ret = *self;
	if (!falls) return STATUS_OK;
	*ret = arguments[0];
	return is_given(&arguments[0]) ? STATUS_OK : value_c_string(run, "", ret);
}

FILTER(filter_attr)
{
	const struct text *name;
	bool there;
	TRY(argument_text(run, &arguments[0], "attr's argument", &name));
	TRY(value_need(run, self));
	if (self->kind == VALUE_NAMESPACE || self->kind == VALUE_LOOP) return value_attribute(run, self, name, ret);
	TRY(routine_of(run, self, name, ret, &there));
	return there ? STATUS_OK : value_undefined(run, value_type(self), name, ret);
}

static const struct routine filters[] = {
	{"trim", "chars", 0, filter_trim, NULL},
	{"upper", "", 0, filter_upper, NULL},
	{"lower", "", 0, filter_lower, NULL},
	{"capitalize", "", 0, filter_capitalize, NULL},
	{"title", "", 0, filter_title, NULL},
	{"replace", "old new count", 2, filter_replace, NULL},
	{"string", "", 0, filter_string, NULL},
	{"safe", "", 0, filter_safe, NULL},
	{"e", "", 0, filter_escape, NULL},
	{"escape", "", 0, filter_escape, NULL},
	{"forceescape", "", 0, filter_forceescape, NULL},
	{"indent", "width first blank", 0, filter_indent, NULL},
	{"center", "width", 0, filter_center, NULL},
	{"format", "", 0, NULL, filter_format},
	{"abs", "", 0, filter_abs, NULL},
	{"int", "default base", 0, filter_int, NULL},
	{"float", "default", 0, filter_float, NULL},
	{"round", "precision method", 0, filter_round, NULL},
	{"tojson", "ensure_ascii indent separators sort_keys", 0, filter_tojson, NULL},
	{"default", "default_value boolean", 0, filter_default, NULL},
	{"d", "default_value boolean", 0, filter_default, NULL},
	{"attr", "name", 1, filter_attr, NULL},
};

/* Those of lists are in list_filters.c. */
enum status run_filter(struct run *run, const struct text *name, const struct value *self, const struct call *call,
		       struct value *ret)
{
	const struct routine *filter = routine_find(filters, sizeof filters / sizeof *filters, name);
	if (!filter) filter = list_filter_find(name);
	if (!filter) return run_refuse(run, "there is no filter '%.*s'", name->bytes < 64 ? (int)name->bytes : 64, name->data);
	return routine_run(run, filter, self, call, ret);
}
