/* Before a job succeeds, its output is read again as it lies on disk, by the reader that a user's job would open it with:
 *
 *   - the tensors are those that the writer laid out, of the same types and shapes;
 *   - each part that was written has the checksum of what was to be written (writer_take_sums), in each shard that has it;
 *   - each tensor that nobody wrote is the input's, byte for byte;
 *   - each kind of linear of each block has the zeros that were counted when it was written, and each group of N:M has its zeros.
 * The global tune may round a weight to zero: behind it there may be more;
 *   - a few sequences of the calibration (end_loss.h) are predicted by what is in the files as they were by the walk's own end, to
 *     SELF_CHECK_TOLERANCE. Without a calibration, or in a job that an earlier besad brought through its last block, this is not
 * known and left out.
 *
 * What differs is STATUS_SELF_CHECK, and the job has failed; its files stay as those of any failed job.
 *
 * What it costs: one read of the output, the pages of which the kernel is asked to forget before, and of the input's tensors
 * that are copied; and of one to four windows one forward pass, in the same go through the model as the first evaluation where
 * that has their length and type, else in one of their own. */
#ifndef BESAD_ENGINE_SELF_CHECK_H
#define BESAD_ENGINE_SELF_CHECK_H

#include <stdatomic.h>

#include "engine/model/model.h"
#include "engine/output/writer.h"
#include "engine/prune/savepoint.h"
#include "engine/spec/spec.h"

/* So much of the loss, the logarithm of the perplexity, and of 1 where it is less. On the CPU the two are the same, to the last
 * digits; a device adds up batches of other sizes in another order, which may send a token to another expert. */
#define SELF_CHECK_TOLERANCE 0.005

struct self_check {
	const struct spec *spec;
	const struct model *model; /* the input */
	struct writer *writer;
	const struct savepoint *savepoint;
	const atomic_bool *stop;
};

/* All but the last of the above; everything that was written is synced. Other failures than differences keep their status. */
enum status self_check_files(const struct self_check *, struct error *err);

/* The last: the loss that the files give, by end_loss_sequences. */
enum status self_check_loss(const struct self_check *, double loss, struct error *err);

/* What was found to differ, or what a reader refused of an output: STATUS_SELF_CHECK, saying what to do, in the place of the
 * reader's status. */
enum status self_check_failed(enum status, struct error *err);

#endif
