#include "engine/job/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/output/publish.h"
#include "engine/prune/end_loss.h"

/* Adds up zeros and weights over the layers of all blocks. */
static void count_weights(const cJSON *blocks, double *zeros, double *params, double *seconds)
{
	const cJSON *block, *layer;
	cJSON_ArrayForEach(block, blocks)
	{
		*seconds += cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(block, "seconds"));
		cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(block, "layers"))
		{
			*zeros += cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "zeros"));
			*params += cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "params"));
		}
	}
}

static void add_number_or_null(cJSON *object, const char *key, const cJSON *number)
{
	if (cJSON_IsNumber(number))
		cJSON_AddNumberToObject(object, key, number->valuedouble);
	else
		cJSON_AddNullToObject(object, key);
}

static void add_or_null(cJSON *object, const char *key, const cJSON *item)
{
	json_add(object, key, item ? cJSON_Duplicate(item, true) : cJSON_CreateNull());
}

cJSON *report_result(const struct report *report)
{
	const struct spec *spec = report->job->spec;
	double zeros = 0, params = 0, seconds = 0;
	cJSON *result = cJSON_CreateObject();
	if (report->output)
		cJSON_AddStringToObject(result, "output", report->output);
	else
		cJSON_AddNullToObject(result, "output");
	count_weights(report->savepoint->blocks, &zeros, &params, &seconds);
	cJSON_AddNumberToObject(result, "sparsity", params > 0 ? zeros / params : 0);
	cJSON_AddNumberToObject(result, "zeros", zeros);
	cJSON_AddNumberToObject(result, "params", params);
	if (spec->quantization.bits)
		cJSON_AddStringToObject(result, "format",
					spec->quantization.format == QUANTIZATION_PACKED ? "packed" : "dequantized");
	cJSON *perplexity = cJSON_AddObjectToObject(result, "perplexity");
	for (int i = 0; i < spec->n_perplexity; i++) {
		const struct dataset *dataset = &spec->perplexity[i];
		cJSON *entry = cJSON_AddObjectToObject(perplexity, dataset->name);
		add_number_or_null(entry, "dense", cJSON_GetObjectItemCaseSensitive(report->savepoint->dense, dataset->name));
		add_number_or_null(entry, "pruned", cJSON_GetObjectItemCaseSensitive(report->pruned, dataset->name));
		cJSON_AddNumberToObject(entry, "sequence_length", dataset->sequence_length);
	}
	cJSON *tasks = cJSON_AddObjectToObject(result, "tasks");
	for (int i = 0; i < spec->n_tasks; i++) {
		const char *name = spec->tasks[i].name;
		cJSON *entry = cJSON_AddObjectToObject(tasks, name);
		add_or_null(entry, "dense", cJSON_GetObjectItemCaseSensitive(report->savepoint->dense_tasks, name));
		add_or_null(entry, "pruned", cJSON_GetObjectItemCaseSensitive(report->pruned_tasks, name));
	}
	if (report->hardware) json_add(result, "hardware", cJSON_Duplicate(report->hardware, true));
	const char *hash = report->savepoint->calibration_hash;
	json_add(result, "calibration_hash", *hash ? cJSON_CreateString(hash) : cJSON_CreateNull());
	cJSON_AddNumberToObject(result, "seconds", report->seconds);
	cJSON_AddNumberToObject(result, "pruning_seconds", seconds);
	if (report->replaced) cJSON_AddStringToObject(result, "replaced", report->replaced);
	return result;
}

struct directories {
	const struct place *work;
	cJSON *list;
};

/* Adds the directories of the output: what may be replaced later holds no others (engine/output/publish.h). */
static enum status add_directory(void *context, const char *name, const char *entry, struct error *err)
{
	const struct directories *directories = context;
	struct stat st;
	(void)entry;
	TRY(place_lstat(directories->work, name, &st, err));
	if (!S_ISDIR(st.st_mode)) return STATUS_OK;
	json_add(directories->list, NULL, cJSON_CreateString(name));
	return place_each(directories->work, name, add_directory, context, err);
}

enum status report_write(const struct report *report, const cJSON *result, const cJSON *artifacts, const struct place *work,
			 struct error *err)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "besad_version", BESAD_VERSION);
	cJSON_AddStringToObject(json, "job", report->job->job_id);
	cJSON_AddNumberToObject(json, "attempt", report->job->attempt);
	cJSON_AddStringToObject(json, "backend", report->savepoint->backend);
	cJSON_AddStringToObject(json, "device", report->device);
	cJSON_AddNumberToObject(json, "threads", report->savepoint->threads);
	cJSON_AddStringToObject(json, "precision", report->savepoint->precision);
	cJSON_AddStringToObject(json, "calibration_hash", report->savepoint->calibration_hash);
	if (report->probe->count > 0) {
		cJSON *probe = cJSON_AddObjectToObject(json, "progress_perplexity");
		cJSON_AddStringToObject(probe, "dataset", report->probe_source);
		cJSON_AddNumberToObject(probe, "sequences", (double)report->probe->count);
		cJSON_AddNumberToObject(probe, "sequence_length", (double)report->probe->length);
	}
	if (!isnan(report->checked_loss)) {
		cJSON *check = cJSON_AddObjectToObject(json, "self_check");
		cJSON_AddNumberToObject(check, "sequences", (double)end_loss_sequences(report->job->spec));
		cJSON_AddNumberToObject(check, "perplexity_of_files", exp(report->checked_loss));
		cJSON_AddNumberToObject(check, "perplexity_of_walk", exp(report->savepoint->end_loss));
	}
	cJSON_AddNumberToObject(json, "savepoint_format", savepoint_format(report->savepoint));
	json_add_reference(json, "inputs", report->savepoint->inputs);
	json_add_reference(json, "spec", report->spec);
	json_add_reference(json, "result", result);
	json_add_reference(json, "diagnosis", report->savepoint->findings);
	json_add_reference(json, "blocks", report->savepoint->blocks);
	json_add_reference(json, "artifacts", artifacts);
	struct directories directories = {work, cJSON_AddArrayToObject(json, "directories")};
	enum status status = place_each(work, NULL, add_directory, &directories, err);
	char *text = status ? NULL : cJSON_Print(json);
	cJSON_Delete(json);
	TRY(status);
	if (!text || json_ran_out()) {
		free(text);
		return error_set(err, STATUS_NO_MEMORY, "no memory for besad.json");
	}
	status = place_replace(work, REPORT_NAME, text, strlen(text), err);
	free(text);
	return status;
}
