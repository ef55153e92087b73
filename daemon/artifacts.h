/* The files of a job's output, for clients. */
#ifndef BESAD_DAEMON_ARTIFACTS_H
#define BESAD_DAEMON_ARTIFACTS_H

#include <stdatomic.h>

#include "api/api.h"
#include "engine/spec/spec.h"

/* [{"name", "bytes", "sha256", "media_type"}], an array of the contract: empty for a job that has made no output. STATUS_EXISTS
 * where the output is not there any more, or another job's by now, STATUS_CANCELLED once `stop` is raised: the files of an
 * output that an earlier besad made are read for it. */
enum status artifacts_list(const struct roots *, const struct job *, const atomic_bool *stop, cJSON **ret, struct error *err);

/* Opens one of them by its name in the list; nothing else is opened. STATUS_NOT_FOUND where the list has no such name,
 * STATUS_EXISTS as above and where the file is not what the job wrote. */
enum status artifacts_open(const struct roots *, const struct job *, const char *name, const atomic_bool *stop,
			   struct api_file *ret, struct error *err);

#endif
