#include "engine/output/plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/shard_index.h"

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to plan an output's tensors");
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------ */

enum status plan_create(const struct checkpoint *input, struct plan *ret, struct error *err)
{
	size_t room = input->n_tensors + 1;
	struct plan plan = {.input = input, .tensors = calloc(room, sizeof *plan.tensors), .room = room};
	if (!plan.tensors) return no_memory(err);
	for (; plan.count < input->n_tensors; plan.count++) {
		const struct tensor_info *info = &input->tensors[plan.count];
		struct planned_tensor *tensor = &plan.tensors[plan.count];
		*tensor = (struct planned_tensor){.info = *info, .place = info, .copied = true};
		tensor->info.name = strdup(info->name);
		if (tensor->info.name) continue;
		plan_free(&plan);
		return no_memory(err);
	}
	*ret = plan;
	return STATUS_OK;
}

void plan_free(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++)
		free(plan->tensors[i].info.name);
	free(plan->tensors);
	*plan = (struct plan){0};
}

static enum status find(const struct plan *plan, const char *name, const struct tensor_info **ret, struct error *err)
{
	*ret = checkpoint_find(plan->input, name);
	return *ret ? STATUS_OK : error_set(err, STATUS_NOT_FOUND, "the model has no tensor '%s'", name);
}

enum status plan_remove(struct plan *plan, const char *name, struct error *err)
{
	const struct tensor_info *info;
	TRY(find(plan, name, &info, err));
	plan->tensors[info - plan->input->tensors].removed = true;
	return STATUS_OK;
}

enum status plan_add(struct plan *plan, const char *beside, const struct tensor_info *info, struct error *err)
{
	struct planned_tensor tensor = {.info = *info};
	TRY(find(plan, beside, &tensor.place, err));
	if (plan->count == plan->room) {
		size_t room = plan->room + plan->room / 2 + 16;
		struct planned_tensor *grown = realloc(plan->tensors, room * sizeof *grown);
		if (!grown) return no_memory(err);
		plan->tensors = grown;
		plan->room = room;
	}
	TRY(stored_bytes(info, &tensor.info.bytes, err));
	tensor.info.name = strdup(info->name);
	if (!tensor.info.name) return no_memory(err);
	plan->tensors[plan->count++] = tensor;
	return STATUS_OK;
}

/* ---- its shards ---------------------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	const struct planned_tensor *x = *(struct planned_tensor *const *)a, *y = *(struct planned_tensor *const *)b;
	return strcmp(x->info.name, y->info.name);
}

/* As they lie in the input, what was added where its neighbour lies. */
static int by_place(const void *a, const void *b)
{
	const struct tensor_info *x = (*(struct planned_tensor *const *)a)->place, *y = (*(struct planned_tensor *const *)b)->place;
	if (x->shard != y->shard) return x->shard - y->shard;
	if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
	return by_name(a, b);
}

/* The tensors that are not removed, in the input's order. */
static enum status select_tensors(const struct plan *plan, struct planned_shards *shards, size_t *ret_count, struct error *err)
{
	size_t count = 0;
	struct planned_tensor **tensors = shards->tensors = calloc(plan->count + 1, sizeof *tensors);
	if (!tensors) return no_memory(err);
	for (size_t i = 0; i < plan->count; i++)
		if (!plan->tensors[i].removed) tensors[count++] = &plan->tensors[i];
	if (count == 0) return error_set(err, STATUS_INVALID, "the output would have no tensors");
	if (count > SAFETENSORS_MAX_TENSORS)
		return error_set(err, STATUS_INVALID, "the output would have %zu tensors, and %d are the most", count,
				 SAFETENSORS_MAX_TENSORS);
	qsort(tensors, count, sizeof *tensors, by_name);
	for (size_t i = 1; i < count; i++)
		if (by_name(&tensors[i - 1], &tensors[i]) == 0)
			return error_set(err, STATUS_INVALID, "the output would have the tensor '%s' twice", tensors[i]->info.name);
	qsort(tensors, count, sizeof *tensors, by_place);
	*ret_count = count;
	return STATUS_OK;
}

/* Whether `tensor` begins a new shard behind one whose first tensor is `first` and which has `bytes` already. */
static bool begins_shard(const struct plan *plan, const struct planned_tensor *first, int64_t bytes,
			 const struct planned_tensor *tensor)
{
	if (!plan->shard_bytes) return tensor->place->shard != first->place->shard;
	return bytes > plan->shard_bytes || tensor->info.bytes > plan->shard_bytes - bytes;
}

/* Deals the tensors out. */
static enum status cut(const struct plan *plan, struct planned_shards *shards, size_t count, struct error *err)
{
	int64_t bytes = 0;
	struct planned_shard *shard = NULL;
	shards->shards = calloc(SHARD_INDEX_MAX_SHARDS, sizeof *shards->shards);
	if (!shards->shards) return no_memory(err);
	for (size_t i = 0; i < count; i++) {
		struct planned_tensor *tensor = shards->tensors[i];
		if (!shard || begins_shard(plan, *shard->tensors, bytes, tensor)) {
			if (shards->count == SHARD_INDEX_MAX_SHARDS)
				return error_set(err, STATUS_INVALID, "the output would have more than %d shards",
						 SHARD_INDEX_MAX_SHARDS);
			shard = &shards->shards[shards->count++];
			*shard = (struct planned_shard){.plan = plan, .tensors = &shards->tensors[i]};
			bytes = 0;
		}
		tensor->info.shard = shards->count - 1;
		shard->count++;
		bytes += tensor->info.bytes;
	}
	return STATUS_OK;
}

static char *shard_name(const struct plan *plan, const struct planned_shards *shards, int i)
{
	char *name;
	if (!plan->shard_bytes) return strdup(plan->input->shard_names[shards->shards[i].tensors[0]->place->shard]);
	if (shards->count == 1) return strdup(CHECKPOINT_SINGLE_NAME);
	return asprintf(&name, "model-%05d-of-%05d.safetensors", i + 1, shards->count) < 0 ? NULL : name;
}

static enum status make_shards(const struct plan *plan, struct planned_shards *shards, struct error *err)
{
	size_t count = 0;
	TRY(select_tensors(plan, shards, &count, err));
	TRY(cut(plan, shards, count, err));
	for (int i = 0; i < shards->count; i++) {
		struct planned_shard *shard = &shards->shards[i];
		shard->name = shard_name(plan, shards, i);
		if (!shard->name) return no_memory(err);
		/* A planned tensor begins with what is laid out. */
		TRY(safetensors_lay_out((struct tensor_info **)shard->tensors, shard->count, shard->name, &shard->head,
					&shard->size, err));
	}
	return STATUS_OK;
}

enum status plan_shards(const struct plan *plan, struct planned_shards *ret, struct error *err)
{
	struct planned_shards shards = {0};
	enum status status = make_shards(plan, &shards, err);
	if (status != STATUS_OK) {
		planned_shards_free(&shards);
		return status;
	}
	*ret = shards;
	return STATUS_OK;
}

enum status plan_index(const struct planned_shards *shards, struct buffer *ret, struct error *err)
{
	struct buffer text = {0};
	struct planned_tensor **sorted;
	size_t count = 0;
	int64_t bytes = 0;
	if (shards->count == 1 && strcmp(shards->shards[0].name, CHECKPOINT_SINGLE_NAME) == 0) return STATUS_OK;
	for (int i = 0; i < shards->count; i++)
		count += shards->shards[i].count;
	sorted = malloc(count * sizeof *sorted);
	if (!sorted) return no_memory(err);
	memcpy(sorted, shards->tensors, count * sizeof *sorted);
	qsort(sorted, count, sizeof *sorted, by_name);
	for (size_t i = 0; i < count; i++)
		bytes += sorted[i]->info.bytes;
	buffer_printf(&text, "{\n  \"metadata\": {\n    \"total_size\": %" PRId64 "\n  },\n  \"weight_map\": {", bytes);
	for (size_t i = 0; i < count; i++) {
		buffer_printf(&text, "%s\n    ", i ? "," : "");
		buffer_json_string(&text, sorted[i]->info.name);
		buffer_append(&text, ": ", 2);
		buffer_json_string(&text, shards->shards[sorted[i]->info.shard].name);
	}
	buffer_printf(&text, "\n  }\n}\n");
	free(sorted);
	enum status status = STATUS_OK;
	if (text.failed)
		status = no_memory(err);
	else if (text.size > SHARD_INDEX_MAX_BYTES)
		status = error_set(err, STATUS_INVALID, "%s would have %zu bytes, and %d are the most", CHECKPOINT_INDEX_NAME,
				   text.size, SHARD_INDEX_MAX_BYTES);
	if (status != STATUS_OK) {
		buffer_free(&text);
		return status;
	}
	*ret = text;
	return STATUS_OK;
}

void planned_shards_free(struct planned_shards *shards)
{
	for (int i = 0; i < shards->count; i++) {
		free(shards->shards[i].name);
		buffer_free(&shards->shards[i].head);
	}
	free(shards->shards);
	free(shards->tensors);
	*shards = (struct planned_shards){0};
}
