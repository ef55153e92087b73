/* The rates of a large matrix product (2048 × 2048 × 2048) in GFLOP/s, of which a whole job's is told as a part: of oneDNN, by its
 * own threads, and of the CPU backend, as {"f32": …, "f32_median": …, "own_f32": …, "own_f32_median": …} and the same of bf16,
 * where the processor multiplies it. The best of many runs is the mark that a whole job is held against; where other machines share
 * the processor, the median is what it had to give in these seconds. */
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

static void check_library(dnnl_status_t status)
{
	if (status == dnnl_success) return;
	fprintf(stderr, "oneDNN failed with status %d\n", (int)status);
	exit(1);
}

static void by_library(const struct product *p)
{
	check_library(dnnl_sgemm('N', 'T', SIZE, SIZE, SIZE, 1, p->a.data, p->a.stride, p->b.data, p->b.stride, 0, p->c.data,
				 p->c.stride));
}

/* ---- oneDNN's bf16, whose products are made once and then run ---------------------------------------------------------------- */

static struct {
	dnnl_stream_t stream;
	dnnl_primitive_t primitive;
	dnnl_exec_arg_t operands[3];
} library_bf16;

static dnnl_exec_arg_t operand(dnnl_engine_t engine, int number, const struct tensor *t, bool transposed, dnnl_memory_desc_t *shape)
{
	dnnl_exec_arg_t argument = {.arg = number};
	dnnl_dims_t sizes = {SIZE, SIZE}, strides = {transposed ? 1 : t->stride, transposed ? t->stride : 1};
	check_library(dnnl_memory_desc_init_by_strides(shape, 2, sizes, t->dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32, strides));
	check_library(dnnl_memory_create(&argument.memory, shape, engine, t->data));
	return argument;
}

static void prepare_bf16(const struct product *p)
{
	dnnl_engine_t engine;
	dnnl_memory_desc_t a, b, c;
	dnnl_matmul_desc_t matmul;
	dnnl_primitive_desc_t description;
	check_library(dnnl_engine_create(&engine, dnnl_cpu, 0));
	check_library(dnnl_stream_create(&library_bf16.stream, engine, dnnl_stream_default_flags));
	library_bf16.operands[0] = operand(engine, DNNL_ARG_SRC, &p->a, false, &a);
	library_bf16.operands[1] = operand(engine, DNNL_ARG_WEIGHTS, &p->b, true, &b);
	library_bf16.operands[2] = operand(engine, DNNL_ARG_DST, &p->c, false, &c);
	check_library(dnnl_matmul_desc_init(&matmul, &a, &b, NULL, &c));
	check_library(dnnl_primitive_desc_create(&description, &matmul, NULL, engine, NULL));
	check_library(dnnl_primitive_create(&library_bf16.primitive, description));
}

static void by_library_bf16(const struct product *p)
{
	(void)p;
	check_library(dnnl_primitive_execute(library_bf16.primitive, library_bf16.stream, 3, library_bf16.operands));
	check_library(dnnl_stream_wait(library_bf16.stream));
}

/* ---- rates ------------------------------------------------------------------------------------------------------------------- */

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

/* In turn: what else the processor does comes to both. */
static void measure(const char *name, enum dtype type, void (*library)(const struct product *))
{
	double rates[2][RUNS];
	char own[16];
	struct product product = random_product(type);
	if (type == DTYPE_BF16) prepare_bf16(&product);
	for (int i = 0; i < RUNS; i++) {
		rates[0][i] = rate_of(library, &product);
		rates[1][i] = rate_of(by_backend, &product);
	}
	print_rates(name, rates[0]);
	printf(", ");
	snprintf(own, sizeof own, "own_%s", name);
	print_rates(own, rates[1]);
}

int main(void)
{
	struct error err;
	if (backend_cpu_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	omp_set_num_threads(backend->threads);
	printf("{");
	measure("f32", DTYPE_F32, by_library);
	if (backend->native_bf16) {
		printf(", ");
		measure("bf16", DTYPE_BF16, by_library_bf16);
	}
	printf("}\n");
	backend_destroy(backend);
	return 0;
}
