/* The rate of oneDNN's large matrix product (2048 × 2048 × 2048, which the CPU backend leaves to it) in GFLOP/s, as {"f32": …,
 * "f32_median": …, "bf16": …, "bf16_median": …}; "bf16" only where the processor has the instructions. The best of many runs is
 * the mark that a whole job is held against; where other machines share the processor, the median is what it had to give in these
 * seconds. */
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

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return left < right ? -1 : left > right;
}

/* Of a product by matrices of a type that is called `name`, on standard output. */
static void print_rates(struct backend *backend, enum dtype type, const char *name)
{
	struct tensor a = matrix(backend, type), b = matrix(backend, type), c = matrix(backend, DTYPE_F32);
	double rates[RUNS];
	for (int i = 0; i < RUNS; i++) {
		double start = monotonic_seconds();
		check(backend->ops->matmul(backend, c, a, false, b, true, false), &backend->error);
		check(backend->ops->sync(backend), &backend->error);
		rates[i] = 2.0 * SIZE * SIZE * SIZE / (monotonic_seconds() - start) * 1e-9;
	}
	qsort(rates, RUNS, sizeof *rates, compare);
	printf("\"%s\": %.1f, \"%s_median\": %.1f", name, rates[RUNS - 1], name, rates[RUNS / 2]);
	backend->ops->release(backend, a.data);
	backend->ops->release(backend, b.data);
	backend->ops->release(backend, c.data);
}

int main(void)
{
	struct backend *backend;
	struct error err;
	check(backend_cpu_create(0, &backend, &err), &err);
	printf("{");
	print_rates(backend, DTYPE_F32, "f32");
	if (backend->native_bf16) {
		printf(", ");
		print_rates(backend, DTYPE_BF16, "bf16");
	}
	printf("}\n");
	backend_destroy(backend);
	return 0;
}
