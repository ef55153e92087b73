/* A matrix of cuda/sparse.h on its way to the device: what is known of it besides what an archive has. */
#include <stdlib.h>

#include "cuda/sparse.h"
#include "engine/compute/backend.h"
#include "engine/sparse/matvec.h"

_Static_assert((int)CUDA_SPARSE_WORD == (int)SPARSE_WORD && (int)CUDA_SPARSE_VECTORS == (int)SPARSE_VECTORS,
	       "as products on the processor");

/* How many values lie before each segment; returns the most between two of them. */
static int64_t find_starts(const struct sparse_matrix *m, int64_t segments, uint32_t *starts)
{
	int64_t at = 0, longest = 0;
	for (int64_t row = 0; row < m->rows; row++) {
		if (row % m->block_rows == 0) at = m->offsets[row / m->block_rows] / (int64_t)sizeof *m->values;
		for (int64_t word = 0; word < m->words; word++) {
			if (word % CUDA_SPARSE_SEGMENT == 0) starts[row * segments + word / CUDA_SPARSE_SEGMENT] = (uint32_t)at;
			at += __builtin_popcountll(m->mask[row * m->words + word]);
		}
	}
	starts[m->rows * segments] = (uint32_t)(m->offsets[m->blocks] / (int64_t)sizeof *m->values);
	for (int64_t i = 0; i < m->rows * segments; i++) {
		int64_t length = (int64_t)starts[i + 1] - starts[i];
		if (length > longest) longest = length;
	}
	return longest;
}

/* *ret is the caller's to release, whatever follows. */
static enum status upload(struct backend *backend, const void *host, size_t bytes, void **ret)
{
	TRY(backend->ops->alloc(backend, bytes, ret));
	return backend->ops->upload(backend, *ret, host, bytes);
}

enum status cuda_sparse_upload(struct backend *backend, const struct sparse_matrix *m, struct cuda_sparse *ret)
{
	if (m->grids.bits || !m->mask || m->rows < 1 || m->offsets[m->blocks] / 2 > UINT32_MAX)
		return error_set(&backend->error, STATUS_UNSUPPORTED,
				 "cuda sparse_upload: only bf16 values with a bitmap, of less than 8 GiB, are multiplied");
	struct cuda_sparse made = {.rows = m->rows, .cols = m->cols, .words = m->words};
	made.segments = (m->words + CUDA_SPARSE_SEGMENT - 1) / CUDA_SPARSE_SEGMENT;
	size_t mask = (size_t)(m->rows * m->words) * sizeof *m->mask, values = (size_t)m->offsets[m->blocks];
	size_t starts = (size_t)(m->rows * made.segments + 1) * sizeof *made.starts;
	uint32_t *room = malloc(starts);
	if (!room) return error_set(&backend->error, STATUS_NO_MEMORY, "cuda sparse_upload: no host memory");
	made.longest = find_starts(m, made.segments, room);
	made.bytes = (int64_t)(mask + values + starts);
	void *parts[3] = {NULL, NULL, NULL};
	enum status status = upload(backend, m->mask, mask, &parts[0]);
	if (status == STATUS_OK) status = upload(backend, m->values, values, &parts[1]);
	if (status == STATUS_OK) status = upload(backend, room, starts, &parts[2]);
	free(room);
	made.mask = parts[0];
	made.values = parts[1];
	made.starts = parts[2];
	if (status == STATUS_OK)
		*ret = made;
	else
		cuda_sparse_release(backend, &made);
	return status;
}

void cuda_sparse_release(struct backend *backend, struct cuda_sparse *m)
{
	backend->ops->release(backend, (void *)(uintptr_t)m->mask);
	backend->ops->release(backend, (void *)(uintptr_t)m->values);
	backend->ops->release(backend, (void *)(uintptr_t)m->starts);
	*m = (struct cuda_sparse){0};
}
