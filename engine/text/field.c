#include "engine/text/field.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/json.h"
#include "engine/text/rows.h"

enum { KEYS_SHOWN = 12 };

/* ---- the path ------------------------------------------------------------------------------------------------------------- */

/* The index that the first `length` bytes spell, or -1. */
static int64_t index_of(const char *text, size_t length)
{
	int64_t index = 0;
	if (length == 0 || length > 9) return -1;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9') return -1;
		index = index * 10 + (text[i] - '0');
	}
	return index;
}

/* The member whose key is the first `length` bytes of `path`. */
static bool step(const struct json_object *at, const char *path, size_t length, struct json_object **ret)
{
	if (json_object_is_type(at, json_type_array)) {
		int64_t index = index_of(path, length);
		if (index < 0 || (size_t)index >= json_object_array_length(at)) return false;
		*ret = json_object_array_get_idx(at, (size_t)index);
		return true;
	}
	char key[FIELD_MAX + 1];
	if (length > FIELD_MAX || !json_object_is_type(at, json_type_object)) return false;
	memcpy(key, path, length);
	key[length] = 0;
	return json_object_object_get_ex(at, key, ret);
}

/* What `path` leads to from `at`: longer keys, with dots in them, are tried before shorter ones. */
static bool find(const struct json_object *at, const char *path, struct json_object **ret)
{
	struct json_object *next;
	size_t length = strlen(path);
	if (step(at, path, length, ret)) return true;
	while (length-- > 0)
		if (path[length] == '.' && step(at, path, length, &next) && find(next, path + length + 1, ret)) return true;
	return false;
}

/* ---- the text ------------------------------------------------------------------------------------------------------------- */

static struct json_object *member(const struct json_object *object, const char *key)
{
	struct json_object *value = NULL;
	if (json_object_is_type(object, json_type_object)) json_object_object_get_ex(object, key, &value);
	return value;
}

static bool is_string(const struct json_object *value)
{
	return json_object_is_type(value, json_type_string);
}

static enum status append(struct json_object *string, struct text_buffer *text, bool *found, struct error *err)
{
	*found = true;
	return text_append(text, json_object_get_string(string), (size_t)json_object_get_string_len(string), err);
}

/* A string, or an object of the type "text" with one; NULL for other parts. */
static struct json_object *part_text(struct json_object *part)
{
	struct json_object *type = member(part, "type"), *string = is_string(part) ? part : member(part, "text");
	if (type && (!is_string(type) || strcmp(json_object_get_string(type), "text") != 0)) return NULL;
	return is_string(string) ? string : NULL;
}

static enum status append_content(struct json_object *content, struct text_buffer *text, bool *found, struct error *err)
{
	if (is_string(content)) return append(content, text, found, err);
	size_t count = json_object_is_type(content, json_type_array) ? json_object_array_length(content) : 0;
	for (size_t i = 0; i < count; i++) {
		struct json_object *string = part_text(json_object_array_get_idx(content, i));
		if (string) TRY(append(string, text, found, err));
	}
	return STATUS_OK;
}

static struct json_object *content_of(const struct json_object *message)
{
	struct json_object *content = member(message, "content");
	return content ? content : member(message, "value");
}

static enum status append_messages(struct json_object *list, struct text_buffer *text, bool *found, struct error *err)
{
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *content = content_of(json_object_array_get_idx(list, i));
		size_t before = text->size;
		bool here = false;
		if (!content) continue;
		if (*found) TRY(text_append(text, "\n", 1, err));
		TRY(append_content(content, text, &here, err));
		if (!here) text->size = before;
		*found = *found || here;
	}
	return STATUS_OK;
}

enum status field_text(const struct json_object *row, const char *field, struct text_buffer *text, bool *ret_found,
		       struct error *err)
{
	struct json_object *value;
	*ret_found = false;
	if (!find(row, field, &value)) return STATUS_OK;
	if (!json_object_is_type(value, json_type_array)) return append_content(value, text, ret_found, err);
	TRY(append_messages(value, text, ret_found, err));
	/* A list of strings may be the texts of a whole data set, by columns; only where an object is among them are they
	 * parts. */
	bool parts = false;
	for (size_t i = 0; i < json_object_array_length(value) && !*ret_found; i++)
		parts = parts || json_object_is_type(json_object_array_get_idx(value, i), json_type_object);
	return parts ? append_content(value, text, ret_found, err) : STATUS_OK;
}

/* ---- what is there instead ------------------------------------------------------------------------------------------------ */

/* Appends the key in quotes, cut where it is long; what would spoil a line of a message becomes "?". */
static void append_key(char *to, size_t size, const char *key)
{
	char shown[48];
	size_t used = strlen(to), length = strnlen(key, sizeof shown - 1);
	memcpy(shown, key, length);
	while (length > 0 && !utf8_valid(shown, length))
		length--;
	shown[length] = 0;
	for (char *c = shown; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f) *c = '?';
	if (used + length + 8 < size) snprintf(to + used, size - used, "%s'%s'", used > 0 ? ", " : "", shown);
}

void field_describe(const struct json_object *row, const char *field, char *to, size_t size)
{
	struct json_object *value;
	char keys[400] = "";
	int count = 0;
	if (find(row, field, &value)) {
		if (json_object_is_type(value, json_type_array))
			snprintf(to, size, "'%s' is a list of %zu without text", field, json_object_array_length(value));
		else
			snprintf(to, size, "'%s' is %s", field, rows_type_name(value));
		return;
	}
	json_object_object_foreach(row, key, unused)
	{
		(void)unused;
		if (++count <= KEYS_SHOWN) append_key(keys, sizeof keys, key);
	}
	snprintf(to, size, "it has %s%s", count ? keys : "no keys", count > KEYS_SHOWN ? " and more" : "");
}
