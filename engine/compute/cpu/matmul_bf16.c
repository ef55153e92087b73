#include "engine/compute/cpu/matmul_bf16.h"

#include <omp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "engine/compute/dry.h"

/* A model's step multiplies a few dozen shapes, with experts a few hundred, again and again; a primitive costs much more to make
 * than to run. */
enum { MOST_PRIMITIVES = 512, SCRATCH_ALIGNMENT = 64 };
/* How much of its operands oneDNN packs at once, where it has AVX-512: columns of the product, some of its rows, and of the
 * inner dimension. */
enum { PANEL_COLS = 9984, PANEL_ROWS = 384, PANEL_DEPTH = 768 };

/* A product is cut into pieces that are each made by one thread: of at least so many rows and columns, and a multiple of what
 * oneDNN makes at once. Each packs its part of A and B anew, so there are not many. */
enum { LEAST_SIDE = 48, GRAIN = 16 };

/* `down` · `across` pieces of `height` rows and `width` columns. */
struct product_cut {
	int64_t height, width, down, across;
};

struct matmul_shape {
	int64_t m, n, k, lda, ldb, ldc;
	int32_t transpose_a, transpose_b, accumulate, c_bf16;
};

struct matmul_primitive {
	struct matmul_shape shape;
	dnnl_primitive_t primitive; /* NULL in a dry run */
	dnnl_memory_desc_t a, b, c, scratch;
};

/* What a thread multiplies with. */
struct matmul_place {
	dnnl_stream_t stream;
	void *scratch;
};

struct matmul_cache {
	dnnl_engine_t engine;
	int count, next, threads;
	int64_t made; /* primitives, ever */
	struct matmul_primitive primitives[MOST_PRIMITIVES];
	int64_t scratch_size;
	struct matmul_place places[]; /* [threads] */
};

static void cache_free(struct matmul_cache *cache)
{
	for (int i = 0; i < cache->count; i++)
		if (cache->primitives[i].primitive) dnnl_primitive_destroy(cache->primitives[i].primitive);
	for (int i = 0; i < cache->threads; i++) {
		free(cache->places[i].scratch);
		if (cache->places[i].stream) dnnl_stream_destroy(cache->places[i].stream);
	}
	if (cache->engine) dnnl_engine_destroy(cache->engine);
	free(cache);
}

static struct matmul_cache *cache_create(int threads)
{
	struct matmul_cache *cache = calloc(1, sizeof *cache + (size_t)threads * sizeof *cache->places);
	if (!cache) return NULL;
	cache->threads = threads;
	dnnl_status_t status = dnnl_engine_create(&cache->engine, dnnl_cpu, 0);
	for (int i = 0; i < threads && status == dnnl_success; i++)
		status = dnnl_stream_create(&cache->places[i].stream, cache->engine, dnnl_stream_default_flags);
	if (status == dnnl_success) return cache;
	cache_free(cache);
	return NULL;
}

void cpu_matmul_release(struct cpu_backend *cpu)
{
	if (cpu->matmuls) cache_free(cpu->matmuls);
	cpu->matmuls = NULL;
}

static dnnl_status_t describe(dnnl_memory_desc_t *ret, int64_t rows, int64_t cols, int64_t stride, bool transposed,
			      dnnl_data_type_t type)
{
	dnnl_dims_t sizes = {rows, cols}, strides = {transposed ? 1 : stride, transposed ? stride : 1};
	return dnnl_memory_desc_init_by_strides(ret, 2, sizes, type, strides);
}

/* Room for what a primitive needs while it runs, for each thread. */
static dnnl_status_t scratch_grow(struct backend *backend, struct matmul_cache *cache, int64_t bytes)
{
	if (bytes <= cache->scratch_size) return dnnl_success;
	dry_host(backend, cache->threads * (bytes - cache->scratch_size));
	cache->scratch_size = bytes;
	for (int i = 0; i < cache->threads && !backend->dry; i++) {
		free(cache->places[i].scratch);
		cache->places[i].scratch = aligned_alloc(SCRATCH_ALIGNMENT, (size_t)bytes);
		if (!cache->places[i].scratch) {
			cache->scratch_size = 0;
			return dnnl_out_of_memory;
		}
	}
	return dnnl_success;
}

/* For one thread, with the caller's memory. A dry run makes none. */
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
	if (status == dnnl_success) status = dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user);
	if (status == dnnl_success && shape->accumulate) {
		status = dnnl_post_ops_create(&after);
		if (status == dnnl_success) status = dnnl_post_ops_append_sum(after, 1);
		if (status == dnnl_success) status = dnnl_primitive_attr_set_post_ops(attributes, after);
	}
	if (status == dnnl_success) status = dnnl_primitive_desc_create(&description, &operation, attributes, cache->engine, NULL);
	if (status == dnnl_success) {
		made.scratch = *dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
		size_t bytes = dnnl_memory_desc_get_size(&made.scratch);
		status = scratch_grow(backend, cache,
				      (int64_t)((bytes + SCRATCH_ALIGNMENT - 1) / SCRATCH_ALIGNMENT * SCRATCH_ALIGNMENT));
	}
	if (status == dnnl_success && !backend->dry) status = dnnl_primitive_create(&made.primitive, description);
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
	cache->made++;
	*ret = slot;
	return dnnl_success;
}

/* Each thread has panels of its own while it multiplies. */
static void count_panels(struct backend *backend, int64_t n, int64_t k)
{
	int64_t cols = n < PANEL_COLS ? n : PANEL_COLS, depth = k < PANEL_DEPTH ? k : PANEL_DEPTH;
	int64_t bytes = backend->threads * (cols + PANEL_ROWS) * depth * (int64_t)sizeof(uint16_t);
	dry_host(backend, bytes);
	dry_host(backend, -bytes);
}

/* A product in pieces, and the primitive for those of each size: [the last downwards][the last across]. */
/* Where pieces begin does not depend on the number of threads, up to four of them: it may show in the last bits. */
static struct product_cut cut_product(int threads, int64_t m, int64_t n, int64_t k)
{
	int64_t most = 16, by_work = cpu_pieces_of_product(m, n, k), rows = 1, cols = 1;
	while (most < 4 * threads)
		most *= 2;
	if (by_work < most) most = by_work;
	while (2 * rows * cols <= most) {
		bool tall = m / rows >= n / cols / 2;
		if (tall && m / rows >= 2 * LEAST_SIDE)
			rows *= 2;
		else if (n / cols >= 2 * LEAST_SIDE)
			cols *= 2;
		else if (m / rows >= 2 * LEAST_SIDE)
			rows *= 2;
		else
			break;
	}
	int64_t height = ((m + rows - 1) / rows + GRAIN - 1) / GRAIN * GRAIN,
		width = ((n + cols - 1) / cols + GRAIN - 1) / GRAIN * GRAIN;
	return (struct product_cut){height, width, (m + height - 1) / height, (n + width - 1) / width};
}

struct matmul_work {
	struct matmul_cache *cache;
	struct tensor c, a, b;
	bool transpose_a, transpose_b;
	struct product_cut cut;
	struct matmul_primitive *primitives[2][2];
	atomic_int *failed; /* a status of oneDNN */
};

static dnnl_status_t find_all(struct backend *backend, struct matmul_work *w, bool accumulate)
{
	int64_t made;
	do { /* what is made may take the place of what was found */
		made = w->cache->made;
		for (int i = 0; i < 4; i++) {
			bool low = i / 2, right = i % 2;
			struct matmul_shape shape = {
				.m = low ? w->c.rows - (w->cut.down - 1) * w->cut.height : w->cut.height,
				.n = right ? w->c.cols - (w->cut.across - 1) * w->cut.width : w->cut.width,
				.k = w->transpose_a ? w->a.rows : w->a.cols,
				.lda = w->a.stride,
				.ldb = w->b.stride,
				.ldc = w->c.stride,
				.transpose_a = w->transpose_a,
				.transpose_b = w->transpose_b,
				.accumulate = accumulate,
				.c_bf16 = w->c.dtype == DTYPE_BF16,
			};
			if ((!low && w->cut.down == 1) || (!right && w->cut.across == 1)) continue;
			dnnl_status_t status = primitive_find(backend, w->cache, &shape, &w->primitives[low][right]);
			if (status != dnnl_success) return status;
		}
	} while (made != w->cache->made);
	return dnnl_success;
}

static dnnl_status_t execute(const struct matmul_work *w, const struct matmul_primitive *matmul, int thread, uint16_t *a,
			     uint16_t *b, void *c)
{
	const struct matmul_place *place = &w->cache->places[thread];
	dnnl_memory_t memories[4] = {NULL};
	dnnl_status_t status = dnnl_memory_create(&memories[0], &matmul->a, w->cache->engine, a);
	if (status == dnnl_success) status = dnnl_memory_create(&memories[1], &matmul->b, w->cache->engine, b);
	if (status == dnnl_success) status = dnnl_memory_create(&memories[2], &matmul->c, w->cache->engine, c);
	if (status == dnnl_success) status = dnnl_memory_create(&memories[3], &matmul->scratch, w->cache->engine, place->scratch);
	if (status == dnnl_success) {
		dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, memories[0]},
					       {DNNL_ARG_WEIGHTS, memories[1]},
					       {DNNL_ARG_DST, memories[2]},
					       {DNNL_ARG_SCRATCHPAD, memories[3]}};
		status = dnnl_primitive_execute(matmul->primitive, place->stream, 4, arguments);
	}
	if (status == dnnl_success) status = dnnl_stream_wait(place->stream);
	for (int i = 0; i < 4; i++)
		if (memories[i]) dnnl_memory_destroy(memories[i]);
	return status;
}

static void matmul_part(const void *context, struct share pieces)
{
	const struct matmul_work *w = context;
	for (int64_t piece = pieces.first; piece < pieces.last; piece++) {
		int64_t down = piece / w->cut.across, across = piece % w->cut.across;
		int64_t row = down * w->cut.height, col = across * w->cut.width;
		dnnl_status_t status = execute(w, w->primitives[down == w->cut.down - 1][across == w->cut.across - 1],
					       pieces.thread, (uint16_t *)w->a.data + row * (w->transpose_a ? 1 : w->a.stride),
					       (uint16_t *)w->b.data + col * (w->transpose_b ? w->b.stride : 1),
					       (char *)w->c.data + (size_t)(row * w->c.stride + col) * dtype_size(w->c.dtype));
		if (status != dnnl_success) atomic_store(w->failed, (int)status);
	}
}

enum status cpu_matmul_bf16(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			    bool transpose_b, bool accumulate)
{
	struct backend *backend = &cpu->base;
	int64_t inner = transpose_a ? a.rows : a.cols;
	if (!cpu->matmuls && !(cpu->matmuls = cache_create(backend->threads)))
		return error_set(&backend->error, STATUS_NO_MEMORY, "matmul: oneDNN gives no engine for the CPU");
	atomic_int failed = dnnl_success;
	struct matmul_work work = {
		cpu->matmuls,     c, a, b, transpose_a, transpose_b, cut_product(backend->threads, c.rows, c.cols, inner),
		.failed = &failed};
	int threads = omp_get_max_threads();
	omp_set_num_threads(1); /* a primitive is made for a number of threads */
	dnnl_status_t status = find_all(backend, &work, accumulate);
	omp_set_num_threads(threads);
	if (status == dnnl_success && backend->dry)
		count_panels(backend, work.cut.width, inner);
	else if (status == dnnl_success)
		cpu_run(cpu, work.cut.down * work.cut.across, 1, matmul_part, &work);
	if (status == dnnl_success) status = (dnnl_status_t)atomic_load(&failed);
	if (status == dnnl_success) return STATUS_OK;
	return error_set(&backend->error, status == dnnl_out_of_memory ? STATUS_NO_MEMORY : STATUS_BACKEND,
			 "matmul: oneDNN's bf16 matmul of %lld × %lld × %lld failed with status %d", (long long)c.rows,
			 (long long)c.cols, (long long)inner, (int)status);
}
