/* What a job would take: memory, room on the disk, time. */
#ifndef BESAD_DAEMON_ESTIMATE_H
#define BESAD_DAEMON_ESTIMATE_H

#include <cjson/cJSON.h>

#include "daemon/options.h"
#include "daemon/worker.h"
#include "db/db.h"
#include "engine/spec/spec.h"

struct estimator;

/* `backend` is the worker's, and not used after this returns: a dry one is made of it, so that estimates may be made whatever
 * the worker does. Best before anything has run: what the process holds now is what it holds beside a job. The others are kept. */
enum status estimator_create(const struct options *, const char *checkpoints, struct db *, struct worker *, struct backend *,
			     struct estimator **ret, struct error *err);

/* What a job of this spec would take, as the API shows it (openapi.yaml, Estimate), but for the spec. One at a time: others
 * wait. STATUS_CANCELLED once estimator_stop was called. */
enum status estimator_run(struct estimator *, const struct spec *, cJSON **ret, struct error *err);

void estimator_stop(struct estimator *); /* takes NULL */
void estimator_free(struct estimator *); /* takes NULL; none may be under way */

#endif
