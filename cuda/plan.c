#include "cuda/plan.h"

#include "cuda/index.h"
#include "engine/compute/backend.h"

enum { FUSED = 4, CANDIDATE_ARRAYS = 7 /* θ, θ₀, β, ∂θ, m, v, s */ };
static const size_t LOGITS_ROOM = (size_t)40 << 20; /* engine/eval/perplexity.c: a slice of logits, and what goes with it */

/* cuda/memory.cc hands out multiples of 512 bytes. */
static size_t grains(size_t bytes)
{
	return bytes ? (bytes + 511) / 512 * 512 : 512;
}

static size_t array(int64_t rows, int64_t cols, size_t size)
{
	return grains((size_t)rows * (size_t)cols * size);
}

/* A tensor with the gaps that tensor_padded leaves. */
static size_t padded(int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor tensor = tensor_padded(NULL, rows, cols, type);
	return grains(tensor_room(&tensor));
}

static int64_t mlps(const struct plan_sizes *s)
{
	return s->experts ? s->experts : 1;
}

/* How many products a fused matrix is made of. */
static int64_t products(const struct plan_sizes *s, int fused)
{
	return fused < 2 ? 1 : mlps(s);
}

/* Rows and columns of q·k·v, o, gate·up, down. */
static void fused_shapes(const struct plan_sizes *s, int64_t rows[FUSED], int64_t cols[FUSED])
{
	int64_t query = s->heads * s->head_dim, key = s->kv_heads * s->head_dim;
	const int64_t all_rows[FUSED] = {query + 2 * key, s->hidden, (s->plain_mlp ? 1 : 2) * s->intermediate * mlps(s),
					 s->hidden * mlps(s)};
	const int64_t all_cols[FUSED] = {s->hidden, query, s->hidden, s->intermediate};
	for (int f = 0; f < FUSED; f++) {
		rows[f] = all_rows[f];
		cols[f] = all_cols[f];
	}
}

/* Of the MLP: its inner activations, or those of all experts (engine/model/experts.c). */
static size_t mlp_bytes(const struct plan_sizes *s, int64_t tokens, bool backward)
{
	struct routing routing = {s->experts, s->experts_per_token, false};
	int64_t rows = s->experts ? routing_rows(&routing, tokens) : tokens, choices = tokens * s->experts_per_token;
	enum dtype type = s->compute_type;
	size_t bytes = padded(rows, (s->plain_mlp ? 1 : 2) * s->intermediate, type) +
		       (backward ? 2 : 1) * padded(rows, s->intermediate, type);
	if (!s->experts) return bytes;
	return bytes + 2 * padded(rows, s->hidden, type) + array(tokens, s->experts, 4) + 3 * array(choices, 1, 4) +
	       array(s->experts, 1, 4) + array(rows, 1, 4) + (backward ? padded(tokens, s->experts, type) : 0);
}

static size_t activation_bytes(const struct plan_sizes *s, int64_t batch, bool backward)
{
	int64_t rows = batch * s->tokens, fused_rows[FUSED], fused_cols[FUSED], turned = (s->heads + s->kv_heads) * s->head_dim;
	enum dtype type = s->compute_type;
	fused_shapes(s, fused_rows, fused_cols);
	size_t bytes = 2 * padded(rows, s->hidden, type) + padded(rows, fused_rows[0], type) + padded(rows, fused_cols[1], type) +
		       mlp_bytes(s, rows, backward) + array(rows, s->hidden, 4) + 2 * array(rows, 2, 4) +
		       array(batch * s->heads, s->tokens, 4);
	if (backward)
		bytes += padded(rows, s->hidden, type) + padded(rows, fused_rows[0], type) + padded(rows, fused_cols[1], type) +
			 (type == DTYPE_F32 ? 0 : padded(rows, s->hidden, type));
	if (s->qk_norm) bytes += padded(rows, turned, type) + array(rows, 2 * (s->heads + s->kv_heads), 4);
	if (s->output_norms) bytes += (backward ? 3 : 2) * padded(rows, s->hidden, DTYPE_F32) + 2 * array(rows, 2, 4);
	if (s->qk_norm && backward) bytes += padded(rows, turned, type) + (type == DTYPE_F32 ? 0 : padded(rows, turned, DTYPE_F32));
	return bytes;
}

static size_t larger(size_t a, size_t b)
{
	return a > b ? a : b;
}

/* The most that one operation holds beside its operands. */
static size_t scratch_bytes(const struct plan_sizes *s)
{
	int64_t fused_rows[FUSED], fused_cols[FUSED], most_batch = index_max(s->pass_batch, s->learn_batch);
	int64_t rows = most_batch * s->tokens;
	size_t most = 0;
	fused_shapes(s, fused_rows, fused_cols);
	for (int f = 0; f < FUSED; f++) {
		int64_t part = fused_rows[f] / products(s, f);
		int64_t panel = index_panel_rows(part, fused_cols[f], PANEL_BYTES, s->processors);
		size_t gradient = array(panel, fused_cols[f], 4) + (s->by_row ? 0 : 2 * array(part, s->candidates - 1, 4));
		size_t ranking = (size_t)(index_rank_blocks(part, fused_cols[f], s->processors) * 2 * fused_cols[f] * 8) +
				 array(1, fused_cols[f], 4) + 512;
		size_t norms = array(index_ceil_div(rows, 256), fused_cols[f], 8);
		most = larger(most, larger(ranking, norms));
		if (s->learn_batch) most = larger(most, gradient);
	}
	if (s->learn_batch) {
		int64_t learn_rows = s->learn_batch * s->tokens;
		most = larger(most, array(learn_rows, s->heads, 4));
		most = larger(most, 2 * array(index_ceil_div(learn_rows, 64), s->hidden, 8) + array(1, s->hidden, 4) + 512);
	}
	return most + WORKSPACE_BYTES;
}

void plan_predict(const struct plan_sizes *s, struct plan *ret)
{
	struct plan p = {0};
	int64_t fused_rows[FUSED], fused_cols[FUSED], rows = 0, at_once = index_max(s->pass_batch, s->learn_batch);
	size_t bins = 0, stream = array(s->sequences * s->tokens, s->hidden, 4), batch = array(at_once * s->tokens, s->hidden, 4);
	fused_shapes(s, fused_rows, fused_cols);
	for (int f = 0; f < FUSED; f++) {
		p.weights += array(fused_rows[f], fused_cols[f], dtype_size(s->file_type)) +
			     padded(fused_rows[f], fused_cols[f], s->compute_type);
		p.spare += array(fused_rows[f], fused_cols[f], dtype_size(s->file_type));
		p.ranks += array(fused_rows[f], fused_cols[f], 2) + (size_t)products(s, f) * array(1, fused_cols[f], 8);
		bins += array(fused_rows[f], fused_cols[f], 1);
		rows += fused_rows[f];
	}
	p.weights += (s->output_norms || s->layer_norm ? 4 : 2) * array(1, s->hidden, 4) +
		     (s->local_rope ? 2 : 1) * array(s->tokens, s->head_dim, 4) + (s->qk_norm ? 2 * array(1, s->head_dim, 4) : 0);
	if (s->experts) p.weights += array(s->experts, s->hidden, dtype_size(s->compute_type));
	p.ranks += array(rows, 1, 4);
	p.activations = activation_bytes(s, s->pass_batch, false);
	if (s->learn_batch) {
		int64_t groups = s->by_row ? rows : 4 + (s->plain_mlp ? 2 : 3) * mlps(s), learn_rows = s->learn_batch * s->tokens;
		p.learning = bins + CANDIDATE_ARRAYS * array(groups, s->candidates, 4) + array(groups, s->candidates - 1, 4) +
			     3 * array(groups, 1, 4) + array(groups, 1, 8) + array(learn_rows, s->hidden, 4) +
			     padded(learn_rows, s->hidden, DTYPE_F32) + 2 * 512;
		if (s->records) p.learning += 2 * array(learn_rows, s->hidden, 4);
		p.activations += activation_bytes(s, s->learn_batch, true);
	}
	p.streams = (size_t)s->streams_on_device * stream + (size_t)(2 - s->streams_on_device) * 2 * batch +
		    array(s->pass_batch * s->tokens, s->hidden, 4) + 512;
	size_t head = LOGITS_ROOM + array(s->vocab, s->hidden, dtype_size(s->compute_type) + dtype_size(s->file_type));
	if (s->probe_sequences) p.probe = 2 * array(s->probe_sequences * s->tokens, s->hidden, 4) + head;
	p.scratch = scratch_bytes(s);
	p.pruning = p.weights + p.spare + p.ranks + p.learning + p.activations + p.streams + p.probe + p.scratch;
	p.evaluation = p.weights + activation_bytes(s, s->pass_batch, false) + 3 * batch + head + WORKSPACE_BYTES;
	p.peak = larger(p.pruning, p.evaluation);
	*ret = p;
}

bool plan_fit(struct plan_sizes *sizes, size_t available, struct plan *ret)
{
	for (sizes->streams_on_device = 2;; sizes->streams_on_device--) {
		plan_predict(sizes, ret);
		if (ret->peak <= available) return true;
		if (sizes->streams_on_device == 0) return false;
	}
}
