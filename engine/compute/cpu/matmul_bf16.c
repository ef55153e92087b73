#include "engine/compute/cpu/matmul_bf16.h"

#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "engine/compute/dry.h"

/* A model's step multiplies a few dozen shapes, with experts a few hundred, again and again; a primitive costs much more to make
 * than to run. */
enum { MOST_PRIMITIVES = 512 };
/* How much of its operands oneDNN packs at once, where it has AVX-512: columns of the product, some of its rows, and of the
 * inner dimension. */
enum { PANEL_COLS = 9984, PANEL_ROWS = 384, PANEL_DEPTH = 768 };

struct matmul_shape {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t transpose_a, transpose_b, accumulate, c_bf16;
};

struct matmul_primitive {
	struct matmul_shape shape;
	dnnl_primitive_t primitive; /* NULL in a dry run */
	dnnl_memory_desc_t a, b, c;
};

struct matmul_cache {
	dnnl_engine_t engine;
	dnnl_stream_t stream;
	int count, next;
	struct matmul_primitive primitives[MOST_PRIMITIVES];
};

static struct matmul_cache *cache_create(void)
{
	struct matmul_cache *cache = calloc(1, sizeof *cache);
	if (!cache) return NULL;
	if (dnnl_engine_create(&cache->engine, dnnl_cpu, 0) == dnnl_success &&
	    dnnl_stream_create(&cache->stream, cache->engine, dnnl_stream_default_flags) == dnnl_success)
		return cache;
	if (cache->engine) dnnl_engine_destroy(cache->engine);
	free(cache);
	return NULL;
}

void cpu_matmul_release(struct cpu_backend *cpu)
{
	struct matmul_cache *cache = cpu->matmuls;
	if (!cache) return;
	for (int i = 0; i < cache->count; i++)
		if (cache->primitives[i].primitive) dnnl_primitive_destroy(cache->primitives[i].primitive);
	dnnl_stream_destroy(cache->stream);
	dnnl_engine_destroy(cache->engine);
	free(cache);
	cpu->matmuls = NULL;
}

static dnnl_status_t describe(dnnl_memory_desc_t *ret, int64_t rows, int64_t cols, int64_t stride, bool transposed,
			      dnnl_data_type_t type)
{
	dnnl_dims_t sizes = {rows, cols}, strides = {transposed ? 1 : stride, transposed ? stride : 1};
	return dnnl_memory_desc_init_by_strides(ret, 2, sizes, type, strides);
}

/* Each primitive has memory of its own as long as it lives. A dry run makes none, but counts that: oneDNN asks for room for the
 * whole product for each thread, and all of them together write it once. */
static dnnl_status_t primitive_create(struct backend *backend, struct matmul_cache *cache, const struct matmul_shape *shape,
				      struct matmul_primitive *ret)
{
	struct matmul_primitive made = {.shape = *shape};
	dnnl_matmul_desc_t operation;
	dnnl_primitive_attr_t attributes = NULL;
	dnnl_post_ops_t after = NULL;
	dnnl_primitive_desc_t description = NULL;
	dnnl_data_type_t c_type = shape->c_bf16 ? dnnl_bf16 : dnnl_f32;
	dnnl_status_t status = describe(&made.a, shape->m, shape->k, shape->lda, shape->transpose_a, dnnl_bf16);
	if (status == dnnl_success) status = describe(&made.b, shape->k, shape->n, shape->ldb, shape->transpose_b, dnnl_bf16);
	if (status == dnnl_success) status = describe(&made.c, shape->m, shape->n, shape->ldc, false, c_type);
	if (status == dnnl_success) status = dnnl_matmul_desc_init(&operation, &made.a, &made.b, NULL, &made.c);
	if (status == dnnl_success) status = dnnl_primitive_attr_create(&attributes);
	if (status == dnnl_success && shape->accumulate) {
		status = dnnl_post_ops_create(&after);
		if (status == dnnl_success) status = dnnl_post_ops_append_sum(after, 1);
		if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, after);
	}
	if (status == dnnl_success) status = dnnl_primitive_desc_create(&description, &operation, attributes, cache->engine, NULL);
	if (status == dnnl_success && backend->dry) {
		int64_t bytes = 0;
		status = dnnl_primitive_desc_query(description, dnnl_query_memory_consumption_s64, 0, &bytes);
		dry_host(backend, bytes / backend->threads);
	} else if (status == dnnl_success) {
		status = dnnl_primitive_create(&made.primitive, description);
	}
	if (description) dnnl_primitive_desc_destroy(description);
	if (after) dnnl_post_ops_destroy(after);
	if (attributes) dnnl_primitive_attr_destroy(attributes);
	if (status == dnnl_success) *ret = made;
	return status;
}

/* The primitive for the shape, made if it is new; the oldest gives way when the cache is full. */
static dnnl_status_t primitive_find(struct backend *backend, struct matmul_cache *cache, const struct matmul_shape *shape,
				    struct matmul_primitive **ret)
{
	for (int i = 0; i < cache->count; i++) {
		if (!memcmp(&cache->primitives[i].shape, shape, sizeof *shape)) {
			*ret = &cache->primitives[i];
			return dnnl_success;
		}
	}
	struct matmul_primitive made;
	dnnl_status_t status = primitive_create(backend, cache, shape, &made);
	if (status != dnnl_success) return status;
	struct matmul_primitive *slot = &cache->primitives[cache->next];
	if (cache->count < MOST_PRIMITIVES)
		cache->count++;
	else if (slot->primitive)
		dnnl_primitive_destroy(slot->primitive);
	cache->next = (cache->next + 1) % MOST_PRIMITIVES;
	*slot = made;
	*ret = slot;
	return dnnl_success;
}

/* Each thread has panels of its own while it multiplies its share of the rows. */
static void count_panels(struct backend *backend, const struct matmul_shape *shape)
{
	int64_t cols = shape->n < PANEL_COLS ? shape->n : PANEL_COLS, depth = shape->k < PANEL_DEPTH ? shape->k : PANEL_DEPTH;
	int64_t bytes = backend->threads * (cols + PANEL_ROWS) * depth * (int64_t)sizeof(uint16_t);
	dry_host(backend, bytes);
	dry_host(backend, -bytes);
}

static dnnl_status_t execute(struct matmul_cache *cache, const struct matmul_primitive *matmul, void *a, void *b, void *c)
{
	dnnl_memory_t memories[3] = {NULL};
	dnnl_status_t status = dnnl_memory_create(&memories[0], &matmul->a, cache->engine, a);
	if (status == dnnl_success) status = dnnl_memory_create(&memories[1], &matmul->b, cache->engine, b);
	if (status == dnnl_success) status = dnnl_memory_create(&memories[2], &matmul->c, cache->engine, c);
	if (status == dnnl_success) {
		dnnl_exec_arg_t arguments[] = {
			{DNNL_ARG_SRC, memories[0]}, {DNNL_ARG_WEIGHTS, memories[1]}, {DNNL_ARG_DST, memories[2]}};
		status = dnnl_primitive_execute(matmul->primitive, cache->stream, 3, arguments);
	}
	if (status == dnnl_success) status = dnnl_stream_wait(cache->stream);
	for (int i = 0; i < 3; i++)
		if (memories[i]) dnnl_memory_destroy(memories[i]);
	return status;
}

enum status cpu_matmul_bf16(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			    bool transpose_b, bool accumulate)
{
	struct backend *backend = &cpu->base;
	if (!cpu->matmuls && !(cpu->matmuls = cache_create()))
		return error_set(&backend->error, STATUS_NO_MEMORY, "matmul: oneDNN gives no engine for the CPU");
	struct matmul_shape shape = {
		.m = c.rows,
		.n = c.cols,
		.k = transpose_a ? a.rows : a.cols,
		.lda = a.stride,
		.ldb = b.stride,
		.ldc = c.stride,
		.transpose_a = transpose_a,
		.transpose_b = transpose_b,
		.accumulate = accumulate,
		.c_bf16 = c.dtype == DTYPE_BF16,
	};
	struct matmul_primitive *matmul;
	int threads = omp_get_max_threads();
	if (threads != backend->threads) omp_set_num_threads(backend->threads); /* a primitive is made for a number of threads */
	dnnl_status_t status = primitive_find(backend, cpu->matmuls, &shape, &matmul);
	if (status == dnnl_success && backend->dry)
		count_panels(backend, &shape);
	else if (status == dnnl_success)
		status = execute(cpu->matmuls, matmul, a.data, b.data, c.data);
	if (threads != backend->threads) omp_set_num_threads(threads);
	if (status == dnnl_success) return STATUS_OK;
	return error_set(&backend->error, status == dnnl_out_of_memory ? STATUS_NO_MEMORY : STATUS_BACKEND,
			 "matmul: oneDNN's bf16 matmul of %lld × %lld × %lld failed with status %d", (long long)shape.m,
			 (long long)shape.n, (long long)shape.k, (int)status);
}
