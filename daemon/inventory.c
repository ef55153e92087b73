#include "daemon/inventory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/clock.h"
#include "base/json.h"
#include "base/sha256.h"

enum { FORMAT = 1, MAX_MANIFEST = 64 << 20 };

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for a manifest");
}

/* ---- the files of a directory -------------------------------------------------------------------------------------------- */

struct walk {
	const struct place *directory;
	inventory_take *take;
	void *context;
};

static enum status visit(void *context, const char *name, const char *entry, struct error *err)
{
	struct walk *walk = context;
	struct stat info;
	(void)entry;
	TRY(place_lstat(walk->directory, name, &info, err));
	if (S_ISDIR(info.st_mode)) return place_each(walk->directory, name, visit, walk, err);
	return walk->take(walk->context, name, err);
}

static enum status each_file(const struct place *directory, inventory_take *take, void *context, struct error *err)
{
	struct walk walk = {directory, take, context};
	return place_each(directory, NULL, visit, &walk, err);
}

static enum status measure(const struct place *directory, const char *name, double *ret_bytes, char ret_sha256[SHA256_TEXT],
			   struct error *err)
{
	struct file file;
	TRY(place_open(directory, name, &file, err));
	*ret_bytes = (double)file.size;
	enum status status = sha256_file(&file, file.size, ret_sha256, err);
	file_close(&file);
	return status;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------- */

struct writing {
	const struct place *directory;
	cJSON *files;
	struct inventory_totals totals;
};

static enum status list_file(void *context, const char *name, struct error *err)
{
	struct writing *writing = context;
	char sha256[SHA256_TEXT];
	double bytes;
	TRY(measure(writing->directory, name, &bytes, sha256, err));
	cJSON *entry = cJSON_CreateObject();
	bool whole = cJSON_AddStringToObject(entry, "name", name) && cJSON_AddNumberToObject(entry, "bytes", bytes) &&
		     cJSON_AddStringToObject(entry, "sha256", sha256);
	if (!whole || !cJSON_AddItemToArray(writing->files, entry)) {
		cJSON_Delete(entry);
		return no_memory(err);
	}
	writing->totals.files++;
	writing->totals.bytes += bytes;
	return STATUS_OK;
}

enum status inventory_write(const struct place *directory, int64_t version, struct inventory_totals *ret, struct error *err)
{
	char now[32];
	cJSON *json = cJSON_CreateObject();
	time_format(unix_milliseconds(), now);
	bool whole = cJSON_AddNumberToObject(json, "format", FORMAT) && cJSON_AddStringToObject(json, "besad", BESAD_VERSION) &&
		     cJSON_AddNumberToObject(json, "database", (double)version) && cJSON_AddStringToObject(json, "created_at", now);
	struct writing writing = {directory, whole ? cJSON_AddArrayToObject(json, "files") : NULL, {0}};
	enum status status = writing.files ? each_file(directory, list_file, &writing, err) : no_memory(err);
	char *text = status ? NULL : cJSON_Print(json);
	cJSON_Delete(json);
	if (!status) status = text ? place_replace(directory, MANIFEST_NAME, text, strlen(text), err) : no_memory(err);
	free(text);
	if (!status) *ret = writing.totals;
	return status;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------- */

static enum status read_manifest(const struct place *directory, cJSON **ret, struct error *err)
{
	cJSON *json;
	int64_t format = 0;
	TRY(json_read_place(directory, MANIFEST_NAME, MAX_MANIFEST, &json, err));
	enum status status = json_get_int(json, MANIFEST_NAME, "format", 1, INT32_MAX, &format, err);
	const cJSON *files = cJSON_GetObjectItemCaseSensitive(json, "files"), *entry;
	if (!status && format > FORMAT)
		status = error_set(err, STATUS_UNSUPPORTED, "%s: was written by a newer besad; go on with that one", MANIFEST_NAME);
	bool whole = format == FORMAT && cJSON_IsArray(files);
	cJSON_ArrayForEach(entry, files)
	{
		whole = whole && cJSON_IsString(cJSON_GetObjectItemCaseSensitive(entry, "name")) &&
			cJSON_IsNumber(cJSON_GetObjectItemCaseSensitive(entry, "bytes")) &&
			cJSON_IsString(cJSON_GetObjectItemCaseSensitive(entry, "sha256"));
	}
	if (!status && !whole) status = error_set(err, STATUS_INVALID, "%s: is not the list of a backup's files", MANIFEST_NAME);
	if (status)
		cJSON_Delete(json);
	else
		*ret = json;
	return status;
}

static const char *text_of(const cJSON *entry, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(entry, key)->valuestring;
}

static double bytes_of(const cJSON *entry)
{
	return cJSON_GetObjectItemCaseSensitive(entry, "bytes")->valuedouble;
}

enum status inventory_each(const struct place *directory, inventory_take *take, void *context, struct inventory_totals *ret,
			   struct error *err)
{
	cJSON *json;
	const cJSON *entry;
	struct inventory_totals totals = {0};
	TRY(read_manifest(directory, &json, err));
	enum status status = STATUS_OK;
	cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(json, "files"))
	{
		if (!status) status = take(context, text_of(entry, "name"), err);
		totals.files++;
		totals.bytes += bytes_of(entry);
	}
	cJSON_Delete(json);
	if (!status) *ret = totals;
	return status;
}

struct checking {
	const struct place *directory;
	const cJSON *files;
	inventory_tell *tell;
	void *context;
};

static void tell_of(const struct checking *checking, const char *name, const char *what)
{
	char text[1024];
	snprintf(text, sizeof text, "%s: %s", name, what);
	checking->tell(checking->context, text);
}

/* What cannot be read is a problem of the backup, whatever the reason. */
static void compare(const struct checking *checking, const cJSON *entry)
{
	const char *name = text_of(entry, "name");
	char sha256[SHA256_TEXT];
	double bytes;
	struct error err;
	if (measure(checking->directory, name, &bytes, sha256, &err))
		checking->tell(checking->context, err.message);
	else if (bytes != bytes_of(entry))
		tell_of(checking, name, "has another size than when it was backed up");
	else if (strcmp(sha256, text_of(entry, "sha256")) != 0)
		tell_of(checking, name, "is damaged: its SHA-256 is another than when it was backed up");
}

static enum status find(void *context, const char *name, struct error *err)
{
	const struct checking *checking = context;
	const cJSON *entry;
	(void)err;
	if (strcmp(name, MANIFEST_NAME) == 0) return STATUS_OK;
	cJSON_ArrayForEach(entry, checking->files)
	{
		if (strcmp(text_of(entry, "name"), name) == 0) return STATUS_OK;
	}
	tell_of(checking, name, "does not belong to the backup: its manifest has no such file");
	return STATUS_OK;
}

enum status inventory_check(const struct place *directory, inventory_tell *tell, void *context, struct error *err)
{
	cJSON *json;
	const cJSON *entry;
	TRY(read_manifest(directory, &json, err));
	struct checking checking = {directory, cJSON_GetObjectItemCaseSensitive(json, "files"), tell, context};
	cJSON_ArrayForEach(entry, checking.files) compare(&checking, entry);
	enum status status = each_file(directory, find, &checking, err);
	cJSON_Delete(json);
	return status;
}
