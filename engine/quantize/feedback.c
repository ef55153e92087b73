#include "engine/quantize/feedback.h"

#include "engine/prune/least_squares.h"

/* Of the mean of the Gram matrix' diagonal, as published. */
static const double DAMPENING = 0.01;

static enum status allocate(struct feedback *f, const struct block_layout *layout)
{
	const struct backend_ops *ops = f->backend->ops;
	int64_t rows = 0;
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].rows > rows) rows = layout->linears[i].rows;
	TRY(ops->alloc(f->backend, least_squares_room(layout), &f->support));
	TRY(ops->alloc(f->backend, least_squares_room(layout), &f->nearest));
	return ops->alloc(f->backend, (size_t)rows * PRUNE_COLUMNS * sizeof(float), &f->error);
}

enum status feedback_create(struct backend *backend, const struct block_layout *layout, struct feedback *ret, struct error *err)
{
	struct feedback feedback = {.backend = backend};
	TRY(factor_create(backend, layout_most_columns(layout), &feedback.factor, err));
	if (allocate(&feedback, layout) != STATUS_OK) {
		*err = backend->error;
		feedback_release(&feedback);
		return err->status;
	}
	*ret = feedback;
	return STATUS_OK;
}

void feedback_release(struct feedback *f)
{
	if (!f->backend) return;
	const struct backend_ops *ops = f->backend->ops;
	ops->release(f->backend, f->support);
	ops->release(f->backend, f->nearest);
	ops->release(f->backend, f->error);
	factor_release(&f->factor);
	*f = (struct feedback){0};
}

enum status feedback_begin(struct feedback *f, struct tensor gram, struct damping *ret)
{
	return factor_compute(&f->factor, gram, DAMPENING, ret);
}

/* Columns that are quantized at a time: whole groups, or, of wide ones, a part. */
static int64_t columns_at_once(int64_t group)
{
	return group < PRUNE_COLUMNS ? PRUNE_COLUMNS - PRUNE_COLUMNS % group : PRUNE_COLUMNS;
}

/* `count` of the groups' numbers, from that of column `first` on. */
static struct tensor numbers_at(struct tensor numbers, const struct grid *grid, int64_t first, int64_t count)
{
	return tensor_cols(numbers, first / grid->group, count);
}

enum status feedback_quantize(struct feedback *f, const struct grid *grid, struct tensor weight, struct tensor steps,
			      struct tensor zeros)
{
	struct backend *backend = f->backend;
	int64_t cols = weight.cols, most = columns_at_once(grid->group);
	struct tensor support = tensor_padded(f->support, weight.rows, cols, DTYPE_F32),
		      nearest = tensor_padded(f->nearest, weight.rows, cols, DTYPE_F32), none = {0};
	TRY(backend->ops->convert(backend, support, weight));
	TRY(backend->ops->quantize(backend, grid, nearest, steps, zeros, support, none));
	for (int64_t first = 0; first < cols; first += most) {
		int64_t n = cols - first < most ? cols - first : most, next = first + n;
		int64_t groups = n > grid->group ? n / grid->group : 1;
		struct tensor error = tensor_cols(tensor_make(f->error, weight.rows, PRUNE_COLUMNS, DTYPE_F32), 0, n);
		TRY(backend->ops->quantize_columns(backend, grid, tensor_cols(weight, first, n), error,
						   tensor_cols(support, first, n), factor_part(&f->factor, first, n, first, n),
						   numbers_at(steps, grid, first, groups), numbers_at(zeros, grid, first, groups)));
		if (next == cols) break;
		TRY(backend->ops->matmul(backend, tensor_cols(weight, next, cols - next), error, false,
					 factor_part(&f->factor, first, n, next, cols - next), false, true));
	}
	return STATUS_OK;
}
