#include "engine/output/files.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/archive/manifest.h"
#include "engine/output/publish.h"

/* ---- the list ------------------------------------------------------------------------------------------------------------ */

void output_files_free(struct output_files *files)
{
	for (size_t i = 0; i < files->count; i++) {
		free(files->items[i].name);
		free(files->items[i].part);
	}
	free(files->items);
	*files = (struct output_files){0};
}

enum status output_files_add(struct output_files *files, const char *directory, const char *name, int64_t size, output_fill fill,
			     const void *context, struct error *err)
{
	struct output_file *grown = realloc(files->items, (files->count + 1) * sizeof *grown);
	struct output_file file = {.size = size, .fill = fill, .context = context};
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to list the files of an output");
	files->items = grown;
	const char *in = directory ? directory : "", *slash = directory ? "/" : "";
	if (asprintf(&file.name, "%s%s%s", in, slash, name) < 0) file.name = NULL;
	if (asprintf(&file.part, "%s%s.%s.part", in, slash, name) < 0) file.part = NULL;
	grown[files->count++] = file;
	return file.name && file.part ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory to list the files of an output");
}

/* ---- copies of the model's files ----------------------------------------------------------------------------------------- */

static bool is_shard(const struct checkpoint *checkpoint, const char *name)
{
	for (int i = 0; i < checkpoint->n_shards; i++)
		if (strcmp(checkpoint->shard_names[i], name) == 0) return true;
	return false;
}

/* The directories of a model whose files belong into the output. */
static const char *const wanted_directories[] = {"additional_chat_templates"};

/* Whether a file of the model directory belongs into the output: a shard, or what else loading or the licence asks for. */
static bool is_wanted(const struct checkpoint *checkpoint, bool weights, const char *name)
{
	static const char *const suffixes[] = {".json", ".model", ".txt", ".py", ".jinja", ".md", ".tiktoken", ".spm"};
	static const char *const prefixes[] = {"LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY"};
	static const char versioned[] = "tokenizer.model."; /* tokenizer.model.v3 of the Mistral models */
	if (*name == '.' || strcmp(name, REPORT_NAME) == 0 || strcmp(name, MANIFEST_NAME) == 0) return false;
	if (is_shard(checkpoint, name)) return weights;
	/* Of the indexes only the one whose shards are copied. */
	if (text_ends_with(name, ".index.json"))
		return weights && strcmp(name, CHECKPOINT_INDEX_NAME) == 0 && !is_shard(checkpoint, CHECKPOINT_SINGLE_NAME);
	if (strncmp(name, versioned, strlen(versioned)) == 0) return true;
	for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
		if (text_ends_with(name, suffixes[i])) return true;
	for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0 && !strchr(name, '.')) return true;
	return false;
}

static enum status fill_copy(const struct output_file *file, const struct file *part, struct error *err)
{
	struct file from;
	TRY(place_open(file->context, file->name, &from, err));
	enum status status = from.size == part->size ? file_copy_bytes(&from, 0, part, 0, from.size, err)
						     : error_set(err, STATUS_INVALID, "%s: changed while it was copied", from.path);
	file_close(&from);
	return status;
}

static bool is_listed(const struct output_files *files, const char *name)
{
	for (size_t i = 0; i < files->count; i++)
		if (strcmp(files->items[i].name, name) == 0) return true;
	return false;
}

/* Adds a copy of `name`, where it is a regular file. */
static enum status add_copy(struct output_files *files, const struct place *model, const char *directory, const char *name,
			    struct error *err)
{
	struct stat st;
	struct place here = {0};
	TRY(place_below(model, directory, &here, err));
	enum status status = place_stat(&here, name, &st, err);
	place_free(&here);
	if (status != STATUS_OK || !S_ISREG(st.st_mode)) return status;
	return output_files_add(files, directory, name, st.st_size, fill_copy, model, err);
}

/* The files of the model directory, or of one in it, that belong into the output. */
static enum status copy_directory(struct output_files *files, const struct place *model, const char *directory,
				  const struct checkpoint *checkpoint, bool weights, struct error *err)
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
		if (directory ? *name != '.' : is_wanted(checkpoint, weights, name) && !is_listed(files, name))
			status = add_copy(files, model, directory, name, err);
	}
	closedir(stream);
	return status;
}

enum status output_files_copy(struct output_files *files, const struct place *model, const struct checkpoint *checkpoint,
			      bool weights, struct error *err)
{
	struct stat st;
	bool there;
	TRY(copy_directory(files, model, NULL, checkpoint, weights, err));
	for (size_t i = 0; i < sizeof wanted_directories / sizeof *wanted_directories; i++) {
		TRY(place_look(model, wanted_directories[i], &there, err));
		if (!there) continue;
		TRY(place_stat(model, wanted_directories[i], &st, err));
		if (S_ISDIR(st.st_mode)) TRY(copy_directory(files, model, wanted_directories[i], checkpoint, weights, err));
	}
	return STATUS_OK;
}

int64_t output_files_bytes(const struct output_files *files)
{
	int64_t bytes = 0;
	for (size_t i = 0; i < files->count; i++)
		bytes += files->items[i].size;
	return bytes;
}

enum status output_check_inputs(const struct place *model, const struct checkpoint *checkpoint, struct error *err)
{
	struct output_files files = {0};
	enum status status = output_files_copy(&files, model, checkpoint, true, err);
	output_files_free(&files);
	return status;
}

/* ---- making them --------------------------------------------------------------------------------------------------------- */

/* The directory of a file, where it is not the work directory itself. */
static enum status make_directory(const struct place *work, const struct output_file *file, struct error *err)
{
	const char *slash = strrchr(file->name, '/');
	if (!slash) return STATUS_OK;
	char *name = strndup(file->name, (size_t)(slash - file->name));
	if (!name) return error_set(err, STATUS_NO_MEMORY, "no memory to make a directory");
	enum status status = place_make(work, name, err);
	free(name);
	return status;
}

static enum status reserve(const struct place *work, const struct output_file *file, struct error *err)
{
	struct file part;
	TRY(make_directory(work, file, err));
	TRY(place_create(work, file->part, file->size, &part, err));
	file_close(&part);
	return STATUS_OK;
}

static enum status fill(const struct place *work, const struct output_file *file, struct error *err)
{
	struct file part;
	TRY(place_open_write(work, file->part, &part, err));
	enum status status = file->fill(file, &part, err);
	if (status == STATUS_OK) status = file_sync(&part, err);
	file_close(&part);
	return status == STATUS_OK ? place_rename(work, file->part, work, file->name, PLACE_REPLACE, err) : status;
}

enum status output_files_make(const struct output_files *files, const struct place *model, const struct place *work,
			      struct error *err)
{
	int64_t total = 0;
	enum status status = place_make(work, NULL, err);
	for (size_t i = 0; i < files->count && (status == STATUS_OK || status == STATUS_NO_SPACE); i++) {
		struct error failure;
		bool there;
		enum status found = place_look(work, files->items[i].name, &there, &failure);
		if (found != STATUS_OK) {
			*err = failure;
			status = found;
			break;
		}
		if (there) continue;
		total += files->items[i].size;
		if (status == STATUS_OK) status = reserve(work, &files->items[i], err);
	}
	if (status == STATUS_NO_SPACE)
		error_prefix(err, "no room for a copy of %s, which needs %" PRId64 " bytes", model->path, total);
	for (size_t i = 0; i < files->count && status == STATUS_OK; i++) {
		bool there;
		status = place_look(work, files->items[i].name, &there, err);
		if (status == STATUS_OK && !there) status = fill(work, &files->items[i], err);
	}
	if (status != STATUS_OK) {
		struct error ignored;
		for (size_t i = 0; i < files->count; i++)
			place_remove(work, files->items[i].part, &ignored);
	}
	return status;
}
