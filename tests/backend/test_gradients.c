/* The gradients of a backend against central differences of the double-precision forwards. With the loss f = ⟨dy, forward(x)⟩
 * the gradient by x is what the backward gives for dy; differences with a step of 1e-5 are good to about 1e-10. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/backend/harness.h"
#include "tests/backend/reference.h"

static double dot(const double *a, const double *b, int64_t n)
{
	double sum = 0;
	for (int64_t i = 0; i < n; i++)
		sum += a[i] * b[i];
	return sum;
}

/* gradient[i] = ∂f/∂x[i]; x is changed and restored. */
static double *differences(double (*f)(void *context), void *context, double *x, int64_t n)
{
	double *gradient = doubles(n), step = 1e-5;
	for (int64_t i = 0; i < n; i++) {
		double at = x[i];
		x[i] = at + step;
		double above = f(context);
		x[i] = at - step;
		double below = f(context);
		x[i] = at;
		gradient[i] = (above - below) / (2 * step);
	}
	return gradient;
}

/* ---- norms ------------------------------------------------------------------------------------------------------------------- */

struct norm_loss {
	struct norm norm;
	int64_t rows, cols;
	double *x, *dy, *weight, *y, *stats;
};

static double norm_loss(void *context)
{
	struct norm_loss *l = context;
	ref_norm_forward(&l->norm, l->y, l->stats, l->x, l->weight, NULL, l->rows, l->cols);
	return dot(l->dy, l->y, l->rows * l->cols);
}

static void norm_case(struct norm norm, int64_t rows, int64_t cols)
{
	int64_t n = rows * cols, stat_cols = 2 * norm.groups;
	struct operand x = operand_random(rows, cols, DTYPE_F32, GAP), dy = operand_random(rows, cols, DTYPE_F32, GAP);
	struct operand weight = operand_random(1, cols / norm.groups, DTYPE_F32, NO_GAP);
	struct operand y = operand_output(rows, cols, DTYPE_F32, NO_GAP),
		       stats = operand_output(rows, stat_cols, DTYPE_F32, NO_GAP);
	struct operand dx = operand_output(rows, cols, DTYPE_F32, GAP);
	struct norm_loss loss = {norm, rows, cols, x.value, dy.value, weight.value, doubles(n), doubles(rows * stat_cols)};
	double *expected = differences(norm_loss, &loss, x.value, n);
	RUN(OPS->norm_forward(BACKEND, &norm, y.tensor, stats.tensor, x.tensor, weight.tensor, operand_none().tensor));
	RUN(OPS->norm_backward(BACKEND, &norm, dx.tensor, dy.tensor, x.tensor, stats.tensor, weight.tensor, false));
	operand_fetch(&dx);
	expect_close(dx.value, expected, n, 1e-9, "norm_backward against differences");
	int64_t width = cols / norm.groups;
	double *by_weight = differences(norm_loss, &loss, weight.value, width);
	struct operand dweight = operand_output(1, width, DTYPE_F32, NO_GAP);
	RUN(OPS->norm_gradient(BACKEND, &norm, dweight.tensor, operand_none().tensor, dy.tensor, x.tensor, stats.tensor));
	operand_fetch(&dweight);
	expect_close(dweight.value, by_weight, width, 1e-9, "norm_gradient against differences");
	free(loss.y);
	free(loss.stats);
	free(expected);
	free(by_weight);
	operand_free(&x, &dy, &weight, &y, &stats, &dx, &dweight, NULL);
}

static void test_norm(void **state)
{
	(void)state;
	norm_case((struct norm){NORM_RMS, 1e-5f, 0, 1}, 5, 37);
	norm_case((struct norm){NORM_RMS, 1e-5f, 1, 4}, 5, 80);
	norm_case((struct norm){NORM_LAYER, 1e-5f, 0, 1}, 5, 64);
}

/* ---- attention --------------------------------------------------------------------------------------------------------------- */

struct attention_loss {
	struct attention shape;
	double *q, *k, *v, *dout, *out, *lse;
};

static double attention_loss(void *context)
{
	struct attention_loss *l = context;
	ref_attention_forward(&l->shape, l->out, l->lse, l->q, l->k, l->v);
	return dot(l->dout, l->out, (int64_t)l->shape.batch * l->shape.tokens * l->shape.heads * l->shape.head_dim);
}

static void attention_case(struct attention a)
{
	int64_t rows = (int64_t)a.batch * a.tokens, q_cols = (int64_t)a.heads * a.head_dim,
		k_cols = (int64_t)a.kv_heads * a.head_dim;
	struct operand q = operand_random(rows, q_cols, DTYPE_F32, GAP), k = operand_random(rows, k_cols, DTYPE_F32, GAP);
	struct operand v = operand_random(rows, k_cols, DTYPE_F32, GAP), dout = operand_random(rows, q_cols, DTYPE_F32, GAP);
	struct operand out = operand_output(rows, q_cols, DTYPE_F32, GAP);
	struct operand lse = operand_output((int64_t)a.batch * a.heads, a.tokens, DTYPE_F32, GAP);
	struct operand dq = operand_output(rows, q_cols, DTYPE_F32, GAP), dk = operand_output(rows, k_cols, DTYPE_F32, GAP);
	struct operand dv = operand_output(rows, k_cols, DTYPE_F32, GAP);
	struct attention_loss loss = {a, q.value, k.value, v.value, dout.value, doubles(rows * q_cols), doubles(rows * a.heads)};
	double *expected_dq = differences(attention_loss, &loss, q.value, rows * q_cols);
	double *expected_dk = differences(attention_loss, &loss, k.value, rows * k_cols);
	double *expected_dv = differences(attention_loss, &loss, v.value, rows * k_cols);
	RUN(OPS->attention_forward(BACKEND, &a, out.tensor, lse.tensor, q.tensor, k.tensor, v.tensor));
	RUN(OPS->attention_backward(BACKEND, &a, dq.tensor, dk.tensor, dv.tensor, q.tensor, k.tensor, v.tensor, out.tensor,
				    lse.tensor, dout.tensor));
	operand_fetch(&dq);
	operand_fetch(&dk);
	operand_fetch(&dv);
	expect_close(dq.value, expected_dq, rows * q_cols, 1e-9, "attention_backward dq against differences");
	expect_close(dk.value, expected_dk, rows * k_cols, 1e-9, "attention_backward dk against differences");
	expect_close(dv.value, expected_dv, rows * k_cols, 1e-9, "attention_backward dv against differences");
	free(loss.out);
	free(loss.lse);
	free(expected_dq);
	free(expected_dk);
	free(expected_dv);
	operand_free(&q, &k, &v, &dout, &out, &lse, &dq, &dk, &dv, NULL);
}

static void test_attention(void **state)
{
	(void)state;
	attention_case((struct attention){2, 9, 4, 2, 8, 0.35f, 0, 0});
	attention_case((struct attention){1, 13, 2, 1, 20, 0.22f, 3, 0});
	attention_case((struct attention){1, 17, 2, 2, 4, 0.5f, 0, 5});
}

/* ---- activations and positions ----------------------------------------------------------------------------------------------- */

static void test_activation(void **state)
{
	(void)state;
	enum { N = 301 };
	for (int kind = 0; kind < 4; kind++) {
		double *x = doubles(N), *expected_dgate = doubles(N), *expected_dup = doubles(N);
		for (int i = 0; i < N; i++)
			x[i] = random_uniform(0.01, 6) * (random_below(2) ? 1 : -1); /* relu has no gradient at 0 */
		struct operand gate = operand_input(x, 1, N, DTYPE_F32, NO_GAP), up = operand_random(1, N, DTYPE_F32, NO_GAP);
		struct operand dy = operand_random(1, N, DTYPE_F32, NO_GAP);
		struct operand dgate = operand_output(1, N, DTYPE_F32, NO_GAP), dup = operand_output(1, N, DTYPE_F32, NO_GAP);
		for (int i = 0; i < N; i++) {
			double g = gate.value[i], h = 1e-5;
			double rise = ref_activation((enum activation_kind)kind, g + h) -
				      ref_activation((enum activation_kind)kind, g - h);
			expected_dgate[i] = dy.value[i] * up.value[i] * rise / (2 * h);
			expected_dup[i] = dy.value[i] * ref_activation((enum activation_kind)kind, g);
		}
		RUN(OPS->activation_backward(BACKEND, (struct activation){.kind = (enum activation_kind)kind}, dgate.tensor,
					     dup.tensor, dy.tensor, gate.tensor, up.tensor));
		operand_fetch(&dgate);
		operand_fetch(&dup);
		expect_close(dgate.value, expected_dgate, N, 1e-9, "activation_backward %d against differences", kind);
		expect_close(dup.value, expected_dup, N, 1e-9, "activation_backward dup %d", kind);
		free(expected_dgate);
		free(expected_dup);
		operand_free(&gate, &up, &dy, &dgate, &dup, NULL);
	}
}

/* A rotation's gradient is the rotation back: ⟨dy, rope(x)⟩ = ⟨rope⁻¹(dy), x⟩. */
static void rope_case(bool neighbours)
{
	enum { ROWS = 11, HEADS = 3, DIM = 20, ROTARY = 12, COLS = HEADS * DIM };
	const struct rotation rotation = {DIM, ROTARY, neighbours, false}, back = {DIM, ROTARY, neighbours, true};
	double *angles = doubles(ROWS * ROTARY);
	for (int i = 0; i < ROWS * ROTARY / 2; i++) {
		double angle = random_uniform(-3, 3);
		int at = i / (ROTARY / 2) * ROTARY + i % (ROTARY / 2);
		angles[at] = cos(angle);
		angles[at + ROTARY / 2] = sin(angle);
	}
	struct operand table = operand_input(angles, ROWS, ROTARY, DTYPE_F32, NO_GAP);
	struct operand x = operand_random(ROWS, COLS, DTYPE_F32, NO_GAP), dx = operand_inout(ROWS, COLS, DTYPE_F32, NO_GAP);
	double *dy = doubles(ROWS * COLS), *y = doubles(ROWS * COLS);
	memcpy(dy, dx.value, ROWS * COLS * sizeof *dy);
	memcpy(y, x.value, ROWS * COLS * sizeof *y);
	ref_rope(&rotation, y, table.value, ROWS, COLS, ROWS);
	RUN(OPS->rope(BACKEND, &back, dx.tensor, table.tensor));
	operand_fetch(&dx);
	double forward = dot(dy, y, ROWS * COLS), backward = dot(dx.value, x.value, ROWS * COLS);
	assert_true(fabs(forward - backward) < 1e-5 * sqrt(dot(dy, dy, ROWS * COLS) * dot(y, y, ROWS * COLS)));
	free(dy);
	free(y);
	operand_free(&table, &x, &dx, NULL);
}

static void test_rope(void **state)
{
	(void)state;
	rope_case(false);
	rope_case(true);
}

/* ---- rates ------------------------------------------------------------------------------------------------------------------- */

/* f(θ) = Σ_groups Σ_weights G·W·P(θ) + λ((ŝ − s*)/s*)², where a weight in bin b is kept with P = 1 − Σ_{d : k_d > rank} β_d, and
 * rank < k_d is b < D − 1 − d. The binned sums are Σ G·W of each bin. */
struct rates_loss {
	struct ref_rates rates;
	double *theta, *sums, *beta, *s, target, lambda;
};

static double rates_loss(void *context)
{
	struct rates_loss *l = context;
	int n = l->rates.candidates;
	double sparsity = ref_rates_forward(&l->rates, l->beta, l->s, l->theta), loss = 0;
	for (int64_t g = 0; g < l->rates.groups; g++) {
		for (int b = 0; b < n - 1; b++) {
			double kept = 1;
			for (int d = 0; d < n; d++)
				if (b < n - 1 - d) kept -= l->beta[g * n + d];
			loss += l->sums[g * (n - 1) + b] * kept;
		}
	}
	return loss + l->lambda * (sparsity - l->target) * (sparsity - l->target) / (l->target * l->target);
}

static void rates_case(int64_t groups, int candidates, enum parameterization parameterization)
{
	int64_t n = groups * candidates;
	double *share_values = doubles(groups), *col_values = doubles(groups);
	for (int64_t g = 0; g < groups; g++) {
		share_values[g] = 1.0 / (double)groups;
		col_values[g] = 100;
	}
	struct operand cols = operand_input(col_values, 1, groups, DTYPE_I32, NO_GAP);
	struct operand share = operand_input(share_values, 1, groups, DTYPE_F64, NO_GAP);
	struct operand theta = operand_random(groups, candidates, DTYPE_F32, GAP),
		       sums = operand_random(groups, candidates - 1, DTYPE_F32, GAP);
	struct operand beta = operand_output(groups, candidates, DTYPE_F32, GAP),
		       dtheta = operand_output(groups, candidates, DTYPE_F32, GAP);
	struct operand s = operand_output(1, groups, DTYPE_F32, NO_GAP), threshold = operand_output(1, groups, DTYPE_I32, NO_GAP);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	struct rates rates = {parameterization, candidates, groups, cols.tensor.data, share.tensor.data, 200000, 100000};
	struct rates_loss loss = {{parameterization, candidates, groups, cols.value, share.value, 200000, 100000},
				  theta.value,
				  sums.value,
				  doubles(n),
				  doubles(groups),
				  0.4,
				  5};
	double *expected = differences(rates_loss, &loss, theta.value, n);
	RUN(OPS->rates_forward(BACKEND, &rates, beta.tensor, s.tensor.data, threshold.tensor.data, stats.tensor.data, theta.tensor,
			       loss.target, loss.lambda));
	RUN(OPS->rates_backward(BACKEND, &rates, dtheta.tensor, theta.tensor, beta.tensor, sums.tensor, stats.tensor.data));
	operand_fetch(&dtheta);
	expect_close(dtheta.value, expected, n, 1e-9, "rates_backward %lld × %d against differences", (long long)groups,
		     candidates);
	free(loss.beta);
	free(loss.s);
	free(expected);
	operand_free(&cols, &share, &theta, &sums, &beta, &dtheta, &s, &threshold, &stats, NULL);
}

static void test_rates(void **state)
{
	(void)state;
	rates_case(3, 101, PARAM_SIGMOID);
	rates_case(3, 101, PARAM_SOFTMAX);
	rates_case(5, 11, PARAM_SOFTMAX);
}

/* ---- loss -------------------------------------------------------------------------------------------------------------------- */

struct reconstruction_loss {
	double *y, *ref;
	int64_t rows, cols;
};

static double reconstruction_loss(void *context)
{
	struct reconstruction_loss *l = context;
	return ref_reconstruction(NULL, l->y, l->ref, l->rows, l->cols);
}

static void test_reconstruction(void **state)
{
	(void)state;
	enum { ROWS = 19, COLS = 23 };
	struct operand y = operand_random(ROWS, COLS, DTYPE_F32, GAP), ref = operand_random(ROWS, COLS, DTYPE_F32, GAP);
	struct operand dy = operand_output(ROWS, COLS, DTYPE_F32, GAP), stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	struct reconstruction_loss loss = {y.value, ref.value, ROWS, COLS};
	double *expected = differences(reconstruction_loss, &loss, y.value, ROWS * COLS);
	RUN(OPS->reconstruction(BACKEND, stats.tensor.data, dy.tensor, y.tensor, ref.tensor, false));
	operand_fetch(&dy);
	expect_close(dy.value, expected, ROWS * COLS, 1e-9, "reconstruction dy against differences");
	free(expected);
	operand_free(&y, &ref, &dy, &stats, NULL);
}

/* ---- divergence -------------------------------------------------------------------------------------------------------------- */

struct divergence_loss {
	int64_t rows, cols;
	double *logits, *wanted, *gradient, softcap;
};

static double divergence_loss(void *context)
{
	struct divergence_loss *l = context;
	return ref_divergence(l->gradient, l->logits, l->wanted, l->softcap, 0.5, l->rows, l->cols);
}

static void test_divergence(void **state)
{
	(void)state;
	for (int capped = 0; capped < 2; capped++) {
		int64_t rows = 5, cols = 33, n = rows * cols;
		struct operand logits = operand_random(rows, cols, DTYPE_F32, GAP),
			       wanted = operand_random(rows, cols, DTYPE_F32, GAP);
		struct operand gradient = operand_output(rows, cols, DTYPE_F32, GAP),
			       stats = operand_output(1, STEP_STATS, DTYPE_F64, NO_GAP);
		struct divergence_loss loss = {rows, cols, logits.value, wanted.value, doubles(n), capped ? 2 : 0};
		double *expected = differences(divergence_loss, &loss, logits.value, n);
		RUN(OPS->divergence(BACKEND, stats.tensor.data, gradient.tensor, logits.tensor, wanted.tensor, (float)loss.softcap,
				    0.5, false));
		operand_fetch(&gradient);
		expect_close(gradient.value, expected, n, 1e-9, "divergence against differences, cap %g", loss.softcap);
		free(loss.gradient);
		free(expected);
		operand_free(&logits, &wanted, &gradient, &stats, NULL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_norm),       cmocka_unit_test(test_attention), cmocka_unit_test(test_activation),
		cmocka_unit_test(test_rope),       cmocka_unit_test(test_rates),     cmocka_unit_test(test_reconstruction),
		cmocka_unit_test(test_divergence),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
