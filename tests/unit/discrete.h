/* The CPU as a device with memory of its own: what is told apart by `unified`, and the operations that only such devices have. */
#ifndef BESAD_TESTS_DISCRETE_H
#define BESAD_TESTS_DISCRETE_H

#include <stdint.h>
#include <stdlib.h>

#include "engine/compute/backend.h"
#include "engine/compute/dry.h"

static struct backend_ops discrete_operations; /* the CPU's */
static size_t discrete_limit;                  /* bytes of its memory */

static enum status discrete_alloc(struct backend *backend, size_t bytes, void **ret)
{
	size_t limit = backend->dry ? backend->dry->capacity : discrete_limit;
	if (bytes > limit || backend->memory.now > limit - bytes)
		return error_set(&backend->error, STATUS_NO_MEMORY, "alloc: no memory for %zu bytes of the device", bytes);
	return discrete_operations.alloc(backend, bytes, ret);
}

/* The host's memory is none of the device's. */
static enum status discrete_alloc_host(struct backend *backend, size_t bytes, void **ret)
{
	void *memory = malloc(bytes + 1);
	if (!memory) return error_set(&backend->error, STATUS_NO_MEMORY, "alloc_host: no memory for %zu bytes", bytes);
	*ret = memory;
	return STATUS_OK;
}

static void discrete_release_host(struct backend *backend, void *memory)
{
	(void)backend;
	free(memory);
}

static enum status discrete_memory(struct backend *backend, size_t *ret_free, size_t *ret_total)
{
	*ret_total = discrete_limit;
	*ret_free = discrete_limit - backend->memory.now;
	return STATUS_OK;
}

static enum status discrete_fetch(struct backend *backend, void *device, const void *host, size_t bytes)
{
	return discrete_operations.upload(backend, device, host, bytes);
}

static enum status discrete_fetched(struct backend *backend)
{
	return discrete_operations.sync(backend);
}

static enum status discrete_record_begin(struct backend *backend)
{
	return error_set(&backend->error, STATUS_UNSUPPORTED, "record_begin: not here");
}

static enum status discrete_order_ranks(struct backend *backend, struct tensor order, struct tensor rank)
{
	for (int64_t i = 0; i < rank.rows && !backend->dry; i++)
		for (int64_t j = 0; j < rank.cols; j++) {
			uint16_t *to = order.data;
			const uint16_t *from = rank.data;
			to[i * order.stride + from[i * rank.stride + j]] = (uint16_t)j;
		}
	return STATUS_OK;
}

/* Row by row, what has come or gone since the threshold that is held. */
static enum status discrete_move_mask(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
				      struct tensor order, void *held, const void *threshold, bool shared)
{
	int32_t *was = held;
	const int32_t *is = threshold;
	for (int64_t i = 0; i < out.rows && !backend->dry; i++) {
		int32_t now = is[shared ? 0 : i], then = was[i] - 1;
		for (int64_t r = 0; then >= 0 && r < rank.cols; r++) {
			int64_t j = ((const uint16_t *)order.data)[i * order.stride + r];
			if ((r < now) == (r < then)) continue;
			TRY(discrete_operations.mask_weights(backend, tensor_cols(tensor_rows(out, i, 1), j, 1),
							     tensor_cols(tensor_rows(weight, i, 1), j, 1),
							     tensor_cols(tensor_rows(rank, i, 1), j, 1), &now, true));
		}
		if (then < 0)
			TRY(discrete_operations.mask_weights(backend, tensor_rows(out, i, 1), tensor_rows(weight, i, 1),
							     tensor_rows(rank, i, 1), &now, true));
		was[i] = now + 1;
	}
	return STATUS_OK;
}

/* From now on this backend, of the CPU, is one with `limit` bytes of memory of its own. One at a time. */
static void discrete_backend(struct backend *backend, size_t limit)
{
	struct backend_ops *ops = &backend->unchecked;
	discrete_operations = *ops;
	discrete_limit = limit;
	backend->unified = false;
	ops->alloc = discrete_alloc;
	ops->alloc_host = discrete_alloc_host;
	ops->release_host = discrete_release_host;
	ops->memory = discrete_memory;
	ops->fetch = discrete_fetch;
	ops->fetched = discrete_fetched;
	ops->record_begin = discrete_record_begin;
	ops->order_ranks = discrete_order_ranks;
	ops->move_mask = discrete_move_mask;
	backend_check_operations(backend);
}

#endif
