/* Times the operations of the CPU backend at the shapes of two workloads: a step of tiny-llama (hidden 192, 256 tokens) and of a
 * block with hidden size 2048 (512 tokens). Prints one JSON array; each entry's `fraction` is of the rate of a large sgemm, or
 * of a copy between two large buffers, measured in the same run. Seconds are the least of many runs; of CPU time with
 * OMP_NUM_THREADS=1, which a busy machine disturbs less.
 *
 * Usage: cpu_ops [WORKLOAD 1|2 [OP]] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cpu_bench.h"

static double gemm_rate, copy_rate; /* FLOP/s, bytes/s */
static const char *only_op;
static bool first_entry = true;

static struct tensor random_tensor(int64_t rows, int64_t cols, enum dtype type)
{
	return random_matrix(tensor_make(NULL, rows, cols, type));
}

static struct tensor new_tensor(int64_t rows, int64_t cols, enum dtype type)
{
	return tensor_make(allocate((size_t)(rows * cols) * dtype_size(type)), rows, cols, type);
}

/* Runs `statement` until half a second has passed, at least five times, and keeps the least time in best_seconds. */
static double best_seconds;
#define MEASURE(op, statement)                                                                                                     \
	if (!only_op || !strcmp(only_op, op))                                                                                      \
		for (double end_ = now() + 0.5, runs_ = (best_seconds = 1e9, 0); runs_ < 5 || now() < end_; runs_++) {             \
			double start_ = now();                                                                                     \
			check(statement);                                                                                          \
			double seconds_ = now() - start_;                                                                          \
			if (seconds_ < best_seconds) best_seconds = seconds_;                                                      \
		}

static void report(const char *op, const char *shape, double flops, double bytes)
{
	if (only_op && strcmp(only_op, op)) return;
	printf("%s{\"op\": \"%s\", \"shape\": \"%s\", \"seconds\": %.3e", first_entry ? "[\n" : ",\n", op, shape, best_seconds);
	if (flops > 0)
		printf(", \"gflops\": %.1f, \"fraction\": %.3f", flops / best_seconds * 1e-9, flops / best_seconds / gemm_rate);
	if (bytes > 0) printf(", \"gbs\": %.1f, \"fraction\": %.3f", bytes / best_seconds * 1e-9, bytes / best_seconds / copy_rate);
	printf("}");
	fflush(stdout);
	first_entry = false;
}

static void measure_rates(void)
{
	enum { N = 2048 };
	const char *wanted = only_op;
	only_op = NULL;
	struct tensor a = random_tensor(N, N, DTYPE_F32), b = random_tensor(N, N, DTYPE_F32), c = new_tensor(N, N, DTYPE_F32);
	MEASURE("", backend->ops->matmul(backend, c, a, false, b, true, false));
	gemm_rate = 2.0 * N * N * N / best_seconds;
	report("large matmul", "2048 x 2048 x 2048", 2.0 * N * N * N, 0);
	struct tensor x = new_tensor(8 * N, N, DTYPE_F32), y = new_tensor(8 * N, N, DTYPE_F32);
	MEASURE("", backend->ops->convert(backend, y, x)); /* by all threads */
	copy_rate = 2.0 * (double)tensor_bytes(&x) / best_seconds;
	report("large copy", "16384 x 2048", 0, 2.0 * (double)tensor_bytes(&x));
	only_op = wanted;
	backend->ops->release(backend, a.data);
	backend->ops->release(backend, b.data);
	backend->ops->release(backend, c.data);
	backend->ops->release(backend, x.data);
	backend->ops->release(backend, y.data);
}

struct shapes {
	int hidden, intermediate, heads, kv_heads, tokens;
};

static void matmul(const char *name, int64_t m, int64_t n, int64_t k, bool transpose_b, bool accumulate, enum dtype type)
{
	char shape[96];
	struct tensor x = random_tensor(m, k, type), w = transpose_b ? random_tensor(n, k, type) : random_tensor(k, n, type);
	struct tensor y = new_tensor(m, n, DTYPE_F32);
	MEASURE("matmul", backend->ops->matmul(backend, y, x, false, w, transpose_b, accumulate));
	snprintf(shape, sizeof shape, "%s %lld x %lld x %lld N%s%s", name, (long long)m, (long long)n, (long long)k,
		 transpose_b ? "T" : "N", type == DTYPE_F32 ? "" : " bf16");
	report("matmul", shape, 2.0 * (double)m * (double)n * (double)k, 0);
	backend->ops->release(backend, x.data);
	backend->ops->release(backend, w.data);
	backend->ops->release(backend, y.data);
}

static void linear(const char *name, int64_t rows, int64_t cols, int64_t tokens)
{
	char shape[96];
	double params = (double)rows * (double)cols;
	enum { CANDIDATES = 101 };
	snprintf(shape, sizeof shape, "%s %lld x [%lld, %lld]", name, (long long)tokens, (long long)rows, (long long)cols);
	struct tensor weight = random_tensor(rows, cols, DTYPE_BF16), active = new_tensor(rows, cols, DTYPE_F32);
	struct tensor rank = new_tensor(rows, cols, DTYPE_U16), bin = new_tensor(rows, cols, DTYPE_U8);
	struct tensor dy = random_tensor(tokens, rows, DTYPE_F32), x = random_tensor(tokens, cols, DTYPE_F32);
	struct tensor sums = new_tensor(rows, CANDIDATES - 1, DTYPE_F32);
	int32_t *threshold = allocate((size_t)rows * sizeof *threshold);
	for (int64_t i = 0; i < rows; i++)
		threshold[i] = (int32_t)(cols / 2);
	check(backend->ops->rank_rows(backend, IMPORTANCE_MAGNITUDE, rank, weight, NULL, 1));
	check(backend->ops->bin_ranks(backend, bin, rank, CANDIDATES, 0, 0));
	MEASURE("rank_rows", backend->ops->rank_rows(backend, IMPORTANCE_MAGNITUDE, rank, weight, NULL, 1));
	report("rank_rows", shape, 0, 4 * params);
	MEASURE("bin_ranks", backend->ops->bin_ranks(backend, bin, rank, CANDIDATES, 0, 0));
	report("bin_ranks", shape, 0, 3 * params);
	MEASURE("mask_weights", backend->ops->mask_weights(backend, active, weight, rank, threshold, false));
	report("mask_weights", shape, 0, 8 * params);
	MEASURE("binned_gradient", backend->ops->binned_gradient(backend, sums, dy, x, weight, bin, false));
	report("binned_gradient", shape, 2 * params * (double)tokens, 0);
	struct tensor half_dy = random_tensor(tokens, rows, DTYPE_BF16), half_x = random_tensor(tokens, cols, DTYPE_BF16);
	char half_shape[sizeof shape + 8];
	snprintf(half_shape, sizeof half_shape, "%s bf16", shape);
	MEASURE("binned_gradient", backend->ops->binned_gradient(backend, sums, half_dy, half_x, weight, bin, false));
	report("binned_gradient", half_shape, 2 * params * (double)tokens, 0);
	void *norms = allocate((size_t)cols * sizeof(double));
	MEASURE("column_norms", backend->ops->column_norms(backend, norms, x));
	report("column_norms", shape, 0, 4.0 * (double)tokens * (double)cols);
	void *all[] = {weight.data, active.data, rank.data, bin.data,     dy.data,    x.data,
		       sums.data,   threshold,   norms,     half_dy.data, half_x.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

static void attention(const struct shapes *w, enum dtype type)
{
	int dim = w->hidden / w->heads, width = (w->heads + 2 * w->kv_heads) * dim, tokens = w->tokens;
	struct attention a = {1, tokens, w->heads, w->kv_heads, dim, 1 / sqrtf((float)dim), 0, 0};
	struct tensor qkv = random_tensor(tokens, width, type), dqkv = new_tensor(tokens, width, type);
	struct tensor out = new_tensor(tokens, w->hidden, type), dout = random_tensor(tokens, w->hidden, type);
	struct tensor lse = new_tensor(w->heads, tokens, DTYPE_F32), table = random_tensor(tokens, dim, DTYPE_F32);
	struct tensor q = tensor_cols(qkv, 0, w->hidden), k = tensor_cols(qkv, w->hidden, w->kv_heads * dim);
	struct tensor v = tensor_cols(qkv, w->hidden + w->kv_heads * dim, w->kv_heads * dim);
	struct tensor dq = tensor_cols(dqkv, 0, w->hidden), dk = tensor_cols(dqkv, w->hidden, w->kv_heads * dim);
	struct tensor dv = tensor_cols(dqkv, w->hidden + w->kv_heads * dim, w->kv_heads * dim);
	struct tensor qk = tensor_cols(qkv, 0, w->hidden + w->kv_heads * dim);
	char shape[96];
	snprintf(shape, sizeof shape, "%d tokens, %d/%d heads of %d%s", tokens, w->heads, w->kv_heads, dim,
		 type == DTYPE_BF16 ? " bf16" : "");
	double pairs = 0.5 * tokens * (tokens + 1) * w->hidden;
	MEASURE("attention_forward", backend->ops->attention_forward(backend, &a, out, lse, q, k, v));
	report("attention_forward", shape, 4 * pairs, 0);
	MEASURE("attention_backward", backend->ops->attention_backward(backend, &a, dq, dk, dv, q, k, v, out, lse, dout));
	report("attention_backward", shape, 10 * pairs, 0);
	MEASURE("rope", backend->ops->rope(backend, &(struct rotation){dim, dim, false, false}, qk, table));
	report("rope", shape, 0, 2.0 * (double)dtype_size(type) * (double)qk.rows * (double)qk.cols);
	void *all[] = {qkv.data, dqkv.data, out.data, dout.data, lse.data, table.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

static void rows(const struct shapes *w)
{
	struct norm norm = {NORM_RMS, 1e-5f, 0, 1};
	int64_t tokens = w->tokens, hidden = w->hidden, inner = w->intermediate;
	struct tensor x = random_tensor(tokens, hidden, DTYPE_F32), y = new_tensor(tokens, hidden, DTYPE_F32);
	struct tensor dy = random_tensor(tokens, hidden, DTYPE_F32), stats = new_tensor(tokens, 2, DTYPE_F32);
	struct tensor weight = random_tensor(1, hidden, DTYPE_F32), gate_up = random_tensor(tokens, 2 * inner, DTYPE_F32);
	struct tensor mlp = random_tensor(tokens, inner, DTYPE_F32), dgate_up = new_tensor(tokens, 2 * inner, DTYPE_F32);
	struct tensor gate = tensor_cols(gate_up, 0, inner), up = tensor_cols(gate_up, inner, inner);
	struct tensor dgate = tensor_cols(dgate_up, 0, inner), dup = tensor_cols(dgate_up, inner, inner);
	struct tensor by_channel = new_tensor(1, hidden, DTYPE_F32);
	double *loss = allocate(STEP_STATS * sizeof *loss);
	char narrow[64], wide[64];
	double small = (double)tokens * (double)hidden, large = (double)tokens * (double)inner;
	snprintf(narrow, sizeof narrow, "%lld x %lld", (long long)tokens, (long long)hidden);
	snprintf(wide, sizeof wide, "%lld x %lld", (long long)tokens, (long long)inner);
	const struct activation silu = {.kind = ACTIVATION_SILU};
	MEASURE("norm_forward", backend->ops->norm_forward(backend, &norm, y, stats, x, weight, (struct tensor){0}));
	report("norm_forward", narrow, 0, 8 * small);
	MEASURE("norm_backward", backend->ops->norm_backward(backend, &norm, y, dy, x, stats, weight, true));
	report("norm_backward", narrow, 0, 16 * small);
	MEASURE("norm_gradient", backend->ops->norm_gradient(backend, &norm, by_channel, (struct tensor){0}, dy, x, stats));
	report("norm_gradient", narrow, 0, 8 * small);
	MEASURE("column_sums", backend->ops->column_sums(backend, by_channel, x));
	report("column_sums", narrow, 0, 4 * small);
	MEASURE("weighted_error", backend->ops->weighted_error(backend, loss, y, x, dy, weight, 1, false));
	report("weighted_error", narrow, 0, 12 * small);
	MEASURE("add", backend->ops->add(backend, y, x));
	report("add", narrow, 0, 12 * small);
	MEASURE("reconstruction", backend->ops->reconstruction(backend, loss, y, x, dy, false));
	report("reconstruction", narrow, 0, 12 * small);
	MEASURE("activation_forward", backend->ops->activation_forward(backend, silu, mlp, gate, up));
	report("activation_forward", wide, 0, 12 * large);
	MEASURE("activation_backward", backend->ops->activation_backward(backend, silu, dgate, dup, mlp, gate, up));
	report("activation_backward", wide, 0, 20 * large);
	void *all[] = {x.data,       y.data,   dy.data,       stats.data,      weight.data,
		       gate_up.data, mlp.data, dgate_up.data, by_channel.data, loss};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

static void training(int64_t rows, int64_t cols)
{
	struct tensor theta = random_tensor(rows, cols, DTYPE_F32), m = new_tensor(rows, cols, DTYPE_F32);
	struct tensor v = new_tensor(rows, cols, DTYPE_F32), gradient = random_tensor(rows, cols, DTYPE_F32);
	struct tensor copy = new_tensor(rows, cols, DTYPE_F32);
	struct adamw adamw = {1e-3f, 0.9f, 0.99f, 1e-10f, 0, 1, true};
	char shape[64];
	snprintf(shape, sizeof shape, "%lld x %lld", (long long)rows, (long long)cols);
	MEASURE("adamw_step", backend->ops->adamw_step(backend, &adamw, theta, m, v, gradient, copy));
	report("adamw_step", shape, 0, 32.0 * (double)rows * (double)cols);
	void *all[] = {theta.data, m.data, v.data, gradient.data, copy.data};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

/* ADMM and least squares: a product and one operation at a time. */
static void solving(int64_t rows, int64_t cols)
{
	struct tensor w = random_tensor(rows, cols, DTYPE_F32), u = new_tensor(rows, cols, DTYPE_F32);
	struct tensor b = random_tensor(rows, cols, DTYPE_F32), product = random_tensor(rows, cols, DTYPE_F32);
	struct tensor r = random_tensor(rows, cols, DTYPE_F32), p = random_tensor(rows, cols, DTYPE_F32);
	struct tensor gram = random_tensor(cols, cols, DTYPE_F32), diagonal = random_tensor(1, cols, DTYPE_F32);
	void *energy = allocate((size_t)rows * sizeof(float));
	const struct cut half = {{0, 0}, rows * cols / 2, NULL}, two_of_four = {{2, 4}, cols / 2, NULL};
	char shape[64];
	double n = (double)rows * (double)cols;
	snprintf(shape, sizeof shape, "%lld x %lld", (long long)rows, (long long)cols);
	MEASURE("project", backend->ops->project(backend, w, u, product, b, 1, &half));
	report("project", shape, 0, 24 * n);
	snprintf(shape, sizeof shape, "%lld x %lld 2:4", (long long)rows, (long long)cols);
	MEASURE("project", backend->ops->project(backend, w, u, product, b, 1, &two_of_four));
	report("project", shape, 0, 24 * n);
	snprintf(shape, sizeof shape, "%lld x %lld", (long long)rows, (long long)cols);
	MEASURE("conjugate_step", backend->ops->conjugate_step(backend, w, r, p, energy, product, b, diagonal, 2));
	report("conjugate_step", shape, 0, 32 * n);
	snprintf(shape, sizeof shape, "by a Gram matrix %lld x %lld", (long long)rows, (long long)cols);
	MEASURE("matmul", backend->ops->matmul(backend, product, p, false, gram, false, false));
	report("matmul", shape, 2 * n * (double)cols, 0);
	void *all[] = {w.data, u.data, b.data, product.data, r.data, p.data, gram.data, diagonal.data, energy};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

static void learning(int64_t groups)
{
	enum { D = 101 };
	struct tensor theta = new_tensor(groups, D, DTYPE_F32), theta0 = new_tensor(groups, D, DTYPE_F32);
	struct tensor beta = new_tensor(groups, D, DTYPE_F32), gradient = random_tensor(groups, D, DTYPE_F32);
	struct tensor sums = random_tensor(groups, D - 1, DTYPE_F32), m = new_tensor(groups, D, DTYPE_F32);
	struct tensor v = new_tensor(groups, D, DTYPE_F32), s = new_tensor(groups, D, DTYPE_F32);
	int32_t *cols = allocate((size_t)groups * sizeof *cols), *threshold = allocate((size_t)groups * sizeof *threshold);
	double *share = allocate((size_t)groups * sizeof *share), *stats = allocate(STEP_STATS * sizeof *stats);
	float *rate = allocate((size_t)groups * sizeof *rate);
	double state[PRODIGY_STATE] = {1e-6, 1e-6, 1e-6, 0};
	struct prodigy prodigy = {0.9f, 0.999f, 1e-8f, 5};
	for (int64_t g = 0; g < groups; g++) {
		cols[g] = 2048;
		share[g] = 1 / (double)groups;
	}
	struct rates rates = {PARAM_SIGMOID, D, groups, cols, share, 0, 0};
	char shape[64];
	double n = (double)groups * D;
	snprintf(shape, sizeof shape, "%lld x %d", (long long)groups, D);
	MEASURE("rates_forward", backend->ops->rates_forward(backend, &rates, beta, rate, threshold, stats, theta, 0.5, 5));
	report("rates_forward", shape, 0, 8 * n);
	MEASURE("rates_backward", backend->ops->rates_backward(backend, &rates, gradient, theta, beta, sums, stats));
	report("rates_backward", shape, 0, 16 * n);
	MEASURE("prodigy_step", backend->ops->prodigy_step(backend, &prodigy, groups * D, theta.data, theta0.data, m.data, v.data,
							   s.data, gradient.data, state));
	report("prodigy_step", shape, 0, 44 * n);
	void *all[] = {theta.data, theta0.data, beta.data, gradient.data, sums.data, m.data, v.data,
		       s.data,     cols,        threshold, share,         stats,     rate};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]);
}

static void measure(const struct shapes *w)
{
	int dim = w->hidden / w->heads, qkv = (w->heads + 2 * w->kv_heads) * dim, t = w->tokens, h = w->hidden, i = w->intermediate;
	static const enum dtype types[] = {DTYPE_F32, DTYPE_BF16};
	for (int n = 0; n < 2; n++) {
		enum dtype type = types[n];
		matmul("qkv", t, qkv, h, true, false, type);
		matmul("o", t, h, h, true, true, type);
		matmul("gate_up", t, 2 * i, h, true, false, type);
		matmul("down", t, h, i, true, true, type);
		matmul("d down", t, i, h, false, false, type);
		matmul("d gate_up", t, h, 2 * i, false, false, type);
		matmul("d o", t, h, h, false, false, type);
	}
	linear("qkv", qkv, h, t);
	linear("o", h, h, t);
	linear("gate_up", 2 * i, h, t);
	linear("down", h, i, t);
	attention(w, DTYPE_F32);
	attention(w, DTYPE_BF16);
	rows(w);
	training(2 * i, h);
	solving(i, h);
	solving(h, i);
	learning(qkv + 2 * h + 2 * i);
}

int main(int argc, char **argv)
{
	static const struct shapes workloads[] = {{192, 512, 6, 6, 256}, {2048, 5632, 32, 4, 512}};
	struct error err;
	int wanted = argc > 1 ? atoi(argv[1]) : 0;
	only_op = argc > 2 ? argv[2] : NULL;
	if (backend_cpu_create(0, &backend, &err) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	fprintf(stderr, "%s\n", backend->device);
	measure_rates();
	for (int i = 0; i < 2; i++)
		if (!wanted || wanted == i + 1) measure(&workloads[i]);
	printf("\n]\n");
	backend_destroy(backend);
	return 0;
}
