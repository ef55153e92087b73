#include "engine/model/packed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/compute/half.h"

enum { CHUNK_BYTES = 1 << 18 }; /* of codes that are read at once */

/* ---- words --------------------------------------------------------------------------------------------------------------- */

void packed_pack(const uint8_t *codes, int64_t count, int64_t stride, int bits, uint32_t *words)
{
	int64_t in_word = 32 / bits;
	for (int64_t first = 0; first < count; first += in_word) {
		uint32_t word = 0;
		for (int64_t k = 0; k < in_word && first + k < count; k++)
			word |= (uint32_t)codes[(first + k) * stride] << (int)k * bits;
		words[first / in_word * stride] = word;
	}
}

void packed_dequantize(int code, int zero, float step, void *out, enum dtype dtype, int64_t i)
{
	half_store((float)(code - zero) * step, out, dtype, i);
}

/* ---- the list ------------------------------------------------------------------------------------------------------------ */

static enum status wrong_part(const struct checkpoint *c, const struct tensor_info *info, const char *what, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: tensor '%s' of a packed linear %s", c->shards[info->shard].path, info->name,
			 what);
}

/* The tensor `suffix` of the linear whose codes are `codes`; NULL where there is none. */
static enum status look(const struct checkpoint *c, const struct tensor_info *codes, const char *suffix,
			const struct tensor_info **ret, struct error *err)
{
	char *name;
	int stem = (int)(strlen(codes->name) - strlen(PACKED_CODES));
	if (asprintf(&name, "%.*s%s", stem, codes->name, suffix) < 0)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the packed linears of %s", c->shards[codes->shard].path);
	*ret = checkpoint_find(c, name);
	free(name);
	return STATUS_OK;
}

static enum status part(const struct checkpoint *c, const struct tensor_info *codes, const char *suffix,
			const struct tensor_info **ret, struct error *err)
{
	TRY(look(c, codes, suffix, ret, err));
	if (*ret) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: tensor '%s' has no '%s' beside it", c->shards[codes->shard].path, codes->name,
			 suffix + 1);
}

static enum status absent(const struct checkpoint *c, const struct tensor_info *codes, const char *suffix, const char *why,
			  struct error *err)
{
	const struct tensor_info *info;
	TRY(look(c, codes, suffix, &info, err));
	if (!info) return STATUS_OK;
	return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' is there beside '%s': %s", c->shards[info->shard].path,
			 info->name, codes->name, why);
}

static bool is_matrix(const struct tensor_info *info, enum dtype dtype, int64_t rows, int64_t cols)
{
	return !info->opaque && info->dtype == dtype && info->rank == 2 && info->shape[0] == rows && info->shape[1] == cols;
}

static enum status read_shape(const struct checkpoint *c, struct packed *packed, const struct tensor_info *info, struct error *err)
{
	int64_t shape[2];
	if (info->opaque || info->dtype != DTYPE_I64 || info->rank != 1 || info->shape[0] != 2)
		return wrong_part(c, info, "must be I64 [2]", err);
	TRY(checkpoint_read(c, info, shape, err));
	if (shape[0] < 1 || shape[1] < 1 || shape[0] > INT32_MAX || shape[1] > INT32_MAX)
		return wrong_part(c, info, "gives it a shape that cannot be", err);
	packed->rows = shape[0];
	packed->cols = shape[1];
	packed->shape = info->name;
	return STATUS_OK;
}

/* Checks the parts of the linear of `codes` against each other. What `ret` has is the checkpoint's. */
static enum status describe(const struct checkpoint *c, const struct packed_form *packing, const struct tensor_info *codes,
			    struct packed *ret, struct error *err)
{
	const struct tensor_info *shape, *steps, *zeros;
	struct packed packed = {.packing = *packing, .codes = *codes};
	TRY(part(c, codes, PACKED_SHAPE, &shape, err));
	TRY(part(c, codes, PACKED_STEPS, &steps, err));
	TRY(absent(c, codes, PACKED_WEIGHT, "the linear is there twice", err));
	TRY(absent(c, codes, ".weight_g_idx", "its columns are in another order (actorder), which is not supported", err));
	TRY(read_shape(c, &packed, shape, err));
	if (!is_matrix(codes, DTYPE_I32, packed.rows, packed_words(packed.cols, packing->bits)))
		return wrong_part(c, codes, "is not I32 with the words of its shape and bits", err);
	if (packing->group && packed.cols % packing->group)
		return wrong_part(c, shape, "has columns that are no whole groups", err);
	packed.groups = packing->group ? packed.cols / packing->group : 1;
	if ((steps->dtype != DTYPE_F32 && steps->dtype != DTYPE_BF16 && steps->dtype != DTYPE_F16) ||
	    !is_matrix(steps, steps->dtype, packed.rows, packed.groups))
		return wrong_part(c, steps, "is not F32, BF16 or F16 with a step for each group", err);
	packed.steps = *steps;
	if (packing->symmetric) {
		TRY(absent(c, codes, PACKED_ZEROS, "config.json says that it is symmetric, and then there are none", err));
	} else {
		TRY(part(c, codes, PACKED_ZEROS, &zeros, err));
		if (!is_matrix(zeros, DTYPE_I32, packed_words(packed.rows, packing->bits), packed.groups))
			return wrong_part(c, zeros, "is not I32 with a zero point for each group", err);
		packed.zeros = *zeros;
	}
	*ret = packed;
	return STATUS_OK;
}

/* The whole linear as one tensor, whose name is the caller's to free. */
static enum status make_whole(const struct packed *packed, struct tensor_info *ret, struct error *err)
{
	struct tensor_info info = {.dtype = packed->steps.dtype,
				   .rank = 2,
				   .shape = {packed->rows, packed->cols},
				   .shard = packed->codes.shard,
				   .packed = packed};
	TRY(stored_bytes(&info, &info.bytes, err));
	int stem = (int)(strlen(packed->codes.name) - strlen(PACKED_CODES));
	if (asprintf(&info.name, "%.*s" PACKED_WEIGHT, stem, packed->codes.name) < 0)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the packed linears of a model");
	*ret = info;
	return STATUS_OK;
}

/* What a list becomes. */
struct change {
	struct packed *packed; /* [count], as many of which are described */
	struct tensor_info *tensors;
	bool *taken; /* by the checkpoint's tensors: a part of one */
	size_t count, described;
};

static void take(const struct checkpoint *c, struct change *change, const char *name)
{
	const struct tensor_info *info = name ? checkpoint_find(c, name) : NULL;
	if (info) change->taken[info - c->tensors] = true;
}

static enum status describe_all(const struct checkpoint *c, const struct packed_form *packing, struct change *change,
				struct error *err)
{
	for (size_t i = 0; i < c->n_tensors; i++) {
		struct packed *packed = &change->packed[change->described];
		if (!text_ends_with(c->tensors[i].name, PACKED_CODES)) continue;
		TRY(describe(c, packing, &c->tensors[i], packed, err));
		TRY(make_whole(packed, &change->tensors[change->described], err));
		change->described++;
		take(c, change, packed->codes.name);
		take(c, change, packed->steps.name);
		take(c, change, packed->zeros.name);
		take(c, change, packed->shape);
	}
	return STATUS_OK;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct tensor_info *)a)->name, ((const struct tensor_info *)b)->name);
}

/* The names of the parts are the packed linears' from now on. */
static void commit(struct checkpoint *c, struct change *change)
{
	size_t n = change->described;
	for (size_t i = 0; i < c->n_tensors; i++)
		if (!change->taken[i]) change->tensors[n++] = c->tensors[i];
	qsort(change->tensors, n, sizeof *change->tensors, by_name);
	free(c->tensors);
	c->tensors = change->tensors;
	c->n_tensors = n;
	c->packed = change->packed;
	c->n_packed = change->described;
}

enum status packed_find(struct checkpoint *c, const struct packed_form *packing, struct error *err)
{
	struct change change = {0};
	if (!packing->bits) return STATUS_OK;
	for (size_t i = 0; i < c->n_tensors; i++)
		change.count += text_ends_with(c->tensors[i].name, PACKED_CODES);
	if (!change.count) return STATUS_OK;
	change.packed = calloc(change.count, sizeof *change.packed);
	change.tensors = calloc(c->n_tensors + 1, sizeof *change.tensors); /* of each linear three parts go, at least */
	change.taken = calloc(c->n_tensors, sizeof *change.taken);
	enum status status = change.packed && change.tensors && change.taken
				     ? describe_all(c, packing, &change, err)
				     : error_set(err, STATUS_NO_MEMORY, "no memory for %zu packed linears", change.count);
	if (status == STATUS_OK) {
		commit(c, &change);
	} else {
		for (size_t i = 0; i < change.described; i++)
			free(change.tensors[i].name);
		free(change.tensors);
		free(change.packed);
	}
	free(change.taken);
	return status;
}

void packed_free(struct packed *packed, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(packed[i].codes.name);
		free(packed[i].steps.name);
		free(packed[i].zeros.name);
		free(packed[i].shape);
	}
	free(packed);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

/* Some rows of a packed linear. */
struct rows {
	int64_t first, count;
	uint32_t *codes; /* [count, words of a row] */
	uint32_t *zeros; /* [their words, groups], from the word of the first row on */
	void *steps;     /* [count, groups] */
};

static enum status read_rows(const struct checkpoint *c, const struct packed *packed, struct rows *rows, struct error *err)
{
	int64_t row_bytes = packed_words(packed->cols, packed->packing.bits) * 4, in_word = 32 / packed->packing.bits;
	int64_t steps_bytes = packed->groups * (int64_t)dtype_size(packed->steps.dtype), zeros_bytes = packed->groups * 4;
	int64_t word = rows->first / in_word, words = packed_words(rows->first + rows->count, packed->packing.bits) - word;
	TRY(file_read(&c->shards[packed->codes.shard], rows->codes, (size_t)(rows->count * row_bytes),
		      packed->codes.offset + rows->first * row_bytes, err));
	TRY(file_read(&c->shards[packed->steps.shard], rows->steps, (size_t)(rows->count * steps_bytes),
		      packed->steps.offset + rows->first * steps_bytes, err));
	if (packed->packing.symmetric) return STATUS_OK;
	return file_read(&c->shards[packed->zeros.shard], rows->zeros, (size_t)(words * zeros_bytes),
			 packed->zeros.offset + word * zeros_bytes, err);
}

static void dequantize_rows(const struct packed *packed, const struct rows *rows, char *out)
{
	int bits = packed->packing.bits;
	enum dtype dtype = packed->steps.dtype;
	int64_t words = packed_words(packed->cols, bits), group = packed->cols / packed->groups, offset = rows->first % (32 / bits);
	for (int64_t r = 0; r < rows->count; r++) {
		const uint32_t *codes = rows->codes + r * words;
		for (int64_t j = 0; j < packed->cols; j++) {
			int64_t g = j / group;
			int zero = packed->packing.symmetric ? 1 << (bits - 1)
							     : packed_code(rows->zeros + g, packed->groups, offset + r, bits);
			float step = half_load(rows->steps, dtype, r * packed->groups + g);
			packed_dequantize(packed_code(codes, 1, j, bits), zero, step, out, dtype, r * packed->cols + j);
		}
	}
}

enum status packed_read(const struct checkpoint *c, const struct tensor_info *info, void *buffer, struct error *err)
{
	const struct packed *packed = info->packed;
	int64_t row_bytes = packed->cols * (int64_t)dtype_size(packed->steps.dtype),
		code_bytes = packed_words(packed->cols, packed->packing.bits) * 4;
	int64_t first = info->offset / row_bytes, last = first + info->bytes / row_bytes;
	int64_t at_once = code_bytes < CHUNK_BYTES ? CHUNK_BYTES / code_bytes : 1;
	if (at_once > last - first) at_once = last - first;
	struct rows rows = {.codes = malloc((size_t)(at_once * code_bytes)),
			    .zeros = malloc((size_t)((packed_words(at_once, packed->packing.bits) + 1) * packed->groups * 4)),
			    .steps = malloc((size_t)(at_once * packed->groups) * dtype_size(packed->steps.dtype))};
	enum status status = rows.codes && rows.zeros && rows.steps
				     ? STATUS_OK
				     : error_set(err, STATUS_NO_MEMORY, "no memory to read tensor '%s'", info->name);
	for (int64_t r = first; r < last && status == STATUS_OK; r += rows.count) {
		rows.first = r;
		rows.count = last - r < at_once ? last - r : at_once;
		status = read_rows(c, packed, &rows, err);
		if (status == STATUS_OK) dequantize_rows(packed, &rows, (char *)buffer + (r - first) * row_bytes);
	}
	free(rows.codes);
	free(rows.zeros);
	free(rows.steps);
	return status;
}
