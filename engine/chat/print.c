#include "engine/chat/print.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/chat/letters.h"
#include "engine/text/unicode.h"

static enum status put(struct run *run, struct buffer *buffer, const char *text)
{
	return run_append(run, buffer, text, strlen(text));
}

/* ---- numbers ------------------------------------------------------------------------------------------------------------- */
static enum status print_int(struct run *run, struct buffer *buffer, int64_t value)
{
	char text[24];
	snprintf(text, sizeof text, "%lld", (long long)value);
	return put(run, buffer, text);
}

/* The fewest digits that read back as the number, as Python writes them: 1.0, 0.0001, 1e-05, 1e+16. */
static enum status print_float(struct run *run, struct buffer *buffer, double value)
{
	char scientific[40], text[64];
	int precision = 0;
	if (isnan(value)) return put(run, buffer, "nan");
	if (isinf(value)) return put(run, buffer, value < 0 ? "-inf" : "inf");
	TRY(run_spend(run, 16)); /* each try below costs as much as much else */
	do
		snprintf(scientific, sizeof scientific, "%.*e", precision, value);
	while (strtod(scientific, NULL) != value && ++precision < 17);
	int exponent = atoi(strchr(scientific, 'e') + 1);
	if (exponent < -4 || exponent >= 16)
		snprintf(text, sizeof text, "%s", scientific);
	else
		snprintf(text, sizeof text, "%.*f", precision > exponent ? precision - exponent : 1, value);
	return put(run, buffer, text);
}

/* ---- repr ---------------------------------------------------------------------------------------------------------------- */
static enum status print_escape(struct run *run, struct buffer *buffer, uint32_t c)
{
	char text[16];
	if (c == '\n' || c == '\r' || c == '\t')
		snprintf(text, sizeof text, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
	else
		snprintf(text, sizeof text, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
	return put(run, buffer, text);
}

static enum status repr_string(struct run *run, struct buffer *buffer, const struct text *text)
{
	const char *at = text->data, *end = text->data + text->bytes;
	bool both = text->bytes && memchr(text->data, '\'', text->bytes);
	char quote = both && !memchr(text->data, '"', text->bytes) ? '"' : '\'';
	TRY(run_append(run, buffer, &quote, 1));
	while (at < end) {
		const char *start = at;
		uint32_t c = utf8_next(&at);
		if (c == (uint32_t)quote || c == '\\') TRY(put(run, buffer, "\\"));
		TRY(letter_is_printable(c) ? run_append(run, buffer, start, (size_t)(at - start)) : print_escape(run, buffer, c));
	}
	return run_append(run, buffer, &quote, 1);
}

static enum status repr_items(struct run *run, struct buffer *buffer, const struct value *value)
{
	bool tuple = value->kind == VALUE_TUPLE;
	const struct list *list = value->list;
	TRY(put(run, buffer, tuple ? "(" : "["));
	for (size_t i = 0; i < list->count; i++) {
		if (i) TRY(put(run, buffer, ", "));
		TRY(print_repr(run, buffer, &list->items[i]));
	}
	return put(run, buffer, tuple ? (list->count == 1 ? ",)" : ")") : "]");
}

static enum status repr_view(struct run *run, struct buffer *buffer, const struct value *value)
{
	TRY(put(run, buffer, value_type(value)));
	TRY(put(run, buffer, "("));
	TRY(repr_items(run, buffer, &(struct value){.kind = VALUE_LIST, .list = value->list}));
	return put(run, buffer, ")");
}

static enum status repr_dict(struct run *run, struct buffer *buffer, const struct dict *dict)
{
	TRY(put(run, buffer, "{"));
	for (size_t i = 0; i < dict->count; i++) {
		if (i) TRY(put(run, buffer, ", "));
		TRY(print_repr(run, buffer, &dict->pairs[i].key));
		TRY(put(run, buffer, ": "));
		TRY(print_repr(run, buffer, &dict->pairs[i].value));
	}
	return put(run, buffer, "}");
}

static enum status repr_kind(struct run *run, struct buffer *buffer, const struct value *value)
{
	switch (value->kind) {
	case VALUE_UNDEFINED:
		return put(run, buffer, "Undefined");
	case VALUE_NONE:
		return put(run, buffer, "None");
	case VALUE_BOOL:
		return put(run, buffer, value->truth ? "True" : "False");
	case VALUE_INT:
		return print_int(run, buffer, value->integer);
	case VALUE_FLOAT:
		return print_float(run, buffer, value->real);
	case VALUE_STRING:
		if (value->safe) return run_refuse(run, "the repr of markup");
		return repr_string(run, buffer, value->text);
	case VALUE_LIST:
	case VALUE_TUPLE:
		return repr_items(run, buffer, value);
	case VALUE_KEYS:
	case VALUE_VALUES:
	case VALUE_ITEMS:
		return repr_view(run, buffer, value);
	case VALUE_DICT:
		return repr_dict(run, buffer, value->dict);
	default:
		return run_refuse(run, "a value of type '%s' is put out", value_type(value));
	}
}

enum status print_repr(struct run *run, struct buffer *buffer, const struct value *value)
{
	TRY(run_enter(run));
	TRY(repr_kind(run, buffer, value));
	run_leave(run);
	return STATUS_OK;
}

enum status print_value(struct run *run, struct buffer *buffer, const struct value *value)
{
	if (value->kind == VALUE_STRING) return run_append(run, buffer, value->text->data, value->text->bytes);
	return value->kind == VALUE_UNDEFINED ? STATUS_OK : print_repr(run, buffer, value);
}

enum status value_to_string(struct run *run, const struct value *value, struct value *ret)
{
	if (value->kind == VALUE_STRING) {
		*ret = *value;
		return STATUS_OK;
	}
	struct buffer buffer = {0};
	enum status status = print_value(run, &buffer, value);
	if (status == STATUS_OK) status = value_copy_string(run, buffer.data, buffer.size, ret);
	buffer_free(&buffer);
	return status;
}

/* ---- JSON ---------------------------------------------------------------------------------------------------------------- */
static enum status json_escape(struct run *run, struct buffer *buffer, uint32_t c)
{
	static const char from[] = "\"\\\b\f\n\r\t", to[] = "\"\\bfnrt";
	const char *known = c && c < 0x80 ? strchr(from, (int)c) : NULL;
	char text[16];
	if (known)
		snprintf(text, sizeof text, "\\%c", to[known - from]);
	else if (c < 0x10000)
		snprintf(text, sizeof text, "\\u%04x", (unsigned)c);
	else
		snprintf(text, sizeof text, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
			 (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
	return put(run, buffer, text);
}

static enum status json_string(struct run *run, struct buffer *buffer, const struct text *text, bool ascii)
{
	const char *at = text->data, *end = text->data + text->bytes;
	TRY(put(run, buffer, "\""));
	while (at < end) {
		const char *start = at;
		uint32_t c = utf8_next(&at);
		bool escapes = c < ' ' || c == '"' || c == '\\' || (ascii && c > '~');
		TRY(escapes ? json_escape(run, buffer, c) : run_append(run, buffer, start, (size_t)(at - start)));
	}
	return put(run, buffer, "\"");
}

struct json_printer {
	struct run *run;
	struct buffer *buffer;
	const struct json_style *style;
	int level;
};

static enum status json_any(struct json_printer *, const struct value *);

static enum status json_line(struct json_printer *printer)
{
	const struct text *indent = printer->style->indent;
	if (!indent) return STATUS_OK;
	TRY(put(printer->run, printer->buffer, "\n"));
	for (int i = 0; i < printer->level; i++)
		TRY(run_append(printer->run, printer->buffer, indent->data, indent->bytes));
	return STATUS_OK;
}

static enum status json_separate(struct json_printer *printer, const struct text *separator)
{
	return run_append(printer->run, printer->buffer, separator->data, separator->bytes);
}

static enum status json_items(struct json_printer *printer, const struct list *list)
{
	if (!list->count) return put(printer->run, printer->buffer, "[]");
	TRY(put(printer->run, printer->buffer, "["));
	printer->level++;
	for (size_t i = 0; i < list->count; i++) {
		if (i) TRY(json_separate(printer, printer->style->item));
		TRY(json_line(printer));
		TRY(json_any(printer, &list->items[i]));
	}
	printer->level--;
	TRY(json_line(printer));
	return put(printer->run, printer->buffer, "]");
}

static enum status json_number(struct json_printer *printer, const struct value *value)
{
	if (value->kind == VALUE_INT) return print_int(printer->run, printer->buffer, value->integer);
	if (isnan(value->real)) return put(printer->run, printer->buffer, "NaN");
	if (isinf(value->real)) return put(printer->run, printer->buffer, value->real < 0 ? "-Infinity" : "Infinity");
	return print_float(printer->run, printer->buffer, value->real);
}

static const char *json_word(const struct value *value)
{
	return value->kind == VALUE_NONE ? "null" : value->truth ? "true" : "false";
}

static enum status json_key(struct json_printer *printer, const struct value *key)
{
	if (key->kind == VALUE_STRING) return json_string(printer->run, printer->buffer, key->text, printer->style->ascii);
	if (key->kind != VALUE_NONE && !value_is_number(key))
		return run_fail(printer->run, "keys must be str, int, float, bool or None, not %s", value_type(key));
	TRY(put(printer->run, printer->buffer, "\""));
	TRY(key->kind == VALUE_NONE || key->kind == VALUE_BOOL ? put(printer->run, printer->buffer, json_word(key))
							       : json_number(printer, key));
	return put(printer->run, printer->buffer, "\"");
}

/* Indices of the pairs by their keys. */
static enum status sort_pairs(struct run *run, const struct dict *dict, struct pair **ret)
{
	struct pair *pairs = run_new(run, dict->count, sizeof *pairs);
	if (!pairs) return run->status;
	for (size_t i = 0; i < dict->count; i++) {
		size_t at = i;
		for (int order; at > 0; at--) {
			TRY(value_compare(run, &pairs[at - 1].key, &dict->pairs[i].key, &order));
			if (order <= 0) break;
			pairs[at] = pairs[at - 1];
		}
		pairs[at] = dict->pairs[i];
	}
	*ret = pairs;
	return STATUS_OK;
}

static enum status json_dict(struct json_printer *printer, const struct dict *dict)
{
	struct pair *pairs = dict->pairs;
	if (!dict->count) return put(printer->run, printer->buffer, "{}");
	if (printer->style->sorted) TRY(sort_pairs(printer->run, dict, &pairs));
	TRY(put(printer->run, printer->buffer, "{"));
	printer->level++;
	for (size_t i = 0; i < dict->count; i++) {
		if (i) TRY(json_separate(printer, printer->style->item));
		TRY(json_line(printer));
		TRY(json_key(printer, &pairs[i].key));
		TRY(json_separate(printer, printer->style->key));
		TRY(json_any(printer, &pairs[i].value));
	}
	printer->level--;
	TRY(json_line(printer));
	return put(printer->run, printer->buffer, "}");
}

static enum status json_kind(struct json_printer *printer, const struct value *value)
{
	switch (value->kind) {
	case VALUE_NONE:
	case VALUE_BOOL:
		return put(printer->run, printer->buffer, json_word(value));
	case VALUE_INT:
	case VALUE_FLOAT:
		return json_number(printer, value);
	case VALUE_STRING:
		return json_string(printer->run, printer->buffer, value->text, printer->style->ascii);
	case VALUE_LIST:
	case VALUE_TUPLE:
		return json_items(printer, value->list);
	case VALUE_DICT:
		return json_dict(printer, value->dict);
	default:
		return run_fail(printer->run, "a value of type '%s' cannot be written as JSON", value_type(value));
	}
}

static enum status json_any(struct json_printer *printer, const struct value *value)
{
	TRY(run_enter(printer->run));
	TRY(json_kind(printer, value));
	run_leave(printer->run);
	return STATUS_OK;
}

enum status print_json(struct run *run, struct buffer *buffer, const struct value *value, const struct json_style *style)
{
	struct json_printer printer = {.run = run, .buffer = buffer, .style = style};
	return json_any(&printer, value);
}
