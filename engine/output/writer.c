#include "engine/output/writer.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <zlib.h>

/* What was written of a tensor. */
struct part {
	const struct tensor_info *info;
	int64_t at;
	size_t bytes;
	unsigned long sum;
};

struct writer {
	struct place work;
	const struct checkpoint *layout;
	struct checkpoint made; /* the layout, where it is the shards' own */
	struct file *shards;    /* those of the layout, in the work directory, for writing */
	int n_shards;
	struct part *parts; /* since they were taken */
	size_t n_parts, room_parts;
};

static enum status open_shard(struct writer *writer, int i, struct error *err)
{
	struct file *shard = &writer->shards[i];
	TRY(place_open_write(&writer->work, writer->layout->shard_names[i], shard, err));
	writer->n_shards++;
	if (shard->size == writer->layout->shards[i].size) return STATUS_OK;
	return error_set(err, STATUS_INVALID,
			 "%s: has %" PRId64 " bytes and the model's file %" PRId64 ": the model has changed since this job began",
			 shard->path, shard->size, writer->layout->shards[i].size);
}

static enum status open_all(struct writer *writer, const struct place *work, struct error *err)
{
	TRY(place_below(work, NULL, &writer->work, err));
	if (!writer->layout) {
		TRY(checkpoint_open(work, NULL, &writer->made, err));
		writer->layout = &writer->made;
	}
	writer->shards = calloc((size_t)writer->layout->n_shards + 1, sizeof *writer->shards);
	if (!writer->shards) return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", work->path);
	for (int i = 0; i < writer->layout->n_shards; i++)
		TRY(open_shard(writer, i, err));
	return STATUS_OK;
}

enum status writer_open(const struct place *work, const struct checkpoint *layout, struct writer **ret, struct error *err)
{
	struct writer *writer = calloc(1, sizeof *writer);
	if (!writer) return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", work->path);
	writer->layout = layout;
	enum status status = open_all(writer, work, err);
	if (status != STATUS_OK) {
		writer_close(writer);
		return status;
	}
	*ret = writer;
	return STATUS_OK;
}

const struct checkpoint *writer_layout(const struct writer *writer)
{
	return writer->layout;
}

const struct place *writer_place(const struct writer *writer)
{
	return &writer->work;
}

static enum status write_part(struct writer *writer, const struct tensor_info *info, int64_t at, const void *data, size_t bytes,
			      struct error *err)
{
	const struct file *shard = &writer->shards[info->shard];
	if (at < 0 || at > info->bytes || bytes > (size_t)(info->bytes - at))
		return error_set(err, STATUS_INVALID,
				 "%s: tensor '%s' has %" PRId64 " bytes, and %zu were to be written at byte %" PRId64, shard->path,
				 info->name, info->bytes, bytes, at);
	return file_write(shard, data, bytes, info->offset + at, err);
}

static enum status note(struct writer *writer, const struct part *part, struct error *err)
{
	if (writer->n_parts == writer->room_parts) {
		size_t room = 2 * writer->room_parts + 16;
		struct part *grown = realloc(writer->parts, room * sizeof *grown);
		if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for the checksum of '%s'", part->info->name);
		writer->parts = grown;
		writer->room_parts = room;
	}
	writer->parts[writer->n_parts++] = *part;
	return STATUS_OK;
}

enum status writer_take_sums(struct writer *writer, cJSON *list, struct error *err)
{
	for (size_t i = 0; i < writer->n_parts; i++) {
		const struct part *part = &writer->parts[i];
		char sum[16];
		snprintf(sum, sizeof sum, "%08lx", part->sum);
		cJSON *item = cJSON_CreateArray();
		bool whole = item && cJSON_AddItemToArray(item, cJSON_CreateString(part->info->name)) &&
			     cJSON_AddItemToArray(item, cJSON_CreateNumber((double)part->at)) &&
			     cJSON_AddItemToArray(item, cJSON_CreateNumber((double)part->bytes)) &&
			     cJSON_AddItemToArray(item, cJSON_CreateString(sum)) && cJSON_AddItemToArray(list, item);
		if (whole) continue;
		cJSON_Delete(item);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the checksums of an output");
	}
	writer->n_parts = 0;
	return STATUS_OK;
}

enum status writer_write(struct writer *writer, const char *tensor, int64_t at, const void *data, size_t bytes, struct error *err)
{
	size_t repeats;
	const struct tensor_info *info = checkpoint_find(writer->layout, tensor);
	const struct tensor_info *others = checkpoint_repeats(writer->layout, tensor, &repeats);
	if (!info) return error_set(err, STATUS_NOT_FOUND, "%s: there is no tensor '%s' to write", writer->work.path, tensor);
	TRY(write_part(writer, info, at, data, bytes, err));
	/* What is in several shards must be the same in all of them. */
	for (size_t i = 0; i < repeats; i++)
		TRY(write_part(writer, &others[i], at, data, bytes, err));
	return note(writer, &(struct part){info, at, bytes, crc32_z(0, data, bytes)}, err);
}

enum status writer_sync(struct writer *writer, struct error *err)
{
	for (int i = 0; i < writer->n_shards; i++)
		TRY(file_sync(&writer->shards[i], err));
	return STATUS_OK;
}

static void close_shards(struct writer *writer)
{
	for (int i = 0; i < writer->n_shards; i++)
		file_close(&writer->shards[i]);
	writer->n_shards = 0;
}

enum status writer_finish(struct writer *writer, struct error *err)
{
	TRY(writer_sync(writer, err));
	close_shards(writer);
	return STATUS_OK;
}

void writer_close(struct writer *writer)
{
	if (!writer) return;
	close_shards(writer);
	free(writer->shards);
	free(writer->parts);
	checkpoint_close(&writer->made);
	place_free(&writer->work);
	free(writer);
}
