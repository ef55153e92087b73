/* Times the CUDA backend's operations at the shapes of a LLaMA-7B block (2,048 tokens in a step, 8,192 in a pass) against the
 * rates that the device reaches in the same run: a large bf16 matmul, and a large device-to-device copy (bytes read and
 * written). Prints one JSON object. Seconds are the median over batches of launches, each batch ended by a wait; buffers are
 * larger than the cache, or several in turn.
 *
 * Usage: cuda_ops [cuda|cpu [SCALE]] [--pad N] [--only OPERATION]; SCALE divides the sizes (for a machine without a GPU: the
 * program itself can be tried with "cpu 16"). Rows of bf16 matrices are N elements apart beyond their length: powers of two may
 * meet in one memory channel. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cuda_bench.h"
#include "engine/compute/backend.h"

enum { BATCHES = 9, CANDIDATES = 101 };

static double matmul_rate, copy_rate; /* FLOP/s, bytes/s */
static int64_t scale = 1, pad;
static const char *only; /* the one operation that is measured, or NULL */
static const char *separator = "";

/* Runs `statement` in batches of about 20 ms and keeps the median seconds of one run in `seconds`. */
static double seconds;
#define MEASURE(statement)                                                                                                         \
	do {                                                                                                                       \
		double batch_[BATCHES];                                                                                            \
		int runs_ = 1;                                                                                                     \
		check(statement); /* warm: modules loaded, algorithms chosen, memory in the cache of the allocator */              \
		for (int b_ = -1; b_ < BATCHES; b_++) {                                                                            \
			check(backend->ops->sync(backend));                                                                        \
			double start_ = now();                                                                                     \
			for (int r_ = 0; r_ < runs_; r_++)                                                                         \
				check(statement);                                                                                  \
			check(backend->ops->sync(backend));                                                                        \
			double each_ = (now() - start_) / runs_;                                                                   \
			if (b_ >= 0)                                                                                               \
				batch_[b_] = each_;                                                                                \
			else                                                                                                       \
				runs_ = each_ > 0.02 ? 1 : (int)(0.02 / each_) + 1;                                                \
		}                                                                                                                  \
		qsort(batch_, BATCHES, sizeof *batch_, ascending);                                                                 \
		seconds = batch_[BATCHES / 2];                                                                                     \
	} while (0)

/* `flop` or `bytes` 0: not given. */
static void report(const char *op, const char *shape, double flop, double bytes)
{
	printf("%s\n  {\"op\": \"%s\", \"shape\": \"%s\", \"seconds\": %.4e", separator, op, shape, seconds);
	if (flop > 0) printf(", \"tflops\": %.2f, \"of_matmul\": %.3f", flop / seconds * 1e-12, flop / seconds / matmul_rate);
	if (bytes > 0) printf(", \"gbs\": %.1f, \"of_copy\": %.3f", bytes / seconds * 1e-9, bytes / seconds / copy_rate);
	printf("}");
	fflush(stdout);
	separator = ",";
}

#define OPERATION(op, shape, flop, bytes, statement)                                                                               \
	do {                                                                                                                       \
		if (only && strcmp(only, op) != 0) break;                                                                          \
		MEASURE(statement);                                                                                                \
		report(op, shape, flop, bytes);                                                                                    \
	} while (0)

static void *allocate(size_t bytes)
{
	void *memory;
	check(backend->ops->alloc(backend, bytes, &memory));
	return memory;
}

static void *upload(const void *host, size_t bytes)
{
	void *memory = allocate(bytes);
	check(backend->ops->upload(backend, memory, host, bytes));
	return memory;
}

static struct tensor tensor_new(int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor t = tensor_make(NULL, rows, cols, type);
	if (rows > 1 && type == DTYPE_BF16) t.stride += pad;
	t.data = allocate((size_t)(rows * t.stride) * dtype_size(type));
	return t;
}

/* Random values in [-1, 1): zeros would make the matrix units draw less power and run faster. */
static struct tensor tensor_random(int64_t rows, int64_t cols, enum dtype type)
{
	static uint64_t state = 1;
	struct tensor t = tensor_new(rows, cols, type), part = tensor_new(1, cols, DTYPE_F32);
	float *host = malloc((size_t)cols * sizeof *host);
	if (!host) exit(1);
	for (int64_t i = 0; i < rows; i++) {
		for (int64_t j = 0; j < cols; j++) {
			state = state * 6364136223846793005u + 1442695040888963407u;
			host[j] = (float)(int32_t)(state >> 32) * 0x1p-31f;
		}
		check(backend->ops->upload(backend, part.data, host, (size_t)cols * sizeof *host));
		check(backend->ops->convert(backend, tensor_rows(t, i, 1), part));
	}
	free(host);
	backend->ops->release(backend, part.data);
	return t;
}

static void drop(struct tensor *const *tensors, size_t count)
{
	for (size_t i = 0; i < count; i++)
		backend->ops->release(backend, tensors[i]->data);
}
#define DROP(...) drop((struct tensor *[]){__VA_ARGS__}, sizeof((struct tensor *[]){__VA_ARGS__}) / sizeof(struct tensor *))

static void measure_rates(void)
{
	int64_t n = 8192 / scale;
	struct tensor a = tensor_random(n, n, DTYPE_BF16), b = tensor_random(n, n, DTYPE_BF16), c = tensor_new(n, n, DTYPE_BF16);
	MEASURE(backend->ops->matmul(backend, c, a, false, b, true, false));
	double matmul_seconds = seconds;
	matmul_rate = 2.0 * (double)n * (double)n * (double)n / seconds;
	DROP(&a, &b, &c);
	size_t bytes = ((size_t)2 << 30) / (size_t)(scale * scale);
	void *from = allocate(bytes), *to = allocate(bytes);
	MEASURE(backend->ops->copy(backend, to, from, bytes));
	copy_rate = 2.0 * (double)bytes / seconds;
	backend->ops->release(backend, from);
	backend->ops->release(backend, to);
	printf("{\"device\": \"%s\", \"matmul\": {\"size\": %lld, \"type\": \"bf16\", \"seconds\": %.4e, \"tflops\": %.4g},\n"
	       " \"copy\": {\"bytes\": %zu, \"seconds\": %.4e, \"gbs\": %.4g},\n \"operations\": [",
	       backend->device, (long long)n, matmul_seconds, matmul_rate * 1e-12, bytes, seconds, copy_rate * 1e-9);
}

static struct tensor thresholds(int64_t rows, int64_t limit)
{
	int32_t *each = malloc((size_t)rows * sizeof *each);
	if (!each) exit(1);
	for (int64_t i = 0; i < rows; i++)
		each[i] = (int32_t)limit;
	struct tensor t = tensor_make(upload(each, (size_t)rows * sizeof *each), 1, rows, DTYPE_I32);
	free(each);
	return t;
}

/* Masks that move up and down by so many weights of each row, beside mask_weights, which writes them whole. Up, zeros are
 * written; down, weights are read too. */
static void moves(const char *shape, struct tensor active, struct tensor weight, struct tensor rank)
{
	static const int parts[] = {10000, 1000, 100, 16};
	int64_t rows = weight.rows, cols = weight.cols;
	if (!backend->ops->move_mask) return;
	struct tensor order = tensor_new(rows, cols, DTYPE_U16), held = tensor_new(1, rows, DTYPE_I32);
	check(backend->ops->order_ranks(backend, order, rank));
	OPERATION("order_ranks", shape, 0, 4.0 * (double)rows * (double)cols, backend->ops->order_ranks(backend, order, rank));
	for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
		int64_t few = cols / parts[i] ? cols / parts[i] : 1, up = 0;
		struct tensor limits[] = {thresholds(rows, cols / 2), thresholds(rows, cols / 2 + few)};
		char name[64];
		snprintf(name, sizeof name, "move_mask by %lld of %lld", (long long)few, (long long)cols);
		check(backend->ops->zero(backend, held.data, tensor_bytes(&held)));
		if (!only || !strcmp(only, "move_mask")) {
			MEASURE(backend->ops->move_mask(backend, active, weight, rank, order, held.data, limits[up = !up].data,
							false));
			report(name, shape, 0, 0);
		}
		DROP(&limits[0], &limits[1]);
	}
	DROP(&order, &held);
}

/* A linear that is added to the residual stream: to a copy of it, and without one. */
static enum status copy_and_add(struct tensor y, struct tensor x, struct tensor active, struct tensor stream)
{
	enum status status = backend->ops->copy(backend, y.data, stream.data, tensor_bytes(&stream));
	return status == STATUS_OK ? backend->ops->matmul(backend, y, x, false, active, true, true) : status;
}

static void residual(const char *shape, double flop, struct tensor active, struct tensor x)
{
	struct tensor stream = tensor_random(x.rows, active.rows, DTYPE_F32), y = tensor_new(x.rows, active.rows, DTYPE_F32);
	OPERATION("copy and matmul (residual)", shape, flop, 0, copy_and_add(y, x, active, stream));
	if (backend->ops->matmul_onto)
		OPERATION("matmul_onto (residual)", shape, flop, 0,
			  backend->ops->matmul_onto(backend, y, x, false, active, true, stream));
	DROP(&stream, &y);
}

static void weights(int64_t rows, int64_t cols, int64_t tokens)
{
	char shape[96];
	double params = (double)rows * (double)cols;
	snprintf(shape, sizeof shape, "[%lld, %lld], %lld tokens", (long long)rows, (long long)cols, (long long)tokens);
	struct tensor weight = tensor_random(rows, cols, DTYPE_BF16), active = tensor_new(rows, cols, DTYPE_BF16);
	struct tensor rank = tensor_new(rows, cols, DTYPE_U16), bin = tensor_new(rows, cols, DTYPE_U8);
	struct tensor dy = tensor_random(tokens, rows, DTYPE_BF16), x = tensor_random(tokens, cols, DTYPE_BF16);
	struct tensor sums = tensor_new(rows, CANDIDATES - 1, DTYPE_F32), dx = tensor_new(tokens, cols, DTYPE_BF16);
	struct tensor norms = tensor_new(1, cols, DTYPE_F64);
	struct tensor threshold = thresholds(rows, cols / 2);
	check(backend->ops->zero(backend, norms.data, tensor_bytes(&norms)));
	/* What --only leaves out, others need. */
	check(backend->ops->rank_rows(backend, IMPORTANCE_MAGNITUDE, rank, weight, NULL, 1));
	check(backend->ops->bin_ranks(backend, bin, rank, CANDIDATES, 0, 0));
	OPERATION("rank_rows", shape, 0, 4 * params, backend->ops->rank_rows(backend, IMPORTANCE_MAGNITUDE, rank, weight, NULL, 1));
	OPERATION("bin_ranks", shape, 0, 3 * params, backend->ops->bin_ranks(backend, bin, rank, CANDIDATES, 0, 0));
	OPERATION("mask_weights", shape, 0, 6 * params,
		  backend->ops->mask_weights(backend, active, weight, rank, threshold.data, false));
	moves(shape, active, weight, rank);
	OPERATION("convert", shape, 0, 4 * params, backend->ops->convert(backend, active, weight));
	OPERATION("column_norms", shape, 0, 2.0 * (double)tokens * (double)cols,
		  backend->ops->column_norms(backend, norms.data, x));
	OPERATION("matmul (dX)", shape, 2 * params * (double)tokens, 0,
		  backend->ops->matmul(backend, dx, dy, false, active, false, false));
	OPERATION("matmul (forward)", shape, 2 * params * (double)tokens, 0,
		  backend->ops->matmul(backend, dy, x, false, active, true, false));
	if (rows <= cols) residual(shape, 2 * params * (double)tokens, active, x);
	OPERATION("binned_gradient", shape, 2 * params * (double)tokens, 0,
		  backend->ops->binned_gradient(backend, sums, dy, x, weight, bin, false));
	DROP(&weight, &active, &rank, &bin, &dy, &x, &sums, &dx, &norms, &threshold);
}

static void attention(int64_t batch, int64_t tokens, int heads, int kv_heads, int dim)
{
	int64_t rows = batch * tokens, query = heads * dim, key = kv_heads * dim;
	struct attention a = {(int)batch, (int)tokens, heads, kv_heads, dim, 1 / sqrtf((float)dim), 0, 0};
	struct tensor qkv = tensor_random(rows, query + 2 * key, DTYPE_BF16), dqkv = tensor_new(rows, query + 2 * key, DTYPE_BF16);
	struct tensor out = tensor_new(rows, query, DTYPE_BF16), dout = tensor_random(rows, query, DTYPE_BF16);
	struct tensor lse = tensor_new(batch * heads, tokens, DTYPE_F32), table = tensor_random(tokens, dim, DTYPE_F32);
	struct tensor q = tensor_cols(qkv, 0, query), k = tensor_cols(qkv, query, key), v = tensor_cols(qkv, query + key, key);
	struct tensor dq = tensor_cols(dqkv, 0, query), dk = tensor_cols(dqkv, query, key),
		      dv = tensor_cols(dqkv, query + key, key);
	struct tensor qk = tensor_cols(qkv, 0, query + key);
	double pairs = (double)batch * 0.5 * (double)tokens * (double)(tokens + 1) * (double)query;
	char shape[96];
	snprintf(shape, sizeof shape, "%lld x %lld tokens, %d/%d heads of %d", (long long)batch, (long long)tokens, heads, kv_heads,
		 dim);
	OPERATION("attention_forward", shape, 4 * pairs, 0, backend->ops->attention_forward(backend, &a, out, lse, q, k, v));
	/* of the five products that are needed; two are done twice */
	OPERATION("attention_backward", shape, 10 * pairs, 0,
		  backend->ops->attention_backward(backend, &a, dq, dk, dv, q, k, v, out, lse, dout));
	OPERATION("rope", shape, 0, 4.0 * (double)rows * (double)(query + key),
		  backend->ops->rope(backend, &(struct rotation){dim, dim, false, false}, qk, table));
	DROP(&qkv, &dqkv, &out, &dout, &lse, &table);
}

static void token_rows(int64_t rows, int64_t hidden, int64_t inner)
{
	struct norm norm = {NORM_RMS, 1e-5f, 0, 1};
	struct tensor none = {0}, x = tensor_random(rows, hidden, DTYPE_F32), y = tensor_new(rows, hidden, DTYPE_BF16);
	struct tensor dx = tensor_random(rows, hidden, DTYPE_F32), dy = tensor_random(rows, hidden, DTYPE_BF16);
	struct tensor stats = tensor_new(rows, 2, DTYPE_F32), weight = tensor_random(1, hidden, DTYPE_F32);
	struct tensor gate_up = tensor_random(rows, 2 * inner, DTYPE_BF16), mlp = tensor_random(rows, inner, DTYPE_BF16);
	struct tensor gate = tensor_cols(gate_up, 0, inner), up = tensor_cols(gate_up, inner, inner);
	struct tensor loss = tensor_new(1, STEP_STATS, DTYPE_F64);
	double small = (double)rows * (double)hidden, large = (double)rows * (double)inner;
	const struct activation silu = {.kind = ACTIVATION_SILU};
	char narrow[64], wide[64];
	snprintf(narrow, sizeof narrow, "%lld x %lld", (long long)rows, (long long)hidden);
	snprintf(wide, sizeof wide, "%lld x %lld", (long long)rows, (long long)inner);
	OPERATION("norm_forward", narrow, 0, 6 * small, backend->ops->norm_forward(backend, &norm, y, stats, x, weight, none));
	OPERATION("norm_backward", narrow, 0, 14 * small,
		  backend->ops->norm_backward(backend, &norm, dx, dy, x, stats, weight, true));
	OPERATION("add", narrow, 0, 10 * small, backend->ops->add(backend, x, y));
	/* y and the reference twice, the gradient once */
	OPERATION("reconstruction", narrow, 0, 20 * small, backend->ops->reconstruction(backend, loss.data, dx, x, x, false));
	OPERATION("activation_forward", wide, 0, 6 * large, backend->ops->activation_forward(backend, silu, mlp, gate, up));
	OPERATION("activation_backward", wide, 0, 10 * large,
		  backend->ops->activation_backward(backend, silu, gate, up, mlp, gate, up));
	DROP(&x, &y, &dx, &dy, &stats, &weight, &gate_up, &mlp, &loss);
}

/* Tokens to experts and back: bytes of the rows that are moved, and of nothing else. */
static void experts(int64_t tokens, int64_t hidden, int count, int chosen)
{
	const struct routing r = {count, chosen, true, false};
	int64_t rows = routing_rows(&r, tokens);
	struct tensor none = {0}, logits = tensor_random(tokens, count, DTYPE_F32), weights = tensor_new(tokens, chosen, DTYPE_F32);
	struct tensor x = tensor_random(tokens, hidden, DTYPE_BF16), grouped = tensor_random(rows, hidden, DTYPE_BF16);
	struct tensor y = tensor_random(tokens, hidden, DTYPE_F32), dlogits = tensor_new(tokens, count, DTYPE_BF16);
	struct tensor chosen_of = tensor_new(tokens, chosen, DTYPE_I32), places = tensor_new(tokens, chosen, DTYPE_I32);
	struct tensor counts = tensor_new(1, count, DTYPE_I32), sources = tensor_new(1, rows, DTYPE_I32);
	double choices = (double)tokens * chosen * (double)hidden, all = (double)tokens * (double)hidden;
	char shape[96];
	snprintf(shape, sizeof shape, "%lld x %lld, %d of %d", (long long)tokens, (long long)hidden, chosen, count);
	check(backend->ops->route(backend, &r, weights, chosen_of.data, counts.data, places.data, sources.data, logits));
	OPERATION("route", shape, 0, 4.0 * (double)tokens * (count + 6.0 * chosen),
		  backend->ops->route(backend, &r, weights, chosen_of.data, counts.data, places.data, sources.data, logits));
	OPERATION("dispatch", shape, 0, 2 * choices + 2.0 * (double)rows * (double)hidden,
		  backend->ops->dispatch(backend, grouped, x, sources.data, chosen, none));
	OPERATION("combine", shape, 0, 2 * choices + 8 * all,
		  backend->ops->combine(backend, y, grouped, places.data, chosen, weights, true));
	OPERATION("route_backward", shape, 0, 2 * choices + 4 * all,
		  backend->ops->route_backward(backend, &r, dlogits, logits, weights, chosen_of.data, places.data, y, grouped));
	DROP(&logits, &weights, &x, &grouped, &y, &dlogits, &chosen_of, &places, &counts, &sources);
}

static void learning(int64_t groups, int64_t cols)
{
	struct tensor all[8]; /* θ, θ₀, β, gradient, m, v, s, sums */
	int32_t *widths = malloc((size_t)groups * sizeof *widths);
	double *shares = malloc((size_t)groups * sizeof *shares), n = (double)groups * CANDIDATES;
	const double start[PRODIGY_STATE] = {1e-6, 1e-6, 1e-6, 0};
	struct prodigy prodigy = {0.9f, 0.999f, 1e-8f, 5};
	char shape[64];
	if (!widths || !shares) exit(1);
	for (int64_t g = 0; g < groups; g++) {
		widths[g] = (int32_t)cols;
		shares[g] = 1 / (double)groups;
	}
	for (int i = 0; i < 8; i++)
		all[i] = tensor_random(groups, i == 7 ? CANDIDATES - 1 : CANDIDATES, DTYPE_F32);
	struct tensor rate = tensor_new(1, groups, DTYPE_F32), threshold = tensor_new(1, groups, DTYPE_I32);
	struct tensor stats = tensor_new(1, STEP_STATS, DTYPE_F64);
	struct tensor device_widths = tensor_make(upload(widths, (size_t)groups * sizeof *widths), 1, groups, DTYPE_I32);
	struct tensor device_shares = tensor_make(upload(shares, (size_t)groups * sizeof *shares), 1, groups, DTYPE_F64);
	struct tensor state = tensor_make(upload(start, sizeof start), 1, PRODIGY_STATE, DTYPE_F64);
	struct rates rates = {PARAM_SIGMOID, CANDIDATES, groups, device_widths.data, device_shares.data, 0, 0};
	check(backend->ops->zero(backend, all[5].data, tensor_bytes(&all[5]))); /* v: not negative */
	snprintf(shape, sizeof shape, "%lld x %d", (long long)groups, CANDIDATES);
	OPERATION("rates_forward", shape, 0, 8 * n,
		  backend->ops->rates_forward(backend, &rates, all[2], rate.data, threshold.data, stats.data, all[0], 0.5, 5));
	OPERATION("rates_backward", shape, 0, 16 * n,
		  backend->ops->rates_backward(backend, &rates, all[3], all[0], all[2], all[7], stats.data));
	/* 13 passes over an array of floats */
	OPERATION("prodigy_step", shape, 0, 52 * n,
		  backend->ops->prodigy_step(backend, &prodigy, groups * CANDIDATES, all[0].data, all[1].data, all[4].data,
					     all[5].data, all[6].data, all[3].data, state.data));
	DROP(&all[0], &all[1], &all[2], &all[3], &all[4], &all[5], &all[6], &all[7], &rate, &threshold, &stats, &device_widths,
	     &device_shares, &state);
	free(widths);
	free(shares);
}

static void logprobs(int64_t rows, int64_t vocab)
{
	char shape[64];
	struct tensor logits = tensor_random(rows, vocab, DTYPE_F32), out = tensor_new(1, rows, DTYPE_F64);
	struct tensor targets = tensor_new(1, rows, DTYPE_I32);
	check(backend->ops->zero(backend, targets.data, tensor_bytes(&targets)));
	snprintf(shape, sizeof shape, "%lld x %lld", (long long)rows, (long long)vocab);
	OPERATION("token_logprobs", shape, 0, 4.0 * (double)rows * (double)vocab,
		  backend->ops->token_logprobs(backend, out.data, logits, targets.data, 0));
	DROP(&logits, &out, &targets);
}

int main(int argc, char **argv)
{
	struct error err;
	bool cpu = argc > 1 && !strcmp(argv[1], "cpu");
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--pad") && i + 1 < argc)
			pad = atoi(argv[++i]);
		else if (!strcmp(argv[i], "--only") && i + 1 < argc)
			only = argv[++i];
		else
			scale = atoi(argv[i]);
	}
	if (scale < 1) scale = 1;
	if (pad < 0 || pad % 8) pad = 0;
	if ((cpu ? backend_cpu_create(0, &backend, &err) : backend_cuda_create(0, &backend, &err)) != STATUS_OK) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	int64_t hidden = 4096 / scale, inner = 11008 / scale / 16 * 16, step = 2048 / scale, pass = 8192 / scale;
	int heads = (int)(hidden / (scale > 2 ? 64 : 128)), dim = (int)(hidden / heads);
	measure_rates();
	weights(hidden, hidden, step);
	weights(2 * inner, hidden, step);
	weights(hidden, inner, step);
	attention(1, step, heads, heads, dim);
	attention(4, step, heads, heads, dim);
	if (heads % 4 == 0) attention(1, step, 2 * heads, heads / 4, dim);
	token_rows(step, hidden, inner);
	token_rows(pass, hidden, inner);
	experts(step, hidden, 8, 2);
	experts(step, hidden / 2, 128, 8);
	learning(4 * hidden + 2 * inner + hidden, hidden);
	logprobs(pass / 8, 32000 / scale);
	printf("\n ]}\n");
	backend_destroy(backend);
	return 0;
}
