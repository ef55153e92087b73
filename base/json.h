/* cJSON with limits and with errors that name the field. */
#ifndef BESAD_BASE_JSON_H
#define BESAD_BASE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/place.h"

enum { JSON_MAX_DEPTH = 64 };

/* Most of cJSON's functions that add to a value say whether they could, and few callers ask: a value that lacks something looks
 * like any other. json_ran_out says whether cJSON wanted for memory in this thread since json_begin; what is asked before a value
 * is told or kept is whole. json_heed_memory has cJSON notice it, and is called once, before there are threads. */
void json_heed_memory(void);
void json_begin(void);
bool json_ran_out(void);

/* Adds `item`, which may be NULL, to an object or, where `key` is NULL, to an array. What cannot be added is deleted, so that no
 * caller has to; whether it was, tells json_ran_out. */
bool json_add(cJSON *to, const char *key, cJSON *item);

/* The same of a reference to an object or array that stays as long as `to`: cJSON's own is lost where it cannot be added. */
bool json_add_reference(cJSON *to, const char *key, const cJSON *item);

/* The same of a number with all of its digits: cJSON leaves out the last one where it takes the number for the same without. */
bool json_add_exact(cJSON *to, const char *key, double number);

bool utf8_valid(const char *text, size_t bytes);

/* How many characters a text has that is valid UTF-8. */
int utf8_characters(const char *text);

/* Whether it has control characters (C0, DEL, C1). */
bool utf8_has_control(const char *text);

/* Puts '?' for every byte that is not part of valid UTF-8: names of files, and messages that were cut, may have such. */
void utf8_mask(char *text);

/* Parses exactly one JSON value of nesting JSON_MAX_DEPTH at most, with nothing but white space behind it. `what` names the
 * source in errors. Duplicate keys in an object, invalid UTF-8 and NUL in strings are refused. *ret is freed with cJSON_Delete. */
enum status json_parse(const char *text, size_t bytes, const char *what, cJSON **ret, struct error *err);
enum status json_read_place(const struct place *, const char *name, size_t limit, cJSON **ret, struct error *err);

/* As json_parse, but what Python's json module writes and reads besides: NaN and Infinity, both read as infinite numbers (which
 * json_get_ refuses), and of duplicate keys the last. */
enum status json_parse_python(const char *text, size_t bytes, const char *what, cJSON **ret, struct error *err);

/* Where two values differ first. */
struct json_difference {
	char pointer[200];  /* JSON pointer, cut where there is no room for more */
	const cJSON *a, *b; /* what is there; NULL: nothing */
};

/* Do two values differ? Then *ret says where. `shared`: keys that only one of two objects has are no difference. */
bool json_differ(const cJSON *a, const cJSON *b, bool shared, struct json_difference *ret);

/* Typed reads of an optional member of `object`: leave *ret as it is when the key is missing or null, and fail with the name of
 * `what` and the key when the type or range is wrong. Integers must be whole and within [low, high]. */
enum status json_get_int(const cJSON *object, const char *what, const char *key, int64_t low, int64_t high, int64_t *ret,
			 struct error *err);
enum status json_get_double(const cJSON *object, const char *what, const char *key, double *ret, struct error *err);
enum status json_get_bool(const cJSON *object, const char *what, const char *key, bool *ret, struct error *err);
enum status json_get_string(const cJSON *object, const char *what, const char *key, const char **ret, struct error *err);

/* Its text in a form that does not depend on how it was written: no spaces, keys sorted. The caller frees it; NULL without
 * memory. */
char *json_canonical(const cJSON *);

/* The keys of all objects that the members of a list have under `key`, as the keys of an object of nulls, each once, in the
 * order in which they come first. The caller frees it. */
cJSON *json_keys_below(const cJSON *list, const char *key);

#endif
