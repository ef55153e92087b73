/* What config.json says about a model, as a description of its architecture: a new family is a row in a table (families.c) and a
 * map of weight names, not a fork of the code. A field that changes the maths and is not supported is refused by name. */
#ifndef BESAD_ENGINE_MODEL_CONFIG_H
#define BESAD_ENGINE_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/place.h"
#include "base/warnings.h"
#include "engine/compute/backend.h"
#include "engine/model/packed_form.h"

enum { MODEL_MAX_LAYERS = 4096 };

enum rope_kind { ROPE_NONE, ROPE_DEFAULT, ROPE_LINEAR, ROPE_DYNAMIC, ROPE_LLAMA3, ROPE_YARN, ROPE_LONG };
enum { ROPE_MAX_FACTORS = 256 };

struct rope {
	enum rope_kind kind;
	double theta, factor, low_freq_factor, high_freq_factor;
	int64_t original_max_positions;
	int rotary;                  /* columns of a head that turn */
	double attention;            /* cosines and sines are multiplied by this: 1 but for yarn and longrope */
	double beta_fast, beta_slow; /* of yarn */
	bool truncate;
	double short_factor[ROPE_MAX_FACTORS], long_factor[ROPE_MAX_FACTORS]; /* of longrope: one for each pair */
	double query_beta; /* queries are multiplied by 1 + beta · log(1 + ⌊position / original positions⌋) */
};

/* Where a family keeps its tensors. Those of a block are below "<blocks>.<index>."; NULL is what the family lacks. */
struct weight_names {
	const char *embeddings, *positions, *final_norm;
	const char *head; /* by which it is called where it is no lm_head; NULL: it always is */
	const char *blocks;
	const char *norm1, *norm2;             /* before attention and before the MLP; NULL for none */
	const char *attention_norm, *mlp_norm; /* output norms */
	const char *o, *gate, *up, *down;      /* linears */
	const char *qkv;                       /* q, k and v in one; NULL: they are self_attn.{q,k,v}_proj */
	const char *q_norms, *k_norms; /* with norms apart, those of the heads are "<q_norms>.<head>"; NULL: they are matrices */
	const char *router, *experts;  /* with experts gate, up and down are below "<experts>.<index>." */
	const char *sinks;             /* a vector of attention's, with one for each head */
	const char *shared,
		*shared_gate; /* and those of the one that all tokens take below "<shared>."; the gate gives its weight */
};

struct model_config {
	struct packed_form packing; /* of the weights of linears in the file */
	char family[32];            /* model_type: "llama" */
	bool multimodal;            /* the language model in a model of texts and images */
	int64_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocab, max_positions;
	struct norm norm; /* groups is 1 */
	bool norm_bias;   /* the norms have a bias beside their weight */
	bool head_bias;
	bool parallel; /* attention and the MLP read the same, which norm2, if there is one, normalises for the MLP */
	struct activation activation;
	const struct weight_names *names;
	bool gated_mlp; /* act(gate) · up, else act(gate) */
	bool qkv_bias, o_bias, mlp_bias;
	bool turns_neighbours; /* as struct rotation's `neighbours` */
	bool qk_norm;          /* q and k are normalised before they turn, head by head … */
	bool qk_norm_whole;    /* … or all of it */
	bool qk_norm_apart;    /* head by head, each by weights of its own */
	bool qkv_by_head;      /* that one tensor has q, k and v of the first head first; else all of q */
	bool transposed;       /* linears lie transposed in the file */
	bool stored_qkv;       /* q, k and v are one tensor in the file (qkv_proj) */
	bool stored_gate_up;   /* gate and up are (gate_up_proj) */
	bool output_norms;     /* what attention and the MLP give is normalised before it is added */
	int position_offset; /* the row of the position table that the first token of a sequence adds; -1 where there is no table */
	int experts;         /* MLPs of a block, each of size `intermediate`; 0 where there is one that all tokens take */
	int experts_per_token;
	int64_t shared_intermediate; /* the size of one more expert that every token takes; 0 where there is none */
	bool paired_experts;  /* stacked, each transposed, with gate and up row by row in turn; and with biases, as the router has
				one */
	bool stacked_experts; /* gate and up of all experts are one tensor in the file, down another, as its names say */
	bool normalised_routing; /* as struct routing's `normalise` */
	bool tied_embeddings;
	struct rope rope, local_rope; /* of full and of sliding layers; the latter's kind is ROPE_NONE where it is the same */
	int64_t sliding_window;       /* 0 for none; else of the layers that are not in full_layers */
	uint8_t full_layers[MODEL_MAX_LAYERS / 8];  /* a bit per layer */
	uint8_t still_layers[MODEL_MAX_LAYERS / 8]; /* those whose q and k do not turn; a bit per layer */
	float embedding_scale;                      /* 1 but for Gemma */
	float attention_scale;                      /* 1/sqrt(head_dim) as a rule */
	float attention_softcap, logit_softcap;     /* as in struct attention; 0 for none */
	float residual_scale; /* what attention and the MLP give is multiplied by this; not with output norms */
	float logit_scale;    /* the logits are, before they are capped */
	int64_t bos_token;    /* -1 for none */
};

/* Parses config.json's content, in the classic form (rope_theta, rope_scaling, torch_dtype) or the newer one (rope_parameters,
 * dtype). `path` names the file in errors. */
enum status model_config_parse(const cJSON *json, const char *path, struct warnings *, struct model_config *ret, struct error *err);
enum status model_config_read(const struct place *model, struct warnings *, struct model_config *ret, struct error *err);

/* A layer's bit. */
static inline bool layer_bit(const uint8_t bits[MODEL_MAX_LAYERS / 8], int64_t layer)
{
	return bits[layer / 8] >> layer % 8 & 1;
}

/* The length of the weight of the norm of q or k, which has `heads` heads. */
static inline int64_t config_qk_norm(const struct model_config *config, int64_t heads)
{
	return config->qk_norm_whole || config->qk_norm_apart ? heads * config->head_dim : config->head_dim;
}

/* The attention window of a layer, 0 for none. */
static inline int64_t model_window(const struct model_config *config, int layer)
{
	return layer_bit(config->full_layers, layer) ? 0 : config->sliding_window;
}

#endif
