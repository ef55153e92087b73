/* Tokens to experts and back, against double precision: route, dispatch, combine, route_backward. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/backend/harness.h"

static const struct routing routings[] = {
	{1, 1, true, false},  {2, 1, false, false},  {5, 2, true, false},    {5, 5, false, false},   {8, 2, true, false},
	{33, 3, true, false}, {128, 8, true, false}, {128, 8, false, false}, {512, 17, true, false}, {2, 2, true, true},
	{6, 3, false, true},  {7, 3, true, true},    {61, 5, false, true}};
static const int64_t token_counts[] = {1, 3, 40, 300};

/* The experts of each token, its weights of them and its shares of all; logits [tokens, experts]. */
static void ref_route(const struct routing *r, double *experts, double *weights, double *shares, const double *logits,
		      int64_t tokens)
{
	for (int64_t t = 0; t < tokens; t++) {
		const double *row = logits + t * r->experts;
		double *chosen = experts + t * r->chosen, *weight = weights + t * r->chosen, all = 0, some = 0;
		int others = r->experts - r->shared, last = r->chosen - r->shared;
		for (int s = 0; s < last; s++) {
			int best = -1;
			for (int i = 0; i < others; i++) {
				bool taken = false;
				for (int before = 0; before < s; before++)
					taken = taken || (int)chosen[before] == i;
				if (!taken && (best < 0 || row[i] > row[best])) best = i;
			}
			chosen[s] = best;
			some += exp(row[best] - row[(int)chosen[0]]);
		}
		for (int i = 0; i < others; i++)
			all += exp(row[i] - row[(int)chosen[0]]);
		for (int i = 0; i < others; i++)
			shares[t * r->experts + i] = exp(row[i] - row[(int)chosen[0]]) / all;
		for (int s = 0; s < last; s++)
			weight[s] = exp(row[(int)chosen[s]] - row[(int)chosen[0]]) / (r->normalise ? some : all);
		if (!r->shared) continue;
		chosen[last] = others;
		weight[last] = 1 / (1 + exp(-row[others]));
	}
}

/* Where each choice goes, and what each row comes from. */
static void ref_place(const struct routing *r, double *counts, double *places, double *sources, const double *experts,
		      int64_t tokens)
{
	int64_t choices = tokens * r->chosen, rows = routing_rows(r, tokens), next = 0;
	for (int64_t row = 0; row < rows; row++)
		sources[row] = -1;
	for (int i = 0; i < r->experts; i++) {
		next = (next + ROUTE_GRAIN - 1) / ROUTE_GRAIN * ROUTE_GRAIN;
		counts[i] = 0;
		for (int64_t c = 0; c < choices; c++) {
			if ((int)experts[c] != i) continue;
			counts[i]++;
			sources[next] = (double)c;
			places[c] = (double)next++;
		}
	}
}

struct routed {
	struct operand logits, weights, experts, counts, places, sources;
	double *shares; /* [tokens, experts] */
	int64_t rows;
};

/* Routes random logits, a few of them equal, and checks what comes out. */
static struct routed routed(const struct routing *r, int64_t tokens, enum dtype type, const char *type_name)
{
	int64_t rows = routing_rows(r, tokens), choices = tokens * r->chosen;
	double *values = doubles(tokens * r->experts);
	for (int64_t i = 0; i < tokens * r->experts; i++)
		values[i] = random_below(4) ? 2 * random_normal() : 1; /* ties */
	struct routed x = {.logits = operand_input(values, tokens, r->experts, type, GAP),
			   .weights = operand_output(tokens, r->chosen, DTYPE_F32, NO_GAP),
			   .experts = operand_output(tokens, r->chosen, DTYPE_I32, NO_GAP),
			   .counts = operand_output(1, r->experts, DTYPE_I32, NO_GAP),
			   .places = operand_output(tokens, r->chosen, DTYPE_I32, NO_GAP),
			   .sources = operand_output(1, rows, DTYPE_I32, NO_GAP),
			   .shares = doubles(tokens * r->experts),
			   .rows = rows};
	double *experts = doubles(choices), *weights = doubles(choices), *counts = doubles(r->experts), *places = doubles(choices),
	       *sources = doubles(rows);
	ref_route(r, experts, weights, x.shares, x.logits.value, tokens);
	ref_place(r, counts, places, sources, experts, tokens);
	RUN(OPS->route(BACKEND, r, x.weights.tensor, x.experts.tensor.data, x.counts.tensor.data, x.places.tensor.data,
		       x.sources.tensor.data, x.logits.tensor));
	struct operand *outputs[] = {&x.weights, &x.experts, &x.counts, &x.places, &x.sources};
	for (size_t i = 0; i < COUNT(outputs); i++)
		operand_fetch(outputs[i]);
	expect_equal(x.experts.value, experts, choices, "experts of %lld tokens, %d of %d, %s", (long long)tokens, r->chosen,
		     r->experts, type_name);
	expect_close(x.weights.value, weights, choices, 1e-12, "weights of %lld tokens, %d of %d, %s", (long long)tokens, r->chosen,
		     r->experts, type_name);
	expect_equal(x.counts.value, counts, r->experts, "counts of %lld tokens, %d of %d", (long long)tokens, r->chosen,
		     r->experts);
	expect_equal(x.places.value, places, choices, "places of %lld tokens, %d of %d", (long long)tokens, r->chosen, r->experts);
	expect_equal(x.sources.value, sources, rows, "sources of %lld tokens, %d of %d", (long long)tokens, r->chosen, r->experts);
	free(experts);
	free(weights);
	free(counts);
	free(places);
	free(sources);
	return x;
}

static void free_routed(struct routed *x)
{
	operand_free(&x->logits, &x->weights, &x->experts, &x->counts, &x->places, &x->sources, NULL);
	free(x->shares);
}

static void test_route(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(routings); i++)
		for (size_t j = 0; j < COUNT(token_counts); j++)
			for (int type = 0; type < 3; type++) {
				struct routed x = routed(&routings[i], token_counts[j], float_types[type], float_names[type]);
				free_routed(&x);
			}
}

static void dispatch_case(const struct routing *r, int64_t tokens, int64_t cols, enum dtype to, enum dtype from, bool scaled,
			  int gap)
{
	struct routed x = routed(r, tokens, DTYPE_F32, "f32");
	struct operand in = operand_random(tokens, cols, from, gap), out = operand_output(x.rows, cols, to, gap);
	double *expected = doubles(x.rows * cols);
	for (int64_t row = 0; row < x.rows; row++) {
		int64_t choice = (int64_t)x.sources.value[row];
		for (int64_t i = 0; choice >= 0 && i < cols; i++)
			expected[row * cols + i] = in.value[choice / r->chosen * cols + i] * (scaled ? x.weights.value[choice] : 1);
	}
	struct tensor none = {0};
	RUN(OPS->dispatch(BACKEND, out.tensor, in.tensor, x.sources.tensor.data, r->chosen, scaled ? x.weights.tensor : none));
	operand_fetch(&out);
	expect_close(out.value, expected, x.rows * cols, bound_of(to), "dispatch [%lld, %lld] to %d of %d, types %d to %d%s",
		     (long long)tokens, (long long)cols, r->chosen, r->experts, from, to, scaled ? ", scaled" : "");
	free(expected);
	operand_free(&in, &out, NULL);
	free_routed(&x);
}

static void combine_case(const struct routing *r, int64_t tokens, int64_t cols, enum dtype to, enum dtype from, bool scaled,
			 int gap)
{
	struct routed x = routed(r, tokens, DTYPE_F32, "f32");
	struct tensor none = {0};
	for (int accumulate = 0; accumulate < 2; accumulate++) {
		struct operand in = operand_random(x.rows, cols, from, gap);
		struct operand out = accumulate ? operand_inout(tokens, cols, to, gap) : operand_output(tokens, cols, to, gap);
		double *expected = accumulate ? copy_of(out.value, tokens * cols) : doubles(tokens * cols);
		for (int64_t c = 0; c < tokens * r->chosen; c++)
			for (int64_t i = 0; i < cols; i++)
				expected[c / r->chosen * cols + i] +=
					in.value[(int64_t)x.places.value[c] * cols + i] * (scaled ? x.weights.value[c] : 1);
		RUN(OPS->combine(BACKEND, out.tensor, in.tensor, x.places.tensor.data, r->chosen, scaled ? x.weights.tensor : none,
				 accumulate));
		operand_fetch(&out);
		expect_close(out.value, expected, tokens * cols, bound_of(to), "combine [%lld, %lld] of %d of %d, types %d to %d%s",
			     (long long)tokens, (long long)cols, r->chosen, r->experts, from, to, scaled ? ", scaled" : "");
		free(expected);
		operand_free(&in, &out, NULL);
	}
	free_routed(&x);
}

static void test_dispatch_and_combine(void **state)
{
	(void)state;
	static const int64_t widths[] = {1, 31, 64, 200, 1100};
	int gap = NO_GAP;
	for (size_t i = 0; i < COUNT(routings); i++)
		for (size_t j = 0; j < COUNT(widths); j++)
			for (int combination = 0; combination < 9; combination++) {
				if (routings[i].experts > 8 && (combination + (int)j) % 4)
					continue; /* the large ones: not all mixes */
				int64_t tokens = token_counts[(i + j) % 3];
				enum dtype to = float_types[combination % 3], from = float_types[combination / 3];
				gap = gap ? NO_GAP : GAP;
				dispatch_case(&routings[i], tokens, widths[j], to, from, combination % 2, gap);
				combine_case(&routings[i], tokens, widths[j], to, from, (i + j) % 2, gap);
			}
}

static void backward_case(const struct routing *r, int64_t tokens, int64_t cols, enum dtype type, int gap)
{
	struct routed x = routed(r, tokens, DTYPE_F32, "f32");
	struct operand dy = operand_random(tokens, cols, DTYPE_F32, gap), outputs = operand_random(x.rows, cols, type, gap);
	struct operand dlogits = operand_output(tokens, r->experts, type, gap);
	double *expected = doubles(tokens * r->experts);
	for (int64_t t = 0; t < tokens; t++) {
		double mean = 0, *row = expected + t * r->experts;
		int others = r->experts - r->shared, last = r->chosen - r->shared;
		for (int s = 0; s < r->chosen; s++) {
			int64_t c = t * r->chosen + s, expert = (int64_t)x.experts.value[c];
			double dot = 0;
			for (int64_t i = 0; i < cols; i++)
				dot += dy.value[t * cols + i] * outputs.value[(int64_t)x.places.value[c] * cols + i];
			row[expert] = x.weights.value[c] * dot;
			if (s < last)
				mean += x.weights.value[c] * dot;
			else
				row[expert] *= 1 - x.weights.value[c];
		}
		/* The weights' sum over what the softmax runs over: of the chosen, or of all. */
		for (int s = 0; r->normalise && s < last; s++)
			row[(int64_t)x.experts.value[t * r->chosen + s]] -= x.weights.value[t * r->chosen + s] * mean;
		for (int i = 0; !r->normalise && i < others; i++)
			row[i] -= x.shares[t * r->experts + i] * mean;
	}
	RUN(OPS->route_backward(BACKEND, r, dlogits.tensor, x.logits.tensor, x.weights.tensor, x.experts.tensor.data,
				x.places.tensor.data, dy.tensor, outputs.tensor));
	operand_fetch(&dlogits);
	/* One choice that is normalised has the constant weight 1: the gradient is rounding of 0. */
	if (r->normalise && r->chosen == 1)
		for (int64_t i = 0; i < tokens * r->experts; i++)
			assert_true(fabs(dlogits.value[i]) < 1e-4);
	else
		expect_close(dlogits.value, expected, tokens * r->experts, bound_of(type), "route_backward [%lld, %lld] %d of %d%s",
			     (long long)tokens, (long long)cols, r->chosen, r->experts, r->normalise ? ", normalised" : "");
	free(expected);
	operand_free(&dy, &outputs, &dlogits, NULL);
	free_routed(&x);
}

static void test_route_backward(void **state)
{
	(void)state;
	static const int64_t widths[] = {1, 24, 131, 1096};
	for (size_t i = 0; i < COUNT(routings); i++)
		for (size_t j = 0; j < COUNT(widths); j++)
			for (int type = 0; type < 3; type++)
				backward_case(&routings[i], token_counts[(i + j) % 3], widths[j], float_types[type],
					      (i + j) % 2 ? GAP : NO_GAP);
}

/* No token: no expert has rows, and no operation touches anything. */
static void test_no_tokens(void **state)
{
	(void)state;
	const struct routing r = {5, 2, true, false};
	struct operand counts = operand_output(1, 5, DTYPE_I32, NO_GAP),
		       sources = operand_output(1, routing_rows(&r, 0), DTYPE_I32, NO_GAP);
	int32_t place;
	struct tensor weights = tensor_make(NULL, 0, 2, DTYPE_F32), logits = tensor_make(NULL, 0, 5, DTYPE_F32);
	RUN(OPS->route(BACKEND, &r, weights, &place, counts.tensor.data, &place, sources.tensor.data, logits));
	operand_fetch(&counts);
	operand_fetch(&sources);
	for (int i = 0; i < 5; i++)
		assert_true(counts.value[i] == 0);
	for (int64_t i = 0; i < routing_rows(&r, 0); i++)
		assert_true(sources.value[i] == -1);
	operand_free(&counts, &sources, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_route),
		cmocka_unit_test(test_dispatch_and_combine),
		cmocka_unit_test(test_route_backward),
		cmocka_unit_test(test_no_tokens),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
