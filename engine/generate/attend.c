#include "engine/generate/attend.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

/* Less work than this is done before other threads are awake. */
enum { WORTH_THREADS = 1 << 16 };

enum status cache_create(const struct attention *attention, int64_t positions, struct cache *ret, struct error *err)
{
	size_t width = (size_t)attention->kv_heads * (size_t)attention->head_dim, count;
	struct cache cache = {.positions = positions};
	if (!__builtin_mul_overflow(width, (size_t)positions, &count) && count < SIZE_MAX / sizeof(float)) {
		cache.keys = malloc(count * sizeof(float) + 1);
		cache.values = malloc(count * sizeof(float) + 1);
	}
	if (!cache.keys || !cache.values) {
		cache_free(&cache);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the keys and values of %" PRId64 " tokens", positions);
	}
	*ret = cache;
	return STATUS_OK;
}

void cache_free(struct cache *cache)
{
	free(cache->keys);
	free(cache->values);
	*cache = (struct cache){0};
}

void cache_put(struct cache *cache, const struct attention *attention, int64_t at, const float *k, const float *v)
{
	int64_t dim = attention->head_dim;
	for (int64_t i = 0; i < attention->kv_heads * dim; i++) {
		cache->keys[i * cache->positions + at] = k[i];
		cache->values[(i / dim * cache->positions + at) * dim + i % dim] = v[i];
	}
}

/* to[j] += Σ_i factors[i] · rows[i, j], STEP rows at once: so `to` is read and written less often. */
enum { STEP = 4 };
static void add_rows(const float *factors, const float *rows, int64_t count, int64_t stride, int64_t cols, float *restrict to)
{
	int64_t i = 0;
	for (; i + STEP <= count; i += STEP) {
		const float *a = rows + i * stride, *b = a + stride, *c = b + stride, *d = c + stride;
		float x = factors[i], y = factors[i + 1], z = factors[i + 2], w = factors[i + 3];
#pragma omp simd
		for (int64_t j = 0; j < cols; j++)
			to[j] += (x * a[j] + y * b[j]) + (z * c[j] + w * d[j]);
	}
	for (; i < count; i++) {
		const float *a = rows + i * stride;
		float x = factors[i];
#pragma omp simd
		for (int64_t j = 0; j < cols; j++)
			to[j] += x * a[j];
	}
}

/* Makes weights of the scores, without their common divisor, which it returns. */
static float weigh(const struct attention *attention, const float *sink, int64_t count, float *scores)
{
	float most = sink ? *sink : -INFINITY, sum = 0;
	for (int64_t t = 0; t < count; t++) {
		scores[t] *= attention->scale;
		if (attention->softcap > 0) scores[t] = attention->softcap * tanhf(scores[t] / attention->softcap);
		if (scores[t] > most) most = scores[t];
	}
	for (int64_t t = 0; t < count; t++) {
		scores[t] = expf(scores[t] - most);
		sum += scores[t];
	}
	return sink ? sum + expf(*sink - most) : sum;
}

static void attend_head(const struct attention *attention, const struct cache *cache, int64_t at, int head, const float *q,
			const float *sink, float *restrict scores, float *restrict out)
{
	int64_t dim = attention->head_dim, kv = head / (attention->heads / attention->kv_heads);
	int64_t first = attention->window > 0 && at >= attention->window ? at + 1 - attention->window : 0, count = at + 1 - first;
	const float *values = cache->values + (kv * cache->positions + first) * dim;
	for (int64_t t = 0; t < count; t++)
		scores[t] = 0;
	add_rows(q, cache->keys + kv * dim * cache->positions + first, dim, cache->positions, count, scores);
	float sum = weigh(attention, sink, count, scores);
	for (int64_t i = 0; i < dim; i++)
		out[i] = 0;
	add_rows(scores, values, count, dim, dim, out);
	for (int64_t i = 0; i < dim; i++)
		out[i] /= sum;
}

void attend(const struct attention *attention, const struct cache *cache, int64_t at, const float *q, const float *sinks,
	    float *scores, float *out, int threads)
{
	int64_t dim = attention->head_dim;
	bool worth = attention->heads * dim * (at + 1) >= WORTH_THREADS;
#pragma omp parallel for num_threads(worth ? threads : 1)
	for (int head = 0; head < attention->heads; head++)
		attend_head(attention, cache, at, head, q + head * dim, sinks ? sinks + head : NULL, scores + head * (at + 1),
			    out + head * dim);
}
