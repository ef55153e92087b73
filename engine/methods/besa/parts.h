/* What is reconstructed at once (`besa.reconstruct`): the block, its halves, or the linears that read one input. The rates in a
 * part are learned together, by its own loss, and one part after the other: the later ones see what the earlier have become.
 *
 * A part but the whole block is to give what its dense weights give on the same inputs. By layer that is each linear's own
 * product, without its bias, which nothing is taken from: no output depends on two linears of one input, so that they are
 * learned at the same time. */
#ifndef BESAD_ENGINE_BESA_PARTS_H
#define BESAD_ENGINE_BESA_PARTS_H

#include "engine/methods/besa/groups.h"

struct besa;

struct part {
	enum fused first, last;
	int64_t group, groups; /* of the rates: the first one's, and how many */
	double params;         /* weights */
	int losses;            /* that are added up: 1, or, of experts by layer, one for each */
};

/* The parts of a block, in order; their number. */
int parts_find(const struct spec *, const struct block_layout *, const struct groups *, struct part ret[FUSED_COUNT]);

/* In forward passes of the calibration through a block, what an epoch of learning takes. */
double parts_work(const struct spec *);

/* What a step needs room for: the rows and columns of a part's outputs, of batches of so many rows of tokens. */
void parts_room(const struct spec *, const struct block *, int64_t tokens, int64_t *ret_rows, int64_t *ret_cols);

/* Of a part of a block: brings besa->part's rates up to date and its masks into block->active, runs it, and leaves its loss in
 * besa->stats and the gradient in besa->sums. `input`: of the block, F32 [count · tokens, H]. Fills backend->error. */
enum status parts_gradient(struct besa *, struct tensor input, int64_t count);

#endif
