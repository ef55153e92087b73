#include "engine/model/rope.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/model/members.h"

/* ---- config.json ------------------------------------------------------------------------------------------------------------ */

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

enum status rope_parse(const cJSON *json, const struct family *family, const char *path, struct model_config *config,
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

/* ---- tables ------------------------------------------------------------------------------------------------------------------ */

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
