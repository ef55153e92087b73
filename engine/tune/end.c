#include "engine/tune/end.h"

/* Elements of a slice of logits: enough to keep the product busy. */
enum { LOGITS = 8 << 20 };

static enum status allocate(struct end *end, int64_t rows, int64_t cols, enum dtype type, struct tensor *ret)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, type);
	TRY(end->backend->ops->alloc(end->backend, tensor_bytes(&tensor), &tensor.data));
	*ret = tensor;
	return STATUS_OK;
}

/* Takes the vector, where it has data. */
static enum status tune_vector(struct end *end, struct tensor *values, struct tuned_vector *ret)
{
	struct tensor *const others[] = {&ret->m, &ret->v, &ret->gradient};
	ret->values = *values;
	*values = (struct tensor){0};
	for (size_t i = 0; ret->values.data && i < sizeof others / sizeof *others; i++) {
		TRY(allocate(end, 1, ret->values.cols, DTYPE_F32, others[i]));
		TRY(end->backend->ops->zero(end->backend, others[i]->data, tensor_bytes(others[i])));
	}
	return STATUS_OK;
}

static enum status load_norm(struct end *end, const struct model *stored, struct error *err)
{
	struct model_norm norm;
	TRY(model_norm_load(stored, end->backend, &norm, err));
	enum status status = tune_vector(end, &norm.weight, &end->norm[0]);
	if (status == STATUS_OK) status = tune_vector(end, &norm.bias, &end->norm[1]);
	if (status != STATUS_OK) *err = end->backend->error;
	model_norm_release(&norm, end->backend);
	return status;
}

static enum status allocate_all(struct end *end, enum dtype type, int64_t tokens)
{
	int64_t hidden = end->config->hidden, vocab = end->config->vocab, rows = end->rows;
	TRY(allocate(end, rows, hidden, type, &end->normed));
	TRY(allocate(end, rows, vocab, DTYPE_F32, &end->logits));
	TRY(allocate(end, rows, vocab, DTYPE_F32, &end->wanted));
	if (type != DTYPE_F32) TRY(allocate(end, rows, vocab, type, &end->dlogits));
	TRY(allocate(end, tokens, hidden, DTYPE_F32, &end->dnormed));
	TRY(allocate(end, tokens, 2, DTYPE_F32, &end->stats));
	TRY(end->backend->ops->alloc(end->backend, (size_t)rows * sizeof(int32_t), &end->targets));
	TRY(end->backend->ops->alloc(end->backend, (size_t)rows * sizeof(double), &end->logprobs));
	return end->backend->ops->alloc(end->backend, STEP_STATS * sizeof(double), &end->loss);
}

enum status end_create(const struct model *model, const struct model *stored, struct backend *backend, enum dtype compute_type,
		       int64_t tokens, struct end *ret, struct error *err)
{
	struct end end = {.config = &model->config, .backend = backend, .rows = LOGITS / model->config.vocab};
	if (end.rows > tokens) end.rows = tokens;
	if (end.rows < 1) end.rows = 1;
	enum status status = model_head_load(model, backend, compute_type, &end.dense, err);
	if (status == STATUS_OK) status = load_norm(&end, stored, err);
	if (status == STATUS_OK) {
		status = allocate_all(&end, compute_type, tokens);
		if (status != STATUS_OK) *err = backend->error;
	}
	if (status == STATUS_OK)
		*ret = end;
	else
		end_release(&end);
	return status;
}

void end_release(struct end *end)
{
	struct backend *backend = end->backend;
	if (!backend) return;
	struct tensor *const tensors[] = {&end->normed, &end->logits, &end->wanted, &end->dlogits, &end->dnormed, &end->stats};
	for (int i = 0; i < END_VECTORS; i++) {
		struct tuned_vector *vector = &end->norm[i];
		void *const parts[] = {vector->values.data, vector->m.data, vector->v.data, vector->gradient.data};
		for (size_t k = 0; k < sizeof parts / sizeof *parts; k++)
			backend->ops->release(backend, parts[k]);
	}
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		backend->ops->release(backend, tensors[i]->data);
	void *const others[] = {end->loss, end->targets, end->logprobs};
	for (size_t i = 0; i < sizeof others / sizeof *others; i++)
		backend->ops->release(backend, others[i]);
	model_head_release(&end->dense, backend);
	*end = (struct end){0};
}

/* logits = head(norm(x)) */
static enum status forward(struct end *end, struct tensor logits, struct tensor stats, struct tensor x, struct tensor weight,
			   struct tensor bias)
{
	struct backend *backend = end->backend;
	struct tensor normed = tensor_rows(end->normed, 0, x.rows);
	TRY(backend->ops->norm_forward(backend, &end->config->norm, normed, stats, x, weight, bias));
	return model_logits(end->config, &end->dense, backend, logits, normed);
}

enum status end_logprobs(struct end *end, struct tensor x, const int32_t *targets, double *ret)
{
	struct backend *backend = end->backend;
	for (int64_t t = 0; t < x.rows; t += end->rows) {
		int64_t n = x.rows - t < end->rows ? x.rows - t : end->rows;
		struct tensor logits = tensor_rows(end->logits, 0, n);
		TRY(backend->ops->upload(backend, end->targets, targets + t, (size_t)n * sizeof *targets));
		TRY(forward(end, logits, tensor_rows(end->stats, 0, n), tensor_rows(x, t, n), end->norm[0].values,
			    end->norm[1].values));
		TRY(backend->ops->token_logprobs(backend, end->logprobs, logits, end->targets, end->config->logit_softcap));
		TRY(backend->ops->download(backend, ret + t, end->logprobs, (size_t)n * sizeof *ret));
	}
	return STATUS_OK;
}

/* Adds the loss of some tokens, `factor` of each; the gradient of what their norm gave. */
static enum status slice(struct end *end, struct tensor dnormed, struct tensor stats, struct tensor x, struct tensor wanted,
			 double factor)
{
	struct backend *backend = end->backend;
	struct tensor logits = tensor_rows(end->logits, 0, x.rows), target = tensor_rows(end->wanted, 0, x.rows);
	struct tensor dlogits = end->dlogits.data ? tensor_rows(end->dlogits, 0, x.rows) : logits;
	TRY(forward(end, target, stats, wanted, end->dense.norm_weight, end->dense.norm_bias));
	TRY(forward(end, logits, stats, x, end->norm[0].values, end->norm[1].values));
	TRY(backend->ops->divergence(backend, end->loss, dlogits, logits, target, end->config->logit_softcap, factor, true));
	return model_logits_backward(end->config, &end->dense, backend, dnormed, dlogits);
}

enum status end_backward(struct end *end, struct tensor dx, struct tensor x, struct tensor wanted)
{
	struct backend *backend = end->backend;
	const struct norm *norm = &end->config->norm;
	struct tensor dnormed = tensor_rows(end->dnormed, 0, x.rows), stats = tensor_rows(end->stats, 0, x.rows);
	TRY(backend->ops->zero(backend, end->loss, STEP_STATS * sizeof(double)));
	for (int64_t t = 0; t < x.rows; t += end->rows) {
		int64_t n = x.rows - t < end->rows ? x.rows - t : end->rows;
		TRY(slice(end, tensor_rows(dnormed, t, n), tensor_rows(stats, t, n), tensor_rows(x, t, n),
			  tensor_rows(wanted, t, n), 1 / (double)x.rows));
	}
	TRY(backend->ops->norm_gradient(backend, norm, end->norm[0].gradient, end->norm[1].gradient, dnormed, x, stats));
	return backend->ops->norm_backward(backend, norm, dx, dnormed, x, stats, end->norm[0].values, false);
}
