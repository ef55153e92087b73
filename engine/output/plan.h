/* What a rewritten model holds: the name, type and shape of every tensor, and which are copied from the input. It is made before
 * the first byte is written, so every offset is known then, and made again by each attempt of a job, with the same result. */
#ifndef BESAD_ENGINE_OUTPUT_PLAN_H
#define BESAD_ENGINE_OUTPUT_PLAN_H

#include <stdbool.h>

#include <cjson/cJSON.h>

#include "engine/model/checkpoint.h"

struct planned_tensor {
	struct tensor_info info;         /* name, type and shape are set; the name is the plan's */
	const struct tensor_info *place; /* the input's tensor in whose shard it lies; where it is copied, what is copied */
	bool copied, removed;
};

struct plan {
	const struct checkpoint *input;
	struct planned_tensor *tensors; /* first those of the input, in its order, then what was added */
	size_t count, room;

	int64_t shard_bytes; /* a new shard begins where one would hold more; 0: the shards are the input's. Set by the caller */
	const cJSON *config; /* members that config.json gets, in place of those it has (config_json.h); NULL for none. Set by the
				caller, and borrowed */
};

/* Everything is copied. Borrows the checkpoint; freed with plan_free. */
enum status plan_create(const struct checkpoint *input, struct plan *ret, struct error *err);
void plan_free(struct plan *);

/* Leaves out a tensor of the input. */
enum status plan_remove(struct plan *, const char *name, struct error *err);

/* Adds a tensor, which the caller writes (until then it is zeros), with the name, type and shape of `info`, to the shard of the
 * input's tensor `beside`. One that takes the name of an input's tensor takes its place when that is removed; else the name is
 * there twice, which rewrite_open refuses. */
enum status plan_add(struct plan *, const char *beside, const struct tensor_info *info, struct error *err);

/* ---- for rewrite.c --------------------------------------------------------------------------------------------------------- */

struct planned_shard {
	const struct plan *plan;
	char *name;
	struct planned_tensor **tensors; /* in the order of the file, with offset and bytes set */
	size_t count;
	struct buffer head; /* what the file begins with */
	int64_t size;
};

struct planned_shards {
	struct planned_shard *shards;
	int count;
	struct planned_tensor **tensors; /* of all shards */
};

/* Which tensors lie where. Borrows the plan; freed with planned_shards_free. STATUS_INVALID when a name is there twice, when no
 * tensor is left and where safetensors_lay_out gives it. */
enum status plan_shards(const struct plan *, struct planned_shards *ret, struct error *err);

/* model.safetensors.index.json as transformers writes it: empty for a model that is one file without an index. */
enum status plan_index(const struct planned_shards *, struct buffer *ret, struct error *err);
void planned_shards_free(struct planned_shards *);

#endif
