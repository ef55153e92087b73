#include "engine/methods/besa/groups.h"

#include <stdlib.h>

static int64_t count(const struct groups *groups, int64_t rows)
{
	return rows / groups->per + (rows % groups->per != 0);
}

enum status groups_create(const struct spec *spec, const struct block_layout *layout, struct groups *ret, struct error *err)
{
	bool by_layer = spec->besa.granularity == GRANULARITY_LAYER;
	struct groups groups = {.per = by_layer ? INT64_MAX : spec->besa.rows_per_group};
	groups.first = calloc((size_t)layout->n_linears + 1, sizeof *groups.first);
	if (!groups.first) return error_set(err, STATUS_NO_MEMORY, "no memory for the rates of %d linears", layout->n_linears);
	for (int i = 0; i < layout->n_linears; i++)
		groups.first[i + 1] = groups.first[i] + count(&groups, layout->linears[i].rows);
	*ret = groups;
	return STATUS_OK;
}

void groups_release(struct groups *groups)
{
	free(groups->first);
	*groups = (struct groups){0};
}

/* Of `rows` rows those that the group, of those of a linear, has. */
static int64_t rows_of(const struct groups *groups, int64_t rows, int64_t group)
{
	int64_t left = group ? rows - group * groups->per : rows;
	return left < groups->per ? left : groups->per;
}

int64_t groups_rows(const struct groups *groups, const struct block_layout *layout, int i, int64_t group)
{
	return rows_of(groups, layout->linears[i].rows, group - groups->first[i]);
}

/* From the last row to the first: no group has a later place than its rows. */
void groups_spread(const struct groups *groups, const struct block_layout *layout, float *rates)
{
	for (int i = layout->n_linears - 1; i >= 0; i--) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t r = linear->rows - 1; r >= 0; r--)
			rates[linear->row + r] = rates[groups->first[i] + r / groups->per];
	}
}

/* The row at `place` of each group, as the rows of a tensor: a smaller last group may have none. */
static struct tensor each_groups(const struct groups *groups, struct tensor t, int64_t place)
{
	struct tensor rows = tensor_rows(t, place, count(groups, t.rows - place));
	rows.stride *= groups->per;
	return rows;
}

/* A call for each place in a group, or one for each group, whichever are fewer. */
enum status groups_mask(const struct groups *groups, struct backend *backend, struct tensor out, struct tensor weight,
			struct tensor rank, const int32_t *threshold)
{
	const struct backend_ops *ops = backend->ops;
	int64_t n = count(groups, out.rows);
	for (int64_t place = 0; groups->per < n && place < groups->per; place++)
		TRY(ops->mask_weights(backend, each_groups(groups, out, place), each_groups(groups, weight, place),
				      each_groups(groups, rank, place), threshold, false));
	for (int64_t g = 0; groups->per >= n && g < n; g++) {
		int64_t first = g * groups->per, rows = rows_of(groups, out.rows, g);
		TRY(ops->mask_weights(backend, tensor_rows(out, first, rows), tensor_rows(weight, first, rows),
				      tensor_rows(rank, first, rows), threshold + g, true));
	}
	return STATUS_OK;
}

enum status groups_sum(const struct groups *groups, struct backend *backend, struct tensor sums, struct tensor of_rows)
{
	const struct backend_ops *ops = backend->ops;
	int64_t n = sums.rows;
	if (groups->per < n) TRY(ops->convert(backend, sums, each_groups(groups, of_rows, 0)));
	for (int64_t place = 1; groups->per < n && place < groups->per; place++) {
		struct tensor rows = each_groups(groups, of_rows, place);
		TRY(ops->add(backend, tensor_rows(sums, 0, rows.rows), rows));
	}
	for (int64_t g = 0; groups->per >= n && g < n; g++)
		TRY(ops->column_sums(backend, tensor_rows(sums, g, 1),
				     tensor_rows(of_rows, g * groups->per, rows_of(groups, of_rows.rows, g))));
	return STATUS_OK;
}
