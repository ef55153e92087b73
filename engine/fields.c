#include "engine/fields.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/json.h"

/* `to` = base + "/" + key with ~ and / escaped; cut where it is too long. */
static void join_pointer(char *to, size_t size, const char *base, const char *key)
{
	size_t used = (size_t)snprintf(to, size, "%s", base);
	if (!key || used + 4 > size) return;
	to[used++] = '/';
	for (; *key && used + 3 <= size; key++) {
		if (*key == '~' || *key == '/') {
			to[used++] = '~';
			to[used++] = *key == '~' ? '0' : '1';
		} else {
			to[used++] = *key;
		}
	}
	/* A cut must not leave half of a UTF-8 character. */
	if (*key)
		while (used > 0 && !utf8_valid(to, used))
			used--;
	to[used] = 0;
}

void fields_problem(const struct fields *fields, const char *key, const char *format, ...)
{
	struct spec_problems *problems = fields->problems;
	if (problems->count == SPEC_MAX_PROBLEMS) return;
	char *detail = problems->items[problems->count].detail;
	join_pointer(problems->items[problems->count].pointer, sizeof problems->items->pointer, fields->pointer, key);
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof problems->items->detail, format, args);
	va_end(args);
	for (size_t length = strlen(detail); length > 0 && !utf8_valid(detail, length);)
		detail[--length] = 0;
	problems->count++;
}

void fields_only(const struct fields *fields, const char *const *known)
{
	const cJSON *field;
	cJSON_ArrayForEach(field, fields->object)
	{
		const char *const *name = known;
		while (*name && strcmp(*name, field->string) != 0)
			name++;
		if (!*name) fields_problem(fields, field->string, "unknown key");
	}
}

const cJSON *fields_get(const struct fields *fields, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(fields->object, key);
	return cJSON_IsNull(value) ? NULL : value;
}

struct fields fields_section(const struct fields *fields, const char *key)
{
	struct fields section = {.problems = fields->problems, .object = fields_get(fields, key)};
	join_pointer(section.pointer, sizeof section.pointer, fields->pointer, key);
	if (section.object && !cJSON_IsObject(section.object)) {
		fields_problem(&section, NULL, "must be an object");
		section.object = NULL;
	}
	return section;
}

struct fields fields_element(const struct fields *fields, const char *key, int index)
{
	struct fields element = {.problems = fields->problems, .object = cJSON_GetArrayItem(fields_get(fields, key), index)};
	char array[sizeof element.pointer], number[16];
	join_pointer(array, sizeof array, fields->pointer, key);
	snprintf(number, sizeof number, "%d", index);
	join_pointer(element.pointer, sizeof element.pointer, array, number);
	if (!cJSON_IsObject(element.object)) {
		fields_problem(&element, NULL, "must be an object");
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
	fields_problem(fields, key, "must be an integer from %" PRId64 " to %" PRId64, low, high);
	return fallback;
}

double fields_number(const struct fields *fields, const char *key, double low, double high, double fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	if (cJSON_IsNumber(value) && value->valuedouble >= low && value->valuedouble <= high) return value->valuedouble;
	fields_problem(fields, key, "must be a number from %g to %g", low, high);
	return fallback;
}

bool fields_bool(const struct fields *fields, const char *key, bool fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	if (!cJSON_IsBool(value)) fields_problem(fields, key, "must be true or false");
	return cJSON_IsBool(value) ? cJSON_IsTrue(value) : fallback;
}

static bool has_control(const char *text)
{
	const unsigned char *s = (const unsigned char *)text;
	for (; *s; s++)
		if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] < 0xa0)) return true; /* C0, DEL, C1 */
	return false;
}

static int characters(const char *text)
{
	int count = 0;
	for (; *text; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

const char *fields_string(const struct fields *fields, const char *key, int limit, bool multiline, const char *fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	const char *text = cJSON_GetStringValue(value);
	if (!text)
		fields_problem(fields, key, "must be a string");
	else if (!utf8_valid(text, strlen(text)))
		fields_problem(fields, key, "must be valid UTF-8");
	else if (characters(text) > limit)
		fields_problem(fields, key, "must be at most %d characters long", limit);
	else if (!multiline && has_control(text))
		fields_problem(fields, key, "must not have control characters");
	else
		return text;
	return fallback;
}

int fields_choice(const struct fields *fields, const char *key, const char *const *names, int fallback)
{
	const cJSON *value = fields_get(fields, key);
	if (!value) return fallback;
	const char *text = cJSON_GetStringValue(value);
	char list[128] = "";
	for (int i = 0; names[i]; i++) {
		if (text && strcmp(text, names[i]) == 0) return i;
		size_t used = strlen(list);
		snprintf(list + used, sizeof list - used, "%s%s", i ? ", " : "", names[i]);
	}
	fields_problem(fields, key, "must be one of: %s", list);
	return fallback;
}
