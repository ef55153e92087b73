/* The architectures besad knows: what their config.json leaves unsaid, and which of its fields they heed. */
#ifndef BESAD_ENGINE_MODEL_FAMILIES_H
#define BESAD_ENGINE_MODEL_FAMILIES_H

#include <stdbool.h>
#include <stdint.h>

/* When a sliding window holds: never, whenever `sliding_window` is a number, or only where `use_sliding_window` is true as well. */
enum window_rule { WINDOW_NEVER, WINDOW_WHEN_GIVEN, WINDOW_WHEN_SWITCHED_ON };

struct family {
	const char *model_type;   /* of config.json */
	const char *architecture; /* the class in its `architectures` */
	bool qkv_bias;            /* always there */
	bool attention_bias;      /* heeds the field: biases on q, k, v and o */
	bool mlp_bias;            /* heeds the field */
	bool qk_norm;
	bool stored_fused; /* qkv_proj and gate_up_proj */
	enum window_rule window;

	/* Defaults of transformers' configuration class, for fields that config.json may leave out. */
	int64_t kv_heads; /* 0: as many as heads */
	int64_t head_dim; /* 0: hidden_size / heads */
	int64_t max_positions;
	int64_t sliding_window; /* 0 for none */
	double rms_norm_eps;
};

/* Ends with a row whose model_type is NULL. */
extern const struct family families[];

/* NULL when there is none. */
const struct family *family_of_type(const char *model_type);
const struct family *family_of_architecture(const char *architecture);

#endif
