#include "engine/output/config_json.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { MAX_CONFIG_BYTES = 4 << 20 };

static const char blank[] = " \t\r\n";

/* Behind the string that begins at `s`, in valid JSON. */
static const char *string_end(const char *s)
{
	for (s++; *s != '"'; s++)
		if (*s == '\\') s++;
	return s + 1;
}

/* Behind the value of a member, at the comma or brace that follows, in valid JSON. */
static const char *value_end(const char *s)
{
	int depth = 0;
	while (depth > 0 || (*s != ',' && *s != '}')) {
		if (*s == '"') {
			s = string_end(s);
			continue;
		}
		depth += *s == '{' || *s == '[';
		depth -= *s == '}' || *s == ']';
		s++;
	}
	return s;
}

static void append_member(struct buffer *text, const char *member, size_t bytes)
{
	buffer_printf(text, "%s\n  ", text->size > 1 ? "," : "");
	buffer_append(text, member, bytes);
}

/* The members of the object at `s` whose names `members` lacks, as they stand there. */
static enum status keep_members(const char *s, const cJSON *members, struct buffer *text, struct error *err)
{
	s = strchr(s, '{') + 1; /* behind white space and a byte order mark */
	for (s += strspn(s, blank); *s != '}'; s += strspn(s, blank)) {
		const char *key_end = string_end(s), *end = value_end(key_end);
		cJSON *key = cJSON_ParseWithLength(s, (size_t)(key_end - s));
		if (!key) return error_set(err, STATUS_NO_MEMORY, "no memory to write a config");
		bool kept = !cJSON_GetObjectItemCaseSensitive(members, key->valuestring);
		cJSON_Delete(key);
		size_t bytes = (size_t)(end - s);
		while (strchr(blank, s[bytes - 1]))
			bytes--;
		if (kept) append_member(text, s, bytes);
		s = end + (*end == ',');
	}
	return STATUS_OK;
}

static enum status add_members(const cJSON *members, struct buffer *text, struct error *err)
{
	const cJSON *member;
	cJSON_ArrayForEach(member, members)
	{
		if (cJSON_IsNull(member)) continue;
		char *value = cJSON_Print(member);
		if (!value) return error_set(err, STATUS_NO_MEMORY, "no memory to write a config");
		append_member(text, "", 0);
		buffer_json_string(text, member->string);
		buffer_printf(text, ": %s", value);
		cJSON_free(value);
	}
	return STATUS_OK;
}

static enum status complete(const char *config, size_t bytes, const char *name, const cJSON *members, struct buffer *text,
			    struct error *err)
{
	cJSON *json;
	TRY(json_parse_python(config, bytes, name, &json, err));
	bool object = cJSON_IsObject(json);
	cJSON_Delete(json);
	if (!object) return error_set(err, STATUS_INVALID, "%s: not a JSON object", name);
	buffer_append(text, "{", 1);
	TRY(keep_members(config, members, text, err));
	TRY(add_members(members, text, err));
	buffer_printf(text, "\n}\n");
	return text->failed ? error_set(err, STATUS_NO_MEMORY, "no memory to write a config") : STATUS_OK;
}

enum status config_json_complete(const struct place *model, const char *name, const cJSON *members, struct buffer *ret,
				 struct error *err)
{
	char *config;
	size_t bytes;
	struct buffer text = {0};
	TRY(place_slurp(model, name, MAX_CONFIG_BYTES, &config, &bytes, err));
	enum status status = complete(config, bytes, name, members, &text, err);
	free(config);
	if (status != STATUS_OK) {
		buffer_free(&text);
		return status;
	}
	*ret = text;
	return STATUS_OK;
}
