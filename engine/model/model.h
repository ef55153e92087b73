/* An opened model directory: its configuration, its tensors, and the parts outside the blocks (embeddings, final norm, head). */
#ifndef BESAD_ENGINE_MODEL_H
#define BESAD_ENGINE_MODEL_H

#include "engine/compute/backend.h"
#include "engine/model/checkpoint.h"
#include "engine/model/config.h"

struct model {
	struct model_config config; /* tied_embeddings is what the tensors say: see model_open */
	struct checkpoint checkpoint;
	bool *seen;                    /* by checkpoint.tensors: model_find has found it; NULL but in model_check_all */
	const char *embeddings, *head; /* names of tensors without ".weight"; the same where the embeddings are tied */
};

/* Reads config.json and the tensors' heads, and decides as transformers does which tensors are embeddings and head where
 * config.json ties them: of two that differ each is used (a warning), and where there is one, it is both. */
enum status model_open(const struct place *, struct warnings *, struct model *ret, struct error *err);
void model_close(struct model *);

/* Which tensors are embeddings and head, as far as config.json and their names tell; model_open looks into them besides. */
void model_name_ends(struct model *);

/* The tensor of that name, or of the name without the first of its parts, as "model.", where that is the embeddings' too: models
 * that were saved without their head lack it. NULL when there is none. */
const struct tensor_info *model_find(const struct model *, const char *name);

/* The tensor of that name, as model_find finds it; its shape must be [rows, cols], or [cols] where rows is 0, and its type F32,
 * BF16 or F16. */
enum status model_tensor(const struct model *, const char *name, int64_t rows, int64_t cols, const struct tensor_info **ret,
			 struct error *err);

/* Reads a tensor and checks that every element is finite (STATUS_NUMERIC names the first that is not). The caller frees *ret. */
enum status model_read(const struct model *, const struct tensor_info *, void **ret, struct error *err);

/* The zeros, of either sign, among `count` elements of type F32, BF16 or F16. */
int64_t count_zero_weights(const void *data, enum dtype dtype, int64_t count);

/* Reads a vector [cols] as F32 onto the device, into a new allocation; *ret is a [1, cols] tensor. */
enum status model_upload_vector(const struct model *, struct backend *, const char *name, int64_t cols, struct tensor *ret,
				struct error *err);

/* The same of a tensor that was found, of `length` elements, whatever its shape. */
enum status model_upload_flat(const struct model *, struct backend *, const struct tensor_info *, int64_t length,
			      struct tensor *ret, struct error *err);

/* model_tensor, of `count` matrices in one tensor. */
enum status model_stack(const struct model *, const char *name, int64_t count, int64_t rows, int64_t cols,
			const struct tensor_info **ret, struct error *err);

/* Reads a matrix [rows, cols] onto the device as `type`, into a new allocation. */
enum status model_upload_matrix(const struct model *, struct backend *, const char *name, int64_t rows, int64_t cols,
				enum dtype type, struct tensor *ret, struct error *err);

/* out [T,H] F32 on the device = the embeddings of the ids (host, T of them: sequences of `length`, one after the other), with their
 * positions' where the family has such; reads the rows it needs, not the tables. */
enum status model_embed(const struct model *, struct backend *, const int32_t *ids, int64_t tokens, int64_t length,
			struct tensor out, struct error *err);

/* The same of one token at a position of its sequence, to the host: ret [H]. */
enum status model_embed_token(const struct model *, int32_t id, int64_t position, float *ret, struct error *err);

/* Checks that the tensors outside the blocks are there with the shape and a type that can be used. */
enum status model_check(const struct model *, struct error *err);

/* The final norm on the device: F32 [1,H]; bias without data where there is none. */
struct model_norm {
	struct tensor weight, bias;
};
enum status model_norm_load(const struct model *, struct backend *, struct model_norm *ret, struct error *err);
void model_norm_release(struct model_norm *, struct backend *);

/* The tensor of the final norm's weight, or of its bias. */
enum status model_norm_tensor(const struct model *, bool bias, const struct tensor_info **ret, struct error *err);

/* Final norm and head on the device. `type` is what the head computes in. */
struct model_head {
	struct tensor norm_weight, norm_bias; /* F32 [1,H]; bias without data where there is none */
	struct tensor head;                   /* [V,H], in `type` */
	struct tensor bias;                   /* F32 [1,V]; without data where there is none */
};
/* logits F32 [T,V], before they are capped, of what the final norm gave, [T,H] in the head's type. Fills the backend's error. */
enum status model_logits(const struct model_config *, const struct model_head *, struct backend *, struct tensor logits,
			 struct tensor normed);

/* dnormed F32 [T,H] from dlogits, in the head's type. */
enum status model_logits_backward(const struct model_config *, const struct model_head *, struct backend *, struct tensor dnormed,
				  struct tensor dlogits);

enum status model_head_load(const struct model *, struct backend *, enum dtype type, struct model_head *ret, struct error *err);
void model_head_release(struct model_head *, struct backend *);

#endif
