#include "engine/spec/spec.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/model/vet.h"
#include "engine/spec/apportion.h"
#include "engine/spec/fields.h"
#include "engine/text/field.h"
#include "engine/text/kind.h"

enum {
	MAX_NAME = 200,
	MAX_PATH_CHARACTERS = 1000,
	MAX_COMPONENT_BYTES = 200, /* of 255, so that {id} and {date} may expand */
	MAX_JOIN = 1000,
	MAX_FIELD_CHARACTERS = FIELD_MAX / 4,
	DEFAULT_SEQUENCE = 2048,
	DEFAULT_SAMPLES = 128,
	MAX_SAMPLES = 65536,
	MAX_CALIBRATION_TOKENS = 1 << 30,
	MAX_PROBE_EVERY = 10000,
	MAX_URL = 2000,
};

/* What the sigmoid's rates can reach: 0.5 ± 0.1224 (besa.md 2), and the targets for which "auto" takes it. */
static const double sigmoid_low = 0.3776, sigmoid_high = 0.6224, auto_low = 0.45, auto_high = 0.55;

#define METHOD_NAME(enumerator, name, ...) #name,
static const char *const method_names[] = {METHODS(METHOD_NAME) "none", NULL};
#define METHOD_DATA(enumerator, name, data, ...) data,
static const bool method_needs_data[] = {METHODS(METHOD_DATA) false};
static const char *const pattern_names[] = {"unstructured", NULL};
static const char *const granularity_names[] = {"row", "layer", NULL};
static const char *const importance_names[] = {"wanda", "magnitude", NULL};
static const char *const optimizer_names[] = {"prodigy", "adamw", NULL};
static const char *const target_names[] = {"block", "dense_stream", NULL};
static const char *const parameterization_names[] = {"sigmoid", "softmax", "auto", NULL};
static const char *const precision_names[] = {"auto", "f32", "bf16", NULL};
enum { PARAM_AUTO = PARAM_SOFTMAX + 1 };

/* What parsing carries along. */
struct parser {
	const struct roots *roots;
	struct spec *spec;
	int64_t max_positions; /* of the model; INT_MAX while it is unknown */
	bool no_memory;
};

static char *copy(struct parser *parser, const char *text)
{
	char *result = text ? strdup(text) : NULL;
	if (text && !result) parser->no_memory = true;
	return result;
}

/* ---- paths ------------------------------------------------------------------------------------------------------------- */

/* Looks a string field up below `roots`; false where it is missing or, with a problem, wrong. *ret_text is what the client wrote. */
static bool parse_path(struct parser *parser, const struct fields *fields, const char *key, char *const *roots, char **ret_text,
		       struct place *ret)
{
	struct error err;
	const char *text = fields_string(fields, key, MAX_PATH_CHARACTERS, false, NULL);
	if (!text) return false;
	*ret_text = copy(parser, text);
	enum status status = place_find(roots, parser->roots->here, text, ret, &err);
	if (status == STATUS_NO_MEMORY)
		parser->no_memory = true;
	else if (status == STATUS_NOT_FOUND && !parser->roots->here)
		fields_problem(fields, key, "%s, below none of the %s roots; GET /v1/%s lists what is", err.message,
			       roots == parser->roots->model ? "model" : "data", roots == parser->roots->model ? "models" : "data");
	else if (status != STATUS_OK)
		fields_problem(fields, key, "%s", err.message);
	return status == STATUS_OK;
}

static bool has_mode(const struct place *place, mode_t mode)
{
	struct stat st;
	struct error ignored;
	return place_stat(place, NULL, &st, &ignored) == STATUS_OK && (st.st_mode & S_IFMT) == mode;
}

/* Is that a file of a kind that can be read? A head of it tells, so it is told now and not when the job runs. */
static void check_data(struct parser *parser, const struct fields *fields, const struct dataset *dataset)
{
	struct error err;
	struct file file;
	enum data_kind kind;
	enum status status = place_open(&dataset->place, NULL, &file, &err);
	if (status == STATUS_OK) {
		status = data_kind_find(&file, dataset->path, &kind, NULL, &err);
		file_close(&file);
	}
	if (status == STATUS_OK) return;
	if (status == STATUS_NO_MEMORY) parser->no_memory = true;
	place_hide(&dataset->place, &err);
	fields_problem(fields, "path", "%s", err.message);
}

/* `path` of a data section. */
static void parse_data_path(struct parser *parser, const struct fields *fields, struct dataset *dataset)
{
	if (!parse_path(parser, fields, "path", parser->roots->data, &dataset->path, &dataset->place)) return;
	if (has_mode(&dataset->place, S_IFREG))
		check_data(parser, fields, dataset);
	else
		fields_problem(fields, "path", "'%s' is not a regular file", dataset->path);
}

/* `field` of a data section: where the text of a row is; `standard` where the client leaves it out. */
static char *parse_field(struct parser *parser, const struct fields *fields, const char *standard)
{
	const char *field = fields_string(fields, "field", MAX_FIELD_CHARACTERS, false, standard);
	if (!*field)
		fields_problem(fields, "field", "is empty; it must name the field of a row that holds its text, such as \"text\"");
	return copy(parser, field);
}

static void parse_model(struct parser *parser, const struct fields *fields)
{
	struct error err;
	struct model_config config;
	int64_t bytes;
	struct spec *spec = parser->spec;
	const struct place *place = &spec->model_place;
	if (!fields_get(fields, "model")) {
		fields_problem(fields, "model", "is required: a directory below the model roots; GET /v1/models lists them");
		return;
	}
	if (!parse_path(parser, fields, "model", parser->roots->model, &spec->model, &spec->model_place)) return;
	if (!has_mode(place, S_IFDIR)) {
		fields_problem(fields, "model", "'%s' is not a directory", spec->model);
	} else if (model_vet(place, NULL, &config, &bytes, &err) != STATUS_OK) {
		if (err.status == STATUS_NO_MEMORY) parser->no_memory = true;
		fields_problem(fields, "model", "%s", err.message);
	} else {
		parser->max_positions = config.max_positions;
	}
}

/* Why `text` cannot be a path below the output root, or NULL. */
static const char *output_objection(const char *text)
{
	const char *brace = text;
	if (*text == '/') return "must be a relative path";
	while ((brace = strpbrk(brace, "{}"))) {
		size_t length = strncmp(brace, "{id}", 4) == 0 ? 4 : strncmp(brace, "{date}", 6) == 0 ? 6 : 0;
		if (length == 0) return "may use {date} and {id}, and no other braces";
		brace += length;
	}
	for (;;) {
		size_t length = strcspn(text, "/");
		if (length == 0) return "must not have empty components";
		if (*text == '.') return "must not have components that begin with a dot";
		if (length > MAX_COMPONENT_BYTES) return "has a component that is too long";
		if (!text[length]) return NULL;
		text += length + 1;
	}
}

static void parse_output(struct parser *parser, const struct fields *fields)
{
	struct spec *spec = parser->spec;
	const char *text = fields_string(fields, "output", MAX_PATH_CHARACTERS, false, NULL);
	if (text) {
		const char *objection = output_objection(text);
		if (objection) fields_problem(fields, "output", "%s", objection);
		spec->output = copy(parser, text);
		return;
	}
	if (!spec->model_place.path) return;
	/* As the client wrote it where that can name an output, else the directory's own name. */
	char *whole = place_text(&spec->model_place, NULL);
	const char *base = spec->model, *slash = whole ? strrchr(whole, '/') : NULL;
	if (output_objection(base) && slash) base = slash + 1;
	if (output_objection(base)) base = "model";
	if (asprintf(&spec->output, "%s-%s-{id}", base, method_names[spec->method]) < 0) {
		spec->output = NULL;
		parser->no_memory = true;
	}
	free(whole);
}

/* ---- method and its settings ------------------------------------------------------------------------------------------------- */

/* A choice of which later versions know more: those are told apart from what is plainly wrong. */
static int parse_known_choice(const struct fields *fields, const char *key, const char *const *names, const char *const *later)
{
	const char *text = cJSON_GetStringValue(fields_get(fields, key));
	for (; text && *later; later++)
		if (strcmp(text, *later) == 0) {
			fields_problem(fields, key, "'%s' is not supported by this version", text);
			return 0;
		}
	return fields_choice(fields, key, names, 0);
}

static void parse_method(struct parser *parser, const struct fields *fields)
{
	static const char *const later_methods[] = {"sparsegpt", NULL}, *const later_patterns[] = {"2:4", "4:8", NULL};
	struct spec *spec = parser->spec;
	spec->method = (enum method_id)parse_known_choice(fields, "method", method_names, later_methods);
	parse_known_choice(fields, "pattern", pattern_names, later_patterns);
	if (fields_get(fields, "quantization")) fields_problem(fields, "quantization", "is not supported by this version");
	const cJSON *sparsity = fields_get(fields, "sparsity");
	if (spec->method == METHOD_NONE) {
		if (sparsity && !(cJSON_IsNumber(sparsity) && sparsity->valuedouble == 0))
			fields_problem(fields, "sparsity", "the method none prunes nothing: leave sparsity out");
		return;
	}
	if (!sparsity)
		fields_problem(fields, "sparsity",
			       "is required unless the method is none: what part of the weights becomes zero, as in 0.5");
	spec->sparsity = fields_number(fields, "sparsity", 0, 0.95, 0.5);
}

static void parse_besa(struct parser *parser, const struct fields *top)
{
	static const char *const known[] = {"granularity", "importance", "candidates",       "lambda",
					    "epochs",      "batch_size", "optimizer",        "learning_rate",
					    "d_coef",      "target",     "parameterization", NULL};
	struct spec *spec = parser->spec;
	struct fields fields = fields_section(top, "besa");
	fields_only(&fields, known);
	spec->besa.granularity = (enum granularity)fields_choice(&fields, "granularity", granularity_names, GRANULARITY_ROW);
	spec->besa.importance = (enum importance)fields_choice(&fields, "importance", importance_names, IMPORTANCE_WANDA);
	spec->besa.candidates = (int)fields_int(&fields, "candidates", 2, 256, 101);
	spec->besa.lambda = fields_number(&fields, "lambda", 0, 1e6, 5);
	spec->besa.epochs = (int)fields_int(&fields, "epochs", 1, 100, 1);
	spec->besa.batch_size = (int)fields_int(&fields, "batch_size", 1, spec->calibration.samples, 1);
	spec->besa.optimizer = (enum optimizer)fields_choice(&fields, "optimizer", optimizer_names, OPTIMIZER_PRODIGY);
	spec->besa.learning_rate = fields_number(&fields, "learning_rate", 1e-8, 10, 0.01);
	spec->besa.target = (enum target)fields_choice(&fields, "target", target_names, TARGET_BLOCK);

	int parameterization = fields_choice(&fields, "parameterization", parameterization_names, PARAM_AUTO);
	if (parameterization == PARAM_AUTO)
		parameterization = spec->sparsity >= auto_low && spec->sparsity <= auto_high ? PARAM_SIGMOID : PARAM_SOFTMAX;
	else if (parameterization == PARAM_SIGMOID && spec->method == METHOD_BESA &&
		 (spec->sparsity < sigmoid_low || spec->sparsity > sigmoid_high))
		fields_problem(&fields, "parameterization", "sigmoid reaches sparsities from %g to %g only", sigmoid_low,
			       sigmoid_high);
	spec->besa.parameterization = (enum parameterization)parameterization;
	spec->besa.d_coef = fields_number(&fields, "d_coef", 1e-6, 1e6, parameterization == PARAM_SIGMOID ? 5 : 50);
}

/* ---- data -------------------------------------------------------------------------------------------------------------------- */

static int parse_sequence_length(struct parser *parser, const struct fields *fields)
{
	int64_t high = parser->max_positions;
	return (int)fields_int(fields, "sequence_length", 2, high, high < DEFAULT_SEQUENCE ? high : DEFAULT_SEQUENCE);
}

/* A calibration file below the data roots, or the operator's own: that may lie outside them, and a spec that was shown to a client, and
 * comes back, names it. `path` is what the client wrote, or the operator's where it wrote none. */
static void parse_source(struct parser *parser, const struct fields *fields, const char *path, struct source *source)
{
	const char *standard = parser->roots->calibration;
	struct dataset file = {0};
	if (path && standard && strcmp(path, standard) == 0) {
		file.path = copy(parser, standard);
		file.place = PLACE(copy(parser, standard));
		if (!file.place.path || !has_mode(&file.place, S_IFREG))
			fields_problem(fields, "path", "the daemon's --calibration file '%s' is not there", standard);
	} else {
		parse_data_path(parser, fields, &file);
	}
	source->path = file.path;
	source->place = file.place;
}

static void parse_sources(struct parser *parser, const struct fields *fields, const cJSON *list, const char *field)
{
	static const char *const known[] = {"path", "weight", "field", NULL};
	struct calibration *calibration = &parser->spec->calibration;
	calibration->mixed = true;
	if (fields_get(fields, "path")) fields_problem(fields, "sources", "and 'path' exclude each other");
	if (!cJSON_IsArray(list) || !cJSON_GetArraySize(list) || cJSON_GetArraySize(list) > SPEC_MAX_SOURCES) {
		fields_problem(fields, "sources", "must be a list of 1 to %d files", SPEC_MAX_SOURCES);
		return;
	}
	for (int i = 0; i < cJSON_GetArraySize(list); i++) {
		struct fields element = fields_element(fields, "sources", i);
		struct source *source = &calibration->sources[calibration->n_sources++];
		source->weight = 1;
		if (!element.object) continue;
		fields_only(&element, known);
		if (!fields_get(&element, "path")) fields_problem(&element, "path", "is required");
		parse_source(parser, &element, cJSON_GetStringValue(fields_get(&element, "path")), source);
		source->weight = fields_number(&element, "weight", 1e-6, 1e6, 1);
		source->field = parse_field(parser, &element, field);
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

static void parse_calibration(struct parser *parser, const struct fields *top)
{
	static const char *const known[] = {"path", "sources", "field", "samples", "sequence_length", "seed", NULL};
	struct calibration *calibration = &parser->spec->calibration;
	struct fields fields = fields_section(top, "calibration");
	const char *standard = parser->roots->calibration;
	const cJSON *path = fields_get(&fields, "path"), *sources = fields_get(&fields, "sources");
	bool needed = method_needs_data[parser->spec->method];
	fields_only(&fields, known);
	calibration->samples = (int)fields_int(&fields, "samples", 1, MAX_SAMPLES, DEFAULT_SAMPLES);
	calibration->seed = fields_int(&fields, "seed", 0, ((int64_t)1 << 53) - 1, 0);
	calibration->sequence_length = parse_sequence_length(parser, &fields);
	char *field = parse_field(parser, &fields, "text");
	if (sources) {
		parse_sources(parser, &fields, sources, field && *field ? field : "text");
	} else if (path || (needed && standard)) {
		calibration->n_sources = 1;
		calibration->sources[0].weight = 1;
		parse_source(parser, &fields, path ? cJSON_GetStringValue(path) : standard, &calibration->sources[0]);
		calibration->sources[0].field = copy(parser, field);
	} else if (needed) {
		fields_problem(&fields, "path", "is required: the daemon was started without --calibration");
	}
	free(field);
	share_samples(&fields, calibration);
	if ((int64_t)calibration->samples * calibration->sequence_length > MAX_CALIBRATION_TOKENS)
		fields_problem(&fields, "samples", "samples × sequence_length must be at most %d", MAX_CALIBRATION_TOKENS);
}

/* "data/wiki.test.txt.gz" → "wiki.test": the base name without its kind, other characters than [A-Za-z0-9_.-] replaced. */
static char *default_dataset_name(struct parser *parser, const char *path)
{
	static const char *const kinds[] = {".gz", ".zst", ".txt", ".json", ".jsonl", ".ndjson", ".safetensors"};
	const char *slash = strrchr(path, '/');
	char *name = copy(parser, slash ? slash + 1 : path);
	if (!name) return NULL;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		size_t length = strlen(name), tail = strlen(kinds[i]);
		if (length > tail && strcmp(name + length - tail, kinds[i]) == 0) name[length - tail] = 0;
	}
	if (strlen(name) > 64) name[64] = 0;
	for (char *s = name; *s; s++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-", *s)) *s = '_';
	return name;
}

static bool is_name(const char *text)
{
	return *text && !text[strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-")];
}

static void parse_dataset_name(struct parser *parser, const struct fields *fields, struct dataset *dataset)
{
	const char *text = fields_string(fields, "name", 64, false, NULL);
	if (text && !is_name(text))
		fields_problem(fields, "name", "must be letters, digits and _.- only");
	else
		dataset->name = text ? copy(parser, text) : dataset->path ? default_dataset_name(parser, dataset->path) : NULL;
	const struct dataset *all = parser->spec->perplexity;
	for (const struct dataset *other = all; other < dataset && dataset->name; other++)
		if (other->name && strcmp(other->name, dataset->name) == 0) {
			fields_problem(fields, "name", "'%s' is the name of an earlier data set; names must differ", dataset->name);
			return;
		}
}

static void parse_task(struct parser *parser, const struct fields *fields, struct task *task)
{
	static const char *const known[] = {"name", "path", "format", "limit", NULL};
	struct dataset file = {0};
	fields_only(fields, known);
	if (!fields_get(fields, "path")) fields_problem(fields, "path", "is required");
	parse_data_path(parser, fields, &file);
	const char *text = fields_string(fields, "name", 64, false, NULL);
	if (text && !is_name(text))
		fields_problem(fields, "name", "must be letters, digits and _.- only");
	else
		task->name = text ? copy(parser, text) : file.path ? default_dataset_name(parser, file.path) : NULL;
	task->path = file.path;
	task->place = file.place;
	task->format = (enum task_format)fields_choice(fields, "format", task_format_names, TASK_CHOICES);
	task->limit = fields_int(fields, "limit", 0, INT32_MAX, 0);
	for (const struct task *other = parser->spec->tasks; other < task && task->name; other++)
		if (other->name && strcmp(other->name, task->name) == 0) {
			fields_problem(fields, "name", "'%s' is the name of an earlier task; names must differ", task->name);
			return;
		}
}

static void parse_tasks(struct parser *parser, const struct fields *fields)
{
	const cJSON *list = fields_get(fields, "tasks");
	if (!list) return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > SPEC_MAX_TASKS) {
		fields_problem(fields, "tasks", "must be a list of at most %d tasks", SPEC_MAX_TASKS);
		return;
	}
	for (int i = 0; i < cJSON_GetArraySize(list); i++) {
		struct fields element = fields_element(fields, "tasks", i);
		struct task *task = &parser->spec->tasks[parser->spec->n_tasks++];
		if (element.object) parse_task(parser, &element, task);
	}
}

static void parse_evaluation(struct parser *parser, const struct fields *top)
{
	static const char *const known[] = {"perplexity", "tasks", NULL};
	static const char *const known_dataset[] = {"name", "path", "sequence_length", "join", "field", NULL};
	struct spec *spec = parser->spec;
	struct fields fields = fields_section(top, "evaluation");
	fields_only(&fields, known);
	parse_tasks(parser, &fields);
	const cJSON *list = fields_get(&fields, "perplexity");
	if (!list) return;
	if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > SPEC_MAX_DATASETS) {
		fields_problem(&fields, "perplexity", "must be a list of at most %d data sets", SPEC_MAX_DATASETS);
		return;
	}
	for (int i = 0; i < cJSON_GetArraySize(list); i++) {
		struct fields element = fields_element(&fields, "perplexity", i);
		struct dataset *dataset = &spec->perplexity[spec->n_perplexity++];
		if (!element.object) continue;
		fields_only(&element, known_dataset);
		if (!fields_get(&element, "path")) fields_problem(&element, "path", "is required");
		parse_data_path(parser, &element, dataset);
		parse_dataset_name(parser, &element, dataset);
		dataset->sequence_length = parse_sequence_length(parser, &element);
		dataset->join = copy(parser, fields_string(&element, "join", MAX_JOIN, true, "\n\n"));
		dataset->field = parse_field(parser, &element, "text");
	}
}

/* How often the progress perplexity is taken: "auto" or a whole number, 0 for never. */
static void parse_progress(struct parser *parser, const struct fields *top)
{
	static const char *const known[] = {"perplexity_every", NULL};
	struct fields fields = fields_section(top, "progress");
	fields_only(&fields, known);
	const cJSON *every = fields_get(&fields, "perplexity_every");
	parser->spec->probe_every = PROBE_AUTO;
	if (!every || (cJSON_IsString(every) && strcmp(every->valuestring, "auto") == 0)) return;
	if (cJSON_IsNumber(every))
		parser->spec->probe_every = (int)fields_int(&fields, "perplexity_every", 0, MAX_PROBE_EVERY, PROBE_NEVER);
	else
		fields_problem(&fields, "perplexity_every", "must be \"auto\" or a whole number of blocks, 0 for never");
}

/* Which hosts may be told is the daemon's to say; here it must only be a web address. */
static void parse_notify(struct parser *parser, const struct fields *top)
{
	static const char *const known[] = {"url", NULL};
	struct fields fields = fields_section(top, "notify");
	fields_only(&fields, known);
	const char *url = fields_string(&fields, "url", MAX_URL, false, NULL);
	if (!url) {
		if (fields.object && !fields_get(&fields, "url")) fields_problem(&fields, "url", "is required");
		return;
	}
	bool web = strncmp(url, "http://", 7) == 0 || strncmp(url, "https://", 8) == 0;
	for (const char *c = url; *c; c++)
		web = web && *c > 0x20 && *c < 0x7f;
	if (!web)
		fields_problem(&fields, "url", "must be an http:// or https:// address in ASCII");
	else
		parser->spec->notify_url = copy(parser, url);
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

enum status spec_parse(const cJSON *json, const struct roots *roots, struct spec **ret, struct spec_problems *problems,
		       struct error *err)
{
	static const char *const known[] = {"name",    "model",     "output",       "overwrite",       "method",     "sparsity",
					    "pattern", "besa",      "quantization", "calibration",     "evaluation", "progress",
					    "notify",  "precision", "priority",     "timeout_seconds", NULL};
	struct spec *spec = calloc(1, sizeof *spec);
	struct parser parser = {.roots = roots, .spec = spec, .max_positions = INT_MAX};
	struct fields fields = {.problems = problems, .object = json};
	if (!spec) return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	if (cJSON_IsObject(json)) {
		fields_only(&fields, known);
		spec->name = copy(&parser, fields_string(&fields, "name", MAX_NAME, false, ""));
		parse_method(&parser, &fields);
		parse_model(&parser, &fields);
		parse_output(&parser, &fields);
		spec->overwrite = fields_bool(&fields, "overwrite", false);
		parse_calibration(&parser, &fields);
		parse_besa(&parser, &fields);
		parse_evaluation(&parser, &fields);
		parse_progress(&parser, &fields);
		parse_notify(&parser, &fields);
		spec->precision = (enum precision)fields_choice(&fields, "precision", precision_names, PRECISION_AUTO);
		spec->priority = (int)fields_int(&fields, "priority", -100, 100, 0);
		spec->timeout_seconds = fields_number(&fields, "timeout_seconds", 0, 1e9, 0);
	} else {
		fields_problem(&fields, NULL, "must be a JSON object");
	}

	enum status status = STATUS_OK;
	if (parser.no_memory || problems->no_memory)
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	else if (problems->count > 0)
		status = error_set(err, STATUS_INVALID, "%s: %s%s", problems->items[0].pointer, problems->items[0].detail,
				   problems->count > 1 ? " (and more)" : "");
	if (status != STATUS_OK) {
		spec_free(spec);
		return status;
	}
	*ret = spec;
	return STATUS_OK;
}

/* Adds `item` to `object`; frees it and clears *ok when that fails. */
static void add(cJSON *object, const char *key, cJSON *item, bool *ok)
{
	if (item && cJSON_AddItemToObject(object, key, item)) return;
	cJSON_Delete(item);
	*ok = false;
}

static void add_string(cJSON *object, const char *key, const char *text, bool *ok)
{
	if (text) add(object, key, cJSON_CreateString(text), ok);
}

static void add_number(cJSON *object, const char *key, double number, bool *ok)
{
	add(object, key, cJSON_CreateNumber(number), ok);
}

static cJSON *besa_to_json(const struct spec *spec, bool *ok)
{
	cJSON *besa = cJSON_CreateObject();
	add_string(besa, "granularity", granularity_names[spec->besa.granularity], ok);
	add_string(besa, "importance", importance_names[spec->besa.importance], ok);
	add_number(besa, "candidates", spec->besa.candidates, ok);
	add_number(besa, "lambda", spec->besa.lambda, ok);
	add_number(besa, "epochs", spec->besa.epochs, ok);
	add_number(besa, "batch_size", spec->besa.batch_size, ok);
	add_string(besa, "optimizer", optimizer_names[spec->besa.optimizer], ok);
	add_number(besa, "d_coef", spec->besa.d_coef, ok);
	add_number(besa, "learning_rate", spec->besa.learning_rate, ok);
	add_string(besa, "target", target_names[spec->besa.target], ok);
	add_string(besa, "parameterization", parameterization_names[spec->besa.parameterization], ok);
	return besa;
}

static cJSON *sources_to_json(const struct calibration *calibration, bool *ok)
{
	cJSON *sources = cJSON_CreateArray();
	for (int i = 0; i < calibration->n_sources; i++) {
		cJSON *source = cJSON_CreateObject();
		add_string(source, "path", calibration->sources[i].path, ok);
		add_number(source, "weight", calibration->sources[i].weight, ok);
		add_string(source, "field", calibration->sources[i].field, ok);
		if (!cJSON_AddItemToArray(sources, source)) *ok = false;
	}
	return sources;
}

static cJSON *calibration_to_json(const struct spec *spec, bool *ok)
{
	const struct calibration *calibration = &spec->calibration;
	cJSON *json = cJSON_CreateObject();
	if (calibration->mixed) {
		add(json, "sources", sources_to_json(calibration, ok), ok);
	} else {
		add_string(json, "path", calibration->sources[0].path, ok);
		add_string(json, "field", calibration->sources[0].field, ok);
	}
	add_number(json, "samples", calibration->samples, ok);
	add_number(json, "sequence_length", calibration->sequence_length, ok);
	add_number(json, "seed", (double)calibration->seed, ok);
	return json;
}

static cJSON *tasks_to_json(const struct spec *spec, bool *ok)
{
	cJSON *tasks = cJSON_CreateArray();
	for (int i = 0; i < spec->n_tasks; i++) {
		cJSON *task = cJSON_CreateObject();
		add_string(task, "name", spec->tasks[i].name, ok);
		add_string(task, "path", spec->tasks[i].path, ok);
		add_string(task, "format", task_format_names[spec->tasks[i].format], ok);
		add_number(task, "limit", (double)spec->tasks[i].limit, ok);
		cJSON_AddItemToArray(tasks, task);
	}
	return tasks;
}

static cJSON *evaluation_to_json(const struct spec *spec, bool *ok)
{
	cJSON *evaluation = cJSON_CreateObject(), *list = cJSON_CreateArray();
	for (int i = 0; i < spec->n_perplexity; i++) {
		const struct dataset *dataset = &spec->perplexity[i];
		cJSON *element = cJSON_CreateObject();
		add_string(element, "name", dataset->name, ok);
		add_string(element, "path", dataset->path, ok);
		add_number(element, "sequence_length", dataset->sequence_length, ok);
		add_string(element, "join", dataset->join, ok);
		add_string(element, "field", dataset->field, ok);
		if (!element || !cJSON_AddItemToArray(list, element)) {
			cJSON_Delete(element);
			*ok = false;
		}
	}
	add(evaluation, "perplexity", list, ok);
	if (spec->n_tasks) add(evaluation, "tasks", tasks_to_json(spec, ok), ok);
	return evaluation;
}

static cJSON *progress_to_json(const struct spec *spec, bool *ok)
{
	cJSON *progress = cJSON_CreateObject();
	if (spec->probe_every == PROBE_AUTO)
		add_string(progress, "perplexity_every", "auto", ok);
	else
		add_number(progress, "perplexity_every", spec->probe_every, ok);
	return progress;
}

cJSON *spec_to_json(const struct spec *spec)
{
	bool ok = true;
	cJSON *json = cJSON_CreateObject();
	add_string(json, "name", spec->name, &ok);
	add_string(json, "model", spec->model, &ok);
	add_string(json, "output", spec->output, &ok);
	add(json, "overwrite", cJSON_CreateBool(spec->overwrite), &ok);
	add_string(json, "method", method_names[spec->method], &ok);
	add_number(json, "sparsity", spec->sparsity, &ok);
	add_string(json, "pattern", pattern_names[0], &ok);
	add(json, "besa", besa_to_json(spec, &ok), &ok);
	add(json, "calibration", calibration_to_json(spec, &ok), &ok);
	add(json, "evaluation", evaluation_to_json(spec, &ok), &ok);
	add(json, "progress", progress_to_json(spec, &ok), &ok);
	if (spec->notify_url) {
		cJSON *notify = cJSON_CreateObject();
		add_string(notify, "url", spec->notify_url, &ok);
		add(json, "notify", notify, &ok);
	}
	add_string(json, "precision", precision_names[spec->precision], &ok);
	add_number(json, "priority", spec->priority, &ok);
	add_number(json, "timeout_seconds", spec->timeout_seconds, &ok);
	if (ok) return json;
	cJSON_Delete(json);
	return NULL;
}

static void dataset_free(struct dataset *dataset)
{
	free(dataset->name);
	free(dataset->path);
	place_free(&dataset->place);
	free(dataset->join);
	free(dataset->field);
}

void spec_free(struct spec *spec)
{
	if (!spec) return;
	for (int i = 0; i < spec->n_tasks; i++) {
		free(spec->tasks[i].name);
		free(spec->tasks[i].path);
		place_free(&spec->tasks[i].place);
	}
	free(spec->notify_url);
	free(spec->name);
	free(spec->model);
	free(spec->output);
	place_free(&spec->model_place);
	for (int i = 0; i < spec->calibration.n_sources; i++) {
		free(spec->calibration.sources[i].path);
		place_free(&spec->calibration.sources[i].place);
		free(spec->calibration.sources[i].field);
	}
	for (int i = 0; i < spec->n_perplexity; i++)
		dataset_free(&spec->perplexity[i]);
	free(spec);
}
