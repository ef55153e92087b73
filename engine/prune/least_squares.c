#include "engine/prune/least_squares.h"

#include <math.h>
#include <stdlib.h>

size_t least_squares_room(const struct block_layout *layout)
{
	size_t most = 0;
	for (int i = 0; i < layout->n_linears; i++) {
		struct tensor matrix = tensor_padded(NULL, layout->linears[i].rows, layout->linears[i].cols, DTYPE_F32);
		if (tensor_room(&matrix) > most) most = tensor_room(&matrix);
	}
	return most;
}

static enum status allocate(struct least_squares *s, const struct block_layout *layout)
{
	struct backend *backend = s->backend;
	int64_t rows = 0, cols = layout_most_columns(layout);
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].rows > rows) rows = layout->linears[i].rows;
	s->host = malloc((size_t)cols * sizeof *s->host);
	if (!s->host) return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for a diagonal of %lld", (long long)cols);
	for (size_t i = 0; i < sizeof s->room / sizeof *s->room; i++)
		TRY(backend->ops->alloc(backend, least_squares_room(layout), &s->room[i]));
	TRY(backend->ops->alloc(backend, (size_t)rows * sizeof(float), &s->energy));
	return backend->ops->alloc(backend, (size_t)cols * sizeof(float), &s->diagonal);
}

enum status least_squares_create(const struct block *block, const atomic_bool *stop, struct least_squares *ret, struct error *err)
{
	struct least_squares solver = {.backend = block->backend, .stop = stop};
	enum status status = allocate(&solver, &block->layout);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		least_squares_release(&solver);
		return status;
	}
	*ret = solver;
	return STATUS_OK;
}

void least_squares_release(struct least_squares *s)
{
	if (!s->backend) return;
	for (size_t i = 0; i < sizeof s->room / sizeof *s->room; i++)
		s->backend->ops->release(s->backend, s->room[i]);
	s->backend->ops->release(s->backend, s->energy);
	s->backend->ops->release(s->backend, s->diagonal);
	free(s->host);
	*s = (struct least_squares){0};
}

void least_squares_begin(struct least_squares *s, int64_t rows, int64_t cols)
{
	struct tensor *const tensors[] = {&s->support, &s->target, &s->p, &s->product};
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		*tensors[i] = tensor_padded(s->room[i], rows, cols, DTYPE_F32);
}

enum status least_squares_aim(struct least_squares *s, struct tensor weight, struct tensor gram)
{
	return s->backend->ops->matmul(s->backend, s->target, weight, false, gram, false, false);
}

/* s->diagonal = that of the Gram matrix, *ret its mean. */
static enum status take_diagonal(struct least_squares *s, struct tensor gram, double *ret)
{
	struct backend *backend = s->backend;
	double sum = 0;
	TRY(backend->ops->convert(backend, tensor_make(s->diagonal, gram.rows, 1, DTYPE_F32), tensor_diagonal(gram)));
	TRY(backend->ops->download(backend, s->host, s->diagonal, (size_t)gram.rows * sizeof *s->host));
	for (int64_t i = 0; i < gram.rows; i++)
		sum += s->host[i];
	if (!isfinite(sum)) return error_set(&backend->error, STATUS_NUMERIC, "the Gram matrix of the inputs is not finite");
	*ret = sum / (double)gram.rows;
	return STATUS_OK;
}

enum status least_squares_solve(struct least_squares *s, const struct least_squares_settings *settings, struct tensor weight,
				struct tensor gram)
{
	struct backend *backend = s->backend;
	const struct backend_ops *ops = backend->ops;
	struct tensor diagonal = tensor_make(s->diagonal, 1, gram.rows, DTYPE_F32), r = s->target;
	double mean = 0;
	TRY(take_diagonal(s, gram, &mean));
	float lambda = (float)(settings->damping * mean);
	TRY(ops->keep_where(backend, weight, weight, s->support));
	if (!(lambda > 0) && !backend->dry) return STATUS_OK; /* inputs of nothing but zeros have nothing to say */
	TRY(ops->matmul(backend, s->product, weight, false, gram, false, false));
	TRY(ops->conjugate_start(backend, r, s->p, s->energy, s->target, s->product, s->support, diagonal, lambda));
	for (int i = 0; i < settings->steps; i++) {
		if (atomic_load_explicit(s->stop, memory_order_relaxed))
			return error_set(&backend->error, STATUS_CANCELLED, "stopped while pruning");
		TRY(ops->matmul(backend, s->product, s->p, false, gram, false, false));
		TRY(ops->conjugate_step(backend, weight, r, s->p, s->energy, s->product, s->support, diagonal, lambda));
	}
	return STATUS_OK;
}
