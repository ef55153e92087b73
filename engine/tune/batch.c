#include "engine/tune/batch.h"

/* Gradients that are in memory at once: about what a core's caches hold, or, on a device, what fills it. */
enum { PANEL_BYTES_CPU = 4 << 20, PANEL_BYTES_DEVICE = 256 << 20 };

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
	const struct block_layout *layout = &block->layout;
	int64_t rows = b->sequences * b->tokens, hidden = block->config->hidden, widest = 0;
	int64_t panel = (b->state->backend->unified ? PANEL_BYTES_CPU : PANEL_BYTES_DEVICE) / (int64_t)sizeof(float);
	for (int f = 0; f < FUSED_COUNT; f++)
		if (layout->fused_cols[f] > widest) widest = layout->fused_cols[f];
	if (panel < widest) panel = widest;
	if (panel > layout->params) panel = layout->params;
	TRY(allocate(b, tensor_make(NULL, (block->config->layers + 1) * rows, hidden, DTYPE_F32), &b->inputs));
	TRY(allocate(b, tensor_make(NULL, rows, hidden, DTYPE_F32), &b->wanted));
	TRY(allocate(b, tensor_make(NULL, rows, hidden, DTYPE_F32), &b->y));
	TRY(allocate(b, tensor_padded(NULL, rows, hidden, DTYPE_F32), &b->dy));
	return allocate(b, tensor_make(NULL, 1, panel, DTYPE_F32), &b->gradient);
}

enum status batch_create(struct state *state, int64_t sequences, int64_t tokens, bool norms, struct batch *ret, struct error *err)
{
	*ret = (struct batch){.state = state, .sequences = sequences, .tokens = tokens, .norms = norms};
	TRY(activations_create(&state->block, (int)sequences, tokens, true, &ret->activations, err));
	if (norms) TRY(vectors_create(&state->block, &ret->by_vector.vectors, err));
	enum status status = allocate_all(ret);
	if (status != STATUS_OK) *err = state->backend->error;
	return status;
}

void batch_release(struct batch *b)
{
	if (!b->state) return;
	struct backend *backend = b->state->backend;
	struct tensor *const tensors[] = {&b->inputs, &b->wanted, &b->y, &b->dy, &b->gradient};
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		backend->ops->release(backend, tensors[i]->data);
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

/* The block that runs, and the batch. */
struct training {
	struct batch *b;
	const struct tuned_block *tuned;
};

/* Uses up the gradient of a product. An expert that got no token has none, and stays. */
static enum status train_product(void *context, int index, const struct product_gradient *gradient)
{
	const struct training *training = context;
	struct batch *b = training->b;
	struct backend *backend = b->state->backend;
	const struct block *block = &b->state->block;
	struct tensor master = block_product(block, training->tuned->master, index), none = {0};
	struct tensor m = block_product(block, training->tuned->m, index), v = block_product(block, training->tuned->v, index);
	int64_t at_once = b->gradient.cols / master.cols;
	if (!gradient->dy.rows) return STATUS_OK;
	for (int64_t first = 0; first < master.rows; first += at_once) {
		int64_t left = master.rows - first, n = left < at_once ? left : at_once;
		struct tensor by_weight = tensor_make(b->gradient.data, n, master.cols, DTYPE_F32);
		TRY(backend->ops->matmul(backend, by_weight, tensor_cols(gradient->dy, first, n), true, gradient->x, false, false));
		TRY(backend->ops->adamw_step(backend, &b->adam, tensor_rows(master, first, n), tensor_rows(m, first, n),
					     tensor_rows(v, first, n), by_weight, none));
	}
	return STATUS_OK;
}

static enum status train_vector(const struct batch *b, struct tensor values, struct tensor m, struct tensor v,
				struct tensor gradient)
{
	struct backend *backend = b->state->backend;
	struct adamw adam = b->adam;
	adam.keep_zeros = false;
	if (!b->norms || !gradient.data) return STATUS_OK;
	return backend->ops->adamw_step(backend, &adam, values, m, v, gradient, (struct tensor){0});
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

/* The activations must be those of the block. */
static enum status block_step(struct batch *b, int index)
{
	const struct tuned_block *tuned = &b->state->blocks[index];
	struct training training = {b, tuned};
	b->by_vector.x = input_of(b, index);
	b->by_vector.input = index > 0;
	TRY(block_backward(&b->state->block, &b->activations, (int)b->sequences, b->dy, train_product, &training, &b->by_vector));
	for (int i = 0; i < VECTOR_COUNT; i++)
		TRY(train_vector(b, tuned->vectors.of[i], tuned->vector_m.of[i], tuned->vector_v.of[i],
				 b->by_vector.vectors.of[i]));
	return STATUS_OK;
}

enum status batch_step(struct batch *b, double rate)
{
	int last = (int)b->state->block.config->layers - 1;
	b->adam = (struct adamw){.lr = (float)rate,
				 .beta1 = 0.9f,
				 .beta2 = 0.99f,
				 .eps = 1e-10f,
				 .step = (int)b->state->step + 1,
				 .keep_zeros = true};
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
