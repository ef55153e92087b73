/* What has a rate of its own: a row, some neighbouring rows of a linear, or a linear. */
#ifndef BESAD_ENGINE_BESA_GROUPS_H
#define BESAD_ENGINE_BESA_GROUPS_H

#include "engine/model/block.h"
#include "engine/spec/spec.h"

/* The last group of a linear may have fewer rows than the others. */
struct groups {
	int64_t per;    /* rows of a group: 1, or INT64_MAX where each linear is one */
	int64_t *first; /* [n_linears + 1]: the first group of each linear, and behind the last how many there are */
};

enum status groups_create(const struct spec *, const struct block_layout *, struct groups *ret, struct error *err);
void groups_release(struct groups *);

/* Whether groups are neither rows nor linears. */
static inline bool groups_are_some_rows(const struct groups *groups)
{
	return groups->per > 1 && groups->per < INT64_MAX;
}

/* The rows of a group of linear i. */
int64_t groups_rows(const struct groups *, const struct block_layout *, int i, int64_t group);

/* rates [layout->rows], on the host: where those of the groups stand in front, each row gets that of its group. */
void groups_spread(const struct groups *, const struct block_layout *, float *rates);

/* For groups of some rows, of one linear. They fill backend->error. */

/* out = weight where its rank is not below the threshold of its group, else +0. threshold: device I32 [groups of the linear]. */
enum status groups_mask(const struct groups *, struct backend *, struct tensor out, struct tensor weight, struct tensor rank,
			const int32_t *threshold);

/* sums [groups of the linear, n] = what `of_rows` [rows, n] comes to in each group, both F32. */
enum status groups_sum(const struct groups *, struct backend *, struct tensor sums, struct tensor of_rows);

#endif
