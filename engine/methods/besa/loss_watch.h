/* Whether learning goes up instead of down: its loss against what the same sequences lose where learning starts, over a window
 * of steps. */
#ifndef BESAD_ENGINE_BESA_LOSS_WATCH_H
#define BESAD_ENGINE_BESA_LOSS_WATCH_H

#include <stdint.h>

enum { WATCH_STEPS = 8 }; /* of a window: losses are read together, so that a device need not be waited for at each step */

enum loss_watch_verdict { WATCH_GOES_ON, WATCH_IS_BEST, WATCH_DIVERGES };

struct loss_watch {
	const double *start; /* of each sequence: its loss where learning starts */
	/* The mean losses of the running window's steps, and of the same sequences at the start. */
	double loss, began;
	int steps;
	/* The window's loss is so many times that of the start: in the best window so far, 1 before, and in the last. */
	double best, last;
	int above; /* windows in a row above the start */
};

/* `start` stays the caller's. */
void loss_watch_begin(struct loss_watch *, const double *start);

/* A step over `count` sequences from `first` on. */
void loss_watch_step(struct loss_watch *, int64_t first, int64_t count, double loss);

/* What the steps since the last verdict say; the next window begins. A loss that is not a number diverges. */
enum loss_watch_verdict loss_watch_judge(struct loss_watch *);

#endif
