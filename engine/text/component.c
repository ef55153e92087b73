#include "engine/text/component.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct component_path component_path(const char *format, ...)
{
	struct component_path place;
	va_list args;
	va_start(args, format);
	vsnprintf(place.text, sizeof place.text, format, args);
	va_end(args);
	return place;
}

enum status component_type(const cJSON *object, const char *what, const char **ret, struct error *err)
{
	if (!cJSON_IsObject(object)) return error_set(err, STATUS_INVALID, "%s must be an object", what);
	return component_string(object, what, "type", ret, err);
}

enum status component_only(const cJSON *object, const char *what, const char *const *keys, struct error *err)
{
	const cJSON *child;
	cJSON_ArrayForEach(child, object)
	{
		bool known = strcmp(child->string, "type") == 0;
		for (const char *const *key = keys; *key && !known; key++)
			known = strcmp(child->string, *key) == 0;
		if (!known)
			return error_set(err, STATUS_UNSUPPORTED, "%s: the field '%.100s' is not supported", what, child->string);
	}
	return STATUS_OK;
}

enum status component_string(const cJSON *object, const char *what, const char *key, const char **ret, struct error *err)
{
	const char *value = NULL;
	TRY(json_get_string(object, what, key, &value, err));
	if (!value) return error_set(err, STATUS_INVALID, "%s: '%s' is missing", what, key);
	*ret = value;
	return STATUS_OK;
}

enum status component_array(const cJSON *object, const char *what, const char *key, const cJSON **ret, struct error *err)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	if (!cJSON_IsArray(value)) return error_set(err, STATUS_INVALID, "%s: '%s' must be an array", what, key);
	*ret = value;
	return STATUS_OK;
}

enum status component_pattern(const cJSON *object, const char *what, const char **ret, bool *ret_regex, struct error *err)
{
	const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(object, "pattern");
	const char *string = NULL, *regex = NULL;
	if (cJSON_IsObject(pattern)) {
		TRY(json_get_string(pattern, what, "String", &string, err));
		TRY(json_get_string(pattern, what, "Regex", &regex, err));
	}
	if (!string == !regex)
		return error_set(err, STATUS_INVALID, "%s: 'pattern' must be {\"String\": …} or {\"Regex\": …}", what);
	if (*(string ? string : regex) == 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: an empty 'pattern' is not supported", what);
	*ret = string ? string : regex;
	*ret_regex = regex != NULL;
	return STATUS_OK;
}
