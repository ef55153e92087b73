#include "engine/output/pack.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/compute/half.h"
#include "engine/model/packed.h"

enum { CHUNK_WEIGHTS = 1 << 22 }; /* whose codes are made at once, or a row's */

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to pack the weights of a linear");
}

/* The name of a part of the linear whose weights are the tensor `weight`; the caller frees it. */
static char *part_name(const char *weight, const char *suffix)
{
	char *name;
	int stem = (int)(strlen(weight) - strlen(PACKED_WEIGHT));
	return asprintf(&name, "%.*s%s", stem, weight, suffix) < 0 ? NULL : name;
}

/* The tensor of the model that a linear is in; NULL where a linear before it in the layout is in the same. */
static enum status first_in_tensor(const struct model *model, const struct block_layout *layout, int i, int index,
				   const struct tensor_info **ret, struct error *err)
{
	struct tensor_info info;
	*ret = NULL;
	for (int j = 0; j < i; j++)
		if (strcmp(layout->linears[j].stored, layout->linears[i].stored) == 0) return STATUS_OK;
	TRY(block_linear_tensor(model, &layout->linears[i], index, &info, err));
	*ret = checkpoint_find(&model->checkpoint, info.name);
	return STATUS_OK;
}

typedef enum status (*tensor_fn)(void *context, const struct tensor_info *weight, struct error *err);

/* Calls `use` with each tensor of prunable linears. */
static enum status each_tensor(const struct model *model, tensor_fn use, void *context, struct error *err)
{
	struct block_layout layout;
	TRY(block_layout_create(&model->config, &layout, err));
	enum status status = STATUS_OK;
	for (int index = 0; index < model->config.layers && status == STATUS_OK; index++)
		for (int i = 0; i < layout.n_linears && status == STATUS_OK; i++) {
			const struct tensor_info *weight;
			status = first_in_tensor(model, &layout, i, index, &weight, err);
			if (status == STATUS_OK && weight) status = use(context, weight, err);
		}
	block_layout_release(&layout);
	return status;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

struct planning {
	const struct packed_form *packing;
	struct plan *plan;
};

static enum status add(const struct planning *p, const struct tensor_info *weight, const char *suffix, struct tensor_info part,
		       struct error *err)
{
	part.name = part_name(weight->name, suffix);
	if (!part.name) return no_memory(err);
	enum status status = plan_add(p->plan, weight->name, &part, err);
	free(part.name);
	return status;
}

static enum status plan_tensor(void *context, const struct tensor_info *weight, struct error *err)
{
	const struct planning *p = context;
	int bits = p->packing->bits;
	int64_t rows = weight->shape[0], cols = weight->shape[1], groups = p->packing->group ? cols / p->packing->group : 1;
	const struct tensor_info codes = {.dtype = DTYPE_I32, .rank = 2, .shape = {rows, packed_words(cols, bits)}},
				 steps = {.dtype = weight->dtype, .rank = 2, .shape = {rows, groups}},
				 zeros = {.dtype = DTYPE_I32, .rank = 2, .shape = {packed_words(rows, bits), groups}},
				 shape = {.dtype = DTYPE_I64, .rank = 1, .shape = {2}};
	TRY(add(p, weight, PACKED_CODES, codes, err));
	TRY(add(p, weight, PACKED_STEPS, steps, err));
	TRY(add(p, weight, PACKED_SHAPE, shape, err));
	if (!p->packing->symmetric) TRY(add(p, weight, PACKED_ZEROS, zeros, err));
	return plan_remove(p->plan, weight->name, err);
}

enum status pack_plan(const struct model *model, const struct packed_form *packing, struct plan *plan, struct error *err)
{
	struct planning planning = {packing, plan};
	return each_tensor(model, plan_tensor, &planning, err);
}

cJSON *pack_config(const struct model *model, const struct packed_form *packing)
{
	char pattern[160];
	const struct weight_names *names = model->config.names;
	const char *const of_blocks[] = {model->config.experts ? names->router : NULL,
					 model->config.shared_intermediate ? names->shared_gate : NULL};
	cJSON *ignore = cJSON_CreateArray();
	json_add(ignore, NULL, cJSON_CreateString(names->head ? names->head : "lm_head"));
	for (size_t i = 0; i < sizeof of_blocks / sizeof *of_blocks; i++) {
		if (!of_blocks[i]) continue;
		snprintf(pattern, sizeof pattern, "re:.*%s$", of_blocks[i]);
		json_add(ignore, NULL, cJSON_CreateString(pattern));
	}
	return packed_form_json(packing, ignore);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

static enum status write_part(struct writer *writer, const char *weight, const char *suffix, int64_t at, const void *data,
			      int64_t bytes, struct error *err)
{
	char *name = part_name(weight, suffix);
	if (!name) return no_memory(err);
	enum status status = writer_write(writer, name, at, data, (size_t)bytes, err);
	free(name);
	return status;
}

static enum status write_shape(void *context, const struct tensor_info *weight, struct error *err)
{
	return write_part(context, weight->name, PACKED_SHAPE, 0, weight->shape, 2 * (int64_t)sizeof *weight->shape, err);
}

enum status pack_write_shapes(const struct model *model, struct writer *writer, struct error *err)
{
	return each_tensor(model, write_shape, writer, err);
}

/* What a code is read as. */
static float read_code(int code, int zero, float step, enum dtype dtype)
{
	char room[sizeof(float)];
	packed_dequantize(code, zero, step, room, dtype, 0);
	return half_load(room, dtype, 0);
}

/* The code of a weight on its grid; false where none stands for that. Weights are rounded to the file's type, so that the
 * nearest multiple of the step may be one off in bf16, from 128 on, where several codes are read as the same weight too. */
static bool find_code(float weight, float step, int zero, int bits, enum dtype dtype, uint8_t *ret)
{
	static const int off[] = {0, 1, -1};
	float nearest = rintf(weight / step) + (float)zero;
	if (!(nearest >= -1 && nearest <= (float)(1 << bits))) return false;
	for (size_t i = 0; i < sizeof off / sizeof *off; i++) {
		int code = (int)nearest + off[i];
		if (code < 0 || code >= 1 << bits || read_code(code, zero, step, dtype) != weight) continue;
		*ret = (uint8_t)code;
		return true;
	}
	return false;
}

/* Rows of a linear's weights, and their grids. */
struct piece {
	const struct tensor_info *info;
	const struct grids *grids;
	enum fused fused;
	int64_t row; /* the first, of the fused matrix */
	int64_t rows, cols;
	const char *weights; /* in the file's type */
};

static enum status make_codes(const struct piece *p, uint8_t *codes, uint32_t *words, struct error *err)
{
	const struct grids *grids = p->grids;
	int bits = grids->bits;
	int64_t groups = grids->groups[p->fused], group = p->cols / groups;
	for (int64_t r = 0; r < p->rows; r++) {
		for (int64_t j = 0; j < p->cols; j++) {
			int64_t at = (p->row + r) * groups + j / group;
			float step = half_load(grids->steps[p->fused], grids->type, at);
			int zero = grids->zeros[p->fused] ? grids->zeros[p->fused][at] : 1 << (bits - 1);
			float weight = half_load(p->weights, grids->type, r * p->cols + j);
			if (find_code(weight, step, zero, bits, grids->type, &codes[j])) continue;
			return error_set(err, STATUS_NUMERIC, "tensor '%s': %g is not on its grid of steps of %g", p->info->name,
					 (double)weight, (double)step);
		}
		packed_pack(codes, p->cols, 1, bits, words + r * packed_words(p->cols, bits));
	}
	return STATUS_OK;
}

/* The codes of rows that lie together, the first of which is row `stored` of the tensor. */
static enum status write_codes(struct writer *writer, struct piece piece, int64_t stored, struct error *err)
{
	int64_t row_bytes = packed_words(piece.cols, piece.grids->bits) * 4, at_once = CHUNK_WEIGHTS / piece.cols,
		left = piece.rows;
	int64_t weight_bytes = piece.cols * (int64_t)dtype_size(piece.grids->type);
	if (at_once < 1) at_once = 1;
	uint8_t *codes = malloc((size_t)piece.cols);
	uint32_t *words = malloc((size_t)(at_once * row_bytes));
	enum status status = codes && words ? STATUS_OK : no_memory(err);
	for (; left > 0 && status == STATUS_OK; left -= piece.rows) {
		piece.rows = left < at_once ? left : at_once;
		status = make_codes(&piece, codes, words, err);
		if (status == STATUS_OK)
			status = write_part(writer, piece.info->name, PACKED_CODES, stored * row_bytes, words,
					    piece.rows * row_bytes, err);
		stored += piece.rows;
		piece.row += piece.rows;
		piece.weights += piece.rows * weight_bytes;
	}
	free(codes);
	free(words);
	return status;
}

enum status pack_write_linear(const struct model *model, struct writer *writer, const struct linear *linear, int index,
			      const struct grids *grids, const void *weights, struct error *err)
{
	struct tensor_info info;
	TRY(block_linear_tensor(model, linear, index, &info, err));
	int64_t steps_bytes = grids->groups[linear->fused] * (int64_t)dtype_size(grids->type),
		weight_bytes = info.bytes / linear->rows;
	for (int i = 0; i < layout_stretches(linear); i++) {
		struct stretch stretch = layout_stretch(linear, i);
		int64_t row = linear->first + stretch.first, stored = linear->stored_first + stretch.stored;
		struct piece piece = {&info,
				      grids,
				      linear->fused,
				      row,
				      stretch.rows,
				      linear->cols,
				      (const char *)weights + stretch.stored * weight_bytes};
		const char *steps = (const char *)grids->steps[linear->fused] + row * steps_bytes;
		TRY(write_codes(writer, piece, stored, err));
		TRY(write_part(writer, info.name, PACKED_STEPS, stored * steps_bytes, steps, stretch.rows * steps_bytes, err));
	}
	return STATUS_OK;
}

/* Brings the zero points of a linear to where its rows are in its tensor. */
static void gather_zeros(const struct linear *linear, const struct grids *grids, uint8_t *zeros)
{
	int64_t groups = grids->groups[linear->fused];
	for (int i = 0; i < layout_stretches(linear); i++) {
		struct stretch stretch = layout_stretch(linear, i);
		memcpy(zeros + (linear->stored_first + stretch.stored) * groups,
		       grids->zeros[linear->fused] + (linear->first + stretch.first) * groups, (size_t)(stretch.rows * groups));
	}
}

/* A word has those of several rows, which may be of several linears. */
static enum status write_tensor_zeros(struct writer *writer, const struct block_layout *layout, int first,
				      const struct tensor_info *weight, const struct grids *grids, struct error *err)
{
	const struct linear *linear = &layout->linears[first];
	int64_t groups = grids->groups[linear->fused], rows = linear->stored_rows, words = packed_words(rows, grids->bits) * groups;
	uint8_t *zeros = malloc((size_t)(rows * groups));
	uint32_t *packed = malloc((size_t)words * sizeof *packed);
	enum status status = zeros && packed ? STATUS_OK : no_memory(err);
	for (int i = first; i < layout->n_linears && status == STATUS_OK; i++)
		if (strcmp(layout->linears[i].stored, linear->stored) == 0) gather_zeros(&layout->linears[i], grids, zeros);
	for (int64_t g = 0; g < groups && status == STATUS_OK; g++)
		packed_pack(zeros + g, rows, groups, grids->bits, packed + g);
	if (status == STATUS_OK) status = write_part(writer, weight->name, PACKED_ZEROS, 0, packed, words * 4, err);
	free(zeros);
	free(packed);
	return status;
}

enum status pack_write_zeros(const struct model *model, struct writer *writer, const struct block_layout *layout, int index,
			     const struct grids *grids, struct error *err)
{
	for (int i = 0; i < layout->n_linears; i++) {
		const struct tensor_info *weight;
		if (!grids->zeros[layout->linears[i].fused]) continue;
		TRY(first_in_tensor(model, layout, i, index, &weight, err));
		if (weight) TRY(write_tensor_zeros(writer, layout, i, weight, grids, err));
	}
	return STATUS_OK;
}
