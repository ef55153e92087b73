#include "engine/methods/besa/watch.h"

#include <math.h>

/* A window is over few sequences, and some are easier to make up for than others: less than this is noise. */
static const double MARGIN = 0.25;

void watch_begin(struct watch *watch, const double *start)
{
	*watch = (struct watch){.start = start, .best = 1, .last = 1};
}

void watch_step(struct watch *watch, int64_t first, int64_t count, double loss)
{
	double began = 0;
	if (!watch->steps) watch->began = watch->loss = 0;
	for (int64_t i = first; i < first + count; i++)
		began += watch->start[i] / (double)count;
	watch->steps++;
	watch->began += (began - watch->began) / watch->steps;
	watch->loss += (loss - watch->loss) / watch->steps;
}

enum watch_verdict watch_judge(struct watch *watch)
{
	double ratio = watch->began > 0 ? watch->loss / watch->began : 1;
	watch->steps = 0;
	watch->last = ratio;
	if (!(ratio <= watch->best * (1 + MARGIN))) return WATCH_DIVERGES; /* nor where it is not a number */
	if (ratio >= watch->best) return WATCH_GOES_ON;
	watch->best = ratio;
	return WATCH_IS_BEST;
}
