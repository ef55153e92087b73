#include "engine/spec/apportion.h"

#include <math.h>

void apportion(const double *weights, int count, int64_t whole, int64_t *shares)
{
	const double tie = 1e-9; /* fractions that differ by rounding only */
	double sum = 0;
	int64_t left = count > 0 ? whole : 0;
	for (int i = 0; i < count; i++)
		sum += weights[i];
	for (int i = 0; i < count; i++) {
		shares[i] = (int64_t)floor((double)whole * (weights[i] / sum) + tie);
		left -= shares[i];
	}
	/* What is left is fewer than the shares: the fraction of one that got it is below 0 from then on. */
	for (; left > 0; left--) {
		int best = 0;
		double most = -2;
		for (int i = 0; i < count; i++) {
			double fraction = (double)whole * (weights[i] / sum) - (double)shares[i];
			if (fraction <= most + tie) continue;
			most = fraction;
			best = i;
		}
		shares[best]++;
	}
}
