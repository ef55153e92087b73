/* What a backend must refuse: the call returns STATUS_INTERNAL or STATUS_INVALID, its message names the operation and the sizes,
 * nothing is written, and the backend goes on working. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/backend/harness.h"

static void expect_refusal(enum status status, const char *operation, const char *size)
{
	const char *message = BACKEND->error.message;
	if (status != STATUS_INTERNAL && status != STATUS_INVALID) fail_msg("%s: status %d", operation, (int)status);
	assert_int_equal(BACKEND->error.status, status);
	if (!strstr(message, operation)) fail_msg("\"%s\" does not name %s", message, operation);
	if (!strstr(message, size)) fail_msg("\"%s\" does not say %s", message, size);
	BACKEND->error = (struct error){0};
}

/* Every operation that takes tensors stands behind the checks: from `convert` on, that is all of them. */
/* What a backend need not have. */
static bool optional(size_t at)
{
	return at == offsetof(struct backend_ops, order_ranks) || at == offsetof(struct backend_ops, move_mask) ||
	       at == offsetof(struct backend_ops, matmul_onto);
}

static void test_all_are_checked(void **state)
{
	(void)state;
	void (*checked)(void), (*unchecked)(void);
	for (size_t at = offsetof(struct backend_ops, convert); at < sizeof(struct backend_ops); at += sizeof checked) {
		memcpy(&checked, (const char *)OPS + at, sizeof checked);
		memcpy(&unchecked, (const char *)&BACKEND->unchecked + at, sizeof unchecked);
		if (!checked && !unchecked && optional(at)) continue;
		if (!checked || !unchecked) fail_msg("the backend lacks the operation at byte %zu of struct backend_ops", at);
		if (checked == unchecked) fail_msg("the operation at byte %zu of struct backend_ops is not checked", at);
	}
}

static void test_shapes(void **state)
{
	(void)state;
	struct operand a = operand_random(4, 6, DTYPE_F32, NO_GAP), b = operand_random(6, 5, DTYPE_F32, NO_GAP);
	struct operand row = operand_random(1, 6, DTYPE_F32, NO_GAP), half = operand_random(6, 5, DTYPE_BF16, NO_GAP);
	struct operand out = operand_inout(4, 5, DTYPE_F32, NO_GAP), stats = operand_inout(4, 2, DTYPE_F32, NO_GAP);
	struct operand rank = operand_inout(4, 6, DTYPE_U16, NO_GAP), bin = operand_inout(4, 6, DTYPE_U8, NO_GAP);
	struct operand sums = operand_inout(1, 6, DTYPE_F64, NO_GAP), threshold = operand_random(1, 4, DTYPE_I32, NO_GAP);
	struct tensor none = operand_none().tensor;
	struct norm norm = {NORM_RMS, 1e-5f, 0, 1}, uneven = {NORM_RMS, 1e-5f, 0, 4};
	struct attention attention = {1, 4, 2, 1, 3, 1, 0, 0}, ungrouped = {1, 4, 3, 2, 2, 1, 0, 0};
	struct tensor narrow = a.tensor;
	narrow.stride = 5;

	expect_refusal(OPS->convert(BACKEND, out.tensor, a.tensor), "convert", "5");
	expect_refusal(OPS->convert(BACKEND, out.tensor, tensor_make(threshold.tensor.data, 4, 1, DTYPE_I32)), "convert", "4");
	expect_refusal(OPS->matmul(BACKEND, out.tensor, a.tensor, false, b.tensor, true, false), "matmul", "6");
	expect_refusal(OPS->matmul(BACKEND, out.tensor, a.tensor, false, half.tensor, false, false), "matmul", "6");
	expect_refusal(OPS->matmul(BACKEND, out.tensor, narrow, false, b.tensor, false, false), "matmul", "6");
	const struct activation silu = {.kind = ACTIVATION_SILU}, boundless = {ACTIVATION_CLAMPED_SWIGLU, 1.702f, 0};
	expect_refusal(OPS->add(BACKEND, out.tensor, a.tensor), "add", "5");
	expect_refusal(OPS->add_bias(BACKEND, out.tensor, row.tensor), "add_bias", "6");
	expect_refusal(OPS->embed(BACKEND, out.tensor, a.tensor, threshold.tensor.data, 1), "embed", "6");
	expect_refusal(OPS->norm_forward(BACKEND, &norm, out.tensor, stats.tensor, a.tensor, row.tensor, none), "norm_forward",
		       "5");
	expect_refusal(OPS->norm_backward(BACKEND, &uneven, a.tensor, a.tensor, a.tensor, stats.tensor, row.tensor, false),
		       "norm_backward", "6");
	expect_refusal(OPS->rope(BACKEND, &(struct rotation){4, 4, false, false}, a.tensor, row.tensor), "rope", "6");
	expect_refusal(OPS->rope(BACKEND, &(struct rotation){3, 3, true, false}, a.tensor, tensor_cols(row.tensor, 0, 3)), "rope",
		       "3");
	expect_refusal(OPS->attention_forward(BACKEND, &attention, out.tensor, stats.tensor, a.tensor, a.tensor, a.tensor),
		       "attention_forward", "6");
	expect_refusal(OPS->attention_forward(BACKEND, &ungrouped, a.tensor, stats.tensor, a.tensor, out.tensor, out.tensor),
		       "attention_forward", "6");
	expect_refusal(OPS->attention_sinks(BACKEND, &attention, a.tensor, stats.tensor, row.tensor), "attention_sinks", "6");
	expect_refusal(OPS->attention_backward(BACKEND, &attention, a.tensor, a.tensor, a.tensor, a.tensor, a.tensor, a.tensor,
					       a.tensor, stats.tensor, a.tensor),
		       "attention_backward", "6");
	expect_refusal(OPS->activation_forward(BACKEND, silu, out.tensor, a.tensor, a.tensor), "activation_forward", "5");
	expect_refusal(OPS->activation_forward(BACKEND, boundless, a.tensor, a.tensor, a.tensor), "activation_forward", "6");
	expect_refusal(OPS->activation_backward(BACKEND, silu, a.tensor, none, a.tensor, a.tensor, b.tensor), "activation_backward",
		       "6");
	expect_refusal(OPS->column_norms(BACKEND, sums.tensor.data, rank.tensor), "column_norms", "6");
	expect_refusal(OPS->add_saliency(BACKEND, a.tensor, rank.tensor, a.tensor), "add_saliency", "6");
	expect_refusal(OPS->rank_rows(BACKEND, IMPORTANCE_MAGNITUDE, bin.tensor, a.tensor, NULL, 1), "rank_rows", "6");
	expect_refusal(OPS->rank_rows(BACKEND, IMPORTANCE_WANDA, rank.tensor, a.tensor, NULL, 1), "rank_rows", "sums");
	expect_refusal(OPS->rank_rows(BACKEND, IMPORTANCE_SPARSEGPT, rank.tensor, a.tensor, NULL, 1), "rank_rows", "importance 2");
	expect_refusal(OPS->bin_ranks(BACKEND, bin.tensor, rank.tensor, 257, 0, 0), "bin_ranks", "257");
	expect_refusal(OPS->bin_ranks(BACKEND, bin.tensor, rank.tensor, 1, 0, 0), "bin_ranks", "1");
	expect_refusal(OPS->mask_weights(BACKEND, out.tensor, a.tensor, rank.tensor, threshold.tensor.data, false), "mask_weights",
		       "5");
	if (OPS->matmul_onto) {
		expect_refusal(OPS->matmul_onto(BACKEND, out.tensor, a.tensor, false, b.tensor, false, half.tensor), "matmul_onto",
			       "6");
		expect_refusal(OPS->matmul_onto(BACKEND, out.tensor, a.tensor, false, b.tensor, false, a.tensor), "matmul_onto",
			       "6");
	}
	if (OPS->move_mask) {
		expect_refusal(OPS->order_ranks(BACKEND, bin.tensor, rank.tensor), "order_ranks", "U8");
		expect_refusal(OPS->move_mask(BACKEND, a.tensor, a.tensor, rank.tensor, bin.tensor, sums.tensor.data,
					      threshold.tensor.data, false),
			       "move_mask", "U8");
		expect_refusal(
			OPS->move_mask(BACKEND, a.tensor, a.tensor, rank.tensor, rank.tensor, NULL, threshold.tensor.data, false),
			"move_mask", "held");
	}
	expect_refusal(OPS->binned_gradient(BACKEND, row.tensor, a.tensor, out.tensor, a.tensor, bin.tensor, false),
		       "binned_gradient", "6");
	expect_refusal(OPS->reconstruction(BACKEND, sums.tensor.data, none, a.tensor, out.tensor, false), "reconstruction", "5");
	expect_refusal(OPS->norm_gradient(BACKEND, &norm, row.tensor, none, out.tensor, a.tensor, stats.tensor), "norm_gradient",
		       "5");
	expect_refusal(OPS->norm_gradient(BACKEND, &norm, row.tensor, out.tensor, a.tensor, a.tensor, stats.tensor),
		       "norm_gradient", "5");
	expect_refusal(OPS->column_sums(BACKEND, row.tensor, out.tensor), "column_sums", "5");
	expect_refusal(OPS->weighted_error(BACKEND, sums.tensor.data, none, a.tensor, a.tensor, out.tensor, 1, false),
		       "weighted_error", "5");
	expect_refusal(OPS->weighted_error(BACKEND, NULL, none, a.tensor, a.tensor, row.tensor, 1, false), "weighted_error",
		       "stats");
	expect_refusal(OPS->divergence(BACKEND, sums.tensor.data, none, a.tensor, out.tensor, 0, 1, false), "divergence", "5");
	expect_refusal(OPS->divergence(BACKEND, sums.tensor.data, rank.tensor, a.tensor, a.tensor, 0, 1, false), "divergence",
		       "U16");
	expect_refusal(OPS->divergence(BACKEND, NULL, none, a.tensor, a.tensor, 0, 1, false), "divergence", "stats");
	expect_refusal(OPS->token_logprobs(BACKEND, sums.tensor.data, rank.tensor, threshold.tensor.data, 0), "token_logprobs",
		       "6");
	struct rates rates = {PARAM_SOFTMAX, 6, 3, threshold.tensor.data, sums.tensor.data, 0, 0};
	expect_refusal(OPS->rates_forward(BACKEND, &rates, a.tensor, row.tensor.data, threshold.tensor.data, sums.tensor.data,
					  a.tensor, 0.5, 5),
		       "rates_forward", "6");
	expect_refusal(OPS->rates_backward(BACKEND, &rates, a.tensor, a.tensor, a.tensor, out.tensor, sums.tensor.data),
		       "rates_backward", "6");
	struct adamw adamw = {1e-2f, 0.9f, 0.99f, 1e-8f, 0, 0, false};
	expect_refusal(OPS->adamw_step(BACKEND, &adamw, row.tensor, row.tensor, row.tensor, row.tensor, none), "adamw_step", "6");
	adamw.step = 1;
	expect_refusal(OPS->adamw_step(BACKEND, &adamw, a.tensor, a.tensor, a.tensor, out.tensor, none), "adamw_step", "5");
	expect_refusal(OPS->adamw_step(BACKEND, &adamw, a.tensor, a.tensor, a.tensor, a.tensor, rank.tensor), "adamw_step", "U16");
	expect_refusal(OPS->adamw_step(BACKEND, &adamw, half.tensor, half.tensor, half.tensor, half.tensor, none), "adamw_step",
		       "BF16");
	out.input = stats.input = rank.input = bin.input = sums.input = true; /* nothing was written */
	operand_free(&a, &b, &row, &half, &out, &stats, &rank, &bin, &sums, &threshold, NULL);
}

static void test_shapes_of_solving(void **state)
{
	(void)state;
	struct operand a = operand_random(4, 6, DTYPE_F32, NO_GAP), other = operand_random(4, 5, DTYPE_F32, NO_GAP);
	struct operand half = operand_random(4, 6, DTYPE_BF16, NO_GAP), diagonal = operand_random(1, 6, DTYPE_F32, NO_GAP);
	struct operand out = operand_inout(4, 6, DTYPE_F32, NO_GAP), energy = operand_random(1, 4, DTYPE_F32, NO_GAP);
	struct tensor x = a.tensor, y = other.tensor, to = out.tensor, d = diagonal.tensor;
	struct cut none = {{0, 0}, 25, NULL}, negative = {{0, 0}, -1, NULL}, uneven = {{2, 4}, 0, NULL}, many = {{1, 3}, 5, NULL},
		   right = {{0, 0}, 3, NULL};

	expect_refusal(OPS->scale(BACKEND, to, y, NULL, NULL, 1, false), "scale", "5");
	expect_refusal(OPS->scale(BACKEND, to, half.tensor, NULL, NULL, 1, false), "scale", "BF16");
	expect_refusal(OPS->project(BACKEND, to, to, to, y, 1, &right), "project", "5");
	expect_refusal(OPS->project(BACKEND, to, to, to, x, 1, &none), "project", "25");
	expect_refusal(OPS->project(BACKEND, to, to, to, x, 1, &negative), "project", "-1");
	expect_refusal(OPS->project(BACKEND, to, to, to, x, 1, &uneven), "project", "6");
	expect_refusal(OPS->project(BACKEND, to, to, to, x, 1, &many), "project", "5");
	expect_refusal(OPS->keep_where(BACKEND, to, x, y), "keep_where", "5");
	expect_refusal(OPS->conjugate_start(BACKEND, to, to, energy.tensor.data, x, y, x, d, 1), "conjugate_start", "5");
	expect_refusal(OPS->conjugate_start(BACKEND, to, to, NULL, x, x, x, d, 1), "conjugate_start", "energy");
	expect_refusal(OPS->conjugate_step(BACKEND, to, to, to, energy.tensor.data, x, x, x, 1), "conjugate_step", "[4, 6]");
	expect_refusal(OPS->conjugate_step(BACKEND, to, to, to, NULL, x, x, d, 1), "conjugate_step", "energy");
	out.input = true; /* nothing was written */
	operand_free(&a, &other, &half, &diagonal, &out, &energy, NULL);
}

static void test_shapes_of_quantization(void **state)
{
	(void)state;
	struct operand a = operand_random(4, 64, DTYPE_F32, NO_GAP), half = operand_random(4, 64, DTYPE_BF16, NO_GAP);
	struct operand out = operand_inout(4, 64, DTYPE_F32, NO_GAP), steps = operand_inout(4, 2, DTYPE_F32, NO_GAP);
	struct operand four = operand_inout(4, 4, DTYPE_F32, NO_GAP);
	struct tensor none = operand_none().tensor, to = out.tensor, w = a.tensor, h = steps.tensor;
	const struct grid grid = {4, false, 32, DTYPE_F32}, symmetric = {4, true, 32, DTYPE_F32}, uneven = {4, true, 48, DTYPE_F32},
			  wide = {9, true, 32, DTYPE_F32}, whole = {4, true, 32, DTYPE_I64};
	expect_refusal(OPS->quantize(BACKEND, &uneven, to, h, h, w, none), "quantize", "64");
	expect_refusal(OPS->quantize(BACKEND, &wide, to, h, h, w, none), "quantize", "64");
	expect_refusal(OPS->quantize(BACKEND, &whole, to, h, h, w, none), "quantize", "64");
	expect_refusal(OPS->quantize(BACKEND, &grid, to, h, four.tensor, w, none), "quantize", "[4, 4]");
	expect_refusal(OPS->quantize(BACKEND, &grid, to, h, h, w, h), "quantize", "[4, 2]");
	expect_refusal(OPS->quantize(BACKEND, &symmetric, to, h, h, w, four.tensor), "quantize", "[4, 4]");
	expect_refusal(OPS->quantize_backward(BACKEND, &grid, four.tensor, half.tensor, w, h, h, four.tensor), "quantize_backward",
		       "BF16");
	expect_refusal(OPS->quantize_backward(BACKEND, &grid, four.tensor, w, w, h, h, none), "quantize_backward", "without data");
	expect_refusal(OPS->quantize_backward(BACKEND, &grid, h, w, w, h, h, four.tensor), "quantize_backward", "[4, 2]");
	out.input = steps.input = four.input = true; /* nothing was written */
	operand_free(&a, &half, &out, &steps, &four, NULL);
}

static void test_shapes_of_quantized_columns(void **state)
{
	(void)state;
	struct operand a = operand_random(4, 129, DTYPE_F32, NO_GAP), square = operand_random(129, 129, DTYPE_F32, NO_GAP);
	struct operand out = operand_inout(4, 129, DTYPE_F32, NO_GAP), steps = operand_random(4, 3, DTYPE_F32, NO_GAP);
	const struct grid grid = {4, true, 32, DTYPE_F32}, wide = {9, true, 32, DTYPE_F32};
	struct tensor to = tensor_cols(out.tensor, 0, 8), from = tensor_cols(a.tensor, 0, 8), h = tensor_cols(steps.tensor, 0, 1),
		      u = tensor_cols(tensor_rows(square.tensor, 0, 8), 0, 8), narrow = tensor_cols(a.tensor, 0, 7);
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, out.tensor, out.tensor, a.tensor, square.tensor, h, h),
		       "quantize_columns", "129");
	expect_refusal(OPS->quantize_columns(BACKEND, &wide, to, to, from, u, h, h), "quantize_columns", "[4, 8]");
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, to, narrow, from, u, h, h), "quantize_columns", "[4, 7]");
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, to, to, narrow, u, h, h), "quantize_columns", "[4, 7]");
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, to, to, from, square.tensor, h, h), "quantize_columns", "[129, 129]");
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, to, to, from, u, steps.tensor, steps.tensor), "quantize_columns",
		       "[4, 3]");
	expect_refusal(OPS->quantize_columns(BACKEND, &grid, to, to, from, u, h, steps.tensor), "quantize_columns", "[4, 3]");
	out.input = true; /* nothing was written */
	operand_free(&a, &square, &out, &steps, NULL);
}

/* More columns than a 16-bit rank can number: a model may have them, so it is the input that is invalid. */
static void test_too_wide(void **state)
{
	(void)state;
	struct operand weight = operand_random(1, 65537, DTYPE_F32, NO_GAP), rank = operand_inout(1, 65537, DTYPE_U16, NO_GAP);
	assert_int_equal(OPS->rank_rows(BACKEND, IMPORTANCE_MAGNITUDE, rank.tensor, weight.tensor, NULL, 1), STATUS_INVALID);
	expect_refusal(STATUS_INVALID, "rank_rows", "65537");
	operand_free(&weight, &rank, NULL);
}

static void test_nan_importance(void **state)
{
	(void)state;
	struct operand weight = operand_random(5, 300, DTYPE_F32, GAP), rank = operand_inout(5, 300, DTYPE_U16, GAP);
	struct operand norms = operand_random(1, 300, DTYPE_F64, NO_GAP);
	float nan = __builtin_nanf("");
	RUN(OPS->upload(BACKEND, tensor_cols(tensor_rows(weight.tensor, 3, 1), 299, 1).data, &nan, sizeof nan));
	assert_int_equal(OPS->rank_rows(BACKEND, IMPORTANCE_MAGNITUDE, rank.tensor, weight.tensor, NULL, 1), STATUS_NUMERIC);
	assert_non_null(strstr(BACKEND->error.message, "rank_rows"));
	double negative = -1; /* as a norm that overflowed and went wrong: its root is NaN */
	RUN(OPS->upload(BACKEND, norms.tensor.data, &negative, sizeof negative));
	assert_int_equal(OPS->rank_rows(BACKEND, IMPORTANCE_WANDA, tensor_rows(rank.tensor, 0, 1), tensor_rows(weight.tensor, 0, 1),
					norms.tensor.data, 1),
			 STATUS_NUMERIC);
	weight.input = norms.input = false;
	operand_free(&weight, &rank, &norms, NULL);
}

static void test_no_memory(void **state)
{
	(void)state;
	void *untouched = &untouched, *memory = untouched;
	assert_int_equal(OPS->alloc(BACKEND, SIZE_MAX / 2, &memory), STATUS_NO_MEMORY);
	assert_int_equal(OPS->alloc(BACKEND, (size_t)1 << 50, &memory), STATUS_NO_MEMORY);
	assert_ptr_equal(memory, untouched);
	assert_non_null(strstr(BACKEND->error.message, "1125899906842624"));
	RUN(OPS->alloc(BACKEND, 1000, &memory)); /* and it goes on */
	OPS->release(BACKEND, memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_are_checked),        cmocka_unit_test(test_shapes),
		cmocka_unit_test(test_shapes_of_quantization), cmocka_unit_test(test_shapes_of_quantized_columns),
		cmocka_unit_test(test_shapes_of_solving),      cmocka_unit_test(test_too_wide),
		cmocka_unit_test(test_nan_importance),         cmocka_unit_test(test_no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
