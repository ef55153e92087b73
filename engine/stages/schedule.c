#include "engine/stages/schedule.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/random.h"

static const double WARM_UP = 0.05;

enum status schedule_create(int64_t sequences, int64_t batch, double rate, struct schedule *ret, struct error *err)
{
	struct schedule schedule = {.sequences = sequences, .batch = batch, .rate = rate, .epoch = -1};
	schedule.order = malloc((size_t)sequences * sizeof *schedule.order);
	schedule.chosen = malloc((size_t)batch * sizeof *schedule.chosen);
	if (!schedule.order || !schedule.chosen) {
		schedule_release(&schedule);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the order of %" PRId64 " sequences", sequences);
	}
	*ret = schedule;
	return STATUS_OK;
}

void schedule_release(struct schedule *schedule)
{
	free(schedule->order);
	free(schedule->chosen);
	*schedule = (struct schedule){0};
}

void schedule_begin(struct schedule *schedule, int64_t sequences, int epochs, uint64_t seed)
{
	schedule->sequences = sequences;
	schedule->steps = epochs * sequences / schedule->batch;
	schedule->seed = seed;
	schedule->epoch = -1;
}

double schedule_rate(const struct schedule *schedule, int64_t step)
{
	int64_t warm = (int64_t)(WARM_UP * (double)schedule->steps), rest;
	if (warm < 1) warm = 1;
	if (step < warm) return schedule->rate * (double)(step + 1) / (double)warm;
	rest = schedule->steps > warm ? schedule->steps - warm : 1;
	return schedule->rate * 0.5 * (1 + cos(M_PI * (double)(step - warm) / (double)rest));
}

static void shuffle(struct schedule *schedule, int64_t epoch)
{
	int64_t n = schedule->sequences, *order = schedule->order;
	if (schedule->epoch == epoch) return;
	for (int64_t i = 0; i < n; i++)
		order[i] = i;
	for (int64_t i = n - 1; i > 0; i--) {
		int64_t other = random_below(random_at(schedule->seed, (uint64_t)(epoch * n + i)), i + 1), kept = order[i];
		order[i] = order[other];
		order[other] = kept;
	}
	schedule->epoch = epoch;
}

const int64_t *schedule_choose(struct schedule *schedule, int64_t step)
{
	for (int64_t i = 0; i < schedule->batch; i++) {
		int64_t at = step * schedule->batch + i;
		shuffle(schedule, at / schedule->sequences);
		schedule->chosen[i] = schedule->order[at % schedule->sequences];
	}
	return schedule->chosen;
}
