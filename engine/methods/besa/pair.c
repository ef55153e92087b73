#include "engine/methods/besa/pair.h"

#include <math.h>

enum status pair_create(const struct method_setup *setup, struct pair *ret, struct error *err)
{
	const struct block *first = setup->block;
	struct backend *backend = first->backend;
	const struct spec *spec = setup->spec;
	ret->setup = *setup;
	TRY(block_create(setup->model, backend, first->compute_type, setup->tokens, &ret->block, err));
	TRY(mask_create(&ret->block, &ret->mask, err));
	TRY(column_norms_create(&ret->block, &ret->norms, err));
	TRY(besa_create(spec, &ret->block, &ret->mask, NULL, setup->tokens, &ret->besa, err));
	if (setup->orders) TRY(besa_add_orders(&ret->besa, err));
	/* On a device with memory of its own, whose streams are counted before, on the host: a step reads one batch of it. */
	return (backend->unified ? stream_create : stream_create_on_host)(
		backend, setup->sequences, setup->tokens, first->config->hidden, spec->besa.batch_size, &ret->wanted, err);
}

void pair_release(struct pair *pair)
{
	stream_release(&pair->wanted);
	besa_release(&pair->besa);
	column_norms_release(&pair->norms);
	mask_release(&pair->mask);
	block_release(&pair->block);
}

bool pair_follows(const struct pair *pair, const struct block_task *task)
{
	return task->index + 1 < pair->setup.model->config.layers;
}

static enum status observe(void *norms, int product, struct tensor x)
{
	return column_norms_observe(norms, product, x);
}

/* The dense second block, behind the dense first one; the norms see what goes into its products. */
static enum status pass(struct pair *pair, struct stream *from, int64_t first, int64_t count)
{
	const struct observer observer = {.observe = observe, .context = &pair->norms};
	struct tensor x, y;
	TRY(stream_batch(from, first, count, true, &x));
	TRY(stream_batch(&pair->wanted, first, count, false, &y));
	TRY(block_forward(&pair->block, &pair->besa.activations, (int)count, x, y, &observer));
	return stream_store(&pair->wanted, first, count, y);
}

static enum status pass_all(struct pair *pair, struct stream *from, struct error *err)
{
	int64_t batch = pair->setup.spec->besa.batch_size;
	enum status status = STATUS_OK;
	pair->wanted.sequences = from->sequences; /* of which a rehearsal has fewer */
	for (int64_t i = 0; status == STATUS_OK && i < from->sequences; i += batch) {
		int64_t left = from->sequences - i;
		if (atomic_load_explicit(pair->setup.stop, memory_order_relaxed))
			return error_set(err, STATUS_CANCELLED, "stopped while looking ahead");
		status = pass(pair, from, i, left < batch ? left : batch);
	}
	if (status != STATUS_OK) *err = pair->block.backend->error;
	return status;
}

static enum status failed(const struct pair *pair, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = pair->block.backend->error;
	return status;
}

enum status pair_look_ahead(struct pair *pair, const struct block_task *task, struct error *err)
{
	struct block *block = &pair->block;
	const struct spec *spec = pair->setup.spec;
	bool none_goes = llround(task->next_target * (double)block->layout.params) == 0; /* it stays dense */
	TRY(block_load(block, pair->setup.model, task->index + 1, err));
	TRY(failed(pair, block_activate_dense(block), err));
	TRY(failed(pair, column_norms_reset(&pair->norms), err));
	TRY(pass_all(pair, task->reference, err));
	TRY(failed(pair, mask_rank(&pair->mask, block, spec->besa.importance, &pair->norms, pair->setup.sequences, spec->pattern),
		   err));
	besa_aim(&pair->besa, none_goes ? 0 : task->next_target);
	return STATUS_OK;
}
