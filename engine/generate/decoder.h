/* A model that reads one token after the other, or some at once: its whole weights in memory, and the keys and values of the tokens
 * so far.
 *
 * A step does what block_forward (engine/model/block.h) does, for the next tokens, from the same description of the block: every
 * family that can be pruned can be run. Only the products differ: in F32 they are those of the weights as they are; in bf16
 * weights and what they multiply are rounded to it, sums are F32 (engine/sparse/matvec.h), and all between products is F32. */
#ifndef BESAD_ENGINE_GENERATE_DECODER_H
#define BESAD_ENGINE_GENERATE_DECODER_H

#include <stdatomic.h>

#include "engine/generate/matrix.h"
#include "engine/model/model.h"

struct decoder_wishes {
	enum dtype type; /* of products: F32 or BF16 */
	enum matrix_choice choice;
};

struct decoder;

/* Loads all weights. The model has been checked (model_check_all); it and the backend, which is the CPU's, stay while the
 * decoder is used. STATUS_CANCELLED once `stop`, which may be NULL, is raised. */
enum status decoder_create(const struct model *, struct backend *, const struct decoder_wishes *, const atomic_bool *stop,
			   struct decoder **ret, struct error *err);
void decoder_free(struct decoder *); /* takes NULL */

/* The bytes that its weights take at most, those of one block in F32 while it is loaded among them; and those that a sequence of
 * `context` tokens takes besides. */
enum status decoder_memory(const struct model_config *, const struct decoder_wishes *, int64_t *ret, struct error *err);
int64_t decoder_sequence_memory(const struct model_config *, int64_t context);

/* The most tokens, the prompt's among them, that a sequence with such a prompt may have: as many as the model has positions, or
 * fewer where more would turn the tokens before them otherwise. */
int64_t decoder_most_tokens(const struct model_config *, int64_t prompt);

/* Begins a new sequence, of up to `context` tokens: decoder_most_tokens at most, or tokens turn as they do in a whole sequence
 * of that length. */
enum status decoder_begin(struct decoder *, int64_t context, struct error *err);

/* The next `count` tokens of the sequence, up to DECODER_TOKENS, for which all weights are read once (those of experts once a
 * token). *ret_logits, unless it is NULL, becomes [vocab] logits of the token behind them, which stay until the next step. Sums of
 * one token and of several are added up in different orders. Where it fails for the tokens' sake nothing has changed. */
enum { DECODER_TOKENS = SPARSE_VECTORS };
enum status decoder_step(struct decoder *, const int32_t *ids, int64_t count, const float **ret_logits, struct error *err);

/* What was loaded. */
struct decoder_size {
	int64_t matrices, sparse;      /* matrices, and those whose zeros are left out */
	int64_t weights, zeros, bytes; /* of all of them; bytes that a token reads where there are no experts */
};
struct decoder_size decoder_size(const struct decoder *);

#endif
