/* Adam on a block's masters and vectors, for whoever trains them. A product's gradient is made some rows at a time and used up
 * at once: beside the weights in F32 and their two moments no more is in memory. What is zero stays zero. */
#ifndef BESAD_ENGINE_TRAINER_H
#define BESAD_ENGINE_TRAINER_H

#include "engine/model/block.h"

struct trainer {
	const struct block *block;
	bool stores;                     /* block->active gets what would be stored of the weights, with each step */
	struct tensor gradient, rounded; /* room for rows of a product: F32; the file's type, where it is wanted */
	struct adamw adam;               /* of the step that runs */
};

/* On failure trainer_release frees what there is. */
enum status trainer_create(const struct block *, bool stores, struct trainer *ret, struct error *err);
void trainer_release(struct trainer *);

/* A step begins; steps count from 0. */
void trainer_step(struct trainer *, double rate, int64_t step);

/* What a backward trains: F32, each as block->weight. */
struct training {
	const struct trainer *trainer;
	const struct tensor *master, *m, *v; /* [FUSED_COUNT] */
};

/* A product_gradient_fn, with a struct training as its context. An expert that got no token has no gradient, and stays. */
enum status trainer_product(void *training, int product, const struct product_gradient *);

/* The same of a vector; one whose gradient has no data stays. Fills the backend's error. */
enum status trainer_vector(const struct trainer *, struct tensor values, struct tensor m, struct tensor v, struct tensor gradient);

#endif
