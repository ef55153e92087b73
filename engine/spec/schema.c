#include "engine/spec/schema.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is made so far. */
struct schema {
	cJSON *definitions;
	bool no_memory;
};

static void add(struct schema *schema, cJSON *object, const char *key, cJSON *item)
{
	if (item && cJSON_AddItemToObject(object, key, item)) return;
	cJSON_Delete(item);
	schema->no_memory = true;
}

static void add_text(struct schema *schema, cJSON *object, const char *key, const char *text)
{
	if (text) add(schema, object, key, cJSON_CreateString(text));
}

/* cJSON rounds to 15 digits. */
static cJSON *number(double value)
{
	char text[32];
	if (value == floor(value) && fabs(value) <= 0x1p53)
		snprintf(text, sizeof text, "%" PRId64, (int64_t)value);
	else
		snprintf(text, sizeof text, "%.15g", value);
	return cJSON_CreateRaw(text);
}

static void append(struct schema *schema, cJSON *list, cJSON *item)
{
	if (item && cJSON_AddItemToArray(list, item)) return;
	cJSON_Delete(item);
	schema->no_memory = true;
}

static cJSON *add_array(struct schema *schema, cJSON *object, const char *key)
{
	cJSON *list = cJSON_CreateArray();
	add(schema, object, key, list);
	return list;
}

static cJSON *add_object(struct schema *schema, cJSON *object, const char *key)
{
	cJSON *inner = cJSON_CreateObject();
	add(schema, object, key, inner);
	return inner;
}

static void add_type(struct schema *schema, cJSON *property, const char *type, const struct spec_row *row)
{
	if (row && row->required) {
		add_text(schema, property, "type", type);
		return;
	}
	cJSON *types = add_array(schema, property, "type");
	append(schema, types, cJSON_CreateString(type));
	append(schema, types, cJSON_CreateString("null"));
}

static void add_description(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	const char *help = row->help ? row->help : row->section ? row->section->help : NULL;
	char *whole = NULL;
	if (!help || !row->more) {
		add_text(schema, property, "description", help);
		return;
	}
	if (asprintf(&whole, "%s. %s", help, row->more) < 0) {
		schema->no_memory = true;
		return;
	}
	add_text(schema, property, "description", whole);
	free(whole);
}

static void add_range(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	add(schema, property, "minimum", number(row->range.low));
	add(schema, property, "maximum", number(row->range.high));
}

static void add_default(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	if (!row->depends) add(schema, property, "default", number(row->range.standard));
}

/* An int, or the word that stands for −1. */
static void describe_int(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	if (!row->word) {
		add_type(schema, property, "integer", row);
		add_range(schema, property, row);
		add_default(schema, property, row);
		return;
	}
	cJSON *any = add_array(schema, property, "anyOf"), *word = cJSON_CreateObject(), *none = cJSON_CreateObject(),
	      *integer = cJSON_CreateObject();
	append(schema, any, word);
	append(schema, any, none);
	append(schema, any, integer);
	add_text(schema, word, "const", row->word);
	add_text(schema, none, "type", "null");
	add_text(schema, integer, "type", "integer");
	add_range(schema, integer, row);
	if (row->range.standard == -1)
		add_text(schema, property, "default", row->word);
	else
		add_default(schema, property, row);
}

static void describe_choice(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	cJSON *names = add_array(schema, property, "enum");
	for (int i = 0; row->names[i]; i++)
		append(schema, names, cJSON_CreateString(row->names[i]));
	append(schema, names, cJSON_CreateNull());
	if (!row->depends) add_text(schema, property, "default", row->names[(int)row->range.standard]);
}

/* The start of a pattern: what are no control characters. */
#define PLAIN "^[^\\x00-\\x1f\\x7f-\\x9f]"

static void describe_text(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	bool filled = row->kind != SPEC_TEXT || row->empty;
	const char *plain = filled ? PLAIN "+$" : PLAIN "*$";
	add_type(schema, property, "string", row);
	if (filled) add(schema, property, "minLength", number(1));
	add(schema, property, "maxLength", number(row->limit));
	add_text(schema, property, "pattern", row->pattern ? row->pattern : row->multiline ? NULL : plain);
	if (!row->depends) add_text(schema, property, "default", row->text);
}

/* A field of a shared type: a reference to its definition. */
static void describe_shared(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	char pointer[64];
	const struct spec_row *type = row->type;
	snprintf(pointer, sizeof pointer, "#/$defs/%s", type->key);
	if (!cJSON_HasObjectItem(schema->definitions, type->key)) {
		struct spec_row required = *type;
		required.required = "is required"; /* null is the field's to allow */
		cJSON *definition = add_object(schema, schema->definitions, type->key);
		add_description(schema, definition, type);
		describe_text(schema, definition, &required);
	}
	if (row->required) {
		add_text(schema, property, "$ref", pointer);
		return;
	}
	cJSON *any = add_array(schema, property, "anyOf"), *reference = cJSON_CreateObject(), *none = cJSON_CreateObject();
	append(schema, any, reference);
	append(schema, any, none);
	add_text(schema, reference, "$ref", pointer);
	add_text(schema, none, "type", "null");
	if (!row->depends) add_text(schema, property, "default", row->text);
}

static void describe_rows(struct schema *schema, cJSON *object, const struct spec_section *section);

static void describe_object(struct schema *schema, cJSON *property, const struct spec_row *row, const struct spec_section *section)
{
	if (row)
		add_type(schema, property, "object", row);
	else
		add_text(schema, property, "type", "object");
	add(schema, property, "additionalProperties", cJSON_CreateFalse());
	describe_rows(schema, property, section);
}

static void describe_list(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	add_type(schema, property, "array", row);
	if (row->range.low > 0) add(schema, property, "minItems", number(row->range.low));
	add(schema, property, "maxItems", number(row->range.high));
	describe_object(schema, add_object(schema, property, "items"), NULL, row->section);
}

static void describe_set(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	add_type(schema, property, "array", row);
	add(schema, property, "uniqueItems", cJSON_CreateTrue());
	cJSON *names = add_array(schema, add_object(schema, property, "items"), "enum");
	for (int i = 0; row->names[i]; i++)
		append(schema, names, cJSON_CreateString(row->names[i]));
	if (row->alias) append(schema, names, cJSON_CreateString(row->alias));
}

/* Keys and texts have no control characters. */
static void describe_map(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	static const char plain[] = PLAIN "*$";
	add_type(schema, property, "object", row);
	add(schema, property, "maxProperties", number(row->range.high));
	cJSON *key = add_object(schema, property, "propertyNames");
	add(schema, key, "minLength", number(1));
	add(schema, key, "maxLength", number(row->key_limit));
	add_text(schema, key, "pattern", plain);
	cJSON *value = add_object(schema, property, "additionalProperties");
	add_type(schema, value, "string", row);
	add(schema, value, "maxLength", number(row->limit));
	add_text(schema, value, "pattern", plain);
}

/* What a schema has no words for. */
static void describe_use(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	const struct spec_section *section = row->kind == SPEC_LIST ? NULL : row->section;
	const struct spec_option *option = &row->option;
	cJSON *use = cJSON_CreateObject(), *form = cJSON_CreateObject();
	const char *hint = row->hint ? row->hint : row->help;
	add_text(schema, form, "label", row->label);
	if (row->label && hint && *hint) add_text(schema, form, "hint", hint);
	add_text(schema, form, "group", row->group);
	add_text(schema, form, "placeholder", row->placeholder);
	add_text(schema, form, "start", row->start);
	add_text(schema, form, "title", section ? section->title : NULL);
	if (row->folded || (section && section->folded)) add(schema, form, "folded", cJSON_CreateTrue());
	if (section && section->of_method) add_text(schema, form, "method", row->key);
	if (form && form->child)
		add(schema, use, "form", form);
	else
		cJSON_Delete(form);
	if (option->name) {
		cJSON *shown = add_object(schema, use, "option");
		add_text(schema, shown, "name", option->name);
		if (option->letter) add_text(schema, shown, "letter", (const char[]){option->letter, 0});
		add_text(schema, shown, "argument", option->argument);
		if (option->percent) add(schema, shown, "percent", cJSON_CreateTrue());
		add_text(schema, shown, "help", option->help);
	}
	if (row->kind == SPEC_MODEL || row->kind == SPEC_FILE)
		add_text(schema, use, "names", row->kind == SPEC_MODEL ? "model" : "data");
	if (row->request) add(schema, use, "request", cJSON_CreateTrue());
	if (row->shown || row->kind == SPEC_SETTINGS || row->kind == SPEC_MAP || row->kind == SPEC_SET)
		add(schema, use, "optional", cJSON_CreateTrue());
	if (row->resolved) add(schema, use, "resolved", number(row->resolved));
	add_text(schema, use, "alias", row->alias);
	if (use && use->child)
		add(schema, property, "x-besad", use);
	else
		cJSON_Delete(use);
}

static void describe_row(struct schema *schema, cJSON *property, const struct spec_row *row)
{
	add_description(schema, property, row);
	switch (row->kind) {
	case SPEC_BOOL:
		add_type(schema, property, "boolean", row);
		if (!row->depends) add(schema, property, "default", cJSON_CreateBool(row->range.standard != 0));
		break;
	case SPEC_INT:
		describe_int(schema, property, row);
		break;
	case SPEC_NUMBER:
		add_type(schema, property, "number", row);
		add_range(schema, property, row);
		add_default(schema, property, row);
		break;
	case SPEC_CHOICE:
		describe_choice(schema, property, row);
		break;
	case SPEC_TEXT:
	case SPEC_FILE:
	case SPEC_MODEL:
		(row->type ? describe_shared : describe_text)(schema, property, row);
		break;
	case SPEC_SECTION:
	case SPEC_SETTINGS:
		describe_object(schema, property, row, row->section);
		break;
	case SPEC_LIST:
		describe_list(schema, property, row);
		break;
	case SPEC_SET:
		describe_set(schema, property, row);
		break;
	case SPEC_MAP:
		describe_map(schema, property, row);
		break;
	case SPEC_REFUSED:
		add_text(schema, property, "type", "null");
		break;
	}
	if (row->example) {
		cJSON *examples = add_array(schema, property, "examples");
		append(schema, examples,
		       row->kind == SPEC_NUMBER ? cJSON_CreateRaw(row->example) : cJSON_CreateString(row->example));
	}
	describe_use(schema, property, row);
}

static void describe_rows(struct schema *schema, cJSON *object, const struct spec_section *section)
{
	cJSON *required = cJSON_CreateArray();
	for (int i = 0; i < section->n_rows; i++)
		if (section->rows[i].required) append(schema, required, cJSON_CreateString(section->rows[i].key));
	if (required && required->child)
		add(schema, object, "required", required);
	else
		cJSON_Delete(required);
	cJSON *properties = add_object(schema, object, "properties");
	for (int i = 0; i < section->n_rows; i++) {
		const struct spec_row *row = &section->rows[i];
		describe_row(schema, add_object(schema, properties, row->key), row);
	}
}

cJSON *spec_schema(const struct spec_section *section)
{
	struct schema schema = {.definitions = cJSON_CreateObject()};
	cJSON *json = cJSON_CreateObject();
	add_text(&schema, json, "$schema", "https://json-schema.org/draft/2020-12/schema");
	add_text(&schema, json, "description", section->help);
	describe_object(&schema, json, NULL, section);
	add(&schema, json, "$defs", schema.definitions);
	if (!schema.no_memory) return json;
	cJSON_Delete(json);
	return NULL;
}
