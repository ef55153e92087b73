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
#include "engine/model/members.h"
#include "engine/model/rope.h"

enum {
	MAX_CONFIG_BYTES = 4 << 20,
	MAX_COLUMNS = 65536, /* inputs of a linear layer: ranks are 16 bits wide */
	MAX_VOCAB = 1 << 24,
};

/* ---- the family -------------------------------------------------------------------------------------------------------------- */

static enum status refuse_family(const char *path, const char *type, const char *architecture, struct error *err)
{
	const char *why = "";
	for (const struct missing_family *m = missing_families; type && m->model_type; m++)
		if (strcmp(m->model_type, type) == 0) why = m->why;
	char *supported = NULL;
	size_t size;
	FILE *list = open_memstream(&supported, &size);
	for (const struct family *f = families; list && f->model_type; f++)
		fprintf(list, "%s%s (%s)", f == families ? "" : ", ", f->model_type, f->architecture);
	for (const struct wrapper *w = wrappers; list && w->model_type; w++)
		fprintf(list, ", %s (%s)", w->model_type, w->architecture);
	if (list) fclose(list);
	error_set(err, STATUS_UNSUPPORTED, "%s: model_type '%.64s' with architectures '%.64s' is not supported%s%s; supported: %s",
		  path, type ? type : "", architecture ? architecture : "", *why ? ", as besad lacks " : "", why,
		  supported ? supported : "");
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

static const struct wrapper *find_wrapper(const cJSON *json)
{
	const char *type = cJSON_GetStringValue(member(json, "model_type"));
	for (const struct wrapper *w = wrappers; type && w->model_type; w++)
		if (strcmp(w->model_type, type) == 0) return w;
	return NULL;
}

/* The description of the language model in a model of texts and images. */
static enum status text_config(const cJSON *json, const struct wrapper *wrapper, const char *path, const cJSON **ret,
			       struct error *err)
{
	const cJSON *text = member(json, "text_config"), *type = member(text, "model_type");
	if (!cJSON_IsObject(text)) return error_set(err, STATUS_INVALID, "%s: 'text_config' must be an object", path);
	for (size_t i = 0; wrapper->text[i]; i++)
		if (cJSON_IsString(type) && strcmp(type->valuestring, wrapper->text[i]) == 0) {
			*ret = text;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: the language model of a model_type '%s' must be a '%s'%s%s, and its 'model_type' says '%.64s'", path,
			 wrapper->model_type, wrapper->text[0], wrapper->text[1] ? " or " : "",
			 wrapper->text[1] ? wrapper->text[1] : "", cJSON_IsString(type) ? type->valuestring : "");
}

/* ---- sizes, activation, attention ------------------------------------------------------------------------------------------ */

static enum status parse_sizes(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
			       struct error *err)
{
	const struct size_names *names = family_sizes(family);
	const struct {
		const char *key;
		int64_t high;
		int64_t *to;
	} required[] = {
		{names->hidden, MAX_COLUMNS, &config->hidden},
		{family->intermediate_key ? family->intermediate_key : "intermediate_size", MAX_COLUMNS, &config->intermediate},
		{names->layers, MODEL_MAX_LAYERS, &config->layers},
		{names->heads, MAX_COLUMNS, &config->heads},
		{"vocab_size", MAX_VOCAB, &config->vocab},
	};
	config->heads = family->heads;
	config->vocab = family->vocab;
	for (size_t i = 0; i < sizeof required / sizeof *required; i++) {
		if (!member(json, required[i].key) && !*required[i].to)
			return error_set(err, STATUS_INVALID, "%s: '%s' is missing", path, required[i].key);
		TRY(json_get_int(json, path, required[i].key, 1, required[i].high, required[i].to, err));
		if (i == 0) config->intermediate = family->times_hidden * config->hidden;
	}
	if (config->intermediate > MAX_COLUMNS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: an MLP of %" PRId64 " times '%s' is wider than %d columns", path,
				 family->times_hidden, names->hidden, MAX_COLUMNS);
	/* A null is as good as no field but for num_key_value_heads, where transformers takes it for "as many as heads". */
	config->kv_heads = family->kv_heads && !given(json, "num_key_value_heads") ? family->kv_heads : config->heads;
	config->max_positions = family->max_positions;
	bool heads_alike = family->learned_positions || family->names->qkv; /* and the hidden size is theirs together */
	if (!heads_alike) TRY(json_get_int(json, path, "num_key_value_heads", 1, MAX_COLUMNS, &config->kv_heads, err));
	TRY(json_get_int(json, path, names->positions, 1, MAX_POSITIONS, &config->max_positions, err));
	if (!given(json, "head_dim")) config->head_dim = family->head_dim;
	if (!heads_alike) TRY(json_get_int(json, path, "head_dim", 1, MAX_COLUMNS, &config->head_dim, err));
	if (config->heads % config->kv_heads != 0)
		return error_set(err, STATUS_INVALID, "%s: '%s' %" PRId64 " is no multiple of 'num_key_value_heads' %" PRId64, path,
				 names->heads, config->heads, config->kv_heads);
	if (config->head_dim == 0) {
		if (config->hidden % config->heads != 0)
			return error_set(err, STATUS_INVALID, "%s: '%s' %" PRId64 " is no multiple of '%s' %" PRId64, path,
					 names->hidden, config->hidden, names->heads, config->heads);
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
	if (!family->shared_key) return STATUS_OK;
	if (experts == ROUTE_MAX_EXPERTS)
		return error_set(err, STATUS_UNSUPPORTED, "%s: %" PRId64 " experts and a shared one are more than %d", path,
				 experts, ROUTE_MAX_EXPERTS);
	if (!member(json, family->shared_key))
		return error_set(err, STATUS_INVALID, "%s: '%s' is missing", path, family->shared_key);
	return json_get_int(json, path, family->shared_key, 1, MAX_COLUMNS, &config->shared_intermediate, err);
}

static enum status parse_activation(const cJSON *json, const struct family *family, const char *path, enum activation_kind *ret,
				    struct error *err)
{
	static const struct {
		const char *name;
		enum activation_kind kind;
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
	if (family->gelu_is_tanh && strcmp(name, "gelu") == 0) name = "gelu_pytorch_tanh";
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i].name, name) == 0) {
			*ret = known[i].kind;
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

/* gpt-oss's activation; its fields as transformers reads them. */
static enum status parse_clamped_swiglu(const cJSON *json, const struct family *family, const char *path,
					struct activation *activation, struct error *err)
{
	double alpha, limit;
	if (activation->kind != ACTIVATION_SILU)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'hidden_act' must be silu for model_type '%s'", path,
				 family->model_type);
	TRY(parse_positive(json, path, "swiglu_alpha", 1.702, &alpha, err));
	TRY(parse_positive(json, path, "swiglu_limit", 7, &limit, err));
	*activation = (struct activation){ACTIVATION_CLAMPED_SWIGLU, (float)alpha, (float)limit};
	if (activation->alpha > 0 && activation->limit > 0) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: 'swiglu_alpha' and 'swiglu_limit' must be numbers, and not so small as to be 0",
			 path);
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

/* The multipliers of Granite: its logits are divided, the rest is multiplied. */
static enum status parse_multipliers(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				     struct error *err)
{
	double embedding, attention, residual, logits;
	if (!family->multipliers) return STATUS_OK;
	TRY(parse_positive(json, path, "embedding_multiplier", 1, &embedding, err));
	TRY(parse_positive(json, path, "attention_multiplier", 1, &attention, err));
	TRY(parse_positive(json, path, "residual_multiplier", 1, &residual, err));
	TRY(parse_positive(json, path, "logits_scaling", 1, &logits, err));
	if (!(embedding && attention && residual && logits))
		return error_set(err, STATUS_INVALID, "%s: a multiplier is null, and must be a number", path);
	config->embedding_scale = (float)embedding;
	config->attention_scale = (float)attention;
	config->residual_scale = (float)residual;
	config->logit_scale = (float)(1 / logits);
	return STATUS_OK;
}

static enum status parse_logit_scale(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				     struct error *err)
{
	double scale;
	if (!family->logit_scale) return STATUS_OK;
	TRY(parse_positive(json, path, "logit_scale", family->logit_scale, &scale, err));
	if (!scale) return error_set(err, STATUS_INVALID, "%s: 'logit_scale' is null, and must be a number", path);
	config->logit_scale = (float)scale;
	return STATUS_OK;
}

static void set_bit(uint8_t bits[MODEL_MAX_LAYERS / 8], int64_t layer, bool on)
{
	uint8_t bit = (uint8_t)(1 << layer % 8), *byte = &bits[layer / 8];
	*byte = on ? *byte | bit : *byte & (uint8_t)~bit;
}

/* Which layers turn q and k: `no_rope_layers` has a number for each that is 0 where a layer does not, and may have more. */
static enum status parse_still_layers(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
				      struct error *err)
{
	int64_t interval = family->still_interval;
	if (!interval) return STATUS_OK;
	const cJSON *layers = member(json, "no_rope_layers"), *turns;
	int64_t layer = 0;
	TRY(json_get_int(json, path, "no_rope_layer_interval", 1, INT32_MAX, &interval, err));
	for (layer = 0; layer < config->layers; layer++)
		set_bit(config->still_layers, layer, (layer + 1) % interval == 0);
	if (!layers) return STATUS_OK;
	if (!cJSON_IsArray(layers) || cJSON_GetArraySize(layers) < config->layers)
		return error_set(err, STATUS_INVALID,
				 "%s: 'no_rope_layers' must be a list of a number for each of %" PRId64 " layers", path,
				 config->layers);
	layer = 0;
	cJSON_ArrayForEach(turns, layers)
	{
		if (!cJSON_IsNumber(turns) || (turns->valuedouble != 0 && turns->valuedouble != 1))
			return error_set(err, STATUS_INVALID, "%s: 'no_rope_layers' must be a list of 0 and 1", path);
		if (layer < config->layers) set_bit(config->still_layers, layer++, turns->valuedouble == 0);
	}
	return STATUS_OK;
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
		set_bit(config->full_layers, layer++, full);
		full_layers += full;
	}
	bool heeded = family->window == WINDOW_WHEN_SWITCHED_ON || family->window == WINDOW_WHEN_SWITCHED_ON_IN_TURN ||
		      family->window == WINDOW_BY_PATTERN || family->window == WINDOW_WHERE_STILL;
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
	int64_t window = given(json, "sliding_window") ? 0 : family->sliding_window, window_layers = 28;
	/* A Qwen2-MoE is saved with 0 where it is not switched on. */
	TRY(json_get_int(json, path, "sliding_window", window_is_switched(family->window) ? 0 : 1, MAX_POSITIONS, &window, err));
	if (window_is_switched(family->window)) TRY(json_get_bool(json, path, "use_sliding_window", &on, err));
	if (family->window == WINDOW_WHEN_SWITCHED_ON || family->window == WINDOW_WHEN_SWITCHED_ON_IN_TURN)
		TRY(json_get_int(json, path, "max_window_layers", 0, INT32_MAX, &window_layers, err));
	if (family->heeds_window_pattern)
		TRY(json_get_int(json, path, "sliding_window_pattern", 1, MODEL_MAX_LAYERS, &pattern, err));
	config->sliding_window = on ? window : 0;
	for (int64_t layer = 0; layer < config->layers; layer++) {
		bool full = false;
		if (family->window == WINDOW_WHEN_SWITCHED_ON) full = layer < window_layers;
		if (family->window == WINDOW_WHEN_SWITCHED_ON_IN_TURN) full = layer % 2 == 1 || layer >= window_layers;
		if (family->window == WINDOW_WHERE_STILL) full = !layer_bit(config->still_layers, layer);
		if (family->window == WINDOW_BY_PATTERN) full = (layer + 1) % pattern == 0;
		set_bit(config->full_layers, layer, full);
	}
	const cJSON *types = member(json, "layer_types");
	if (types) TRY(parse_layer_types(types, family, path, config, err));
	bool slides = false;
	for (int layer = 0; layer < config->layers; layer++) {
		slides = slides || model_window(config, layer) > 0;
		if (family->full_are_still) set_bit(config->still_layers, layer, model_window(config, layer) == 0);
	}
	if (!slides) config->sliding_window = 0;
	return STATUS_OK;
}

static enum status parse_norm(const cJSON *json, const struct family *family, const char *path, struct norm *ret, struct error *err)
{
	double eps = family->rms_norm_eps;
	const char *key = family->norm_eps_key ? family->norm_eps_key : "rms_norm_eps";
	*ret = (struct norm){.kind = family->layer_norm ? NORM_LAYER : NORM_RMS, .weight_offset = family->norm_offset, .groups = 1};
	if (family->layer_norm && !family->norm_eps_key) {
		ret->eps = 1e-5f;
		return STATUS_OK;
	}
	TRY(json_get_double(json, path, key, &eps, err));
	if (!(eps > 0 && eps <= 1)) return error_set(err, STATUS_INVALID, "%s: '%s' must be above 0 and at most 1", path, key);
	ret->eps = (float)eps;
	return STATUS_OK;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

enum status model_config_parse(const cJSON *json, const char *path, struct warnings *warnings, struct model_config *ret,
			       struct error *err)
{
	struct model_config config = {.norm = {.kind = NORM_RMS, .groups = 1},
				      .position_offset = -1,
				      .embedding_scale = 1,
				      .residual_scale = 1,
				      .logit_scale = 1,
				      .bos_token = -1};
	const struct family *family = NULL;
	if (!cJSON_IsObject(json)) return error_set(err, STATUS_INVALID, "%s: not a JSON object", path);
	const struct wrapper *wrapper = find_wrapper(json);
	const cJSON *whole = json;
	if (wrapper) {
		TRY(config_fields_check_quantization(json, path, &config.packing, err));
		TRY(text_config(json, wrapper, path, &json, err));
	}
	config.multimodal = wrapper != NULL;
	TRY(find_family(json, path, &family, err));
	snprintf(config.family, sizeof config.family, "%s", family->model_type);
	TRY(config_fields_check(json, family, path, wrapper ? NULL : &config.packing, warnings, err));
	TRY(parse_sizes(json, family, path, &config, err));
	TRY(parse_experts(json, family, path, &config, err));
	TRY(parse_activation(json, family, path, &config.activation.kind, err));
	if (family->paired_experts) TRY(parse_clamped_swiglu(json, family, path, &config.activation, err));
	if (family->says_rope && !member(json, "rope_parameters") && !member(json, "rope_scaling"))
		return error_set(err, STATUS_INVALID, "%s: has neither 'rope_parameters' nor 'rope_scaling'", path);
	TRY(parse_capping(json, family, path, &config, err));
	TRY(parse_multipliers(json, family, path, &config, err));
	TRY(parse_logit_scale(json, family, path, &config, err));
	TRY(parse_still_layers(json, family, path, &config, err));
	TRY(parse_window(json, family, path, &config, err));
	if (family->learned_positions)
		config.position_offset = family->first_position;
	else
		TRY(rope_parse(json, family, path, &config, err));
	TRY(parse_norm(json, family, path, &config.norm, err));
	config.names = family->names;
	config.norm_bias = family->layer_norm && !family->unbiased_norm;
	config.head_bias = family->head_bias;
	config.parallel = family->parallel;
	if (family->parallel_key) TRY(json_get_bool(json, path, family->parallel_key, &config.parallel, err));
	if (config.parallel && family->parallel_names) config.names = family->parallel_names;
	config.turns_neighbours = family->turns_neighbours;
	config.gated_mlp = !family->plain_mlp;
	config.output_norms = family->output_norms;
	if (family->scaled_embeddings) config.embedding_scale = (float)sqrt((double)config.hidden);
	config.tied_embeddings = family->tied_embeddings;
	bool attention_bias = family->all_biases;
	config.mlp_bias = family->all_biases && !family->paired_experts;
	if (family->bias_key) {
		TRY(json_get_bool(json, path, family->bias_key, &attention_bias, err));
		config.mlp_bias = attention_bias;
	}
	if (family->attention_bias) TRY(json_get_bool(json, path, "attention_bias", &attention_bias, err));
	TRY(json_get_bool(json, path, "mlp_bias", &config.mlp_bias, err));
	if (wrapper) config.tied_embeddings = true;
	TRY(json_get_bool(whole, path, "tie_word_embeddings", &config.tied_embeddings, err));
	config.qkv_bias = family->qkv_bias || attention_bias;
	if (family->qkv_bias_key) TRY(json_get_bool(json, path, family->qkv_bias_key, &config.qkv_bias, err));
	config.o_bias = attention_bias;
	config.qk_norm = family->qk_norm;
	config.qk_norm_whole = family->qk_norm_whole;
	if (family->qk_norm_key) TRY(json_get_bool(json, path, family->qk_norm_key, &config.qk_norm, err));
	config.qk_norm_apart = family->qk_norm_key && config.qk_norm;
	config.paired_experts = family->paired_experts;
	config.stored_qkv = family->stored_qkv;
	config.stored_gate_up = family->stored_gate_up;
	config.qkv_by_head = family->qkv_by_head;
	config.transposed = family->transposed;
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
