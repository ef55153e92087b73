/* Blocked by tiles of FACTOR_TILE columns. With R upper triangular and G + λ·1 = R·Rᵀ, U is R⁻¹: R is found from the last tile
 * to the first,
 *
 *   R[k,k] from what is left of the tile;  R[i,k] = A[i,k]·R[k,k]⁻ᵀ;  A[i,j] −= R[i,k]·R[j,k]ᵀ        for i, j < k
 *
 * and overwrites the Gram matrix; then U from the first to the last, U[k,k] = R[k,k]⁻¹ and U[0:k,k] = −U[0:k,0:k]·R[0:k,k]·U[k,k].
 *
 * What is overwritten is kept, where R may not be found: the tiles on the diagonal in `tiles`, and what is right of them in U,
 * which is not needed there before R is known. */
#include "engine/prune/factor.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static enum status allocate(struct backend *backend, struct tensor *tensor, int64_t rows, int64_t cols)
{
	*tensor = tensor_make(NULL, rows, cols, DTYPE_F32);
	return backend->ops->alloc(backend, tensor_bytes(tensor), &tensor->data);
}

static enum status allocate_all(struct factor *f)
{
	struct backend *backend = f->backend;
	f->host = malloc((size_t)f->cols * sizeof *f->host);
	f->dead = calloc((size_t)f->cols, sizeof *f->dead);
	if (!f->host || !f->dead)
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for a diagonal of %" PRId64, f->cols);
	f->u = tensor_padded(NULL, f->cols, f->cols, DTYPE_F32);
	TRY(backend->ops->alloc(backend, tensor_room(&f->u), &f->u.data));
	TRY(allocate(backend, &f->negated, f->cols, FACTOR_TILE));
	TRY(allocate(backend, &f->column, f->cols, FACTOR_TILE));
	TRY(allocate(backend, &f->minus, f->cols, FACTOR_TILE));
	TRY(allocate(backend, &f->tiles, f->cols, FACTOR_TILE));
	TRY(allocate(backend, &f->diagonal, f->cols, 1));
	return backend->ops->alloc(backend, sizeof(int32_t), &f->bad);
}

enum status factor_create(struct backend *backend, int64_t cols, struct factor *ret, struct error *err)
{
	struct factor factor = {.backend = backend, .cols = cols};
	enum status status = allocate_all(&factor);
	if (status != STATUS_OK) {
		*err = backend->error;
		factor_release(&factor);
		return status;
	}
	*ret = factor;
	return STATUS_OK;
}

void factor_release(struct factor *f)
{
	if (!f->backend) return;
	const struct tensor *tensors[] = {&f->u, &f->negated, &f->column, &f->minus, &f->tiles, &f->diagonal};
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		f->backend->ops->release(f->backend, tensors[i]->data);
	f->backend->ops->release(f->backend, f->bad);
	free(f->host);
	free(f->dead);
	*f = (struct factor){0};
}

/* [rows, cols] of a matrix from (row, col) on. */
static struct tensor part(struct tensor matrix, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
	return tensor_cols(tensor_rows(matrix, row, rows), col, cols);
}

/* Of λ, what a column of zeros gets. */
static const double DEAD_SHARE = 1e-6;

/* Where fp32 finds a matrix not positive definite its damping grows. */
static const double DAMPING_GROWTH = 10;

static enum status add_to_diagonal(struct factor *f, struct tensor matrix, double value)
{
	struct backend *backend = f->backend;
	struct tensor values = tensor_rows(f->diagonal, 0, matrix.rows);
	for (int64_t i = 0; i < matrix.rows; i++)
		f->host[i] = (float)(f->dead[i] ? DEAD_SHARE * value : value);
	TRY(backend->ops->upload(backend, values.data, f->host, tensor_bytes(&values)));
	return backend->ops->add(backend, tensor_diagonal(matrix), values);
}

enum status factor_diagonal(struct factor *f, struct tensor matrix, double *ret)
{
	struct backend *backend = f->backend;
	struct tensor values = tensor_rows(f->diagonal, 0, matrix.rows);
	double sum = 0;
	TRY(backend->ops->convert(backend, values, tensor_diagonal(matrix)));
	TRY(backend->ops->download(backend, f->host, values.data, tensor_bytes(&values)));
	for (int64_t i = 0; i < matrix.rows; i++)
		sum += f->host[i];
	if (!isfinite(sum)) return error_set(&backend->error, STATUS_NUMERIC, "the Gram matrix of the inputs is not finite");
	*ret = sum / (double)matrix.rows;
	return STATUS_OK;
}

/* Of what is symmetric or triangular a product takes the other triangle along, which nobody reads, in panels of so many columns
 * alone. */
enum { PANEL = 512 };

/* a −= column·columnᵀ, of a square matrix, on and above its diagonal. */
static enum status update(struct factor *f, struct tensor a, struct tensor minus, struct tensor column)
{
	for (int64_t col = 0; col < a.cols; col += PANEL) {
		int64_t cols = a.cols - col < PANEL ? a.cols - col : PANEL;
		TRY(f->backend->ops->matmul(f->backend, part(a, 0, col + cols, col, cols), tensor_rows(minus, 0, col + cols), false,
					    tensor_rows(column, col, cols), true, true));
	}
	return STATUS_OK;
}

/* out = u·column, with u upper triangular. */
static enum status multiply(struct factor *f, struct tensor out, struct tensor u, struct tensor column)
{
	for (int64_t row = 0; row < u.rows; row += PANEL) {
		int64_t rows = u.rows - row < PANEL ? u.rows - row : PANEL, rest = u.cols - row;
		TRY(f->backend->ops->matmul(f->backend, tensor_rows(out, row, rows), part(u, row, rows, row, rest), false,
					    tensor_rows(column, row, rest), false, false));
	}
	return STATUS_OK;
}

/* R of a, in place above the tiles of its diagonal; these, inverted, in u, and negated. */
static enum status factorize(struct factor *f, struct tensor a)
{
	struct backend *backend = f->backend;
	const struct backend_ops *ops = backend->ops;
	for (int64_t k = (a.rows - 1) / FACTOR_TILE * FACTOR_TILE; k >= 0; k -= FACTOR_TILE) {
		int64_t n = a.rows - k < FACTOR_TILE ? a.rows - k : FACTOR_TILE;
		struct tensor tile = part(a, k, n, k, n), above = part(a, 0, k, k, n), inverse = part(f->u, k, n, k, n);
		struct tensor negated = part(f->negated, k, n, 0, n), column = part(f->column, 0, k, 0, n),
			      minus = part(f->minus, 0, k, 0, n);
		TRY(ops->invert_factor(backend, inverse, negated, tile, f->bad));
		if (k == 0) break;
		TRY(ops->matmul(backend, column, above, false, inverse, true, false));
		TRY(ops->matmul(backend, minus, above, false, negated, true, false));
		TRY(ops->convert(backend, above, column));
		TRY(update(f, part(a, 0, k, 0, k), minus, column));
	}
	return STATUS_OK;
}

/* What is right of the tiles on u's diagonal, from R in `a`. */
static enum status invert(struct factor *f, struct tensor a)
{
	struct backend *backend = f->backend;
	for (int64_t k = FACTOR_TILE; k < a.rows; k += FACTOR_TILE) {
		int64_t n = a.rows - k < FACTOR_TILE ? a.rows - k : FACTOR_TILE;
		struct tensor column = part(f->column, 0, k, 0, n);
		TRY(backend->ops->matmul(backend, column, part(a, 0, k, k, n), false, part(f->negated, k, n, 0, n), false, false));
		TRY(multiply(f, part(f->u, 0, k, k, n), part(f->u, 0, k, 0, k), column));
	}
	return STATUS_OK;
}

/* `a`, but for what is left of the tiles on its diagonal, to where it is kept, or back from there. */
static enum status keep(struct factor *f, struct tensor a, bool back)
{
	struct backend *backend = f->backend;
	for (int64_t k = 0; k < a.rows; k += FACTOR_TILE) {
		int64_t n = a.rows - k < FACTOR_TILE ? a.rows - k : FACTOR_TILE, next = k + n, right = a.rows - next;
		struct tensor tile = part(a, k, n, k, n), kept = part(f->tiles, k, n, 0, n);
		TRY(backend->ops->convert(backend, back ? tile : kept, back ? kept : tile));
		if (!right) break;
		tile = part(a, k, n, next, right);
		kept = part(f->u, k, n, next, right);
		TRY(backend->ops->convert(backend, back ? tile : kept, back ? kept : tile));
	}
	return STATUS_OK;
}

/* R of a + λ·1 as above. */
static enum status try(struct factor *f, struct tensor a, double lambda, bool *ret_good)
{
	struct backend *backend = f->backend;
	int32_t bad = 0;
	TRY(add_to_diagonal(f, a, lambda));
	TRY(backend->ops->zero(backend, f->negated.data, tensor_bytes(&f->negated))); /* a tile that is no good is not written */
	TRY(backend->ops->zero(backend, f->bad, sizeof bad));
	TRY(factorize(f, a));
	TRY(backend->ops->download(backend, &bad, f->bad, sizeof bad));
	*ret_good = !bad;
	return STATUS_OK;
}

enum status factor_damped(struct factor *f, struct tensor a, double *lambda)
{
	bool good = false;
	TRY(f->backend->ops->zero(f->backend, f->u.data, tensor_room(&f->u)));
	TRY(keep(f, a, false));
	TRY(try(f, a, *lambda, &good));
	for (int i = 1; i < FACTOR_TRIES && !good; i++) {
		*lambda *= DAMPING_GROWTH;
		TRY(keep(f, a, true));
		TRY(try(f, a, *lambda, &good));
	}
	return good ? invert(f, a)
		    : error_set(&f->backend->error, STATUS_NUMERIC,
				"the Gram matrix of the inputs is not positive definite, with %g on its diagonal neither", *lambda);
}

/* The columns of zeros, by the diagonal in f->host; none where there are no others. */
static int64_t find_dead(struct factor *f, int64_t cols, bool all)
{
	int64_t dead = 0;
	for (int64_t i = 0; i < cols; i++) {
		f->dead[i] = f->host[i] == 0 && !all;
		dead += f->dead[i];
	}
	return dead;
}

enum status factor_compute(struct factor *f, struct tensor gram, double dampening, struct damping *ret)
{
	double mean;
	TRY(factor_diagonal(f, gram, &mean));
	bool all = !(mean > 0);
	double first = all ? 1 : dampening * mean, lambda = first;
	*ret = (struct damping){.asked = dampening, .used = dampening, .dead = find_dead(f, gram.rows, all)};
	enum status status = factor_damped(f, gram, &lambda);
	memset(f->dead, 0, (size_t)f->cols * sizeof *f->dead);
	if (lambda > first) ret->used = lambda / mean;
	return status;
}

enum status factor_read_diagonal(struct factor *f, int64_t cols)
{
	double ignored;
	return factor_diagonal(f, factor_part(f, 0, cols, 0, cols), &ignored);
}
