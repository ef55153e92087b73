/* What a job keeps in its checkpoint directory to go on after a crash:
 *
 *   savepoint.json   a checksum of all the rest of it, its format, the spec, what was known of the inputs and the settings that
 * were resolved at the start (backend, threads, precision), dense perplexities, what each block was allotted, the block.finished
 * data of every block on disk, and whether the global tune is over hidden-K.bin     the inputs of block K (stream.c has the
 * format); dense-K.bin, with target dense_stream, the dense model's; probe-K.bin those of the progress perplexity tune.bin the
 * state of the global tune (engine/tune/tune.h) latents.bin      of a quantized model, until there is tune.bin: the weights before
 * they were rounded (engine/tune/latents.h)
 *
 * Both are replaced by rename after an fsync, hidden states first, so a savepoint that speaks of K blocks has hidden-K.bin
 * beside it. Where not every block is saved, it may be behind the caller's commits; it may be one block ahead of them
 * (engine/prune/pipeline.h). */
#ifndef BESAD_ENGINE_SAVEPOINT_H
#define BESAD_ENGINE_SAVEPOINT_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/file.h"

/* Of savepoint.json. 2 added `inputs`, 3 `allocation`, and is written where there is one: who does not know it would go on
 * without. A newer one is refused and left as it is. */
enum { SAVEPOINT_FORMAT = 3, SAVEPOINT_FORMAT_UNIFORM = 2 };

struct savepoint {
	const char *directory;
	bool found; /* an earlier attempt left one */
	char backend[16], precision[8];
	int threads;
	char calibration_hash[17]; /* hex; "" before calibration data was read */
	cJSON *dense;              /* {dataset: perplexity} */
	cJSON *dense_tasks;        /* {task: score} */
	double probe_dense;        /* the dense model's perplexity on the sequences of the progress perplexity; NaN for none */
	cJSON *allocation;         /* [zeros of each block]; NULL for none (engine/prune/allocate.h) */
	cJSON *blocks;             /* [block.finished data] */
	cJSON *findings;           /* [data of warnings that are of a rule of engine/job/diagnosis.h] */
	cJSON *written;  /* what is known of each part of the output that blocks, or the tune, have written (writer_take_sums); NULL
			    where an earlier besad began the job, which did not note it */
	double end_loss; /* of the pruned model, by the walk's own end (engine/prune/end_loss.h); NaN for none */
	bool tuned;      /* the global tune is over, and the output has what it came to (engine/tune/tune.h) */
	cJSON *inputs;   /* what was known of them when the job began (engine/job/inputs.h); NULL in savepoints of format 1 */
};

/* Reads a savepoint.json as JSON, of whatever job. One that has a checksum, as all have but those of an earlier besad, is
 * STATUS_INVALID where that is not its text's. *ret is freed with cJSON_Delete. */
enum status savepoint_read(const char *path, cJSON **ret, struct error *err);
enum status savepoint_read_open(const struct file *, cJSON **ret, struct error *err);

/* Reads the directory's savepoint; a fresh one (found is false) when there is none. `spec` is the job's, as JSON: a savepoint of
 * another spec, in a field that both have, is STATUS_INVALID, one that is gone though there are `blocks_done` STATUS_NOT_FOUND. */
enum status savepoint_load(const char *directory, const cJSON *spec, int blocks_done, struct savepoint *ret, struct error *err);
enum status savepoint_save(const struct savepoint *, const cJSON *spec, struct error *err);
void savepoint_free(struct savepoint *);

/* In which format it is written. */
int savepoint_format(const struct savepoint *);

/* How many blocks are done, and saved where the savepoint is as it was loaded: the next one goes on from hidden-K.bin. */
int savepoint_blocks(const struct savepoint *);

/* "<directory>/<kind>-<block>.bin" */
void savepoint_path(const struct savepoint *, const char *kind, int block, char path[4096]);

/* Removes the files of hidden states, whole or not, but those in front of `block`: all that it can, and the first error is told. */
enum status savepoint_sweep(const struct savepoint *, int block, struct error *err);

#endif
