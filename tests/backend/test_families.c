/* Every family against transformers: the logits of a tiny random model, and the gradients of its last block's weights against
 * PyTorch's. tests/data/families/make.py made the models and what is expected of them, and says what the files hold. */
#include <math.h>

#include "tests/unit/scratch.h"

#include "engine/model/block.h"
#include "tests/backend/harness.h"

enum { TOKENS = 40 };

/* fp32 and its bounds, or, where a family has steps of their own in bf16, that. */
struct precision {
	enum dtype type;
	double logits, gradient;
};
static const struct precision FP32 = {DTYPE_F32, 1e-4, 1e-3}, BF16 = {DTYPE_BF16, 0.2, 0.03};

struct subject {
	struct scratch *s;
	const struct precision *precision;
	struct checkpoint golden;
	struct model model;
	struct block block;
	struct activations activations;
	struct tensor x, y; /* F32 [TOKENS, H]: what goes into a block, and what comes out */
};

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

static void copy_file(struct scratch *s, const char *from, const char *name)
{
	FILE *file = fopen(from, "rb");
	if (!file) fail_msg("%s is missing", from);
	static char bytes[1 << 20];
	size_t size = fread(bytes, 1, sizeof bytes, file);
	assert_true(size < sizeof bytes);
	fclose(file);
	scratch_write(s, name, bytes, size);
}

/* The data of a golden tensor; the caller frees it. */
static void *golden(struct subject *t, const char *name, enum dtype dtype, int64_t rows, int64_t cols)
{
	const struct tensor_info *info = checkpoint_find(&t->golden, name);
	if (!info) fail_msg("no '%s' in the golden data", name);
	assert_int_equal(info->dtype, dtype);
	assert_int_equal(info->bytes, rows * cols * (int64_t)dtype_size(dtype));
	void *data = malloc((size_t)info->bytes);
	assert_non_null(data);
	struct scratch *s = t->s;
	SUCCEEDS(checkpoint_read(&t->golden, info, data, &s->err));
	return data;
}

/* ---- on the device ----------------------------------------------------------------------------------------------------------- */

static struct tensor new_tensor(int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, type);
	RUN(OPS->alloc(BACKEND, tensor_bytes(&tensor), &tensor.data));
	return tensor;
}

static float *download(struct tensor tensor)
{
	float *host = malloc(tensor_bytes(&tensor));
	assert_non_null(host);
	RUN(OPS->download(BACKEND, host, tensor.data, tensor_bytes(&tensor)));
	return host;
}

static void open_subject(struct subject *t, struct scratch *s, const char *family, const char *name,
			 const struct precision *precision)
{
	char path[256];
	*t = (struct subject){.s = s, .precision = precision};
	snprintf(path, sizeof path, "tests/data/families/%s/model.safetensors", family);
	copy_file(s, path, "model.safetensors");
	snprintf(path, sizeof path, "tests/data/families/%s/%s.json", family, name);
	copy_file(s, path, "config.json");
	snprintf(path, sizeof path, "tests/data/families/%s/%s.golden.safetensors", family, name);
	SUCCEEDS(checkpoint_open_file(&PLACE(path), &t->golden, &s->err));
	SUCCEEDS(model_open(&PLACE(s->directory), NULL, &t->model, &s->err));
	SUCCEEDS(block_check(&t->model, &s->err));
	SUCCEEDS(block_create(&t->model, BACKEND, precision->type, TOKENS, &t->block, &s->err));
	SUCCEEDS(activations_create(&t->block, 1, TOKENS, true, &t->activations, &s->err));
	t->x = new_tensor(TOKENS, t->model.config.hidden, DTYPE_F32);
	t->y = new_tensor(TOKENS, t->model.config.hidden, DTYPE_F32);
}

static void close_subject(struct subject *t)
{
	OPS->release(BACKEND, t->x.data);
	OPS->release(BACKEND, t->y.data);
	activations_release(&t->activations, BACKEND);
	block_release(&t->block);
	model_close(&t->model);
	checkpoint_close(&t->golden);
}

/* The last block's outputs are then in y, and its weights and activations are the ones that lie ready for a backward. */
static void run_blocks(struct subject *t)
{
	struct scratch *s = t->s;
	int32_t *ids = golden(t, "ids", DTYPE_I32, 1, TOKENS);
	SUCCEEDS(model_embed(&t->model, BACKEND, ids, TOKENS, TOKENS, t->y, &s->err));
	free(ids);
	for (int index = 0; index < t->model.config.layers; index++) {
		RUN(OPS->copy(BACKEND, t->x.data, t->y.data, tensor_bytes(&t->y)));
		SUCCEEDS(block_load(&t->block, &t->model, index, &s->err));
		RUN(block_activate_dense(&t->block));
		RUN(block_forward(&t->block, &t->activations, 1, t->x, t->y, NULL));
	}
}

/* ---- logits ------------------------------------------------------------------------------------------------------------------ */

static void check_logits(struct subject *t)
{
	struct scratch *s = t->s;
	const struct model_config *config = &t->model.config;
	struct model_head head;
	struct tensor normed = new_tensor(TOKENS, config->hidden, t->precision->type), stats = new_tensor(TOKENS, 2, DTYPE_F32),
		      logits = new_tensor(TOKENS, config->vocab, DTYPE_F32);
	SUCCEEDS(model_head_load(&t->model, BACKEND, t->precision->type, &head, &s->err));
	RUN(OPS->norm_forward(BACKEND, &config->norm, normed, stats, t->y, head.norm_weight, head.norm_bias));
	RUN(model_logits(config, &head, BACKEND, logits, normed));
	float *got = download(logits), *expected = golden(t, "logits", DTYPE_F32, TOKENS, config->vocab);
	int64_t count = TOKENS * config->vocab;
	for (int64_t i = 0; config->logit_softcap > 0 && i < count; i++)
		got[i] = config->logit_softcap * tanhf(got[i] / config->logit_softcap);
	double squares = 0;
	for (int64_t i = 0; i < count; i++)
		squares += (double)expected[i] * expected[i];
	/* Relative to the logit, or to their root mean square where one happens to be near zero. */
	double usual = sqrt(squares / (double)count), worst = 0;
	for (int64_t i = 0; i < count; i++)
		worst = fmax(worst, fabs((double)got[i] - expected[i]) / fmax(fabs((double)expected[i]), usual));
	print_message("logits: off by %.2g\n", worst);
	if (!(worst < t->precision->logits)) fail_msg("a logit is off by %g of its value", worst);
	free(got);
	free(expected);
	model_head_release(&head, BACKEND);
	OPS->release(BACKEND, normed.data);
	OPS->release(BACKEND, stats.data);
	OPS->release(BACKEND, logits.data);
}

/* ---- gradients --------------------------------------------------------------------------------------------------------------- */

struct comparison {
	struct subject *t;
	int compared; /* tensors of the file */
};

static enum status compare_gradient(void *context, int product, const struct product_gradient *gradient)
{
	struct comparison *comparison = context;
	struct subject *t = comparison->t;
	struct tensor dw = new_tensor(gradient->dy.cols, gradient->x.cols, DTYPE_F32);
	RUN(OPS->matmul(BACKEND, dw, gradient->dy, true, gradient->x, false, false));
	float *got = download(dw);
	for (int l = 0; l < t->block.layout.n_linears; l++) {
		const struct linear *linear = &t->block.layout.linears[l];
		int64_t first = linear->first - t->block.layout.products[product].first;
		char name[160];
		snprintf(name, sizeof name, "gradient.%s", linear->stored);
		if (linear->product != product || !checkpoint_find(&t->golden, name)) continue;
		float *whole = golden(t, name, DTYPE_F32, linear->stored_rows, linear->cols);
		const float *expected = whole + linear->stored_first * linear->cols;
		double miss = 0, squares = 0;
		for (int r = 0; r < layout_stretches(linear); r++) {
			struct stretch stretch = layout_stretch(linear, r);
			for (int64_t i = 0; i < stretch.rows * linear->cols; i++) {
				double right = expected[stretch.stored * linear->cols + i];
				double difference = (double)got[(first + stretch.first) * linear->cols + i] - right;
				miss += difference * difference;
				squares += right * right;
			}
		}
		print_message("gradient of %s: off by %.2g\n", linear->path, sqrt(miss / squares));
		if (!(sqrt(miss / squares) < t->precision->gradient))
			fail_msg("the gradient of %s is off by %g of its norm", linear->path, sqrt(miss / squares));
		free(whole);
		comparison->compared += linear->stored_first + linear->rows == linear->stored_rows;
	}
	free(got);
	OPS->release(BACKEND, dw.data);
	return STATUS_OK;
}

/* Element i of make.py's output_gradient. */
static float output_gradient(uint32_t i)
{
	return (float)((i * 2654435761u) >> 16) / 65536 - 0.5f;
}

static struct tensor new_output_gradient(struct subject *t)
{
	struct tensor dy = new_tensor(TOKENS, t->model.config.hidden, DTYPE_F32);
	float *host = malloc(tensor_bytes(&dy));
	assert_non_null(host);
	for (int64_t i = 0; i < dy.rows * dy.cols; i++)
		host[i] = output_gradient((uint32_t)i);
	RUN(OPS->upload(BACKEND, dy.data, host, tensor_bytes(&dy)));
	free(host);
	return dy;
}

static void check_gradients(struct subject *t)
{
	int kept = 0;
	struct tensor dy = new_output_gradient(t);
	struct comparison comparison = {.t = t};
	RUN(block_backward(&t->block, &t->activations, 1, dy, compare_gradient, &comparison, NULL));
	for (size_t i = 0; i < t->golden.n_tensors; i++)
		kept += strncmp(t->golden.tensors[i].name, "gradient.", 9) == 0;
	assert_true(kept > 0);
	assert_int_equal(comparison.compared, kept);
	OPS->release(BACKEND, dy.data);
}

/* ---- gradients of norms and biases, against differences of the forward ------------------------------------------------------- */

static enum status leave_gradient(void *context, int product, const struct product_gradient *gradient)
{
	(void)context;
	(void)product;
	(void)gradient;
	return STATUS_OK;
}

/* ⟨dy, block(x)⟩ */
static double output_along(struct subject *t)
{
	RUN(block_forward(&t->block, &t->activations, 1, t->x, t->y, NULL));
	float *y = download(t->y);
	double sum = 0;
	for (int64_t i = 0; i < t->y.rows * t->y.cols; i++)
		sum += (double)y[i] * output_gradient((uint32_t)i);
	free(y);
	return sum;
}

/* The derivative by element i of a vector; false where the output bends or jumps within the step, as a ReLU or a router does. */
static bool difference_at(struct subject *t, struct tensor values, int64_t i, double *ret)
{
	const double step = 1e-3;
	struct tensor element = tensor_cols(values, i, 1);
	float *all = download(values), at = all[i];
	double along[3];
	for (int side = 0; side < 3; side++) {
		all[i] = at + (float)((side - 1) * step);
		RUN(OPS->upload(BACKEND, element.data, &all[i], sizeof *all));
		along[side] = output_along(t);
	}
	RUN(OPS->upload(BACKEND, element.data, &at, sizeof at));
	free(all);
	double before = (along[1] - along[0]) / step, behind = (along[2] - along[1]) / step;
	*ret = (before + behind) / 2;
	return fabs(before - behind) < 0.05 * fmax(fabs(before), fabs(behind));
}

/* Some elements of a gradient, about 40, or 3 on a device: the emulator is slow. What fp32 adds to differences is below a
 * hundredth. */
static void compare_differences(struct subject *t, struct tensor values, struct tensor gradient, const char *of)
{
	float *got = download(gradient);
	double miss = 0, squares = 0, expected;
	int compared = 0, left_out = 0;
	for (int64_t i = 0; i < values.cols; i += 1 + values.cols / (BACKEND->unified ? 40 : 3)) {
		if (!difference_at(t, values, i, &expected)) {
			left_out++;
			continue;
		}
		compared++;
		miss += (got[i] - expected) * (got[i] - expected);
		squares += expected * expected;
	}
	print_message("gradient of %s: off by %.2g, %d left out\n", of, sqrt(miss / squares), left_out);
	/* What is added to all keys alike changes nothing where they do not turn: a third of a bias of q, k and v has no
	 * gradient. */
	assert_true(2 * compared > left_out || !BACKEND->unified);
	if (compared > 0 && !(sqrt(miss / squares) < 2e-2))
		fail_msg("the gradient of %s is off by %g of its norm", of, sqrt(miss / squares));
	free(got);
}

static void check_vector(struct subject *t, const struct vectors *gradients, enum vector vector)
{
	struct tensor values = block_vector_values(&t->block, vector);
	char name[32];
	assert_true((values.data == NULL) == (gradients->of[vector].data == NULL));
	if (!values.data) return;
	assert_int_equal(values.cols, gradients->of[vector].cols);
	snprintf(name, sizeof name, "vector %d", (int)vector);
	compare_differences(t, values, gradients->of[vector], name);
}

/* The gradient of the input is asked for with those of the vectors, and by itself. */
static void check_input_gradient(struct subject *t)
{
	struct vector_gradients alone = {.x = t->x, .input = true};
	struct tensor dx = new_output_gradient(t), flat = t->x;
	RUN(block_forward(&t->block, &t->activations, 1, t->x, t->y, NULL));
	RUN(block_backward(&t->block, &t->activations, 1, dx, leave_gradient, NULL, &alone));
	flat.cols = flat.stride = flat.rows * flat.cols;
	flat.rows = 1;
	compare_differences(t, flat, dx, "the input");
	OPS->release(BACKEND, dx.data);
}

static void check_vector_gradients(struct subject *t)
{
	struct scratch *s = t->s;
	struct vector_gradients gradients = {.x = t->x, .input = true};
	struct tensor dy = new_output_gradient(t);
	SUCCEEDS(vectors_create(&t->block, &gradients.vectors, &s->err));
	RUN(block_forward(&t->block, &t->activations, 1, t->x, t->y, NULL));
	RUN(block_backward(&t->block, &t->activations, 1, dy, leave_gradient, NULL, &gradients));
	for (int vector = 0; vector < VECTOR_COUNT; vector++)
		check_vector(t, &gradients.vectors, (enum vector)vector);
	vectors_release(&gradients.vectors, BACKEND);
	OPS->release(BACKEND, dy.data);
}

/* Differences take a forward for each element: on the emulator, which is slow (FEW), they are of each family's first form. */
static bool differences_too(const char *family)
{
	static const char *last = "";
	bool first = strcmp(last, family) != 0;
	last = family;
	return first || !getenv("FEW");
}

static void check(struct scratch *s, const char *family, const char *name, const struct precision *precision)
{
	struct subject t;
	print_message("%s, %s, %s\n", family, name, precision == &FP32 ? "fp32" : "bf16");
	open_subject(&t, s, family, name, precision);
	run_blocks(&t);
	check_logits(&t);
	check_gradients(&t);
	if (differences_too(family) && precision == &FP32) {
		check_vector_gradients(&t);
		check_input_gradient(&t);
	}
	close_subject(&t);
}

static void test_llama(void **state)
{
	check(*state, "llama", "llama3-classic", &FP32);
	check(*state, "llama", "linear-newer", &FP32);
	check(*state, "llama", "dynamic-classic", &FP32);
}

static void test_mistral(void **state)
{
	check(*state, "mistral", "window-classic", &FP32);
}

static void test_qwen2(void **state)
{
	check(*state, "qwen2", "biases-newer", &FP32);
	check(*state, "qwen2", "some-windows-classic", &FP32);
}

static void test_qwen3(void **state)
{
	check(*state, "qwen3", "newer", &FP32);
	check(*state, "qwen3", "newer", &BF16);
	check(*state, "qwen3", "yarn-classic", &FP32);
}

static void test_phi3(void **state)
{
	check(*state, "phi3", "fused-classic", &FP32);
	check(*state, "phi3", "long-classic", &FP32);
	check(*state, "phi3", "short-newer", &FP32);
}

static void test_gemma2(void **state)
{
	check(*state, "gemma2", "newer", &FP32);
	check(*state, "gemma2", "newer", &BF16);
	check(*state, "gemma2", "classic", &FP32);
}

static void test_gemma3(void **state)
{
	check(*state, "gemma3", "newer", &FP32);
	check(*state, "gemma3", "classic", &FP32);
}

static void test_vaultgemma(void **state)
{
	check(*state, "vaultgemma", "newer", &FP32);
}

static void test_opt(void **state)
{
	check(*state, "opt", "classic", &FP32);
	check(*state, "opt", "newer", &FP32);
}

static void test_mixtral(void **state)
{
	check(*state, "mixtral", "classic", &FP32);
	check(*state, "mixtral", "window-newer", &FP32);
}

static void test_qwen3_moe(void **state)
{
	check(*state, "qwen3_moe", "classic", &FP32);
	check(*state, "qwen3_moe", "shares-of-all-newer", &FP32);
}

static void test_qwen2_moe(void **state)
{
	check(*state, "qwen2_moe", "windows-in-turn-classic", &FP32);
	check(*state, "qwen2_moe", "newer", &FP32);
	check(*state, "qwen2_moe_stacked", "newer", &FP32);
}

static void test_ministral(void **state)
{
	check(*state, "ministral", "newer", &FP32);
}

static void test_gemma(void **state)
{
	check(*state, "gemma", "classic", &FP32);
}

static void test_smollm3(void **state)
{
	check(*state, "smollm3", "classic", &FP32);
	check(*state, "smollm3", "window-newer", &FP32);
}

static void test_granite(void **state)
{
	check(*state, "granite", "classic", &FP32);
}

static void test_olmo2(void **state)
{
	check(*state, "olmo2", "classic", &FP32);
}

static void test_olmo3(void **state)
{
	check(*state, "olmo3", "classic", &FP32);
	check(*state, "olmo3", "newer", &FP32);
}

static void test_ministral3(void **state)
{
	check(*state, "ministral3", "newer", &FP32);
}

static void test_starcoder2(void **state)
{
	check(*state, "starcoder2", "classic", &FP32);
}

static void test_stablelm(void **state)
{
	check(*state, "stablelm", "classic", &FP32);
}

static void test_phi(void **state)
{
	check(*state, "phi", "classic", &FP32);
}

static void test_cohere(void **state)
{
	check(*state, "cohere", "classic", &FP32);
}

static void test_cohere2(void **state)
{
	check(*state, "cohere2", "classic", &FP32);
	check(*state, "cohere2", "newer", &FP32);
}

static void test_gpt_neox(void **state)
{
	check(*state, "gpt_neox", "classic", &FP32);
	check(*state, "gpt_neox", "one-by-one-newer", &FP32);
}

static void test_gpt2(void **state)
{
	check(*state, "gpt2", "classic", &FP32);
	check(*state, "gpt2", "newer", &FP32);
}

static void test_glm(void **state)
{
	check(*state, "glm", "classic", &FP32);
	check(*state, "glm", "newer", &FP32);
	check(*state, "glm4", "newer", &FP32);
}

static void test_norms_of_heads(void **state)
{
	check(*state, "cohere_qk_norm", "classic", &FP32);
	check(*state, "cohere_qk_norm", "classic", &BF16);
	check(*state, "stablelm_parallel", "classic", &FP32);
}

static void test_gpt_oss(void **state)
{
	check(*state, "gpt_oss", "classic", &FP32);
	check(*state, "gpt_oss", "newer", &FP32);
}

static void test_falcon3(void **state)
{
	check(*state, "falcon3", "classic", &FP32);
}

static void test_gemma3_multimodal(void **state)
{
	check(*state, "gemma3_multimodal", "newer", &FP32);
}

static void test_mistral3(void **state)
{
	check(*state, "mistral3", "classic", &FP32);
}

static void test_qwen3_moe_stacked(void **state)
{
	check(*state, "qwen3_moe_stacked", "newer", &FP32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_llama),      SCRATCH_TEST(test_mistral),
					   SCRATCH_TEST(test_qwen2),      SCRATCH_TEST(test_qwen3),
					   SCRATCH_TEST(test_phi3),       SCRATCH_TEST(test_gemma2),
					   SCRATCH_TEST(test_gemma3),     SCRATCH_TEST(test_vaultgemma),
					   SCRATCH_TEST(test_opt),        SCRATCH_TEST(test_mixtral),
					   SCRATCH_TEST(test_qwen3_moe),  SCRATCH_TEST(test_ministral),
					   SCRATCH_TEST(test_gemma),      SCRATCH_TEST(test_smollm3),
					   SCRATCH_TEST(test_granite),    SCRATCH_TEST(test_olmo2),
					   SCRATCH_TEST(test_olmo3),      SCRATCH_TEST(test_ministral3),
					   SCRATCH_TEST(test_starcoder2), SCRATCH_TEST(test_stablelm),
					   SCRATCH_TEST(test_phi),        SCRATCH_TEST(test_gemma3_multimodal),
					   SCRATCH_TEST(test_mistral3),   SCRATCH_TEST(test_qwen3_moe_stacked),
					   SCRATCH_TEST(test_cohere),     SCRATCH_TEST(test_cohere2),
					   SCRATCH_TEST(test_gpt_neox),   SCRATCH_TEST(test_qwen2_moe),
					   SCRATCH_TEST(test_gpt2),       SCRATCH_TEST(test_falcon3),
					   SCRATCH_TEST(test_glm),        SCRATCH_TEST(test_norms_of_heads),
					   SCRATCH_TEST(test_gpt_oss)};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	test_backend_end();
	return failed;
}
