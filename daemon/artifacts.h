/* The files of a job's output, for clients. */
#ifndef BESAD_DAEMON_ARTIFACTS_H
#define BESAD_DAEMON_ARTIFACTS_H

#include "api/api.h"
#include "engine/spec/spec.h"

/* [{"name", "bytes", "sha256", "media_type"}], an array of the contract: empty for a job that has made no output. STATUS_EXISTS where the
 * output is not there any more, or another job's by now. */
enum status artifacts_list(const struct roots *, const struct job *, cJSON **ret, struct error *err);

/* Opens one of them by its name in the list; nothing else is opened. STATUS_NOT_FOUND where the list has no such name, STATUS_EXISTS as above and
 * where the file is not what the job wrote. */
enum status artifacts_open(const struct roots *, const struct job *, const char *name, struct api_file *ret, struct error *err);

#endif
