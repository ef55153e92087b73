/* Variables, loops and macros of a template that is being rendered. */
#ifndef BESAD_ENGINE_CHAT_SCOPE_H
#define BESAD_ENGINE_CHAT_SCOPE_H

#include "engine/chat/node.h"

struct variable {
	const struct text *name;
	struct value value;
};

struct scope {
	struct scope *parent;
	struct variable *variables;
	size_t count, room;
};

struct scope *scope_new(struct run *, struct scope *parent); /* NULL as run_new */
enum status scope_set(struct run *, struct scope *, const struct text *name, const struct value *);
/* Of the innermost scope that has it; else what Python's functions have of that name, or undefined. */
enum status scope_get(struct run *, const struct scope *, const struct text *name, struct value *ret);

/* A macro, or what a call block gives to one as `caller`. */
struct macro {
	const struct node *node;
	struct scope *scope; /* where it was defined */
};

/* A loop that is being gone through, which is what `loop` is in it. */
struct loop {
	const struct node *node;
	struct scope *outer; /* that its items are chosen in */
	struct list source;
	size_t next;    /* of the source */
	bool chosen;    /* all that is left of the source has been chosen already */
	bool has_after; /* `after` has been looked at */
	struct value after, current, before;
	int64_t index0; /* -1 before the first */
	bool has_changed;
	struct value changed; /* what loop.changed was last asked for */
};

/* Goes to the next item; *ret_there is false behind the last. */
enum status loop_next(struct run *, struct loop *, bool *ret_there);
enum status loop_length(struct run *, struct loop *, size_t *ret);
enum status loop_attribute(struct run *, const struct value *loop, const struct text *name, struct value *ret, bool *ret_there);

/* ---- evaluating ---------------------------------------------------------------------------------------------------------- */
enum status evaluate(struct run *, const struct node *, struct scope *, struct value *ret);

/* Applies filters to what was captured. */
enum status evaluate_filters(struct run *, const struct node *filters, const struct value *captured, struct scope *,
			     struct value *ret);

/* a + b and the like; `operation` is its token. */
enum status operate(struct run *, enum token_kind operation, const struct value *a, const struct value *b, struct value *ret);

enum status execute_block(struct run *, const struct block *, struct scope *);

/* Sets names, a tuple of them, or members of namespaces. */
enum status assign(struct run *, const struct node *target, const struct value *, struct scope *);

/* What a block puts out. */
enum status capture(struct run *, const struct block *, struct scope *, struct value *ret);

#endif
