#include "engine/eval/scorer.h"

/* Elements of a slice of logits: enough to keep the product busy. */
enum { LOGITS = 8 << 20 };

static enum status backend_failed(const struct scorer *s, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = s->backend->error;
	return status;
}

static enum status allocate(struct scorer *s, enum dtype type, struct error *err)
{
	const struct model_config *config = &s->model->config;
	const struct backend_ops *ops = s->backend->ops;
	s->normed = tensor_make(NULL, s->rows, config->hidden, type);
	s->logits = tensor_make(NULL, s->rows, config->vocab, DTYPE_F32);
	s->stats = tensor_make(NULL, s->rows, 2, DTYPE_F32);
	TRY(model_head_load(s->model, s->backend, type, &s->head, err));
	TRY(backend_failed(s, ops->alloc(s->backend, tensor_bytes(&s->normed), &s->normed.data), err));
	TRY(backend_failed(s, ops->alloc(s->backend, tensor_bytes(&s->logits), &s->logits.data), err));
	TRY(backend_failed(s, ops->alloc(s->backend, tensor_bytes(&s->stats), &s->stats.data), err));
	TRY(backend_failed(s, ops->alloc(s->backend, (size_t)s->rows * sizeof(int32_t), &s->targets), err));
	return backend_failed(s, ops->alloc(s->backend, (size_t)s->rows * sizeof(double), &s->logprobs), err);
}

enum status scorer_create(const struct model *model, struct backend *backend, enum dtype type, int64_t rows, struct scorer *ret,
			  struct error *err)
{
	struct scorer scorer = {.model = model, .backend = backend, .rows = LOGITS / model->config.vocab};
	if (scorer.rows > rows) scorer.rows = rows;
	if (scorer.rows < 1) scorer.rows = 1;
	enum status status = allocate(&scorer, type, err);
	if (status == STATUS_OK)
		*ret = scorer;
	else
		scorer_release(&scorer);
	return status;
}

void scorer_release(struct scorer *s)
{
	if (!s->backend) return;
	void *device[] = {s->normed.data, s->logits.data, s->stats.data, s->targets, s->logprobs};
	for (size_t i = 0; i < sizeof device / sizeof *device; i++)
		s->backend->ops->release(s->backend, device[i]);
	model_head_release(&s->head, s->backend);
	*s = (struct scorer){0};
}

static enum status score_slice(const struct scorer *s, struct tensor hidden, const int32_t *targets, double *ret)
{
	const struct backend_ops *ops = s->backend->ops;
	int64_t rows = hidden.rows;
	struct tensor normed = tensor_rows(s->normed, 0, rows), logits = tensor_rows(s->logits, 0, rows);
	TRY(ops->upload(s->backend, s->targets, targets, (size_t)rows * sizeof *targets));
	TRY(ops->norm_forward(s->backend, &s->model->config.norm, normed, tensor_rows(s->stats, 0, rows), hidden,
			      s->head.norm_weight, s->head.norm_bias));
	TRY(model_logits(&s->model->config, &s->head, s->backend, logits, normed));
	TRY(ops->token_logprobs(s->backend, s->logprobs, logits, s->targets, s->model->config.logit_softcap));
	return ops->download(s->backend, ret, s->logprobs, (size_t)rows * sizeof *ret);
}

enum status scorer_logprobs(const struct scorer *s, struct tensor hidden, const int32_t *targets, double *ret, struct error *err)
{
	for (int64_t t = 0; t < hidden.rows; t += s->rows) {
		int64_t n = hidden.rows - t < s->rows ? hidden.rows - t : s->rows;
		TRY(backend_failed(s, score_slice(s, tensor_rows(hidden, t, n), targets + t, ret + t), err));
	}
	return STATUS_OK;
}

enum status scorer_next_tokens(const struct scorer *s, struct tensor hidden, const int32_t *ids, double *room, double *sum,
			       struct error *err)
{
	int64_t rows = hidden.rows - 1;
	TRY(scorer_logprobs(s, tensor_rows(hidden, 0, rows), ids + 1, room, err));
	for (int64_t t = 0; t < rows; t++)
		*sum += room[t];
	return STATUS_OK;
}
