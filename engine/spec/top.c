/* The fields of a spec, and the one list of its sections. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/spec/pattern.h"
#include "engine/spec/preset.h"
#include "engine/spec/sections.h"

#define METHOD_NAME(enumerator, name, ...) #name,
const char *const spec_method_names[] = {METHODS(METHOD_NAME) "none", NULL};
#define GGUF_NAME(enumerator, name, ...) "gguf-" name,
static const char *const export_names[] = {EXPORT_TYPES(GGUF_NAME) NULL};
static const char *const precision_names[] = {"auto", "f32", "bf16", NULL};

static void parse_output(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec *spec = at;
	const char *text = fields_string(fields, row->key, row->limit, false, NULL);
	const char *objection = text ? path_output_objection(text) : NULL;
	if (objection) fields_problem(fields, row->key, "%s", objection);
	spec->output = spec_copy(parser, text);
}

/* Quantization is parsed behind it, and whether there must be data hangs on how that rounds. */
static void parse_calibration(struct spec_parser *parser, const struct fields *fields, const struct spec_row *row, void *at)
{
	struct spec *spec = at;
	const cJSON *rounding = cJSON_GetObjectItemCaseSensitive(fields_get(fields, "quantization"), "rounding");
	const char *name = cJSON_GetStringValue(rounding);
	struct fields section = fields_section(fields, row->key);
	parser->feeds_back = name && strcmp(name, spec_rounding_names[ROUND_WITH_FEEDBACK]) == 0;
	spec_section_parse(parser, &section, row->section, &spec->calibration);
}

/* What hangs on there being an output; and the name of one that the client did not name. */
static void settle(struct spec_parser *parser, const struct fields *fields, void *at)
{
	struct spec *spec = at;
	if (spec->archive && !spec_makes_output(spec))
		fields_problem(fields, "archive", "the method 'none' makes no output to archive, unless it quantizes");
	if (spec->archive_coded && !spec->archive)
		fields_problem(fields, "archive_coded", "says how an archive is made, and 'archive' asks for none");
	if (spec->exports && *parser->no_gguf) fields_problem(fields, "export", "%s", parser->no_gguf);
	if (spec->exports && !spec_makes_output(spec))
		fields_problem(fields, "export",
			       "the method 'none' makes no output that could be exported, unless it quantizes; besad export writes "
			       "any model");
	if (spec->output || !spec->model_place.path) return;
	/* As the client wrote the model where that can name an output, else the directory's own name. */
	char *whole = place_text(&spec->model_place, NULL);
	const char *base = spec->model, *slash = whole ? strrchr(whole, '/') : NULL;
	if (path_output_objection(base) && slash) base = slash + 1;
	if (path_output_objection(base)) base = "model";
	const char *how = spec->preset == PRESET_NONE ? spec_method_names[spec->method] : preset_names[spec->preset];
	if (asprintf(&spec->output, "%s-%s-{id}", base, how) < 0) {
		spec->output = NULL;
		parser->no_memory = true;
	}
	free(whole);
}

static bool is_notified(const void *at)
{
	return ((const struct spec *)at)->notify_url;
}

static bool is_archived(const void *at)
{
	return ((const struct spec *)at)->archive;
}

static bool is_quantized(const void *at)
{
	return ((const struct spec *)at)->quantization.bits != 0;
}

static bool asks_of_hardware(const void *at)
{
	const struct hardware_settings *hardware = &((const struct spec *)at)->hardware;
	return hardware->simulate || hardware->measure;
}

/* A component of an output's path: no dot in front; braces are {id} and {date} alone. */
#define COMPONENT "([^\\x00-\\x1f\\x7f-\\x9f/.{}]|\\{id\\}|\\{date\\})([^\\x00-\\x1f\\x7f-\\x9f/{}]|\\{id\\}|\\{date\\})*"

#define SETTINGS_ROW(name) {.key = #name, .kind = SPEC_SETTINGS, .section = &method_##name##_settings, .late = true},

static const struct spec_row rows[] = {
	{
		.key = "name",
		.kind = SPEC_TEXT,
		SPEC_AT(struct spec, name),
		.limit = 200,
		.text = "",
		.help = "a name for people; any text",
		.group = "Model and output",
		.label = "Name",
		.option = {"name", "NAME", 'n', .help = "a name for people"},
	},
	{
		.key = "metadata",
		.kind = SPEC_MAP,
		SPEC_AT(struct spec, metadata),
		.range = {0, 16},
		.limit = 512,
		.key_limit = 64,
		.help = "what a client notes of the job, and finds it by in lists; besad makes nothing of it",
		.label = "Metadata",
		.hint = "Notes by which lists can be searched, key=value, one a line.",
		.placeholder = "team=prune",
	},
	{
		.key = "model",
		.kind = SPEC_MODEL,
		SPEC_AT(struct spec, model),
		.place = offsetof(struct spec, model_place),
		.limit = PATH_CHARACTERS,
		.required = "is required: a directory below the model roots; GET /v1/models lists them",
		.help = "a model directory below the model roots",
		.label = "Model",
		.hint = "",
		.example = "tiny-llama",
		.option = {"model", "DIR", 'm', .help = "the model, below the daemon's model roots"},
	},
	{
		.key = "output",
		.kind = SPEC_TEXT,
		SPEC_AT(struct spec, output),
		.limit = PATH_CHARACTERS,
		.parse = parse_output,
		.depends = true,
		.help = "where the pruned model goes, below the output root. `{id}` becomes the job's id and `{date}` the day of "
			"submission, in "
			"UTC",
		.more = "No component of the path may have more than 200 bytes in UTF-8, or 255 once they are filled in. Default: "
			"`<model>-<preset or method>-{id}`.",
		.label = "Output",
		.hint = "A directory below the output root. {id} and {date} are filled in.",
		.placeholder = "<model>-<preset or method>-{id}",
		.pattern = "^" COMPONENT "(/" COMPONENT ")*$",
		.example = "nightly/{date}",
		.option = {"output", "DIR", 'o', .help = "the result, below the daemon's output root; {date}, {id}"},
	},
	{
		.key = "overwrite",
		.kind = SPEC_BOOL,
		SPEC_AT(struct spec, overwrite),
		.help = "replace an output of besad's that exists, once the new one is whole; the old one is kept aside for a time",
		.label = "Replace the output if it exists",
		.hint = "",
		.option = {"overwrite", .help = "replace an output that is there, once the new one is whole"},
	},
	{
		.key = "archive",
		.kind = SPEC_BOOL,
		SPEC_AT(struct spec, archive),
		.shown = is_archived,
		.help = "also make an archive of the output, in which zeros take no room, as its directory `archive`",
		.more = "`besad unpack` restores the output's files from it bit for bit; docs/format.md specifies it. The "
			"job's artifacts list its files.",
		.label = "Make an archive too",
		.hint = "The output in less room, in its directory archive.",
		.option = {"archive", .help = "make an archive of the output too, in which zeros take no room"},
	},
	{
		.key = "archive_coded",
		.kind = SPEC_BOOL,
		SPEC_AT(struct spec, archive_coded),
		.shown = is_archived,
		.help = "code the exponents of the archive's values, which makes it about a third smaller still (the codes of "
			"quantized weights, about a fifth)",
		.label = "Code its exponents",
		.hint = "About a third smaller still.",
		.option = {"archive-coded", .help = "code the exponents of the archive's values"},
	},
	{
		.key = "export",
		.kind = SPEC_SET,
		SPEC_AT(struct spec, exports),
		.names = export_names,
		.alias = "gguf",
		.noun = "gguf-f16 (or gguf), gguf-q8_0, gguf-q4_0 and gguf-q4_1",
		.help = "also write the output as GGUF files for llama.cpp, `model-f16.gguf` for `gguf-f16` and so on, beside its "
			"safetensors",
		.more = "`gguf` alone means `gguf-f16`. Zeros stay zero in all types. docs/gguf.md says which families can be "
			"written, and how.",
		.label = "Make GGUF files too",
		.hint = "For llama.cpp: gguf-f16 (or gguf), gguf-q8_0, gguf-q4_0, gguf-q4_1, with commas between.",
		.placeholder = "none",
	},
	{
		.key = "preset",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct spec, preset),
		.names = preset_names,
		.parse = preset_parse,
		.request = true,
		.depends = true,
		.help = "a method and what goes with it, by what it costs: `balanced` where neither this nor `method` is given, "
			"nor "
			"settings of `besa`",
		.more = "Fields that are given override those of the preset; `method` excludes it. A job shows what it became. "
			"With "
			"`quantization.rounding` `feedback`, `best` has the refit `block` in place of `global`. `paper` is BESA as "
			"it was published.",
		.group = "Pruning",
		.label = "Preset",
		.hint = "What it may cost: fast, balanced (the default) or best.",
		.option = {.name = "preset", .argument = "PRESET"},
	},
	{
		.key = "method",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct spec, method),
		.names = spec_method_names,
		.depends = true,
		.help = "how weights are chosen, in place of a preset; `none` prunes nothing: it evaluates only, or, with "
			"`quantization`, "
			"rounds the weights",
		.label = "Method",
		.hint = "In place of a preset.",
		.option = {.name = "method", .argument = "METHOD"},
	},
	{
		.key = "sparsity",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct spec, sparsity),
		.range = {0, 0.95, 0.5},
		.depends = true,
		.parse = pattern_parse_sparsity,
		.help = "part of the weights to be zero; required unless `method` is `none`, which takes none but 0, or `pattern` "
			"says it",
		.label = "Sparsity",
		.hint = "Part of the weights to be zero, 0 to 0.95.",
		.start = "0.5",
		.example = "0.5",
		.option = {"sparsity", "S", 's', .percent = true, .help = "what part of the weights becomes zero: 0.5 or 50%"},
	},
	{
		.key = "pattern",
		.kind = SPEC_TEXT,
		SPEC_AT(struct spec, pattern_name),
		.limit = 12,
		.text = "unstructured",
		.parse = pattern_parse,
		.late = true, /* the model's columns must fit it */
		.help = "which weights of a row may be zero together: `unstructured` is any, `2:4` keeps 2 of each 4 neighbours",
		.more = "N:M with M up to 32, of which the columns of all linears must be multiples. Each row loses the same then, "
			"so that "
			"`besa` learns nothing and keeps the most important of each M, which a warning says. `sparsity` is 1 - "
			"N/M, and may "
			"be left out.",
		.label = "Pattern",
		.hint = "N:M as in 2:4, or unstructured.",
		.pattern = "^(unstructured|[1-9][0-9]?:[1-9][0-9]?)$",
		.example = "2:4",
		.option = {"pattern", "PATTERN",
			   .help = "unstructured, or N and M with a colon between; N of each M neighbours stay"},
	},
	{.key = "allocation", .kind = SPEC_SECTION, SPEC_AT(struct spec, allocation), .section = &spec_allocation},
	{.key = "besa", .kind = SPEC_SECTION, SPEC_AT(struct spec, besa), .section = &method_besa_settings, .late = true},
	METHOD_SETTINGS(SETTINGS_ROW) /* of methods that have some */
	{.key = "refit", .kind = SPEC_SECTION, SPEC_AT(struct spec, refit), .section = &stage_refit_settings},
	{.key = "quantization",
	 .kind = SPEC_SECTION,
	 SPEC_AT(struct spec, quantization),
	 .section = &spec_quantization,
	 .shown = is_quantized,
	 .late = true}, /* the model's columns must fit it */
	{.key = "calibration",
	 .kind = SPEC_SECTION,
	 SPEC_AT(struct spec, calibration),
	 .section = &spec_calibration,
	 .parse = parse_calibration},
	{.key = "evaluation", .kind = SPEC_SECTION, .section = &spec_evaluation},
	{.key = "hardware",
	 .kind = SPEC_SECTION,
	 SPEC_AT(struct spec, hardware),
	 .section = &spec_hardware,
	 .shown = asks_of_hardware},
	{.key = "progress", .kind = SPEC_SECTION, .section = &spec_progress},
	{.key = "notify", .kind = SPEC_SECTION, .section = &spec_notify, .shown = is_notified},
	{
		.key = "precision",
		.kind = SPEC_CHOICE,
		SPEC_AT(struct spec, precision),
		.names = precision_names,
		.range = {.standard = PRECISION_AUTO},
		.help = "of the matrix products; `auto` is `bf16` where the processor or device has products of its own for it",
		.group = "Pruning",
		.label = "Precision",
		.option = {.name = "precision", .argument = "P"},
	},
	{
		.key = "priority",
		.kind = SPEC_INT,
		SPEC_AT(struct spec, priority),
		.range = {-100, 100, 0},
		.help = "higher goes first",
		.group = "Queueing",
		.folded = true,
		.label = "Priority",
		.hint = "Higher goes first; −100 to 100.",
		.option = {"priority", "N", .help = "higher ones run first"},
	},
	{
		.key = "timeout_seconds",
		.kind = SPEC_NUMBER,
		SPEC_AT(struct spec, timeout_seconds),
		.range = {0, 1e9, 0},
		.help = "an attempt that runs longer fails with the code `timeout`; 0 for no limit",
		.label = "Time limit in seconds",
		.hint = "",
		.placeholder = "0, none",
		.option = {"timeout", "SECONDS", .help = "fail after so long; 0: never"},
	},
};

const struct spec_section spec_top = {
	SPEC_ROWS(rows),
	.settle = settle,
	.help = "What a client asks for. Fields that are left out or null take their defaults, which the job shows.",
};
