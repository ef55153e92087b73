#include "daemon/bench.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/warnings.h"
#include "daemon/log.h"
#include "engine/hardware/hardware.h"
#include "engine/model/check.h"

static double number(const cJSON *object, const char *key)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static void print_simulated(const char *name, const cJSON *entry)
{
	const cJSON *simulated = cJSON_GetObjectItemCaseSensitive(entry, "simulated"), *variant;
	cJSON_ArrayForEach(variant, simulated)
	{
		printf("%-20s %-10s %14.0f %14.0f ", name, variant->string, number(variant, "dense_cycles"),
		       number(variant, "cycles"));
		if (cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(variant, "speedup")))
			printf("%9s\n", "-");
		else
			printf("%9.2f\n", number(variant, "speedup"));
		name = "";
	}
}

static void print_report(const cJSON *report)
{
	const cJSON *layer;
	printf("%-20s %-10s %14s %14s %9s\n", "layer", "counted", "dense cycles", "cycles", "speed-up");
	cJSON_ArrayForEach(layer, cJSON_GetObjectItemCaseSensitive(report, "layers"))
		print_simulated(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(layer, "layer")), layer);
	print_simulated("all", report);
}

static enum status print_json(const cJSON *report, struct error *err)
{
	char *text = cJSON_Print(report);
	if (!text) return error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
	puts(text);
	free(text);
	return STATUS_OK;
}

static enum status look_at(const struct options *options, struct error *err)
{
	struct model model;
	struct warnings warnings = {0};
	cJSON *report = NULL;
	TRY(model_open(&PLACE(options->model_dir), &warnings, &model, err));
	enum status status = model_check_all(&model, &warnings, err);
	for (size_t i = 0; i < warnings.count; i++)
		log_warning("%s", warnings.messages[i]);
	warnings_free(&warnings);
	if (!status) status = hardware_simulate(&model, NULL, &report, err);
	if (!status && options->json)
		status = print_json(report, err);
	else if (!status)
		print_report(report);
	cJSON_Delete(report);
	model_close(&model);
	if (!status && (fflush(stdout) || ferror(stdout))) status = error_errno(err, "standard output");
	return status;
}

int bench(const struct options *options)
{
	struct error err;
	sigset_t signals;
	/* There is nothing to keep: whatever signal comes may end it at once. */
	sigemptyset(&signals);
	sigprocmask(SIG_SETMASK, &signals, NULL);
	if (look_at(options, &err) == STATUS_OK) return EXIT_SUCCESS;
	log_error("%s", err.message);
	return EXIT_FAILURE;
}
