#include "engine/model/packed_form.h"

#include <string.h>

#include "base/json.h"

/* The release of compressed-tensors whose form is written. */
static const char library_version[] = "0.15.0", format_name[] = "pack-quantized";

/* NULL where it is not there, null, false, or empty. */
static const cJSON *member(const cJSON *object, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	bool empty = !value || cJSON_IsNull(value) || cJSON_IsFalse(value) ||
		     ((cJSON_IsObject(value) || cJSON_IsArray(value)) && !value->child);
	return empty ? NULL : value;
}

static bool is_text(const cJSON *value, const char *text)
{
	return cJSON_IsString(value) && strcmp(value->valuestring, text) == 0;
}

bool packed_form_is_meant(const cJSON *quantization)
{
	const cJSON *method = member(quantization, "quant_method");
	return (is_text(method, "compressed-tensors") || is_text(method, "compressed_tensors")) &&
	       is_text(member(quantization, "format"), format_name);
}

static enum status refuse(const char *path, const char *key, const char *field, const char *what, struct error *err)
{
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: '%s' has a '%s' that is not supported: %s; use the model this one was made from, or dequantize it",
			 path, key, field, what);
}

/* What would change how weights are read, beside the groups. */
static enum status check_rest(const cJSON *quantization, const char *path, const char *key, struct error *err)
{
	const cJSON *sparsity = member(quantization, "sparsity_config"), *sparse_format = member(sparsity, "format");
	if (sparse_format && !is_text(sparse_format, "dense"))
		return refuse(path, key, "sparsity_config", "weights that are sparse besides", err);
	if (member(quantization, "kv_cache_scheme"))
		return refuse(path, key, "kv_cache_scheme", "keys and values that are quantized too", err);
	if (member(quantization, "transform_config")) return refuse(path, key, "transform_config", "weights that are rotated", err);
	return STATUS_OK;
}

/* The only member of an object. */
static const cJSON *only_member(const cJSON *object)
{
	return cJSON_IsObject(object) && object->child && !object->child->next ? object->child : NULL;
}

/* Which weights share a step. */
static enum status parse_strategy(const cJSON *weights, const char *path, const char *key, int64_t *ret, struct error *err)
{
	const int most = 1 << 24;
	const cJSON *strategy = member(weights, "strategy"), *size = member(weights, "group_size");
	double group = cJSON_IsNumber(size) ? size->valuedouble : -1;
	*ret = 0;
	if (is_text(strategy, "channel") || (!strategy && group == -1)) return STATUS_OK;
	if (strategy && !is_text(strategy, "group")) return refuse(path, key, "strategy", "it must be group or channel", err);
	if (!(group >= 1 && group <= most) || group != (double)(int)group)
		return refuse(path, key, "group_size", "it must be a whole number of weights", err);
	*ret = (int64_t)group;
	return STATUS_OK;
}

static enum status parse_weights(const cJSON *weights, const char *path, const char *key, struct packed_form *ret,
				 struct error *err)
{
	const cJSON *bits = member(weights, "num_bits"), *type = member(weights, "type"), *order = member(weights, "actorder");
	const cJSON *symmetric = cJSON_GetObjectItemCaseSensitive(weights, "symmetric");
	struct packed_form packing = {.symmetric = !cJSON_IsFalse(symmetric)};
	if (!cJSON_IsNumber(bits) || bits->valuedouble != (double)bits->valueint || !packed_form_has_bits(bits->valueint))
		return refuse(path, key, "num_bits", "it must be 4 or 8", err);
	packing.bits = bits->valueint;
	if (type && !is_text(type, "int")) return refuse(path, key, "type", "it must be int", err);
	if (member(weights, "dynamic")) return refuse(path, key, "dynamic", "weights have steps of their own", err);
	/* "weight", or "static": the order in which the codes were found, not the one in which they lie. */
	if (order && !is_text(order, "weight") && !is_text(order, "static"))
		return refuse(path, key, "actorder", "columns in another order than the weights'", err);
	TRY(parse_strategy(weights, path, key, &packing.group, err));
	*ret = packing;
	return STATUS_OK;
}

enum status packed_form_parse(const cJSON *quantization, const char *path, const char *key, struct packed_form *ret,
			      struct error *err)
{
	TRY(check_rest(quantization, path, key, err));
	const cJSON *group = only_member(member(quantization, "config_groups"));
	if (!group) return refuse(path, key, "config_groups", "there must be one, for all packed linears", err);
	const cJSON *format = member(group, "format"), *weights = member(group, "weights");
	if (format && !is_text(format, format_name))
		return refuse(path, key, "format", "of a group: another than the whole's", err);
	if (member(group, "input_activations"))
		return refuse(path, key, "input_activations", "activations that are quantized too", err);
	if (member(group, "output_activations"))
		return refuse(path, key, "output_activations", "activations that are quantized too", err);
	if (!cJSON_IsObject(weights)) return refuse(path, key, "weights", "it must be an object", err);
	return parse_weights(weights, path, key, ret, err);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static void add_weights(cJSON *group, const struct packed_form *packing)
{
	cJSON *weights = cJSON_AddObjectToObject(group, "weights");
	cJSON_AddNumberToObject(weights, "num_bits", packing->bits);
	cJSON_AddStringToObject(weights, "type", "int");
	cJSON_AddBoolToObject(weights, "symmetric", packing->symmetric);
	cJSON_AddStringToObject(weights, "strategy", packing->group ? "group" : "channel");
	if (packing->group)
		cJSON_AddNumberToObject(weights, "group_size", (double)packing->group);
	else
		cJSON_AddNullToObject(weights, "group_size");
	cJSON_AddBoolToObject(weights, "dynamic", false);
	cJSON_AddNullToObject(weights, "actorder");
	cJSON_AddStringToObject(weights, "observer", "minmax");
}

cJSON *packed_form_json(const struct packed_form *packing, cJSON *ignore)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "quant_method", "compressed-tensors");
	cJSON_AddStringToObject(json, "version", library_version);
	cJSON_AddStringToObject(json, "format", format_name);
	cJSON_AddStringToObject(json, "quantization_status", "compressed");
	cJSON_AddNullToObject(json, "kv_cache_scheme");
	json_add(json, "ignore", ignore);
	cJSON_AddObjectToObject(json, "sparsity_config");
	cJSON_AddObjectToObject(json, "transform_config");
	cJSON *group = cJSON_AddObjectToObject(cJSON_AddObjectToObject(json, "config_groups"), "group_0");
	cJSON *targets = cJSON_AddArrayToObject(group, "targets");
	json_add(targets, NULL, cJSON_CreateString("Linear"));
	cJSON_AddNullToObject(group, "input_activations");
	cJSON_AddNullToObject(group, "output_activations");
	cJSON_AddStringToObject(group, "format", format_name);
	add_weights(group, packing);
	return json;
}
