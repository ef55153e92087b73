#include "engine/chat/parser.h"

enum { NODE_HEIGHT = 200 };

/* ---- nodes --------------------------------------------------------------------------------------------------------------- */
enum status node_new(struct parser *parser, enum node_kind kind, int line, struct node **ret)
{
	struct node *node = run_new(parser->run, 1, sizeof *node);
	if (!node) return parser->run->status;
	node->kind = kind;
	node->line = line;
	node->height = 1;
	*ret = node;
	return STATUS_OK;
}

enum status node_above(struct parser *parser, struct node *node, const struct node *below)
{
	if (!below) return STATUS_OK;
	if (below->height >= node->height) node->height = below->height + 1;
	if (node->height > NODE_HEIGHT) return run_refuse(parser->run, "it is nested more than %d deep", NODE_HEIGHT);
	return STATUS_OK;
}

enum status node_list_add(struct parser *parser, struct node_list *list, struct node *node)
{
	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 4;
		struct node **nodes = run_new(parser->run, room, sizeof *nodes);
		if (!nodes) return parser->run->status;
		if (list->count) memcpy(nodes, list->nodes, list->count * sizeof *nodes);
		list->nodes = nodes;
		list->room = room;
	}
	list->nodes[list->count++] = node;
	return STATUS_OK;
}

static enum status add_item(struct parser *parser, struct node *node, struct node_list *list, struct node *item)
{
	TRY(node_above(parser, node, item));
	return node_list_add(parser, list, item);
}

static void set_items(struct node *node, const struct node_list *list)
{
	node->items = list->nodes;
	node->count = list->count;
}

static enum status node_binary(struct parser *parser, enum node_kind kind, int line, struct node *a, struct node *b,
			       struct node **ret)
{
	TRY(node_new(parser, kind, line, ret));
	(*ret)->a = a;
	(*ret)->b = b;
	TRY(node_above(parser, *ret, a));
	return node_above(parser, *ret, b);
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */
void parser_next(struct parser *parser)
{
	if (parser->at->kind != TOKEN_END) parser->at++;
	parser->run->line = parser->at->line;
}

bool parser_skip(struct parser *parser, enum token_kind kind)
{
	bool there = parser_is(parser, kind);
	if (there) parser_next(parser);
	return there;
}

bool parser_skip_name(struct parser *parser, const char *name)
{
	bool there = parser_is_name(parser, name);
	if (there) parser_next(parser);
	return there;
}

enum status parser_unexpected(struct parser *parser, const char *wanted)
{
	const struct token *token = parser->at;
	if (token->kind != TOKEN_NAME) return run_fail(parser->run, "expected %s, got '%s'", wanted, token_name(token->kind));
	int bytes = token->value.text->bytes < 200 ? (int)token->value.text->bytes : 200;
	return run_fail(parser->run, "expected %s, got '%.*s'", wanted, bytes, token->value.text->data);
}

enum status parser_expect(struct parser *parser, enum token_kind kind)
{
	return parser_skip(parser, kind) ? STATUS_OK : parser_unexpected(parser, token_name(kind));
}

enum status parser_expect_name(struct parser *parser, const char *name)
{
	return parser_skip_name(parser, name) ? STATUS_OK : parser_unexpected(parser, name);
}

enum status parser_take_name(struct parser *parser, const struct text **ret)
{
	if (!parser_is(parser, TOKEN_NAME)) return parser_unexpected(parser, "a name");
	*ret = parser->at->value.text;
	parser_next(parser);
	return STATUS_OK;
}

/* ---- primaries ----------------------------------------------------------------------------------------------------------- */
static enum status parse_constant(struct parser *parser, const struct value *value, struct node **ret)
{
	TRY(node_new(parser, NODE_CONSTANT, parser->at->line, ret));
	(*ret)->constant = *value;
	parser_next(parser);
	return STATUS_OK;
}

/* A macro takes what it does not list where it names what that is in. */
static void note_special(struct parser *parser, const struct text *name)
{
	if (!parser->macro) return;
	if (text_is(name, "caller")) parser->macro->wants_caller = true;
	if (text_is(name, "varargs")) parser->macro->wants_more = true;
	if (text_is(name, "kwargs")) parser->macro->wants_named = true;
}

static enum status parse_name(struct parser *parser, bool members, struct node **ret)
{
	static const struct value none = VALUE_OF_NONE, yes = VALUE_OF_BOOL(true), no = VALUE_OF_BOOL(false);
	static const struct {
		const char *name;
		const struct value *value;
	} constants[] = {{"true", &yes}, {"True", &yes}, {"false", &no}, {"False", &no}, {"none", &none}, {"None", &none}};
	const struct text *name = parser->at->value.text;
	for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
		if (text_is(name, constants[i].name)) return parse_constant(parser, constants[i].value, ret);
	TRY(node_new(parser, NODE_NAME, parser->at->line, ret));
	(*ret)->name = name;
	parser_next(parser);
	note_special(parser, name);
	if (!members || !parser_skip(parser, TOKEN_DOT)) return STATUS_OK;
	(*ret)->kind = NODE_MEMBER;
	return parser_take_name(parser, &(*ret)->member);
}

/* Strings beside each other are one. */
static enum status parse_string(struct parser *parser, struct node **ret)
{
	TRY(parse_constant(parser, &parser->at->value, ret));
	if (!parser_is(parser, TOKEN_STRING)) return STATUS_OK;
	struct buffer buffer = {0};
	const struct text *first = (*ret)->constant.text;
	enum status status = run_append(parser->run, &buffer, first->data, first->bytes);
	while (status == STATUS_OK && parser_is(parser, TOKEN_STRING)) {
		status = run_append(parser->run, &buffer, parser->at->value.text->data, parser->at->value.text->bytes);
		parser_next(parser);
	}
	if (status == STATUS_OK) status = value_copy_string(parser->run, buffer.data, buffer.size, &(*ret)->constant);
	buffer_free(&buffer);
	return status;
}

static enum status parse_list(struct parser *parser, struct node **ret)
{
	struct node_list list = {0};
	struct node *item;
	TRY(node_new(parser, NODE_LIST, parser->at->line, ret));
	parser_next(parser);
	while (!parser_is(parser, TOKEN_RIGHT_BRACKET)) {
		if (list.count) TRY(parser_expect(parser, TOKEN_COMMA));
		if (parser_is(parser, TOKEN_RIGHT_BRACKET)) break;
		TRY(parse_expression(parser, true, &item));
		TRY(add_item(parser, *ret, &list, item));
	}
	set_items(*ret, &list);
	return parser_expect(parser, TOKEN_RIGHT_BRACKET);
}

static enum status parse_dict(struct parser *parser, struct node **ret)
{
	struct node_list list = {0};
	struct node *item;
	TRY(node_new(parser, NODE_DICT, parser->at->line, ret));
	parser_next(parser);
	while (!parser_is(parser, TOKEN_RIGHT_BRACE)) {
		if (list.count) TRY(parser_expect(parser, TOKEN_COMMA));
		if (parser_is(parser, TOKEN_RIGHT_BRACE)) break;
		TRY(parse_expression(parser, true, &item));
		TRY(add_item(parser, *ret, &list, item));
		TRY(parser_expect(parser, TOKEN_COLON));
		TRY(parse_expression(parser, true, &item));
		TRY(add_item(parser, *ret, &list, item));
	}
	set_items(*ret, &list);
	return parser_expect(parser, TOKEN_RIGHT_BRACE);
}

enum status parse_primary(struct parser *parser, bool members, struct node **ret)
{
	switch (parser->at->kind) {
	case TOKEN_NAME:
		return parse_name(parser, members, ret);
	case TOKEN_STRING:
		return parse_string(parser, ret);
	case TOKEN_NUMBER:
		return parse_constant(parser, &parser->at->value, ret);
	case TOKEN_LEFT_PARENTHESIS:
		parser_next(parser);
		TRY(parse_tuple(parser, true, NULL, true, ret));
		return parser_expect(parser, TOKEN_RIGHT_PARENTHESIS);
	case TOKEN_LEFT_BRACKET:
		return parse_list(parser, ret);
	case TOKEN_LEFT_BRACE:
		return parse_dict(parser, ret);
	default:
		return parser_unexpected(parser, "an expression");
	}
}

/* ---- what follows a primary ---------------------------------------------------------------------------------------------- */
struct named_list {
	struct named_node *nodes;
	size_t count, room;
};

static enum status add_named(struct parser *parser, struct named_list *list, const struct text *name, struct node *node)
{
	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 4;
		struct named_node *nodes = run_new(parser->run, room, sizeof *nodes);
		if (!nodes) return parser->run->status;
		if (list->count) memcpy(nodes, list->nodes, list->count * sizeof *nodes);
		list->nodes = nodes;
		list->room = room;
	}
	list->nodes[list->count++] = (struct named_node){name, node};
	return STATUS_OK;
}

static enum status parse_argument(struct parser *parser, struct node *call, struct arguments *arguments,
				  struct node_list *positional, struct named_list *named)
{
	static const char wrong[] = "invalid syntax for function call expression";
	struct node *node;
	if (parser_skip(parser, TOKEN_MULTIPLY)) {
		if (arguments->more || arguments->more_named) return run_fail(parser->run, wrong);
		TRY(parse_expression(parser, true, &arguments->more));
		return node_above(parser, call, arguments->more);
	}
	if (parser_skip(parser, TOKEN_POWER)) {
		if (arguments->more_named) return run_fail(parser->run, wrong);
		TRY(parse_expression(parser, true, &arguments->more_named));
		return node_above(parser, call, arguments->more_named);
	}
	if (arguments->more_named) return run_fail(parser->run, wrong);
	if (parser_is(parser, TOKEN_NAME) && parser->at[1].kind == TOKEN_ASSIGN) {
		const struct text *name = parser->at->value.text;
		parser_next(parser);
		parser_next(parser);
		TRY(parse_expression(parser, true, &node));
		TRY(node_above(parser, call, node));
		return add_named(parser, named, name, node);
	}
	if (arguments->more || named->count) return run_fail(parser->run, wrong);
	TRY(parse_expression(parser, true, &node));
	return add_item(parser, call, positional, node);
}

static enum status parse_arguments(struct parser *parser, struct node *call)
{
	struct node_list positional = {0};
	struct named_list named = {0};
	struct arguments *arguments = run_new(parser->run, 1, sizeof *arguments);
	if (!arguments) return parser->run->status;
	TRY(parser_expect(parser, TOKEN_LEFT_PARENTHESIS));
	for (bool first = true; !parser_is(parser, TOKEN_RIGHT_PARENTHESIS); first = false) {
		if (!first) TRY(parser_expect(parser, TOKEN_COMMA));
		if (!first && parser_is(parser, TOKEN_RIGHT_PARENTHESIS)) break;
		TRY(parse_argument(parser, call, arguments, &positional, &named));
	}
	arguments->positional = positional.nodes;
	arguments->count = positional.count;
	arguments->named = named.nodes;
	arguments->named_count = named.count;
	call->arguments = arguments;
	return parser_expect(parser, TOKEN_RIGHT_PARENTHESIS);
}

static enum status parse_call(struct parser *parser, struct node **node)
{
	struct node *call = NULL;
	TRY(node_binary(parser, NODE_CALL, parser->at->line, *node, NULL, &call));
	TRY(parse_arguments(parser, call));
	*node = call;
	return STATUS_OK;
}

/* [a], [a:b], [a:b:c], and what of these may be left out. */
static enum status parse_subscript(struct parser *parser, struct node **node)
{
	struct node *item, *bounds[3] = {0}, *const object = *node;
	int line = parser->at->line;
	bool slice = false;
	parser_next(parser);
	for (int i = 0; i < 3; i++) {
		bool end =
			parser_is(parser, TOKEN_RIGHT_BRACKET) || parser_is(parser, TOKEN_COMMA) || parser_is(parser, TOKEN_COLON);
		if (!end) TRY(parse_expression(parser, true, &bounds[i]));
		if (i == 2 || !parser_skip(parser, TOKEN_COLON)) break;
		slice = true;
	}
	if (parser_is(parser, TOKEN_COMMA)) return run_refuse(parser->run, "a tuple in [ ]");
	if (!slice && !bounds[0]) return parser_unexpected(parser, "an expression");
	TRY(node_binary(parser, slice ? NODE_SLICE : NODE_ITEM, line, object, slice ? NULL : bounds[0], &item));
	if (slice) {
		struct node_list list = {0};
		for (int i = 0; i < 3; i++)
			TRY(add_item(parser, item, &list, bounds[i]));
		set_items(item, &list);
	}
	*node = item;
	return parser_expect(parser, TOKEN_RIGHT_BRACKET);
}

static enum status parse_dot(struct parser *parser, struct node **node)
{
	struct node *part, *index;
	int line = parser->at->line;
	parser_next(parser);
	if (parser_is(parser, TOKEN_NAME)) {
		TRY(node_binary(parser, NODE_ATTRIBUTE, line, *node, NULL, &part));
		TRY(parser_take_name(parser, &part->name));
	} else if (parser_is(parser, TOKEN_NUMBER) && parser->at->value.kind == VALUE_INT) {
		TRY(parse_constant(parser, &parser->at->value, &index));
		TRY(node_binary(parser, NODE_ITEM, line, *node, index, &part));
	} else {
		return parser_unexpected(parser, "a name or number");
	}
	*node = part;
	return STATUS_OK;
}

static enum status parse_postfix(struct parser *parser, struct node **node)
{
	while (true) {
		if (parser_is(parser, TOKEN_DOT))
			TRY(parse_dot(parser, node));
		else if (parser_is(parser, TOKEN_LEFT_BRACKET))
			TRY(parse_subscript(parser, node));
		else if (parser_is(parser, TOKEN_LEFT_PARENTHESIS))
			TRY(parse_call(parser, node));
		else
			return STATUS_OK;
	}
}

static enum status parse_routine_name(struct parser *parser, const struct text **ret)
{
	TRY(parser_take_name(parser, ret));
	return parser_is(parser, TOKEN_DOT) ? run_refuse(parser->run, "a filter or test with a dot in its name") : STATUS_OK;
}

enum status parse_filters(struct parser *parser, bool inline_start, struct node **node)
{
	static const struct arguments none;
	while (inline_start || parser_is(parser, TOKEN_PIPE)) {
		struct node *filter;
		if (!inline_start) parser_next(parser);
		inline_start = false;
		TRY(node_binary(parser, NODE_FILTER, parser->at->line, *node, NULL, &filter));
		TRY(parse_routine_name(parser, &filter->name));
		filter->arguments = &none;
		if (parser_is(parser, TOKEN_LEFT_PARENTHESIS)) TRY(parse_arguments(parser, filter));
		*node = filter;
	}
	return STATUS_OK;
}

/* Whether what follows the name of a test is its argument, without parentheses. */
static bool is_test_argument(const struct parser *parser)
{
	switch (parser->at->kind) {
	case TOKEN_NAME:
		return !parser_is_name(parser, "else") && !parser_is_name(parser, "or") && !parser_is_name(parser, "and");
	case TOKEN_STRING:
	case TOKEN_NUMBER:
	case TOKEN_LEFT_BRACKET:
	case TOKEN_LEFT_BRACE:
		return true;
	default:
		return false;
	}
}

static enum status parse_bare_argument(struct parser *parser, struct node *test)
{
	struct node_list list = {0};
	struct node *argument;
	struct arguments *arguments = run_new(parser->run, 1, sizeof *arguments);
	if (!arguments) return parser->run->status;
	if (parser_is_name(parser, "is")) return run_fail(parser->run, "tests cannot be chained with is");
	TRY(parse_primary(parser, false, &argument));
	TRY(parse_postfix(parser, &argument));
	TRY(add_item(parser, test, &list, argument));
	arguments->positional = list.nodes;
	arguments->count = list.count;
	test->arguments = arguments;
	return STATUS_OK;
}

static enum status parse_test(struct parser *parser, struct node **node)
{
	static const struct arguments none;
	struct node *test;
	int line = parser->at->line;
	parser_next(parser);
	bool negated = parser_skip_name(parser, "not");
	TRY(node_binary(parser, NODE_TEST, line, *node, NULL, &test));
	TRY(parse_routine_name(parser, &test->name));
	test->arguments = &none;
	if (parser_is(parser, TOKEN_LEFT_PARENTHESIS))
		TRY(parse_arguments(parser, test));
	else if (is_test_argument(parser))
		TRY(parse_bare_argument(parser, test));
	*node = test;
	return negated ? node_binary(parser, NODE_NOT, line, test, NULL, node) : STATUS_OK;
}

/* ---- operators ----------------------------------------------------------------------------------------------------------- */
static enum status parse_unary(struct parser *parser, bool with_filters, struct node **ret)
{
	int line = parser->at->line;
	bool negative = parser_is(parser, TOKEN_SUBTRACT), positive = parser_is(parser, TOKEN_ADD);
	TRY(run_enter(parser->run));
	if (negative || positive) {
		struct node *of;
		parser_next(parser);
		TRY(parse_unary(parser, false, &of));
		TRY(node_binary(parser, negative ? NODE_NEGATIVE : NODE_POSITIVE, line, of, NULL, ret));
	} else {
		TRY(parse_primary(parser, false, ret));
	}
	run_leave(parser->run);
	TRY(parse_postfix(parser, ret));
	while (with_filters) {
		if (parser_is(parser, TOKEN_PIPE))
			TRY(parse_filters(parser, false, ret));
		else if (parser_is_name(parser, "is"))
			TRY(parse_test(parser, ret));
		else if (parser_is(parser, TOKEN_LEFT_PARENTHESIS))
			TRY(parse_call(parser, ret));
		else
			break;
	}
	return STATUS_OK;
}

static enum status parse_arithmetic(struct parser *parser, int level, struct node **ret);

/* a ~ b ~ c is one node. */
static enum status parse_concatenation(struct parser *parser, int level, struct node **ret)
{
	struct node_list list = {0};
	struct node *first, *next;
	int line = parser->at->line;
	TRY(parse_arithmetic(parser, level + 1, &first));
	*ret = first;
	if (!parser_is(parser, TOKEN_TILDE)) return STATUS_OK;
	TRY(node_new(parser, NODE_CONCATENATE, line, ret));
	TRY(add_item(parser, *ret, &list, first));
	while (parser_skip(parser, TOKEN_TILDE)) {
		TRY(parse_arithmetic(parser, level + 1, &next));
		TRY(add_item(parser, *ret, &list, next));
	}
	set_items(*ret, &list);
	return STATUS_OK;
}

/* Of lower and lower precedence: + and -, ~, what multiplies, **; all from the left. */
static enum status parse_arithmetic(struct parser *parser, int level, struct node **ret)
{
	enum { CONCATENATION = 1, LAST = 3 };
	static const enum token_kind kinds[LAST + 1][4] = {
		{TOKEN_ADD, TOKEN_SUBTRACT}, {0}, {TOKEN_MULTIPLY, TOKEN_DIVIDE, TOKEN_FLOOR, TOKEN_MODULO}, {TOKEN_POWER}};
	if (level > LAST) return parse_unary(parser, true, ret);
	if (level == CONCATENATION) return parse_concatenation(parser, level, ret);
	TRY(parse_arithmetic(parser, level + 1, ret));
	while (true) {
		enum token_kind kind = parser->at->kind;
		struct node *left = *ret, *right;
		int line = parser->at->line;
		bool found = false;
		for (int i = 0; i < 4 && kinds[level][i]; i++)
			found = found || kinds[level][i] == kind;
		if (!found) return STATUS_OK;
		parser_next(parser);
		TRY(parse_arithmetic(parser, level + 1, &right));
		TRY(node_binary(parser, NODE_ARITHMETIC, line, left, right, ret));
		(*ret)->operation = kind;
	}
}

static bool take_comparison(struct parser *parser, enum comparison *ret)
{
	static const struct {
		enum token_kind token;
		enum comparison comparison;
	} comparisons[] = {{TOKEN_EQUAL, COMPARE_EQUAL},     {TOKEN_UNEQUAL, COMPARE_UNEQUAL}, {TOKEN_LESS, COMPARE_LESS},
			   {TOKEN_AT_MOST, COMPARE_AT_MOST}, {TOKEN_GREATER, COMPARE_GREATER}, {TOKEN_AT_LEAST, COMPARE_AT_LEAST}};
	for (size_t i = 0; i < sizeof comparisons / sizeof *comparisons; i++) {
		*ret = comparisons[i].comparison;
		if (parser_skip(parser, comparisons[i].token)) return true;
	}
	*ret = COMPARE_IN;
	if (parser_skip_name(parser, "in")) return true;
	*ret = COMPARE_NOT_IN;
	if (!parser_is_name(parser, "not") || parser->at[1].kind != TOKEN_NAME || !text_is(parser->at[1].value.text, "in"))
		return false;
	parser_next(parser);
	parser_next(parser);
	return true;
}

static enum status parse_compare(struct parser *parser, struct node **ret)
{
	enum { MOST = 32 };
	enum comparison operators[MOST], operator;
	struct node_list list = {0};
	struct node *first, *next;
	int line = parser->at->line;
	TRY(parse_arithmetic(parser, 0, &first));
	*ret = first;
	while (take_comparison(parser, &operator)) {
		if (list.count == MOST) return run_refuse(parser->run, "more than %d comparisons in a row", MOST);
		if (!list.count) TRY(node_binary(parser, NODE_COMPARE, line, first, NULL, ret));
		operators[list.count] = operator;
		TRY(parse_arithmetic(parser, 0, &next));
		TRY(add_item(parser, *ret, &list, next));
	}
	if (!list.count) return STATUS_OK;
	set_items(*ret, &list);
	(*ret)->operators = run_new(parser->run, list.count, sizeof *operators);
	if (!(*ret)->operators) return parser->run->status;
	memcpy((*ret)->operators, operators, list.count * sizeof *operators);
	return STATUS_OK;
}

static enum status parse_not(struct parser *parser, struct node **ret)
{
	struct node *of;
	int line = parser->at->line;
	if (!parser_skip_name(parser, "not")) return parse_compare(parser, ret);
	TRY(run_enter(parser->run));
	TRY(parse_not(parser, &of));
	run_leave(parser->run);
	return node_binary(parser, NODE_NOT, line, of, NULL, ret);
}

static enum status parse_and(struct parser *parser, struct node **ret)
{
	struct node *left, *right;
	TRY(parse_not(parser, ret));
	for (int line = parser->at->line; parser_skip_name(parser, "and"); line = parser->at->line) {
		left = *ret;
		TRY(parse_not(parser, &right));
		TRY(node_binary(parser, NODE_AND, line, left, right, ret));
	}
	return STATUS_OK;
}

static enum status parse_or(struct parser *parser, struct node **ret)
{
	struct node *left, *right;
	TRY(parse_and(parser, ret));
	for (int line = parser->at->line; parser_skip_name(parser, "or"); line = parser->at->line) {
		left = *ret;
		TRY(parse_and(parser, &right));
		TRY(node_binary(parser, NODE_OR, line, left, right, ret));
	}
	return STATUS_OK;
}

enum status parse_expression(struct parser *parser, bool with_condition, struct node **ret)
{
	TRY(run_enter(parser->run));
	TRY(parse_or(parser, ret));
	for (int line = parser->at->line; with_condition && parser_skip_name(parser, "if"); line = parser->at->line) {
		struct node *then = *ret, *test, *otherwise = NULL;
		TRY(parse_or(parser, &test));
		if (parser_skip_name(parser, "else")) TRY(parse_expression(parser, true, &otherwise));
		TRY(node_binary(parser, NODE_CONDITION, line, test, then, ret));
		(*ret)->c = otherwise;
		TRY(node_above(parser, *ret, otherwise));
	}
	run_leave(parser->run);
	return STATUS_OK;
}

/* ---- tuples -------------------------------------------------------------------------------------------------------------- */
static bool is_tuple_end(const struct parser *parser, const char *end)
{
	return parser_is(parser, TOKEN_PRINT_END) || parser_is(parser, TOKEN_BLOCK_END) ||
	       parser_is(parser, TOKEN_RIGHT_PARENTHESIS) || (end && parser_is_name(parser, end));
}

static enum status parse_items(struct parser *parser, bool with_condition, const char *end, bool in_brackets, bool is_target,
			       bool members, struct node **ret)
{
	struct node_list list = {0};
	struct node *item, *tuple = NULL;
	bool is_tuple = false;
	TRY(node_new(parser, NODE_TUPLE, parser->at->line, &tuple));
	while (true) {
		if (list.count) TRY(parser_expect(parser, TOKEN_COMMA));
		if (is_tuple_end(parser, end)) break;
		TRY(run_enter(parser->run));
		TRY(is_target ? parse_primary(parser, members, &item) : parse_expression(parser, with_condition, &item));
		run_leave(parser->run);
		TRY(add_item(parser, tuple, &list, item));
		if (!parser_is(parser, TOKEN_COMMA)) break;
		is_tuple = true;
	}
	if (!is_tuple && list.count) {
		*ret = list.nodes[0];
		return STATUS_OK;
	}
	if (!is_tuple && !in_brackets) return parser_unexpected(parser, "an expression");
	set_items(tuple, &list);
	*ret = tuple;
	return STATUS_OK;
}

enum status parse_tuple(struct parser *parser, bool with_condition, const char *end, bool in_brackets, struct node **ret)
{
	return parse_items(parser, with_condition, end, in_brackets, false, false, ret);
}

static enum status check_target(struct parser *parser, const struct node *node)
{
	if (node->kind == NODE_MEMBER) return STATUS_OK;
	if (node->kind == NODE_NAME) {
		if (parser->loops && text_is(node->name, "loop")) return run_fail(parser->run, "'loop' cannot be set in a loop");
		return STATUS_OK;
	}
	if (node->kind != NODE_TUPLE) return run_fail(parser->run, "only names can be set");
	for (size_t i = 0; i < node->count; i++)
		TRY(check_target(parser, node->items[i]));
	return STATUS_OK;
}

enum status parse_target(struct parser *parser, bool members, const char *end, struct node **ret)
{
	TRY(parse_items(parser, true, end, false, true, members, ret));
	return check_target(parser, *ret);
}
