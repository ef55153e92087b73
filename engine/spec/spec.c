#include "engine/spec/spec.h"

#include <limits.h>
#include <stdlib.h>

#include "engine/spec/preset.h"
#include "engine/spec/sections.h"

/* Parses what a client sent, or, as it is, what was stored. */
static void parse(struct spec_parser *parser, struct fields *fields)
{
	cJSON *filled = parser->roots->places ? cJSON_Duplicate(fields->object, true) : preset_fill(fields);
	if (!filled) {
		parser->no_memory = true;
		return;
	}
	fields->object = filled;
	spec_section_parse(parser, fields, &spec_top, parser->spec);
	cJSON_Delete(filled);
}

enum status spec_parse(const cJSON *json, const struct roots *roots, struct spec **ret, struct spec_problems *problems,
		       struct error *err)
{
	struct spec *spec = calloc(1, sizeof *spec);
	struct spec_parser parser = {.roots = roots, .spec = spec, .max_positions = INT_MAX};
	struct fields fields = {.problems = problems, .object = json};
	if (!spec) return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	if (cJSON_IsObject(json))
		parse(&parser, &fields);
	else
		fields_problem(&fields, NULL, "must be a JSON object");

	enum status status = STATUS_OK;
	if (parser.no_memory || problems->no_memory) {
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	} else if (parser.trouble.status) {
		*err = parser.trouble;
		status = err->status;
	} else if (problems->count > 0) {
		status = error_set(err, STATUS_INVALID, "%s: %s%s", problems->items[0].pointer, problems->items[0].detail,
				   problems->count > 1 ? " (and more)" : "");
	}
	if (status != STATUS_OK) {
		spec_free(spec);
		return status;
	}
	*ret = spec;
	return STATUS_OK;
}

cJSON *spec_to_json(const struct spec *spec)
{
	cJSON *json = cJSON_CreateObject();
	if (json && spec_section_print(spec, &spec_top, spec, json)) return json;
	cJSON_Delete(json);
	return NULL;
}

const void *spec_settings(const struct spec *spec, const struct spec_section *section)
{
	for (int i = 0; i < spec->n_settings; i++)
		if (spec->settings[i].section == section) return spec->settings[i].values;
	return NULL;
}

void spec_free(struct spec *spec)
{
	if (!spec) return;
	spec_section_free(&spec_top, spec);
	for (int i = 0; i < spec->n_settings; i++) {
		spec_section_free(spec->settings[i].section, spec->settings[i].values);
		free(spec->settings[i].values);
	}
	free(spec);
}
