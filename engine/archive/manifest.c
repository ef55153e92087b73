#include "engine/archive/manifest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/archive/packing.h"

enum { MAX_MANIFEST = 64 << 20 };

static const char format_name[] = "besad-archive";

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for " MANIFEST_NAME);
}

void manifest_free(struct manifest *manifest)
{
	for (size_t i = 0; i < manifest->count; i++) {
		free(manifest->files[i].name);
		free(manifest->files[i].packed);
	}
	free(manifest->files);
	*manifest = (struct manifest){0};
}

enum status manifest_add(struct manifest *manifest, const char *name, int64_t bytes, const char *packed, const char *sha256,
			 struct error *err)
{
	struct manifest_file file = {.bytes = bytes};
	struct manifest_file *grown = realloc(manifest->files, (manifest->count + 1) * sizeof *grown);
	if (!grown) return no_memory(err);
	manifest->files = grown;
	file.name = strdup(name);
	file.packed = packed ? strdup(packed) : NULL;
	snprintf(file.sha256, sizeof file.sha256, "%s", sha256);
	grown[manifest->count++] = file;
	return file.name && (file.packed || !packed) ? STATUS_OK : no_memory(err);
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct manifest_file *)a)->name, ((const struct manifest_file *)b)->name);
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

enum status manifest_write(const struct manifest *manifest, const struct place *archive, struct error *err)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "format", format_name);
	cJSON_AddNumberToObject(json, "version", ARCHIVE_VERSION);
	cJSON *files = cJSON_AddArrayToObject(json, "files");
	qsort(manifest->files, manifest->count, sizeof *manifest->files, by_name);
	for (size_t i = 0; i < manifest->count; i++) {
		const struct manifest_file *file = &manifest->files[i];
		cJSON *entry = cJSON_CreateObject();
		cJSON_AddStringToObject(entry, "name", file->name);
		cJSON_AddNumberToObject(entry, "bytes", (double)file->bytes);
		if (file->packed) cJSON_AddStringToObject(entry, "archive", file->packed);
		cJSON_AddStringToObject(entry, file->packed ? "head_sha256" : "sha256", file->sha256);
		json_add(files, NULL, entry);
	}
	char *text = json_ran_out() ? NULL : cJSON_Print(json);
	cJSON_Delete(json);
	if (!text) return no_memory(err);
	enum status status = place_replace(archive, MANIFEST_NAME, text, strlen(text), err);
	cJSON_free(text);
	return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

/* A path below a directory: components that are neither empty nor hidden, so neither "." nor "..". */
static bool is_below(const char *name)
{
	for (const char *at = name;; at = strchr(at, '/') + 1) {
		if (!*at || *at == '/' || *at == '.') return false;
		if (!strchr(at, '/')) return strlen(name) < 4096;
	}
}

static enum status read_file(const cJSON *entry, struct manifest *manifest, struct error *err)
{
	const char *name = NULL, *packed = NULL, *sha256 = NULL;
	int64_t bytes = -1;
	if (!cJSON_IsObject(entry)) return error_set(err, STATUS_INVALID, "'files' holds what is no object");
	TRY(json_get_string(entry, "a file", "name", &name, err));
	if (!name || !is_below(name)) return error_set(err, STATUS_INVALID, "the name '%.200s' cannot be", name ? name : "");
	TRY(json_get_string(entry, name, "archive", &packed, err));
	if (packed && !is_below(packed)) return error_set(err, STATUS_INVALID, "the name '%.200s' cannot be", packed);
	TRY(json_get_int(entry, name, "bytes", 0, INT64_C(1) << 53, &bytes, err));
	TRY(json_get_string(entry, name, packed ? "head_sha256" : "sha256", &sha256, err));
	if (bytes < 0 || !sha256 || strlen(sha256) != SHA256_TEXT - 1)
		return error_set(err, STATUS_INVALID, "'%.200s' lacks its size or checksum", name);
	return manifest_add(manifest, name, bytes, packed, sha256, err);
}

static enum status read_all(const cJSON *json, struct manifest *manifest, struct error *err)
{
	const cJSON *files = cJSON_GetObjectItemCaseSensitive(json, "files"), *entry;
	const char *format = NULL;
	int64_t version = 0;
	TRY(json_get_string(json, "the manifest", "format", &format, err));
	TRY(json_get_int(json, "the manifest", "version", 0, INT32_MAX, &version, err));
	if (!format || strcmp(format, format_name) != 0 || !cJSON_IsArray(files))
		return error_set(err, STATUS_INVALID, "not the manifest of an archive");
	if (version != ARCHIVE_VERSION)
		return error_set(err, STATUS_UNSUPPORTED, "an archive of version %lld, and this besad reads %d", (long long)version,
				 ARCHIVE_VERSION);
	cJSON_ArrayForEach(entry, files)
	{
		if (manifest->count == MANIFEST_MAX_FILES)
			return error_set(err, STATUS_INVALID, "more than %d files", MANIFEST_MAX_FILES);
		TRY(read_file(entry, manifest, err));
	}
	if (manifest->count) qsort(manifest->files, manifest->count, sizeof *manifest->files, by_name);
	for (size_t i = 1; i < manifest->count; i++)
		if (by_name(&manifest->files[i - 1], &manifest->files[i]) == 0)
			return error_set(err, STATUS_INVALID, "'%.200s' is there twice", manifest->files[i].name);
	return STATUS_OK;
}

enum status manifest_read(const struct place *archive, struct manifest *ret, struct error *err)
{
	struct manifest manifest = {0};
	cJSON *json;
	TRY(json_read_place(archive, MANIFEST_NAME, MAX_MANIFEST, &json, err));
	enum status status = read_all(json, &manifest, err);
	cJSON_Delete(json);
	if (status != STATUS_OK) {
		manifest_free(&manifest);
		return error_prefix(err, "%s/" MANIFEST_NAME, archive->path);
	}
	*ret = manifest;
	return STATUS_OK;
}
