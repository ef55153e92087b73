#include <math.h>
#include <stdio.h>

#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/scope.h"
#include "engine/chat/strings.h"

/* ---- arithmetic ---------------------------------------------------------------------------------------------------------- */
static enum status not_for(struct run *run, enum token_kind operation, const struct value *a, const struct value *b)
{
	TRY(value_need(run, a));
	TRY(value_need(run, b));
	return run_fail(run, "unsupported operand types for %s: '%s' and '%s'", token_name(operation), value_type(a),
			value_type(b));
}

static enum status too_large(struct run *run)
{
	return run_refuse(run, "a number beyond 64 bits");
}

static enum status power(struct run *run, int64_t base, int64_t exponent, struct value *ret)
{
	int64_t result = 1;
	if (exponent < 0) {
		if (base == 0) return run_fail(run, "zero to a negative power");
		*ret = VALUE_OF_FLOAT(pow((double)base, (double)exponent));
		return STATUS_OK;
	}
	if (base == 0 || base == 1 || base == -1) {
		*ret = VALUE_OF_INT(exponent == 0 ? 1 : base == -1 && exponent % 2 == 0 ? 1 : base);
		return STATUS_OK;
	}
	if (exponent > 63) return too_large(run);
	for (int64_t i = 0; i < exponent; i++)
		if (__builtin_mul_overflow(result, base, &result)) return too_large(run);
	*ret = VALUE_OF_INT(result);
	return STATUS_OK;
}

static enum status operate_ints(struct run *run, enum token_kind operation, int64_t a, int64_t b, struct value *ret)
{
	int64_t result = 0;
	bool overflow = false;
	bool divides = operation == TOKEN_DIVIDE || operation == TOKEN_FLOOR || operation == TOKEN_MODULO;
	if (divides && b == 0) return run_fail(run, "division by zero");
	switch (operation) {
	case TOKEN_ADD:
		overflow = __builtin_add_overflow(a, b, &result);
		break;
	case TOKEN_SUBTRACT:
		overflow = __builtin_sub_overflow(a, b, &result);
		break;
	case TOKEN_MULTIPLY:
		overflow = __builtin_mul_overflow(a, b, &result);
		break;
	case TOKEN_DIVIDE:
		*ret = VALUE_OF_FLOAT((double)a / (double)b);
		return STATUS_OK;
	case TOKEN_FLOOR:
		overflow = a == INT64_MIN && b == -1;
		if (!overflow) result = a / b - (a % b != 0 && (a < 0) != (b < 0));
		break;
	case TOKEN_MODULO:
		if (b != -1) result = a % b;
		if (result != 0 && (result < 0) != (b < 0)) result += b;
		break;
	default:
		return power(run, a, b, ret);
	}
	if (overflow) return too_large(run);
	*ret = VALUE_OF_INT(result);
	return STATUS_OK;
}

static enum status operate_floats(struct run *run, enum token_kind operation, double a, double b, struct value *ret)
{
	double result;
	bool divides = operation == TOKEN_DIVIDE || operation == TOKEN_FLOOR || operation == TOKEN_MODULO;
	if (divides && b == 0) return run_fail(run, "division by zero");
	switch (operation) {
	case TOKEN_ADD:
		result = a + b;
		break;
	case TOKEN_SUBTRACT:
		result = a - b;
		break;
	case TOKEN_MULTIPLY:
		result = a * b;
		break;
	case TOKEN_DIVIDE:
		result = a / b;
		break;
	case TOKEN_FLOOR:
	case TOKEN_MODULO: {
		double rest = fmod(a, b), whole = (a - rest) / b;
		if (rest != 0 && (rest < 0) != (b < 0)) {
			rest += b;
			whole -= 1;
		}
		double rounded = floor(whole);
		if (whole - rounded > 0.5) rounded += 1;
		result = operation == TOKEN_FLOOR ? rounded : rest != 0 ? rest : copysign(0, b);
		break;
	}
	default:
		result = pow(a, b);
		if (a == 0 && b < 0) return run_fail(run, "zero to a negative power");
		if (a < 0 && b != floor(b)) return run_refuse(run, "such a power");
		break;
	}
	*ret = VALUE_OF_FLOAT(result);
	return STATUS_OK;
}

static enum status escape_into(struct run *run, struct buffer *buffer, const struct value *value, bool escape)
{
	struct value escaped = *value;
	if (escape && !value->safe) TRY(run_filter(run, &(struct text){"e", 1, 1}, value, &(struct call){0}, &escaped));
	return run_append(run, buffer, escaped.text->data, escaped.text->bytes);
}

/* Markup escapes what is added to it. */
static enum status add_strings(struct run *run, const struct value *a, const struct value *b, struct value *ret)
{
	struct buffer buffer = {0};
	bool safe = a->safe || b->safe;
	enum status status = escape_into(run, &buffer, a, safe);
	if (status == STATUS_OK) status = escape_into(run, &buffer, b, safe);
	if (status == STATUS_OK) status = value_copy_string(run, buffer.data, buffer.size, ret);
	buffer_free(&buffer);
	if (status == STATUS_OK) ret->safe = safe;
	return status;
}

static enum status add_lists(struct run *run, const struct value *a, const struct value *b, struct value *ret)
{
	size_t count = a->list->count + b->list->count;
	struct value *items = run_new(run, count, sizeof *items);
	if (!items) return run->status;
	TRY(run_spend(run, count));
	if (a->list->count) memcpy(items, a->list->items, a->list->count * sizeof *items);
	if (b->list->count) memcpy(items + a->list->count, b->list->items, b->list->count * sizeof *items);
	return value_list(run, a->kind, items, count, ret);
}

static enum status repeat(struct run *run, const struct value *what, int64_t times, struct value *ret)
{
	if (what->kind == VALUE_STRING) {
		TRY(string_repeat(run, what->text, times, ret));
		ret->safe = what->safe;
		return STATUS_OK;
	}
	size_t count = times > 0 ? (size_t)times : 0, size = what->list->count, total;
	if (__builtin_mul_overflow(size, count, &total)) return run_refuse(run, "a list repeated so often");
	TRY(run_spend(run, total));
	struct value *items = run_new(run, total, sizeof *items);
	if (!items) return run->status;
	for (size_t i = 0; size && i < count; i++)
		memcpy(items + i * size, what->list->items, size * sizeof *items);
	return value_list(run, what->kind, items, total, ret);
}

static bool repeats(const struct value *what, const struct value *times)
{
	return (what->kind == VALUE_STRING || what->kind == VALUE_LIST || what->kind == VALUE_TUPLE) && value_is_whole(times);
}

enum status operate(struct run *run, enum token_kind operation, const struct value *a, const struct value *b, struct value *ret)
{
	if (value_is_whole(a) && value_is_whole(b)) return operate_ints(run, operation, value_whole(a), value_whole(b), ret);
	if (value_is_number(a) && value_is_number(b)) return operate_floats(run, operation, value_real(a), value_real(b), ret);
	if (operation == TOKEN_ADD && a->kind == b->kind) {
		if (a->kind == VALUE_STRING) return add_strings(run, a, b, ret);
		if (a->kind == VALUE_LIST || a->kind == VALUE_TUPLE) return add_lists(run, a, b, ret);
	}
	if (operation == TOKEN_MULTIPLY && repeats(a, b)) return repeat(run, a, value_whole(b), ret);
	if (operation == TOKEN_MULTIPLY && repeats(b, a)) return repeat(run, b, value_whole(a), ret);
	if (operation == TOKEN_MODULO && a->kind == VALUE_STRING) {
		bool unused = b->kind == VALUE_DICT || b->kind == VALUE_LIST; /* what could be named need not be */
		*ret = *a;
		TRY(run_spend_bytes(run, a->text->bytes));
		if (unused && !(a->text->bytes && memchr(a->text->data, '%', a->text->bytes))) return STATUS_OK;
		bool is_tuple = b->kind == VALUE_TUPLE;
		const struct call call = {.positional = is_tuple ? b->list->items : b, .count = is_tuple ? b->list->count : 1};
		return run_filter(run, &(struct text){"format", 6, 6}, a, &call, ret);
	}
	return not_for(run, operation, a, b);
}

static enum status evaluate_sign(struct run *run, const struct node *node, const struct value *of, struct value *ret)
{
	TRY(value_need(run, of));
	if (!value_is_number(of)) return run_fail(run, "bad operand type for a sign: '%s'", value_type(of));
	if (of->kind == VALUE_FLOAT) {
		*ret = VALUE_OF_FLOAT(node->kind == NODE_NEGATIVE ? -of->real : of->real);
		return STATUS_OK;
	}
	int64_t whole = value_whole(of);
	if (whole == INT64_MIN) return too_large(run);
	*ret = VALUE_OF_INT(node->kind == NODE_NEGATIVE ? -whole : whole);
	return STATUS_OK;
}

/* ---- comparing ----------------------------------------------------------------------------------------------------------- */
static bool is_nan(const struct value *value)
{
	return value->kind == VALUE_FLOAT && isnan(value->real);
}

static enum status compare(struct run *run, enum comparison operator, const struct value * a, const struct value *b, bool *ret)
{
	int order;
	switch (operator) {
	case COMPARE_EQUAL:
	case COMPARE_UNEQUAL:
		TRY(value_equal(run, a, b, ret));
		break;
	case COMPARE_IN:
	case COMPARE_NOT_IN:
		TRY(value_contains(run, b, a, ret));
		break;
	default:
		TRY(value_compare(run, a, b, &order));
		*ret = operator== COMPARE_LESS    ? order < 0 :
		       operator== COMPARE_AT_MOST ? order <= 0
		       :
		       operator== COMPARE_GREATER ? order > 0
						  : order >= 0;
		if (is_nan(a) || is_nan(b)) *ret = false;
		return STATUS_OK;
	}
	if (operator== COMPARE_UNEQUAL || operator== COMPARE_NOT_IN) *ret = !*ret;
	return STATUS_OK;
}

static enum status evaluate_compare(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value left, right;
	bool holds = true;
	TRY(evaluate(run, node->a, scope, &left));
	for (size_t i = 0; i < node->count && holds; i++) {
		TRY(evaluate(run, node->items[i], scope, &right));
		run->line = node->line;
		TRY(compare(run, node->operators[i], &left, &right, &holds));
		left = right;
	}
	*ret = VALUE_OF_BOOL(holds);
	return STATUS_OK;
}

/* ---- what is made -------------------------------------------------------------------------------------------------------- */
static enum status evaluate_items(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value *items = run_new(run, node->count, sizeof *items);
	if (!items) return run->status;
	for (size_t i = 0; i < node->count; i++)
		TRY(evaluate(run, node->items[i], scope, &items[i]));
	return value_list(run, node->kind == NODE_LIST ? VALUE_LIST : VALUE_TUPLE, items, node->count, ret);
}

static enum status evaluate_dict(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value key, value;
	TRY(value_dict(run, node->count / 2, ret));
	for (size_t i = 0; i < node->count; i += 2) {
		TRY(evaluate(run, node->items[i], scope, &key));
		TRY(evaluate(run, node->items[i + 1], scope, &value));
		run->line = node->line;
		TRY(dict_put(run, ret->dict, &key, &value));
	}
	return STATUS_OK;
}

static enum status evaluate_concatenation(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct buffer buffer = {0};
	struct value part;
	enum status status = STATUS_OK;
	for (size_t i = 0; i < node->count && status == STATUS_OK; i++) {
		status = evaluate(run, node->items[i], scope, &part);
		if (status == STATUS_OK) status = print_value(run, &buffer, &part);
	}
	if (status == STATUS_OK) status = value_copy_string(run, buffer.data, buffer.size, ret);
	buffer_free(&buffer);
	return status;
}

static enum status evaluate_slice(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value object, bounds[3] = {VALUE_OF_NONE, VALUE_OF_NONE, VALUE_OF_NONE};
	TRY(evaluate(run, node->a, scope, &object));
	for (int i = 0; i < 3; i++)
		if (node->items[i]) TRY(evaluate(run, node->items[i], scope, &bounds[i]));
	run->line = node->line;
	return value_slice(run, &object, bounds, ret);
}

/* ---- calls --------------------------------------------------------------------------------------------------------------- */
static enum status add_positional(struct run *run, struct call *call, const struct node *more, struct scope *scope)
{
	struct value value;
	struct list items;
	TRY(evaluate(run, more, scope, &value));
	TRY(value_items(run, &value, &items));
	size_t count = call->count + items.count;
	struct value *positional = run_new(run, count, sizeof *positional);
	if (!positional) return run->status;
	if (call->count) memcpy(positional, call->positional, call->count * sizeof *positional);
	if (items.count) memcpy(positional + call->count, items.items, items.count * sizeof *positional);
	call->positional = positional;
	call->count = count;
	return run_spend(run, count);
}

static enum status add_named(struct run *run, struct call *call, const struct node *more, struct scope *scope)
{
	struct value value;
	TRY(evaluate(run, more, scope, &value));
	TRY(value_need(run, &value));
	if (value.kind != VALUE_DICT) return run_fail(run, "argument after ** must be a mapping, not %s", value_type(&value));
	size_t count = call->named_count + value.dict->count;
	struct named_value *named = run_new(run, count, sizeof *named);
	if (!named) return run->status;
	if (call->named_count) memcpy(named, call->named, call->named_count * sizeof *named);
	for (size_t i = 0; i < value.dict->count; i++) {
		const struct pair *pair = &value.dict->pairs[i];
		if (pair->key.kind != VALUE_STRING) return run_fail(run, "keywords must be strings");
		for (size_t k = 0; k < call->named_count; k++)
			if (text_equal(call->named[k].name, pair->key.text)) return run_fail(run, "an argument is named twice");
		named[call->named_count + i] = (struct named_value){pair->key.text, pair->value};
	}
	call->named = named;
	call->named_count = count;
	return run_spend(run, count);
}

static enum status evaluate_arguments(struct run *run, const struct arguments *arguments, struct scope *scope, struct call *ret)
{
	*ret = (struct call){.count = arguments->count, .named_count = arguments->named_count};
	struct value *positional = NULL;
	struct named_value *named = NULL;
	if (ret->count && !(positional = run_new(run, ret->count, sizeof *positional))) return run->status;
	if (ret->named_count && !(named = run_new(run, ret->named_count, sizeof *named))) return run->status;
	for (size_t i = 0; i < ret->count; i++)
		TRY(evaluate(run, arguments->positional[i], scope, &positional[i]));
	for (size_t i = 0; i < ret->named_count; i++) {
		named[i].name = arguments->named[i].name;
		TRY(evaluate(run, arguments->named[i].node, scope, &named[i].value));
	}
	ret->positional = positional;
	ret->named = named;
	if (arguments->more) TRY(add_positional(run, ret, arguments->more, scope));
	if (arguments->more_named) TRY(add_named(run, ret, arguments->more_named, scope));
	return STATUS_OK;
}

static enum status evaluate_call(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value callee;
	struct call call;
	TRY(evaluate(run, node->a, scope, &callee));
	TRY(evaluate_arguments(run, node->arguments, scope, &call));
	run->line = node->line;
	return call_value(run, &callee, &call, ret);
}

static enum status apply_filter(struct run *run, const struct node *node, const struct value *self, struct scope *scope,
				struct value *ret)
{
	struct call call;
	TRY(evaluate_arguments(run, node->arguments, scope, &call));
	run->line = node->line;
	return run_filter(run, node->name, self, &call, ret);
}

static enum status evaluate_test(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value self;
	struct call call;
	bool holds;
	TRY(evaluate(run, node->a, scope, &self));
	TRY(evaluate_arguments(run, node->arguments, scope, &call));
	run->line = node->line;
	TRY(run_test(run, node->name, &self, &call, &holds));
	*ret = VALUE_OF_BOOL(holds);
	return STATUS_OK;
}

enum status evaluate_filters(struct run *run, const struct node *filters, const struct value *captured, struct scope *scope,
			     struct value *ret)
{
	struct value self = *captured;
	TRY(run_enter(run));
	if (filters->a) TRY(evaluate_filters(run, filters->a, captured, scope, &self));
	TRY(apply_filter(run, filters, &self, scope, ret));
	run_leave(run);
	return STATUS_OK;
}

/* ---- all of it ----------------------------------------------------------------------------------------------------------- */
static enum status evaluate_condition(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value test;
	TRY(evaluate(run, node->a, scope, &test));
	if (value_truth(&test)) return evaluate(run, node->b, scope, ret);
	if (node->c) return evaluate(run, node->c, scope, ret);
	return value_undefined_for(run, "an if without else was not true, and there is no value", ret);
}

static enum status evaluate_two(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value a, b;
	TRY(evaluate(run, node->a, scope, &a));
	TRY(evaluate(run, node->b, scope, &b));
	run->line = node->line;
	return node->kind == NODE_ITEM ? value_item(run, &a, &b, ret) : operate(run, node->operation, &a, &b, ret);
}

static enum status evaluate_one(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct value a;
	TRY(evaluate(run, node->a, scope, &a));
	run->line = node->line;
	switch (node->kind) {
	case NODE_ATTRIBUTE:
		return value_attribute(run, &a, node->name, ret);
	case NODE_FILTER:
		return apply_filter(run, node, &a, scope, ret);
	case NODE_NOT:
		*ret = VALUE_OF_BOOL(!value_truth(&a));
		return STATUS_OK;
	case NODE_AND:
	case NODE_OR:
		if (value_truth(&a) == (node->kind == NODE_AND)) return evaluate(run, node->b, scope, ret);
		*ret = a;
		return STATUS_OK;
	default:
		return evaluate_sign(run, node, &a, ret);
	}
}

static enum status evaluate_kind(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	switch (node->kind) {
	case NODE_CONSTANT:
		*ret = node->constant;
		return STATUS_OK;
	case NODE_NAME:
		return scope_get(run, scope, node->name, ret);
	case NODE_LIST:
	case NODE_TUPLE:
		return evaluate_items(run, node, scope, ret);
	case NODE_DICT:
		return evaluate_dict(run, node, scope, ret);
	case NODE_SLICE:
		return evaluate_slice(run, node, scope, ret);
	case NODE_CALL:
		return evaluate_call(run, node, scope, ret);
	case NODE_TEST:
		return evaluate_test(run, node, scope, ret);
	case NODE_CONDITION:
		return evaluate_condition(run, node, scope, ret);
	case NODE_COMPARE:
		return evaluate_compare(run, node, scope, ret);
	case NODE_CONCATENATE:
		return evaluate_concatenation(run, node, scope, ret);
	case NODE_ITEM:
	case NODE_ARITHMETIC:
		return evaluate_two(run, node, scope, ret);
	default:
		return evaluate_one(run, node, scope, ret);
	}
}

enum status evaluate(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	TRY(run_enter(run));
	run->line = node->line;
	TRY(run_spend(run, 1));
	TRY(evaluate_kind(run, node, scope, ret));
	run_leave(run);
	return STATUS_OK;
}
