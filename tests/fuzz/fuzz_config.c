/* libFuzzer over config.json: what is accepted must have sizes that can be multiplied, and a rope table. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/json.h"
#include "engine/model/rope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_rope(const struct model_config *config, const struct rope *rope)
{
	if (rope->kind == ROPE_NONE || rope->rotary > 4096) return;
	float *table = model_rope_table(config, rope, 8);
	for (int i = 0; table && i < 8 * rope->rotary; i++)
		if (!isfinite(table[i])) abort();
	free(table);
}

static void use(const struct model_config *config)
{
	int64_t area;
	if (config->heads < 1 || config->kv_heads < 1 || config->heads % config->kv_heads || config->layers < 1) abort();
	if (__builtin_mul_overflow(config->hidden, config->intermediate, &area)) abort();
	if (__builtin_mul_overflow(config->hidden, config->vocab, &area)) abort();
	use_rope(config, &config->rope);
	use_rope(config, &config->local_rope);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct model_config config;
	struct error err;
	cJSON *json;
	if (json_parse_python((const char *)data, size, "config.json", &json, &err) != STATUS_OK) return 0;
	if (model_config_parse(json, "config.json", NULL, &config, &err) == STATUS_OK) use(&config);
	cJSON_Delete(json);
	return 0;
}
