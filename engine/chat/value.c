#include "engine/chat/value.h"

#include <math.h>

#include "engine/chat/routine.h"
#include "engine/chat/scope.h"

/* ---- making -------------------------------------------------------------------------------------------------------------- */
static size_t count_characters(const char *data, size_t bytes)
{
	size_t count = 0;
	for (size_t i = 0; i < bytes; i++)
		count += (data[i] & 0xc0) != 0x80;
	return count;
}

enum status value_string(struct run *run, const char *data, size_t bytes, struct value *ret)
{
	TRY(run_spend_bytes(run, bytes));
	struct text *text = run_new(run, 1, sizeof *text);
	if (!text) return run->status;
	*text = (struct text){data, bytes, count_characters(data, bytes)};
	*ret = (struct value){.kind = VALUE_STRING, .text = text};
	return STATUS_OK;
}

enum status value_copy_string(struct run *run, const char *data, size_t bytes, struct value *ret)
{
	char *copy = run_new(run, bytes + 1, 1);
	if (!copy) return run->status;
	if (bytes) memcpy(copy, data, bytes);
	return value_string(run, copy, bytes, ret);
}

enum status value_c_string(struct run *run, const char *text, struct value *ret)
{
	return value_string(run, text, strlen(text), ret);
}

enum status value_list(struct run *run, enum value_kind kind, const struct value *items, size_t count, struct value *ret)
{
	static const struct value nothing[1];
	struct list *list = run_new(run, 1, sizeof *list);
	if (!list) return run->status;
	*list = (struct list){.items = count ? items : nothing, .count = count};
	*ret = (struct value){.kind = kind, .list = list};
	return STATUS_OK;
}

enum status value_pair(struct run *run, const struct value *first, const struct value *second, struct value *ret)
{
	struct value *items = run_new(run, 2, sizeof *items);
	if (!items) return run->status;
	items[0] = *first;
	items[1] = *second;
	return value_list(run, VALUE_TUPLE, items, 2, ret);
}

enum status value_dict(struct run *run, size_t room, struct value *ret)
{
	struct dict *dict = run_new(run, 1, sizeof *dict);
	struct pair *pairs = dict ? run_new(run, room, sizeof *pairs) : NULL;
	if (!pairs) return run->status;
	*dict = (struct dict){.pairs = pairs, .room = room};
	*ret = (struct value){.kind = VALUE_DICT, .dict = dict};
	return STATUS_OK;
}

static enum status make_absence(struct run *run, struct absence absence, struct value *ret)
{
	struct absence *copy = run_new(run, 1, sizeof *copy);
	if (!copy) return run->status;
	*copy = absence;
	*ret = (struct value){.kind = VALUE_UNDEFINED, .absence = copy};
	return STATUS_OK;
}

enum status value_undefined(struct run *run, const char *owner, const struct text *name, struct value *ret)
{
	return make_absence(run, (struct absence){.owner = owner, .name = name}, ret);
}

enum status value_undefined_for(struct run *run, const char *hint, struct value *ret)
{
	return make_absence(run, (struct absence){.hint = hint}, ret);
}

static enum status is_hashable(struct run *run, const struct value *key, bool *ret)
{
	*ret = key->kind != VALUE_LIST && key->kind != VALUE_DICT;
	if (key->kind != VALUE_TUPLE) return STATUS_OK;
	for (size_t i = 0; i < key->list->count && *ret; i++) {
		enum value_kind kind = key->list->items[i].kind;
		*ret = kind != VALUE_LIST && kind != VALUE_DICT && kind != VALUE_TUPLE;
	}
	return run_spend(run, key->list->count);
}

static enum status find_pair(struct run *run, const struct dict *dict, const struct value *key, struct pair **ret)
{
	bool equal = false, hashable;
	*ret = NULL;
	TRY(is_hashable(run, key, &hashable));
	if (!hashable) return run_fail(run, "a value of type '%s' is no key of a dict", value_type(key));
	for (size_t i = 0; i < dict->count && !equal; i++) {
		TRY(value_equal(run, &dict->pairs[i].key, key, &equal));
		if (equal) *ret = &dict->pairs[i];
	}
	return STATUS_OK;
}

enum status dict_put(struct run *run, struct dict *dict, const struct value *key, const struct value *value)
{
	struct pair *pair;
	TRY(find_pair(run, dict, key, &pair));
	if (pair) {
		pair->value = *value;
		return STATUS_OK;
	}
	if (dict->count == dict->room) {
		size_t room = dict->room ? dict->room * 2 : 4;
		struct pair *pairs = run_new(run, room, sizeof *pairs);
		if (!pairs) return run->status;
		if (dict->count) memcpy(pairs, dict->pairs, dict->count * sizeof *pairs);
		dict->pairs = pairs;
		dict->room = room;
	}
	dict->pairs[dict->count++] = (struct pair){*key, *value};
	return STATUS_OK;
}

enum status dict_get(struct run *run, const struct dict *dict, const struct value *key, const struct value **ret)
{
	struct pair *pair;
	TRY(find_pair(run, dict, key, &pair));
	*ret = pair ? &pair->value : NULL;
	return STATUS_OK;
}

enum status dict_put_text(struct run *run, struct dict *dict, const char *key, const struct value *value)
{
	struct value name;
	TRY(value_c_string(run, key, &name));
	return dict_put(run, dict, &name, value);
}

/* ---- asking -------------------------------------------------------------------------------------------------------------- */
const char *value_type(const struct value *value)
{
	switch (value->kind) {
	case VALUE_NONE:
		return "NoneType";
	case VALUE_BOOL:
		return "bool";
	case VALUE_INT:
		return "int";
	case VALUE_FLOAT:
		return "float";
	case VALUE_STRING:
		return value->safe ? "Markup" : "str";
	case VALUE_LIST:
		return "list";
	case VALUE_TUPLE:
		return "tuple";
	case VALUE_RANGE:
		return "range";
	case VALUE_KEYS:
		return "dict_keys";
	case VALUE_VALUES:
		return "dict_values";
	case VALUE_ITEMS:
		return "dict_items";
	case VALUE_GENERATOR:
		return "generator";
	case VALUE_DICT:
		return "dict";
	case VALUE_NAMESPACE:
		return "Namespace";
	case VALUE_LOOP:
		return "LoopContext";
	case VALUE_MACRO:
		return "Macro";
	case VALUE_ROUTINE:
		return "function";
	default:
		return "Undefined";
	}
}

bool value_has_items(const struct value *value)
{
	return value->kind >= VALUE_LIST && value->kind <= VALUE_GENERATOR;
}

bool value_is_iterable(const struct value *value)
{
	return value_has_items(value) || value->kind == VALUE_STRING || value->kind == VALUE_DICT ||
	       value->kind == VALUE_UNDEFINED || value->kind == VALUE_LOOP;
}

bool value_is_whole(const struct value *value)
{
	return value->kind == VALUE_BOOL || value->kind == VALUE_INT;
}

bool value_is_number(const struct value *value)
{
	return value_is_whole(value) || value->kind == VALUE_FLOAT;
}

int64_t value_whole(const struct value *value)
{
	return value->kind == VALUE_BOOL ? value->truth : value->integer;
}

double value_real(const struct value *value)
{
	return value->kind == VALUE_FLOAT ? value->real : (double)value_whole(value);
}

bool value_truth(const struct value *value)
{
	switch (value->kind) {
	case VALUE_MISSING:
	case VALUE_UNDEFINED:
	case VALUE_NONE:
		return false;
	case VALUE_BOOL:
	case VALUE_INT:
		return value_whole(value) != 0;
	case VALUE_FLOAT:
		return value->real != 0;
	case VALUE_STRING:
		return value->text->bytes > 0;
	case VALUE_DICT:
		return value->dict->count > 0;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_KEYS:
	case VALUE_VALUES:
	case VALUE_ITEMS:
		return value->list->count > 0;
	default:
		return true; /* a generator too, empty or not */
	}
}

bool text_is(const struct text *text, const char *other)
{
	size_t bytes = strlen(other);
	return text->bytes == bytes && memcmp(text->data, other, bytes) == 0;
}

enum status value_need(struct run *run, const struct value *value)
{
	if (value->kind != VALUE_UNDEFINED) return STATUS_OK;
	const struct absence *absence = value->absence;
	if (absence->hint) return run_fail(run, "%s", absence->hint);
	int bytes = absence->name->bytes < 200 ? (int)absence->name->bytes : 200;
	if (!absence->owner) return run_fail(run, "'%.*s' is undefined", bytes, absence->name->data);
	return run_fail(run, "'%s object' has no attribute '%.*s'", absence->owner, bytes, absence->name->data);
}

static enum status equal_items(struct run *run, const struct list *a, const struct list *b, bool *ret)
{
	*ret = a->count == b->count;
	TRY(run_enter(run));
	for (size_t i = 0; i < a->count && *ret; i++)
		TRY(value_equal(run, &a->items[i], &b->items[i], ret));
	run_leave(run);
	return STATUS_OK;
}

static enum status equal_dicts(struct run *run, const struct dict *a, const struct dict *b, bool *ret)
{
	*ret = a->count == b->count;
	TRY(run_enter(run));
	for (size_t i = 0; i < a->count && *ret; i++) {
		const struct value *other;
		TRY(dict_get(run, b, &a->pairs[i].key, &other));
		*ret = other != NULL;
		if (other) TRY(value_equal(run, &a->pairs[i].value, other, ret));
	}
	run_leave(run);
	return STATUS_OK;
}

enum status value_equal(struct run *run, const struct value *a, const struct value *b, bool *ret)
{
	TRY(run_spend(run, 1));
	if (value_is_number(a) && value_is_number(b)) {
		*ret = a->kind == VALUE_FLOAT || b->kind == VALUE_FLOAT ? value_real(a) == value_real(b)
									: value_whole(a) == value_whole(b);
		return STATUS_OK;
	}
	*ret = false;
	if (a->kind != b->kind) return STATUS_OK;
	switch (a->kind) {
	case VALUE_MISSING:
	case VALUE_UNDEFINED:
	case VALUE_NONE:
		*ret = true;
		return STATUS_OK;
	case VALUE_STRING:
		if (a->text->bytes != b->text->bytes) return STATUS_OK;
		TRY(run_spend_bytes(run, a->text->bytes));
		*ret = text_equal(a->text, b->text);
		return STATUS_OK;
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
		return equal_items(run, a->list, b->list, ret);
	case VALUE_DICT:
		return equal_dicts(run, a->dict, b->dict, ret);
	case VALUE_KEYS:
	case VALUE_ITEMS:
		return run_refuse(run, "the views of a dict are not compared");
	default:
		*ret = a->list == b->list; /* the same thing */
		return STATUS_OK;
	}
}

static enum status compare_items(struct run *run, const struct list *a, const struct list *b, int *ret)
{
	size_t both = a->count < b->count ? a->count : b->count;
	TRY(run_enter(run));
	*ret = 0;
	for (size_t i = 0; i < both && *ret == 0; i++) {
		bool equal;
		TRY(value_equal(run, &a->items[i], &b->items[i], &equal));
		if (!equal) TRY(value_compare(run, &a->items[i], &b->items[i], ret));
	}
	if (*ret == 0) *ret = (a->count > b->count) - (a->count < b->count);
	run_leave(run);
	return STATUS_OK;
}

enum status value_compare(struct run *run, const struct value *a, const struct value *b, int *ret)
{
	TRY(run_spend(run, 1));
	TRY(value_need(run, a));
	TRY(value_need(run, b));
	if (value_is_whole(a) && value_is_whole(b)) {
		*ret = (value_whole(a) > value_whole(b)) - (value_whole(a) < value_whole(b));
		return STATUS_OK;
	}
	if (value_is_number(a) && value_is_number(b)) {
		*ret = (value_real(a) > value_real(b)) - (value_real(a) < value_real(b));
		return STATUS_OK;
	}
	if (a->kind == VALUE_STRING && b->kind == VALUE_STRING) {
		size_t both = a->text->bytes < b->text->bytes ? a->text->bytes : b->text->bytes;
		TRY(run_spend_bytes(run, both));
		*ret = memcmp(a->text->data, b->text->data, both);
		if (*ret == 0) *ret = (a->text->bytes > b->text->bytes) - (a->text->bytes < b->text->bytes);
		return STATUS_OK;
	}
	if (a->kind == b->kind && (a->kind == VALUE_LIST || a->kind == VALUE_TUPLE))
		return compare_items(run, a->list, b->list, ret);
	return run_fail(run, "values of type '%s' and '%s' have no order", value_type(a), value_type(b));
}

enum status value_contains(struct run *run, const struct value *container, const struct value *item, bool *ret)
{
	struct list items;
	const struct value *found;
	*ret = false;
	if (container->kind == VALUE_STRING) {
		const struct text *text = container->text;
		TRY(value_need(run, item));
		if (item->kind != VALUE_STRING)
			return run_fail(run, "'in <string>' requires a string as left operand, not %s", value_type(item));
		TRY(run_spend_bytes(run, text->bytes + item->text->bytes));
		*ret = memmem(text->data, text->bytes, item->text->data, item->text->bytes) != NULL;
		return STATUS_OK;
	}
	if (container->kind == VALUE_DICT) {
		TRY(dict_get(run, container->dict, item, &found));
		*ret = found != NULL;
		return STATUS_OK;
	}
	if (!value_is_iterable(container)) return run_fail(run, "argument of type '%s' is not iterable", value_type(container));
	TRY(value_items(run, container, &items));
	for (size_t i = 0; i < items.count && !*ret; i++)
		TRY(value_equal(run, &items.items[i], item, ret));
	return STATUS_OK;
}

enum status value_length(struct run *run, const struct value *value, size_t *ret)
{
	switch (value->kind) {
	case VALUE_UNDEFINED:
		*ret = 0;
		return STATUS_OK;
	case VALUE_STRING:
		*ret = value->text->characters;
		return STATUS_OK;
	case VALUE_DICT:
		*ret = value->dict->count;
		return STATUS_OK;
	case VALUE_LOOP:
		return loop_length(run, value->loop, ret);
	case VALUE_LIST:
	case VALUE_TUPLE:
	case VALUE_RANGE:
	case VALUE_KEYS:
	case VALUE_VALUES:
	case VALUE_ITEMS:
		*ret = value->list->count;
		return STATUS_OK;
	default:
		return run_fail(run, "object of type '%s' has no len()", value_type(value));
	}
}

static enum status characters_of(struct run *run, const struct text *text, struct list *ret)
{
	struct value *items = run_new(run, text->characters, sizeof *items);
	if (!items) return run->status;
	const char *at = text->data, *end = text->data + text->bytes;
	for (size_t i = 0; i < text->characters; i++) {
		const char *next = at + 1;
		while (next < end && (*next & 0xc0) == 0x80)
			next++;
		TRY(value_string(run, at, (size_t)(next - at), &items[i]));
		at = next;
	}
	*ret = (struct list){.items = items, .count = text->characters};
	return STATUS_OK;
}

static enum status keys_of(struct run *run, const struct dict *dict, struct list *ret)
{
	struct value *items = run_new(run, dict->count, sizeof *items);
	if (!items) return run->status;
	for (size_t i = 0; i < dict->count; i++)
		items[i] = dict->pairs[i].key;
	*ret = (struct list){.items = items, .count = dict->count};
	return run_spend(run, dict->count);
}

enum status value_items(struct run *run, const struct value *value, struct list *ret)
{
	if (value_has_items(value)) {
		struct list *list = value->list;
		*ret = (struct list){.items = list->items + list->taken, .count = list->count - list->taken};
		if (value->kind == VALUE_GENERATOR) list->taken = list->count;
		return STATUS_OK;
	}
	switch (value->kind) {
	case VALUE_UNDEFINED:
		*ret = (struct list){0};
		return STATUS_OK;
	case VALUE_STRING:
		return characters_of(run, value->text, ret);
	case VALUE_DICT:
		return keys_of(run, value->dict, ret);
	case VALUE_LOOP:
		return run_refuse(run, "'loop' is gone through");
	default:
		return run_fail(run, "'%s' object is not iterable", value_type(value));
	}
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */
/* Where a character begins. */
static size_t offset_of(const struct text *text, size_t character)
{
	if (text->bytes == text->characters) return character;
	size_t at = 0;
	for (; character > 0; character--) {
		at++;
		while (at < text->bytes && (text->data[at] & 0xc0) == 0x80)
			at++;
	}
	return at;
}

enum status text_part(struct run *run, const struct text *text, size_t from, size_t to, struct value *ret)
{
	if (text->bytes != text->characters) TRY(run_spend_bytes(run, text->bytes));
	if (to <= from) return value_string(run, "", 0, ret);
	size_t start = offset_of(text, from), stop = to == text->characters ? text->bytes : offset_of(text, to);
	return value_string(run, text->data + start, stop - start, ret);
}

static enum status undefined_item(struct run *run, const struct value *value, const struct value *key, struct value *ret)
{
	static const struct text other = {.data = "(of that key)", .bytes = 13, .characters = 13};
	return value_undefined(run, value_type(value), key->kind == VALUE_STRING ? key->text : &other, ret);
}

enum status value_attribute(struct run *run, const struct value *value, const struct text *name, struct value *ret)
{
	const struct value key = {.kind = VALUE_STRING, .text = name}, *found = NULL;
	bool there;
	TRY(value_need(run, value));
	if (value->kind == VALUE_NAMESPACE || value->kind == VALUE_LOOP) {
		TRY(value->kind == VALUE_LOOP ? loop_attribute(run, value, name, ret, &there)
					      : dict_get(run, value->dict, &key, &found));
		if (found) *ret = *found;
		if (found || (value->kind == VALUE_LOOP && there)) return STATUS_OK;
		return undefined_item(run, value, &key, ret);
	}
	TRY(routine_of(run, value, name, ret, &there));
	if (there) return STATUS_OK;
	if (value->kind == VALUE_DICT) TRY(dict_get(run, value->dict, &key, &found));
	if (!found) return undefined_item(run, value, &key, ret);
	*ret = *found;
	return STATUS_OK;
}

static enum status index_of(struct run *run, const struct value *key, size_t count, size_t *ret, bool *ret_there)
{
	int64_t index = value_whole(key);
	if (index < 0) index += (int64_t)count;
	*ret_there = index >= 0 && index < (int64_t)count;
	*ret = (size_t)index;
	return run_spend(run, 1);
}

enum status value_item(struct run *run, const struct value *value, const struct value *key, struct value *ret)
{
	const struct value *found = NULL;
	size_t index;
	bool there = false, hashable = true;
	TRY(value_need(run, value));
	if (value->kind == VALUE_DICT) TRY(is_hashable(run, key, &hashable));
	if (!hashable) return undefined_item(run, value, key, ret);
	if (value->kind == VALUE_DICT) {
		TRY(dict_get(run, value->dict, key, &found));
		if (found) *ret = *found;
		if (found) return STATUS_OK;
	} else if (value_is_whole(key) && value->kind == VALUE_STRING) {
		TRY(index_of(run, key, value->text->characters, &index, &there));
		if (there) return text_part(run, value->text, index, index + 1, ret);
	} else if (value_is_whole(key) && (value->kind == VALUE_LIST || value->kind == VALUE_TUPLE || value->kind == VALUE_RANGE)) {
		TRY(index_of(run, key, value->list->count, &index, &there));
		if (there) *ret = value->list->items[index];
		if (there) return STATUS_OK;
	}
	if (key->kind == VALUE_STRING && value->kind != VALUE_DICT) return value_attribute(run, value, key->text, ret);
	if (key->kind == VALUE_STRING) {
		TRY(routine_of(run, value, key->text, ret, &there));
		if (there) return STATUS_OK;
	}
	return undefined_item(run, value, key, ret);
}

/* The bounds as Python's slice.indices gives them. */
static enum status slice_bounds(struct run *run, const struct value bounds[3], int64_t count, int64_t *start, int64_t *stop,
				int64_t *step)
{
	*step = 1;
	if (bounds[2].kind != VALUE_NONE) *step = value_whole(&bounds[2]);
	if (*step == 0) return run_fail(run, "slice step cannot be zero");
	if (*step == INT64_MIN) *step = -INT64_MAX;
	int64_t low = *step < 0 ? -1 : 0, high = *step < 0 ? count - 1 : count, ends[2];
	for (int i = 0; i < 2; i++) {
		bool first = i == 0;
		ends[i] = bounds[i].kind != VALUE_NONE ? value_whole(&bounds[i]) : first == (*step < 0) ? high : low;
		if (bounds[i].kind == VALUE_NONE) continue;
		if (ends[i] < 0) ends[i] += count;
		ends[i] = ends[i] < low ? low : ends[i] > high ? high : ends[i];
	}
	*start = ends[0];
	*stop = ends[1];
	return STATUS_OK;
}

enum status value_slice(struct run *run, const struct value *value, const struct value bounds[3], struct value *ret)
{
	struct list items;
	int64_t start = 0, stop = 0, step = 1;
	TRY(value_need(run, value));
	bool is_text = value->kind == VALUE_STRING;
	if (!is_text && value->kind != VALUE_LIST && value->kind != VALUE_TUPLE && value->kind != VALUE_RANGE)
		return run_fail(run, "'%s' object cannot be sliced", value_type(value));
	for (int i = 0; i < 3; i++)
		if (bounds[i].kind != VALUE_NONE && !value_is_whole(&bounds[i]))
			return run_fail(run, "slice indices must be integers, not %s", value_type(&bounds[i]));
	TRY(slice_bounds(run, bounds, is_text ? (int64_t)value->text->characters : (int64_t)value->list->count, &start, &stop,
			 &step));
	int64_t count =
		step > 0 ? (stop > start ? (stop - start - 1) / step + 1 : 0) : (start > stop ? (start - stop - 1) / -step + 1 : 0);
	if (is_text && step == 1) {
		TRY(text_part(run, value->text, (size_t)start, (size_t)(count ? stop : start), ret));
		ret->safe = value->safe;
		return STATUS_OK;
	}
	TRY(value_items(run, value, &items));
	struct value *part = run_new(run, (size_t)count, sizeof *part);
	if (!part) return run->status;
	TRY(run_spend(run, (size_t)count));
	for (int64_t i = 0; i < count; i++)
		part[i] = items.items[start + i * step];
	if (!is_text) return value_list(run, value->kind, part, (size_t)count, ret);
	struct buffer buffer = {0};
	enum status status = STATUS_OK;
	for (int64_t i = 0; i < count && status == STATUS_OK; i++)
		status = run_append(run, &buffer, part[i].text->data, part[i].text->bytes);
	if (status == STATUS_OK) status = value_copy_string(run, buffer.data, buffer.size, ret);
	buffer_free(&buffer);
	return status;
}
