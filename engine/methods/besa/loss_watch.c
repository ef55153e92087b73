#include "engine/methods/besa/loss_watch.h"

#include <math.h>

#include "engine/job/diagnosis.h"

/* Where learning stays above its start it is stuck there, and the noise of two windows is less than this. */
static const double ABOVE = 0.02;
enum { MOST_ABOVE = 2 };

void loss_watch_begin(struct loss_watch *watch, const double *start)
{
	*watch = (struct loss_watch){.start = start, .best = 1, .last = 1};
}

void loss_watch_step(struct loss_watch *watch, int64_t first, int64_t count, double loss)
{
	double began = 0;
	if (!watch->steps) watch->began = watch->loss = 0;
	for (int64_t i = first; i < first + count; i++)
		began += watch->start[i] / (double)count;
	watch->steps++;
	watch->began += (began - watch->began) / watch->steps;
	watch->loss += (loss - watch->loss) / watch->steps;
}

enum loss_watch_verdict loss_watch_judge(struct loss_watch *watch)
{
	/* A window is over few sequences, and some are easier to make up for than others: less than this is noise. */
	const double margin = diagnosis_rules[DIAGNOSIS_UNSTABLE].threshold;
	double ratio = watch->began > 0 ? watch->loss / watch->began : 1;
	watch->steps = 0;
	watch->last = ratio;
	watch->above = ratio > 1 + ABOVE ? watch->above + 1 : 0;
	if (!(ratio <= watch->best * (1 + margin)) || watch->above == MOST_ABOVE) { /* not less, or not a number */
		watch->above = 0;
		return WATCH_DIVERGES;
	}
	if (ratio >= watch->best) return WATCH_GOES_ON;
	watch->best = ratio;
	return WATCH_IS_BEST;
}
