/* What the two halves of the parser share. */
#ifndef BESAD_ENGINE_CHAT_PARSER_H
#define BESAD_ENGINE_CHAT_PARSER_H

#include "engine/chat/node.h"

struct parser {
	struct run *run;
	const struct token *at;
	int loops;          /* open ones */
	struct node *macro; /* the innermost open one */
};

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */
static inline bool parser_is(const struct parser *parser, enum token_kind kind)
{
	return parser->at->kind == kind;
}

static inline bool parser_is_name(const struct parser *parser, const char *name)
{
	return parser->at->kind == TOKEN_NAME && text_is(parser->at->value.text, name);
}

/* Goes on, but not beyond the end. */
void parser_next(struct parser *);
bool parser_skip(struct parser *, enum token_kind); /* where it is there */
bool parser_skip_name(struct parser *, const char *name);
enum status parser_expect(struct parser *, enum token_kind);
enum status parser_expect_name(struct parser *, const char *name);
enum status parser_take_name(struct parser *, const struct text **ret);
enum status parser_unexpected(struct parser *, const char *wanted);

/* ---- nodes --------------------------------------------------------------------------------------------------------------- */
enum status node_new(struct parser *, enum node_kind, int line, struct node **ret);

/* Makes the node at least one higher than what is below it; fails where that is too high. */
enum status node_above(struct parser *, struct node *, const struct node *below);

/* An array of nodes that grows. */
struct node_list {
	struct node **nodes;
	size_t count, room;
};
enum status node_list_add(struct parser *, struct node_list *, struct node *);

/* ---- expressions --------------------------------------------------------------------------------------------------------- */
enum status parse_expression(struct parser *, bool with_condition, struct node **ret);

/* One expression, or a tuple of them without brackets, which `end` (a name, or NULL) ends too. */
enum status parse_tuple(struct parser *, bool with_condition, const char *end, bool in_brackets, struct node **ret);

/* What is set: names, tuples of them, and the members of a namespace where `members` says so. */
enum status parse_target(struct parser *, bool members, const char *end, struct node **ret);

/* `| name(arguments) | …` on a node, or on NULL for what is captured; `inline_start` without the first bar. */
enum status parse_filters(struct parser *, bool inline_start, struct node **node);

enum status parse_primary(struct parser *, bool members, struct node **ret);

#endif
