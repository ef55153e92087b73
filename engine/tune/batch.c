#include "engine/tune/batch.h"

static enum status allocate(struct batch *b, struct tensor shape, struct tensor *ret)
{
	struct backend *backend = b->state->backend;
	TRY(backend->ops->alloc(backend, tensor_room(&shape), &shape.data));
	*ret = shape;
	return STATUS_OK;
}

static enum status allocate_all(struct batch *b)
{
	const struct block *block = &b->state->block;
	int64_t rows = b->sequences * b->tokens, hidden = block->config->hidden;
	TRY(allocate(b, tensor_make(NULL, (block->config->layers + 1) * rows, hidden, DTYPE_F32), &b->inputs));
	TRY(allocate(b, tensor_make(NULL, rows, hidden, DTYPE_F32), &b->wanted));
	TRY(allocate(b, tensor_make(NULL, rows, hidden, DTYPE_F32), &b->y));
	return allocate(b, tensor_padded(NULL, rows, hidden, DTYPE_F32), &b->dy);
}

enum status batch_create(struct state *state, int64_t sequences, int64_t tokens, bool norms, struct batch *ret, struct error *err)
{
	*ret = (struct batch){.state = state, .sequences = sequences, .tokens = tokens, .norms = norms};
	TRY(activations_create(&state->block, (int)sequences, tokens, true, &ret->activations, err));
	TRY(trainer_create(&state->block, false, &ret->trainer, err));
	if (norms) TRY(vectors_create(&state->block, &ret->by_vector.vectors, err));
	enum status status = allocate_all(ret);
	if (status != STATUS_OK) *err = state->backend->error;
	return status;
}

void batch_release(struct batch *b)
{
	if (!b->state) return;
	struct backend *backend = b->state->backend;
	struct tensor *const tensors[] = {&b->inputs, &b->wanted, &b->y, &b->dy};
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		backend->ops->release(backend, tensors[i]->data);
	trainer_release(&b->trainer);
	vectors_release(&b->by_vector.vectors, backend);
	activations_release(&b->activations, backend);
	*b = (struct batch){0};
}

static struct tensor input_of(const struct batch *b, int index)
{
	int64_t rows = b->sequences * b->tokens;
	return tensor_rows(b->inputs, index * rows, rows);
}

struct tensor batch_input(const struct batch *b)
{
	return input_of(b, 0);
}

static enum status train_vector(const struct batch *b, struct tensor values, struct tensor m, struct tensor v,
				struct tensor gradient)
{
	return b->norms ? trainer_vector(&b->trainer, values, m, v, gradient) : STATUS_OK;
}

static enum status forward(struct batch *b)
{
	int layers = (int)b->state->block.config->layers;
	for (int i = 0; i < layers; i++) {
		TRY(state_enter(b->state, i));
		TRY(block_forward(&b->state->block, &b->activations, (int)b->sequences, input_of(b, i), input_of(b, i + 1), NULL));
	}
	return STATUS_OK;
}

/* From the loss to what comes out of the last block. */
static enum status end_step(struct batch *b, struct tensor out)
{
	struct end *end = &b->state->end;
	TRY(end_backward(end, b->dy, out, b->wanted));
	for (int i = 0; i < END_VECTORS; i++) {
		const struct tuned_vector *norm = &end->norm[i];
		TRY(train_vector(b, norm->values, norm->m, norm->v, norm->gradient));
	}
	return STATUS_OK;
}

enum status batch_output(struct batch *b, struct tensor *ret)
{
	TRY(forward(b));
	*ret = input_of(b, (int)b->state->block.config->layers);
	return STATUS_OK;
}

enum status batch_loss(struct batch *b)
{
	struct tensor out;
	TRY(batch_output(b, &out));
	return end_backward(&b->state->end, b->dy, out, b->wanted);
}

/* The activations must be those of the block. */
static enum status block_step(struct batch *b, int index)
{
	const struct tuned_block *tuned = &b->state->blocks[index];
	struct training training = {&b->trainer, tuned->master, tuned->m, tuned->v};
	b->by_vector.x = input_of(b, index);
	b->by_vector.input = index > 0;
	TRY(block_backward(&b->state->block, &b->activations, (int)b->sequences, b->dy, trainer_product, &training, &b->by_vector));
	for (int i = 0; i < VECTOR_COUNT; i++)
		TRY(train_vector(b, tuned->vectors.of[i], tuned->vector_m.of[i], tuned->vector_v.of[i],
				 b->by_vector.vectors.of[i]));
	return STATUS_OK;
}

enum status batch_step(struct batch *b, double rate)
{
	int last = (int)b->state->block.config->layers - 1;
	trainer_step(&b->trainer, rate, b->state->step);
	TRY(forward(b));
	TRY(end_step(b, input_of(b, last + 1)));
	for (int i = last; i >= 0; i--) {
		if (i < last) {
			TRY(state_enter(b->state, i));
			TRY(block_forward(&b->state->block, &b->activations, (int)b->sequences, input_of(b, i), b->y, NULL));
		}
		TRY(block_step(b, i));
	}
	b->state->step++;
	return STATUS_OK;
}
