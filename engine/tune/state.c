/* File format: "BESATUN2", then I64 step, steps, bytes, F64 before, after, U32 CRC-32 of the parts in host byte order, padding
 * to 64 bytes, then the parts one behind the other: F32 of the machine that reads it again. */
#include "engine/tune/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/place.h"
#include "engine/model/fixed.h"
#include "engine/tune/latents.h"
#include "engine/tune/parts.h"

enum { HEADER_BYTES = 64 };

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

/* Room for how strongly groups are clipped, where that is learned. */
static enum status allocate_strengths(struct state *state, struct tuned_block *tuned)
{
	const struct quantizer *quantizer = &state->quantizer;
	for (int f = 0; f < state->block.layout.n_fused; f++) {
		struct tensor shape = quantizer->steps[f];
		if (!quantizer->symmetric) shape = tensor_make(NULL, shape.rows, 2 * shape.cols, DTYPE_F32);
		TRY(allocate_zeros(state, shape, &tuned->strength[f]));
	}
	return STATUS_OK;
}

static enum status create_block(struct state *state, struct state_source source, bool clips, int index, struct error *err)
{
	struct tuned_block *tuned = &state->blocks[index];
	struct block *block = &state->block;
	struct vectors *const vectors[] = {&tuned->vectors, &tuned->vector_m, &tuned->vector_v};
	TRY(block_load(block, source.from, index, err));
	TRY(block_add_masters(block, err));
	enum status status = source.latents ? STATUS_OK : block_load_masters(block);
	if (status == STATUS_OK && clips) status = allocate_strengths(state, tuned);
	for (int f = 0; f < FUSED_COUNT; f++)
		tuned->master[f] = take(&block->master[f]);
	TRY(failed(state, status, err));
	if (source.latents) TRY(latents_load(state->backend, tuned->master, tuned->strength, index, source.latents, err));
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		TRY(vectors_create(block, vectors[i], err));
	TRY(failed(state, create_moments(state, tuned), err));
	TRY(failed(state, vectors_keep(block, &tuned->vectors), err));
	tuned->fixed = block->fixed;
	block->fixed = (struct fixed_weights){0};
	return STATUS_OK;
}

enum status state_create(const struct spec *spec, const struct model *model, struct state_source source, struct backend *backend,
			 enum dtype compute_type, int64_t tokens, int64_t length, struct state *ret, struct error *err)
{
	int layers = (int)model->config.layers;
	*ret = (struct state){.backend = backend, .before = NAN, .after = NAN};
	ret->blocks = calloc((size_t)layers, sizeof *ret->blocks);
	if (!ret->blocks) return error_set(err, STATUS_NO_MEMORY, "no memory for %d blocks", layers);
	TRY(block_create(model, backend, compute_type, length, &ret->block, err));
	if (spec->quantization.bits) TRY(quantizer_create(spec, &ret->block, false, &ret->quantizer, err));
	for (int i = 0; i < layers; i++)
		TRY(create_block(ret, source, quantization_is_joint(spec), i, err));
	return end_create(model, source.from, backend, compute_type, tokens, &ret->end, err);
}

static void release_block(struct state *state, struct tuned_block *tuned)
{
	struct backend *backend = state->backend;
	struct vectors *const vectors[] = {&tuned->vectors, &tuned->vector_m, &tuned->vector_v};
	for (int f = 0; f < FUSED_COUNT; f++) {
		backend->ops->release(backend, tuned->master[f].data);
		backend->ops->release(backend, tuned->m[f].data);
		backend->ops->release(backend, tuned->v[f].data);
		backend->ops->release(backend, tuned->strength[f].data);
	}
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		vectors_release(vectors[i], backend);
	fixed_release(backend, &tuned->fixed);
}

/* What state_enter has lent the block is the state's again. */
static void leave(struct state *state)
{
	memset(state->block.master, 0, sizeof state->block.master);
	memset(state->quantizer.strength, 0, sizeof state->quantizer.strength);
	state->block.fixed = (struct fixed_weights){0};
}

void state_release(struct state *state)
{
	if (!state->backend) return;
	if (state->block.config) {
		for (int i = 0; i < state->block.config->layers; i++)
			release_block(state, &state->blocks[i]);
		if (state->entered) leave(state);
		quantizer_release(&state->quantizer);
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
	memcpy(state->quantizer.strength, tuned->strength, sizeof tuned->strength);
	block->fixed = tuned->fixed;
	block_set_index(block, index);
	state->entered = true;
	TRY(vectors_restore(block, &tuned->vectors));
	TRY(state->quantizer.backend ? quantizer_apply(&state->quantizer, block->master, block->weight)
				     : block_store_masters(block));
	return block_activate_dense(block);
}

/* ---- to a file and back ------------------------------------------------------------------------------------------------------ */

enum { BLOCK_PARTS = 4 * FUSED_COUNT + 3, END_PARTS = 3 * END_VECTORS };

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
			parts[n++] = part_of(&tuned->strength[f]);
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

/* The parts, and the bytes of a file of them; `parts` is freed by the caller. */
struct moving {
	struct part *parts;
	int n;
	int64_t bytes;
};

static enum status begin_moving(const struct state *state, struct moving *ret, struct error *err)
{
	size_t room = (size_t)state->block.config->layers * BLOCK_PARTS + END_PARTS;
	struct moving moving = {.parts = malloc(room * sizeof *moving.parts)};
	if (!moving.parts) return error_set(err, STATUS_NO_MEMORY, "no memory for the state of a tune");
	moving.n = parts_of(state, moving.parts);
	moving.bytes = HEADER_BYTES + parts_bytes(moving.parts, moving.n);
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

/* What is being written, and of which state. */
struct saving {
	const struct state *state;
	const struct moving *moving;
};

static enum status write_file(void *context, const struct file *file, struct error *err)
{
	const struct saving *saving = context;
	const struct moving *moving = saving->moving;
	uint32_t crc;
	TRY(parts_write(saving->state->backend, moving->parts, moving->n, file, HEADER_BYTES, &crc, err));
	const struct header header = header_of(saving->state, moving->bytes, crc);
	return file_write(file, &header, sizeof header, 0, err);
}

enum status state_save(const struct state *state, const char *path, struct error *err)
{
	struct moving moving;
	TRY(begin_moving(state, &moving, err));
	enum status status = place_fill(path, moving.bytes, write_file, &(struct saving){state, &moving}, err);
	free(moving.parts);
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
	TRY(parts_read(state->backend, moving->parts, moving->n, file, HEADER_BYTES, &crc, err));
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
	free(moving.parts);
	return status;
}
