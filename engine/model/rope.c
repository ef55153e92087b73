#include "engine/model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/model/members.h"

/* ---- config.json ------------------------------------------------------------------------------------------------------------ */

static enum status parse_rope_kind(const cJSON *rope, const struct family *family, const char *path, enum rope_kind *ret,
				   struct error *err)
{
	static const struct {
		const char *name;
		enum rope_kind kind;
	} known[] = {{"default", ROPE_DEFAULT}, {"linear", ROPE_LINEAR}, {"dynamic", ROPE_DYNAMIC},
		     {"llama3", ROPE_LLAMA3},   {"yarn", ROPE_YARN},     {"longrope", ROPE_LONG}};
	const char *name = NULL;
	TRY(json_get_string(rope, path, "type", &name, err));
	TRY(json_get_string(rope, path, "rope_type", &name, err));
	if (!name) name = "default";
	/* Phi-3's longrope was called so at first. */
	if (family->original_positions && (strcmp(name, "su") == 0 || strcmp(name, "yarn") == 0)) name = "longrope";
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i].name, name) == 0) {
			*ret = known[i].kind;
			return STATUS_OK;
		}
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: 'rope_type' '%.64s' is not supported; default, linear, dynamic, llama3, yarn and longrope are", path,
			 name);
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

/* The same, or `value` where it is not there. */
static enum status optional_number(const cJSON *rope, const char *path, const char *key, double value, double *ret,
				   struct error *err)
{
	*ret = value;
	return member(rope, key) ? rope_number(rope, path, key, 0, 1e6, ret, err) : STATUS_OK;
}

/* How many of a head's columns turn. */
static enum status set_rotary(const struct model_config *config, const char *path, double part, struct rope *rope,
			      struct error *err)
{
	rope->rotary = (int)((double)config->head_dim * part);
	if (rope->rotary < 2 || rope->rotary % 2 != 0)
		return error_set(err, STATUS_INVALID,
				 "%s: 'partial_rotary_factor' %g of a head size of %d is no even number of columns", path, part,
				 (int)config->head_dim);
	return STATUS_OK;
}

static enum status parse_yarn(const cJSON *object, const char *path, struct rope *rope, struct error *err)
{
	double mscale, all, factor = rope->factor, attention;
	TRY(optional_number(object, path, "beta_fast", 32, &rope->beta_fast, err));
	TRY(optional_number(object, path, "beta_slow", 1, &rope->beta_slow, err));
	TRY(optional_number(object, path, "mscale", 0, &mscale, err));
	TRY(optional_number(object, path, "mscale_all_dim", 0, &all, err));
	rope->truncate = true;
	TRY(json_get_bool(object, path, "truncate", &rope->truncate, err));
	if (rope->beta_fast == 0) rope->beta_fast = 32;
	if (rope->beta_slow == 0) rope->beta_slow = 1;
	if (rope->theta <= 1) return error_set(err, STATUS_INVALID, "%s: yarn needs a 'rope_theta' above 1", path);
	double grown = factor > 1 ? 0.1 * log(factor) : 0;
	attention = mscale != 0 && all != 0 ? (grown * mscale + 1) / (grown * all + 1) : grown + 1;
	return optional_number(object, path, "attention_factor", attention, &rope->attention, err);
}

static enum status parse_factors(const cJSON *object, const char *path, const char *key, const struct rope *rope,
				 double ret[ROPE_MAX_FACTORS], struct error *err)
{
	const cJSON *list = member(object, key), *factor;
	int pairs = rope->rotary / 2, i = 0;
	if (!cJSON_IsArray(list) || pairs > ROPE_MAX_FACTORS || cJSON_GetArraySize(list) != pairs)
		return error_set(err, STATUS_INVALID,
				 "%s: '%s' must be a list of %d numbers, one for each pair of a head's columns, at most %d", path,
				 key, pairs, ROPE_MAX_FACTORS);
	cJSON_ArrayForEach(factor, list)
	{
		if (!cJSON_IsNumber(factor) || !(factor->valuedouble >= 1e-6 && factor->valuedouble <= 1e6))
			return error_set(err, STATUS_INVALID, "%s: '%s' must be a list of numbers from 1e-6 to 1e6", path, key);
		ret[i++] = factor->valuedouble;
	}
	return STATUS_OK;
}

static enum status parse_longrope(const cJSON *object, const char *path, const struct model_config *config, struct rope *rope,
				  struct error *err)
{
	double original = (double)rope->original_max_positions, attention = 1;
	TRY(optional_number(object, path, "factor", (double)config->max_positions / original, &rope->factor, err));
	TRY(parse_factors(object, path, "short_factor", rope, rope->short_factor, err));
	TRY(parse_factors(object, path, "long_factor", rope, rope->long_factor, err));
	if (rope->factor > 1 && original > 1) attention = sqrt(1 + log(rope->factor) / log(original));
	return optional_number(object, path, "attention_factor", attention, &rope->attention, err);
}

/* What an object says: `rope_scaling`, `rope_parameters`, or the part of the latter for one type of layer. */
static enum status parse_rope_object(const cJSON *object, const struct family *family, const char *path,
				     const struct model_config *config, struct rope *rope, struct error *err)
{
	static const char *const known[] = {"rope_type",
					    "type",
					    "rope_theta",
					    "factor",
					    "low_freq_factor",
					    "high_freq_factor",
					    "original_max_position_embeddings",
					    "finetuned",
					    "partial_rotary_factor",
					    "beta_fast",
					    "beta_slow",
					    "mscale",
					    "mscale_all_dim",
					    "attention_factor",
					    "truncate",
					    "short_factor",
					    "long_factor"};
	const cJSON *field;
	if (!cJSON_IsObject(object)) return error_set(err, STATUS_INVALID, "%s: '%s' must be an object", path, object->string);
	cJSON_ArrayForEach(field, object)
	{
		bool found = false;
		for (size_t i = 0; i < sizeof known / sizeof *known && !found; i++)
			found = strcmp(known[i], field->string) == 0;
		if (family->scaled_queries &&
		    (strcmp(field->string, "llama_4_scaling_beta") == 0 || strcmp(field->string, "max_position_embeddings") == 0))
			found = true;
		if (!found && !cJSON_IsNull(field))
			return error_set(err, STATUS_UNSUPPORTED, "%s: '%.64s' in '%s' is not supported", path, field->string,
					 object->string);
	}
	double rotary = 1;
	TRY(json_get_double(object, path, "partial_rotary_factor", &rotary, err));
	if (rotary != 1 && !family->partial_rotary)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'partial_rotary_factor' is set, which is not supported", path);
	if (member(object, "partial_rotary_factor")) TRY(set_rotary(config, path, rotary, rope, err));
	if (member(object, "rope_theta")) TRY(rope_number(object, path, "rope_theta", 1, 1e15, &rope->theta, err));
	TRY(parse_rope_kind(object, family, path, &rope->kind, err));
	if (family->scaled_queries) TRY(optional_number(object, path, "llama_4_scaling_beta", 0, &rope->query_beta, err));
	if (!family->original_positions)
		TRY(json_get_int(object, path, "original_max_position_embeddings", 1, MAX_POSITIONS, &rope->original_max_positions,
				 err));
	if (rope->kind == ROPE_DEFAULT) return STATUS_OK;
	if (rope->kind == ROPE_LONG) return parse_longrope(object, path, config, rope, err);

	TRY(rope_number(object, path, "factor", 1e-6, 1e6, &rope->factor, err));
	if (rope->kind == ROPE_DYNAMIC && config->head_dim == 2)
		return error_set(err, STATUS_UNSUPPORTED, "%s: dynamic rope scaling needs a head size above 2", path);
	if (rope->kind == ROPE_YARN) return parse_yarn(object, path, rope, err);
	if (rope->kind != ROPE_LLAMA3) return STATUS_OK;
	TRY(rope_number(object, path, "low_freq_factor", 1e-6, 1e6, &rope->low_freq_factor, err));
	TRY(rope_number(object, path, "high_freq_factor", 1e-6, 1e6, &rope->high_freq_factor, err));
	if (rope->high_freq_factor <= rope->low_freq_factor)
		return error_set(err, STATUS_INVALID, "%s: 'high_freq_factor' must be above 'low_freq_factor'", path);
	return STATUS_OK;
}

static bool same_rope(const struct rope *a, const struct rope *b)
{
	if (a->kind != b->kind || a->theta != b->theta || a->rotary != b->rotary || a->attention != b->attention ||
	    a->query_beta != b->query_beta)
		return false;
	if (a->kind == ROPE_YARN && (a->beta_fast != b->beta_fast || a->beta_slow != b->beta_slow || a->truncate != b->truncate ||
				     a->original_max_positions != b->original_max_positions))
		return false;
	if (a->kind == ROPE_LONG && (memcmp(a->short_factor, b->short_factor, sizeof a->short_factor) != 0 ||
				     memcmp(a->long_factor, b->long_factor, sizeof a->long_factor) != 0))
		return false;
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
static enum status parse_rope_by_type(const cJSON *parameters, const struct family *family, const char *path,
				      struct model_config *config, struct error *err)
{
	const cJSON *part;
	cJSON_ArrayForEach(part, parameters)
	{
		bool full = strcmp(part->string, "full_attention") == 0;
		if (!full && strcmp(part->string, "sliding_attention") != 0)
			return error_set(err, STATUS_UNSUPPORTED, "%s: '%.64s' in '%s' is not supported", path, part->string,
					 parameters->string);
		if (!cJSON_IsNull(part))
			TRY(parse_rope_object(part, family, path, config, full ? &config->rope : &config->local_rope, err));
	}
	return STATUS_OK;
}

/* An object that is there and says something; NULL otherwise. */
static const cJSON *rope_object(const cJSON *json, const char *key)
{
	const cJSON *object = member(json, key);
	return cJSON_IsObject(object) && !object->child ? NULL : object;
}

enum status rope_parse(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
		       struct error *err)
{
	const cJSON *scaling = rope_object(json, "rope_scaling"), *parameters = rope_object(json, "rope_parameters");
	struct rope *rope = &config->rope;
	const char *base = family->theta_key ? family->theta_key : "rope_theta";
	*rope = (struct rope){.kind = ROPE_DEFAULT,
			      .theta = family->rope_theta,
			      .factor = 1,
			      .rotary = (int)config->head_dim,
			      .attention = 1,
			      .original_max_positions = config->max_positions};
	if (family->original_positions) {
		rope->original_max_positions = family->original_positions;
		TRY(json_get_int(json, path, "original_max_position_embeddings", 1, MAX_POSITIONS, &rope->original_max_positions,
				 err));
	}
	if (family->partial_rotary) {
		double part = family->partial_rotary;
		const char *key = family->rotary_key ? family->rotary_key : "partial_rotary_factor";
		TRY(json_get_double(json, path, key, &part, err));
		if (!(part > 0 && part <= 1))
			return error_set(err, STATUS_INVALID, "%s: '%s' must be above 0 and at most 1", path, key);
		TRY(set_rotary(config, path, part, rope, err));
	}
	if (family->scaled_queries && !scaling && !parameters)
		return error_set(err, STATUS_UNSUPPORTED, "%s: 'rope_parameters' is missing, which model_type '%s' needs", path,
				 family->model_type);
	if (family->rope_local_base_freq) {
		config->local_rope = *rope;
		config->local_rope.theta = family->rope_local_base_freq;
		if (member(json, "rope_local_base_freq"))
			TRY(rope_number(json, path, "rope_local_base_freq", 1, 1e15, &config->local_rope.theta, err));
	}
	if (member(json, base)) TRY(rope_number(json, path, base, 1, 1e15, &rope->theta, err));
	struct rope plain = *rope;
	bool by_type = family->rope_local_base_freq && cJSON_IsObject(parameters);
	if (by_type)
		TRY(parse_rope_by_type(parameters, family, path, config, err));
	else if (parameters)
		TRY(parse_rope_object(parameters, family, path, config, rope, err));
	else if (scaling)
		TRY(parse_rope_object(scaling, family, path, config, rope, err));
	if (scaling && parameters) {
		/* transformers goes by rope_scaling, and by the base beside it, not by that in rope_parameters. */
		TRY(parse_rope_object(scaling, family, path, config, &plain, err));
		if (!same_rope(&plain, rope))
			return error_set(err, STATUS_INVALID,
					 "%s: 'rope_scaling' (with 'rope_theta' %g) and 'rope_parameters' (%g) contradict each "
					 "other; remove one",
					 path, plain.theta, rope->theta);
	}
	TRY(check_theta(json, path, base, rope->theta, parameters ? "rope_parameters" : "rope_scaling", err));
	if (!family->rope_local_base_freq) return STATUS_OK;
	return check_theta(json, path, "rope_local_base_freq", config->local_rope.theta, "rope_parameters", err);
}

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

/* The pair that makes so many turns over the original context. */
static double yarn_pair(const struct rope *rope, double turns)
{
	const double pi = 3.14159265358979323846;
	return rope->rotary * log((double)rope->original_max_positions / (turns * 2 * pi)) / (2 * log(rope->theta));
}

/* How much of pair i is slowed down by the factor, from 0 to 1. */
static double yarn_slowed(const struct rope *rope, int i)
{
	double low = yarn_pair(rope, rope->beta_fast), high = yarn_pair(rope, rope->beta_slow);
	if (rope->truncate) {
		low = floor(low);
		high = ceil(high);
	}
	low = fmax(low, 0);
	high = fmin(high, rope->rotary - 1);
	if (low == high) high += 0.001; /* as transformers does */
	return fmin(fmax((i - low) / (high - low), 0), 1);
}

/* The angle per position of pair i (transformers, modeling_rope_utils.py). */
static double rope_frequency(const struct rope *rope, double theta, int64_t positions, int i)
{
	const double pi = 3.14159265358979323846;
	double frequency = pow(theta, -2.0 * i / rope->rotary);
	if (rope->kind == ROPE_LONG)
		return frequency / (positions > rope->original_max_positions ? rope->long_factor : rope->short_factor)[i];
	if (rope->kind == ROPE_YARN) {
		double slowed = yarn_slowed(rope, i);
		return slowed * frequency / rope->factor + (1 - slowed) * frequency;
	}
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
		double frequency = rope_frequency(rope, theta, positions, i);
		for (int64_t t = 0; t < positions; t++) {
			table[t * rotary + i] = (float)(rope->attention * cos((double)t * frequency));
			table[t * rotary + half + i] = (float)(rope->attention * sin((double)t * frequency));
		}
	}
	return table;
}

bool rope_scales_queries(const struct rope *rope, int64_t positions)
{
	return rope->query_beta != 0 && positions > rope->original_max_positions;
}

float *rope_query_table(const struct model_config *config, const struct rope *rope, int64_t positions)
{
	float *table = model_rope_table(config, rope, positions);
	for (int64_t t = 0; table && t < positions; t++) {
		double scale = 1 + rope->query_beta * log(1 + floor((double)t / (double)rope->original_max_positions));
		for (int i = 0; i < rope->rotary; i++)
			table[t * rope->rotary + i] *= (float)scale;
	}
	return table;
}
