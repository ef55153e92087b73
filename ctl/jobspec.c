#include "ctl/jobspec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/json_path.h"
#include "ctl/input.h"

enum { FILE_LIMIT = 1 << 20 };

/* A number in decimal; `percent` allows "50%" for 0.5. */
static enum status parse_number(const char *option, const char *text, bool percent, cJSON **ret, struct error *err)
{
	char *end;
	double number = strtod(text, &end);
	bool is_percent = percent && end > text && strcmp(end, "%") == 0;
	if (end == text || (*end && !is_percent) || strspn(text, "+-.0123456789eE%") != strlen(text))
		return error_set(err, STATUS_INVALID, "--%s takes a number, not '%s'", option, text);
	*ret = cJSON_CreateNumber(is_percent ? number / 100 : number);
	return STATUS_OK;
}

enum status jobspec_split(const char *option, const char *text, char **ret_key, const char **ret_value, struct error *err)
{
	const char *equals = strchr(text, '=');
	if (!equals || equals == text) return error_set(err, STATUS_INVALID, "--%s takes KEY=VALUE, not '%s'", option, text);
	*ret_key = strndup(text, (size_t)(equals - text));
	if (!*ret_key) return error_set(err, STATUS_NO_MEMORY, "no memory");
	*ret_value = equals + 1;
	return STATUS_OK;
}

/* KEY=VALUE, where a value that is not JSON is a string; but one that begins as a list, an object or a string does in JSON is
 * meant to be that. "{date}" is none. */
static enum status set_any(cJSON *spec, const char *text, struct error *err)
{
	const char *given;
	char *path;
	TRY(jobspec_split("set", text, &path, &given, err));
	bool meant = *given == '[' || *given == '"' || (*given == '{' && strspn(given + 1, " \"}") > 0);
	cJSON *value = NULL;
	struct error reason;
	enum status status = STATUS_OK;
	if (json_parse(given, strlen(given), "the value", &value, &reason)) {
		if (meant)
			status = error_set(err, STATUS_INVALID, "--set %s: %s: '%s'", path, reason.message, given);
		else
			value = cJSON_CreateString(given);
	}
	if (!status) status = json_path_set(spec, path, value, err);
	free(path);
	return status;
}

/* A key may have dots in it, and the last of equal ones counts. */
static enum status add_metadata(cJSON *spec, const char *text, struct error *err)
{
	static const char name[] = "metadata";
	cJSON *metadata = cJSON_GetObjectItemCaseSensitive(spec, name);
	const char *value;
	char *key;
	TRY(jobspec_split(name, text, &key, &value, err));
	if (!cJSON_IsObject(metadata)) {
		cJSON_DeleteItemFromObjectCaseSensitive(spec, name);
		metadata = cJSON_AddObjectToObject(spec, name);
	}
	cJSON_DeleteItemFromObjectCaseSensitive(metadata, key);
	cJSON *added = cJSON_AddStringToObject(metadata, key, value);
	free(key);
	return added ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory");
}

/* One more job that this one waits for. */
static enum status add_dependency(cJSON *spec, const char *job, struct error *err)
{
	static const char name[] = "depends_on";
	cJSON *list = cJSON_GetObjectItemCaseSensitive(spec, name);
	if (list && !cJSON_IsNull(list) && !cJSON_IsArray(list))
		return error_set(err, STATUS_INVALID, "cannot add --after: %s is not a list in the job file", name);
	if (!cJSON_IsArray(list)) {
		cJSON_DeleteItemFromObjectCaseSensitive(spec, name);
		list = cJSON_AddArrayToObject(spec, name);
	}
	return cJSON_AddItemToArray(list, cJSON_CreateString(job)) ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory");
}

static cJSON *perplexity_list(cJSON *spec)
{
	cJSON *evaluation = cJSON_GetObjectItemCaseSensitive(spec, "evaluation");
	if (!evaluation) evaluation = cJSON_AddObjectToObject(spec, "evaluation");
	cJSON *list = cJSON_GetObjectItemCaseSensitive(evaluation, "perplexity");
	if (!list) list = cJSON_AddArrayToObject(evaluation, "perplexity");
	return list;
}

/* [NAME=]FILE: one more data set. A file with '=' in its path needs a name. */
static enum status add_evaluation(cJSON *spec, const char *text, struct error *err)
{
	const char *equals = strchr(text, '=');
	cJSON *list = perplexity_list(spec);
	if (equals == text || !*(equals ? equals + 1 : text))
		return error_set(err, STATUS_INVALID, "--eval takes [NAME=]FILE, not '%s'", text);
	if (!cJSON_IsArray(list))
		return error_set(err, STATUS_INVALID, "cannot add --eval: evaluation.perplexity is not a list in the job file");
	cJSON *entry = cJSON_CreateObject();
	if (equals) {
		char *name = strndup(text, (size_t)(equals - text));
		cJSON_AddStringToObject(entry, "name", name ? name : "");
		free(name);
	}
	cJSON_AddStringToObject(entry, "path", equals ? equals + 1 : text);
	cJSON_AddItemToArray(list, entry);
	return STATUS_OK;
}

/* For calibration, and for the data sets that have no length of their own. */
static enum status set_sequence_length(cJSON *spec, const char *text, struct error *err)
{
	cJSON *number, *entry;
	TRY(parse_number("sequence-length", text, false, &number, err));
	double length = cJSON_GetNumberValue(number);
	TRY(json_path_set(spec, "calibration.sequence_length", number, err));
	cJSON_ArrayForEach(entry,
			   cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(spec, "evaluation"),
							    "perplexity")) if (cJSON_IsObject(entry) &&
									       !cJSON_HasObjectItem(entry, "sequence_length"))
		cJSON_AddNumberToObject(entry, "sequence_length", length);
	return STATUS_OK;
}

static enum status apply(cJSON *spec, const struct setting *setting, struct error *err)
{
	enum kind { TEXT, NUMBER, PERCENT, FLAG };
	static const struct {
		enum option_code option;
		const char *name, *path;
		enum kind kind;
	} fields[] = {
#define OPTION_FIELD(code, letter, name, argument, path, kind, help) {OPTION_##code, name, path, kind},
		SPEC_OPTIONS(OPTION_FIELD)};
	const char *value = setting->value;
	if (setting->option == OPTION_EVAL) return add_evaluation(spec, value, err);
	if (setting->option == OPTION_METADATA) return add_metadata(spec, value, err);
	if (setting->option == OPTION_AFTER) return add_dependency(spec, value, err);
	if (setting->option == OPTION_SET) return set_any(spec, value, err);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		cJSON *item;
		if ((int)fields[i].option != setting->option) continue;
		if (fields[i].kind == TEXT)
			item = cJSON_CreateString(value);
		else if (fields[i].kind == FLAG)
			item = cJSON_CreateTrue();
		else
			TRY(parse_number(fields[i].name, value, fields[i].kind == PERCENT, &item, err));
		return json_path_set(spec, fields[i].path, item, err);
	}
	return error_set(err, STATUS_INTERNAL, "option %d is no setting", setting->option);
}

static enum status read_spec(const char *file, cJSON **ret, struct error *err)
{
	struct buffer text = {0};
	TRY(input_read(file, FILE_LIMIT, &text, err));
	enum status status = json_parse(text.data, text.size, strcmp(file, "-") == 0 ? "standard input" : file, ret, err);
	buffer_free(&text);
	if (!status && !cJSON_IsObject(*ret)) {
		cJSON_Delete(*ret);
		status = error_set(err, STATUS_INVALID, "%s: a job is a JSON object", file);
	}
	return status;
}

enum status jobspec_build(const char *file, const struct setting *settings, int count, cJSON **ret, struct error *err)
{
	cJSON *spec = NULL;
	enum status status = STATUS_OK;
	if (file)
		status = read_spec(file, &spec, err);
	else if (!(spec = cJSON_CreateObject()))
		status = error_set(err, STATUS_NO_MEMORY, "no memory");
	if (status) return status;
	/* --sequence-length last: it looks at the data sets. */
	for (int i = 0; i < count && !status; i++)
		if (settings[i].option != OPTION_SEQUENCE_LENGTH) status = apply(spec, &settings[i], err);
	for (int i = 0; i < count && !status; i++)
		if (settings[i].option == OPTION_SEQUENCE_LENGTH) status = set_sequence_length(spec, settings[i].value, err);
	if (status) {
		cJSON_Delete(spec);
		return status;
	}
	*ret = spec;
	return STATUS_OK;
}
