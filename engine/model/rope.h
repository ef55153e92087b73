/* Rotary embeddings: what config.json says of them, and the tables that the operation reads. */
#ifndef BESAD_ENGINE_MODEL_ROPE_H
#define BESAD_ENGINE_MODEL_ROPE_H

#include "engine/model/families.h"

/* Fills config->rope and config->local_rope, whose sizes are known, from `rope_theta`, `rope_scaling` or `rope_parameters`. */
enum status rope_parse(const cJSON *json, const struct family *, const char *path, struct model_config *config, struct error *err);

/* The rope table of struct backend_ops.rope for `positions` positions: host F32 [positions, rotary], computed in double. For
 * ROPE_DYNAMIC the base depends on `positions` as in transformers. The caller frees it. NULL when memory runs out. */
float *model_rope_table(const struct model_config *, const struct rope *, int64_t positions);

#endif
