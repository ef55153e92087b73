/* The way of a finished block to disk, behind the walk over the blocks, and of the next block's weights from it, ahead of the walk.
 *
 * A job may be killed at any moment, and any of its writes may fail. What it has told stays told, and its next attempt goes on
 * behind the last block that was saved, with the same bytes as if nothing had happened. A block is finished when its tensors are
 * written and the caller has committed it (struct engine_sink); it is saved when the job can go on behind it. Where saving each
 * block would set the pace, several are saved at once (`due`); a walk that is stopped, or fails, saves what is finished before
 * it ends (pipeline_save), so that only a crash, or a device that is lost, costs more than the running block. Comments refer to
 * these invariants by their numbers:
 *
 *   (1) A save covers all finished blocks. Before savepoint.json, which lists them, is renamed into place, the tensors of all of
 * them and the hidden states behind the last one are synced, these under their names. (2) What the savepoint says the job goes on
 * from stays on disk until the next savepoint is there, and what that one adds is committed. (3) Everything on disk but the
 * output's tensors gets its name only when it is whole: written under another name, synced, renamed. A tensor is written in place,
 * over the dense weights or over the same bytes. Those of a block that is not saved may be anything after a crash: they are written
 * again, from the model's own, and not read before. (4) Blocks are committed in order, each once, and no event of a block is told
 * before the commit of the block before it. A block that is saved is committed right behind the savepoint. (5) So the savepoint is
 * ahead of the commits by one block at most, and behind them by any number. Ahead: a crash came between the two, and the commit is
 * made up for before the first block of the next attempt (pipeline_catch_up). Behind: blocks were finished and not saved; they are
 * done again, and committing them again, before they are saved, compares what is told with what was told (struct engine_sink). (6)
 * While a block is kept, nothing else writes to its masked weights and to the hidden states behind it. Those are the walk's: its
 *       block's weights change places with the spare when the next block is loaded, and its `input` is only read until the next
 * block is finished, which waits for this one. So `last_outputs` last longer than the block is kept: until the next block is
 * finished, or the walk says that it writes over them (pipeline_forget). A block behind which they do not last is saved at once.
 *   (7) The next block's weights are fetched into the memory where the kept block's are only behind the writing of those.
 *
 * The states, of the last block that was finished:
 *
 *   PIPELINE_CLEAR --- pipeline_finish, keep ---> PIPELINE_KEPT --- pipeline_beside ---> PIPELINE_WRITING
 *    ^   |     ^                                   |                                       |
 *    |   |     +----------- pipeline_settle -------+------------- pipeline_settle ---------+
 *    +---+ pipeline_finish, at once; pipeline_save
 *
 *   PIPELINE_CLEAR    every finished block is committed; events are told as they happen
 *   PIPELINE_KEPT     one block is done and in memory; the walk is between it and the next one, or is loading that
 *   PIPELINE_WRITING  the background writes it, and the hidden states behind it if it is to be saved (1), and then fetches the next
 * one (7), while the walk prunes the one between. Events of that one are held back (4), and told by the pipeline_settle that
 *                     commits the block
 *
 * A failure to write, or to commit, ends the walk: the block is dropped, the state is PIPELINE_CLEAR, nothing more is saved, and
 * (2) says where the next attempt goes on. */
#ifndef BESAD_ENGINE_PIPELINE_H
#define BESAD_ENGINE_PIPELINE_H

#include "engine/model/block.h"
#include "engine/prune/background.h"
#include "engine/prune/prune.h"
#include "engine/prune/result.h"
#include "engine/prune/stream.h"

enum pipeline_state { PIPELINE_CLEAR, PIPELINE_KEPT, PIPELINE_WRITING };

/* Hidden states behind a block, which the pipeline only reads: those of the walk, the dense model's, the probe's. A stream
 * without a backend is not there. */
struct outputs {
	struct stream hidden, dense, probe;
};

struct pipeline {
	const struct pruning *p;
	struct block *block; /* the walk's */
	void *room;          /* host room for a linear, layout_room: */
	int64_t room_bytes;

	/* NULL where the device's memory is the host's: there the processor has its hands full, and copies beside it hold up its
	 * threads for longer than the disk does. */
	struct background *background;
	enum pipeline_state state;
	struct block_result last;
	struct tensor last_weights[FUSED_COUNT]; /* what block.weight was, and block.spare is once the next block is loaded */
	struct outputs last_outputs;
	struct event *held; /* n_held of them, and room for more */
	int n_held, room_held;
	int next; /* the block to fetch */

	double every;     /* seconds between two saves; 0: each block is saved */
	double last_save; /* monotonic time */
	bool save;        /* `last` is to be saved */
	int done, saved;  /* blocks that are committed, and what the savepoint on disk has of them */
	bool intact;      /* `last_outputs` are behind the last block that is committed */
};

/* Makes up for the commits that the savepoint has blocks for, and removes the hidden states that it does not go on from (5, 2).
 * Before the first block of an attempt. */
enum status pipeline_catch_up(const struct pruning *, struct error *err);

/* `block` is the walk's, and gets a spare where there is a background. On failure pipeline_destroy frees what there is. */
enum status pipeline_create(const struct pruning *, struct block *block, struct pipeline *ret, struct error *err);

/* Bytes of files that a job's savepoints take at most: while one is written, the one before is there (2). `probed`: sequences of
 * the probe. */
int64_t pipeline_disk_bytes(const struct model *, const struct spec *, int64_t probed);

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

/* Writes the tensors of the running block at once, behind pipeline_stop: for a block that is not kept, whose weights in `block`
 * are about to be written over. Counts its zeros. */
enum status pipeline_write_weights(struct pipeline *, struct block_result *, struct error *err);

/* The walk is about to write over what is behind the block before: if the running block is not finished, nothing more can be
 * saved. */
void pipeline_forget(struct pipeline *);

/* How a block is brought to disk. */
struct way {
	bool keep;    /* beside the next block; else its tensors are written already, and the rest is done now */
	bool lasting; /* its outputs stay as they are until the next block is finished; else it is saved at once */
};

/* The running block is done, and nothing goes on beside it (pipeline_stop). Takes what is in the result. */
enum status pipeline_finish(struct pipeline *, struct block_result *, const struct outputs *, struct way, struct error *err);

/* Saves the blocks that are finished, where they are not saved yet. Nothing may go on beside (pipeline_stop). */
enum status pipeline_save(struct pipeline *, struct error *err);

#endif
