/* How long a job will take, by how long others took on the same device. */
#ifndef BESAD_DAEMON_PACE_H
#define BESAD_DAEMON_PACE_H

#include "db/db.h"
#include "engine/compute/backend.h"
#include "engine/engine.h"

/* What was measured, and of what. Without any jobs, nothing was. */
struct pace {
	double pruning; /* seconds for all blocks */
	int pruning_jobs;
	int64_t pruning_blocks;
	bool scaled; /* those jobs had other models, numbers of tokens or settings of the method, and their times were scaled by the
			work */
	double rest; /* seconds for all else: loading, evaluating, writing */
	int rest_jobs;
};

/* For a job of this spec and need. `backend` says what the device is, and what it computes in where a spec leaves that open. */
enum status pace_find(struct db *, const struct backend *, const struct roots *, const struct spec *, const struct engine_need *,
		      struct pace *ret, struct error *err);

#endif
