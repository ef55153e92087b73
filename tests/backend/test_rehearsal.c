/* What a dry run says that a job takes of the device's memory, against what the job then takes: for every family, method and
 * granularity, the same to the byte. With experts the dry run assumes the worst, so it may say more; where every token goes to
 * every expert, it may not. */
#include <math.h>
#include <sys/stat.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/prune/rehearsal.h"
#include "tests/backend/harness.h"

/* The last batch of a pass and the last learning step are not whole. */
enum { TOKENS = 24, SAMPLES = 45, VOCAB = 64, TOKENS_EMULATED = 8, SAMPLES_EMULATED = 5 };

static const atomic_bool running = false;

static bool on_cuda(void)
{
	const char *name = getenv("BESAD_TEST_BACKEND");
	return name && !strcmp(name, "cuda");
}

static int tokens(void)
{
	return on_cuda() ? TOKENS_EMULATED : TOKENS;
}

static int samples(void)
{
	return on_cuda() ? SAMPLES_EMULATED : SAMPLES;
}

struct family {
	const char *directory, *config;
	bool experts;
};
static const struct family families[] = {
	{"llama", "llama3-classic", false},   {"mistral", "window-classic", false},
	{"qwen2", "biases-newer", false},     {"qwen3", "newer", false},
	{"phi3", "fused-classic", false},     {"gemma2", "newer", false},
	{"gemma3", "newer", false},           {"opt", "classic", false},
	{"mixtral", "classic", true},         {"qwen3_moe", "classic", true},
	{"granite", "classic", false},        {"olmo2", "classic", false},
	{"ministral3", "newer", false},       {"phi", "classic", false},
	{"gpt_neox", "classic", false},       {"qwen2_moe", "newer", true},
	{"gpt2", "classic", false},           {"glm4", "newer", false},
	{"cohere_qk_norm", "classic", false}, {"stablelm_parallel", "classic", false},
	{"gpt_oss", "newer", true},
};

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

/* Copies a file, with every `from` in it replaced by `to`, of the same length, where that is not NULL. */
static void copy_file(struct scratch *s, const char *path, const char *name, const char *from, const char *to)
{
	static char bytes[1 << 20];
	FILE *file = fopen(path, "rb");
	if (!file) fail_msg("%s is missing", path);
	size_t size = fread(bytes, 1, sizeof bytes - 1, file);
	assert_true(size < sizeof bytes - 1);
	bytes[size] = '\0';
	fclose(file);
	for (char *at = from ? strstr(bytes, from) : NULL; at; at = strstr(at + 1, from))
		memcpy(at, to, strlen(to));
	scratch_write(s, name, bytes, size);
}

static void write_calibration(struct scratch *s)
{
	char header[160];
	uint64_t length = (uint64_t)snprintf(header, sizeof header,
					     "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[%d,%d],\"data_offsets\":[0,%d]}}",
					     samples(), tokens(), 4 * samples() * tokens());
	size_t size = 8 + length + 4 * (size_t)(samples() * tokens());
	char *bytes = malloc(size);
	assert_non_null(bytes);
	memcpy(bytes, &length, 8);
	memcpy(bytes + 8, header, length);
	for (int32_t i = 0; i < samples() * tokens(); i++) {
		int32_t id = (i * 7 + i / 5) % VOCAB;
		memcpy(bytes + 8 + length + 4 * (size_t)i, &id, 4);
	}
	scratch_write(s, "data/ids.safetensors", bytes, size);
	free(bytes);
}

/* ---- a job ------------------------------------------------------------------------------------------------------------------- */

struct subject {
	struct scratch *s;
	struct backend *backend;
	struct spec *spec;
	char models[80], data[80], out[80], checkpoint[80];
};

static void make_backend(struct subject *t)
{
	struct scratch *s = t->s;
	if (on_cuda())
		SUCCEEDS(backend_cuda_create(0, &t->backend, &s->err));
	else
		SUCCEEDS(backend_cpu_create(1, &t->backend, &s->err));
}

static void open_subject(struct subject *t, struct scratch *s, const char *text)
{
	*t = (struct subject){.s = s};
	snprintf(t->models, sizeof t->models, "%s/models", s->directory);
	snprintf(t->data, sizeof t->data, "%s/data", s->directory);
	snprintf(t->out, sizeof t->out, "%s/out", s->directory);
	snprintf(t->checkpoint, sizeof t->checkpoint, "%s/checkpoint", s->directory);
	mkdir(t->out, 0700);
	mkdir(t->checkpoint, 0700);
	char *model_roots[] = {t->models, NULL}, *data_roots[] = {t->data, NULL};
	const struct roots roots = {.model = model_roots, .data = data_roots, .output = t->out};
	struct spec_problems problems = {0};
	cJSON *json = NULL;
	SUCCEEDS(json_parse(text, strlen(text), "spec", &json, &s->err));
	if (spec_parse(json, &roots, &t->spec, &problems, &s->err) != STATUS_OK)
		fail_msg("%s: %s %s", s->err.message, problems.count ? problems.items[0].pointer : "",
			 problems.count ? problems.items[0].detail : "");
	cJSON_Delete(json);
	make_backend(t);
}

static void close_subject(struct subject *t)
{
	struct scratch *s = t->s;
	backend_destroy(t->backend);
	spec_free(t->spec);
	SUCCEEDS(directory_remove(t->out, &s->err));
	SUCCEEDS(directory_remove(t->checkpoint, &s->err));
}

static enum status ignore_event(void *context, const struct event *event, struct error *err)
{
	(void)context;
	(void)event;
	(void)err;
	return STATUS_OK;
}

static enum status ignore_block(void *context, int block, const struct event *event, struct error *err)
{
	(void)block;
	return ignore_event(context, event, err);
}

static void ignore_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	(void)context;
	(void)phase;
	(void)block;
	(void)blocks;
	(void)fraction;
	(void)eta_seconds;
}

static struct engine_job job_of(struct subject *t)
{
	return (struct engine_job){.spec = t->spec,
				   .output = {t->out, "o"},
				   .work = {t->out, "w"},
				   .aside = {t->out, "a"},
				   .checkpoint_dir = t->checkpoint,
				   .job_id = "j",
				   .attempt = 1,
				   .stop = &running};
}

/* Bytes of the device at most at once, as a dry run of the job says. */
static size_t rehearsed(struct subject *t)
{
	struct scratch *s = t->s;
	const struct spec *spec = t->spec;
	const struct engine_job job = job_of(t);
	static int32_t ids[SAMPLES * TOKENS];
	struct sequences probe = {.count = 0, .length = tokens(), .ids = ids};
	struct model model;
	struct probe_plan plan;
	struct rehearsal need;
	SUCCEEDS(model_open(&spec->model_place, NULL, &model, &s->err));
	double work = (double)spec->calibration.samples * tokens() * prune_block_work(spec);
	SUCCEEDS(probe_plan(&model.config, spec->probe_every, work, spec->calibration.n_sources ? samples() : 0, tokens(),
			    t->backend->unified, &plan, &s->err));
	probe.count = plan.sequences;
	const struct pruning pruning = {.job = &job,
					.model = &model,
					.backend = t->backend,
					.compute_type = spec->precision == PRECISION_BF16 ? DTYPE_BF16 : DTYPE_F32,
					.probe = &probe,
					.plan = &plan,
					.device_streams = 2,
					.orders = !t->backend->unified};
	size_t before = t->backend->memory.now;
	size_t available;
	SUCCEEDS(rehearsal_available(t->backend, &available, &s->err));
	SUCCEEDS(rehearse_pruning(&pruning, available, &need, &s->err));
	assert_true(need.fits);
	assert_int_equal(need.device_streams, 2);
	assert_int_equal(t->backend->memory.now, before); /* the real device has not noticed */
	free(plan.due);
	model_close(&model);
	return need.peak;
}

/* The same of the whole job, by a dry backend alone. */
static size_t estimated(struct subject *t)
{
	struct scratch *s = t->s;
	const struct engine_job job = job_of(t);
	struct backend *dry;
	struct engine_need need;
	SUCCEEDS(t->backend->ops->dry(t->backend, SIZE_MAX, &dry));
	SUCCEEDS(engine_estimate(&job, dry, SIZE_MAX, &need, &s->err));
	assert_true(need.device_fits);
	assert_true(t->backend->unified ? need.process > need.device : need.process > 0);
	backend_destroy(dry);
	return need.device;
}

static size_t really_taken(struct subject *t)
{
	struct scratch *s = t->s;
	const struct engine_sink sink = {.event = ignore_event, .commit_block = ignore_block, .progress = ignore_progress};
	const struct engine_job job = job_of(t);
	cJSON *result;
	SUCCEEDS(engine_run(&job, t->backend, &sink, &result, &s->err));
	cJSON_Delete(result);
	return t->backend->memory.most;
}

static void expect_the_same(struct scratch *s, const char *what, bool exactly, const char *text)
{
	struct subject t;
	open_subject(&t, s, text);
	size_t predicted = rehearsed(&t), taken = really_taken(&t);
	print_message("%s: %zu bytes predicted, %zu taken\n", what, predicted, taken);
	if (exactly ? predicted != taken : predicted < taken)
		fail_msg("%s: %zu bytes predicted, %zu taken by %s", what, predicted, taken, text);
	close_subject(&t);
}

static void expect_estimate(struct scratch *s, bool exactly, const char *text)
{
	struct subject t;
	open_subject(&t, s, text);
	size_t predicted = estimated(&t), taken = really_taken(&t);
	print_message("%zu bytes estimated, %zu taken by %s\n", predicted, taken, text);
	if (exactly ? predicted != taken : predicted < taken)
		fail_msg("%zu bytes estimated, %zu taken by %s", predicted, taken, text);
	close_subject(&t);
}

static const char *const methods[] = {
	"\"method\":\"magnitude\"",
	"\"method\":\"wanda\"",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"granularity\":\"row\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"granularity\":\"layer\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"optimizer\":\"adamw\"}", /* which is not recorded */
	"\"method\":\"besa\",\"besa\":{\"batch_size\":1,\"candidates\":11,\"target\":\"dense_stream\"}",
	"\"method\":\"sparsegpt\"",
	"\"method\":\"wanda\",\"refit\":{\"method\":\"global\",\"batch_size\":2,\"epochs\":1}",
	"\"method\":\"wanda\",\"refit\":{\"method\":\"block\",\"batch_size\":2}",
	"\"method\":\"admm\"",
	"\"method\":\"wanda\",\"refit\":{\"method\":\"least_squares\"}",
	"\"method\":\"besa\",\"besa\":{\"candidates\":11,\"rows_per_group\":3}",
	"\"method\":\"one_shot\",\"one_shot\":{\"importance\":\"sparsegpt\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"importance\":\"sparsegpt_published\"}",
	"\"method\":\"besa\",\"besa\":{\"candidates\":11,\"reconstruct\":\"half_block\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"reconstruct\":\"layer\"}",
	"\"method\":\"besa\",\"besa\":{\"candidates\":11},\"quantization\":{\"bits\":4,\"group_size\":\"channel\",\"symmetric\":"
	"false}",
	"\"method\":\"magnitude\",\"quantization\":{\"bits\":3,\"group_size\":\"channel\"}",
	"\"method\":\"one_shot\",\"one_shot\":{\"importance\":\"gradient\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"importance\":\"gradient\"}",
	"\"method\":\"sparsegpt\",\"allocation\":{\"method\":\"outlier\"}",
	"\"method\":\"sparsegpt\",\"allocation\":{\"method\":\"loss\"}",
	"\"method\":\"wanda\",\"quantization\":{\"bits\":4,\"group_size\":\"channel\",\"rounding\":\"feedback\"}",
	"\"method\":\"besa\",\"besa\":{\"batch_size\":2,\"candidates\":11,\"reconstruct\":\"two_blocks\"}",
	"\"method\":\"besa\",\"besa\":{\"candidates\":11,\"reconstruct\":\"two_blocks\",\"optimizer\":\"adamw\"},"
	"\"allocation\":{\"method\":\"outlier\"}",
	"\"method\":\"besa\",\"besa\":{\"candidates\":11},\"quantization\":{\"bits\":4,\"group_size\":\"channel\"},"
	"\"refit\":{\"method\":\"global\",\"batch_size\":2,\"epochs\":1}",
};
enum { MAGNITUDE, FIRST_BESA = 2, BESA_LAYER, GLOBAL = 7, LAYER_BY_LAYER = 15 };

/* A method on the model in `models/m`, with a probe behind every block or with none. */
static void check_method(struct scratch *s, const char *name, int method, bool probed, bool exactly, const char *precision)
{
	char text[800], what[200], calibration[120] = "";
	if (method != MAGNITUDE)
		snprintf(calibration, sizeof calibration,
			 ",\"calibration\":{\"path\":\"ids.safetensors\",\"samples\":%d,\"sequence_length\":%d}", samples(),
			 tokens());
	snprintf(text, sizeof text,
		 "{\"model\":\"m\",\"output\":\"o\",\"sparsity\":0.5,\"precision\":\"%s\",%s%s,\"progress\":{\"perplexity_every\":%"
		 "d}}",
		 precision, methods[method], calibration, probed);
	snprintf(what, sizeof what, "%s, %s, %s%s", name, precision, methods[method], probed ? ", probed" : "");
	expect_the_same(s, what, exactly, text);
}

/* On the emulator, where computing is slow (FEW), a method is tried in f32 without a probe and in bf16 with one. What the walk
 * keeps for a probe is the same code on every backend, and the CPU tries all of it; what is the device's own, the scratch memory of
 * its operations, hangs on the method, its types and the shapes. */
static bool tried(int method, bool all, bool probed, const char *precision)
{
	bool differs = method <= BESA_LAYER || method == LAYER_BY_LAYER;
	if (method == MAGNITUDE && probed) return false;
	if (!getenv("FEW")) return all || (differs && probed == (method == FIRST_BESA));
	if (!all) return method == FIRST_BESA && probed;
	return method == MAGNITUDE || probed == !strcmp(precision, "bf16");
}

/* All of them, or those that differ most. */
static void check_methods(struct scratch *s, const char *name, bool all, bool exactly, const char *precision)
{
	for (int method = 0; method < (int)COUNT(methods); method++)
		for (int probed = 0; probed < 2; probed++)
			if (tried(method, all, probed, precision)) check_method(s, name, method, probed, exactly, precision);
}

static void check_family(struct scratch *s, const struct family *family, const char *precision)
{
	char path[256];
	snprintf(path, sizeof path, "tests/data/families/%s/model.safetensors", family->directory);
	copy_file(s, path, "models/m/model.safetensors", NULL, NULL);
	snprintf(path, sizeof path, "tests/data/families/%s/%s.json", family->directory, family->config);
	copy_file(s, path, "models/m/config.json", NULL, NULL);
	bool all = !strcmp(family->directory, "llama");
	check_methods(s, family->directory, all, !family->experts, precision);
	if (!all && !on_cuda()) check_method(s, family->directory, GLOBAL, false, !family->experts, precision);
}

static void make_directories(struct scratch *s)
{
	assert_int_equal(mkdir(scratch_path(s, "models"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(s, "models/m"), 0700), 0);
	assert_int_equal(mkdir(scratch_path(s, "data"), 0700), 0);
	write_calibration(s);
}

static void test_families(void **state)
{
	make_directories(*state);
	for (size_t i = 0; i < COUNT(families); i++)
		check_family(*state, &families[i], "f32");
	check_family(*state, &families[0], "bf16");
	check_family(*state, &families[3], "bf16");
	check_family(*state, &families[8], "bf16");
}

/* Evaluation takes memory too, before and behind the pruning, or alone; and what is pruned may be probed. */
static void test_whole_jobs(void **state)
{
	static const char *const jobs[] = {
		"\"method\":\"none\"",
		"\"method\":\"magnitude\",\"sparsity\":0.5",
		"\"method\":\"wanda\",\"sparsity\":0.5,\"progress\":{\"perplexity_every\":1}",
		"\"method\":\"besa\",\"sparsity\":0.5,\"besa\":{\"candidates\":11}",
		"\"method\":\"wanda\",\"sparsity\":0.5,\"allocation\":{\"method\":\"loss\"}",
	};
	struct scratch *s = *state;
	make_directories(s);
	copy_file(s, "tests/data/families/llama/model.safetensors", "models/m/model.safetensors", NULL, NULL);
	copy_file(s, "tests/data/families/llama/llama3-classic.json", "models/m/config.json", NULL, NULL);
	for (size_t i = 0; i < 2 * COUNT(jobs); i++) {
		char text[800], calibration[120] = "";
		if (i / 2 > 1)
			snprintf(calibration, sizeof calibration,
				 ",\"calibration\":{\"path\":\"ids.safetensors\",\"samples\":%d,\"sequence_length\":%d}", samples(),
				 tokens());
		snprintf(text, sizeof text,
			 "{\"model\":\"m\",\"output\":\"o\",\"precision\":\"%s\",%s%s,\"evaluation\":{\"perplexity\":[{\"name\":"
			 "\"e\","
			 "\"path\":\"ids.safetensors\",\"sequence_length\":%d}]}}",
			 i % 2 ? "bf16" : "f32", jobs[i / 2], calibration, tokens());
		expect_estimate(s, true, text);
	}
}

/* Every token goes to every expert: that is what a dry run assumes. */
static void test_worst_of_experts(void **state)
{
	struct scratch *s = *state;
	make_directories(s);
	copy_file(s, "tests/data/families/mixtral/model.safetensors", "models/m/model.safetensors", NULL, NULL);
	copy_file(s, "tests/data/families/mixtral/classic.json", "models/m/config.json", "\"num_experts_per_tok\": 2",
		  "\"num_experts_per_tok\": 5");
	check_methods(s, "mixtral, all experts", false, true, "f32");
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_families), SCRATCH_TEST(test_whole_jobs),
					   SCRATCH_TEST(test_worst_of_experts)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
