#include "engine/chat/print.h"
#include "engine/chat/routine.h"
#include "engine/chat/scope.h"

/* ---- variables ----------------------------------------------------------------------------------------------------------- */
struct scope *scope_new(struct run *run, struct scope *parent)
{
	struct scope *scope = run_new(run, 1, sizeof *scope);
	if (scope) scope->parent = parent;
	return scope;
}

enum status scope_set(struct run *run, struct scope *scope, const struct text *name, const struct value *value)
{
	TRY(run_spend(run, scope->count * (name->bytes / STEP_BYTES + 1) / STEP_BYTES + 1));
	for (size_t i = 0; i < scope->count; i++)
		if (text_equal(scope->variables[i].name, name)) {
			scope->variables[i].value = *value;
			return STATUS_OK;
		}
	if (scope->count == scope->room) {
		size_t room = scope->room ? scope->room * 2 : 4;
		struct variable *variables = run_new(run, room, sizeof *variables);
		if (!variables) return run->status;
		if (scope->count) memcpy(variables, scope->variables, scope->count * sizeof *variables);
		scope->variables = variables;
		scope->room = room;
	}
	scope->variables[scope->count++] = (struct variable){name, *value};
	return STATUS_OK;
}

enum status scope_get(struct run *run, const struct scope *scope, const struct text *name, struct value *ret)
{
	for (; scope; scope = scope->parent) {
		TRY(run_spend(run, scope->count * (name->bytes / STEP_BYTES + 1) / STEP_BYTES + 1));
		for (size_t i = 0; i < scope->count; i++)
			if (text_equal(scope->variables[i].name, name)) {
				*ret = scope->variables[i].value;
				return STATUS_OK;
			}
	}
	const struct routine *function = function_find(name);
	if (function) return routine_value(run, function, NULL, ret);
	return value_undefined(run, NULL, name, ret);
}

static enum status assign_member(struct run *run, const struct node *target, const struct value *value, struct scope *scope)
{
	struct value object;
	const struct value name = {.kind = VALUE_STRING, .text = target->member};
	TRY(scope_get(run, scope, target->name, &object));
	run->line = target->line;
	if (object.kind != VALUE_NAMESPACE) return run_fail(run, "cannot assign attribute on non-namespace object");
	if (target->member->data[0] == '_') return run_fail(run, "a namespace's attributes cannot begin with an underscore");
	return dict_put(run, object.dict, &name, value);
}

enum status assign(struct run *run, const struct node *target, const struct value *value, struct scope *scope)
{
	struct list items;
	if (target->kind == NODE_NAME) return scope_set(run, scope, target->name, value);
	if (target->kind == NODE_MEMBER) return assign_member(run, target, value, scope);
	run->line = target->line;
	TRY(value_items(run, value, &items));
	if (items.count != target->count) return run_fail(run, "%zu values to unpack for %zu names", items.count, target->count);
	for (size_t i = 0; i < items.count; i++)
		TRY(assign(run, target->items[i], &items.items[i], scope));
	return STATUS_OK;
}

/* ---- loops --------------------------------------------------------------------------------------------------------------- */
/* The next item of the source that the loop takes. */
static enum status choose(struct run *run, struct loop *loop, struct value *ret, bool *ret_there)
{
	const struct node *node = loop->node;
	*ret_there = false;
	while (!*ret_there && loop->next < loop->source.count) {
		struct value holds = VALUE_OF_BOOL(true);
		*ret = loop->source.items[loop->next++];
		if (node->c && !loop->chosen) {
			struct scope *scope = scope_new(run, loop->outer);
			if (!scope) return run->status;
			TRY(assign(run, node->a, ret, scope));
			TRY(evaluate(run, node->c, scope, &holds));
		}
		*ret_there = value_truth(&holds);
	}
	return STATUS_OK;
}

/* Looks at the item behind the current one. */
static enum status peek(struct run *run, struct loop *loop, bool *ret_there)
{
	if (!loop->has_after) TRY(choose(run, loop, &loop->after, &loop->has_after));
	*ret_there = loop->has_after;
	return STATUS_OK;
}

enum status loop_next(struct run *run, struct loop *loop, bool *ret_there)
{
	TRY(run_spend(run, 1));
	TRY(peek(run, loop, ret_there));
	if (!*ret_there) return STATUS_OK;
	loop->before = loop->current;
	loop->current = loop->after;
	loop->has_after = false;
	loop->index0++;
	return STATUS_OK;
}

enum status loop_length(struct run *run, struct loop *loop, size_t *ret)
{
	if (loop->node->c && !loop->chosen) {
		size_t count = 0;
		bool there;
		struct value *items = run_new(run, loop->source.count - loop->next, sizeof *items);
		if (!items) return run->status;
		do {
			TRY(choose(run, loop, &items[count], &there));
			count += there;
		} while (there);
		loop->source = (struct list){.items = items, .count = count};
		loop->next = 0;
		loop->chosen = true;
	}
	*ret = loop->source.count - loop->next + loop->has_after + (size_t)(loop->index0 + 1);
	return STATUS_OK;
}

static enum status neighbour(struct run *run, struct loop *loop, bool next, struct value *ret)
{
	bool there = loop->index0 > 0;
	if (next) TRY(peek(run, loop, &there));
	if (!there) return value_undefined_for(run, next ? "there is no next item" : "there is no previous item", ret);
	*ret = next ? loop->after : loop->before;
	return STATUS_OK;
}

enum status loop_attribute(struct run *run, const struct value *value, const struct text *name, struct value *ret, bool *ret_there)
{
	struct loop *loop = value->loop;
	size_t length = 0;
	bool more;
	*ret_there = true;
	if (text_is(name, "index0"))
		*ret = VALUE_OF_INT(loop->index0);
	else if (text_is(name, "index"))
		*ret = VALUE_OF_INT(loop->index0 + 1);
	else if (text_is(name, "first"))
		*ret = VALUE_OF_BOOL(loop->index0 == 0);
	else if (text_is(name, "depth"))
		*ret = VALUE_OF_INT(1);
	else if (text_is(name, "depth0"))
		*ret = VALUE_OF_INT(0);
	else if (text_is(name, "previtem"))
		return neighbour(run, loop, false, ret);
	else if (text_is(name, "nextitem"))
		return neighbour(run, loop, true, ret);
	else if (text_is(name, "last")) {
		TRY(peek(run, loop, &more));
		*ret = VALUE_OF_BOOL(!more);
	} else if (text_is(name, "length") || text_is(name, "revindex") || text_is(name, "revindex0")) {
		TRY(loop_length(run, loop, &length));
		int64_t left = (int64_t)length - loop->index0;
		*ret = VALUE_OF_INT(name->data[0] == 'l' ? (int64_t)length : name->bytes == 8 ? left : left - 1);
	} else {
		const struct routine *method = loop_method_find(name);
		*ret_there = method != NULL;
		if (method) return routine_value(run, method, value, ret);
	}
	return STATUS_OK;
}

static enum status execute_for(struct run *run, const struct node *node, struct scope *outer)
{
	static const struct text loop_name = {"loop", 4, 4};
	struct value source;
	struct loop *loop = run_new(run, 1, sizeof *loop);
	if (!loop) return run->status;
	TRY(evaluate(run, node->b, outer, &source));
	run->line = node->line;
	*loop = (struct loop){.node = node, .outer = outer, .index0 = -1};
	TRY(value_items(run, &source, &loop->source));
	bool reached_end = false; /* of the body; else is for where that never was, so Jinja */
	const struct value loop_value = {.kind = VALUE_LOOP, .loop = loop};
	while (true) {
		bool there;
		TRY(loop_next(run, loop, &there));
		if (!there) break;
		struct scope *scope = scope_new(run, outer);
		if (!scope) return run->status;
		TRY(scope_set(run, scope, &loop_name, &loop_value));
		TRY(assign(run, node->a, &loop->current, scope));
		TRY(execute_block(run, node->blocks, scope));
		bool ends = run->flow == FLOW_BREAK;
		reached_end = reached_end || run->flow == FLOW_ON;
		run->flow = FLOW_ON;
		if (ends) break;
	}
	if (reached_end || !node->otherwise.count) return STATUS_OK;
	struct scope *scope = scope_new(run, outer);
	return scope ? execute_block(run, &node->otherwise, scope) : run->status;
}

/* ---- other statements ---------------------------------------------------------------------------------------------------- */
enum status capture(struct run *run, const struct block *block, struct scope *scope, struct value *ret)
{
	struct buffer own = {0}, *outer = run->out;
	run->out = &own;
	enum status status = execute_block(run, block, scope);
	run->out = outer;
	if (status == STATUS_OK) status = value_copy_string(run, own.data, own.size, ret);
	buffer_free(&own);
	return status;
}

static enum status capture_inside(struct run *run, const struct node *node, struct scope *outer, struct value *ret)
{
	struct scope *scope = scope_new(run, outer);
	struct value text;
	if (!scope) return run->status;
	TRY(capture(run, node->blocks, scope, &text));
	*ret = text;
	return node->b && run->flow == FLOW_ON ? evaluate_filters(run, node->b, &text, scope, ret) : STATUS_OK;
}

static enum status execute_set_block(struct run *run, const struct node *node, struct scope *scope)
{
	struct value text;
	TRY(capture_inside(run, node, scope, &text));
	return run->flow == FLOW_ON ? assign(run, node->a, &text, scope) : STATUS_OK;
}

static enum status execute_filter_block(struct run *run, const struct node *node, struct scope *scope)
{
	struct value text;
	TRY(capture_inside(run, node, scope, &text));
	return run->flow == FLOW_ON ? print_value(run, run->out, &text) : STATUS_OK;
}

static enum status execute_if(struct run *run, const struct node *node, struct scope *scope)
{
	struct value test;
	for (size_t i = 0; i < node->count; i++) {
		TRY(evaluate(run, node->items[i], scope, &test));
		if (value_truth(&test)) return execute_block(run, &node->blocks[i], scope);
	}
	return execute_block(run, &node->otherwise, scope);
}

static enum status execute_print(struct run *run, const struct node *node, struct scope *scope)
{
	struct value value;
	for (size_t i = 0; i < node->count; i++) {
		TRY(evaluate(run, node->items[i], scope, &value));
		TRY(print_value(run, run->out, &value));
	}
	return STATUS_OK;
}

static enum status execute_set(struct run *run, const struct node *node, struct scope *scope)
{
	struct value value;
	TRY(evaluate(run, node->b, scope, &value));
	return assign(run, node->a, &value, scope);
}

static enum status make_macro(struct run *run, const struct node *node, struct scope *scope, struct value *ret)
{
	struct macro *macro = run_new(run, 1, sizeof *macro);
	if (!macro) return run->status;
	*macro = (struct macro){node, scope};
	*ret = (struct value){.kind = VALUE_MACRO, .macro = macro};
	return STATUS_OK;
}

static enum status execute_macro(struct run *run, const struct node *node, struct scope *scope)
{
	struct value macro;
	TRY(make_macro(run, node, scope, &macro));
	return scope_set(run, scope, node->name, &macro);
}

/* A call with one more argument, `caller`. */
static enum status execute_call_block(struct run *run, const struct node *node, struct scope *outer)
{
	static const struct text name = {"caller", 6, 6};
	struct value caller, value;
	struct scope *scope = scope_new(run, outer);
	if (!scope) return run->status;
	TRY(make_macro(run, node->b, outer, &caller));
	TRY(scope_set(run, scope, &name, &caller));
	struct node argument = {.kind = NODE_NAME, .line = node->line, .height = 1, .name = &name};
	struct arguments arguments = *node->a->arguments;
	struct named_node *named = run_new(run, arguments.named_count + 1, sizeof *named);
	if (!named) return run->status;
	if (arguments.named_count) memcpy(named, arguments.named, arguments.named_count * sizeof *named);
	named[arguments.named_count++] = (struct named_node){&name, &argument};
	arguments.named = named;
	struct node call = *node->a;
	call.arguments = &arguments;
	TRY(evaluate(run, &call, scope, &value));
	return print_value(run, run->out, &value);
}

/* The values are those outside. */
static enum status execute_with(struct run *run, const struct node *node, struct scope *outer)
{
	struct value value;
	struct scope *scope = scope_new(run, outer);
	if (!scope) return run->status;
	for (size_t i = 0; i < node->count; i += 2) {
		TRY(evaluate(run, node->items[i + 1], outer, &value));
		TRY(assign(run, node->items[i], &value, scope));
	}
	return execute_block(run, node->blocks, scope);
}

static enum status execute_scope(struct run *run, const struct node *node, struct scope *outer)
{
	struct scope *scope = scope_new(run, outer);
	return scope ? execute_block(run, node->blocks, scope) : run->status;
}

static enum status execute_statement(struct run *run, const struct node *node, struct scope *scope)
{
	switch (node->kind) {
	case NODE_DATA:
		return run_append(run, run->out, node->constant.text->data, node->constant.text->bytes);
	case NODE_PRINT:
		return execute_print(run, node, scope);
	case NODE_IF:
		return execute_if(run, node, scope);
	case NODE_FOR:
		return execute_for(run, node, scope);
	case NODE_SET:
		return execute_set(run, node, scope);
	case NODE_SET_BLOCK:
		return execute_set_block(run, node, scope);
	case NODE_MACRO:
		return execute_macro(run, node, scope);
	case NODE_CALL_BLOCK:
		return execute_call_block(run, node, scope);
	case NODE_FILTER_BLOCK:
		return execute_filter_block(run, node, scope);
	case NODE_WITH:
		return execute_with(run, node, scope);
	case NODE_SCOPE:
		return execute_scope(run, node, scope);
	default:
		run->flow = node->kind == NODE_BREAK ? FLOW_BREAK : FLOW_CONTINUE;
		return STATUS_OK;
	}
}

enum status execute_block(struct run *run, const struct block *block, struct scope *scope)
{
	TRY(run_enter(run));
	for (size_t i = 0; i < block->count && run->flow == FLOW_ON; i++) {
		run->line = block->nodes[i]->line;
		TRY(run_spend(run, 1));
		TRY(execute_statement(run, block->nodes[i], scope));
	}
	run_leave(run);
	return STATUS_OK;
}
