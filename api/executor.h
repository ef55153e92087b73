/* Threads for requests that wait for a disk, so that the thread that serves every connection never does. */
#ifndef BESAD_API_EXECUTOR_H
#define BESAD_API_EXECUTOR_H

#include <stdbool.h>

#include "base/error.h"

struct executor;

struct task {
	void (*run)(struct task *); /* may free the task */
	struct task *next;
};

enum status executor_create(int threads, struct executor **ret, struct error *err);
bool executor_push(struct executor *, struct task *); /* false: it has been stopped */
void executor_stop(struct executor *);                /* runs what was pushed, then ends the threads */
void executor_free(struct executor *);                /* stopped; takes NULL */

#endif
