#include "engine/chat/letters.h"
#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/scope.h"
#include "engine/chat/strings.h"
#include "engine/text/unicode.h"

#define METHOD(name)                                                                                                               \
	static enum status name(struct run *run, const struct value *self, const struct value *arguments, struct value *ret)

/* ---- strings ------------------------------------------------------------------------------------------------------------- */
static enum status strip(struct run *run, const struct value *self, const struct value *arguments, int sides, struct value *ret)
{
	const struct text *chars = NULL;
	if (is_given(&arguments[0]) && arguments[0].kind != VALUE_NONE)
		TRY(argument_text(run, &arguments[0], "strip's argument", &chars));
	TRY(letters_strip(run, self->text, chars, sides, ret));
	ret->safe = self->safe;
	return STATUS_OK;
}

METHOD(str_strip)
{
	return strip(run, self, arguments, STRIP_LEFT | STRIP_RIGHT, ret);
}

METHOD(str_lstrip)
{
	return strip(run, self, arguments, STRIP_LEFT, ret);
}

METHOD(str_rstrip)
{
	return strip(run, self, arguments, STRIP_RIGHT, ret);
}

static enum status change_case(struct run *run, const struct value *self, enum letter_case to, struct value *ret)
{
	struct buffer buffer = {0};
	bool safe = self->safe;
	TRY(string_take(run, letters_change(run, &buffer, self->text, to), &buffer, ret));
	ret->safe = safe;
	return STATUS_OK;
}

METHOD(str_lower)
{
	(void)arguments;
	return change_case(run, self, CASE_LOWER, ret);
}

METHOD(str_upper)
{
	(void)arguments;
	return change_case(run, self, CASE_UPPER, ret);
}

METHOD(str_capitalize)
{
	(void)arguments;
	return change_case(run, self, CASE_CAPITALIZE, ret);
}

METHOD(str_title)
{
	(void)arguments;
	return change_case(run, self, CASE_TITLE, ret);
}

/* Markup's methods escape their arguments. */
static enum status check_plain(struct run *run, const struct value *self)
{
	return self->safe ? run_refuse(run, "such a method of a string that is marked safe") : STATUS_OK;
}

/* The part of a string that `start` and `end`, characters, leave of it. */
static enum status narrow(struct run *run, const struct value *self, const struct value *ends, struct value *ret)
{
	struct value bounds[3] = {VALUE_OF_NONE, VALUE_OF_NONE, VALUE_OF_NONE};
	for (int i = 0; i < 2; i++)
		if (is_given(&ends[i])) bounds[i] = ends[i];
	*ret = *self;
	return is_given(&ends[0]) ? value_slice(run, self, bounds, ret) : STATUS_OK;
}

static bool has_end(const struct text *text, const struct text *end, bool at_start)
{
	if (end->bytes > text->bytes) return false;
	return memcmp(at_start ? text->data : text->data + text->bytes - end->bytes, end->data, end->bytes) == 0;
}

static enum status any_end(struct run *run, const struct value *self, const struct value *arguments, bool at_start,
			   struct value *ret)
{
	const struct value *ends = &arguments[0];
	struct value part;
	const struct text *end;
	size_t count = 1;
	bool found = false;
	TRY(narrow(run, self, &arguments[1], &part));
	if (ends->kind == VALUE_TUPLE) {
		count = ends->list->count;
		ends = ends->list->items;
	}
	for (size_t i = 0; i < count && !found; i++) {
		TRY(argument_text(run, &ends[i], at_start ? "startswith's argument" : "endswith's argument", &end));
		TRY(run_spend_bytes(run, end->bytes));
		found = has_end(part.text, end, at_start);
	}
	*ret = VALUE_OF_BOOL(found);
	return STATUS_OK;
}

METHOD(str_startswith)
{
	return any_end(run, self, arguments, true, ret);
}

METHOD(str_endswith)
{
	return any_end(run, self, arguments, false, ret);
}

static enum status split(struct run *run, const struct value *self, const struct value *arguments, bool right, struct value *ret)
{
	const struct text *separator = NULL;
	int64_t most;
	TRY(check_plain(run, self));
	if (is_given(&arguments[0]) && arguments[0].kind != VALUE_NONE)
		TRY(argument_text(run, &arguments[0], "a separator", &separator));
	TRY(argument_int(run, &arguments[1], "maxsplit", -1, &most));
	return right ? string_split_right(run, self->text, separator, most, ret)
		     : string_split(run, self->text, separator, most, ret);
}

METHOD(str_split)
{
	return split(run, self, arguments, false, ret);
}

METHOD(str_rsplit)
{
	return split(run, self, arguments, true, ret);
}

METHOD(str_splitlines)
{
	TRY(check_plain(run, self));
	return string_lines(run, self->text, value_truth(&arguments[0]), ret);
}

METHOD(str_replace)
{
	const struct text *old, *new;
	int64_t most;
	TRY(check_plain(run, self));
	TRY(argument_text(run, &arguments[0], "replace's argument", &old));
	TRY(argument_text(run, &arguments[1], "replace's argument", &new));
	TRY(argument_int(run, &arguments[2], "count", -1, &most));
	return string_replace(run, self->text, old, new, most, ret);
}

METHOD(str_join)
{
	struct list items;
	TRY(check_plain(run, self));
	TRY(value_items(run, &arguments[0], &items));
	for (size_t i = 0; i < items.count; i++)
		if (items.items[i].kind != VALUE_STRING)
			return run_fail(run, "join: item %zu is no string, but %s", i, value_type(&items.items[i]));
	return string_join(run, self->text, &items, ret);
}

/* Where the first or last of a text begins, in characters; -1: it is not there. */
static enum status find(struct run *run, const struct value *self, const struct value *arguments, bool last, int64_t *ret)
{
	const struct text *what, *text = self->text;
	const char *found = NULL;
	if (is_given(&arguments[1])) return run_refuse(run, "find from a position");
	TRY(argument_text(run, &arguments[0], "find's argument", &what));
	TRY(run_spend_bytes(run, text->bytes + what->bytes));
	if (!last) found = memmem(text->data, text->bytes, what->data, what->bytes);
	for (size_t at = text->bytes + 1; last && !found && at-- > 0;) {
		TRY(run_spend_bytes(run, what->bytes));
		if (text->bytes - at >= what->bytes && memcmp(text->data + at, what->data, what->bytes) == 0)
			found = text->data + at;
	}
	*ret = -1;
	if (!found) return STATUS_OK;
	struct value before;
	TRY(value_string(run, text->data, (size_t)(found - text->data), &before));
	*ret = (int64_t)before.text->characters;
	return STATUS_OK;
}

static enum status find_value(struct run *run, const struct value *self, const struct value *arguments, bool last, bool must,
			      struct value *ret)
{
	int64_t at;
	TRY(find(run, self, arguments, last, &at));
	if (must && at < 0) return run_fail(run, "substring not found");
	*ret = VALUE_OF_INT(at);
	return STATUS_OK;
}

METHOD(str_find)
{
	return find_value(run, self, arguments, false, false, ret);
}

METHOD(str_rfind)
{
	return find_value(run, self, arguments, true, false, ret);
}

METHOD(str_index)
{
	return find_value(run, self, arguments, false, true, ret);
}

METHOD(str_rindex)
{
	return find_value(run, self, arguments, true, true, ret);
}

METHOD(str_count)
{
	const struct text *what;
	int64_t count = 0;
	TRY(argument_text(run, &arguments[0], "count's argument", &what));
	TRY(run_spend_bytes(run, self->text->bytes + what->bytes));
	const char *at = self->text->data, *end = at + self->text->bytes;
	while (what->bytes && (at = memmem(at, (size_t)(end - at), what->data, what->bytes))) {
		at += what->bytes;
		count++;
	}
	*ret = VALUE_OF_INT(what->bytes ? count : (int64_t)self->text->characters + 1);
	return STATUS_OK;
}

static enum status remove_end(struct run *run, const struct value *self, const struct value *arguments, bool at_start,
			      struct value *ret)
{
	const struct text *end, *text = self->text;
	TRY(argument_text(run, &arguments[0], "what is removed", &end));
	TRY(run_spend_bytes(run, end->bytes));
	*ret = *self;
	if (!has_end(text, end, at_start)) return STATUS_OK;
	TRY(value_string(run, at_start ? text->data + end->bytes : text->data, text->bytes - end->bytes, ret));
	ret->safe = self->safe;
	return STATUS_OK;
}

METHOD(str_removeprefix)
{
	return remove_end(run, self, arguments, true, ret);
}

METHOD(str_removesuffix)
{
	return remove_end(run, self, arguments, false, ret);
}

static enum status partition(struct run *run, const struct value *self, const struct value *arguments, bool last, struct value *ret)
{
	struct value split_value, *parts = run_new(run, 3, sizeof *parts);
	const struct text *separator;
	if (!parts) return run->status;
	TRY(check_plain(run, self));
	TRY(argument_text(run, &arguments[0], "a separator", &separator));
	TRY(last ? string_split_right(run, self->text, separator, 1, &split_value)
		 : string_split(run, self->text, separator, 1, &split_value));
	const struct list *list = split_value.list;
	for (int i = 0; i < 3; i++)
		TRY(value_c_string(run, "", &parts[i]));
	parts[last && list->count == 1 ? 2 : 0] = list->items[0];
	if (list->count == 2) {
		parts[1] = arguments[0];
		parts[2] = list->items[1];
	}
	return value_list(run, VALUE_TUPLE, parts, 3, ret);
}

METHOD(str_partition)
{
	return partition(run, self, arguments, false, ret);
}

METHOD(str_rpartition)
{
	return partition(run, self, arguments, true, ret);
}

/* Whether a string is not empty, and all of its characters are of a kind. */
static enum status all_are(struct run *run, const struct value *self, bool (*is)(uint32_t), struct value *ret)
{
	const char *at = self->text->data, *end = at + self->text->bytes;
	bool all = at < end;
	TRY(run_spend_bytes(run, self->text->bytes));
	while (all && at < end)
		all = is(utf8_next(&at));
	*ret = VALUE_OF_BOOL(all);
	return STATUS_OK;
}

static bool is_alphanumeric(uint32_t c)
{
	return letter_is_alphabetic(c) || letter_is_numeric(c);
}

METHOD(str_isalpha)
{
	(void)arguments;
	return all_are(run, self, letter_is_alphabetic, ret);
}

METHOD(str_isalnum)
{
	(void)arguments;
	return all_are(run, self, is_alphanumeric, ret);
}

METHOD(str_isdecimal)
{
	(void)arguments;
	return all_are(run, self, letter_is_decimal, ret);
}

/* Digits that are no decimals, as ², are. */
METHOD(str_isdigit)
{
	const char *at = self->text->data, *end = at + self->text->bytes;
	while (at < end) {
		uint32_t c = utf8_next(&at);
		if (letter_is_numeric(c) && !letter_is_decimal(c)) return run_refuse(run, "isdigit of U+%04X", (unsigned)c);
	}
	return str_isdecimal(run, self, arguments, ret);
}

METHOD(str_isspace)
{
	(void)arguments;
	return all_are(run, self, letter_is_space, ret);
}

static enum status is_case(struct run *run, const struct value *self, bool upper, struct value *ret)
{
	const char *at = self->text->data, *end = at + self->text->bytes;
	bool some = false, other = false;
	TRY(run_spend_bytes(run, self->text->bytes));
	while (at < end) {
		uint32_t c = utf8_next(&at);
		bool is_upper = letter_is_upper(c), is_lower = letter_is_lower(c);
		some = some || (upper ? is_upper : is_lower);
		other = other || (upper ? is_lower : is_upper) || letter_is_title(c);
	}
	*ret = VALUE_OF_BOOL(some && !other);
	return STATUS_OK;
}

METHOD(str_isupper)
{
	(void)arguments;
	return is_case(run, self, true, ret);
}

METHOD(str_islower)
{
	(void)arguments;
	return is_case(run, self, false, ret);
}

/* ---- format -------------------------------------------------------------------------------------------------------------- */
/* What stands between braces: nothing, a number, or a name. */
static enum status find_field(struct run *run, const char *name, size_t bytes, const struct call *call, int *next,
			      const struct value **ret)
{
	size_t index = 0;
	bool number = true;
	for (size_t i = 0; i < bytes; i++) {
		if (memchr(".[]!:{", name[i], 6)) return run_refuse(run, "format with more than names between { and }");
		number = number && name[i] >= '0' && name[i] <= '9' && i < 6;
		if (number) index = index * 10 + (size_t)(name[i] - '0');
	}
	*ret = NULL;
	if (number && bytes == 0 && *next < 0)
		return run_fail(run, "cannot switch from manual field specification to automatic numbering");
	if (number && bytes && *next > 0)
		return run_fail(run, "cannot switch from automatic field numbering to manual specification");
	if (number && bytes) *next = -1;
	if (number && bytes == 0) index = (size_t)(*next)++;
	if (number && index < call->count) *ret = &call->positional[index];
	for (size_t i = 0; !number && i < call->named_count; i++) {
		const struct text *other = call->named[i].name;
		if (other->bytes == bytes && memcmp(other->data, name, bytes) == 0) *ret = &call->named[i].value;
	}
	return *ret ? STATUS_OK : run_fail(run, "format has nothing for {%.*s}", bytes < 64 ? (int)bytes : 64, name);
}

static enum status format_into(struct run *run, const struct text *text, const struct call *call, struct buffer *buffer)
{
	const char *at = text->data, *end = at + text->bytes;
	int next = 0;
	while (at < end) {
		const char *start = at;
		while (at < end && *at != '{' && *at != '}')
			at++;
		TRY(run_append(run, buffer, start, (size_t)(at - start)));
		if (at == end) break;
		if (at + 1 < end && at[1] == at[0]) {
			TRY(run_append(run, buffer, at, 1));
			at += 2;
			continue;
		}
		const char *stop = *at == '{' ? memchr(at, '}', (size_t)(end - at)) : NULL;
		if (!stop) return run_fail(run, "single '%c' encountered in format string", *at);
		TRY(run_spend_bytes(run, (size_t)(stop - at)));
		const struct value *value;
		TRY(find_field(run, at + 1, (size_t)(stop - at - 1), call, &next, &value));
		TRY(print_value(run, buffer, value));
		at = stop + 1;
	}
	return STATUS_OK;
}

static enum status str_format(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	struct buffer buffer = {0};
	TRY(check_plain(run, self));
	return string_take(run, format_into(run, self->text, call, &buffer), &buffer, ret);
}

/* ---- dicts and lists ----------------------------------------------------------------------------------------------------- */
static enum status view(struct run *run, const struct dict *dict, enum value_kind kind, struct value *ret)
{
	struct value *items = run_new(run, dict->count, sizeof *items);
	if (!items) return run->status;
	TRY(run_spend(run, dict->count));
	for (size_t i = 0; i < dict->count; i++) {
		const struct pair *pair = &dict->pairs[i];
		items[i] = kind == VALUE_KEYS ? pair->key : pair->value;
		if (kind == VALUE_ITEMS) TRY(value_pair(run, &pair->key, &pair->value, &items[i]));
	}
	return value_list(run, kind, items, dict->count, ret);
}

METHOD(dict_items)
{
	(void)arguments;
	return view(run, self->dict, VALUE_ITEMS, ret);
}

METHOD(dict_keys)
{
	(void)arguments;
	return view(run, self->dict, VALUE_KEYS, ret);
}

METHOD(dict_values)
{
	(void)arguments;
	return view(run, self->dict, VALUE_VALUES, ret);
}

METHOD(dict_get_method)
{
	const struct value *found;
	TRY(dict_get(run, self->dict, &arguments[0], &found));
	*ret = found ? *found : is_given(&arguments[1]) ? arguments[1] : VALUE_OF_NONE;
	return STATUS_OK;
}

METHOD(copy)
{
	(void)run;
	(void)arguments;
	*ret = *self; /* nothing changes it */
	return STATUS_OK;
}

METHOD(list_index)
{
	bool equal = false;
	for (size_t i = 0; i < self->list->count; i++) {
		TRY(value_equal(run, &self->list->items[i], &arguments[0], &equal));
		*ret = VALUE_OF_INT(i);
		if (equal) return STATUS_OK;
	}
	return run_fail(run, "index: the value is not in the list");
}

METHOD(list_count)
{
	int64_t count = 0;
	for (size_t i = 0; i < self->list->count; i++) {
		bool equal;
		TRY(value_equal(run, &self->list->items[i], &arguments[0], &equal));
		count += equal;
	}
	*ret = VALUE_OF_INT(count);
	return STATUS_OK;
}

/* ---- loop ---------------------------------------------------------------------------------------------------------------- */
static enum status loop_cycle(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	if (!call->count) return run_fail(run, "no items for cycling given");
	*ret = call->positional[(size_t)self->loop->index0 % call->count];
	return STATUS_OK;
}

static enum status loop_changed(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	struct loop *loop = self->loop;
	struct value now;
	bool same = false;
	TRY(value_list(run, VALUE_TUPLE, call->positional, call->count, &now));
	if (loop->has_changed) TRY(value_equal(run, &loop->changed, &now, &same));
	loop->has_changed = true;
	if (!same) loop->changed = now;
	*ret = VALUE_OF_BOOL(!same);
	return STATUS_OK;
}

/* ---- tables -------------------------------------------------------------------------------------------------------------- */
static const struct routine string_methods[] = {
	{"strip", "chars", 0, str_strip, NULL},
	{"lstrip", "chars", 0, str_lstrip, NULL},
	{"rstrip", "chars", 0, str_rstrip, NULL},
	{"lower", "", 0, str_lower, NULL},
	{"upper", "", 0, str_upper, NULL},
	{"capitalize", "", 0, str_capitalize, NULL},
	{"title", "", 0, str_title, NULL},
	{"startswith", "prefix start end", 1, str_startswith, NULL},
	{"endswith", "suffix start end", 1, str_endswith, NULL},
	{"split", "sep maxsplit", 0, str_split, NULL},
	{"rsplit", "sep maxsplit", 0, str_rsplit, NULL},
	{"splitlines", "keepends", 0, str_splitlines, NULL},
	{"replace", "old new count", 2, str_replace, NULL},
	{"join", "iterable", 1, str_join, NULL},
	{"find", "sub start end", 1, str_find, NULL},
	{"rfind", "sub start end", 1, str_rfind, NULL},
	{"index", "sub start end", 1, str_index, NULL},
	{"rindex", "sub start end", 1, str_rindex, NULL},
	{"count", "sub", 1, str_count, NULL},
	{"removeprefix", "prefix", 1, str_removeprefix, NULL},
	{"removesuffix", "suffix", 1, str_removesuffix, NULL},
	{"partition", "sep", 1, str_partition, NULL},
	{"rpartition", "sep", 1, str_rpartition, NULL},
	{"isalpha", "", 0, str_isalpha, NULL},
	{"isalnum", "", 0, str_isalnum, NULL},
	{"isdigit", "", 0, str_isdigit, NULL},
	{"isdecimal", "", 0, str_isdecimal, NULL},
	{"isspace", "", 0, str_isspace, NULL},
	{"isupper", "", 0, str_isupper, NULL},
	{"islower", "", 0, str_islower, NULL},
	{"format", "", 0, NULL, str_format},

	/* what Python has besides: refused where it is called */
	{"casefold", "", 0, NULL, NULL},
	{"center", "", 0, NULL, NULL},
	{"encode", "", 0, NULL, NULL},
	{"expandtabs", "", 0, NULL, NULL},
	{"format_map", "", 0, NULL, NULL},
	{"isascii", "", 0, NULL, NULL},
	{"isidentifier", "", 0, NULL, NULL},
	{"isnumeric", "", 0, NULL, NULL},
	{"isprintable", "", 0, NULL, NULL},
	{"istitle", "", 0, NULL, NULL},
	{"ljust", "", 0, NULL, NULL},
	{"maketrans", "", 0, NULL, NULL},
	{"rjust", "", 0, NULL, NULL},
	{"swapcase", "", 0, NULL, NULL},
	{"translate", "", 0, NULL, NULL},
	{"zfill", "", 0, NULL, NULL},
};

static const struct routine dict_methods[] = {
	{"items", "", 0, dict_items, NULL},   {"keys", "", 0, dict_keys, NULL},
	{"values", "", 0, dict_values, NULL}, {"get", "key default", 1, dict_get_method, NULL},
	{"copy", "", 0, copy, NULL},          {"fromkeys", "", 0, NULL, NULL},
};

static const struct routine list_methods[] = {
	{"index", "value", 1, list_index, NULL},
	{"count", "value", 1, list_count, NULL},
	{"copy", "", 0, copy, NULL},
};

static const struct routine loop_methods[] = {
	{"cycle", "", 0, NULL, loop_cycle},
	{"changed", "", 0, NULL, loop_changed},
};

#define FIND(table, name) routine_find(table, sizeof(table) / sizeof *(table), name)

const struct routine *python_method_find(const struct value *self, const struct text *name)
{
	switch (self->kind) {
	case VALUE_STRING:
		return FIND(string_methods, name);
	case VALUE_DICT:
		return FIND(dict_methods, name);
	case VALUE_LIST:
		return FIND(list_methods, name);
	case VALUE_TUPLE:
	case VALUE_RANGE:
		return text_is(name, "copy") ? NULL : FIND(list_methods, name);
	default:
		return NULL;
	}
}

const struct routine *loop_method_find(const struct text *name)
{
	return FIND(loop_methods, name);
}
