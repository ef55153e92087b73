#include "engine/job/self_check.h"

#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

#include "engine/model/block.h"

enum { CHUNK = 1 << 20 };

/* A part that was written. */
struct written {
	const char *tensor;
	int64_t at, bytes;
	unsigned long sum;
	bool read;
};

struct reading {
	const struct self_check *check;
	struct checkpoint files; /* as they are */
	struct model model;      /* the same, as a job would open it */
	struct block_layout layout;
	struct written *written; /* NULL where it is not known */
	size_t n_written, next;  /* `next` to be looked for */
	char *room;              /* of `room_bytes` */
	int64_t room_bytes;
};

enum status self_check_failed(enum status status, struct error *err)
{
	switch (status) {
	case STATUS_INVALID:
	case STATUS_UNSUPPORTED:
	case STATUS_NOT_FOUND:
	case STATUS_NUMERIC:
		err->status = STATUS_SELF_CHECK;
		return error_prefix(
			err, "the output on disk is not what was computed, and is kept to be looked at; submit the job again");
	default:
		return status;
	}
}

static enum status check_stop(const struct reading *r, struct error *err)
{
	return atomic_load_explicit(r->check->stop, memory_order_relaxed)
		       ? error_set(err, STATUS_CANCELLED, "stopped while checking the output")
		       : STATUS_OK;
}

static enum status find_room(struct reading *r, int64_t bytes, struct error *err)
{
	if (bytes <= r->room_bytes) return STATUS_OK;
	char *grown = realloc(r->room, (size_t)bytes);
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to read %" PRId64 " bytes of the output", bytes);
	r->room = grown;
	r->room_bytes = bytes;
	return STATUS_OK;
}

/* ---- names, types and shapes ------------------------------------------------------------------------------------------------- */

static bool same_kind(const struct tensor_info *a, const struct tensor_info *b)
{
	bool opaque = a->opaque && b->opaque ? strcmp(a->opaque, b->opaque) == 0 : !a->opaque && !b->opaque;
	return opaque && a->dtype == b->dtype && a->rank == b->rank &&
	       memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

static enum status compare_tensors(const struct reading *r, struct error *err)
{
	const struct checkpoint *wanted = writer_layout(r->check->writer), *found = &r->files;
	for (size_t i = 0; i < wanted->n_tensors; i++) {
		const struct tensor_info *is = checkpoint_find(found, wanted->tensors[i].name);
		if (!is) return error_set(err, STATUS_INVALID, "the tensor '%s' is missing", wanted->tensors[i].name);
		if (!same_kind(&wanted->tensors[i], is))
			return error_set(err, STATUS_INVALID, "the tensor '%s' has another type or shape than it was given",
					 is->name);
	}
	for (size_t i = 0; i < found->n_tensors; i++)
		if (!checkpoint_find(wanted, found->tensors[i].name))
			return error_set(err, STATUS_INVALID, "there is a tensor '%s' that was not made", found->tensors[i].name);
	return STATUS_OK;
}

/* ---- what was written -------------------------------------------------------------------------------------------------------- */

static enum status parse_written(struct reading *r, struct error *err)
{
	const cJSON *list = r->check->savepoint->written, *item;
	if (!list) return STATUS_OK;
	r->written = calloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *r->written);
	if (!r->written) return error_set(err, STATUS_NO_MEMORY, "no memory for the checksums of an output");
	cJSON_ArrayForEach(item, list)
	{
		const char *tensor = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0));
		const char *sum = cJSON_GetStringValue(cJSON_GetArrayItem(item, 3));
		double at = cJSON_GetNumberValue(cJSON_GetArrayItem(item, 1)),
		       bytes = cJSON_GetNumberValue(cJSON_GetArrayItem(item, 2));
		if (!tensor || !sum || !(at >= 0) || !(bytes >= 0) || at > 0x1p52 || bytes > 0x1p52)
			return error_set(err, STATUS_INVALID, "the job's savepoint has a checksum that cannot be read");
		r->written[r->n_written++] = (struct written){
			.tensor = tensor, .at = (int64_t)at, .bytes = (int64_t)bytes, .sum = strtoul(sum, NULL, 16)};
	}
	return STATUS_OK;
}

/* They are looked for in the order in which they were written, mostly. */
static struct written *find_written(struct reading *r, const char *tensor, int64_t at, int64_t bytes)
{
	for (size_t i = 0; i < r->n_written; i++) {
		size_t place = (r->next + i) % r->n_written;
		struct written *written = &r->written[place];
		if (written->at != at || written->bytes != bytes || strcmp(written->tensor, tensor) != 0) continue;
		r->next = place + 1;
		return written;
	}
	return NULL;
}

static enum status compare_sum(const struct written *written, const char *path, unsigned long sum, struct error *err)
{
	if (sum == written->sum) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: the tensor '%s' has other bytes than were written to it (of the %" PRId64 " from byte %" PRId64
			 " on the CRC-32 is %08lx, and was %08lx)",
			 path, written->tensor, written->bytes, written->at, sum, written->sum);
}

/* A part of a tensor, where it lies in one of the shards. */
static enum status check_part(struct reading *r, const struct written *written, const struct tensor_info *info, struct error *err)
{
	const struct file *shard = &r->files.shards[info->shard];
	unsigned long sum = crc32_z(0, NULL, 0);
	TRY(find_room(r, CHUNK, err));
	if (written->at > info->bytes || written->bytes > info->bytes - written->at)
		return error_set(err, STATUS_INVALID, "%s: the tensor '%s' is shorter than what was written to it", shard->path,
				 info->name);
	for (int64_t at = 0; at < written->bytes; at += CHUNK) {
		int64_t n = written->bytes - at < CHUNK ? written->bytes - at : CHUNK;
		TRY(file_read(shard, r->room, (size_t)n, info->offset + written->at + at, err));
		sum = crc32_z(sum, (const void *)r->room, (size_t)n);
	}
	return compare_sum(written, shard->path, sum, err);
}

/* What the linears had not: vectors, packed weights, and what lies in further shards. */
static enum status check_rest(struct reading *r, struct error *err)
{
	for (size_t i = 0; i < r->n_written; i++) {
		const struct written *written = &r->written[i];
		size_t repeats;
		const struct tensor_info *info = checkpoint_find(&r->files, written->tensor);
		const struct tensor_info *others = checkpoint_repeats(&r->files, written->tensor, &repeats);
		TRY(check_stop(r, err));
		if (!info) return error_set(err, STATUS_INVALID, "the tensor '%s' was written and is missing", written->tensor);
		if (!written->read) TRY(check_part(r, written, info, err));
		for (size_t k = 0; k < repeats; k++)
			TRY(check_part(r, written, &others[k], err));
	}
	return STATUS_OK;
}

/* ---- zeros ------------------------------------------------------------------------------------------------------------------- */

/* Of the groups of N:M, in weights that lie row by row. */
static enum status check_groups(const struct reading *r, const struct tensor_info *info, const char *weights, struct error *err)
{
	struct pattern pattern = r->check->spec->pattern;
	int64_t count = info->shape[0] * info->shape[1];
	for (int64_t i = 0; i < count; i += pattern.of) {
		int64_t zeros = count_zero_weights(weights + (size_t)i * dtype_size(info->dtype), info->dtype, pattern.of);
		if (zeros >= pattern.of - pattern.keep) continue;
		return error_set(err, STATUS_INVALID,
				 "of the tensor '%s' the %d weights from %" PRId64 " on in row %" PRId64 " have %" PRId64
				 " zeros, and %d:%d asks for %d",
				 info->name, pattern.of, i % info->shape[1], i / info->shape[1], zeros, pattern.keep, pattern.of,
				 pattern.of - pattern.keep);
	}
	return STATUS_OK;
}

static enum status check_linear(struct reading *r, const struct linear *linear, int index, int64_t *zeros, struct error *err)
{
	struct tensor_info info;
	TRY(check_stop(r, err));
	TRY(block_linear_tensor(&r->model, linear, index, &info, err));
	TRY(find_room(r, linear->transposed ? 2 * info.bytes : info.bytes, err));
	TRY(checkpoint_read(&r->model.checkpoint, &info, r->room, err));
	const struct tensor_info *whole = checkpoint_find(&r->files, info.name);
	struct written *written = whole ? find_written(r, info.name, info.offset - whole->offset, info.bytes) : NULL;
	if (written) {
		const char *path = r->files.shards[whole->shard].path;
		TRY(compare_sum(written, path, crc32_z(0, (const void *)r->room, (size_t)info.bytes), err));
		written->read = true;
	}
	*zeros += count_zero_weights(r->room, info.dtype, linear->rows * linear->cols);
	if (!r->check->spec->pattern.of) return STATUS_OK;
	const char *weights = r->room;
	if (linear->transposed) {
		layout_memory_order(linear, r->room + info.bytes, r->room, info.dtype);
		weights += info.bytes;
	}
	return check_groups(r, &info, weights, err);
}

/* `counted`: the data of block.finished, whose zeros a tune has counted again. */
static enum status check_block(struct reading *r, int index, const cJSON *counted, struct error *err)
{
	const struct block_layout *layout = &r->layout;
	int64_t zeros[LAYOUT_MAX_KINDS] = {0};
	for (int i = 0; i < layout->n_linears; i++)
		TRY(check_linear(r, &layout->linears[i], index, &zeros[layout->linears[i].kind], err));
	for (int i = 0; i < layout->n_kinds; i++) {
		const cJSON *layer =
			cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(counted, "layers"), layout->kinds[i]);
		double then = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(layer, "zeros")), now = (double)zeros[i];
		if (now == then) continue;
		return error_set(err, STATUS_INVALID, "block %d: %s has %.0f zeros, and had %.0f when it was written", index,
				 layout->kinds[i], now, then);
	}
	return STATUS_OK;
}

static enum status check_blocks(struct reading *r, struct error *err)
{
	int index = 0;
	const cJSON *counted;
	cJSON_ArrayForEach(counted, r->check->savepoint->blocks) TRY(check_block(r, index++, counted, err));
	return STATUS_OK;
}

/* ---- what was copied --------------------------------------------------------------------------------------------------------- */

static int by_tensor(const void *a, const void *b)
{
	return strcmp(((const struct written *)a)->tensor, ((const struct written *)b)->tensor);
}

static enum status copy_differs(const struct reading *r, const struct tensor_info *to, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: the tensor '%s', which is copied, differs from the model's",
			 r->files.shards[to->shard].path, to->name);
}

/* Of a linear that the model has packed, and the output not: row by row. */
static enum status check_unpacked(struct reading *r, const struct tensor_info *from, const struct tensor_info *to,
				  struct error *err)
{
	struct tensor_info row = *from;
	row.bytes = from->bytes / from->shape[0];
	TRY(find_room(r, 2 * row.bytes, err));
	for (row.offset = 0; row.offset < from->bytes; row.offset += row.bytes) {
		TRY(check_stop(r, err));
		TRY(checkpoint_read(&r->check->model->checkpoint, &row, r->room, err));
		TRY(file_read(&r->files.shards[to->shard], r->room + row.bytes, (size_t)row.bytes, to->offset + row.offset, err));
		if (memcmp(r->room, r->room + row.bytes, (size_t)row.bytes) != 0) return copy_differs(r, to, err);
	}
	return STATUS_OK;
}

static enum status check_copy(struct reading *r, const struct tensor_info *from, const struct tensor_info *to, struct error *err)
{
	const struct file *source = &r->check->model->checkpoint.shards[from->shard], *copy = &r->files.shards[to->shard];
	if (from->packed) return check_unpacked(r, from, to, err);
	TRY(find_room(r, 2 * CHUNK, err));
	for (int64_t at = 0; at < to->bytes; at += CHUNK) {
		int64_t n = to->bytes - at < CHUNK ? to->bytes - at : CHUNK;
		TRY(check_stop(r, err));
		TRY(file_read(source, r->room, (size_t)n, from->offset + at, err));
		TRY(file_read(copy, r->room + CHUNK, (size_t)n, to->offset + at, err));
		if (memcmp(r->room, r->room + CHUNK, (size_t)n) != 0) return copy_differs(r, to, err);
	}
	return STATUS_OK;
}

/* Sorts what was written. */
static enum status check_copies(struct reading *r, struct error *err)
{
	qsort(r->written, r->n_written, sizeof *r->written, by_tensor);
	for (size_t i = 0; i < r->files.n_tensors; i++) {
		const struct tensor_info *to = &r->files.tensors[i];
		const struct tensor_info *from = checkpoint_find(&r->check->model->checkpoint, to->name);
		const struct written wanted = {.tensor = to->name};
		if (!from || !same_kind(from, to)) continue;
		if (bsearch(&wanted, r->written, r->n_written, sizeof wanted, by_tensor)) continue;
		TRY(check_copy(r, from, to, err));
	}
	return STATUS_OK;
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */

static enum status read_all(struct reading *r, struct error *err)
{
	const struct place *place = writer_place(r->check->writer);
	TRY(checkpoint_open(place, NULL, &r->files, err));
	/* What is read then comes from the disk, not from what the kernel remembers to have put there. */
	for (int i = 0; i < r->files.n_shards; i++)
		posix_fadvise(r->files.shards[i].fd, 0, 0, POSIX_FADV_DONTNEED);
	TRY(compare_tensors(r, err));
	TRY(model_open(place, NULL, &r->model, err));
	TRY(block_layout_create(&r->model.config, &r->layout, err));
	TRY(parse_written(r, err));
	TRY(check_blocks(r, err));
	if (!r->written) return STATUS_OK;
	TRY(check_rest(r, err));
	return check_copies(r, err);
}

enum status self_check_files(const struct self_check *check, struct error *err)
{
	struct reading r = {.check = check};
	enum status status = read_all(&r, err);
	free(r.room);
	free(r.written);
	block_layout_release(&r.layout);
	model_close(&r.model);
	checkpoint_close(&r.files);
	return status == STATUS_OK ? status : self_check_failed(status, err);
}

enum status self_check_loss(const struct self_check *check, double loss, struct error *err)
{
	double wanted = check->savepoint->end_loss;
	if (isnan(wanted) || fabs(loss - wanted) <= SELF_CHECK_TOLERANCE * fmax(1, wanted)) return STATUS_OK;
	error_set(err, STATUS_INVALID,
		  "on the first sequences of the calibration its perplexity is %.6g, and was %.6g behind the last block", exp(loss),
		  exp(wanted));
	return self_check_failed(STATUS_INVALID, err);
}
