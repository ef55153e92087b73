/* What a watcher sees of a job: events as lines of text, and the state between them as a bar. */
#ifndef BESAD_CTL_VIEW_H
#define BESAD_CTL_VIEW_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "base/buffer.h"

struct view {
	char state[16];                               /* of the job */
	char phase[32];                               /* "" while it waits */
	int block, blocks, step, steps;               /* block and step count from 1; 0: unknown */
	double fraction, eta_seconds, loss, sparsity; /* NAN: unknown */
};

void view_init(struct view *);

/* Takes over state and progress of a job as GET /v1/jobs/{id} shows it. */
void view_take_job(struct view *, const cJSON *job);

/* Takes an event in. True when it is worth a line: then `line` gets one, without its end. */
bool view_take_event(struct view *, const char *type, const cJSON *data, struct buffer *line);

/* One line of at most `columns` columns: phase, block, bar, percentage, loss, sparsity, time left. What does not fit is left
 * out, the least important first. */
void view_bar(const struct view *, size_t columns, struct buffer *ret);

#endif
