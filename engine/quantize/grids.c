#include "engine/quantize/grids.h"

#include <stdlib.h>

#include "engine/compute/half.h"

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the grids of a block");
}

/* A fused matrix's F32 numbers, [rows, groups], into `room`. */
static enum status fetch(const struct quantizer *q, struct tensor from, float *room, struct error *err)
{
	enum status status = q->backend->ops->download(q->backend, room, from.data, tensor_bytes(&from));
	if (status != STATUS_OK) *err = q->backend->error;
	return status;
}

static enum status take_fused(const struct quantizer *q, int f, float *room, struct grids *grids, struct error *err)
{
	int64_t count = q->steps[f].rows * q->steps[f].cols;
	grids->groups[f] = q->steps[f].cols;
	grids->steps[f] = malloc((size_t)count * dtype_size(grids->type));
	if (!grids->steps[f]) return no_memory(err);
	TRY(fetch(q, q->steps[f], room, err));
	for (int64_t i = 0; i < count; i++)
		half_store(room[i], grids->steps[f], grids->type, i);
	if (q->symmetric) return STATUS_OK;
	grids->zeros[f] = malloc((size_t)count);
	if (!grids->zeros[f]) return no_memory(err);
	TRY(fetch(q, q->zeros[f], room, err));
	for (int64_t i = 0; i < count; i++)
		grids->zeros[f][i] = (uint8_t)room[i];
	return STATUS_OK;
}

enum status grids_take(const struct quantizer *q, struct grids *ret, struct error *err)
{
	struct grids grids = {.bits = q->bits, .type = q->block->file_type};
	int64_t most = 0;
	for (int f = 0; f < q->block->layout.n_fused; f++)
		if (q->steps[f].rows * q->steps[f].cols > most) most = q->steps[f].rows * q->steps[f].cols;
	float *room = calloc((size_t)most, sizeof *room); /* a dry backend leaves it as it is */
	enum status status = room ? STATUS_OK : no_memory(err);
	for (int f = 0; f < q->block->layout.n_fused && status == STATUS_OK; f++)
		status = take_fused(q, f, room, &grids, err);
	free(room);
	if (status == STATUS_OK)
		*ret = grids;
	else
		grids_release(&grids);
	return status;
}

void grids_release(struct grids *grids)
{
	for (int f = 0; f < FUSED_COUNT; f++) {
		free(grids->steps[f]);
		free(grids->zeros[f]);
	}
	*grids = (struct grids){0};
}
