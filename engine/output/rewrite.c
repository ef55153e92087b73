#include "engine/output/rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "engine/output/config_json.h"
#include "engine/output/files.h"

static enum status fill_text(const struct output_file *file, const struct file *part, struct error *err)
{
	const struct buffer *text = file->context;
	return file_write(part, text->data, text->size, 0, err);
}

static enum status fill_shard(const struct output_file *file, const struct file *part, struct error *err)
{
	const struct planned_shard *shard = file->context;
	TRY(file_write(part, shard->head.data, shard->head.size, 0, err));
	for (size_t i = 0; i < shard->count; i++) {
		const struct planned_tensor *tensor = shard->tensors[i];
		const struct tensor_info *from = tensor->place, *to = &tensor->info;
		if (!tensor->copied) continue;
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

enum status rewrite_open(const struct place *model, const struct plan *plan, const struct place *work, struct writer **ret,
			 struct error *err)
{
	struct rewriting r = {0};
	enum status status = list_files(&r, model, plan, err);
	if (status == STATUS_OK) status = output_files_make(&r.files, model, work, err);
	for (int i = 0; i < r.shards.count && status == STATUS_OK; i++)
		status = check_shard(work, &r.shards.shards[i], err);
	if (status == STATUS_OK) status = writer_open(work, NULL, ret, err);
	output_files_free(&r.files);
	buffer_free(&r.config);
	buffer_free(&r.index);
	planned_shards_free(&r.shards);
	return status;
}
