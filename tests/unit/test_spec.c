/* Job specs: defaults, every field's limits under its JSON pointer, paths below the roots, and the way back to JSON. */
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/methods/admm/settings.h"
#include "engine/spec/restore.h"
#include "engine/spec/sections.h"
#include "engine/spec/spec.h"

static const char config_json[] =
	"{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":160,\"num_hidden_layers\":2,"
	"\"num_attention_heads\":4,\"vocab_size\":100,\"tie_word_embeddings\":true,\"max_position_embeddings\":512}";

struct fixture {
	struct scratch scratch;
	char models[96], more_models[96], data[96], out[96], calibration[96];
	char *model_roots[3], *data_roots[2];
	struct roots roots;
	struct spec_problems problems;
};

static void write_model(struct scratch *s, const char *directory, const char *config)
{
	char name[128];
	snprintf(name, sizeof name, "%s/config.json", directory);
	assert_int_equal(mkdir(scratch_path(s, directory), 0700), 0);
	scratch_text(s, name, config);
	snprintf(name, sizeof name, "%s/model.safetensors", directory);
	scratch_llama(s, name, 64, 160, 2, 100);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	struct scratch *s = &f->scratch;
	strcpy(s->directory, "/tmp/besad-test-XXXXXX");
	assert_non_null(mkdtemp(s->directory));
	snprintf(f->models, sizeof f->models, "%s/models", s->directory);
	snprintf(f->more_models, sizeof f->more_models, "%s/more", s->directory);
	snprintf(f->data, sizeof f->data, "%s/data", s->directory);
	snprintf(f->out, sizeof f->out, "%s/out", s->directory);
	snprintf(f->calibration, sizeof f->calibration, "%s/standard.txt", s->directory);
	assert_int_equal(mkdir(f->models, 0700) | mkdir(f->more_models, 0700) | mkdir(f->data, 0700), 0);
	write_model(s, "models/tiny", config_json);
	write_model(s, "more/other", config_json);
	write_model(s, "secret", config_json);
	scratch_text(s, "data/c4.json", "{\"text\":\"a\"}\n");
	scratch_text(s, "data/wiki.test.txt", "b");
	scratch_text(s, "standard.txt", "c");
	f->model_roots[0] = f->models;
	f->model_roots[1] = f->more_models;
	f->data_roots[0] = f->data;
	f->roots = (struct roots){.model = f->model_roots, .data = f->data_roots, .output = f->out, .calibration = f->calibration};
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	spec_problems_free(&f->problems);
	SUCCEEDS(directory_remove(s->directory, &s->err));
	free(f);
	return 0;
}

static enum status parse(struct fixture *f, const char *text, struct spec **ret)
{
	struct scratch *s = &f->scratch;
	cJSON *json = NULL;
	spec_problems_free(&f->problems);
	SUCCEEDS(json_parse(text, strlen(text), "spec", &json, &s->err));
	enum status status = spec_parse(json, &f->roots, ret, &f->problems, &s->err);
	cJSON_Delete(json);
	return status;
}

static struct spec *parsed(struct fixture *f, const char *text)
{
	struct spec *spec = NULL;
	if (parse(f, text, &spec) != STATUS_OK) fail_msg("%s: %s", text, f->scratch.err.message);
	assert_int_equal(f->problems.count, 0);
	return spec;
}

/* The spec has exactly one problem, at `pointer`, with `part` in its text. */
static void assert_problem(struct fixture *f, const char *text, const char *pointer, const char *part)
{
	struct spec *spec = NULL;
	enum status status = parse(f, text, &spec);
	if (status != STATUS_INVALID) fail_msg("%s: %s; expected a problem at %s", text, status_name(status), pointer);
	assert_null(spec);
	if (f->problems.count != 1 || strcmp(f->problems.items[0].pointer, pointer) != 0 ||
	    !strstr(f->problems.items[0].detail, part))
		fail_msg("%s: %d problems, the first at %s: %s; expected %s: %s", text, f->problems.count,
			 f->problems.items[0].pointer, f->problems.items[0].detail, pointer, part);
}

static void test_defaults(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5}");
	char *real = realpath(scratch_path(&f->scratch, "models/tiny"), NULL);
	assert_string_equal(spec->name, "");
	assert_string_equal(spec->model, "tiny");
	char *whole = place_text(&spec->model_place, NULL);
	assert_string_equal(whole, real);
	free(whole);
	assert_string_equal(spec->output, "tiny-besa-{id}");
	assert_false(spec->overwrite);
	assert_int_equal(spec->method, METHOD_BESA);
	assert_true(spec->sparsity == 0.5);
	assert_int_equal(spec->besa.granularity, GRANULARITY_ROW);
	assert_int_equal(spec->besa.rows_per_group, 1);
	assert_int_equal(spec->besa.reconstruct, RECONSTRUCT_BLOCK);
	assert_int_equal(spec->besa.importance, IMPORTANCE_WANDA);
	assert_int_equal(spec->besa.candidates, 101);
	assert_true(spec->besa.lambda == 5);
	assert_int_equal(spec->besa.epochs, 1);
	assert_int_equal(spec->besa.batch_size, 1);
	assert_int_equal(spec->besa.optimizer, OPTIMIZER_PRODIGY);
	assert_int_equal(spec->besa.target, TARGET_BLOCK);
	assert_int_equal(spec->besa.parameterization, PARAM_SIGMOID);
	assert_true(spec->besa.d_coef == 5);
	assert_string_equal(spec->calibration.sources[0].path, f->calibration);
	assert_non_null(spec->calibration.sources[0].place.path);
	assert_int_equal(spec->calibration.samples, 128);
	assert_int_equal(spec->calibration.sequence_length, 512); /* the model's, below 2048 */
	assert_int_equal(spec->calibration.seed, 0);
	assert_int_equal(spec->n_perplexity, 0);
	assert_int_equal(spec->precision, PRECISION_AUTO);
	assert_int_equal(spec->priority, 0);
	assert_true(spec->timeout_seconds == 0);
	spec_free(spec);
	free(real);
	spec_free(NULL);
}

/* What a spec becomes whose fields on how to prune are `fields`. */
static struct spec *pruned_by(struct fixture *f, const char *fields)
{
	char text[400];
	snprintf(text, sizeof text, "{\"model\":\"tiny\",\"sparsity\":0.5%s}", fields);
	return parsed(f, text);
}

static void test_presets(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *fields, *output;
		enum method_id method;
		enum refit_method refit;
	} cases[] = {
		{"", "tiny-balanced-{id}", METHOD_ADMM, REFIT_BLOCK},
		{",\"preset\":null,\"method\":null,\"besa\":null", "tiny-balanced-{id}", METHOD_ADMM, REFIT_BLOCK},
		{",\"preset\":\"balanced\"", "tiny-balanced-{id}", METHOD_ADMM, REFIT_BLOCK},
		{",\"preset\":\"fast\"", "tiny-fast-{id}", METHOD_ADMM, REFIT_NONE},
		{",\"preset\":\"best\"", "tiny-best-{id}", METHOD_ADMM, REFIT_GLOBAL},
		{",\"preset\":\"best\",\"quantization\":{\"bits\":4}", "tiny-best-{id}", METHOD_ADMM, REFIT_GLOBAL},
		{",\"preset\":\"best\",\"quantization\":{\"bits\":4,\"rounding\":\"feedback\"}", "tiny-best-{id}", METHOD_ADMM,
		 REFIT_BLOCK},
		{",\"preset\":\"best\",\"quantization\":null", "tiny-best-{id}", METHOD_ADMM, REFIT_GLOBAL},
		{",\"preset\":\"fast\",\"quantization\":{\"bits\":4}", "tiny-fast-{id}", METHOD_ADMM, REFIT_NONE},
		{",\"preset\":\"paper\"", "tiny-paper-{id}", METHOD_BESA, REFIT_NONE},
		{",\"preset\":\"balanced\",\"refit\":{\"method\":\"none\"}", "tiny-balanced-{id}", METHOD_ADMM, REFIT_NONE},
		{",\"preset\":\"fast\",\"refit\":{\"method\":\"block\"}", "tiny-fast-{id}", METHOD_ADMM, REFIT_BLOCK},
		{",\"besa\":{}", "tiny-besa-{id}", METHOD_BESA, REFIT_NONE},
		{",\"method\":\"wanda\"", "tiny-wanda-{id}", METHOD_WANDA, REFIT_NONE},
		{",\"method\":\"wanda\",\"refit\":{\"method\":\"block\"}", "tiny-wanda-{id}", METHOD_WANDA, REFIT_BLOCK},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct spec *spec = pruned_by(f, cases[i].fields);
		assert_int_equal(spec->method, cases[i].method);
		assert_int_equal(spec->refit.method, cases[i].refit);
		assert_string_equal(spec->output, cases[i].output);
		spec_free(spec);
	}
	struct spec *best = pruned_by(f, ",\"preset\":\"best\""), *paper = pruned_by(f, ",\"preset\":\"paper\""),
		    *few = pruned_by(f, ",\"preset\":\"best\",\"calibration\":{\"samples\":7}");
	assert_int_equal(best->calibration.samples, 512);
	assert_int_equal(few->calibration.samples, 7);
	assert_false(paper->besa.safeguards);
	spec_free(paper);
	spec_free(best);
	spec_free(few);
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"preset\":\"fast\",\"method\":\"wanda\"}", "/preset",
		       "exclude each other");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"preset\":\"slow\"}", "/preset", "fast");
	assert_problem(
		f,
		"{\"model\":\"tiny\",\"sparsity\":0.5,\"preset\":\"best\",\"quantization\":{\"bits\":4,\"rounding\":\"feedback\"},"
		"\"refit\":{\"method\":\"global\"}}",
		"/quantization/rounding", "trains weights through rounding to the nearest");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"preset\":3}", "/preset", "fast");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"preset\":\"best\",\"refit\":7}", "/refit", "object");
}

/* What was stored is taken as it is. */
static void test_stored_specs_have_no_preset(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	struct spec *spec = pruned_by(f, ",\"preset\":\"fast\""), *restored;
	cJSON *json = spec_to_json(spec), *again;
	assert_null(cJSON_GetObjectItem(json, "preset"));
	SUCCEEDS(spec_restore(json, NULL, &f->roots, &restored, &s->err));
	again = spec_to_json(restored);
	assert_true(cJSON_Compare(json, again, true));
	/* One of a version that had no presets, and besa for what named no method. */
	cJSON_DeleteItemFromObject(json, "method");
	spec_free(restored);
	SUCCEEDS(spec_restore(json, NULL, &f->roots, &restored, &s->err));
	assert_int_equal(restored->method, METHOD_BESA);
	cJSON_Delete(json);
	cJSON_Delete(again);
	spec_free(spec);
	spec_free(restored);
}

static void test_dependent_defaults(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *besa;
		enum parameterization parameterization;
		double d_coef;
	} cases[] = {{"", PARAM_SIGMOID, 5},
		     {"\"parameterization\":\"auto\"", PARAM_SIGMOID, 5},
		     {"\"parameterization\":\"softmax\"", PARAM_SOFTMAX, 50},
		     {"\"parameterization\":\"softmax\",\"d_coef\":7", PARAM_SOFTMAX, 7}};
	char text[256];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(text, sizeof text, "{\"model\":\"tiny\",\"sparsity\":0.7,\"besa\":{%s}}", cases[i].besa);
		struct spec *spec = parsed(f, text);
		assert_int_equal(spec->besa.parameterization, cases[i].parameterization);
		assert_true(spec->besa.d_coef == cases[i].d_coef);
		spec_free(spec);
	}
	for (int iterations = 10; iterations <= 40; iterations += 30) { /* of ADMM: the ramp ends with them at the latest */
		snprintf(text, sizeof text,
			 "{\"model\":\"tiny\",\"sparsity\":0.7,\"method\":\"admm\",\"admm\":{\"iterations\":%d}}", iterations);
		struct spec *admm = parsed(f, text);
		const struct admm_settings *settings = spec_settings(admm, &method_admm_settings);
		assert_int_equal(settings->ramp, iterations < 15 ? iterations : 15);
		spec_free(admm);
	}
	struct spec *spec = parsed(f, "{\"model\":\"other\",\"method\":\"none\"}"); /* found in the second root; no sparsity */
	assert_string_equal(spec->output, "other-none-{id}");
	assert_null(spec->calibration.sources[0].path);
	spec_free(spec);
	scratch_text(&f->scratch, "data/wiki.json.gz", "x");
	scratch_text(&f->scratch, "data/a b!.txt", "x");
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"none\",\"evaluation\":{\"perplexity\":[{\"path\":\"wiki.test.txt\"},"
			 "{\"path\":\"wiki.json.gz\",\"sequence_length\":100,\"join\":\" \"},{\"path\":\"a b!.txt\"}]}}");
	assert_int_equal(spec->n_perplexity, 3);
	assert_string_equal(spec->perplexity[0].name, "wiki.test");
	assert_string_equal(spec->perplexity[0].join, "\n\n");
	assert_int_equal(spec->perplexity[0].sequence_length, 512);
	assert_string_equal(spec->perplexity[1].name, "wiki");
	assert_int_equal(spec->perplexity[1].sequence_length, 100);
	assert_string_equal(spec->perplexity[1].join, " ");
	assert_string_equal(spec->perplexity[2].name, "a_b_");
	spec_free(spec);
}

/* The model's linears have 64 and 160 columns. */
static void test_quantization(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5}");
	cJSON *json = spec_to_json(spec);
	assert_int_equal(spec->quantization.bits, 0);
	assert_null(cJSON_GetObjectItem(json, "quantization"));
	cJSON_Delete(json);
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5,\"quantization\":{\"bits\":3}}");
	assert_int_equal(spec->quantization.group_size, 32);
	assert_int_equal(spec->quantization.order, QUANTIZE_JOINTLY);
	assert_true(spec->quantization.symmetric);
	json = spec_to_json(spec);
	cJSON *places = spec_places(spec);
	char *shown = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "quantization"));
	assert_string_equal(
		shown, "{\"bits\":3,\"group_size\":32,\"symmetric\":true,\"order\":\"joint\",\"rounding\":\"nearest\",\"format\":"
		       "\"dequantized\"}");
	spec_free(spec);
	assert_int_equal(spec_restore(json, places, &f->roots, &spec, &f->scratch.err), STATUS_OK);
	assert_int_equal(spec->quantization.group_size, 32);
	assert_int_equal(spec->quantization.order, QUANTIZE_JOINTLY);
	free(shown);
	cJSON_Delete(places);
	cJSON_Delete(json);
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5,\"refit\":{\"method\":\"block\"},"
			 "\"quantization\":{\"bits\":8,\"group_size\":\"channel\",\"symmetric\":false}}");
	assert_int_equal(spec->quantization.group_size, GROUP_IS_CHANNEL);
	assert_int_equal(spec->quantization.order, QUANTIZE_JOINTLY);
	assert_false(spec->quantization.symmetric);
	assert_int_equal(spec->quantization.format, QUANTIZATION_PACKED);
	json = spec_to_json(spec);
	places = spec_places(spec);
	spec_free(spec);
	assert_int_equal(spec_restore(json, places, &f->roots, &spec, &f->scratch.err), STATUS_OK);
	assert_int_equal(spec->quantization.format, QUANTIZATION_PACKED);
	spec_free(spec);
	/* As a besad stored it that did not pack. */
	cJSON_DeleteItemFromObject(cJSON_GetObjectItem(json, "quantization"), "format");
	cJSON_DeleteItemFromObject(cJSON_GetObjectItem(json, "quantization"), "rounding");
	assert_int_equal(spec_restore(json, places, &f->roots, &spec, &f->scratch.err), STATUS_OK);
	assert_int_equal(spec->quantization.format, QUANTIZATION_DEQUANTIZED);
	assert_int_equal(spec->quantization.rounding, ROUND_TO_NEAREST);
	spec_free(spec);
	cJSON_Delete(places);
	cJSON_Delete(json);
	spec = parsed(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"quantization\":{\"bits\":4,\"format\":\"dequantized\"}}");
	assert_int_equal(spec->quantization.format, QUANTIZATION_DEQUANTIZED);
	spec_free(spec);
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"quantization\":{\"bits\":3,\"format\":\"packed\"}}",
		       "/quantization/format", "only 4 and 8 bits can be");
	assert_problem(f,
		       "{\"model\":\"tiny\",\"method\":\"wanda\",\"sparsity\":0.5,\"quantization\":{\"bits\":4,\"group_size\":64}}",
		       "/quantization/group_size", "64 does not divide the columns of 'mlp.down_proj' [64, 160]");
	/* Without pruning: it is rounded, by itself, and there is an output. */
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"none\",\"quantization\":{\"bits\":4},\"archive\":true}");
	assert_true(spec_makes_output(spec));
	assert_true(spec->sparsity == 0);
	assert_int_equal(spec->quantization.order, QUANTIZE_AFTER);
	assert_int_equal(spec->quantization.format, QUANTIZATION_PACKED);
	assert_string_equal(spec->output, "tiny-none-{id}");
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"none\"}");
	assert_false(spec_makes_output(spec));
	spec_free(spec);
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"sparsity\":0.5,\"quantization\":{\"bits\":4}}", "/sparsity",
		       "none prunes nothing");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"quantization\":{\"bits\":4,\"order\":\"joint\"}}",
		       "/quantization/order", "besa alone");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"quantization\":{\"bits\":4},\"refit\":{\"method\":\"block\"}}",
		       "/refit/method", "prunes nothing");
}

/* It follows what prunes, and takes data: the daemon's own where the client names none. */
static void test_rounding_with_feedback(void **state)
{
	struct fixture *f = *state;
	struct spec *spec =
		parsed(f, "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5,\"quantization\":{\"bits\":3,\"rounding\":"
			  "\"feedback\"}}");
	assert_int_equal(spec->quantization.rounding, ROUND_WITH_FEEDBACK);
	assert_int_equal(spec->quantization.order, QUANTIZE_AFTER);
	spec_free(spec);
	const char *magnitude = "{\"model\":\"tiny\",\"method\":\"magnitude\",\"sparsity\":0,\"quantization\":{\"bits\":4,"
				"\"rounding\":\"feedback\"}}";
	spec = parsed(f, magnitude);
	assert_int_equal(spec->calibration.n_sources, 1);
	spec_free(spec);
	assert_problem(f,
		       "{\"model\":\"tiny\",\"method\":\"besa\",\"sparsity\":0.5,\"quantization\":{\"bits\":4,\"rounding\":"
		       "\"feedback\",\"order\":\"joint\"}}",
		       "/quantization/order", "('rounding')");
	assert_problem(f,
		       "{\"model\":\"tiny\",\"method\":\"wanda\",\"sparsity\":0.5,\"quantization\":{\"bits\":4,\"rounding\":"
		       "\"feedback\",\"order\":\"quantize_first\"}}",
		       "/quantization/order", "('rounding')");
	assert_problem(
		f, "{\"model\":\"tiny\",\"method\":\"wanda\",\"sparsity\":0.5,\"quantization\":{\"bits\":4,\"rounding\":\"up\"}}",
		"/quantization/rounding", "nearest, feedback");
	f->roots.calibration = NULL;
	assert_problem(f, magnitude, "/calibration/path", "is required");
}

static void test_patterns(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"magnitude\",\"pattern\":\"3:4\"}");
	assert_int_equal(spec->pattern.keep, 3);
	assert_int_equal(spec->pattern.of, 4);
	assert_true(spec->sparsity == 0.25);
	cJSON *json = spec_to_json(spec);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItem(json, "pattern")), "3:4");
	cJSON_Delete(json);
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"besa\":{},\"pattern\":\"2:4\"}");
	assert_int_equal(spec->method, METHOD_BESA);
	assert_int_equal(spec->pattern.of, 4);
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"wanda\",\"pattern\":\"2:4\",\"sparsity\":0.5}");
	assert_true(spec->sparsity == 0.5);
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"tiny\",\"method\":\"wanda\",\"pattern\":\"unstructured\",\"sparsity\":0.3}");
	assert_int_equal(spec->pattern.of, 0);
	spec_free(spec);
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"pattern\":\"2:4\"}", "/pattern", "the method none takes none");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"wanda\",\"pattern\":\"1:2\",\"sparsity\":0.6}", "/sparsity",
		       "is 0.5 with the pattern 1:2");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"magnitude\",\"pattern\":\"1:32\"}", "/pattern",
		       "1:32 is a sparsity of 0.9688, and 0.95 is the most");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"magnitude\",\"pattern\":\"1:5\"}", "/pattern", "no multiple of 5");
}

static void test_allocation(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = pruned_by(f, ""); /* in presets too */
	assert_int_equal(spec->allocation.method, ALLOCATION_UNIFORM);
	spec_free(spec);
	spec = pruned_by(f, ",\"preset\":\"best\",\"allocation\":{\"method\":\"outlier\"}");
	assert_int_equal(spec->method, METHOD_ADMM);
	assert_int_equal(spec->allocation.method, ALLOCATION_OUTLIER);
	assert_true(spec->allocation.deviation == 0.08);
	assert_true(spec->allocation.threshold == 5);
	spec_free(spec);
	spec = pruned_by(f, ",\"method\":\"magnitude\",\"allocation\":{\"method\":\"loss\"}"); /* which needs no data otherwise */
	assert_int_equal(spec->calibration.n_sources, 1);
	spec_free(spec);
	char *standard = f->roots.calibration;
	f->roots.calibration = NULL;
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"method\":\"magnitude\",\"allocation\":{\"method\":\"loss\"}}",
		       "/calibration/path", "is required");
	f->roots.calibration = standard;
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"wanda\",\"pattern\":\"2:4\",\"allocation\":{\"method\":\"loss\"}}",
		       "/pattern", "it must be \"uniform\" with a pattern");
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"allocation\":{\"method\":\"outlier\"}}", "/allocation/method",
		       "the method none prunes nothing");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"allocation\":{\"method\":\"owl\"}}", "/allocation/method",
		       "uniform, outlier, loss");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"allocation\":{\"deviation\":0.6}}", "/allocation/deviation",
		       "from 0 to 0.5");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"allocation\":\"loss\"}", "/allocation", "must be an object");
}

/* It is shown where it asks for something: a job of an earlier version, whose spec lacks it, is the same job. */
static void test_hardware(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *more;
		const char *shown;
	} cases[] = {{"", NULL},
		     {",\"hardware\":{}", NULL},
		     {",\"hardware\":{\"simulate\":false,\"measure\":false}", NULL},
		     {",\"hardware\":{\"simulate\":true}", "{\"simulate\":true}"},
		     {",\"hardware\":{\"measure\":true}", "{\"simulate\":false,\"measure\":true}"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct spec *spec = pruned_by(f, cases[i].more);
		cJSON *shown = spec_to_json(spec);
		char *text = cJSON_PrintUnformatted(cJSON_GetObjectItemCaseSensitive(shown, "hardware"));
		if (cases[i].shown)
			assert_string_equal(text, cases[i].shown);
		else
			assert_null(text);
		free(text);
		cJSON_Delete(shown);
		spec_free(spec);
	}
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"hardware\":{\"simulate\":1}}", "/hardware/simulate",
		       "must be true or false");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"hardware\":{\"measure\":1}}", "/hardware/measure",
		       "must be true or false");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"hardware\":{\"watch\":true}}", "/hardware/watch", "unknown");
}

static void test_archive(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *more;
		bool archive, coded;
	} cases[] = {{"", false, false},
		     {",\"archive\":false", false, false},
		     {",\"archive\":true", true, false},
		     {",\"archive\":true,\"archive_coded\":true", true, true}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct spec *spec = pruned_by(f, cases[i].more);
		cJSON *shown = spec_to_json(spec);
		assert_int_equal(spec->archive, cases[i].archive);
		assert_int_equal(spec->archive_coded, cases[i].coded);
		assert_int_equal(cJSON_HasObjectItem(shown, "archive"), cases[i].archive);
		cJSON_Delete(shown);
		spec_free(spec);
	}
	assert_problem(f, "{\"model\":\"tiny\",\"method\":\"none\",\"archive\":true}", "/archive", "makes no output");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"archive_coded\":true}", "/archive_coded", "asks for none");
}

static void test_calibration_sources(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = parsed(
		f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"calibration\":{\"samples\":10,\"sources\":["
		   "{\"path\":\"c4.json\",\"weight\":3},{\"path\":\"wiki.test.txt\",\"field\":\"a.b\"}],\"field\":\"body\"}}");
	assert_true(spec->calibration.mixed);
	assert_int_equal(spec->calibration.n_sources, 2);
	assert_string_equal(spec->calibration.sources[0].path, "c4.json");
	assert_non_null(spec->calibration.sources[1].place.path);
	assert_int_equal(spec->calibration.sources[0].samples, 8); /* 7.5 and 2.5: the earlier gets the last one */
	assert_int_equal(spec->calibration.sources[1].samples, 2);
	cJSON *json = spec_to_json(spec);
	char *shown = cJSON_PrintUnformatted(cJSON_GetObjectItem(json, "calibration"));
	assert_string_equal(shown, "{\"sources\":[{\"path\":\"c4.json\",\"weight\":3,\"field\":\"body\"},"
				   "{\"path\":\"wiki.test.txt\",\"weight\":1,\"field\":\"a.b\"}],"
				   "\"samples\":10,\"sequence_length\":512,\"seed\":0}");
	free(shown);
	cJSON_Delete(json);
	spec_free(spec);
}

static const char full[] =
	"{\"name\":\"n\\u00e4me\",\"model\":\"tiny\",\"output\":\"a/"
	"{date}-{id}\",\"overwrite\":true,\"method\":\"besa\",\"sparsity\":0.6,"
	"\"pattern\":\"unstructured\",\"allocation\":{\"method\":\"outlier\",\"deviation\":0.1,\"threshold\":7.5},"
	"\"besa\":{\"granularity\":\"layer\",\"rows_per_group\":1,\"reconstruct\":\"block\","
	"\"importance\":\"magnitude\","
	"\"candidates\":33,"
	"\"lambda\":2.5,"
	"\"epochs\":3,\"batch_size\":4,\"optimizer\":\"adamw\",\"learning_rate\":0.003,\"d_coef\":7,\"target\":\"dense_stream\","
	"\"parameterization\":\"sigmoid\",\"safeguards\":false},\"refit\":{\"method\":\"block\",\"epochs\":3,\"batch_size\":2,"
	"\"learning_rate\":0.002,"
	"\"norms\":false,\"cg_steps\":31,\"cg_damping\":0.02,\"global_epochs\":2,\"global_learning_rate\":0.5},\"calibration\":{"
	"\"path\":\"c4.json\",\"field\":"
	"\"messages\",\"samples\":16,\"sequence_"
	"length\":128,\"seed\":"
	"42},"
	"\"evaluation\":{\"perplexity\":[{\"name\":\"w\",\"path\":\"wiki.test.txt\",\"sequence_length\":256,\"join\":\"\\n\","
	"\"field\":\"data.0.text\"}],"
	"\"tasks\":[{\"name\":\"t\",\"path\":\"c4.json\",\"format\":\"arc\",\"limit\":9}]},"
	"\"progress\":{\"perplexity_every\":7},\"precision\":\"bf16\",\"priority\":-3,\"timeout_seconds\":90.5}";

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	static const char *const texts[] = {full, "{\"model\":\"tiny\",\"sparsity\":0.3}",
					    "{\"model\":\"tiny\",\"method\":\"none\"}",
					    "{\"model\":\"tiny\",\"method\":\"magnitude\",\"sparsity\":0.1}"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct spec *first = parsed(f, texts[i]), *second;
		cJSON *json = spec_to_json(first);
		assert_non_null(json);
		char *text = cJSON_PrintUnformatted(json);
		assert_non_null(text);
		second = parsed(f, text);
		cJSON *again = spec_to_json(second);
		assert_true(cJSON_Compare(json, again, true));
		if (i == 0) { /* what the client gave comes back as it was */
			cJSON *given = cJSON_Parse(full);
			assert_true(cJSON_Compare(given, json, true));
			cJSON_Delete(given);
		}
		assert_string_equal(first->model_place.root, second->model_place.root);
		assert_string_equal(first->model_place.path, second->model_place.path);
		cJSON_Delete(json);
		cJSON_Delete(again);
		free(text);
		spec_free(first);
		spec_free(second);
	}
}

static void test_fields(void **state)
{
	struct fixture *f = *state;
	/* Each is put into a spec that is right without it. */
	static const struct {
		const char *fields, *pointer, *part;
	} cases[] = {
		{"\"sparsty\":0.5", "/sparsty", "unknown key"},
		{"\"a/b~c\":1", "/a~1b~0c", "unknown key"},
		{"\"besa\":{\"lamda\":1}", "/besa/lamda", "unknown key"},
		{"\"calibration\":{\"sample\":1}", "/calibration/sample", "unknown key"},
		{"\"evaluation\":{\"task\":[]}", "/evaluation/task", "unknown key"},
		{"\"name\":7", "/name", "must be a string"},
		{"\"name\":\"a\\u0007b\"", "/name", "control characters"},
		{"\"name\":\"a\\u0085b\"", "/name", "control characters"},
		{"\"output\":\"/abs\"", "/output", "relative"},
		{"\"output\":\"../up\"", "/output", "dot"},
		{"\"output\":\"a/../../b\"", "/output", "dot"},
		{"\"output\":\".hidden\"", "/output", "dot"},
		{"\"output\":\"a//b\"", "/output", "empty"},
		{"\"output\":\"\"", "/output", "empty"},
		{"\"output\":\"a/\"", "/output", "empty"},
		{"\"output\":\"{user}\"", "/output", "{date} and {id}"},
		{"\"output\":\"{id\"", "/output", "{date} and {id}"},
		{"\"overwrite\":1", "/overwrite", "true or false"},
		{"\"method\":\"sparsegpt\",\"sparsegpt\":{\"dampening\":0}", "/sparsegpt/dampening", "number"},
		{"\"method\":\"admm\",\"admm\":{\"rho\":0}", "/admm/rho", "number"},
		{"\"method\":\"admm\",\"admm\":{\"iterations\":10,\"ramp\":11}", "/admm/ramp",
		 "must not be more than 'iterations', 10"},
		{"\"refit\":{\"method\":\"least_squares\",\"cg_damping\":0}", "/refit/cg_damping", "number"},
		{"\"refit\":{\"method\":\"global\",\"global_epochs\":0}", "/refit/global_epochs", "integer"},
		{"\"method\":\"wonder\"", "/method", "must be one of: besa, wanda, magnitude, one_shot, sparsegpt, admm, none"},
		{"\"pattern\":5", "/pattern", "must be a string"},
		{"\"pattern\":\"dense\",\"method\":\"wanda\"", "/pattern", "must be \"unstructured\" or N:M"},
		{"\"pattern\":\"0:4\",\"method\":\"wanda\"", "/pattern", "N:M"},
		{"\"pattern\":\"4:4\",\"method\":\"wanda\"", "/pattern", "N:M"},
		{"\"pattern\":\"02:4\",\"method\":\"wanda\"", "/pattern", "N:M"},
		{"\"pattern\":\"2:4 \",\"method\":\"wanda\"", "/pattern", "N:M"},
		{"\"pattern\":\"2:4:8\",\"method\":\"wanda\"", "/pattern", "N:M"},
		{"\"pattern\":\"2:33\",\"method\":\"wanda\"", "/pattern", "M up to 32"},
		{"\"quantization\":{}", "/quantization/bits", "is required: 2, 3, 4 or 8"},
		{"\"quantization\":{\"bits\":6}", "/quantization/bits", "must be 2, 3, 4 or 8"},
		{"\"quantization\":{\"bits\":1}", "/quantization/bits", "from 2 to 8"},
		{"\"quantization\":{\"bits\":4,\"group_size\":8}", "/quantization/group_size", "from 16 to 128"},
		{"\"quantization\":{\"bits\":4,\"group_size\":\"row\"}", "/quantization/group_size", "or \"channel\""},
		{"\"quantization\":{\"bits\":4,\"order\":\"first\"}", "/quantization/order",
		 "joint, prune_first, quantize_first, auto"},
		{"\"method\":\"admm\",\"quantization\":{\"bits\":4,\"order\":\"quantize_first\"}", "/quantization/order",
		 "the method changes the weights that it keeps"},
		{"\"method\":\"wanda\",\"refit\":{\"method\":\"block\"},\"quantization\":{\"bits\":4,\"order\":\"quantize_first\"}",
		 "/quantization/order", "from their grids again"},
		{"\"method\":\"wanda\",\"quantization\":{\"bits\":4,\"order\":\"joint\"}", "/quantization/order",
		 "the method besa alone"},
		{"\"method\":\"besa\",\"pattern\":\"2:4\",\"quantization\":{\"bits\":4,\"order\":\"joint\"}", "/quantization/order",
		 "under a pattern besa learns nothing"},
		{"\"method\":\"besa\",\"besa\":{\"reconstruct\":\"layer\"},\"quantization\":{\"bits\":4,\"order\":\"joint\"}",
		 "/quantization/order", "whole blocks alone"},
		{"\"method\":\"besa\",\"refit\":{\"method\":\"least_squares\"},\"quantization\":{\"bits\":4,\"order\":\"joint\"}",
		 "/quantization/order", "give \"prune_first\""},
		{"\"refit\":{\"method\":\"global\"},\"quantization\":{\"bits\":4,\"rounding\":\"feedback\"}",
		 "/quantization/rounding", "give \"nearest\""},
		{"\"besa\":[]", "/besa", "must be an object"},
		{"\"besa\":{\"granularity\":\"column\"}", "/besa/granularity", "row, layer"},
		{"\"besa\":{\"reconstruct\":\"model\"}", "/besa/reconstruct", "block, half_block, layer, two_blocks"},
		{"\"besa\":{\"reconstruct\":\"layer\",\"target\":\"dense_stream\"}", "/besa/reconstruct",
		 "'target' must be \"block\""},
		{"\"method\":\"besa\",\"besa\":{\"reconstruct\":\"two_blocks\",\"target\":\"dense_stream\"}", "/besa/reconstruct",
		 "'target' must be \"block\""},
		{"\"method\":\"besa\",\"besa\":{\"reconstruct\":\"two_blocks\",\"importance\":\"sparsegpt\"}", "/besa/reconstruct",
		 "alone ('importance')"},
		{"\"method\":\"besa\",\"pattern\":\"2:4\",\"besa\":{\"reconstruct\":\"two_blocks\"}", "/besa/reconstruct",
		 "under a pattern besa learns nothing"},
		{"\"method\":\"besa\",\"besa\":{\"reconstruct\":\"two_blocks\"},\"quantization\":{\"bits\":4,\"order\":\"joint\"}",
		 "/quantization/order", "whole blocks alone"},
		{"\"besa\":{\"rows_per_group\":0}", "/besa/rows_per_group", "from 1 to 65536"},
		{"\"besa\":{\"granularity\":\"layer\",\"rows_per_group\":4}", "/besa/rows_per_group", "is 4; by layer all rows"},
		{"\"besa\":{\"importance\":\"taylor\"}", "/besa/importance",
		 "wanda, magnitude, sparsegpt, sparsegpt_published, gradient"},
		{"\"besa\":{\"candidates\":1}", "/besa/candidates", "from 2 to 256"},
		{"\"besa\":{\"candidates\":257}", "/besa/candidates", "from 2 to 256"},
		{"\"besa\":{\"candidates\":10.5}", "/besa/candidates", "integer"},
		{"\"besa\":{\"lambda\":-1}", "/besa/lambda", "from 0"},
		{"\"besa\":{\"lambda\":1e999}", "/besa/lambda", "number"},
		{"\"besa\":{\"epochs\":0}", "/besa/epochs", "from 1 to 100"},
		{"\"besa\":{\"batch_size\":129}", "/besa/batch_size", "from 1 to 128"},
		{"\"besa\":{\"batch_size\":5},\"calibration\":{\"samples\":4}", "/besa/batch_size", "from 1 to 4"},
		{"\"besa\":{\"optimizer\":\"sgd\"}", "/besa/optimizer", "prodigy, adamw"},
		{"\"besa\":{\"learning_rate\":0}", "/besa/learning_rate", "number"},
		{"\"besa\":{\"d_coef\":0}", "/besa/d_coef", "number"},
		{"\"besa\":{\"target\":\"dense\"}", "/besa/target", "block, dense_stream"},
		{"\"besa\":{\"parameterization\":\"tanh\"}", "/besa/parameterization", "sigmoid, softmax, auto"},
		{"\"calibration\":{\"samples\":0}", "/calibration/samples", "from 1 to 65536"},
		{"\"calibration\":{\"sequence_length\":513}", "/calibration/sequence_length", "from 2 to 512"},
		{"\"calibration\":{\"seed\":-1}", "/calibration/seed", "from 0"},
		{"\"calibration\":{\"path\":\"none.txt\"}", "/calibration/path", "is not there"},
		{"\"calibration\":{\"sources\":[]}", "/calibration/sources", "a list of 1 to 16"},
		{"\"calibration\":{\"sources\":{}}", "/calibration/sources", "a list of 1 to 16"},
		{"\"calibration\":{\"sources\":[1]}", "/calibration/sources/0", "must be an object"},
		{"\"calibration\":{\"sources\":[{}]}", "/calibration/sources/0/path", "is required"},
		{"\"calibration\":{\"sources\":[{\"path\":\"c4.json\"},{\"path\":\"../secret\"}]}", "/calibration/sources/1/path",
		 ""},
		{"\"calibration\":{\"sources\":[{\"path\":\"c4.json\",\"wait\":1}]}", "/calibration/sources/0/wait", "unknown key"},
		{"\"calibration\":{\"sources\":[{\"path\":\"c4.json\",\"weight\":0}]}", "/calibration/sources/0/weight", "number"},
		{"\"calibration\":{\"samples\":9,\"sources\":[{\"path\":\"c4.json\"},{\"path\":\"c4.json\",\"weight\":0.01}]}",
		 "/calibration/sources/1/weight", "too small for one of the 9 samples"},
		{"\"calibration\":{\"path\":\"c4.json\",\"sources\":[{\"path\":\"c4.json\"}]}", "/calibration/sources",
		 "exclude each other"},
		{"\"calibration\":{\"path\":\"../secret/config.json\"}", "/calibration/path", "'..'"},
		{"\"calibration\":{\"path\":\"/etc/passwd\"}", "/calibration/path", "outside the roots"},
		{"\"calibration\":{\"path\":\".\"}", "/calibration/path", "not a regular file"},
		{"\"calibration\":{\"path\":\"\"}", "/calibration/path", "empty"},
		{"\"calibration\":{\"path\":true}", "/calibration/path", "must be a string"},
		{"\"calibration\":{\"field\":1}", "/calibration/field", "must be a string"},
		{"\"calibration\":{\"field\":\"\"}", "/calibration/field", "is empty"},
		{"\"calibration\":{\"sources\":[{\"path\":\"c4.json\",\"field\":\"\"}]}", "/calibration/sources/0/field",
		 "is empty"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\",\"field\":\"\\n\"}]}", "/evaluation/perplexity/0/field",
		 "control characters"},
		{"\"evaluation\":{\"perplexity\":{}}", "/evaluation/perplexity", "list"},
		{"\"evaluation\":{\"perplexity\":[7]}", "/evaluation/perplexity/0", "must be an object"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\",\"name\":\"a b\"}]}", "/evaluation/perplexity/0/name",
		 "letters"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\",\"name\":\"\"}]}", "/evaluation/perplexity/0/name",
		 "letters"},
		{"\"evaluation\":{\"perplexity\":[{\"name\":\"x\"}]}", "/evaluation/perplexity/0/path", "is required"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\"},{\"path\":\"c4.json\"}]}", "/evaluation/perplexity/1/name",
		 "must differ"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\",\"sequence_length\":1}]}",
		 "/evaluation/perplexity/0/sequence_length", "from 2 to 512"},
		{"\"evaluation\":{\"perplexity\":[{\"path\":\"c4.json\",\"title\":1}]}", "/evaluation/perplexity/0/title",
		 "unknown key"},
		{"\"evaluation\":{\"tasks\":{}}", "/evaluation/tasks", "list of at most 16"},
		{"\"evaluation\":{\"tasks\":[{\"path\":\"c4.json\",\"format\":\"mmlu\"}]}", "/evaluation/tasks/0/format", "piqa"},
		{"\"evaluation\":{\"tasks\":[{\"path\":\"c4.json\"},{\"path\":\"c4.json\"}]}", "/evaluation/tasks/1/name",
		 "must differ"},
		{"\"evaluation\":{\"tasks\":[{}]}", "/evaluation/tasks/0/path", "is required"},
		{"\"precision\":\"f16\"", "/precision", "auto, f32, bf16"},
		{"\"progress\":{\"perplexity_every\":-1}", "/progress/perplexity_every", "from 0 to 10000"},
		{"\"progress\":{\"perplexity_every\":\"often\"}", "/progress/perplexity_every", "auto"},
		{"\"progress\":{\"every\":1}", "/progress/every", "unknown key"},
		{"\"priority\":101", "/priority", "from -100 to 100"},
		{"\"timeout_seconds\":-1", "/timeout_seconds", "number"},
	};
	char text[512];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(text, sizeof text, "{\"model\":\"tiny\",\"sparsity\":0.5,%s}", cases[i].fields);
		assert_problem(f, text, cases[i].pointer, cases[i].part);
	}
	snprintf(text, sizeof text, "{\"model\":\"tiny\",\"sparsity\":0.5,\"name\":\"%0201d\"}", 0);
	assert_problem(f, text, "/name", "at most 200 characters");
}

static void test_required_and_sparsity(void **state)
{
	struct fixture *f = *state;
	assert_problem(f, "[]", "", "must be a JSON object");
	assert_problem(f, "{\"sparsity\":0.5}", "/model", "is required");
	assert_problem(f, "{\"model\":\"tiny\"}", "/sparsity", "is required");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":1.2}", "/sparsity", "from 0 to 0.95");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":-0.1}", "/sparsity", "from 0 to 0.95");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":\"0.5\"}", "/sparsity", "number");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"method\":\"none\"}", "/sparsity",
		       "none prunes nothing: leave sparsity out");
	spec_free(parsed(f, "{\"model\":\"tiny\",\"sparsity\":0.7,\"besa\":{\"parameterization\":\"sigmoid\"}}"));
	f->roots.calibration = NULL;
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5}", "/calibration/path", "without --calibration");
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"method\":\"wanda\"}", "/calibration/path",
		       "without --calibration");
	spec_free(parsed(f, "{\"model\":\"tiny\",\"sparsity\":0.5,\"method\":\"magnitude\"}"));
	char gone[128];
	snprintf(gone, sizeof gone, "%s/gone.txt", f->scratch.directory);
	f->roots.calibration = gone;
	assert_problem(f, "{\"model\":\"tiny\",\"sparsity\":0.5}", "/calibration/path", "is not there");
}

static void test_models(void **state)
{
	struct fixture *f = *state;
	struct scratch *s = &f->scratch;
	char text[256];
	assert_int_equal(symlink("../secret", scratch_path(s, "models/escape")), 0);
	assert_int_equal(symlink("tiny", scratch_path(s, "models/alias")), 0);
	assert_int_equal(mkdir(scratch_path(s, "models/bare"), 0700), 0);
	write_model(s, "models/strange", "{\"model_type\":\"gptj\"}");
	write_model(s, "models/broken", config_json);
	scratch_text(s, "models/broken/model.safetensors", "cut");
	scratch_text(s, "models/file", "x");
	static const struct {
		const char *model, *part;
	} cases[] = {
		{"none", "is not there"},
		{"../secret", "'..'"},
		{"tiny/../../secret", "'..'"},
		{"escape", "leads out of its root"},
		{"/etc", "outside the roots"},
		{"/nowhere/at/all", "outside the roots"},
		{"file", "is not a directory"},
		{"bare", "config.json: No such file"},
		{"strange", "config.json: model_type 'gptj'"},
		{"broken", "model.safetensors: too short"},
		{"", "must not be empty"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		snprintf(text, sizeof text, "{\"model\":\"%s\",\"sparsity\":0.5,\"output\":\"o\"}", cases[i].model);
		assert_problem(f, text, "/model", cases[i].part);
		assert_null(strstr(f->problems.items[0].detail, s->directory)); /* no path of the server's */
	}
	snprintf(text, sizeof text, "{\"model\":\"%s/secret\",\"sparsity\":0.5}", s->directory);
	assert_problem(f, text, "/model", "outside the roots");
	snprintf(text, sizeof text, "{\"model\":\"%s/tiny\",\"sparsity\":0.5}", f->models);
	struct spec *spec = parsed(f, text);
	assert_string_equal(spec->output, "tiny-balanced-{id}");
	spec_free(spec);
	spec = parsed(f, "{\"model\":\"alias/\",\"sparsity\":0.5}");
	assert_string_equal(spec->output, "alias-balanced-{id}");
	spec_free(spec);
}

static void test_collects_problems(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = NULL;
	assert_int_equal(parse(f, "{\"sparsity\":2,\"priority\":1000,\"x\":1,\"besa\":{\"epochs\":0}}", &spec), STATUS_INVALID);
	assert_int_equal(f->problems.count, 5); /* and the missing model */
	char text[2048] = "{\"model\":\"tiny\",\"sparsity\":0.5";
	for (int i = 0; i < SPEC_MAX_PROBLEMS + 5; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), ",\"unknown-%d\":1", i);
	strcat(text, "}");
	assert_int_equal(parse(f, text, &spec), STATUS_INVALID);
	assert_int_equal(f->problems.count, SPEC_MAX_PROBLEMS);
	assert_int_equal(f->problems.more, 5);
	assert_null(spec);
}

/* Whatever its length, a problem is told whole. */
static void test_problems_are_not_cut(void **state)
{
	struct fixture *f = *state;
	struct spec *spec = NULL;
	char text[4096] = "{\"model\":\"tiny\",\"sparsity\":0.5,\"x", pointer[2048] = "/x";
	for (int i = 0; i < 500; i++) {
		strcat(text, "\xc3\xa9");
		strcat(pointer, "\xc3\xa9");
	}
	strcat(text, "~/\":1}");
	strcat(pointer, "~0~1");
	assert_int_equal(parse(f, text, &spec), STATUS_INVALID);
	assert_int_equal(f->problems.count, 1);
	assert_string_equal(f->problems.items[0].pointer, pointer);
	const char *known = "name, metadata, model, output, overwrite, archive, archive_coded, export, preset, method, sparsity, "
			    "pattern, allocation, besa, one_shot, "
			    "sparsegpt, admm, refit, "
			    "quantization, calibration, "
			    "evaluation, hardware, progress, notify, precision, priority, timeout_seconds";
	assert_non_null(strstr(f->problems.items[0].detail, known));
	assert_null(spec);
}

#define SPEC_TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		SPEC_TEST(test_defaults),
		SPEC_TEST(test_presets),
		SPEC_TEST(test_stored_specs_have_no_preset),
		SPEC_TEST(test_dependent_defaults),
		SPEC_TEST(test_quantization),
		SPEC_TEST(test_rounding_with_feedback),
		SPEC_TEST(test_patterns),
		SPEC_TEST(test_allocation),
		SPEC_TEST(test_hardware),
		SPEC_TEST(test_archive),
		SPEC_TEST(test_calibration_sources),
		SPEC_TEST(test_round_trip),
		SPEC_TEST(test_fields),
		SPEC_TEST(test_required_and_sparsity),
		SPEC_TEST(test_models),
		SPEC_TEST(test_collects_problems),
		SPEC_TEST(test_problems_are_not_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
