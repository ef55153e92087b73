/* The linears of a block in the file. */
#include <stdio.h>
#include <stdlib.h>

#include "engine/model/block.h"

enum status block_linear_tensor(const struct model *model, const struct linear *linear, int index, struct tensor_info *ret,
				struct error *err)
{
	char name[BLOCK_TENSOR_NAME];
	const struct tensor_info *whole;
	if (linear->stacked) {
		int64_t rows = linear->stored_rows / linear->stacked;
		snprintf(name, sizeof name, "%s.%d.%s", model->config.names->blocks, index, linear->stored);
		int64_t cols = linear->cols;
		TRY(model_stack(model, name, linear->stacked, linear->transposed ? cols : rows, linear->transposed ? rows : cols,
				&whole, err));
	} else {
		int64_t rows = linear->stored_rows, cols = linear->cols;
		snprintf(name, sizeof name, "%s.%d.%s.weight", model->config.names->blocks, index, linear->stored);
		TRY(model_tensor(model, name, linear->transposed ? cols : rows, linear->transposed ? rows : cols, &whole, err));
	}
	int64_t row_bytes = linear->cols * (int64_t)dtype_size(whole->dtype);
	*ret = *whole;
	ret->rank = 2;
	ret->shape[0] = linear->rows;
	ret->shape[1] = linear->cols;
	ret->offset += linear->stored_first * row_bytes;
	ret->bytes = linear->rows * row_bytes;
	return STATUS_OK;
}

enum status block_read_linear(const struct model *model, const struct linear *linear, int index, struct tensor_info *ret_info,
			      void **ret, struct error *err)
{
	void *data;
	TRY(block_linear_tensor(model, linear, index, ret_info, err));
	TRY(model_read(model, ret_info, &data, err));
	if (linear->transposed) {
		void *stored = data;
		data = malloc((size_t)ret_info->bytes);
		if (data) layout_memory_order(linear, data, stored, ret_info->dtype);
		free(stored);
		if (!data)
			return error_set(err, STATUS_NO_MEMORY, "no memory for tensor '%s', which lies transposed", ret_info->name);
	}
	*ret = data;
	return STATUS_OK;
}
