/* The weights of all blocks as the walk had them before it rounded them to their grids, F32, and, where it was learned, how
 * strongly their groups are clipped: what the global tune of a quantized model begins with, whose output has the rounded ones.
 *
 * They are in one file, latents.bin in the job's directory, a section for each block. A section is synced before the savepoint that
 * has its block (engine/prune/pipeline.h, 1), and may be anything before; written again, it is the same. */
#ifndef BESAD_ENGINE_LATENTS_H
#define BESAD_ENGINE_LATENTS_H

#include "engine/prune/savepoint.h"
#include "engine/quantize/quantizer.h"

/* Whether a job keeps them: what it tunes as a whole is rounded. */
bool latents_wanted(const struct spec *);

enum status latents_path(const struct savepoint *, char path[4096], struct error *err);

/* Of block `index` of `layers`, whose masters are not rounded yet. The file is made where it is not there. */
enum status latents_save(const struct block *, const struct quantizer *, int index, int64_t layers, const char *path,
			 struct error *err);

/* Back into masters and strengths, [FUSED_COUNT], of the shapes that they had. STATUS_INVALID where the section is damaged, or of
 * other sizes. */
enum status latents_load(struct backend *, const struct tensor *master, const struct tensor *strength, int index, const char *path,
			 struct error *err);

#endif
