/* Zero-shot multiple choice: which continuation the model finds likeliest (lm_eval/api/task.py, MultipleChoiceTask). */
#ifndef BESAD_ENGINE_CHOICES_H
#define BESAD_ENGINE_CHOICES_H

#include "engine/eval/tasks.h"
#include "engine/job/progress.h"
#include "engine/model/model.h"
#include "engine/text/tokenizer.h"

/* A task's questions as token ids, the same for the dense and the pruned model. */
struct requests {
	int64_t count, questions;
	struct request_ids {
		int32_t *ids;
		int64_t length, context; /* tokens in all, and of the context */
		int64_t question;
		int choice;
	} * items; /* the shortest first */
};

struct score {
	double acc, acc_stderr, acc_norm, acc_norm_stderr, acc_bytes, acc_bytes_stderr;
	int64_t questions;
};

/* Tokens as lm-evaluation-harness makes them: spaces that end a context belong to the continuation; context and continuation are
 * encoded together, without BOS, and the continuation is what is behind the context's own number of tokens. Where the context is
 * nothing, BOS, or else id 0, stands for it. A request longer than `max_length` loses tokens at its front. STATUS_INVALID names
 * the question. */
enum status requests_encode(const struct questions *, const struct tokenizer *, int64_t max_length, struct requests *ret,
			    struct error *err);
void requests_free(struct requests *);

/* Tokens times layers that choices_score adds to the progress, per layer. */
int64_t requests_work(const struct requests *);

/* acc: the share of questions whose right choice has the largest log-probability; acc_norm: divided by the choice's characters;
 * acc_bytes: by its bytes, so that an empty one is never picked; the first of equals wins. Standard errors of the mean.
 * `answers`, where not NULL, receives the picks of each question by the three: 3 · questions. */
enum status choices_score(const struct model *, struct backend *, enum dtype type, const struct questions *,
			  const struct requests *, const atomic_bool *stop, struct progress *, struct score *ret, int *answers,
			  struct error *err);

#endif
