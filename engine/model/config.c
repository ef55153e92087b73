#include "engine/model/config.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/lfs.h"
#include "engine/model/config_fields.h"
#include "engine/model/families.h"

enum {
	MAX_CONFIG_BYTES = 4 << 20,
	MAX_COLUMNS = 65536, /* inputs of a linear layer: ranks are 16 bits wide */
	MAX_VOCAB = 1 << 24,
	MAX_POSITIONS = 1 << 30,
};

static const cJSON *member(const cJSON *json, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(json, key);
	return cJSON_IsNull(value) ? NULL : value;
}

static bool given(const cJSON *json, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(json, key) != NULL;
}

/* ---- the family -------------------------------------------------------------------------------------------------------------- */

static enum status refuse_family(const char *path, const char *type, const char *architecture, struct error *err)
{
	char *supported = NULL;
	size_t size;
	FILE *list = open_memstream(&supported, &size);
	for (const struct family *f = families; list && f->model_type; f++)
		fprintf(list, "%s%s (%s)", f == families ? "" : ", ", f->model_type, f->architecture);
	if (list) fclose(list);
	error_set(err, STATUS_UNSUPPORTED, "%s: model_type '%.64s' with architectures '%.64s' is not supported; supported: %s",
		  path, type ? type : "", architecture ? architecture : "", supported ? supported : "");
	free(supported);
	return STATUS_UNSUPPORTED;
}

static enum status find_family(const cJSON *json, const char *path, const struct family **ret, struct error *err)
{
	const char *type = NULL, *first = NULL;
	TRY(json_get_string(json, path, "model_type", &type, err));
	const struct family *family = type ? family_of_type(type) : NULL, *other = NULL;
	const cJSON *architectures = member(json, "architectures"), *name;
	bool matches = false;
	if (architectures && !cJSON_IsArray(architectures))
		return error_set(err, STATUS_INVALID, "%s: 'architectures' must be a list of strings", path);
	cJSON_ArrayForEach(name, architectures)
	{
		if (!cJSON_IsString(name))
			return error_set(err, STATUS_INVALID, "%s: 'architectures' must be a list of strings", path);
		if (!first) first = name->valuestring;
		if (!other) other = family_of_architecture(name->valuestring);
		matches = matches || (family && family_has_architecture(family, name->valuestring));
	}
	if (!type && !first) return error_set(err, STATUS_INVALID, "%s: has neither 'model_type' nor 'architectures'", path);
	if (!type) family = other;
	if (!family) return refuse_family(path, type, first, err);
	if (type && first && !matches && other)
		return error_set(err, STATUS_UNSUPPORTED, "%s: model_type '%s' and architectures '%.64s' contradict each other",
				 path, type, first);
	if (type && first && !matches)
		return error_set(err, STATUS_UNSUPPORTED,
				 "%s: architectures '%.64s' is no language model of model_type '%s', which %s is; a model with "
				 "another head cannot be "
				 "evaluated",
				 path, first, type, family->architecture);
	*ret = family;
	return STATUS_OK;
}

/* ---- sizes, activation, attention ------------------------------------------------------------------------------------------ */

static enum status parse_sizes(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
			       struct error *err)
{
	const struct {
		const char *key;
		int64_t high;
		int64_t *to;
	} required[] = {
		{"hidden_size", MAX_COLUMNS, &config->hidden},
		{family->intermediate_key ? family->intermediate_key : "intermediate_size", MAX_COLUMNS, &config->intermediate},
		{"num_hidden_layers", MODEL_MAX_LAYERS, &config->layers},
		{"num_attention_heads", MAX_COLUMNS, &config->heads},
		{"vocab_size", MAX_VOCAB, &config->vocab},
	};
	for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
		if (!member(json, required[i].key))
			return error_set(err, STATUS_INVALID, "%s: '%s' is missing", path, required[i].key);
		TRY(json_get_int(json, path, required[i].key, 1, required[i].high, required[i].to, err));
	}
	/* A null is as good as no field but for num_key_value_heads, where transformers takes it for "as many as heads". */
	config->kv_heads = family->kv_heads && !given(json, "num_key_value_heads") ? family->kv_heads : config->heads;
	config->max_positions = family->max_positions;
	if (!family->learned_positions)
		TRY(json_get_int(json, path, "num_key_value_heads", 1, MAX_COLUMNS, &config->kv_heads, err));
	TRY(json_get_int(json, path, "max_position_embeddings", 1, MAX_POSITIONS, &config->max_positions, err));
	if (!given(json, "head_dim")) config->head_dim = family->head_dim;
	if (!family->learned_positions) TRY(json_get_int(json, path, "head_dim", 1, MAX_COLUMNS, &config->head_dim, err));
	if (config->heads % config->kv_heads != 0)
		return error_set(err, STATUS_INVALID,
				 "%s: 'num_attention_heads' %" PRId64 " is no multiple of 'num_key_value_heads' %" PRId64, path,
				 config->heads, config->kv_heads);
	if (config->head_dim == 0) {
		if (config->hidden % config->heads != 0)
			return error_set(err, STATUS_INVALID,
					 "%s: 'hidden_size' %" PRId64 " is no multiple of 'num_attention_heads' %" PRId64, path,
					 config->hidden, config->heads);
		config->head_dim = config->hidden / config->heads;
	}
	if (config->head_dim % 2 != 0)
		return error_set(err, STATUS_INVALID, "%s: a head size of %" PRId64 " is odd, but rotary embeddings turn pairs",
				 path, config->head_dim);
	if (config->heads * config->head_dim > MAX_COLUMNS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: %" PRId64 " heads of %" PRId64 " are more than %d columns", path,
				 config->heads, config->head_dim, MAX_COLUMNS);
	int64_t embedding = config->hidden;
	TRY(json_get_int(json, path, "word_embed_proj_dim", 1, MAX_COLUMNS, &embedding, err));
	if (embedding != config->hidden)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'word_embed_proj_dim' other than 'hidden_size' is not supported",
				 path);
	config->attention_scale = (float)(1 / sqrt((double)config->head_dim));
	return STATUS_OK;
}

static enum status parse_experts(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				 struct error *err)
{
	int64_t experts = family->experts, chosen = family->experts_per_token;
	if (!family->experts_key) return STATUS_OK;
	static const char *const names[] = {"num_experts", "num_local_experts"};
	const char *given_as = NULL;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int64_t value = experts;
		if (!member(json, names[i])) continue;
		TRY(json_get_int(json, path, names[i], 1, ROUTE_MAX_EXPERTS, &value, err));
		if (given_as && value != experts)
			return error_set(err, STATUS_INVALID, "%s: '%s' %" PRId64 " and '%s' %" PRId64 " contradict each other",
					 path, given_as, experts, names[i], value);
		experts = value;
		given_as = names[i];
	}
	TRY(json_get_int(json, path, "num_experts_per_tok", 1, ROUTE_MAX_EXPERTS, &chosen, err));
	if (chosen > experts)
		return error_set(err, STATUS_INVALID, "%s: 'num_experts_per_tok' %" PRId64 " is more than '%s' %" PRId64, path,
				 chosen, family->experts_key, experts);
	config->experts = (int)experts;
	config->experts_per_token = (int)chosen;
	config->normalised_routing = family->normalised_routing;
	if (family->heeds_norm_topk_prob) TRY(json_get_bool(json, path, "norm_topk_prob", &config->normalised_routing, err));
	return STATUS_OK;
}

static enum status parse_activation(const cJSON *json, const struct family *family, const char *path, enum activation *ret,
				    struct error *err)
{
	static const struct {
		const char *name;
		enum activation activation;
	} known[] = {
		{"silu", ACTIVATION_SILU},
		{"swish", ACTIVATION_SILU},
		{"gelu_pytorch_tanh", ACTIVATION_GELU_TANH},
		{"gelu_new", ACTIVATION_GELU_TANH},
		{"gelu", ACTIVATION_GELU},
		{"relu", ACTIVATION_RELU},
		{"gelu_fast", ACTIVATION_GELU_TANH},
		{"gelu_accurate", ACTIVATION_GELU_TANH},
		{"gelu_python_tanh", ACTIVATION_GELU_TANH},
		{"gelu_python", ACTIVATION_GELU},
	};
	const char *key = family->activation_key ? family->activation_key : "hidden_act";
	const char *name = family->activation ? family->activation : "silu";
	TRY(json_get_string(json, path, key, &name, err));
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i].name, name) == 0) {
			*ret = known[i].activation;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED, "%s: '%s' '%.64s' is not supported; silu, relu, gelu and its tanh forms are",
			 path, key, name);
}

/* A number above 0; 0 where it is null, and `value` where it is not given. */
static enum status parse_positive(const cJSON *json, const char *path, const char *key, double value, double *ret,
				  struct error *err)
{
	*ret = given(json, key) ? 0 : value;
	if (!member(json, key)) return STATUS_OK;
	TRY(json_get_double(json, path, key, ret, err));
	if (!(*ret > 0 && *ret <= 1e6))
		return error_set(err, STATUS_INVALID, "%s: '%s' must be above 0 and at most 1e6", path, key);
	return STATUS_OK;
}

static enum status parse_capping(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				 struct error *err)
{
	double scalar, attention, logits;
	if (!family->query_pre_attn_scalar) return STATUS_OK;
	TRY(parse_positive(json, path, "query_pre_attn_scalar", family->query_pre_attn_scalar, &scalar, err));
	if (!scalar) return error_set(err, STATUS_INVALID, "%s: 'query_pre_attn_scalar' must be a number", path);
	TRY(parse_positive(json, path, "attn_logit_softcapping", family->attn_logit_softcapping, &attention, err));
	TRY(parse_positive(json, path, "final_logit_softcapping", family->final_logit_softcapping, &logits, err));
	config->attention_scale = (float)(1 / sqrt(scalar));
	config->attention_softcap = (float)attention;
	config->logit_softcap = (float)logits;
	return STATUS_OK;
}

static void set_full(struct model_config *config, int64_t layer, bool full)
{
	uint8_t bit = (uint8_t)(1 << layer % 8), *byte = &config->full_layers[layer / 8];
	*byte = full ? *byte | bit : *byte & (uint8_t)~bit;
}

/* `layer_types`, which goes before what the other fields say of layers. */
static enum status parse_layer_types(const cJSON *types, const struct family *family, const char *path, struct model_config *config,
				     struct error *err)
{
	if (!cJSON_IsArray(types) || cJSON_GetArraySize(types) != config->layers)
		return error_set(err, STATUS_INVALID, "%s: 'layer_types' must list %" PRId64 " layers", path, config->layers);
	const cJSON *type;
	int64_t layer = 0, full_layers = 0;
	cJSON_ArrayForEach(type, types)
	{
		const char *name = cJSON_GetStringValue(type);
		if (!name) return error_set(err, STATUS_INVALID, "%s: 'layer_types' must be a list of strings", path);
		bool full = strcmp(name, "full_attention") == 0;
		if (!full && (strcmp(name, "sliding_attention") != 0 || config->sliding_window == 0))
			return error_set(err, STATUS_UNSUPPORTED, "%s: 'layer_types' has '%.64s', which is not supported here",
					 path, name);
		set_full(config, layer++, full);
		full_layers += full;
	}
	bool heeded = family->window == WINDOW_WHEN_SWITCHED_ON || family->window == WINDOW_BY_PATTERN;
	if (!heeded && full_layers != (config->sliding_window ? 0 : config->layers))
		return error_set(
			err, STATUS_UNSUPPORTED,
			"%s: 'layer_types' contradicts 'sliding_window': with model_type '%s' a window holds in all layers", path,
			family->model_type);
	return STATUS_OK;
}

static enum status parse_window(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				struct error *err)
{
	int64_t pattern = family->window_pattern;
	bool on = family->window == WINDOW_WHEN_GIVEN || family->window == WINDOW_BY_PATTERN;
	int64_t window = given(json, "sliding_window") ? 0 : family->sliding_window, full_layers = 0;
	TRY(json_get_int(json, path, "sliding_window", 1, MAX_POSITIONS, &window, err));
	if (family->window == WINDOW_WHEN_SWITCHED_ON || family->window == WINDOW_WHEN_SWITCHED_ON_IN_ALL)
		TRY(json_get_bool(json, path, "use_sliding_window", &on, err));
	if (family->window == WINDOW_WHEN_SWITCHED_ON) {
		full_layers = 28;
		TRY(json_get_int(json, path, "max_window_layers", 0, INT32_MAX, &full_layers, err));
	}
	if (family->heeds_window_pattern)
		TRY(json_get_int(json, path, "sliding_window_pattern", 1, MODEL_MAX_LAYERS, &pattern, err));
	config->sliding_window = on ? window : 0;
	for (int64_t layer = 0; layer < config->layers; layer++)
		set_full(config, layer, family->window == WINDOW_BY_PATTERN ? (layer + 1) % pattern == 0 : layer < full_layers);
	const cJSON *types = member(json, "layer_types");
	if (types) TRY(parse_layer_types(types, family, path, config, err));
	bool slides = false;
	for (int layer = 0; layer < config->layers; layer++)
		slides = slides || model_window(config, layer) > 0;
	if (!slides) config->sliding_window = 0;
	return STATUS_OK;
}

/* ---- rotary embeddings ------------------------------------------------------------------------------------------------- */

static enum status parse_rope_kind(const cJSON *rope, const char *path, enum rope_kind *ret, struct error *err)
{
	static const struct {
		const char *name;
		enum rope_kind kind;
	} known[] = {{"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC}, {"llama3", ROPE_LLAMA3}};
	const char *name = NULL;
	TRY(json_get_string(rope, path, "type", &name, err));
	TRY(json_get_string(rope, path, "rope_type", &name, err));
	if (!name) name = "default";
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i].name, name) == 0) {
			*ret = known[i].kind;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: 'rope_type' '%.64s' is not supported; default, linear, dynamic and llama3 are", path, name);
}

/* A number of the rope object, within [low, high]. */
static enum status rope_number(const cJSON *rope, const char *path, const char *key, double low, double high, double *ret,
			       struct error *err)
{
	double value = NAN;
	TRY(json_get_double(rope, path, key, &value, err));
	if (!(value >= low && value <= high))
		return error_set(err, STATUS_INVALID, "%s: '%s' must be a number from %g to %g", path, key, low, high);
	*ret = value;
	return STATUS_OK;
}

/* What an object says: `rope_scaling`, `rope_parameters`, or the part of the latter for one type of layer. */
static enum status parse_rope_object(const cJSON *object, const char *path, const struct model_config *config, struct rope *rope,
				     struct error *err)
{
	static const char *const known[] = {"rope_type",
					    "type",
					    "rope_theta",
					    "factor",
					    "low_freq_factor",
					    "high_freq_factor",
					    "original_max_position_embeddings",
					    "finetuned",
					    "partial_rotary_factor"};
	const cJSON *field;
	if (!cJSON_IsObject(object)) return error_set(err, STATUS_INVALID, "%s: '%s' must be an object", path, object->string);
	cJSON_ArrayForEach(field, object)
	{
		bool found = false;
		for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++)
			found = strcmp(known[i], field->string) == 0;
		if (!found && !cJSON_IsNull(field))
			return error_set(err, STATUS_UNSUPPORTED, "%s: '%.64s' in '%s' is not supported", path, field->string,
					 object->string);
	}
	double rotary = 1;
	TRY(json_get_double(object, path, "partial_rotary_factor", &rotary, err));
	if (rotary != 1)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'partial_rotary_factor' is set, which is not supported", path);
	if (member(object, "rope_theta")) TRY(rope_number(object, path, "rope_theta", 1, 1e15, &rope->theta, err));
	TRY(parse_rope_kind(object, path, &rope->kind, err));
	if (rope->kind == ROPE_DEFAULT) return STATUS_OK;

	TRY(rope_number(object, path, "factor", 1e-6, 1e6, &rope->factor, err));
	if (rope->kind == ROPE_DYNAMIC && config->head_dim == 2)
		return error_set(err, STATUS_UNSUPPORTED, "%s: dynamic rope scaling needs a head size above 2", path);
	if (rope->kind != ROPE_LLAMA3) return STATUS_OK;
	TRY(rope_number(object, path, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor, err));
	TRY(rope_number(object, path, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor, err));
	TRY(json_get_int(object, path, "original_max_position_embeddings", 1, MAX_POSITIONS, &rope->original_max_positions, err));
	if (rope->high_freq_factor <= rope->low_freq_factor)
		return error_set(err, STATUS_INVALID, "%s: 'high_freq_factor' must be above 'low_freq_factor'", path);
	return STATUS_OK;
}

static bool same_rope(const struct rope *a, const struct rope *b)
{
	if (a->kind != b->kind || a->theta != b->theta) return false;
	if (a->kind != ROPE_DEFAULT && a->factor != b->factor) return false;
	return a->kind != ROPE_LLAMA3 || (a->low_freq_factor == b->low_freq_factor && a->high_freq_factor == b->high_freq_factor &&
					  a->original_max_positions == b->original_max_positions);
}

/* A base beside the objects must be theirs. */
static enum status check_theta(const cJSON *json, const char *path, const char *key, double object, const char *where,
			       struct error *err)
{
	double beside = object;
	TRY(json_get_double(json, path, key, &beside, err));
	if (beside == object) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: '%s' %g and 'rope_theta' %g in '%s' contradict each other", path, key, beside,
			 object, where);
}

/* `rope_parameters` by type of layer. */
static enum status parse_rope_by_type(const cJSON *parameters, const char *path, struct model_config *config, struct error *err)
{
	const cJSON *part;
	cJSON_ArrayForEach(part, parameters)
	{
		bool full = strcmp(part->string, "full_attention") == 0;
		if (!full && strcmp(part->string, "sliding_attention") != 0)
			return error_set(err, STATUS_UNSUPPORTED, "%s: '%.64s' in '%s' is not supported", path, part->string,
					 parameters->string);
		if (!cJSON_IsNull(part))
			TRY(parse_rope_object(part, path, config, full ? &config->rope : &config->local_rope, err));
	}
	return STATUS_OK;
}

/* An object that is there and says something; NULL otherwise. */
static const cJSON *rope_object(const cJSON *json, const char *key)
{
	const cJSON *object = member(json, key);
	return cJSON_IsObject(object) && !object->child ? NULL : object;
}

static enum status parse_rope(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
			      struct error *err)
{
	const cJSON *scaling = rope_object(json, "rope_scaling"), *parameters = rope_object(json, "rope_parameters");
	struct rope *rope = &config->rope;
	*rope = (struct rope){.kind = ROPE_DEFAULT,
			      .theta = family->rope_theta,
			      .factor = 1,
			      .rotary = (int)config->head_dim,
			      .original_max_positions = config->max_positions};
	if (family->rope_local_base_freq) {
		config->local_rope = *rope;
		config->local_rope.theta = family->rope_local_base_freq;
		if (member(json, "rope_local_base_freq"))
			TRY(rope_number(json, path, "rope_local_base_freq", 1, 1e15, &config->local_rope.theta, err));
	}
	if (member(json, "rope_theta")) TRY(rope_number(json, path, "rope_theta", 1, 1e15, &rope->theta, err));
	struct rope plain = *rope;
	bool by_type = family->rope_local_base_freq && cJSON_IsObject(parameters);
	if (by_type)
		TRY(parse_rope_by_type(parameters, path, config, err));
	else if (parameters)
		TRY(parse_rope_object(parameters, path, config, rope, err));
	else if (scaling)
		TRY(parse_rope_object(scaling, path, config, rope, err));
	if (scaling && parameters) {
		/* transformers goes by rope_scaling, and by the base beside it, not by that in rope_parameters. */
		TRY(parse_rope_object(scaling, path, config, &plain, err));
		if (!same_rope(&plain, rope))
			return error_set(err, STATUS_INVALID,
					 "%s: 'rope_scaling' (with 'rope_theta' %g) and 'rope_parameters' (%g) contradict each "
					 "other; remove one",
					 path, plain.theta, rope->theta);
	}
	TRY(check_theta(json, path, "rope_theta", rope->theta, parameters ? "rope_parameters" : "rope_scaling", err));
	if (!family->rope_local_base_freq) return STATUS_OK;
	return check_theta(json, path, "rope_local_base_freq", config->local_rope.theta, "rope_parameters", err);
}

/* The angle per position of pair i (transformers, modeling_rope_utils.py). */
static double rope_frequency(const struct rope *rope, double theta, int i)
{
	const double pi = 3.14159265358979323846;
	double frequency = pow(theta, -2.0 * i / rope->rotary);
	if (rope->kind == ROPE_LINEAR) return frequency / rope->factor;
	if (rope->kind != ROPE_LLAMA3) return frequency;
	/* Turns over the original context: few → slowed down by the factor, many → as it is, between → blended. */
	double turns = (double)rope->original_max_positions * frequency / (2 * pi);
	double low = rope->low_freq_factor, high = rope->high_freq_factor;
	double keep = fmin(fmax((turns - low) / (high - low), 0), 1);
	return keep * frequency + (1 - keep) * frequency / rope->factor;
}

float *model_rope_table(const struct model_config *config, const struct rope *rope, int64_t positions)
{
	int rotary = rope->rotary, half = rotary / 2;
	float *table = calloc((size_t)positions * (size_t)rotary + 1, sizeof *table);
	if (!table) return NULL;
	double theta = rope->theta;
	if (rope->kind == ROPE_DYNAMIC && positions > config->max_positions) {
		double factor = rope->factor, stretch = (double)positions / (double)config->max_positions;
		theta *= pow(factor * stretch - (factor - 1), (double)rotary / (rotary - 2));
	}
	for (int i = 0; i < half; i++) {
		double frequency = rope_frequency(rope, theta, i);
		for (int64_t t = 0; t < positions; t++) {
			table[t * rotary + i] = (float)cos((double)t * frequency);
			table[t * rotary + half + i] = (float)sin((double)t * frequency);
		}
	}
	return table;
}

static enum status parse_norm(const cJSON *json, const struct family *family, const char *path, struct norm *ret, struct error *err)
{
	double eps = family->rms_norm_eps;
	*ret = (struct norm){.kind = family->layer_norm ? NORM_LAYER : NORM_RMS, .weight_offset = family->norm_offset, .groups = 1};
	if (family->layer_norm) {
		ret->eps = 1e-5f;
		return STATUS_OK;
	}
	TRY(json_get_double(json, path, "rms_norm_eps", &eps, err));
	if (!(eps > 0 && eps <= 1)) return error_set(err, STATUS_INVALID, "%s: 'rms_norm_eps' must be above 0 and at most 1", path);
	ret->eps = (float)eps;
	return STATUS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

enum status model_config_parse(const cJSON *json, const char *path, struct warnings *warnings, struct model_config *ret,
			       struct error *err)
{
	struct model_config config = {
		.norm = {.kind = NORM_RMS, .groups = 1}, .position_offset = -1, .embedding_scale = 1, .bos_token = -1};
	const struct family *family = NULL;
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "%s: not a JSON object", path);
	TRY(find_family(json, path, &family, err));
	snprintf(config.family, sizeof config.family, "%s", family->model_type);
	TRY(config_fields_check(json, family, path, warnings, err));
	TRY(parse_sizes(json, family, path, &config, err));
	TRY(parse_experts(json, family, path, &config, err));
	TRY(parse_activation(json, family, path, &config.activation, err));
	TRY(parse_capping(json, family, path, &config, err));
	TRY(parse_window(json, family, path, &config, err));
	if (family->learned_positions)
		config.position_offset = 2;
	else
		TRY(parse_rope(json, family, path, &config, err));
	TRY(parse_norm(json, family, path, &config.norm, err));
	config.names = family->names;
	config.gated_mlp = !family->plain_mlp;
	config.output_norms = family->output_norms;
	if (family->scaled_embeddings) config.embedding_scale = (float)sqrt((double)config.hidden);
	config.tied_embeddings = family->tied_embeddings;
	bool attention_bias = family->all_biases;
	config.mlp_bias = family->all_biases;
	if (family->all_biases) {
		TRY(json_get_bool(json, path, "enable_bias", &attention_bias, err));
		config.mlp_bias = attention_bias;
	}
	TRY(json_get_bool(json, path, "attention_bias", &attention_bias, err));
	TRY(json_get_bool(json, path, "mlp_bias", &config.mlp_bias, err));
	TRY(json_get_bool(json, path, "tie_word_embeddings", &config.tied_embeddings, err));
	config.qkv_bias = family->qkv_bias || attention_bias;
	config.o_bias = attention_bias;
	config.qk_norm = family->qk_norm;
	config.stored_fused = family->stored_fused;
	TRY(json_get_int(json, path, "bos_token_id", INT32_MIN, MAX_VOCAB - 1, &config.bos_token, err));
	if (config.bos_token < 0) config.bos_token = -1;
	*ret = config;
	return STATUS_OK;
}

enum status model_config_read(const struct place *model, struct warnings *warnings, struct model_config *ret, struct error *err)
{
	static const char name[] = "config.json";
	char *path = place_text(model, name), *text = NULL;
	size_t bytes;
	cJSON *json = NULL;
	if (!path) return error_set(err, STATUS_NO_MEMORY, "no memory to read a config");
	enum status status = place_slurp(model, name, MAX_CONFIG_BYTES, &text, &bytes, err);
	if (status == STATUS_OK && is_lfs_pointer(text, bytes)) status = lfs_pointer_error(path, err);
	if (status == STATUS_OK) status = json_parse_python(text, bytes, path, &json, err);
	if (status == STATUS_OK) status = model_config_parse(json, path, warnings, ret, err);
	free(text);
	cJSON_Delete(json);
	free(path);
	return status;
}
