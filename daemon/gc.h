/* What the API says of the rules by which ended jobs are forgotten (sweep.h), and outputs that were replaced removed
 * (--keep-replaced). */
#ifndef BESAD_DAEMON_GC_H
#define BESAD_DAEMON_GC_H

#include <cjson/cJSON.h>

#include "daemon/sweep.h"

/* What they would remove, as the contract has it, freed with cJSON_Delete; and, unless `dry`, removes it: then it is what went,
 * and the metrics tell what is left. */
enum status gc_run_rules(const struct options *, struct db *, const char *checkpoints, struct metrics *, bool dry, cJSON **ret,
			 struct error *err);

#endif
