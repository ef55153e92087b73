/* Follows one job to its end, over lost connections and restarts of the daemon. */
#ifndef BESAD_CTL_WATCH_H
#define BESAD_CTL_WATCH_H

#include "ctl/client.h"

enum watch_style {
	WATCH_QUIET,  /* shows nothing */
	WATCH_LINES,  /* a line for each event worth one */
	WATCH_BAR,    /* the same lines, and under them a bar that is drawn again and again */
	WATCH_EVENTS, /* each event as a line of JSON */
};

/* The style for standard output: a bar on a terminal, lines elsewhere. */
enum watch_style watch_style_for_output(void);

/* EXIT_OK, EXIT_FAILED or EXIT_CANCELLED by the state of a finished job. */
enum exit_code job_exit_code(const cJSON *job);

/* Gives up, with EXIT_UNREACHABLE, when the daemon has been silent for `patience` seconds; but when it cannot be reached to
 * begin with, at once. When the job has ended, *ret_job is the job and job_exit_code the result. */
enum exit_code watch_job(struct client *, const char *id, enum watch_style, double patience, cJSON **ret_job);

#endif
