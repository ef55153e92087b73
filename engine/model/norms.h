/* The norms of a block as vectors, and where the file has them. */
#ifndef BESAD_ENGINE_NORMS_H
#define BESAD_ENGINE_NORMS_H

#include "engine/model/block.h"

/* A vector [length] of a block's norms: the last parts of its name, and where it lies on the device. In the file it is a vector,
 * a matrix of `rows`, or, of so many `heads`, a vector for each. */
struct norm_vector {
	const char *path, *kind;
	int64_t length;
	struct tensor *place;
	int64_t rows, heads;
};
enum { MAX_NORM_VECTORS = 8 };

/* The norms that the family has; their number. `block` may be NULL: then there are no places. */
int norm_vectors(const struct model_config *, struct block *, struct norm_vector ret[MAX_NORM_VECTORS]);

/* The tensors of the file that a norm's vector is made of: their number, and the i-th. */
int64_t norm_tensors(const struct norm_vector *);
struct block_vector norm_tensor(const struct norm_vector *, int64_t i);

#endif
