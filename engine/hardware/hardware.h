/* What the zeros of a model are worth on hardware, by kinds of layers: the `hardware` of a job's result, and what `besad bench`
 * prints. */
#ifndef BESAD_ENGINE_HARDWARE_H
#define BESAD_ENGINE_HARDWARE_H

#include <stdatomic.h>

#include <cjson/cJSON.h>

#include "engine/model/model.h"

/* Reads all linears of the blocks, one at a time, and simulates them (vitcod.h). *ret, which the caller frees, is
 *
 *   {"layers": [{"layer": "q_proj", "linears", "rows", "cols", "params", "zeros", "simulated": S}, …], "simulated": S}
 *
 * of each kind of layer and of all: sums over the model's linears, so that each of the experts counts once. S is
 *
 *   {"published": {"cycles", "dense_cycles", "speedup"}, "corrected": {…}, "memory": {…, "compute_cycles", "transfer_cycles"}}
 *
 * "speedup" is null where no cycles are left. `stop` may be NULL; STATUS_CANCELLED when it was raised. */
enum status hardware_simulate(const struct model *, const atomic_bool *stop, cJSON **ret, struct error *err);

#endif
