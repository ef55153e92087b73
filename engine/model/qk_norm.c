#include "engine/model/qk_norm.h"

int64_t qk_norm_groups(const struct model_config *config, int64_t heads)
{
	return config->qk_norm_whole ? 1 : heads;
}

/* The norms that have weights of their own, one after the other: their number, and what one of them is. */
static int64_t norms_of(const struct model_config *config, int64_t heads)
{
	return config->qk_norm_apart ? heads : 1;
}

static struct norm norm_of(const struct model_config *config, int64_t heads)
{
	struct norm norm = config->norm;
	norm.groups = (int)(qk_norm_groups(config, heads) / norms_of(config, heads));
	return norm;
}

static struct tensor part_of(struct tensor all, int64_t i, int64_t parts)
{
	return tensor_cols(all, i * (all.cols / parts), all.cols / parts);
}

enum status qk_norm_forward(const struct block *block, int64_t heads, struct tensor y, struct tensor stats, struct tensor x,
			    struct tensor weight)
{
	struct norm norm = norm_of(block->config, heads);
	struct tensor none = {0};
	int64_t n = norms_of(block->config, heads);
	for (int64_t i = 0; i < n; i++)
		TRY(block->backend->ops->norm_forward(block->backend, &norm, part_of(y, i, n), part_of(stats, i, n),
						      part_of(x, i, n), part_of(weight, i, n), none));
	return STATUS_OK;
}

enum status qk_norm_backward(const struct block *block, int64_t heads, struct tensor dx, struct tensor dy, struct tensor x,
			     struct tensor stats, struct tensor weight)
{
	struct norm norm = norm_of(block->config, heads);
	int64_t n = norms_of(block->config, heads);
	for (int64_t i = 0; i < n; i++)
		TRY(block->backend->ops->norm_backward(block->backend, &norm, part_of(dx, i, n), part_of(dy, i, n),
						       part_of(x, i, n), part_of(stats, i, n), part_of(weight, i, n), false));
	return STATUS_OK;
}

enum status qk_norm_gradient(const struct block *block, int64_t heads, struct tensor dweight, struct tensor dy, struct tensor x,
			     struct tensor stats)
{
	struct norm norm = norm_of(block->config, heads);
	struct tensor none = {0};
	int64_t n = norms_of(block->config, heads);
	if (!dweight.data) return STATUS_OK;
	for (int64_t i = 0; i < n; i++)
		TRY(block->backend->ops->norm_gradient(block->backend, &norm, part_of(dweight, i, n), none, part_of(dy, i, n),
						       part_of(x, i, n), part_of(stats, i, n)));
	return STATUS_OK;
}
