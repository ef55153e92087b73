/* What the engine does where memory runs out, a disk fails or a device is lost: each thing below is done again and again, and each
 * time another of its allocations fails, or another of its file calls, or of the operations of its backend. It must say so, by its
 * status and a message, and leave nothing behind in memory; or have gone on as if nothing had been.
 *
 * An allocation of each call stack once, and of these MOST_POINTS spread evenly (more in `make coverage`): POINTS=all tries all.
 * VERBOSE=1 tells of each, with the frames for addr2line; ONLY=besa does that alone. */
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "tests/unit/discrete.h"
#include "tests/unit/failing.h"
#include "tests/unit/failing_backend.h"

#include "base/json.h"
#include "engine/archive/archive.h"
#include "engine/chat/chat_template.h"
#include "engine/engine.h"
#include "engine/eval/tasks.h"
#include "engine/export/export.h"
#include "engine/generate/generator.h"
#include "engine/hardware/hardware.h"
#include "engine/model/check.h"
#include "engine/text/corpus.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

enum { MOST_POINTS = 40, MOST_OF_OTHERS = 10, VOCAB = 320 };

static const atomic_bool running = false;
static struct scratch *scratch;

/* Below the scratch directory, but for what is the tests' own. */
static char *path(const char *name)
{
	static char paths[32][160];
	static int next;
	char *text = paths[next++ % 32];
	bool own = strncmp(name, "tests/", 6) == 0;
	snprintf(text, sizeof paths[0], "%s%s%s", own ? "" : scratch->directory, own ? "" : "/", name);
	return text;
}

/* ---- what is done
 * ----------------------------------------------------------------------------------------------------------------- */

struct deed {
	const char *name;
	enum status (*act)(const char *what, struct error *err);
	const char *what;
};

static enum status open_model(const char *what, struct error *err)
{
	struct model model;
	struct warnings warnings = {0};
	enum status status = model_open(&PLACE(path(what)), &warnings, &model, err);
	if (status == STATUS_OK) {
		status = model_check_all(&model, &warnings, err);
		model_close(&model);
	}
	warnings_free(&warnings);
	return status;
}

static enum status open_shards(const char *what, struct error *err)
{
	struct checkpoint checkpoint;
	struct warnings warnings = {0};
	enum status status = checkpoint_open(&PLACE(path(what)), &warnings, &checkpoint, err);
	if (status == STATUS_OK) checkpoint_close(&checkpoint);
	warnings_free(&warnings);
	return status;
}

static enum status detokenize(const struct tokenizer *tokenizer, const int32_t *ids, size_t count, struct error *err)
{
	struct detokenizer *detokenizer;
	const char *text;
	size_t bytes;
	enum status status = detokenizer_create(tokenizer, &detokenizer, err);
	if (status == STATUS_UNSUPPORTED) return STATUS_OK;
	if (status != STATUS_OK) return status;
	for (size_t i = 0; i < count && status == STATUS_OK; i++)
		status = detokenizer_add(detokenizer, ids[i], &text, &bytes, err);
	if (status == STATUS_OK) status = detokenizer_end(detokenizer, &text, &bytes, err);
	detokenizer_free(detokenizer);
	return status;
}

static enum status tokenize(const char *what, struct error *err)
{
	static const char text[] =
		"The cat's 12 caf\xc3\xa9s,  \xe4\xb8\xad\xe6\x96\x87 \xf0\x9f\x98\x80 e\xcc\x81 <s>we\xef\xbc\xa1're\n\n";
	struct warnings warnings = {0};
	struct tokenizer *tokenizer;
	int32_t *ids;
	size_t count;
	enum status status = tokenizer_load(&PLACE(path(what)), 1 << 20, &warnings, &tokenizer, err);
	if (status == STATUS_OK) {
		status = tokenizer_encode(tokenizer, text, sizeof text - 1, &ids, &count, err);
		if (status == STATUS_OK) {
			status = detokenize(tokenizer, ids, count, err);
			free(ids);
		}
		tokenizer_free(tokenizer);
	}
	warnings_free(&warnings);
	return status;
}

static enum status converse(const char *what, struct error *err)
{
	static const struct chat_message messages[] = {
		{"system", "Be brief."}, {"user", "Hello, <you>"}, {"assistant", "Hi\n"}, {"user", "1 & 2?"}};
	struct chat_template *template;
	char *text;
	TRY(chat_template_open(&PLACE(path(what)), &template, err));
	enum status status = chat_template_render(template, messages, COUNT_OF(messages), true, &text, err);
	if (status == STATUS_OK) free(text);
	chat_template_close(template);
	return status;
}

static enum status read_calibration(const char *what, struct error *err)
{
	struct warnings warnings = {0};
	struct sequences sequences;
	const char *file = path(what);
	const struct data_source source = {&PLACE(file), file, "text"};
	enum status status =
		corpus_calibration(&source, &PLACE(path("models/m")), VOCAB, 3, 8, 1, &running, &warnings, &sequences, err);
	if (status == STATUS_OK) sequences_free(&sequences);
	warnings_free(&warnings);
	return status;
}

static enum status read_questions(const char *what, struct error *err)
{
	struct questions questions;
	enum task_format format = 0;
	while (strcmp(task_format_names[format], what) != 0)
		format++;
	char name[64];
	snprintf(name, sizeof name, "tests/data/tasks/%s.jsonl", what);
	TRY(questions_load(&PLACE(path(name)), name, format, 2, &questions, err));
	questions_free(&questions);
	return STATUS_OK;
}

static enum status read_evaluation(const char *what, struct error *err)
{
	struct warnings warnings = {0};
	struct sequences sequences;
	const char *file = path(what);
	const struct data_source source = {&PLACE(file), file, "text"};
	enum status status =
		corpus_evaluation(&source, &PLACE(path("models/m")), VOCAB, 8, "\n\n", &running, &warnings, &sequences, err);
	if (status == STATUS_OK) sequences_free(&sequences);
	warnings_free(&warnings);
	return status;
}

static enum status archive(const char *what, struct error *err)
{
	const struct archive_options options = {.coded = true, .stop = &running};
	TRY(archive_pack(&PLACE(path(what)), &PLACE(path("work/archive")), &options, err));
	TRY(archive_verify(&PLACE(path("work/archive")), &running, err));
	return archive_unpack(&PLACE(path("work/archive")), &PLACE(path("work/restored")), &running, err);
}

static enum status export_gguf(const char *what, struct error *err)
{
	struct model model;
	struct warnings warnings = {0};
	struct export *export;
	char sha256[SHA256_TEXT];
	enum status status = model_open(&PLACE(path(what)), &warnings, &model, err);
	if (status == STATUS_OK) {
		status = export_open(&model, &PLACE(path(what)), "m", EXPORT_Q4_0, &warnings, &export, err);
		if (status == STATUS_OK) {
			status = export_write(export, &PLACE(path("work")), "m.gguf", &running, sha256, err);
			export_free(export);
		}
		model_close(&model);
	}
	warnings_free(&warnings);
	return status;
}

static enum status take_text(void *context, int32_t id, const char *text, size_t bytes, struct error *err)
{
	(void)context, (void)id, (void)text, (void)bytes, (void)err;
	return STATUS_OK;
}

static enum status generate(const char *what, struct error *err)
{
	struct warnings warnings = {0};
	struct generator *generator;
	struct generator_outcome outcome;
	const struct generator_wishes wishes = {.decoder = {.type = DTYPE_BF16}, .threads = 1};
	const struct generator_request request = {
		.prompt = "The cat", .bytes = 7, .max_tokens = 4, .sampling = {.temperature = 1, .top_p = 0.9}, .take = take_text};
	enum status status = generator_open(&PLACE(path(what)), &wishes, &running, &warnings, &generator, err);
	if (status == STATUS_OK) {
		status = generator_run(generator, &request, &outcome, err);
		generator_close(generator);
	}
	warnings_free(&warnings);
	return status;
}

static enum status tell_hardware(const char *what, struct error *err)
{
	struct model model;
	cJSON *json = NULL;
	const struct hardware_wishes wishes = {.simulate = true};
	TRY(model_open(&PLACE(path(what)), NULL, &model, err));
	enum status status = hardware_report(&model, &wishes, &running, NULL, &json, err);
	cJSON_Delete(json);
	model_close(&model);
	return status;
}

/* ---- jobs
 * ------------------------------------------------------------------------------------------------------------------------- */

static enum status ignore_event(void *context, const struct event *event, struct error *err)
{
	(void)context, (void)event, (void)err;
	return STATUS_OK;
}

static enum status ignore_block(void *context, int block, const struct event *event, struct error *err)
{
	(void)context, (void)block, (void)event, (void)err;
	return STATUS_OK;
}

static void ignore_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	(void)context, (void)phase, (void)block, (void)blocks, (void)fraction, (void)eta_seconds;
}

/* Bytes of a device with memory of its own that jobs compute on; 0 for the CPU. */
static size_t device_bytes;

static enum status run_job(const struct spec *spec, struct error *err)
{
	struct backend *backend;
	cJSON *result = NULL;
	const struct engine_sink sink = {.event = ignore_event, .commit_block = ignore_block, .progress = ignore_progress};
	const struct engine_job job = {.spec = spec,
				       .output = {path("work/out"), "o"},
				       .work = {path("work/out"), "w"},
				       .aside = {path("work/out"), "a"},
				       .checkpoint_dir = path("work/checkpoint"),
				       .job_id = "j",
				       .attempt = 1,
				       .stop = &running};
	TRY(backend_cpu_create(1, &backend, err));
	if (device_bytes) discrete_backend(backend, device_bytes);
	failing_backend(backend);
	enum status status = engine_run(&job, backend, &sink, &result, err);
	cJSON_Delete(result);
	backend_destroy(backend);
	return status;
}

static enum status do_job(const char *what, struct error *err)
{
	char text[900];
	char *model_roots[] = {path("models"), NULL}, *data_roots[] = {path("data"), NULL};
	const struct roots roots = {.model = model_roots, .data = data_roots, .output = path("work/out")};
	struct spec_problems problems = {0};
	struct spec *spec = NULL;
	cJSON *json;
	snprintf(text, sizeof text, "{%s\"output\":\"o\",\"sparsity\":0.5,%s}",
		 strstr(what, "\"model\":") ? "" : "\"model\":\"m\",", what);
	TRY(json_parse(text, strlen(text), "spec", &json, err));
	enum status status = spec_parse(json, &roots, &spec, &problems, err);
	cJSON_Delete(json);
	if (status == STATUS_INVALID) error_set(err, status, "%s: %s", problems.items[0].pointer, problems.items[0].detail);
	spec_problems_free(&problems);
	if (status != STATUS_OK) return status;
	status = run_job(spec, err);
	spec_free(spec);
	return status;
}

static enum status do_job_on_device(const char *what, struct error *err)
{
	device_bytes = (size_t)1 << 30;
	enum status status = do_job(what, err);
	device_bytes = 0;
	return status;
}

/* ---- failures
 * --------------------------------------------------------------------------------------------------------------------- */

static void make_work(void)
{
	struct scratch *s = scratch;
	SUCCEEDS(directory_remove(path("work"), &s->err));
	SUCCEEDS(directory_make(path("work/out"), &s->err));
	SUCCEEDS(directory_make(path("work/checkpoint"), &s->err));
}

static enum status act(const struct deed *deed, enum failing_what what, long at, struct error *err)
{
	make_work();
	memset(err, 0, sizeof *err);
	json_begin();
	failing_start(what, at);
	enum status status = deed->act(deed->what, err);
	failing_stop();
	return status;
}

/* What is wrong with how a failure was told of, or NULL. */
static const char *fault(enum failing_what what, enum status status, const struct error *err)
{
	if (failing.n_live) return "leaves memory behind";
	if (what == FAILING_OPERATIONS)
		return status == STATUS_BACKEND && strstr(err->message, FAILING_DEVICE) ? NULL
											: "does not say that the device is lost";
	if (status == STATUS_OK) return NULL;
	if (status != err->status || !*err->message) return "no message";
	if (what == FAILING_ALLOCATIONS) return status == STATUS_NO_MEMORY ? NULL : "does not say that memory ran out";
	/* What of a spec's files cannot be read is a problem of the spec. */
	bool told = (status == STATUS_IO || status == STATUS_INVALID) && strstr(err->message, strerror(EIO));
	return told ? NULL : "does not say that a file call failed";
}

static long most_points = MOST_POINTS;

/* Chooses which of the points that were just recorded are to fail, and returns them, to be freed: all, or most_points spread
 * evenly; where branches are counted, each whose stack has a call that was in none before it as well: a failure comes back
 * through it. */
static long *choose_points(long *ret_count)
{
	long points = failing.n_firsts, most = getenv("POINTS") ? points : most_points;
	long step = points <= most ? 1 : (points + most - 1) / most;
	bool counted = getenv("BESAD_COVERAGE");
	long *chosen = malloc((size_t)points * sizeof *chosen + 1);
	assert_non_null(chosen);
	*ret_count = 0;
	for (long i = 0; i < points; i++)
		if (i % step == 0 || (counted && failing.fresh[i])) chosen[(*ret_count)++] = failing.firsts[i];
	return chosen;
}

static int fail_each(const struct deed *deed, enum failing_what what)
{
	static const char *const kinds[] = {"allocation", "file call", "operation"};
	struct error err;
	int wrong = 0, gone_on = 0;
	if (act(deed, what, 0, &err) != STATUS_OK) fail_msg("%s: %s", deed->name, err.message);
	if (failing.n_live) fail_msg("%s leaves %ld allocations behind", deed->name, failing.n_live);
	long points = failing.n_firsts, count;
	long *chosen = choose_points(&count);
	for (long i = 0; i < count; i++) {
		enum status status = act(deed, what, chosen[i], &err);
		const char *problem = fault(what, status, &err);
		gone_on += status == STATUS_OK;
		wrong += problem != NULL;
		if (problem || getenv("VERBOSE"))
			print_message("%s, %s %ld: %s, %s, '%s', %ld left;%s\n", deed->name, kinds[what], chosen[i],
				      problem ? problem : "well", status_name(status), err.message, failing.n_live, failing.where);
	}
	if (points) print_message("%s: %ld %ss tried of %ld, %d went on\n", deed->name, count, kinds[what], points, gone_on);
	free(chosen);
	return wrong;
}

static void check(const struct deed *deeds, size_t count)
{
	int wrong = 0;
	const char *only = getenv("ONLY");
	for (size_t i = 0; i < count; i++)
		for (enum failing_what what = 0; what < FAILING_KINDS; what++)
			if (!only || strstr(deeds[i].name, only)) wrong += fail_each(&deeds[i], what);
	if (wrong) fail_msg("%d failures were not told of as they should be", wrong);
}

#define TOKENIZER(name)                                                                                                            \
	{                                                                                                                          \
		"tokenizer " name, tokenize, "tests/data/tokenizers/directories/" name                                             \
	}

static void test_readers(void **state)
{
	const struct deed deeds[] = {
		{"model", open_model, "tests/data/saved/qwen3_moe"},
		{"shards", open_shards, "models/shards"},
		TOKENIZER("llama-model"),
		TOKENIZER("llama-json"),
		TOKENIZER("llama3-json"),
		TOKENIZER("gemma-json"),
		TOKENIZER("unigram-charsmap"),
		TOKENIZER("special-map"),
		TOKENIZER("renamed"),
		TOKENIZER("user-defined"),
		TOKENIZER("config-added"),
		TOKENIZER("unigram-json-as-llama"),
		TOKENIZER("phi3-model"),
		{"chat", converse, "models/chat"},
		{"text", read_evaluation, "data/text.txt"},
		{"rows", read_calibration, "data/rows.jsonl"},
		{"tokens", read_calibration, "data/ids.safetensors"},
		{"questions", read_questions, "choices"},
		{"questions of piqa", read_questions, "piqa"},
		{"questions of boolq", read_questions, "boolq"},
		{"questions of hellaswag", read_questions, "hellaswag"},
		{"questions of winogrande", read_questions, "winogrande"},
		{"questions of arc", read_questions, "arc"},
	};
	(void)state;
	check(deeds, COUNT_OF(deeds));
}

static void test_products(void **state)
{
	const struct deed deeds[] = {
		{"archive", archive, "models/m"},
		{"gguf", export_gguf, "models/m"},
		{"gguf of sentencepiece", export_gguf, "models/sp"},
		{"generate", generate, "models/m"},
		{"hardware", tell_hardware, "models/m"},
	};
	(void)state;
	check(deeds, COUNT_OF(deeds));
}

#define CALIBRATION ",\"calibration\":{\"path\":\"ids.safetensors\",\"samples\":3,\"sequence_length\":8}"

static void test_jobs(void **state)
{
	static const struct deed deeds[] = {
		{"magnitude", do_job,
		 "\"method\":\"magnitude\",\"archive\":true,\"export\":[\"gguf\"],\"metadata\":{\"a\":\"b\"},"
		 "\"evaluation\":{\"perplexity\":[{\"path\":\"text.txt\",\"sequence_length\":8}]}"},
		{"besa", do_job,
		 "\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2},\"quantization\":{\"bits\":4,\"group_size\":"
		 "16}" CALIBRATION},
		{"sparsegpt", do_job,
		 "\"method\":\"sparsegpt\",\"allocation\":{\"method\":\"loss\"},\"refit\":{\"method\":\"block\"}" CALIBRATION},
		{"admm", do_job,
		 "\"method\":\"admm\",\"pattern\":\"2:4\",\"quantization\":{\"bits\":4,\"group_size\":16,\"rounding\":"
		 "\"feedback\"}" CALIBRATION},
		{"tune", do_job, "\"method\":\"wanda\",\"refit\":{\"method\":\"global\",\"batch_size\":2}" CALIBRATION},
		{"pairs", do_job,
		 "\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"reconstruct\":\"two_blocks\",\"optimizer\":"
		 "\"adamw\"},"
		 "\"allocation\":{\"method\":\"outlier\"}" CALIBRATION},
		{"gradient", do_job,
		 "\"method\":\"one_shot\",\"one_shot\":{\"importance\":\"gradient\"},\"refit\":{\"method\":\"least_squares\"},"
		 "\"evaluation\":{\"tasks\":[{\"path\":\"boolq.jsonl\",\"format\":\"boolq\",\"limit\":1}]}" CALIBRATION},
	};
	(void)state;
	check(deeds, COUNT_OF(deeds));
}

/* On a device with memory of its own, and with blocks of other forms: biases, positions, weights that lie across, experts, norms of
 * heads and windows. */
static void test_other_jobs(void **state)
{
	static const struct deed deeds[] = {
		{"besa on a device", do_job_on_device,
		 "\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"granularity\":\"layer\"}" CALIBRATION},
		{"tune on a device", do_job_on_device,
		 "\"method\":\"magnitude\",\"refit\":{\"method\":\"global\",\"batch_size\":2}" CALIBRATION},
		{"experts", do_job,
		 "\"model\":\"qwen2_moe\",\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"reconstruct\":"
		 "\"layer\"},"
		 "\"refit\":{\"method\":\"block\"}" CALIBRATION},
		{"experts with biases", do_job,
		 "\"model\":\"gpt_oss\",\"method\":\"wanda\",\"refit\":{\"method\":\"global\",\"batch_size\":2}" CALIBRATION},
		{"positions", do_job,
		 "\"model\":\"opt\",\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"rows_per_group\":3},"
		 "\"quantization\":{\"bits\":4,\"group_size\":16}" CALIBRATION},
		{"across", do_job,
		 "\"model\":\"gpt2\",\"method\":\"wanda\",\"pattern\":\"2:4\",\"refit\":{\"method\":\"global\",\"batch_size\":"
		 "2}" CALIBRATION},
		{"halves", do_job,
		 "\"model\":\"gemma3_text\",\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"reconstruct\":\"half_"
		 "block\"},"
		 "\"allocation\":{\"method\":\"loss\"}" CALIBRATION},
		{"biases", do_job,
		 "\"model\":\"phi\",\"method\":\"one_shot\",\"one_shot\":{\"importance\":\"sparsegpt\"},\"refit\":{\"method\":"
		 "\"least_squares\"}" CALIBRATION},
	};
	(void)state;
	most_points = MOST_OF_OTHERS; /* the rest of these jobs is as above */
	check(deeds, COUNT_OF(deeds));
	most_points = MOST_POINTS;
}

/* How masks are written, and that a device has memory of its own, changes no byte of what a job makes. Where it has too little, the
 * job says so before it begins. */
static void test_device_of_its_own(void **state)
{
	static const struct {
		const char *job, *needs;
	} cases[] = {
		{"\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"epochs\":8,\"optimizer\":\"adamw\","
		 "\"learning_rate\":0.3}" CALIBRATION,
		 "the job needs 1 MiB of"},
		{"\"method\":\"besa\",\"besa\":{\"candidates\":5,\"batch_size\":2,\"reconstruct\":\"two_blocks\"}" CALIBRATION,
		 "the job needs 1 MiB of"},
		{"\"method\":\"sparsegpt\",\"refit\":{\"method\":\"block\"}" CALIBRATION, "the job needs 1 MiB of"},
		{"\"method\":\"wanda\",\"refit\":{\"method\":\"global\",\"batch_size\":2}" CALIBRATION,
		 "the global tune needs 1 MiB of"},
	};
	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		enum status (*const ways[])(const char *, struct error *) = {do_job, do_job_on_device};
		struct error err;
		char *bytes[2];
		size_t sizes[2];
		for (int way = 0; way < 2; way++) {
			make_work();
			if (ways[way](cases[i].job, &err) != STATUS_OK) fail_msg("%s: %s", cases[i].job, err.message);
			assert_int_equal(file_slurp(path("work/out/o/model.safetensors"), 1 << 20, &bytes[way], &sizes[way], &err),
					 STATUS_OK);
		}
		assert_int_equal(sizes[1], sizes[0]);
		if (memcmp(bytes[1], bytes[0], sizes[0]) != 0) fail_msg("%s: other weights on a device", cases[i].job);
		free(bytes[0]);
		free(bytes[1]);
		make_work();
		device_bytes = 100000;
		assert_int_equal(do_job(cases[i].job, &err), STATUS_NO_MEMORY);
		device_bytes = 0;
		if (!strstr(err.message, cases[i].needs) || !strstr(err.message, "device memory, and 0 MiB are free; a "))
			fail_msg("%s: %s", cases[i].job, err.message);
		assert_int_not_equal(access(path("work/out/o"), F_OK), 0);
	}
}

/* ---- the files
 * -------------------------------------------------------------------------------------------------------------------- */

static void copy(const char *from, const char *to)
{
	struct scratch *s = scratch;
	char *bytes;
	size_t size;
	SUCCEEDS(file_slurp(from, 1 << 20, &bytes, &size, &s->err));
	scratch_write(s, to, bytes, size);
	free(bytes);
}

/* The same model with another tokenizer. */
static void make_other(const char *directory, const char *tokenizer)
{
	struct scratch *s = scratch;
	char name[64];
	SUCCEEDS(directory_make(path(directory), &s->err));
	snprintf(name, sizeof name, "%s/config.json", directory);
	copy("tests/data/saved/llama/config.json", name);
	snprintf(name, sizeof name, "%s/model.safetensors", directory);
	copy("tests/data/saved/llama/model.safetensors", name);
	snprintf(name, sizeof name, "%s/tokenizer.model", directory);
	copy(tokenizer, name);
}

static void make_data(void)
{
	struct scratch *s = scratch;
	char text[2000] = "", rows[2000] = "";
	for (int i = 0; i < 30; i++) {
		char sentence[50];
		snprintf(sentence, sizeof sentence, "The %d cats of a river sat down. ", i * 37);
		strcat(text, sentence);
		if (i < 20)
			snprintf(rows + strlen(rows), sizeof rows - strlen(rows), "{\"id\":%d,\"text\":\"%s%s\"}\n", i, sentence,
				 i % 3 ? "\\u00e9 and \\\"more\\\"" : "");
	}
	scratch_text(s, "data/text.txt", text);
	scratch_text(s, "data/rows.jsonl", rows);
	scratch_safetensors(s, "data/ids.safetensors",
			    "{\"input_ids\":{\"dtype\":\"I32\",\"shape\":[3,8],\"data_offsets\":[0,96]}}", 0);
	FILE *file = fopen(scratch_path(s, "data/ids.safetensors"), "ab");
	assert_non_null(file);
	for (int32_t i = 0; i < 24; i++) {
		int32_t id = i * 13 % VOCAB;
		fwrite(&id, sizeof id, 1, file);
	}
	assert_int_equal(fclose(file), 0);
}

static void make_families(void)
{
	static const char *const families[] = {"gemma3_text", "gpt2", "gpt_oss", "opt", "phi", "qwen2_moe"};
	static const char *const files[] = {"config.json", "model.safetensors"};
	struct scratch *s = scratch;
	for (size_t f = 0; f < COUNT_OF(families); f++) {
		char from[80], to[80];
		snprintf(to, sizeof to, "models/%s", families[f]);
		SUCCEEDS(directory_make(path(to), &s->err));
		for (size_t i = 0; i < COUNT_OF(files); i++) {
			snprintf(from, sizeof from, "tests/data/saved/%s/%s", families[f], files[i]);
			snprintf(to, sizeof to, "models/%s/%s", families[f], files[i]);
			copy(from, to);
		}
		snprintf(to, sizeof to, "models/%s/tokenizer.json", families[f]);
		copy("tests/data/saved/tokenizer.json", to);
	}
}

/* Of several files, with a tensor in two of them, and one that the index does not list. */
static void make_shards(void)
{
	struct scratch *s = scratch;
	char index[4000] = "{\"metadata\":{\"total_size\":1},\"weight_map\":{";
	SUCCEEDS(directory_make(path("models/shards"), &s->err));
	for (int i = 0; i < 70; i++) {
		char name[40], header[200];
		snprintf(name, sizeof name, "models/shards/%d.safetensors", i);
		snprintf(header, sizeof header,
			 "{\"t%d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},\"u%d\":{\"dtype\":\"F32\",\"shape\":["
			 "1],"
			 "\"data_offsets\":[4,8]}}",
			 i ? i - 1 : 0, i);
		scratch_safetensors(s, name, header, 8);
		snprintf(index + strlen(index), 60, "%s\"u%d\":\"%d.safetensors\"", i ? "," : "", i, i);
	}
	strcat(index, "}}");
	scratch_text(s, "models/shards/model.safetensors.index.json", index);
}

static int make_files(void **state)
{
	if (scratch_setup(state)) return -1;
	struct scratch *s = scratch = *state;
	SUCCEEDS(directory_make(path("models/m"), &s->err));
	SUCCEEDS(directory_make(path("models/chat"), &s->err));
	SUCCEEDS(directory_make(path("data"), &s->err));
	copy("tests/data/saved/llama/config.json", "models/m/config.json");
	copy("tests/data/saved/llama/model.safetensors", "models/m/model.safetensors");
	copy("tests/data/saved/tokenizer.json", "models/m/tokenizer.json");
	copy("tests/data/saved/tokenizer_config.json", "models/m/tokenizer_config.json");
	copy("tests/data/chat/thinking.jinja", "models/chat/chat_template.jinja");
	copy("tests/data/tasks/boolq.jsonl", "data/boolq.jsonl");
	make_other("models/sp", "tests/data/tokenizers/directories/llama-model/tokenizer.model");
	make_shards();
	make_families();
	make_data();
	omp_set_num_threads(1); /* each time in the same order */
	json_heed_memory();
	failing_begin();
	return 0;
}

static int remove_files(void **state)
{
	failing_end();
	return scratch_teardown(state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_readers),    cmocka_unit_test(test_products),          cmocka_unit_test(test_jobs),
		cmocka_unit_test(test_other_jobs), cmocka_unit_test(test_device_of_its_own),
	};
	return cmocka_run_group_tests(tests, make_files, remove_files);
}
