/* The work directory holds a copy under its final name only when the copy is whole: each file is first written as `.NAME.part`,
 * synced and renamed. So what an earlier attempt has copied, and since then pruned, is told from what it left unfinished. */
#include "engine/model/output.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char index_name[] = "model.safetensors.index.json", report_name[] = "besad.json";

static bool ends_with(const char *name, const char *end)
{
	size_t length = strlen(name), tail = strlen(end);
	return length >= tail && strcmp(name + length - tail, end) == 0;
}

static bool is_shard(const struct checkpoint *checkpoint, const char *name)
{
	for (int i = 0; i < checkpoint->n_shards; i++)
		if (strcmp(checkpoint->shard_names[i], name) == 0) return true;
	return false;
}

/* Whether a file of the model directory belongs into the output: a shard, or what else loading or the licence asks for. */
static bool is_wanted(const struct checkpoint *checkpoint, const char *name)
{
	static const char *const suffixes[] = {".json", ".model", ".txt", ".py", ".jinja", ".md", ".tiktoken", ".spm"};
	static const char *const prefixes[] = {"LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY"};
	if (*name == '.' || strcmp(name, report_name) == 0) return false;
	if (is_shard(checkpoint, name)) return true;
	/* Of the indexes only the one whose shards are copied. */
	if (ends_with(name, ".index.json")) return strcmp(name, index_name) == 0 && !is_shard(checkpoint, "model.safetensors");
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (ends_with(name, suffixes[i])) return true;
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0 && !strchr(name, '.')) return true;
	return false;
}

/* A file to copy. */
struct copy {
	char *from, *part, *to;
};

static void free_copies(struct copy *copies, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		free(copies[i].from);
		free(copies[i].part);
		free(copies[i].to);
	}
	free(copies);
}

static enum status add_copy(struct copy **copies, size_t *count, const char *model_dir, const char *work_dir, const char *name,
			    struct error *err)
{
	struct copy *grown = realloc(*copies, (*count + 1) * sizeof *grown);
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to list %s", model_dir);
	*copies = grown;
	struct copy *copy = &grown[*count];
	*copy = (struct copy){0};
	++*count;
	if (asprintf(&copy->from, "%s/%s", model_dir, name) < 0) copy->from = NULL;
	if (asprintf(&copy->part, "%s/.%s.part", work_dir, name) < 0) copy->part = NULL;
	if (asprintf(&copy->to, "%s/%s", work_dir, name) < 0) copy->to = NULL;
	if (!copy->from || !copy->part || !copy->to) return error_set(err, STATUS_NO_MEMORY, "no memory to list %s", model_dir);
	return STATUS_OK;
}

/* The files of model_dir that are to be copied and are not yet in work_dir. */
static enum status list_copies(const char *model_dir, const struct checkpoint *checkpoint, const char *work_dir,
			       struct copy **ret_copies, size_t *ret_count, struct error *err)
{
	struct copy *copies = NULL;
	size_t count = 0;
	enum status status = STATUS_OK;
	DIR *directory = opendir(model_dir);
	if (!directory) return error_errno(err, "%s", model_dir);
	while (status == STATUS_OK) {
		errno = 0;
		const struct dirent *entry = readdir(directory);
		if (!entry) {
			if (errno) status = error_errno(err, "%s", model_dir);
			break;
		}
		if (!is_wanted(checkpoint, entry->d_name)) continue;
		status = add_copy(&copies, &count, model_dir, work_dir, entry->d_name, err);
		if (status != STATUS_OK) break;
		struct stat st;
		bool regular = stat(copies[count - 1].from, &st) == 0 && S_ISREG(st.st_mode);
		if (!regular || path_exists(copies[count - 1].to)) {
			count--;
			free(copies[count].from);
			free(copies[count].part);
			free(copies[count].to);
		}
	}
	closedir(directory);
	if (status != STATUS_OK) {
		free_copies(copies, count);
		return status;
	}
	*ret_copies = copies;
	*ret_count = count;
	return STATUS_OK;
}

/* Allocates the room of one copy; *total is the sum of all, for the message of a full disk. */
static enum status reserve(const struct copy *copy, int64_t *total, struct error *err)
{
	struct file from, part;
	TRY(file_open_read(copy->from, &from, err));
	*total += from.size;
	int64_t size = from.size;
	file_close(&from);
	TRY(file_create(copy->part, size, &part, err));
	file_close(&part);
	return STATUS_OK;
}

static enum status fill(const struct copy *copy, struct error *err)
{
	struct file from = {.fd = -1}, part = {.fd = -1};
	enum status status = file_open_read(copy->from, &from, err);
	if (status == STATUS_OK) status = file_open_write(copy->part, &part, err);
	if (status == STATUS_OK && from.size != part.size)
		status = error_set(err, STATUS_INVALID, "%s: changed while it was copied", copy->from);
	if (status == STATUS_OK) status = file_copy_bytes(&from, &part, err);
	file_close(&from);
	file_close(&part);
	return status == STATUS_OK ? file_rename(copy->part, copy->to, err) : status;
}

/* All room is taken before the first byte is copied, so that a full disk shows at once, with the bytes that are needed. */
static enum status copy_all(const char *model_dir, const char *work_dir, const struct copy *copies, size_t count, struct error *err)
{
	enum status status = STATUS_OK;
	int64_t total = 0;
	for (size_t i = 0; i < count && (status == STATUS_OK || status == STATUS_NO_SPACE); i++) {
		if (status == STATUS_OK) {
			status = reserve(&copies[i], &total, err);
		} else {
			struct stat st;
			if (stat(copies[i].from, &st) == 0) total += st.st_size;
		}
	}
	if (status == STATUS_NO_SPACE)
		error_prefix(err, "%s: no room for a copy of %s, which needs %" PRId64 " bytes", work_dir, model_dir, total);
	for (size_t i = 0; i < count && status == STATUS_OK; i++)
		status = fill(&copies[i], err);
	if (status != STATUS_OK)
		for (size_t i = 0; i < count; i++)
			unlink(copies[i].part);
	return status;
}

static enum status open_shards(struct output *output, const struct checkpoint *checkpoint, struct error *err)
{
	output->shards = calloc((size_t)checkpoint->n_shards + 1, sizeof *output->shards);
	if (!output->shards) return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", output->work_dir);
	for (int i = 0; i < checkpoint->n_shards; i++) {
		char *path;
		if (asprintf(&path, "%s/%s", output->work_dir, checkpoint->shard_names[i]) < 0)
			return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", output->work_dir);
		enum status status = file_open_write(path, &output->shards[i], err);
		free(path);
		TRY(status);
		output->n_shards++;
		if (output->shards[i].size != checkpoint->shards[i].size)
			return error_set(err, STATUS_INVALID,
					 "%s: has %" PRId64 " bytes and the model's file %" PRId64
					 ": the model has changed since this job began",
					 output->shards[i].path, output->shards[i].size, checkpoint->shards[i].size);
	}
	return STATUS_OK;
}

enum status output_open(const char *model_dir, const struct checkpoint *checkpoint, const char *work_dir, struct output *ret,
			struct error *err)
{
	struct output output = {0};
	struct copy *copies = NULL;
	size_t count = 0;
	TRY(directory_make(work_dir, err));
	TRY(list_copies(model_dir, checkpoint, work_dir, &copies, &count, err));
	enum status status = copy_all(model_dir, work_dir, copies, count, err);
	free_copies(copies, count);
	TRY(status);
	output.work_dir = strdup(work_dir);
	status = output.work_dir ? open_shards(&output, checkpoint, err)
				 : error_set(err, STATUS_NO_MEMORY, "no memory to open %s", work_dir);
	if (status != STATUS_OK) {
		output_close(&output);
		return status;
	}
	*ret = output;
	return STATUS_OK;
}

enum status output_write(struct output *output, const struct tensor_info *info, const void *data, struct error *err)
{
	return file_write(&output->shards[info->shard], data, (size_t)info->bytes, info->offset, err);
}

enum status output_sync(struct output *output, struct error *err)
{
	for (int i = 0; i < output->n_shards; i++)
		TRY(file_sync(&output->shards[i], err));
	return STATUS_OK;
}

static enum status make_parent(const char *path, struct error *err)
{
	const char *slash = strrchr(path, '/');
	if (!slash || slash == path) return STATUS_OK;
	char *parent = strndup(path, (size_t)(slash - path));
	if (!parent) return error_set(err, STATUS_NO_MEMORY, "no memory to make the directory of %s", path);
	enum status status = directory_make(parent, err);
	free(parent);
	return status;
}

enum status output_publish(struct output *output, const char *output_dir, bool overwrite, struct error *err)
{
	TRY(output_sync(output, err));
	TRY(directory_sync(output->work_dir, err));
	if (overwrite && path_exists(output_dir)) {
		TRY(file_exchange(output->work_dir, output_dir, err));
		TRY(directory_remove(output->work_dir, err));
	} else {
		TRY(make_parent(output_dir, err));
		TRY(file_rename_new(output->work_dir, output_dir, err));
	}
	output_close(output);
	return STATUS_OK;
}

void output_close(struct output *output)
{
	for (int i = 0; i < output->n_shards; i++)
		file_close(&output->shards[i]);
	free(output->shards);
	free(output->work_dir);
	*output = (struct output){0};
}
