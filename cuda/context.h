/* The CUDA backend's own state and what its files share. Host side. */
#ifndef BESAD_CUDA_CONTEXT_H
#define BESAD_CUDA_CONTEXT_H

#include <cuda_runtime.h>
#include <initializer_list>

#include "cuda/index.h"

extern "C" {
#include "engine/compute/backend.h"
#include "engine/compute/backend_check.h"
}

struct cuda_allocator;
struct cuda_staging;
struct cuda_host_memory;
struct cuda_matmuls;

/* The operation under way, for errors. */
struct cuda_call {
	const char *name;
	int tensors;
	struct tensor tensor[10];
};

struct cuda {
	struct backend base;
	cudaStream_t stream; /* every operation is issued here, so they run in order */
	int processors;
	size_t shared_memory; /* bytes that a block may have */
	int64_t panel_bytes;  /* of binned_gradient, at most */
	struct cuda_allocator *allocator;
	struct cuda_host_memory *host_memory;
	struct cuda_staging *staging, *side;   /* of the operations' stream, and of side_stream */
	cudaStream_t side_stream, copy_stream; /* the latter of `fetch` */
	cudaEvent_t before_fetch, after_fetch;
	struct cuda_matmuls *matmuls;
	struct cuda_call call;
};

/* Starts an operation: what an error message will name. */
static inline struct cuda *cuda_begin(struct backend *backend, const char *name, std::initializer_list<struct tensor> tensors)
{
	struct cuda *c = (struct cuda *)backend;
	c->call.name = name;
	c->call.tensors = 0;
	for (const struct tensor &t : tensors)
		c->call.tensor[c->call.tensors++] = t;
	return c;
}

/* Fills c->base.error with the operation, its sizes, the failing call and where it stands. */
enum status cuda_fail(struct cuda *c, cudaError_t error, const char *what, const char *file, int line);
/* Takes note of an error that stays, which loses the device to this process, and takes back one that does not. Any thread. */
void cuda_note_error(cudaError_t error);
enum status cuda_refuse(struct cuda *c, enum status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define CUDA_TRY(c, call)                                                                                                          \
	do {                                                                                                                       \
		cudaError_t cuda_error_ = (call);                                                                                  \
		if (cuda_error_ != cudaSuccess) return cuda_fail(c, cuda_error_, #call, __FILE__, __LINE__);                       \
	} while (0)

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

enum status cuda_allocate(struct cuda *c, size_t bytes, void **ret);
void cuda_release(struct cuda *c, void *);

/* Device memory for the length of an operation; what is queued may still use it when it goes: reuse follows on the same stream. */
struct scratch {
	struct cuda *c;
	void *data = nullptr;

	explicit scratch(struct cuda *owner) : c(owner)
	{
	}
	scratch(const scratch &) = delete;
	scratch &operator=(const scratch &) = delete;
	~scratch()
	{
		cuda_release(c, data);
	}
	enum status allocate(size_t bytes)
	{
		return cuda_allocate(c, bytes, &data);
	}
	template <typename T> T *as() const
	{
		return (T *)data;
	}
};

/* ---- shapes ------------------------------------------------------------------------------------------------------------------ */

static inline int64_t cuda_chunk_bytes(const struct tensor &t) /* of 8 elements, at most one 16-byte access */
{
	int64_t bytes = 8 * (int64_t)dtype_size(t.dtype);
	return bytes < 16 ? bytes : 16;
}

/* Whether each tensor can be read in aligned chunks of 8 elements. A tensor without data passes. */
static inline bool cuda_chunked(std::initializer_list<struct tensor> tensors)
{
	for (const struct tensor &t : tensors) {
		int64_t align = cuda_chunk_bytes(t);
		if (!t.data) continue;
		if (t.cols % 8 != 0 || (uintptr_t)t.data % (uintptr_t)align != 0) return false;
		if (t.rows > 1 && t.stride * (int64_t)dtype_size(t.dtype) % align != 0) return false;
	}
	return true;
}

/* ---- the operations, by file --------------------------------------------------------------------------------------------------- */

/* matmul.cu */
enum status cuda_matmuls_create(struct cuda *c);
void cuda_matmuls_destroy(struct cuda *c);
enum status cuda_matmul(struct backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b, bool transpose_b,
			bool accumulate);

/* elementwise.cu */
enum status cuda_convert(struct backend *, struct tensor to, struct tensor from);
enum status cuda_add_bias(struct backend *, struct tensor y, struct tensor bias);
enum status cuda_add(struct backend *, struct tensor y, struct tensor x);
enum status cuda_embed(struct backend *, struct tensor out, struct tensor table, const void *ids, float scale);

/* norm.cu */
enum status cuda_norm_forward(struct backend *, const struct norm *, struct tensor y, struct tensor stats, struct tensor x,
			      struct tensor weight, struct tensor bias);
enum status cuda_norm_backward(struct backend *, const struct norm *, struct tensor dx, struct tensor dy, struct tensor x,
			       struct tensor stats, struct tensor weight, bool accumulate);

/* rope.cu */
enum status cuda_rope(struct backend *, struct tensor x, struct tensor table, int head_dim, int rotary, bool inverse);

/* attention_forward.cu, attention_backward.cu */
enum status cuda_attention_forward(struct backend *, const struct attention *, struct tensor out, struct tensor lse,
				   struct tensor q, struct tensor k, struct tensor v);
enum status cuda_attention_backward(struct backend *, const struct attention *, struct tensor dq, struct tensor dk,
				    struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
				    struct tensor lse, struct tensor dout);

/* activation.cu */
enum status cuda_activation_forward(struct backend *, enum activation, struct tensor y, struct tensor gate, struct tensor up);
enum status cuda_activation_backward(struct backend *, enum activation, struct tensor dgate, struct tensor dup, struct tensor dy,
				     struct tensor gate, struct tensor up);

/* route.cu */
enum status cuda_route(struct backend *, const struct routing *, struct tensor weights, void *experts, void *counts, void *places,
		       void *sources, struct tensor logits);
enum status cuda_dispatch(struct backend *, struct tensor to, struct tensor from, const void *sources, int chosen,
			  struct tensor scale);
enum status cuda_combine(struct backend *, struct tensor to, struct tensor from, const void *places, int chosen,
			 struct tensor scale, bool accumulate);
enum status cuda_route_backward(struct backend *, const struct routing *, struct tensor dlogits, struct tensor logits,
				struct tensor weights, const void *experts, const void *places, struct tensor dy,
				struct tensor outputs);

/* importance.cu */
enum status cuda_column_norms(struct backend *, void *sums, struct tensor x);
enum status cuda_bin_ranks(struct backend *, struct tensor bin, struct tensor rank, int candidates);
enum status cuda_mask_weights(struct backend *, struct tensor out, struct tensor weight, struct tensor rank, const void *threshold,
			      bool shared);

/* rank.cu */
enum status cuda_rank_rows(struct backend *, enum importance, struct tensor rank, struct tensor weight, const void *sums,
			   double sequences);

/* binned_gradient.cu */
enum status cuda_binned_gradient(struct backend *, struct tensor sums, struct tensor dy, struct tensor x, struct tensor weight,
				 struct tensor bin, bool shared);

/* rates.cu */
enum status cuda_rates_forward(struct backend *, const struct rates *, struct tensor beta, void *s, void *threshold, void *stats,
			       struct tensor theta, double target, double lambda);
enum status cuda_rates_backward(struct backend *, const struct rates *, struct tensor dtheta, struct tensor theta,
				struct tensor beta, struct tensor sums, const void *stats);

/* reconstruction.cu */
enum status cuda_reconstruction(struct backend *, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				bool accumulate);

/* optimizer.cu */
enum status cuda_prodigy_step(struct backend *, const struct prodigy *, int64_t n, void *theta, const void *theta0, void *m,
			      void *v, void *s, const void *gradient, void *state);
enum status cuda_adamw_step(struct backend *, const struct adamw *, int64_t n, void *theta, void *m, void *v, const void *gradient);

/* logprobs.cu */
enum status cuda_token_logprobs(struct backend *, void *out, struct tensor logits, const void *targets, float softcap);

#endif
