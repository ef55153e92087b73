#include "daemon/saved.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <zlib.h>

#include "engine/prune/savepoint.h"

enum { TRIES = 20, PIECE_BYTES = 4 << 20, HEADER_BYTES = 64 };

int saved_blocks(const struct saved *saved)
{
	return cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(saved->savepoint, "blocks"));
}

void saved_close(struct saved *saved)
{
	for (int i = 0; i < saved->count; i++)
		file_close(&saved->files[i]);
	cJSON_Delete(saved->savepoint);
	*saved = (struct saved){0};
}

/* One that is not there is no failure: nothing is added. */
static enum status add(struct saved *saved, const char *path, struct error *err)
{
	enum status status = file_open_read(path, &saved->files[saved->count], err);
	if (status == STATUS_OK) saved->count++;
	return status == STATUS_NOT_FOUND ? STATUS_OK : status;
}

/* Is the savepoint that is open still the one of that name? */
static bool is_current(const struct file *savepoint)
{
	struct stat opened, named;
	return fstat(savepoint->fd, &opened) == 0 && stat(savepoint->path, &named) == 0 && opened.st_dev == named.st_dev &&
	       opened.st_ino == named.st_ino;
}

/* *ret_same: the savepoint was not replaced meanwhile. What it goes on from stays until another is there (engine/prune/pipeline.h,
 * 2). */
static enum status open_once(const char *directory, struct saved *saved, bool *ret_same, struct error *err)
{
	static const char *const kinds[] = {"hidden", "dense", "probe"};
	char path[PATH_MAX];
	*ret_same = true;
	snprintf(path, sizeof path, "%s/savepoint.json", directory);
	TRY(add(saved, path, err));
	if (!saved->count) return STATUS_OK;
	TRY(savepoint_read_open(&saved->files[0], &saved->savepoint, err));
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		snprintf(path, sizeof path, "%s/%s-%d.bin", directory, kinds[i], saved_blocks(saved));
		TRY(add(saved, path, err));
	}
	snprintf(path, sizeof path, "%s/tune.bin", directory);
	TRY(add(saved, path, err));
	snprintf(path, sizeof path, "%s/latents.bin", directory);
	TRY(add(saved, path, err));
	*ret_same = is_current(&saved->files[0]);
	return STATUS_OK;
}

enum status saved_open(const char *directory, struct saved *ret, struct error *err)
{
	bool same = false;
	*ret = (struct saved){0};
	for (int i = 0; i < TRIES && !same; i++) {
		saved_close(ret);
		TRY(open_once(directory, ret, &same, err));
	}
	return same ? STATUS_OK : error_set(err, STATUS_BUSY, "%s changes all the time; try again", directory);
}

/* Do blocks of such a job always start from hidden states? */
static bool is_calibrated(const struct saved *saved)
{
	static const char *const methods[] = {"besa", "wanda", "sparsegpt", "admm"};
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(saved->savepoint, "spec");
	const char *method = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(spec, "method"));
	for (size_t i = 0; method && i < sizeof methods / sizeof *methods; i++)
		if (strcmp(method, methods[i]) == 0) return true;
	return false;
}

enum status saved_complete(const struct saved *saved, const char *directory, int blocks, struct error *err)
{
	int blocks_done = saved_blocks(saved);
	if (!blocks_done || blocks_done >= blocks || !is_calibrated(saved)) return STATUS_OK;
	for (int i = 1; i < saved->count; i++)
		if (strstr(saved->files[i].path, "/hidden-")) return STATUS_OK;
	return error_set(err, STATUS_NOT_FOUND, "%s/hidden-%d.bin is gone", directory, blocks_done);
}

/* Where the checksum of the bytes behind the header is in it; 0 for a file without one (engine/prune/stream.c,
 * engine/tune/state.c), or with one for each block, of which the last are not written yet (engine/tune/latents.c). */
static size_t checksum_offset(const char header[HEADER_BYTES])
{
	static const struct {
		const char *magic;
		size_t offset;
	} kinds[] = {{"BESAHID1", 0}, {"BESAHID2", 32}, {"BESATUN1", 0}, {"BESATUN2", 48}, {"BESALAT1", 0}};
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (memcmp(header, kinds[i].magic, 8) == 0) return kinds[i].offset;
	return SIZE_MAX;
}

static enum status checksum(const struct file *file, uint32_t *ret, struct error *err)
{
	unsigned char *piece = malloc(PIECE_BYTES);
	if (!piece) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	enum status status = STATUS_OK;
	uLong crc = 0;
	for (int64_t at = HEADER_BYTES; !status && at < file->size; at += PIECE_BYTES) {
		size_t bytes = file->size - at < PIECE_BYTES ? (size_t)(file->size - at) : PIECE_BYTES;
		status = file_read(file, piece, bytes, at, err);
		if (!status) crc = crc32_z(crc, piece, bytes);
	}
	free(piece);
	*ret = (uint32_t)crc;
	return status;
}

enum status saved_check(const struct file *file, struct error *err)
{
	char header[HEADER_BYTES];
	uint32_t now = 0, then;
	TRY(file_read(file, header, sizeof header, 0, err));
	size_t offset = checksum_offset(header);
	if (offset == SIZE_MAX) return error_set(err, STATUS_INVALID, "%s: is not a file of a checkpoint", file->path);
	if (!offset) return STATUS_OK;
	memcpy(&then, header + offset, sizeof then);
	TRY(checksum(file, &now, err));
	if (now == then) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: is damaged: its checksum is %08x, and was %08x when it was written", file->path,
			 now, then);
}
