#include "engine/output/rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "base/watch.h"
#include "engine/output/config_json.h"
#include "engine/output/files.h"

enum { FILLED_BYTES = 1 << 20 };

static enum status fill_text(const struct output_file *file, const struct file *part, struct error *err)
{
	const struct buffer *text = file->context;
	return file_write(part, text->data, text->size, 0, err);
}

/* The weights of a packed tensor, some rows at a time. */
static enum status fill_packed(const struct checkpoint *input, const struct planned_tensor *tensor, const struct file *part,
			       struct error *err)
{
	struct tensor_info rows = *tensor->place;
	int64_t row_bytes = rows.bytes / rows.shape[0], left = rows.bytes, at_once = FILLED_BYTES / row_bytes * row_bytes;
	if (at_once < row_bytes) at_once = row_bytes;
	char *data = malloc((size_t)at_once);
	enum status status = data ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to copy tensor '%s'", rows.name);
	for (; left > 0 && status == STATUS_OK; left -= rows.bytes) {
		rows.bytes = left < at_once ? left : at_once;
		status = watch_look(part->path, err);
		if (status == STATUS_OK) status = checkpoint_read(input, &rows, data, err);
		if (status == STATUS_OK)
			status = file_write(part, data, (size_t)rows.bytes, tensor->info.offset + rows.offset, err);
		rows.offset += rows.bytes;
	}
	free(data);
	return status;
}

static enum status fill_shard(const struct output_file *file, const struct file *part, struct error *err)
{
	const struct planned_shard *shard = file->context;
	TRY(file_write(part, shard->head.data, shard->head.size, 0, err));
	for (size_t i = 0; i < shard->count; i++) {
		const struct planned_tensor *tensor = shard->tensors[i];
		const struct tensor_info *from = tensor->place, *to = &tensor->info;
		if (!tensor->copied) continue;
		if (from->packed) {
			TRY(fill_packed(shard->plan->input, tensor, part, err));
			continue;
		}
		TRY(file_copy_bytes(&shard->plan->input->shards[from->shard], from->offset, part, to->offset, to->bytes, err));
	}
	return STATUS_OK;
}

/* What a rewritten model's directory is made of. */
struct rewriting {
	struct planned_shards shards;
	struct buffer config, index; /* without data where they are not made */
	struct output_files files;
};

static enum status list_files(struct rewriting *r, const struct place *model, const struct plan *plan, struct error *err)
{
	static const char config_name[] = "config.json";
	TRY(plan_shards(plan, &r->shards, err));
	TRY(plan_index(&r->shards, &r->index, err));
	if (plan->config) TRY(config_json_complete(model, config_name, plan->config, &r->config, err));
	const struct buffer *texts[] = {&r->config, &r->index};
	const char *const names[] = {config_name, CHECKPOINT_INDEX_NAME};
	for (int i = 0; i < 2; i++)
		if (texts[i]->data)
			TRY(output_files_add(&r->files, NULL, names[i], (int64_t)texts[i]->size, fill_text, texts[i], err));
	for (int i = 0; i < r->shards.count; i++) {
		const struct planned_shard *shard = &r->shards.shards[i];
		TRY(output_files_add(&r->files, NULL, shard->name, shard->size, fill_shard, shard, err));
	}
	return output_files_copy(&r->files, model, plan->input, false, err);
}

/* Whether a shard that lies in the work directory is the plan's. */
static enum status check_shard(const struct place *work, const struct planned_shard *shard, struct error *err)
{
	struct file file;
	TRY(place_open(work, shard->name, &file, err));
	char *head = malloc(shard->head.size);
	bool same = file.size == shard->size;
	enum status status = STATUS_OK;
	if (!head)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to check %s", file.path);
	else if (same)
		status = file_read(&file, head, shard->head.size, 0, err);
	if (status == STATUS_OK && (!same || memcmp(head, shard->head.data, shard->head.size) != 0))
		status = error_set(err, STATUS_INVALID,
				   "%s: its tensors are not those that this job writes: the model has changed since it began",
				   file.path);
	free(head);
	file_close(&file);
	return status;
}

static void release(struct rewriting *r)
{
	output_files_free(&r->files);
	buffer_free(&r->config);
	buffer_free(&r->index);
	planned_shards_free(&r->shards);
}

enum status rewrite_open(const struct place *model, const struct plan *plan, const struct place *work, struct writer **ret,
			 struct error *err)
{
	struct rewriting r = {0};
	enum status status = list_files(&r, model, plan, err);
	if (status == STATUS_OK) status = output_files_make(&r.files, model, work, err);
	for (int i = 0; i < r.shards.count && status == STATUS_OK; i++)
		status = check_shard(work, &r.shards.shards[i], err);
	if (status == STATUS_OK) status = writer_open(work, NULL, ret, err);
	release(&r);
	return status;
}

enum status rewrite_bytes(const struct place *model, const struct plan *plan, int64_t *ret, struct error *err)
{
	struct rewriting r = {0};
	enum status status = list_files(&r, model, plan, err);
	*ret = output_files_bytes(&r.files);
	release(&r);
	return status;
}
