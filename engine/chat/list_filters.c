#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/scope.h"
#include "engine/chat/strings.h"

#define FILTER(name)                                                                                                               \
	static enum status name(struct run *run, const struct value *self, const struct value *arguments, struct value *ret)

static enum status as_generator(struct run *run, const struct collector *collector, struct value *ret)
{
	return value_list(run, VALUE_GENERATOR, collector->items, collector->count, ret);
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------- */
static enum status follow(struct run *run, const struct text *name, struct value *value)
{
	struct value key = {.kind = VALUE_STRING, .text = name}, part;
	bool number = name->bytes > 0 && name->bytes < 19;
	int64_t index = 0;
	for (size_t i = 0; i < name->bytes && number; i++) {
		number = name->data[i] >= '0' && name->data[i] <= '9';
		index = index * 10 + (name->data[i] - '0');
	}
	if (number) key = VALUE_OF_INT(index);
	TRY(value_item(run, value, &key, &part));
	*value = part;
	return STATUS_OK;
}

/* What a filter's `attribute` says of an item: "a.b.0", a number, or nothing: the item itself. Where it is undefined and
 * `otherwise` is something, that. */
static enum status attribute_of(struct run *run, const struct value *item, const struct value *attribute,
				const struct value *otherwise, struct value *ret)
{
	struct value parts, found = *item;
	*ret = *item;
	if (!is_given(attribute) || attribute->kind == VALUE_NONE) return STATUS_OK;
	if (attribute->kind == VALUE_STRING) {
		TRY(string_split(run, attribute->text, &(struct text){".", 1, 1}, -1, &parts));
		for (size_t i = 0; i < parts.list->count; i++) {
			TRY(follow(run, parts.list->items[i].text, &found));
			if (found.kind == VALUE_UNDEFINED && is_given(otherwise) && otherwise->kind != VALUE_NONE)
				found = *otherwise;
		}
	} else {
		TRY(value_item(run, item, attribute, &found));
		if (found.kind == VALUE_UNDEFINED && is_given(otherwise) && otherwise->kind != VALUE_NONE) found = *otherwise;
	}
	*ret = found;
	return STATUS_OK;
}

/* ---- one of many --------------------------------------------------------------------------------------------------------- */
FILTER(filter_first)
{
	struct list items;
	(void)arguments;
	if (self->kind == VALUE_GENERATOR) { /* takes one */
		struct list *list = self->list;
		if (list->taken == list->count) return value_undefined_for(run, "No first item, sequence was empty.", ret);
		*ret = list->items[list->taken++];
		return STATUS_OK;
	}
	if (self->kind == VALUE_STRING && self->text->characters) return text_part(run, self->text, 0, 1, ret);
	TRY(value_items(run, self, &items));
	if (!items.count) return value_undefined_for(run, "No first item, sequence was empty.", ret);
	*ret = items.items[0];
	return STATUS_OK;
}

FILTER(filter_last)
{
	struct list items;
	(void)arguments;
	if (self->kind == VALUE_GENERATOR) return run_fail(run, "'generator' object is not reversible");
	if (self->kind == VALUE_STRING && self->text->characters)
		return text_part(run, self->text, self->text->characters - 1, self->text->characters, ret);
	TRY(value_items(run, self, &items));
	if (!items.count) return value_undefined_for(run, "No last item, sequence was empty.", ret);
	*ret = items.items[items.count - 1];
	return STATUS_OK;
}

FILTER(filter_length)
{
	size_t length;
	(void)arguments;
	TRY(value_length(run, self, &length));
	*ret = VALUE_OF_INT(length);
	return STATUS_OK;
}

static enum status lower_key(struct run *run, const struct value *key, const struct value *case_sensitive, struct value *ret)
{
	*ret = *key;
	if (key->kind != VALUE_STRING || value_truth(case_sensitive)) return STATUS_OK;
	return run_filter(run, &(struct text){"lower", 5, 5}, key, &(struct call){0}, ret);
}

static enum status extreme(struct run *run, const struct value *self, const struct value *arguments, int sign, struct value *ret)
{
	struct list items;
	struct value best = VALUE_OF_NONE, key;
	TRY(value_items(run, self, &items));
	if (!items.count) return value_undefined_for(run, "No aggregated item, sequence was empty.", ret);
	for (size_t i = 0; i < items.count; i++) {
		int order = sign;
		TRY(attribute_of(run, &items.items[i], &arguments[1], &VALUE_OF_NONE, &key));
		TRY(lower_key(run, &key, &arguments[0], &key));
		if (i) TRY(value_compare(run, &key, &best, &order));
		if (order * sign <= 0) continue;
		best = key;
		*ret = items.items[i];
	}
	return STATUS_OK;
}

FILTER(filter_min)
{
	return extreme(run, self, arguments, -1, ret);
}

FILTER(filter_max)
{
	return extreme(run, self, arguments, 1, ret);
}

FILTER(filter_sum)
{
	struct list items;
	struct value sum = is_given(&arguments[1]) ? arguments[1] : VALUE_OF_INT(0), item, next;
	if (sum.kind == VALUE_STRING) return run_fail(run, "sum() can't sum strings");
	TRY(value_items(run, self, &items));
	TRY(run_spend(run, items.count));
	for (size_t i = 0; i < items.count; i++) {
		TRY(attribute_of(run, &items.items[i], &arguments[0], &VALUE_OF_NONE, &item));
		TRY(operate(run, TOKEN_ADD, &sum, &item, &next));
		sum = next;
	}
	*ret = sum;
	return STATUS_OK;
}

/* ---- all of them --------------------------------------------------------------------------------------------------------- */
FILTER(filter_join)
{
	struct list items;
	struct value separator, *parts;
	TRY(value_items(run, self, &items));
	if (is_given(&arguments[0]))
		TRY(value_to_string(run, &arguments[0], &separator));
	else
		TRY(value_c_string(run, "", &separator));
	if (!(parts = run_new(run, items.count, sizeof *parts))) return run->status;
	for (size_t i = 0; i < items.count; i++)
		TRY(attribute_of(run, &items.items[i], &arguments[1], &VALUE_OF_NONE, &parts[i]));
	return string_join(run, separator.text, &(struct list){.items = parts, .count = items.count}, ret);
}

FILTER(filter_list)
{
	struct list items;
	(void)arguments;
	TRY(value_items(run, self, &items));
	return value_list(run, VALUE_LIST, items.items, items.count, ret);
}

FILTER(filter_items)
{
	struct call none = {0};
	struct value view;
	(void)arguments;
	if (self->kind == VALUE_UNDEFINED) return value_list(run, VALUE_GENERATOR, NULL, 0, ret);
	if (self->kind != VALUE_DICT) return run_fail(run, "Can only get item pairs from a mapping.");
	TRY(routine_run(run, python_method_find(self, &(struct text){"items", 5, 5}), self, &none, &view));
	return value_list(run, VALUE_GENERATOR, view.list->items, view.list->count, ret);
}

FILTER(filter_reverse)
{
	struct list items;
	(void)arguments;
	if (self->kind == VALUE_STRING) {
		const struct value bounds[3] = {VALUE_OF_NONE, VALUE_OF_NONE, VALUE_OF_INT(-1)};
		return value_slice(run, self, bounds, ret);
	}
	bool is_list = self->kind == VALUE_GENERATOR;
	TRY(value_items(run, self, &items));
	struct value *reversed = run_new(run, items.count, sizeof *reversed);
	if (!reversed) return run->status;
	TRY(run_spend(run, items.count));
	for (size_t i = 0; i < items.count; i++)
		reversed[i] = items.items[items.count - 1 - i];
	return value_list(run, is_list ? VALUE_LIST : VALUE_GENERATOR, reversed, items.count, ret);
}

/* Sorts items by keys, stably: halves, which are merged. */
static enum status merge_sort(struct run *run, struct pair *pairs, struct pair *spare, size_t count, int sign)
{
	if (count < 2) return STATUS_OK;
	size_t half = count / 2, left = 0, right = half, at = 0;
	TRY(merge_sort(run, pairs, spare, half, sign));
	TRY(merge_sort(run, pairs + half, spare, count - half, sign));
	while (left < half && right < count) {
		int order;
		TRY(value_compare(run, &pairs[right].key, &pairs[left].key, &order));
		spare[at++] = order * sign < 0 ? pairs[right++] : pairs[left++];
	}
	while (left < half)
		spare[at++] = pairs[left++];
	while (right < count)
		spare[at++] = pairs[right++];
	memcpy(pairs, spare, count * sizeof *pairs);
	return run_spend(run, count);
}

static enum status sort_pairs(struct run *run, struct pair *pairs, size_t count, bool reverse, struct value *ret)
{
	struct pair *spare = run_new(run, count, sizeof *spare);
	struct value *items = spare ? run_new(run, count, sizeof *items) : NULL;
	if (!items) return run->status;
	TRY(merge_sort(run, pairs, spare, count, reverse ? -1 : 1));
	for (size_t i = 0; i < count; i++)
		items[i] = pairs[i].value;
	return value_list(run, VALUE_LIST, items, count, ret);
}

FILTER(filter_sort)
{
	struct list items;
	struct value key;
	TRY(value_items(run, self, &items));
	struct pair *pairs = run_new(run, items.count, sizeof *pairs);
	if (!pairs) return run->status;
	if (arguments[2].kind == VALUE_STRING && memchr(arguments[2].text->data, ',', arguments[2].text->bytes))
		return run_refuse(run, "sort by more than one attribute");
	for (size_t i = 0; i < items.count; i++) {
		TRY(attribute_of(run, &items.items[i], &arguments[2], &VALUE_OF_NONE, &key));
		TRY(lower_key(run, &key, &arguments[1], &pairs[i].key));
		pairs[i].value = items.items[i];
	}
	return sort_pairs(run, pairs, items.count, value_truth(&arguments[0]), ret);
}

FILTER(filter_dictsort)
{
	const struct text *by = NULL;
	TRY(value_need(run, self));
	if (self->kind != VALUE_DICT) return run_fail(run, "dictsort of a value of type '%s'", value_type(self));
	if (is_given(&arguments[1])) TRY(argument_text(run, &arguments[1], "by", &by));
	if (by && !text_is(by, "key") && !text_is(by, "value"))
		return run_fail(run, "You can only sort by either \"key\" or \"value\"");
	const struct dict *dict = self->dict;
	struct pair *pairs = run_new(run, dict->count, sizeof *pairs);
	if (!pairs) return run->status;
	for (size_t i = 0; i < dict->count; i++) {
		const struct value *key = by && text_is(by, "value") ? &dict->pairs[i].value : &dict->pairs[i].key;
		TRY(lower_key(run, key, &arguments[0], &pairs[i].key));
		TRY(value_pair(run, &dict->pairs[i].key, &dict->pairs[i].value, &pairs[i].value));
	}
	return sort_pairs(run, pairs, dict->count, value_truth(&arguments[2]), ret);
}

FILTER(filter_unique)
{
	struct collector found = {0};
	struct list items;
	struct value seen, key;
	const struct value *before, yes = VALUE_OF_BOOL(true);
	TRY(value_items(run, self, &items));
	TRY(value_dict(run, items.count, &seen));
	for (size_t i = 0; i < items.count; i++) {
		TRY(attribute_of(run, &items.items[i], &arguments[1], &VALUE_OF_NONE, &key));
		TRY(lower_key(run, &key, &arguments[0], &key));
		TRY(dict_get(run, seen.dict, &key, &before));
		if (before) continue;
		TRY(dict_put(run, seen.dict, &key, &yes));
		TRY(collect_value(run, &found, &items.items[i]));
	}
	return as_generator(run, &found, ret);
}

FILTER(filter_batch)
{
	struct collector batches = {0};
	struct list items;
	struct value batch;
	int64_t size;
	TRY(argument_int(run, &arguments[0], "linecount", 0, &size));
	TRY(value_items(run, self, &items));
	if (size < 1) return run_refuse(run, "batch of %lld", (long long)size);
	for (size_t at = 0; at < items.count; at += (size_t)size) {
		size_t count = items.count - at < (size_t)size ? items.count - at : (size_t)size;
		bool fills = is_given(&arguments[1]) && arguments[1].kind != VALUE_NONE && count < (size_t)size;
		struct value *part = run_new(run, fills ? (size_t)size : count, sizeof *part);
		if (!part) return run->status;
		memcpy(part, items.items + at, count * sizeof *part);
		for (; fills && count < (size_t)size; count++)
			part[count] = arguments[1];
		TRY(run_spend(run, count));
		TRY(value_list(run, VALUE_LIST, part, count, &batch));
		TRY(collect_value(run, &batches, &batch));
	}
	return as_generator(run, &batches, ret);
}

/* ---- by filters and tests ------------------------------------------------------------------------------------------------ */
static const struct value *named_argument(const struct call *call, const char *name)
{
	static const struct value missing = {.kind = VALUE_MISSING};
	for (size_t i = 0; i < call->named_count; i++)
		if (text_is(call->named[i].name, name)) return &call->named[i].value;
	return &missing;
}

/* The call of the filter or test that an argument names: what follows it. */
static struct call rest_of(const struct call *call, size_t used)
{
	struct call rest = *call;
	rest.positional += used;
	rest.count -= used;
	return rest;
}

static enum status filter_map(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	struct collector found = {0};
	struct list items;
	struct value value;
	const struct text *name = NULL;
	const struct value *attribute = named_argument(call, "attribute"), *otherwise = named_argument(call, "default");
	bool by_attribute = !call->count && is_given(attribute);
	if (!value_truth(self)) return as_generator(run, &found, ret);
	if (by_attribute && call->named_count > 1u + is_given(otherwise)) return run_fail(run, "map got an unexpected argument");
	if (!by_attribute && !call->count) return run_fail(run, "map requires a filter argument");
	if (!by_attribute) TRY(argument_text(run, &call->positional[0], "a filter's name", &name));
	TRY(value_items(run, self, &items));
	for (size_t i = 0; i < items.count; i++) {
		if (by_attribute) {
			TRY(attribute_of(run, &items.items[i], attribute, otherwise, &value));
		} else {
			const struct call rest = rest_of(call, 1);
			TRY(run_filter(run, name, &items.items[i], &rest, &value));
		}
		TRY(collect_value(run, &found, &value));
	}
	return as_generator(run, &found, ret);
}

static enum status choose(struct run *run, const struct value *self, const struct call *call, bool by_attribute, bool wanted,
			  struct value *ret)
{
	struct collector found = {0};
	struct list items;
	struct value value;
	const struct value missing = {.kind = VALUE_MISSING};
	const struct text *test = NULL;
	size_t used = by_attribute;
	if (!value_truth(self)) return as_generator(run, &found, ret);
	if (call->count < used) return run_fail(run, "Missing parameter for attribute name");
	if (call->count > used) TRY(argument_text(run, &call->positional[used], "a test's name", &test));
	TRY(value_items(run, self, &items));
	TRY(run_spend(run, items.count));
	for (size_t i = 0; i < items.count; i++) {
		TRY(attribute_of(run, &items.items[i], by_attribute ? &call->positional[0] : &missing, &missing, &value));
		bool holds = value_truth(&value);
		if (test) {
			const struct call rest = rest_of(call, used + 1);
			TRY(run_test(run, test, &value, &rest, &holds));
		}
		if (holds == wanted) TRY(collect_value(run, &found, &items.items[i]));
	}
	return as_generator(run, &found, ret);
}

static enum status filter_select(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	return choose(run, self, call, false, true, ret);
}

static enum status filter_reject(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	return choose(run, self, call, false, false, ret);
}

static enum status filter_selectattr(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	return choose(run, self, call, true, true, ret);
}

static enum status filter_rejectattr(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	return choose(run, self, call, true, false, ret);
}

static const struct routine filters[] = {
	{"first", "", 0, filter_first, NULL},
	{"last", "", 0, filter_last, NULL},
	{"length", "", 0, filter_length, NULL},
	{"count", "", 0, filter_length, NULL},
	{"min", "case_sensitive attribute", 0, filter_min, NULL},
	{"max", "case_sensitive attribute", 0, filter_max, NULL},
	{"sum", "attribute start", 0, filter_sum, NULL},
	{"join", "d attribute", 0, filter_join, NULL},
	{"list", "", 0, filter_list, NULL},
	{"items", "", 0, filter_items, NULL},
	{"reverse", "", 0, filter_reverse, NULL},
	{"sort", "reverse case_sensitive attribute", 0, filter_sort, NULL},
	{"dictsort", "case_sensitive by reverse", 0, filter_dictsort, NULL},
	{"unique", "case_sensitive attribute", 0, filter_unique, NULL},
	{"batch", "linecount fill_with", 1, filter_batch, NULL},
	{"map", "", 0, NULL, filter_map},
	{"select", "", 0, NULL, filter_select},
	{"reject", "", 0, NULL, filter_reject},
	{"selectattr", "", 0, NULL, filter_selectattr},
	{"rejectattr", "", 0, NULL, filter_rejectattr},
};

const struct routine *list_filter_find(const struct text *name)
{
	return routine_find(filters, sizeof filters / sizeof *filters, name);
}
