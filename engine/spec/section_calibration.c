/* The data that a job calibrates with. */
#include <stdlib.h>
#include <string.h>

#include "engine/spec/apportion.h"
#include "engine/spec/sections.h"

#define METHOD_DATA(enumerator, name, data, ...) data,
static const bool method_needs_data[] = {METHODS(METHOD_DATA) false};

enum { DEFAULT_SEQUENCE = 2048, MAX_CALIBRATION_TOKENS = 1 << 30 };

const struct spec_row spec_data_path = {
	.key = "DataPath",
	.kind = SPEC_FILE,
	.limit = PATH_CHARACTERS,
	.help = "a file below the data roots. What it is, its bytes say, and the name only where they leave it open: UTF-8 text, "
		"JSON Lines, a "
		"JSON array of rows or JSON objects over several lines, each of these also as gzip or zstd, or safetensors with "
		"`input_ids`",
	.more = "Other formats (Parquet, Arrow, zip, bzip2, xz, NumPy, PyTorch, UTF-16 and so on) are refused by name, with what "
		"to do",
};

const struct spec_row spec_data_field = {
	.key = "DataField",
	.kind = SPEC_TEXT,
	.limit = SPEC_FIELD_CHARACTERS,
	.empty = "is empty",
	.help = "where the text of a row of JSON is: a key, or a path of keys and of lists' indices with dots between them",
	.more = "The value is a string, or a list of messages (`{role, content}` or `{from, value}`), whose contents are joined by "
		"newlines; of a "
		"content that is a list of parts the text parts count. A row without text there is left out, and a `warning` says "
		"how many "
		"are; if no row has any, the job fails. Rows are read as Python's `json` reads them; a lone surrogate becomes "
		"U+FFFD",
};

void spec_find_sequence_range(const struct spec_parser *parser, struct spec_range *range)
{
	range->high = (double)parser->max_positions;
	range->standard = range->high < DEFAULT_SEQUENCE ? range->high : DEFAULT_SEQUENCE;
}

/* A file below the data roots, or the operator's own: that may lie outside them, and a spec that was shown to a client, and
 * comes back, names it. `path` is what the client wrote, or the operator's where it wrote none. */
static void take_source(struct spec_parser *parser, const struct fields *fields, const char *path, struct source *source)
{
	const char *standard = parser->roots->calibration;
	if (!path || !standard || strcmp(path, standard) != 0) {
		path_parse_file(parser, fields, "path", &source->path, &source->place);
		return;
	}
	source->path = spec_copy(parser, standard);
	source->place = PLACE(spec_copy(parser, standard));
	if (!source->place.path || !path_is_file(&source->place))
		fields_problem(fields, "path", "the daemon's --calibration file '%s' is not there", standard);
}

static void parse_source_path(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	take_source(parser, fields, cJSON_GetStringValue(fields_get(fields, row->key)), at);
}

/* The one file of a calibration that lists no sources. */
static void parse_path(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct calibration *calibration = at;
	const char *standard = parser->roots->calibration;
	const cJSON *path = fields_get(fields, row->key);
	bool needed = method_needs_data[parser->spec->method] || parser->spec->refit.method != REFIT_NONE ||
		      parser->spec->allocation.method != ALLOCATION_UNIFORM || parser->feeds_back;
	calibration->mixed = fields_get(fields, "sources");
	if (calibration->mixed) {
		if (path) fields_problem(fields, "sources", "and 'path' exclude each other");
	} else if (path || (needed && standard)) {
		calibration->n_sources = 1;
		calibration->sources[0].weight = 1;
		take_source(parser, fields, path ? cJSON_GetStringValue(path) : standard, &calibration->sources[0]);
	} else if (needed) {
		fields_problem(fields, row->key, "is required: the daemon was started without --calibration");
	}
}

/* What each source gives of the samples; one that would give none has no business there. */
static void share_samples(const struct fields *fields, struct calibration *calibration)
{
	double weights[SPEC_MAX_SOURCES];
	int64_t shares[SPEC_MAX_SOURCES];
	for (int i = 0; i < calibration->n_sources; i++)
		weights[i] = calibration->sources[i].weight;
	apportion(weights, calibration->n_sources, calibration->samples, shares);
	for (int i = 0; i < calibration->n_sources; i++) {
		calibration->sources[i].samples = shares[i];
		if (shares[i]) continue;
		struct fields element = fields_element(fields, "sources", i);
		fields_problem(&element, "weight", "is too small for one of the %d samples", calibration->samples);
	}
}

static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct calibration *calibration = at;
	for (int i = 0; i < calibration->n_sources; i++)
		if (!calibration->sources[i].field) calibration->sources[i].field = spec_copy(parser, calibration->field);
	share_samples(fields, calibration);
	if ((int64_t)calibration->samples * calibration->sequence_length > MAX_CALIBRATION_TOKENS)
		fields_problem(fields, "samples", "samples × sequence_length must be at most %d", MAX_CALIBRATION_TOKENS);
}

static bool is_mixed(const void *at)
{
	return ((const struct calibration *)at)->mixed;
}

static bool is_one_file(const void *at)
{
	const struct calibration *calibration = at;
	return !calibration->mixed && calibration->n_sources > 0;
}

static const struct spec_row source_rows[] = {
	{SPEC_DATA_PATH(struct source), .required = "is required", .parse = parse_source_path},
	{
		.key = "weight",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct source, weight),
		.range = {1e-6, 1e6, 1},
		.help = "its part of the samples is that of its weight in all",
	},
	{SPEC_DATA_FIELD(struct source), .depends = true, .help = "default is that of `calibration`"},
};
static const struct spec_section source = {SPEC_ROWS(source_rows), .size = sizeof(struct source)};

static const struct spec_row rows[] = {
	{
		.key = "path",
		.kind = SPEC_FILE,
		SPEC_AT(struct calibration, sources[0].path),
		.lent = true, /* by `sources` */
		.limit = PATH_CHARACTERS,
		.type = &spec_data_path,
		.parse = parse_path,
		.shown = is_one_file,
		.depends = true,
		.help = "default is the daemon's `--calibration`; needed by all methods but magnitude and none, by every refit, "
			"and by an allocation that is not uniform",
		.label = "Calibration data",
		.hint = "A file below the data roots; empty for the daemon's own.",
		.option = {"calibration", "FILE", 'c', .help = "text or tokens, below the daemon's data roots"},
	},
	{
		.key = "sources",
		.kind = SPEC_LIST,
		SPEC_AT(struct calibration, sources),
		.count = offsetof(struct calibration, n_sources),
		.section = &source,
		.range = {1, SPEC_MAX_SOURCES, 0},
		.noun = "files",
		.shown = is_mixed,
		.help = "several files instead of `path`, mixed by weight: the samples are divided by the largest remainder method "
			"and stand "
			"evenly spread. A weight too small for one sample is refused",
	},
	{SPEC_DATA_FIELD(struct calibration), .text = "text", .shown = is_one_file, .label = "Field of the text",
	 .hint = "Of JSON rows: text, messages, data.0.content …"},
	{
		.key = "samples",
		.kind = SPEC_INT,
		SPEC_AT(struct calibration, samples),
		.range = {1, SPEC_MAX_SAMPLES, 128},
		.help = "sequences of calibration",
		.label = "Samples",
		.hint = "",
		.option = {"samples", "N", .help = "how many sequences of it"},
	},
	{
		SPEC_SEQUENCE_LENGTH(struct calibration),
		.help = "tokens of each: at most the model's `max_position_embeddings`, by default those or 2048, whichever is "
			"less",
		.hint = "",
		.placeholder = "2048, or what the model takes",
	},
	{
		.key = "seed",
		.kind = SPEC_INT,
		SPEC_AT(struct calibration, seed),
		.range = {0, 0x1p53 - 1, 0},
		.help = "chooses the sequences",
		.label = "Seed",
		.option = {.name = "seed", .argument = "N"},
	},
};

const struct spec_section spec_calibration = {
	SPEC_ROWS(rows),
	.settle = settle,
	.title = "Calibration",
	.help = "the data that a method learns or measures from",
};
