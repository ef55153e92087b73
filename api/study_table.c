/* The jobs of a study as a table: what each was asked for, and what it came to. */
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/json.h"
#include "base/text.h"
#include "db/studies.h"

#define ARCHIVE "archive/" /* what is in it is said beside the rest */

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

/* Moves a member of the job's result, which may be NULL, to the row; null where there is none. */
static void move(cJSON *row, const char *key, cJSON *result)
{
	cJSON *value = cJSON_DetachItemFromObjectCaseSensitive(result, key);
	cJSON_AddItemToObject(row, key, value ? value : cJSON_CreateNull());
}

/* The files of the output on the disk, and of those the archive's. All 0 where they are not there any more. */
struct size {
	double bytes, archive;
};

static enum status measure(const struct api_config *config, const struct job *job, struct size *ret, struct error *err)
{
	cJSON *files = NULL;
	const cJSON *file;
	enum status status = config->hooks.artifacts(config->hooks.context, job, &files, err);
	if (status == STATUS_CANCELLED || status == STATUS_NO_MEMORY) return status;
	cJSON_ArrayForEach(file, files)
	{
		const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(file, "name"));
		double bytes = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(file, "bytes"));
		ret->bytes += bytes;
		if (name && text_starts_with(name, ARCHIVE)) ret->archive += bytes;
	}
	cJSON_Delete(files);
	return STATUS_OK;
}

static void add_bytes(cJSON *row, const char *key, double bytes)
{
	cJSON_AddItemToObject(row, key, bytes > 0 ? cJSON_CreateNumber(bytes) : cJSON_CreateNull());
}

static enum status row_json(const struct api_config *config, const struct study_row *row, cJSON *json, struct error *err)
{
	static const char *const keys[] = {"sparsity", "zeros", "params", "perplexity", "tasks", "seconds", "pruning_seconds"};
	const struct job *job = &row->job;
	cJSON *settings, *result = NULL;
	struct size size = {0};
	cJSON_AddStringToObject(json, "job", job->id);
	cJSON_AddBoolToObject(json, "forgotten", row->forgotten);
	cJSON_AddStringToObject(json, "state", job_state_name(job->state));
	cJSON_AddNumberToObject(json, "fraction", job->progress.fraction);
	TRY(json_parse(row->settings, strlen(row->settings), "the settings of a job", &settings, err));
	cJSON_AddItemToObject(json, "settings", settings);
	cJSON_AddStringToObject(json, "output", job->output);
	if (job->result) {
		TRY(json_parse(job->result, strlen(job->result), "a result", &result, err));
	}
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
		move(json, keys[i], result);
	cJSON_Delete(result);
	if (job->result) TRY(measure(config, job, &size, err));
	add_bytes(json, "bytes", size.bytes);
	add_bytes(json, "archive_bytes", size.archive);
	job_add_error(json, job->error_code, job->error_message);
	return STATUS_OK;
}

enum status study_rows_json(const struct api_config *config, const struct study_rows *rows, cJSON **ret, struct error *err)
{
	cJSON *array = cJSON_CreateArray();
	for (size_t i = 0; i < rows->count; i++) {
		cJSON *row = cJSON_CreateObject();
		cJSON_AddItemToArray(array, row);
		enum status status = row_json(config, &rows->rows[i], row, err);
		if (!status) continue;
		cJSON_Delete(array);
		return status;
	}
	*ret = array;
	return STATUS_OK;
}

/* ---- CSV ---------------------------------------------------------------------------------------------------------------- */

static void append_cell(struct buffer *csv, const char *text)
{
	if (csv->size && csv->data[csv->size - 1] != '\n') buffer_append(csv, ",", 1);
	if (!text[strcspn(text, ",\"\r\n")]) {
		buffer_append(csv, text, strlen(text));
		return;
	}
	buffer_append(csv, "\"", 1);
	for (; *text; text++)
		buffer_append(csv, *text == '"' ? "\"\"" : text, *text == '"' ? 2 : 1);
	buffer_append(csv, "\"", 1);
}

/* A text as it is, null as nothing, anything else as JSON. */
static void append_value(struct buffer *csv, const cJSON *value)
{
	if (!value || cJSON_IsNull(value) || cJSON_IsString(value)) {
		append_cell(csv, cJSON_IsString(value) ? value->valuestring : "");
		return;
	}
	char *text = cJSON_PrintUnformatted(value);
	if (!text) csv->failed = true;
	append_cell(csv, text ? text : "");
	free(text);
}

static const char *const before[] = {"job", "state"};
static const char *const after[] = {"zeros", "params", "seconds", "pruning_seconds", "bytes", "archive_bytes", "output"};
enum { BEFORE = sizeof before / sizeof *before, AFTER = sizeof after / sizeof *after };

static void append_head(struct buffer *csv, const cJSON *grid, const cJSON *datasets)
{
	const cJSON *item;
	for (size_t i = 0; i < BEFORE; i++)
		append_cell(csv, before[i]);
	cJSON_ArrayForEach(item, grid) append_cell(csv, item->string);
	cJSON_ArrayForEach(item, datasets)
	{
		struct buffer name = {0};
		buffer_printf(&name, "perplexity.%s", item->string);
		append_cell(csv, name.failed ? "" : name.data);
		buffer_printf(&name, ".dense");
		append_cell(csv, name.failed ? "" : name.data);
		csv->failed |= name.failed;
		buffer_free(&name);
	}
	append_cell(csv, "achieved_sparsity"); /* the grid may have one, which was asked for */
	for (size_t i = 0; i < AFTER; i++)
		append_cell(csv, after[i]);
	append_cell(csv, "error");
	buffer_append(csv, "\r\n", 2);
}

static void append_row(struct buffer *csv, const cJSON *grid, const cJSON *datasets, const cJSON *row)
{
	const cJSON *item, *settings = cJSON_GetObjectItemCaseSensitive(row, "settings");
	const cJSON *perplexity = cJSON_GetObjectItemCaseSensitive(row, "perplexity");
	for (size_t i = 0; i < BEFORE; i++)
		append_value(csv, cJSON_GetObjectItemCaseSensitive(row, before[i]));
	cJSON_ArrayForEach(item, grid) append_value(csv, cJSON_GetObjectItemCaseSensitive(settings, item->string));
	cJSON_ArrayForEach(item, datasets)
	{
		const cJSON *measured = cJSON_GetObjectItemCaseSensitive(perplexity, item->string);
		append_value(csv, cJSON_GetObjectItemCaseSensitive(measured, "pruned"));
		append_value(csv, cJSON_GetObjectItemCaseSensitive(measured, "dense"));
	}
	append_value(csv, cJSON_GetObjectItemCaseSensitive(row, "sparsity"));
	for (size_t i = 0; i < AFTER; i++)
		append_value(csv, cJSON_GetObjectItemCaseSensitive(row, after[i]));
	append_value(csv, cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(row, "error"), "message"));
	buffer_append(csv, "\r\n", 2);
}

void study_rows_csv(const cJSON *grid, const cJSON *rows, struct buffer *ret)
{
	const cJSON *row;
	cJSON *datasets = json_keys_below(rows, "perplexity");
	append_head(ret, grid, datasets);
	cJSON_ArrayForEach(row, rows) append_row(ret, grid, datasets, row);
	cJSON_Delete(datasets);
}
