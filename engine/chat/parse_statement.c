#include "engine/chat/parser.h"

enum { MAX_ENDS = 4 };

static enum status parse_statement(struct parser *, struct node **ret);

/* Statements up to a tag that one of `ends` names, or to the end where there are none. The name is left to be read. */
static enum status parse_block(struct parser *parser, const char *const ends[], struct block *ret)
{
	struct node_list list = {0};
	TRY(run_enter(parser->run));
	while (!parser_is(parser, TOKEN_END)) {
		struct node *node = NULL;
		int line = parser->at->line;
		if (parser_is(parser, TOKEN_DATA)) {
			TRY(node_new(parser, NODE_DATA, line, &node));
			node->constant = parser->at->value;
			parser_next(parser);
		} else if (parser_skip(parser, TOKEN_PRINT_BEGIN)) {
			struct node_list items = {0};
			struct node *item;
			TRY(node_new(parser, NODE_PRINT, line, &node));
			TRY(parse_tuple(parser, true, NULL, false, &item));
			TRY(node_above(parser, node, item));
			TRY(node_list_add(parser, &items, item));
			node->items = items.nodes;
			node->count = 1;
			TRY(parser_expect(parser, TOKEN_PRINT_END));
		} else {
			TRY(parser_expect(parser, TOKEN_BLOCK_BEGIN));
			for (int i = 0; ends && ends[i]; i++)
				if (parser_is_name(parser, ends[i])) {
					*ret = (struct block){list.nodes, list.count};
					run_leave(parser->run);
					return STATUS_OK;
				}
			TRY(parse_statement(parser, &node));
			TRY(parser_expect(parser, TOKEN_BLOCK_END));
		}
		TRY(node_list_add(parser, &list, node));
	}
	run_leave(parser->run);
	if (ends) return run_fail(parser->run, "{%% %s %%} is missing", ends[0]);
	*ret = (struct block){list.nodes, list.count};
	return STATUS_OK;
}

static enum status above_block(struct parser *parser, struct node *node, const struct block *block)
{
	for (size_t i = 0; i < block->count; i++)
		TRY(node_above(parser, node, block->nodes[i]));
	return STATUS_OK;
}

/* The rest of a tag, and a block up to `end`, which is read, too. */
static enum status parse_body(struct parser *parser, struct node *node, const char *const ends[], struct block *block)
{
	parser_skip(parser, TOKEN_COLON);
	TRY(parser_expect(parser, TOKEN_BLOCK_END));
	TRY(parse_block(parser, ends, block));
	return above_block(parser, node, block);
}

static enum status parse_only_body(struct parser *parser, struct node *node, const char *end)
{
	const char *const ends[] = {end, NULL};
	node->blocks = run_new(parser->run, 1, sizeof *node->blocks);
	if (!node->blocks) return parser->run->status;
	TRY(parse_body(parser, node, ends, node->blocks));
	parser_next(parser);
	return STATUS_OK;
}

static enum status parse_if(struct parser *parser, struct node *node)
{
	static const char *const ends[] = {"endif", "elif", "else", NULL}, *const end[] = {"endif", NULL};
	struct node_list tests = {0};
	size_t room = 0;
	struct node *test;
	do {
		TRY(parse_tuple(parser, false, NULL, false, &test));
		TRY(node_above(parser, node, test));
		TRY(node_list_add(parser, &tests, test));
		if (tests.count > room) {
			room = room ? room * 2 : 2;
			struct block *blocks = run_new(parser->run, room, sizeof *blocks);
			if (!blocks) return parser->run->status;
			if (node->blocks) memcpy(blocks, node->blocks, (tests.count - 1) * sizeof *blocks);
			node->blocks = blocks;
		}
		TRY(parse_body(parser, node, ends, &node->blocks[tests.count - 1]));
	} while (parser_skip_name(parser, "elif"));
	node->items = tests.nodes;
	node->count = tests.count;
	if (parser_skip_name(parser, "else")) TRY(parse_body(parser, node, end, &node->otherwise));
	return parser_expect_name(parser, "endif");
}

static enum status parse_for(struct parser *parser, struct node *node)
{
	static const char *const ends[] = {"endfor", "else", NULL}, *const end[] = {"endfor", NULL};
	parser->loops++;
	TRY(parse_target(parser, false, "in", &node->a));
	parser->loops--;
	TRY(parser_expect_name(parser, "in"));
	TRY(parse_tuple(parser, false, "recursive", false, &node->b));
	if (parser_skip_name(parser, "if")) TRY(parse_expression(parser, true, &node->c));
	if (parser_is_name(parser, "recursive")) return run_refuse(parser->run, "a recursive loop");
	TRY(node_above(parser, node, node->a));
	TRY(node_above(parser, node, node->b));
	TRY(node_above(parser, node, node->c));
	node->blocks = run_new(parser->run, 1, sizeof *node->blocks);
	if (!node->blocks) return parser->run->status;
	parser->loops++;
	TRY(parse_body(parser, node, ends, node->blocks));
	parser->loops--;
	if (parser_skip_name(parser, "else")) TRY(parse_body(parser, node, end, &node->otherwise));
	return parser_expect_name(parser, "endfor");
}

static enum status parse_set(struct parser *parser, struct node *node)
{
	TRY(parse_target(parser, true, NULL, &node->a));
	if (parser_skip(parser, TOKEN_ASSIGN)) {
		TRY(parse_tuple(parser, true, NULL, false, &node->b));
		return node_above(parser, node, node->b);
	}
	node->kind = NODE_SET_BLOCK;
	TRY(parse_filters(parser, false, &node->b));
	TRY(node_above(parser, node, node->b));
	return parse_only_body(parser, node, "endset");
}

static enum status parse_parameters(struct parser *parser, struct node *macro)
{
	size_t room = 0;
	bool defaults = false;
	TRY(parser_expect(parser, TOKEN_LEFT_PARENTHESIS));
	while (!parser_is(parser, TOKEN_RIGHT_PARENTHESIS)) {
		struct named_node parameter = {0};
		if (macro->parameter_count) TRY(parser_expect(parser, TOKEN_COMMA));
		TRY(parser_take_name(parser, &parameter.name));
		if (parser_skip(parser, TOKEN_ASSIGN))
			TRY(parse_expression(parser, true, &parameter.node));
		else if (defaults)
			return run_fail(parser->run, "a parameter without a default follows one that has one");
		defaults = parameter.node != NULL;
		TRY(node_above(parser, macro, parameter.node));
		if (macro->parameter_count == room) {
			room = room ? room * 2 : 4;
			struct named_node *more = run_new(parser->run, room, sizeof *more);
			if (!more) return parser->run->status;
			if (macro->parameter_count) memcpy(more, macro->parameters, macro->parameter_count * sizeof *more);
			macro->parameters = more;
		}
		macro->parameters[macro->parameter_count++] = parameter;
	}
	return parser_expect(parser, TOKEN_RIGHT_PARENTHESIS);
}

/* The body of what is called: no loop around it counts. */
static enum status parse_macro_body(struct parser *parser, struct node *macro, const char *end)
{
	struct node *outer = parser->macro;
	int loops = parser->loops;
	parser->macro = macro;
	parser->loops = 0;
	TRY(parse_only_body(parser, macro, end));
	parser->macro = outer;
	parser->loops = loops;
	if (!outer) return STATUS_OK;
	outer->wants_caller = outer->wants_caller || macro->wants_caller; /* as Jinja finds them, in macros in macros, too */
	outer->wants_more = outer->wants_more || macro->wants_more;
	outer->wants_named = outer->wants_named || macro->wants_named;
	return STATUS_OK;
}

static enum status parse_macro(struct parser *parser, struct node *node)
{
	TRY(parser_take_name(parser, &node->name));
	TRY(parse_parameters(parser, node));
	for (size_t i = 0; i < node->parameter_count; i++)
		if (text_is(node->parameters[i].name, "caller")) return run_refuse(parser->run, "a parameter 'caller'");
	return parse_macro_body(parser, node, "endmacro");
}

static enum status parse_call_block(struct parser *parser, struct node *node)
{
	TRY(node_new(parser, NODE_MACRO, node->line, &node->b));
	if (parser_is(parser, TOKEN_LEFT_PARENTHESIS)) TRY(parse_parameters(parser, node->b));
	TRY(parse_expression(parser, true, &node->a));
	if (node->a->kind != NODE_CALL) return run_fail(parser->run, "{%% call %%} without a call");
	TRY(parse_macro_body(parser, node->b, "endcall"));
	TRY(node_above(parser, node, node->b));
	return node_above(parser, node, node->a);
}

static enum status parse_filter_block(struct parser *parser, struct node *node)
{
	TRY(parse_filters(parser, true, &node->b));
	TRY(node_above(parser, node, node->b));
	return parse_only_body(parser, node, "endfilter");
}

static enum status parse_with(struct parser *parser, struct node *node)
{
	struct node_list list = {0};
	struct node *item;
	while (!parser_is(parser, TOKEN_BLOCK_END)) {
		if (list.count) TRY(parser_expect(parser, TOKEN_COMMA));
		TRY(parse_target(parser, false, NULL, &item));
		TRY(node_list_add(parser, &list, item));
		TRY(parser_expect(parser, TOKEN_ASSIGN));
		TRY(parse_expression(parser, true, &item));
		TRY(node_above(parser, node, item));
		TRY(node_list_add(parser, &list, item));
	}
	node->items = list.nodes;
	node->count = list.count;
	return parse_only_body(parser, node, "endwith");
}

/* What stands for one more scope. Jinja makes a call block of it. */
static enum status parse_generation(struct parser *parser, struct node *node)
{
	int loops = parser->loops;
	parser->loops = 0;
	TRY(parse_only_body(parser, node, "endgeneration"));
	parser->loops = loops;
	return STATUS_OK;
}

static enum status parse_print(struct parser *parser, struct node *node)
{
	struct node_list list = {0};
	struct node *item;
	while (!parser_is(parser, TOKEN_BLOCK_END)) {
		if (list.count) TRY(parser_expect(parser, TOKEN_COMMA));
		TRY(parse_expression(parser, true, &item));
		TRY(node_above(parser, node, item));
		TRY(node_list_add(parser, &list, item));
	}
	node->items = list.nodes;
	node->count = list.count;
	return STATUS_OK;
}

static enum status parse_jump(struct parser *parser, struct node *node)
{
	return parser->loops
		       ? STATUS_OK
		       : run_fail(parser->run, "{%% %s %%} outside of a loop", node->kind == NODE_BREAK ? "break" : "continue");
}

static const struct {
	const char *name;
	enum node_kind kind;
	enum status (*parse)(struct parser *, struct node *);
} statements[] = {
	{"if", NODE_IF, parse_if},
	{"for", NODE_FOR, parse_for},
	{"set", NODE_SET, parse_set},
	{"macro", NODE_MACRO, parse_macro},
	{"call", NODE_CALL_BLOCK, parse_call_block},
	{"filter", NODE_FILTER_BLOCK, parse_filter_block},
	{"with", NODE_WITH, parse_with},
	{"generation", NODE_SCOPE, parse_generation},
	{"print", NODE_PRINT, parse_print},
	{"break", NODE_BREAK, parse_jump},
	{"continue", NODE_CONTINUE, parse_jump},
};

/* What Jinja has, and no conversation needs. */
static const char *const unsupported[] = {"block", "extends", "include", "import", "from", "autoescape", "do", "trans", "debug"};

static enum status parse_statement(struct parser *parser, struct node **ret)
{
	const struct text *name;
	int line = parser->at->line;
	TRY(parser_take_name(parser, &name));
	for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
		if (text_is(name, statements[i].name)) {
			TRY(node_new(parser, statements[i].kind, line, ret));
			return statements[i].parse(parser, *ret);
		}
	parser->run->line = line;
	for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++)
		if (text_is(name, unsupported[i])) return run_refuse(parser->run, "{%% %s %%} is not supported", unsupported[i]);
	return run_fail(parser->run, "there is no {%% %.*s %%}", name->bytes < 64 ? (int)name->bytes : 64, name->data);
}

enum status template_parse(struct run *run, const struct token *tokens, struct block *ret)
{
	struct parser parser = {.run = run, .at = tokens};
	run->line = tokens->line;
	return parse_block(&parser, NULL, ret);
}
