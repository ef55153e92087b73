/* Rotary embeddings: what config.json says of them, and the tables that the operation reads. */
#ifndef BESAD_ENGINE_MODEL_ROPE_H
#define BESAD_ENGINE_MODEL_ROPE_H

#include "engine/model/families.h"

/* Fills config->rope and config->local_rope, whose sizes are known, from `rope_theta`, `rope_scaling` or `rope_parameters`. */
enum status rope_parse(const cJSON *json, const struct family *, const char *path, struct model_config *config, struct error *err);

/* The rope table of struct backend_ops.rope for `positions` positions: host F32 [positions, rotary], computed in double. For
 * ROPE_DYNAMIC the base, and for ROPE_LONG the factors, depend on `positions` as in transformers. The caller frees it. NULL when
 * memory runs out. */
float *model_rope_table(const struct model_config *, const struct rope *, int64_t positions);

/* Whether queries turn by a table of their own, and that table: it scales them too. */
bool rope_scales_queries(const struct rope *, int64_t positions);
float *rope_query_table(const struct model_config *, const struct rope *, int64_t positions);

#endif
