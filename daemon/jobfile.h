/* job.json in the directory of a `besad run`: what job it is of.
 *
 *   {"format": 2, "request": the spec as the job's file had it, "spec": as it was resolved when the job began,
 *    "places": where its names led}
 *
 * Format 1, of earlier versions, is the resolved spec alone. */
#ifndef BESAD_DAEMON_JOBFILE_H
#define BESAD_DAEMON_JOBFILE_H

#include <cjson/cJSON.h>

#include "engine/spec/spec.h"

enum { JOBFILE_FORMAT = 2 };

/* Reads the spec to go on with from `path`. `request` is what the job's file, of job `id`, says today: STATUS_EXISTS, naming the
 * field, where that is no longer what the job began with; STATUS_UNSUPPORTED for a newer format. *ret is freed with spec_free. */
enum status jobfile_read(const char *path, const cJSON *request, const struct roots *roots, const char *id, struct spec **ret,
			 struct error *err);

enum status jobfile_write(const char *path, const cJSON *request, const struct spec *spec, struct error *err);

#endif
