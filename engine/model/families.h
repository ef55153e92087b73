/* The architectures besad knows: what their config.json leaves unsaid, and which of its fields they heed. */
#ifndef BESAD_ENGINE_MODEL_FAMILIES_H
#define BESAD_ENGINE_MODEL_FAMILIES_H

#include <stdbool.h>
#include <stdint.h>

#include "engine/model/config.h"

/* Where a sliding window holds: nowhere; in all layers, when `sliding_window` is a number; only where `use_sliding_window` is
 * true as well, from `max_window_layers` on; where it is, in all layers; where it is, in every other layer up to
 * `max_window_layers`, the first among them; where it is, in the layers that do not turn; in all but every `window_pattern`-th
 * layer. `layer_types` goes before the third and the last three, and must say the same as the others. */
enum window_rule {
	WINDOW_NEVER,
	WINDOW_WHEN_GIVEN,
	WINDOW_WHEN_SWITCHED_ON,
	WINDOW_WHEN_SWITCHED_ON_IN_ALL,
	WINDOW_WHEN_SWITCHED_ON_IN_TURN,
	WINDOW_WHERE_STILL,
	WINDOW_BY_PATTERN,
};

/* Whether `use_sliding_window` switches it on. */
static inline bool window_is_switched(enum window_rule rule)
{
	return rule >= WINDOW_WHEN_SWITCHED_ON && rule <= WINDOW_WHERE_STILL;
}

/* What fields are called. */
struct size_names {
	const char *hidden, *layers, *heads, *positions;
};

struct family {
	const char *model_type;   /* of config.json */
	const char *architecture; /* the class in its `architectures` */
	bool text_model;          /* whose class without the head is called "...TextModel" */
	const struct weight_names *names;
	const struct size_names *sizes; /* NULL: as most have them */
	bool layer_norm;                /* with a bias … */
	bool unbiased_norm;             /* … or without; else RMS */
	const char *norm_eps_key;       /* the field of the norms' eps; NULL: rms_norm_eps, and of layer norms none: it is 1e-5 */
	bool learned_positions;         /* added to the embeddings; no rope */
	int first_position;             /* the row of the first */
	bool plain_mlp;                 /* without a gate */
	bool all_biases;                /* on all linears … */
	const char *bias_key;           /* … unless this field, which is true by default, is false; NULL: always */
	const char *qkv_bias_key; /* the field that says whether q, k and v have biases, by default as `qkv_bias` says; NULL: none
				     does */
	bool head_bias;
	bool parallel, turns_neighbours; /* as in struct model_config */
	const char *parallel_key; /* the field that says whether it is, by default as `parallel` says; NULL: it is as that says */
	const struct weight_names *parallel_names; /* of where it is; NULL: the same */
	const char *intermediate_key;              /* the field that says the intermediate size; NULL: intermediate_size */
	bool qkv_bias;                             /* there unless a field says otherwise */
	bool attention_bias;                       /* heeds the field: biases on q, k, v and o */
	bool mlp_bias;                             /* heeds the field */
	bool qk_norm;
	bool qk_norm_whole; /* not head by head */
	const char
		*qk_norm_key; /* the field that says whether they are normalised, each head apart, false by default; NULL: none */
	bool stored_qkv, stored_gate_up; /* as in struct model_config */
	bool qkv_by_head, transposed;    /* as in struct model_config */
	bool output_norms;
	const char *experts_key; /* the field that says how many experts there are, besides its alias; NULL: there are none */
	int experts, experts_per_token; /* `num_experts_per_tok` */
	bool paired_experts;            /* as in struct model_config; and the activation is the clamped SwiGLU */
	const char *shared_key;         /* the field that says the size of an expert that every token takes; NULL: there is none */
	bool normalised_routing;
	bool heeds_norm_topk_prob;  /* which normalises the routing */
	bool scaled_embeddings;     /* by the root of the hidden size */
	bool tied_embeddings;       /* unless config.json says otherwise */
	float norm_offset;          /* of struct norm */
	const char *activation_key; /* the field that names it; NULL: hidden_act */
	const char *activation;     /* its default; NULL: silu */
	bool gelu_is_tanh;          /* its "gelu" is the tanh form, as it was trained with */
	enum window_rule window;

	/* Defaults of transformers' configuration class, for fields that config.json may leave out. */
	int64_t heads, vocab; /* 0: must be there */
	int64_t kv_heads;     /* 0: as many as heads */
	int64_t head_dim;     /* 0: hidden_size / heads */
	int64_t times_hidden; /* the intermediate size, where it is not said; 0: must be there */
	int64_t max_positions;
	int64_t sliding_window; /* 0 for none */
	int64_t window_pattern;
	bool heeds_window_pattern; /* `sliding_window_pattern` */
	int64_t still_interval;    /* every so-manyth layer does not turn q and k, as `no_rope_layers` and `no_rope_layer_interval`
				      say; 0: all do */
	bool full_are_still;       /* layers without a window do not turn q and k */
	double rms_norm_eps, rope_theta; /* the former of layer norms too, where a field says it */
	double partial_rotary;           /* heeds `partial_rotary_factor`; 0: does not, and all of a head turns */
	const char *rotary_key,
		*theta_key; /* what `partial_rotary_factor` and `rope_theta` are called beside the rope's object; NULL: that */
	int64_t original_positions;  /* heeds `original_max_position_embeddings` beside the rope's object, not in it; 0: does not */
	bool says_rope;              /* where nothing is said of rotary embeddings, transformers takes others than the default */
	bool scaled_queries;         /* heeds `llama_4_scaling_beta` of `rope_parameters`, which must be there */
	double rope_local_base_freq; /* 0: sliding layers turn as the others do */
	double query_pre_attn_scalar; /* 0: this and the soft caps are not heeded, and refused */
	double attn_logit_softcapping, final_logit_softcapping;
	double logit_scale; /* heeds `logit_scale`; 0: does not */
	bool multipliers; /* heeds `embedding_multiplier`, `attention_multiplier`, `residual_multiplier` and `logits_scaling`, 1 by
			     default */
};

/* A model of texts and images: its `text_config` describes the language model, of one of the families `text`, whose tensors have
 * "language_model." in their names, before "model." or behind it. */
struct wrapper {
	const char *model_type, *architecture;
	const char *text[3];
};

/* What besad lacks of a model_type that people have: why it is refused. */
struct missing_family {
	const char *model_type, *why;
};

/* Each ends with a row whose model_type is NULL. */
extern const struct family families[];
extern const struct wrapper wrappers[];
extern const struct missing_family missing_families[];

const struct size_names *family_sizes(const struct family *);

/* NULL when there is none. */
const struct family *family_of_type(const char *model_type);
const struct family *family_of_architecture(const char *architecture);

/* Whether a class of `architectures` is the family's: its language model, in any spelling of the letters' case
 * ("LLaMAForCausalLM") and with the "FSDP" that sharded training puts before it, or the model without its head ("LlamaModel"). */
bool family_has_architecture(const struct family *, const char *architecture);

#endif
