/* Reads the fields of a client's JSON object and collects everything that is wrong with them, each under its JSON pointer (RFC
 * 6901), instead of stopping at the first. A field that is missing or null takes its default; so does one with a problem. */
#ifndef BESAD_ENGINE_FIELDS_H
#define BESAD_ENGINE_FIELDS_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "engine/spec/spec.h"

enum { FIELDS_POINTER_ROOM = 96 };

/* An object within the JSON. `object` is NULL where the client left the section out: all its fields take their defaults. */
struct fields {
	struct spec_problems *problems;
	const cJSON *object;
	char pointer[FIELDS_POINTER_ROOM]; /* "" for the whole, "/besa" …: keys of the contract, which all fit */
};

/* Adds a problem about a field, or about the section itself where `key` is NULL. The detail says what was found, what is wanted
 * and, where that is not plain, what to do. */
void fields_problem(const struct fields *, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Every key of the object that is not in the NULL-terminated list is a problem. */
void fields_only(const struct fields *, const char *const *known);

/* The member, or NULL when it is missing or null. */
const cJSON *fields_get(const struct fields *, const char *key);

/* The sections `key`: an object; and element `index` of the array `key`. What is not an object is a problem and reads as left
 * out. */
struct fields fields_section(const struct fields *, const char *key);
struct fields fields_element(const struct fields *, const char *key, int index);

int64_t fields_int(const struct fields *, const char *key, int64_t low, int64_t high, int64_t fallback);
double fields_number(const struct fields *, const char *key, double low, double high, double fallback);
bool fields_bool(const struct fields *, const char *key, bool fallback);

/* A string of at most `limit` characters, valid UTF-8; control characters are refused unless `multiline`. Owned by the JSON. */
const char *fields_string(const struct fields *, const char *key, int limit, bool multiline, const char *fallback);

/* A key of the object that is the client's own: a problem unless it has 1 to `limit` characters, none of them a control
 * character. */
void fields_key(const struct fields *, const char *key, int limit);

/* The index of a text in the NULL-terminated list; -1 where it is not there, or is NULL. */
int fields_name(const char *const *names, const char *text);

/* The index of the string in the NULL-terminated list. */
int fields_choice(const struct fields *, const char *key, const char *const *names, int fallback);

#endif
