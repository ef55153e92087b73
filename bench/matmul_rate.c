/* The rates of a large matrix product (2048 × 2048 × 2048) in GFLOP/s, of which a whole job's is told as a part: of oneDNN's
 * sgemm, by its own threads, and of the CPU backend, as {"f32": …, "f32_median": …, "own_f32": …, "own_f32_median": …, "bf16":
 * …, "bf16_median": …}; "bf16" is the backend's, which leaves it to oneDNN, and only there where the processor has the
 * instructions. The best of many runs is the mark that a whole job is held against; where other machines share the processor,
 * the median is what it had to give in these seconds. */
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>

#include <oneapi/dnnl/dnnl.h>

#include "base/clock.h"
#include "bench/cpu_bench.h"

enum { SIZE = 2048, RUNS = 12 };

struct product {
	struct tensor c, a, b;
};

static struct product random_product(enum dtype type)
{
	struct tensor shape = tensor_padded(NULL, SIZE, SIZE, type);
	return (struct product){random_matrix(tensor_padded(NULL, SIZE, SIZE, DTYPE_F32)), random_matrix(shape),
				random_matrix(shape)};
}

static void by_backend(const struct product *p)
{
	check(backend->ops->matmul(backend, p->c, p->a, false, p->b, true, false));
	check(backend->ops->sync(backend));
}

static void by_library(const struct product *p)
{
	dnnl_status_t status = dnnl_sgemm('N', 'T', SIZE, SIZE, SIZE, 1, p->a.data, p->a.stride, p->b.data, p->b.stride, 0,
					  p->c.data, p->c.stride);
	if (status == dnnl_success) return;
	fprintf(stderr, "oneDNN's sgemm failed with status %d\n", (int)status);
	exit(1);
}

static int compare(const void *a, const void *b)
{
	double left = *(const double *)a, right = *(const double *)b;
	return left < right ? -1 : left > right;
}

static double rate_of(void (*multiply)(const struct product *), const struct product *product)
{
	double start = monotonic_seconds();
	multiply(product);
	return 2.0 * SIZE * SIZE * SIZE / (monotonic_seconds() - start) * 1e-9;
}

static void print_rates(const char *name, double rates[RUNS])
{
	qsort(rates, RUNS, sizeof *rates, compare);
	printf("\"%s\": %.1f, \"%s_median\": %.1f", name, rates[RUNS - 1], name, rates[RUNS / 2]);
}

int main(void)
{
	struct error err;
	double library[RUNS], own[RUNS];
	if (backend_cpu_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	omp_set_num_threads(backend->threads);
	struct product product = random_product(DTYPE_F32);
	for (int i = 0; i < RUNS; i++) { /* in turn: what else the processor does comes to both */
		library[i] = rate_of(by_library, &product);
		own[i] = rate_of(by_backend, &product);
	}
	printf("{");
	print_rates("f32", library);
	printf(", ");
	print_rates("own_f32", own);
	if (backend->native_bf16) {
		product = random_product(DTYPE_BF16);
		for (int i = 0; i < RUNS; i++)
			own[i] = rate_of(by_backend, &product);
		printf(", ");
		print_rates("bf16", own);
	}
	printf("}\n");
	backend_destroy(backend);
	return 0;
}
