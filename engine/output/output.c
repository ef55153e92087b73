/* The work directory holds a copy under its final name only when the copy is whole: each file is first written as `.NAME.part`,
 * synced and renamed. So what an earlier attempt has copied, and since then pruned, is told from what it left unfinished. */
#include "engine/output/output.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/output/publish.h"

static const char index_name[] = "model.safetensors.index.json";

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

/* The directories of a model whose files belong into the output. */
static const char *const wanted_directories[] = {"additional_chat_templates"};

/* Whether a file of the model directory belongs into the output: a shard, or what else loading or the licence asks for. */
static bool is_wanted(const struct checkpoint *checkpoint, const char *name)
{
	static const char *const suffixes[] = {".json", ".model", ".txt", ".py", ".jinja", ".md", ".tiktoken", ".spm"};
	static const char *const prefixes[] = {"LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY"};
	static const char versioned[] = "tokenizer.model."; /* tokenizer.model.v3 of the Mistral models */
	if (*name == '.' || strcmp(name, REPORT_NAME) == 0) return false;
	if (is_shard(checkpoint, name)) return true;
	/* Of the indexes only the one whose shards are copied. */
	if (ends_with(name, ".index.json")) return strcmp(name, index_name) == 0 && !is_shard(checkpoint, "model.safetensors");
	if (strncmp(name, versioned, strlen(versioned)) == 0) return true;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (ends_with(name, suffixes[i])) return true;
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0 && !strchr(name, '.')) return true;
	return false;
}

/* A file to copy: its name in both directories, and that of its unfinished copy. */
struct copy {
	char *name, *part;
};

struct copies {
	struct copy *items;
	size_t count;
};

static void copies_free(struct copies *copies)
{
	for (size_t i = 0; i < copies->count; i++) {
		free(copies->items[i].name);
		free(copies->items[i].part);
	}
	free(copies->items);
	*copies = (struct copies){0};
}

/* `directory` is NULL for the model directory itself. */
static enum status add_copy(struct copies *copies, const char *directory, const char *name, struct error *err)
{
	struct copy *grown = realloc(copies->items, (copies->count + 1) * sizeof *grown), copy;
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to list a model's files");
	copies->items = grown;
	const char *in = directory ? directory : "", *slash = directory ? "/" : "";
	if (asprintf(&copy.name, "%s%s%s", in, slash, name) < 0) copy.name = NULL;
	if (asprintf(&copy.part, "%s%s.%s.part", in, slash, name) < 0) copy.part = NULL;
	grown[copies->count++] = copy;
	return copy.name && copy.part ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to list a model's files");
}

/* The files of the model directory, or of one in it, that belong into the output. */
static enum status list_files(const struct place *model, const char *directory, const struct checkpoint *checkpoint,
			      struct copies *copies, struct error *err)
{
	DIR *stream;
	TRY(place_list(model, directory, &stream, err));
	enum status status = STATUS_OK;
	while (status == STATUS_OK) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry) {
			if (errno) status = error_errno(err, "%s", model->path);
			break;
		}
		const char *name = entry->d_name;
		bool wanted = directory ? *name != '.' : is_wanted(checkpoint, name);
		if (!wanted) continue;
		struct stat st;
		char *path;
		if (asprintf(&path, "%s%s%s", directory ? directory : "", directory ? "/" : "", name) < 0) {
			status = error_set(err, STATUS_NO_MEMORY, "no memory to list a model's files");
			break;
		}
		status = place_stat(model, path, &st, err);
		free(path);
		if (status == STATUS_OK && S_ISREG(st.st_mode)) status = add_copy(copies, directory, name, err);
	}
	closedir(stream);
	return status;
}

static enum status list_copies(const struct place *model, const struct checkpoint *checkpoint, struct copies *copies,
			       struct error *err)
{
	struct stat st;
	TRY(list_files(model, NULL, checkpoint, copies, err));
	for (size_t i = 0; i < sizeof wanted_directories / sizeof *wanted_directories; i++) {
		if (!place_has(model, wanted_directories[i])) continue;
		TRY(place_stat(model, wanted_directories[i], &st, err));
		if (S_ISDIR(st.st_mode)) TRY(list_files(model, wanted_directories[i], checkpoint, copies, err));
	}
	return STATUS_OK;
}

enum status output_check_inputs(const struct place *model, const struct checkpoint *checkpoint, struct error *err)
{
	struct copies copies = {0};
	enum status status = list_copies(model, checkpoint, &copies, err);
	copies_free(&copies);
	return status;
}

/* Allocates the room of one copy; *total is the sum of all, for the message of a full disk. */
static enum status reserve(const struct place *model, const struct place *work, const struct copy *copy, int64_t *total,
			   struct error *err)
{
	struct file from, part;
	TRY(place_open(model, copy->name, &from, err));
	*total += from.size;
	int64_t size = from.size;
	file_close(&from);
	TRY(place_create(work, copy->part, size, &part, err));
	file_close(&part);
	return STATUS_OK;
}

static enum status fill(const struct place *model, const struct place *work, const struct copy *copy, struct error *err)
{
	struct file from = {.fd = -1}, part = {.fd = -1};
	enum status status = place_open(model, copy->name, &from, err);
	if (status == STATUS_OK) status = place_open_write(work, copy->part, &part, err);
	if (status == STATUS_OK && from.size != part.size)
		status = error_set(err, STATUS_INVALID, "%s: changed while it was copied", from.path);
	if (status == STATUS_OK) status = file_copy_bytes(&from, &part, err);
	file_close(&from);
	file_close(&part);
	return status == STATUS_OK ? place_rename(work, copy->part, work, copy->name, PLACE_REPLACE, err) : status;
}

/* The directory of a copy, where it is one of the model's. */
static enum status make_directory(const struct place *work, const struct copy *copy, struct error *err)
{
	const char *slash = strrchr(copy->name, '/');
	if (!slash) return STATUS_OK;
	char *name = strndup(copy->name, (size_t)(slash - copy->name));
	if (!name) return error_set(err, STATUS_NO_MEMORY, "no memory to make a directory");
	enum status status = place_make(work, name, err);
	free(name);
	return status;
}

/* All room is taken before the first byte is copied, so that a full disk shows at once, with the bytes that are needed. What an earlier attempt
 * has copied is left as it is. */
static enum status copy_all(const struct place *model, const struct place *work, const struct copies *copies, struct error *err)
{
	enum status status = STATUS_OK;
	int64_t total = 0;
	for (size_t i = 0; i < copies->count && (status == STATUS_OK || status == STATUS_NO_SPACE); i++) {
		const struct copy *copy = &copies->items[i];
		struct stat st;
		struct error ignored;
		if (place_has(work, copy->name)) continue;
		if (status == STATUS_OK) status = make_directory(work, copy, err);
		if (status == STATUS_OK)
			status = reserve(model, work, copy, &total, err);
		else if (place_stat(model, copy->name, &st, &ignored) == STATUS_OK)
			total += st.st_size;
	}
	if (status == STATUS_NO_SPACE)
		error_prefix(err, "no room for a copy of %s, which needs %" PRId64 " bytes", model->path, total);
	for (size_t i = 0; i < copies->count && status == STATUS_OK; i++)
		if (!place_has(work, copies->items[i].name)) status = fill(model, work, &copies->items[i], err);
	if (status != STATUS_OK) {
		struct error ignored;
		for (size_t i = 0; i < copies->count; i++)
			place_remove(work, copies->items[i].part, &ignored);
	}
	return status;
}

static enum status open_shards(struct output *output, const struct checkpoint *checkpoint, struct error *err)
{
	output->shards = calloc((size_t)checkpoint->n_shards + 1, sizeof *output->shards);
	if (!output->shards) return error_set(err, STATUS_NO_MEMORY, "no memory to open %s", output->work.path);
	for (int i = 0; i < checkpoint->n_shards; i++) {
		TRY(place_open_write(&output->work, checkpoint->shard_names[i], &output->shards[i], err));
		output->n_shards++;
		if (output->shards[i].size != checkpoint->shards[i].size)
			return error_set(err, STATUS_INVALID,
					 "%s: has %" PRId64 " bytes and the model's file %" PRId64
					 ": the model has changed since this job began",
					 output->shards[i].path, output->shards[i].size, checkpoint->shards[i].size);
	}
	return STATUS_OK;
}

enum status output_open(const struct place *model, const struct checkpoint *checkpoint, const struct place *work,
			struct output *ret, struct error *err)
{
	struct output output = {0};
	struct copies copies = {0};
	TRY(place_make(work, NULL, err));
	enum status status = list_copies(model, checkpoint, &copies, err);
	if (status == STATUS_OK) status = copy_all(model, work, &copies, err);
	copies_free(&copies);
	if (status == STATUS_OK) status = place_below(work, NULL, &output.work, err);
	if (status == STATUS_OK) status = open_shards(&output, checkpoint, err);
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

void output_close(struct output *output)
{
	for (int i = 0; i < output->n_shards; i++)
		file_close(&output->shards[i]);
	free(output->shards);
	place_free(&output->work);
	*output = (struct output){0};
}
