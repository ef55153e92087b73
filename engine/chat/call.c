#include "engine/chat/routine.h"
#include "engine/chat/scope.h"

/* ---- routines ------------------------------------------------------------------------------------------------------------ */
/* Puts named arguments where they belong. */
static enum status place_named(struct run *run, const struct routine *routine, const struct call *call, struct value *arguments)
{
	for (size_t i = 0; i < call->named_count; i++) {
		const struct text *name = call->named[i].name;
		const char *at = routine->parameters;
		size_t index = 0;
		bool found = false;
		while (*at && !found) {
			size_t bytes = strcspn(at, " ");
			found = bytes == name->bytes && memcmp(at, name->data, bytes) == 0;
			if (!found) index++;
			at += bytes + (at[bytes] == ' ');
		}
		if (!found || index >= ROUTINE_MOST)
			return run_refuse(run, "%s has no argument '%.*s'", routine->name, name->bytes < 64 ? (int)name->bytes : 64,
					  name->data);
		if (is_given(&arguments[index])) return run_fail(run, "%s got an argument twice", routine->name);
		arguments[index] = call->named[i].value;
	}
	return STATUS_OK;
}

static size_t count_parameters(const char *names)
{
	size_t count = *names != 0;
	for (; *names; names++)
		count += *names == ' ';
	return count;
}

enum status routine_run(struct run *run, const struct routine *routine, const struct value *self, const struct call *call,
			struct value *ret)
{
	struct value arguments[ROUTINE_MOST] = {0};
	TRY(run_spend(run, 1));
	if (routine->run_call) return routine->run_call(run, self, call, ret);
	if (!routine->run) return run_refuse(run, "'%s' is not supported", routine->name);
	if (call->count > count_parameters(routine->parameters)) return run_fail(run, "%s takes fewer arguments", routine->name);
	for (size_t i = 0; i < call->count; i++)
		arguments[i] = call->positional[i];
	TRY(place_named(run, routine, call, arguments));
	for (size_t i = 0; i < routine->least; i++)
		if (!is_given(&arguments[i])) return run_fail(run, "%s wants more arguments", routine->name);
	return routine->run(run, self, arguments, ret);
}

const struct routine *routine_find(const struct routine *routines, size_t count, const struct text *name)
{
	for (size_t i = 0; i < count; i++)
		if (text_is(name, routines[i].name)) return &routines[i];
	return NULL;
}

enum status routine_value(struct run *run, const struct routine *routine, const struct value *self, struct value *ret)
{
	struct bound *bound = run_new(run, 1, sizeof *bound);
	if (!bound) return run->status;
	*bound = (struct bound){.routine = routine};
	if (self) bound->self = *self;
	*ret = (struct value){.kind = VALUE_ROUTINE, .bound = bound};
	return STATUS_OK;
}

/* Whether a method changes what it is of. */
static bool changes(const struct value *value, const struct text *name)
{
	static const char *const of_list[] = {"append", "clear", "extend", "insert", "pop", "remove", "reverse", "sort", NULL};
	static const char *const of_dict[] = {"clear", "pop", "popitem", "setdefault", "update", NULL};
	const char *const *names = value->kind == VALUE_LIST ? of_list : value->kind == VALUE_DICT ? of_dict : NULL;
	for (; names && *names; names++)
		if (text_is(name, *names)) return true;
	return false;
}

enum status routine_of(struct run *run, const struct value *value, const struct text *name, struct value *ret, bool *ret_there)
{
	const struct routine *method = python_method_find(value, name);
	*ret_there = true;
	if (method) return routine_value(run, method, value, ret);
	if (changes(value, name)) return value_undefined_for(run, "a template cannot change a list or dict", ret);
	*ret_there = false;
	return STATUS_OK;
}

/* ---- macros -------------------------------------------------------------------------------------------------------------- */
static enum status set_rest(struct run *run, struct scope *scope, const char *name, const struct value *value)
{
	struct value key;
	TRY(value_c_string(run, name, &key));
	return scope_set(run, scope, key.text, value);
}

static const struct value *find_named(const struct call *call, const struct text *name)
{
	for (size_t i = 0; i < call->named_count; i++)
		if (text_equal(call->named[i].name, name)) return &call->named[i].value;
	return NULL;
}

static bool is_parameter(const struct node *node, const struct text *name)
{
	for (size_t i = 0; i < node->parameter_count; i++)
		if (text_equal(node->parameters[i].name, name)) return true;
	return false;
}

/* The parameters, each in turn: a default may name those before it. */
static enum status set_parameters(struct run *run, const struct node *node, const struct call *call, struct scope *scope)
{
	for (size_t i = 0; i < node->parameter_count; i++) {
		const struct named_node *parameter = &node->parameters[i];
		struct value value;
		const struct value *named = find_named(call, parameter->name);
		if (i < call->count && named) return run_fail(run, "a macro got an argument twice");
		if (i < call->count)
			value = call->positional[i];
		else if (named)
			value = *named;
		else if (parameter->node)
			TRY(evaluate(run, parameter->node, scope, &value));
		else
			TRY(value_undefined(run, NULL, parameter->name, &value));
		TRY(scope_set(run, scope, parameter->name, &value));
	}
	return STATUS_OK;
}

/* What the macro's parameters do not take: `caller`, `kwargs`, `varargs`, where it names them. */
static enum status set_others(struct run *run, const struct node *node, const struct call *call, struct scope *scope)
{
	struct value rest, more;
	TRY(value_dict(run, call->named_count, &rest));
	for (size_t i = 0; i < call->named_count; i++) {
		const struct named_value *named = &call->named[i];
		const struct value key = {.kind = VALUE_STRING, .text = named->name};
		if (is_parameter(node, named->name)) continue;
		if (node->wants_caller && text_is(named->name, "caller"))
			TRY(scope_set(run, scope, named->name, &named->value));
		else if (node->wants_named)
			TRY(dict_put(run, rest.dict, &key, &named->value));
		else
			return run_fail(run, "a macro takes no keyword argument '%.*s'",
					named->name->bytes < 64 ? (int)named->name->bytes : 64, named->name->data);
	}
	size_t taken = call->count < node->parameter_count ? call->count : node->parameter_count;
	if (node->wants_named) TRY(set_rest(run, scope, "kwargs", &rest));
	if (node->wants_more) {
		const struct value *left = call->count > taken ? call->positional + taken : NULL;
		TRY(value_list(run, VALUE_TUPLE, left, call->count - taken, &more));
		return set_rest(run, scope, "varargs", &more);
	}
	return call->count == taken ? STATUS_OK : run_fail(run, "a macro takes not more than %zu arguments", node->parameter_count);
}

static enum status call_macro(struct run *run, const struct macro *macro, const struct call *call, struct value *ret)
{
	static const struct text caller = {"caller", 6, 6};
	const struct node *node = macro->node;
	struct scope *scope = scope_new(run, macro->scope);
	struct value none;
	if (!scope) return run->status;
	if (node->wants_caller && !find_named(call, &caller)) {
		TRY(value_undefined_for(run, "No caller defined", &none));
		TRY(scope_set(run, scope, &caller, &none));
	}
	TRY(set_others(run, node, call, scope));
	TRY(set_parameters(run, node, call, scope));
	return capture(run, node->blocks, scope, ret);
}

enum status call_value(struct run *run, const struct value *callee, const struct call *call, struct value *ret)
{
	enum status status;
	TRY(value_need(run, callee));
	TRY(run_enter(run));
	switch (callee->kind) {
	case VALUE_MACRO:
		status = call_macro(run, callee->macro, call, ret);
		break;
	case VALUE_ROUTINE:
		status = routine_run(run, callee->bound->routine, &callee->bound->self, call, ret);
		break;
	case VALUE_LOOP:
		return run_refuse(run, "a recursive loop");
	default:
		return run_fail(run, "'%s' object is not callable", value_type(callee));
	}
	run_leave(run);
	return status;
}

/* ---- arguments ----------------------------------------------------------------------------------------------------------- */
enum status argument_text(struct run *run, const struct value *value, const char *name, const struct text **ret)
{
	TRY(value_need(run, value));
	if (value->kind != VALUE_STRING) return run_fail(run, "%s must be a string, not %s", name, value_type(value));
	*ret = value->text;
	return STATUS_OK;
}

enum status argument_int(struct run *run, const struct value *value, const char *name, int64_t otherwise, int64_t *ret)
{
	*ret = otherwise;
	if (!is_given(value)) return STATUS_OK;
	TRY(value_need(run, value));
	if (!value_is_whole(value)) return run_fail(run, "%s must be an integer, not %s", name, value_type(value));
	*ret = value_whole(value);
	return STATUS_OK;
}
