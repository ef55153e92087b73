#include "ctl/jobspec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/input.h"
#include "engine/json.h"

enum { FILE_LIMIT = 1 << 20, KEY_ROOM = 128 };

enum status jobspec_set(cJSON *spec, const char *path, cJSON *value, struct error *err)
{
	char key[KEY_ROOM];
	const char *at = path;
	cJSON *object = spec;
	if (!value) return error_set(err, STATUS_NO_MEMORY, "no memory");
	for (;;) {
		size_t length = strcspn(at, ".");
		if (length == 0 || length >= sizeof key) {
			cJSON_Delete(value);
			return error_set(err, STATUS_INVALID,
					 "'%s' names no field: it is keys with dots between, as in besa.epochs", path);
		}
		memcpy(key, at, length);
		key[length] = 0;
		at += length;
		if (!*at) break;
		at++;
		cJSON *next = cJSON_GetObjectItemCaseSensitive(object, key);
		if (!next) next = cJSON_AddObjectToObject(object, key);
		if (!cJSON_IsObject(next)) {
			cJSON_Delete(value);
			return error_set(err, STATUS_INVALID, "cannot set '%s': '%s' is not an object in the job file", path, key);
		}
		object = next;
	}
	cJSON_DeleteItemFromObjectCaseSensitive(object, key);
	cJSON_AddItemToObject(object, key, value);
	return STATUS_OK;
}

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

/* KEY=VALUE, where a value that is not JSON is a string. */
static enum status set_any(cJSON *spec, const char *text, struct error *err)
{
	struct error ignored;
	char path[KEY_ROOM];
	const char *equals = strchr(text, '=');
	if (!equals || equals == text || equals - text >= (int)sizeof path)
		return error_set(err, STATUS_INVALID, "--set takes KEY=VALUE, not '%s'", text);
	memcpy(path, text, (size_t)(equals - text));
	path[equals - text] = 0;
	cJSON *value = NULL;
	if (json_parse(equals + 1, strlen(equals + 1), "the value", &value, &ignored)) value = cJSON_CreateString(equals + 1);
	return jobspec_set(spec, path, value, err);
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
	TRY(jobspec_set(spec, "calibration.sequence_length", number, err));
	cJSON_ArrayForEach(entry,
			   cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(spec, "evaluation"),
							    "perplexity")) if (cJSON_IsObject(entry) &&
									       !cJSON_HasObjectItem(entry, "sequence_length"))
		cJSON_AddNumberToObject(entry, "sequence_length", length);
	return STATUS_OK;
}

static enum status apply(cJSON *spec, const struct setting *setting, struct error *err)
{
	enum kind { TEXT, NUMBER, PERCENT };
	static const struct {
		enum option_code option;
		const char *name, *path;
		enum kind kind;
	} fields[] = {
		{OPTION_MODEL, "model", "model", TEXT},
		{OPTION_SPARSITY, "sparsity", "sparsity", PERCENT},
		{OPTION_METHOD, "method", "method", TEXT},
		{OPTION_OUTPUT, "output", "output", TEXT},
		{OPTION_NAME, "name", "name", TEXT},
		{OPTION_CALIBRATION, "calibration", "calibration.path", TEXT},
		{OPTION_SAMPLES, "samples", "calibration.samples", NUMBER},
		{OPTION_SEED, "seed", "calibration.seed", NUMBER},
		{OPTION_PRECISION, "precision", "precision", TEXT},
		{OPTION_PRIORITY, "priority", "priority", NUMBER},
		{OPTION_TIMEOUT, "timeout", "timeout_seconds", NUMBER},
	};
	const char *value = setting->value;
	if (setting->option == OPTION_OVERWRITE) return jobspec_set(spec, "overwrite", cJSON_CreateTrue(), err);
	if (setting->option == OPTION_EVAL) return add_evaluation(spec, value, err);
	if (setting->option == OPTION_SET) return set_any(spec, value, err);
	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
		cJSON *item;
		if ((int)fields[i].option != setting->option) continue;
		if (fields[i].kind == TEXT)
			item = cJSON_CreateString(value);
		else
			TRY(parse_number(fields[i].name, value, fields[i].kind == PERCENT, &item, err));
		return jobspec_set(spec, fields[i].path, item, err);
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
