/* How many weights each linear of a block loses, or each row: as many of each, or what BESA learns. */
#ifndef BESAD_ENGINE_ADMM_BUDGETS_H
#define BESAD_ENGINE_ADMM_BUDGETS_H

#include "engine/methods/admm/settings.h"
#include "engine/methods/method.h"

struct budgets {
	struct method_setup setup;
	enum admm_rates rates;
	void *besa;      /* the method's state, where it learns */
	int64_t *zeros;  /* [layout.n_linears]; they add up to the block's */
	int32_t *of_row; /* [layout.rows], which add up to the linear's; where rows have budgets of their own */
	int32_t *now;    /* [layout.rows], host: for a cut */
	void *device;    /* I32 [layout.rows]: the same */
};

enum status budgets_create(const struct method_setup *, enum admm_rates, struct budgets *ret, struct error *err);
void budgets_release(struct budgets *); /* takes one that is zeroed, or was not created whole */

/* As those of struct method: what is learned from looks on too. */
enum status budgets_begin(struct budgets *);
enum status budgets_observe(struct budgets *, int product, struct tensor x);

/* Fills the budgets of the block of the task, whose weights stay as they are; `rates` [layout.rows], host, gets the share that
 * each row, or the linear it is of, is to lose. */
enum status budgets_find(struct budgets *, const struct block_task *, float *rates, struct error *err);

/* What goes of a linear when `part` of its budget does. Valid until the next call. Fills the backend's error. */
enum status budgets_cut(struct budgets *, int linear, double part, struct cut *ret);

/* In forward passes, what learning takes. */
double budgets_work(const struct spec *, enum admm_rates);

#endif
