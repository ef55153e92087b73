#include "engine/text/divergence.h"

#include <math.h>
#include <stdlib.h>

static void count(const int32_t *ids, int64_t n, int64_t *ret)
{
	for (int64_t i = 0; i < n; i++)
		ret[ids[i]]++;
}

/* p · log₂(p / m) */
static double share(double p, double m)
{
	return p > 0 ? p * log2(p / m) : 0;
}

static double divergence(const int64_t *a, int64_t total_a, const int64_t *b, int64_t total_b, int64_t vocab)
{
	double sum = 0;
	for (int64_t i = 0; i < vocab; i++) {
		double p = (double)a[i] / (double)total_a, q = (double)b[i] / (double)total_b;
		sum += share(p, (p + q) / 2) + share(q, (p + q) / 2);
	}
	return sum / 2;
}

enum status token_divergence(const struct sequences *sample, const struct sequences *text, int64_t vocab, double *ret,
			     struct error *err)
{
	int64_t given = sample->count * sample->length, whole = text->count * text->length, half = whole / 2;
	int64_t length = given < half ? given : half;
	*ret = NAN;
	if (given < DIVERGENCE_SAMPLE || whole < DIVERGENCE_TEXT) return STATUS_OK;
	int64_t *counts = calloc((size_t)vocab * 3, sizeof *counts), *first = counts + vocab, *latter = first + vocab;
	if (!counts) return error_set(err, STATUS_NO_MEMORY, "no memory to count %lld kinds of token", (long long)vocab);
	count(sample->ids, length, counts);
	count(text->ids, length, first);
	count(text->ids + half, whole - half, latter);
	*ret = divergence(counts, length, latter, whole - half, vocab) - divergence(first, length, latter, whole - half, vocab);
	free(counts);
	return STATUS_OK;
}
