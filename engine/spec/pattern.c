#include "engine/spec/pattern.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define METHOD_PATTERNS(enumerator, name, data, patterns) patterns,
static const bool method_takes_patterns[] = {METHODS(METHOD_PATTERNS) false};

/* What the client's text says; false where it is no pattern. */
static bool read_pattern(const char *text, struct pattern *ret)
{
	char rest;
	struct pattern pattern = {0};
	if (text && strcmp(text, "unstructured") != 0) {
		if (strspn(text, "0123456789:") != strlen(text) || strlen(text) > 5 || *text == '0' || strstr(text, ":0"))
			return false;
		if (sscanf(text, "%d:%d%c", &pattern.keep, &pattern.of, &rest) != 2) return false;
		if (pattern.keep < 1 || pattern.keep >= pattern.of || pattern.of > PATTERN_MOST) return false;
	}
	*ret = pattern;
	return true;
}

void pattern_parse(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec *spec = at;
	const char *text = fields_string(fields, row->key, row->limit, false, row->text);
	struct pattern *pattern = &spec->pattern;
	spec->pattern_name = spec_copy(parser, text);
	if (!read_pattern(text, pattern))
		fields_problem(fields, row->key,
			       "must be \"unstructured\" or N:M, of each M neighbouring weights N are kept, as in 2:4; M up to %d",
			       PATTERN_MOST);
	else if (pattern->of && !method_takes_patterns[spec->method])
		fields_problem(fields, row->key, "the method %s takes none but \"unstructured\"", spec_method_names[spec->method]);
	else if (pattern->of && spec->allocation.method != ALLOCATION_UNIFORM)
		fields_problem(
			fields, row->key,
			"'%s' leaves every block the same share of its weights, so there is nothing for 'allocation.method' to "
			"divide: it must be \"uniform\" with a pattern",
			text);
	else if (pattern->of && parser->columns % pattern->of != 0)
		fields_problem(fields, row->key,
			       "'%s': the model has linears of columns that are no multiple of %d (they are multiples of %" PRId64
			       ")",
			       text, pattern->of, parser->columns);
}

void pattern_parse_sparsity(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec *spec = at;
	const cJSON *sparsity = fields_get(fields, row->key);
	struct pattern pattern = {0};
	(void)parser;
	if (spec->method == METHOD_NONE) {
		if (sparsity && !(cJSON_IsNumber(sparsity) && sparsity->valuedouble == 0))
			fields_problem(fields, row->key, "the method none prunes nothing: leave sparsity out");
		return;
	}
	if (!read_pattern(cJSON_GetStringValue(fields_get(fields, "pattern")), &pattern)) pattern.of = 0;
	double of_pattern = pattern.of ? (double)(pattern.of - pattern.keep) / pattern.of : 0;
	if (of_pattern > row->range.high) {
		fields_problem(fields, "pattern", "%d:%d is a sparsity of %.4g, and %g is the most", pattern.keep, pattern.of,
			       of_pattern, row->range.high);
		return;
	}
	if (!sparsity && !pattern.of)
		fields_problem(fields, row->key,
			       "is required unless the method is none: what part of the weights becomes zero, as in 0.5");
	spec->sparsity =
		fields_number(fields, row->key, row->range.low, row->range.high, pattern.of ? of_pattern : row->range.standard);
	if (!pattern.of) return;
	if (fabs(spec->sparsity - of_pattern) > 1e-6)
		fields_problem(fields, row->key, "is %.6g with the pattern %d:%d; leave it out", of_pattern, pattern.keep,
			       pattern.of);
	spec->sparsity = of_pattern;
}
