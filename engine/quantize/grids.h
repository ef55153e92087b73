/* The grids of a block's weights on the host, as they are stored: what a packed output is written with, while the quantizer goes
 * on. */
#ifndef BESAD_ENGINE_GRIDS_H
#define BESAD_ENGINE_GRIDS_H

#include "engine/quantize/quantizer.h"

struct grids {
	int bits;                    /* 0: there are none */
	enum dtype type;             /* of steps */
	int64_t groups[FUSED_COUNT]; /* of a row */
	void *steps[FUSED_COUNT];    /* [rows, groups] */
	uint8_t *zeros[FUSED_COUNT]; /* [rows, groups]: the code of 0, from 0 to 2^bits − 1; NULL where all are 2^(bits − 1) */
};

/* Those that the block's weights were brought to. The caller frees them with grids_release; on failure there is nothing to free. */
enum status grids_take(const struct quantizer *, struct grids *ret, struct error *err);
void grids_release(struct grids *);

#endif
