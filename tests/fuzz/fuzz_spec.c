/* libFuzzer over a job's spec as a client sends it. Its paths are looked up under an empty root, and under one that holds a model
 * if the environment's BESAD_FUZZ_MODELS names it. */
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"
#include "engine/spec/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const cJSON *json)
{
	char here[] = "/var/empty", *models = getenv("BESAD_FUZZ_MODELS");
	char *model_roots[] = {here, models, NULL}, *data_roots[] = {here, models, NULL};
	struct roots roots = {.model = model_roots, .data = data_roots, .output = here};
	struct spec_problems problems = {0};
	struct spec *spec = NULL;
	struct error err;
	enum status status = spec_parse(json, &roots, &spec, &problems, &err);
	if (status == STATUS_INVALID && problems.count < 1) abort();
	if (problems.count > SPEC_MAX_PROBLEMS || (status == STATUS_OK && problems.count)) abort();
	spec_problems_free(&problems);
	if (status != STATUS_OK) return;
	cJSON *shown = spec_to_json(spec);
	if (!shown) abort();
	cJSON_Delete(shown);
	spec_free(spec);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct error err;
	cJSON *json;
	if (json_parse((const char *)data, size, "the body", &json, &err) != STATUS_OK) return 0;
	check(json);
	cJSON_Delete(json);
	return 0;
}
