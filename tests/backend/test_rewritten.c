/* A model that is rewritten, in other shards, in another type, with a head of its own, is the same model to besad: no complaint
 * when it is opened, and the same perplexity to the last bit. */
#include "tests/unit/scratch.h"

#include "engine/compute/half.h"
#include "engine/eval/perplexity.h"
#include "engine/model/vet.h"
#include "engine/output/rewrite.h"
#include "tests/backend/harness.h"

#define MODEL "tests/data/tiny-qwen" /* BF16, with tied embeddings */
#define EMBEDDINGS "model.embed_tokens.weight"
#define TOKENS "tests/data/tiny-qwen.wikitext2-64k.safetensors"

enum { SHARD_BYTES = 1 << 20, LENGTH = 256, WINDOWS = 4 };

static atomic_bool never;

static void ignore_progress(void *context, const char *phase, int block, int blocks, double fraction, double eta)
{
	(void)context, (void)phase, (void)block, (void)blocks, (void)fraction, (void)eta;
}

static double perplexity_of(struct scratch *s, const char *directory)
{
	struct model model;
	struct sequences windows;
	const struct data_source source = {&PLACE(TOKENS), TOKENS, NULL};
	const struct engine_sink sink = {.progress = ignore_progress};
	struct progress progress = {0};
	double value;
	SUCCEEDS(model_open(&PLACE(directory), NULL, &model, &s->err));
	SUCCEEDS(corpus_evaluation(&source, &PLACE(directory), model.config.vocab, LENGTH, NULL, &never, NULL, &windows, &s->err));
	windows.count = WINDOWS;
	progress_start(&progress, &sink, (int)model.config.layers, 1e9, 0);
	SUCCEEDS(perplexity(&model, test_backend(), DTYPE_F32, &windows, &never, &progress, &value, &s->err));
	sequences_free(&windows);
	model_close(&model);
	return value;
}

/* Writes the tensor `from` of the input as F32 under another name. */
static void write_f32(struct scratch *s, const struct checkpoint *input, const struct tensor_info *from, struct writer *writer,
		      const char *name)
{
	int64_t count = from->bytes / (int64_t)dtype_size(from->dtype);
	void *stored = malloc((size_t)from->bytes);
	float *values = malloc((size_t)count * sizeof *values);
	assert_true(stored && values);
	SUCCEEDS(checkpoint_read(input, from, stored, &s->err));
	for (int64_t i = 0; i < count; i++)
		values[i] = half_load(stored, from->dtype, i);
	SUCCEEDS(writer_write(writer, name, 0, values, (size_t)count * sizeof *values, &s->err));
	free(stored);
	free(values);
}

/* A plan for everything in F32, and the embeddings again as the head. */
static void plan_f32(struct scratch *s, const struct checkpoint *input, struct plan *plan)
{
	for (size_t i = 0; i < input->n_tensors; i++) {
		struct tensor_info info = input->tensors[i];
		info.dtype = DTYPE_F32;
		SUCCEEDS(plan_remove(plan, info.name, &s->err));
		SUCCEEDS(plan_add(plan, info.name, &info, &s->err));
		if (strcmp(info.name, EMBEDDINGS) != 0) continue;
		info.name = (char *)"lm_head.weight";
		SUCCEEDS(plan_add(plan, EMBEDDINGS, &info, &s->err));
	}
}

static void check_rewritten(struct scratch *s, bool wide, int64_t shard_bytes)
{
	struct checkpoint input;
	struct plan plan;
	struct writer *writer;
	struct model_config config;
	struct warnings warnings = {0};
	int64_t bytes;
	char work[128];
	cJSON *members = cJSON_Parse("{\"torch_dtype\":\"float32\",\"tie_word_embeddings\":false}");
	snprintf(work, sizeof work, "%s/work", s->directory);
	SUCCEEDS(checkpoint_open(&PLACE(MODEL), NULL, &input, &s->err));
	SUCCEEDS(plan_create(&input, &plan, &s->err));
	plan.shard_bytes = shard_bytes;
	if (wide) plan_f32(s, &input, &plan);
	if (wide) plan.config = members;
	SUCCEEDS(rewrite_open(&PLACE(MODEL), &plan, &PLACE(work), &writer, &s->err));
	for (size_t i = 0; i < input.n_tensors && wide; i++) {
		const struct tensor_info *from = &input.tensors[i];
		write_f32(s, &input, from, writer, from->name);
		if (strcmp(from->name, EMBEDDINGS) == 0) write_f32(s, &input, from, writer, "lm_head.weight");
	}
	SUCCEEDS(writer_finish(writer, &s->err));
	writer_close(writer);
	plan_free(&plan);
	checkpoint_close(&input);
	cJSON_Delete(members);

	SUCCEEDS(model_vet(&PLACE(work), &warnings, &config, &bytes, &s->err));
	if (warnings.count) fail_msg("%s", warnings.messages[0]);
	assert_true(config.tied_embeddings == !wide);
	assert_true(place_has(&PLACE(work), "model.safetensors.index.json") == (shard_bytes > 0));
	double before = perplexity_of(s, MODEL), after = perplexity_of(s, work);
	if (before != after) fail_msg("perplexity %.17g, and %.17g of the rewritten model", before, after);
}

static void test_sharded(void **state)
{
	check_rewritten(*state, false, SHARD_BYTES);
}

/* The safetensors library wrote the input: the same again, if nothing is asked for. */
static void test_single(void **state)
{
	struct scratch *s = *state;
	char *expected, *made;
	size_t expected_bytes, bytes;
	check_rewritten(s, false, 0);
	SUCCEEDS(file_slurp(MODEL "/model.safetensors", 1 << 24, &expected, &expected_bytes, &s->err));
	SUCCEEDS(file_slurp(scratch_path(s, "work/model.safetensors"), 1 << 24, &made, &bytes, &s->err));
	assert_int_equal(bytes, expected_bytes);
	assert_memory_equal(made, expected, bytes);
	free(expected);
	free(made);
}

static void test_wide(void **state)
{
	check_rewritten(*state, true, SHARD_BYTES);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_sharded),
		SCRATCH_TEST(test_single),
		SCRATCH_TEST(test_wide),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
