#include <stdio.h>
#include <time.h>

#include "engine/chat/routine.h"
#include "engine/chat/strings.h"

#define FUNCTION(name)                                                                                                             \
	static enum status name(struct run *run, const struct value *self, const struct value *arguments, struct value *ret)

FUNCTION(function_range)
{
	enum { MOST = 100000 };
	int64_t ends[3] = {0, 0, 1};
	(void)self;
	TRY(argument_int(run, &arguments[0], "range's argument", 0, &ends[is_given(&arguments[1]) ? 0 : 1]));
	if (is_given(&arguments[1])) TRY(argument_int(run, &arguments[1], "range's argument", 0, &ends[1]));
	TRY(argument_int(run, &arguments[2], "range's argument", 1, &ends[2]));
	if (ends[2] == 0) return run_fail(run, "range() arg 3 must not be zero");
	for (int i = 0; i < 3; i++)
		if (ends[i] > INT32_MAX || ends[i] < -INT32_MAX) return run_refuse(run, "such a range");
	int64_t step = ends[2], way = step > 0 ? ends[1] - ends[0] : ends[0] - ends[1], size = step > 0 ? step : -step;
	int64_t count = way > 0 ? (way - 1) / size + 1 : 0;
	if (count > MOST) return run_fail(run, "a range of more than %d numbers", MOST);
	struct value *items = run_new(run, (size_t)count, sizeof *items);
	if (!items) return run->status;
	TRY(run_spend(run, (size_t)count));
	for (int64_t i = 0; i < count; i++)
		items[i] = VALUE_OF_INT(ends[0] + i * step);
	return value_list(run, VALUE_RANGE, items, (size_t)count, ret);
}

/* Of pairs, of another dict, and of keywords. */
static enum status make_dict(struct run *run, const struct call *call, struct value *ret)
{
	TRY(value_dict(run, call->named_count, ret));
	if (call->count > 1) return run_fail(run, "dict expected at most 1 argument, got %zu", call->count);
	if (call->count && call->positional[0].kind == VALUE_DICT) {
		const struct dict *from = call->positional[0].dict;
		for (size_t i = 0; i < from->count; i++)
			TRY(dict_put(run, ret->dict, &from->pairs[i].key, &from->pairs[i].value));
	} else if (call->count) {
		struct list pairs, pair;
		TRY(value_items(run, &call->positional[0], &pairs));
		for (size_t i = 0; i < pairs.count; i++) {
			TRY(value_items(run, &pairs.items[i], &pair));
			if (pair.count != 2) return run_fail(run, "dict: item %zu has length %zu; 2 is required", i, pair.count);
			TRY(dict_put(run, ret->dict, &pair.items[0], &pair.items[1]));
		}
	}
	for (size_t i = 0; i < call->named_count; i++) {
		const struct value key = {.kind = VALUE_STRING, .text = call->named[i].name};
		TRY(dict_put(run, ret->dict, &key, &call->named[i].value));
	}
	return STATUS_OK;
}

static enum status function_dict(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	(void)self;
	return make_dict(run, call, ret);
}

static enum status function_namespace(struct run *run, const struct value *self, const struct call *call, struct value *ret)
{
	(void)self;
	TRY(make_dict(run, call, ret));
	for (size_t i = 0; i < ret->dict->count; i++) {
		const struct value *key = &ret->dict->pairs[i].key;
		if (key->kind == VALUE_STRING && key->text->bytes && key->text->data[0] == '_')
			return run_fail(run, "a namespace's attributes cannot begin with an underscore");
	}
	ret->kind = VALUE_NAMESPACE;
	return STATUS_OK;
}

/* The template's own refusal of a conversation. */
FUNCTION(function_raise)
{
	struct value message;
	(void)self;
	(void)ret;
	TRY(run_filter(run, &(struct text){"string", 6, 6}, &arguments[0], &(struct call){0}, &message));
	int bytes = message.text->bytes < 800 ? (int)message.text->bytes : 800;
	return run_fail(run, "the template refuses the conversation: %.*s", bytes, message.text->data);
}

/* The format, in which a naive time has no zone, and %f is microseconds. */
static enum status time_format(struct run *run, const struct text *format, long microseconds, char *ret, size_t room)
{
	size_t count = 0;
	for (size_t i = 0; i < format->bytes; i++) {
		char c = format->data[i], kind = i + 1 < format->bytes ? format->data[i + 1] : 0;
		if (!c || count + 8 > room) return run_refuse(run, "such a format of time");
		if (c != '%') {
			ret[count++] = c;
			continue;
		}
		i++;
		if (kind == 'f')
			count += (size_t)snprintf(ret + count, room - count, "%06ld", microseconds);
		else if (!kind || !strchr("aAbBcCdDeFgGhHIjklmMnpPrRStTuUVwWxXyYzZ%", kind))
			return run_refuse(run, "such a format of time");
		else if (kind != 'z' && kind != 'Z') {
			ret[count++] = '%';
			ret[count++] = kind;
		}
	}
	ret[count] = 0;
	return STATUS_OK;
}

FUNCTION(function_strftime_now)
{
	const struct text *wanted;
	struct timespec now;
	struct tm local;
	char format[256], text[2048];
	(void)self;
	TRY(argument_text(run, &arguments[0], "strftime_now's argument", &wanted));
	TRY(run_spend_bytes(run, wanted->bytes));
	clock_gettime(CLOCK_REALTIME, &now);
	TRY(time_format(run, wanted, now.tv_nsec / 1000, format, sizeof format));
	if (!localtime_r(&now.tv_sec, &local)) return run_fail(run, "there is no time");
	size_t bytes = strftime(text, sizeof text, format, &local);
	return value_copy_string(run, text, bytes, ret);
}

static const struct routine functions[] = {
	{"range", "start stop step", 1, function_range, NULL},
	{"dict", "", 0, NULL, function_dict},
	{"namespace", "", 0, NULL, function_namespace},
	{"raise_exception", "message", 1, function_raise, NULL},
	{"strftime_now", "format", 1, function_strftime_now, NULL},

	/* what Jinja has besides: refused where it is called */
	{"lipsum", "", 0, NULL, NULL},
	{"cycler", "", 0, NULL, NULL},
	{"joiner", "", 0, NULL, NULL},
};

const struct routine *function_find(const struct text *name)
{
	return routine_find(functions, sizeof functions / sizeof *functions, name);
}
