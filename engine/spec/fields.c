#include "engine/spec/fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

/* base + "/" + key, with ~ and / in the key escaped; freed by the caller. NULL: no memory. */
static char *join_pointer(const char *base, const char *key)
{
	char *pointer = malloc(strlen(base) + (key ? 2 * strlen(key) + 1 : 0) + 1), *to = pointer;
	if (!pointer) return NULL;
	to = stpcpy(to, base);
	if (!key) return pointer;
	*to++ = '/';
	for (; *key; key++) {
		bool escaped = *key == '~' || *key == '/';
		if (escaped) *to++ = '~';
		*to++ = !escaped ? *key : *key == '~' ? '0' : '1';
	}
	*to = 0;
	return pointer;
}

void fields_problem(const struct fields *fields, const char *key, const char *format, ...)
{
	struct spec_problems *problems = fields->problems;
	if (problems->count == SPEC_MAX_PROBLEMS) {
		problems->more++;
		return;
	}
	char *pointer = join_pointer(fields->pointer, key), *detail;
	va_list args;
	va_start(args, format);
	if (vasprintf(&detail, format, args) < 0) detail = NULL;
	va_end(args);
	if (!pointer || !detail) {
		problems->no_memory = true;
		free(pointer);
		free(detail);
		return;
	}
	utf8_mask(detail);
	problems->items[problems->count].pointer = pointer;
	problems->items[problems->count++].detail = detail;
}

void spec_problems_free(struct spec_problems *problems)
{
	for (int i = 0; i < problems->count; i++) {
		free(problems->items[i].pointer);
		free(problems->items[i].detail);
	}
	*problems = (struct spec_problems){0};
}

/* "a, b, c"; freed by the caller. NULL: no memory. */
static char *join_names(const char *const *names)
{
	size_t room = 1;
	for (int i = 0; names[i]; i++)
		room += strlen(names[i]) + 2;
	char *list = malloc(room), *to = list;
	if (!list) return NULL;
	*to = 0;
	for (int i = 0; names[i]; i++)
		to = stpcpy(stpcpy(to, i ? ", " : ""), names[i]);
	return list;
}

/* A problem that says what was found: `wanted`, then the value, which is shortened where it is long. */
static void found_problem(const struct fields *fields, const char *key, const cJSON *value, const char *wanted)
{
	enum { SHOWN = 60 };
	char *text = cJSON_PrintUnformatted(value);
	bool cut = text && strlen(text) > SHOWN;
	if (cut)
		for (text[SHOWN] = 0; !utf8_valid(text, strlen(text));)
			text[strlen(text) - 1] = 0;
	fields_problem(fields, key, "%s, not %s%s", wanted, text ? text : "this", cut ? "…" : "");
	cJSON_free(text);
}

void fields_only(const struct fields *fields, const char *const *known)
{
	const cJSON *field;
	cJSON_ArrayForEach(field, fields->object)
	{
		const char *const *name = known;
		while (*name && strcmp(*name, field->string) != 0)
			name++;
		if (*name) continue;
		char *names = join_names(known);
		fields_problem(fields, field->string, "unknown key; the keys here are %s", names ? names : "other ones");
		free(names);
	}
}

const cJSON *fields_get(const struct fields *fields, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(fields->object, key);
	return cJSON_IsNull(value) ? NULL : value;
}

/* base + "/" + key, of keys of the contract, none of which has to be escaped; base alone where there is no room for more. */
static void extend_pointer(const char *base, const char *key, char ret[FIELDS_POINTER_ROOM])
{
	if (snprintf(ret, FIELDS_POINTER_ROOM, "%s/%s", base, key) >= FIELDS_POINTER_ROOM) strcpy(ret, base);
}

struct fields fields_section(const struct fields *fields, const char *key)
{
	struct fields section = {.problems = fields->problems, .object = fields_get(fields, key)};
	extend_pointer(fields->pointer, key, section.pointer);
	if (section.object && !cJSON_IsObject(section.object)) {
		found_problem(&section, NULL, section.object, "must be an object");
		section.object = NULL;
	}
	return section;
}

struct fields fields_element(const struct fields *fields, const char *key, int index)
{
	struct fields element = {.problems = fields->problems, .object = cJSON_GetArrayItem(fields_get(fields, key), index)};
	char list[FIELDS_POINTER_ROOM], number[16];
	snprintf(number, sizeof number, "%d", index);
	extend_pointer(fields->pointer, key, list);
	extend_pointer(list, number, element.pointer);
	if (!cJSON_IsObject(element.object)) {
		found_problem(&element, NULL, element.object, "must be an object");
		element.object = NULL;
	}
	return element;
}

int64_t fields_int(const struct fields *fields, const char *key, int64_t low, int64_t high, int64_t fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	double number = cJSON_IsNumber(value) ? value->valuedouble : NAN;
	if (fabs(number) <= 0x1p53 && number == floor(number) && (int64_t)number >= low && (int64_t)number <= high)
		return (int64_t)number;
	char wanted[80];
	snprintf(wanted, sizeof wanted, "must be an integer from %" PRId64 " to %" PRId64, low, high);
	found_problem(fields, key, value, wanted);
	return fallback;
}

double fields_number(const struct fields *fields, const char *key, double low, double high, double fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	if (cJSON_IsNumber(value) && value->valuedouble >= low && value->valuedouble <= high) return value->valuedouble;
	char wanted[80];
	snprintf(wanted, sizeof wanted, "must be a number from %g to %g", low, high);
	found_problem(fields, key, value, wanted);
	return fallback;
}

bool fields_bool(const struct fields *fields, const char *key, bool fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	if (!cJSON_IsBool(value)) found_problem(fields, key, value, "must be true or false");
	return cJSON_IsBool(value) ? cJSON_IsTrue(value) : fallback;
}

const char *fields_string(const struct fields *fields, const char *key, int limit, bool multiline, const char *fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	const char *text = cJSON_GetStringValue(value);
	if (!text)
		found_problem(fields, key, value, "must be a string");
	else if (!utf8_valid(text, strlen(text)))
		fields_problem(fields, key, "must be valid UTF-8");
	else if (utf8_characters(text) > limit)
		fields_problem(fields, key, "must be at most %d characters long, not %d", limit, utf8_characters(text));
	else if (!multiline && utf8_has_control(text))
		fields_problem(fields, key, "must not have control characters");
	else
		return text;
	return fallback;
}

void fields_key(const struct fields *fields, const char *key, int limit)
{
	if (!*key)
		fields_problem(fields, key, "a key must have a character");
	else if (utf8_characters(key) > limit)
		fields_problem(fields, key, "a key must be at most %d characters long, not %d", limit, utf8_characters(key));
	else if (utf8_has_control(key))
		fields_problem(fields, key, "a key must not have control characters");
}

int fields_name(const char *const *names, const char *text)
{
	for (int i = 0; text && names[i]; i++)
		if (strcmp(names[i], text) == 0) return i;
	return -1;
}

int fields_choice(const struct fields *fields, const char *key, const char *const *names, int fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	int found = fields_name(names, cJSON_GetStringValue(value));
	if (found >= 0) return found;
	char *list = join_names(names), *wanted = NULL;
	if (list && asprintf(&wanted, "must be one of: %s", list) < 0) wanted = NULL;
	if (wanted)
		found_problem(fields, key, value, wanted);
	else
		fields->problems->no_memory = true;
	free(list);
	free(wanted);
	return fallback;
}
