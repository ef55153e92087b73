#include "engine/job/inputs.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/sha256.h"
#include "engine/model/safetensors.h"

static const char *const hashed_files[] = {
	"config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json",
	"vocab.json",  "vocab.txt",      "merges.txt"};

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to describe the inputs");
}

static enum status add_number(cJSON *entry, const char *key, uint64_t number, struct error *err)
{
	char text[24];
	snprintf(text, sizeof text, "%" PRIu64, number);
	return cJSON_AddStringToObject(entry, key, text) ? STATUS_OK : no_memory(err);
}

static enum status add_identity(cJSON *entry, const struct file *file, struct error *err)
{
	struct stat st;
	if (fstat(file->fd, &st) != 0) return error_errno(err, "%s", file->path);
	TRY(add_number(entry, "device", st.st_dev, err));
	TRY(add_number(entry, "inode", st.st_ino, err));
	TRY(add_number(entry, "size", (uint64_t)st.st_size, err));
	return add_number(entry, "mtime", (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec, err);
}

/* Of the first `bytes` bytes. */
static enum status add_hash(cJSON *entry, const struct file *file, int64_t bytes, struct error *err)
{
	char text[SHA256_TEXT];
	TRY(sha256_file(file, bytes, text, err));
	return cJSON_AddStringToObject(entry, "sha256", text) ? STATUS_OK : no_memory(err);
}

/* The bytes of a safetensors file that say what is in it. */
static enum status header_bytes(const struct file *file, int64_t *ret, struct error *err)
{
	unsigned char head[SAFETENSORS_LENGTH_BYTES];
	TRY(file_read(file, head, sizeof head, 0, err));
	uint64_t length = safetensors_header_length(head);
	int64_t most = file->size - SAFETENSORS_LENGTH_BYTES;
	*ret = SAFETENSORS_LENGTH_BYTES + (length < (uint64_t)most ? (int64_t)length : most);
	return STATUS_OK;
}

static enum status new_entry(cJSON *list, const char *name, cJSON **ret, struct error *err)
{
	cJSON *entry = cJSON_CreateObject();
	if (!entry || !cJSON_AddItemToArray(list, entry)) {
		cJSON_Delete(entry);
		return no_memory(err);
	}
	*ret = entry;
	return cJSON_AddStringToObject(entry, "file", name) ? STATUS_OK : no_memory(err);
}

static enum status add_shard(cJSON *list, const struct place *place, const char *name, const struct file *open_file,
			     struct error *err)
{
	cJSON *entry;
	struct file file = {.fd = -1};
	int64_t bytes;
	TRY(new_entry(list, name, &entry, err));
	bool there;
	TRY(place_look(place, name, &there, err));
	if (there) {
		TRY(place_open(place, name, &file, err));
		open_file = &file;
	}
	enum status status = add_identity(entry, open_file, err);
	if (status == STATUS_OK) status = header_bytes(open_file, &bytes, err);
	if (status == STATUS_OK) status = add_hash(entry, open_file, bytes, err);
	file_close(&file);
	return status;
}

static enum status add_small(cJSON *list, const struct place *place, const char *name, struct error *err)
{
	cJSON *entry;
	struct file file;
	bool there;
	TRY(place_look(place, name, &there, err));
	if (!there) return STATUS_OK;
	TRY(new_entry(list, name, &entry, err));
	TRY(place_open(place, name, &file, err));
	enum status status = add_hash(entry, &file, file.size, err);
	file_close(&file);
	return status;
}

static enum status add_data(cJSON *list, const struct place *place, const char *name, struct error *err)
{
	cJSON *entry;
	struct file file;
	TRY(new_entry(list, name, &entry, err));
	TRY(place_open(place, NULL, &file, err));
	enum status status = add_identity(entry, &file, err);
	file_close(&file);
	return status;
}

static enum status describe(const struct spec *spec, const struct model *model, cJSON *files, cJSON *data, struct error *err)
{
	for (int i = 0; i < model->checkpoint.n_shards; i++)
		TRY(add_shard(files, &spec->model_place, model->checkpoint.shard_names[i], &model->checkpoint.shards[i], err));
	for (size_t i = 0; i < sizeof hashed_files / sizeof *hashed_files; i++)
		TRY(add_small(files, &spec->model_place, hashed_files[i], err));
	for (int i = 0; i < spec->calibration.n_sources; i++)
		TRY(add_data(data, &spec->calibration.sources[i].place, spec->calibration.sources[i].path, err));
	for (int i = 0; i < spec->n_perplexity; i++)
		TRY(add_data(data, &spec->perplexity[i].place, spec->perplexity[i].path, err));
	for (int i = 0; i < spec->n_tasks; i++)
		TRY(add_data(data, &spec->tasks[i].place, spec->tasks[i].path, err));
	return STATUS_OK;
}

enum status inputs_describe(const struct spec *spec, const struct model *model, cJSON **ret, struct error *err)
{
	cJSON *inputs = cJSON_CreateObject();
	cJSON *files = cJSON_AddArrayToObject(inputs, "model"), *data = cJSON_AddArrayToObject(inputs, "data");
	enum status status = files && data ? describe(spec, model, files, data, err) : no_memory(err);
	if (status == STATUS_OK)
		*ret = inputs;
	else
		cJSON_Delete(inputs);
	return status;
}

static const cJSON *find(const cJSON *list, const char *name)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, list)
	{
		const char *other = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "file"));
		if (other && strcmp(other, name) == 0) return entry;
	}
	return NULL;
}

static bool differs(const cJSON *then, const cJSON *now, const char *key)
{
	return !cJSON_Compare(cJSON_GetObjectItemCaseSensitive(then, key), cJSON_GetObjectItemCaseSensitive(now, key), true) &&
	       (cJSON_HasObjectItem(then, key) || cJSON_HasObjectItem(now, key));
}

/* What has changed of a file, or NULL. Its device may be numbered anew when the machine starts, and tells nothing beside the
 * rest. */
static const char *find_change(const cJSON *then, const cJSON *now)
{
	if (!then) return "was not there then";
	if (!now) return "is gone";
	if (differs(then, now, "sha256")) return "has another content";
	if (differs(then, now, "size")) return "has another size";
	if (differs(then, now, "inode")) return "is another file";
	if (differs(then, now, "mtime")) return "was written to";
	return NULL;
}

static enum status compare_lists(const cJSON *then, const cJSON *now, const char *what, struct error *err)
{
	const cJSON *const lists[] = {then, now};
	for (int i = 0; i < 2; i++) {
		const cJSON *entry;
		cJSON_ArrayForEach(entry, lists[i])
		{
			const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(entry, "file"));
			const char *change = name ? find_change(find(then, name), find(now, name)) : "is not named";
			if (!change) continue;
			return error_set(err, STATUS_INVALID,
					 "the %s has changed since this job began: '%s' %s; put back what was there and retry, or "
					 "submit the job "
					 "again",
					 what, name ? name : "a file", change);
		}
	}
	return STATUS_OK;
}

enum status inputs_compare(const cJSON *then, const cJSON *now, struct error *err)
{
	TRY(compare_lists(cJSON_GetObjectItemCaseSensitive(then, "model"), cJSON_GetObjectItemCaseSensitive(now, "model"), "model",
			  err));
	return compare_lists(cJSON_GetObjectItemCaseSensitive(then, "data"), cJSON_GetObjectItemCaseSensitive(now, "data"), "data",
			     err);
}
