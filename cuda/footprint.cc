/* The memory plan (cuda/plan.h) of a workload, against what the device has. */
#include "cuda/memory.h"

extern "C" {
#include "cuda/plan.h"
#include "engine/model/config.h"
}

static struct plan_sizes sizes_of(const struct cuda *c, const struct workload *w)
{
	const struct model_config *config = w->config;
	struct plan_sizes s = {};
	s.hidden = config->hidden;
	s.intermediate = config->intermediate;
	s.heads = config->heads;
	s.kv_heads = config->kv_heads;
	s.head_dim = config->head_dim;
	s.vocab = config->vocab;
	s.experts = config->experts;
	s.experts_per_token = config->experts_per_token;
	s.qk_norm = config->qk_norm;
	s.plain_mlp = !config->gated_mlp;
	s.layer_norm = config->norm.kind == NORM_LAYER;
	s.output_norms = config->output_norms;
	s.local_rope = config->local_rope.kind != ROPE_NONE;
	s.sequences = w->sequences;
	s.tokens = w->tokens;
	s.learn_batch = w->learn_batch;
	s.pass_batch = w->pass_batch;
	s.probe_sequences = w->probe_sequences;
	s.candidates = w->candidates;
	s.by_row = w->by_row;
	s.records = w->records;
	s.file_type = w->file_type;
	s.compute_type = w->compute_type;
	s.processors = c->processors;
	return s;
}

static enum status predict(struct backend *backend, const struct workload *workload, struct footprint *ret)
{
	struct plan plan;
	size_t free_bytes, total;
	TRY(backend->ops->memory(backend, &free_bytes, &total));
	struct plan_sizes sizes = sizes_of((struct cuda *)backend, workload);
	free_bytes += WORKSPACE_BYTES; /* the plan counts it, and the backend has taken it already */
	/* What was handed out before and is handed out again may be an eighth larger than asked for; not all of it is. */
	ret->fits = plan_fit(&sizes, free_bytes - free_bytes / 32, &plan);
	ret->peak = plan.peak;
	ret->available = free_bytes;
	ret->streams_on_device = sizes.streams_on_device;
	return STATUS_OK;
}

void cuda_footprint_operations(struct backend_ops *ops)
{
	ops->footprint = predict;
}
