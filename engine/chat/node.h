/* A parsed template. */
#ifndef BESAD_ENGINE_CHAT_NODE_H
#define BESAD_ENGINE_CHAT_NODE_H

#include "engine/chat/token.h"

enum node_kind {
	/* expressions */
	NODE_CONSTANT,
	NODE_NAME,
	NODE_LIST, /* items */
	NODE_TUPLE,
	NODE_DICT,        /* items: a key, its value, … */
	NODE_ATTRIBUTE,   /* a.name */
	NODE_ITEM,        /* a[b] */
	NODE_SLICE,       /* a[items 0 to 2], which may be NULL */
	NODE_CALL,        /* a(arguments) */
	NODE_FILTER,      /* a | name(arguments); a is NULL for what is captured */
	NODE_TEST,        /* a is name(arguments) */
	NODE_NOT,         /* a */
	NODE_NEGATIVE,    /* a */
	NODE_POSITIVE,    /* a */
	NODE_AND,         /* a, b */
	NODE_OR,          /* a, b */
	NODE_CONDITION,   /* b if a else c, which may be NULL */
	NODE_COMPARE,     /* a with items by operators */
	NODE_CONCATENATE, /* items */
	NODE_ARITHMETIC,  /* a, b by `operation` */
	NODE_MEMBER,      /* name.member as what is set */

	/* statements */
	NODE_DATA,         /* constant */
	NODE_PRINT,        /* items */
	NODE_IF,           /* items: conditions; blocks: what follows each; `otherwise` */
	NODE_FOR,          /* a in b if c; blocks[0], otherwise */
	NODE_SET,          /* a = b */
	NODE_SET_BLOCK,    /* a = blocks[0] through the filters b, or NULL */
	NODE_MACRO,        /* name, parameters; blocks[0]; also what a call block is given to */
	NODE_CALL_BLOCK,   /* a: the call, b: the macro that `caller` is */
	NODE_FILTER_BLOCK, /* blocks[0] through the filters b */
	NODE_WITH,         /* items: a target, its value, …; blocks[0] */
	NODE_SCOPE,        /* blocks[0] */
	NODE_BREAK,
	NODE_CONTINUE,
};

enum comparison {
	COMPARE_EQUAL,
	COMPARE_UNEQUAL,
	COMPARE_LESS,
	COMPARE_AT_MOST,
	COMPARE_GREATER,
	COMPARE_AT_LEAST,
	COMPARE_IN,
	COMPARE_NOT_IN
};

struct block {
	struct node **nodes;
	size_t count;
};

struct named_node {
	const struct text *name;
	struct node *node; /* NULL: a parameter without a default */
};

struct arguments {
	struct node **positional;
	size_t count;
	struct named_node *named;
	size_t named_count;
	struct node *more, *more_named; /* *more, **more_named, or NULL */
};

struct node {
	enum node_kind kind;
	int line, height; /* height: of the tree that it is the top of */
	enum token_kind operation;
	const struct text *name, *member;
	struct value constant;
	struct node *a, *b, *c;
	struct node **items;
	size_t count;
	enum comparison *operators;
	const struct arguments *arguments;
	struct block *blocks, otherwise;

	/* of a macro */
	struct named_node *parameters;
	size_t parameter_count;
	bool wants_caller, wants_more, wants_named; /* names `caller`, `varargs`, `kwargs` */
};

/* The statements of a template. */
enum status template_parse(struct run *, const struct token *, struct block *ret);

#endif
