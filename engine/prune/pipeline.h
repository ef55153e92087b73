/* The way of a finished block to disk, behind the walk over the blocks, and of the next block's weights from it, ahead of the walk.
 *
 * A job may be killed at any moment, and any of its writes may fail. What it has told stays told, and its next attempt goes on behind the
 * last block that was committed, with the same bytes as if nothing had happened. Comments refer to these invariants by their numbers:
 *
 *   (1) A block is committed when it is on disk, and not before: its tensors in the output's shards and the hidden states behind it are
 *       synced, then the savepoint that lists it, then the caller's commit (struct engine_sink).
 *   (2) What an attempt starts from, the hidden states in front of the first block that is not committed, stays on disk until the next
 *       block's commit has returned. So a savepoint may be one block ahead of the commit; that block is done again.
 *   (3) Everything on disk but the output's tensors gets its name only when it is whole: written under another name, synced, renamed. A
 *       tensor is written in place, over the dense weights or over the same bytes; those of a block that is not committed are written
 *       again, and never read before.
 *   (4) Blocks are committed in order, each once, and no event of a block is told before the commit of the block before it.
 *   (5) While a block is kept, nothing else writes to its masked weights and to the hidden states behind it. Those are the walk's: its
 *       block's weights change places with the spare when the next block is loaded, and its `input` is only read until the next block is
 *       finished, which waits for this one.
 *   (6) The next block's weights are fetched into the memory where the kept block's are only behind the writing of those.
 *
 * The states, of the last block that was finished:
 *
 *   PIPELINE_CLEAR --- pipeline_finish, keep ---> PIPELINE_KEPT --- pipeline_beside ---> PIPELINE_WRITING
 *    ^   |     ^                                   |                                       |
 *    |   |     +----------- pipeline_settle -------+------------- pipeline_settle ---------+
 *    +---+ pipeline_finish, at once
 *
 *   PIPELINE_CLEAR    every finished block is committed; events are told as they happen
 *   PIPELINE_KEPT     one block is finished and in memory; the walk is between it and the next one, or is loading that
 *   PIPELINE_WRITING  the background writes it (1), and then fetches the next one (6), while the walk prunes the one between. Events of
 *                     that one are held back (4), and told by the pipeline_settle that commits the block
 *
 * A failure to write, or to commit, ends the walk: the block is dropped, the state is PIPELINE_CLEAR, and (2) says where the next attempt
 * goes on. */
#ifndef BESAD_ENGINE_PIPELINE_H
#define BESAD_ENGINE_PIPELINE_H

#include "engine/model/block.h"
#include "engine/prune/background.h"
#include "engine/prune/prune.h"
#include "engine/prune/result.h"
#include "engine/prune/stream.h"

enum pipeline_state { PIPELINE_CLEAR, PIPELINE_KEPT, PIPELINE_WRITING };

/* Hidden states behind a block, which the pipeline only reads: those of the walk, the dense model's, the probe's. A stream without a
 * backend is not there. */
struct outputs {
	struct stream hidden, dense, probe;
};

struct pipeline {
	const struct pruning *p;
	struct block *block; /* the walk's */
	void *room;          /* host room for the largest linear, in the file's type */

	/* NULL where the device's memory is the host's: there the processor has its hands full, and copies beside it hold up its threads
	 * for longer than the disk does. */
	struct background *background;
	enum pipeline_state state;
	struct block_result last;
	struct tensor last_weights[FUSED_COUNT]; /* what block.weight was, and block.spare is once the next block is loaded */
	struct outputs last_outputs;
	struct event *held; /* n_held of them, and room for more */
	int n_held, room_held;
	int next; /* the block to fetch */
};

/* `block` is the walk's, and gets a spare where there is a background. On failure pipeline_destroy frees what there is. */
enum status pipeline_create(const struct pruning *, struct block *block, struct pipeline *ret, struct error *err);

/* Waits for what runs, and drops a block that is not committed. */
void pipeline_destroy(struct pipeline *);

/* Can a block be kept, to be written beside the next one? Not behind the last one. */
bool pipeline_keeps(const struct pipeline *, int index);

/* Tells an event of the running block: now, or when the block before is committed. Takes the event's data. */
enum status pipeline_tell(struct pipeline *, struct event, struct error *err);

/* Block `index` is loaded: starts what goes on beside it. Nothing may be going on. */
void pipeline_beside(struct pipeline *, int index);

/* Commits the block before if it is written already. */
enum status pipeline_poll(struct pipeline *, struct error *err);

/* Commits the block before, once it is written. */
enum status pipeline_settle(struct pipeline *, struct error *err);

/* As pipeline_settle, and waits for the fetch too. */
enum status pipeline_stop(struct pipeline *, struct error *err);

/* Writes the tensors of the running block at once, behind pipeline_stop: for a block that is not kept, whose weights in `block` are about to
 * be written over. Counts its zeros. */
enum status pipeline_write_weights(struct pipeline *, struct block_result *, struct error *err);

/* The running block is done, and nothing goes on beside it (pipeline_stop). Where `keep` is set, its weights in `block` and its outputs are
 * written and committed later (5); else its tensors are written already, and the rest is done now. Takes what is in the result. */
enum status pipeline_finish(struct pipeline *, struct block_result *, const struct outputs *, bool keep, struct error *err);

#endif
