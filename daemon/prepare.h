/* From what a client asks for to a job that can run: the spec with every default and the output's final name. */
#ifndef BESAD_DAEMON_PREPARE_H
#define BESAD_DAEMON_PREPARE_H

#include "engine/engine.h"
#include "engine/spec/spec.h"

/* Parses the spec of job `id`, expands {date} and {id} in its output, and checks where that lies. STATUS_INVALID with
 * `problems`. *ret is freed with spec_free. */
enum status prepare_spec(const cJSON *json, const struct roots *roots, const char *id, struct spec **ret,
			 struct spec_problems *problems, struct error *err);

/* A problem at /notify/url unless its host is one of the `n` hosts. STATUS_INVALID. */
enum status prepare_notify(const struct spec *, const char *const *hosts, size_t n, struct spec_problems *problems,
			   struct error *err);

/* STATUS_EXISTS when there is something at `output` that may not be replaced and was not made by job `id`. */
enum status prepare_output(const struct roots *roots, const char *output, bool overwrite, const char *id, struct error *err);

/* Where a job's files lie; each path is owned, freed with prepare_paths_free. */
struct job_paths {
	struct place output, work, aside; /* below the output root; aside is for what the output replaces */
	char *checkpoint_dir;
};

/* `output` may be NULL where only the others are wanted; checkpoint_dir is `checkpoints`/`id`. */
enum status prepare_paths(const struct roots *roots, const char *checkpoints, const char *id, const char *output,
			  struct job_paths *ret, struct error *err);
void prepare_paths_free(struct job_paths *);

/* Removes what outputs replaced longer than `seconds` ago; logs what cannot be. */
void prepare_sweep(const struct roots *roots, int64_t seconds);

/* Removes from the output root what a process that was killed has left there of looking whether an output can be made. */
void prepare_sweep_tries(const struct roots *roots);

#endif
