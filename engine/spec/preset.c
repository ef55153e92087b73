#include "engine/spec/preset.h"

#include <string.h>

/* In the manner of what a client sends. Costs are in runs of BESA on 128 sequences (docs/decisions.md says what they were chosen
 * by). */
static const struct {
	const char *name, *fields;
} presets[] = {
	{"fast", "{\"method\":\"admm\"}"},
	{"balanced", "{\"method\":\"admm\",\"admm\":{\"rates\":\"layer\"},\"refit\":{\"method\":\"block\"}}"},
	{"best", "{\"method\":\"admm\",\"admm\":{\"rates\":\"layer\"},\"refit\":{\"method\":\"global\"},"
		 "\"calibration\":{\"samples\":512}}"},
	{"paper", "{\"method\":\"besa\",\"besa\":{\"safeguards\":false}}"},
};
enum { PRESETS = sizeof presets / sizeof *presets, PRESET_STANDARD = 1 };

const char *const preset_names[] = {"fast", "balanced", "best", "paper", NULL};

void preset_parse(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec *spec = at;
	(void)parser;
	spec->preset = fields_choice(fields, row->key, preset_names, PRESET_NONE);
}

/* Puts into `to` what it has not, member by member; false without memory. What is no object there is the client's, and wrong. */
static bool fill(cJSON *to, const cJSON *from)
{
	const cJSON *item;
	cJSON_ArrayForEach(item, from)
	{
		cJSON *there = cJSON_GetObjectItemCaseSensitive(to, item->string);
		if (cJSON_IsObject(there) && cJSON_IsObject(item)) {
			if (!fill(there, item)) return false;
		} else if (!there || cJSON_IsNull(there)) {
			cJSON *copy = cJSON_Duplicate(item, true);
			cJSON_DeleteItemFromObjectCaseSensitive(to, item->string);
			if (!copy || !cJSON_AddItemToObject(to, item->string, copy)) {
				cJSON_Delete(copy);
				return false;
			}
		}
	}
	return true;
}

/* The index of the client's preset, or of that which it gets; PRESET_NONE for none, or for one that is wrong. */
static int preset_of(const struct fields *client)
{
	const cJSON *preset = fields_get(client, "preset");
	const char *name = cJSON_GetStringValue(preset);
	if (preset && fields_get(client, "method")) {
		fields_problem(client, "preset", "and 'method' exclude each other: a preset is a method and what goes with it");
		return PRESET_NONE;
	}
	for (int i = 0; name && i < PRESETS; i++)
		if (strcmp(name, presets[i].name) == 0) return i;
	return preset || fields_get(client, "method") || fields_get(client, "besa") ? PRESET_NONE : PRESET_STANDARD;
}

/* A tune of the whole model goes through rounding to the nearest alone: where weights are rounded with feedback it is the refit of
 * the blocks, which comes before. */
static bool heed_quantization(const struct fields *client, cJSON *of_preset)
{
	cJSON *refit = cJSON_GetObjectItemCaseSensitive(of_preset, "refit");
	const char *method = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(refit, "method"));
	const cJSON *rounding = cJSON_GetObjectItemCaseSensitive(fields_get(client, "quantization"), "rounding");
	if (!cJSON_IsString(rounding) || strcmp(rounding->valuestring, "feedback") != 0) return true;
	if (!method || strcmp(method, "global") != 0) return true;
	return cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(refit, "method"), "block");
}

cJSON *preset_fill(const struct fields *client)
{
	cJSON *filled = cJSON_Duplicate(client->object, true), *of_preset;
	int preset = preset_of(client);
	if (!filled || preset == PRESET_NONE) return filled;
	of_preset = cJSON_Parse(presets[preset].fields);
	bool whole = of_preset && heed_quantization(client, of_preset) &&
		     cJSON_AddStringToObject(of_preset, "preset", presets[preset].name) && fill(filled, of_preset);
	cJSON_Delete(of_preset);
	if (whole) return filled;
	cJSON_Delete(filled);
	return NULL;
}
