#include "engine/prune/savepoint.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <zlib.h>

#include "base/json.h"
#include "base/place.h"
#include "engine/spec/restore.h"

enum { MAX_SAVEPOINT = 64 << 20, CHECKSUM_DIGITS = 8 };

/* The last member of the object: the CRC-32 of all that is in front of this text. */
static const char checksum_key[] = ",\"checksum\":\"", checksum_end[] = "\"}";

static uint32_t crc_of(const char *text, size_t bytes)
{
	return (uint32_t)crc32_z(0, (const Bytef *)text, bytes);
}

/* Where the checksum's member begins in the text of a savepoint; NULL where it does not end with one. */
static const char *find_checksum(const char *text, size_t bytes)
{
	const size_t key = sizeof checksum_key - 1, end = sizeof checksum_end - 1, whole = key + CHECKSUM_DIGITS + end;
	if (bytes < whole || memcmp(text + bytes - whole, checksum_key, key) != 0 ||
	    memcmp(text + bytes - end, checksum_end, end) != 0)
		return NULL;
	return text + bytes - whole;
}

static enum status damaged(const char *path, const char *now, const char *then, struct error *err)
{
	return error_set(err, STATUS_INVALID,
			 "%s: is damaged: its checksum is %s, and was %.8s when it was written; the job cannot go on from it: look "
			 "after the disk, and submit the job again",
			 path, now, then);
}

static enum status parse_checked(const char *text, size_t bytes, const char *path, cJSON **ret, struct error *err)
{
	cJSON *json;
	const char *at = find_checksum(text, bytes);
	char now[CHECKSUM_DIGITS + 1];
	if (at) {
		const char *then = at + sizeof checksum_key - 1;
		snprintf(now, sizeof now, "%08x", crc_of(text, (size_t)(at - text)));
		if (memcmp(now, then, CHECKSUM_DIGITS) != 0) return damaged(path, now, then, err);
	}
	TRY(json_parse(text, bytes, path, &json, err));
	const cJSON *elsewhere = cJSON_GetObjectItemCaseSensitive(json, "checksum");
	if (!at && elsewhere) {
		const char *then = cJSON_GetStringValue(elsewhere);
		damaged(path, "elsewhere", then ? then : "another", err);
		cJSON_Delete(json);
		return err->status;
	}
	*ret = json;
	return STATUS_OK;
}

enum status savepoint_read_open(const struct file *file, cJSON **ret, struct error *err)
{
	char *text;
	size_t bytes;
	TRY(file_slurp_open(file, MAX_SAVEPOINT, &text, &bytes, err));
	enum status status = parse_checked(text, bytes, file->path, ret, err);
	free(text);
	return status;
}

enum status savepoint_read(const char *path, cJSON **ret, struct error *err)
{
	struct file file;
	TRY(file_open_read(path, &file, err));
	enum status status = savepoint_read_open(&file, ret, err);
	file_close(&file);
	return status;
}

static enum status read_fields(const cJSON *json, const char *path, const cJSON *spec, struct savepoint *ret, struct error *err)
{
	int64_t threads = 0, format = 1;
	const char *backend = NULL, *precision = NULL, *hash = "";
	TRY(json_get_int(json, path, "format", 1, INT32_MAX, &format, err));
	if (format > SAVEPOINT_FORMAT)
		return error_set(err, STATUS_UNSUPPORTED,
				 "%s: was written by a newer besad (its format is %d, this one knows %d); go on with that one",
				 path, (int)format, SAVEPOINT_FORMAT);
	TRY(json_get_int(json, path, "threads", 1, 1 << 20, &threads, err));
	TRY(json_get_string(json, path, "backend", &backend, err));
	TRY(json_get_string(json, path, "precision", &precision, err));
	TRY(json_get_string(json, path, "calibration_hash", &hash, err));
	const cJSON *then = cJSON_GetObjectItemCaseSensitive(json, "spec"),
		    *dense = cJSON_GetObjectItemCaseSensitive(json, "dense"),
		    *blocks = cJSON_GetObjectItemCaseSensitive(json, "blocks");
	if (!threads || !backend || !precision || !cJSON_IsObject(then) || !cJSON_IsObject(dense) || !cJSON_IsArray(blocks))
		return error_set(err, STATUS_INVALID, "%s: not a savepoint", path);
	/* What only one of the two has was added to specs by a version in between. */
	struct json_difference difference;
	cJSON *work = spec_work(spec);
	if (!work) return error_set(err, STATUS_NO_MEMORY, "no memory for the spec");
	bool other = json_differ(then, work, true, &difference);
	cJSON_Delete(work);
	if (other)
		return error_set(err, STATUS_INVALID, "%s: belongs to a job with another spec: %s differs", path,
				 difference.pointer);
	ret->threads = (int)threads;
	snprintf(ret->backend, sizeof ret->backend, "%s", backend);
	snprintf(ret->precision, sizeof ret->precision, "%s", precision);
	snprintf(ret->calibration_hash, sizeof ret->calibration_hash, "%s", hash);
	ret->probe_dense =
		cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "probe_dense")); /* NaN where there is none */
	ret->dense = cJSON_Duplicate(dense, true);
	const cJSON *tasks = cJSON_GetObjectItemCaseSensitive(json, "dense_tasks");
	ret->dense_tasks = cJSON_IsObject(tasks) ? cJSON_Duplicate(tasks, true) : cJSON_CreateObject();
	ret->blocks = cJSON_Duplicate(blocks, true);
	ret->allocation = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(json, "allocation"), true);
	const cJSON *findings = cJSON_GetObjectItemCaseSensitive(json, "findings");
	ret->findings = findings ? cJSON_Duplicate(findings, true) : cJSON_CreateArray();
	ret->written = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(json, "written"), true);
	if (!ret->written && !cJSON_GetArraySize(blocks)) ret->written = cJSON_CreateArray();
	ret->end_loss = cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "end_loss")); /* likewise */
	ret->tuned = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "tuned"));
	ret->inputs = cJSON_Duplicate(cJSON_GetObjectItemCaseSensitive(json, "inputs"), true);
	ret->found = true;
	return STATUS_OK;
}

enum status savepoint_load(const char *directory, const cJSON *spec, int blocks_done, struct savepoint *ret, struct error *err)
{
	char path[4096];
	struct savepoint savepoint = {.directory = directory, .probe_dense = NAN, .end_loss = NAN};
	if (snprintf(path, sizeof path, "%s/savepoint.json", directory) >= (int)sizeof path - 64)
		return error_set(err, STATUS_INVALID, "path too long: %s", directory);
	bool there;
	TRY(path_look(path, &there, err));
	if (there) {
		cJSON *json = NULL;
		TRY(savepoint_read(path, &json, err));
		enum status status = read_fields(json, path, spec, &savepoint, err);
		cJSON_Delete(json);
		if (status != STATUS_OK) return status;
	} else {
		if (blocks_done)
			return error_set(err, STATUS_NOT_FOUND,
					 "%s is gone, so %d finished blocks cannot be continued; submit the job again", path,
					 blocks_done);
		savepoint.dense = cJSON_CreateObject();
		savepoint.dense_tasks = cJSON_CreateObject();
		savepoint.blocks = cJSON_CreateArray();
		savepoint.written = cJSON_CreateArray();
		savepoint.findings = cJSON_CreateArray();
	}
	bool whole = savepoint.blocks && (savepoint.written || savepoint_blocks(&savepoint));
	if (!savepoint.dense || !savepoint.dense_tasks || !savepoint.findings || !whole) {
		savepoint_free(&savepoint);
		return error_set(err, STATUS_NO_MEMORY, "no memory for a savepoint");
	}
	*ret = savepoint;
	return STATUS_OK;
}

int savepoint_format(const struct savepoint *savepoint)
{
	return savepoint->allocation ? SAVEPOINT_FORMAT : SAVEPOINT_FORMAT_UNIFORM;
}

/* The text of an object, with the member behind its last one. The caller frees it; NULL without memory. */
static char *with_checksum(const char *text)
{
	char *checked;
	size_t bytes = strlen(text) - 1; /* without the brace at its end */
	int length = asprintf(&checked, "%.*s%s%08x%s", (int)bytes, text, checksum_key, crc_of(text, bytes), checksum_end);
	return length < 0 ? NULL : checked;
}

enum status savepoint_save(const struct savepoint *savepoint, const cJSON *spec, struct error *err)
{
	char path[4096];
	snprintf(path, sizeof path, "%s/savepoint.json", savepoint->directory);
	cJSON *json = cJSON_CreateObject();
	bool whole = cJSON_AddNumberToObject(json, "format", savepoint_format(savepoint)) &&
		     json_add_reference(json, "spec", spec) &&
		     (!savepoint->inputs || json_add_reference(json, "inputs", savepoint->inputs)) &&
		     cJSON_AddStringToObject(json, "backend", savepoint->backend) &&
		     cJSON_AddNumberToObject(json, "threads", savepoint->threads) &&
		     cJSON_AddStringToObject(json, "precision", savepoint->precision) &&
		     cJSON_AddStringToObject(json, "calibration_hash", savepoint->calibration_hash) &&
		     json_add_reference(json, "dense", savepoint->dense) &&
		     json_add_reference(json, "dense_tasks", savepoint->dense_tasks) &&
		     (isnan(savepoint->probe_dense) || json_add_exact(json, "probe_dense", savepoint->probe_dense)) &&
		     (!savepoint->allocation || json_add_reference(json, "allocation", savepoint->allocation)) &&
		     json_add_reference(json, "findings", savepoint->findings) &&
		     (!savepoint->written || json_add_reference(json, "written", savepoint->written)) &&
		     (isnan(savepoint->end_loss) || json_add_exact(json, "end_loss", savepoint->end_loss)) &&
		     (!savepoint->tuned || cJSON_AddTrueToObject(json, "tuned")) &&
		     json_add_reference(json, "blocks", savepoint->blocks);
	char *text = whole && !json_ran_out() ? cJSON_PrintUnformatted(json) : NULL; /* not half of one over a good one */
	cJSON_Delete(json);
	char *checked = text ? with_checksum(text) : NULL;
	free(text);
	if (!checked) return error_set(err, STATUS_NO_MEMORY, "no memory for a savepoint");
	enum status status = place_replace(&PLACE(path), NULL, checked, strlen(checked), err);
	free(checked);
	return status;
}

void savepoint_free(struct savepoint *savepoint)
{
	cJSON_Delete(savepoint->dense);
	cJSON_Delete(savepoint->dense_tasks);
	cJSON_Delete(savepoint->allocation);
	cJSON_Delete(savepoint->written);
	cJSON_Delete(savepoint->findings);
	cJSON_Delete(savepoint->blocks);
	cJSON_Delete(savepoint->inputs);
	*savepoint = (struct savepoint){0};
}

int savepoint_blocks(const struct savepoint *savepoint)
{
	return cJSON_GetArraySize(savepoint->blocks);
}

void savepoint_path(const struct savepoint *savepoint, const char *kind, int block, char path[4096])
{
	snprintf(path, 4096, "%s/%s-%d.bin", savepoint->directory, kind, block);
}

/* Is it a file of hidden states, whole or not, that are not those in front of `block`? */
static bool is_left(const char *name, int block)
{
	static const char *const kinds[] = {"hidden", "dense", "probe"};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		char ours[32];
		size_t length = strlen(kinds[i]);
		if (strncmp(name, kinds[i], length) != 0 || name[length] != '-') continue;
		snprintf(ours, sizeof ours, "%s-%d.bin", kinds[i], block);
		return strcmp(name, ours) != 0;
	}
	return false;
}

enum status savepoint_sweep(const struct savepoint *savepoint, int block, struct error *err)
{
	DIR *stream = opendir(savepoint->directory);
	if (!stream) return error_errno(err, "%s", savepoint->directory);
	enum status status = STATUS_OK;
	const struct dirent *entry;
	while ((entry = readdir(stream)))
		if (is_left(entry->d_name, block) && unlinkat(dirfd(stream), entry->d_name, 0) != 0 && status == STATUS_OK)
			status = error_errno(err, "%s/%s", savepoint->directory, entry->d_name);
	closedir(stream);
	return status;
}
