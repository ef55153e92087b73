/* Generation (engine/generate/): of every family in tests/data/families the logits of each step against those of the whole
 * forward by blocks, and transformers'; products with zeros left out; and what is drawn from logits, and put together of tokens. */
#include <dirent.h>
#include <math.h>
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/generate/cutter.h"
#include "engine/generate/generator.h"
#include "engine/generate/stops.h"
#include "engine/model/block.h"
#include "engine/model/check.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

enum { TOKENS = 40 };
static const char families[] = "tests/data/families", golden_end[] = ".golden.safetensors";

static struct backend *backend;

static int make_backend(void **state)
{
	struct error err;
	(void)state;
	return backend_cpu_create(2, &backend, &err) == STATUS_OK ? 0 : -1;
}

static int end_backend(void **state)
{
	(void)state;
	backend_destroy(backend);
	return 0;
}

#define RUN(call)                                                                                                                  \
	do {                                                                                                                       \
		if ((call) != STATUS_OK) fail_msg("%s: %s", #call, backend->error.message);                                        \
	} while (0)

/* ---- families --------------------------------------------------------------------------------------------------------------- */

static void link_file(struct scratch *s, const char *from, const char *name)
{
	char *real = realpath(from, NULL);
	if (!real) fail_msg("%s is missing", from);
	(void)remove(scratch_path(s, name));
	assert_int_equal(symlink(real, scratch_path(s, name)), 0);
	free(real);
}

static void *golden(struct scratch *s, const struct checkpoint *checkpoint, const char *name)
{
	const struct tensor_info *info = checkpoint_find(checkpoint, name);
	if (!info) fail_msg("no '%s' in the golden data", name);
	void *data = malloc((size_t)info->bytes);
	assert_non_null(data);
	SUCCEEDS(checkpoint_read(checkpoint, info, data, &s->err));
	return data;
}

static struct tensor new_tensor(int64_t rows, int64_t cols)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, DTYPE_F32);
	RUN(backend->ops->alloc(backend, tensor_bytes(&tensor), &tensor.data));
	return tensor;
}

/* logits [TOKENS, vocab] as evaluations compute them: all tokens through one block after the other. */
static struct tensor whole_forward(struct scratch *s, const struct model *model, const int32_t *ids)
{
	const struct model_config *config = &model->config;
	struct block block;
	struct activations activations;
	struct model_head head;
	struct tensor x = new_tensor(TOKENS, config->hidden), y = new_tensor(TOKENS, config->hidden), stats = new_tensor(TOKENS, 2);
	struct tensor logits = new_tensor(TOKENS, config->vocab);
	SUCCEEDS(block_create(model, backend, DTYPE_F32, TOKENS, &block, &s->err));
	SUCCEEDS(activations_create(&block, 1, TOKENS, false, &activations, &s->err));
	SUCCEEDS(model_head_load(model, backend, DTYPE_F32, &head, &s->err));
	SUCCEEDS(model_embed(model, backend, ids, TOKENS, TOKENS, y, &s->err));
	for (int index = 0; index < config->layers; index++) {
		RUN(backend->ops->copy(backend, x.data, y.data, tensor_bytes(&y)));
		SUCCEEDS(block_load(&block, model, index, &s->err));
		RUN(block_activate_dense(&block));
		RUN(block_forward(&block, &activations, 1, x, y, NULL));
	}
	RUN(backend->ops->norm_forward(backend, &config->norm, x, stats, y, head.norm_weight, head.norm_bias));
	RUN(model_logits(config, &head, backend, logits, x));
	float *values = logits.data, cap = config->logit_softcap;
	for (int64_t i = 0; cap > 0 && i < TOKENS * config->vocab; i++)
		values[i] = cap * tanhf(values[i] / cap);
	model_head_release(&head, backend);
	activations_release(&activations, backend);
	block_release(&block);
	backend->ops->release(backend, x.data);
	backend->ops->release(backend, y.data);
	backend->ops->release(backend, stats.data);
	return logits;
}

/* The largest difference between rows of logits, as a part of what they usually are. */
static double worst(const float *got, const float *expected, int64_t count)
{
	double squares = 0, most = 0;
	for (int64_t i = 0; i < count; i++) {
		squares += (double)expected[i] * expected[i];
		most = fmax(most, fabs((double)got[i] - expected[i]));
	}
	return most / sqrt(squares / (double)count);
}

/* Steps through the ids, and gives each step's logits as the row of a tensor of its last token. `sizes` of the steps, up to a 0. */
static struct tensor step_through(struct scratch *s, const struct model *model, const struct decoder_wishes *wishes,
				  const int32_t *ids, const int *sizes)
{
	struct decoder *decoder;
	struct tensor all = new_tensor(TOKENS, model->config.vocab);
	SUCCEEDS(decoder_create(model, backend, wishes, NULL, &decoder, &s->err));
	/* The second sequence does not know of the first. */
	SUCCEEDS(decoder_begin(decoder, 3, &s->err));
	for (int t = 0; t < 3; t++)
		SUCCEEDS(decoder_step(decoder, &ids[TOKENS - 1 - t], 1, NULL, &s->err));
	FAILS(STATUS_INVALID, "has 3 of its 3 tokens", decoder_step(decoder, ids, 1, NULL, &s->err));
	SUCCEEDS(decoder_begin(decoder, TOKENS, &s->err));
	FAILS(STATUS_INVALID, "1 to 32 tokens", decoder_step(decoder, ids, 33, NULL, &s->err));
	for (int t = 0, i = 0; t < TOKENS; t += sizes[i], i += sizes[i + 1] != 0) {
		const float *logits;
		SUCCEEDS(decoder_step(decoder, ids + t, sizes[i], &logits, &s->err));
		memcpy(tensor_rows(all, t + sizes[i] - 1, 1).data, logits, (size_t)model->config.vocab * sizeof *logits);
	}
	decoder_free(decoder);
	return all;
}

static const int ones[] = {1, 0}, some[] = {7, 1, DECODER_TOKENS, 0};

/* How far the logits behind some tokens at once are off those of one after the other. */
static double off_ones(struct scratch *s, const struct model *model, const struct decoder_wishes *wishes, const int32_t *ids,
		       struct tensor expected)
{
	struct tensor at_once = step_through(s, model, wishes, ids, some);
	double most = 0;
	for (int t = -1, i = 0; some[i]; i++) {
		t += some[i];
		most = fmax(most, worst(tensor_rows(at_once, t, 1).data, tensor_rows(expected, t, 1).data, expected.cols));
	}
	backend->ops->release(backend, at_once.data);
	return most;
}

static void check_family(struct scratch *s, const char *family, const char *name)
{
	char path[512];
	struct checkpoint checkpoint;
	struct model model;
	snprintf(path, sizeof path, "%s/%s/model.safetensors", families, family);
	link_file(s, path, "model.safetensors");
	snprintf(path, sizeof path, "%s/%s/%s.json", families, family, name);
	link_file(s, path, "config.json");
	snprintf(path, sizeof path, "%s/%s/%s%s", families, family, name, golden_end);
	SUCCEEDS(checkpoint_open_file(&PLACE(path), &checkpoint, &s->err));
	SUCCEEDS(model_open(&PLACE(s->directory), NULL, &model, &s->err));
	int32_t *ids = golden(s, &checkpoint, "ids");
	float *expected = golden(s, &checkpoint, "logits");
	int64_t vocab = model.config.vocab;
	struct tensor whole = whole_forward(s, &model, ids);
	const struct decoder_wishes wide = {DTYPE_F32, MATRIX_AUTO}, half = {DTYPE_BF16, MATRIX_DENSE},
				    left_out = {DTYPE_BF16, MATRIX_SPARSE};
	struct tensor steps = step_through(s, &model, &wide, ids, ones);
	double of_whole = 0, of_golden = worst(steps.data, expected, TOKENS * vocab);
	for (int t = 0; t < TOKENS; t++)
		of_whole = fmax(of_whole, worst(tensor_rows(steps, t, 1).data, tensor_rows(whole, t, 1).data, vocab));
	/* Rounded to bf16, dense and sparse add the same products up in another order. */
	struct tensor dense = step_through(s, &model, &half, ids, ones), sparse = step_through(s, &model, &left_out, ids, ones);
	double of_half = worst(dense.data, whole.data, TOKENS * vocab), of_sparse = worst(sparse.data, dense.data, TOKENS * vocab);
	double of_ones = off_ones(s, &model, &wide, ids, steps);
	double of_halves = fmax(off_ones(s, &model, &half, ids, dense), off_ones(s, &model, &left_out, ids, sparse));
	print_message(
		"%s %s: off the whole forward by %.2g, transformers by %.2g; in bf16 by %.2g, sparse off dense by %.2g; some at "
		"once by %.2g, in bf16 by %.2g\n",
		family, name, of_whole, of_golden, of_half, of_sparse, of_ones, of_halves);
	if (!(of_ones < 3e-5)) fail_msg("behind some tokens at once logits are off those of one after the other by %g", of_ones);
	if (!(of_halves < 0.1) && !model.config.experts) fail_msg("in bf16 they are off by %g", of_halves);
	if (!(of_whole < 3e-5)) fail_msg("a step's logits are off the whole forward's by %g", of_whole);
	if (!(of_golden < 1e-4)) fail_msg("a step's logits are off transformers' by %g", of_golden);
	/* Rounding may send a token to other experts. */
	if (!(of_half < 0.3) && !model.config.experts) fail_msg("in bf16 a step's logits are off by %g", of_half);
	if (!(of_sparse < 0.3) && !model.config.experts) fail_msg("sparse products are off dense ones by %g", of_sparse);
	struct tensor *all[] = {&whole, &steps, &dense, &sparse};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]->data);
	free(ids);
	free(expected);
	model_close(&model);
	checkpoint_close(&checkpoint);
}

/* Every directory of the families, and every golden file in it. */
static void test_families(void **state)
{
	struct scratch *s = *state;
	int checked = 0;
	DIR *all = opendir(families);
	assert_non_null(all);
	for (struct dirent *family; (family = readdir(all)) != NULL;) {
		char path[512];
		snprintf(path, sizeof path, "%s/%s", families, family->d_name);
		DIR *files = family->d_name[0] == '.' ? NULL : opendir(path);
		for (struct dirent *file; files && (file = readdir(files)) != NULL;) {
			char *end = strstr(file->d_name, golden_end);
			if (!end) continue;
			*end = 0;
			check_family(s, family->d_name, file->d_name);
			checked++;
		}
		if (files) closedir(files);
	}
	closedir(all);
	assert_true(checked >= 50);
}

static void test_limits(void **state)
{
	struct scratch *s = *state;
	struct model_config config = {.max_positions = 4096, .rope = {.kind = ROPE_LONG, .original_max_positions = 1024}};
	struct decoder *decoder;
	struct model model;
	assert_int_equal(decoder_most_tokens(&config, 1024), 1024);
	assert_int_equal(decoder_most_tokens(&config, 1025), 4096);
	config.rope.kind = ROPE_DEFAULT;
	assert_int_equal(decoder_most_tokens(&config, 10), 4096);
	SUCCEEDS(model_open(&PLACE("demo/tiny-llama"), NULL, &model, &s->err));
	SUCCEEDS(decoder_create(&model, backend, &(struct decoder_wishes){DTYPE_BF16, MATRIX_AUTO}, NULL, &decoder, &s->err));
	FAILS(STATUS_INVALID, "a token", decoder_begin(decoder, 0, &s->err));
	SUCCEEDS(decoder_begin(decoder, 512, &s->err));
	FAILS(STATUS_INVALID, "token 2048", decoder_step(decoder, (const int32_t[]){1, 2048}, 2, NULL, &s->err));
	FAILS(STATUS_INVALID, "token -1", decoder_step(decoder, &(int32_t){-1}, 1, NULL, &s->err));
	decoder_free(decoder);
	atomic_bool stop = true;
	FAILS(STATUS_CANCELLED, "stopped",
	      decoder_create(&model, backend, &(struct decoder_wishes){DTYPE_BF16, MATRIX_AUTO}, &stop, &decoder, &s->err));
	model_close(&model);
}

/* ---- matrices --------------------------------------------------------------------------------------------------------------- */

static void test_which_are_sparse(void **state)
{
	struct scratch *s = *state;
	enum { ROWS = 20, COLS = 70 };
	static float weights[ROWS * COLS];
	const struct {
		int zeros; /* of each 10 weights */
		enum matrix_choice choice;
		bool sparse;
	} cases[] = {{0, MATRIX_AUTO, false},  {2, MATRIX_AUTO, false},  {3, MATRIX_AUTO, true},
		     {5, MATRIX_DENSE, false}, {0, MATRIX_SPARSE, true}, {10, MATRIX_AUTO, true}};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct matrix matrix;
		for (int i = 0; i < ROWS * COLS; i++)
			weights[i] = i % 10 < cases[c].zeros ? 0 : 1;
		int64_t room = matrix_memory(ROWS, COLS, DTYPE_BF16, cases[c].choice);
		char *memory = matvec_allocate((size_t)room), *end = memory;
		SUCCEEDS(matrix_make(tensor_make(weights, ROWS, COLS, DTYPE_F32), DTYPE_BF16, cases[c].choice, &end, &matrix,
				     &s->err));
		assert_int_equal(matrix.dense == NULL, cases[c].sparse);
		assert_int_equal(matrix.zeros, ROWS * COLS / 10 * cases[c].zeros);
		assert_true(end - memory <= room && (end - memory) % SPARSE_ALIGNMENT == 0);
		free(memory);
	}
}

/* ---- sampling --------------------------------------------------------------------------------------------------------------- */

static void test_sampling(void **state)
{
	struct scratch *s = *state;
	enum { VOCAB = 5, DRAWS = 20000 };
	const float logits[VOCAB] = {logf(1), logf(4), logf(2), logf(4), logf(9)}; /* of 20 */
	const struct {
		struct sampling how;
		double shares[VOCAB];
	} cases[] = {
		{{0, 1, 7}, {0, 0, 0, 0, 1}},
		{{1, 1, 7}, {0.05, 0.2, 0.1, 0.2, 0.45}},
		{{0.5, 1, 7}, {1 / 118.0, 16 / 118.0, 4 / 118.0, 16 / 118.0, 81 / 118.0}},
		{{1, 0.6, 7}, {0, 4 / 13.0, 0, 0, 9 / 13.0}}, /* of equals the one with the smaller id */
		{{1, 0.01, 7}, {0, 0, 0, 0, 1}},
		{{1, 0, 7}, {0, 0, 0, 0, 1}},
	};
	for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
		struct sampler sampler, again;
		int counts[VOCAB] = {0};
		SUCCEEDS(sampler_create(cases[c].how, VOCAB, &sampler, &s->err));
		SUCCEEDS(sampler_create(cases[c].how, VOCAB, &again, &s->err));
		for (int i = 0; i < DRAWS; i++) {
			int32_t id, same;
			SUCCEEDS(sampler_choose(&sampler, logits, &id, &s->err));
			SUCCEEDS(sampler_choose(&again, logits, &same, &s->err));
			assert_int_equal(id, same);
			counts[id]++;
		}
		for (int i = 0; i < VOCAB; i++)
			assert_true(fabs(counts[i] / (double)DRAWS - cases[c].shares[i]) < 0.015);
		sampler_free(&sampler);
		sampler_free(&again);
	}
	const float equal[3] = {1, 2, 2}, broken[3] = {1, NAN, 2};
	struct sampler greedy;
	int32_t id;
	SUCCEEDS(sampler_create((struct sampling){0, 1, 0}, 3, &greedy, &s->err));
	SUCCEEDS(sampler_choose(&greedy, equal, &id, &s->err));
	assert_int_equal(id, 1);
	FAILS(STATUS_NUMERIC, "token 1", sampler_choose(&greedy, broken, &id, &s->err));
	sampler_free(&greedy);
}

/* ---- text ------------------------------------------------------------------------------------------------------------------- */

/* Encodes a text and puts it together again, token by token. */
static void check_text(struct scratch *s, const char *directory, const char *text, const char *expected)
{
	struct tokenizer *tokenizer;
	struct detokenizer *detokenizer;
	int32_t *ids;
	size_t count, bytes, used = 0;
	const char *part;
	char all[512] = "";
	SUCCEEDS(tokenizer_load(&PLACE(directory), 1 << 20, NULL, &tokenizer, &s->err));
	SUCCEEDS(detokenizer_create(tokenizer, &detokenizer, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, text, strlen(text), &ids, &count, &s->err));
	for (size_t i = 0; i <= count; i++) {
		if (i < count)
			SUCCEEDS(detokenizer_add(detokenizer, ids[i], &part, &bytes, &s->err));
		else
			SUCCEEDS(detokenizer_end(detokenizer, &part, &bytes, &s->err));
		assert_true(used + bytes < sizeof all);
		memcpy(all + used, part, bytes + 1);
		used += bytes;
		assert_true(utf8_valid(all, used));
	}
	assert_string_equal(all, expected);
	free(ids);
	detokenizer_free(detokenizer);
	tokenizer_free(tokenizer);
}

static void test_text(void **state)
{
	/* Many of these characters are several tokens of bytes. */
	static const char text[] = "The cat\xe2\x80\x99s  na\xc3\xafve \xf0\x9f\x90\x88 \xe2\x86\xaf\n\t\xe5\xad\x97 end";
	char spaced[128];
	snprintf(spaced, sizeof spaced, " %s", text);
	check_text(*state, "tests/data/tiny-qwen", text, text);
	check_text(*state, "tests/data/tiny-qwen", "a<|end_of_text|>b", "ab");
	check_text(*state, "demo/tiny-llama", text, spaced); /* SentencePiece puts a space before a text */
}

/* What is no whole character stays back, and at the end is U+FFFD. */
static void test_broken_text(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	struct detokenizer *detokenizer;
	const char *part;
	size_t bytes;
	SUCCEEDS(tokenizer_load(&PLACE("demo/tiny-llama"), 2048, NULL, &tokenizer, &s->err));
	SUCCEEDS(detokenizer_create(tokenizer, &detokenizer, &s->err));
	const struct {
		int32_t id;
		const char *expected;
	} steps[] = {{3 + 0xe2, ""},
		     {3 + 0x86, ""},
		     {3 + 0xaf, "\xe2\x86\xaf"},
		     {3 + 0xe2, ""},
		     {3 + 'a', "\xef\xbf\xbd"
			       "a"},
		     {1, ""},
		     {99999, ""},
		     {-1, ""},
		     {3 + 0xff, ""},
		     {3 + 0xf0, "\xef\xbf\xbd"}};
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		SUCCEEDS(detokenizer_add(detokenizer, steps[i].id, &part, &bytes, &s->err));
		assert_string_equal(part, steps[i].expected);
	}
	SUCCEEDS(detokenizer_end(detokenizer, &part, &bytes, &s->err));
	assert_string_equal(part, "\xef\xbf\xbd");
	SUCCEEDS(detokenizer_end(detokenizer, &part, &bytes, &s->err));
	assert_string_equal(part, "");
	detokenizer_free(detokenizer);
	tokenizer_free(tokenizer);
	link_file(s, "tests/data/tokenizers/wordlevel.json", "tokenizer.json");
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 1 << 20, NULL, &tokenizer, &s->err));
	FAILS(STATUS_UNSUPPORTED, "words", detokenizer_create(tokenizer, &detokenizer, &s->err));
	tokenizer_free(tokenizer);
}

static void test_stops(void **state)
{
	struct scratch *s = *state;
	struct stops stops;
	scratch_text(s, "config.json", "{\"eos_token_id\": 7}");
	SUCCEEDS(stops_read(&PLACE(s->directory), &stops, &s->err));
	assert_true(stops.count == 1 && stops_has(&stops, 7));
	scratch_text(s, "generation_config.json", "{\"eos_token_id\": [2, 3]}");
	SUCCEEDS(stops_read(&PLACE(s->directory), &stops, &s->err));
	assert_true(stops.count == 2 && stops_has(&stops, 2) && stops_has(&stops, 3) && !stops_has(&stops, 7));
	scratch_text(s, "generation_config.json", "{\"eos_token_id\": null}");
	SUCCEEDS(stops_read(&PLACE(s->directory), &stops, &s->err));
	assert_true(stops.count == 1 && stops_has(&stops, 7));
	scratch_text(s, "generation_config.json", "{\"eos_token_id\": \"</s>\"}");
	FAILS(STATUS_INVALID, "generation_config.json", stops_read(&PLACE(s->directory), &stops, &s->err));
	static const struct {
		const char *config;
		enum status status;
		const char *part;
	} refused[] = {
		{"{\"eos_token_id\": -1}", STATUS_INVALID, "must be a token's id, or a list of ids"},
		{"{\"eos_token_id\": 1.5}", STATUS_INVALID, "must be a token's id, or a list of ids"},
		{"{\"eos_token_id\": 2147483648}", STATUS_INVALID, "must be a token's id, or a list of ids"},
		{"{\"eos_token_id\": [1, null, 2]}", STATUS_INVALID, "must be a token's id, or a list of ids"},
		{"{\"eos_token_id\": [0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8,9,0,1,2]}", STATUS_UNSUPPORTED,
		 "'eos_token_id' has more than 32 ids"},
		{"{", STATUS_INVALID, "generation_config.json"},
	};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		scratch_text(s, "generation_config.json", refused[i].config);
		FAILS(refused[i].status, refused[i].part, stops_read(&PLACE(s->directory), &stops, &s->err));
	}
	scratch_text(s, "generation_config.json", "{\"text_config\": {\"eos_token_id\": [4]}}");
	SUCCEEDS(stops_read(&PLACE(s->directory), &stops, &s->err));
	assert_true(stops.count == 1 && stops_has(&stops, 4));
}

/* What comes out of the pieces, of which each must be certain by then; "|" stands where the next piece came. */
static void check_cut(struct cutter cutter, const char *const *pieces, const char *expected, bool found)
{
	char got[256] = "";
	for (int i = 0; pieces[i]; i++) {
		assert_true(cutter_add(&cutter, pieces[i], strlen(pieces[i]), !pieces[i + 1]));
		strncat(got, cutter.free.data, cutter.free.size);
		if (pieces[i + 1]) strcat(got, "|");
	}
	assert_string_equal(got, expected);
	assert_int_equal(cutter.found, found);
	cutter_free(&cutter);
}

static void test_cutter(void **state)
{
	(void)state;
	const struct cutter one = {.stops = {"aab"}, .count = 1}, two = {.stops = {"abcdef", "bc"}, .count = 2},
			    none = {.count = 0};
	check_cut(none, (const char *const[]){"aa", "b", "", NULL}, "aa|b|", false);
	check_cut(one, (const char *const[]){"xa", "a", "a", "bz", "y", "", NULL}, "x||a|||", true);
	check_cut(one, (const char *const[]){"xaa", "c", "aa", "", NULL}, "x|aac||aa", false); /* what is held comes at the end */
	check_cut(one, (const char *const[]){"xaaby", "", NULL}, "x|", true);
	check_cut(two, (const char *const[]){"xab", "c", "def", "", NULL}, "x|a||", true); /* the first that is whole */
	check_cut(two, (const char *const[]){"abcdef", "", NULL}, "|", true);              /* of two, the one that begins first */
	check_cut(two, (const char *const[]){"abd", "b", "", NULL}, "abd||b", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_families), SCRATCH_TEST(test_limits), SCRATCH_TEST(test_which_are_sparse),
		SCRATCH_TEST(test_sampling), SCRATCH_TEST(test_text),   SCRATCH_TEST(test_broken_text),
		SCRATCH_TEST(test_stops),    SCRATCH_TEST(test_cutter)};
	return cmocka_run_group_tests(tests, make_backend, end_backend);
}
