/* The rate of the library's own large matrix product (2048 × 2048 × 2048) on the CPU backend, in GFLOP/s, as {"f32": …, "bf16":
 * …}; "bf16" only where the processor has the instructions. The best of many runs: the mark that a whole learning loop is held
 * against. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/compute/backend.h"
#include "engine/job/progress.h"

enum { SIZE = 2048, RUNS = 12 };

static void check(enum status status, const struct error *err)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static struct tensor matrix(struct backend *backend, enum dtype type)
{
	struct tensor wide = tensor_make(NULL, SIZE, SIZE, DTYPE_F32), narrow = tensor_make(NULL, SIZE, SIZE, type);
	float *values = malloc(tensor_bytes(&wide));
	if (!values) exit(1);
	for (int i = 0; i < SIZE * SIZE; i++)
		values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
	check(backend->ops->alloc(backend, tensor_bytes(&wide), &wide.data), &backend->error);
	check(backend->ops->alloc(backend, tensor_bytes(&narrow), &narrow.data), &backend->error);
	check(backend->ops->upload(backend, wide.data, values, tensor_bytes(&wide)), &backend->error);
	check(backend->ops->convert(backend, narrow, wide), &backend->error);
	backend->ops->release(backend, wide.data);
	free(values);
	return narrow;
}

static double rate(struct backend *backend, enum dtype type)
{
	struct tensor a = matrix(backend, type), b = matrix(backend, type), c = matrix(backend, DTYPE_F32);
	double best = 0;
	for (int i = 0; i < RUNS; i++) {
		double start = monotonic_seconds();
		check(backend->ops->matmul(backend, c, a, false, b, true, false), &backend->error);
		check(backend->ops->sync(backend), &backend->error);
		double now = 2.0 * SIZE * SIZE * SIZE / (monotonic_seconds() - start) * 1e-9;
		if (now > best) best = now;
	}
	backend->ops->release(backend, a.data);
	backend->ops->release(backend, b.data);
	backend->ops->release(backend, c.data);
	return best;
}

int main(void)
{
	struct backend *backend;
	struct error err;
	check(backend_cpu_create(0, &backend, &err), &err);
	printf("{\"f32\": %.1f", rate(backend, DTYPE_F32));
	if (backend->native_bf16) printf(", \"bf16\": %.1f", rate(backend, DTYPE_BF16));
	printf("}\n");
	backend_destroy(backend);
	return 0;
}
