/* A matrix of cuda/sparse.h on its way to the device: from a bitmap and values to lists and distances.
 *
 * Each row's list is dealt to 32 lanes, as evenly as their steps allow. What a lane gets must lie in one window of columns. Where
 * windows lie follows from where the values of all rows together do, so that nearly every row's lane l finds its part in window
 * l; else it takes another window, then less than its share, and then rows have more steps than they would need. */
#include <stdlib.h>
#include <string.h>

#include "cuda/sparse.h"
#include "engine/compute/backend.h"
#include "engine/sparse/matvec.h"

_Static_assert((int)CUDA_SPARSE_WORD == (int)SPARSE_WORD, "as products on the processor");

enum {
	LANES = CUDA_SPARSE_LANES,
	STEP = CUDA_SPARSE_STEP,
	NEAR = CUDA_SPARSE_NEAR,
	CHUNK = 8,           /* columns that windows begin and end with a multiple of */
	MOST_WINDOW = 2040,  /* a place has 11 bits for a window's rows */
	LEAST_OVERLAP = 24,  /* of neighbouring windows: three CHUNKs, as both their ends are rounded */
	WINDOW_ROW = 4 * 32, /* bytes, of one vector or two */
	RUN_OVER = 48        /* columns behind a window that parts of a row are filled up with, as a rule at most */
};

struct list {
	int n;
	uint16_t *columns, *values; /* [cols] */
};

struct windows {
	int64_t height;
	int32_t bases[LANES];
};

/* Of one row: where each lane's part ends in the list, and its place. */
struct deal {
	int end[LANES], place[LANES];
};

struct conversion {
	const struct sparse_matrix *m;
	struct windows windows;
	struct list list;
	struct deal deal;
	uint32_t *steps; /* [rows] */
	int64_t head;
};

/* ---- windows ----------------------------------------------------------------------------------------------------------------- */

static int64_t widest(const int64_t (*bounds)[LANES + 1])
{
	int64_t most = 0;
	for (int b = 0; b < LANES; b++)
		if ((*bounds)[b + 1] - (*bounds)[b] > most) most = (*bounds)[b + 1] - (*bounds)[b];
	return most;
}

/* Columns between which a 32nd of all values lies each. */
static void find_bounds(const struct sparse_matrix *m, int64_t *counts, int64_t (*ret)[LANES + 1])
{
	int64_t all = 0, before = 0, col = 0;
	for (int64_t row = 0; row < m->rows; row++)
		for (int64_t word = 0; word < m->words; word++)
			for (uint64_t bits = m->mask[row * m->words + word]; bits; bits &= bits - 1)
				counts[word * SPARSE_WORD + __builtin_ctzll(bits)]++;
	for (int64_t j = 0; j < m->cols; j++)
		all += counts[j];
	(*ret)[0] = 0;
	(*ret)[LANES] = m->cols;
	for (int b = 1; b < LANES; b++) {
		while (col < m->cols && (before + counts[col]) * LANES <= all * b)
			before += counts[col++];
		(*ret)[b] = col;
	}
}

/* Windows that have twice what lies between their bounds, and more, where there is room, in the middle of them. */
static struct windows find_windows(const struct sparse_matrix *m, int64_t *counts, int64_t room)
{
	struct windows ret;
	int64_t bounds[LANES + 1], most = room / WINDOW_ROW - RUN_OVER;
	if (most > MOST_WINDOW) most = MOST_WINDOW;
	find_bounds(m, counts, &bounds);
	if (widest(&bounds) + LEAST_OVERLAP > most)
		for (int b = 0; b <= LANES; b++)
			bounds[b] = m->cols * b / LANES;
	int64_t least = widest(&bounds) + LEAST_OVERLAP, good = 2 * least + least / 8 + 64;
	ret.height = (good < most ? good : least > most ? least : most) / CHUNK * CHUNK;
	for (int b = 0; b < LANES; b++) {
		int64_t base = bounds[b] - (ret.height - (bounds[b + 1] - bounds[b])) / 2;
		ret.bases[b] = base < 0 ? 0 : (int32_t)(base / CHUNK * CHUNK);
	}
	return ret;
}

/* ---- a row ------------------------------------------------------------------------------------------------------------------- */

static void add(struct list *list, int64_t column, uint16_t value)
{
	list->columns[list->n] = (uint16_t)column;
	list->values[list->n++] = value;
}

/* The list of a row whose values begin there; returns behind them. */
static const uint16_t *list_row(struct conversion *c, int64_t row, const uint16_t *values)
{
	int64_t last = -1;
	c->list.n = 0;
	for (int64_t word = 0; word < c->m->words; word++)
		for (uint64_t bits = c->m->mask[row * c->m->words + word]; bits; bits &= bits - 1) {
			int64_t column = word * SPARSE_WORD + __builtin_ctzll(bits);
			while (last >= 0 && column - last > NEAR)
				add(&c->list, last += NEAR, 0);
			add(&c->list, column, *values++);
			last = column;
		}
	return values;
}

static bool fits(const struct conversion *c, int window, int first, int last)
{
	int32_t base = c->windows.bases[window];
	return c->list.columns[first] >= base && c->list.columns[last] < base + c->windows.height;
}

/* The window that a part lies in, lane's own if it can be; -1: none. */
static int window_of(const struct conversion *c, int lane, int first, int last)
{
	for (int off = 0; off < LANES; off++) {
		if (lane - off >= 0 && fits(c, lane - off, first, last)) return lane - off;
		if (lane + off < LANES && fits(c, lane + off, first, last)) return lane + off;
	}
	return -1;
}

/* Deals the list in parts of no more than `length`; `evenly`, or as much to each lane as it can have. False: some is left. */
static bool deal_parts(struct conversion *c, int length, bool evenly)
{
	const struct list *list = &c->list;
	int at = 0;
	for (int lane = 0; lane < LANES; lane++) {
		int end = evenly ? (int)((int64_t)list->n * (lane + 1) / LANES) : list->n, window = lane;
		if (end > at + length) end = at + length;
		if (end < at) end = at;
		if (end > at) {
			window = window_of(c, lane, at, end - 1);
			if (window < 0) {
				window = LANES - 1;
				while (c->windows.bases[window] > list->columns[at])
					window--;
				while (!fits(c, window, at, end - 1))
					end--;
			}
		}
		c->deal.end[lane] = end;
		c->deal.place[lane] = end > at ? (list->columns[at] - c->windows.bases[window]) * LANES + window : lane;
		at = end;
	}
	return at == list->n;
}

/* Deals the list; returns how many steps that takes. */
static int deal_row(struct conversion *c)
{
	int steps = (c->list.n + CUDA_SPARSE_STEP_VALUES - 1) / CUDA_SPARSE_STEP_VALUES;
	if (deal_parts(c, steps * STEP, true)) return steps;
	while (!deal_parts(c, steps * STEP, false))
		steps++;
	return steps;
}

/* Calls `take` with each row's list dealt. */
static void each_row(struct conversion *c, void (*take)(struct conversion *, int64_t row, int steps, void *), void *context)
{
	const uint16_t *values = NULL;
	for (int64_t row = 0; row < c->m->rows; row++) {
		if (row % c->m->block_rows == 0)
			values = c->m->values + c->m->offsets[row / c->m->block_rows] / (int64_t)sizeof *values;
		values = list_row(c, row, values);
		take(c, row, deal_row(c), context);
	}
}

static void note_steps(struct conversion *c, int64_t row, int steps, void *context)
{
	(void)context;
	c->steps[row] = (uint32_t)steps;
}

/* As many as rows have, but for some that are filled up: no more than a hundredth of all is. */
static int64_t find_head(const struct conversion *c)
{
	for (int64_t head = CUDA_SPARSE_HEAD; head > 0; head--) {
		int64_t all = 0, filled = 0;
		for (int64_t row = 0; row < c->m->rows; row++) {
			all += c->steps[row];
			if (c->steps[row] < head) filled += head - c->steps[row];
		}
		if (100 * filled <= all) return head;
	}
	return 0;
}

/* ---- as the device has it ---------------------------------------------------------------------------------------------------- */

struct image {
	unsigned char *steps;
	uint16_t *places;
	uint32_t *tails;
	int64_t height;
};

/* The `at`-th value of a lane's part, and its distance from the one before. */
static void write_value(const struct conversion *c, const struct image *image, int64_t row, int lane, int64_t at, uint16_t value,
			int distance)
{
	/* The bits of a step's i-th distance: those of the first two and the last two values are apart by a byte each. */
	static const int shifts[STEP] = {0, 8, 4, 12};
	int64_t step = at / STEP;
	step += step < c->head ? row * c->head : image->tails[row] - c->head;
	uint16_t *to = (uint16_t *)(image->steps + step * CUDA_SPARSE_STEP_BYTES), *distances = to + CUDA_SPARSE_STEP_VALUES;
	to[lane * STEP + at % STEP] = value;
	distances[lane] |= (uint16_t)((distance - 1) << shifts[at % STEP]);
}

/* A lane's part, list[first … end), filled up with zeros a column apart: behind its values, but as many as would go too far beyond
 * the window before them, if it begins with so many columns, or between them. Returns how far all goes, in rows of the windows. */
static int64_t write_part(const struct conversion *c, const struct image *image, int64_t row, int lane, int first, int end)
{
	const struct list *list = &c->list;
	int64_t steps = c->steps[row] > c->head ? c->steps[row] : c->head, place = c->deal.place[lane] / LANES;
	int64_t columns = end > first ? list->columns[end - 1] - list->columns[first] + 1 : 0, zeros = steps * STEP - (end - first);
	int64_t excess = place + columns + zeros - (c->windows.height + RUN_OVER);
	excess = excess < 0 ? 0 : excess > zeros ? zeros : excess;
	int64_t before = excess < place ? excess : place, between = excess - before, at = before;
	for (int i = first; i < end; i++) {
		int distance = i > first ? list->columns[i] - list->columns[i - 1] : 1;
		while (distance > 1 && between > 0)
			distance--, between--, at++;
		write_value(c, image, row, lane, at++, list->values[i], distance);
	}
	image->places[row * LANES + lane] = (uint16_t)(c->deal.place[lane] - before * LANES);
	return place - before + columns + zeros - (excess - before - between);
}

static void write_row(struct conversion *c, int64_t row, int steps, void *context)
{
	struct image *image = context;
	(void)steps;
	for (int lane = 0, at = 0; lane < LANES; at = c->deal.end[lane++]) {
		int64_t height = write_part(c, image, row, lane, at, c->deal.end[lane]);
		if (height > image->height) image->height = height;
	}
}

/* Where everything lies; false: a step's number has more than 32 bits. */
static bool lay_out(const struct conversion *c, struct cuda_sparse *ret)
{
	int64_t steps = 0;
	for (int64_t row = 0; row < c->m->rows; row++)
		steps += c->steps[row] > c->head ? c->steps[row] : c->head;
	ret->steps = steps;
	ret->head = c->head;
	memcpy(ret->bases, c->windows.bases, sizeof ret->bases);
	ret->bytes = steps * CUDA_SPARSE_STEP_BYTES + ret->rows * LANES * (int64_t)sizeof(uint16_t) +
		     (ret->rows + 1) * (int64_t)sizeof(uint32_t);
	return steps <= UINT32_MAX;
}

static struct image image_in(void *memory, const struct conversion *c, const struct cuda_sparse *m)
{
	struct image ret = {.steps = memory};
	ret.places = (uint16_t *)(ret.steps + m->steps * CUDA_SPARSE_STEP_BYTES);
	ret.tails = (uint32_t *)(ret.places + m->rows * LANES);
	ret.tails[0] = (uint32_t)(m->rows * m->head);
	for (int64_t row = 0; row < m->rows; row++)
		ret.tails[row + 1] = ret.tails[row] + (c->steps[row] > c->head ? c->steps[row] - (uint32_t)c->head : 0);
	return ret;
}

static enum status send(struct backend *backend, struct conversion *c, struct cuda_sparse *made)
{
	each_row(c, note_steps, NULL);
	c->head = find_head(c);
	if (!lay_out(c, made)) return error_set(&backend->error, STATUS_UNSUPPORTED, "cuda sparse_upload: the matrix is too large");
	void *host = calloc(1, (size_t)made->bytes);
	if (!host) return error_set(&backend->error, STATUS_NO_MEMORY, "cuda sparse_upload: no host memory");
	struct image image = image_in(host, c, made);
	each_row(c, write_row, &image);
	made->height = (image.height + CHUNK - 1) / CHUNK * CHUNK;
	enum status status = backend->ops->alloc(backend, (size_t)made->bytes, &made->memory);
	if (status == STATUS_OK) status = backend->ops->upload(backend, made->memory, host, (size_t)made->bytes);
	free(host);
	return status;
}

enum status cuda_sparse_upload(struct backend *backend, const struct sparse_matrix *m, struct cuda_sparse *ret)
{
	if (m->grids.bits || !m->mask || m->rows < 1 || m->cols > CUDA_SPARSE_COLS)
		return error_set(&backend->error, STATUS_UNSUPPORTED,
				 "cuda sparse_upload: only bf16 values with a bitmap, of at most %d columns, are multiplied",
				 CUDA_SPARSE_COLS);
	struct cuda_sparse made = {.rows = m->rows, .cols = m->cols, .words = m->words};
	struct conversion c = {.m = m};
	int64_t *counts = calloc((size_t)(m->words * SPARSE_WORD), sizeof *counts);
	c.list.columns = malloc((size_t)m->cols * sizeof *c.list.columns);
	c.list.values = malloc((size_t)m->cols * sizeof *c.list.values);
	c.steps = malloc((size_t)m->rows * sizeof *c.steps);
	enum status status = STATUS_NO_MEMORY;
	if (counts && c.list.columns && c.list.values && c.steps) {
		c.windows = find_windows(m, counts, cuda_sparse_room(backend));
		status = send(backend, &c, &made);
	} else {
		error_set(&backend->error, status, "cuda sparse_upload: no host memory");
	}
	free(counts);
	free(c.list.columns);
	free(c.list.values);
	free(c.steps);
	if (status == STATUS_OK)
		*ret = made;
	else
		cuda_sparse_release(backend, &made);
	return status;
}

void cuda_sparse_release(struct backend *backend, struct cuda_sparse *m)
{
	backend->ops->release(backend, m->memory);
	*m = (struct cuda_sparse){0};
}
