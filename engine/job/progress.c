#include "engine/job/progress.h"

#include <time.h>

#include "base/clock.h"

static void report(const struct progress *progress)
{
	double fraction = progress->total > 0 ? progress->done / progress->total : 0, eta = -1;
	double here = progress->done - progress->resumed;
	if (here > 0) eta = (monotonic_seconds() - progress->started) * (progress->total - progress->done) / here;
	progress->sink->progress(progress->sink->context, progress->phase, progress->block, progress->blocks,
				 fraction > 1 ? 1 : fraction, eta < 0 ? -1 : eta);
}

void progress_start(struct progress *progress, const struct engine_sink *sink, int blocks, double total, double resumed)
{
	*progress = (struct progress){.sink = sink,
				      .phase = "loading",
				      .blocks = blocks,
				      .total = total,
				      .done = resumed,
				      .resumed = resumed,
				      .started = monotonic_seconds()};
	report(progress);
}

void progress_phase(struct progress *progress, const char *phase)
{
	progress->phase = phase;
	report(progress);
}

void progress_resume(struct progress *progress, double work)
{
	progress->resumed += work;
	progress_add(progress, work);
}

void progress_add(struct progress *progress, double work)
{
	progress->done += work;
	report(progress);
}
