/* The rate of oneDNN's large matrix product (2048 × 2048 × 2048, which the CPU backend leaves to it) in GFLOP/s, as {"f32": …,
 * "f32_median": …, "bf16": …, "bf16_median": …}; "bf16" only where the processor has the instructions. The best of many runs is
 * the mark that a whole job is held against; where other machines share the processor, the median is what it had to give in these
 * seconds. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "bench/cpu_bench.h"
#include "engine/job/progress.h"

enum { SIZE = 2048, RUNS = 12 };

static struct tensor square(enum dtype type)
{
	return random_matrix(tensor_make(NULL, SIZE, SIZE, type));
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return left < right ? -1 : left > right;
}

/* Of a product by matrices of a type that is called `name`, on standard output. */
static void print_rates(enum dtype type, const char *name)
{
	struct tensor a = square(type), b = square(type), c = square(DTYPE_F32);
	double rates[RUNS];
	for (int i = 0; i < RUNS; i++) {
		double start = monotonic_seconds();
		check(backend->ops->matmul(backend, c, a, false, b, true, false));
		check(backend->ops->sync(backend));
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
	struct error err;
	if (backend_cpu_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	printf("{");
	print_rates(DTYPE_F32, "f32");
	if (backend->native_bf16) {
		printf(", ");
		print_rates(DTYPE_BF16, "bf16");
	}
	printf("}\n");
	backend_destroy(backend);
	return 0;
}
