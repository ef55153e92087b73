/* How many cycles an accelerator with an array of 64 × 64 processing elements (PEs), ViTCoD's (arXiv 2210.09573), takes for the
 * product of a pruned linear and one vector. A model, not a measurement: docs/hardware.md states it, and what BESA's paper
 * (arXiv 2402.16880) reports of it.
 *
 * A matrix W [out, in] is split by columns. Those with more than t · out weights that are not zero, g of them, are dense: they are
 * computed whole. Of the others only what is not zero is computed, n weights in all. Both parts run at once, each on PE columns of
 * its own, which are shared out by work:
 *
 *   dw = ⌊64 · g·out / (g·out + n)⌋     sw = 64 − dw     cycles = max(dense, ⌈n / (64·sw)⌉)
 *
 * t begins at 0.5 and goes up by 0.1 where the dense columns hold 60 % or more of all that is not zero, down by 0.1 where they hold
 * 40 % or less; the fifth try, or one between, is the last, and the least cycles of all tries count. A matrix may be cut into
 * patches of columns, which are computed one after the other, each with a split of its own.
 *
 * sw = 0 where nothing is left for the sparse part, which takes no cycles then; dw = 0 where the dense columns are less than a
 * 64th of the work, and what that means depends on the variant. */
#ifndef BESAD_ENGINE_HARDWARE_VITCOD_H
#define BESAD_ENGINE_HARDWARE_VITCOD_H

#include "engine/hardware/nonzeros.h"

enum vitcod_variant {
	/* As BESA's published code counts: dense = ⌈in·g / (64·dw)⌉, with the inputs in the place of the outputs, and nothing
	 * where dw is 0, as if the dense columns needed not to be computed. */
	VITCOD_PUBLISHED,

	/* dense = ⌈out·g / (64·dw)⌉; where dw is 0 the dense columns are computed with the others. */
	VITCOD_CORRECTED,

	/* As VITCOD_CORRECTED, and with what else takes time:
	 * - rows do not have the same number of weights. They are taken 64 at a time, a row for each line of PEs, and the next 64
	 *   begin when the fullest row is done: dense = ⌈out/64⌉ · ⌈g/dw⌉, sparse = Σ over the groups of rows of ⌈most weights of a
	 *   row / sw⌉;
	 * - weights, input and output cross the memory bus, 153.6 bytes a cycle (76.8 GB/s at 500 MHz, as in the published code),
	 *   while the PEs compute: cycles = max(compute, transfer). Dense columns are stored whole, the others as a bitmap and the
	 *   weights that are not zero, and a bit of each column says which it is. The vectors' elements are as wide as weights. */
	VITCOD_MEMORY,

	VITCOD_VARIANTS
};

struct vitcod_cycles {
	int64_t cycles;
	int64_t compute, transfer; /* of VITCOD_MEMORY, of which `cycles` is the larger, patch by patch */
};

struct vitcod_cost {
	struct vitcod_cycles pruned[VITCOD_VARIANTS];
	struct vitcod_cycles dense[VITCOD_VARIANTS]; /* of a matrix of the same shape without zeros, all of it dense */
};

/* `patch`: columns of a patch, at least 1; the last one may have fewer. `width`: bytes of a weight. */
enum status vitcod_simulate(const struct nonzeros *, int64_t patch, int width, struct vitcod_cost *ret, struct error *err);

/* Adds the cycles of another linear, which comes after it. */
void vitcod_add(struct vitcod_cost *sum, const struct vitcod_cost *cost);

#endif
