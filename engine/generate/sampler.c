#include "engine/generate/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/random.h"

enum status sampler_create(struct sampling how, int64_t vocab, struct sampler *ret, struct error *err)
{
	struct sampler sampler = {.how = how, .vocab = vocab};
	sampler.weights = malloc((size_t)vocab * sizeof *sampler.weights);
	sampler.order = malloc((size_t)vocab * sizeof *sampler.order);
	if (!sampler.weights || !sampler.order) {
		sampler_free(&sampler);
		return error_set(err, STATUS_NO_MEMORY, "no memory to draw tokens");
	}
	*ret = sampler;
	return STATUS_OK;
}

void sampler_free(struct sampler *sampler)
{
	free(sampler->weights);
	free(sampler->order);
	*sampler = (struct sampler){0};
}

static bool before(const struct sampler *sampler, int32_t a, int32_t b)
{
	double x = sampler->weights[a], y = sampler->weights[b];
	return x > y || (x == y && a < b);
}

/* Restores the heap `order` [count], whose first comes before all others, below `at`. */
static void sift(struct sampler *sampler, int64_t at, int64_t count)
{
	int32_t *order = sampler->order, moving = order[at];
	for (int64_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
		if (child + 1 < count && before(sampler, order[child + 1], order[child])) child++;
		if (!before(sampler, order[child], moving)) break;
		order[at] = order[child];
		at = child;
	}
	order[at] = moving;
}

/* Leaves the weights of the most likely tokens that have `top_p` of the sum, one at least, and 0 for others; returns the sum of
 * those that stay. */
static double cut(struct sampler *sampler, double sum)
{
	int32_t *order = sampler->order;
	int64_t count = sampler->vocab;
	double kept = 0;
	for (int64_t i = 0; i < count; i++)
		order[i] = (int32_t)i;
	for (int64_t i = count / 2; i-- > 0;)
		sift(sampler, i, count);
	while (count > 0 && (kept == 0 || kept < sampler->how.top_p * sum)) {
		kept += sampler->weights[order[0]];
		order[0] = order[--count];
		if (count > 0) sift(sampler, 0, count);
	}
	for (int64_t i = 0; i < count; i++)
		sampler->weights[order[i]] = 0;
	return kept;
}

static int32_t draw(struct sampler *sampler, const float *logits, float most)
{
	double sum = 0;
	int32_t last = 0;
	for (int64_t i = 0; i < sampler->vocab; i++) {
		sampler->weights[i] = exp(((double)logits[i] - (double)most) / sampler->how.temperature);
		sum += sampler->weights[i];
	}
	if (sampler->how.top_p < 1) sum = cut(sampler, sum);
	double left = (double)(random_at(sampler->how.seed, sampler->drawn++) >> 11) * 0x1p-53 * sum;
	for (int64_t i = 0; i < sampler->vocab; i++) {
		if (sampler->weights[i] <= 0) continue;
		last = (int32_t)i;
		left -= sampler->weights[i];
		if (left < 0) break;
	}
	return last;
}

enum status sampler_choose(struct sampler *sampler, const float *logits, int32_t *ret, struct error *err)
{
	int64_t best = 0;
	for (int64_t i = 0; i < sampler->vocab; i++) {
		if (!isfinite(logits[i])) return error_set(err, STATUS_NUMERIC, "the logit of token %d is not finite", (int)i);
		if (logits[i] > logits[best]) best = i;
	}
	*ret = sampler->how.temperature > 0 ? draw(sampler, logits, logits[best]) : (int32_t)best;
	return STATUS_OK;
}
