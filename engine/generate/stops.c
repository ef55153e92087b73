#include "engine/generate/stops.h"

#include "base/json.h"

enum { MAX_BYTES = 16 << 20 };
static const char KEY[] = "eos_token_id";

static enum status add(struct stops *stops, const cJSON *id, const char *name, struct error *err)
{
	double value = cJSON_IsNumber(id) ? id->valuedouble : -1;
	if (!(value >= 0 && value <= INT32_MAX) || value != (int32_t)value)
		return error_set(err, STATUS_INVALID, "%s: '%s' must be a token's id, or a list of ids", name, KEY);
	if (stops->count == STOPS_MOST)
		return error_set(err, STATUS_UNSUPPORTED, "%s: '%s' has more than %d ids", name, KEY, STOPS_MOST);
	stops->ids[stops->count++] = (int32_t)value;
	return STATUS_OK;
}

/* Those that a file of the directory names; none where it is not there. */
static enum status read_file(const struct place *model, const char *name, struct stops *stops, struct error *err)
{
	bool there;
	cJSON *json;
	TRY(place_look(model, name, &there, err));
	if (!there) return STATUS_OK;
	TRY(json_read_place(model, name, MAX_BYTES, &json, err));
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(json, KEY),
		    *text = cJSON_GetObjectItemCaseSensitive(json, "text_config");
	if (!ids && text) ids = cJSON_GetObjectItemCaseSensitive(text, KEY);
	enum status status = STATUS_OK;
	if (cJSON_IsArray(ids))
		for (const cJSON *id = ids->child; id && status == STATUS_OK; id = id->next)
			status = add(stops, id, name, err);
	else if (ids && !cJSON_IsNull(ids))
		status = add(stops, ids, name, err);
	cJSON_Delete(json);
	return status;
}

enum status stops_read(const struct place *model, struct stops *ret, struct error *err)
{
	struct stops stops = {.count = 0};
	TRY(read_file(model, "generation_config.json", &stops, err));
	if (!stops.count) TRY(read_file(model, "config.json", &stops, err));
	*ret = stops;
	return STATUS_OK;
}

bool stops_has(const struct stops *stops, int32_t id)
{
	for (int i = 0; i < stops->count; i++)
		if (stops->ids[i] == id) return true;
	return false;
}
