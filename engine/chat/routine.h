/* What a template can call: Python's functions and methods, Jinja's filters and tests, and macros. */
#ifndef BESAD_ENGINE_CHAT_ROUTINE_H
#define BESAD_ENGINE_CHAT_ROUTINE_H

#include "engine/chat/value.h"

struct named_value {
	const struct text *name;
	struct value value;
};

/* The arguments of a call. */
struct call {
	const struct value *positional;
	size_t count;
	const struct named_value *named;
	size_t named_count;
};

enum { ROUTINE_MOST = 5 }; /* parameters */

/* `self` is what a filter or test is applied to, or what a method is of. Arguments that are not given are VALUE_MISSING. */
typedef enum status (*routine_fn)(struct run *, const struct value *self, const struct value *arguments, struct value *ret);

struct routine {
	const char *name;
	const char *parameters; /* their names, by spaces */
	size_t least;           /* how many must be given */
	routine_fn run;
	enum status (*run_call)(struct run *, const struct value *self, const struct call *,
				struct value *ret); /* instead: takes any */
};

/* A method of a value. */
struct bound {
	const struct routine *routine;
	struct value self;
};

enum status routine_run(struct run *, const struct routine *, const struct value *self, const struct call *, struct value *ret);
const struct routine *routine_find(const struct routine *, size_t count, const struct text *name); /* NULL: there is none */
enum status routine_value(struct run *, const struct routine *, const struct value *self, struct value *ret);

/* The method of that name, where there is one. What changes a value is not given: it is undefined then. */
enum status routine_of(struct run *, const struct value *, const struct text *name, struct value *ret, bool *ret_there);

const struct routine *function_find(const struct text *name);
const struct routine *python_method_find(const struct value *self, const struct text *name);
const struct routine *loop_method_find(const struct text *name);
const struct routine *list_filter_find(const struct text *name);

/* By name; a name that there is not is refused. */
enum status run_filter(struct run *, const struct text *name, const struct value *self, const struct call *, struct value *ret);
enum status run_test(struct run *, const struct text *name, const struct value *self, const struct call *, bool *ret);

/* Calls whatever it is. */
enum status call_value(struct run *, const struct value *callee, const struct call *, struct value *ret);

/* ---- what routines read their arguments with ------------------------------------------------------------------------------ */
static inline bool is_given(const struct value *argument)
{
	return argument->kind != VALUE_MISSING;
}

enum status argument_text(struct run *, const struct value *, const char *name, const struct text **ret);
enum status argument_int(struct run *, const struct value *, const char *name, int64_t otherwise, int64_t *ret);

#endif
