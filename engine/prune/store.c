#include "engine/prune/store.h"

#include "engine/output/pack.h"

/* What is in `room`, to the output. */
static enum status put_linear(const struct store *s, const struct linear *linear, const struct tensor_info *info,
			      const struct block_result *result, struct error *err)
{
	int64_t at = linear->stored_first * (info->bytes / linear->rows);
	if (!result->grids.bits)
		return writer_write(s->writer, info->name, at, layout_file_order(linear, s->room, info->dtype), (size_t)info->bytes,
				    err);
	return pack_write_linear(s->model, s->writer, linear, result->index, &result->grids, s->room, err);
}

static enum status write_linear(const struct store *s, const struct linear *linear, const struct tensor weights[FUSED_COUNT],
				struct block_result *result, struct error *err)
{
	struct backend *backend = s->backend;
	struct tensor_info info;
	TRY(block_linear_tensor(s->model, linear, result->index, &info, err));
	for (int i = 0; i < layout_stretches(linear); i++) {
		struct stretch stretch = layout_stretch(linear, i);
		struct tensor rows = tensor_rows(weights[linear->fused], linear->first + stretch.first, stretch.rows);
		char *to = (char *)s->room + stretch.stored * (info.bytes / linear->rows);
		TRY(backend->ops->side_download(backend, to, rows.data, tensor_bytes(&rows), err));
	}
	TRY(put_linear(s, linear, &info, result, err));
	int64_t params = linear->rows * linear->cols, zeros = count_zero_weights(s->room, info.dtype, params);
	int expert = s->layout->products[linear->product].expert;
	struct part_result *kind = &result->kinds[linear->kind];
	kind->zeros += zeros;
	kind->params += params;
	result->zeros += zeros;
	if (expert < 0) return STATUS_OK;
	result->experts[expert].zeros += zeros;
	result->experts[expert].params += params;
	return STATUS_OK;
}

enum status store_weights(const struct store *s, struct block_result *result, const struct tensor weights[FUSED_COUNT],
			  struct error *err)
{
	const struct block_layout *layout = s->layout;
	for (int i = 0; i < layout->n_linears; i++)
		TRY(write_linear(s, &layout->linears[i], weights, result, err));
	TRY(pack_write_zeros(s->model, s->writer, layout, result->index, &result->grids, err));
	for (int i = 0; i < result->vectors.count; i++) {
		const struct stored_vector *vector = &result->vectors.items[i];
		TRY(writer_write(s->writer, vector->tensor, 0, vector->data, vector->bytes, err));
	}
	result->params = layout->params;
	return STATUS_OK;
}
