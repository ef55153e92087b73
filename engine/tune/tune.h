/* The global tune, behind the walk over the blocks: Adam on the weights that are kept, the norms and the biases of the whole
 * model, until its logits on the calibration are the dense model's, as near as they get. The loss is KL(dense ‖ pruned), its
 * mean over the tokens. Embeddings, head and routers stay; what is zero stays zero.
 *
 * It does not end worse than it began: the loss of some sequences is taken before the first step and behind the last, and where
 * it has risen, or a step's is no number, the output stays as the walk has left it, with a warning.
 *
 * Weights that are quantized are trained through the rounding: forward and back by the weights on their grids, whose extremes they
 * give, the gradient straight through. The state has the weights themselves, and begins with those that the walk rounded
 * (latents.h).
 *
 * Else it starts from what the output holds: the stored weights of all blocks. A job may be killed at any moment; as the walk's
 * (pipeline.h), its next attempt comes to the same bytes:
 *
 *   (1) Nothing of the output is written before the tuned weights are whole on disk: tune.bin in the job's directory, with all
 * steps done, written under another name, synced, renamed. (2) Before that, tune.bin is the state behind one of the steps, saved
 * now and then, and when the tune is stopped. A tune goes on from it, and else starts from the output, which is as the walk has
 * left it. (3) Where tune.bin has all steps, and the loss behind them is the lower, the output's tensors are written from it, once
 * more if need be. Until they are synced, and savepoint.json says that the model is tuned, nothing reads them: they may be anything
 * after a crash. (4) Behind that tune.bin goes. */
#ifndef BESAD_ENGINE_TUNE_H
#define BESAD_ENGINE_TUNE_H

#include "engine/prune/prune.h"

bool tune_wanted(const struct spec *);

/* The work of it, as progress counts it: in forward passes of a token through a block. */
double tune_work(const struct spec *, const struct model_config *);

/* Bytes of files in a job's directory that it takes at most, beside those of the walk, `before`, and while it runs; `params`:
 * weights of a block. */
int64_t tune_disk_bytes(const struct spec *, const struct model_config *, int64_t params, int64_t before);

/* Tunes the model, unless the savepoint says that it is tuned. All blocks are pruned, and the output is open (struct
 * pruning.writer). */
enum status tune_model(const struct pruning *, const struct sequences *calibration, struct error *err);

/* Takes, on a dry backend, the memory that tune_model takes. */
enum status tune_rehearse(const struct pruning *, struct error *err);

#endif
