#include "api/grid.h"

#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/json_path.h"

enum { VALUE_BYTES = 40, DIRECTORY_BYTES = 150 };

/* ---- checks ------------------------------------------------------------------------------------------------------------- */

static void field_problem(cJSON *errors, const char *path, const char *detail)
{
	struct buffer pointer = {0};
	buffer_printf(&pointer, "/grid");
	problem_pointer(&pointer, path);
	problem_add(errors, "pointer", pointer.failed ? "/grid" : pointer.data, "%s", detail);
	buffer_free(&pointer);
}

/* Keys with dots between. */
static bool is_path(const char *path)
{
	for (const char *at = path;; at++) {
		size_t length = strcspn(at, ".");
		if (length == 0) return false;
		at += length;
		if (!*at) return strlen(path) <= GRID_MAX_PATH;
	}
}

/* Is `below` the field `path`, or one in it? */
static bool is_within(const char *below, const char *path)
{
	size_t length = strlen(path);
	return strncmp(below, path, length) == 0 && (!below[length] || below[length] == '.');
}

static const char *field_fault(const cJSON *grid, const cJSON *field)
{
	const cJSON *other, *value, *before;
	if (!is_path(field->string)) return "is no field: it is keys with dots between, as in besa.candidates";
	if (is_within(field->string, "output") || is_within(field->string, "name"))
		return "is made for each job of the study's and its settings, and cannot be in the grid";
	cJSON_ArrayForEach(other, grid) if (other != field && is_within(field->string, other->string)) return "is part of another "
													      "field of the grid";
	if (!cJSON_IsArray(field) || !field->child) return "must be a list of 1 or more values";
	cJSON_ArrayForEach(value, field)
	{
		cJSON_ArrayForEach(before, field)
		{
			if (before == value) break;
			if (cJSON_Compare(before, value, true)) return "has a value twice";
		}
	}
	return NULL;
}

bool grid_check(const cJSON *grid, size_t limit, size_t *ret_count, cJSON *errors)
{
	int known = cJSON_GetArraySize(errors);
	size_t count = 1;
	const cJSON *field;
	if (!cJSON_IsObject(grid) || !grid->child || cJSON_GetArraySize(grid) > GRID_MAX_FIELDS) {
		problem_add(errors, "pointer", "/grid", "must be an object of 1 to %d fields, each with a list of values",
			    GRID_MAX_FIELDS);
		return false;
	}
	cJSON_ArrayForEach(field, grid)
	{
		size_t values = cJSON_IsArray(field) ? (size_t)cJSON_GetArraySize(field) : 0;
		/* Comparing them all takes the square of their number. */
		const char *fault = values > limit ? "has more values than a study may have jobs" : field_fault(grid, field);
		if (fault) field_problem(errors, field->string, fault);
		count = values > limit || count > limit ? limit + 1 : count * values;
	}
	if (cJSON_GetArraySize(errors) > known) return false;
	if (count > limit) {
		problem_add(errors, "pointer", "/grid", "makes more than the %zu jobs that a study may have here", limit);
		return false;
	}
	*ret_count = count;
	return true;
}

/* ---- combinations ------------------------------------------------------------------------------------------------------- */

/* Which value of `wanted` the combination takes. */
static int choice(size_t index, const cJSON *wanted)
{
	size_t after = 1;
	for (const cJSON *field = wanted->next; field; field = field->next)
		after *= (size_t)cJSON_GetArraySize(field);
	return (int)(index / after % (size_t)cJSON_GetArraySize(wanted));
}

cJSON *grid_settings(const cJSON *grid, size_t index)
{
	const cJSON *field;
	cJSON *settings = cJSON_CreateObject();
	cJSON_ArrayForEach(field, grid)
	{
		cJSON *value = cJSON_Duplicate(cJSON_GetArrayItem(field, choice(index, field)), true);
		if (value && cJSON_AddItemToObject(settings, field->string, value)) continue;
		cJSON_Delete(value);
		cJSON_Delete(settings);
		return NULL;
	}
	return settings;
}

enum status grid_spec(const cJSON *spec, const cJSON *settings, cJSON **ret, struct error *err)
{
	const cJSON *setting;
	cJSON *made = cJSON_Duplicate(spec, true);
	enum status status = made ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the spec of a job");
	cJSON_ArrayForEach(setting, settings)
	{
		if (!status) status = json_path_set(made, setting->string, cJSON_Duplicate(setting, true), err);
	}
	if (status)
		cJSON_Delete(made);
	else
		*ret = made;
	return status;
}

/* ---- names -------------------------------------------------------------------------------------------------------------- */

/* A text as it is, anything else as JSON, cut to VALUE_BYTES at the end of a character; freed by the caller. */
static char *value_text(const cJSON *value)
{
	char *text = cJSON_IsString(value) ? strdup(value->valuestring) : cJSON_PrintUnformatted(value);
	size_t end = VALUE_BYTES;
	if (!text || strlen(text) <= end) return text;
	while (end && ((unsigned char)text[end] & 0xc0) == 0x80)
		end--;
	text[end] = 0;
	return text;
}

static char *finish(struct buffer *text)
{
	if (!text->failed) return text->data;
	buffer_free(text);
	return NULL;
}

char *grid_describe(const cJSON *settings)
{
	struct buffer text = {0};
	const cJSON *setting;
	cJSON_ArrayForEach(setting, settings)
	{
		char *value = value_text(setting);
		if (!value) text.failed = true;
		buffer_printf(&text, "%s%s=%s", text.size ? ", " : "", setting->string, value ? value : "");
		free(value);
	}
	return finish(&text);
}

void grid_append_plain(struct buffer *name, const char *text, size_t limit)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
	for (size_t end = name->size + limit; *text && name->size < end && !name->failed; text++) {
		bool first = name->size == 0;
		if (strchr(plain, *text) && !(first && *text == '.'))
			buffer_append(name, text, 1);
		else if (!first && name->data[name->size - 1] != '-')
			buffer_append(name, "-", 1);
	}
}

char *grid_directory(const cJSON *settings, size_t index, size_t count)
{
	struct buffer name = {0};
	const cJSON *setting;
	int digits = 1;
	for (size_t rest = count; rest >= 10; rest /= 10)
		digits++;
	buffer_printf(&name, "%0*zu", digits, index + 1);
	cJSON_ArrayForEach(setting, settings)
	{
		char *value = value_text(setting);
		if (!value) name.failed = true;
		buffer_printf(&name, "_");
		grid_append_plain(&name, setting->string, VALUE_BYTES);
		buffer_printf(&name, "-");
		grid_append_plain(&name, value ? value : "", VALUE_BYTES);
		free(value);
	}
	if (!name.failed && name.size > DIRECTORY_BYTES) name.data[DIRECTORY_BYTES] = 0;
	return finish(&name);
}

char *grid_pointer(const cJSON *grid, size_t index, const char *pointer)
{
	struct buffer text = {0};
	const cJSON *field;
	cJSON_ArrayForEach(field, grid)
	{
		struct buffer path = {0};
		char *keys = strdup(field->string), *rest = keys;
		for (char *key; (key = strsep(&rest, "."));)
			problem_pointer(&path, key);
		size_t length = path.size;
		bool within = keys && !path.failed && strncmp(pointer, path.data, length) == 0 &&
			      (!pointer[length] || pointer[length] == '/');
		free(keys);
		buffer_free(&path);
		if (!within) continue;
		buffer_printf(&text, "/grid");
		problem_pointer(&text, field->string);
		buffer_printf(&text, "/%d%s", choice(index, field), pointer + length);
		return finish(&text);
	}
	buffer_printf(&text, "/spec%s", pointer);
	return finish(&text);
}
