#include "engine/text/post_processor.h"

#include <string.h>

#include "engine/text/component.h"

/* The one id of a TemplateProcessing's special token `name`. */
static enum status template_id(const cJSON *json, const char *what, const char *name, int32_t *ret, struct error *err)
{
	const cJSON *tokens = cJSON_GetObjectItemCaseSensitive(json, "special_tokens");
	const cJSON *token = cJSON_GetObjectItemCaseSensitive(tokens, name);
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(token, "ids");
	const cJSON *id = cJSON_IsArray(ids) ? ids->child : NULL;
	if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < INT32_MAX))
		return error_set(err, STATUS_INVALID, "%s: special_tokens has no id for '%.100s'", what, name);
	if (id->next) return error_set(err, STATUS_UNSUPPORTED, "%s: '%.100s' stands for several ids", what, name);
	*ret = (int32_t)id->valuedouble;
	return STATUS_OK;
}

/* What stands in `single` before the text, at most one token. */
static enum status parse_template(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	static const char *const keys[] = {"single", "pair", "special_tokens", NULL};
	const cJSON *single, *piece;
	TRY(component_only(json, what, keys, err));
	TRY(component_array(json, what, "single", &single, err));
	cJSON_ArrayForEach(piece, single)
	{
		const cJSON *special = cJSON_GetObjectItemCaseSensitive(piece, "SpecialToken");
		if (cJSON_IsObject(cJSON_GetObjectItemCaseSensitive(piece, "Sequence"))) return STATUS_OK;
		if (!cJSON_IsObject(special)) break;
		if (*bos >= 0) return error_set(err, STATUS_UNSUPPORTED, "%s: several tokens in front of the text", what);
		const char *name;
		TRY(component_string(special, what, "id", &name, err));
		TRY(template_id(json, what, name, bos, err));
	}
	return error_set(err, STATUS_INVALID, "%s: 'single' must hold special tokens and the Sequence", what);
}

/* RobertaProcessing and BertProcessing. */
static enum status parse_cls(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	const cJSON *pair = cJSON_GetObjectItemCaseSensitive(json, "cls");
	const cJSON *id = cJSON_IsArray(pair) && pair->child ? pair->child->next : NULL;
	if (!cJSON_IsNumber(id) || !(id->valuedouble >= 0 && id->valuedouble < INT32_MAX))
		return error_set(err, STATUS_INVALID, "%s: 'cls' must be a token and its id", what);
	if (*bos >= 0) return error_set(err, STATUS_UNSUPPORTED, "%s: several tokens in front of the text", what);
	*bos = (int32_t)id->valuedouble;
	return STATUS_OK;
}

static enum status parse_any(const cJSON *json, const char *what, int32_t *bos, struct error *err)
{
	const char *type;
	TRY(component_type(json, what, &type, err));
	if (strcmp(type, "ByteLevel") == 0) return STATUS_OK; /* about offsets */
	if (strcmp(type, "TemplateProcessing") == 0) return parse_template(json, what, bos, err);
	if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) return parse_cls(json, what, bos, err);
	if (strcmp(type, "Sequence") != 0)
		return error_set(err, STATUS_UNSUPPORTED, "%s: the type '%.100s' is not supported", what, type);
	const cJSON *array, *child;
	int i = 0;
	TRY(component_array(json, what, "processors", &array, err));
	cJSON_ArrayForEach(child, array)
	{
		struct component_path path = component_path("%s.processors[%d]", what, i++);
		TRY(parse_any(child, path.text, bos, err));
	}
	return STATUS_OK;
}

enum status post_processor_parse(const cJSON *json, const char *what, int32_t *ret_bos, struct error *err)
{
	int32_t bos = -1;
	struct component_path path = component_path("%s: post_processor", what);
	if (json && !cJSON_IsNull(json)) TRY(parse_any(json, path.text, &bos, err));
	*ret_bos = bos;
	return STATUS_OK;
}
