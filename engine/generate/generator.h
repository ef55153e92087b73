/* Text from a finished model, pruned or dense, on the CPU: one sequence at a time. */
#ifndef BESAD_ENGINE_GENERATE_GENERATOR_H
#define BESAD_ENGINE_GENERATE_GENERATOR_H

#include "base/place.h"
#include "base/warnings.h"
#include "engine/generate/decoder.h"
#include "engine/generate/sampler.h"

struct generator;

/* Opens a model directory, loads all of it and its tokenizer. STATUS_UNSUPPORTED, STATUS_INVALID or STATUS_NOT_FOUND where
 * something in it cannot be used. `threads` of the CPU, 0 for all that the process may use. STATUS_CANCELLED once `stop`, which
 * may be NULL, is raised. */
struct generator_wishes {
	struct decoder_wishes decoder;
	int threads;
	int64_t memory; /* bytes at most of weights, and of a sequence's keys and values; 0: no bound. More is STATUS_UNSUPPORTED */
};
enum status generator_open(const struct place *model, const struct generator_wishes *, const atomic_bool *stop, struct warnings *,
			   struct generator **ret, struct error *err);
void generator_close(struct generator *); /* takes NULL */

struct decoder_size generator_size(const struct generator *);
int generator_threads(const struct generator *);

/* Takes a token as it is chosen, and the text that it adds, which may be empty, and is valid UTF-8. The last call, with the id
 * -1, has what of a character was left; that call may be missing. */
typedef enum status (*generator_take)(void *context, int32_t id, const char *text, size_t bytes, struct error *err);

struct generator_request {
	const char *prompt; /* of `bytes` bytes; the token that the tokenizer puts before a text comes before it */
	size_t bytes;
	int64_t max_tokens; /* fewer where the model has no more positions */
	struct sampling sampling;
	const atomic_bool *stop; /* or NULL */
	generator_take take;
	bool (*ended)(void *context); /* asked before each step: raises the stop flag of this text alone; or NULL */
	void *context;
	bool whole; /* what comes before a text is in the prompt already */
};

/* Why a text ends: a token that ends it was chosen (it is not given to `take`), it is as long as it may be, or the stop flag was
 * raised. */
enum generator_end { GENERATOR_STOP, GENERATOR_LENGTH, GENERATOR_STOPPED };

struct generator_outcome {
	enum generator_end end;
	int64_t prompt_tokens, tokens;  /* tokens: those that `take` got */
	double prompt_seconds, seconds; /* of reading the prompt up to the first token's logits, and of what came after */
	int64_t steps;                  /* that `seconds` are of */
	double fastest;                 /* seconds of the fastest of them: beside other work all others say more of that */
};

/* STATUS_INVALID for a prompt without a token, or one that leaves no position for another; STATUS_UNSUPPORTED for a sequence that
 * takes more memory than there may be. */
enum status generator_run(struct generator *, const struct generator_request *, struct generator_outcome *ret, struct error *err);

#endif
