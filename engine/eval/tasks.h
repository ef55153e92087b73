/* Multiple-choice tasks: what their files hold, and the questions made of it with the semantics of EleutherAI's
 * lm-evaluation-harness (lm_eval/tasks/{piqa,super_glue/boolq,hellaswag,winogrande,arc}, lm_eval/api/task.py). */
#ifndef BESAD_ENGINE_TASKS_H
#define BESAD_ENGINE_TASKS_H

#include <stdint.h>

#include "base/place.h"

enum task_format { TASK_CHOICES, TASK_PIQA, TASK_BOOLQ, TASK_HELLASWAG, TASK_WINOGRANDE, TASK_ARC, TASK_FORMATS };
extern const char *const task_format_names[]; /* "choices", "piqa" …; ends with NULL */

/* One text to score: the log-probability of `continuation` behind `context`. */
struct choice {
	char *context, *continuation;
	int64_t characters, bytes; /* of the choice's own text, as lm_eval has it: acc_norm and acc_bytes divide by them */
};

struct question {
	struct choice *choices;
	int n, answer; /* index of the right one */
};

struct questions {
	struct question *items;
	int64_t count;
};

/* Reads the rows of a JSON file (kind.h; `name` is its path as the client wrote it) in the data set's own field names; at most
 * `limit` questions, 0 for all. STATUS_INVALID names file, row and field. */
enum status questions_load(const struct place *data, const char *name, enum task_format, int64_t limit, struct questions *ret,
			   struct error *err);
void questions_free(struct questions *);

#endif
