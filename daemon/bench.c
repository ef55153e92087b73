#include "daemon/bench.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/json.h"
#include "base/warnings.h"
#include "daemon/log.h"
#include "engine/hardware/hardware.h"
#include "engine/model/check.h"

static double number(const cJSON *object, const char *key)
{
	return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static const cJSON *member(const cJSON *object, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(object, key);
}

static void print_simulated(const char *name, const cJSON *entry)
{
	const cJSON *variant;
	cJSON_ArrayForEach(variant, member(entry, "simulated"))
	{
		printf("%-20s %-10s %14.0f %14.0f ", name, variant->string, number(variant, "dense_cycles"),
		       number(variant, "cycles"));
		if (cJSON_IsNull(member(variant, "speedup")))
			printf("%9s\n", "-");
		else
			printf("%9.2f\n", number(variant, "speedup"));
		name = "";
	}
}

static void print_simulation(const cJSON *report)
{
	const cJSON *layer;
	printf("%-20s %-10s %14s %14s %9s\n", "layer", "counted", "dense cycles", "cycles", "speed-up");
	cJSON_ArrayForEach(layer, member(report, "layers")) print_simulated(cJSON_GetStringValue(member(layer, "layer")), layer);
	print_simulated("all", report);
}

static void print_times(const char *name, double zeros, const cJSON *times)
{
	printf("%-20s %6.1f %% %12.1f %12.1f %9.2f\n", name, 100 * zeros, number(times, "dense_us"), number(times, "sparse_us"),
	       number(times, "speedup"));
}

static void print_measurements(const cJSON *report)
{
	const cJSON *layer, *decode = member(report, "decode");
	double zeros = 0, params = 0;
	printf("%-20s %8s %12s %12s %9s\n", "layer", "zeros", "dense us", "sparse us", "speed-up");
	cJSON_ArrayForEach(layer, member(report, "layers"))
	{
		zeros += number(layer, "zeros");
		params += number(layer, "params");
		print_times(cJSON_GetStringValue(member(layer, "layer")), number(layer, "zeros") / number(layer, "params"),
			    member(layer, "measured"));
	}
	print_times("one token", zeros / params, decode);
	printf("\n%.0f thread%s, in bf16; read dense at %.1f GB/s, sparse at %.1f GB/s; memory is copied at %.1f GB/s\n",
	       number(decode, "threads"), number(decode, "threads") == 1 ? "" : "s", number(decode, "dense_gbps"),
	       number(decode, "sparse_gbps"), number(decode, "copy_gbps"));
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
	const struct hardware_wishes wishes = {.simulate = options->simulate,
					       .measure = !options->simulate,
					       .threads = options->threads ? options->threads : omp_get_max_threads()};
	if (!status) status = hardware_report(&model, &wishes, NULL, NULL, &report, err);
	if (!status && json_ran_out()) status = error_set(err, STATUS_NO_MEMORY, "no memory for the figures");
	if (!status && options->json)
		status = print_json(report, err);
	else if (!status)
		(options->simulate ? print_simulation : print_measurements)(report);
	cJSON_Delete(report);
	model_close(&model);
	if (!status && (fflush(stdout) || ferror(stdout))) status = error_errno(err, "standard output");
	return status;
}

int bench(const struct options *options)
{
	struct error err;
	if (look_at(options, &err) == STATUS_OK) return EXIT_SUCCESS;
	log_error("%s", err.message);
	return EXIT_FAILURE;
}
