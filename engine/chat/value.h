/* The values of a template, with Python's behaviour: nothing changes once it is made but a namespace, and how much of a generator
 * is taken. All of it is the run's memory. */
#ifndef BESAD_ENGINE_CHAT_VALUE_H
#define BESAD_ENGINE_CHAT_VALUE_H

#include <stdbool.h>
#include <string.h>

#include "engine/chat/run.h"

enum value_kind {
	VALUE_MISSING, /* an argument that is not given */
	VALUE_UNDEFINED,
	VALUE_NONE,
	VALUE_BOOL,
	VALUE_INT,
	VALUE_FLOAT,
	VALUE_STRING,
	VALUE_LIST,
	VALUE_TUPLE,
	VALUE_RANGE,
	VALUE_KEYS, /* the views of a dict */
	VALUE_VALUES,
	VALUE_ITEMS,
	VALUE_GENERATOR, /* what map, select … give: gone through once */
	VALUE_DICT,
	VALUE_NAMESPACE,
	VALUE_LOOP,
	VALUE_MACRO,
	VALUE_ROUTINE, /* a function or method of Python's */
};

/* Valid UTF-8, which may have zeros in it. */
struct text {
	const char *data;
	size_t bytes, characters;
};

/* Why something is undefined: what there is none of, of what. */
struct absence {
	const char *owner; /* the type's name; NULL: it is a variable */
	const struct text *name;
	const char *hint; /* or all of the message */
};

struct value {
	enum value_kind kind;
	bool safe; /* a string that is markup, as `safe` and `escape` make it */
	union {
		bool truth;
		int64_t integer;
		double real;
		const struct text *text;
		const struct absence *absence;
		struct list *list; /* LIST to GENERATOR */
		struct dict *dict; /* or namespace */
		struct loop *loop;
		const struct macro *macro;
		const struct bound *bound;
	};
};

struct list {
	const struct value *items;
	size_t count, taken; /* of a generator: how many are gone */
};

struct pair {
	struct value key, value;
};

struct dict {
	struct pair *pairs;
	size_t count, room;
};

#define VALUE_OF_BOOL(of) ((struct value){.kind = VALUE_BOOL, .truth = (of)})
#define VALUE_OF_INT(of) ((struct value){.kind = VALUE_INT, .integer = (int64_t)(of)})
#define VALUE_OF_FLOAT(of) ((struct value){.kind = VALUE_FLOAT, .real = (of)})
#define VALUE_OF_NONE ((struct value){.kind = VALUE_NONE})

/* ---- making -------------------------------------------------------------------------------------------------------------- */
/* A string of bytes that stay as they are for as long as the value; or of a copy. */
enum status value_string(struct run *, const char *data, size_t bytes, struct value *ret);
enum status value_copy_string(struct run *, const char *data, size_t bytes, struct value *ret);
enum status value_c_string(struct run *, const char *text, struct value *ret); /* not copied */

/* A list, or another kind with items, of items that stay. */
enum status value_list(struct run *, enum value_kind, const struct value *items, size_t count, struct value *ret);
enum status value_pair(struct run *, const struct value *first, const struct value *second, struct value *ret); /* a tuple */
enum status value_dict(struct run *, size_t room, struct value *ret);

enum status value_undefined(struct run *, const char *owner, const struct text *name, struct value *ret);
enum status value_undefined_for(struct run *, const char *hint, struct value *ret);

enum status dict_put(struct run *, struct dict *, const struct value *key, const struct value *value);
/* *ret is NULL where there is no such key. */
enum status dict_get(struct run *, const struct dict *, const struct value *key, const struct value **ret);
enum status dict_put_text(struct run *, struct dict *, const char *key, const struct value *value); /* `key` stays */

/* ---- asking -------------------------------------------------------------------------------------------------------------- */
const char *value_type(const struct value *); /* Python's name of its type */
bool value_truth(const struct value *);
bool value_has_items(const struct value *); /* LIST to GENERATOR */
bool value_is_iterable(const struct value *);
bool value_is_number(const struct value *); /* bool, int, float */
bool value_is_whole(const struct value *);  /* bool, int */
int64_t value_whole(const struct value *);
double value_real(const struct value *);
bool text_is(const struct text *, const char *text);
static inline bool text_equal(const struct text *a, const struct text *b)
{
	return a->bytes == b->bytes && memcmp(a->data, b->data, a->bytes) == 0;
}

/* Fails with Jinja's words where it is undefined. */
enum status value_need(struct run *, const struct value *);

enum status value_equal(struct run *, const struct value *, const struct value *, bool *ret);
/* < 0, 0 or > 0; fails where the two have no order. */
enum status value_compare(struct run *, const struct value *, const struct value *, int *ret);
enum status value_contains(struct run *, const struct value *container, const struct value *item, bool *ret);
enum status value_length(struct run *, const struct value *, size_t *ret);

/* Its items as an array that stays; those of a string are its characters, of a dict its keys. A generator is empty then. */
enum status value_items(struct run *, const struct value *, struct list *ret);

/* What Jinja's a.b, a[b] and a[b:c:d] are, undefined where there is nothing. */
enum status value_attribute(struct run *, const struct value *, const struct text *name, struct value *ret);
enum status value_item(struct run *, const struct value *, const struct value *key, struct value *ret);
enum status value_slice(struct run *, const struct value *, const struct value bounds[3], struct value *ret);

/* The bytes from character `from` to before character `to`. */
enum status text_part(struct run *, const struct text *, size_t from, size_t to, struct value *ret);

#endif
