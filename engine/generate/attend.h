/* Attention of one new token to those before it, whose keys and values are kept. */
#ifndef BESAD_ENGINE_GENERATE_ATTEND_H
#define BESAD_ENGINE_GENERATE_ATTEND_H

#include "engine/compute/backend.h"

/* The keys and values of one layer, F32. Those of a head's column lie together, and so do a position's values: scores and sums
 * are then added up over neighbours in memory, in the order of the columns and of the positions. */
struct cache {
	int64_t positions; /* room */
	float *keys;       /* [kv_heads, head_dim, positions] */
	float *values;     /* [kv_heads, positions, head_dim] */
};

/* Room for so many positions; STATUS_NO_MEMORY. Freed with cache_free. */
enum status cache_create(const struct attention *, int64_t positions, struct cache *ret, struct error *err);
void cache_free(struct cache *);

/* Keeps what position `at` has: k and v, F32 [kv_heads · head_dim]. */
void cache_put(struct cache *, const struct attention *, int64_t at, const float *k, const float *v);

/* out F32 [heads · head_dim] of position `at`, whose key and value are kept, for q of the same size; sinks as in struct
 * backend_ops, or NULL. Of `attention`, batch and tokens do not count. scores: room for heads · (at + 1). */
void attend(const struct attention *attention, const struct cache *, int64_t at, const float *q, const float *sinks, float *scores,
	    float *out, int threads);

#endif
