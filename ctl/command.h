/* The commands of besactl: each prints its result on standard output and returns the exit code. */
#ifndef BESAD_CTL_COMMAND_H
#define BESAD_CTL_COMMAND_H

#include "ctl/client.h"
#include "ctl/options.h"

typedef enum exit_code command_fn(struct client *, const struct options *);

command_fn command_submit;                                                           /* submit.c */
command_fn command_list, command_show, command_log, command_watch;                   /* jobs.c */
command_fn command_cancel, command_pause, command_resume, command_retry, command_rm; /* change.c */
command_fn command_report, command_compare;                                          /* report.c */
command_fn command_artifacts;                                                        /* artifacts.c */
command_fn command_gc;                                                               /* gc.c */
command_fn command_audit;                                                            /* audit.c */
command_fn command_drain, command_undrain;                                           /* drain.c */
command_fn command_study;                                                            /* study.c */
command_fn command_models, command_data, command_info;                               /* daemon.c */

/* ---- show.c: what several of them print ---------------------------------------------------------------------------------- */

void print_json(const cJSON *);

/* A job as lines of "name  value". */
void print_job(const cJSON *job);

/* What a job would take. */
void print_estimate(const cJSON *estimate);

/* How a finished job came out: its output, sparsity, perplexities and time, or its error. */
void print_result(const cJSON *job);

/* ---- jobs.c ------------------------------------------------------------------------------------------------------------- */

enum { JOB_ID_ROOM = 64 };

/* The id that `argument` stands for: itself, or the newest job's for "last" or NULL. Says what is wrong when there is none. */
enum exit_code resolve_job(struct client *, const char *argument, char ret[JOB_ID_ROOM]);

/* One job as JSON, by such an argument. */
enum exit_code get_job(struct client *, const char *argument, cJSON **ret);

/* Calls `take` with each job, the newest first, until it returns false or `limit` jobs were seen; 0: all. `filter` is query
 * parameters, each with an '&' in front, or "". */
enum exit_code each_job(struct client *, const char *filter, int limit, bool (*take)(void *context, cJSON *job), void *context);

/* May it be the id of something, and be put into a path? */
bool is_id(const char *text);

/* ---- submit.c ----------------------------------------------------------------------------------------------------------- */

/* POSTs what is to be queued to `path`, with the --idempotency-key. */
enum exit_code post_new(struct client *, const struct options *, const char *path, const cJSON *body, cJSON **ret);

#endif
