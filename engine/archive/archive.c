#include "engine/archive/archive.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/archive/archive_file.h"
#include "engine/archive/pack_file.h"

enum { MAX_DEPTH = 16 };

static const char packed_suffix[] = ".safetensors", archive_suffix[] = ".besad.safetensors";

static enum status no_memory(const struct place *place, struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory to work on %s", place->path);
}

static bool is_stopped(const atomic_bool *stop)
{
	return stop && atomic_load(stop);
}

static enum status stopped(struct error *err)
{
	return error_set(err, STATUS_CANCELLED, "stopped");
}

/* An empty directory. */
static enum status make_anew(const struct place *to, struct error *err)
{
	TRY(place_remove(to, NULL, err));
	return place_make(to, NULL, err);
}

/* Calls `act` with the directory that a file lies in, where that is not `to` itself. */
static enum status on_directory(const struct place *to, const char *name,
				enum status (*act)(const struct place *, const char *name, struct error *), struct error *err)
{
	const char *slash = strrchr(name, '/');
	if (!slash) return STATUS_OK;
	char *above = strndup(name, (size_t)(slash - name));
	if (!above) return no_memory(to, err);
	enum status status = act(to, above, err);
	free(above);
	return status;
}

/* Makes the directories above a file. */
static enum status make_above(const struct place *to, const char *name, struct error *err)
{
	return on_directory(to, name, place_make, err);
}

/* Syncs the directories of the files, deepest last: their names are durable then. */
static enum status sync_directories(const struct place *to, const struct manifest *manifest, struct error *err)
{
	for (size_t i = 0; i < manifest->count; i++)
		TRY(on_directory(to, manifest->files[i].name, place_sync, err));
	return place_sync(to, NULL, err);
}

/* Copies a file that lies in both directories as it is; its checksum is made of what was copied. */
static enum status copy(const struct file *from, const struct place *to, const char *name, const atomic_bool *stop,
			char sha256[SHA256_TEXT], struct error *err)
{
	struct file copy;
	TRY(make_above(to, name, err));
	TRY(place_create(to, name, from->size, &copy, err));
	enum status status = file_copy_bytes(from, 0, &copy, 0, from->size, err);
	if (status == STATUS_OK) status = sha256_file_stoppable(&copy, from->size, stop, sha256, err);
	if (status == STATUS_OK) status = file_sync(&copy, err);
	file_close(&copy);
	return status;
}

/* ---- packing ------------------------------------------------------------------------------------------------------------- */

struct packer {
	const struct place *model, *to;
	const struct archive_options *options;
	struct stat made; /* `to`, which may lie in the model, and is no part of it */
	struct manifest manifest;
	int depth; /* of directories in each other */
};

static enum status pack_safetensors(struct packer *packer, const struct file *from, const char *name, struct error *err)
{
	struct packed_file packed;
	char *packed_name;
	TRY(make_above(packer->to, name, err));
	if (asprintf(&packed_name, "%.*s%s", (int)(strlen(name) - strlen(packed_suffix)), name, archive_suffix) < 0)
		return no_memory(packer->model, err);
	bool taken;
	enum status status = place_look(packer->model, packed_name, &taken, err);
	if (status == STATUS_OK)
		status = taken ? error_set(err, STATUS_INVALID, "%s/%s: lies where %s would be packed; move one of them away",
					   packer->model->path, packed_name, name)
			       : pack_file(from, packer->to, packed_name, packer->options->coded, packer->options->stop, &packed,
					   err);
	if (status == STATUS_OK) status = manifest_add(&packer->manifest, name, from->size, packed_name, packed.head_sha256, err);
	free(packed_name);
	return status;
}

static enum status pack_one(struct packer *packer, const char *name, struct error *err)
{
	struct file from;
	char sha256[SHA256_TEXT];
	if (is_stopped(packer->options->stop)) return stopped(err);
	if (packer->options->progress) packer->options->progress(packer->options->context);
	if (packer->manifest.count == MANIFEST_MAX_FILES)
		return error_set(err, STATUS_INVALID, "%s: holds more than %d files", packer->model->path, MANIFEST_MAX_FILES);
	TRY(place_open(packer->model, name, &from, err));
	enum status status;
	/* An archive's own files, as in an output that a job has archived, are as small as they get, and cannot be packed twice. */
	if (text_ends_with(name, packed_suffix) && !text_ends_with(name, archive_suffix)) {
		status = pack_safetensors(packer, &from, name, err);
	} else {
		status = copy(&from, packer->to, name, packer->options->stop, sha256, err);
		if (status == STATUS_OK) status = manifest_add(&packer->manifest, name, from.size, NULL, sha256, err);
	}
	file_close(&from);
	return status;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool is_excepted(const struct archive_options *options, const char *name)
{
	for (const char *const *except = options->except; except && *except; except++)
		if (strcmp(*except, name) == 0) return true;
	return false;
}

static enum status pack_entry(void *context, const char *name, const char *entry, struct error *err);

static enum status pack_directory(struct packer *packer, const char *directory, struct error *err)
{
	if (packer->depth == MAX_DEPTH)
		return error_set(err, STATUS_INVALID, "%s/%s: directories in each other, more than %d deep", packer->model->path,
				 directory, MAX_DEPTH);
	packer->depth++;
	TRY(place_each(packer->model, directory, pack_entry, packer, err));
	packer->depth--;
	return STATUS_OK;
}

/* A file or directory. */
static enum status pack_entry(void *context, const char *name, const char *entry, struct error *err)
{
	struct packer *packer = context;
	struct stat st, target;
	if (*entry == '.' || is_excepted(packer->options, name)) return STATUS_OK;
	TRY(place_lstat(packer->model, name, &st, err));
	TRY(place_stat(packer->model, name, &target, err));
	if (S_ISLNK(st.st_mode) && S_ISDIR(target.st_mode))
		return error_set(err, STATUS_INVALID, "%s/%s: a link to a directory, which an archive cannot hold",
				 packer->model->path, name);
	if (!S_ISDIR(st.st_mode)) return pack_one(packer, name, err);
	return is_same(&st, &packer->made) ? STATUS_OK : pack_directory(packer, name, err);
}

enum status archive_pack(const struct place *model, const struct place *to, const struct archive_options *options,
			 struct error *err)
{
	struct packer packer = {.model = model, .to = to, .options = options};
	bool packed;
	TRY(place_look(model, MANIFEST_NAME, &packed, err));
	if (packed) return error_set(err, STATUS_EXISTS, "%s: an archive already (it holds %s)", model->path, MANIFEST_NAME);
	TRY(make_anew(to, err));
	TRY(place_stat(to, NULL, &packer.made, err));
	enum status status = place_each(model, NULL, pack_entry, &packer, err);
	if (status == STATUS_OK && !packer.manifest.count)
		status = error_set(err, STATUS_INVALID, "%s: holds no file to pack", model->path);
	if (status == STATUS_OK) status = manifest_write(&packer.manifest, to, err);
	if (status == STATUS_OK) status = sync_directories(to, &packer.manifest, err);
	manifest_free(&packer.manifest);
	return status;
}

/* ---- unpacking ----------------------------------------------------------------------------------------------------------- */

/* What is opened of an archive must be what the manifest tells of. */
static enum status check_head(const struct archive_file *archive, const struct manifest_file *listed, struct error *err)
{
	char sha256[SHA256_TEXT];
	TRY(sha256_file(archive->file, archive->own_head_bytes, sha256, err));
	if (strcmp(sha256, listed->sha256) == 0 && archive->file_bytes == listed->bytes) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: damaged: its header is not that which " MANIFEST_NAME " tells of",
			 archive->file->path);
}

/* To no directory where `to` is NULL. */
static enum status restore_packed(const struct archive_file *archive, const struct manifest_file *listed, const struct place *to,
				  const atomic_bool *stop, struct error *err)
{
	struct file restored;
	TRY(check_head(archive, listed, err));
	if (!to) return archive_file_restore(archive, NULL, stop, err);
	TRY(make_above(to, listed->name, err));
	TRY(place_create(to, listed->name, archive->file_bytes, &restored, err));
	enum status status = archive_file_restore(archive, &restored, stop, err);
	if (status == STATUS_OK) status = file_sync(&restored, err);
	file_close(&restored);
	return status;
}

static enum status restore_plain(const struct file *from, const struct manifest_file *listed, const struct place *to,
				 const atomic_bool *stop, struct error *err)
{
	char sha256[SHA256_TEXT];
	if (from->size != listed->bytes)
		return error_set(err, STATUS_INVALID, "%s: damaged: has %" PRId64 " bytes, and had %" PRId64, from->path,
				 from->size, listed->bytes);
	TRY(to ? copy(from, to, listed->name, stop, sha256, err) : sha256_file_stoppable(from, from->size, stop, sha256, err));
	if (strcmp(sha256, listed->sha256) == 0) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: damaged: its checksum is another", from->path);
}

static enum status restore_one(const struct place *place, const struct manifest_file *listed, const struct place *to,
			       const atomic_bool *stop, struct error *err)
{
	struct file from;
	struct archive_file archive;
	if (is_stopped(stop)) return stopped(err);
	TRY(place_open(place, listed->packed ? listed->packed : listed->name, &from, err));
	enum status status;
	if (!listed->packed) {
		status = restore_plain(&from, listed, to, stop, err);
	} else {
		status = archive_file_open(&from, &archive, err);
		if (status == STATUS_OK) {
			status = restore_packed(&archive, listed, to, stop, err);
			archive_file_close(&archive);
		}
	}
	file_close(&from);
	return status;
}

static enum status restore(const struct place *archive, const struct place *to, const atomic_bool *stop, struct error *err)
{
	struct manifest manifest;
	TRY(manifest_read(archive, &manifest, err));
	enum status status = to ? make_anew(to, err) : STATUS_OK;
	for (size_t i = 0; i < manifest.count && status == STATUS_OK; i++)
		status = restore_one(archive, &manifest.files[i], to, stop, err);
	if (status == STATUS_OK && to) status = sync_directories(to, &manifest, err);
	manifest_free(&manifest);
	return status;
}

enum status archive_unpack(const struct place *archive, const struct place *to, const atomic_bool *stop, struct error *err)
{
	return restore(archive, to, stop, err);
}

enum status archive_verify(const struct place *archive, const atomic_bool *stop, struct error *err)
{
	return restore(archive, NULL, stop, err);
}
