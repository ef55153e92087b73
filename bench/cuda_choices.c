/* What cuBLASLt's first eight choices make of the eleven products of a LLaMA-7B step of 2,048 tokens, and what binned_gradient
 * makes of panels from 16 to 96 MB. Prints one JSON object. Usage: cuda_choices [SCALE]; SCALE divides the sizes. */
#include <stdio.h>
#include <stdlib.h>

#include "bench/cuda_bench.h"
#include "cuda/tuning.h"
#include "engine/compute/backend.h"

enum { BATCHES = 5, CHOICES = 8, BINS = 100 };

/* Random values: zeros make the matrix units faster. A row is drawn and copied, shifted, into the others. */
static struct tensor random_tensor(int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor t = tensor_make(NULL, rows, cols, type), f32 = tensor_make(NULL, 1, cols, DTYPE_F32);
	float *row = malloc((size_t)cols * sizeof *row);
	if (!row) exit(1);
	check(backend->ops->alloc(backend, tensor_bytes(&t), &t.data));
	check(backend->ops->alloc(backend, tensor_bytes(&f32), &f32.data));
	for (int64_t i = 0; i < rows; i++) {
		for (int64_t j = 0; j < cols; j++)
			row[j] = (float)rand() / (float)RAND_MAX - 0.5f;
		check(backend->ops->upload(backend, f32.data, row, tensor_bytes(&f32)));
		check(backend->ops->convert(backend, tensor_rows(t, i, 1), f32));
	}
	backend->ops->release(backend, f32.data);
	free(row);
	return t;
}

struct work {
	struct tensor c, a, b, weight, bin;
	bool transpose_a, transpose_b, binned;
};

static void run(const struct work *w)
{
	if (w->binned)
		check(backend->ops->binned_gradient(backend, w->c, w->a, w->b, w->weight, w->bin, false));
	else
		check(backend->ops->matmul(backend, w->c, w->a, w->transpose_a, w->b, w->transpose_b, false));
}

/* Median seconds of one run, over batches of about 20 ms. */
static double measure(const struct work *w)
{
	double batch[BATCHES];
	int runs = 1;
	run(w);
	for (int b = -1; b < BATCHES; b++) {
		check(backend->ops->sync(backend));
		double start = now();
		for (int r = 0; r < runs; r++)
			run(w);
		check(backend->ops->sync(backend));
		double each = (now() - start) / runs;
		if (b >= 0)
			batch[b] = each;
		else
			runs = each > 0.02 ? 1 : (int)(0.02 / each) + 1;
	}
	qsort(batch, BATCHES, sizeof *batch, ascending);
	return batch[BATCHES / 2];
}

static void product(const char *name, int64_t m, int64_t n, int64_t k, bool ta, bool tb, enum dtype out)
{
	static const char *separator = "";
	struct work w = {.transpose_a = ta, .transpose_b = tb};
	w.c = random_tensor(m, n, out);
	w.a = ta ? random_tensor(k, m, DTYPE_BF16) : random_tensor(m, k, DTYPE_BF16);
	w.b = tb ? random_tensor(n, k, DTYPE_BF16) : random_tensor(k, n, DTYPE_BF16);
	printf("%s\n  {\"product\": \"%s\", \"m\": %lld, \"n\": %lld, \"k\": %lld, \"tflops\": [", separator, name, (long long)m,
	       (long long)n, (long long)k);
	separator = ",";
	for (int choice = 0; choice < CHOICES; choice++) {
		cuda_tune_choice(backend, choice);
		run(&w);
		if (!cuda_tune_found(backend)) break;
		printf("%s%.2f", choice ? ", " : "", 2.0 * (double)m * (double)n * (double)k / measure(&w) * 1e-12);
		fflush(stdout);
	}
	printf("]}");
	cuda_tune_choice(backend, 0);
	struct tensor *all[] = {&w.c, &w.a, &w.b};
	for (int i = 0; i < 3; i++)
		backend->ops->release(backend, all[i]->data);
}

static void panels(int64_t rows, int64_t cols, int64_t tokens)
{
	static const char *separator = "";
	static const int megabytes[] = {16, 24, 32, 48, 64, 96};
	struct work w = {.binned = true};
	unsigned char *bins = malloc((size_t)(rows * cols));
	if (!bins) exit(1);
	for (int64_t i = 0; i < rows * cols; i++)
		bins[i] = (unsigned char)(rand() % BINS);
	w.c = random_tensor(rows, BINS, DTYPE_F32);
	w.a = random_tensor(tokens, rows, DTYPE_BF16);
	w.b = random_tensor(tokens, cols, DTYPE_BF16);
	w.weight = random_tensor(rows, cols, DTYPE_BF16);
	w.bin = tensor_make(NULL, rows, cols, DTYPE_U8);
	check(backend->ops->alloc(backend, tensor_bytes(&w.bin), &w.bin.data));
	check(backend->ops->upload(backend, w.bin.data, bins, tensor_bytes(&w.bin)));
	printf("%s\n  {\"rows\": %lld, \"cols\": %lld, \"tokens\": %lld", separator, (long long)rows, (long long)cols,
	       (long long)tokens);
	separator = ",";
	for (size_t i = 0; i < sizeof megabytes / sizeof *megabytes; i++) {
		cuda_tune_panel(backend, (int64_t)megabytes[i] << 20);
		printf(", \"mb_%d\": %.4e", megabytes[i], measure(&w));
		fflush(stdout);
	}
	printf("}");
	struct tensor *all[] = {&w.c, &w.a, &w.b, &w.weight, &w.bin};
	for (int i = 0; i < 5; i++)
		backend->ops->release(backend, all[i]->data);
	free(bins);
}

int main(int argc, char **argv)
{
	struct error err;
	int64_t scale = argc > 1 && atoi(argv[1]) > 1 ? atoi(argv[1]) : 1;
	if (backend_cuda_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	int64_t t = 2048 / scale, h = 4096 / scale, inner = 11008 / scale / 16 * 16;
	const struct {
		const char *name;
		int64_t rows, cols;
	} linears[] = {{"qkv", 3 * h, h}, {"o", h, h}, {"gate_up", 2 * inner, h}, {"down", h, inner}};
	printf("{\"device\": \"%s\", \"products\": [", backend->device);
	for (int i = 0; i < 4; i++) {
		char name[32];
		int64_t rows = linears[i].rows, cols = linears[i].cols;
		snprintf(name, sizeof name, "%s forward", linears[i].name);
		product(name, t, rows, cols, false, true, DTYPE_BF16);
		snprintf(name, sizeof name, "%s dX", linears[i].name);
		if (i > 0) product(name, t, cols, rows, false, false, DTYPE_BF16); /* nothing needs that of q, k and v */
		snprintf(name, sizeof name, "%s dW", linears[i].name);
		product(name, rows, cols, t, true, false, DTYPE_F32);
	}
	printf("],\n \"panels\": [");
	for (int i = 0; i < 4; i++)
		panels(linears[i].rows, linears[i].cols, t);
	printf("]}\n");
	backend_destroy(backend);
	return 0;
}
