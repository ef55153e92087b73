#include "engine/spec/descriptor.h"

#include <stdlib.h>
#include <string.h>

#include "engine/spec/paths.h"

/* ---- values in a struct -------------------------------------------------------------------------------------------------- */

static void *value_at(const struct spec_row *row, const void *at)
{
	return (char *)at + row->offset;
}

static void set_int(const struct spec_row *row, void *at, int64_t value)
{
	if (row->size == sizeof value)
		memcpy(value_at(row, at), &value, sizeof value);
	else
		memcpy(value_at(row, at), &(int){(int)value}, sizeof(int));
}

static int64_t get_int(const struct spec_row *row, const void *at)
{
	int64_t value;
	int narrow;
	if (row->size == sizeof value) {
		memcpy(&value, value_at(row, at), sizeof value);
		return value;
	}
	memcpy(&narrow, value_at(row, at), sizeof narrow);
	return narrow;
}

static char **text_at(const struct spec_row *row, const void *at)
{
	return value_at(row, at);
}

static struct place *place_at(const struct spec_row *row, const void *at)
{
	return (void *)((char *)at + row->place);
}

static int *count_at(const struct spec_row *row, const void *at)
{
	return (void *)((char *)at + row->count);
}

static cJSON **map_at(const struct spec_row *row, const void *at)
{
	return value_at(row, at);
}

static unsigned *set_at(const struct spec_row *row, const void *at)
{
	return value_at(row, at);
}

static void *element_at(const struct spec_row *row, const void *at, int index)
{
	return (char *)value_at(row, at) + (size_t)index * row->section->size;
}

char *spec_copy(struct spec_parser *parser, const char *text)
{
	char *result = text ? strdup(text) : NULL;
	if (text && !result) parser->no_memory = true;
	return result;
}

/* ---- from JSON ----------------------------------------------------------------------------------------------------------- */

static int64_t parse_int(const struct fields *fields, const struct spec_row *row, const struct spec_range *range)
{
	const cJSON *value = row->word ? fields_get(fields, row->key) : NULL;
	if (value && cJSON_IsString(value) && strcmp(value->valuestring, row->word) == 0) return -1;
	if (value && !cJSON_IsNumber(value)) {
		fields_problem(fields, row->key, "%s", row->wrong);
		return -1;
	}
	return fields_int(fields, row->key, (int64_t)range->low, (int64_t)range->high, (int64_t)range->standard);
}

static bool is_one_of(const char *text, const char *const *names)
{
	while (names && *names)
		if (strcmp(*names++, text) == 0) return true;
	return false;
}

static int parse_choice(const struct fields *fields, const struct spec_row *row)
{
	const char *text = cJSON_GetStringValue(fields_get(fields, row->key));
	if (!text || is_one_of(text, row->names) || !is_one_of(text, row->later))
		return fields_choice(fields, row->key, row->names, (int)row->range.standard);
	fields_problem(fields, row->key, "'%s' is not supported by this version", text);
	return (int)row->range.standard;
}

static void parse_set(const struct fields *fields, const struct spec_row *row, void *at)
{
	const cJSON *list = fields_get(fields, row->key), *entry;
	enum { ALIAS = 31 }; /* the bit of a name that may stand for the first: both ask for one thing */
	unsigned set = 0, said = 0;
	if (list && !cJSON_IsArray(list)) {
		fields_problem(fields, row->key, "must be a list, of %s", row->noun);
		list = NULL;
	}
	cJSON_ArrayForEach(entry, list)
	{
		const char *text = cJSON_GetStringValue(entry);
		bool alias = text && row->alias && strcmp(text, row->alias) == 0;
		int found = alias ? 0 : fields_name(row->names, text), place = alias ? ALIAS : found;
		if (found < 0)
			fields_problem(fields, row->key, "'%.64s' is none of %s", text ? text : "what is no text", row->noun);
		else if (said & 1u << place)
			fields_problem(fields, row->key, "'%s' is there twice", text);
		else {
			set |= 1u << found;
			said |= 1u << place;
		}
	}
	*set_at(row, at) = set;
}

static void parse_text(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	const char *text = fields_string(fields, row->key, row->limit, row->multiline, row->text);
	if (text && !*text && row->empty) fields_problem(fields, row->key, "%s", row->empty);
	*text_at(row, at) = spec_copy(parser, text);
}

static void parse_list(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	int low = (int)row->range.low, high = (int)row->range.high, *count = count_at(row, at);
	const cJSON *list = fields_get(fields, row->key);
	if (!list) return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) < low || cJSON_GetArraySize(list) > high) {
		if (low > 0)
			fields_problem(fields, row->key, "must be a list of %d to %d %s", low, high, row->noun);
		else
			fields_problem(fields, row->key, "must be a list of at most %d %s", high, row->noun);
		return;
	}
	for (int i = 0; i < cJSON_GetArraySize(list); i++) {
		struct fields element = fields_element(fields, row->key, i);
		++*count;
		spec_section_parse(parser, &element, row->section, element_at(row, at, i));
	}
}

/* A map without keys is none. */
static void parse_map(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct fields map = fields_section(fields, row->key);
	int most = (int)row->range.high, size = cJSON_GetArraySize(map.object);
	const cJSON *value;
	cJSON *texts = NULL;
	if (size > most) {
		fields_problem(fields, row->key, "must have at most %d keys, not %d", most, size);
		return;
	}
	cJSON_ArrayForEach(value, map.object)
	{
		fields_key(&map, value->string, row->key_limit);
		const char *text = fields_string(&map, value->string, row->limit, false, NULL);
		if (!text) continue;
		if (!texts) texts = cJSON_CreateObject();
		if (!cJSON_AddStringToObject(texts, value->string, text)) parser->no_memory = true;
	}
	*map_at(row, at) = texts;
}

/* Settings have a struct where the spec's method is theirs or the client gave them. */
static void parse_settings(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row)
{
	struct spec *spec = parser->spec;
	struct fields section = fields_section(fields, row->key);
	if (!section.object && strcmp(spec_method_names[spec->method], row->key) != 0) return;
	void *values = spec->n_settings < SPEC_MAX_SETTINGS ? calloc(1, row->section->size) : NULL;
	if (!values) {
		parser->no_memory = true;
		return;
	}
	spec->settings[spec->n_settings].section = row->section;
	spec->settings[spec->n_settings++].values = values;
	spec_section_parse(parser, &section, row->section, values);
}

/* By the row's kind alone. */
static void parse_kind(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec_range range = row->range;
	struct fields section;
	if (row->find_range) row->find_range(parser, &range);
	switch (row->kind) {
	case SPEC_BOOL:
		*(bool *)value_at(row, at) = fields_bool(fields, row->key, range.standard != 0);
		return;
	case SPEC_INT:
		set_int(row, at, parse_int(fields, row, &range));
		return;
	case SPEC_NUMBER:
		*(double *)value_at(row, at) = fields_number(fields, row->key, range.low, range.high, range.standard);
		return;
	case SPEC_CHOICE:
		set_int(row, at, parse_choice(fields, row));
		return;
	case SPEC_SET:
		parse_set(fields, row, at);
		return;
	case SPEC_TEXT:
		parse_text(parser, fields, row, at);
		return;
	case SPEC_FILE:
		path_parse_file(parser, fields, row->key, text_at(row, at), place_at(row, at));
		return;
	case SPEC_MODEL:
		path_parse_model(parser, fields, row->key, text_at(row, at), place_at(row, at));
		return;
	case SPEC_SECTION:
		section = fields_section(fields, row->key);
		spec_section_parse(parser, &section, row->section, value_at(row, at));
		return;
	case SPEC_SETTINGS:
		parse_settings(parser, fields, row);
		return;
	case SPEC_LIST:
		parse_list(parser, fields, row, at);
		return;
	case SPEC_MAP:
		parse_map(parser, fields, row, at);
		return;
	case SPEC_REFUSED:
		if (fields_get(fields, row->key)) fields_problem(fields, row->key, "is not supported by this version");
		return;
	}
}

static void parse_row(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	if (row->required && fields->object && !fields_get(fields, row->key)) fields_problem(fields, row->key, "%s", row->required);
	(row->parse ? row->parse : parse_kind)(parser, fields, row, at);
}

static void refuse_others(struct spec_parser *parser, const struct fields *fields, const struct spec_section *section)
{
	const char **known = calloc((size_t)section->n_rows + 1, sizeof *known);
	if (!known) {
		parser->no_memory = true;
		return;
	}
	for (int i = 0; i < section->n_rows; i++)
		known[i] = section->rows[i].key;
	fields_only(fields, known);
	free(known);
}

void spec_section_parse(struct spec_parser *parser, const struct fields *fields, const struct spec_section *section, void *at)
{
	refuse_others(parser, fields, section);
	for (int late = 0; late < 2; late++)
		for (int i = 0; i < section->n_rows; i++)
			if (section->rows[i].late == late) parse_row(parser, fields, &section->rows[i], at);
	if (section->settle) section->settle(parser, fields, at);
}

/* ---- to JSON ------------------------------------------------------------------------------------------------------------- */

/* The fields of a section as an object; NULL without memory. */
static cJSON *print_object(const struct spec *spec, const struct spec_section *section, const void *at)
{
	cJSON *object = cJSON_CreateObject();
	if (object && spec_section_print(spec, section, at, object)) return object;
	cJSON_Delete(object);
	return NULL;
}

static cJSON *print_list(const struct spec *spec, const struct spec_row *row, const void *at)
{
	cJSON *list = cJSON_CreateArray();
	for (int i = 0; i < *count_at(row, at) && list; i++) {
		cJSON *element = print_object(spec, row->section, element_at(row, at, i));
		if (element && cJSON_AddItemToArray(list, element)) continue;
		cJSON_Delete(element);
		cJSON_Delete(list);
		list = NULL;
	}
	return list;
}

static cJSON *print_set(const struct spec_row *row, const void *at)
{
	cJSON *list = cJSON_CreateArray();
	for (int i = 0; row->names[i] && list; i++)
		if (*set_at(row, at) & 1u << i && !cJSON_AddItemToArray(list, cJSON_CreateString(row->names[i]))) {
			cJSON_Delete(list);
			list = NULL;
		}
	return list;
}

static cJSON *print_value(const struct spec *spec, const struct spec_row *row, const void *at)
{
	switch (row->kind) {
	case SPEC_BOOL:
		return cJSON_CreateBool(*(bool *)value_at(row, at));
	case SPEC_INT:
		if (row->word && get_int(row, at) == -1) return cJSON_CreateString(row->word);
		return cJSON_CreateNumber((double)get_int(row, at));
	case SPEC_NUMBER:
		return cJSON_CreateNumber(*(double *)value_at(row, at));
	case SPEC_CHOICE:
		return cJSON_CreateString(row->names[get_int(row, at)]);
	case SPEC_SET:
		return print_set(row, at);
	case SPEC_TEXT:
	case SPEC_FILE:
	case SPEC_MODEL:
		return cJSON_CreateString(*text_at(row, at));
	case SPEC_SECTION:
		return print_object(spec, row->section, value_at(row, at));
	case SPEC_SETTINGS:
		return print_object(spec, row->section, spec_settings(spec, row->section));
	case SPEC_LIST:
		return print_list(spec, row, at);
	case SPEC_MAP:
		return cJSON_Duplicate(*map_at(row, at), true);
	case SPEC_REFUSED:
		break;
	}
	return NULL;
}

static bool is_shown(const struct spec *spec, const struct spec_row *row, const void *at)
{
	bool is_text = row->kind == SPEC_TEXT || row->kind == SPEC_FILE || row->kind == SPEC_MODEL;
	if (row->kind == SPEC_REFUSED || row->request || (row->shown && !row->shown(at))) return false;
	if (row->kind == SPEC_SETTINGS) return spec_settings(spec, row->section) != NULL;
	if (row->kind == SPEC_MAP) return *map_at(row, at) != NULL;
	if (row->kind == SPEC_SET) return *set_at(row, at) != 0;
	return !is_text || *text_at(row, at);
}

bool spec_section_print(const struct spec *spec, const struct spec_section *section, const void *at, cJSON *object)
{
	for (int i = 0; i < section->n_rows; i++) {
		const struct spec_row *row = &section->rows[i];
		if (!is_shown(spec, row, at)) continue;
		cJSON *value = print_value(spec, row, at);
		if (value && cJSON_AddItemToObject(object, row->key, value)) continue;
		cJSON_Delete(value);
		return false;
	}
	return true;
}

/* ---- and back ------------------------------------------------------------------------------------------------------------ */

void spec_section_free(const struct spec_section *section, void *at)
{
	for (int i = 0; i < section->n_rows; i++) {
		const struct spec_row *row = &section->rows[i];
		if (row->lent) continue;
		if (row->kind == SPEC_TEXT || row->kind == SPEC_FILE || row->kind == SPEC_MODEL) free(*text_at(row, at));
		if (row->kind == SPEC_FILE || row->kind == SPEC_MODEL) place_free(place_at(row, at));
		if (row->kind == SPEC_SECTION) spec_section_free(row->section, value_at(row, at));
		if (row->kind == SPEC_MAP) cJSON_Delete(*map_at(row, at));
		for (int k = 0; row->kind == SPEC_LIST && k < *count_at(row, at); k++)
			spec_section_free(row->section, element_at(row, at, k));
	}
}

/* ---- where it leads ------------------------------------------------------------------------------------------------------ */

bool spec_section_places(const struct spec *spec, const struct spec_section *section, const void *at, spec_visit *visit,
			 void *context)
{
	bool on = true;
	for (int i = 0; i < section->n_rows && on; i++) {
		const struct spec_row *row = &section->rows[i];
		const void *settings = row->kind == SPEC_SETTINGS ? spec_settings(spec, row->section) : NULL;
		bool is_place = (row->kind == SPEC_FILE || row->kind == SPEC_MODEL) && !row->lent && *text_at(row, at);
		if (is_place) on = visit(context, row->kind == SPEC_MODEL, *text_at(row, at), place_at(row, at));
		if (settings) on = spec_section_places(spec, row->section, settings, visit, context);
		if (row->kind == SPEC_SECTION) on = spec_section_places(spec, row->section, value_at(row, at), visit, context);
		for (int k = 0; row->kind == SPEC_LIST && k < *count_at(row, at) && on; k++)
			on = spec_section_places(spec, row->section, element_at(row, at, k), visit, context);
	}
	return on;
}
