/* What the zeros of a model are worth on hardware, by kinds of layers: the `hardware` of a job's result, and what `besad bench`
 * prints. */
#ifndef BESAD_ENGINE_HARDWARE_H
#define BESAD_ENGINE_HARDWARE_H

#include <stdatomic.h>
#include <stdbool.h>

#include <cjson/cJSON.h>

#include "engine/job/progress.h"
#include "engine/model/model.h"

struct hardware_wishes {
	bool simulate; /* vitcod.h */
	bool measure;  /* measure.h */
	int threads;   /* that measure */
};

/* Reads all linears of the blocks, one at a time, simulates them, and times those of a token, some blocks at once. *ret,
 * which the caller frees, is
 *
 *   {"layers": [{"layer": "q_proj", "linears", "rows", "cols", "params", "zeros", "simulated": S, "measured": M}, …], "simulated":
 * S, "decode": D}
 *
 * of each kind of layer and of all. Simulated are sums over the model's linears, so that each of the experts counts once:
 *
 *   S: {"published": {"cycles", "dense_cycles", "speedup"}, "corrected": {…}, "memory": {…, "compute_cycles", "transfer_cycles"}}
 *
 * and "speedup" is null where no cycles are left. Measured are sums over the linears that one token goes through, in as many
 * experts as it is sent to:
 *
 *   M: {"linears", "dense_us", "sparse_us", "speedup", "bytes_per_weight"}
 *   D: {"threads", "dense_us", "sparse_us", "speedup", "dense_gbps", "sparse_gbps", "copy_gbps"}
 *
 * What was not asked for is not there. `stop` may be NULL; STATUS_CANCELLED when it was raised. `progress` hears often that it
 * goes on, or is NULL. */
enum status hardware_report(const struct model *, const struct hardware_wishes *, const atomic_bool *stop,
			    struct progress *progress, cJSON **ret, struct error *err);

/* The most bytes that it will have in use beside one linear. */
enum status hardware_memory(const struct model *, const struct hardware_wishes *, int64_t *ret, struct error *err);

#endif
