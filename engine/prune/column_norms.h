/* An observer: the squared column norms of the inputs of each product, which Wanda's importance is made of (besa.md 1.1). */
#ifndef BESAD_ENGINE_COLUMN_NORMS_H
#define BESAD_ENGINE_COLUMN_NORMS_H

#include "engine/model/block.h"

struct column_norms {
	struct backend *backend;
	const struct block_layout *layout;
	void **sums;     /* per product: device F64 [cols] */
	int64_t *tokens; /* per product: the rows that it has seen */
};

enum status column_norms_create(const struct block *, struct column_norms *ret, struct error *err);
void column_norms_release(struct column_norms *);

/* These fill backend->error. */
enum status column_norms_reset(struct column_norms *);
enum status column_norms_observe(struct column_norms *, int product, struct tensor x);

#endif
