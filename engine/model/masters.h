/* What may change of a block's weights while it is pruned: its linears, in F32, and its vectors. What is stored of them has the
 * file's types: both are rounded to these before anything is computed that is to show what the stored block does. */
#ifndef BESAD_ENGINE_MASTERS_H
#define BESAD_ENGINE_MASTERS_H

#include "engine/model/block.h"

/* Room for block->master, which has no data before: the caller may have taken it. block_release frees it. */
enum status block_add_masters(struct block *, struct error *err);

/* master = weight; and weight = master, rounded. Both fill block->backend->error. */
enum status block_load_masters(struct block *);
enum status block_store_masters(struct block *);

/* A vector as it is stored. */
struct stored_vector {
	const char *tensor; /* the file's name of it; the checkpoint's */
	void *data;         /* host, in the file's type */
	size_t bytes;
};

struct stored_vectors {
	struct stored_vector *items;
	int count;
};

/* Rounds all vectors of block `index`, which is loaded: on the device they are then what is stored. With masters only. *ret is
 * freed with stored_vectors_release. */
enum status block_store_vectors(struct block *, const struct model *, int index, struct stored_vectors *ret, struct error *err);
void stored_vectors_release(struct stored_vectors *);

#endif
