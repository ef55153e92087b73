/* The vectors of a block as they are trained: norms' weights and biases, and the biases of the fused matrices. */
#ifndef BESAD_ENGINE_VECTORS_H
#define BESAD_ENGINE_VECTORS_H

#include "engine/compute/backend.h"
#include "engine/model/layout.h"

struct block;

enum vector {
	VECTOR_NORM1,
	VECTOR_NORM1_BIAS,
	VECTOR_NORM2,
	VECTOR_NORM2_BIAS,
	VECTOR_Q_NORM,
	VECTOR_K_NORM,
	VECTOR_ATTENTION_NORM,
	VECTOR_MLP_NORM,
	VECTOR_BIAS, /* + enum fused */
	VECTOR_COUNT = VECTOR_BIAS + FUSED_COUNT
};

/* Something of each vector, F32 [1, its length]; without data where the family has no such vector. */
struct vectors {
	struct tensor of[VECTOR_COUNT];
	void *memory;
	size_t bytes;
};

/* Where a vector of the loaded block lies. */
struct tensor block_vector_values(const struct block *, enum vector);

/* Room for something of each; whether the block is loaded does not matter. */
enum status vectors_create(const struct block *, struct vectors *ret, struct error *err);
void vectors_release(struct vectors *, struct backend *);

/* Both ways between a block and a copy of its vectors. Fill the backend's error. */
enum status vectors_keep(const struct block *, const struct vectors *to);
enum status vectors_restore(const struct block *, const struct vectors *from);

#endif
