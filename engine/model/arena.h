/* One allocation that holds many tensors: `arena_place` hands out 256-byte aligned parts, or only counts while memory is NULL. */
#ifndef BESAD_ENGINE_ARENA_H
#define BESAD_ENGINE_ARENA_H

#include "engine/compute/tensor.h"

struct arena {
	char *memory;
	size_t used;
};

static inline void *arena_take(struct arena *arena, size_t bytes)
{
	void *part = arena->memory ? arena->memory + arena->used : NULL;
	arena->used += (bytes + 255) & ~(size_t)255;
	return part;
}

static inline struct tensor arena_place(struct arena *arena, int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor tensor = tensor_padded(NULL, rows, cols, type);
	tensor.data = arena_take(arena, tensor_room(&tensor));
	return tensor;
}

/* Without gaps between the rows. */
static inline struct tensor arena_place_whole(struct arena *arena, int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, type);
	tensor.data = arena_take(arena, tensor_bytes(&tensor));
	return tensor;
}

#endif
