/* File format: "BESATUN2", then I64 step, steps, bytes, F64 before, after, U32 CRC-32 of the parts in host byte order, padding
 * to 64 bytes, then the parts one behind the other: F32 of the machine that reads it again. */
#include "engine/tune/state.h"
#include "engine/model/fixed.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "base/file.h"
#include "base/place.h"

enum { HEADER_BYTES = 64, PIECE_BYTES = 4 << 20 };

static enum status failed(const struct state *state, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = state->backend->error;
	return status;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static enum status allocate_zeros(struct state *state, struct tensor like, struct tensor *ret)
{
	like.data = NULL;
	TRY(state->backend->ops->alloc(state->backend, tensor_bytes(&like), &like.data));
	*ret = like;
	return state->backend->ops->zero(state->backend, ret->data, tensor_bytes(ret));
}

/* Takes a tensor of the block's, which gets another when it is loaded again. */
static struct tensor take(struct tensor *tensor)
{
	struct tensor taken = *tensor;
	*tensor = (struct tensor){0};
	return taken;
}

static enum status create_moments(struct state *state, struct tuned_block *tuned)
{
	struct backend *backend = state->backend;
	for (int f = 0; f < state->block.layout.n_fused; f++) {
		TRY(allocate_zeros(state, tuned->master[f], &tuned->m[f]));
		TRY(allocate_zeros(state, tuned->master[f], &tuned->v[f]));
	}
	TRY(backend->ops->zero(backend, tuned->vectors.memory, tuned->vectors.bytes)); /* what lies between them is saved too */
	TRY(backend->ops->zero(backend, tuned->vector_m.memory, tuned->vector_m.bytes));
	return backend->ops->zero(backend, tuned->vector_v.memory, tuned->vector_v.bytes);
}

static enum status create_block(struct state *state, const struct model *from, int index, struct error *err)
{
	struct tuned_block *tuned = &state->blocks[index];
	struct block *block = &state->block;
	struct vectors *const vectors[] = {&tuned->vectors, &tuned->vector_m, &tuned->vector_v};
	TRY(block_load(block, from, index, err));
	TRY(block_add_masters(block, err));
	enum status status = block_load_masters(block);
	for (int f = 0; f < FUSED_COUNT; f++)
		tuned->master[f] = take(&block->master[f]);
	TRY(failed(state, status, err));
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		TRY(vectors_create(block, vectors[i], err));
	TRY(failed(state, create_moments(state, tuned), err));
	TRY(failed(state, vectors_keep(block, &tuned->vectors), err));
	tuned->fixed = block->fixed;
	block->fixed = (struct fixed_weights){0};
	return STATUS_OK;
}

enum status state_create(const struct model *model, const struct model *from, struct backend *backend, enum dtype compute_type,
			 int64_t tokens, int64_t length, struct state *ret, struct error *err)
{
	int layers = (int)model->config.layers;
	*ret = (struct state){.backend = backend, .before = NAN, .after = NAN};
	ret->blocks = calloc((size_t)layers, sizeof *ret->blocks);
	if (!ret->blocks) return error_set(err, STATUS_NO_MEMORY, "no memory for %d blocks", layers);
	TRY(block_create(model, backend, compute_type, length, &ret->block, err));
	for (int i = 0; i < layers; i++)
		TRY(create_block(ret, from, i, err));
	return end_create(model, from, backend, compute_type, tokens, &ret->end, err);
}

static void release_block(struct state *state, struct tuned_block *tuned)
{
	struct backend *backend = state->backend;
	struct vectors *const vectors[] = {&tuned->vectors, &tuned->vector_m, &tuned->vector_v};
	for (int f = 0; f < FUSED_COUNT; f++) {
		backend->ops->release(backend, tuned->master[f].data);
		backend->ops->release(backend, tuned->m[f].data);
		backend->ops->release(backend, tuned->v[f].data);
	}
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		vectors_release(vectors[i], backend);
	fixed_release(backend, &tuned->fixed);
}

/* What state_enter has lent the block is the state's again. */
static void leave(struct state *state)
{
	memset(state->block.master, 0, sizeof state->block.master);
	state->block.fixed = (struct fixed_weights){0};
}

void state_release(struct state *state)
{
	if (!state->backend) return;
	if (state->block.config) {
		for (int i = 0; i < state->block.config->layers; i++)
			release_block(state, &state->blocks[i]);
		if (state->entered) leave(state);
		block_release(&state->block);
	}
	end_release(&state->end);
	free(state->blocks);
	*state = (struct state){0};
}

enum status state_enter(struct state *state, int index)
{
	const struct tuned_block *tuned = &state->blocks[index];
	struct block *block = &state->block;
	if (!state->entered) fixed_release(state->backend, &block->fixed); /* of a block that was loaded */
	memcpy(block->master, tuned->master, sizeof block->master);
	block->fixed = tuned->fixed;
	block_set_index(block, index);
	state->entered = true;
	TRY(vectors_restore(block, &tuned->vectors));
	TRY(block_store_masters(block));
	return block_activate_dense(block);
}

/* ---- to a file and back ------------------------------------------------------------------------------------------------------ */

/* A part of the state on the device. */
struct part {
	void *data;
	size_t bytes;
};
enum { BLOCK_PARTS = 3 * FUSED_COUNT + 3, END_PARTS = 3 * END_VECTORS };

static struct part part_of(const struct tensor *tensor)
{
	return (struct part){tensor->data, tensor->data ? tensor_bytes(tensor) : 0};
}

static int parts_of(const struct state *state, struct part *parts)
{
	int n = 0;
	for (int i = 0; i < state->block.config->layers; i++) {
		const struct tuned_block *tuned = &state->blocks[i];
		const struct vectors *const vectors[] = {&tuned->vectors, &tuned->vector_m, &tuned->vector_v};
		for (int f = 0; f < FUSED_COUNT; f++) {
			parts[n++] = part_of(&tuned->master[f]);
			parts[n++] = part_of(&tuned->m[f]);
			parts[n++] = part_of(&tuned->v[f]);
		}
		for (size_t k = 0; k < sizeof vectors / sizeof *vectors; k++)
			parts[n++] = (struct part){vectors[k]->memory, vectors[k]->bytes};
	}
	for (int i = 0; i < END_VECTORS; i++) {
		const struct tuned_vector *vector = &state->end.norm[i];
		parts[n++] = part_of(&vector->values);
		parts[n++] = part_of(&vector->m);
		parts[n++] = part_of(&vector->v);
	}
	return n;
}

/* On its way between the device and a file. */
struct transfer {
	const struct state *state;
	const struct file *file;
	char *room; /* host memory for a piece; NULL where the device's memory is the host's */
	int64_t at; /* in the file */
	uLong crc;  /* of what is in front of that */
	bool save;
};

static enum status move_piece(struct transfer *t, char *device, size_t bytes, struct error *err)
{
	struct backend *backend = t->state->backend;
	char *host = t->room ? t->room : device;
	if (t->save && t->room) TRY(failed(t->state, backend->ops->download(backend, host, device, bytes), err));
	TRY(t->save ? file_write(t->file, host, bytes, t->at, err) : file_read(t->file, host, bytes, t->at, err));
	t->crc = crc32_z(t->crc, (const Bytef *)host, bytes);
	if (!t->save && t->room) TRY(failed(t->state, backend->ops->upload(backend, device, host, bytes), err));
	t->at += (int64_t)bytes;
	return STATUS_OK;
}

static enum status move_part(struct transfer *t, const struct part *part, struct error *err)
{
	for (size_t at = 0, bytes; at < part->bytes; at += bytes) {
		bytes = part->bytes - at < PIECE_BYTES ? part->bytes - at : PIECE_BYTES;
		TRY(move_piece(t, (char *)part->data + at, bytes, err));
	}
	return STATUS_OK;
}

/* The parts, and room for a piece; frees both when the transfer is over. */
struct moving {
	struct part *parts;
	int n;
	int64_t bytes; /* of the file */
	char *room;
};

static void end_moving(struct moving *moving)
{
	free(moving->parts);
	free(moving->room);
}

static enum status begin_moving(const struct state *state, struct moving *ret, struct error *err)
{
	size_t room = (size_t)state->block.config->layers * BLOCK_PARTS + END_PARTS;
	struct moving moving = {.bytes = HEADER_BYTES, .parts = malloc(room * sizeof *moving.parts)};
	bool whole = moving.parts;
	if (!state->backend->unified) {
		moving.room = malloc(PIECE_BYTES);
		whole = whole && moving.room;
	}
	if (!whole) {
		end_moving(&moving);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the state of a tune");
	}
	moving.n = parts_of(state, moving.parts);
	for (int i = 0; i < moving.n; i++)
		moving.bytes += (int64_t)moving.parts[i].bytes;
	*ret = moving;
	return STATUS_OK;
}

/* What a file begins with. */
struct header {
	char magic[8];
	int64_t step, steps, bytes;
	double before, after;
	uint32_t crc32;
	char padding[HEADER_BYTES - 52];
};

static struct header header_of(const struct state *state, int64_t bytes, uint32_t crc)
{
	return (struct header){"BESATUN2", state->step, state->steps, bytes, state->before, state->after, crc, ""};
}

static enum status move_all(const struct state *state, const struct moving *moving, const struct file *file, bool save,
			    uint32_t *ret_crc, struct error *err)
{
	struct transfer transfer = {.state = state, .file = file, .room = moving->room, .at = HEADER_BYTES, .save = save};
	if (!moving->room) TRY(failed(state, state->backend->ops->sync(state->backend), err));
	for (int i = 0; i < moving->n; i++)
		TRY(move_part(&transfer, &moving->parts[i], err));
	*ret_crc = (uint32_t)transfer.crc;
	return STATUS_OK;
}

static enum status write_file(const struct state *state, const struct moving *moving, const char *path, struct error *err)
{
	struct file file;
	uint32_t crc = 0;
	TRY(file_create(path, moving->bytes, &file, err));
	enum status status = move_all(state, moving, &file, true, &crc, err);
	const struct header header = header_of(state, moving->bytes, crc);
	if (status == STATUS_OK) status = file_write(&file, &header, sizeof header, 0, err);
	if (status == STATUS_OK) status = file_sync(&file, err);
	file_close(&file);
	return status;
}

enum status state_save(const struct state *state, const char *path, struct error *err)
{
	char temporary[4096];
	struct moving moving;
	if (snprintf(temporary, sizeof temporary, "%s.new", path) >= (int)sizeof temporary)
		return error_set(err, STATUS_INVALID, "path too long: %s", path);
	TRY(begin_moving(state, &moving, err));
	enum status status = write_file(state, &moving, temporary, err);
	end_moving(&moving);
	if (status == STATUS_OK) status = place_rename(&PLACE(temporary), NULL, &PLACE(path), NULL, PLACE_REPLACE, err);
	if (status != STATUS_OK) unlink(temporary);
	return status;
}

static enum status read_file(struct state *state, const struct moving *moving, const struct file *file, struct error *err)
{
	const struct header wanted = header_of(state, moving->bytes, 0);
	struct header header;
	uint32_t crc = 0;
	TRY(file_read(file, &header, sizeof header, 0, err));
	bool unchecked = memcmp(header.magic, "BESATUN1", sizeof header.magic) == 0; /* of an earlier besad */
	if ((!unchecked && memcmp(header.magic, wanted.magic, sizeof header.magic) != 0) || header.steps != wanted.steps ||
	    header.bytes != wanted.bytes || header.step < 0 || header.step > header.steps || file->size != moving->bytes)
		return error_set(err, STATUS_INVALID, "%s: not the state of the tune that this job needs; submit the job again",
				 file->path);
	TRY(move_all(state, moving, file, false, &crc, err));
	if (!unchecked && crc != header.crc32)
		return error_set(err, STATUS_INVALID,
				 "%s: is damaged: its checksum is %08x, and was %08x when it was written; the job cannot go on "
				 "from it: look "
				 "after the disk, and submit the job again",
				 file->path, crc, header.crc32);
	state->step = header.step;
	state->before = header.before;
	state->after = header.after;
	return STATUS_OK;
}

enum status state_load(struct state *state, const char *path, struct error *err)
{
	struct file file;
	struct moving moving;
	TRY(begin_moving(state, &moving, err));
	enum status status = file_open_read(path, &file, err);
	if (status == STATUS_OK) {
		status = read_file(state, &moving, &file, err);
		file_close(&file);
	}
	end_moving(&moving);
	return status;
}
