/* How a finished model gets its name, and what may be replaced by it.
 *
 * What stands under the name is replaced only when besad made it: a directory with a besad.json, and without directories that
 * besad did not put there. It is never removed at once, but kept aside under a name of its own, until whoever runs besad removes
 * it.
 *
 * Crash safety. Where the file system can exchange two names, there is a whole model under the name at any time; elsewhere there
 * is none between two renames. A publication that was cut short is taken up again by the next attempt: `work` then is the new
 * model, or, when it was exchanged already, the old one (publish_rest). */
#ifndef BESAD_ENGINE_PUBLISH_H
#define BESAD_ENGINE_PUBLISH_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "base/place.h"

/* What an output tells of itself. */
#define REPORT_NAME "besad.json"
enum status publish_report(const struct place *output, cJSON **ret, struct error *err); /* freed with cJSON_Delete */

/* STATUS_EXISTS, and why, unless `output` is absent or may be replaced. */
enum status publish_check(const struct place *output, struct error *err);

/* Finds out whether `output` can be published when the time comes: on the file system of `root`, a place that can be written to.
 * Nothing is left behind, but by one that is killed: publish_sweep_tries. */
enum status publish_try(const struct place *root, const struct place *output, const char *job_id, struct error *err);

/* Removes from a directory what tries have left there that were cut off `seconds` ago or earlier. Below the root they go with the
 * next try in the same directory. */
enum status publish_sweep_tries(const struct place *directory, double seconds, struct error *err);

/* Renames `work`, which is synced, to `output`, durably; directories above are made. With `overwrite` what publish_check allows
 * is replaced and kept at `aside`; without, it is STATUS_EXISTS. *ret_replaced says whether anything was. */
enum status publish(const struct place *work, const struct place *output, const struct place *aside, bool overwrite,
		    bool *ret_replaced, struct error *err);

/* After a crash behind the exchange: what is left in `work` was replaced, and goes aside. */
enum status publish_rest(const struct place *work, const struct place *aside, struct error *err);

/* Calls `take` with whatever is kept aside in `root` for `seconds` or longer, and since when, in seconds of the epoch. It may
 * remove it. */
typedef enum status publish_aside_fn(void *context, const struct place *root, const char *name, int64_t since, struct error *err);
enum status publish_asides(const struct place *root, double seconds, publish_aside_fn *take, void *context, struct error *err);

/* Removes all of that. */
enum status publish_sweep(const struct place *root, double seconds, struct error *err);

/* ".besad-replaced-TIME-JOB", which publish_sweep knows; another one at each call, for jobs of one name that end in the same
 * second (as those of besad run may). The caller frees it; NULL without memory. */
char *publish_aside_name(const char *job_id);

#endif
