/* Which tiles of queries meet which tiles of keys, for all of attention's kernels. Everything here is static: see
 * engine/compute/cpu/isa/isa.h. */
#ifndef BESAD_ENGINE_CPU_ATTENTION_TILES_H
#define BESAD_ENGINE_CPU_ATTENTION_TILES_H

#include "engine/compute/cpu/kernels.h"

enum { TILE = ATTENTION_TILE };

struct range {
	int first, last; /* [first, last) */
};

static inline int clamp_to_tile(int64_t value)
{
	return (int)(value < 0 ? 0 : value > TILE ? TILE : value);
}

/* The columns of the key tile that starts at `key` that the queries [query, query + count) see, at least one of them. */
static inline struct range visible_keys(const struct attention *shape, int64_t query, int64_t count, int64_t key)
{
	int64_t first = shape->window ? query - shape->window + 1 : 0;
	return (struct range){clamp_to_tile(first - key), clamp_to_tile(query + count - key)};
}

/* The queries of the tile that starts at `query` that see some of the keys [key, key + count). */
static inline struct range visible_queries(const struct attention *shape, int64_t key, int64_t count, int64_t query)
{
	int64_t last = shape->window ? key + count - 1 + shape->window : query + TILE;
	return (struct range){clamp_to_tile(key - query), clamp_to_tile(last - query)};
}

/* The first key tile that the queries from `query` on can see. */
static inline int first_tile(const struct attention *shape, int64_t query)
{
	return shape->window && query >= shape->window ? (int)((query - shape->window + 1) / TILE) : 0;
}

static inline int rows_of_tile(const struct attention_job *job, int tile)
{
	int64_t left = (int64_t)job->shape.tokens - (int64_t)tile * TILE;
	return (int)(left < TILE ? left : TILE);
}

/* The part that gets the unit-th of a key/value head's tiles of queries, the last tile first. They are dealt to and fro, so that
 * every part gets tiles near the start and near the end: their costs grow with the position. */
static inline int64_t part_of_unit(const struct attention_job *job, int64_t unit)
{
	int64_t round = unit / job->parts, seat = unit % job->parts;
	return round % 2 ? job->parts - 1 - seat : seat;
}

#endif
