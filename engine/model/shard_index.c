#include "engine/model/shard_index.h"

#include <stdlib.h>
#include <string.h>

#include "base/lfs.h"

/* Whether a shard's name is that of a file in the model's directory, and can be printed. */
static bool is_plain_name(const char *name)
{
	if (!*name || *name == '.') return false;
	for (; *name; name++)
		if (*name == '/' || (unsigned char)*name < 0x20 || *name == 0x7f) return false;
	return true;
}

static enum status walk_map(struct json_stream *s, shard_index_fn use, void *context, struct error *err)
{
	enum json_token token;
	char tensor[JSON_STREAM_TEXT + 1];
	TRY(json_next(s, &token, err));
	if (token != JSON_OBJECT) return error_set(err, STATUS_INVALID, "%s: 'weight_map' must be an object", s->what);
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_OBJECT_END) return STATUS_OK;
		if (s->cut)
			return error_set(err, STATUS_INVALID, "%s: a tensor has a name of more than %d bytes", s->what,
					 JSON_STREAM_TEXT);
		memcpy(tensor, s->text, sizeof tensor);
		TRY(json_next(s, &token, err));
		if (token != JSON_STRING || s->cut || !is_plain_name(s->text))
			return error_set(err, STATUS_INVALID, "%s: the shard of tensor '%.200s' is not a plain file name", s->what,
					 tensor);
		TRY(use(context, tensor, s->text, err));
	}
}

enum status shard_index_walk(struct json_stream *s, shard_index_fn use, void *context, struct error *err)
{
	enum json_token token;
	bool found = false;
	TRY(json_next(s, &token, err));
	if (token != JSON_OBJECT) return error_set(err, STATUS_INVALID, "%s: not a JSON object", s->what);
	for (;;) {
		TRY(json_next(s, &token, err));
		if (token == JSON_OBJECT_END) break;
		if (strcmp(s->text, "weight_map") == 0) {
			found = true;
			TRY(walk_map(s, use, context, err));
		} else {
			TRY(json_next(s, &token, err));
			TRY(json_skip(s, token, err));
		}
	}
	TRY(json_next(s, &token, err));
	return found ? STATUS_OK : error_set(err, STATUS_INVALID, "%s: 'weight_map' must be an object", s->what);
}

enum status shard_index_start(const struct file *file, struct json_stream *ret, struct error *err)
{
	static const char mark[] = "\xef\xbb\xbf";
	char first[64];
	size_t bytes = file->size < (int64_t)sizeof first ? (size_t)file->size : sizeof first;
	if (file->size > SHARD_INDEX_MAX_BYTES)
		return error_set(err, STATUS_INVALID, "%s: %lld bytes are more than the %d allowed", file->path,
				 (long long)file->size, SHARD_INDEX_MAX_BYTES);
	TRY(file_read(file, first, bytes, 0, err));
	if (is_lfs_pointer(first, bytes)) return lfs_pointer_error(file->path, err);
	bool marked = bytes >= 3 && memcmp(first, mark, 3) == 0;
	json_stream_file(ret, file, marked ? 3 : 0, file->size);
	return STATUS_OK;
}

/* The distinct names so far, sorted. */
struct names {
	const char *what;
	char **names;
	int count, capacity;
};

static enum status grow(struct names *names, struct error *err)
{
	int capacity = names->capacity ? 2 * names->capacity : 64;
	char **grown = realloc(names->names, (size_t)capacity * sizeof *grown);
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", names->what);
	names->names = grown;
	names->capacity = capacity;
	return STATUS_OK;
}

static enum status add_name(void *context, const char *tensor, const char *shard, struct error *err)
{
	struct names *names = context;
	int low = 0, high = names->count;
	(void)tensor;
	while (low < high) {
		int middle = low + (high - low) / 2, order = strcmp(names->names[middle], shard);
		if (order == 0) return STATUS_OK;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (names->count == SHARD_INDEX_MAX_SHARDS)
		return error_set(err, STATUS_INVALID, "%s: names more than %d shards", names->what, SHARD_INDEX_MAX_SHARDS);
	if (names->count + 1 >= names->capacity) TRY(grow(names, err));
	char *copy = strdup(shard);
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for %s", names->what);
	memmove(names->names + low + 1, names->names + low, (size_t)(names->count - low) * sizeof *names->names);
	names->names[low] = copy;
	names->count++;
	return STATUS_OK;
}

enum status shard_index_files(struct json_stream *s, char ***ret_names, int *ret_count, struct error *err)
{
	struct names names = {.what = s->what};
	enum status status = shard_index_walk(s, add_name, &names, err);
	if (status == STATUS_OK && !names.count) status = error_set(err, STATUS_INVALID, "%s: names no shard", s->what);
	if (status != STATUS_OK) {
		for (int i = 0; i < names.count; i++)
			free(names.names[i]);
		free(names.names);
		return status;
	}
	names.names[names.count] = NULL;
	*ret_names = names.names;
	*ret_count = names.count;
	return STATUS_OK;
}
